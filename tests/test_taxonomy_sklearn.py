"""The classifier as scikit-learn's own tools use it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
import sklearn
from sklearn.base import clone
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks
from taxonomy_samples import articles

from multilevel.errors import MultilevelWarning
from multilevel.taxonomy.estimator import TaxonomyClassifier

HELD_OUT = "which rows are held out to find the scales depends on their number; at fixed scales see the test of weights"
FAILS = {
    "check_sample_weight_equivalence_on_dense_data": HELD_OUT,
    "check_sample_weight_equivalence_on_sparse_data": HELD_OUT,
}


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks([TaxonomyClassifier(n_jobs=1)], expected_failed_checks=lambda _: FAILS)
def test_contract_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


def labels(y: np.ndarray) -> list[str]:
    return ["/".join(part for part in row if part) for row in y]


def quick(**options: Any) -> TaxonomyClassifier:
    return TaxonomyClassifier(**{"separator": "/", "scales": "fixed", "prior_scale": 4.0, "n_jobs": 1, **options})


DATA = articles()
Y = np.array(labels(DATA.y))


@pytest.mark.parametrize("likelihood", ["flat", "nested"])
def test_a_weight_is_a_number_of_copies(likelihood: str) -> None:
    times = np.random.default_rng(0).integers(0, 4, len(Y))
    options: dict[str, Any] = {"likelihood": likelihood, "dtype": "float64", "tol": 1e-13, "tree": sorted(set(Y))}
    weighted = quick(**options).fit(DATA.x, Y, sample_weight=times)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the copies
        copied = quick(**options).fit(DATA.x[np.repeat(np.arange(len(Y)), times)], np.repeat(Y, times))
    np.testing.assert_allclose(weighted.predict_proba(DATA.test_x), copied.predict_proba(DATA.test_x), atol=1e-7)
    np.testing.assert_allclose(weighted.class_shares_, copied.class_shares_)


def formats() -> dict[str, Any]:
    long = sp.csr_array(DATA.x)
    long.indices, long.indptr = long.indices.astype(np.int64), long.indptr.astype(np.int64)
    twice = sp.coo_array(DATA.x)
    halves = (np.tile(twice.data / 2, 2), (np.tile(twice.row, 2), np.tile(twice.col, 2)))
    return {
        "csc": sp.csc_array(DATA.x),
        "coo": sp.coo_array(DATA.x),
        "matrix": sp.csr_matrix(DATA.x),
        "int64": long,
        "entries in halves": sp.coo_array(halves, shape=DATA.x.shape),
        "dense": DATA.x.toarray(),
        "fortran": np.asfortranarray(DATA.x.toarray()),
        "single": DATA.x.toarray().astype(np.float32),
    }


@pytest.mark.parametrize("kind", list(formats()))
def test_every_form_of_rows_gives_the_same(kind: str) -> None:
    rows = formats()[kind]
    expected = quick().fit(DATA.x, Y).predict_proba(DATA.test_x)
    model = quick().fit(rows, Y)
    np.testing.assert_allclose(model.predict_proba(DATA.test_x), expected, atol=2e-5)
    np.testing.assert_allclose(model.predict_proba(rows), quick().fit(DATA.x, Y).predict_proba(DATA.x), atol=2e-5)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_data_frames(library: str) -> None:
    frames = pytest.importorskip(library)
    names = [f"word {k}" for k in range(DATA.x.shape[1])]
    dense = DATA.x.toarray()
    x = frames.DataFrame(dict(zip(names, dense.T, strict=True)))
    y = frames.DataFrame({f"level {k}": DATA.y[:, k] for k in range(3)})
    model = quick(separator=None).fit(x, y)
    assert list(model.feature_names_in_) == names
    expected = quick().fit(dense, Y)
    np.testing.assert_allclose(model.predict_proba(x), expected.predict_proba(dense), atol=2e-5)
    series = quick().fit(x, frames.Series("label", list(Y)) if library == "polars" else frames.Series(Y))
    np.testing.assert_allclose(series.predict_proba(x), expected.predict_proba(dense), atol=2e-5)
    assert model.score(x, y) == pytest.approx(expected.score(dense, Y), abs=0.01)
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(x.rename(columns={"word 3": "other"}) if library == "pandas" else x.rename({"word 3": "other"}))


def test_pipeline_from_texts() -> None:
    texts = ["a duck swims", "an owl flies", "a duck quacks", "an owl hoots", "a saw cuts wood", "the saw cuts"] * 3
    kinds = ["birds/duck", "birds/owl", "birds/duck", "birds/owl", "tools/saw", "tools/saw"] * 3
    pipeline = make_pipeline(TfidfVectorizer(), quick()).fit(texts, kinds)
    assert list(pipeline.predict(["the owl", "duck", "cuts"])) == ["birds/owl", "birds/duck", "tools/saw"]
    assert pipeline.score(texts, kinds) == 1
    with pytest.raises(ValueError, match="TfidfVectorizer"):
        quick().fit([[text] for text in texts], kinds)


def test_grid_search_finds_a_better_scale() -> None:
    grid = {"prior_scale": [0.01, 5.0], "likelihood": ["flat", "nested"]}
    search = GridSearchCV(quick(tree=sorted(set(Y))), grid, cv=3).fit(DATA.x, Y)
    assert search.best_params_["prior_scale"] == 5.0
    found = search.cv_results_
    score = {
        (p["likelihood"], p["prior_scale"]): s for p, s in zip(found["params"], found["mean_test_score"], strict=True)
    }
    assert score["flat", 5.0] > score["flat", 0.01] + 0.1
    assert search.score(DATA.test_x, labels(DATA.test_y)) > 0.7


def test_clone_keeps_options_and_forgets_the_fit() -> None:
    model = quick(levels=["kingdom", "kind", "class"], class_weight={"animals": 2.0}).fit(DATA.x, Y)
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert not hasattr(copy, "tree_") and not hasattr(copy, "seen_")
    np.testing.assert_array_equal(copy.fit(DATA.x, Y).predict_proba(DATA.test_x), model.predict_proba(DATA.test_x))


def test_sample_weights_are_routed() -> None:
    weight = np.where(np.char.startswith(Y, "animals"), 0.0, 1.0)
    with sklearn.config_context(enable_metadata_routing=True):
        asking = quick(tree=sorted(set(Y))).set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        search = GridSearchCV(asking, {"prior_scale": [4.0]}, cv=3).fit(DATA.x, Y, sample_weight=weight)
        with pytest.raises(UnsetMetadataPassedError, match="sample_weight"):
            cross_validate(
                quick(tree=sorted(set(Y))), DATA.x, Y, params={"sample_weight": weight}, cv=3, error_score="raise"
            )
        routed = quick().set_partial_fit_request(sample_weight=True, classes=True).get_metadata_routing()
    animals = [k for k, path in enumerate(search.best_estimator_.tree_.paths) if path[0] == "animals"]
    assert np.all(search.best_estimator_.node_weight_[animals] == 0)
    assert routed.partial_fit.requests == {"classes": True, "sample_weight": True}


@pytest.mark.parametrize("scoring", ["accuracy", "balanced_accuracy", "neg_log_loss", "roc_auc_ovr", "f1_macro"])
def test_scorers_of_probabilities_and_classes_with_joined_labels(scoring: str) -> None:
    """Classes are called as the labels are, and stand in scikit-learn's order: blanks come before the separator."""
    generator = np.random.default_rng(0)
    y = np.array(["a/x", "a b/z", "a b/w", "a/y", "a b c"] * 24)
    x = generator.normal(size=(120, 5)) + 3 * np.eye(5)[np.arange(120) % 5]
    model = TaxonomyClassifier(separator="/", scales="fixed", prior_scale=1.0)
    assert list(model.fit(x, y).classes_) == sorted(set(y))
    ours = cross_val_score(model, x, y, cv=3, scoring=scoring)
    theirs = cross_val_score(LogisticRegression(), x, y, cv=3, scoring=scoring)
    assert ours.mean() > theirs.mean() - 0.1


