"""What scores need of labels and probabilities: nodes' overlap along the tree, and numbers of a level's classes.

True labels are nodes; predictions may also be the root, `ROOT`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError, OptionError
from .decisions import Step
from .labels import blank, distinct_labels, label_columns
from .stopping import ROOT
from .tree import Taxonomy

__all__ = [
    "ChancesAt", "LabelsAt", "ReliabilityBins", "averages", "chances_at", "cut_off", "known_items", "labels_at",
    "overlap", "predicted_nodes", "raised", "reliability_bins", "risk_curve", "shares_below",
]  # fmt: skip

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]
Level = int | str | None

LEAST = float(np.finfo(np.float64).eps)  # probabilities below count as this in a logarithm, as in scikit-learn


@dataclass(frozen=True)
class LabelsAt:
    """Labels of the items that are known at a level: numbers of its classes, -1 for a prediction that stopped above."""

    classes: Ints
    known: Bools
    truth: npt.NDArray[np.intp]
    predicted: npt.NDArray[np.intp]

    @property
    def right(self) -> Bools:
        return np.asarray(self.truth == self.predicted)

    @property
    def accuracy(self) -> float:
        return float(np.mean(self.right))

    @property
    def macro_f1(self) -> float:
        count = len(self.classes)
        true = np.bincount(self.truth, minlength=count)
        given = np.bincount(self.predicted[self.predicted >= 0], minlength=count)
        both = np.bincount(self.truth[self.right], minlength=count)
        occur = true + given > 0
        return float(np.mean(2 * both[occur] / (true + given)[occur]))


@dataclass(frozen=True)
class ChancesAt(LabelsAt):
    """With the probabilities of the level's classes, (known items, classes); predicted are the most probable ones."""

    p: Floats

    @property
    def confidence(self) -> Floats:
        return np.asarray(self.p.max(axis=1))

    @property
    def losses(self) -> Floats:
        return np.asarray(-np.log(np.maximum(self.p[np.arange(len(self.truth)), self.truth], LEAST)))

    @property
    def log_loss(self) -> float:
        return float(np.mean(self.losses))

    @property
    def brier(self) -> float:
        of_truth = self.p[np.arange(len(self.truth)), self.truth]
        return float(np.mean(np.einsum("ij,ij->i", self.p, self.p) - 2 * of_truth + 1))


@dataclass(frozen=True)
class ReliabilityBins:
    """Bins by the probability of the most probable class, empty ones left out; arrays (bins,)."""

    low: Floats
    high: Floats
    items: npt.NDArray[np.intp]
    confidence: Floats
    accuracy: Floats

    @property
    def error(self) -> float:
        return float(np.average(np.abs(self.accuracy - self.confidence), weights=self.items))


def reliability_bins(found: ChancesAt, bins: int, equal: str) -> ReliabilityBins:
    """Bins of equal width, open below and closed above, or of equally many items."""
    if not isinstance(bins, (int, np.integer)) or isinstance(bins, bool) or bins < 1:
        raise OptionError(f"bins={bins!r} must be a whole number of at least 1")
    if equal not in ("width", "mass"):
        raise OptionError(f"equal={equal!r} is not known: take 'width' or 'mass'")
    sure = found.confidence
    inner = np.arange(1, bins) / bins
    edges = inner if equal == "width" else np.quantile(sure, inner)
    at = np.searchsorted(edges, sure, side="left")
    items = np.bincount(at, minlength=bins)
    full = np.flatnonzero(items)
    bounds = np.concatenate([[0.0], edges, [1.0]])
    if equal == "mass":
        bounds[[0, -1]] = sure.min(), sure.max()
    totals = [np.bincount(at, values, bins)[full] / items[full] for values in (sure, found.right)]
    return ReliabilityBins(bounds[full], bounds[full + 1], items[full], totals[0], totals[1])


def risk_curve(found: ChancesAt) -> tuple[Floats, Floats, Floats]:
    """Threshold, coverage and risk at each probability that occurs, the largest first."""
    order = np.argsort(-found.confidence, kind="stable")
    sure = found.confidence[order]
    wrong = np.cumsum(~found.right[order])
    last = np.flatnonzero(np.append(sure[1:] != sure[:-1], True))
    return sure[last], (last + 1) / len(sure), wrong[last] / (last + 1)


def predicted_nodes(tree: Taxonomy, predicted: Any, separator: str | None) -> Ints:
    """Node of each prediction, `ROOT` where it is missing: None, (), or blank in all columns.

    Parameters
    ----------
    tree : Taxonomy
    predicted : labels (items,) or (items, levels), or a list of paths of Steps
    separator : str, optional

    Raises
    ------
    DataError
        A label that is not in the tree, or one below a blank.
    """
    names = _without_steps(predicted)
    columns = label_columns(names)
    at_root = np.all([[blank(label) for label in column] for column in columns], axis=0)
    out, said = np.full(len(at_root), ROOT, dtype=np.int32), np.flatnonzero(~at_root)
    if len(said) in (0, len(out)):
        return tree.nodes_of(names, separator) if len(said) else out
    # rows of the root repeat the row before, so that messages name the others by their own numbers
    rows = said[np.maximum(np.searchsorted(said, np.arange(len(out)), side="right") - 1, 0)]
    filled = [np.asarray(column, dtype=object)[rows] for column in columns]
    codes, unique = distinct_labels(filled[0] if len(filled) == 1 else np.column_stack(filled), separator)
    for k, label in enumerate(unique):
        own = said[codes[said] == k]
        try:
            out[own] = tree.node(label, separator)
        except DataError as fault:
            raise DataError(f"row {own[0]}: {fault}") from None
    return out


