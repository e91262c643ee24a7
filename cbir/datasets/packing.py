"""Pack a data set's images into shards: decode in threads, keep the order, set bad images aside."""

from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from cbir.artifacts.images import PackedImage, Quarantined, write_shards
from cbir.core.errors import DataError, UndecodableImage
from cbir.core.parallel import ordered_map
from cbir.core.progress import progress
from cbir.datasets.base import SourceImage
from cbir.datasets.decoding import encode_for_packing


@dataclass(frozen=True)
class Limits:
    """What an image may measure: pixels before decoding, side in pixels after it."""

    max_pixels: int
    max_side_px: int


@dataclass
class Packed:
    """What packing left: counts of the images that went in, and those that were set aside."""

    images: int = 0
    bytes: int = 0
    per_label: Counter[str] = field(default_factory=Counter)
    quarantine: list[Quarantined] = field(default_factory=list)

    def add(self, image: PackedImage) -> None:
        """Count an image that went in."""
        self.images += 1
        self.bytes += len(image.image)
        if image.label is not None:
            self.per_label[image.label] += 1


def pack_images(folder: Path, images: Iterable[SourceImage], limits: Limits, workers: int, title: str) -> Packed:
    """Write the decodable images as shards in `folder`; return what went where.

    images : in ascending order of image_id, which shows duplicates without a table of all ids.
    Raises DataError when two images have one image_id.
    """
    packed = Packed()
    last = ""
    with ThreadPoolExecutor(workers) as pool, progress(None, title, "images") as bar:

        def pack(image: SourceImage) -> PackedImage | Quarantined:
            return _pack(image, limits)

        def kept() -> Iterator[PackedImage]:
            nonlocal last
            for result in ordered_map(pool, pack, images, ahead=8 * workers):
                bar.advance(1)
                if isinstance(result, Quarantined):
                    packed.quarantine.append(result)
                    continue
                if result.image_id <= last:
                    raise DataError(f"image_id {result.image_id!r} after {last!r}: expected ascending, distinct ids")
                last = result.image_id
                packed.add(result)
                yield result

        write_shards(folder, kept())
    return packed


def check_bad_fraction(quarantine: list[Quarantined], attempted: int, max_bad_fraction: float, where: str) -> None:
    """Raise DataError when more than the allowed share of the attempted images went to quarantine."""
    bad = len(quarantine)
    if bad and bad / attempted > max_bad_fraction:
        raise DataError(
            f"{bad} of {attempted} images cannot be decoded, more than dataset.max_bad_fraction = {max_bad_fraction} "
            f"allows ({examples(quarantine)}): mend or remove them, see {where}, or raise the fraction"
        )


def examples(quarantine: list[Quarantined]) -> str:
    """The first few images set aside, for a message."""
    return "; ".join([f"{row.source}: {row.reason}" for row in quarantine[:3]] + ["..."] * (len(quarantine) > 3))


def _pack(image: SourceImage, limits: Limits) -> PackedImage | Quarantined:
    data = None
    try:
        data = image.read()
        encoded = encode_for_packing(data, limits.max_pixels, limits.max_side_px)
    except UndecodableImage as error:
        digest = None if data is None else sha256(data).hexdigest()
        return Quarantined(image.source, digest, error.reason, error.detail, 0 if data is None else len(data))
    return PackedImage(
        image.image_id,
        image.label,
        image.label_name,
        image.caption,
        image.source,
        encoded.sha256,
        encoded.width,
        encoded.height,
        encoded.fingerprint,
        encoded.data,
    )
