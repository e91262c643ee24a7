"""Evaluation of files in TREC's format: the same values as ir_measures, and refused files."""

import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from cbir.artifacts.trec import percent_encoded
from cbir.cli import main as cli
from cbir.core.errors import CbirError, DataError
from cbir.evaluation import trec as trec_evaluation
from cbir.evaluation.statistics import interval_of_means
from cbir.evaluation.trec import Evaluation, evaluate_run
from cbir.evaluation.trec_tables import as_markdown, print_table
from tests.support.trec import KS, by_ir_measures, measures, reproducible

Judgements = dict[str, dict[str, int]]
Results = dict[str, dict[str, float]]


def written(folder: Path, run: Results, qrels: Judgements) -> tuple[Path, Path]:
    run_file, qrels_file = folder / "their.run", folder / "their.qrels"
    run_file.write_text(
        "".join(f"{q} Q0 {i} 0 {score!r} tag\n" for q, results in run.items() for i, score in results.items()), "utf-8"
    )
    qrels_file.write_text(
        "".join(f"{q} 0 {i} {grade}\n" for q, grades in qrels.items() for i, grade in grades.items()), "utf-8"
    )
    return run_file, qrels_file


def evaluated(folder: Path, run: Results, qrels: Judgements, ks: Iterable[int] = KS) -> Evaluation:
    return evaluate_run(*written(folder, run, qrels), list(ks), 100, 0)


def random_files(rng: np.random.Generator) -> tuple[Results, Judgements]:
    """Up to 40 queries over 60 images: ties, grades of -2 to 4, queries that one file alone holds, results in no order."""
    images = [f"{'é' * (n % 3)}i{n}" for n in range(60)]
    run: Results = {}
    qrels: Judgements = {}
    decimals = int(rng.integers(0, 4))
    for number in range(int(rng.integers(1, 41))):
        query_id = f"q{number}"
        if number == 0 or rng.random() < 0.8:
            chosen = rng.permutation(60)[: rng.integers(1, 61)]
            scores = rng.normal(size=len(chosen)).round(decimals).astype(np.float32)
            run[query_id] = {images[i]: float(score) for i, score in zip(chosen, scores, strict=True)}
        if number == 0 or rng.random() < 0.8:
            chosen = rng.permutation(60)[: rng.integers(1, 40)]
            qrels[query_id] = {images[i]: int(rng.integers(-2, 5)) for i in chosen}
            # trec_eval 9.0.7 reads memory that is not its own where no grade of a query is 0 or more
            qrels[query_id][images[chosen[0]]] = int(rng.integers(0, 5))
    qrels["q0"]["i0"] = 1
    return run, qrels


@pytest.mark.parametrize("seed", range(50))
def test_every_value_equals_that_of_ir_measures(seed: int, tmp_path: Path) -> None:
    run, qrels = random_files(np.random.default_rng(seed))
    found = evaluated(tmp_path, run, qrels)
    theirs = by_ir_measures(tmp_path / "their.run", tmp_path / "their.qrels", KS)
    judged = [query_id for query_id, grades in qrels.items() if max(grades.values()) >= 1]
    assert found.query_ids == judged
    for name in measures(KS):
        expected = [theirs[query_id][name] for query_id in judged]
        np.testing.assert_allclose(found.values[name], expected, rtol=0, atol=1e-9, err_msg=name)
    assert found.means == pytest.approx({name: row.mean() for name, row in found.values.items()}, abs=1e-12)
    for query_id in set(qrels) - set(judged):  # trec_eval counts them 0, we leave them out
        assert set(theirs[query_id].values()) == {0.0}

    counts = found.counts
    relevant = {q: {i for i, grade in qrels[q].items() if grade >= 1} for q in judged}
    assert (counts.queries, counts.without_relevant) == (len(judged), len(qrels) - len(judged))
    assert (counts.unanswered, counts.unjudged) == (len(set(judged) - set(run)), len(set(run) - set(qrels)))
    assert counts.results == sum(len(run.get(q, {})) for q in judged)
    assert counts.relevant == sum(map(len, relevant.values()))
    assert counts.found == sum(len(relevant[q] & set(run.get(q, {}))) for q in judged)
    assert counts.float32_ties == 0


def test_intervals_resample_single_queries(tmp_path: Path) -> None:
    run, qrels = random_files(np.random.default_rng(0))
    found = evaluate_run(*written(tmp_path, run, qrels), [1], 500, 7)
    columns = np.column_stack([*found.values.values()])
    assert [*found.intervals.values()] == interval_of_means(columns, np.arange(len(columns)), 500, 7)
    one = evaluated(tmp_path, {"q": {"a": 1.0}}, {"q": {"a": 1}})
    assert set(one.intervals.values()) == {None}
    assert one.to_json()["intervals"]["mrr"] is None


