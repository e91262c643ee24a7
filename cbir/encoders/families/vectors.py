"""Vectors that another tool made, joined by id: no weights, no forward pass.

`encoders.<name>.weights` is a folder on this machine, `encoders.<name>.architecture` what the names of its files begin with.
The files (see `cbir.encoders.vector_files`) are of these kinds:

    gallery, queries, images    vectors of images by image_id, whatever file they come from
    texts                       of the text queries by query_id
    prompts                     of the prompts by their text

`cbir export npy` writes such a folder.  The encoder's folder holds the vectors as float32 of length 1, in images/, texts/ and
prompts/, each in the form of `cbir.artifacts.vectors.write_part`.
"""

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final, NoReturn

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cbir.artifacts.vectors import MISSING, Vectors, positions_of, read_parts, rows_at, write_part
from cbir.core.errors import ConfigError, DataError
from cbir.core.files import add_ids, fresh_folder, hash_ids
from cbir.encoders.base import Card, EmbedsNothingError
from cbir.encoders.options import refuse_options
from cbir.encoders.params import EncoderParams
from cbir.encoders.vector_files import Block, VectorFile, open_vector_file
from cbir.fetching.addresses import local_path

_KINDS: Final = {"images": ("gallery", "queries", "images"), "texts": ("texts",), "prompts": ("prompts",)}
_TOLERANCE = (
    1e-5  # of a length of 1, and between two vectors of one id: float32 vectors of one image differ with the batch
)


def fetch_weights(group: str, params: EncoderParams, out: Path) -> Card:
    """Check the vectors of the folder and store them (see `cbir.encoders.families.FamilyModule`).

    Raises ConfigError when the folder or its files are not there; DataError when a file is damaged or of another form, when
    dimensions differ, a vector is not finite or zero, or two vectors of one id differ.
    """
    refuse_options(group, params, "weights_sha256", "weights_tag", "tokenizer", "image_px", "pooling")
    files = _open_files(group, params)
    _check_dims([file for of_kind in files.values() for file in of_kind])
    lengths = {file.path: _lengths(file) for of_kind in files.values() for file in of_kind}
    scaled = {path: bounds for path, bounds in lengths.items() if not _are_unit(*bounds)}
    if scaled:
        bounds = ", ".join(f"{path.name} (lengths {least:g} to {most:g})" for path, (least, most) in scaled.items())
        print(f"{out.name}: scaled to length 1: {bounds}", flush=True)
    fresh_folder(out)
    hashes = [f"{kind} {_store(out / kind, of_kind, scaled)}" for kind, of_kind in files.items()]
    return Card(
        family=params.family.value,
        architecture=params.architecture,
        origin=params.weights,
        tag=None,
        weights_sha256=hash_ids(hashes),
        settings_sha256=None,
        settings={kind: kind in files for kind in ("texts", "prompts")},
    )


def build_modules(folder: Path) -> NoReturn:
    """Raise EmbedsNothingError: there are no weights."""
    raise EmbedsNothingError(folder.name)


def _open_files(group: str, params: EncoderParams) -> dict[str, list[VectorFile]]:
    """Stored kind -> its files; a kind without files is left out.  Raises ConfigError when there are no vectors of images."""
    folder = local_path(params.weights)
    if folder is None or not folder.is_dir():
        raise ConfigError(
            f"{group}.weights: expected a folder with vectors on this machine, found {params.weights!r}; "
            f"set {group}.weights=/path/to/folder"
        )
    opened = {
        kind: [open_vector_file(folder, params.architecture, name) for name in names] for kind, names in _KINDS.items()
    }
    files = {kind: [file for file in of_kind if file is not None] for kind, of_kind in opened.items()}
    if not any(len(file.ids) for file in files["images"]):
        present = sorted(path.name for path in folder.glob("*") if path.suffix in (".npy", ".parquet"))[:5]
        raise ConfigError(
            f"{group}.architecture: expected vectors in {folder / params.architecture}_gallery.npy or .parquet, found "
            f"{', '.join(present) or 'no such files'} there; set {group}.architecture to what the files' names begin with"
        )
    return {kind: of_kind for kind, of_kind in files.items() if of_kind}


def _check_dims(files: Sequence[VectorFile]) -> None:
    first, *others = (file for file in files if file.dim is not None)
    for file in others:
        if file.dim != first.dim:
            raise DataError(
                f"{file.path}: expected vectors of {first.dim} components as in {first.path.name}, found {file.dim}: "
                "all must come from one encoder"
            )


def _lengths(file: VectorFile) -> tuple[float, float]:
    """The least and the greatest length.  Raises DataError when one is 0 or not finite."""
    least, most, row = np.inf, 0.0, 0
    for block in file.read_blocks():
        lengths = _norms(block)
        bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
        if len(bad):
            actual = "zero" if lengths[bad[0]] == 0 else "NaN or infinity"
            raise DataError(
                f"{file.path}: expected finite vectors other than zero, found {actual} in row {row + int(bad[0])}, "
                f"id {file.ids[row + int(bad[0])].as_py()!r}: leave out what has no vector"
            )
        least, most = min(least, lengths.min()), max(most, lengths.max())
        row += len(block)
    return float(least), float(most)


def _norms(block: Block) -> npt.NDArray[np.float64]:
    lengths: npt.NDArray[np.float64] = np.linalg.norm(block.astype(np.float64), axis=1)
    return lengths


def _are_unit(least: float, most: float) -> bool:
    return least >= 1 - _TOLERANCE and most <= 1 + _TOLERANCE


def _unit_blocks(file: VectorFile, scale: bool) -> Iterator[Vectors]:
    for block in file.read_blocks():
        yield (block / _norms(block)[:, None] if scale else block).astype(np.float32)


def _store(out: Path, files: Sequence[VectorFile], scaled: Mapping[Path, object]) -> str:
    """Write the parts of a kind, each id once; return the hash of all ids and vectors.

    scaled : the files whose rows are to be scaled to length 1.
    Raises DataError when two files have different vectors of an id.
    """
    fresh_folder(out)
    stored, part, ids_hash, rows_hash = pa.array([], pa.string()), 0, sha256(), sha256()
    for file in files:
        in_earlier = positions_of(file.ids, stored)
        _, parts = read_parts(out)
        row = 0
        for rows in _unit_blocks(file, file.path in scaled):
            ids, positions = file.ids.slice(row, len(rows)), in_earlier[row : row + len(rows)]
            is_new = positions == MISSING
            row += len(rows)
            _check_repeated(file, ids.filter(~is_new), rows[~is_new], rows_at(parts, positions[~is_new], rows.shape[1]))
            if is_new.any():
                names = ids.filter(is_new).to_pylist()
                write_part(out, f"part-{part:05d}", names, rows[is_new])
                add_ids(ids_hash, names)
                rows_hash.update(rows[is_new].tobytes())
                part += 1
        stored = pa.concat_arrays([stored, file.ids.filter(in_earlier == MISSING)])
    return f"{ids_hash.hexdigest()} {rows_hash.hexdigest()}"


def _check_repeated(file: VectorFile, ids: pa.Array, rows: Vectors, earlier: Vectors) -> None:
    differ = np.flatnonzero(np.abs(rows - earlier).max(axis=1, initial=0.0) > _TOLERANCE)
    if len(differ):
        raise DataError(
            f"{file.path}: {ids[int(differ[0])].as_py()!r}: expected the vector that an earlier file has for this id, found "
            "another: all must come from one encoder"
        )
