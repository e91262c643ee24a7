"""The page that compares two runs, parsed from its HTML, and the command that writes it."""

import re
import shutil
from dataclasses import replace
from hashlib import md5
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cbir.cli import main as cli
from cbir.core.errors import DataError
from cbir.core.files import write_json
from cbir.report.figures import signed
from cbir.runs.compare import COMPARED_METRICS, Comparison, compare
from cbir.runs.comparison_page import write_comparison
from cbir.runs.opening import open_run
from tests.runs.test_compare import better, run_of
from tests.support.evaluated import list_in_passport
from tests.support.world import DIMS, World, make_world
from tests.support.world import PARAMS as WORLD_PARAMS

RESAMPLES = 400


class Page(HTMLParser):
    """text : of the page without styles and scripts.  articles : the attributes of each query.  alts : of the pictures."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.articles: list[dict[str, str | None]] = []
        self.alts: list[str] = []
        self.words: list[list[str]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self._silent = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag in ("style", "script"):
            self._silent = True
        elif tag == "article":
            self.articles.append(dict(attrs))
        elif tag == "ol":
            self.words.append([])
        elif tag == "li" and self.articles:
            self.words[-1].append(dict(attrs)["class"] or "")
        elif tag == "img":
            self.alts.append(dict(attrs)["alt"] or "")
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th") and self.rows:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("style", "script"):
            self._silent = False
        elif tag == "table":
            self.rows.append([])

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.text += data
            if self.rows and self.rows[-1]:
                self.rows[-1][-1] += data


def lock(root: Path, params: str) -> None:
    """Write a dvc.lock that matches the reports beside it."""
    stages = f"stages:\n  index@clip:\n    params:\n      params.yaml:\n        {params}\n"
    for path in sorted((root / "reports" / "metrics").iterdir()):
        digest = md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        stages += f"  evaluate@{path.stem}:\n    outs:\n    - path: reports/metrics/{path.name}\n      md5: {digest}\n"
    (root / "dvc.lock").write_text(stages)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, World]:
    root = tmp_path_factory.mktemp("pair")
    first = make_world(root / "first").write()
    second = better(first, root / "second", 1.0)
    for world, kind in ((first, "flat"), (second, "hnsw")):
        run_of(world, world.root / "reports")
        lock(world.root, f"index:\n          kind: {kind}\n        evaluate.seed: 0")
    return first, second


def names_of(worlds: tuple[World, World]) -> tuple[str, str]:
    return str(worlds[0].root), str(worlds[1].root)


def written(out: Path, names: tuple[str, str], *folders: Path) -> str:
    write_comparison(out / "page.html", names, folders, RESAMPLES, 0)
    return (out / "page.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def text(worlds: tuple[World, World], tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(tmp_path_factory.mktemp("page"), names_of(worlds), worlds[0].root)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


@pytest.fixture(scope="module")
def comparisons(worlds: tuple[World, World]) -> list[Comparison]:
    return compare(
        [replace(open_run(name), name=Path(name).name) for name in names_of(worlds)], COMPARED_METRICS, RESAMPLES, 0
    )


def test_the_table_shows_each_difference_as_compare_returns_it(page: Page, comparisons: list[Comparison]) -> None:
    rows = [row for row in page.rows if len(row) == 9 and row[1] in ("index", "exact")]
    expected = []
    for comparison in comparisons:
        if comparison.won or comparison.lost:
            interval = comparison.interval
            bounds = "" if interval is None else f" [{signed(interval.low)}, {signed(interval.high)}]"
            p = f"{comparison.p:.4f}" if comparison.p >= 0.0001 else "< 0.0001"
            means = [f"{round(mean, 9):.3f}" for mean in (comparison.base_mean, comparison.run_mean)]
            numbers = [f"{comparison.queries:,}", *means, f"{signed(comparison.difference, 4)}{bounds}", p]
            place = f"{comparison.task} {comparison.encoder}"
            expected.append([place, comparison.search, comparison.metric, *numbers])
    assert [[cell.strip() for cell in row[:-1]] for row in rows] == expected
    assert len(expected) >= 8


def test_the_page_begins_with_the_verdicts(page: Page, comparisons: list[Comparison]) -> None:
    head = " ".join(page.text.partition("Settings that differ")[0].split())
    (clip,) = [each for each in comparisons if (*each.group, each.metric) == ("cbir", "clip", "exact", "map_at_r")]
    means = f"map_at_r {clip.base_mean:.3f} in {clip.base}, {clip.run_mean:.3f} in {clip.run}."
    assert f"cbir clip: {clip.verdict}; {means}" in head
    assert "cbir mobilenet: every query has the same map_at_r in both." in head


def test_only_parameters_that_differ_are_listed(page: Page) -> None:
    start = next(place for place, row in enumerate(page.rows) if row[:1] == ["parameter"])
    rows = page.rows[start + 1 :]
    assert [[cell.strip() for cell in row] for row in rows[: rows.index([])]] == [["index.kind", "flat", "hnsw"]]


def test_changed_queries_are_shown_with_the_results_of_both_runs(
    page: Page, comparisons: list[Comparison], worlds: tuple[World, World]
) -> None:
    changed = [each for each in comparisons if each.metric == "map_at_r" and (each.won or each.lost)]
    changes = [
        change for task in ("cbir", "tbir") for search in ("exact", "index") for comparison in changed
        if (comparison.task, comparison.search) == (task, search) for change in (*comparison.lost, *comparison.won)
    ]  # fmt: skip
    assert [article["data-kind"] for article in page.articles] == ["lost" if c.change < 0 else "won" for c in changes]
    assert len(page.words) == 2 * len(changes)
    queries = {query.query_id: query for query in worlds[0].queries}
    for number, change in enumerate(changes):
        query = queries[change.name]
        for world, words in zip(worlds, page.words[2 * number :][:2], strict=True):
            relevant = world.relevance(query)
            ranking = world.ranking("clip", query)[:10]
            assert words == ["relevant" if image_id in relevant else "not-relevant" for image_id in ranking], change
    assert any(alt.endswith(", relevant") for alt in page.alts)
    assert "no picture" not in page.text


def test_without_images_the_queries_are_listed(worlds: tuple[World, World], tmp_path: Path) -> None:
    other = make_world(tmp_path / "other", n_gallery=200).write()
    run_of(other, other.root / "reports")
    page = Page(written(tmp_path, names_of(worlds), tmp_path, other.root))
    assert "images of these runs are not here" in page.text
    assert page.articles == []
    assert any(row and re.fullmatch(r"\s*(ask|mine:|class:|caption:).*", row[0]) for row in page.rows)


def test_two_runs_of_the_same_results_say_so(worlds: tuple[World, World], tmp_path: Path) -> None:
    name = str(worlds[0].root)
    page = Page(written(tmp_path, (name, name), worlds[0].root))
    assert "All parameters are equal: any difference comes from code, weights, libraries or the machine." in page.text
    assert "Every query has the same value in every metric." in page.text
    assert "No class changed." in page.text
    assert page.articles == []


def test_a_run_without_dvc_lock_is_named(worlds: tuple[World, World], tmp_path: Path) -> None:
    bare = tmp_path / "bare" / "reports"
    shutil.copytree(worlds[1].root / "reports", bare)
    page = Page(written(tmp_path, (str(worlds[0].root), str(bare)), worlds[0].root))
    assert "The parameters of bare/reports are unknown: there is no dvc.lock that matches" in " ".join(
        page.text.split()
    )


def test_the_dvc_lock_of_a_later_run_is_ignored(worlds: tuple[World, World], tmp_path: Path) -> None:
    root = tmp_path / "gone on"
    shutil.copytree(worlds[1].root / "reports", root / "reports_before")
    shutil.copytree(worlds[0].root / "reports", root / "reports")
    lock(root, "index.kind: flat")
    page = Page(written(tmp_path, (str(worlds[0].root), str(root / "reports_before")), worlds[0].root))
    assert "The parameters of reports_before are unknown" in " ".join(page.text.split())


def test_a_dvc_lock_without_every_encoders_metrics_is_ignored(worlds: tuple[World, World], tmp_path: Path) -> None:
    """As after a run that was interrupted between two encoders."""
    root = tmp_path / "half"
    shutil.copytree(worlds[0].root / "reports", root / "reports")
    for text, is_known in (
        ("index.kind: hnsw", True),
        ("index.kind: hnsw  # of other metrics", False),
    ):
        lock(root, text)
        if not is_known:
            locked = (root / "dvc.lock").read_text()
            digest = md5((root / "reports" / "metrics" / "clip.json").read_bytes(), usedforsecurity=False).hexdigest()
            assert locked.count(digest) == 1
            (root / "dvc.lock").write_text(locked.replace(digest, "d" * 32))
        page = Page(written(tmp_path, (str(worlds[0].root), str(root)), worlds[0].root))
        assert ("The parameters of half are unknown" in " ".join(page.text.split())) is not is_known


def test_images_of_other_data_are_not_shown(worlds: tuple[World, World], tmp_path: Path) -> None:
    """data/ may be newer than reports/, after an interrupted run."""
    ahead = make_world(tmp_path / "ahead", n_gallery=200).write()
    shutil.copytree(worlds[0].root / "reports", ahead.root / "reports")
    page = Page(written(tmp_path, names_of(worlds), ahead.root))
    assert "images of these runs are not here" in page.text
    assert Page(written(tmp_path, names_of(worlds), ahead.root, worlds[0].root)).articles != []


def test_without_run_tables_the_queries_are_listed(worlds: tuple[World, World], tmp_path: Path) -> None:
    bare = tmp_path / "bare" / "reports"
    shutil.copytree(worlds[1].root / "reports", bare, ignore=shutil.ignore_patterns("runs"))
    page = Page(written(tmp_path, (str(worlds[0].root), str(bare)), worlds[0].root))
    assert "this page needs the run tables (reports/evaluation) of both runs" in page.text
    assert any(row and re.fullmatch(r"\s*(ask|mine:|class:|caption:).*", row[0]) for row in page.rows)


@pytest.mark.parametrize("file", [f"{name}/{file}.json" for name in DIMS for file in ("metrics", "intervals")])
def test_damaged_metrics_are_refused(worlds: tuple[World, World], tmp_path: Path, file: str) -> None:
    shutil.copytree(worlds[1].root / "reports", tmp_path / "reports")
    write_json(tmp_path / "reports" / "evaluation" / file, {"cbir": {}})
    list_in_passport((tmp_path / "reports" / "evaluation" / file).parent)
    with pytest.raises(
        DataError, match=rf"{re.escape(file)}: expected the group 'tbir' that evaluate writes, found NoneType"
    ):
        written(tmp_path, (str(worlds[0].root), str(tmp_path)), worlds[0].root)


def test_encoders_of_only_one_run_are_named(worlds: tuple[World, World], tmp_path: Path) -> None:
    world = worlds[1]
    world.evaluate(tmp_path / "reports", params=replace(WORLD_PARAMS, ks=[1, 10]), encoders=["mobilenet"])
    page = Page(written(tmp_path, (str(worlds[0].root), str(tmp_path)), worlds[0].root))
    assert "only first has cbir clip" in page.text
    assert "only first has tbir clip" in page.text


def test_hostile_names_and_values_are_shown_as_text(worlds: tuple[World, World], tmp_path: Path, text: str) -> None:
    names = []
    for world, name in zip(worlds, ("<script>alert(1)<script>", 'a" onload="alert(1)\u202e'), strict=True):
        root = tmp_path / name
        shutil.copytree(world.root / "reports", root / "reports")
        lock(root, f"'<img src=x>': '</style><script>{len(names)}'")
        names.append(str(root))
    hostile = written(tmp_path, (names[0], names[1]), worlds[0].root)
    page = Page(hostile)
    assert "script>alert(1)<script>" in page.text
    assert "</style><script>1" in page.text
    assert "\u202e" not in hostile
    assert page.tags.count("script") == Page(text).tags.count("script")
    assert "onload" not in "".join(re.findall(r"<[^>]*>", hostile))


def test_the_page_loads_nothing_from_elsewhere(text: str) -> None:
    assert re.findall(r"""(?:src|href)=(?!["']?(?:data:|#))""", text) == []
    assert "://" not in re.sub(r'xmlns[:a-z]*="[^"]*"', "", text)


def test_the_same_runs_give_the_same_page(worlds: tuple[World, World], tmp_path: Path, text: str) -> None:
    assert written(tmp_path, names_of(worlds), worlds[0].root) == text


def test_runs_over_other_data_are_refused_without_a_page(worlds: tuple[World, World], tmp_path: Path) -> None:
    other = make_world(tmp_path / "other", n_gallery=200).write()
    run_of(other, other.root / "reports")
    with pytest.raises(DataError, match="cannot be compared"):
        written(tmp_path, (str(worlds[0].root), str(other.root)), worlds[0].root)
    assert not (tmp_path / "page.html").exists()


def test_the_command_prints_the_path_of_the_page(
    worlds: tuple[World, World], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    cli.main(["report", "--compare", *names_of(worlds), "--resamples", "200"])
    out = Path(capsys.readouterr().out.strip())
    assert out == Path("reports/comparisons/first-second.html")
    assert "second against first" in " ".join(out.read_text(encoding="utf-8").split()).replace(
        f"{worlds[0].root.parent}/", ""
    )
    assert "no picture" not in out.read_text(encoding="utf-8")


def test_the_command_refuses_wrong_arguments_in_one_line(
    worlds: tuple[World, World], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=r"^error: no-such-run: neither a folder nor a git revision nor an experiment"):
        cli.main(["report", "--compare", str(worlds[0].root), "no-such-run"])
    with pytest.raises(SystemExit, match=r"^error: --compare: expected two runs, found an empty name"):
        cli.main(["report", "--compare", "", "."])
    for out in ("metrics.json", str(worlds[0].root)):
        with pytest.raises(SystemExit, match=rf"^error: --out: expected .* ends in \.html, found {re.escape(out)}$"):
            cli.main(["report", "--compare", *names_of(worlds), "--out", out])
    with pytest.raises(SystemExit) as caught:
        cli.main(["report"])
    assert caught.value.code == 2
    assert "--compare" in capsys.readouterr().err


def test_charts_over_k_cover_each_task_and_encoder(worlds: tuple[World, World], text: str) -> None:
    for task, encoder in (("cbir", "mobilenet"), ("cbir", "clip"), ("tbir", "clip")):
        for family in ("precision", "recall"):
            assert f"{task} {encoder}: {family}@k by exact search" in text
