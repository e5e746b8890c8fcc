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

DISCRETE = ("binomial", "betabinomial", "poisson", "nbinom2", "nbinom1", "ordinal")
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
        zero, more = base_tails(fit.family, np.zeros(len(y)), eta, first, None)
        below, above = np.maximum(below - zero, 0) / more, np.minimum(above / more, 1)
    return np.where(y >= 0, share + rest * below, 0.0), np.where(y >= 0, rest * above, 1.0)


def _ordinal(fit: GeneralisedFit, eta: Array, y: Array) -> tuple[Array, Array]:
    from .families import Family

    link, cuts = Family("binomial", fit.family.link), fit.optimum.residual
    inner = (y >= 0) & (y < len(cuts))
    at = cuts[np.clip(y, 0, len(cuts) - 1).astype(np.intp)] - eta
    below = np.where(inner, link.mean(at), np.where(y < 0, 0.0, 1.0))
    flipped = 1 - link.mean(at) if fit.family.link == "cloglog" else link.mean(-at)
    return below, np.where(inner, flipped, np.where(y < 0, 1.0, 0.0))


def base_tails(family: Family, y: Array, eta: Array, first: Array, trials: Array | None) -> tuple[Array, Array]:
    """P(Y <= y) and P(Y > y) of the distribution without its extra zeros."""
    from scipy import stats

    mu, size = family.mean(eta), np.exp(first)
    m = np.ones(len(y)) if trials is None else trials
    table: dict[str, Callable[[], Any]] = {
        "binomial": lambda: stats.binom(m, mu),
        "betabinomial": lambda: stats.betabinom(m, mu * size, (1 - mu) * size),
        "poisson": lambda: stats.poisson(mu),
        "nbinom2": lambda: stats.nbinom(size, size / (size + mu)),
        "nbinom1": lambda: stats.nbinom(mu / size, 1 / (1 + size)),
        "gamma": lambda: stats.gamma(size, scale=mu / size),
        "inverse_gaussian": lambda: stats.invgauss(mu / size, scale=size),
        "beta": lambda: stats.beta(mu * size, (1 - mu) * size),
        "student": lambda: stats.t(family.df, mu, size),
        "gaussian": lambda: stats.norm(mu, size),
        "lognormal": lambda: stats.lognorm(size, scale=np.exp(mu)),
    }
    distribution = table[family.name]()
    return np.asarray(distribution.cdf(y), dtype=np.float64), np.asarray(distribution.sf(y), dtype=np.float64)
