"""Images packed into Parquet shards (`data/images/`), the quarantine and the summary."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cbir.artifacts.tables import column_sha256, not_readable, read_table, shard_paths, write_table
from cbir.core.errors import REPAIR, DataError
from cbir.core.files import fresh_folder

FINGERPRINT_SIDE = 16  # pixels
PACKED_FORMATS = ("JPEG", "PNG")  # of the bytes in `image`

IMAGE_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("label_name", pa.string()),
        pa.field("caption", pa.string()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("fingerprint", pa.binary(FINGERPRINT_SIDE**2), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
    ]
)
QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("sha256", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
    ]
)
SHARD_ROWS, SHARD_BYTES = 1024, 16 * 2**20  # of an average shard: rows, or bytes if images are large
_CHECKED = ("image_id", "sha256", "image")  # read together, to check each image
_GROUP_ROWS = 64  # read together when one image is needed
MAX_SHARD_ROWS, MAX_SHARD_BYTES = 4 * SHARD_ROWS, 4 * SHARD_BYTES  # bounds memory; one shard in fifty would be larger


@dataclass(frozen=True)
class PackedImage:
    """One row of a shard.  sha256 is the hash of `image`, the encoded bytes; width and height are in pixels.

    fingerprint : the image scaled to 16 x 16 greys, one byte each, to detect copies that were scaled or recompressed.
    """

    image_id: str
    label: str | None
    label_name: str | None
    caption: str | None
    source: str
    sha256: str
    width: int
    height: int
    fingerprint: bytes
    image: bytes


@dataclass(frozen=True)
class Quarantined:
    """One row of the quarantine: an image that could not be decoded, and why."""

    source: str
    sha256: str | None
    reason: str
    detail: str
    bytes: int


def write_shards(folder: Path, images: Iterable[PackedImage]) -> int:
    """Write images to `part-*.parquet`, in the order given, with one shard in memory at a time; return their count.

    The images themselves decide where a shard ends (content-defined chunking, as in rsync and restic): adding or removing
    an image changes only its own shard, so results computed from the other shards stay valid.
    """
    fresh_folder(folder)
    rows: list[PackedImage] = []
    held_bytes = shard = count = 0
    for image in images:
        rows.append(image)
        held_bytes += len(image.image)
        count += 1
        if _ends_shard(image) or len(rows) == MAX_SHARD_ROWS or held_bytes >= MAX_SHARD_BYTES:
            _write_shard(folder, shard, rows)
            rows, held_bytes, shard = [], 0, shard + 1
    if rows:
        _write_shard(folder, shard, rows)
    if count == 0:
        (folder / ".no-images").touch()  # each stage that reads an empty folder makes DVC warn of it
    return count


def shard_path(folder: Path, number: int) -> Path:
    """The path of a shard; shards are numbered from 0."""
    return folder / f"part-{number:05d}.parquet"


def read_shards(folder: Path, columns: list[str] | None = None) -> Iterator[tuple[str, pa.Table]]:
    """Yield (name of the shard, its table) in order, one in memory at a time.

    Raises DataError if a shard is damaged, or if `columns` has `image` and its bytes are not those that sha256 names.
    """
    columns = columns or IMAGE_SCHEMA.names
    for path in shard_paths(folder, "part-*.parquet"):
        if "image" not in columns:
            yield path.stem, read_table(path, IMAGE_SCHEMA, columns)
            continue
        table = read_table(path, IMAGE_SCHEMA, list(dict.fromkeys([*columns, *_CHECKED])))
        _check_images(path, table)
        yield path.stem, table.select(columns)


def read_columns(folder: Path, columns: list[str]) -> pa.Table:
    """Read the given columns of all shards.  Do not read `image` this way: the whole data set would be in memory."""
    tables = [table for _, table in read_shards(folder, columns)]
    return pa.concat_tables(tables) if tables else IMAGE_SCHEMA.empty_table().select(columns)


def read_image(path: Path, row: int) -> tuple[str, bytes] | None:
    """Return image_id and encoded bytes of a row of a shard, or None if there is no such row.

    Reads the row group of the row, not the whole shard.  Raises DataError if the file is absent or damaged.
    """
    try:
        with pq.ParquetFile(path, memory_map=True, page_checksum_verification=True) as file:
            if row >= file.metadata.num_rows:
                return None
            table = file.read_row_group(row // _GROUP_ROWS, columns=list(_CHECKED), use_threads=False)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise not_readable(path, error) from error
    stored = table.slice(row % _GROUP_ROWS, 1)
    _check_images(path, stored)
    return str(stored["image_id"][0]), stored["image"][0].as_py()


def read_images(folder: Path, image_ids: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Yield image_id and encoded bytes of each given image that the shards hold, in the order of the shards.

    Reads only row groups that hold such an image, one at a time.  Raises DataError if a file is absent or damaged.
    """
    wanted = pa.array(sorted(set(image_ids)), pa.string())
    for path in shard_paths(folder, "part-*.parquet"):
        rows = np.flatnonzero(pc.is_in(read_table(path, IMAGE_SCHEMA, ["image_id"])["image_id"], wanted).to_numpy())
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                for group in np.unique(rows // _GROUP_ROWS):
                    table = file.read_row_group(group, columns=list(_CHECKED), use_threads=False)
                    table = table.take(rows[rows // _GROUP_ROWS == group] % _GROUP_ROWS)
                    _check_images(path, table)
                    yield from zip(table["image_id"].to_pylist(), table["image"].to_pylist(), strict=True)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise not_readable(path, error) from error


def write_quarantine(path: Path, rows: Iterable[Quarantined]) -> str:
    """Write the quarantine, sorted by source; return the hash of its contents, for the summary of the run."""
    ordered = sorted(rows, key=lambda row: row.source)
    table = pa.Table.from_pylist([asdict(row) for row in ordered], QUARANTINE_SCHEMA)
    write_table(path, table, QUARANTINE_SCHEMA)
    return _contents_sha256(table)


def read_quarantine(path: Path, expected_sha256: str | None = None) -> pa.Table:
    """Read the quarantine.  expected_sha256 : see `write_quarantine`.  Raises DataError where it is another one."""
    table = read_table(path, QUARANTINE_SCHEMA)
    if expected_sha256 is not None and _contents_sha256(table) != expected_sha256:
        raise DataError(f"{path}: expected the quarantine of this run, found that of another: {REPAIR}")
    return table


def _contents_sha256(table: pa.Table) -> str:
    return sha256("".join(column_sha256(table[name]) for name in table.column_names).encode()).hexdigest()


def _check_images(path: Path, table: pa.Table) -> None:
    """Raise DataError unless the bytes of each image are those that sha256 names.  table : the columns in _CHECKED."""
    for image_id, expected, image in zip(*(table[name] for name in _CHECKED), strict=True):
        actual = sha256(image.as_buffer()).hexdigest()
        if actual != expected.as_py():
            raise DataError(
                f"{path}: image {image_id.as_py()!r}: expected bytes whose sha256 is {expected}, found {actual}: {REPAIR}"
            )


def _ends_shard(image: PackedImage) -> bool:
    """Decide by 32 bits of the image's hash; the probability is the image's share of an average shard."""
    share = max(1 / SHARD_ROWS, len(image.image) / SHARD_BYTES)
    return int(image.sha256[:8], 16) < share * 2**32


def _write_shard(folder: Path, shard: int, rows: list[PackedImage]) -> None:
    table = pa.Table.from_pylist([asdict(row) for row in rows], IMAGE_SCHEMA)
    write_table(shard_path(folder, shard), table, IMAGE_SCHEMA, stored=("image",), group_rows=_GROUP_ROWS)
