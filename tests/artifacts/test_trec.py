"""Lines of TREC qrels: what is read, and what is refused."""

import pytest

from cbir.artifacts.trec import read_qrels_lines
from cbir.core.errors import DataError


def qrels(tmp_path, text):
    path = tmp_path / "x.qrels"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return [judgement for _, judgement in read_qrels_lines(path, range(128))]


def test_qrels_are_read_in_trec_format(tmp_path):
    assert qrels(tmp_path, "q1 0 cats/1.jpg 1\nq1 0 dogs/2.jpg 0\n\nq2  Q0\tcats/1.jpg   127 \r\n") == [
        ("q1", "cats/1.jpg", 1),
        ("q1", "dogs/2.jpg", 0),
        ("q2", "cats/1.jpg", 127),
    ]


def test_ids_may_contain_spaces_between_tabs(tmp_path):
    assert qrels(tmp_path, "q1 0 my cats/a  b.jpg 1\nq1\t0\tmy cats/a  b c.jpg\t2\nmy q\t0\t1 2.jpg\t3\n") == [
        ("q1", "my cats/a  b.jpg", 1),
        ("q1", "my cats/a  b c.jpg", 2),
        ("my q", "1 2.jpg", 3),
    ]


def test_qrels_may_contain_a_byte_order_mark_and_unicode_separators(tmp_path):
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
def test_an_invalid_line_of_qrels_is_named(tmp_path, line, message):
    with pytest.raises(DataError, match=rf"x\.qrels line 2.*{message}"):
        qrels(tmp_path, f"q1 0 x.jpg 1\n{line}\n")


def test_qrels_that_are_not_utf8_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"x\.qrels line 2: expected text in UTF-8, found the byte 0xff"):
        qrels(tmp_path, b"q1 0 x.jpg 1\nq1 0 \xff.jpg 1\n")
