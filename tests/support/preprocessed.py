"""Preprocess small data sets as the stages do, and read what was written."""

import dataclasses
from hashlib import sha256

from cbir.artifacts.images import Quarantined, read_columns, read_quarantine
from cbir.artifacts.paths import DataPaths
from cbir.artifacts.queries import read_qrels, read_query_list
from cbir.core.files import read_json
from cbir.datasets.packing import Limits
from cbir.datasets.params import DatasetParams, QueriesParams, QuerySource, Reader
from cbir.datasets.preprocess import preprocess
from cbir.datasets.readers import open_dataset
from cbir.fetching.dataset import fetch_dataset
from tests.support.image_files import folder_of, noise_jpeg

PETS = {f"{label}/{n}.jpg": noise_jpeg(10 * k + n) for k, label in enumerate(("big_dogs", "cats")) for n in range(6)}
BROKEN = {"cats/broken.jpg": noise_jpeg(0)[:200], "cats/empty.png": b"", "big_dogs/page.gif": b"<html>" * 9}
LISTED = """query_id,task,image,text,label
own,cbir,files/1.jpg,,cats
gallery,cbir,cats/0.jpg,,
again,cbir,cats/0.jpg,,cats
words,tbir,,a sleeping cat,cats
"""
GRADED = "own 0 cats/1.jpg 2\nown 0 big_dogs/1.jpg 0\nwords 0 cats/1.jpg 1\n"


def params(**changes):
    values = {field.name: None for field in dataclasses.fields(DatasetParams)}
    values |= {"reader": Reader.image_folder, "seed": 0, "queries_per_class": 2, "max_bad_fraction": 0.0}
    return DatasetParams(**{**values, "max_side_px": 512, "max_pixels": 10**6, **changes})


def query_params(**changes):
    values = {
        "source": QuerySource.dataset,
        "path": None,
        "qrels": None,
        "templates": [],
        "captions": False,
        "prompt_sets": [],
    }
    return QueriesParams(**{**values, **changes})


def prepared(tmp_path, url, parameters=None, queries=None, workers=2, out="out"):
    """Download and preprocess as the stages do; return the folder with `images` and `queries`."""
    parameters, queries = parameters or params(), queries or query_params()
    raw = tmp_path / f"{out}-raw"
    fetch_dataset(dataclasses.replace(parameters, url=url and str(url)), raw, workers=1)
    opened = open_dataset(parameters, raw, queries)
    limits = Limits(parameters.max_pixels, parameters.max_side_px)
    preprocess(opened, DataPaths(tmp_path / out), parameters, queries, limits, workers)
    return tmp_path / out


def gallery_ids(out, split="gallery"):
    return read_columns(out / "images" / split, ["image_id"])["image_id"].to_pylist()


def query_rows(out):
    return read_query_list(out / "queries" / "query_list.parquet").to_pylist()


def qrels_rows(out):
    return [tuple(row.values()) for row in read_qrels(out / "queries" / "qrels.parquet").to_pylist()]


def quarantine_rows(out):
    return [Quarantined(**row) for row in read_quarantine(out / "images" / "quarantine.parquet").to_pylist()]


def summary(out):
    return read_json(out / "images" / "summary.json")


def tree(folder):
    """Name -> hash of each file below a folder."""
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def listed(tmp_path, text=LISTED, qrels=None, **changes):
    """Parameters of a query list with one image file beside it, and of qrels if given."""
    home = folder_of(
        tmp_path / "home", {"list.csv": text.encode(), "files/1.jpg": noise_jpeg(99), "files/bad.jpg": b"x"}
    )
    if qrels is not None:
        (home / "list.qrels").write_text(qrels, encoding="utf-8")
        changes["qrels"] = str(home / "list.qrels")
    return query_params(source=QuerySource.file, path=str(home / "list.csv"), **changes)
