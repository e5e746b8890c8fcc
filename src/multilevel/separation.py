"""Separation: fixed effects that can grow for ever while the likelihood only rises, so that no estimate exists.

A direction ``d`` of the coefficients separates if moving along it lowers no row's likelihood and raises some row's, whatever
the random effects: successes need ``x'd >= 0``, failures ``x'd <= 0``, a row with both ``x'd = 0`` (Albert & Anderson 1984,
Biometrika 71:1). Whether there is one is a linear programme (Konis 2007, thesis, University of Oxford).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .errors import DataError, listing
from .families import COUNTS, TRIALS

if TYPE_CHECKING:
    from .design import Design
    from .families import Family

Array = NDArray[np.float64]

SURE = 1e-4  # working weight of a row, per trial, under which its linear predictor may be running away
TOLERANCE = 1e-7  # of the programme, on columns scaled to one
FIRST_ROWS = 2000  # of the programme; as many are added each time
ROUNDS = 30


def refuse_separated(design: Design, family: Family, weights: Array) -> None:
    """Raise where the fixed effects have no maximum.

    Parameters
    ----------
    design, family
        The model.
    weights : (n,) array
        Working weights (minus the second derivatives) of the rows in the fit without random effects: only where one has
        vanished is there anything to look for.

    Raises
    ------
    DataError
        Naming the columns along which the likelihood rises for ever.
    """
    trials = 1.0 if design.trials is None or family.name == "ordinal" else np.maximum(design.trials, 1)
    prior = 1.0 if design.weights is None else design.weights
    if not (weights < SURE * trials * prior).any():
        return
    signed, pinned, names = constraints(design, family)
    if signed is None or pinned is None:
        return
    found = direction(signed, pinned)
    if found is None:
        return
    thresholds = len(names) - len(design.names)
    moved = [n for n, d in zip(names[thresholds:], found[thresholds:], strict=True) if abs(d) > 1e-6]
    if len(moved) > 1 and "Intercept" in moved:
        moved.remove("Intercept")  # goes along with a level that is the base
    what = "column" if len(moved) == 1 else "columns"
    columns = listing(moved) if moved else "the thresholds"
    perfect = {
        **dict.fromkeys(TRIALS, "successes and failures"),
        **dict.fromkeys(COUNTS, "zeros and larger counts"),
        "ordinal": "higher and lower categories",
    }[family.name]
    raise DataError(
        f"the likelihood has no maximum (separation): {what} {columns} of the fixed effects "
        f"tell{'s' * (len(moved) == 1)} some {perfect} of {design.formula.response!r} apart without error, so that the "
        f"estimate grows for ever. Leave {'it' if len(moved) == 1 else 'some of them'} out, merge levels of a factor, "
        "or make the factor a random effect"
    )


def constraints(design: Design, family: Family) -> tuple[Array | None, Array | None, tuple[str, ...]]:
    """Rows whose product with a direction must not be negative, rows where it must be zero, names of the coordinates."""
    x, y = design.X, design.y
    if family.name in TRIALS:
        m = np.ones(len(y)) if design.trials is None else design.trials
        used = m > 0
        high, low = used & (y == m), used & (y == 0)
        return np.vstack([x[high], -x[low]]), x[used & ~high & ~low], design.names
    if family.name in COUNTS and family.link == "log":
        least = 1 if family.zero == "hurdle" else 0  # the smallest count that says something of the mean
        return -x[y == least], x[y > least], design.names
    if family.name == "ordinal":
        count = len(design.labels)
        at = np.eye(count + 1)[:, 1:count]  # category -> threshold above it
        c = y.astype(np.intp)
        above, below = np.hstack([at[c + 1], -x])[c < count - 1], np.hstack([-at[c], x])[c > 0]
        return np.vstack([above, below]), np.empty((0, count - 1 + x.shape[1])), (*[""] * (count - 1), *design.names)
    return None, None, ()


def direction(signed: Array, pinned: Array) -> Array | None:
    """A separating direction with its largest coordinates near one, or None if there is none."""
    size = np.maximum(np.abs(np.vstack([signed, pinned])).max(axis=0, initial=0.0), 1e-300)
    signed, pinned = signed / size, pinned / size
    space = np.eye(len(size))
    if len(pinned):
        values, vectors = np.linalg.eigh(pinned.T @ pinned / len(pinned))
        space = vectors[:, values < 1e-12 * max(float(values[-1]), 1e-300)]
    if not space.shape[1] or not len(signed):
        return None
    step = programme(signed @ space)
    if step is None:
        return None
    out = space @ step
    out[np.abs(out) < 1e-7 * np.abs(out).max()] = 0.0
    return np.asarray(out / np.abs(out).max())


def programme(rows: Array) -> Array | None:
    """z in the unit box with ``rows @ z >= 0`` and the largest sum; None if that is nothing.

    Solved on some of the rows, to which those it violates most are added until it violates none.
    """
    from scipy.optimize import linprog

    aim = rows.mean(axis=0)
    used = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), FIRST_ROWS)).astype(np.intp))
    for _ in range(ROUNDS):
        some = np.unique(np.round(rows[used], 12), axis=0)
        found = linprog(-aim, A_ub=-some, b_ub=np.zeros(len(some)), bounds=(-1, 1), method="highs")
        if found.status != 0 or found.x is None:
            return None
        step = np.asarray(found.x, dtype=np.float64)
        gain = rows @ step
        if gain.max() < 1e-6 or aim @ step <= 0:
            return None
        if gain.min() >= -TOLERANCE:
            return step
        used = np.union1d(used, np.argsort(gain)[:FIRST_ROWS])
    return None
