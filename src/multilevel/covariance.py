"""Covariance structures of one random term: theta <-> Lambda, components, labels.

Theta follows lme4: the entries of the relative Cholesky factor, lower triangle, column by column; a diagonal structure
keeps the diagonal only. ``Cov(b) = sigma**2 * Lambda @ Lambda.T``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import OptionError

Array = NDArray[np.float64]

STRUCTURES = ("us", "diag")


@dataclass(frozen=True, slots=True)
class Structure:
    """How the k effects of one term covary.

    Parameters
    ----------
    kind : {"us", "diag"}
        Unstructured (all variances and correlations free) or diagonal (no correlations).
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

    def components(self) -> list[list[int]]:
        """Sets of effects that covary freely among themselves and not with the others."""
        if self.kind == "us":
            return [list(range(self.k))]
        return [[i] for i in range(self.k)]

    def entries(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows and columns of Lambda that theta fills, in theta's order."""
        if self.kind == "us":
            cols, rows = np.triu_indices(self.k)
            return rows, cols
        index = np.arange(self.k)
        return index, index

    @property
    def n_theta(self) -> int:
        """Number of free covariance parameters."""
        return self.k * (self.k + 1) // 2 if self.kind == "us" else self.k

    def to_lambda(self, theta: Array) -> Array:
        """(k, k) lower-triangular relative factor from this term's part of theta."""
        out = np.zeros((self.k, self.k))
        out[self.entries()] = theta
        return out

    def to_theta(self, factor: Array) -> Array:
        """Theta of a lower-triangular factor."""
        return factor[self.entries()]


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
