"""The parameters of the group `dataset` that name the source of the images."""

from dataclasses import dataclass

from cbir.core.errors import ConfigError
from cbir.core.params import Parameters, at_least


@dataclass(kw_only=True)
class SourceParams(Parameters):
    """Address, hash and greatest size of a data set, or the number of images to draw; see the comments in `conf/dataset/`."""

    url: str | None  # no default: it would hide ??? in conf/dataset/image_folder.yaml, so each file there sets it
    sha256: str | None = None
    md5: str | None = None
    max_bytes: int = 20_000_000_000
    draw_seed: int | None = None
    draw_gallery_images: int | None = None
    draw_query_images: int | None = None

    def __post_init__(self) -> None:
        if self.url is not None and self.draw_gallery_images is not None:
            raise ConfigError(
                "url, draw_gallery_images: expected an address or a number of drawings, found both: set one of them to null"
            )
        at_least(1, self, "draw_gallery_images", "max_bytes")
        at_least(0, self, "draw_seed", "draw_query_images")
