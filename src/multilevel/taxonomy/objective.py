"""The penalised log-likelihood of a tree softmax on some rows: the core's kernel with arrays of the right kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from ..errors import DataError
from .tree import Taxonomy

__all__ = ["Minimum", "Objective", "leaf_coefficients", "leaf_probabilities", "sparse_rows"]

Floats = npt.NDArray[np.float64]
Values = npt.NDArray[Any]  # float32 or float64, as the user chose
Ints = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Minimum:
    """Where minimisation ended.

    Attributes
    ----------
    w : array (features + 1, nodes)
        Whitened deviations; the last row is the intercepts'.
    value : float
        Negative log-likelihood plus half the squares of `w`.
    gap : float
        What `value` is above the minimum at most, as the quadratic model before the last step had it.
    evaluations : int
        Values with gradients, and products with the Hessian.
    converged : bool
    """

    w: Values
    value: float
    gap: float
    evaluations: int
    converged: bool


class Objective:
    """-sum of weighted log P(label) + |w|^2 / 2 over the deviations u = s w of a tree's nodes from their parents.

    Parameters
    ----------
    tree : Taxonomy
    x : scipy.sparse.csr_array (rows, features), float32 or float64
    nodes : int32 array (rows,)
        Node of each row's label, a leaf or not.
    weight : float64 array (rows,)
    group : int32 array (features,), optional
        Group of each feature, from 0; one group if None.
    offset : array (leaves,), optional
        Added to the logits.
    threads : int
    """

    def __init__(
        self,
        tree: Taxonomy,
        x: Any,
        nodes: Ints,
        weight: Floats,
        group: Ints | None = None,
        offset: npt.ArrayLike | None = None,
        threads: int = 1,
    ) -> None:
        from .. import _core

        self.dtype = x.dtype
        group = np.zeros(x.shape[1], dtype=np.int32) if group is None else np.ascontiguousarray(group, dtype=np.int32)
        groups = int(group.max()) + 1 if len(group) else 1
        shift = np.zeros(len(tree.leaves), dtype=x.dtype) if offset is None else np.asarray(offset, dtype=x.dtype)
        make = _core.TreeProblemFloat if x.dtype == np.float32 else _core.TreeProblemDouble
        start, index, value = sparse_parts(x)
        self.shape = (x.shape[1] + 1, len(tree))
        self.weight = np.ascontiguousarray(weight, dtype=np.float64)
        nodes = np.ascontiguousarray(nodes, dtype=np.int32)
        self._core = make(
            tree.parent,
            tree.leaf_of,
            tree.first,
            tree.last,
            start,
            index,
            value,
            nodes,
            self.weight,
            group,
            groups,
            shift,
            threads,
        )

    def start(self) -> Values:
        """Zero deviations."""
        return np.zeros(self.shape, dtype=self.dtype)

    def value(self, w: Values, scales: Floats, prior: bool = True) -> float:
        return float(self._core.value(w, scales, None, prior))

    def gradient(self, w: Values, scales: Floats, prior: bool = True) -> tuple[float, Values]:
        """Value and gradient by `w`; without the prior the negative log-likelihood alone."""
        gradient = np.empty(self.shape, dtype=self.dtype)
        value = float(self._core.value(w, scales, gradient, prior))
        return value, gradient

    def product(self, direction: Values, scales: Floats, prior: bool = True) -> Values:
        """Hessian at the `w` of the last value, times `direction`."""
        out = np.empty(self.shape, dtype=self.dtype)
        self._core.product(direction, scales, out, prior)
        return out

    def minimise(self, w: Values, scales: Floats, gap: float, most: int) -> Minimum:
        """Minimise from `w`, which is left alone, until the value is within `gap` of the minimum."""
        w = np.array(w, dtype=self.dtype, order="C")
        value, left, evaluations, converged = self._core.minimise(w, scales, gap, most)
        return Minimum(w, float(value), float(left), int(evaluations), bool(converged))

    def solve(
        self, right: Values, scales: Floats, start: Values | None = None, tolerance: float = 1e-3, most: int = 100
    ) -> Values:
        """Hessian^-1 `right` at the `w` of the last value, by conjugate gradients from `start`."""
        x = self.start() if start is None else np.array(start, dtype=self.dtype, order="C")
        self._core.solve(np.ascontiguousarray(right, dtype=self.dtype), scales, x, start is not None, tolerance, most)
        return x


def sparse_rows(x: Any, dtype: npt.DTypeLike) -> Any:
    """Rows as a csr_array of one dtype; sparse ones share their indices."""
    rows = sp.csr_array(x, dtype=dtype)
    if rows.nnz and not 0 <= rows.indices.min() <= rows.indices.max() < rows.shape[1]:
        far = int(rows.indices.max())
        raise DataError(f"X is a damaged sparse matrix: it has an entry in column {far}, and {rows.shape[1]} columns")
    if not rows.has_canonical_format:
        rows = rows.copy()
        rows.sum_duplicates()
    return rows


def sparse_parts(x: Any) -> tuple[npt.NDArray[np.int64], Ints, Values]:
    return (
        np.ascontiguousarray(x.indptr, dtype=np.int64),
        np.ascontiguousarray(x.indices, dtype=np.int32),
        np.ascontiguousarray(x.data),
    )


def leaf_coefficients(tree: Taxonomy, deviations: Values) -> Values:
    """Sums of the nodes' deviations (features + 1, nodes) down to the leaves: (features + 1, leaves)."""
    theta = node_coefficients(tree, deviations)
    return np.ascontiguousarray(theta[:, tree.leaves])


def node_coefficients(tree: Taxonomy, deviations: Values) -> Values:
    """Coefficients of every node, (features + 1, nodes): its deviation and those above it."""
    theta = deviations.T.copy()
    for node, above in enumerate(tree.parent):
        if above >= 0:
            theta[node] += theta[above]
    return theta.T


def leaf_probabilities(x: Any, coefficients: Values, threads: int = 1, offset: Floats | None = None) -> Floats:
    """Softmax over the leaves for each row by itself: (rows, leaves).

    Parameters
    ----------
    x : csr_array (rows, features)
    coefficients : array (features + 1, leaves)
        Of the dtype of `x`; the last row is the intercepts'.
    threads : int
    offset : float array (leaves,), optional
        Added to the intercepts.
    """
    from .. import _core

    leaves = coefficients.shape[1]
    stride = -(-leaves // 16) * 16
    padded = coefficients
    if stride != leaves:
        padded = np.zeros((coefficients.shape[0], stride), dtype=coefficients.dtype)
        padded[:, :leaves] = coefficients
    intercepts = padded[-1].copy()
    if offset is not None:
        intercepts[:leaves] += np.asarray(offset, dtype=intercepts.dtype)
    start, index, value = sparse_parts(x)
    out: Floats = _core.tree_probabilities(
        start, index, value, np.ascontiguousarray(padded[:-1]), intercepts, leaves, threads
    )
    return out
