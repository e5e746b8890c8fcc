"""Engine for Gaussian models: REML and ML at any Lambda, and the fit.

Everything public here speaks the user's coordinates; `crossprod` says how they map to the engine's. The criterion is
-2 log-likelihood with all constants, lme4's: Bates, Maechler, Bolker & Walker (2015), J. Stat. Softw. 67(1), eq. 34, 41.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from . import crossprod, optimise
from .covariance import lower_triangular
from .errors import DataError, OptionError
from .optimise import STATUS, Curvature, Evidence

if TYPE_CHECKING:
    from .covariance import Structure
    from .crossprod import CrossProducts
    from .design import Design

Array = NDArray[np.float64]

MAX_EVALUATIONS = 500
PERFECT = 1e-12  # share of y'y left to the residual at or below which rounding decides, not the data
SECOND_START = 1e6  # flops of a factorisation: below this a singular optimum is sought from a second start as well
CHEAP = 2e8  # flops: below this the exact Hessian is part of every fit, above it one directional check


@dataclass(frozen=True)
class Optimum:
    """Result of one fit, in the user's coordinates.

    Attributes
    ----------
    criterion : float
        -2 log-likelihood: the REML criterion or the ML deviance.
    theta : (n_theta,) array
        lme4's covariance parameters, terms in the order of the formula.
    lambdas : tuple of (k, k) arrays
        Per term, lower triangular: ``Cov(b) = sigma**2 * L @ L.T``.
    sigma : float
        Residual standard deviation (of an observation with weight one).
    beta, vcov : (p,), (p, p) arrays
        Fixed effects and their covariance.
    b : tuple of (J, k) arrays
        Conditional modes per term.
    engine_lambdas : tuple of arrays
        Per engine group, any square root, engine coordinates.
    residual : (r,) array
        Parameters of the residual's structure, as `Residual.names` names them; of a generalised model the coefficients of
        dispersion, zero inflation or thresholds. Empty without one.
    residual_vcov : (r, r) array
        Covariance of the latter; empty for Gaussian models.
    joint_vcov : (p + r + f, p + r + f) array
        Of a generalised model: covariance of beta, `residual` and the covariance parameters together; these are measured
        along the f rows of `moves`.
    moves : (f, sum of k**2) array
        Directions in which the groups' factors (`engine_lambdas`, in the user's coordinates) are free to move.
    """

    reml: bool
    criterion: float
    theta: Array
    lambdas: tuple[Array, ...]
    sigma: float
    beta: Array
    vcov: Array
    b: tuple[Array, ...]
    evidence: Evidence
    engine_lambdas: tuple[Array, ...] = field(repr=False)
    residual: Array = field(default_factory=lambda: np.empty(0))
    residual_vcov: Array = field(default_factory=lambda: np.empty((0, 0)))
    joint_vcov: Array = field(default_factory=lambda: np.empty((0, 0)), repr=False)
    moves: Array = field(default_factory=lambda: np.empty((0, 0)), repr=False)

    def __post_init__(self) -> None:
        for array in (self.theta, self.beta, self.vcov, self.residual, *self.lambdas, *self.b, *self.engine_lambdas):
            array.flags.writeable = False  # a fit does not change


P = ParamSpec("P")
T = TypeVar("T")


E = TypeVar("E", bound="Engine")


def one_at_a_time(method: Callable[Concatenate[E, P], T]) -> Callable[Concatenate[E, P], T]:
    """Fits of one model share factorisations: a second Python thread waits until the first has read its numbers."""

    @functools.wraps(method)
    def alone(self: E, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self.lock:
            return method(self, *args, **kwargs)

    return alone


class Engine:
    """Cross-products of one design with everything that can be computed from them."""

    def __init__(self, design: Design, threads: int | None = None) -> None:
        threads = crossprod.default_threads() if threads is None else threads
        self._keep(crossprod.build(design, threads), threads)

    def _keep(self, blocks: CrossProducts, threads: int) -> None:
        self.blocks, self.threads = blocks, threads
        self._states: dict[bool, Any] = {}
        self.lock = threading.RLock()  # of the states: held from setting one to the last number read from it

    @classmethod
    def of(cls, blocks: CrossProducts, threads: int) -> Engine:
        """An engine on cross-products that are there already."""
        out = object.__new__(cls)
        out._keep(blocks, threads)
        return out

    def fitted(self, optimum: Optimum) -> Engine:
        """The engine that belongs to an optimum: this one, where no parameter changes the rows."""
        return self

    def with_threads(self, threads: int) -> Engine:
        """The same cross-products with another number of threads."""
        return type(self).of(self.blocks, threads)

    def __getstate__(self) -> tuple[CrossProducts, int]:
        return self.blocks, self.threads

    def __setstate__(self, state: tuple[CrossProducts, int]) -> None:
        self._keep(*state)

    # -- values at any Lambda -------------------------------------------------------------------------------

    def state(self, reml: bool, engine_lambdas: tuple[Array, ...] | list[Array]) -> Any:
        """Compiled factorisation at Lambda (engine coordinates); one is kept per criterion."""
        from . import _core

        if reml not in self._states:
            self._states[reml] = _core.State(self.blocks.core, reml, self.threads)
        state = self._states[reml]
        if (code := state.set(list(engine_lambdas))) != 0:
            state = self._states[reml] = self.failed(code, reml, engine_lambdas)
        return state

    def failed(self, code: int, reml: bool, engine_lambdas: tuple[Array, ...] | list[Array]) -> Any:
        """What stands in for a factorisation that failed; for a linear model nothing does."""
        raise DataError(failure(code))

    def engine_lambdas(self, lambdas: tuple[Array, ...] | list[Array]) -> list[Array]:
        """Engine coordinates of per-term factors in the user's."""
        out = []
        for group in self.blocks.groups:
            joint = np.zeros((group.k, group.k))
            for t, part in zip(group.terms, group.slices, strict=True):
                joint[part, part] = lambdas[t]
            out.append(np.ascontiguousarray(self.blocks.unit * np.linalg.solve(group.basis, joint)))
        return out

    @one_at_a_time
    def criterion(self, lambdas: tuple[Array, ...], reml: bool = True, sigma: float | None = None) -> float:
        """-2 log-likelihood at per-term factors; sigma profiled out unless given."""
        state = self.state(reml, self.engine_lambdas(lambdas))
        df = self.df(reml)
        value = state.log_det_u + (state.log_det_x if reml else 0.0)
        if sigma is None:
            value += df * (1 + np.log(2 * np.pi * state.r2 / df))
        else:
            s2 = (sigma / (self.blocks.scale * self.blocks.unit)) ** 2
            value += df * np.log(2 * np.pi * s2) + state.r2 / s2
        return float(value + self.constant(reml))

    @one_at_a_time
    def gradient(self, lambdas: tuple[Array, ...], reml: bool = True) -> tuple[Array, ...]:
        """Derivative of the profiled criterion by every entry of each term's (k, k) factor."""
        state = self.state(reml, self.engine_lambdas(lambdas))
        return self._term_gradients(state.gradient(1.0, 1.0 if reml else 0.0, self.df(reml)))

    @one_at_a_time
    def slope(
        self, lambdas: tuple[Array, ...], sigma: float, reml: bool = True
    ) -> tuple[float, tuple[Array, ...], float]:
        """-2 log-likelihood at per-term factors and sigma (not profiled out) with its derivatives by both."""
        state = self.state(reml, self.engine_lambdas(lambdas))
        df, s2 = self.df(reml), (sigma / (self.blocks.scale * self.blocks.unit)) ** 2
        value = state.log_det_u + (state.log_det_x if reml else 0.0) + df * np.log(2 * np.pi * s2) + state.r2 / s2
        by_sigma = 2 * (df - state.r2 / s2) / sigma
        grads = self._term_gradients(state.gradient(1.0, 1.0 if reml else 0.0, state.r2 / s2))
        return float(value + self.constant(reml)), grads, float(by_sigma)

    def _term_gradients(self, grads: list[Array]) -> tuple[Array, ...]:
        """Per term, in the user's coordinates, what the core gives per engine group."""
        out: list[Array] = [np.empty(0)] * len(self.blocks.structures)
        for group, g in zip(self.blocks.groups, grads, strict=True):
            user: Array = np.asarray(self.blocks.unit * np.linalg.solve(group.basis.T, g), dtype=np.float64)
            for t, part in zip(group.terms, group.slices, strict=True):
                out[t] = user[part, part]
        return tuple(out)

    def df(self, reml: bool) -> float:
        """Divisor of the residual variance: n - p or n."""
        return float(self.blocks.n - (self.blocks.p if reml else 0))

    def constant(self, reml: bool) -> float:
        """What the change of coordinates adds to the engine's criterion."""
        c = self.blocks
        value = self.df(reml) * 2 * np.log(c.scale) - c.core.sum_log_w + c.log_det
        if reml and c.p:
            value -= 2 * np.linalg.slogdet(c.x_basis)[1]
        return float(value)

    # -- the fit ----------------------------------------------------------------------------------------------

    @one_at_a_time
    def fit(
        self,
        reml: bool = True,
        start: tuple[Array, ...] | None = None,
        max_evaluations: int = MAX_EVALUATIONS,
    ) -> Optimum:
        """Minimise the criterion and certify the minimum."""
        from . import _core

        c = self.blocks
        if self.df(reml) <= 0:
            raise DataError(f"{c.n} rows cannot carry {c.p} fixed effects; give the model more rows or fewer columns")
        initial = _core.moment_start(c.core, c.components) if start is None else self.engine_lambdas(start)
        state = _core.State(c.core, reml, self.threads)
        self._states[reml] = state
        best = _core.fit(state, initial, c.components, max_evaluations, 0)
        spent = best["evaluations"]
        if best["status"] in (2, 3) and start is None:
            best, spent = self._retry(state, best, spent, max_evaluations)
        if start is None and c.core.flops < SECOND_START and self._is_singular(best):
            again = _core.fit(state, [np.eye(g.k) for g in c.groups], c.components, max_evaluations, 0)
            spent += again["evaluations"]
            if again["status"] == 0 and again["deviance"] < best["deviance"] - 1e-7:
                best = {**again, "restarts": best["restarts"] + 1}
        if best["status"] == 3:
            if start is not None:
                raise OptionError(
                    "the criterion cannot be evaluated at this start; give covariance parameters (theta) nearer to one, or "
                    "leave start out"
                )
            raise DataError(failure(best["failure"]))
        curved, exact, turn = self._certify(state, best, reml)
        for _ in range(3):  # a saddle: leave it downhill along the negative direction, both ways
            if curved > -optimise.flat_below(best) or turn is None:
                break
            better = self._leave_saddle(state, best, turn, max_evaluations)
            spent += better["evaluations"]
            if not better["deviance"] < best["deviance"] - 1e-7:
                break
            best = {**better, "restarts": best["restarts"] + 1}
            curved, exact, turn = self._certify(state, best, reml)
        state.set(best["lambdas"])  # the certificate moved the factorisation
        evidence = Evidence(
            STATUS[best["status"]],
            spent,
            best["iterations"],
            best["restarts"],
            best["decrement"],
            best["gradient_norm"],
            curved,
            exact,
            tuple(best["null_slopes"]),
            tuple(best["rank"]),
            optimise.flat_below(best),
            self._shares(turn),
            tuple(best["trace"]),
        )
        return self._optimum(state, best["lambdas"], reml, evidence)

    def _is_singular(self, best: dict[str, Any]) -> bool:
        """Whether a direction vanished; with few data the criterion often has a second minimum then."""
        sizes = (len(index) for _, index in self.blocks.components)
        return best["status"] == 0 and any(rank < size for rank, size in zip(best["rank"], sizes, strict=True))

    def _retry(self, state: Any, best: dict[str, Any], spent: int, limit: int) -> tuple[dict[str, Any], int]:
        """Other starts after a search that did not converge; keeps the best."""
        from . import _core

        for size in (1.0, 0.1, 3.0, 0.01):
            start = [size * np.eye(g.k) for g in self.blocks.groups]
            found = _core.fit(state, start, self.blocks.components, limit, 2)
            spent += found["evaluations"]
            wins = best["status"] == 3 or found["deviance"] <= best["deviance"] + 1e-9
            if found["status"] != 3 and wins:
                best = {**found, "restarts": best["restarts"] + 1}
            if best["status"] == 0:
                break
        return best, spent

    def _certify(self, state: Any, best: dict[str, Any], reml: bool) -> tuple[float, bool, list[Array] | None]:
        """Least curvature along free directions, whether exact, and the direction it belongs to."""
        c = self.blocks
        directions = optimise.free_directions(best["lambdas"], c.components)
        if not directions:
            return np.inf, True, None
        if c.core.flops * 6 * len(directions) < CHEAP:
            facts = optimise.curvature(state, best["lambdas"], directions, self.df(reml))
            if facts is None:
                return best["min_curvature"], False, best.get("weakest")
            # per relative change where an sd is large: 1e4 residual sds known to one percent is well determined
            sizes = np.array([max(d.size, 1.0) for d in directions])
            values, vectors = np.linalg.eigh(facts.profiled * np.outer(sizes, sizes))
            best["max_curvature"] = float(values[-1])
            if values[0] > 1e-6 * values[-1] and best["status"] == 0:
                optimise.polish(state, best, facts, reml, self.df(reml))
            turn = np.asarray(sizes * vectors[:, 0], dtype=np.float64)
            return float(values[0]), True, optimise.combined(best["lambdas"], directions, turn / np.linalg.norm(turn))
        weakest: list[Array] | None = best.get("weakest")
        if weakest is None or best["min_curvature"] <= 0:
            return best["min_curvature"], False, weakest
        # too dear for the exact Hessian: its value along the direction where the average information is weakest
        step = 1e-3
        state.set([a + step * b for a, b in zip(best["lambdas"], weakest, strict=True)])
        g = state.gradient(1.0, 1.0 if reml else 0.0, self.df(reml))
        slope = sum(float(np.vdot(a, b)) for a, b in zip(g, weakest, strict=True)) / step
        size = max(1.0, *(float(np.abs(m).max()) for m, b in zip(best["lambdas"], weakest, strict=True) if np.any(b)))
        return size**2 * min(slope, best["min_curvature"]), False, weakest

    def _shares(self, turn: list[Array] | None) -> tuple[float, ...]:
        """Share of each component in a direction."""
        if turn is None:
            return ()
        parts = np.array([np.sum(turn[f][np.ix_(index, index)] ** 2) for f, index in self.blocks.components])
        return tuple((parts / max(float(parts.sum()), 1e-300)).tolist())

    def _leave_saddle(self, state: Any, best: dict[str, Any], turn: list[Array], limit: int) -> dict[str, Any]:
        from . import _core

        tries = []
        for size in (0.3, -0.3):
            start = [a + size * b for a, b in zip(best["lambdas"], turn, strict=True)]
            tries.append(_core.fit(state, start, self.blocks.components, limit, 0))
        return dict(min(tries, key=lambda t: t["deviance"] if t["status"] != 3 else np.inf))

    def _optimum(self, state: Any, engine: list[Array], reml: bool, evidence: Evidence) -> Optimum:
        """Everything in the user's coordinates, from the state at the optimum."""
        c = self.blocks
        df = self.df(reml)
        sigma = c.scale * c.unit * float(np.sqrt(state.r2 / df))
        if not np.isfinite(sigma) or state.r2 <= PERFECT * c.core.yy:
            raise DataError(failure(2))
        solution = state.solution()
        q = len(solution) - c.p
        lambdas: list[Array] = [np.empty(0)] * len(c.structures)
        b: list[Array] = [np.empty(0)] * len(c.structures)
        at = 0
        for group, root in zip(c.groups, engine, strict=True):
            u = solution[at : at + group.levels * group.k].reshape(group.levels, group.k)
            at += group.levels * group.k
            factor = group.basis @ root
            modes = c.scale * (u @ factor.T)
            for t, part in zip(group.terms, group.slices, strict=True):
                lambdas[t] = lower_triangular(factor[part, part]) / c.unit
                b[t] = modes[:, part]
        beta = c.x_basis @ (c.scale * solution[q:] + c.shift)
        theta = [s.to_theta(m) for s, m in zip(c.structures, lambdas, strict=True)]
        value = state.log_det_u + (state.log_det_x if reml else 0.0) + df * (1 + np.log(2 * np.pi * state.r2 / df))
        return Optimum(
            reml,
            float(value + self.constant(reml)),
            np.concatenate(theta) if theta else np.empty(0),
            tuple(lambdas),
            sigma,
            beta,
            self.vcov_beta(state, sigma),
            tuple(b),
            evidence,
            tuple(engine),
        )

    def vcov_beta(self, state: Any, sigma: float) -> Array:
        """(p, p) covariance of the fixed effects at the state's Lambda."""
        half = np.linalg.solve(state.l_x(), self.blocks.x_basis.T) if self.blocks.p else np.zeros((0, 0))
        return (sigma / self.blocks.unit) ** 2 * (half.T @ half)

    # -- uncertainty --------------------------------------------------------------------------------------------

    @one_at_a_time
    def curvature(self, optimum: Optimum) -> Curvature:
        """Exact Hessian at an optimum along its free directions (singular directions left out)."""
        state = self.state(optimum.reml, optimum.engine_lambdas)
        directions = optimise.free_directions(list(optimum.engine_lambdas), self.blocks.components)
        facts = optimise.curvature(state, list(optimum.engine_lambdas), directions, self.df(optimum.reml))
        if facts is None:
            raise DataError("the criterion cannot be evaluated next to the optimum, so it has no standard errors there")
        return facts

    @one_at_a_time
    def conditional_cov(self, optimum: Optimum) -> tuple[Array, ...]:
        """Per term (J, k, k): Var(b | y) at the estimated beta and covariances (lme4's condVar)."""
        blocks = self.state(optimum.reml, optimum.engine_lambdas).inverse_blocks(1.0, 0.0)
        out: list[Array] = [np.empty(0)] * len(self.blocks.structures)
        for group, root, s in zip(self.blocks.groups, optimum.engine_lambdas, blocks, strict=True):
            factor = group.basis @ root
            cov = (optimum.sigma / self.blocks.unit) ** 2 * np.einsum("ab,jbc,dc->jad", factor, s, factor, optimize=True)
            for t, part in zip(group.terms, group.slices, strict=True):
                out[t] = cov[:, part, part]
        return tuple(out)

    @one_at_a_time
    def estimation_var(self, optimum: Optimum, x: Array, parts: list[tuple[int, NDArray[np.int32], Array]]) -> Array:
        """Var of x'beta + sum z'b around its prediction, per row; a code below zero contributes nothing.

        Parameters
        ----------
        x : (m, p) array
            Fixed-effect rows in the user's columns.
        parts : list of (term, codes (m,), Z (m, k))
            Random effects that enter each row.
        """
        from . import _core

        c = self.blocks
        state = self.state(optimum.reml, optimum.engine_lambdas)
        xs = np.ascontiguousarray(x @ c.x_basis)
        codes = [np.full(len(x), -1, dtype=np.int32) for _ in c.groups]
        effects = [np.zeros((len(x), g.k)) for g in c.groups]
        where = {t: (f, part) for f, g in enumerate(c.groups) for t, part in zip(g.terms, g.slices, strict=True)}
        for t, code, z in parts:
            f, part = where[t]
            codes[f] = np.ascontiguousarray(np.maximum(codes[f], code), dtype=np.int32)
            effects[f] += np.where((code >= 0)[:, None], z, 0.0) @ (c.groups[f].basis @ optimum.engine_lambdas[f])[part]
        out = _core.estimation_var(state, xs, codes, effects, list(range(len(codes))), True)
        apart = np.flatnonzero(np.isnan(out))
        if len(apart):
            state = self.state(optimum.reml, optimum.engine_lambdas)
            out[apart] = self._solved_var(state, xs[apart], [a[apart] for a in codes], [a[apart] for a in effects])
        return (optimum.sigma / c.unit) ** 2 * np.asarray(out)

    def _solved_var(self, state: Any, xs: Array, codes: list[NDArray[np.int32]], effects: list[Array]) -> Array:
        """The same by triangular solves, for rows whose levels never met in the data."""
        c = self.blocks
        offsets = np.concatenate([[0], np.cumsum([g.levels * g.k for g in c.groups])]).astype(np.int64)
        q = int(offsets[-1])
        out = np.empty(len(xs))
        chunk = max(1, min(512, int(4e7 // max(q + c.p, 1))))
        for first in range(0, len(xs), chunk):
            rows = slice(first, min(first + chunk, len(xs)))
            rhs = np.zeros((q + c.p, rows.stop - first))
            rhs[q:] = xs[rows].T
            for f, group in enumerate(c.groups):
                known = np.flatnonzero(codes[f][rows] >= 0)
                index = offsets[f] + codes[f][rows][known].astype(np.int64)[:, None] * group.k + np.arange(group.k)
                rhs[index, known[:, None]] = effects[f][rows][known]
            half = state.solve(rhs, False)
            out[rows] = np.einsum("ij,ij->j", half, half)
        return out


def failure(code: int) -> str:
    if code == 2:
        return (
            "the random and fixed effects reproduce the response exactly, so the residual variance is zero and the "
            "likelihood has no maximum; use fewer effects or more rows per group"
        )
    if code == 1:
        return (
            "the criterion cannot be evaluated at these covariance parameters, which points to values far too large or too "
            "small; rescale the columns of the random effects"
        )
    return "the objective could not be evaluated"


def check_start(start: Any, engine: Engine) -> tuple[Array, ...]:
    """Per-term factors from a user's theta.

    Raises
    ------
    OptionError
        If the length or a value is wrong.
    """
    return theta_factors(start, engine.blocks.structures)


def theta_factors(start: Any, structures: tuple[Structure, ...]) -> tuple[Array, ...]:
    """Per-term factors from a theta for terms of these structures; see `check_start`."""
    try:
        theta = np.asarray(start, dtype=np.float64).ravel()
    except (TypeError, ValueError):
        raise OptionError(f"start must be an array of covariance parameters (theta), got {start!r}") from None
    need = sum(s.n_theta for s in structures)
    if len(theta) != need or not np.all(np.isfinite(theta)):
        raise OptionError(f"start must hold {need} finite covariance parameters (theta), got {theta.tolist()}")
    out, at = [], 0
    for s in structures:
        out.append(s.to_lambda(theta[at : at + s.n_theta]))
        at += s.n_theta
    return tuple(out)
