"""`cbir verify`: compare stored vectors with those that the encoder's library computes from the original bytes."""

import argparse

from cbir.artifacts.names import check_encoder, read_encoder_names
from cbir.artifacts.paths import DataPaths
from cbir.core.errors import DataError

HELP = "compare stored vectors with those that the encoder's library computes from the original bytes"
_GROUPS = ("dataset", "queries")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the encoder and the seed of the sample."""
    parser.add_argument("encoder", help="name of an encoder of the run")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample (%(default)s)")


def run(options: argparse.Namespace) -> None:
    """Compare, and print the result.  Raises DataError where the vectors differ."""
    from cbir.core.params import load_params  # OmegaConf takes a while
    from cbir.datasets.params import DatasetParams, QueriesParams
    from cbir.datasets.readers import open_dataset
    from cbir.encoders.params import EncoderParams
    from cbir.encoders.verify import verify  # torch takes seconds

    data = DataPaths()
    check_encoder(options.encoder, read_encoder_names(data.encoders))
    params, queries = load_params("dataset", DatasetParams, _GROUPS), load_params("queries", QueriesParams, _GROUPS)
    group = f"encoders.{options.encoder}"
    encoder = load_params(group, EncoderParams, [group])
    dataset = open_dataset(params, data.raw, queries)
    verification = verify(data, dataset, options.encoder, encoder, params.max_pixels, options.seed)
    if not verification.passed:
        raise DataError(f"{options.encoder} {verification.describe()}")
    print(f"{options.encoder}: {verification.describe()}")
    if verification.top10_overlap is not None:
        print(f"{verification.top10_overlap:.1%} of the ten nearest neighbours are the same", end="")
        change = verification.precision_change
        print("" if change is None else f", precision@10 changes by {change:+.4f}")
