"""Log posterior of a Gaussian model over its variances and correlations, everything else integrated out.

The density is the core's (`marginal.hpp`); this is the way there and back: priors and names in the user's coordinates.
Coefficients with a normal or flat prior, and all random effects, are integrated out exactly and drawn exactly
afterwards; coefficients with another prior are coordinates of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import OptionError
from .priors import KINDS, LKJ, Density, Fixed, Flat, Normal, Prior, Uniform

if TYPE_CHECKING:
    from .crossprod import CrossProducts
    from .prior_table import Entry
    from .reml import Engine

Array = NDArray[np.float64]

CORRELATION = {"us": 1, "diag": 0, "homdiag": 0, "cs": 2, "homcs": 2, "ar1": 3, "hetar1": 3}


@dataclass(frozen=True)
class Coordinate:
    """A column of the drawn parameters, on the user's scale.

    Attributes
    ----------
    name : str
    kind : {"sd", "cor", "sigma", "further", "residual"}
    term : int
        Of a random term, else -1.
    effects : tuple of int
        The effect of an sd, the two of a correlation, the place among the residual's or the family's parameters.
    """

    name: str
    kind: str
    term: int = -1
    effects: tuple[int, ...] = ()


class Marginal:
    """The compiled posterior with the names of what it is about.

    Attributes
    ----------
    core
        `_core.MarginalPosterior`, or what does the same (`marginal_residual`).
    size : int
        Unconstrained coordinates.
    slow : bool
        Whether every evaluation goes over the rows, which makes NUTS slow.
    """

    slow = False

    def __init__(self, engine: Engine, design: Any, entries: list[Entry]) -> None:
        self.engine, self.design, self.entries = engine, design, entries
        self.coordinates = coordinates_of(design, entries)
        self._terms = term_tuples(design, engine.blocks.groups, entries)
        self._fixed = self._fixed_effects()
        self.core = self.compiled(engine.blocks)
        self.size = int(self.core.size)

    def compiled(self, c: CrossProducts, unit: float | None = None) -> Any:
        """The compiled posterior of cross-products of the same design, under whatever weights.

        `unit` is the sigma sampled, over the engine's, without the scale of y: the cross-products' own by default.
        """
        from . import _core

        fixed = self._fixed
        unit = c.unit if unit is None else unit
        sigma = next(e.prior for e in self.entries if e.kind == "sigma")
        to_engine = [np.ascontiguousarray(unit * np.linalg.inv(g.basis)) for g in c.groups]
        return _core.MarginalPosterior(
            c.core, self._terms, parameter(sigma, True), c.scale * unit, to_engine, fixed.sampled, fixed.maps, fixed.moved,
            fixed.shift, fixed.precision, fixed.linear, fixed.constant,
        )  # fmt: skip

    def _fixed_effects(self) -> _FixedEffects:
        """Coefficients in the engine's coordinates: beta_engine = maps delta + moved s - shift."""
        c = self.engine.blocks
        priors: list[Any] = [e.prior for e in self.entries if e.kind == "coefficient"]
        p = len(priors)
        normal = [i for i, q in enumerate(priors) if isinstance(q, (Normal, Flat))]
        held = [i for i, q in enumerate(priors) if isinstance(q, Fixed)]
        sampled = [i for i in range(p) if i not in normal and i not in held]
        inverse = np.linalg.inv(c.x_basis) / c.scale if p else np.zeros((0, 0))
        shift = c.shift / c.scale - inverse[:, held] @ np.array([float(priors[i].value) for i in held])
        maps, triangle = np.linalg.qr(inverse[:, normal])
        moved = maps.T @ shift  # the part of the shift that delta takes: y is centred, and stays so
        back = np.linalg.inv(triangle)
        weight = np.array([0.0 if isinstance(priors[i], Flat) else priors[i].sigma ** -2 for i in normal])
        mean = np.array([0.0 if isinstance(priors[i], Flat) else priors[i].mu for i in normal])
        away = back @ moved - mean
        return _FixedEffects(
            [parameter(priors[i], False) for i in sampled],
            np.ascontiguousarray(maps),
            np.ascontiguousarray(inverse[:, sampled]),
            shift - maps @ moved,
            np.ascontiguousarray(back.T @ (weight[:, None] * back)),
            -back.T @ (weight * away),
            float(0.5 * away @ (weight * away)),
        )

    def costly(self, flops: float) -> bool:
        """Whether one evaluation takes more than so many operations."""
        return bool(self.engine.blocks.core.flops > flops)

    def start(self, sds: list[Array], correlations: list[Array], sigma: float, beta: Array) -> Array:
        """(size,) coordinates of a first guess: per term (k,) sds and (k, k) correlations, sigma, coefficients."""
        out = start_of_terms(self.design, self.entries, sds, correlations)
        prior = next(e.prior for e in self.entries if e.kind == "sigma")
        if not isinstance(prior, Fixed):
            out.append(to_line(prior, sigma))
        for e in self.entries:
            if e.kind == "coefficient" and not isinstance(e.prior, (Normal, Flat, Fixed)):
                out.append(to_line(e.prior, float(beta[e.effect]), positive=False))
        return np.array(out)

    def effects(self, engine_draws: Array) -> tuple[Array, list[Array]]:
        """(m, p) coefficients and per term (m, J, k) random effects of the core's draws, user's coordinates."""
        c = self.engine.blocks
        p = c.p
        beta = (c.scale * engine_draws[:, :p] + c.shift) @ c.x_basis.T
        b: list[Array] = [np.empty(0)] * len(c.structures)
        at = p
        for group in c.groups:
            own = engine_draws[:, at : at + group.levels * group.k].reshape(-1, group.levels, group.k)
            at += group.levels * group.k
            user = c.scale * (own @ group.basis.T)
            for t, part in zip(group.terms, group.slices, strict=True):
                b[t] = np.ascontiguousarray(user[:, :, part])
        return beta, b


