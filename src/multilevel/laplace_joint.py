"""All coordinates of a generalised model about one point: exact gradient, Hessian by its differences, covariances from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import optimise
from .optimise import Direction

if TYPE_CHECKING:
    from .laplace import LaplaceEngine

Array = NDArray[np.float64]

STEP = 1e-3  # of differences of the exact gradient: truncation of a millionth, and ten times less of its rounding than 1e-4
SETTLED = 1e-9  # gradient of the deviance that is none: its rounding
ROUNDING = 1e-8  # of a deviance, relative: a step that raises it by more is a step away
FLATTEST = 1e-10  # curvature, over the largest, that counts as none


class Joint:
    """Covariances along their free directions, coordinates of structures, then all others, about one point.

    ``first`` is where fixed effects and further coefficients begin.
    """

    def __init__(
        self, engine: LaplaceEngine, state: Any, lambdas: list[Array], plain: Array, a: Array | None = None
    ) -> None:
        self.engine, self.state, self.plain = engine, state, np.array(plain)
        self.a = engine.terms.of(lambdas) if a is None else np.array(a)
        self.lambdas = engine.terms.put(lambdas, self.a)
        self.directions: list[Direction] = optimise.free_directions(self.lambdas, engine.components)
        self.active = engine.terms.active(self.a)
        self.first = len(self.directions) + len(self.active)
        self.size = self.first + len(self.plain)
        self.here: Array | None = None  # gradient at the point itself, where it is known
        self.value: float | None = None  # half the deviance there, while the compiled problem stands there
        self._last = np.nan
        self.u = np.array(state.u)  # every search for the modes begins here: densities may have several

    def sizes(self) -> Array:
        """Of each coordinate, for steps and curvatures."""
        own = self.engine.terms.sizes(self.a)[self.active]
        return np.array([*(d.size for d in self.directions), *own, *np.ones(len(self.plain))])

    def moved(self, step: Array) -> tuple[Array, list[Array], Array]:
        """Coordinates of structures, factors and plain coordinates at a step."""
        at = len(self.directions)
        change = optimise.combined(self.lambdas, self.directions, step[:at])
        a = self.a.copy()
        a[self.active] += step[at : self.first]
        lambdas = self.engine.terms.put([m + c for m, c in zip(self.lambdas, change, strict=True)], a)
        return a, [np.ascontiguousarray(m) for m in lambdas], self.plain + step[self.first :]

    def weakest(self, hessian: Array) -> str:
        """The structure's parameter that makes up most of the direction of least curvature, if one does."""
        if not self.active:
            return ""
        share = np.abs(np.linalg.eigh(hessian * np.outer(self.sizes(), self.sizes()))[1][:, 0])
        at = int(np.argmax(share[: self.first])) - len(self.directions)
        return self.engine.terms.names()[self.active[at]] if at >= 0 else ""

    def evaluate(self, step: Array, want: bool) -> Any:
        """Half the deviance with its derivatives at a step."""
        _, lambdas, plain = self.moved(step)
        self.value = None  # the compiled problem leaves the point
        self.state.u = self.u
        p = self.engine.x.shape[1]
        rows = self.engine.coefficients.rows(plain[p:])
        return self.state.evaluate(np.ascontiguousarray(plain[:p]), lambdas, rows, want)

    def settle(self) -> float:
        """Half the deviance at the point itself, where the compiled problem then stands."""
        if self.value is None:
            self.value = float(self.evaluate(np.zeros(self.size), False)[0])
        return self.value

    def gradient(self, step: Array) -> Array | None:
        """Derivative of the deviance along everything."""
        value, by_beta, by_lambda, by_rows = self.evaluate(step, True)
        self._last = float(value)
        if not np.isfinite(value):
            return None
        free = [2 * float(np.vdot(by_lambda[d.group], d.matrix())) for d in self.directions]
        own = 2 * self.engine.terms.slope(by_lambda, self.moved(step)[0])[self.active]
        more = np.zeros(len(self.engine.coefficients.start))
        for design, rows in zip(self.engine.coefficients.designs, by_rows, strict=True):
            more = more + 2 * (design.T @ rows)
        return np.concatenate([np.array(free), own, 2 * by_beta, more])

    def hessian(self) -> Array | None:
        """Of the deviance, by central differences of the exact gradient; None where that fails."""
        sizes = STEP * self.sizes()
        if not self.active:
            return self._compiled_hessian(sizes)
        rows = []
        for i, size in enumerate(sizes):
            step = np.zeros(self.size)
            step[i] = size
            up, down = self.gradient(step), self.gradient(-step)
            if up is None or down is None:
                return None
            rows.append((up - down) / (2 * size))
        out = np.array(rows).reshape(self.size, self.size)
        return np.asarray((out + out.T) / 2) if np.isfinite(out).all() else None

    def _compiled_hessian(self, steps: Array) -> Array | None:
        """The same in the core, for coordinates along which the factors move in straight lines."""
        lambdas = [np.ascontiguousarray(m) for m in self.lambdas]
        moves = [(d.group, np.ascontiguousarray(d.matrix())) for d in self.directions]
        designs = list(self.engine.coefficients.designs)
        self.value = None
        found = self.state.hessian(lambdas, np.ascontiguousarray(self.plain), designs, moves, steps, self.u)
        if found is None or not np.isfinite(found[1]).all():
            return None
        self.here = found[0]
        return np.asarray((found[1] + found[1].T) / 2)

    def of_user(self, cov: Array) -> tuple[Array, Array]:
        """A covariance of all coordinates with beta first and the covariances last, and their directions, for the user."""
        at, p = self.first, self.engine.x.shape[1]
        turn = np.zeros((self.size, self.size))
        end = p + len(self.engine.coefficients.start)
        turn[:p, at : at + p] = self.engine.x_basis
        turn[p:end, at + p :] = self.engine.coefficients.basis
        turn[end:, :at] = np.eye(at)
        blank = [np.zeros((g.k, g.k)) for g in self.engine.groups]
        moves = []
        free = [(d.group, d.matrix()) for d in self.directions]
        for group, matrix in free + [self.engine.terms.matrices(self.a, blank)[i] for i in self.active]:
            own = [g.basis @ matrix if f == group else blank[f] for f, g in enumerate(self.engine.groups)]
            moves.append(np.concatenate([one.ravel() for one in own]))
        return turn @ cov @ turn.T, np.array(moves).reshape(at, sum(g.k**2 for g in self.engine.groups))

    def polish(self, hessian: Array) -> float:
        """Newton steps judged by the gradient, where the deviance can no longer tell; how far they led, in `sizes`."""
        if not self.size or not positive(hessian):
            return 0.0
        now = self.gradient(np.zeros(self.size)) if self.here is None else self.here
        far, sizes = 0.0, self.sizes()
        for _ in range(3):
            if now is None or not np.abs(now).max() > SETTLED:
                break
            before = self.settle()
            step = np.asarray(-np.linalg.solve(hessian, now), dtype=np.float64)
            after = self.gradient(step)
            higher = self._last > before + ROUNDING * (1 + abs(before))
            if after is None or higher or not np.abs(after).max() < 0.5 * np.abs(now).max():
                self.evaluate(np.zeros(self.size), False)
                break
            far += float(np.abs(step / sizes).max())
            self.a, self.lambdas, self.plain = self.moved(step)
            self.u = np.array(self.state.u)
            self.here = now = after
            self.value = self._last
        return far


def covariance(hessian: Array, sizes: Array) -> Array:
    """Inverse of half the deviance's Hessian; a direction without curvature gets a variance that says nothing is known."""
    scaled = hessian * np.outer(sizes, sizes) / 2
    values, vectors = np.linalg.eigh(scaled)
    inverse = 1 / np.maximum(values, FLATTEST * max(values[-1], 1e-300))
    return np.asarray((vectors * inverse) @ vectors.T * np.outer(sizes, sizes))


def positive(hessian: Array) -> bool:
    """Whether a symmetric matrix is positive definite."""
    try:
        np.linalg.cholesky(hessian)
    except np.linalg.LinAlgError:
        return False
    return True
