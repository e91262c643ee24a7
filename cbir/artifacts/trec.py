"""Relevance judgements in TREC's text format: "query_id 0 image_id relevance" on each line; ids as `cbir trec` writes them."""

import re
import string
from collections.abc import Callable, Collection, Container, Iterator, Sequence
from pathlib import Path
from urllib.parse import quote, unquote

from cbir.artifacts.queries import Judgement
from cbir.core.errors import DataError
from cbir.core.text_files import excerpt, read_lines

_QRELS_LINE = re.compile(r"(\S+)\s+(\S+)\s+(.*\S)\s+(\S+)", re.ASCII)  # as in trec_eval: a no-break space ends no field
_WHITE_SPACE = re.compile(r"\s", re.ASCII)
_UNESCAPED = "".join(sorted(set(string.punctuation) - set("%#")))


def percent_encoded(text: str) -> str:
    """An id as a field in TREC's format; urllib.parse.unquote decodes it.

    >>> percent_encoded("my cats/100%.jpg")
    'my%20cats/100%25.jpg'
    """
    return quote(text, safe=_UNESCAPED)


def id_forms(ids: Collection[str]) -> list[Callable[[str], str]]:
    """What the ids of a file may stand for: themselves, what they encode, their encoded form.  No two ids become equal.

    They encode something only if percent_encoded would write each of them as it is.
    """
    are_encoded = all(percent_encoded(unquote(text)) == text for text in ids)
    return [str, *([unquote] if are_encoded else []), percent_encoded]


def matching_form(columns: Sequence[tuple[Collection[str], Container[str]]]) -> Callable[[str], str]:
    """The form in which most of a file's ids are known; themselves, unless another one matches more.

    columns : the distinct ids of a column, and the ids known for it.

    >>> matching_form([({"my%20cats/1.jpg"}, {"my cats/1.jpg"})])("my%20cats/2.jpg")
    'my cats/2.jpg'
    """
    forms = id_forms([text for ids, _ in columns for text in ids])
    return max(forms, key=lambda form: sum(form(text) in known for ids, known in columns for text in ids))


def read_qrels_lines(path: Path, grades: range) -> Iterator[tuple[int, Judgement]]:
    """Yield (line number, judgement) for each line of TREC qrels, one line in memory at a time.

    An image_id may hold spaces where the second field is 0 or Q0; where tabs separate the fields, each field may.  Duplicates
    are not checked.
    Raises DataError naming file and line for a missing field, for more fields than four where nothing tells which of them
    belong together, or for a relevance that is not in `grades`.
    """
    for number, line in read_lines(path):
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) != 4:
            match = _QRELS_LINE.fullmatch(line)
            fields = list(match.groups()) if match else []
        if not all(fields) or not fields:
            raise DataError(f"{path} line {number}: expected 'query_id 0 image_id relevance', found {excerpt(line)}")
        query_id, iteration, image_id, relevance = fields
        if "\t" not in line and _WHITE_SPACE.search(image_id) and iteration not in ("0", "Q0"):
            raise DataError(
                f"{path} line {number}: expected 'query_id 0 image_id relevance', found more fields in {excerpt(line)}: "
                "separate the fields by tabs where ids hold spaces"
            )
        if not re.fullmatch("-?[0-9]{1,3}", relevance) or int(relevance) not in grades:
            raise DataError(
                f"{path} line {number}, column relevance: expected a whole number in [{grades[0]}, {grades[-1]}], "
                f"found {excerpt(relevance)}"
            )
        yield number, (query_id, image_id, int(relevance))


def duplicate_judgement(path: Path, line: int, query_id: str, image_id: str) -> DataError:
    """The error for a pair of query and image that an earlier line of the qrels has judged."""
    return DataError(f"{path} line {line}: query {query_id!r} and image {image_id!r} are judged twice")
