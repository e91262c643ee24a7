"""The parameters of the groups `dataset` and `queries`."""

from dataclasses import dataclass, field
from enum import Enum

from cbir.core.errors import ConfigError
from cbir.core.params import Parameters, at_least
from cbir.fetching.params import SourceParams


class Reader(Enum):
    """The layout of the data set on disk; `cbir.datasets.readers.READERS` has an entry for each."""

    shapes = "shapes"
    tiny_imagenet = "tiny_imagenet"
    image_folder = "image_folder"


class QuerySource(Enum):
    """Where the queries come from: the data set itself, or a user's file."""

    dataset = "dataset"
    file = "file"


@dataclass(kw_only=True)
class DatasetParams(SourceParams):
    """Group `dataset`: the images of gallery and queries; see the comments in `conf/dataset/`."""

    reader: Reader
    gallery_folder: str | None = None
    query_folder: str | None = None
    seed: int = 0
    hold_out: bool = False
    gallery_per_class: int | None = None
    queries_per_class: int | None = None
    max_side_px: int | None = None
    max_pixels: int = 50_000_000
    max_bad_fraction: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, self, "gallery_per_class", "max_side_px", "max_pixels")
        at_least(0, self, "queries_per_class", "seed")
        if self.hold_out and self.query_folder:
            raise ConfigError(
                f"hold_out: expected false, as query_folder={self.query_folder} gives the queries, found true"
            )
        if self.hold_out and self.queries_per_class is None:
            raise ConfigError("queries_per_class: expected the number of images of each class to hold out, found null")
        if not 0.0 <= self.max_bad_fraction <= 1.0:
            raise ConfigError(f"max_bad_fraction: expected a fraction in [0, 1], found {self.max_bad_fraction}")


@dataclass
class QueriesParams(Parameters):
    """Group `queries`: the queries to evaluate; see the comments in `conf/queries/`."""

    source: QuerySource
    path: str | None  # no default: it would hide ??? in conf/queries/file.yaml, so each file there sets it
    qrels: str | None = None
    templates: list[str] = field(default_factory=list)
    captions: bool = False
    prompt_sets: list[str] = field(default_factory=lambda: ["bare", "photo"])

    def __post_init__(self) -> None:
        for template in self.templates:
            if template.count("{}") != 1:
                raise ConfigError(f"templates: expected exactly one {{}} where the class name goes, found {template!r}")
