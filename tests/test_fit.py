"""What a fit can do and say, its options, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from shapes import quiet_fit, shape, twin

import multilevel as ml
from multilevel import (
    Fit,
    MissingRowsWarning,
    Model,
    OptionError,
    RankWarning,
    lmer,
)

SLEEP = ml.load("sleepstudy")
FORMULA = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def sleep() -> Fit:
    return Model(FORMULA, SLEEP).fit()


# --- scalars


def test_scalars_of_reml_and_ml() -> None:
    for reml in (True, False):
        fit = Model(FORMULA, SLEEP).fit(reml)
        assert fit.nobs == 180
        assert fit.npar == 6
        assert fit.df_residual == 174
        assert fit.reml is reml
        assert fit.criterion_name == ("REML" if reml else "ML")
        assert fit.deviance == fit.criterion == -2 * fit.loglik
        assert fit.criterion == pytest.approx(1743.628272 if reml else 1751.939344, abs=1e-6)
        assert fit.aic == pytest.approx(fit.criterion + 12, rel=1e-14)
        assert fit.bic == pytest.approx(fit.criterion + 6 * np.log(180), rel=1e-14)
        assert fit.aicc == pytest.approx(fit.aic + 2 * 6 * 7 / (180 - 7), rel=1e-14)
        assert fit.formula == FORMULA
        assert not fit.is_singular
        assert fit.sigma == pytest.approx(25.591816 if reml else 25.591816, rel=1e-4)


def test_aicc_is_infinite_where_rows_run_out() -> None:
    data = pd.DataFrame({"y": [1.0, 2.5, 2.0, 4.0, 3.2], "x": [0.0, 1.0, 2.0, 3.0, 4.0], "g": [1, 1, 2, 2, 2]})
    fit = quiet_fit(Model("y ~ x + (1 | g)", data))
    assert fit.nobs == 5
    assert fit.npar == 4
    assert fit.aicc == float("inf")


def test_the_fitted_criterion_is_that_of_theta(sleep: Fit) -> None:
    assert sleep.model.criterion(sleep.theta) == pytest.approx(sleep.criterion, rel=1e-14)
    assert np.abs(sleep.model.gradient(sleep.theta)).max() < 1e-4
    rng = np.random.default_rng(1)
    for _ in range(5):
        assert sleep.model.criterion(sleep.theta + 0.05 * rng.normal(size=3)) > sleep.criterion


# --- tables


def test_fixef(sleep: Fit) -> None:
    table = sleep.fixef(level=0.9)
    assert list(table.columns) == [
        "term",
        "estimate",
        "std_error",
        "statistic",
        "df",
        "p_value",
        "conf_low",
        "conf_high",
    ]
    assert list(table["term"]) == ["Intercept", "Days"]
    np.testing.assert_allclose(table["estimate"], [251.405105, 10.467286], rtol=1e-7)
    np.testing.assert_allclose(table["std_error"], np.sqrt(np.diag(sleep.vcov())), rtol=1e-14)
    np.testing.assert_allclose(table["std_error"], [6.824557, 1.545790], rtol=1e-6)
    np.testing.assert_allclose(table["df"], 17.0, rtol=1e-7)
    half = stats.t.ppf(0.95, 17) * table["std_error"]
    np.testing.assert_allclose(table["conf_low"], table["estimate"] - half, rtol=1e-7)
    normal = sleep.fixef(ddf="none")
    assert np.isinf(normal["df"]).all()
    np.testing.assert_allclose(normal["p_value"], 2 * stats.norm.sf(np.abs(normal["statistic"])), rtol=1e-9)


def test_columns_dropped_for_rank_are_nan_rows() -> None:
    data = SLEEP.assign(twice=2 * SLEEP["Days"])
    with pytest.warns(RankWarning, match="'twice'"):
        fit = Model("Reaction ~ Days + twice + (Days | Subject)", data).fit()
    table = fit.fixef().set_index("term")
    assert np.isnan(table.loc["twice"].to_numpy(dtype=float)).all()
    np.testing.assert_allclose(table["estimate"].iloc[:2], [251.405105, 10.467286], rtol=1e-7)
    assert fit.vcov().shape == (2, 2)
    assert list(fit.params.index) == ["Intercept", "Days"]
    assert fit.npar == 6
    np.testing.assert_allclose(np.asarray(fit.predict(data)["prediction"]), fit.fitted(), rtol=1e-12)


def test_ranef(sleep: Fit) -> None:
    table = sleep.ranef()
    assert list(table.columns) == ["group", "level", "term", "estimate", "std_error"]
    assert len(table) == 36
    assert set(table["group"]) == {"Subject"}
    first = table[table["level"] == "308"].set_index("term")
    np.testing.assert_allclose(first["estimate"][["Intercept", "Days"]], [2.2585661, 9.1989719], rtol=2e-6)
    np.testing.assert_allclose(first["std_error"][["Intercept", "Days"]], [12.070837, 2.304837], rtol=2e-6)
    assert np.abs(table.groupby("term")["estimate"].sum()).max() < 1e-6
    assert "std_error" not in sleep.ranef(condvar=False).columns


def test_ranef_of_several_terms_follows_levels_and_effects() -> None:
    fit = quiet_fit(shape("merged blocks").model)
    table = fit.ranef()
    covs = twin(fit.design).conditional_cov(fit.optimum.lambdas, fit.sigma)
    for t, term in enumerate(fit.design.terms):
        for i, name in enumerate(term.names):
            own = table[(table["group"] == term.group) & (table["term"] == name)]
            assert list(own["level"]) == list(term.levels)
            np.testing.assert_array_equal(own["estimate"], fit.optimum.b[t][:, i])
            np.testing.assert_allclose(own["std_error"], np.sqrt(covs[t][:, i, i]), rtol=1e-8, atol=1e-12)


def test_coef_is_fixed_plus_random(sleep: Fit) -> None:
    table = sleep.coef()
    assert list(table.columns) == ["group", "level", "term", "value"]
    for i, name in enumerate(("Intercept", "Days")):
        own = table[table["term"] == name]
        np.testing.assert_allclose(own["value"], sleep.optimum.beta[i] + sleep.optimum.b[0][:, i], rtol=1e-14)
    fit = quiet_fit(Model("y ~ x1 + (x2 | a)", shape("slope").data))
    table = fit.coef().pivot(index="level", columns="term", values="value")
    assert (table["x1"] == fit.optimum.beta[1]).all()  # does not vary
    np.testing.assert_allclose(table["x2"], fit.optimum.b[0][:, 1])  # has no fixed effect


def test_varcorr(sleep: Fit) -> None:
    table = sleep.varcorr()
    assert list(table.columns) == ["group", "term1", "term2", "vcov", "sdcor"]
    assert list(table["group"]) == ["Subject", "Subject", "Subject", "Residual"]
    np.testing.assert_allclose(table["vcov"], [612.10016, 35.07171, 9.60441, 654.94001], rtol=2e-4)
    np.testing.assert_allclose(table["sdcor"].iloc[[0, 1, 3]] ** 2, table["vcov"].iloc[[0, 1, 3]])
    cov = sleep.random_cov()[0]
    assert table["sdcor"][2] == pytest.approx(cov[0, 1] / np.sqrt(cov[0, 0] * cov[1, 1]), rel=1e-12)
    zero = quiet_fit(Model("Yield ~ 1 + (1 | Batch)", ml.load("dyestuff2"))).varcorr()
    assert zero["sdcor"][0] == 0


def test_confint(sleep: Fit) -> None:
    table = sleep.confint(0.8)
    assert list(table.columns) == ["term", "estimate", "conf_low", "conf_high"]
    pd.testing.assert_frame_equal(table, sleep.fixef(0.8)[list(table.columns)])
    wide = sleep.confint(0.99)
    assert (wide["conf_low"] < table["conf_low"]).all()
    np.testing.assert_allclose(
        sleep.confint(0.95, ddf="none")["conf_low"],
        sleep.fixef()["estimate"] - 1.959963984540054 * sleep.fixef()["std_error"],
        rtol=1e-10,
    )


def test_no_fixed_effects() -> None:
    fit = quiet_fit(shape("no fixed effects").model)
    assert len(fit.fixef()) == 0
    assert fit.vcov().shape == (0, 0)
    assert len(fit.ranef()) == 9
    assert set(fit.coef()["term"]) == {"Intercept"}
    assert np.isfinite(np.asarray(fit.predict(interval="prediction")["std_error"])).all()
    assert isinstance(str(fit), str)


def test_no_groups() -> None:
    fit = shape("no groups").model.fit()
    assert len(fit.ranef()) == 0
    assert len(fit.coef()) == 0
    assert list(fit.varcorr()["group"]) == ["Residual"]
    assert len(fit.theta) == 0
    assert fit.simulate(2, seed=1).shape == (40, 2)
    assert isinstance(str(fit), str)


# --- per row


@pytest.mark.parametrize("name", ["slope", "merged blocks", "crossed slopes", "no fixed effects", "no groups"])
def test_fitted_and_residuals_make_the_response(name: str) -> None:
    fit = quiet_fit(shape(name).weighted)
    y = shape(name).data["y"].to_numpy()
    np.testing.assert_allclose(fit.fitted() + fit.residuals(), y, rtol=1e-13, atol=1e-13)
    root = np.sqrt(shape(name).data["w"].to_numpy())
    np.testing.assert_allclose(fit.residuals("deviance"), root * fit.residuals(), rtol=1e-13)
    np.testing.assert_allclose(fit.residuals("pearson"), root * fit.residuals() / fit.sigma, rtol=1e-13)
    np.testing.assert_array_equal(fit.residuals("quantile"), fit.residuals("pearson"))
    wanted = twin(fit.design).solution(fit.optimum.lambdas, True).fitted
    np.testing.assert_allclose(fit.fitted(), wanted, rtol=1e-8, atol=1e-8)
    with pytest.raises(OptionError, match="kind 'pear' is not known; allowed are"):
        fit.residuals("pear")


def test_the_penalised_residuals_are_sigma(sleep: Fit) -> None:
    """sum of squares of residuals and u, over n - p."""
    u = np.linalg.solve(sleep.optimum.lambdas[0], sleep.optimum.b[0].T)
    total = (sleep.residuals() ** 2).sum() + (u**2).sum()
    assert np.sqrt(total / 178) == pytest.approx(sleep.sigma, rel=1e-8)


def test_rows_left_out_are_nan_in_place() -> None:
    data = SLEEP.copy()
    data["Days"] = data["Days"].astype(float)
    data.loc[[3, 50], "Days"] = np.nan
    data.loc[170, "Reaction"] = np.nan
    data["junk"] = np.nan
    with pytest.warns(MissingRowsWarning, match="3 of 180 rows"):
        fit = Model(FORMULA, data).fit()
    assert fit.nobs == 177
    for values in (
        fit.fitted(),
        fit.residuals(),
        np.asarray(fit.predict()["prediction"]),
        np.asarray(fit.augment()[".fitted"]),
    ):
        assert len(values) == 180
        assert np.flatnonzero(np.isnan(values)).tolist() == [3, 50, 170]
    whole = Model(FORMULA, data.drop(index=[3, 50, 170])).fit()
    np.testing.assert_array_equal(fit.fitted()[~np.isnan(fit.fitted())], whole.fitted())
    np.testing.assert_allclose(np.asarray(fit.predict(data)["prediction"])[[3, 50]], np.nan)
    assert np.isfinite(np.asarray(fit.predict(data)["prediction"])[170])


def test_rows_of_weight_zero_are_left_out() -> None:
    weights = np.ones(180)
    weights[:10] = 0
    fit = Model(FORMULA, SLEEP, weights=weights).fit()
    whole = Model(FORMULA, SLEEP.iloc[10:]).fit()
    assert fit.nobs == 170
    assert fit.criterion == pytest.approx(whole.criterion, rel=1e-12)
    assert np.isnan(fit.fitted()[:10]).all()


# --- a fit does not change


def test_a_fit_is_immutable(sleep: Fit) -> None:
    with pytest.raises(AttributeError, match="a Fit does not change.*'sigma'"):
        sleep.sigma = 3.0  # type: ignore[misc]
    with pytest.raises(AttributeError, match="'anything'"):
        sleep.anything = 1  # type: ignore[attr-defined]
    sleep.theta[:] = 0
    sleep.vcov()[:] = 0
    params, table = sleep.params, sleep.fixef()
    params.iloc[0] = 0
    table.iloc[0, 1] = 0
    assert sleep.theta[0] > 0.5
    assert sleep.vcov()[0, 0] > 1
    assert sleep.params.iloc[0] > 200
    assert sleep.fixef()["estimate"][0] > 200


def test_the_data_are_never_changed() -> None:
    data = SLEEP.copy()
    fit = Model(FORMULA, data, weights=np.ones(180)).fit()
    fit.predict(data, interval="prediction")
    fit.augment()
    pd.testing.assert_frame_equal(data, SLEEP)


def test_fitting_twice_and_by_both_criteria_does_not_mix() -> None:
    """One model, one engine: what a later fit or criterion does to its state is not seen by an earlier fit."""
    model = Model(FORMULA, SLEEP)
    first = model.fit()
    ml_fit = model.fit(reml=False)
    model.criterion([3.0, 1.0, 3.0])
    lazily = first.ranef(), first.fixef()
    other = Model(FORMULA, SLEEP).fit()
    pd.testing.assert_frame_equal(lazily[0], other.ranef())
    pd.testing.assert_frame_equal(lazily[1], other.fixef())
    assert ml_fit.criterion == pytest.approx(1751.939344, abs=1e-6)
    assert model.fit().criterion == first.criterion


# --- statsmodels' names


def test_statsmodels_names(sleep: Fit) -> None:
    table = sleep.fixef().set_index("term")
    for name, column in (
        ("params", "estimate"),
        ("bse", "std_error"),
        ("tvalues", "statistic"),
        ("pvalues", "p_value"),
    ):
        series = getattr(sleep, name)
        assert isinstance(series, pd.Series)
        assert list(series.index) == ["Intercept", "Days"]
        np.testing.assert_allclose(series, table[column], rtol=1e-14)
    assert sleep.llf == sleep.loglik
    assert sleep.scale == sleep.sigma**2
    assert sleep.df_resid == sleep.df_residual
    np.testing.assert_array_equal(sleep.resid, sleep.residuals())
    np.testing.assert_array_equal(sleep.fittedvalues, sleep.fitted())
    np.testing.assert_array_equal(sleep.cov_params().to_numpy(), sleep.vcov())
    assert sleep.cov_params().loc["Days", "Days"] == sleep.vcov()[1, 1]
    found = sleep.conf_int(alpha=0.1)
    np.testing.assert_allclose(found[0], sleep.fixef(0.9)["conf_low"], rtol=1e-14)
    np.testing.assert_allclose(found[1], sleep.fixef(0.9)["conf_high"], rtol=1e-14)


# --- options


def test_lmer_is_a_model_fitted() -> None:
    fit = lmer(FORMULA, SLEEP)
    assert fit.criterion == Model(FORMULA, SLEEP).fit().criterion
    assert lmer(FORMULA, SLEEP, REML=False).reml is False
    assert lmer(FORMULA, SLEEP, False).reml is False
    weighted = lmer(FORMULA, SLEEP, weights=np.full(180, 2.0), threads=1)
    assert weighted.sigma == pytest.approx(fit.sigma * np.sqrt(2), rel=1e-7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": 1}, r"no option 'weight'; did you mean 'weights'\?"),
        ({"zzz": 1}, "allowed are weights, offset"),
        ({"reml": True}, r"did you mean 'REML'\?"),
        ({"REML": "yes"}, "REML must be True or False, got 'yes'"),
        ({"REML": 1}, "REML must be True or False"),
        ({"threads": 0}, "threads must be a positive whole number, got 0"),
        ({"threads": 1.5}, "threads must be"),
        ({"missing": "omit"}, "missing must be 'drop' or 'raise'"),
        ({"contrasts": {"Days": "sum"}}, "contrasts names 'Days', which is no factor"),
    ],
)
def test_options_of_lmer(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        lmer(FORMULA, SLEEP, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"family": "weibull"}, "family 'weibull' is not available; .*allowed are gaussian, binomial"),
        ({"family": "poisson", "link": "logit"}, "link 'logit' is not available for family 'poisson'; allowed are 'log'"),
        ({"family": "binomial", "zi": "~ 1"}, "zi and hurdle are for counts"),
        ({"zi": "~ 1", "hurdle": "~ 1", "family": "poisson"}, "two ways to model zeros"),
        ({"family": "poisson", "dispersion": "~ Days"}, "has no dispersion to model"),
        ({"family": "gamma", "dispersion": "Days"}, "dispersion must be a formula such as"),
        ({"family": "poisson", "variance": "exp(Days)"}, "gaussian family"),
        ({"family": "gausian"}, r"did you mean 'gaussian'\?"),
        ({"link": "logit"}, "link 'logit' is not available"),
        ({"priors": 3}, "priors must be a dict"),
        ({"priors": {"sigma": 3}}, "the prior of 'sigma' must be a distribution"),
    ],
)
def test_options_of_model(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Model(FORMULA, SLEEP, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reml": "ML"}, "reml must be True or False, got 'ML'"),
        ({"max_evaluations": 0}, "max_evaluations must be a positive"),
        ({"max_evaluations": -3}, "got -3"),
        ({"threads": True}, "threads must be"),
        ({"start": [1.0]}, "3 finite"),
        ({"start": "abc"}, "start must"),
    ],
)
def test_options_of_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Model(FORMULA, SLEEP).fit(**options)


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan")])
def test_a_sigma_that_is_none(sigma: float) -> None:
    with pytest.raises(OptionError, match="sigma"):
        Model(FORMULA, SLEEP).criterion([1.0, 0.0, 1.0], sigma=sigma)


def test_options_of_tables(sleep: Fit) -> None:
    with pytest.raises(OptionError, match="ddf 'kr' is not known; allowed are 'satterthwaite', 'kenward-roger', 'none'"):
        sleep.fixef(ddf="kr")
    with pytest.raises(OptionError, match="method 'prof' is not available; did you mean 'profile'"):
        sleep.confint(method="prof")
    for verb in (sleep.fixef, sleep.confint):
        with pytest.raises(OptionError, match="level must lie"):
            verb(95)
    with pytest.raises(OptionError, match="level must lie"):
        sleep.conf_int(alpha=5)


def test_repr(sleep: Fit) -> None:
    assert repr(sleep).startswith("<Fit 'Reaction ~ Days + (Days | Subject)' by REML: Converged")
    assert repr(sleep.model) == "Model('Reaction ~ Days + (Days | Subject)', 180 rows, 2 fixed effects, 1 random terms)"
