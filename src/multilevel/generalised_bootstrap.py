"""Parametric bootstrap of a generalised model: responses drawn from the fit, each fitted by a search of its own."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .bootstrap import Bootstrap, Statistic, _check, _root, named
from .errors import DataError, MultilevelError, MultilevelWarning, OptionError
from .progress import Progress
from .tables import correlations

if TYPE_CHECKING:
    from .generalised import GeneralisedFit

__all__ = ["LinkBootstrap", "bootstrap", "parameters"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LinkBootstrap(Bootstrap):
    """Estimates of many data sets drawn from a generalised model."""

    def confint(self, level: float = 0.95, kind: str = "percentile") -> Any:
        """Percentile, basic or normal intervals; see `Bootstrap.confint`."""
        if kind == "bca":
            raise OptionError("BCa intervals are available for the gaussian family only; use kind='percentile' or 'basic'")
        return super().confint(level, kind)


def parameters(fit: GeneralisedFit) -> dict[str, float]:
    """Sds and correlations of the random effects, further coefficients, and fixed effects, by name."""
    out: dict[str, float] = {}
    for term, cov in zip(fit.design.terms, fit.random_cov(), strict=True):
        sd = np.sqrt(np.diag(cov))
        out |= {f"sd({term.group}, {name})": float(value) for name, value in zip(term.names, sd, strict=True)}
        if term.structure == "diag":
            continue
        for i, row in enumerate(correlations(cov, sd), start=1):
            out |= {f"cor({term.group}, {term.names[j]}, {term.names[i]})": float(row[j]) for j in range(i)}
    out |= dict(zip(fit.coefficients.names, fit.optimum.residual.tolist(), strict=True))
    return out | dict(zip(fit.design.names, fit.optimum.beta.tolist(), strict=True))


def bootstrap(
    fit: GeneralisedFit, n: int, seed: int | None, kind: str, statistic: Statistic | None, progress: bool | None
) -> LinkBootstrap:
    """Parametric bootstrap; see `GeneralisedFit.bootstrap`."""
    from .generalised_predict import draw_responses

    _check(n, kind, statistic, None)
    if kind != "parametric":
        raise OptionError(f"kind {kind!r} is available for the gaussian family only; use 'parametric'")
    fit.rows_of_data()
    names, original = named((statistic or parameters)(fit))
    root, entropy = _root(seed)
    draws, failures = np.full((n, len(names)), np.nan), []
    with Progress(n, "bootstrap", progress) as bar:
        for i, own in enumerate(root.spawn(n)):
            y = draw_responses(fit, 1, [], np.random.default_rng(own))[0]
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", MultilevelWarning)
                    again: Any = fit.model.with_design(replace(fit.design, y=y)).fit(threads=fit.engine.threads)
                    if not again.convergence.converged:
                        raise DataError(again.convergence.sentence)
                    draws[i] = named((statistic or parameters)(again))[1]
            except MultilevelError as error:
                failures.append((i, str(error)))
            bar.add(1)
    return LinkBootstrap(fit, names, original, draws, kind, entropy, tuple(failures), "", (), statistic)
