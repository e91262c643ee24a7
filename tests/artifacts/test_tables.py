"""Tables survive a round trip with the same bytes; absent, damaged or mismatched ones are refused."""

import contextlib
import os
import random
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbir.artifacts.queries import (
    QRELS_SCHEMA,
    QUERY_SCHEMA,
    read_qrels,
    read_query_list,
    write_qrels,
    write_query_list,
)
from cbir.artifacts.runs import RUN_SCHEMA, read_run, write_per_query, write_run
from cbir.artifacts.tables import column_sha256, read_open_table, read_table, write_open_table
from cbir.core.errors import DataError

QUERIES = pa.Table.from_pylist(
    [
        {"query_id": "q2", "task": "cbir", "image_id": "cats/é.jpg", "text": None, "label": "cats", "subset": None},
        {"query_id": "q1", "task": "tbir", "image_id": None, "text": "a cat", "label": None, "subset": "captions"},
    ],
    QUERY_SCHEMA,
)
QRELS = pa.table({"query_id": ["q2", "q1", "q1"], "image_id": ["a", "b", "a"], "relevance": [1, 0, 127]}, QRELS_SCHEMA)
RUN = pa.table({"query_id": ["q2", "q1"], "image_id": ["b", "a"], "rank": [1, 1], "score": [0.5, -0.25]}, RUN_SCHEMA)
TABLES = [(write_query_list, read_query_list, QUERIES), (write_qrels, read_qrels, QRELS), (write_run, read_run, RUN)]
EACH_TABLE = pytest.mark.parametrize(("write", "read", "table"), TABLES)


@EACH_TABLE
def test_a_table_is_read_as_it_was_written(tmp_path, write, read, table):
    write(tmp_path / "x.parquet", table)
    expected = table.sort_by([("query_id", "ascending"), ("image_id", "ascending")]) if table is QRELS else table
    assert read(tmp_path / "x.parquet").equals(expected)
    assert read(tmp_path / "x.parquet").schema.equals(table.schema)


@EACH_TABLE
def test_a_table_is_written_to_the_same_bytes_twice(tmp_path, write, read, table):
    bodies = []
    for name in ("x", "y"):
        write(tmp_path / name, table)
        bodies.append((tmp_path / name).read_bytes())
    assert bodies[0] == bodies[1]


@EACH_TABLE
def test_an_empty_table_is_read_as_an_empty_table(tmp_path, write, read, table):
    write(tmp_path / "x.parquet", table[:0])
    assert read(tmp_path / "x.parquet").num_rows == 0


def test_qrels_are_sorted_by_query_and_image(tmp_path):
    write_qrels(tmp_path / "x.parquet", QRELS)
    assert read_qrels(tmp_path / "x.parquet").to_pydict() == {
        "query_id": ["q1", "q1", "q2"], "image_id": ["a", "b", "a"], "relevance": [127, 0, 1],
    }  # fmt: skip


@EACH_TABLE
def test_an_absent_table_names_the_command(tmp_path, write, read, table):
    with pytest.raises(DataError, match=r"x\.parquet is not here: run `dvc repro`"):
        read(tmp_path / "x.parquet")


@EACH_TABLE
def test_a_missing_column_is_named(tmp_path, write, read, table):
    pq.write_table(table.drop_columns("image_id"), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"x\.parquet: expected a column 'image_id', found query_id, "):
        read(tmp_path / "x.parquet")


@EACH_TABLE
def test_a_column_of_another_type_is_named_with_both_types(tmp_path, write, read, table):
    changed = table.set_column(0, "query_id", pa.array(range(table.num_rows), pa.int64()))
    pq.write_table(changed, tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"x\.parquet: column 'query_id': expected string, found int64"):
        read(tmp_path / "x.parquet")


def test_a_relevance_that_does_not_fit_is_refused_not_wrapped(tmp_path):
    table = pa.table({"query_id": ["q"], "image_id": ["a"], "relevance": [300]})
    with pytest.raises(pa.ArrowInvalid, match="300 not in range"):
        write_qrels(tmp_path / "x.parquet", table)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keep", [0, 3, 100, -1])
def test_a_truncated_table_names_the_command(tmp_path, keep):
    write_query_list(tmp_path / "x.parquet", QUERIES)
    (tmp_path / "x.parquet").write_bytes((tmp_path / "x.parquet").read_bytes()[:keep])
    with pytest.raises(DataError, match=r"x\.parquet is not readable as Parquet \((.|\n)*\): run `cbir repair`, then"):
        read_query_list(tmp_path / "x.parquet")


