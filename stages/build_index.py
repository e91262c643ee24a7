"""index <encoder>: build the FAISS index over an encoder's gallery vectors, and write it with its passport."""

import sys

from cbir.artifacts.names import encoder_argument
from cbir.artifacts.paths import DataPaths
from cbir.artifacts.timings import timed
from cbir.artifacts.vectors import open_vectors
from cbir.core.device import load_device
from cbir.core.errors import one_line_errors
from cbir.core.parallel import cores
from cbir.core.params import load_params
from cbir.index.params import IndexParams
from cbir.index.storage import index_vectors

PARAMS = ("index.kind", "index.build")


def main(encoder: str) -> None:
    data, params = DataPaths(), load_params("index", IndexParams, PARAMS)
    vectors = open_vectors(data.embeddings(encoder), encoder, "gallery")
    index_vectors(vectors, params, data.index(encoder), load_device().threads or cores())


if __name__ == "__main__":
    with one_line_errors():
        encoder = encoder_argument(sys.argv)
        with timed(f"index@{encoder}"):
            main(encoder)
