"""Log posterior of a Gaussian model whose residuals have a structure with parameters of their own.

At given parameters of the residuals the rows are whitened and the density is that of `marginal`, with what the whitening
adds: half the log-determinant of the residuals' correlations, for the engine keeps the multipliers' geometric mean in its
unit of sigma. The slope by the residual's coordinates is a difference of two such values, all others are exact.
"""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import residual_priors
from .marginal import Coordinate, Marginal
from .priors import Fixed
from .sampler import SamplingStopped

if TYPE_CHECKING:
    from .prior_table import Entry
    from .structured import StructuredEngine

Array = NDArray[np.float64]

STEP = 1e-4  # of differences of the log posterior by the residual's coordinates
KEPT = 64  # whitened designs kept for the next call
MANY_ROWS = 5000  # from which whitening is worth a thread


class StructuredMarginal(Marginal):
    """The posterior over variances, correlations and the residual's parameters.

    Coordinates are those of `Marginal`, then one per residual parameter that is not held.
    """

    engine: StructuredEngine

    def __init__(self, engine: StructuredEngine, design: Any, entries: list[Entry]) -> None:
        super().__init__(engine, design, entries)
        self.own = [e for e in entries if e.kind == "residual"]
        self.free = residual_priors.free(entries)
        self.coordinates = [*self.coordinates, *(Coordinate(e.name, "residual", -1, (e.effect,)) for e in self.own)]
        self.plain = self.core
        # sigma sampled is that of a typical row where its prior is
        self.typical = any(e.typical for e in entries)
        self.size = int(self.plain.size) + len(self.free)
        self.slow = bool(self.free)
        self.core = MovingCore(self)

    def values_at(self, r: Array) -> tuple[Array, float]:
        """Parameters of the residuals at free coordinates r, and the log of their prior density by these."""
        out, log_prior, at = np.empty(len(self.own)), 0.0, 0
        for i, e in enumerate(self.own):
            if isinstance(e.prior, Fixed):
                out[i] = float(e.prior.value)
                continue
            out[i], log_slope = residual_priors.value(e, float(r[at]))
            log_prior += residual_priors.log_density(e.prior, out[i]) + log_slope
            at += 1
        return out, log_prior

    def unit(self, values: Array) -> float:
        """Sd of a typical row over sigma, at values of the residual's parameters."""
        residual, d = self.engine.residual, self.design
        assert residual is not None
        return float(residual_priors.unit(residual, values, d.weights, len(d.y)))

    def costly(self, flops: float) -> bool:
        return super().costly(flops) or (self.slow and self.engine.blocks.n > MANY_ROWS)

    def start(
        self, sds: list[Array], correlations: list[Array], sigma: float, beta: Array, residual: Array | None = None
    ) -> Array:
        """As `Marginal.start`; the residual's parameters are those given, or where a search for them would begin."""
        own = self.engine.residual
        assert own is not None
        values = own.values(own.starts()[0]) if residual is None else residual
        free = [residual_priors.coordinate(e, float(values[e.effect])) for e in self.free]
        if self.typical:
            sigma *= self.unit(values)
        return np.concatenate([super().start(sds, correlations, sigma, beta), free])


