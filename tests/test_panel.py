"""The within estimate by pyfixest, and Hausman's test, with the numbers of plm."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest
from panel_samples import CASES, ONE_WAY, found, golden, rows

import multilevel as ml
from multilevel.errors import DataError, OptionError

pytest.importorskip("pyfixest")
INV = "inv ~ value + capital"


@pytest.mark.parametrize("case", CASES)
def test_within_is_plm_one_way_and_two_way(case: str) -> None:
    panel, want = found(case), golden()[case]["within"]
    one = panel.estimates["within"]
    np.testing.assert_allclose(one.coef, want["coef"], rtol=1e-7)
    np.testing.assert_allclose(np.sqrt(np.diag(one.plain)), want["se"], rtol=1e-7)
    assert one.names == tuple(name for name in panel.terms if name in one.names)


@pytest.mark.parametrize("case", ["grunfeld", "produc"])
def test_clustered_errors_of_within_are_stata_and_plm(case: str) -> None:
    one, want = found(case).estimates["within"], golden()[case]["within"]
    n, k = golden()[case]["n"], len(one.coef)
    theirs = np.array(want["cluster"])  # plm counts slopes only; Stata and pyfixest the intercept too
    np.testing.assert_allclose(np.sqrt(np.diag(one.vcov)), theirs * np.sqrt((n - k) / (n - k - 1)), rtol=1e-6)


@pytest.mark.parametrize("case", ONE_WAY)
def test_the_classic_test_is_phtest(case: str) -> None:
    want, hausman = golden()[case], found(case).hausman
    row = hausman[hausman["test"] == "classic, Swamy-Arora"].iloc[0]
    np.testing.assert_allclose(row["statistic"], want["hausman"]["statistic"], rtol=1e-5)
    assert row["df"] == want["hausman"]["df"]
    if np.isnan(row["p_value"]):
        assert "not positive definite" in row["note"] and f"{want['phtest']['p']:.3g}" in row["note"]
    else:
        np.testing.assert_allclose(row["p_value"], want["phtest"]["p"], rtol=1e-4)


def test_an_indefinite_difference_is_told_where_it_is() -> None:
    """The smallest eigenvalue of R's difference decides; scaling keeps its sign."""
    for case in ONE_WAY:
        if case == "produc_region":
            continue  # other coefficients are compared in plm's own test
        tests = {t.name: t for t in found(case).tests}
        assert np.isnan(tests["classic, Swamy-Arora"].p_value) == (golden()[case]["hausman"]["eigen"] < 0), case


@pytest.mark.parametrize("case", ["grunfeld_time", "produc_time", "produc_gaps_time"])
def test_the_classic_test_with_periods_is_that_of_plm_and_lme4(case: str) -> None:
    tests = {t.name: t for t in found(case).tests}
    np.testing.assert_allclose(tests["classic, REML"].statistic, golden()[case]["hausman"]["statistic"], rtol=1e-3)


def test_within_is_regression_on_dummies_with_single_rows_left_out() -> None:
    data = rows("produc_gaps")
    panel = found("produc_gaps", vcov="hetero")
    one = panel.estimates["within"]
    assert one.n == len(data) - 2 and panel.estimates["pooled"].n == len(data)
    kept = data[data.groupby("state")["year"].transform("size") > 1]
    y = np.log(kept["gsp"]).to_numpy()
    slopes = np.column_stack([np.log(kept["pcap"]), np.log(kept["pc"]), np.log(kept["emp"]), kept["unemp"]])
    X = np.column_stack([slopes, pd.get_dummies(kept["state"]).to_numpy(dtype=float)])
    bread = np.linalg.inv(X.T @ X)
    coef = bread @ X.T @ y
    e = y - X @ coef
    V = len(y) / (len(y) - X.shape[1]) * bread @ (X.T * e**2) @ X @ bread
    np.testing.assert_allclose(one.coef, coef[:4], rtol=1e-8)
    np.testing.assert_allclose(np.diag(one.vcov), np.diag(V)[:4], rtol=1e-6)


