"""save, load and read of classifiers: everything comes back, what is no good file is refused; to_sklearn, pickle, clone."""

from __future__ import annotations

import datetime
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp, softmax
from sklearn.base import clone
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from taxonomy_samples import articles

import multilevel as ml
from multilevel import archive
from multilevel.taxonomy import inputs, storage

LIKELIHOODS = ("flat", "nested")
SAME_TMP = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@cache
def fitted(likelihood: str = "flat") -> ml.TaxonomyClassifier:
    made = articles(rows=200)
    return ml.TaxonomyClassifier(likelihood=likelihood, levels=("kind", "group", "sort"), n_jobs=1).fit(made.x, made.y)


def same(one: Any, other: Any) -> None:
    """Values of equal types, bit for bit."""
    assert type(one) is type(other)
    if isinstance(one, np.ndarray):
        assert one.dtype == other.dtype and one.shape == other.shape
        assert one.tobytes() == other.tobytes() if one.dtype.kind != "O" else one.tolist() == other.tolist()
    elif sp.issparse(one):
        for part in ("data", "indices", "indptr"):
            same(getattr(one, part), getattr(other, part))
    elif isinstance(one, ml.Taxonomy):
        assert one == other and [type(name) for name in one.names] == [type(name) for name in other.names]
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            same(one[name], other[name])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            same(a, b)
    elif hasattr(one, "__dict__") and type(one).__module__.startswith("multilevel"):
        same({k: v for k, v in vars(one).items() if k[0] != "_"}, {k: v for k, v in vars(other).items() if k[0] != "_"})
    else:
        assert one == other or (one != one and other != other)


# -- what comes back ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seen", [False, True])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_everything_comes_back(likelihood: str, seen: bool, tmp_path: Path) -> None:
    model, made, path = fitted(likelihood), articles(), tmp_path / "model.zip"
    model.save(path, seen=seen)
    for again in (ml.read(path), ml.TaxonomyClassifier.load(str(path))):
        assert type(again) is ml.TaxonomyClassifier
        left_out = () if seen else ("seen_", "row_hashes_")
        public = {
            name: value for name, value in vars(model).items() if not name.startswith("_") and name not in left_out
        }
        same(public, {name: value for name, value in vars(again).items() if not name.startswith("_")})
        same(model.predict_proba(made.test_x), again.predict_proba(made.test_x))
        same(model.predict(made.test_x, level="group"), again.predict(made.test_x, level="group"))
        same(model.get_params(), again.get_params())
        assert again.fitted_.tree is again.tree_
        told = [name for name in model.explain("owls") if seen or name not in ("sd", "shrinkage")]
        assert list(again.explain("owls")) == told
        if seen:
            pd.testing.assert_frame_equal(again.explain("owls"), model.explain("owls"))
            pd.testing.assert_frame_equal(again.shrinkage_, model.shrinkage_)
        else:
            pd.testing.assert_frame_equal(again.shrinkage_, model.shrinkage_[["node", "level", "parent", "n", "norm"]])


def test_saving_what_was_read_gives_the_same_file_without_pickle(tmp_path: Path) -> None:
    for k, likelihood in enumerate(LIKELIHOODS):
        first, second = tmp_path / f"{k}a.zip", tmp_path / f"{k}b.zip"
        fitted(likelihood).save(first)
        ml.read(first).save(second)
        assert first.read_bytes() == second.read_bytes()
        with zipfile.ZipFile(first) as file:
            for name in file.namelist():
                if name.endswith(".npy"):
                    np.load(io.BytesIO(file.read(name)), allow_pickle=False)
                else:
                    json.loads(file.read(name))


