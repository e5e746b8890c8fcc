"""`Model` as scikit-learn estimators: a regressor and a classifier."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from . import formula as formulas
from .encode_rows import Rows, read_rows, target_of
from .errors import DataError, OptionError
from .formula_tokens import quoted

if TYPE_CHECKING:
    from .fit import Fit

__all__ = ["MultilevelClassifier", "MultilevelRegressor"]

Array = NDArray[np.float64]
FAMILIES = (
    "gaussian", "poisson", "nbinom2", "nbinom1", "gamma", "inverse_gaussian", "beta", "student", "lognormal", "tweedie",
)  # fmt: skip
OF_CLASSES = ("binomial", "ordinal")


class FormulaEstimator(BaseEstimator):  # type: ignore[misc]
    """What the two estimators share: the formula, the fit, its storage in pickles."""

    formula: str | None
    groups: Any
    family: Any
    estimate: str
    reml: bool
    new_levels: str
    missing: str
    options: Mapping[str, Any] | None
    random_state: Any

    def _check_options(self, families: Sequence[str]) -> None:
        allowed: dict[str, tuple[str, ...]] = {
            "estimate": ("fit", "sample"),
            "new_levels": ("population", "error"),
            "missing": ("raise", "drop"),
        }
        if isinstance(self.family, str):
            allowed["family"] = tuple(families)
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise OptionError(
                    f"{name}={getattr(self, name)!r} is not known: take {', '.join(repr(one) for one in values)}"
                )
        if self.formula is not None and self.groups is not None:
            raise OptionError("give formula= or groups=, not both: a formula names its groups, as in (1 | school)")

    def _rows(self, X: Any, fit: bool) -> Rows:
        """Columns of X."""
        return read_rows(self, X, fit, missing=self.missing == "drop")

    def _text(self, rows: Rows) -> tuple[str, str]:
        """The formula, and the name of its response."""
        if self.formula is None:
            return self._default_text(rows)
        if not isinstance(self.formula, str):
            raise OptionError(f"formula={self.formula!r} must be a text such as 'y ~ x + (x | school)', or None")
        if self.formula.lstrip().startswith("~"):
            name = _free_name("target", rows)
            return f"{name} {self.formula.lstrip()}", name
        response = formulas.parse(self.formula).response.strip()
        if not response.isidentifier() and not (response.startswith("`") and response.endswith("`")):
            raise OptionError(
                f"the response {response!r} of the formula must be a plain name, which stands for y: transform y itself, "
                "for example with scikit-learn's TransformedTargetRegressor"
            )
        return self.formula, response.strip("`")

    def _default_text(self, rows: Rows) -> tuple[str, str]:
        """All columns as fixed effects, but for the groups, which have an intercept each."""
        if isinstance(self.groups, str) or (self.groups is not None and not isinstance(self.groups, Sequence)):
            raise OptionError(f"groups={self.groups!r} must be a list of columns, such as ['school']")
        given = [rows.names[one] if _is_position(one, rows) else str(one) for one in self.groups or ()]
        absent = [name for name in given if name not in rows.columns]
        if absent:
            raise OptionError(f"groups: {absent[0]!r} is not a column of X, which has {', '.join(rows.names)}")
        name = _free_name("target", rows)
        fixed = [quoted(one) for one in rows.names if one not in given]
        return f"{name} ~ {' + '.join(['1', *fixed, *(f'(1 | {quoted(one)})' for one in given)])}", name

    def _estimate(self, rows: Rows, y: NDArray[Any]) -> Any:
        """A Fit, or a Posterior, of y on the rows."""
        from sklearn.utils import check_random_state

        from .model import Model

        if rows.n < 2:
            raise DataError("X has 1 sample (n_samples = 1): a model needs more rows than that")
        text, name = self._text(rows)
        columns = {other: one for other, one in rows.columns.items() if other != name}
        options = dict(self.options or {})
        taken = {"family", "missing"} & set(options)
        if taken:
            raise OptionError(f"options has {sorted(taken)[0]!r}, which is an argument of {type(self).__name__} itself")
        model = Model(text, {name: y, **columns}, family=self.family, missing=self.missing, **options)
        self.formula_ = text
        if self.estimate == "fit":
            return model.fit(self.reml)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        return model.sample(seed=seed, progress=False)

    def _predicted(self, fit: Any, X: Any, **more: Any) -> dict[str, Array]:
        """Columns of the predictions of new rows."""
        rows = self._rows(X, fit=False)
        table = fit.predict(dict(rows.columns), new_levels=self.new_levels, **more)
        columns = {str(name): np.asarray(table[name], dtype=np.float64) for name in table.columns}
        holes = np.flatnonzero(np.isnan(next(iter(columns.values()))))
        if len(holes) and self.missing == "raise":
            raise DataError(
                f"row {holes[0]} of X (counting from 0) misses a value that the prediction needs: fill it first, or say "
                "missing='drop', which predicts NaN there"
            )
        return columns

    def __getstate__(self) -> dict[str, Any]:
        """Fits travel as the bytes of their files: without the rows they were made from."""
        state = dict(super().__getstate__())
        if "fits_" in state:
            state["fits_"] = [_to_bytes(fit) for fit in state["fits_"]]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        if "fits_" in state:
            state["fits_"] = [_from_bytes(one) for one in state["fits_"]]
        super().__setstate__(state)


class MultilevelRegressor(RegressorMixin, FormulaEstimator):  # type: ignore[misc]
    """A `Model` as a scikit-learn regressor.

    Parameters
    ----------
    formula : str, optional
        As for `Model`, over the columns of X (of an array: x0, x1, ...); its left side stands for y whatever it is called,
        and may be left out: ``"~ homework + (homework | school)"``.
    groups : list, optional
        In place of a formula: columns (names or positions) whose levels have intercepts, ``(1 | column)``; all other
        columns are fixed effects. None of both: all columns are fixed effects.
    family : str or Family
        "gaussian", "poisson", "nbinom2", "nbinom1", "gamma", "inverse_gaussian", "beta", "student", "lognormal", "tweedie".
    estimate : {"fit", "sample"}
        `Model.fit`, or `Model.sample`: then predictions are posterior means.
    reml : bool
        Of the gaussian family with estimate="fit".
    new_levels : {"population", "error"}
        What a level that `fit` has not seen gets, as under GroupKFold: the population's mean, or an error.
    missing : {"raise", "drop"}
        Rows that miss a value: an error, or left out of the fit and predicted as NaN.
    options : dict, optional
        Further options of `Model`: weights (a column's name), priors, contrasts, correlation, variance, ...
    random_state : int, RandomState or None
        Of estimate="sample".

    Attributes
    ----------
    fit_ : Fit or Posterior
        Of one that was pickled without its rows: see `Fit.save`.
    formula_ : str

    Examples
    --------
    >>> import multilevel as ml
    >>> pupils = ml.load("math10")
    >>> model = ml.MultilevelRegressor("math ~ homework + (homework | schid)").fit(pupils, pupils["math"])
    >>> round(model.fit_.sigma, 2)
    6.56
    """

    def __init__(
        self,
        formula: str | None = None,
        *,
        groups: Any = None,
        family: Any = "gaussian",
        estimate: str = "fit",
        reml: bool = True,
        new_levels: str = "population",
        missing: str = "raise",
        options: Mapping[str, Any] | None = None,
        random_state: Any = 0,
    ) -> None:
        self.formula = formula
        self.groups = groups
        self.family = family
        self.estimate = estimate
        self.reml = reml
        self.new_levels = new_levels
        self.missing = missing
        self.options = options
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        return _tags(super().__sklearn_tags__(), self.missing)

    def fit(self, X: Any, y: Any) -> Self:
        """Fit the model.

        Parameters
        ----------
        X : array or data frame (rows, columns)
            A column with the response's name is not looked at.
        y : array (rows,)

        Raises
        ------
        FormulaError, ColumnError, DataError, OptionError
            As for `Model` and `Model.fit`.
        """
        self._check_options(FAMILIES)
        rows = self._rows(X, fit=True)
        values = target_of(self, y, rows.n)
        try:
            values = values.astype(np.float64)
        except (TypeError, ValueError):
            raise DataError(f"y is {values[0]!r} in the first row where a number is needed; for classes take "
                "MultilevelClassifier") from None
        self.fits_ = [self._estimate(rows, values)]
        return self

    @property
    def fit_(self) -> Fit:
        """The fit, or posterior, with all its verbs."""
        check_is_fitted(self, "fits_")
        return self.fits_[0]  # type: ignore[no-any-return]

    def predict(self, X: Any) -> Array:
        """Mean response of rows (rows,), with the effects of the groups that are known."""
        check_is_fitted(self, "fits_")
        return self._predicted(self.fits_[0], X)["prediction"]

    def predict_interval(self, X: Any, level: float = 0.95) -> Array:
        """Limits (rows, 2) of new responses; that of a new group carries the variance between groups."""
        check_is_fitted(self, "fits_")
        columns = self._predicted(self.fits_[0], X, interval="prediction", level=level)
        low = next(name for name in columns if name.endswith("_low"))
        return np.column_stack([columns[low], columns[low.replace("_low", "_high")]])


class MultilevelClassifier(ClassifierMixin, FormulaEstimator):  # type: ignore[misc]
    """A `Model` as a scikit-learn classifier.

    Two classes: a binomial model of the second. More: one binomial model for each class against the rest, their
    probabilities scaled to add up to one; or, with ``family="ordinal"``, one cumulative model of the sorted classes.

    Parameters
    ----------
    formula, groups, estimate, new_levels, missing, options, random_state
        As for `MultilevelRegressor`.
    family : {"binomial", "ordinal"}

    Attributes
    ----------
    classes_ : array
        The columns of `predict_proba`.
    fits_ : list of Fit or Posterior
        One, or one for each class against the rest.
    formula_ : str

    Notes
    -----
    Classes that a fixed effect tells apart without error have no estimate, and `fit` says so; estimate="sample" with proper
    priors has one.
    """

    reml = True  # not an option: binomial and ordinal models have no REML

    def __init__(
        self,
        formula: str | None = None,
        *,
        groups: Any = None,
        family: str = "binomial",
        estimate: str = "fit",
        new_levels: str = "population",
        missing: str = "raise",
        options: Mapping[str, Any] | None = None,
        random_state: Any = 0,
    ) -> None:
        self.formula = formula
        self.groups = groups
        self.family = family
        self.estimate = estimate
        self.new_levels = new_levels
        self.missing = missing
        self.options = options
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        return _tags(super().__sklearn_tags__(), self.missing)

    def fit(self, X: Any, y: Any) -> Self:
        """Fit the model, or one for each class; y (rows,) holds the classes. Raises as `MultilevelRegressor.fit`."""
        self._check_options(OF_CLASSES)
        rows = self._rows(X, fit=True)
        values = target_of(self, y, rows.n)
        check_classification_targets(values)
        self.classes_, codes = np.unique(values, return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError(f"y has one class only, {str(self.classes_[0])!r}: a classifier needs at least two")
        if self.family == "ordinal":
            self.fits_ = [self._estimate(rows, codes)]
        else:
            shown = [1] if len(self.classes_) == 2 else range(len(self.classes_))
            self.fits_ = [self._estimate(rows, (codes == one).astype(np.float64)) for one in shown]
        return self

    def predict_proba(self, X: Any) -> Array:
        """Probability of each class (rows, classes), with the effects of the groups that are known."""
        check_is_fitted(self, "fits_")
        tables = [self._predicted(fit, X) for fit in self.fits_]
        if self.family == "ordinal":
            return np.column_stack([tables[0][str(at)] for at in range(len(self.classes_))])
        found = np.column_stack([table["prediction"] for table in tables])
        if len(self.classes_) == 2:
            return np.column_stack([1 - found[:, 0], found[:, 0]])
        total = found.sum(axis=1, keepdims=True)
        return np.asarray(found / np.where(total > 0, total, 1.0))

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class of rows (rows,)."""
        probability = self.predict_proba(X)
        return np.asarray(self.classes_[probability.argmax(axis=1)])


def _tags(tags: Any, missing: str) -> Any:
    tags.input_tags.allow_nan = missing == "drop"
    tags.input_tags.string = True
    return tags


def _is_position(one: Any, rows: Rows) -> bool:
    whole = isinstance(one, (int, np.integer)) and not isinstance(one, bool)
    return whole and str(one) not in rows.columns and -len(rows.names) <= one < len(rows.names)


def _free_name(name: str, rows: Rows) -> str:
    while name in rows.columns:
        name += "_"
    return name


def _to_bytes(fit: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fit.mlv"
        fit.save(path)
        return path.read_bytes()


def _from_bytes(content: bytes) -> Any:
    from .storage import read

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fit.mlv"
        path.write_bytes(content)
        return read(path)
