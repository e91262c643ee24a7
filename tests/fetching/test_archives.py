"""The view of a zip archive: nothing outside of it is read, and damaged members are undecodable."""

import os
import stat
import zipfile

import pytest

from cbir.core.errors import DataError, UndecodableImage
from cbir.fetching import archives
from cbir.fetching.archives import Zip
from tests.support.image_files import zip_of


def test_zip_has_sorted_names_and_the_original_bytes(tmp_path):
    members = {"b/2.jpg": b"two", "a/1.jpg": b"one" * 1000, "a/é ü.jpg": b""}
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        archive = Zip(zip_of(tmp_path / "x.zip", {"a/": b"", **members}, compression))
        assert archive.names == ["a/1.jpg", "a/é ü.jpg", "b/2.jpg"]
        assert {name: archive.read(name) for name in archive.names} == members


@pytest.mark.parametrize(
    "name", ["../../x.jpg", "a/../../x.jpg", "a/..", "..", "/etc/x.jpg", "//host/x.jpg", "C:/x.jpg", "c:x.jpg"]
)
def test_zip_refuses_a_member_outside_its_folder(tmp_path, name):
    with pytest.raises(
        DataError, match=r"x\.zip: member '.*' leaves its folder: expected an archive that is safe to unpack"
    ):
        Zip(zip_of(tmp_path / "x.zip", {"a/1.jpg": b"", name: b""}))


@pytest.mark.parametrize("name", ["..\\..\\x.jpg", "\\x.jpg", "cats\\1.jpg", "C:\\x.jpg"])
def test_zip_refuses_backslashes_in_names(tmp_path, name):
    with pytest.raises(
        DataError, match=r"member '.*': expected '/' between folders, found a backslash: pack the archive again"
    ):
        Zip(zip_of(tmp_path / "x.zip", {name: b""}))


def test_zip_refuses_a_symbolic_link(tmp_path):
    link = zipfile.ZipInfo("cats/link.jpg")
    link.create_system = 3
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(
        DataError, match=r"member 'cats/link.jpg' is a link: expected an archive that is safe to unpack"
    ):
        Zip(zip_of(tmp_path / "x.zip", {link: "/etc/passwd"}))


def test_zip_accepts_odd_but_harmless_names(tmp_path):
    names = ["a..b/1.jpg", "cats/12:30.jpg", "cats/a b.jpg", "2024: summer/1.jpg", "…/1.jpg"]
    assert Zip(zip_of(tmp_path / "x.zip", dict.fromkeys(names, b""))).names == sorted(names)


def test_zip_ignores_hidden_files_as_a_folder_does(tmp_path):
    """macOS adds a __MACOSX/._x for each x; as images they would be half of the data set, all undecodable."""
    members = ["cats/1.jpg", "__MACOSX/cats/._1.jpg", "cats/.DS_Store", ".git/x.jpg", "cats/.1.jpg"]
    assert Zip(zip_of(tmp_path / "x.zip", dict.fromkeys(members, b""))).names == ["cats/1.jpg"]


def test_zip_names_drop_a_leading_dot_slash(tmp_path):
    archive = Zip(zip_of(tmp_path / "x.zip", {"./cats/1.jpg": b"one"}))
    assert (archive.names, archive.read("cats/1.jpg")) == (["cats/1.jpg"], b"one")


def test_a_truncated_zip_is_refused(tmp_path):
    whole = zip_of(tmp_path / "x.zip", {"a.jpg": bytes(5000)}).read_bytes()
    for size in (0, 10, 2500, len(whole) - 30, len(whole) - 1):
        (tmp_path / "x.zip").write_bytes(whole[:size])
        with pytest.raises(
            DataError, match=r"x\.zip: expected a whole zip archive, found .* truncated one \(File is not"
        ):
            Zip(tmp_path / "x.zip")


def test_a_file_that_is_not_a_zip_is_refused(tmp_path):
    (tmp_path / "x.zip").write_text("<html>404 not found</html>")
    with pytest.raises(DataError, match="expected a whole zip archive, found another file"):
        Zip(tmp_path / "x.zip")
    with pytest.raises(DataError, match="expected a whole zip archive"):
        Zip(tmp_path)


def test_a_missing_archive_names_the_command_that_fetches_it(tmp_path):
    with pytest.raises(DataError, match=r"archive.zip is not here: run `dvc repro download`"):
        Zip(tmp_path / "archive.zip")


