"""Limits of new responses of generalised models: quantiles of the predictive distribution, by quadrature.

The distribution function of a new response is that of the family, averaged over a normal linear predictor whose variance is
that of its estimation and of the groups not known; its quantiles are found by bracketing. Nothing is drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .families import COUNTS, TRIALS
from .generalised_residuals import base_tails, beta_tails
from .generalised_rows import RECIPROCAL, Rows, edge, link_width
from .generalised_uncertainty import joint_vcov, quadratic
from .normal_mean import normal_mean

if TYPE_CHECKING:
    from .families import Family
    from .generalised import GeneralisedFit

__all__ = ["category_limits", "response_limits"]

Array = NDArray[np.float64]
Index = NDArray[np.intp]

MOST_COUNT = 2.0**52
CLOSE = 1e-9  # of a limit, relative to the scale of its response


def response_limits(fit: GeneralisedFit, rows: Rows, trials: Array | None, level: float) -> tuple[Array, Array]:
    """Lower and upper limit (m,) of a new response; a proportion where successes among trials are counted.

    Of a discrete response the limits are values that it can take, and hold it with at least the probability asked for.
    """
    sd = np.sqrt(np.maximum(rows.errors.variance(joint_vcov(fit)), 0.0))
    m = np.ones(len(sd)) if trials is None else trials
    table = np.column_stack([rows.eta, sd, rows.first, rows.second, m])
    whole = np.isfinite(table).all(axis=1)
    out = np.full((2, len(sd)), np.nan)
    if not whole.any():
        return out[0], out[1]
    distinct, back = np.unique(table[whole], axis=0, return_inverse=True)
    new = Predictive(fit.family, *distinct.T)
    for i, p in enumerate((0.5 - level / 2, 0.5 + level / 2)):
        out[i, whole] = new.quantile(p)[back.ravel()]
    return out[0], out[1]


class Predictive:
    """Predictive distributions of m rows, their linear predictors normal.

    Parameters
    ----------
    eta, sd : (m,) arrays
        Mean and sd of the linear predictors.
    first, second, trials : (m,) arrays
    """

    def __init__(self, family: Family, eta: Array, sd: Array, first: Array, second: Array, trials: Array) -> None:
        self.family, self.eta, self.sd = family, eta, sd
        self.first, self.second, self.trials = first, second, trials
        self.base = replace(family, zero="none")
        self.width = self._width()

    def _width(self) -> Array:
        """Change of the linear predictor that moves the mean by an sd of the response: how steep the functions are."""
        least = np.full(len(self.eta), link_width(self.family))
        for shift in (-2.0, 0.0, 2.0):
            eta = edge(self.family, self.eta + shift * self.sd)
            if self.family.link in RECIPROCAL:
                eta = np.maximum(eta, 0.05 * np.abs(self.eta))
            with np.errstate(all="ignore"):
                sd = np.sqrt(self.family.variance(eta, self.first, self.trials))
                slope = np.abs(self.family.mean_slope(eta))
                if self.family.name == "lognormal":
                    sd, slope = np.exp(self.first), np.ones(len(eta))
                width = sd / slope
            least = np.where(np.isfinite(width) & (width > 0), np.minimum(least, width), least)
        return least

    def below(self, y: Array, rows: Index) -> Array:
        """(r,) probability of at most y in the rows numbered."""

        def conditional(eta: Array, at: Index) -> Array:
            return distribution(self.base, self.family.zero, y[at], eta, *parts(at))

        def parts(at: Index) -> tuple[Array, Array, Array]:
            i = rows[at]
            return self.first[i], self.second[i], self.trials[i]

        return np.clip(normal_mean(conditional, self.eta[rows], self.sd[rows], self.width[rows]), 0.0, 1.0)

    def quantile(self, p: float) -> Array:
        """(m,) least values that are not exceeded with a probability of at least p; proportions where trials are counted."""
        if self.family.name in TRIALS:
            return self._whole(p, self.trials) / self.trials
        if self.family.name in COUNTS:
            return self._whole(p, None)
        return self._real(p)

    def _whole(self, p: float, most: Array | None) -> Array:
        rows = np.arange(len(self.eta))
        low, high = np.full(len(rows), -1.0), np.ones(len(rows)) if most is None else np.array(most)
        if most is None:
            open_ = rows
            while len(open_):
                short = self.below(high[open_], open_) < p - 1e-12
                open_ = open_[short]
                low[open_] = high[open_]
                high[open_] *= 2
                open_ = open_[high[open_] < MOST_COUNT]
        open_ = rows[high - low > 1]
        while len(open_):
            middle = np.floor((low[open_] + high[open_]) / 2)
            enough = self.below(middle, open_) >= p - 1e-12
            high[open_[enough]], low[open_[~enough]] = middle[enough], middle[~enough]
            open_ = open_[high[open_] - low[open_] > np.maximum(1.0, 1e-9 * high[open_])]
        return high

    def _real(self, p: float) -> Array:
        """The same on a scale without ends: logarithm, logit or the response itself."""
        take, start, scale = self._scale()
        none = np.zeros(len(start), dtype=bool)
        if self.family.name == "tweedie":  # has a probability of zero
            none = self.below(np.zeros(len(start)), np.arange(len(start))) >= p - 1e-12

        def excess(x: Array, rows: Index) -> Array:
            from scipy.special import ndtri

            found = ndtri(np.clip(self.below(take(x), rows), 1e-300, 1 - 1e-16)) - ndtri(p)
            return np.asarray(np.where(none[rows], 0.0, found))

        return np.where(none, 0.0, take(root(excess, start, scale)))

    def _scale(self) -> tuple[Callable[[Array], Array], Array, Array]:
        """From that scale to the response, and there where to begin and how far to go first."""
        from scipy.special import expit, logit

        eta = edge(self.family, self.eta)
        with np.errstate(all="ignore"):
            mean = self.family.mean(eta)
            slope = np.abs(self.family.mean_slope(eta))
            own = np.sqrt(self.family.variance(eta, self.first, None))
            sd = np.hypot(np.where(np.isfinite(own), own, np.exp(self.first)), slope * self.sd)
        if self.family.name == "lognormal":
            return np.exp, self.eta, np.hypot(self.sd, np.exp(self.first))
        if self.family.name == "beta":
            mean = np.clip(mean, 1e-12, 1 - 1e-12)
            return expit, logit(mean), np.clip(sd / (mean * (1 - mean)), 1e-6, 10.0)
        if self.family.name in ("gamma", "inverse_gaussian", "tweedie"):
            return np.exp, np.log(np.clip(mean, 1e-290, 1e290)), np.clip(sd / mean, 1e-6, 10.0)
        return (lambda x: x), np.where(np.isfinite(mean), mean, 0.0), np.where(np.isfinite(sd), sd, 1.0)


def distribution(
    base: Family, zero: str, y: Array, eta: Array, first: Array, second: Array, trials: Array
) -> Array:
    """P(Y <= y) at linear predictors, extra zeros included."""
    from scipy.special import expit

    eta = edge(base, eta)
    below = lower_tail(base, y, eta, first, trials)
    if zero == "none":
        return below
    share = expit(second)
    if zero == "hurdle":
        none, more = base_tails(base, np.zeros(len(y)), eta, first, None)
        below = np.where(more > 0, np.maximum(below - none, 0) / np.where(more > 0, more, 1.0), y >= 1)
    return np.where(y >= 0, share + (1 - share) * below, 0.0)


def lower_tail(base: Family, y: Array, eta: Array, first: Array, trials: Array) -> Array:
    """P(Y <= y) without extra zeros: `base_tails` without the upper tail and the cost of SciPy's distributions."""
    from scipy.special import betainc, gammainc, gammaincc, log_ndtr, ndtr, stdtr

    mu, size = base.mean(eta), np.exp(first)
    at = np.maximum(y, 0.0)
    if base.name == "binomial":
        left = np.maximum(trials - at, 1.0)
        return np.where(y < 0, 0.0, np.where(y >= trials, 1.0, betainc(left, at + 1, base.failure(eta))))
    table: dict[str, Callable[[], Any]] = {
        "poisson": lambda: gammaincc(np.floor(at) + 1, mu) * (y >= 0),
        "nbinom2": lambda: betainc(size, np.floor(at) + 1, size / (size + mu)) * (y >= 0),
        "nbinom1": lambda: betainc(mu / size, np.floor(at) + 1, 1 / (1 + size)) * (y >= 0),
        "gamma": lambda: gammainc(size, at * size / mu),
        "beta": lambda: beta_tails(y, mu * size, base.failure(eta) * size)[0],
        "student": lambda: stdtr(base.df or np.nan, (y - mu) / size),
        "gaussian": lambda: ndtr((y - mu) / size),
        "lognormal": lambda: ndtr((np.log(np.maximum(y, 1e-300)) - mu) / size),
    }
    if base.name == "inverse_gaussian":  # Shuster 1968, J. Am. Stat. Assoc. 63(324)
        x = np.maximum(y, 1e-300)
        part = np.sqrt(size / x)
        more = np.exp(2 * size / mu + log_ndtr(-part * (x / mu + 1)))
        return np.asarray(ndtr(part * (x / mu - 1)) + more, dtype=np.float64)
    if base.name in table:
        return np.asarray(table[base.name](), dtype=np.float64)
    return base_tails(base, y, eta, first, trials if base.name in TRIALS else None)[0]


