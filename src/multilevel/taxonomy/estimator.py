"""TaxonomyClassifier: the scikit-learn estimator."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import DataConversionWarning
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from ..errors import DataError, MultilevelWarning, OptionError, users_level
from .checks import check_scales, check_size, copies_warning, dtype_name, is_number, one_of, positive, row_warnings
from .decisions import DecisionVerbs
from .explain import ExplainVerbs
from .fitting import FittedTree, Settings, fit_tree, row_hash
from .grow import GrowVerbs
from .objective import sparse_rows
from .online import seen_rows
from .plots import PlotVerbs
from .problems import Rows
from .scales import ScaleShape, scale_shape
from .settings import given_scales, label_array, leaf_shares, median_length, node_factors
from .storage import StorageVerbs
from .tree import Taxonomy, distinct_labels
from .uncertainty import UncertaintyVerbs

__all__ = ["TaxonomyClassifier"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]
LARGEST_WEIGHT = 1e12


class TaxonomyClassifier(
    DecisionVerbs,
    ExplainVerbs,
    PlotVerbs,
    StorageVerbs,
    GrowVerbs,
    UncertaintyVerbs,
    ClassifierMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
    """Softmax over the leaves of a tree of classes, with coefficients that lean on their parents'.

    The coefficients of a class are those of its parent plus a Gaussian deviation whose scale is learnt for each level, so
    that a class of few items borrows strength from its siblings (Shahbaba and Neal 2007, corMNL). Probabilities add up:
    a parent's is the sum of its children's.

    Parameters
    ----------
    tree : dict, list, data frame, graph or Taxonomy, optional
        The tree: {child: parent}, pairs (parent, child), paths (tuples, or texts with `separator`), a data frame with one
        column per level, a networkx graph. None: the tree that the labels show.
    levels : sequence of str, optional
        Names of the levels from the top; where `y` is a data frame, its columns.
    separator : str, optional
        Splits labels such as "animals/cats" into paths. None: labels are not split.
    likelihood : {"flat", "nested"}
        One softmax over all leaves, or one over the children of each node (for many classes).
    scales : {"holdout", "cv", "fixed", "evidence"} or dict
        How the scales of the deviations are found: by the log-loss of held-out rows, of `folds`, kept at
        `prior_scale`, by the evidence (biased: far too small on texts), or given by level (or parent).
    scale_by : {"level", "parent"}
        Which deviations share a scale.
    feature_groups : sequence, optional
        A group for each feature; each group has its own scales.
    prior_scale : float or sequence of float, optional
        First value of the scales (of each level); None: 5 divided by the median length of a row.
    intercept_scale : float
        Scale of the intercepts' deviations, never tuned.
    class_weight : dict, "balanced" or None
        Weight of the items of each class; the weight of an inner node holds for the classes below it.
    inference : {"map", "bootstrap", "nuts"}
        The posterior mode; or with uncertainty: Bayesian bootstrap, or NUTS for small problems.
    draws : int, optional
        Refits of the bootstrap (None: 20), or draws of each of the four chains of NUTS (None: 500).
    validation_fraction : float
        Share of each class that is held out to find the scales.
    folds : int
        Of `scales="cv"`.
    max_iter : int
        Most evaluations of the objective in one minimisation.
    tol : float
        A minimisation ends when the objective is known to be within `tol` per item of its minimum.
    dtype : {"float32", "float64"}
        Precision of the data and coefficients; sums of the log-likelihood are always double.
    n_jobs : int, optional
        Threads; None: all processors.
    warm_start : bool
        Begin at the last fit's deviations, keep its scales.
    random_state : int, RandomState or None
        Of the held-out rows.

    Attributes
    ----------
    tree_ : Taxonomy
    classes_ : array (leaves,)
        Labels of the leaves, the columns of `predict_proba`.
    scales_ : dict
        Scale of each level (or parent).
    scale_profile_ : list of (scales, loss)
        Held-out log-loss on the way to the scales.
    class_shares_ : array (leaves,)
        Share of each leaf in the training items.
    n_iter_ : int
        Evaluations of the last minimisation.

    References
    ----------
    Shahbaba and Neal (2007), Improving classification when a class hierarchy is available using a hierarchy-based prior,
    Bayesian Analysis 2(1).
    """

    def __init__(
        self,
        tree: Any = None,
        *,
        levels: Sequence[str] | None = None,
        separator: str | None = None,
        likelihood: str = "flat",
        scales: str | Mapping[Any, float] = "holdout",
        scale_by: str = "level",
        feature_groups: Sequence[Any] | None = None,
        prior_scale: float | Sequence[float] | None = None,
        intercept_scale: float = 1.0,
        class_weight: Mapping[Any, float] | str | None = None,
        inference: str = "map",
        draws: int | None = None,
        validation_fraction: float = 0.2,
        folds: int = 3,
        max_iter: int = 500,
        tol: float = 1e-4,
        dtype: str = "float32",
        n_jobs: int | None = None,
        warm_start: bool = False,
        random_state: Any = 0,
    ) -> None:
        self.tree = tree
        self.levels = levels
        self.separator = separator
        self.likelihood = likelihood
        self.scales = scales
        self.scale_by = scale_by
        self.feature_groups = feature_groups
        self.prior_scale = prior_scale
        self.intercept_scale = intercept_scale
        self.class_weight = class_weight
        self.inference = inference
        self.draws = draws
        self.validation_fraction = validation_fraction
        self.folds = folds
        self.max_iter = max_iter
        self.tol = tol
        self.dtype = dtype
        self.n_jobs = n_jobs
        self.warm_start = warm_start
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    # ---- fitting -------------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any, sample_weight: npt.ArrayLike | None = None) -> Self:
        """Find the scales and the coefficients.

        Parameters
        ----------
        X : array, sparse matrix or data frame (rows, features)
        y : array or data frame
            Label of each row: a name, a path, or one column per level with blanks below; an inner node is a partial label.
        sample_weight : array (rows,), optional

        Raises
        ------
        DataError
            Labels missing or not in the tree, one class, missing or infinite features, negative weights.
        OptionError
            An option that is not known, more memory needed than there is.
        """
        return self._fit(X, y, sample_weight)

    def _fit(self, X: Any, y: Any, sample_weight: Any, how: str | None = None, tree: Taxonomy | None = None) -> Self:
        """Fit; `how` to find the scales and the tree may be other than the options'."""
        self._check_options()
        x = self._rows(X, fit=True)
        tree, nodes = self._read_labels(y, x.shape[0], tree)
        weight = self._weights(sample_weight, x, tree, nodes)
        group, groups = self._feature_groups(x.shape[1])
        used = weight > 0
        rows = Rows(x, nodes, weight, group) if used.all() else Rows(x[used], nodes[used], weight[used], group)
        shape = scale_shape(tree, self.scale_by, groups, float(self.intercept_scale))
        start = self._warm(tree, x.shape[1])
        settings = self._settings(tree, shape, rows, start)
        settings = settings if how is None else replace(settings, scales=how)
        hashes = row_hash(rows.x)
        row_warnings(rows.x, hashes)
        self._check_draws(tree, rows, shape, settings)
        self.tree_, self.row_hashes_ = tree, np.unique(hashes)
        self._set(fit_tree(tree, rows, shape, settings, start), rows)
        self._uncertainty(rows, settings)
        return self

    def _set(self, fitted: FittedTree, rows: Rows) -> None:
        by_node = np.zeros(len(fitted.tree))
        np.add.at(by_node, rows.nodes, rows.weight)
        self._publish(fitted, by_node)
        self.seen_ = seen_rows(fitted, rows, self._threads())

    def _publish(self, fitted: FittedTree, by_node: Floats) -> None:
        """The attributes of a fit; by_node: weight of the items labelled with each node."""
        tree = fitted.tree
        self.fitted_ = fitted
        self.classes_ = label_array([tree.labels[node] for node in tree.leaves])
        self.scales_ = dict(zip(fitted.shape.names, fitted.scales.tolist(), strict=True))
        self.scale_profile_ = fitted.profile
        self.n_iter_ = fitted.evaluations
        self.converged_ = fitted.converged
        self.objective_ = fitted.value
        self.node_weight_ = by_node
        self.class_shares_ = leaf_shares(tree, by_node)
        self.calibration_ = None  # they were of other coefficients
        self.draws_ = self.trusted_ = self.verdict_ = None

    def _check_options(self) -> None:
        one_of("likelihood", self.likelihood, ("flat", "nested"))
        one_of("scale_by", self.scale_by, ("level", "parent"))
        one_of("inference", self.inference, ("map", "bootstrap", "nuts"))
        one_of("dtype", dtype_name(self.dtype), ("float32", "float64"))
        if not isinstance(self.scales, Mapping):
            one_of("scales", self.scales, ("holdout", "cv", "fixed", "evidence"))
        for name in ("intercept_scale", "tol"):
            value = getattr(self, name)
            if not (is_number(value) and np.isfinite(value) and value > 0):
                raise OptionError(f"{name}={value!r} must be a positive number")
        if not 1e-6 <= self.intercept_scale <= 1e6:
            raise OptionError(f"intercept_scale={self.intercept_scale!r} must lie between 1e-6 and 1e6; 1 is usual")
        for name, least in (("max_iter", 1), ("folds", 2), ("draws", 2)):
            value = getattr(self, name)
            if name == "draws" and value is None:
                continue
            if not (isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= least):
                raise OptionError(f"{name}={value!r} must be a whole number of at least {least}")
        if not (is_number(self.validation_fraction) and 0 < self.validation_fraction < 1):
            raise OptionError(f"validation_fraction={self.validation_fraction!r} must be a number between 0 and 1")
        if self.separator is not None and not (isinstance(self.separator, str) and self.separator):
            raise OptionError(f"separator={self.separator!r} must be a text of at least one character, or None")
        if self.levels is not None and (isinstance(self.levels, (str, bytes)) or not isinstance(self.levels, Sequence)):
            raise OptionError(f"levels={self.levels!r} must be a list of the levels' names, or None")
        if self.levels is not None and len(set(self.levels)) < len(self.levels):
            raise OptionError(f"levels={self.levels!r} has a name twice: each level needs its own")

    def _rows(self, X: Any, fit: bool = False) -> Any:
        try:
            checked = validate_data(self, X, accept_sparse="csr", reset=fit, dtype=(np.float64, np.float32))
        except ValueError as fault:
            if "could not convert string to float" in str(fault):
                raise DataError(
                    f"X has texts in place of numbers ({str(fault).rpartition(':')[2].strip()}): "
                    "make features of them first, "
                    "for example with scikit-learn's TfidfVectorizer before this classifier in a pipeline"
                ) from None
            raise
        check_size(checked, np.dtype(self.dtype), fit)
        return sparse_rows(checked, np.dtype(self.dtype))

    def _read_labels(self, y: Any, rows: int, tree: Taxonomy | None = None) -> tuple[Taxonomy, Ints]:
        if y is None:
            raise DataError(
                "This TaxonomyClassifier estimator requires y to be passed, but the target y is None: give the labels"
            )
        y = self._chosen_levels(y)
        if isinstance(y, np.ndarray) and y.ndim == 2 and y.shape[1] == 1:
            warnings.warn(
                "A column-vector y was passed when a 1d array was expected: it is read as one level of labels",
                DataConversionWarning,
                stacklevel=3,
            )
        if (
            getattr(y, "ndim", 2) == 1
            and self.tree is None
            and self.separator is None
            and np.asarray(y).dtype.kind in "fc"
        ):
            check_classification_targets(np.asarray(y))
        names = self._level_names(y)
        joined = self._joined_by(y) if tree is None else None
        if tree is not None:
            nodes = tree.nodes_of(y, self.separator)
        elif self.tree is None:
            codes, labels = distinct_labels(y, self.separator)
            paths = [label if isinstance(label, tuple) else (label,) for label in labels]
            tree = Taxonomy.from_paths(paths, names, joined)
            nodes = np.array([tree.node(path) for path in paths], dtype=np.int32)[codes]
        else:
            tree = Taxonomy.read(self.tree, names, self.separator)
            if joined is not None:
                tree = Taxonomy(tree.names, tree.parent.tolist(), tree.levels, joined)
            nodes = tree.nodes_of(y, self.separator)
        if len(nodes) != rows:
            raise DataError(f"X has {rows} rows and y has {len(nodes)}: give one label for each row")
        if len(tree.leaves) < 2:
            raise DataError(
                f"the labels have one class only, {tree.labels[tree.leaves[0]]!r}: a classifier needs at least two"
            )
        return tree, nodes

    def _level_names(self, y: Any) -> list[str]:
        """The levels' names: as given, else the columns of a data frame of labels."""
        columns = [] if self.levels else list(getattr(y, "columns", ()))
        return list(self.levels) if self.levels else ([str(c) for c in columns] if len(columns) > 1 else [])

    def _joined_by(self, y: Any) -> str | None:
        """The separator, where the labels are texts joined by it: then classes are called so too."""
        if self.separator is None or getattr(y, "ndim", 1) != 1:
            return None
        texts = [label for label in y if isinstance(label, str)]
        if any(self.separator in label for label in texts):
            return self.separator
        if self.tree is None and any(other in label for label in texts for other in ("/", ">", "|", "::")):
            warnings.warn(
                f"separator={self.separator!r} occurs in no label: each label is a class of one level",
                MultilevelWarning,
                stacklevel=users_level(),
            )
        return None

    def _chosen_levels(self, y: Any) -> Any:
        """The columns of a data frame that are levels."""
        columns = getattr(y, "columns", None)
        if columns is None or not self.levels:
            return y
        absent = [name for name in self.levels if name not in list(columns)]
        if absent:
            raise DataError(
                f"level {absent[0]!r} is not a column of y, which has {', '.join(repr(c) for c in columns)}"
            )
        return y[list(self.levels)]

    def _weights(self, sample_weight: Any, x: Any, tree: Taxonomy, nodes: Ints) -> Floats:
        if sample_weight is None:
            weight: Floats = np.ones(x.shape[0])
        else:
            weight = np.array(_check_sample_weight(sample_weight, np.empty((x.shape[0], 0))), dtype=np.float64)
        if np.any(weight < 0):
            row = int(np.flatnonzero(weight < 0)[0])
            raise DataError(f"sample_weight of row {row} is {weight[row]}: weights must not be negative")
        if not np.any(weight > 0):
            raise DataError("all sample weights are 0: at least one row needs a weight")
        if weight.max() > LARGEST_WEIGHT:
            raise DataError(
                f"a sample weight is {weight.max():.3g}: weights count items; divide them all to bring them near 1"
            )
        weight = weight * node_factors(tree, nodes, weight, self.class_weight)[nodes]
        if not np.any(weight > 0):
            raise DataError(
                f"class_weight={self.class_weight!r} gives all rows the weight 0: one at least needs a weight"
            )
        return weight

    def _feature_groups(self, features: int) -> tuple[Ints, list[str]]:
        if self.feature_groups is None:
            return np.zeros(features, dtype=np.int32), ["features"]
        given = np.asarray(self.feature_groups, dtype=object)
        if given.shape != (features,):
            raise OptionError(
                f"feature_groups has the shape {given.shape}; give one group for each of the {features} features"
            )
        names, group = np.unique(given.astype(str), return_inverse=True)
        return group.astype(np.int32), [str(name) for name in names]

    def _settings(self, tree: Taxonomy, shape: ScaleShape, rows: Rows, start: FittedTree | None) -> Settings:
        from sklearn.utils import check_random_state

        first, how = self._first_scales(tree, shape, rows), self.scales
        if start is not None and start.shape.names == shape.names and how in ("holdout", "cv", "evidence"):
            first, how = start.scales, "fixed"
        if isinstance(how, Mapping):
            how = "fixed"
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        return Settings(
            self.likelihood, how, first, int(self.max_iter), float(self.tol), self._threads(),
            float(self.validation_fraction),
            int(self.folds), np.random.default_rng(seed),
        )  # fmt: skip

    def _first_scales(self, tree: Taxonomy, shape: ScaleShape, rows: Rows) -> Floats:
        if self.prior_scale is None:
            first = np.full(len(shape.names), 5.0 / median_length(rows))
        else:
            first = positive("prior_scale", self.prior_scale, len(shape.names))
            check_scales("prior_scale", first, median_length(rows))
        if isinstance(self.scales, Mapping):
            first = given_scales(self.scales, shape, tree, first)
            check_scales("scales", first, median_length(rows))
        return first

    def _threads(self) -> int:
        if self.n_jobs is None or self.n_jobs == -1:
            return os.cpu_count() or 1
        if not (isinstance(self.n_jobs, (int, np.integer)) and self.n_jobs >= 1):
            raise OptionError(f"n_jobs={self.n_jobs!r} must be a positive number of threads, or None or -1 for all")
        return int(self.n_jobs)

    def _warm(self, tree: Taxonomy, features: int) -> FittedTree | None:
        last: FittedTree | None = getattr(self, "fitted_", None)
        if not self.warm_start or last is None or last.likelihood != self.likelihood:
            return None
        return last if last.tree == tree and last.deviations.shape[0] == features + 1 else None

    # ---- prediction ----------------------------------------------------------------------------------------------

    def _leaf_probabilities(self, X: Any) -> Floats:
        """Probability of each leaf, (rows, leaves), with the training items' shares of the classes."""
        check_is_fitted(self)
        return self.fitted_.leaf_probabilities(self._rows(X), self._threads())

    def classes_at(self, level: int | str | None = None) -> npt.NDArray[Any]:
        """Labels of a level's classes: the columns of ``predict_proba(X, level)``."""
        check_is_fitted(self)
        return label_array([self.tree_.labels[node] for node in self.tree_.at_level(level)])

    def score(
        self, X: Any, y: Any, sample_weight: npt.ArrayLike | None = None, level: int | str | None = None
    ) -> float:
        """Share of the rows whose predicted class at a level lies on the path of their label, or below it.

        A label of an inner node counts as found at deeper levels where the prediction lies below it; `metrics.accuracy`
        leaves such rows out there. A label that the tree lacks counts as wrong, with a warning.

        Parameters
        ----------
        X : array, sparse matrix or data frame (rows, features)
        y : array or data frame
            Labels in any form that `fit` takes.
        sample_weight : array (rows,), optional
        level : int, str or None
        """
        p = self.predict_proba(X, level)
        copies_warning(row_hash(self._rows(X)), getattr(self, "row_hashes_", None))
        predicted = self.tree_.at_level(level)[p.argmax(axis=1)]
        nodes = self._known_labels(y, len(p))
        truth = self.tree_.raised(np.maximum(nodes, 0), level)
        first, last = self.tree_.first, self.tree_.last
        right = (first[truth] <= first[predicted]) & (last[predicted] <= last[truth]) & (nodes >= 0)
        if sample_weight is None:
            return float(right.mean())
        weight = np.asarray(_check_sample_weight(sample_weight, np.empty((len(p), 0)), ensure_non_negative=True))
        return float(np.average(right, weights=weight))

    def _known_labels(self, y: Any, rows: int) -> Ints:
        """Nodes of labels; -1 of classes that the tree lacks, which a warning counts."""
        try:
            return self._read_labels(y, rows, self.tree_)[1]
        except DataError:
            if y is None:
                raise
            codes, labels = distinct_labels(self._chosen_levels(y), self.separator)
            nodes = [self.tree_._found(label, self.separator) for label in labels]
            absent = [label for label, node in zip(labels, nodes, strict=True) if node is None]
            if len(codes) != rows or len(absent) in (0, len(labels)):
                raise
            warnings.warn(
                f"{len(absent)} of the classes in y are not in the tree, {absent[0]!r} among them: "
                "their rows count as wrong. "
                "Give all classes by tree=, so that they are there even where no training row has them",
                MultilevelWarning,
                stacklevel=users_level(),
            )
            return np.array([-1 if node is None else node for node in nodes], dtype=np.int32)[codes]
