"""Influence of rows and groups: leverage, Cook's distance, changes of coefficients, without refitting.

With the variance parameters fixed, fixed and random effects solve one penalised least squares problem with matrix
``M = A'A + diag(I, 0)``, ``A = sqrt(W) [Z Lambda, X]``. Deleting rows S changes its solution by
``-M^-1 A_S' (I - H_S)^-1 e_S`` with ``H_S = A_S M^-1 A_S'`` (the updating formula of least squares; for mixed models
Christensen, Pearson & Johnson 1992, Technometrics 34(1); Demidenko & Stukel 2005, Statist. Med. 24). That is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from .errors import OptionError
from .predict import group_names

if TYPE_CHECKING:
    from .design import Design
    from .fit import Fit
    from .generalised import GeneralisedFit
    from .reml import Engine
    from .residuals import Residual, Whitener

Array = NDArray[np.float64]
Index = NDArray[np.int64]

ALONE = 1e-9  # 1 - leverage at or below this: the row (or group) alone determines an effect, so nothing is left without it

ROW_METHOD = "exact deletion, variance parameters held"
GROUP_METHOD = "coefficients: exact deletion, variance parameters held; sds: one Newton step"
HELD_METHOD = "coefficients: exact deletion, variance parameters held"
LONG_METHOD = f"{HELD_METHOD}; sds left out, for they take long here: variances=True gives them"
REFIT_METHOD = "refitted"


# -- the penalised least squares problem ----------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """Effects of one engine group in every row: ``z`` (n, k) of the level ``codes`` (n,); a code below zero is none."""

    group: int
    codes: NDArray[np.int32]
    z: Array


@dataclass(frozen=True)
class Rows:
    """Rows of the engine's least squares problem, whitened (times their root weights), unscaled by Lambda.

    Attributes
    ----------
    x : (n, p) array
        Fixed columns, engine coordinates.
    entries : tuple of Entry
        One per engine group, in order; a second one where rows that are correlated lie in two levels of a group.
    y : (n,) array
        Response in engine coordinates.
    offsets : (groups + 1,) array
        First random-effect coordinate of each engine group.
    whitener : Whitener or None
        Of a residual structure, the weights included.
    root_w : (n,) array
        Without one: root of the weights, of mean square one.
    """

    x: Array
    entries: tuple[Entry, ...]
    y: Array
    offsets: Index
    root_w: Array
    whitener: Whitener | None

    def whiten(self, values: Array) -> Array:
        """(n,) or (n, m) values of the rows -> what the least squares problem has of them."""
        if self.whitener is not None:
            return self.whitener.apply(values)
        return np.asarray(self.root_w * values if values.ndim == 1 else self.root_w[:, None] * values)

    def part(self, at: Index) -> Rows:
        """Some of the rows."""
        entries = tuple(Entry(e.group, e.codes[at], e.z[at]) for e in self.entries)
        return Rows(self.x[at], entries, self.y[at], self.offsets, self.root_w[at], None)


def engine_rows(fit: Fit) -> Rows:
    """The rows in the engine's coordinates; of a generalised model those of its working linear model."""
    from .structured import StructuredEngine, entries

    if fit.generalised:
        from .generalised_influence import working_rows

        return working_rows(cast("GeneralisedFit", fit))
    d, c = fit.rows_of_data(), fit.engine.blocks
    n = len(d.y)
    x = d.X @ c.x_basis
    y = ((d.y if d.offset is None else d.y - d.offset) - x @ c.shift) / c.scale
    offsets = np.concatenate([[0], np.cumsum([g.levels * g.k for g in c.groups])]).astype(np.int64)
    root_w = np.ones(n) if d.weights is None else np.sqrt(d.weights) / c.unit
    engine, whitener = fit.engine, None
    if isinstance(engine, StructuredEngine) and engine.residual is not None:
        whitener = engine.residual.at(engine.a, n)
    out = Rows(x, (), y, offsets, root_w, whitener)
    parts: list[Entry] = []
    for f, group in enumerate(c.groups):
        blocks = [np.ones((n, 1)) if (one := d.terms[t].Z) is None else one for t in group.terms]
        z, codes = np.hstack(blocks) @ group.basis, d.terms[group.terms[0]].codes
        if whitener is None:
            parts.append(Entry(f, codes, out.whiten(z)))
            continue
        first, low, second, high = entries(whitener, codes, whitener.own(z), whitener.before(z))
        parts.append(Entry(f, first, low))
        if second is not None:
            parts.append(Entry(f, second, high))
    return Rows(out.whiten(x), tuple(parts), out.whiten(y), offsets, root_w, whitener)


