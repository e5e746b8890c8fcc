"""MultilevelRegressor and MultilevelClassifier: the model's own answers, in scikit-learn's tools."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy.special import expit
from sklearn.base import clone
from sklearn.dummy import DummyRegressor
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

import multilevel as ml
from multilevel.errors import ColumnError, DataError, OptionError

EXACT = {"check_regressors_no_decision_function": "its y is a column of X: no variance is left to model, which is refused"}


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(
    [ml.MultilevelRegressor(), ml.MultilevelRegressor(estimate="sample"), ml.MultilevelClassifier(estimate="sample")],
    expected_failed_checks=lambda one: EXACT if isinstance(one, ml.MultilevelRegressor) else {},
)  # the classifier by its posterior: the checks' classes are separable, where maximum likelihood has no estimate
def test_contract_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


PUPILS = ml.load("math10")
FORMULA = "math ~ homework + (homework | schid)"


def binary(seed: int = 0, rows: int = 300) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"x": rng.normal(size=rows), "g": rng.integers(0, 12, rows)})
    return frame, rng.random(rows) < expit(frame["x"] + rng.normal(size=12)[frame["g"]])


def test_it_is_the_model() -> None:
    fit = ml.Model(FORMULA, PUPILS).fit()
    ours = ml.MultilevelRegressor(FORMULA).fit(PUPILS, PUPILS["math"])
    np.testing.assert_allclose(ours.predict(PUPILS), fit.predict()["prediction"], rtol=1e-10)
    assert ours.fit_.loglik == pytest.approx(fit.loglik, rel=1e-12)
    new = PUPILS.iloc[[0, 100]].assign(schid=[PUPILS["schid"].iloc[0], 999999])
    np.testing.assert_allclose(ours.predict(new), fit.predict(new, new_levels="population")["prediction"], rtol=1e-10)
    expected = fit.predict(new, new_levels="population", interval="prediction")
    np.testing.assert_allclose(ours.predict_interval(new), expected[["conf_low", "conf_high"]], rtol=1e-8)
    maximum = ml.MultilevelRegressor(FORMULA, reml=False).fit(PUPILS, PUPILS["math"])
    assert maximum.fit_.loglik == pytest.approx(ml.Model(FORMULA, PUPILS).fit(reml=False).loglik, rel=1e-12)


@pytest.mark.parametrize("formula", ["~ homework + (homework | schid)", "score ~ homework + (homework | schid)"])
def test_y_is_the_response_whatever_its_name(formula: str) -> None:
    x = PUPILS[["homework", "schid"]]
    expected = ml.MultilevelRegressor(FORMULA).fit(PUPILS, PUPILS["math"]).predict(PUPILS)
    np.testing.assert_array_equal(ml.MultilevelRegressor(formula).fit(x, PUPILS["math"]).predict(x), expected)


def test_the_response_among_the_columns_is_not_looked_at() -> None:
    y = PUPILS["math"] + np.random.default_rng(0).normal(size=len(PUPILS))
    seen = ml.MultilevelRegressor(FORMULA).fit(PUPILS, y).predict(PUPILS)
    np.testing.assert_array_equal(seen, ml.MultilevelRegressor(FORMULA).fit(PUPILS.assign(math=0.0), y).predict(PUPILS))


def test_groups_in_place_of_a_formula_and_other_containers() -> None:
    x, y = PUPILS[["homework", "schid"]], PUPILS["math"]
    expected = ml.Model("math ~ homework + (1 | schid)", PUPILS).fit().predict()["prediction"]
    for given, groups in ((x, ["schid"]), (pl.from_pandas(x), ["schid"]), (x.to_numpy(), [1]), (x.to_numpy(), ["x1"])):
        found = ml.MultilevelRegressor(groups=groups).fit(given, y.to_numpy())
        np.testing.assert_allclose(found.predict(given), expected, rtol=1e-9)
    numbered = x.set_axis([0, 1], axis=1)
    np.testing.assert_allclose(
        ml.MultilevelRegressor("~ x0 + (1 | x1)").fit(numbered, y).predict(numbered), expected, rtol=1e-9
    )


def test_groups_left_out_are_predicted_by_the_population() -> None:
    model = ml.MultilevelRegressor("~ homework + (homework | schid)")
    scores = cross_val_score(
        model, PUPILS, PUPILS["math"], cv=GroupKFold(5), groups=PUPILS["schid"], scoring="neg_root_mean_squared_error"
    )
    expected = []
    for train, test in GroupKFold(5).split(PUPILS, groups=PUPILS["schid"]):
        fit = ml.Model(FORMULA, PUPILS.iloc[train]).fit()
        error = PUPILS["math"].iloc[test].to_numpy() - fit.predict(PUPILS.iloc[test], groups=None)["prediction"].to_numpy()
        expected.append(-np.sqrt(np.mean(error**2)))
    np.testing.assert_allclose(scores, expected, rtol=1e-8)
    with pytest.raises(DataError):
        clone(model).set_params(new_levels="error").fit(PUPILS[PUPILS["schid"] != 7472], PUPILS["math"][
            PUPILS["schid"] != 7472]).predict(PUPILS)


def test_in_pipelines_and_searches() -> None:
    centred = FunctionTransformer(lambda frame: frame.assign(homework=frame["homework"] - 2))
    pipeline = make_pipeline(centred, ml.MultilevelRegressor("~ homework + (homework | schid)"))
    plain = ml.MultilevelRegressor("~ homework + (homework | schid)").fit(PUPILS, PUPILS["math"])
    np.testing.assert_allclose(
        pipeline.fit(PUPILS, PUPILS["math"]).predict(PUPILS), plain.predict(PUPILS), rtol=1e-6
    )
    formulas = ["~ homework", "~ homework + (1 | schid)", "~ homework + (homework | schid)"]
    folds = KFold(5, shuffle=True, random_state=0)
    search = GridSearchCV(ml.MultilevelRegressor(), {"formula": formulas}, cv=folds).fit(PUPILS, PUPILS["math"])
    means = search.cv_results_["mean_test_score"]
    assert means[0] < means[1] < means[2] and search.best_params_ == {"formula": formulas[2]}
    assert cross_val_score(DummyRegressor(), PUPILS, PUPILS["math"], cv=folds).mean() < means[0]


def test_counts_and_options_of_the_model() -> None:
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"x": rng.normal(size=200), "g": rng.integers(0, 10, 200), "w": rng.uniform(1, 2, 200)})
    y = rng.poisson(np.exp(frame["x"] / 2 + rng.normal(size=10)[frame["g"]]))
    fit = ml.Model("y ~ x + (1 | g)", frame.assign(y=y), family="poisson").fit()
    found = ml.MultilevelRegressor("~ x + (1 | g)", family="poisson").fit(frame, y)
    np.testing.assert_allclose(found.predict(frame), fit.predict(frame)["prediction"], rtol=1e-7)
    weighted = ml.MultilevelRegressor("~ x + (1 | g)", options={"weights": "w"}).fit(frame, y)
    expected = ml.Model("y ~ x + (1 | g)", frame.assign(y=y), weights="w").fit().predict(frame)["prediction"]
    np.testing.assert_allclose(weighted.predict(frame), expected, rtol=1e-9)


def test_posterior_means() -> None:
    model = ml.MultilevelRegressor("~ homework + (1 | schid)", estimate="sample", random_state=1)
    model.fit(PUPILS, PUPILS["math"])
    assert isinstance(model.fit_, ml.Posterior)
    np.testing.assert_array_equal(model.predict(PUPILS), model.fit_.predict(PUPILS)["prediction"])
    by_reml = ml.MultilevelRegressor("~ homework + (1 | schid)").fit(PUPILS, PUPILS["math"]).predict(PUPILS)
    assert np.abs(model.predict(PUPILS) - by_reml).max() < 1


def test_two_classes_are_a_binomial_model() -> None:
    frame, y = binary()
    fit = ml.Model("y ~ x + (1 | g)", frame.assign(y=y.astype(int)), family="binomial").fit()
    found = ml.MultilevelClassifier("~ x + (1 | g)").fit(frame, np.where(y, "yes", "no"))
    assert list(found.classes_) == ["no", "yes"]
    expected = fit.predict(frame)["prediction"].to_numpy()
    np.testing.assert_allclose(found.predict_proba(frame), np.column_stack([1 - expected, expected]), rtol=1e-6)
    np.testing.assert_array_equal(found.predict(frame), np.where(expected > 0.5, "yes", "no"))


def test_several_classes_each_against_the_rest_or_in_order() -> None:
    frame, _ = binary(rows=900)
    rng = np.random.default_rng(1)
    y = np.digitize(frame["x"] + 2 * rng.normal(size=12)[frame["g"]] + rng.logistic(size=900), [-1, 1])
    found = ml.MultilevelClassifier("~ x + (1 | g)").fit(frame, y)
    alone = [
        ml.Model("y ~ x + (1 | g)", frame.assign(y=(y == one).astype(int)), family="binomial").fit().predict(frame)
        for one in range(3)
    ]
    parts = np.column_stack([table["prediction"] for table in alone])
    np.testing.assert_allclose(found.predict_proba(frame), parts / parts.sum(axis=1, keepdims=True), rtol=1e-6)
    ordered = ml.MultilevelClassifier("~ x + (1 | g)", family="ordinal").fit(frame, np.array(["a", "b", "c"])[y])
    fit = ml.Model("y ~ x + (1 | g)", frame.assign(y=y), family="ordinal").fit()
    np.testing.assert_allclose(ordered.predict_proba(frame), fit.predict(frame), rtol=1e-6)
    assert set(ordered.predict(frame)) <= {"a", "b", "c"}


@pytest.mark.parametrize("estimate", ["fit", "sample"])
def test_pickled_they_predict_the_same(estimate: str) -> None:
    frame, y = binary()
    model = ml.MultilevelClassifier("~ x + (1 | g)", estimate=estimate).fit(frame, y)
    new = frame.assign(g=frame["g"] + 3)  # some unknown
    np.testing.assert_allclose(pickle.loads(pickle.dumps(model)).predict_proba(new), model.predict_proba(new), rtol=1e-9)
    assert not hasattr(clone(model), "fits_")


def test_rows_that_miss_values() -> None:
    frame = PUPILS[["homework", "schid"]].astype({"homework": float})
    frame.loc[5, "homework"] = np.nan
    with pytest.raises(DataError):
        ml.MultilevelRegressor(groups=["schid"]).fit(frame, PUPILS["math"])
    fitted = ml.MultilevelRegressor(groups=["schid"]).fit(PUPILS[["homework", "schid"]], PUPILS["math"])
    with pytest.raises(DataError, match="row 5 of X"):
        fitted.predict(frame)
    with pytest.warns(ml.MissingRowsWarning):
        dropped = ml.MultilevelRegressor(groups=["schid"], missing="drop").fit(frame, PUPILS["math"])
    assert list(np.flatnonzero(np.isnan(dropped.predict(frame)))) == [5]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"formula": "log(math) ~ homework"}, OptionError, "TransformedTargetRegressor"),
        ({"formula": "~ homwork + (1 | schid)"}, ColumnError, "did you mean 'homework'"),
        ({"formula": 3}, OptionError, "must be a text"),
        ({"formula": FORMULA, "groups": ["schid"]}, OptionError, "not both"),
        ({"groups": "schid"}, OptionError, "must be a list"),
        ({"groups": ["school"]}, OptionError, "'school' is not a column"),
        ({"family": "binomial"}, OptionError, "family='binomial' is not known"),
        ({"estimate": "mcmc"}, OptionError, "'fit', 'sample'"),
        ({"new_levels": "sample"}, OptionError, "'population', 'error'"),
        ({"missing": "ignore"}, OptionError, "'raise', 'drop'"),
        ({"formula": FORMULA, "options": {"family": "poisson"}}, OptionError, "an argument of MultilevelRegressor"),
        ({"formula": FORMULA, "options": {"wieghts": "homework"}}, OptionError, "weights"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ml.MultilevelRegressor(**options).fit(PUPILS, PUPILS["math"])


def test_targets_that_are_refused() -> None:
    frame, y = binary()
    with pytest.raises(DataError, match="MultilevelClassifier"):
        ml.MultilevelRegressor("~ x").fit(frame, np.where(y, "yes", "no"))
    with pytest.raises(DataError, match="one class only"):
        ml.MultilevelClassifier("~ x").fit(frame, np.zeros(300, dtype=int))
    with pytest.raises(DataError, match="separation"):
        ml.MultilevelClassifier("~ x").fit(frame, frame["x"] > 0)
