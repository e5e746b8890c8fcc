"""Leave-one-out cross-validation by Pareto-smoothed importance sampling.

Vehtari, Gelman & Gabry (2017), Statistics and Computing 27, 1413.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .pareto import smoothed_log_weights
from .progress import Progress

if TYPE_CHECKING:
    from .posterior import Posterior

Array = NDArray[np.float64]

GOOD_K = 0.7
NUMBERS = 2e6  # draws times rows held at once


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
    with Progress(flat.shape[1], "leave-one-out", False) as bar:
        return _loo([flat], bar)


def loo_of(posterior: Posterior, progress: bool | None = None) -> Loo:
    """PSIS-LOO of the rows of a posterior, of which only some stand in memory at a time."""
    from .row_draws import log_likelihood_parts

    with Progress(len(posterior.design.rows), "leave-one-out", progress) as bar:
        return _loo((values for _, values in log_likelihood_parts(posterior, NUMBERS)), bar)


def _loo(parts: Iterable[Array], bar: Progress) -> Loo:
    """Of (draws, m) log-likelihoods of the rows, part by part."""
    elpd, lpd, k = [], [], []
    for flat in parts:
        for column in flat.T:
            log_weights, shape = smoothed_log_weights(-column)
            log_weights = log_weights - _log_sum(log_weights)
            elpd.append(_log_sum(log_weights + column))
            lpd.append(_log_sum(column) - float(np.log(len(column))))
            k.append(shape)
            bar.add()
    each = np.array(elpd)
    p_loo = float((np.array(lpd) - each).sum())
    return Loo(float(each.sum()), float(np.sqrt(len(each) * each.var())), p_loo, each, np.array(k))


def _log_sum(x: Array) -> float:
    top = float(x.max())
    return top + float(np.log(np.exp(x - top).sum()))
