"""Tests of terms against lmerTest's stored numbers, and properties that hold whatever the software."""

from __future__ import annotations

import json
import re
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import golden
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from shapes import quiet_fit, shape

import multilevel as ml
from multilevel import DataError, Fit, Model, OptionError, inference
from multilevel.random_tests import p_values

FILE = Path(__file__).parent / "golden_tests" / "anova.json"
CASES = {case["label"]: case for case in json.loads(FILE.read_text(encoding="utf-8"))["cases"]}

# Two of lmerTest's numbers are not followed. It takes poly() for a factor, so that b seems contained in poly(z, 2):b in
# type 2 (it is not in z:b); and in b / a it does not see that b:a contains b, whose test then is at the first level of a.
OTHERWISE = {("poly", 2, "b"), ("nested", 2, "b"), ("nested", 3, "b")}


@cache
def data() -> pd.DataFrame:
    stored = pd.DataFrame(json.loads(FILE.read_text(encoding="utf-8"))["data"])
    stored["o"] = pd.Categorical(stored["o"], ["lo", "mid", "hi"], ordered=True)
    return stored


@cache
def fitted(label: str) -> Fit:
    case = CASES[label]
    rows = data()[~data()["empty"]] if case["subset"] else data()
    options = {"contrasts": case.get("contrasts")} | ({"weights": "w"} if case["weighted"] else {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ml.RankWarning)
        return quiet_fit(Model(case["formula"], rows, **options), case["reml"])


def key(term: str) -> str:
    """R orders the variables of an interaction by first appearance in the formula, formulaic as they are written."""
    return ":".join(sorted(term.split(":")))


def column(table: Any, name: str) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in table[name]], dtype=float)


@pytest.mark.parametrize("label", CASES)
def test_anova_is_lmertests(label: str) -> None:
    fit, case = fitted(label), CASES[label]
    rtol = 1e-5 if case["singular"] else 1e-6  # lme4 stops earlier at a singular optimum
    for wanted in case["tests"]:
        found = fit.anova(wanted["type"], wanted["ddf"])
        assert [key(term) for term in found["term"]] == [key(term) for term in wanted["term"]]
        same = [(label, wanted["type"], term) not in OTHERWISE for term in wanted["term"]]
        for name in ("num_df", "den_df", "statistic", "sum_sq", "mean_sq"):
            np.testing.assert_allclose(found[name][same], column(wanted, name)[same], rtol=rtol)
        np.testing.assert_allclose(found["p_value"][same], column(wanted, "p_value")[same], rtol=1e-4, atol=1e-300)


@pytest.mark.parametrize("label", CASES)
def test_drop1_is_lmertests(label: str) -> None:
    fit, case = fitted(label), CASES[label]
    found, wanted = fit.drop1(), case["drop1"]
    assert [key(term) for term in found["term"]] == [key(term) for term in wanted["term"]]
    for name in ("num_df", "den_df", "statistic", "sum_sq", "mean_sq"):
        np.testing.assert_allclose(found[name], column(wanted, name), rtol=1e-5 if case["singular"] else 1e-6)


@pytest.mark.parametrize("label", CASES)
def test_likelihood_ratios_are_lme4s(label: str) -> None:
    found, wanted = fitted(label).drop1(test="LRT"), CASES[label]["drop1_lrt"]
    assert [key(term) for term in found["term"]] == [key(term) for term in wanted["term"]]
    np.testing.assert_allclose(found["aic"], column(wanted, "aic"), rtol=1e-10)
    np.testing.assert_allclose(found["lrt"], column(wanted, "lrt"), rtol=1e-8, atol=1e-8)
    np.testing.assert_array_equal(found["df"], column(wanted, "npar"))  # lme4 calls the difference npar
    np.testing.assert_allclose(found["p_value"], column(wanted, "p_value"), rtol=1e-6)


