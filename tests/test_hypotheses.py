"""Reading and testing linear hypotheses."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import multilevel as ml
from multilevel import Fit, FormulaError, Model, MultilevelError, OptionError, inference
from multilevel.hypotheses import read

NAMES = (
    "Intercept",
    "Days",
    "recipe[T.B]",
    "recipe[T.C]",
    "recipe[T.B]:temperature[T.185]",
    "poly(x, 2)[1]",
    "x",
    "x:z",
    "my col",
)


def row(text: str, dropped: tuple[str, ...] = ()) -> tuple[dict[str, float], float]:
    found = read(text, None, NAMES, dropped)
    values = zip(NAMES, found.rows[0].tolist(), strict=True)
    return {name: value for name, value in values if value}, float(found.rhs[0])


@pytest.mark.parametrize(
    ("text", "wanted", "rhs"),
    [
        ("Days = 0", {"Days": 1}, 0),
        ("Days", {"Days": 1}, 0),
        ("Days == 10", {"Days": 1}, 10),
        ("Days=1e1", {"Days": 1}, 10),
        ("-Days = 10", {"Days": -1}, 10),
        ("10 = Days", {"Days": -1}, -10),
        ("(Intercept) + Days = 0", {"Intercept": 1, "Days": 1}, 0),
        ("recipe[T.B] - recipe[T.C] = 0", {"recipe[T.B]": 1, "recipe[T.C]": -1}, 0),
        ("recipe[T.B] = recipe[T.C] - 1", {"recipe[T.B]": 1, "recipe[T.C]": -1}, -1),
        ("`recipe[T.B]`-`my col`", {"recipe[T.B]": 1, "my col": -1}, 0),
        ("my col = 3", {"my col": 1}, 3),
        ("recipe[T.B]:temperature[T.185] = 0", {"recipe[T.B]:temperature[T.185]": 1}, 0),
        ("2*Days/4 + .5 = 3", {"Days": 0.5}, 2.5),
        ("Days * 3 - 2 * (x - x:z) = -(1 + 1)", {"Days": 3, "x": -2, "x:z": 2}, -2),
        ("(recipe[T.B] + recipe[T.C]) / 2 - Days", {"recipe[T.B]": 0.5, "recipe[T.C]": 0.5, "Days": -1}, 0),
        ("poly(x, 2)[1] - x = 0", {"poly(x, 2)[1]": 1, "x": -1}, 0),
        ("2 * -x = --3", {"x": -2}, 3),
        ("x - x + Days = 0", {"Days": 1}, 0),
        ("  Days\n = 0 ", {"Days": 1}, 0),
    ],
)
def test_reading(text: str, wanted: dict[str, float], rhs: float) -> None:
    assert row(text) == (wanted, rhs)


@pytest.mark.parametrize(
    ("text", "message", "caret"),
    [
        ("day = 0", "there is no coefficient 'day'; did you mean 'Days'", 0),
        ("Days + recipe[T.D] = 0", r"'recipe\[T.D\]'; did you mean 'recipe\[T.[BC]\]'", 7),
        ("x:y = 0", "there is no coefficient 'x:y'; did you mean 'x:z'", 0),
        ("poly(x, 2)[3]", r"no coefficient 'poly\(x, 2\)\[3\]'; did you mean 'poly\(x, 2\)\[1\]'", 0),
        ("`nothing like it` = 0", "the coefficients are 'Intercept', 'Days'", 0),
        ("Days x = 0", "unexpected 'x'; an operator", 5),
        ("Days + = 0", "a coefficient or a number is expected", 7),
        ("Days = ", "a number is expected after the =", 6),
        ("Days = 1 = 1", "more than one =", 9),
        ("= 1", "a coefficient or a number is expected", 0),
        ("Days * x", "coefficients cannot be multiplied", 5),
        ("1 / Days", "cannot divide by a coefficient", 2),
        ("Days / 0", "division by zero", 5),
        ("Days / (1 - 1)", "division by zero", 5),
        ("2Days", "write \\* between a number and a coefficient", 1),
        ("(Days - x", r"this \( is not closed", 0),
        ("Days) = 0", r"unexpected '\)'", 4),
        ("Days - Days = 0", "no coefficient is left", 0),
        ("1 = 1", "no coefficient is left", 0),
        ("", "the hypothesis is empty", None),
        ("  ", "the hypothesis is empty", 0),
        ("Days < 0", "unexpected '<'", 5),
        ("Days ^ 2", r"unexpected '\^'", 5),
        ("$", r"unexpected '\$'", 0),
        ("1e999 * Days = 0", "too large", 0),
        ("(" * 60 + "Days", "nested too deeply", 40),
    ],
)
def test_faults_have_a_caret(text: str, message: str, caret: int | None) -> None:
    with np.errstate(all="ignore"), pytest.raises(FormulaError, match=message) as caught:
        read(text, None, NAMES)
    if caret is not None:
        assert caught.value.start == caret
        assert "^" in str(caught.value).splitlines()[-1]


def test_a_dropped_coefficient_says_so() -> None:
    with pytest.raises(FormulaError, match="'twice' was left out of the model"):
        read("twice = 0", None, NAMES, ("twice",))


def test_long_texts_end() -> None:
    with pytest.raises(FormulaError, match="characters long"):
        read("x + " * 6000 + "x", None, NAMES)
    assert row("-" * 10_000 + "x") == ({"x": 1}, 0)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="xDays[T.B]:()+-*/=0123.e `", max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    with np.errstate(all="ignore"):
        try:
            found = read(text, None, NAMES)
        except MultilevelError:
            return
    assert np.isfinite(found.rows).all() and found.rows.any() and np.isfinite(found.rhs).all()


# -- tests -----------------------------------------------------------------------------------------


@cache
def sleep() -> Fit:
    return Model("Reaction ~ Days + (Days | Subject)", ml.load("sleepstudy")).fit()


@cache
def cake() -> Fit:
    return Model("angle ~ recipe + temp + (1 | recipe:replicate)", ml.load("cake")).fit()


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger", "none"])
def test_a_coefficient_is_its_row_of_the_table(ddf: str) -> None:
    found = sleep().test("Days = 0", ddf=ddf, level=0.9).iloc[0]
    wanted = sleep().fixef(0.9, ddf).iloc[1]
    for name in ("estimate", "std_error", "statistic", "df", "p_value", "conf_low", "conf_high"):
        assert found[name] == pytest.approx(wanted[name], rel=1e-10)
    assert found["hypothesis"] == "Days = 0"


def test_a_value_moves_the_statistic_not_the_interval() -> None:
    zero, ten = sleep().test("Days").iloc[0], sleep().test("Days = 10").iloc[0]
    assert ten["estimate"] == zero["estimate"]
    assert ten["conf_low"] == pytest.approx(zero["conf_low"])
    assert ten["statistic"] == pytest.approx((zero["estimate"] - 10) / zero["std_error"])
    assert ten["p_value"] == pytest.approx(2 * stats.t.sf(abs(ten["statistic"]), ten["df"]))


def test_contrasts_and_lists() -> None:
    fit = cake()
    table = fit.test(["recipe[T.B] - recipe[T.C] = 0", "temp = 0.1"])
    position = [fit.design.names.index(name) for name in ("recipe[T.B]", "recipe[T.C]")]
    variance = fit.vcov()[np.ix_(position, position)]
    assert table["std_error"][0] == pytest.approx(np.sqrt(variance[0, 0] + variance[1, 1] - 2 * variance[0, 1]))
    assert list(table["hypothesis"]) == ["recipe[T.B] - recipe[T.C] = 0", "temp = 0.1"]
    np.testing.assert_allclose(table["df"][0], 42, rtol=1e-6)


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger", "none"])
def test_a_joint_test_is_the_terms_f(ddf: str) -> None:
    found = cake().test(["recipe[T.B] = 0", "recipe[T.C] = 0"], joint=True, ddf=ddf)
    wanted = cake().anova(ddf=ddf).set_index("term").loc["recipe"]
    assert list(found.columns) == ["hypothesis", "num_df", "den_df", "statistic", "p_value"]
    assert len(found) == 1
    for name in ("num_df", "den_df", "statistic", "p_value"):
        assert found[name][0] == pytest.approx(wanted[name], rel=1e-8)


def test_a_joint_test_with_values() -> None:
    fit = cake()
    rows = np.array([fit.design.names.index(n) for n in ("recipe[T.B]", "temp")])
    found = fit.test(["recipe[T.B] = -1", "temp = 0.1"], joint=True, ddf="none").iloc[0]
    gap = fit.optimum.beta[rows] - [-1, 0.1]
    assert found["statistic"] == pytest.approx(gap @ np.linalg.solve(fit.vcov()[np.ix_(rows, rows)], gap) / 2)


def test_repeated_hypotheses_count_once_and_contradictions_are_refused() -> None:
    fit = cake()
    twice = fit.test(["temp = 0.1", "2 * temp = 0.2", "recipe[T.B] = 0"], joint=True)
    once = fit.test(["temp = 0.1", "recipe[T.B] = 0"], joint=True)
    assert twice["num_df"][0] == 2
    assert twice["statistic"][0] == pytest.approx(once["statistic"][0], rel=1e-8)
    with pytest.raises(OptionError, match="contradict each other"):
        fit.test(["temp = 0", "temp = 1"], joint=True)


def test_matrices() -> None:
    fit = sleep()
    one = fit.test([0, 1], 10)
    assert one["hypothesis"][0] == "Days = 10"
    assert one["p_value"][0] == pytest.approx(fit.test("Days = 10")["p_value"][0])
    two = fit.test(np.array([[1, -2.5], [0, 1]]), [250, 10])
    assert list(two["hypothesis"]) == ["Intercept - 2.5*Days = 250", "Days = 10"]
    joint = fit.test(np.eye(2), [250, 10], joint=True)
    assert joint["num_df"][0] == 2
    both = fit.test(pd.DataFrame(np.eye(2)))
    np.testing.assert_allclose(both["estimate"], fit.optimum.beta)
    labels = fit.test(np.array([[-0.5, 0.0], [1.0, 1.0]]))["hypothesis"]
    assert list(labels) == ["-0.5*Intercept = 0", "Intercept + Days = 0"]


@pytest.mark.parametrize(
    ("given", "rhs", "message"),
    [
        ([[1, 2, 3]], None, r"shape \(1, 3\), but the model has 2 coefficients: 'Intercept', 'Days'"),
        (np.zeros((1, 2)), None, "row 0 .* has zeros only"),
        ([[np.nan, 1]], None, "not finite"),
        (np.eye(2), [1, 2, 3], "rhs must be a number or 2 numbers"),
        (np.eye(2), "a", "rhs must be a number"),
        (np.eye(2), np.inf, "rhs must be finite"),
        ("Days", 3, "rhs goes with a matrix"),
        ([], None, "no hypothesis is given"),
        (None, None, "no hypothesis is given"),
        (0, None, "no hypothesis is given"),
        (True, None, "no hypothesis is given"),
        (["Days", 3], None, "matrix of numbers"),
        ({"Days": 0}, None, "matrix of numbers"),
        (np.zeros((2, 2, 2)), None, "shape"),
        (object(), None, "matrix of numbers"),
    ],
)
def test_bad_input(given: object, rhs: object, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        sleep().test(given, rhs)


def test_bad_options() -> None:
    with pytest.raises(OptionError, match="joint must be True or False"):
        sleep().test("Days", joint="yes")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="level must lie"):
        sleep().test("Days", level=95)
    with pytest.raises(OptionError, match="ddf 'satter' is not known"):
        sleep().test("Days", ddf="satter")


def test_dropped_columns_stay_out() -> None:
    data = ml.load("sleepstudy").assign(hours=lambda d: 24 * d["Days"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ml.RankWarning)
        fit = Model("Reaction ~ Days + hours + (1 | Subject)", data).fit()
    assert fit.test("Days = 0")["df"][0] == pytest.approx(161, rel=1e-6)
    with pytest.raises(FormulaError, match="'hours' was left out"):
        fit.test("hours = 0")


def test_the_frame_is_the_users(tmp_path: Path) -> None:
    import polars as pl

    fit = Model("Reaction ~ Days + (Days | Subject)", pl.from_pandas(ml.load("sleepstudy"))).fit()
    assert isinstance(fit.test("Days"), pl.DataFrame)
    assert isinstance(fit.test("Days", joint=True), pl.DataFrame)


def test_units_do_not_matter() -> None:
    data = ml.load("math10")
    near = Model("math ~ homework + ses + (homework | schid)", data).fit()
    far = Model("math ~ homework + ses + (homework | schid)", data.assign(homework=data["homework"] * 1e9)).fit()
    one = near.test(["homework = 0", "ses = 0"], joint=True)
    two = far.test(["homework = 0", "ses = 0"], joint=True)
    np.testing.assert_allclose(two["statistic"], one["statistic"], rtol=1e-7)
    assert two["num_df"][0] == 2
    assert inference.f_test(near, np.zeros((0, 3)))[1] == 0
