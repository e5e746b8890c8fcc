"""The deviance of a generalised model with one parameter held, by smooth coordinates of all the rest.

Random terms have the coordinates of `held.FreeTerm` and `held.FewTerm`, in which zero sds and perfect correlations are points
like others. Fixed effects and further coefficients are those of the engine, turned so that one coordinate alone moves the
coefficient that is held. Value and gradient are the engine's: Laplace's approximation or quadrature, whatever the fit is by.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .covariance import Structure, lower_triangular
from .held import FewTerm, FreeTerm, effect_units

if TYPE_CHECKING:
    from .families import Family
    from .generalised import GeneralisedFit
    from .sd_scale import Parameter

__all__ = ["LinkHeld"]

Array = NDArray[np.float64]

NEAR_ZERO = 0.03  # sd, over its unit, below which the criterion may have a saddle: it is even in a vanished effect


class LinkHeld:
    """Deviance and exact gradient by every parameter but one.

    Parameters
    ----------
    fit : GeneralisedFit
        With its rows.
    state
        Compiled problem of the fit's engine.
    held : Parameter
        An sd or correlation, a further coefficient (dispersion, extra zeros, threshold), or a fixed effect.
    """

    def __init__(self, fit: GeneralisedFit, state: Any, held: Parameter) -> None:
        self.engine, self._state, self._held = fit.model.laplace(), state, held
        self._units = effect_units(fit.engine, 1.0)
        self._terms: list[FreeTerm | FewTerm] = []
        for t, term in enumerate(fit.design.terms):
            structure = Structure(term.structure, len(term.names))
            kind = FreeTerm if structure.free else FewTerm
            self._terms.append(kind(structure, self._units[t], held if held.term == t else None))
        self.factors = sum(term.size for term in self._terms)  # the first coordinates
        self._free, self._along = self._directions()
        self._modes = None if one_mode(fit.family) else modes(fit)
        self.size = self.factors + self._free.shape[1]

    def _directions(self) -> tuple[Array, Array]:
        """Coefficients in engine coordinates are ``free @ x + along * value``."""
        p, basis = self.engine.x.shape[1], self.engine.coefficients.basis
        count = p + len(basis)
        if self._held.kind not in ("fixed", "residual"):
            return np.eye(count), np.zeros(count)
        row = np.zeros(count)
        if self._held.kind == "fixed":
            row[:p] = self.engine.x_basis[self._held.i]
        else:
            row[p:] = basis[self._held.i]
        return np.asarray(np.linalg.svd(row[None])[2][1:].T), row / float(row @ row)

    # -- the held parameter ---------------------------------------------------------------------------------------

    def range(self) -> tuple[float, float]:
        """Ends of its range."""
        if self._held.kind == "cor":
            term = self._terms[self._held.term]
            return term.structure.range() if isinstance(term, FewTerm) else (-1.0, 1.0)
        return (0.0, np.inf) if self._held.kind == "sd" else (-np.inf, np.inf)

    def unit(self) -> float:
        """The size a held sd is measured in: that of an effect whose linear predictor has an sd of about one."""
        return float(self._units[self._held.term][self._held.i])

    def first_step(self, value: float) -> float:
        """A step of an sd or correlation that is small beside what data can tell."""
        if self._held.kind == "cor":
            return 0.02
        return 0.05 * max(value, 0.1 * self.unit())

    # -- the rest -------------------------------------------------------------------------------------------------

    def plain(self, beta: Array, residual: Array) -> Array:
        """Engine coordinates of fixed effects and further coefficients."""
        basis = self.engine.coefficients.basis
        first = np.linalg.solve(self.engine.x_basis, beta) if len(beta) else np.empty(0)
        more = np.linalg.solve(basis, residual) if len(basis) else np.empty(0)
        return np.asarray(np.r_[first, more], dtype=np.float64)

    def start(self, lambdas: Sequence[Array], beta: Array, residual: Array) -> Array:
        """(size,) coordinates of a fit."""
        parts = [term.start(np.asarray(m)) for term, m in zip(self._terms, lambdas, strict=True)]
        return np.concatenate([*parts, self._free.T @ self.plain(beta, residual)])

    def point(self, x: Array, value: float) -> tuple[list[Array], Array]:
        """Factor per term (any square root of its covariance) and coefficients in engine coordinates."""
        parts = self._split(x)
        factors = [term.factor(part, value) for term, part in zip(self._terms, parts, strict=True)]
        return factors, self._free @ x[self.factors :] + self._along * value

    def lambdas(self, factors: Sequence[Array]) -> list[Array]:
        """The engine's factor of each group, from those of the terms."""
        return self.engine._engine_lambdas(tuple(factors))

    def slope(self, x: Array, value: float) -> tuple[float, Array]:
        """Deviance and its (size,) gradient; infinite where it cannot be evaluated."""
        factors, plain = self.point(x, value)
        p, e = self.engine.x.shape[1], self.engine
        rows = e.coefficients.rows(plain[p:])
        before = self._state.u
        if self._modes is not None:
            self._state.u = self._modes
        half, by_beta, by_lambda, by_rows = self._state.evaluate(
            np.ascontiguousarray(plain[:p]), self.lambdas(factors), rows, True
        )
        if not np.isfinite(half):
            self._state.u = before
            return np.inf, np.zeros(self.size)
        by_factor = self._by_factor(by_lambda)
        parts = zip(self._terms, self._split(x), by_factor, strict=True)
        out = [term.slope(part, value, by) for term, part, by in parts]
        more = np.zeros(len(plain) - p)
        for design, one in zip(e.coefficients.designs, by_rows, strict=True):
            more = more + design.T @ one
        gradient = np.concatenate([*out, self._free.T @ (2 * np.r_[by_beta, more])])
        if not np.isfinite(gradient).all():
            self._state.u = before
            return np.inf, np.zeros(self.size)
        return 2 * float(half), gradient

    def _by_factor(self, by_lambda: Sequence[Array]) -> list[Array]:
        """Derivatives of the deviance by the terms' factors."""
        out: list[Array] = [np.empty(0)] * len(self._terms)
        for group, by in zip(self.engine.groups, by_lambda, strict=True):
            whole = 2 * np.linalg.solve(group.basis.T, by)
            for t, part in zip(group.terms, group.slices, strict=True):
                out[t] = np.ascontiguousarray(whole[part, part])
        return out

    def _split(self, x: Array) -> list[Array]:
        return np.split(x[: self.factors], np.cumsum([term.size for term in self._terms]))[: len(self._terms)]

    def regular(self, x: Array, value: float) -> bool:
        """Whether every sd is so far from zero that the criterion has no saddle here."""
        factors, _ = self.point(x, value)
        for t, factor in enumerate(factors):
            diagonal = np.abs(np.diag(lower_triangular(factor))) / self._units[t]
            if diagonal.min(initial=np.inf) < NEAR_ZERO:
                return False
        return True

    def variants(self, x: Array) -> list[Array]:
        """Starts far from `x`: small effects, uncorrelated ones, other correlations, as `held.Held.variants`."""
        parts, last = self._split(x), x[self.factors :]
        if not parts:
            return []
        every = [term.variants(part) for term, part in zip(self._terms, parts, strict=True)]
        plain = [found[1] for found in every]
        out = [np.concatenate([*(found[0] for found in every), last]), np.concatenate([*plain, last])]
        for t, found in enumerate(every):
            out += [np.concatenate([*plain[:t], one, *plain[t + 1 :], last]) for one in found[2:]]
        return out


