"""The facts of a run, gathered from what the stages left, for every form of the report."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from cbir.artifacts.images import read_quarantine
from cbir.artifacts.names import ENCODERS, REAL_ENCODERS
from cbir.artifacts.runs import read_confusions, read_duplicates, read_open_table
from cbir.core.files import read_json
from cbir.core.timing import TIMINGS, read_timings
from cbir.report.provenance import Provenance, read_provenance

TASKS = {"cbir": "image query -> similar images", "tbir": "text query -> images"}
MODALITIES = {"cbir": "image", "tbir": "text"}
GALLERY_IMAGE = "gallery image"
_SHOWN_FAILURES = 5
_SUFFIX = re.compile(r"\.[a-z0-9]{1,12}")
_NEARLY_ALL = 0.99
_AS_FAST = 1.1  # exact search may take so much longer and still be called as fast: times vary by as much


class Asker(NamedTuple):
    """What an index gave one kind of query: figures, what they lost against exact search, and the intervals of both."""

    task: str
    encoder: str
    who: str
    values: dict[str, float]
    intervals: dict[str, list[float]]
    cost: dict[str, float]
    cost_intervals: dict[str, list[float]]


@dataclass(frozen=True)
class Failures:
    """Where a task and encoder fail most, the worst first: rows of classes.parquet, confusions.parquet, per_query.parquet."""

    classes: list[dict[str, Any]]
    confusions: list[dict[str, Any]]
    queries: list[dict[str, Any]]


class Figure(NamedTuple):
    """A mean, None where undefined, and its 95 % interval, None where it has none."""

    value: float | None
    interval: list[float] | None = None


class Timed(NamedTuple):
    """A way of searching: the median time of one search, and ann_recall@k at the k of `Facts.ann_k`, None where undefined."""

    task: str
    encoder: str
    search: str
    p50_ms: float
    recall: float | None


@dataclass(frozen=True)
class Facts:
    """Everything that a report tells; plain JSON values as the artifacts hold them, by encoder where they are of one."""

    metrics: dict[str, Any]
    intervals: dict[str, Any]
    latency: dict[str, Any]
    summary: dict[str, Any]
    passports: dict[str, dict[str, Any]]
    builds: dict[str, dict[str, Any]]
    quarantine: list[dict[str, Any]]
    duplicates: list[dict[str, Any]]
    failures: dict[tuple[str, str], Failures]
    prompts: dict[str, dict[str, Any]]
    names: dict[str, str]
    timings: dict[str, dict[str, Any]]
    provenance: Provenance

    @property
    def warnings(self) -> list[str]:
        """What a reader must know before any number, most important first."""
        found = []
        demo = [name for name in ENCODERS if self.vectors(name)["origin"] == "demo"]
        if demo:
            found.append(
                f"The demo weights of {' and '.join(demo)} know this project's drawn shapes only: their figures say nothing "
                f"about photographs. For real encoders {REAL_ENCODERS}."
            )
        random = [name for name in ENCODERS if self.vectors(name)["origin"].startswith("random:")]
        if random:
            found.append(
                f"The weights of {' and '.join(random)} are random, not trained: these figures show that the pipeline runs, "
                f"and nothing about images. For real encoders {REAL_ENCODERS}."
            )
        if not self.metrics["data"]["queries"]:
            found.append("The query list is empty: nothing was asked, so there is no figure.")
        if not any(self.families(task) for task in TASKS) and self.answered:
            found.append("No figure of quality: give class folders, or a query list with labels or qrels.")
        ignored = self.summary["ignored_files"]
        if ignored:
            named = Counter[str]()
            for suffix, count in ignored.items():  # a suffix is text from data
                named[suffix if _SUFFIX.fullmatch(suffix) else "other suffixes" if suffix else "without suffix"] += (
                    count
                )
            kinds = ", ".join(f"{suffix}: {count:,}" for suffix, count in named.items())
            found.append(
                f"Files left out because their names are no images' names ({kinds}): convert those that are images."
            )
        for task, count in self.metrics["data"]["queries_without_relevant"].items():
            if count:
                which = "query has" if count == 1 else "queries have"
                found.append(f"{count:,} {task} {which} no relevant image in the gallery: left out of the means.")
        for task, by_chance in self.metrics["chance"].items():
            if (by_chance.get("precision") or 0.0) >= _NEARLY_ALL:
                found.append(f"Nearly every gallery image is relevant to every {task} query: its figures say nothing.")
        doubled = self.metrics["data"]["duplicates"]["queries"]
        if doubled:
            which = "image query has a copy" if doubled == 1 else "image queries have copies"
            found.append(f"{doubled:,} {which} in the gallery: see *Duplicates* for the figures without them.")
        if any(who == GALLERY_IMAGE for asked in self.metrics["ann"].values() for who in asked):
            found.append(
                "Some image queries are gallery images: an index finds what it holds more easily, so ann_recall is given apart."
            )
        bad = len(self.quarantine)
        if bad:
            which = "image could not be decoded and is" if bad == 1 else "images could not be decoded and are"
            found.append(f"{bad:,} {which} in quarantine: in no figure.")
        if self.summary["dataset"] == "tiny_imagenet" and self._imagenet_weights():
            found.append(
                "MobileNetV3's ImageNet weights were trained with the labels of which Tiny ImageNet's are a subset: its "
                "figures are of classes that it was taught."
            )
        return found

    @property
    def answered(self) -> list[tuple[str, str]]:
        """Every (task, encoder) that there are figures of."""
        return [(task, encoder) for task in TASKS for encoder in self.metrics[task]]

    @property
    def titles(self) -> list[str]:
        """The heading of each that answered."""
        return [f"{task} {encoder}" for task, encoder in self.answered]

    @property
    def settings(self) -> dict[str, list[str]]:
        """What made the figures: name -> one value for each encoder."""
        rows: dict[str, list[str]] = {}
        for name in ENCODERS:
            vectors, index = self.vectors(name), self.passports[name]
            pixels = vectors["preprocessing"]
            for key, value in {
                "architecture": vectors["architecture"],
                "weights": f"{vectors['origin']} ({vectors['weights_sha256'][:12]})",
                "input": f"{pixels['crop_px']} px of {pixels['resize_px']}, {pixels['interpolation']}",
                "dimensions": str(vectors["dim"]),
                "device, backend, precision": f"{vectors['device']}, {vectors['backend']}, {vectors['precision']}",
                "index": f"{index['kind']} ({index['factory']})",
                "libraries": ", ".join(f"{library} {version}" for library, version in vectors["versions"].items()),
            }.items():
                rows.setdefault(key, []).append(value)
        return rows

    @property
    def passport_rows(self) -> dict[str, list[str]]:
        """Everything that the passports of indexes and vectors say: name -> one value for each encoder."""
        told = [flat(self.passports[name]) for name in ENCODERS]
        names = dict.fromkeys(name for found in told for name in found)
        return {name: [found.get(name, "-") for found in told] for name in names}

    @property
    def machines(self) -> list[str]:
        """Every machine that a stage ran on, in words."""
        found = [one["machine"] for one in self.timings.values()]
        return list(dict.fromkeys(f"{one['processor']}, {one['cores']} cores, {one['system']}" for one in found))

    @property
    def timed(self) -> list[tuple[str, str, str, dict[str, Any]]]:
        """Every measurement of speed: encoder, image or text, index or exact, and what was measured."""
        return [
            (encoder, modality, by, measured)
            for encoder, found in self.latency["encoders"].items()
            for modality, by_search in found.items()
            for by, measured in by_search.items()
        ]

    @property
    def headline(self) -> dict[str, list[Figure]]:
        """The figures that matter most: name -> one for each that answered."""
        ks, ann_ks = self._ks("precision"), self.ann_ks
        k, least, ann_k = _nearest(ks, 10), min(ks, default=1), _nearest(ann_ks, 10)
        rows = {
            f"precision@{k}": self._figures(f"precision@{k}"),
            "precision by chance": [Figure(self.metrics["chance"][task].get("precision")) for task, _ in self.answered],
        }
        rows |= {name: self._figures(name) for name in (f"success@{least}", "map_at_r", f"ndcg@{k}")}
        name = f"ann_recall@{ann_k}"
        asked = {
            (one.task, one.encoder): one for one in reversed(self.askers)
        }  # an image of outside before one of inside
        rows[name] = [Figure(asked[one].values.get(name), asked[one].intervals.get(name)) for one in self.answered]
        rows["p50 of one search, ms"] = [Figure(self.p50_ms(task, encoder)) for task, encoder in self.answered]
        return {name: found for name, found in rows.items() if any(one.value is not None for one in found)}

    @property
    def recall_over_time(self) -> list[Timed]:
        """Each index, and exact search, which misses nothing, for each that answered and was timed."""
        return [
            Timed(
                task,
                encoder,
                by,
                measured["single_ms"]["p50"],
                1.0 if by == "exact" else self.indexed(task, encoder).get(f"ann_recall@{self.ann_k}"),
            )
            for task, encoder in self.answered
            for by, measured in self.latency["encoders"].get(encoder, {}).get(MODALITIES[task], {}).items()
        ]

    def ceilings_of(self, name: str) -> list[float | None]:
        """The best that any ranking could reach in a metric, for each that answered."""
        return [self.metrics["ceilings"][task].get(name) for task, _ in self.answered]

    @property
    def index_kinds(self) -> str:
        """What kind of index the encoders have."""
        return " and ".join(dict.fromkeys(passport["kind"] for passport in self.passports.values()))

    @property
    def ann_ks(self) -> list[int]:
        """Every k of ann_recall@k."""
        return self._ks("ann_recall")

    @property
    def ann_k(self) -> int:
        """The k of ann_recall@k that the page speaks of: 10, or the k nearest to it."""
        return _nearest(self.ann_ks, 10)

    @property
    def cost_k(self) -> int:
        """The k whose precision shows what the index costs: 10, or the k nearest to it."""
        return _nearest(self._ks("precision"), 10)

    def families(self, task: str) -> dict[str, list[int]]:
        """The task's metrics that have a k, and their ks, in the order of metrics.json."""
        found: dict[str, list[int]] = {}
        for name in self._names(task):
            family, at, k = name.partition("@")
            if at:
                found.setdefault(family, []).append(int(k))
        return found

    def without_k(self, task: str) -> list[str]:
        """The task's metrics that look at the whole ranking, in the order of metrics.json."""
        return [name for name in self._names(task) if "@" not in name]

    @property
    def askers(self) -> list[Asker]:
        """What each encoder's index gave each kind of query, images from outside the gallery first."""
        return [
            Asker(
                task,
                encoder,
                who,
                values,
                self.intervals["ann"][encoder][who],
                self.metrics["ann_cost"][encoder][who],
                self.intervals["ann_cost"][encoder][who],
            )
            for task, encoder in self.answered
            for who, values in self.metrics["ann"][encoder].items()
            if (who == MODALITIES["tbir"]) == (task == "tbir")
        ]

    def indexed(self, task: str, encoder: str) -> dict[str, float]:
        """The metrics of what the encoder's index returned to queries from outside the gallery, where there are such."""
        return next(one.values for one in self.askers if (one.task, one.encoder) == (task, encoder))

    def class_name(self, label: str | None) -> str:
        """A class as people call it, with its label where that is another word."""
        return name_of(label, self.names)

    @property
    def as_fast(self) -> list[str]:
        """Where an approximate index answers a query no faster than exact search, in words."""
        found = []
        for encoder, asked in self.latency["encoders"].items():
            for modality, by in asked.items():
                index, exact = (by[name]["single_ms"]["p50"] for name in ("index", "exact"))
                if self.passports[encoder]["kind"] != "flat" and exact <= _AS_FAST * index:
                    found.append(
                        f"{encoder}, {modality} queries: exact search would be as fast (p50 {exact:.3f} ms, the index "
                        f"{index:.3f} ms), and misses nothing."
                    )
        return found

    @property
    def without_duplicates(self) -> dict[str, list[Figure]]:
        """The headline of image queries, with all of them and without those that are in the gallery, too."""
        names = [name for name in self.headline if name in next(iter(self.metrics["without_duplicates"].values()), {})]
        return {
            name: [
                Figure(part[encoder].get(name), intervals[encoder].get(name))
                for encoder in self.metrics["without_duplicates"]
                for part, intervals in (
                    (self.metrics["cbir"], self.intervals["cbir"]),
                    (self.metrics["without_duplicates"], self.intervals["without_duplicates"]),
                )
            ]
            for name in names
        }

    def p50_ms(self, task: str, encoder: str) -> float | None:
        """Milliseconds within which the encoder's index answers half of the queries; None where it was not timed."""
        timed = self.latency["encoders"].get(encoder, {}).get(MODALITIES[task])
        return None if timed is None else float(timed["index"]["single_ms"]["p50"])

    def vectors(self, encoder: str) -> dict[str, Any]:
        """The passport of an encoder's vectors."""
        passport: dict[str, Any] = self.passports[encoder]["vectors"]
        return passport

    def _figures(self, name: str) -> list[Figure]:
        return [
            Figure(self.metrics[task][encoder].get(name), self.intervals[task][encoder].get(name))
            for task, encoder in self.answered
        ]

    def _names(self, task: str) -> list[str]:
        return list(next(iter(self.metrics[task].values()), {}))

    def _ks(self, family: str) -> list[int]:
        names = {name for found in self.metrics["ann"].values() for values in found.values() for name in values}
        return sorted(int(name.partition("@")[2]) for name in names if name.startswith(f"{family}@"))

    def _imagenet_weights(self) -> bool:
        return str(self.vectors("mobilenet")["tag"]).startswith("IMAGENET1K")


