"""scan: note the state of the local files that the run reads but does not own, so that DVC sees when they change.

An image folder, a query list, a file of prompts or of weights on this machine is no output of any stage, and DVC stops at a
folder with a dangling link (treeverse/dvc#9971) and at a file that is not there, though this run does not use it, as demo
weights.  So this stage always runs, takes moments, and leaves one small file for each.
"""

from pathlib import Path

from cbir.artifacts.files import write_json
from cbir.config import ENCODERS, QuerySource, load_params
from cbir.demo import DEMO_WEIGHTS
from cbir.errors import told_in_one_line
from cbir.local_state import images_state, local_state
from cbir.wordings import own_files

PARAMS = (
    "dataset.url",
    "queries.source",
    "queries.path",
    "queries.qrels",
    "queries.prompt_sets",
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
    write_json(OUT / "dataset.json", local_state([params.dataset.url]))
    queries = params.queries
    own = local_state([queries.path, queries.qrels, *own_files(queries.prompt_sets)])
    own_images = images_state(queries.path) if queries.source is QuerySource.file else {}
    write_json(OUT / "queries.json", own | own_images)
    for name in ENCODERS:
        encoder = params.encoder(name)
        names = [encoder.architecture, encoder.weights, encoder.tokenizer]
        write_json(OUT / f"{name}.json", local_state(names, {"demo": DEMO_WEIGHTS / f"{name}.safetensors"}))


if __name__ == "__main__":
    with told_in_one_line():
        main()
