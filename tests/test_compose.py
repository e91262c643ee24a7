"""`python -m cbir.compose`: writes what `dvc exp run -S` composes, and tells every wrong override in one line."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml

from cbir.artifacts.paths import DataPaths
from cbir.compose import _demo_encoders_on_other_images, check_params, composed, quoted, write_params
from cbir.core.errors import CbirError, ConfigError
from cbir.core.params import load_params
from cbir.datasets.params import QueriesParams
from cbir.evaluation.params import EvaluateParams
from cbir.index.params import IndexParams
from stages import scan
from tests.support.imports import ROOT
from tests.support.repository import copy_conf

CONF = ROOT / "conf"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the project's conf/ and the params.yaml that it composes to, and the process in it."""
    copy_conf(tmp_path)
    (tmp_path / "params.yaml").write_text(composed(conf_dir=CONF), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with conf/ and no params.yaml, in which nothing is to be written."""
    path = tmp_path_factory.mktemp("refused")
    copy_conf(path)
    return path


def run_compose(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The real command, of this working tree, in another folder."""
    command = [sys.executable, "-m", "cbir.compose", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


# ---- params.yaml of the repository


def test_params_yaml_is_the_composition_of_conf() -> None:
    assert (ROOT / "params.yaml").read_text(encoding="utf-8") == composed(conf_dir=CONF)


def test_the_composition_holds_every_parameter_and_no_other() -> None:
    values = yaml.safe_load(composed(conf_dir=CONF))
    assert list(values["encoders"]) == ["mobilenet_demo", "clip_demo"]
    assert list(values) == ["dataset", "encoders", "index", "device", "queries", "evaluate", "map", "report"]


# ---- writing


def test_an_override_is_written_and_all_else_stays(repository: Path) -> None:
    before = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))
    write_params(["dataset.seed=7"])
    after = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))
    assert after["dataset"].pop("seed") == 7
    assert before["dataset"].pop("seed") == 0
    assert after == before


def test_a_second_composition_forgets_the_overrides_of_the_first(repository: Path) -> None:
    write_params(["index=hnsw", "dataset.seed=7"])
    write_params()
    assert (repository / "params.yaml").read_text(encoding="utf-8") == composed(conf_dir=CONF)


