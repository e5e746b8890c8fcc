"""statsmodels' MixedLM: one grouping column, further variance components through `vc_formula`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import statsmodels.formula.api as smf

from engines.protocol import Answer, Floats, Prepared, Spec, Unsupported, floats
from engines.worker import one_by_one


def model(spec: Spec, frame: pd.DataFrame) -> Any:
    how = spec.statsmodels
    if how is None or spec.weights:
        raise Unsupported("crossed slopes, weights or too large for MixedLM")
    groups = frame[how["groups"]] if how["groups"] else np.zeros(len(frame))
    return smf.mixedlm(how["fixed"], frame, groups=groups, re_formula=how.get("re"), vc_formula=how.get("vc"))


def prepare(spec: Spec, frame: pd.DataFrame, job: dict[str, Any]) -> Prepared:
    # as text: within each group `0+C(x)` codes only the labels it sees, but every level of a categorical
    frame = frame.assign(**{name: frame[name].astype(object) for name in spec.factors})
    model_ready = model(spec, frame)  # refuses before anything is timed
    return Prepared(
        whole=lambda: model(spec, frame).fit(reml=spec.reml),
        read=lambda fit: read(spec, fit),
        engine=lambda: model_ready.fit(reml=spec.reml),
    )


def read(spec: Spec, fit: Any) -> Answer:
    how = spec.statsmodels or {}
    vc = dict(zip(fit.model.exog_vc.names, floats(fit.vcomp), strict=True)) if how.get("vc") else {}
    terms = []
    for term in spec.terms:
        value = vc.get(term.groups[-1])
        terms.append(np.asarray(fit.cov_re).tolist() if value is None else [[value]])
    return {
        "criterion": -2 * float(fit.llf),
        "fixef": {k: float(v) for k, v in fit.fe_params.items()},
        "terms": terms,
        "sigma": float(np.sqrt(fit.scale)),
        "converged": bool(fit.converged),
    }


def many(spec: Spec, frame: pd.DataFrame, responses: Floats, job: dict[str, Any]) -> Answer:
    def fit(y: Floats) -> float:
        return -2 * float(model(spec, frame.assign(**{spec.response: y})).fit(reml=spec.reml).llf)

    return one_by_one(fit, responses, job["budget"])
