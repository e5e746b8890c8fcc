"""report(): the numbers are the model's, the page is sound, and it loads nothing."""

from __future__ import annotations

import os
import re
import warnings
from functools import cache

import numpy as np
import pandas as pd
import polars as pl
import pytest
from generalised_models import MODELS, fitted
from posterior_samples import HERDS, SLEEP, sampled
from report_reader import Page

import multilevel as ml
from multilevel.report_effects import coefficients
from multilevel.report_html import decimals, fixed, number
from multilevel.report_origin import call_text, method_text

SECTIONS = [
    "short", "question", "data", "model", "estimates", "variances", "groups", "predictions", "checks", "evidence", "care",
    "origin", "cite",
]  # fmt: skip


@cache
def sleep() -> ml.Fit:
    return ml.lmer(SLEEP, ml.load("sleepstudy"))


def page_of(model, tmp_path, **options) -> Page:
    return Page(ml.report(model, tmp_path / "report.html", **({"pictures": False} | options)))


def fit(formula, data, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ml.MultilevelWarning)
        return ml.Model(formula, data, **options).fit(threads=1)


def grouped(n: int = 120) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    data = {"y": rng.gamma(2, 2, n), "x": rng.normal(size=n), "k": rng.choice(list("abc"), n), "g": np.arange(n) % 12}
    frame = pd.DataFrame(data)
    return frame.assign(z=rng.poisson(1.0, n), p=rng.uniform(0.1, 0.9, n), one=np.where(frame["y"] > 3, "yes", "no"))


# -- content ----------------------------------------------------------------------------------------------------


def test_the_numbers_are_those_of_the_fit(tmp_path) -> None:
    page = page_of(sleep(), tmp_path, level=0.9)
    table, expected = page.table("Fixed effects"), sleep().fixef(0.9)
    assert table.heads == ["term", "estimate", "std. error", "90% from", "to", "df", "p"]
    assert table.names() == expected["term"].tolist()
    for j, name in enumerate(["estimate", "std_error", "conf_low", "conf_high", "df", "p_value"], start=1):
        assert table.column(j) == expected[name].tolist()
    shown = [cell[0] for cell in table.rows[1]]
    assert shown[1:3] == ["10.47", "1.55"]  # to three digits of the standard error
    variances = page.table("What varies")
    assert variances.column(3)[:2] == sleep().varcorr()["sdcor"].tolist()[:2]
    shares = page.table("Shares of the variance")
    expected_shares = [*sleep().icc(interval=None)["estimate"], *sleep().r2(interval=None)["estimate"]]
    assert shares.column(1) == expected_shares
    groups = page.table("Subject: Days")
    effects = sleep().ranef().query("term == 'Days'").sort_values("estimate", ascending=False)
    assert groups.names() == effects["level"].astype(str).tolist()
    assert groups.column(1) == effects["estimate"].tolist()
    half = 1.6448536269514722  # of a normal interval of 90 %
    assert np.allclose(groups.column(3), effects["estimate"] - half * effects["std_error"], rtol=1e-12)


def test_every_section_is_there_and_linked(tmp_path) -> None:
    page = page_of(sleep(), tmp_path, author="A. Reader")
    ids = [given["id"] for _, given in page.tags if given.get("id")]
    links = [given["href"] for tag, given in page.tags if tag == "a"]
    assert [one for one in ids if one != "contents"] == SECTIONS
    assert links[: len(SECTIONS)] == [f"#{one}" for one in SECTIONS] and {one[1:] for one in links} <= set(ids)
    assert [tag for tag, _ in page.tags if tag in ("h1", "h2")].count("h1") == 1
    assert "How does Reaction differ with Days" in page.sections["question"]
    assert "Subject has 18 levels of 10 rows each." in page.sections["data"]
    assert sleep().convergence.sentence in page.sections["evidence"]
    assert ml.__version__ in page.sections["origin"] and "A. Reader" in page.sections["origin"]
    assert [row[0][0] for row in page.table("Checks").rows] == [one.name for one in sleep().check()]
    assert [row[2][0] for row in page.table("Checks").rows] == [one.sentence for one in sleep().check()]


