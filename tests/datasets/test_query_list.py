"""The user's query list and judgements: three formats read alike, and every wrong row named by file, line and column."""

import csv
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cbir.core.errors import DataError, UndecodableImage
from cbir.datasets.base import Query
from cbir.datasets.query_list import (
    COLUMNS,
    ListedQuery,
    caption_queries,
    class_queries,
    image_queries,
    own_image_id,
    read_qrels_file,
    read_query_file,
    resolve_image,
)
from cbir.fetching import archives as files_module

ROWS = [
    {"query_id": "q1", "task": "cbir", "image": "cats/1.jpg", "text": None, "label": "cats"},
    {"query_id": "q2", "task": "tbir", "image": None, "text": 'a "red" cat, asleep', "label": None},
    {"query_id": "3", "task": "tbir", "image": None, "text": "貓 é 🐈", "label": "cats"},
]
LISTED = [ListedQuery(**row, line=0) for row in ROWS]


def written(path, rows, columns=COLUMNS):
    """The rows in the format that the path's suffix names."""
    rows = [{name: row.get(name) for name in columns} for row in rows]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
    return path


def text_file(path, text):
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def unnumbered(rows):
    return [ListedQuery(row.query_id, row.task, row.image, row.text, row.label, 0) for row in rows]


FORMATS = pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])


# --- what is read ---------------------------------------------------------------------------------------------------


@FORMATS
def test_csv_jsonl_and_parquet_are_read_alike(tmp_path, suffix):
    assert unnumbered(read_query_file(written(tmp_path / f"x.{suffix}", ROWS))) == LISTED


@FORMATS
def test_columns_that_nobody_needs_may_be_left_out(tmp_path, suffix):
    rows = read_query_file(written(tmp_path / f"x.{suffix}", ROWS[1:2], ("task", "text", "query_id")))
    assert unnumbered(rows) == [ListedQuery("q2", "tbir", None, 'a "red" cat, asleep', None, 0)]


@FORMATS
def test_empty_and_blank_fields_are_no_values_and_spaces_around_do_not_count(tmp_path, suffix):
    row = {"query_id": " q1 ", "task": "tbir", "image": "", "text": " a cat ", "label": "  "}
    rows = read_query_file(written(tmp_path / f"x.{suffix}", [row]))
    assert unnumbered(rows) == [ListedQuery("q1", "tbir", None, "a cat", None, 0)]


def test_lines_are_those_that_an_editor_shows(tmp_path):
    listing = 'query_id,task,text\nq1,tbir,"two\nlines"\n\nq2,tbir,x\n'
    assert [row.line for row in read_query_file(text_file(tmp_path / "x.csv", listing))] == [3, 5]
    listing = '\n{"query_id": "q1", "task": "tbir", "text": "x"}\n\n{"query_id": 2, "task": "tbir", "text": "y"}'
    assert [row.line for row in read_query_file(text_file(tmp_path / "x.jsonl", listing))] == [2, 4]


def test_csv_from_excel_is_read(tmp_path):
    """A byte order mark, and lines that end in CR LF."""
    rows = read_query_file(text_file(tmp_path / "x.CSV", b"\xef\xbb\xbfquery_id,task,text\r\nq1,tbir,caf\xc3\xa9\r\n"))
    assert unnumbered(rows) == [ListedQuery("q1", "tbir", None, "café", None, 0)]


def test_jsonl_from_windows_is_read(tmp_path):
    body = b'\xef\xbb\xbf{"query_id": "q1", "task": "tbir", "text": "x"}\r\n'
    assert [row.text for row in read_query_file(text_file(tmp_path / "x.jsonl", body))] == ["x"]


def test_a_json_text_may_hold_unicode_line_separators(tmp_path):
    row = {"query_id": "q1", "task": "tbir", "text": "a\u2028b\u0085c"}
    assert read_query_file(written(tmp_path / "x.jsonl", [row]))[0].text == "a\u2028b\u0085c"


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_numbers_for_ids_and_labels_are_read_as_in_csv(tmp_path, suffix):
    row = {"query_id": 7, "task": "tbir", "text": "x", "label": 3}
    assert unnumbered(read_query_file(written(tmp_path / f"x.{suffix}", [row]))) == [
        ListedQuery("7", "tbir", None, "x", "3", 0)
    ]


def test_parquet_categories_and_folders_that_look_like_partitions_are_read_as_they_are(tmp_path):
    folder = tmp_path / "task=nonsense" / "shard=1"
    folder.mkdir(parents=True)
    table = pa.Table.from_pylist(ROWS).set_column(1, "task", pa.array(["cbir", "tbir", "tbir"]).dictionary_encode())
    pq.write_table(table, folder / "x.parquet")
    assert unnumbered(read_query_file(folder / "x.parquet")) == LISTED


