"""Cross-validation of linear models against loops by hand and dense matrices; ways to leave out, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from cross_validation_samples import clustered, rows_of, schools
from scipy import integrate, stats

import multilevel as ml

FORMULA = "math ~ homework + (homework | schid)"


@pytest.fixture(scope="module")
def by_row() -> Any:
    return ml.cross_validate({"partial": ml.Model(FORMULA, schools())}, folds=5, seed=1, baselines=True)


@pytest.fixture(scope="module")
def by_school() -> Any:
    return ml.cross_validate({"partial": ml.Model(FORMULA, schools())}, leave="groups", seed=1, baselines=True)


def crps_by_integral(y: float, cdf: Any, low: float, high: float) -> float:
    """The definition: the integral of the squared distance between the distribution function and the step at y."""
    below = integrate.quad(lambda t: cdf(t) ** 2, low, y, epsabs=1e-11)[0]
    return float(below + integrate.quad(lambda t: (1 - cdf(t)) ** 2, y, high, epsabs=1e-11)[0])


# -- linear models: rows ----------------------------------------------------------------------------------------------


def test_rows_left_out_against_a_loop_by_hand(by_row: Any) -> None:
    data = schools()
    found = rows_of(by_row, "partial")
    assert found["row"].tolist() == list(range(len(data)))
    errors = []
    for fold in range(1, 6):
        out = (found["fold"] == fold).to_numpy()
        fit = ml.Model(FORMULA, data[~out]).fit()
        new = fit.predict(data[out], interval="prediction")
        normal = stats.norm(new["prediction"], new["std_error"])
        y = data.loc[out, "math"].to_numpy()
        np.testing.assert_allclose(found.loc[out, "prediction"], new["prediction"], rtol=1e-8)
        np.testing.assert_allclose(found.loc[out, "log_score"], normal.logpdf(y), rtol=1e-8)
        errors.append(y - new["prediction"].to_numpy())
        mean, sd = new["prediction"].iloc[0], new["std_error"].iloc[0]
        exact = crps_by_integral(y[0], stats.norm(mean, sd).cdf, mean - 12 * sd, mean + 12 * sd)
        assert found.loc[out, "crps"].iloc[0] == pytest.approx(exact, rel=1e-7)
    e = np.concatenate(errors)
    summary = by_row.summary().set_index("model").loc["partial"]
    assert summary["rmse"] == pytest.approx(np.sqrt(np.mean(e**2)), rel=1e-9)
    assert summary["mae"] == pytest.approx(np.mean(np.abs(e)), rel=1e-9)
    assert summary["mae_se"] == pytest.approx(np.abs(e).std(ddof=1) / np.sqrt(len(e)), rel=1e-9)
    assert summary["log_score"] == pytest.approx(found["log_score"].mean(), rel=1e-12)


def test_folds_are_even_and_the_seed_decides() -> None:
    model = ml.Model("math ~ homework + (1 | schid)", schools())
    results = [ml.cross_validate(model, folds=7, seed=s) for s in (3, 3, 4)]
    sizes = np.bincount(results[0].folds.fold)
    assert sizes.max() - sizes.min() <= 1 and sizes.sum() == 260
    np.testing.assert_array_equal(results[0].folds.fold, results[1].folds.fold)
    assert not np.array_equal(results[0].folds.fold, results[2].folds.fold)


def test_baselines_are_least_squares(by_row: Any) -> None:
    data = schools()
    pooled, apart = rows_of(by_row, "complete pooling"), rows_of(by_row, "no pooling")
    out = (pooled["fold"] == 2).to_numpy()
    train, new = data[~out], data[out]
    slope, intercept = np.polyfit(train["homework"], train["math"], 1)
    np.testing.assert_allclose(pooled.loc[out, "prediction"], intercept + slope * new["homework"], rtol=1e-9)
    for school, own in train.groupby("schid"):
        slope, intercept = np.polyfit(own["homework"], own["math"], 1)
        here = out & (data["schid"] == school).to_numpy()
        np.testing.assert_allclose(apart.loc[here, "prediction"], intercept + slope * data.loc[here, "homework"], rtol=1e-8)


def test_the_ten_schools_show_what_pooling_gains(by_row: Any, by_school: Any) -> None:
    """Known schools: near to no pooling, far better than one line; new schools: one line lacks the schools' spread."""
    rows = by_row.compare("partial").query("score == 'log_score'").set_index("other")
    assert rows.loc["complete pooling", "advantage"] > 5 * rows.loc["complete pooling", "std_error"] > 0
    assert abs(rows.loc["no pooling", "advantage"]) < 0.05
    groups = by_school.compare("partial").query("score == 'joint_log_score'").set_index("other")
    assert groups.loc["complete pooling", "advantage"] > 2 * groups.loc["complete pooling", "std_error"] > 0
    assert groups.loc["no pooling", "n"] == 0 and np.isnan(groups.loc["no pooling", "advantage"])
    assert "cannot predict 260 of the 260" in repr(by_school)


