"""Complete, no and partial pooling side by side: R's lm, glm and lme4, closed forms, and what a user may get wrong.

Numbers of R are stored in `golden_pooling` with the script that made them.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import multilevel as ml

R = json.loads((Path(__file__).parent / "golden_pooling" / "pooling.json").read_text())


@pytest.fixture(scope="module")
def math():
    return ml.load("math10")


@pytest.fixture(scope="module")
def schools(math):
    return ml.pooling("math ~ homework", "schid", math)


def golden(values):
    return np.array([np.nan if value in (None, "NA") else value for value in values], dtype=float)


# -- Gaussian, against R ------------------------------------------------------------------------------------------------


def assert_is_lm(found, gold, groups, names):
    """No pooling: R's lm with dummies and interactions, whose coefficients stand group by group."""
    estimate, error = golden(gold["estimate"]), golden(gold["std_error"])
    for k, (name, start) in enumerate(zip(names, gold["starts"], strict=True)):
        np.testing.assert_allclose(found.estimates["no"].estimate[:, k], estimate[start : start + groups], rtol=1e-7)
        np.testing.assert_allclose(found.estimates["no"].std_error[:, k], error[start : start + groups], rtol=1e-7)
        assert found.columns.names[k] == name
    own = found.models["no"]
    assert own.sigma == pytest.approx(gold["sigma"], rel=1e-9)
    assert own.df_residual == gold["df"]
    assert own.loglik == pytest.approx(gold["loglik"], rel=1e-10)
    assert own.aic == pytest.approx(gold["aic"], rel=1e-10)


def test_no_pooling_is_lm_with_interactions(schools):
    gold = {**R["math"]["no"], "starts": (0, 10)}
    assert_is_lm(schools, gold, 10, ("Intercept", "homework"))
    np.testing.assert_allclose(schools.estimates["no"].low.T.ravel(), gold["low"], rtol=1e-7)
    np.testing.assert_allclose(schools.estimates["no"].estimate, R["math"]["pooled_list"], rtol=1e-7)


def test_complete_pooling_is_lm(schools):
    gold, one = R["math"]["complete"], schools.estimates["complete"]
    for k in range(2):
        np.testing.assert_allclose(one.estimate[:, k], gold["estimate"][k], rtol=1e-9)
        np.testing.assert_allclose(one.std_error[:, k], gold["std_error"][k], rtol=1e-9)
        np.testing.assert_allclose(one.low[:, k], gold["low"][k], rtol=1e-9)
    table = schools.criteria
    assert table["loglik"][0] == pytest.approx(gold["loglik"], rel=1e-10)
    assert table["aic"][0] == pytest.approx(gold["aic"], rel=1e-10)
    assert table["residual_sd"][0] == pytest.approx(gold["sigma"], rel=1e-10)


@pytest.mark.parametrize("weights", [None, "w"])
def test_partial_pooling_is_lme4(math, weights):
    gold = R["math"]["partial"] if weights is None else R["math"]["weighted"]["partial"]
    data = math.assign(w=np.resize([1, 2, 0.5, 4], len(math)))
    found = ml.pooling("math ~ homework", "schid", data, weights=weights)
    np.testing.assert_allclose(found.estimates["partial"].estimate, gold["coef"], rtol=2e-5)
    np.testing.assert_allclose(found.shrinkage, gold["shrinkage"], rtol=1e-4)
    table = found.criteria
    assert table["residual_sd"][2] == pytest.approx(gold["sigma"], rel=1e-6)
    n = len(math)
    more = 0.0 if weights is None else np.log(data["w"]).sum() / 2
    loglik = -n / 2 * (np.log(2 * np.pi * gold["rss"] / n) + 1) + more
    assert table["loglik"][2] == pytest.approx(loglik, rel=1e-7)
    assert table["parameters"][2] == pytest.approx(gold["hat"] + 1, rel=1e-5)
    assert table["aic"][2] == pytest.approx(2 * (gold["hat"] + 1) - 2 * loglik, rel=1e-6)


def test_weighted_no_pooling(math):
    data = math.assign(w=np.resize([1, 2, 0.5, 4], len(math)))
    found = ml.pooling("math ~ homework", "schid", data, weights="w")
    assert_is_lm(found, {**R["math"]["weighted"]["no"], "starts": (0, 10)}, 10, ("Intercept", "homework"))
    assert found.criteria["loglik"][0] == pytest.approx(R["math"]["weighted"]["complete"]["loglik"], rel=1e-10)


