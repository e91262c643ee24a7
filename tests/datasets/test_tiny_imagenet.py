"""Tiny ImageNet: labels and names as its files give them; incomplete archives are refused."""

import io
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from cbir.core.errors import DataError
from cbir.datasets.tiny_imagenet import TinyImagenet
from cbir.fetching.archives import Zip
from tests.support.image_files import TINY_IMAGENET, jpeg, labels, zip_of

MINI = Path(__file__).parents[3] / "shared" / "data" / "tiny-imagenet-200-mini.zip"


def tiny(path, **changes):
    """The small archive with members replaced, or left out where None; names without the top folder."""
    members = {**TINY_IMAGENET, **{f"tiny/{name}": body for name, body in changes.pop("members", {}).items()}}
    return TinyImagenet(Zip(zip_of(path / "x.zip", {name: body for name, body in members.items() if body is not None})))


def test_gallery_is_train_and_queries_are_val_with_annotated_labels(tmp_path):
    dataset = tiny(tmp_path)
    assert labels(dataset.gallery()) == {
        "train/n01/images/n01_0.JPEG": "n01",
        "train/n01/images/n01_1.JPEG": "n01",
        "train/n02/images/n02_0.JPEG": "n02",
    }
    assert labels(dataset.query_images()) == {"val/images/val_0.JPEG": "n02", "val/images/val_1.JPEG": "n01"}
    assert [image.label_name for image in dataset.query_images()] == ["bull frog", "goldfish, Carassius auratus"]
    assert dataset.class_names() == {"n01": "goldfish", "n02": "bull frog"}  # of synonyms the first, in order of label
    assert dataset.judgements([]) is None
    grey = Image.open(io.BytesIO(next(image for image in dataset.query_images() if image.label == "n01").read()))
    assert grey.mode == "L"


def test_the_archive_needs_no_top_folder(tmp_path):
    members = {name.removeprefix("tiny/"): body for name, body in TINY_IMAGENET.items()}
    bare = TinyImagenet(Zip(zip_of(tmp_path / "x.zip", members)))
    assert labels(bare.query_images()) == labels(tiny(tmp_path / "other").query_images())


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
def test_an_incomplete_tiny_imagenet_is_refused(tmp_path, members, message):
    with pytest.raises(DataError, match=message):
        tiny(tmp_path, members=members)


def test_a_val_image_without_annotation_is_refused(tmp_path):
    dataset = tiny(tmp_path, members={"val/images/val_2.JPEG": jpeg()})
    with pytest.raises(DataError, match=r"val/images/val_2.JPEG has no line in val/val_annotations.txt"):
        list(dataset.query_images())


def test_a_train_folder_of_an_unknown_class_is_refused(tmp_path):
    dataset = tiny(tmp_path, members={"train/n77/images/n77_0.JPEG": jpeg()})
    with pytest.raises(DataError, match=r"train/n77/images/n77_0.JPEG: class n77 is not in wnids.txt"):
        list(dataset.gallery())


@pytest.mark.skipif(not MINI.exists(), reason=f"needs the real images at {MINI}")
def test_all_labels_of_the_real_images_are_correct():
    dataset = TinyImagenet(Zip(MINI))
    gallery, queries = list(dataset.gallery()), list(dataset.query_images())
    assert (len(gallery), len(queries), len(dataset.class_names())) == (10_000, 2_000, 200)
    with zipfile.ZipFile(MINI) as archive:
        listing = archive.namelist()
        rows = [line.split() for line in archive.read("tiny-imagenet-200/val/val_annotations.txt").decode().split("\n")]
        words = dict(
            line.split("\t") for line in archive.read("tiny-imagenet-200/words.txt").decode().split("\n") if line
        )
    assert {image.source.rsplit("/", 1)[1]: image.label for image in queries} == {row[0]: row[1] for row in rows if row}
    assert Counter(image.label for image in queries) == dict.fromkeys(dataset.class_names(), 10)
    assert Counter(image.label for image in gallery) == dict.fromkeys(dataset.class_names(), 50)
    assert all(image.image_id.split("/")[-1].startswith(f"{image.label}_") for image in gallery)
    assert {f"tiny-imagenet-200/{image.image_id}" for image in gallery + queries} == {
        name for name in listing if name.endswith(".JPEG") and "/test/" not in name
    }
    assert dataset.class_names() == {wnid: words[wnid].split(",")[0] for wnid in sorted(dataset.class_names())}
    assert dataset.class_names()["n02124075"] == "Egyptian cat"
    assert all(image.label_name == words[image.label] for image in gallery)
    modes = {Image.open(io.BytesIO(image.read())).mode for image in gallery[::50]}
    assert modes <= {"RGB", "L"}
