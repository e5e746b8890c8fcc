"""Plots of generalised fits show predictions, observed frequencies and the numbers of the other verbs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from generalised_models import CBPP, OWLS, fitted
from numpy.typing import NDArray

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from scipy import stats  # noqa: E402
from scipy.optimize import minimize_scalar  # noqa: E402

import multilevel as ml  # noqa: E402
from multilevel import generalised_checks, generalised_lines, generalised_own, generalised_panels, plot_panels  # noqa: E402
from multilevel.errors import DataError, OptionError  # noqa: E402
from multilevel.generalised import GeneralisedFit  # noqa: E402

Array = NDArray[np.float64]

pytestmark = [
    pytest.mark.filterwarnings("ignore::multilevel.errors.MultilevelWarning"),
    pytest.mark.usefixtures("settings_kept"),
]

NAMES = ("binomial", "two values", "zero-inflated", "hurdle", "ordinal", "gamma", "no groups")
BLUE, ORANGE, GREEN = (plot_panels.COLOURS[one] for one in ("partial", "pooled", "unpooled"))




@pytest.fixture(scope="module")
def verbal() -> GeneralisedFit:
    """People crossed with items, a number and a factor."""
    data = ml.load("verbagg")
    data = data[data["id"].astype(int) <= 60].reset_index(drop=True)
    fit = ml.Model("r2 ~ Anger + btype + (1 | id) + (1 | item)", data, family="binomial").fit(threads=1)
    assert isinstance(fit, GeneralisedFit)
    return fit


def drawn(axes: Any) -> Any:
    figure = np.ravel(axes)[0].figure
    figure.canvas.draw()
    return figure


def texts(axes: Any) -> str:
    found = drawn(axes).findobj(matplotlib.text.Text)
    return " ".join(" ".join(one.get_text() for one in found).split())


def line(ax: Any, colour: str) -> Array:
    """y of the lines or marks of one colour that has the most points."""
    found = [np.asarray(one.get_ydata(), dtype=np.float64) for one in ax.lines if one.get_color() == colour]
    return max(found, key=len)


# -- effects ---------------------------------------------------------------------------------------------------


def test_effects_are_predictions_with_their_intervals() -> None:
    fit = fitted("gamma")
    ax = fit.plot.effects(level=0.9)
    drawn(ax)
    curve = next(one for one in ax.lines if one.get_color() == BLUE)
    new = pd.DataFrame({"Time": curve.get_xdata()})
    table = fit.predict(new, groups=None, interval="confidence", level=0.9)
    np.testing.assert_allclose(curve.get_ydata(), table["prediction"], rtol=1e-10)
    band = ax.collections[0].get_paths()[0].vertices
    for x, low, high in zip(new["Time"][1:-1], table["conf_low"][1:-1], table["conf_high"][1:-1], strict=True):
        ends = np.unique(np.round(band[np.isclose(band[:, 0], x), 1], 8))
        np.testing.assert_allclose(ends, [low, high], rtol=1e-6)
    rug = next(one for one in ax.lines if one.get_marker() == "|")
    assert set(rug.get_xdata()) <= set(ml.load("dietox")["Time"])


def test_effects_of_factors_with_extra_zeros_and_offset() -> None:
    fit = fitted("zero-inflated")
    axes = fit.plot.effects()
    assert [ax.get_xlabel() for ax in axes] == ["FoodTreatment", "SexParent"]
    data = ml.load("owls")
    new = pd.DataFrame({"FoodTreatment": ["Deprived", "Satiated"]})
    new = new.assign(SexParent="Female", BroodSize=data["BroodSize"].mean())
    table = fit.predict(new, groups=None, interval="confidence")
    points = axes[0].containers[0]
    np.testing.assert_allclose(points[0].get_ydata(), table["prediction"], rtol=1e-10)
    ends = np.array([segment[:, 1] for segment in points[2][0].get_segments()])
    np.testing.assert_allclose(ends, table[["conf_low", "conf_high"]], rtol=1e-8)
    assert "BroodSize = 4.39" in texts(axes)


def test_effects_of_ordinal_responses_are_probabilities() -> None:
    fit = fitted("ordinal")
    axes = fit.plot.effects()
    new = pd.DataFrame({"temp": ["cold", "warm"], "contact": "no"})
    table = fit.predict(new, groups=None)
    for container, label in zip(axes[0].containers, fit.design.labels, strict=True):
        np.testing.assert_allclose(container[0].get_ydata(), table[label], rtol=1e-10)
    assert axes[0].get_ylabel() == "probability"
    assert [one.get_text() for one in drawn(axes).legends[0].get_texts()] == list(fit.design.labels)


def test_points_are_what_the_responses_ask_for() -> None:
    """Per class the shift of its linear predictors that makes its responses most likely, by a search of its own."""
    fit = fitted("gamma")
    found = generalised_lines.curve(fit, "Time", 0.95, points=True)
    data = ml.load("dietox")
    eta, shape = fit.fitted("link"), float(np.exp(fit.extra()["estimate"][0]))
    population = fit.predict(pd.DataFrame({"Time": found.x}), groups=None, kind="link")["prediction"]
    assert found.x.tolist() == sorted(data["Time"].unique()) and found.size.sum() == len(data)
    for i in (0, 5, 11):
        rows = (data["Time"] == found.x[i]).to_numpy()

        def loss(shift: float, rows: Any = rows) -> float:
            mean = np.exp(eta[rows] + shift)
            return -float(stats.gamma.logpdf(data["Weight"][rows], shape, scale=mean / shape).sum())

        best = minimize_scalar(loss, bounds=(-1, 1), method="bounded", options={"xatol": 1e-9}).x
        assert found.y[i] == pytest.approx(float(np.exp(population[i] + best)), rel=1e-5)
    bent = found.y - np.interp(found.x, found.grid, found.estimate)
    assert bent[0] > 0 and bent[3] < 0 and bent[-1] > 0  # growth is not a power of time
    assert len(fit.plot.effects(points=True).collections) == 2


def test_what_effects_cannot_draw() -> None:
    fit = fitted("zero-inflated")
    with pytest.raises(OptionError, match="is no fixed predictor"):
        fit.plot.effects("Nest")
    with pytest.raises(OptionError, match="at cannot hold it"):
        fit.plot.effects(at={"Nest": 1})
    with pytest.raises(OptionError, match="level"):
        fit.plot.effects(level=95)


def test_effects_of_predictors_that_only_extra_zeros_have() -> None:
    formula = "SiblingNegotiation ~ SexParent + (1 | Nest)"
    fit = ml.Model(formula, ml.load("owls"), family="poisson", zi="~ FoodTreatment + ArrivalTime").fit(threads=1)
    assert isinstance(fit, GeneralisedFit)
    axes = fit.plot.effects()
    assert [ax.get_xlabel() for ax in axes] == ["SexParent", "FoodTreatment", "ArrivalTime"]
    x = next(one for one in axes[2].lines if one.get_color() == BLUE).get_xdata()
    new = pd.DataFrame({"ArrivalTime": x, "SexParent": "Female", "FoodTreatment": "Deprived"})
    np.testing.assert_allclose(line(axes[2], BLUE), fit.predict(new, groups=None)["prediction"], rtol=1e-10)


# -- groups ----------------------------------------------------------------------------------------------------


def test_groups_draw_conditional_means() -> None:
    fit = fitted("gamma")
    axes = fit.plot.groups(levels=["4601", "4756"])
    data = ml.load("dietox")
    pooled = ml.Model("Weight ~ log(Time)", data, family="gamma").fit(threads=1)
    for ax, pig in zip(axes, ["4601", "4756"], strict=True):
        x = next(one for one in ax.lines if one.get_color() == BLUE).get_xdata()
        new = pd.DataFrame({"Time": x, "Pig": pig})
        np.testing.assert_allclose(line(ax, BLUE), fit.predict(new)["prediction"], rtol=1e-8)
        np.testing.assert_allclose(line(ax, ORANGE), pooled.predict(new)["prediction"], rtol=1e-8)
        rows = data[data["Pig"].astype(str) == pig]
        alone = ml.Model("Weight ~ log(Time)", rows.reset_index(drop=True), family="gamma").fit(threads=1)
        # the mean of a gamma model does not depend on its shape
        np.testing.assert_allclose(line(ax, GREEN), alone.predict(new)["prediction"], rtol=1e-6)
        points = next(one for one in ax.lines if one.get_linestyle() == "None" and len(one.get_xdata()) == len(rows))
        np.testing.assert_array_equal(points.get_xydata(), rows[["Time", "Weight"]].to_numpy(dtype=float))


def test_curves_are_averaged_over_the_groups_own_rows(verbal: GeneralisedFit) -> None:
    data = ml.load("verbagg")
    found = generalised_lines.group_lines(verbal, None, None, ["7", "20"], 18)
    assert found.x == "btype"  # anger does not vary within people
    for facet, person in zip(found.facets, ["7", "20"], strict=True):
        rows = data[data["id"].astype(str) == person]
        for k, kind in enumerate(found.labels or ()):
            moved = rows.assign(btype=pd.Categorical([kind] * len(rows), categories=data["btype"].cat.categories))
            assert facet.partial[k] == pytest.approx(float(verbal.predict(moved)["prediction"].mean()), rel=1e-8)
    ax = verbal.plot.groups(levels=["7"])
    own = data[data["id"].astype(str) == "7"]
    share = (own["r2"] == "Y").groupby(own["btype"], observed=True).mean()
    np.testing.assert_allclose(np.asarray(ax.collections[0].get_offsets())[:, 1], share, rtol=1e-12)
    assert ax.figure.get_supylabel() == "share of r2 = Y"
    assert "averaged over each group's rows" in texts(ax)


def test_shares_are_sized_by_their_trials() -> None:
    fit = fitted("binomial")
    axes = fit.plot.groups()
    data = ml.load("cbpp")
    assert len(axes) == 15 and axes[0].get_title() == "1 (n = 4)"
    for ax, herd in zip(axes, fit.design.terms[0].levels, strict=True):
        rows = data[data["herd"] == herd]
        circles = ax.collections[0]
        np.testing.assert_allclose(np.asarray(circles.get_offsets())[:, 1], rows["incidence"] / rows["size"])
        np.testing.assert_allclose(circles.get_sizes(), 5 + 55 * rows["size"] / data["size"].max())
        own = next(one for one in ax.lines if one.get_color() == GREEN).get_ydata()
        seen = rows.set_index("period").reindex(["1", "2", "3", "4"])
        share = (seen["incidence"] / seen["size"]).to_numpy()
        np.testing.assert_allclose(own, np.where(share > 0, share, np.nan), rtol=1e-6)  # none is a share of zero: not finite
    assert axes[0].get_ylim()[0] < 0 < axes[0].get_ylim()[1] < 1


def test_ordinal_groups_show_the_expected_category() -> None:
    fit = fitted("ordinal")
    axes = fit.plot.groups(x="contact", levels=["1", "5"])
    data = ml.load("wine")
    for ax, judge in zip(axes, ["1", "5"], strict=True):
        rows = data[data["judge"].astype(str) == judge]
        for i, contact in enumerate(["no", "yes"]):
            table = fit.predict(rows.assign(contact=contact))
            mean = sum(k * table[label].mean() for k, label in enumerate(fit.design.labels))
            assert line(ax, BLUE)[i] == pytest.approx(mean, rel=1e-8)
    drawn(axes)
    assert [one.get_text() for one in axes[0].get_yticklabels()] == list(fit.design.labels)


def test_groups_without_anything_that_varies_show_rows_in_order() -> None:
    data = ml.load("grouseticks")
    fit = ml.Model("TICKS ~ cHEIGHT + (1 | BROOD)", data, family="poisson").fit(threads=1)
    ax = fit.plot.groups(levels=["606"])
    rows = data[data["BROOD"].astype(str) == "606"]
    np.testing.assert_array_equal(line(ax, plot_panels.COLOURS["data"]), rows["TICKS"])
    assert line(ax, BLUE)[0] == pytest.approx(float(fit.predict(rows)["prediction"].iloc[0]), rel=1e-8)
    assert line(ax, GREEN)[0] == pytest.approx(rows["TICKS"].mean(), rel=1e-8)


# -- shrinkage -------------------------------------------------------------------------------------------------


def test_own_estimates_are_maximum_likelihood_with_all_else_fixed() -> None:
    fit = fitted("zero-inflated")
    found = generalised_own.shrinkage(fit, None)
    codes, eta, y = fit.design.terms[0].codes, fit._eta[1], fit.design.y
    first, second = (np.broadcast_to(one, y.shape) for one in fit._parameters)
    size, zero = np.exp(first), 1 / (1 + np.exp(-second))
    np.testing.assert_allclose(found.partial[:, 0], fit.optimum.beta[0] + fit.optimum.b[0][:, 0])
    for nest in (0, 10, 26):
        rows = codes == nest

        def loss(at: float, rows: Any = rows, nest: int = nest) -> float:
            mean = np.exp(eta[rows] + at - found.partial[nest, 0])
            density = stats.nbinom.pmf(y[rows], size[rows], size[rows] / (size[rows] + mean))
            return -float(np.log(zero[rows] * (y[rows] == 0) + (1 - zero[rows]) * density).sum())

        best = minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-9}).x
        assert found.own[nest, 0] == pytest.approx(best, abs=1e-4)


def test_groups_whose_outcomes_are_all_alike_have_no_own_estimate(verbal: GeneralisedFit) -> None:
    found = generalised_own.shrinkage(verbal, None)
    share = np.bincount(verbal.design.terms[0].codes, verbal.design.y) / found.sizes
    np.testing.assert_array_equal(np.isnan(found.own[:, 0]), (share == 0) | (share == 1))
    assert np.isnan(found.own).any()
    ax = verbal.plot.shrinkage()
    assert "no finite estimate alone (too few rows, or all outcomes alike)" in texts(ax)
    assert ax.get_xlabel() == "Intercept (logit scale)"
    own = next(one for one in ax.lines if one.get_color() == GREEN)
    np.testing.assert_allclose(own.get_xdata(), np.sort(found.own[np.isfinite(found.own)]))
    pooled = fitted("gamma").plot.shrinkage()
    assert pooled.get_ylabel() == "log(Time)"


# -- checks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_check_draws_what_is_checked(name: str) -> None:
    fit = fitted(name)
    axes = fit.plot.check()
    drawn(axes)
    titles = [ax.get_title() for ax in axes]
    assert titles[:2] == ["Quantile residuals: are they normal?", "Residuals: straight and even?"]
    expected = {
        "binomial": "Shares: as predicted?",
        "two values": "Shares: as predicted?",
        "ordinal": "Categories: as predicted?",
        "gamma": "Values: as the family says?",
    }
    assert expected.get(name, "Counts: as many of each, and zeros?") in titles
    counted = name in ("binomial", "zero-inflated", "hurdle", "no groups")
    assert ("Dispersion: as the family says?" in titles) == counted
    residuals = generalised_checks.facts(fit).residuals
    points = next(one for one in axes[0].lines if one.get_color() == BLUE)
    ends = slice(None) if len(residuals) <= plot_panels.MAX_POINTS else [0, 1, 50, -50, -1]  # the middle is thinned
    np.testing.assert_allclose(points.get_ydata()[ends], np.sort(residuals)[ends])
    assert all(ax.has_data() for ax in axes)


def test_quartiles_are_those_of_the_residuals() -> None:
    fit = fitted("binomial")
    ax, _ = fit.plot.residuals()
    r, eta = generalised_checks.facts(fit).residuals, np.round(fit._eta[0], 10)
    segments = [one for one in ax.collections if isinstance(one, matplotlib.collections.LineCollection)]
    for share, lines in zip((0.25, 0.5, 0.75), segments, strict=True):
        wanted = [np.quantile(r[eta == value], share) for value in np.unique(eta)]
        np.testing.assert_allclose([one[0, 1] for one in lines.get_segments()], wanted)
    assert ax.get_xlabel() == "population prediction (logit scale)"
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, 20_000)
    grid, quartiles = generalised_panels.local_quantiles(x, rng.normal(size=20_000) * (1 + x))
    inner = (grid > 0.25) & (grid < 0.75)
    wanted = np.outer(1 + grid[inner], stats.norm.ppf([0.25, 0.5, 0.75]))
    np.testing.assert_allclose(quartiles[inner], wanted, atol=0.06)  # about three standard errors


@pytest.mark.parametrize("name", ["zero-inflated", "hurdle"])
def test_rootogram_has_observed_and_expected_frequencies(name: str) -> None:
    fit = fitted(name)
    f = generalised_checks.facts(fit)
    found = generalised_panels.counts(f)
    y = fit.design.y
    assert found.observed.sum() == len(y) == pytest.approx(found.expected.sum())
    assert found.observed[:5].tolist() == [int((y == k).sum()) for k in range(5)]
    first, second = (np.broadcast_to(one, y.shape) for one in fit._parameters)
    eta = fit._eta[1]
    for k in (0, 1, 4):
        from multilevel import _core

        density = np.exp(_core.log_densities(fit.family.kernel, np.full(len(y), k + 0.0), None, eta, first, second)[0][:, 0])
        error = np.sqrt((density * (1 - density)).sum() / len(f.simulated))
        assert abs(found.expected[k] - density.sum()) < 4.5 * error
    axes = fit.plot.check()
    ax = next(one for one in axes if one.get_title().startswith("Counts"))
    np.testing.assert_allclose([bar.get_height() for bar in ax.patches], np.sqrt(found.observed))
    np.testing.assert_allclose(line(ax, BLUE), np.sqrt(found.expected))
    assert f"zeros: {(y == 0).sum()}" in texts(axes)


def test_large_counts_are_gathered_in_cells() -> None:
    rng = np.random.default_rng(1)
    y = rng.negative_binomial(2, 0.005, 500).astype(float)
    edges = generalised_panels.count_edges(y, y[None, :])
    assert edges[0] == 0 and edges[1] == 1 and len(edges) <= generalised_panels.CELLS + 2
    assert len(set(np.diff(edges[1:]))) == 1 and edges[-1] > np.quantile(y, 0.97)


def test_dispersion_is_that_of_the_check() -> None:
    fit = fitted("binomial")
    f = generalised_checks.facts(fit)
    found = generalised_panels.dispersions(f)
    assert found is not None
    assert f"ratio {found[0]:.2f}" in fit.check()["dispersion"].sentence
    axes = fit.plot.check()
    ax = next(one for one in axes if one.get_title().startswith("Dispersion"))
    assert line(ax, ORANGE)[0] == 0 and f"observed: {found[0]:.2f}" in texts(axes)
    assert sum(bar.get_height() for bar in ax.patches) == len(found[1])
    assert found[1].mean() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("name", ["binomial", "two values"])
def test_shares_are_compared_with_marginal_predictions(name: str) -> None:
    fit = fitted(name)
    f = generalised_checks.facts(fit)
    total, found = generalised_panels.calibration(f)
    trials = np.ones(len(fit.design.y)) if fit.design.trials is None else fit.design.trials
    assert total.sum() == trials.sum()
    assert float(total @ found.observed) == pytest.approx(fit.design.y.sum())
    predicted = fit.predict(marginal=True)["prediction"].to_numpy()
    assert float(total @ found.expected) == pytest.approx(float(trials @ predicted), rel=1e-8)
    assert (np.diff(found.expected) > 0).all()
    assert ((found.low <= found.observed) & (found.observed <= found.high)).mean() > 0.8
    if name == "binomial":
        np.testing.assert_allclose(found.expected, np.unique(np.round(predicted, 10)), rtol=1e-6)


def test_categories_are_compared_where_predictions_are_low_and_high() -> None:
    fit = fitted("ordinal")
    f = generalised_checks.facts(fit)
    parts = generalised_panels.categories(f)
    assert [name for name, _ in parts] == ["prediction low", "prediction high"]
    eta, y = fit._eta[0], fit.design.y
    for (_, found), rows in zip(parts, (eta <= np.median(eta), eta > np.median(eta)), strict=True):
        np.testing.assert_allclose(found.observed, np.bincount(y[rows].astype(int), minlength=5) / rows.sum())
        exact = fit.categories_at(fit._eta[1])[rows].mean(axis=0)
        np.testing.assert_allclose(found.expected, exact, atol=4 * np.sqrt(0.25 / rows.sum() / len(f.simulated)))


def test_values_are_compared_with_simulated_ones() -> None:
    fit = fitted("gamma")
    edges, found = generalised_panels.values(generalised_checks.facts(fit))
    np.testing.assert_array_equal(found.observed, np.histogram(np.log(fit.design.y), edges)[0])
    assert found.observed.sum() == fit.nobs and found.expected.sum() == pytest.approx(fit.nobs, rel=0.02)


# -- influence and the rest --------------------------------------------------------------------------------------


def test_influence_draws_its_numbers() -> None:
    fit = fitted("binomial")
    axes = fit.plot.influence("herd")
    table = fit.influence("herd")
    np.testing.assert_allclose(line(axes[0], BLUE), table["cooks"])
    np.testing.assert_allclose(line(axes[1], BLUE), -table["dfbetas_Intercept"])
    rows = fit.plot.influence()
    h = np.asarray(rows[0].lines[-1].get_xdata())
    np.testing.assert_allclose(h, fit.influence()["leverage"])
    assert "worth a look" in texts(rows)


def test_repr_and_caterpillar() -> None:
    fit = fitted("binomial")
    assert repr(fit.plot).startswith("LinkPlots: groups(), caterpillar()")
    ax = fit.plot.caterpillar()
    np.testing.assert_allclose(line(ax, BLUE), np.arange(15))


def test_one_axes_and_arrays_of_the_callers() -> None:
    fit = fitted("ordinal")
    _, ax = plt.subplots()
    assert fit.plot.effects("temp", ax=ax) is ax and fit.plot.residuals(ax=plt.subplots()[1]) is not None
    _, pair = plt.subplots(1, 2)
    with pytest.raises(OptionError, match="panels to draw, but ax has 2"):
        fit.plot.check(ax=pair)
    _, one = plt.subplots()
    assert fit.plot.groups(ax=one) is one


def test_what_cannot_be_drawn_says_so() -> None:
    fit = fitted("no groups")
    for name in ("groups", "shrinkage", "caterpillar"):
        with pytest.raises(OptionError, match="no (grouping factor|random effects)"):
            getattr(fit.plot, name)()
    drawn(fit.plot.effects())
    with pytest.raises(OptionError, match="heard"):
        fitted("binomial").plot.influence("heard")


def test_offsets_given_as_arrays_and_missing_rows() -> None:
    data = ml.load("owls").astype({"SiblingNegotiation": float})
    named = ml.Model(OWLS, data, family="poisson").fit(threads=1)
    formula = OWLS.replace(" + offset(log(BroodSize))", "")
    array = ml.Model(formula, data, family="poisson", offset=np.log(data["BroodSize"].to_numpy())).fit(threads=1)
    one, other = (generalised_lines.group_lines(fit, None, None, ["Oleyes"], 18).facets[0] for fit in (named, array))
    np.testing.assert_allclose(one.partial, other.partial, rtol=1e-6)
    np.testing.assert_allclose(one.unpooled, other.unpooled, rtol=1e-5)
    drawn(array.plot.effects())
    data.loc[[0, 30, 31], "SiblingNegotiation"] = np.nan
    holes = ml.Model(OWLS, data, family="poisson").fit(threads=1)
    for draw in (holes.plot.check, holes.plot.groups, holes.plot.shrinkage, holes.plot.influence):
        drawn(draw())


def test_quadrature_and_polars() -> None:
    pl = pytest.importorskip("polars")
    fit = ml.Model(CBPP, pl.from_pandas(ml.load("cbpp")), family="binomial").fit(quadrature=5, threads=1)
    assert isinstance(fit, GeneralisedFit)
    for draw in (fit.plot.check, fit.plot.groups, fit.plot.shrinkage, fit.plot.effects, fit.plot.residuals):
        drawn(draw())


def test_saved_fits_draw_what_they_can(tmp_path: Path) -> None:
    fit = fitted("binomial")
    fit.save(tmp_path / "bare.mlv")
    bare = ml.read(tmp_path / "bare.mlv")
    for name in ("check", "residuals", "groups", "shrinkage", "influence"):
        with pytest.raises(DataError, match="data=True"):
            getattr(bare.plot, name)()
    np.testing.assert_allclose(
        bare.plot.effects().containers[0][0].get_ydata(), fit.plot.effects().containers[0][0].get_ydata(), rtol=1e-8
    )
    fit.save(tmp_path / "whole.mlv", data=True)
    drawn(ml.read(tmp_path / "whole.mlv").plot.check())
