"""Text files of users: lines, their numbers, and files that are refused."""

import os

import pytest

from cbir.core.errors import DataError
from cbir.core.text_files import decode_utf8, read_lines


def test_lines_are_stripped_and_numbered_without_blank_ones(tmp_path):
    (tmp_path / "x.txt").write_bytes("\ufeffa\r\n\n  b\u2028c \n \n\x0bd".encode())
    assert list(read_lines(tmp_path / "x.txt")) == [(1, "a"), (3, "b\u2028c"), (5, "d")]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("last", [True, False])
def test_lines_end_as_on_any_system(tmp_path, end, last):
    (tmp_path / "x.txt").write_bytes(end.join([b"a", b"", b"b c"]) + end * last)
    assert list(read_lines(tmp_path / "x.txt")) == [(1, "a"), (3, "b c")]


def test_only_line_1_may_begin_with_a_byte_order_mark(tmp_path):
    data = "\ufeffa".encode()
    assert (decode_utf8(tmp_path, data), decode_utf8(tmp_path, data, 2)) == ("a", "\ufeffa")


def test_bytes_that_are_not_utf8_are_named_by_line(tmp_path):
    with pytest.raises(DataError, match=r"line 6: expected text in UTF-8, found the byte 0xe9: save it as UTF-8"):
        decode_utf8(tmp_path, b"a\nb\xe9\n", first_line=5)


def test_a_file_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"x\.txt: expected a file that can be read, found none: No such file"):
        list(read_lines(tmp_path / "x.txt"))


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"])
def test_a_pipe_or_device_is_not_read(tmp_path, make):
    make(tmp_path / "x.run")
    with pytest.raises(DataError, match=r"x\.run: expected a file, found a device or a pipe"):
        next(read_lines(tmp_path / "x.run"))
