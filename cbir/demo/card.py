"""`python -m cbir.demo.card`: write the demo weights' card, from their training's log and the default run's figures.

Needs a finished default run, and refuses any other.  Beside its figures stand those of random weights: the same encoders on
the same images and queries, run by the same stages in a temporary folder.
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

from cbir.artifacts.names import ENCODERS, REAL_ENCODERS
from cbir.compose import GROUPS, checked, composed
from cbir.core.errors import DataError, one_line_errors
from cbir.core.files import read_json, replacing
from cbir.core.params import PARAMS_FILE, read_yaml
from cbir.drawing.attributes import COLOURS, SHAPES, Attributes
from cbir.drawing.unseen import UNSEEN_LABELS
from cbir.encoders.demo import DEMO_WEIGHTS
from cbir.report.figures import figure

CARD = DEMO_WEIGHTS / "README.md"
METRICS = Path("reports/metrics.json")
_SHARED = ("cbir", "stages", "data/images", "data/queries")
_REMEDY = "run `cbir compose`, then `make repro`"

FIGURES = [  # what is shown: a title, where it stands in metrics.json, and the metric
    *((f"cbir {name}", ("cbir", name), metric) for name in ENCODERS for metric in ("precision@10", "map_at_r")),
    *((f"cbir {name}, unseen", ("subsets", "cbir", name, "unseen"), "precision@10") for name in ENCODERS),
    ("tbir clip, class prompts", ("subsets", "tbir", "clip", "class prompts"), "success@1"),
    ("tbir clip, class prompts", ("subsets", "tbir", "clip", "class prompts"), "precision@10"),
    ("tbir clip, class prompts, unseen", ("subsets", "tbir", "clip", "class prompts/unseen"), "precision@10"),
    ("tbir clip, captions", ("subsets", "tbir", "clip", "captions"), "ndcg@10"),
    ("tbir clip, captions, unseen", ("subsets", "tbir", "clip", "captions/unseen"), "ndcg@10"),
]


def check_parameters(root: Path) -> None:
    """Raise DataError unless params.yaml is the default; the group `device` is free, for it changes no result."""
    groups = [name for name in GROUPS if name != "device"]
    found = checked(read_yaml(root / PARAMS_FILE), PARAMS_FILE.name)
    expected = checked(yaml.safe_load(composed(conf_dir=root / "conf")), "conf/")
    if others := [name for name in groups if getattr(found, name) != getattr(expected, name)]:
        raise DataError(f"{PARAMS_FILE}: expected the default, found another {', '.join(others)}; {_REMEDY}")


def check_finished(root: Path) -> None:
    """Raise DataError unless `root` holds the run of what lies there: parameters, code, and demo weights."""
    from dvc.exceptions import DvcException  # seconds
    from dvc.repo import Repo

    _run_stage(root, "scan")  # so that DVC sees weights that changed since
    try:
        with Repo(str(root)) as repo:
            status = repo.status()
    except DvcException as error:
        raise DataError(f"{root}: expected DVC's repository with a finished run, found {error}; {_REMEDY}") from error
    if changed := sorted(stage for stage, reasons in status.items() if reasons != ["always changed"]):
        raise DataError(f"{root}: expected a finished run, found changes for {', '.join(changed)}; {_REMEDY}")


def figures(metrics: dict[str, Any]) -> list[tuple[str, str, float]]:
    """(title, metric, value) of every row of FIGURES."""
    found = []
    for title, place, metric in FIGURES:
        values: Any = metrics
        for name in place:
            values = values[name]
        found.append((title, metric, float(values[metric])))
    return found


def random_metrics(root: Path) -> dict[str, Any]:
    """metrics.json of the run in `root`, had its encoders random weights."""
    with tempfile.TemporaryDirectory() as folder:
        beside = Path(folder)
        (beside / "data").mkdir()
        for name in _SHARED:
            (beside / name).symlink_to((root / name).resolve())
        overrides = [f"{name}.weights=random:0" for name in ENCODERS]
        (beside / "params.yaml").write_text(composed(overrides, root / "conf"), encoding="utf-8")
        stages = [[stage, name] for stage in ("weights", "embed", "build_index") for name in ENCODERS]
        for stage, *arguments in [*stages, ["evaluate"]]:
            _run_stage(beside, stage, *arguments)
        return read_json(beside / METRICS)


def _run_stage(root: Path, stage: str, *arguments: str) -> None:
    command = ["-m", f"stages.{stage}", *arguments]
    if subprocess.run([sys.executable, *command], cwd=root, check=False).returncode:
        raise DataError(f"python {' '.join(command)} failed in {root}, as it says above; {_REMEDY}")


def untrained_share(weights: Path) -> float:
    """Share of the numbers that are torchvision's classifier: no embedding uses it, so no training reaches it."""
    sizes = {name: tensor.size for name, tensor in load_file(weights).items()}
    return sum(size for name, size in sizes.items() if name.startswith("classifier.")) / sum(sizes.values())


def card(trained: dict[str, Any], random: dict[str, Any], logs: dict[str, dict[str, Any]]) -> str:
    """The card's text.  trained, random : metrics.json of both runs.  logs : what each encoder's training wrote down."""
    environment = Environment(
        loader=PackageLoader("cbir.demo", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - Markdown of our own numbers
    )
    environment.filters["figure"] = figure
    rows = [(*one, other[2]) for one, other in zip(figures(trained), figures(random), strict=True)]
    return environment.get_template("card.md.j2").render(
        rows=rows,
        logs=logs,
        chance=trained["chance"]["cbir"]["precision"],
        gallery=trained["data"]["gallery_images"],
        attributes=[field.name for field in fields(Attributes)],
        labels=len(SHAPES) * len(COLOURS),
        unseen=sorted(UNSEEN_LABELS),
        real_encoders=REAL_ENCODERS,
        untrained=untrained_share(DEMO_WEIGHTS / "mobilenet.safetensors"),
        sizes={name: (DEMO_WEIGHTS / f"{name}.safetensors").stat().st_size for name in logs},
    )


def main() -> None:
    """Write the card; raises DataError when what lies here is not the finished default run."""
    root = Path.cwd()
    check_parameters(root)
    check_finished(root)
    logs = {name: read_json(DEMO_WEIGHTS / f"{name}.json") for name in ENCODERS}
    text = card(read_json(METRICS), random_metrics(root), logs)
    with replacing(CARD) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"{CARD} is written")


if __name__ == "__main__":
    with one_line_errors():
        main()
