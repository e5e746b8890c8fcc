"""BFGS with backtracking, on coordinates whose scale is about one: the search over structures' parameters.

Nocedal & Wright (2006), Numerical Optimization, chapter 6.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["GAIN", "Evaluated", "descend"]

Array = NDArray[np.float64]

STEPS = 200
GAIN = 1e-10  # deviance that a further step must promise to be worth it
LONGEST = 1.0  # step in angles, and in units of an sd


class Evaluated(Protocol):
    """A point with its value and slope."""

    @property
    def a(self) -> Array: ...

    @property
    def value(self) -> float: ...

    @property
    def slope(self) -> Array: ...


P = TypeVar("P", bound=Evaluated)


def descend(point: P, at: Callable[[Array, P], P | None], spent: Callable[[], bool], trace: list[float]) -> P:
    """A minimum from a point.

    Parameters
    ----------
    at : callable
        Coordinates and the point they are near to -> point; None where the criterion cannot be evaluated.
    spent : callable
        Whether the evaluations are used up.
    trace : list of float
        Gets the value of every step.
    """
    r = len(point.a)
    inverse = np.eye(r) / max(1.0, 2 * float(np.abs(point.slope).max(initial=0.0)))
    for _ in range(STEPS):
        step = np.asarray(-inverse @ point.slope, dtype=np.float64)
        longest = np.max(np.abs(step) / np.maximum(LONGEST, np.abs(point.a) / 2), initial=0.0)
        step = step / max(1.0, longest)
        promise = -float(step @ point.slope)
        trace.append(point.value)
        if promise < GAIN or spent():
            break
        better = _backtrack(point, step, promise, at)
        if better is None:
            break
        moved, turned = better.a - point.a, better.slope - point.slope
        curve = float(moved @ turned)
        if curve > 1e-12 * float(np.linalg.norm(moved) * np.linalg.norm(turned)):
            keep = np.eye(r) - np.outer(moved, turned) / curve
            inverse = keep @ inverse @ keep.T + np.outer(moved, moved) / curve
        gained = point.value - better.value
        point = better
        if gained < 1e-13 * (1 + abs(point.value)):
            break
    return point


def _backtrack(point: P, step: Array, promise: float, at: Callable[[Array, P], P | None]) -> P | None:
    for _ in range(30):
        tried = at(point.a + step, point)
        if tried is not None and tried.value < point.value - 1e-4 * promise:
            return tried
        step, promise = step / 4, promise / 4
        if promise < GAIN / 10:
            return None
    return None
