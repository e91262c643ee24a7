"""A user's query list (CSV, TSV, Parquet or JSONL) and relevance judgements (TREC qrels): read and checked row by row."""

import csv
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cbir.artifacts.names import TASKS
from cbir.artifacts.queries import Judgement
from cbir.artifacts.trec import duplicate_judgement, read_qrels_lines
from cbir.core.errors import DataError
from cbir.core.parsing import parse_json
from cbir.core.text import nfc
from cbir.core.text_files import decode_utf8, read_lines
from cbir.datasets.base import SourceImage
from cbir.fetching.folders import read_file

COLUMNS = ("query_id", "task", "image", "text", "label")
_TYPO = 0.7  # likeness of a column's name to one that is missing
_NOT_TEXT = re.compile("[\0\ud800-\udfff]")  # NUL, and halves of a surrogate pair


@dataclass(frozen=True)
class ListedQuery:
    """A row of a user's query list; `line` is its line in the file, for messages."""

    query_id: str
    task: str
    image: str | None
    text: str | None
    label: str | None
    line: int


@dataclass(frozen=True)
class QueryList:
    """A user's query list.  unused : the columns of other names."""

    rows: list[ListedQuery]
    unused: list[str]


def read_query_file(path: Path) -> QueryList:
    """Read a user's query list: CSV, TSV, Parquet or JSONL with the columns query_id, task, image, text, label.

    Without a column query_id, the queries are named q1, q2, ... in their order.  Other columns are not used.

    Raises DataError naming file, line and column: a missing column, or one whose name is nearly that of a missing one, a task
    other than cbir and tbir, a cbir row without image, a tbir row without text, a duplicate query_id.
    """
    if not path.is_file():
        raise DataError(f"queries.path: expected a CSV, TSV, Parquet or JSONL file, found nothing at {path}")
    rows: list[ListedQuery] = []
    unused: dict[str, None] = {}
    for number, (line, values) in enumerate(_rows(path), start=1):
        rows.append(_checked_row(path, line, {"query_id": f"q{number}", **values}))
        unused |= dict.fromkeys(name for name in values if name not in COLUMNS)
    if not rows:
        raise DataError(f"{path}: expected at least one query, found none")
    lines: dict[str, int] = {}
    for row in rows:
        if row.query_id in lines:
            raise DataError(
                f"{path} line {row.line}, column query_id: {row.query_id!r} is already used in line {lines[row.query_id]}"
            )
        lines[row.query_id] = row.line
    return QueryList(rows, list(unused))


def read_qrels_file(path: Path) -> Iterator[Judgement]:
    """Read a user's TREC qrels (see `cbir.artifacts.trec`).

    Raises DataError naming file and line: a missing field, a relevance that is not a whole number from 0 to 127, a pair of
    query and image that is judged twice.
    """
    if not path.is_file():
        raise DataError(f"queries.qrels: expected a TREC qrels file, found nothing at {path}")
    judged: set[tuple[str, str]] = set()
    for line, (query_id, image_id, relevance) in read_qrels_lines(path, range(128)):
        if (query_id, image_id) in judged:
            raise duplicate_judgement(path, line, query_id, image_id)
        judged.add((query_id, image_id))
        yield query_id, image_id, relevance


def listed_image(path: Path, row: ListedQuery) -> SourceImage:
    """Return the image file that a row names, a path below the folder of the query list.

    Raises DataError when there is no such file, or when it is outside that folder.
    """
    root, file = image_path(path, row)
    where = f"{path} line {row.line}, column image: {row.image!r}"
    if not file.is_relative_to(root):
        raise DataError(f"{where} is outside the folder of the query list; put the image below {root}")
    if not os.path.isfile(file):
        raise DataError(f"{where} is neither an image_id of the gallery nor a file below {root}")
    return SourceImage(listed_image_id(row), row.label, row.label, None, str(row.image), partial(read_file, file))


def listed_image_path(path: Path, row: ListedQuery) -> Path | None:
    """The path of the image file that a row names below the folder of the query list; None where there is no such file."""
    if row.image is None:
        return None
    root, file = image_path(path, row)
    return file if file.is_relative_to(root) and os.path.isfile(file) else None


def listed_image_id(row: ListedQuery) -> str:
    """The image_id of a query image that is not in the gallery."""
    return f"query/{row.query_id}"


