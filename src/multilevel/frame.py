"""Any data frame in, the same kind out; what a column holds; levels of factors.

Columns travel as pandas Series, one by one and without copies; only the columns used are ever touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import ColumnError, DataError, listing, nearest
from .foreign import arrow_out, as_narwhals, dense, from_narwhals, from_value, inspect, polars_out

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Table",
    "column_kind",
    "factor",
    "interaction",
    "label_text",
    "like",
    "lookup",
    "missing_mask",
    "numbers",
    "to_pandas",
]

Codes = NDArray[np.int32]
Labels = NDArray[Any]


class Table:
    """Columns by name of whatever the user gave.

    Attributes
    ----------
    kind : str
        "pandas", "polars", "pyarrow" or "dict": what tables handed back should be.
    names : tuple of str
        All columns.
    n : int
        Rows; known after `load`.
    """

    def __init__(self, data: Any) -> None:
        self._data: Any = data
        self._loaded: dict[str, pd.Series[Any]] = {}
        self.n = -1
        self.kind, labels = inspect(data)
        if self.kind not in ("pandas", "dict"):
            self._data = as_narwhals(data)
            labels = list(self._data.collect_schema().names())
        self._labels = {str(label): label for label in labels}
        self.names = tuple(map(str, labels))
        twice = len(self._labels) != len(self.names)
        self._twins = {name for name in self.names if self.names.count(name) > 1} if twice else set()

    def load(
        self, columns: Iterable[str], used_in: Mapping[str, str] | None = None
    ) -> dict[str, pd.Series[Any]]:
        """Return the columns as Series; `used_in` says where each is used, for messages."""
        wanted = list(dict.fromkeys(columns))
        for name in wanted:
            if name not in self._labels:
                raise self._unknown(name, (used_in or {}).get(name, ""))
            if name in self._twins:
                raise DataError(f"column names must differ, but {name!r} stands more than once; rename one of them")
        fresh = [name for name in wanted if name not in self._loaded]
        if fresh:
            self._fetch(fresh)
        return {name: self._loaded[name] for name in wanted}

    def _unknown(self, name: str, where: str) -> ColumnError:
        where = f" (in {where})" if where and where != name else ""
        hint = nearest(name, self.names)
        index = getattr(getattr(self._data, "index", None), "names", None) if self.kind == "pandas" else None
        if index is not None and name in index:
            hint = "it is in the index: call reset_index() first"
        return ColumnError(
            f"there is no column {name!r}{where} in the data; "
            + (hint or f"the columns are {listing(self.names)}")
        )

    def _fetch(self, names: list[str]) -> None:
        labels = [self._labels[name] for name in names]
        if self.kind == "pandas":
            series = [dense(self._data[label]) for label in labels]
        elif self.kind == "dict":
            series = [from_value(str(label), self._data[label]) for label in labels]
        else:
            part = self._data.select(labels)
            part = part.collect() if hasattr(part, "collect") else part
            series = [from_narwhals(part.get_column(label)) for label in labels]
        for name, one in zip(names, series, strict=True):
            if self.n >= 0 and len(one) != self.n:
                raise DataError(
                    f"columns differ in length: {name!r} has {len(one)} rows, others have {self.n}"
                )
            self.n = len(one)
            self._loaded[name] = one


def to_pandas(data: Any, columns: Iterable[str]) -> pd.DataFrame:
    """Return the named columns of any data frame as a pandas DataFrame."""
    import pandas as pd

    return pd.DataFrame(Table(data).load(columns), copy=False)


def like(native: Any, columns: Mapping[str, Any]) -> Any:
    """Make a data frame in the library of `native` (a frame, or "pandas", "polars", "pyarrow", "dict")."""
    kind = native if isinstance(native, str) else inspect(native)[0]
    if kind == "polars":
        import polars as pl

        return pl.DataFrame({name: polars_out(values) for name, values in columns.items()}, strict=False)
    if kind == "pyarrow":
        import pyarrow as pa

        return pa.table(
            {name: pa.array(arrow_out(values), from_pandas=True) for name, values in columns.items()}
        )
    import pandas as pd

    return pd.DataFrame(dict(columns))


def missing_mask(series: pd.Series[Any]) -> NDArray[np.bool_]:
    """True where a value is NaN, None, NA or NaT."""
    dtype = series.dtype
    if isinstance(dtype, np.dtype):
        if dtype.kind in "iub":
            return np.zeros(len(series), dtype=bool)
        if dtype.kind in "fc":
            return np.asarray(np.isnan(series.to_numpy()))
    return np.asarray(series.isna().to_numpy(dtype=bool))


def column_kind(series: pd.Series[Any], name: str) -> str:
    """Say what a column holds: "number", "bool", "text", "category", "ordered", "date".

    Raises
    ------
    DataError
        For mixed types, lists, complex numbers and the like.
    """
    import pandas as pd

    dtype = series.dtype
    if isinstance(dtype, np.dtype) and dtype.kind != "O":
        kind = {"b": "bool", "i": "number", "u": "number", "f": "number", "M": "date", "m": "date"}.get(
            dtype.kind, ""
        )
    elif isinstance(dtype, pd.CategoricalDtype):
        return "ordered" if dtype.ordered else "category"
    elif isinstance(dtype, pd.StringDtype):
        return "text"
    else:
        kind = _inferred(series, name)
    if not kind:
        raise DataError(
            f"column {name!r} holds {dtype} values, which cannot be used; convert it to numbers or text"
        )
    return kind


def numbers(series: pd.Series[Any], name: str, rows: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
    """Return a numeric or boolean column as float64, NaN where missing; no copy of one that is float64."""
    dtype = series.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "fiub":
        return np.asarray(series.to_numpy(), dtype=np.float64)
    kind = column_kind(series, name)
    if kind not in ("number", "bool"):
        raise not_numeric(series, name, kind, rows=rows)
    return np.asarray(series.to_numpy(dtype=np.float64, na_value=np.nan))


def not_numeric(
    series: pd.Series[Any],
    name: str,
    kind: str,
    where: str = "",
    rows: NDArray[np.int64] | None = None,
    advice: str = "",
) -> DataError:
    """Say that numbers are needed in a column that holds something else, with the first bad value.

    `rows` are the positions of the series in the user's data.
    """
    where = f" in {where}" if where and where != name else ""
    if kind == "date":
        value = series.dropna().iloc[0] if series.notna().any() else "nothing"
        return DataError(
            f"column {name!r}{where} holds dates ({value}) where numbers are needed; convert it first, "
            "for example to days since a start date"
        )
    position, value = _first_bad(series)
    if position is None:
        return DataError(
            f"column {name!r}{where} holds numbers written as text, such as {value!r}; convert it with "
            "astype(float)"
        )
    row = position if rows is None else int(rows[position])
    advice = advice or f"convert it to numbers, or use factor({name})"
    return DataError(
        f"column {name!r}{where} looks like text where numbers are needed, {value!r} in row {row} (counting "
        f"from 0); {advice}"
    )


def factor(series: Any, name: str) -> tuple[Codes, Labels]:
    """Return codes (-1 where missing) and levels of a column.

    Categoricals keep their order, unused levels dropped; everything else is sorted. Numbers must be whole.

    Raises
    ------
    DataError
        For numbers that are not whole, and for columns that mix types.
    """
    import pandas as pd

    if not isinstance(series, pd.Series):
        series = pd.Series(series)
    kind = column_kind(series, name)
    if kind in ("category", "ordered"):
        return _from_categorical(series)
    if kind in ("number", "bool"):
        return _from_numbers(series, name, kind)
    codes, levels = pd.factorize(series, sort=True)
    return codes.astype(np.int32), _objects(levels)


def lookup(series: Any, name: str, levels: Labels) -> tuple[Codes, Labels]:
    """Return codes of a column on known `levels`, -1 missing, -2 not among them, and the unknown labels."""
    codes, own = factor(series, name)
    position = {_key(label): index for index, label in enumerate(levels.tolist())}
    table = np.fromiter(
        (position.get(_key(label), -2) for label in own.tolist()), dtype=np.int32, count=len(own)
    )
    known = np.append(table, np.int32(-1))[codes]  # code -1 reads the last entry
    return known, own[table == -2]


def interaction(codes: Sequence[Codes], levels: Sequence[Labels]) -> tuple[Codes, Labels]:
    """Cross factors: observed combinations only, by the first factor, then the second; labels "a:b"."""
    out, parts = combine(codes, [len(one) for one in levels])
    texts = [[label_text(label) for label in one.tolist()] for one in levels]
    labels = np.empty(len(parts), dtype=object)
    for index, combination in enumerate(parts.tolist()):
        labels[index] = ":".join(text[code] for text, code in zip(texts, combination, strict=True))
    return out, labels


def combine(codes: Sequence[Codes], sizes: Sequence[int]) -> tuple[Codes, NDArray[np.int32]]:
    """Codes of the observed combinations, and the component codes (J, m) of each."""
    key = np.asarray(codes[0], dtype=np.int64)
    current, parts = compress(key)
    table = parts.reshape(-1, 1)
    for more, size in zip(codes[1:], sizes[1:], strict=True):
        size = max(int(size), 1)
        joint = current.astype(np.int64) * size + more
        joint[(current < 0) | (more < 0)] = -1
        current, observed = compress(joint)
        table = np.column_stack([table[observed // size], observed % size])
    return current, table.astype(np.int32)


def compress(keys: NDArray[np.int64]) -> tuple[Codes, NDArray[np.int64]]:
    """Renumber non-negative keys 0, 1, ... in order; negative ones become -1. Also the keys observed."""
    if not len(keys) or (top := int(keys.max())) < 0:
        return np.full(len(keys), -1, dtype=np.int32), np.empty(0, dtype=np.int64)
    if top <= 8 * len(keys) + 1000:  # count instead of sorting
        seen = np.zeros(top + 2, dtype=bool)
        seen[keys] = True  # -1 marks the last, spare entry
        seen[-1] = False
        table = np.cumsum(seen, dtype=np.int32) - np.int32(1)
        table[-1] = -1
        return table[keys], np.flatnonzero(seen)
    observed, inverse = np.unique(keys, return_inverse=True)
    shift = int(observed[0] < 0)
    return (inverse - shift).astype(np.int32), observed[shift:]


def label_text(label: Any) -> str:
    """Show a level as text; midnight timestamps as dates."""
    if hasattr(label, "isoformat"):
        return str(label.isoformat()).removesuffix("T00:00:00")
    return str(label)


# -- what a column holds ---------------------------------------------------------------------------


def _inferred(series: pd.Series[Any], name: str) -> str:
    """Kind of an object, nullable or arrow column."""
    import pandas as pd
    from pandas.api import types

    if series.dtype != object:
        if types.is_bool_dtype(series.dtype):
            return "bool"
        if types.is_numeric_dtype(series.dtype):
            return "number"
        if types.is_string_dtype(series.dtype):
            return "text"
        return "date" if getattr(series.dtype, "kind", "") in "mM" else ""
    found = types.infer_dtype(series, skipna=True)
    if found in ("mixed", "mixed-integer"):
        kinds: dict[str, Any] = {}
        for value in series[series.notna()]:
            kinds.setdefault(type(value).__name__, value)
        shown = " and ".join(f"{kind} ({value!r})" for kind, value in list(kinds.items())[:3])
        if len(kinds) < 2:
            raise DataError(
                f"column {name!r} holds {shown} values, which cannot be used; convert it to numbers or text"
            )
        raise DataError(
            f"column {name!r} mixes types: {shown}; convert it to one, for example with astype(str)"
        )
    if found == "empty":
        return "number" if pd.isna(series).all() else ""
    return {
        "string": "text",
        "boolean": "bool",
        "integer": "number",
        "floating": "number",
        "decimal": "number",
        "mixed-integer-float": "number",
        "date": "date",
        "datetime": "date",
        "datetime64": "date",
        "timedelta": "date",
        "timedelta64": "date",
        "period": "date",
    }.get(found, "")


def _first_bad(series: pd.Series[Any]) -> tuple[int | None, Any]:
    """Position and value of the first entry that is no number; no position when all are."""
    import pandas as pd

    values = series.astype(object)
    converted = pd.to_numeric(values, errors="coerce")
    bad = np.flatnonzero(converted.isna().to_numpy() & values.notna().to_numpy())
    if len(bad):
        return int(bad[0]), values.iloc[int(bad[0])]
    return None, (values.iloc[0] if len(values) else None)


def _from_categorical(series: pd.Series[Any]) -> tuple[Codes, Labels]:
    codes = np.asarray(series.cat.codes.to_numpy(), dtype=np.int64)
    labels = _objects(series.cat.categories)
    compact, used = compress(codes)
    return compact, labels[used]


def _from_numbers(series: pd.Series[Any], name: str, kind: str) -> tuple[Codes, Labels]:
    """Whole numbers and booleans, by counting where the range is small."""
    holes = missing_mask(series)
    any_holes = bool(holes.any())
    full = series[~holes] if any_holes else series
    values = np.asarray(full.to_numpy())
    if values.dtype == object or values.dtype.kind == "b":
        values = values.astype(np.float64) if kind == "number" else values.astype(np.int64)
    if values.dtype.kind == "f":
        values = _whole(values, name)
    dense, levels = _count(values)
    codes = dense
    if any_holes:
        codes = np.full(len(series), -1, dtype=np.int32)
        codes[~holes] = dense
    return codes, (levels.astype(bool) if kind == "bool" else levels)


def _whole(values: NDArray[Any], name: str) -> NDArray[Any]:
    with np.errstate(all="ignore"):
        whole = values.astype(np.int64)
    if not np.array_equal(whole, values):
        bad = values[whole != values][0]
        raise DataError(
            f"column {name!r} has the value {bad}, so it is no factor; convert it to text, or cut it into "
            "classes, if each value is a level"
        )
    return whole


def _count(values: NDArray[Any]) -> tuple[Codes, Labels]:
    if not len(values):
        return np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int64)
    low, high = int(values.min()), int(values.max())
    if high - low <= 8 * len(values) + 1000 and high < 2**62 and low > -(2**62):
        shifted = values.astype(np.int64, copy=False) - low if low else values.astype(np.int64, copy=False)
        codes, observed = compress(shifted)
        return codes, (observed + low).astype(values.dtype, copy=False)
    levels, inverse = np.unique(values, return_inverse=True)
    return inverse.astype(np.int32), levels


def _objects(levels: Any) -> Labels:
    """Labels as a plain object array of the user's own values."""
    values = list(levels)
    out = np.empty(len(values), dtype=object)
    out[:] = values
    if all(type(value) is int for value in values) and values:
        return np.asarray(values)
    return out


def _key(label: Any) -> Any:
    """Make equal labels of different types meet: 3 and 3.0, numpy and Python, but not 1 and True and "1"."""
    if isinstance(label, (bool, np.bool_)):
        return ("bool", bool(label))
    if isinstance(label, np.generic):
        label = label.item()
    return label
