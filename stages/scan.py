"""scan: note the state of the local files that the run reads but does not own, so that DVC sees when they change.

An image folder, a query list or a weights file on this machine is no output of any stage, and DVC stops at a folder with a
dangling link (treeverse/dvc#9971) and at a file that is not there, though this run does not use it, as demo weights.
So this stage always runs, takes moments, and leaves one small file for each.
"""

from pathlib import Path

from cbir.config import ENCODERS, load_params
from cbir.demo import DEMO_WEIGHTS
from cbir.errors import told_in_one_line
from cbir.local_state import write_local_state

PARAMS = (
    "dataset.url",
    "queries.path",
    "queries.qrels",
    "mobilenet.architecture",
    "mobilenet.weights",
    "mobilenet.tokenizer",
    "clip.architecture",
    "clip.weights",
    "clip.tokenizer",
)
OUT = Path("data/local")


def main() -> None:
    params = load_params(PARAMS)
    write_local_state(OUT / "dataset.json", [params.dataset.url])
    write_local_state(OUT / "queries.json", [params.queries.path, params.queries.qrels])
    for name in ENCODERS:
        encoder = params.encoder(name)
        names = [encoder.architecture, encoder.weights, encoder.tokenizer]
        write_local_state(OUT / f"{name}.json", names, {"demo": DEMO_WEIGHTS / f"{name}.safetensors"})


if __name__ == "__main__":
    with told_in_one_line():
        main()