# --- what is refused ------------------------------------------------------------------------------------------------


@FORMATS
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "cibr"}, "column task: expected cbir or tbir, found 'cibr'"),
        ({"task": None}, "column task: expected cbir or tbir, found None"),
        ({"query_id": None}, "column query_id: expected a name, found nothing"),
        ({"image": None}, "column image: a cbir query needs it, found nothing"),
        ({"text": "a cat"}, "column text: a cbir query has none, found 'a cat'"),
        ({"task": "tbir"}, "column text: a tbir query needs it, found nothing"),
        ({"task": "tbir", "text": "a cat"}, "column image: a tbir query has none, found 'cats/1.jpg'"),
    ],
)
def test_a_wrong_row_is_named_by_file_line_and_column(tmp_path, suffix, change, message):
    path = written(tmp_path / f"x.{suffix}", [*ROWS[1:], {**ROWS[0], **change}])
    line = 4 if suffix == "csv" else 3  # a CSV has a header
    with pytest.raises(DataError, match=rf"x\.{suffix} line {line}, {message}"):
        read_query_file(path)


@FORMATS
def test_a_query_id_given_twice_is_named_with_both_lines(tmp_path, suffix):
    path = written(tmp_path / f"x.{suffix}", [*ROWS, {**ROWS[1], "query_id": "q1"}])
    first, second = (2, 5) if suffix == "csv" else (1, 4)
    with pytest.raises(DataError, match=rf"line {second}, column query_id: 'q1' stands in line {first} already"):
        read_query_file(path)


@FORMATS
def test_an_unknown_column_is_named_with_the_nearest(tmp_path, suffix):
    path = written(tmp_path / f"x.{suffix}", [{**ROWS[1], "txet": "x"}], (*COLUMNS, "txet"))
    with pytest.raises(DataError, match=rf"x\.{suffix}.*: unknown column 'txet'; nearest: text"):
        read_query_file(path)


@FORMATS
@pytest.mark.parametrize("missing", ["query_id", "task"])
def test_a_missing_column_is_named(tmp_path, suffix, missing):
    columns = [name for name in COLUMNS if name != missing]
    with pytest.raises(DataError, match=rf"expected the columns {', '.join(COLUMNS)}; '{missing}' is missing"):
        read_query_file(written(tmp_path / f"x.{suffix}", ROWS, columns))


def test_a_column_given_twice_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"x\.csv: column 'text' stands there twice"):
        read_query_file(text_file(tmp_path / "x.csv", "query_id,task,text,text\nq1,tbir,a,b\n"))


def test_a_csv_of_semicolons_or_tabs_is_told_to_have_commas(tmp_path):
    for header in ("query_id;task;text", "query_id\ttask\ttext"):
        with pytest.raises(DataError, match=r"x\.csv line 1: expected fields separated by commas, found 'query_id"):
            read_query_file(text_file(tmp_path / "x.csv", f"{header}\n"))


@pytest.mark.parametrize(("row", "found"), [("q2,tbir", 2), ("q2,tbir,a red cat, asleep", 4)])
def test_a_csv_row_with_too_few_or_too_many_fields_is_refused(tmp_path, row, found):
    path = text_file(tmp_path / "x.csv", f"query_id,task,text\nq1,tbir,x\n{row}\n")
    with pytest.raises(DataError, match=rf"x\.csv line 3: expected 3 fields \(query_id, task, text\), found {found}"):
        read_query_file(path)


def test_a_csv_whose_quotes_do_not_close_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"x\.csv line 3: not readable as CSV: unexpected end of data"):
        read_query_file(text_file(tmp_path / "x.csv", 'query_id,task,text\nq1,tbir,"x\nq2,tbir,y'))


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_what_is_not_utf8_is_named_by_line_and_byte(tmp_path, suffix):
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
        ('{"query_id": "q2", "task": "tbir", "text": "a\\ud83d"}', "line 2, column text: .* a character that is no text"),
        ('{"query_id": "q2", "task": "cbir", "image": "a\\u0000.jpg"}', "line 2, column image: .* that is no text"),
    ],
)  # fmt: skip
def test_a_broken_jsonl_line_is_named(tmp_path, line, message):
    path = text_file(tmp_path / "x.jsonl", '{"query_id": "q1", "task": "tbir", "text": "x"}\n' + line + "\n")
    with pytest.raises(DataError, match=rf"x\.jsonl {message}"):
        read_query_file(path)


@FORMATS
def test_a_file_that_holds_something_else_is_refused(tmp_path, suffix):
    for body in (os.urandom(3000), b"\x89PNG\r\n\x1a\n" + bytes(100), b"PAR1" + bytes(100) + b"PAR1"):
        with pytest.raises(DataError, match=rf"x\.{suffix}"):
            read_query_file(text_file(tmp_path / f"x.{suffix}", body))


