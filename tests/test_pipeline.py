"""The pipeline as DVC sees it: what dvc.yaml declares is what the stages read and write; and DVC itself, in a clone.

The clone is a copy of the working tree in a temporary folder, with its own git repository, cache and home.
"""

import ast
import csv
import hashlib
import importlib
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from cbir.artifacts.outputs import outputs as reserved
from cbir.compose import composed
from cbir.core import params as params_module
from cbir.core.params import ANY_NAME, leaf_keys, load_params
from cbir.datasets.params import DatasetParams
from cbir.index.params import IndexParams
from cbir.schema import Params, checked
from stages import scan
from tests.support.imports import ROOT, imported_files
from tests.support.repository import ENCODERS, RANDOM, TINY, Clone, copied, copy_working_tree, files_below, ran, skipped

TIMINGS = re.compile(
    r"reports/latency/\w+\.json|reports/comparison\.json|reports/plots/recall_latency\.json|reports/report\.(md|html)|data/index/\w+/build\.json"
    r"|data/timings/\w+(@\w+)?\.json"
)  # and what shows them
TORCH = {"torch", "torchvision", "open_clip", "transformers"}  # all of them import torch

Stage = dict[str, Any]
DECLARED: dict[str, Stage] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
STAGES: dict[str, Stage] = {name: stage.get("do", stage) for name, stage in DECLARED.items()}
PER_ENCODER = [name for name, stage in DECLARED.items() if "foreach" in stage]


# ---- dvc.yaml, read


def module_of(stage: str) -> str:
    """The stage's module: "python -m stages.x ..." -> "stages.x"."""
    python, flag, module, *_ = STAGES[stage]["cmd"].split()
    assert (python, flag) == ("python", "-m")
    return str(module)


def params_of(stage: str) -> tuple[str, ...]:
    """What the stage's module says that it reads."""
    return tuple(importlib.import_module(module_of(stage)).PARAMS)


def paths(stage: str, *kinds: str) -> list[str]:
    """The deps, outs or metrics of a stage, once for each encoder where it runs for each."""
    entries = [entry for kind in kinds for entry in STAGES[stage].get(kind, ())]
    names = [name if isinstance(name, str) else next(iter(name)) for name in entries]
    return [name.replace("${key}", encoder) for encoder in encoders_of(stage) for name in names]


def encoders_of(stage: str) -> tuple[str, ...]:
    return ENCODERS if stage in PER_ENCODER else ("",)


def of_each_encoder(*stages: str) -> set[str]:
    """The stages' names in DVC, for both encoders."""
    return {f"{stage}@{encoder}" for stage in stages for encoder in ENCODERS}


def outputs(stage: str) -> list[str]:
    return paths(stage, "outs", "metrics", "plots")


def test_every_stage_has_a_module_and_every_module_a_stage() -> None:
    modules = {path.stem for path in (ROOT / "stages").glob("*.py")} - {"__init__"}
    assert sorted(module_of(stage) for stage in STAGES) == sorted(f"stages.{name}" for name in modules)


