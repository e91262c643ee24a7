"""Embeddings and categories as NPY files, for notebooks (`cbir export npy`); `np.load` reads them, without pickles.

    <encoder>_gallery.npy      float32 (n_gallery, dim)   unit rows
    <encoder>_queries.npy      float32 (n_queries, dim)   unit rows, of query images
    <encoder>_texts.npy        float32 (n_texts, dim)     unit rows, of text queries, where the encoder reads text
    <encoder>_prompts.npy      float32 (n_prompts, dim)   unit rows, of the prompts, where the encoder reads text
    gallery_ids.npy, queries_ids.npy, texts_ids.npy       the ids of the rows
    prompts_ids.npy            the prompts, which are their own ids
    gallery_labels.npy         the class of each gallery image, "" where it has none
    categories.npy             the classes, sorted
    <encoder>_categories.npy   float32 (n_classes, dim)   the mean vector of each class, scaled to unit length

Ids, labels and categories have NumPy's unicode type, in which each item takes the space of the longest: 4 bytes per character.
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

from cbir.artifacts.contents import VECTOR_KINDS, check_vectors
from cbir.artifacts.images import read_columns
from cbir.artifacts.paths import DataPaths
from cbir.artifacts.vectors import Vectors, VectorSet, open_vectors
from cbir.core.errors import ConfigError, DataError
from cbir.core.files import replacing
from cbir.evaluation.classes import Classes, unit_means
from cbir.export.manifest import replace_earlier

MAX_TEXT_BYTES: Final = 4 * 2**30  # of one array of ids: a million ids of 1,000 characters
_BLOCK_ROWS = 1024
_CHARACTER_BYTES = 4


@dataclass(frozen=True)
class Column:
    """The content of one file, in blocks of rows, so that memory holds one block at a time."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    blocks: Iterable[npt.NDArray[np.generic]]


@dataclass(frozen=True)
class ExportedArray:
    """A written file."""

    path: Path
    dtype: np.dtype
    shape: tuple[int, ...]


def export_npy(data: DataPaths, out: Path, encoders: Sequence[str]) -> list[ExportedArray]:
    """Write the files of `encoders` to `out`, and delete those of an earlier export.

    Raises DataError when the pipeline has not run, or an array of ids would be too large;
    PassportError when the vectors are not those of the images and texts; ConfigError when `out` is not a folder and cannot
    be created.
    """
    columns = list(_columns(data, encoders))
    try:
        replace_earlier(out, "npy", [column.name for column in columns])
        return [_write(out, column) for column in columns]
    except OSError as error:
        raise ConfigError(f"--out: expected a folder to write into, found {out}: {error.strerror}") from error


def _class_means(vectors: VectorSet, classes: Classes) -> Column:
    """The mean vectors of the classes.  Raises DataError for a class whose vectors cancel out: their mean has no direction."""
    encoder, dim = vectors.passport["encoder"], vectors.passport["dim"]
    means = unit_means(vectors.parts, classes, dim)
    is_undefined = np.isnan(means).any(axis=1)
    if is_undefined.any():
        label = classes.labels[int(is_undefined.argmax())]
        raise DataError(f"{encoder}: the vectors of class {label!r} cancel out: it has no mean vector")
    return _vectors(f"{encoder}_categories.npy", [means], dim)


def _columns(data: DataPaths, encoders: Sequence[str]) -> Iterator[Column]:
    """The checked content of all files; of the vectors only the class means are computed here."""
    classes: Classes | None = None
    written: set[str] = set()
    for encoder in encoders:
        check_vectors(data, encoder)
    for encoder, kind in product(encoders, VECTOR_KINDS):
        folder = data.vectors(encoder, kind)
        if kind in ("texts", "prompts") and not folder.exists():
            continue  # the encoder has no vectors of texts
        vectors = open_vectors(data.embeddings(encoder), encoder, kind)
        if kind not in written:
            written.add(kind)  # the ids of the other encoders are the same
            yield _texts(f"{kind}_ids.npy", vectors.ids)
        yield _vectors(f"{encoder}_{kind}.npy", vectors.parts, vectors.passport["dim"])
        if kind != "gallery":
            continue
        if classes is None:
            labels = read_columns(data.images("gallery"), ["label"])["label"].combine_chunks()
            classes = Classes.of(labels)
            yield _texts("gallery_labels.npy", pc.fill_null(labels, ""))
            yield _texts("categories.npy", pa.array(classes.labels, pa.string()))
        yield _class_means(vectors, classes)


def _vectors(name: str, parts: Sequence[Vectors], dim: int) -> Column:
    return Column(name, np.dtype("<f4"), (sum(map(len, parts)), dim), parts)


def _texts(name: str, texts: pa.Array) -> Column:
    """Raises DataError when the array would be too large, or a text ends with a zero character, which NumPy would drop."""
    longest = pc.max(pc.utf8_length(texts)).as_py() or 1
    size_bytes = len(texts) * longest * _CHARACTER_BYTES
    if size_bytes > MAX_TEXT_BYTES:
        raise DataError(
            f"{name}: expected at most {MAX_TEXT_BYTES / 2**30:g} GiB, found {len(texts):,} texts of up to {longest:,} "
            f"characters, {size_bytes / 2**30:.1f} GiB in NumPy: read them from the part-*.parquet files of data/"
        )
    if pc.any(pc.ends_with(texts, "\0")).as_py():
        raise DataError(f"{name}: expected texts that NumPy can store, found one that ends with a zero character")
    dtype = np.dtype(f"<U{longest}")
    starts = range(0, len(texts), _BLOCK_ROWS)
    blocks = (np.array(texts.slice(start, _BLOCK_ROWS).to_pylist(), dtype) for start in starts)
    return Column(name, dtype, (len(texts),), blocks)


def _write(out: Path, column: Column) -> ExportedArray:
    """Write as np.save does, but block by block.  A memory map would kill the process on a full disk."""
    path = out / column.name
    header = {"descr": column.dtype.str, "fortran_order": False, "shape": column.shape}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in column.blocks:
            file.write(block.astype(column.dtype, copy=False).tobytes())
    return ExportedArray(path, column.dtype, column.shape)
