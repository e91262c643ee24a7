"""map <encoder>: place a sample of the gallery in two dimensions, by the encoder's vectors."""

import sys

from cbir.artifacts.contents import check_vectors
from cbir.artifacts.images import read_columns
from cbir.artifacts.maps import write_map
from cbir.artifacts.names import encoder_argument
from cbir.artifacts.paths import DataPaths
from cbir.artifacts.timings import timed
from cbir.artifacts.vectors import open_vectors
from cbir.core.errors import one_line_errors
from cbir.core.params import load_params
from cbir.maps.params import MapParams
from cbir.maps.projection import draw_map

PARAMS = ("map.images", "map.perplexity", "map.seed")


def main(encoder: str) -> None:
    data, params = DataPaths(), load_params("map", MapParams, PARAMS)
    check_vectors(data, encoder, ["gallery"])
    gallery = open_vectors(data.embeddings(encoder), encoder, "gallery")
    images = read_columns(data.images("gallery"), ["image_id", "label", "label_name"])
    of = gallery.passport["rows"]["vectors_sha256"]
    write_map(data.map(encoder), draw_map(gallery, images, params.images, params.perplexity, params.seed), of)


if __name__ == "__main__":
    with one_line_errors():
        encoder = encoder_argument(sys.argv)
        with timed(f"map@{encoder}"):
            main(encoder)
