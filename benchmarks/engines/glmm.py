"""PyPI package `glmm`: one function, ``glmm.fit(data, formula, family, weights=, reml=, nagq=)``.

Its likelihood-ratio tables of Poisson models, which are refits, are left out (``anova_test="Wald"``).
"""

from __future__ import annotations

from typing import Any

import glmm
import numpy as np
import pandas as pd

from engines.protocol import Answer, Floats, Prepared, Spec, Unsupported, floats, match
from engines.worker import one_by_one

FAMILIES = {"gaussian": "gaussian", "binomial": "binomial", "poisson": "poisson", "nbinom2": "negativebinomial"}


def refuse(spec: Spec) -> None:
    if any(t.structure == "diag" and len(t.effects) > 1 for t in spec.terms):
        raise Unsupported("no (x || g)")
    if any(t.effects[0] != "1" for t in spec.terms):
        raise Unsupported("no random slope without an intercept")
    if any(len(t.groups) > 1 and len(t.effects) > 1 for t in spec.terms):
        raise Unsupported("no slopes by an interaction of columns")


def prepare(spec: Spec, frame: pd.DataFrame, job: dict[str, Any]) -> Prepared:
    refuse(spec)
    if spec.family != "gaussian":
        more = {"family": FAMILIES[spec.family], "nagq": spec.nodes, "anova_test": "Wald"}
        return Prepared(lambda: glmm.fit(frame, spec.formula, **more), lambda fit: read(spec, fit))
    weights = None if spec.weights is None else frame[spec.weights].to_numpy()
    return Prepared(
        whole=lambda: glmm.fit(frame, spec.formula, weights=weights, reml=spec.reml),  # with its Satterthwaite df
        read=lambda fit: read(spec, fit),
        engine=lambda: glmm.fit(frame, spec.formula, weights=weights, reml=spec.reml, satterthwaite=False),
    )


def symmetric(packed: list[float]) -> Floats:
    k = int((np.sqrt(8 * len(packed) + 1) - 1) / 2)
    out = np.zeros((k, k))
    columns, rows = np.triu_indices(k)
    out[rows, columns] = out[columns, rows] = packed
    return out


def read(spec: Spec, fit: Any) -> Answer:
    found = [
        {"group": group, "effects": names, "cov": symmetric(packed)}
        for (group, names), packed in zip(fit.re_groups, fit.varcorr, strict=True)
    ]
    return {
        "criterion": -2 * fit.loglik,
        "fixef": dict(zip(fit.names, floats(fit.beta), strict=True)),
        "terms": match(spec, found),
        "sigma": float(np.sqrt(fit.dispersion)) if spec.family == "gaussian" else 1.0,
        "evaluations": fit.n_eval,
        "gradients": fit.n_grad,
        "converged": bool(fit.converged),
        "singular": bool(fit.singular),
    }


def many(spec: Spec, frame: pd.DataFrame, responses: Floats, job: dict[str, Any]) -> Answer:
    refuse(spec)
    columns = {name: frame[name] for name in frame.columns}

    def fit(y: Floats) -> float:
        data = columns | {spec.response: y}
        return float(-2 * glmm.fit(data, spec.formula, reml=spec.reml, satterthwaite=False).loglik)

    return one_by_one(fit, responses, job["budget"])
