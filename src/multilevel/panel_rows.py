"""The rows of a panel: means of groups, deviations from them, what varies within; least squares with its covariances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import OptionError
from .rank import dependent_columns

if TYPE_CHECKING:
    from .design import Design

__all__ = ["LeastSquares", "PanelRows", "cluster_count", "least_squares", "rows_of"]

Array = NDArray[np.float64]
Codes = NDArray[np.int32]
CONSTANT = 1e-12  # deviation from the mean of a group, relative to the values, that is rounding


@dataclass(frozen=True, eq=False)
class PanelRows:
    """Response and predictors of a panel, with the groups and periods of its rows.

    Attributes
    ----------
    y : ndarray (n,)
    X : ndarray (n, p)
        With the intercept, and effects of periods where these are wanted.
    names : tuple of str
    group : ndarray of int32 (n,)
    levels : ndarray
        Labels of the groups.
    time : ndarray of int32 (n,) or None
        Periods, where the panel has them.
    period : ndarray of bool (p,)
        Which columns are effects of periods.
    """

    y: Array
    X: Array
    names: tuple[str, ...]
    group: Codes
    levels: NDArray[Any]
    time: Codes | None
    period: NDArray[np.bool_]

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Rows of each group."""
        return np.bincount(self.group, minlength=len(self.levels))

    @property
    def count(self) -> int:
        """Groups."""
        return len(self.levels)

    def means(self, values: Array) -> Array:
        """Means of each group of the columns of `values` (n, k): (J, k)."""
        first = np.empty(self.count, dtype=np.int64)
        first[self.group[::-1]] = np.arange(len(self.group))[::-1]
        base = values[first]  # sums of differences from a row of the group keep digits where values are large
        shifted = values - base[self.group]
        sums = [np.bincount(self.group, shifted[:, k], self.count) for k in range(values.shape[1])]
        return base + np.array(sums).reshape(values.shape[1], -1).T / self.sizes[:, None]

    def deviations(self, values: Array) -> Array:
        """Columns less the means of their groups; exactly zero where a column is constant within all groups."""
        out = values - self.means(values)[self.group]
        noise = np.abs(out).max(axis=0, initial=0.0) <= CONSTANT * np.abs(values).max(axis=0, initial=0.0)
        out[:, noise] = 0.0
        return out

    @cached_property
    def predictors(self) -> list[int]:
        """Columns of X that are neither the intercept nor effects of periods."""
        return [i for i, name in enumerate(self.names) if name != "Intercept" and not self.period[i]]

    @cached_property
    def constant(self) -> list[int]:
        """Predictors that do not change within any group."""
        flat = np.all(self.deviations(self.X) == 0.0, axis=0)
        return [i for i in self.predictors if flat[i]]

    @cached_property
    def inside(self) -> list[int]:
        """Predictors that the effects of groups and periods, and the predictors before them, leave something of."""
        order = [*np.flatnonzero(self.period), *self.predictors]
        lost = dependent_columns(self.deviations(self.X[:, order]))
        return [i for at, i in enumerate(order) if at not in lost and not self.period[i]]

    @cached_property
    def shift(self) -> list[int]:
        """Columns whose group means can be added to X: of predictors that have a within estimate, and of periods."""
        order = [*np.flatnonzero(self.period), *self.inside]
        added = self.means(self.X[:, order])[self.group]
        scale = np.abs(added).max(axis=0, initial=0.0)
        level = np.abs(added - added[0]).max(axis=0, initial=0.0) <= CONSTANT * scale
        added[:, level] = 0.0
        lost = dependent_columns(np.column_stack([self.X, added]))
        return [i for at, i in enumerate(order) if self.X.shape[1] + at not in lost]

    @cached_property
    def shifted(self) -> list[int]:
        """Predictors among `shift`: those whose within and random-effects estimates can differ by themselves."""
        return [i for i in self.shift if not self.period[i]]

    @cached_property
    def across(self) -> tuple[Array, list[int]]:
        """Means of each group of y and X (J, 1 + p), and the columns of X whose means are independent."""
        means = self.means(np.column_stack([self.y, self.X]))
        level = np.ptp(means, axis=0) <= CONSTANT * np.abs(means).max(axis=0)
        means[:, level] = means[
            0, level
        ]  # shares of periods in a balanced panel: constant, so that the intercept has them
        lost = dependent_columns(means[:, 1:])
        return means, [i for i in range(len(self.names)) if i not in lost]

    @property
    def spare(self) -> int:
        """Residual degrees of freedom between groups: groups less coefficients that their means determine."""
        return self.count - len(self.across[1])

    def clusters(self, kind: str) -> list[Codes]:
        """Codes of the clusters whose rows may be correlated; none for independent rows."""
        if kind == "group":
            return [self.group]
        if kind != "group+time":
            return []
        assert self.time is not None  # checked with the options
        both = np.unique(self.group.astype(np.int64) * (int(self.time.max()) + 1) + self.time, return_inverse=True)[1]
        return [self.group, self.time, both.astype(np.int32)]