def test_what_runs_for_each_encoder_runs_for_those_of_params() -> None:
    assert PER_ENCODER == ["weights", "embed", "index", "verify", "map", "evaluate", "latency"]
    for name in PER_ENCODER:
        assert DECLARED[name].keys() == {"foreach", "do"}
        assert DECLARED[name]["foreach"] == "${encoders}"
        assert STAGES[name]["cmd"].split()[3:] == ["${key}"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_the_parameters_that_its_module_asks_for(stage: str) -> None:
    declared = [name.replace("${key}", "{encoder}") for name in STAGES[stage].get("params", ())]
    assert sorted(declared) == sorted(params_of(stage))


@pytest.mark.parametrize("stage", STAGES)
def test_every_declared_parameter_exists(stage: str) -> None:
    for name in params_of(stage):
        key = name.format(encoder=ANY_NAME)
        assert any(f"{leaf}.".startswith(f"{key}.") for leaf in leaf_keys(Params)), key


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_exactly_the_packages_that_it_imports(stage: str) -> None:
    """And on its own module; files directly in cbir/ hold nothing that a result depends on."""
    files = imported_files(module_of(stage))
    if STAGES[stage].get("always_changed"):  # it runs whatever changed
        files = {"cbir/__init__.py"}
    expected = {"/".join(file.split("/")[:2]) for file in files if file.count("/") > 1}
    listed = {name for name in STAGES[stage]["deps"] if name.startswith(("cbir", "stages"))}
    assert listed == expected | {module_of(stage).replace(".", "/") + ".py"}
    assert files - {file for file in files if file.count("/") > 1} == {"cbir/__init__.py"}


def test_dvc_yaml_has_at_most_300_lines() -> None:
    assert len((ROOT / "dvc.yaml").read_text(encoding="utf-8").splitlines()) <= 300


@pytest.mark.parametrize("stage", STAGES)
def test_an_input_is_in_git_or_another_stages_output(stage: str) -> None:
    others = [path for other in STAGES if other != stage for path in outputs(other)]
    for name in paths(stage, "deps"):
        written = any(within(name, out) or within(out, name) for out in others)
        assert written or (ROOT / name).exists(), name
        assert written == name.startswith(("data/", "reports/")), name


def test_each_output_is_written_once() -> None:
    every = [name for stage in STAGES for name in outputs(stage)]
    assert [name for name, count in Counter(every).items() if count > 1] == []
    assert [(a, b) for a in every for b in every if a != b and within(a, b)] == []
    assert all(name.startswith(("data/", "reports/")) for name in every)


def test_inputs_are_kept_out_of_every_output() -> None:
    kept_out = [path.as_posix() for path in reserved()]
    for path in (path for stage in STAGES for path in outputs(stage)):
        assert any(within(path, folder) for folder in kept_out), path


def test_a_refused_scan_deletes_nothing() -> None:
    assert all(next(iter(entry.values())) == {"persist": True} for entry in STAGES["scan"]["outs"])


def test_nothing_of_device_is_a_parameter_but_of_the_timings() -> None:
    depends = {stage for stage in STAGES if any(name.startswith("device") for name in params_of(stage))}
    assert depends == {"latency"}


def within(name: str, folder: str) -> bool:
    return name == folder or name.startswith(folder + "/")


# ---- where torch is


def imported_packages(path: Path) -> set[str]:
    """The packages that a file imports anywhere in it; safetensors.torch counts as torch."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {"torch" if name.startswith("safetensors.torch") else name.partition(".")[0] for name in found}


@pytest.mark.parametrize("stage", STAGES)
def test_torch_is_imported_by_weights_embed_and_verify_alone(stage: str) -> None:
    files = imported_files(module_of(stage))
    imported = set().union(*(imported_packages(ROOT / name) for name in files))
    assert bool(imported & TORCH) == (stage in ("weights", "embed", "verify"))


def test_no_other_library_brings_torch_into_the_other_stages() -> None:
    modules = [module_of(stage) for stage in STAGES if stage not in ("weights", "embed", "verify")]
    code = f"import sys, {', '.join(modules)}; print(sorted(sys.modules.keys() & {TORCH!r}))"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


# ---- the parameters that the stages really read, in this process


class Recorder:
    """Notes every parameter that is read from what load_params hands out."""

    def __init__(self) -> None:
        self.stage = ""
        self.reads: dict[str, set[str]] = defaultdict(set)
        self._names: dict[int, str] = {}
        self._handed_out: list[Any] = []  # kept, so that no id comes twice

    def watch(self, node: Any, name: str = "") -> None:
        self._names[id(node)] = name
        self._handed_out.append(node)
        values = node if isinstance(node, dict) else object.__getattribute__(node, "__dict__")
        for key, value in values.items():
            if is_dataclass(value) or isinstance(value, dict):
                self.watch(value, f"{name}.{key}".lstrip("."))

    def saw(self, node: Any, attribute: str) -> None:
        name = self._names.get(id(node))
        if name is None:
            return
        if attribute == "__dict__":  # vars(node): all of it
            self.reads[self.stage].add(name)
        elif attribute in {field.name for field in fields(type(node))}:
            key = f"{name}.{attribute}".lstrip(".")
            if re.sub(r"^encoders\.\w+", f"encoders.{ANY_NAME}", key) in leaf_keys(Params):
                self.reads[self.stage].add(key)


def read_by(recorder: Recorder, stage: str) -> set[str]:
    """The reads of a stage in the words of its PARAMS: a part stands for its leaves, {encoder} for the stage's encoder."""
    found = set()
    for encoder in encoders_of(stage):
        for key in recorder.reads[f"{stage}@{encoder}" if encoder else stage]:
            key = re.sub(rf"^encoders\.{encoder}\.", "encoders.{encoder}.", key) if encoder else key
            found.add(
                next((name for name in params_of(stage) if within(key.replace(".", "/"), name.replace(".", "/"))), key)
            )
    return found


@dataclass
class ByHand:
    """All stages run one after another in this process, and what they read; `root` holds data/ and reports/."""

    root: Path
    recorder: Recorder

    def compose(self, *overrides: str) -> None:
        (self.root / "params.yaml").write_text(composed(overrides, ROOT / "conf"), encoding="utf-8")

    def clear(self) -> None:
        for name in ("data", "reports"):
            shutil.rmtree(self.root / name, ignore_errors=True)

    def run(self, *stages: str) -> None:
        for stage in stages:
            main = importlib.import_module(module_of(stage)).main
            for encoder in encoders_of(stage):
                self.recorder.stage = f"{stage}@{encoder}" if encoder else stage
                main(*filter(None, [encoder]))


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ByHand]:
    """The tiny composition, run by hand, with every parameter that is read on record."""
    root, recorder = tmp_path_factory.mktemp("by_hand"), Recorder()
    for name in ("cbir", "conf"):  # conf/ names files of cbir/
        (root / name).symlink_to(ROOT / name)
    restrict = params_module._restrict

    def restrict_and_watch(node: Any, prefix: str, keys: frozenset[str]) -> None:
        restrict(node, prefix, keys)
        if prefix.count(".") == 1 + prefix.startswith("encoders."):
            recorder.watch(node, prefix.removesuffix("."))

    def checked_and_watched(*arguments: Any) -> Params:
        params = checked(*arguments)
        recorder.watch(params)
        return params

    def note(node: Any, attribute: str) -> Any:
        recorder.saw(node, attribute)
        return object.__getattribute__(node, attribute)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(params_module, "_restrict", restrict_and_watch)
        patch.setattr(scan, "checked", checked_and_watched)
        patch.setattr(params_module.Parameters, "__getattribute__", note, raising=False)
        run = ByHand(root, recorder)
        run.compose(*TINY)
        run.run(*STAGES)
        yield run
    shutil.rmtree(root)


