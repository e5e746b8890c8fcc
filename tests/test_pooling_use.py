"""Pooling in use: posteriors, data frames of any library, predictions of new groups, and what a user may get wrong."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

import multilevel as ml
from multilevel.pooling_own import density_of, own_coefficients

KINDS = ("complete", "no", "partial")


@pytest.fixture(scope="module")
def math():
    return ml.load("math10")


@pytest.fixture(scope="module")
def schools(math):
    return ml.pooling("math ~ homework", "schid", math)


@pytest.fixture(scope="module")
def drawn(math):
    return ml.pooling("math ~ homework", "schid", math, method="sample", seed=1, draws=500, progress=False)


# -- no pooling by itself -------------------------------------------------------------------------------------------------


def test_own_coefficients_agree_with_dense_least_squares():
    rng = np.random.default_rng(5)
    J, n = 8, 60
    codes = np.sort(rng.integers(0, J, n)).astype(np.int32)
    x = rng.normal(1000, 1, n)  # far from zero: columns are centred inside
    u = rng.normal(size=J)[codes]
    Z, X = np.column_stack([np.ones(n), x]), np.column_stack([rng.normal(size=n), u, rng.normal(size=n)])
    y = rng.normal(size=n)

    def density(eta):
        return -0.5 * (y - eta) ** 2, y - eta, np.ones(n)

    own = own_coefficients(Z, X, codes, J, density, np.zeros(n))
    dummies = (codes[:, None] == np.arange(J)).astype(float)
    dense = np.column_stack([dummies, dummies * (x - 1000)[:, None], X[:, [0, 2]]])
    beta, _, rank, _ = np.linalg.lstsq(dense, y, rcond=None)
    cov = np.linalg.inv(dense.T @ dense)
    assert own.rank == rank == 2 * J + 2
    np.testing.assert_allclose(own.values[:, 1], beta[J : 2 * J], rtol=1e-6)
    np.testing.assert_allclose(own.common[[0, 2]], beta[-2:], rtol=1e-8)
    estimate, variance, state = own.at(codes, Z, X)
    np.testing.assert_allclose(estimate, dense @ beta, rtol=1e-8)
    assert own.common[1] == 0 and own.common_turn[1] == 0  # the groups' intercepts take it in
    slope = own.at(np.arange(J), np.tile([0.0, 1.0], (J, 1)), np.zeros((J, 3)))
    np.testing.assert_allclose(slope[1], np.diag(cov)[J : 2 * J], rtol=1e-6)
    some = own.at(codes, Z, np.column_stack([X[:, 0], np.zeros(n), X[:, 2]]))[1]
    np.testing.assert_allclose(some, np.einsum("ij,jk,ik->i", dense, cov, dense), rtol=1e-6)
    assert (state == 0).all()


def test_poisson_with_offset_against_statsmodels(math):
    sm = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(5), 20)
    x, hours = rng.normal(size=100), rng.uniform(1, 5, 100)
    y = rng.poisson(hours * np.exp(0.3 * x + 0.2 * g - 0.5))
    found = ml.pooling("y ~ x", "g", {"y": y, "x": x, "g": g, "h": np.log(hours)}, family="poisson", offset="h")
    loglik = 0.0
    for j in range(5):
        rows = g == j
        fit = sm.GLM(y[rows], sm.add_constant(x[rows]), sm.families.Poisson(), offset=np.log(hours[rows])).fit(
            tol=1e-12
        )
        np.testing.assert_allclose(found.estimates["no"].estimate[j], fit.params, rtol=1e-6)
        np.testing.assert_allclose(found.estimates["no"].std_error[j], fit.bse, rtol=1e-5)
        loglik += fit.llf
    assert found.models["no"].loglik == pytest.approx(loglik, rel=1e-9)
    assert found.models["no"].npar == 10


def test_separation_in_a_group_is_told():
    rng = np.random.default_rng(0)
    g, x = np.repeat(np.arange(6), 30), rng.normal(size=180)
    y = (rng.uniform(size=180) < 1 / (1 + np.exp(-x))).astype(int)
    y[g == 2] = (x[g == 2] > 0).astype(int)  # x separates
    y[g == 4] = 1  # all alike
    found = ml.pooling("y ~ x", "g", {"y": y, "x": x, "g": g}, family="binomial")
    assert found.estimates["no"].state[[2, 4]].tolist() == [[2, 2], [2, 2]]
    keep = [0, 1, 3, 5]
    assert np.isfinite(found.estimates["no"].estimate[keep]).all()
    assert np.isfinite(found.estimates["partial"].estimate).all()
    assert sum("2 of 6 groups ('2', '4') whose own estimate runs off to infinity" in note for note in found.notes) == 2
    assert np.isfinite(found.models["no"].loglik)


def test_density_is_that_of_the_library():
    cbpp = ml.load("cbpp")
    fit = ml.Model("cbind(incidence, size - incidence) ~ period", cbpp, family="binomial").fit()
    zero = np.zeros(len(cbpp))
    assert density_of(fit.design, fit.family, zero, zero)(fit._eta[0])[0].sum() == pytest.approx(fit.loglik, rel=1e-10)


def test_families_with_a_dispersion():
    ticks = ml.load("grouseticks")
    found = ml.pooling("TICKS ~ 1", "LOCATION", ticks, family="nbinom2")
    assert any("takes the dispersion" in note for note in found.notes)
    own = found.models["no"]
    assert own.npar == 63 + 1
    means = ticks.groupby("LOCATION")["TICKS"].mean().to_numpy()
    known = np.isfinite(found.estimates["no"].estimate[:, 0])
    np.testing.assert_allclose(np.exp(found.estimates["no"].estimate[known, 0]), means[known], rtol=1e-6)


# -- posteriors -----------------------------------------------------------------------------------------------------------


def test_posterior_coefficients_are_those_of_coef(drawn, schools):
    coef = drawn.partial.coef()
    for k, term in enumerate(("Intercept", "homework")):
        rows = np.asarray(coef["term"]) == term
        np.testing.assert_allclose(
            drawn.estimates["partial"].estimate[:, k], np.asarray(coef["estimate"])[rows], rtol=1e-10
        )
        np.testing.assert_allclose(drawn.estimates["partial"].low[:, k], np.asarray(coef["ci_low"])[rows], rtol=1e-6)
    np.testing.assert_allclose(drawn.estimates["no"].estimate, schools.estimates["no"].estimate, rtol=1e-9)
    assert np.isnan(drawn.criteria["aic"][2]) and np.isfinite(drawn.criteria["aic"][:2]).all()
    assert np.isfinite(drawn.population["partial_conf_low"]).all()


def test_posterior_shrinkage_is_the_mean_over_draws(math):
    found = ml.pooling("math ~ 1", "schid", math, method="sample", seed=2, chains=2, draws=150, progress=False)
    one = found.partial
    tau2, sigma = one.covariances(0).reshape(-1), one.draws_kept.scalar("sigma").reshape(-1)
    n = found.columns.sizes
    by_hand = (sigma[:, None] ** 2 / (sigma[:, None] ** 2 + n * tau2[:, None])).mean(axis=0)
    np.testing.assert_allclose(found.shrinkage[:, 0], by_hand, rtol=1e-10)


def test_posterior_shrinkage_of_slopes_is_the_mean_over_draws(math):
    found = ml.pooling("math ~ homework", "schid", math, method="sample", seed=2, chains=2, draws=150, progress=False)
    one = found.partial
    covs, sigma = np.reshape(one.covariances(0), (-1, 2, 2)), one.draws_kept.scalar("sigma").ravel()
    for level, shrinkage in zip(found.columns.levels, found.shrinkage, strict=True):
        x = math.loc[math["schid"] == int(level), "homework"].to_numpy(float)
        z = np.column_stack([np.ones(len(x)), x])
        left = [np.linalg.inv(np.linalg.inv(T) + z.T @ z / s**2) for T, s in zip(covs, sigma, strict=True)]
        by_hand = np.mean([np.diag(V) / np.diag(T) for V, T in zip(left, covs, strict=True)], axis=0)
        np.testing.assert_allclose(shrinkage, by_hand, rtol=1e-8)


def test_posterior_of_counts(math):
    cbpp = ml.load("cbpp")
    found = ml.pooling(
        "cbind(incidence, size - incidence) ~ period", "herd", cbpp, family="binomial", vary="1", method="sample",
        priors={"sd": ml.HalfNormal(2)}, seed=1, chains=2, draws=200, progress=False,
    )  # fmt: skip
    one = found.partial
    eta = np.asarray(one.predict(kind="link")["prediction"])
    information = np.asarray(cbpp["size"]) * expit(eta) * expit(-eta)
    tau2 = np.reshape(one.covariances(0), -1)
    for level, shrinkage in zip(found.columns.levels, found.shrinkage[:, 0], strict=True):
        own = information[np.asarray(cbpp["herd"].astype(str)) == str(level)].sum()
        assert shrinkage == pytest.approx(np.mean(1 / (1 + tau2 * own)), rel=1e-6)
    table = found.predict(interval="confidence", seed=1)
    assert (table["partial_conf_low"] < table["partial"]).all() and (
        table["partial"] < table["partial_conf_high"]
    ).all()
    assert ((table["partial"] > 0) & (table["partial"] < 1)).all()


# -- frames and predictions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_are_those_of_the_data(library, schools):
    found = ml.pooling("math ~ homework", "schid", ml.load("math10", as_=library))
    for table in (
        found.frame,
        found.to_frame(long=True),
        found.criteria,
        found.population,
        found.predict(),
        found.models["no"].coef(),
    ):
        assert type(table).__module__.startswith(library)
    np.testing.assert_allclose(np.asarray(found.frame["partial"]), schools.frame["partial"], rtol=1e-9)


def test_long_frame_says_the_same(schools):
    wide, long = schools.frame, schools.to_frame(long=True)
    assert len(wide) == 20 and len(long) == 60
    for kind in KINDS:
        part = long[long["pooling"] == kind]
        np.testing.assert_array_equal(part["estimate"], wide[kind])
        np.testing.assert_array_equal(part["conf_high"], wide[f"{kind}_conf_high"])
        assert part["shrinkage"].notna().all() == (kind == "partial")
    assert wide["n"].sum() == 2 * 260


def test_predictions_of_rows_and_new_groups(schools, math):
    fitted = schools.predict()
    np.testing.assert_allclose(fitted["partial"], schools.partial.fitted(), rtol=1e-10)
    np.testing.assert_allclose(fitted["complete"], schools.models["complete"].fitted(), rtol=1e-10)
    new = pd.DataFrame({"homework": [1.0, 1.0], "schid": [7472, 99999]}, index=[5, 9])
    table = schools.predict(new, interval="prediction")
    assert list(table.index) == [5, 9]
    assert np.isnan(table["no"][9]) and np.isfinite(table["no"][5])
    assert table["complete"][9] == table["complete"][5]
    typical = schools.partial.fixef()["estimate"].sum()
    assert table["partial"][9] == pytest.approx(typical, rel=1e-10)
    width = table["partial_conf_high"] - table["partial_conf_low"]
    assert width[9] > 1.2 * width[5]
    one = schools.predict(new, "partial", interval="prediction")
    np.testing.assert_array_equal(one["conf_low"], table["partial_conf_low"])


def test_missing_values_drop_the_same_rows_from_all(math):
    data = math.astype({"schid": "Int64"}).copy()
    data.loc[3, "schid"] = pd.NA
    data.loc[10, "homework"] = np.nan
    found = ml.pooling("math ~ homework", "schid", data)
    assert {found.models[kind].nobs for kind in KINDS} == {258}
    table = found.predict()
    assert np.isnan(table["no"][3]) and len(table) == 260


def test_a_model_or_a_fit_will_do(schools, math):
    model = ml.Model("math ~ homework + (homework | schid)", math)
    for source in (model, model.fit(), "math ~ homework + (homework | schid)"):
        found = ml.pooling(source, data=math) if isinstance(source, str) else ml.pooling(source)
        np.testing.assert_allclose(found.shrinkage, schools.shrinkage, rtol=1e-8)
    apart = ml.pooling(ml.Model("math ~ homework + (homework || schid)", math))
    assert apart.columns.names == ("Intercept", "homework")
    assert apart.shrinkage[0, 0] != pytest.approx(schools.shrinkage[0, 0], rel=1e-3)


def test_factors_that_vary_and_combined_groups():
    sleep = ml.load("sleepstudy").assign(late=lambda d: np.where(d["Days"] > 4, "late", "early"))
    found = ml.pooling("Reaction ~ late", "Subject", sleep)
    means = sleep.groupby(["Subject", "late"])["Reaction"].mean().unstack()
    np.testing.assert_allclose(found.estimates["no"].estimate[:, 0], means["early"], rtol=1e-9)
    np.testing.assert_allclose(found.estimates["no"].estimate[:, 1], means["late"] - means["early"], rtol=1e-8)
    pastes = ml.load("pastes")
    both = ml.pooling("strength ~ 1", "batch:cask", pastes)
    assert len(both.columns.levels) == 30


# -- words and errors -----------------------------------------------------------------------------------------------------


def test_summary_says_what_matters(schools):
    text = str(schools)
    assert "math ~ homework + (homework | schid)" in text and "260 rows, 10 groups of schid: 20 to 67 rows each" in text
    assert "Partial pooling stands close to no pooling" in text
    assert "ml.cross_validate(found.partial" in text
    assert repr(schools) == text and "<pre>" in schools._repr_html_()


def test_too_few_rows_for_slopes():
    data = pd.DataFrame({"g": np.repeat(np.arange(8), 2), "x": np.tile([0.0, 1.0], 8)})
    data["y"] = np.random.default_rng(4).normal(size=16) + data["g"]
    found = ml.pooling("y ~ x", "g", data)
    assert found.columns.names == ("Intercept",)
    assert any("16 rows for 8 groups with 2 coefficients each are too few" in note for note in found.notes)
    few = ml.pooling("y ~ x", "g", data.assign(g=lambda d: d["g"] % 2))
    assert any("2 groups for 2 coefficients are too few" in note for note in few.notes)
    wanted = ml.pooling("y ~ x", "g", data.assign(g=lambda d: d["g"] % 2), vary="x")
    assert wanted.columns.names == ("Intercept", "x")


def test_as_many_coefficients_as_rows():
    data = pd.DataFrame({"g": np.repeat(np.arange(8), 2), "x": np.tile([0.0, 1.0], 8)})
    data["y"] = np.random.default_rng(4).normal(size=16)
    found = ml.pooling(ml.Model("y ~ x + (0 + x | g)", data))
    assert found.columns.names == ("x",)
    model = ml.Model("y ~ x + (1 | g) + (0 + x | g)", pd.concat([data] * 1))
    whole = ml.pooling(model)
    assert np.isnan(whole.models["no"].sigma) and np.isnan(whole.criteria["aic"][1])
    assert any("as many coefficients as rows" in note for note in whole.notes)
    assert "AIC" not in whole.verdict


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (("math ~ homework",), {}, "data is missing"),
        (("math ~ homework", None), {"data": "here"}, "group must be the name of a column"),
        (("math ~ homework", "school"), {"data": "here"}, "there is no column 'school'"),
        (("math ~ homework + (1 | schid)", "schid"), {"data": "here"}, "has a random term already"),
        (("math ~ homework", "schid"), {"data": "here", "vary": "sex"}, "is no term of the formula"),
        (
            ("math ~ homework + meanses", "schid"),
            {"data": "here", "vary": "meanses"},
            "same in all rows of every level",
        ),
        (("math ~ homework", "schid"), {"data": "here", "method": "bayes"}, "allowed are 'fit' and 'sample'"),
        (("math ~ homework", "schid"), {"data": "here", "level": 95}, "level"),
        (("math ~ homework", "schid"), {"data": "here", "correlation": "ar1(1 | schid)"}, "does not take correlation"),
        (("math ~ homework", "schid"), {"data": "here", "famly": "poisson"}, "did you mean 'family'"),
        (("math ~ homework", "stuid:schid"), {"data": "here"}, "a level for each of the 260 rows"),
        (("math ~ homework", "math"), {"data": "here"}, "response and the group are the same column"),
        (("math ~ homework", "schid"), {"data": "here", "vary": 3}, "vary must be the name of a term"),
        ((3,), {}, "takes a formula, a Model or a fit"),
    ],
)
def test_refusals(arguments, options, words, math):
    if "data" in options:
        options = {**options, "data": math}
    with pytest.raises(ml.MultilevelError, match=words):
        ml.pooling(*arguments, **options)


def test_refusals_of_models(math):
    with pytest.raises(ml.OptionError, match="one grouping factor"):
        ml.pooling(ml.Model("math ~ homework + (1 | schid) + (1 | region)", math))
    with pytest.raises(ml.OptionError, match="no grouping factor"):
        ml.pooling(ml.Model("math ~ homework", math))
    with pytest.raises(ml.OptionError, match="ordinal"):
        ml.pooling("rating ~ temp", "judge", ml.load("wine"), family="ordinal")
    with pytest.raises(ml.DataError, match="'one' has a single one, '1'"):
        ml.pooling("math ~ homework", "one", math.assign(one=1))
    with pytest.raises(ml.OptionError, match="goes with a formula"):
        ml.pooling(ml.Model("math ~ homework + (1 | schid)", math), vary="1")


def test_refusals_of_predictions(schools):
    with pytest.raises(ml.OptionError, match="'complete', 'no', 'partial'"):
        schools.predict(pooling="none")
    with pytest.raises(ml.OptionError, match="not known"):
        schools.predict(interval="credible")
    counts = ml.pooling("TICKS ~ 1", "LOCATION", ml.load("grouseticks"), family="poisson")
    with pytest.raises(ml.OptionError, match="use interval='confidence'"):
        counts.predict(interval="prediction")


def test_quasi_separation_loses_only_the_coefficients_it_moves():
    verb = ml.load("verbagg")
    found = ml.pooling("r2 ~ btype", "id", verb, family="binomial")
    yes = (verb["r2"].astype(str) == "Y").groupby([verb["id"], verb["btype"]], observed=True)
    said = yes.mean().unstack()
    inside = ((said > 0) & (said < 1)).reindex(found.columns.levels)
    state = found.estimates["no"].state == 0
    first = found.models["complete"].design.remake.infos["btype"].levels
    np.testing.assert_array_equal(state[:, 0], inside[first[0]])
    for k, level in enumerate(first[1:], start=1):
        np.testing.assert_array_equal(state[:, k], inside[first[0]] & inside[level])
    finite = said.reindex(found.columns.levels).where(inside)
    logit = np.log(finite / (1 - finite))
    own, known = found.estimates["no"].estimate, state[:, 0]
    np.testing.assert_allclose(own[known, 0], logit[first[0]][known], rtol=1e-6, atol=1e-9)
    slope = (logit[first[1]] - logit[first[0]])[state[:, 1]]
    np.testing.assert_allclose(own[state[:, 1], 1], slope, rtol=1e-6, atol=1e-9)
