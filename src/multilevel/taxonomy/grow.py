"""What lets a fitted classifier grow: further rows, and classes that are added, dropped or merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from ..errors import DataError, OptionError
from .fitting import FittedTree, row_hash
from .merging import united
from .newcomer import fit_newcomer
from .online import Effort, Seen, added, block, learn, seen_rows, together
from .problems import Rows
from .reshape import carried, joined, placed, with_paths, without
from .tree import SEPARATOR, Path, Taxonomy, as_path, distinct_labels

if TYPE_CHECKING:
    from .estimator import TaxonomyClassifier

__all__ = ["GrowVerbs"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]


class GrowVerbs:
    """Inherited by TaxonomyClassifier."""

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: npt.ArrayLike | None = None) -> Self:
        """Learn from further rows without those of before.

        Of earlier rows the classifier keeps the mode, the curvature of their log-likelihood by feature and leaf, and the
        sum of the rows of each class. The mode after further rows maximises their log-likelihood together with a normal
        prior about the last mode: the prior of the tree, and the curvature as precision of the leaves' coefficients. The
        scales stay; on an unfitted classifier these are the first ones (`prior_scale`, or `scales` as a dict), as with
        ``scales="fixed"``, and the first call is the same as `fit`. Every call learns: giving rows again counts them
        again.

        Parameters
        ----------
        X : array, sparse matrix or data frame (rows, features)
        y : array or data frame
            Labels in any form that `fit` takes; a call need not have rows of every class.
        classes : array or list, optional
            Labels of all classes, in the first call: without it and without `tree`, the classes are those of the first
            `y`. Later: those that are new, as a label that is not known is refused. Paths of new leaves may have new
            nodes above.
        sample_weight : array (rows,), optional

        Raises
        ------
        DataError
            As of `fit`; labels that are neither known nor in `classes`.
        OptionError
            ``class_weight="balanced"``, which needs all rows at once.

        Notes
        -----
        Portions should be of rows in random order. Of a portion with one class only, the classifier is soon so sure that
        the curvature vanishes, and with it the memory: sorted by class, portions end far from the fit to all rows.

        A new leaf is first fitted by itself as `add_class` does, so that the rows of before count against it; then all
        nodes move.

        Draws of the coefficients (`inference`) are dropped: they were of those before. `fit` draws again.
        """
        return cast("Self", _partial_fit(cast("TaxonomyClassifier", self), X, y, classes, sample_weight))

    def add_class(self, path: Any, X: Any, sample_weight: npt.ArrayLike | None = None) -> Self:
        """Add a leaf and fit its deviation alone: the coefficients of all other classes stay as they are.

        Parameters
        ----------
        path : tuple or str
            The new leaf from the top, as a tuple or a text joined by `separator` (else "/"); nodes above it that the tree
            lacks are added with it.
        X : array, sparse matrix or data frame (rows, features)
            Items of the new class.
        sample_weight : array (rows,), optional

        Raises
        ------
        DataError
            A class that is there already, rows as of `fit` that cannot be used.

        Notes
        -----
        With the logits of all other leaves known, the new leaf's deviation u (with its intercept) is the mode of a logistic
        regression, new leaf against the others, under its prior N(0, s^2) at the known scale of its level. Against the new
        items stand the old ones: as these are not kept, each class is represented by the mean of its rows with the weight of
        all of them, with a correction for their spread about the mean (taxonomy/newcomer.py has the formula). Items labelled
        with a node above the new leaf say nothing about it and are left out. With ``likelihood="nested"`` only the softmax
        over the new leaf's siblings learns of it: where the items do not look like their parent's, give them to `partial_fit`
        with ``classes=[path]`` instead, which moves the nodes above as well.

        A leaf that is added below a leaf takes its place, with its coefficients: the rows then change no coefficient.
        Only children always have their parent's coefficients.

        Draws of the coefficients (`inference`) are dropped: they were of those before. `fit` draws again.
        """
        return cast("Self", _add_class(cast("TaxonomyClassifier", self), path, X, sample_weight))

    def drop_class(self, path: Any) -> Self:
        """Take a class and all below it out; no other coefficient changes.

        The weight of its items counts as that of items labelled with its parent (of a class at the top: is forgotten). The
        probabilities of the remaining leaves keep their ratios and sum to one. A parent that is left without children becomes
        a leaf with the coefficients of its last child.

        Parameters
        ----------
        path : tuple, str or label

        Raises
        ------
        DataError
            A class that is not in the tree, or fewer than two leaves that would be left.

        Notes
        -----
        Draws of the coefficients (`inference`) are dropped: they were of those before. `fit` draws again.
        """
        return cast("Self", _drop_class(cast("TaxonomyClassifier", self), path))

    def merge(self, paths: Sequence[Any], name: Any) -> Self:
        """Make one leaf of several leaves with the same parent.

        Parameters
        ----------
        paths : list of tuple, str or label
        name : str
            Name of the new leaf, which may be that of one of them.

        Raises
        ------
        DataError
            Fewer than two classes, classes that are no leaves or have several parents, a name that is taken.

        Notes
        -----
        Its probability is to be the sum of theirs: its deviation is fitted to that sum by logistic regression, over rows
        drawn from what the classifier keeps of each class, and its intercept is such that over these its mass is that of
        the merged classes (taxonomy/merging.py). The prior is about the mean of their deviations, weighted with the
        curvature of the log-likelihood. No other coefficient changes; `partial_fit` refines it.

        Draws of the coefficients (`inference`) are dropped: they were of those before. `fit` draws again.
        """
        return cast("Self", _merge(cast("TaxonomyClassifier", self), paths, name))


# ---- further rows ------------------------------------------------------------------------------------------------


def _partial_fit(model: TaxonomyClassifier, X: Any, y: Any, classes: Any, sample_weight: Any) -> TaxonomyClassifier:
    if isinstance(model.class_weight, str):
        raise OptionError(
            f"class_weight={model.class_weight!r} needs all rows at once, which partial_fit does not have: give the weights "
            "as a dict, or sample_weight"
        )
    if not hasattr(model, "fitted_"):
        return _first_rows(model, X, y, classes, sample_weight)
    model._check_options()
    seen, fitted = _seen(model), model.fitted_
    x = model._rows(X)
    tree, kept = with_paths(model.tree_, _paths_of(model, classes))
    nodes = _nodes(model, tree, y, x.shape[0])
    rows = _rows(model, x, nodes, tree, sample_weight)
    by_node = _carried_weight(model, kept, len(tree))
    linear = None
    if len(tree) > len(model.tree_):
        fitted, seen, linear = _newcomers(model, tree, kept, rows)
    fitted, seen = learn(fitted, seen, rows, _effort(model), linear)
    np.add.at(by_node, rows.nodes, rows.weight)
    _settle(model, fitted, seen, by_node, rows)
    return model


def _first_rows(model: TaxonomyClassifier, X: Any, y: Any, classes: Any, sample_weight: Any) -> TaxonomyClassifier:
    given = model.tree
    if classes is None:
        return model._fit(X, y, sample_weight, "fixed")
    labels = distinct_labels(classes, model.separator)[1]
    paths = [label if isinstance(label, tuple) else (label,) for label in labels]
    if given is None:
        tree = Taxonomy.from_paths(paths, list(model.levels or ()), model.separator)
    else:
        tree = Taxonomy.read(given, list(model.levels or ()), model.separator)
        tree, _ = with_paths(tree, [paths[k] for k, label in enumerate(labels) if tree._found(label, None) is None])
    return model._fit(X, y, sample_weight, "fixed", tree)


def _paths_of(model: TaxonomyClassifier, classes: Any) -> list[Path]:
    """Paths of the classes that the tree lacks."""
    if classes is None:
        return []
    out = []
    for label in distinct_labels(classes, model.separator)[1]:
        if model.tree_._found(label, model.separator) is None:
            if not isinstance(label, tuple) and label in model.tree_.names:
                raise DataError(model.tree_._unknown(label))
            out.append(label if isinstance(label, tuple) else (label,))
    return out


def _nodes(model: TaxonomyClassifier, tree: Taxonomy, y: Any, rows: int) -> Ints:
    try:
        return model._read_labels(y, rows, tree)[1]
    except DataError as unknown:
        if "is not a class of the tree" in str(unknown):
            raise DataError(f"{unknown}. Name new classes in `classes` of this call") from None
        raise


def _rows(model: TaxonomyClassifier, x: Any, nodes: Ints, tree: Taxonomy, sample_weight: Any) -> Rows:
    weight = model._weights(sample_weight, x, tree, nodes)
    group, _ = model._feature_groups(x.shape[1])
    used = weight > 0
    return Rows(x, nodes, weight, group) if used.all() else Rows(x[used], nodes[used], weight[used], group)


def _newcomers(model: TaxonomyClassifier, tree: Taxonomy, kept: Ints, rows: Rows) -> tuple[FittedTree, Seen, Any]:
    """The fit on a tree with new leaves, each fitted by itself; and the slope of the old objective at these."""
    fitted, seen, by_node = _carried(model, tree, kept)
    known = np.zeros(len(tree), dtype=bool)
    known[kept] = True
    slope = np.zeros((rows.x.shape[1] + 1, len(tree)))
    for leaf in tree.leaves:
        if known[leaf]:
            continue
        own = rows.take(np.flatnonzero(rows.nodes == leaf))
        path = tree.ancestors(int(leaf))
        node = next(v for v in path if not known[v])
        fitted, seen, slope[:, node] = _joined(fitted, seen, by_node, node, known, own, int(model.max_iter))
        known[path] = True
    return fitted, seen, slope


def _joined(
    fitted: FittedTree, seen: Seen, by_node: Floats, node: int, known: npt.NDArray[np.bool_], rows: Rows, most: int
) -> tuple[FittedTree, Seen, Floats]:
    """A new node with its deviation; the slope of the old objective (its prior and the old rows') by it."""
    tree = fitted.tree
    matrix = fitted.shape.matrix(fitted.scales)[:, node]
    above = int(tree.parent[node])
    siblings = [v for v in (tree.children[above] if above >= 0 else tree.top) if v != node and known[v]]
    if not siblings:  # it has its parent's coefficients
        return fitted, seen, np.zeros(rows.x.shape[1] + 1)
    new = fit_newcomer(fitted, seen, by_node, node, known[tree.leaves], rows, most)
    everywhere = np.arange(rows.x.shape[1] + 1)
    column = np.array([node if fitted.likelihood == "nested" else tree.first[node]])
    own = new.deviation[:, None].astype(fitted.deviations.dtype)
    fitted = replace(
        fitted, deviations=added(fitted.deviations, [(everywhere, np.array([node]), own)]), _leaf_coefficients=None
    )
    curved = added(seen.curvature, [(everywhere, column, new.curvature[:, None].astype(seen.curvature.dtype))])
    scale = np.append(matrix[:-1][rows.group], matrix[-1])
    return fitted, replace(seen, curvature=curved), new.slope + new.deviation / scale**2


# ---- other trees -------------------------------------------------------------------------------------------------


def _carried(
    model: TaxonomyClassifier, tree: Taxonomy, kept: Ints, fitted: FittedTree | None = None
) -> tuple[FittedTree, Seen, Floats]:
    """Fit, what was seen, and weight of the items of each node, on a changed tree.

    What belonged to a node that is gone goes to the nearest node above it that is left.
    """
    seen, old = _seen(model), model.tree_
    fitted = model.fitted_ if fitted is None else fitted
    _, groups = model._feature_groups(int(model.n_features_in_))
    heir = np.full(len(old), -1, dtype=np.int32)
    for node in range(len(old)):
        above = old.parent[node]
        heir[node] = kept[node] if kept[node] >= 0 else (heir[above] if above >= 0 else -1)
    if fitted.likelihood == "nested":
        columns = kept
    else:
        to = heir[old.leaves]
        stays = (to >= 0) & ((kept[old.leaves] >= 0) | (tree.leaf_of[to] >= 0))
        columns = np.where(stays, tree.first[to], -1)
    moved = carried(fitted, tree, kept, model.scale_by, groups)
    curved = placed(seen.curvature, columns, len(tree) if fitted.likelihood == "nested" else len(tree.leaves))
    sums, squares = (
        sp.csr_array(placed(sp.csr_array(part.T), heir, len(tree)).T) for part in (seen.sums, seen.squares)
    )
    return moved, Seen(curved, sums, squares), placed(model.node_weight_[None], heir, len(tree))[0]


def _add_class(model: TaxonomyClassifier, path: Any, X: Any, sample_weight: Any) -> TaxonomyClassifier:
    seen = _seen(model)
    new = _new_path(model, path)
    if X is None:
        raise DataError("X is None: give rows of the new class")
    x = model._rows(X)
    tree, kept = with_paths(model.tree_, [new])
    leaf = tree.node(new)
    rows = _rows(model, x, np.full(x.shape[0], leaf, dtype=np.int32), tree, sample_weight)
    fitted, seen, _ = _newcomers(model, tree, kept, rows)
    by_node = _carried_weight(model, kept, len(tree))
    by_node[leaf] += rows.weight.sum()
    _settle(model, fitted, together(seen, seen_rows(fitted, rows, model._threads())), by_node, rows)
    return model


def _carried_weight(model: TaxonomyClassifier, kept: Ints, count: int) -> Floats:
    return np.asarray(placed(model.node_weight_[None], kept, count)[0])


def _new_path(model: TaxonomyClassifier, path: Any) -> Path:
    separator = model.separator
    if separator is None and isinstance(path, str) and SEPARATOR in path:
        first = path.split(SEPARATOR)[0].strip()
        separator = SEPARATOR if (first,) in model.tree_.paths else None
    new = as_path(path, separator)
    if new in model.tree_.paths:
        raise DataError(f"class {path!r} is in the tree already: partial_fit learns further rows of it")
    return new


def _drop_class(model: TaxonomyClassifier, path: Any) -> TaxonomyClassifier:
    _seen(model)
    old = model.tree_
    node = old.node(path, model.separator)
    left = len(old.leaves) - int(old.last[node] - old.first[node])
    above = int(old.parent[node])
    alone = above >= 0 and len(old.children[above]) == 1
    if left + alone < 2:
        raise DataError(f"without {path!r} the tree has {left + alone} class: a classifier needs at least two")
    fitted = model.fitted_
    if alone and fitted.likelihood == "flat":
        deviations = fitted.deviations.copy()
        deviations[:, above] += deviations[:, node]
        fitted = replace(fitted, deviations=deviations)
    tree, kept = without(old, node)
    _settle(model, *_carried(model, tree, kept, fitted))
    return model


def _merge(model: TaxonomyClassifier, paths: Sequence[Any], name: Any) -> TaxonomyClassifier:
    seen, old, fitted = _seen(model), model.tree_, model.fitted_
    parts = _parts_to_merge(model, paths)
    above = int(old.parent[parts[0]])
    new = (*(old.paths[above] if above >= 0 else ()), *as_path(name, None))
    if new in old.paths and old.paths.index(new) not in parts:
        raise DataError(f"name={name!r} is a class already, and not among those to merge: add it, or take another name")
    if len(old.leaves) - len(parts) + 1 < 2:
        raise DataError(f"with {len(parts)} classes merged the tree has 1 class: a classifier needs at least two")
    tree, kept = joined(old, parts, new[-1])
    group, _ = model._feature_groups(int(model.n_features_in_))
    fitted = replace(fitted, deviations=_united(fitted, seen, parts, model.node_weight_, group))
    _settle(model, *_carried(model, tree, kept, fitted))
    return model


def _parts_to_merge(model: TaxonomyClassifier, paths: Sequence[Any]) -> list[int]:
    old = model.tree_
    if isinstance(paths, (str, bytes)) or not isinstance(paths, Sequence):
        raise OptionError(f"paths={paths!r}: give a list of the classes to merge")
    parts = sorted({old.node(path, model.separator) for path in paths})
    if len(parts) < 2:
        raise DataError(f"paths={list(paths)!r} names {len(parts)} class; give at least two to merge")
    for part in parts:
        if old.leaf_of[part] < 0:
            raise DataError(f"{old.labels[part]!r} has classes below it: merge these first")
        if old.parent[part] != old.parent[parts[0]]:
            raise DataError(
                f"{old.labels[parts[0]]!r} and {old.labels[part]!r} have different parents: only classes with the "
                "same parent can be merged; else drop one, and give its rows to partial_fit as rows of the other"
            )
    return parts


def _united(fitted: FittedTree, seen: Seen, parts: list[int], by_node: Floats, group: Ints) -> Any:
    """Deviations with those of one leaf for all parts in the first part's place, and 0 in the others'."""
    everywhere = np.arange(seen.sums.shape[1] + 1)
    scale = fitted.shape.matrix(fitted.scales)[:, parts[0]]
    change = -block(fitted.deviations, everywhere, np.array(parts)).astype(np.float64)
    change[:, 0] += united(fitted, seen, parts, by_node, np.append(scale[:-1][group], scale[-1]))
    return added(fitted.deviations, [(everywhere, np.array(parts), change.astype(fitted.deviations.dtype))])


# ---- of all ------------------------------------------------------------------------------------------------------


def _seen(model: TaxonomyClassifier) -> Seen:
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(model)
    seen: Seen | None = getattr(model, "seen_", None)
    if seen is None:
        raise DataError(
            "this classifier does not have what is kept of its rows (`seen_`), without which it cannot grow: fit it again"
        )
    return seen


def _effort(model: TaxonomyClassifier) -> Effort:
    return Effort(int(model.max_iter), float(model.tol), model._threads())


def _settle(
    model: TaxonomyClassifier, fitted: FittedTree, seen: Seen, by_node: Floats, rows: Rows | None = None
) -> None:
    """All attributes at once, so that an error before leaves the classifier as it was."""
    if rows is not None:
        model.row_hashes_ = np.union1d(getattr(model, "row_hashes_", []), row_hash(rows.x)).astype(np.int64)
    model.tree_, model.seen_ = fitted.tree, seen
    model.draws_outgrown_ = bool(model.draws_) or model.draws_outgrown_
    model._publish(fitted, by_node)
