"""The user's query list and qrels: four formats are read alike; an invalid row is named by file, line and column."""

import csv
import json
import os
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cbir.core.errors import DataError, UndecodableImage
from cbir.datasets.query_file import (
    COLUMNS,
    ListedQuery,
    listed_image,
    listed_image_id,
    read_qrels_file,
    read_query_file,
)
from cbir.fetching import folders

ROWS = [
    {"query_id": "q1", "task": "cbir", "image": "cats/1.jpg", "text": None, "label": "cats"},
    {"query_id": "q2", "task": "tbir", "image": None, "text": 'a "red" cat, asleep', "label": None},
    {"query_id": "3", "task": "tbir", "image": None, "text": "貓 é 🐈", "label": "cats"},
]
LISTED = [ListedQuery(**row, line=0) for row in ROWS]


def written(path, rows, columns=COLUMNS):
    """Write the rows in the format of the path's suffix."""
    rows = [{name: row.get(name) for name in columns} for row in rows]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def text_file(path, text):
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def unnumbered(rows):
    return [ListedQuery(row.query_id, row.task, row.image, row.text, row.label, 0) for row in rows]


FORMATS = pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])


# --- what is read ---------------------------------------------------------------------------------------------------


@FORMATS
def test_all_formats_are_read_alike(tmp_path, suffix):
    assert unnumbered(read_query_file(written(tmp_path / f"x.{suffix}", ROWS)).rows) == LISTED


@FORMATS
def test_optional_columns_may_be_left_out(tmp_path, suffix):
    rows = read_query_file(written(tmp_path / f"x.{suffix}", ROWS[1:2], ("task", "text", "query_id"))).rows
    assert unnumbered(rows) == [ListedQuery("q2", "tbir", None, 'a "red" cat, asleep', None, 0)]


@FORMATS
def test_blank_fields_are_missing_and_surrounding_spaces_are_stripped(tmp_path, suffix):
    row = {"query_id": " q1 ", "task": "tbir", "image": "", "text": " a cat ", "label": "  "}
    rows = read_query_file(written(tmp_path / f"x.{suffix}", [row])).rows
    assert unnumbered(rows) == [ListedQuery("q1", "tbir", None, "a cat", None, 0)]


def test_line_numbers_are_those_of_an_editor(tmp_path):
    listing = 'query_id,task,text\nq1,tbir,"two\nlines"\n\nq2,tbir,x\n'
    assert [row.line for row in read_query_file(text_file(tmp_path / "x.csv", listing)).rows] == [3, 5]
    listing = '\n{"query_id": "q1", "task": "tbir", "text": "x"}\n\n{"query_id": 2, "task": "tbir", "text": "y"}'
    assert [row.line for row in read_query_file(text_file(tmp_path / "x.jsonl", listing)).rows] == [2, 4]


def test_csv_from_excel_is_read(tmp_path):
    """A byte order mark, and lines that end in CR LF."""
    rows = read_query_file(
        text_file(tmp_path / "x.CSV", b"\xef\xbb\xbfquery_id,task,text\r\nq1,tbir,caf\xc3\xa9\r\n")
    ).rows
    assert unnumbered(rows) == [ListedQuery("q1", "tbir", None, "café", None, 0)]


def test_jsonl_from_windows_is_read(tmp_path):
    body = b'\xef\xbb\xbf{"query_id": "q1", "task": "tbir", "text": "x"}\r\n'
    assert [row.text for row in read_query_file(text_file(tmp_path / "x.jsonl", body)).rows] == ["x"]


def test_a_json_text_may_contain_unicode_line_separators(tmp_path):
    row = {"query_id": "q1", "task": "tbir", "text": "a\u2028b\u0085c"}
    assert read_query_file(written(tmp_path / "x.jsonl", [row])).rows[0].text == "a\u2028b\u0085c"


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_numbers_for_ids_and_labels_are_read_as_in_csv(tmp_path, suffix):
    row = {"query_id": 7, "task": "tbir", "text": "x", "label": 3}
    assert unnumbered(read_query_file(written(tmp_path / f"x.{suffix}", [row])).rows) == [
        ListedQuery("7", "tbir", None, "x", "3", 0)
    ]