LABELS: dict[str, list[Any]] = {
    "int": [3, 1, 2],
    "numpy int": list(np.array([3, 1, 2], dtype=np.int32)),
    "float": [0.5, 2.0, 1.0],
    "str": ["b", "ä/ö", "c\n"],
    "numpy str": list(np.array(["b", "a", "c"])),
    "bool and str": [True, "a", 7],
    "mixed": ["a", 2, 0.5],
    "date": [datetime.date(2020, 1, k) for k in (3, 1, 2)],
    "timestamp": [pd.Timestamp("2020-01-01"), pd.Timestamp("2021-01-01"), pd.Timestamp("2022-01-01")],
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_any_kind(kind: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    x, labels = generator.normal(size=(30, 3)), LABELS[kind]
    tree = {labels[0]: "top", labels[1]: "top", "top": None, labels[2]: None}
    y = np.empty(30, dtype=object)
    y[:] = [labels[k % 3] for k in range(30)]
    model = ml.TaxonomyClassifier(tree, scales="fixed", n_jobs=1).fit(x, y)
    model.save(tmp_path / "m.zip")
    again = ml.read(tmp_path / "m.zip")
    same(model.classes_, again.classes_)
    assert [type(label) for label in model.classes_.tolist()] == [type(label) for label in again.classes_.tolist()]
    same(model.predict(x), again.predict(x))
    same(model.tree_, again.tree_)


def test_labels_that_cannot_be_held(tmp_path: Path) -> None:
    labels = [frozenset("a"), frozenset("b")]
    y = np.empty(20, dtype=object)
    y[:] = labels * 10
    tree = {labels[0]: None, labels[1]: None}
    model = ml.TaxonomyClassifier(tree, scales="fixed", n_jobs=1).fit(np.random.default_rng(0).normal(size=(20, 2)), y)
    with pytest.raises(ml.DataError, match="of type frozenset, which the file cannot hold"):
        model.save(tmp_path / "m.zip")
    assert not (tmp_path / "m.zip").exists()


def test_options_of_all_kinds(tmp_path: Path) -> None:
    made = articles()
    paths = pd.DataFrame(made.y, columns=["a", "b", "c"]).drop_duplicates()
    model = ml.TaxonomyClassifier(
        paths, levels=["a", "b", "c"], scales={"a": 2, "b": 3.5}, prior_scale=4, class_weight={"birds": 2.0}, n_jobs=1,
        feature_groups=pd.Series(["first", "second"] * 30), dtype=np.float64, random_state=np.random.RandomState(4),
    )  # fmt: skip
    model.set_params(dtype="float64", scales="fixed").fit(made.x, made.y)
    model.save(tmp_path / "m.zip")
    again = ml.read(tmp_path / "m.zip")
    same(model.fitted_, again.fitted_)
    assert again.tree == model.tree_ and again.levels == ["a", "b", "c"] and again.class_weight == {"birds": 2.0}
    assert again.feature_groups.tolist() == ["first", "second"] * 30
    assert again.random_state.randint(1 << 30) == model.random_state.randint(1 << 30)
    refit = clone(again).fit(made.x, made.y)
    np.testing.assert_array_equal(refit.predict_proba(made.test_x), model.predict_proba(made.test_x))


def test_feature_names_and_their_check(tmp_path: Path) -> None:
    made = articles()
    frame = pd.DataFrame(made.x.toarray(), columns=[f"w{k}" for k in range(60)])
    model = ml.TaxonomyClassifier(scales="fixed", n_jobs=1).fit(frame, made.y)
    model.save(tmp_path / "m.zip")
    again = ml.read(tmp_path / "m.zip")
    same(model.feature_names_in_, again.feature_names_in_)
    with pytest.raises(ValueError, match="feature names should match"):
        again.predict(frame[frame.columns[::-1]])


def test_draws_come_back(tmp_path: Path) -> None:
    model = ml.read(saved(tmp_path))
    model.draws_ = [model.fitted_, model.fitted_]
    model.save(tmp_path / "draws.zip")
    same(ml.read(tmp_path / "draws.zip").draws_, model.draws_)


# -- smaller files --------------------------------------------------------------------------------------------


def probabilities(tree: ml.Taxonomy, u: Any, x: Any, likelihood: str) -> Any:
    """Of the leaves, from the nodes' coefficients as the specification writes them."""
    z, logs = x @ u[:-1] + u[-1], []
    for leaf in tree.leaves:
        path = tree.ancestors(leaf)
        siblings = [np.flatnonzero(tree.parent == tree.parent[node]) for node in path]
        sums = [logsumexp(z[:, group], axis=1) if likelihood == "nested" else 0.0 for group in siblings]
        logs.append(sum(z[:, node] - less for node, less in zip(path, sums, strict=True)))
    return softmax(np.column_stack(logs), axis=1)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_half_precision_and_small_coefficients(likelihood: str, tmp_path: Path) -> None:
    model, made = fitted(likelihood), articles()
    sizes = []
    for k, options in enumerate(
        ({}, {"dtype": "float16"}, {"drop_below": 0.3}, {"dtype": "float16", "drop_below": 0.3})
    ):
        path = tmp_path / f"{k}.zip"
        model.save(path, seen=False, **options)
        sizes.append(path.stat().st_size)
        both = (ml.read(path).fitted_.deviations, model.fitted_.deviations)
        u, was = (one.toarray() if sp.issparse(one) else one for one in both)
        assert u.dtype == np.float32
        expected = was.copy()
        if "drop_below" in options:
            expected[:-1][np.abs(expected[:-1]) < 0.3] = 0
        if "dtype" in options:
            expected = expected.astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(u, expected)
        wanted = probabilities(model.tree_, expected.astype(float), made.test_x.toarray(), likelihood)
        np.testing.assert_allclose(ml.read(path).predict_proba(made.test_x), wanted, rtol=1e-4, atol=1e-9)
    assert sizes[0] > max(sizes[1:3]) and min(sizes[1:3]) > sizes[3]


def test_options_of_saving(tmp_path: Path) -> None:
    model = fitted()
    with pytest.raises(ml.OptionError, match="dtype='int8' is not known: take None, .* or 'float16'"):
        model.save(tmp_path / "m", dtype="int8")
    for wrong in (-1, np.nan, "a", True, np.inf):
        with pytest.raises(ml.OptionError, match="drop_below=.* not negative"):
            model.save(tmp_path / "m", drop_below=wrong)
    with pytest.raises(ml.OptionError, match="seen"):
        model.save(tmp_path / "m", seen="yes")
    large = ml.read(saved(tmp_path))
    large.fitted_.deviations[0, 0] = 1e5
    with pytest.raises(ml.OptionError, match="a coefficient is 1e.05, too large for dtype='float16'"):
        large.save(tmp_path / "m", dtype="float16")
    with pytest.raises(AttributeError, match="not fitted"):
        ml.TaxonomyClassifier().save(tmp_path / "m")
    with pytest.raises(ml.FileError, match="cannot write"):
        model.save(tmp_path / "none" / "m")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.zip"]


# -- damaged and foreign files --------------------------------------------------------------------------------


def saved(tmp_path: Path, likelihood: str = "flat") -> Path:
    path = tmp_path / "model.zip"
    fitted(likelihood).save(path)
    return path


def test_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "foreign"
    for content, words in (
        (b"", "is empty"),
        (b"PK\x03\x04 none", "is no classifier"),
        (b"a,b\n1,2\n", "is no classifier"),
    ):
        path.write_bytes(content)
        with pytest.raises(ml.FileError, match=words):
            ml.TaxonomyClassifier.load(path)
    with pytest.raises(ml.FileError, match="no file"):
        ml.TaxonomyClassifier.load(tmp_path / "absent")
    ml.Model("Yield ~ 1 + (1 | Batch)", ml.load("dyestuff")).fit().save(path)
    with pytest.raises(ml.FileError, match="holds a fit or a posterior, no classifier; open it with multilevel.read"):
        ml.TaxonomyClassifier.load(path)


def changed(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """Write a saved classifier again with its header and arrays changed."""
    with open(path, "rb") as file:
        header, arrays = archive.read(file)
    change(header, arrays)
    archive.write(path, header, arrays)


def deviations(header: dict[str, Any]) -> str:
    return str(header["state"]["fitted_"]["fields"]["deviations"]["array"])


CHANGES: dict[str, Callable[[dict[str, Any], dict[str, Any]], Any]] = {
    "wrong shape": lambda h, a: a.update({deviations(h): a[deviations(h)][:-1]}),
    "no number": lambda h, a: a.update({deviations(h): a[deviations(h)] * np.float32(np.nan)}),
    "other record": lambda h, a: h["state"]["fitted_"].update(record="Settings"),
    "circle": lambda h, a: h["trees"][0]["parent"].__setitem__(0, 0),
    "not in order": lambda h, a: h["trees"][0]["parent"].__setitem__(-1, 1),
    "unknown option": lambda h, a: h["options"].update(speed=2),
    "no dtype": lambda h, a: h["options"].update(dtype=False),
    "hides a verb": lambda h, a: h["state"].update(predict=2),
    "hides a property": lambda h, a: h["state"].update(shrinkage_=2),
    "private": lambda h, a: h["state"].update(_threads_=2),
    "no weights": lambda h, a: h["state"].pop("class_shares_"),
    "other classes": lambda h, a: h["state"]["classes_"]["texts"].__setitem__(0, "cats"),
    "features": lambda h, a: h["state"].update(n_features_in_=10**9),
    "inputs": lambda h, a: h.update(
        inputs={"kind": "texts", "columns": ["a"], "options": {}, "words": ["b"], "idf": None}
    ),
    "what was seen": lambda h, a: h["state"]["seen_"]["fields"]["sums"].update(shape=[1, 1]),
}


@pytest.mark.parametrize("what", CHANGES)
def test_changes_are_refused(what: str, tmp_path: Path) -> None:
    path = saved(tmp_path)
    changed(path, lambda h, a: CHANGES[what](h, a) and None)
    for opened in (ml.read, ml.TaxonomyClassifier.load):
        with pytest.raises(ml.FileError, match="damaged or incomplete"):
            opened(path)


@pytest.mark.parametrize("part", ["indices", "indptr"])
def test_sparse_coefficients_out_of_range(part: str, tmp_path: Path) -> None:
    path = saved(tmp_path, "nested")

    def change(header: dict[str, Any], arrays: dict[str, Any]) -> None:
        packed = header["state"]["fitted_"]["fields"]["deviations"]["csr"][1 if part == "indices" else 2]["array"]
        arrays[packed][3] = 10**6

    changed(path, change)
    with pytest.raises(ml.FileError, match="damaged or incomplete"):
        ml.read(path)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, one in items for place in places(one, (*path, key)))]


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 10**6), st.floats(), st.text(max_size=3), st.just([]), st.just({})
)


