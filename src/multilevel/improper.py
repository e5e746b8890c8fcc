"""Flat priors that leave no posterior: a likelihood that stays positive as a parameter runs away has no finite integral.

Along a direction of the coefficients with flat priors each row's likelihood tends to zero or to a positive number: a Poisson
distribution is a negative binomial one of endless size. Where a direction leaves all rows positive, the integral over it is
infinite. Which rows forbid which way is told per family; whether a direction is left is a linear programme (`separation`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .errors import OptionError
from .families import COUNTS, SHAPES, TRIALS
from .priors import Flat
from .separation import constraints, direction

if TYPE_CHECKING:
    from .design import Design
    from .families import Family
    from .prior_table import Entry

__all__ = ["refuse_improper"]

Array = NDArray[np.float64]

LIMITS = {  # of the distribution, where a parameter beside the mean runs away
    "nbinom2": "without end the responses become Poisson", "nbinom1": "to zero the responses become Poisson",
    "betabinomial": "without end the responses become binomial", "tweedie": "without end there are only zeros",
    "df": "without end the responses become normal", "power": "to its limits the likelihood stays positive",
}  # fmt: skip
ADVICE = "a proper prior such as ml.Normal(0, 2.5)"


def refuse_improper(entries: Sequence[Entry], design: Design, family: Family) -> None:
    """Raise where flat priors of coefficients or of a family's further parameters leave no posterior.

    Raises
    ------
    OptionError
        With the parameters and what happens as they run away.
    """
    flat = [e for e in entries if isinstance(e.prior, Flat) and e.kind in ("coefficient", "further")]
    if not flat:
        return
    for entry in flat:
        if entry.name.split("[")[0] == SHAPES.get(family.name):
            raise OptionError(_text([entry.name], f"as it runs {LIMITS[entry.name.split('[')[0]]}"))
    names = {e.name for e in flat}
    _refuse_further(names, "dispersion", design, family)
    _refuse_further(names, "zi", design, family)
    _refuse_separated(names, design, family)


def _refuse_further(flat: set[str], what: str, design: Design, family: Family) -> None:
    """Coefficients of the dispersion, or of extra zeros."""
    x, columns = design.sides.get(what, (np.ones((len(design.y), 1)), ("Intercept",)))
    label = "zi" if what == "zi" else family.dispersion
    own = [i for i, name in enumerate(columns) if f"{label}[{name}]" in flat]
    rows = _zeros(x, design.y, family) if what == "zi" else _dispersion(x, design, family)
    if not own or rows is None:
        return
    moved = _direction(rows[0][:, own], rows[1][:, own])
    if moved is None:
        return
    if what == "dispersion":
        why = f"as {label} runs {LIMITS[family.name]}"
    elif family.zero == "inflated":
        why = "as the share of extra zeros runs to zero the likelihood stays positive"
    else:
        why = "zeros and larger counts are told apart without error"
    raise OptionError(_text([f"{label}[{columns[own[i]]}]" for i in moved], why))


def _zeros(x: Array, y: Array, family: Family) -> tuple[Array, Array] | None:
    """Rows whose product with a direction must not be negative, and rows where it must be zero."""
    none = np.empty((0, x.shape[1]))
    if family.zero == "inflated":
        return -x[y > 0], none
    return (np.vstack([x[y == 0], -x[y > 0]]), none) if family.zero == "hurdle" else None


def _dispersion(x: Array, design: Design, family: Family) -> tuple[Array, Array] | None:
    """The same for the log dispersion; None where rows forbid both ways, whatever they are."""
    y, none = design.y, np.empty((0, x.shape[1]))
    if family.name == "nbinom2":
        return x[y > 0], none
    if family.name == "nbinom1":
        return -x[y > 0], none
    if family.name == "tweedie":
        return x[y == 0], x[y > 0]
    if family.name == "betabinomial":
        m = np.ones(len(y)) if design.trials is None else design.trials
        return x[(y > 0) & (y < m)], none
    return None


def _refuse_separated(flat: set[str], design: Design, family: Family) -> None:
    """Coefficients of the mean, and thresholds."""
    if family.zero == "inflated" and family.link == "log":  # a zero may be an extra one, whatever the mean
        signed, pinned, names = np.empty((0, design.X.shape[1])), design.X[design.y > 0], design.names
    else:
        found, zero, names = constraints(design, family)
        if found is None or zero is None:
            return
        signed, pinned = found, zero
    thresholds = len(names) - len(design.names)
    free = [f"{a}|{b}" in flat for a, b in zip(design.labels[:-1], design.labels[1:], strict=True)][:thresholds]
    own = np.flatnonzero([*free, *(name in flat for name in design.names)])
    if not len(own) or not any(name in flat for name in design.names):
        return
    moved = _direction(signed[:, own], pinned[:, own])
    if moved is None:
        return
    called = [names[own[i]] for i in moved if names[own[i]]] or [n for n in design.names if n in flat]
    apart = {
        **dict.fromkeys(TRIALS, "successes and failures"), **dict.fromkeys(COUNTS, "zeros and larger counts"),
        "ordinal": "higher and lower categories",
    }[family.name]  # fmt: skip
    why = f"some {apart} of {design.formula.response!r} are told apart without error (separation)"
    raise OptionError(_text(called, why))


def _direction(signed: Array, pinned: Array) -> list[int] | None:
    """Columns that move along a direction all rows allow; None if there is none."""
    rows = np.vstack([signed, pinned])
    if np.linalg.matrix_rank(rows / np.maximum(np.abs(rows).max(axis=0, initial=0.0), 1e-300)) < rows.shape[1]:
        return list(range(rows.shape[1]))
    found = direction(signed, pinned)
    return None if found is None else [i for i, step in enumerate(found) if abs(step) > 1e-6]


def _text(names: Sequence[str], why: str) -> str:
    prior, verb, it = ("a flat prior", "has", "it") if len(names) == 1 else ("flat priors", "have", "them")
    return f"{prior} of {', '.join(names)} {verb} no proper posterior: {why}; give {it} {ADVICE}"
