"""Predictions of posteriors on the scale of the response, where the family is not the Gaussian."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import OptionError
from .families import Family
from .posterior_predict import flat
from .row_draws import further

if TYPE_CHECKING:
    from . import predict as linear
    from .posterior import Posterior

__all__ = ["RowParameters", "columns_of"]

Array = NDArray[np.float64]


class RowParameters:
    """Dispersion and extra zeros of rows, known or new, for every draw.

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
        for what in ["dispersion"] * (family.dispersion is not None) + ["zi"] * (family.zero != "none"):
            matrix = np.asarray(made.get(what, np.ones((n, 1))), dtype=np.float64)
            self.blocks.append((1 if what == "zi" else 0, matrix, slice(at, at + matrix.shape[1])))
            at += matrix.shape[1]

    def at(self, part: slice, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """(draws, m) logs of the dispersion and logits of the share of extra zeros, zero where there is none."""
        out = [np.zeros(shape), np.zeros(shape)]
        for slot, matrix, columns in self.blocks:
            out[slot] = self.values[:, columns] @ matrix[part].T
        return out[0], out[1]


def columns_of(
    posterior: Posterior,
    eta: Array,
    part: slice,
    parameters: RowParameters,
    interval: str | None,
    probabilities: tuple[float, float],
    trials: Array | None,
    rng: np.random.Generator,
) -> dict[str, Array]:
    """Columns of some rows from their linear predictors (draws, m).

    Proportions, where the family counts successes; of an ordinal response the probability of each category, with an
    interval its limits as ``<category>_low`` and ``<category>_high``.
    """
    family = posterior.model.distribution
    assert family is not None
    if family.name == "ordinal":
        return _categories(posterior, family, eta, interval, probabilities)
    first, second = parameters.at(part, eta.shape)
    mean = family.expected(eta.ravel(), first.ravel(), second.ravel()).reshape(eta.shape)
    out = {"prediction": mean.mean(axis=0)}
    if interval is None:
        return out
    values = mean
    if interval == "prediction":
        if family.shape is not None:
            raise OptionError(
                f"interval='prediction' is not available for family {family.name!r} with an estimated {family.shape}; "
                "use interval='confidence', or hold it"
            )
        m = None if trials is None else np.broadcast_to(trials, eta.shape).ravel()
        values = family.draw(rng, eta.ravel(), first.ravel(), second.ravel(), m).reshape(eta.shape)
        values = values if trials is None else values / trials
    low, high = np.quantile(values, probabilities, axis=0)
    return out | {"est_error": values.std(axis=0, ddof=1), "ci_low": low, "ci_high": high}


def _categories(
    posterior: Posterior, family: Family, eta: Array, interval: str | None, probabilities: tuple[float, float]
) -> dict[str, Array]:
    if interval == "prediction":
        raise OptionError("interval='prediction' is not available for ordinal responses; use interval='confidence'")
    link = Family("binomial", family.link)
    below = np.zeros(eta.shape)
    out: dict[str, Array] = {}
    cuts = [*further(posterior).T, None]
    for label, cut in zip(posterior.design.labels, cuts, strict=True):
        upto = np.ones(eta.shape) if cut is None else link.mean((cut[:, None] - eta).ravel()).reshape(eta.shape)
        out[label] = (upto - below).mean(axis=0)
        if interval is not None:
            out[f"{label}_low"], out[f"{label}_high"] = np.quantile(upto - below, probabilities, axis=0)
        below = upto
    return out


def simulated(posterior: Posterior, n: int, rng: np.random.Generator) -> Array:
    """(n, rows used) responses, each from a draw of its own; groups keep their effects."""
    from .row_draws import new_responses

    every = flat(new_responses(posterior, rng))
    return np.asarray(every[rng.choice(len(every), n, replace=n > len(every))])
