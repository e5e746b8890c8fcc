"""Stop rules and costs against enumeration of all nodes."""

from __future__ import annotations

from math import log
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from taxonomy_simulated import THREE, Simulated, leaf_sets, simplex, trees

from multilevel.errors import OptionError
from multilevel.taxonomy.costs import cost_matrix, hf_loss, information_loss, tree_distance
from multilevel.taxonomy.stopping import Cost, Darts, Guarantee
from multilevel.taxonomy.tree import Taxonomy

SEEDS = st.integers(0, 2**31)


def answers(tree: Taxonomy, level: int) -> list[tuple[int, int, set[int]]]:
    """(node or -1, classes of the level below, leaves below) of all nodes down to a level, and the root."""
    sets, ends = leaf_sets(tree), tree.at_level(level).tolist()
    nodes = [node for node in range(len(tree)) if len(tree.paths[node]) <= level] + [-1]
    return [
        (node, sum(sets[end] <= sets[node] for end in ends if _below(tree, end, node)), sets[node]) for node in nodes
    ]


def _below(tree: Taxonomy, node: int, above: int) -> bool:
    path = tree.paths[above] if above >= 0 else ()
    return tree.paths[node][: len(path)] == path


def label(tree: Taxonomy, node: int) -> Any:
    return tree.labels[node] if node >= 0 else None


@settings(max_examples=60, deadline=None)
@given(trees(), SEEDS, st.floats(0.01, 0.99), st.data())
def test_a_threshold_takes_the_narrowest_node_that_reaches_it(
    tree: Taxonomy, seed: int, stop: float, data: Any
) -> None:
    level = data.draw(st.integers(1, len(tree.levels)))
    p = simplex(tree, 5, seed)
    found = Simulated(tree).predict(p, level=level, stop=stop)
    for row, got in zip(p, found, strict=True):
        able = [(count, -row[list(below)].sum(), node) for node, count, below in answers(tree, level)]
        able = [one for one in able if -one[1] >= stop or one[2] == -1]
        best = min((count, round(minus, 12)) for count, minus, _ in able)
        assert got in [label(tree, node) for count, minus, node in able if (count, round(minus, 12)) == best]


