"""TREC's format: settings of hypothesis, and metrics as ir_measures computes them."""

from collections.abc import Iterable
from pathlib import Path

import ir_measures
from hypothesis import HealthCheck, settings

KS = (1, 3, 10)
reproducible = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])


def measures(ks: Iterable[int]) -> dict[str, ir_measures.measures.Measure]:
    """Name in metrics.json -> measure, where ir_measures has it as well."""
    at_k = {"precision": ir_measures.P, "success": ir_measures.Success, "recall": ir_measures.R}
    of_k = {f"{name}@{k}": measure @ k for k in ks for name, measure in (at_k | {"ndcg": ir_measures.nDCG}).items()}
    return of_k | {"r_precision": ir_measures.Rprec, "map": ir_measures.AP, "mrr": ir_measures.RR}


def by_ir_measures(run: Path, qrels: Path, ks: Iterable[int]) -> dict[str, dict[str, float]]:
    """query_id -> metric -> value, of each query of the qrels; queries without results count 0."""
    names = {measure: name for name, measure in measures(ks).items()}
    values: dict[str, dict[str, float]] = {}
    judgements, results = ir_measures.read_trec_qrels(str(qrels)), ir_measures.read_trec_run(str(run))
    for metric in ir_measures.pytrec_eval.iter_calc(list(names), judgements, results):
        values.setdefault(metric.query_id, {})[names[metric.measure]] = metric.value
    return values
