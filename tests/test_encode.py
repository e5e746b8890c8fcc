"""PartialPoolingEncoder: against closed forms, scikit-learn's encoder and dense algebra; what it must not see."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from scipy.special import expit
from scipy.stats import norm
from sklearn.base import clone
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GroupKFold, KFold, PredefinedSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import TargetEncoder
from sklearn.utils.estimator_checks import parametrize_with_checks

import multilevel as ml
from multilevel.encode import PartialPoolingEncoder
from multilevel.errors import ColumnError, ConvergenceWarning, DataError, OptionError


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks([PartialPoolingEncoder(), PartialPoolingEncoder([0], family="gaussian")])
def test_contract_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


def balanced(levels: int = 12, each: int = 10, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    g = np.tile(np.arange(levels), each)
    return g, 5 + rng.normal(size=levels)[g] + rng.normal(scale=2, size=len(g))


def ratio_of_variances(g: np.ndarray, y: np.ndarray) -> float:
    """Variance within over variance between levels, by the analysis of variance (REML of balanced levels)."""
    groups = [y[g == one] for one in np.unique(g)]
    each = len(groups[0])
    within = np.mean([one.var(ddof=1) for one in groups])
    between = each * np.var([one.mean() for one in groups], ddof=1)
    return float(within / ((between - within) / each))


def nested(seed: int = 1, regions: int = 8, cities: int = 6, rows: int = 600) -> tuple[pd.DataFrame, np.ndarray]:
    """Cities of equal names in several regions; unequal sizes."""
    rng = np.random.default_rng(seed)
    region = rng.integers(0, regions, rows)
    city = np.minimum(rng.geometric(0.4, rows) - 1, cities - 1)
    mean = 2 * rng.normal(size=regions)[region] + rng.normal(size=(regions, cities))[region, city]
    frame = pd.DataFrame({"region": [f"r{i}" for i in region], "city": [f"c{i}" for i in city], "x": rng.normal(size=rows)})
    return frame, mean + rng.normal(size=rows)


# ---- numbers ---------------------------------------------------------------------------------------------------------


def test_balanced_levels_are_encoded_as_scikit_learn_does_with_the_variances_of_the_analysis_of_variance() -> None:
    g, y = balanced()
    x = g[:, None]
    ours = PartialPoolingEncoder().fit(x, y)
    theirs = TargetEncoder(smooth=ratio_of_variances(g, y)).fit(x, y)
    new = np.array([[0], [5], [11], [99]])
    np.testing.assert_allclose(ours.transform(new), theirs.transform(new), rtol=1e-7)
    assert ours.target_mean_ == pytest.approx(theirs.target_mean_)
    found = ours.encodings_[0][0]
    assert found.sigma**2 / found.sds[0] ** 2 == pytest.approx(ratio_of_variances(g, y), rel=1e-5)


def test_cross_fitting_is_a_hand_loop_over_folds() -> None:
    g, y = balanced()
    x, fold = g[:, None], np.arange(len(g)) // 24  # two rows of each level in each fold: training rows are balanced too
    ours = PartialPoolingEncoder(cv=PredefinedSplit(fold)).fit_transform(x, y)
    expected = np.empty_like(y)
    for one in np.unique(fold):
        train, test = fold != one, fold == one
        known = TargetEncoder(smooth=ratio_of_variances(g[train], y[train])).fit(x[train], y[train])
        expected[test] = known.transform(x[test])[:, 0]
    np.testing.assert_allclose(ours[:, 0], expected, rtol=1e-6)


def test_nested_columns_are_the_blups_of_dense_algebra() -> None:
    frame, y = nested()
    encoder = PartialPoolingEncoder([("region", "city")], remainder="drop").fit(frame, y)
    found = encoder.encodings_[0][0]
    a, b = pd.get_dummies(frame["region"]), pd.get_dummies(frame["region"] + frame["city"])
    z = np.hstack([a, b]).astype(float)
    variance = np.repeat(found.sds**2, [a.shape[1], b.shape[1]])
    v = z @ np.diag(variance) @ z.T + found.sigma**2 * np.eye(len(y))
    solve = np.linalg.solve(v, np.column_stack([np.ones(len(y)), y]))
    mean = solve[:, 1].sum() / solve[:, 0].sum()
    effects = variance * (z.T @ np.linalg.solve(v, y - mean))
    rows = encoder.transform(frame)
    np.testing.assert_allclose(rows.iloc[:, 0], mean + z @ effects, rtol=1e-8)
    new = pd.DataFrame({"region": ["r3", "nowhere", "r3"], "city": ["new", "c0", None], "x": 0.0})
    region = mean + effects[list(a.columns).index("r3")]
    np.testing.assert_allclose(encoder.transform(new).iloc[:, 0], [region, mean, region], rtol=1e-8)


def test_three_depths_fall_back_one_by_one() -> None:
    frame, y = nested(rows=900)
    frame["street"] = np.random.default_rng(5).integers(0, 4, len(y))
    y = y + np.random.default_rng(6).normal(size=(6, 4))[frame["city"].str[1:].astype(int), frame["street"]]
    encoder = PartialPoolingEncoder(["region/city/street"], remainder="drop").fit(frame, y)
    found, levels = encoder.encodings_[0][0], encoder.levels_[0]
    assert np.all(found.sds > 0) and list(encoder.get_feature_names_out()) == ["region/city/street"]
    new = pd.DataFrame({"region": ["r1"] * 3 + ["?"], "city": ["c0", "c0", "?", "c0"], "x": 0.0, "street": [2, 77, 2, 2]})
    expected = [
        found.values[2][levels.names(2).index(("r1", "c0", 2))],
        found.values[1][levels.names(1).index(("r1", "c0"))],
        found.values[0][levels.names(0).index(("r1",))],
        found.population,
    ]
    np.testing.assert_array_equal(encoder.transform(new).iloc[:, 0], expected)
    assert len(set(expected)) == 4


def test_classes_are_binomial_models_of_rows_and_new_levels_the_mean_over_all_levels() -> None:
    rng = np.random.default_rng(0)
    g = rng.integers(0, 15, 400)
    y = (rng.random(400) < expit(1.5 * rng.normal(size=15)[g] - 0.5)).astype(int)
    fit = ml.Model("y ~ 1 + (1 | g)", {"y": y, "g": g}, family="binomial").fit()
    encoder = PartialPoolingEncoder().fit(g[:, None], y)
    known = encoder.transform(np.arange(15)[:, None])[:, 0]
    np.testing.assert_allclose(known, fit.predict({"g": np.arange(15)})["prediction"], rtol=1e-5)
    sd = float(fit.varcorr()["sdcor"].iloc[0])
    z = np.linspace(-9, 9, 4001)
    population = np.trapezoid(expit(float(fit.fixef()["estimate"].iloc[0]) + sd * z) * norm.pdf(z), z)
    assert encoder.transform([[99]])[0, 0] == pytest.approx(population, rel=1e-5)
    logits = PartialPoolingEncoder(scale="link").fit(g[:, None], y).transform(np.arange(15)[:, None])[:, 0]
    np.testing.assert_allclose(expit(logits), known, rtol=1e-8)


def test_each_of_several_classes_has_a_column_of_its_own() -> None:
    rng = np.random.default_rng(2)
    g = rng.integers(0, 10, 500)
    y = np.array(["a", "b", "c"])[(rng.random(500) + g / 10).astype(int)]
    y[:20] = "c"
    encoder = PartialPoolingEncoder(["g"]).fit(pd.DataFrame({"g": g}), y)
    assert list(encoder.get_feature_names_out()) == ["g_a", "g_b", "g_c"]
    for at, label in enumerate("abc"):
        alone = PartialPoolingEncoder().fit(g[:, None], (y == label).astype(int))
        np.testing.assert_allclose(
            encoder.transform(pd.DataFrame({"g": range(10)})).iloc[:, at], alone.transform(np.arange(10)[:, None])[:, 0]
        )


def test_counts_are_encoded_on_their_scale_and_new_levels_as_the_lognormal_mean() -> None:
    rng = np.random.default_rng(4)
    g = rng.integers(0, 20, 500)
    y = rng.poisson(np.exp(1 + rng.normal(size=20)[g]))
    fit = ml.Model("y ~ 1 + (1 | g)", {"y": y, "g": g}, family="poisson").fit()
    encoder = PartialPoolingEncoder(family="poisson").fit(g[:, None], y)
    np.testing.assert_allclose(encoder.transform([[3]])[0], fit.predict({"g": [3]})["prediction"], rtol=1e-6)
    mean = np.exp(fit.fixef()["estimate"].iloc[0] + fit.varcorr()["sdcor"].iloc[0] ** 2 / 2)
    assert encoder.transform([[99]])[0, 0] == pytest.approx(mean, rel=1e-6)


# ---- no leak ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["continuous", "binary", "multiclass"])
def test_a_rows_own_target_is_not_in_its_features(target: str) -> None:
    frame, y = nested(rows=200)
    if target != "continuous":
        y = np.digitize(y, [0] if target == "binary" else [-1, 1])
    paths: list[Any] = ["region", ("region", "city")]
    before = PartialPoolingEncoder(paths, remainder="drop").fit_transform(frame, y).to_numpy()
    for row in (0, 57, 199):
        other = y.copy()
        other[row] = y[row] + 50 if target == "continuous" else (y[row] + 1) % (y.max() + 1)
        after = PartialPoolingEncoder(paths, remainder="drop").fit_transform(frame, other).to_numpy()
        np.testing.assert_array_equal(after[row], before[row])
        assert np.any(after != before)  # others do see it
        whole = [PartialPoolingEncoder(paths, remainder="drop").fit(frame, one).transform(frame) for one in (y, other)]
        assert np.any(whole[0].iloc[row] != whole[1].iloc[row])  # so does the encoding without cross-fitting


def test_a_column_without_meaning_does_not_predict() -> None:
    rng = np.random.default_rng(8)
    g, y = rng.integers(0, 150, 400)[:, None], rng.normal(size=400)
    encoded = PartialPoolingEncoder().fit_transform(g, y)[:, 0]
    assert abs(np.corrcoef(encoded, y)[0, 1]) < 0.15
    naive = TargetEncoder(smooth=0.0).fit(g, y).transform(g)[:, 0]
    assert np.corrcoef(naive, y)[0, 1] > 0.5  # what a leak looks like


# ---- where variances cannot be told -----------------------------------------------------------------------------------


def test_levels_of_one_row_each_have_the_mean_of_all() -> None:
    y = np.random.default_rng(0).normal(size=30)
    found = PartialPoolingEncoder().fit(np.arange(30)[:, None], y).transform([[0], [7], [99]])
    np.testing.assert_allclose(found[:, 0], y.mean())


def test_a_city_for_each_region_is_its_region() -> None:
    frame, y = nested()
    frame["capital"] = "capital of " + frame["region"]
    alone = PartialPoolingEncoder(["region"], remainder="drop").fit(frame, y).transform(frame)
    both = PartialPoolingEncoder(["region/capital"], remainder="drop").fit(frame, y).transform(frame)
    np.testing.assert_array_equal(alone.to_numpy(), both.to_numpy())


def test_a_target_that_levels_explain_exactly_is_not_smoothed() -> None:
    g = np.repeat(np.arange(5), [3, 4, 5, 6, 2])
    y = np.array([1.0, 4.0, 9.0, 16.0, 20.0])[g]
    for noise in (0.0, 1e-7):
        encoder = PartialPoolingEncoder(target_type="continuous").fit(g[:, None], y + noise * (np.arange(20) % 2))
        np.testing.assert_allclose(encoder.transform(np.array([[0], [3], [9]]))[:, 0], [1, 16, 10], rtol=1e-6)


def test_one_class_in_the_training_rows_of_a_fold_stays_finite() -> None:
    x, y = np.repeat([0, 1], 10)[:, None], np.r_[1, np.zeros(19, dtype=int)]
    found = PartialPoolingEncoder(scale="link", cv=10).fit_transform(x, y)
    assert np.isfinite(found).all() and found[0, 0] == pytest.approx(np.log(0.5 / 18.5))


def test_variances_that_rows_hardly_tell_are_warned_of() -> None:
    g, y = np.array([2, 1, 1, 0, 2, 1]), np.array([1, 0, 1, 0, 1, 0])
    with pytest.warns(ConvergenceWarning, match="levels of 'x0'") as caught:
        PartialPoolingEncoder().fit(g[:, None], y)
    assert len(caught) == 1


# ---- missing values, frames, tools ------------------------------------------------------------------------------------


def test_a_missing_value_is_unknown_or_a_level_of_its_own() -> None:
    g, y = balanced()
    text = pd.Series([f"g{i}" for i in g], dtype=object)
    text[g == 4] = None
    frame = pd.DataFrame({"g": text})
    unknown = PartialPoolingEncoder().fit(frame, y)
    kept = (g != 4)
    without = PartialPoolingEncoder().fit(frame[kept], y[kept])
    np.testing.assert_array_equal(unknown.transform(frame).to_numpy(), without.transform(frame).to_numpy())
    assert unknown.transform(frame).iloc[4, 0] == unknown.encodings_[0][0].population
    level = PartialPoolingEncoder(missing="level").fit(frame, y).transform(frame)
    named = PartialPoolingEncoder().fit(g[:, None], y).transform(g[:, None])
    np.testing.assert_allclose(level.to_numpy(), named, rtol=1e-9)


@pytest.mark.parametrize("kind", ["pandas", "categorical", "polars", "pyarrow"])
def test_frames_come_back_in_their_library(kind: str) -> None:
    frame, y = nested(rows=200)
    expected = PartialPoolingEncoder(["region/city"]).fit(frame, y).transform(frame)
    made: Any = {
        "pandas": lambda: frame.set_axis(np.arange(200) + 7),
        "categorical": lambda: frame.astype({"city": "category"}),
        "polars": lambda: pl.from_pandas(frame),
        "pyarrow": lambda: pa.Table.from_pandas(frame, preserve_index=False),
    }[kind]()
    found = PartialPoolingEncoder(["region/city"]).fit(made, y).transform(made)
    assert type(found) is type(made)
    names = found.column_names if kind == "pyarrow" else list(found.columns)
    assert names == ["region/city", "x"] == list(expected.columns)
    np.testing.assert_allclose(np.asarray(found["region/city"]), expected["region/city"], rtol=1e-12)
    np.testing.assert_array_equal(np.asarray(found["x"]), frame["x"])
    if kind == "pandas":
        assert list(found.index) == list(made.index)


def test_arrays_of_texts_and_numbers() -> None:
    frame, y = nested(rows=200)
    given = frame.to_numpy()
    found = PartialPoolingEncoder([(0, 1)]).fit(given, y).transform(given)
    expected = PartialPoolingEncoder(["region/city"]).fit(frame, y).transform(frame)
    np.testing.assert_array_equal(found.astype(float), expected.to_numpy())
    framed = PartialPoolingEncoder([(0, 1)]).set_output(transform="polars").fit(given, y).transform(given)
    assert isinstance(framed, pl.DataFrame) and framed.columns == ["x0/x1", "x2"]


def test_in_a_pipeline_with_groups_left_out() -> None:
    frame, y = nested()
    pipeline = make_pipeline(PartialPoolingEncoder(["region", "region/city"]), LinearRegression())
    by_rows = cross_val_score(clone(pipeline), frame, y, cv=KFold(5, shuffle=True, random_state=0))
    by_region = cross_val_score(pipeline, frame, y, cv=GroupKFold(4), groups=frame["region"])
    assert by_rows.mean() > 0.6 > by_region.mean()  # a new region is not known


def test_pickled_and_cloned_it_encodes_the_same() -> None:
    frame, y = nested(rows=200)
    encoder = PartialPoolingEncoder(["region/city"]).fit(frame, y)
    pd.testing.assert_frame_equal(pickle.loads(pickle.dumps(encoder)).transform(frame), encoder.transform(frame))
    pd.testing.assert_frame_equal(clone(encoder).fit(frame, y).transform(frame), encoder.transform(frame))


def test_the_table_of_levels() -> None:
    frame, y = nested()
    encoder = PartialPoolingEncoder(["region/city"]).fit(frame, y)
    table = encoder.encoding_table()
    assert list(table["depth"].value_counts().sort_index()) == [1, 8, len(frame.groupby(["region", "city"]))]
    line = table[table["level"] == ("r2", "c1")].iloc[0]
    row = frame[(frame["region"] == "r2") & (frame["city"] == "c1")].iloc[[0]]
    assert line["encoding"] == encoder.transform(row).iloc[0, 0]


def test_columns_without_names_are_numbered_and_passed_through() -> None:
    frame, y = nested(rows=100)
    bare = frame.set_axis(range(frame.shape[1]), axis=1)
    named = PartialPoolingEncoder(["region"]).fit_transform(frame, y)
    encoder = PartialPoolingEncoder([list(frame).index("region")])
    found = encoder.fit_transform(bare, y)
    assert found.shape == named.shape == frame.shape
    np.testing.assert_array_equal(found.iloc[:, 0], named["region"])
    assert list(found) == list(encoder.get_feature_names_out())


def test_names_that_come_out_differ_and_are_those_of_the_frame() -> None:
    frame, y = nested(rows=100)
    frame["region/city"] = 1.0
    encoder = PartialPoolingEncoder([("region", "city")])
    found = encoder.fit_transform(frame, y)
    assert list(found) == list(encoder.get_feature_names_out()) and found["region/city_given"].eq(1.0).all()
    with pytest.raises(OptionError, match="by a column and a path"):
        PartialPoolingEncoder(["region/city", ("region", "city")]).fit(frame, y)


# ---- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"columns": ["citty"]}, ColumnError, "did you mean 'city'"),
        ({"columns": ["region/citty"]}, ColumnError, "did you mean 'city'"),
        ({"columns": [9]}, ColumnError, "X has 3 columns"),
        ({"columns": "city"}, OptionError, "must be a list"),
        ({"columns": []}, OptionError, "one column at least"),
        ({"columns": ["city", "city"]}, OptionError, "none twice"),
        ({"columns": [("city", "city")]}, OptionError, "none twice"),
        ({"family": "gauss"}, OptionError, "family='gauss' is not known"),
        ({"scale": "log"}, OptionError, "'response', 'link'"),
        ({"missing": "drop"}, OptionError, "'population', 'level'"),
        ({"remainder": "keep"}, OptionError, "'passthrough', 'drop'"),
        ({"target_type": "number"}, OptionError, "'continuous'"),
        ({"cv": [([0, 1], [2, 3])]}, OptionError, "each row into one test fold"),
        ({"family": "binomial", "target_type": "continuous"}, DataError, "zeros and ones"),
        ({"target_type": "binary"}, DataError, "classes"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    frame, y = nested(rows=60)
    with pytest.raises(error, match=message):
        PartialPoolingEncoder(**options).fit_transform(frame, y)


def test_targets_that_are_refused() -> None:
    frame, y = nested(rows=200)
    with pytest.raises(DataError, match="which may be amounts or classes"):
        PartialPoolingEncoder(["city"]).fit(frame, np.arange(200))
    with pytest.raises(DataError, match="where a number is needed"):
        PartialPoolingEncoder(["city"], target_type="continuous").fit(frame, np.array(["a", "b"] * 100))
    with pytest.raises(ValueError, match="NaN"):
        PartialPoolingEncoder(["city"]).fit(frame, np.r_[np.nan, y[1:]])
    with pytest.raises(ValueError, match="inconsistent"):
        PartialPoolingEncoder(["city"]).fit(frame, y[1:])
    encoder = PartialPoolingEncoder(["city"]).fit(frame, y)
    with pytest.raises(ValueError, match="feature names"):
        encoder.transform(frame.rename(columns={"x": "z"}))
    labels = np.array(["a", "b"] * 100, dtype=object)
    labels[7] = None
    with pytest.raises(DataError, match="misses its value in row 7"):
        PartialPoolingEncoder(["city"]).fit(frame, labels)


def test_what_is_refused_before_any_fit() -> None:
    frame, y = nested(rows=60)
    with pytest.raises(DataError, match="stands more than once in X"):
        PartialPoolingEncoder(["city"]).fit(pd.concat([frame, frame], axis=1), y)
    with pytest.raises(OptionError, match="give the folds themselves"):
        PartialPoolingEncoder(["city"], cv=GroupKFold(3)).fit_transform(frame, y)
    objects = PartialPoolingEncoder(["city"]).fit_transform(frame, y.astype(object))
    pd.testing.assert_frame_equal(objects, PartialPoolingEncoder(["city"]).fit_transform(frame, y))