@pytest.mark.parametrize("label", CASES)
def test_ranova_is_lmertests(label: str) -> None:
    fit, wanted = fitted(label), CASES[label]["ranova"]
    found = fit.ranova()
    assert list(found["term"]) == wanted["term"]
    np.testing.assert_array_equal(found["npar"], column(wanted, "npar"))
    np.testing.assert_allclose(found["loglik"], column(wanted, "loglik"), rtol=1e-10)
    np.testing.assert_allclose(found["aic"], column(wanted, "aic"), rtol=1e-10)
    for name in ("lrt", "df", "p_value"):
        np.testing.assert_allclose(found[name], column(wanted, name), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("label", CASES)
def test_a_joint_test_is_lmertests_contest(label: str) -> None:
    fit, case = fitted(label), CASES[label]
    p = len(fit.design.names)
    rows = np.vstack([np.arange(1, p + 1) / p, (-1.0) ** np.arange(1, p + 1), np.eye(p)[0]])
    for wanted in case["joint"]:
        statistic, num_df, den_df, p_value = inference.f_test(fit, rows, wanted["ddf"])
        assert num_df == wanted["num_df"]
        assert statistic == pytest.approx(wanted["statistic"], rel=1e-6)
        assert den_df == pytest.approx(wanted["den_df"], rel=1e-6)
        assert p_value == pytest.approx(wanted["p_value"], rel=1e-4)


STORED = [fit for fit in golden.fits() if "ranova" in fit.raw]
ANOVAS = (("type3_satterthwaite", 3), ("type2_satterthwaite", 2), ("type3_kenward_roger", 3))


@pytest.mark.parametrize("reference", STORED, ids=lambda fit: fit.id)
@pytest.mark.filterwarnings("ignore::multilevel.ConvergenceWarning")
def test_stored_fits(reference: golden.Golden) -> None:
    """lmerTest's df have its numerical derivatives' error, a few 1e-7; everything the error of lme4's optimum."""
    fit = quiet_fit(Model(reference.formula, reference.frame(), **reference.arguments()), reference.reml)
    for name, kind in ANOVAS:
        if f"anova_{name}" not in reference.raw:
            continue
        wanted = reference.raw[f"anova_{name}"]
        table = fit.anova(kind, "kenward-roger" if "kenward" in name else "satterthwaite").set_index("term")
        found = table.loc[[term.replace("^", " ** ") for term in wanted["terms"]]]
        np.testing.assert_array_equal(found["num_df"], column(wanted, "num_df"))
        np.testing.assert_allclose(found["den_df"], column(wanted, "den_df"), rtol=2e-6)
        np.testing.assert_allclose(found["statistic"], column(wanted, "F"), rtol=1e-6)
        np.testing.assert_allclose(found["p_value"], column(wanted, "p"), rtol=1e-4, atol=1e-300)
    found, wanted = fit.ranova(), reference.raw["ranova"]
    found = found.assign(term=[ranova_key(term) for term in found["term"]]).set_index("term")
    found = found.loc[[ranova_key(term.replace("I(age^2) in", "I(age ** 2) in")) for term in wanted["terms"]]]
    np.testing.assert_allclose(found["loglik"], column(wanted, "loglik"), rtol=1e-10)
    np.testing.assert_allclose(found["lrt"], column(wanted, "LRT"), rtol=1e-8, atol=1e-7)
    np.testing.assert_array_equal(found["df"], column(wanted, "df"))
    np.testing.assert_allclose(found["p_value"], column(wanted, "p"), rtol=1e-6, atol=1e-300)


def ranova_key(term: str) -> str:
    """lme4 turns a/b into b:a, this library into a:b."""
    return re.sub(r"\w+(:\w+)+", lambda found: key(found[0]), term)


# -- properties ------------------------------------------------------------------------------------


def test_type_three_is_a_test_of_marginal_means() -> None:
    """With every cell filled, type 3 of a factor compares its means averaged evenly over the other factor."""
    fit = fitted("treatment")
    grid = pd.DataFrame([(a, b) for a in "pqr" for b in "uv"], columns=["a", "b"]).assign(x=0.0)
    cells = fit.design.at(grid, groups=None).X
    means = np.array([cells[grid["a"] == a].mean(axis=0) for a in "pqr"])
    found = fit.anova()
    wanted = inference.f_test(fit, means[1:] - means[0])
    np.testing.assert_allclose(
        found.loc[0, ["statistic", "num_df", "den_df", "p_value"]].astype(float), [wanted[0], *wanted[1:]], rtol=1e-7
    )


def test_a_nested_term_contains_its_factor() -> None:
    """b / a and a * b span the same means, so b has the same type 3 test in both (lmerTest's differ)."""
    nested = quiet_fit(Model("y ~ b / a + z + (1 | g)", data())).anova().set_index("term")
    crossed = quiet_fit(Model("y ~ a * b + z + (1 | g)", data())).anova().set_index("term")
    assert nested.loc["b", "statistic"] == pytest.approx(crossed.loc["b", "statistic"], rel=1e-7)
    assert nested.loc["b", "den_df"] == pytest.approx(crossed.loc["b", "den_df"], rel=1e-6)


@pytest.mark.parametrize("kind", [1, 2, 3])
@pytest.mark.parametrize(
    "formula", ["y ~ a * b * x + (1 | g)", "y ~ o * b + poly(z, 2):b + x + (x | g)", "y ~ a:b + z + (1 | g)"]
)
def test_the_coding_of_factors_changes_nothing(formula: str, kind: int) -> None:
    base = quiet_fit(Model(formula, data())).anova(kind)
    coded = {
        name: choice for name, choice in {"a": "sum", "b": "helmert", "o": "treatment"}.items() if f"{name} " in formula
    }
    other = quiet_fit(Model(formula, data(), contrasts=coded)).anova(kind)
    np.testing.assert_allclose(other["statistic"], base["statistic"], rtol=1e-6)
    np.testing.assert_array_equal(other["num_df"], base["num_df"])
    rtol = 1e-5 if kind == 3 else 1e-2  # types 1 and 2 are written in the columns of the fit, as lmerTest's
    np.testing.assert_allclose(other["den_df"], base["den_df"], rtol=rtol)


def test_units_of_a_covariate_do_not_matter() -> None:
    far = data().assign(x=data()["x"] * 1e5, z=data()["z"] / 1e4, y=data()["y"] * 300)
    formula = "y ~ a * x + poly(z, 2) + (x | g)"
    for kind in (1, 2, 3):
        for ddf in ("satterthwaite", "kenward-roger"):
            one, two = (quiet_fit(Model(formula, frame)).anova(kind, ddf) for frame in (data(), far))
            np.testing.assert_allclose(two["statistic"], one["statistic"], rtol=1e-6)
            np.testing.assert_allclose(two["den_df"], one["den_df"], rtol=1e-5)


def test_types_agree_on_balanced_data() -> None:
    fit = Model("angle ~ recipe * temperature + (1 | recipe:replicate)", ml.load("cake")).fit()
    three = fit.anova()
    for kind in (1, 2, "I", "II", "III", "3"):
        np.testing.assert_allclose(fit.anova(kind)["statistic"], three["statistic"], rtol=1e-8)
    np.testing.assert_allclose(three["den_df"], [42, 210, 210], rtol=1e-6)


def test_each_method_for_df() -> None:
    fit = fitted("treatment")
    normal = fit.anova(ddf="none")
    assert np.all(np.isinf(normal["den_df"]))
    np.testing.assert_allclose(
        normal["p_value"], stats.chi2.sf(normal["statistic"] * normal["num_df"], normal["num_df"]), rtol=1e-9
    )
    np.testing.assert_allclose(normal["statistic"], fit.anova()["statistic"], rtol=1e-12)
    np.testing.assert_allclose(normal["mean_sq"] / fit.sigma**2, normal["statistic"], rtol=1e-12)


def test_a_single_column_is_the_squared_t() -> None:
    fit = fitted("slopes")
    for ddf in ("satterthwaite", "kenward-roger"):
        t = fit.fixef(ddf=ddf).set_index("term").loc["b[T.v]:x"]
        f = fit.anova(ddf=ddf).set_index("term").loc["b:x"]
        assert f["statistic"] == pytest.approx(t["statistic"] ** 2, rel=1e-10)
        assert f["den_df"] == pytest.approx(t["df"], rel=1e-10)
        assert f["p_value"] == pytest.approx(t["p_value"], rel=1e-8)


@pytest.mark.filterwarnings("ignore::multilevel.RankWarning")
def test_a_term_without_columns_of_its_own() -> None:
    frame = data().assign(twice=2 * data()["x"])
    table = quiet_fit(Model("y ~ x + twice + (1 | g)", frame)).anova()
    row = table.set_index("term").loc["twice"]
    assert row["num_df"] == 0
    assert np.isnan(row["statistic"]) and np.isnan(row["p_value"])
    assert table.set_index("term").loc["x", "num_df"] == 1


def test_an_intercept_alone_has_no_terms() -> None:
    fit = Model("y ~ 1 + (1 | g)", data()).fit()
    assert len(fit.anova()) == 0
    assert len(fit.drop1()) == 0
    assert list(fit.drop1(test="LRT")["term"]) == ["<none>"]
    nothing = quiet_fit(shape("no fixed effects").model)
    assert len(nothing.anova()) == len(nothing.drop1()) == 0
    assert len(nothing.fixef(ddf="kenward-roger")) == 0
    assert nothing.ranova()["npar"].tolist() == [2, 1]


@pytest.mark.filterwarnings("ignore::multilevel.RankWarning")
def test_odd_names() -> None:
    frame = data().rename(columns={"x": "my x", "a": "class"})
    odd = quiet_fit(
        Model("y ~ `my x` * `class` + poly(`my x`, 2) + (`my x` | g)", frame.assign(**{"my x": data()["z"]}))
    )
    assert list(odd.anova(1)["term"]) == ["my x", "class", "poly(`my x`, 2)", "my x:class"]
    plain = quiet_fit(Model("y ~ z * a + (z | g)", data()))
    twin = quiet_fit(Model("y ~ `my x` * `class` + (`my x` | g)", frame.assign(**{"my x": data()["z"]})))
    for kind in (1, 2, 3):
        np.testing.assert_allclose(twin.anova(kind)["statistic"], plain.anova(kind)["statistic"], rtol=1e-10)
    np.testing.assert_allclose(twin.ranova()["lrt"], plain.ranova()["lrt"], rtol=1e-8)


def test_missing_rows_and_other_frames() -> None:
    import polars as pl

    holes = data().copy()
    holes.loc[[3, 50], "x"] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ml.MissingRowsWarning)
        one = Model("y ~ a * x + (1 | g)", holes).fit()
        two = Model("y ~ a * x + (1 | g)", pl.from_pandas(holes)).fit()
    table = two.anova()
    assert isinstance(table, pl.DataFrame)
    np.testing.assert_allclose(table["statistic"], one.anova()["statistic"], rtol=1e-10)
    direct = Model("y ~ a * x + (1 | g)", holes.dropna()).fit()
    np.testing.assert_allclose(one.anova()["statistic"], direct.anova()["statistic"], rtol=1e-10)
    assert isinstance(two.ranova(), pl.DataFrame)
    assert isinstance(two.drop1(), pl.DataFrame)


