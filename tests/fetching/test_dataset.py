"""fetch_dataset: an archive is copied and checked, a folder is recorded, and what cannot be fetched is refused."""

from hashlib import sha256
from pathlib import Path

import pytest

from cbir.core.errors import ConfigError, FetchError
from cbir.datasets.params import Reader
from cbir.datasets.readers import open_dataset
from cbir.fetching.dataset import fetch_dataset
from tests.support.image_files import CATS_AND_DOGS, FROM_FILE, dataset_params, folder_of, ids, zip_of


@pytest.mark.parametrize("as_uri", [False, True])
def test_an_archive_with_the_expected_hash_is_copied(tmp_path, as_uri):
    path = zip_of(tmp_path / "my photos.zip", CATS_AND_DOGS)
    url, digest = path.as_uri() if as_uri else str(path), sha256(path.read_bytes()).hexdigest()
    fetch_dataset(dataset_params(Reader.image_folder, url, sha256=digest), tmp_path / "raw", workers=1)
    assert (tmp_path / "raw" / "archive.zip").read_bytes() == path.read_bytes()
    assert len(ids(open_dataset(dataset_params(Reader.image_folder), tmp_path / "raw", FROM_FILE).gallery())) == 20


def test_an_archive_with_another_hash_is_refused_and_removed(tmp_path):
    path = zip_of(tmp_path / "photos.zip", CATS_AND_DOGS)
    with pytest.raises(FetchError, match=r"photos\.zip: .*sha256"):
        fetch_dataset(dataset_params(Reader.image_folder, str(path), sha256="0" * 64), tmp_path / "raw", workers=1)
    assert not (tmp_path / "raw" / "archive.zip").exists()


@pytest.mark.parametrize("reader", list(Reader))
def test_a_data_set_without_url_is_refused(tmp_path, reader):
    with pytest.raises(ConfigError, match=r"dataset\.url: expected the address of an archive or a folder, found null"):
        fetch_dataset(dataset_params(reader), tmp_path / "raw", workers=1)


def test_drawing_needs_a_number_of_query_images(tmp_path):
    with pytest.raises(ConfigError, match=r"dataset\.draw_query_images: expected a number .*, found null"):
        fetch_dataset(dataset_params(Reader.shapes, draw_gallery_images=2), tmp_path, workers=1)


def test_an_address_and_a_number_of_drawings_exclude_each_other(tmp_path):
    with pytest.raises(ConfigError, match=r"url, draw_gallery_images: expected an address or a number .*, found both"):
        dataset_params(Reader.image_folder, url=str(tmp_path), draw_gallery_images=2, draw_query_images=1)


def test_a_url_without_a_file_names_its_parameter(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dataset\.url: expected a folder or a zip archive, found nothing at .*/no"):
        fetch_dataset(dataset_params(Reader.image_folder, str(tmp_path / "no")), tmp_path / "raw", workers=1)


def test_an_archive_replaces_a_folder_recorded_before(tmp_path):
    photos = folder_of(tmp_path / "photos", CATS_AND_DOGS)
    fetch_dataset(dataset_params(Reader.image_folder, str(photos)), tmp_path / "raw", workers=1)
    fetch_dataset(
        dataset_params(Reader.image_folder, str(zip_of(tmp_path / "x.zip", {"birds/1.jpg": b""}))), tmp_path / "raw", 1
    )
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["archive.zip"]
