"""Likelihood ratios of responses simulated from the smaller of two models: a test that needs no theory of large samples."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .errors import DataError, MultilevelWarning

if TYPE_CHECKING:
    from .fit import Fit
    from .progress import Progress

__all__ = ["simulated_p_value", "simulated_ratios"]

Array = NDArray[np.float64]

AT_ONCE = 50  # responses


def simulated_p_value(small: Fit, large: Fit, ratio: float, n: int, rng: np.random.Generator, bar: Progress) -> float:
    """Share of simulated ratios that reach the one observed, which counts as one of them (Davison & Hinkley 1997, 4.2)."""
    ratios = simulated_ratios(small, large, n, rng, bar)
    slack = 1e-8 * max(1.0, abs(ratio))
    return float((1 + (ratios >= ratio - slack).sum()) / (1 + len(ratios)))


def simulated_ratios(small: Fit, large: Fit, n: int, rng: np.random.Generator, bar: Progress) -> Array:
    """(n or fewer,) ratios of both models fitted to responses of the smaller; fewer where a response has no fit.

    The group effects are drawn anew, for the parameters are what the test is of.
    """
    out = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MultilevelWarning)  # refits on the boundary are what is expected here
        for first in range(0, n, AT_ONCE):
            count = min(AT_ONCE, n - first)
            drawn = small.simulate(count, seed=rng)
            if small.generalised or large.generalised or count == 1:
                for i in range(count):
                    out += _one(small, large, drawn[f"sim_{i + 1}"])
                    bar.add(1)
            else:
                out += (small.refit(drawn).criterion - large.refit(drawn).criterion).tolist()
                bar.add(count)
    return np.array(out, dtype=np.float64)


def _one(small: Fit, large: Fit, y: object) -> list[float]:
    try:
        return [small.refit(y).criterion - large.refit(y).criterion]
    except DataError:  # all values alike, or a category that was not drawn
        return []