# -- linear models: groups --------------------------------------------------------------------------------------------


def test_joint_score_of_a_school_against_the_dense_density(by_school: Any) -> None:
    data = schools()
    table = by_school.by_group().query("model == 'partial'").set_index("group")
    marginal = rows_of(by_school, "partial")
    for school in (7472, 62821):
        out = (data["schid"] == school).to_numpy()
        train, new = data[~out], data[out]
        fit = ml.Model(FORMULA, train).fit()
        cov = fit.varcorr()
        s0, s1, c = (cov["vcov"].iloc[i] for i in range(3))
        between = np.array([[s0, c], [c, s1]])
        X, x = (np.column_stack([np.ones(len(f)), f["homework"]]) for f in (train, new))
        same = train["schid"].to_numpy()[:, None] == train["schid"].to_numpy()
        V = np.where(same, X @ between @ X.T, 0) + fit.sigma**2 * np.eye(len(X))
        W = np.linalg.inv(V)
        of_beta = np.linalg.inv(X.T @ W @ X)
        beta = of_beta @ X.T @ W @ train["math"].to_numpy()
        total = x @ (of_beta + between) @ x.T + fit.sigma**2 * np.eye(len(x))
        exact = stats.multivariate_normal(x @ beta, total).logpdf(new["math"])
        assert table.loc[school, "joint_log_score"] == pytest.approx(exact, rel=1e-7)
        own = stats.norm(x @ beta, np.sqrt(np.diag(total))).logpdf(new["math"])
        np.testing.assert_allclose(marginal.loc[out, "log_score"], own, rtol=1e-7)
    summary = by_school.summary().set_index("model").loc["partial"]
    scores = table["joint_log_score"]
    assert summary["joint_log_score"] == pytest.approx(scores.mean(), rel=1e-12)
    assert summary["joint_log_score_se"] == pytest.approx(scores.std() / np.sqrt(10), rel=1e-12)


def test_standard_errors_of_rows_go_by_group_where_groups_were_left_out(by_school: Any) -> None:
    rows = rows_of(by_school, "partial")
    rest = (rows["crps"] - rows["crps"].mean()).groupby(rows["group"]).sum().to_numpy()
    expected = np.sqrt(10 / 9 * (rest**2).sum()) / 260
    assert by_school.summary().set_index("model").loc["partial", "crps_se"] == pytest.approx(expected, rel=1e-10)


def test_joint_score_with_known_crossed_groups_and_weights() -> None:
    """A plate is new, its samples are known: their effects as estimated, whose errors go together."""
    data = ml.load("penicillin")
    y, plate, sample = data.columns[0], "plate", "sample"
    rng = np.random.default_rng(5)
    data = data.assign(w=rng.uniform(0.5, 2, len(data)))
    formula = f"{y} ~ 1 + (1 | {plate}) + (1 | {sample})"
    result = ml.cross_validate(ml.Model(formula, data, weights="w"), leave="plate", folds="all", seed=1)
    table = result.by_group().set_index("group")
    assert len(table) == 24
    for label in list(table.index)[:3]:
        out = (data[plate] == label).to_numpy()
        train = data[~out].copy()
        fit = ml.Model(formula, train, weights="w").fit()
        s2 = fit.varcorr().set_index("group")["vcov"]
        P = data[plate].astype(str).to_numpy()
        S = data[sample].astype(str).to_numpy()
        V = s2[plate] * (P[:, None] == P) + s2[sample] * (S[:, None] == S) + np.diag(fit.sigma**2 / data["w"])
        Vtt, Vot, Voo = V[np.ix_(~out, ~out)], V[np.ix_(out, ~out)], V[np.ix_(out, out)]
        W = np.linalg.inv(Vtt)
        one, yt = np.ones(len(Vtt)), train[y].to_numpy(float)
        of_beta = 1 / (one @ W @ one)
        beta = of_beta * (one @ W @ yt)
        mean = beta + Vot @ W @ (yt - beta)
        d = 1 - Vot @ W @ one
        cov = Voo - Vot @ W @ Vot.T + of_beta * np.outer(d, d)
        exact = stats.multivariate_normal(mean, cov).logpdf(data.loc[out, y])
        assert table.loc[label, "joint_log_score"] == pytest.approx(exact, rel=1e-6)


