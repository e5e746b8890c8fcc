"""The dense twin: a Gaussian mixed model by n x n matrices, slow and short, against which the engine is checked.

It goes through the marginal covariance ``V = Z Lambda Lambda' Z' + W^-1`` (relative to sigma^2), where the engine goes
through the penalised least squares of ``u``. Everything is written with transposes and solves only, never a conjugate,
so that derivatives by a complex step are exact to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]  # float64, or complex128 inside a complex step
Term = tuple[NDArray[np.integer[Any]], Array | None, int]  # codes (n,), Z (n, k) or None for ones, levels J
STEP = 1e-30


@dataclass(frozen=True)
class Solution:
    """What the model says at given factors."""

    beta: Array  # (p,)
    b: tuple[Array, ...]  # (J, k) per term
    r2: Any  # penalised residual sum of squares
    sigma: Any  # sqrt(r2 / n), REML: sqrt(r2 / (n - p))
    vcov: Array  # (p, p), at the sigma asked for
    fitted: Array  # (n,), offset included


@dataclass(frozen=True)
class Moments:
    """Matrices shared by the formulas below: A = X' V^-1 X, q = V^-1 (y - X beta)."""

    V_inv: Array
    V_logdet: Any
    A_inv: Array
    A_logdet: Any
    beta: Array
    q: Array
    r2: Any


