"""Residuals of a posterior: responses against what the draws say of them, for any family.

Quantile residuals are the normal quantile of the posterior predictive distribution function at the response (Dunn & Smyth
1996, J. Comput. Graph. Stat. 5(3)). That function is the mean over draws of each draw's own, which is what infinitely many
predictive draws would give, its tails included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import OptionError
from .families import Family
from .generalised_residuals import DISCRETE, SMALLEST, base_tails, truncated
from .posterior_predict import predictors, rows_to_predict, sigma_of
from .row_draws import _kept_groups, _parts, further
from .structured_draws import RowSds

if TYPE_CHECKING:
    from .posterior import Posterior

__all__ = ["KINDS", "expectation", "observed", "quantile_residuals", "residuals", "serial", "spread", "thinned"]

Array = NDArray[np.float64]

KINDS = ("response", "pearson", "deviance", "quantile")
EVALUATIONS = {True: 4e6, False: 2e5}  # distribution functions at most (draws times rows), of normal and other responses
FEWEST = 100  # draws, whatever the rows


def residuals(posterior: Posterior, kind: str, seed: Any) -> Array:
    """(rows used,) residuals; see `Posterior.residuals`."""
    family = posterior.model.distribution
    if kind not in KINDS:
        raise OptionError(f"kind {kind!r} is not known; allowed are {', '.join(map(repr, KINDS))}")
    posterior.rows_of_data()
    if serial(posterior) and kind != "response":
        raise OptionError(
            f"kind={kind!r} takes residuals without a serial correlation in this version; use kind='response', or "
            "model.fit().residuals('normalized')"
        )
    if kind == "quantile":
        return quantile_residuals(posterior, seed)
    if family is not None and family.name == "ordinal":
        raise OptionError(f"categories have no {kind} residuals, for they are no numbers; use kind='quantile'")
    if kind == "deviance" and family is not None:
        return _deviance(posterior, family)
    raw = observed(posterior) - expectation(posterior)
    if kind == "response":
        return np.asarray(raw)
    if kind == "deviance":
        return np.asarray(raw / spread(posterior) * sigma_of(posterior).mean())
    return np.asarray(raw / np.maximum(spread(posterior), np.finfo(np.float64).tiny))


def serial(posterior: Posterior) -> bool:
    """Whether the residuals are correlated within series."""
    residual = posterior.model.residual
    return residual is not None and residual.serial is not None


def _deviance(posterior: Posterior, family: Family) -> Array:
    """Deviance residuals at the posterior means of the mean (without extra zeros), log dispersion and shape."""
    from .generalised_deviance import deviance_residuals

    d, total = posterior.rows_of_data(), posterior.draws_kept.chains * posterior.draws_kept.draws
    means = np.zeros((3, len(d.y)))
    for part in _parts(posterior):
        mean = family.mean(part.eta.ravel()).reshape(part.eta.shape)
        means[:, part.rows] += np.array([one.sum(axis=0) / total for one in (mean, part.first, part.second)])
    family = family.at_shape(float(means[2, 0]))
    eta = _predictor(family, means[0])
    stand_in: Any = SimpleNamespace(
        family=family, rows_of_data=posterior.rows_of_data, _eta=(eta, eta), _parameters=(means[1], means[2])
    )
    return deviance_residuals(stand_in)


def _predictor(family: Family, mean: Array) -> Array:
    """Linear predictors of means, the other way round than `Family.mean`."""
    from scipy.special import logit, ndtri

    way: dict[str, Callable[[Array], Any]] = {
        "identity": lambda m: m, "log": np.log, "logit": logit, "probit": ndtri, "inverse": lambda m: 1 / m,
        "cloglog": lambda m: np.log(-np.log1p(-m)), "cauchit": lambda m: np.tan(np.pi * (m - 0.5)), "sqrt": np.sqrt,
        "inverse_square": lambda m: m**-2.0,
    }  # fmt: skip
    return np.asarray(way[family.link](mean), dtype=np.float64)


def observed(posterior: Posterior) -> Array:
    """(rows used,) response, a proportion where it counts successes."""
    d, family = posterior.rows_of_data(), posterior.model.distribution
    counts = d.trials is not None and family is not None and family.name != "ordinal"
    return np.asarray(d.y / d.trials if counts else d.y, dtype=np.float64)


def thinned(posterior: Posterior) -> Posterior:
    """The posterior with draws few enough for as many distribution functions as rows, spread evenly over each chain."""
    kept, n = posterior.draws_kept, max(len(posterior.design.rows), 1)
    most = max(FEWEST, int(EVALUATIONS[posterior.model.distribution is None] / n))
    step = -(-kept.chains * kept.draws // most)
    if step <= 1:
        return posterior
    some = replace(
        kept, scalars=kept.scalars[:, ::step], beta=kept.beta[:, ::step], b=[b[:, ::step] for b in kept.b],
        stats={name: v[:, ::step] for name, v in kept.stats.items()},
    )  # fmt: skip
    return type(posterior)(posterior.model, some, posterior.entries)


def expectation(posterior: Posterior) -> Array:
    """(rows used,) posterior means of the expected response, of a proportion where it counts successes."""
    d, family = posterior.rows_of_data(), posterior.model.distribution
    out = np.zeros(len(d.y))
    if family is None:
        rows = rows_to_predict(posterior, None, _kept_groups(posterior), None, False)
        for piece, eta in predictors(posterior, rows, False, np.random.default_rng(0)):
            out[piece] = eta.mean(axis=0)
        return out
    total = posterior.draws_kept.chains * posterior.draws_kept.draws
    for part in _parts(posterior):
        mean = family.expected(part.eta.ravel(), part.first.ravel(), part.second.ravel())
        out[part.rows] += mean.reshape(part.eta.shape).sum(axis=0) / total
    return out


def spread(posterior: Posterior) -> Array:
    """(rows used,) posterior means of the sd of the response, weights included.

    Raises
    ------
    OptionError
        Where some draws have no finite variance.
    """
    d = posterior.rows_of_data()
    weights = np.ones(len(d.y)) if d.weights is None else d.weights
    if posterior.model.distribution is None:
        return _normal_spread(posterior)
    some = thinned(posterior)
    out = np.zeros(len(d.y))
    for family, rows, eta, first, second in _pieces(some):
        trials = None if d.trials is None else np.broadcast_to(d.trials[rows], eta.shape).ravel()
        variance = _variance(family, eta.ravel(), first.ravel(), second.ravel(), trials)
        out[rows] += np.sqrt(variance).reshape(eta.shape).sum(axis=0)
    if not np.isfinite(out).all():
        raise OptionError(
            "kind='pearson' needs a variance, which Student's t with two degrees of freedom or fewer has not, and some draws "
            "are of these; use kind='quantile'"
        )
    return np.asarray(out / (some.draws_kept.chains * some.draws_kept.draws) / np.sqrt(weights))


def _normal_spread(posterior: Posterior) -> Array:
    """`spread` of a normal response, variance functions included."""
    rows = rows_to_predict(posterior, None, None, None, False)
    sds, sigma = RowSds(posterior, rows), sigma_of(posterior)
    if not sds.spreads:
        return np.asarray(sigma.mean() * sds.base)
    out = np.zeros(len(rows.X))
    for i, size in enumerate(sigma):
        out += size * sds.of(i)
    return out / len(sigma)


def _variance(family: Family, eta: Array, first: Array, second: Array, trials: Array | None) -> Array:
    """Variance of the response with its extra zeros."""
    base = family.variance(eta, first, trials)
    if family.zero == "none":
        return base
    mean, mu = family.expected(eta, first, second), family.mean(eta)
    return np.asarray(np.maximum(mean / mu * (base + mu * mu) - mean * mean, 0.0))


def _pieces(posterior: Posterior) -> Iterator[tuple[Family, slice, Array, Array, Array]]:
    """Families with their shape known, rows, and (draws, rows) linear predictors and further parameters."""
    family = posterior.model.distribution
    assert family is not None
    for part in _parts(posterior):
        if family.shape is None:
            yield family, part.rows, part.eta, part.first, part.second
            continue
        for eta, first, second in zip(part.eta, part.first, part.second, strict=True):  # a shape for each draw
            yield family.at_shape(float(second[0])), part.rows, eta[None], first[None], np.zeros((1, len(eta)))


# -- quantile residuals -----------------------------------------------------------------------------------------


def quantile_residuals(posterior: Posterior, seed: Any) -> Array:
    """(rows used,) randomised quantile residuals, conditional on the draws of the group effects."""
    from scipy.special import ndtri

    from .predict import generator

    rng = generator(seed)
    if not isinstance(seed, np.random.Generator):
        (rng,) = rng.spawn(1)  # a stream of its own, not that of a response simulated from the same seed
    below, above, under, over = _tails_of(posterior)
    family = posterior.model.distribution
    if family is not None and (family.name in DISCRETE or family.zero != "none"):
        share = rng.random(len(below))
        below, above = under + share * (below - under), above + (1 - share) * (over - above)
    lower = below < above
    tail = ndtri(np.clip(np.where(lower, below, above), SMALLEST, 0.5))
    return np.asarray(np.where(lower, tail, -tail))


def _tails_of(posterior: Posterior) -> tuple[Array, Array, Array, Array]:
    """P(Y <= y), P(Y > y), and of a discrete response P(Y <= y - 1), P(Y > y - 1), made once for a posterior."""
    found: tuple[Array, Array, Array, Array] | None = posterior.__dict__.get("_tails")
    if found is None:
        some = thinned(posterior)
        found = _of_normal(some) if posterior.model.distribution is None else _of_family(some)
        posterior.__dict__["_tails"] = found
    return found


def _of_normal(posterior: Posterior) -> tuple[Array, Array, Array, Array]:
    from scipy.special import ndtr

    d = posterior.rows_of_data()
    rows = rows_to_predict(posterior, None, _kept_groups(posterior), None, False)
    sds, below, above = RowSds(posterior, rows), np.empty(len(d.y)), np.empty(len(d.y))
    for piece, eta in predictors(posterior, rows, False, np.random.default_rng(0)):
        z = (d.y[piece] - eta) / (sigma_of(posterior)[:, None] * sds.at(piece, eta))
        below[piece], above[piece] = ndtr(z).mean(axis=0), ndtr(-z).mean(axis=0)
    return below, above, below, above


def _of_family(posterior: Posterior) -> tuple[Array, Array, Array, Array]:
    """P(Y <= y), P(Y > y), and of a discrete response P(Y <= y - 1), P(Y > y - 1), each a mean over draws."""
    d, family = posterior.rows_of_data(), posterior.model.distribution
    assert family is not None
    out = np.zeros((4, len(d.y)))
    if family.name == "ordinal":
        cuts = further(posterior)
        for part in _parts(posterior):
            for slot, less in ((0, 0), (2, 1)):
                found = _categories(family, cuts[part.draws], part.eta, d.y[part.rows] - less)
                out[slot : slot + 2, part.rows] += np.array(found)
        return _four(out / len(cuts))
    for own, rows, eta, first, second in _pieces(posterior):
        trials = None if d.trials is None else np.broadcast_to(d.trials[rows], eta.shape).ravel()
        y = np.broadcast_to(d.y[rows], eta.shape).ravel()
        args = (eta.ravel(), first.ravel(), second.ravel(), trials)
        at = _tails(own, y, *args)
        before = at
        if own.name == "tweedie":  # continuous but for the zeros
            before = np.asarray(np.where(y > 0, at[0], 0.0)), np.asarray(np.where(y > 0, at[1], 1.0))
        elif own.name in DISCRETE or own.zero != "none":
            before = _tails(own, y - 1, *args)
        out[:, rows] += np.array([one.reshape(eta.shape).sum(axis=0) for one in (*at, *before)])
    return _four(out / (posterior.draws_kept.chains * posterior.draws_kept.draws))


def _four(parts: Array) -> tuple[Array, Array, Array, Array]:
    return parts[0], parts[1], parts[2], parts[3]


def _tails(
    family: Family, y: Array, eta: Array, first: Array, second: Array, trials: Array | None
) -> tuple[Array, Array]:
    """P(Y <= y) and P(Y > y), extra zeros included, both without cancellation."""
    from scipy.special import expit

    below, above = base_tails(family, y, eta, first, trials)
    if family.zero == "none":
        return below, above
    if family.zero == "hurdle":
        below, above = truncated(family, y, eta, first, below, above)
    share, rest = expit(second), expit(-second)
    return np.where(y >= 0, share + rest * below, 0.0), np.where(y >= 0, rest * above, 1.0)


def _categories(family: Family, cuts: Array, eta: Array, y: Array) -> tuple[Array, Array]:
    """Sums over draws of P(Y <= y) and P(Y > y) of an ordinal response, whose thresholds are (draws, m) cuts."""
    link = Family("binomial", family.link)
    inner = (y >= 0) & (y < cuts.shape[1])
    at = (cuts[:, np.clip(y, 0, cuts.shape[1] - 1).astype(np.intp)] - eta).ravel()
    below, above = link.mean(at).reshape(eta.shape).sum(axis=0), link.failure(at).reshape(eta.shape).sum(axis=0)
    n = len(eta)
    return np.where(inner, below, np.where(y < 0, 0.0, n)), np.where(inner, above, np.where(y < 0, n, 0.0))
