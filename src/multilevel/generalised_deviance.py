"""Deviance residuals of generalised models: signed roots of what each row adds to the deviance.

A row's deviance is twice what its log density gains where the mean is the best one for it, the dispersion as estimated
(McCullagh & Nelder 1989, Generalized Linear Models, 2.3). In exponential families that mean is the response, and the
dispersion is a factor that is left out, as in R's ``glm``. In the others, beta (Ferrari & Cribari-Neto 2004, J. Appl. Stat.
31(7)), beta-binomial and nbinom1, the best mean is found by bisection, and the residual has the sign of its difference from
the model's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .errors import OptionError

if TYPE_CHECKING:
    from .families import Family
    from .generalised import GeneralisedFit

__all__ = ["deviance_residuals"]

Array = NDArray[np.float64]

SEARCHED = {"beta": "logit", "betabinomial": "logit", "nbinom1": "log"}  # link on whose scale the best mean is sought
WIDEST = {"logit": 60.0, "log": 300.0}  # of that scale

REFUSED = {
    "extra zeros": "with extra zeros two means share a row, and no one value of them is best for a zero",
    "ordinal": "an ordered category has no mean whose distance from the model's could be measured",
    "student": "the residual of a gross error of Student's t would hardly grow with the error",
}


def deviance_residuals(fit: GeneralisedFit) -> Array:
    """(rows used,) signed roots of the rows' shares of the deviance, prior weights included.

    Raises
    ------
    OptionError
        For a family without one best mean for each response, or without a deviance that depends on the mean alone.
    """
    family, d = fit.family, fit.rows_of_data()
    name = "extra zeros" if family.zero != "none" else family.name
    if name in REFUSED:
        raise OptionError(f"kind 'deviance' is not defined here: {REFUSED[name]}; use 'quantile'")
    eta, (first, _) = fit._eta[1], fit._parameters
    trials = np.ones(len(d.y)) if d.trials is None else d.trials
    side, deviance = (_searched if family.name in SEARCHED else _exponential)(family, d.y, trials, eta, first)
    weights = 1.0 if d.weights is None else d.weights
    return np.asarray(np.sign(side) * np.sqrt(weights * np.maximum(deviance, 0)))


def _times_log(y: Array, mean: Array) -> Array:
    """``y log(y / mean)``, zero where y is."""
    ratio = np.divide(y, mean, out=np.ones(len(y)), where=y > 0)
    return np.asarray(y * np.log(ratio))


def _exponential(family: Family, y: Array, m: Array, eta: Array, first: Array) -> tuple[Array, Array]:
    """Differences of response and mean, and unit deviances, of families with a closed form."""
    mu, size = family.mean(eta), np.exp(first)

    def binomial() -> Array:
        return _times_log(y, m * mu) + _times_log(m - y, m * family.failure(eta))

    def nbinom2() -> Array:
        return _times_log(y, mu) - (y + size) * np.log1p((y - mu) / (mu + size))

    def tweedie() -> Array:
        p = family.own_number
        return np.asarray(y ** (2 - p) / ((1 - p) * (2 - p)) - y * mu ** (1 - p) / (1 - p) + mu ** (2 - p) / (2 - p))

    table: dict[str, Callable[[], Array]] = {  # half the deviance
        "poisson": lambda: _times_log(y, mu) - (y - mu),
        "binomial": binomial,
        "nbinom2": nbinom2,
        "gamma": lambda: (y - mu) / mu - np.log(y / mu),
        "inverse_gaussian": lambda: (y - mu) ** 2 / (2 * mu**2 * y),
        "tweedie": tweedie,
        "gaussian": lambda: (y - mu) ** 2 / 2,
        "lognormal": lambda: (np.log(y) - mu) ** 2 / 2,
    }
    at = np.log(y) if family.name == "lognormal" else y / m if family.name == "binomial" else y
    return at - mu, 2 * table[family.name]()


def _searched(family: Family, y: Array, m: Array, eta: Array, first: Array) -> tuple[Array, Array]:
    """Differences of the best mean for each row and the model's, and deviances.

    The derivative of these densities by the mean falls, so that its sign says on which side the best one is.
    """
    from . import _core
    from .families import Family

    link = SEARCHED[family.name]
    free, none = Family(family.name, link), np.zeros(len(y))
    trials = m if family.name == "betabinomial" else None

    def density(kernel: tuple[int, int, int, float], at: Array) -> Array:
        return np.asarray(_core.log_densities(kernel, y, trials, at, first, none)[0])

    low, high = np.full(len(y), -WIDEST[link]), np.full(len(y), WIDEST[link])
    for _ in range(64):
        middle = (low + high) / 2
        rising = density(free.kernel, middle)[:, 1] > 0
        low, high = np.where(rising, middle, low), np.where(rising, high, middle)
    best = (low + high) / 2
    top = density(free.kernel, best)[:, 0]
    if family.name != "beta":  # nothing, or all, is certain at the end of the means
        certain = (y == 0) | ((y == m) & (family.name == "betabinomial"))
        top = np.where(certain, 0.0, top)
    deviance = 2 * (top - density(family.kernel, eta)[:, 0])
    side = np.sign(free.mean(best) - family.mean(eta))
    if family.name != "nbinom1":  # with the digits of means that round to one
        side = np.where(family.mean(eta) > 0.5, np.sign(family.failure(eta) - free.failure(best)), side)
    return side, deviance
