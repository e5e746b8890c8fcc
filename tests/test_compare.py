"""Comparisons of models against lme4, loo and ArviZ, and against simulated null distributions."""

from __future__ import annotations

import json
import re
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import posterior_samples
import pytest
from scipy.special import logsumexp
from scipy.stats import chi2

import multilevel as ml
from multilevel import DataError, OptionError
from multilevel.compare_posteriors import _columns as posterior_columns
from multilevel.loo import loo
from multilevel.nested import Step, step_between
from multilevel.stacking import stacking_weights

FOLDER = Path(__file__).parent / "golden_compare"
GOLDEN = json.loads((FOLDER / "compare.json").read_text(encoding="utf-8"))
SLEEP = ml.load("sleepstudy")


def fit(formula: str, data: Any = SLEEP, reml: bool = True, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ml.MultilevelWarning)
        return ml.Model(formula, data, **options).fit(reml, threads=1)


@cache
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    n = 240
    g = np.repeat(np.arange(24), 10)
    out = pd.DataFrame({"g": g, "f": np.tile(list("abcde"), 48), "x": rng.normal(size=n), "t": np.tile(np.arange(10), 24)})
    out["h"] = rng.integers(0, 6, n)
    out["y"] = out["x"] + rng.normal(size=24)[g] + rng.normal(size=n)
    out["k"] = rng.poisson(np.exp(0.3 + 0.4 * rng.normal(size=24)[g]))
    return out


