"""lme4's quick start (``nAGQ = 0``): fixed effects at the joint mode with the random effects.

`joint_mode.hpp` finds that mode and has the exact gradient of the criterion with the fixed effects following.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .covariance import lower_triangular
from .errors import DataError
from .laplace import MAX_EVALUATIONS, LaplaceEngine
from .laplace_joint import Joint
from .laplace_start import starts

if TYPE_CHECKING:
    from .reml import Engine, Optimum

Array = NDArray[np.float64]

SETTLED = 1e-6  # deviance that another step may promise at the end
VANISHED = 1e-3  # sd, whitened scale, that is tried at exactly zero
NO_WORSE = 1e-6  # deviance that may be lost there
PROBE = 1e-2  # sd at which the slope by a vanished variance is taken


class QuickEngine(LaplaceEngine):
    """Rows of a generalised model fitted by lme4's quick start (``nAGQ = 0``).

    The fixed effects are those of the joint mode with the random effects, at which Laplace's approximation is maximised over
    covariances and further coefficients. The log-likelihood is Laplace's at the estimates, so it never exceeds that of
    ``quadrature=1`` and compares with it. Standard errors come from Laplace's curvature there.
    """

    def with_threads(self, threads: int) -> QuickEngine:
        """The same model with another number of threads."""
        return QuickEngine(self.design, self.family, threads)

    def fit(
        self, start: tuple[Array, ...] | None = None, max_evaluations: int = MAX_EVALUATIONS
    ) -> tuple[Optimum, Engine]:
        """Maximise Laplace's likelihood at the joint mode; the optimum and the working linear model there."""
        state = self.state()
        search = QuickSearch(self, state)
        tries = []
        for plain in starts(self, np.r_[self._first_beta(), self.coefficients.start]):
            for size in (0.5, 1.0, 0.1) if start is None else (1.0,):
                lambdas = [size * np.eye(g.k) for g in self.groups] if start is None else self._engine_lambdas(start)
                state.u = np.zeros(sum(g.levels * g.k for g in self.groups))
                tries.append(search.run(lambdas, plain, max_evaluations))
                if tries[-1]["status"] == 0:
                    break
        best = min(tries, key=lambda one: one["deviance"])
        if not np.isfinite(best["deviance"]):
            raise DataError(
                "the likelihood cannot be evaluated at any start, which points to values far too large for this family "
                "and link; rescale the predictors, check the response, or choose another link"
            )
        joint = Joint(self, state, best["lambdas"], best["plain"], best["a"])
        hessian = joint.hessian()
        found = self._evidence(best, search.evaluations, joint, hessian)
        # the search's own figures: the fixed effects of the quick start are no stationary point of Laplace's likelihood
        evidence = replace(found, decrement=best["decrement"], gradient_norm=best["gradient_norm"])
        return self._optimum(state, joint, hessian, evidence)


