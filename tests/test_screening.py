"""Screening before modelling: ICC and variance inflation.

Numbers of R (car, performance, lme4) and statsmodels are stored in `golden_screening` with the scripts that made them.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import multilevel as ml
from multilevel.screening import exact_interval

FOLDER = Path(__file__).parent / "golden_screening"
R = json.loads((FOLDER / "screening.json").read_text())
STATSMODELS = json.loads((FOLDER / "statsmodels.json").read_text())


@pytest.fixture(scope="module")
def math():
    return ml.load("math10")


# -- icc -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "y", "group"), [("dyestuff", "Yield", "Batch"), ("math10", "math", "schid"), ("radon", "log_radon", "county")]
)
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_icc_agrees_with_performance(name, y, group, library):
    table = ml.icc(y, group, ml.load(name, as_=library))
    assert type(table).__module__.startswith(library)
    assert table["icc"][0] == pytest.approx(R["icc"][name], rel=1e-6)
    assert table["conf_low"][0] < table["icc"][0] < table["conf_high"][0]


@pytest.mark.parametrize(
    ("name", "y", "group"), [("pastes", "strength", "batch/cask"), ("penicillin", "diameter", ["plate", "sample"])]
)
def test_icc_of_several_factors_agrees_with_performance(name, y, group):
    table = ml.icc(y, group, ml.load(name), n=40, progress=False).set_index("group")
    stored = dict(zip(R["icc"][name]["group"], R["icc"][name]["icc"], strict=True))
    stored = {{"cask:batch": "batch:cask"}.get(key, key): value for key, value in stored.items()}
    assert set(table.index) == {*stored, "(all)"}
    for key, value in stored.items():
        assert table.loc[key, "icc"] == pytest.approx(value, rel=1e-5)
    assert table.loc["(all)", "icc"] == pytest.approx(sum(stored.values()), rel=1e-5)
    assert (table["conf_low"] <= table["icc"]).all()
    assert (table["icc"] <= table["conf_high"]).all()


def test_balanced_interval_is_searles():
    data = ml.load("dyestuff")
    table = data.groupby("Batch", observed=True)["Yield"]
    a, n = 6, 5
    among = n * table.mean().var(ddof=1)
    within = table.var(ddof=1).mean()
    limits = [among / within / stats.f.ppf(q, a - 1, a * (n - 1)) for q in (0.975, 0.025)]
    expected = [(ratio - 1) / (n + ratio - 1) for ratio in limits]
    found = ml.icc("Yield", "Batch", data)
    assert [found["conf_low"][0], found["conf_high"][0]] == pytest.approx(expected, rel=1e-9)


def test_unbalanced_interval_inverts_the_exact_pivot():
    """The dense form of Wald's statistic, by generalised least squares, is the F quantile at either limit."""
    rng = np.random.default_rng(4)
    sizes = np.array([2, 3, 5, 9, 14, 1, 7])
    codes = np.repeat(np.arange(len(sizes)), sizes)
    y = rng.normal(size=len(sizes))[codes] * 1.5 + rng.normal(size=len(codes)) + 1e3
    Z = np.eye(len(sizes))[codes]
    residual = y - Z @ np.linalg.lstsq(Z, y, rcond=None)[0]
    df = len(sizes) - 1, len(y) - len(sizes)
    for rho, tail in zip(exact_interval(y, codes, 0.9), (0.95, 0.05), strict=True):
        inverse = np.linalg.inv(np.eye(len(y)) + rho / (1 - rho) * Z @ Z.T)
        one = np.ones(len(y))
        off = y - one @ inverse @ y / (one @ inverse @ one)
        pivot = (off @ inverse @ off - residual @ residual) / df[0] / (residual @ residual / df[1])
        assert pivot == pytest.approx(stats.f.ppf(tail, *df), rel=1e-6)


def test_unbalanced_interval_covers():
    rng = np.random.default_rng(11)
    codes = np.repeat(np.arange(12), [2, 2, 3, 4, 4, 5, 8, 10, 15, 20, 3, 6])
    truth, hits = 0.25, 0
    for _ in range(1000):
        y = np.sqrt(truth) * rng.normal(size=12)[codes] + np.sqrt(1 - truth) * rng.normal(size=len(codes))
        low, high = exact_interval(y, codes, 0.8)
        hits += low <= truth <= high
    assert hits / 1000 == pytest.approx(0.8, abs=4 * np.sqrt(0.8 * 0.2 / 1000))