def test_it_says_whether_anything_changed(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_params()
    assert capsys.readouterr().out == "params.yaml is unchanged: run `dvc repro`\n"
    write_params(["index=hnsw"])
    assert capsys.readouterr().out == "params.yaml is written, from conf/ and these overrides alone: run `dvc repro`\n"


def test_what_it_writes_is_what_load_params_reads(repository: Path) -> None:
    write_params(
        ["index=hnsw", "index.search.ef_search=64", "queries.templates=['a {}.','the {}']", "evaluate.ks=[1,2]"]
    )
    path = repository / "params.yaml"
    index = load_params("index", IndexParams, ["index"], path)
    assert (index.kind.value, index.search.ef_search) == ("hnsw", 64)
    assert load_params("queries", QueriesParams, ["queries.templates"], path).templates == ["a {}.", "the {}"]
    assert load_params("evaluate", EvaluateParams, ["evaluate.ks"], path).ks == [1, 2]


def test_a_mapping_sets_several_keys_of_a_group() -> None:
    values = yaml.safe_load(composed(["index=ivf_flat", "index.build={nlist:16,seed:3}"], CONF))
    assert (values["index"]["build"]["nlist"], values["index"]["build"]["seed"]) == (16, 3)


def test_a_value_from_the_environment_is_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHOTOS", "/my/photos")
    text = composed(["dataset=image_folder", "dataset.url=${oc.env:PHOTOS}"], CONF)
    assert yaml.safe_load(text)["dataset"]["url"] == "/my/photos"


def test_a_device_that_is_not_here_is_refused(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cbir.core.device.gpus", list)
    with pytest.raises(
        ConfigError, match=r"device\.name: expected auto or cpu on this machine, found cuda: use device="
    ):
        write_params(["device=cuda"])
    monkeypatch.setattr("cbir.core.device.gpus", lambda: ["cuda"])
    write_params(["device=cuda"])
    assert "name: cuda" in (repository / "params.yaml").read_text()


def test_a_refused_override_leaves_params_yaml_as_it_was(repository: Path) -> None:
    write_params(["index=hnsw"])
    before = (repository / "params.yaml").read_bytes()
    with pytest.raises(ConfigError, match="has no option 'shpes'"):
        write_params(["dataset=shpes"])
    assert (repository / "params.yaml").read_bytes() == before


# ---- --check


def test_check_passes_on_the_composition_and_writes_nothing(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (repository / "params.yaml").stat()
    check_params()
    assert capsys.readouterr().out == "params.yaml is the composition of conf/\n"
    assert (repository / "params.yaml").stat().st_mtime_ns == before.st_mtime_ns


def test_check_takes_overrides(repository: Path) -> None:
    write_params(["index=hnsw"])
    check_params(["index=hnsw"])
    with pytest.raises(ConfigError, match=r"expected 'kind: flat', found 'kind: hnsw'; run `cbir compose`"):
        check_params()


def test_check_names_the_line_that_differs(repository: Path) -> None:
    path = repository / "params.yaml"
    lines = path.read_text(encoding="utf-8").splitlines()
    number = lines.index("  max_pixels: 50000000")
    lines[number] = "  max_pixels: 256"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    message = rf"params\.yaml is not what conf/ .*: line {number + 1}: expected 'max_pixels: 50000000', found 'max_pixels: 256'"
    with pytest.raises(ConfigError, match=message):
        check_params()
    assert path.read_text(encoding="utf-8").splitlines() == lines


def test_check_names_the_line_that_is_missing_at_the_end(repository: Path) -> None:
    path = repository / "params.yaml"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=f"line {len(lines)}: expected '{lines[-1].strip()}', found 'nothing'"):
        check_params()


def test_check_sees_another_white_space(repository: Path) -> None:
    path = repository / "params.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("kind: flat", "kind: flat "), encoding="utf-8")
    with pytest.raises(ConfigError, match="only white space differs"):
        check_params()


def test_check_without_params_yaml_fails(repository: Path) -> None:
    (repository / "params.yaml").unlink()
    with pytest.raises(ConfigError, match="line 1: expected 'dataset:', found 'nothing'"):
        check_params()
    assert not (repository / "params.yaml").exists()


def test_the_command_in_the_message_can_be_pasted(repository: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape("run `cbir compose 'queries.templates=[\"a {}.\"]'`")):
        check_params(['queries.templates=["a {}."]'])


def test_the_check_command_fails_with_one_line(repository: Path) -> None:
    assert run_compose("--check", cwd=repository).returncode == 0
    spoilt = (repository / "params.yaml").read_text(encoding="utf-8").replace("kind: flat", "kind: hnsw")
    (repository / "params.yaml").write_text(spoilt, encoding="utf-8")
    ended = run_compose("--check", cwd=repository)
    assert ended.returncode == 1
    assert re.fullmatch(r"error: params\.yaml is not .* expected 'kind: flat', found 'kind: hnsw'; .*\n", ended.stderr)


# ---- wrong overrides: the real command


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("dataset=shpes", r"dataset has no option 'shpes'; nearest: shapes \(files of conf/dataset/\)"),
        ("dataset=", "dataset has no option ''; expected one of image_folder, shapes, tiny_imagenet"),
        ("index=null", "index has no option 'null'; expected one of flat, hnsw, ivf_flat, ivf_pq, sq8"),
        ("index=8", "index has no option '8'; expected one of flat, "),
        ("index=flat,hnsw", "index has no option 'flat,hnsw'; nearest: hnsw"),
        ("dataset=[shapes,tiny_imagenet]", r"dataset has no option '\[shapes,tiny_imagenet\]'; nearest: "),
        ("experiment=tiny_imagnet", "experiment has no option 'tiny_imagnet'; nearest: tiny_imagenet"),
        ("datset=shapes", "unknown parameter 'datset'; nearest: dataset"),
        ("experimnt=tiny_imagenet", "unknown parameter 'experimnt'; nearest: experiment"),
        (
            "encoders.mobilenet_demo.wieghts=x",
            "unknown parameter 'encoders.mobilenet_demo.wieghts'; nearest: encoders.mobilenet_demo.weights",
        ),
        ("encodrs=[clip_demo]", "unknown parameter 'encodrs'; nearest: encoders"),
        ("device=gpu", r"device has no option 'gpu'; nearest: cuda \(files of conf/device/\)"),
        ("encoders=clip_dmo", r"encoders has no option 'clip_dmo'; nearest: clip_demo \(files of conf/encoders/\)"),
        ("encoders=[clip_demo,siglip]", "encoders has no option 'siglip'; nearest: siglip_b_16"),
        ("encoders=null", "encoders has no option 'null'; expected one of clip_demo, clip_multilingual, "),
        ("encoders=[]", r"encoders: expected at least one option, as encoders=\[clip_demo\], found \[\]"),
        (
            "encoders=clip_demo,mobilenet_demo",
            r"encoders has no option 'clip_demo,mobilenet_demo'; several are a list: use encoders=\[clip_demo,mobilenet_demo\]",
        ),
        ("encoders=[clip_demo,clip_demo]", "encoders: expected each option once, found clip_demo 2 times"),
        (
            "encoders.clip_dmo.weights=x",
            r"encoders.clip_dmo: 'clip_dmo' is not selected: add it to encoders=\[...\]; nearest: clip_demo",
        ),
        (
            "encoders=clip_demo encoders.mobilenet_demo.image_px=64",
            r"encoders.mobilenet_demo: 'mobilenet_demo' is not selected: add it to encoders=\[...\]; nearest: ",
        ),
        ("index.nprobe=4", "unknown parameter 'index.nprobe'; nearest: index.search.nprobe"),
        ("~dataset.foo", "unknown parameter 'dataset.foo'; nearest: dataset"),
        ("+foo=1", "unknown parameter 'foo'; expected one of dataset, device, encoders, "),
        ("+index.nprobes=1", "unknown parameter 'index.nprobes'; nearest: index.search.nprobe"),
        ("dataset.seed=abc", "dataset.seed: Value 'abc' of type 'str' could not be converted to Integer"),
        ("dataset.seed=null", "dataset.seed: field 'dataset.seed' is not Optional"),
        ("dataset.seed=1,2", "Ambiguous value for argument 'dataset.seed=1,2'"),
        ("index.kind=foo", "index.kind: Invalid value 'foo', expected one of .flat, ivf_flat, ivf_pq, hnsw, sq8"),
        ("index.build=null", "index.build: field 'index.build' is not Optional"),
        ("evaluate.ks=5", "evaluate.ks: Invalid value assigned: int is not a ListConfig, list or tuple"),
        ("evaluate.ks=[1,a]", r"evaluate\.ks\[1\]: Value 'a' of type 'str' could not be converted to Integer"),
        ("evaluate.ks=[5,1]", r"evaluate\.ks: expected ascending numbers >= 1, found \[5, 1\]"),
        ("encoders.clip_demo.image_px=2", "encoders.clip_demo.image_px: expected a number >= 8, found 2"),
        ("encoders.clip_demo=3", "encoders.clip_demo: Invalid type assigned: int is not a subclass of EncoderParams"),
        ("dataset=image_folder", "dataset.url has no value: add the override `dataset.url=...`"),
        ("queries=file", "queries.path has no value: add the override `queries.path=...`"),
        ("~dataset", "dataset has no value: add the override `dataset=...`"),
        ("dataset.url=${nothing}", "Interpolation key 'nothing' not found"),
        ("index=[", r"override 'index=\[' is not key=value or group=option: .*; quote a value with special"),
        ("queries.templates=[a {}.]", r"override 'queries\.templates=\[a \{\}\.\]' is not key=value .*; quote a value"),
        ("=3", "override '=3': expected key=value or group=option, found no name before the ="),
        ("dataset.seed=???", "dataset.seed has no value: add the override `dataset.seed=...`"),
        (
            "dataset.url=photos",
            "dataset.url, draw_gallery_images: expected an address or a number of drawings, found both",
        ),
        ("hnsw", "override 'hnsw' is not key=value or group=option: missing EQUAL"),
        ("+dataset=tiny_imagenet", "Multiple values for dataset. To override a value use 'override dataset: "),
        ("index@queries=flat", "Could not override 'index@queries'. Did you mean to override index?"),
        ("experiment=tiny_imagenet dataset.sed=1", "unknown parameter 'dataset.sed'; nearest: dataset.seed"),
    ],
)
def test_a_wrong_override_gets_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, overrides: str, message: str
) -> None:
    split = [overrides] if "[" in overrides else overrides.split()
    monkeypatch.chdir(folder)
    with pytest.raises(CbirError) as refused:
        write_params(split)
    assert re.fullmatch(rf"(conf/: )?{message}.*", str(refused.value))
    assert not (folder / "params.yaml").exists()