# -- random terms ----------------------------------------------------------------------------------


def test_p_values_on_the_boundary() -> None:
    plain, boundary = p_values(2.7, 1, 0)
    assert plain == pytest.approx(stats.chi2.sf(2.7, 1))
    assert boundary == pytest.approx(plain / 2)
    assert p_values(0.0, 1, 0) == (1.0, 1.0)
    plain, boundary = p_values(5.14, 2, 1)  # Stram & Lee's 0.5 chi2(1) + 0.5 chi2(2): 5 % at 5.14
    assert boundary == pytest.approx(0.05, abs=1e-3)
    assert np.isnan(p_values(3.0, 5, None)[1])
    assert np.isnan(p_values(3.0, 2, 0)[1])  # a structure that lost more than it said


def test_the_mixture_has_its_size_under_the_null() -> None:
    """Under no variance between groups p_boundary is below 0.2 in a fifth of data sets, p_value in a tenth."""
    rng = np.random.default_rng(8)
    base = pd.DataFrame({"g": np.repeat(np.arange(30), 8)})
    found = [
        quiet_fit(Model("y ~ 1 + (1 | g)", base.assign(y=rng.normal(size=240)))).ranova().iloc[1] for _ in range(200)
    ]
    share = np.mean([row["p_boundary"] < 0.2 for row in found])
    assert abs(share - 0.2) < 3 * np.sqrt(0.2 * 0.8 / 200)
    assert np.mean([row["p_value"] < 0.2 for row in found]) < share


