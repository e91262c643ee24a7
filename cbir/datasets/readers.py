"""`READERS` has an entry for each reader; `open_dataset` opens `data/raw/` with the one that `dataset.reader` names."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cbir.core.errors import ConfigError, DataError
from cbir.core.files import hash_ids, read_json
from cbir.datasets.base import Dataset
from cbir.datasets.image_folder import ImageFolder, common_folder
from cbir.datasets.params import DatasetParams, QueriesParams, QuerySource, Reader
from cbir.datasets.shapes import Shapes
from cbir.datasets.tiny_imagenet import TinyImagenet
from cbir.fetching.addresses import local_path
from cbir.fetching.archives import ARCHIVE, FOLDER, Zip
from cbir.fetching.folders import Folder
from cbir.fetching.views import is_image


@dataclass(frozen=True)
class Openers:
    """How a reader opens a data set: from a zip archive, and from a folder where it can (None: it needs an archive).

    Both take the files, the parameters, and the number of images of each class to hold out as queries.
    title : the name of the data set in a report; None where it is that of the user's folder or archive.
    """

    title: str | None
    archive: Callable[[Zip, DatasetParams, int], Dataset]
    folder: Callable[[Folder, DatasetParams, int], Dataset] | None = None


def _image_archive(archive: Zip, params: DatasetParams, held_out: int) -> Dataset:
    return ImageFolder(
        archive, common_folder(archive.names), params.query_folder, held_out, params.seed, params.gallery_folder
    )


def _image_folder(folder: Folder, params: DatasetParams, held_out: int) -> Dataset:
    return ImageFolder(folder, "", params.query_folder, held_out, params.seed, params.gallery_folder)


READERS: Mapping[Reader, Openers] = {
    Reader.shapes: Openers("drawn shapes", lambda archive, params, held_out: Shapes(archive)),
    Reader.tiny_imagenet: Openers("Tiny ImageNet", lambda archive, params, held_out: TinyImagenet(archive)),
    Reader.image_folder: Openers(None, _image_archive, _image_folder),
}


def title(params: DatasetParams) -> str:
    """The name of the data set as its owner knows it: that of the folder or archive, or the reader's own.

    >>> title(DatasetParams(reader=Reader.image_folder, url="https://host/x/holiday photos.zip?download=1"))
    'holiday photos'
    """
    known = READERS[params.reader].title
    if known is not None or params.url is None:
        return known or params.reader.value
    path = local_path(params.url)
    if path is None:
        path = Path(unquote(urlsplit(params.url).path))
    elif path.name in ("", ".."):
        path = path.resolve()
    return (path.stem if path.suffix.lower() == ".zip" else path.name) or params.reader.value


def open_dataset(params: DatasetParams, raw: Path, queries: QueriesParams) -> Dataset:
    """Open the data set in `raw`.

    Images are held out of its gallery only where they become queries.

    Raises ConfigError when the reader needs an archive and `raw` names a folder, DataError when that folder has changed
    since the stage `download`, and what the reader raises for files that it does not expect.
    """
    openers = READERS[params.reader]
    hold_out = params.hold_out and queries.source is QuerySource.dataset
    held_out = (params.queries_per_class or 0) if hold_out else 0
    if not (raw / FOLDER).exists():
        return openers.archive(Zip(raw / ARCHIVE), params, held_out)
    recorded = read_json(raw / FOLDER)
    if openers.folder is None:
        raise ConfigError(
            f"dataset.url: dataset={params.reader.value} needs a zip archive, found the folder {recorded['folder']}"
        )
    path = local_path(recorded["folder"])
    assert path is not None  # `fetch_dataset` records no other address
    folder = Folder(path)
    if hash_ids(folder.fingerprint(is_image)) != recorded["fingerprint"]:
        raise DataError(f"{folder.root} has changed since the stage download read it; run `dvc repro` again")
    return openers.folder(folder, params, held_out)
