"""Many responses fitted on one design: only their sums with X and Z are new."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .covariance import lower_triangular
from .errors import DataError
from .reml import MAX_EVALUATIONS

if TYPE_CHECKING:
    from .crossprod import CrossProducts
    from .design import Design
    from .fit import Fit
    from .model import Model
    from .reml import Engine, Optimum

Array = NDArray[np.float64]


def refit(
    engine: Engine, design: Design, ys: Array, optimum: Optimum, threads: int | None = None, model: Model | None = None
) -> dict[str, Array]:
    """Fit r more responses on the same design, by the criterion of an optimum.

    Models with structures that are not free are fitted one after the other; they need `model`.

    Parameters
    ----------
    ys : (r, n) array
        Responses on the design's used rows, the user's scale.

    Returns
    -------
    dict
        beta, std_error (r, p), sigma (r,), theta (r, n_theta), criterion (r,), converged (r,) bool, evaluations (r,); for
        structures that are not free also residual (r, parameters of the residual).
    """
    from . import _core
    from .structured import StructuredEngine

    c = engine.blocks
    if isinstance(engine, StructuredEngine):
        assert model is not None
        return _one_by_one(model, design, ys, optimum, threads or engine.threads)
    ys, shift, scale = _center(c, design, ys)
    raw = _core.refit(
        c.core,
        c.rows.codes,
        c.rows.z,
        c.rows.levels,
        c.rows.x,
        c.rows.weights,
        ys,
        c.components,
        optimum.reml,
        MAX_EVALUATIONS,
        engine.threads if threads is None else threads,
    )
    df = engine.df(optimum.reml)
    beta = (scale[:, None] * raw["beta"] + shift) @ c.x_basis.T
    constant = engine.constant(optimum.reml) - 2 * df * np.log(c.scale)
    sigma = scale * np.sqrt(raw["r2"] / df)
    half = np.linalg.solve(raw["l_x"], np.broadcast_to(c.x_basis.T, raw["l_x"].shape)) if c.p else raw["l_x"]
    return {
        "beta": beta,
        "std_error": sigma[:, None] * np.sqrt(np.einsum("rij,rij->rj", half, half)),
        "sigma": c.unit * sigma,
        "theta": _thetas(c, raw["lambdas"]),
        "criterion": raw["deviance"] + 2 * df * np.log(scale) + constant,
        "converged": raw["status"] == 0,
        "evaluations": raw["evaluations"],
    }


def from_there(model: Model, design: Design, y: Array, optimum: Optimum, threads: int) -> Fit:
    """The model fitted to another response, the search starting at an optimum: what a bootstrap needs."""
    from .fit import Fit
    from .structured import StructuredEngine

    other = model.with_design(replace(design, y=y))
    if other.residual is not None and other.residual.iterated:
        return other.fit(optimum.reml, threads=threads)
    engine = other.engine(threads)
    if isinstance(engine, StructuredEngine):
        found = engine.fit(optimum.reml, optimum.lambdas, residual=optimum.residual)
    else:
        found = engine.fit(optimum.reml)
    return Fit(other, found, engine.fitted(found))


def _one_by_one(model: Model, design: Design, ys: Array, optimum: Optimum, threads: int) -> dict[str, Array]:
    """As `refit`, by a search of its own for each response; what cannot be fitted is NaN and not converged."""
    found: list[dict[str, Any]] = []
    p, q = len(optimum.beta), len(optimum.theta)
    for y in ys:
        try:
            new = from_there(model, design, y, optimum, threads).optimum
        except DataError:
            none = {"beta": np.full(p, np.nan), "std_error": np.full(p, np.nan), "theta": np.full(q, np.nan)}
            found.append({**none, "sigma": np.nan, "criterion": np.nan, "converged": False, "evaluations": 0,
                          "residual": np.full(len(optimum.residual), np.nan)})
            continue
        found.append({
            "beta": new.beta, "std_error": np.sqrt(np.diag(new.vcov)), "theta": new.theta, "sigma": new.sigma,
            "criterion": new.criterion, "converged": new.evidence.converged, "evaluations": new.evidence.evaluations,
            "residual": new.residual,
        })
    return {name: np.array([one[name] for one in found]) for name in found[0]}


def _center(blocks: CrossProducts, design: Design, ys: Array) -> tuple[Array, Array, Array]:
    """(r, n) responses without offset and regression on X, scaled; with shift and scale of each."""
    c = blocks
    rest = np.array(ys if design.offset is None else ys - design.offset, dtype=np.float64)
    x, w = c.rows.x, c.rows.weights
    shift = np.zeros((len(rest), c.p))
    if c.p:
        xw = x if w is None else w[:, None] * x
        hat = np.linalg.solve(xw.T @ x, xw.T)
        for _ in range(2):
            step = rest @ hat.T
            shift += step
            rest -= step @ x.T
    top = np.abs(rest).max(axis=1)
    extreme = np.flatnonzero(~((top > 1e-100) & (top < 1e100)))
    if len(extreme) and top[extreme[0]] > 0:
        raise DataError(
            f"response {int(extreme[0])} of the {len(ys)} to refit less the offset reaches {top[extreme[0]]:.3g}, whose "
            "square leaves the range of floating point; rescale it, for example to other units"
        )
    scale = np.sqrt(np.mean(rest * rest, axis=1))
    constant = ~(scale > 1e-12 * np.sqrt(np.mean(ys * ys, axis=1)))
    if constant.any():
        raise DataError(
            f"response {int(np.flatnonzero(constant)[0])} of the {len(ys)} to refit is an exact linear "
            "function of the fixed effects; leave it out"
        )
    return np.ascontiguousarray(rest / scale[:, None]), shift, scale


def _thetas(blocks: CrossProducts, flat: Array) -> Array:
    """(r, n_theta) user thetas of the engine's flattened square roots."""
    c = blocks
    parts: list[Array] = [np.empty(0)] * len(c.structures)
    at = 0
    for group in c.groups:
        roots = group.basis @ flat[:, at : at + group.k**2].reshape(-1, group.k, group.k)
        at += group.k**2
        for t, part in zip(group.terms, group.slices, strict=True):
            rows, cols = c.structures[t].entries()
            parts[t] = np.stack([lower_triangular(m)[rows, cols] / c.unit for m in roots[:, part, part]])
    return np.hstack(parts) if parts else np.empty((len(flat), 0))
