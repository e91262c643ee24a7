"""latency <encoder>: time the index and exact search.  Only this stage depends on `device`, because its result is a time."""

import sys

from cbir.artifacts.names import encoder_argument
from cbir.artifacts.paths import DataPaths, ReportPaths
from cbir.artifacts.timings import timed
from cbir.core.device import DeviceParams
from cbir.core.errors import one_line_errors
from cbir.core.parallel import cores
from cbir.core.params import load_params
from cbir.index.latency import write_latency
from cbir.index.params import IndexParams, LatencyParams

PARAMS = ("evaluate.latency_queries", "evaluate.seed", "index.search", "device.threads")


def main(encoder: str) -> None:
    data, params = DataPaths(), load_params("evaluate", LatencyParams, PARAMS, whole_group=False)
    search = load_params("index", IndexParams, PARAMS).search
    threads = load_params("device", DeviceParams, PARAMS).threads or cores()
    write_latency(
        ReportPaths().latency(encoder),
        data.embeddings(encoder),
        data.index(encoder),
        encoder,
        search,
        threads,
        params.latency_queries,
        params.seed,
    )


if __name__ == "__main__":
    with one_line_errors():
        encoder = encoder_argument(sys.argv)
        with timed(f"latency@{encoder}"):
            main(encoder)