def test_the_command_prints_the_line_and_fails(folder: Path) -> None:
    ended = run_compose("index=foo", cwd=folder)
    assert re.fullmatch("error: index has no option 'foo'; .*\n", ended.stderr)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert not (folder / "params.yaml").exists()


@pytest.mark.parametrize(
    ("overrides", "former", "now"),
    [
        ("mobilenet=large", "mobilenet=large", "encoders=[mobilenet_v3_large,clip_demo]"),
        ("index=hnsw clip=vit_b_32", "clip=vit_b_32", "encoders=[mobilenet_demo,clip_vit_b_32]"),
        ("clip=siglip_b_16 mobilenet=small", None, "encoders=[mobilenet_v3_small,siglip_b_16]"),
        ("clip=vit_b_16", None, "encoders=[mobilenet_demo,clip_vit_b_16]"),
        ("clip=vit_l_14", None, "encoders=[mobilenet_demo,clip_vit_l_14]"),
        ("clip=zzz", None, "encoders=[mobilenet_demo,NAME]"),
        (
            "mobilenet.image_px=64",
            None,
            "encoders=[mobilenet_demo,clip_demo] encoders.mobilenet_demo.image_px=64",
        ),
        (
            "clip.precision=bf16 clip=vit_b_32 +mobilenet.weights='a b'",
            None,
            "encoders=[mobilenet_demo,clip_vit_b_32] encoders.clip_vit_b_32.precision=bf16 "
            "encoders.mobilenet_demo.weights='a b'",
        ),
    ],
)
def test_a_former_override_is_answered_with_the_new_one(overrides: str, former: str | None, now: str) -> None:
    with pytest.raises(ConfigError) as refused:
        composed(re.split(r" (?!b')", overrides), CONF)
    quoted_list = re.sub(r"^encoders=\[[^]]*\]", r"'\g<0>'", now)
    assert str(refused.value) == f"{former or overrides}: the encoders are a list now: use {quoted_list}"
    if "NAME" not in now:
        values = yaml.safe_load(composed(re.split(r" (?!b')", now), CONF))["encoders"]
        assert f"[{','.join(values)}]" in now


