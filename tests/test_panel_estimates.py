"""Estimates of panels that need no pyfixest: numbers of plm and lme4, algebra, bad input."""

from __future__ import annotations

import importlib
import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pytest
from panel_samples import CASES, ONE_WAY, found, golden, plain, rows

import multilevel as ml
from multilevel.errors import ColumnError, DataError, FormulaError, OptionError
from multilevel.panel_hausman import wald

LIGHT = ("pooled", "between", "random", "mundlak")
INV = "inv ~ value + capital"


def close(value, expected, rtol=1e-7):
    np.testing.assert_allclose(value, expected, rtol=rtol, atol=1e-11)


@pytest.mark.parametrize("case", CASES)
def test_pooled_is_plm(case: str) -> None:
    one, want = found(case, estimators=LIGHT).estimates["pooled"], golden()[case]["pooled"]
    order = _order(one.names, want["names"])
    close(one.coef[order], want["coef"])
    close(np.sqrt(np.diag(one.plain))[order], want["se"])
    close(np.sqrt(np.diag(one.vcov))[order], want["cluster"])


def _order(ours, theirs):
    """plm's effects of years come last, ours first."""
    years = [i for i, name in enumerate(ours) if name.startswith("factor(year)")]
    others = [i for i in range(len(ours)) if i not in years]
    assert len(ours) == len(theirs)
    return [*others, *years]


@pytest.mark.parametrize("case", ONE_WAY)
def test_between_is_plm(case: str) -> None:
    one, want = found(case, estimators=LIGHT).estimates["between"], golden()[case]["between"]
    coef, se = plain(one)
    close(coef, want["coef"])
    close(se, want["se"])


@pytest.mark.parametrize("case", ONE_WAY)
def test_swamy_arora_is_plm(case: str) -> None:
    panel, want = found(case, estimators=LIGHT, random="swamy-arora"), golden()[case]
    close([panel.variances.residual, panel.variances.group], want["sigma2"])
    one = panel.estimates["random"]
    coef, se = plain(one)
    close(coef, want["random"]["coef"])
    close(se, want["random"]["se"])
    close(np.sqrt(np.diag(one.vcov)), want["random"]["cluster"])


@pytest.mark.parametrize("method", ["reml", "ml"])
@pytest.mark.parametrize("case", ONE_WAY)
def test_the_main_random_effects_are_lme4(case: str, method: str) -> None:
    one, want = found(case, estimators=LIGHT, random=method).estimates["random"], golden()[case][method]
    coef, se = plain(one)
    np.testing.assert_allclose(coef, want["coef"], rtol=2e-5, atol=1e-7)  # lme4 stops early
    np.testing.assert_allclose(se, want["se"], rtol=2e-5)
    close(coef, one.model.fixef()["estimate"].dropna(), 1e-9)  # least squares with the fit's variances


@pytest.mark.parametrize("case", ONE_WAY)
def test_mundlak_is_lme4_with_group_means(case: str) -> None:
    panel, want = found(case, estimators=LIGHT), golden()[case]["mundlak"]
    one, test = panel.estimates["mundlak"], panel.mundlak.tests[0]
    coef, se = plain(one)
    np.testing.assert_allclose(coef, want["coef"], rtol=2e-5, atol=1e-7)
    np.testing.assert_allclose(se, want["se"], rtol=1e-4)
    np.testing.assert_allclose(test.statistic, want["statistic"], rtol=2e-4)
    assert test.df == want["df"] and np.isinf(test.df_resid)


@pytest.mark.parametrize("case", ["grunfeld", "produc"])
def test_the_regression_test_is_plm_in_balanced_panels(case: str) -> None:
    """In unbalanced ones plm's method="aux" has an intercept that was not transformed with the rest."""
    tests = {t.name: t for t in found(case, estimators=("random",), random="swamy-arora").tests}
    want = golden()[case]
    close(tests["regression"].statistic, want["aux"]["statistic"])
    close(tests["regression"].p_value, want["aux"]["p"], 1e-6)
    panel = found(case, estimators=("random",), random="swamy-arora")
    rows, shift = panel.rows, panel.rows.shift
    both = panel.variances.whitened(rows, np.column_stack([rows.X, rows.means(rows.X[:, shift])[rows.group]]))
    at = slice(rows.X.shape[1], None)  # plm's with Stata's factor, not by jackknife
    robust = wald(both.coef[at], both.vcov("group", [rows.group])[at, at], np.inf, "")
    close(robust.statistic, want["aux_robust"]["statistic"])
    close(robust.p_value, want["aux_robust"]["p"], 1e-6)


