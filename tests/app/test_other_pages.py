"""The pages Map and Report, and all pages before the first run of the pipeline."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from cbir import Searcher
from cbir.artifacts.maps import MAP_SCHEMA, write_map
from cbir.core.errors import PassportError
from tests.support.page import at_address, goto, open_page, page, root, run  # noqa: F401  (page and root are fixtures)


def test_before_the_first_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = run(open_page(tmp_path, monkeypatch))
    assert [title.value for title in page.title] == ["Nothing to search yet"]
    assert page.code[0].value == "make repro"
    assert [title.value for title in goto(page, "map").title] == ["Nothing to search yet"]
    assert [title.value for title in goto(page, "report").title] == ["No report yet"]


def test_a_run_without_params_shows_one_error(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(root / "data", tmp_path / "data")
    page = run(open_page(tmp_path, monkeypatch))
    assert len(page.error) == 1
    assert "params" in page.error[0].value


@pytest.mark.parametrize(
    "error",
    [
        lambda path: PassportError(f"{path}: expected sha256 1, found 2: run `dvc repro`"),
        lambda path: PermissionError(13, "Permission denied", str(path)),
    ],
)
@pytest.mark.parametrize("method", ["open", "search"])
def test_an_error_does_not_tell_where_the_repository_is(
    page: AppTest, root: Path, monkeypatch: pytest.MonkeyPatch, error: Callable[[Path], Exception], method: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error(root / "data" / "index" / "clip")

    monkeypatch.setattr(Searcher, method, fail)
    st.cache_resource.clear()
    at_address(page, q="words")
    [message] = [element.value.replace("\\", "") for element in (*page.error, *page.warning)]
    assert message.lower().startswith("data/index/clip: ")
    assert str(root) not in message
    assert "pipeline is running" in message + "".join(element.value for element in page.markdown)


def test_no_map_yet(page: AppTest) -> None:
    run(page)
    goto(page, "map")
    assert page.info[0].value == "There is no map of this gallery yet: run `dvc repro`."


@pytest.mark.parametrize("classes", [3, 40])
def test_the_map_is_drawn(page: AppTest, root: Path, classes: int) -> None:
    folder = root / "data" / "map"
    folder.mkdir(exist_ok=True)
    rows = [
        {"image_id": f"img{n:03d}", "label": f"c{n % classes}", "label_name": None, "x": n * 0.1, "y": 1.0}
        for n in range(80)
    ]
    for encoder in ("clip", "mobilenet"):
        write_map(folder / f"{encoder}.parquet", pa.Table.from_pylist(rows, MAP_SCHEMA))
    try:
        run(page)
        goto(page, "map")
        assert "80 gallery images" in page.caption[0].value
        assert [box.label for box in page.multiselect] == (["Colour these classes"] if classes > 20 else [])
        assert len(page.get("arrow_vega_lite_chart") or page.get("vega_lite_chart")) == 1
    finally:
        for path in folder.iterdir():
            path.unlink()


def test_html_in_the_markdown_report_is_text(page: AppTest, root: Path) -> None:
    (root / "reports").mkdir(exist_ok=True)
    (root / "reports" / "report.md").write_text("# Retrieval\n\n<script>alert(1)</script>", encoding="utf-8")
    run(page)
    goto(page, "report")
    assert page.markdown[0].value.startswith("# Retrieval")
    assert not page.markdown[0].allow_html
    (root / "reports" / "report.html").write_text("<h1>Retrieval</h1>", encoding="utf-8")
    goto(page, "report")
    assert not page.markdown
    (root / "reports" / "report.html").unlink()
