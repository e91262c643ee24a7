"""The query that the arguments of `cbir search` describe."""

import argparse
from pathlib import Path

from cbir.search.arguments import PartArgument, add_arguments, parse_query


def test_parts_keep_their_order_and_signs() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser, Path("data"))
    arguments = ["a star", "--not", "red", "--weight", "0.5", "--like", "i", "--weight", "2", "--weight", "-1"]
    assert parse_query(parser.parse_args(arguments), "clip", lambda encoder: True) == (
        "clip",
        [PartArgument("text", "a star", 1.0), PartArgument("text", "red", -0.5), PartArgument("like", "i", -2.0)],
    )
