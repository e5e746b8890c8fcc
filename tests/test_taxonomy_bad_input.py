"""Input that a classifier cannot use is refused in the user's terms; what is odd but usable gives right answers."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from multilevel.errors import ConvergenceWarning, DataError, MultilevelWarning, OptionError
from multilevel.taxonomy.estimator import TaxonomyClassifier

GENERATOR = np.random.default_rng(0)
X = np.abs(GENERATOR.normal(size=(40, 5)))
Y = np.array(["a/x", "a/y", "b/x", "b/y", "c"] * 8)
TREE = ["a/x", "a/y", "b/x", "b/y", "c"]


def quick(tree: Any = None, **options: Any) -> TaxonomyClassifier:
    return TaxonomyClassifier(tree, **{"separator": "/", "n_jobs": 1, **options})


def with_value(value: float) -> np.ndarray:
    x = X.copy()
    x[3, 2] = value
    return x


# ---- trees and labels --------------------------------------------------------------------------------------------

TREES: dict[str, tuple[Any, type[Exception], str]] = {
    "circle": ({"a": "b", "b": "a", "x": "a"}, DataError, "goes in a circle: 'a' -> 'b' -> 'a'"),
    "own parent": ({"a": "a", "x": "a"}, DataError, "goes in a circle: 'a' -> 'a'"),
    "two parents": ([("a", "x"), ("b", "x"), ("a", "b")], DataError, "'x' has two parents, 'a' and 'b'"),
    "class twice": ([*TREE, "c"], DataError, "'c' is in the tree twice"),
    "empty": ([], DataError, "the tree has no classes"),
    "text": ("abc", OptionError, "tree='abc' is no tree"),
    "number": (3, OptionError, "tree=3 is no tree"),
    "blank": (["a", None], DataError, "blank"),
    "blank child": ({None: "a", "x": "a"}, DataError, "without a name"),
    "unhashable": ([{}, "a"], DataError, "{} in the tree cannot be a class"),
    "one leaf": (["c"], DataError, "label 'a/x' is not a class"),
}


@pytest.mark.parametrize("case", TREES)
def test_trees_that_are_none(case: str) -> None:
    tree, error, match = TREES[case]
    with pytest.raises(error, match=match):
        quick(tree).fit(X, Y)


LABELS: dict[str, tuple[Any, Any, str]] = {
    "not in the tree": (TREE, ["zz", *Y[1:]], "row 0: the label 'zz' is not a class of the tree"),
    "near miss": (["apple", "pear"], ["aple"] * 40, "did you mean 'apple'"),
    "name of two": (TREE, ["x"] * 40, r"'x' is the name of 2 classes \('a/x', 'b/x'\); give the path"),
    "one class": (None, ["a"] * 40, "one class only, 'a'"),
    "one path": (None, ["a/b/c"] * 40, "one class only"),
    "too few": (None, Y[:7], "X has 40 rows and y has 7"),
    "none": (None, None, "y is None"),
    "empty": (None, [], "one label a row"),
    "one text": (None, "a", "one label a row"),
    "three dimensions": (None, np.zeros((40, 2, 2)), r"shape \(40, 2, 2\)"),
    "missing": (None, [None, *Y[1:]], "row 0 has no label"),
    "not a number": (None, [np.nan, *[1.0] * 39], "row 0 has no label"),
    "blank": (None, [" ", *Y[1:]], "row 0 has no label"),
    "blank part": (None, ["a//x", *Y[1:]], "blank part"),
    "separator alone": (None, ["/", *Y[1:]], "blank"),
    "gap": (None, pd.DataFrame({"u": ["a", None] * 20, "v": ["x"] * 40}), "row 1 has no label"),
    "gap inside": (
        None,
        pd.DataFrame({"u": ["a"] * 40, "v": [None, "x"] * 20, "w": "y"}),
        "row 0 has a label below a blank",
    ),
    "dicts": (None, [{}] * 40, "the label {} cannot be a class"),
    "ragged": (None, [["a"], ["a", "b"]] * 20, "differ in their number of labels"),
    "set": (None, set(Y), "one label a row"),
}


@pytest.mark.parametrize("case", LABELS)
def test_labels_that_cannot_be_used(case: str) -> None:
    tree, y, match = LABELS[case]
    with pytest.raises(DataError, match=match):
        quick(tree).fit(X, y)


def test_numbers_that_are_measurements_are_no_labels() -> None:
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        TaxonomyClassifier().fit(X, GENERATOR.normal(size=40))


# ---- features ----------------------------------------------------------------------------------------------------

FEATURES: dict[str, tuple[Any, str]] = {
    "nan": (with_value(np.nan), "NaN"),
    "infinite": (with_value(np.inf), "infinity"),
    "sparse nan": (sp.csr_array(with_value(np.nan)), "NaN"),
    "sparse infinite": (sp.csr_array(with_value(-np.inf)), "infinity"),
    "texts": (np.full((40, 2), "word", dtype=object), "texts in place of numbers.*'word'.*TfidfVectorizer"),
    "list of texts": (["some text"] * 40, "texts in place of numbers"),
    "frame with texts": (pd.DataFrame({"a": X[:, 0], "b": "word"}), "texts in place of numbers"),
    "no rows": (np.empty((0, 5)), r"0 sample\(s\)"),
    "no features": (np.empty((40, 0)), r"0 feature\(s\)"),
    "one dimension": (X[:, 0], "Expected 2D array, got 1D"),
    "three dimensions": (X[:, :, None], "dim 3"),
    "none": (None, "Expected 2D array"),
    "complex": (X + 1j, "Complex data not supported"),
    "too large": (X * 1e20, "largest feature of X is .*scale the features"),
    "far too large": (X * 1e300, "largest feature of X is .*scale the features"),
    "too small": (X * 1e-30, "largest feature of X is .*scale the features"),
}


@pytest.mark.parametrize("case", FEATURES)
def test_features_that_cannot_be_used(case: str) -> None:
    x, match = FEATURES[case]
    with pytest.raises(ValueError, match=match):
        quick().fit(x, Y)


def test_columns_outside_a_sparse_matrix() -> None:
    broken = sp.csr_array(X)
    broken.indices = np.where(broken.indices == 4, 9, broken.indices).astype(np.int32)
    with pytest.raises(ValueError, match="damaged sparse matrix: it has an entry in column 9, and 5 columns"):
        quick().fit(broken, Y)


def test_rows_to_predict() -> None:
    model = quick().fit(X, Y)
    for x, match in [
        (X[:, :3], "X has 3 features, but TaxonomyClassifier is expecting 5"),
        (np.c_[X, X], "X has 10 features"),
        (with_value(np.nan), "NaN"),
        (X[0], "Expected 2D array, got 1D"),
        (X * 1e38, "scale the features"),
        (X * 1e300, "scale the features"),
        (["text"], "texts in place of numbers"),
    ]:
        for verb in (model.predict, model.predict_proba):
            with pytest.raises(ValueError, match=match):
                verb(x)
    for level in (0, 3, -1, 1.5, True, "nowhere"):
        with pytest.raises(OptionError, match="is not a level of this tree"):
            model.predict(X, level=level)
    with pytest.raises(ValueError, match="not fitted yet"):
        quick().predict(X)


def test_a_feature_first_seen_in_a_test_row_tells_nothing() -> None:
    model = quick(dtype="float64").fit(np.c_[X, np.zeros(40)], Y)
    with_new = model.predict_proba(np.c_[X, np.full(40, 7.0)])
    np.testing.assert_array_equal(with_new, model.predict_proba(np.c_[X, np.zeros(40)]))


def test_scores() -> None:
    model = quick().fit(X, Y)
    for y, weight, match in [
        (Y[:3], None, "X has 40 rows and y has 3"),
        (["zz"] * 40, None, "'zz' is not a class"),
        (None, None, "y is None"),
        (Y, np.zeros(40), "at least one non-zero"),
        (Y, -np.ones(40), "Negative values"),
        (Y, np.ones(3), "sample_weight"),
    ]:
        with pytest.raises(ValueError, match=match):
            model.score(X, y, sample_weight=weight)


# ---- weights and options -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weight", "match"),
    [
        (-np.ones(40), "sample_weight of row 0 is -1.0: weights must not be negative"),
        (np.zeros(40), "at least one non-zero"),
        (np.full(40, np.nan), "NaN"),
        (np.full(40, np.inf), "infinity"),
        (np.ones(3), "sample_weight"),
        (["a"] * 40, "could not convert"),
        (np.full(40, 1e300), "a sample weight is 1e.300"),
    ],
)
def test_weights_that_cannot_be_used(weight: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        quick().fit(X, Y, sample_weight=weight)


OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"likelihood": "flatt"}, "likelihood='flatt' is not known: take 'flat', 'nested'"),
    ({"scales": "holdut"}, "scales='holdut' is not known"),
    ({"scales": 3}, "scales=3 is not known"),
    ({"scales": None}, "scales=None is not known"),
    ({"scales": {"nowhere": 1}}, "'nowhere' has no scale here; there are 'level 1', 'level 2'"),
    ({"scales": {3: 1}}, "3 has no scale here"),
    ({"scales": {1: 0}}, "scale of 1=0 must be positive"),
    ({"scales": {1: "wide"}}, "must be one positive number"),
    ({"scales": {1: 1e30}}, "out of range"),
    ({"scale_by": "levels"}, "scale_by='levels' is not known"),
    ({"dtype": "flaot32"}, "dtype='flaot32' is not known"),
    ({"dtype": "float16"}, "dtype='float16' is not known"),
    ({"dtype": None}, "dtype='' is not known"),
    ({"intercept_scale": 0}, "intercept_scale=0 must be a positive number"),
    ({"intercept_scale": True}, "intercept_scale=True must be"),
    ({"intercept_scale": 1e30}, "intercept_scale=1e.30 must lie between"),
    ({"tol": -1}, "tol=-1 must be"),
    ({"tol": "fine"}, "tol='fine' must be"),
    ({"max_iter": 0}, "max_iter=0 must be a whole number"),
    ({"max_iter": 1.5}, "max_iter=1.5 must be a whole number"),
    ({"folds": 1}, "folds=1 must be a whole number of at least 2"),
    ({"draws": 1}, "draws=1 must be"),
    ({"validation_fraction": 1.5}, "validation_fraction=1.5 must be a number between 0 and 1"),
    ({"validation_fraction": "a"}, "validation_fraction='a' must be"),
    ({"validation_fraction": None}, "validation_fraction=None must be"),
    ({"n_jobs": 0}, "n_jobs=0 must be"),
    ({"n_jobs": "all"}, "n_jobs='all' must be"),
    ({"inference": "mapp"}, "inference='mapp' is not known"),
    ({"prior_scale": 0}, "prior_scale=0 must be positive"),
    ({"prior_scale": np.nan}, "prior_scale=nan must be positive"),
    ({"prior_scale": [1, 2, 3]}, "must be one positive number, or 2 of them"),
    ({"prior_scale": "wide"}, "prior_scale='wide' must be"),
    ({"prior_scale": 1e300}, "prior_scale: .* is out of range"),
    ({"prior_scale": 1e-300}, "prior_scale: .* is out of range"),
    ({"class_weight": "balnced"}, "class_weight='balnced' is not known"),
    ({"class_weight": [1, 2]}, "must be None, 'balanced' or a dict"),
    ({"class_weight": {"zz": 1}}, "'zz' is not a class of the tree"),
    ({"class_weight": {"c": -1}}, "class_weight of 'c' is -1"),
    ({"class_weight": {"c": np.nan}}, "class_weight of 'c' is nan"),
    ({"class_weight": {"a": 0, "b": 0, "c": 0}}, "gives all rows the weight 0"),
    ({"levels": ["only one"]}, "names 1 levels, but the tree has 2"),
    ({"levels": "ab"}, "levels='ab' must be a list"),
    ({"levels": 3}, "levels=3 must be a list"),
    ({"feature_groups": ["a"] * 3}, "one group for each of the 5 features"),
    ({"feature_groups": "abcde"}, "one group for each of the 5 features"),
    ({"separator": ""}, "separator='' must be"),
    ({"separator": 3}, "separator=3 must be"),
    ({"random_state": "a"}, "cannot be used to seed"),
    ({"random_state": -1}, "Seed must be between"),
]


@pytest.mark.parametrize(("options", "match"), OPTIONS, ids=[str(options) for options, _ in OPTIONS])
def test_options_misspelled_or_out_of_range(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        quick(**options).fit(X, Y)


# ---- more than the machine has -----------------------------------------------------------------------------------


def test_too_little_memory_is_said_before_it_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    features, count = 600_000, 1000
    names = [f"{k % 50}/{k}" for k in range(count)]
    rows = sp.csr_array((np.ones(count), (np.arange(count), np.arange(count))), shape=(count, features))
    real: Callable[[Any], int] = os.sysconf
    monkeypatch.setattr(os, "sysconf", lambda name: 2**20 if name == "SC_PHYS_PAGES" else real(name))
    match = r"1000 leaves and 600000 features needs about \d+ GB, and this machine has 4 GB: take likelihood='nested'"
    with pytest.raises(OptionError, match=match):
        quick(scales="fixed").fit(rows, names)
    nested = quick(scales="fixed", likelihood="nested").fit(rows, names)
    assert list(nested.predict(rows[60:70])) == names[60:70]


# ---- odd, but right ----------------------------------------------------------------------------------------------


def is_sound(model: TaxonomyClassifier, x: Any = X) -> None:
    p = model.predict_proba(x)
    assert np.all(np.isfinite(p))
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)
    assert all(np.isfinite(scale) and scale > 0 for scale in model.scales_.values())


@pytest.mark.parametrize("likelihood", ["flat", "nested"])
@pytest.mark.parametrize("scales", ["holdout", "cv"])
def test_nothing_can_be_held_out(scales: str, likelihood: str) -> None:
    with pytest.warns(ConvergenceWarning, match="no rows could be held out"):
        model = quick(scales=scales, likelihood=likelihood).fit(X[:5], Y[:5])  # one item of each class
    is_sound(model)
    assert len(set(model.scales_.values())) == 1
    assert model.score(X[:5], Y[:5]) > 0.5
    with pytest.warns(ConvergenceWarning, match="no rows could be held out"):
        is_sound(quick(scales=scales, likelihood=likelihood).fit(X[:2], Y[:2]))  # two rows
    with pytest.warns(ConvergenceWarning, match="copies of one"):
        is_sound(quick(scales=scales, likelihood=likelihood).fit(np.repeat(X[:5], 8, 0), np.repeat(Y[:5], 8)))


@pytest.mark.parametrize("likelihood", ["flat", "nested"])
def test_rows_without_features_have_the_shares_of_the_classes(likelihood: str) -> None:
    y = np.array(["a/x"] * 20 + ["a/y"] * 10 + ["b"] * 10)
    model = quick(likelihood=likelihood, scales="fixed", intercept_scale=1000.0, tol=1e-9).fit(sp.csr_array((40, 5)), y)
    np.testing.assert_allclose(model.predict_proba(np.zeros((1, 5))), [[0.5, 0.25, 0.25]], atol=1e-3)
    constant = quick(likelihood=likelihood, scales="fixed", intercept_scale=1000.0, tol=1e-9).fit(np.ones((40, 5)), y)
    np.testing.assert_allclose(constant.predict_proba(np.ones((1, 5))), [[0.5, 0.25, 0.25]], atol=1e-3)
    half = quick(likelihood=likelihood).fit(X * (np.arange(40) % 2)[:, None], Y)
    is_sound(half)


@pytest.mark.parametrize("factor", [1e-10, 1e6, 1e10])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_unit_of_the_features_does_not_matter(factor: float, dtype: str) -> None:
    expected = quick(dtype=dtype).fit(X, Y).predict_proba(X)
    np.testing.assert_allclose(quick(dtype=dtype).fit(X * factor, Y).predict_proba(X * factor), expected, atol=0.01)


def test_one_value_far_above_the_others_is_told() -> None:
    with pytest.warns(MultilevelWarning, match="times as long as the median row"):
        model = quick(dtype="float64").fit(with_value(1e9), Y)
    is_sound(model)


@pytest.mark.parametrize("likelihood", ["flat", "nested"])
@pytest.mark.parametrize(
    ("x", "y"),
    [
        (X[:, :1], Y),
        (X, np.where(Y == "a/x", "a", Y)),  # partial labels
        (X, ["a/b/c/d", "a/b/c/e", "z", "y/z"] * 10),  # leaves at all depths
        (X, ["/".join(["n"] * 60) + "/a", "b"] * 20),
        (X, ["a", "b"] * 20),
    ],
    ids=["one feature", "inner labels", "ragged", "long chain", "no tree at all"],
)
def test_unusual_trees_and_rows(likelihood: str, x: Any, y: Any) -> None:
    model = quick(TREE if "a" in y and "c" in y else None, likelihood=likelihood).fit(x, y)
    is_sound(model, x)


def test_rows_of_one_class_in_a_tree_of_several() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = quick(TREE).fit(X, ["c"] * 40)
    is_sound(model)
    assert set(model.predict(X)) == {"c"}
    by_weight = quick(TREE).fit(X, Y, sample_weight=(Y == "c").astype(float))
    assert set(by_weight.predict(X)) == {"c"}


def test_labels_of_several_kinds() -> None:
    for y in (
        [True, False] * 20,
        [1, "a"] * 20,
        list(pd.to_datetime(["2020-01-01", "2021-01-01"] * 20)),
        pd.Categorical(Y),
    ):
        model = TaxonomyClassifier(n_jobs=1).fit(X, y)
        is_sound(model)
        codes = pd.factorize(np.array([str(label) for label in y], dtype=object))[0]
        plain = np.column_stack([X, 9.0 * (codes[:, None] == np.arange(codes.max() + 1))])  # tells the class
        said = TaxonomyClassifier(n_jobs=1).fit(plain, y).predict(plain)
        assert all(one == label for one, label in zip(said, y, strict=True))


# ---- copies ------------------------------------------------------------------------------------------------------


def test_copies_among_the_rows_are_told() -> None:
    generator = np.random.default_rng(1)
    x, y = generator.normal(size=(200, 6)), np.arange(200) % 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = quick(separator=None, scales="fixed").fit(x, y)
        model.score(x, y)  # the training rows: what is meant is clear
        model.score(generator.normal(size=(200, 6)), y)
    with pytest.warns(MultilevelWarning, match="20 of the 200 rows are copies of others"):
        quick(separator=None, scales="fixed").fit(np.r_[x[:180], x[:20]], y)
    leaking = np.r_[generator.normal(size=(120, 6)), x[:80]]
    with pytest.warns(MultilevelWarning, match="80 of the 200 rows to score are copies of rows that were learnt from"):
        model.score(leaking, y)
    model.partial_fit(leaking[:60], y[:60])
    with pytest.warns(MultilevelWarning, match="60 of the 120 rows"):
        model.score(np.r_[leaking[:60], generator.normal(size=(60, 6))], y[:120])


def test_shares_of_a_series_are_read_by_its_labels() -> None:
    model = quick(TREE).fit(X, Y)
    shares = pd.Series(model.class_shares_, index=model.classes_)[::-1]
    np.testing.assert_allclose(model.predict_proba(X, prior=shares), model.predict_proba(X), atol=1e-12)


def test_rows_without_features_are_no_copies() -> None:
    generator = np.random.default_rng(1)
    x = np.vstack([generator.normal(size=(188, 5)), np.zeros((12, 5))])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quick(None).fit(x, ["a/x", "a/y"] * 100)


def test_scales_of_families_by_the_name_of_the_parent() -> None:
    model = quick(TREE, scales={"b": 2.0}, scale_by="parent").fit(X, Y)
    assert model.scales_["below b"] == 2.0
    with pytest.raises(OptionError, match="has a name twice"):
        TaxonomyClassifier(levels=["a", "a"]).fit(X, Y)
