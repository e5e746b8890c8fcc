"""Trees and probabilities made at random, and a classifier that takes its rows for the probabilities of the leaves."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from hypothesis import strategies as st
from sklearn.base import BaseEstimator

from multilevel.taxonomy.decisions import DecisionVerbs
from multilevel.taxonomy.tree import Taxonomy


class Simulated(DecisionVerbs, BaseEstimator):  # type: ignore[misc]
    """The verbs on given probabilities: X is what `_leaf_probabilities` answers."""

    def __init__(self, tree: Taxonomy, shares: Any = None) -> None:
        self.tree = tree
        self.shares = shares
        self.tree_ = tree
        self.classes_ = np.array([tree.labels[node] for node in tree.leaves], dtype=object)
        count = len(tree.leaves)
        self.class_shares_ = np.full(count, 1.0 / count) if shares is None else np.asarray(shares, dtype=float)

    def fit(self) -> Simulated:
        return self

    def _leaf_probabilities(self, X: Any) -> Any:
        return np.asarray(X, dtype=np.float64)

    def _rows(self, X: Any) -> Any:
        return sp.csr_array(np.asarray(X))

    def _read_labels(self, y: Any, rows: int, tree: Any = None) -> Any:
        return self.tree_, self.tree_.nodes_of(y)

    def classes_at(self, level: Any = None) -> Any:
        return np.array([self.tree_.labels[node] for node in self.tree_.at_level(level)], dtype=object)


@st.composite
def trees(draw: Any, most: int = 12) -> Taxonomy:
    """Trees of any shape with at least two leaves, single children and leaves at several depths among them."""
    count = draw(st.integers(2, most))
    parent, path = [-1], [0]
    for node in range(1, count):
        keep = draw(st.integers(0, len(path)))
        path = path[:keep]
        parent.append(path[-1] if path else -1)
        path.append(node)
    if len(set(range(count)) - set(parent)) < 2:
        parent.append(-1)
    return Taxonomy([f"n{k}" for k in range(len(parent))], parent)


def simplex(tree: Taxonomy, rows: int, seed: int, sharpness: float = 0.5) -> Any:
    """Probabilities of the leaves, (rows, leaves)."""
    return np.random.default_rng(seed).dirichlet(np.full(len(tree.leaves), sharpness), rows)


def leaf_sets(tree: Taxonomy) -> list[set[int]]:
    """Numbers of the leaves below each node and, as the last, the root: from the paths alone."""
    leaf_paths = [tree.paths[node] for node in tree.leaves]
    return [{k for k, leaf in enumerate(leaf_paths) if leaf[: len(path)] == path} for path in [*tree.paths, ()]]


THREE = Taxonomy.from_paths(
    [(a, b, c) for a in "AB" for b in (a + "1", a + "2", a + "3") for c in (b + "x", b + "y")] + [("C",), ("D", "D1")]
)