def test_parquet_ignores_partition_folders_and_reads_categories(tmp_path):
    folder = tmp_path / "task=nonsense" / "shard=1"
    folder.mkdir(parents=True)
    table = pa.Table.from_pylist(ROWS).set_column(1, "task", pa.array(["cbir", "tbir", "tbir"]).dictionary_encode())
    pq.write_table(table, folder / "x.parquet")
    assert unnumbered(read_query_file(folder / "x.parquet").rows) == LISTED


# --- what is refused ------------------------------------------------------------------------------------------------


@FORMATS
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "cibr"}, "column task: expected cbir or tbir, found 'cibr'"),
        ({"task": None}, "column task: expected cbir or tbir, found None"),
        ({"query_id": None}, "column query_id: expected a name, found nothing"),
        ({"image": None}, "column image: expected a value, which a cbir query needs, found nothing"),
        ({"text": "a cat"}, "column text: expected nothing in a cbir query, found 'a cat'"),
        ({"task": "tbir"}, "column text: expected a value, which a tbir query needs, found nothing"),
        ({"task": "tbir", "text": "a cat"}, "column image: expected nothing in a tbir query, found 'cats/1.jpg'"),
    ],
)
def test_an_invalid_row_is_named_by_file_line_and_column(tmp_path, suffix, change, message):
    path = written(tmp_path / f"x.{suffix}", [*ROWS[1:], {**ROWS[0], **change}])
    line = 4 if suffix in ("csv", "tsv") else 3  # they have a header
    with pytest.raises(DataError, match=rf"x\.{suffix} line {line}, {message}"):
        read_query_file(path)


@FORMATS
def test_a_duplicate_query_id_is_named_with_both_lines(tmp_path, suffix):
    path = written(tmp_path / f"x.{suffix}", [*ROWS, {**ROWS[1], "query_id": "q1"}])
    first, second = (2, 5) if suffix in ("csv", "tsv") else (1, 4)
    with pytest.raises(DataError, match=rf"line {second}, column query_id: 'q1' is already used in line {first}"):
        read_query_file(path)


@FORMATS
def test_a_misspelt_column_is_named_with_the_nearest(tmp_path, suffix):
    path = written(tmp_path / f"x.{suffix}", [{**ROWS[1], "labl": "x"}], ("query_id", "task", "text", "labl"))
    with pytest.raises(DataError, match=rf"x\.{suffix}.*: unknown column 'labl'; nearest: label"):
        read_query_file(path)


@FORMATS
def test_other_columns_are_not_used(tmp_path, suffix):
    columns = ("", "score", *COLUMNS, "__index_level_0__")
    query_list = read_query_file(written(tmp_path / f"x.{suffix}", [{**row, "score": 1} for row in ROWS], columns))
    assert (unnumbered(query_list.rows), query_list.unused) == (LISTED, ["", "score", "__index_level_0__"])


def test_the_index_of_pandas_is_not_used(tmp_path):
    table = pd.DataFrame([ROWS[0], ROWS[0], ROWS[2]]).iloc[[0, 2]]
    table.to_csv(tmp_path / "x.csv")
    table.to_parquet(tmp_path / "x.parquet")
    for name in ("x.csv", "x.parquet"):
        assert unnumbered(read_query_file(tmp_path / name).rows) == [LISTED[0], LISTED[2]]


@FORMATS
def test_queries_without_names_are_numbered(tmp_path, suffix):
    query_list = read_query_file(written(tmp_path / f"x.{suffix}", ROWS, COLUMNS[1:]))
    assert [row.query_id for row in query_list.rows] == ["q1", "q2", "q3"]


@FORMATS
def test_a_list_without_tasks_is_refused(tmp_path, suffix):
    with pytest.raises(DataError, match=rf"expected the columns {', '.join(COLUMNS)}; 'task' is missing"):
        read_query_file(written(tmp_path / f"x.{suffix}", ROWS, ("query_id", "image", "text")))


def test_a_duplicate_column_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"x\.csv: expected distinct columns, found 'text' twice"):
        read_query_file(text_file(tmp_path / "x.csv", "query_id,task,text,text\nq1,tbir,a,b\n"))


def test_commas_in_a_tsv_are_refused(tmp_path):
    with pytest.raises(
        DataError, match=r"x\.tsv line 1: expected fields separated by tabs, found 'query_id,task': write"
    ):
        read_query_file(text_file(tmp_path / "x.tsv", "query_id,task\n"))


