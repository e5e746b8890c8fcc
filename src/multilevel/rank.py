"""Which columns of a model matrix the ones before them determine, by R's rule."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["TOLERANCE", "dependent_columns"]

TOLERANCE = (
    1e-7  # of lm(): what is left of a column after projecting out the earlier ones, relative to its length
)
_SURE = 1e-6  # squared; far above the rounding of cross-products


def dependent_columns(X: NDArray[np.float64]) -> set[int]:
    """Return the columns that lm() would give no coefficient: the later ones, the order of the rest stays."""
    n, p = X.shape
    if p == 0:
        return set()
    if n >= p and _surely_independent(X):
        return set()
    triangle: NDArray[np.float64] = np.asarray(
        np.linalg.qr(X, mode="r")
    )  # rotations keep lengths and angles of columns
    basis = np.empty((triangle.shape[0], 0))
    lost: set[int] = set()
    for index in range(p):
        column = triangle[:, index]
        length = _norm(column)
        rest = column
        for _ in range(2):  # once more, against cancellation
            rest = rest - basis @ (basis.T @ rest)
        left = _norm(rest)
        if length == 0.0 or left < TOLERANCE * length or basis.shape[1] >= triangle.shape[0]:
            lost.add(index)
        else:
            basis = np.column_stack([basis, rest / left])
    return lost


def _norm(values: NDArray[np.float64]) -> float:
    largest = float(np.abs(values).max(initial=0.0))
    return largest * float(np.linalg.norm(values / largest)) if largest > 0.0 else 0.0


def _surely_independent(X: NDArray[np.float64]) -> bool:
    """A cheap sufficient test: the pivots of the correlation-like matrix are far from zero."""
    with np.errstate(all="ignore"):
        cross = X.T @ X
        scale = np.sqrt(np.diag(cross))
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            return False
        try:
            pivots = np.diag(np.linalg.cholesky(cross / scale / scale[:, None]))
        except np.linalg.LinAlgError:
            return False
    return bool((pivots**2 > _SURE).all())