class MovingCore:
    """What the compiled posterior is for one set of cross-products, for those that move with the residual's parameters."""

    def __init__(self, density: StructuredMarginal) -> None:
        self.density, self.size = density, density.size
        self.stopped, self._done = False, 0
        self._only: Any = None  # the compiled posterior that does all the work where no residual parameter is free
        self._kept: OrderedDict[bytes, tuple[Any, float]] = OrderedDict()
        self._split = int(density.plain.size)

    @property
    def done(self) -> int:
        """Steps since the start."""
        return self._done + (int(self._only.done) if self._only is not None else 0)

    @done.setter
    def done(self, value: int) -> None:
        self._done = value - (int(self._only.done) if self._only is not None else 0)

    def stop(self) -> None:
        self.stopped = True
        if self._only is not None:
            self._only.stop()

    def restart(self) -> None:
        self.stopped, self._done = False, 0
        if not self.density.free:
            self._only = self._at(self.density.values_at(np.empty(0))[0])[0]
            self._only.restart()

    def _made(self, values: Array) -> tuple[Any, float]:
        """The compiled posterior at values of the residual's parameters, and what it lacks."""
        d = self.density
        residual = d.engine.residual
        assert residual is not None
        blocks = d.engine.moved(residual.coordinates(values)).blocks
        return d.compiled(blocks, d.engine.parts.unit if d.typical else None), -0.5 * blocks.log_det

    def _at(self, values: Array) -> tuple[Any, float]:
        """`_made`, with the last ones kept."""
        key = values.tobytes()
        if key not in self._kept:
            self._kept[key] = self._made(values)
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def _value(self, x: Array, r: Array, keep: bool = True) -> float:
        values, log_prior = self.density.values_at(r)
        if not np.isfinite(values).all() or not np.isfinite(log_prior):
            return -np.inf
        core, more = self._at(values) if keep else self._made(values)
        return float(core.log_posterior(x, False)[0]) + more + log_prior

    def log_posterior(self, x: Array, want: bool) -> tuple[float, Array | None]:
        """Log posterior at (size,) coordinates, with its gradient on request."""
        plain, r = np.ascontiguousarray(x[: self._split]), x[self._split :]
        value = self._value(plain, r)
        if not want or not np.isfinite(value):
            return value, None
        slope = self._at(self.density.values_at(r)[0])[0].log_posterior(plain, True)[1]
        more = np.array([(self._value(plain, r + STEP * e, keep=False) - value) / STEP for e in np.eye(len(r))])
        return (value, np.r_[slope, more]) if np.isfinite(more).all() else (-np.inf, None)

    def log_posteriors(self, x: Array, threads: int) -> Array:
        """(m,) log posteriors; minus infinity for those not computed any more when stopped."""
        plain = np.ascontiguousarray(x[:, : self._split])
        if not self.density.free:
            core, more = self._at(self.density.values_at(np.empty(0))[0])
            return np.asarray(core.log_posteriors(plain, threads) + more)

        def one(i: int) -> float:
            if self.stopped:
                return -np.inf
            self._done += 1
            return self._value(plain[i], x[i, self._split :], keep=False)

        workers = threads if self.density.engine.blocks.n >= MANY_ROWS else 1
        return np.array(_mapped(one, len(x), workers), dtype=np.float64)

    def constrained(self, x: Array) -> Array:
        """(m, ...) parameters: those of the terms, sigma, the residual's, sampled coefficients."""
        made = np.asarray(self.density.plain.constrained(np.ascontiguousarray(x[:, : self._split])))
        own = np.array([self.density.values_at(r)[0] for r in x[:, self._split :]]).reshape(len(x), -1)
        at = len(self.density.coordinates) - own.shape[1]
        if self.density.typical:  # sigma is the last of them
            made[:, at - 1] /= [self.density.unit(values) for values in own]
        out: Array = np.concatenate([made[:, :at], own, made[:, at:]], axis=1)
        return out

    def draw(self, x: Array, seed: int, threads: int) -> Array:
        """Per row of x a draw of coefficients and group effects given it, engine's coordinates.

        Rows that are alike share the work; the numbers depend on the seed and the place of the first of them.
        """
        _, first, which = np.unique(x, axis=0, return_index=True, return_inverse=True)
        which = which.ravel()
        order = np.argsort(which, kind="stable")
        rows = np.split(order, np.cumsum(np.bincount(which))[:-1])
        own_seeds = np.random.SeedSequence(seed).generate_state(len(x), np.uint64)

        def one(i: int) -> Any:
            if self.stopped:
                raise SamplingStopped
            values, _ = self.density.values_at(x[first[i], self._split :])
            core, _ = self._made(values) if self.density.free else self._at(values)
            self._done += len(rows[i]) if self.density.free else 0
            return core.draw(np.ascontiguousarray(x[rows[i], : self._split]), int(own_seeds[first[i]]), 1)

        workers = threads if self.density.engine.blocks.n >= MANY_ROWS else 1
        found = _mapped(one, len(first), workers)
        out = np.empty((len(x), found[0].shape[1]))
        for at, values in zip(rows, found, strict=True):
            out[at] = values
        return out

    def nuts(
        self, starts: Array, center: Array, root: Array, warmup: int, draws: int, max_depth: int, target: float,
        adapt_metric: bool, seed: int, threads: int,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """Chains of the no-U-turn sampler, as the compiled posterior gives them."""
        if not self.density.free:
            core, _ = self._at(self.density.values_at(np.empty(0))[0])
            return list(core.nuts(starts, center, root, warmup, draws, max_depth, target, adapt_metric, seed, threads))
        from .nuts import Sampler

        sampler = Sampler(self, center, root, warmup, draws, max_depth, target)
        return [sampler.run(start, np.random.default_rng([seed, c])) for c, start in enumerate(starts)]


def _mapped(work: Any, count: int, workers: int) -> list[Any]:
    """Results of work(0) ... work(count - 1), in order."""
    if workers <= 1:
        return [work(i) for i in range(count)]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(work, range(count)))
