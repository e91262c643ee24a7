"""preprocess: decode each image of data/raw, pack it into shards, write the query list and its judgements."""

from cbir.artifacts.packing import read_packing
from cbir.artifacts.paths import DataPaths
from cbir.artifacts.timings import timed
from cbir.core.device import load_device
from cbir.core.errors import one_line_errors
from cbir.core.parallel import cores
from cbir.core.params import load_params
from cbir.datasets.packing import Limits
from cbir.datasets.params import DatasetParams, QueriesParams
from cbir.datasets.preprocess import preprocess
from cbir.datasets.readers import open_dataset

PARAMS = (
    "dataset.reader",
    "dataset.url",
    "dataset.gallery_folder",
    "dataset.query_folder",
    "dataset.seed",
    "dataset.hold_out",
    "dataset.gallery_per_class",
    "dataset.queries_per_class",
    "dataset.max_pixels",
    "dataset.max_bad_fraction",
    "queries.source",
    "queries.path",
    "queries.qrels",
    "queries.templates",
    "queries.captions",
    "queries.prompt_sets",
)


def main() -> None:
    params, queries = load_params("dataset", DatasetParams, PARAMS), load_params("queries", QueriesParams, PARAMS)
    data, workers = DataPaths(), load_device().workers or cores()
    dataset = open_dataset(params, data.raw, queries)
    preprocess(dataset, data, params, queries, Limits(params.max_pixels, read_packing(data.packing)), workers)


if __name__ == "__main__":
    with one_line_errors(), timed("preprocess"):
        main()
