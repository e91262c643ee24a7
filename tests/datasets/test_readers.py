"""open_dataset: each reader opens what the stage download left in data/raw/."""

import os
import shutil
from pathlib import Path

import pytest

from cbir.core.errors import ConfigError, DataError
from cbir.core.files import read_json
from cbir.datasets.local_state import local_state
from cbir.datasets.params import Reader
from cbir.datasets.readers import READERS, open_dataset, title
from cbir.datasets.shapes import Shapes
from cbir.datasets.tiny_imagenet import TinyImagenet
from cbir.fetching.dataset import fetch_dataset
from cbir.fetching.views import is_image
from tests.support.image_files import (
    CATS_AND_DOGS,
    FROM_DATASET,
    FROM_FILE,
    TINY_IMAGENET,
    dataset_params,
    folder_of,
    ids,
    zip_of,
)


def test_each_reader_has_an_entry():
    assert set(READERS) == set(Reader)


def test_a_folder_is_recorded_not_copied_and_opened_in_place(tmp_path, monkeypatch):
    folder_of(tmp_path / "photos", CATS_AND_DOGS)
    monkeypatch.chdir(tmp_path)
    fetch_dataset(dataset_params(Reader.image_folder, "photos"), tmp_path / "raw", workers=1)
    recorded = read_json(tmp_path / "raw" / "folder.json")
    assert recorded["folder"] == "photos"
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["folder.json"]
    hold_out = dataset_params(Reader.image_folder, hold_out=True, queries_per_class=2)
    dataset = open_dataset(hold_out, tmp_path / "raw", FROM_DATASET)
    assert (len(ids(dataset.gallery())), len(ids(dataset.query_images()))) == (16, 4)
    for params, queries in ((hold_out, FROM_FILE), (dataset_params(Reader.image_folder), FROM_DATASET)):
        assert len(ids(open_dataset(params, tmp_path / "raw", queries).gallery())) == 20

    folder_of(tmp_path / "photos", {"cats/0.jpg": b"changed"})
    fetch_dataset(dataset_params(Reader.image_folder, str(tmp_path / "photos")), tmp_path / "raw", workers=1)
    assert read_json(tmp_path / "raw" / "folder.json")["fingerprint"] != recorded["fingerprint"]


def test_a_folder_that_disappeared_is_named(tmp_path):
    folder_of(tmp_path / "photos", CATS_AND_DOGS)
    fetch_dataset(dataset_params(Reader.image_folder, str(tmp_path / "photos")), tmp_path / "raw", workers=1)
    shutil.rmtree(tmp_path / "photos")
    with pytest.raises(DataError, match="photos: expected a folder of images, found nothing"):
        open_dataset(dataset_params(Reader.image_folder), tmp_path / "raw", FROM_DATASET)


@pytest.mark.parametrize("reader", [Reader.tiny_imagenet, Reader.shapes])
def test_a_reader_of_archives_refuses_a_folder(tmp_path, reader):
    photos = folder_of(tmp_path / "photos", CATS_AND_DOGS)
    fetch_dataset(dataset_params(reader, str(photos)), tmp_path / "raw", workers=1)
    with pytest.raises(ConfigError, match=f"dataset.url: dataset={reader.value} needs a zip .* the folder {photos}"):
        open_dataset(dataset_params(reader), tmp_path / "raw", FROM_DATASET)


def test_shapes_are_drawn_and_opened(tmp_path):
    fetch_dataset(
        dataset_params(Reader.shapes, draw_seed=5, draw_gallery_images=3, draw_query_images=2), tmp_path, workers=1
    )
    dataset = open_dataset(dataset_params(Reader.shapes), tmp_path, FROM_DATASET)
    assert isinstance(dataset, Shapes)
    assert (len(ids(dataset.gallery())), len(ids(dataset.query_images()))) == (3, 2)


