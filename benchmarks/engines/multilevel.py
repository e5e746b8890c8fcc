"""This project. `threads` comes from the job: 1, 2 and the default are three engines in the tables."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

import multilevel as ml
from engines.protocol import Answer, Floats, Prepared, Spec, covariances, floats
from multilevel.crossprod import default_threads

FAMILIES = ("gaussian", "binomial", "poisson", "nbinom2")


def prepare(spec: Spec, frame: pd.DataFrame, job: dict[str, Any]) -> Prepared:
    threads = job["threads"] or None
    if spec.family != "gaussian":
        return prepare_generalised(spec, frame, threads)

    def whole() -> Any:
        return ml.lmer(spec.formula, frame, REML=spec.reml, weights=spec.weights, threads=threads)

    return Prepared(whole, lambda fit: read(spec, fit), engine(spec, frame, threads), lambda: whole().fixef())


def engine(spec: Spec, frame: pd.DataFrame, threads: int | None) -> Callable[[], Any]:
    """The fit with the model given: built once, outside the timing."""
    model = ml.Model(spec.formula, frame, weights=spec.weights)
    return lambda: model.fit(reml=spec.reml, threads=threads)


def prepare_generalised(spec: Spec, frame: pd.DataFrame, threads: int | None) -> Prepared:
    """Formula and frame to fit; the engine's share is a fresh search with its standard errors, on a model built before."""

    def whole() -> Any:
        return ml.glmer(spec.formula, frame, spec.family, nAGQ=spec.nodes, threads=threads)

    model = ml.Model(spec.formula, frame, family=spec.family).with_quadrature(spec.nodes)
    model.laplace(default_threads() if threads is None else threads)
    return Prepared(whole, lambda fit: read(spec, fit), lambda: model.fit(threads=threads))


def read(spec: Spec, fit: Any) -> Answer:
    theta, sigma, report = floats(fit.theta), float(fit.sigma), fit.convergence
    fixef = fit.fixef()
    return {
        "criterion": -2 * float(fit.loglik),
        "theta": theta,
        "sigma": sigma,
        "fixef": dict(zip(fixef["term"], floats(fixef["estimate"]), strict=True)),
        "terms": covariances(spec, theta, sigma),
        "evaluations": int(report.evaluations),
        "verdict": verdict(report.converged, report.singular),
        "message": report.sentence,
        "boundary": list(report.boundary),
        "restarts": int(report.restarts),
    }


def verdict(converged: bool, singular: bool) -> str:
    if not converged:
        return "not certified"
    return "singular" if singular else "regular"


def many(spec: Spec, frame: pd.DataFrame, responses: Floats, job: dict[str, Any]) -> Answer:
    """All responses in one call: `fit.refit` takes a matrix."""
    first = frame.assign(**{spec.response: responses[:, 0]})
    wall, cpu = time.perf_counter(), time.process_time()
    fit = ml.Model(spec.formula, first).fit(reml=spec.reml, threads=job["threads"] or None)
    table = fit.refit(responses, threads=job["threads"] or None)
    spent, spent_cpu = time.perf_counter() - wall, time.process_time() - cpu
    criteria = floats(table.criterion)[:50]
    return {
        "seconds": [spent],
        "cpu": [spent_cpu],
        "fitted": responses.shape[1],
        "criteria": criteria,
        "criterion": float(np.sum(criteria)),
    }
