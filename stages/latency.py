"""latency: time each index and exact search.  No other stage depends on `device`, because only this result is a time."""

from cbir.artifacts.names import ENCODERS
from cbir.artifacts.paths import DataPaths, ReportPaths
from cbir.artifacts.timings import timed
from cbir.core.device import DeviceParams
from cbir.core.errors import one_line_errors
from cbir.core.parallel import cores
from cbir.core.params import load_params
from cbir.index.latency import write_latency
from cbir.index.params import IndexParams, LatencyParams

PARAMS = ("evaluate.latency_queries", "evaluate.seed", "index.search", "device.threads")


def main() -> None:
    data, params = DataPaths(), load_params("evaluate", LatencyParams, PARAMS, whole_group=False)
    search = load_params("index", IndexParams, PARAMS).search
    threads = load_params("device", DeviceParams, PARAMS).threads or cores()
    write_latency(
        ReportPaths().latency,
        data.all_embeddings,
        data.all_indexes,
        ENCODERS,
        search,
        threads,
        params.latency_queries,
        params.seed,
    )


if __name__ == "__main__":
    with one_line_errors(), timed("latency"):
        main()