def test_values_do_not_depend_on_the_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, qrels = random_files(np.random.default_rng(3))
    whole = evaluated(tmp_path, run, qrels)
    monkeypatch.setattr(trec_evaluation, "_BLOCK_CELLS", 100)
    parts = evaluated(tmp_path, run, qrels)
    for name, values in whole.values.items():
        np.testing.assert_array_equal(parts.values[name], values)


def test_a_wide_query_does_not_widen_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trec_evaluation, "_BLOCK_CELLS", 20)
    widths = np.array([3, 3, 3, 50, 3, 3, 3, 3, 3, 3, 3, 3])
    blocks = [widths[rows].tolist() for rows in trec_evaluation._blocks(widths)]
    assert blocks == [[3, 3, 3], [50], [3] * 6, [3] * 2]


def test_equal_scores_rank_by_descending_id(tmp_path: Path) -> None:
    run, qrels = tmp_path / "run", tmp_path / "qrels"
    run.write_text("q Q0 i9 1 5 t\nq Q0 i10 2 5.0 t\nq Q0 é 3 5e0 t\nq Q0 low 1 4 t\n")  # é, i9, i10, low
    qrels.write_text("q 0 i10 1\nq 0 low 1\n")
    assert evaluate_run(run, qrels, [1], 100, 0).means["map"] == pytest.approx((1 / 3 + 2 / 4) / 2)


def test_queries_in_only_one_file_are_counted(tmp_path: Path) -> None:
    run = {"answered": {"a": 1.0}, "unjudged": {"a": 1.0}, "irrelevant": {"a": 1.0}}
    qrels = {"answered": {"a": 1}, "absent": {"a": 2}, "irrelevant": {"a": 0, "b": -1}}
    found = evaluated(tmp_path, run, qrels)
    assert dict(zip(found.query_ids, found.values["mrr"], strict=True)) == {"answered": 1, "absent": 0}
    assert found.means["precision@1"] == 0.5
    assert (found.counts.unanswered, found.counts.unjudged, found.counts.without_relevant) == (1, 1, 1)


def test_scores_equal_in_float32_are_ranked_and_counted(tmp_path: Path) -> None:
    run = {
        "q": {"z": 1.0, "a": 1.0 + 1e-12},
        "p": {"z": 1.0, "a": 1.1},
        "r": {"z": 1.0, "a": 1.0},
        "s": {"z": 1e300, "a": 1e301},
    }
    found = evaluated(tmp_path, run, {query_id: {"a": 1} for query_id in run})
    assert found.values["mrr"].tolist() == [1, 1, 0.5, 1]
    assert found.counts.float32_ties == 2  # 1e300 and 1e301 are both infinite there
    theirs = by_ir_measures(tmp_path / "their.run", tmp_path / "their.qrels", [1])
    assert theirs["q"]["mrr"] == 0.5


@pytest.mark.parametrize("encoded", ["run", "qrels", "both", "neither"])
def test_a_percent_encoded_file_matches_a_plain_one(tmp_path: Path, encoded: str) -> None:
    ids = ["my cats/é.jpg", "100%.jpg", "100%25.jpg", "#1", "plain", "unjudged\u3000%41"]
    forms = {name: percent_encoded if encoded in (name, "both") else str for name in ("run", "qrels")}
    run, qrels = tmp_path / "x.run", tmp_path / "x.qrels"
    lines = [("a query", image_id, 1 - rank / 10) for rank, image_id in enumerate(ids)]
    run.write_text("".join(f"{forms['run'](q)}\tQ0\t{forms['run'](i)}\t0\t{s}\tt\n" for q, i, s in lines), "utf-8")
    qrels.write_text("".join(f"{forms['qrels'](q)}\t0\t{forms['qrels'](i)}\t1\n" for q, i, _ in lines[:-1:2]), "utf-8")
    found = evaluate_run(run, qrels, [3], 100, 0)
    assert (found.counts.found, found.counts.results, found.counts.unjudged) == (3, 6, 0)
    assert found.means["precision@3"] == pytest.approx(2 / 3)


