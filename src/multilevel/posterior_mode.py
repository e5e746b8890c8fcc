"""Mode of a log posterior and its curvature there: where samplers start, and the shape they are told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import DataError

Array = NDArray[np.float64]
Density = Callable[[Array], tuple[float, Array | None]]  # log posterior and its gradient

STEP = 1e-4  # of differences of the gradient, in coordinates that are logarithms or standardised
SETTLED = 1e-6  # gain of one more Newton step that ends the search
MOST = 60
LONGEST = 2.0  # step of the search in any coordinate
FLATTEST = 0.05  # curvature below which a direction counts as this flat, for the shape


@dataclass(frozen=True)
class Mode:
    """A mode of the posterior.

    Attributes
    ----------
    x : (d,) array
        Unconstrained coordinates.
    root : (d, d) array
        ``x + root @ z`` with standard normal z is the normal approximation.
    value : float
        Log posterior there.
    gradients : int
        Evaluations of the gradient spent.
    """

    x: Array
    root: Array
    value: float
    gradients: int


def find_mode(density: Density, start: Array) -> Mode:
    """Newton's method with differences of the exact gradient, its curvature made negative where it is not.

    Raises
    ------
    DataError
        If the posterior cannot be evaluated anywhere near the start.
    """
    x = np.array(start, dtype=np.float64)
    value, slope = density(x)
    spent = 1
    for size in (0.5, 1.0, 2.0):  # a start on the edge of what can be computed
        if np.isfinite(value):
            break
        x = np.asarray(start - size * np.sign(start), dtype=np.float64)
        value, slope = density(x)
        spent += 1
    if not np.isfinite(value) or slope is None:
        raise DataError(
            "the posterior cannot be evaluated at the start; check the priors (limits that exclude the data?) and the data"
        )
    curvature = np.eye(len(x))
    for _ in range(MOST):
        curvature = hessian(density, x, slope)
        spent += len(x)
        values, vectors = np.linalg.eigh(curvature)
        along = vectors.T @ slope
        step = np.asarray(vectors @ (along / np.maximum(np.abs(values), FLATTEST)), dtype=np.float64)
        step *= min(1.0, LONGEST / max(float(np.abs(step).max(initial=0.0)), 1e-300))
        gain = float(slope @ step)
        if gain < SETTLED:
            break
        x, value, slope, tries = _line_search(density, x, value, slope, step)
        spent += tries
        if tries < 0:
            break
    values, vectors = np.linalg.eigh(curvature)
    root = vectors / np.sqrt(np.maximum(values, FLATTEST))
    return Mode(x, np.ascontiguousarray(root), value, spent)


def _line_search(density: Density, x: Array, value: float, slope: Array, step: Array) -> tuple[Array, float, Array, int]:
    for i in range(20):
        there = x + step * 0.5**i
        found, g = density(there)
        if np.isfinite(found) and g is not None and found > value:
            return there, found, g, i + 1
    return x, value, slope, -1


def hessian(density: Density, x: Array, slope: Array) -> Array:
    """(d, d) negative second derivatives, by one-sided differences; a direction that cannot be taken counts as flat."""
    d = len(x)
    out = np.zeros((d, d))
    for i in range(d):
        there = x.copy()
        there[i] += STEP
        _, g = density(there)
        out[i] = 0.0 if g is None else (slope - g) / STEP
    return np.asarray((out + out.T) / 2)
