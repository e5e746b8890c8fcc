"""What the training rows tell about each coefficient of a fitted tree softmax: cheap conditional variances.

Each feature is taken by itself, and the softmax's coupling between classes is left out: to a leaf k, feature j has the
information D_jk = sum of w_i x_ij^2 p_ik (1 - p_ik). Along the tree the Gaussian prior is then exact (belief propagation):
information goes up, J_v = D_v + sum over children of J_w / (1 + s_w^2 J_w); variances come down, with g = 1 / (1 + s^2 J_v),
Var(theta_v) = g s^2 + g^2 Var(theta_parent). The variances are conditional on all other features and too small where
classes compete for an item. What the rows tell (`online.Seen`) is kept with the fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from .fitting import FittedTree
from .online import Seen
from .problems import columns_of
from .tree import Taxonomy

__all__ = ["Information", "as_dense", "family"]

Floats = npt.NDArray[np.float64]


def family(tree: Taxonomy, node: int) -> tuple[int, ...]:
    """A node and its siblings, in order."""
    above = int(tree.parent[node])
    return tree.children[above] if above >= 0 else tree.top


def as_dense(values: Any) -> Floats:
    """An array or sparse matrix as a dense array of doubles."""
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values, dtype=np.float64)


@dataclass(frozen=True)
class Information:
    """Information of the training rows about coefficients.

    Attributes
    ----------
    fitted : FittedTree
    seen : Seen
        What was kept of the rows.
    group : int array (features,)
        Group of each feature.
    """

    fitted: FittedTree
    seen: Seen
    group: npt.NDArray[Any]

    def of_nodes(self, features: npt.NDArray[np.intp]) -> tuple[Floats, Floats]:
        """J, and the squares of the prior's scales, of some features: (features, nodes) each."""
        tree, shape = self.fitted.tree, self.fitted.shape
        variance = shape.matrix(self.fitted.scales)[:-1][self.group[features]] ** 2
        told = as_dense(self.seen.curvature[features])
        if self.fitted.likelihood == "nested":
            return told, variance
        up = np.zeros((len(features), len(tree)))
        up[:, tree.leaves] = np.maximum(told, 0.0)  # rows with partial labels take away
        for node in range(len(tree) - 1, -1, -1):
            above = tree.parent[node]
            if above >= 0:
                up[:, above] += up[:, node] / (1 + variance[:, node] * up[:, node])
        return up, variance

    def contrast(self, node: int, features: npt.NDArray[np.intp]) -> tuple[Floats, Floats]:
        """Standard deviation of a node's coefficients less the mean of its siblings', and its shrinkage: (features,) each."""
        tree = self.fitted.tree
        up, variance = self.of_nodes(features)
        g = 1 / (1 + variance * up)
        own = g * variance
        others = [k for k in family(tree, node) if k != node]
        parent = np.zeros(len(features))
        if self.fitted.likelihood == "flat":
            for k in tree.ancestors(node)[:-1]:
                parent = own[:, k] + g[:, k] ** 2 * parent
        pull = g[:, node] - g[:, others].mean(axis=1)
        spread = own[:, node] + own[:, others].sum(axis=1) / len(others) ** 2 + pull**2 * parent
        return np.sqrt(spread), g[:, node]

    def pooling(self, at_once: int = 1 << 21) -> Floats:
        """Mean shrinkage of each node's features, weighted by their squares among its items: (nodes,); 1 without items."""
        squares = sp.csr_array(_below(self.fitted.tree) @ self.seen.squares)
        nodes, width = squares.shape
        held, total = np.zeros(nodes), np.zeros(nodes)
        step = max(1, at_once // nodes)
        for first in range(0, width, step):
            features = np.arange(first, min(first + step, width))
            up, variance = self.of_nodes(features)
            count = columns_of(squares, features).tocoo()
            g = 1 / (1 + variance * up)
            held += np.bincount(count.row, count.data * g[count.col, count.row], nodes)
            total += np.bincount(count.row, count.data, nodes)
        return np.divide(held, total, out=np.ones(nodes), where=total > 0)


def _below(tree: Taxonomy) -> Any:
    """1 where a node is at or below another: csr_array (nodes, nodes)."""
    above = [tree.ancestors(node) for node in range(len(tree))]
    column = np.repeat(np.arange(len(tree)), [len(path) for path in above])
    return sp.csr_array((np.ones(len(column)), (np.concatenate(above), column)), shape=(len(tree), len(tree)))
