"""The query list: written by the data set's own classes and captions, or read from a user's file."""

import csv
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cbir.artifacts.trec import duplicate_judgement, read_qrels_lines
from cbir.core.errors import DataError
from cbir.core.params import nearest
from cbir.core.text_files import decode_utf8, read_lines
from cbir.datasets.base import Grade, Query, SourceImage
from cbir.fetching.archives import read_file

COLUMNS = ("query_id", "task", "image", "text", "label")
TASKS = ("cbir", "tbir")
_NO_TEXT = re.compile("[\0\ud800-\udfff]")  # NUL, and halves of a character


@dataclass(frozen=True)
class ListedQuery:
    """A row of a user's query list; `line` is where it stands in the file, for messages."""

    query_id: str
    task: str
    image: str | None
    text: str | None
    label: str | None
    line: int


def image_queries(images: Iterable[tuple[str, str | None]]) -> Iterator[Query]:
    """One cbir query for each (image_id, label)."""
    for image_id, label in images:
        yield Query(image_id, "cbir", image_id, None, label)


def class_queries(class_names: Mapping[str, str], templates: Sequence[str]) -> Iterator[Query]:
    """One tbir query for each class and prompt template."""
    for label, name in class_names.items():
        for number, template in enumerate(templates):
            query_id = f"class:{label}" if len(templates) == 1 else f"class:{label}:{number}"
            yield Query(query_id, "tbir", None, template.replace("{}", name), label, "class prompts")


def caption_queries(captions: Iterable[tuple[str, str | None]]) -> Iterator[Query]:
    """One tbir query for each distinct (caption, label), in order of the captions."""
    for number, (caption, label) in enumerate(sorted(set(captions), key=lambda pair: (pair[0], pair[1] or ""))):
        yield Query(f"caption:{number:05d}", "tbir", None, caption, label, "captions")


def read_query_file(path: Path) -> list[ListedQuery]:
    """Read a user's query list: CSV, Parquet or JSONL with the columns query_id, task, image, text, label.

    Raises DataError naming file, line and column: an unknown or missing column, another task than cbir and tbir, a cbir
    row without image, a tbir row without text, a query_id given twice.
    """
    if not path.is_file():
        raise DataError(f"queries.path: expected a CSV, Parquet or JSONL file, found nothing at {path}")
    rows = [_checked_row(path, line, row) for line, row in _rows(path)]
    if not rows:
        raise DataError(f"{path}: expected at least one query, found none")
    seen: dict[str, int] = {}
    for row in rows:
        if row.query_id in seen:
            raise DataError(
                f"{path} line {row.line}, column query_id: {row.query_id!r} stands in line {seen[row.query_id]} already"
            )
        seen[row.query_id] = row.line
    return rows


def resolve_image(path: Path, row: ListedQuery) -> SourceImage:
    """The image file below the query list's own folder that a cbir row names.

    Raises DataError when there is none, or when the name leaves the folder.
    """
    root, file = _named_file(path, row)
    where = f"{path} line {row.line}, column image: {row.image!r}"
    if not file.is_relative_to(root):
        raise DataError(f"{where} leaves the folder of the query list; put the image below {root}")
    if not os.path.isfile(file):
        raise DataError(f"{where} is neither an image_id of the gallery nor a file below {root}")
    return SourceImage(own_image_id(row), row.label, row.label, None, str(row.image), partial(read_file, file))


def image_beside(path: Path, row: ListedQuery) -> Path | None:
    """The file below the query list's own folder whose name a row's image is; None where there is none."""
    if row.image is None:
        return None
    root, file = _named_file(path, row)
    return file if file.is_relative_to(root) and os.path.isfile(file) else None


def own_image_id(row: ListedQuery) -> str:
    """The image_id of a query image that comes with the query list."""
    return f"query/{row.query_id}"


def read_qrels_file(path: Path) -> Iterator[Grade]:
    """Read TREC qrels, "query_id 0 image_id relevance" a line; an image_id may hold spaces, every field between tabs.

    Raises DataError naming file and line: too few fields, a grade outside the whole numbers 0 to 127, a pair given twice.
    """
    if not path.is_file():
        raise DataError(f"queries.qrels: expected a TREC qrels file, found nothing at {path}")
    seen: set[tuple[str, str]] = set()
    for number, (query_id, image_id, grade) in read_qrels_lines(path, range(128)):
        if (query_id, image_id) in seen:
            raise duplicate_judgement(path, number, query_id, image_id)
        seen.add((query_id, image_id))
        yield query_id, image_id, grade


def _named_file(path: Path, row: ListedQuery) -> tuple[str, Path]:
    """The query list's own folder, and the path that a row's image is there, wherever links lead."""
    root = os.path.realpath(path.parent)
    return root, Path(os.path.realpath(os.path.join(root, row.image or "")))  # unlike Path.resolve, ends in a circle


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    readers = {".csv": _csv_rows, ".parquet": _parquet_rows, ".jsonl": _jsonl_rows}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: expected a name that ends in {', '.join(readers)}, found '{path.suffix}'")
    return reader(path)


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.reader(StringIO(decode_utf8(path, path.read_bytes()), newline=""), strict=True)
    try:
        names = next(reader, [])
        if len(names) == 1 and re.search("[;\t]", names[0]):
            raise DataError(f"{path} line 1: expected fields separated by commas, found {names[0]!r}")
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
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path} line {number}: not readable as JSON: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f"{path} line {number}: expected a JSON object, found {type(row).__name__}")
        _check_columns(path, list(row), f" line {number}")
        yield number, row


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: not readable as Parquet: {error}") from error
    _check_columns(path, table.column_names)
    yield from enumerate(table.to_pylist(), start=1)


def _check_columns(path: Path, names: Sequence[str], where: str = "") -> None:
    for name in names:
        if name not in COLUMNS:
            raise DataError(f"{path}{where}: unknown column {name!r}; {nearest(str(name), COLUMNS)}")
        if names.count(name) > 1:
            raise DataError(f"{path}{where}: column {name!r} stands there twice")
    for name in ("query_id", "task"):
        if name not in names:
            raise DataError(f"{path}{where}: expected the columns {', '.join(COLUMNS)}; '{name}' is missing")


def _checked_row(path: Path, line: int, row: Mapping[str, Any]) -> ListedQuery:
    values: dict[str, str | None] = {}
    for name in COLUMNS:
        value = row.get(name)
        if value is not None and (not isinstance(value, str | int) or isinstance(value, bool)):
            raise DataError(f"{path} line {line}, column {name}: expected text, found {type(value).__name__} {value!r}")
        values[name] = str(value).strip() or None if value is not None else None
        if _NO_TEXT.search(values[name] or ""):
            raise DataError(f"{path} line {line}, column {name}: {value!r} holds a character that is no text")
    where = f"{path} line {line}, column"
    if values["query_id"] is None:
        raise DataError(f"{where} query_id: expected a name, found nothing")
    if values["task"] not in TASKS:
        raise DataError(f"{where} task: expected cbir or tbir, found {values['task']!r}")
    needed, idle = ("image", "text") if values["task"] == "cbir" else ("text", "image")
    if values[needed] is None:
        raise DataError(f"{where} {needed}: a {values['task']} query needs it, found nothing")
    if values[idle] is not None:
        raise DataError(f"{where} {idle}: a {values['task']} query has none, found {values[idle]!r}")
    return ListedQuery(values["query_id"], str(values["task"]), values["image"], values["text"], values["label"], line)