@pytest.mark.parametrize("path", ["/x/epoch=3-step=10.ckpt", "/x/My models (v2)/ü.safetensors"])
def test_a_path_in_a_former_override_is_quoted(path: str) -> None:
    with pytest.raises(ConfigError, match=r"the encoders are a list now: use .* encoders\.mobilenet_demo\.weights="):
        composed([quoted(f"mobilenet.weights={path}")], CONF)


@pytest.mark.parametrize(
    "names", [["clip_demo"], ["clip_demo", "mobilenet_demo"], ["mobilenet_v3_small", "siglip_b_16", "clip_vit_b_32"]]
)
def test_the_selected_encoders_stand_in_the_order_given(names: list[str]) -> None:
    values = yaml.safe_load(composed([f"encoders=[{','.join(names)}]", "index=hnsw"], CONF))["encoders"]
    assert list(values) == names
    for name in names:
        file = yaml.safe_load((CONF / "encoders" / f"{name}.yaml").read_text(encoding="utf-8"))[name]
        assert file.items() <= values[name].items()


def test_one_encoder_may_be_named_without_a_list() -> None:
    assert composed(["encoders=clip_demo"], CONF) == composed(["encoders=[clip_demo]"], CONF)


def test_outside_the_repository_it_says_where_to_go(tmp_path: Path) -> None:
    ended = run_compose("index=hnsw", cwd=tmp_path)
    assert ended.returncode == 1
    assert re.fullmatch("error: .*, without a dvc.yaml: go to the root of the repository\n", ended.stderr)