# -- against R ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: f"{case['data']}-{len(case['formulas'])}-{case['reml']}")
def test_numbers_are_those_of_lme4s_anova(case: dict[str, Any]) -> None:
    data = ml.load(case["data"].lower())
    family = {"family": case["family"]}
    found = ml.compare(*(fit(formula, data, case["reml"], **family) for formula in case["formulas"]))
    assert found["npar"].tolist() == case["npar"]
    for name in ("loglik", "aic", "bic"):
        np.testing.assert_allclose(found[name], case[name], rtol=1e-6, err_msg=name)
    known = {name: np.array([np.nan if v is None else v for v in case[name]]) for name in ("lrt", "df", "p_value")}
    np.testing.assert_allclose(found["lrt"], known["lrt"], rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(found["df"], known["df"])
    np.testing.assert_allclose(found["p_value"], known["p_value"], rtol=1e-4)


def test_stacking_is_that_of_rs_loo() -> None:
    given = GOLDEN["stacking"]
    pointwise = np.array(given["pointwise"])
    found = stacking_weights(pointwise)
    np.testing.assert_allclose(found, given["weights"], atol=2e-5)

    def score(w: np.ndarray) -> float:
        return float(np.mean(logsumexp(pointwise, axis=1, b=w)))

    assert score(found) >= score(np.array(given["weights"]) / sum(given["weights"])) - 1e-10
    assert found.sum() == pytest.approx(1) and found.min() >= 0
    slopes = np.exp(pointwise - logsumexp(pointwise, axis=1, b=found)[:, None]).mean(axis=0)
    assert slopes.max() < 1 + 1e-8  # the condition of an optimum of a concave function on a simplex


def test_posterior_columns_are_arvizs() -> None:
    source = (FOLDER / "make_compare_loo.py").read_text(encoding="utf-8")
    body = source[source.index("def log_likelihoods") : source.index("def main")]
    scope: dict[str, Any] = {"np": np}
    exec(body, scope)  # the generator alone: ArviZ is not needed
    loos = {name: loo(values) for name, values in scope["log_likelihoods"]().items()}
    wanted = json.loads((FOLDER / "compare_loo.json").read_text(encoding="utf-8"))["rows"]
    loos = {row["model"]: loos[row["model"]] for row in wanted}
    found = posterior_columns(loos)
    for ours, theirs, sign in (("elpd", "elpd", 1), ("p_loo", "p", 1), ("se", "se", 1), ("se_diff", "dse", 1),
                               ("elpd_diff", "elpd_diff", -1)):  # fmt: skip
        np.testing.assert_allclose(found[ours], [sign * row[theirs] for row in wanted], rtol=1e-6, atol=1e-9, err_msg=ours)
    np.testing.assert_allclose(found["weight"], [row["weight"] for row in wanted], atol=1e-4)


# -- criteria, by their definitions ------------------------------------------------------------------------------------


def test_criteria_and_weights_by_hand() -> None:
    found = ml.compare(fit("Reaction ~ Days + (1|Subject)", reml=False), fit("Reaction ~ Days + (Days|Subject)", reml=False))
    k, n = found["npar"], len(SLEEP)
    np.testing.assert_allclose(found["aic"], -2 * found["loglik"] + 2 * k)
    np.testing.assert_allclose(found["aicc"], found["aic"] + 2 * k * (k + 1) / (n - k - 1))
    np.testing.assert_allclose(found["bic"], -2 * found["loglik"] + np.log(n) * k)
    for name in ("aic", "aicc", "bic"):
        relative = np.exp(-(found[name] - found[name].min()) / 2)
        np.testing.assert_allclose(found[f"{name}_weight"], relative / relative.sum())


# -- REML or ML --------------------------------------------------------------------------------------------------------


def test_reml_stays_where_the_fixed_part_is_the_same() -> None:
    small, large = fit("Reaction ~ Days + (1|Subject)"), fit("Reaction ~ Days + (Days|Subject)")
    found = ml.compare(large, small)
    assert found.criterion == "REML" and found.models["model 2"] is small
    assert "have the same fixed part" in str(found)
    assert list(found.models) == ["model 2", "model 1"]


def test_fits_are_refitted_by_ml_only_where_they_must_and_it_says_so() -> None:
    null, slope = fit("Reaction ~ 1 + (1|Subject)"), fit("Reaction ~ Days + (1|Subject)")
    found = ml.compare(null, slope)
    by_ml = fit("Reaction ~ Days + (1|Subject)", reml=False)
    assert found.criterion == "ML" and "fitted again by maximum likelihood, for the fixed parts differ" in found.messages[0]
    assert found["loglik"][1] == pytest.approx(by_ml.loglik, abs=1e-7)
    mixed = ml.compare(null, by_ml)
    assert mixed.messages[0].startswith("'model 1' fitted by REML was fitted again") and mixed.models["model 2"] is by_ml
    assert not any("again" in text for text in ml.compare(fit("Reaction ~ 1 + (1|Subject)", reml=False), by_ml).messages)


def test_another_coding_of_the_same_fixed_part_is_not_left_to_reml() -> None:
    """Restricted likelihoods depend on the units of the columns, which is why the refit goes by them, not by their span."""
    days = SLEEP.assign(weeks=SLEEP["Days"] / 7)
    one, other = fit("Reaction ~ Days + (1|Subject)", days), fit("Reaction ~ weeks + (Days|Subject)", days)
    assert ml.compare(one, other).criterion == "ML"
    assert ml.compare(one, other)["against"][1] == "model 1"
    same = fit("Reaction ~ 0 + Days + I(Days**0) + (Days|Subject)", days)
    assert ml.compare(one, same).criterion == "REML"  # the same columns in another order


# -- which model contains which, and the distribution of the ratio ------------------------------------------------------

NESTED = [  # smaller, larger, free parameters, cones
    ("y ~ x + (1|g)", "y ~ x + (x|g)", 1, (1,)),
    ("y ~ x + (1|g)", "y ~ x + (x||g)", 0, (1,)),
    ("y ~ x + (x||g)", "y ~ x + (x|g)", 1, ()),
    ("y ~ x", "y ~ x + (1|g)", 0, (1,)),
    ("y ~ x", "y ~ x + (x|g)", 0, (2,)),
    ("y ~ x", "y ~ x + (x||g)", 0, (1, 1)),
    ("y ~ 1 + (1|g)", "y ~ x + (x|g)", 2, (1,)),
    ("y ~ 1 + (1|g)", "y ~ f + (1|g)", 4, ()),
    ("y ~ x + (1|g)", "y ~ x + (1|g) + (1|h)", 0, (1,)),
    ("y ~ x + (1|g)", "y ~ x + (1|g/h)", 0, (1,)),
    ("y ~ x + (1|g)", "y ~ x + (0 + f|g)", 4, (4,)),
    ("y ~ x + (0 + x|g)", "y ~ x + (x|g)", 1, (1,)),
    ("y ~ x + (1|g)", "y ~ poly(x, 3) + (1|g)", 2, ()),
    ("y ~ x + (x|g)", "y ~ x + (scale(x) + I(x**2)|g)", 2, (1,)),
    ("y ~ x + homcs(0 + f|g)", "y ~ x + cs(0 + f|g)", 4, ()),
    ("y ~ x + cs(0 + f|g)", "y ~ x + (0 + f|g)", 9, ()),
    ("y ~ x + homdiag(0 + f|g)", "y ~ x + (0 + f||g)", 4, ()),
    ("y ~ x", "y ~ x + homdiag(0 + f|g)", 0, (1,)),
]


@pytest.mark.parametrize(("small", "large", "free", "cones"), NESTED)
def test_nested_models(small: str, large: str, free: int, cones: tuple[int, ...]) -> None:
    one, other = ml.Model(small, rows()), ml.Model(large, rows())
    found = step_between(one, other)
    assert found is not None and (found.free, found.cones, found.known) == (free, cones, True)
    assert step_between(other, one) is None
    assert found.df == fit(large, rows()).npar - fit(small, rows()).npar


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("y ~ x + (1|g)", "y ~ x + (1|h)"),
        ("y ~ x + (1|g)", "y ~ f + (x|g)"),
        ("y ~ x + (x|g)", "y ~ x + (1|g) + (1|h)"),
        ("y ~ x + (x|g)", "y ~ x + (0 + f|g)"),
        ("y ~ x + (1|g)", "y ~ x + offset(t) + (x|g)"),
        ("y ~ x + (1|g:h)", "y ~ x + (1|g) + (1|h)"),
        ("y ~ x + (1|g)", "y ~ x + (1|g)"),
    ],
)
def test_models_that_are_not_nested(one: str, other: str) -> None:
    a, b = ml.Model(one, rows()), ml.Model(other, rows())
    assert step_between(a, b) is None and step_between(b, a) is None


