"""PyPI package `gpboost`: ``GPModel(group_data, likelihood).fit(y, X)`` from arrays; no formula, no correlated slopes.

Laplace's approximation with an exact factorisation (its default for several factors approximates the determinant by random
vectors, and gives another likelihood).
"""

from __future__ import annotations

from typing import Any

import gpboost
import numpy as np
import pandas as pd

from engines.protocol import Answer, Floats, Prepared, Spec, Unsupported, floats, match

FAMILIES = {"binomial": "bernoulli_logit", "poisson": "poisson", "nbinom2": "negative_binomial"}


def dummies(frame: pd.DataFrame, name: str) -> Floats:
    """A number as a column, a factor as indicators of all levels but the first."""
    values = frame[name]
    if not isinstance(values.dtype, pd.CategoricalDtype):
        return values.to_numpy(dtype=float)[:, None]
    codes = values.cat.codes.to_numpy()
    return (codes[:, None] == np.arange(1, len(values.cat.categories))).astype(float)


def design(spec: Spec, frame: pd.DataFrame) -> Floats:
    blocks = [np.ones((len(frame), 1))]
    for product in spec.products:
        block = np.ones((len(frame), 1))
        for name in product:
            more = dummies(frame, name)
            block = (block[:, :, None] * more[:, None, :]).reshape(len(frame), -1)
        blocks.append(block)
    return np.hstack(blocks)


def response(spec: Spec, frame: pd.DataFrame) -> tuple[Floats, Floats | None, str]:
    if spec.trials is None:
        return frame[spec.response].to_numpy(dtype=float), None, FAMILIES[spec.family]
    trials = frame[spec.trials].to_numpy(dtype=float)
    successes = frame[spec.response.removeprefix("cbind(").split(",")[0]].to_numpy(dtype=float)
    return successes / trials, trials, "binomial_logit"


def fit(spec: Spec, frame: pd.DataFrame, x: Floats) -> Any:
    y, weights, likelihood = response(spec, frame)
    model = gpboost.GPModel(
        group_data=np.column_stack([frame[t.groups[0]].cat.codes.to_numpy() for t in spec.terms]),
        likelihood=likelihood,
        weights=weights,
        num_parallel_threads=1,
        matrix_inversion_method="cholesky",
    )
    return model.fit(y=y, X=x)


def prepare(spec: Spec, frame: pd.DataFrame, job: dict[str, Any]) -> Prepared:
    if any(len(t.effects) > 1 or len(t.groups) > 1 for t in spec.terms):
        raise Unsupported("no correlated slopes")
    if spec.nodes > 1:
        raise Unsupported("no quadrature")
    ready = design(spec, frame)
    return Prepared(
        whole=lambda: fit(spec, frame, design(spec, frame)),
        read=lambda found: read(spec, found),
        engine=lambda: fit(spec, frame, ready),
    )


def read(spec: Spec, found: Any) -> Answer:
    variances = floats(found.get_cov_pars())
    names = [str(i) for i in range(np.asarray(found.get_coef()).size)]
    blocks = [
        {"group": t.group, "effects": ["1"], "cov": [[v]]} for t, v in zip(spec.terms, variances, strict=True)
    ]
    return {
        "criterion": 2 * float(found.get_current_neg_log_likelihood()),
        "fixef": dict(zip(names, floats(found.get_coef()), strict=True)),
        "terms": match(spec, blocks),
        "sigma": 1.0,
    }
