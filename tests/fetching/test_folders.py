"""The view of a folder: nothing hidden is read, links are followed, and damaged files are undecodable."""

import os
from pathlib import Path

import pytest

from cbir.artifacts.left_out import LeftOut
from cbir.core.errors import ConfigError, DataError, UndecodableImage
from cbir.datasets.local_state import local_state
from cbir.fetching import folders
from cbir.fetching.archives import Zip
from cbir.fetching.folders import Folder
from tests.support.image_files import folder_of, zip_of


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
    monkeypatch.setattr(folders, "MAX_FILE_BYTES", 10)
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
    folder_of(tmp_path, {"a/1.jpg": b""})
    (tmp_path / "a" / "1.jpg").chmod(0)
    with pytest.raises(UndecodableImage, match="unreadable file: Permission denied"):
        Folder(tmp_path).read("a/1.jpg")


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


def test_linked_folders_are_read_as_if_they_were_there(tmp_path):
    folder_of(tmp_path / "store", {"scorpions/1.jpg": b"one", "frogs/deep/2.jpg": b"two"})
    photos = folder_of(tmp_path / "photos", {"fish/3.jpg": b"three"})
    (photos / "scorpions").symlink_to(tmp_path / "store" / "scorpions")
    (photos / "frogs").symlink_to("../store/frogs")
    folder = Folder(photos)
    assert folder.names == ["fish/3.jpg", "frogs/deep/2.jpg", "scorpions/1.jpg"]
    assert folder.read("scorpions/1.jpg") == b"one"
    assert folder.linked == [tmp_path / "store" / "frogs", tmp_path / "store" / "scorpions"]
    assert folder.left_out(bool) == []
    before = list(folder.fingerprint())
    folder_of(tmp_path / "store", {"frogs/4.jpg": b"four"})
    assert list(Folder(photos).fingerprint()) != before


def test_each_folder_is_read_once_and_circles_are_told(tmp_path):
    photos = folder_of(tmp_path / "photos", {"cats/1.jpg": b"", "dogs/2.jpg": b""})
    store = folder_of(tmp_path / "store", {"birds/3.jpg": b""})
    for link, target in {
        "animals": photos / "cats", "cats/all": photos, "cats/round": tmp_path, "dogs/self": photos / "dogs",
        "a": store / "birds", "b": store, "gone": tmp_path / "gone", "gone.jpg": tmp_path / "gone",
    }.items():  # fmt: skip
        (photos / link).symlink_to(target)
    (store / "back").symlink_to(photos)
    folder = Folder(photos)
    assert folder.names == ["a/3.jpg", "cats/1.jpg", "dogs/2.jpg", "gone.jpg"]
    told = {"animals", "cats/all", "cats/round", "dogs/self", "b/birds", "b/back"}
    assert folder.left_out(bool) == sorted(
        [*(LeftOut(name, "read elsewhere") for name in told), LeftOut("gone", "link to nothing")],
        key=lambda one: one.folder,
    )


def test_folders_of_software_are_left_out_and_counted(tmp_path):
    names = [
        "@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", "cats/@eaDir/2.jpg/M.jpg", "cats/@eaDir/2.jpg/info.txt", ".thumbnails/1.jpg",
        "$RECYCLE.BIN/x/1.jpg", "#recycle/1.jpg", "lost+found/1.jpg", "__MACOSX/1.jpg", "cats/.git/HEAD", "@Recycle/notes",
        "System Volume Information/1.jpg",
    ]  # fmt: skip
    files = dict.fromkeys([*names, "cats/2.jpg", "cats/recycle/3.jpg"], b"")
    told = [
        LeftOut("#recycle", "made by software", 1), LeftOut("$RECYCLE.BIN", "made by software", 1),
        LeftOut(".thumbnails", "hidden", 1), LeftOut("@eaDir", "made by software", 1),
        LeftOut("System Volume Information", "made by software", 1), LeftOut("__MACOSX", "made by software", 1),
        LeftOut("cats/@eaDir", "made by software", 1), LeftOut("lost+found", "made by software", 1),
    ]  # fmt: skip
    for view in (Folder(folder_of(tmp_path / "photos", files)), Zip(zip_of(tmp_path / "x.zip", files))):
        assert view.names == ["cats/2.jpg", "cats/recycle/3.jpg"]
        assert view.left_out(lambda name: name.endswith(".jpg")) == told


def test_an_unreadable_folder_is_left_out_unless_the_root(tmp_path, monkeypatch):
    folder_of(tmp_path, {"cats/1.jpg": b"", "private/2.jpg": b""})
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == refused:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    refused = "private"
    assert Folder(tmp_path).names == ["cats/1.jpg"]
    assert Folder(tmp_path).left_out(bool) == [LeftOut("private", "unreadable")]
    refused = tmp_path.name
    with pytest.raises(DataError, match=f"{tmp_path.name}: this folder cannot be read: Permission denied"):
        Folder(tmp_path)


@pytest.mark.parametrize("target", ["data/raw/cats", "data/raw/cats/1.jpg"])
def test_links_into_an_output_are_refused(tmp_path, monkeypatch, target):
    monkeypatch.chdir(tmp_path)
    folder_of(tmp_path, {"data/raw/cats/1.jpg": b"", "photos/dogs/1.jpg": b""})
    assert local_state(["photos"])
    (tmp_path / "photos" / "link").symlink_to(tmp_path / target)
    with pytest.raises(ConfigError, match=r"^photos: a link in it: .* in data/raw, which a run empties"):
        local_state(["photos"])
