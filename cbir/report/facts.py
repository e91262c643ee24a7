"""The facts of a run, gathered from what the stages left, for every form of the report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cbir.artifacts.files import read_json
from cbir.artifacts.images import read_quarantine

ENCODERS = ("mobilenet", "clip")
TASKS = {"cbir": "image query -> similar images", "tbir": "text query -> images"}


@dataclass(frozen=True)
class Facts:
    """Everything that a report tells; plain JSON values as the artifacts hold them, by encoder where they are of one."""

    metrics: dict[str, Any]
    latency: dict[str, Any]
    summary: dict[str, Any]
    passports: dict[str, dict[str, Any]]
    builds: dict[str, dict[str, Any]]
    quarantine: list[dict[str, Any]]

    @property
    def warnings(self) -> list[str]:
        """What a reader must know before any number, most important first."""
        found = []
        random = [name for name in ENCODERS if self.vectors(name)["origin"].startswith("random:")]
        if random:
            found.append(
                f"The weights of {' and '.join(random)} are random, not trained: these figures show that the pipeline runs, "
                "and nothing about images. Real encoders: `mobilenet=large clip=vit_b_32`."
            )
        for task, count in self.metrics["data"]["queries_without_relevant"].items():
            if count:
                found.append(
                    f"{count} {task} queries have no relevant image in the gallery and are left out of the means."
                )
        bad = len(self.quarantine)
        if bad:
            found.append(f"{bad} images could not be decoded and are in quarantine; they are in no figure.")
        if self.summary["dataset"] == "tiny_imagenet" and self._imagenet_weights():
            found.append(
                "MobileNetV3's ImageNet weights were trained with the labels of which Tiny ImageNet's are a subset: its "
                "figures are of classes that it was taught."
            )
        return found

    @property
    def ann_ks(self) -> list[int]:
        """Every k of ann_recall@k."""
        names = {name for found in self.metrics["ann"].values() for values in found.values() for name in values}
        return sorted(int(name.partition("@")[2]) for name in names if name.startswith("ann_recall@"))

    @property
    def cost_k(self) -> int:
        """The k whose precision shows what the index costs: 10, or the k nearest to it."""
        names = {name for found in self.metrics["ann"].values() for values in found.values() for name in values}
        ks = [int(name.partition("@")[2]) for name in names if name.startswith("precision@")]
        return min(ks, key=lambda k: (abs(k - 10), k), default=10)

    def vectors(self, encoder: str) -> dict[str, Any]:
        """The passport of an encoder's vectors."""
        passport: dict[str, Any] = self.passports[encoder]["vectors"]
        return passport

    def _imagenet_weights(self) -> bool:
        return str(self.vectors("mobilenet")["tag"]).startswith("IMAGENET1K")


def gather_facts(data: Path, reports: Path) -> Facts:
    """Read the artifacts of a finished run.  Raises DataError when one is absent."""
    indexes = data / "index"
    return Facts(
        metrics=read_json(reports / "metrics.json"),
        latency=read_json(reports / "latency.json"),
        summary=read_json(data / "images" / "summary.json"),
        passports={name: read_json(indexes / name / "passport.json") for name in ENCODERS},
        builds={name: read_json(indexes / name / "build.json") for name in ENCODERS},
        quarantine=read_quarantine(data / "images" / "quarantine.parquet").to_pylist(),
    )