def test_the_regression_test_of_an_unbalanced_panel_by_hand() -> None:
    data = rows("produc_gaps")
    panel = found("produc_gaps", estimators=("random",))
    y = np.log(data["gsp"]).to_numpy()
    X = np.column_stack([np.ones(len(y)), *(np.log(data[c]) for c in ("pcap", "pc", "emp")), data["unemp"]])
    codes = pd.factorize(data["state"])[0]
    same = codes[:, None] == codes
    M = same / same.sum(1)[:, None]
    fit = panel.models["random"]
    omega = fit.sigma**2 * np.eye(len(y)) + fit.varcorr()["vcov"][0] * same
    Z = np.column_stack([X, (M @ X)[:, 1:]])
    W = np.linalg.inv(omega)
    bread = np.linalg.inv(Z.T @ W @ Z)
    coef = bread @ Z.T @ W @ y
    e = y - Z @ coef
    n, p = Z.shape
    G = codes.max() + 1
    moves = []
    for g in range(G):  # leave one group out, with the variances held
        k = codes != g
        inner = W[np.ix_(k, k)]
        moves.append(np.linalg.solve(Z[k].T @ inner @ Z[k], Z[k].T @ inner @ y[k]) - coef)
    V = (G - 1) / G * np.array(moves).T @ np.array(moves)
    robust = coef[5:] @ np.linalg.solve(V[5:, 5:], coef[5:])
    plain_v = bread * (e @ W @ e) / (n - p)
    tests = {t.name: t for t in panel.tests}
    close(tests["regression, robust"].statistic, robust, 1e-6)
    close(tests["regression"].statistic, coef[5:] @ np.linalg.solve(plain_v[5:, 5:], coef[5:]), 1e-6)
    from scipy.stats import f

    assert tests["regression, robust"].df_resid == G - 5
    close(tests["regression, robust"].p_value, f.sf(robust / 4, 4, G - 5), 1e-5)


def test_the_robust_test_keeps_its_level_with_few_groups() -> None:
    """Ten groups: 300 panels in which the hypothesis holds; with Stata's factor and G - 1 it rejects in 18 %."""
    rng, rejected = np.random.default_rng(10), 0
    g = np.repeat(np.arange(10), 8)
    for _ in range(300):
        x, z = (rng.normal(size=10)[g] + rng.normal(size=80) for _ in range(2))
        data = {"g": g, "x": x, "z": z, "y": x + z + rng.normal(size=10)[g] + rng.normal(size=80)}
        rejected += ml.panel("y ~ x + z", "g", data, estimators="random").tests[-1].p_value < 0.05
    assert 3 <= rejected <= 27  # 15 expected, sd 3.8


def test_one_group_that_decides_alone_is_told() -> None:
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(12), 5)
    x = np.where(g == 3, rng.normal(size=60), 0.0)
    panel = ml.panel("y ~ x", "g", {"g": g, "x": x, "y": x + rng.normal(size=60)}, estimators=("random",))
    assert np.isnan(panel.tests[-1].p_value) and "one group alone" in panel.tests[-1].note
    assert "one group alone" in str(panel)


def test_mundlak_slopes_are_the_within_slopes_balanced_or_not() -> None:
    for case in ("produc_gaps", "produc_gaps_time", "produc_region"):
        panel, want = found(case, estimators=("mundlak",)), golden()[case]["within"]
        one = panel.estimates["mundlak"]
        at = [one.names.index(name) for name in ("log(pcap)", "log(pc)", "log(emp)", "unemp")]
        np.testing.assert_allclose(one.coef[at], want["coef"][:4], rtol=1e-7)


