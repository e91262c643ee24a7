"""preprocess: decode every image of data/raw, pack it into shards, write the query list and its judgements."""

from pathlib import Path

from cbir.config import load_device, load_params
from cbir.datasets.opening import open_dataset
from cbir.errors import told_in_one_line
from cbir.parallel import cores
from cbir.preprocess import preprocess
from cbir.timing import timed

PARAMS = (
    "dataset.reader",
    "dataset.query_folder",
    "dataset.seed",
    "dataset.gallery_per_class",
    "dataset.queries_per_class",
    "dataset.max_side_px",
    "dataset.max_pixels",
    "dataset.max_bad_fraction",
    "queries.source",
    "queries.path",
    "queries.qrels",
    "queries.templates",
    "queries.captions",
    "queries.prompt_sets",
)
RAW, IMAGES, QUERIES = Path("data/raw"), Path("data/images"), Path("data/queries")


def main() -> None:
    params = load_params(PARAMS)
    source = open_dataset(params.dataset, RAW, hold_out=params.queries.source.value == "dataset")
    preprocess(source, IMAGES, QUERIES, params.dataset, params.queries, load_device().workers or cores())


if __name__ == "__main__":
    with told_in_one_line(), timed("preprocess"):
        main()
