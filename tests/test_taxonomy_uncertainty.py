"""Scales by evidence, bootstrap and NUTS of the classifier, against dense inverses, sandwich covariances and grids."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from taxonomy_samples import articles

from multilevel.errors import ConvergenceWarning, OptionError
from multilevel.taxonomy.bootstrap import bootstrap, bootstrap_weights
from multilevel.taxonomy.estimator import TaxonomyClassifier
from multilevel.taxonomy.evidence import evidence_scales, random_signs, settled_directions
from multilevel.taxonomy.fitting import FittedTree, Settings, fit_tree
from multilevel.taxonomy.nuts import Density, check_size, sample, verdict
from multilevel.taxonomy.objective import leaf_coefficients
from multilevel.taxonomy.problems import Rows, local_trees, pieces
from multilevel.taxonomy.scales import ScaleShape, scale_shape
from multilevel.taxonomy.tree import Taxonomy
from multilevel.taxonomy.uncertainty import contrast_sd

FLAT = Taxonomy.from_paths([("a",), ("b",), ("c",)])
TREE = Taxonomy.from_paths([("a", "x"), ("a", "y"), ("b", "x"), ("b", "y"), ("b", "z"), ("c",), ("d", "alone")])


def settings(first: list[float], scales: str = "fixed", likelihood: str = "flat", tol: float = 1e-12) -> Settings:
    return Settings(likelihood, scales, np.array(first), 3000, tol, 1, 0.2, 3, np.random.default_rng(0))


def leaf_indicator(tree: Taxonomy) -> np.ndarray:
    """(nodes, leaves): whether a leaf is at or below a node."""
    leaves = np.arange(len(tree.leaves))
    return np.array([(tree.first[v] <= leaves) & (leaves < tree.last[v]) for v in range(len(tree))], dtype=float)


def simulated(tree: Taxonomy, count: int, features: int, size: float, seed: int, partial: bool = False) -> Rows:
    """Rows of normal features whose labels follow the model with deviations of one size."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(count, features)) * (generator.random((count, features)) < 0.6)
    u = size * generator.normal(size=(features, len(tree)))
    logits = x @ u @ leaf_indicator(tree)
    leaf = (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)
    nodes = tree.leaves[leaf]
    if partial:
        nodes[::7] = tree.raised(nodes[::7], 1)
    weight = generator.choice([1.0, 2.0], count)
    return Rows(sp.csr_array(x), nodes.astype(np.int32), weight, np.zeros(features, dtype=np.int32))


def dense_hessian(tree: Taxonomy, rows: Rows, fitted: FittedTree, matrix: np.ndarray) -> np.ndarray:
    """Of whole labels, in whitened coordinates (features + 1, nodes) row by row, from the softmax's formula."""
    x = np.column_stack([rows.x.toarray(), np.ones(rows.x.shape[0])])
    below = leaf_indicator(tree)
    p = fitted.leaf_probabilities(rows.x)
    inner = np.einsum("vk,ik,wk->ivw", below, p, below) - np.einsum(
        "vk,ik,wl,il->ivw", below, p, below, p, optimize=True
    )
    full = np.einsum("i,ij,ik,ivw->jvkw", rows.weight, x, x, inner, optimize=True)
    scale = np.concatenate([np.broadcast_to(matrix[0], (x.shape[1] - 1, len(tree))), matrix[-1:]]).ravel()
    size = scale.size
    return np.eye(size) + full.reshape(size, size) * np.outer(scale, scale)


# -- evidence -------------------------------------------------------------------------------------------------------