def right_sides(rows: Rows, lambdas: list[Array], at: Index) -> Array:
    """(q + p, m): columns of A' for the rows `at`."""
    q = int(rows.offsets[-1])
    out = np.zeros((q + rows.x.shape[1], len(at)))
    out[q:] = rows.x[at].T
    for entry in rows.entries:
        k = lambdas[entry.group].shape[0]
        codes = np.maximum(entry.codes[at], 0).astype(np.int64)  # where there is no level, z is zero
        first = rows.offsets[entry.group] + codes * k
        out[first[:, None] + np.arange(k), np.arange(len(at))[:, None]] += entry.z[at] @ lambdas[entry.group]
    return out


def times_transposed(rows: Rows, lambdas: list[Array], v: Array) -> Array:
    """(q + p, r): A'v for v (n, r)."""
    q, r = int(rows.offsets[-1]), v.shape[1]
    out = np.zeros((q + rows.x.shape[1], r))
    out[q:] = rows.x.T @ v
    for entry in rows.entries:
        f, codes = entry.group, np.maximum(entry.codes, 0)
        effects = entry.z @ lambdas[f]
        k = effects.shape[1]
        levels = int(rows.offsets[f + 1] - rows.offsets[f]) // k
        block = np.empty((levels, k, r))
        for a in range(k):
            for j in range(r):
                block[:, a, j] = np.bincount(codes, effects[:, a] * v[:, j], minlength=levels)
        out[rows.offsets[f] : rows.offsets[f + 1]] += block.reshape(-1, r)
    return out


def times(rows: Rows, lambdas: list[Array], coefficients: Array) -> Array:
    """(n, r): A times coefficients (q + p, r)."""
    q = int(rows.offsets[-1])
    out = rows.x @ coefficients[q:]
    for entry in rows.entries:
        f, codes = entry.group, np.maximum(entry.codes, 0)
        effects = entry.z @ lambdas[f]
        k = effects.shape[1]
        block = coefficients[rows.offsets[f] : rows.offsets[f + 1]].reshape(-1, k, coefficients.shape[1])
        for a in range(k):
            out += effects[:, a, None] * block[codes, a]
    return np.asarray(out)


def projected(fit: Fit, rows: Rows, v: Array) -> Array:
    """(I - H) v for v (n, r): what the model leaves of a whitened column; symmetric, its rank n less the trace of H."""
    lambdas = list(fit.optimum.engine_lambdas)
    with fit.engine.lock:
        state = fit.engine.state(fit.reml, lambdas)
        solved = state.solve(state.solve(times_transposed(rows, lambdas, v), False), True)
    return np.asarray(v - times(rows, lambdas, solved))


def leverages(fit: Fit, rows: Rows, engine: Engine | None = None) -> Array:
    """(n,) diagonal of H = A M^-1 A', the hat matrix of the conditional fit (lme4's hatvalues).

    `engine` where the rows have other weights than the fit's own engine.
    """
    from . import _core

    engine = fit.engine if engine is None else engine
    lambdas = list(fit.optimum.engine_lambdas)
    codes = [np.ascontiguousarray(e.codes, dtype=np.int32) for e in rows.entries]
    effects = [np.ascontiguousarray(e.z @ lambdas[e.group]) for e in rows.entries]
    with engine.lock:
        state = engine.state(fit.reml, lambdas)
        x = np.ascontiguousarray(rows.x)
        return np.asarray(_core.estimation_var(state, x, codes, effects, [e.group for e in rows.entries], True))