def root(function: Callable[[Array, Index], Array], start: Array, scale: Array) -> Array:
    """(m,) zeros of increasing functions ``f(x, rows)``: bracketed by doubling, then by false position and bisection."""
    rows = np.arange(len(start))
    low, high = np.array(start), np.array(start)
    at_low = at_high = function(start, rows)
    at_low, at_high = np.array(at_low), np.array(at_high)
    for end, value, sign in ((low, at_low, -1.0), (high, at_high, 1.0)):
        step, open_ = np.array(scale), rows[sign * value < 0]
        for _ in range(60):
            if not len(open_):
                break
            end[open_] += sign * step[open_]
            value[open_] = function(end[open_], open_)
            step[open_] *= 2
            open_ = open_[sign * value[open_] < 0]
    open_, side = rows[high > low], np.zeros(len(rows))
    for turn in range(200):
        if not len(open_):
            break
        a, b, fa, fb = low[open_], high[open_], at_low[open_], at_high[open_]
        x = (a + b) / 2
        if turn % 4 != 3:
            with np.errstate(all="ignore"):
                guess = (a * fb - b * fa) / (fb - fa)
            x = np.where((guess > a) & (guess < b), guess, x)
        value = function(x, open_)
        up = value >= 0
        # Illinois: an end that stays twice counts half
        at_low[open_[up & (side[open_] > 0)]] /= 2
        at_high[open_[~up & (side[open_] < 0)]] /= 2
        high[open_[up]], at_high[open_[up]] = x[up], value[up]
        low[open_[~up]], at_low[open_[~up]] = x[~up], value[~up]
        side[open_] = np.where(up, 1.0, -1.0)
        done = (np.abs(value) < CLOSE) | (high[open_] - low[open_] <= CLOSE * np.maximum(scale[open_], 1e-3))
        low[open_[done]] = high[open_[done]] = x[done]
        open_ = open_[~done]
    return high


def upper(link: Family, cut: float) -> Callable[[Array, Index], Array]:
    """P(Y above a threshold) at linear predictors."""
    return lambda values, _: link.failure(cut - values)


def category_limits(fit: GeneralisedFit, rows: Rows, level: float) -> tuple[Index, Index]:
    """(m,) lowest and highest category, numbered from zero, of the central ones that hold a new response.

    The error of a threshold less the linear predictor is normal with the variance of that difference.
    """
    from .families import Family

    cov, p = joint_vcov(fit), len(fit.optimum.beta)
    link, tops = Family("binomial", fit.family.link), []
    for k, cut in enumerate(rows.cuts.tolist()):
        along = np.array(rows.errors.along)
        along[:, p + k] -= 1.0
        variance = quadratic(along, cov) + rows.errors.apart
        sd = np.sqrt(np.maximum(variance, 0.0))
        tops.append(1 - normal_mean(upper(link, cut), rows.eta, sd, link_width(fit.family)))
    below = np.maximum.accumulate(np.column_stack([*tops, np.ones(len(rows.eta))]), axis=1)
    low = (below < 0.5 - level / 2 - 1e-12).sum(axis=1)
    high = (below < 0.5 + level / 2 - 1e-12).sum(axis=1)
    return low, high
