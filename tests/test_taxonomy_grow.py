"""Further rows and changed trees on a fitted classifier."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from taxonomy_samples import articles, glosses

from multilevel.errors import DataError, OptionError
from multilevel.taxonomy.estimator import TaxonomyClassifier
from multilevel.taxonomy.merging import like_rows
from multilevel.taxonomy.newcomer import _Old
from multilevel.taxonomy.objective import Objective, leaf_coefficients
from multilevel.taxonomy.online import curvature, seen_rows
from multilevel.taxonomy.problems import Rows
from multilevel.taxonomy.tree import Taxonomy

DATA = articles(900)
LIKELIHOODS = ["flat", "nested"]


def labels(y: np.ndarray) -> np.ndarray:
    return np.array(["/".join(part for part in row if part) for row in y])


Y, TEST_Y = labels(DATA.y), labels(DATA.test_y)
CLASSES = sorted(set(Y))
BATCHES = np.array_split(np.random.default_rng(5).permutation(len(Y)), 8)


def quick(**options: Any) -> TaxonomyClassifier:
    # the scales of both levels are near those that hold-out finds
    usual = {"separator": "/", "scales": "fixed", "prior_scale": 4.0, "n_jobs": 1, "dtype": "float64"}
    return TaxonomyClassifier(**{**usual, **options})


@cache
def whole(likelihood: str) -> TaxonomyClassifier:
    return quick(likelihood=likelihood).fit(DATA.x, Y)


def fitted(likelihood: str, without: str = "") -> TaxonomyClassifier:
    kept = without != Y
    return quick(likelihood=likelihood).fit(DATA.x[kept], Y[kept])


def log_loss(model: TaxonomyClassifier) -> float:
    leaf = model.tree_.leaf_of[model.tree_.nodes_of(TEST_Y, "/")]
    return float(-np.mean(np.log(model.predict_proba(DATA.test_x)[np.arange(len(leaf)), leaf])))


def is_consistent(model: TaxonomyClassifier, weight: float) -> None:
    p = model.predict_proba(DATA.test_x)
    tree = model.tree_
    assert model.fitted_.tree is tree
    assert list(model.classes_) == [tree.labels[leaf] for leaf in tree.leaves]
    assert p.shape == (DATA.test_x.shape[0], len(model.classes_)) and np.all(p >= 0)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)
    assert set(model.predict(DATA.test_x)) <= set(model.classes_)
    assert model.node_weight_.shape == (len(tree),) and model.node_weight_.sum() == pytest.approx(weight)
    assert model.class_shares_.shape == (len(tree.leaves),) and model.class_shares_.sum() == pytest.approx(1)
    assert model.fitted_.deviations.shape == (DATA.x.shape[1] + 1, len(tree))
    assert model.fitted_.shape.cell.shape[1] == len(tree) and set(model.scales_) == set(model.fitted_.shape.names)
    columns = len(tree.leaves) if model.likelihood == "flat" else len(tree)
    assert model.seen_.curvature.shape == (DATA.x.shape[1] + 1, columns)
    assert model.seen_.sums.shape == model.seen_.squares.shape == (len(tree), DATA.x.shape[1])


def column(model: TaxonomyClassifier, path: str) -> int:
    """Of the probabilities, that of a leaf."""
    return int(model.tree_.leaf_of[model.tree_.node(path, "/")])


def paths_predicted(model: TaxonomyClassifier, x: Any) -> np.ndarray:
    tree = model.tree_
    return np.array(["/".join(tree.paths[tree.leaves[k]]) for k in model.predict_proba(x).argmax(axis=1)])


def leaf_bytes(model: TaxonomyClassifier, label: str) -> bytes:
    tree = model.tree_
    node = tree.node(label, "/")
    if model.likelihood == "flat":
        return bytes(leaf_coefficients(tree, model.fitted_.deviations)[:, tree.leaf_of[node]].tobytes())
    return b"".join(model.fitted_.deviations[:, [v]].toarray().tobytes() for v in tree.ancestors(node))


# ---- rows in portions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_first_call_is_a_fit_at_the_first_scales(likelihood: str) -> None:
    first = quick(likelihood=likelihood, scales="holdout").partial_fit(DATA.x, Y, classes=CLASSES)
    np.testing.assert_array_equal(first.predict_proba(DATA.test_x), whole(likelihood).predict_proba(DATA.test_x))
    assert set(first.scales_.values()) == {4.0}
    untold = quick(likelihood=likelihood).partial_fit(DATA.x, Y)
    np.testing.assert_array_equal(untold.predict_proba(DATA.test_x), first.predict_proba(DATA.test_x))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_many_portions_come_near_the_fit_to_all(likelihood: str, dtype: str) -> None:
    model = quick(likelihood=likelihood, dtype=dtype)
    losses = []
    for batch in BATCHES:
        model.partial_fit(DATA.x[batch], Y[batch], classes=CLASSES)
        losses.append(log_loss(model))
    assert losses[-1] < 0.7 * losses[0]
    assert losses[-1] < 1.0 * log_loss(whole(likelihood))
    near = np.abs(model.predict_proba(DATA.test_x) - whole(likelihood).predict_proba(DATA.test_x)).sum(axis=1) / 2
    assert np.mean(near) < 0.06  # half the sum: the share of probability that lies elsewhere
    is_consistent(model, len(Y))
    np.testing.assert_allclose(model.node_weight_, whole(likelihood).node_weight_)


def test_portions_that_lack_classes_do_not_unlearn_them() -> None:
    model = quick(tree=CLASSES)
    for k, batch in enumerate(BATCHES):
        part = batch[~np.isin(Y[batch], [CLASSES[k], CLASSES[(k + 4) % len(CLASSES)]])]
        model.partial_fit(DATA.x[part], Y[part])
    assert log_loss(model) < 1.07 * log_loss(whole("flat"))


def test_a_portion_leaves_features_alone_that_it_lacks() -> None:
    model = fitted("flat")
    before = model.fitted_.deviations.copy()
    rows = sp.csr_array(DATA.x[:20].toarray() * (np.arange(DATA.x.shape[1]) < 10))
    model.partial_fit(rows, Y[:20])
    np.testing.assert_array_equal(model.fitted_.deviations[10:-1], before[10:-1])
    assert np.any(model.fitted_.deviations[:10] != before[:10])


@given(st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_curvature_is_the_diagonal_of_the_hessian(seed: int) -> None:
    generator = np.random.default_rng(seed)
    tree = Taxonomy.from_paths([("a", "x"), ("a", "y"), ("b", "x"), ("c",)])
    x = sp.csr_array(generator.normal(size=(15, 3)) * (generator.random((15, 3)) < 0.6))
    nodes = tree.leaves[generator.integers(0, 4, 15)]
    weight = generator.uniform(0, 2, 15)
    u = generator.normal(size=(4, len(tree)))
    found = curvature(tree, x, nodes, weight, leaf_coefficients(tree, u))
    objective, ones = Objective(tree, x, nodes, weight), np.ones((2, len(tree)))
    objective.value(u, ones, prior=False)
    for j in range(4):
        for k, leaf in enumerate(tree.leaves):
            unit = np.zeros_like(u)
            unit[j, leaf] = 1
            assert found[j, k] == pytest.approx(
                objective.product(unit, ones, prior=False)[j, leaf], rel=1e-8, abs=1e-10
            )


def test_partial_labels_and_weights_in_portions() -> None:
    coarse = np.where(np.arange(len(Y)) % 3 == 0, np.char.partition(Y.astype(str), "/")[:, 0], Y)
    model = quick(tree=CLASSES)
    for batch in BATCHES[:4]:
        model.partial_fit(DATA.x[batch], coarse[batch], sample_weight=np.full(len(batch), 2.0))
    is_consistent(model, 2 * sum(len(batch) for batch in BATCHES[:4]))
    first = np.concatenate(BATCHES[:4])
    assert model.node_weight_[model.tree_.node("animals")] == 2 * np.sum(coarse[first] == "animals")
    at_once = quick(tree=CLASSES).fit(DATA.x[first], coarse[first], sample_weight=np.full(len(first), 2.0))
    assert log_loss(model) < 1.02 * log_loss(at_once)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_new_leaves_come_with_a_portion(likelihood: str) -> None:
    new = "tools/saws"
    model = fitted(likelihood, without=new)
    late = np.concatenate([np.flatnonzero(new == Y), np.flatnonzero(new != Y)[:150]])
    with pytest.raises(DataError, match="'tools/saws' is not a class.*Name new classes in `classes`"):
        model.partial_fit(DATA.x[late], Y[late])
    assert "saws" not in model.classes_
    model.partial_fit(DATA.x[late], Y[late], classes=[new])
    is_consistent(model, len(Y) + 150)
    assert list(model.classes_) == list(whole(likelihood).classes_)
    assert log_loss(model) < 1.06 * log_loss(whole(likelihood))


def test_errors_of_portions_leave_the_fit_as_it_was() -> None:
    model = fitted("flat")
    before = model.predict_proba(DATA.test_x)
    for x, y, options, match in [
        (DATA.x[:2], ["nowhere"] * 2, {}, "not a class"),
        (DATA.x[:2], Y[:3], {}, "2 rows and y has 3"),
        (DATA.x[:2, :5], Y[:2], {}, "5 features"),
        (DATA.x[:2], Y[:2], {"sample_weight": [-1, 1]}, "negative"),
        (DATA.x[:2], ["animals/new", Y[0]], {"classes": ["animals/new"], "sample_weight": [np.nan, 1]}, "NaN"),
        (DATA.x[:2], None, {}, "y is None"),
    ]:
        with pytest.raises(ValueError, match=match):
            model.partial_fit(x, y, **options)
    np.testing.assert_array_equal(model.predict_proba(DATA.test_x), before)
    assert model.node_weight_.sum() == len(Y)
    with pytest.raises(OptionError, match="'balanced' needs all rows"):
        quick(class_weight="balanced").partial_fit(DATA.x, Y)
    del model.seen_
    with pytest.raises(DataError, match="fit it again"):
        model.partial_fit(DATA.x[:2], Y[:2])


# ---- classes that come and go ------------------------------------------------------------------------------------


@pytest.mark.parametrize("new", ["animals/birds/owls", "tools/saws", "music"])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_add_class_leaves_the_others_bit_for_bit(likelihood: str, new: str) -> None:
    model = fitted(likelihood, without=new)
    before = {label: leaf_bytes(model, label) for label in CLASSES if label != new}
    model.add_class(new, DATA.x[new == Y])
    assert {label: leaf_bytes(model, label) for label in before} == before
    is_consistent(model, len(Y))
    np.testing.assert_allclose(model.node_weight_, whole(likelihood).node_weight_)
    found = paths_predicted(model, DATA.test_x[new == TEST_Y]) == new
    if likelihood == "flat":
        assert log_loss(model) < 1.05 * log_loss(whole("flat"))
        learnt_at_once = paths_predicted(whole("flat"), DATA.test_x[new == TEST_Y]) == new
        assert np.mean(found) > np.mean(learnt_at_once) - 0.03
        share = model.predict_proba(DATA.test_x)[:, column(model, new)].sum()
        assert 0.8 < share / np.sum(new == TEST_Y) < 1.5  # as many of them as there are
    else:
        assert np.mean(found) > 0.45  # the nodes above have not learnt of them


def test_the_stand_in_for_old_rows_has_the_right_slopes() -> None:
    model = fitted("flat")
    old = _Old(model.fitted_, model.seen_, model.node_weight_.copy(), int(model.tree_.leaves[0]))
    generator = np.random.default_rng(0)
    u, r = generator.normal(size=DATA.x.shape[1] + 1), generator.normal(size=len(old.weight)) - 3
    _, slope, bend = old.loss(u, r)
    for j in [0, 7, DATA.x.shape[1]]:
        unit = np.zeros_like(u)
        unit[j] = 1e-5
        ahead, behind = old.loss(u + unit, r), old.loss(u - unit, r)
        assert slope[j] == pytest.approx((ahead[0] - behind[0]) / 2e-5, rel=1e-5, abs=1e-6)
        assert bend[j] == pytest.approx((ahead[1][j] - behind[1][j]) / 2e-5, rel=1e-5, abs=1e-6)
    rows = DATA.x[(Y == "music")].toarray()
    which = list(np.flatnonzero(model.node_weight_ > 0)[1:]).index(model.tree_.node("music"))
    np.testing.assert_allclose(old.mean[[which]].toarray()[0], rows.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(old.variance[[which]].toarray()[0], rows.var(axis=0), atol=1e-12)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_add_class_below_new_nodes_and_below_a_leaf(likelihood: str) -> None:
    model = fitted(likelihood)
    weight, rows = len(Y), DATA.x[:12]
    before = {label: leaf_bytes(model, label) for label in CLASSES}
    model.add_class(("plants", "trees", "oaks", "red"), rows)
    assert model.tree_.levels == ("level 1", "level 2", "level 3", "level 4")
    assert model.fitted_.scales[3] == pytest.approx(4.0)
    is_consistent(model, weight + 12)
    assert {label: leaf_bytes(model, label) for label in CLASSES} == before
    p = model.predict_proba(DATA.test_x)
    model.add_class("music/jazz", rows)  # takes the place of its parent
    np.testing.assert_allclose(model.predict_proba(DATA.test_x), p, atol=1e-12)
    assert "music" not in model.classes_ and "music/jazz" in model.classes_
    model.add_class("music/folk", rows)
    is_consistent(model, weight + 36)
    with pytest.raises(DataError, match="in the tree already"):
        model.add_class("music/folk", rows)
    model.partial_fit(rows, ["music/folk"] * 12)
    is_consistent(model, weight + 48)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_drop_class(likelihood: str) -> None:
    model = fitted(likelihood)
    p, classes = model.predict_proba(DATA.test_x), list(model.classes_)
    model.drop_class("tools/saws")
    is_consistent(model, len(Y))
    assert model.node_weight_[model.tree_.node("tools")] == np.sum(Y == "tools/saws")
    kept = [k for k, label in enumerate(classes) if label != "tools/saws"]
    if likelihood == "flat":
        expected = p[:, kept] / p[:, kept].sum(axis=1, keepdims=True)
        np.testing.assert_allclose(model.predict_proba(DATA.test_x), expected, atol=1e-9)
    else:  # its siblings share its probability
        above = model.predict_proba(DATA.test_x, level=1)
        np.testing.assert_allclose(above, whole("nested").predict_proba(DATA.test_x, level=1), atol=1e-9)
    model.drop_class("animals/birds").drop_class(("animals", "fish", "carp"))
    before = model.predict_proba(DATA.test_x)
    model.drop_class("animals/fish/pike")  # the last child: its parent takes its place
    assert "animals/fish" in model.classes_
    np.testing.assert_allclose(model.predict_proba(DATA.test_x), before, atol=1e-9)
    is_consistent(model, len(Y))
    model.partial_fit(DATA.x[:5], ["animals/fish"] * 5)
    is_consistent(model, len(Y) + 5)
    model.drop_class("music").drop_class("animals")  # classes at the top are forgotten
    is_consistent(model, np.sum(np.char.startswith(Y, "tools")))
    with pytest.raises(DataError, match="at least two"):
        model.drop_class("tools/knives")
    with pytest.raises(DataError, match="'nowhere' is not a class"):
        model.drop_class("nowhere")


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_merge(likelihood: str) -> None:
    model = fitted(likelihood)
    parts = [column(model, "animals/birds/ducks"), column(model, "animals/birds/owls")]
    p = model.predict_proba(DATA.test_x)
    model.merge([("animals", "birds", "ducks"), "animals/birds/owls"], "fowl")
    is_consistent(model, len(Y))
    merged = model.predict_proba(DATA.test_x)[:, column(model, "animals/birds/fowl")]
    assert np.mean(np.abs(merged - p[:, parts].sum(axis=1))) < 0.02
    model.merge(["tools/saws", "tools/knives"], "saws")
    assert model.node_weight_[model.tree_.node("tools/saws", "/")] == np.sum(np.isin(Y, ["tools/saws", "tools/knives"]))
    joined = np.array([{"tools/knives": "tools/saws"}.get(y, y) for y in Y])
    joined = np.where(np.isin(Y, ["animals/birds/ducks", "animals/birds/owls"]), "animals/birds/fowl", joined)
    again = quick(likelihood=likelihood).fit(DATA.x, joined)
    np.testing.assert_allclose(model.node_weight_, again.node_weight_)
    assert np.mean(model.predict(DATA.test_x) == again.predict(DATA.test_x)) > 0.97
    model.partial_fit(DATA.x[:50], joined[:50])
    is_consistent(model, len(Y) + 50)


def mass_and_loss(model: Any, x: Any, labels_: Any, parts: list[Any]) -> list[float]:
    """After and before a merge: mass of the classes, mean loss of whether a row is of them; and distance of the two."""
    tree = model.tree_
    nodes = [tree.node(part, "/") for part in parts]
    before = model.predict_proba(x)[:, tree.leaf_of[nodes]].sum(axis=1)
    within = np.isin(tree.nodes_of(labels_, "/"), nodes)
    model = deepcopy(model).merge(parts, "merged")
    tree = model.tree_
    leaf = next(leaf for leaf in tree.leaves if tree.paths[leaf][-1] == "merged")
    after = model.predict_proba(x)[:, tree.leaf_of[leaf]]
    loss = [-np.log(np.where(within, p, 1 - p)).mean() for p in (after, before)]
    return [after.sum(), before.sum(), *loss, np.abs(after - before).mean()]


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("parts", [("saws", "knives"), ("saws", "hammers")])
def test_a_merged_class_has_the_mass_of_both(likelihood: str, parts: tuple[str, str]) -> None:
    of = [f"tools/{part}" for part in parts]
    after, before, loss, first, away = mass_and_loss(fitted(likelihood), DATA.test_x, TEST_Y, of)
    assert after == pytest.approx(before, rel=0.06)
    assert loss < first + 0.012 and away < 0.015
    known = np.where(np.isin(Y, of), "tools/merged", Y)
    again = quick(likelihood=likelihood).fit(DATA.x, known)
    p = again.predict_proba(DATA.test_x)[:, column(again, "tools/merged")]
    at_once = -np.log(np.where(np.isin(TEST_Y, of), p, 1 - p)).mean()
    assert loss < 1.04 * at_once  # as good as a fit to all rows


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_a_merged_class_of_texts_has_the_mass_of_both(likelihood: str) -> None:
    data = glosses(domains=("animal", "body", "attribute"))
    model = TaxonomyClassifier(scales="fixed", likelihood=likelihood, n_jobs=1).fit(data.x, data.y)
    for domain in ("body", "attribute"):
        kinds = sorted({kind for above, kind in data.y if above == domain})
        parts = [(domain, kind) for kind in kinds[:2]]
        after, before, loss, first, away = mass_and_loss(model, data.test_x, data.test_y, parts)
        assert after == pytest.approx(before, rel=0.1)
        assert abs(loss - first) < 0.008 and away < 0.02


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_merged_twins_have_the_sum_exactly(likelihood: str) -> None:
    model = fitted(likelihood)
    u = model.fitted_.deviations
    u = (u.toarray() if sp.issparse(u) else u).copy()
    saws, knives = (model.tree_.node(path, "/") for path in ("tools/saws", "tools/knives"))
    u[:, knives] = u[:, saws]
    u[-1, knives] += 1.5
    model.fitted_ = replace(model.fitted_, deviations=sp.csr_array(u) if likelihood == "nested" else u)
    model.fitted_._leaf_coefficients = None
    after, before, _, _, away = mass_and_loss(model, DATA.test_x, TEST_Y, ["tools/saws", "tools/knives"])
    assert after == pytest.approx(before, rel=1e-3) and away < 1e-4


@pytest.mark.parametrize("signed", [False, True])
def test_drawn_rows_have_the_moments_of_the_classes(signed: bool) -> None:
    generator = np.random.default_rng(2)
    model, x = whole("flat"), DATA.x.toarray()
    if signed:
        x = generator.normal(size=x.shape) * 0.5 + 0.2
    weight = generator.uniform(0.5, 2, len(x))
    nodes = model.tree_.nodes_of(Y, "/")
    rows = Rows(sp.csr_array(x), nodes, weight, np.zeros(x.shape[1], dtype=np.int32))
    by_node = np.bincount(nodes, weight, len(model.tree_))
    seen = seen_rows(model.fitted_, rows, 1)
    drawn, mass = like_rows(seen, by_node, 40_000, generator, [int(nodes[0])])
    assert mass.sum() == pytest.approx(weight.sum())
    error = np.sqrt(weight.sum() * (weight @ x**2) / 15_000)  # of a sum, where classes' shares of the rows differ
    assert np.abs((mass @ drawn - weight @ x) / error).max() < 5
    np.testing.assert_allclose(mass @ drawn.power(2), weight @ x**2, rtol=0.15)


def test_merge_says_what_cannot_be() -> None:
    model = fitted("flat")
    for paths, name, match in [
        (["animals/fish/carp"], "x", "at least two"),
        (["animals/fish/carp", "animals/fish/carp"], "x", "at least two"),
        (["animals/fish/carp", "tools/saws"], "x", "different parents"),
        (["animals/birds", "animals/worms"], "x", "has classes below it"),
        (["animals/fish/carp", "nowhere"], "x", "'nowhere' is not a class"),
        (["tools/saws", "tools/knives"], "hammers", "a class already"),
    ]:
        with pytest.raises(DataError, match=match):
            model.merge(paths, name)
    with pytest.raises(OptionError, match="give a list"):
        model.merge("carp", "x")
    two = TaxonomyClassifier(scales="fixed", n_jobs=1).fit(DATA.x[:40], np.arange(40) % 2)
    with pytest.raises(DataError, match="at least two"):
        two.merge([0, 1], 2)


def test_a_scale_for_each_parent_grows_with_the_tree() -> None:
    model = quick(scale_by="parent", feature_groups=["a", "b"] * (DATA.x.shape[1] // 2)).fit(DATA.x, Y)
    before = dict(model.scales_)
    model.add_class("music/jazz", DATA.x[:9]).add_class("music/folk", DATA.x[9:20])
    assert {name: model.scales_[name] for name in before} == before
    assert {"below music, a", "below music, b"} <= set(model.scales_)
    is_consistent(model, len(Y) + 20)


# ---- warm starts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_a_warm_start_with_other_rows_ends_where_a_cold_one_does(likelihood: str) -> None:
    options: dict[str, Any] = {"likelihood": likelihood, "tree": CLASSES, "tol": 1e-10}
    warm = quick(warm_start=True, **options).fit(DATA.x[:600], Y[:600])
    warm.fit(DATA.x[300:], Y[300:])
    cold = quick(**options).fit(DATA.x[300:], Y[300:])
    np.testing.assert_allclose(warm.predict_proba(DATA.test_x), cold.predict_proba(DATA.test_x), atol=1e-4)
    assert warm.scales_ == cold.scales_
    again = warm.n_iter_
    warm.fit(DATA.x[300:], Y[300:])
    assert warm.n_iter_ < again
    grown = warm.partial_fit(DATA.x[:50], Y[:50]).fit(DATA.x[300:], Y[300:])
    np.testing.assert_allclose(grown.predict_proba(DATA.test_x), cold.predict_proba(DATA.test_x), atol=1e-4)