def test_probes_find_the_trace_of_the_dense_inverse() -> None:
    rows, shape = simulated(TREE, 150, 6, 1.0, 1), scale_shape(TREE, "level", ["f"], 3.0)
    scales = np.array([1.3, 0.8])
    plan = settings(scales.tolist())
    fitted = fit_tree(TREE, rows, shape, plan)
    inverse = np.linalg.inv(dense_hessian(TREE, rows, fitted, shape.matrix(scales)))
    settled = 1 - np.diag(inverse).reshape(7, len(TREE))[:-1]
    exact = np.array([settled[:, shape.cell[0] == k].sum() for k in range(2)])
    part = next(pieces(TREE, local_trees(TREE, "flat"), shape, rows, None, 1)).piece
    part.minimise(scales, 1e-10, 1000)
    # a probe on one entry gives that entry of the diagonal without noise
    units = np.eye(part.w.size)[: 6 * len(TREE)].reshape(-1, *part.w.shape)
    one_by_one = sum(settled_directions(part, scales, [unit])[0] for unit in units)
    np.testing.assert_allclose(one_by_one, exact, rtol=2e-3)
    probes = random_signs(part, np.random.default_rng(2), 600)
    estimate, solutions = settled_directions(part, scales, probes)
    np.testing.assert_allclose(estimate, exact, rtol=0.05)
    again, _ = settled_directions(part, scales, probes, solutions)
    np.testing.assert_allclose(again, estimate, rtol=1e-2)


def test_the_fixed_point_holds_with_the_dense_inverse() -> None:
    rows, shape = simulated(TREE, 300, 6, 1.0, 2), scale_shape(TREE, "level", ["f"], 3.0)
    plan = settings([3.0, 3.0], "evidence", tol=1e-8)
    found = fit_tree(TREE, rows, shape, plan)
    matrix = shape.matrix(found.scales)
    settled = 1 - np.diag(np.linalg.inv(dense_hessian(TREE, rows, found, matrix))).reshape(7, len(TREE))[:-1]
    for k, scale in enumerate(found.scales):
        level = shape.cell[0] == k
        assert (found.deviations[:-1, level] ** 2).sum() / settled[:, level].sum() == pytest.approx(scale**2, rel=0.08)


def test_evidence_finds_the_scale_that_made_dense_data() -> None:
    """Many rows of few features, where the Laplace approximation is good: unlike texts."""
    tree = Taxonomy.from_paths([(name,) for name in "abcdefgh"])
    shape = scale_shape(tree, "level", ["f"], 3.0)
    rows = simulated(tree, 1000, 12, 0.7, 3)
    found = evidence_scales(tree, local_trees(tree, "flat"), rows, shape, settings([1.0], "evidence", tol=1e-6))
    assert found.scales[0] == pytest.approx(0.7, rel=0.15)  # 96 deviations tell their sd to 7 %


def test_one_softmax_has_one_evidence() -> None:
    rows = simulated(FLAT, 300, 3, 0.7, 3)
    shape = scale_shape(FLAT, "level", ["f"], 3.0)
    plans = [settings([1.0], "evidence", kind, 1e-8) for kind in ("flat", "nested")]
    flat, nested = (fit_tree(FLAT, rows, shape, plan).scales for plan in plans)
    np.testing.assert_allclose(nested, flat, rtol=1e-3)


def test_scales_of_labels_by_chance_shrink() -> None:
    rows = simulated(TREE, 300, 6, 0.0, 5)
    found = fit_tree(TREE, rows, scale_shape(TREE, "level", ["f"], 3.0), settings([3.0, 3.0], "evidence", tol=1e-6))
    assert np.all(found.scales < 0.3) and np.all(found.scales >= 3.0 / 50.001)


# -- bootstrap ------------------------------------------------------------------------------------------------------


def contrasts(tree: Taxonomy, fitted: FittedTree) -> np.ndarray:
    b = np.asarray(leaf_coefficients(tree, fitted.deviations))
    return np.ravel(b - b.mean(axis=1, keepdims=True))