def test_covariances_both_ways_are_sums_of_clusters() -> None:
    panel = found("grunfeld", estimators=("pooled",))
    both = ml.panel(INV, "firm", rows("grunfeld"), time="year", vcov="group+time", estimators="pooled").estimates[
        "pooled"
    ]
    X, e, codes = both.model.X, both.model.residuals, ml.load("grunfeld")
    bread, (n, p) = np.linalg.inv(X.T @ X), X.shape

    def meat(keys):
        sums = pd.DataFrame(X * e[:, None]).groupby(keys.to_numpy()).sum().to_numpy()
        return sums.T @ sums

    inner = meat(codes["firm"]) + meat(codes["year"]) - meat(codes["firm"] * 10_000 + codes["year"])
    V = 10 / 9 * (n - 1) / (n - p) * bread @ inner @ bread
    close(np.diag(both.vcov), np.diag(V), 1e-6)
    assert both.df[0] == 9 and panel.estimates["pooled"].df[0] == 9


def test_hetero_is_the_sandwich_of_rows() -> None:
    one = found("produc", vcov="hetero", estimators=("pooled",)).estimates["pooled"]
    X, e = one.model.X, one.model.residuals
    bread = np.linalg.inv(X.T @ X)
    close(one.vcov, len(e) / one.model.df * bread @ (X.T * e**2) @ X @ bread, 1e-6)


def test_frames_long_and_wide_in_both_libraries() -> None:
    panel = found("grunfeld", estimators=LIGHT)
    long = panel.frame()
    assert list(long.columns) == [
        "estimator", "term", "estimate", "std_error", "statistic", "df", "p_value", "conf_low", "conf_high"
    ]  # fmt: skip
    row = long[(long["estimator"] == "pooled") & (long["term"] == "value")].iloc[0]
    from scipy.stats import t

    close(row["conf_high"], row["estimate"] + t.ppf(0.975, 9) * row["std_error"])
    close(row["p_value"], 2 * t.sf(abs(row["estimate"] / row["std_error"]), 9))
    wide = panel.frame(wide=True)
    assert wide["term"].tolist() == ["Intercept", "value", "capital", "mean(value)", "mean(capital)"]
    assert wide["pooled"].isna().tolist() == [False] * 3 + [True] * 2
    close(panel.coef("pooled"), golden()["grunfeld"]["pooled"]["coef"])
    other = ml.panel(INV, "firm", pl.from_pandas(rows("grunfeld")), estimators=LIGHT)
    assert isinstance(other.frame(), pl.DataFrame) and isinstance(other.hausman, pl.DataFrame)
    assert other.frame().equals(pl.from_pandas(long))
    assert isinstance(other.models["mundlak"].fixef(), pl.DataFrame)


def test_what_is_printed() -> None:
    panel = found("grunfeld", estimators=LIGHT)
    text = str(panel)
    assert "200 rows in 10 groups of firm: 20 rows each" in text and "clustered by firm" in text
    assert text == panel.summary() and "0.1156" in text and "(0.0159)" in text
    assert "regression, robust" in text and "joint, robust" in text and panel.verdict.split()[0] in text
    assert "<table" in panel._repr_html_() and "do not disagree by more than chance" in panel.verdict
    assert "With 10 groups the tests are rough" in panel.verdict


def test_the_verdict_sees_groups_that_go_with_a_predictor() -> None:
    panel = ml.panel("y ~ x", "g", simulated(2.0), estimators=LIGHT)
    assert "disagree by more than chance" in panel.verdict and "do not disagree" not in panel.verdict
    assert abs(panel.coef("mundlak")[1] - 1) < 0.1
    assert (
        panel.coef("mundlak")[1] + 0.05 < panel.coef("random")[1] < panel.coef("pooled")[1] < panel.coef("between")[1]
    )
    calm = ml.panel("y ~ x", "g", simulated(0.0), estimators=LIGHT)
    assert "do not disagree by more than chance" in calm.verdict and "no proof" in calm.verdict