def test_reductions_by_kind_of_term() -> None:
    table = quiet_fit(Model("y ~ x + (x + z || g) + (1 | h)", data())).ranova()
    assert list(table["term"][1:]) == ["(1 | g)", "x in (0 + x | g)", "z in (0 + z | g)", "(1 | h)"]
    assert np.all(np.isfinite(table["p_boundary"][1:]))
    factor = quiet_fit(Model("y ~ b + (0 + b | g)", data())).ranova()
    assert factor["df"][1] == 2  # one variance and a parameter that is free
    tails = stats.chi2.sf(factor["lrt"][1], [1, 2])
    assert factor["p_boundary"][1] == pytest.approx(tails.mean(), rel=1e-9)
    slope = quiet_fit(Model("y ~ x + (0 + x | g)", data())).ranova()
    assert list(slope["term"]) == ["<none>", "(0 + x | g)"]
    assert slope["df"][1] == 1
    assert slope["p_boundary"][1] == pytest.approx(slope["p_value"][1] / 2)
    product = quiet_fit(Model("y ~ x * b + (x * b | g)", data())).ranova()
    assert list(product["term"]) == ["<none>", "x:b in (x * b | g)"]


def test_no_random_terms() -> None:
    table = shape("no groups").model.fit().ranova()
    assert list(table["term"]) == ["<none>"]


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [0, 4, "IV", "three", None, 3.0, True, [3]])
def test_an_unknown_type(kind: object) -> None:
    with pytest.raises(OptionError, match="allowed are 1, 2, 3"):
        fitted("treatment").anova(kind)


