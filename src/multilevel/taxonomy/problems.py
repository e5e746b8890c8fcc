"""The independent problems a classifier consists of: one softmax over all leaves, or one over the children of each node."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from .objective import Objective
from .scales import Piece, ScaleShape
from .tree import Taxonomy

__all__ = ["LocalTree", "Rows", "local_trees", "pieces"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Rows:
    """Rows to learn from.

    Attributes
    ----------
    x : csr_array (rows, features)
    nodes : int32 array (rows,)
        Node of each row's label.
    weight : float64 array (rows,)
    group : int32 array (features,)
        Group of each feature.
    offset : array (leaves,), optional
        Added to the logits; one softmax over all leaves only.
    """

    x: Any
    nodes: Ints
    weight: Floats
    group: Ints
    offset: npt.NDArray[Any] | None = None

    def take(self, which: npt.NDArray[Any]) -> Rows:
        return Rows(self.x[which], self.nodes[which], self.weight[which], self.group, self.offset)


@dataclass(frozen=True)
class LocalTree:
    """A tree over which one softmax goes, and the nodes of the whole tree that are its own.

    Attributes
    ----------
    tree : Taxonomy
    nodes : int32 array
    above : int or None
        The node whose children these are; -1 the root; None: the whole tree.
    """

    tree: Taxonomy
    nodes: Ints
    above: int | None

    def rows(self, order: Order) -> tuple[npt.NDArray[np.intp], Ints]:
        """The rows whose labels tell something here, and their labels as nodes of this tree."""
        if self.above is None:
            return np.arange(len(order.nodes)), order.nodes
        end = len(order.end) if self.above < 0 else order.end[self.above]
        which = np.sort(order.by_node[slice(*np.searchsorted(order.sorted, [self.above + 1, end]))])
        return which, (np.searchsorted(self.nodes, order.nodes[which], side="right") - 1).astype(np.int32)


class Order:
    """Rows in the order of their labels' nodes: what lies below a node is a run of them.

    Attributes
    ----------
    nodes : int32 array (rows,)
    by_node, sorted : arrays (rows,)
        The rows sorted by node, and these nodes.
    end : int array (nodes of the tree,)
        Where the nodes at and below each node end.
    """

    def __init__(self, tree: Taxonomy, nodes: Ints) -> None:
        self.nodes = nodes
        self.end = np.arange(1, len(tree) + 1)
        for node in range(len(tree) - 1, -1, -1):
            if (above := tree.parent[node]) >= 0:
                self.end[above] = max(self.end[above], self.end[node])
        self.by_node: npt.NDArray[np.intp] = np.argsort(nodes, kind="stable")
        self.sorted: Ints = nodes[self.by_node]


def local_trees(tree: Taxonomy, likelihood: str) -> list[LocalTree]:
    """The trees of the softmaxes: `flat`, or `nested`: one per node with at least two children."""
    if likelihood == "flat":
        return [LocalTree(tree, np.arange(len(tree), dtype=np.int32), None)]
    families = [(-1, tree.top), *enumerate(tree.children)]
    return [
        LocalTree(Taxonomy([tree.names[k] for k in below], [-1] * len(below)), np.array(below, dtype=np.int32), above)
        for above, below in families
        if len(below) > 1
    ]


@dataclass
class LocalPiece:
    """A piece of the fit with where it belongs: its nodes, and the features that occur in its rows."""

    local: LocalTree
    features: npt.NDArray[np.intp] | None
    piece: Piece


def pieces(
    tree: Taxonomy, locals_: list[LocalTree], shape: ScaleShape, fit: Rows, held_out: Rows | None, threads: int
) -> Iterator[LocalPiece]:
    """Problems with rows of their own; a node none of whose rows says which child is left out."""
    order, later_order = Order(tree, fit.nodes), None if held_out is None else Order(tree, held_out.nodes)
    for local in locals_:
        which, labels = local.rows(order)
        if not len(which):
            continue
        if local.above is None:
            own, features, group = fit, None, fit.group
            later = held_out
        else:
            x, features = _own_features(fit.x[which])
            group = fit.group[features]
            own = Rows(x, labels, fit.weight[which], group)
            later = _held_out(local, held_out, later_order, features, group)
        objective = _objective(local.tree, own, threads)
        other = None if later is None or not later.x.shape[0] else _objective(local.tree, later, threads)
        yield LocalPiece(local, features, Piece(objective, other, shape.on(local.nodes), group, objective.start()))


def _objective(tree: Taxonomy, rows: Rows, threads: int) -> Objective:
    return Objective(tree, rows.x, rows.nodes, rows.weight, rows.group, rows.offset, threads)


def _held_out(
    local: LocalTree, rows: Rows | None, order: Order | None, features: npt.NDArray[np.intp], group: Ints
) -> Rows | None:
    if rows is None or order is None:
        return None
    which, labels = local.rows(order)
    return Rows(columns_of(rows.x[which], features), labels, rows.weight[which], group)


def _own_features(x: Any) -> tuple[Any, npt.NDArray[np.intp]]:
    """Rows with only the columns that occur in them."""
    features, index = np.unique(x.indices, return_inverse=True)
    out = sp.csr_array((x.data, index.astype(np.int32), x.indptr), shape=(x.shape[0], len(features)))
    return out, features.astype(np.intp)


def columns_of(x: Any, features: npt.NDArray[np.intp]) -> Any:
    """Some columns of sparse rows, in order."""
    place = np.full(x.shape[1], -1, dtype=np.int64)
    place[features] = np.arange(len(features))
    column = place[x.indices]
    kept = column >= 0
    counts = np.concatenate([[0], np.cumsum(kept)])
    start = counts[np.asarray(x.indptr, dtype=np.int64)]
    return sp.csr_array((x.data[kept], column[kept].astype(np.int32), start), shape=(x.shape[0], len(features)))
