"""Target encoding by partial pooling, and models as scikit-learn estimators.

`PartialPoolingEncoder` replaces the levels of columns by means of the target whose smoothing is estimated;
`MultilevelRegressor` and `MultilevelClassifier` put a `Model` where scikit-learn wants an estimator.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted

from .encode_levels import LINKS, Encoding, Levels, random_intercepts
from .encode_models import MultilevelClassifier, MultilevelRegressor
from .encode_rows import Rows, read_rows, target_of
from .errors import ColumnError, ConvergenceWarning, DataError, OptionError, listing, nearest, users_level
from .frame import like

__all__ = ["MultilevelClassifier", "MultilevelRegressor", "PartialPoolingEncoder"]

Array = NDArray[np.float64]
TARGETS = ("auto", "continuous", "binary", "multiclass")
MOST_CLASSES = 20  # whole numbers with more values are more often amounts than classes


class PartialPoolingEncoder(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Target encoding whose smoothing comes from a random-intercept model.

    A level is replaced by the mean of the target that the model ``y ~ 1 + (1 | column)`` gives it: its own mean, drawn
    towards that of all by as much as the estimated variances between and within levels demand. `fit_transform` encodes
    each row by models fitted to other rows (cross-fitting), so that no row's target is in its own features.

    Parameters
    ----------
    columns : sequence, optional
        Columns to encode: names, or positions; a tuple or a text with slashes is a path of nested columns,
        ``("region", "city")`` or ``"region/city"``, encoded as one column by intercepts at each depth: an unseen city takes
        the mean of its region. None: every column by itself.
    target_type : {"auto", "continuous", "binary", "multiclass"}
        Of more than two classes, each has a column and a model of its own against the rest.
    family : str, optional
        "gaussian" (None: for a continuous target), "binomial" (None: for classes), "poisson", "nbinom2" or "gamma";
        "gaussian" for classes is a linear model of their indicators, which is faster.
    scale : {"response", "link"}
        Means, or the linear predictor (log odds of a class, log of a count), which suits linear models.
    missing : {"population", "level"}
        A missing value is an unknown level, or a level of its own. In training rows an unknown level anywhere in a path
        leaves the row out of that path's model.
    remainder : {"passthrough", "drop"}
        Whether the other columns follow the encoded ones.
    cv : int, splitter or iterable of (train, test)
        Folds of the cross-fitting. A number means shuffled folds that do not look at the target, even for classes: folds
        balanced by class would tell of a row's own.
    random_state : int, RandomState or None
        Of the shuffling.

    Attributes
    ----------
    encodings_ : list of list of Encoding
        Of each path, of each class: means by level, and the sds between levels.
    paths_ : list of tuple of str
    classes_ : array or None
    target_type_ : str
    target_mean_ : float or array
        Mean of the target, or share of each class (of the second, of two).

    Notes
    -----
    Unseen and missing levels take the population's mean (of a path: that of the deepest known level). On the response's
    scale it is the mean over all levels there could be, not that of a typical one. A depth whose variance the rows cannot
    tell (one level; a level for each row; the same levels as the depth above) is encoded as the one above it.

    With a gaussian family, one column and levels of equal size this is scikit-learn's ``TargetEncoder(smooth=m)``, m being
    the ratio of the estimated variances within and between levels.

    References
    ----------
    Micci-Barreca (2001), A preprocessing scheme for high-cardinality categorical attributes in classification and
    prediction problems, SIGKDD Explorations 3(1). Gelman and Hill (2007), section 12.2.

    Examples
    --------
    >>> import multilevel as ml
    >>> pupils = ml.load("math10")
    >>> encoder = ml.encode.PartialPoolingEncoder(["schid"], target_type="continuous", remainder="drop")
    >>> encoder.fit_transform(pupils[["schid"]], pupils["math"]).shape
    (260, 1)
    """

    def __init__(
        self,
        columns: Sequence[Any] | None = None,
        *,
        target_type: str = "auto",
        family: str | None = None,
        scale: str = "response",
        missing: str = "population",
        remainder: str = "passthrough",
        cv: Any = 5,
        random_state: Any = 0,
    ) -> None:
        self.columns = columns
        self.target_type = target_type
        self.family = family
        self.scale = scale
        self.missing = missing
        self.remainder = remainder
        self.cv = cv
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        tags.input_tags.allow_nan = True
        return tags

    # ---- fitting -------------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any) -> Self:
        """Fit the models to all rows; their encodings serve `transform`.

        Encode training rows with `fit_transform`: ``fit(X, y).transform(X)`` has each row's target in its own features.

        Parameters
        ----------
        X : array or data frame (rows, columns)
        y : array (rows,)

        Raises
        ------
        ColumnError, DataError, OptionError
            A column that X lacks, a target that the family cannot have, an option that is not known.
        """
        self._fit(X, y)
        return self

    def fit_transform(self, X: Any, y: Any) -> Any:
        """Fit, and encode each row by models of the other folds' rows.

        Returns
        -------
        array (rows, features) or frame of X's library
            Encoded columns first (of each path one, or one for each class), then the others.
        """
        rows, target, codes = self._fit(X, y)
        out = np.full((rows.n, len(self.paths_) * target.shape[1]), np.nan)
        for train, test in self._folds(rows.n, y):
            at = 0
            for levels, numbers in zip(self.levels_, codes, strict=True):
                for one in self._encode(target[train], numbers[train], levels):
                    out[test, at] = one.at(numbers[test])
                    at += 1
        return self._framed(rows, out)

    def transform(self, X: Any) -> Any:
        """Encode new rows by the models of all training rows; returns as `fit_transform`."""
        check_is_fitted(self, "encodings_")
        rows = read_rows(self, X, fit=False, missing=True)
        parts = []
        for path, levels, encodings in zip(self.paths_, self.levels_, self.encodings_, strict=True):
            codes = levels.codes([rows.columns[name] for name in path])
            parts += [one.at(codes) for one in encodings]
        return self._framed(rows, np.column_stack(parts))

    def _fit(self, X: Any, y: Any) -> tuple[Rows, Array, list[Any]]:
        """Fit to all rows; the rows, the target's columns and the numbers of the levels."""
        self._check_options()
        rows = read_rows(self, X, fit=True, missing=True)
        target = self._target(target_of(self, y, rows.n))
        self.paths_ = self._paths(rows)
        read = [Levels.read([rows.columns[name] for name in path], self.missing) for path in self.paths_]
        self.levels_, codes = [levels for levels, _ in read], [numbers for _, numbers in read]
        self.encodings_ = [self._encode(target, numbers, levels) for levels, numbers in read]
        self._warn()
        return rows, target, codes

    def _warn(self) -> None:
        doubtful = [
            "/".join(path)
            for path, found in zip(self.paths_, self.encodings_, strict=True)
            if not all(one.certified for one in found)
        ]
        if doubtful:
            warnings.warn(
                f"the rows hardly determine the variance between the levels of {listing(doubtful)}, so that its smoothing "
                "is uncertain: a coarser column, or more rows for each level, would be better",
                ConvergenceWarning,
                stacklevel=users_level(),
            )

    def _encode(self, target: Array, codes: Any, levels: Levels) -> list[Encoding]:
        """Encodings of one path: one for each column of the target."""
        return [random_intercepts(one, codes, levels, self.family_, self.scale) for one in target.T]

    def _folds(self, n: int, y: Any) -> list[tuple[Any, Any]]:
        from sklearn.model_selection import KFold, check_cv

        whole = isinstance(self.cv, (int, np.integer)) and not isinstance(self.cv, bool)
        cv = KFold(int(self.cv), shuffle=True, random_state=self.random_state) if whole else check_cv(self.cv)
        try:
            folds = list(cv.split(np.zeros((n, 1)), y))
        except ValueError as error:
            if "groups" not in str(error):
                raise
            raise OptionError(
                f"cv={self.cv!r} splits by groups, which fit_transform is not given: give the folds themselves, "
                "cv=list(GroupKFold(5).split(X, y, groups))"
            ) from None
        seen = np.bincount(np.concatenate([test for _, test in folds]), minlength=n)
        if not np.all(seen == 1) or any(np.intersect1d(train, test).size for train, test in folds):
            raise OptionError(
                f"cv={self.cv!r} must put each row into one test fold, and into no training rows of that fold: take a "
                "number of folds, a splitter such as KFold, or a list of such folds"
            )
        return folds

    # ---- options and target --------------------------------------------------------------------------------------

    def _check_options(self) -> None:
        options: dict[str, tuple[Any, ...]] = {
            "target_type": TARGETS,
            "family": (None, *LINKS),
            "scale": ("response", "link"),
            "missing": ("population", "level"),
            "remainder": ("passthrough", "drop"),
        }
        for name, allowed in options.items():
            value = getattr(self, name)
            if value not in allowed:
                raise OptionError(f"{name}={value!r} is not known: take {', '.join(repr(one) for one in allowed)}")

    def _target(self, y: NDArray[Any]) -> Array:
        """The target as columns (n, 1) or (n, classes); sets what the fitted encoder knows of it."""
        self.target_type_ = self._type(y)
        self.classes_ = None
        self.family_ = self.family or ("gaussian" if self.target_type_ == "continuous" else "binomial")
        if self.target_type_ == "continuous":
            try:
                values = y.astype(np.float64)[:, None]
            except (TypeError, ValueError):
                raise DataError(f"the target is {y[0]!r} in the first row where a number is needed; name its classes by "
                    "target_type='binary' or 'multiclass'") from None
            if self.family_ == "binomial" and not np.isin(values, (0, 1)).all():
                raise DataError("family='binomial' needs a target of two classes, or zeros and ones")
            self.target_mean_: Any = float(values.mean())
            return np.asarray(values)
        self.classes_ = np.unique(y)
        if self.family_ not in ("gaussian", "binomial"):
            raise OptionError(
                f"family={self.family_!r} is for numbers, but the target has classes; take 'binomial' or 'gaussian', or say "
                "target_type='continuous'"
            )
        if self.target_type_ == "binary" and len(self.classes_) > 2:
            raise DataError(f"target_type='binary', but the target has {len(self.classes_)} classes")
        shown = self.classes_[-1:] if self.target_type_ == "binary" else self.classes_
        values = (y[:, None] == shown[None, :]).astype(np.float64)
        shares = values.mean(axis=0)
        self.target_mean_ = float(shares[0]) if self.target_type_ == "binary" else shares
        return np.asarray(values)

    def _type(self, y: NDArray[Any]) -> str:
        if self.target_type != "auto":
            return self.target_type
        if self.family not in (None, "gaussian", "binomial"):
            return "continuous"
        found = str(type_of_target(y, input_name="y"))
        if found not in TARGETS:
            raise ValueError(
                f"Unknown label type: {found!r}: give one column of numbers or of classes (of Python objects: say which by "
                "target_type=)"
            )
        count = len(np.unique(y))
        if found == "multiclass" and y.dtype.kind in "iuf" and count > MOST_CLASSES:
            raise DataError(
                f"the target has {count} different whole numbers, which may be amounts or classes: say "
                "target_type='continuous' or target_type='multiclass'"
            )
        return found

    def _paths(self, rows: Rows) -> list[tuple[str, ...]]:
        """The columns of each path, by name."""
        if self.columns is None:
            return [(name,) for name in rows.names]
        if isinstance(self.columns, (str, bytes)) or not isinstance(self.columns, Sequence | np.ndarray):
            raise OptionError(f"columns={self.columns!r} must be a list of columns, such as ['city', ('region', 'city')]")
        paths = []
        for one in self.columns:
            if isinstance(one, str) and one not in rows.columns and "/" in one:
                one = tuple(part.strip() for part in one.split("/"))
            path = tuple(_column(part, rows) for part in (one if isinstance(one, tuple | list) else (one,)))
            if not path or len(set(path)) < len(path):
                raise OptionError(f"columns has the path {one!r}: it needs one column at least, and none twice")
            paths.append(path)
        if not paths or len(set(paths)) < len(paths):
            raise OptionError(f"columns={self.columns!r} must name one column at least, and none twice")
        stems = ["/".join(path) for path in paths]
        twice = next((stem for stem in stems if stems.count(stem) > 1), None)
        if twice is not None:  # a column whose name has a slash beside a path
            raise OptionError(f"columns={self.columns!r} encodes {twice!r} twice, by a column and a path; rename the column")
        return paths

    # ---- what comes out ------------------------------------------------------------------------------------------

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """Names of the columns that come out: of a path ``region/city``, of a class ``city_class``."""
        check_is_fitted(self, "encodings_")
        names = [str(name) for name in _check_feature_names_in(self, input_features)]
        return np.array(self._names_out(dict(zip(self._names_in(), names, strict=True))), dtype=object)

    def _names_out(self, renamed: dict[str, str]) -> list[str]:
        """All names; a column passed through that bears the name of an encoded one is ``<name>_given``."""
        out = self._encoded(renamed)
        for name in self._others():
            own = renamed[name]
            while own in out:
                own += "_given"
            out.append(own)
        return out

    def _names_in(self) -> list[str]:
        names = getattr(self, "feature_names_in_", None)
        return [f"x{i}" for i in range(self.n_features_in_)] if names is None else [str(name) for name in names]

    def _encoded(self, renamed: dict[str, str]) -> list[str]:
        stems = ["/".join(renamed[name] for name in path) for path in self.paths_]
        if self.target_type_ != "multiclass":
            return stems
        assert self.classes_ is not None
        return [f"{stem}_{label}" for stem in stems for label in self.classes_]

    def _others(self) -> list[str]:
        """Columns that are passed through."""
        used = {name for path in self.paths_ for name in path}
        return [] if self.remainder == "drop" else [name for name in self._names_in() if name not in used]

    def _framed(self, rows: Rows, encoded: Array) -> Any:
        """Array for an array, frame for a frame; as `set_output` says where it does."""
        from sklearn.utils._set_output import _get_output_config

        wanted = _get_output_config("transform", self)["dense"]
        kind = rows.kind if wanted == "default" else wanted
        others = self._others()
        if kind == "array":
            more = [rows.columns[name].to_numpy() for name in others]
            return np.column_stack([encoded, *more]) if _all_numbers(more) else _objects(encoded, more)
        names = self._names_out({name: name for name in rows.names})
        passed = (rows.columns[name].to_numpy() if kind != "pandas" else rows.columns[name].array for name in others)
        columns: dict[str, Any] = dict(zip(names, [*encoded.T, *passed], strict=True))
        out = like(kind, columns)
        if rows.index is not None and kind == "pandas":
            out.index = rows.index
        return out

    def encoding_table(self) -> Any:
        """Every known level with its encoding.

        Returns
        -------
        pandas frame
            path, class (None for a continuous target), depth (from 1), level (tuple of labels from the top; empty for the
            population, depth 0), encoding, sd_between (of the levels at this depth, on the link's scale).
        """
        check_is_fitted(self, "encodings_")
        labels = [None] if self.classes_ is None else list(self.classes_[-1:])
        if self.target_type_ == "multiclass" and self.classes_ is not None:
            labels = list(self.classes_)
        lines: list[tuple[Any, ...]] = []
        for path, levels, encodings in zip(self.paths_, self.levels_, self.encodings_, strict=True):
            for label, one in zip(labels, encodings, strict=True):
                stem = ("/".join(path), label)
                lines.append((*stem, 0, (), one.population, np.nan))
                for depth, values in enumerate(one.values):
                    pairs = zip(levels.names(depth), values.tolist(), strict=True)
                    lines += [(*stem, depth + 1, name, value, float(one.sds[depth])) for name, value in pairs]
        import pandas as pd

        return pd.DataFrame(lines, columns=["path", "class", "depth", "level", "encoding", "sd_between"])


def _column(one: Any, rows: Rows) -> str:
    """A column by its name or position."""
    if isinstance(one, (int, np.integer)) and not isinstance(one, bool) and str(one) not in rows.columns:
        if -len(rows.names) <= one < len(rows.names):
            return rows.names[one]
        raise ColumnError(f"there is no column {one}; X has {len(rows.names)} columns, counted from 0")
    if str(one) in rows.columns:
        return str(one)
    hint = nearest(one, rows.names)
    raise ColumnError(f"there is no column {str(one)!r} in X; {hint or 'the columns are ' + listing(rows.names)}")


def _all_numbers(columns: list[NDArray[Any]]) -> bool:
    return all(one.dtype.kind in "fiub" for one in columns)


def _objects(encoded: Array, more: list[NDArray[Any]]) -> NDArray[Any]:
    return np.column_stack([encoded.astype(object), *(one.astype(object) for one in more)])
