"""Whether models are of the same data, so that their likelihoods compare, and if not, why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import DataError, OptionError

if TYPE_CHECKING:
    from .design import Design
    from .model import Model

__all__ = ["check_alike", "same_weights", "unlike"]

Array = NDArray[np.float64]

COUNTED = ("binomial", "betabinomial", "poisson", "nbinom1", "nbinom2", "ordinal")  # families of probabilities
SHOWN = 3  # columns named in a sentence


def check_alike(models: Mapping[str, Model]) -> tuple[str, ...]:
    """Refuse models whose likelihoods do not compare.

    Parameters
    ----------
    models : dict
        Name to model, two or more.

    Returns
    -------
    tuple of str
        Sentences about what could not be checked, or compares only in part.

    Raises
    ------
    DataError
        For other rows, another response, other trials or (of generalised models) other weights, with the reason.
    OptionError
        For likelihoods that are approximated differently.
    """
    (first, one), *others = models.items()
    for name, other in others:
        reason = unlike(one.design, other.design, (first, name))
        if reason is None and (one.distribution is not None or other.distribution is not None):
            reason = _weights(one.design, other.design)
        if reason is not None:
            raise DataError(f"{first!r} and {name!r} cannot be compared: {reason}")
        _check_quadrature(one, other, (first, name))
    return _in_part(models)


def unlike(one: Design, other: Design, names: tuple[str, str]) -> str | None:
    """Why two designs are of unlike data; None if they are alike as far as can be told."""
    rows = _rows(one, other, names)
    if rows is not None:
        return rows
    if one.y is None or other.y is None:
        if one.response == other.response:
            return None
        return (
            f"the responses are {one.response} and {other.response}, and without the rows it cannot be told that these are "
            "the same numbers; save the fits with save(path, data=True)"
        )
    return _response(one, other)


def _rows(one: Design, other: Design, names: tuple[str, str]) -> str | None:
    n, m = len(one.rows), len(other.rows)
    if n != m:
        lost = "; ".join(text for text in map(_lost, (one, other), names) if text)
        return (
            f"they are of {n} and {m} rows, and likelihoods of other rows are on another scale"
            + (f" ({lost})" if lost else "")
            + "; fit both to the rows that both can use"
        )
    if one.n_input == other.n_input and not np.array_equal(one.rows, other.rows):
        only = np.setdiff1d(one.rows, other.rows)
        return (
            f"both are of {n} rows, but not the same ones (row {only[0]}, counting from 0, is in {names[0]!r} alone); fit "
            "both to the rows that both can use"
        )
    return None


def _lost(design: Design, name: str) -> str:
    """Which columns cost a model its rows."""
    if not design.missing:
        return ""
    columns = sorted(design.missing, key=lambda column: -design.missing[column])
    shown = ", ".join(f"{column!r} ({design.missing[column]})" for column in columns[:SHOWN])
    return f"{name!r} left out rows with missing values in {shown}" + (" and others" if len(columns) > SHOWN else "")


def _response(one: Design, other: Design) -> str | None:
    if one.labels != other.labels:
        return f"the responses have other categories, {list(one.labels)} and {list(other.labels)}"
    if _trials(one, other):
        return "the responses are successes among other numbers of trials"
    if np.array_equal(one.y, other.y):
        return None
    if one.response != other.response:
        return (
            f"the responses are {one.response} and {other.response}; likelihoods of a transformed response are on another "
            "scale. Give both models the same left side, or use a family (lognormal, gamma) for its shape"
        )
    if np.array_equal(np.sort(one.y), np.sort(other.y)):
        return "their rows stand in another order; fit both to the same data frame"
    at = int(np.flatnonzero(one.y != other.y)[0])
    return (
        f"the response {one.response} has other values (in row {one.rows[at]}, counting from 0, {one.y[at]:.6g} and "
        f"{other.y[at]:.6g}); fit both to the same data"
    )


def _trials(one: Design, other: Design) -> bool:
    """Whether trials differ; one each where a model has none."""
    if one.trials is None and other.trials is None:
        return False
    return not np.array_equal(_or_ones(one.trials, len(one.rows)), _or_ones(other.trials, len(other.rows)))


def _or_ones(values: Any, n: int) -> Array:
    return np.ones(n) if values is None else np.asarray(values, dtype=np.float64)


def same_weights(one: Design, other: Design) -> bool:
    """Whether rows weigh the same in both, as far as can be told."""
    if one.y is None or other.y is None:
        return True
    if one.weights is None and other.weights is None:
        return True
    return np.array_equal(_or_ones(one.weights, len(one.rows)), _or_ones(other.weights, len(other.rows)))


def _weights(one: Design, other: Design) -> str | None:
    """Weights of a generalised model count rows several times: other ones are other data."""
    if same_weights(one, other):
        return None
    return "their rows have other weights, which multiply the log-likelihoods; give both the same weights="


def _check_quadrature(one: Model, other: Model, names: tuple[str, str]) -> None:
    nodes = [model._quadrature for model in (one, other) if model.distribution is not None and model.design.terms]
    if len(set(nodes)) > 1:
        raise OptionError(
            f"{names[0]!r} and {names[1]!r} cannot be compared: their likelihoods are approximated differently (quadrature="
            f"{nodes[0]} and {nodes[1]}); fit both with the same quadrature="
        )


def _in_part(models: Mapping[str, Model]) -> tuple[str, ...]:
    out = []
    blind = [name for name, model in models.items() if model.design.y is None]
    if blind:
        out.append(
            f"{_list(blind)} {_was(blind)} saved without the rows: that the data are the same was checked by the number of "
            "rows and the name of the response alone."
        )
    counted = {model.distribution is not None and model.distribution.name in COUNTED for model in models.values()}
    if len(counted) > 1:
        out.append(
            "Some models give probabilities of counts or categories and others densities of a continuous response; the two "
            "compare only as far as values lie one apart, and not at all for two-valued responses."
        )
    if any(model.distribution is not None and model._quadrature == 0 for model in models.values()):
        out.append("Fits with quadrature=0 are a quick start and at no maximum of the likelihood: take the numbers as rough.")
    return tuple(out)


def _list(names: list[str]) -> str:
    return ", ".join(map(repr, names))


def _was(names: list[str]) -> str:
    return "was" if len(names) == 1 else "were"