def gather_facts(data: Path, reports: Path) -> Facts:
    """Read the artifacts of a finished run.  Raises DataError when one is absent."""
    indexes = data / "index"
    return Facts(
        metrics=read_json(reports / "metrics.json"),
        intervals=read_json(reports / "intervals.json"),
        latency=read_json(reports / "latency.json"),
        summary=read_json(data / "images" / "summary.json"),
        passports={name: read_json(indexes / name / "passport.json") for name in ENCODERS},
        builds={name: read_json(indexes / name / "build.json") for name in ENCODERS},
        quarantine=read_quarantine(data / "images" / "quarantine.parquet").to_pylist(),
        duplicates=read_duplicates(reports / "duplicates.parquet").to_pylist(),
        failures=_failures(reports),
        prompts=read_json(reports / "prompts.json"),
        names=class_names(reports),
        timings=read_timings(data / TIMINGS.name),
        provenance=read_provenance(data.parent),
    )


def name_of(label: str | None, names: Mapping[str, str]) -> str:
    """A class as people call it, with its label where that is another word."""
    if label is None:
        return "-"
    name = short_name(label, names)
    return name if names.get(label, label) == label else f"{name} ({label})"


def short_name(label: str, names: Mapping[str, str]) -> str:
    """A class as people call it."""
    name = names.get(label, label)
    return name if name.strip() else "(blank)"