def test_an_offset_that_the_larger_model_estimates_is_nested() -> None:
    found = step_between(ml.Model("y ~ offset(x) + (1|g)", rows()), ml.Model("y ~ x + (1|g)", rows()))
    assert found == Step(1, fixed=1)


def test_names_of_groups_do_not_matter_their_rows_do() -> None:
    other = rows().assign(who=rows()["g"].map(lambda g: f"group {(7 * g) % 24}"))
    found = step_between(ml.Model("y ~ x + (1|g)", other), ml.Model("y ~ x + (x|who)", other))
    assert found == Step(1, (1,))


def test_residual_structures_and_families() -> None:
    data = rows()
    plain = ml.Model("y ~ x + (1|g)", data)
    assert step_between(plain, ml.Model("y ~ x + (1|g)", data, variance="ident(f)")) == Step(4)
    assert step_between(plain, ml.Model("y ~ x + (1|g)", data, correlation="ar1(t|g)")) == Step(1)
    assert step_between(plain, ml.Model("y ~ x + (1|g)", data, correlation="car1(t|g)")) == Step(0, (1,))
    assert step_between(ml.Model("y ~ x + (1|g)", data, variance="exp(x)"), plain) is None
    assert step_between(plain, ml.Model("y ~ x + (x|g)", data, weights="t")) is None
    counts = {name: ml.Model("k ~ x + (1|g)", data, family=name) for name in ("poisson", "nbinom2", "nbinom1")}
    assert step_between(counts["poisson"], counts["nbinom2"]) == Step(0, (1,))
    assert step_between(counts["nbinom1"], counts["nbinom2"]) is None
    zeros = ml.Model("k ~ x + (1|g)", data, family="poisson", zi="~ 1")
    assert step_between(counts["poisson"], zeros) == Step(0, (1,))
    assert step_between(zeros, ml.Model("k ~ x + (1|g)", data, family="poisson", zi="~ x")) == Step(1)
    spread = ml.Model("k ~ x + (1|g)", data, family="nbinom2", dispersion="~ x")
    assert step_between(counts["nbinom2"], spread) == Step(1)


