"""evaluate: the query list against both indexes and exact search; means with intervals, runs, classes, duplicates."""

from pathlib import Path

from cbir.config import ENCODERS, load_device, load_params
from cbir.errors import told_in_one_line
from cbir.evaluation import evaluate_encoder, open_gallery
from cbir.findings import Findings
from cbir.index import SearchParams
from cbir.parallel import cores
from cbir.timing import timed

PARAMS = (
    "evaluate.ks",
    "evaluate.ann_ks",
    "evaluate.run_depth",
    "evaluate.duplicate_cosine",
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
    findings = Findings(OUT, gallery, params.evaluate)
    search = SearchParams(**vars(params.index.search))
    for encoder in ENCODERS:
        for found in evaluate_encoder(gallery, EMBEDDINGS, INDEXES, encoder, params.evaluate, search, threads):
            findings.add(encoder, *found)
        findings.add_index(encoder, INDEXES / encoder)
    findings.audit(IMAGES)
    findings.write()


if __name__ == "__main__":
    with told_in_one_line(), timed("evaluate"):
        main()
