"""What calibration promises: bounds, coverage, errors by knob, power, temperature; against simulation and other libraries."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import f1_score
from sklearn.metrics import log_loss as log_loss_of_sklearn
from taxonomy_simulated import THREE, Simulated, leaf_sets, simplex, trees

from multilevel.errors import MultilevelWarning, OptionError
from multilevel.taxonomy import calibration as cal
from multilevel.taxonomy.prediction_sets import smallest_sets, subtrees
from multilevel.taxonomy.stopping import Cut, Darts, Guarantee, best_darts, best_threshold
from multilevel.taxonomy.tree import Taxonomy

SEEDS = st.integers(0, 2**31)
LEAVES = len(THREE.leaves)


def draws(p: Any, generator: np.random.Generator) -> Any:
    return (p.cumsum(axis=1) > generator.uniform(size=(len(p), 1)) * p.sum(axis=1, keepdims=True)).argmax(axis=1)


@cache
def population(rows: int = 4000) -> tuple[Any, Any]:
    """Probabilities that are far too sure, and the true leaves' nodes; taken as the whole population."""
    generator = np.random.default_rng(11)
    real = generator.dirichlet(np.full(LEAVES, 0.12), rows)
    truth = draws(0.85 * real + 0.15 / LEAVES, generator)
    said = np.maximum(real, 1e-6) ** 1.5
    return said / said.sum(axis=1, keepdims=True), THREE.leaves[truth]


