"""Posteriors of small models, and what the tests of their plots read off a figure."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd

import multilevel as ml
from multilevel import plot_panels
from multilevel.posterior import Posterior

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
