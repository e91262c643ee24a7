"""Thumbnails of packed images, for pages and notebooks."""

from dataclasses import dataclass
from io import BytesIO

from PIL import Image

from cbir.artifacts.images import PACKED_FORMATS
from cbir.core.html import data_uri


@dataclass(frozen=True)
class Thumbnail:
    """An encoded image that is small enough to send by the dozen.  kind : "jpeg" or "png".  width : in pixels."""

    data: bytes
    kind: str
    width: int

    @classmethod
    def of(cls, packed: bytes, px: int) -> "Thumbnail":
        """Shrink an image that the pipeline packed, an upright RGB or grey JPEG or PNG, unless it is within px x px."""
        image = Image.open(BytesIO(packed), formats=PACKED_FORMATS)
        kind = str(image.format).lower()
        if max(image.size) <= px:
            return cls(packed, kind, image.width)
        image.thumbnail((px, px))
        image.info = {}  # else Pillow writes the old comment, which may be longer than a JPEG allows
        small = BytesIO()
        image.save(small, "JPEG", quality=85)
        return cls(small.getvalue(), "jpeg", image.width)

    @property
    def uri(self) -> str:
        """The thumbnail as a `data:` URI."""
        return data_uri(self.data, f"image/{self.kind}")
