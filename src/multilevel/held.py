"""The criterion with one parameter of the sd and correlation scale held, by smooth parameters of all the rest."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .covariance import Structure, lower_triangular
from .row_slopes import row_slopes as residual_slopes
from .structured import StructuredEngine

if TYPE_CHECKING:
    from .design import Design
    from .reml import Engine
    from .residuals import Residual
    from .sd_scale import Parameter

Array = NDArray[np.float64]

FAR = 3.0  # coordinate of a CAR(1) with hardly any correlation


class FreeTerm:
    """An unstructured or diagonal term: entries of its absolute lower-triangular factor T, in units of `units`.

    The held effect stands first, so that its sd is ``T[0, 0]``; of a held correlation both effects stand first, and the
    second row is ``s * (rho, sqrt(1 - rho**2))``. There the free parameters are the roots of ``T[0, 0]`` and s: a negative
    one would turn the correlation's sign.
    """

    def __init__(self, structure: Structure, units: Array, held: Parameter | None) -> None:
        self._units, self._held = units, "" if held is None else held.kind
        first = [] if held is None else [held.i] if held.kind == "sd" else [held.i, held.j]
        self._order = [*first, *(i for i in range(structure.k) if i not in first)]
        rows, cols = (np.arange(structure.k),) * 2 if structure.kind == "diag" else np.tril_indices(structure.k)
        keep = np.ones(len(rows), dtype=bool)
        if held is not None:  # the sd itself, or one of the two entries whose ratio the correlation fixes
            keep[0 if held.kind == "sd" else 1] = False
        self._rows, self._cols = rows[keep], cols[keep]
        self.size = len(self._rows)

    def start(self, factor: Array) -> Array:
        """Parameters of an absolute factor."""
        own = lower_triangular(factor[self._order]) / self._units[self._order][:, None]
        out = own[self._rows, self._cols]
        if self._held == "cor":
            out[:2] = np.sqrt(own[0, 0]), np.sqrt(np.hypot(own[1, 0], own[1, 1]))
        return np.asarray(out)

    def factor(self, x: Array, value: float) -> Array:
        """Absolute factor, in the user's order of effects."""
        factor = np.zeros((len(self._order), len(self._order)))
        factor[self._rows, self._cols] = x
        if self._held == "cor":
            factor[0, 0] = x[0] ** 2
            factor[1, :2] = x[1] ** 2 * np.array([value, _sine(value)])
        factor *= self._units[self._order][:, None]
        if self._held == "sd":
            factor[0, 0] = value
        out = np.empty_like(factor)
        out[self._order] = factor
        return out

    def slope(self, x: Array, value: float, by_factor: Array) -> Array:
        """Derivative by the parameters from that by the absolute factor."""
        by = (by_factor * self._units[:, None])[self._order]
        if self._held == "cor":
            by[0, 0] *= 2 * x[0]
            by[1, 1] = 2 * x[1] * (value * by[1, 0] + _sine(value) * by[1, 1])
        return np.asarray(by[self._rows, self._cols])

    def variants(self, x: Array) -> list[Array]:
        """Small effects; uncorrelated ones; of a held correlation one or the other effect all but gone."""
        plain = np.where(self._rows == self._cols, np.maximum(np.abs(x), 0.5), 0.0)
        out = [0.1 * x, plain]
        for root in (0, 1) if self._held == "cor" else ():
            out.append(plain.copy())
            out[-1][root] = 0.03
        return out


