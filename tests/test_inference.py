"""Degrees of freedom against the dense twin and exact cases; tables of t and normal."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from shapes import quiet_fit, shape, twin

import multilevel as ml
from multilevel import Fit, Model, OptionError
from multilevel.inference import check_level, satterthwaite, t_table

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
