"""Refits, influence of rows, shares and checks of generalised models: impossible input and the numbers' meaning."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from generalised_models import CBPP, fitted, wine
from scipy.special import polygamma

import multilevel as ml
from multilevel import DataError, OptionError
from multilevel import generalised_influence as influence
from multilevel.generalised_expected import expected_model, expected_weights, mean_slope
from multilevel.influence import leverages

pytestmark = pytest.mark.filterwarnings("ignore::multilevel.errors.MultilevelWarning")

N, GROUPS = 240, 20


def made() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    g, x = np.repeat(np.arange(GROUPS), N // GROUPS), rng.normal(size=N)
    eta = 0.3 + 0.5 * x + rng.normal(size=GROUPS)[g] * 0.5
    out = {"g": g.astype(str), "x": x, "bin": rng.random(N) < 1 / (1 + np.exp(-eta)), "cnt": rng.poisson(np.exp(eta))}
    out |= {"nb": rng.poisson(rng.gamma(2, np.exp(eta) / 2)), "pos": rng.gamma(2.5, np.exp(eta) / 2.5)}
    out |= {"ig": rng.wald(np.exp(eta), 4.0), "zc": np.where(rng.random(N) < 0.3, 0, rng.poisson(np.exp(eta + 0.8)))}
    return pd.DataFrame(out).assign(bin=lambda d: d["bin"].astype(int))


DATA = made()


def fit(response: str, family: str, data: Any = None, **options: Any) -> Any:
    return ml.Model(f"{response} ~ x + (1 | g)", DATA if data is None else data, family=family, **options).fit(threads=1)


# -- refit ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "family", "bad", "message"),
    [
        ("bin", "binomial", 2.0, r"is 2 in row 7 .*it must be 0 or 1"),
        ("bin", "binomial", 0.5, r"is 0.5 in row 7 .*it must be 0 or 1"),
        ("cnt", "poisson", 1.5, r"is 1.5 in row 7 .*whole number"),
        ("cnt", "poisson", -1.0, r"is -1 in row 7 .*whole number"),
        ("pos", "gamma", 0.0, r"is 0 in row 7 .*greater than zero"),
        ("pos", "gamma", np.inf, r"is inf in row 7"),
        ("pos", "gamma", np.nan, r"missing in row 7"),
    ],
)
def test_refit_refuses_what_the_family_cannot_have(response: str, family: str, bad: float, message: str) -> None:
    values = DATA[response].to_numpy(dtype=float).copy()
    values[7] = bad
    with pytest.raises(DataError, match=message):
        fit(response, family).refit(values)


def test_refit_refuses_other_shapes_and_types() -> None:
    one = fit("cnt", "poisson")
    with pytest.raises(DataError, match="looks like text"):
        one.refit(["a"] * N)
    with pytest.raises(DataError, match="family 'poisson' takes numbers"):
        one.refit(pd.Series(["a", "b"] * (N // 2), dtype="category"))
    with pytest.raises(DataError, match=f"{N} rows of the data; it has 3"):
        one.refit([1, 2, 3])
    with pytest.raises(DataError, match="one column"):
        one.refit(one.simulate(2, seed=1))
    with pytest.raises(DataError, match="a single value"):
        one.refit(1.0)
    with pytest.raises(DataError, match="nothing to explain"):
        one.refit(np.ones(N))


def test_refit_takes_categories_by_name_and_by_number() -> None:
    data = wine()
    bitter: Any = fitted("ordinal")
    loglik = pytest.approx(bitter.loglik, abs=1e-7)
    numbers = data["rating"].astype(int).to_numpy()
    for y in (data["rating"], numbers, numbers - 1, numbers.astype(float), list(numbers.astype(str))):
        assert bitter.refit(y, threads=1).loglik == loglik
    with pytest.raises(DataError, match=r"is 6 in row 3 .*'1', '2', '3', '4', '5', or their numbers from 0 to 4"):
        bitter.refit(np.where(np.arange(len(numbers)) == 3, 6, numbers))
    with pytest.raises(DataError, match="'5' in no row"):
        bitter.refit(np.minimum(numbers, 4) - 1)
    two: Any = fitted("two values")
    names = ml.load("verbagg")["r2"]
    assert two.refit(names, threads=1).loglik == pytest.approx(two.loglik, abs=1e-6)


def test_refit_takes_successes_and_of_proportions_proportions() -> None:
    cbpp = ml.load("cbpp")
    herds: Any = fitted("binomial")
    assert herds.refit(cbpp["incidence"], threads=1).loglik == pytest.approx(herds.loglik, abs=1e-7)
    with pytest.raises(DataError, match=r"is 99 in row 0 .*at most the number of trials"):
        herds.refit(np.where(np.arange(len(cbpp)) == 0, 99, cbpp["incidence"]))
    share = cbpp.assign(share=cbpp["incidence"] / cbpp["size"])
    by_share: Any = ml.Model("share ~ period + (1 | herd)", share, family="binomial", weights="size").fit(threads=1)
    for y in (share["share"], cbpp["incidence"]):
        assert by_share.refit(y, threads=1).loglik == pytest.approx(herds.loglik, abs=1e-6)
    with pytest.raises(DataError, match="whole number of successes"):
        by_share.refit(np.full(len(cbpp), 0.123))


@pytest.mark.parametrize("name", ["binomial", "two values", "zero-inflated", "ordinal", "gamma"])
def test_refit_takes_what_simulate_draws(name: str) -> None:
    one: Any = fitted(name)
    seed = next(s for s in range(50) if name != "ordinal" or one.simulate(1, seed=s)["sim_1"].nunique() == 5)
    assert np.isfinite(one.refit(one.simulate(1, seed=seed)["sim_1"], threads=1).loglik)


def test_refit_with_missing_rows_and_polars() -> None:
    polars = pytest.importorskip("polars")
    data = DATA.assign(x=DATA["x"].where(DATA.index != 5))
    one = fit("cnt", "poisson", polars.from_pandas(data))
    y = DATA["cnt"].astype(float).to_numpy().copy()
    y[5] = np.nan
    assert one.refit(polars.Series(y), threads=1).loglik == pytest.approx(one.loglik, abs=1e-8)


# -- influence of rows ------------------------------------------------------------------------------------------


def dense_leverage(one: Any) -> np.ndarray:
    """(n,) lme4's algebra with the working weights, in the user's coordinates."""
    d = one.design
    w = expected_weights(one)
    z = np.zeros((len(d.y), len(d.terms[0].levels)))
    z[np.arange(len(d.y)), d.terms[0].codes] = np.sqrt(one.random_cov()[0][0, 0])
    a = np.sqrt(w)[:, None] * np.hstack([z, d.X])
    penalty = np.diag(np.r_[np.ones(z.shape[1]), np.zeros(d.X.shape[1])])
    return np.asarray(np.einsum("ij,ji->i", a, np.linalg.solve(a.T @ a + penalty, a.T)))


@pytest.mark.parametrize(
    ("response", "family", "options"),
    [
        ("pos", "gamma", {}), ("ig", "inverse_gaussian", {}), ("nb", "nbinom2", {}),
        ("zc", "poisson", {"zi": "~ 1"}), ("zc", "poisson", {"hurdle": "~ 1"}), ("pos", "lognormal", {}),
    ],
)  # fmt: skip
def test_leverage_is_that_of_expected_weights(response: str, family: str, options: dict[str, str]) -> None:
    one = fit(response, family, **options)
    table = one.influence()
    h = table["leverage"].to_numpy()
    np.testing.assert_allclose(h, dense_leverage(one), rtol=1e-7)
    pearson = one.residuals("pearson")
    np.testing.assert_allclose(table["std_residual"], pearson / np.sqrt(1 - h), rtol=1e-10)
    np.testing.assert_allclose(table["cooks"], pearson**2 * h / (1 - h) ** 2 / 2, rtol=1e-10)


def test_gamma_weights_are_the_shape_with_a_log_link() -> None:
    one = fit("pos", "gamma")
    np.testing.assert_allclose(expected_weights(one), np.exp(one.optimum.residual[0]), rtol=1e-10)
    h = one.influence()["leverage"]
    assert h.max() < 0.2  # the curvature at the data had leverages of over a half


@pytest.mark.parametrize("options", [{"zi": "~ 1"}, {"hurdle": "~ 1"}])
def test_slope_of_the_mean_with_extra_zeros(options: dict[str, str]) -> None:
    one = fit("zc", "poisson", **options)
    eta, parameters, step = one._eta[1], one._parameters, 1e-5
    ends = [one._mean(eta + sign * step, *parameters) for sign in (1, -1)]
    np.testing.assert_allclose(mean_slope(one), (ends[0] - ends[1]) / (2 * step), rtol=1e-7)


@pytest.mark.parametrize(("response", "family"), [("bin", "binomial"), ("cnt", "poisson")])
def test_canonical_links_keep_their_own_weights(response: str, family: str) -> None:
    one = fit(response, family)
    rows = influence.working_rows(one)
    again, engine = expected_model(one, rows)
    assert again is rows and engine is one.engine
    np.testing.assert_array_equal(one.influence()["leverage"], leverages(one, rows))


def test_dfbetas_stay_near_refits() -> None:
    one = fit("pos", "gamma")
    table = one.influence()
    columns = ["dfbetas_Intercept", "dfbetas_x"]
    for i in np.argsort(-table["cooks_fixed"].to_numpy())[:4]:
        small = influence.part_of(one.design, np.arange(N) != i)
        truth = (one.optimum.beta - one.model.with_design(small).fit(threads=1).optimum.beta) / np.sqrt(
            np.diag(one.optimum.vcov)
        )
        np.testing.assert_allclose(table.loc[i, columns].to_numpy(dtype=float), truth, atol=0.05)


# -- profiles, shares, options -------------------------------------------------------------------------------------


def test_profiles_of_the_quick_start_say_whose_estimates_they_list() -> None:
    quick: Any = ml.Model(CBPP, ml.load("cbpp"), family="binomial").fit(threads=1, quadrature=0)
    with pytest.warns(ml.MultilevelWarning, match=r"quick start \(quadrature=0\), whose estimates differ") as seen:
        quick.confint(method="profile", which="period[T.2]")
    assert sum("quick start" in str(one.message) for one in seen) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted("binomial").confint(method="profile", which="period[T.2]")


def test_icc_of_a_gamma_response_has_the_variance_of_its_logarithm() -> None:
    one = fit("pos", "gamma")
    shape, v = float(np.exp(one.optimum.residual[0])), float(one.random_cov()[0][0, 0])
    residual = float(polygamma(1, shape))
    assert one.icc()["estimate"][0] == pytest.approx(v / (v + residual), rel=1e-12)
    drawn = np.log(np.random.default_rng(1).gamma(shape, size=400_000))
    assert drawn.var() == pytest.approx(residual, rel=0.02)


def test_shares_of_students_t_without_a_variance_advise_what_works() -> None:
    heavy: Any = ml.Model("Reaction ~ Days + (1 | Subject)", ml.load("sleepstudy"), family=ml.student(df=2)).fit(threads=1)
    with pytest.raises(OptionError, match=r"infinite on any scale.*student\(df=3\)") as caught:
        heavy.icc()
    assert "scale='response'" not in str(caught.value)


def test_degrees_of_freedom_are_refused_by_every_verb() -> None:
    one: Any = fitted("binomial")
    for call in (one.confint, one.anova, one.drop1):
        with pytest.raises(OptionError, match="ddf 'satterthwaite' is for Gaussian models"):
            call(ddf="satterthwaite")


def test_anova_of_two_fits_points_to_what_compares_them() -> None:
    one: Any = fitted("binomial")
    with pytest.raises(OptionError, match=r"\.aic.*\.loglik.*drop1"):
        one.anova(fitted("gamma"))


# -- separation by a grouping factor -----------------------------------------------------------------------------------


def test_check_finds_a_grouping_factor_that_tells_the_outcomes_apart() -> None:
    g = np.repeat(np.arange(20), 12)
    data = pd.DataFrame({"g": g, "y": g % 2, "x": np.random.default_rng(3).normal(size=len(g))})
    entry = fit("y", "binomial", data).check()["separation"]
    assert entry.verdict == "problem"
    assert "all 20 levels of g" in entry.sentence and "prior or penalty" in entry.sentence
    assert fit("bin", "binomial").check()["separation"].verdict == "ok"


def test_check_does_not_take_rare_outcomes_for_separation() -> None:
    y = np.zeros(N, dtype=int)
    y[[3, 50]] = 1
    rare: Any = ml.Model("y ~ 1 + (1 | g)", DATA.assign(y=y), family="binomial").fit(threads=1)
    entries = {one.name: one for one in rare.check()}
    assert "separation" not in entries or entries["separation"].verdict == "ok"
    assert fitted("binomial").check()["separation"].verdict == "ok"
