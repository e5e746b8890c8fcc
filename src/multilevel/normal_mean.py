"""Means of functions of a normal linear predictor, by the trapezoidal rule.

With a normal density in it the rule converges faster than any power of the step, for functions that are analytic in a strip
about the real line as fast as the strip is wide (Trefethen & Weideman 2014, SIAM Review 56(3), theorem 5.1). So the step
follows the function's own scale, and a large variance costs nodes but no digits; Gauss-Hermite rules of fixed size lose
them there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["normal_mean"]

Array = NDArray[np.float64]
Rows = NDArray[np.intp]

REACH = 8.5  # sds on either side: what lies beyond has probability 1e-17
STEP = 0.5  # sds; enough for the density itself to 1e-30
MOST = 4096  # nodes
FEWEST = 32


def normal_mean(
    function: Callable[[Array, Rows], Array], centre: Array, sd: Array, width: Array | float, tilt: float = 0.0
) -> Array:
    """E f(centre + sd Z), Z standard normal, for each row.

    Parameters
    ----------
    function : callable
        ``f(values (r,), rows (r,))`` -> (r,) or (r, c): at one value for each of the rows numbered.
    centre, sd : (m,) arrays
    width : (m,) array or float
        Step on the scale of the values that f allows: a third of the distance of its nearest singularity in the complex
        plane, or the width of its steepest part.
    tilt : float
        k where f grows like ``exp(k value)``: the integrand's bulk is then k sds further up.

    Returns
    -------
    (m,) or (m, c) array
    """
    m = len(centre)
    top = REACH + tilt * sd
    step = np.minimum(STEP, np.broadcast_to(np.asarray(width, dtype=np.float64), (m,)) / np.where(sd > 0, sd, 1.0))
    ratio = np.clip((top + REACH) / np.maximum(step, 1e-300), FEWEST, MOST)
    counts = np.where(sd > 0, 2 ** np.ceil(np.log2(ratio)), 0).astype(np.intp)
    out: Array | None = None
    for count in np.unique(counts):
        rows = np.flatnonzero(counts == count)
        part = _one(function, rows, centre[rows], sd[rows], top[rows], int(count))
        if out is None:
            out = np.empty((m, *part.shape[1:]))
        out[rows] = part
    return np.empty(0) if out is None else out


def _one(
    function: Callable[[Array, Rows], Array], rows: Rows, centre: Array, sd: Array, top: Array, count: int
) -> Array:
    """The same for rows with one number of steps."""
    if count == 0:
        return np.asarray(function(centre, rows), dtype=np.float64)
    step = (top + REACH) / count
    total: Array | None = None
    for j in range(count + 1):
        z = -REACH + j * step
        weight = step * np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
        value = np.asarray(function(centre + sd * z, rows), dtype=np.float64)
        part = value * (weight if value.ndim == 1 else weight[:, None])
        total = part if total is None else total + part
    assert total is not None
    return total
