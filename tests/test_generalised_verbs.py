"""Verbs of generalised fits: quantile residuals, checks, means, shares of variance."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from generalised_models import CBPP, MODELS, OWLS, TICKS, fitted, of_model
from numpy.typing import NDArray
from scipy import stats
from scipy.special import polygamma

import multilevel as ml
from multilevel import _core
from multilevel.families import FAMILIES, Family
from multilevel.generalised import GeneralisedFit
from multilevel.generalised_residuals import base_tails, partly_marginal, steps

Array = NDArray[np.float64]

pytestmark = pytest.mark.filterwarnings("ignore::multilevel.errors.MultilevelWarning")


# -- quantile residuals -----------------------------------------------------------------------------------------


def cases() -> list[Family]:
    out = []
    for name, links in FAMILIES.items():
        if name == "ordinal":
            continue
        out += [Family(name, link).at_shape(0.5) for link in links]
    return out


@pytest.mark.parametrize("family", cases(), ids=lambda f: f"{f.name}-{f.link}")
def test_distribution_functions_belong_to_the_densities(family: Family) -> None:
    """P(Y <= y) steps by the core's density, or has it as its slope; both tails add up to one."""
    rng = np.random.default_rng(1)
    n = 60
    eta = rng.uniform(0.3, 1.2, n) * (0.5 if family.name == "beta" else 1)
    first, none = rng.uniform(-0.5, 0.5, n), np.zeros(n)
    trials = np.full(n, 7.0) if family.name in ("binomial", "betabinomial") else None
    y = family.draw(rng, eta, first, none, trials)
    if family.name == "beta":
        y = np.clip(y, 0.05, 0.95)
    at = base_tails(family, y, eta, first, trials)
    np.testing.assert_allclose(at[0] + at[1], 1, rtol=1e-12)
    density = np.exp(_core.log_densities(family.kernel, y, trials, eta, first, none)[0][:, 0])
    if family.name in ("binomial", "betabinomial", "poisson", "nbinom2", "nbinom1"):
        before = base_tails(family, y - 1, eta, first, trials)
        np.testing.assert_allclose(at[0] - before[0], density, rtol=1e-9, atol=1e-12)
    else:
        h = 1e-5 * np.maximum(np.abs(y), 1e-3)
        up, down = (base_tails(family, y + step, eta, first, trials)[0] for step in (h, -h))
        slope = (up - down) / (2 * h)
        slope = np.where((y == 0) & (family.name == "tweedie"), at[0], slope)  # a probability there
        np.testing.assert_allclose(slope, density, rtol=2e-5, atol=1e-8)


