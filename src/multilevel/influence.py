"""Influence of rows and groups: leverage, Cook's distance, changes of coefficients, without refitting.

With the variance parameters fixed, fixed and random effects solve one penalised least squares problem with matrix
``M = A'A + diag(I, 0)``, ``A = sqrt(W) [Z Lambda, X]``. Deleting rows S changes its solution by
``-M^-1 A_S' (I - H_S)^-1 e_S`` with ``H_S = A_S M^-1 A_S'`` (the updating formula of least squares; for mixed models
Christensen, Pearson & Johnson 1992, Technometrics 34(1); Demidenko & Stukel 2005, Statist. Med. 24). That is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import OptionError
from .predict import group_names
from .variance_shares import plain_residual

if TYPE_CHECKING:
    from .fit import Fit

Array = NDArray[np.float64]
Index = NDArray[np.int64]

ALONE = 1e-9  # 1 - leverage at or below this: the row (or group) alone determines an effect, so nothing is left without it

ROW_METHOD = "exact deletion, variance parameters held"
GROUP_METHOD = "coefficients: exact deletion, variance parameters held; sds: one Newton step"
HELD_METHOD = "coefficients: exact deletion, variance parameters held"
REFIT_METHOD = "refitted"


# -- the penalised least squares problem ----------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """Rows of the engine's least squares problem, unscaled by Lambda.

    Attributes
    ----------
    root_w : (n,) array
        Root of the weights, of mean square one.
    x : (n, p) array
        Fixed columns, engine coordinates.
    codes : list of (n,) arrays
        Per engine group.
    z : list of (n, k) arrays
    y : (n,) array
        Response in engine coordinates.
    """

    root_w: Array
    x: Array
    codes: list[NDArray[np.int32]]
    z: list[Array]
    y: Array
    offsets: Index


def engine_rows(fit: Fit) -> Rows:
    """The rows in the engine's coordinates."""
    d, c = fit.rows_of_data(), fit.engine.blocks
    n = len(d.y)
    root_w = np.ones(n) if d.weights is None else np.sqrt(d.weights) / c.unit
    x = d.X @ c.x_basis
    z = []
    for group in c.groups:
        blocks = [np.ones((n, 1)) if (one := d.terms[t].Z) is None else one for t in group.terms]
        z.append(np.hstack(blocks) @ group.basis)
    y = d.y if d.offset is None else d.y - d.offset
    codes = [d.terms[g.terms[0]].codes for g in c.groups]
    offsets = np.concatenate([[0], np.cumsum([g.levels * g.k for g in c.groups])]).astype(np.int64)
    return Rows(root_w, x, codes, z, (y - x @ c.shift) / c.scale, offsets)


def right_sides(rows: Rows, lambdas: list[Array], at: Index) -> Array:
    """(q + p, m): columns of A' for the rows `at`."""
    q = int(rows.offsets[-1])
    out = np.zeros((q + rows.x.shape[1], len(at)))
    out[q:] = (rows.root_w[at, None] * rows.x[at]).T
    for f, root in enumerate(lambdas):
        effects = rows.root_w[at, None] * (rows.z[f][at] @ root)
        first = rows.offsets[f] + rows.codes[f][at].astype(np.int64) * root.shape[0]
        out[first[:, None] + np.arange(root.shape[0]), np.arange(len(at))[:, None]] = effects
    return out


def times_transposed(rows: Rows, lambdas: list[Array], v: Array) -> Array:
    """(q + p, r): A'v for v (n, r)."""
    q, r = int(rows.offsets[-1]), v.shape[1]
    out = np.empty((q + rows.x.shape[1], r))
    weighted = rows.root_w[:, None] * v
    out[q:] = rows.x.T @ weighted
    for f, root in enumerate(lambdas):
        k = root.shape[0]
        effects = rows.z[f] @ root
        levels = int(rows.offsets[f + 1] - rows.offsets[f]) // k
        block = np.empty((levels, k, r))
        for a in range(k):
            for j in range(r):
                block[:, a, j] = np.bincount(rows.codes[f], effects[:, a] * weighted[:, j], minlength=levels)
        out[rows.offsets[f] : rows.offsets[f + 1]] = block.reshape(-1, r)
    return out


def times(rows: Rows, lambdas: list[Array], coefficients: Array) -> Array:
    """(n, r): A times coefficients (q + p, r)."""
    q = int(rows.offsets[-1])
    out = rows.x @ coefficients[q:]
    for f, root in enumerate(lambdas):
        block = coefficients[rows.offsets[f] : rows.offsets[f + 1]].reshape(-1, root.shape[0], coefficients.shape[1])
        effects = rows.z[f] @ root
        for a in range(root.shape[0]):
            out += effects[:, a, None] * block[rows.codes[f], a]
    return np.asarray(rows.root_w[:, None] * out)