@SAME_TMP
@given(data=st.data())
def test_any_change_of_the_header_is_refused_or_harmless(data: st.DataObject, tmp_path: Path) -> None:
    path = saved(tmp_path)

    def change(header: dict[str, Any], arrays: dict[str, Any]) -> None:
        place = data.draw(st.sampled_from(places(header)[1:]))
        junk = data.draw(JUNK)
        inner: Any = header
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = junk

    try:
        changed(path, change)
    except (ValueError, TypeError):  # what cannot be written
        return
    try:
        model = ml.read(path)
    except ml.FileError:
        return
    assert np.isfinite(model.predict_proba(articles().test_x[:3]) if model.n_jobs in (1, None) else 0.0).all()


@SAME_TMP
@given(share=st.floats(0, 1), flip=st.integers(1, 255), cut=st.booleans())
def test_damaged_bytes(share: float, flip: int, cut: bool, tmp_path: Path) -> None:
    path = saved(tmp_path)
    content = bytearray(path.read_bytes())
    at = int(share * (len(content) - 1))
    if cut:
        del content[at:]
    else:
        content[at] ^= flip
    path.write_bytes(content)
    try:
        model = ml.TaxonomyClassifier.load(path)
    except ml.FileError:
        return
    same(model.fitted_, fitted().fitted_)