def test_tiny_imagenet_is_opened_from_its_archive(tmp_path):
    zip_of(tmp_path / "archive.zip", TINY_IMAGENET)
    assert isinstance(open_dataset(dataset_params(Reader.tiny_imagenet), tmp_path, FROM_DATASET), TinyImagenet)


def test_a_folder_that_changed_since_the_download_is_refused(tmp_path):
    photos = folder_of(tmp_path / "photos", CATS_AND_DOGS)
    fetch_dataset(dataset_params(Reader.image_folder, str(photos)), tmp_path / "raw", workers=1)
    (photos / "cats" / "1.jpg").unlink()
    with pytest.raises(DataError, match=r"photos has changed since the stage download read it; run `dvc repro` again"):
        open_dataset(dataset_params(Reader.image_folder), tmp_path / "raw", FROM_FILE)


@pytest.mark.parametrize("as_uri", [False, True])
def test_a_folder_is_found_after_its_link_points_elsewhere(tmp_path, as_uri):
    for disk in ("old", "new"):
        folder_of(tmp_path / disk, CATS_AND_DOGS)
        for path in (tmp_path / disk).rglob("*"):
            os.utime(path, (10**9, 10**9))
    link = tmp_path / "photos"
    link.symlink_to("old")
    url = link.as_uri() if as_uri else str(link)
    fetch_dataset(dataset_params(Reader.image_folder, url), tmp_path / "raw", workers=1)
    link.unlink()
    link.symlink_to("new")
    shutil.rmtree(tmp_path / "old")
    assert len(ids(open_dataset(dataset_params(Reader.image_folder), tmp_path / "raw", FROM_FILE).gallery())) == 20


def test_a_folder_in_the_repository_is_found_after_both_moved(tmp_path, monkeypatch):
    folder_of(tmp_path / "repository" / "photos", CATS_AND_DOGS)
    monkeypatch.chdir(tmp_path / "repository")
    fetch_dataset(dataset_params(Reader.image_folder, "photos"), Path("data/raw"), workers=1)
    (tmp_path / "repository").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    assert len(ids(open_dataset(dataset_params(Reader.image_folder), Path("data/raw"), FROM_FILE).gallery())) == 20


def test_files_that_are_no_images_may_change_at_any_time(tmp_path):
    photos = folder_of(tmp_path / "photos", {**CATS_AND_DOGS, "catalogue.db": b"1"})
    fetch_dataset(dataset_params(Reader.image_folder, str(photos)), tmp_path / "raw", workers=1)
    before = local_state([str(photos)], is_content=is_image)
    (photos / "catalogue.db").write_bytes(b"22")
    assert local_state([str(photos)], is_content=is_image) == before
    assert len(ids(open_dataset(dataset_params(Reader.image_folder), tmp_path / "raw", FROM_FILE).gallery())) == 20
    (photos / "new.db").write_bytes(b"")  # counted in the report
    assert local_state([str(photos)], is_content=is_image) != before


@pytest.mark.parametrize(
    ("reader", "url", "expected"),
    [
        (Reader.image_folder, "/data/My photos", "My photos"),
        (Reader.image_folder, "/data/photos.v2/", "photos.v2"),
        (Reader.image_folder, "photos.ZIP", "photos"),
        (Reader.image_folder, "file:///data/my%20photos.zip", "my photos"),
        (Reader.image_folder, "s3://bucket/cats/train.zip", "train"),
        (Reader.image_folder, "https://host/", "image_folder"),
        (Reader.tiny_imagenet, "/data/mini.zip", "Tiny ImageNet"),
        (Reader.shapes, None, "drawn shapes"),
    ],
)
def test_a_data_set_is_called_as_its_owner_knows_it(reader, url, expected):
    assert title(dataset_params(reader, url)) == expected


def test_the_folder_one_is_in_is_called_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path / "photos")
    assert [title(dataset_params(Reader.image_folder, url)) for url in (".", "..")] == ["photos", tmp_path.name]
