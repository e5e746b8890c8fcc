"""Checks of options and rows of a classifier, and their messages."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError, MultilevelWarning, OptionError, users_level

__all__ = [
    "check_scales",
    "check_size",
    "copies_warning",
    "dtype_name",
    "is_number",
    "one_of",
    "positive",
    "row_warnings",
]

Floats = npt.NDArray[np.float64]
Hashes = npt.NDArray[np.int64]


def one_of(name: str, value: Any, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise OptionError(f"{name}={value!r} is not known: take {', '.join(repr(a) for a in allowed)}")


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, (bool, np.bool_))


def positive(what: str, value: Any, count: int) -> Floats:
    try:
        numbers = np.broadcast_to(np.asarray(value, dtype=np.float64), (count,)).copy()
    except (TypeError, ValueError):
        raise OptionError(f"{what}={value!r} must be one positive number, or {count} of them") from None
    if not np.all(np.isfinite(numbers) & (numbers > 0)):
        raise OptionError(f"{what}={value!r} must be positive")
    return numbers


def dtype_name(dtype: Any) -> str:
    try:
        return "" if dtype is None else str(np.dtype(dtype))
    except TypeError:
        return str(dtype)


def check_size(x: Any, dtype: np.dtype[Any], fit: bool) -> None:
    """Features so large or small that their squares leave the range of numbers."""
    values = x.data if hasattr(x, "indptr") else x
    largest = float(np.abs(values).max()) if values.size else 0.0
    power = 15 if dtype == np.float32 else 120
    if largest > 10.0**power or (fit and 0 < largest < 10.0**-power):
        raise DataError(
            f"the largest feature of X is {largest:.3g}, which dtype={str(dtype)!r} cannot square: scale the features, for "
            "example to rows of length 1"
        )


def check_scales(what: str, scales: Floats, length: float) -> None:
    """Scales that single precision can work with on rows of this median length."""
    spread = scales * length
    if not np.all((spread >= 1e-6) & (spread <= 1e6)):
        raise OptionError(
            f"{what}: {', '.join(f'{s:.3g}' for s in scales)} is out of range for rows of the median length {length:.3g}: "
            "a scale times that length must lie between 1e-6 and 1e6; 5 is usual"
        )


def row_warnings(x: Any, hashes: Hashes) -> None:
    """Warnings of copies among the rows, and of rows far longer than most."""
    told = hashes[hashes != 0]  # rows without any feature are alike, but no copies
    copies = len(told) - len(np.unique(told))
    if len(hashes) >= 100 and copies > 0.05 * len(hashes):
        warnings.warn(
            f"{copies} of the {len(hashes)} rows are copies of others: a split by rows puts copies on both sides, and its "
            "test scores are too good; drop duplicates, or split by groups of equal rows",
            MultilevelWarning,
            stacklevel=users_level(),
        )
    lengths = np.sqrt(np.asarray(x.multiply(x).sum(axis=1), dtype=np.float64)).ravel()
    lengths = lengths[lengths > 0]
    longest, median = (lengths.max(), np.median(lengths)) if len(lengths) else (0.0, 1.0)
    if longest > 1e4 * median:
        warnings.warn(
            f"the longest row of X ({longest:.3g}) is {longest / median:.2g} times as long as the median row: one prior "
            "scale cannot suit both, and the fit may be poor; scale the rows to length 1, or the features to the same size",
            MultilevelWarning,
            stacklevel=users_level(),
        )


def copies_warning(hashes: Hashes, known: Hashes | None) -> None:
    """Warning that some of the rows to score are rows learnt from.

    Where all are, the score is meant to be that of the training rows.
    """
    if known is None or len(hashes) < 20:
        return
    copies = int(np.isin(hashes[hashes != 0], known).sum())
    if 0.05 * len(hashes) < copies < 0.95 * len(hashes):
        warnings.warn(
            f"{copies} of the {len(hashes)} rows to score are copies of rows that were learnt from: the score is too good "
            "for new items; drop these rows, or split by groups of equal rows",
            MultilevelWarning,
            stacklevel=3,
        )
