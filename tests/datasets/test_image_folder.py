"""Folders and archives of images: labels from folder names, and queries held out by seed."""

import re
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from cbir.artifacts.left_out import LeftOut
from cbir.core.errors import ConfigError, DataError
from cbir.datasets.image_folder import ImageFolder, common_folder
from cbir.datasets.params import Reader
from cbir.datasets.readers import open_dataset
from cbir.fetching.archives import Zip
from cbir.fetching.folders import Folder
from tests.support.image_files import CATS_AND_DOGS, FROM_DATASET, dataset_params, folder_of, ids, labels, zip_of


def image_folder(path, query_folder=None, held_out=0, seed=0, gallery_folder=None):
    return ImageFolder(Folder(path), "", query_folder, held_out, seed, gallery_folder)


def test_the_first_folder_level_is_the_class(tmp_path):
    names = ["cats/1.jpg", "cats/young/small/2.PNG", "dogs/3.jpeg", "big_dogs/4.webp", "5.jpg"]
    dataset = image_folder(folder_of(tmp_path, dict.fromkeys(names, b"x")))
    assert labels(dataset.gallery()) == {
        "5.jpg": None, "big_dogs/4.webp": "big_dogs", "cats/1.jpg": "cats", "cats/young/small/2.PNG": "cats",
        "dogs/3.jpeg": "dogs",
    }  # fmt: skip
    assert ids(dataset.gallery()) == sorted(names)
    assert dataset.class_names() == {"big_dogs": "big dogs", "cats": "cats", "dogs": "dogs"}
    assert labels(dataset.query_images()).keys() == {"cats/1.jpg", "cats/young/small/2.PNG"}
    assert dataset.judgements([]) is None
    assert [image.read() for image in dataset.gallery()] == [b"x"] * 5


def test_files_that_are_not_images_are_ignored(tmp_path):
    names = ["cats/1.jpg", "cats/notes.txt", "cats/jpg", "labels.csv", "cats/1.jpg.bak", "cats/Thumbs.db"]
    assert ids(image_folder(folder_of(tmp_path, dict.fromkeys(names, b""))).gallery()) == ["cats/1.jpg"]


def test_images_of_the_query_folder_are_queries_not_gallery(tmp_path):
    names = ["cats/1.jpg", "queries/cats/2.jpg", "queries/dogs/deep/3.jpg", "queries/4.jpg", "queries_not/5.jpg"]
    for given in ("queries", "queries/", "/queries"):
        dataset = image_folder(folder_of(tmp_path, dict.fromkeys(names, b"")), query_folder=given, held_out=5)
        assert labels(dataset.gallery()) == {"queries_not/5.jpg": "queries_not", "cats/1.jpg": "cats"}
        assert labels(dataset.query_images()) == {
            "queries/4.jpg": None, "queries/cats/2.jpg": "cats", "queries/dogs/deep/3.jpg": "dogs",
        }  # fmt: skip


def test_a_missing_query_folder_is_named(tmp_path):
    folder_of(tmp_path, {"cats/1.jpg": b"", "queries/readme.txt": b""})
    for absent in ("query", "queries", "cats/1.jpg"):
        with pytest.raises(ConfigError, match=f"dataset.query_folder: expected a folder with images .* no {absent}"):
            image_folder(tmp_path, query_folder=absent)


def test_without_held_out_images_gallery_images_are_the_queries(tmp_path):
    names = ["cats/1.jpg", "dogs/1.jpg", "dogs/2.jpg", "birds/1.jpg", "birds/2.jpg", "birds/3.jpg"]
    dataset = image_folder(folder_of(tmp_path, dict.fromkeys(names, b"")))
    assert ids(dataset.gallery()) == sorted(names)
    assert ids(dataset.query_images()) == sorted(name for name in names if not name.startswith("cats"))


def test_held_out_images_of_each_class_leave_the_gallery(tmp_path):
    dataset = image_folder(folder_of(tmp_path, CATS_AND_DOGS), held_out=3)
    assert Counter(labels(dataset.query_images()).values()) == {"cats": 3, "dogs": 3}
    assert Counter(labels(dataset.gallery()).values()) == {"cats": 7, "dogs": 7}
    assert not set(ids(dataset.query_images())) & set(ids(dataset.gallery()))
    assert ids(dataset.query_images()) == sorted(ids(dataset.query_images()))


