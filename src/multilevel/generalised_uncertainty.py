"""How far the linear predictors of a generalised fit may err: everything that was estimated, carried to the rows.

The error of ``x'beta + z'b`` has two parts. The conditional modes follow the parameters (fixed effects, dispersion, extra
zeros or thresholds, covariances), so the parameters' joint covariance is taken along ``x + z' db/dparameters``; round the
modes the effects have their conditional covariance. This is TMB's ``sdreport`` (Kristensen, Nielsen, Berg, Skaug & Bell 2016,
J. Stat. Softw. 70(5), section 2.2), with the derivative of the modes by the implicit function theorem.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import condition
from . import predict as linear
from .errors import DataError

if TYPE_CHECKING:
    from .design_recipe import NewTerm
    from .generalised import GeneralisedFit

__all__ = ["Errors", "errors", "following", "joint_vcov", "spread"]

Array = NDArray[np.float64]

ROUNDING = 4 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Errors:
    """Errors of m linear predictors.

    Attributes
    ----------
    along : (m, s) array
        Derivative of each by the parameters, in the order of ``Optimum.joint_vcov``.
    apart : (m,) array
        Variance of what does not depend on the parameters' error: effects round their modes, effects of unknown groups.
    """

    along: Array
    apart: Array

    def variance(self, cov: Array) -> Array:
        """(m,) variances under a covariance of the parameters."""
        return quadratic(self.along, cov) + self.apart


def quadratic(along: Array, cov: Array) -> Array:
    """(m,) variances along rows (m, s), none smaller than what rounding leaves of the terms it is summed from.

    Where a predictor lies far from zero and its coefficient is hardly known, these cancel to the last digit, or below zero.
    """
    terms = np.einsum("ij,jk,ik->i", np.abs(along), np.abs(cov), np.abs(along))
    return np.asarray(np.maximum(np.einsum("ij,jk,ik->i", along, cov, along), ROUNDING * terms))


def joint_vcov(fit: GeneralisedFit) -> Array:
    """(s, s) covariance of fixed effects, further coefficients and covariance parameters together.

    Raises
    ------
    DataError
        For a fit from a file that an older version wrote.
    """
    o = fit.optimum
    size = len(o.beta) + len(o.residual) + len(o.moves)
    if o.joint_vcov.shape != (size, size):
        raise DataError(
            "this fit was saved by a version that did not keep the joint covariance of its parameters; fit the model again"
        )
    return o.joint_vcov


def errors(fit: GeneralisedFit, X: Array, terms: list[NewTerm]) -> Errors:
    """Errors of the linear predictors of rows to predict (`predict._Rows`)."""
    cov = joint_vcov(fit)
    p, m = len(fit.optimum.beta), len(X)
    along = np.zeros((m, len(cov)))
    along[:, :p] = X
    moved = np.zeros((m, p))
    parts = [(t.index, t.codes, linear._columns(t)) for t in terms]
    for t, codes, z in parts:
        known = codes >= 0
        if known.any():
            by_beta, others = by_parameters(fit)
            moved[known] += np.einsum("ik,ikp->ip", z[known], by_beta[t][codes[known]])
            along[known, p:] += np.einsum("ik,ikp->ip", z[known], others[t][codes[known]])
    along[:, :p] += moved
    # with fixed effects that take back what the modes do, the working linear model has the conditional variance alone
    some = any((codes >= 0).any() for _, codes, _ in parts)
    apart = fit.engine.estimation_var(fit.optimum, -moved, parts) if some else np.zeros(m)
    covs = fit.random_cov()
    for t, codes, z in parts:
        unknown = codes < 0
        apart[unknown] += np.einsum("ij,jk,ik->i", z[unknown], covs[t], z[unknown])
    return Errors(along, apart)


def by_parameters(fit: GeneralisedFit) -> tuple[list[Array], tuple[Array, ...]]:
    """Per term (J, k, p) and (J, k, s - p): derivatives of the modes by beta and by the other parameters."""
    if "by_beta" not in fit.__dict__:
        lambdas = fit.optimum.engine_lambdas
        with fit.engine.lock:
            state = fit.engine.state(False, lambdas)
            fit.__dict__["by_beta"] = condition._pull(fit.engine, state, lambdas)
    by_beta: list[Array] = fit.__dict__["by_beta"]
    return by_beta, fit.following


def following(fit: GeneralisedFit) -> tuple[Array, ...]:
    """Per term (J, k, s - p): derivative of the conditional modes by all parameters but the fixed effects.

    At the modes ``Lambda'Z's = Q u``, s the derivative of the log density by the linear predictor and Q the precision of u
    (the identity but for a known covariance). A change of a coefficient moves u by ``(Lambda'Z'WZ Lambda + Q)^-1`` times
    ``Lambda'Z' ds``, a change D of Lambda by the same matrix times ``D'Z's - Lambda'Z'WZ D u``; b = Lambda u.
    """
    scores, by_coefficient = _scores(fit)
    c, lambdas = fit.engine.blocks, fit.optimum.engine_lambdas
    r, f = by_coefficient.shape[1], len(fit.optimum.moves)
    q = sum(g.levels * g.k for g in c.groups)
    with fit.engine.lock:
        state = fit.engine.state(False, lambdas)
        sums = np.zeros((q + c.p, r + 1))
        sums[:q] = _group_sums(fit, np.column_stack([scores, by_coefficient]))
        u = np.asarray(state.apply_lambda(np.ascontiguousarray(sums), True))
        modes = _spherical(fit, state, sums[:, :1])
        direct, turned = np.zeros((q + c.p, f)), np.zeros((q + c.p, f))
        for j, move in enumerate(_moves(fit)):
            direct[:q, j] = _times(c.groups, move, modes, False)
            turned[:q, j] = _times(c.groups, move, sums[:q, 0], True)
        pulled = np.asarray(state.apply_lambda(np.ascontiguousarray(state.cross(direct)), True))
        right = np.hstack([u[:, 1:], turned - pulled])
        right[q:] = 0.0
        change = np.asarray(state.solve_random(np.ascontiguousarray(right)))[:q]
    out = condition._by_term(fit.engine, change, lambdas)
    if f:
        identity = tuple(np.eye(len(one)) for one in lambdas)
        plain = condition._by_term(fit.engine, direct[:q], identity)
        for one, more in zip(out, plain, strict=True):
            one[:, :, r:] += more
    return tuple(np.ascontiguousarray(one) for one in out)


def _spherical(fit: GeneralisedFit, state: Any, sums: Array) -> Array:
    """(q,) modes u of the spherical effects, which b does not tell where Lambda is singular."""
    c = fit.engine.blocks
    b = np.zeros_like(sums)
    at = 0
    for group in c.groups:
        own = np.hstack([fit.optimum.b[t] for t in group.terms])
        b[at : at + own.size, 0] = np.linalg.solve(group.basis, own.T).T.ravel()
        at += own.size
    right = state.apply_lambda(np.ascontiguousarray(np.asarray(state.cross(b)) + sums), True)
    return np.asarray(state.solve_random(np.ascontiguousarray(right)))[:at, 0]


def _scores(fit: GeneralisedFit) -> tuple[Array, Array]:
    """(n,) derivative of each row's log density by its linear predictor, and (n, r) that by the further coefficients."""
    from . import _core

    d, coefficients = fit.rows_of_data(), fit.coefficients
    eta = fit._eta[1]
    prior = np.ones(len(d.y)) if d.weights is None else d.weights
    first, second = fit._parameters
    family = fit.model.distribution  # whose shape, where it is estimated, is a coefficient like others
    assert family is not None
    made = _core.log_densities(family.kernel, d.y, d.trials, eta, first, second)
    out = np.zeros((len(d.y), len(fit.optimum.residual)))
    for design, derivatives in zip(coefficients.designs, made[1:], strict=False):
        out += design * (prior * np.asarray(derivatives)[:, 1])[:, None]
    if out.shape[1]:
        out = out @ np.linalg.inv(coefficients.basis)
    return prior * np.asarray(made[0])[:, 1], out


