"""Responses drawn from posteriors: against scipy's distributions and moments in closed form."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from posterior_samples import sampled
from scipy import stats
from scipy.special import expit
from simulated_rows import NONE, Array, frame, values

import multilevel as ml


def linear_predictors(posterior: Any) -> Array:
    """(draws, rows)."""
    d, kept = posterior.design, posterior.draws_kept
    eta = kept.beta @ d.X.T
    for t, term in enumerate(d.terms):
        z = np.ones((len(d.y), 1)) if term.Z is None else term.Z
        eta = eta + np.einsum("cdnk,nk->cdn", kept.b[t][:, :, term.codes], z)
    return np.asarray(eta.reshape(-1, eta.shape[-1]))


def scalar(posterior: Any, name: str) -> Array:
    """(draws, 1) of one parameter."""
    names = [c.name for c in posterior.draws_kept.coordinates]
    return np.asarray(posterior.draws_kept.scalars[..., names.index(name)].reshape(-1, 1))


@cache
def heavy() -> Any:
    """Student's t, degrees of freedom estimated."""
    return sampled("real ~ x + (1 | g)", frame(), {"draws": 500}, family="student")


@cache
def wet() -> Any:
    """Tweedie's distribution, power estimated."""
    return sampled("wet ~ x + (1 | g)", frame(), {"draws": 500}, family="tweedie")


@cache
def graded() -> Any:
    return sampled("grade ~ x + (1 | g)", frame(), family="ordinal")


# -- simulate: groups kept, and groups drawn anew ----------------------------------------------------------------


@cache
def fixed_counts() -> Any:
    """Poisson counts of crossed groups, every parameter held."""
    priors = {"Intercept": ml.Fixed(1.0), "sd(g, Intercept)": ml.Fixed(0.4), "sd(h, Intercept)": ml.Fixed(0.3)}
    return sampled("count ~ 1 + (1 | g) + (1 | h)", frame(), {"draws": 1500}, family="poisson", priors=priors)


def test_new_groups_have_the_moments_of_a_log_normal_mixture() -> None:
    y = values(fixed_counts().simulate(6000, groups=None, seed=1))
    variance = 0.4**2 + 0.3**2
    mean = np.exp(1 + variance / 2)
    assert y.mean() == pytest.approx(mean, rel=0.02)
    assert y.var(axis=0).mean() == pytest.approx(mean + mean**2 * np.expm1(variance), rel=0.05)
    data, centred = frame(), y - mean
    products = centred.T @ centred / len(y)
    for group, other, s2 in (("g", "h", 0.16), ("h", "g", 0.09)):  # rows of one group go along with each other
        a, b = data[group].to_numpy(), data[other].to_numpy()
        pairs = (a[:, None] == a) & (b[:, None] != b)
        assert products[pairs].mean() == pytest.approx(mean**2 * np.expm1(s2), rel=0.15)
    apart = (data["g"].to_numpy()[:, None] != data["g"].to_numpy()) & (data["h"].to_numpy()[:, None] != data["h"].to_numpy())
    assert abs(products[apart].mean()) < 0.05 * mean**2 * np.expm1(0.09)


def test_groups_named_keep_their_drawn_effects() -> None:
    posterior = fixed_counts()
    kept = posterior.draws_kept.b[0].reshape(-1, 12)
    y = values(posterior.simulate(6000, groups=["g"], seed=2))
    wanted = np.exp(1 + 0.3**2 / 2) * np.exp(kept).mean(axis=0)[frame()["g"]]
    error = y.std(axis=0) / np.sqrt(len(y))
    assert np.abs((y.mean(axis=0) - wanted) / error).max() < 4.5
    every = values(posterior.simulate(6000, seed=3))
    mean = np.exp(linear_predictors(posterior))
    error = np.sqrt((mean.mean(axis=0) + mean.var(axis=0)) / len(every))
    assert np.abs((every.mean(axis=0) - mean.mean(axis=0)) / error).max() < 4.5
    np.testing.assert_allclose(every.var(axis=0), mean.mean(axis=0) + mean.var(axis=0), rtol=0.15)
    with pytest.raises(ml.OptionError, match="there is no group 'k'"):
        posterior.simulate(groups=["k"])


def test_categories_of_new_groups() -> None:
    posterior = graded()
    y = values(posterior.simulate(1000, groups=None, seed=1))
    cut, sd = scalar(posterior, "low|mid"), scalar(posterior, "sd(g, Intercept)")
    fixed = posterior.draws_kept.beta.reshape(-1, 1) @ posterior.design.X.T
    z, w = np.polynomial.hermite_e.hermegauss(31)
    low = np.mean([expit(cut - fixed - sd * point) for point in z], axis=1)  # (points, rows)
    share = (w / w.sum()) @ low
    error = np.sqrt(share * (1 - share) / len(y))
    assert set(np.unique(y)) == {0.0, 1.0, 2.0}
    assert np.abs(((y == 0).mean(axis=0) - share) / error).max() < 4.5


