"""Predictions from posteriors: against hand computation from the draws, and against fits."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

import multilevel as ml


@cache
def schools() -> Any:
    return ml.Model("math ~ homework + (homework | schid)", ml.load("math10")).sample(seed=1)


@cache
def herds() -> Any:
    data = ml.load("cbpp")
    return ml.Model("cbind(incidence, size - incidence) ~ period + (1 | herd)", data, family="binomial").sample(seed=1)


@cache
def nests() -> Any:
    formula = "SiblingNegotiation ~ FoodTreatment + offset(log(BroodSize)) + (1 | Nest)"
    return ml.Model(formula, ml.load("owls"), family="nbinom2", zi="~ FoodTreatment").sample(seed=1, draws=400)


@cache
def wine() -> Any:
    data = ml.load("wine")
    data["rating"] = pd.Categorical(data["rating"], ordered=True)
    return ml.Model("rating ~ temp + contact + (1 | judge)", data, family="ordinal").sample(seed=3, target=0.95)


def by_hand(posterior: Any) -> Any:
    """(draws, rows) linear predictors of the rows fitted."""
    d, kept = posterior.design, posterior.draws_kept
    eta = np.einsum("cdp,np->cdn", kept.beta, d.X)
    for t, term in enumerate(d.terms):
        z = np.ones((len(d.y), 1)) if term.Z is None else term.Z
        eta = eta + np.einsum("cdnk,nk->cdn", kept.b[t][:, :, term.codes], z)
    if d.offset is not None:
        eta = eta + d.offset
    return eta.reshape(-1, eta.shape[-1])


def test_known_groups_of_a_linear_model() -> None:
    eta = by_hand(schools())
    found = schools().predict(interval="confidence", level=0.9)
    np.testing.assert_allclose(found["prediction"], eta.mean(axis=0))
    np.testing.assert_allclose(found["ci_low"], np.quantile(eta, 0.05, axis=0))
    np.testing.assert_allclose(found["est_error"], eta.std(axis=0, ddof=1))
    new = ml.load("math10").head(7)
    np.testing.assert_allclose(schools().predict(new)["prediction"], found["prediction"][:7])
    np.testing.assert_allclose(schools().fitted(), found["prediction"])


def test_new_groups_have_the_variance_of_the_population() -> None:
    posterior = schools()
    new = {"homework": [2.0, 2.0], "schid": [99999, 99999]}
    with pytest.raises(ml.DataError, match="levels that were not fitted"):
        posterior.predict(new)
    found = posterior.predict(new, new_levels="population", interval="confidence", seed=1)
    x = np.array([1.0, 2.0])
    kept = posterior.draws_kept
    variance = np.einsum("i,cdij,j->cd", x, posterior.covariances(0), x).mean() + (kept.beta @ x).var()
    assert found["est_error"][0] == pytest.approx(np.sqrt(variance), rel=0.05)
    assert found["est_error"][0] == pytest.approx(found["est_error"][1])  # rows of one new level share its effects
    assert found["prediction"][0] == pytest.approx(float((kept.beta @ x).mean()))


def test_a_new_response_adds_the_residual_variance() -> None:
    posterior = schools()
    row = ml.load("math10").head(1)
    mean, new = (posterior.predict(row, interval=i, seed=2)["est_error"][0] for i in ("confidence", "prediction"))
    sigma2 = float((posterior.draws_kept.scalar("sigma") ** 2).mean())
    assert new**2 == pytest.approx(mean**2 + sigma2, rel=0.06)


def test_missing_values_give_missing_predictions() -> None:
    new = pd.DataFrame({"homework": [1.0, np.nan, 2.0], "schid": [7472, 7472, 7829]}, index=[5, 6, 9])
    found = schools().predict(new)
    assert np.isnan(found["prediction"]).tolist() == [False, True, False]
    assert found.index.tolist() == [5, 6, 9]


def test_probabilities() -> None:
    p = expit(by_hand(herds()))
    found = herds().predict(interval="confidence")
    np.testing.assert_allclose(found["prediction"], p.mean(axis=0))
    np.testing.assert_allclose(found["ci_high"], np.quantile(p, 0.975, axis=0))
    link = herds().predict(kind="link")
    np.testing.assert_allclose(link["prediction"], by_hand(herds()).mean(axis=0))
    shares = herds().predict(interval="prediction", seed=1)
    m = herds().design.trials
    np.testing.assert_allclose(shares["ci_high"] * m, np.round(shares["ci_high"] * m), atol=1e-9)  # whole numbers of cases


def test_marginal_means_integrate_over_groups() -> None:
    new = {"period": ["1", "2"]}
    found = herds().predict(new, marginal=True, seed=1)["prediction"]
    kept = herds().draws_kept
    sd, eta = kept.scalars[..., 0].ravel(), kept.beta[..., 0].ravel()
    z, w = np.polynomial.hermite_e.hermegauss(41)
    truth = (expit(eta[:, None] + sd[:, None] * z) @ (w / w.sum())).mean()
    assert found[0] == pytest.approx(truth, abs=4 * 0.15 / np.sqrt(len(sd)))
    with pytest.raises(ml.OptionError, match="without an interval"):
        herds().predict(new, marginal=True, interval="confidence")


def test_extra_zeros_are_in_the_mean() -> None:
    posterior = nests()
    kept, d = posterior.draws_kept, posterior.design
    names = [c.name for c in kept.coordinates]
    zero = kept.scalars[..., [names.index("zi[Intercept]"), names.index("zi[FoodTreatment[T.Satiated]]")]].reshape(-1, 2)
    share = expit(zero @ d.sides["zi"][0].T)
    mean = ((1 - share) * np.exp(by_hand(posterior))).mean(axis=0)
    np.testing.assert_allclose(posterior.predict()["prediction"], mean)
    sims = np.asarray(posterior.simulate(400, seed=1)).T
    error = np.sqrt(sims.mean(axis=1).var() / 400 + 1e-12)
    assert abs(sims.mean() - mean.mean()) < 5 * error
    new = ml.load("owls").head(5)
    np.testing.assert_allclose(posterior.predict(new)["prediction"], mean[:5])


def test_probabilities_of_categories() -> None:
    found = wine().predict(interval="confidence")
    labels = list(wine().design.labels)
    np.testing.assert_allclose(np.asarray(found[labels]).sum(axis=1), 1.0)
    kept = wine().draws_kept
    cut = kept.scalars[..., 1].reshape(-1, 1)
    np.testing.assert_allclose(found[labels[0]], expit(cut - by_hand(wine())).mean(axis=0))
    assert (found[f"{labels[2]}_low"] < found[labels[2]]).all()


def test_log_likelihood_and_loo() -> None:
    from scipy import stats

    posterior = herds()
    d = posterior.design
    found = posterior.log_likelihood().reshape(-1, len(d.y))
    np.testing.assert_allclose(found, stats.binom.logpmf(d.y, d.trials, expit(by_hand(posterior))), atol=1e-9)
    loo = posterior.loo()
    assert loo.elpd == pytest.approx(loo.pointwise.sum())
    assert 4 < loo.p_loo < 30
    linear = schools()
    sigma = linear.draws_kept.scalar("sigma").reshape(-1, 1)
    dense = stats.norm.logpdf(linear.design.y, by_hand(linear), sigma)
    np.testing.assert_allclose(linear.log_likelihood().reshape(dense.shape), dense)


def test_loo_is_leaving_out_in_a_conjugate_model() -> None:
    """Mean of normal responses with known sd: the predictive density of a row left out is known."""
    from scipy import stats

    rng = np.random.default_rng(3)
    y = rng.normal(0.3, 1, 40)
    priors = {"Intercept": ml.Normal(0, 1), "sigma": ml.Fixed(1.0)}
    posterior = ml.Model("y ~ 1", {"y": y}, priors=priors).sample(seed=1, draws=4000)
    truth = [stats.norm.logpdf(v, (y.sum() - v) / 40, np.sqrt(1 + 1 / 40)) for v in y]
    assert posterior.loo().elpd == pytest.approx(sum(truth), abs=0.02)


def test_hypotheses() -> None:
    kept = schools().draws_kept
    slope = kept.beta[..., 1].ravel()
    found = schools().hypothesis(["homework > 2", "homework < 2", "2 * homework = 1"])
    assert found["probability"][0] == pytest.approx((slope > 2).mean())
    assert found["probability"][0] + found["probability"][1] == pytest.approx(1)
    assert np.isnan(found["probability"][2])
    assert found["estimate"][2] == pytest.approx(2 * slope.mean() - 1)
    with pytest.raises(ml.OptionError, match="compares more than once"):
        schools().hypothesis("0 < homework < 2")
    with pytest.raises(ml.MultilevelError, match="homewrk"):
        schools().hypothesis("homewrk > 0")


def test_tables_in_the_users_library() -> None:
    import polars as pl

    data = pl.from_pandas(ml.load("math10"))
    posterior = ml.Model("math ~ homework + (homework | schid)", data).sample(seed=1, draws=200)
    assert isinstance(posterior.fixef(), pl.DataFrame)
    assert posterior.coef().shape[0] == 20
    np.testing.assert_allclose(posterior.vcov(), np.cov(posterior.draws_kept.beta.reshape(-1, 2), rowvar=False))
    assert "may be trusted" in str(posterior)
    assert "<table" in posterior._repr_html_()
    assert "\\begin{tabular}" in posterior.to_latex()
