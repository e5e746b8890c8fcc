"""PyPI package `mixedlm`: ``mixedlm.lmer(formula, data, REML=, weights=)`` and ``result.refit(y)``."""

from __future__ import annotations

from typing import Any

import mixedlm
import pandas as pd

from engines.protocol import Answer, Floats, Prepared, Spec, floats, match
from engines.worker import one_by_one


def prepare(spec: Spec, frame: pd.DataFrame, job: dict[str, Any]) -> Prepared:
    def whole() -> Any:
        return mixedlm.lmer(spec.formula, frame, REML=spec.reml, weights=spec.weights)

    return Prepared(whole, lambda fit: read(spec, fit))


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
