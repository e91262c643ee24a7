"""`python -m cbir.demo.card`: write the model card of the demo weights from the training logs and the default run's figures.

Needs a finished run of the default parameters and refuses any other.  For comparison, the same stages run the same encoders
with random weights on the same images and queries in a temporary folder.
"""

import subprocess
import sys
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from safetensors.numpy import load_file

from cbir.artifacts.evaluations import read_metrics
from cbir.artifacts.metrics import Metrics
from cbir.artifacts.names import REAL_ENCODERS
from cbir.artifacts.paths import DataPaths, ReportPaths
from cbir.compose import composed
from cbir.core.errors import DataError, one_line_errors
from cbir.core.files import read_json, replacing
from cbir.core.params import PARAMS_FILE, read_yaml
from cbir.drawing.attributes import COLOURS, SHAPES, Attributes
from cbir.drawing.unseen import UNSEEN_LABELS
from cbir.encoders.demo import DEMO_WEIGHTS
from cbir.report.figures import figure
from cbir.schema import GROUPS, checked

CARD = DEMO_WEIGHTS / "README.md"
IMAGE_ENCODER, TEXT_ENCODER = "mobilenet_demo", "clip_demo"  # of the default run
ENCODERS = (IMAGE_ENCODER, TEXT_ENCODER)
FILES = {IMAGE_ENCODER: "mobilenet", TEXT_ENCODER: "clip"}  # of their weights
# what a run with random weights takes from the default run
_LINKED = ("cbir", "stages", DataPaths().all_images, DataPaths().queries)
_REMEDY = "run `cbir compose`, then `make repro`"


def check_parameters(root: Path) -> None:
    """Raise DataError unless params.yaml is the default, except for the group `device`, which changes no result."""
    groups = [name for name in GROUPS if name != "device"]
    params = checked(read_yaml(root / PARAMS_FILE), PARAMS_FILE.name)
    default = checked(yaml.safe_load(composed(conf_dir=root / "conf")), "conf/")
    if changed := [name for name in groups if getattr(params, name) != getattr(default, name)]:
        raise DataError(f"{PARAMS_FILE}: expected the default, found other values of {', '.join(changed)}; {_REMEDY}")


def check_finished(root: Path) -> None:
    """Raise DataError unless `root` has a finished run of its parameters, code and demo weights."""
    from dvc.exceptions import DvcException  # takes seconds
    from dvc.repo import Repo

    _run_stage(root, "scan")  # so that DVC notices changed weights
    try:
        with Repo(str(root)) as repo:
            status = repo.status()
    except DvcException as error:
        raise DataError(f"{root}: expected DVC's repository with a finished run, found {error}; {_REMEDY}") from error
    if changed := sorted(stage for stage, reasons in status.items() if reasons != ["always changed"]):
        raise DataError(f"{root}: expected a finished run, found changes for {', '.join(changed)}; {_REMEDY}")


def figures(metrics: Metrics) -> list[tuple[str, str, float]]:
    """(title, name of the metric, value) for each row of the card's table."""
    unseen, texts = metrics.subsets["cbir"], metrics.subsets["tbir"][TEXT_ENCODER]
    rows = [
        *((f"cbir {name}", metric, metrics.cbir[name]) for name in ENCODERS for metric in ("precision@10", "map_at_r")),
        *((f"cbir {name}, unseen", "precision@10", unseen[name]["unseen"]) for name in ENCODERS),
        (f"tbir {TEXT_ENCODER}, class prompts", "success@1", texts["class prompts"]),
        (f"tbir {TEXT_ENCODER}, class prompts", "precision@10", texts["class prompts"]),
        (f"tbir {TEXT_ENCODER}, class prompts, unseen", "precision@10", texts["class prompts/unseen"]),
        (f"tbir {TEXT_ENCODER}, captions", "ndcg@10", texts["captions"]),
        (f"tbir {TEXT_ENCODER}, captions, unseen", "ndcg@10", texts["captions/unseen"]),
    ]
    return [(title, metric, values[metric]) for title, metric, values in rows]


def random_metrics(root: Path) -> Metrics:
    """The metrics of the run in `root` with random weights."""
    with tempfile.TemporaryDirectory() as folder:
        random_root = Path(folder)
        (random_root / DataPaths().root).mkdir()
        for name in _LINKED:
            (random_root / name).symlink_to((root / name).resolve())
        overrides = [f"encoders.{name}.weights=random:0" for name in ENCODERS]
        (random_root / PARAMS_FILE).write_text(composed(overrides, root / "conf"), encoding="utf-8")
        stages = [[stage, name] for stage in ("weights", "embed", "build_index", "evaluate") for name in ENCODERS]
        for stage, *arguments in [["scan"], *stages]:
            _run_stage(random_root, stage, *arguments)
        return read_metrics(ReportPaths(random_root / ReportPaths().root))


def _run_stage(root: Path, stage: str, *arguments: str) -> None:
    command = ["-m", f"stages.{stage}", *arguments]
    if subprocess.run([sys.executable, *command], cwd=root, check=False).returncode:
        raise DataError(f"python {' '.join(command)} failed in {root}, see its message above; {_REMEDY}")


def untrained_share(weights: Path) -> float:
    """The share of the weights that belong to torchvision's classifier, which no embedding uses and no training changes."""
    sizes = {name: tensor.size for name, tensor in load_file(weights).items()}
    return sum(size for name, size in sizes.items() if name.startswith("classifier.")) / sum(sizes.values())


def card(trained: Metrics, random: Metrics, logs: dict[str, dict[str, Any]]) -> str:
    """Render the card.  trained, random : metrics of both runs.  logs : the training log of each encoder."""
    environment = Environment(
        loader=PackageLoader("cbir.demo", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - Markdown of this project's own figures
    )
    environment.filters["figure"] = figure
    rows = [(*row, random_row[2]) for row, random_row in zip(figures(trained), figures(random), strict=True)]
    return environment.get_template("card.md.j2").render(
        rows=rows,
        logs=logs,
        chance=trained.chance["cbir"]["precision"],
        gallery=trained.data.gallery_images,
        attributes=[field.name for field in fields(Attributes)],
        labels=len(SHAPES) * len(COLOURS),
        unseen=sorted(UNSEEN_LABELS),
        real_encoders=REAL_ENCODERS,
        untrained=untrained_share(DEMO_WEIGHTS / "mobilenet.safetensors"),
        sizes={name: (DEMO_WEIGHTS / f"{file}.safetensors").stat().st_size for name, file in FILES.items()},
    )


def main() -> None:
    """Write the card.  Raises DataError unless the working directory has a finished default run."""
    root = Path.cwd()
    check_parameters(root)
    check_finished(root)
    logs = {name: read_json(DEMO_WEIGHTS / f"{file}.json", sealed=False) for name, file in FILES.items()}
    text = card(read_metrics(ReportPaths()), random_metrics(root), logs)
    with replacing(CARD) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"wrote {CARD}")


if __name__ == "__main__":
    with one_line_errors():
        main()
