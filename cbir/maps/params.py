"""The group `map`."""

from dataclasses import dataclass

from cbir.core.params import Parameters, at_least, at_most

MAX_IMAGES, MAX_PERPLEXITY = 5000, 100  # the time and memory of t-SNE grow with their product


@dataclass
class MapParams(Parameters):
    """Group `map`: the map of the gallery; see the comments in `conf/map/`."""

    images: int = 2000
    perplexity: int = 30
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(0, self, "images", "seed")
        at_least(1, self, "perplexity")
        at_most(MAX_IMAGES, self, "images")
        at_most(MAX_PERPLEXITY, self, "perplexity")
