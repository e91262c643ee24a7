"""Bring a data set into `data/raw/`: fetch its archive, note its folder, or draw it."""

from pathlib import Path

from cbir.artifacts.files import fresh_folder, hash_ids, write_json
from cbir.config import DatasetParams, Reader
from cbir.datasets.base import ARCHIVE, FOLDER
from cbir.datasets.files import Folder
from cbir.datasets.shapes import draw_archive
from cbir.errors import ConfigError
from cbir.fetch import fetch
from cbir.local_path import local_path


def fetch_dataset(params: DatasetParams, raw: Path, workers: int) -> None:
    """Leave `archive.zip` in `raw`, or `folder.json` where the data set is a folder on this machine."""
    fresh_folder(raw)
    if params.reader is Reader.shapes:
        draw_archive(
            raw / ARCHIVE,
            params.draw_seed or 0,
            _drawn("draw_gallery_images", params.draw_gallery_images),
            _drawn("draw_query_images", params.draw_query_images),
            workers,
        )
        return
    if params.url is None:
        raise ConfigError(f"dataset.url: dataset={params.reader.value} needs the address of its archive or folder")
    folder = local_path(params.url)
    if folder is not None and folder.is_dir():
        if params.reader is not Reader.image_folder:
            raise ConfigError(
                f"dataset.url: dataset={params.reader.value} needs a zip archive, found the folder {folder}"
            )
        files = Folder(folder.resolve())
        write_json(raw / FOLDER, {"folder": files.root, "fingerprint": hash_ids(files.fingerprint())})
    elif folder is not None and not folder.exists():
        raise ConfigError(f"dataset.url: expected a folder or a zip archive, found nothing at {folder.absolute()}")
    else:
        fetch(params.url, raw / ARCHIVE, sha256=params.sha256, md5=params.md5)


def _drawn(name: str, number: int | None) -> int:
    if number is None:
        raise ConfigError(f"dataset.{name}: dataset=shapes needs a number, found null")
    return number