def test_joint_score_with_serially_correlated_residuals() -> None:
    data = ml.load("sleepstudy")
    formula = "Reaction ~ Days + (1 | Subject)"
    model = ml.Model(formula, data, correlation="ar1(1 | Subject)")
    result = ml.cross_validate(model, leave="groups", folds="all", seed=1)
    label = result.folds.units[4]
    out = (data["Subject"] == label).to_numpy()
    fit = ml.Model(formula, data[~out], correlation="ar1(1 | Subject)").fit()
    rho = float(fit.residual_structure()["estimate"].iloc[0])
    x = np.column_stack([np.ones(10), data.loc[out, "Days"]])
    lag = np.abs(np.subtract.outer(np.arange(10), np.arange(10)))
    cov = x @ fit.vcov() @ x.T + fit.varcorr()["vcov"].iloc[0] + fit.sigma**2 * rho**lag
    exact = stats.multivariate_normal(x @ fit.fixef()["estimate"].to_numpy(), cov).logpdf(data.loc[out, "Reaction"])
    found = result.by_group().set_index("group").loc[label, "joint_log_score"]
    assert found == pytest.approx(exact, rel=1e-6)
    assert any("neighbours" in m for m in ml.cross_validate(model, folds=3, seed=1).messages)


def test_a_new_group_with_a_known_covariance_to_the_others() -> None:
    """Its effect is predicted from theirs."""
    rng = np.random.default_rng(0)
    levels, A = list("abcdef"), 0.5 * np.eye(6) + 0.5
    data = pd.DataFrame({"g": np.repeat(levels, 8), "x": rng.standard_normal(48)})
    data["y"] = data["x"] + np.repeat(rng.standard_normal(6), 8) + rng.standard_normal(48)
    known = {"g": ml.KnownCovariance(levels, covariance=A)}
    result = ml.cross_validate(ml.Model("y ~ x + (1 | g)", data, covariance=known), leave="groups", seed=1)
    out = (data["g"] == "c").to_numpy()
    fit = ml.Model("y ~ x + (1 | g)", data[~out], covariance=known).fit()
    at = np.array([levels.index(one) for one in data["g"]])
    V = fit.varcorr()["vcov"].iloc[0] * A[np.ix_(at, at)] + fit.sigma**2 * np.eye(48)
    X, y = np.column_stack([np.ones(48), data["x"]]), data["y"].to_numpy()
    W = np.linalg.inv(V[np.ix_(~out, ~out)])
    of_beta = np.linalg.inv(X[~out].T @ W @ X[~out])
    beta = of_beta @ X[~out].T @ W @ y[~out]
    B = V[np.ix_(out, ~out)] @ W
    D = X[out] - B @ X[~out]
    cov = V[np.ix_(out, out)] - B @ V[np.ix_(~out, out)] + D @ of_beta @ D.T
    exact = stats.multivariate_normal(X[out] @ beta + B @ (y[~out] - X[~out] @ beta), cov).logpdf(y[out])
    found = result.by_group().set_index("group").loc["c", "joint_log_score"]
    assert found == pytest.approx(exact, rel=1e-7)


# -- ways to leave out ------------------------------------------------------------------------------------------------


def test_the_number_of_jobs_changes_nothing() -> None:
    model = ml.Model("y ~ x + (1 | g)", clustered("binomial"), family="binomial")
    one, two = (ml.cross_validate(model, leave="groups", folds=4, seed=5, n_jobs=jobs) for jobs in (1, 2))
    pd.testing.assert_frame_equal(one.by_row(), two.by_row(), rtol=1e-7)
    pd.testing.assert_frame_equal(one.by_group(), two.by_group(), rtol=1e-7)


def test_labels_of_ones_own_and_rows_that_are_always_fitted() -> None:
    data = schools()
    labels = np.where(data["homework"] > 3, "many", None)
    result = ml.cross_validate(ml.Model("math ~ homework + (1 | schid)", data), leave=labels)
    rows = result.by_row()
    few = (data["homework"] <= 3).to_numpy()
    assert rows["row"].tolist() == np.flatnonzero(~few).tolist() and set(rows["fold"]) == {"many"}
    fit = ml.Model("math ~ homework + (1 | schid)", data[few]).fit()
    np.testing.assert_allclose(rows["prediction"], fit.predict(data[~few])["prediction"], rtol=1e-8)


