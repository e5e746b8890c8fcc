"""Predictions of posteriors on the scale of the response, where the family is not the Gaussian."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .families import COUNTS, TRIALS, Family
from .row_draws import drawn, further

if TYPE_CHECKING:
    from . import predict as linear
    from .posterior import Posterior

__all__ = ["RowParameters", "columns_of"]

Array = NDArray[np.float64]


class RowParameters:
    """Dispersion, shape and extra zeros of rows, known or new, for every draw.

    Parameters
    ----------
    rows
        Complete rows to predict.
    new : data frame or None
        What they come from; None: the rows fitted.
    """

    def __init__(self, posterior: Posterior, rows: linear._Rows, new: Any) -> None:
        family, d = posterior.model.distribution, posterior.design
        assert family is not None
        self.values = further(posterior)
        n = len(rows.X)
        made: dict[str, Any] = {}
        if d.sides:
            made = {what: matrix for what, (matrix, _) in d.sides.items()}
            if new is not None:
                made = {w: m[rows.at] for w, m in d.at(new, groups=None, offset=np.zeros(rows.n)).sides.items()}
        self.blocks: list[tuple[int, Array, slice]] = []
        at = 0
        present = (("dispersion", family.dispersion is not None), ("shape", family.shape is not None))
        for what in [name for name, there in (*present, ("zi", family.zero != "none")) if there]:
            matrix = np.asarray(made.get(what, np.ones((n, 1))), dtype=np.float64)
            self.blocks.append((int(what != "dispersion"), matrix, slice(at, at + matrix.shape[1])))
            at += matrix.shape[1]

    def at(self, part: slice, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """(draws, m) logs of the dispersion, and shape's coefficients or logits of the share of extra zeros; else zero."""
        out = [np.zeros(shape), np.zeros(shape)]
        for slot, matrix, columns in self.blocks:
            out[slot] = self.values[:, columns] @ matrix[part].T
        return out[0], out[1]


def columns_of(
    posterior: Posterior,
    centre: Array,
    eta: Array,
    part: slice,
    parameters: RowParameters,
    interval: str | None,
    probabilities: tuple[float, float],
    trials: Array | None,
    rng: np.random.Generator,
) -> dict[str, NDArray[Any]]:
    """Columns of some rows from their linear predictors (draws, m): those predicted at, and those that limits come from.

    Proportions, where the family counts successes; of an ordinal response the probability of each category, with a
    confidence interval its limits as ``<category>_low`` and ``<category>_high``, with a prediction interval the ends of the
    central categories that hold a new response.
    """
    family = posterior.model.distribution
    assert family is not None
    if family.name == "ordinal":
        return _categories(posterior, family, centre, eta, interval, probabilities)
    first, second = parameters.at(part, eta.shape)

    def expected(at: Array) -> Array:
        return np.asarray(family.expected(at.ravel(), first.ravel(), second.ravel()).reshape(at.shape))

    mean = expected(centre)
    out: dict[str, NDArray[Any]] = {"prediction": mean.mean(axis=0)}
    if interval is None:
        return out
    values = mean
    if interval == "confidence" and eta is not centre:
        values = expected(eta)
    elif interval == "prediction":
        values = drawn(family, rng, eta, first, second, None if trials is None else np.nan_to_num(trials, nan=1.0))
        values = values if trials is None else values / trials
    discrete = interval == "prediction" and family.name in (*COUNTS, *TRIALS)  # limits are values that can occur
    low, high = np.quantile(values, probabilities, axis=0, method="inverted_cdf" if discrete else "linear")
    return out | {"est_error": values.std(axis=0, ddof=1), "ci_low": low, "ci_high": high}


def _categories(
    posterior: Posterior,
    family: Family,
    centre: Array,
    eta: Array,
    interval: str | None,
    probabilities: tuple[float, float],
) -> dict[str, NDArray[Any]]:
    labels = posterior.design.labels
    out: dict[str, NDArray[Any]] = {}
    total = np.zeros(eta.shape[1])
    ends = np.zeros((2, eta.shape[1]), dtype=np.intp)
    full = _shares(posterior, family, eta) if interval is not None and eta is not centre else None
    for i, share in enumerate(_shares(posterior, family, centre)):
        out[labels[i]] = share.mean(axis=0)
        over = share if full is None else next(full)
        if interval == "confidence":
            out[f"{labels[i]}_low"], out[f"{labels[i]}_high"] = np.quantile(over, probabilities, axis=0)
        total = total + over.mean(axis=0)
        if i < len(labels) - 1:  # ends are the first categories that are not exceeded with these probabilities
            ends += total < np.array(probabilities)[:, None] - 1e-12
    if interval == "prediction":
        names = np.array(labels, dtype=object)
        out |= {"ci_low": names[ends[0]], "ci_high": names[ends[1]]}
    return out


def _shares(posterior: Posterior, family: Family, eta: Array) -> Iterator[Array]:
    """(draws, m) probabilities of each category in turn."""
    link = Family("binomial", family.link)
    below = np.zeros(eta.shape)
    for cut in further(posterior).T:
        upto = link.mean((cut[:, None] - eta).ravel()).reshape(eta.shape)
        yield upto - below
        below = upto
    yield 1.0 - below
