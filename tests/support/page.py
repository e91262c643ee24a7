"""The page without a browser (Streamlit's AppTest), over a small world whose encoders are stand-ins.

from tests.support.page import page, root  # noqa: F401  (fixtures)
"""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

from cbir.app.settings import DATA_VARIABLE
from cbir.artifacts.images import PackedImage
from cbir.compose import composed
from cbir.search.encoder_artifacts import EncoderArtifacts
from tests.support import world as worlds
from tests.support.imports import ROOT
from tests.support.world import DIMS, make_world

MAIN = ROOT / "cbir" / "app" / "main.py"
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "**bold** _it_ `code`",
    ":smile: :red[x] :material/search:",
    "$x^2$ -> <- [a](http://a.b)",
    "www.example.com #1 | a~~b~~",
    "right\u202eleft\x1b[31m",
    "plain",
)
_packed = worlds._packed


def _packed_hostile(row: tuple[str, str | None]) -> PackedImage:
    packed = _packed(row)
    name = None if row[1] is None else HOSTILE[int(row[1][1:]) % len(HOSTILE)]
    return PackedImage(**{**packed.__dict__, "label_name": name})


class StandInEncoder:
    """An encoder that embeds each text and image as a random vector, seeded by its length."""

    def __init__(self, dim: int) -> None:
        self.card = SimpleNamespace(preprocessing=SimpleNamespace(prepare_packed=lambda data: np.array([len(data)])))
        self._dim = dim

    def open_tower(self, kind: str) -> None:
        pass

    def embed_texts(self, texts: list[str]) -> Any:
        return np.stack([self._row(len(text)) for text in texts])

    def embed_images(self, images: Any) -> Any:
        return np.stack([self._row(int(image[0])) for image in images])

    def _row(self, seed: int) -> Any:
        row = np.random.default_rng(seed).normal(size=self._dim)
        return (row / np.linalg.norm(row)).astype(np.float32)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The artifacts of a pipeline with known vectors, hostile class names and stand-in encoders."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worlds, "_packed", _packed_hostile)
        patch.setattr(EncoderArtifacts, "_load_encoder", lambda artifacts: StandInEncoder(DIMS[artifacts.name]))
        folder = make_world(tmp_path_factory.mktemp("app")).write().root
        (folder / "params.yaml").write_text(composed([], ROOT / "conf"), encoding="utf-8")
        yield folder


@pytest.fixture
def page(root: Path, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    return open_page(root, monkeypatch)


def open_page(root: Path, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    """The page over root/data, which has not run yet."""
    monkeypatch.setenv(DATA_VARIABLE, str(root / "data"))
    return AppTest.from_file(str(MAIN), default_timeout=600)


def run(page: AppTest) -> AppTest:
    page.run()
    assert not page.exception
    return page


def at_address(page: AppTest, **values: str | list[str]) -> AppTest:
    """Open the page at the address with these parameters."""
    for name, value in values.items():
        page.query_params[name] = value
    return run(page)


def goto(page: AppTest, name: str) -> AppTest:
    """Open another page by the menu."""
    page._page_hash = calc_hash(name)  # AppTest.switch_page takes only pages that are files
    return run(page)


def press(page: AppTest, label: str) -> AppTest:
    next(button for button in page.button if button.label == label).click()
    return run(page)


def html(page: AppTest) -> str:
    return "".join(element.body for element in page.html)


def result_ids(page: AppTest) -> list[str]:
    """The ids of the results, in order."""
    keys = [str(button.key) for button in page.button if str(button.key).startswith("like ")]
    return [key.split(" ", 2)[2] for key in keys if " example " not in key]


def example_buttons(page: AppTest) -> dict[str, str]:
    """key -> label of the buttons of example classes."""
    return {str(button.key): button.label for button in page.button if str(button.key).startswith("example ")}


def warnings(page: AppTest) -> list[str]:
    return [warning.value.replace("\\", "").replace("\u2060", "") for warning in page.warning]


def address(page: AppTest) -> dict[str, list[str]]:
    return {name: [value] if isinstance(value, str) else value for name, value in page.query_params.items()}


def jpeg(width: int = 40, height: int = 30) -> bytes:
    file = BytesIO()
    Image.new("RGB", (width, height), "red").save(file, "JPEG")
    return file.getvalue()
