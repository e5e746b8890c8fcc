"""Rows as scikit-learn hands them over: arrays, lists, or frames of any library, as columns by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

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
        Name -> Series; those of an array are x0, x1 and so on.
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
        validate_data(estimator, X, reset=fit, skip_check_array=True)
        table = Table(X)
        columns = {name: one.reset_index(drop=True) for name, one in table.load(table.names).items()}
        if len(X) == 0:
            raise ValueError(f"Found array with 0 sample(s) (shape={X.shape}) while a minimum of 1 is required.")
        return Rows(table.kind, columns, len(X), getattr(X, "index", None) if table.kind == "pandas" else None)
    array = validate_data(
        estimator, X, reset=fit, dtype=None, ensure_all_finite="allow-nan" if missing else True, accept_sparse=False
    )
    names = _array_names(estimator, array.shape[1])
    made = {name: pd.Series(array[:, i]).infer_objects() for i, name in enumerate(names)}
    return Rows("array", made, len(array), None)


def _array_names(estimator: Any, count: int) -> list[str]:
    """x0, x1, ...; the names of the frame that was fitted where there was one."""
    names = getattr(estimator, "feature_names_in_", None)
    return [f"x{i}" for i in range(count)] if names is None else [str(name) for name in names]


def target_of(estimator: Any, y: Any, rows: int) -> np.ndarray[Any, Any]:
    """The target as an array (rows,), complete and as long as X."""
    from sklearn.utils import check_array, column_or_1d

    if y is None:
        raise ValueError(
            f"This {type(estimator).__name__} estimator requires y to be passed, but the target y is None."
        )
    values = y.to_numpy() if hasattr(y, "to_numpy") else y
    values = column_or_1d(check_array(values, ensure_2d=False, dtype=None, input_name="y"), warn=True)
    if len(values) != rows:
        raise ValueError(f"Found input variables with inconsistent numbers of samples: [{rows}, {len(values)}]")
    return np.asarray(values)
