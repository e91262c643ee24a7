"""weights <encoder>: fetch the weights, preprocessing and tokenizer to data/weights/<encoder>; export the towers."""

import sys

from cbir.artifacts.names import encoder_argument
from cbir.artifacts.paths import DataPaths
from cbir.artifacts.timings import timed
from cbir.core.errors import one_line_errors
from cbir.core.params import load_params
from cbir.encoders.exporting import export_towers
from cbir.encoders.params import EncoderParams
from cbir.encoders.weights import fetch_encoder

PARAMS = (
    "{encoder}.family",
    "{encoder}.architecture",
    "{encoder}.weights",
    "{encoder}.weights_sha256",
    "{encoder}.weights_tag",
    "{encoder}.tokenizer",
    "{encoder}.image_px",
    "{encoder}.pooling",
)


def main(encoder: str) -> None:
    params = load_params(encoder, EncoderParams, [key.format(encoder=encoder) for key in PARAMS])
    folder = DataPaths().weights(encoder)
    fetch_encoder(encoder, params, folder)
    export_towers(folder, params.family)


if __name__ == "__main__":
    with one_line_errors():
        encoder = encoder_argument(sys.argv)
        with timed(f"weights_{encoder}"):
            main(encoder)