# -- inputs of the command line -------------------------------------------------------------------------------


TEXTS = ["red apples and pears", "green pears", "old cars", "fast red cars", "cars and apples", "green green tea"] * 3


def test_texts_and_classifier_come_back_as_a_pipeline(tmp_path: Path) -> None:
    step = inputs.Texts.make(["title"], ngram_range=(1, 2), min_df=2)
    x = step.step.fit_transform(TEXTS)
    model = ml.TaxonomyClassifier(scales="fixed", n_jobs=1).fit(x, ["fruit", "fruit", "car", "car", "car", "tea"] * 3)
    storage.write(tmp_path / "m.zip", model, step)
    pipe = ml.read(tmp_path / "m.zip")
    same(pipe[0].transform(["red tea", "new pears"]).toarray(), step.step.transform(["red tea", "new pears"]).toarray())
    same(pipe.predict_proba(TEXTS), model.predict_proba(x))
    assert pipe[0].get_params()["ngram_range"] == (1, 2) and pipe[0].sublinear_tf
    assert type(ml.TaxonomyClassifier.load(tmp_path / "m.zip")) is ml.TaxonomyClassifier
    assert storage.read_parts(tmp_path / "m.zip")[1].columns == ["title"]


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "characters": {"analyzer": "char_wb", "ngram_range": (2, 4), "max_features": 40, "sublinear_tf": True},
    "words": {"stop_words": ["old", "and"], "token_pattern": r"\S+", "lowercase": False, "max_df": 0.9},
    "english": {"stop_words": "english", "strip_accents": "unicode", "binary": True, "norm": None},
    "no idf": {"use_idf": False, "norm": "l1"},
    "single precision": {"dtype": np.float32, "smooth_idf": False},
    "given words": {"vocabulary": ["red", "cars", "tea"]},
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_vectorizer_of_python_is_saved_with_the_classifier(options: dict[str, Any], tmp_path: Path) -> None:
    texts = [f"{text} {odd}" for text, odd in zip(TEXTS, ["été", "\U0001d400\U0001d401", "NEW"] * 6, strict=True)]
    new, y = ["red tea", "New PEARS and été", "", "unheard of"], ["fruit", "fruit", "car", "car", "car", "tea"] * 3
    vectorizer = TfidfVectorizer(**options)
    model = ml.TaxonomyClassifier(scales="fixed", n_jobs=1).fit(vectorizer.fit_transform(texts), y)
    model.save(tmp_path / "m.zip", inputs=vectorizer)
    pipe = ml.read(tmp_path / "m.zip")
    same(pipe[0].transform(new).toarray(), vectorizer.transform(new).toarray())
    same(pipe[0].get_feature_names_out(), vectorizer.get_feature_names_out())
    same(pipe.predict_proba(new), model.predict_proba(vectorizer.transform(new)))
    sets, own = pipe[-1].predict_set(pipe[:-1].transform(new)), model.predict_set(vectorizer.transform(new))
    assert list(sets) == list(own)
    pipe[-1].save(tmp_path / "again.zip", inputs=pipe[0])
    assert (tmp_path / "again.zip").read_bytes() == (tmp_path / "m.zip").read_bytes()


