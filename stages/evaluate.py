"""evaluate: the query list against each index and exact search; means with intervals, runs, classes, duplicates."""

from cbir.artifacts.names import ENCODERS
from cbir.artifacts.paths import DataPaths, ReportPaths
from cbir.core.device import load_device
from cbir.core.errors import one_line_errors
from cbir.core.parallel import cores
from cbir.core.params import load_params
from cbir.core.timing import timed
from cbir.evaluation.evaluate import evaluate_encoder, open_gallery
from cbir.evaluation.params import EvaluateParams
from cbir.evaluation.results import Findings
from cbir.index.faiss_index import SearchParams
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
    search = SearchParams(**vars(load_params("index", IndexParams, PARAMS).search))
    threads = load_device().threads or cores()
    gallery = open_gallery(data.all_images, data.queries)
    findings = Findings(ReportPaths().root, gallery, params)
    for encoder in ENCODERS:
        for task in evaluate_encoder(gallery, data.all_embeddings, data.all_indexes, encoder, params, search, threads):
            findings.add(encoder, *task)
        findings.add_index(encoder, data.index(encoder))
    findings.audit(data.all_images)
    findings.write()


if __name__ == "__main__":
    with one_line_errors(), timed("evaluate"):
        main()
