"""Views of folders and zip archives: nothing outside of them is read, and damaged files are undecodable."""

import os
import stat
import zipfile
from pathlib import Path

import pytest

from cbir.core.errors import DataError, UndecodableImage
from cbir.fetching import archives
from cbir.fetching.archives import Folder, Zip
from tests.support.image_files import folder_of, zip_of


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


def test_an_encrypted_member_is_undecodable(tmp_path):
    path = zip_of(tmp_path / "x.zip", {"a.jpg": b"hello"})
    whole = bytearray(path.read_bytes())
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        whole[whole.index(header) + flags] |= 1
    path.write_bytes(whole)
    with pytest.raises(UndecodableImage, match=r"damaged archive member: .* is encrypted, password required"):
        Zip(path).read("a.jpg")


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


def test_folder_has_sorted_names_and_the_bytes(tmp_path):
    folder = Folder(folder_of(tmp_path, {"b/2.jpg": b"two", "a/deep/1.jpg": b"one", "0.jpg": b""}))
    assert folder.names == ["0.jpg", "a/deep/1.jpg", "b/2.jpg"]
    assert [folder.read(name) for name in folder.names] == [b"", b"one", b"two"]


def test_a_path_that_is_not_a_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="photos: expected a folder of images, found nothing"):
        Folder(tmp_path / "photos")
    (tmp_path / "photos").write_bytes(b"")
    with pytest.raises(DataError, match="photos: expected a folder of images, found a file"):
        Folder(tmp_path / "photos")


def test_hidden_files_and_folders_are_ignored(tmp_path):
    names = ["a/1.jpg", "a/.2.jpg", ".hidden/3.jpg", ".4.jpg"]
    assert Folder(folder_of(tmp_path, dict.fromkeys(names, b""))).names == ["a/1.jpg"]


def test_a_dangling_link_is_undecodable(tmp_path):
    (tmp_path / "x.jpg").symlink_to(tmp_path / "gone.jpg")
    with pytest.raises(UndecodableImage, match=r"dangling link: points to .*gone.jpg"):
        Folder(tmp_path).read("x.jpg")


def test_a_file_that_disappears_while_reading_is_undecodable(tmp_path):
    folder = Folder(folder_of(tmp_path, {"x.jpg": b"x"}))
    (tmp_path / "x.jpg").unlink()
    with pytest.raises(UndecodableImage, match="unreadable file: No such file"):
        folder.read("x.jpg")


def test_a_circle_of_file_links_is_undecodable(tmp_path):
    (tmp_path / "a.jpg").symlink_to("b.jpg")
    (tmp_path / "b.jpg").symlink_to("a.jpg")
    folder = Folder(tmp_path)
    with pytest.raises(UndecodableImage, match="unreadable file: Too many levels of symbolic links"):
        folder.read("a.jpg")
    assert len(list(folder.fingerprint())) == 2


def test_a_circle_of_folder_links_ends(tmp_path):
    folder_of(tmp_path, {"a/1.jpg": b"one"})
    (tmp_path / "a" / "again").symlink_to(tmp_path, target_is_directory=True)
    assert Folder(tmp_path).names == ["a/1.jpg"]


def test_a_link_to_a_file_is_read(tmp_path):
    folder_of(tmp_path, {"store/1.bin": b"one"})
    (tmp_path / "photos" / "cats").mkdir(parents=True)
    (tmp_path / "photos" / "cats" / "1.jpg").symlink_to(tmp_path / "store" / "1.bin")
    assert Folder(tmp_path / "photos").read("cats/1.jpg") == b"one"


def test_a_folder_named_as_an_image_is_a_folder(tmp_path):
    assert Folder(folder_of(tmp_path, {"x.jpg/1.jpg": b""})).names == ["x.jpg/1.jpg"]
    (tmp_path / "y.jpg").mkdir()
    assert Folder(tmp_path).names == ["x.jpg/1.jpg"]


def test_a_pipe_is_undecodable_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.jpg")
    with pytest.raises(UndecodableImage, match="not a plain file"):
        Folder(tmp_path).read("x.jpg")


def test_a_file_larger_than_any_image_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", 10)
    folder = Folder(folder_of(tmp_path, {"ten.jpg": bytes(10), "eleven.jpg": bytes(11)}))
    assert folder.read("ten.jpg") == bytes(10)
    with pytest.raises(UndecodableImage, match="file too large: 11 bytes, more than 10"):
        folder.read("eleven.jpg")


def test_names_that_are_not_utf8_become_valid_text(tmp_path):
    with open(os.path.join(os.fsencode(tmp_path), b"caf\xe9.jpg"), "wb") as file:
        file.write(b"coffee")
    folder = Folder(tmp_path)
    assert folder.names == ["caf\\xe9.jpg"]
    assert folder.read("caf\\xe9.jpg") == b"coffee"
    assert next(folder.fingerprint()).encode()


def test_two_names_that_become_one_are_refused(tmp_path):
    for name in (b"caf\xe9.jpg", b"caf\\xe9.jpg"):
        Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))).write_bytes(b"")
    with pytest.raises(DataError, match="two names are equal after bytes that are not UTF-8"):
        Folder(tmp_path)


def test_very_long_and_unicode_names_are_read(tmp_path):
    names = ["x" * 251 + ".jpg", "貓/日本.jpg", "e\u0301.jpg", "\u00e9.jpg", "new\nline.jpg", "🐈.jpg", "a b  c.jpg"]
    deep = "/".join(["d" * 200] * 15) + "/1.jpg"  # 3,000 characters
    folder = Folder(folder_of(tmp_path, {name: name.encode() for name in [*names, deep]}))
    assert folder.names == sorted([*names, deep])
    assert all(folder.read(name) == name.encode() for name in folder.names)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_read_permission_is_reported(tmp_path):
    folder_of(tmp_path, {"a/1.jpg": b"", "b/2.jpg": b""})
    (tmp_path / "a" / "1.jpg").chmod(0)
    with pytest.raises(UndecodableImage, match="unreadable file: Permission denied"):
        Folder(tmp_path).read("a/1.jpg")
    (tmp_path / "b").chmod(0)
    try:
        with pytest.raises(DataError, match="b: this folder cannot be read: Permission denied"):
            Folder(tmp_path)
    finally:
        (tmp_path / "b").chmod(0o755)


def test_the_fingerprint_changes_only_when_a_file_changes(tmp_path):
    file = folder_of(tmp_path, {"a/1.jpg": b"one", "b.jpg": b"two"}) / "a" / "1.jpg"
    states = [list(Folder(tmp_path).fingerprint())]
    assert list(Folder(tmp_path).fingerprint()) == states[0]
    file.write_bytes(b"longer")
    states.append(list(Folder(tmp_path).fingerprint()))
    os.utime(file, ns=(10**18, 10**18 + 1))  # the same size, changed a nanosecond later
    states.append(list(Folder(tmp_path).fingerprint()))
    file.rename(tmp_path / "a" / "2.jpg")
    states.append(list(Folder(tmp_path).fingerprint()))
    (tmp_path / "c.jpg").write_bytes(b"")
    states.append(list(Folder(tmp_path).fingerprint()))
    assert len({tuple(lines) for lines in states}) == 5


def test_the_fingerprint_changes_when_the_target_of_a_link_changes(tmp_path):
    folder_of(tmp_path, {"store/1.bin": b"one"})
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").symlink_to(tmp_path / "store" / "1.bin")
    before = list(Folder(tmp_path / "photos").fingerprint())
    (tmp_path / "store" / "1.bin").write_bytes(b"longer")
    assert list(Folder(tmp_path / "photos").fingerprint()) != before