def simulated(pull: float) -> pd.DataFrame:
    """Sixty groups of four to eight rows, whose effects go with the mean of x by `pull`; the slope within is one."""
    rng = np.random.default_rng(4)
    g = np.repeat(np.arange(60), rng.integers(4, 9, 60))
    level = rng.normal(size=60)
    x = level[g] + rng.normal(size=len(g))
    return pd.DataFrame({"g": g, "x": x, "y": x + pull * level[g] + rng.normal(size=60)[g] + rng.normal(size=len(g))})


def test_predictors_with_the_same_mean_everywhere_leave_nothing_to_test() -> None:
    panel = ml.panel("Reaction ~ Days", "Subject", ml.load("sleepstudy"), estimators=LIGHT)
    assert "mundlak" not in panel.estimates and panel.mundlak is None and len(panel.hausman) == 0
    assert "nothing to test" in panel.verdict and any("no Mundlak terms" in text for text in panel.messages)
    assert "nothing to test" in str(panel)


def test_sentences_on_constant_predictors_single_rows_and_missing_values() -> None:
    text = " ".join(found("produc_region", estimators=LIGHT).messages)
    assert "2 groups have a single row each" in text and "factor(region) does not change within any state" in text
    data = rows("grunfeld")
    data.loc[3, "value"] = np.nan
    panel = ml.panel(INV, "firm", data, estimators=LIGHT)
    assert any("'value' in 1" in text for text in panel.messages)
    want = ml.panel(INV, "firm", data.drop(index=3), estimators=LIGHT)
    close(panel.coef("mundlak"), want.coef("mundlak"), 1e-9)


def test_too_few_groups_for_a_between_estimate_is_a_sentence() -> None:
    data = rows("grunfeld")
    panel = ml.panel(INV, "firm", data[data["firm"] <= 3], estimators=LIGHT)
    assert "between" not in panel.estimates
    assert any("3 means of firm are too few for 3 coefficients" in text for text in panel.messages)
    assert "mundlak" not in panel.estimates and not panel.tests and "3 groups are too few for a test" in panel.verdict
    with pytest.raises(DataError, match="use random='reml'"):
        ml.panel(INV, "firm", data[data["firm"] <= 3], estimators=LIGHT, random="swamy-arora")


def test_odd_names_large_values_and_labels() -> None:
    data = rows("grunfeld").rename(columns={"value": "market value", "firm": "the firm", "year": "1 year"})
    data["the firm"] = data["the firm"].map(lambda k: f"firm {k}")
    panel = ml.panel("inv ~ `market value` + log(capital)", "the firm", data, time="1 year", estimators=LIGHT)
    assert panel.terms == ("market value", "log(capital)", "mean(market value)", "mean(log(capital))")
    shifted = rows("grunfeld").assign(value=lambda d: d["value"] + 1e9)
    moved = ml.panel(INV, "firm", shifted, estimators=("mundlak",))
    close(moved.coef("mundlak")[1:], found("grunfeld", estimators=LIGHT).coef("mundlak")[1:], 1e-5)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"vcov": "cluster"}, OptionError, "'group', 'iid', 'hetero', 'group\\+time'"),
        ({"vcov": "group+time"}, OptionError, "time='year'"),
        ({"random": "walhus"}, OptionError, "'swamy-arora'"),
        ({"random": ["reml"]}, OptionError, "random must be one of"),
        ({"estimators": ["fixed"]}, OptionError, "'within'"),
        ({"estimators": []}, OptionError, "estimators must be some of"),
        ({"estimators": 3}, OptionError, "estimators must be some of"),
        ({"family": "poisson"}, OptionError, "fepois"),
        ({"level": 95}, OptionError, "level"),
        ({"time": "firm"}, OptionError, "same column"),
        ({"time": 3}, OptionError, "time must be the name"),
        ({"time": "yaer"}, ColumnError, "did you mean 'year'"),
        ({"group": "fim"}, ColumnError, "did you mean 'firm'"),
        ({"group": ["firm", "year"]}, OptionError, "group must be the name"),
        ({"formula": "inv ~ value + (1 | firm)"}, OptionError, "no random terms"),
        ({"formula": "inv ~ value + offset(capital)"}, OptionError, "offset"),
        ({"formula": "inv ~ 0 + value"}, OptionError, "needs an intercept"),
        ({"formula": "inv ~ 1"}, OptionError, "no predictor"),
        ({"formula": "inv ~ vlaue"}, ColumnError, "did you mean 'value'"),
        ({"formula": "inv value"}, FormulaError, "no ~"),
        ({"formula": "inv ~ factor(firm)"}, OptionError, "no predictor changes within levels of 'firm'"),
    ],
)
def test_bad_input_is_told(options, error, words) -> None:
    given = {"formula": INV, "group": "firm", "data": rows("grunfeld"), "estimators": ("pooled", "mundlak"), **options}
    with pytest.raises(error, match=words):
        ml.panel(**given)


