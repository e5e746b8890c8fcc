"""Degrees of freedom against the dense twin and exact cases; tables of t and normal."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from shapes import quiet_fit, shape, twin

import multilevel as ml
from multilevel import Fit, Model, OptionError
from multilevel.inference import check_level, estimates, f_tail, f_test, satterthwaite, t_table

REGULAR = [
    "intercept",
    "two levels",
    "mean only",
    "six fixed effects",
    "slope",
    "no intercept",
    "uncorrelated",
    "factor effects",
    "merged",
    "merged blocks",
    "crossed",
    "crossed slopes",
    "crossed, panel",
    "crossed, scattered",
    "three crossed",
    "with their interaction",
    "small chain",
    "chain",
    "chain with slopes",
    "chain, sparse twice",
    "sparse mesh",
]


def degrees(fit: Fit, contrasts: np.ndarray) -> np.ndarray:
    return satterthwaite(fit.engine, fit.optimum, fit.curvature, contrasts)


@pytest.mark.parametrize("name", REGULAR)
@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
def test_satterthwaite_is_the_twins(name: str, reml: bool, weighted: bool) -> None:
    """At our own optimum, so that only the derivatives are compared; singular fits agree where theta has a tangent."""
    s = shape(name)
    fit = quiet_fit(s.weighted if weighted else s.model, reml)
    singular_matrix = any(
        0 < rank < len(index)
        for rank, (_, index) in zip(fit.optimum.evidence.ranks, fit.engine.blocks.owners, strict=True)
    )
    if singular_matrix:
        assert np.all(np.isfinite(fit._fixed_df))
        return
    dense = twin(fit.design)
    structures = [term.structure for term in fit.design.terms]
    rng = np.random.default_rng(1)
    contrasts = np.vstack([np.eye(dense.p), rng.normal(size=(2, dense.p))])
    wanted = [dense.satterthwaite(c, fit.optimum.lambdas, reml, structures=structures) for c in contrasts]
    np.testing.assert_allclose(degrees(fit, contrasts), wanted, rtol=1e-6)
    np.testing.assert_array_equal(fit.fixef()["df"], fit._fixed_df)


def test_most_of_these_fits_are_not_singular() -> None:
    """So that the comparison above compares."""
    regular = [name for name in REGULAR if not quiet_fit(shape(name).model).is_singular]
    assert len(regular) >= 14


def test_exact_degrees_of_freedom() -> None:
    sleep = Model("Reaction ~ Days + (Days | Subject)", ml.load("sleepstudy")).fit()
    np.testing.assert_allclose(sleep.fixef()["df"], [17.0, 17.0], rtol=1e-7)  # balanced: groups - 1
    oneway = Model("Yield ~ 1 + (1 | Batch)", ml.load("dyestuff")).fit()
    np.testing.assert_allclose(oneway.fixef()["df"], [5.0], rtol=1e-7)
    split = Model("Reaction ~ Days + (1 | Subject)", ml.load("sleepstudy")).fit()
    np.testing.assert_allclose(split.fixef()["df"][1], 161.0, rtol=1e-7)  # n - groups - 1, within groups


def test_without_groups_it_is_the_linear_model() -> None:
    s = shape("no groups")
    fit = s.model.fit()
    design = fit.design
    beta, _, _, _ = np.linalg.lstsq(design.X, design.y, rcond=None)
    rest = design.y - design.X @ beta
    s2 = rest @ rest / (len(rest) - 3)
    table = fit.fixef()
    np.testing.assert_allclose(table["estimate"], beta, rtol=1e-10)
    np.testing.assert_allclose(
        table["std_error"], np.sqrt(s2 * np.diag(np.linalg.inv(design.X.T @ design.X))), rtol=1e-10
    )
    np.testing.assert_allclose(table["df"], len(rest) - 3, rtol=1e-10)
    assert fit.sigma == pytest.approx(np.sqrt(s2), rel=1e-12)
    assert fit.convergence


def test_degrees_of_freedom_do_not_depend_on_units() -> None:
    data = ml.load("math10")
    base = Model("math ~ homework + ses + (homework | schid)", data).fit()
    other = Model(
        "math ~ homework + ses + (homework | schid)",
        data.assign(homework=data["homework"] * 1e4, math=data["math"] / 1e3, ses=data["ses"] + 50),
    ).fit()
    np.testing.assert_allclose(other.fixef()["df"][1:], base.fixef()["df"][1:], rtol=1e-5)


def test_a_singular_fit_has_the_degrees_of_the_model_without_the_variance() -> None:
    fit = quiet_fit(Model("Yield ~ 1 + (1 | Batch)", ml.load("dyestuff2")))
    np.testing.assert_allclose(fit.fixef()["df"], [29.0], rtol=1e-8)


def test_table_of_t() -> None:
    estimate, error, df = (
        np.array([2.0, -1.0, 0.0, 30.0]),
        np.array([1.0, 0.5, 2.0, 1.0]),
        np.array([5.0, 17.3, 1.0, 40.0]),
    )
    found = t_table(estimate, error, df, 0.9)
    np.testing.assert_allclose(found["statistic"], estimate / error)
    np.testing.assert_allclose(found["p_value"], 2 * stats.t.sf(np.abs(estimate / error), df), rtol=1e-10)
    half = stats.t.ppf(0.95, df) * error
    np.testing.assert_allclose(found["conf_low"], estimate - half, rtol=1e-12)
    np.testing.assert_allclose(found["conf_high"], estimate + half, rtol=1e-12)


def test_table_of_the_normal() -> None:
    estimate, error = np.array([2.0, -35.0]), np.array([1.0, 1.0])
    found = t_table(estimate, error, np.array([np.inf, np.inf]), 0.95)
    np.testing.assert_allclose(found["p_value"], 2 * stats.norm.sf([2.0, 35.0]), rtol=1e-10)
    np.testing.assert_allclose(found["conf_high"] - estimate, 1.959963984540054, rtol=1e-12)
    assert found["p_value"][1] > 0  # far tails do not underflow to zero


def test_table_of_missing_degrees() -> None:
    found = t_table(np.array([1.0]), np.array([1.0]), np.array([np.nan]), 0.95)
    assert np.isnan(found["p_value"][0])


@pytest.mark.parametrize("level", [0, 1, 95, -0.5, True, "0.95", None, float("nan")])
def test_a_level_outside_zero_and_one(level: object) -> None:
    with pytest.raises(OptionError, match="level must lie between 0 and 1"):
        check_level(level)


@pytest.mark.parametrize("ratio", [10.0, 100.0, 1e4])
def test_df_of_an_intercept_is_groups_less_one_whatever_the_ratio_of_sds(ratio: float) -> None:
    """Balanced one-way data: the df of the mean go to J - 1 as groups differ far more than their rows."""
    rng = np.random.default_rng(11)
    a = np.repeat(np.arange(12), 20)
    y = ratio * rng.standard_normal(12)[a] + rng.standard_normal(240)
    table = Model("y ~ 1 + (1 | a)", pd.DataFrame({"y": y, "a": a})).fit().fixef()
    assert table["df"][0] == pytest.approx(11.0, rel=2e-3)


def test_an_f_test_with_one_row_is_the_squared_t() -> None:
    fit = Model("math ~ homework + ses + (homework | schid)", ml.load("math10")).fit()
    for ddf in ("satterthwaite", "kenward-roger", "none"):
        estimate, error, df = estimates(fit, np.array([[0.0, 1.0, 0.0]]), ddf)
        statistic, num_df, den_df, p_value = f_test(fit, np.array([[0.0, 1.0, 0.0]]), ddf)
        assert (num_df, den_df) == (1.0, df[0])
        assert statistic == pytest.approx((estimate[0] / error[0]) ** 2, rel=1e-12)
        assert p_value == pytest.approx(t_table(estimate, error, df, 0.95)["p_value"][0], rel=1e-9)


def test_fai_and_cornelius_by_hand() -> None:
    """Two rows: the F with the mean of the two squared t of the eigenvectors."""
    fit = Model("math ~ homework + ses + (homework | schid)", ml.load("math10")).fit()
    rows = np.eye(3)[1:]
    values, vectors = np.linalg.eigh(rows @ fit.vcov() @ rows.T)
    nu = degrees(fit, vectors.T @ rows)
    mean = np.sum(nu / (nu - 2))
    t2 = (vectors.T @ rows @ fit.optimum.beta) ** 2 / values
    statistic, num_df, den_df, p_value = f_test(fit, rows)
    assert statistic == pytest.approx(t2.mean(), rel=1e-10)
    assert (num_df, den_df) == (2.0, pytest.approx(2 * mean / (mean - 2), rel=1e-10))
    assert p_value == pytest.approx(stats.f.sf(statistic, 2, den_df), rel=1e-9)


def test_an_f_test_needs_no_independent_rows() -> None:
    fit = Model("math ~ homework + ses + (homework | schid)", ml.load("math10")).fit()
    rows = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    more = np.vstack([rows, rows.sum(axis=0), 3 * rows[0], np.zeros(3)])
    for ddf in ("kenward-roger", "none"):
        np.testing.assert_allclose(f_test(fit, more, ddf), f_test(fit, rows, ddf), rtol=1e-8)
    assert f_test(fit, more)[:2] == pytest.approx(f_test(fit, rows)[:2], rel=1e-8)
    with pytest.raises(OptionError, match="contradict each other"):
        f_test(fit, np.vstack([rows, rows[0]]), rhs=np.array([0.0, 0.0, 1.0]))
    with pytest.raises(OptionError, match="no coefficient on its left"):
        f_test(fit, np.zeros((1, 3)), rhs=np.array([1.0]))


def test_an_f_test_of_nothing() -> None:
    fit = Model("Yield ~ 1 + (1 | Batch)", ml.load("dyestuff")).fit()
    statistic, num_df, den_df, p_value = f_test(fit, np.zeros((2, 1)))
    assert num_df == 0
    assert np.isnan([statistic, den_df, p_value]).all()


def test_predictors_of_very_different_size_are_all_tested() -> None:
    data = ml.load("math10")
    data = data.assign(tiny=data["ses"] * 1e-9, huge=data["homework"] * 1e9)
    fit = Model("math ~ tiny + huge + (1 | schid)", data).fit()
    base = Model("math ~ ses + homework + (1 | schid)", data).fit()
    found, wanted = f_test(fit, np.eye(3)[1:]), f_test(base, np.eye(3)[1:])
    np.testing.assert_allclose(found[:2], wanted[:2], rtol=1e-7)
    assert found[2] == pytest.approx(wanted[2], rel=0.05)  # Satterthwaite's depends on units where df differ


def test_tails_of_f() -> None:
    assert f_tail(3.0, 2, 10) == pytest.approx(stats.f.sf(3.0, 2, 10), rel=1e-12)
    assert f_tail(3.0, 2, np.inf) == pytest.approx(stats.chi2.sf(6.0, 2), rel=1e-12)
    assert np.isnan(f_tail(3.0, 2, np.nan)) and np.isnan(f_tail(np.nan, 2, 3.0))


@pytest.mark.parametrize("ddf", ["kr", "Satterthwaite", "", None, 1, ["none"]])
def test_an_unknown_method(ddf: object) -> None:
    fit = Model("Yield ~ 1 + (1 | Batch)", ml.load("dyestuff")).fit()
    with pytest.raises(OptionError, match="ddf .* is not known; (did you mean|allowed are)"):
        estimates(fit, np.eye(1), ddf)  # type: ignore[arg-type]