def test_at_most_half_of_a_class_is_held_out(tmp_path):
    names = ["cats/1.jpg", "dogs/1.jpg", "dogs/2.jpg", "birds/1.jpg", "birds/2.jpg", "birds/3.jpg", "root.jpg"]
    dataset = image_folder(folder_of(tmp_path, dict.fromkeys(names, b"")), held_out=2)
    assert Counter(labels(dataset.gallery()).values()) == {"cats": 1, "dogs": 1, "birds": 2, None: 1}
    assert Counter(labels(dataset.query_images()).values()) == {"dogs": 1, "birds": 1}


def test_held_out_images_depend_on_the_seed_not_the_listing(tmp_path):
    held_out = [
        ids(image_folder(folder_of(tmp_path / "a", CATS_AND_DOGS), held_out=3, seed=s).query_images()) for s in range(4)
    ]
    assert len({tuple(names) for names in held_out}) == 4
    backwards = dict(reversed(CATS_AND_DOGS.items()))
    assert ids(image_folder(folder_of(tmp_path / "b", backwards), held_out=3, seed=0).query_images()) == held_out[0]
    archive = Zip(zip_of(tmp_path / "c.zip", backwards))
    assert ids(ImageFolder(archive, "", None, 3, 0).query_images()) == held_out[0]


def test_held_out_images_stay_when_other_classes_are_added(tmp_path):
    before = set(ids(image_folder(folder_of(tmp_path, CATS_AND_DOGS), held_out=3).query_images()))
    after = image_folder(folder_of(tmp_path, {"birds/1.jpg": b"", "birds/2.jpg": b""}), held_out=3).query_images()
    assert {image_id for image_id in ids(after) if not image_id.startswith("birds")} == before


@pytest.mark.parametrize("members", [{}, {"a/readme.txt": b"", "b": b""}])
def test_a_folder_without_images_is_refused_naming_the_suffixes(tmp_path, members):
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
def test_a_folder_around_all_images_is_not_a_class(names, root):
    assert common_folder(names) == root


def test_an_archive_of_a_folder_reads_as_the_folder(tmp_path):
    members = {f"photos/{name}": body for name, body in CATS_AND_DOGS.items()}
    members |= {"photos/README.txt": b"", "__MACOSX/photos/cats/._0.jpg": b""}
    raw = zip_of(tmp_path / "raw" / "archive.zip", members).parent
    dataset = open_dataset(dataset_params(Reader.image_folder, hold_out=True, queries_per_class=3), raw, FROM_DATASET)
    same = image_folder(folder_of(tmp_path / "photos", CATS_AND_DOGS), held_out=3)
    assert labels(dataset.gallery()) == labels(same.gallery())
    assert labels(dataset.query_images()) == labels(same.query_images())
    dataset = open_dataset(dataset_params(Reader.image_folder, query_folder="dogs"), raw, FROM_DATASET)
    assert set(labels(dataset.gallery()).values()) == {"cats"}


