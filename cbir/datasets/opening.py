"""Open what `data/raw/` holds as the Source that `dataset.reader` names."""

from pathlib import Path

from cbir.artifacts.files import read_json
from cbir.config import DatasetParams, Reader
from cbir.datasets.base import ARCHIVE, FOLDER, Source
from cbir.datasets.files import Folder, Zip
from cbir.datasets.image_folder import ImageFolder, common_folder
from cbir.datasets.shapes import Shapes
from cbir.datasets.tiny_imagenet import TinyImagenet


def open_dataset(params: DatasetParams, raw: Path, hold_out: bool) -> Source:
    """The data set in `raw`.

    hold_out : whether queries may be taken out of a gallery that has none of its own (image_folder only).
    """
    if params.reader is Reader.shapes:
        return Shapes(raw / ARCHIVE)
    if params.reader is Reader.tiny_imagenet:
        return TinyImagenet(raw / ARCHIVE)
    per_class = params.queries_per_class if hold_out else 0
    if (raw / FOLDER).exists():
        folder = Folder(Path(read_json(raw / FOLDER)["folder"]))
        return ImageFolder(folder, "", params.query_folder, per_class, params.seed)
    archive = Zip(raw / ARCHIVE)
    return ImageFolder(archive, common_folder(archive.names), params.query_folder, per_class, params.seed)