def test_effects_are_read_in_their_units(tmp_path) -> None:
    page = page_of(sleep(), tmp_path, units={"Reaction": "ms", "Days": "day"})
    assert (
        "one more day of Days goes with Reaction higher by 10.5 ms on average (95% interval 7.2 to 13.7)." in page.text
    )
    assert "the expected Reaction for a typical group is 251.4 ms" in page.text
    assert "depends on how the data came about" in page.text


def test_ratios_and_levels_of_a_binomial_model(tmp_path) -> None:
    model = fitted("binomial")
    page = page_of(model, tmp_path)
    table, fixef = page.table("The same as odds ratios"), model.fixef().iloc[1:]
    assert np.allclose(table.column(1), np.exp(fixef["estimate"]), rtol=1e-14)
    assert np.allclose(table.column(3), np.exp(fixef["conf_high"]), rtol=1e-14)
    ratio = float(np.exp(fixef["estimate"].iloc[0]))
    assert f"period being 2 rather than 1 goes with the odds of incidence times {ratio:.3f}, 63% lower" in page.text
    chance = 1 / (1 + np.exp(-model.fixef()["estimate"].iloc[0]))
    assert f"the probability of incidence for a typical group is {chance:.3f}" in page.text
    assert "averaged over groups" in page.text
    assert "period being 2 rather than 1" in page.text and "Other predictors" not in page.text  # one predictor alone


@pytest.mark.parametrize("name", MODELS)
def test_families_that_share_models(name, tmp_path) -> None:
    model = fitted(name)
    page = page_of(model, tmp_path)
    if len(model.fixef()):
        assert page.table("Fixed effects").column(1) == model.fixef()["estimate"].tolist()
    assert model.formula in page.sections["model"]
    assert page.sections["checks"].count("ok") >= 3


