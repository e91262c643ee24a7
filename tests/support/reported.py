"""Small worlds with pictures, maps, duplicates and provenance, and their report.html."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256, shake_256
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
from PIL import Image

from cbir.artifacts.images import PackedImage, Quarantined
from cbir.artifacts.maps import MAP_SCHEMA, write_map
from cbir.artifacts.paths import DataPaths, ReportPaths
from cbir.artifacts.vectors import read_passport
from cbir.core.files import hash_ids, read_json, write_json
from cbir.report.examples import Example, choose_examples
from cbir.report.facts import Facts
from cbir.report.html import write_html
from cbir.report.judged import JudgedCollection
from cbir.report.provenance import Output, Provenance
from tests.support import world as worlds
from tests.support.finished import HOSTILE, finish
from tests.support.world import DIMS, World, make_world

MAP_SIDE = 7  # images on each side of the grid that is the map
PICTURE_PX = 64
COPY, COPIED = "ask01", "img005"  # a query and the gallery image that it is a copy of
WORDS = tuple(sorted(HOSTILE.values()))
# Blank words stay blank, the others are replaced by their rank, so that both lists sort alike.
HARMLESS = tuple(word if not word.strip() else f"w{rank:02d}" for rank, word in enumerate(WORDS))
STAGE = {"wall_s": 75.0, "cpu_s": 12.34, "peak_mb": 1234}


@dataclass
class Reported:
    """A world with its facts, and the settings of its page."""

    world: World
    facts: Facts
    words: Sequence[str]
    seed: int = 0
    sampled: int = 5
    thumbnail_px: int = 96

    @property
    def data(self) -> DataPaths:
        return DataPaths(self.world.data)

    @property
    def reports(self) -> ReportPaths:
        return ReportPaths(self.world.root / "reports")

    @property
    def collection(self) -> JudgedCollection:
        return JudgedCollection(self.data)

    @property
    def examples(self) -> list[Example]:
        return choose_examples(self.collection, self.reports, self.sampled, self.seed)

    def write(self, out: Path) -> str:
        """Write report.html as the stage does, and return its text."""
        write_html(out, self.facts, self.collection, self.examples, self.data, self.reports, self.thumbnail_px)
        return out.read_text(encoding="utf-8")


# --- worlds -----------------------------------------------------------------------------------------------------------


def colour_of(image_id: str) -> tuple[int, int, int]:
    """The colour of an image, which differs from that of any other."""
    red, green, blue = shake_256(image_id.encode()).digest(3)
    return red, green, blue


def write_maps(world: World, side: int = MAP_SIDE, names: Sequence[str | None] | None = None) -> None:
    """Write a map for each encoder: the first images of the gallery as a grid, row by row from the top left.

    names : of the class of each image; None for its label.
    """
    ids = list(world.gallery)[: side * side]
    labels = [world.gallery[image_id] for image_id in ids]
    table = pa.table(
        {
            "image_id": ids,
            "label": pa.array(labels, pa.string()),
            "label_name": pa.array(labels if names is None else names, pa.string()),
            "x": [2 * (number % side) / max(1, side - 1) - 1 for number in range(len(ids))],
            "y": [1 - 2 * (number // side) / max(1, side - 1) for number in range(len(ids))],
        }
    ).cast(MAP_SCHEMA)
    for encoder in DIMS:
        (world.data / "map").mkdir(parents=True, exist_ok=True)
        of = (
            read_passport(world.embeddings / encoder / "gallery")["rows"]["vectors_sha256"]
            if encoder in world.vectors
            else None
        )
        write_map(world.data / "map" / f"{encoder}.parquet", table, of)


def reported(root: Path, change: Callable[[World], object] = lambda world: None, **options: Any) -> Reported:
    """Return the world of `tests.support.world.make_world`, changed, with a map; each image has one colour."""
    with mock.patch.object(worlds, "_packed", _coloured):
        world = make_world(root, **options)
        change(world)
        facts = finish(world.write())
    write_maps(world)
    return Reported(world, facts, ())


def worded(root: Path, words: Sequence[str]) -> Reported:
    """Return a world in which each text is one of `words`: labels, names, captions, ids, quarantine and provenance.

    words : as many as WORDS.  Worlds whose words sort alike have pages of the same structure.  One image query has a copy in
    the gallery.
    """
    n = len(words)
    labels = tuple(words[2 * number % n] for number in range(8))  # every other one, and
    names: dict[str | None, str | None] = {None: None}
    names |= {label: words[(2 * number + 1) % n] for number, label in enumerate((*labels, "c9"))}  # the others as names

    def packed(row: tuple[str, str | None]) -> PackedImage:
        image = _coloured(row)
        seen = hash_ids([COPIED if row[0].split()[0] == COPY else row[0].split()[0]])
        name, word = names[row[1]], words[len(row[0]) % n]
        fingerprint = shake_256(seen.encode()).digest(256)
        return replace(image, label_name=name, caption=word, source=f"{word}.jpg", fingerprint=fingerprint)

    with mock.patch.object(worlds, "LABELS", labels), mock.patch.object(worlds, "_packed", packed):
        world = make_world(root)
        _rename(world, words)
        world.origin = f"https://weights.example/{words[3]}"
        world.quarantine = [Quarantined(f"{n:02d} {word}", None, word, word[::-1], 7) for n, word in enumerate(words)]
        world.write()
        path = world.data / "images" / "summary.json"
        ignored = {word: 2 for word in words if word.strip()}
        write_json(path, {**read_json(path), "dataset": words[5], "ignored_files": ignored})
        for number, stage in enumerate(("embed@clip", "evaluate@clip")):
            machine = {"processor": words[number], "cores": 2, "system": words[-1]}
            write_json(
                world.data / "timings" / f"{stage}.json", {**STAGE, "machine": machine, "rows_from_cache": 1_234}
            )
        facts = finish(world)
    write_maps(world, names=[(*words, None)[number % (n + 1)] for number in range(MAP_SIDE**2)])  # every word
    past = Provenance(
        revision="0123456789abcdef0123456789abcdef01234567",
        changed=tuple(f"cbir/{word}" for word in words),
        params={f"{number:02d} {word}": [word, None] for number, word in enumerate(words)},
        outputs=tuple(Output(word, f"data/{word}", f"{number:032x}", 7) for number, word in enumerate(words)),
        differing=tuple(f"data/{word}" for word in words[:9]),
    )
    return Reported(world, replace(facts, provenance=past), words)


def _rename(world: World, words: Sequence[str]) -> None:
    """Append a word to each image, query and caption, without changing their order."""
    known = [*world.gallery, *(image_id for image_id in world.held_out if image_id not in world.gallery)]
    ids = {image_id: f"{image_id} {words[number % len(words)]}" for number, image_id in enumerate(known)}
    queries = {query.query_id: f"{query.query_id} {words[n % len(words)]}" for n, query in enumerate(world.queries)}
    world.gallery = {ids[image_id]: label for image_id, label in world.gallery.items()}
    world.held_out = {ids[image_id]: label for image_id, label in world.held_out.items()}
    for vectors in world.vectors.values():
        vectors["queries"][COPY] = vectors["gallery"][COPIED]
        for kind in ("gallery", "queries"):
            vectors[kind] = {ids[image_id]: vector for image_id, vector in vectors[kind].items()}
        if "texts" in vectors:
            vectors["texts"] = {queries[query_id]: vector for query_id, vector in vectors["texts"].items()}
    world.queries = [
        replace(
            query,
            query_id=queries[query.query_id],
            image_id=None if query.image_id is None else ids[query.image_id],
            text=None if query.text is None else words[number % len(words)],
        )
        for number, query in enumerate(world.queries)
    ]


def _coloured(row: tuple[str, str | None]) -> PackedImage:
    image_id, label = row
    file = BytesIO()
    Image.new("RGB", (PICTURE_PX, PICTURE_PX), colour_of(image_id)).save(file, "PNG")
    encoded = file.getvalue() + image_id.encode()  # decoders ignore what follows the image
    digest, fingerprint = sha256(encoded).hexdigest(), shake_256(image_id.encode()).digest(256)
    return PackedImage(
        image_id, label, label, None, f"{image_id}.png", digest, PICTURE_PX, PICTURE_PX, fingerprint, encoded
    )


def class_on_map(label: str | None, facts: Facts) -> str:
    """Return the name of an image's class on the map, without its label."""
    return "no class" if label is None else facts.names.get(label, label).strip() or "(blank)"
