"""The family `vectors`: files of another tool are checked and stored, joined by id."""

import json
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cbir.artifacts.vectors import read_parts
from cbir.core.errors import ConfigError, DataError
from cbir.encoders import vector_files
from cbir.encoders.base import EmbedsNothingError, EncoderCard, embeds_images
from cbir.encoders.families import load_family
from cbir.encoders.opening import load_encoder
from cbir.encoders.params import EncoderParams, Family, Pooling
from cbir.encoders.runtime import Runtime
from cbir.encoders.weights import fetch_encoder

DIM = 6
Rows = npt.NDArray[Any]


def unit_rows(n: int, seed: int = 0) -> npt.NDArray[np.float32]:
    rows = np.random.default_rng(seed).normal(size=(n, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def names(n: int, prefix: str = "image") -> list[str]:
    return [f"{prefix}-{number}.jpg" for number in range(n)]


def write_npy(folder: Path, kind: str, ids: Sequence[str], rows: Rows, ids_name: str | None = None) -> None:
    np.save(folder / f"tool_{kind}.npy", rows)
    np.save(folder / (ids_name or f"tool_{kind}_ids.npy"), np.array(ids, dtype=str))


def write_kind_ids(folder: Path, kind: str, ids: Sequence[str], rows: Rows) -> None:
    write_npy(folder, kind, ids, rows, f"{kind}_ids.npy")


def write_fortran(folder: Path, kind: str, ids: Sequence[str], rows: Rows) -> None:
    write_npy(folder, kind, ids, np.asfortranarray(rows))


def write_big_endian(folder: Path, kind: str, ids: Sequence[str], rows: Rows) -> None:
    write_npy(folder, kind, ids, rows.astype(rows.dtype.newbyteorder(">")))


def write_text_ids(folder: Path, kind: str, ids: Sequence[str], rows: Rows) -> None:
    np.save(folder / f"tool_{kind}.npy", rows)
    (folder / f"{kind}_ids.txt").write_text("".join(f"{name}\n" for name in ids), encoding="utf-8")


def parquet_writer(kind_of_list: Callable[[pa.DataType], pa.DataType], group_rows: int = 2) -> Callable[..., None]:
    def write(folder: Path, kind: str, ids: Sequence[str], rows: Rows) -> None:
        vectors = pa.array(list(rows), kind_of_list(pa.from_numpy_dtype(rows.dtype)))
        table = pa.table({"id": list(ids), "vector": vectors, "more": list(ids)})
        pq.write_table(table, folder / f"tool_{kind}.parquet", row_group_size=group_rows)

    return write


WRITERS = {
    "npy": write_npy,
    "npy, ids of the kind": write_kind_ids,
    "npy, columns first": write_fortran,
    "npy, big-endian": write_big_endian,
    "npy, text ids": write_text_ids,
    "parquet, list": parquet_writer(pa.list_),
    "parquet, large list": parquet_writer(pa.large_list),
    "parquet, fixed-size list": parquet_writer(lambda kind: pa.list_(kind, DIM)),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


def fetch(folder: Path, **options: Any) -> Path:
    """Run the family on a folder; return the encoder's folder."""
    out = folder.parent / "weights" / "mine"
    params = {"family": Family.vectors, "architecture": "tool", "weights": str(folder), **options}
    fetch_encoder("encoders.mine", EncoderParams(**params), out)
    return out


def stored(out: Path, kind: str) -> dict[str, Rows]:
    ids, parts = read_parts(out / kind)
    rows = np.concatenate(parts)
    assert len(set(ids)) == len(ids)
    return dict(zip(ids, rows, strict=True))


def weights_sha256(out: Path) -> str:
    return str(json.loads((out / "encoder.json").read_text())["weights_sha256"])


# ---- what is stored


@pytest.mark.parametrize("writer", WRITERS)
def test_each_form_of_file_gives_the_same_folder(
    folder: Path, tmp_path: Path, writer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ids, rows = names(7), unit_rows(7)
    WRITERS[writer](folder, "gallery", ids, rows)
    out = fetch(folder)
    for name, row in zip(ids, rows, strict=True):
        np.testing.assert_array_equal(stored(out, "images")[name], row)
    (tmp_path / "plain" / "folder").mkdir(parents=True)
    write_npy(tmp_path / "plain" / "folder", "gallery", ids, rows)
    assert weights_sha256(out) == weights_sha256(fetch(tmp_path / "plain" / "folder"))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 1e-3), ("float32", 1e-6), ("float64", 1e-7)])
@pytest.mark.parametrize("writer", ["npy", "parquet, list", "parquet, fixed-size list"])
def test_vectors_of_other_lengths_are_scaled(
    folder: Path, writer: str, dtype: str, tolerance: float, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = unit_rows(5)
    WRITERS[writer](folder, "gallery", names(5), (rows * np.array([[1], [2], [3], [4], [5]])).astype(dtype))
    write_npy(folder, "texts", ["a"], rows[:1])
    out = fetch(folder)
    scaled = np.stack([stored(out, "images")[name] for name in names(5)])
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(scaled.astype(np.float64), axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(scaled, rows, atol=tolerance)
    suffix = writer.partition(",")[0]
    assert capsys.readouterr().out.startswith(f"mine: scaled to length 1: tool_gallery.{suffix} (lengths ")
    np.testing.assert_array_equal(stored(out, "texts")["a"], rows[0])


def test_lengths_within_the_tolerance_stay_bit_for_bit(folder: Path) -> None:
    rows = unit_rows(4) * np.float32(1 + 8e-6)
    write_npy(folder, "gallery", names(4), rows)
    np.testing.assert_array_equal(np.stack([*stored(fetch(folder), "images").values()]), rows)


def test_images_of_all_files_are_joined(folder: Path) -> None:
    rows = unit_rows(9)
    write_npy(folder, "gallery", names(6), rows[:6])
    parquet_writer(pa.list_)(folder, "queries", names(8)[4:], rows[4:8] + np.float32(1e-6))
    write_npy(folder, "images", ["other"], rows[8:])
    write_npy(folder, "texts", names(2, "query"), rows[:2])
    out = fetch(folder)
    images = stored(out, "images")
    assert list(images) == [*names(8), "other"]
    np.testing.assert_array_equal(np.stack([*images.values()])[:6], rows[:6])  # the first file's stay
    assert list(stored(out, "texts")) == names(2, "query")
    assert json.loads((out / "encoder.json").read_text())["settings"] == {"texts": True, "prompts": False}


def test_blocks_do_not_change_what_is_stored(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = unit_rows(11)
    write_npy(folder, "gallery", names(11), rows)
    write_npy(folder, "queries", [*names(11)[3:5], "new", *names(11)[9:]], rows[[3, 4, 0, 9, 10]])
    out = fetch(folder)
    before, sha256 = stored(out, "images"), weights_sha256(out)
    monkeypatch.setattr(vector_files, "BLOCK_ROWS", 2)
    out = fetch(folder)
    assert len(list((out / "images").glob("*.npy"))) == 7
    assert list(stored(out, "images")) == list(before) == [*names(11), "new"]
    np.testing.assert_array_equal(np.stack([*stored(out, "images").values()]), np.stack([*before.values()]))
    assert weights_sha256(out) == sha256


def test_the_hash_is_of_ids_and_vectors(folder: Path) -> None:
    hashes = set()
    for ids, rows in ((names(3), unit_rows(3)), (names(3), unit_rows(3, seed=1)), (names(3, "photo"), unit_rows(3))):
        write_npy(folder, "gallery", ids, rows)
        hashes.add(weights_sha256(fetch(folder)))
    assert len(hashes) == 3


def test_a_kind_that_left_the_folder_is_not_kept(folder: Path) -> None:
    write_npy(folder, "gallery", names(3), unit_rows(3))
    write_npy(folder, "texts", names(3), unit_rows(3))
    fetch(folder)
    (folder / "tool_texts.npy").unlink()
    assert not (fetch(folder) / "texts").exists()


def test_memory_does_not_grow_with_the_rows(folder: Path) -> None:
    rows = np.ones((200_000, 32), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    write_npy(folder, "gallery", [str(number) for number in range(len(rows))], rows)
    tracemalloc.start()
    fetch(folder)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < rows.nbytes / 3


# ---- what is refused


def bad_row(value: float) -> Rows:
    rows = unit_rows(5)
    rows[3] = 0 if value == 0 else rows[3]
    rows[3, 2] = value
    return rows


def write_objects(folder: Path) -> None:
    np.save(folder / "tool_gallery.npy", np.array([[{}]], dtype=object), allow_pickle=True)


def write_null_vector(folder: Path) -> None:
    vectors = pa.array([list(unit_rows(1)[0]), None], pa.list_(pa.float32()))
    pq.write_table(pa.table({"id": ["a", "b"], "vector": vectors}), folder / "tool_gallery.parquet")


def write_ragged(folder: Path) -> None:
    vectors = pa.array([[1.0, 0.0], [1.0, 0.0, 0.0]], pa.list_(pa.float32()))
    pq.write_table(pa.table({"id": ["a", "b"], "vector": vectors}), folder / "tool_gallery.parquet")


def write_parquet(folder: Path, **columns: Any) -> None:
    pq.write_table(pa.table(columns), folder / "tool_gallery.parquet")


VECTOR = [1.0, 0.0]
BAD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no ids": (
        lambda at: np.save(at / "tool_gallery.npy", unit_rows(3)),
        r"tool_gallery\.npy: expected its ids in tool_gallery_ids\.npy or gallery_ids\.npy or .*\.txt, found none: save them$",
    ),
    "too few ids": (
        lambda at: write_npy(at, "gallery", names(2), unit_rows(3)),
        r"tool_gallery_ids\.npy: expected 3 ids, one for each row of tool_gallery\.npy, found 2: export both anew$",
    ),
    "ids that are numbers": (
        lambda at: (write_npy(at, "gallery", [], unit_rows(2)), np.save(at / "tool_gallery_ids.npy", np.arange(2))),
        r"expected unicode ids \(n,\), found int64 \(2,\): save `np\.array\(ids, dtype=str\)`$",
    ),
    "pickled vectors": (
        write_objects,
        r"tool_gallery\.npy is not readable as NPY \(.*\): save it with `numpy\.save`, without objects$",
    ),
    "damaged npy": (lambda at: (at / "tool_gallery.npy").write_bytes(b"\x93NUMPY"), "is not readable as NPY"),
    "damaged parquet": (lambda at: (at / "tool_gallery.parquet").write_bytes(b"PAR1"), "is not readable as Parquet"),
    "one dimension": (
        lambda at: write_npy(at, "gallery", names(3), unit_rows(3)[:, 0]),
        r"expected float16, float32 or float64 \(n, dim\), found float32 \(3,\)",
    ),
    "integers": (lambda at: write_npy(at, "gallery", names(3), np.eye(3, dtype=int)), r"found int64 \(3, 3\)"),
    "an id twice": (
        lambda at: write_npy(at, "gallery", ["a", "b", "a"], unit_rows(3)),
        r"tool_gallery\.npy: expected each id once, found 'a' 2 times: keep one row$",
    ),
    "two vectors of an id": (
        lambda at: (
            write_npy(at, "gallery", names(3), unit_rows(3)),
            write_npy(at, "queries", names(3)[1:], unit_rows(3, seed=1)[1:]),
        ),
        r"tool_queries\.npy: 'image-1\.jpg': expected the vector that an earlier file has for this id, found another",
    ),
    "NaN": (
        lambda at: write_npy(at, "gallery", names(5), bad_row(np.nan)),
        r"expected finite vectors other than zero, found NaN or infinity in row 3, id 'image-3\.jpg'",
    ),
    "infinity": (
        lambda at: write_npy(at, "gallery", names(5), bad_row(np.inf)),
        "found NaN or infinity in row 3",
    ),
    "zero": (lambda at: write_npy(at, "gallery", names(5), bad_row(0)), "found zero in row 3"),
    "dimensions": (
        lambda at: (
            write_npy(at, "gallery", names(5), unit_rows(5)),
            write_npy(at, "texts", names(5), unit_rows(5)[:, :4]),
        ),
        r"tool_texts\.npy: expected vectors of 6 components as in tool_gallery\.npy, found 4",
    ),
    "both forms": (
        lambda at: (
            write_npy(at, "gallery", names(5), unit_rows(5)),
            parquet_writer(pa.list_)(at, "gallery", names(5), unit_rows(5)),
        ),
        r"expected tool_gallery\.npy or tool_gallery\.parquet, found both: delete one of them$",
    ),
    "no vector column": (
        lambda at: write_parquet(at, id=["a"], embedding=[VECTOR]),
        "expected the columns id and vector, found id, embedding: rename them$",
    ),
    "ids as numbers": (
        lambda at: write_parquet(at, id=[1], vector=[VECTOR]),
        "column id: expected string, found int64: convert it$",
    ),
    "a vector as text": (
        lambda at: write_parquet(at, id=["a"], vector=["1 0"]),
        "column vector: expected a list of floats, found string: convert it$",
    ),
    "a null id": (
        lambda at: write_parquet(at, id=["a", None], vector=[VECTOR, VECTOR]),
        "column id: expected a text in each row, found null in 1: name each$",
    ),
    "a null vector": (
        write_null_vector,
        "column vector: expected vectors of one length, found 6, null: export it anew$",
    ),
    "several lengths": (write_ragged, "column vector: expected vectors of one length, found 2, 3: export it anew$"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_refused_in_one_line(folder: Path, case: str) -> None:
    write, message = BAD_FILES[case]
    write(folder)
    with pytest.raises(DataError, match=message) as refused:
        fetch(folder)
    assert "\n" not in str(refused.value)
    assert str(folder) in str(refused.value)


def test_a_folder_without_these_files_is_refused(folder: Path) -> None:
    write_npy(folder, "gallery", names(3), unit_rows(3))
    with pytest.raises(
        ConfigError, match=r"^encoders\.mine\.architecture: .*other_gallery\.npy.*found tool_gallery\.npy"
    ):
        fetch(folder, architecture="other")


@pytest.mark.parametrize("weights", ["https://host/folder", "/no/such/folder", "random:0"])
def test_weights_other_than_a_folder_are_refused(folder: Path, weights: str) -> None:
    with pytest.raises(ConfigError, match=r"^encoders\.mine\.weights: expected a folder with vectors on this machine"):
        fetch(folder, weights=weights)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("weights_tag", "openai"),
        ("tokenizer", "x"),
        ("image_px", 224),
        ("pooling", Pooling.avg),
        ("weights_sha256", "0"),
    ],
)
def test_options_of_other_families_are_refused(folder: Path, key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^encoders\.mine\.{key}: the family vectors does not take it"):
        fetch(folder, **{key: value})


def test_vectors_made_elsewhere_embed_nothing_new(folder: Path) -> None:
    write_npy(folder, "gallery", names(3), unit_rows(3))
    out = fetch(folder)
    assert not embeds_images(out)
    for attempt in (
        lambda: EncoderCard.read(out),
        lambda: load_encoder(out, Family.vectors, Runtime()),
        lambda: load_family(Family.vectors).build_modules(out),
    ):
        with pytest.raises(EmbedsNothingError, match=r"^the encoder mine holds vectors that were made elsewhere"):
            attempt()
