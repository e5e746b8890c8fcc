"""Numbers an estimator's options stand for: weights of classes, first scales, shares; and arrays of labels."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import OptionError
from .checks import one_of, positive
from .problems import Rows
from .scales import ScaleShape
from .tree import Taxonomy

__all__ = ["given_scales", "label_array", "leaf_shares", "median_length", "node_factors"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]


def median_length(rows: Rows) -> float:
    """Weighted median of the lengths of the rows that have a feature; 1 if none has."""
    lengths = np.sqrt(np.asarray(rows.x.multiply(rows.x).sum(axis=1), dtype=np.float64)).ravel()
    order = np.argsort(lengths)[np.sort(lengths) > 0]
    if not len(order):
        return 1.0
    reached = np.cumsum(rows.weight[order])
    return float(lengths[order[np.searchsorted(reached, 0.5 * reached[-1])]])


def leaf_shares(tree: Taxonomy, by_node: Floats) -> Floats:
    """Share of each leaf; the weight of inner labels goes to the leaves below as these are shared out, else evenly."""
    weight = by_node[tree.leaves].copy()
    for node in np.flatnonzero((tree.leaf_of < 0) & (by_node > 0))[::-1]:
        below = slice(tree.first[node], tree.last[node])
        own = weight[below].sum()
        weight[below] += by_node[node] * (weight[below] / own if own > 0 else 1.0 / (below.stop - below.start))
    if not weight.sum() > 0:  # all classes that had items were dropped
        return np.full(len(weight), 1.0 / len(weight))
    return np.asarray(weight / weight.sum())


def node_factors(tree: Taxonomy, nodes: Ints, weight: Floats, class_weight: Any) -> Floats:
    """Factor of the weights of each node's items."""
    out = np.ones(len(tree))
    if class_weight is None:
        return out
    if isinstance(class_weight, str):
        one_of("class_weight", class_weight, ("balanced",))
        total = np.bincount(nodes, weight, len(tree))
        used = total > 0
        out[used] = weight.sum() / (used.sum() * total[used])
        return out
    if not isinstance(class_weight, Mapping):
        raise OptionError(f"class_weight={class_weight!r} must be None, 'balanced' or a dict of weights by class")
    given = {tree.node(label): value for label, value in class_weight.items()}
    for label, value in class_weight.items():
        if not (isinstance(value, (int, float, np.number)) and np.isfinite(value) and value >= 0):
            raise OptionError(f"class_weight of {label!r} is {value!r}: give a number that is not negative")
    for node in range(len(tree)):
        above = tree.parent[node]
        out[node] = given.get(node, out[above] if above >= 0 else 1.0)
    return out


def given_scales(given: Mapping[Any, float], shape: ScaleShape, tree: Taxonomy, first: Floats) -> Floats:
    out = first.copy()
    for name, value in given.items():
        key = tree.levels[name - 1] if isinstance(name, int) and 1 <= name <= len(tree.levels) else name
        key = f"below {key}" if key not in shape.names and f"below {key}" in shape.names else key
        if key not in shape.names:
            raise OptionError(
                f"scales: {name!r} has no scale here; there are {', '.join(repr(n) for n in shape.names)}"
            )
        out[shape.names.index(key)] = positive(f"the scale of {name!r}", value, 1)[0]
    return out


def label_array(labels: Sequence[Hashable]) -> npt.NDArray[Any]:
    """Labels as an array of their own kind; of objects where kinds are mixed."""
    kinds = {type(label) for label in labels}
    return np.array(labels) if len(kinds) == 1 and kinds.isdisjoint({tuple}) else np.array(labels, dtype=object)
