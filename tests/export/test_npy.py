"""`cbir export npy`: the files hold the vectors of the pipeline, row by row, and no pickle."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cbir.artifacts.paths import DataPaths
from cbir.artifacts.vectors import read_passport, write_passport
from cbir.cli import main as cli
from cbir.core.errors import ConfigError, DataError, PassportError
from cbir.core.files import read_json
from cbir.export import npy as export
from cbir.export.npy import ExportedArray, export_npy
from tests.support.world import DIMS, World, make_world, unit

ENCODERS = tuple(DIMS)
FILES = {
    "categories.npy",
    "clip_categories.npy",
    "clip_gallery.npy",
    "clip_prompts.npy",
    "clip_queries.npy",
    "clip_texts.npy",
    "gallery_ids.npy",
    "gallery_labels.npy",
    "mobilenet_categories.npy",
    "mobilenet_gallery.npy",
    "mobilenet_queries.npy",
    "prompts_ids.npy",
    "queries_ids.npy",
    "texts_ids.npy",
}
LIST = "cbir_export_npy.json"
HOSTILE = [
    "a b/ü 100%.jpg",
    "\N{GRINNING FACE}" * 5,
    " lead",
    "trail ",
    "new\nline",
    "nul\0inside",
    "'\"\\",
    "é",
    "e\u0301",
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("export")).write()


@pytest.fixture(scope="module")
def exported(world: World) -> dict[str, np.ndarray]:
    export_npy(DataPaths(world.data), world.root / "out", ENCODERS)
    return loaded(world.root / "out")


def loaded(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: np.load(path, allow_pickle=False) for path in sorted(folder.glob("*.npy"))}


def small_world(root: Path, gallery: dict[str, str | None], asked: tuple[str, ...] = ("asked",)) -> World:
    rng = np.random.default_rng(0)
    rows = {
        encoder: {
            "gallery": {name: unit(rng.normal(size=dim)) for name in gallery},
            "queries": {name: unit(rng.normal(size=dim)) for name in asked},
        }
        for encoder, dim in DIMS.items()
    }
    return World(root, gallery, dict.fromkeys(asked), [], rows)


@pytest.fixture(autouse=True)
def _one_picture_for_every_label(monkeypatch: pytest.MonkeyPatch) -> None:
    """The world draws pictures for labels of its own kind only."""
    monkeypatch.setattr("tests.support.world._jpeg", lambda label: b"a picture")


# ---- the files


def test_exactly_the_documented_files_are_written(exported: dict[str, np.ndarray]) -> None:
    assert exported.keys() == FILES


def test_beside_the_files_is_only_their_list(world: World, exported: dict[str, np.ndarray]) -> None:
    assert {path.name for path in (world.root / "out").iterdir()} == exported.keys() | {LIST}
    assert set(read_json(world.root / "out" / LIST, sealed=False)["files"]) == FILES


def test_the_rows_are_the_stored_vectors_of_their_ids(world: World, exported: dict[str, np.ndarray]) -> None:
    for encoder, kinds in world.vectors.items():
        for kind in kinds:
            ids, rows = exported[f"{kind}_ids.npy"], exported[f"{encoder}_{kind}.npy"]
            assert (rows.dtype, rows.flags.c_contiguous) == (np.float32, True)
            assert dict(zip(ids.tolist(), rows.tolist(), strict=True)) == {
                name: row.tolist() for name, row in kinds[kind].items()
            }
    assert exported["gallery_ids.npy"].tolist() == list(world.gallery)


def test_labels_belong_to_the_gallery_ids(world: World, exported: dict[str, np.ndarray]) -> None:
    labels = exported["gallery_labels.npy"].tolist()
    assert labels == [label or "" for label in world.gallery.values()]
    assert labels.count("") == 8
    assert exported["categories.npy"].tolist() == sorted({*labels} - {""})


def test_a_category_is_the_unit_mean_of_its_class(world: World, exported: dict[str, np.ndarray]) -> None:
    for encoder, dim in DIMS.items():
        found = exported[f"{encoder}_categories.npy"]
        assert (found.dtype, found.shape) == (np.float32, (8, dim))
        for label, row in zip(exported["categories.npy"], found, strict=True):
            rows = [world.vectors[encoder]["gallery"][name] for name, of in world.gallery.items() if of == label]
            mean = np.mean(np.asarray(rows, np.float64), 0)
            np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-6)


def test_files_equal_those_of_numpy_save(world: World, exported: dict[str, np.ndarray], tmp_path: Path) -> None:
    for name, array in exported.items():
        np.save(tmp_path / name, array, allow_pickle=False)
        assert (tmp_path / name).read_bytes() == (world.root / "out" / name).read_bytes(), name


def test_the_vectors_can_be_memory_mapped(world: World, exported: dict[str, np.ndarray]) -> None:
    mapped = np.load(world.root / "out" / "clip_gallery.npy", mmap_mode="r")
    np.testing.assert_array_equal(mapped, exported["clip_gallery.npy"])


def test_at_most_one_part_is_written_at_once(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_BLOCK_ROWS", 30)
    blocks: dict[str, list[int]] = {}

    def watched(out: Path, column: export.Column) -> ExportedArray:
        blocks[column.name] = held = []

        def noted():
            for block in column.blocks:
                held.append(len(block))
                yield block

        return write(out, replace(column, blocks=noted()))

    write = export._write
    monkeypatch.setattr(export, "_write", watched)
    export_npy(DataPaths(world.data), tmp_path, ENCODERS)
    assert blocks["clip_gallery.npy"] == [70, 70, 70, 70]
    assert max(blocks["gallery_ids.npy"]) == 30
    assert loaded(tmp_path)["gallery_ids.npy"].tolist() == list(world.gallery)


# ---- which files


@pytest.mark.parametrize("encoder", DIMS)
def test_exporting_one_encoder_deletes_the_files_of_the_other(world: World, tmp_path: Path, encoder: str) -> None:
    export_npy(DataPaths(world.data), tmp_path, ENCODERS)
    (tmp_path / "mine.npy").write_bytes(b"")
    written = export_npy(DataPaths(world.data), tmp_path, [encoder])
    other = "mobilenet" if encoder == "clip" else "clip"
    of_texts = {"texts_ids.npy", "prompts_ids.npy"}
    expected = {name for name in FILES if not name.startswith(other)} - of_texts
    expected |= of_texts if encoder == "clip" else set()
    assert {one.path.name for one in written} == expected
    assert {path.name for path in tmp_path.iterdir()} == expected | {"mine.npy", LIST}


# ---- odd ids and galleries


def test_hostile_ids_are_read_back_unchanged(tmp_path: Path) -> None:
    labels = [*HOSTILE[1:], None]
    world = small_world(tmp_path, dict(zip(HOSTILE, labels, strict=True)), tuple(f"asked {name}" for name in HOSTILE))
    world.write()
    export_npy(DataPaths(world.data), tmp_path / "out", ENCODERS)
    found = loaded(tmp_path / "out")
    assert found["gallery_ids.npy"].tolist() == HOSTILE
    assert found["gallery_labels.npy"].tolist() == [label or "" for label in labels]
    assert found["categories.npy"].tolist() == sorted(HOSTILE[1:])
    assert found["queries_ids.npy"].tolist() == [f"asked {name}" for name in HOSTILE]


def test_an_id_that_ends_with_a_zero_character_is_refused(tmp_path: Path) -> None:
    world = small_world(tmp_path, {"a\0": None}).write()
    with pytest.raises(
        DataError, match=r"gallery_ids\.npy: expected texts that NumPy can store, found one that ends with"
    ):
        export_npy(DataPaths(world.data), tmp_path / "out", ENCODERS)
    assert not (tmp_path / "out").exists()


def test_ids_that_would_fill_the_disk_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = small_world(tmp_path, {"a": None, "b" * 3000: None}).write()
    monkeypatch.setattr(export, "MAX_TEXT_BYTES", 20_000)
    told = r"gallery_ids\.npy: expected at most .* GiB, found 2 texts of up to 3,000 characters, .* part-\*\.parquet"
    with pytest.raises(DataError, match=told):
        export_npy(DataPaths(world.data), tmp_path / "out", ENCODERS)
    monkeypatch.setattr(export, "MAX_TEXT_BYTES", 24_000)
    export_npy(DataPaths(world.data), tmp_path / "out", ENCODERS)


def test_a_gallery_without_labels_has_no_categories(tmp_path: Path) -> None:
    world = small_world(tmp_path, {"a": None, "b": None}).write()
    export_npy(DataPaths(world.data), tmp_path / "out", ENCODERS)
    found = loaded(tmp_path / "out")
    assert found["gallery_labels.npy"].tolist() == ["", ""]
    assert found["categories.npy"].shape == (0,)
    assert found["clip_categories.npy"].shape == (0, DIMS["clip"])
    assert not any(array.dtype.hasobject for array in found.values())


def test_without_queries_files_are_empty(tmp_path: Path) -> None:
    world = small_world(tmp_path, {"a": "x"}, ()).write()
    export_npy(DataPaths(world.data), tmp_path / "out", ENCODERS)
    assert loaded(tmp_path / "out")["mobilenet_queries.npy"].shape == (0, DIMS["mobilenet"])
    assert loaded(tmp_path / "out")["queries_ids.npy"].shape == (0,)


def test_a_class_whose_vectors_cancel_out_is_refused(tmp_path: Path) -> None:
    world = small_world(tmp_path, {"a": "x", "b": "x"})
    world.vectors["clip"]["gallery"]["b"] = -world.vectors["clip"]["gallery"]["a"]
    world.write()
    with pytest.raises(DataError, match="clip: the vectors of class 'x' cancel out: it has no mean vector"):
        export_npy(DataPaths(world.data), tmp_path / "out", ENCODERS)


# ---- refusals


def test_without_a_run_the_export_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"passport\.json is not here: run `dvc repro`"):
        export_npy(DataPaths(tmp_path / "data"), tmp_path / "out", ENCODERS)
    assert not (tmp_path / "out").exists()


def test_vectors_of_other_images_are_refused(tmp_path: Path) -> None:
    world = small_world(tmp_path, {"a": "x", "b": "x"}).write()
    replace(world, gallery={"a": "x"}, vectors={}).write()
    expected = (
        r"mobilenet/gallery: expected the vectors of .*images/gallery, found those of other data: run `dvc repro`"
    )
    with pytest.raises(PassportError, match=expected):
        export_npy(DataPaths(world.data), tmp_path / "out", ENCODERS)


def test_vectors_under_another_encoders_name_are_refused(tmp_path: Path) -> None:
    world = small_world(tmp_path, {"a": "x"}).write()
    folder = world.embeddings / "clip" / "queries"
    write_passport(folder, read_passport(folder) | {"encoder": "mobilenet"})
    with pytest.raises(PassportError, match="passport field 'encoder': expected 'clip', found 'mobilenet'"):
        export_npy(DataPaths(world.data), tmp_path / "out", ENCODERS)


@pytest.mark.parametrize("out", ["a file", "a file/below"])
def test_an_output_path_that_is_no_folder_is_refused(world: World, tmp_path: Path, out: str) -> None:
    (tmp_path / "a file").write_text("mine")
    with pytest.raises(ConfigError, match=r"--out: expected a folder to write into, found .*a file"):
        export_npy(DataPaths(world.data), tmp_path / out, ENCODERS)
    assert (tmp_path / "a file").read_text() == "mine"


# ---- the command


def test_the_command_lists_each_file_with_its_shape(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    (tmp_path / "data").symlink_to(world.data)
    cli.main(["export", "npy"])
    text = capsys.readouterr().out
    shown = {name for name in FILES if re.search(rf"exports/{re.escape(name)}", text)}
    assert shown == FILES == {path.name for path in (tmp_path / "exports").iterdir()} - {LIST}
    assert re.search(r"clip_gallery\.npy +280 x 24 +float32", text)
    cli.main(["export", "npy", "--encoder", "mobilenet", "--out", "[red]/elsewhere"])
    assert "[red]/elsewhere/mobilenet_gallery.npy" in capsys.readouterr().out


def test_the_command_refuses_a_wrong_path_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        SystemExit, match=r"^error: (data/encoders.json is not here: run|cbir export: expected the root)"
    ):
        cli.main(["export", "npy"])


@pytest.mark.parametrize("command", [["export", "npy", "--encoder"], ["drift"]], ids=["export", "drift"])
def test_the_command_refuses_an_unknown_encoder_with_the_nearest(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(world.data)
    with pytest.raises(SystemExit, match=r"^error: encoder: the run has no 'mobilnet'; nearest: mobilenet$"):
        cli.main([*command, "mobilnet"])
    assert not (tmp_path / "exports").exists()
