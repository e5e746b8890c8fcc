"""Densities of draws, estimated with a Gaussian kernel that respects the ends of a parameter's range."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["bandwidth", "density", "span"]

Array = NDArray[np.float64]

REACH = 5.0  # bandwidths beyond which a draw adds nothing
STEPS = 8  # bins in a bandwidth
MOST_BINS = 50_000


def bandwidth(x: Array) -> float:
    """Silverman's rule: 0.9 times the smaller of sd and interquartile range / 1.34, over the fifth root of the number.

    Silverman (1986), Density Estimation for Statistics and Data Analysis, equation 3.31.
    """
    q25, q75 = np.quantile(x, [0.25, 0.75])
    sd, robust = float(np.std(x)), float(q75 - q25) / 1.34
    spread = min(sd, robust) if robust > 0 else sd
    return 0.9 * spread * len(x) ** -0.2 or 1e-3 * max(abs(float(x[0])), 1.0)


def span(x: Array, lower: float = -np.inf, upper: float = np.inf, tail: float = 0.001) -> tuple[float, float]:
    """Where a density of draws is worth drawing: between two far quantiles and a little more, inside the range."""
    low, high = np.quantile(x, [tail, 1 - tail])
    h = bandwidth(x)
    return max(float(low) - 2 * h, lower), min(float(high) + 2 * h, upper)


def density(x: Array, grid: Array, lower: float = -np.inf, upper: float = np.inf) -> Array:
    """Kernel density estimate of draws.

    Parameters
    ----------
    x : (n,) array
    grid : (m,) array
        Ascending.
    lower, upper : float
        Ends of the range of x. What the kernels put beyond an end is folded back, so that the estimate does not fall
        towards an end where draws pile up; outside it is zero.

    Returns
    -------
    (m,) array
    """
    h = bandwidth(x)
    start, stop = grid[0] - REACH * h, grid[-1] + REACH * h
    folded = [x, *(2 * end - x for end in (lower, upper) if np.isfinite(end))]
    bins = min(math.ceil((stop - start) / h * STEPS), MOST_BINS)
    counts = np.sum([np.histogram(part, bins=bins, range=(start, stop))[0] for part in folded], axis=0)
    step = (stop - start) / bins
    half = math.ceil(REACH * h / step)
    kernel = np.exp(-0.5 * (np.arange(-half, half + 1) * step / h) ** 2)
    heights = np.convolve(counts, kernel)[half : half + bins] / (len(x) * step * kernel.sum())
    out = np.interp(grid, start + (np.arange(bins) + 0.5) * step, heights)
    out[(grid < lower) | (grid > upper)] = 0.0
    return np.asarray(out)
