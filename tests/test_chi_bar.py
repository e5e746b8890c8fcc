"""Weights of mixtures of chi-squares against dense algebra, projections of normal draws and simulated null distributions."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import nnls

import multilevel as ml
from multilevel.chi_bar import chi_bar_weights, cone_weights
from multilevel.nested import Step, step_between
from multilevel.random_tests import several_p_value

Array = Any
WAYS: list[dict[str, Any]] = [{}, {"weights": "w"}]


def data() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    g, h, x = np.repeat(np.arange(30), 10), rng.integers(0, 12, 300), rng.normal(size=300)
    y = x + 0.6 * rng.normal(size=30)[g] + rng.normal(size=300)
    return pd.DataFrame({"g": g, "h": h, "x": x, "w": rng.uniform(0.5, 2, 300), "y": y})


def fit(formula: str, frame: pd.DataFrame, reml: bool = True, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ml.MultilevelWarning)
        return ml.Model(formula, frame, **options).fit(reml, threads=1)


def drawn(information: Array, n: int) -> tuple[Array, Array]:
    """Normal estimates with this information, and its upper root."""
    root = np.linalg.cholesky(information).T
    return np.random.default_rng(1).normal(size=(n, len(information))) @ np.linalg.inv(root).T, root


def some_information(d: int) -> Array:
    a = np.random.default_rng(d).normal(size=(d, d))
    return a @ a.T + 0.2 * np.eye(d)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_orthants_are_counts_of_projections(d: int) -> None:
    """The weight of k degrees of freedom is the chance that k coordinates of the projection are positive."""
    information, n = some_information(d), 20_000
    estimates, root = drawn(information, n)
    counts = np.bincount([(nnls(root, root @ one)[0] > 0).sum() for one in estimates], minlength=d + 1) / n
    np.testing.assert_allclose(cone_weights(information, (1,) * d), counts, atol=4 * 0.5 / np.sqrt(n))


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_a_matrix_that_must_be_a_covariance(scale: float) -> None:
    """Shares of draws inside the cone and inside its polar; other units of the effects change nothing."""
    information, n = some_information(3), 400_000
    z, _ = drawn(information, n)
    w = -z @ information
    inside = (z[:, 0] > 0) & (z[:, 0] * z[:, 2] >= z[:, 1] ** 2)
    polar = (w[:, 0] > 0) & (w[:, 0] * w[:, 2] >= w[:, 1] ** 2 / 4)
    units = np.array([1.0, scale, scale**2])
    found = cone_weights(information * np.outer(units, units), (2,))
    np.testing.assert_allclose([found[0], found[3]], [polar.mean(), inside.mean()], atol=4 * 0.5 / np.sqrt(n))
    assert found[0] + found[2] == pytest.approx(0.5) and found[1] + found[3] == pytest.approx(0.5)


def dense_information(small: Any, parts: list[Array], tested: list[int]) -> Array:
    """Information about some of the parts of the covariance of the responses, others and the residual estimated too."""
    d = small.model.design
    noise = np.diag(np.ones(300) if d.weights is None else 1 / d.weights)
    v = small.sigma**2 * noise
    for term, cov in zip(d.terms, small.random_cov(), strict=True):
        z = np.ones((300, 1)) if term.Z is None else term.Z
        v = v + (term.codes[:, None] == term.codes) * (z @ cov @ z.T)
    p = np.linalg.inv(v)
    if small.reml:
        p = p - p @ d.X @ np.linalg.solve(d.X.T @ p @ d.X, d.X.T @ p)
    every = [p @ part for part in (*parts, noise)]
    inverse = np.linalg.inv([[np.sum(a * b.T) / 2 for b in every] for a in every])
    return np.linalg.inv(inverse[np.ix_(tested, tested)])


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("options", WAYS, ids=["rows", "weights"])
def test_information_is_that_of_dense_algebra(reml: bool, options: dict[str, Any]) -> None:
    frame = data()
    g, h, x = (frame[name].to_numpy() for name in "ghx")
    same_g, same_h = (g[:, None] == g).astype(float), (h[:, None] == h).astype(float)
    slopes = [same_g * (x[:, None] + x), same_g * np.outer(x, x)]
    cases: list[tuple[str, str, list[Array], list[int], tuple[int, ...], int]] = [
        ("y ~ x", "y ~ x + (1|g) + (1|h)", [same_g, same_h], [0, 1], (1, 1), 0),
        ("y ~ x + (1|g)", "y ~ x + (x|g) + (1|h)", [same_g, *slopes, same_h], [2, 3], (1, 1), 1),
        ("y ~ x", "y ~ x + (x|g)", [same_g, *slopes], [0, 1, 2], (2,), 0),
        ("y ~ x", "y ~ x + (x||g) + (1|h)", [same_g, slopes[1], same_h], [0, 1, 2], (1, 1, 1), 0),
    ]
    for small_text, large_text, parts, tested, cones, free in cases:
        small, large = (fit(text, frame, reml, **options) for text in (small_text, large_text))
        step = step_between(small.model, large.model)
        assert step is not None and (step.free, step.cones) == (free, cones)
        expected = cone_weights(dense_information(small, parts, tested), cones)
        np.testing.assert_allclose(chi_bar_weights(small, large, cones) or (), expected, atol=1e-9)
        found = ml.compare(small, large)
        terms = " + ".join(f"{weight:.2f} chi2({free + i})" for i, weight in enumerate(expected))
        assert found["reference"][1] == terms and "upper bound" not in str(found)
        assert found["p_boundary"][1] < Step(free, cones).p_values(float(found["lrt"][1]))[1]  # the bound


def test_the_smaller_models_effects_may_be_combinations_of_the_larger_ones() -> None:
    frame = data()
    small, large = fit("y ~ x + (0 + I(x - 1) | g)", frame), fit("y ~ x + (x|g) + (1|h)", frame)
    other = fit("y ~ x + (I(x - 1)|g) + (1|h)", frame)  # the same model
    expected = chi_bar_weights(small, other, (1, 1))
    assert expected is not None
    np.testing.assert_allclose(chi_bar_weights(small, large, (1, 1)) or (), expected, atol=1e-9)


def null_p_values(large_text: str, frame: pd.DataFrame, n: int) -> Array:
    """p-values of responses without any group effects."""
    null = np.random.default_rng(6).normal(size=(len(frame), n))
    frame = frame.assign(y=null[:, 0])
    small, large = fit("y ~ x", frame), fit(large_text, frame)
    step = step_between(small.model, large.model)
    assert step is not None
    weights = chi_bar_weights(small, large, step.cones)
    assert weights is not None
    ratios = np.maximum(small.refit(null).criterion - large.refit(null).criterion, 0.0)
    return np.array([Step(step.free, step.cones, weights=weights).p_values(one)[1] for one in ratios])


@pytest.mark.parametrize("large", ["y ~ x + (x|g)", "y ~ x + (1|g) + (1|h)", "y ~ x + (x||g) + (1|h)"])
def test_p_values_are_uniform_under_simulation(large: str) -> None:
    """Many groups of a balanced design: shares below a level, within four standard errors of it."""
    n = 1000
    frame = pd.DataFrame(
        {"g": np.repeat(np.arange(80), 6), "h": np.tile(np.arange(80), 6), "x": np.tile(np.linspace(-1, 1, 6), 80)}
    )
    p = null_p_values(large, frame, n)
    for level in (0.05, 0.1, 0.25):
        assert abs((p < level).mean() - level) < 4 * np.sqrt(level * (1 - level) / n)


def test_where_the_weights_are_not_known_it_is_the_bound() -> None:
    frame = data()
    flat, many = fit("y ~ x", frame), fit("y ~ x + (x|g) + (1|h)", frame)
    assert chi_bar_weights(flat, many, (2, 1)) is None  # four parameters
    assert ml.compare(flat, many)["reference"][1] == "at most 0.5 chi2(3) + 0.5 chi2(4)"
    frame["k"] = np.random.default_rng(1).poisson(1.0, 300)
    counts = [fit(text, frame, family="poisson") for text in ("k ~ x", "k ~ x + (1|g) + (1|h)")]
    assert chi_bar_weights(counts[0], counts[1], (1, 1)) is None
    assert chi_bar_weights(flat, fit("y ~ x + cs(1 + x|g)", frame), (2,)) is None


def test_ranova_of_several_variances() -> None:
    """As `compare` has it; and the tail of responses simulated by the smaller model."""
    rng = np.random.default_rng(5)
    g, f = np.repeat(np.arange(200), 12), np.tile(np.repeat(list("abc"), 4), 200)
    frame = pd.DataFrame({"g": g, "f": f, "y": rng.normal(size=200)[g] + rng.normal(size=2400)})
    large, small = fit("y ~ f + (f | g)", frame), fit("y ~ f + (1 | g)", frame)
    found = large.ranova()["p_boundary"].iloc[1]
    assert found == pytest.approx(ml.compare(small, large).frame()["p_boundary"].iloc[1], rel=1e-8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ml.MultilevelWarning)
        drawn = small.simulate(1000, seed=1)
        ratios = 2 * (large.refit(drawn).glance()["loglik"] - small.refit(drawn).glance()["loglik"]).to_numpy()
    for level in (0.05, 0.1, 0.2, 0.5):
        p = several_p_value(small, large, float(np.quantile(ratios, 1 - level)), 5)
        assert abs(p - level) < 3 * np.sqrt(level * (1 - level) / 1000)