# -- fewer rows -----------------------------------------------------------------------------------------------


def without_rows(design: Design, keep: NDArray[Any]) -> Design:
    """The design with fewer rows; levels that no row is left of are dropped, unless a known covariance links them."""
    terms = []
    known = getattr(design, "known", None) or {}
    for term in design.terms:
        if term.group in known:
            z = None if term.Z is None else np.ascontiguousarray(term.Z[keep])
            terms.append(replace(term, codes=np.ascontiguousarray(term.codes[keep]), Z=z))
            continue
        used, codes = np.unique(term.codes[keep], return_inverse=True)
        z = None if term.Z is None else np.ascontiguousarray(term.Z[keep])
        terms.append(replace(term, codes=codes.astype(np.int32), levels=term.levels[used], Z=z))
    return replace(
        design,
        y=design.y[keep],
        X=np.ascontiguousarray(design.X[keep]),
        terms=tuple(terms),
        weights=None if design.weights is None else design.weights[keep],
        offset=None if design.offset is None else design.offset[keep],
        rows=design.rows[keep],
    )


def residual_of_rows(residual: Residual, keep: NDArray[np.bool_]) -> Residual:
    """The residuals' structure on some rows, whose series are whole."""
    spreads = tuple(
        replace(
            one,
            codes=None if one.codes is None else one.codes[keep],
            basis=None if one.basis is None else one.basis[keep],
        )
        for one in residual.spreads
    )
    serial = residual.serial
    if serial is not None:
        now = np.cumsum(keep) - 1
        before = serial.previous[keep]
        serial = replace(serial, previous=np.where(before >= 0, now[before], -1), lag=serial.lag[keep])
    return replace(residual, serial=serial, spreads=spreads)


def engine_without(fit: Fit, design: Design, keep: NDArray[np.bool_]) -> Engine:
    """Engine of the rows kept, at the fit's parameters of the residual."""
    from .reml import Engine
    from .structured import StructuredEngine

    if fit.model.residual is None:
        return Engine(design, fit.engine.threads)
    residual = residual_of_rows(fit.model.residual, keep)
    return StructuredEngine(design, residual, fit.engine.threads).moved(residual.coordinates(fit.optimum.residual))


# -- by row -----------------------------------------------------------------------------------------------------


