"""Fit.update: R's notation for a changed formula, and what of the old model is kept."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import multilevel as ml
from multilevel.update import updated

SLEEP = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def sleep() -> ml.Fit:
    return ml.lmer(SLEEP, ml.load("sleepstudy"))


@pytest.fixture(scope="module")
def teeth() -> ml.Fit:
    return ml.lmer("distance ~ age * Sex + (1 | Subject)", ml.load("orthodont"))


@pytest.fixture(scope="module")
def pastes() -> ml.Fit:
    return ml.lmer("strength ~ 1 + (1 | batch/cask)", ml.load("pastes"))


# -- the formula -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "formula"),
    [
        (". ~ .", SLEEP),
        ("~ .", SLEEP),
        (". ~ . + .", SLEEP),
        (". ~ . + Days", SLEEP),
        (". ~ . + I(Days^2)", "Reaction ~ Days + I(Days^2) + (Days | Subject)"),
        (". ~ . - Days", "Reaction ~ 1 + (Days | Subject)"),
        (". ~ . - 1", "Reaction ~ 0 + Days + (Days | Subject)"),
        (". ~ 0 + .", "Reaction ~ 0 + Days + (Days | Subject)"),
        ("log(.) ~ .", "log(Reaction) ~ Days + (Days | Subject)"),
        ("sqrt(Reaction) ~ .", "sqrt(Reaction) ~ Days + (Days | Subject)"),
        (". ~ . - (Days | Subject) + (1 | Subject)", "Reaction ~ Days + (1 | Subject)"),
        (". ~ . - (1 + Days | Subject)", "Reaction ~ Days"),
        (". ~ . + offset(2 * Days)", "Reaction ~ Days + (Days | Subject) + offset(2 * Days)"),
        (". ~ .:I(Days^2)", "Reaction ~ Days:I(Days ** 2) + (Days | Subject)"),
        ("Reaction ~ 1 + (1 | Subject)", "Reaction ~ 1 + (1 | Subject)"),
        ("~ poly(Days, 2) + (1 | Subject)", "Reaction ~ poly(Days, 2) + (1 | Subject)"),
        (". ~ . + `odd name`", "Reaction ~ Days + `odd name` + (Days | Subject)"),
    ],
)
def test_the_new_formula(sleep: ml.Fit, text: str, formula: str) -> None:
    assert updated(sleep, text) == formula


@pytest.mark.parametrize(
    ("text", "formula"),
    [
        (". ~ . - age:Sex", "distance ~ age + Sex + (1 | Subject)"),
        (". ~ . - Sex:age", "distance ~ age + Sex + (1 | Subject)"),
        (". ~ . - Sex", "distance ~ age + age:Sex + (1 | Subject)"),
        (". ~ . - age * Sex", "distance ~ 1 + (1 | Subject)"),
        (". ~ . - (age + Sex)^2", "distance ~ 1 + (1 | Subject)"),
        (". ~ . + (0 + age | Subject)", "distance ~ age * Sex + (1 | Subject) + (0 + age | Subject)"),
    ],
)
def test_terms_of_products(teeth: ml.Fit, text: str, formula: str) -> None:
    assert updated(teeth, text) == formula


@pytest.mark.parametrize(
    ("text", "formula"),
    [
        (". ~ . - (1 | batch:cask)", "strength ~ 1 + (1 | batch)"),
        (". ~ . - (1 | cask:batch)", "strength ~ 1 + (1 | batch)"),
        (". ~ . - (1 | batch)", "strength ~ 1 + (1 | batch:cask)"),
        (". ~ . - (1 | batch/cask)", "strength ~ 1"),
        (". ~ .", "strength ~ 1 + (1 | batch/cask)"),
    ],
)
def test_nested_groups(pastes: ml.Fit, text: str, formula: str) -> None:
    assert updated(pastes, text) == formula


def test_a_dot_of_the_old_formula_is_what_it_was() -> None:
    fit = ml.lmer("distance ~ . + (1 | Subject)", ml.load("orthodont"))
    assert updated(fit, ". ~ . - Sex") == "distance ~ age + (1 | Subject)"
    assert updated(fit, ". ~ .") == "distance ~ age + Sex + (1 | Subject)"


def test_offsets_and_intercepts_come_and_go() -> None:
    fit = ml.lmer("Reaction ~ Days - 1 + offset(2 * Days) + (1 | Subject)", ml.load("sleepstudy"))
    assert updated(fit, ". ~ . - offset(2 * Days)") == "Reaction ~ Days - 1 + (1 | Subject)"
    assert updated(fit, ". ~ . + 1") == "Reaction ~ Days + (1 | Subject) + offset(2 * Days)"
    assert updated(fit, ". ~ . - Days + 1") == "Reaction ~ 1 + (1 | Subject) + offset(2 * Days)"


@pytest.mark.parametrize(
    ("text", "words", "fault"),
    [
        (". ~ . - Dais", "did you mean 'Days'", "Dais"),
        (". ~ . - Days:Subject", "no term Days:Subject to take out", "Days:Subject"),
        (". ~ . - (1 | Subject)", "random terms are (Days | Subject)", "(1 | Subject)"),
        (". ~ . - (Days || Subject)", "random terms are (Days | Subject)", "(Days || Subject)"),
        (". ~ . + (Days | Subject)", "in the model already", "(Days | Subject)"),
        (". ~ . - .", "not taken away", "."),
        (". ~ . - offset(Days)", "no offset(Days)", "offset(Days)"),
        (". ~ . + foo(Days)", "unknown function foo()", "foo"),
        (". ~ . + 3", "numbers other than 0 and 1", "3"),
        (". ~ . + (Days", "not closed", "("),
        (". ~ . +", "a term is expected", ""),
        (". ~", "right side is empty", ""),
        (". ~ . ~ .", "more than one ~", "~"),
        (". + Days", "there is no ~", ""),
        ("", "there is no ~", ""),
    ],
)
def test_faults_are_pointed_at(sleep: ml.Fit, text: str, words: str, fault: str) -> None:
    with pytest.raises(ml.FormulaError) as caught:
        sleep.update(text)
    error = caught.value
    assert words in str(error)
    assert error.formula == text
    assert error.start is not None and text[error.start :].startswith(fault)


def test_a_formula_is_text(sleep: ml.Fit) -> None:
    with pytest.raises(ml.FormulaError, match=r"a formula is a text such as '\. ~ \. \+ x', not int"):
        sleep.update(3)  # type: ignore[arg-type]


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet=".~+-*/:|()[]^`'\" 01xDays\n", max_size=25))
def test_any_text_gives_a_formula_or_a_clear_error(text: str) -> None:
    fit = _fitted()
    try:
        formula = updated(fit, text)
    except ml.MultilevelError:
        return
    assert "~" in formula
    with contextlib.suppress(ml.MultilevelError):
        assert ml.Model(formula, fit.model.data).design.formula.text == formula


_KEPT: list[ml.Fit] = []


def _fitted() -> ml.Fit:
    if not _KEPT:
        _KEPT.append(ml.lmer(SLEEP, ml.load("sleepstudy")))
    return _KEPT[0]


# -- the fit -----------------------------------------------------------------------------------------------------------


def test_it_is_the_fit_of_the_new_formula(sleep: ml.Fit) -> None:
    other = sleep.update(". ~ . - (Days | Subject) + (1 | Subject)")
    again = ml.lmer("Reaction ~ Days + (1 | Subject)", ml.load("sleepstudy"))
    assert other.loglik == again.loglik and other.reml
    by_ml = sleep.update(reml=False)
    assert by_ml.formula == SLEEP and not by_ml.reml
    assert by_ml.loglik == ml.lmer(SLEEP, ml.load("sleepstudy"), REML=False).loglik
    assert not by_ml.update(". ~ . + I(Days^2)").reml


def test_other_data(sleep: ml.Fit) -> None:
    half = ml.load("sleepstudy").query("Days < 5")
    assert sleep.update(data=half).loglik == ml.lmer(SLEEP, half).loglik


OPTIONS: dict[str, dict[str, Any]] = {
    "weights": {"weights": np.linspace(0.5, 2, 180)},
    "offset": {"offset": np.linspace(0, 9, 180)},
    "correlation": {"correlation": "ar1(Days | Subject)"},
    "variance": {"variance": "exp(Days)"},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("saved", [False, True])
def test_options_stay_unless_given(name: str, saved: bool, tmp_path: Path) -> None:
    data = ml.load("sleepstudy")
    fit = ml.lmer("Reaction ~ Days + (1 | Subject)", data, **OPTIONS[name])
    if saved:
        fit.save(tmp_path / "fit.mlv", data=True)
        fit = ml.read(tmp_path / "fit.mlv")
    expected = ml.lmer("Reaction ~ Days + I(Days^2) + (1 | Subject)", data, **OPTIONS[name])
    assert fit.update(". ~ . + I(Days^2)").loglik == pytest.approx(expected.loglik, abs=1e-8)
    without = ml.lmer("Reaction ~ Days + (1 | Subject)", data)
    assert fit.update(**{name: None}).loglik == pytest.approx(without.loglik, abs=1e-8)


@pytest.mark.parametrize("saved", [False, True])
def test_contrasts_and_levels_stay_where_their_columns_do(saved: bool, tmp_path: Path) -> None:
    options: dict[str, Any] = {"contrasts": {"recipe": "sum"}, "levels": {"recipe": ["B", "A", "C"]}}
    fit = ml.lmer("angle ~ recipe * temperature + (1 | recipe:replicate)", ml.load("cake"), **options)
    if saved:
        fit.save(tmp_path / "fit.mlv", data=True)
        fit = ml.read(tmp_path / "fit.mlv")
    assert fit.update(". ~ . - recipe:temperature").design.names[1:3] == ("recipe[S.B]", "recipe[S.A]")
    assert fit.update(". ~ temperature + (1 | replicate)").design.names[0] == "Intercept"
    told = fit.update(contrasts={"recipe": "treatment"})
    assert told.design.names[1:3] == ("recipe[T.A]", "recipe[T.C]")


@pytest.mark.parametrize("saved", [False, True])
def test_a_known_covariance_stays_while_its_group_does(saved: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    names = [f"s{i}" for i in range(12)]
    data = pd.DataFrame({"species": np.repeat(names, 5), "site": np.tile(list("abcde"), 12), "x": rng.normal(size=60)})
    data["y"] = data["x"] + np.repeat(rng.normal(size=12), 5) + rng.normal(size=60)
    known = pd.DataFrame(0.5 * np.eye(12) + 0.5, index=names, columns=names)
    fit = ml.lmer("y ~ x + (1 | species)", data, covariance={"species": known})
    if saved:
        fit.save(tmp_path / "fit.mlv", data=True)
        fit = ml.read(tmp_path / "fit.mlv")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ml.MultilevelWarning)
        expected = ml.lmer("y ~ 1 + (1 | species)", data, covariance={"species": known})
        assert fit.update(". ~ . - x").loglik == pytest.approx(expected.loglik, abs=1e-8)
        assert fit.update(". ~ x").design.known == {}


def test_a_refit_keeps_its_response(sleep: ml.Fit) -> None:
    other = sleep.refit(sleep.simulate(1, seed=1)["sim_1"])
    assert other.update().loglik == pytest.approx(other.loglik, abs=1e-8)
    assert other.update(". ~ . - Days").design.y is not None
    np.testing.assert_array_equal(other.update(". ~ . - Days").design.y, other.design.y)


def test_a_refit_has_no_response_for_rows_it_did_not_use() -> None:
    data = ml.load("sleepstudy").assign(x=1.0 * np.arange(180))
    data.loc[3, "x"] = np.nan
    with pytest.warns(ml.MultilevelWarning):
        fit = ml.lmer("Reaction ~ Days + x + (1 | Subject)", data)
    other = fit.refit(fit.simulate(1, seed=1)["sim_1"])
    with pytest.raises(ml.DataError, match="uses row 3 "):
        other.update(". ~ . - x")
    assert fit.update(". ~ . - x").nobs == 180


def test_bad_options(sleep: ml.Fit, tmp_path: Path) -> None:
    with pytest.raises(ml.OptionError, match="update\\(\\) has no option 'wieghts'; did you mean 'weights'"):
        sleep.update(wieghts="w")
    with pytest.raises(ml.OptionError, match="reml must be True or False"):
        sleep.update(reml="yes")  # type: ignore[arg-type]
    with pytest.raises(ml.ColumnError, match="no column 'Dayz'"):
        sleep.update(". ~ . + Dayz")
    sleep.save(tmp_path / "fit.mlv")
    bare = ml.read(tmp_path / "fit.mlv")
    with pytest.raises(ml.DataError, match="saved without its data, which an update needs; give data="):
        bare.update(". ~ . - Days")
    assert bare.update(". ~ . - Days", data=ml.load("sleepstudy")).loglik == sleep.update(". ~ . - Days").loglik


def test_a_saved_fit_asks_for_what_it_does_not_keep(tmp_path: Path) -> None:
    data = ml.load("sleepstudy").assign(w=np.linspace(0.5, 2, 180))
    fit = ml.lmer("Reaction ~ Days + (1 | Subject)", data, weights="w")
    fit.save(tmp_path / "fit.mlv")
    read = ml.read(tmp_path / "fit.mlv")
    with pytest.raises(ml.OptionError, match="does not keep the column of its weights; give weights="):
        read.update(". ~ . + I(Days^2)", data=data)
    expected = fit.update(". ~ . + I(Days^2)")
    assert read.update(". ~ . + I(Days^2)", data=data, weights="w").loglik == expected.loglik