def test_any_column_can_be_left_out_and_missing_rows_stay_out() -> None:
    data = schools().astype({"math": float})
    data.loc[[3, 50], "math"] = np.nan
    with pytest.warns(ml.MissingRowsWarning):
        ml.Model(FORMULA, data).fit()
    result = ml.cross_validate(ml.Model(FORMULA, data), leave="region", folds="all")
    assert set(result.by_row()["row"]).isdisjoint({3, 50}) and len(result.by_row()) == 258
    assert set(result.folds.units) == set(data["region"])


def test_polars_in_polars_out() -> None:
    import polars as pl

    result = ml.cross_validate(ml.Model("Reaction ~ Days + (1 | Subject)", ml.load("sleepstudy", "polars")), folds=3, seed=1)
    other = ml.cross_validate(ml.Model("Reaction ~ Days + (1 | Subject)", ml.load("sleepstudy")), folds=3, seed=1)
    for table in (result.summary(), result.compare(), result.by_row(), result.by_fold()):
        assert isinstance(table, pl.DataFrame)
    assert result.summary()["rmse"][0] == pytest.approx(other.summary()["rmse"][0], rel=1e-8)
    assert "RMSE" in repr(result) and "<table>" in result._repr_html_()


def test_transforms_are_learnt_without_the_rows_left_out() -> None:
    data = schools()
    formula = "math ~ poly(homework, 2) + scale(ses) + (1 | schid)"
    offset = np.linspace(0, 3, len(data))
    result = ml.cross_validate(ml.Model(formula, data, offset=offset), folds=3, seed=1)
    rows = rows_of(result, formula)
    out = (rows["fold"] == 3).to_numpy()
    fit = ml.Model(formula, data[~out], offset=offset[~out]).fit()
    expected = fit.predict(data[out], offset=offset[out])["prediction"]
    np.testing.assert_allclose(rows.loc[out, "prediction"], expected, rtol=1e-8)


def test_a_group_without_enough_rows_has_no_prediction_unpooled() -> None:
    """One row is left of a group: its own line is not determined, whatever column was left out for it."""
    rng = np.random.default_rng(2)
    g = np.array([0, 0] + [1] * 10 + [2] * 10)
    data = pd.DataFrame({"x": rng.standard_normal(22), "g": g})
    data["y"] = data["x"] + rng.standard_normal(22)
    labels = np.array(["a", None] + ["b"] + [None] * 19, dtype=object)
    model = ml.Model("y ~ x + (1 | g)", data)
    apart = ml.Model("y ~ 0 + factor(g) + x:factor(g)", data)
    rows = ml.cross_validate({"partial": model, "apart": apart}, leave=labels).by_row().set_index(["model", "row"])
    assert np.isnan(rows.loc[("apart", 0), "log_score"]) and np.isfinite(rows.loc[("apart", 2), "log_score"])
    assert np.isfinite(rows.loc[("partial", 0), "log_score"])


def test_a_baseline_without_a_fit_has_no_scores_there() -> None:
    """Herds without a case are separated by coefficients of their own: that is what no pooling has to say of them."""
    text = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    model = ml.Model(text, ml.load("cbpp"), family="binomial")
    result = ml.cross_validate({"partial": model}, seed=1, baselines=True)
    assert any("'no pooling' has no fit in" in m and "separation" in m for m in result.messages)
    rows = result.summary().set_index("model")["rows"]
    assert rows["partial"] == 56 > rows["no pooling"]


def test_a_fit_says_its_criterion() -> None:
    fit = ml.Model("Reaction ~ Days + (1 | Subject)", ml.load("sleepstudy")).fit(reml=False)
    result = ml.cross_validate(fit, folds=3, seed=1)
    data, rows = ml.load("sleepstudy"), result.by_row()
    out = (rows["fold"] == 2).to_numpy()
    again = ml.Model("Reaction ~ Days + (1 | Subject)", data[~out]).fit(reml=False)
    new = again.predict(data[out], interval="prediction")
    exact = stats.norm(new["prediction"], new["std_error"]).logpdf(data.loc[out, "Reaction"])
    np.testing.assert_allclose(rows.loc[out, "log_score"], exact, rtol=1e-8)