@pytest.mark.parametrize("name", ["zero-inflated", "hurdle", "ordinal"])
def test_steps_at_zeros_and_categories_are_their_probabilities(name: str) -> None:
    fit = fitted(name)
    below, above, under, over = steps(fit, fit._eta[1])
    np.testing.assert_allclose(below + above, 1, rtol=1e-12)
    np.testing.assert_allclose(under + over, 1, rtol=1e-12)
    if name == "ordinal":
        table = fit.probabilities().to_numpy()
        wanted = table[np.arange(len(table)), fit.design.y.astype(int)]
    else:
        first, second = fit._parameters
        kernel = fit.family.kernel
        wanted = np.exp(_core.log_densities(kernel, fit.design.y, None, fit._eta[1], first, second)[0][:, 0])
    np.testing.assert_allclose(below - under, wanted, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_quantile_residuals_are_normal_under_the_model(name: str) -> None:
    made = np.concatenate([of_model(fitted(name), s).residuals("quantile", seed=s) for s in range(5)])
    assert stats.kstest(made, "norm").pvalue > 0.005
    assert abs(made.mean()) < 4 / np.sqrt(len(made)) and abs(made.std() - 1) < 4 / np.sqrt(2 * len(made))


def test_the_seed_makes_quantile_residuals_repeat() -> None:
    fit = fitted("binomial")
    one, same, other = (fit.residuals("quantile", seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    gamma = fitted("gamma")  # nothing is drawn
    np.testing.assert_array_equal(gamma.residuals("quantile", seed=1), gamma.residuals("quantile", seed=2))
    with pytest.raises(ml.OptionError, match="quantile"):
        fit.residuals("quantil")
    with pytest.raises(ml.OptionError, match="seed"):
        fit.residuals("quantile", seed="one")


def test_far_tails_keep_their_digits() -> None:
    fit = fitted("gamma")
    y = fit.design.y.copy()
    y[:2] *= 3.0, 1 / 3.0
    made = GeneralisedFit(fit.model.with_design(replace(fit.design, y=y)), fit.optimum, fit.engine)
    z = made.residuals("quantile")
    size = np.exp(fit._parameters[0][:2])
    law = stats.gamma(size, scale=fit.fitted()[:2] / size)
    wanted = stats.norm.isf(law.sf(y[0])[0]), stats.norm.ppf(law.cdf(y[1])[1])
    np.testing.assert_allclose(z[:2], wanted, rtol=1e-9)
    assert z[0] > 8 and z[1] < -8 and np.isfinite(z).all()


def test_residuals_integrated_over_small_groups() -> None:
    """Of responses with new group effects they are standard normal; those given the fitted effects are not."""
    fit = ticks()
    rng = np.random.default_rng(2)
    made = []
    for seed in range(4):
        y = np.asarray(fit.simulate(1, seed=seed)["sim_1"])
        again = GeneralisedFit(fit.model.with_design(replace(fit.design, y=y)), fit.optimum, fit.engine)
        made.append(partly_marginal(again, [], rng))
    assert np.concatenate(made).std() == pytest.approx(1, abs=0.12)  # rows of a brood go together
    np.testing.assert_allclose(
        partly_marginal(fit, ["BROOD", "LOCATION"], np.random.default_rng(5)),
        fit.residuals("quantile", seed=np.random.default_rng(5)),
        rtol=1e-9,
    )


@cache
def ticks() -> GeneralisedFit:
    fit = ml.Model(TICKS, ml.load("grouseticks"), family="poisson").fit(threads=1)
    assert isinstance(fit, GeneralisedFit)
    return fit


def test_pearson_residuals_know_the_variance_of_extra_zeros() -> None:
    for name in ("zero-inflated", "hurdle"):
        made = np.concatenate([of_model(fitted(name), s).residuals("pearson") for s in range(8)])
        assert np.mean(made**2) == pytest.approx(1, abs=0.08)


# -- checks -----------------------------------------------------------------------------------------------------


def test_checks_find_overdispersion_and_zeros() -> None:
    found = ticks().check()
    assert found["dispersion"].verdict == "problem" and "nbinom2" in found["dispersion"].sentence
    assert found.worst == "problem" and "dispersion" in str(found)
    better = ml.Model(TICKS, ml.load("grouseticks"), family="nbinom2").fit(threads=1).check()
    assert better["dispersion"].verdict == better["zeros"].verdict == "ok"
    own = ml.Model(TICKS + " + (1 | INDEX)", ml.load("grouseticks"), family="poisson").fit(threads=1).check()
    assert own["dispersion"].verdict == own["distribution"].verdict == "ok" and "every row" in own["dispersion"].sentence
    poisson = ml.Model(OWLS, ml.load("owls"), family="poisson").fit(threads=1).check()
    assert poisson["zeros"].verdict == "problem" and "zi=" in poisson["zeros"].sentence


@pytest.mark.parametrize("name", ["binomial", "zero-inflated", "ordinal", "gamma"])
def test_checks_are_quiet_for_responses_of_the_model(name: str) -> None:
    fit = fitted(name)
    alarms = 0
    for seed in range(3):
        checks = fit.refit(fit.simulate(1, seed=seed)["sim_1"], threads=1).check()
        names = ("dispersion", "distribution", "outliers", "trend over fitted", "spread over fitted")
        alarms += sum(checks[n].verdict in ("look", "problem") for n in names)
    assert alarms <= 1


def test_checks_find_a_bend_a_spread_an_outlier_and_a_wrong_shape() -> None:
    rng = np.random.default_rng(4)
    g = np.repeat(np.arange(30), 30)
    x = rng.uniform(-2, 2, len(g))
    eta = 1 + 0.4 * rng.standard_normal(30)[g]
    bent = pd.DataFrame({"x": x, "g": g, "y": rng.poisson(np.exp(eta + 0.8 * x - 0.5 * x**2))})
    trend = ml.Model("y ~ x + (1 | g)", bent, family="poisson").fit(threads=1).check()["trend over fitted"]
    assert trend.verdict == "problem"
    shape = np.exp(1 + 0.8 * x)
    wide = pd.DataFrame({"x": x, "g": g, "y": rng.gamma(shape, np.exp(eta + 0.5 * x) / shape)})
    plain = ml.Model("y ~ x + (1 | g)", wide, family="gamma").fit(threads=1).check()["spread over fitted"]
    right = ml.Model("y ~ x + (1 | g)", wide, family="gamma", dispersion="~ x").fit(threads=1).check()["spread over fitted"]
    assert plain.verdict != "ok" and "dispersion=" in plain.sentence and right.verdict == "ok"
    fit = fitted("gamma")
    y = fit.design.y.copy()
    y[7] *= 3
    made = GeneralisedFit(fit.model.with_design(replace(fit.design, y=y)), fit.optimum, fit.engine).check()
    assert made["outliers"].verdict == "problem" and " 7 (+1" in made["outliers"].sentence


def test_checks_name_what_they_do_not_judge() -> None:
    checks = fitted("ordinal").check()
    assert checks["collinearity"].verdict == "skipped" and "nothing to check" in checks["dispersion"].sentence
    assert {"convergence", "singularity", "number of groups", "missing rows"} <= set(checks.frame()["check"])
    none = ml.Model("incidence ~ 1 + (1 | period)", ml.load("cbpp").assign(incidence=[1, 2] * 28), family="poisson").fit()
    assert none.check()["singularity"].verdict == "look"


# -- means ------------------------------------------------------------------------------------------------------


def test_means_on_both_scales() -> None:
    fit = fitted("binomial")
    rows = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1]], dtype=float)
    eta, error = rows @ fit.optimum.beta, np.sqrt(np.einsum("ij,jk,ik->i", rows, fit.optimum.vcov, rows))
    link, back = fit.means("period"), fit.means("period", transform="response")
    np.testing.assert_allclose(link["estimate"], eta, rtol=1e-12)
    np.testing.assert_allclose(link["std_error"], error, rtol=1e-12)
    p = 1 / (1 + np.exp(-eta))
    np.testing.assert_allclose(back["estimate"], p, rtol=1e-12)
    np.testing.assert_allclose(back["std_error"], p * (1 - p) * error, rtol=1e-12)
    z = stats.norm.ppf(0.975)
    np.testing.assert_allclose(back["conf_high"], 1 / (1 + np.exp(-eta - z * error)), rtol=1e-12)
    assert "On the scale of the logit link." in str(link) and "probabilities" in str(back)
    assert np.isinf(link["df"]).all()
    odds = fit.contrasts("period", transform="response")
    np.testing.assert_allclose(odds["estimate"][0], np.exp(eta[0] - eta[1]), rtol=1e-12)
    assert odds["contrast"][0] == "1 / 2" and "Odds ratios" in str(odds) and "Tukey" in str(odds)
    assert fit.contrasts("period")["contrast"][0] == "1 - 2"
    np.testing.assert_allclose(odds["p_value"], fit.contrasts("period")["p_value"])


