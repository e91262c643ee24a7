"""evaluate: the query list against both indexes and exact search; metrics, intervals, definitions, runs, per-query values."""

from pathlib import Path

from cbir.config import ENCODERS, load_device, load_params
from cbir.errors import told_in_one_line
from cbir.evaluation import Report, evaluate_encoder, open_gallery
from cbir.index import SearchParams
from cbir.parallel import cores

PARAMS = (
    "evaluate.ks",
    "evaluate.ann_ks",
    "evaluate.run_depth",
    "evaluate.resamples",
    "evaluate.seed",
    "index.search",
)
IMAGES, QUERIES, EMBEDDINGS, INDEXES, OUT = map(
    Path, ("data/images", "data/queries", "data/embeddings", "data/index", "reports")
)


def main() -> None:
    params, threads = load_params(PARAMS), load_device().threads or cores()
    gallery = open_gallery(IMAGES, QUERIES)
    report = Report(OUT, gallery, params.evaluate)
    search_params = SearchParams(**vars(params.index.search))
    for encoder in ENCODERS:
        evaluate_encoder(report, gallery, EMBEDDINGS, INDEXES, encoder, params.evaluate, search_params, threads)
    report.write()


if __name__ == "__main__":
    with told_in_one_line():
        main()