def test_classes_that_a_fold_lacks_count_as_wrong() -> None:
    y = np.array(Y, dtype=object)
    y[0] = "tools/rare"
    model = quick().fit(DATA.x[1:], y[1:])
    with pytest.warns(MultilevelWarning, match="1 of the classes in y are not in the tree"):
        score = model.score(DATA.x, y)
    assert score == pytest.approx(model.score(DATA.x[1:], y[1:]) * (len(y) - 1) / len(y))


def test_a_separator_that_no_label_has_is_told() -> None:
    with pytest.warns(MultilevelWarning, match="separator='>' occurs in no label"):
        model = TaxonomyClassifier(separator=">", scales="fixed").fit(DATA.x, Y)
    assert model.tree_.levels == ("level 1",)


def test_levels_are_named_by_the_columns_of_the_labels() -> None:
    frame = pd.DataFrame(DATA.y, columns=["area", "kind", "species"])
    for y in (frame, pl.from_pandas(frame)):
        model = TaxonomyClassifier(scales="fixed").fit(DATA.x, y)
        assert model.tree_.levels == ("area", "kind", "species") and list(model.scales_) == ["area", "kind", "species"]
        assert set(model.predict(DATA.x, level="area")) == set(frame["area"])


def test_a_warm_start_never_overrules_scales_that_are_given() -> None:
    model = TaxonomyClassifier(scales="fixed", prior_scale=5.0, warm_start=True).fit(DATA.x, DATA.y)
    model.set_params(prior_scale=0.5).fit(DATA.x, DATA.y)
    assert set(model.scales_.values()) == {0.5}
    cold = TaxonomyClassifier(scales="fixed", prior_scale=0.5, tol=1e-6).fit(DATA.x, DATA.y)
    np.testing.assert_allclose(model.predict_proba(DATA.test_x), cold.predict_proba(DATA.test_x), atol=0.02)


def test_a_flat_tree_is_multinomial_logistic_regression() -> None:
    top = DATA.y[:, 0]
    ours = TaxonomyClassifier(
        scales="fixed", prior_scale=2.0, intercept_scale=1e4, dtype="float64", tol=1e-14, max_iter=10_000
    ).fit(DATA.x, top)
    theirs = LogisticRegression(C=4.0, tol=1e-10, max_iter=10_000).fit(DATA.x, top)
    np.testing.assert_allclose(ours.predict_proba(DATA.test_x), theirs.predict_proba(DATA.test_x), atol=1e-6)