def test_design_effect_is_the_inflation_of_the_variance_of_the_mean(math):
    """Against the dense covariance matrix of the rows at the estimated variances, for crossed factors."""
    data = ml.load("penicillin").iloc[[*range(40), *range(50, 120)]]  # unbalanced
    table = ml.icc("diameter", ["plate", "sample"], data, n=20, progress=False).set_index("group")
    V = np.eye(len(data)) * (1 - table.loc["(all)", "icc"])
    for name in ("plate", "sample"):
        same = data[name].astype(str).to_numpy()
        V += table.loc[name, "icc"] * (same[:, None] == same)
    assert table.loc["(all)", "design_effect"] == pytest.approx(V.mean() * len(data), rel=1e-10)
    one = ml.icc("math", "schid", math)
    same = math["schid"].to_numpy()
    V = np.where(same[:, None] == same, one["icc"][0], 0.0)
    np.fill_diagonal(V, 1.0)
    assert one["design_effect"][0] == pytest.approx(V.mean() * 260, rel=1e-10)
    assert one["effective_n"][0] == pytest.approx(260 / one["design_effect"][0])
    assert one["mean_size"][0] == 26


def test_icc_at_the_ends(math):
    full = ml.icc("public", "schid", math)
    assert full[["icc", "conf_low", "conf_high"]].to_numpy().tolist() == [[1.0, 1.0, 1.0]]
    none = ml.icc("Yield", "Batch", ml.load("dyestuff2"))
    assert none["icc"][0] == 0
    assert none["conf_low"][0] == 0
    assert none["design_effect"][0] == 1


def test_icc_of_other_families():
    data = ml.load("cbpp")
    table = ml.icc("cbind(incidence, size - incidence)", "herd", data, family="binomial", n=20, progress=False)
    fit = ml.Model("cbind(incidence, size - incidence) ~ 1 + (1 | herd)", data, family="binomial").fit()
    variance = fit.random_cov()[0][0, 0]
    assert table["icc"][0] == pytest.approx(variance / (variance + np.pi**2 / 3), rel=1e-6)
    response = fit.icc(interval=None, scale="response")["estimate"][0]
    sizes = data["herd"].value_counts().to_numpy()
    assert table["design_effect"][0] == pytest.approx(1 + (np.sum(sizes**2) / sizes.sum() - 1) * response)


def test_icc_takes_expressions_odd_names_and_missing_values():
    data = ml.load("dyestuff").rename(columns={"Batch": "my batch"})
    data["Yield"] = data["Yield"].astype(float)
    data.loc[3, "Yield"] = np.nan
    with pytest.warns(ml.MissingRowsWarning):
        table = ml.icc("log(Yield)", "my batch", data)
    assert table["rows"][0] == 29
    assert 0.3 < table["icc"][0] < 0.6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: ml.icc("math", "school", d), "no column 'school'"),
        (lambda d: ml.icc("maths", "schid", d), "did you mean 'math'"),
        (lambda d: ml.icc(3, "schid", d), "name of a column"),
        (lambda d: ml.icc("math", [], d), "groups are named"),
        (lambda d: ml.icc("math", ["schid", "schid"], d), "twice"),
        (lambda d: ml.icc("math", "schid", d, level=95), "between 0 and 1"),
        (lambda d: ml.icc("math", "one", d.assign(one=1)), "single level '1'"),
        (lambda d: ml.icc("math", "row", d.assign(row=range(260))), "every row is a level"),
        (lambda d: ml.icc("text", "schid", d.assign(text="a")), "looks like text"),
    ],
)
def test_icc_refuses(math, call, message):
    with pytest.raises(ml.MultilevelError, match=message):
        call(math)


# -- vif -----------------------------------------------------------------------------------------------------

FORMULAS = {
    "numbers": ("math10", "math ~ homework + ses + parented + ratio"),
    "factor": ("math10", "math ~ homework + ses + factor(region) + percmin + ratio"),
    "poly": ("math10", "math ~ poly(ses, 2) + homework + parented"),
    "interaction": ("cake", "angle ~ recipe * temp"),
}


def same_vif(table, stored):
    assert [term.replace("factor(region)", "region") for term in table["term"]] == stored["term"]
    assert list(table["df"]) == stored["df"]
    for name in ("vif", "se_factor"):
        assert list(table[name]) == pytest.approx(stored[name], rel=1e-7)
    assert list(table["tolerance"]) == pytest.approx([1 / value for value in stored["vif"]], rel=1e-7)


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_vif_of_formulas_agrees_with_car(name, library):
    data, formula = FORMULAS[name]
    table = ml.vif(formula, ml.load(data, as_=library))
    assert type(table).__module__.startswith(library)
    same_vif(table, R["vif"][name])


def test_vif_of_a_weighted_model_agrees_with_car(math):
    weights = np.resize([1, 2, 0.5, 4], 260)
    model = ml.Model("math ~ homework + ses + factor(region) + ratio", math, weights=weights)
    same_vif(ml.vif(model), R["vif"]["weighted"])
    same_vif(ml.vif(model.fit()), R["vif"]["weighted"])  # without groups, the estimates say the same