# ---- bounds and errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delta", [0.01, 0.05, 0.3])
def test_upper_bound_is_exact(delta: float) -> None:
    for rows in (1, 7, 100):
        for wrong in sorted({0, 1, rows // 3, rows - 1, rows}):
            exact = binomtest(wrong, rows, alternative="less").proportion_ci(1 - delta, method="exact").high
            assert float(cal.upper_bound(wrong, rows, delta)) == pytest.approx(exact, rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(trees(), SEEDS, st.data())
def test_errors_by_knob_are_those_of_the_rules(tree: Taxonomy, seed: int, data: Any) -> None:
    p = np.round(simplex(tree, 15, seed), data.draw(st.sampled_from([1, 2, 17])))
    cut = Cut(tree, data.draw(st.integers(1, len(tree.levels))))
    nodes = np.random.default_rng(seed).choice(tree.leaves, len(p))
    values, answers = cut.best(p)
    right = cut.above(answers, nodes)
    sets = leaf_sets(tree)
    for i, node in enumerate(nodes):
        assert right[i].tolist() == [sets[node] <= sets[answer] for answer in answers[i]] or _only_child(tree, node)
    rows = np.arange(len(p))
    counted = [int((~right[rows, best_threshold(values, knob)]).sum()) for knob in cal.THRESHOLDS]
    assert cal.threshold_errors(values, right).tolist() == counted
    counted = [int((~right[rows, best_darts(values, cut.information, knob)]).sum()) for knob in cal.REWARDS]
    assert cal.darts_errors(values, cut.information, right).tolist() == counted
    assert counted[-1] == 0


def _only_child(tree: Taxonomy, node: int) -> bool:
    """Whether sets of leaves cannot tell a node from its parent."""
    return any(len(tree.children[above]) == 1 for above in tree.ancestors(int(node)))


def test_darts_takes_the_least_reward_that_is_accurate_enough() -> None:
    p, nodes = population()
    p, nodes = p[:500], nodes[:500]
    model = Simulated(THREE).calibrate(p, nodes_to_paths(nodes))
    for accuracy in (0.75, 0.9, 0.97):
        reward = cal.knob_of(Darts(accuracy), model.calibration_.levels["train", 3])
        assert share_right(model.predict_path(p, stop=Darts(accuracy)), nodes) >= accuracy
        assert model.predict(p, stop=Darts(accuracy)).tolist() == model.predict(p, stop=Darts(reward=reward)).tolist()
        at = int(np.flatnonzero(reward == cal.REWARDS)[0])
        bolder = Darts(reward=float(cal.REWARDS[at - 1]))
        assert share_right(model.predict_path(p, stop=bolder), nodes) < accuracy


def nodes_to_paths(nodes: Any) -> list[Any]:
    return [THREE.paths[node] for node in nodes]


def share_right(paths: Any, nodes: Any) -> float:
    said = [tuple(step.name for step in path) for path in paths]
    return float(np.mean([THREE.paths[node][: len(path)] == path for node, path in zip(nodes, said, strict=True)]))


# ---- promises over calibration sets ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("rule", "count"), [("threshold", 1000), ("darts", 150)])
@pytest.mark.parametrize("level", [2, 3])
def test_a_guarantee_is_missed_as_rarely_as_it_says(rule: str, count: int, level: int) -> None:
    """The population's accuracy at the chosen knob is known; the share of calibration sets that miss it is at most delta."""
    promise, cut = Guarantee(accuracy=0.8, delta=0.1, rule=rule), Cut(THREE, level)
    p, nodes = population()
    values, answers = cut.best(p)
    right = cut.above(answers, nodes)

    def curve(rows: Any) -> cal.RiskCurve:
        if rule == "threshold":
            return cal.RiskCurve(cal.THRESHOLDS, cal.threshold_errors(values[rows], right[rows]), len(rows))
        return cal.RiskCurve(cal.REWARDS, cal.darts_errors(values[rows], cut.information, right[rows]), len(rows))

    whole = curve(np.arange(len(p)))
    accuracy = dict(zip(whole.knobs.tolist(), (1 - whole.errors / whole.rows).tolist(), strict=True))
    generator, found = np.random.default_rng(12), []
    for _ in range(count):
        one = curve(generator.integers(0, len(p), 200))
        found.append(accuracy[cal.knob_of(promise, cal.LevelCalibration(one, one, np.empty(0)))])
    missed = float(np.mean(np.array(found) < 0.8))
    assert 0 < missed <= 0.1 + 3 * np.sqrt(0.09 / count)
    assert accuracy[0.0] < 0.7  # always to the leaf would miss by far
    assert np.median(found) < 0.9  # and the promise is not kept by idleness


def test_a_guarantee_with_too_few_rows_answers_the_root() -> None:
    p = np.eye(LEAVES)[[0] * 20]
    model = Simulated(THREE).calibrate(p, nodes_to_paths([THREE.leaves[0]] * 20))
    with pytest.warns(MultilevelWarning, match="at least 29 are needed") as told:
        assert model.predict(p, stop=Guarantee(0.9, 0.05)).tolist() == [None] * 20
    assert told[0].filename == __file__
    model.calibrate(np.vstack([p, p[:9]]), nodes_to_paths([THREE.leaves[0]] * 29))
    assert model.predict(p, stop=Guarantee(0.9, 0.05)).tolist() == [THREE.labels[THREE.leaves[0]]] * 20


def test_sure_errors_leave_the_root_only() -> None:
    p = np.eye(LEAVES)[[0] * 60]
    model = Simulated(THREE).calibrate(p, nodes_to_paths([THREE.leaves[-1]] * 60))
    for rule in (Darts(0.9), Guarantee(0.9), Guarantee(0.9, rule="darts")):
        with pytest.warns(MultilevelWarning, match="too many sure answers are wrong"):
            assert model.predict(p, stop=rule).tolist() == [None] * 60


@pytest.mark.parametrize("coverage", [0.8, 0.9])
@pytest.mark.parametrize("subtree", [False, True])
def test_sets_cover_as_they_say(coverage: float, subtree: bool) -> None:
    """Mean over calibration sets of the coverage in the whole population."""
    p, nodes = (part[:1500] for part in population())
    truth = THREE.leaf_of[nodes]
    cut, rows, found = Cut(THREE, 3), 99, []
    generator = np.random.default_rng(12)
    for _ in range(100):
        at = generator.integers(0, len(p), rows)
        one = cal.level_calibration(cut, p[at], nodes[at])
        assert one is not None
        members = subtrees(cut, p, coverage, one)[0] if subtree else smallest_sets(p, coverage, one)
        found.append(members[np.arange(len(p)), truth].mean())
    error = 3 * np.std(found) / np.sqrt(len(found))
    assert np.mean(found) >= coverage - error
    if not subtree:  # which cannot be as fine
        assert np.mean(found) <= coverage + 1 / (rows + 1) + error
    said = smallest_sets(p, coverage, None)[np.arange(len(p)), truth].mean()
    assert said < coverage - 0.03  # the probabilities themselves are too sure


# ---- sets ------------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(trees(8), SEEDS, st.floats(0.05, 0.95))
def test_the_set_is_the_smallest_that_sums_to_the_coverage(tree: Taxonomy, seed: int, coverage: float) -> None:
    p = simplex(tree, 4, seed)
    found = Simulated(tree).predict_set(p, coverage)
    assert found.method == "probabilities"
    for row, members, one in zip(p, found.members, found, strict=True):
        ranked = np.sort(row)[::-1]
        size = next(k for k in range(1, len(row) + 1) if ranked[:k].sum() >= coverage - 1e-12)
        assert members.sum() == len(one) == size and row[members].sum() >= coverage - 1e-12
        chances = [row[found.classes.tolist().index(name)] for name in one]
        assert chances == sorted(chances, reverse=True)


@settings(max_examples=40, deadline=None)
@given(trees(8), SEEDS, st.floats(0.05, 0.95))
def test_the_subtree_is_the_smallest_that_reaches_the_coverage(tree: Taxonomy, seed: int, coverage: float) -> None:
    p = simplex(tree, 4, seed)
    found, sets = Simulated(tree).predict_set(p, coverage, subtree=True), leaf_sets(tree)
    assert found.nodes is not None
    for row, members, node in zip(p, found.members, found.nodes, strict=True):
        below = sets[tree.node(node) if node is not None else -1]
        assert set(np.flatnonzero(members).tolist()) == below
        assert len(below) == min(len(one) for one in sets if row[sorted(one)].sum() >= coverage - 1e-12)


def test_conformal_sets_cover_the_rank_among_their_own_rows() -> None:
    p, nodes = (part[:120] for part in population())
    model, truth = Simulated(THREE).calibrate(p, nodes_to_paths(nodes)), THREE.leaf_of[nodes]
    before = np.array([row[row > row[k]].sum() for row, k in zip(p, truth, strict=True)])
    for coverage in (0.8, 0.9, 0.95):
        rank = int(np.ceil(121 * coverage))
        covered = model.predict_set(p, coverage).members[np.arange(120), truth]
        assert covered.sum() == rank  # no two scores above 0 are alike
        assert before[covered].max() == pytest.approx(np.sort(before)[rank - 1])


def test_a_subtrees_threshold_stays_where_answers_lie_on_one_path() -> None:
    row = np.full((1, LEAVES), 0.7 / (LEAVES - 1))
    row[0, 0] = 0.3
    found = cal.level_calibration(Cut(THREE, 3), np.repeat(row, 50, axis=0), np.repeat(THREE.leaves[:1], 50))
    assert found is not None and found.threshold.errors.tolist() == [0] * len(cal.THRESHOLDS)
    assert cal.subtree_threshold(found, 0.5) == cal.THRESHOLDS[cal.THRESHOLDS >= 0.5][0]


def test_sets_say_which_way_they_were_made() -> None:
    p, nodes = population()
    model = Simulated(THREE)
    with pytest.raises(OptionError, match="call calibrate"):
        model.predict_set(p[:5], conformal=True)
    model.calibrate(p[:99], nodes_to_paths(nodes[:99]))
    assert model.predict_set(p[:5]).method == "conformal"
    assert model.predict_set(p[:5], conformal=False).method == "probabilities"
    assert model.predict_set(p[:5], prior=0.5).method == "probabilities"
    with pytest.raises(OptionError, match="calibrated for prior='train', 'uniform' and 'calibrated', not for 0.5"):
        model.predict_set(p[:5], prior=0.5, conformal=True)
    with pytest.raises(OptionError, match="coverage=1"):
        model.predict_set(p[:5], coverage=1)
    sets = model.predict_set(p[:5], coverage=0.999)  # 99 rows cannot tell: all classes
    assert sets.sizes.tolist() == [LEAVES] * 5 and sets[1:3] == [sets[1], sets[2]]


def test_rows_labelled_higher_up_serve_the_levels_they_reach() -> None:
    p, _ = population()
    model = Simulated(THREE).calibrate(p[:50], ["A"] * 25 + ["B"] * 25)
    assert {depth for _, depth in model.calibration_.levels} == {1}
    with pytest.raises(OptionError, match="no calibration row is labelled down to level 'level 3'"):
        model.predict(p[:2], stop=Darts())
    assert model.predict(p[:2], level=1, stop=Darts()).shape == (2,)


# ---- power and temperature -------------------------------------------------------------------------------------------


def test_log_loss_and_macro_f1_are_those_of_scikit_learn() -> None:
    p, nodes = population()
    p, nodes = p[:300], nodes[:300]
    truth = THREE.leaf_of[nodes]
    mine = cal.log_loss(THREE, np.log(p), nodes)
    assert mine == pytest.approx(log_loss_of_sklearn(truth, p, labels=np.arange(LEAVES)))
    few = truth % 3 > 0
    wanted = f1_score(truth[few], p[few].argmax(axis=1), labels=np.unique(truth[few]), average="macro")
    assert cal.macro_f1(truth[few], p[few].argmax(axis=1)) == pytest.approx(wanted)


def test_log_loss_of_inner_nodes_sums_their_leaves() -> None:
    p = simplex(THREE, 40, 3)
    nodes = np.random.default_rng(1).integers(0, len(THREE), 40).astype(np.int32)
    sets = leaf_sets(THREE)
    wanted = -np.mean([np.log(row[sorted(sets[node])].sum()) for row, node in zip(p, nodes, strict=True)])
    assert cal.log_loss(THREE, np.log(p), nodes) == pytest.approx(wanted)


def test_temperature_and_power_find_what_was_put_in() -> None:
    generator = np.random.default_rng(8)
    real = generator.dirichlet(np.full(LEAVES, 0.3), 6000)
    shares = np.geomspace(1, 0.02, LEAVES) / np.geomspace(1, 0.02, LEAVES).sum()
    nodes = THREE.leaves[draws(real, generator)]
    logs = np.log(np.maximum(real, 1e-12))
    hot = np.exp(2 * logs) / np.exp(2 * logs).sum(axis=1, keepdims=True)
    assert cal.best_temperature(THREE, hot, nodes) == pytest.approx(2, abs=0.05)
    trained = real * shares / (real * shares).sum(axis=1, keepdims=True)
    model = Simulated(THREE, shares).calibrate(trained, nodes_to_paths(nodes))
    assert model.tau_ == pytest.approx(1, abs=0.05) and model.temperature_ == 1
    left = real * shares ** (1 - model.tau_)
    divided_out = left / left.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.predict_proba(trained, prior="calibrated"), divided_out, atol=1e-12)
    truth = THREE.leaf_of[nodes]
    below, least, above = (
        log_loss_of_sklearn(truth, model.predict_proba(trained, prior=tau), labels=np.arange(LEAVES))
        for tau in (model.tau_ - 0.01, model.tau_, model.tau_ + 0.01)
    )
    assert least < min(below, above)


def test_macro_f1_power_is_the_best_of_its_profile() -> None:
    generator = np.random.default_rng(9)
    shares = np.geomspace(1, 0.01, LEAVES) / np.geomspace(1, 0.01, LEAVES).sum()
    p = generator.dirichlet(np.full(LEAVES, 0.4), 800) * shares
    p /= p.sum(axis=1, keepdims=True)
    truth = draws(p, generator)
    model = Simulated(THREE, shares).calibrate(p, nodes_to_paths(THREE.leaves[truth]), tau="macro-f1")
    present = np.unique(truth)

    def value(tau: float) -> float:
        guess = model.predict_proba(p, prior=tau).argmax(axis=1)
        return float(f1_score(truth, guess, labels=present, average="macro"))

    values = [value(tau) for tau in np.linspace(0, 1.5, 31)]
    assert value(model.tau_) == max(values) > values[0]
    assert [f1 for _, f1 in model.calibration_.profile] == pytest.approx(values)


def test_a_number_is_kept_and_calibrated_is_that_prior() -> None:
    p, nodes = population()
    shares = np.random.default_rng(3).dirichlet(np.ones(LEAVES))
    model = Simulated(THREE, shares).calibrate(p[:300], nodes_to_paths(nodes[:300]), tau=0.75)
    assert model.tau_ == 0.75
    assert np.array_equal(model.predict_proba(p[:20], prior="calibrated"), model.predict_proba(p[:20], prior=0.75))
    again = Simulated(THREE, shares).calibrate(p[:300], nodes_to_paths(nodes[:300]), tau=1)
    for rule in (Darts(0.8), Guarantee(0.7)):
        calibrated, uniform = (again.predict(p, stop=rule, prior=prior).tolist() for prior in ("calibrated", "uniform"))
        assert calibrated == uniform
