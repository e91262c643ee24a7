"""Files of the user's in the pipeline's outputs are refused before DVC empties them."""

import os
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from cbir.artifacts.outputs import check_apart
from cbir.artifacts.paths import DataPaths, ReportPaths
from cbir.cli import main as cli
from cbir.compose import write_params
from cbir.core.errors import ConfigError, DataError
from cbir.core.params import PARAMS_FILE, read_yaml
from cbir.datasets.local_state import images_state
from cbir.inputs import check_inputs, check_outputs
from cbir.schema import Params, checked
from stages import scan
from tests.support.imports import ROOT
from tests.support.repository import copy_conf

FOLDER = "dataset=image_folder"
NAMES = [  # each parameter that names a user's file
    "dataset.url",
    "queries.path",
    "queries.qrels",
    "queries.prompt_sets",
    "encoders.clip_demo.architecture",
    "encoders.clip_demo.weights",
    "encoders.mobilenet_demo.tokenizer",
]
NEAR = [
    "data/raw",
    "./data/../data/images/gallery/mine",
    "{root}/reports/plots/x",
    "data",
    "..",
    ".",
    "file://{root}/data",
]
APART = ["photos", "data/photos", "cbir/demo/clip_demo.json", "../photos", "exports", "data/raw_photos", "hf://a/b"]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with conf/, in a folder with photos, and the process in it."""
    root = tmp_path / "pictures" / "cbir"
    copy_conf(root)
    monkeypatch.chdir(root)
    return root


@pytest.fixture(scope="module")
def default() -> Params:
    return checked(read_yaml(ROOT / "params.yaml"), "params.yaml")


def with_path(default: Params, name: str, path: str) -> Params:
    """The default parameters with a path in one of them."""
    params = deepcopy(default)
    *parts, key = name.split(".")
    group: Any = params
    for part in parts:
        group = group[part] if isinstance(group, dict) else getattr(group, part)
    setattr(group, key, ["bare", path] if key == "prompt_sets" else path)
    return params


@pytest.mark.parametrize("name", NAMES)
def test_an_input_in_or_around_an_output_is_refused(repository: Path, default: Params, name: str) -> None:
    for path in NEAR:
        with pytest.raises(ConfigError, match=rf"^{name}: expected a path (outside|apart from) the pipeline's outputs"):
            check_inputs(with_path(default, name, path.format(root=repository)))


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_path_is_refused(repository: Path, default: Params, name: str) -> None:
    for path in ("", " "):
        with pytest.raises(ConfigError, match=f"^{name}: expected a path or a name, found an empty one"):
            check_inputs(with_path(default, name, path))


@pytest.mark.parametrize("name", NAMES)
def test_other_places_in_the_repository_are_allowed(repository: Path, default: Params, name: str) -> None:
    for path in APART:
        check_inputs(with_path(default, name, path))


@pytest.mark.parametrize("url", ["", "data/raw", "..", "~no-such-user/photos"])
def test_compose_refuses_and_leaves_params_yaml(repository: Path, url: str) -> None:
    with pytest.raises(ConfigError, match=r"expected a path"):
        write_params([FOLDER, f"dataset.url={url}"])
    assert not PARAMS_FILE.exists()


def test_links_into_and_out_of_outputs_are_refused(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (repository / "data" / "raw").mkdir(parents=True)
    (repository / "data" / "raw" / "link").symlink_to(tmp_path / "photos")  # the link itself would be deleted
    (tmp_path / "into").symlink_to(repository / "data" / "raw")
    for path in ("data/raw/link", tmp_path / "into", tmp_path / "into" / "deeper"):
        with pytest.raises(ConfigError, match=r"^it: .* in data/raw, which a run empties: keep your files elsewhere$"):
            check_apart("it", Path(path))
    (tmp_path / "around").symlink_to(repository.parent)
    with pytest.raises(
        ConfigError, match=r"^it: .*around, which contains data/encoders\.json: give your files a folder"
    ):
        check_apart("it", tmp_path / "around")


def test_outputs_on_another_disk_are_recognised(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "disk" / "raw").mkdir(parents=True)
    (repository / "data").symlink_to(tmp_path / "disk")
    check_apart("it", tmp_path / "photos")
    with pytest.raises(ConfigError, match="in data/raw"):
        check_apart("it", tmp_path / "disk" / "raw" / "photos")


def test_scan_refuses_what_was_composed_without_a_check(repository: Path) -> None:
    write_params([FOLDER, "dataset.url=/elsewhere"])
    PARAMS_FILE.write_text(PARAMS_FILE.read_text(encoding="utf-8").replace("/elsewhere", "data/raw"), encoding="utf-8")
    photo = repository / "data" / "raw" / "cats" / "1.jpg"
    photo.parent.mkdir(parents=True)
    photo.write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"^dataset\.url: .* found data/raw, in data/raw"):
        scan.main()
    assert photo.read_bytes() == b"x"


@pytest.mark.parametrize(
    "name",
    [
        "data/raw/cats",
        "data/raw/photos.zip",
        "data/images/queries/dogs",
        "data/images/gallery/1.jpg",
        "data/queries/my.csv",
        "data/embeddings/clip_demo/theirs.h5",
        "data/index/clip_demo/x.txt",
        "reports/evaluation/clip_demo/runs.txt",
        "reports/plots/galleries/mine.jpg",
    ],
)
def test_scan_refuses_files_that_no_stage_has_written(repository: Path, name: str) -> None:
    data, reports = DataPaths(), ReportPaths()
    for own in (
        data.raw / "archive.zip",
        data.images("gallery") / "part-00000.parquet",
        data.query_list,
        data.raw / ".DS_Store",
        data.raw / "@eaDir" / "x",
        data.vectors("clip_demo", "gallery") / "part-00000.npy",
        reports.evaluation("clip_demo").run("cbir", "exact"),
        reports.galleries / "1.png",
    ):
        own.parent.mkdir(parents=True, exist_ok=True)
        own.touch()
    check_outputs(data, reports)
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    shutil.copy(ROOT / "params.yaml", PARAMS_FILE)
    with pytest.raises(
        DataError, match=f"^{path.parent}: expected only .*, found {path.name}, which the run would delete: move"
    ):
        scan.main()


@pytest.mark.parametrize(
    "command", [["export", "npy", "--out"], ["trec", "--out"], ["report", "--compare", "HEAD", ".", "--out"]]
)
def test_nothing_is_exported_into_an_output(repository: Path, command: list[str]) -> None:
    with pytest.raises(SystemExit, match=r"^error: --out: expected a path outside the pipeline's outputs, found data/"):
        cli.main([*command, "data/queries/mine.html"])


def test_listed_images_in_an_output_are_refused(repository: Path) -> None:
    for path in ("data/raw/1.jpg", "photos/1.jpg"):
        (repository / path).parent.mkdir(parents=True)
        (repository / path).touch()
    (repository / "my.csv").write_text("query_id,task,image\na,cbir,photos/1.jpg\n", encoding="utf-8")
    assert images_state("my.csv")
    (repository / "my.csv").write_text("query_id,task,image\na,cbir,data/raw/1.jpg\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"^my\.csv, column image: .* in data/raw, which a run empties"):
        images_state("my.csv")


@pytest.mark.parametrize("name", ["--run", "--qrels"])
def test_a_foreign_run_in_an_output_is_refused(repository: Path, name: str) -> None:
    files = {"--run": "my.run", "--qrels": "my.qrels"} | {name: "reports/evaluation/clip_demo/mine.txt"}
    with pytest.raises(
        SystemExit, match=f"^error: {name}: expected a path outside the pipeline's outputs, found reports/"
    ):
        cli.main(["evaluate", *(text for pair in files.items() for text in pair)])


@pytest.mark.parametrize("name", NAMES)
def test_a_device_or_a_pipe_is_no_input(repository: Path, default: Params, name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "zero.txt").symlink_to("/dev/zero")
    for path in (tmp_path / "pipe.txt", tmp_path / "zero.txt"):
        with pytest.raises(
            ConfigError, match=rf"^{name}: expected a file or a folder, found a device or a pipe, {path}"
        ):
            check_inputs(with_path(default, name, str(path)))
