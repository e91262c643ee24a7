"""The facts of a run, which each form of the report presents."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from cbir.artifacts.comparison import EncoderComparison
from cbir.artifacts.latency import Latency, SearchTimes
from cbir.artifacts.metrics import GALLERY_IMAGE, IMAGE, TEXT, Bounds, Intervals, Means, Metrics, evaluated
from cbir.artifacts.names import MODALITIES
from cbir.artifacts.prompt_metrics import PromptSetMetrics
from cbir.artifacts.verification import Verification
from cbir.core.secrets import without_secrets
from cbir.evaluation.metrics import headline_k
from cbir.index.kinds import KINDS
from cbir.report.class_names import full_name
from cbir.report.failures import Failures
from cbir.report.figures import flatten
from cbir.report.provenance import Provenance

_AS_FAST = 1.1  # exact search counts as equally fast up to this multiple of the index's time: times vary as much


class Estimate(NamedTuple):
    """The mean of a metric, None if it is undefined, and its 95 % interval, None if there is none."""

    value: float | None
    interval: list[float] | None = None


class IndexMetrics(NamedTuple):
    """The metrics of an index for one kind of query.

    cost : the metrics with exact search minus those with the index.
    """

    task: str
    encoder: str
    query_kind: str
    values: Means
    intervals: Bounds
    cost: Means
    cost_intervals: Bounds


class TimedSearch(NamedTuple):
    """The median time of a single search, and ann_recall@k at `Facts.ann_k`, None if it is undefined."""

    task: str
    encoder: str
    search: str
    p50_ms: float
    recall: float | None


@dataclass(frozen=True)
class Facts:
    """The contents of a report.

    encoders : the names of the run's encoders.
    passports, builds : encoder -> passport and build of its index.  quarantine, duplicates : rows of these tables.
    failures : (task, encoder) -> failures.  prompts : encoder -> prompt set -> metrics.  names : label -> name of the class.
    timings : stage -> times.  comparison : of the encoders, by paired tests.  verifications : encoder -> comparison of
    its vectors with those of its library.
    """

    encoders: list[str]
    metrics: Metrics
    intervals: Intervals
    latency: Latency
    summary: dict[str, Any]
    passports: dict[str, dict[str, Any]]
    builds: dict[str, dict[str, Any]]
    quarantine: list[dict[str, Any]]
    duplicates: list[dict[str, Any]]
    failures: dict[tuple[str, str], Failures]
    prompts: dict[str, dict[str, PromptSetMetrics]]
    names: dict[str, str]
    timings: dict[str, dict[str, Any]]
    provenance: Provenance
    comparison: EncoderComparison
    verifications: dict[str, Verification]

    # --- what was run

    @property
    def evaluated(self) -> list[tuple[str, str]]:
        """Each (task, encoder) that has metrics."""
        return evaluated(self.metrics)

    @property
    def settings(self) -> dict[str, list[str]]:
        """Name of a setting -> one value per encoder."""
        rows: dict[str, list[str]] = {}
        for encoder in self.encoders:
            vectors, index = self.vectors(encoder), self.passports[encoder]
            pixels, runtime = _embedding_settings(vectors)
            for name, value in {
                "architecture": vectors["architecture"],
                "weights": f"{without_secrets(vectors['origin'])} ({vectors['weights_sha256'][:12]})",
                "input": pixels,
                "dimensions": str(vectors["dim"]),
                "device, backend, precision": runtime,
                "index": f"{index['kind']} ({index['factory']})",
                "verification": self.verifications[encoder].describe(),
            }.items():
                rows.setdefault(name, []).append(value)
        return rows

    @property
    def libraries(self) -> dict[str, list[str]]:
        """Names and versions of the libraries that embedded -> the encoders; usually the same for all."""
        encoders: dict[str, list[str]] = {}
        for encoder in self.encoders:
            if versions := self.vectors(encoder)["versions"]:
                used = ", ".join(f"{library} {version}" for library, version in versions.items())
                encoders.setdefault(used, []).append(encoder)
        return encoders

    @property
    def passport_rows(self) -> dict[str, list[str]]:
        """Field of the passports of indexes and vectors -> one value per encoder."""
        passports = [flatten(self.passports[encoder]) for encoder in self.encoders]
        names = dict.fromkeys(name for passport in passports for name in passport)
        return {name: [passport.get(name, "-") for passport in passports] for name in names}

    @property
    def machines(self) -> list[str]:
        """A description of each machine that ran a stage."""
        machines = [timing["machine"] for timing in self.timings.values()]
        return list(
            dict.fromkeys(
                f"{machine['processor']}, {machine['cores']} cores, {machine['system']}" for machine in machines
            )
        )

    def vectors(self, encoder: str) -> dict[str, Any]:
        """Return the passport of an encoder's vectors."""
        passport: dict[str, Any] = self.passports[encoder]["vectors"]
        return passport

    def class_name(self, label: str | None) -> str:
        """Return the name of a class, followed by its label if that differs."""
        return full_name(label, self.names)

    # --- retrieval quality

    @property
    def headline(self) -> dict[str, list[Estimate]]:
        """The most important metrics: name -> one estimate for each (task, encoder) in `evaluated`."""
        ks = self._ks("precision")
        k, smallest_k, recall = headline_k(ks), min(ks, default=1), f"ann_recall@{self.ann_k}"
        indexed = [self._index_metrics_of(task, encoder) for task, encoder in self.evaluated]
        names = (f"precision@{k}", f"success@{smallest_k}", "map_at_r", f"ndcg@{k}")
        rows = {name: self._estimates(name) for name in names}
        rows[recall] = [Estimate(index.values.get(recall), index.intervals.get(recall)) for index in indexed]
        rows["p50 of one search, ms"] = [Estimate(self.p50_ms(task, encoder)) for task, encoder in self.evaluated]
        return {
            name: estimates
            for name, estimates in rows.items()
            if any(estimate.value is not None for estimate in estimates)
        }

    def ceilings_of(self, task: str) -> list[float | None]:
        """Return the best value any ranking of the task could reach in each headline metric; None where it is 1, or unknown."""
        ceilings = (self.metrics.ceilings[task].get(name) for name in self.headline)
        return [None if value == 1.0 else value for value in ceilings]

    def chance_of(self, task: str) -> list[float | None]:
        """Return what a random ranking reaches in each headline metric of the task; None where it is unknown."""
        chance = self.metrics.chance[task]
        return [chance.get(name.partition("@")[0]) for name in self.headline]

    def families(self, task: str) -> dict[str, list[int]]:
        """Return family -> ks of the task's metrics that have a k, in the order of metrics.json."""
        families: dict[str, list[int]] = {}
        for name in self._names(task):
            family, at, k = name.partition("@")
            if at:
                families.setdefault(family, []).append(int(k))
        return families

    def without_k(self, task: str) -> list[str]:
        """Return the task's metrics that use the whole ranking, in the order of metrics.json."""
        return [name for name in self._names(task) if "@" not in name]

    @property
    def queries_with_duplicates(self) -> int:
        """The number of image queries with a copy in the gallery."""
        return len({pair["query_id"] for pair in self.duplicates})

    @property
    def gallery_image_queries(self) -> Literal["none", "some", "all"]:
        """Which of the image queries are gallery images, each left out of its own results."""
        kinds = {kind for values in self.metrics.ann.values() for kind in values} - {TEXT}
        return "none" if GALLERY_IMAGE not in kinds else "some" if IMAGE in kinds else "all"

    @property
    def without_duplicates(self) -> dict[tuple[str, str], dict[str, Estimate]]:
        """The headline metrics of cbir: (encoder, which queries) -> name -> estimate, over all queries and over those without a
        copy in the gallery; empty when each query has one."""
        groups = {
            "all": (self.metrics.cbir, self.intervals.cbir),
            "without duplicates": (self.metrics.without_duplicates, self.intervals.without_duplicates),
        }
        defined = next(iter(self.metrics.without_duplicates.values()), {})
        return {
            (encoder, queries): {
                name: Estimate(means[encoder].get(name), bounds[encoder].get(name))
                for name in self.headline
                if name in defined
            }
            for encoder in self.metrics.without_duplicates
            for queries, (means, bounds) in groups.items()
        }

    # --- the indexes

    def is_exact(self, encoder: str) -> bool:
        """Whether the encoder's index returns the exact neighbours."""
        return KINDS[self.passports[encoder]["kind"]].is_exact

    @property
    def index_kinds(self) -> str:
        """The kinds of the encoders' indexes."""
        return " and ".join(dict.fromkeys(passport["kind"] for passport in self.passports.values()))

    @property
    def ann_ks(self) -> list[int]:
        """Each k of ann_recall@k."""
        return self._ks("ann_recall")

    @property
    def ann_k(self) -> int:
        """The k of ann_recall@k that is shown: the one nearest to 10."""
        return headline_k(self.ann_ks)

    @property
    def cost_k(self) -> int:
        """The k of precision@k where a single one is shown: the one nearest to 10."""
        return headline_k(self._ks("precision"))

    @property
    def index_metrics(self) -> list[IndexMetrics]:
        """The metrics of each index for each kind of query; queries from outside the gallery come first."""
        return [
            IndexMetrics(
                task,
                encoder,
                query_kind,
                values,
                self.intervals.ann[encoder][query_kind],
                self.metrics.ann_cost[encoder][query_kind],
                self.intervals.ann_cost[encoder][query_kind],
            )
            for task, encoder in self.evaluated
            for query_kind, values in self.metrics.ann[encoder].items()
            if (query_kind == TEXT) == (MODALITIES[task] == TEXT)
        ]

    def indexed(self, task: str, encoder: str) -> Means:
        """Return the metrics of the encoder's index, for queries from outside the gallery if there are any."""
        return self._index_metrics_of(task, encoder).values

    @property
    def recall_over_time(self) -> list[TimedSearch]:
        """The index of each (task, encoder) that was timed, and exact search, whose recall is 1."""
        return [
            TimedSearch(
                task,
                encoder,
                search,
                times.p50_ms,
                1.0 if search == "exact" else self.indexed(task, encoder).get(f"ann_recall@{self.ann_k}"),
            )
            for task, encoder in self.evaluated
            for search, times in self.latency.encoders.get(encoder, {}).get(MODALITIES[task], {}).items()
        ]

    @property
    def search_times(self) -> list[tuple[str, str, str, SearchTimes]]:
        """Each measurement of speed: encoder, modality of the queries, index or exact, times."""
        return [
            (encoder, modality, search, times)
            for encoder, modalities in self.latency.encoders.items()
            for modality, searches in modalities.items()
            for search, times in searches.items()
        ]

    @property
    def as_fast(self) -> list[str]:
        """A sentence for each approximate index that is no faster than exact search."""
        sentences = []
        for encoder, modalities in self.latency.encoders.items():
            for modality, searches in modalities.items():
                index_ms, exact_ms = searches["index"].p50_ms, searches["exact"].p50_ms
                if not self.is_exact(encoder) and exact_ms <= _AS_FAST * index_ms:
                    sentences.append(
                        f"{encoder}, {modality} queries: exact search is as fast (p50 {exact_ms:.3f} ms, with the index "
                        f"{index_ms:.3f} ms) and misses nothing."
                    )
        return sentences

    def p50_ms(self, task: str, encoder: str) -> float | None:
        """Return the median time of one search with the encoder's index, in ms; None if it was not timed."""
        searches = self.latency.encoders.get(encoder, {}).get(MODALITIES[task])
        return None if searches is None else searches["index"].p50_ms

    def _estimates(self, metric: str) -> list[Estimate]:
        return [
            Estimate(self.metrics.of_task(task)[encoder].get(metric), self.intervals.of_task(task)[encoder].get(metric))
            for task, encoder in self.evaluated
        ]

    def _index_metrics_of(self, task: str, encoder: str) -> IndexMetrics:
        return next(index for index in self.index_metrics if (index.task, index.encoder) == (task, encoder))

    def _names(self, task: str) -> list[str]:
        return list(next(iter(self.metrics.of_task(task).values()), {}))

    def _ks(self, family: str) -> list[int]:
        names = {name for kinds in self.metrics.ann.values() for values in kinds.values() for name in values}
        return sorted(int(name.partition("@")[2]) for name in names if name.startswith(f"{family}@"))


def _embedding_settings(vectors: dict[str, Any]) -> tuple[str, str]:
    """The input and the runtime of a passport; "-" where the vectors were made elsewhere."""
    preprocessing = vectors["preprocessing"]
    if preprocessing is None:
        return "vectors made elsewhere", "-"
    return (
        f"{preprocessing['crop_px']} px, cropped from {preprocessing['resize_px']} px, {preprocessing['interpolation']}",
        f"{vectors['device']}, {vectors['backend']}, {vectors['precision']}",
    )