def _group_sums(fit: GeneralisedFit, values: Array) -> Array:
    """Z'values (q, r) in the engine's coordinates."""
    rows, out = fit.engine.blocks.rows, []
    for codes, z, group in zip(rows.codes, rows.z, fit.engine.blocks.groups, strict=True):
        columns = np.ones((len(values), 1)) if z is None else z
        made = np.empty((group.levels, group.k, values.shape[1]))
        for a in range(group.k):
            for j in range(values.shape[1]):
                made[:, a, j] = np.bincount(codes, columns[:, a] * values[:, j], group.levels)
        out.append(made.reshape(-1, values.shape[1]))
    return np.concatenate(out) if out else np.empty((0, values.shape[1]))


def _moves(fit: GeneralisedFit, engine: bool = True) -> list[list[Array]]:
    """Per direction the (k, k) change of each group's factor, in the engine's coordinates or the user's."""
    groups, out = fit.engine.blocks.groups, []
    for row in fit.optimum.moves:
        parts, at = [], 0
        for g in groups:
            one = row[at : at + g.k**2].reshape(g.k, g.k)
            parts.append(np.linalg.solve(g.basis, one) if engine else one)
            at += g.k**2
        out.append(parts)
    return out


def _times(groups: Any, parts: list[Array], values: Array, transposed: bool) -> Array:
    """A change of the factors (transposed) times effects (q,)."""
    out, at = np.empty(len(values)), 0
    for g, part in zip(groups, parts, strict=True):
        end = at + g.levels * g.k
        own = values[at:end].reshape(g.levels, g.k)
        out[at:end] = (own @ (part if transposed else part.T)).ravel()
        at = end
    return out


def spread(fit: GeneralisedFit, m: int, terms: list[NewTerm]) -> tuple[Array, Array]:
    """Sd of m linear predictors between groups, over all terms given, and its derivative (m, s) by the parameters."""
    cov = joint_vcov(fit)
    where = {t.index: t for t in terms}
    first = len(fit.optimum.beta) + len(fit.optimum.residual)
    variance, slopes = np.zeros(m), np.zeros((m, len(cov)))
    moves = _moves(fit, engine=False)
    for f, (group, root) in enumerate(zip(fit.engine.blocks.groups, fit.optimum.engine_lambdas, strict=True)):
        user, z = group.basis @ root, np.zeros((m, group.k))
        for t, part in zip(group.terms, group.slices, strict=True):
            if t in where:
                z[:, part] = linear._columns(where[t])
        own = z @ user
        variance += np.einsum("ij,ij->i", own, own)
        for j, move in enumerate(moves):
            if move[f].any():
                slopes[:, first + j] += np.einsum("ij,ij->i", own, z @ move[f])
    sd = np.sqrt(variance)
    return sd, slopes / np.where(sd > 0, sd, 1.0)[:, None]
