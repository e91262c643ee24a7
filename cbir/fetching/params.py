"""The parameters of the group `dataset` that name the source of the images."""

from dataclasses import dataclass

from cbir.core.params import Parameters, at_least


@dataclass(kw_only=True)
class SourceParams(Parameters):
    """Address and hash of a data set, or the number of images to draw; see the comments in `conf/dataset/`."""

    url: str | None  # each file of conf/dataset/ sets it; ??? there would not replace a default
    sha256: str | None = None
    md5: str | None = None
    draw_seed: int | None = None
    draw_gallery_images: int | None = None
    draw_query_images: int | None = None

    def __post_init__(self) -> None:
        at_least(1, self, "draw_gallery_images")
        at_least(0, self, "draw_seed", "draw_query_images")