def picture(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (40 * number % 256, 90, 200 - 7 * number)).save(file, "JPEG")
    return file.getvalue()


def write_tiny_imagenet(path: Path) -> None:
    """The official layout: train/<wnid>/images, val/images with the labels in a file, words.txt."""
    wnids = ("n01443537", "n01629819", "n01641577")
    with zipfile.ZipFile(path, "w") as archive:
        top = "tiny-imagenet-200"
        archive.writestr(f"{top}/wnids.txt", "\n".join(wnids) + "\n")
        archive.writestr(f"{top}/words.txt", "".join(f"{wnid}\tname of {wnid}, synonym\n" for wnid in wnids))
        labels = []
        for number, wnid in enumerate(wnids):
            archive.writestr(f"{top}/train/{wnid}/{wnid}_boxes.txt", "")
            for image in range(4):
                archive.writestr(f"{top}/train/{wnid}/images/{wnid}_{image}.JPEG", picture(10 * number + image))
            archive.writestr(f"{top}/val/images/val_{number}.JPEG", picture(10 * number + 9))
            labels.append(f"val_{number}.JPEG\t{wnid}\t0\t0\t63\t63\n")
        archive.writestr(f"{top}/val/val_annotations.txt", "".join(labels))
        archive.writestr(f"{top}/test/images/test_0.JPEG", picture(99))


def write_photos(folder: Path) -> None:
    """Two classes of three images."""
    for number in range(6):
        path = folder / ("cats", "dogs")[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))


