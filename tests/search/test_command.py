"""`cbir search`: the same results as the Searcher, in the terminal, as JSON and as a contact sheet."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console

from cbir import Searcher
from cbir.cli import main as cli
from cbir.core.files import write_json
from cbir.search.command import _print
from cbir.search.contact_sheet import write_sheet
from cbir.search.query import QueryPart
from tests.support.searchable import (
    copy_run,
    finished_run,  # noqa: F401  (a fixture)
    photo,  # noqa: F401  (a fixture)
    searchable,  # noqa: F401  (a fixture)
    searcher,  # noqa: F401  (a fixture)
)


def run(*arguments: str) -> None:
    cli.main(["search", *arguments])


def printed_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    run(*arguments, "--json")
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    return printed


@pytest.fixture
def photo_file(photo: bytes, tmp_path: Path) -> str:
    (tmp_path / "my photo.png").write_bytes(photo)
    return str(tmp_path / "my photo.png")


def test_the_command_prints_the_results_of_the_searcher(
    searchable: Path, searcher: Searcher, capsys: pytest.CaptureFixture[str], photo_file: str, photo: bytes
) -> None:
    for arguments, expected in (
        (["a red star"], searcher.text("a red star")),
        (["a", "red", "star"], searcher.text("a red star")),
        (["clip_demo", "a red star", "-k", "3"], searcher.text("a red star", 3)),
        (["--text", "a red star", "--exact"], searcher.text("a red star", exact=True)),
        ([photo_file], searcher.image(photo)),
        (["mobilenet_demo", photo_file], searcher.image(photo, encoder="mobilenet_demo")),
        (["clip_demo", photo_file, "--class", "red star"], searcher.image(photo, labels=["red star"])),
        (["--encoder", "mobilenet_demo", "--like", "gallery/gallery-000001.jpg"],
         searcher.like("gallery/gallery-000001.jpg", encoder="mobilenet_demo")),
        (["--text", "a star", "--weight", "2", "--image", photo_file, "--not", "red", "--weight", "0.5"],
         searcher.search([QueryPart("a star", weight=2.0), QueryPart(image=photo), QueryPart("red", weight=-0.5)])),
        (["mobilenet_demo", "-k", "4", photo_file], searcher.image(photo, 4, encoder="mobilenet_demo")),
        (["a star", "--weight", "2", "--text", "red"], searcher.search([QueryPart("a star", weight=2.0), QueryPart("red")])),
        (["a star", "--not-image", photo_file], searcher.search([QueryPart("a star"), QueryPart(image=photo, weight=-1.0)])),
    ):  # fmt: skip
        printed = printed_json(capsys, *arguments)
        plain = json.loads(json.dumps(expected.to_json()))
        assert (printed["hits"], printed["categories"]) == (plain["hits"], plain["categories"]), arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["mobilenet_demo", "a red star"],
            "error: a red star: expected an image file, found none there; the encoder mobilenet_demo reads no text",
        ),
        (["clip_demo", "gone.JPG"], "error: gone.JPG: expected an image file"),
        (["clip_demo"], "error: expected a text, an image or the id of a gallery image to search for, found none"),
        ([], "error: expected a text, an image"),
        (
            ["clip_demo", "x", "--encoder", "mobilenet_demo"],
            "error: expected one encoder, found clip_demo and --encoder mobilenet_demo",
        ),
        (
            ["x", "--data", "elsewhere"],
            "error: elsewhere: expected the artifacts of a pipeline that has run, found none: go to the root of the repository",
        ),
    ],
)
def test_invalid_commands_end_with_one_line(searchable: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    assert str(ended.value).startswith(message)
    assert "\n" not in str(ended.value)


def test_words_may_be_longer_than_a_file_name(searchable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(printed_json(capsys, *["red"] * 100)["hits"]) == 10


@pytest.mark.parametrize("data", [".", "data/..//data", "link"])
def test_data_may_be_any_path_to_the_folder(
    searchable: Path, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if data == ".":
        monkeypatch.chdir(searchable / "data")
    if data == "link":
        (tmp_path / "link").symlink_to(searchable / "data")
        data = str(tmp_path / "link")
    assert printed_json(capsys, "a red star", "--data", data)["hits"][0]["label"] == "red star"


def test_unknown_options_are_errors(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["search", "a star", "--colour", "red"], ["cache", "more"]):
        with pytest.raises(SystemExit):
            cli.main(arguments)
        assert "unrecognized arguments: " in capsys.readouterr().err


def test_an_unwritable_contact_sheet_ends_with_one_line(searchable: Path, tmp_path: Path) -> None:
    data = copy_run(searchable, tmp_path)
    (tmp_path / "reports").write_text("")
    with pytest.raises(SystemExit, match=r"^error: .*reports"):
        run("a red star", "--open", "--data", str(data))


def test_a_weight_without_a_part_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--weight", "2")
    assert "--weight: expected a part of the query before it" in capsys.readouterr().err


def test_the_table_has_rank_score_label_and_id(searchable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("a red star", "-k", "2")
    printed = capsys.readouterr().out
    first, second = expected = Searcher.open("data").text("a red star", 2).hits
    for hit in expected:
        (line,) = [line for line in printed.splitlines() if hit.image_id in line]
        assert line.split() == [str(hit.rank), f"{hit.score:.3f}", "red", "star", hit.image_id]
    assert first.score >= second.score
    assert "nearest categories, with their cosine distance:" in printed
    assert "clip_demo, hnsw: " in printed


def test_results_name_their_files_where_they_are_in_a_folder(
    searchable: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = copy_run(searchable, tmp_path)
    first = Searcher.open(data).text("a red star", 1).hits[0]
    assert (first.source, first.path, first.file) == (first.image_id, None, first.image_id)
    files = tmp_path / "my photos"  # a relative folder is beside the folder of the artifacts
    (files / first.source).parent.mkdir(parents=True)
    (files / first.source).touch()
    (data / "raw").mkdir(exist_ok=True)
    write_json(data / "raw" / "folder.json", {"folder": "my photos"})
    printed = printed_json(capsys, "a red star", "-k", "2", "--data", str(data))
    assert [hit["path"] for hit in printed["hits"]] == [str(files / first.source), None]
    assert printed["query"] == "a red star"
    run("a red star", "-k", "2", "--data", str(data))
    assert f"files below {files}\n" in capsys.readouterr().out


def test_demo_weights_are_noted(searchable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("a red star", "-k", "1")
    assert "note: clip_demo has demo weights, trained on drawn shapes only" in " ".join(capsys.readouterr().out.split())


def test_the_id_of_a_gallery_image_suggests_like(searchable: Path) -> None:
    with pytest.raises(SystemExit, match=r"^error: gallery/gallery-000001\.jpg is an image of .* use --like gallery/"):
        run("gallery/gallery-000001.jpg")


def test_hostile_labels_are_text_in_terminal_and_contact_sheet(searchable: Path, tmp_path: Path) -> None:
    hostile = "\x1b[2J<script>alert(1)</script>[bold]\u202egnp"
    searcher = Searcher.open("data")
    gallery = searcher._gallery
    names = pa.array([hostile] * len(gallery.names), pa.string())
    object.__setattr__(gallery, "names", names)
    results = searcher.text("a red star", 2)
    console = Console(file=None, width=200, record=True)
    _print(results, 3, searcher, console)
    printed = console.export_text()
    assert "\x1b" not in printed
    assert "\u202e" not in printed
    assert "2 results, fewer than -k 3" in printed
    assert "U+001B[2J<script>alert(1)</script>[bold]U+202Egnp" in printed
    parts = [QueryPart(image_id=results.hits[0].image_id)]
    write_sheet(tmp_path / "sheet.html", "<b>query</b>", parts, results, searcher)
    page = (tmp_path / "sheet.html").read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "&lt;b&gt;query" in page
    assert page.count("data:image/jpeg;base64,") + page.count("data:image/png;base64,") == 3
    assert "http" not in page


def test_the_contact_sheet_is_opened(
    searchable: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda address: (opened.append(address), False)[1])
    run("a red star", "-k", "3", "--open")
    sheet = searchable / "reports/search/contact_sheet.html"
    assert opened == [sheet.resolve().as_uri()]
    assert sheet.read_text(encoding="utf-8").count("<li>") == 3
    assert "contact sheet: reports/search/contact_sheet.html (no browser was found)" in capsys.readouterr().err


LIGHT = """
import sys
from cbir.cli.main import main
main(["search", "a red star", "-k", "1"])
print(sorted({"torch", "torchvision", "open_clip", "transformers", "scipy", "hydra", "dvc"} & set(sys.modules)))
"""


def test_a_search_imports_nothing_heavy(searchable: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", LIGHT], cwd=searchable, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "[]"
