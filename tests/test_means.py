"""Estimated marginal means, contrasts and slopes against emmeans, against raw means, and against their own definition."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import multilevel as ml

STORED = json.loads((Path(__file__).parent / "golden_means" / "means.json").read_text(encoding="utf-8"))["cases"]
CASES = {(case["id"], case["ddf"]): case for case in STORED}

# id -> (verb, positional, keywords) that asks here what R was asked
CALLS: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    "recipe": ("means", ("recipe",), {}),
    "recipe_by_temperature": ("means", ("recipe",), {"by": "temperature"}),
    "pairs_temperature": ("contrasts", ("temperature",), {}),
    "pairs_recipe_in_temperature": ("contrasts", ("recipe",), {"by": "temperature"}),
    "poly_temperature": ("contrasts", ("temperature", "poly"), {}),
    "eff_temperature": ("contrasts", ("temperature", "eff"), {}),
    "ctrl_temperature_sidak": ("contrasts", ("temperature", "trt.vs.ctrl"), {"ref": "185", "adjust": "sidak"}),
    "consecutive_bonferroni": (
        "contrasts", ("temperature", "consecutive"), {"by": "recipe", "adjust": "bonferroni"}),
    "pairs_scheffe": ("contrasts", ("temperature",), {"adjust": "scheffe"}),
    "pairs_holm": ("contrasts", ("temperature",), {"adjust": "holm"}),
    "means_sidak": ("means", ("temperature",), {"adjust": "sidak"}),
    "means_scheffe": ("means", ("recipe",), {"adjust": "scheffe"}),
    "own": ("contrasts", ("recipe", {"A - rest": [1, -0.5, -0.5], "C - B": {"C": 1, "B": -1}}), {}),
    "grand": ("means", (), {}),
    "at_days": ("means", ("Days",), {"at": {"Days": [0, 2, 9]}}),
    "slope": ("slopes", ("Days",), {}),
    "poly_slope_at_3": ("slopes", ("Days",), {"at": {"Days": 3}}),
    "log_response": ("means", ("Days",), {"at": {"Days": [1, 8]}, "transform": "response"}),
    "log_ratio": ("contrasts", ("Days",), {"at": {"Days": [1, 8]}, "transform": "response"}),
    "sqrt_response": ("means", ("Days",), {"at": {"Days": [1, 8]}, "transform": "response"}),
    "pairs_machine": ("contrasts", ("Machine",), {}),
    "ctrl_machine_mvt": ("contrasts", ("Machine", "trt.vs.ctrl"), {}),
    "slopes_by_sex": ("slopes", ("age",), {"by": "Sex"}),
    "slopes_difference": ("slopes", ("age",), {"by": "Sex"}),
    "sex_at_age": ("means", ("Sex",), {"by": "age", "at": {"age": [8, 14]}}),
    "sex_averaged_over_age": ("means", ("Sex",), {"at": {"age": [8, 9, 14]}}),
    "treatment_equal": ("means", ("Treatment",), {}),
    "treatment_proportional": ("means", ("Treatment",), {"weights": "proportional"}),
    "treatment_cells": ("means", ("Treatment",), {"weights": "cells"}),
    "pairs_treatment": ("contrasts", ("Treatment",), {}),
    "pairs_treatment_by_sex": ("contrasts", ("Treatment",), {"by": "sex"}),
    "pairs_treatment_sex": ("contrasts", (["Treatment", "sex"],), {}),
    "ctrl_mvt": ("contrasts", ("Treatment", "trt.vs.ctrl"), {}),
    "pairs_at_level": ("contrasts", ("Treatment",), {"at": {"sex": "Female", "Lsize": 10}}),
    "rank_cells": ("means", (["Evit", "Cu"],), {}),
    "rank_margin": ("means", ("Evit",), {}),
    "rank_margin_cells": ("means", ("Evit",), {"weights": "cells"}),
    "rank_pairs": ("contrasts", ("Evit",), {"by": "Cu"}),
    "offset": ("means", ("Evit",), {}),
    "logical": ("means", ("early",), {"by": "Evit"}),
    "weighted_equal": ("means", ("half",), {}),
    "weighted_proportional": ("means", ("half",), {"weights": "proportional"}),
    "weighted_cells": ("means", ("half",), {"weights": "cells"}),
    "radon_floor": ("means", ("floor",), {"at": {"floor": [0, 1]}}),
    "radon_slopes": ("slopes", ("log_uranium",), {"by": "floor", "at": {"floor": [0, 1]}}),
}  # fmt: skip


@cache
def data(name: str) -> pd.DataFrame:
    """The data as the R script made them."""
    if name == "dietox_without_a_cell":
        d = ml.load("dietox")
        d["f"], d["early"] = d["Time"] - d["Time"].min(), d["Time"] < 4
        last = [d[one].cat.categories[2] for one in ("Evit", "Cu")]
        return d[~((d["Evit"] == last[0]) & (d["Cu"] == last[1]))].reset_index(drop=True)
    d = ml.load(name.removesuffix("_weighted"))
    if name.endswith("_weighted"):
        d["w"] = np.resize([1.0, 2.0, 0.5], len(d))
        d["half"] = np.where(d["Days"] < 4, "first", "second")
        d["late"] = np.where(d["Days"] > 6, "yes", "no")
    return d


@cache
def fitted(formula: str, name: str) -> ml.Fit:
    return ml.lmer(formula, data(name), weights="w" if name.endswith("_weighted") else None)


@pytest.mark.filterwarnings("ignore::multilevel.MultilevelWarning")
@pytest.mark.parametrize(("name", "ddf"), list(CASES))
def test_agrees_with_emmeans(name: str, ddf: str) -> None:
    case = CASES[name, ddf]
    fit = fitted(case["formula"], case["data"])
    verb, arguments, options = CALLS[name]
    made = getattr(fit, verb)(*arguments, ddf=ddf, **options)
    if name == "slopes_difference":
        made = made.contrasts()
    table = case["table"]
    expected = {k: np.array(v, dtype=float) for k, v in table.items() if k != "labels"}
    labels = {k.lower(): v for k, v in table["labels"].items() if k not in ("X1", "1")}
    for label in [k for k in made.averages.labels if k.lower() in labels and k != "contrast"]:
        assert [str(v).lower().removesuffix(".0") for v in made[label]] == [v.lower() for v in labels[label.lower()]]
    known = np.isfinite(expected["std_error"])
    np.testing.assert_array_equal(np.isfinite(made["std_error"]), known)
    if name == "rank_pairs":
        # of the last group two means are determined: one comparison can be made, and is not adjusted for those that
        # cannot. emmeans counts three.
        assert known.tolist() == [True] * 6 + [True, False, False]
        single = made.fit.contrasts("Evit", by="Cu", adjust="none", ddf=ddf)
        assert made["p_value"][6] == single["p_value"][6] and made["conf_low"][6] == single["conf_low"][6]
        expected["conf_low"][6], expected["conf_high"][6] = single["conf_low"][6], single["conf_high"][6]
        expected["p_value"][6] = single["p_value"][6]
    gap = np.abs(made["estimate"] - expected["estimate"])[known]
    assert np.all(gap <= 1e-6 * (np.abs(expected["estimate"]) + expected["std_error"])[known])
    np.testing.assert_allclose(made["std_error"][known], expected["std_error"][known], rtol=1e-6)
    np.testing.assert_allclose(made["df"][known], expected["df"][known], rtol=1e-4)
    # mvtnorm rounds degrees of freedom to whole numbers and is a Monte Carlo rule itself
    loose = "mvt" in name
    width = (made["conf_high"] - made["conf_low"])[known]
    np.testing.assert_allclose(
        width, (expected["conf_high"] - expected["conf_low"])[known], rtol=5e-3 if loose else 1e-5
    )
    if "p_value" in expected and made.tests:
        np.testing.assert_allclose(made["p_value"][known], expected["p_value"][known], atol=1e-3 if loose else 1e-4)


# -- by their own definition ----------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::multilevel.SingularFitWarning")
def test_means_of_a_balanced_factor_are_the_raw_means() -> None:
    rng = np.random.default_rng(5)
    for levels in (2, 3, 7):
        d = pd.DataFrame({"g": np.repeat(np.arange(12), levels), "a": np.tile(list("abcdefg")[:levels], 12)})
        d["y"] = rng.normal(size=len(d)) + rng.normal(size=12)[d["g"]]
        fit = ml.lmer("y ~ a + (1 | g)", d)
        raw = d.groupby("a")["y"].mean()
        found = fit.means("a").frame().set_index("a")["estimate"]
        np.testing.assert_allclose(found[raw.index], raw, rtol=1e-10)
        np.testing.assert_allclose(fit.means()["estimate"], raw.mean(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("weights", ["equal", "proportional", "cells"])
def test_means_are_averages_of_predictions(weights: str) -> None:
    d = data("ratpupweight")
    fit = fitted("weight ~ Treatment * sex + Lsize + (1 | Litter)", "ratpupweight")
    sexes, counts = ["Male", "Female"], pd.crosstab(d["Treatment"], d["sex"])
    made = fit.means("Treatment", weights=weights)
    for treatment, found in zip(made["Treatment"], made["estimate"], strict=True):
        new = {"Treatment": [treatment] * 2, "sex": sexes, "Lsize": [d["Lsize"].mean()] * 2}
        predicted = fit.predict(pd.DataFrame(new), groups=None)["prediction"].to_numpy()
        share = {
            "equal": np.ones(2),
            "proportional": counts[sexes].sum().to_numpy(),
            "cells": counts.loc[treatment, sexes].to_numpy(),
        }[weights]
        assert found == pytest.approx(np.average(predicted, weights=share), rel=1e-12)


CURVES = [
    "Days",
    "poly(Days, 3)",
    "bs(Days, df=5)",
    "cr(Days, df=4)",
    "scale(Days)",
    "log(Days + 1)",
    "I(Days^2) + Days",
    "exp(Days / 10)",
]


@pytest.mark.filterwarnings("ignore::multilevel.RankWarning")  # cr() with an intercept has a column too many
@pytest.mark.parametrize("side", CURVES)
@pytest.mark.parametrize("at", [0.0, 2.3, 4.5, 9.0])
def test_slopes_are_derivatives_of_predictions(side: str, at: float) -> None:
    fit = fitted(f"Reaction ~ {side} + (1 | Subject)", "sleepstudy")
    # a higher-order rule with a long step, one-sided at the ends of the range, is the reference
    h = 2e-3
    steps = {0.0: np.arange(9), 9.0: -np.arange(9)}.get(at, np.arange(-4, 5)).astype(float)
    weights = np.linalg.solve(np.vander(steps, increasing=True).T, np.eye(9)[1]) / h
    predicted = fit.predict(pd.DataFrame({"Days": at + h * steps}), groups=None)["prediction"].to_numpy()
    assert fit.slopes("Days", at={"Days": at})["estimate"][0] == pytest.approx(float(weights @ predicted), rel=2e-8)


def test_slope_of_a_column_is_its_coefficient_in_any_units() -> None:
    for factor, shift in ((1.0, 0.0), (1e6, 0.0), (1e-6, 0.0), (1.0, 2000.0), (1.0, -2000.0)):
        d = ml.load("sleepstudy")
        d["x"] = d["Days"] * factor + shift
        fit = ml.lmer("Reaction ~ x + (1 | Subject)", d)
        slope = fit.fixef()["estimate"][1]
        assert fit.slopes("x")["estimate"][0] == pytest.approx(slope, rel=1e-9)
        squared = ml.lmer("Reaction ~ poly(x, 2) + (1 | Subject)", d)
        flat = ml.lmer("Reaction ~ poly(Days, 2) + (1 | Subject)", d)
        expected = flat.slopes("Days", at={"Days": 2})["estimate"] / factor
        found = squared.slopes("x", at={"x": 2 * factor + shift})["estimate"]
        np.testing.assert_allclose(found, expected, rtol=1e-7)


def test_slope_of_a_logarithm_near_zero() -> None:
    d = ml.load("sleepstudy")
    d["x"] = np.where(d["Days"] == 0, 1e-4, d["Days"] * 1000.0)
    fit = ml.lmer("Reaction ~ log(x) + (1 | Subject)", d)
    slope = fit.fixef()["estimate"][1]
    for x in (1e-4, 1.0, 5000.0):
        assert fit.slopes("x", at={"x": x})["estimate"][0] == pytest.approx(slope / x, rel=1e-8)


def test_number_written_as_factor_in_the_formula_is_a_factor() -> None:
    d = ml.load("sleepstudy")
    fit = ml.lmer("Reaction ~ C(Days) + (1 | Subject)", d)
    found = fit.means("Days")
    np.testing.assert_allclose(found["estimate"], d.groupby("Days")["Reaction"].mean(), rtol=1e-10)
    with pytest.raises(ml.OptionError, match="factor, which has no slope"):
        fit.slopes("Days")
    assert fit.means("Days", at={"Days": [3.0, 1]})["Days"].tolist() == [3, 1]
    with pytest.raises(ml.OptionError, match="has '3.5', which is no level of 'Days'"):
        fit.means("Days", at={"Days": 3.5})


def test_frames_are_of_the_library_of_the_data() -> None:
    polars = pytest.importorskip("polars")
    pyarrow = pytest.importorskip("pyarrow")
    d = ml.load("orthodont")
    formula = "distance ~ age * Sex + (1 | Subject)"
    assert isinstance(ml.lmer(formula, d).means("Sex").frame(), pd.DataFrame)
    fit = ml.lmer(formula, ml.load("orthodont", "polars"))
    assert isinstance(fit.means("Sex").frame(), polars.DataFrame)
    assert fit.contrasts("Sex").frame().columns[:2] == ["contrast", "estimate"]
    fit = ml.lmer(formula, pyarrow.Table.from_pandas(d))
    assert isinstance(fit.slopes("age", by="Sex").frame(), pyarrow.Table)


def test_columns_are_those_documented() -> None:
    fit = fitted("distance ~ age * Sex + (age | Subject)", "orthodont")
    ends = ["estimate", "std_error", "df", "conf_low", "conf_high"]
    tested = ["estimate", "std_error", "df", "statistic", "p_value", "conf_low", "conf_high"]
    assert list(fit.means("Sex").frame()) == ["Sex", *ends]
    assert list(fit.means("Sex", by="age", at={"age": [8, 9]}).frame()) == ["Sex", "age", *ends]
    assert list(fit.slopes("age", by="Sex").frame()) == ["variable", "Sex", *tested]
    assert list(fit.contrasts("Sex", by="age", at={"age": 8}).frame()) == ["contrast", "age", *tested]
    assert len(fit.means("Sex")) == 2 and fit.means("Sex")["Sex"].tolist() == ["Male", "Female"]


@pytest.mark.slow
def test_combined_and_regrouped_contrasts_agree() -> None:
    fit = fitted("angle ~ recipe * temperature + (1 | recipe:replicate)", "cake")
    grouped = fit.means("recipe", by="temperature").contrasts()
    regrouped = fit.means(["recipe", "temperature"]).contrasts(by="temperature")
    pd.testing.assert_frame_equal(grouped.frame(), regrouped.frame())
    every = fit.means("recipe", by="temperature").contrasts(by=[])
    assert len(every) == 18 * 17 // 2 and every["contrast"][0] == "A 175 - B 175"
    back = fit.contrasts("recipe", "revpairwise")
    np.testing.assert_allclose(back["estimate"], -fit.contrasts("recipe")["estimate"], atol=1e-12)
    assert back["contrast"].tolist() == ["B - A", "C - A", "C - B"]
    control = fit.contrasts("recipe", "trt.vs.ctrl", ref="C")
    assert control["contrast"].tolist() == ["A - C", "B - C"]
    assert fit.contrasts("recipe", "trt.vs.ctrl", ref=-1)["contrast"].tolist() == ["A - C", "B - C"]


def test_difference_can_be_estimable_where_the_means_are_not() -> None:
    d = data("sleepstudy").assign(twin=lambda x: np.where(x["Subject"].astype(str) < "340", "a", "b"))
    d["copy"] = np.where(d["twin"] == "a", "u", "v")  # confounded with twin
    d["late"] = d["Days"] > 4
    with pytest.warns(ml.RankWarning):
        fit = ml.lmer("Reaction ~ twin + copy + late + (1 | Subject)", d)
    assert np.isnan(fit.means("twin")["estimate"]).all()
    assert "NaN: 2 of 2 cannot be estimated" in str(fit.means("twin"))
    assert np.isnan(fit.contrasts("twin")["estimate"]).all()
    assert np.isfinite(fit.means("late")["estimate"]).all()  # over twins and copies alike, it is
    assert np.isnan(fit.means("late", at={"twin": "a", "copy": "v"})["estimate"]).all()
    alone = fit.contrasts("late", at={"twin": "a", "copy": "v"})
    assert alone["estimate"][0] == pytest.approx(-fit.fixef()["estimate"].iloc[-1])
    assert fit.contrasts("late")["estimate"][0] == pytest.approx(-fit.fixef()["estimate"].iloc[-1])
    assert fit.means(["twin", "copy"]).frame()["estimate"].isna().tolist() == [False, True, True, False]
    cells = fit.means("twin", weights="cells")  # the cells there are
    np.testing.assert_allclose(cells["estimate"], d.groupby("twin")["Reaction"].mean(), rtol=1e-6)


def test_offset_given_as_an_array_stands_at_its_mean() -> None:
    d = data("orthodont").assign(o=lambda x: x["age"] * 0.3)
    as_column = ml.lmer("distance ~ Sex + (1 | Subject)", d, offset="o")
    as_array = ml.lmer("distance ~ Sex + (1 | Subject)", d, offset=d["o"].to_numpy())
    np.testing.assert_allclose(as_array.means("Sex")["estimate"], as_column.means("Sex")["estimate"], rtol=1e-9)
    np.testing.assert_allclose(as_array.contrasts("Sex")["p_value"], as_column.contrasts("Sex")["p_value"], rtol=1e-6)
    assert as_column.slopes("o")["estimate"][0] == pytest.approx(1.0)
    moved = as_column.means("Sex", at={"o": d["o"].mean() + 2})["estimate"] - as_column.means("Sex")["estimate"]
    np.testing.assert_allclose(moved, 2.0, rtol=1e-12)


def test_limits_of_a_square_root_stop_at_zero() -> None:
    d = data("sleepstudy").assign(small=lambda x: (x["Reaction"] - x["Reaction"].mean()).abs() ** 2)
    fit = ml.lmer("sqrt(small) ~ Days + (1 | Subject)", d)
    made = fit.means("Days", at={"Days": [-9, 0]}, transform="response")
    assert (made["conf_low"] >= 0).all() and (made["conf_low"] <= made["conf_high"]).all()
    with pytest.raises(ml.OptionError, match="does not know how to undo"):
        ml.lmer("I(Reaction^2) ~ Days + (1 | Subject)", d).means(transform="response")
    plain = fitted("Reaction ~ Days + (Days | Subject)", "sleepstudy")
    assert plain.means(transform="response")["estimate"] == plain.means()["estimate"]


def test_contrasts_of_a_root_stay_on_its_scale() -> None:
    fit = fitted("sqrt(Reaction) ~ Days + (1 | Subject)", "sleepstudy")
    made = fit.contrasts("Days", at={"Days": [1, 8]}, transform="response")
    assert made["estimate"] == fit.contrasts("Days", at={"Days": [1, 8]})["estimate"]
    assert "Differences on the scale of sqrt(Reaction)." in made.messages()
    logs = fitted("log(Reaction) ~ Days + (1 | Subject)", "sleepstudy")
    ratio = logs.contrasts("Days", at={"Days": [1, 8]}, transform="response")
    assert ratio["contrast"].tolist() == ["1 / 8"] and "Ratios on the scale of Reaction" in str(ratio)


def test_fit_saved_without_its_data(tmp_path: Path) -> None:
    fit = fitted("distance ~ age * Sex + (age | Subject)", "orthodont")
    fit.save(tmp_path / "small.mlv")
    fit.save(tmp_path / "whole.mlv", data=True)
    small, whole = ml.read(tmp_path / "small.mlv"), ml.read(tmp_path / "whole.mlv")
    for again, at in ((small, {"age": 11}), (whole, None)):
        for verb, arguments in (("means", ("Sex",)), ("contrasts", ("Sex",)), ("slopes", ("age",))):
            found, expected = (getattr(one, verb)(*arguments, at=at).frame() for one in (again, fit))
            pd.testing.assert_frame_equal(found, expected, rtol=1e-8)
    with pytest.raises(ml.DataError, match="mean of 'age' is not known; give the value"):
        small.means("Sex")
    with pytest.raises(ml.DataError, match="frequencies are not known"):
        small.means("Sex", at={"age": 11}, weights="cells")


def test_prints_as_text_and_html() -> None:
    fit = fitted("angle ~ recipe * temperature + (1 | recipe:replicate)", "cake")
    made = fit.contrasts("recipe", by="temperature")
    text = str(made)
    assert text == repr(made) and text.startswith("Contrasts of means of angle:\n\ntemperature = 175:\ncontrast")
    assert "P-values and intervals adjusted for 3 tests in each group by Tukey's method." in text
    rows = [line for line in text.splitlines() if line.startswith("A - B")]
    assert len(rows) == 6 and float(rows[0].split()[3]) == pytest.approx(made["estimate"][0], rel=1e-2)
    page = made._repr_html_()
    assert page.count("<table") == 6 and "temperature = 225" in page and "<script" not in page
    assert "intervals by Bonferroni's method" in str(fit.contrasts("recipe", adjust="holm"))
    assert "Intervals adjusted for 3 estimates by Šidák's method." in str(fit.means("recipe", adjust="sidak"))
    assert " df " not in str(fit.means("recipe", ddf="none")).splitlines()[1]
    assert "Averaged over temperature, by frequencies." in str(fit.means("recipe", weights="proportional"))


def test_plot_draws_the_table() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fit = fitted("angle ~ recipe * temperature + (1 | recipe:replicate)", "cake")
    made = fit.means("recipe", by="temperature")
    ax = made.plot()
    points = next(line for line in ax.lines if len(line.get_xdata()) == len(made))
    np.testing.assert_allclose(points.get_xdata(), made["estimate"])
    spans = ax.collections[0].get_segments()
    np.testing.assert_allclose([span[:, 0] for span in spans], np.column_stack([made["conf_low"], made["conf_high"]]))
    assert ax.get_yticklabels()[0].get_text() == "A, 175"
    _, own = plt.subplots()
    assert made.contrasts().plot(own) is own
    with pytest.raises(ml.OptionError, match="ax must be a matplotlib Axes"):
        made.plot("here")
    plt.close("all")


# -- input that is refused -------------------------------------------------------------------------------------------

BAD: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
    ("means", ("recepie",), {}, "'recepie' is no fixed predictor of the model; did you mean 'recipe'?"),
    ("means", ("replicate",), {}, "'replicate' is no fixed predictor of the model; there are 'recipe', 'temp'"),
    ("means", ("temp",), {}, "'temp' is a number, not a factor; give the values to take means at, as in at={'temp'"),
    ("means", (5,), {}, "factors must be the name of a column or a list of names, not 5"),
    ("means", (["recipe", "recipe"],), {}, "'recipe' is named more than once"),
    ("means", ("recipe",), {"by": "recipe"}, "'recipe' is both in factors and in by"),
    ("means", ("recipe",), {"at": {"recipe": "D"}}, "at['recipe'] has 'D', which is no level of 'recipe' in the data"),
    ("means", ("recipe",), {"at": {"recipe": ["A", "A"]}}, "at['recipe'] has 'A' more than once"),
    ("means", ("recipe",), {"at": {"recipe": []}}, "at['recipe'] holds no value"),
    ("means", ("recipe",), {"at": {"temp": "warm"}}, "at['temp'] must be a number or a list of numbers"),
    ("means", ("recipe",), {"at": {"temp": [180, float("nan")]}}, "at['temp'] must be a number"),
    ("means", ("recipe",), {"at": {"tmp": 180}}, "at names 'tmp', which is no fixed predictor of the model; did you"),
    ("means", ("recipe",), {"at": [180]}, "at must be a dict of column to value or values"),
    ("means", ("recipe",), {"weights": "equl"}, "weights 'equl' is not known; did you mean 'equal'?"),
    ("means", ("recipe",), {"weights": 3}, "weights 3 is not known; allowed are 'equal', 'proportional', 'cells'"),
    ("means", ("recipe",), {"level": 95}, "level must lie between 0 and 1"),
    ("means", ("recipe",), {"ddf": "kr"}, "ddf 'kr' is not known"),
    ("means", ("recipe",), {"adjust": "tukey"}, "adjust='tukey' is for pairwise comparisons"),
    ("means", ("recipe",), {"adjust": "bonf"}, "adjust 'bonf' is not known"),
    ("means", ("recipe",), {"transform": "log"}, "transform 'log' is not known"),
    ("contrasts", ("recipe", "pairs"), {}, "method 'pairs' is not known"),
    ("contrasts", ("recipe", 3), {}, "method 3 is not known"),
    ("contrasts", ("recipe", {}), {}, "the dict of contrasts is empty"),
    ("contrasts", ("recipe", {"x": [1, -1]}), {}, "the contrast 'x' needs 3 numbers that are not all zero"),
    ("contrasts", ("recipe", {"x": [0, 0, 0]}), {}, "the contrast 'x' needs 3 numbers that are not all zero"),
    ("contrasts", ("recipe", {"x": {"D": 1}}), {}, "the contrast 'x' names 'D', which is none of the means"),
    ("contrasts", ("recipe", {"x": "ABC"}), {}, "the contrast 'x' needs 3 numbers"),
    ("contrasts", ("recipe", "poly"), {"adjust": "tukey"}, "adjust='tukey' is for all pairwise comparisons only"),
    ("contrasts", ("recipe", "trt.vs.ctrl"), {"ref": "D"}, "ref 'D' is none of the means"),
    ("contrasts", ("recipe", "pairwise"), {"ref": "A"}, "ref is for method 'trt.vs.ctrl' only"),
    ("contrasts", ("recipe",), {"at": {"recipe": "A"}}, "there is a single mean, so there is nothing to compare"),
    ("slopes", ("recipe",), {}, "'recipe' is a factor, which has no slope; compare its levels with contrasts('recipe')"),
    ("slopes", ("tempp",), {}, "'tempp' is no fixed predictor of the model; did you mean 'temp'?"),
    ("slopes", ("temp",), {"by": "temp"}, "'temp' is a number, not a factor; give the values to take slopes at"),
]


@pytest.mark.parametrize(("verb", "arguments", "options", "message"), BAD, ids=lambda v: str(v)[:40])
def test_bad_input_says_what_is_wrong(
    verb: str, arguments: tuple[Any, ...], options: dict[str, Any], message: str
) -> None:
    fit = fitted("angle ~ recipe * temp + (1 | recipe:replicate)", "cake")
    with pytest.raises(ml.MultilevelError, match=re.escape(message)):
        getattr(fit, verb)(*arguments, **options)


def test_other_refusals() -> None:
    fit = fitted("angle ~ recipe * temp + (1 | recipe:replicate)", "cake")
    with pytest.raises(ml.OptionError, match="there is no column 'estimat'; did you mean 'estimate'?"):
        fit.means("recipe")["estimat"]
    with pytest.raises(ml.OptionError, match="by names 'temp', which is no column of these means"):
        fit.means("recipe").contrasts(by="temp")
    with pytest.raises(ml.OptionError, match="no fixed effects"):
        fitted("Reaction ~ 0 + (1 | Subject)", "sleepstudy").means()
    with pytest.raises(ml.OptionError, match="REML"):
        ml.lmer("Reaction ~ Days + (1 | Subject)", data("sleepstudy"), REML=False).means(ddf="kenward-roger")
    rng = np.random.default_rng(1)
    many = pd.DataFrame({name: rng.choice(list("abcdefghijklmnop"), 3000) for name in "uvwxz"})
    many["g"] = rng.integers(0, 20, 3000)
    many["y"] = rng.normal(size=3000) + many["g"]
    wide = ml.lmer("y ~ u + v + w + x + z + (1 | g)", many)
    assert len(wide.means("u", at={"v": "a", "w": "b"})) == 16
    with pytest.raises(ml.OptionError, match="grid would have"):
        from multilevel import reference_grid

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reference_grid, "MAX_CELLS", 1 << 20)
            wide.means("u")
