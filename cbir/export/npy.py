"""Embeddings and categories as plain NPY files, for notebooks (`cbir export npy`); `np.load` reads them, without pickles.

    <encoder>_gallery.npy      float32 (n_gallery, dim)   unit rows
    <encoder>_queries.npy      float32 (n_queries, dim)   unit rows, of query images
    clip_texts.npy             float32 (n_texts, dim)     unit rows, of text queries
    gallery_ids.npy, queries_ids.npy, texts_ids.npy       the ids of the rows above
    gallery_labels.npy         the class of each gallery image, "" where it has none
    categories.npy             the classes, in order
    <encoder>_categories.npy   float32 (n_classes, dim)   the mean vector of each class, scaled to unit length

Ids, labels and categories are arrays of NumPy's unicode type, which gives each the room of the longest: 4 bytes a character.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cbir.artifacts.images import read_columns
from cbir.artifacts.names import ENCODERS
from cbir.artifacts.vectors import MISSING, Vectors, VectorSet, open_vectors, positions_of
from cbir.core.errors import ConfigError, DataError, PassportError
from cbir.core.files import replacing
from cbir.evaluation.classes import Classes, unit_means

KINDS = ("gallery", "queries", "texts")
MAX_TEXT_BYTES: Final = 4 * 2**30  # of one array of ids: a million of them, 1,000 characters long
_BLOCK_ROWS = 1024
_CHARACTER_BYTES = 4


@dataclass(frozen=True)
class Column:
    """One file to be written: its rows come in blocks, so that memory holds one of them."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    blocks: Iterable[npt.NDArray[np.generic]]


@dataclass(frozen=True)
class ExportedArray:
    """A file that was written."""

    path: Path
    dtype: np.dtype
    shape: tuple[int, ...]


def export_npy(data: Path, out: Path, encoders: Sequence[str] = ENCODERS) -> list[ExportedArray]:
    """Write the files of these encoders into `out`; those that an earlier export left there go, of every encoder.

    Raises DataError when no pipeline has run, the images are not those of the vectors, or an array of ids would be too large;
    PassportError when the encoders' rows are not the same; ConfigError when `out` is no folder and cannot become one.
    """
    columns = list(_columns(data, encoders))
    try:
        for name in _every_name():  # first, so that nothing stands beside what is not of its run, not even after a kill
            (out / name).unlink(missing_ok=True)
        return [_write(out, column) for column in columns]
    except OSError as error:
        raise ConfigError(f"--out: expected a folder to write into, found {out}: {error.strerror}") from error


def _class_means(vectors: VectorSet, classes: Classes) -> Column:
    """Raises DataError for a class whose vectors cancel out: their mean has no direction."""
    encoder, dim = vectors.passport["encoder"], vectors.passport["dim"]
    means = unit_means(vectors.parts, classes, dim)
    lost = np.isnan(means).any(axis=1)
    if lost.any():
        label = classes.labels[int(lost.argmax())]
        raise DataError(f"{encoder}: the vectors of class {label!r} cancel out: it has no mean vector")
    return _vectors(f"{encoder}_categories.npy", [means], dim)


def _columns(data: Path, encoders: Sequence[str]) -> Iterator[Column]:
    """All that is to be written, checked; nothing is read of the vectors but those of the class means."""
    classes: Classes | None = None
    ids: dict[str, pa.Array] = {}
    for encoder, kind in product(encoders, KINDS):
        folder = data / "embeddings" / encoder
        if kind == "texts" and not (folder / kind).exists():
            continue  # this encoder reads no text
        vectors = open_vectors(folder, encoder, kind)
        if kind not in ids:
            ids[kind] = vectors.ids
            yield _texts(f"{kind}_ids.npy", vectors.ids)
        elif not vectors.ids.equals(ids[kind]):
            raise PassportError(f"{folder / kind}: expected the ids of {encoders[0]}, found others: run `dvc repro`")
        yield _vectors(f"{encoder}_{kind}.npy", vectors.parts, vectors.passport["dim"])
        if kind != "gallery":
            continue
        if classes is None:
            labels = _labels(data / "images" / "gallery", vectors.ids)
            classes = Classes.of(labels)
            yield _texts("gallery_labels.npy", pc.fill_null(labels, ""))
            yield _texts("categories.npy", pa.array(classes.labels, pa.string()))
        yield _class_means(vectors, classes)


def _labels(images: Path, ids: pa.Array) -> pa.Array:
    table = read_columns(images, ["image_id", "label"])
    positions = positions_of(ids, table["image_id"].combine_chunks())
    if (positions == MISSING).any():
        absent = ids[int((positions == MISSING).argmax())].as_py()
        raise DataError(f"{images}: no image {absent!r}, though it has a vector: run `dvc repro`")
    return table["label"].combine_chunks().take(pa.array(positions))


def _vectors(name: str, parts: Sequence[Vectors], dim: int) -> Column:
    return Column(name, np.dtype("<f4"), (sum(map(len, parts)), dim), parts)


def _texts(name: str, texts: pa.Array) -> Column:
    """Raises DataError where the array would be too large, or NumPy would lose the end of a text (a zero character)."""
    longest = pc.max(pc.utf8_length(texts)).as_py() or 1
    held = len(texts) * longest * _CHARACTER_BYTES
    if held > MAX_TEXT_BYTES:
        raise DataError(
            f"{name}: expected at most {MAX_TEXT_BYTES / 2**30:g} GiB, found {len(texts):,} texts of up to {longest:,} "
            f"characters, {held / 2**30:.1f} GiB as NumPy keeps them: read them from the part-*.parquet files of data/"
        )
    if pc.any(pc.ends_with(texts, "\0")).as_py():
        raise DataError(f"{name}: expected texts that NumPy can keep, found one that ends with a zero character")
    dtype = np.dtype(f"<U{longest}")
    starts = range(0, len(texts), _BLOCK_ROWS)
    blocks = (np.array(texts.slice(start, _BLOCK_ROWS).to_pylist(), dtype) for start in starts)
    return Column(name, dtype, (len(texts),), blocks)


def _write(out: Path, column: Column) -> ExportedArray:
    """As np.save would.  Not through a memory map: on a full disk writing to one kills the process."""
    path = out / column.name
    header = {"descr": column.dtype.str, "fortran_order": False, "shape": column.shape}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in column.blocks:
            file.write(block.astype(column.dtype, copy=False).tobytes())
    return ExportedArray(path, column.dtype, column.shape)


def _every_name() -> set[str]:
    shared = {*(f"{kind}_ids.npy" for kind in KINDS), "gallery_labels.npy", "categories.npy"}
    return shared | {f"{encoder}_{of}.npy" for encoder in ENCODERS for of in (*KINDS, "categories")}