# ---- faults in conf/ itself


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "dataset/shapes.yaml",
            "draw_seed:",
            "draw_sed:",
            "dataset.draw_sed: .*dataset/shapes.*; nearest: dataset.draw_seed",
        ),
        (
            "index/hnsw.yaml",
            "ef_search:",
            "ef_serch:",
            "index.search.ef_serch: .*index/hnsw.*; nearest: index.search.ef_search",
        ),
        ("dataset/shapes.yaml", "url: null\n", "", "dataset.url has no value"),
        ("index/flat.yaml", "kind: flat", "kind: flt", "index.kind: .*Invalid value 'flt', expected one of"),
        ("dataset/shapes.yaml", "draw_seed: 0", "draw_seed: x", "dataset.draw_seed: .*Value 'x' .*Integer"),
        ("dataset/shapes.yaml", "reader: shapes", "reader: [shapes", "not readable as YAML: .*shapes.yaml.*, line 3"),
        (
            "config.yaml",
            "dataset: shapes",
            "dataset: shpes",
            "Could not find 'dataset/shpes' Available options .* shapes",
        ),
        ("config.yaml", "dataset: shapes", "datset: shapes", "Could not find 'datset/shapes'"),
        (
            "experiment/tiny_imagenet.yaml",
            "clip_vit_b_32]",
            "clip_vit_32]",
            "Could not load 'encoders/clip_vit_32'.; nearest: clip_vit_b_32",
        ),
        ("config.yaml", ", clip_demo]", ", clip_dmo]", "Could not load 'encoders/clip_dmo'.; nearest: clip_demo"),
        (
            "encoders/clip_demo.yaml",
            "weights:",
            "wieghts:",
            r"encoders\.clip_demo\.wieghts: .*encoders/clip_demo.*; nearest: encoders\.clip_demo\.weights",
        ),
        (
            "encoders/clip_demo.yaml",
            "open_clip\n",
            "open_clp\n",
            "encoders.clip_demo.family: .*Invalid value 'open_clp'",
        ),
    ],
)
def test_a_fault_in_conf_gets_one_line(repository: Path, file: str, old: str, new: str, message: str) -> None:
    path = repository / "conf" / file
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as caught:
        composed(
            ["experiment=tiny_imagenet"]
            if file.startswith("experiment")
            else [f"index={Path(file).stem}"]
            if file.startswith("index")
            else []
        )
    assert "\n" not in str(caught.value)


# ---- the same as DVC's own composition

OVERRIDE_SETS = [
    [],
    ["index=hnsw"],
    ["experiment=tiny_imagenet"],
    ["experiment=tiny_imagenet", "index=ivf_pq", "device=cpu", "dataset.gallery_per_class=50"],
    ["dataset=image_folder", "dataset.url=/my/photos", "queries=file", "queries.path='my list.csv'"],
    ["evaluate.ks=[1,2,3]", "queries.templates=['a {}','größe {}: \"x\"']", "dataset.max_bad_fraction=0.5"],
    ["index=ivf_flat", "index.build.seed=3", "++index.search.nprobe=4", "encoders.clip_demo.weights='yes'"],
    ["encoders.mobilenet_demo.tokenizer='12:30'", "encoders=[clip_vit_b_32,mobilenet_demo,siglip_b_16]"],
    ["encoders=clip_demo"],
    ["dataset=image_folder", "dataset.url=${dataset.reader}", "~experiment"],
]
ACCEPTED_BY_DVC = [
    ["+foo=1"],
    ["+dataset.gallery_per_clas=10"],
    ["+evaluate.resample=500"],
    ["+index.search.nprobes=4"],
    ["dataset=image_folder"],
    ["dataset.seed=???"],
    ["dataset.url=photos"],
    ["evaluate.run_depth=0"],
    ["evaluate.resamples=1"],
    ["report.thumbnail_px=1"],
    ["encoders.clip_demo.image_px=2"],
    ["+encoders.clip_demo.wieghts=x"],
    ["~dataset"],
]