def test_simulations_of_a_posterior_without_its_group_effects() -> None:
    options = {"keep": "parameters", "draws": 100}
    posterior = sampled("count ~ 1 + (1 | g)", frame(), options, family="poisson")
    assert values(posterior.simulate(5, groups=None, seed=1)).shape == (5, 120)
    with pytest.raises(ml.OptionError, match="were not kept"):
        posterior.simulate(5)


def related() -> tuple[pd.DataFrame, Array]:
    k = 0.7 ** np.abs(np.subtract.outer(np.arange(6), np.arange(6)))
    rng = np.random.default_rng(2)
    data = pd.DataFrame({"a": [f"a{i}" for i in np.arange(36) % 6], "y": rng.normal(size=36)})
    return data, k


def known_model(**priors: Any) -> Any:
    data, k = related()
    known = {"a": ml.KnownCovariance([f"a{i}" for i in range(6)], covariance=k)}
    given = {"Intercept": ml.Normal(0, NONE), "sigma": ml.Fixed(0.5), "sd(a, Intercept)": ml.Fixed(2.0)} | priors
    return ml.Model("y ~ 1 + (1 | a)", data, covariance=known, priors=given)


def test_relatives_go_along_with_each_other() -> None:
    codes = np.arange(36) % 6
    wanted = 4 * related()[1][np.ix_(codes, codes)] + 0.25 * np.eye(36)
    found = values(known_model().sample(seed=1, draws=1500).simulate(6000, groups=None, seed=1))
    np.testing.assert_allclose(np.cov(found, rowvar=False), wanted, atol=0.35)
    prior = values(known_model().prior_predictive(6000, seed=2))
    np.testing.assert_allclose(np.cov(prior, rowvar=False), wanted, atol=0.35)


# -- families whose shape is estimated -----------------------------------------------------------------------------


def test_densities_use_the_drawn_degrees_of_freedom() -> None:
    posterior = heavy()
    df, sigma = 1 + np.exp(scalar(posterior, "df[Intercept]")), np.exp(scalar(posterior, "sigma[Intercept]"))
    assert df.std() > 0.1
    found = posterior.log_likelihood().reshape(-1, 120)
    wanted = stats.t.logpdf(posterior.design.y, df, loc=linear_predictors(posterior), scale=sigma)
    np.testing.assert_allclose(found, wanted, atol=1e-9)


def compound(posterior: Any) -> tuple[Array, Array, Array]:
    """Mean of the number of gamma variables in a response, their shape and scale, each (draws, rows) or (draws, 1)."""
    power = 1.01 + 0.98 * expit(scalar(posterior, "power[Intercept]"))
    phi, mu = np.exp(scalar(posterior, "phi[Intercept]")), np.exp(linear_predictors(posterior))
    rate = mu ** (2 - power) / (phi * (2 - power))
    return rate, (2 - power) / (power - 1), phi * (power - 1) * mu ** (power - 1)


@pytest.mark.slow
def test_densities_use_the_drawn_power() -> None:
    posterior = wet()
    rate, shape, scale = compound(posterior)
    y, n = np.asarray(posterior.design.y), np.arange(1, 60).reshape(-1, 1, 1)
    some = slice(0, 200)
    terms = stats.poisson.pmf(n, rate[some]) * stats.gamma.pdf(np.maximum(y, 1e-9), n * shape[some], scale=scale[some])
    wanted = np.where(y == 0, -rate[some], np.log(terms.sum(axis=0)))
    np.testing.assert_allclose(posterior.log_likelihood().reshape(-1, 120)[some], wanted, atol=1e-6)


def test_intervals_of_a_new_response_with_heavy_tails() -> None:
    posterior = heavy()
    df, sigma = 1 + np.exp(scalar(posterior, "df[Intercept]")), np.exp(scalar(posterior, "sigma[Intercept]"))
    eta = linear_predictors(posterior)
    found = posterior.predict(interval="prediction", level=0.8, seed=1)
    error = np.sqrt(0.1 * 0.9 / len(eta))
    for column, p in (("ci_low", 0.1), ("ci_high", 0.9)):
        below = stats.t.cdf((np.asarray(found[column]) - eta) / sigma, df).mean(axis=0)
        assert np.abs(below - p).max() < 5 * error
    np.testing.assert_allclose(found["prediction"], eta.mean(axis=0))
    new = posterior.predict({"x": [1.0], "g": [99]}, interval="prediction", new_levels="population", seed=2)
    assert np.isfinite(np.asarray(new)).all()


