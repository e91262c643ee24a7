"""evaluate: run the queries on each index and by exact search; write means with intervals, runs, classes and duplicates."""

from cbir.artifacts.names import ENCODERS
from cbir.artifacts.paths import DataPaths, ReportPaths
from cbir.artifacts.timings import timed
from cbir.core.device import load_device
from cbir.core.errors import one_line_errors
from cbir.core.parallel import cores
from cbir.core.params import load_params
from cbir.evaluation.collection import open_collection
from cbir.evaluation.evaluate import evaluate_encoder
from cbir.evaluation.params import EvaluateParams
from cbir.evaluation.results import ResultsWriter
from cbir.index.params import IndexParams

PARAMS = (
    "evaluate.ks",
    "evaluate.ann_ks",
    "evaluate.run_depth",
    "evaluate.duplicate_cosine",
    "evaluate.resamples",
    "evaluate.seed",
    "index.search",
)


def main() -> None:
    data, params = DataPaths(), load_params("evaluate", EvaluateParams, PARAMS)
    search = load_params("index", IndexParams, PARAMS).search
    threads = load_device().threads or cores()
    collection = open_collection(data)
    writer = ResultsWriter(ReportPaths().root, collection, params)
    for encoder in ENCODERS:
        for evaluated in evaluate_encoder(
            collection, data.all_embeddings, data.all_indexes, encoder, params, search, threads
        ):
            writer.add(encoder, *evaluated)
        writer.add_index(encoder, data.index(encoder))
    writer.add_duplicates(data.all_images)
    writer.write()


if __name__ == "__main__":
    with one_line_errors(), timed("evaluate"):
        main()