class FewTerm:
    """A term of few parameters: the smooth coordinates of its `Structure`, of absolute sds in units of `units`."""

    def __init__(self, structure: Structure, units: Array, held: Parameter | None) -> None:
        self.structure = s = structure
        self._units = units if s.n_sd > 1 else np.full(s.k, np.sqrt(np.mean(units**2)))  # one sd, one unit
        self._held = -1 if held is None else held.i if held.kind == "sd" else s.n_sd
        self.size = s.n_coordinates - (held is not None)

    def start(self, factor: Array) -> Array:
        """Parameters of an absolute factor."""
        s = self.structure
        out = s.coordinates(s.to_theta(factor / self._units[:, None]))
        return out if self._held < 0 else np.delete(out, self._held)

    def _coordinates(self, x: Array, value: float) -> Array:
        if self._held < 0:
            return x
        s = self.structure
        theta = np.zeros(s.n_theta)
        theta[self._held] = value if self._held == s.n_sd else value / self._units[self._held]
        return np.insert(x, self._held, s.coordinates(theta)[self._held])

    def factor(self, x: Array, value: float) -> Array:
        """Absolute square root of the covariance."""
        return np.asarray(self._units[:, None] * self.structure.at(self._coordinates(x, value)))

    def slope(self, x: Array, value: float, by_factor: Array) -> Array:
        """Derivative by the parameters from that by the absolute factor."""
        moves = self.structure.by_coordinate(self._coordinates(x, value))
        out = np.array([float(np.vdot(by_factor, self._units[:, None] * move)) for move in moves])
        return out if self._held < 0 else np.delete(out, self._held)

    def variants(self, x: Array) -> list[Array]:
        """Small effects; uncorrelated ones; strongly and negatively correlated ones; one effect almost alone."""
        s = self.structure
        a = self._coordinates(x, 0.0)
        theta = s.theta_at(a)
        small, sds = theta.copy(), np.maximum(theta[: s.n_sd], 0.5)
        small[: s.n_sd] *= 0.1
        rhos = (0.0, 0.9, s.range()[0] / 2) if s.correlated else ()
        starts = [small, *([np.r_[sds, rho] for rho in rhos] or [sds])]
        found = [s.coordinates(theta) for theta in starts[: 2 if self._held == s.n_sd else 4]]
        for i in range(s.n_sd if s.n_sd > 1 else 0):
            sds = np.full(s.n_sd, 1e-3)
            sds[i : i + 1 + (self._held == s.n_sd)] = 0.3  # a correlation takes two
            found.append(s.coordinates(np.r_[sds, 0.9] if s.correlated else sds))
        return found if self._held < 0 else [np.delete(one, self._held) for one in found]


class ResidualPart:
    """The residuals' structure: its coordinates, which have no bounds."""

    def __init__(self, residual: Residual | None, rows: int, held: Parameter | None) -> None:
        self._residual, self._rows = residual, rows
        self._held = -1 if held is None else held.i
        self.size = (0 if residual is None else residual.n_coordinates) - (held is not None)

    def coordinates(self, x: Array, value: float) -> Array:
        """(r,) coordinates, the held one among them."""
        return x if self._held < 0 else np.insert(x, self._held, self.coordinate(value))

    def coordinate(self, value: float) -> float:
        """Of a value of the held parameter."""
        assert self._residual is not None
        values = self._residual.values(self._residual.starts()[0])
        values[self._held] = value
        return float(self._residual.coordinates(values)[self._held])

    def start(self, values: Array) -> Array:
        """Free coordinates of the parameters."""
        if self._residual is None:
            return np.empty(0)
        a = self._residual.coordinates(values)
        serial = self._residual.serial
        if serial is not None and serial.vanished(a[-1:]):
            a[-1] = FAR  # a CAR(1) without correlation has no slope that would lead back
        return a if self._held < 0 else np.delete(a, self._held)

    def unit(self, a: Array) -> float:
        """Geometric mean of the rows' sds over sigma: that times sigma is well determined where sigma is not."""
        return 1.0 if self._residual is None else self._residual.unit(a, self._rows)

    def unit_slopes(self, a: Array) -> Array:
        """(r,) derivatives of its logarithm."""
        out = np.zeros(len(a))
        if self._residual is not None:
            means = [np.mean(s.by_coordinate(j)) for s in self._residual.spreads for j in range(s.n)]
            out[: len(means)] = means
        return out

    def variants(self, x: Array) -> list[Array]:
        """No heteroscedasticity, other correlations."""
        if self._residual is None:
            return []
        starts = self._residual.starts()
        return [a if self._held < 0 else np.delete(a, self._held) for a in (starts if self.size else starts[:1])]

    def step(self, value: float) -> float:
        """A small step of the held parameter: 0.05 in its coordinate, an angle or a logarithm."""
        assert self._residual is not None
        a = np.array(self._residual.starts()[0])
        a[self._held] = self.coordinate(value)
        moves = []
        for sign in (-0.05, 0.05):
            moved = a.copy()
            moved[self._held] += sign
            moves.append(abs(float(self._residual.values(moved)[self._held]) - value))
        usual = float(self._residual.values(self._residual.starts()[0])[self._held])
        return max(min(moves), 1e-3 * abs(value or usual))

    def range(self) -> tuple[float, float]:
        """Of the held parameter."""
        r = self._residual
        assert r is not None
        if r.serial is not None and self._held == r.n_coordinates - 1:
            return (-1.0, 1.0) if r.serial.kind == "ar1" else (0.0, 1.0)
        kinds = [s.kind for s in r.spreads for _ in range(s.n)]
        return (0.0, np.inf) if kinds[self._held] == "ident" else (-np.inf, np.inf)


