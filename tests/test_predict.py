"""Predictions and their intervals against hand computation, simulation, refits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from reference import Array
from scipy import stats
from shapes import chain, crossed, draw, one, quiet_fit, shape, twin

import multilevel as ml
from multilevel import ColumnError, DataError, Fit, Model, OptionError

SLEEP = ml.load("sleepstudy")
FORMULA = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def sleep() -> Fit:
    return Model(FORMULA, SLEEP).fit()


@pytest.fixture(scope="module")
def two() -> Fit:
    """Crossed, with slopes, all variances positive."""
    data = draw(200, crossed((14, 6), 200, seed=8), 8, effects=1.5)
    return quiet_fit(Model("y ~ x1 + x2 + (x1 | a) + (1 | b)", data))


def values(frame: Any, name: str = "prediction") -> Array:
    return np.asarray(frame[name], dtype=float)


# --- points


def test_fitted_rows(sleep: Fit) -> None:
    np.testing.assert_array_equal(values(sleep.predict()), sleep.fitted())
    np.testing.assert_allclose(values(sleep.predict(SLEEP)), sleep.fitted(), rtol=1e-13)
    np.testing.assert_allclose(values(sleep.predict(groups=None)), sleep.design.X @ sleep.optimum.beta, rtol=1e-14)


def test_known_new_and_missing_groups(sleep: Fit) -> None:
    new = pd.DataFrame({"Days": [3.0, 3.0, 3.0, np.nan], "Subject": ["308", "new", None, "308"]})
    found = values(sleep.predict(new, new_levels="population"))
    beta, b = sleep.optimum.beta, sleep.optimum.b[0][0]
    assert found[0] == pytest.approx(beta @ [1, 3] + b @ [1, 3], rel=1e-13)
    assert found[1] == found[2] == pytest.approx(beta @ [1, 3], rel=1e-13)
    assert np.isnan(found[3])


def test_an_unseen_level_is_an_error_unless_allowed(sleep: Fit) -> None:
    new = pd.DataFrame({"Days": [1, 2], "Subject": ["308", "999"]})
    with pytest.raises(DataError, match=r"'Subject' has levels that were not fitted: '999'.*new_levels='population'"):
        sleep.predict(new)
    assert np.isfinite(values(sleep.predict(new, groups=None))).all()


def test_any_subset_of_groups(two: Fit) -> None:
    d, o = two.design, two.optimum
    fixed = d.X @ o.beta
    a = np.einsum("ij,ij->i", d.terms[0].Z, o.b[0][d.terms[0].codes])
    b = o.b[1][d.terms[1].codes, 0]
    for groups, wanted in (
        ("all", fixed + a + b),
        (["a", "b"], fixed + a + b),
        (["a"], fixed + a),
        ("b", fixed + b),
        ([], fixed),
        (None, fixed),
    ):
        np.testing.assert_allclose(values(two.predict(groups=groups)), wanted, rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(values(two.predict(two.model._data, groups=groups)), wanted, rtol=1e-11, atol=1e-12)


def test_columns_of_left_out_groups_need_not_be_there(two: Fit) -> None:
    new = pd.DataFrame({"x1": [0.5], "x2": [1.0], "b": ["b001"]})
    assert np.isfinite(values(two.predict(new, groups=["b"])))
    assert np.isfinite(values(two.predict(new[["x1", "x2"]], groups=None)))
    with pytest.raises(ColumnError, match="'a'"):
        two.predict(new)


def test_sampled_levels_share_one_draw(sleep: Fit) -> None:
    new = pd.DataFrame({"Days": [0.0, 1.0, 2.0, 0.0], "Subject": ["new", "new", "new", "other"]})
    found = values(sleep.predict(new, new_levels="sample", seed=3))
    again = values(sleep.predict(new, new_levels="sample", seed=3))
    np.testing.assert_array_equal(found, again)
    assert found[2] - found[1] == pytest.approx(found[1] - found[0], rel=1e-10)  # one line for one new subject
    assert found[0] != found[3]
    assert not np.array_equal(found, values(sleep.predict(new, new_levels="sample", seed=4)))


def test_moments_of_sampled_levels(sleep: Fit) -> None:
    names = [f"new{i}" for i in range(4000)]
    at = {
        day: values(sleep.predict(pd.DataFrame({"Days": float(day), "Subject": names}), new_levels="sample", seed=day))
        for day in (0, 5)
    }
    cov = sleep.random_cov()[0]
    for day, found in at.items():
        z = np.array([1.0, day])
        assert found.mean() == pytest.approx(sleep.optimum.beta @ z, abs=4 * np.sqrt(z @ cov @ z / 4000))
        assert found.std() == pytest.approx(np.sqrt(z @ cov @ z), rel=0.05)


def test_a_missing_group_is_sampled_from_the_known_ones(sleep: Fit) -> None:
    new = pd.DataFrame({"Days": np.zeros(50), "Subject": [None] * 50})
    found = values(sleep.predict(new, new_levels="sample", seed=1)) - sleep.optimum.beta[0]
    assert set(np.round(found, 8)) <= set(np.round(sleep.optimum.b[0][:, 0], 8))
    assert len(set(np.round(found, 8))) > 5


def test_a_missing_group_is_one_known_group_in_all_its_terms() -> None:
    """(1 | a) + (0 + x1 | a): intercept and slope of one and the same level."""
    fit = quiet_fit(Model("y ~ x1 + (1 | a) + (0 + x1 | a)", draw(120, one(10, 120), 4, effects=1.5)))
    lines = [fit.predict({"x1": [x], "a": [None]}, new_levels="sample", seed=1)["prediction"][0] for x in (0.0, 1.0)]
    b = np.hstack(fit.optimum.b)
    pair = np.array([lines[0] - fit.optimum.beta[0], lines[1] - lines[0] - fit.optimum.beta[1]])
    assert np.abs(b - pair).max(axis=1).min() < 1e-9


def test_marginal_is_the_population(sleep: Fit) -> None:
    np.testing.assert_array_equal(values(sleep.predict(marginal=True)), values(sleep.predict(groups=None)))
    np.testing.assert_array_equal(values(sleep.predict(kind="link")), values(sleep.predict()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"new_levels": "x"}, r"new_levels 'x' is not known; allowed are 'error', 'population', 'sample'"),
        ({"interval": "conf"}, "interval 'conf' is not known"),
        ({"kind": "respons"}, r"did you mean 'response'\?"),
        ({"groups": "Subjct"}, r"no group 'Subjct' in the model; did you mean 'Subject'\?"),
        ({"groups": 3}, "groups must be"),
        ({"level": 1.5, "interval": "confidence"}, "level must lie"),
        ({"marginal": "yes"}, "marginal must be True or False"),
        ({"marginal": True, "groups": ["Subject"]}, "marginal=True averages over all groups"),
        ({"interval": "confidence", "new_levels": "sample"}, "use 'population'"),
    ],
)
def test_options_of_predict(sleep: Fit, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        sleep.predict(**options)


@pytest.mark.parametrize(
    ("new", "error", "message"),
    [
        (pd.DataFrame({"Days": [1]}), ColumnError, "no column 'Subject'"),
        (pd.DataFrame({"Dayz": [1], "Subject": ["308"]}), ColumnError, r"did you mean 'Dayz'\?"),
        (pd.DataFrame({"Days": ["many"], "Subject": ["308"]}), DataError, "'Days' looks like text"),
        (pd.DataFrame({"Days": [np.inf], "Subject": ["308"]}), DataError, "'Days' is inf in row 0"),
        (pd.DataFrame(), ColumnError, "no column"),
        ([1, 2], DataError, "must be a data frame"),
    ],
)
def test_new_data_that_cannot_be_used(sleep: Fit, new: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sleep.predict(new)


def test_no_rows_to_predict(sleep: Fit) -> None:
    try:
        found = sleep.predict(SLEEP.iloc[:0])
    except DataError as error:
        assert "no rows" in str(error)
    else:
        assert len(found) == 0


# --- intervals


def joint_variance(fit: Fit, X: Array, parts: list[tuple[int, Any, Any]]) -> Array:
    """By the twin: x'beta + z'b - truth, for levels known; the whole variance of levels that are not."""
    total = twin(fit.design).prediction_var(fit.optimum.lambdas, fit.sigma, X, parts)
    for t, codes, z in parts:
        total = total + np.where(codes < 0, np.einsum("ij,jk,ik->i", z, fit.random_cov()[t], z), 0.0)
    return total


@pytest.mark.parametrize("level", [0.5, 0.95])
@pytest.mark.parametrize(
    "name",
    [
        "slope",
        "merged blocks",
        "crossed slopes",
        "with their interaction",
        "chain with slopes",
        "uncorrelated factor",
        "crossed, scattered",
        "no groups",
    ],
)
def test_intervals_of_the_fitted_rows(name: str, level: float) -> None:
    s = shape(name)
    fit = quiet_fit(s.weighted)
    d = fit.design
    parts = [(t, term.codes, np.ones((len(d.y), 1)) if term.Z is None else term.Z) for t, term in enumerate(d.terms)]
    mean = joint_variance(fit, d.X, parts)
    z = stats.norm.ppf(0.5 + level / 2)
    for interval, variance in (("confidence", mean), ("prediction", mean + fit.sigma**2 / s.data["w"].to_numpy())):
        found = fit.predict(interval=interval, level=level)
        np.testing.assert_allclose(values(found, "std_error"), np.sqrt(variance), rtol=1e-9)
        np.testing.assert_allclose(
            values(found, "conf_low"), fit.fitted() - z * np.sqrt(variance), rtol=1e-8, atol=1e-9
        )
        np.testing.assert_allclose(
            values(found, "conf_high"), fit.fitted() + z * np.sqrt(variance), rtol=1e-8, atol=1e-9
        )


def test_intervals_of_new_rows(two: Fit) -> None:
    """Levels known, unseen, missing and pairs that never met."""
    new = pd.DataFrame(
        {
            "x1": [0.0, 1.0, -1.0, 0.5, 2.0],
            "x2": [1.0, 0.0, 0.3, -0.2, 0.1],
            "a": ["a000", "a013", "new", None, "a003"],
            "b": ["b005", "new", "b000", "b001", None],
        }
    )
    X = np.column_stack([np.ones(5), new["x1"], new["x2"]])
    za, zb = X[:, :2], np.ones((5, 1))
    a, b = np.array([0, 13, -1, -1, 3]), np.array([5, -1, 0, 1, -1])
    wanted = joint_variance(two, X, [(0, a, za), (1, b, zb)])
    found = two.predict(new, new_levels="population", interval="confidence")
    np.testing.assert_allclose(values(found, "std_error"), np.sqrt(wanted), rtol=1e-9)
    found = two.predict(new, new_levels="population", interval="prediction")
    np.testing.assert_allclose(values(found, "std_error"), np.sqrt(wanted + two.sigma**2), rtol=1e-9)


def test_groups_left_out_of_the_mean_are_in_the_prediction_interval(two: Fit) -> None:
    """The mean of a typical group is certain but for beta; a new observation comes from some group."""
    d = two.design
    za = d.terms[0].Z
    cov_a, cov_b = two.random_cov()
    at_a, at_b = np.einsum("ij,jk,ik->i", za, cov_a, za), cov_b[0, 0]
    own = [(0, d.terms[0].codes, za)]
    for groups, parts, others in (
        (None, [], at_a + at_b),
        (["a"], own, at_b),
        (["b"], [(1, d.terms[1].codes, np.ones((len(d.y), 1)))], at_a),
    ):
        mean = joint_variance(two, d.X, parts)
        sure = two.predict(groups=groups, interval="confidence")
        np.testing.assert_allclose(values(sure, "std_error"), np.sqrt(mean), rtol=1e-9)
        whole = two.predict(groups=groups, interval="prediction")
        np.testing.assert_allclose(values(whole, "std_error"), np.sqrt(mean + two.sigma**2 + others), rtol=1e-9)
        new = two.predict(two.model._data, groups=groups, interval="prediction")
        np.testing.assert_allclose(values(new, "std_error"), values(whole, "std_error"), rtol=1e-12)


def test_effects_that_only_vary_by_group_enter_left_out_variance() -> None:
    """(x2 | a) without x2 in the fixed side."""
    data = draw(120, one(10, 120), 4, effects=1.0)
    fit = quiet_fit(Model("y ~ x1 + (x2 | a)", data))
    z = fit.design.terms[0].Z
    wanted = np.einsum("ij,jk,ik->i", fit.design.X, fit.vcov(), fit.design.X) + fit.sigma**2
    wanted += np.einsum("ij,jk,ik->i", z, fit.random_cov()[0], z)
    for new in (None, data):
        found = fit.predict(new, groups=None, interval="prediction")
        np.testing.assert_allclose(values(found, "std_error"), np.sqrt(wanted), rtol=1e-10)


def test_intervals_of_many_new_rows_in_nested_groups() -> None:
    """The solved route in chunks gives what the pattern route gives."""
    data = draw(170, chain(35, 50, 80, 170), 5, effects=1.0)
    fit = quiet_fit(Model("y ~ x1 + (1 | a) + (1 | b) + (1 | c)", data))
    rng = np.random.default_rng(1)
    rows = 1500
    codes = [rng.integers(0, len(t.levels), rows) for t in fit.design.terms]
    new = pd.DataFrame(
        {"x1": rng.normal(size=rows), **{t.group: t.levels[c] for t, c in zip(fit.design.terms, codes, strict=True)}}
    )
    X = np.column_stack([np.ones(rows), new["x1"]])
    wanted = joint_variance(fit, X, [(t, c, np.ones((rows, 1))) for t, c in enumerate(codes)])
    np.testing.assert_allclose(values(fit.predict(new, interval="confidence"), "std_error"), np.sqrt(wanted), rtol=1e-8)


def test_offsets_in_predictions() -> None:
    data = draw(80, one(8, 80), 6).assign(o=lambda d: d["x3"] * 2)
    named = quiet_fit(Model("y ~ x1 + (1 | a)", data, offset="o"))
    typed = quiet_fit(Model("y ~ x1 + offset(o) + (1 | a)", data))
    array = quiet_fit(Model("y ~ x1 + (1 | a)", data, offset=data["o"].to_numpy()))
    for fit in (named, typed):
        np.testing.assert_allclose(values(fit.predict(data)), fit.fitted(), rtol=1e-12)
        np.testing.assert_allclose(values(fit.predict(data.assign(o=data["o"] + 1))), fit.fitted() + 1, rtol=1e-12)
    np.testing.assert_allclose(values(array.predict(data, offset=data["o"].to_numpy())), array.fitted(), rtol=1e-12)
    with pytest.raises(DataError, match="array as offset"):
        array.predict(data)
    with pytest.raises(OptionError, match="offset belongs to new rows"):
        named.predict(offset="o")


@pytest.mark.slow
def test_coverage_for_new_groups() -> None:
    """Prediction intervals of a new group hold at about their level over simulated data."""
    inside = total = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        a = np.repeat(np.arange(31), 8)
        x = rng.normal(size=len(a))
        b = rng.normal(size=(31, 2)) * [1.0, 0.5]
        y = 1 + x + (b[a] * np.column_stack([np.ones(len(a)), x])).sum(axis=1) + rng.normal(size=len(a))
        data = pd.DataFrame({"y": y, "x": x, "a": a})
        fit = quiet_fit(Model("y ~ x + (x | a)", data[a < 30]))
        found = fit.predict(data[a == 30], new_levels="population", interval="prediction", level=0.9)
        inside += int(((y[a == 30] >= values(found, "conf_low")) & (y[a == 30] <= values(found, "conf_high"))).sum())
        total += 8
    assert 0.85 < inside / total < 0.94


# --- frames in and out


FRAMES = {
    "pandas": lambda d: d,
    "polars": pl.from_pandas,
    "pyarrow": pa.Table.from_pandas,
    "dict": lambda d: {name: d[name].to_numpy() for name in d},
}
KINDS = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "pyarrow": pa.Table, "dict": pd.DataFrame}


@pytest.mark.parametrize("kind", FRAMES)
def test_the_same_kind_out(kind: str, sleep: Fit) -> None:
    data = SLEEP.assign(Subject=SLEEP["Subject"].astype(str))
    fit = Model(FORMULA, FRAMES[kind](data)).fit()
    assert fit.criterion == pytest.approx(sleep.criterion, rel=1e-13)
    assert fit.design.kind == kind
    tables = [
        fit.predict(),
        fit.predict(interval="prediction"),
        fit.fixef(),
        fit.ranef(),
        fit.coef(),
        fit.varcorr(),
        fit.confint(),
        fit.simulate(2, seed=1),
        fit.tidy(),
        fit.glance(),
        fit.augment(),
    ]
    many = fit.refit(np.column_stack([SLEEP["Reaction"], SLEEP["Reaction"] + np.arange(180) % 7]))
    tables += [many.fixef(), many.varcorr(), many.glance()]
    for table in tables:
        assert isinstance(table, KINDS[kind])
    new = data.iloc[:3]
    for other, make in FRAMES.items():
        out = fit.predict(make(new), interval="confidence")
        assert isinstance(out, KINDS[other])
        np.testing.assert_allclose(np.asarray(out["prediction"]), fit.fitted()[:3], rtol=1e-12)
    lazy = Model(FORMULA, pl.from_pandas(data).lazy()).fit()
    assert lazy.criterion == fit.criterion


# --- simulation


def test_a_seed_means_one_answer(sleep: Fit) -> None:
    first, second = sleep.simulate(3, seed=1), sleep.simulate(3, seed=1)
    assert list(first.columns) == ["sim_1", "sim_2", "sim_3"]
    assert len(first) == 180
    pd.testing.assert_frame_equal(first, second)
    assert not first.equals(sleep.simulate(3, seed=2))
    assert not np.array_equal(first["sim_1"], first["sim_2"])
    rng = np.random.default_rng(1)
    np.testing.assert_array_equal(sleep.simulate(3, seed=rng).to_numpy(), first.to_numpy())


@pytest.mark.parametrize("groups", [None, "all"])
def test_moments_of_simulation(sleep: Fit, groups: Any) -> None:
    draws = sleep.simulate(6000, groups=groups, seed=5).to_numpy()
    d = sleep.design
    z = d.X
    cov = np.zeros((180, 180)) + sleep.sigma**2 * np.eye(180)
    mean = d.X @ sleep.optimum.beta
    if groups is None:
        same = d.terms[0].codes[:, None] == d.terms[0].codes
        cov += same * (z @ sleep.random_cov()[0] @ z.T)
    else:
        mean = sleep.fitted()
    sd = np.sqrt(np.diag(cov))
    assert np.abs((draws.mean(axis=1) - mean) / sd).max() < 4.5 / np.sqrt(6000)
    found = np.corrcoef(draws)
    assert np.abs(found - cov / np.outer(sd, sd)).max() < 6 / np.sqrt(6000)
    np.testing.assert_allclose(draws.std(axis=1), sd, rtol=0.06)


def test_simulation_of_weights_offset_and_missing_rows() -> None:
    data = draw(80, one(8, 80), 6).assign(o=100.0)
    data.loc[7, "x1"] = np.nan
    data["w"] = np.where(np.arange(80) < 40, 100.0, 0.01)
    with pytest.warns(ml.MissingRowsWarning):
        fit = Model("y ~ x1 + (1 | a)", data.assign(y=data["y"] + 100), weights="w", offset="o").fit()
    draws = fit.simulate(400, groups="all", seed=1).to_numpy()
    assert np.isnan(draws[7]).all()
    assert np.isfinite(np.delete(draws, 7, axis=0)).all()
    spread = np.delete(draws, 7, axis=0).std(axis=1)
    np.testing.assert_allclose(spread, fit.sigma / np.sqrt(np.delete(data["w"].to_numpy(), 7)), rtol=0.2)
    np.testing.assert_allclose(draws[:7].mean(axis=1), fit.fitted()[:7], atol=0.1 * fit.sigma)


def test_kept_groups(two: Fit) -> None:
    """Those named keep their effects, the others are drawn anew."""
    draws = two.simulate(1500, groups=["a"], seed=2).to_numpy()
    d = two.design
    mean = d.X @ two.optimum.beta + np.einsum("ij,ij->i", d.terms[0].Z, two.optimum.b[0][d.terms[0].codes])
    sd = np.sqrt(two.sigma**2 + two.random_cov()[1][0, 0])
    assert np.abs(draws.mean(axis=1) - mean).max() < 5 * sd / np.sqrt(1500)


@pytest.mark.parametrize("n", [0, -1, 2.5, True, "3", None])
def test_a_number_of_simulations(sleep: Fit, n: Any) -> None:
    with pytest.raises(OptionError, match="n must be a positive whole number"):
        sleep.simulate(n)
