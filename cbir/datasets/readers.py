"""Open what `data/raw/` holds as the Source that `dataset.reader` names."""

from pathlib import Path

from cbir.core.errors import ConfigError, DataError
from cbir.core.files import hash_ids, read_json
from cbir.datasets.base import Source
from cbir.datasets.image_folder import ImageFolder, common_folder
from cbir.datasets.params import DatasetParams, Reader
from cbir.datasets.shapes import Shapes
from cbir.datasets.tiny_imagenet import TinyImagenet
from cbir.fetching.archives import ARCHIVE, FOLDER, Folder, Zip


def open_dataset(params: DatasetParams, raw: Path, hold_out: bool) -> Source:
    """The data set in `raw`.

    hold_out : whether queries may be taken out of a gallery that has none of its own (image_folder only).
    """
    if params.reader is not Reader.image_folder and (raw / FOLDER).exists():
        found = read_json(raw / FOLDER)["folder"]
        raise ConfigError(f"dataset.url: dataset={params.reader.value} needs a zip archive, found the folder {found}")
    if params.reader is Reader.shapes:
        return Shapes(raw / ARCHIVE)
    if params.reader is Reader.tiny_imagenet:
        return TinyImagenet(raw / ARCHIVE)
    per_class = params.queries_per_class if hold_out else 0
    if (raw / FOLDER).exists():
        noted = read_json(raw / FOLDER)
        folder = Folder(Path(noted["folder"]))
        if hash_ids(folder.fingerprint()) != noted["fingerprint"]:
            raise DataError(f"{folder.root} has changed since the stage download saw it; run `dvc repro` again")
        return ImageFolder(folder, "", params.query_folder, per_class, params.seed)
    archive = Zip(raw / ARCHIVE)
    return ImageFolder(archive, common_folder(archive.names), params.query_folder, per_class, params.seed)
