"""Generalised fits on real data that several test files share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd

import multilevel as ml
from multilevel.generalised import GeneralisedFit
from multilevel.generalised_predict import draw_responses

CBPP = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
OWLS = "SiblingNegotiation ~ FoodTreatment * SexParent + offset(log(BroodSize)) + (1 | Nest)"
TICKS = "TICKS ~ YEAR + cHEIGHT + (1 | BROOD) + (1 | LOCATION)"


def wine() -> pd.DataFrame:
    data = ml.load("wine")
    return data.assign(rating=pd.Categorical(data["rating"], ordered=True))


MODELS: dict[str, Callable[[], ml.Model]] = {
    "binomial": lambda: ml.Model(CBPP, ml.load("cbpp"), family="binomial"),
    "two values": lambda: ml.Model("r2 ~ Anger * Gender + (1 | id)", ml.load("verbagg"), family="binomial", link="probit"),
    "zero-inflated": lambda: ml.Model(
        OWLS, ml.load("owls"), family="nbinom2", zi="~ FoodTreatment", dispersion="~ SexParent"
    ),
    "hurdle": lambda: ml.Model(OWLS, ml.load("owls"), family="poisson", hurdle="~ 1"),
    "ordinal": lambda: ml.Model("rating ~ temp + contact + (1 | judge)", wine(), family="ordinal"),
    "gamma": lambda: ml.Model("Weight ~ log(Time) + (log(Time) | Pig)", ml.load("dietox"), family="gamma"),
    "no groups": lambda: ml.Model("incidence ~ period", ml.load("cbpp"), family="poisson", offset="size"),
}


@cache
def fitted(name: str) -> GeneralisedFit:
    fit = MODELS[name]().fit(threads=1)
    assert isinstance(fit, GeneralisedFit)
    return fit


def of_model(fit: GeneralisedFit, seed: int) -> GeneralisedFit:
    """The same fit, on a response drawn from it given its group effects: its residuals are then exactly of the model."""
    groups = list(dict.fromkeys(t.group for t in fit.design.terms))
    y = draw_responses(fit, 1, groups, np.random.default_rng(seed))[0]
    return GeneralisedFit(fit.model.with_design(replace(fit.design, y=y)), fit.optimum, fit.engine)