def test_a_csv_with_semicolons_or_tabs_is_refused(tmp_path):
    for header in ("query_id;task;text", "query_id\ttask\ttext"):
        with pytest.raises(DataError, match=r"x\.csv line 1: expected fields separated by commas, found 'query_id"):
            read_query_file(text_file(tmp_path / "x.csv", f"{header}\n"))


@pytest.mark.parametrize(("row", "found"), [("q2,tbir", 2), ("q2,tbir,a red cat, asleep", 4)])
def test_a_csv_row_with_another_number_of_fields_is_refused(tmp_path, row, found):
    path = text_file(tmp_path / "x.csv", f"query_id,task,text\nq1,tbir,x\n{row}\n")
    with pytest.raises(DataError, match=rf"x\.csv line 3: expected 3 fields \(query_id, task, text\), found {found}"):
        read_query_file(path)


def test_a_csv_with_an_unclosed_quote_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"x\.csv line 3: not readable as CSV: unexpected end of data"):
        read_query_file(text_file(tmp_path / "x.csv", 'query_id,task,text\nq1,tbir,"x\nq2,tbir,y'))


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_text_that_is_not_utf8_is_named_by_line(tmp_path, suffix):
    whole = written(tmp_path / f"x.{suffix}", [*ROWS[:2], {**ROWS[1], "query_id": "q3", "text": "café"}])
    whole.write_bytes(whole.read_bytes().decode().encode("latin-1"))
    line = 4 if suffix == "csv" else 3
    with pytest.raises(
        DataError, match=rf"x\.{suffix} line {line}: expected text in UTF-8, found the byte 0xe9: save it"
    ):
        read_query_file(whole)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"query_id": "q2",', "line 2: not readable as JSON: Expecting property name"),
        ("q2,tbir,x", "line 2: not readable as JSON"),
        ('["q2", "tbir"]', "line 2: expected a JSON object, found list"),
        ("null", "line 2: expected a JSON object, found NoneType"),
        ('{"query_id": ["q2"], "task": "tbir"}', r"line 2, column query_id: expected text, found list \['q2'\]"),
        ('{"query_id": 1.5, "task": "tbir"}', "line 2, column query_id: expected text, found float 1.5"),
        ('{"query_id": "q2", "task": "tbir", "text": true}', "line 2, column text: expected text, found bool True"),
        ('{"query_id": "q2", "task": "tbir", "text": "a\\ud83d"}', "line 2, column text: .* a character that is not text"),
        ('{"query_id": "q2", "task": "cbir", "image": "a\\u0000.jpg"}', "line 2, column image: .* that is not text"),
    ],
)  # fmt: skip
def test_a_broken_jsonl_line_is_named(tmp_path, line, message):
    path = text_file(tmp_path / "x.jsonl", '{"query_id": "q1", "task": "tbir", "text": "x"}\n' + line + "\n")
    with pytest.raises(DataError, match=rf"x\.jsonl {message}"):
        read_query_file(path)


@FORMATS
def test_a_file_in_another_format_is_refused(tmp_path, suffix):
    for body in (os.urandom(3000), b"\x89PNG\r\n\x1a\n" + bytes(100), b"PAR1" + bytes(100) + b"PAR1"):
        with pytest.raises(DataError, match=rf"x\.{suffix}"):
            read_query_file(text_file(tmp_path / f"x.{suffix}", body))


@FORMATS
def test_a_list_without_queries_is_refused(tmp_path, suffix):
    if suffix != "parquet":
        with pytest.raises(DataError, match=rf"x\.{suffix}: expected"):
            read_query_file(text_file(tmp_path / f"x.{suffix}", ""))
    if suffix in ("csv", "tsv"):
        text_file(tmp_path / f"x.{suffix}", {"csv": ",", "tsv": "\t"}[suffix].join(COLUMNS) + "\n")
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS)[:0], tmp_path / "x.parquet")
    with pytest.raises(DataError, match=rf"x\.{suffix}: expected at least one query, found none"):
        read_query_file(tmp_path / f"x.{suffix}")


@pytest.mark.parametrize("name", ["queries.txt", "queries", "queries.json", "queries.xlsx"])
def test_another_suffix_is_refused_with_the_valid_ones(tmp_path, name):
    suffix = Path(name).suffix
    with pytest.raises(
        DataError, match=rf"{name}: expected a name that ends in .csv, .tsv, .parquet, .jsonl, found '{suffix}'"
    ):
        read_query_file(text_file(tmp_path / name, "x"))


