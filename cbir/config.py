"""The typed parameters: one dataclass per group of `conf/`, and `load_params()`.

`conf/` is composed by Hydra against these classes (see `conf/hydra_plugins/cbir_schema.py`) into
`params.yaml`; stages read `params.yaml` through `load_params()` and nothing else.  No field has a default:
every file of a group sets every key, so that switching a group leaves no key of the old choice behind.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_origin

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cbir.errors import ConfigError

PARAMS_FILE = Path("params.yaml")
ENCODERS = ("mobilenet", "clip")
REAL_ENCODERS = "add `mobilenet=large clip=vit_b_32` to your `python -m cbir.compose ...`, then `make repro`"
MAX_SIDE_PX = 65_500  # JPEG holds no more
MAX_MAP_IMAGES, MAX_PERPLEXITY = 5000, 100  # t-SNE takes time and memory by their product
MAX_SAMPLED_QUERIES, MAX_THUMBNAIL_PX = 50, 256  # the report is one file, to be mailed


class Group:
    """A part of the parameters; only the keys that a stage asked for can be read (see `load_params`)."""

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(
                f"parameter '{name}' of {type(self).__name__} was not handed to this stage: "
                "add it to the stage's PARAMS and to its params in dvc.yaml"
            )


class Reader(Enum):
    """Where the images come from: a module of `cbir.datasets`."""

    shapes = "shapes"
    tiny_imagenet = "tiny_imagenet"
    image_folder = "image_folder"


class Family(Enum):
    """Which library builds the encoder."""

    torchvision = "torchvision"
    open_clip = "open_clip"


class Precision(Enum):
    """Arithmetic of the forward pass; it changes the vectors, so it stands in the passport."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"


class Backend(Enum):
    """What runs the image tower; `auto` takes the fastest that the device and the precision have."""

    auto = "auto"
    torch = "torch"
    openvino = "openvino"


class IndexKind(Enum):
    """The FAISS index types on offer."""

    flat = "flat"
    ivf_flat = "ivf_flat"
    ivf_pq = "ivf_pq"
    hnsw = "hnsw"
    sq8 = "sq8"