def test_a_slope_that_all_groups_share(math):
    found = ml.pooling("math ~ ses + homework", "schid", math, vary="homework")
    gold = R["math"]["between"]["no"]
    at = {name: gold["estimate"][i] for i, name in enumerate(gold["term"])}
    np.testing.assert_allclose(found.estimates["no"].estimate[:, 1], gold["estimate"][11:], rtol=1e-7)
    np.testing.assert_allclose(found.estimates["no"].std_error[:, 0], gold["std_error"][:10], rtol=1e-7)
    table = found.population.set_index("term")
    assert table.loc["ses", "no"] == pytest.approx(at["ses"], rel=1e-8)
    assert table.loc["ses", "no_std_error"] == pytest.approx(gold["std_error"][10], rel=1e-8)
    assert np.isnan(table.loc["homework", "no"])
    np.testing.assert_allclose(found.estimates["partial"].estimate, R["math"]["between"]["partial"]["coef"], rtol=1e-4)


def test_predictions_and_intervals_of_lm(schools):
    new, gold = {"homework": [0, 3], "schid": [7472, 62821]}, R["math"]["predict"]
    for pooling, interval, key in (
        ("no", "confidence", "no"),
        ("no", "prediction", "no_new"),
        ("complete", "confidence", "complete"),
    ):
        table = schools.predict(new, pooling, interval=interval)
        found = np.column_stack([table[name] for name in ("prediction", "conf_low", "conf_high")])
        np.testing.assert_allclose(found, gold[key], rtol=1e-8)


# -- radon: groups that cannot stand alone, predictors of groups ---------------------------------------------------------


def test_varying_intercepts_of_radon():
    found = ml.pooling("log_radon ~ floor", "county", ml.load("radon"), vary="1")
    gold = R["radon"]["intercepts"]
    assert_is_lm(found, {**gold, "starts": (0,)}, 85, ("Intercept",))
    np.testing.assert_allclose(
        found.estimates["partial"].estimate[:, 0], np.ravel(R["radon"]["partial"]["coef"]), rtol=1e-4
    )
    np.testing.assert_allclose(found.shrinkage[:, 0], np.ravel(R["radon"]["partial"]["shrinkage"]), rtol=1e-4)
    assert found.population["no"][1] == pytest.approx(gold["estimate"][85], rel=1e-8)


def test_groups_whose_rows_do_not_determine_a_slope():
    found = ml.pooling("log_radon ~ floor", "county", ml.load("radon"))
    gold = R["radon"]["slopes"]
    slopes, lm = found.estimates["no"].estimate[:, 1], golden(gold["estimate"][85:])
    sizes = found.columns.sizes
    floors = ml.load("radon").groupby("county")["floor"].agg(["min", "max"])
    both = (floors["min"] < floors["max"]).to_numpy()
    assert (np.isfinite(slopes) == both).all()
    np.testing.assert_allclose(slopes[both], lm[both], rtol=1e-7)
    assert (found.estimates["no"].state[~both, 1] == 1).all()
    assert any("floor is missing in 25 of 85 groups" in note for note in found.notes)
    alone = np.flatnonzero((sizes == 1) & (floors["min"] == 0).to_numpy())
    assert len(alone) and np.isfinite(found.estimates["no"].estimate[alone, 0]).all()
    assert found.models["no"].own.rank == gold["rank"]
    assert found.models["no"].aic == pytest.approx(gold["aic"], rel=1e-10)


def test_a_predictor_of_groups_is_in_their_intercepts():
    radon = ml.load("radon")
    found = ml.pooling("log_radon ~ floor + log_uranium", "county", radon, vary="1")
    gold, uranium = R["radon"]["uranium"], radon.groupby("county")["log_uranium"].first().to_numpy()
    expected = np.ravel(gold["coef"]) + gold["fixef"][2] * uranium
    np.testing.assert_allclose(found.estimates["partial"].estimate[:, 0], expected, rtol=1e-4)
    whole = R["radon"]["uranium_complete"]["estimate"]
    np.testing.assert_allclose(found.estimates["complete"].estimate[:, 0], whole[0] + whole[2] * uranium, rtol=1e-8)
    np.testing.assert_allclose(
        found.estimates["no"].estimate[:, 0], R["radon"]["intercepts"]["estimate"][:85], rtol=1e-7
    )
    assert any(
        "log_uranium does not vary within county" in one
        for one in ml.pooling("log_radon ~ floor + log_uranium", "county", radon).notes
    )


# -- other families -----------------------------------------------------------------------------------------------------


def test_binomial_against_glm_and_glmer():
    found = ml.pooling(
        "cbind(incidence, size - incidence) ~ period", "herd", ml.load("cbpp"), family="binomial", vary="1"
    )
    gold = R["cbpp"]
    np.testing.assert_allclose(found.estimates["no"].estimate[:, 0], gold["no"]["estimate"][:15], rtol=1e-6)
    np.testing.assert_allclose(found.estimates["no"].std_error[:, 0], gold["no"]["std_error"][:15], rtol=1e-5)
    np.testing.assert_allclose(found.population["no"][1:], gold["no"]["estimate"][15:], rtol=1e-6)
    table = found.criteria
    assert table["loglik"][1] == pytest.approx(gold["no"]["loglik"], rel=1e-9)
    assert table["aic"][0] == pytest.approx(gold["complete"]["aic"], rel=1e-8)
    np.testing.assert_allclose(found.estimates["partial"].estimate[:, 0], np.ravel(gold["partial"]["coef"]), rtol=1e-3)
    np.testing.assert_allclose(found.shrinkage[:, 0], np.ravel(gold["partial"]["shrinkage"]), rtol=2e-3)
    assert found.criteria["aic"][2] < min(found.criteria["aic"][:2])


