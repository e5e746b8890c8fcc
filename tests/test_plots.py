"""Plots show the numbers of the fit, with the user's names, and leave no trace elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

import multilevel as ml  # noqa: E402
from multilevel import effect_lines, plot_panels, pooling_lines  # noqa: E402

pytestmark = pytest.mark.usefixtures("settings_kept")


def fitted(formula, data, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ml.MultilevelWarning)
        return ml.Model(formula, data, **options).fit(threads=1)


@pytest.fixture(scope="module")
def sleep():
    return fitted("Reaction ~ Days + (Days | Subject)", ml.load("sleepstudy"))


@pytest.fixture(scope="module")
def radon():
    return fitted("log_radon ~ floor + log_uranium + (1 | county)", ml.load("radon"))


@pytest.fixture(scope="module")
def machines():
    return fitted("score ~ Machine + (0 + Machine | Worker)", ml.load("machines"))


@pytest.fixture(scope="module")
def pastes():
    return fitted("strength ~ 1 + (1 | batch/cask)", ml.load("pastes"))


def line(ax, name):
    """The line of one kind of pooling in a facet."""
    colour = plot_panels.COLOURS[name]
    return next(one for one in ax.lines if one.get_color() == colour)


def texts(figure):
    return " ".join(one.get_text() for one in figure.findobj(matplotlib.text.Text))


def drawn(axes):
    """Draw for real: layout that does not work warns, and warnings are errors here."""
    figure = np.ravel(axes)[0].figure
    figure.canvas.draw()
    return figure


# -- groups -------------------------------------------------------------------------------------------------


def test_groups_draws_data_and_three_lines(sleep):
    axes = sleep.plot.groups()
    data = ml.load("sleepstudy")
    assert len(axes) == 18
    figure = drawn(axes)
    for ax, level in zip(axes, data["Subject"].cat.categories, strict=True):
        assert ax.get_title() == f"{level} (n = 10)"
        rows = data[data["Subject"] == level]
        points = ax.lines[0].get_xydata()
        np.testing.assert_array_equal(points, rows[["Days", "Reaction"]].to_numpy())
        x = line(ax, "partial").get_xdata()
        new = pd.DataFrame({"Days": x, "Subject": level})
        predicted = sleep.predict(new)["prediction"]
        np.testing.assert_allclose(line(ax, "partial").get_ydata(), predicted, rtol=1e-12)
        own = np.polyval(np.polyfit(rows["Days"], rows["Reaction"], 1), x)
        np.testing.assert_allclose(line(ax, "unpooled").get_ydata(), own, rtol=1e-9)
        pooled = np.polyval(np.polyfit(data["Days"], data["Reaction"], 1), x)
        np.testing.assert_allclose(line(ax, "pooled").get_ydata(), pooled, rtol=1e-9)
    assert len(figure.legends) == 1
    assert [one.get_text() for one in figure.legends[0].get_texts()] == ["data", *plot_panels.LEGEND.values()]
    assert "Reaction by Subject" in texts(figure)
    assert axes[-1].get_xlabel() == "Days"


def test_groups_spreads_over_sizes_and_says_so(radon):
    axes = radon.plot.groups(max_groups=16)
    figure = drawn(axes)
    assert len(axes) == 16
    assert "log_radon by county: 16 of 85 groups" in texts(figure)
    assert "log_uranium at each group's mean" in texts(figure)
    sizes = [int(ax.get_title().split("n = ")[1].rstrip(")")) for ax in axes]
    every = ml.load("radon")["county"].value_counts()
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (every.min(), every.max())


def test_groups_holds_other_predictors_at_the_groups_own(radon):
    data = ml.load("radon")
    ax = radon.plot.groups(levels="ANOKA")
    rows = data[data["county"] == "ANOKA"]
    x = line(ax, "partial").get_xdata()
    new = pd.DataFrame({"floor": x, "log_uranium": rows["log_uranium"].mean(), "county": "ANOKA"})
    predicted = radon.predict(new)["prediction"]
    np.testing.assert_allclose(line(ax, "partial").get_ydata(), predicted, rtol=1e-12)
    assert (x[0], x[-1]) == (0, 1)


def test_unpooled_line_stops_where_the_rows_do_not_tell(radon):
    data = ml.load("radon")
    spread = data.groupby("county")["floor"].agg(["nunique", "size", "min"])
    flat = spread[(spread["nunique"] == 1) & (spread["size"] > 2) & (spread["min"] == 0)].index[0]
    two = spread[(spread["nunique"] == 2) & (spread["size"] == 2)].index[0]
    found = pooling_lines.group_lines(radon, levels=[flat, two])
    own, exact = (facet.unpooled for facet in found.facets)
    assert np.isfinite(own).sum() == 1
    np.testing.assert_allclose(own[0], data.loc[data["county"] == flat, "log_radon"].mean(), rtol=1e-12)
    assert np.isnan(exact).all()
    assert "no unpooled line: its rows do not determine one" in " ".join(
        texts(drawn(radon.plot.groups(levels=[flat, two]))).split()
    )


def test_groups_with_a_factor_draws_points_per_level(machines):
    axes = machines.plot.groups()
    drawn(axes)
    assert len(axes) == 6
    for ax, level in zip(axes, machines.design.terms[0].levels, strict=True):
        new = pd.DataFrame({"Machine": ["A", "B", "C"], "Worker": level})
        partial = line(ax, "partial")
        np.testing.assert_allclose(partial.get_ydata(), machines.predict(new)["prediction"], rtol=1e-12)
        assert partial.get_linestyle() == "None"
    assert [one.get_text() for one in axes[-1].get_xticklabels()] == ["A", "B", "C"]


def test_groups_of_an_intercept_only_model_are_level(pastes):
    axes = pastes.plot.groups(group="batch:cask", levels=["A:a", "B:c"])
    figure = drawn(axes)
    new = pd.DataFrame({"batch": ["A", "B"], "cask": ["a", "c"]})
    for ax, value in zip(axes, pastes.predict(new)["prediction"], strict=True):  # with the batch's effect
        np.testing.assert_allclose(line(ax, "partial").get_ydata(), value, rtol=1e-12)
    assert "include the effects of batch" in texts(figure)
    batch = pastes.plot.groups(levels=["A"])
    value = pastes.predict(pd.DataFrame({"batch": ["A"]}), groups=["batch"])["prediction"].iloc[0]
    np.testing.assert_allclose(line(batch, "partial").get_ydata(), value, rtol=1e-12)


def test_groups_uses_factors_slopes_and_booleans_in_order():
    rng = np.random.default_rng(3)
    n = 300
    data = pd.DataFrame(
        {"g": rng.integers(0, 6, n), "a": rng.normal(size=n), "b": rng.normal(size=n), "t": rng.random(n) > 0.5}
    )
    data["y"] = data["a"] + data["g"] * (1 + data["b"]) + data["t"] + rng.normal(size=n)
    fit = fitted("y ~ a + t + b + (b | g)", data)
    assert pooling_lines.group_lines(fit).x == "b"
    assert pooling_lines.group_lines(fit, x="a").x == "a"
    lines = pooling_lines.group_lines(fit, x="t")
    assert lines.labels == ("False", "True")
    assert lines.held == {"a": "mean", "b": "mean"}
    assert pooling_lines.group_lines(fitted("y ~ t + a + (1 | g)", data)).x == "a"
    assert pooling_lines.group_lines(fitted("y ~ t + (1 | g)", data)).x == "t"
    drawn(fit.plot.groups(x="t"))


def test_weights_and_offset_enter_all_lines():
    rng = np.random.default_rng(4)
    n = 200
    data = pd.DataFrame({"g": rng.integers(0, 5, n), "x": rng.normal(size=n), "o": 5 + rng.normal(size=n)})
    data["w"] = rng.uniform(0.5, 3, n)
    data["y"] = data["o"] + data["x"] + data["g"] + rng.normal(size=n)
    named = fitted("y ~ x + (1 | g)", data, weights="w", offset="o")
    given = fitted("y ~ x + (1 | g)", data, weights="w", offset=data["o"].to_numpy())
    for one, other in zip(
        pooling_lines.group_lines(named).facets, pooling_lines.group_lines(given).facets, strict=True
    ):
        rows = data[data["g"] == one.level]
        line_fit = np.polyfit(rows["x"], rows["y"] - rows["o"], 1, w=np.sqrt(rows["w"]))
        grid = np.linspace(data["x"].min(), data["x"].max(), effect_lines.GRID)
        np.testing.assert_allclose(one.unpooled, np.polyval(line_fit, grid) + rows["o"].mean(), rtol=1e-9)
        for name in ("pooled", "unpooled", "partial"):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-9)


def test_groups_on_axes_of_the_caller(sleep):
    _, ax = plt.subplots()
    assert sleep.plot.groups(ax=ax) is ax
    assert sum(one.get_color() == plot_panels.COLOURS["partial"] for one in ax.lines) == 18
    assert len(ax.get_legend().get_texts()) == 4
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Days", "Reaction")
    _, pair = plt.subplots(1, 2)
    out = sleep.plot.groups(levels=["308", "309"], ax=pair)
    assert list(out) == list(pair)
    with pytest.raises(ml.OptionError, match="there are 18 panels to draw, but ax has 2"):
        sleep.plot.groups(ax=pair)
    with pytest.raises(ml.OptionError, match="must be a matplotlib Axes"):
        sleep.plot.groups(ax="left")


# -- caterpillar --------------------------------------------------------------------------------------------


def test_caterpillar_is_sorted_with_intervals(sleep):
    axes = sleep.plot.caterpillar(level=0.9)
    drawn(axes)
    table = sleep.ranef()
    assert [ax.get_title() for ax in axes] == ["Subject: Intercept", "Subject: Days"]
    for ax, term in zip(axes, ("Intercept", "Days"), strict=True):
        rows = table[table["term"] == term].set_index("level")
        order = table[table["term"] == "Intercept"].sort_values("estimate")["level"]
        points = next(one for one in ax.lines if one.get_marker() == "o")
        np.testing.assert_allclose(points.get_xdata(), rows.loc[order, "estimate"])
        ends = np.concatenate(
            [np.array(one.get_segments())[:, :, 0] for one in ax.collections if len(one.get_segments())]
        )
        half = 1.6448536269514722 * rows["std_error"]
        np.testing.assert_allclose(np.sort(ends[:, 0]), np.sort(rows["estimate"] - half))
        np.testing.assert_allclose(np.sort(ends[:, 1]), np.sort(rows["estimate"] + half))
    assert [one.get_text() for one in axes[0].get_yticklabels()] == list(order)
    assert "90% intervals" in texts(axes[0].figure)


def test_caterpillar_of_many_levels_counts_them(radon):
    ax = radon.plot.caterpillar()
    drawn(ax)
    assert ax.get_ylabel() == "county: 85 levels, sorted"
    assert not len(ax.get_yticks())


def test_caterpillar_of_one_group_and_term(sleep, pastes):
    assert sleep.plot.caterpillar(term="Days").get_title() == "Subject: Days"
    assert pastes.plot.caterpillar("batch").get_title() == "batch: Intercept"
    assert len(pastes.plot.caterpillar()) == 2


# -- shrinkage ----------------------------------------------------------------------------------------------


def test_shrinkage_goes_from_least_squares_to_the_model(sleep):
    ax = sleep.plot.shrinkage()
    drawn(ax)
    data = ml.load("sleepstudy")
    own = np.array([np.polyfit(d["Days"], d["Reaction"], 1)[::-1] for _, d in data.groupby("Subject", observed=True)])
    coef = sleep.coef().pivot(index="level", columns="term", values="value")[["Intercept", "Days"]].to_numpy()
    np.testing.assert_allclose(line(ax, "unpooled").get_xydata(), own, rtol=1e-8)
    np.testing.assert_allclose(line(ax, "partial").get_xydata(), coef, rtol=1e-10)
    np.testing.assert_allclose(line(ax, "pooled").get_xydata()[0], sleep.optimum.beta)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Intercept", "Days")
    ring = ax.lines[0].get_xydata() - sleep.optimum.beta  # half of a normal distribution lies inside
    distance = np.einsum("ij,jk,ik->i", ring, np.linalg.inv(sleep.random_cov()[0]), ring)
    np.testing.assert_allclose(distance, 2 * np.log(2), rtol=1e-8)


def test_shrinkage_of_one_effect_is_towards_the_population(radon, pastes):
    for fit, group in ((radon, "county"), (pastes, "batch:cask")):
        found = pooling_lines.shrinkage(fit, group)
        own, partial = found.own[:, 0] - found.population[0], found.partial[:, 0] - found.population[0]
        var, n = fit.random_cov()[[t.group for t in fit.design.terms].index(group)][0, 0], found.sizes
        np.testing.assert_allclose(partial, own * var / (var + fit.sigma**2 / n), atol=1e-7)
        drawn(fit.plot.shrinkage(group))
    assert "effects of floor and log_uranium subtracted" in radon.plot.shrinkage().get_title()
    assert "effects of batch subtracted" in pastes.plot.shrinkage("batch:cask").get_title()


def test_shrinkage_in_the_coordinates_of_the_random_effects(machines):
    found = pooling_lines.shrinkage(machines)
    means = ml.load("machines").groupby(["Worker", "Machine"], observed=True)["score"].mean().unstack()
    np.testing.assert_allclose(found.own, means.to_numpy(), rtol=1e-10)
    np.testing.assert_allclose(found.population, means.mean().to_numpy(), rtol=1e-8)
    assert found.fixed == ()
    ax = machines.plot.shrinkage(terms=["Machine[B]", "Machine[C]"])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Machine[B]", "Machine[C]")
    assert machines.plot.shrinkage(terms="Machine[B]").get_xlabel() == "Machine[B]"


def test_shrinkage_of_singular_fits():
    fit = fitted("Yield ~ 1 + (1 | Batch)", ml.load("dyestuff2"))
    ax = fit.plot.shrinkage()
    drawn(ax)
    np.testing.assert_allclose(line(ax, "partial").get_xdata(), fit.optimum.beta[0])
    data = ml.load("sleepstudy")
    data["z"] = np.random.default_rng(0).normal(size=len(data))
    flat = fitted("z ~ Days + (Days | Subject)", data)
    assert flat.is_singular
    for one in (
        flat.plot.shrinkage(),
        flat.plot.caterpillar(),
        flat.plot.groups(),
        fit.plot.groups(),
        fit.plot.residuals(),
    ):
        drawn(one)


# -- effects ------------------------------------------------------------------------------------------------


def test_effects_are_population_predictions_with_bands(radon):
    axes = radon.plot.effects(level=0.9)
    drawn(axes)
    data = ml.load("radon")
    means = {"floor": data["floor"].mean(), "log_uranium": data["log_uranium"].mean()}
    for ax, name in zip(axes, means, strict=True):
        assert ax.get_xlabel() == name
        curve = line(ax, "partial").get_xydata()
        new = pd.DataFrame({**means, name: curve[:, 0]})
        table = radon.predict(new, groups=None, interval="confidence", level=0.9)
        np.testing.assert_allclose(curve[:, 1], table["prediction"], rtol=1e-12)
        band = ax.collections[0].get_paths()[0].vertices[:, 1]
        np.testing.assert_allclose([band.min(), band.max()], [table["conf_low"].min(), table["conf_high"].max()])
    assert axes[1].get_title() == f"at floor = {means['floor']:.3g}"


def test_effects_of_factors_hold_the_reference(machines):
    data = ml.load("cake")
    fit = fitted("angle ~ recipe * temp + (1 | recipe:replicate)", data)
    axes = fit.plot.effects()
    drawn(axes)
    assert axes[1].get_title() == "at recipe = A"
    found = effect_lines.effect(fit, "temp", {"recipe": "C", "temp": (100, 200)})
    new = pd.DataFrame({"recipe": "C", "temp": found.grid})
    np.testing.assert_allclose(found.estimate, fit.predict(new, groups=None)["prediction"], rtol=1e-12)
    assert (found.grid[0], found.grid[-1]) == (100, 200)
    ax = machines.plot.effects()
    assert [one.get_text() for one in ax.get_xticklabels()] == ["A", "B", "C"]
    means = ml.load("machines").groupby("Machine", observed=True)["score"].mean()
    np.testing.assert_allclose(line(ax, "partial").get_ydata(), means, rtol=1e-8)


def test_partial_residuals_sit_on_the_line(sleep):
    found = effect_lines.effect(sleep, "Days", points=1000)
    beta, data = sleep.optimum.beta, ml.load("sleepstudy")
    np.testing.assert_allclose(found.y - beta[0] - beta[1] * data["Days"], sleep.residuals(), atol=1e-9)
    drawn(sleep.plot.effects(points=True))


def test_effects_without_predictors_draw_the_mean(pastes):
    ax = pastes.plot.effects()
    drawn(ax)
    np.testing.assert_allclose(line(ax, "partial").get_ydata(), pastes.optimum.beta)
    assert ax.get_xlabel() == "population mean"


# -- residuals ----------------------------------------------------------------------------------------------


def test_residuals_and_quantiles(sleep):
    axes = sleep.plot.residuals()
    drawn(axes)
    points = next(one for one in axes[0].lines if one.get_marker() == "o")
    np.testing.assert_allclose(points.get_xdata(), sleep.fitted())
    np.testing.assert_allclose(points.get_ydata(), sleep.residuals() / sleep.sigma)
    ordered = next(one for one in axes[1].lines if one.get_marker() == "o")
    np.testing.assert_allclose(ordered.get_ydata(), np.sort(sleep.residuals() / sleep.sigma))
    _, ax = plt.subplots()
    assert sleep.plot.residuals(ax=ax) is ax


def test_smooth_follows_a_straight_line_and_a_bend():
    rng = np.random.default_rng(0)
    for n in (2, 30, 5000):
        x = rng.uniform(0, 1, n)
        grid, y = plot_panels.smooth(x, 3 - 2 * x)
        np.testing.assert_allclose(y, 3 - 2 * grid, atol=1e-6)
    grid, y = plot_panels.smooth(x, (x - 0.5) ** 2)
    assert y[0] > 0.15 and y[len(y) // 2] < 0.05
    assert plot_panels.smooth(np.ones(9), np.arange(9.0)) == (1.0, 4.0)


# -- size, libraries, errors --------------------------------------------------------------------------------


def test_long_columns_are_sampled_and_it_is_said():
    rng = np.random.default_rng(0)
    n = 30_000
    g = rng.integers(0, 400, n)
    data = {"y": rng.normal(size=n) + rng.normal(size=400)[g], "x": rng.normal(size=n), "g": g}
    fit = fitted("y ~ x + (1 | g)", data)
    assert "5,000 of 30,000 points drawn" in texts(drawn(fit.plot.residuals()))
    assert "partial residuals of 5,000 of 30,000 rows" in texts(drawn(fit.plot.effects(points=True)))
    assert "300 of 400 groups drawn" in texts(drawn(fit.plot.shrinkage()))
    assert "of 400 groups" in texts(drawn(fit.plot.groups()))
    two = fitted("y ~ x + (1 | h)", {**data, "h": g % 2})
    figure = drawn(two.plot.groups())
    assert "10,000 of 30,000 points drawn" in texts(figure)


def test_polars_and_missing_rows():
    pl = pytest.importorskip("polars")
    data = ml.load("sleepstudy")
    data["Days"] = data["Days"].astype(float)
    data.loc[3, "Days"] = np.nan
    fit = fitted("Reaction ~ Days + (Days | Subject)", pl.from_pandas(data, nan_to_null=True))
    for axes in (
        fit.plot.groups(),
        fit.plot.caterpillar(),
        fit.plot.shrinkage(),
        fit.plot.effects(),
        fit.plot.residuals(),
    ):
        drawn(axes)
    assert fit.plot.groups()[0].get_title() == "308 (n = 9)"


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("groups", {"group": "subject"}, "'subject' is no grouping factor of the model; did you mean 'Subject'?"),
        ("groups", {"x": "Day"}, "'Day' is no predictor of the model; did you mean 'Days'?"),
        ("groups", {"levels": ["3080"]}, "'3080' is no level of 'Subject'; did you mean"),
        ("groups", {"levels": []}, "levels is empty"),
        ("groups", {"max_groups": 0}, "max_groups must be a positive whole number"),
        ("caterpillar", {"term": "days"}, "'days' is no random effect of 'Subject'; did you mean 'Days'?"),
        ("caterpillar", {"level": 95}, "level must lie between 0 and 1"),
        ("shrinkage", {"group": 3}, "3 is no grouping factor"),
        ("shrinkage", {"terms": ["Days", "Days"]}, "two different ones"),
        ("shrinkage", {"terms": ["Dyas"]}, "did you mean 'Days'?"),
        ("effects", {"term": "Dayz"}, "'Dayz' is no fixed predictor of the model; did you mean 'Days'?"),
        ("effects", {"at": {"days": 3}}, "did you mean 'Days'?"),
        ("effects", {"at": {"Days": ("a", "b")}}, "must be a number"),
    ],
)
def test_errors_in_the_users_words(sleep, method, options, message):
    with pytest.raises(ml.OptionError, match=re.escape(message)):
        getattr(sleep.plot, method)(**options)
    assert not plt.get_fignums()


def test_a_fit_without_its_data(sleep, machines):
    """What can be drawn without rows is; the rest says how to keep them."""
    from dataclasses import replace

    from multilevel.fit import Fit

    def bare(fit):
        design = replace(fit.design, y=None, X=None, rows=None, offset=None, weights=None)
        return Fit(fit.model.with_design(design), fit.optimum, fit.engine)

    for method in ("groups", "shrinkage", "residuals"):
        with pytest.raises(ml.DataError, match="data=True"):
            getattr(bare(sleep).plot, method)()
    drawn(bare(sleep).plot.caterpillar())
    drawn(bare(machines).plot.effects())
    with pytest.raises(ml.DataError, match=r"range of 'Days' is not known; give it, as in at=\{'Days': \(0, 1\)\}"):
        bare(sleep).plot.effects()
    ax = bare(sleep).plot.effects(at={"Days": (0, 9)})
    np.testing.assert_allclose(line(ax, "partial").get_ydata()[[0, -1]], sleep.optimum.beta @ [[1, 1], [0, 9]])


def test_matplotlib_is_imported_only_to_draw(monkeypatch, sleep):
    code = "import sys, multilevel.plots; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ml.OptionError, match=r"pip install multilevel\[plots\]"):
        sleep.plot.residuals()
