"""Plots of a posterior show its draws, say what they leave out, and refuse what they cannot show."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.colors import to_hex  # noqa: E402
from posterior_samples import COLOURS, PRIORS, SCHOOLS, drawn, flat, lines_of, sampled, texts  # noqa: E402

import multilevel as ml  # noqa: E402
from multilevel import posterior_replicates  # noqa: E402
from multilevel.kernel_density import density  # noqa: E402

pytestmark = pytest.mark.usefixtures("settings_kept")


@pytest.fixture(scope="module")
def math():
    return sampled("math ~ homework + (homework | schid)", ml.load("math10"))


@pytest.fixture(scope="module")
def schools():
    return sampled("y ~ 1 + (1 | school)", SCHOOLS, weights=1 / SCHOOLS["se"] ** 2, priors=PRIORS)


@pytest.fixture(scope="module")
def sleep():
    return sampled("Reaction ~ Days + (Days | Subject)", ml.load("sleepstudy"))


@pytest.fixture(scope="module")
def radon():
    return sampled("log_radon ~ floor + log_uranium + (1 | county)", ml.load("radon"))


@pytest.fixture(scope="module")
def cbpp():
    return sampled("cbind(incidence, size - incidence) ~ period + (1 | herd)", ml.load("cbpp"), family="binomial")


@pytest.fixture(scope="module")
def wine():
    return sampled("rating ~ temp + contact + (1 | judge)", ml.load("wine"), family="ordinal")


@pytest.fixture(scope="module")
def salamanders():
    formula = "count ~ spp + (1 | site)"
    return sampled(formula, ml.load("salamanders"), {"draws": 100}, family="nbinom2", zi="~ mined")


# -- forest and caterpillar -----------------------------------------------------------------------------------


def segments(ax, colour):
    """Horizontal segments of one colour as rows (y, from, to)."""
    out = []
    for one in ax.collections:
        if hasattr(one, "get_segments") and len(one.get_segments()) and to_hex(one.get_color()[0]) == colour.lower():
            out += [(s[0, 1], s[0, 0], s[1, 0]) for s in one.get_segments()]
    return np.array(out)


def test_forest_shows_the_table_of_coefficients(math):
    axes = math.plot.forest()
    figure = drawn(axes)
    assert "Coefficients by schid: posterior means and 95% intervals" in texts(figure)
    table = math.coef()
    first = table[table["term"] == "Intercept"].sort_values("estimate")
    names = [str(level) for level in first["level"]]
    assert [one.get_text() for one in axes[0].get_yticklabels()] == names
    for ax, term in zip(axes, ("Intercept", "homework"), strict=True):
        own = table[table["term"] == term].set_index("level").loc[first["level"]]
        dots = next(one for one in lines_of(ax, COLOURS["partial"]) if one.get_marker() == "o")
        np.testing.assert_allclose(dots.get_xdata(), own["estimate"])
        np.testing.assert_allclose(segments(ax, COLOURS["partial"])[:, 1:], own[["ci_low", "ci_high"]])
        (line,) = lines_of(ax, COLOURS["pooled"])
        fixed = math.fixef().set_index("term").loc[term]
        np.testing.assert_allclose(line.get_xdata(), fixed["estimate"])


def test_ridges_are_densities_of_one_scale(schools):
    ax = schools.plot.forest()
    drawn(ax)
    values = flat(schools.group_effects(0))[:, :, 0] + flat(schools.draws_kept.beta)
    order = np.argsort(values.mean(axis=0))
    curves = [one for one in lines_of(ax, COLOURS["partial"]) if one.get_marker() == "None"]
    assert len(curves) == 8
    heights = [density(values[:, j], curve.get_xdata()) for j, curve in zip(order, curves, strict=True)]
    top = max(h.max() for h in heights)
    for row, (curve, height) in enumerate(zip(curves, heights, strict=True)):
        np.testing.assert_allclose(curve.get_ydata(), row + 1.7 * height / top)


def test_forest_of_many_groups_draws_some_and_says_so(radon):
    ax = radon.plot.forest()
    figure = drawn(ax)
    assert "60 of 85 levels, evenly over the sorted order" in texts(figure)
    table = radon.coef()
    estimates = np.sort(table[table["term"] == "Intercept"]["estimate"])
    dots = next(one for one in lines_of(ax, COLOURS["partial"]) if one.get_marker() == "o")
    assert len(dots.get_xdata()) == 60
    np.testing.assert_allclose(dots.get_xdata()[[0, -1]], estimates[[0, -1]])
    everything = radon.plot.forest(max_groups=100)
    dots = next(one for one in lines_of(everything, COLOURS["partial"]) if one.get_marker() == "o")
    np.testing.assert_allclose(dots.get_xdata(), estimates)


def test_forest_as_intervals_of_one_term(sleep):
    ax = sleep.plot.forest(term="Days", kind="interval", level=0.8)
    figure = drawn(ax)
    assert "80% intervals (thick: 50%)" in texts(figure)
    table = sleep.coef(level=0.8)
    own = table[table["term"] == "Days"].sort_values("estimate")
    found = segments(ax, COLOURS["partial"])
    np.testing.assert_allclose(found[:18, 1:], own[["ci_low", "ci_high"]])
    half = sleep.coef(level=0.5).loc[own.index]
    np.testing.assert_allclose(found[18:, 1:], half[["ci_low", "ci_high"]])


def test_forest_of_effects_without_a_fixed_one_says_difference():
    posterior = sampled("score ~ Machine + (0 + Machine | Worker)", ml.load("machines"))
    axes = posterior.plot.forest()
    figure = drawn(axes)
    assert "Group effects by Worker" in texts(figure)
    assert {ax.get_xlabel() for ax in axes} == {"difference from the population"}


def test_caterpillar_shows_the_table_of_group_effects(math):
    axes = math.plot.caterpillar()
    drawn(axes)
    table = math.ranef()
    first = table[table["term"] == "Intercept"].sort_values("estimate")
    for ax, term in zip(axes, ("Intercept", "homework"), strict=True):
        own = table[table["term"] == term].set_index("level").loc[first["level"]]
        dots = next(one for one in lines_of(ax, COLOURS["partial"]) if one.get_marker() == "o")
        np.testing.assert_allclose(dots.get_xdata(), own["estimate"])
        clear = ((own["ci_low"] > 0) | (own["ci_high"] < 0)).to_numpy()
        assert 0 < clear.sum() < 10
        dark, pale = segments(ax, COLOURS["partial"]), segments(ax, COLOURS["faint"])
        np.testing.assert_allclose(dark[: clear.sum(), 1:], own[["ci_low", "ci_high"]][clear])
        np.testing.assert_allclose(pale[: (~clear).sum(), 1:], own[["ci_low", "ci_high"]][~clear])


@pytest.mark.parametrize("plot", ["forest", "caterpillar", "groups", "predictive"])
def test_group_effects_that_were_not_kept_are_asked_for(plot):
    posterior = sampled("Reaction ~ Days + (Days | Subject)", ml.load("sleepstudy"), {"keep": "parameters"})
    with pytest.raises(ml.OptionError, match="sample with keep='all'"):
        getattr(posterior.plot, plot)()
    drawn(posterior.plot.trace())
    drawn(posterior.plot.predictive(groups=None))


# -- groups ---------------------------------------------------------------------------------------------------


def test_groups_draws_data_lines_of_draws_and_their_mean(sleep):
    axes = sleep.plot.groups(draws=7)
    figure = drawn(axes)
    data = ml.load("sleepstudy")
    kept = sleep.draws_kept
    some = np.unique(np.linspace(0, 999, 7).round().astype(int))
    fit = ml.Model("Reaction ~ Days + (Days | Subject)", data).fit(threads=1).plot.groups()
    for j, (ax, level) in enumerate(zip(axes, data["Subject"].cat.categories, strict=True)):
        assert ax.get_title() == f"{level} (n = 10)"
        (mean,) = [one for one in lines_of(ax, COLOURS["partial"]) if one.get_linewidth() > 1]
        x = mean.get_xdata()
        predicted = sleep.predict(pd.DataFrame({"Days": x, "Subject": level}))["prediction"]
        np.testing.assert_allclose(mean.get_ydata(), predicted, rtol=1e-10)
        thin = lines_of(ax, COLOURS["band"])[:7]
        b = flat(kept.beta)[some] + flat(kept.b[0])[some, j]
        for line, (intercept, slope) in zip(thin, b, strict=True):
            np.testing.assert_allclose(line.get_ydata(), intercept + slope * x, rtol=1e-10)
        for name in ("pooled", "unpooled"):
            mine, theirs = lines_of(ax, COLOURS[name])[0], lines_of(fit[j], COLOURS[name])[0]
            np.testing.assert_allclose(mine.get_xydata(), theirs.get_xydata(), rtol=1e-10)
        rows = data[data["Subject"] == level]
        np.testing.assert_array_equal(lines_of(ax, COLOURS["data"])[0].get_xydata(), rows[["Days", "Reaction"]])
    names = [one.get_text() for one in figure.legends[0].get_texts()]
    fit_names = ["data", "pooled (groups ignored)", "unpooled (each group alone)"]
    assert names == [*fit_names, "posterior mean (partially pooled)", "7 single draws"]


def test_groups_without_a_predictor(schools):
    axes = schools.plot.groups(draws=5)
    drawn(axes)
    assert len(axes) == 8
    table = schools.coef()
    for ax, estimate in zip(axes, table["estimate"], strict=True):
        heights = [one.get_ydata()[0] for one in lines_of(ax, COLOURS["partial"])]
        np.testing.assert_allclose(heights, [estimate])


def test_groups_of_proportions(cbpp):
    axes = cbpp.plot.groups(level=0.9)
    figure = drawn(axes)
    data, kept = ml.load("cbpp"), cbpp.draws_kept
    beta, b = flat(kept.beta), flat(kept.b[0])[:, 0, 0]
    eta = b[:, None] + np.column_stack([beta[:, 0], *(beta[:, 0] + beta[:, i] for i in (1, 2, 3))])
    share = 1 / (1 + np.exp(-eta))
    (marks,) = lines_of(axes[0], COLOURS["partial"])
    np.testing.assert_allclose(marks.get_ydata(), share.mean(axis=0))
    bars = np.array([s[:, 1] for s in axes[0].collections[0].get_segments()])
    np.testing.assert_allclose(bars, np.quantile(share, [0.05, 0.95], axis=0).T)
    rows = data[data["herd"].astype(str) == axes[0].get_title().split()[0]]
    np.testing.assert_allclose(lines_of(axes[0], COLOURS["data"])[0].get_ydata(), rows["incidence"] / rows["size"])
    assert [one.get_text() for one in figure.legends[0].get_texts()] == [
        "data", "posterior mean (partially pooled)", "90% of draws",
    ]  # fmt: skip
    assert "incidence, share of trials by herd" in texts(figure)


def test_groups_of_an_ordinal_response_show_mean_categories(wine):
    axes = wine.plot.groups(x="temp", levels="1")
    drawn(axes)
    kept = wine.draws_kept
    beta, b, cuts = flat(kept.beta), flat(kept.b[0])[:, 0, 0], flat(kept.scalars)[:, 1:]
    contact = ml.load("wine").query("judge == '1' or judge == 1")["contact"].astype(str).value_counts()
    assert contact["no"] == contact["yes"]  # a tie: the first level stands
    expected = []
    for warm in (0, 1):
        upper = 1 / (1 + np.exp(-(cuts - (b + warm * beta[:, 0])[:, None])))
        p = np.diff(np.column_stack([np.zeros(len(b)), upper, np.ones(len(b))]), axis=1)
        expected.append((p @ np.arange(1, 6)).mean())
    (marks,) = lines_of(axes, COLOURS["partial"])
    np.testing.assert_allclose(marks.get_ydata(), expected)
    assert [one.get_text() for one in axes.get_yticklabels()] == ["1", "2", "3", "4", "5"]


@pytest.mark.slow
def test_groups_of_counts_with_extra_zeros(salamanders):
    ax = salamanders.plot.groups(levels="VF-1")
    drawn(ax)
    kept = salamanders.draws_kept
    names = [c.name for c in kept.coordinates]
    at = [str(one) for one in salamanders.design.terms[0].levels].index("VF-1")
    data = ml.load("salamanders")
    mined = data.loc[data["site"].astype(str) == "VF-1", "mined"].astype(str).iloc[0]
    logit = flat(kept.scalars)[:, names.index("zi[Intercept]")]
    logit = logit + (mined == "no") * flat(kept.scalars)[:, names.index("zi[mined[T.no]]")]
    mu = np.exp(flat(kept.beta)[:, 0] + flat(kept.b[0])[:, at, 0])
    (marks,) = lines_of(ax, COLOURS["partial"])
    np.testing.assert_allclose(marks.get_ydata()[0], (mu / (1 + np.exp(logit))).mean())


def test_groups_on_given_axes(sleep):
    _, ax = plt.subplots()
    assert sleep.plot.groups(levels=["308", "309"], ax=ax) is ax
    assert len(ax.get_legend().get_texts()) == 5
    _, pair = plt.subplots(1, 2)
    with pytest.raises(ml.OptionError, match="there are 3 panels to draw, but ax has 2"):
        sleep.plot.groups(levels=["308", "309", "310"], ax=pair)


# -- effects --------------------------------------------------------------------------------------------------


def test_effects_are_population_predictions_with_credible_bands(radon):
    axes = radon.plot.effects(level=0.9)
    drawn(axes)
    data = ml.load("radon")
    (line,) = lines_of(axes[1], COLOURS["partial"])
    x = line.get_xdata()
    new = pd.DataFrame({"log_uranium": x, "floor": data["floor"].mean()})
    table = radon.predict(new, groups=None, interval="confidence", level=0.9)
    np.testing.assert_allclose(line.get_ydata(), table["prediction"], rtol=1e-10)
    edge = axes[1].collections[0].get_paths()[0].vertices
    for column in ("ci_low", "ci_high"):
        for value in np.asarray(table[column])[[0, 20, 40]]:
            assert np.abs(edge[:, 1] - value).min() < 1e-10


def test_effects_of_a_generalised_model_are_on_the_scale_of_the_response(cbpp, wine):
    ax = cbpp.plot.effects()
    drawn(ax)
    beta = flat(cbpp.draws_kept.beta)
    share = 1 / (1 + np.exp(-(beta[:, 0] + beta[:, 3])))
    (marks,) = [one for one in lines_of(ax, COLOURS["partial"]) if one.get_marker() == "D"]
    assert marks.get_ydata()[3] == pytest.approx(share.mean())
    assert ax.get_ylabel() == "incidence, share of trials"
    axes = wine.plot.effects()
    drawn(axes)
    assert len(axes) == 2
    assert axes[0].get_title() == "at contact = no"
    with pytest.raises(ml.OptionError, match="'judge' is no fixed predictor"):
        wine.plot.effects("judge")


def test_effects_hold_and_draw_what_is_asked(radon):
    ax = radon.plot.effects("floor", at={"log_uranium": 0.25})
    drawn(ax)
    assert ax.get_title() == "at log_uranium = 0.25"
    beta = flat(radon.draws_kept.beta)
    (line,) = lines_of(ax, COLOURS["partial"])
    assert line.get_ydata()[0] == pytest.approx((beta[:, 0] + 0.25 * beta[:, 2]).mean())


# -- predictive -----------------------------------------------------------------------------------------------


def test_predictive_density_is_of_the_simulated_responses(math):
    ax = math.plot.predictive(12, seed=5)
    drawn(ax)
    simulated = math.simulate(12, seed=5)
    thin = lines_of(ax, COLOURS["band"])
    assert len(thin) == 12
    for i, line in enumerate(thin):
        np.testing.assert_allclose(line.get_ydata(), density(simulated[f"sim_{i + 1}"].to_numpy(), line.get_xdata()))
    (observed,) = lines_of(ax, "black")
    np.testing.assert_allclose(observed.get_ydata(), density(ml.load("math10")["math"].to_numpy(float), observed.get_xdata()))


def test_predictive_of_few_rows_is_cumulative(schools):
    ax = schools.plot.predictive()
    drawn(ax)
    (observed,) = lines_of(ax, "black")
    np.testing.assert_array_equal(observed.get_xdata()[1:-1], np.sort(SCHOOLS["y"]))
    np.testing.assert_allclose(observed.get_ydata(), [0, *np.arange(1, 9) / 8, 1])
    assert len(lines_of(ax, COLOURS["band"])) == posterior_replicates.LINES_DRAWN
    ax = schools.plot.predictive(kind="density", groups=None)
    assert "groups drawn anew" in texts(drawn(ax))


def binomial_draws(posterior, n, groups, rng):
    trials = posterior.design.trials.astype(int)
    return np.stack([rng.binomial(trials, 0.15).astype(float) for _ in range(n)])


def test_predictive_frequencies_count_rows(cbpp, monkeypatch):
    monkeypatch.setattr(posterior_replicates, "simulate", binomial_draws)
    ax = cbpp.plot.predictive(100, seed=3)
    drawn(ax)
    y = ml.load("cbpp")["incidence"].to_numpy()
    bars = {round(p.get_x() + p.get_width() / 2): p.get_height() for p in ax.patches}
    assert bars[0] == (y == 0).sum()
    assert bars[3] == (y == 3).sum()
    simulated = binomial_draws(cbpp, 100, "all", np.random.default_rng(3))
    ends = np.quantile((simulated == 2).sum(axis=1), [0.025, 0.975])
    np.testing.assert_allclose(ax.collections[0].get_segments()[2][:, 1], ends)
    assert ax.get_xlabel() == "incidence"


def test_predictive_of_counts_is_a_rootogram_in_bins(salamanders, monkeypatch):
    def wide(posterior, n, groups, rng):
        return rng.poisson(100, (n, posterior.nobs)).astype(float)

    monkeypatch.setattr(posterior_replicates, "simulate", wide)
    ax = salamanders.plot.predictive(20)
    figure = drawn(ax)
    assert "rootogram" in texts(figure)
    assert "counts in bins of" in texts(figure)
    assert sum(p.get_height() for p in ax.patches) == salamanders.nobs
    assert len(ax.patches) <= posterior_replicates.MOST_BARS


def test_predictive_names_the_categories(wine):
    ax = wine.plot.predictive()
    drawn(ax)
    assert [one.get_text() for one in ax.get_xticklabels()] == ["1", "2", "3", "4", "5"]
    counts = ml.load("wine")["rating"].astype(str).value_counts()
    assert [p.get_height() for p in ax.patches] == [counts[str(i)] for i in range(1, 6)]


# -- manners --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda plot: plot.predictive(kind="frequencies"), "a gaussian response is continuous"),
        (lambda plot: plot.predictive(kind="bars"), "kind 'bars' is not known"),
        (lambda plot: plot.predictive(0), "draws must be a whole number of at least 1, got 0"),
        (lambda plot: plot.groups(draws=1.5), "draws must be a whole number of at least 1, got 1.5"),
        (lambda plot: plot.groups(max_groups=0), "max_groups must be a positive whole number"),
        (lambda plot: plot.groups("homewrk"), "'homewrk' is no predictor of the model; did you mean 'homework'"),
        (lambda plot: plot.groups(level=95), "level must lie between 0 and 1"),
        (lambda plot: plot.forest("school"), "'school' is no grouping factor of the model"),
        (lambda plot: plot.forest(term="ses"), "'ses' is no effect of 'schid'"),
        (lambda plot: plot.forest(kind="violin"), "kind 'violin' is not known"),
        (lambda plot: plot.forest(max_groups=True), "max_groups must be a whole number of at least 1"),
        (lambda plot: plot.caterpillar(level=0), "level must lie between 0 and 1"),
        (lambda plot: plot.pair(max_points=0), "max_points must be a whole number"),
        (lambda plot: plot.trace("sigma", ax=3), "ax must be a matplotlib Axes"),
    ],
)
def test_bad_input_is_named(math, call, message):
    with pytest.raises(ml.OptionError, match=message):
        call(math.plot)


def test_models_without_groups_say_so():
    posterior = sampled("math ~ homework", ml.load("math10"))
    for plot in ("forest", "caterpillar", "groups"):
        with pytest.raises(ml.OptionError, match="no grouping factor"):
            getattr(posterior.plot, plot)()
    for plot in ("trace", "pair", "prior", "predictive", "effects"):
        drawn(getattr(posterior.plot, plot)())


def test_the_plots_are_listed(math):
    for name in ("trace", "forest", "groups", "predictive", "prior", "pair", "caterpillar", "effects"):
        assert f"{name}()" in repr(math.plot)
        assert callable(getattr(math.plot, name))