@dataclass(frozen=True)
class _FixedEffects:
    sampled: list[tuple[Any, ...]]
    maps: Array
    moved: Array
    shift: Array
    precision: Array
    linear: Array
    constant: float


def term_tuples(design: Any, groups: Any, entries: list[Entry]) -> list[tuple[Any, ...]]:
    """Random terms as the core reads them, with their priors."""
    out = []
    for t, term in enumerate(design.terms):
        k = len(term.names)
        sds = [parameter(e.prior, True) for e in entries if e.kind == "sd" and e.term == t]
        prior = next((e.prior for e in entries if e.kind == "cor" and e.term == t), None)
        factor = next(f for f, g in enumerate(groups) if t in g.terms)
        first = groups[factor].slices[groups[factor].terms.index(t)].start
        kind = CORRELATION[term.structure] if k > 1 else 0
        root = fixed_root(prior.value, term, kind) if isinstance(prior, Fixed) else None
        out.append((factor, first, k, kind, prior.eta if isinstance(prior, LKJ) else 1.0, sds, root))
    return out


def parameter(prior: Prior, positive: bool) -> tuple[Any, ...]:
    """As the core reads a scalar parameter: fixed, value, prior, limits."""
    if isinstance(prior, Fixed):
        return True, float(prior.value), 0, 0.0, 0.0, 0.0, False, -np.inf, np.inf
    assert isinstance(prior, Density)
    kind, a, b, c = prior.kernel()
    lower, upper = (0.0 if positive or prior.positive else -np.inf), np.inf
    if isinstance(prior, Uniform):
        lower, upper = prior.lower, prior.upper
    half = lower == 0.0 and kind in ("normal", "student", "laplace") and (b if kind == "student" else a) == 0.0
    return False, 0.0, KINDS.index(kind), a, b, c, half, lower, upper


def start_of_terms(design: Any, entries: list[Entry], sds: list[Array], correlations: list[Array]) -> list[float]:
    """Unconstrained coordinates of the terms' free sds (k,) and correlations (k, k)."""
    out: list[float] = []
    for t, term in enumerate(design.terms):
        own = [e for e in entries if e.kind == "sd" and e.term == t]
        out += [to_line(e.prior, float(sds[t][e.effect])) for e in own if not isinstance(e.prior, Fixed)]
        cor = next((e for e in entries if e.kind == "cor" and e.term == t), None)
        if cor is not None and not isinstance(cor.prior, Fixed):
            out += partial(correlations[t]) if term.structure == "us" else [single(correlations[t], term.structure)]
    return out


