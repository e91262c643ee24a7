"""evaluate <encoder>: run the queries on the index and by exact search; write means with intervals, runs and classes."""

import sys

from cbir.artifacts.contents import check_vectors
from cbir.artifacts.evaluation_passport import write_evaluation_passport
from cbir.artifacts.names import encoder_argument
from cbir.artifacts.paths import DataPaths, ReportPaths
from cbir.artifacts.timings import timed
from cbir.core.device import load_device
from cbir.core.errors import one_line_errors
from cbir.core.parallel import cores
from cbir.core.params import load_params
from cbir.evaluation.collection import open_collection
from cbir.evaluation.depths import leave_out_large_ks, left_out_note
from cbir.evaluation.evaluate import evaluate_encoder
from cbir.evaluation.params import EvaluateParams
from cbir.evaluation.prompts import write_prompt_metrics
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


def main(encoder: str) -> None:
    data, reports, params = DataPaths(), ReportPaths(), load_params("evaluate", EvaluateParams, PARAMS)
    search = load_params("index", IndexParams, PARAMS).search
    check_vectors(data, encoder)
    collection, threads = open_collection(data), load_device().threads or cores()
    left_out = leave_out_large_ks(params, collection.n_results)
    if note := left_out_note(left_out, len(collection.gallery_ids)):
        print(f"note: {note}")
    embeddings, index, out = data.embeddings(encoder), data.index(encoder), reports.evaluation(encoder)
    writer = ResultsWriter(out, encoder, collection, params, left_out)
    for evaluated in evaluate_encoder(collection, embeddings, index, encoder, params, search, threads):
        writer.add(*evaluated)
    writer.add_index(index)
    writer.add_duplicates(data.all_images)
    writer.write()
    writer.write_headline(reports.headline(encoder))
    write_prompt_metrics(out.prompts, data, encoder, params.resamples, params.seed)
    write_evaluation_passport(out, index)


if __name__ == "__main__":
    with one_line_errors():
        encoder = encoder_argument(sys.argv)
        with timed(f"evaluate@{encoder}"):
            main(encoder)
