"""Numbers behind the plots of cross-validation, and that these show them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from cross_validation_samples import clustered, rows_of, schools
from scipy import stats

import multilevel as ml
from multilevel import cross_validation_lines as lines

FORMULA = "math ~ homework + (homework | schid)"
NAMES = ("partial", "complete pooling", "no pooling")


@pytest.fixture(autouse=True)
def closed() -> Any:
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("Agg")
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def by_row() -> Any:
    return ml.cross_validate({"partial": ml.Model(FORMULA, schools())}, folds=4, seed=1, baselines=True)


@pytest.fixture(scope="module")
def by_school() -> Any:
    return ml.cross_validate({"partial": ml.Model(FORMULA, schools())}, leave="groups", seed=1, baselines=True)


@pytest.fixture(scope="module")
def counts() -> Any:
    return ml.cross_validate(ml.Model("y ~ x + (1 | g)", clustered("poisson"), family="poisson"), folds=3, seed=1)


# -- differences ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", ["rmse", "mae", "log_score", "crps"])
def test_differences_to_the_best(by_row: Any, measure: str) -> None:
    found = lines.differences(by_row, measure)
    table = by_row.summary().set_index("model")
    best = table[measure].idxmax() if measure == "log_score" else table[measure].idxmin()
    assert found.names[0] == best and set(found.names) == set(NAMES) and found.n == 260
    np.testing.assert_allclose(found.value, table.loc[list(found.names), measure], rtol=1e-12)
    np.testing.assert_allclose(found.std_error, table.loc[list(found.names), f"{measure}_se"], rtol=1e-12)
    paired = by_row.compare(best).query("score == @measure").set_index("other").loc[list(found.names[1:])]
    np.testing.assert_allclose(found.behind[1:], paired["advantage"], rtol=1e-12)
    np.testing.assert_allclose(found.behind_error[1:], paired["std_error"], rtol=1e-12)
    assert found.behind[0] == 0 and np.isnan(found.behind_error[0]) and (found.behind >= 0).all()


def test_models_are_compared_on_what_all_predict() -> None:
    rng = np.random.default_rng(0)
    g = np.r_[np.repeat(np.arange(8), 6), 8]
    data = pd.DataFrame({"g": g, "y": rng.standard_normal(9)[g] + rng.standard_normal(49)})
    result = ml.cross_validate({"partial": ml.Model("y ~ 1 + (1 | g)", data)}, folds=5, seed=1, baselines=True)
    found = lines.differences(result, "mae")
    rows = {name: rows_of(result, name).set_index("row") for name in NAMES}
    assert found.n == 48 and np.isnan(rows["no pooling"].loc[48, "prediction"])
    for name, value in zip(found.names, found.value, strict=True):
        own = rows[name].drop(index=48)
        assert value == pytest.approx((own["observed"] - own["prediction"]).abs().mean(), rel=1e-12)


def test_a_model_that_predicts_nothing_is_named(by_school: Any) -> None:
    found = lines.differences(by_school, "joint_log_score")
    table = by_school.by_group().pivot(index="group", columns="model", values="joint_log_score")
    gap = table["partial"] - table["complete pooling"]
    assert found.names == ("partial", "complete pooling") and found.silent == ("no pooling",) and found.n == 10
    assert found.behind[1] == pytest.approx(gap.mean()) and found.behind_error[1] == pytest.approx(gap.sem())
    axes = by_school.plot()
    assert "no pooling: no prediction" in axes[0].figure.get_suptitle().replace("\n", " ")
    assert [t.get_text() for t in axes[0].get_yticklabels()] == ["partial", "complete pooling"]


# -- folds and groups -------------------------------------------------------------------------------------------------


def test_scores_of_folds(by_row: Any) -> None:
    for measure in ("rmse", "log_score"):
        table = by_row.by_fold().pivot(index="model", columns="fold", values=measure)
        np.testing.assert_allclose(lines.fold_scores(by_row, measure), table.loc[list(NAMES)], rtol=1e-12)
    ax = by_row.plot("folds", score="mae")
    drawn = next(line for line in ax.get_lines() if line.get_label() == "no pooling")
    expected = by_row.by_fold().query("model == 'no pooling'")["mae"]
    np.testing.assert_allclose(drawn.get_ydata(), expected, rtol=1e-12)


def test_scores_of_groups_where_rows_were_left_out(by_row: Any) -> None:
    found = lines.group_scores(by_row)
    data = schools()
    assert not found.joint and found.group == "schid"
    scores = {name: rows_of(by_row, name)["log_score"].to_numpy() for name in NAMES}
    school = data["schid"].to_numpy()
    for j, level in enumerate(found.levels):
        own = school == level
        assert found.n[j] == own.sum()
        for i, name in enumerate(NAMES):
            gap = scores["partial"][own] - scores[name][own]
            assert found.score[i, j] == pytest.approx(scores[name][own].mean(), rel=1e-12)
            assert found.gain[i, j] == pytest.approx(gap.mean(), abs=1e-12)
            if i:
                assert found.gain_error[i, j] == pytest.approx(gap.std(ddof=1) / np.sqrt(own.sum()), rel=1e-9)


def test_scores_of_groups_that_were_left_out(by_school: Any) -> None:
    found = lines.group_scores(by_school)
    table = by_school.by_group().set_index(["model", "group"])
    assert found.joint and np.isnan(found.score[2]).all()
    for j, level in enumerate(found.levels):
        one, other = (table.loc[(name, level)] for name in NAMES[:2])
        assert found.score[0, j] == pytest.approx(one["joint_log_score"] / one["rows"], rel=1e-12)
        gap = one["joint_log_score"] - other["joint_log_score"]
        assert found.gain[1, j] == pytest.approx(gap / one["rows"], rel=1e-9)


def test_gains_of_groups_of_like_size() -> None:
    n = np.repeat([2.0, 10.0, 50.0], 20)
    gain = np.concatenate([np.linspace(0.5, 1.5, 20), np.full(20, 0.2), np.full(20, np.nan)])
    size, level = lines.gain_by_size(n, gain)
    np.testing.assert_allclose([size, level], [[2, 10], [1.0, 0.2]])
    assert (
        len(lines.gain_by_size(n[:10], gain[:10])[0]) == 0 and len(lines.gain_by_size(np.ones(30), np.ones(30))[0]) == 0
    )
    size, level = lines.gain_by_size(np.arange(1.0, 101), np.ones(100))
    assert len(size) == 10 and (np.diff(size) > 0).all()
    np.testing.assert_allclose(level, 1)


def test_partial_pooling_gains_most_in_small_groups() -> None:
    """Simulated: the smaller a group, the more its own mean errs, and the more partial pooling gains on it."""
    rng = np.random.default_rng(3)
    size = np.repeat([2, 5, 25], [60, 40, 20])
    g = np.repeat(np.arange(120), size)
    data = pd.DataFrame({"g": g, "y": 0.7 * rng.standard_normal(120)[g] + rng.standard_normal(len(g))})
    result = ml.cross_validate({"partial": ml.Model("y ~ 1 + (1 | g)", data)}, folds=10, seed=1, baselines=True)
    found = lines.group_scores(result)
    gains = [np.nanmean(found.gain[2][found.n == n]) for n in (2, 5, 25)]
    assert gains[0] > 2 * gains[1] > 4 * gains[2] > 0
    axes = result.plot("groups")
    assert "predicts better above zero" in axes[1].get_title() and axes[1].get_xscale() == "log"


# -- calibration ------------------------------------------------------------------------------------------------------


def test_ranks_in_normal_predictions(by_row: Any) -> None:
    data, rows = schools(), rows_of(by_row, "partial")
    out = (rows["fold"] == 2).to_numpy()
    new = ml.lmer(FORMULA, data[~out]).predict(data[out], interval="prediction")
    exact = stats.norm(new["prediction"], new["std_error"]).cdf(data.loc[out, "math"])
    np.testing.assert_allclose(rows.loc[out, "pit"], exact, rtol=1e-7)
    bar = lines.bars(by_row, "partial")
    assert bar is not None and bar.n == 260 and len(bar.height) == 20
    np.testing.assert_allclose(bar.height, np.histogram(rows["pit"], 20, (0, 1))[0] / 13, rtol=1e-12)
    assert [bar.low * 13, bar.high * 13] == stats.binom.ppf([0.025, 0.975], 260, 0.05).tolist()


def test_ranks_in_predictions_of_counts(counts: Any) -> None:
    """A fit of large groups: nearly the distribution function of Poisson, spread over each count's own step."""
    inner, name = counts._rows[counts.names[0]], counts.names[0]
    y, below, through = inner["observed"], inner["below"], inner["through"]
    assert (through >= below).all() and (below[y == 0] == 0).all()
    pit = rows_of(counts, name)["pit"]
    np.testing.assert_allclose(pit, (below + through) / 2, rtol=1e-12)
    bar = lines.bars(counts, name)
    assert bar is not None
    count = len(bar.height)
    expected = np.zeros(count)
    for low, high in zip(below, through, strict=True):  # each row's own step, cut at the edges of the bars
        for k in range(count):
            share = max(min(high, (k + 1) / count) - max(low, k / count), 0.0) / (high - low) if high > low else 0.0
            inside = k / count <= low < (k + 1) / count or (low == 1 and k == count - 1)
            expected[k] += share if high > low else float(inside)
    np.testing.assert_allclose(bar.height, expected / len(y) * count, atol=1e-9)
    assert bar.height.sum() == pytest.approx(count)


