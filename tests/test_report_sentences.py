"""The sentences of report(): places, interactions, scales and cautions claim what the model says, and no more."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from report_reader import Page

import multilevel as ml
from multilevel.report_model import equations
from multilevel.report_sentences import readings
from multilevel.report_words import estimates


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    n = 120
    columns = {"y": rng.normal(size=n), "x": rng.normal(size=n), "z": rng.normal(size=n), "g": np.arange(n) % 10}
    made = pd.DataFrame({**columns, "k": rng.choice(list("abc"), n), "b": rng.choice([True, False], n)})
    made["o"] = pd.Categorical(made["k"], categories=list("abc"), ordered=True)
    return made.assign(c=rng.poisson(2, n), size=10, share=rng.binomial(10, 0.4, n) / 10)


def fitted(formula: str, data, **options) -> ml.Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ml.MultilevelWarning)
        return ml.Model(formula, data, **options).fit(threads=1)


def plain(html: str) -> str:
    return re.sub("<[^>]*>", "", html)


def said(model: ml.Fit) -> dict[str, str]:
    found = estimates(model, 0.95)
    return dict(zip([one.name for one in found], map(plain, readings(model, found, 0.95, {})), strict=True))


def symbols(model: ml.Fit) -> list[str]:
    return [plain(line) for line in equations(model)]


PLACES = {
    "y ~ 1 + (1 | g)": "Intercept: the expected y for a typical group is",
    "y ~ x + k + (1 | g)": "where x is zero and k is a, the expected",
    "y ~ center(x) + (1 | g)": "where x is at its mean, the expected",
    "y ~ x + I(x**2) + (1 | g)": "Intercept: where x is zero, the expected",
    "y ~ poly(x, 2) + (1 | g)": "where the columns of poly(x, 2) are zero, the",
    "y ~ o + x + (1 | g)": "where x is zero, averaged over the levels of o, the expected",
    "y ~ C(o) + (1 | g)": "averaged over the levels of o, the expected",
    "y ~ b + (1 | g)": "where b is false, the expected",
    "y ~ k / x + (1 | g)": "where k is a and x is zero, the expected",
}


@pytest.mark.parametrize("formula", PLACES)
def test_the_intercept_names_its_place(formula, data) -> None:
    assert PLACES[formula] in said(fitted(formula, data))["Intercept"]


def test_slopes_within_levels_are_read_as_such(data) -> None:
    model = fitted("y ~ k / x + (1 | g)", data)
    text = said(model)["k[b]:x"]
    assert text.startswith("k[b]:x: one more unit of x goes with y") and "This is where k is b." in text
    assert "beyond" not in text
    other = fitted("y ~ k * x + (1 | g)", data).fixef().set_index("term")["estimate"]  # the same model, told otherwise
    slope = other["x"] + other["k[T.b]:x"]
    assert model.fixef().set_index("term")["estimate"]["k[b]:x"] == pytest.approx(slope, rel=1e-8)


def test_interactions_come_on_top_of_what_is_there(data) -> None:
    two = said(fitted("y ~ x * k + z + (1 | g)", data))
    assert "one more unit of x together with k being b rather than a goes with" in two["x:k[T.b]"]
    assert "beyond what each goes with alone. Other predictors are held the same." in two["x:k[T.b]"]
    assert "This is where k is a, other predictors held the same." in two["x"]
    three = said(fitted("y ~ x * z * k + (1 | g)", data))
    assert "This is where k is a." in three["x:z"] and "alone or in pairs" in three["x:z:k[T.b]"]
    assert "one more unit of the product of x and z goes with" in said(fitted("y ~ x:z + (1 | g)", data))["x:z"]
    curved = said(fitted("y ~ k * (x + I(x**2)) + (1 | g)", data))
    assert curved["k[T.b]:x"] == (
        "k[T.b]:x: one part of how k and x act together; read the predictions, not this number alone."
    )


@pytest.mark.parametrize("convert", [lambda d: d, pl.from_pandas])
def test_columns_of_true_and_false(convert, data) -> None:
    text = said(fitted("y ~ b + x + (1 | g)", convert(data.drop(columns="o"))))["b"]
    assert "b being true rather than false goes with y" in text


def test_ratios_are_those_within_a_group(data) -> None:
    grouped, alone = fitted("c ~ x + (1 | g)", data, family="poisson"), fitted("c ~ x", data, family="poisson")
    assert "The group is held the same." in said(grouped)["x"] and "The group" not in said(alone)["x"]
    assert "held the same" not in said(fitted("y ~ x + (1 | g)", data))["x"]


def test_ratios_near_one_keep_their_digits(data) -> None:
    model = fitted("c ~ far + (1 | g)", data.assign(far=1000 * data["x"]), family="poisson")
    row = model.fixef().iloc[1]
    shown = re.search(r"times ([\d.]+) \(95% interval ([\d.]+) to ([\d.]+)\)", said(model)["far"])
    assert shown is not None
    for text, name in zip(shown.groups(), ["estimate", "conf_low", "conf_high"], strict=True):
        assert float(text) - 1 == pytest.approx(np.expm1(row[name]), abs=1e-5) and len(text) >= 7


def test_the_scale_of_group_effects_is_named(data, tmp_path) -> None:
    for formula, options, scale in (
        ("c ~ x + (1 | g)", {"family": "poisson"}, "log"),
        ("log(c + 1) ~ x + (1 | g)", {}, ""),
        ("b ~ x + (1 | g)", {"family": "binomial"}, "logit"),
    ):
        page = Page(ml.report(fitted(formula, data, **options), tmp_path / "a.html", pictures=False))
        assert (f"They are on the {scale} scale" in page.sections["groups"]) == bool(scale)
        assert "Intervals are normal, each by itself" in page.sections["groups"]


def test_laws_of_shares_yes_and_no_and_separate_terms(data) -> None:
    shares = fitted("share ~ x + (1 | g)", data, family="binomial", weights="size")
    assert symbols(shares)[0] == "ni sharei ~ Binomial(ni, pi)"
    answers = data.assign(answer=np.where(data["y"] > 0, "yes", "no"))
    assert symbols(fitted("answer ~ x", answers, family="binomial"))[0] == "[answeri = yes] ~ Bernoulli(pi)"
    counts = fitted("cbind(c, 20 - c) ~ x + (1 | g)", data, family="binomial")
    assert symbols(counts)[0] == "ci ~ Binomial(ni, pi)"
    apart = symbols(fitted("y ~ x + (1 | g) + (0 + x | g)", data))
    assert apart[-2:] == ["b₀,g ~ Normal(0, σb,g²)", "u₀,g ~ Normal(0, σu,g²)"]
    sleep = ml.load("sleepstudy")
    assert symbols(fitted("Reaction ~ Days + (Days || Subject)", sleep))[-1].endswith("ΣSubject diagonal")


def test_a_predictor_that_nearly_separates_is_a_caution(tmp_path) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=80)
    steep = pd.DataFrame({"g": np.repeat(np.arange(10), 8), "x": x, "y": (x > 0.05).astype(int)})
    steep.loc[3, "y"] = 1 - steep.loc[3, "y"]
    page = Page(ml.report(fitted("y ~ x + (1 | g)", steep, family="binomial"), tmp_path / "a.html", pictures=False))
    assert "x nearly tells the outcomes apart" in page.sections["care"]
    mild = fitted("cbind(incidence, size - incidence) ~ period + (1 | herd)", ml.load("cbpp"), family="binomial")
    assert "tells the outcomes" not in Page(ml.report(mild, tmp_path / "b.html", pictures=False)).sections["care"]


def test_criteria_are_called_what_they_are(tmp_path) -> None:
    for reml in (True, False):
        model = ml.lmer("Reaction ~ Days + (Days | Subject)", ml.load("sleepstudy"), REML=reml)
        text = Page(ml.report(model, tmp_path / "a.html", pictures=False)).sections["evidence"]
        assert ("−2 restricted log-likelihood" in text) == reml and ("same fixed part only" in text) == reml


def test_a_model_without_groups_speaks_of_none(tmp_path) -> None:
    page = Page(ml.report(fitted("math ~ homework", ml.load("math10")), tmp_path / "a.html", pictures=False))
    assert page.text.startswith("math: a regression model") and "with the groups" not in page.text
    assert "A linear model of math, without group effects" in page.sections["model"]


def test_estimates_without_an_interval_say_so(data) -> None:
    for family in ("gaussian", "poisson"):
        model = fitted("c ~ x", data, family=family)
        found = estimates(model, 0.95)
        for one in found:
            one.error = one.low = one.high = None
        assert all("(no 95% interval)." in plain(text) for text in readings(model, found, 0.95, {}))


def test_panels_of_checks_stand_in_three_columns_at_most() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from multilevel.report_drawn import in_three

    axes = in_three(ml.lmer("Reaction ~ Days + (Days | Subject)", ml.load("sleepstudy")).plot.check)
    axes[0].figure.canvas.draw()
    assert len(axes) == 7 and len({round(one.get_subplotspec().colspan.start) for one in axes}) == 3
    assert "Checks of Reaction" in axes[0].figure.get_suptitle()
    plt.close("all")