def test_intervals_of_a_new_response_with_zeros() -> None:
    posterior = wet()
    rate, shape, scale = compound(posterior)
    found = posterior.predict(interval="prediction", level=0.8, seed=1)
    top = np.asarray(found["ci_high"])
    n = np.arange(1, 60).reshape(-1, 1, 1)
    below = np.exp(-rate) + sum(stats.poisson.pmf(k, rate) * stats.gamma.cdf(top / scale, k * shape) for k in n[:, 0, 0])
    assert np.abs(below.mean(axis=0) - 0.9).max() < 5 * np.sqrt(0.09 / len(rate))
    none = np.exp(-rate).mean(axis=0)
    assert (np.asarray(found["ci_low"])[none > 0.13] == 0).all()


@pytest.mark.parametrize("make", [heavy, wet])
def test_simulations_use_the_drawn_shape(make: Any) -> None:
    posterior = make()
    y = values(posterior.simulate(4000, seed=4))
    eta = linear_predictors(posterior)
    if make is heavy:
        df, sigma = 1 + np.exp(scalar(posterior, "df[Intercept]")), np.exp(scalar(posterior, "sigma[Intercept]"))
        wanted = stats.t.cdf((2.0 - eta) / sigma, df).mean(axis=0)
        found = (y <= 2.0).mean(axis=0)
    else:
        wanted, found = np.exp(-compound(posterior)[0]).mean(axis=0), (y == 0).mean(axis=0)
    assert np.abs((found - wanted) / np.sqrt(wanted * (1 - wanted) / len(y))).max() < 4.5
    again = values(posterior.simulate(50, groups=None, seed=5))
    assert np.isfinite(again).all()


# -- prediction intervals of categories and proportions ------------------------------------------------------------


def test_central_categories() -> None:
    posterior = graded()
    eta = linear_predictors(posterior)
    cuts = [scalar(posterior, name) for name in ("low|mid", "mid|top")]
    below = np.column_stack([*(expit(cut - eta).mean(axis=0) for cut in cuts), np.ones(120)])
    labels = np.array(["low", "mid", "top"], dtype=object)
    found = posterior.predict(interval="prediction", level=0.4)
    for column, p in (("ci_low", 0.3), ("ci_high", 0.7)):
        assert list(found[column]) == labels[(below < p).sum(axis=1)].tolist()
    assert list(found.columns) == [*labels, "ci_low", "ci_high"]
    np.testing.assert_allclose(found["low"], below[:, 0])
    new = posterior.predict({"x": [1.0, np.nan], "g": [0, 1]}, interval="prediction")
    assert new["ci_low"][0] == "low" and pd.isna(new["ci_low"][1]) and np.isnan(new["low"][1])


def test_proportions_of_the_trials_of_new_rows() -> None:
    priors = {"Intercept": ml.Fixed(0.0), "sd": ml.Fixed(NONE)}
    posterior = sampled("share | trials(m) ~ 1 + (1 | g)", frame(), {"draws": 1000}, family="binomial", priors=priors)
    new = pd.DataFrame({"g": [0, 0, 1], "m": [50, 4, np.nan]})
    found = posterior.predict(new, interval="prediction", level=0.9, seed=1)
    for i, m in enumerate((50, 4)):
        for column, p in (("ci_low", 0.05), ("ci_high", 0.95)):
            limit = found[column][i] * m
            assert limit == pytest.approx(round(limit), abs=1e-9)  # a number of successes
            assert abs(limit - stats.binom.ppf(p, m, 0.5)) <= 1
    assert np.isnan(found["ci_low"][2])
    assert posterior.predict(new[["g"]], interval="prediction")["ci_high"][0] == 1.0  # one trial, where they are not said


def test_structured_residuals_of_a_posterior() -> None:
    data = frame().assign(time=np.arange(120) // 12)
    priors = {"rho(g)": ml.Fixed(0.6), "ratio(h)": ml.Fixed(3.0), "sigma": ml.Fixed(2.0), "Intercept": ml.Normal(0, NONE)}
    options = {"correlation": "ar1(time | g)", "variance": "ident(h)"}
    posterior = sampled("real ~ 1 + (1 | g)", data, priors=priors | {"sd": ml.Fixed(0.5)}, **options)
    y = values(posterior.simulate(6000, groups=None, seed=1))
    first = np.flatnonzero(data["g"] == 0)
    sd = 2 * np.where(data["h"] == 0, 1.0, 3.0)[first]
    wanted = np.outer(sd, sd) * 0.6 ** np.abs(np.subtract.outer(np.arange(10), np.arange(10))) + 0.25
    found = np.cov(y[:, first], rowvar=False)
    np.testing.assert_allclose(found / np.outer(sd, sd), wanted / np.outer(sd, sd), atol=0.08)
