"""Fit whose residual variances depend on its fitted values: a fixed point of the two."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .optimise import UNSETTLED

if TYPE_CHECKING:
    from .fit import Fit
    from .model import Model

MAX_ROUNDS = 100
SETTLED = 1e-11  # relative change of the criterion that ends the rounds


def settled_fit(model: Model, reml: bool, threads: int, start: Any, limit: int | None) -> Fit:
    """Fit with variances that depend on the fitted values: refitted until these agree with the variances they imply.

    As nlme's varPower() does by default: the covariate is held at the fitted values of the round before.
    """
    assert model._residual is not None
    plain = model.with_residual(
        replace(model._residual, spreads=tuple(s for s in model._residual.spreads if s.covariate))
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = plain.fit(reml, threads=threads, start=start, max_evaluations=limit)
    last, settled = np.inf, False
    for _ in range(MAX_ROUNDS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit = model.with_residual(model._residual.with_fitted(fit._eta[1])).fit(
                reml, threads=threads, max_evaluations=limit
            )
        change, last = abs(fit.criterion - last), fit.criterion
        settled = change < SETTLED * (1 + abs(last))
        if settled:
            break
    if not settled:
        evidence = replace(fit.optimum.evidence, status=UNSETTLED)
        fit = type(fit)(fit.model, replace(fit.optimum, evidence=evidence), fit.engine)
    from .diagnostics import warn_of

    warn_of(fit)
    return fit
