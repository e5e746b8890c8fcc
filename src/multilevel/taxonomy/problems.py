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

    def rows(self, whole: Taxonomy, nodes: Ints) -> tuple[npt.NDArray[np.intp], Ints]:
        """The rows whose labels tell something here, and their labels as nodes of this tree."""
        if self.above is None:
            return np.arange(len(nodes)), nodes
        below = np.full(len(whole), -1, dtype=np.int32)
        for k, child in enumerate(self.nodes):
            below[child : child + _size(whole, child)] = k
        local = below[nodes]
        which = np.flatnonzero(local >= 0)
        return which, local[which]


def _size(tree: Taxonomy, node: int) -> int:
    """Nodes at and below a node: they follow each other."""
    after = node + 1
    while after < len(tree) and tree.depth[after] > tree.depth[node]:
        after += 1
    return int(after - node)


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
    for local in locals_:
        which, labels = local.rows(tree, fit.nodes)
        if not len(which):
            continue
        if local.above is None:
            own, features, group = fit, None, fit.group
            later = held_out
        else:
            x, features = _own_features(fit.x[which])
            group = fit.group[features]
            own = Rows(x, labels, fit.weight[which], group)
            later = _held_out(tree, local, held_out, features, group)
        objective = _objective(local.tree, own, threads)
        other = None if later is None or not later.x.shape[0] else _objective(local.tree, later, threads)
        yield LocalPiece(local, features, Piece(objective, other, shape.on(local.nodes), group, objective.start()))


def _objective(tree: Taxonomy, rows: Rows, threads: int) -> Objective:
    return Objective(tree, rows.x, rows.nodes, rows.weight, rows.group, rows.offset, threads)


def _held_out(
    tree: Taxonomy, local: LocalTree, rows: Rows | None, features: npt.NDArray[np.intp], group: Ints
) -> Rows | None:
    if rows is None:
        return None
    which, labels = local.rows(tree, rows.nodes)
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
