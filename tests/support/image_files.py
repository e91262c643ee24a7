"""Small image files, folders and zip archives of them, and parameters of data sets."""

import io
import zipfile

import numpy as np
from PIL import Image

from cbir.datasets.params import DatasetParams, QueriesParams, QuerySource

CATS_AND_DOGS = {f"{label}/{number}.jpg": b"" for label in ("cats", "dogs") for number in range(10)}


def jpeg(colour="red", side=8, mode="RGB"):
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), colour).convert(mode).save(buffer, "JPEG")
    return buffer.getvalue()


def noise_jpeg(seed, side=16):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def zip_of(path, members, compression=zipfile.ZIP_STORED):
    """Write a zip archive.  members : name or ZipInfo -> bytes or text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return path


def folder_of(path, members):
    for name, body in members.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)
    return path


def ids(images):
    return [image.image_id for image in images]


def labels(images):
    return {image.image_id: image.label for image in images}


FROM_DATASET = QueriesParams(QuerySource.dataset, None)
FROM_FILE = QueriesParams(QuerySource.file, "queries.csv")


def dataset_params(reader, url=None, **changes):
    nulls = "sha256 md5 gallery_folder query_folder draw_seed draw_gallery_images draw_query_images gallery_per_class"
    values = dict.fromkeys(nulls.split())
    values |= {"seed": 0, "queries_per_class": 1, "max_side_px": 512, "max_pixels": 10**7, "max_bad_fraction": 0.0}
    return DatasetParams(reader=reader, url=url, **{**values, **changes})


TINY_IMAGENET = {  # an archive of two classes
    "tiny/wnids.txt": "n02\nn01\n",
    "tiny/words.txt": "n01\tgoldfish, Carassius auratus\nn02\tbull frog\nn03\tnot among the classes\n",
    "tiny/train/n01/n01_boxes.txt": "n01_0.JPEG\t0\t0\t1\t1\n",
    "tiny/train/n01/images/n01_0.JPEG": jpeg("gold"),
    "tiny/train/n01/images/n01_1.JPEG": jpeg("gold", mode="L"),
    "tiny/train/n02/images/n02_0.JPEG": jpeg("green"),
    "tiny/val/val_annotations.txt": "val_0.JPEG\tn02\t0\t0\t9\t9\nval_1.JPEG\tn01\t0\t0\t9\t9\n",
    "tiny/val/images/val_0.JPEG": jpeg("green"),
    "tiny/val/images/val_1.JPEG": jpeg("gold", mode="L"),
    "tiny/test/images/test_0.JPEG": jpeg("blue"),
}
