"""The readers: only what lies inside, every label right, the same choice from the same seed."""

import io
import json
import os
import shutil
import stat
import zipfile
from collections import Counter, defaultdict
from hashlib import sha256
from pathlib import Path

import pytest
from PIL import Image

from cbir.core.errors import ConfigError, DataError, FetchError, UndecodableImage
from cbir.core.files import read_json
from cbir.datasets.base import Query, SourceImage, choose
from cbir.datasets.image_folder import ImageFolder, common_folder
from cbir.datasets.local_state import images_state, local_state
from cbir.datasets.params import DatasetParams, Reader
from cbir.datasets.readers import open_dataset
from cbir.datasets.shapes import Shapes
from cbir.datasets.tiny_imagenet import TinyImagenet
from cbir.drawing.archive import draw_archive
from cbir.drawing.draw import sample
from cbir.fetching import archives as files_module
from cbir.fetching.archives import Folder, Zip
from cbir.fetching.dataset import fetch_dataset

MINI = Path(__file__).parents[3] / "shared" / "data" / "tiny-imagenet-200-mini.zip"


def jpeg(colour="red", side=8, mode="RGB"):
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), colour).convert(mode).save(buffer, "JPEG")
    return buffer.getvalue()


def zip_of(path, members, compression=zipfile.ZIP_STORED):
    """members : name or ZipInfo -> bytes or text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return path


def folder_of(path, members):
    for name, body in members.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)
    return path


def ids(images):
    return [image.image_id for image in images]


def labels(images):
    return {image.image_id: image.label for image in images}


def params(reader, url=None, **changes):
    values = dict.fromkeys(
        ("sha256", "md5", "query_folder", "draw_seed", "draw_gallery_images", "draw_query_images", "gallery_per_class"),
    )
    values |= {"seed": 0, "queries_per_class": 1, "max_side_px": 512, "max_pixels": 10**7, "max_bad_fraction": 0.0}
    return DatasetParams(reader=reader, url=url, **{**values, **changes})


# --- Zip ------------------------------------------------------------------------------------------------------------


def test_zip_gives_sorted_names_and_the_bytes_that_went_in(tmp_path):
    members = {"b/2.jpg": b"two", "a/1.jpg": b"one" * 1000, "a/é ü.jpg": b""}
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        archive = Zip(zip_of(tmp_path / "x.zip", {"a/": b"", **members}, compression))
        assert archive.names == ["a/1.jpg", "a/é ü.jpg", "b/2.jpg"]
        assert {name: archive.read(name) for name in archive.names} == members


@pytest.mark.parametrize(
    "name", ["../../x.jpg", "a/../../x.jpg", "a/..", "..", "/etc/x.jpg", "//host/x.jpg", "C:/x.jpg", "c:x.jpg"]
)
def test_zip_refuses_a_member_that_leaves_its_folder(tmp_path, name):
    with pytest.raises(DataError, match=r"x\.zip: member '.*' leaves its folder: this archive is not safe, refused"):
        Zip(zip_of(tmp_path / "x.zip", {"a/1.jpg": b"", name: b""}))


@pytest.mark.parametrize("name", ["..\\..\\x.jpg", "\\x.jpg", "cats\\1.jpg", "C:\\x.jpg"])
def test_zip_refuses_backslashes_rather_than_take_a_folder_for_a_part_of_the_name(tmp_path, name):
    with pytest.raises(DataError, match=r"member '.*': expected '/' between folders: pack the archive anew"):
        Zip(zip_of(tmp_path / "x.zip", {name: b""}))


def test_zip_refuses_a_symbolic_link(tmp_path):
    link = zipfile.ZipInfo("cats/link.jpg")
    link.create_system = 3
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(DataError, match=r"member 'cats/link.jpg' is a link: this archive is not safe, refused"):
        Zip(zip_of(tmp_path / "x.zip", {link: "/etc/passwd"}))


def test_zip_takes_odd_but_harmless_names(tmp_path):
    names = ["a..b/1.jpg", "cats/12:30.jpg", "cats/a b.jpg", "2024: summer/1.jpg", "…/1.jpg"]
    assert Zip(zip_of(tmp_path / "x.zip", dict.fromkeys(names, b""))).names == sorted(names)


def test_zip_ignores_what_is_hidden_as_a_folder_does(tmp_path):
    """macOS writes a __MACOSX/._x beside every x: taken for images, they would be half of the data set and all bad."""
    members = ["cats/1.jpg", "__MACOSX/cats/._1.jpg", "cats/.DS_Store", ".git/x.jpg", "cats/.1.jpg"]
    assert Zip(zip_of(tmp_path / "x.zip", dict.fromkeys(members, b""))).names == ["cats/1.jpg"]


def test_zip_names_are_those_without_a_leading_dot_slash(tmp_path):
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


def test_what_is_no_zip_is_refused(tmp_path):
    (tmp_path / "x.zip").write_text("<html>404 not found</html>")
    with pytest.raises(DataError, match="expected a whole zip archive, found another file"):
        Zip(tmp_path / "x.zip")
    with pytest.raises(DataError, match="expected a whole zip archive"):
        Zip(tmp_path)


def test_an_absent_archive_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(DataError, match=r"archive.zip is not here: run `dvc repro download`"):
        Zip(tmp_path / "archive.zip")


def test_a_zip_of_a_later_version_or_with_broken_names_is_refused(tmp_path):
    whole = bytearray(zip_of(tmp_path / "x.zip", {"é.jpg": b""}).read_bytes())
    entry = whole.index(b"PK\x01\x02")
    for where, value in ((entry + 6, 200), (entry + 46, 0xFF)):  # version needed, first byte of the name
        broken = bytearray(whole)
        broken[where] = value
        (tmp_path / "x.zip").write_bytes(broken)
        with pytest.raises(DataError, match="expected a whole zip archive, found another file, or a damaged"):
            Zip(tmp_path / "x.zip")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_member_is_undecodable_and_costs_no_other(tmp_path, compression):
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


def test_a_wrong_checksum_is_told(tmp_path):
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
    monkeypatch.setattr(files_module, "MAX_FILE_BYTES", 1_000_000)
    with pytest.raises(UndecodableImage, match="file too large: 2000000 bytes"):
        Zip(path).read("bomb.jpg")


def test_a_member_that_holds_more_than_it_declares_is_not_unpacked_further(tmp_path):
    path = zip_of(tmp_path / "x.zip", {"bomb.jpg": bytes(2_000_000)}, zipfile.ZIP_DEFLATED)
    path.write_bytes(path.read_bytes().replace((2_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(UndecodableImage, match="Bad CRC-32"):
        Zip(path).read("bomb.jpg")


def test_a_required_member_that_is_absent_is_named(tmp_path):
    with pytest.raises(DataError, match=r"x\.zip: expected a member words.txt, found none among 1"):
        Zip(zip_of(tmp_path / "x.zip", {"a.jpg": b""})).require("words.txt")


# --- Folder ---------------------------------------------------------------------------------------------------------


def test_folder_gives_sorted_names_and_the_bytes(tmp_path):
    folder = Folder(folder_of(tmp_path, {"b/2.jpg": b"two", "a/deep/1.jpg": b"one", "0.jpg": b""}))
    assert folder.names == ["0.jpg", "a/deep/1.jpg", "b/2.jpg"]
    assert [folder.read(name) for name in folder.names] == [b"", b"one", b"two"]


def test_what_is_no_folder_is_refused_with_what_it_is(tmp_path):
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


def test_a_file_that_goes_away_while_we_work_is_undecodable(tmp_path):
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
    monkeypatch.setattr(files_module, "MAX_FILE_BYTES", 10)
    folder = Folder(folder_of(tmp_path, {"ten.jpg": bytes(10), "eleven.jpg": bytes(11)}))
    assert folder.read("ten.jpg") == bytes(10)
    with pytest.raises(UndecodableImage, match="file too large: 11 bytes, more than 10"):
        folder.read("eleven.jpg")


def test_names_that_are_no_utf8_become_valid_text_and_are_read(tmp_path):
    with open(os.path.join(os.fsencode(tmp_path), b"caf\xe9.jpg"), "wb") as file:
        file.write(b"coffee")
    folder = Folder(tmp_path)
    assert folder.names == ["caf\\xe9.jpg"]
    assert folder.read("caf\\xe9.jpg") == b"coffee"
    assert next(folder.fingerprint()).encode()


def test_two_names_that_become_one_are_refused(tmp_path):
    for name in (b"caf\xe9.jpg", b"caf\\xe9.jpg"):
        Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))).write_bytes(b"")
    with pytest.raises(DataError, match="two names are the same once bytes that are no UTF-8"):
        Folder(tmp_path)


def test_very_long_and_unicode_names_are_read(tmp_path):
    names = ["x" * 251 + ".jpg", "貓/日本.jpg", "e\u0301.jpg", "\u00e9.jpg", "new\nline.jpg", "🐈.jpg", "a b  c.jpg"]
    deep = "/".join(["d" * 200] * 15) + "/1.jpg"  # 3,000 characters
    folder = Folder(folder_of(tmp_path, {name: name.encode() for name in [*names, deep]}))
    assert folder.names == sorted([*names, deep])
    assert all(folder.read(name) == name.encode() for name in folder.names)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_told(tmp_path):
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


def test_the_fingerprint_changes_when_a_file_changes_and_only_then(tmp_path):
    file = folder_of(tmp_path, {"a/1.jpg": b"one", "b.jpg": b"two"}) / "a" / "1.jpg"
    seen = [list(Folder(tmp_path).fingerprint())]
    assert list(Folder(tmp_path).fingerprint()) == seen[0]
    file.write_bytes(b"longer")
    seen.append(list(Folder(tmp_path).fingerprint()))
    os.utime(file, ns=(10**18, 10**18 + 1))  # the same size, changed a nanosecond later
    seen.append(list(Folder(tmp_path).fingerprint()))
    file.rename(tmp_path / "a" / "2.jpg")
    seen.append(list(Folder(tmp_path).fingerprint()))
    (tmp_path / "c.jpg").write_bytes(b"")
    seen.append(list(Folder(tmp_path).fingerprint()))
    assert len({tuple(lines) for lines in seen}) == 5


def test_the_fingerprint_changes_when_what_a_link_points_to_changes(tmp_path):
    folder_of(tmp_path, {"store/1.bin": b"one"})
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").symlink_to(tmp_path / "store" / "1.bin")
    before = list(Folder(tmp_path / "photos").fingerprint())
    (tmp_path / "store" / "1.bin").write_bytes(b"longer")
    assert list(Folder(tmp_path / "photos").fingerprint()) != before


def test_local_state_names_what_lies_here_and_changes_with_it(tmp_path):
    folder_of(tmp_path, {"photos/1.jpg": b"one", "list.csv": b"x"})
    photos, queries = str(tmp_path / "photos"), (tmp_path / "list.csv").as_uri()

    def state():
        return local_state([photos, queries, None, "DEFAULT", "https://host/x.zip", str(tmp_path / "gone")])

    first = state()
    assert list(first) == [photos, queries]
    assert state() == first
    (tmp_path / "photos" / "1.jpg").write_bytes(b"longer")
    second = state()
    assert (second[photos] != first[photos], second[queries] == first[queries]) == (True, True)
    (tmp_path / "list.csv").write_bytes(b"longer")
    assert state()[queries] != first[queries]


def test_local_state_of_a_name_that_stands_for_an_own_file_stands_under_that_name(tmp_path):
    folder_of(tmp_path, {"own.bin": b"one"})
    own = {"demo": tmp_path / "own.bin"}
    assert local_state(["demo"], own) == {"demo": sha256(b"one").hexdigest()}
    assert local_state(["other"], own) == {}
    (tmp_path / "own.bin").unlink()
    assert local_state(["demo"], own) == {}


def test_the_images_beside_a_query_list_are_watched_and_none_elsewhere(tmp_path):
    rows = "a,cbir,mine.jpg,\nb,cbir,gallery-image,\nc,cbir,../other.jpg,\nd,tbir,,mine.jpg\n"
    folder_of(tmp_path, {"own/mine.jpg": b"one", "own/more.jpg": b"one", "other.jpg": b"one"})
    (tmp_path / "own" / "list.csv").write_text("query_id,task,image,text\n" + rows)
    path = str(tmp_path / "own" / "list.csv")
    first = images_state(path)
    assert list(first) == [f"images of {path}"]
    for name in ("own/more.jpg", "other.jpg"):
        (tmp_path / name).write_bytes(b"longer")
    assert images_state(path) == first
    (tmp_path / "own" / "mine.jpg").write_bytes(b"longer")
    assert images_state(path) != first
    (tmp_path / "own" / "mine.jpg").unlink()
    assert images_state(path) == images_state(None) == {}


# --- choose ---------------------------------------------------------------------------------------------------------


def crowd(**counts):
    return [
        SourceImage(f"{label}/{number}", None if label == "none" else label, None, None, "", bytes)
        for label, count in counts.items()
        for number in range(count)
    ]


def chosen(images, per_class, seed=0):
    return {image.image_id for image in filter(choose(images, per_class, seed), images)}


def test_choose_takes_so_many_of_each_class_and_all_of_a_smaller_one():
    kept = chosen(crowd(cat=10, dog=2, none=7), 3)
    assert Counter(image_id.split("/")[0] for image_id in kept) == {"cat": 3, "dog": 2, "none": 3}


def test_choose_all_or_none():
    images = crowd(cat=4)
    assert chosen(images, None) == {image.image_id for image in images}
    assert chosen(images, 0) == set()


def test_the_choice_depends_on_the_seed():
    assert len({frozenset(chosen(crowd(cat=50), 10, seed)) for seed in range(5)}) == 5


def test_the_choice_depends_neither_on_order_nor_on_other_classes():
    images = crowd(cat=50, dog=50)
    kept = chosen(images, 10)
    assert chosen(images[::-1], 10) == kept
    assert chosen(images + crowd(bird=99), 10) & kept == kept


def test_a_larger_choice_holds_the_smaller_one():
    images = crowd(cat=50)
    assert chosen(images, 5) < chosen(images, 6)


def test_every_image_is_about_equally_likely():
    counts = Counter(image_id for seed in range(400) for image_id in chosen(crowd(cat=10), 3, seed))
    assert len(counts) == 10
    assert all(80 <= count <= 160 for count in counts.values())  # 120 expected; five standard deviations are 46


# --- ImageFolder ----------------------------------------------------------------------------------------------------


def image_folder(path, query_folder=None, hold_out=0, seed=0):
    return ImageFolder(Folder(path), "", query_folder, hold_out, seed)


CATS_AND_DOGS = {f"{label}/{number}.jpg": b"" for label in ("cats", "dogs") for number in range(10)}


def test_the_first_folder_level_is_the_class(tmp_path):
    names = ["cats/1.jpg", "cats/young/small/2.PNG", "dogs/3.jpeg", "big_dogs/4.webp", "5.jpg"]
    source = image_folder(folder_of(tmp_path, dict.fromkeys(names, b"x")))
    assert labels(source.gallery()) == {
        "5.jpg": None, "big_dogs/4.webp": "big_dogs", "cats/1.jpg": "cats", "cats/young/small/2.PNG": "cats",
        "dogs/3.jpeg": "dogs",
    }  # fmt: skip
    assert ids(source.gallery()) == sorted(names)
    assert source.class_names() == {"big_dogs": "big dogs", "cats": "cats", "dogs": "dogs"}
    assert list(source.queries()) == []
    assert source.grades([]) is None
    assert [image.read() for image in source.gallery()] == [b"x"] * 5


def test_files_that_are_no_images_are_ignored(tmp_path):
    names = ["cats/1.jpg", "cats/notes.txt", "cats/jpg", "labels.csv", "cats/1.jpg.bak", "cats/Thumbs.db"]
    assert ids(image_folder(folder_of(tmp_path, dict.fromkeys(names, b""))).gallery()) == ["cats/1.jpg"]


def test_a_query_folder_asks_and_is_no_part_of_the_gallery(tmp_path):
    names = ["cats/1.jpg", "asked/cats/2.jpg", "asked/dogs/deep/3.jpg", "asked/4.jpg", "asked_not/5.jpg"]
    for given in ("asked", "asked/", "/asked"):
        source = image_folder(folder_of(tmp_path, dict.fromkeys(names, b"")), query_folder=given, hold_out=5)
        assert labels(source.gallery()) == {"asked_not/5.jpg": "asked_not", "cats/1.jpg": "cats"}
        assert labels(source.queries()) == {
            "asked/4.jpg": None, "asked/cats/2.jpg": "cats", "asked/dogs/deep/3.jpg": "dogs",
        }  # fmt: skip


def test_a_missing_query_folder_is_named(tmp_path):
    folder_of(tmp_path, {"cats/1.jpg": b"", "asked/readme.txt": b""})
    for absent in ("query", "asked", "cats/1.jpg"):
        with pytest.raises(ConfigError, match=f"dataset.query_folder: expected a folder with images .* no {absent}"):
            image_folder(tmp_path, query_folder=absent)


def test_without_query_folder_and_number_the_user_is_asked_for_one(tmp_path):
    with pytest.raises(
        ConfigError, match=r"dataset.queries_per_class: expected a number.* or name dataset.query_folder"
    ):
        image_folder(folder_of(tmp_path, {"cats/1.jpg": b""}), hold_out=None)


def test_hold_out_takes_so_many_of_each_class_out_of_the_gallery(tmp_path):
    source = image_folder(folder_of(tmp_path, CATS_AND_DOGS), hold_out=3)
    assert Counter(labels(source.queries()).values()) == {"cats": 3, "dogs": 3}
    assert Counter(labels(source.gallery()).values()) == {"cats": 7, "dogs": 7}
    assert not set(ids(source.queries())) & set(ids(source.gallery()))
    assert ids(source.queries()) == sorted(ids(source.queries()))


def test_hold_out_never_takes_more_than_half_of_a_class(tmp_path):
    names = ["cats/1.jpg", "dogs/1.jpg", "dogs/2.jpg", "birds/1.jpg", "birds/2.jpg", "birds/3.jpg", "root.jpg"]
    source = image_folder(folder_of(tmp_path, dict.fromkeys(names, b"")), hold_out=2)
    assert Counter(labels(source.gallery()).values()) == {"cats": 1, "dogs": 1, "birds": 2, None: 1}
    assert Counter(labels(source.queries()).values()) == {"dogs": 1, "birds": 1}


def test_hold_out_follows_the_seed_and_no_order_of_a_listing(tmp_path):
    held = [ids(image_folder(folder_of(tmp_path / "a", CATS_AND_DOGS), hold_out=3, seed=s).queries()) for s in range(4)]
    assert len({tuple(names) for names in held}) == 4
    backwards = dict(reversed(CATS_AND_DOGS.items()))
    assert ids(image_folder(folder_of(tmp_path / "b", backwards), hold_out=3, seed=0).queries()) == held[0]
    archive = Zip(zip_of(tmp_path / "c.zip", backwards))
    assert ids(ImageFolder(archive, "", None, 3, 0).queries()) == held[0]


def test_hold_out_of_a_class_stays_when_other_classes_are_added(tmp_path):
    before = set(ids(image_folder(folder_of(tmp_path, CATS_AND_DOGS), hold_out=3).queries()))
    after = image_folder(folder_of(tmp_path, {"birds/1.jpg": b"", "birds/2.jpg": b""}), hold_out=3).queries()
    assert {image_id for image_id in ids(after) if not image_id.startswith("birds")} == before


@pytest.mark.parametrize("members", [{}, {"a/readme.txt": b"", "b": b""}])
def test_a_folder_without_images_is_refused_with_what_an_image_is(tmp_path, members):
    with pytest.raises(DataError, match=rf"expected images \(.bmp, .*, .webp\), found none among {len(members)} files"):
        image_folder(folder_of(tmp_path, members))


@pytest.mark.parametrize(
    ("names", "root"),
    [
        (["photos/cats/1.jpg", "photos/dogs/2.jpg"], "photos/"),
        (["photos/cats/1.jpg", "photos/dogs/2.jpg", "photos/README.txt", "LICENSE"], "photos/"),
        (["cats/1.jpg", "dogs/2.jpg"], ""),
        (["cats/1.jpg", "cats/2.jpg"], ""),  # one class
        (["photos/cats/1.jpg", "photos/2.jpg"], ""),
        (["photos/cats/1.jpg", "other/dogs/2.jpg"], ""),
        (["1.jpg"], ""),
        (["photos/cats/deep/1.jpg"], "photos/"),
        (["a/readme.txt"], ""),
        ([], ""),
    ],
)
def test_one_folder_around_all_images_of_an_archive_is_no_class(names, root):
    assert common_folder(names) == root


def test_an_archive_of_a_folder_is_that_folder(tmp_path):
    members = {f"photos/{name}": body for name, body in CATS_AND_DOGS.items()}
    members |= {"photos/README.txt": b"", "__MACOSX/photos/cats/._0.jpg": b""}
    raw = zip_of(tmp_path / "raw" / "archive.zip", members).parent
    source = open_dataset(params(Reader.image_folder, queries_per_class=3), raw, hold_out=True)
    same = image_folder(folder_of(tmp_path / "photos", CATS_AND_DOGS), hold_out=3)
    assert labels(source.gallery()) == labels(same.gallery())
    assert labels(source.queries()) == labels(same.queries())
    asked = open_dataset(params(Reader.image_folder, query_folder="dogs"), raw, hold_out=True)
    assert set(labels(asked.gallery()).values()) == {"cats"}


# --- Tiny ImageNet --------------------------------------------------------------------------------------------------

TINY = {
    "tiny/wnids.txt": "n02\nn01\n",
    "tiny/words.txt": "n01\tgoldfish, Carassius auratus\nn02\tbull frog\nn03\tnot among the classes\n",
    "tiny/train/n01/n01_boxes.txt": "n01_0.JPEG\t0\t0\t1\t1\n",
    "tiny/train/n01/images/n01_0.JPEG": jpeg("gold"),
    "tiny/train/n01/images/n01_1.JPEG": jpeg("gold", mode="L"),
    "tiny/train/n02/images/n02_0.JPEG": jpeg("green"),
    "tiny/val/val_annotations.txt": "val_0.JPEG\tn02\t0\t0\t9\t9\nval_1.JPEG\tn01\t0\t0\t9\t9\n",
    "tiny/val/images/val_0.JPEG": jpeg("green"),
    "tiny/val/images/val_1.JPEG": jpeg("gold", mode="L"),
    "tiny/test/images/test_0.JPEG": jpeg("blue"),
}


def tiny(path, **changes):
    """The small set with members replaced, or left out where None; names without the root and dots as __."""
    members = {**TINY, **{f"tiny/{name}": body for name, body in changes.pop("members", {}).items()}}
    return TinyImagenet(zip_of(path / "x.zip", {name: body for name, body in members.items() if body is not None}))


def test_tiny_imagenet_takes_train_for_the_gallery_and_labels_val_by_its_annotations(tmp_path):
    source = tiny(tmp_path)
    assert labels(source.gallery()) == {
        "train/n01/images/n01_0.JPEG": "n01",
        "train/n01/images/n01_1.JPEG": "n01",
        "train/n02/images/n02_0.JPEG": "n02",
    }
    assert labels(source.queries()) == {"val/images/val_0.JPEG": "n02", "val/images/val_1.JPEG": "n01"}
    assert [image.label_name for image in source.queries()] == ["bull frog", "goldfish, Carassius auratus"]
    assert source.class_names() == {"n01": "goldfish", "n02": "bull frog"}  # of synonyms the first, in order of label
    assert source.grades([]) is None
    grey = Image.open(io.BytesIO(next(image for image in source.queries() if image.label == "n01").read()))
    assert grey.mode == "L"


def test_tiny_imagenet_needs_no_folder_around_it(tmp_path):
    bare = TinyImagenet(zip_of(tmp_path / "x.zip", {name.removeprefix("tiny/"): body for name, body in TINY.items()}))
    assert labels(bare.queries()) == labels(tiny(tmp_path / "other").queries())


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"wnids.txt": None}, "expected Tiny ImageNet's layout with a wnids.txt, found 9 other .*dataset=image_folder"),
        ({"words.txt": None}, r"x\.zip: expected a member tiny/words.txt, found none"),
        ({"words.txt": "n01\tgoldfish\n"}, "words.txt: expected a line for class n02, found none"),
        ({"words.txt": b"n01\tgoldfish\nn02\t\xff\n"}, "words.txt: expected text in UTF-8"),
        ({"val/val_annotations.txt": None}, "expected a member tiny/val/val_annotations.txt"),
        ({"val/val_annotations.txt": "val_0.JPEG n01\n"}, "line 1: expected 'image<TAB>wnid...', found 'val_0.JPEG n01'"),
        (
            {"val/val_annotations.txt": "val_0.JPEG\tn02\nval_1.JPEG\tn99\n"},
            "val/val_annotations.txt line 2: class n99 is not in wnids.txt",
        ),
    ],
)  # fmt: skip
def test_a_tiny_imagenet_that_lacks_something_is_refused(tmp_path, members, message):
    with pytest.raises(DataError, match=message):
        tiny(tmp_path, members=members)


def test_a_val_image_without_annotation_is_refused(tmp_path):
    source = tiny(tmp_path, members={"val/images/val_2.JPEG": jpeg()})
    with pytest.raises(DataError, match=r"val/images/val_2.JPEG has no line in val/val_annotations.txt"):
        list(source.queries())


def test_a_train_folder_of_an_unknown_class_is_refused(tmp_path):
    source = tiny(tmp_path, members={"train/n77/images/n77_0.JPEG": jpeg()})
    with pytest.raises(DataError, match=r"train/n77/images/n77_0.JPEG: class n77 is not in wnids.txt"):
        list(source.gallery())


@pytest.mark.skipif(not MINI.exists(), reason=f"needs the real images at {MINI}")
def test_the_real_tiny_imagenet_has_every_label_right():
    source = TinyImagenet(MINI)
    gallery, queries = list(source.gallery()), list(source.queries())
    assert (len(gallery), len(queries), len(source.class_names())) == (10_000, 2_000, 200)
    with zipfile.ZipFile(MINI) as archive:
        listing = archive.namelist()
        rows = [line.split() for line in archive.read("tiny-imagenet-200/val/val_annotations.txt").decode().split("\n")]
        words = dict(
            line.split("\t") for line in archive.read("tiny-imagenet-200/words.txt").decode().split("\n") if line
        )
    assert {image.source.rsplit("/", 1)[1]: image.label for image in queries} == {row[0]: row[1] for row in rows if row}
    assert Counter(image.label for image in queries) == dict.fromkeys(source.class_names(), 10)
    assert Counter(image.label for image in gallery) == dict.fromkeys(source.class_names(), 50)
    assert all(image.image_id.split("/")[-1].startswith(f"{image.label}_") for image in gallery)
    assert {f"tiny-imagenet-200/{image.image_id}" for image in gallery + queries} == {
        name for name in listing if name.endswith(".JPEG") and "/test/" not in name
    }
    assert source.class_names() == {wnid: words[wnid].split(",")[0] for wnid in sorted(source.class_names())}
    assert source.class_names()["n02124075"] == "Egyptian cat"
    assert all(image.label_name == words[image.label] for image in gallery)
    modes = {Image.open(io.BytesIO(image.read())).mode for image in gallery[::50]}
    assert modes <= {"RGB", "L"}


# --- shapes ---------------------------------------------------------------------------------------------------------


def test_the_drawn_archive_has_the_same_bytes_for_any_number_of_workers(tmp_path):
    """More drawings than one process makes at a time, and a last chunk that is not full."""
    for workers in (1, 2):
        draw_archive(tmp_path / f"{workers}.zip", seed=3, gallery_images=210, query_images=40, workers=workers)
    first, second = ((tmp_path / f"{workers}.zip").read_bytes() for workers in (1, 2))
    assert first == second
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.zip", "2.zip"]

    source = Shapes(tmp_path / "1.zip")
    for split, images, number in (("gallery", source.gallery(), 210), ("queries", source.queries(), 40)):
        shown = list(images)
        drawn = list(sample(3, split, number))
        assert ids(shown) == [f"{split}/{drawing.name}.jpg" for drawing in drawn]
        assert [image.label for image in shown] == [drawing.attributes.label for drawing in drawn]
        assert [image.caption for image in shown] == [drawing.attributes.caption for drawing in drawn]
        assert [image.read() for image in shown] == [drawing.jpeg for drawing in drawn]
    assert len(source.class_names()) == 80
    assert all(label == name for label, name in source.class_names().items())


def test_another_seed_draws_another_archive(tmp_path):
    for seed in (0, 1):
        draw_archive(tmp_path / f"{seed}.zip", seed, gallery_images=2, query_images=0, workers=1)
    assert (tmp_path / "0.zip").read_bytes() != (tmp_path / "1.zip").read_bytes()


def shapes_archive(path, **attributes):
    """An archive of drawings that are only said to be so: name -> "shape colour texture size background"."""
    words = ("shape", "colour", "texture", "size", "background")
    rows = {name: dict(zip(words, said.split(), strict=True)) for name, said in attributes.items()}
    names = {name: name.replace("_", "/") + ".jpg" for name in rows}
    lines = [json.dumps({"name": names[name], **row}) for name, row in rows.items()]
    images = dict.fromkeys(names.values(), jpeg())
    return zip_of(path, {**images, "attributes.jsonl": "\n".join(lines) + "\n"})


def test_grades_are_those_that_a_person_would_give(tmp_path):
    source = Shapes(
        shapes_archive(
            tmp_path / "x.zip",
            queries_0="star red striped large grey",
            gallery_0="star red striped large grey",  # all the same
            gallery_1="star red striped small white",  # texture
            gallery_2="star red dotted large black",  # size
            gallery_3="star red plain small beige",  # only the label
            gallery_4="star blue striped large grey",  # another colour: not relevant
            gallery_5="heart red striped large grey",  # another shape: not relevant
        )
    )
    image = Query("image", "cbir", "queries/0.jpg", None, "red star")
    prompt = Query("prompt", "tbir", None, "a photo of a red star", "red star", "class prompts")
    caption = Query("caption", "tbir", None, "a large striped red star on a grey background", "red star", "captions")
    grades = defaultdict(dict)
    for query_id, image_id, grade in source.grades([image, prompt, caption]):
        grades[query_id][image_id] = grade
    names = [f"gallery/{number}.jpg" for number in range(4)]
    assert grades["image"] == dict(zip(names, [3, 2, 2, 1], strict=True))
    assert grades["prompt"] == dict(zip(names, [1, 1, 1, 1], strict=True))
    assert grades["caption"] == dict(zip(names, [4, 2, 2, 1], strict=True))


def test_a_drawing_without_attributes_is_refused(tmp_path):
    path = shapes_archive(tmp_path / "x.zip", gallery_0="star red striped large grey")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("gallery/1.jpg", jpeg())
    with pytest.raises(DataError, match=r"x\.zip: gallery/1.jpg has no line in attributes.jsonl"):
        list(Shapes(path).gallery())


def test_another_archive_is_not_taken_for_shapes(tmp_path):
    with pytest.raises(DataError, match=r"expected a member attributes.jsonl, found none among 20"):
        Shapes(zip_of(tmp_path / "x.zip", CATS_AND_DOGS))


# --- fetch_dataset and open_dataset ---------------------------------------------------------------------------------


def test_a_folder_is_noted_not_copied_and_opened_from_there(tmp_path, monkeypatch):
    folder_of(tmp_path / "photos", CATS_AND_DOGS)
    monkeypatch.chdir(tmp_path)
    fetch_dataset(params(Reader.image_folder, "photos"), tmp_path / "raw", workers=1)
    noted = read_json(tmp_path / "raw" / "folder.json")
    assert noted["folder"] == str(tmp_path / "photos")
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["folder.json"]
    monkeypatch.chdir("/")
    source = open_dataset(params(Reader.image_folder, queries_per_class=2), tmp_path / "raw", hold_out=True)
    assert (len(ids(source.gallery())), len(ids(source.queries()))) == (16, 4)
    unasked = open_dataset(params(Reader.image_folder, queries_per_class=2), tmp_path / "raw", hold_out=False)
    assert (len(ids(unasked.gallery())), len(ids(unasked.queries()))) == (20, 0)

    folder_of(tmp_path / "photos", {"cats/0.jpg": b"changed"})
    fetch_dataset(params(Reader.image_folder, str(tmp_path / "photos")), tmp_path / "raw", workers=1)
    assert read_json(tmp_path / "raw" / "folder.json")["fingerprint"] != noted["fingerprint"]


def test_a_folder_that_went_away_is_named(tmp_path):
    folder_of(tmp_path / "photos", CATS_AND_DOGS)
    fetch_dataset(params(Reader.image_folder, str(tmp_path / "photos")), tmp_path / "raw", workers=1)
    shutil.rmtree(tmp_path / "photos")
    with pytest.raises(DataError, match="photos: expected a folder of images, found nothing"):
        open_dataset(params(Reader.image_folder), tmp_path / "raw", hold_out=True)


@pytest.mark.parametrize("as_uri", [False, True])
def test_an_archive_is_copied_when_its_hash_is_right(tmp_path, as_uri):
    path = zip_of(tmp_path / "my photos.zip", CATS_AND_DOGS)
    url, digest = path.as_uri() if as_uri else str(path), sha256(path.read_bytes()).hexdigest()
    fetch_dataset(params(Reader.image_folder, url, sha256=digest), tmp_path / "raw", workers=1)
    assert (tmp_path / "raw" / "archive.zip").read_bytes() == path.read_bytes()
    assert len(ids(open_dataset(params(Reader.image_folder), tmp_path / "raw", hold_out=False).gallery())) == 20


def test_an_archive_with_another_hash_is_refused_and_nothing_is_left(tmp_path):
    path = zip_of(tmp_path / "photos.zip", CATS_AND_DOGS)
    with pytest.raises(FetchError, match=r"photos\.zip: .*sha256"):
        fetch_dataset(params(Reader.image_folder, str(path), sha256="0" * 64), tmp_path / "raw", workers=1)
    assert not (tmp_path / "raw" / "archive.zip").exists()


@pytest.mark.parametrize("reader", [Reader.tiny_imagenet, Reader.shapes])
def test_a_reader_of_archives_refuses_a_folder(tmp_path, reader):
    photos = folder_of(tmp_path / "photos", CATS_AND_DOGS)
    fetch_dataset(params(reader, str(photos)), tmp_path / "raw", workers=1)
    with pytest.raises(ConfigError, match=f"dataset.url: dataset={reader.value} needs a zip .* the folder {photos}"):
        open_dataset(params(reader), tmp_path / "raw", hold_out=True)


@pytest.mark.parametrize("reader", list(Reader))
def test_a_data_set_without_address_is_refused(tmp_path, reader):
    with pytest.raises(ConfigError, match=r"dataset\.url: expected the address of an archive or a folder, found null"):
        fetch_dataset(params(reader), tmp_path / "raw", workers=1)


def test_drawing_needs_a_number_of_query_images(tmp_path):
    with pytest.raises(ConfigError, match=r"dataset\.draw_query_images: expected a number .*, found null"):
        fetch_dataset(params(Reader.shapes, draw_gallery_images=2), tmp_path, workers=1)


def test_shapes_are_drawn_and_opened(tmp_path):
    fetch_dataset(params(Reader.shapes, draw_seed=5, draw_gallery_images=3, draw_query_images=2), tmp_path, workers=1)
    source = open_dataset(params(Reader.shapes), tmp_path, hold_out=True)
    assert isinstance(source, Shapes)
    assert (len(ids(source.gallery())), len(ids(source.queries()))) == (3, 2)


def test_tiny_imagenet_is_opened_from_its_archive(tmp_path):
    zip_of(tmp_path / "archive.zip", TINY)
    assert isinstance(open_dataset(params(Reader.tiny_imagenet), tmp_path, hold_out=True), TinyImagenet)


def test_files_left_out_by_their_names_are_counted(tmp_path: Path) -> None:
    for name in ("cats/1.jpg", "cats/2.HEIC", "cats/3.heic", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    source = ImageFolder(Folder(tmp_path), "", query_folder=None, hold_out=0, seed=0)
    assert source.ignored() == {".heic": 2, ".txt": 1}


def test_a_url_that_is_no_file_here_is_told_by_its_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dataset\.url: expected a folder or a zip archive, found nothing at .*/no"):
        fetch_dataset(params(Reader.image_folder, str(tmp_path / "no")), tmp_path / "raw", workers=1)


def test_a_folder_that_changed_since_the_download_is_refused(tmp_path):
    photos = folder_of(tmp_path / "photos", CATS_AND_DOGS)
    fetch_dataset(params(Reader.image_folder, str(photos)), tmp_path / "raw", workers=1)
    (photos / "cats" / "1.jpg").unlink()
    with pytest.raises(DataError, match=r"photos has changed since the stage download saw it; run `dvc repro` again"):
        open_dataset(params(Reader.image_folder), tmp_path / "raw", hold_out=False)


def test_an_archive_takes_the_place_of_a_folder_noted_before(tmp_path):
    photos = folder_of(tmp_path / "photos", CATS_AND_DOGS)
    fetch_dataset(params(Reader.image_folder, str(photos)), tmp_path / "raw", workers=1)
    fetch_dataset(
        params(Reader.image_folder, str(zip_of(tmp_path / "x.zip", {"birds/1.jpg": b""}))), tmp_path / "raw", 1
    )
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["archive.zip"]