def test_a_missing_list_names_its_parameter(tmp_path):
    with pytest.raises(
        DataError, match=r"queries.path: expected a CSV, TSV, Parquet or JSONL file, found nothing at .*x\.csv"
    ):
        read_query_file(tmp_path / "x.csv")


# --- images of the list ---------------------------------------------------------------------------------------------


def image_row(image, query_id="q1", label=None):
    return ListedQuery(query_id, "cbir", image, None, label, 7)


@pytest.fixture
def queries(tmp_path):
    """A list in a folder, with an image file below the folder and another outside."""
    folder = tmp_path / "lists"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "é 1.jpg").write_bytes(b"inside")
    (tmp_path / "secret.jpg").write_bytes(b"outside")
    return text_file(folder / "queries.csv", "")


def test_an_image_below_the_folder_of_the_list_is_read(queries, monkeypatch):
    image = listed_image(queries, image_row("images/é 1.jpg", "q 9", "cats"))
    assert (image.image_id, image.label, image.source, image.read()) == (
        "query/q 9",
        "cats",
        "images/é 1.jpg",
        b"inside",
    )
    assert listed_image(queries, image_row("images/../images/é 1.jpg")).read() == b"inside"
    monkeypatch.chdir(queries.parent)
    assert listed_image(Path("queries.csv"), image_row("images/é 1.jpg")).read() == b"inside"
    assert listed_image_id(image_row("x")) == "query/q1"


def test_the_folder_of_the_list_may_itself_be_a_link(queries, tmp_path):
    (tmp_path / "link").symlink_to(queries.parent)
    assert listed_image(tmp_path / "link" / "queries.csv", image_row("images/é 1.jpg")).read() == b"inside"


@pytest.mark.parametrize(
    "image", ["../secret.jpg", "/etc/passwd", "images/../../secret.jpg", "link.jpg", "up/secret.jpg"]
)
def test_an_image_outside_the_folder_of_the_list_is_refused(queries, image):
    (queries.parent / "link.jpg").symlink_to(queries.parent.parent / "secret.jpg")
    (queries.parent / "up").symlink_to(queries.parent.parent)
    with pytest.raises(
        DataError,
        match=rf"queries\.csv line 7, column image: '{image}' is outside the folder of the query list; put the image",
    ):
        listed_image(queries, image_row(image))


@pytest.mark.parametrize(
    "image", ["images/2.jpg", "images", "a photo of a cat " * 20, "circle.jpg", "images/é 1.jpg/x"]
)
def test_an_image_that_does_not_exist_is_refused(queries, image):
    (queries.parent / "circle.jpg").symlink_to("circle.jpg")
    with pytest.raises(
        DataError,
        match=r"queries\.csv line 7, column image: '.*' is neither an image_id of the gallery nor a file below",
    ):
        listed_image(queries, image_row(image))


def test_an_image_that_cannot_be_read_is_undecodable(queries, monkeypatch):
    image = listed_image(queries, image_row("images/é 1.jpg"))
    monkeypatch.setattr(folders, "MAX_FILE_BYTES", 3)
    with pytest.raises(UndecodableImage, match="file too large: 6 bytes, more than 3"):
        image.read()
    (queries.parent / "images" / "é 1.jpg").unlink()
    with pytest.raises(UndecodableImage, match="unreadable file"):
        image.read()


# --- qrels ----------------------------------------------------------------------------------------------------------


def qrels(tmp_path, text):
    return list(read_qrels_file(text_file(tmp_path / "x.qrels", text)))


def test_a_pair_judged_twice_is_refused(tmp_path):
    for grade in (1, 2):
        with pytest.raises(DataError, match=r"x\.qrels line 3: query 'q1' and image 'a b.jpg' are judged twice"):
            qrels(tmp_path, f"q1 0 a b.jpg 1\nq2 0 a b.jpg 1\nq1\t0\ta b.jpg\t{grade}\n")


def test_missing_qrels_name_their_parameter(tmp_path):
    with pytest.raises(DataError, match=r"queries.qrels: expected a TREC qrels file, found nothing at .*x\.qrels"):
        list(read_qrels_file(tmp_path / "x.qrels"))
