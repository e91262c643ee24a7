"""Reads the facts of a run from the artifacts of the stages."""

from cbir.artifacts.images import read_quarantine
from cbir.artifacts.latency import read_latency
from cbir.artifacts.metrics import read_intervals, read_metrics
from cbir.artifacts.names import ENCODERS
from cbir.artifacts.paths import DataPaths, ReportPaths
from cbir.artifacts.prompt_metrics import read_prompt_metrics
from cbir.artifacts.runs import read_duplicates
from cbir.artifacts.timings import read_timings
from cbir.artifacts.vectors import read_passport
from cbir.core.files import read_json
from cbir.report.class_names import read_class_names
from cbir.report.facts import Facts
from cbir.report.failures import read_failures
from cbir.report.provenance import read_provenance


def gather_facts(data: DataPaths, reports: ReportPaths) -> Facts:
    """Read the artifacts of a finished run.  Raises DataError if one is absent or damaged."""
    return Facts(
        metrics=read_metrics(reports.metrics),
        intervals=read_intervals(reports.intervals),
        latency=read_latency(reports.latency),
        summary=read_json(data.summary),
        passports={encoder: read_passport(data.index(encoder)) for encoder in ENCODERS},
        builds={encoder: read_json(data.build(encoder)) for encoder in ENCODERS},
        quarantine=read_quarantine(data.quarantine).to_pylist(),
        duplicates=read_duplicates(reports.duplicates).to_pylist(),
        failures=read_failures(reports),
        prompts=read_prompt_metrics(reports.prompts),
        names=read_class_names(reports),
        timings=read_timings(data.timings),
        provenance=read_provenance(data.root.parent),
    )
