"""What posteriors share with fits: predictions with and without intervals, simulated categories, residuals, manners."""

from __future__ import annotations

from functools import cache
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from posterior_samples import drawn, sampled
from scipy.special import expit, ndtri
from scipy.stats import norm

import multilevel as ml
from multilevel import generalised_rows, posterior_predict, posterior_response

matplotlib.use("Agg")


@cache
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    g, x = np.arange(120) % 12, np.where(np.arange(120) % 2, 1.0, -1.0)
    data = pd.DataFrame({"g": g, "x": x, "t": np.arange(120) // 12, "h": np.arange(120) // 12 % 2})
    eta = 0.8 + 0.3 * x + rng.normal(0, 0.8, 12)[g]
    data["count"] = rng.poisson(np.exp(eta))
    data["real"] = eta + rng.normal(0, np.where(data["h"] == 1, 2.0, 1.0))
    data["amount"] = rng.gamma(2.0, np.exp(eta) / 2)
    data["size"] = 5
    data["hits"] = rng.binomial(5, expit(eta - 0.8))
    data["grade"] = 2 + 3 * (eta + rng.logistic(size=120) > 0.3) + (eta + rng.logistic(size=120) > 1.5)
    return data


@cache
def counts() -> Any:
    return sampled("count ~ x + (1 | g)", frame(), family="poisson")


@cache
def grades() -> Any:
    data = frame().assign(grade=np.digitize(frame()["real"], [0.2, 1.4]) * 3 + 2)
    return sampled("grade ~ x + (1 | g)", data, family="ordinal")


@cache
def linear() -> Any:
    return sampled("real ~ x + (1 | g)", frame())


@cache
def spreading() -> Any:
    return sampled("real ~ x + (1 | g)", frame(), variance="ident(h)")


def eta_of(posterior: Any) -> Any:
    d, kept = posterior.design, posterior.draws_kept
    eta = kept.beta @ d.X.T + kept.b[0][..., 0][..., d.terms[0].codes]
    return eta.reshape(-1, eta.shape[-1])


def values_of(table: Any, names: Any) -> Any:
    return np.column_stack([np.asarray(table[n], dtype=float) for n in names])


NEW = {"x": [1.0, -1.0, 1.0], "g": [99, 99, 3]}


# -- the prediction is the same with an interval --------------------------------------------------------------------


@pytest.mark.parametrize("made", [counts, grades, linear])
@pytest.mark.parametrize("groups", ["all", None])
def test_an_interval_leaves_the_prediction(made: Any, groups: Any) -> None:
    posterior = made()
    names = posterior.design.labels if made is grades else ["prediction"]
    options = {"groups": groups, "new_levels": "population", "seed": 1}
    alone = values_of(posterior.predict(NEW, **options), names)
    for interval in ("confidence", "prediction"):
        np.testing.assert_array_equal(values_of(posterior.predict(NEW, interval=interval, **options), names), alone)
    typical = posterior.draws_kept.beta.reshape(-1, posterior.draws_kept.beta.shape[2])
    if made is counts:
        np.testing.assert_allclose(alone[0, 0], np.exp(typical @ [1.0, 1.0]).mean())
    elif made is grades:
        cut = posterior.draws_kept.scalars[..., 1].reshape(-1)
        np.testing.assert_allclose(alone[0, 0], expit(cut - typical[:, 0]).mean())


def test_limits_carry_the_new_group() -> None:
    posterior = counts()
    kept = posterior.draws_kept
    found = posterior.predict(NEW, new_levels="population", interval="confidence", level=0.5, seed=1)
    line = (kept.beta @ [1.0, 1.0]).ravel()
    sd = kept.scalars[..., 0].ravel()
    z = ndtri((np.arange(400) + 0.5) / 400)
    truth = np.quantile(np.exp(line[:, None] + sd[:, None] * z), [0.25, 0.75])
    np.testing.assert_allclose([found["ci_low"][0], found["ci_high"][0]], truth, rtol=0.12)
    mean = np.exp(line + sd**2 / 2).mean()
    drawn_too = posterior.predict(NEW, new_levels="sample", interval="confidence", seed=1)
    assert drawn_too["prediction"][0] == pytest.approx(mean, rel=0.15)
    assert found["prediction"][0] < 0.9 * mean
    ordered = grades().predict(NEW, new_levels="population", interval="confidence", seed=1)
    for label in grades().design.labels:
        width = ordered[f"{label}_high"] - ordered[f"{label}_low"]
        assert width[0] > width[2]


def test_augment_is_of_the_same_group() -> None:
    new = pd.DataFrame(NEW)
    found = counts().augment(new, new_levels="population")
    np.testing.assert_array_equal(found[".fitted"], counts().predict(new, new_levels="population")["prediction"])


def test_augment_takes_an_offset() -> None:
    log_size = np.log(np.arange(1.0, 121.0))
    posterior = sampled("count ~ x + (1 | g)", frame(), {"draws": 50}, family="poisson", offset=log_size)
    new = frame().head(3)
    found = posterior.augment(new, offset=np.zeros(3))[".fitted"]
    np.testing.assert_allclose(found * [1, 2, 3], posterior.augment(new, offset=np.log([1.0, 2.0, 3.0]))[".fitted"])


def test_what_rows_need_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    posterior = sampled("hits | trials(size) ~ x + (1 | g)", frame(), {"draws": 50}, family="binomial")
    whole = posterior.predict(interval="prediction", seed=1)
    made: list[str] = []

    def counted(name: str, real: Any) -> Any:
        return lambda *args: (made.append(name), real(*args))[1]

    monkeypatch.setattr(posterior_response, "RowParameters", counted("parameters", posterior_response.RowParameters))
    monkeypatch.setattr(generalised_rows, "trials_of", counted("trials", generalised_rows.trials_of))
    monkeypatch.setattr(posterior_predict, "_with_typical", _small_parts)
    found = posterior.predict(interval="prediction", seed=1)
    assert sorted(made) == ["parameters", "trials"]
    np.testing.assert_allclose(found["prediction"], whole["prediction"])


def _small_parts(posterior: Any, rows: Any, draw_new: bool, rng: Any, numbers: float = 0.0) -> Any:
    return REAL_PARTS(posterior, rows, draw_new, rng, 1000.0)


REAL_PARTS = posterior_predict._with_typical


# -- simulated categories ------------------------------------------------------------------------------------------


def test_simulated_categories_are_values_of_the_data() -> None:
    posterior = grades()
    codes = posterior_predict.simulate(posterior, 3, "all", np.random.default_rng(4))
    found = posterior.simulate(3, seed=4)
    np.testing.assert_array_equal(np.asarray(found).T, np.array([2, 5, 8])[codes.astype(int)])
    prior = posterior.prior_predictive(3, seed=1)
    assert set(np.unique(np.asarray(prior))) <= {2, 5, 8}
    np.testing.assert_array_equal(np.asarray(prior), np.asarray(posterior.model.prior_predictive(3, seed=1)))
    data = frame().assign(size=pd.Categorical.from_codes(np.arange(120) % 3, ["low", "mid", "top"], ordered=True))
    named = sampled("size ~ x + (1 | g)", data, {"draws": 50}, family="ordinal").simulate(1, seed=1)["sim_1"]
    assert list(named.cat.categories) == ["low", "mid", "top"] and named.cat.ordered
    drawn(posterior.plot.predictive(20))


def test_prior_predictive_of_a_posterior() -> None:
    posterior = counts()
    np.testing.assert_array_equal(posterior.prior_predictive(4, seed=2), posterior.model.prior_predictive(4, seed=2))
    assert posterior.prior_predictive().shape == (120, 100)


# -- residuals -----------------------------------------------------------------------------------------------------


def test_deviance_residuals() -> None:
    y, mu = np.asarray(frame()["count"], dtype=float), np.exp(eta_of(counts())).mean(axis=0)
    part = np.where(y > 0, y * np.log(np.where(y > 0, y, 1) / mu), 0.0) - (y - mu)
    np.testing.assert_allclose(counts().residuals("deviance"), np.sign(y - mu) * np.sqrt(2 * part))
    np.testing.assert_allclose(linear().residuals("deviance"), linear().residuals())
    posterior = sampled("amount ~ x + (1 | g)", frame(), {"draws": 100}, family="gamma")
    ratio = np.asarray(frame()["amount"]) / posterior.fitted()
    wanted = np.sign(ratio - 1) * np.sqrt(2 * (ratio - 1 - np.log(ratio)))
    np.testing.assert_allclose(posterior.residuals("deviance"), wanted, rtol=1e-6)
    with pytest.raises(ml.OptionError, match="no deviance residuals"):
        grades().residuals("deviance")


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog", "cauchit"])
def test_deviance_residuals_find_the_predictor(link: str) -> None:
    data = frame()
    posterior = sampled("hits | trials(size) ~ x + (1 | g)", data, {"draws": 50}, family="binomial", link=link)
    p, y = posterior.fitted(), np.asarray(data["hits"]) / 5
    with np.errstate(divide="ignore", invalid="ignore"):
        half = 5 * (np.nan_to_num(y * np.log(y / p)) + np.nan_to_num((1 - y) * np.log((1 - y) / (1 - p))))
    np.testing.assert_allclose(posterior.residuals("deviance"), np.sign(y - p) * np.sqrt(2 * half), rtol=1e-6)


def test_residuals_with_variance_functions() -> None:
    posterior = spreading()
    kept = posterior.draws_kept
    names = [c.name for c in kept.coordinates]
    sigma = kept.scalars[..., names.index("sigma")].reshape(-1, 1)
    ratio = kept.scalars[..., names.index("ratio(1)") if "ratio(1)" in names else -1].reshape(-1, 1)
    sd = sigma * np.where(np.asarray(frame()["h"]) == 1, ratio, 1.0)
    y, eta = np.asarray(frame()["real"]), eta_of(posterior)
    np.testing.assert_allclose(posterior.residuals("pearson"), (y - eta.mean(axis=0)) / sd.mean(axis=0))
    np.testing.assert_allclose(posterior.residuals("quantile"), ndtri(norm.cdf((y - eta) / sd).mean(axis=0)), rtol=1e-7)
    assert posterior.check()["distribution"].verdict != "skipped"
    matplotlib.pyplot.close(drawn(posterior.plot.residuals()))


def test_residuals_of_series_are_drawn_as_they_are() -> None:
    posterior = sampled("real ~ x + (1 | g)", frame(), {"draws": 50}, correlation="ar1(t | g)")
    axes = posterior.plot.residuals()
    points = next(line for line in axes[0].lines if line.get_marker() == "o")
    np.testing.assert_allclose(points.get_ydata(), posterior.residuals())
    assert axes[0].get_ylabel() == "residual"
    matplotlib.pyplot.close(drawn(axes))
    for kind in ("pearson", "quantile", "deviance"):
        with pytest.raises(ml.OptionError, match="without a serial correlation"):
            posterior.residuals(kind)


# -- as a fit has it -------------------------------------------------------------------------------------------------


def test_group_effects_without_their_errors() -> None:
    whole, few = linear().ranef(), linear().ranef(condvar=False)
    assert list(few.columns) == ["group", "level", "term", "estimate"]
    pd.testing.assert_frame_equal(few, whole[list(few.columns)])
    with pytest.raises(ml.OptionError, match="condvar must be True or False"):
        linear().ranef(condvar=1)


def test_parameters_are_counted() -> None:
    assert linear().npar == 4 and counts().npar == 3 and grades().npar == 4 and spreading().npar == 5
    held = {"sigma": ml.Fixed(1.0), "x": ml.Fixed(0.0), "cor(g)": ml.Fixed(0.2)}
    data, formula = frame(), "real ~ x + (x + t | g)"
    assert sampled(formula, data, {"draws": 20}).npar == 2 + 3 + 3 + 1
    assert sampled("real ~ x + (x | g)", data, {"draws": 20}, priors=held).npar == 1 + 2


@pytest.mark.parametrize("name", ["loglik", "deviance", "aic", "aicc", "bic"])
def test_criteria_of_fits_are_refused(name: str) -> None:
    with pytest.raises(ml.OptionError, match=r"posteriors are compared by loo\(\)"):
        getattr(linear(), name)
    assert not hasattr(linear(), name)


def test_a_posterior_does_not_change() -> None:
    posterior = linear()
    with pytest.raises(AttributeError, match="does not change"):
        posterior.level = 0.9
    with pytest.raises(AttributeError, match="does not change"):
        del posterior._draws
    assert posterior.trust is posterior.trust
    assert repr(posterior).startswith("<Posterior 'real ~ x + (1 | g)', ") and "\n" not in repr(posterior)
    assert "Coefficients" in str(posterior)


def test_options_of_shares_are_named() -> None:
    with pytest.raises(TypeError):
        linear().icc(False, 0.95, "link")
    with pytest.raises(TypeError):
        linear().r2(0.95, "link")


def test_without_group_effects() -> None:
    posterior = sampled("real ~ x + (1 | g)", frame(), {"keep": "parameters", "draws": 100})
    for call in (
        posterior.predict, posterior.simulate, posterior.ranef, posterior.coef, posterior.augment, posterior.loo,
        posterior.residuals, posterior.plot.predictive, posterior.check, lambda: posterior.predict(NEW, new_levels="sample"),
    ):  # fmt: skip
        with pytest.raises(ml.OptionError, match="not kept .keep='parameters'., and this needs them; sample with keep='all'"):
            call()
    new = {"x": [1.0, -1.0], "g": [99, 100]}
    found = posterior.predict(new, new_levels="population", interval="prediction", seed=1)
    np.testing.assert_array_equal(found["prediction"], posterior.predict(new, groups=None)["prediction"])
    kept = posterior.draws_kept
    variance = (kept.scalars**2).sum(axis=2).mean() + (kept.beta @ [1.0, 1.0]).var()
    assert found["est_error"][0] == pytest.approx(np.sqrt(variance), rel=0.15)
