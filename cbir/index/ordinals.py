"""Scores as integers of the same order, so that a score and a position fit into one sortable number."""

import numpy as np
from numpy.typing import NDArray

from cbir.artifacts.vectors import Scores


def ordinals(scores: Scores) -> NDArray[np.int32]:
    """Integers in the order of the scores; neighbouring float32 values are neighbouring integers, and 0.0 and -0.0 are both 0.

    scores : float32 of any shape, no NaN.  Returns int32 of the same shape.
    IEEE 754 stores sign and magnitude, integers are two's complement: negative numbers need their magnitude negated.

    >>> ordinals(np.float32([-0.5, -0.0, 0.0, 1e-45])).tolist()
    [-1056964608, 0, 0, 1]
    """
    bits = scores.view(np.int32)
    sign = bits >> 31  # -1 or 0
    return ((bits & 0x7FFFFFFF) ^ sign) - sign


def scores_of(numbers: NDArray[np.int32]) -> Scores:
    """The inverse of `ordinals`; 0 becomes 0.0.

    >>> scores_of(ordinals(np.float32([-0.5, 2]))).tolist()
    [-0.5, 2.0]
    """
    sign = numbers >> 31
    bits: NDArray[np.int32] = ((numbers ^ sign) - sign) | (sign & np.int32(-(2**31)))
    return bits.view(np.float32)
