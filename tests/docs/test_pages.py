"""Tests of README.md and docs/: length, links, pictures, and what must be documented."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from cbir.core.params import leaf_keys
from cbir.datasets.query_file import read_query_file
from cbir.evaluation.definitions import FAMILIES
from cbir.schema import Params
from tests.docs.pages import PAGES, blocks_of
from tests.support.imports import ROOT

TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}
MANUAL = "\n".join(TEXTS.values())
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def test_readme_has_at_most_150_lines() -> None:
    assert len(TEXTS[ROOT / "README.md"].splitlines()) <= 150


@pytest.mark.parametrize("page", [*PAGES, ROOT / "data/README.md", ROOT / "benchmarks/README.md"], ids=str)
def test_every_relative_link_and_picture_exists(page: Path) -> None:
    targets = [target.partition("#")[0] for target in LINK.findall(page.read_text(encoding="utf-8"))]
    absent = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert absent == []


def test_pictures_are_in_git_and_under_1_mb_together() -> None:
    pictures = [*(ROOT / "docs/images").iterdir()]
    assert all(picture.suffix == ".png" for picture in pictures)
    assert sum(picture.stat().st_size for picture in pictures) < 1e6
    assert [picture.name for picture in pictures if f"images/{picture.name}" not in MANUAL] == []


def test_every_command_is_documented() -> None:
    command = [sys.executable, "-m", "cbir", "--help"]
    help_text = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    commands = re.findall(r"^    ([a-z]+)\b", help_text, re.MULTILINE)
    assert {"search", "sweep", "compose"} <= set(commands)
    assert [name for name in commands if f"cbir {name}" not in MANUAL] == []


def test_every_group_and_choice_of_conf_is_documented() -> None:
    names = [path.name for path in (ROOT / "conf").iterdir() if path.is_dir() and path.name != "__pycache__"]
    names += [path.stem for path in (ROOT / "conf").glob("*/*.yaml") if path.parent.name != "mine"]
    assert [name for name in names if not re.search(rf"`[^`\n]*\b{name}\b[^`\n]*`", MANUAL)] == []


def test_every_named_parameter_exists() -> None:
    keys = leaf_keys(Params)
    groups = "|".join({key.partition(".")[0] for key in keys} - {"report"})  # report.html is a file
    names = set(re.findall(rf"(?<![\w./-])((?:{groups})(?:\.[a-z_]+)+)\b", MANUAL))
    names = {name for name in names if not name.endswith(".md")}
    assert len(names) > 30
    assert [name for name in sorted(names) if not any(f"{key}.".startswith(f"{name}.") for key in keys)] == []


def test_every_metric_is_in_the_glossary() -> None:
    glossary = TEXTS[ROOT / "docs/glossary.md"]
    assert [name for name in FAMILIES if f"| `{name}` |" not in glossary] == []


def test_every_section_of_the_report_is_documented() -> None:
    template = (ROOT / "cbir/report/templates/report.html.j2").read_text(encoding="utf-8")
    sections = re.findall(r"<h2[^>]*>([^<]+)</h2>", template) + re.findall(r'call fold\("[^"]*", "([^"]+)"\)', template)
    assert len(sections) >= 10
    page = TEXTS[ROOT / "docs/report.md"]
    assert [section for section in sections if f"| {section} |" not in page] == []


def test_every_stage_and_package_is_documented() -> None:
    page = TEXTS[ROOT / "docs/how-it-works.md"]
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert [name for name in stages if f"| `{name}`" not in page] == []
    packages = [path.parent.name for path in (ROOT / "cbir").glob("*/__init__.py")]
    assert sorted(packages) == sorted(re.findall(r"^      (\w+)/  ", page, re.MULTILINE))


def test_the_query_list_of_the_manual_is_one(tmp_path: Path) -> None:
    (block,) = [block for block in blocks_of(ROOT / "docs/your-images.md") if block.language == "csv"]
    path = tmp_path / "my_queries.csv"
    path.write_text(block.code, encoding="utf-8")
    assert {query.task for query in read_query_file(path).rows} == {"cbir", "tbir"}


def test_every_benchmark_is_documented() -> None:
    text = (ROOT / "benchmarks/README.md").read_text(encoding="utf-8")
    files = (ROOT / "benchmarks").glob("*.py")
    scripts = {path.stem for path in files if "__main__" in path.read_text(encoding="utf-8")} - {"alone"}
    assert [name for name in sorted(scripts) if f"python -m benchmarks.{name}" not in text] == []


def test_every_named_file_exists() -> None:
    names = set(re.findall(r"`((?:cbir|conf|stages|tests|benchmarks|docs)/[\w./-]*)`", MANUAL)) - {
        "conf/mine/"
    }  # `cbir compose` writes it
    assert [name for name in sorted(names) if not (ROOT / name).exists()] == []


# ---- the manual as a web site


class Loaded(HTMLParser):
    """Collects what a page loads by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in ("script", "img", "iframe"):
            self.addresses.append(values.get("src") or "")
        if tag == "link" and values.get("rel") not in ("canonical", "next", "prev"):
            self.addresses.append(values.get("href") or "")


def test_the_site_builds_and_loads_nothing_from_the_network(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    env = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    pages = [*(tmp_path / "site").rglob("*.html")]
    assert len(pages) >= len(PAGES) - 1  # README.md is not one of them
    for page in pages:
        loaded = Loaded()
        loaded.feed(page.read_text(encoding="utf-8"))
        assert loaded.addresses
        assert [address for address in loaded.addresses if re.match("(?:[a-z]+:)?//", address)] == [], page
