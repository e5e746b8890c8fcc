"""Randomised quantile residuals of generalised models: standard normal under the model, whatever the family.

Dunn & Smyth (1996, J. Comput. Graph. Stat. 5(3)): the normal quantile of the distribution function at the response; for
counts and categories of a uniform draw between its values just below and at the response.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .families import Family
    from .generalised import GeneralisedFit

__all__ = ["partly_marginal", "quantile_residuals", "tails"]

Array = NDArray[np.float64]

DISCRETE = ("binomial", "betabinomial", "poisson", "nbinom2", "nbinom1", "ordinal", "tweedie")  # with steps
BATCH = 2000  # rows integrated at a time
MOST_SUMMED = 300.0  # trials of a beta-binomial count
POINTS = 360  # of an integral
DEPTH = 60.0  # of the log density below its peak, where its integral ends
SMALLEST = 1e-300  # of a tail probability, some 37 standard deviations out


def quantile_residuals(fit: GeneralisedFit, seed: Any = None) -> Array:
    """(rows used,) quantile residuals, conditional on the group effects.

    Parameters
    ----------
    fit : GeneralisedFit
    seed : int or Generator, optional
        Of the draws within the steps of a discrete distribution; continuous ones need none.

    Returns
    -------
    (n,) array
        Prior weights say how often a row counts and leave its distribution as it is.
    """
    from .predict import generator

    rng = generator(seed)
    if not isinstance(seed, np.random.Generator):
        (rng,) = rng.spawn(1)  # a stream of its own, or a response simulated from the same seed would go along with it
    return _normal(fit, *steps(fit, fit._eta[1]), rng)


def partly_marginal(fit: GeneralisedFit, kept: list[str], rng: np.random.Generator) -> Array:
    """(rows used,) quantile residuals given the effects of the groups kept, integrated over those of the others.

    Groups of a row or two follow their rows so closely that residuals given their effects are too small.
    """
    from .generalised_predict import NODES

    eta, spread = fit._eta[0].copy(), np.zeros(len(fit.design.rows))
    for term, b, cov in zip(fit.design.terms, fit.optimum.b, fit.random_cov(), strict=True):
        z = np.ones((len(eta), 1)) if term.Z is None else term.Z
        if term.group in kept:
            eta += np.einsum("ij,ij->i", z, b[term.codes])
        else:
            spread += np.einsum("ij,jk,ik->i", z, cov, z)
    if not spread.any():
        return _normal(fit, *steps(fit, eta), rng)
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    total = np.zeros((4, len(eta)))
    for node, weight in zip(nodes, weights / weights.sum(), strict=True):
        total += weight * np.array(steps(fit, eta + node * np.sqrt(spread)))
    return _normal(fit, total[0], total[1], total[2], total[3], rng)


def steps(fit: GeneralisedFit, eta: Array) -> tuple[Array, Array, Array, Array]:
    """P(Y <= y), P(Y > y), and of a discrete response P(Y <= y - 1), P(Y > y - 1) (else the same again)."""
    y = fit.rows_of_data().y
    at = tails(fit, y, eta)
    if fit.family.name == "tweedie":  # continuous but for the zeros
        under, over = np.where(y > 0, at[0], 0.0), np.where(y > 0, at[1], 1.0)
        return *at, under, over
    discrete = fit.family.name in DISCRETE or fit.family.zero != "none"
    return *at, *(tails(fit, y - 1, eta) if discrete else at)


def _normal(
    fit: GeneralisedFit, below: Array, above: Array, under: Array, over: Array, rng: np.random.Generator
) -> Array:
    from scipy.special import ndtri

    if fit.family.name in DISCRETE or fit.family.zero != "none":
        share = rng.random(len(below))
        below, above = under + share * (below - under), above + (1 - share) * (over - above)
    lower = below < above
    tail = ndtri(np.clip(np.where(lower, below, above), SMALLEST, 0.5))
    return np.asarray(np.where(lower, tail, -tail))


def tails(fit: GeneralisedFit, y: Array, eta: Array) -> tuple[Array, Array]:
    """P(Y <= y) and P(Y > y) of each row, both without cancellation.

    Parameters
    ----------
    y : (rows used,) array
        As the family takes it: successes, for counts of them; numbers of categories from zero.
    eta : (rows used,) array
        Linear predictors.
    """
    if fit.family.name == "ordinal":
        return _ordinal(fit, eta, y)
    first, second = fit._parameters
    below, above = base_tails(fit.family, y, eta, first, fit.design.trials)
    if fit.family.zero == "none":
        return below, above
    from scipy.special import expit

    share, rest = expit(second), expit(-second)
    if fit.family.zero == "hurdle":
        below, above = truncated(fit.family, y, eta, first, below, above)
    return np.where(y >= 0, share + rest * below, 0.0), np.where(y >= 0, rest * above, 1.0)


def truncated(family: Family, y: Array, eta: Array, first: Array, below: Array, above: Array) -> tuple[Array, Array]:
    """Tails of a count given that it is above zero, from those of the count."""
    zero, more = base_tails(family, np.zeros(len(y)), eta, first, None)
    upper = np.clip(np.divide(above, more, out=np.zeros_like(above), where=more > 0), 0, 1)
    rare = more < 0.5  # counts above zero: P(Y <= y) - P(Y = 0) has lost its digits
    lower = np.where(rare, 1 - upper, np.clip((below - zero) / np.where(rare, 1.0, more), 0, 1))
    return np.where(y > 0, lower, 0.0), np.where(y > 0, upper, 1.0)


def _ordinal(fit: GeneralisedFit, eta: Array, y: Array) -> tuple[Array, Array]:
    from .families import Family

    link, cuts = Family("binomial", fit.family.link), fit.optimum.residual
    inner = (y >= 0) & (y < len(cuts))
    at = cuts[np.clip(y, 0, len(cuts) - 1).astype(np.intp)] - eta
    below = np.where(inner, link.mean(at), np.where(y < 0, 0.0, 1.0))
    return below, np.where(inner, link.failure(at), np.where(y < 0, 1.0, 0.0))


def base_tails(family: Family, y: Array, eta: Array, first: Array, trials: Array | None) -> tuple[Array, Array]:
    """P(Y <= y) and P(Y > y) of the distribution without its extra zeros."""
    from scipy import stats

    mu, size = family.mean(eta), np.exp(first)
    m = np.ones(len(y)) if trials is None else trials
    table: dict[str, Callable[[], Any]] = {
        "poisson": lambda: stats.poisson(mu),
        "gamma": lambda: stats.gamma(size, scale=mu / size),
        "inverse_gaussian": lambda: stats.invgauss(mu / size, scale=size),
        "student": lambda: stats.t(family.own_number, mu, size),
        "gaussian": lambda: stats.norm(mu, size),
        "lognormal": lambda: stats.lognorm(size, scale=np.exp(mu)),
    }
    if family.name in PROPORTIONS:
        return PROPORTIONS[family.name](y, m, mu, family.failure(eta), size)
    if family.name in ("nbinom2", "nbinom1"):
        count, odds = (size, mu / size) if family.name == "nbinom2" else (mu / size, size)
        return negative_binomial_tails(y, count, odds)
    if family.name == "tweedie":
        from .compound_poisson import tails as tweedie_tails

        return tweedie_tails(y, mu, size, family.own_number)
    distribution = table[family.name]()
    return np.asarray(distribution.cdf(y), dtype=np.float64), np.asarray(distribution.sf(y), dtype=np.float64)


def negative_binomial_tails(y: Array, size: Array, odds: Array) -> tuple[Array, Array]:
    """P(Y <= y) and P(Y > y) of negative binomial counts of mean ``size * odds``, sizes without bound included."""
    from scipy.special import betainc, betaincc

    count, share = np.floor(y) + 1, odds / (1 + odds)
    known = (count > 0) & (share > 0)
    at = np.maximum(count, 1.0)
    below = np.where(known, betaincc(at, size, share), count > 0)
    return below, np.where(known, betainc(at, size, share), count <= 0)


def binomial_tails(y: Array, m: Array, mean: Array, failure: Array) -> tuple[Array, Array]:
    """P(Y <= y) and P(Y > y) of counts of successes among m."""
    from scipy.special import betainc

    count = np.floor(y)
    low, high = np.maximum(count, 0) + 1, np.maximum(m - count, 1)
    below, above = betainc(high, low, failure), betainc(low, high, mean)
    return np.where(y < 0, 0.0, np.where(y >= m, 1.0, below)), np.where(y < 0, 1.0, np.where(y >= m, 0.0, above))


def beta_tails(y: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """P(Y <= y) and P(Y > y) of beta variables; all at 1 where b is too small for a number above zero, at 0 where a is."""
    from scipy.special import betainc, betaincc

    x, known = np.clip(y, 0, 1), (a > 0) & (b > 0)
    a, b, surely = np.where(known, a, 1.0), np.where(known, b, 1.0), np.where(b > 0, y >= 0, y >= 1)
    return np.where(known, betainc(a, b, x), surely), np.where(known, betaincc(a, b, x), ~surely)


PROPORTIONS: dict[str, Callable[..., tuple[Array, Array]]] = {  # by response, trials, mean, 1 - mean, precision
    "binomial": lambda y, m, mean, failure, _: binomial_tails(y, m, mean, failure),
    "beta": lambda y, _, mean, failure, size: beta_tails(y, mean * size, failure * size),
    "betabinomial": lambda y, m, mean, failure, size: beta_binomial_tails(y, m, mean * size, failure * size),
}


def beta_binomial_tails(y: Array, m: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """P(Y <= y) and P(Y > y) of beta-binomial counts: a sum over the successes, or an integral where trials are many.

    Parameters
    ----------
    y, m, a, b : (n,) arrays
        Successes, trials, parameters of the beta distribution.
    """
    below, above = (y >= 0).astype(np.float64), (y < 0).astype(np.float64)
    y = np.floor(y)
    inner = (y >= 0) & (y < m)
    all_fail, all_succeed = inner & (a == 0), inner & (b == 0)  # too small for a number above zero
    below[all_fail], above[all_fail] = 1.0, 0.0
    below[all_succeed], above[all_succeed] = 0.0, 1.0
    inner &= (a > 0) & (b > 0)
    for many, function in ((False, _summed), (True, _integrated)):
        rows = np.flatnonzero(inner & ((m > MOST_SUMMED) == many))
        for start in range(0, len(rows), BATCH):
            at = rows[start : start + BATCH]
            below[at], above[at] = function(y[at], m[at], a[at], b[at])
    return below, above


def _summed(y: Array, m: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """Probabilities from their ratios, which keep all digits however large the parameters are."""
    k, (a, b, m) = np.arange(m.max()), (one[:, None] for one in (a, b, m))
    with np.errstate(divide="ignore"):  # none beyond the trials
        ratio = np.log(np.maximum(m - k, 0)) + np.log(a + k) - np.log(k + 1) - np.log(b + np.maximum(m - k - 1, 0))
    log_p = np.concatenate([np.zeros((len(y), 1)), np.cumsum(ratio, axis=1)], axis=1)
    p = np.exp(log_p - log_p.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    up_to = np.arange(p.shape[1]) <= y[:, None]
    return np.where(up_to, p, 0.0).sum(axis=1), np.where(up_to, 0.0, p).sum(axis=1)


def _integrated(y: Array, m: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """With p of the beta distribution (a, b), Y <= y if p is less than a beta variable of parameters y + 1 and m - y.

    The distribution function of the wider of the two is integrated over the narrower on the scale of the logit, where the
    integrand is a smooth bell that the trapezoidal rule sums to all digits.
    """
    return _beta_less(a, b, y + 1, m - y)


def _beta_less(a: Array, b: Array, c: Array, d: Array) -> tuple[Array, Array]:
    """P(p < q) and P(p > q) of independent beta variables p (a, b) and q (c, d)."""
    from scipy.special import betainc, betaincc, expit, polygamma

    def width(one: Array, other: Array) -> Array:
        return np.asarray(polygamma(1, np.maximum(one, 1e-100)) + polygamma(1, np.maximum(other, 1e-100)))

    swap = width(a, b) < width(c, d)
    own, rest = np.where(swap, a, c)[:, None], np.where(swap, b, d)[:, None]
    wide, far = np.where(swap, c, a)[:, None], np.where(swap, d, b)[:, None]
    centre = np.log(own) - np.log(rest)
    p, q = expit(centre), expit(-centre)

    def bell(step: Array) -> Array:
        """Log density at a step from its peak."""
        return np.asarray(-own * np.log1p(q * np.expm1(-step)) - rest * np.log1p(p * np.expm1(step)))

    ends = []
    for sign in (-1.0, 1.0):
        low, high = np.zeros_like(centre), np.full_like(centre, 200.0)
        for _ in range(60):
            middle = (low + high) / 2
            out = bell(sign * middle) < -DEPTH
            low, high = np.where(out, low, middle), np.where(out, middle, high)
        ends.append(sign * high)
    step = ends[0] + (ends[1] - ends[0]) * np.linspace(0, 1, POINTS)
    weight = np.exp(bell(step))
    weight /= weight.sum(axis=1, keepdims=True)
    x, one_less = expit(centre + step), expit(-centre - step)
    low_half = x < 0.5  # digits of the nearer end of the range
    lower = np.where(low_half, betainc(wide, far, x), betaincc(far, wide, one_less))
    upper = np.where(low_half, betaincc(wide, far, x), betainc(far, wide, one_less))
    less, more = (weight * lower).sum(axis=1), (weight * upper).sum(axis=1)
    return np.where(swap, more, less), np.where(swap, less, more)
