"""download: bring the data set's archive into data/raw, note its folder, or draw it."""

from pathlib import Path

from cbir.config import load_device, load_params
from cbir.datasets.fetching import fetch_dataset
from cbir.errors import told_in_one_line
from cbir.parallel import cores
from cbir.timing import timed

PARAMS = (
    "dataset.reader",
    "dataset.url",
    "dataset.sha256",
    "dataset.md5",
    "dataset.draw_seed",
    "dataset.draw_gallery_images",
    "dataset.draw_query_images",
)
OUT = Path("data/raw")


def main() -> None:
    fetch_dataset(load_params(PARAMS).dataset, OUT, load_device().workers or cores())


if __name__ == "__main__":
    with told_in_one_line(), timed("download"):
        main()
