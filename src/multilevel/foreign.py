"""Tables and columns of other libraries, as pandas Series and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import DataError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["arrow_out", "as_narwhals", "dense", "from_narwhals", "from_value", "inspect", "polars_out", "series_out"]


def inspect(data: Any) -> tuple[str, list[Any]]:
    """Kind of a data object, and its column labels where they are cheap."""
    module = type(data).__module__.partition(".")[0]
    if module == "pandas" and hasattr(data, "columns"):
        if data.columns.nlevels > 1:
            raise DataError("the columns have several header levels; flatten them to one name each")
        return "pandas", list(data.columns)
    if isinstance(data, Mapping):
        return "dict", list(data)
    if module in ("polars", "pyarrow"):
        return module, []
    if isinstance(data, (str, bytes, list, tuple, set, int, float, type(None))) or module == "numpy":
        if module == "numpy" and getattr(data, "dtype", None) is not None and data.dtype.names:
            raise DataError("a structured NumPy array is no data frame; pass pandas.DataFrame(data)")
        raise DataError(
            f"the data must be a data frame (pandas, polars, pyarrow) or a dict of columns, not "
            f"{type(data).__name__}"
        )
    return "other", []


def as_narwhals(data: Any) -> Any:
    import narwhals as nw

    try:
        return nw.from_native(data)
    except TypeError:
        raise DataError(
            "the data must be a data frame (pandas, polars, pyarrow) or a dict of columns, not "
            f"{type(data).__name__}"
        ) from None


def dense(series: pd.Series[Any]) -> pd.Series[Any]:
    import pandas as pd

    if isinstance(series.dtype, pd.SparseDtype):
        return pd.Series(np.asarray(series), name=series.name)
    return series


def from_value(name: str, value: Any) -> pd.Series[Any]:
    """Make a Series of one entry of a dict."""
    import pandas as pd

    if isinstance(value, pd.Series):
        return value.reset_index(drop=True)
    if isinstance(value, (np.ndarray, list, tuple, range, pd.Categorical, pd.Index)) or hasattr(
        value, "__array__"
    ):
        if type(value).__module__.partition(".")[0] in ("polars", "pyarrow"):
            return from_foreign(value)
        if np.ndim(value) == 1 if isinstance(value, np.ndarray) else True:
            return pd.Series(value)
    raise DataError(
        f"column {name!r} is not a one-dimensional array but {type(value).__name__}; for one row write [value]"
    )


def from_foreign(value: Any) -> pd.Series[Any]:
    import narwhals as nw

    if type(value).__module__.startswith("pyarrow"):
        import pyarrow as pa

        value = value if isinstance(value, pa.ChunkedArray) else pa.chunked_array([value])
    return from_narwhals(nw.from_native(value, series_only=True))


def from_narwhals(series: Any) -> pd.Series[Any]:
    """Make a pandas Series of a polars or arrow column, without pyarrow where polars can do alone."""
    import narwhals as nw
    import pandas as pd

    dtype = series.dtype
    holes = bool(series.null_count())
    if isinstance(dtype, nw.Decimal):
        series, dtype = series.cast(nw.Float64), nw.Float64()
    if dtype.is_integer() and holes:
        mask = series.is_null().to_numpy()
        return pd.Series(pd.arrays.IntegerArray(series.fill_null(0).to_numpy().copy(), mask.copy()))
    if dtype == nw.Boolean and holes:
        mask = series.is_null().to_numpy()
        return pd.Series(pd.arrays.BooleanArray(series.fill_null(False).to_numpy().copy(), mask.copy()))
    if isinstance(dtype, nw.Enum):
        texts = series.cast(nw.String).to_numpy()
        out = pd.Series(pd.Categorical(texts, categories=list(dtype.categories)))
        out.attrs["enum"] = True  # its categories stand in an order that somebody wrote down
        return out
    if isinstance(dtype, nw.Categorical):
        if type(series.to_native()).__module__.startswith("pyarrow"):
            return pd.Series(series.to_native().to_pandas())
        out = pd.Series(series.cast(nw.String).to_numpy())
        out.attrs["unordered"] = True  # polars keeps no order of these categories
        return out
    return pd.Series(series.to_numpy())


def series_out(values: Any) -> Any:
    """Give polars and arrow plain lists for object arrays, with None for missing values."""
    values = np.asarray(values)
    if values.dtype != object:
        return values
    return [None if value is None or value != value else value for value in values.tolist()]


def polars_out(values: Any) -> Any:
    """As `series_out`; ordered categories become an Enum."""
    import pandas as pd

    if not isinstance(values, pd.Categorical):
        return series_out(values)
    import polars as pl

    texts = [str(one) for one in values.categories]
    return pl.Series([None if code < 0 else texts[code] for code in values.codes], dtype=pl.Enum(texts))


def arrow_out(values: Any) -> Any:
    """As `series_out`; categories stay a dictionary."""
    import pandas as pd

    return values if isinstance(values, pd.Categorical) else series_out(values)
