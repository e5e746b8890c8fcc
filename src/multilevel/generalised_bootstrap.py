"""Parametric bootstrap of a generalised model: responses drawn from the fit, each fitted by a search from its optimum."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .bootstrap import Bootstrap, Statistic, _check, _collect, _Done, _root, named
from .errors import DataError, MultilevelError, MultilevelWarning, OptionError, listing, users_level
from .generalised_refits import direct, engine_on, refitted, search, start_of
from .sd_scale import draws, estimates, parameters_of

if TYPE_CHECKING:
    from .generalised import GeneralisedFit
    from .laplace import LaplaceEngine

__all__ = ["LinkBootstrap", "bootstrap"]

Array = NDArray[np.float64]

BATCH = 64  # most replicates between two looks at the keyboard and the progress bar
ROWS = 20_000  # of all replicates of a batch together


@dataclass(frozen=True)
class LinkBootstrap(Bootstrap):
    """Estimates of many data sets drawn from a generalised model."""

    def confint(self, level: float = 0.95, kind: str = "percentile") -> Any:
        """Percentile, basic or normal intervals; see `Bootstrap.confint`."""
        check_interval(kind)
        return super().confint(level, kind)


def check_interval(kind: object) -> None:
    """Refuse an interval that needs fits with groups left out."""
    if kind == "bca":
        raise OptionError("BCa intervals are available for the gaussian family only; use 'percentile' or 'basic'")


def bootstrap(
    fit: GeneralisedFit,
    n: int,
    seed: int | None,
    kind: str,
    statistic: Statistic | None,
    threads: int | None,
    progress: bool | None,
) -> LinkBootstrap:
    """Parametric bootstrap; see `GeneralisedFit.bootstrap`."""
    _check(n, kind, statistic, threads)
    if kind != "parametric":
        raise OptionError(f"kind {kind!r} is available for the gaussian family only; use 'parametric'")
    fit.rows_of_data()
    root, entropy = _root(seed)
    work = _Work(fit, statistic)
    done = _Done(int(n), len(work.names))
    interrupted = _collect(work.run(root.spawn(int(n)), threads), done, int(n), progress)
    messages = tuple(done.said(int(n), interrupted))
    for sentence in messages:
        warnings.warn(sentence, MultilevelWarning, stacklevel=users_level())
    drawn, failures = done.values[: done.count], tuple(done.failures)
    return LinkBootstrap(fit, work.names, work.original, drawn, kind, entropy, failures, "", messages, statistic)


class _Work:
    """How one replicate is drawn and fitted: by one search from the optimum, or, for a statistic, the whole fit."""

    def __init__(self, fit: GeneralisedFit, statistic: Statistic | None) -> None:
        self.fit, self.statistic = fit, statistic
        self.every = parameters_of(fit)
        if statistic is None:
            self.names, self.original = tuple(p.name for p in self.every), estimates(self.every, fit)
        else:
            self.names, self.original = named(statistic(fit))
        self.engine, self.start = fit.model.laplace(), start_of(fit)
        fit._eta, fit._parameters  # noqa: B018  made once, before threads need them

    def run(
        self, seeds: list[np.random.SeedSequence], threads: int | None
    ) -> Iterator[tuple[int, Sequence[Array | str]]]:
        """Batches of results: position of the first, then values, or the reason of a failure."""
        from .crossprod import default_threads

        count = default_threads() if threads is None else int(threads)
        size = int(np.clip(ROWS // max(self.fit.nobs, 1), 2 * count, BATCH))
        quick = self.statistic is None and direct(self.engine)
        executor = ThreadPoolExecutor(count)
        try:
            for at in range(0, len(seeds), size):
                batch = seeds[at : at + size]
                if not quick:
                    for i, seed in enumerate(batch):
                        yield at + i, [self.whole(seed)]
                    continue
                found = list(executor.map(self.lean, batch))
                # a search that did not settle is done again with all starts; warnings are filtered, which is not for threads
                pairs = zip(found, batch, strict=True)
                yield at, [self.whole(seed) if one is None else one for one, seed in pairs]
        finally:
            executor.shutdown(cancel_futures=True)

    def response(self, seed: np.random.SeedSequence) -> Array:
        """(n,) response of a replicate."""
        from .generalised_predict import draw_responses

        return np.asarray(draw_responses(self.fit, 1, [], np.random.default_rng(seed))[0])

    def lean(self, seed: np.random.SeedSequence) -> Array | str | None:
        """(m,) parameters of a replicate, without standard errors; None where the search did not settle."""
        try:
            engine = engine_on(self.engine, self.response(seed), 1)
            reached = search(engine, self.start)
        except MultilevelError as error:
            return str(error)
        if reached is None:
            return None
        covs, beta, residual = on_users_scale(engine, reached[1])
        out: Array = draws(self.every, [c[None] for c in covs], np.ones(1), beta[None], residual[None])[0]
        return out

    def whole(self, seed: np.random.SeedSequence) -> Array | str:
        """(m,) parameters, or the statistic, of a complete fit to a replicate."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", MultilevelWarning)
                return self.value(refitted(self.fit, self.response(seed), self.start))
        except MultilevelError as error:
            return str(error)
        except Exception as error:
            if self.statistic is None:
                raise
            return f"{type(error).__name__}: {error}"

    def value(self, fit: GeneralisedFit) -> Array:
        """(m,) parameters or statistic of a fit; not converged is an error."""
        if not fit.convergence.converged:
            raise DataError(fit.convergence.sentence)
        if self.statistic is None:
            return estimates(self.every, fit)
        names, values = named(self.statistic(fit))
        if names != self.names:
            raise DataError(
                f"the statistic returned {len(names)} numbers ({listing(names)}), not those it returned at first"
            )
        return values


def on_users_scale(engine: LaplaceEngine, found: dict[str, Any]) -> tuple[list[Array], Array, Array]:
    """Covariance of each term, fixed effects and further coefficients of what a search found."""
    covs: list[Array] = [np.empty(0)] * len(engine.structures)
    for group, root in zip(engine.groups, found["lambdas"], strict=True):
        factor = group.basis @ root
        for t, part in zip(group.terms, group.slices, strict=True):
            covs[t] = factor[part, :] @ factor[part, :].T
    p = engine.x.shape[1]
    return covs, engine.x_basis @ found["plain"][:p], engine.coefficients.basis @ found["plain"][p:]
