"""Scores of a classification into a tree: along the paths, and of labels and probabilities at each level.

Every function takes the tree (a `Taxonomy` or a fitted classifier), the true labels in any form that
`Taxonomy.nodes_of` takes, and either predicted labels or the leaves' probabilities as ``predict_proba(X)`` gives them.

Predicted labels may be inner nodes, as ``predict(X, stop=...)`` gives them, or paths of steps as ``predict_path`` does.
None or () is the root: it says nothing. It is right for every truth in `path_accuracy`, has the information 0, and adds no
class to hierarchical precision and recall: an item's own precision is then 1, since none of its predicted classes is
false, and its recall and F1 are 0. `accuracy` at a level takes it as wrong, like any answer that stopped above.

A true label that is an inner node is partial: what lies below it is not known. At a level below it the item is not
counted, and predictions for it are cut off at its depth. `scores` says how many these are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from ..errors import DataError, OptionError
from ..frame import like
from .level_scores import (
    ChancesAt,
    averages,
    chances_at,
    cut_off,
    known_items,
    labels_at,
    overlap,
    predicted_nodes,
    raised,
    reliability_bins,
    risk_curve,
    shares_below,
)
from .tree import Taxonomy

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "accuracy", "brier", "calibration_error", "f1", "information", "lca_distance", "log_loss", "macro_f1",
    "path_accuracy", "precision", "recall", "reliability", "risk_coverage", "scores", "small_classes",
]  # fmt: skip

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]
Level = int | str | None

OFF_ONE = 1e-3  # what a row's probabilities may miss one by
EDGES = (1, 3, 10, 30, 100, 300, 1000)  # where bins of the classes' training items begin
BINS = 15


# -- along the paths ------------------------------------------------------------------------------------------


def precision(tree: Any, y: Any, predicted: Any, average: str = "micro", *, separator: str | None = None) -> float:
    """Hierarchical precision: share of the predicted classes, ancestors included, that are true.

    Parameters
    ----------
    tree : Taxonomy or TaxonomyClassifier
    y : labels (items,) or (items, levels)
    predicted : labels (items,) or (items, levels), or list of paths
        What `predict` or `predict_path` answers. The root (None, ()) says no class: it adds none to the micro average, and
        its own precision is 1, in the micro average too where all predictions are the root.
    average : {"micro", "macro"}
        Sums over all items divided by each other, or the mean over items.
    separator : str, optional
        Splits labels into paths.

    Raises
    ------
    DataError
        True labels that are missing, labels not in the tree, as many true ones as predicted ones not given.

    References
    ----------
    Silla and Freitas (2011), A survey of hierarchical classification across different application domains, Data Mining
    and Knowledge Discovery 22; the same numbers as HiClass's, where names differ along each path and labels are whole.
    """
    return averages(*_two(tree, y, predicted, separator), average)[0]


def recall(tree: Any, y: Any, predicted: Any, average: str = "micro", *, separator: str | None = None) -> float:
    """Hierarchical recall: share of the true classes, ancestors included, that are predicted (0: root); as `precision`."""
    return averages(*_two(tree, y, predicted, separator), average)[1]


def f1(tree: Any, y: Any, predicted: Any, average: str = "micro", *, separator: str | None = None) -> float:
    """Hierarchical F1: harmonic mean of precision and recall, "macro" of each item's; as `precision`."""
    return averages(*_two(tree, y, predicted, separator), average)[2]


def lca_distance(tree: Any, y: Any, predicted: Any, *, separator: str | None = None) -> Floats:
    """Edges of the tree from each item's predicted class up to the lowest common ancestor and down to the true one.

    Returns
    -------
    array (items,)
        0 where right; 2 for a sibling; the true class's depth for the root.
    """
    shared, deep, true = overlap(*_two(tree, y, predicted, separator))
    return np.asarray(deep + true - 2 * shared, dtype=np.float64)