def rows_of(design: Design, time: Codes | None, prefix: str) -> PanelRows:
    """The panel behind a design whose last term is a random intercept; `prefix` begins names of effects of periods."""
    names = design.names
    if "Intercept" not in names:
        raise OptionError(
            "panel() needs an intercept, for groups are deviations from it; leave the 0 out of the formula"
        )
    period = np.array([bool(prefix) and _of_period(name, prefix) for name in names])
    term = design.terms[-1]
    return PanelRows(design.y, design.X, names, term.codes, term.levels, time, period)


def _of_period(name: str, prefix: str) -> bool:
    return name.startswith(prefix) and name.endswith("]") and name.count("[") == 1


@dataclass(frozen=True, eq=False)
class LeastSquares:
    """A regression by least squares.

    Attributes
    ----------
    coef : ndarray (p,)
    bread : ndarray (p, p)
        Inverse of X'X.
    residuals : ndarray (n,)
    X : ndarray (n, p)
    """

    coef: Array
    bread: Array
    residuals: Array
    X: Array

    @property
    def df(self) -> int:
        """Residual degrees of freedom."""
        return int(self.X.shape[0] - self.X.shape[1])

    @property
    def variance(self) -> float:
        """Residual variance."""
        return float(self.residuals @ self.residuals) / self.df

    def vcov(self, kind: str, clusters: Sequence[Codes] = ()) -> Array:
        """Covariance (p, p): "iid", "hetero" (HC1), else by clusters.

        Clusters take the small-sample factor ``G / (G - 1) * (n - 1) / (n - p)`` of Stata; two ways of clustering are added
        and their intersection taken off, with the smaller G (Cameron, Gelbach & Miller 2011, J. Bus. Econ. Stat. 29, 238).
        """
        if kind == "iid":
            return self.variance * self.bread
        n = len(self.X)
        scores = self.X * self.residuals[:, None]
        if kind == "hetero":
            return n / self.df * self.bread @ (scores.T @ scores) @ self.bread
        G = cluster_count(clusters)
        meat = sum(sign * _meat(scores, codes) for sign, codes in zip((1, 1, -1), clusters, strict=False))
        return np.asarray(G / (G - 1) * (n - 1) / self.df * self.bread @ meat @ self.bread)

    def jackknife(self, codes: Codes) -> Array | None:
        """Covariance (p, p) by leaving out one cluster at a time (CR3); None where one alone determines a coefficient.

        For tests with few clusters, where sums of scores are too small. Bell & McCaffrey (2002), Survey Methodology 28, 169.
        """
        G, p = int(codes.max()) + 1, self.X.shape[1]
        scale = 1 / np.sqrt(np.diag(self.bread))
        X = self.X / scale
        pairs = [np.bincount(codes, X[:, i] * X[:, j], G) for i in range(p) for j in range(p)]
        left = X.T @ X - np.array(pairs).T.reshape(G, p, p)
        if np.linalg.eigvalsh(left)[:, 0].min() <= 1e-12:
            return None
        scores = np.array([np.bincount(codes, column, G) for column in (X * self.residuals[:, None]).T]).T
        moves = np.linalg.solve(left, scores[:, :, None])[:, :, 0] / scale
        return np.asarray((G - 1) / G * (moves.T @ moves))


def cluster_count(clusters: Sequence[Codes]) -> int:
    """The smaller number of clusters of one or two ways of clustering."""
    return min(int(codes.max()) + 1 for codes in clusters[:2])


def _meat(scores: Array, codes: Codes) -> Array:
    sums = np.array([np.bincount(codes, column) for column in scores.T])
    return np.asarray(sums @ sums.T)


def least_squares(X: Array, y: Array) -> LeastSquares:
    """Regress y (n,) on the columns of X (n, p), which are independent."""
    scale = np.linalg.norm(X, axis=0)
    Q, R = np.linalg.qr(X / scale)
    inverse = np.linalg.solve(R, np.eye(X.shape[1])) / scale[:, None]
    coef = inverse @ (Q.T @ y)
    return LeastSquares(coef, inverse @ inverse.T, y - X @ coef, X)