def test_ignored_files_are_counted_by_suffix(tmp_path: Path) -> None:
    for name in ("cats/1.jpg", "cats/2.HEIC", "cats/3.heic", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    dataset = ImageFolder(Folder(tmp_path), "", query_folder=None, held_out=0, seed=0)
    assert dataset.ignored_files() == {".heic": 2, ".txt": 1}


SPLITS = [
    "train/cats/1.jpg",
    "train/cats/2.jpg",
    "train/dogs/3.jpg",
    "train/4.jpg",
    "val/cats/5.jpg",
    "test/cats/6.jpg",
    "7.jpg",
]


@pytest.mark.parametrize("form", ["{}", "{}/", "/{}", "./{}"])
def test_gallery_and_queries_may_have_folders_of_their_own(tmp_path, form):
    folder = folder_of(tmp_path, dict.fromkeys(SPLITS, b""))
    dataset = image_folder(folder, query_folder=form.format("val"), gallery_folder=form.format("train"))
    assert labels(dataset.gallery()) == {
        "train/4.jpg": None, "train/cats/1.jpg": "cats", "train/cats/2.jpg": "cats", "train/dogs/3.jpg": "dogs",
    }  # fmt: skip
    assert labels(dataset.query_images()) == {"val/cats/5.jpg": "cats"}
    assert dataset.class_names() == {"cats": "cats", "dogs": "dogs"}
    assert dataset.left_out() == [LeftOut("7.jpg", "outside", 1), LeftOut("test", "outside", 1)]
    assert dataset.notes() == []


def test_queries_are_held_out_of_the_gallery_folder(tmp_path):
    folder = folder_of(tmp_path, dict.fromkeys(SPLITS, b""))
    dataset = image_folder(folder, gallery_folder="train", held_out=1)
    assert len(ids(dataset.query_images())) == 1
    assert all(name.startswith("train/") for name in ids(dataset.query_images()) + ids(dataset.gallery()))


def test_the_query_folder_may_lie_in_the_gallery_folder(tmp_path):
    folder = folder_of(tmp_path, dict.fromkeys(["all/cats/1.jpg", "all/queries/cats/2.jpg"], b""))
    dataset = image_folder(folder, query_folder="all/queries", gallery_folder="all")
    assert labels(dataset.gallery()) == {"all/cats/1.jpg": "cats"}
    assert labels(dataset.query_images()) == {"all/queries/cats/2.jpg": "cats"}
    with pytest.raises(ConfigError, match=r"expected two folders, found all/ twice"):
        image_folder(folder, query_folder="all", gallery_folder="all/")


def test_folders_of_an_archive_may_be_named(tmp_path):
    raw = zip_of(tmp_path / "raw" / "archive.zip", {f"imagenet/{name}": b"" for name in SPLITS[:6]}).parent
    params = dataset_params(Reader.image_folder, gallery_folder="train", query_folder="val")
    dataset = open_dataset(params, raw, FROM_DATASET)
    assert set(labels(dataset.gallery()).values()) == {"cats", "dogs", None}
    assert ids(dataset.query_images()) == ["val/cats/5.jpg"]


def test_a_missing_gallery_folder_is_named_with_those_there(tmp_path):
    folder = folder_of(tmp_path, dict.fromkeys(SPLITS, b""))
    with pytest.raises(
        ConfigError, match=r"dataset\.gallery_folder: .* found no trian; its folders are test, train and val"
    ):
        image_folder(folder, gallery_folder="trian")


def test_a_folder_may_be_given_in_either_form_of_unicode(tmp_path):
    name = unicodedata.normalize("NFD", "größe")
    folder = folder_of(tmp_path, {f"{name}/cats/1.jpg": b"", "val/cats/2.jpg": b""})
    dataset = image_folder(folder, gallery_folder=unicodedata.normalize("NFC", name), query_folder="val")
    assert labels(dataset.gallery()) == {f"{name}/cats/1.jpg": "cats"}


@pytest.mark.parametrize(
    ("names", "note"),
    [
        (SPLITS, "`test`, `train` and `val` are classes here, but also the usual names of parts of a data set: .*"),
        (["Train/cats/1.jpg", "Train/cats/2.jpg"], "`Train` is a class here, .* set `dataset.gallery_folder` and .*"),
    ],
)
def test_suspicious_classes_are_noted(tmp_path, names, note):
    notes = image_folder(folder_of(tmp_path, dict.fromkeys(names, b"")), held_out=1).notes()
    assert any(re.fullmatch(note, text) for text in notes), notes


@pytest.mark.parametrize(
    "names",
    [
        ["a/1.jpg", "a/2.jpg", "trains/1.jpg", "trains/2.jpg"],
        ["1.jpg", "2.jpg"],
        [f"{name}/{n}.jpg" for name in ("car", "plane", "train") for n in (1, 2)],
    ],
)
def test_usual_classes_are_not_noted(tmp_path, names):
    assert image_folder(folder_of(tmp_path, dict.fromkeys(names, b"")), held_out=1).notes() == []
