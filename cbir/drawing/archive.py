"""The embedded data set as one zip archive: gallery/*.jpg, queries/*.jpg, and attributes.jsonl for all drawings."""

import json
import zipfile
from dataclasses import asdict
from functools import partial
from pathlib import Path

from cbir.core.files import replacing
from cbir.core.parallel import ordered_map, process_pool
from cbir.core.progress import progress
from cbir.drawing.draw import Drawing, sample

ATTRIBUTES = "attributes.jsonl"
_CHUNK = 100  # drawings per job of a process
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # fixed, so that the archive has the same bytes each time


def draw_archive(out: Path, seed: int, gallery_images: int, query_images: int, workers: int) -> None:
    """Draw both splits into a zip archive.  The bytes depend on the seed and the numbers of images, not on `workers`."""
    jobs = [
        (split, first, min(_CHUNK, images - first))
        for split, images in (("gallery", gallery_images), ("queries", query_images))
        for first in range(0, images, _CHUNK)
    ]
    lines = []
    with (
        replacing(out) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
        process_pool(workers) as pool,
        progress(gallery_images + query_images, "draw shapes", "images") as bar,
    ):
        for (split, _, _), drawings in zip(
            jobs, ordered_map(pool, partial(_draw_chunk, seed), jobs, ahead=4 * workers), strict=True
        ):
            for drawing in drawings:
                name = f"{split}/{drawing.name}.jpg"
                archive.writestr(zipfile.ZipInfo(name, _ZIP_TIME), drawing.jpeg)
                lines.append(json.dumps({"name": name, **asdict(drawing.attributes)}))
            bar.advance(len(drawings))
        archive.writestr(zipfile.ZipInfo(ATTRIBUTES, _ZIP_TIME), "\n".join(lines) + "\n")


def _draw_chunk(seed: int, job: tuple[str, int, int]) -> list[Drawing]:
    split, first, count = job
    return list(sample(seed, split, count, first=first))