def path_accuracy(tree: Any, y: Any, predicted: Any, *, separator: str | None = None) -> float:
    """Share of the items whose predicted class is the true one or above it: no wrong turn, wherever it stopped.

    The root (None, ()) stands above every class and is right. What stop rules promise is this share.
    """
    shared, deep, _ = overlap(*_two(tree, y, predicted, separator))
    return float(np.mean(shared == deep))


def information(tree: Any, y: Any, predicted: Any, *, separator: str | None = None) -> float:
    """Mean information of the predictions: 1 for a right leaf, less the higher a right prediction stopped, 0 where wrong.

    A right prediction of a class with k of the tree's K leaves has log(K / k) / log(K) (Deng et al. 2012, Hedging your
    bets, CVPR): 0 for the root. For a partial label a prediction counts as far as it is known.
    """
    tree, truth, guess = _two(tree, y, predicted, separator)
    shared, deep, _ = overlap(tree, truth, guess)
    cut = cut_off(tree, guess, truth)
    told = -np.log(shares_below(tree, cut)) / np.log(len(tree.leaves))
    return float(np.mean(np.where(shared == deep, told, 0.0)))


# -- at a level -----------------------------------------------------------------------------------------------


def accuracy(tree: Any, y: Any, predicted: Any, level: Level = None, *, separator: str | None = None) -> float:
    """Share of right classes at a level, of the items whose label is known there.

    ``classifier.score`` differs where labels are partial: it keeps every row, as a score for model selection must, and
    counts a prediction below a partial label as right. Here rows that end above the level are left out, since whether the
    class is right there is not known; counted as right, they would raise the score without any merit of the model. With
    whole labels both are the same.

    Parameters
    ----------
    tree : Taxonomy or TaxonomyClassifier
    y, predicted : labels (items,) or (items, levels)
        Predictions below the level count as their ancestor; those above it, the root (None, ()) among them, have not said
        the class: wrong.
    level : int, str or None
        Depth from 1, name, or None for the deepest. A leaf that lies higher is a class of all levels below.
    separator : str, optional

    Raises
    ------
    DataError
        No item whose label is known at the level.
    """
    tree, truth, guess = _two(tree, y, predicted, separator)
    return labels_at(tree, truth, guess, level).accuracy


def macro_f1(tree: Any, y: Any, predicted: Any, level: Level = None, *, separator: str | None = None) -> float:
    """Mean F1 of the classes of a level that occur in the labels or the predictions; as `accuracy`."""
    tree, truth, guess = _two(tree, y, predicted, separator)
    return labels_at(tree, truth, guess, level).macro_f1


def log_loss(tree: Any, y: Any, p: Any, level: Level = None, *, separator: str | None = None) -> float:
    """Mean of minus the logarithm of the probability of the true class at a level.

    Parameters
    ----------
    tree : Taxonomy or TaxonomyClassifier
    y : labels (items,) or (items, levels)
    p : array (items, leaves)
        Probabilities of the leaves; summed over those below each class.
    level : int, str or None
    separator : str, optional

    Raises
    ------
    DataError
        Probabilities of another shape, negative, missing or not summing to one; no item known at the level.
    """
    return chances_at(*_with_p(tree, y, p, separator), level).log_loss


def brier(tree: Any, y: Any, p: Any, level: Level = None, *, separator: str | None = None) -> float:
    """Brier score at a level: mean over items of the squared errors summed over classes, 0 to 2; as `log_loss`."""
    return chances_at(*_with_p(tree, y, p, separator), level).brier


def calibration_error(
    tree: Any,
    y: Any,
    p: Any,
    level: Level = None,
    *,
    bins: int = BINS,
    equal: str = "width",
    separator: str | None = None,
) -> float:
    """Expected calibration error of the most probable class at a level.

    Mean over bins, weighted by their items, of the difference between the share that is right and the mean probability.

    Parameters
    ----------
    tree, y, p, level, separator
        As of `log_loss`.
    bins : int
    equal : {"width", "mass"}
        Bins of equal width, or of equally many items (items of the same probability stay together).

    References
    ----------
    Guo et al. (2017), On calibration of modern neural networks; Nixon et al. (2019), Measuring calibration in deep learning.
    """
    found = chances_at(*_with_p(tree, y, p, separator), level)
    return reliability_bins(found, bins, equal).error


