"""`python -m cbir.demo.card`: write the demo weights' card, from their training's log and the default run's figures.

Needs a finished default run.  Beside its figures stand those of random weights: the same encoders on the same images and
queries, run by the same stages in a temporary folder.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from cbir.artifacts.files import read_json, replacing
from cbir.compose import composed
from cbir.config import ENCODERS
from cbir.demo import DEMO_WEIGHTS
from cbir.demo.drawing import COLOURS, SHAPES
from cbir.demo.unseen import UNSEEN_LABELS
from cbir.errors import DataError, told_in_one_line

CARD = DEMO_WEIGHTS / "README.md"
METRICS = Path("reports/metrics.json")
_SHARED = ("cbir", "stages", "data/images", "data/queries", "data/local")

FIGURES = [  # what is shown: a title, where it stands in metrics.json, and the metric
    *((f"cbir {name}", ("cbir", name), metric) for name in ENCODERS for metric in ("precision@10", "map_at_r")),
    *((f"cbir {name}, unseen", ("subsets", "cbir", name, "unseen"), "precision@10") for name in ENCODERS),
    ("tbir clip, class prompts", ("subsets", "tbir", "clip", "class prompts"), "success@1"),
    ("tbir clip, class prompts", ("subsets", "tbir", "clip", "class prompts"), "precision@10"),
    ("tbir clip, class prompts, unseen", ("subsets", "tbir", "clip", "class prompts/unseen"), "precision@10"),
    ("tbir clip, captions", ("subsets", "tbir", "clip", "captions"), "ndcg@10"),
    ("tbir clip, captions, unseen", ("subsets", "tbir", "clip", "captions/unseen"), "ndcg@10"),
]


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
            subprocess.run([sys.executable, "-m", f"stages.{stage}", *arguments], cwd=beside, check=True)
        return read_json(beside / METRICS)


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
    rows = [(*one, other[2]) for one, other in zip(figures(trained), figures(random), strict=True)]
    return environment.get_template("card.md.j2").render(
        rows=rows,
        logs=logs,
        chance=trained["chance"]["cbir"]["precision"],
        gallery=trained["data"]["gallery_images"],
        labels=len(SHAPES) * len(COLOURS),
        unseen=sorted(UNSEEN_LABELS),
        sizes={name: (DEMO_WEIGHTS / f"{name}.safetensors").stat().st_size for name in logs},
    )


def main() -> None:
    """Write the card; raises DataError when the last run was not one of the demo weights."""
    for name in ENCODERS:
        if (found := read_json(Path("data/weights") / name / "encoder.json")["origin"]) != "demo":
            raise DataError(
                f"data/weights/{name}: expected demo weights, found {found}; run `make repro` with the default"
            )
    logs = {name: read_json(DEMO_WEIGHTS / f"{name}.json") for name in ENCODERS}
    text = card(read_json(METRICS), random_metrics(Path.cwd()), logs)
    with replacing(CARD) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"{CARD} is written")


if __name__ == "__main__":
    with told_in_one_line():
        main()
