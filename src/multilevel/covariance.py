"""Covariance structures of one random term: theta <-> Lambda, components, smooth coordinates.

``Cov(b) = sigma**2 * Lambda @ Lambda.T``. Theta of a *free* structure follows lme4: the entries of the relative Cholesky
factor, lower triangle, column by column; a diagonal one keeps the diagonal only. The others have few parameters: relative
sds and one correlation, ``Cov = D R(rho) D``; their names are glmmTMB's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import OptionError

Array = NDArray[np.float64]

FREE = ("us", "diag")
CORRELATED = ("cs", "homcs", "ar1", "hetar1")
STRUCTURES = (*FREE, "homdiag", *CORRELATED)
NO_SD = 1e-7  # relative sd that counts as none


@dataclass(frozen=True, slots=True)
class Structure:
    """How the k effects of one term covary.

    Parameters
    ----------
    kind : str
        "us" (all variances and correlations free), "diag" (no correlations), "homdiag" (one variance, no correlations),
        "cs" (compound symmetry: one correlation, a variance per effect), "homcs" (and one variance), "ar1" (one variance,
        correlation rho**lag between effects in their order), "hetar1" (a variance per effect).
    k : int
        Number of effects.
    """

    kind: str
    k: int

    def __post_init__(self) -> None:
        if self.kind not in STRUCTURES:
            raise OptionError(
                f"the covariance structure {self.kind}() is not available; allowed are "
                f"{', '.join(name + '()' for name in STRUCTURES)} (and || for diag)"
            )

    @property
    def free(self) -> bool:
        """Whether its parameters are entries of Lambda."""
        return self.kind in FREE

    @property
    def n_sd(self) -> int:
        """Number of sds it estimates."""
        return self.k if self.kind in ("us", "diag", "cs", "hetar1") else 1

    @property
    def correlated(self) -> bool:
        """Whether it has the one parameter rho."""
        return self.kind in CORRELATED

    def components(self) -> list[list[int]]:
        """Sets of effects that covary freely among themselves and not with the others; none if not free."""
        if self.kind == "us":
            return [list(range(self.k))]
        return [[i] for i in range(self.k)] if self.kind == "diag" else []

    def entries(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows and columns of Lambda that theta fills, in theta's order (free structures)."""
        if self.kind == "us":
            cols, rows = np.triu_indices(self.k)
            return rows, cols
        index = np.arange(self.k)
        return index, index

    @property
    def n_theta(self) -> int:
        """Number of free covariance parameters."""
        if self.kind == "us":
            return self.k * (self.k + 1) // 2
        return self.n_sd + self.correlated

    def to_lambda(self, theta: Array) -> Array:
        """(k, k) lower-triangular relative factor from this term's part of theta.

        Raises
        ------
        OptionError
            If a correlation lies outside its range, or an sd of a structure that is not free is negative.
        """
        if self.free:
            out = np.zeros((self.k, self.k))
            out[self.entries()] = theta
            return out
        if np.min(theta[: self.n_sd]) < 0:
            raise OptionError(
                f"the sds of {self.kind}() cannot be negative, got {float(np.min(theta[: self.n_sd])):.6g}"
            )
        low, high = self.range()
        if self.correlated and not low <= theta[-1] <= high:
            raise OptionError(
                f"the correlation of {self.kind}() with {self.k} effects lies between {low:.4g} and {high:.4g}, "
                f"got {theta[-1]:.6g}"
            )
        return lower_triangular(self.at(self.coordinates(theta)))

    def to_theta(self, factor: Array) -> Array:
        """Theta of a factor: its entries (lower triangular) if free, relative sds and the correlation otherwise."""
        if self.free:
            return np.asarray(factor[self.entries()])
        sd = np.sqrt(np.einsum("ij,ij->i", factor, factor))
        if not self.correlated:
            return np.asarray(sd[:1])
        return np.append(sd[: self.n_sd], self._rho(factor, sd))

    def _rho(self, factor: Array, sd: Array) -> float:
        """Correlation that the effects which vary tell; 0 where fewer than two do."""
        vary = np.flatnonzero(sd > NO_SD)
        if len(vary) < 2:
            return 0.0
        unit = factor[vary] / sd[vary, None]
        cor = unit @ unit.T
        low, high = self.range()
        if self.kind in ("cs", "homcs"):
            return float(np.clip(cor[0, 1], low, high))
        lag = np.abs(np.subtract.outer(vary, vary))
        lag[np.diag_indices(len(vary))] = self.k  # an effect with itself says nothing
        nearest = np.unravel_index(np.argmin(lag), lag.shape)
        odd = np.argwhere((lag % 2 == 1) & (lag < self.k))  # only these tell the sign
        sign = -1.0 if len(odd) and cor[tuple(odd[0])] < 0 else 1.0
        return float(np.clip(sign * np.abs(cor[nearest]) ** (1 / lag[nearest]), low, high))

    def slope(self, theta: Array, gradient: Array) -> Array:
        """Derivative by theta from the (k, k) derivative by Lambda as `to_lambda` gives it."""
        if self.free:
            return np.asarray(gradient[self.entries()])
        sd = theta[: self.n_sd]
        rho = float(theta[-1])
        lower = lower_triangular(self._root(self._angle(rho))[0]) if self.correlated else np.eye(self.k)
        by_sd = np.einsum("ij,ij->i", gradient, lower)
        out = by_sd if self.n_sd > 1 else np.array([np.sum(by_sd)])
        if not self.correlated:
            return out
        if np.diag(lower).min() < NO_SD:
            raise OptionError(
                f"there is no derivative by the correlation of {self.kind}() at the end of its range ({rho:.6g}); "
                f"move it inside"
            )
        half = np.linalg.solve(lower, np.linalg.solve(lower, self._correlation_slope(rho)).T).T
        half = np.tril(half) - np.diag(np.diag(half)) / 2  # of a Cholesky factor: dL = L Phi(L^-1 dR L^-T)
        return np.append(out, np.sum(gradient * (sd[:, None] * (lower @ half))))

    # -- the one-parameter correlation -------------------------------------------------------------------------

    def range(self) -> tuple[float, float]:
        """Least and greatest correlation for which R is positive semi-definite."""
        return (-1.0 / max(self.k - 1, 1), 1.0) if self.kind in ("cs", "homcs") else (-1.0, 1.0)

    def correlation(self, rho: float) -> Array:
        """(k, k) matrix R(rho)."""
        if self.kind in ("cs", "homcs"):
            return np.asarray((1 - rho) * np.eye(self.k) + rho)
        lag = np.abs(np.subtract.outer(np.arange(self.k), np.arange(self.k)))
        return np.asarray(np.power(float(rho), lag))

    def _correlation_slope(self, rho: float) -> Array:
        if self.kind in ("cs", "homcs"):
            return np.asarray(1 - np.eye(self.k))
        lag = np.abs(np.subtract.outer(np.arange(self.k), np.arange(self.k)))
        return np.asarray(lag * np.power(float(rho), np.maximum(lag - 1, 0)))

    # -- smooth coordinates, in which the boundary is nothing special -------------------------------------------
    #
    # One sd: the sd itself, with either sign. Several: their roots, so that sd = a**2 >= 0 without a bound. The
    # correlation is an angle: rho = sin(a) for ar1; k sin(a)**2 and k/(k-1) cos(a)**2 are the two eigenvalues of
    # R for cs. A root of the covariance is then a polynomial of sines and cosines, exact at every boundary, and a
    # minimum on the boundary is a stationary point whose second derivative has the sign Karush-Kuhn-Tucker ask for.

    @property
    def n_coordinates(self) -> int:
        """Number of smooth coordinates, one for each theta."""
        return self.n_sd + self.correlated

    def coordinates(self, theta: Array) -> Array:
        """Smooth coordinates of theta."""
        sd = np.asarray(theta[: self.n_sd], dtype=np.float64)
        out = sd.copy() if self.n_sd == 1 else np.sqrt(np.maximum(sd, 0.0))
        return np.append(out, self._angle(float(theta[-1]))) if self.correlated else out

    def _angle(self, rho: float) -> float:
        if self.kind in ("cs", "homcs"):
            return float(np.arcsin(np.sqrt(np.clip((1 + (self.k - 1) * rho) / self.k, 0, 1))))
        return float(np.arcsin(np.clip(rho, -1, 1)))

    def theta_at(self, a: Array) -> Array:
        """Theta of smooth coordinates."""
        sd = np.abs(a[:1]) if self.n_sd == 1 else a[: self.n_sd] ** 2
        if not self.correlated:
            return sd
        s = np.sin(a[-1])
        return np.append(sd, (self.k * s * s - 1) / max(self.k - 1, 1) if self.kind in ("cs", "homcs") else s)

    def at(self, a: Array) -> Array:
        """(k, k) square root of the relative covariance at smooth coordinates."""
        sd = np.repeat(a[:1], self.k) if self.n_sd == 1 else a[: self.n_sd] ** 2
        return np.asarray(sd[:, None] * self._root(float(a[-1]))[0]) if self.correlated else np.diag(sd)

    def by_coordinate(self, a: Array) -> list[Array]:
        """Derivative of `at` by each smooth coordinate."""
        root, turn = self._root(float(a[-1])) if self.correlated else (np.eye(self.k), np.zeros((self.k, self.k)))
        sd = np.repeat(a[:1], self.k) if self.n_sd == 1 else a[: self.n_sd] ** 2
        out = [root] if self.n_sd == 1 else []
        for i in range(self.n_sd if self.n_sd > 1 else 0):
            row = np.zeros((self.k, self.k))
            row[i] = 2 * a[i] * root[i]
            out.append(row)
        return [*out, sd[:, None] * turn] if self.correlated else out

    def _root(self, angle: float) -> tuple[Array, Array]:
        """Square root of R and its derivative by the angle."""
        s, c, k = np.sin(angle), np.cos(angle), self.k
        if self.kind in ("cs", "homcs"):
            one, rest = np.sqrt(k), np.sqrt(k / max(k - 1, 1))
            mean = np.full((k, k), 1 / k)
            eye = np.eye(k) - mean
            return one * s * mean + rest * c * eye, one * c * mean - rest * s * eye
        lag = np.subtract.outer(np.arange(k), np.arange(k))
        low = np.tril(np.power(s, np.maximum(lag, 0)))
        low_slope = np.tril(np.maximum(lag, 0) * np.power(s, np.maximum(lag - 1, 0))) * c
        scale = np.r_[1.0, np.full(k - 1, c)]
        return low * scale, low_slope * scale + low * np.r_[0.0, np.full(k - 1, -s)]


def lower_triangular(root: Array) -> Array:
    """Lower-triangular L with L @ L.T == root @ root.T and a non-negative diagonal.

    Works on the square root itself (rotations from the right), so that no digit is lost to squaring; a row without
    anything new leaves a zero column, as a Cholesky factor of a singular matrix does.
    """
    k = len(root)
    if k == 1:
        return np.abs(root)
    rest = np.array(root, dtype=np.float64)
    out = np.zeros((k, k))
    tiny = 1e-15 * (np.abs(rest).max() or 1.0)
    for i in range(k):
        row = rest[i]
        length = float(np.sqrt(row @ row))
        if length <= tiny:
            continue
        direction = row / length
        out[:, i] = rest @ direction
        out[:i, i] = 0.0
        rest = rest - np.outer(out[:, i], direction)
    return out
