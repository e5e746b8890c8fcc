"""Columns whose names read as numbers or calls: the model is that of the same column under a plain name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import multilevel as ml

NUMBERS = ("1", "0", "-1", "1.5", "1e3")


@pytest.fixture(scope="module")
def plain() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    g = np.repeat(list("abcdef"), 20)
    data = pd.DataFrame({"x": rng.normal(size=120), "f": np.tile(list("uvw"), 40), "g": g})
    effects = rng.normal(size=(2, 6)).repeat(20, axis=1)
    return data.assign(y=effects[0] + data["x"] * effects[1] + rng.normal(size=120))


def renamed(formula: str, column: str, name: str, data: pd.DataFrame, **options: Any) -> ml.Fit:
    """The model of a formula in which {} stands for the column."""
    return ml.lmer(formula.format(f"`{name}`"), data.rename(columns={column: name}), **options)


@pytest.mark.filterwarnings("ignore::multilevel.SingularFitWarning")
@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(("formula", "column"), [
    ("y ~ 1 + {} + (1 | g)", "x"),
    ("y ~ 0 + {} + (1 | g)", "x"),
    ("y ~ {0} + ({0} | g)", "x"),
    ("y ~ 1 + (0 + {} || g)", "x"),
    ("y ~ scale({0}^2) + {0}:f + (1 | g)", "x"),
    ("y ~ x * {} + (1 | g)", "f"),
    ("y ~ x + (1 | {})", "g"),
    ("y ~ x + (1 | g/{})", "f"),
    ("y ~ x + (x | factor({}))", "g"),
    ("{} ~ x + (x | g)", "y"),
    ("exp({} / 10) ~ x + (1 | g)", "y"),
])  # fmt: skip
def test_a_column_named_as_a_number(plain: pd.DataFrame, name: str, formula: str, column: str) -> None:
    expected = ml.lmer(formula.format(column), plain)
    fit = renamed(formula, column, name, plain)
    np.testing.assert_array_equal(fit.design.X, expected.design.X)
    assert fit.criterion == pytest.approx(expected.criterion, rel=1e-10)
    assert [t.group for t in fit.design.terms] == [t.group.replace(column, name) for t in expected.design.terms]
    new = plain.head(9)
    found = fit.predict(new.rename(columns={column: name}))["prediction"]
    np.testing.assert_allclose(found, expected.predict(new)["prediction"], rtol=1e-7)


def test_names_that_are_shown(plain: pd.DataFrame) -> None:
    assert renamed("y ~ {} + (1 | g)", "x", "1", plain).design.names == ("Intercept", "1")
    names = renamed("y ~ x * {} + (1 | g)", "f", "0", plain).design.names
    assert names == ("Intercept", "x", "0[T.v]", "0[T.w]", "x:0[T.v]", "x:0[T.w]")
    assert renamed("y ~ log({} + 9) + (1 | g)", "x", "1", plain).design.names[1] == "log(`1` + 9)"
    data = plain.drop(columns=["f", "g"]).rename(columns={"x": "1"}).assign(h=plain["g"])
    assert ml.Model("y ~ . + (1 | h)", data).design.names == ("Intercept", "1")


def test_both_constants_and_a_column_of_that_name(plain: pd.DataFrame) -> None:
    data = plain.rename(columns={"x": "1"}).assign(z=plain["x"] ** 2)
    assert ml.Model("y ~ `1` - 1 + (1 | g)", data).design.names == ("1",)
    assert ml.Model("y ~ `1` - `1` + z + (1 | g)", data).design.names == ("Intercept", "z")
    assert ml.Model("y ~ 1 + (1 | g) + (0 + `1` | g)", data).design.terms[1].names == ("1",)


def test_a_column_named_as_a_call(plain: pd.DataFrame) -> None:
    data = plain.assign(z=np.exp(plain["x"])).assign(**{"log(z)": plain["x"] ** 2})
    design = ml.Model("y ~ log(z) + `log(z)` + (1 | g)", data).design
    assert design.names == ("Intercept", "log(z)", "`log(z)`")
    np.testing.assert_allclose(design.X[:, 1:], np.column_stack([plain["x"], plain["x"] ** 2]), atol=1e-14)
    assert ml.Model("y ~ `log(z)` + (1 | g)", data).design.names == ("Intercept", "log(z)")


def test_verbs_know_such_a_column(plain: pd.DataFrame, tmp_path: Any) -> None:
    data = plain.rename(columns={"x": "1"})
    fit, expected = ml.lmer("y ~ `1` + f + (`1` | g)", data), ml.lmer("y ~ x + f + (x | g)", plain)
    assert fit.anova()["term"].tolist() == ["1", "f"]
    np.testing.assert_allclose(fit.anova()["p_value"], expected.anova()["p_value"], rtol=1e-6)
    np.testing.assert_allclose(ml.vif(fit)["vif"], ml.vif(expected)["vif"], rtol=1e-8)
    np.testing.assert_allclose(ml.vif(["1", "f"], data)["vif"], ml.vif(["x", "f"], plain)["vif"], rtol=1e-12)
    assert ml.random_slope_check(fit, "1").lrt == pytest.approx(ml.random_slope_check(expected, "x").lrt, rel=1e-6)
    assert fit.update(". ~ . - `1`").design.names == ("Intercept", "f[T.v]", "f[T.w]")
    fit.save(tmp_path / "a.mlv")
    again = ml.read(tmp_path / "a.mlv").predict(data.head())["prediction"]
    np.testing.assert_allclose(again, fit.predict(data.head())["prediction"], rtol=1e-12)