def sandwich(rows: Rows, fitted: FittedTree, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Covariance of three classes' centred coefficients: sandwich, and inverse Hessian; a flat tree with one scale."""
    x = np.column_stack([rows.x.toarray(), np.ones(rows.x.shape[0])])
    p = fitted.leaf_probabilities(rows.x)
    y = (rows.nodes[:, None] == FLAT.leaves).astype(float)
    scores = (rows.weight[:, None, None] * x[:, :, None] * (p - y)[:, None, :]).reshape(len(x), -1)
    spread = np.einsum("iv,vw->ivw", p, np.eye(3)) - p[:, :, None] * p[:, None]
    curved = np.einsum("i,ij,ik,ivw->jvkw", rows.weight, x, x, spread)
    size = scores.shape[1]
    inverse = np.linalg.inv(curved.reshape(size, size) + np.eye(size) / scale**2)
    centre = np.kron(np.eye(x.shape[1]), np.eye(3) - 1 / 3)
    return centre @ inverse @ scores.T @ scores @ inverse @ centre, centre @ inverse @ centre


def test_the_bootstrap_spreads_as_the_sandwich() -> None:
    """Rows count once or five times: the inverse Hessian is far too small, the sandwich right."""
    rows = simulated(FLAT, 1500, 2, 0.8, 4)
    rows = replace(rows, weight=np.random.default_rng(0).choice([1.0, 5.0], 1500))
    shape, plan = scale_shape(FLAT, "level", ["f"], 20.0), settings([20.0], tol=1e-7)
    fitted = fit_tree(FLAT, rows, shape, plan)
    draws = bootstrap(FLAT, rows, shape, plan, fitted, 300, np.random.default_rng(1))
    spread = np.std([contrasts(FLAT, draw) for draw in draws], axis=0, ddof=1)
    robust, naive = (np.sqrt(np.diag(one)) for one in sandwich(rows, fitted, 20.0))
    np.testing.assert_allclose(spread, robust, rtol=0.14)  # three standard errors of an sd from 300 draws
    assert np.mean(np.log(spread / robust)) == pytest.approx(0, abs=0.06)
    assert np.all(spread > 1.3 * naive)
    assert np.all(np.array([draw.scales for draw in draws]) == 20.0)


def test_each_refit_is_the_mode_of_its_weights() -> None:
    rows, shape = simulated(TREE, 200, 4, 1.0, 6, partial=True), scale_shape(TREE, "level", ["f"], 3.0)
    plan = settings([2.0, 1.0])
    fitted = fit_tree(TREE, rows, shape, plan)
    draws = bootstrap(TREE, rows, shape, plan, fitted, 3, np.random.default_rng(9))
    generator = np.random.default_rng(9)
    for draw in draws:
        weight = bootstrap_weights(rows.weight, generator)
        assert weight.sum() == pytest.approx(rows.weight.sum())
        cold = fit_tree(TREE, replace(rows, weight=weight), shape, plan)
        np.testing.assert_allclose(draw.deviations, cold.deviations, atol=1e-5)


def test_weights_are_those_of_rubin() -> None:
    """Shares are Dirichlet(1, ..., 1): mean 1/n, variance (n - 1) / (n^2 (n + 1))."""
    n, generator = 20, np.random.default_rng(3)
    shares = np.array([bootstrap_weights(np.ones(n), generator) / n for _ in range(4000)])
    np.testing.assert_allclose(shares.mean(axis=0), 1 / n, rtol=0.08)
    assert shares.var() == pytest.approx((n - 1) / (n**2 * (n + 1)), rel=0.05)
    held = bootstrap_weights(np.array([0.0, 1.0, 1.0]), generator)
    assert held[0] == 0


def test_refits_cut_short_are_told_once() -> None:
    rows, shape = simulated(TREE, 200, 4, 1.0, 6), scale_shape(TREE, "level", ["f"], 3.0)
    fitted = fit_tree(TREE, rows, shape, settings([2.0, 1.0]))
    with pytest.warns(ConvergenceWarning, match="4 of 4 refits of the bootstrap have not reached") as told:
        bootstrap(TREE, rows, shape, replace(settings([2.0, 1.0]), max_iter=2), fitted, 4, np.random.default_rng(0))
    assert len(told) == 1


@pytest.mark.parametrize("likelihood", ["flat", "nested"])
def test_sd_of_a_contrast_is_over_the_draws(likelihood: str) -> None:
    rows, shape = simulated(TREE, 200, 4, 1.0, 6), scale_shape(TREE, "level", ["f"], 3.0)
    plan = settings([2.0, 1.0], likelihood=likelihood)
    fitted = fit_tree(TREE, rows, shape, plan)
    draws = bootstrap(TREE, rows, shape, plan, fitted, 5, np.random.default_rng(9))
    node, others = TREE.node("b/x"), [TREE.node("b/y"), TREE.node("b/z")]
    dense = [u.toarray() if sp.issparse(u) else u for u in (draw.deviations for draw in draws)]
    by_hand = np.std([u[:, node] - u[:, others].mean(axis=1) for u in dense], axis=0, ddof=1)
    np.testing.assert_allclose(contrast_sd(draws, node), by_hand, rtol=1e-10)
    assert not contrast_sd(draws, TREE.node("alone")).any()


# -- NUTS -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", ["flat", "nested"])
@pytest.mark.parametrize("held", [False, True])
def test_slope_of_the_log_posterior_is_its_differences(likelihood: str, held: bool) -> None:
    rows = replace(simulated(TREE, 60, 5, 1.0, 7, partial=True), group=np.array([0, 0, 1, 1, 1], dtype=np.int32))
    shape = scale_shape(TREE, "level", ["f", "g"], 2.0)
    density = Density(TREE, rows, shape, settings([1.0, 2.0, 0.5, 1.5], "holdout", likelihood), held)
    generator = np.random.default_rng(8)
    x, step = 0.5 * generator.normal(size=density.size), 1e-5
    _, slope = density.log_posterior(x)
    assert slope is not None
    ahead, behind = ([density.log_posterior(x + h * e)[0] for e in np.eye(density.size)] for h in (step, -step))
    np.testing.assert_allclose(slope, np.subtract(ahead, behind) / (2 * step), rtol=1e-5, atol=1e-5)
    assert density.size == density.deviations + (0 if held else 5)


def test_the_log_posterior_is_the_formula() -> None:
    """Differences between two places, written out: labels, normal deviations, log-normal scales, half-normal intercepts'."""
    rows, shape = simulated(TREE, 50, 3, 1.0, 9), scale_shape(TREE, "level", ["f"], 2.0)
    density = Density(TREE, rows, shape, settings([1.0, 0.7], "holdout"))
    alone = TREE.node("alone")

    def by_hand(x: np.ndarray) -> float:
        w = np.zeros((4, len(TREE)))
        w[:, np.arange(len(TREE)) != alone] = x[:-3].reshape(4, -1)
        s, t = np.exp(x[-3:-1]), np.exp(x[-1])
        u = w * np.vstack([np.broadcast_to(s[TREE.depth - 1], (3, len(TREE))), np.full((1, len(TREE)), t)])
        b = u @ leaf_indicator(TREE)
        logits = rows.x.toarray() @ b[:-1] + b[-1]
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        told = rows.weight @ log_p[np.arange(50), TREE.leaf_of[rows.nodes]]
        prior = (
            -0.5 * np.sum(w**2) - 0.5 * np.sum((np.log(s / [1.0, 0.7]) / 0.7) ** 2) - 0.5 * (t / 2.0) ** 2 + np.log(t)
        )
        return float(told + prior)

    one, two = np.random.default_rng(0).normal(size=(2, density.size))
    found = density.log_posterior(one)[0] - density.log_posterior(two)[0]
    assert found == pytest.approx(by_hand(one) - by_hand(two), rel=1e-10)


def test_far_places_are_refused_not_broken() -> None:
    rows, shape = simulated(TREE, 20, 2, 1.0, 1), scale_shape(TREE, "level", ["f"], 2.0)
    density = Density(TREE, rows, shape, settings([1.0, 1.0], "holdout"))
    x = np.zeros(density.size)
    x[-2] = 1000.0
    assert density.log_posterior(x) == (-np.inf, None)


TWO = Taxonomy.from_paths([("a",), ("b",)])


@cache
def on_a_grid() -> tuple[Rows, ScaleShape, np.ndarray, np.ndarray, np.ndarray]:
    """Two classes, one feature, no intercept: log scale and difference of the deviations, their posterior on a grid."""
    generator = np.random.default_rng(11)
    x = generator.normal(size=12)
    label = (generator.random(12) < 1 / (1 + np.exp(-1.5 * x))).astype(np.int32)
    rows = Rows(sp.csr_array(x[:, None]), label, np.ones(12), np.zeros(1, dtype=np.int32))
    log_s, v = np.meshgrid(np.linspace(-4, 4, 401), np.linspace(-7, 7, 701), indexing="ij")
    slope = np.sqrt(2) * np.exp(log_s) * v  # of class b against a: the difference of two deviations, v standard normal
    logit = slope[..., None] * np.where(label == 1, x, -x)
    log_density = -np.logaddexp(0, -logit).sum(axis=-1) - 0.5 * v**2 - 0.5 * (log_s / 0.7) ** 2
    mass = np.exp(log_density - log_density.max())
    return rows, scale_shape(TWO, "level", ["f"], 0.0), log_s, slope, mass / mass.sum()


@pytest.mark.slow
def test_draws_agree_with_a_grid() -> None:
    rows, shape, log_s, slope, mass = on_a_grid()
    found = sample(TWO, rows, shape, settings([1.0], "holdout", tol=1e-8), draws=700, chains=2, seed=4, warmup=300)
    assert found.trusted, found.sentence
    assert found.sentence.startswith("The draws may be trusted: largest R-hat 1.0")
    assert found.scales.shape == (2, 700, 1) and len(found.fitted) == 1400 and np.all(found.intercept == 0)
    drawn = np.array([draw.deviations[0, 1] - draw.deviations[0, 0] for draw in found.fitted])
    for values, truth in [(np.log(found.scales).ravel(), log_s), (np.arcsinh(drawn), np.arcsinh(slope))]:
        mean = float((mass * truth).sum())
        sd = float(np.sqrt((mass * (truth - mean) ** 2).sum()))
        error = sd / np.sqrt(found.ess)
        assert values.mean() == pytest.approx(mean, abs=4 * error)
        assert values.std() == pytest.approx(sd, rel=0.1)
    chances = 1 / (1 + np.exp(-drawn))
    some = found.fitted[::100]
    given = [draw.leaf_probabilities(sp.csr_array([[1.0]]))[0, 1] for draw in some]
    np.testing.assert_allclose(given, chances[::100], rtol=1e-6)
    chance = float((mass / (1 + np.exp(-slope))).sum())
    assert chances.mean() == pytest.approx(chance, abs=4 * chances.std() / np.sqrt(found.ess))


def test_draws_have_the_same_seed_the_same_values() -> None:
    rows, shape, *_ = on_a_grid()
    plan = settings([1.0], "holdout", tol=1e-8)
    one, two = (sample(TWO, rows, shape, replace(plan, threads=threads), 10, 2, 5, warmup=20) for threads in (1, 2))
    np.testing.assert_array_equal(one.scales, two.scales)
    other = sample(TWO, rows, shape, plan, 10, 2, 6, warmup=20)
    assert np.any(other.scales != one.scales)
    assert not one.trusted and "effective sample size" in one.sentence


def test_a_large_problem_is_refused_with_what_to_do() -> None:
    rows, shape, *_ = on_a_grid()
    wide = replace(rows, x=sp.csr_array((12, 4000)), group=np.zeros(4000, dtype=np.int32))
    with pytest.raises(OptionError, match=r"would sample 8,000 coefficients \(4,000 features .* inference='bootstrap'"):
        sample(TWO, wide, shape, settings([1.0]), 10, 1, 0)


@pytest.mark.parametrize("likelihood", ["flat", "nested"])
def test_the_size_is_known_before_a_fit(likelihood: str) -> None:
    rows = simulated(TREE, 60, 5, 1.0, 7, partial=True)
    below_b = TREE.raised(rows.nodes, 1) == TREE.node("b")
    lacking = np.where(below_b[:, None] & (np.arange(5) == 2), 0.0, rows.x.toarray())  # nested: not a feature of b's
    rows = replace(rows, x=sp.csr_array(lacking), group=np.array([0, 0, 1, 1, 1], dtype=np.int32))
    shape, plan = scale_shape(TREE, "level", ["f", "g"], 2.0), settings([1.0, 2.0, 0.5, 1.5], likelihood=likelihood)
    by_hand = {"flat": 6 * (len(TREE) - 1), "nested": 6 * 4 + 6 * 2 + 5 * 3}[likelihood]  # `alone` has none
    assert check_size(TREE, rows, shape, plan) == by_hand == Density(TREE, rows, shape, plan).deviations
    with pytest.raises(OptionError, match=f"would sample {by_hand} coefficients"):
        check_size(TREE, rows, shape, plan, by_hand - 1)


def test_few_draws_are_told_of_without_nan() -> None:
    rows, *_ = on_a_grid()
    made = TaxonomyClassifier(inference="nuts", scales="fixed", prior_scale=1.0, n_jobs=1, draws=5)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        made.fit(rows.x, rows.nodes)
    assert [one.category for one in told] == [ConvergenceWarning] and told[0].filename == __file__
    assert str(told[0].message) == made.verdict_
    assert made.verdict_ == "Do not trust these draws: 5 draws of each chain are too few to judge; take more draws."
    assert made.trusted_ is False
    still = {"diverging": np.zeros((2, 100)), "energy": np.zeros((2, 100))}
    assert verdict(np.nan, np.nan, still) == (
        False,
        "Do not trust these draws: the chains have not moved; take more draws.",
    )
    with pytest.raises(OptionError, match=r"draws=3: inference='nuts' takes at least 4"):
        made.set_params(draws=3).fit(rows.x, rows.nodes)


def test_the_verdict_names_what_is_wrong() -> None:
    energy = np.random.default_rng(0).normal(size=(2, 100))
    stats = {"diverging": np.zeros((2, 100)), "energy": energy}
    assert verdict(1.001, 800, stats)[0]
    stats["diverging"][0, 3] = 1
    stats["energy"] = np.cumsum(energy, axis=1)
    trusted, sentence = verdict(1.2, 50, stats)
    assert not trusted
    for part in ("R-hat reaches 1.200", "1 divergent transition:", "size is 50", "E-BFMI is 0."):
        assert part in sentence


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["flat", "nested"])
def test_nuts_mode_and_bootstrap_agree_where_rows_are_many(likelihood: str) -> None:
    """By Bernstein and von Mises; scales held, so that all three have the same prior."""
    rows, shape = simulated(TREE, 800, 3, 0.7, 12), scale_shape(TREE, "level", ["f"], 2.0)
    rows = replace(rows, weight=np.ones(800))
    plan = settings([1.0, 1.0], likelihood=likelihood, tol=1e-8)
    fitted = fit_tree(TREE, rows, shape, plan)
    found = sample(TREE, rows, shape, plan, draws=150, chains=2, seed=1, start=fitted, warmup=150)
    x = simulated(TREE, 40, 3, 0.7, 13).x
    logs = np.log([draw.leaf_probabilities(x) for draw in found.fitted])
    sd = logs.std(axis=0)
    assert np.abs(logs.mean(axis=0) - np.log(fitted.leaf_probabilities(x))).max() < 0.5 * sd.max()
    refits = bootstrap(TREE, rows, shape, plan, fitted, 100, np.random.default_rng(2))
    spread = np.std(np.log([draw.leaf_probabilities(x) for draw in refits]), axis=0)
    assert np.mean(np.log(spread / sd)) == pytest.approx(0, abs=0.2)