@FORMATS
def test_a_list_without_queries_is_refused(tmp_path, suffix):
    if suffix != "parquet":
        with pytest.raises(DataError, match=rf"x\.{suffix}: expected"):
            read_query_file(text_file(tmp_path / f"x.{suffix}", ""))
    if suffix == "csv":
        text_file(tmp_path / "x.csv", ",".join(COLUMNS) + "\n")
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS)[:0], tmp_path / "x.parquet")
    with pytest.raises(DataError, match=rf"x\.{suffix}: expected at least one query, found none"):
        read_query_file(tmp_path / f"x.{suffix}")


@pytest.mark.parametrize("name", ["queries.txt", "queries", "queries.json", "queries.xlsx"])
def test_another_suffix_is_refused_with_the_valid_ones(tmp_path, name):
    suffix = Path(name).suffix
    with pytest.raises(
        DataError, match=rf"{name}: expected a name that ends in .csv, .parquet, .jsonl, found '{suffix}'"
    ):
        read_query_file(text_file(tmp_path / name, "x"))


def test_an_absent_list_names_its_parameter(tmp_path):
    with pytest.raises(
        DataError, match=r"queries.path: expected a CSV, Parquet or JSONL file, found nothing at .*x\.csv"
    ):
        read_query_file(tmp_path / "x.csv")


# --- images of the list ---------------------------------------------------------------------------------------------


def asking(image, query_id="q1", label=None):
    return ListedQuery(query_id, "cbir", image, None, label, 7)


@pytest.fixture
def queries(tmp_path):
    """A list in a folder of its own, with one image below it, and one outside."""
    folder = tmp_path / "mine"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "é 1.jpg").write_bytes(b"inside")
    (tmp_path / "secret.jpg").write_bytes(b"outside")
    return text_file(folder / "queries.csv", "")


def test_an_image_below_the_folder_of_the_list_is_found(queries, monkeypatch):
    image = resolve_image(queries, asking("images/é 1.jpg", "q 9", "cats"))
    assert (image.image_id, image.label, image.source, image.read()) == (
        "query/q 9",
        "cats",
        "images/é 1.jpg",
        b"inside",
    )
    assert resolve_image(queries, asking("images/../images/é 1.jpg")).read() == b"inside"
    monkeypatch.chdir(queries.parent)
    assert resolve_image(Path("queries.csv"), asking("images/é 1.jpg")).read() == b"inside"
    assert own_image_id(asking("x")) == "query/q1"


def test_the_folder_of_the_list_may_itself_be_a_link(queries, tmp_path):
    (tmp_path / "link").symlink_to(queries.parent)
    assert resolve_image(tmp_path / "link" / "queries.csv", asking("images/é 1.jpg")).read() == b"inside"


@pytest.mark.parametrize(
    "image", ["../secret.jpg", "/etc/passwd", "images/../../secret.jpg", "link.jpg", "up/secret.jpg"]
)
def test_an_image_outside_the_folder_of_the_list_is_refused(queries, image):
    (queries.parent / "link.jpg").symlink_to(queries.parent.parent / "secret.jpg")
    (queries.parent / "up").symlink_to(queries.parent.parent)
    with pytest.raises(
        DataError,
        match=rf"queries\.csv line 7, column image: '{image}' leaves the folder of the query list; put the image",
    ):
        resolve_image(queries, asking(image))


@pytest.mark.parametrize(
    "image", ["images/2.jpg", "images", "a photo of a cat " * 20, "circle.jpg", "images/é 1.jpg/x"]
)
def test_an_image_that_is_nowhere_is_refused(queries, image):
    (queries.parent / "circle.jpg").symlink_to("circle.jpg")
    with pytest.raises(
        DataError,
        match=r"queries\.csv line 7, column image: '.*' is neither an image_id of the gallery nor a file below",
    ):
        resolve_image(queries, asking(image))


def test_an_image_that_cannot_be_read_is_undecodable(queries, monkeypatch):
    image = resolve_image(queries, asking("images/é 1.jpg"))
    monkeypatch.setattr(files_module, "MAX_FILE_BYTES", 3)
    with pytest.raises(UndecodableImage, match="file too large: 6 bytes, more than 3"):
        image.read()
    (queries.parent / "images" / "é 1.jpg").unlink()
    with pytest.raises(UndecodableImage, match="unreadable file"):
        image.read()


# --- qrels ----------------------------------------------------------------------------------------------------------


def qrels(tmp_path, text):
    return list(read_qrels_file(text_file(tmp_path / "x.qrels", text)))