@pytest.fixture(scope="module")
def composed_by_dvc(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], str]:
    root = tmp_path_factory.mktemp("dvc")
    copy_conf(root)
    texts = by_dvc(root, OVERRIDE_SETS + ACCEPTED_BY_DVC)
    return dict(zip(map(tuple, OVERRIDE_SETS + ACCEPTED_BY_DVC), texts, strict=True))


def by_dvc(root: Path, override_sets: list[list[str]]) -> list[str]:
    """What `dvc exp run -S` writes into params.yaml: DVC's own function, called as DVC calls it, in a fresh process."""
    conf = str(root / "conf")
    code = f"""
import json, sys
from dvc.utils.hydra import compose_and_dump
for overrides in json.load(sys.stdin):
    compose_and_dump("by_dvc.yaml", {conf!r}, None, "config", {conf!r}, overrides)
    print(json.dumps(open("by_dvc.yaml", encoding="utf-8").read()))
"""
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        input=json.dumps(override_sets),
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in ended.stdout.splitlines()]


def as_name(overrides: Iterable[str]) -> str:
    return " ".join(overrides) or "none"


@pytest.mark.parametrize("overrides", OVERRIDE_SETS, ids=as_name)
def test_it_composes_byte_for_byte_what_dvc_does(
    composed_by_dvc: dict[tuple[str, ...], str], repository: Path, overrides: list[str]
) -> None:
    write_params(overrides)
    assert (repository / "params.yaml").read_bytes() == composed_by_dvc[tuple(overrides)].encode()


MINE = ["dataset=image_folder", "dataset.url=/my/photos, old", "encoders=[clip_vit_b_32]", "index=hnsw"]
FROM_MINE = {
    (): {},
    ("index=flat",): {"index": "flat"},
    ("index.search.ef_search=9", "dataset.seed=3"): {},
    ("dataset=shapes",): {"dataset": None, "encoders": ["clip_vit_b_32"]},
    ("encoders=[mobilenet_demo]",): {"encoders": ["mobilenet_demo"]},
    ("experiment=tiny_imagenet",): {"dataset": "http://cs231n", "encoders": ["mobilenet_v3_large", "clip_vit_b_32"]},
    ("experiment=ann_pareto",): {"index": "flat"},
}


def test_experiments_start_from_the_last_composition(repository: Path) -> None:
    """What an override does not choose is as `cbir compose` composed it, for DVC and for `cbir sweep`."""
    write_params(MINE)
    assert (repository / "params.yaml").read_text() == composed([], from_recorded=True)
    for overrides, text in zip(
        FROM_MINE, by_dvc(repository, [list(overrides) for overrides in FROM_MINE]), strict=True
    ):
        assert text == composed(overrides, from_recorded=True)
        values = yaml.safe_load(text)
        expected = {"dataset": "/my/photos, old", "encoders": ["clip_vit_b_32"], "index": "hnsw"} | FROM_MINE[overrides]
        assert str(values["dataset"]["url"]).startswith(str(expected["dataset"]))
        assert (list(values["encoders"]), values["index"]["kind"]) == (expected["encoders"], expected["index"])


def test_compose_itself_starts_from_the_defaults(repository: Path) -> None:
    default = (repository / "params.yaml").read_text()
    mine = repository / "conf" / "mine"
    mine.mkdir()
    (mine / "notes.yaml").write_text("not of cbir compose")
    write_params(MINE)
    check_params(MINE)
    assert {path.name for path in mine.iterdir()} > {"choices.yaml", "dataset.yaml", "index.yaml", "encoders.yaml"}
    write_params()
    assert (repository / "params.yaml").read_text() == composed([], from_recorded=True) == default
    assert {path.name for path in mine.iterdir()} == {"notes.yaml"}