# -- the classifier's verbs -----------------------------------------------------------------------------------------


@cache
def classifier(inference: str, draws: int) -> tuple[Any, Any]:
    """A fitted classifier with the verbs, and rows to predict."""
    data = articles(rows=150, words=20)
    made = TaxonomyClassifier(inference=inference, scales="fixed", prior_scale=3.0, n_jobs=1, draws=draws)
    return made.fit(data.x, data.y), data.test_x[:30]


@pytest.mark.parametrize("level", [None, 1, 2])
def test_draws_of_probabilities_add_up_and_bound(level: int | None) -> None:
    made, x = classifier("bootstrap", 12)
    draws = made.predict_proba_draws(x, level)
    assert draws.shape == (12, 30, len(made.classes_at(level)))
    np.testing.assert_allclose(draws.sum(axis=2), 1, atol=1e-6)
    low, high = made.predict_proba_interval(x, level, interval=0.8)
    np.testing.assert_allclose([low, high], np.quantile(draws, [0.1, 0.9], axis=0), atol=1e-12)
    alone = np.concatenate([made.predict_proba_draws(x[[i]], level) for i in range(3)], axis=1)
    np.testing.assert_allclose(alone, draws[:, :3], atol=1e-7)


def test_draws_of_a_parent_are_sums_of_its_children() -> None:
    made, x = classifier("bootstrap", 12)
    np.testing.assert_allclose(
        made.predict_proba_draws(x, 1), made.tree_.sums(made.predict_proba_draws(x), made.tree_.at_level(1)), atol=1e-12
    )