def by_row(fit: Fit) -> dict[str, Array]:
    """Per row used: leverage, std_residual, student_residual, cooks, cooks_fixed, dffits and dfbetas_* columns.

    Of the whitened rows: residuals are the normalized ones over their own sds. With a serial correlation a whitened row
    holds a piece of the row before, so that only leverage and residuals keep their meaning there.
    """
    d, p = fit.rows_of_data(), len(fit.optimum.beta)
    rows = engine_rows(fit)
    h = leverages(fit, rows)
    e = rows.whiten(d.y - fit._eta[1]) * fit.engine.blocks.unit  # the engine's weights have mean square one
    left = np.where(1 - h > ALONE, 1 - h, np.nan)
    df = fit.engine.df(fit.reml)
    spread = np.maximum(fit.sigma**2 * df - e**2 / left, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        without = np.sqrt(spread / (df - 1)) if df > 1 else np.full(len(e), np.nan)
        student = e / (without * np.sqrt(left))
    std = e / (fit.sigma * np.sqrt(left))
    change = _row_changes(fit, rows, e / left)
    return {
        "leverage": h,
        "std_residual": std,
        "student_residual": student,
        "cooks": std**2 * h / left / max(p, 1),
        "cooks_fixed": cooks_of(fit, change),
        "dffits": student * np.sqrt(h / left),
        **dfbetas(fit, change),
    }


def _row_changes(fit: Fit, rows: Rows, deleted: Array) -> Array:
    """(n, p) beta less beta without the row, from the residuals e / (1 - h) of weight one."""
    c = fit.engine.blocks
    if not c.p:
        return np.zeros((len(deleted), 0))
    lambdas = list(fit.optimum.engine_lambdas)
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
    fit: Fit,
    group: str | None = None,
    refit: bool = False,
    variances: bool | None = None,
    progress: bool | None = None,
) -> Any:
    """Influence of each row, or of each level of a grouping factor; see `Fit.influence` and `GeneralisedFit.influence`."""
    from .model import check_flag

    rows_of, groups_of, refits_of, row_method = _ways(fit)
    check_flag("refit", refit)
    if variances is not None:
        check_flag("variances", variances)
    fit.rows_of_data()
    if group is None:
        if refit:
            raise OptionError("refit=True refits without each level of a grouping factor; name it with group=")
        check_rows_apart(fit)
        columns = {name: fit._aligned(values) for name, values in rows_of(fit).items()}
        return fit._frame(columns | {"method": np.full(fit.design.n_input, row_method, dtype=object)})
    if not isinstance(group, str):
        raise OptionError(f"group must be the name of a grouping factor, or None for single rows; got {group!r}")
    name = group_names(fit, [group])[0]
    check_group_apart(fit, name, refit)
    term = next(one for one in fit.design.terms if one.group == name)
    found, method = refits_of(fit, name, progress) if refit else groups_of(fit, name, variances, progress)
    labels = {"level": np.asarray(term.levels, dtype=object)}
    return fit._frame({**labels, **found, "method": np.full(len(term.levels), method, dtype=object)})


def _ways(fit: Fit) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any], str]:
    """How rows and groups are left out, groups with refits, and what the first is called: by the kind of model."""
    if fit.generalised:
        from . import generalised_influence as link

        return link.by_row, link.by_group, link.refitted, link.ROW_METHOD
    from .group_influence import by_group, refitted

    return by_row, by_group, refitted, ROW_METHOD


def check_rows_apart(fit: Fit) -> None:
    """Refuse single rows of a series: without one, its neighbours are correlated otherwise."""
    serial = None if fit.model.residual is None else fit.model.residual.serial
    if serial is not None:
        whole = [t.group for t in fit.design.terms if holds_series(fit, t.group)]
        advice = f"leave out whole levels: influence({whole[0]!r})" if whole else f"refit without levels of {serial.group}"
        raise OptionError(
            f"single rows cannot be left out here: their residuals are correlated within {serial.group} "
            f"({serial.text}), so that leaving one out changes its neighbours too; {advice}"
        )


def holds_series(fit: Fit, name: str) -> bool:
    """Whether no residual correlation reaches from one level of a grouping factor to another."""
    serial = None if fit.model.residual is None else fit.model.residual.serial
    if serial is None:
        return True
    codes = next(t.codes for t in fit.rows_of_data().terms if t.group == name)
    later = np.flatnonzero(serial.previous >= 0)
    return bool(np.array_equal(codes[later], codes[serial.previous[later]]))


def check_group_apart(fit: Fit, name: str, refit: bool) -> None:
    """Refuse groups that residual correlations tie together, where leaving one out would tear series apart."""
    if holds_series(fit, name):
        return
    assert fit.model.residual is not None
    serial = fit.model.residual.serial
    assert serial is not None
    if refit and serial.time is not None:
        return  # lags are those of the time column, whatever rows are left
    advice = (
        "refit=True does it, for times are in the data"
        if serial.time is not None
        else "give the correlation a column of times and use refit=True"
    )
    raise OptionError(
        f"levels of {name!r} cannot be left out one by one: rows correlated within {serial.group} ({serial.text}) lie in "
        f"several of them; {advice}"
    )