def reliability(
    tree: Any,
    y: Any,
    p: Any,
    level: Level = None,
    *,
    bins: int = BINS,
    equal: str = "width",
    separator: str | None = None,
) -> pd.DataFrame:
    """The bins of `calibration_error`: low, high, items, confidence (mean probability), accuracy; empty ones left out."""
    found = reliability_bins(chances_at(*_with_p(tree, y, p, separator), level), bins, equal)
    columns = {"low": found.low, "high": found.high, "items": found.items}
    return _frame(y, {**columns, "confidence": found.confidence, "accuracy": found.accuracy})


def risk_coverage(tree: Any, y: Any, p: Any, level: Level = None, *, separator: str | None = None) -> pd.DataFrame:
    """Share of errors among the items that keep their class, as those less sure are left out.

    Returns
    -------
    data frame
        A row for each probability that occurs, the surest first: threshold; coverage, the share of items whose most
        probable class has at least this probability; risk, the share of these that are wrong (El-Yaniv and Wiener 2010).
    """
    found = chances_at(*_with_p(tree, y, p, separator), level)
    threshold, coverage, risk = risk_curve(found)
    return _frame(y, {"threshold": threshold, "coverage": coverage, "risk": risk})


def small_classes(
    tree: Any,
    y: Any,
    p: Any,
    y_train: Any = None,
    *,
    counts: npt.ArrayLike | None = None,
    level: Level = None,
    edges: Sequence[float] = EDGES,
    separator: str | None = None,
) -> pd.DataFrame:
    """How classes fare by the number of their training items.

    Parameters
    ----------
    tree, y, p, level, separator
        As of `log_loss`.
    y_train : labels, optional
        Of the training items; partial labels count down to their depth.
    counts : array (nodes,), optional
        Instead: training items labelled with each node, as ``classifier.node_weight_``.
    edges : sequence of float
        Where bins begin; the first bin is below the first edge.

    Returns
    -------
    data frame
        For each bin that has classes: training_items ("3-9"), classes, items (of the test), accuracy and log_loss (mean
        over items), recall (mean over classes that have items), parent_accuracy (of the most probable class of the level
        above; NaN at the top).
    """
    tree, truth, chances = _with_p(tree, y, p, separator)
    found = chances_at(tree, truth, chances, level)
    by_node = _training_counts(tree, y_train, counts, separator)
    begin = np.asarray(edges, dtype=np.float64)
    if begin.ndim != 1 or not len(begin) or np.any(np.diff(begin) <= 0) or begin[0] <= 0:
        raise OptionError(f"edges={edges!r} must be positive numbers that rise")
    of_class = np.searchsorted(begin, by_node[found.classes], side="right")
    depth = tree.level(level)
    above = np.full(len(found.truth), np.nan)
    if depth > 1:
        upper = chances_at(tree, truth, chances, depth - 1)
        above = upper.right[found.known[upper.known]].astype(np.float64)
    rows = [_bin_scores(found, of_class == k, above) for k in range(len(begin) + 1)]
    kept = [k for k, row in enumerate(rows) if row["classes"]]
    columns: dict[str, Any] = {"training_items": [_bin_name(begin, k) for k in kept]}
    columns.update({name: np.array([rows[k][name] for k in kept]) for name in rows[0]})
    return _frame(y, columns)


