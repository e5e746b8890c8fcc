"""Bundled data: loader, source, licence.

Each set is a CSV file (the largest gzipped) beside `data/index.json`, which holds its columns and, for
factors, R's order of the levels. pandas reads them; polars is used on request only. Nothing is fetched from a
network.
"""

from __future__ import annotations

import functools
import gzip
import io
import json
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from .errors import OptionError, nearest

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

__all__ = ["datasets", "load"]

_LIBRARIES = ("pandas", "polars")


@overload
def load(name: str, as_: Literal["pandas"] = "pandas") -> pd.DataFrame: ...
@overload
def load(name: str, as_: Literal["polars"]) -> pl.DataFrame: ...
def load(name: str, as_: str = "pandas") -> Any:
    """Read one bundled data set.

    Parameters
    ----------
    name : str
        One of the names in `datasets()`, such as "sleepstudy".
    as_ : {"pandas", "polars"}
        Library of the frame returned.

    Returns
    -------
    pandas.DataFrame or polars.DataFrame
        A new frame on every call. Factors are `Categorical` with R's order of the levels, ordered where R's
        are, and their labels are strings even where they look like numbers. In polars they are `Enum`, which
        keeps the order of the levels but not whether a factor is ordered.

    Raises
    ------
    OptionError
        If there is no such set or library, or polars is asked for and not installed.

    Examples
    --------
    >>> import multilevel as ml
    >>> ml.load("sleepstudy").shape
    (180, 3)
    """
    _check_library(as_)
    index = _index()
    if not isinstance(name, str) or name not in index:
        hint = nearest(name, index)
        raise OptionError(
            f"there is no bundled data set {name!r}{'; ' + hint if hint else ''}. "
            f"There are: {', '.join(index)}"
        )
    entry = index[name]
    if as_ == "polars":
        return _read_polars(_bytes(entry["file"]), entry["columns"])
    return _read_pandas(_bytes(entry["file"]), entry["columns"])


@overload
def datasets(as_: Literal["pandas"] = "pandas") -> pd.DataFrame: ...
@overload
def datasets(as_: Literal["polars"]) -> pl.DataFrame: ...
def datasets(as_: str = "pandas") -> Any:
    """List the bundled data sets.

    Parameters
    ----------
    as_ : {"pandas", "polars"}
        Library of the frame returned.

    Returns
    -------
    pandas.DataFrame or polars.DataFrame
        One row per set: name, rows, columns (their names), grouping, description, source, licence.
    """
    _check_library(as_)
    rows: dict[str, list[Any]] = {
        "name": [],
        "rows": [],
        "columns": [],
        "grouping": [],
        "description": [],
        "source": [],
        "licence": [],
    }
    for name, entry in _index().items():
        rows["name"].append(name)
        rows["columns"].append(", ".join(entry["columns"]))
        for key in ("rows", "grouping", "description", "source", "licence"):
            rows[key].append(entry[key])
    if as_ == "polars":
        return _polars().DataFrame(rows)
    import pandas as pd

    return pd.DataFrame(rows)


def _check_library(as_: object) -> None:
    if as_ not in _LIBRARIES:
        raise OptionError(f"as_ must be 'pandas' or 'polars', not {as_!r}")


@functools.cache
def _index() -> dict[str, dict[str, Any]]:
    """The parsed index: name -> file, rows, columns, grouping, ... One shared object, not to be changed."""
    text = (resources.files(__package__) / "data" / "index.json").read_text(encoding="utf-8")
    index: dict[str, dict[str, Any]] = json.loads(text)
    return index


def _bytes(file: str) -> bytes:
    """The CSV text of a bundled file, unpacked."""
    raw = (resources.files(__package__) / "data" / file).read_bytes()
    return gzip.decompress(raw) if file.endswith(".gz") else raw


def _read_pandas(text: bytes, columns: dict[str, Any]) -> pd.DataFrame:
    """Read CSV text with the types of the index."""
    import pandas as pd

    plain: dict[str, Any] = {"int": "int64", "float": "float64", "str": str}
    types: dict[str, Any] = {}
    for name, kind in columns.items():
        if isinstance(kind, str):
            types[name] = plain[kind]
        elif kind["levels"] == "numeric":
            types[name] = "int64"
        else:
            types[name] = pd.CategoricalDtype(kind["levels"], ordered=kind["ordered"])
    # before pandas 3.1 the default parser may be off by one unit in the last place; since then it is exact
    exact: dict[str, Any] = {} if _version(pd.__version__) >= (3, 1) else {"float_precision": "round_trip"}
    frame: pd.DataFrame = pd.read_csv(
        io.BytesIO(text), dtype=types, keep_default_na=False, na_values=[""], **exact
    )
    for name, kind in columns.items():
        if not isinstance(kind, str) and kind["levels"] == "numeric":
            levels, codes = np.unique(frame[name].to_numpy(), return_inverse=True)
            kept = pd.CategoricalDtype([str(level) for level in levels.tolist()], ordered=kind["ordered"])
            frame[name] = pd.Categorical.from_codes(np.asarray(codes, np.int32), dtype=kept)
    return frame


def _read_polars(text: bytes, columns: dict[str, Any]) -> pl.DataFrame:
    """Read CSV text with the types of the index; factors become Enum."""
    polars = _polars()
    plain = {"int": polars.Int64, "float": polars.Float64, "str": polars.String}
    types = {name: plain[kind] if isinstance(kind, str) else polars.String for name, kind in columns.items()}
    frame = polars.read_csv(io.BytesIO(text), schema_overrides=types)
    enums = []
    for name, kind in columns.items():
        if isinstance(kind, str):
            continue
        levels = kind["levels"]
        if levels == "numeric":
            levels = sorted(frame[name].unique().to_list(), key=int)
        enums.append(polars.col(name).cast(polars.Enum(levels)))
    typed: pl.DataFrame = frame.with_columns(enums)
    return typed


def _version(text: str) -> tuple[int, int]:
    """Major and minor number of a version such as "3.1.0rc1"."""
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


def _polars() -> Any:
    try:
        import polars
    except ImportError as error:
        raise OptionError("as_='polars' needs polars, which is not installed: pip install polars") from error
    return polars