FAMILIES = {
    "gamma": ("y", "the mean of y", "Gamma(μi)"),
    "inverse_gaussian": ("y", "the mean of y", "InverseGaussian(μi)"),
    "lognormal": ("y", "the median of y", "log(yi) ~ Normal"),
    "student": ("y", "y higher|y lower", "Student t(df"),
    "tweedie": ("y", "the mean of y", "Tweedie(μi)"),
    "poisson": ("z", "the mean of z", "Poisson(μi)"),
    "nbinom1": ("z", "the mean of z", "NegativeBinomial(μi)"),
    "nbinom2": ("z", "the mean of z", "NegativeBinomial(μi)"),
    "beta": ("p", "the odds m/", "Beta(μi φ"),
    "betabinomial": ("cbind(z, 9 - z)", "the odds of z", "BetaBinomial(ni"),
    "binomial": ("one", "the odds of one being yes", "Bernoulli(pi)"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_its_law_and_its_words(family, tmp_path) -> None:
    response, words, law = FAMILIES[family]
    model = fit(f"{response} ~ x + (1 | g)", grouped(), family=family)
    page = page_of(model, tmp_path)
    assert re.search(words, page.sections["estimates"]) and law in page.sections["model"]
    assert page.table("Fixed effects").column(1) == model.fixef()["estimate"].tolist()


def test_transformed_responses_and_curves(tmp_path) -> None:
    model = fit("log(y) ~ x + I(x**2) + k + (1 | g)", grouped())
    page = page_of(model, tmp_path)
    ratios = page.table("The same as ratios of geometric means")
    assert ratios.names() == ["k[T.b]", "k[T.c]"]  # parts of a curve have no ratio of their own
    assert "one part of the curve along x" in page.text and "the geometric mean of y" in page.text


def test_atoms_of_coefficients() -> None:
    data = grouped().rename(columns={"x": "odd: [T.b] $x$"})
    model = fit("y ~ k * `odd: [T.b] $x$` + factor(z) + (1 | g)", data)
    found = {one.name: one for one in coefficients(model.design)}
    assert set(found) == set(model.design.all_names) and all(one.atoms is not None for one in found.values())
    both = found["k[T.b]:odd: [T.b] $x$"].atoms
    assert [(one.kind, one.label, one.level, one.base) for one in both] == [
        ("level", "k", "b", "a"), ("number", "odd: [T.b] $x$", "", "")
    ]  # fmt: skip
    assert found["k[T.c]"].others == ("odd: [T.b] $x$",)
    assert found["factor(z)[T.1]"].atoms[0].level == "1"


def test_posteriors_have_priors_draws_and_probabilities(tmp_path) -> None:
    posterior = sampled(SLEEP, ml.load("sleepstudy"), {"draws": 400}, priors={"sigma": ml.HalfNormal(50)})
    page = page_of(posterior, tmp_path)
    table, expected = page.table("Fixed effects"), posterior.fixef()
    for j, name in enumerate(["estimate", "est_error", "ci_low", "ci_high"], start=1):
        assert table.column(j) == expected[name].tolist()
    assert table.column(5) == (posterior.draws_kept.beta > 0).mean(axis=(0, 1)).tolist()
    priors = page.table("Prior distributions")
    assert ["sigma", "HalfNormal(50)", "user"] in [[cell[0] for cell in row] for row in priors.rows]
    assert page.table("Standard deviations").column(1) == posterior.parameters()["estimate"].tolist()
    assert posterior.trust[1] in page.sections["evidence"] and "seed=1" in page.sections["origin"]
    assert "priors={'sigma': ml.HalfNormal(50)}" in page.sections["origin"]
    shares = page.table("Shares of the variance")
    assert shares.column(2)[:2] == posterior.icc()["ci_low"].tolist()


def test_a_posterior_of_a_binomial_model_without_its_group_effects(tmp_path) -> None:
    posterior = sampled(HERDS, ml.load("cbpp"), {"keep": "parameters"}, family="binomial")
    page = page_of(posterior, tmp_path)
    assert "group effects were not kept" in page.sections["groups"]
    assert np.allclose(page.table("The same as odds ratios").column(1), np.exp(posterior.fixef()["estimate"][1:]))


# -- what to be careful about -----------------------------------------------------------------------------------


def test_cautions_of_a_singular_fit(tmp_path) -> None:
    page = page_of(fit("Yield ~ 1 + (1 | Batch)", ml.load("dyestuff2")), tmp_path)
    assert "The fit is singular: sd(Batch, Intercept) = 0" in page.sections["care"]
    assert "Batch has 6 levels" in page.sections["care"]
    assert "pooled completely" in page.sections["groups"]


def test_cautions_of_lost_rows_columns_and_unequal_groups(tmp_path) -> None:
    data = grouped().assign(x2=lambda t: 2 * t["x"], g=lambda t: np.where(t.index < 100, "big", t["g"].astype(str)))
    data.loc[:11, "y"] = np.nan
    page = page_of(fit("y ~ x + x2 + (1 | g)", data), tmp_path)
    care = page.sections["care"]
    assert "12 of 120 rows (10%) were left out" in care and "determine them: x2" in care
    assert "very unequal size (1 to 88 rows)" in care
    assert "x2: not estimated" in page.text and page.table("Fixed effects").column(1)[2] is None


def test_a_fit_that_did_not_converge_says_so_first(tmp_path) -> None:
    with pytest.warns(ml.ConvergenceWarning):
        model = ml.Model(SLEEP, ml.load("sleepstudy")).fit(max_evaluations=1)
    page = page_of(model, tmp_path)
    assert (
        page.sections["short"].startswith("In short") and "Do not rely on these numbers yet." in page.sections["care"]
    )
    assert page.sections["short"].split("In short")[1].strip().startswith("Not to be relied on yet.")


def test_too_few_levels_and_nothing_to_say(tmp_path) -> None:
    assert "k has 3 levels only" in page_of(fit("y ~ x + (1 | k)", grouped()), tmp_path).sections["care"]
    rng = np.random.default_rng(8)
    clean = pd.DataFrame({"g": np.repeat(np.arange(30), 8), "x": rng.normal(size=240)})
    clean["y"] = rng.normal(size=30)[clean["g"]] + clean["x"] + rng.normal(size=240)
    assert "Nothing in the checks" in page_of(fit("y ~ x + (1 | g)", clean), tmp_path).sections["care"]


# -- numbers as text --------------------------------------------------------------------------------------------


def test_numbers_are_written_as_people_write_them() -> None:
    assert [number(x) for x in (0.0, -1.25, 123456.0, 1e-9, float("nan"), float("inf"), None, 2.0)] == [
        "0", "−1.250", "123,456", "1.00e−09", "–", "∞", "–", "2"
    ]  # fmt: skip
    assert [decimals(e) for e in (1.546, 0.01, 250.0, 0.0, None, 1e-9)] == [2, 4, 0, None, None, None]
    assert fixed(-0.001, 2) == "0.00" and fixed(-12.345, 1) == "−12.3" and fixed(1234.5, 0) == "1,234"


def test_the_call_makes_the_model_again() -> None:
    model = fitted("zero-inflated")
    scope: dict = {"data": ml.load("owls")}
    exec(call_text(model), scope)
    assert scope["fit"].criterion == pytest.approx(model.criterion, rel=1e-9)
    serial = ml.lmer(
        "Reaction ~ Days + (1 | Subject)", ml.load("sleepstudy"), correlation="ar1(Days | Subject)", REML=False
    )
    scope = {"data": ml.load("sleepstudy")}
    exec(call_text(serial), scope)
    assert scope["fit"].criterion == pytest.approx(serial.criterion, rel=1e-9)


@pytest.mark.parametrize("options", [{"quadrature": 0}, {"quadrature": 1}, {"quadrature": 5}])
def test_the_call_has_the_points_of_quadrature(options: dict[str, int]) -> None:
    data = ml.load("cbpp")
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    fit = ml.Model(formula, data, family="binomial").fit(**options)
    scope: dict[str, object] = {"data": data}
    exec(call_text(fit), scope)
    assert scope["fit"].loglik == pytest.approx(fit.loglik, rel=1e-12)
    assert ("quick start" in method_text(fit)) == (options["quadrature"] == 0)


def test_the_call_holds_a_shape_that_was_held() -> None:
    data = ml.load("sleepstudy")
    fit = ml.Model("Reaction ~ Days + (1 | Subject)", data, family=ml.student(df=4)).fit()
    scope: dict[str, object] = {"data": data}
    exec(call_text(fit), scope)
    assert scope["fit"].loglik == pytest.approx(fit.loglik, rel=1e-10)
    free = ml.Model("Reaction ~ Days + (1 | Subject)", data, family="student").fit()
    exec(call_text(free), scope)
    assert scope["fit"].loglik == pytest.approx(free.loglik, rel=1e-8)


@pytest.mark.parametrize(
    "options", [{"draws": 200, "thin": 2}, {"draws": 500, "warmup": 200, "method": "nuts", "target": 0.9}]
)
def test_the_call_makes_the_draws_again(options: dict[str, object], tmp_path) -> None:
    data = ml.load("sleepstudy")
    made = ml.Model("Reaction ~ Days + (1 | Subject)", data).sample(chains=2, seed=3, progress=False, **options)
    made.save(tmp_path / "draws.mlv", data=True)
    for one in (made, ml.read(tmp_path / "draws.mlv")):
        scope: dict[str, object] = {"data": data}
        exec(call_text(one), scope)
        np.testing.assert_array_equal(scope["posterior"].draws_kept.beta, made.draws_kept.beta)


def test_frames_of_polars_and_rows_read_back(tmp_path) -> None:
    model = fit("y ~ x + k + (1 | g)", pl.from_pandas(grouped()))
    assert page_of(model, tmp_path).table("Fixed effects").column(1) == model.fixef()["estimate"].to_list()
    model.save(tmp_path / "whole.mlv", data=True)
    page = page_of(ml.read(tmp_path / "whole.mlv"), tmp_path)
    assert page.table("Columns used").names() == ["y", "x", "k"] and "Checks of the model" in page.text


def test_a_fit_read_without_its_rows_says_what_it_lacks(tmp_path) -> None:
    sleep().save(tmp_path / "bare.mlv")
    page = page_of(ml.read(tmp_path / "bare.mlv"), tmp_path, pictures=True)
    assert page.table("Fixed effects").column(1) == sleep().fixef()["estimate"].tolist()
    assert page.table("Grouping factors").rows == [[("Subject", None), ("18", 18.0)]]
    assert "without its rows" in page.sections["data"] and "could not be made" in page.sections["checks"]
    assert "were not checked" in page.sections["care"]
    assert os.path.getsize(tmp_path / "report.html") < 200_000
