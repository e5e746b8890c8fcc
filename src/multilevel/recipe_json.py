"""A recipe as JSON-able values and back; texts pass the grammar of formulas before they are used."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import numpy as np

from .columns import ColumnInfo
from .contrasts import Contrast
from .design_recipe import Grouping, Recipe, TermRecipe
from .errors import FileError, FormulaError
from .formula import model_text

__all__ = ["decode", "decode_value", "encode", "encode_value"]

VERSION = 1
_PLAIN = "biufMm"  # kinds of arrays whose entries have one size


def encode(recipe: Recipe) -> dict[str, Any]:
    """Describe a recipe."""
    return {
        "version": VERSION,
        "fixed": recipe.fixed,
        "kept": recipe.kept.tolist(),
        "all_names": list(recipe.all_names),
        "terms": [
            {
                "group": term.group,
                "names": list(term.names),
                "structure": term.structure,
                "side": term.side,
                "columns": list(term.grouping.columns),
                "labels": [encode_value(one) for one in term.grouping.labels],
                "parts": None if len(term.grouping.columns) == 1 else term.grouping.parts.tolist(),
            }
            for term in recipe.terms
        ],
        "offsets": list(recipe.offsets),
        "offset_column": recipe.offset_column,
        "offset_array": recipe.offset_array,
        "infos": {
            name: {
                "number": info.number,
                "levels": None if info.levels is None else [encode_value(label) for label in info.levels],
                "contrast": {
                    "kind": info.contrast.kind,
                    "base": encode_value(info.contrast.base),
                    "matrix": None if info.contrast.matrix is None else info.contrast.matrix.tolist(),
                    "labels": list(info.contrast.labels),
                },
            }
            for name, info in recipe.infos.items()
        },
        "state": encode_value(recipe.state),
        **({"extra": dict(recipe.extra)} if recipe.extra else {}),
    }


def decode(saved: Mapping[str, Any]) -> Recipe:
    """Restore a recipe."""
    try:
        if saved["version"] != VERSION:
            raise FileError(
                f"the description of the design has version {saved['version']!r}; only {VERSION} is read"
            )
        sides = [
            saved["fixed"],
            *saved["offsets"],
            *(term["side"] for term in saved["terms"] if term["side"]),
            *saved.get("extra", {}).values(),
        ]
        for side in sides:
            if not isinstance(side, str):
                raise TypeError("a side is no text")
            model_text(side)
        return Recipe(
            fixed=saved["fixed"],
            kept=np.array(saved["kept"], dtype=np.int64),
            all_names=tuple(saved["all_names"]),
            terms=tuple(_term(term) for term in saved["terms"]),
            offsets=tuple(saved["offsets"]),
            offset_column=saved["offset_column"],
            offset_array=bool(saved["offset_array"]),
            infos={name: _info(info) for name, info in saved["infos"].items()},
            state=decode_value(saved["state"]),
            extra=dict(saved.get("extra", {})),
        )
    except (KeyError, TypeError, AttributeError, IndexError, FormulaError, OverflowError) as error:
        raise FileError(
            f"the description of the design is damaged: {type(error).__name__}: {error}"
        ) from None
    except ValueError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"the description of the design is damaged: {error}") from None


def _term(saved: Mapping[str, Any]) -> TermRecipe:
    labels = tuple(_labels(one) for one in saved["labels"])
    parts = saved["parts"]
    table = (
        np.arange(len(labels[0])).reshape(-1, 1)
        if parts is None
        else np.array(parts).reshape(-1, len(labels))
    )
    grouping = Grouping(tuple(saved["columns"]), labels, table.astype(np.int32))
    return TermRecipe(saved["group"], tuple(saved["names"]), saved["structure"], grouping, saved["side"])


def _labels(saved: Any) -> Any:
    values = decode_value(saved)
    return values if isinstance(values, np.ndarray) else np.array(values, dtype=object)


def _info(saved: Mapping[str, Any]) -> ColumnInfo:
    levels = None if saved["levels"] is None else [decode_value(label) for label in saved["levels"]]
    kind = saved["contrast"]["kind"]
    if kind not in ("treatment", "sum", "helmert", "poly", "custom"):
        raise TypeError(f"no contrast {kind!r}")
    matrix = saved["contrast"]["matrix"]
    contrast = Contrast(
        kind,
        decode_value(saved["contrast"]["base"]),
        None if matrix is None else np.array(matrix, dtype=np.float64),
        tuple(saved["contrast"]["labels"]),
    )
    return ColumnInfo(bool(saved["number"]), levels, contrast)


def encode_value(value: Any) -> Any:
    """Write numbers, texts, dates, arrays, lists and dicts in JSON's types; floats are kept exactly."""
    if isinstance(value, np.ndarray):
        return {
            "array": [encode_value(one) for one in value.ravel().tolist()],
            "shape": list(value.shape),
            "dtype": value.dtype.str if value.dtype.kind in _PLAIN else "object",
        }
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else {"float": repr(value)}
    if isinstance(value, Mapping):
        return {"pairs": [[encode_value(key), encode_value(one)] for key, one in value.items()]}
    if isinstance(value, (list, tuple)):
        return {"list": [encode_value(one) for one in value]}
    if hasattr(value, "isoformat"):
        kind = "timestamp" if isinstance(value, datetime.datetime) else type(value).__name__
        return {kind: value.isoformat()}
    if type(value).__name__ == "Interval":  # what pandas.cut makes
        return {"interval": [encode_value(value.left), encode_value(value.right), value.closed]}
    if type(value).__name__ == "Period":
        return {"period": [str(value), value.freqstr]}
    return {"text": str(value)}


def decode_value(saved: Any) -> Any:
    """Invert `encode_value`."""
    if not isinstance(saved, Mapping):
        return saved
    if "array" in saved:
        values = [decode_value(one) for one in saved["array"]]
        if saved["dtype"] == "object":
            out = np.empty(len(values), dtype=object)
            out[:] = values
            return out.reshape(saved["shape"])
        dtype = np.dtype(saved["dtype"])
        if dtype.kind not in _PLAIN:  # a text of a stated length could ask for any amount of memory
            raise TypeError(f"no array of type {saved['dtype']!r}")
        return np.array(values, dtype=dtype).reshape(saved["shape"])
    ((kind, value),) = saved.items()
    if kind == "float":
        return float(value)
    if kind == "pairs":
        return {decode_value(key): decode_value(one) for key, one in value}
    if kind == "list":
        return [decode_value(one) for one in value]
    if kind in ("timestamp", "Timedelta", "interval", "period"):
        import pandas as pd

        if kind == "interval":
            return pd.Interval(decode_value(value[0]), decode_value(value[1]), value[2])
        if kind == "period":
            return pd.Period(value[0], freq=value[1])
        return pd.Timestamp(value) if kind == "timestamp" else pd.Timedelta(value)
    if kind == "date":
        return datetime.date.fromisoformat(value)
    if kind == "text":
        return value
    raise TypeError(f"unknown entry {kind!r}")