def test_vif_of_fits_agrees_with_car(math, tmp_path):
    fit = ml.Model("math ~ homework + ses + factor(region) + meanses + (homework | schid)", math).fit()
    table = ml.vif(fit)
    stored = R["vif"]["mixed"]
    assert list(table["df"]) == stored["df"]
    assert list(table["vif"]) == pytest.approx(stored["vif"], rel=1e-4)
    fit.save(tmp_path / "fit.mlv")
    again = ml.vif(ml.read(tmp_path / "fit.mlv"))
    pd.testing.assert_frame_equal(again, table)
    binomial = ml.Model(
        "cbind(incidence, size - incidence) ~ period + log(size) + (1 | herd)", ml.load("cbpp"), family="binomial"
    ).fit()
    stored = R["vif"]["glm"]
    assert list(ml.vif(binomial)["vif"]) == pytest.approx(stored["vif"], rel=1e-3)


def test_vif_agrees_with_statsmodels(math):
    for name, stored in STATSMODELS["vif"].items():
        data = math if name == "math10" else ml.load("radon").assign(remainder=lambda d: d["idnum"] % 7)
        for source in (list(stored), "~ " + " + ".join(stored)):
            table = ml.vif(source, data)
            assert list(table["term"]) == list(stored)
            assert list(table["vif"]) == pytest.approx(list(stored.values()), rel=1e-8)


def test_vif_does_not_depend_on_contrasts_scale_or_place(math):
    data = math.assign(region=math["region"].astype(str))
    formula = "math ~ homework + ses + region + ratio"
    first = ml.vif(ml.Model(formula, data))
    other = ml.vif(ml.Model(formula, data.assign(ses=data["ses"] * 1e-6 + 2000), contrasts={"region": "sum"}))
    assert list(other["vif"]) == pytest.approx(list(first["vif"]), rel=1e-5)


def test_vif_of_a_posterior_is_of_its_covariance(math):
    posterior = ml.Model("math ~ homework + ses + parented + (1 | schid)", math).sample(draws=200, chains=2, seed=1)
    cor = np.corrcoef(posterior.draws_kept.beta.reshape(-1, 4)[:, 1:], rowvar=False)
    assert list(ml.vif(posterior)["vif"]) == pytest.approx(list(np.diag(np.linalg.inv(cor))), rel=1e-6)


def test_vif_of_terms_that_others_determine(math):
    data = math.assign(twice=2 * math["ses"] + 3, flat=1.0)
    table = ml.vif("~ homework + ses + twice", data).set_index("term")
    assert np.isinf(table.loc[["ses", "twice"], "vif"]).all()
    assert (table.loc[["ses", "twice"], "tolerance"] == 0).all()
    assert table.loc["homework", "vif"] == pytest.approx(ml.vif("~ homework + ses", data)["vif"][0])
    assert np.isinf(ml.vif("~ homework + flat", data)["vif"][1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ml.RankWarning)
        fit = ml.Model("math ~ homework + ses + twice + (1 | schid)", data).fit()
    assert np.isinf(ml.vif(fit)["vif"][2])


def test_vif_leaves_out_the_rows_that_the_model_would(math):
    data = math.assign(math=math["math"].where(math.index % 3 > 0).astype(float))
    whole = ml.vif("~ homework + ses", data)["vif"][0]
    with pytest.warns(ml.MissingRowsWarning, match="87 of 260"):
        kept = ml.vif("math ~ homework + ses + (1 | schid)", data)["vif"][0]
    r = np.corrcoef(data.dropna()["homework"], data.dropna()["ses"])[0, 1]
    assert kept == pytest.approx(1 / (1 - r**2), rel=1e-9)
    assert abs(kept - whole) > 1e-4
    text = math.assign(outcome=np.where(math["math"] > 50, "yes", "no"))  # what the response is does not matter
    assert ml.vif("outcome ~ homework + ses", text)["vif"][0] == pytest.approx(whole)


def test_vif_of_every_column_by_a_dot(math):
    data = math[["math", "homework", "ses", "parented", "schid"]]
    table = ml.vif("math ~ . + (1 | schid)", data)
    assert list(table["term"]) == ["homework", "ses", "parented"]
    assert list(table["vif"]) == pytest.approx(list(ml.vif("~ homework + ses + parented", data)["vif"]))


def test_vif_without_intercept_warns(math):
    with pytest.warns(ml.MultilevelWarning, match="no intercept"):
        table = ml.vif("~ 0 + homework + ratio", math)
    a, b = (math[name].to_numpy(float) for name in ("homework", "ratio"))
    r = a @ b / np.sqrt((a @ a) * (b @ b))
    assert table["vif"][0] == pytest.approx(1 / (1 - r**2), rel=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: ml.vif("~ homework"), "needs data"),
        (lambda d: ml.vif("math ~ 1", d), "nothing can be inflated"),
        (lambda d: ml.vif(3, d), "takes a formula"),
        (lambda d: ml.vif([], d), "takes a formula"),
        (lambda d: ml.vif(["homework", "sess"], d), "did you mean 'ses'"),
        (lambda d: ml.vif(ml.Model("math ~ ses", d), d), "has its own"),
        (lambda d: ml.vif("~ homework +", d), "formula|expected|ends"),
    ],
)
def test_vif_refuses(math, call, message):
    with pytest.raises(ml.MultilevelError, match=message):
        call(math)
