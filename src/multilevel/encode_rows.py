"""Rows as scikit-learn hands them over: arrays, lists, or frames of any library, as columns by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import DataError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Rows", "read_rows", "target_of"]


@dataclass(frozen=True)
class Rows:
    """Columns of X.

    Attributes
    ----------
    kind : str
        "array", "pandas", "polars" or "pyarrow".
    columns : dict
        Name -> Series; those of an array, and of a frame whose columns are numbered, are x0, x1 and so on.
    n : int
    index : Index or None
        Of a pandas frame.
    """

    kind: str
    columns: dict[str, pd.Series[Any]]
    n: int
    index: Any

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.columns)


def read_rows(estimator: Any, X: Any, fit: bool, missing: bool) -> Rows:
    """Read X and check its columns against those of `fit` as scikit-learn does.

    Parameters
    ----------
    estimator : object
        Keeps the number and names of the columns.
    X : array, list or data frame (rows, columns)
    fit : bool
        Whether to keep them, or to compare.
    missing : bool
        Whether an array may have missing values; those of frames are left to the model.

    Raises
    ------
    ValueError
        As scikit-learn words it: other columns than in `fit`, no rows, infinite numbers.
    DataError
        Two columns of a frame have one name.
    """
    import pandas as pd
    from sklearn.utils.validation import validate_data

    from .frame import Table

    module = type(X).__module__.partition(".")[0]
    if module in ("pandas", "polars", "pyarrow") and (hasattr(X, "columns") or hasattr(X, "column_names")):
        _check_unique(X)
        validate_data(estimator, X, reset=fit, skip_check_array=True)
        table = Table(X)
        names = list(table.names)
        if getattr(estimator, "feature_names_in_", None) is None:  # numbered columns have no names for scikit-learn
            names = [f"x{at}" for at in range(len(table.names))]
        loaded = table.load(table.names)
        columns = {name: loaded[own].reset_index(drop=True) for name, own in zip(names, table.names, strict=True)}
        if len(X) == 0:
            raise ValueError(f"Found array with 0 sample(s) (shape={X.shape}) while a minimum of 1 is required.")
        return Rows(table.kind, columns, len(X), getattr(X, "index", None) if table.kind == "pandas" else None)
    array = validate_data(
        estimator, X, reset=fit, dtype=None, ensure_all_finite="allow-nan" if missing else True, accept_sparse=False
    )
    names = _array_names(estimator, array.shape[1])
    made = {name: pd.Series(array[:, i]).infer_objects() for i, name in enumerate(names)}
    return Rows("array", made, len(array), None)


def _check_unique(X: Any) -> None:
    """Told in our words, before scikit-learn or the frame's library meets them."""
    labels = [str(one) for one in (X.column_names if hasattr(X, "column_names") else X.columns)]
    twice = next((one for one in labels if labels.count(one) > 1), None)
    if twice is not None:
        raise DataError(f"column names must differ, but {twice!r} stands more than once in X; rename one of them")


def _array_names(estimator: Any, count: int) -> list[str]:
    """x0, x1, ...; the names of the frame that was fitted where there was one."""
    names = getattr(estimator, "feature_names_in_", None)
    return [f"x{i}" for i in range(count)] if names is None else [str(name) for name in names]


def target_of(estimator: Any, y: Any, rows: int) -> np.ndarray[Any, Any]:
    """The target as an array (rows,), complete and as long as X."""
    import pandas as pd
    from sklearn.utils import check_array, column_or_1d

    if y is None:
        raise ValueError(
            f"This {type(estimator).__name__} estimator requires y to be passed, but the target y is None."
        )
    values = y.to_numpy() if hasattr(y, "to_numpy") else y
    if isinstance(values, np.ndarray) and values.dtype.kind == "O" and values.ndim == 1:
        missing = np.flatnonzero(pd.isna(values))
        if len(missing):
            raise DataError(f"y misses its value in row {missing[0]} (counting from 0); leave such rows out")
        values = pd.Series(values).infer_objects().to_numpy()
    values = column_or_1d(check_array(values, ensure_2d=False, dtype=None, input_name="y"), warn=True)
    if len(values) != rows:
        raise ValueError(f"Found input variables with inconsistent numbers of samples: [{rows}, {len(values)}]")
    return np.asarray(values)