def test_p_values_by_their_formulas() -> None:
    ratio = 3.2
    assert Step(2).p_values(ratio) == pytest.approx((chi2.sf(ratio, 2),) * 2)
    assert Step(0, (1,)).p_values(ratio) == pytest.approx((chi2.sf(ratio, 1), chi2.sf(ratio, 1) / 2))
    both = (chi2.sf(ratio, 3), (chi2.sf(ratio, 2) + chi2.sf(ratio, 3)) / 2)
    assert Step(2, (1,)).p_values(ratio) == pytest.approx(both)
    assert Step(0, (1,)).p_values(0.0) == (1.0, 1.0)
    assert np.isnan(Step(3, known=False).p_values(ratio)[1])
    assert Step(1, (1,)).reference == "0.5 chi2(1) + 0.5 chi2(2)" and Step(1, (1,)).exact
    assert Step(0, (2,)).reference == "at most 0.5 chi2(2) + 0.5 chi2(3)" and not Step(0, (2,)).exact


@pytest.mark.parametrize("rho", [-0.8, 0.0, 0.5, 0.95])
def test_two_variances_stay_below_the_bound(rho: float) -> None:
    """Two one-sided parameters: the weights are known angles (Self & Liang 1987, case 7)."""
    angle = np.arccos(rho)
    weights = {0: (np.pi - angle) / (2 * np.pi), 2: angle / (2 * np.pi)}
    for ratio in (0.5, 2.0, 6.0):
        exact = 0.5 * chi2.sf(ratio, 1) + weights[2] * chi2.sf(ratio, 2)
        assert exact <= Step(0, (1, 1)).p_values(ratio)[1] <= Step(0, (1, 1)).p_values(ratio)[0]


def test_boundary_p_values_are_uniform_under_simulation() -> None:
    """Null responses of 60 groups: shares of p-values below a level, within four standard errors of it."""
    rng = np.random.default_rng(5)
    data = pd.DataFrame({"g": np.repeat(np.arange(60), 6), "x": np.tile(np.linspace(-1, 1, 6), 60)})
    null = data["x"].to_numpy()[:, None] + rng.normal(size=(60, 800))[data["g"]] + rng.normal(size=(360, 800))
    data["y"] = null[:, 0]
    small, large = fit("y ~ x + (1|g)", data), fit("y ~ x + (x|g)", data)
    ratios = 2 * (large.refit(null).glance()["loglik"] - small.refit(null).glance()["loglik"]).to_numpy()
    p = np.array([Step(1, (1,)).p_values(max(one, 0.0))[1] for one in ratios])
    plain = chi2.sf(ratios, 2)
    for level in (0.05, 0.1, 0.25):
        error = 4 * np.sqrt(level * (1 - level) / len(p))
        assert abs((p < level).mean() - level) < error
    assert (plain < 0.1).mean() < (p < 0.1).mean()  # the plain chi-square rejects too seldom


def test_the_bound_for_several_variances_holds_under_simulation() -> None:
    rng = np.random.default_rng(6)
    data = pd.DataFrame({"g": np.repeat(np.arange(60), 6), "x": np.tile(np.linspace(-1, 1, 6), 60)})
    null = data["x"].to_numpy()[:, None] + rng.normal(size=(360, 800))
    data["y"] = null[:, 0]
    small, large = fit("y ~ x", data), fit("y ~ x + (x|g)", data)
    ratios = np.maximum(small.refit(null).criterion - large.refit(null).criterion, 0.0)
    found = step_between(small.model, large.model)
    assert found is not None and not found.exact
    p = np.array([found.p_values(one)[1] for one in ratios])
    least = np.array([(float(one <= 0) + chi2.sf(one, 1)) / 2 for one in ratios])  # one variance alone: the other end
    for level in (0.05, 0.1, 0.25):
        error = 4 * np.sqrt(level * (1 - level) / len(p))
        assert (p < level).mean() < level + error and (least < level).mean() > level - error


