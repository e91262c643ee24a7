"""Fetch a data set into `data/raw/`: copy its archive, record its folder, or draw it."""

from pathlib import Path

from cbir.core.errors import ConfigError, FetchError
from cbir.core.files import fresh_folder, hash_ids, write_json
from cbir.drawing.archive import draw_archive
from cbir.fetching.addresses import local_path
from cbir.fetching.archives import ARCHIVE, FOLDER
from cbir.fetching.fetch import FileTooLargeError, fetch
from cbir.fetching.folders import Folder
from cbir.fetching.params import SourceParams
from cbir.fetching.views import is_image


def fetch_dataset(params: SourceParams, raw: Path, workers: int) -> None:
    """Write `archive.zip` into `raw`, or `folder.json` if the data set is a folder on this machine.

    workers : processes that draw images.
    Raises ConfigError if the parameters name no data set; DataError if the folder cannot be read; FetchError if the archive
    cannot be fetched.
    """
    fresh_folder(raw)
    if params.draw_gallery_images is not None:
        if params.draw_query_images is None:
            raise ConfigError("dataset.draw_query_images: expected a number of images to draw, found null")
        images = (params.draw_gallery_images, params.draw_query_images)
        draw_archive(raw / ARCHIVE, params.draw_seed or 0, *images, workers)
        return
    if params.url is None:
        raise ConfigError("dataset.url: expected the address of an archive or a folder, found null")
    folder = local_path(params.url)
    if folder is not None and folder.is_dir():
        # as given, not resolved: the repository may be moved, or a link point elsewhere, without another `download`
        write_json(raw / FOLDER, {"folder": params.url, "fingerprint": hash_ids(Folder(folder).fingerprint(is_image))})
    elif folder is not None and not folder.exists():
        raise ConfigError(f"dataset.url: expected a folder or a zip archive, found nothing at {folder.absolute()}")
    else:
        try:
            fetch(params.url, raw / ARCHIVE, sha256=params.sha256, md5=params.md5, max_bytes=params.max_bytes)
        except FileTooLargeError as error:
            raise FetchError(f"{error}, or set dataset.max_bytes") from error
