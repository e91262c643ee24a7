"""latency: how fast each index answers, beside exact search.  The only stage that depends on `device`: its result is a time."""

from pathlib import Path

from cbir.config import ENCODERS, load_params
from cbir.errors import told_in_one_line
from cbir.index import SearchParams
from cbir.latency import write_latency
from cbir.parallel import cores
from cbir.timing import timed

PARAMS = ("evaluate.latency_queries", "evaluate.seed", "index.search", "device.threads")
EMBEDDINGS, INDEXES, OUT = Path("data/embeddings"), Path("data/index"), Path("reports/latency.json")


def main() -> None:
    params = load_params(PARAMS)
    search_params, threads = SearchParams(**vars(params.index.search)), params.device.threads or cores()
    asked = (params.evaluate.latency_queries, params.evaluate.seed)
    write_latency(OUT, EMBEDDINGS, INDEXES, ENCODERS, search_params, threads, *asked)


if __name__ == "__main__":
    with told_in_one_line(), timed("latency"):
        main()
