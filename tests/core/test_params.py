"""load_params: what a stage gets, and what a wrong params.yaml is answered; and the rules that every file of conf/ keeps."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from cbir.compose import composed
from cbir.core.device import DeviceName, load_device
from cbir.core.errors import ConfigError
from cbir.core.params import ANY_NAME, leaf_keys, load_params, nearest_key, read_yaml
from cbir.datasets.params import DatasetParams, QueriesParams, QuerySource, Reader
from cbir.encoders.params import EncoderParams, Family, Precision
from cbir.evaluation.params import EvaluateParams
from cbir.fetching.params import SourceParams
from cbir.index.params import IndexKind, IndexParams, LatencyParams
from cbir.schema import GROUPS, Params, checked
from tests.support.imports import ROOT

CONF = ROOT / "conf"
ENCODERS = ("mobilenet_demo", "clip_demo")
SCHEMAS: dict[str, Any] = {field.name: field.type for field in fields(Params)}
OPTIONS = sorted((group, file.stem) for group in GROUPS for file in (CONF / group).glob("*.yaml"))
ENCODER_OPTIONS = [option for group, option in OPTIONS if group == "encoders"]
NEEDED = {"dataset=image_folder": ["dataset.url=/photos"], "queries=file": ["queries.path=/list.csv"]}


def keys_with(encoders: Sequence[str]) -> list[str]:
    """Every key of a params.yaml with these encoders, in order."""
    of_encoder = [key for key in leaf_keys(Params) if f".{ANY_NAME}." in key]
    keys = [key.replace(ANY_NAME, name) for name in encoders for key in of_encoder]
    first = leaf_keys(Params).index(of_encoder[0])
    others = [key for key in leaf_keys(Params) if key not in of_encoder]
    return [*others[:first], *keys, *others[first:]]


KEYS = keys_with(ENCODERS)


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def composition() -> str:
    return composed(conf_dir=CONF)


@pytest.fixture
def params_yaml(tmp_path: Path, composition: str) -> Path:
    """A params.yaml without a fault, to be spoiled."""
    path = tmp_path / "params.yaml"
    path.write_text(composition, encoding="utf-8")
    return path


def spoil(path: Path, key: str, value: Any) -> None:
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    *parts, last = key.split(".")
    node = values
    for part in parts:
        node = node.setdefault(part, {})
    node[last] = value
    path.write_text(yaml.safe_dump(values), encoding="utf-8")


def load(key: str, path: Path) -> Any:
    """The group of a dotted key, or its encoder, loaded by a stage that declares the key."""
    return load_group(key, [key], path)


def load_group(key: str, declared: list[str], path: Path) -> Any:
    group = ".".join(key.split(".")[: words_of_group(key)])
    return load_params(group, EncoderParams if group.startswith("encoders.") else SCHEMAS[group], declared, path)


def words_of_group(key: str) -> int:
    return 2 if key.startswith("encoders.") else 1


# ---- what a stage gets


def test_a_declared_key_has_its_value_and_type(params_yaml: Path) -> None:
    assert load_params("dataset", DatasetParams, ["dataset.seed"], params_yaml).seed == 0
    assert load_params("dataset", DatasetParams, ["dataset.max_bad_fraction"], params_yaml).max_bad_fraction == 0.01
    assert load_params("evaluate", EvaluateParams, ["evaluate.ks"], params_yaml).ks == [1, 5, 10, 20, 50]
    assert load_params("queries", QueriesParams, ["queries.captions"], params_yaml).captions is True


@pytest.mark.parametrize("key", [key for key in KEYS if key.count(".") == words_of_group(key)])
def test_an_undeclared_key_cannot_be_read(params_yaml: Path, key: str) -> None:
    """Not even as the default that its class has."""
    name = key.rpartition(".")[2]
    params = load_group(key, [], params_yaml)
    with pytest.raises(AttributeError, match=f"parameter '{name}' of .* is not declared by this stage"):
        getattr(params, name)


@pytest.mark.parametrize("part", ["build", "search"])
def test_an_undeclared_part_cannot_be_read(params_yaml: Path, part: str) -> None:
    params = load_params("index", IndexParams, ["index.kind", "index.build.seed"], params_yaml)
    with pytest.raises(AttributeError, match="is not declared by this stage"):
        print(params.search if part == "search" else params.build.nlist)


def test_the_object_holds_no_undeclared_key(params_yaml: Path) -> None:
    assert vars(load_params("dataset", DatasetParams, ["dataset.seed"], params_yaml)) == {"seed": 0}


def test_a_declared_part_comes_whole(params_yaml: Path) -> None:
    spoil(params_yaml, "index.kind", "hnsw")
    spoil(params_yaml, "index.build.hnsw_m", 16)
    params = load_params("index", IndexParams, ["index.build"], params_yaml)
    assert vars(params.build) == {
        "nlist": None,
        "pq_m": None,
        "hnsw_m": 16,
        "ef_construction": None,
        "train_rows": None,
        "seed": 0,
    }
    assert list(vars(params)) == ["build"]


def test_a_leaf_of_a_nested_part_comes_alone(params_yaml: Path) -> None:
    params = load_params("index", IndexParams, ["index.build.seed"], params_yaml)
    assert vars(params.build) == {"seed": 0}


def test_a_declared_group_comes_whole(params_yaml: Path) -> None:
    device = load_device(params_yaml)
    assert (device.name, device.batch_images, device.threads, device.workers) == (DeviceName.auto, None, None, None)


def test_words_become_members_of_their_enum(params_yaml: Path) -> None:
    assert load("dataset.reader", params_yaml).reader is Reader.shapes
    assert load("encoders.mobilenet_demo.family", params_yaml).family is Family.torchvision
    assert load("encoders.clip_demo.precision", params_yaml).precision is Precision.fp32
    assert load("index.kind", params_yaml).kind is IndexKind.flat
    assert load("device.name", params_yaml).name is DeviceName.auto
    assert load("queries.source", params_yaml).source is QuerySource.dataset


def test_all_encoders_have_one_schema(params_yaml: Path) -> None:
    families = [load(f"encoders.{name}.family", params_yaml).family for name in ENCODERS]
    assert families == [Family.torchvision, Family.open_clip]


def test_a_key_of_another_encoder_declares_nothing(params_yaml: Path) -> None:
    assert vars(load_group("encoders.clip_demo", ["encoders.mobilenet_demo.family"], params_yaml)) == {}


@pytest.mark.parametrize("encoders", [ENCODERS[:1], ENCODERS[1:], ENCODERS[::-1], (*ENCODERS, "siglip_b_16")])
def test_any_number_of_encoders_keeps_order_and_keys(encoders: tuple[str, ...]) -> None:
    values = yaml.safe_load(composed([f"encoders=[{','.join(encoders)}]"]))
    assert list(checked(values, "here").encoders) == list(encoders)
    assert list(flat_keys(values)) == keys_with(encoders)


@pytest.mark.parametrize("name", ["", "a b", "a.b", "a/b", "a@b", "-a", "_a", "é", "a" * 65, 7, None])
def test_an_encoders_name_must_fit_paths_and_keys(params_yaml: Path, name: Any) -> None:
    values = read_yaml(params_yaml)
    values["encoders"] = {name: values["encoders"]["clip_demo"]}
    with pytest.raises(ConfigError, match=f"^encoders: expected a name of at most 64 letters, .* found {name!r}$"):
        checked(values, "here")


@pytest.mark.parametrize("name", ["a", "7", "A-b_C-9", "a" * 64])
def test_an_encoder_may_have_any_other_name(params_yaml: Path, name: str) -> None:
    values = read_yaml(params_yaml)
    values["encoders"] = {name: values["encoders"]["clip_demo"]}
    assert list(checked(values, "here").encoders) == [name]


@pytest.mark.parametrize(
    ("encoders", "message"),
    [
        ({}, r"here: encoders: expected at least one, found none: add the override `encoders=\[\.\.\.\]`"),
        (["a"], r"here: encoders: expected keys with values, found \['a'\]"),
        ({"a": None}, r"here: encoders\.a: expected keys with values, found None"),
        ({"a": {}}, r"here: expected the parameter 'encoders\.a\.family', found none: run `cbir compose`"),
    ],
)
def test_what_is_no_dictionary_of_encoders_is_refused(params_yaml: Path, encoders: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}$"):
        checked({**read_yaml(params_yaml), "encoders": encoders}, "here")


def test_keys_of_other_groups_are_ignored(params_yaml: Path) -> None:
    assert vars(load_params("dataset", DatasetParams, ["index.build", "evaluate.seed"], params_yaml)) == {}


@pytest.mark.parametrize(
    ("group", "schema", "key"),
    [("dataset", SourceParams, "dataset.draw_seed"), ("evaluate", LatencyParams, "evaluate.latency_queries")],
)
def test_a_part_of_a_group_can_be_loaded(params_yaml: Path, group: str, schema: Any, key: str) -> None:
    expected = getattr(load(key, params_yaml), key.partition(".")[2])
    params = load_params(group, schema, [key], params_yaml, whole_group=False)
    assert getattr(params, key.partition(".")[2]) == expected
    with pytest.raises(ConfigError, match=r"unknown parameter"):
        load_params(group, schema, [key], params_yaml)


def test_leaf_keys_are_those_of_params_yaml_in_order(params_yaml: Path) -> None:
    assert list(flat_keys(yaml.safe_load(params_yaml.read_text(encoding="utf-8")))) == KEYS


# ---- what is refused, and how


def test_an_absent_file_names_the_command_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"params\.yaml is not here: run `cbir compose`"):
        load_device(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("dataset: [1\nindex: 2\n", "line 2, column 6"),
        ("dataset:\n\tseed: 1\n", "line 2, column 1"),
        ("dataset:\n  seed: 0\n  seed: 1\n", "duplicate key seed .*line 3"),
        ("dataset: !!python/object:os.system x\n", "line 1, column 10"),
        ("dataset: \xff".encode("latin-1"), "can't decode byte 0xff"),
    ],
)
def test_broken_yaml_is_reported_with_its_place(tmp_path: Path, text: str | bytes, where: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConfigError, match=rf"params\.yaml is not readable as YAML: .*{where}") as caught:
        load_device(path)
    assert "\n" not in str(caught.value)


def test_a_list_in_place_of_groups_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("- dataset\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="expected a mapping of groups, found list"):
        load_device(path)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (
            "encoders.mobilenet_demo.wieghts",
            "unknown parameter 'encoders.mobilenet_demo.wieghts'; nearest: encoders.mobilenet_demo.weights",
        ),
        (
            "encoders.clip_demo.image_size",
            "unknown parameter 'encoders.clip_demo.image_size'; nearest: encoders.clip_demo.image_px",
        ),
        ("index.nprobe", "unknown parameter 'index.nprobe'; nearest: index.search.nprobe"),
        ("index.build.m", r"unknown parameter 'index\.build\.m'; nearest: index\.build\."),
        ("evaluate.zzzz", r"unknown parameter 'evaluate\.zzzz'; nearest: evaluate\."),
    ],
)
def test_an_unknown_key_is_refused_naming_the_nearest(params_yaml: Path, key: str, message: str) -> None:
    spoil(params_yaml, key, 1)
    with pytest.raises(ConfigError, match=rf"params\.yaml: {message}"):
        load(key, params_yaml)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("datset", "unknown parameter 'datset'; nearest: dataset"),
        ("encodrs", "unknown parameter 'encodrs'; nearest: encoders"),
        (
            "zzzz",
            "unknown parameter 'zzzz'; expected one of dataset, device, encoders, evaluate, index, map, queries, report",
        ),
    ],
)
def test_an_unknown_group_is_refused_naming_the_nearest(params_yaml: Path, name: str, message: str) -> None:
    """`+encodrs.weights=...` is what Hydra itself suggests for a misspelt group."""
    spoil(params_yaml, f"{name}.seed", 1)
    with pytest.raises(ConfigError, match=rf"here: {message}"):
        checked(read_yaml(params_yaml), "here")


def test_the_composition_passes_the_check_of_all_groups(params_yaml: Path) -> None:
    params = checked(read_yaml(params_yaml), "here")
    assert params.dataset.reader is Reader.shapes
    assert params.index.kind is IndexKind.flat


@pytest.mark.parametrize("key", KEYS)
def test_a_question_mark_never_stands_for_a_default(params_yaml: Path, key: str) -> None:
    spoil(params_yaml, key, "???")
    with pytest.raises(
        ConfigError, match=rf"{re.escape(key)} has no value: add the override `{re.escape(key)}=\.\.\.`"
    ):
        load(key, params_yaml)


@pytest.mark.parametrize("key", KEYS)
def test_an_absent_key_is_named_whatever_its_group(params_yaml: Path, key: str) -> None:
    values = yaml.safe_load(params_yaml.read_text(encoding="utf-8"))
    node = values
    *parts, last = key.split(".")
    for part in parts:
        node = node[part]
    del node[last]
    with pytest.raises(ConfigError, match=rf"here: expected the parameter '{re.escape(key)}', found none"):
        checked(values, "here")


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("datset.seed", "nearest: dataset.seed"),
        ("dataset.sed", "nearest: dataset.seed"),
        ("nprobe", "nearest: index.search.nprobe"),
        ("evalute", "nearest: evaluate"),
    ],
)
def test_the_nearest_key_shares_group_or_last_word(name: str, phrase: str) -> None:
    assert nearest_key(name, KEYS) == phrase


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("dataset.seed", "abc", "dataset.seed: Value 'abc' of type 'str' could not be converted to Integer"),
        ("dataset.seed", 1.5, "dataset.seed: Value '1.5' of type 'float' could not be converted to Integer"),
        ("dataset.seed", True, "dataset.seed: Value 'True' of type 'bool' could not be converted to Integer"),
        ("dataset.seed", None, "dataset.seed: Incompatible value 'None' for field of type 'int'"),
        ("dataset.seed", {"a": 1}, "dataset.seed: Value .* could not be converted to Integer"),
        ("dataset.max_bad_fraction", "much", "dataset.max_bad_fraction: Value 'much' .* Float"),
        ("dataset.reader", "imagenet", "dataset.reader: Invalid value 'imagenet', expected one of .shapes, "),
        ("index.kind", "HNSW", "index.kind: Invalid value 'HNSW', expected one of .flat, ivf_flat, ivf_pq, hnsw, sq8"),
        (
            "encoders.clip_demo.precision",
            "fp64",
            "encoders.clip_demo.precision: Invalid value 'fp64', expected one of .fp32, fp16, bf16",
        ),
        (
            "encoders.mobilenet_demo.weights",
            None,
            "encoders.mobilenet_demo.weights: Incompatible value 'None' for field",
        ),
        ("evaluate.ks", 5, r"evaluate\.ks: expected a list, as \[a, b\], found 5"),
        ("evaluate.ks", [1, "ten"], r"evaluate\.ks\[1\]: Value 'ten' of type 'str' could not be converted to Integer"),
        ("queries.captions", "perhaps", "queries.captions: Value 'perhaps' is not a valid bool"),
        ("queries.templates", "a {}", r"queries\.templates: expected a list, .*, found 'a \{\}'"),
        ("index.build", None, "index.build: expected keys with values, found None"),
        ("index.build", [1], r"index\.build: expected keys with values, found \[1\]"),
        ("dataset", 5, "dataset: expected keys with values, found 5"),
    ],
)
def test_a_wrong_type_is_refused_by_name(params_yaml: Path, key: str, value: Any, message: str) -> None:
    spoil(params_yaml, key, value)
    with pytest.raises(ConfigError, match=rf"params\.yaml: {message}") as caught:
        load(key, params_yaml)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("dataset.gallery_per_class", 0, "expected a number >= 1, found 0"),
        ("dataset.queries_per_class", -1, "expected a number >= 0, found -1"),
        ("dataset.draw_gallery_images", 0, "expected a number >= 1, found 0"),
        ("dataset.draw_query_images", -1, "expected a number >= 0, found -1"),
        ("dataset.draw_seed", -1, "expected a number >= 0, found -1"),
        ("dataset.seed", -1, "expected a number >= 0, found -1"),
        ("dataset.max_side_px", 0, "expected a number >= 1, found 0"),
        ("dataset.max_pixels", 0, "expected a number >= 1, found 0"),
        ("dataset.max_bad_fraction", 1.01, r"expected a fraction in \[0, 1\], found 1.01"),
        ("dataset.max_bad_fraction", -0.01, r"expected a fraction in \[0, 1\], found -0.01"),
        ("dataset.max_bad_fraction", float("nan"), r"expected a fraction in \[0, 1\], found nan"),
        ("encoders.mobilenet_demo.image_px", 7, "expected a number >= 8, found 7"),
        ("encoders.clip_demo.image_px", 0, "expected a number >= 8, found 0"),
        ("index.build.nlist", 0, "expected a number >= 1, found 0"),
        ("index.build.pq_m", -8, "expected a number >= 1, found -8"),
        ("index.build.hnsw_m", 1, "expected a number >= 2, found 1"),
        ("index.build.ef_construction", 0, "expected a number >= 1, found 0"),
        ("index.build.train_rows", 0, "expected a number >= 1, found 0"),
        ("index.build.seed", -1, "expected a number >= 0, found -1"),
        ("index.search.nprobe", 0, "expected a number >= 1, found 0"),
        ("index.search.ef_search", 0, "expected a number >= 1, found 0"),
        ("device.batch_images", 0, "expected a number >= 1, found 0"),
        ("device.threads", 0, "expected a number >= 1, found 0"),
        ("device.workers", -1, "expected a number >= 1, found -1"),
        ("queries.templates", ["no place"], r"expected exactly one \{\} .*, found 'no place'"),
        ("queries.templates", ["{} and {}"], r"expected exactly one \{\} .*, found '\{\} and \{\}'"),
        ("evaluate.ks", [], r"expected ascending numbers >= 1, found \[\]"),
        ("evaluate.ks", [0, 1], r"expected ascending numbers >= 1, found \[0, 1\]"),
        ("evaluate.ks", [5, 1], r"expected ascending numbers >= 1, found \[5, 1\]"),
        ("evaluate.ann_ks", [1, 1], r"expected ascending numbers >= 1, found \[1, 1\]"),
        ("evaluate.run_depth", 0, "expected a number >= 1, found 0"),
        ("evaluate.run_depth", 49, r"expected null, or at least the largest of evaluate\.ks, 50, found 49"),
        ("evaluate.latency_queries", 0, "expected a number >= 1, found 0"),
        ("evaluate.seed", -1, "expected a number >= 0, found -1"),
        ("map.images", -1, "expected a number >= 0, found -1"),
        ("map.images", 5001, "expected at most 5000, found 5001"),
        ("map.perplexity", 0, "expected a number >= 1, found 0"),
        ("map.perplexity", 101, "expected at most 100, found 101"),
        ("map.seed", -1, "expected a number >= 0, found -1"),
        ("report.sampled_queries", -1, "expected a number >= 0, found -1"),
        ("report.sampled_queries", 51, "expected at most 50, found 51"),
        ("report.thumbnail_px", 15, "expected a number >= 16, found 15"),
        ("report.thumbnail_px", 257, "expected at most 256, found 257"),
        ("report.seed", -1, "expected a number >= 0, found -1"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(params_yaml: Path, key: str, value: Any, message: str) -> None:
    spoil(params_yaml, key, value)
    with pytest.raises(ConfigError, match=f"^{re.escape(f'{params_yaml}: {key}')}: {message}"):
        load(key, params_yaml)


@pytest.mark.parametrize(
    ("kind", "key", "value", "message"),
    [
        ("flat", "search.nprobe", 8, "applies to ivf_flat or ivf_pq, not to flat: expected null, found 8"),
        ("hnsw", "build.nlist", 8, "applies to ivf_flat or ivf_pq, not to hnsw: expected null, found 8"),
        ("ivf_flat", "search.ef_search", 8, "applies to hnsw, not to ivf_flat: expected null, found 8"),
        ("ivf_flat", "search.nprobe", 17, ": expected at most 16, found 17"),
    ],
)
def test_a_parameter_of_another_kind_of_index_is_refused(
    params_yaml: Path, kind: str, key: str, value: int, message: str
) -> None:
    spoil(params_yaml, "index.kind", kind)
    if kind == "ivf_flat":
        spoil(params_yaml, "index.build.nlist", 16)
    spoil(params_yaml, f"index.{key}", value)
    with pytest.raises(ConfigError, match=rf"params\.yaml: index\.{re.escape(key)}:? {message.removeprefix(': ')}"):
        load(f"index.{key}", params_yaml)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dataset.gallery_per_class", 1),
        ("dataset.queries_per_class", 0),
        ("dataset.max_bad_fraction", 0.0),
        ("dataset.max_bad_fraction", 1.0),
        ("dataset.max_bad_fraction", 1),
        ("encoders.mobilenet_demo.image_px", 8),
        ("evaluate.run_depth", 50),
        ("queries.templates", []),
        ("evaluate.ks", [1]),
        ("map.images", 0),
        ("map.images", 5000),
        ("report.sampled_queries", 0),
        ("report.thumbnail_px", 256),
    ],
)
def test_the_ends_of_a_range_are_accepted(params_yaml: Path, key: str, value: Any) -> None:
    spoil(params_yaml, key, value)
    node: Any = load(key, params_yaml)
    for part in key.split(".")[words_of_group(key) :]:
        node = getattr(node, part)
    assert node == value


def test_a_value_that_the_user_must_give_is_requested(params_yaml: Path) -> None:
    spoil(params_yaml, "dataset.url", "???")
    with pytest.raises(ConfigError, match=r"params\.yaml: dataset\.url has no value: add the override `dataset\.url="):
        load("dataset.url", params_yaml)


def test_a_missing_group_is_requested(params_yaml: Path) -> None:
    values = yaml.safe_load(params_yaml.read_text(encoding="utf-8"))
    del values["device"], values["encoders"]["clip_demo"]
    with pytest.raises(ConfigError, match="here: device has no value"):
        checked(values, "here")
    params_yaml.write_text(yaml.safe_dump(values), encoding="utf-8")
    for group in ("device", "encoders.clip_demo"):
        message = f"{re.escape(group)}: expected keys with values, found None: run `cbir compose`"
        with pytest.raises(ConfigError, match=message):
            load(f"{group}.family", params_yaml)


def test_a_missing_key_is_not_replaced_by_a_default(params_yaml: Path) -> None:
    """Or a misspelt key of a params.yaml edited by hand would pass for the default."""
    values = yaml.safe_load(params_yaml.read_text(encoding="utf-8"))
    del values["evaluate"]["resamples"]
    params_yaml.write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(
        ConfigError, match=r"expected the parameter 'evaluate\.resamples', found none: run `cbir compose`"
    ):
        load("evaluate.ks", params_yaml)


def test_a_missing_nested_key_is_not_replaced_by_a_default(params_yaml: Path) -> None:
    values = yaml.safe_load(params_yaml.read_text(encoding="utf-8"))
    del values["index"]["search"]["nprobe"]
    params_yaml.write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"expected the parameter 'index\.search\.nprobe', found none"):
        load("index.kind", params_yaml)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dataset.url", "${oc.env:HOME}"),
        ("dataset.seed", "${evaluate.seed}"),
        ("dataset.seed", "${nothing}"),
        ("queries.templates", ["a {} of ${oc.env:USER}"]),
    ],
)
def test_an_interpolation_in_params_yaml_is_refused(params_yaml: Path, key: str, value: Any) -> None:
    spoil(params_yaml, key, value)
    with pytest.raises(ConfigError, match=rf"{re.escape(key)}: expected a plain value, found .*\$\{{"):
        load(key, params_yaml)


# ---- conf/


def flat_keys(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flat_keys(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_every_folder_of_conf_is_a_group() -> None:
    folders = {path.name for path in CONF.iterdir() if path.is_dir()}
    assert folders - {"hydra_plugins", "experiment", "mine"} == set(GROUPS)  # mine: what `cbir compose` composed here


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_a_file_of_a_group_sets_values_of_its_group(group: str, option: str) -> None:
    override = f"{group}={option}"
    values = yaml.safe_load(composed([override, *NEEDED.get(override, [])]))
    lines = yaml.safe_load((CONF / group / f"{option}.yaml").read_text(encoding="utf-8")) or {}
    composed_values = dict(zip(flat_keys(values[group]), flat_values(values[group]), strict=True))
    for key, value in zip(flat_keys(lines), flat_values(lines), strict=True):
        assert composed_values[key] == value or value == "???", key


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_all_keys_of_its_group(group: str, option: str) -> None:
    override = f"{group}={option}"
    values = yaml.safe_load(composed([override, *NEEDED.get(override, [])]))
    assert list(flat_keys(values)) == keys_with([option] if group == "encoders" else ENCODERS)


@pytest.mark.parametrize("option", ENCODER_OPTIONS)
def test_a_file_of_encoders_holds_the_encoder_of_its_name(option: str) -> None:
    assert list(yaml.safe_load((CONF / "encoders" / f"{option}.yaml").read_text(encoding="utf-8"))) == [option]


def flat_values(values: dict[str, Any]) -> Iterator[Any]:
    for value in values.values():
        if isinstance(value, dict):
            yield from flat_values(value)
        else:
            yield value


@pytest.mark.parametrize("option", sorted(file.stem for file in (CONF / "experiment").glob("*.yaml")))
def test_every_experiment_composes_and_is_another_composition(option: str) -> None:
    sweeps = "sweeper:" in (CONF / "experiment" / f"{option}.yaml").read_text(encoding="utf-8")  # its jobs differ
    assert (composed([f"experiment={option}"]) != composed()) is not sweeps


@pytest.mark.parametrize("override", NEEDED)
def test_an_option_that_needs_a_value_asks_for_it(override: str) -> None:
    key = NEEDED[override][0].partition("=")[0]
    with pytest.raises(ConfigError, match=f"{re.escape(key)} has no value: add the override `{re.escape(key)}=...`"):
        composed([override])


def test_no_parameter_has_a_name_that_the_run_cache_overlooks() -> None:
    """DVC leaves `size` and `nfiles` out of the run cache's key: it would restore another value's result (dvc#10296)."""
    files = sorted(CONF.rglob("*.yaml"))
    assert len(files) > len(OPTIONS)
    words = {word for key in KEYS for word in key.split(".")}
    for file in files:
        words |= set(all_keys(yaml.safe_load(file.read_text(encoding="utf-8"))))
    assert not words & {"size", "nfiles"}


def all_keys(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        yield from map(str, node)
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from all_keys(child)


@pytest.mark.parametrize("file", sorted(CONF.rglob("*.yaml")), ids=lambda file: str(file.relative_to(CONF)))
def test_conf_depends_on_neither_time_nor_machine(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert not re.search(r"\$\{\s*(now|hydra|oc\.env|env)\s*:", text)


def test_no_group_name_is_a_key_of_a_group() -> None:
    groups = {path.name for path in CONF.iterdir() if path.is_dir()}
    assert not groups & {word for key in KEYS for word in key.split(".")[1:]}
