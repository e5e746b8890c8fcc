"""Trees that gain or lose classes, with the coefficients of a fit carried over to the nodes that stay."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from .fitting import FittedTree
from .scales import ScaleShape, scale_shape
from .tree import Path, Taxonomy

__all__ = ["carried", "is_sparse", "joined", "placed", "with_paths", "without"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]


def with_paths(tree: Taxonomy, paths: Iterable[Path]) -> tuple[Taxonomy, Ints]:
    """A tree with further classes, and the new number of each old node.

    A new class comes in its place where its siblings are in the order of their names, else last.
    """
    below = _families(tree)
    for path in paths:
        for k in range(len(path)):
            above, child = path[:k], path[: k + 1]
            below.setdefault(child, [])
            if child not in below[above]:
                _insert(below[above], child)
    return _renumbered(tree, below)


def without(tree: Taxonomy, node: int) -> tuple[Taxonomy, Ints]:
    """A tree without a node and all below it, and the new number of each old node (-1: gone)."""
    gone = tree.paths[node]
    below = {
        path: [c for c in under if c != gone] for path, under in _families(tree).items() if path[: len(gone)] != gone
    }
    return _renumbered(tree, below)


def joined(tree: Taxonomy, parts: Sequence[int], name: Hashable) -> tuple[Taxonomy, Ints]:
    """A tree with one leaf in the place of several siblings, and the new number of each old node."""
    below = _families(tree)
    above = tree.paths[parts[0]][:-1]
    path = (*above, name)
    gone = {tree.paths[part] for part in parts}
    below[above] = [child for child in below[above] if child not in gone]
    for child in gone:
        del below[child]
    below[path] = []
    _insert(below[above], path)
    out, kept = _renumbered(tree, below)
    kept[list(parts)] = out.paths.index(path)
    return out, kept


def _families(tree: Taxonomy) -> dict[Path, list[Path]]:
    below: dict[Path, list[Path]] = {(): [tree.paths[k] for k in tree.top]}
    below.update({tree.paths[v]: [tree.paths[k] for k in under] for v, under in enumerate(tree.children)})
    return below


def _insert(siblings: list[Path], child: Path) -> None:
    names: list[Any] = [path[-1] for path in siblings]
    try:
        ordered = all(a < b for a, b in zip(names, names[1:], strict=False))
        at = sum(name < child[-1] for name in names) if ordered else len(names)
    except TypeError:  # names of several kinds have no order
        at = len(names)
    siblings.insert(at, child)


def _renumbered(tree: Taxonomy, below: dict[Path, list[Path]]) -> tuple[Taxonomy, Ints]:
    deepest = max((len(path) for path in below), default=0)
    levels = [*tree.levels, *(f"level {k}" for k in range(len(tree.levels) + 1, deepest + 1))]
    grown = Taxonomy._numbered(below, levels, tree.separator)
    number = {path: node for node, path in enumerate(grown.paths)}
    return grown, np.array([number.get(path, -1) for path in tree.paths], dtype=np.int32)


def is_sparse(matrix: Any) -> bool:
    return bool(sp.issparse(matrix))


def placed(columns: Any, to: npt.NDArray[Any], count: int) -> Any:
    """Columns of an array or csr_array moved to places among `count`; -1 leaves one out, a place given twice adds up."""
    if is_sparse(columns):
        old = sp.coo_array(columns)
        kept = to[old.col] >= 0
        at = (old.row[kept], to[old.col[kept]])
        return sp.csr_array((old.data[kept], at), shape=(columns.shape[0], count))
    out = np.zeros((columns.shape[0], count), dtype=columns.dtype)
    for k, place in enumerate(to):
        if place >= 0:
            out[:, place] += columns[:, k]
    return out


def carried(fitted: FittedTree, tree: Taxonomy, kept: Ints, by: str, groups: Sequence[str]) -> FittedTree:
    """A fit on a changed tree: old nodes keep their deviations and scales, new ones have none.

    A scale that is new is the geometric mean of those there are.
    """
    shape = scale_shape(tree, by, groups, fitted.shape.intercept)
    deviations = placed(fitted.deviations, kept, len(tree))
    return replace(
        fitted,
        tree=tree,
        shape=shape,
        scales=_scales(fitted, shape, kept),
        deviations=deviations,
        _leaf_coefficients=None,
    )


def _scales(fitted: FittedTree, shape: ScaleShape, kept: Ints) -> Floats:
    old = fitted.shape
    out = np.full(len(shape.names), np.exp(np.mean(np.log(fitted.scales))))
    known = dict(zip(old.names, fitted.scales.tolist(), strict=True))
    for k, name in enumerate(shape.names):
        out[k] = known.get(name, out[k])
    for node in np.flatnonzero(kept >= 0):  # a scale may have a new name where a label became a path
        was, now = old.cell[:, node], shape.cell[:, kept[node]]
        both = (was >= 0) & (now >= 0)
        out[now[both]] = fitted.scales[was[both]]
    return out