class QuickSearch:
    """BFGS over the covariances' triangular factors, coordinates of structures and the further coefficients.

    The fixed effects follow.
    """

    def __init__(self, engine: QuickEngine, state: Any) -> None:
        self.engine, self.state = engine, state
        self.beta = np.zeros(engine.x.shape[1])
        self.places = [
            (f, index[i], index[j]) for f, index in engine.components for i in range(len(index)) for j in range(i + 1)
        ]
        sizes = [len(index) for _, index in engine.components]
        self.owners = [c for c, k in enumerate(sizes) for _ in range(k * (k + 1) // 2)]
        self.count = len(self.places) + engine.terms.size
        self.evaluations = 0

    def matrices(self, values: Array) -> list[Array]:
        """Factors of the covariances at the search's coordinates."""
        out = [np.zeros((g.k, g.k)) for g in self.engine.groups]
        for (f, i, j), value in zip(self.places, values[: len(self.places)], strict=True):
            out[f][i, j] = value
        return [np.ascontiguousarray(m) for m in self.engine.terms.put(out, values[len(self.places) : self.count])]

    def evaluate(self, values: Array) -> tuple[float, Array]:
        """Deviance and gradient; the fixed effects stay in `beta` as the start of the next joint mode."""
        self.evaluations += 1
        count = self.count
        rows = self.engine.coefficients.rows(values[count:])
        f, beta, by_lambda, by_rows, _ = self.state.joint_mode(self.beta, self.matrices(values[:count]), rows)
        if not np.isfinite(f):
            return np.inf, np.zeros(len(values))
        self.beta = np.array(beta)
        structured = self.engine.terms.slope(by_lambda, values[len(self.places) : count])
        free = np.r_[[by_lambda[f][i, j] for f, i, j in self.places], structured]
        more = np.zeros(len(values) - count)
        for design, one in zip(self.engine.coefficients.designs, by_rows, strict=True):
            more = more + design.T @ one
        return 2 * float(f), 2 * np.r_[free, more]

    def run(self, lambdas: list[Array], plain: Array, limit: int) -> dict[str, Any]:
        """The minimum found, in the form of the core's searches."""
        from scipy.optimize import minimize

        p, count = self.engine.x.shape[1], self.count
        self.beta = np.ascontiguousarray(plain[:p])
        first = np.r_[[lambdas[f][i, j] for f, i, j in self.places], self.engine.terms.of(lambdas), plain[p:]]
        values, iterations, decrement = first, 0, 0.0
        if len(first):
            found = minimize(self.evaluate, first, jac=True, method="BFGS", options={"gtol": 1e-7, "maxiter": limit})
            values, iterations = np.asarray(found.x), int(found.nit)
            decrement = float(found.jac @ found.hess_inv @ found.jac) / 2
        values, null_slopes, rank = self._boundary(values)
        deviance, slope = self.evaluate(values)
        settled = np.isfinite(deviance) and abs(decrement) < SETTLED
        matrices = self.matrices(values[:count])
        return {
            "lambdas": matrices,
            "plain": np.r_[self.beta, values[count:]],
            "a": values[len(self.places) : count],
            "deviance": deviance,
            "decrement": decrement,
            "gradient_norm": float(np.abs(slope).max()) if len(slope) else 0.0,
            "status": 0 if settled else 3 if not np.isfinite(deviance) else 2,
            "iterations": iterations,
            "null_slopes": null_slopes,
            "rank": rank,
            "trace": [deviance],
        }

    def _boundary(self, values: Array) -> tuple[Array, list[float], list[int]]:
        """Vanished directions set to zero; per component the least slope there by a variance, and the rank."""
        slopes, ranks = [], []
        for c, (_, index) in enumerate(self.engine.components):
            places = [n for n, owner in enumerate(self.owners) if owner == c]
            values, slope, rank = self._vanish(values, places, len(index))
            slopes.append(slope)
            ranks.append(rank)
        return values, slopes, ranks

    def _vanish(self, values: Array, places: list[int], k: int) -> tuple[Array, float, int]:
        """The same for one component, whose coordinates are at `places`."""
        square, lower = np.zeros((k, k)), np.tril_indices(k)
        square[lower] = values[places]
        left, sizes, _ = np.linalg.svd(square)
        gone = sizes <= VANISHED
        if not gone.any():
            return values, float("nan"), k
        covariance = (left * np.where(gone, 0.0, sizes) ** 2) @ left.T

        def at(matrix: Array) -> tuple[Array, float]:
            moved = values.copy()
            moved[places] = lower_triangular(covariance_root(matrix))[lower]
            return moved, self.evaluate(moved)[0]

        at_zero, here = at(covariance)
        if here > self.evaluate(values)[0] + NO_WORSE:
            return values, float("nan"), k
        grown = [at(covariance + PROBE**2 * np.outer(one, one))[1] for one in left.T[gone]]
        return at_zero, (min(grown) - here) / PROBE**2, int(k - gone.sum())


def covariance_root(covariance: Array) -> Array:
    """A square root A of a covariance, which need not be regular: A A'."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))