def test_a_saved_fit_is_refitted_as_its_model(tmp_path: Any) -> None:
    model = ml.Model("Reaction ~ Days + (1 | Subject)", ml.load("sleepstudy"))
    fit = model.fit()
    fit.save(tmp_path / "kept.mlv", data=True)
    kept = ml.cross_validate(ml.read(tmp_path / "kept.mlv"), folds=3, seed=1).by_row()
    np.testing.assert_allclose(kept["log_score"], ml.cross_validate(model, folds=3, seed=1).by_row()["log_score"], rtol=1e-8)
    fit.save(tmp_path / "bare.mlv")
    with pytest.raises(ml.DataError, match="saved without its data"):
        ml.cross_validate(ml.read(tmp_path / "bare.mlv"))


def test_baselines_of_nested_groups_and_no_intercept() -> None:
    from multilevel.cross_validation_models import baselines_of, candidates

    nested = ml.Model("strength ~ 1 + (1 | batch/cask)", ml.load("pastes"))
    pooled, apart = baselines_of(candidates(nested)[0])
    assert len(pooled.model.design.names) == 1 and len(apart.model.design.names) == 30
    slopes = ml.Model("Reaction ~ Days + (0 + Days | Subject)", ml.load("sleepstudy"))
    pooled, apart = baselines_of(candidates(slopes)[0])
    assert pooled.model.design.names == ("Intercept", "Days") and len(apart.model.design.names) == 19


def test_a_response_that_its_own_rows_scale_is_refused() -> None:
    model = ml.Model("scale(Reaction) ~ Days + (1 | Subject)", ml.load("sleepstudy"))
    with pytest.raises(ml.OptionError, match="not the same on some of the rows"):
        ml.cross_validate(model, folds=3, seed=1)


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "error", "text"), [
    ({"leave": "rowz"}, ml.OptionError, "rows"),
    ({"leave": 3}, ml.OptionError, "leave must be"),
    ({"leave": [1, 2]}, ml.DataError, "180 rows"),
    ({"leave": [1] * 180}, ml.OptionError, "all rows into the one fold"),
    ({"leave": np.zeros((180, 2))}, ml.OptionError, "one label for each row"),
    ({"folds": 1}, ml.OptionError, "at least 2"),
    ({"folds": 181}, ml.OptionError, "only 180 rows"),
    ({"n_jobs": 0}, ml.OptionError, "n_jobs"),
    ({"baselines": "yes"}, ml.OptionError, "True or False"),
    ({"seed": "x"}, ml.OptionError, "seed"),
])  # fmt: skip
def test_bad_options(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        ml.cross_validate(ml.Model("Reaction ~ Days + (1 | Subject)", ml.load("sleepstudy")), **options)


def test_models_that_do_not_compare() -> None:
    data = ml.load("sleepstudy")
    model = ml.Model("Reaction ~ Days + (1 | Subject)", data)
    with pytest.raises(ml.DataError, match="one response only"):
        ml.cross_validate([model, ml.Model("log(Reaction) ~ Days + (1 | Subject)", data)])
    with pytest.raises(ml.DataError, match="not the same ones"):
        ml.cross_validate([model, ml.Model("Reaction ~ 1 + (1 | Subject)", data[5:])])
    with pytest.raises(ml.OptionError, match="two models are called"):
        ml.cross_validate([model, model])
    with pytest.raises(ml.OptionError, match="takes a Model"):
        ml.cross_validate("Reaction ~ Days")
    with pytest.raises(ml.OptionError, match="no random terms"):
        ml.cross_validate(ml.Model("Reaction ~ Days", data), baselines=True)
    with pytest.raises(ml.OptionError, match="has none; name a column"):
        ml.cross_validate(ml.Model("Reaction ~ Days", data), leave="groups")
    with pytest.raises(ml.OptionError, match="no model 'partail'"):
        ml.cross_validate({"partial": model}, folds=2, seed=1).compare("partail")
    with pytest.raises(ml.OptionError, match="by_row"):
        ml.cross_validate({"partial": model}, folds=2, seed=1).by_group()


def test_a_fold_that_cannot_be_fitted_is_named() -> None:
    data = pd.DataFrame({"y": np.arange(12.0) % 5, "g": [1] * 6 + [2] * 6})
    with pytest.raises(ml.DataError, match="g 1 left out"):
        ml.cross_validate(ml.Model("y ~ 1 + (1 | g)", data), leave="groups", folds="all")