class Dense:
    """Response, matrices and terms; every method takes one (k, k) factor per term.

    Parameters
    ----------
    y : (n,) array
    X : (n, p) array of full column rank
    terms : sequence of (codes, Z, J)
        codes -1: the row has no effect of that term.
    weights : (n,) array, optional
        Precision weights, all positive: Var(e_i) = sigma^2 / w_i.
    offset : (n,) array, optional
    """

    def __init__(
        self,
        y: Array,
        X: Array,
        terms: Sequence[Term],
        weights: Array | None = None,
        offset: Array | None = None,
    ) -> None:
        self.offset = np.zeros(len(y)) if offset is None else np.asarray(offset, np.float64)
        self.y = np.asarray(y, np.float64) - self.offset
        self.X = np.asarray(X, np.float64)
        self.n, self.p = self.X.shape
        self.weights = np.ones(self.n) if weights is None else np.asarray(weights, np.float64)
        self.levels = tuple(J for _, _, J in terms)
        self.sizes = tuple(1 if Z is None else Z.shape[1] for _, Z, _ in terms)
        self.Z = tuple(_indicator(codes, Z, J) for codes, Z, J in terms)  # (n, J * k), level after level

    def criterion(self, lambdas: Sequence[Array], reml: bool = True, sigma: Any = None) -> Any:
        """-2 log-likelihood with all constants; sigma at its best unless given."""
        m = self.moments(lambdas)
        df = self.n - self.p if reml else self.n
        logdet = m.V_logdet + (m.A_logdet if reml else 0.0)
        if sigma is None:
            return logdet + df * (1.0 + np.log(2.0 * np.pi * m.r2 / df))
        return logdet + df * np.log(2.0 * np.pi * sigma**2) + m.r2 / sigma**2

    def gradient(self, lambdas: Sequence[Array], reml: bool = True, sigma: Any = None) -> tuple[Array, ...]:
        """Derivative of `criterion` by every element of each (k, k) factor, as if all were free."""
        m = self.moments(lambdas)
        scale = m.r2 / (self.n - self.p if reml else self.n) if sigma is None else sigma**2
        inner = (self.projection(m) if reml else m.V_inv) - np.outer(m.q, m.q) / scale
        result = []
        for Z, J, k, factor in zip(self.Z, self.levels, self.sizes, lambdas, strict=True):
            blocks = (Z.T @ inner @ Z).reshape(J, k, J, k)
            result.append(2.0 * np.einsum("iaib->ab", blocks) @ factor)
        return tuple(result)

    def sigma_gradient(self, lambdas: Sequence[Array], sigma: Any, reml: bool = True) -> Any:
        """Derivative of `criterion` by sigma."""
        return 2.0 * (self.n - self.p if reml else self.n) / sigma - 2.0 * self.moments(lambdas).r2 / sigma**3

    def solution(self, lambdas: Sequence[Array], reml: bool = True, sigma: Any = None) -> Solution:
        """Estimates and conditional modes at given factors."""
        m = self.moments(lambdas)
        best = np.sqrt(m.r2 / (self.n - self.p if reml else self.n))
        used = best if sigma is None else sigma
        flat = [self._covariance(t, factor) @ (self.Z[t].T @ m.q) for t, factor in enumerate(lambdas)]
        fitted = self.offset + self.X @ m.beta + sum(Z @ b for Z, b in zip(self.Z, flat, strict=True))
        modes = tuple(b.reshape(J, k) for b, J, k in zip(flat, self.levels, self.sizes, strict=True))
        return Solution(m.beta, modes, m.r2, best, used**2 * m.A_inv, fitted)

    def determinants(self, lambdas: Sequence[Array]) -> tuple[Any, Any]:
        """lme4's ldL2 = log|Lambda'Z'WZ Lambda + I| and ldRX2."""
        m = self.moments(lambdas)
        return m.V_logdet + np.log(self.weights).sum(), m.A_logdet

    def conditional_cov(self, lambdas: Sequence[Array], sigma: Any) -> tuple[Array, ...]:
        """Var(b | y, beta) of every level, (J, k, k) per term: lme4's condVar."""
        m = self.moments(lambdas)
        result = []
        for t, factor in enumerate(lambdas):
            G = self._covariance(t, factor)
            full = sigma**2 * (G - G @ self.Z[t].T @ m.V_inv @ self.Z[t] @ G)
            result.append(self._blocks(full, t))
        return tuple(result)

    def joint_cov(self, lambdas: Sequence[Array], sigma: Any) -> Array:
        """Var of (b - bhat, beta - betahat), all levels of all terms first, then the p fixed effects."""
        m = self.moments(lambdas)
        Z = np.hstack([np.zeros((self.n, 0)), *self.Z])
        G = _block_diagonal([self._covariance(t, factor) for t, factor in enumerate(lambdas)])
        cross = -G @ Z.T @ m.V_inv @ self.X @ m.A_inv
        bb = G - G @ Z.T @ self.projection(m) @ Z @ G
        result: Array = sigma**2 * np.block([[bb, cross], [cross.T, m.A_inv]])
        return result

    def prediction_var(
        self,
        lambdas: Sequence[Array],
        sigma: Any,
        x: Array,
        parts: Sequence[tuple[int, NDArray[np.integer[Any]], Array | None]],
    ) -> Array:
        """Variance of x'beta + sum z'b, estimation error included.

        parts: (term index, codes, Z); a code below 0 adds nothing.
        """
        row = np.zeros((len(x), sum(Z.shape[1] for Z in self.Z)))
        starts = np.cumsum([0, *(Z.shape[1] for Z in self.Z)])
        for t, codes, Z in parts:
            row[:, starts[t] : starts[t + 1]] += _indicator(codes, Z, self.levels[t])
        both = np.hstack([row, x])
        result: Array = np.einsum("ij,jk,ik->i", both, self.joint_cov(lambdas, sigma), both)
        return result

    def hessian(
        self,
        lambdas: Sequence[Array],
        reml: bool = True,
        sigma: float | None = None,
        structures: Sequence[str] | None = None,
    ) -> Array:
        """Second derivative by the free elements of the factors, then by sigma if it is given (else profiled out).

        The order is that of `pack`: lower triangle column-major per term, the diagonal only for structure "diag".
        """
        free = self._free(structures)
        start = pack(lambdas, free)
        start = start if sigma is None else np.append(start, sigma)

        def slope(values: Array) -> Array:
            factors = unpack(values[: len(values) - (sigma is not None)], self.sizes, free)
            scale = None if sigma is None else values[-1]
            inner = pack(self.gradient(factors, reml, scale), free)
            return inner if scale is None else np.append(inner, self.sigma_gradient(factors, scale, reml))

        found = complex_jacobian(slope, start)
        return (found + found.T) / 2.0

    def satterthwaite(
        self,
        contrast: Array,
        lambdas: Sequence[Array],
        reml: bool = True,
        sigma: float | None = None,
        structures: Sequence[str] | None = None,
    ) -> float:
        """Denominator df of contrast'beta: 2 f^2 / (g' A g), A = 2 H^-1 in (theta, sigma), as lmerTest has it."""
        scale = float(self.solution(lambdas, reml).sigma) if sigma is None else sigma
        free = self._free(structures)

        def variance(values: Array) -> Array:
            factors = unpack(values[:-1], self.sizes, free)
            return np.atleast_1d(values[-1] ** 2 * contrast @ self.moments(factors).A_inv @ contrast)

        start = np.append(pack(lambdas, free), scale)
        slope = complex_jacobian(variance, start)[0]
        H = self.hessian(lambdas, reml, scale, structures)
        values, vectors = np.linalg.eigh(H)
        kept = values > 1e-8  # lmerTest's rule for directions that carry no information
        along = vectors[:, kept].T @ slope
        return float(2.0 * variance(start)[0] ** 2 / np.sum(2.0 * along**2 / values[kept]))

    def moments(self, lambdas: Sequence[Array]) -> Moments:
        """The marginal covariance, generalised least squares and what follows from them."""
        V = np.diag(1.0 / self.weights).astype(np.result_type(*lambdas, np.float64))
        for t, factor in enumerate(lambdas):
            V = V + self.Z[t] @ self._covariance(t, factor) @ self.Z[t].T
        V_inv = np.linalg.inv(V)
        A = self.X.T @ V_inv @ self.X
        A_inv = np.linalg.inv(A)
        beta = np.linalg.solve(A, self.X.T @ (V_inv @ self.y))
        residual = self.y - self.X @ beta
        q = V_inv @ residual
        return Moments(V_inv, _logdet(V), A_inv, _logdet(A), beta, q, residual @ q)

    def projection(self, m: Moments) -> Array:
        """P = V^-1 - V^-1 X A^-1 X' V^-1."""
        half = m.V_inv @ self.X
        return m.V_inv - half @ m.A_inv @ half.T

    def _covariance(self, t: int, factor: Array) -> Array:
        """(J k, J k) relative covariance of a term."""
        return np.kron(np.eye(self.levels[t]), factor @ factor.T)

    def _blocks(self, full: Array, t: int) -> Array:
        J, k = self.levels[t], self.sizes[t]
        result: Array = np.einsum("iaib->iab", full.reshape(J, k, J, k)).copy()
        return result

    def _free(self, structures: Sequence[str] | None) -> list[tuple[Array, Array]]:
        """Rows and columns of the free elements of each factor."""
        kinds = structures if structures is not None else ["us"] * len(self.sizes)
        result = []
        for k, kind in zip(self.sizes, kinds, strict=True):
            columns, rows = np.triu_indices(k)
            kept = rows == columns if kind == "diag" else np.ones(len(rows), bool)
            result.append((rows[kept], columns[kept]))
        return result


