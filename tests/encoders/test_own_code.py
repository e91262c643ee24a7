"""Code that comes with a model or a tokenizer never runs, whatever stdin answers."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cbir.core.errors import ConfigError
from cbir.encoders import references
from cbir.encoders.families import load_family
from cbir.encoders.open_clip_tokenizers import open_tokenizer
from cbir.encoders.params import EncoderParams, Family
from cbir.encoders.weights import fetch_encoder
from tests.support.encoders import TINY, refused, save_tokenizer
from tests.support.pretrained import save_clip

ANSWERS = "y\n" * 20


@pytest.fixture(autouse=True)
def _nothing_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Answer yes to every question; after the test, no code has run and no question was heard."""
    monkeypatch.setattr("sys.stdin", answers := io.StringIO(ANSWERS))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    yield
    assert not (tmp_path / "ran").exists()
    assert answers.read() == ANSWERS


def add_code(folder: Path, file: str, auto: str, **changes: Any) -> Path:
    """Let a JSON file of the folder name a class in a module, which writes a file when it is imported."""
    path = folder / file
    values = json.loads(path.read_text()) if path.exists() else {}
    target = ["mine.Mine", "mine.Mine"] if auto == "AutoTokenizer" else "mine.Mine"
    path.write_text(json.dumps({**values, "auto_map": {auto: target}, **changes}))
    ran = folder.parent / "ran"
    (folder / "mine.py").write_text(f"open({str(ran)!r}, 'w')\nclass Mine:\n    pass\n")
    return folder


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    folder = tmp_path / "tokenizer"
    save_tokenizer(folder)
    return add_code(folder, "tokenizer_config.json", "AutoTokenizer", tokenizer_class="Mine")


def open_clip_params(tmp_path: Path, text_cfg: dict[str, Any], **changes: Any) -> EncoderParams:
    architecture = tmp_path / "tiny.json"
    architecture.write_text(json.dumps({**TINY, "text_cfg": {**TINY["text_cfg"], **text_cfg}}))
    values = {"family": Family.open_clip, "architecture": str(architecture), "weights": "random:0"}
    return EncoderParams(**{**values, **changes})


@pytest.mark.parametrize("named_by", ["parameter", "architecture"])
def test_open_clip_refuses_a_tokenizer_of_its_own_code(tokenizer: Path, tmp_path: Path, named_by: str) -> None:
    name = str(tokenizer)
    settings = {"hf_tokenizer_name": name, "tokenizer_kwargs": {"trust_remote_code": True}}
    given = {"tokenizer": name} if named_by == "parameter" else {}
    message = refused(ConfigError, open_clip_params(tmp_path, settings, **given), tmp_path / "out")
    assert message.startswith(f"it.tokenizer: {name} has code of its own (auto_map), which cbir never runs")


def test_settings_of_a_folder_cannot_allow_its_code(tokenizer: Path) -> None:
    text_cfg = {**TINY["text_cfg"], "hf_tokenizer_name": "x", "tokenizer_kwargs": {"trust_remote_code": True}}
    (tokenizer / "open_clip_config.json").write_text(json.dumps({"model_cfg": {**TINY, "text_cfg": text_cfg}}))
    with pytest.raises(ValueError, match="trust_remote_code"):
        open_tokenizer(f"local-dir:{tokenizer}")


def test_a_text_tower_of_its_own_code_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "text"
    save_tokenizer(folder)
    add_code(folder, "config.json", "AutoConfig", model_type="mine")
    params = open_clip_params(tmp_path, {"hf_model_name": "x/y"}, tokenizer=str(folder))
    assert "has code of its own (auto_map)" in refused(ConfigError, params, tmp_path / "out")


def test_transformers_refuses_a_tokenizer_of_its_own_code(tokenizer: Path, tmp_path: Path) -> None:
    params = transformers_params(tmp_path, tokenizer=str(tokenizer))
    message = refused(ConfigError, params, tmp_path / "out")
    assert message.startswith(f"it.tokenizer: {tokenizer} has code of its own (auto_map), which cbir never runs")


def test_code_beside_what_the_library_knows_is_left_alone(tmp_path: Path) -> None:
    params = transformers_params(tmp_path)
    for file, auto in (("tokenizer_config.json", "AutoTokenizer"), ("preprocessor_config.json", "AutoImageProcessor")):
        add_code(Path(params.architecture), file, auto)
    fetch_encoder("it", params, tmp_path / "out")
    load_family(Family.transformers).build_modules(tmp_path / "out")
    references.load_reference(tmp_path / "out", params)


def transformers_params(tmp_path: Path, **changes: Any) -> EncoderParams:
    architecture = str(save_clip(tmp_path / "model"))
    return EncoderParams(family=Family.transformers, architecture=architecture, weights="pretrained", **changes)