def test_a_damaged_table_is_read_or_refused_without_a_crash(tmp_path):
    """Names that are no UTF-8 any more raise UnicodeDecodeError within pyarrow; a user must not see it."""
    path, rng, refused = tmp_path / "x.parquet", random.Random(0), 0
    write_query_list(path, QUERIES)
    whole = path.read_bytes()
    for _ in range(600):
        body = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            body[rng.randrange(len(body))] = rng.randrange(256)
        path.write_bytes(body)
        try:
            read_query_list(path)
        except DataError:
            refused += 1
    assert refused > 300


def test_per_query_values_are_read_back_with_their_nulls(tmp_path):
    table = pa.table({"query_id": ["a", "b"], "precision@10": pa.array([0.5, None], pa.float64())})
    write_per_query(tmp_path / "x.parquet", table)
    assert pq.read_table(tmp_path / "x.parquet").equals(table)


# ---- the seal

NULLS = pa.table(
    {"a": ["x", None, ""], "b": [None, 1.5, float("nan")], "c": pa.array([b"12", b"34", None], pa.binary(2))}
)


@given(st.integers(0, 2**32))
def test_a_changed_byte_is_refused_or_harmless(seed):
    with tempfile.TemporaryDirectory() as folder:
        path, rng = Path(folder) / "x.parquet", random.Random(seed)
        write_qrels(path, QRELS)
        whole = path.read_bytes()
        place = rng.randrange(len(whole))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ rng.randrange(1, 256)]) + whole[place + 1 :])
        with contextlib.suppress(DataError):
            assert read_qrels(path).equals(QRELS.sort_by([("query_id", "ascending"), ("image_id", "ascending")]))


@pytest.mark.parametrize("keeps_metadata", [True, False])
def test_values_of_another_program_are_refused(tmp_path, keeps_metadata):
    path = tmp_path / "x.parquet"
    write_run(path, RUN)
    table = pq.read_table(path).set_column(3, RUN_SCHEMA.field("score"), pa.array([0.75, -0.25], pa.float32()))
    pq.write_table(table if keeps_metadata else table.replace_schema_metadata(None), path)
    expected = "column 'score': expected the values" if keeps_metadata else "expected the seal of a table"
    with pytest.raises(DataError, match=rf"x\.parquet: {expected} .*: run `cbir repair`, then `dvc repro`"):
        read_run(path)
    pq.write_table(pq.read_table(path).replace_schema_metadata({"cbir.seal": "[" * 100_000}), path)
    with pytest.raises(DataError, match="expected the values"):
        read_run(path)


def test_only_the_columns_that_are_read_are_checked(tmp_path):
    path = tmp_path / "x.parquet"
    write_run(path, RUN)
    pq.write_table(pq.read_table(path).set_column(2, RUN_SCHEMA.field("rank"), pa.array([7, 8], pa.int32())), path)
    assert read_table(path, RUN_SCHEMA, ["query_id", "score"]).num_rows == 2
    with pytest.raises(DataError, match="column 'rank'"):
        read_table(path, RUN_SCHEMA, ["rank"])


def test_the_seal_depends_on_values_and_nulls_alone():
    doubled = pa.concat_tables([NULLS, NULLS])
    for name in NULLS.column_names:
        hashes = [column_sha256(table[name]) for table in (doubled, doubled.combine_chunks(), doubled.slice(3), NULLS)]
        assert hashes[0] == hashes[1] != hashes[2] == hashes[3]
    columns = [["ab", "c"], ["a", "bc"], ["abc", ""], ["abc", None], [None, "abc"], ["abc"], []]
    assert len({column_sha256(pa.chunked_array([pa.array(column, pa.string())])) for column in columns}) == len(columns)


def test_an_open_table_has_a_seal(tmp_path):
    write_open_table(tmp_path / "x.parquet", NULLS)
    assert read_open_table(tmp_path / "x.parquet").drop_columns("b").equals(NULLS.drop_columns("b"))


def test_no_thread_of_arrow_is_needed(tmp_path, monkeypatch):
    """With a limit of memory (ulimit -v), Arrow waits forever for threads that cannot start."""
    options, read = [], pq.ParquetFile.read
    monkeypatch.setattr(pq.ParquetFile, "read", lambda *given, **named: options.append(named) or read(*given, **named))
    write_qrels(tmp_path / "x.parquet", QRELS)
    assert read_qrels(tmp_path / "x.parquet").num_rows == 3
    assert [named["use_threads"] for named in options] == [False]


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"])
def test_a_table_that_is_no_file_is_not_read(tmp_path, make):
    make(tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"x\.parquet: expected a file, found a device or a pipe"):
        read_qrels(tmp_path / "x.parquet")
