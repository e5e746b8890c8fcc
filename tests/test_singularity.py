"""The singularity report: names, reasons, and simpler models whose cost is what a fit of them says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import multilevel as ml
from multilevel.formula import parse
from multilevel.singularity import _pieces, _reason, _split, least_squares, written

pytestmark = pytest.mark.filterwarnings("ignore::multilevel.MultilevelWarning")


def few_groups(seed: int, groups: int = 6, rows: int = 6, slope: float = 0.3) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(groups), rows)
    x = rng.normal(size=len(g))
    y = x + rng.normal(size=groups)[g] * (1 + slope * x) + rng.normal(size=len(g))
    return {"g": g, "x": x, "y": y}


def singular_fits(formula: str, wanted: int, **options: Any) -> list[tuple[dict[str, Any], Any]]:
    found = []
    for seed in range(60):
        data = few_groups(seed, **options)
        fit = ml.lmer(formula, data)
        if fit.is_singular:
            found.append((data, fit))
        if len(found) == wanted:
            break
    assert len(found) == wanted
    return found


def test_a_regular_fit_says_so() -> None:
    report = ml.lmer("Reaction ~ Days + (Days | Subject)", ml.load("sleepstudy")).singularity()
    assert not report and report.steps == () and report.suggestion is None
    assert str(report).startswith("Not singular")
    assert len(report.frame()) == 0


@pytest.mark.parametrize("reml", [True, False])
def test_a_variance_of_zero_leads_to_the_model_without_it(reml: bool) -> None:
    fit = ml.lmer("Yield ~ 1 + (1 | Batch)", ml.load("dyestuff2"), REML=reml)
    report = fit.singularity()
    assert report.components == ("sd(Batch, Intercept) = 0",)
    step = report.suggestion
    assert step is not None and step.formula == "Yield ~ 1" and not step.singular
    assert step.change == pytest.approx(0, abs=1e-8)
    assert step.aic_change == pytest.approx(-2, abs=1e-8)


@pytest.mark.parametrize("reml", [True, False])
def test_least_squares_is_the_mixed_models_criterion_at_zero_variance(reml: bool) -> None:
    data = ml.load("sleepstudy").assign(off=np.linspace(0, 3, 180))
    for weights in (None, np.tile([1, 2, 0.5], 60)):
        model = ml.Model("Reaction ~ Days + offset(off) + (1 | Subject)", data, weights=weights)
        assert least_squares(model.design, reml) == pytest.approx(model.criterion([0.0], reml), rel=1e-10)


def test_the_cost_is_that_of_fitting_the_simpler_formula() -> None:
    for data, fit in singular_fits("y ~ x + (x | g)", 5):
        report = fit.singularity()
        step = report.suggestion
        assert step is not None and not step.singular
        again = ml.lmer(step.formula, data)
        assert step.criterion == pytest.approx(again.criterion, abs=1e-7)
        assert step.change == pytest.approx(again.criterion - fit.criterion, abs=1e-7)
        assert step.aic_change == pytest.approx(again.aic - fit.aic, abs=1e-7)
        assert step.change > -1e-6  # a model within the other cannot fit better
        assert "Try: " + step.formula in str(report)


def test_a_correlation_of_one_is_put_in_words() -> None:
    for sign, words in ((1, "in lockstep, together."), (-1, "opposite ways: the higher one, the lower the other.")):
        assert words in _reason(None, f"cor(g, Intercept, x) = {sign}")  # type: ignore[arg-type]


def test_of_two_ways_the_one_with_the_lower_aic_is_taken() -> None:
    for data, fit in singular_fits("y ~ x + (x | g)", 5):
        step = fit.singularity().steps[0]
        ways = {f: ml.lmer(f, data).aic - fit.aic for f in ("y ~ x + (x || g)", "y ~ x + (1 | g)")}
        assert step.formula == min(ways, key=lambda f: ways[f])


def test_a_slope_without_variance_is_dropped_from_its_term() -> None:
    data, fit = singular_fits("y ~ x + (x || g)", 1, slope=0.0)[0]
    report = fit.singularity()
    assert "sd(g, x) = 0" in report.components
    assert report.steps[0].formula == "y ~ x + (1 | g)"
    assert report.steps[0].what == "x no longer varies by g"
    assert report.steps[0].change == pytest.approx(0, abs=1e-6)


def test_a_maximal_model_is_simplified_to_one_that_is_not_singular() -> None:
    kb07 = ml.load("kb07")
    fit = ml.lmer("RTtrunc ~ 1 + S + P + C + (1 + S + P + C | subj) + (1 + S + P + C | item)", kb07)
    report = fit.singularity()
    assert len(report.components) == len(report.reasons) == 2
    assert all(s.singular for s in report.steps[:-1]) and not report.steps[-1].singular
    again = ml.lmer(report.steps[-1].formula, kb07)
    assert not again.is_singular
    assert report.steps[-1].criterion == pytest.approx(again.criterion, abs=1e-6)
    table = report.frame()
    assert list(table["step"]) == [1, 2, 3] and list(table["formula"])[-1] == report.steps[-1].formula


def test_one_of_two_factors_without_variance() -> None:
    rng = np.random.default_rng(0)
    a, b = np.repeat(np.arange(10), 8), np.tile(np.arange(8), 10)
    for _ in range(30):
        y = rng.normal(size=10)[a] + rng.normal(size=80)
        fit = ml.lmer("y ~ 1 + (1 | a) + (1 | b)", {"y": y, "a": a, "b": b})
        if fit.is_singular:
            break
    assert fit.singularity().steps[0].formula == "y ~ 1 + (1 | a)"


def test_a_fit_without_its_rows_names_the_formula_without_a_cost(tmp_path: Any) -> None:
    fit = ml.lmer("Yield ~ 1 + (1 | Batch)", ml.load("dyestuff2"))
    fit.save(tmp_path / "a.mlv")
    report = ml.read(tmp_path / "a.mlv").singularity()
    assert report.steps[0].formula == "Yield ~ 1" and np.isnan(report.steps[0].change)
    assert "its cost is not known here" in str(report)


def test_parts_of_a_term_are_matched_with_their_effects() -> None:
    found = _pieces("1 + poly(x, 2) + recipe", ("Intercept", "poly(x, 2)[1]", "poly(x, 2)[2]", "recipe[T.B]"))
    assert found is not None
    assert {k: v.tolist() for k, v in found.items()} == {"1": [0], "poly(x, 2)": [1, 2], "recipe": [3]}
    assert _pieces("1 + x:z", ("Intercept", "x:z")) is None
    assert _split("1 + f(a + b) + c") == ["1", "f(a + b)", "c"]


def test_a_formula_is_written_as_one_would_type_it() -> None:
    for text in ("y ~ x + (x | g)", "y ~ 1 + (x || a:b)", "log(y) ~ 0 + x + (1 | g) + offset(z)"):
        assert parse(written(parse(text))).bars[0].group == parse(text).bars[0].group
        assert written(parse(text)) == text


# -- structures --------------------------------------------------------------------------------------------------------


def visits(seed: int, shared: float, noise: float = 1.0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    g, v = np.repeat(np.arange(12), 12), np.tile(np.arange(4), 36)
    own = shared * rng.normal(size=12)[g]
    return {"y": own + noise * rng.normal(size=144), "g": g, "v": v, "t": np.tile(np.arange(12), 12)}


def first_singular(formula: str, shared: float, part: str, **options: Any) -> tuple[dict[str, Any], Any]:
    for seed in range(60):
        data = visits(seed, shared)
        fit = ml.Model(formula, data, **options).fit()
        if any(part in one for one in fit.convergence.boundary):
            return data, fit
    raise AssertionError("no singular fit found")


@pytest.mark.parametrize("structure", ["homcs", "ar1"])
def test_a_correlation_of_one_is_one_effect(structure: str) -> None:
    data, fit = first_singular(f"y ~ 1 + {structure}(0 + factor(v) | g)", 1.0, "cor(")
    report = fit.singularity()
    step = report.suggestion
    assert step is not None and step.formula == "y ~ 1 + (1 | g)" and not step.singular
    assert step.change == pytest.approx(0, abs=1e-6)
    assert step.aic_change == pytest.approx(-2, abs=1e-6)
    assert "as one effect would" in str(report) and "AIC changes by -2.00" in str(report)


@pytest.mark.parametrize("structure", ["homcs", "ar1", "homdiag"])
def test_a_structured_term_without_variance_is_left_out(structure: str) -> None:
    data, fit = first_singular(f"y ~ 1 + {structure}(0 + factor(v) | g)", 0.0, "sd(")
    step = fit.singularity().suggestion
    assert step is not None and step.formula == "y ~ 1"
    assert step.change == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("structure", ["cs", "hetar1"])
def test_a_structure_with_many_sds_is_simplified_to_what_fits_as_well(structure: str) -> None:
    data, fit = first_singular(f"y ~ 1 + {structure}(0 + factor(v) | g)", 0.7, "(g,")
    report = fit.singularity()
    for step in report.steps:
        again = ml.lmer(step.formula, data)
        assert step.criterion == pytest.approx(again.criterion, abs=1e-6)
        assert step.aic_change == pytest.approx(again.aic - fit.aic, abs=1e-6)
        assert step.singular == again.is_singular
    assert report.steps and not report.steps[-1].singular


def test_options_are_kept_and_told() -> None:
    data, fit = first_singular("y ~ 1 + (1 | g)", 0.0, "sd(", correlation="ar1(t | g)")
    report = fit.singularity()
    step = report.suggestion
    assert step is not None and step.options == 'correlation="ar1(t | g)"'
    again = ml.Model("y ~ 1", data, correlation="ar1(t | g)").fit()
    assert step.criterion == pytest.approx(again.criterion, abs=1e-6)
    assert step.aic_change == pytest.approx(again.aic - fit.aic, abs=1e-6)
    assert 'Try: y ~ 1, with correlation="ar1(t | g)"' in str(report)
    assert list(report.frame()["options"]) == [step.options]


def test_a_known_covariance_is_kept_and_told() -> None:
    rng = np.random.default_rng(0)
    known = ml.KnownCovariance(np.arange(12), covariance=np.eye(12) + 0.2)
    for _ in range(60):
        data = visits(0, 1.0) | {"h": rng.integers(0, 6, 144)}
        fit = ml.Model("y ~ 1 + (1 | g) + (1 | h)", data, covariance={"g": known}).fit()
        if fit.convergence.boundary == ("sd(h, Intercept) = 0",):
            break
    step = fit.singularity().suggestion
    assert step is not None and step.formula == "y ~ 1 + (1 | g)" and step.options == "covariance= of g as before"
    assert step.change == pytest.approx(0, abs=1e-7)