def scores(
    tree: Any, y: Any, p: Any = None, predicted: Any = None, *, bins: int = BINS, separator: str | None = None
) -> pd.DataFrame:
    """All scores, a row for each level.

    With partial labels the rows are over different items: each of `accuracy`, `macro_f1`, `log_loss`, `brier`, `ece` and
    `ece_mass` is over the `items` of its own level, and these grow fewer from the top down. A difference between levels
    is then also one between items; to compare levels, give the rows whose labels are whole. ``classifier.score`` instead
    keeps all rows, and counts a prediction below a partial label as right (see `accuracy`).

    Parameters
    ----------
    tree : Taxonomy or TaxonomyClassifier
    y : labels (items,) or (items, levels)
    p : array (items, leaves), optional
        Probabilities of the leaves.
    predicted : labels, optional
        Default the most probable class of each level.
    bins : int
        Of the calibration errors.
    separator : str, optional

    Returns
    -------
    data frame
        level; classes; items, whose label is known at the level; partial, those whose label ends above it and which
        count in the columns ``h_`` and ``lca_distance`` only, down to where they are known; accuracy, macro_f1; h_precision,
        h_recall, h_f1 (micro) and lca_distance (mean) down to this level. With `predicted` also stopped, the predictions
        that end above the level, the root among them. With `p` also log_loss, brier, ece (bins of equal width) and
        ece_mass. NaN where no label is known.

    Raises
    ------
    OptionError
        Neither probabilities nor predictions given.
    """
    if p is None and predicted is None:
        raise OptionError("give the leaves' probabilities (p), predicted labels (predicted), or both")
    tree = _tree_of(tree)
    truth = tree.nodes_of(y, separator)
    chances = None if p is None else _probabilities(tree, p, len(truth))
    guess = None if predicted is None else _guess(tree, truth, predicted, separator)
    rows = [_level_scores(tree, truth, chances, guess, depth, bins) for depth in range(1, len(tree.levels) + 1)]
    columns: dict[str, Any] = {"level": list(tree.levels)}
    columns.update({name: np.array([row[name] for row in rows]) for name in rows[0]})
    return _frame(y, columns)


# -- how ------------------------------------------------------------------------------------------------------


def _level_scores(
    tree: Taxonomy, truth: Ints, p: Floats | None, guess: Ints | None, depth: int, bins: int
) -> dict[str, float]:
    classes = tree.at_level(depth)
    if guess is None:
        assert p is not None
        predicted = classes[tree.sums(p, classes).argmax(axis=1)]
    else:
        predicted = raised(tree, guess, depth)
    known = int(known_items(tree, truth, depth).sum())
    out: dict[str, float] = {"classes": len(classes), "items": known, "partial": len(truth) - known}
    if guess is not None:
        out["stopped"] = int(np.sum(~known_items(tree, guess, depth)))
    labels = labels_at(tree, truth, predicted, depth) if known else None
    out["accuracy"] = labels.accuracy if labels else np.nan
    out["macro_f1"] = labels.macro_f1 if labels else np.nan
    down_to = tree.raised(truth, depth)
    out.update(zip(("h_precision", "h_recall", "h_f1"), averages(tree, down_to, predicted, "micro"), strict=True))
    shared, deep, true = overlap(tree, down_to, predicted)
    out["lca_distance"] = float(np.mean(deep + true - 2 * shared))
    if p is not None:
        found = chances_at(tree, truth, p, depth) if known else None
        out["log_loss"] = found.log_loss if found else np.nan
        out["brier"] = found.brier if found else np.nan
        out["ece"] = reliability_bins(found, bins, "width").error if found else np.nan
        out["ece_mass"] = reliability_bins(found, bins, "mass").error if found else np.nan
    return out


def _bin_scores(found: ChancesAt, classes: Bools, above: Floats) -> dict[str, float]:
    """Scores of the items of some classes; `above` says which are right at the level above."""
    inside = classes[found.truth]
    items = int(inside.sum())
    out: dict[str, float] = {"classes": int(classes.sum()), "items": items}
    if not items:
        return {**out, "accuracy": np.nan, "log_loss": np.nan, "recall": np.nan, "parent_accuracy": np.nan}
    right, truth = found.right[inside], found.truth[inside]
    of_class = np.bincount(truth)
    recalls = np.bincount(truth[right], minlength=len(of_class))[of_class > 0] / of_class[of_class > 0]
    out["accuracy"], out["log_loss"] = float(np.mean(right)), float(np.mean(found.losses[inside]))
    out["recall"], out["parent_accuracy"] = float(np.mean(recalls)), float(np.mean(above[inside]))
    return out


