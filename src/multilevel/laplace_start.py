"""Starts of a generalised model's search: the fit without random effects, from one or more first values."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .separation import refuse_separated

if TYPE_CHECKING:
    from .crossprod import Group
    from .design import Design
    from .families import Family
    from .laplace import LaplaceEngine

Array = NDArray[np.float64]

GLM_EVALUATIONS = 200
ALMOST_NONE = -5.0  # logit of a share of extra zeros that is next to nothing
UNITS = (1e-3, 1e3)  # sds of responses that need no unit of their own
PERFECT = 16.0  # log of a shape or precision: responses as good as equal to their means
SAME = 1e-6  # deviances and coefficients closer than this are of one maximum


def starts(engine: LaplaceEngine, plain: Array) -> list[Array]:
    """Coefficients to start from, one array a start: those of the model without random effects.

    Zero inflation has several maxima as a rule: it is begun once with the zeros the counts leave unexplained, once with
    almost none.

    Raises
    ------
    DataError
        If the fixed effects separate the response, so that no maximum exists.
    """
    if not len(plain):
        return [plain]
    found: list[tuple[float, Array]] = []
    for first in first_values(engine, plain):
        fitted = without_random_effects(engine, first)
        if fitted is None:
            found.append((np.inf, first))
            continue
        deviance, values, status = fitted
        if status == 1 and engine.family.name == "ordinal":  # thresholds that met are a corner a search does not leave
            found.append((np.inf, first))
        new = all(abs(deviance - d) > SAME or np.abs(values - v).max() > 1e-3 for d, v in found)
        if new:
            found.append((deviance, values))
    return [values for _, values in sorted(found, key=lambda pair: pair[0])]


def unit_of(design: Design, family: Family) -> float:
    """Unit of the linear predictor in the engine, a power of two.

    Starts and steps are of the order of one, so a response measured on the scale of the linear predictor (identity link)
    whose sd is far from that gives the unit.
    """
    if family.link != "identity" or family.name not in ("student", "gamma", "inverse_gaussian"):
        return 1.0
    sd = float(np.std(design.y))
    if family.name == "student" and (middle := float(np.median(np.abs(design.y - np.median(design.y))))) > 0:
        sd = 1.4826 * middle  # gross outliers carry an sd off
    return 1.0 if UNITS[0] < sd < UNITS[1] or not 1e-150 < sd < 1e150 else float(2.0 ** np.round(np.log2(sd)))


def in_units(
    merged: tuple[tuple[Group, ...], list[Any], list[Array | None], Any, Any, Any], unit: float
) -> tuple[tuple[Group, ...], list[Any], list[Array | None], Any, Any, Any]:
    """Merged groups (`crossprod.merged_groups`) whose effects are measured in a unit."""
    groups, codes, z, *rest = merged
    if unit == 1.0:
        return merged
    scaled = [unit * (np.ones((len(c), 1)) if one is None else one) for c, one in zip(codes, z, strict=True)]
    return tuple(replace(g, basis=unit * g.basis) for g in groups), codes, [*scaled], *rest


def runs_away(engine: LaplaceEngine, found: dict[str, Any]) -> bool:
    """Whether a search ended on its way to a perfect fit, whose likelihood has no maximum: other starts go there too."""
    if engine.family.name not in ("gamma", "beta") or found["status"] in (0, 3):
        return False
    return bool(engine.coefficients.rows(found["plain"][engine.x.shape[1] :])[0].max() > PERFECT)


def first_values(engine: LaplaceEngine, plain: Array) -> list[Array]:
    """The coefficients given; for zero inflation with two shares of extra zeros."""
    if engine.family.zero != "inflated":
        return [plain]
    out = []
    for logit in (excess(engine), ALMOST_NONE):
        moved = plain.copy()
        block = engine.coefficients.designs[1]
        used = np.flatnonzero(np.abs(block).max(axis=0) > 0)
        target = np.full(len(block), logit)
        moved[engine.x.shape[1] + used] = np.linalg.lstsq(block[:, used], target, rcond=None)[0]
        out.append(moved)
    return out


def excess(engine: LaplaceEngine) -> float:
    """Logit of the share of zeros beyond those of a Poisson variable with the mean of the positive counts."""
    y = engine.design.y
    zeros = float(np.mean(y == 0))
    expected = float(np.exp(-np.mean(y[y > 0]))) if (y > 0).any() else 0.5
    share = min(max((zeros - expected) / (1 - expected), 0.02), 0.98)
    return float(np.log(share / (1 - share)))


def without_random_effects(engine: LaplaceEngine, plain: Array) -> tuple[float, Array, int] | None:
    """Deviance, coefficients and the search's status, without random effects; None where it cannot be evaluated."""
    from . import _core

    d = engine.design
    offset = None if d.offset is None else np.ascontiguousarray(d.offset)
    state: Any = _core.GlmmState(
        [], [], [], engine.x, d.y, d.trials, d.weights, offset, engine.family.kernel, engine.threads
    )
    found = state.fit([], plain, list(engine.coefficients.designs), [], GLM_EVALUATIONS)
    if found["status"] == 3 or not np.isfinite(found["deviance"]):
        return None
    if engine.x.shape[1]:
        refuse_separated(d, engine.family, np.asarray(state.rows()[1]))
    values = np.asarray(found["plain"], dtype=np.float64)
    return (float(found["deviance"]), values, int(found["status"])) if np.isfinite(values).all() else None
