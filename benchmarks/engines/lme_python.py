"""PyPI package `lme-python`: ``lme_python.lmer(formula, data, reml)``; it reads polars or pandas frames."""

from __future__ import annotations

from typing import Any

import lme_python
import numpy as np
import pandas as pd
import polars as pl

from engines.protocol import Answer, Floats, Prepared, Spec, floats, match
from engines.worker import one_by_one


def as_polars(spec: Spec, frame: pd.DataFrame) -> pl.DataFrame:
    return pl.from_pandas(frame.assign(**{name: frame[name].astype(str) for name in spec.factors}))


def prepare(spec: Spec, frame: pd.DataFrame, job: dict[str, Any]) -> Prepared:
    data = as_polars(spec, frame)

    def whole() -> Any:
        if spec.weights is None:
            return lme_python.lmer(spec.formula, data, spec.reml)
        return lme_python.lmer_weighted(spec.formula, data, spec.reml, frame[spec.weights].tolist())

    return Prepared(whole, lambda fit: read(spec, fit))


def blocks(var_corr: list[tuple[str, str, str, float, float]]) -> list[dict[str, Any]]:
    """Collect (group, effect, effect, covariance, sd) rows into one block per group."""
    cells: dict[str, dict[tuple[str, str], float]] = {}
    for group, one, two, value, _ in var_corr:
        if group != "Residual":
            cells.setdefault(group, {})[one, two] = value
    out = []
    for group, table in cells.items():
        names = [a for a, b in table if a == b]
        cov = np.array([[table.get((a, b), table.get((b, a), 0.0)) for b in names] for a in names])
        out.append({"group": group, "effects": names, "cov": cov})
    return out


def read(spec: Spec, fit: Any) -> Answer:
    criterion = fit.reml_criterion if spec.reml else -2 * fit.log_likelihood
    names = fit.fixed_names or [str(i) for i in range(len(fit.coefficients))]
    return {
        "criterion": float(criterion),
        "fixef": dict(zip(names, floats(fit.coefficients), strict=True)),
        "theta": floats(fit.theta),
        "terms": match(spec, blocks(fit.var_corr)),
        "sigma": float(np.sqrt(fit.sigma2)),
        "evaluations": int(fit.iterations),
        "converged": bool(fit.converged),
    }


def many(spec: Spec, frame: pd.DataFrame, responses: Floats, job: dict[str, Any]) -> Answer:
    data = as_polars(spec, frame.assign(**{spec.response: responses[:, 0]}))
    model = lme_python.prepare_lmer(spec.formula, data)

    def fit(y: Floats) -> float:
        again = model.fit(y.tolist(), spec.reml)
        return float(again.reml_criterion if spec.reml else -2 * again.log_likelihood)

    return one_by_one(fit, responses, job["budget"])
