"""Plain NumPy for models with structures: the whole n x n covariance from the definitions, without the library's code.

Relative to sigma**2 it is ``V = sum_t Z_t (G_t x K_t) Z_t' + S R S`` with G_t the covariance of a term's effects, K_t the
known covariance of its levels, S the rows' sds and R their correlation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from multilevel import Fit
from multilevel.design import Design

Array = NDArray[np.float64]


def correlation(kind: str, k: int, rho: float) -> Array:
    """R(rho) of k effects."""
    out = np.eye(k)
    for i in range(k):
        for j in range(k):
            if i != j and kind in ("cs", "homcs"):
                out[i, j] = rho
            elif i != j and kind in ("ar1", "hetar1"):
                out[i, j] = rho ** abs(i - j)
    return out


def covariance(kind: str, k: int, theta: Array) -> Array:
    """Relative covariance of k effects from relative sds and a correlation (not for us and diag)."""
    sds = theta[:k] if kind in ("cs", "hetar1") else np.repeat(theta[0], k)
    rho = float(theta[-1]) if kind in ("cs", "homcs", "ar1", "hetar1") else 0.0
    return np.outer(sds, sds) * correlation(kind, k, rho)


def serial(groups: Any, times: Any, rho: float) -> Array:
    """R of the rows: rho**|difference of times| within groups."""
    groups, times = np.asarray(groups), np.asarray(times, dtype=float)
    lag = np.abs(np.subtract.outer(times, times))
    out = np.where(groups[:, None] == groups[None, :], np.power(float(rho), lag), 0.0)
    np.fill_diagonal(out, 1.0)
    return np.asarray(out)


def order_within(groups: Any) -> Array:
    """Place of each row among those of its group, in the order of the rows."""
    return np.asarray(pd.Series(np.arange(len(groups))).groupby(np.asarray(groups)).cumcount(), dtype=np.float64)


def indicator(codes: Any, z: Array | None, levels: int) -> Array:
    """(n, levels * k) design of a term, level after level."""
    effects = np.ones((len(codes), 1)) if z is None else np.asarray(z)
    out = np.zeros((len(codes), levels, effects.shape[1]))
    out[np.arange(len(codes)), codes] = effects
    return out.reshape(len(codes), -1)


@dataclass(frozen=True)
class Twin:
    """A Gaussian linear model with V known up to sigma**2."""

    y: Array
    X: Array
    V: Array
    Z: tuple[Array, ...] = ()
    G: tuple[Array, ...] = ()  # covariance of all effects of a term, relative

    @property
    def n(self) -> int:
        return len(self.y)

    @property
    def inverse(self) -> Array:
        return np.asarray(np.linalg.inv(self.V))

    def moments(self) -> tuple[Array, Array, Array, float]:
        """V^-1, (X' V^-1 X)^-1, beta, r' V^-1 r."""
        inverse = self.inverse
        cross = np.linalg.inv(self.X.T @ inverse @ self.X)
        beta = cross @ self.X.T @ inverse @ self.y
        rest = self.y - self.X @ beta
        return inverse, cross, beta, float(rest @ inverse @ rest)

    def df(self, reml: bool) -> int:
        return self.n - (self.X.shape[1] if reml else 0)

    def sigma(self, reml: bool) -> float:
        return float(np.sqrt(self.moments()[3] / self.df(reml)))

    def criterion(self, reml: bool, sigma: float | None = None) -> float:
        """-2 log-likelihood with all constants; sigma profiled out unless given."""
        _, cross, _, r2 = self.moments()
        df = self.df(reml)
        out = np.linalg.slogdet(self.V)[1] - (np.linalg.slogdet(cross)[1] if reml else 0.0)
        s2 = r2 / df if sigma is None else sigma**2
        return float(out + df * np.log(2 * np.pi * s2) + r2 / s2)

    def modes(self) -> tuple[Array, ...]:
        """Conditional modes of every term, flat."""
        inverse, _, beta, _ = self.moments()
        q = inverse @ (self.y - self.X @ beta)
        return tuple(g @ z.T @ q for z, g in zip(self.Z, self.G, strict=True))

    def conditional_cov(self, t: int, sigma: float) -> Array:
        """Var(b_t | y, beta) of all its effects."""
        g, z = self.G[t], self.Z[t]
        return np.asarray(sigma**2 * (g - g @ z.T @ self.inverse @ z @ g))


def twin(
    design: Design,
    terms: Sequence[Array],
    known: Mapping[str, Array] | None = None,
    sd: Array | None = None,
    R: Array | None = None,
) -> Twin:
    """Twin of a design at relative covariances of its terms; `known` by group, in the order of the design's levels."""
    n = len(design.y)
    sds = np.ones(n) if sd is None else np.asarray(sd)
    if design.weights is not None:
        sds = sds / np.sqrt(design.weights)
    V = np.outer(sds, sds) * (np.eye(n) if R is None else R)
    zs, gs = [], []
    for term, cov in zip(design.terms, terms, strict=True):
        count = len(term.levels)
        z = indicator(term.codes, term.Z, count)
        K = np.eye(count) if known is None or term.group not in known else known[term.group]
        g = np.kron(K, cov)
        V = V + z @ g @ z.T
        zs.append(z)
        gs.append(g)
    y = design.y if design.offset is None else design.y - design.offset
    return Twin(np.asarray(y), np.asarray(design.X), V, tuple(zs), tuple(gs))


def of_fit(fit: Fit, known: Mapping[str, Array] | None = None, sd: Array | None = None, R: Array | None = None) -> Twin:
    """Twin at the optimum of a fit."""
    return twin(fit.design, [m @ m.T for m in fit.optimum.lambdas], known, sd, R)


def check_against(fit: Fit, dense: Twin, tolerance: float = 1e-9) -> None:
    """Criterion, sigma, fixed effects and their covariance, modes and their covariances of a fit, against the twin."""
    reml, sigma = fit.reml, fit.sigma
    _, cross, beta, _ = dense.moments()
    assert abs(dense.criterion(reml) - fit.criterion) < tolerance * (1 + abs(fit.criterion))
    np.testing.assert_allclose(sigma, dense.sigma(reml), rtol=tolerance)
    se = np.sqrt(np.diag(cross)) * sigma
    np.testing.assert_allclose((fit.optimum.beta - beta) / se, 0, atol=tolerance * 10)
    np.testing.assert_allclose(fit.vcov() / np.outer(se, se), cross * sigma**2 / np.outer(se, se), atol=tolerance * 10)
    for t, flat in enumerate(dense.modes()):
        b = fit.optimum.b[t]
        scale = max(float(np.sqrt(np.max(fit.random_cov()[t]))), 1e-12)
        np.testing.assert_allclose(b.ravel() / scale, flat / scale, atol=tolerance * 10)
        k = b.shape[1]
        cov = dense.conditional_cov(t, sigma).reshape(len(b), k, len(b), k)
        blocks = np.array([cov[j, :, j, :] for j in range(len(b))])
        np.testing.assert_allclose(fit._conditional_cov[t] / scale**2, blocks / scale**2, atol=tolerance * 10)
