"""What fits with structured residuals do: residuals, predictions, refits, files, missing rows; and bad input."""

from __future__ import annotations

import copy
import pickle
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_residuals import ALL, correlations, quiet, rows, sds

import multilevel as ml
from multilevel import ColumnError, DataError, Fit, Model, OptionError

# -- what a fit does -----------------------------------------------------------------------------------------


@cache
def full() -> Fit:
    return Model("y ~ x + (1 | s) + (1 | item)", rows(), **ALL).fit()


def test_normalized_residuals_are_white() -> None:
    fit = full()
    R, sd = correlations(fit, rows()), sds(fit, rows())
    assert R is not None
    raw = fit.residuals("response")
    white = fit.residuals("normalized")
    root = np.linalg.cholesky(R)  # the same whitening, for a Markov process is its Cholesky factor
    np.testing.assert_allclose(white, np.linalg.solve(root, raw / sd) / fit.sigma, atol=1e-9)
    np.testing.assert_allclose(fit.residuals("pearson"), raw / sd / fit.sigma, atol=1e-12)
    later = rows()["t"].to_numpy()[1:] > 0
    assert abs(np.corrcoef(white[1:][later], white[:-1][later])[0, 1]) < 0.15


def test_simulated_residuals_have_the_structure() -> None:
    """Covariance of 4,000 simulated sets against R and the sds, within five standard errors of each entry."""
    d = rows().iloc[:40].reset_index(drop=True)
    fit = quiet(Model("y ~ x", d, correlation="car1(time | s)", variance="ident(sex) + exp(z)"))
    noise = fit.simulate(4000, seed=2).to_numpy() - (fit.design.X @ fit.optimum.beta)[:, None]
    sd = fit.sigma * sds(fit, d)
    cor = (noise / sd[:, None]) @ (noise / sd[:, None]).T / 4000
    R = correlations(fit, d)
    assert R is not None
    assert np.abs(cor - R).max() < 5 * np.sqrt(2 / 4000)
    assert np.abs((cor - R)[R == 0]).max() < 5 / np.sqrt(4000)


def test_a_refit_to_one_or_many_responses() -> None:
    fit = full()
    again = fit.refit(fit.design.y)
    np.testing.assert_allclose(again.criterion, fit.criterion, rtol=1e-10)
    made = fit.simulate(3, seed=3).to_numpy()
    many = fit.refit(made)
    one = fit.refit(made[:, 1])
    fresh = quiet(Model("y ~ x + (1 | s) + (1 | item)", rows().assign(y=made[:, 1]), **ALL))
    np.testing.assert_allclose(one.criterion, fresh.criterion, rtol=1e-9)
    np.testing.assert_allclose(many.criterion[1], fresh.criterion, rtol=1e-8)


@pytest.mark.parametrize("data", [False, True])
def test_saved_and_read(tmp_path: Path, data: bool) -> None:
    fit = full()
    fit.save(tmp_path / "fit.mlv", data=data)
    back = ml.read(tmp_path / "fit.mlv")
    assert str(back.residual_structure()) == str(fit.residual_structure())
    np.testing.assert_allclose(back.fixef()["df"], fit.fixef()["df"], rtol=1e-8)
    new = rows().head(7)
    np.testing.assert_allclose(
        back.predict(new, interval="prediction"), fit.predict(new, interval="prediction"), rtol=1e-12
    )
    if not data:
        with pytest.raises(DataError, match="saved without its data"):
            back.residuals("normalized")
        return
    assert str(back) == str(fit)
    np.testing.assert_allclose(back.residuals("normalized"), fit.residuals("normalized"), atol=1e-10)
    np.testing.assert_allclose(np.asarray(back.simulate(2, seed=1)), np.asarray(fit.simulate(2, seed=1)), atol=1e-8)
    np.testing.assert_allclose(back.refit(fit.design.y).criterion, fit.criterion, rtol=1e-10)


def test_a_car1_without_correlation_can_be_saved(tmp_path: Path) -> None:
    d = rows().assign(y=np.random.default_rng(6).normal(size=240))
    d["y"] = d["y"] - 0.6 * d["y"].shift(1, fill_value=0)
    fit = quiet(Model("y ~ x", d, correlation="car1(time | s)"))
    assert fit.optimum.residual[0] == 0
    fit.save(tmp_path / "fit.mlv", data=True)
    back = ml.read(tmp_path / "fit.mlv")
    assert str(back) == str(fit)
    np.testing.assert_allclose(back.refit(fit.design.y).criterion, fit.criterion, rtol=1e-10)


def test_the_summary_names_the_structure() -> None:
    text = full().summary()
    for piece in ("car1(time | s)", "ident(sex)", "power(z)", "rho(s)", "ratio(sex, b)"):
        assert piece in text, text