class Held:
    """ML deviance by all covariance parameters but one, which is held at a value on its own scale.

    Each random term has parameters of its own absolute covariance (`FreeTerm`, `FewTerm`), in units of sigma over the
    size of the effect's column; the residual's coordinates follow, and last the logarithm of sigma (with variance
    functions: of the geometric mean of the rows' sds) over its estimate. No bound is needed, the criterion is smooth in
    all of them, and zero sds and correlations of one are points like others.

    Parameters
    ----------
    engine, design
    held : Parameter
        An sd or correlation of a term, sigma, or a parameter of the residuals' structure; of a fixed effect nothing is
        held here, for `engine` then belongs to the response without it.
    sigma : float
        Estimate of sigma.
    """

    def __init__(self, engine: Engine, design: Design, held: Parameter, sigma: float) -> None:
        self.engine, self._held, self._sigma = engine, held, sigma
        self._units = effect_units(engine, sigma)
        self._terms: list[FreeTerm | FewTerm] = []
        for t, term in enumerate(design.terms):
            structure = Structure(term.structure, len(term.names))
            kind = FreeTerm if structure.free else FewTerm
            mine = held if held.kind in ("sd", "cor") and held.term == t else None
            self._terms.append(kind(structure, self._units[t], mine))
        residual, a = (engine.residual, engine.a) if isinstance(engine, StructuredEngine) else (None, np.empty(0))
        self._rest = ResidualPart(residual, engine.blocks.n, held if held.kind == "residual" else None)
        self._unit = self._rest.unit(a)
        self.factors = sum(term.size for term in self._terms)  # the first ones
        self.size = self.factors + self._rest.size + (held.kind != "sigma")

    def on(self, engine: Engine) -> Held:
        """The same for another response."""
        out = copy.copy(self)
        out.engine = engine
        return out

    def range(self) -> tuple[float, float]:
        """Ends of the held parameter's range."""
        if self._held.kind == "cor":
            term = self._terms[self._held.term]
            return term.structure.range() if isinstance(term, FewTerm) else (-1.0, 1.0)
        if self._held.kind == "residual":
            return self._rest.range()
        return (0.0, np.inf) if self._held.kind in ("sd", "sigma") else (-np.inf, np.inf)

    def open_ends(self) -> tuple[bool, bool]:
        """Whether the likelihood does not exist at the ends themselves: sigma or a ratio of zero, rows that are copies."""
        if self._held.kind == "residual":
            return self.range() != (0.0, 1.0), True  # car1 without correlation is independence
        return (self._held.kind == "sigma",) * 2

    def first_step(self, value: float) -> float:
        """A step from the estimate that is small beside what the data can tell."""
        if self._held.kind == "residual":
            return self._rest.step(value)
        if self._held.kind == "sigma":
            return value / float(np.sqrt(2 * self.engine.blocks.n)) / 3
        if self._held.kind == "cor":
            return 0.02
        unit = float(self._units[self._held.term][self._held.i])
        return 0.05 * max(value, 0.1 * unit)

    def start(self, lambdas: Sequence[Array], sigma: float, residual: Array | None = None) -> Array:
        """(size,) free parameters of a fit; `residual` holds the parameters of the residuals' structure."""
        values = np.empty(0) if residual is None else residual
        parts = [term.start(sigma * np.asarray(m)) for term, m in zip(self._terms, lambdas, strict=True)]
        rest = self._rest.start(values)
        if self._held.kind == "sigma":
            return np.concatenate([*parts, rest])
        value = float(values[self._held.i]) if self._held.kind == "residual" else 0.0
        unit = self._rest.unit(self._rest.coordinates(rest, value))
        return np.concatenate([*parts, rest, [np.log(sigma * unit / (self._sigma * self._unit))]])

    def _split(self, x: Array) -> tuple[list[Array], Array]:
        """The terms' parameters and the residual's."""
        parts = np.split(x, np.cumsum([*(term.size for term in self._terms), self._rest.size]))
        return parts[: len(self._terms)], parts[len(self._terms)]

    def variants(self, x: Array) -> list[Array]:
        """Starts far from `x`, each in another valley the criterion may have: small effects, uncorrelated ones, other
        correlations, and for a held correlation one or the other of its effects all but gone.
        """
        parts, rest = self._split(x)
        last = x[self.factors + self._rest.size :]
        every = [term.variants(part) for term, part in zip(self._terms, parts, strict=True)]
        plain = [found[1] for found in every]
        out = [np.concatenate([*(found[0] for found in every), rest, last]), np.concatenate([*plain, rest, last])]
        for t, found in enumerate(every):
            out += [np.concatenate([*plain[:t], one, *plain[t + 1 :], rest, last]) for one in found[2:]]
        return out + [np.concatenate([*parts, one, last]) for one in self._rest.variants(rest)]

    def unpack(self, x: Array, value: float) -> tuple[list[Array], float, Array]:
        """Absolute factors per term (the user's order of effects), sigma, and the residual's coordinates."""
        parts, rest = self._split(x)
        factors = [term.factor(part, value) for term, part in zip(self._terms, parts, strict=True)]
        a = self._rest.coordinates(rest, value)
        if self._held.kind == "sigma":
            return factors, value, a
        return factors, self._sigma * self._unit * float(np.exp(x[-1])) / self._rest.unit(a), a

    def engine_at(self, a: Array) -> Engine:
        """The engine whose rows are whitened at the residual's coordinates."""
        if isinstance(self.engine, StructuredEngine) and not np.array_equal(a, self.engine.a):
            self.engine = self.engine.moved(a)
        return self.engine

    def point(self, x: Array, value: float) -> tuple[Engine, tuple[Array, ...], float]:
        """Engine, relative factors per term (lower triangular) and sigma."""
        factors, sigma, a = self.unpack(x, value)
        return self.engine_at(a), tuple(lower_triangular(f / sigma) for f in factors), sigma

    def slope(self, x: Array, value: float) -> tuple[float, Array]:
        """Deviance and its (size,) gradient by the free parameters."""
        factors, sigma, a = self.unpack(x, value)
        engine = self.engine_at(a)
        relative = tuple(f / sigma for f in factors)
        deviance, grads, by_sigma = engine.slope(relative, sigma, reml=False)
        parts, _ = self._split(x)
        pieces = zip(self._terms, parts, grads, strict=True)
        out = [term.slope(part, value, grad / sigma) for term, part, grad in pieces]
        by_log_sigma = sigma * by_sigma - sum(float(np.vdot(g, m)) for g, m in zip(grads, relative, strict=True))
        if self._rest.size:
            by_a = row_slopes(engine, relative, sigma)
            if self._held.kind == "sigma":  # sigma stays, so that the mean of the rows' sds moves
                by_a = by_a + self._rest.unit_slopes(a) * by_log_sigma
            held = self._held.i if self._held.kind == "residual" else -1
            out.append(by_a if held < 0 else np.delete(by_a, held))
        return deviance, np.concatenate([*out, [] if self._held.kind == "sigma" else [by_log_sigma]])


def row_slopes(engine: Engine, relative: tuple[Array, ...], sigma: float) -> Array:
    """(r,) derivative of the ML deviance by the residual's coordinates.

    What is fixed are the absolute covariances of the terms and the geometric mean of the rows' sds, which is sigma as the
    engine knows it.
    """
    assert isinstance(engine, StructuredEngine)
    with engine.lock:
        lambdas = engine.engine_lambdas(relative)
        state = engine.state(False, lambdas)
        return residual_slopes(engine, state, lambdas, False, (sigma / (engine.blocks.scale * engine.blocks.unit)) ** 2)


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
