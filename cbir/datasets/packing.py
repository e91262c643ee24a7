"""Pack the images of a data set into shards: decode in threads, keep the order, put bad images into quarantine."""

from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from cbir.artifacts.images import PackedImage, Quarantined, read_shards, write_shards
from cbir.core.errors import DataError, UndecodableImage
from cbir.core.parallel import ordered_map
from cbir.core.progress import progress
from cbir.datasets.base import SourceImage
from cbir.datasets.decoding import Change, encode_for_packing


@dataclass(frozen=True)
class Limits:
    """Limits of an image: its pixels before decoding, and its shorter side in pixels when packed (see `packed_size`)."""

    max_pixels: int
    max_side_px: int


@dataclass
class Packed:
    """What was packed: counts over the packed images, and the images in quarantine.

    changes : "kept", "converted" or "reduced" -> number of images; see `EncodedImage`.
    """

    images: int = 0
    bytes: int = 0
    per_label: Counter[str] = field(default_factory=Counter)
    changes: Counter[Change] = field(default_factory=Counter)
    quarantine: list[Quarantined] = field(default_factory=list)

    def add(self, image: PackedImage, change: Change) -> None:
        """Count a packed image."""
        self.images += 1
        self.bytes += len(image.image)
        self.changes[change] += 1
        if image.label is not None:
            self.per_label[image.label] += 1


def pack_images(folder: Path, images: Iterable[SourceImage], limits: Limits, workers: int, title: str) -> Packed:
    """Write the images that can be decoded to shards in `folder`.

    images : in ascending order of image_id; this reveals duplicates without a table of all ids.
    Raises DataError when two images have the same image_id.
    """
    packed = Packed()
    last = ""
    with ThreadPoolExecutor(workers) as pool, progress(None, title, "images") as bar:

        def pack(image: SourceImage) -> tuple[PackedImage, Change] | Quarantined:
            return _pack(image, limits)

        def packed_images() -> Iterator[PackedImage]:
            nonlocal last
            for result in ordered_map(pool, pack, images, ahead=8 * workers):
                bar.advance(1)
                if isinstance(result, Quarantined):
                    packed.quarantine.append(result)
                    continue
                row, change = result
                if row.image_id <= last:
                    raise DataError(f"image_id {row.image_id!r} after {last!r}: expected ascending, distinct ids")
                last = row.image_id
                packed.add(row, change)
                yield row

        write_shards(folder, packed_images())
    return packed


def packed_rows(folder: Path, *columns: str) -> Iterator[tuple[Any, ...]]:
    """Yield the values of the columns for each packed image, in order of image_id."""
    for _, table in read_shards(folder, list(columns)):
        yield from zip(*(table[column].to_pylist() for column in columns), strict=True)


def check_bad_fraction(quarantine: list[Quarantined], attempted: int, max_bad_fraction: float, where: str) -> None:
    """Raise DataError when more than the allowed fraction of the `attempted` images is in quarantine."""
    bad = len(quarantine)
    if bad and bad / attempted > max_bad_fraction:
        raise DataError(
            f"{bad} of {attempted} images cannot be decoded, more than dataset.max_bad_fraction = {max_bad_fraction} "
            f"allows ({quarantine_examples(quarantine)}): repair or remove them, see {where}, or raise the fraction"
        )


def quarantine_examples(quarantine: list[Quarantined]) -> str:
    """The first three images in quarantine with their reasons, for a message."""
    return "; ".join([f"{row.source}: {row.reason}" for row in quarantine[:3]] + ["..."] * (len(quarantine) > 3))


def _pack(image: SourceImage, limits: Limits) -> tuple[PackedImage, Change] | Quarantined:
    data = None
    try:
        data = image.read()
        encoded = encode_for_packing(data, limits.max_pixels, limits.max_side_px)
    except UndecodableImage as error:
        digest = None if data is None else sha256(data).hexdigest()
        return Quarantined(image.source, digest, error.reason, error.detail, 0 if data is None else len(data))
    row = PackedImage(
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
    return row, encoded.change
