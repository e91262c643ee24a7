"""verify <encoder>: compare a sample of the stored vectors with those that the encoder's library computes."""

import sys

from cbir.artifacts.contents import check_vectors
from cbir.artifacts.names import encoder_argument
from cbir.artifacts.paths import DataPaths, ReportPaths
from cbir.artifacts.timings import timed
from cbir.artifacts.vectors import read_passport
from cbir.artifacts.verification import write_verification
from cbir.core.errors import one_line_errors
from cbir.core.params import load_params
from cbir.datasets.params import DatasetParams, QueriesParams
from cbir.datasets.readers import open_dataset
from cbir.encoders.params import EncoderParams
from cbir.encoders.verify import verify

PARAMS = (
    "dataset.reader",
    "dataset.gallery_folder",
    "dataset.query_folder",
    "dataset.seed",
    "dataset.hold_out",
    "dataset.queries_per_class",
    "dataset.max_pixels",
    "queries.source",
    "encoders.{encoder}",
)


def main(encoder: str) -> None:
    data, params = DataPaths(), load_params("dataset", DatasetParams, PARAMS)
    queries = load_params("queries", QueriesParams, PARAMS)
    encoder_params = load_params(f"encoders.{encoder}", EncoderParams, [f"encoders.{encoder}"])
    dataset = open_dataset(params, data.raw, queries)
    check_vectors(data, encoder, ["gallery"])
    verification = verify(data, dataset, encoder, encoder_params, params.max_pixels, params.seed)
    of = read_passport(data.vectors(encoder, "gallery"))["rows"]["vectors_sha256"]
    write_verification(ReportPaths().verification(encoder), verification, of)
    print(f"{encoder}: {verification.describe()}", flush=True)


if __name__ == "__main__":
    with one_line_errors():
        encoder = encoder_argument(sys.argv)
        with timed(f"verify@{encoder}"):
            main(encoder)
