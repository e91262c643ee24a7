"""weights <encoder>: fetch weights, preprocessing and tokenizer; export the towers; of vectors made elsewhere, store a copy."""

import sys

from cbir.artifacts.names import encoder_argument
from cbir.artifacts.paths import DataPaths
from cbir.artifacts.timings import timed
from cbir.core.errors import disk_errors, one_line_errors
from cbir.core.params import load_params
from cbir.encoders.base import embeds_images
from cbir.encoders.params import EncoderParams
from cbir.encoders.weights import fetch_encoder

PARAMS = (
    "encoders.{encoder}.family",
    "encoders.{encoder}.architecture",
    "encoders.{encoder}.weights",
    "encoders.{encoder}.weights_sha256",
    "encoders.{encoder}.weights_tag",
    "encoders.{encoder}.tokenizer",
    "encoders.{encoder}.image_px",
    "encoders.{encoder}.pooling",
)


def main(encoder: str) -> None:
    group, folder = f"encoders.{encoder}", DataPaths().weights(encoder)
    params = load_params(group, EncoderParams, [key.format(encoder=encoder) for key in PARAMS])
    with disk_errors(folder):
        fetch_encoder(group, params, folder)
        if embeds_images(folder):
            from cbir.encoders.exporting import export_towers  # torch takes seconds

            export_towers(folder, params.family)


if __name__ == "__main__":
    with one_line_errors():
        encoder = encoder_argument(sys.argv)
        with timed(f"weights@{encoder}"):
            main(encoder)