def test_copies_and_pickles() -> None:
    fit = full()
    for other in (copy.deepcopy(fit), pickle.loads(pickle.dumps(fit))):
        assert other.criterion == fit.criterion
        np.testing.assert_array_equal(other.optimum.residual, fit.optimum.residual)
        np.testing.assert_allclose(other.residuals("normalized"), fit.residuals("normalized"))


def test_a_prediction_interval_uses_the_variance_of_the_row() -> None:
    data = rows()
    fit = Model("y ~ x + (1 | s)", data, variance="ident(sex) + power(z)").fit()
    new = data.iloc[[0, 0, 100, 100]].reset_index(drop=True).assign(z=[1.0, 4.0, 1.0, 4.0], sex=["a", "b", "a", "b"])
    mean = fit.predict(new, interval="confidence")["std_error"].to_numpy()
    both = fit.predict(new, interval="prediction")["std_error"].to_numpy()
    np.testing.assert_allclose(both**2 - mean**2, (fit.sigma * sds(fit, new)) ** 2, rtol=1e-9)


def test_new_rows_need_the_columns_of_the_variance() -> None:
    fit = Model("y ~ x + (1 | s)", rows(), variance="ident(sex) + power(z)").fit()
    new = rows().head(3)
    with pytest.raises(ColumnError, match=r"sex.*ident\(sex\)"):
        fit.predict(new.drop(columns="sex"), interval="prediction")
    with pytest.raises(ColumnError, match=r"z.*power\(z\)"):
        fit.predict(new.drop(columns="z"), interval="prediction")
    with pytest.raises(DataError, match=r"ident\(sex\) has no variance for 'c' of 'sex'.*allowed are a, b"):
        fit.predict(new.assign(sex="c"), interval="prediction")
    with pytest.raises(DataError, match=r"power\(z\).*z.*0"):
        fit.predict(new.assign(z=[0.0, 1.0, 2.0]), interval="prediction")
    with pytest.raises(DataError, match="z"):
        fit.predict(new.assign(z=["p", "q", "r"]), interval="prediction")
    holes = fit.predict(new.assign(sex=["a", None, "a"], z=[1.0, 1.0, np.nan]), interval="prediction")
    assert np.isfinite(holes["conf_low"].iloc[0])
    assert np.isnan(holes["conf_low"].iloc[1])
    assert np.isnan(holes["conf_low"].iloc[2])
    plain = fit.predict(new.drop(columns=["sex", "z"]))
    assert np.isfinite(plain["prediction"]).all()


def test_predictions_with_a_power_of_the_fitted_values() -> None:
    fit = Model("weight ~ Time*Diet + (Time | Rat)", ml.load("bodyweight"), variance="power(fitted)").fit()
    new = ml.load("bodyweight").head(5)
    out = fit.predict(new, interval="prediction")
    mean = fit.predict(new, interval="confidence")["std_error"].to_numpy()
    sd = fit.sigma * out["prediction"].to_numpy() ** fit.optimum.residual[0]
    np.testing.assert_allclose(out["std_error"].to_numpy() ** 2 - mean**2, sd**2, rtol=1e-9)


def test_rows_that_miss_a_time_a_group_or_a_covariate_are_left_out_and_counted() -> None:
    data = rows().copy()
    data["time"] = data["time"].mask(np.arange(240) == 5)
    data["z"] = data["z"].mask(np.arange(240) == 17)
    data["sex"] = data["sex"].mask(np.arange(240) == 30)
    data["lab"] = data["s"].astype(float).mask(np.arange(240) == 99)
    options = {"correlation": "car1(time | lab)", "variance": "ident(sex) + power(z)"}
    with pytest.warns(ml.MissingRowsWarning, match="4 of 240 rows"):
        fit = Model("y ~ x + (1 | s)", data, **options).fit()
    assert fit.nobs == 236
    kept = data.dropna().reset_index(drop=True)
    other = Model("y ~ x + (1 | s)", kept, **options).fit()
    np.testing.assert_allclose(fit.criterion, other.criterion, rtol=1e-12)
    assert np.isnan(fit.residuals("normalized")[[5, 17, 30, 99]]).all()
    with pytest.raises(DataError, match="time"):
        Model("y ~ x + (1 | s)", data, missing="raise", **options)


# -- bad input -----------------------------------------------------------------------------------------------

BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"correlation": "corAR1(t | s)"}, OptionError, r"corAR1\(\) is not available; .*car1\(\); did you mean 'ar1'"),
    ({"correlation": "corCAR1(t | s)"}, OptionError, "did you mean 'car1'"),
    ({"correlation": "toeplitz(t | s)"}, OptionError, r"there are ar1\(\), car1\(\)"),
    ({"correlation": "ar1"}, OptionError, r"cannot be read; write it as 'ar1\(week \| subject\)'"),
    ({"correlation": "ar1(t)"}, OptionError, "needs a time and a group"),
    ({"correlation": "ar1(t |)"}, OptionError, "needs a time and a group"),
    ({"correlation": "ar1(t:x | s)"}, OptionError, "one column of times"),
    ({"correlation": "ar1(log(t) | s)"}, OptionError, "make other columns in the data first"),
    ({"correlation": 3}, OptionError, "cannot be read"),
    ({"correlation": ["ar1(t | s)"]}, OptionError, "cannot be read"),
    ({"correlation": "car1(1 | s)"}, OptionError, "car1.. needs a column of them.*ar1"),
    ({"correlation": "ar1(week | s)"}, ColumnError, r"'week'.*ar1\(week \| s\)"),
    ({"correlation": "ar1(t | who)"}, ColumnError, "'who'"),
    ({"correlation": "ar1(time | s)"}, DataError, r"counts whole steps of time.*car1\(time"),
    ({"correlation": "ar1(far | s)"}, DataError, "needs finite times, but 'far' holds inf"),
    ({"correlation": "ar1(sex | s)"}, DataError, "needs times, but 'sex' holds text"),
    ({"correlation": "car1(sex | s)"}, DataError, "needs times, but 'sex' holds text"),
    ({"correlation": "ar1(item | s)"}, DataError, r"two rows at item.*needs different times"),
    ({"correlation": "ar1(1 | row)"}, DataError, "no group of .* has two rows"),
    ({"variance": "varIdent(sex)"}, OptionError, "did you mean 'ident'"),
    ({"variance": "varPower(z)"}, OptionError, "did you mean 'power'"),
    ({"variance": "fixed(z)"}, OptionError, r"there are ident\(\), power\(\), exp\(\)"),
    ({"variance": "ident()"}, OptionError, "needs names of columns"),
    ({"variance": ""}, OptionError, "cannot be read"),
    ({"variance": 2.0}, OptionError, "variance must be text"),
    ({"variance": ["ident(sex)", 3]}, OptionError, "variance must be text"),
    ({"variance": "power(z:w)"}, OptionError, "takes one column"),
    ({"variance": "ident(one)"}, DataError, "needs two levels or more"),
    ({"variance": "power(sex)"}, DataError, r"power\(sex\)"),
    ({"variance": "power(t)"}, DataError, r"other than zero, but it is 0 in row 0.*exp\(t\)"),
    ({"variance": "power(c)"}, DataError, "needs c to vary"),
    ({"variance": "exp(c)"}, DataError, "needs c to vary"),
    ({"variance": "exp(far)"}, DataError, "finite"),
    ({"variance": "ident(sex)", "levels": {"sex": ["a"]}}, DataError, "sex"),
]


@pytest.mark.parametrize("case", BAD, ids=lambda c: str(c[0]))
def test_bad_input(case: tuple[dict[str, Any], type[Exception], str]) -> None:
    options, error, message = case
    data = rows().assign(one="k", c=2.5, row=np.arange(240), far=np.where(np.arange(240) == 4, np.inf, 1.0))
    with pytest.raises(error, match=message):
        Model("y ~ x + (1 | s)", data, **options)


def test_times_of_an_unordered_and_an_ordered_factor() -> None:
    text = rows().assign(t=rows()["t"].map(lambda v: f"week {v}"))
    with pytest.raises(DataError, match="order and distances are not known"):
        Model("y ~ x", text.assign(t=pd.Categorical(text["t"])), correlation="ar1(t | s)")
    ordered = text.assign(t=pd.Categorical(text["t"], [f"week {v}" for v in range(10)], ordered=True))
    fit = Model("y ~ x", ordered, correlation="ar1(t | s)").fit()
    assert fit.criterion == Model("y ~ x", rows(), correlation="ar1(t | s)").fit().criterion
    with pytest.raises(DataError, match="column of numbers"):
        Model("y ~ x", ordered, correlation="car1(t | s)")