def test_simulated_tests_agree_with_theory_where_there_is_one() -> None:
    """A balanced design of many groups, where the mixture holds; ratios by hand from the same draws."""
    rng = np.random.default_rng(8)
    data = pd.DataFrame({"g": np.repeat(np.arange(60), 5), "x": np.tile(np.linspace(-1, 1, 5), 60)})
    data["y"] = rng.normal(size=60)[data["g"]] + 0.25 * data["x"] * rng.normal(size=60)[data["g"]] + rng.normal(size=300)
    small, large = fit("y ~ x + (1|g)", data), fit("y ~ x + (x||g)", data)
    theory, found = ml.compare(small, large), ml.compare(small, large, simulate=600, seed=2)
    p = theory["p_boundary"][1]
    assert found["reference"][1] == "simulated" and found["p_value"][1] == theory["p_value"][1]
    assert 0.001 < p < 0.9 and abs(found["p_boundary"][1] - p) < 4 * np.sqrt(p * (1 - p) / 600) + 1 / 601
    assert found["p_boundary"][1] == ml.compare(small, large, simulate=600, seed=2)["p_boundary"][1]
    several = ml.compare(fit("y ~ x", data), fit("y ~ x + (x|g)", data), simulate=20, seed=1)
    assert several["p_boundary"][1] == pytest.approx(1 / 21) and "simulate=1000" not in str(several)