def test_ranks_of_a_posterior_are_those_of_its_draws() -> None:
    data = ml.load("sleepstudy")
    posterior = ml.Model("Reaction ~ Days + (1 | Subject)", data).sample(chains=2, draws=300, seed=1)
    both = ml.cross_validate({"draws": posterior, "fit": posterior.model}, folds=3, seed=1)
    draws, fit = (rows_of(both, name)["pit"] for name in ("draws", "fit"))
    np.testing.assert_allclose(draws, fit, atol=0.05)
    assert np.corrcoef(draws, fit)[0, 1] > 0.999


def test_wrong_predictive_distributions_show() -> None:
    """Responses whose variance is ignored where they are: a normal model of counts with long tails is not even."""
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(20), 25)
    data = pd.DataFrame({"g": g, "y": rng.exponential(1, 500) + rng.standard_normal(20)[g]})
    bar = lines.bars(ml.cross_validate(ml.Model("y ~ 1 + (1 | g)", data), folds=4, seed=1), "y ~ 1 + (1 | g)")
    assert bar is not None and ((bar.height < bar.low) | (bar.height > bar.high)).sum() > 5
    good = lines.bars(
        ml.cross_validate(ml.Model("y ~ 1 + (1 | g)", data.assign(y=rng.standard_normal(500) + g)), folds=4, seed=1),
        "y ~ 1 + (1 | g)",
    )
    assert good is not None and ((good.height < good.low) | (good.height > good.high)).sum() <= 3


