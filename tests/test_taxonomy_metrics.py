"""Scores against HiClass's numbers, scikit-learn, sets of ancestors, and sums done by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from taxonomy_samples import articles

from multilevel.errors import DataError, OptionError
from multilevel.taxonomy import metrics
from multilevel.taxonomy.decisions import Step
from multilevel.taxonomy.estimator import TaxonomyClassifier
from multilevel.taxonomy.tree import Taxonomy

sklearn_metrics = pytest.importorskip("sklearn.metrics")

PATHS = [
    ("animals", "birds", "ducks"),
    ("animals", "birds", "owls"),
    ("animals", "fish", "carp"),
    ("animals", "fish", "pike"),
    ("animals", "worms"),
    ("music",),
    ("tools", "knives"),
    ("tools", "saws"),
]
TREE = Taxonomy.from_paths(PATHS, ["kingdom", "family", "kind"])
TRUTH = ["ducks", "owls", "carp", "saws", "music", "worms", "knives", "pike"]
PREDICTED = ["ducks", "ducks", "birds", "tools", "saws", "carp", "music", "pike"]


def above(tree, label):
    """A label and all above it, as a set of paths."""
    path = tree.paths[tree.node(label)]
    return {path[: k + 1] for k in range(len(path))}


def chances(tree, rows, seed=0):
    return np.random.default_rng(seed).dirichlet(np.full(len(tree.leaves), 0.4), rows)


def drawn_leaves(tree, rows, seed=1):
    return np.random.default_rng(seed).choice(np.array([tree.labels[v] for v in tree.leaves], dtype=object), rows)


# -- along the paths ------------------------------------------------------------------------------------------


def test_hierarchical_scores_are_those_of_hiclass():
    # hiclass 5.0.8, metrics.precision, recall and f1 of the paths of these labels, padded with ""
    expected = {
        "micro": (0.6111111111111112, 0.5789473684210527, 0.5945945945945946),
        "macro": (0.5625, 0.5, 0.5166666666666666),
    }
    for average, numbers in expected.items():
        found = [f(TREE, TRUTH, PREDICTED, average) for f in (metrics.precision, metrics.recall, metrics.f1)]
        np.testing.assert_allclose(found, numbers, rtol=1e-14)


trees = st.lists(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(tuple), min_size=2, max_size=14, unique=True
).map(Taxonomy.from_paths)


@settings(max_examples=60, deadline=None)
@given(tree=trees, data=st.data())
def test_overlaps_are_those_of_sets_of_ancestors(tree, data):
    leaf = st.sampled_from([tree.paths[v] for v in tree.leaves])
    truth = data.draw(st.lists(leaf, min_size=1, max_size=8))
    guess = data.draw(st.lists(st.sampled_from(tree.paths), min_size=len(truth), max_size=len(truth)))
    pairs = [(above(tree, t), above(tree, g)) for t, g in zip(truth, guess, strict=True)]
    both, true, given_ = (np.array(x) for x in zip(*((len(t & g), len(t), len(g)) for t, g in pairs), strict=True))
    assert metrics.precision(tree, truth, guess) == pytest.approx(both.sum() / given_.sum())
    assert metrics.recall(tree, truth, guess) == pytest.approx(both.sum() / true.sum())
    assert metrics.precision(tree, truth, guess, "macro") == pytest.approx(np.mean(both / given_))
    assert metrics.recall(tree, truth, guess, "macro") == pytest.approx(np.mean(both / true))
    p, r = both / given_, both / true
    each = np.divide(2 * p * r, p + r, out=np.zeros(len(p)), where=p + r > 0)
    assert metrics.f1(tree, truth, guess, "macro") == pytest.approx(np.mean(each))
    np.testing.assert_array_equal(metrics.lca_distance(tree, truth, guess), [len(t ^ g) for t, g in pairs])
    assert metrics.path_accuracy(tree, truth, guess) == np.mean([g <= t for t, g in pairs])


def test_a_partial_truth_counts_as_far_as_it_is_known():
    # animals, then: right as far as known, wrong, right
    truth, guess = ["animals", "animals", "birds"], ["carp", "saws", "owls"]
    np.testing.assert_array_equal(metrics.lca_distance(TREE, truth, guess), [0, 2, 0])
    assert metrics.precision(TREE, truth, guess) == 3 / 4  # of animals; tools; animals, birds
    assert metrics.path_accuracy(TREE, truth, guess) == 2 / 3
    with pytest.raises(DataError, match="no label reaches the level 'kind'"):
        metrics.accuracy(TREE, truth, guess, "kind")
    assert metrics.accuracy(TREE, truth, guess, "family") == 1.0  # of the third alone
    assert metrics.accuracy(TREE, truth, guess, "kingdom") == 2 / 3


def test_information_of_stopped_predictions():
    # 8 leaves: a leaf has log 8, birds log(8/2), animals log(8/5); wrong ones nothing
    guess = ["ducks", "birds", "animals", "music"]
    expected = np.mean([np.log(8), np.log(4), np.log(8 / 5), 0.0]) / np.log(8)
    assert metrics.information(TREE, ["ducks"] * 4, guess) == pytest.approx(expected)


# -- answers of stop rules ------------------------------------------------------------------------------------

STOPPED = ["ducks", None, "animals", "tools", None, "carp"]  # ducks and animals right, roots right, the others wrong
STOPPED_TRUTH = ["ducks", "owls", "worms", "music", "music", "pike"]


def as_steps(label):
    return () if label is None else tuple(Step(name, 0.5) for name in TREE.paths[TREE.node(label)])


FORMS = {
    "list": STOPPED,
    "array": np.array(STOPPED, dtype=object),
    "series": pd.Series(STOPPED),  # None may become NaN there
    "object series": pd.Series(STOPPED, dtype=object),
    "steps": [as_steps(label) for label in STOPPED],
    "paths and ()": [() if label is None else TREE.paths[TREE.node(label)] for label in STOPPED],
    "columns": pd.DataFrame(
        [[*path, *[None] * (3 - len(path))] for path in ([s.name for s in as_steps(one)] for one in STOPPED)]
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_answers_of_stop_rules_are_read_in_every_form(form):
    """Classes said: ducks 3, root 0, animals 1, tools 1, root 0, carp 3; true: 3, 3, 2, 1, 1, 3; shared 3, 0, 1, 0, 0, 2."""
    call = (TREE, STOPPED_TRUTH, FORMS[form])
    assert metrics.path_accuracy(*call) == 4 / 6
    told = (1 + 0 + np.log(8 / 5) / np.log(8) + 0 + 0 + 0) / 6
    assert metrics.information(*call) == pytest.approx(told, rel=1e-14)
    assert [f(*call) for f in (metrics.precision, metrics.recall, metrics.f1)] == pytest.approx(
        [6 / 8, 6 / 13, 2 * 6 / (8 + 13)]
    )
    macro = [f(*call, "macro") for f in (metrics.precision, metrics.recall, metrics.f1)]
    each = [(1 + 1 + 1 + 0 + 1 + 2 / 3) / 6, (1 + 0 + 1 / 2 + 0 + 0 + 2 / 3) / 6, (1 + 0 + 2 / 3 + 0 + 0 + 2 / 3) / 6]
    assert macro == pytest.approx(each)
    assert metrics.lca_distance(*call).tolist() == [0, 3, 1, 2, 1, 2]
    assert [metrics.accuracy(*call, level) for level in (1, 2, 3)] == [3 / 6, 2 / 6, 1 / 6]
    # kingdoms: animals 4 true, 3 said, 3 both; music 2 true, none said; tools 1 said
    assert metrics.macro_f1(*call, 1) == pytest.approx((2 * 3 / 7 + 0 + 0) / 3)
    found = metrics.scores(TREE, STOPPED_TRUTH, predicted=FORMS[form])
    assert found["stopped"].tolist() == [2, 4, 4]
    assert found["h_precision"].tolist() == [3 / 4, 5 / 6, 6 / 8]
    assert found["lca_distance"].tolist() == pytest.approx([4 / 6, 6 / 6, 9 / 6])


def test_roots_alone_are_right_and_say_nothing():
    for roots in ([None, None], [(), ()], np.array([None, None]), pd.DataFrame({"a": [None, None], "b": ["", None]})):
        call = (TREE, ["ducks", "animals"], roots)
        assert metrics.path_accuracy(*call) == 1
        assert metrics.information(*call) == 0
        for average in ("micro", "macro"):
            found = [f(*call, average) for f in (metrics.precision, metrics.recall, metrics.f1)]
            assert found == [1, 0, 0]
        assert metrics.lca_distance(*call).tolist() == [3, 1]


@settings(max_examples=40, deadline=None)
@given(tree=trees, data=st.data())
def test_overlaps_with_roots_are_those_of_sets_of_ancestors(tree, data):
    truth = data.draw(st.lists(st.sampled_from([tree.paths[v] for v in tree.leaves]), min_size=1, max_size=8))
    guess = data.draw(st.lists(st.sampled_from([(), *tree.paths]), min_size=len(truth), max_size=len(truth)))
    pairs = [
        ({t[:k] for k in range(1, 5)}, {g[:k] for k in range(1, 5) if g}) for t, g in zip(truth, guess, strict=True)
    ]
    assert metrics.path_accuracy(tree, truth, guess) == np.mean([g <= t for t, g in pairs])
    np.testing.assert_array_equal(metrics.lca_distance(tree, truth, guess), [len(t ^ g) for t, g in pairs])
    said, shared = sum(len(g) for _, g in pairs), sum(len(t & g) for t, g in pairs)
    assert metrics.precision(tree, truth, guess) == pytest.approx(shared / said if said else 1)
    own = [len(t & g) / len(g) if g else 1 for t, g in pairs]
    assert metrics.precision(tree, truth, guess, "macro") == pytest.approx(np.mean(own))


def test_what_a_classifier_answers_can_be_scored():
    texts = articles()
    model = TaxonomyClassifier(scales="fixed", n_jobs=1).fit(texts.x, texts.y)
    truth = [tuple(name for name in row if name) for row in texts.test_y]
    answers, paths = model.predict(texts.test_x, stop=0.8), model.predict_path(texts.test_x, stop=0.8)
    assert any(path == () for path in paths)
    right = np.mean([t[: len(path)] == tuple(s.name for s in path) for t, path in zip(truth, paths, strict=True)])
    assert metrics.path_accuracy(model, texts.test_y, answers) == right
    assert metrics.path_accuracy(model, texts.test_y, paths) == right
    for level in (1, 2, None):
        whole = metrics.accuracy(model, texts.test_y, model.predict(texts.test_x, level), level)
        assert whole == model.score(texts.test_x, texts.test_y, level=level)


# -- at a level -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [1, "family", None])
def test_scores_at_a_level_are_those_of_scikit_learn(level):
    p, truth = chances(TREE, 300), drawn_leaves(TREE, 300)
    depth = TREE.level(level)
    names = [TREE.paths[v] for v in TREE.at_level(level)]
    of_leaf = [TREE.paths[v][:depth] for v in TREE.leaves]
    sums = np.column_stack([p[:, [leaf == name for leaf in of_leaf]].sum(axis=1) for name in names])
    numbers = np.array([names.index(TREE.paths[TREE.node(t)][:depth]) for t in truth])
    guess = sums.argmax(axis=1)
    labels = [TREE.labels[TREE.at_level(level)[g]] for g in guess]
    every = np.arange(len(names))
    assert metrics.accuracy(TREE, truth, labels, level) == sklearn_metrics.accuracy_score(numbers, guess)
    expected = sklearn_metrics.f1_score(numbers, guess, average="macro")
    assert metrics.macro_f1(TREE, truth, labels, level) == pytest.approx(expected)
    expected = sklearn_metrics.log_loss(numbers, sums, labels=every)
    assert metrics.log_loss(TREE, truth, p, level) == pytest.approx(expected, rel=1e-12)
    expected = np.mean(np.sum((sums - np.eye(len(names))[numbers]) ** 2, axis=1))
    assert metrics.brier(TREE, truth, p, level) == pytest.approx(expected, rel=1e-12)
    row = metrics.scores(TREE, truth, p).iloc[depth - 1]
    assert row["accuracy"] == metrics.accuracy(TREE, truth, labels, level)
    assert row["log_loss"] == pytest.approx(metrics.log_loss(TREE, truth, p, level))
    assert row["h_f1"] == pytest.approx(metrics.f1(TREE, [TREE.paths[TREE.node(t)][:depth] for t in truth], labels))


def test_a_prediction_that_stopped_above_has_not_said_the_class():
    assert metrics.accuracy(TREE, TRUTH, PREDICTED, 1) == 6 / 8
    assert (
        metrics.accuracy(TREE, TRUTH, PREDICTED, 2) == 3 / 8
    )  # ducks, ducks for owls, pike; of carp birds, of saws tools
    assert metrics.accuracy(TREE, TRUTH, PREDICTED) == 2 / 8
    found = metrics.scores(TREE, TRUTH, predicted=PREDICTED)
    assert found["stopped"].tolist() == [0, 1, 2]
    assert found["accuracy"].tolist() == [6 / 8, 3 / 8, 2 / 8]
    assert found["partial"].tolist() == [0, 0, 0]
    assert "log_loss" not in found


def two_classes(sure, right):
    """A flat tree, probabilities of the first class, and labels that make the most probable class right or not."""
    tree = Taxonomy.from_paths([("a",), ("b",)])
    return tree, np.column_stack([sure, 1 - np.asarray(sure)]), ["a" if r else "b" for r in right]


def test_calibration_error_by_hand():
    tree, p, y = two_classes([0.55, 0.6, 0.75, 0.9, 1.0], [1, 0, 1, 1, 1])
    # five bins of width 0.2: (0.4, 0.6] has 0.55, 0.6, half right; (0.6, 0.8] 0.75; (0.8, 1] 0.9, 1
    expected = (2 * abs(0.575 - 0.5) + abs(0.75 - 1) + 2 * abs(0.95 - 1)) / 5
    assert metrics.calibration_error(tree, y, p, bins=5) == pytest.approx(expected)
    table = metrics.reliability(tree, y, p, bins=5)
    assert table["items"].tolist() == [2, 1, 2]
    np.testing.assert_allclose(table["low"], [0.4, 0.6, 0.8])
    np.testing.assert_allclose(table["confidence"], [0.575, 0.75, 0.95])
    np.testing.assert_allclose(table["accuracy"], [0.5, 1, 1])
    # two bins of equal mass: the median, 0.75, closes the first
    expected = (3 * abs((0.55 + 0.6 + 0.75) / 3 - 2 / 3) + 2 * 0.05) / 5
    assert metrics.calibration_error(tree, y, p, bins=2, equal="mass") == pytest.approx(expected)


@pytest.mark.parametrize("equal", ["width", "mass"])
def test_calibration_error_does_not_depend_on_the_order_of_items(equal):
    tree, p, y = two_classes(np.repeat([0.6, 0.7, 0.9], 7), np.arange(21) % 3 > 0)
    order = np.random.default_rng(2).permutation(21)
    mixed = metrics.calibration_error(tree, [y[i] for i in order], p[order], bins=4, equal=equal)
    assert mixed == pytest.approx(metrics.calibration_error(tree, y, p, bins=4, equal=equal))


def test_one_bin_is_the_difference_of_the_means():
    p, truth = chances(TREE, 200), drawn_leaves(TREE, 200)
    right = [TREE.labels[TREE.leaves[k]] for k in p.argmax(axis=1)] == truth
    for equal in ("width", "mass"):
        found = metrics.calibration_error(TREE, truth, p, bins=1, equal=equal)
        assert found == pytest.approx(abs(p.max(axis=1).mean() - right.mean()))


def test_risk_coverage_by_hand():
    tree, p, y = two_classes([0.6, 0.9, 0.9, 0.7, 0.8], [0, 1, 0, 1, 1])
    found = metrics.risk_coverage(tree, y, p)
    np.testing.assert_allclose(found["threshold"], [0.9, 0.8, 0.7, 0.6])
    np.testing.assert_allclose(found["coverage"], [2 / 5, 3 / 5, 4 / 5, 1])
    np.testing.assert_allclose(found["risk"], [1 / 2, 1 / 3, 1 / 4, 2 / 5])


def test_the_last_risk_is_the_error_of_all():
    p, truth = chances(TREE, 100), drawn_leaves(TREE, 100)
    for depth, accuracy in enumerate(metrics.scores(TREE, truth, p)["accuracy"], 1):
        last = metrics.risk_coverage(TREE, truth, p, depth).iloc[-1]
        assert last["coverage"] == 1
        assert last["risk"] == pytest.approx(1 - accuracy)


# -- classes of few items -------------------------------------------------------------------------------------


def test_small_classes_by_hand():
    train = ["ducks"] * 12 + ["owls"] * 2 + ["carp"] * 2 + ["saws"] * 12 + ["birds"] * 30
    truth = ["ducks", "owls", "owls", "carp", "saws", "saws"]
    guess = ["ducks", "owls", "ducks", "saws", "saws", "saws"]
    p = np.full((6, 8), 0.01)
    p[np.arange(6), [TREE.leaf_of[TREE.node(g)] for g in guess]] = 0.93
    found = metrics.small_classes(TREE, truth, p, train, edges=(1, 10, 30))
    assert found["training_items"].tolist() == ["0", "1-9", "10-29"]
    assert found["classes"].tolist() == [4, 2, 2]  # pike, worms, music, knives; owls, carp; ducks, saws
    assert found["items"].tolist() == [0, 3, 3]
    assert np.isnan(found["accuracy"][0])
    np.testing.assert_allclose(found["accuracy"][1:], [1 / 3, 1])
    np.testing.assert_allclose(found["recall"][1:], [(1 / 2 + 0) / 2, 1])
    np.testing.assert_allclose(found["log_loss"][1:], [-np.log([0.93, 0.01, 0.01]).mean(), -np.log(0.93)])
    np.testing.assert_allclose(found["parent_accuracy"][1:], [2 / 3, 1])
    # at the family the partial labels count too: birds has 44
    above = metrics.small_classes(TREE, truth, p, train, level="family", edges=(1, 10, 30))
    assert above["training_items"].tolist() == ["0", "1-9", "10-29", "30 or more"]
    assert above["classes"].tolist() == [3, 1, 1, 1]
    counts = np.bincount(TREE.nodes_of(train), minlength=len(TREE))
    pd.testing.assert_frame_equal(metrics.small_classes(TREE, truth, p, counts=counts, edges=(1, 10, 30)), found)


def test_small_classes_leave_out_partial_labels_of_the_test():
    p = chances(TREE, 40)
    truth = [*drawn_leaves(TREE, 30), *["birds"] * 10]
    found = metrics.small_classes(TREE, truth, p, truth)
    assert found["items"].sum() == 30
    families = [path[:2] for path in PATHS]  # the leaves are in this order
    right = []
    for row, label in zip(p, truth[:30], strict=False):
        own = TREE.paths[TREE.node(label)][:2]
        mass = {family: sum(row[k] for k, one in enumerate(families) if one == family) for family in families}
        right.append(max(mass, key=mass.__getitem__) == own)
    there = found[found["items"] > 0]
    assert np.average(there["parent_accuracy"], weights=there["items"]) == pytest.approx(np.mean(right))


# -- all at once ----------------------------------------------------------------------------------------------


def test_scores_say_what_is_partial():
    p = chances(TREE, 6)
    truth = ["ducks", "birds", "animals", "animals", "saws", "music"]
    found = metrics.scores(TREE, truth, p)
    assert found["level"].tolist() == ["kingdom", "family", "kind"]
    assert found["classes"].tolist() == [3, 6, 8]
    assert found["items"].tolist() == [6, 4, 3]
    assert found["partial"].tolist() == [0, 2, 3]
    kept = [0, 4, 5]  # whole labels alone give the same at the lowest level
    whole = metrics.scores(TREE, [truth[i] for i in kept], p[kept])
    for name in ("accuracy", "macro_f1", "log_loss", "brier", "ece", "ece_mass"):
        assert found[name][2] == pytest.approx(whole[name][2])


def test_scores_where_no_label_is_known():
    found = metrics.scores(TREE, ["animals", "tools"], chances(TREE, 2))
    assert found["items"].tolist() == [2, 0, 0]
    assert found[["accuracy", "macro_f1", "log_loss", "brier", "ece"]].isna().all(axis=1).tolist() == [
        False,
        True,
        True,
    ]
    assert found["h_f1"].notna().all()


def test_labels_in_every_form():
    frame = pd.DataFrame([(*p, *[""] * (3 - len(p))) for p in PATHS], columns=["kingdom", "family", "kind"])
    joined = ["/".join(p) for p in PATHS]
    names = [p[-1] for p in PATHS]
    p = chances(TREE, 8)
    expected = metrics.scores(TREE, names, p)
    for form in (frame, PATHS, joined, np.array(names, dtype=object)):
        pd.testing.assert_frame_equal(metrics.scores(TREE, form, p), expected)
    pd.testing.assert_frame_equal(
        metrics.scores(TREE, [t.replace("/", ">") for t in joined], p, separator=">"), expected
    )
    fitted = type("Fitted", (), {"tree_": TREE})()
    pd.testing.assert_frame_equal(metrics.scores(fitted, names, p), expected)


def test_a_frame_comes_back_in_the_library_of_the_labels():
    pl = pytest.importorskip("polars")
    y = pl.Series([path[-1] for path in PATHS])
    p = chances(TREE, 8)
    found = metrics.scores(TREE, y, p)
    assert isinstance(found, pl.DataFrame)
    assert found["brier"].to_list() == metrics.scores(TREE, y.to_list(), p)["brier"].tolist()


# -- bad input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p: metrics.f1(TREE, TRUTH, PREDICTED[:3]), DataError, "8 labels and there are 3 predicted"),
        (lambda p: metrics.f1(TREE, TRUTH, ["duck"] * 8), DataError, "did you mean 'ducks'"),
        (lambda p: metrics.f1(TREE, [*TRUTH[:7], None], PREDICTED), DataError, "row 7 has no label"),
        (lambda p: metrics.f1(TREE, TRUTH, [None, (), *["duck"] * 6]), DataError, "row 2: .* did you mean 'ducks'"),
        (lambda p: metrics.f1(TREE, TRUTH, [(None, "birds"), *TRUTH[1:]]), DataError, "row 0 has no label"),
        (lambda p: metrics.f1(TREE, TRUTH, PREDICTED, "weighted"), OptionError, "average='weighted'"),
        (lambda p: metrics.f1({"a": "b"}, TRUTH, PREDICTED), OptionError, "tree must be a Taxonomy .* not dict"),
        (lambda p: metrics.log_loss(TREE, TRUTH, p[:, :3]), DataError, r"shape \(8, 3\).*\(8, 8\)"),
        (lambda p: metrics.log_loss(TREE, TRUTH, p[:3]), DataError, "8 labels and there are 3 rows"),
        (lambda p: metrics.log_loss(TREE, TRUTH, 2 * p), DataError, "row 0 .* sums to 2"),
        (lambda p: metrics.brier(TREE, TRUTH, np.where(p == p[2, 2], np.nan, p)), DataError, "row 2 "),
        (lambda p: metrics.brier(TREE, TRUTH, [["a"] * 8] * 8), DataError, "must be numbers"),
        (lambda p: metrics.brier(TREE, TRUTH, p, "order"), OptionError, "level='order' is not a level"),
        (lambda p: metrics.calibration_error(TREE, TRUTH, p, bins=0), OptionError, "bins=0"),
        (lambda p: metrics.calibration_error(TREE, TRUTH, p, equal="size"), OptionError, "equal='size'"),
        (lambda p: metrics.small_classes(TREE, TRUTH, p), OptionError, "one of the two"),
        (lambda p: metrics.small_classes(TREE, TRUTH, p, TRUTH, edges=(3, 1)), OptionError, "edges="),
        (lambda p: metrics.small_classes(TREE, TRUTH, p, counts=[1, 2]), OptionError, "counts must be 12 numbers"),
        (lambda p: metrics.scores(TREE, TRUTH), OptionError, "give the leaves' probabilities"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call(chances(TREE, 8))