class DeviceName(Enum):
    """Where encoders run; `auto` takes cuda, then mps, then cpu."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class QuerySource(Enum):
    """Who writes the query list: the data set, or the user in a file."""

    dataset = "dataset"
    file = "file"


@dataclass
class DatasetParams(Group):
    """Group `dataset`; see the comments in `conf/dataset/`."""

    reader: Reader
    url: str | None
    sha256: str | None
    md5: str | None
    query_folder: str | None
    draw_seed: int | None
    draw_gallery_images: int | None
    draw_query_images: int | None
    seed: int
    gallery_per_class: int | None
    queries_per_class: int | None
    max_side_px: int
    max_pixels: int
    max_bad_fraction: float

    def __post_init__(self) -> None:
        _at_least(1, "dataset", self, "gallery_per_class", "max_side_px", "max_pixels", "draw_gallery_images")
        _at_least(0, "dataset", self, "queries_per_class", "seed", "draw_seed", "draw_query_images")
        if self.max_side_px > MAX_SIDE_PX:
            raise ConfigError(f"dataset.max_side_px: expected at most {MAX_SIDE_PX}, found {self.max_side_px}")
        if not 0.0 <= self.max_bad_fraction <= 1.0:
            raise ConfigError(f"dataset.max_bad_fraction: expected a share in [0, 1], found {self.max_bad_fraction}")


@dataclass
class EncoderParams(Group):
    """Groups `mobilenet` and `clip`; see the comments in `conf/mobilenet/` and `conf/clip/`."""

    family: Family
    architecture: str
    weights: str
    weights_sha256: str | None
    weights_tag: str | None
    tokenizer: str | None
    image_px: int | None
    precision: Precision
    backend: Backend


@dataclass
class IndexBuildParams(Group):
    """What changes the index file itself; null where the kind has no such setting, or to let it be derived."""

    nlist: int | None
    pq_m: int | None
    hnsw_m: int | None
    ef_construction: int | None
    train_rows: int | None
    seed: int

    def __post_init__(self) -> None:
        _at_least(1, "index.build", self, "nlist", "pq_m", "hnsw_m", "ef_construction", "train_rows")
        _at_least(0, "index.build", self, "seed")


@dataclass
class IndexSearchParams(Group):
    """What changes a search only: the index is not built again for these."""

    nprobe: int | None
    ef_search: int | None

    def __post_init__(self) -> None:
        _at_least(1, "index.search", self, "nprobe", "ef_search")


@dataclass
class IndexParams(Group):
    """Group `index`."""

    kind: IndexKind
    build: IndexBuildParams
    search: IndexSearchParams


@dataclass
class DeviceParams(Group):
    """Group `device`: where and how wide things run.  Changes no result, so no stage but the timings depends on it."""

    name: DeviceName
    batch_images: int | None
    threads: int | None
    workers: int | None

    def __post_init__(self) -> None:
        _at_least(1, "device", self, "batch_images", "threads", "workers")


@dataclass
class QueriesParams(Group):
    """Group `queries`: who asks, and what."""

    source: QuerySource
    path: str | None
    qrels: str | None
    templates: list[str]
    captions: bool
    prompt_sets: list[str]

    def __post_init__(self) -> None:
        for template in self.templates:
            if template.count("{}") != 1:
                raise ConfigError(
                    f"queries.templates: expected exactly one {{}} where the class name goes, found {template!r}"
                )


@dataclass
class EvaluateParams(Group):
    """Group `evaluate`."""

    ks: list[int]
    ann_ks: list[int]
    run_depth: int | None
    duplicate_cosine: float
    resamples: int
    latency_queries: int
    seed: int

    def __post_init__(self) -> None:
        _at_least(1, "evaluate", self, "run_depth", "latency_queries")
        _at_least(100, "evaluate", self, "resamples")
        if not 0.0 < self.duplicate_cosine <= 1.0:
            raise ConfigError(f"evaluate.duplicate_cosine: expected a cosine in (0, 1], found {self.duplicate_cosine}")
        _at_least(0, "evaluate", self, "seed")
        for name in ("ks", "ann_ks"):
            ks = getattr(self, name)
            if not ks or min(ks) < 1 or sorted(set(ks)) != ks:
                raise ConfigError(f"evaluate.{name}: expected ascending numbers >= 1, found {ks}")


@dataclass
class MapParams(Group):
    """Group `map`: the gallery in two dimensions."""

    images: int
    perplexity: int
    seed: int

    def __post_init__(self) -> None:
        _at_least(0, "map", self, "images", "seed")
        _at_least(1, "map", self, "perplexity")
        for name, most in (("images", MAX_MAP_IMAGES), ("perplexity", MAX_PERPLEXITY)):
            if getattr(self, name) > most:
                raise ConfigError(f"map.{name}: expected at most {most}, found {getattr(self, name)}")


@dataclass
class ReportParams(Group):
    """Group `report`: what the page shows of the queries."""

    sampled_queries: int
    thumbnail_px: int
    seed: int

    def __post_init__(self) -> None:
        _at_least(0, "report", self, "sampled_queries", "seed")
        _at_least(16, "report", self, "thumbnail_px")
        for name, most in (("sampled_queries", MAX_SAMPLED_QUERIES), ("thumbnail_px", MAX_THUMBNAIL_PX)):
            if getattr(self, name) > most:
                raise ConfigError(f"report.{name}: expected at most {most}, found {getattr(self, name)}")


@dataclass
class Params(Group):
    """All parameters, as composed by Hydra from `conf/`."""

    dataset: DatasetParams
    mobilenet: EncoderParams
    clip: EncoderParams
    index: IndexParams
    device: DeviceParams
    queries: QueriesParams
    evaluate: EvaluateParams
    map: MapParams
    report: ReportParams

    def __post_init__(self) -> None:
        for name in ("mobilenet", "clip"):  # here, because an EncoderParams knows not which of the two it is
            _at_least(8, name, getattr(self, name), "image_px")

    def encoder(self, name: str) -> EncoderParams:
        """The parameters of the encoder `name` (mobilenet or clip)."""
        return cast(EncoderParams, getattr(self, name))


def load_params(keys: Iterable[str], path: Path = PARAMS_FILE) -> Params:
    """Read `params.yaml`, check all of it against the schema, and hand out `keys` only.

    keys : dotted names, of a leaf ("dataset.url") or of a whole part ("index.build").

    Raises ConfigError when the file is absent, or a key is unknown, missing (`???`), of the wrong type or out of range;
    AttributeError (a bug of ours) when a key is read that was not asked for.
    """
    params = checked(_read_yaml(path), str(path))
    _restrict(params, "", frozenset(keys))
    return params


def encoder_argument(arguments: Sequence[str]) -> str:
    """The encoder that a stage is called for, from its command line.  Raises ConfigError unless it is one of ENCODERS."""
    if len(arguments) != 2 or arguments[1] not in ENCODERS:
        raise ConfigError(
            f"expected the name of an encoder, {' or '.join(ENCODERS)}, found {' '.join(arguments[1:]) or 'none'}"
        )
    return arguments[1]


def load_device(path: Path = PARAMS_FILE) -> DeviceParams:
    """Read the group `device`, which stages may read without declaring it: it changes no result."""
    return load_params(["device"], path).device


def checked(values: Mapping[str, Any], where: str) -> Params:
    """Turn plain nested values into Params.

    Raises ConfigError (one line) for an unknown key (naming the nearest), a wrong type, a missing value, an interpolation.
    """
    _check_keys(values, Params, "", where)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Params), values)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{where}: {error.full_key}: {first_line(error)}") from error
    missing = sorted(OmegaConf.missing_keys(merged))
    if missing:
        raise ConfigError(f"{where}: {missing[0]} has no value: add the override `{missing[0]}=...`")
    return cast(Params, OmegaConf.to_object(merged))


def leaf_keys(node: Any = Params, prefix: str = "") -> list[str]:
    """The dotted names of all parameters, in order of definition."""
    keys: list[str] = []
    for field in fields(node):
        name = prefix + field.name
        keys += leaf_keys(field.type, name + ".") if _is_group(field.type) else [name]
    return keys


def nearest(name: str, valid: Iterable[str]) -> str:
    """A phrase that names the valid word nearest to `name`, or all of them when none is near."""
    valid = sorted(valid)
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.6)
    return f"nearest: {close[0]}" if close else f"expected one of {', '.join(valid)}"


def nearest_key(name: str, groups: Iterable[str] = ()) -> str:
    """A phrase that names the parameter nearest to `name`, or the group; `groups` are valid besides those of Params.

    >>> nearest_key("mobilenet.wieghts"), nearest_key("nprobe"), nearest_key("datset")
    ('nearest: mobilenet.weights', 'nearest: index.search.nprobe', 'nearest: dataset')
    """
    keys, (group, dot, _) = leaf_keys(), name.partition(".")
    named_so = [key for key in keys if key.endswith(f".{name.rpartition('.')[2]}")]
    within = [key for key in keys if key.startswith(f"{group}.")]
    close = difflib.get_close_matches(name, named_so or within, n=1, cutoff=0.0)
    if dot and not close:
        close = difflib.get_close_matches(name, keys, n=1)
    return f"nearest: {close[0]}" if close else nearest(group, {*_groups(), *groups})


def _groups() -> list[str]:
    return [field.name for field in fields(Params)]


def first_line(error: BaseException) -> str:
    """The first line of an exception's message."""
    return str(error).strip().partition("\n")[0]


