"""What scores need of labels and probabilities: nodes' overlap along the tree, and numbers of a level's classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import DataError, OptionError
from .tree import Taxonomy

__all__ = [
    "ChancesAt", "LabelsAt", "ReliabilityBins", "averages", "chances_at", "cut_off", "known_items", "labels_at",
    "overlap", "reliability_bins", "risk_curve",
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


def labels_at(tree: Taxonomy, truth: Ints, predicted: Ints, level: Level) -> LabelsAt:
    classes, known, numbers = _known_at(tree, truth, level)
    found = _numbers_of(tree, classes)[tree.raised(predicted, level)]
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
    """Which items' labels reach a level: whole ones, and partial ones that end there or below."""
    return _numbers_of(tree, tree.at_level(level))[tree.raised(truth, level)] >= 0


def _numbers_of(tree: Taxonomy, classes: Ints) -> npt.NDArray[np.intp]:
    numbers = np.full(len(tree), -1, dtype=np.intp)
    numbers[classes] = np.arange(len(classes))
    return numbers


def averages(tree: Taxonomy, truth: Ints, predicted: Ints, average: str) -> tuple[float, float, float]:
    """Hierarchical precision, recall and F1."""
    if average not in ("micro", "macro"):
        raise OptionError(f"average={average!r} is not known: take 'micro' or 'macro'")
    shared, deep, true = overlap(tree, truth, predicted)
    if average == "micro":
        shared, deep, true = (np.array([part.sum()]) for part in (shared, deep, true))
    # 2 P R / (P + R) with P = shared / deep, R = shared / true
    return float(np.mean(shared / deep)), float(np.mean(shared / true)), float(np.mean(2 * shared / (deep + true)))


def overlap(tree: Taxonomy, truth: Ints, predicted: Ints) -> tuple[Ints, Ints, Ints]:
    """Depth of each item's lowest common ancestor, of its prediction as far as the truth is known, and of the truth."""
    cut = cut_off(tree, predicted, truth)
    depth = np.append(tree.depth, 0)  # of the root, -1
    a, b = cut.copy(), truth.copy()
    while np.any(apart := a != b):
        up_a, up_b = apart & (depth[a] >= depth[b]), apart & (depth[b] >= depth[a])
        a[up_a], b[up_b] = tree.parent[a[up_a]], tree.parent[b[up_b]]
    return depth[a], tree.depth[cut], tree.depth[truth]


def cut_off(tree: Taxonomy, predicted: Ints, truth: Ints) -> Ints:
    """Predictions no deeper than the truth is known: whole labels, which are leaves, leave them as they are."""
    known = np.where(tree.leaf_of[truth] >= 0, len(tree.levels), tree.depth[truth])
    out = predicted.copy()
    while np.any(deep := tree.depth[out] > known):
        out[deep] = tree.parent[out[deep]]
    return out