@settings(max_examples=60, deadline=None)
@given(trees(), SEEDS, st.floats(0, 5), st.data())
def test_darts_takes_the_highest_rewarded_information(tree: Taxonomy, seed: int, reward: float, data: Any) -> None:
    level = data.draw(st.integers(1, len(tree.levels)))
    p = simplex(tree, 5, seed)
    classes = max(len(tree.at_level(level)), 2)
    found = Simulated(tree).predict(p, level=level, stop=Darts(reward=reward))
    for row, got in zip(p, found, strict=True):
        value = {
            label(tree, node): row[list(below)].sum() * (1 - log(count) / log(classes) + reward)
            for node, count, below in answers(tree, level)
        }
        assert value[got] == pytest.approx(max(value.values()), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(trees(), SEEDS, st.data())
def test_any_costs_are_least_at_the_answer(tree: Taxonomy, seed: int, data: Any) -> None:
    level = data.draw(st.integers(1, len(tree.levels)))
    p = simplex(tree, 5, seed)
    costs = np.random.default_rng(seed + 1).normal(size=(len(tree) + 1, len(tree.leaves)))
    found = Simulated(tree).predict(p, level=level, cost=costs)
    for row, got in zip(p, found, strict=True):
        value = {label(tree, node): float(costs[node] @ row) for node, _, _ in answers(tree, level)}
        assert got == min(value, key=lambda name: value[name])


@settings(max_examples=40, deadline=None)
@given(trees())
def test_built_costs_against_paths(tree: Taxonomy) -> None:
    distance, hf, information = tree_distance(tree), hf_loss(tree), information_loss(tree, 3.0)
    sets = leaf_sets(tree)
    for node, path in enumerate([*tree.paths, ()]):
        for k, leaf in enumerate(tree.leaves):
            truth = tree.paths[leaf]
            mine, theirs = {path[:d] for d in range(1, len(path) + 1)}, {truth[:d] for d in range(1, len(truth) + 1)}
            assert distance[node, k] == len(mine ^ theirs)
            overlap = len(mine & theirs)
            precision, recall = overlap / max(len(mine), 1), overlap / len(theirs)
            assert hf[node, k] == pytest.approx(1 - 2 * precision * recall / (precision + recall) if overlap else 1)
            right = log(len(sets[node])) / log(len(tree.leaves))
            assert information[node, k] == pytest.approx(right if k in sets[node] else 3.0)


@settings(max_examples=30, deadline=None)
@given(trees(), SEEDS, st.floats(0.01, 4))
def test_information_lost_is_darts(tree: Taxonomy, seed: int, reward: float) -> None:
    p, model = simplex(tree, 8, seed), Simulated(tree)
    by_cost = model.predict(p, cost=lambda tree: information_loss(tree, 1 + reward))
    assert by_cost.tolist() == model.predict(p, stop=Darts(reward=reward)).tolist()


@settings(max_examples=40, deadline=None)
@given(trees(), SEEDS, st.floats(0, 1), st.floats(0, 1))
def test_a_higher_threshold_never_narrows(tree: Taxonomy, seed: int, one: float, other: float) -> None:
    low, high = sorted((one, other))
    p, model, sets = simplex(tree, 10, seed), Simulated(tree), leaf_sets(tree)
    names = [*tree.labels, None]
    for bold, careful in zip(model.predict(p, stop=low), model.predict(p, stop=high), strict=True):
        wide, narrow = sets[names.index(careful)], sets[names.index(bold)]
        assert len(wide) >= len(narrow)
        if low >= 0.5 and low > 0:  # one path: the careful answer is the bold one or above it
            assert narrow <= wide
            depth = [len(tree.paths[names.index(name)]) if name is not None else 0 for name in (careful, bold)]
            assert depth[0] <= depth[1]


@settings(max_examples=30, deadline=None)
@given(trees(), SEEDS, st.data())
def test_no_threshold_is_the_plain_answer(tree: Taxonomy, seed: int, data: Any) -> None:
    level = data.draw(st.integers(1, len(tree.levels)))
    p, model = simplex(tree, 8, seed), Simulated(tree)
    assert model.predict(p, level=level).tolist() == model.predict(p, level=level, stop=0).tolist()


def test_the_root_is_none_and_has_an_empty_path() -> None:
    p = np.full((1, len(THREE.leaves)), 1 / len(THREE.leaves))
    model = Simulated(THREE)
    found = model.predict(p, stop=0.99)
    assert found.dtype == object and found.tolist() == [None]
    assert model.predict_path(p, stop=0.99) == [()]


def test_a_wide_class_wins_over_the_best_leaf() -> None:
    """The best leaf lies elsewhere than the only node that reaches the threshold."""
    tree = Taxonomy.from_paths([("A", "a"), ("A", "b"), ("A", "c"), ("B", "d")])
    assert Simulated(tree).predict([[0.22, 0.22, 0.22, 0.34]], stop=0.6).tolist() == ["A"]


def test_rows_do_not_depend_on_their_batch() -> None:
    p, model = simplex(THREE, 300, 5), Simulated(THREE)
    p[:50] = np.round(p[:50], 1)  # with ties
    for rule in (0.7, Darts(reward=0.4), Cost("tree"), Cost("hf"), Cost("information")):
        together = model.predict(p, stop=rule).tolist()
        assert together == [model.predict(p[i : i + 1], stop=rule)[0] for i in range(300)]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Darts(accuracy=1.2), "accuracy=1.2 must lie between 0 and 1"),
        (lambda: Darts(reward=-1), "reward=-1"),
        (lambda: Guarantee(delta=0), "delta=0"),
        (lambda: Guarantee(rule="cost"), "take 'threshold' or 'darts'"),
        (lambda: cost_matrix(THREE, "euclid"), "'tree', 'information', 'hf'"),
        (lambda: cost_matrix(THREE, np.ones((3, 3))), r"shape \(3, 3\).*root's as the last"),
        (lambda: cost_matrix(THREE, [["a"]]), "not a matrix of numbers"),
        (lambda: cost_matrix(THREE, np.full((len(THREE) + 1, len(THREE.leaves)), np.nan)), "must be finite"),
        (lambda: information_loss(THREE, 0.5), "wrong=0.5"),
        (lambda: Simulated(THREE).predict(simplex(THREE, 2, 0), stop=1.5), "stop=1.5"),
        (lambda: Simulated(THREE).predict(simplex(THREE, 2, 0), stop="darts"), "stop='darts'"),
        (lambda: Simulated(THREE).predict(simplex(THREE, 2, 0), stop=True), "stop=True"),
        (lambda: Simulated(THREE).predict(simplex(THREE, 2, 0), stop=0.5, cost="tree"), "give one of them"),
        (lambda: Simulated(THREE).predict(simplex(THREE, 2, 0), stop=Darts()), r"call calibrate\(X, y\) first"),
        (lambda: Simulated(THREE).predict(simplex(THREE, 2, 0), level=9), "level=9"),
    ],
)
def test_bad_rules_say_what_is_allowed(make: Any, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        make()