def test_simulated_tests_of_counts_by_hand() -> None:
    small, large = fit("k ~ 1 + (1|g)", rows(), family="poisson"), fit("k ~ x + (1|g)", rows(), family="poisson")
    found = ml.compare(small, large, simulate=9, seed=4)
    drawn = small.simulate(9, seed=np.random.default_rng(4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ml.MultilevelWarning)
        ratios = [2 * (large.refit(drawn[name]).loglik - small.refit(drawn[name]).loglik) for name in drawn.columns]
    above = sum(ratio >= 2 * (large.loglik - small.loglik) for ratio in ratios)
    assert found["p_boundary"][1] == pytest.approx((1 + above) / 10)


def test_each_model_is_tested_against_the_nearest_it_contains() -> None:
    models = {
        "slope": fit("y ~ x + (x|g)", rows()), "none": fit("y ~ x", rows()), "h": fit("y ~ x + (1|h)", rows()),
        "g": fit("y ~ x + (1|g)", rows()),
    }  # fmt: skip
    found = ml.compare(models)
    table = dict(zip(found["model"].tolist(), found["against"].tolist(), strict=True))
    assert table == {"none": None, "h": "none", "g": "none", "slope": "g"}
    ranova = models["slope"].ranova()
    at = found["model"].tolist().index("slope")
    assert found["p_boundary"][at] == pytest.approx(ranova["p_boundary"][1])


# -- unlike data -------------------------------------------------------------------------------------------------------


def holed() -> pd.DataFrame:
    out = SLEEP.copy()
    out["z"] = np.random.default_rng(0).normal(size=len(out))
    out.loc[[3, 8, 20], "z"] = np.nan
    return out


@pytest.mark.parametrize(
    ("formulas", "said"),
    [
        (("Reaction ~ 1 + (1|Subject)", "Reaction ~ z + (1|Subject)"), r"180 and 177 rows.*'model 2' left out.*'z' \(3\)"),
        (("Reaction ~ 1 + (1|Subject)", "log(Reaction) ~ 1 + (1|Subject)"), r"responses are Reaction and log\(Reaction\)"),
    ],
)
def test_unlike_data_are_refused_with_the_reason(formulas: tuple[str, str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        ml.compare(*(fit(formula, holed()) for formula in formulas))


def test_other_rows_values_order_trials_and_weights_are_refused() -> None:
    formula = "Reaction ~ Days + (1|Subject)"
    one = fit(formula)
    gaps = holed().assign(w=holed()["z"].shift(1, fill_value=0.0))
    with pytest.raises(DataError, match="both are of 177 rows, but not the same ones"):
        ml.compare(fit("Reaction ~ z + (1|Subject)", gaps), fit("Reaction ~ w + (1|Subject)", gaps))
    with pytest.raises(DataError, match="stand in another order"):
        ml.compare(one, fit(formula, SLEEP.iloc[::-1].reset_index(drop=True)))
    changed = SLEEP.assign(Reaction=SLEEP["Reaction"].where(SLEEP.index != 4, 300.0))
    with pytest.raises(DataError, match=re.escape("in row 4, counting from 0, 356.852 and 300")):
        ml.compare(one, fit(formula, changed))
    herds = ml.load("cbpp")
    binomial = {"family": "binomial"}
    with pytest.raises(DataError, match="other numbers of trials"):
        ml.compare(
            fit("cbind(incidence, size - incidence) ~ 1 + (1|herd)", herds, **binomial),
            fit("cbind(incidence, size) ~ 1 + (1|herd)", herds, **binomial),
        )
    with pytest.raises(DataError, match="other weights"):
        ml.compare(
            fit("k ~ x + (1|g)", rows(), family="poisson"),
            fit("k ~ x + (1|g)", rows().assign(w=2.0), family="poisson", weights="w"),
        )
    exact = ml.Model("k ~ x + (1|g)", rows(), family="poisson").fit(threads=1, quadrature=5)
    with pytest.raises(OptionError, match="quadrature=1 and 5"):
        ml.compare(fit("k ~ x + (1|g)", rows(), family="poisson"), exact)


def test_bad_arguments() -> None:
    one = fit("Reaction ~ Days + (1|Subject)")
    with pytest.raises(OptionError, match="two models or more, got 1"):
        ml.compare(one)
    with pytest.raises(OptionError, match="'model 2' is a model that is not fitted"):
        ml.compare(one, one.model)
    with pytest.raises(OptionError, match="2 models, but 1 names"):
        ml.compare(one, one, names=["a"])
    with pytest.raises(OptionError, match="'a' is given twice"):
        ml.compare(one, one, names=["a", "a"])
    with pytest.raises(OptionError, match="leave names= out"):
        ml.compare({"a": one, "b": one}, names=["a", "b"])
    with pytest.raises(OptionError, match="names must be a list"):
        ml.compare(one, one, names="ab")
    with pytest.raises(OptionError, match="is a fit and 'model 2' a posterior"):
        ml.compare(one, posterior_samples.sleep())
    with pytest.raises(OptionError, match="simulate must be a whole number of at least 0, got -1"):
        ml.compare(one, one, simulate=-1)
    with pytest.raises(OptionError, match="posteriors do not have"):
        ml.compare(posterior_samples.sleep(), posterior_samples.sleep(), simulate=10)
    with pytest.raises(OptionError, match="did you mean 'loglik'"):
        ml.compare(one, one)["loglike"]


# -- what comes back ---------------------------------------------------------------------------------------------------


def test_the_frame_comes_in_the_library_of_the_data() -> None:
    data = pl.DataFrame({name: SLEEP[name].to_numpy() for name in SLEEP.columns})
    found = ml.compare(fit("Reaction ~ Days + (1|Subject)", data), fit("Reaction ~ Days + (Days|Subject)", data))
    table = found.frame()
    assert isinstance(table, pl.DataFrame) and table["against"].to_list() == [None, "model 1"]
    arrow = ml.compare(fit("Reaction ~ 1", data.to_arrow()), fit("Reaction ~ Days", data.to_arrow())).frame()
    assert arrow["against"].to_pylist() == [None, "model 1"]
    assert isinstance(ml.compare(fit("Reaction ~ 1"), fit("Reaction ~ Days")).frame(), pd.DataFrame)
    assert len(found) == 2 and "w(AIC)" in str(found) and "<table" in found._repr_html_() and "toprule" in found.to_latex()


def test_the_sentence_says_what_the_numbers_say() -> None:
    none, slope = fit("Reaction ~ 1 + (1|Subject)", reml=False), fit("Reaction ~ Days + (1|Subject)", reml=False)
    found = ml.compare(none, slope, names=["none", "slope"])
    assert found.best == "slope"
    assert found.sentence == (
        f"AIC prefers 'slope' ({found['aic'][0] - found['aic'][1]:.1f} below 'none'), and so does BIC; the likelihood-ratio "
        "test rejects 'none' in favour of 'slope' (p < 0.0001)."
    )
    uncorrelated, full = fit("Reaction ~ Days + (Days||Subject)"), fit("Reaction ~ Days + (Days|Subject)")
    close = ml.compare(uncorrelated, full)
    assert close.sentence.startswith("AIC hardly tells 'model 1' from 'model 2'")
    assert close.sentence.endswith("finds no evidence for 'model 2' over 'model 1' (p = 0.84).")


def test_what_stands_outside_the_formula_is_shown() -> None:
    counts = [fit("k ~ x + (1|g)", rows(), family="poisson"), fit("k ~ x + (1|g)", rows(), family="nbinom2", zi="~ x")]
    text = str(ml.compare(*counts))
    assert "model 1: k ~ x + (1|g); poisson, log link\n" in text
    assert "model 2: k ~ x + (1|g); nbinom2, log link; zi ~ " in text
    heavy = fit("y ~ x + (1|g)", rows(), family=ml.student(df=4))
    spread = fit("y ~ x + (1|g)", rows(), variance="ident(f)", correlation="ar1(t|g)")
    text = str(ml.compare(heavy, spread))
    assert "student(df=4), identity link" in text and "(1|g); ident(f); ar1(t|g)\n" in text
    both = ml.compare(counts[0], fit("k ~ x + (1|g)", rows(), reml=False))
    assert any("probabilities of counts or categories and others densities" in text for text in both.messages)
    assert both["against"].tolist() == [None, None] and "there is no test" in both.sentence


def test_known_covariances_are_the_same_or_not() -> None:
    near = 0.5 ** np.abs(np.subtract.outer(np.arange(24), np.arange(24)))
    known = {name: {"g": ml.KnownCovariance(range(24), covariance=matrix)} for name, matrix in
             (("near", near), ("nearer", near**0.5))}  # fmt: skip
    one = ml.Model("y ~ 1 + (1|g)", rows(), covariance=known["near"])
    assert step_between(one, ml.Model("y ~ x + (1|g)", rows(), covariance=known["near"])) == Step(1, fixed=1)
    assert step_between(one, ml.Model("y ~ x + (1|g)", rows(), covariance=known["nearer"])) is None
    assert step_between(one, ml.Model("y ~ x + (1|g)", rows())) is None


def test_fits_read_without_their_rows(tmp_path: Path) -> None:
    small, large = fit("Reaction ~ 1 + (1|Subject)"), fit("Reaction ~ Days + (Days|Subject)")
    for name, one in (("small", small), ("large", large)):
        one.save(tmp_path / f"{name}.mlv")
    read = [ml.read(tmp_path / f"{name}.mlv") for name in ("small", "large")]
    found, whole = ml.compare(*read), ml.compare(small, large)
    for name in ("loglik", "aic", "lrt", "p_boundary"):
        np.testing.assert_allclose(found[name], whole[name], rtol=1e-6)
    assert any("without the rows" in text for text in found.messages)
    other = fit("log(Reaction) ~ Days + (1|Subject)")
    with pytest.raises(DataError, match="responses are Reaction and log"):
        ml.compare(read[0], other)
    with pytest.raises(DataError, match="saved without its data"):
        ml.compare(*read, simulate=10)


def test_generalised_fits_read_without_their_rows(tmp_path: Path) -> None:
    zeros = {"family": "nbinom2", "zi": "~ x"}
    models = [fit("k ~ 1 + (1|g)", rows(), **zeros), fit("k ~ x + (1|g)", rows(), **zeros)]
    for i, one in enumerate(models):
        one.save(tmp_path / f"{i}.mlv")
    found, whole = ml.compare(*(ml.read(tmp_path / f"{i}.mlv") for i in range(2))), ml.compare(*models)
    np.testing.assert_allclose(found["aic"], whole["aic"], rtol=1e-9)
    np.testing.assert_allclose(found["p_boundary"], whole["p_boundary"], rtol=1e-6)


def test_posteriors() -> None:
    one, two = posterior_samples.sampled("Reaction ~ Days + (1 | Subject)", SLEEP), posterior_samples.sleep()
    found = ml.compare({"intercepts": one, "slopes": two})
    assert list(found.models) == ["slopes", "intercepts"] and found.criterion == "LOO"
    a, b = two.loo(), one.loo()
    np.testing.assert_allclose(found["elpd"], [a.elpd, b.elpd])
    np.testing.assert_allclose(found["elpd_diff"], [0, b.elpd - a.elpd])
    assert found["se_diff"][1] == pytest.approx(np.sqrt(180) * (b.pointwise - a.pointwise).std())
    assert "'slopes' predicts rows left out better than 'intercepts'" in found.sentence
    other = posterior_samples.sampled("log(Reaction) ~ Days + (1 | Subject)", SLEEP, {"draws": 20, "warmup": 50})
    with pytest.raises(DataError, match="responses are"):
        ml.compare(one, other)