def to_line(prior: Prior, value: float, positive: bool = True) -> float:
    """Unconstrained coordinate of a value, moved inside the limits where it lies outside."""
    if isinstance(prior, Uniform):
        share = min(max((value - prior.lower) / (prior.upper - prior.lower), 1e-3), 1 - 1e-3)
        return float(np.log(share / (1 - share)))
    return float(np.log(max(value, 1e-300))) if positive or prior.positive else value


def coordinates_of(design: Any, entries: list[Entry]) -> list[Coordinate]:
    """Columns of the core's constrained draws up to sigma, fixed ones included."""
    out = []
    for t, term in enumerate(design.terms):
        out += [Coordinate(e.name, "sd", t, (e.effect,)) for e in entries if e.kind == "sd" and e.term == t]
        k = len(term.names)
        if k < 2 or not CORRELATION[term.structure]:
            continue
        if term.structure == "us":
            pairs = [(i, j) for i in range(1, k) for j in range(i)]
            out += [
                Coordinate(f"cor({term.group}, {term.names[j]}, {term.names[i]})", "cor", t, (j, i)) for i, j in pairs
            ]
        else:
            out.append(Coordinate(f"cor({term.group})", "cor", t, (0, 1)))
    return [*out, *(Coordinate("sigma", "sigma") for e in entries if e.kind == "sigma")]


def fixed_root(value: Any, term: Any, kind: int) -> Array:
    """Cholesky factor of correlations held fixed.

    Raises
    ------
    OptionError
        If they are no correlations of so many effects.
    """
    k = len(term.names)
    matrix = np.asarray(value, dtype=np.float64)
    if matrix.ndim == 0:
        lag = np.abs(np.subtract.outer(np.arange(k), np.arange(k)))
        if k > 2 and kind == 1 and float(matrix) != 0:
            raise OptionError(f"cor({term.group}) has {k} effects, so Fixed needs their ({k}, {k}) correlation matrix")
        matrix = np.where(lag == 0, 1.0, float(matrix) ** lag if kind == 3 else float(matrix))
    if matrix.shape != (k, k):
        raise OptionError(f"cor({term.group}) is a ({k}, {k}) matrix, but Fixed was given one of shape {matrix.shape}")
    unit = np.allclose(np.diag(matrix), 1) and np.allclose(matrix, matrix.T)
    if not unit or np.linalg.eigvalsh(matrix)[0] <= 0:
        raise OptionError(
            f"Fixed of cor({term.group}) is no correlation matrix: it must be symmetric and positive definite with ones on "
            "the diagonal"
        )
    _refuse_unstructured(matrix, term, kind)
    return np.ascontiguousarray(np.linalg.cholesky(matrix))


def _refuse_unstructured(matrix: Array, term: Any, kind: int) -> None:
    """Raise where correlations do not have the structure of their term."""
    k = len(matrix)
    lag = np.abs(np.subtract.outer(np.arange(k), np.arange(k)))
    shapes = {
        2: (np.where(lag == 0, 1.0, matrix[-1, 0]), "the same correlation between all effects"),
        3: (matrix[1, 0] ** lag, "a correlation that is a power of the distance between effects"),
    }
    if kind in shapes and not np.allclose(matrix, shapes[kind][0], rtol=0, atol=1e-6):
        raise OptionError(
            f"{term.structure}() of {term.group} has {shapes[kind][1]}, which the matrix given as Fixed of cor({term.group}) "
            "has not; give Fixed one number, or leave the structure out of the formula"
        )


def partial(r: Array) -> list[float]:
    """Unconstrained coordinates of a correlation matrix, away from its boundary."""
    k = len(r)
    root = np.linalg.cholesky(0.95 * r + 0.05 * np.eye(k))
    out = []
    for i in range(1, k):
        left = 1.0
        for j in range(i):
            z = float(np.clip(root[i, j] / left, -0.98, 0.98))
            out.append(float(np.arctanh(z)))
            left *= np.sqrt(1 - z * z)
    return out


def single(r: Array, structure: str) -> float:
    """Unconstrained coordinate of the one correlation of cs or ar1."""
    k = len(r)
    lowest = -1.0 / (k - 1) if structure in ("cs", "homcs") else -1.0
    share = float(np.clip((r[1, 0] - lowest) / (1 - lowest), 0.02, 0.98))
    return float(np.log(share / (1 - share)))
