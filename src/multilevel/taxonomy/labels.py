"""Labels as users give them: names, paths, texts to split, one column per level."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError

__all__ = ["SEPARATOR", "Path", "as_path", "blank", "distinct_labels", "label_columns", "shown"]

Path = tuple[Hashable, ...]

SEPARATOR = "/"  # joins a path where a name alone would mean several nodes


def distinct_labels(y: Any, separator: str | None = None) -> tuple[npt.NDArray[np.intp], list[Any]]:
    """Rows' labels as numbers and the labels they stand for: names, or paths (tuples) where there are several columns.

    Raises
    ------
    DataError
        A missing label, or a blank above a name.
    """
    import pandas as pd

    columns = label_columns(y)
    numbers = []
    values: list[Any] = []
    for column in columns:
        try:
            code, unique = pd.factorize(column)
        except TypeError:
            bad = next(label for label in column if getattr(type(label), "__hash__", None) is None)
            raise DataError(f"the label {bad!r} cannot be a class: give a name or a tuple of names") from None
        code = np.where(np.isin(code, [k for k, value in enumerate(unique) if blank(value)]), -1, code)
        numbers.append(code)
        values.append(unique)
    table = np.column_stack(numbers)
    missing = np.flatnonzero(table[:, 0] < 0)
    if len(missing):
        raise DataError(
            f"row {missing[0]} has no label ({len(missing)} such rows): drop these rows, or give their class"
        )
    gaps: Any = np.flatnonzero(np.any((table[:, :-1] < 0) & (table[:, 1:] >= 0), axis=1)) if len(columns) > 1 else []
    if len(gaps):
        raise DataError(f"row {gaps[0]} has a label below a blank one ({len(gaps)} such rows): fill the level above")
    kept, codes = np.unique(table, axis=0, return_inverse=True)
    labels: list[Any] = [tuple(values[k][c] for k, c in enumerate(row) if c >= 0) for row in kept]
    if len(columns) == 1:
        labels = [label[0] for label in labels]
        if separator is not None:
            labels = [as_path(label, separator) for label in labels]
    return np.asarray(codes).reshape(-1), labels


def as_path(label: Any, separator: str | None) -> Path:
    """The path a label gives: a tuple as it is, a text split at the separator, else a path of one name."""
    if isinstance(label, (tuple, list, np.ndarray)):
        parts = [part for part in label if not blank(part)]
        if any(blank(part) for part in label[: len(parts)]):
            raise DataError(f"the path {shown(tuple(label))} has a blank above a name")
        path = tuple(parts)
    elif isinstance(label, str) and separator:
        path = tuple(part.strip() for part in label.strip(separator).split(separator))
    else:
        path = (label,)
    if not path or any(blank(part) for part in path):
        raise DataError(f"the label {shown(label)} is blank or has a blank part")
    return path


def label_columns(y: Any) -> list[Any]:
    """One array of objects or numbers per column of labels."""
    import narwhals.stable.v1 as nw

    native = nw.from_native(y, allow_series=True, pass_through=True)
    if isinstance(native, nw.DataFrame):
        return [column.to_numpy() for column in native.iter_columns()]
    if isinstance(native, nw.Series):
        y = native.to_numpy()
    if isinstance(y, list) and any(isinstance(label, tuple) for label in y):
        width = max(len(label) if isinstance(label, tuple) else 1 for label in y)
        padded = [label if isinstance(label, tuple) else (label,) for label in y]
        return [np.array([row[k] if k < len(row) else None for row in padded], dtype=object) for k in range(width)]
    try:
        # NumPy would make texts of a list of numbers and texts
        mixed = isinstance(y, list) and len({isinstance(label, str) for label in y}) == 2
        array = np.array(y, dtype=object) if mixed else np.asarray(y)
    except ValueError:
        raise DataError(
            "the rows of y differ in their number of labels: give tuples, or fill the levels below with blanks"
        ) from None
    if array.ndim == 1 and array.dtype == object and any(isinstance(label, tuple) for label in array):
        return label_columns(list(array))
    if array.dtype.kind in "US":
        array = array.astype(object)  # pandas cannot number NumPy's texts
    if array.ndim not in (1, 2) or array.size == 0:
        raise DataError(f"y has the shape {array.shape}; give one label a row, or one column of labels per level")
    return [array] if array.ndim == 1 else list(array.T)


def blank(value: Any) -> bool:
    """Whether a label is missing: None, NaN, or a text of blanks."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return True
    try:
        return bool(value != value)
    except (TypeError, ValueError):
        return False


def shown(label: Any) -> str:
    return repr(SEPARATOR.join(str(part) for part in label)) if isinstance(label, tuple) else repr(label)
