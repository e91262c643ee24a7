"""Reads the facts of a run from the artifacts of the stages."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cbir.artifacts.comparison import EncoderComparison, read_comparison
from cbir.artifacts.evaluation_passport import check_evaluated, check_of
from cbir.artifacts.evaluations import (
    read_all_duplicates,
    read_intervals,
    read_latency,
    read_metrics,
    read_per_query,
    read_prompts,
)
from cbir.artifacts.images import read_quarantine
from cbir.artifacts.names import read_encoder_names
from cbir.artifacts.paths import DataPaths, ReportPaths
from cbir.artifacts.tables import table_of
from cbir.artifacts.timings import read_timings
from cbir.artifacts.vectors import check_passport, read_passport
from cbir.artifacts.verification import read_verification
from cbir.core.errors import PassportError
from cbir.core.files import read_json
from cbir.evaluation.collection import check_collection, open_collection
from cbir.evaluation.encoder_comparison import compare_run
from cbir.report.class_names import read_class_names
from cbir.report.costs import encoder_cost
from cbir.report.facts import Facts
from cbir.report.failures import read_failures
from cbir.report.provenance import read_provenance


def compare_encoders_of_run(data: DataPaths, reports: ReportPaths) -> EncoderComparison:
    """Compare the encoders of a finished run, with what each costs.  Raises DataError if an artifact is absent or damaged."""
    passports = _checked_passports(data, reports)
    timings, about = read_timings(data.timings), read_intervals(reports).about
    costs = {
        encoder: encoder_cost(
            passport, read_json(data.build(encoder)), timings.get(f"embed@{encoder}", {}), data.weights(encoder)
        )
        for encoder, passport in passports.items()
    }
    comparison = compare_run(read_per_query(reports), costs, about["resamples"], about["seed"])
    return replace(comparison, about=comparison.about | {"of": _indexes(passports)})


def _checked_passports(data: DataPaths, reports: ReportPaths) -> dict[str, dict[str, Any]]:
    """Return encoder -> the passport of its index.

    Raises PassportError unless each encoder's index is its own, and evaluation and build are those of the index.
    """
    passports = {encoder: read_passport(data.index(encoder)) for encoder in read_encoder_names(reports.encoders)}
    for encoder, passport in passports.items():
        check_passport(passport.get("vectors", {}), {"encoder": encoder}, str(data.index(encoder)))
        check_evaluated(reports.evaluation(encoder), data.index(encoder))
        check_of(data.build(encoder), passport.get("sha256"))
    return passports


def _indexes(passports: Mapping[str, Mapping[str, Any]]) -> dict[str, object]:
    """encoder -> the hash of its index."""
    return {encoder: passport.get("sha256") for encoder, passport in passports.items()}


def gather_facts(data: DataPaths, reports: ReportPaths) -> Facts:
    """Read the artifacts of a finished run.

    Raises DataError if one is absent or damaged, PassportError if an evaluation is not that of the vectors and the index.
    """
    passports = _checked_passports(data, reports)
    encoders = list(passports)
    check_collection(open_collection(data), reports)
    for encoder, passport in passports.items():
        check_of(reports.latency(encoder), passport["sha256"])
        vectors = passport["vectors"]["rows"]["vectors_sha256"]
        check_of(reports.verification(encoder), vectors)
        if data.map(encoder).exists() and table_of(data.map(encoder)) != vectors:
            raise PassportError(
                f"{data.map(encoder)}: expected the map of {vectors}, found that of others: run `dvc repro`"
            )
    comparison, summary = read_comparison(reports.comparison), read_json(data.summary)
    if comparison.about.get("of") != _indexes(passports):
        raise PassportError(
            f"{reports.comparison}: expected the comparison of this run, found that of another: run `dvc repro`"
        )
    return Facts(
        encoders=encoders,
        metrics=read_metrics(reports),
        intervals=read_intervals(reports),
        latency=read_latency(reports),
        summary=summary,
        passports=passports,
        builds={encoder: read_json(data.build(encoder)) for encoder in encoders},
        quarantine=read_quarantine(data.quarantine, summary["quarantine_sha256"]).to_pylist(),
        duplicates=read_all_duplicates(reports).to_pylist(),
        failures=read_failures(reports),
        prompts=read_prompts(reports),
        names=read_class_names(reports),
        timings=read_timings(data.timings),
        provenance=read_provenance(data.root.parent, encoders),
        comparison=comparison,
        verifications={encoder: read_verification(reports.verification(encoder)) for encoder in encoders},
    )