def test_ids_with_blanks_are_read_between_tabs(tmp_path: Path) -> None:
    run, qrels = tmp_path / "run", tmp_path / "qrels"
    run.write_bytes(
        b"\xef\xbb\xbfmy q\tQ0\tmy cat.jpg\t1\t2.5\tmy tag\r\n\n  \nmy q\tQ0\tb\t2\t1\ttag\nq Q0\tc\xc2\xa0d.jpg 1 1 t"
    )
    qrels.write_text("my q\t0\tmy cat.jpg\t1\nq 0 c\u00a0d.jpg 1\n")
    found = evaluate_run(run, qrels, [1], 100, 0)
    assert (found.query_ids, found.values["mrr"].tolist()) == (["my q", "q"], [1, 1])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_of_any_system_are_read(tmp_path: Path, end: str) -> None:
    run, qrels = tmp_path / "x.run", tmp_path / "x.qrels"
    run.write_bytes(end.join(f"q{n} Q0 my%20{n}.jpg 1 0.5 tag" for n in range(3)).encode())
    qrels.write_bytes(end.join(f"q{n} 0 my%20{n}.jpg 1" for n in range(3)).encode())
    assert evaluate_run(run, qrels, [1], 100, 0).means["precision@1"] == 1.0


@pytest.mark.parametrize(
    ("of_run", "of_qrels"),
    [("my%2dcat.jpg", "my-cat.jpg"), ("./a/b.jpg", "a/b.jpg"), ("e\u0301.jpg", "\u00e9.jpg"), ("%c3%a9.jpg", "é.jpg")],
)
def test_ids_spelt_differently_are_refused_not_scored_zero(tmp_path: Path, of_run: str, of_qrels: str) -> None:
    run, qrels = tmp_path / "x.run", tmp_path / "x.qrels"
    run.write_text(f"q1 Q0 {of_run} 1 0.5 tag\nq1 Q0 other.jpg 2 0.4 tag\n", "utf-8")
    qrels.write_text(f"q1 0 {of_qrels} 1\nq1 0 other.jpg 1\n", "utf-8")
    with pytest.raises(
        DataError, match=r"x\.run: image '.*' is '.*' in .*x\.qrels: expected the same spelling in both"
    ):
        evaluate_run(run, qrels, KS, 100, 0)
    qrels.write_text(f"q1 0 {of_qrels} 1\nq1 0 {of_run} 1\n", "utf-8")  # two images
    evaluate_run(run, qrels, KS, 100, 0)


class Bad:
    RUN, QRELS = "q1 Q0 a.jpg 1 0.5 tag\n", "q1 0 a.jpg 1\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q1 Q0 b.jpg 2 0.4", "expected the 6 fields 'query_id Q0 image_id rank score tag', found 5: 'q1 Q0 b.jpg 2 0.4'"),
        ("q1 Q0 my b.jpg 2 0.4 tag", "expected the 6 fields .*, found 7: 'q1 Q0 my b.jpg"),
        ("q1 Q0 my b.jpg 2 0.4", "column rank: expected a number, found 'b.jpg': separate the 6 fields by tabs"),
        ("my q1 Q0 b.jpg 2 0.4", "column rank: expected a number, found 'b.jpg'"),
        ("q1,Q0,b.jpg,2,0.4,tag", "expected the 6 fields .*, found 1: 'q1,Q0"),
        ("{'json': 1}", "expected the 6 fields .*, found 2"),
        ("x" * 5000, r"expected the 6 fields .*, found 1: 'x{120}'\.\.\.$"),
        ("\0\0\0", r"expected the 6 fields .*, found 1: '\\x00\\x00\\x00'"),
        (b"\x1f\x8b\x08", r"expected text in UTF-8, found the byte 0x8b: save it as UTF-8"),
        ("q2 Q0 b.jpg 2 high tag", "column score: expected a finite number, found 'high'"),
        *[
            (f"q2 Q0 b.jpg 2 {score} tag", f"column score: expected a finite number, found '{score}'")
            for score in ("nan", "-NaN", "inf", "-inf", "1e400", "1_0", "0,5", "٣", "0x1p3", "--1")
        ],
        ("q1 Q0 a.jpg 7 0.1 tag", "query 'q1' has image 'a.jpg' in an earlier line already"),
        ("q1 Q0 a.jpg 1 1 t\nq0 Q0 b 1 1 t\nq0 Q0 b 1 1 t\nq1 Q0 a.jpg 1 1 t", "query 'q1' has image 'a.jpg' in an"),
    ],
)  # fmt: skip
def test_a_wrong_line_of_a_run_is_named(tmp_path: Path, line: str | bytes, message: str) -> None:
    run, qrels = tmp_path / "x.run", tmp_path / "x.qrels"
    run.write_bytes(Bad.RUN.encode() + b"\n" + (line if isinstance(line, bytes) else line.encode()) + b"\n")
    qrels.write_text(Bad.QRELS)
    with pytest.raises(DataError, match=rf"x\.run line 3.*{message}") as caught:
        evaluate_run(run, qrels, KS, 100, 0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q1 b.jpg 1", "expected 'query_id 0 image_id relevance', found 'q1 b.jpg 1'"),
        (
            "my q1 0 b.jpg 1",
            "found more fields in 'my q1 0 b.jpg 1': separate the fields by tabs where ids hold spaces",
        ),
        ("q1 0 b.jpg high", r"column relevance: expected a whole number in \[-127, 127\], found 'high'"),
        ("q1 0 b.jpg 0.5", r"column relevance: expected a whole number in \[-127, 127\], found '0.5'"),
        ("q1 0 b.jpg -128", r"column relevance: expected a whole number in \[-127, 127\], found '-128'"),
        (Bad.RUN.strip(), r"column relevance: expected a whole number in \[-127, 127\], found 'tag'"),
        ("q1 0 a.jpg 0", "query 'q1' and image 'a.jpg' are judged twice"),
    ],
)
def test_a_wrong_line_of_qrels_is_named(tmp_path: Path, line: str, message: str) -> None:
    run, qrels = tmp_path / "x.run", tmp_path / "x.qrels"
    run.write_text(Bad.RUN)
    qrels.write_text(f"{Bad.QRELS}\n{line}\n")
    with pytest.raises(DataError, match=rf"x\.qrels line 3.*{message}"):
        evaluate_run(run, qrels, KS, 100, 0)