def test_means_of_counts_say_that_extra_zeros_are_left_out() -> None:
    fit = fitted("zero-inflated")
    made = fit.means("FoodTreatment", by="SexParent", transform="response")
    assert "without the extra zeros" in str(made) and (made["estimate"] > 0).all()
    ratios = made.contrasts()
    assert ratios["contrast"][0] == "Deprived / Satiated" and "Ratios" in ratios._repr_html_()
    assert "truncated" in str(fitted("hurdle").means("FoodTreatment", transform="response"))


def test_a_falling_link_keeps_its_limits_in_order() -> None:
    data = ml.load("dietox")
    fit = ml.Model("Weight ~ Time + (1 | Pig)", data, family="gamma", link="inverse").fit(threads=1)
    made = fit.means("Time", at={"Time": [6, 7]}, transform="response")
    assert ((made["conf_low"] < made["estimate"]) & (made["estimate"] < made["conf_high"])).all()
    with pytest.raises(ml.OptionError, match="inverse link"):
        made.contrasts()


def test_slopes_and_ordinal_contrasts() -> None:
    fit = fitted("two values")
    made = fit.slopes("Anger", by="Gender")
    beta = dict(zip(fit.design.names, fit.optimum.beta, strict=True))
    wanted = [beta["Anger"], beta["Anger"] + beta["Anger:Gender[T.M]"]]
    np.testing.assert_allclose(made["estimate"], wanted, rtol=1e-8)
    assert "Slopes of the linear predictor" in str(made) and made.contrasts()["contrast"][0] == "F - M"
    ordinal = fitted("ordinal")
    odds = ordinal.contrasts("temp", "revpairwise", transform="response")
    np.testing.assert_allclose(odds["estimate"], np.exp(ordinal.optimum.beta[:1]), rtol=1e-10)
    with pytest.raises(ml.OptionError, match="ordinal"):
        ordinal.means("temp", transform="response")
    with pytest.raises(ml.OptionError, match="kenward"):
        fit.means("Gender", ddf="kenward-roger")
    with pytest.raises(ml.OptionError, match="transform"):
        fit.means("Gender", transform="link")