def test_qrels_are_read_as_trec_writes_them(tmp_path):
    assert qrels(tmp_path, "q1 0 cats/1.jpg 1\nq1 0 dogs/2.jpg 0\n\nq2  Q0\tcats/1.jpg   127 \r\n") == [
        ("q1", "cats/1.jpg", 1),
        ("q1", "dogs/2.jpg", 0),
        ("q2", "cats/1.jpg", 127),
    ]


def test_image_ids_may_hold_spaces_and_between_tabs_query_ids_too(tmp_path):
    assert qrels(tmp_path, "q1 0 my cats/a  b.jpg 1\nq1\t0\tmy cats/a  b c.jpg\t2\nmy q\t0\t1 2.jpg\t3\n") == [
        ("q1", "my cats/a  b.jpg", 1),
        ("q1", "my cats/a  b c.jpg", 2),
        ("my q", "1 2.jpg", 3),
    ]


def test_qrels_may_begin_with_a_byte_order_mark_and_hold_unicode_separators(tmp_path):
    assert qrels(tmp_path, "\ufeffq1 0 a\u0085b.jpg 1\n") == [("q1", "a\u0085b.jpg", 1)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q1 cats/1.jpg 1", "expected 'query_id 0 image_id relevance', found 'q1 cats/1.jpg 1'"),
        ("q1", "expected 'query_id 0 image_id relevance', found 'q1'"),
        ("q1\t0\t\t1", "expected 'query_id 0 image_id relevance'"),
        ("q1,0,cats/1.jpg,1", "expected 'query_id 0 image_id relevance', found 'q1,0,cats/1.jpg,1'"),
        *[
            (f"q1 0 cats/1.jpg {grade}", rf"column relevance: expected a whole number in \[0, 127\], found '{found}'")
            for grade, found in [
                ("-1", "-1"), ("128", "128"), ("0.5", "0.5"), ("yes", "yes"), ("--1", "--1"), ("²", "²"), ("+1", r"\+1"),
                ("1e1", "1e1"), ("9" * 5000, "9+"), ("-", "-"), ("1_0", "1_0"),
            ]
        ],
    ],
)  # fmt: skip
def test_a_wrong_line_of_qrels_is_named(tmp_path, line, message):
    with pytest.raises(DataError, match=rf"x\.qrels line 2.*{message}"):
        qrels(tmp_path, f"q1 0 x.jpg 1\n{line}\n")


def test_a_pair_judged_twice_is_refused_whether_the_grades_agree_or_not(tmp_path):
    for grade in (1, 2):
        with pytest.raises(DataError, match=r"x\.qrels line 3: query 'q1' and image 'a b.jpg' are judged twice"):
            qrels(tmp_path, f"q1 0 a b.jpg 1\nq2 0 a b.jpg 1\nq1\t0\ta b.jpg\t{grade}\n")


def test_qrels_that_are_not_utf8_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"x\.qrels line 2: expected text in UTF-8, found the byte 0xff"):
        qrels(tmp_path, b"q1 0 x.jpg 1\nq1 0 \xff.jpg 1\n")


def test_absent_qrels_name_their_parameter(tmp_path):
    with pytest.raises(DataError, match=r"queries.qrels: expected a TREC qrels file, found nothing at .*x\.qrels"):
        list(read_qrels_file(tmp_path / "x.qrels"))


# --- queries of the data set ----------------------------------------------------------------------------------------


def test_one_query_for_each_image():
    assert list(image_queries([("a.jpg", "cats"), ("b.jpg", None)])) == [
        Query("a.jpg", "cbir", "a.jpg", None, "cats", None),
        Query("b.jpg", "cbir", "b.jpg", None, None, None),
    ]


def test_one_prompt_for_each_class_and_template():
    names = {"n01": "gold{}fish", "n02": "bull frog"}
    assert list(class_queries(names, ["a photo of a {}"])) == [
        Query("class:n01", "tbir", None, "a photo of a gold{}fish", "n01", "class prompts"),
        Query("class:n02", "tbir", None, "a photo of a bull frog", "n02", "class prompts"),
    ]
    several = list(class_queries(names, ["{}", "my {}"]))
    assert [(query.query_id, query.text) for query in several[2:]] == [
        ("class:n02:0", "bull frog"),
        ("class:n02:1", "my bull frog"),
    ]
    assert list(class_queries(names, [])) == []


def test_one_query_for_each_distinct_caption_and_label_in_their_order():
    captions = [("b cat", "cats"), ("a dog", "dogs"), ("b cat", "cats"), ("a dog", None), ("a dog", "cats")]
    assert list(caption_queries(captions)) == [
        Query("caption:00000", "tbir", None, "a dog", None, "captions"),
        Query("caption:00001", "tbir", None, "a dog", "cats", "captions"),
        Query("caption:00002", "tbir", None, "a dog", "dogs", "captions"),
        Query("caption:00003", "tbir", None, "b cat", "cats", "captions"),
    ]
