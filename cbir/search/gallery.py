"""The packed gallery: the ids, labels and bytes of its images."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cbir.artifacts.images import read_image, read_shards, shard_path
from cbir.artifacts.paths import DataPaths
from cbir.artifacts.vectors import Positions
from cbir.core.errors import ConfigError, DataError, UndecodableImage
from cbir.core.files import read_json
from cbir.core.text import nearest_three, nfc
from cbir.datasets.decoding import encode_for_packing
from cbir.evaluation.classes import Classes
from cbir.fetching.archives import FOLDER
from cbir.search.results import Hit


@dataclass(frozen=True)
class PackedGallery:
    """The gallery as the stage preprocess packed it.

    ids, labels, names, sources : of all images, by position; ids ascend.  content_sha256 : hash of the images, as in passports.
    first_positions : (n_shards + 1,) the position of the first image in each shard, then the number of images.
    limits : max_pixels and max_side_px of the packing.  files : the folder of the image files; None for those of an archive.
    """

    paths: DataPaths
    ids: pa.Array
    labels: pa.Array
    names: pa.Array
    sources: pa.Array
    content_sha256: str
    first_positions: Positions
    limits: Mapping[str, Any]
    files: Path | None

    @classmethod
    def open(cls, paths: DataPaths) -> "PackedGallery":
        """Read everything but the images.  Raises DataError if there are none."""
        limits = read_json(paths.summary).get("limits", {})
        folder = paths.images("gallery")
        shards = [table for _, table in read_shards(folder, ["image_id", "label", "label_name", "source", "sha256"])]
        first_positions = np.cumsum([0, *(table.num_rows for table in shards)])
        if first_positions[-1] == 0:
            raise DataError(f"{folder} holds no images: run `dvc repro`")
        table = pa.concat_tables(shards)
        ids, labels, names, sources, digests = (table[name].combine_chunks() for name in table.column_names)
        content = sha256("".join(digests.to_pylist()).encode()).hexdigest()
        return cls(paths, ids, labels, names, sources, content, first_positions, limits, _folder_of_files(paths))

    @property
    def folder(self) -> Path:
        """The folder of the shards."""
        return self.paths.images("gallery")

    @cached_property
    def classes(self) -> Classes:
        """The classes of the images."""
        return Classes.of(self.labels, self.names)

    def __contains__(self, image_id: object) -> bool:
        return self._find(image_id) is not None

    def position(self, image_id: str) -> int:
        """The position of an image.  Raises ConfigError for an unknown image_id."""
        position = self._find(image_id)
        if position is None:
            raise ConfigError(f"the gallery has no image {image_id!r}; `cbir search --json` prints the ids of images")
        return position

    def _find(self, image_id: object) -> int | None:
        if not isinstance(image_id, str):
            return None
        position = bisect_left(range(len(self.ids)), image_id, key=lambda row: str(self.ids[row]))
        return position if position < len(self.ids) and str(self.ids[position]) == image_id else None

    def of_classes(self, labels: Sequence[str]) -> npt.NDArray[np.bool_]:
        """(n_gallery,) whether an image belongs to one of the classes, given by label or by name.

        Raises ConfigError for an unknown class, or if no image has a label.
        """
        classes = self.classes
        if isinstance(labels, str) or not isinstance(labels, Iterable):
            raise ConfigError(f"labels: expected a list of classes, found {labels!r}")
        given = list(labels)
        if not classes.labels:
            raise ConfigError("class: the gallery has no classes: none of its images has a label")
        known = {*classes.labels, *classes.names}
        for label in given:
            if not isinstance(label, str) or nfc(label) not in known:
                raise ConfigError(f"class: the gallery has no {label!r}; {nearest_three(str(label), known)}")
        given = [nfc(label) for label in given]
        pairs = zip(classes.labels, classes.names, strict=True)
        chosen = [label for label, name in pairs if label in given or name in given]
        belongs = pc.is_in(self.labels, value_set=pa.array(chosen, pa.string()))
        among: npt.NDArray[np.bool_] = belongs.to_numpy(zero_copy_only=False)
        return among

    def image_bytes(self, position: int) -> bytes:
        """The packed bytes of an image.  Raises DataError if the gallery has changed since it was opened."""
        shard = int(np.searchsorted(self.first_positions, position, side="right")) - 1
        row, path = position - int(self.first_positions[shard]), shard_path(self.folder, shard)
        stored = read_image(path, row)
        if stored is None or stored[0] != str(self.ids[position]):
            raise DataError(f"{path}: expected the gallery that was opened, found another one: open it again")
        return stored[1]

    def hit(self, rank: int, score: float, position: int) -> Hit:
        """The hit for the image at this position."""
        label, name = self.labels[position].as_py(), self.names[position].as_py()
        source = str(self.sources[position])
        path = None if self.files is None else self.files / source
        on_disk = str(path) if path is not None and path.is_file() else None
        return Hit(rank, float(score), label, name or label, self.ids[position].as_py(), source, on_disk)

    def pack(self, image: bytes, name: str) -> bytes:
        """Pack the bytes of an image file exactly as the gallery images were packed.

        name : what messages call the image.  Raises DataError if the image cannot be decoded.
        """
        try:
            return encode_for_packing(image, self.limits["max_pixels"], self.limits["max_side_px"]).data
        except KeyError as error:
            raise DataError(f"{self.paths.summary} is of an older version: run `dvc repro preprocess`") from error
        except UndecodableImage as error:
            raise DataError(f"{name} cannot be decoded: {error}") from error


def _folder_of_files(paths: DataPaths) -> Path | None:
    """The folder of the data set, as the run recorded it: a relative one is beside the folder of the artifacts."""
    record = paths.raw / FOLDER
    if not record.is_file():
        return None
    return paths.root.absolute().parent / Path(read_json(record)["folder"]).expanduser()
