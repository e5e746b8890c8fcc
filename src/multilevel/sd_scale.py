"""Parameters as people read them: standard deviations, correlations, sigma and fixed effects, by name.

The engine's coordinates are relative factors Lambda; here is the map to the sd and correlation scale, and the criterion
with one parameter of that scale held.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .covariance import lower_triangular
from .errors import OptionError, listing, nearest

if TYPE_CHECKING:
    from .design import Design
    from .fit import Fit
    from .reml import Engine

Array = NDArray[np.float64]

UNCORRELATED = ("diag", "homdiag")


@dataclass(frozen=True)
class Parameter:
    """One parameter on the scale of sds and correlations.

    Attributes
    ----------
    name : str
        "sd(Subject, Days)", "cor(Subject, Intercept, Days)", "sigma", or the fixed effect's name.
    kind : {"sd", "cor", "sigma", "residual", "fixed"}
        "residual" is a parameter of the residuals' structure.
    term : int
        Position of its random term, -1 for sigma and fixed effects.
    i, j : int
        The effect (and for a correlation the second) in the term, the column of X, or the place in
        `Optimum.residual`.
    """

    name: str
    kind: str
    term: int = -1
    i: int = 0
    j: int = 0


def parameters(design: Design, residual: Sequence[str] = ()) -> tuple[Parameter, ...]:
    """Every parameter: the terms' sds and correlations, sigma, fixed effects (columns dropped for rank have none).

    `residual` names the parameters of the residuals' structure; they follow sigma.
    """
    out: list[Parameter] = []
    for t, term in enumerate(design.terms):
        k = len(term.names)
        out += [Parameter(f"sd({term.group}, {n})", "sd", t, i) for i, n in enumerate(term.names)]
        if term.structure in UNCORRELATED:
            continue
        pairs = [(i, j) for i in range(k) for j in range(i + 1, k)]
        out += [Parameter(f"cor({term.group}, {term.names[i]}, {term.names[j]})", "cor", t, i, j) for i, j in pairs]
    out.append(Parameter("sd(Residual)" if "sigma" in design.names else "sigma", "sigma"))
    out += [Parameter(name, "residual", -1, i) for i, name in enumerate(residual)]
    return (*out, *(Parameter(name, "fixed", -1, i) for i, name in enumerate(design.names)))


def chosen(every: Sequence[Parameter], which: Any) -> tuple[Parameter, ...]:
    """The parameters a user's `which` names, in the order of `every`.

    Raises
    ------
    OptionError
        For a name that is not there; offers the nearest.
    """
    if which is None:
        return tuple(every)
    names = [which] if isinstance(which, str) else which
    known = [p.name for p in every]
    try:
        wanted = list(names)
    except TypeError:
        raise OptionError(f"which must be a parameter's name or a list of names, got {which!r}") from None
    for name in wanted:
        if name not in known:
            hint = nearest(name, known) or "its parameters are " + listing(known, 20)
            raise OptionError(f"there is no parameter {name!r} in the model; {hint}")
    if not wanted:
        raise OptionError(f"which names no parameter; allowed are {listing(known, 20)}, or None for all")
    return tuple(p for p in every if p.name in wanted)


def estimates(every: Sequence[Parameter], fit: Fit) -> Array:
    """(m,) values at a fit; a correlation with an sd of zero is NaN."""
    covs = [c[None] for c in fit.random_cov()]
    optimum = fit.optimum
    out: Array = draws(every, covs, np.array([fit.sigma]), optimum.beta[None], optimum.residual[None])[0]
    return out


def draws(
    every: Sequence[Parameter], covs: Sequence[Array], sigma: Array, beta: Array, residual: Array | None = None
) -> Array:
    """(r, m) values of r fits: covariances (r, k, k) per term, sigma (r,), beta (r, p), residual (r, c)."""
    out = np.empty((len(sigma), len(every)))
    for at, one in enumerate(every):
        if one.kind == "sigma":
            out[:, at] = sigma
        elif one.kind == "fixed":
            out[:, at] = beta[:, one.i]
        elif one.kind == "residual":
            assert residual is not None
            out[:, at] = residual[:, one.i]
        elif one.kind == "sd":
            out[:, at] = np.sqrt(covs[one.term][:, one.i, one.i])
        else:
            cov = covs[one.term]
            size = np.sqrt(cov[:, one.i, one.i] * cov[:, one.j, one.j])
            with np.errstate(divide="ignore", invalid="ignore"):
                out[:, at] = np.where(size > 0, np.clip(cov[:, one.i, one.j] / size, -1.0, 1.0), np.nan)
    return out


class Held:
    """ML deviance by all covariance parameters but one, which is held at a value on its own scale.

    The rest are the entries of each term's lower-triangular absolute factor T (``Cov(b) = T @ T.T``), in units of sigma
    over the size of the effect's column, and the logarithm of sigma over its estimate. The held effect stands first in
    its term, so that its sd is ``T[0, 0]``; of a held correlation both effects stand first, and the second row is
    ``s * (rho, sqrt(1 - rho**2))``. There the free parameters are the roots of ``T[0, 0]`` and s: a negative one would
    turn the correlation's sign. No bound is needed, the criterion is smooth in all of them, and zero sds and
    correlations of one are points like others.

    Parameters
    ----------
    engine, design
    held : Parameter
        An sd or correlation of an unstructured or diagonal term, or sigma.
    sigma : float
        Estimate of sigma.
    """

    def __init__(self, engine: Engine, design: Design, held: Parameter, sigma: float) -> None:
        self._engine, self._held, self._sigma = engine, held, sigma
        self._units = effect_units(engine, sigma)
        self._orders: list[list[int]] = []
        self._free: list[tuple[NDArray[np.intp], NDArray[np.intp]]] = []
        for t, term in enumerate(design.terms):
            k = len(term.names)
            mine = held.kind in ("sd", "cor") and held.term == t
            first = ([held.i] if held.kind == "sd" else [held.i, held.j]) if mine else []
            self._orders.append([*first, *(i for i in range(k) if i not in first)])
            if term.structure == "diag":
                rows = cols = np.arange(k)
            else:
                rows, cols = np.tril_indices(k)
            keep = np.ones(len(rows), dtype=bool)
            if mine:  # the sd itself, or one of the two entries whose ratio the correlation fixes
                keep[0 if held.kind == "sd" else 1] = False
            self._free.append((rows[keep], cols[keep]))
        self.factors = sum(len(rows) for rows, _ in self._free)  # the first ones; log sigma is the last
        self.size = self.factors + (held.kind != "sigma")

    def first_step(self, value: float) -> float:
        """A step from the estimate that is small beside what the data can tell."""
        if self._held.kind == "sigma":
            return value / float(np.sqrt(2 * self._engine.blocks.n)) / 3
        if self._held.kind == "cor":
            return 0.02
        unit = float(self._units[self._held.term][self._held.i])
        return 0.05 * max(value, 0.1 * unit)

    def start(self, lambdas: Sequence[Array], sigma: float) -> Array:
        """(size,) free parameters of a fit."""
        out: list[Array] = []
        for t, (rows, cols) in enumerate(self._free):
            order = self._orders[t]
            factor = lower_triangular(sigma * np.asarray(lambdas[t])[order]) / self._units[t][order][:, None]
            values = factor[rows, cols]
            if self._held.kind == "cor" and self._held.term == t:
                values[:2] = np.sqrt(factor[0, 0]), np.sqrt(np.hypot(factor[1, 0], factor[1, 1]))
            out.append(values)
        return np.concatenate([*out, [] if self._held.kind == "sigma" else [np.log(sigma / self._sigma)]])

    def variants(self, x: Array) -> list[Array]:
        """Starts far from `x`, each in another valley the criterion may have: small effects, uncorrelated ones, and
        for a correlation one or the other of its effects all but gone.
        """
        small, plain = x.copy(), x.copy()
        small[: self.factors] *= 0.1
        out, at = [small, plain], 0
        for t, (rows, cols) in enumerate(self._free):
            part = slice(at, at + len(rows))
            plain[part] = np.where(rows == cols, np.maximum(np.abs(x[part]), 0.5), 0.0)
            if self._held.kind == "cor" and self._held.term == t:
                for root in (at, at + 1):
                    gone = plain.copy()
                    gone[root] = 0.03
                    out.append(gone)
            at += len(rows)
        return out

    def unpack(self, x: Array, value: float) -> tuple[list[Array], float]:
        """Absolute factors per term (the user's order of effects) and sigma."""
        sigma = value if self._held.kind == "sigma" else self._sigma * float(np.exp(x[-1]))
        factors, at = [], 0
        for t, (rows, cols) in enumerate(self._free):
            order = self._orders[t]
            factor = np.zeros((len(order), len(order)))
            factor[rows, cols] = x[at : at + len(rows)]
            if self._held.term == t and self._held.kind == "cor":
                factor[0, 0] = x[at] ** 2
                factor[1, :2] = x[at + 1] ** 2 * np.array([value, _sine(value)])
            at += len(rows)
            factor *= self._units[t][order][:, None]
            if self._held.term == t and self._held.kind == "sd":
                factor[0, 0] = value
            out = np.empty_like(factor)
            out[order] = factor
            factors.append(out)
        return factors, sigma

    def lambdas(self, x: Array, value: float) -> tuple[tuple[Array, ...], float]:
        """Relative factors per term, lower triangular, and sigma."""
        factors, sigma = self.unpack(x, value)
        return tuple(lower_triangular(f / sigma) for f in factors), sigma

    def slope(self, x: Array, value: float) -> tuple[float, Array]:
        """Deviance and its (size,) gradient by the free parameters."""
        factors, sigma = self.unpack(x, value)
        relative = tuple(f / sigma for f in factors)
        deviance, grads, by_sigma = self._engine.slope(relative, sigma, reml=False)
        out = np.empty(self.size)
        at = 0
        for t, (rows, cols) in enumerate(self._free):
            order = self._orders[t]
            by_factor = grads[t][order] * (self._units[t][order] / sigma)[:, None]
            if self._held.term == t and self._held.kind == "cor":
                by_factor[0, 0] *= 2 * x[at]
                by_factor[1, 1] = 2 * x[at + 1] * (value * by_factor[1, 0] + _sine(value) * by_factor[1, 1])
            out[at : at + len(rows)] = by_factor[rows, cols]
            at += len(rows)
        if self._held.kind != "sigma":
            out[-1] = sigma * by_sigma - sum(float(np.vdot(g, m)) for g, m in zip(grads, relative, strict=True))
        return deviance, out


def _sine(cosine: float) -> float:
    return float(np.sqrt(max((1 - cosine) * (1 + cosine), 0.0)))


def effect_units(engine: Engine, sigma: float) -> list[Array]:
    """Per term (k,): sigma over the root mean square of each effect's column, the size an sd is measured in."""
    out: list[Array] = [np.empty(0)] * len(engine.blocks.structures)
    for group in engine.blocks.groups:
        size = np.linalg.norm(np.linalg.inv(group.basis), axis=0)  # of Z's columns, for Z @ basis is whitened
        for t, part in zip(group.terms, group.slices, strict=True):
            out[t] = sigma / size[part]
    return out