def test_groups_without_a_finite_estimate():
    ticks = ml.load("grouseticks")
    found = ml.pooling("TICKS ~ 1", "LOCATION", ticks, family="poisson")
    gold = dict(zip(R["ticks"]["no"]["term"], R["ticks"]["no"]["estimate"], strict=True))
    zero = set(map(str, R["ticks"]["zero"]))
    for level, value, state in zip(
        found.columns.levels, found.estimates["no"].estimate[:, 0], found.estimates["no"].state[:, 0], strict=True
    ):
        if str(level) in zero:
            assert np.isnan(value) and state == 2
        else:
            assert value == pytest.approx(gold[f"g{level}"], rel=1e-7, abs=1e-9)
    assert np.isfinite(found.estimates["partial"].estimate).all()
    assert any("runs off to infinity" in note and f"{len(zero)} of 63" in note for note in found.notes)
    assert found.models["no"].loglik == pytest.approx(R["ticks"]["no"]["loglik"], abs=1e-4)
    table = found.predict(interval="confidence")
    lost = ticks["LOCATION"].astype(str).isin(zero).to_numpy()
    assert np.isnan(table["no"][lost]).all() and np.isfinite(table["no"][~lost]).all()
    means = ticks.groupby("LOCATION")["TICKS"].transform("mean").to_numpy()
    np.testing.assert_allclose(table["no"][~lost], means[~lost], rtol=1e-7)
    assert (table["no_conf_low"][~lost] < table["no"][~lost]).all()


# -- closed forms -------------------------------------------------------------------------------------------------------


def test_shrinkage_of_a_balanced_random_intercept():
    rng = np.random.default_rng(3)
    J, n = 12, 5
    data = pd.DataFrame({"g": np.repeat(np.arange(J), n)})
    data["y"] = rng.normal(0, 1.2, J)[data["g"]] + rng.normal(0, 2, J * n)
    found = ml.pooling("y ~ 1", "g", data)
    means, grand = data.groupby("g")["y"].mean().to_numpy(), data["y"].mean()
    within = ((data["y"] - means[data["g"]]) ** 2).sum() / (J * (n - 1))
    tau2 = (n * ((means - grand) ** 2).sum() / (J - 1) - within) / n
    shrunk = within / (within + n * tau2)
    assert tau2 > 0
    np.testing.assert_allclose(found.shrinkage, shrunk, rtol=1e-6)
    np.testing.assert_allclose(
        found.estimates["partial"].estimate[:, 0], shrunk * grand + (1 - shrunk) * means, rtol=1e-6
    )
    np.testing.assert_allclose(found.estimates["no"].estimate[:, 0], means, rtol=1e-10)
    np.testing.assert_allclose(found.estimates["no"].std_error[:, 0], np.sqrt(within / n), rtol=1e-10)
    exact = np.sqrt(tau2 * shrunk + shrunk**2 * (tau2 + within / n) / J)  # known variances: group and mean
    np.testing.assert_allclose(found.estimates["partial"].std_error[:, 0], exact, rtol=1e-6)
    assert found.criteria["parameters"][2] == pytest.approx(1 + (J - 1) * (1 - shrunk) + 1, rel=1e-6)


def test_shrinkage_without_variance_between_groups_is_complete():
    rng = np.random.default_rng(1)
    y = rng.normal(size=60)
    g = np.repeat(np.arange(6), 10)
    for j in range(6):
        y[g == j] -= y[g == j].mean()
    found = ml.pooling("y ~ 1", "g", {"y": y, "g": g})
    assert (found.shrinkage == 1).all()
    np.testing.assert_allclose(found.estimates["partial"].estimate, found.estimates["complete"].estimate, atol=1e-12)
    assert found.criteria["aic"][2] == pytest.approx(found.criteria["aic"][0], rel=1e-10)
    assert any("singular" in note for note in found.notes)
    assert "close to complete pooling" in found.verdict


def test_confidence_level(math):
    wide, narrow = (ml.pooling("math ~ 1", "schid", math, level=level) for level in (0.95, 0.5))
    df = narrow.models["no"].df_residual
    assert df == 250
    half = (narrow.estimates["no"].high - narrow.estimates["no"].low) / 2
    np.testing.assert_allclose(half, stats.t.ppf(0.75, df) * narrow.estimates["no"].std_error, rtol=1e-9)
    assert (wide.estimates["partial"].low < narrow.estimates["partial"].low).all()