# -- shares of variance -----------------------------------------------------------------------------------------


# Data, family, formula; icc adjusted and unadjusted, r2 marginal and conditional of R's performance 0.10 (insight 0.19) on
# lme4 1.1-31; tolerance. They are wider where lme4's optimum is up to 2e-5 in the log-likelihood below ours.
SHARES = [
    (
        "cbpp",
        "binomial",
        CBPP,
        (0.1114151202, 0.1018984801, 0.085416055, 0.1873145351),
        1e-07,
    ),
    (
        "cbpp",
        "binomial",
        "cbind(incidence, size - incidence) ~ 1 + (1 | herd)",
        (0.1669556126, 0.1669556126, 0.0, 0.1669556126),
        1e-07,
    ),
    (
        "cbpp",
        "binomial",
        CBPP + " + (1 | obs)",
        (0.008218553, 0.0073519244, 0.1054478324, 0.1127997568),
        2e-06,
    ),
    (
        "verbagg",
        "binomial",
        "r2 ~ Anger + Gender + btype + situ + mode + (1 + mode | id) + (1 | item)",
        (0.4203450695, 0.3390533227, 0.1933928876, 0.5324462103),
        1e-06,
    ),
    (
        "grouseticks",
        "poisson",
        TICKS,
        (0.6645807281, 0.2957643895, 0.5549609295, 0.850725319),
        1e-06,
    ),
    (
        "grouseticks",
        "poisson",
        TICKS + " + (1 | INDEX)",
        (0.5151155969, 0.2481154638, 0.5183305159, 0.7664459797),
        3e-06,
    ),
    (
        "epilepsy",
        "poisson",
        "count ~ zAge + zBase * Trt + (1 | patient) + (1 | obs)",
        (0.4275108647, 0.219896349, 0.4856356477, 0.7055319967),
        1e-06,
    ),
]


@pytest.mark.parametrize(("name", "family", "formula", "wanted", "tolerance"), SHARES)
def test_icc_and_r2_are_those_of_performance(
    name: str, family: str, formula: str, wanted: tuple[float, ...], tolerance: float
) -> None:
    data = ml.load(name)
    data = data if "obs" in data else data.assign(obs=np.arange(len(data)))
    data = data.astype({column: "category" for column in ("YEAR", "Trt") if column in data})
    fit = ml.Model(formula, data, family=family).fit(threads=1)
    icc, r2 = fit.icc(), fit.r2()
    assert list(icc["kind"]) == ["adjusted", "conditional"] and list(r2["kind"]) == ["marginal", "conditional"]
    np.testing.assert_allclose([*icc["estimate"], *r2["estimate"]], wanted, atol=tolerance, rtol=0)


def test_icc_by_group_and_its_interval() -> None:
    fit = fitted("binomial")
    shares = fit.icc(by_group=True)
    assert list(shares["group"]) == ["herd", "herd"]
    np.testing.assert_allclose(shares["estimate"], fit.icc()["estimate"])
    made = fit.icc(interval="bootstrap", n=30, seed=1)
    assert ((made["conf_low"] <= made["estimate"]) & (made["estimate"] <= made["conf_high"])).all()
    assert (made["conf_low"] >= 0).all()
    pd.testing.assert_frame_equal(made, fit.icc(interval="bootstrap", n=30, seed=1))


def test_shares_are_refused_where_there_is_no_variance_on_the_scale_of_the_link() -> None:
    with pytest.raises(ml.OptionError, match="extra zeros"):
        fitted("hurdle").icc()
    with pytest.raises(ml.OptionError, match="no random effects"):
        fitted("no groups").icc()
    beta = ml.Model("`yield` ~ temp + (1 | batch)", ml.load("gasolineyield"), family="beta").fit(threads=1)
    with pytest.raises(ml.OptionError, match="beta"):
        beta.r2()
    varying = ml.Model("Weight ~ Time + (1 | Pig)", ml.load("dietox"), family="gamma", dispersion="~ Time").fit(threads=1)
    with pytest.raises(ml.OptionError, match="differs between rows"):
        varying.icc()
    with pytest.raises(ml.OptionError, match="interval"):
        fitted("binomial").icc(interval="wald")