def projected(fit: Fit, rows: Rows, v: Array) -> Array:
    """(I - H) v for v (n, r): what the model leaves of a (weighted) column; symmetric, its rank n less the trace of H."""
    lambdas = list(fit.optimum.engine_lambdas)
    with fit.engine.lock:
        state = fit.engine.state(fit.reml, lambdas)
        solved = state.solve(state.solve(times_transposed(rows, lambdas, v), False), True)
    return np.asarray(v - times(rows, lambdas, solved))


def leverages(fit: Fit) -> Array:
    """(n,) diagonal of H = A M^-1 A', the hat matrix of the conditional fit (lme4's hatvalues)."""
    d = fit.rows_of_data()
    parts = [
        (t, term.codes, np.ones((len(d.y), 1)) if term.Z is None else term.Z) for t, term in enumerate(d.terms)
    ]
    variance = fit.engine.estimation_var(fit.optimum, d.X, parts) / fit.sigma**2
    return variance if d.weights is None else np.asarray(variance * d.weights)


# -- by row -----------------------------------------------------------------------------------------------------


def by_row(fit: Fit) -> dict[str, Array]:
    """Per row used: leverage, std_residual, student_residual, cooks, cooks_fixed, dffits and dfbetas_* columns."""
    d, p = fit.rows_of_data(), len(fit.optimum.beta)
    h = leverages(fit)
    root_w = 1.0 if d.weights is None else np.sqrt(d.weights)
    e = (d.y - fit._eta[1]) * root_w
    left = np.where(1 - h > ALONE, 1 - h, np.nan)
    df = fit.engine.df(fit.reml)
    spread = np.maximum(fit.sigma**2 * df - e**2 / left, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        without = np.sqrt(spread / (df - 1)) if df > 1 else np.full(len(e), np.nan)
        student = e / (without * np.sqrt(left))
    std = e / (fit.sigma * np.sqrt(left))
    change = _row_changes(fit, e / left)
    return {
        "leverage": h,
        "std_residual": std,
        "student_residual": student,
        "cooks": std**2 * h / left / max(p, 1),
        "cooks_fixed": cooks_of(fit, change),
        "dffits": student * np.sqrt(h / left),
        **dfbetas(fit, change),
    }


def _row_changes(fit: Fit, deleted: Array) -> Array:
    """(n, p) beta less beta without the row, from the residuals e / (1 - h) of weight one."""
    c = fit.engine.blocks
    if not c.p:
        return np.zeros((len(deleted), 0))
    rows, lambdas = engine_rows(fit), list(fit.optimum.engine_lambdas)
    q = int(rows.offsets[-1])
    unit = np.zeros((q + c.p, c.p))
    unit[q:] = np.eye(c.p)
    with fit.engine.lock:
        state = fit.engine.state(fit.reml, lambdas)
        inverse = state.solve(state.solve(unit, False), True)
    return np.asarray(times(rows, lambdas, inverse) @ c.x_basis.T * (deleted / c.unit)[:, None])


def cooks_of(fit: Fit, change: Array) -> Array:
    """(m,) Cook's distance of the fixed effects: ``d' V^-1 d / p`` with V their covariance in the whole fit."""
    p = len(fit.optimum.beta)
    if not p:
        return np.full(len(change), np.nan)
    se = np.sqrt(np.diag(fit.optimum.vcov))
    scaled = change / se
    solved = np.linalg.solve(fit.optimum.vcov / np.outer(se, se), scaled.T).T
    return np.asarray(np.einsum("ij,ij->i", scaled, solved) / p)


def dfbetas(fit: Fit, change: Array) -> dict[str, Array]:
    """Columns dfbetas_*: the change of each coefficient over its standard error in the whole fit."""
    se = np.sqrt(np.diag(fit.optimum.vcov))
    return {f"dfbetas_{name}": change[:, i] / se[i] for i, name in enumerate(fit.design.names)}


# -- the tables ----------------------------------------------------------------------------------------------------


def influence(
    fit: Fit, group: str | None = None, refit: bool = False, variances: bool = True, progress: bool | None = None
) -> Any:
    """Influence of each row, or of each level of a grouping factor; see `Fit.influence`."""
    from .group_influence import by_group, refitted
    from .model import check_flag

    check_flag("refit", refit)
    check_flag("variances", variances)
    plain_residual(fit, "influence")
    fit.rows_of_data()
    if group is None:
        if refit:
            raise OptionError("refit=True refits without each level of a grouping factor; name it with group=")
        columns = {name: fit._aligned(values) for name, values in by_row(fit).items()}
        return fit._frame(columns | {"method": np.full(fit.design.n_input, ROW_METHOD, dtype=object)})
    if not isinstance(group, str):
        raise OptionError(f"group must be the name of a grouping factor, or None for single rows; got {group!r}")
    name = group_names(fit, [group])[0]
    term = next(one for one in fit.design.terms if one.group == name)
    found = refitted(fit, name, progress) if refit else by_group(fit, name, variances=variances, progress=progress)
    method = REFIT_METHOD if refit else GROUP_METHOD if "sigma" in found else HELD_METHOD
    labels = {"level": np.asarray(term.levels, dtype=object)}
    return fit._frame({**labels, **found, "method": np.full(len(term.levels), method, dtype=object)})
