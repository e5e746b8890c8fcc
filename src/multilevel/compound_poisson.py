"""Tweedie's compound Poisson-gamma distribution: draws and tails. Its density is the core's (`tweedie.hpp`).

A response is the sum of N gamma variables, N Poisson with mean ``mu**(2 - p) / (phi * (2 - p))``, each of shape
``a = (2 - p) / (p - 1)`` and scale ``phi * (p - 1) * mu**(p - 1)``: its mean is mu and its variance ``phi * mu**p``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["draw", "tails"]

Array = NDArray[np.float64]

FAR = 9.0  # sds of N that are summed
POINTS = 4  # of the sum per sd of its terms, where they are many
MOST_POINTS = 2000  # of a sum
MOST_TERMS = 1_000_000  # in memory


def parts(mu: Array, phi: Array, power: Any) -> tuple[Array, Any, Array]:
    """Mean of N, shape and scale of the gamma variables."""
    rate = np.exp((2 - power) * np.log(mu) - np.log(phi)) / (2 - power)
    return rate, (2 - power) / (power - 1), phi * (power - 1) * mu ** (power - 1)


def draw(rng: np.random.Generator, mu: Array, phi: Array, power: float | Array) -> Array:
    """(n,) random responses; `power` is one number, or one for each."""
    rate, shape, scale = parts(mu, phi, power)
    count = np.minimum(rate, 1e15)  # beyond, the Poisson variable does not vary by the digits there are
    return np.asarray(rng.gamma(shape * rng.poisson(count), scale), dtype=np.float64)


def tails(y: Array, mu: Array, phi: Array, power: float) -> tuple[Array, Array]:
    """P(Y <= y) and P(Y > y): gamma tails summed over the Poisson variable.

    Parameters
    ----------
    y, mu, phi : (n,) arrays
    power : float
        Between 1 and 2.

    Returns
    -------
    below, above : (n,) arrays
        Where N is large its terms are a smooth bell, of which some are summed.
    """
    from scipy.special import gammainc, gammaincc, gammaln, xlogy

    rate, shape, scale = parts(mu, phi, power)
    below, above = np.zeros(len(y)), np.ones(len(y))
    at = np.flatnonzero(y >= 0)
    first, step, counts = window(rate[at], np.maximum(y[at], 0) / (shape * scale[at]), shape)
    for some in batches(counts):
        i, count = at[some], counts[some]
        start = np.concatenate([[0], np.cumsum(count)[:-1]])
        place = np.repeat(np.arange(len(some)), count)
        n = (first[some] - start * step[some])[place] + np.arange(count.sum()) * step[some][place]
        weight = np.exp(xlogy(n, rate[i][place]) - rate[i][place] - gammaln(n + 1))
        # the weights of N > 0 sum to 1 - exp(-rate), so that both tails end in one
        weight *= (-np.expm1(-rate[i]) / np.add.reduceat(weight, start))[place]
        x = (y[i] / scale[i])[place]
        below[i] = np.exp(-rate[i]) + np.add.reduceat(weight * gammainc(shape * n, x), start)
        above[i] = np.add.reduceat(weight * gammaincc(shape * n, x), start)
    return below, above


def window(rate: Array, typical: Array, shape: float) -> tuple[Array, Array, NDArray[np.intp]]:
    """First value, step and number of the values of N that are summed, about its mean and what the response suggests."""
    low, high = np.minimum(rate, typical), np.maximum(rate, typical)
    first = np.maximum(np.floor(low - FAR * np.sqrt(low) - FAR), 1.0)
    span = np.maximum(np.ceil(high + FAR * np.sqrt(high) + 12) - first, 1.0)
    step = np.maximum(np.floor(np.sqrt(low / (1 + shape)) / POINTS), 1.0)
    step = np.maximum(step, np.ceil(span / MOST_POINTS))
    return first, step, np.ceil(span / step).astype(np.intp)


def batches(counts: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Rows in parts whose sums have at most some million terms together."""
    part = np.cumsum(counts) // MOST_TERMS
    return [np.flatnonzero(part == p) for p in np.unique(part)]