def _bin_name(begin: Floats, k: int) -> str:
    low, high = (0.0 if k == 0 else begin[k - 1]), (np.inf if k == len(begin) else begin[k])
    if high == np.inf:
        return f"{low:g} or more"
    if not (low.is_integer() and high.is_integer()):
        return f"{low:g} to under {high:g}"
    return f"{low:g}" if high == low + 1 else f"{low:g}-{high - 1:g}"


def _training_counts(tree: Taxonomy, y_train: Any, counts: Any, separator: str | None) -> Floats:
    """Training items of each node and all below it."""
    if (y_train is None) == (counts is None):
        raise OptionError("give the training items' labels (y_train) or their number by node (counts), one of the two")
    if counts is None:
        own = np.bincount(tree.nodes_of(y_train, separator), minlength=len(tree)).astype(np.float64)
    else:
        own = np.array(counts, dtype=np.float64)
        if own.shape != (len(tree),) or not np.all(own >= 0):
            raise OptionError(
                f"counts must be {len(tree)} numbers that are not negative, one for each node; got the shape {own.shape}"
            )
    for node in range(len(tree) - 1, -1, -1):  # children come after their parent
        if tree.parent[node] >= 0:
            own[tree.parent[node]] += own[node]
    return own


def _tree_of(tree: Any) -> Taxonomy:
    found = tree if isinstance(tree, Taxonomy) else getattr(tree, "tree_", None)
    if not isinstance(found, Taxonomy):
        raise OptionError(f"tree must be a Taxonomy or a fitted TaxonomyClassifier, not {type(tree).__name__}")
    return found


def _two(tree: Any, y: Any, predicted: Any, separator: str | None) -> tuple[Taxonomy, Ints, Ints]:
    tree = _tree_of(tree)
    truth = tree.nodes_of(y, separator)
    return tree, truth, _guess(tree, truth, predicted, separator)


def _guess(tree: Taxonomy, truth: Ints, predicted: Any, separator: str | None) -> Ints:
    guess = predicted_nodes(tree, predicted, separator)
    if len(guess) != len(truth):
        raise DataError(
            f"y has {len(truth)} labels and there are {len(guess)} predicted labels: give one for each item"
        )
    return guess


def _with_p(tree: Any, y: Any, p: Any, separator: str | None) -> tuple[Taxonomy, Ints, Floats]:
    tree = _tree_of(tree)
    truth = tree.nodes_of(y, separator)
    return tree, truth, _probabilities(tree, p, len(truth))


def _probabilities(tree: Taxonomy, p: Any, items: int) -> Floats:
    try:
        values = np.asarray(p, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError("the probabilities must be numbers, as predict_proba(X) gives them") from None
    if values.ndim != 2 or values.shape[1] != len(tree.leaves):
        raise DataError(
            f"the probabilities have the shape {values.shape}; give those of the {len(tree.leaves)} leaves, "
            f"({items}, {len(tree.leaves)}), as predict_proba(X) does"
        )
    if len(values) != items:
        raise DataError(
            f"y has {items} labels and there are {len(values)} rows of probabilities: give one for each item"
        )
    bad = np.flatnonzero(~(np.all(values >= 0, axis=1) & (np.abs(values.sum(axis=1) - 1) <= OFF_ONE)))
    if len(bad):
        raise DataError(
            f"row {bad[0]} of the probabilities sums to {values[bad[0]].sum():.6g} or has a negative or missing one "
            f"({len(bad)} such rows): probabilities are not negative and sum to one"
        )
    return values


def _frame(y: Any, columns: dict[str, Any]) -> pd.DataFrame:
    """A data frame in the library of the labels, pandas where these are in none."""
    library = type(y).__module__.partition(".")[0]
    return cast("pd.DataFrame", like(library if library in ("polars", "pyarrow") else "pandas", columns))