def test_zip_of_later_version_or_with_broken_names_fails(tmp_path):
    whole = bytearray(zip_of(tmp_path / "x.zip", {"é.jpg": b""}).read_bytes())
    entry = whole.index(b"PK\x01\x02")
    for where, value in ((entry + 6, 200), (entry + 46, 0xFF)):  # version needed, first byte of the name
        broken = bytearray(whole)
        broken[where] = value
        (tmp_path / "x.zip").write_bytes(broken)
        with pytest.raises(DataError, match="expected a whole zip archive, found another file, or a damaged"):
            Zip(tmp_path / "x.zip")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_member_is_undecodable_and_affects_no_other(tmp_path, compression):
    good, bad = os.urandom(500) + bytes(500), os.urandom(500) + bytes(500)
    path = zip_of(tmp_path / "x.zip", {"bad.jpg": bad, "good.jpg": good}, compression)
    whole = bytearray(path.read_bytes())
    for place in range(60, 100):
        whole[place] ^= 0xFF
    path.write_bytes(whole)
    archive = Zip(path)
    with pytest.raises(UndecodableImage, match="damaged archive member: "):
        archive.read("bad.jpg")
    assert archive.read("good.jpg") == good


def test_a_wrong_checksum_is_reported(tmp_path):
    path = zip_of(tmp_path / "x.zip", {"a.jpg": b"hello"})
    path.write_bytes(path.read_bytes().replace(b"hello", b"jello"))
    with pytest.raises(UndecodableImage, match=r"damaged archive member: Bad CRC-32 for file 'a.jpg'"):
        Zip(path).read("a.jpg")
    with pytest.raises(DataError, match=r"x\.zip: member a\.jpg: damaged archive member: Bad CRC-32"):
        Zip(path).require("a.jpg")


def test_an_archive_with_a_password_is_refused(tmp_path):
    path = zip_of(tmp_path / "x.zip", {"a.jpg": b"hello"})
    whole = bytearray(path.read_bytes())
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        whole[whole.index(header) + flags] |= 1
    path.write_bytes(whole)
    with pytest.raises(DataError, match=r"x\.zip: member 'a\.jpg' has a password: .* unpack it and give the folder"):
        Zip(path)


def test_a_member_larger_than_any_image_is_not_unpacked(tmp_path, monkeypatch):
    path = zip_of(tmp_path / "x.zip", {"bomb.jpg": bytes(2_000_000)}, zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", 1_000_000)
    with pytest.raises(UndecodableImage, match="file too large: 2000000 bytes"):
        Zip(path).read("bomb.jpg")


def test_a_member_is_unpacked_only_to_its_declared_size(tmp_path):
    path = zip_of(tmp_path / "x.zip", {"bomb.jpg": bytes(2_000_000)}, zipfile.ZIP_DEFLATED)
    path.write_bytes(path.read_bytes().replace((2_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(UndecodableImage, match="Bad CRC-32"):
        Zip(path).read("bomb.jpg")


def test_a_missing_required_member_is_named(tmp_path):
    with pytest.raises(DataError, match=r"x\.zip: expected a member words.txt, found none among 1"):
        Zip(zip_of(tmp_path / "x.zip", {"a.jpg": b""})).require("words.txt")


def with_names_as(path, names, encoding):
    """An archive whose names are in this encoding, without the flag of UTF-8, as older macOS and Windows write it."""
    plain = {chr(ord("f") + number) * len(name.encode(encoding)): name for number, name in enumerate(names)}
    data = zip_of(path, dict.fromkeys(plain, b"")).read_bytes()
    for ascii_name, name in plain.items():
        data = data.replace(ascii_name.encode(), name.encode(encoding))
    path.write_bytes(data)
    return path


def test_names_in_utf8_without_its_flag_are_read(tmp_path):
    names = ["Frösche/1.jpg", "カエル/2.jpg", "cats/3.jpg", "E\u0301te/4.jpg"]
    assert Zip(with_names_as(tmp_path / "x.zip", names, "utf-8")).names == sorted(names)


@pytest.mark.parametrize(
    ("name", "encoding"),
    [("カエル/1.jpg", "shift_jis"), ("лягушка/1.jpg", "cp866"), ("Frösche/1.jpg", "cp437"), ("表/1.jpg", "shift_jis")],
)
def test_names_in_another_code_page_are_refused(tmp_path, name, encoding):
    with pytest.raises(DataError, match=r"x\.zip: member '.*': expected a name in UTF-8, found another code page"):
        Zip(with_names_as(tmp_path / "x.zip", ["cats/1.jpg", name], encoding))


def test_an_unknown_compression_is_named(tmp_path):
    path = zip_of(tmp_path / "x.zip", {"a.jpg": b"hello"})
    data = bytearray(path.read_bytes())
    for header, method in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        data[data.index(header) + method] = 9  # Deflate64, which Windows uses for large files
    path.write_bytes(data)
    with pytest.raises(UndecodableImage, match=r"unsupported compression: .*: unpack the archive"):
        Zip(path).read("a.jpg")
