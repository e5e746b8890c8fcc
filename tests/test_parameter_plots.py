"""Plots of parameters: densities, traces, pairs and priors show the draws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
from posterior_samples import COLOURS, PRIORS, SCHOOLS, divergent, drawn, flat, lines_of, sampled, texts  # noqa: E402

import multilevel as ml  # noqa: E402
from multilevel import parameter_plots, posterior_panels, posterior_values  # noqa: E402
from multilevel.kernel_density import bandwidth, density  # noqa: E402
from multilevel.posterior import Posterior  # noqa: E402

pytestmark = pytest.mark.usefixtures("settings_kept")


@pytest.fixture(scope="module")
def math():
    return sampled("math ~ homework + (homework | schid)", ml.load("math10"))


@pytest.fixture(scope="module")
def nuts():
    return sampled("math ~ homework + (homework | schid)", ml.load("math10"), {"method": "nuts"})


@pytest.fixture(scope="module")
def schools():
    return sampled("y ~ 1 + (1 | school)", SCHOOLS, weights=1 / SCHOOLS["se"] ** 2, priors=PRIORS)


@pytest.fixture(scope="module")
def radon():
    return sampled("log_radon ~ floor + log_uranium + (1 | county)", ml.load("radon"))


@pytest.fixture(scope="module")
def wine():
    return sampled("rating ~ temp + contact + (1 | judge)", ml.load("wine"), family="ordinal")


@pytest.fixture(scope="module")
def salamanders():
    formula = "count ~ spp + (1 | site)"
    return sampled(formula, ml.load("salamanders"), {"draws": 100, "method": "nuts"}, family="nbinom2", zi="~ mined")


# -- densities ------------------------------------------------------------------------------------------------


def test_density_is_the_gaussian_kernel_estimate():
    from scipy.stats import gaussian_kde

    x = np.random.default_rng(0).gamma(3.0, 2.0, 2000)
    grid = np.linspace(-2, 30, 200)
    exact = gaussian_kde(x, bandwidth(x) / x.std(ddof=1))(grid)
    np.testing.assert_allclose(density(x, grid), exact, atol=2e-3 * exact.max())


def test_density_keeps_its_mass_inside_the_range():
    x = np.random.default_rng(0).exponential(1.0, 20_000)
    grid = np.linspace(-1, 15, 4001)
    height = density(x, grid, lower=0.0)
    assert (height[grid < 0] == 0).all()
    assert height.sum() * (grid[1] - grid[0]) == pytest.approx(1, abs=5e-3)
    assert height[np.searchsorted(grid, 0.0)] == pytest.approx(1.0, abs=0.12)  # half of that without folding
    r = np.random.default_rng(0).uniform(-1, 1, 20_000)
    np.testing.assert_allclose(density(r, np.linspace(-1, 1, 101), -1.0, 1.0), 0.5, atol=0.05)


def test_density_of_equal_draws_is_finite():
    height = density(np.full(10, 3.0), np.linspace(2.99, 3.01, 101))
    assert np.isfinite(height).all()
    assert height.max() > 0


# -- trace ----------------------------------------------------------------------------------------------------


def test_trace_of_independent_draws_is_a_density_of_each_chain(math):
    axes = math.plot.trace()
    figure = drawn(axes)
    assert [ax.get_title(loc="left") for ax in axes] == [
        "Intercept", "homework", "sd(schid, Intercept)", "sd(schid, homework)", "cor(schid, Intercept, homework)", "sigma",
    ]  # fmt: skip
    assert "1,000 draws in 4 chains" in texts(figure)
    assert "independent draws" in texts(figure)
    values = math.draws_kept.scalars[:, :, 0]
    assert len(axes[2].lines) == 4
    for line, own in zip(axes[2].lines, values, strict=True):
        np.testing.assert_allclose(line.get_ydata(), density(own, line.get_xdata(), 0.0))


def test_trace_of_a_sampler_shows_draws_and_marks_divergent_ones(nuts):
    posterior = divergent(nuts, [(0, 7), (2, 200)])
    axes = posterior.plot.trace()
    figure = drawn(axes)
    assert len(axes) == 12
    assert "2 divergent transitions, marked" in texts(figure)
    beta = nuts.draws_kept.beta
    for c in range(4):
        np.testing.assert_array_equal(axes[1].lines[c].get_ydata(), beta[c, :, 0])
    (rug,) = lines_of(axes[1], posterior_panels.DIVERGING)
    assert list(rug.get_xdata()) == [7, 200]
    (rug,) = lines_of(axes[0], posterior_panels.DIVERGING)
    np.testing.assert_array_equal(rug.get_xdata(), [beta[0, 7, 0], beta[2, 200, 0]])
    assert "no divergent transitions" in texts(drawn(divergent(nuts, []).plot.trace("sigma")))
    (title,) = [axes[1].get_title(loc="right")]
    row = nuts.fixef().iloc[0]
    assert title == f"R-hat {row['rhat']:.3f}, effective draws {row['ess_bulk']:,.0f}"


def test_trace_by_rank_counts_every_draw(nuts):
    axes = nuts.plot.trace("homework", kind="rank")
    drawn(axes)
    stairs = [one for one in axes[1].patches if hasattr(one, "get_data")]
    counts = np.array([one.get_data().values for one in stairs])
    assert counts.shape == (4, posterior_panels.RANK_BINS)
    assert (counts.sum(axis=1) == 250).all()
    assert (counts.sum(axis=0) == 50).all()


def test_trace_of_exact_draws_and_on_request():
    posterior = sampled(
        "y ~ 1 + (1 | school)", SCHOOLS, weights=1 / SCHOOLS["se"] ** 2, priors=PRIORS | {"sd": ml.Fixed(5.0)}
    )
    assert posterior.draws_kept.method == "exact"
    figure = drawn(posterior.plot.trace())
    assert "drawn exactly" in texts(figure)
    axes = posterior.plot.trace(kind="trace")
    np.testing.assert_array_equal(axes[1].lines[0].get_ydata(), posterior.draws_kept.beta[0, :, 0])
    with pytest.raises(ml.OptionError, match="kind 'lines' is not known"):
        posterior.plot.trace(kind="lines")


def test_trace_of_many_parameters_says_which(salamanders):
    axes = salamanders.plot.trace()
    figure = drawn(axes)
    assert len(axes) == 2 * parameter_plots.MAX_TRACES
    assert "8 of 11 parameters, those of least effective sample size" in texts(figure)
    shown = {ax.get_title(loc="left") for ax in axes[::2]}
    table = pd.concat([salamanders.fixef().rename(columns={"term": "parameter"}), salamanders.parameters()])
    assert shown == set(table.nsmallest(8, "ess_bulk")["parameter"])


def test_trace_of_every_parameter_held_is_refused():
    priors = {"sigma": ml.Fixed(1.0), "Intercept": ml.Fixed(4.0), "sd": ml.Fixed(5.0)}
    posterior = sampled("y ~ 1 + (1 | school)", SCHOOLS, weights=1 / SCHOOLS["se"] ** 2, priors=priors)
    with pytest.raises(ml.OptionError, match="every parameter of this model is held"):
        posterior.plot.trace()


# -- names ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("which", "names"),
    [
        ("homework", ["homework"]),
        ("(Intercept)", ["Intercept"]),
        ("b", ["homework"]),
        ("sd", ["sd(schid, Intercept)", "sd(schid, homework)"]),
        ("sd(schid)", ["sd(schid, Intercept)", "sd(schid, homework)"]),
        (["cor", "sigma", "cor"], ["cor(schid, Intercept, homework)", "sigma"]),
        ("ranef(schid, 7472, homework)", ["ranef(schid, 7472, homework)"]),
    ],
)
def test_parameters_are_chosen_by_name_and_class(math, which, names):
    found, part = posterior_values.chosen(math, which, 1)
    assert ([p.name for p in found], part) == (names, "")


def test_a_group_effect_by_name_has_its_draws(math):
    (found,), _ = posterior_values.chosen(math, "ranef(schid, 7472, homework)", 1)
    at = [str(one) for one in math.design.terms[0].levels].index("7472")
    np.testing.assert_array_equal(found.values, math.group_effects(0)[:, :, at, 1])


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("homwork", "there is no parameter 'homwork'; did you mean 'homework'"),
        ("ranef(schid, 7473, homework)", "'7473' is no level of 'schid'; did you mean '7472'"),
        ("ranef(school, 7472, homework)", "there is no group effect"),
        (3, "must be a name, or a list of names, not 3"),
        ([], "must be a name, or a list of names"),
    ],
)
def test_unknown_parameters_are_refused(math, which, message):
    with pytest.raises(ml.OptionError, match=message.replace("(", r"\(").replace(")", r"\)")):
        math.plot.trace(which)


# -- pairs ----------------------------------------------------------------------------------------------------


def test_pair_draws_each_two_and_their_correlation(nuts):
    posterior = divergent(nuts, [(1, 3), (3, 9)])
    axes = posterior.plot.pair(["homework", "sigma", "Intercept"])
    figure = drawn(axes)
    assert len(axes) == 9
    assert "2 divergent transitions, marked" in texts(figure)
    beta, bad = flat(nuts.draws_kept.beta), flat(posterior_values.diverging(posterior)[:, :, None])[:, 0]
    ax = axes[6]  # the last row is the intercept, the first column homework
    (points,) = lines_of(ax, COLOURS["partial"])
    np.testing.assert_array_equal(points.get_xydata(), beta[~bad][:, [1, 0]])
    (marks,) = lines_of(ax, posterior_panels.DIVERGING)
    np.testing.assert_array_equal(marks.get_xydata(), beta[bad][:, [1, 0]])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("homework", "Intercept")
    assert axes[2].texts[0].get_text() == f"{np.corrcoef(beta.T)[0, 1]:.2f}"
    np.testing.assert_allclose(ax.get_xlim(), axes[0].get_xlim())


def test_pair_draws_some_of_many_but_every_divergent_one(nuts):
    where = [(c, i) for c in range(4) for i in range(0, 250, 25)]
    axes = divergent(nuts, where).plot.pair(["sd", "sigma"], max_points=100)
    figure = drawn(axes)
    assert "100 of 1,000 draws" in texts(figure)
    assert len(lines_of(axes[3], COLOURS["partial"])[0].get_xdata()) == 100
    assert len(lines_of(axes[3], posterior_panels.DIVERGING)[0].get_xdata()) == 40


def test_pair_of_a_large_model_says_how_many(radon, salamanders):
    assert len(radon.plot.pair()) == 25
    axes = salamanders.plot.pair()
    assert len(axes) == parameter_plots.MAX_PAIRS**2
    assert "6 of 11 parameters" in texts(drawn(axes))


def test_pair_needs_two_that_vary(schools):
    with pytest.raises(ml.OptionError, match="from two to 10 parameters that are not held at a value, not 1"):
        schools.plot.pair(["sigma", "Intercept"])


# -- priors ---------------------------------------------------------------------------------------------------


def test_prior_leaves_out_what_is_held_and_shows_it_on_request(schools):
    axes = schools.plot.prior()
    assert [ax.get_title(loc="left") for ax in axes] == ["Intercept", "sd(school, Intercept)"]
    assert [ax.get_xlabel() for ax in axes] == ["Normal(0, 5)", "HalfCauchy(5)"]
    ax = schools.plot.prior("sigma")
    drawn(ax)
    assert ax.get_title(loc="right") == "held at 1"
    assert list(ax.lines[0].get_xdata()) == [1, 1]


def test_prior_and_posterior_are_those_of_the_draws(schools):
    axes = schools.plot.prior()
    figure = drawn(axes)
    assert "a prior wider than its panel goes on beyond it" in texts(figure)
    for ax, draws, lower in zip(
        axes, (schools.draws_kept.beta[..., 0], schools.draws_kept.scalars[..., 0]), (-np.inf, 0.0), strict=True
    ):
        (line,) = lines_of(ax, COLOURS["partial"])
        x, y = line.get_data()
        exact = density(draws.ravel(), x, lower)
        np.testing.assert_allclose(y, exact, atol=3e-3 * exact.max())  # bins start elsewhere
    x, y = lines_of(axes[0], COLOURS["pooled"])[0].get_data()
    np.testing.assert_allclose(y, np.exp(-0.5 * (x / 5) ** 2) / (5 * np.sqrt(2 * np.pi)), atol=0.003)
    x, y = lines_of(axes[1], COLOURS["pooled"])[0].get_data()
    np.testing.assert_allclose(y, 2 / (5 * np.pi * (1 + (x / 5) ** 2)), atol=0.006)


def test_a_flat_prior_has_no_density():
    priors = {"sigma": ml.Fixed(1.0), "Intercept": ml.Flat(), "sd": ml.HalfNormal(10)}
    posterior = sampled("y ~ 1 + (1 | school)", SCHOOLS, weights=1 / SCHOOLS["se"] ** 2, priors=priors)
    axes = posterior.plot.prior()
    drawn(axes)
    assert axes[0].get_xlabel() == "Flat() (no density)"
    assert lines_of(axes[0], COLOURS["pooled"]) == []
    assert len(lines_of(axes[1], COLOURS["pooled"])) == 1


def test_prior_of_a_correlation_is_its_margin(math):
    ax = math.plot.prior("cor")
    drawn(ax)
    x, y = lines_of(ax, COLOURS["pooled"])[0].get_data()
    inner = np.abs(x) < 0.9  # a folded kernel is flat at the ends, where this density is not
    np.testing.assert_allclose(y[inner], 0.75 * (1 - x[inner] ** 2), atol=0.04)  # LKJ(2) of two effects
    assert max(y[0], y[-1]) < 0.1
    assert -1 <= x[0] < -0.95
    assert 0.95 < x[-1] <= 1


def test_prior_of_thresholds_knows_that_they_ascend(wine):
    rng = np.random.default_rng(1)
    found, _ = posterior_values.chosen(wine, ["1|2", "4|5"], 9)
    low, high = (posterior_values.prior_draws(wine, p, 20_000, rng) for p in found)
    order_statistic = 5 * 1.0294  # mean of the largest of four standard normal variables, times the prior's sd
    assert low.mean() == pytest.approx(-order_statistic, abs=0.1)
    assert high.mean() == pytest.approx(order_statistic, abs=0.1)
    assert "Normal(0, 5), in ascending order" in texts(drawn(wine.plot.prior()))
    free = replace(found[0].entry, prior=ml.Normal(1, 4))
    own = [free if e.name == "1|2" else e for e in wine.entries]
    other = Posterior(wine.model, wine.draws_kept, own)
    unequal = posterior_values.prior_draws(other, replace(found[0], entry=free), 5_000, rng)
    values = np.column_stack([rng.normal(1, 4, 400_000), rng.normal(0, 5, (400_000, 3))])
    expected = values[(np.diff(values, axis=1) > 0).all(axis=1), 0]
    assert unequal.mean() == pytest.approx(expected.mean(), abs=0.25)


def test_prior_of_a_group_effect_is_refused(math):
    with pytest.raises(ml.OptionError, match="has no prior of its own"):
        math.plot.prior("ranef(schid, 7472, homework)")
