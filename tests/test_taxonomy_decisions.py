"""Priors, paths and labels of predictions, on given probabilities and on a fitted classifier."""

from __future__ import annotations

import pickle
import warnings
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError
from taxonomy_samples import articles
from taxonomy_simulated import THREE, Simulated, leaf_sets, simplex, trees

from multilevel.errors import DataError, MultilevelWarning, OptionError
from multilevel.taxonomy.decisions import Step
from multilevel.taxonomy.estimator import TaxonomyClassifier
from multilevel.taxonomy.stopping import Cost, Darts, Guarantee
from multilevel.taxonomy.tree import Taxonomy

SEEDS = st.integers(0, 2**31)
TWO = Taxonomy.from_paths([("A", "a"), ("A", "b"), ("B", "c"), ("B", "d")])
SHARES = np.array([0.4, 0.3, 0.2, 0.1])


@cache
def fitted() -> Any:
    texts = articles()
    return TaxonomyClassifier(scales="fixed", n_jobs=1).fit(texts.x, texts.y)


# ---- priors ----------------------------------------------------------------------------------------------------------


def likelihoods(rows: int = 30) -> Any:
    return np.random.default_rng(4).uniform(0.01, 1.0, (rows, 4))


def posterior(shares: Any, f: Any) -> Any:
    joint = np.asarray(shares) * f
    return joint / joint.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("prior", "shares"),
    [
        ("train", SHARES),
        (0, SHARES),
        ("uniform", np.full(4, 0.25)),
        (1.0, np.full(4, 0.25)),
        (0.5, np.sqrt(SHARES)),
        (-1, SHARES**2),
        ([0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]),
        ([1, 2, 3, 4], [0.1, 0.2, 0.3, 0.4]),
        ([0, 0.5, 0.5, 0], [0, 0.5, 0.5, 0]),
        ({"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4}, [0.1, 0.2, 0.3, 0.4]),
        ({"A": 0.7, ("B", "c"): 0.1, "d": 0.2}, [0.4, 0.3, 0.1, 0.2]),
        ({"A": 0.5, "B": 0.5}, [0.5 * 4 / 7, 0.5 * 3 / 7, 0.5 * 2 / 3, 0.5 / 3]),
    ],
)
def test_priors_follow_bayes(prior: Any, shares: Any) -> None:
    """P = share x likelihood, normalised; another prior must give the same with its own shares."""
    f = likelihoods()
    p = Simulated(TWO, SHARES).predict_proba(posterior(SHARES, f), prior=prior)
    np.testing.assert_allclose(p, posterior(shares, f), atol=1e-13)


def test_a_leaf_without_items_counts_as_the_rarest() -> None:
    shares = np.array([0.0, 0.6, 0.3, 0.1])
    p = Simulated(TWO, shares).predict_proba([[0.1, 0.3, 0.4, 0.2]], prior="uniform")
    np.testing.assert_allclose(p, posterior([1 / 0.1, 1 / 0.6, 1 / 0.3, 1 / 0.1], np.array([[0.1, 0.3, 0.4, 0.2]])))


def test_probabilities_of_zero_stay_numbers() -> None:
    p = Simulated(TWO, SHARES).predict_proba([[1.0, 0.0, 0.0, 0.0]], prior=[0, 0, 0.5, 0.5])
    assert p[0, :2].tolist() == [0, 0] and p.sum() == pytest.approx(1)
    assert np.all(np.isfinite(Simulated(TWO, SHARES).predict_log_proba([[1.0, 0.0, 0.0, 0.0]])))


@settings(max_examples=60, deadline=None)
@given(trees(), SEEDS, st.floats(-1, 2))
def test_levels_cohere_under_every_prior(tree: Taxonomy, seed: int, tau: float) -> None:
    generator = np.random.default_rng(seed)
    shares = generator.dirichlet(np.ones(len(tree.leaves)))
    model, p = Simulated(tree, shares), simplex(tree, 6, seed)
    sets = leaf_sets(tree)
    for prior in (tau, "uniform", generator.uniform(0.1, 1, len(tree.leaves))):
        leaf = model.predict_proba(p, prior=prior)
        for level in range(1, len(tree.levels) + 1):
            at_level = model.predict_proba(p, level, prior)
            np.testing.assert_allclose(at_level.sum(axis=1), 1, atol=1e-12)
            for column, node in enumerate(tree.at_level(level)):
                np.testing.assert_allclose(at_level[:, column], leaf[:, sorted(sets[node])].sum(axis=1), atol=1e-12)
            alone = np.vstack([model.predict_proba(p[i : i + 1], level, prior) for i in range(len(p))])
            assert np.array_equal(alone, at_level)
            assert np.array_equal(model.predict_log_proba(p, level, prior), np.log(at_level))


@pytest.mark.parametrize(
    ("prior", "words"),
    [
        ("flat", "'train', 'uniform', 'calibrated'"),
        (None, "prior=None"),
        (True, "prior=True"),
        (float("nan"), "not finite"),
        ([0.5, 0.5], "share for each of the 4 leaves"),
        ([0.5, -0.5, 0.5, 0.5], "prior of 'b' is -0.5"),
        ([0, 0, 0, 0], "all shares of prior are 0"),
        ({"A": 1.0}, "no share for 'c' .2 such leaves"),
        ({"A": 0.5, "a": 0.2, "B": 0.3}, "'a' a share and also a class above"),
        ({"A": "half", "B": 0.5}, "prior of 'A' is 'half'"),
        ("calibrated", "call calibrate"),
    ],
)
def test_bad_priors_say_what_is_allowed(prior: Any, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        Simulated(TWO, SHARES).predict_proba(posterior(SHARES, likelihoods()), prior=prior)


def test_a_prior_of_an_unknown_class_names_it() -> None:
    with pytest.raises(DataError, match="'Z' is not a class"):
        Simulated(TWO, SHARES).predict_proba(posterior(SHARES, likelihoods()), prior={"A": 0.5, "Z": 0.5})


# ---- labels and paths ------------------------------------------------------------------------------------------------


def test_plain_answers_are_the_most_probable_of_each_level() -> None:
    model, texts = fitted(), articles()
    for level in (None, "leaf", 1, 2, "level 3"):
        p = model.predict_proba(texts.test_x, level)
        assert model.predict(texts.test_x, level).tolist() == [model.classes_at(level)[k] for k in p.argmax(axis=1)]
    assert model.predict(texts.test_x).dtype == model.classes_.dtype


def test_paths_multiply_down_from_the_top() -> None:
    model, texts = fitted(), articles()
    answers = model.predict(texts.test_x, stop=0.6)
    p, tree = model.predict_proba(texts.test_x), model.tree_
    sets, names = leaf_sets(tree), list(tree.labels)
    lengths = set()
    for row, answer, path in zip(p, answers, model.predict_path(texts.test_x, stop=0.6), strict=True):
        lengths.add(len(path))
        assert (path[-1].name if path else None) == answer
        for k, step in enumerate(path):
            node = names.index(step.name)
            assert isinstance(step, Step) and tree.paths[node] == tuple(one.name for one in path[: k + 1])
            assert step.probability == pytest.approx(row[sorted(sets[node])].sum(), abs=1e-12)
    assert lengths >= {1, 2, 3}


def test_same_names_are_told_apart() -> None:
    tree = Taxonomy.from_paths([("A", "other"), ("A", "x"), ("B", "other"), ("B", "y")])
    model, p = Simulated(tree), np.array([[0.1, 0.1, 0.6, 0.2]])
    assert model.predict(p).tolist() == model.predict(p, stop=0.5).tolist() == ["B/other"]
    assert [step.name for step in model.predict_path(p)[0]] == ["B", "other"]


def test_no_rows_give_no_answers() -> None:
    model, none = Simulated(THREE), np.empty((0, len(THREE.leaves)))
    assert model.predict(none).shape == (0,) and model.predict(none, stop=0.5).shape == (0,)
    assert model.predict_path(none, cost="tree") == [] and len(model.predict_set(none)) == 0


def test_unfitted_is_told() -> None:
    texts = articles()
    for verb in ("predict", "predict_proba", "predict_log_proba", "predict_path", "predict_set"):
        with pytest.raises(NotFittedError):
            getattr(TaxonomyClassifier(), verb)(texts.test_x)
    with pytest.raises(NotFittedError):
        TaxonomyClassifier().calibrate(texts.test_x, texts.test_y)


# ---- a whole classifier ----------------------------------------------------------------------------------------------


def test_a_fitted_classifier_calibrates_and_decides() -> None:
    texts, half = articles(), slice(0, 200)
    model = pickle.loads(pickle.dumps(fitted()))
    assert not hasattr(model, "tau_")
    levels = pd.DataFrame(texts.test_y[half], columns=["top", "middle", "leaf"])
    assert model.calibrate(texts.test_x[half], levels, tau="macro-f1", temperature=True) is model
    model = pickle.loads(pickle.dumps(model))
    are_the_best(model, texts.test_x[half], [[part for part in row if part][-1] for row in texts.test_y[half]])
    new_x, new_y = texts.test_x[200:], texts.test_y[200:]
    paths = [tuple(part for part in row if part) for row in new_y]
    for rule in (0.9, Darts(0.9), Guarantee(0.9), Guarantee(0.9, rule="darts"), Cost("hf")):
        for prior in ("train", "uniform", "calibrated"):
            steps = model.predict_path(new_x, stop=rule, prior=prior)
            said = [tuple(step.name for step in path) for path in steps]
            right = np.mean([truth[: len(path)] == path for truth, path in zip(paths, said, strict=True)])
            assert right >= 0.85  # 200 rows; the rules aim at 0.9 and more
    sets = model.predict_set(new_x, coverage=0.9)
    assert sets.method == "conformal" and "by conformal" in repr(sets)
    assert np.mean([path[-1] in one for path, one in zip(paths, sets, strict=True)]) >= 0.85


def are_the_best(model: Any, x: Any, y: Any) -> None:
    """No other temperature of a fine grid has less log-loss, no other tau a higher macro-F1 of the classes in y."""
    metrics = pytest.importorskip("sklearn.metrics")
    p, classes = model.predict_proba(x), list(model.classes_)
    column = [classes.index(label) for label in y]

    def loss(temperature: float) -> float:
        heated = p ** (1 / temperature)
        return float(-np.mean(np.log((heated / heated.sum(axis=1, keepdims=True))[range(len(y)), column])))

    def score(tau: float) -> float:
        said = (p ** (1 / model.temperature_) / model.class_shares_**tau).argmax(axis=1)
        return float(metrics.f1_score(column, said, labels=sorted(set(column)), average="macro", zero_division=0))

    assert loss(model.temperature_) <= min(loss(t) for t in np.geomspace(0.1, 10, 400)) + 1e-9
    assert score(model.tau_) == pytest.approx(max(score(tau) for tau in np.arange(31) / 20))
    assert score(model.tau_) > score(0)  # some classes are small


def test_calibration_rows_that_were_training_rows_are_told() -> None:
    texts = articles()
    model = pickle.loads(pickle.dumps(fitted()))
    known = {tuple(row) for row in texts.x.toarray().tolist()}
    copies = sum(tuple(row) in known for row in texts.test_x.toarray().tolist())
    assert 0 < copies <= 20  # short texts that are alike by chance
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.calibrate(texts.test_x, texts.test_y)
    with pytest.warns(
        MultilevelWarning, match=f"{copies + 50} of the 450 calibration rows are also training rows"
    ) as told:
        model.calibrate(sp.vstack([texts.test_x, texts.x[:50]]).tocsr(), np.vstack([texts.test_y, texts.y[:50]]))
    assert told[0].filename == __file__


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda x, y: {"X": x[:10], "y": y}, DataError, "10 rows and y has 400"),
        (lambda x, y: {"X": x[:1], "y": ["dragons"]}, DataError, "'dragons' is not a class"),
        (lambda x, y: {"X": x, "y": y, "tau": "f1"}, OptionError, "'log-loss', 'macro-f1' or a number"),
        (lambda x, y: {"X": x, "y": y, "tau": float("inf")}, OptionError, "tau=inf"),
        (
            lambda x, y: {"X": x[:2], "y": ["animals"] * 2, "tau": "macro-f1"},
            DataError,
            "no row is labelled with a leaf",
        ),
    ],
)
def test_bad_calibrations_say_what_to_do(change: Any, error: type[Exception], words: str) -> None:
    texts = articles()
    with pytest.raises(error, match=words):
        pickle.loads(pickle.dumps(fitted())).calibrate(**change(texts.test_x, texts.test_y))