@pytest.fixture(scope="module")
def recorder(by_hand: ByHand, tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    """What the stages read over all readers, both sources of queries, and weights from a file as well."""
    inputs = tmp_path_factory.mktemp("inputs")
    write_tiny_imagenet(inputs / "tiny.zip")
    write_photos(inputs / "photos")
    (inputs / "asked.csv").write_text("query_id,task,text\nq1,tbir,a red thing\n", encoding="utf-8")
    weights = by_hand.root / "data" / "weights"
    for name, file in zip(ENCODERS, ("model", "open_clip_model"), strict=True):
        shutil.copy(weights / name / f"{file}.safetensors", inputs / f"{name}.safetensors")
    kept = by_hand.root / "kept"  # the runs below write into data/ and reports/ of their own
    kept.mkdir()
    for name in ("data", "reports", "params.yaml"):
        (by_hand.root / name).rename(kept / name)
    try:
        first_image = {"shapes": "gallery/{}", "tiny_imagenet": "train/{}", "image_folder": "{}"}
        datasets = {
            "shapes": TINY,
            "tiny_imagenet": (f"dataset.url={inputs / 'tiny.zip'}", "dataset.md5=null"),
            "image_folder": (f"dataset.url={inputs / 'photos'}", "dataset.queries_per_class=1"),
        }
        for reader, overrides in datasets.items():
            by_hand.compose(f"dataset={reader}", *overrides)
            by_hand.run("scan", "download")
            shutil.copy(kept / "data" / "packing.json", "data")  # in place of the encoders' weights
            by_hand.run("preprocess")
            image_id = pq.read_table("data/images/gallery", columns=["image_id"])["image_id"][0].as_py()
            assert re.match(first_image[reader].format(r"\w+"), image_id)
            (inputs / "qrels.txt").write_text(f"q1 0 {image_id} 1\n", encoding="utf-8")
            asked = (f"queries.path={inputs / 'asked.csv'}", f"queries.qrels={inputs / 'qrels.txt'}")
            by_hand.compose(f"dataset={reader}", *overrides, "queries=file", *asked)
            by_hand.run("scan", "preprocess")
            by_hand.clear()
        files = (f"encoders.{name}.weights={inputs / name}.safetensors" for name in ENCODERS)
        tags = (
            f"encoders.{name}.weights_tag={tag}" for name, tag in zip(ENCODERS, ("IMAGENET1K_V1", "none"), strict=True)
        )
        by_hand.compose("dataset=image_folder", *datasets["image_folder"], "dataset.hold_out=true", *files, *tags)
        by_hand.run("scan", "download", "weights", "packing", "preprocess", "embed", "verify")
        by_hand.clear()
    finally:
        for name in ("data", "reports", "params.yaml"):
            (kept / name).replace(by_hand.root / name)
    return by_hand.recorder


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_reads_exactly_the_parameters_that_it_declares(recorder: Recorder, stage: str) -> None:
    """A parameter read but not declared gives another configuration's result from the run cache; one declared but not
    read runs a stage for nothing."""
    read = {key for key in read_by(recorder, stage) if stage == "latency" or not key.startswith("device.")}
    assert read == set(params_of(stage))


def test_the_recorder_sees_a_read_that_is_not_declared(by_hand: ByHand) -> None:
    """The test above would be worth nothing if it missed one."""
    by_hand.recorder.stage = "trial"
    path = by_hand.root / "params.yaml"
    dataset = load_params("dataset", DatasetParams, ["dataset"], path)
    index = load_params("index", IndexParams, ["index.build", "index.search.nprobe"], path)
    assert by_hand.recorder.reads["trial"] == set()
    assert dataset.seed == 0
    assert vars(index.build)["seed"] == 0
    assert by_hand.recorder.reads["trial"] == {"dataset.seed", "index.build"}


# ---- DVC itself, in a clone


EVERY_STAGE = {*STAGES} - {*PER_ENCODER} | of_each_encoder(*PER_ENCODER)


# `python` for DVC to find first: embed clip_demo ends by SIGKILL, and its whole process group with it, DVC too, when it is
# about to rename its second file of vectors.
KILLING_PYTHON = """#!/bin/sh
case "$2 $3" in
"stages.embed clip_demo") exec {python} {killer} "$@" ;;
*) exec {python} "$@" ;;
esac
"""
KILLER = """
import os, runpy, signal, sys
rename, before = os.replace, [0]
def replace(*names):
    before[0] += "embeddings" in str(names[1])  # not those of the cache
    if before[0] == 2:
        os.killpg(0, signal.SIGKILL)
    rename(*names)
os.replace = replace
sys.path[0] = os.getcwd()
module, sys.argv = sys.argv[2], sys.argv[2:]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


@dataclass
class Finished:
    """A clone whose first `dvc repro` was killed in the middle, and whose second one came to its end; committed."""

    clone: Clone
    killed: subprocess.CompletedProcess[str]
    left_by_kill: list[str]
    completed: str


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    base = tmp_path_factory.mktemp("dvc")
    clone = Clone(base / "clone", base / "home")
    for folder in (clone.root, clone.home, base / "bin"):
        folder.mkdir()
    copy_working_tree(clone.root)
    (clone.root / "dvc.lock").unlink(missing_ok=True)
    for path in (clone.root / "reports").iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != ".gitignore":  # it covers what an encoder more would bring
            path.unlink()
    clone.ok("git", "init", "--quiet")
    clone.ok("git", "add", ".")
    clone.ok("git", "commit", "--quiet", "--message", "the working tree")
    (base / "bin" / "killer.py").write_text(KILLER, encoding="utf-8")
    python = base / "bin" / "python"
    python.write_text(KILLING_PYTHON.format(python=sys.executable, killer=base / "bin" / "killer.py"), encoding="utf-8")
    python.chmod(0o755)

    clone.compose(*TINY)
    killed = clone.run(sys.executable, "-m", "dvc", "repro", path=base / "bin")
    left = sorted(path.name for path in clone.root.glob("data/embeddings/clip_demo/**/*") if path.is_file())
    completed = clone.dvc("repro")
    clone.ok("git", "add", ".")
    clone.ok("git", "commit", "--quiet", "--message", "the run")
    yield Finished(clone, killed, left, completed)
    shutil.rmtree(base)


@pytest.fixture
def workshop(finished: Finished, tmp_path: Path) -> Iterator[Clone]:
    """A copy of the finished clone, to be changed."""
    yield from copied(finished.clone, tmp_path)


@pytest.fixture(scope="module")
def drafts(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """A copy of the finished clone whose params.yaml alone is changed."""
    yield from copied(finished.clone, tmp_path_factory.mktemp("drafts"))


def test_a_run_killed_within_a_stage_is_completed_later(finished: Finished) -> None:
    assert finished.killed.returncode == -signal.SIGKILL
    assert "embed@clip_demo" in ran(finished.killed.stdout)
    assert finished.left_by_kill == [".part-00000.parquet.writing", "part-00000.npy"]
    assert "embed@clip_demo" in ran(finished.completed)
    assert ran(finished.completed) | skipped(finished.completed) == EVERY_STAGE
    assert not ran(finished.completed) & {"download", "preprocess"}
    assert list((finished.clone.root / "data").rglob("*.writing")) == []


def test_the_same_inputs_give_the_same_bytes(finished: Finished, by_hand: ByHand) -> None:
    """Twice: by DVC, killed and completed, in a process for each stage; and by hand, all stages in this process."""
    first, second = files_below(finished.clone.root), files_below(by_hand.root)
    timings = {name for name in first if name.startswith("data/timings/")}  # written where a stage is a process
    assert first.keys() - timings == second.keys()
    different = {name for name in second if first[name] != second[name]}
    assert {name for name in different if not TIMINGS.fullmatch(name)} == set()


def test_the_timings_stand_in_the_files_for_timings_alone(by_hand: ByHand) -> None:
    for name in files_below(by_hand.root):
        if name.endswith(".json") and not TIMINGS.fullmatch(name):
            text = (by_hand.root / name).read_text(encoding="utf-8")
            assert name.endswith("tokenizer.json") or not re.search(r'"\w*(_ms|_s|per_s|seconds|time|date)"', text), (
                name
            )


def test_every_file_that_a_run_leaves_is_declared(finished: Finished) -> None:
    declared = [name for stage in STAGES for name in outputs(stage)]
    assert [name for name in files_below(finished.clone.root) if not any(within(name, out) for out in declared)] == []
    for out in declared:
        assert (finished.clone.root / out).exists(), out


def test_git_sees_only_lock_and_reports_after_a_run(finished: Finished) -> None:
    changed = finished.clone.ok("git", "diff", "--name-only", "HEAD~1", "HEAD").split()
    expected = {"dvc.lock", "params.yaml", "reports/report.md"}
    expected |= {f"reports/{folder}/{encoder}.json" for folder in ("latency", "metrics") for encoder in ENCODERS}
    assert set(changed) <= expected
    assert finished.clone.ok("git", "status", "--short") == ""


def test_a_second_run_does_nothing_but_look(workshop: Clone) -> None:
    before = files_below(workshop.root), (workshop.root / "dvc.lock").read_bytes()
    output = workshop.dvc("repro")
    assert ran(output) == {"scan"}
    assert skipped(output) == EVERY_STAGE - {"scan"}
    assert (files_below(workshop.root), (workshop.root / "dvc.lock").read_bytes()) == before
    assert workshop.ok("git", "status", "--short") == ""


# ---- what a change of a parameter runs again

BOTH_INDEXES = of_each_encoder("index")


def changed_by(clone: Clone, overrides: Sequence[str]) -> set[str]:
    """The stages that DVC would run because a parameter of theirs has another value than in the finished run."""
    text = composed([*TINY, *overrides], ROOT / "conf")
    (clone.root / "params.yaml").write_text(text, encoding="utf-8")
    status = json.loads(clone.dvc("status", "--json"))
    changed = {stage for stage, reasons in status.items() if reasons != ["always changed"]}
    for stage in changed:
        reasons = [reason for reason in status[stage] if reason != "always changed"]
        assert [list(reason["changed deps"]) for reason in reasons] == [["params.yaml"]], (stage, reasons)
    return changed


@pytest.mark.parametrize(
    ("overrides", "stages"),
    [
        ("", set()),
        ("dataset.draw_seed=1", {"download"}),
        ("dataset.seed=1", {"preprocess"} | of_each_encoder("verify")),
        ("dataset.gallery_per_class=1", {"preprocess"}),
        ("dataset.max_side_px=64", {"packing"}),
        ("queries.templates=['a {}','the {}']", {"preprocess"}),
        ("encoders.mobilenet_demo.weights=random:1", {"scan", "weights@mobilenet_demo", "verify@mobilenet_demo"}),
        ("encoders.clip_demo.weights=random:1", {"scan", "weights@clip_demo", "verify@clip_demo"}),
        ("encoders.mobilenet_demo.image_px=64", {"scan", "weights@mobilenet_demo", "verify@mobilenet_demo"}),
        ("encoders.clip_demo.precision=bf16", {"scan", "embed@clip_demo", "verify@clip_demo"}),
        ("encoders.mobilenet_demo.precision=bf16", {"scan", "embed@mobilenet_demo", "verify@mobilenet_demo"}),
        ("index.build.seed=1", BOTH_INDEXES),
        ("index=hnsw", of_each_encoder("index", "evaluate", "latency")),  # it sets ef_search
        ("index=ivf_flat", BOTH_INDEXES),
        ("index=ivf_flat index.search.nprobe=4", of_each_encoder("index", "evaluate", "latency")),
        ("evaluate.ks=[1,5]", of_each_encoder("evaluate")),
        ("evaluate.latency_queries=10", of_each_encoder("latency")),
        ("map.images=0", of_each_encoder("map")),
        ("report.sampled_queries=2 report.thumbnail_px=48 report.seed=1", {"report"}),
        ("device.threads=1", of_each_encoder("latency")),
        ("device=cpu device.batch_images=8 device.workers=1", set()),
    ],
)
def test_a_changed_parameter_reruns_only_stages_that_read_it(drafts: Clone, overrides: str, stages: set[str]) -> None:
    split = [overrides] if "[" in overrides else overrides.split()
    assert changed_by(drafts, split) == stages


@pytest.mark.parametrize(
    ("changed", "stages"),
    [
        ("report/html.py report/templates/page.css", {"report"}),
        ("runs/compare.py app/cards.py cli/main.py search/searcher.py export/npy.py demo/train.py compose.py", set()),
        ("maps/projection.py", of_each_encoder("map")),
        ("evaluation/metrics.py", of_each_encoder("evaluate") | {"report"}),
        ("index/search.py", of_each_encoder("index", "verify", "evaluate", "latency") | {"report"}),
        ("encoders/params.py", of_each_encoder("weights", "embed", "verify")),
        ("datasets/image_folder.py", {"packing", "preprocess"} | of_each_encoder("verify")),
        ("drawing/draw.py", {"download", "preprocess"} | of_each_encoder("verify")),
    ],
)
def test_changed_code_reruns_only_stages_of_its_package(drafts: Clone, changed: str, stages: set[str]) -> None:
    """What DVC would run because the code of a stage changed; what depends on its outputs runs only if they change.

    changed : files of cbir/ that get an empty line more.
    """
    (drafts.root / "params.yaml").write_text(composed(TINY, ROOT / "conf"), encoding="utf-8")
    texts = {
        path: path.read_text(encoding="utf-8") for path in (drafts.root / "cbir" / name for name in changed.split())
    }
    for path, text in texts.items():
        path.write_text(f"{text}\n", encoding="utf-8")
    try:
        status = json.loads(drafts.dvc("status", "--json"))
    finally:
        for path, text in texts.items():
            path.write_text(text, encoding="utf-8")
    assert {stage for stage, reasons in status.items() if reasons != ["always changed"]} == stages


def test_device_changes_nothing_but_the_timings(workshop: Clone) -> None:
    before = files_below(workshop.root)
    workshop.compose(*TINY, "device=cpu", "device.batch_images=8", "device.threads=1", "device.workers=1")
    output = workshop.dvc("repro")
    assert ran(output) == of_each_encoder("latency") | {"scan", "report"}
    after = files_below(workshop.root)
    timed = {f"reports/latency/{encoder}.json" for encoder in ENCODERS}
    timed |= {f"data/timings/latency@{encoder}.json" for encoder in ENCODERS}
    timed |= {"reports/plots/recall_latency.json", "reports/report.md", "reports/report.html"}
    assert {name for name in after if after[name] != before[name]} <= timed


# ---- experiments


def headline_of(clone: Clone) -> dict[str, float]:
    """task.encoder.metric -> its mean, of the run in the clone's folder."""
    means = {}
    for encoder in ENCODERS:
        text = (clone.root / f"reports/metrics/{encoder}.json").read_text(encoding="utf-8")
        for task, of_task in json.loads(text).items():
            means |= {f"{task}.{encoder}.{metric}": value for metric, value in of_task[encoder].items()}
    return means


def set_params(*overrides: str) -> list[str]:
    return [word for override in (*TINY, *overrides) for word in ("--set-param", override)]


def test_an_experiment_with_another_index_embeds_nothing_again(workshop: Clone) -> None:
    narrow = ("index=hnsw", "index.build.hnsw_m=2", "index.search.ef_search=1")  # so that it loses neighbours
    output = workshop.dvc("exp", "run", "--name", "another-index", *set_params(*narrow))
    again = of_each_encoder("index", "evaluate", "latency") | {"report"}
    assert ran(output) == again | {"scan"}
    assert skipped(output) == EVERY_STAGE - again - {"scan"}
    assert (workshop.root / "params.yaml").read_text(encoding="utf-8") == composed([*TINY, *narrow], ROOT / "conf")
    for encoder in ENCODERS:
        passport = json.loads((workshop.root / f"data/index/{encoder}/passport.json").read_text(encoding="utf-8"))
        assert passport["kind"] == "hnsw"

    rows = list(csv.DictReader(io.StringIO(workshop.dvc("exp", "show", "--csv"))))
    row = next(row for row in rows if row["Experiment"] == "another-index")
    assert (row["index.kind"], row["dataset.draw_gallery_images"]) == ("hnsw", "160")
    headline = headline_of(workshop)
    assert {name for name in row if name.startswith(("cbir.", "tbir."))} == {*headline}
    assert {name: float(row[name]) for name in headline} == pytest.approx(headline, abs=1e-5)
    shown = workshop.dvc("exp", "show", "--json")
    assert "another-index" in shown
    assert json.loads(shown)[0]["data"]["params"]["params.yaml"]["data"]["index"]["kind"] == "hnsw"

    metrics = json.loads(workshop.dvc("metrics", "show", "--json"))[""]["data"]
    for encoder in ENCODERS:
        name = f"reports/metrics/{encoder}.json"
        assert metrics.pop(name)["data"] == json.loads((workshop.root / name).read_text(encoding="utf-8"))
    assert metrics == {}
    difference = json.loads(workshop.dvc("metrics", "diff", "HEAD", "--json"))
    changed = {name: change for of_file in difference.values() for name, change in of_file.items()}
    recalls = {name for name in headline if name.endswith(".ann_recall@10")}
    assert {*changed} <= recalls  # an index changes no encoder's own figures
    assert changed
    for name, change in changed.items():
        assert (change["old"], change["new"]) == (1.0, headline[name])
        assert change["diff"] == change["new"] - change["old"] < 0

    written_to = workshop.ok(sys.executable, "-m", "cbir", "report", "--compare", "HEAD", "another-index").strip()
    assert written_to == "reports/comparisons/HEAD-another-index.html"
    page = (workshop.root / written_to).read_text(encoding="utf-8")
    assert re.search(r'index\.kind<td class="text">flat<td class="text">hnsw', page)
    assert "cbir clip_demo: every query has the same map_at_r in both" in page
    assert "?? reports/comparisons" not in workshop.ok("git", "status", "--short")


THIRD = "mobilenet_v3_small"


def test_another_encoder_runs_alone_leaves_and_comes_back(workshop: Clone) -> None:
    """Its own stages and the report run when it comes; its artifacts go with it, and DVC's cache has them again."""
    before = files_below(workshop.root)
    three = f"encoders=[{','.join((*ENCODERS, THIRD))}]"
    workshop.compose(three, *TINY, f"encoders.{THIRD}.weights=random:0", f"encoders.{THIRD}.image_px=32")
    output = workshop.dvc("repro")
    for_all = {"scan", "packing", "report"}  # packing finds that the images are large enough
    assert ran(output) == {f"{stage}@{THIRD}" for stage in PER_ENCODER} | for_all
    assert skipped(output) == EVERY_STAGE - for_all
    with_third = files_below(workshop.root)
    own = {name for name in with_third if THIRD in name}
    assert {name for name in own if name.startswith("reports/metrics/")} == {f"reports/metrics/{THIRD}.json"}
    shared = {name for name in before if before[name] != with_third[name]}
    assert {name for name in shared if not name.startswith(("reports/report.", "reports/plots/"))} == {
        "data/encoders.json",
        "reports/comparison.json",
        "reports/encoders.json",
    }
    assert f"cbir {THIRD}" in (workshop.root / "reports/report.md").read_text(encoding="utf-8")
    assert sorted(workshop.ok("git", "status", "--short", "--untracked-files=all", "reports").split()[1::2]) == [
        f"reports/latency/{THIRD}.json",
        f"reports/metrics/{THIRD}.json",
        "reports/report.md",
    ]

    workshop.compose(*TINY)
    assert ran(workshop.dvc("repro")) <= for_all
    assert files_below(workshop.root).keys() == before.keys()
    report = (workshop.root / "reports/report.md").read_text(encoding="utf-8")
    assert f"cbir {THIRD}" not in report
    assert "DVC: all files match dvc.lock" in report

    workshop.compose(three, *TINY, f"encoders.{THIRD}.weights=random:0", f"encoders.{THIRD}.image_px=32")
    # DVC restores no output outside its cache but metrics, so the second of work that latency takes is done again
    assert ran(workshop.dvc("repro")) <= for_all | {f"latency@{THIRD}"}
    again = files_below(workshop.root)
    assert again.keys() == with_third.keys()
    changed = {name for name in again if again[name] != with_third[name]}
    assert {name for name in changed if not name.startswith("reports/report.")} <= {
        f"reports/latency/{THIRD}.json",
        f"data/timings/latency@{THIRD}.json",
        "reports/plots/recall_latency.json",
    }


def test_the_report_names_its_commit_and_files(finished: Finished) -> None:
    clone = finished.clone
    page = (clone.root / "reports/report.html").read_text(encoding="utf-8")
    before = clone.ok("git", "rev-parse", "HEAD~1").strip()  # the run itself was committed after it
    assert f"Git revision: {before}, with uncommitted changes in params.yaml" in page
    assert "DVC: all files match dvc.lock" in page
    lock = yaml.safe_load((clone.root / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    for stage in ("embed@clip_demo", "evaluate@mobilenet_demo"):
        for out in lock[stage]["outs"]:
            assert out["md5"] in page, out
    timed = {Path(name).stem for name in files_below(clone.root) if name.startswith("data/timings/")}
    assert set(re.findall(r"<tr><th>([a-z_@]+)<td>[0-9][^<]* s<td>", page)) == timed


def test_dvc_draws_the_queries_that_the_report_shows(workshop: Clone) -> None:
    plots = json.loads(workshop.dvc("plots", "show", "--json"))
    pictures = [name for name in plots.get("data", plots) if name.endswith(".png")]
    on_disk = [str(path.relative_to(workshop.root)) for path in (workshop.root / "reports/plots").rglob("*.png")]
    assert sorted(pictures) == sorted(on_disk)
    assert all(re.fullmatch(r"reports/plots/galleries/(cbir|tbir)_\w+/[0-9]+\.png", name) for name in pictures)
    assert len(pictures) > 10


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "encoders.mobilenet_demo.wieghts=1",
            "Key 'wieghts' not in 'EncoderParams'\n *full_key: encoders.mobilenet_demo.wieghts",
        ),
        ("dataset=shpes", r"Could not find 'dataset/shpes'\s+Available options in 'dataset':\s+image_folder\s+shapes"),
        ("dataset.seed=abc", "Value 'abc' of type 'str' could not be converted to Integer\n *full_key: dataset.seed"),
        ("dataset=image_folder", r"error: params\.yaml: dataset\.url has no value: add the override `dataset\.url="),
        ("+foo=1", r"error: params\.yaml: unknown parameter 'foo'"),
    ],
)
def test_an_experiment_with_a_wrong_override_fails_and_says_why(workshop: Clone, override: str, message: str) -> None:
    before = files_below(workshop.root)
    ended = workshop.run(sys.executable, "-m", "dvc", "exp", "run", *set_params(override))
    assert ended.returncode != 0
    assert re.search(message, ended.stderr), ended.stderr
    assert "Traceback" not in ended.stderr
    assert ran(ended.stdout) <= {"scan"}
    after = files_below(workshop.root)
    assert {name: digest for name, digest in before.items() if not within(name, "data/local")}.items() <= after.items()


