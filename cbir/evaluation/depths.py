"""How many results the metrics and the runs need: a small gallery has fewer than `evaluate` asks for."""

from collections.abc import Mapping, Sequence

from cbir.core.errors import DataError
from cbir.evaluation.params import EvaluateParams

_DEFAULT_DEPTH = 100


def leave_out_large_ks(params: EvaluateParams, n_results: int) -> dict[str, list[int]]:
    """Remove from `params` the ks that are too large; return them by parameter.

    n_results : the results that each query can have.  Where no k is small enough, n_results takes their place.
    Raises DataError where a query can have no result.
    """
    if n_results < 1:
        raise DataError("data/images/gallery: expected an image besides a query's own, found none: add images")
    left_out: dict[str, list[int]] = {}
    for name in ("ks", "ann_ks"):
        ks: Sequence[int] = getattr(params, name)
        setattr(params, name, [k for k in ks if k <= n_results] or [n_results])
        if ks[-1] > n_results:
            left_out[name] = [k for k in ks if k > n_results]
    return left_out


def depth_of_runs(params: EvaluateParams, n_results: int) -> int:
    """The depth of the parameters, by default 100 or the largest k, but at most n_results."""
    return min(params.run_depth or max(_DEFAULT_DEPTH, params.ks[-1]), n_results)


def left_out_note(left_out: Mapping[str, Sequence[int]], gallery_images: int) -> str | None:
    """A sentence about the ks left out; None where all were small enough.

    >>> left_out_note({"ks": [20, 50], "ann_ks": [50]}, 12)
    'evaluate.ks 20, 50 and evaluate.ann_ks 50 are left out: a query of this gallery of 12 images has fewer results.'
    """
    if not left_out:
        return None
    names = [f"evaluate.{name} {', '.join(map(str, ks))}" for name, ks in left_out.items()]
    verb = "is" if sum(map(len, left_out.values())) == 1 else "are"
    images = f"{gallery_images:,} image{'s' if gallery_images != 1 else ''}"
    return f"{' and '.join(names)} {verb} left out: a query of this gallery of {images} has fewer results."