def test_inputs_that_a_file_cannot_hold(tmp_path: Path) -> None:
    fit = TfidfVectorizer().fit(TEXTS)
    x = fit.transform(TEXTS)
    model = ml.TaxonomyClassifier(scales="fixed", n_jobs=1).fit(x, ["a", "b", "c"] * 6)
    for wrong, words in {
        "texts": "is of type str: a file holds a scikit-learn TfidfVectorizer only",
        CountVectorizer().fit(TEXTS): "is of type CountVectorizer",
        TfidfVectorizer: "is of type ",
        TfidfVectorizer(): "a TfidfVectorizer that is not fitted: give the one",
        TfidfVectorizer(vocabulary=["red"]): "not fitted",
        TfidfVectorizer(min_df=4).fit(TEXTS): r"makes \d features, but the classifier was fitted to 9",
        TfidfVectorizer(tokenizer=str.split, token_pattern=None).fit(TEXTS): "option tokenizer=.* a file cannot hold",
        TfidfVectorizer(analyzer=str.split).fit(TEXTS): "option analyzer=",
        TfidfVectorizer(input="file"): "option input='file'",
    }.items():
        with pytest.raises(ml.OptionError, match=words):
            model.save(tmp_path / "m.zip", inputs=wrong)
    assert not list(tmp_path.iterdir())


def test_numbers_and_classifier_come_back_as_a_pipeline(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    x, y = generator.normal(5, 3, size=(40, 3)), np.array(["a", "b"] * 20)
    step = inputs.Numbers.make(["u", "v", "w"])
    model = ml.TaxonomyClassifier(scales="fixed", n_jobs=1).fit(step.step.fit_transform(x), y)
    storage.write(tmp_path / "m.zip", model, step)
    same(ml.read(tmp_path / "m.zip").predict_proba(x), model.predict_proba(step.step.transform(x)))


# -- scikit-learn, pickle, clone ------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [9, 2])
def test_a_plain_logistic_regression(classes: int) -> None:
    made = articles()
    y = made.y if classes == 9 else made.y[:, 0] == "tools"
    frame = pd.DataFrame(made.x.toarray(), columns=[f"w{k}" for k in range(60)])
    model = ml.TaxonomyClassifier(scales="fixed", n_jobs=1).fit(frame, y)
    plain = model.to_sklearn()
    assert type(plain) is LogisticRegression
    test = pd.DataFrame(made.test_x.toarray(), columns=frame.columns)
    np.testing.assert_allclose(plain.predict_proba(test), model.predict_proba(test), atol=1e-5)
    np.testing.assert_array_equal(plain.predict(test), model.predict(test))
    assert plain.coef_.shape == (classes if classes > 2 else 1, 60)
    pickle.loads(pickle.dumps(plain)).predict(test)


def test_nested_is_no_logistic_regression() -> None:
    with pytest.raises(ml.OptionError, match="likelihood='nested' is a softmax at each node"):
        fitted("nested").to_sklearn()
    with pytest.raises(AttributeError, match="not fitted"):
        ml.TaxonomyClassifier().to_sklearn()


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_pickle_and_clone(likelihood: str) -> None:
    model, made = fitted(likelihood), articles()
    again = pickle.loads(pickle.dumps(model))
    same(again.predict_proba(made.test_x), model.predict_proba(made.test_x))
    pd.testing.assert_frame_equal(again.explain("owls"), model.explain("owls"))
    fresh = clone(model)
    assert fresh.get_params() == model.get_params() and not hasattr(fresh, "fitted_")
    same(
        fresh.fit(articles(rows=200).x, articles(rows=200).y).predict_proba(made.test_x),
        model.predict_proba(made.test_x),
    )
