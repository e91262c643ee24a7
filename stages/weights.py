"""weights <encoder>: bring an encoder's weights, preprocessing and tokenizer into data/weights/<encoder>; export its towers."""

import sys
from pathlib import Path

from cbir.config import encoder_argument, load_params
from cbir.encoders.exporting import export_towers
from cbir.errors import told_in_one_line
from cbir.timing import timed
from cbir.weights import fetch_encoder

PARAMS = (
    "{encoder}.family",
    "{encoder}.architecture",
    "{encoder}.weights",
    "{encoder}.weights_sha256",
    "{encoder}.weights_tag",
    "{encoder}.tokenizer",
    "{encoder}.image_px",
)
OUT = Path("data/weights")


def main(encoder: str) -> None:
    params = load_params(key.format(encoder=encoder) for key in PARAMS).encoder(encoder)
    fetch_encoder(encoder, params, OUT / encoder)
    export_towers(OUT / encoder, params.family)


if __name__ == "__main__":
    with told_in_one_line():
        encoder = encoder_argument(sys.argv)
        with timed(f"weights_{encoder}"):
            main(encoder)