def class_names(reports: Path) -> dict[str, str]:
    """label -> the first of the names that people call it, for every class that was asked for or found."""
    classes, confused = read_open_table(reports / "classes.parquet"), read_confusions(reports / "confusions.parquet")
    if "name" not in classes.column_names:
        return {}
    names = dict(zip(confused["found"].to_pylist(), confused["found_name"].to_pylist(), strict=True))
    names |= dict(zip(classes["label"].to_pylist(), classes["name"].to_pylist(), strict=True))
    return {label: name.split(", ")[0] for label, name in names.items()}


def _failures(reports: Path) -> dict[tuple[str, str], Failures]:
    classes, per_query = (read_open_table(reports / f"{name}.parquet") for name in ("classes", "per_query"))
    confusions = read_confusions(reports / "confusions.parquet")
    found = {}
    for task, encoder in dict.fromkeys(
        zip(*(per_query[name].to_pylist() for name in ("task", "encoder")), strict=True)
    ):
        answered = {"task": task, "encoder": encoder}
        found[task, encoder] = Failures(
            _worst(classes, answered),
            _rows(confusions, answered, _SHOWN_FAILURES),
            _worst(per_query, answered | {"search": "exact"}),
        )
    return found


def _worst(table: pa.Table, of: dict[str, str]) -> list[dict[str, Any]]:
    """The rows of least map_at_r, those of least mrr first among them; none that is perfect or undefined."""
    if "map_at_r" not in table.column_names:
        return []
    defined = table.filter(pc.fill_null(pc.less(table["map_at_r"], 1.0), False))
    return _rows(defined.sort_by([("map_at_r", "ascending"), ("mrr", "ascending")]), of, _SHOWN_FAILURES)


def _rows(table: pa.Table, of: dict[str, str], number: int) -> list[dict[str, Any]]:
    for name, value in of.items():
        table = table.filter(pc.equal(table[name], value))
    rows: list[dict[str, Any]] = table.slice(0, number).to_pylist()
    return rows


def flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested values under dotted names, texts as they are, the others as JSON.

    >>> flat({"index": {"kind": "flat", "nlist": None}})
    {'index.kind': 'flat', 'index.nlist': 'null'}
    """
    found: dict[str, str] = {}
    for name, value in node.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return found


def _nearest(ks: list[int], wanted: int) -> int:
    return min(ks, key=lambda k: (abs(k - wanted), k), default=wanted)
