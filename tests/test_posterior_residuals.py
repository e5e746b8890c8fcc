"""Residuals of posteriors: against hand computation from the draws."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from posterior_samples import diseased, flat, nests, sampled, schools, wine
from scipy.special import expit, ndtri
from scipy.stats import nbinom, norm

import multilevel as ml
from multilevel import posterior_residuals
from multilevel.posterior import Posterior


def predictors(posterior: Any) -> Any:
    """(draws, rows) linear predictors."""
    d, kept = posterior.design, posterior.draws_kept
    eta = flat(kept.beta) @ d.X.T
    for t, term in enumerate(d.terms):
        z = np.ones((len(d.y), 1)) if term.Z is None else term.Z
        eta = eta + np.einsum("snk,nk->sn", flat(kept.b[t])[:, term.codes], z)
    return eta if d.offset is None else eta + d.offset


def further(posterior: Any) -> Any:
    kept = posterior.draws_kept
    return flat(kept.scalars)[:, [i for i, c in enumerate(kept.coordinates) if c.kind == "further"]]


def test_residuals_of_a_linear_model() -> None:
    posterior, y = schools(), schools().design.y
    eta, sigma = predictors(posterior), flat(posterior.draws_kept.scalar("sigma"))[:, None]
    np.testing.assert_allclose(posterior.residuals(), y - eta.mean(axis=0))
    np.testing.assert_allclose(posterior.residuals(), y - posterior.fitted())
    np.testing.assert_allclose(posterior.residuals("pearson"), (y - eta.mean(axis=0)) / sigma.mean())
    np.testing.assert_allclose(posterior.residuals("quantile"), ndtri(norm.cdf((y - eta) / sigma).mean(axis=0)))
    fit = posterior.model.fit()
    assert np.abs(posterior.residuals("pearson") - fit.residuals("pearson")).max() < 0.1


def test_weights_and_lost_rows() -> None:
    data = ml.load("math10").assign(w=lambda d: 1.0 + d["homework"])
    data.loc[2, "math"] = np.nan
    posterior = sampled("math ~ homework + (1 | schid)", data, weights="w")
    found, y = posterior.residuals("pearson"), data["math"].to_numpy()
    sigma, w = posterior.draws_kept.scalar("sigma").mean(), data["w"].to_numpy()
    assert np.isnan(found[2]) and len(found) == len(data)
    np.testing.assert_allclose(found, (y - posterior.fitted()) * np.sqrt(w) / sigma)
    r = posterior.residuals("quantile")
    assert np.isnan(r[2]) and abs(np.nanstd(r) - 1) < 0.1


def test_residuals_of_shares() -> None:
    posterior, d = diseased(), diseased().design
    p = expit(predictors(posterior))
    share = d.y / d.trials
    np.testing.assert_allclose(posterior.residuals(), share - p.mean(axis=0))
    sd = np.sqrt(p * (1 - p) / d.trials).mean(axis=0)
    np.testing.assert_allclose(posterior.residuals("pearson"), (share - p.mean(axis=0)) / sd)


def test_residuals_of_counts_with_extra_zeros() -> None:
    """The distribution function by scipy, and the variance by the law of total variance."""
    posterior, d = nests(), nests().design
    mu = np.exp(predictors(posterior))
    values = further(posterior)
    size = np.exp(values[:, :1])
    share = expit(values[:, 1:] @ d.sides["zi"][0].T)
    base = nbinom(size, size / (size + mu))
    mean, variance = (1 - share) * mu, (1 - share) * (mu + mu**2 / size) + share * (1 - share) * mu**2
    np.testing.assert_allclose(posterior.residuals(), d.y - mean.mean(axis=0))
    np.testing.assert_allclose(posterior.residuals("pearson"), (d.y - mean.mean(axis=0)) / np.sqrt(variance).mean(axis=0))
    upper = (share + (1 - share) * base.cdf(d.y)).mean(axis=0)
    lower = np.where(d.y > 0, share + (1 - share) * base.cdf(d.y - 1), 0.0).mean(axis=0)
    r = posterior.residuals("quantile")
    assert (r > ndtri(lower) - 1e-9).all() and (r < ndtri(upper) + 1e-9).all()
    np.testing.assert_array_equal(r, posterior.residuals("quantile"))
    assert not np.array_equal(r, posterior.residuals("quantile", seed=1))


@pytest.mark.parametrize("made", [diseased, nests, wine])
def test_quantile_residuals_are_ranks_among_new_responses(made: Any) -> None:
    """Share of simulated responses below and at the observed one, up to the simulation's error."""
    from multilevel.row_draws import new_responses

    posterior = made()
    y = posterior.design.y
    new = np.concatenate([flat(new_responses(posterior, np.random.default_rng(s))) for s in range(5)])
    lower, upper = (new < y).mean(axis=0), (new <= y).mean(axis=0)
    error = 5 * np.sqrt(0.25 / len(new)) + 0.02  # 0.02: distribution functions are of some of the draws
    p = norm.cdf(posterior.residuals("quantile"))
    assert (p > lower - error).all() and (p < upper + error).all()


def test_an_estimated_shape() -> None:
    data = ml.load("math10")
    priors = {"sd": ml.HalfNormal(10), "Intercept": ml.Normal(50, 20)}
    posterior = sampled("math ~ homework + (1 | schid)", data, {"draws": 100}, family="student", priors=priors)
    from scipy.stats import t

    values = further(posterior)
    names = [c.name for c in posterior.draws_kept.coordinates if c.kind == "further"]
    df = posterior.model.distribution.at_shape
    shape = np.array([df(v).df for v in values[:, names.index(next(n for n in names if "df" in n))]])
    size = np.exp(values[:, [names.index(next(n for n in names if "df" not in n))]])
    expected = ndtri(t.cdf((posterior.design.y - predictors(posterior)) / size, shape[:, None]).mean(axis=0))
    np.testing.assert_allclose(posterior.residuals("quantile"), expected, atol=1e-6)
    assert posterior.check()["predictive sd"].verdict == "ok"


def test_residuals_refuse() -> None:
    with pytest.raises(ml.OptionError, match="kind 'working' is not known; allowed are 'response', 'pearson', 'deviance'"):
        schools().residuals("working")
    for kind in ("response", "pearson", "deviance"):
        with pytest.raises(ml.OptionError, match=f"no {kind} residuals.*kind='quantile'"):
            wine().residuals(kind)
    with pytest.raises(ml.OptionError, match="no expectation.*predict"):
        wine().fitted()
    with pytest.raises(ml.OptionError, match="seed must be"):
        nests().residuals("quantile", seed="x")
    alone = sampled("math ~ 1 + (1 | schid)", ml.load("math10"), {"keep": "parameters", "draws": 50})
    for call in (alone.residuals, alone.check, alone.plot.check):
        with pytest.raises(ml.MultilevelError, match="kept no group effects|not kept"):
            call()


def test_draws_are_thinned_evenly() -> None:
    posterior = diseased()
    assert posterior_residuals.thinned(posterior).draws_kept.draws <= posterior.draws_kept.draws
    few = replace(posterior.draws_kept, beta=np.tile(posterior.draws_kept.beta, (1, 40, 1)))
    many = replace(few, scalars=np.tile(few.scalars, (1, 40, 1)), b=[np.tile(b, (1, 40, 1, 1)) for b in few.b])
    found = posterior_residuals.thinned(Posterior(posterior.model, many, posterior.entries))
    assert found.draws_kept.chains * found.draws_kept.draws * 56 <= 2e5