def test_time_constant_and_collinear_predictors_are_left_out_with_a_sentence() -> None:
    panel = found("produc_region")
    assert panel.estimates["within"].names == ("log(pcap)", "log(pc)", "log(emp)", "unemp")
    assert any(
        "factor(region) does not change within any state, so that there is no within estimate" in text
        for text in panel.messages
    )
    data = rows("grunfeld")
    data["age"] = data["year"] - 1900 - data["firm"] * 2
    both = ml.panel(INV + " + age", "firm", data, time="year")
    assert both.estimates["within"].names == ("value", "capital")
    assert any(text.startswith("age: determined by effects of firm and year") for text in both.messages)
    np.testing.assert_allclose(both.coef("within"), found("grunfeld_time").coef("within"), rtol=1e-9)
    alone = ml.panel(INV + " + age", "firm", data)
    assert "age" in alone.estimates["within"].names


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of pandas, in pyfixest
def test_within_alone_and_polars() -> None:
    panel = ml.panel(INV, "firm", pl.from_pandas(rows("grunfeld")), time="year", vcov="group+time", estimators="within")
    frame = panel.frame()
    assert isinstance(frame, pl.DataFrame) and frame["estimator"].to_list() == ["within", "within"]
    import pyfixest

    data = rows("grunfeld")
    theirs = pyfixest.feols("inv ~ value + capital | firm + year", data, vcov={"CRV1": "firm+year"})
    np.testing.assert_allclose(frame["std_error"], theirs.se(), rtol=1e-8)
    np.testing.assert_allclose(frame["p_value"], theirs.pvalue(), rtol=1e-6)
    assert list(panel.models["within"].coef().index) == ["value", "capital"]
    assert "Nothing was tested" in panel.verdict


def test_names_that_are_no_words_reach_pyfixest() -> None:
    data = rows("produc").rename(columns={"unemp": "class", "state": "the state"})
    data["x_log_pc"] = np.sin(np.arange(len(data)))
    panel = ml.panel("log(gsp) ~ log(pc) + `class` + x_log_pc", "the state", data)
    assert panel.estimates["within"].names == ("log(pc)", "class", "x_log_pc")
    X = np.column_stack(
        [np.log(data["pc"]), data["class"], data["x_log_pc"], pd.get_dummies(data["the state"])]
    ).astype(float)
    np.testing.assert_allclose(
        panel.coef("within"), np.linalg.lstsq(X, np.log(data["gsp"]), rcond=None)[0][:3], rtol=1e-7
    )


def test_no_variation_within_is_refused() -> None:
    with pytest.raises(OptionError, match="no predictor changes within levels of 'state'"):
        ml.panel("log(gsp) ~ factor(region)", "state", rows("produc"))


def test_partial_pooling_goes_to_within_as_the_variance_between_grows() -> None:
    data = rows("grunfeld")
    moved = data.assign(inv=data["inv"] + 1e5 * np.sin(data["firm"]))
    near, far = found("grunfeld"), ml.panel(INV, "firm", moved)
    gap = [np.abs(p.coef("random")[1:] - p.coef("within")).max() for p in (near, far)]
    assert gap[1] < 1e-2 * gap[0]
    np.testing.assert_allclose(far.coef("within"), near.coef("within"), rtol=1e-7)


def test_the_whole_prints() -> None:
    text = str(found("produc"))
    assert "classic, Swamy-Arora" in text and "not positive definite" in text
    assert "random-effects estimates disagree by more than chance (regression, robust test, p = 0.007)" in " ".join(
        text.split()
    )
    assert "Not all tests agree (classic, REML: p = 0.0589, regression: p = 0.0608)" in " ".join(text.split())


@pytest.mark.parametrize("scale", [1e-9, 1e9])
@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_units_do_not_matter(scale: float, shift: float) -> None:
    """pyfixest alone drops the one and does not converge for the other."""
    data, want = rows("produc_gaps"), found("produc_gaps_time")
    moved = data.assign(unemp=data["unemp"] * scale + shift * scale, gsp=data["gsp"] * scale)
    one = ml.panel(CASES["produc"][0], "state", moved, time="year").estimates["within"]
    np.testing.assert_allclose(one.coef * [1, 1, 1, scale], want.coef("within"), rtol=1e-6)
    np.testing.assert_allclose(one.vcov[3, 3] * scale**2, want.estimates["within"].vcov[3, 3], rtol=1e-5)


def test_what_pyfixest_refuses_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import pyfixest

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("no luck")

    monkeypatch.setattr(pyfixest, "feols", fails)
    with pytest.raises(DataError, match="could not fit the within regression: no luck"):
        ml.panel(INV, "firm", rows("grunfeld"))