def test_verbs_say_what_they_need() -> None:
    made, x = classifier("map", 12)
    for verb in (made.predict_proba_draws, made.predict_proba_interval):
        with pytest.raises(OptionError, match="fitted without draws.*inference='bootstrap'"):
            verb(x)
    with pytest.raises(OptionError, match="fitted without draws"):
        made.coefficient_sd("ducks")
    made, x = classifier("bootstrap", 12)
    for wrong in (0, 1, 1.5, -0.1, "wide", True, float("nan")):
        with pytest.raises(OptionError, match="interval=.* must lie between 0 and 1"):
            made.predict_proba_interval(x, interval=wrong)
    assert made.coefficient_sd("animals/birds/ducks").shape == (21,) and made.coefficient_sd("ducks").min() >= 0
    assert made.trusted_ is None and made.verdict_ is None


@pytest.mark.parametrize("change", ["partial_fit", "add_class", "drop_class", "merge"])
def test_draws_of_other_coefficients_are_dropped_with_the_reason(change: str) -> None:
    data = articles(rows=60, words=10)
    made = TaxonomyClassifier(inference="bootstrap", scales="fixed", prior_scale=3.0, n_jobs=1, draws=2)
    made.fit(data.x, data.y)
    made.predict_proba_draws(data.x)
    given: tuple[Any, ...] = {
        "partial_fit": (data.x[:9], data.y[:9]),
        "add_class": (("tools", "rasps"), data.x[:5]),
        "drop_class": ("pike",),
        "merge": (["carp", "pike"], "both"),
    }[change]
    getattr(made, change)(*given)
    made.partial_fit(data.x[:1], ["music"])  # a second change does not forget that there were draws
    for verb in (made.predict_proba_draws, made.predict_proba_interval):
        with pytest.raises(OptionError, match="draws were of the coefficients before .*fit the classifier again"):
            verb(data.x)
    made.fit(data.x, data.y)
    assert made.predict_proba_draws(data.x).shape[0] == 2
    made.set_params(inference="map").fit(data.x, data.y)
    with pytest.raises(OptionError, match="fitted without draws"):
        made.predict_proba_draws(data.x)


@pytest.mark.slow
def test_a_classifier_sampled() -> None:
    with pytest.warns(ConvergenceWarning, match="R-hat reaches") as told:
        made, x = classifier("nuts", 20)
    assert str(told[0].message) == made.verdict_
    assert made.predict_proba_draws(x).shape[0] == 80  # four chains
    assert made.trusted_ is False  # 20 draws are never enough for effective sample sizes of 400
    assert made.draws_[0].deviations.dtype == np.float32 and np.all(made.draws_[7].scales == 3.0)
    draws = made.predict_proba_draws(x, 1)
    away = np.abs(draws.mean(axis=0) - made.predict_proba(x, 1))
    assert np.mean(away) < 0.4 * np.mean(draws.std(axis=0))
