"""Posteriors of small models, and what the tests of their plots read off a figure."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

import multilevel as ml
from multilevel import plot_panels
from multilevel.posterior import Posterior

HERDS = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
SLEEP = "Reaction ~ Days + (Days | Subject)"
COLOURS = plot_panels.COLOURS
SCHOOLS = pd.DataFrame(
    {"school": list("ABCDEFGH"), "y": [28.0, 8, -3, 7, -1, 1, 18, 12], "se": [15.0, 10, 16, 11, 9, 11, 10, 18]}
)
PRIORS = {"sigma": ml.Fixed(1.0), "Intercept": ml.Normal(0, 5), "sd": ml.HalfCauchy(5)}


def sampled(formula, data, options=None, **given):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ml.MultilevelWarning)
        options = {"draws": 250, "warmup": 300, "seed": 1, "threads": 1, "progress": False} | (options or {})
        return ml.Model(formula, data, **given).sample(**options)


def flat(values):
    return values.reshape(-1, *values.shape[2:])


def held_at(fit):
    """Every parameter of a fit held at its estimate."""
    out = {n: ml.Fixed(float(b)) for n, b in zip(fit.design.names, fit.optimum.beta, strict=True)}
    for term, cov in zip(fit.design.terms, fit.random_cov(), strict=True):
        sd = np.sqrt(np.diag(cov))
        out |= {f"sd({term.group}, {n})": ml.Fixed(float(s)) for n, s in zip(term.names, sd, strict=True)}
        if len(sd) > 1:
            out[f"cor({term.group})"] = ml.Fixed(float(cov[0, 1] / sd[0] / sd[1]))
    if not fit.generalised:
        out["sigma"] = ml.Fixed(fit.sigma)
    return out


def check_columns(table, values, level=0.95):
    """The columns of a table against the values of every draw (draws, m)."""
    low, high = np.quantile(values, [0.5 - level / 2, 0.5 + level / 2], axis=0)
    np.testing.assert_allclose(table["estimate"], values.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(table["est_error"], values.std(axis=0, ddof=1), rtol=1e-9)
    np.testing.assert_allclose(table["ci_low"], low, rtol=1e-9)
    np.testing.assert_allclose(table["ci_high"], high, rtol=1e-9)


def drawn(axes):
    """Draw for real: layout that does not work warns, and warnings are errors here."""
    figure = np.ravel(axes)[0].figure
    figure.canvas.draw()
    return figure


def texts(figure):
    """All text, lines joined."""
    return " ".join(" ".join(one.get_text() for one in figure.findobj(lambda one: hasattr(one, "get_text"))).split())


def lines_of(ax, colour):
    return [one for one in ax.lines if one.get_color() == colour and len(one.get_xdata())]


def divergent(posterior, where):
    """The posterior with draws (chain, draw) said to diverge."""
    kept = posterior.draws_kept
    bad = np.zeros((kept.chains, kept.draws))
    for c, i in where:
        bad[c, i] = 1.0
    return Posterior(posterior.model, replace(kept, stats={**kept.stats, "diverging": bad}), posterior.entries)


# -- small models of several test files, sampled or fitted once ----------------------------------------------------


@cache
def sleep_fit() -> Any:
    return ml.Model(SLEEP, ml.load("sleepstudy")).fit(threads=1)


@cache
def herd_fit() -> Any:
    return ml.Model(HERDS, ml.load("cbpp"), family="binomial").fit(threads=1)


@cache
def sleep() -> Any:
    return sampled(SLEEP, ml.load("sleepstudy"))


@cache
def herds() -> Any:
    return sampled(HERDS, ml.load("cbpp"), family="binomial")


@cache
def ticks() -> Any:
    data = ml.load("grouseticks").astype({"YEAR": "category"})
    formula = "TICKS ~ YEAR + scale(HEIGHT) + (1 | BROOD) + (1 | LOCATION)"
    return sampled(formula, data, {"draws": 30, "keep": "parameters"}, family="nbinom2")


@cache
def schools() -> Any:
    return sampled("math ~ homework + (homework | schid)", ml.load("math10"), {"draws": 1000})


@cache
def diseased() -> Any:
    data = ml.load("cbpp")
    return sampled("cbind(incidence, size - incidence) ~ period + (1 | herd)", data, {"draws": 500}, family="binomial")


@cache
def nests() -> Any:
    formula = "SiblingNegotiation ~ FoodTreatment + offset(log(BroodSize)) + (1 | Nest)"
    return sampled(formula, ml.load("owls").head(150), {"draws": 200}, family="nbinom2", zi="~ FoodTreatment")


@cache
def wine() -> Any:
    data = ml.load("wine")
    data["rating"] = pd.Categorical(data["rating"], ordered=True)
    return sampled("rating ~ temp + contact + (1 | judge)", data, {"target": 0.95}, family="ordinal")


def data_of(seed: int, n: int, groups: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    g = rng.integers(0, groups, n)
    data = pd.DataFrame({"x": rng.normal(size=n), "g": g, "h": rng.integers(0, 4, n), "w": rng.uniform(0.5, 2, n)})
    data["arm"] = rng.choice(["a", "b", "c"], n)
    data["y"] = 1 + data["x"] + np.sin(g) * (1 + data["x"]) + rng.normal(size=n)
    return data


def binary() -> pd.DataFrame:
    return data_of(5, 90, 6).assign(t=lambda d: (d["y"] > 1).astype(int))