def _without_steps(predicted: Any) -> Any:
    """Paths of Steps as paths of names; () as None."""
    objects = getattr(predicted, "ndim", 0) == 1 and getattr(getattr(predicted, "dtype", None), "kind", "") == "O"
    if not objects and not isinstance(predicted, list):
        return predicted
    rows = list(predicted)
    if not any(isinstance(row, tuple) for row in rows):
        return predicted
    return [_names_of(row) if isinstance(row, tuple) else row for row in rows]


def _names_of(path: tuple[Any, ...]) -> tuple[Any, ...] | None:
    return tuple(part.name if isinstance(part, Step) else part for part in path) or None


def raised(tree: Taxonomy, nodes: Ints, level: Level) -> Ints:
    """`Taxonomy.raised` for predictions: the root stays."""
    out = nodes.copy()
    out[nodes != ROOT] = tree.raised(nodes[nodes != ROOT], level)
    return out


def shares_below(tree: Taxonomy, nodes: Ints) -> Floats:
    """Share of all leaves that lies below each node or root."""
    below = np.append(tree.last - tree.first, len(tree.leaves))  # the root, -1, is the last
    return np.asarray(below[nodes] / len(tree.leaves))


def labels_at(tree: Taxonomy, truth: Ints, predicted: Ints, level: Level) -> LabelsAt:
    classes, known, numbers = _known_at(tree, truth, level)
    found = _numbers_of(tree, classes)[raised(tree, predicted, level)]
    return LabelsAt(classes, known, numbers[known], found[known])


def chances_at(tree: Taxonomy, truth: Ints, p: Floats, level: Level) -> ChancesAt:
    classes, known, numbers = _known_at(tree, truth, level)
    chances = p[known] if len(classes) == p.shape[1] else tree.sums(p[known], classes)
    return ChancesAt(classes, known, numbers[known], chances.argmax(axis=1), chances)


def _known_at(tree: Taxonomy, truth: Ints, level: Level) -> tuple[Ints, Bools, npt.NDArray[np.intp]]:
    """Classes of a level, which items are known there, and the number of each item's class."""
    classes = tree.at_level(level)
    numbers = _numbers_of(tree, classes)[tree.raised(truth, level)]
    if not np.any(numbers >= 0):
        name = tree.levels[tree.level(level) - 1]
        raise DataError(f"no label reaches the level {name!r}: all are partial and end above it; take a level above")
    return classes, numbers >= 0, numbers


def known_items(tree: Taxonomy, truth: Ints, level: Level) -> Bools:
    """Which items' labels, or predictions, reach a level: leaves, and inner nodes that lie there or below."""
    return _numbers_of(tree, tree.at_level(level))[raised(tree, truth, level)] >= 0


def _numbers_of(tree: Taxonomy, classes: Ints) -> npt.NDArray[np.intp]:
    numbers = np.full(len(tree) + 1, -1, dtype=np.intp)  # the root, -1, is the last
    numbers[classes] = np.arange(len(classes))
    return numbers


def averages(tree: Taxonomy, truth: Ints, predicted: Ints, average: str) -> tuple[float, float, float]:
    """Hierarchical precision, recall and F1. Where no class is predicted, none is false: the precision is 1."""
    if average not in ("micro", "macro"):
        raise OptionError(f"average={average!r} is not known: take 'micro' or 'macro'")
    shared, deep, true = overlap(tree, truth, predicted)
    if average == "micro":
        shared, deep, true = (np.array([part.sum()]) for part in (shared, deep, true))
    # 2 P R / (P + R) with P = shared / deep, R = shared / true
    precision = np.where(deep > 0, shared / np.maximum(deep, 1), 1.0)
    return float(np.mean(precision)), float(np.mean(shared / true)), float(np.mean(2 * shared / (deep + true)))


def overlap(tree: Taxonomy, truth: Ints, predicted: Ints) -> tuple[Ints, Ints, Ints]:
    """Depth of each item's lowest common ancestor, of its prediction as far as the truth is known, and of the truth."""
    cut = cut_off(tree, predicted, truth)
    depth = _depths(tree)
    a, b = cut.copy(), truth.copy()
    while np.any(apart := a != b):
        up_a, up_b = apart & (depth[a] >= depth[b]), apart & (depth[b] >= depth[a])
        a[up_a], b[up_b] = tree.parent[a[up_a]], tree.parent[b[up_b]]
    return depth[a], depth[cut], depth[truth]


def cut_off(tree: Taxonomy, predicted: Ints, truth: Ints) -> Ints:
    """Predictions no deeper than the truth is known: whole labels, which are leaves, leave them as they are."""
    known = np.where(tree.leaf_of[truth] >= 0, len(tree.levels), tree.depth[truth])
    depth, out = _depths(tree), predicted.copy()
    while np.any(deep := depth[out] > known):
        out[deep] = tree.parent[out[deep]]
    return out


def _depths(tree: Taxonomy) -> Ints:
    """Of the nodes, and as the last, which the number -1 takes, of the root."""
    return np.append(tree.depth, 0).astype(np.int32)
