"""Leave-one-out cross-validation by Pareto-smoothed importance sampling.

Vehtari, Gelman & Gabry (2017), Statistics and Computing 27, 1413.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .pareto import smoothed_log_weights

Array = NDArray[np.float64]

GOOD_K = 0.7


@dataclass(frozen=True)
class Loo:
    """Expected log predictive density of rows left out one by one.

    Attributes
    ----------
    elpd, se : float
        Sum over rows and its standard error.
    p_loo : float
        Effective number of parameters.
    pointwise, pareto_k : (n,) arrays
        Per row used; k above 0.7: the row's value may not be trusted.
    """

    elpd: float
    se: float
    p_loo: float
    pointwise: Array
    pareto_k: Array

    @property
    def looic(self) -> float:
        """-2 elpd, on the scale of AIC."""
        return -2 * self.elpd

    def __repr__(self) -> str:
        bad = int((self.pareto_k > GOOD_K).sum())
        lines = [
            f"elpd_loo {self.elpd:9.1f}  (standard error {self.se:.1f})",
            f"p_loo    {self.p_loo:9.1f}",
            f"looic    {self.looic:9.1f}",
        ]
        lines.append(
            f"All {len(self.pareto_k)} Pareto k are below {GOOD_K}: the estimate may be trusted."
            if not bad
            else f"{bad} of {len(self.pareto_k)} rows have a Pareto k above {GOOD_K}: leave them out by refitting instead."
        )
        return "\n".join(lines)


def loo(log_likelihood: Array) -> Loo:
    """PSIS-LOO of (chains, draws, n) log-likelihoods."""
    flat = log_likelihood.reshape(-1, log_likelihood.shape[-1])
    n = flat.shape[1]
    elpd, k = np.empty(n), np.empty(n)
    for i in range(n):
        log_weights, k[i] = smoothed_log_weights(-flat[:, i])
        log_weights = log_weights - _log_sum(log_weights)
        elpd[i] = _log_sum(log_weights + flat[:, i])
    lpd = np.array([_log_sum(column) for column in flat.T]) - np.log(len(flat))
    return Loo(float(elpd.sum()), float(np.sqrt(n * elpd.var())), float((lpd - elpd).sum()), elpd, k)


def _log_sum(x: Array) -> float:
    top = float(x.max())
    return top + float(np.log(np.exp(x - top).sum()))