def test_latent_shares_by_hand() -> None:
    gamma, ordinal = fitted("gamma"), fitted("ordinal")
    probit = fitted("two values")
    v = float(probit.random_cov()[0][0, 0])
    assert probit.icc()["estimate"][0] == pytest.approx(v / (v + 1), rel=1e-12)
    v = float(ordinal.random_cov()[0][0, 0])
    assert ordinal.icc()["estimate"][0] == pytest.approx(v / (v + np.pi**2 / 3), rel=1e-12)
    z = np.column_stack([np.ones(len(gamma.design.rows)), np.log(ml.load("dietox")["Time"].to_numpy()[gamma.design.rows])])
    v = float(np.mean(np.einsum("ij,jk,ik->i", z, gamma.random_cov()[0], z)))
    residual = polygamma(1, np.exp(gamma.optimum.residual[0]))  # the variance of log y
    assert gamma.icc()["estimate"][0] == pytest.approx(v / (v + residual), rel=1e-10)


# -- tables -----------------------------------------------------------------------------------------------------


def test_tables_have_no_residual_and_name_the_further_coefficients() -> None:
    fit = fitted("zero-inflated")
    assert "Residual" not in set(fit.varcorr()["group"])
    tidy = fit.tidy()
    extra = tidy[tidy["effect"] == "extra"]
    assert list(extra["term"]) == list(fit.coefficients.names)
    np.testing.assert_array_equal(extra["estimate"], fit.optimum.residual)
    np.testing.assert_allclose(extra["std_error"], np.sqrt(np.diag(fit.optimum.residual_vcov)))
    assert list(tidy[tidy["effect"] == "ran_pars"]["term"]) == ["sd__Intercept"]
    assert "cor__Intercept.log(Time)" in set(fitted("gamma").tidy()["term"])


def test_augment() -> None:
    table = fitted("binomial").augment()
    assert list(table.columns) == ["herd", "incidence", "size", "period", ".fitted", ".linear", ".resid", ".pearson"]
    np.testing.assert_allclose(table[".fitted"], 1 / (1 + np.exp(-table[".linear"])))
    np.testing.assert_allclose(table[".resid"], table["incidence"] / table["size"] - table[".fitted"])
    assert ".fitted" not in fitted("ordinal").augment()


def test_tests_are_wald_tests() -> None:
    fit = fitted("binomial")
    beta, cov = fit.optimum.beta[1:], fit.optimum.vcov[1:, 1:]
    wald = float(beta @ np.linalg.solve(cov, beta))
    table = fit.anova()
    assert table["statistic"][0] == pytest.approx(wald / 3, rel=1e-10) and np.isinf(table["den_df"][0])
    assert table["p_value"][0] == pytest.approx(stats.chi2.sf(wald, 3), rel=1e-8)
    joint = fit.test(["period[T.2] = 0", "period[T.3] = 0", "period[T.4] = 0"], joint=True)
    assert joint["p_value"][0] == pytest.approx(stats.chi2.sf(wald, 3), rel=1e-8)
    with pytest.raises(ml.OptionError, match="kenward"):
        fit.anova(ddf="kenward-roger")


def test_what_is_not_there_says_so() -> None:
    fit = fitted("binomial")
    pytest.importorskip("matplotlib").use("Agg")
    assert fit.plot.caterpillar() is not None and fit.means("period").plot() is not None


def test_parametric_bootstrap() -> None:
    fit = fitted("binomial")
    made = fit.bootstrap(40, seed=3)
    assert made.names == ("sd(herd, Intercept)", *fit.design.names) and len(made) == 40
    np.testing.assert_allclose(made.estimates[1:], fit.optimum.beta)
    table = made.confint()
    assert ((table["conf_low"] < table["estimate"]) & (table["estimate"] < table["conf_high"])).all()
    np.testing.assert_allclose(np.nanstd(made.draws[:, 1:], axis=0), np.sqrt(np.diag(fit.optimum.vcov)), rtol=0.4)
    np.testing.assert_array_equal(made.draws, fit.bootstrap(40, seed=3).draws)
    assert "sd(herd, Intercept)" in str(made)
    one = fit.bootstrap(3, seed=1, statistic=lambda f: f.loglik)
    assert one.draws.shape == (3, 1)
    with pytest.raises(ml.OptionError, match="BCa"):
        made.confint(kind="bca")
    with pytest.raises(ml.OptionError, match="parametric"):
        fit.bootstrap(3, kind="case")
    with pytest.raises(ml.OptionError, match="positive whole number"):
        fit.bootstrap(0)