def in_one_line(error: BaseException) -> str:
    """All that an exception of YAML, OmegaConf or Hydra says to a user, without what it says to a developer."""
    lines = [line.strip() for line in str(error).partition("Config search path:")[0].splitlines()]
    hidden = ("full_key:", "object_type=", "reference_type=")
    return " ".join(line for line in lines if line and not line.startswith(hidden))


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        loaded = OmegaConf.to_container(OmegaConf.load(path))
    except FileNotFoundError:
        raise ConfigError(f"{path} is not here: run `python -m cbir.compose` in the repository's root") from None
    except Exception as error:  # yaml's and omegaconf's parse errors share no base class
        raise ConfigError(f"{path} is not readable as YAML: {in_one_line(error)}") from error
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path}: expected a mapping of groups, found {type(loaded).__name__}")
    return cast(dict[str, Any], loaded)


def _check_keys(values: Mapping[str, Any], node: Any, prefix: str, where: str) -> None:
    known = {field.name: field.type for field in fields(node)}
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"{where}: unknown parameter '{prefix}{name}'; {nearest_key(f'{prefix}{name}')}")
        if value == "???":
            continue
        if _is_group(known[name]):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{where}: {prefix}{name}: expected keys with values, found {value!r}")
            _check_keys(value, known[name], f"{prefix}{name}.", where)
        elif get_origin(known[name]) is list and not isinstance(value, list):
            raise ConfigError(f"{where}: {prefix}{name}: expected a list, as [a, b], found {value!r}")
        elif "${" in str(value):
            raise ConfigError(
                f"{where}: {prefix}{name}: expected a plain value, found {value!r}: DVC would not see it change"
            )


def _restrict(node: Group, prefix: str, keys: frozenset[str]) -> None:
    for field in fields(node):  # type: ignore[arg-type]
        name = prefix + field.name
        if name in keys:
            continue
        if any(key.startswith(name + ".") for key in keys):
            _restrict(getattr(node, field.name), name + ".", keys)
        else:
            delattr(node, field.name)


def _is_group(kind: Any) -> bool:
    return isinstance(kind, type) and is_dataclass(kind)


def _at_least(low: int, group: str, node: Group, *names: str) -> None:
    for name in names:
        value = getattr(node, name)
        if value is not None and value < low:
            raise ConfigError(f"{group}.{name}: expected a number >= {low}, found {value}")