@pytest.mark.parametrize("ddf", ["Satterthwait", "kr", None, 3])
def test_an_unknown_ddf(ddf: Any) -> None:
    for call in (fitted("treatment").anova, fitted("treatment").drop1):
        with pytest.raises(OptionError, match=r"ddf .* is not known; (did you mean|allowed are)"):
            call(ddf=ddf)


def test_rs_name_of_the_likelihood_ratio() -> None:
    one, two = (fitted("treatment").drop1(test=test) for test in ("Chisq", "LRT"))
    pd.testing.assert_frame_equal(one, two)


def test_an_unknown_test() -> None:
    with pytest.raises(OptionError, match="test 'chisq' is not known; did you mean 'Chisq'"):
        fitted("treatment").drop1(test="chisq")
    with pytest.raises(OptionError, match=r"test \['F'\] is not known; "):
        fitted("treatment").drop1(test=["F"])  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="test 'lrt' is not known; did you mean 'LRT'"):
        fitted("treatment").drop1(test="lrt")
    with pytest.raises(OptionError, match="test 'Wald' is not known; allowed are F and LRT"):
        fitted("treatment").drop1(test="Wald")


def test_maximum_likelihood_has_no_kenward_roger() -> None:
    with pytest.raises(OptionError, match="REML"):
        fitted("ml").anova(ddf="kenward-roger")


def test_a_fit_saved_without_rows_says_so(tmp_path: Path) -> None:
    fitted("treatment").save(tmp_path / "fit.mlm")
    fit = ml.read(tmp_path / "fit.mlm")
    for call in (fit.anova, fit.drop1, fit.ranova):
        with pytest.raises(DataError, match="saved without its data"):
            call()
    fitted("treatment").save(tmp_path / "rows.mlm", data=True)
    whole = ml.read(tmp_path / "rows.mlm")
    np.testing.assert_allclose(whole.anova()["statistic"], fitted("treatment").anova()["statistic"], rtol=1e-9)
    np.testing.assert_allclose(whole.ranova()["lrt"], fitted("treatment").ranova()["lrt"], rtol=1e-8)
