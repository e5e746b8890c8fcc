"""A new response for `GeneralisedFit.refit`, checked as the model's own is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import frame, responses
from .errors import DataError
from .families import TRIALS
from .generalised_condition import _label
from .generalised_rows import proportions

if TYPE_CHECKING:
    import pandas as pd

    from .generalised import GeneralisedFit

__all__ = ["new_response"]

Array = NDArray[np.float64]

NAME = "new response"


def new_response(fit: GeneralisedFit, y: Any) -> Array:
    """(rows used,) response as the design keeps it: values, successes, numbers of categories from zero.

    Raises
    ------
    DataError
        For the wrong number of values, and for one that the family cannot have, with its row.
    """
    d = fit.rows_of_data()
    series = column(y, d.n_input)
    series = series.iloc[d.rows].reset_index(drop=True)
    lost = np.flatnonzero(frame.missing_mask(series))
    if len(lost):
        raise DataError(
            f"the new response is missing in row {int(d.rows[lost[0]])} (counting from 0), which the model uses; it may be "
            "missing only where the model left a row out"
        )
    kind = frame.column_kind(series, NAME)
    if d.labels and kind != "bool":
        return codes(fit, series, kind)
    if kind not in ("number", "bool"):
        raise frame.not_numeric(
            series, NAME, kind, rows=np.asarray(d.rows, dtype=np.int64), advice=f"family {fit.family.name!r} takes numbers"
        )
    values = frame.numbers(series, NAME)
    if fit.family.name in TRIALS:
        return successes(fit, values)
    responses._possible(values, d.rows, NAME, fit.family)
    return values


def column(y: Any, n: int) -> pd.Series[Any]:
    """The values as a column, whatever they came in.

    Raises
    ------
    DataError
        For a table, several columns or the wrong number of values.
    """
    if hasattr(y, "columns") or isinstance(y, dict):
        raise DataError("give one column, for example refit(table['sim_1']); a generalised model is refitted one by one")
    shape = np.shape(y) if not hasattr(y, "to_list") else (len(y),)
    if len(shape) != 1 or shape[0] != n:
        size = " x ".join(map(str, shape)) or "a single value"
        raise DataError(f"the new response must hold one value for each of the {n} rows of the data; it has {size}")
    return frame.Table({NAME: y}).load([NAME])[NAME]


def codes(fit: GeneralisedFit, series: pd.Series[Any], kind: str) -> Array:
    """Numbers of the categories from zero; numbers that all can be such codes are (those of `simulate`)."""
    d, labels = fit.design, fit.design.labels
    if kind == "number":
        values = frame.numbers(series, NAME)
        if np.isin(values, np.arange(len(labels))).all():
            return complete(values, labels)
    known = {label: i for i, label in enumerate(labels)}
    found = np.array([known.get(_label(value), -1) for value in series.tolist()], dtype=np.float64)
    bad = np.flatnonzero(found < 0)
    if len(bad):
        raise DataError(
            f"the new response is {series.tolist()[bad[0]]!r} in row {int(d.rows[bad[0]])} (counting from 0); it must be one "
            f"of {', '.join(map(repr, labels))}, or their numbers from 0 to {len(labels) - 1}"
        )
    return complete(found, labels)


def complete(found: Array, labels: tuple[str, ...]) -> Array:
    """The codes, each of which has to occur.

    Raises
    ------
    DataError
        Naming a category without rows.
    """
    absent = np.setdiff1d(np.arange(len(labels)), found)
    if len(absent):
        raise DataError(f"the new response is {labels[absent[0]]!r} in no row, so that its thresholds have no estimate")
    return found


def successes(fit: GeneralisedFit, values: Array) -> Array:
    """Successes of each row's trials; of a model of proportions these may be proportions too."""
    d = fit.design
    what, trials = f"the {NAME}", np.ones(len(values)) if d.trials is None else d.trials
    if d.trials is None:
        responses._refuse(~((values == 0) | (values == 1)), d.rows, what, values, "0 or 1")
    else:
        shares = proportions(fit) and ((values >= 0) & (values <= 1)).all() and ((values > 0) & (values < 1)).any()
        if shares:
            values = values * trials
            uneven = np.abs(values - np.round(values)) > 1e-6 * np.maximum(trials, 1)
            responses._refuse(uneven, d.rows, f"{what} times its trials", values, "a whole number of successes")
            values = np.round(values)
        responses._check(values, d.rows, "it", f"{what}: the number of successes", low=0, whole=True)
        responses._refuse(values > trials, d.rows, what, values, "at most the number of trials")
    responses._differ(values, trials, NAME)
    return values
