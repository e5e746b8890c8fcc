"""Likelihood-ratio tests of generalised models: against lme4, glmmTMB and ordinal, and against fits by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from generalised_models import CBPP, OWLS, wine
from numpy.typing import NDArray
from scipy import stats
from test_generalised_profiles import LME4, counts, of_lme4

import multilevel as ml
from multilevel.generalised import GeneralisedFit

Array = NDArray[np.float64]
FOLDER = Path(__file__).parent / "golden_glmm"

pytestmark = pytest.mark.filterwarnings("ignore::multilevel.errors.MultilevelWarning")

PRECISE = 1e-6  # of a likelihood ratio, relative where it exceeds one


def same(ours: float, theirs: float, short: float = 0.0) -> None:
    """A ratio as stored, where its two likelihoods are `short` of ours by so much together."""
    assert abs(ours - theirs) <= PRECISE * max(1.0, theirs) + 2 * short, (ours, theirs)


def stored(name: str) -> dict[str, Any]:
    out: dict[str, Any] = json.loads((FOLDER / f"profiles_{name}.json").read_text())
    return out


@cache
def owls() -> Any:
    formula = "SiblingNegotiation ~ FoodTreatment + offset(log(BroodSize)) + (1 | Nest)"
    return ml.Model(formula, ml.load("owls"), family="nbinom2", zi="~ 1").fit(threads=1)


@cache
def bitter() -> Any:
    return ml.Model("rating ~ temp + contact + (1 | judge)", wine(), family="ordinal").fit(threads=1)


@pytest.mark.parametrize("name", LME4)
def test_drop1_is_that_of_lme4(name: str) -> None:
    fit, wanted = of_lme4(name), LME4[name]["drop1"]
    made = fit.drop1()
    assert list(made.columns) == ["term", "npar", "aic", "lrt", "df", "p_value"]
    assert list(made["term"]) == wanted["term"]
    np.testing.assert_array_equal(made["df"][1:], wanted["df"][1:])
    for lrt, p, theirs, their_p in zip(
        made["lrt"][1:], made["p_value"][1:], wanted["lrt"][1:], wanted["p_value"][1:], strict=True
    ):
        same(lrt, theirs)
        assert p == pytest.approx(their_p, rel=1e-4)
    if name != "cbpp_agq9":  # lme4's lacks the constant there
        np.testing.assert_allclose(made["aic"], wanted["aic"], atol=1e-5)
    pd.testing.assert_frame_equal(fit.drop1(test="Chisq"), made)


@pytest.mark.parametrize("name", ["epilepsy_slope", "grouseticks"])
def test_ranova_is_lme4s_difference_of_models(name: str) -> None:
    made = of_lme4(name).ranova().set_index("term")
    assert list(made.columns) == ["npar", "loglik", "aic", "lrt", "df", "p_value", "p_boundary"]
    for one in LME4[name]["random"]:
        row = made.loc[one["term"]]
        gaps = np.array([made.loc["<none>", "loglik"] - LME4[name]["loglik"], row["loglik"] - one["loglik"]])
        assert (gaps > -1e-7).all() and (gaps < 1e-5).all()  # lme4 stops up to 6e-6 below the maximum
        same(row["lrt"], one["lrt"], float(gaps.max()))
        assert row["df"] == one["df"]
        q = one["df"] - 1
        below = stats.chi2.sf(one["lrt"], q) if q else float(one["lrt"] <= 0)
        assert row["p_boundary"] == pytest.approx(0.5 * below + 0.5 * stats.chi2.sf(one["lrt"], q + 1), rel=1e-4)


@pytest.mark.parametrize(("fit", "name"), [(owls, "glmmTMB"), (bitter, "clmm")])
def test_zero_inflated_and_ordinal_models_against_glmmtmb_and_clmm(fit: Any, name: str) -> None:
    fixed, random = fit().drop1().set_index("term"), fit().ranova().set_index("term")
    wanted = stored(name)
    assert fit().loglik == pytest.approx(wanted["loglik"], abs=1e-6)
    for table, rows in ((fixed, wanted["fixed"]), (random, wanted["random"])):
        for one in rows:
            same(table.loc[one["term"], "lrt"], one["lrt"])
            assert table.loc[one["term"], "df"] == one["df"]


def test_quadrature_is_kept_and_without_random_effects_the_likelihood_is_exact() -> None:
    fit = of_lme4("cbpp_agq9")
    null = ml.Model(CBPP.replace("period", "1"), ml.load("cbpp"), family="binomial").fit(threads=1, quadrature=9)
    made = fit.drop1().set_index("term")
    assert made.loc["period", "lrt"] == pytest.approx(2 * (fit.loglik - null.loglik), abs=1e-8)
    plain = ml.Model("cbind(incidence, size - incidence) ~ period", ml.load("cbpp"), family="binomial").fit(threads=1)
    assert fit.ranova()["loglik"][1] == pytest.approx(plain.loglik, abs=1e-8)


def test_sides_offset_and_weights_are_kept() -> None:
    """Every row of drop1 is the fit of the formula without the term, all else the same; marginal terms stay."""
    data = ml.load("owls").assign(w=np.r_[np.full(300, 2.0), np.ones(299)])
    options = {"family": "nbinom2", "zi": "~ FoodTreatment", "dispersion": "~ SexParent", "weights": "w"}
    fit = ml.Model(OWLS, data, **options).fit(threads=1)
    made = fit.drop1()
    assert list(made["term"]) == ["<none>", "FoodTreatment:SexParent"]
    smaller = ml.Model(OWLS.replace("*", "+"), data, **options).fit(threads=1)
    assert made["lrt"][1] == pytest.approx(2 * (fit.loglik - smaller.loglik), abs=1e-7)
    assert made["npar"][1] == smaller.npar and made["aic"][1] == pytest.approx(smaller.aic, abs=1e-6)
    bare = ml.Model(OWLS.replace(" + (1 | Nest)", ""), data, **options).fit(threads=1)
    assert fit.ranova()["lrt"][1] == pytest.approx(2 * (fit.loglik - bare.loglik), abs=1e-6)


def test_wald_rows_are_those_of_anova() -> None:
    fit = of_lme4("grouseticks")
    pd.testing.assert_frame_equal(fit.drop1(test="Wald"), fit.anova(2))
    assert np.isinf(fit.drop1(test="Wald")["den_df"]).all()


def test_missing_rows_and_polars() -> None:
    pl = pytest.importorskip("polars")
    data = counts()
    holes = data.assign(x=data["x"].where(data.index % 11 != 3))
    fit = ml.Model("y ~ x + (1 | g)", pl.from_pandas(holes), family="poisson").fit(threads=1)
    wanted = ml.Model("y ~ x + (1 | g)", holes.dropna(), family="poisson").fit(threads=1)
    for made, reference in ((fit.drop1(), wanted.drop1()), (fit.ranova(), wanted.ranova())):
        assert isinstance(made, pl.DataFrame)
        np.testing.assert_allclose(made["lrt"].to_numpy()[1:], reference["lrt"][1:], rtol=1e-9)


def test_several_terms_and_slopes_one_at_a_time() -> None:
    data = counts().assign(h=np.tile(np.arange(10), 12))
    fit = ml.Model("y ~ x + (x || g) + (1 | h)", data, family="poisson").fit(threads=1)
    made = fit.ranova()
    assert list(made["term"]) == ["<none>", "(1 | g)", "x in (0 + x | g)", "(1 | h)"]
    smaller = ml.Model("y ~ x + (0 + x | g) + (1 | h)", data, family="poisson").fit(threads=1)
    assert made["lrt"][1] == pytest.approx(2 * (fit.loglik - smaller.loglik), abs=1e-6)
    assert (made["lrt"][1:] >= 0).all() and ((made["p_boundary"][1:] <= made["p_value"][1:]).all())


def test_what_cannot_be_tested_says_so(tmp_path: Path) -> None:
    fit = of_lme4("cbpp")
    with pytest.raises(ml.OptionError, match="residual variance"):
        fit.drop1(test="F")
    with pytest.raises(ml.OptionError, match="did you mean 'Wald'"):
        fit.drop1(test="wald")
    with pytest.raises(ml.OptionError, match="kenward"):
        fit.drop1(ddf="kenward-roger")
    fit.save(tmp_path / "bare.mlv")
    bare = ml.read(tmp_path / "bare.mlv")
    for verb in (bare.drop1, bare.ranova):
        with pytest.raises(ml.DataError, match="data"):
            verb()
    fit.save(tmp_path / "rows.mlv", data=True)
    pd.testing.assert_frame_equal(ml.read(tmp_path / "rows.mlv").ranova(), fit.ranova(), rtol=1e-8)


def test_a_smaller_model_above_the_fit_is_told() -> None:
    good = of_lme4("grouseticks")
    bad = GeneralisedFit(good.model, replace(good.optimum, criterion=good.criterion + 10.0), good.engine)
    with pytest.warns(ml.ConvergenceWarning, match="below that of the fit"):
        made = bad.ranova()
    assert made["lrt"][2] == 0.0


def test_quick_starts_are_compared_as_they_are() -> None:
    quick = ml.Model(CBPP, ml.load("cbpp"), family="binomial").fit(threads=1, quadrature=0)
    made = quick.drop1()
    null = ml.Model(CBPP.replace("period", "1"), ml.load("cbpp"), family="binomial").fit(threads=1, quadrature=0)
    assert made["lrt"][1] == pytest.approx(2 * (quick.loglik - null.loglik), abs=1e-7)
    assert quick.ranova()["lrt"][1] > 0
