"""Fits of a generalised model that begin at a known optimum: to responses drawn from it, or from a better point.

A fit from nothing begins with the model without random effects, tries several starts and ends with a Hessian. A response
drawn from a fit has its optimum near by, and most uses of it need neither standard errors nor a certificate.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import DataError
from .laplace import MAX_EVALUATIONS, SETTLED, LaplaceEngine, coefficients_of
from .quick_start import QuickEngine
from .separation import refuse_separated

if TYPE_CHECKING:
    from .generalised import GeneralisedFit
    from .model import Model

__all__ = ["Start", "direct", "engine_on", "fitted_at", "refitted", "search", "start_of"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Start:
    """A point in the engine's coordinates: a factor per group; fixed effects, then further coefficients."""

    lambdas: list[Array]
    plain: Array


def start_of(fit: GeneralisedFit) -> Start:
    """The optimum of a fit."""
    engine, optimum = fit.model.laplace(), fit.optimum
    basis = engine.coefficients.basis
    beta = np.linalg.solve(engine.x_basis, optimum.beta) if len(optimum.beta) else np.empty(0)
    more = np.linalg.solve(basis, optimum.residual) if len(basis) else np.empty(0)
    return Start(engine._engine_lambdas(tuple(optimum.lambdas)), np.r_[beta, more])


def direct(engine: LaplaceEngine) -> bool:
    """Whether one compiled search moves every parameter: not with structures of few parameters, nor by the quick start."""
    return not isinstance(engine, QuickEngine) and all(s.free for s in engine.structures)


def engine_on(engine: LaplaceEngine, y: Array, threads: int) -> LaplaceEngine:
    """The engine of another response; designs and coordinates are shared.

    Raises
    ------
    DataError
        Where a category of an ordinal response does not occur, so that its thresholds have no estimate.
    """
    out = copy.copy(engine)
    out.design, out.threads = replace(engine.design, y=np.ascontiguousarray(y)), threads
    if engine.family.name == "ordinal":
        seen = np.bincount(y.astype(np.intp), minlength=len(engine.design.labels))
        if not seen.all():
            missing = engine.design.labels[int(np.argmin(seen))]
            raise DataError(f"the response has no row of category {missing!r}, whose thresholds then have no estimate")
        out.coefficients = coefficients_of(out.design, engine.family)
    return out


def search(engine: LaplaceEngine, start: Start, limit: int = MAX_EVALUATIONS) -> tuple[Any, dict[str, Any]] | None:
    """One search from a start: the compiled problem and what it found there; None where it did not settle.

    Raises
    ------
    DataError
        If the fixed effects separate the response.
    """
    state = engine.state()
    found = state.fit(start.lambdas, start.plain, list(engine.coefficients.designs), engine.components, limit)
    settled = found["status"] == 0 or (found["status"] != 3 and abs(found["decrement"]) < SETTLED)
    if not settled or not np.isfinite(found["deviance"]):
        return None
    if engine.x.shape[1]:
        refuse_separated(engine.design, engine.family, np.asarray(state.rows()[1]))
    return state, found


def fitted_at(model: Model, engine: LaplaceEngine, start: Start) -> GeneralisedFit | None:
    """The whole fit, its search from a start; None where that did not settle."""
    from .generalised import GeneralisedFit

    reached = search(engine, start)
    if reached is None:
        return None
    state, found = reached
    joint, hessian = engine._polished(state, found)
    evidence = engine._evidence(found, int(found["evaluations"]), joint, hessian)
    return GeneralisedFit(model, *engine._optimum(state, joint, hessian, evidence))


def refitted(fit: GeneralisedFit, y: Array, start: Start | None = None) -> GeneralisedFit:
    """The model of a fit on another response (rows used,), the search starting at its optimum.

    Where that search does not settle, and for models that it does not suit, a fit from nothing.

    Raises
    ------
    DataError
        Where the response cannot be fitted.
    """
    from .generalised import GeneralisedFit

    model = fit.model.with_design(replace(fit.design, y=np.ascontiguousarray(y)))
    base = fit.model.laplace()
    if direct(base):
        engine = engine_on(base, y, 1)
        model._laplace = engine
        found = fitted_at(model, engine, start_of(fit) if start is None else start)
        if found is not None:
            return found
    elif not isinstance(base, QuickEngine):
        engine = engine_on(base, y, 1)
        model._laplace = engine
        near = GeneralisedFit(model, *engine.fit(tuple(fit.optimum.lambdas)))
        if near.convergence.converged:
            return near
    again: Any = model.fit(threads=1)
    return again  # type: ignore[no-any-return]