def one_mode(family: Family) -> bool:
    """Whether the log density is concave in the linear predictor, so that the random effects have one mode.

    The search for it may then begin anywhere. Otherwise it begins at the fit's for every value of the parameters: the
    deviance is a function of them only if it does not depend on the way.
    """
    concave = {
        "binomial": ("logit", "probit", "cloglog"),
        "ordinal": ("logit", "probit", "cloglog"),
        "poisson": ("log",),
        "nbinom2": ("log",),
        "gamma": ("log",),
        "gaussian": ("identity",),
        "lognormal": ("identity",),
    }
    return family.zero != "inflated" and family.link in concave.get(family.name, ())


def modes(fit: GeneralisedFit) -> Array:
    """(q,) spherical random effects of a fit, in the engine's order; zero along a vanished effect."""
    engine, b = fit.model.laplace(), fit.optimum.b
    out = [np.empty(0)]
    for group, root in zip(engine.groups, engine._engine_lambdas(tuple(fit.optimum.lambdas)), strict=True):
        own = np.empty((group.levels, group.k))
        for t, part in zip(group.terms, group.slices, strict=True):
            own[:, part] = b[t]
        out.append((own @ np.linalg.pinv(group.basis @ root, rcond=1e-7).T).ravel())
    return np.concatenate(out)
