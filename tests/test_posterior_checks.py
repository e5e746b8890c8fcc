"""Checks of posteriors and their figures."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from posterior_samples import data_of, diseased, drawn, flat, nests, sampled, schools, texts, wine

import multilevel as ml
from multilevel import posterior_checks

matplotlib.use("Agg")
LEVELS = ("ok", "look", "problem", "skipped")


# -- checks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("made", [schools, diseased, nests, wine])
def test_checks_have_a_verdict_and_a_sentence(made: Any) -> None:
    found = made().check()
    assert all(c.verdict in LEVELS and c.sentence.endswith(".") for c in found)
    assert found["sampling"].sentence == made().trust[1]
    assert {"distribution", "outliers", "leave-one-out", "prior and data", "data over prior"} <= {c.name for c in found}
    assert found.frame().columns.tolist() == ["check", "verdict", "sentence"]
    assert str(found) == str(made().check())


def test_draws_that_may_not_be_trusted() -> None:
    data = ml.load("math10")
    posterior = sampled("math ~ homework + (homework | schid)", data, {"draws": 10, "method": "nuts", "warmup": 10})
    assert posterior.check()["sampling"].verdict == "problem"


def test_a_well_behaved_model_passes() -> None:
    rng = np.random.default_rng(5)
    g = np.arange(300) % 30
    x = rng.normal(size=300)
    data = pd.DataFrame({"x": x, "g": g, "y": 2 + x + rng.normal(size=30)[g] + rng.normal(size=300)})
    found = sampled("y ~ x + (1 | g)", data, {"draws": 500}).check()
    assert {c.name: c.verdict for c in found if c.verdict != "ok"} == {}


def test_too_many_zeros_and_too_much_spread() -> None:
    rng = np.random.default_rng(6)
    g = np.arange(240) % 12
    y = np.where(rng.random(240) < 0.5, 0, rng.poisson(6, 240))
    found = sampled("y ~ 1 + (1 | g)", pd.DataFrame({"y": y, "g": g}), {"draws": 250}, family="poisson").check()
    assert found["predictive zeros"].verdict == "problem" and "zi='~ 1'" in found["predictive zeros"].sentence
    assert found["predictive sd"].verdict == "problem" and "nbinom2" in found["predictive sd"].sentence
    assert found["predictive mean"].verdict == "ok"


def test_outliers_and_rows_left_out() -> None:
    data = data_of(3, 120, 8)
    data.loc[17, "y"] += 25
    found = sampled("y ~ x + (1 | g)", data, {"draws": 500}).check()
    assert "17 (+" in found["outliers"].sentence and found["outliers"].verdict == "problem"
    assert found["leave-one-out"].verdict == "look" and "17 (" in found["leave-one-out"].sentence
    assert found["predictive max"].verdict == "look"


def test_spread_that_grows() -> None:
    rng = np.random.default_rng(7)
    x = rng.uniform(0, 5, 400)
    data = pd.DataFrame({"x": x, "y": 1 + 2 * x + rng.normal(size=400) * (0.2 + x)})
    found = sampled("y ~ x", data).check()
    assert found["spread over fitted"].verdict == "problem" and "logarithm" in found["spread over fitted"].sentence


def test_priors_that_the_data_contradict_and_that_dominate() -> None:
    data = data_of(4, 100, 8)
    priors = {"Intercept": ml.Normal(-20, 1), "sigma": ml.HalfNormal(20), "x": ml.Normal(0, 1e-3)}
    posterior = sampled("y ~ x", data, {"draws": 500}, priors=priors)
    found = posterior.check()
    assert found["prior and data"].verdict in ("look", "problem") and "Intercept (+" in found["prior and data"].sentence
    assert "x (sd" in found["data over prior"].sentence and "Intercept" not in found["data over prior"].sentence
    compared = {c.name: c for c in posterior_checks.comparisons(posterior)}
    own = flat(posterior.draws_kept.beta)[:, posterior.design.names.index("Intercept")]
    assert compared["Intercept"].shift == pytest.approx(own.mean() + 20, rel=0.02)  # in sds of a standard normal
    x = flat(posterior.draws_kept.beta)[:, posterior.design.names.index("x")]
    assert compared["x"].ratio == pytest.approx(x.std() / 1e-3, rel=0.05)
    assert compared["sigma"].tail > 0.5  # a small sd is not against a prior that is largest at zero


def test_groups_that_stand_in_for_a_coefficient() -> None:
    """A prior far from the data moves the groups instead of the coefficient."""
    priors = {"Intercept": ml.Normal(-20, 1)}
    found = sampled("y ~ x + (1 | g)", data_of(4, 200, 25), {"draws": 500}, priors=priors).check()["effects of g"]
    assert found.verdict in ("look", "problem") and "above zero" in found.sentence and "prior of Intercept" in found.sentence
    data = data_of(4, 400, 30).assign(y=lambda d: 3 * d["x"] + np.random.default_rng(0).normal(size=400))
    found = sampled("y ~ 1 + (x | g)", data, {"draws": 500}).check()["effects of g"]
    assert found.verdict in ("look", "problem") and "no coefficient of x for all groups" in found.sentence


def test_held_and_flat_parameters_have_no_prior_to_compare() -> None:
    priors = {"sigma": ml.Fixed(1.0), "b": ml.Flat(), "Intercept": ml.Flat()}
    posterior = sampled("y ~ x", data_of(4, 60, 8), priors=priors)
    assert posterior_checks.comparisons(posterior) == []
    assert posterior.check()["prior and data"].verdict == "ok"


@pytest.mark.slow
def test_structured_residuals_are_judged_as_far_as_they_can_be() -> None:
    data = ml.load("sleepstudy")
    posterior = sampled("Reaction ~ Days + (1 | Subject)", data, {"draws": 50}, correlation="ar1(Days | Subject)")
    found = posterior.check()
    assert found["distribution"].verdict == "skipped" and found["predictive sd"].verdict == "ok"
    with pytest.raises(ml.OptionError, match="kind='quantile' takes residuals without a serial correlation"):
        posterior.residuals("quantile")
    assert "Rows left out" in texts(drawn(posterior.plot.check()))
    matplotlib.pyplot.close("all")


def test_few_groups() -> None:
    found = sampled("y ~ x + (1 | h)", data_of(4, 60, 8), {"draws": 250}).check()
    assert found["number of groups"].verdict == "look" and "h (4 levels)" in found["number of groups"].sentence


# -- plots ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("made", [schools, diseased, nests, wine])
def test_the_panel_of_checks(made: Any) -> None:
    axes = made().plot.check()
    figure = drawn(axes)
    found = texts(figure)
    for title in ("Does the model make such data?", "Residuals: are they normal?", "Rows left out", "sds of the prior"):
        assert title in found
    matplotlib.pyplot.close(figure)


@pytest.mark.parametrize("made", [schools, diseased, nests, wine])
def test_residuals_as_a_figure(made: Any) -> None:
    posterior = made()
    axes = posterior.plot.residuals()
    kind = "pearson" if made is schools else "quantile"
    points = next(line for line in axes[0].lines if line.get_marker() == "o")
    np.testing.assert_allclose(points.get_ydata(), posterior.residuals(kind))
    matplotlib.pyplot.close(drawn(axes))
    one = matplotlib.pyplot.figure().add_subplot()
    assert posterior.plot.residuals(ax=one) is one
    matplotlib.pyplot.close(one.figure)


def test_shrinkage_as_a_figure() -> None:
    posterior = schools()
    ax = posterior.plot.shrinkage()
    partial = next(line for line in ax.lines if "posterior mean" in str(line.get_label()) or line.get_marker() == "D")
    mean = posterior.mean_beta + posterior.mean_b(0)
    np.testing.assert_allclose(np.column_stack(partial.get_data()), mean)
    assert "posterior mean" in texts(drawn(ax)) and "this model" not in texts(ax.figure)
    stems = posterior.plot.shrinkage(terms="homework")
    assert stems.get_xlabel() == "homework"
    matplotlib.pyplot.close("all")
    for made in (diseased, nests, wine):
        ax = made().plot.shrinkage()
        assert ax.get_xlabel().startswith("Intercept (lo")
        matplotlib.pyplot.close(drawn(ax))
    with pytest.raises(ml.OptionError, match="no grouping factor"):
        sampled("math ~ homework", ml.load("math10"), {"draws": 50}).plot.shrinkage()