@pytest.mark.parametrize(
    ("run", "qrels", "message"),
    [
        ("", Bad.QRELS, r"x\.run: expected results for queries of .*x\.qrels, found none: the file is empty"),
        ("\n \n", Bad.QRELS, r"x\.run: .*found none: the file is empty"),
        ("q2 Q0 a 1 1 t", Bad.QRELS, r"x\.run: .*found none: a query there is 'q2', in the qrels 'q1'"),
        (Bad.RUN, "", r"x\.qrels: expected a relevance of 1 or more in at least one line, found an empty file"),
        (Bad.RUN, "q1 0 a 0\nq1 0 b -1\n", r"x\.qrels: expected a relevance of 1 .*, found none in 2 lines"),
        (None, Bad.QRELS, r"x\.run: expected a file that can be read, found none: No such file or directory"),
        (Bad.RUN, None, r"x\.qrels: expected a file that can be read, found none: No such file or directory"),
    ],
)
def test_files_with_nothing_to_evaluate_are_refused(
    tmp_path: Path, run: str | None, qrels: str | None, message: str
) -> None:
    for name, text in (("x.run", run), ("x.qrels", qrels)):
        if text is not None:
            (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        evaluate_run(tmp_path / "x.run", tmp_path / "x.qrels", KS, 100, 0)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    run, qrels = written(tmp_path, {"q": {"a": 1.0}}, {"q": {"a": 1}})
    for files in ((tmp_path, qrels), (run, tmp_path)):
        with pytest.raises(DataError, match="expected a file, found a folder"):
            evaluate_run(*files, KS, 100, 0)


def test_a_file_without_read_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(self: Path, *args: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    run, qrels = written(tmp_path, {"q": {"a": 1.0}}, {"q": {"a": 1}})
    monkeypatch.setattr(Path, "open", refusing)
    with pytest.raises(
        DataError, match=r"their\.qrels: expected a file that can be read, found none: Permission denied"
    ):
        evaluate_run(run, qrels, KS, 100, 0)


words = st.sampled_from(
    [b"q1", b"Q0", b"a.jpg", b"1", b"0.5", b"tag", b"nan", b"\t", b" ", b"\n", b"\xff", b"\0", b"-3"]
)


@reproducible
@given(run=st.lists(words, max_size=30), qrels=st.lists(words, max_size=20), data=st.data())
def test_any_bytes_give_a_result_or_a_one_line_error(
    tmp_path: Path, run: list[bytes], qrels: list[bytes], data: st.DataObject
) -> None:
    join: Callable[[list[bytes]], bytes] = data.draw(st.sampled_from([b"".join, b" ".join]))
    good = data.draw(st.booleans())
    (tmp_path / "run").write_bytes((Bad.RUN.encode() if good else b"") + join(run))
    (tmp_path / "qrels").write_bytes((Bad.QRELS.encode() if good else b"") + join(qrels))
    try:
        found = evaluate_run(tmp_path / "run", tmp_path / "qrels", [1], 100, 0)
    except CbirError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert all(0 <= value <= 1 for value in found.means.values())


seeds = st.integers(0, 2**32 - 1)


@reproducible
@given(seed=seeds)
def test_the_order_of_lines_and_queries_changes_nothing(tmp_path: Path, seed: int) -> None:
    run, qrels = written(tmp_path, *random_files(np.random.default_rng(seed)))
    before = evaluate_run(run, qrels, KS, 100, 0)
    for path in (run, qrels):
        lines = path.read_text("utf-8").splitlines(keepends=True)
        random.Random(seed).shuffle(lines)
        path.write_text("".join(lines), "utf-8")
    after = evaluate_run(run, qrels, KS, 100, 0)
    assert sorted(after.query_ids) == sorted(before.query_ids)
    order = [after.query_ids.index(query_id) for query_id in before.query_ids]
    for name, values in before.values.items():
        np.testing.assert_array_equal(after.values[name][order], values)
    assert after.counts == before.counts


@reproducible
@given(seed=seeds)
def test_raising_the_best_images_never_lowers_a_metric(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    run, qrels = random_files(rng)
    before = evaluated(tmp_path, run, qrels)
    for query_id, results in run.items():
        grades = qrels.get(query_id, {})
        best = [image for image in results if grades.get(image, 0) == max(grades.values(), default=1) >= 1]
        if best:
            results[best[rng.integers(len(best))]] += float(rng.choice([0.25, 1, 3]))
    after = evaluated(tmp_path, run, qrels)
    for name, values in before.values.items():
        assert (after.values[name] >= values - 1e-12).all(), name


# --- what is printed --------------------------------------------------------------------------------------------------


@pytest.fixture
def theirs(tmp_path: Path) -> tuple[Path, Path]:
    run = {"answered": {"a": 1.0, "b": 1.0 + 1e-12}, "unjudged": {"a": 1.0}, "irrelevant": {"a": 1.0}}
    return written(tmp_path, run, {"answered": {"a": 1}, "absent": {"a": 2}, "irrelevant": {"a": 0}})


def test_the_table_shows_means_intervals_and_counts(theirs: tuple[Path, Path]) -> None:
    console = Console(width=140, record=True, force_terminal=False)
    print_table(evaluate_run(*theirs, [1, 10], 100, 0), console)
    text = " ".join(console.export_text().split())
    for told in (
        "success@10 0.5000 -",  # two queries are too few for an interval
        "mrr 0.2500 -",
        "2 queries, 2 results, 1 of 2 relevant images retrieved",
        "1 query not in the run: 0 in every metric, as by trec_eval -c",
        "1 query in the qrels without a relevant image: left out",
        "1 query in the run without qrels: left out",
        "1 query with scores that are equal as float32",
        "equal scores by descending image_id",
    ):
        assert told in text
    page = as_markdown(evaluate_run(*theirs, [1, 10], 100, 0))
    assert "| success@10 | 0.5000 | \\- |" in page
    assert "- 1 query in the run without qrels: left out" in page


def test_a_single_query_has_no_interval(tmp_path: Path) -> None:
    page = as_markdown(evaluated(tmp_path, {"q": {"a": 1.0}}, {"q": {"a": 1}}))
    assert "| mrr | 1.0000 | \\- |" in page


def test_the_command_prints_json(theirs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    run, qrels = map(str, theirs)
    cli.main(["evaluate", "--run", run, "--qrels", qrels, "--ks", "5", "1", "5", "--json", "--resamples", "100"])
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["metrics", "intervals", "counts", "about"]
    assert [name for name in found["metrics"] if name.startswith("recall")] == ["recall@1", "recall@5"]
    assert found["metrics"]["mrr"] == 0.25
    assert found["counts"]["unanswered"] == 1
    assert found["about"] == {"level": 0.95, "resamples": 100, "seed": 0, "drawn": "queries"}
    cli.main(["evaluate", "--run", run, "--qrels", qrels])
    assert "precision@10" in capsys.readouterr().out
    cli.main(["evaluate", "--run", run, "--qrels", qrels, "--markdown"])
    assert "| precision@10 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--ks", "0"], "error: --ks: expected numbers from 1 to 1,000,000,000, found 0"),
        (["--ks", "1", str(10**30)], "error: --ks: expected numbers from 1 to 1,000,000,000, found 1 10+"),
        (["--resamples", "5"], "error: --resamples: expected at least 100, found 5"),
        (["--seed", "-1"], "error: --seed: expected at least 0, found -1"),
        (["--run", "no-such-file"], "error: no-such-file: expected a file that can be read, found none"),
    ],
)
def test_the_command_refuses_wrong_arguments_in_one_line(
    theirs: tuple[Path, Path], more: list[str], message: str
) -> None:
    run, qrels = map(str, theirs)
    with pytest.raises(SystemExit, match=message):
        cli.main(["evaluate", "--run", run, "--qrels", qrels, *more])