# ---- demo weights


def test_a_run_with_other_weights_needs_no_demo_file(workshop: Clone) -> None:
    for name in ("mobilenet", "clip"):
        (workshop.root / f"cbir/demo/weights/{name}.safetensors").unlink()
    assert ran(workshop.dvc("repro")) == {"scan"}
    workshop.compose(*TINY[:2], "encoders.mobilenet_demo.weights=demo:mobilenet")
    ended = workshop.run(sys.executable, "-m", "dvc", "repro", "weights@mobilenet_demo")
    assert re.search(
        r"error: encoders\.mobilenet_demo\.weights: demo:mobilenet: .*; run `git checkout cbir/demo/weights`, or",
        ended.stderr,
    )


@pytest.mark.slow
def test_changed_demo_weights_are_noticed_by_run_and_card(workshop: Clone) -> None:
    check = "import cbir.demo.card as card, cbir.core.errors as errors, pathlib\n"
    check += "with errors.one_line_errors(): card.check_finished(pathlib.Path.cwd())"
    workshop.compose(*TINY[:2], "encoders.clip_demo.weights=random:0")
    changed = ("weights@mobilenet_demo", "embed@mobilenet_demo")
    assert set(changed) <= ran(workshop.dvc("repro"))
    workshop.ok(sys.executable, "-c", check)
    path = workshop.root / "cbir/demo/weights/mobilenet.safetensors"
    body = bytearray(path.read_bytes())
    body[-1] ^= 1
    path.write_bytes(body)
    told = workshop.run(sys.executable, "-c", check).stderr.splitlines()[-1]
    assert re.fullmatch(r"error: .*: expected a finished run, found changes for .*weights@mobilenet_demo; run .*", told)
    log = path.with_suffix(".json")
    log.write_text(json.dumps({**json.loads(log.read_text()), "sha256": hashlib.sha256(body).hexdigest()}))
    again = ran(workshop.dvc("repro"))
    assert set(changed) <= again
    assert not {"weights@clip_demo", "embed@clip_demo"} & again
    workshop.ok(sys.executable, "-c", check)