def test_a_run_that_replaces_another_data_set_says_so(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = DataPaths()
    data.raw.mkdir(parents=True)
    data.summary.parent.mkdir()
    data.summary.write_text('{"dataset": "image_folder"}')
    (data.raw / "folder.json").write_text('{"folder": "/my/photos"}')
    write_params()
    note = (
        "note: data/ and reports/ hold the results of image_folder /my/photos, which a run replaces by those of shapes"
    )
    assert note in capsys.readouterr().out
    (repository / "cbir").symlink_to(ROOT / "cbir")
    scan.main()
    assert note in capsys.readouterr().out
    data.summary.write_text('{"dataset": "shapes"}')
    (data.raw / "folder.json").unlink()
    scan.main()
    write_params()
    assert "note:" not in capsys.readouterr().out


@pytest.mark.parametrize("overrides", ACCEPTED_BY_DVC, ids=as_name)
def test_what_dvc_accepts_is_refused_by_compose_and_scan(
    composed_by_dvc: dict[tuple[str, ...], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str]
) -> None:
    with pytest.raises(ConfigError) as refused:
        composed(overrides, CONF)
    (tmp_path / "params.yaml").write_text(composed_by_dvc[tuple(overrides)], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=re.escape(str(refused.value).removeprefix(f"{CONF}/: "))):
        scan.main()


@pytest.mark.parametrize(
    "path",
    [
        "~/photos",
        "/a/été,2/[x] (1)",
        "my photos",
        'a"b',
        "C:\\photos",
        "epoch=3-step=10.ckpt",
        "it's",
        "C:\\\\",
        'a\\\\"b',
    ],
)
def test_any_path_can_be_given_as_it_is(path: str) -> None:
    keys = ("dataset.url", "dataset.query_folder", "encoders.clip_demo.weights", "++encoders.mobilenet_demo.tokenizer")
    values = yaml.safe_load(composed(["dataset=image_folder", *(quoted(f"{key}={path}") for key in keys)]))
    assert [values["dataset"][key] for key in ("url", "query_folder")] == [path, path]
    assert values["encoders"]["clip_demo"]["weights"] == values["encoders"]["mobilenet_demo"]["tokenizer"] == path


def test_demo_encoders_on_other_images_are_noted(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_params()
    assert "note:" not in capsys.readouterr().out
    write_params(["dataset=image_folder", "dataset.url=photos", "encoders=[mobilenet_v3_large,clip_demo]"])
    told = capsys.readouterr().out
    assert "note: the demo weights of clip_demo were trained on drawn shapes only" in told
    remedy = "'encoders=[mobilenet_v3_large,clip_vit_b_32]'"
    assert f"add `{remedy}` to your `cbir compose ...`, then `make repro`" in told
    write_params(["dataset=image_folder", "dataset.url=photos"])
    assert "note: the demo weights of mobilenet_demo and clip_demo were trained" in capsys.readouterr().out
    write_params(["dataset=image_folder", "dataset.url=photos", remedy.strip("'")])
    assert "note:" not in capsys.readouterr().out


def test_commands_in_readme_and_docs_take_real_encoders() -> None:
    files = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files).replace("\\\n", "")
    commands = re.findall(
        r"(?:cbir compose|python -m cbir\.compose|dvc exp run) [^`\n#]*dataset=image_folder[^`\n#]*", text
    )
    assert len(commands) >= 3
    for command in commands:
        overrides = [word for word in shlex.split(command) if "=" in word]
        assert _demo_encoders_on_other_images(composed(overrides, CONF)) == [], command


@pytest.mark.parametrize(
    "given", [["encoders=[clip_demo]", "dataset.seed=1"], ["encoders.clip_demo.image_px=64"], ["index=hnsw"]]
)
def test_make_refuses_what_belongs_to_compose(given: list[str]) -> None:
    ended = subprocess.run(
        ["make", "--dry-run", "repro", *given], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    (shown,) = re.findall(r"make takes no parameters: add `([^`]*)` to your `cbir compose", ended.stderr)
    assert sorted(shown.split()) == sorted(given)


def test_make_takes_its_own_variables() -> None:
    command = ["make", "--dry-run", "repro", "PYTHON=python3"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0