def image_path(path: Path, row: ListedQuery) -> tuple[str, Path]:
    """Return the folder of the query list and the path of a row's image in it, all links followed."""
    root = os.path.realpath(path.parent)
    image = os.path.realpath(os.path.join(root, row.image or ""))  # unlike Path.resolve, it accepts circular links
    return root, Path(image)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    formats = {".csv": _csv_rows, ".tsv": _tsv_rows, ".parquet": _parquet_rows, ".jsonl": _jsonl_rows}
    read = formats.get(path.suffix.lower())
    if read is None:
        raise DataError(f"{path}: expected a name that ends in {', '.join(formats)}, found '{path.suffix}'")
    return read(path)


def _tsv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    return _csv_rows(path, "\t")


def _csv_rows(path: Path, delimiter: str = ",") -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.reader(StringIO(decode_utf8(path, path.read_bytes()), newline=""), delimiter=delimiter, strict=True)
    try:
        names = next(reader, [])
        if len(names) == 1 and re.search("[;,\t]", names[0]):
            raise DataError(
                f"{path} line 1: expected fields separated by {'tabs' if delimiter == '	' else 'commas'}, found "
                f"{names[0]!r}: write commas in a .csv, tabs in a .tsv"
            )
        _check_columns(path, names)
        for row in reader:
            if not row:
                continue
            if len(row) != len(names):
                raise DataError(
                    f"{path} line {reader.line_num}: expected {len(names)} fields ({', '.join(names)}), found {len(row)}"
                )
            yield reader.line_num, dict(zip(names, row, strict=True))
    except csv.Error as error:
        raise DataError(f"{path} line {reader.line_num}: not readable as CSV: {error}") from error


def _jsonl_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in read_lines(path):
        try:
            row = parse_json(line)
        except ValueError as error:
            raise DataError(f"{path} line {number}: not readable as JSON: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f"{path} line {number}: expected a JSON object, found {type(row).__name__}")
        _check_columns(path, list(row), f" line {number}")
        yield number, row


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        table = pq.read_table(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: not readable as Parquet: {error}") from error
    _check_columns(path, table.column_names)
    yield from enumerate(table.to_pylist(), start=1)


def _check_columns(path: Path, names: Sequence[str], where: str = "") -> None:
    """Refuse columns that are missing, there twice, or unknown and nearly of the name of one that is missing."""
    absent = [name for name in COLUMNS if name not in names]
    for name in names:
        if name not in COLUMNS and (close := get_close_matches(str(name), absent, n=1, cutoff=_TYPO)):
            raise DataError(f"{path}{where}: unknown column {name!r}; nearest: {close[0]}")
        if name in COLUMNS and names.count(name) > 1:
            raise DataError(f"{path}{where}: expected distinct columns, found {name!r} twice")
    if "task" in absent:
        raise DataError(f"{path}{where}: expected the columns {', '.join(COLUMNS)}; 'task' is missing")


def _checked_row(path: Path, line: int, row: Mapping[str, Any]) -> ListedQuery:
    values: dict[str, str | None] = {}
    for name in COLUMNS:
        value = row.get(name)
        if value is not None and (not isinstance(value, str | int) or isinstance(value, bool)):
            raise DataError(f"{path} line {line}, column {name}: expected text, found {type(value).__name__} {value!r}")
        values[name] = str(value).strip() or None if value is not None else None
        if _NOT_TEXT.search(values[name] or ""):
            raise DataError(f"{path} line {line}, column {name}: {value!r} contains a character that is not text")
    where = f"{path} line {line}, column"
    if values["query_id"] is None:
        raise DataError(f"{where} query_id: expected a name, found nothing")
    if values["task"] not in TASKS:
        raise DataError(f"{where} task: expected cbir or tbir, found {values['task']!r}")
    required, unused = ("image", "text") if values["task"] == "cbir" else ("text", "image")
    if values[required] is None:
        raise DataError(f"{where} {required}: expected a value, which a {values['task']} query needs, found nothing")
    if values[unused] is not None:
        raise DataError(f"{where} {unused}: expected nothing in a {values['task']} query, found {values[unused]!r}")
    label = values["label"] and nfc(values["label"])
    return ListedQuery(values["query_id"], str(values["task"]), values["image"], values["text"], label, line)