def test_groups_of_one_row_and_one_group_are_refused() -> None:
    data = rows("grunfeld")
    with pytest.raises(DataError):
        ml.panel(INV, "row", data.assign(row=np.arange(200)), estimators=LIGHT)
    with pytest.raises(DataError):
        ml.panel(INV, "firm", data[data["firm"] == 1], estimators=LIGHT)


def test_without_pyfixest_the_within_estimate_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyfixest", None)
    with pytest.raises(OptionError, match=r"pip install 'multilevel\[panel\]'"):
        ml.panel(INV, "firm", rows("grunfeld"))
    assert set(ml.panel(INV, "firm", rows("grunfeld"), estimators=LIGHT).models) == set(LIGHT)


def test_importing_does_not_import_pyfixest() -> None:
    code = "import sys, multilevel as ml; ml.panel; print([m for m in ('pyfixest', 'pandas', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pyfixest" not in done.stdout
    assert importlib.import_module("multilevel.panel_models").panel is ml.panel


def test_the_plot_draws_the_intervals() -> None:
    pytest.importorskip("matplotlib").use("Agg")
    panel = found("grunfeld", estimators=LIGHT)
    axes = panel.plot()
    assert [ax.get_title() for ax in axes] == ["value", "capital"]
    frame = panel.frame()
    want = frame[frame["term"] == "value"][["conf_low", "conf_high"]].to_numpy()
    drawn = np.array([line.get_segments()[0][:, 0] for line in axes[0].collections])
    close(drawn, want)
    assert [text.get_text() for text in axes[0].get_yticklabels()] == list(LIGHT)
    assert panel.plot("mean(value)").get_title() == "mean(value)"
    with pytest.raises(OptionError, match="did you mean 'value'"):
        panel.plot("vlaue")
    import matplotlib.pyplot as plt

    plt.close("all")


def test_periods_may_be_dates_text_or_categories() -> None:
    data = rows("grunfeld")
    want = found("grunfeld_time", estimators=LIGHT)
    dates = pd.to_datetime(data["year"].astype(str) + "-01-01")
    for column in (dates, "y" + data["year"].astype(str), pd.Categorical(data["year"])):
        panel = ml.panel(INV, "firm", data.assign(t=column), time="t", estimators=LIGHT)
        assert panel.terms == ("value", "capital", "mean(value)", "mean(capital)")
        for name in LIGHT:
            close(panel.coef(name), want.coef(name), 1e-8)
    with pytest.raises(DataError, match="1935.5"):
        ml.panel(INV, "firm", data.assign(t=data["year"] + 0.5), time="t", estimators=LIGHT)


def test_pairs_that_come_twice_and_names_that_are_taken() -> None:
    data = rows("grunfeld")
    twice = ml.panel(INV, "firm", pd.concat([data, data.head(3)]), time="year", estimators=LIGHT)
    assert any("firm and year do not name a row: " in text for text in twice.messages)
    taken = data.assign(**{"mean(value)": np.cos(np.arange(200))})
    panel = ml.panel("inv ~ value + `mean(value)`", "firm", taken, estimators=("mundlak",))
    assert panel.terms == ("Intercept", "value", "mean(value)", "mean(value)_", "mean(mean(value))")
    assert panel.mundlak is not None and panel.mundlak.df == 2
