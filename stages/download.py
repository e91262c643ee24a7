"""download: fetch the data set's archive into data/raw, record its folder, or draw its images."""

from cbir.artifacts.paths import DataPaths
from cbir.artifacts.timings import timed
from cbir.core.device import load_device
from cbir.core.errors import one_line_errors
from cbir.core.parallel import cores
from cbir.core.params import load_params
from cbir.fetching.dataset import fetch_dataset
from cbir.fetching.params import SourceParams

PARAMS = (
    "dataset.url",
    "dataset.sha256",
    "dataset.md5",
    "dataset.max_bytes",
    "dataset.draw_seed",
    "dataset.draw_gallery_images",
    "dataset.draw_query_images",
)


def main() -> None:
    source = load_params("dataset", SourceParams, PARAMS, whole_group=False)
    fetch_dataset(source, DataPaths().raw, load_device().workers or cores())


if __name__ == "__main__":
    with one_line_errors(), timed("download"):
        main()
