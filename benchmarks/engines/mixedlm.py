"""PyPI package `mixedlm`: ``mixedlm.lmer(formula, data, REML=, weights=)``, ``glmer`` and ``result.refit(y)``."""

from __future__ import annotations

from typing import Any

import mixedlm
import pandas as pd
from mixedlm import families

from engines.protocol import Answer, Floats, Prepared, Spec, floats, match
from engines.worker import one_by_one

FAMILIES = ("gaussian", "binomial", "poisson", "nbinom2")


def prepare(spec: Spec, frame: pd.DataFrame, job: dict[str, Any]) -> Prepared:
    if spec.family != "gaussian":
        return Prepared(lambda: generalised(spec, frame), lambda fit: read_generalised(spec, fit))

    def whole() -> Any:
        return mixedlm.lmer(spec.formula, frame, REML=spec.reml, weights=spec.weights)

    return Prepared(whole, lambda fit: read(spec, fit))


def generalised(spec: Spec, frame: pd.DataFrame) -> Any:
    """Proportions with weights in place of cbind(), which it does not read."""
    if spec.family == "nbinom2":
        return mixedlm.glmer_nb(spec.formula, frame)
    family = families.Binomial() if spec.family == "binomial" else families.Poisson()
    if spec.trials is None:
        return mixedlm.glmer(spec.formula, frame, family=family, nAGQ=spec.nodes)
    left, right = spec.formula.split("~")
    successes = left.strip().removeprefix("cbind(").split(",")[0]
    data = frame.assign(share=frame[successes] / frame[spec.trials])
    return mixedlm.glmer(f"share ~ {right}", data, family=family, nAGQ=spec.nodes, weights=spec.trials)


def read_generalised(spec: Spec, fit: Any) -> Answer:
    groups = fit.VarCorr().groups
    found = [
        {"group": g.grouping_factor or name, "effects": g.term_names, "cov": g.cov} for name, g in groups.items()
    ]
    return {
        "criterion": -2 * float(fit.logLik().value),
        "fixef": {k: float(v) for k, v in fit.fixef().items()},
        "theta": floats(fit.theta),
        "terms": match(spec, found),
        "sigma": 1.0,
        "converged": bool(fit.converged),
        "message": f"{fit.optimizer}: {fit.message}",
    }


def read(spec: Spec, fit: Any) -> Answer:
    groups = fit.VarCorr().groups
    found = [
        {"group": g.grouping_factor or name, "effects": g.term_names, "cov": g.cov} for name, g in groups.items()
    ]
    return {
        "criterion": float(fit.deviance),
        "fixef": {k: float(v) for k, v in fit.fixef().items()},
        "theta": floats(fit.theta),
        "terms": match(spec, found),
        "sigma": float(fit.sigma),
        "evaluations": int(fit.function_evals),
        "converged": bool(fit.converged),
        "singular": bool(fit.isSingular()),
        "message": f"{fit.optimizer}: {fit.message}",
    }


def many(spec: Spec, frame: pd.DataFrame, responses: Floats, job: dict[str, Any]) -> Answer:
    start = mixedlm.lmer(spec.formula, frame.assign(**{spec.response: responses[:, 0]}), REML=spec.reml)
    return one_by_one(lambda y: float(start.refit(y).deviance), responses, job["budget"])