# ---- the user's own folder


def test_a_change_in_the_users_folder_is_noticed(workshop: Clone, tmp_path: Path) -> None:
    """And a dangling link is no obstacle."""
    photos = tmp_path / "photos"
    write_photos(photos)
    (photos / "cats" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    own = ("dataset=image_folder", f"dataset.url={photos}", "dataset.queries_per_class=1")
    workshop.compose(*own, "dataset.max_bad_fraction=0.5", *RANDOM)

    def images() -> tuple[int, int, dict[str, int]]:
        summary = json.loads((workshop.root / "data/images/summary.json").read_text(encoding="utf-8"))
        return summary["gallery"]["images"], summary["queries"]["images"], summary["quarantine"]

    assert ran(workshop.dvc("repro", "preprocess")) == {"scan", "download", "preprocess"}
    assert images() == (6, 2, {"dangling link": 1})
    assert ran(workshop.dvc("repro", "preprocess")) == {"scan"}
    (photos / "dogs" / "new.jpg").write_bytes(picture(50))
    assert ran(workshop.dvc("repro", "preprocess")) == {"scan", "download", "preprocess"}
    assert images() == (7, 2, {"dangling link": 1})
    (photos / "dogs" / "new.jpg").write_bytes(picture(51))
    assert ran(workshop.dvc("repro", "preprocess")) == {"scan", "download", "preprocess"}

    asked = tmp_path / "asked"
    asked.mkdir()
    (asked / "mine.jpg").write_bytes(picture(60))
    (asked / "list.csv").write_text("query_id,task,image,label\nq,cbir,mine.jpg,cats\n")
    workshop.compose(
        *own, "dataset.max_bad_fraction=0.5", *RANDOM, "queries=file", f"queries.path={asked / 'list.csv'}"
    )
    assert ran(workshop.dvc("repro", "preprocess")) == {"scan", "preprocess"}
    assert ran(workshop.dvc("repro", "preprocess")) == {"scan"}
    (asked / "mine.jpg").write_bytes(picture(61))
    assert ran(workshop.dvc("repro", "preprocess")) == {"scan", "preprocess"}