# -- figures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["differences", "folds", "groups", "calibration"])
def test_every_kind_is_drawn(by_row: Any, by_school: Any, counts: Any, kind: str) -> None:
    import matplotlib.pyplot as plt

    for result in (by_row, by_school, counts):
        axes = np.ravel(result.plot(kind))
        assert all(one.has_data() for one in axes)
        axes[0].figure.canvas.draw()
        made, given = plt.subplots(1, len(axes))
        assert np.ravel(result.plot(kind, ax=given))[0] is np.ravel(given)[0]
        assert made.get_suptitle() == ""
    labels = by_school.plot("folds").get_xticklabels()
    assert [one.get_text() for one in labels] == [str(one) for one in by_school.folds.units]


def test_what_is_refused(by_row: Any, by_school: Any) -> None:
    with pytest.raises(ml.OptionError, match="kind='group' is not known; did you mean 'groups'"):
        by_row.plot("group")
    with pytest.raises(ml.OptionError, match="no score 'joint_log_score'"):
        by_row.plot(score="joint_log_score")
    with pytest.raises(ml.OptionError, match="no score 'mea' here; did you mean 'mae'"):
        by_row.plot("folds", score="mea")
    with pytest.raises(ml.OptionError, match="score= goes with"):
        by_row.plot("groups", score="mae")
    with pytest.raises(ml.OptionError, match="group= goes with"):
        by_row.plot(group="schid")
    with pytest.raises(ml.OptionError, match="no grouping factor of the model|grouping factor"):
        by_row.plot("groups", group="school")
    with pytest.raises(ml.OptionError, match="what was left out together is 'schid'"):
        by_school.plot("groups", group="region")
    with pytest.raises(ml.OptionError, match="has no groups to show"):
        ml.cross_validate(ml.Model("math ~ homework", schools()), folds=2, seed=1).plot("groups")
    wine = ml.cross_validate(
        ml.Model("rating ~ temp + (1 | judge)", ml.load("wine"), family="ordinal"), folds=3, seed=1
    )
    for kind in ("differences", "folds"):
        with pytest.raises(ml.OptionError, match="no model has the score 'rmse'.*categories"):
            wine.plot(kind, score="rmse")
    with pytest.raises(ml.OptionError, match="2 panels"):
        by_row.plot(ax=by_row.plot("folds"))
