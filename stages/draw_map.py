"""map <encoder>: where a sample of the gallery's images lies when an encoder's vectors are drawn in two dimensions."""

import sys
from pathlib import Path

from cbir.artifacts.images import read_columns
from cbir.artifacts.maps import write_map
from cbir.artifacts.vectors import open_vectors
from cbir.config import encoder_argument, load_params
from cbir.errors import told_in_one_line
from cbir.mapping import draw_map
from cbir.timing import timed

PARAMS = ("map.images", "map.perplexity", "map.seed")
IMAGES, EMBEDDINGS, OUT = Path("data/images/gallery"), Path("data/embeddings"), Path("data/map")


def main(encoder: str) -> None:
    params = load_params(PARAMS).map
    gallery = open_vectors(EMBEDDINGS / encoder, encoder, "gallery")
    images = read_columns(IMAGES, ["image_id", "label", "label_name"])
    write_map(OUT / f"{encoder}.parquet", draw_map(gallery, images, params.images, params.perplexity, params.seed))


if __name__ == "__main__":
    with told_in_one_line():
        encoder = encoder_argument(sys.argv)
        with timed(f"map_{encoder}"):
            main(encoder)