def pack(factors: Sequence[Array], free: Sequence[tuple[Array, Array]]) -> Array:
    """Free elements of the factors as one vector."""
    return np.concatenate(
        [np.zeros(0), *(factor[where] for factor, where in zip(factors, free, strict=True))]
    )


def unpack(values: Array, sizes: Sequence[int], free: Sequence[tuple[Array, Array]]) -> list[Array]:
    """Factors from the vector of their free elements, zero elsewhere."""
    result, start = [], 0
    for k, where in zip(sizes, free, strict=True):
        factor = np.zeros((k, k), values.dtype)
        factor[where] = values[start : start + len(where[0])]
        result.append(factor)
        start += len(where[0])
    return result


def complex_jacobian(function: Callable[[Array], Array], at: Array) -> Array:
    """Jacobian (outputs, inputs) by complex steps: no cancellation, exact to rounding."""
    columns = []
    for index in range(len(at)):
        moved = at.astype(np.complex128)
        moved[index] += 1j * STEP
        columns.append(np.imag(function(moved)) / STEP)
    return np.column_stack(columns)


def _logdet(matrix: Array) -> Any:
    """log of a positive determinant; with a complex step in it, the imaginary part is the phase."""
    sign, size = np.linalg.slogdet(matrix)
    return size + 1j * np.angle(sign) if np.iscomplexobj(matrix) else size


def _indicator(codes: NDArray[np.integer[Any]], Z: Array | None, J: int) -> Array:
    """Dense (n, J k) matrix of a term: the row's z in the columns of its level."""
    values = np.ones((len(codes), 1)) if Z is None else np.asarray(Z, np.float64)
    full = np.zeros((len(codes), J, values.shape[1]))
    inside = np.flatnonzero(codes >= 0)
    full[inside, codes[inside]] = values[inside]
    return full.reshape(len(codes), -1)


def _block_diagonal(blocks: Sequence[Array]) -> Array:
    size = sum(len(block) for block in blocks)
    full = np.zeros((size, size), np.result_type(*blocks, np.float64))
    start = 0
    for block in blocks:
        full[start : start + len(block), start : start + len(block)] = block
        start += len(block)
    return full