@pytest.mark.parametrize("with_data", [True, False])
def test_a_step_of_ar1_is_the_greatest_common_divisor_of_the_lags(tmp_path: Path, with_data: bool) -> None:
    """At ages 8, 10, 12 every power of rho is even; over two years rho has a sign, and here a negative one."""
    rng = np.random.default_rng(3)
    visits = np.tile(np.arange(6), 40)
    e = rng.normal(size=(40, 6))
    for j in range(1, 6):
        e[:, j] = -0.5 * e[:, j - 1] + np.sqrt(0.75) * e[:, j]
    e += rng.normal(size=(40, 1))
    data = {"y": e.ravel(), "visit": visits, "age": 8 + 2 * visits, "g": np.repeat(np.arange(40), 6)}
    ages = Model("y ~ visit + (1 | g)", data, correlation="ar1(age | g)").fit(False)
    steps = Model("y ~ visit + (1 | g)", data, correlation="ar1(visit | g)").fit(False)
    assert ages.criterion == steps.criterion
    assert ages.residual_structure()["parameter"].tolist() == ["rho(g) over 2"]
    assert ages.residual_structure()["estimate"][0] == steps.residual_structure()["estimate"][0] < -0.3
    assert "rho(g) over 2 = -0." in ages.summary() and "correlation of rows 2 apart in age" in ages.summary()
    assert "apart" not in steps.summary()
    limits = ["conf_low", "conf_high"]
    profiles = ages.profile("rho(g) over 2").confint()[limits], steps.profile("rho(g)").confint()[limits]
    np.testing.assert_array_equal(*profiles)
    with pytest.raises(OptionError, match=r"did you mean 'rho\(g\) over 2'"):
        ages.profile("rho(g)")
    ages.save(tmp_path / "a.mlv", data=with_data)
    again = ml.read(tmp_path / "a.mlv")
    pd.testing.assert_frame_equal(again.residual_structure(), ages.residual_structure())
    assert again.model.residual is not None and again.model.residual.serial is not None
    assert again.model.residual.serial.over == 2.0
    if with_data:
        np.testing.assert_array_equal(again.residuals("normalized"), ages.residuals("normalized"))


def test_orthodont_is_nlmes_with_ages_halved() -> None:
    """nlme 3.1: lme(distance ~ age, ~ 1 | Subject, corAR1(form = ~ k | Subject)), k = age / 2; with ages it stays at 0."""
    fit = Model("distance ~ age + (1 | Subject)", ml.load("orthodont"), correlation="ar1(age | Subject)").fit()
    assert fit.loglik == pytest.approx(-223.4628, abs=5e-5)
    assert fit.residual_structure()["estimate"][0] == pytest.approx(0.04720709, abs=1e-5)


def test_a_power_of_fitted_values_that_do_not_vary() -> None:
    with pytest.raises(DataError, match=r"power\(fitted\) needs fitted values that vary"):
        Model("y ~ 1", rows(), variance="power(fitted)").fit()


@pytest.mark.parametrize(
    ("residual", "message"),
    [
        ([2.0, 0.0, 0.3], None),
        ([-1.0, 0.0, 0.3], "must be positive"),
        ([1.0, 0.0, 1.3], "between 0 and 1"),
        ([1.0], "3 param"),
    ],
)
def test_parameters_out_of_range(residual: list[float], message: str | None) -> None:
    model = Model("y ~ x + (1 | s)", rows(), **ALL)
    if message is None:
        assert np.isfinite(model.criterion([1.0], residual=residual))
        return
    with pytest.raises(OptionError, match=message):
        model.criterion([1.0], residual=residual)


def test_a_variance_for_a_level_of_one_row() -> None:
    """REML is bounded there, for a coefficient is estimated too: nothing on a wide grid is better."""
    data = rows().assign(k=np.where(np.arange(240) == 3, "alone", "rest"))
    model = Model("y ~ x", data, variance="ident(k)")
    fit = model.fit()
    assert fit.convergence.converged
    assert all(model.criterion([], residual=[r]) >= fit.criterion - 1e-9 for r in np.exp(np.linspace(-12, 12, 200)))


@pytest.mark.parametrize("twice", ["ident(sex) + ident(sex)", "power(z) + power(z)"])
def test_the_same_variance_function_twice(twice: str) -> None:
    with pytest.raises(OptionError, match="twice"):
        Model("y ~ x + (1 | s)", rows(), variance=twice)


def test_twenty_thousand_rows_with_a_crossed_factor() -> None:
    rng = np.random.default_rng(9)
    n, groups = 20_000, 1000
    d = pd.DataFrame({"g": np.repeat(np.arange(groups), 20), "t": np.tile(np.arange(20), groups)})
    d["item"], d["x"] = rng.integers(0, 50, n), rng.normal(size=n)
    e = rng.normal(size=(groups, 20))
    for j in range(1, 20):
        e[:, j] = 0.5 * e[:, j - 1] + np.sqrt(0.75) * e[:, j]
    d["y"] = 1 + 0.2 * d["x"] + rng.normal(size=groups)[d["g"]] + 0.5 * rng.normal(size=50)[d["item"]] + e.ravel()
    fit = Model("y ~ x + (1 | g) + (1 | item)", d, correlation="ar1(t | g)").fit()
    assert fit.convergence.converged
    np.testing.assert_allclose(fit.optimum.residual[0], 0.5, atol=0.03)
    np.testing.assert_allclose(fit.sigma, 1, atol=0.05)
