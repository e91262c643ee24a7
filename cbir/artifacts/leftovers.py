"""The artifacts of encoders that an earlier run had."""

import shutil
from collections.abc import Collection

from cbir.artifacts.paths import DataPaths, ReportPaths


def delete_leftovers(data: DataPaths, reports: ReportPaths, encoders: Collection[str]) -> None:
    """Delete the artifacts of all encoders but these; DVC's cache keeps them, so a run that has them again restores them.

    Only what a stage has written is deleted: a folder that holds the stage's own file, or a file in a folder of such files.
    """
    folders = {
        data.all_weights: "encoder.json",
        data.all_embeddings: "gallery/passport.json",
        data.all_indexes: "passport.json",
        reports.all_evaluations: "metrics.json",
    }
    for parent, own_file in folders.items():
        for path in parent.glob("*"):
            if path.name not in encoders and (path / own_file).is_file():
                shutil.rmtree(path)
    for parent, suffix in (
        (data.all_maps, "parquet"),
        (reports.all_headlines, "json"),
        (reports.all_latencies, "json"),
        (reports.all_verifications, "json"),
    ):
        for path in parent.glob(f"*.{suffix}"):
            if path.stem not in encoders:
                path.unlink()
    for path in data.timings.glob("*@*.json"):
        if path.stem.partition("@")[2] not in encoders:
            path.unlink()
