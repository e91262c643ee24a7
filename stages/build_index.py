"""index <encoder>: the FAISS index over an encoder's gallery vectors, with their passport."""

import sys
from pathlib import Path

from cbir.artifacts.vectors import open_vectors
from cbir.config import encoder_argument, load_device, load_params
from cbir.errors import told_in_one_line
from cbir.indexing import index_vectors
from cbir.parallel import cores
from cbir.timing import timed

PARAMS = ("index.kind", "index.build")
EMBEDDINGS, OUT = Path("data/embeddings"), Path("data/index")


def main(encoder: str) -> None:
    vectors = open_vectors(EMBEDDINGS / encoder, encoder, "gallery")
    index_vectors(vectors, load_params(PARAMS).index, OUT / encoder, load_device().threads or cores())


if __name__ == "__main__":
    with told_in_one_line():
        encoder = encoder_argument(sys.argv)
        with timed(f"index_{encoder}"):
            main(encoder)
