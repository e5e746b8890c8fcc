"""Engine for structures that are not free: few-parameter covariances of random terms, structured residuals.

The free terms are left to the compiled search (`trust.hpp`), which holds the others' factors fixed. Round it runs a
quasi-Newton search over the few smooth coordinates of the structures (`covariance`, `residuals`). By the envelope theorem
the derivative of what the inner search reaches is the partial derivative, which is exact: through Lambda by the chain
rule; through the whitening of the rows by ``tr(S dOmega)`` with the selected inverse S, a bilinear form per row. Newton
steps in all coordinates at once end the search, and their Hessian certifies it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import crossprod, structured_search
from .errors import DataError
from .reml import MAX_EVALUATIONS, Engine, Optimum, one_at_a_time
from .row_slopes import row_slopes
from .structured_search import s_starts

if TYPE_CHECKING:
    from .crossprod import CrossProducts, Parts
    from .design import Design
    from .optimise import Curvature
    from .residuals import Residual, Whitener

Array = NDArray[np.float64]


class StructuredEngine(Engine):
    """Cross-products of a design with structured terms or residuals, at one point of the residual's coordinates."""

    parts: Parts
    residual: Residual | None
    a: Array  # the residual's coordinates that the cross-products belong to

    def __init__(self, design: Design, residual: Residual | None, threads: int | None = None) -> None:
        threads = crossprod.default_threads() if threads is None else threads
        self.parts = crossprod.prepare(design)
        w = self.parts.rows.weights
        self.residual = residual if residual is None or w is None else replace(residual, log_sd0=-np.log(w) / 2)
        self.a = np.empty(0) if residual is None else residual.starts()[0]
        self._keep(self._blocks(self.a, threads), threads)

    def moved(self, a: Array) -> StructuredEngine:
        """The same design at other coordinates of the residual."""
        out = object.__new__(StructuredEngine)
        out.parts, out.residual, out.a = self.parts, self.residual, np.array(a, dtype=np.float64)
        out._keep(self._blocks(out.a, self.threads), self.threads)
        return out

    def with_threads(self, threads: int) -> StructuredEngine:
        out = object.__new__(StructuredEngine)
        out.parts, out.residual, out.a = self.parts, self.residual, self.a
        out._keep(self.blocks, threads)
        return out

    def __getstate__(self) -> Any:
        return self.blocks, self.threads, self.parts, self.residual, self.a

    def __setstate__(self, state: Any) -> None:
        blocks, threads, self.parts, self.residual, self.a = state
        self._keep(blocks, threads)

    # -- rows -------------------------------------------------------------------------------------------------

    def whitener(self, a: Array) -> Whitener | None:
        return None if self.residual is None else self.residual.at(a, len(self.parts.y))

    def _blocks(self, a: Array, threads: int) -> CrossProducts:
        """Cross-products of the rows whitened at a."""
        whitener = self.whitener(a)
        if whitener is None:
            return crossprod.assemble(self.parts, threads)
        p = self.parts
        codes: list[Any] = []
        z: list[Array | None] = []
        codes2: list[Any] = []
        z2: list[Array | None] = []
        for code, effects in zip(p.rows.codes, p.rows.z, strict=True):
            columns = np.ones((len(code), 1)) if effects is None else effects
            low = entries(whitener, code, whitener.own(columns), whitener.before(columns))
            codes.append(low[0])
            z.append(np.ascontiguousarray(low[1]))
            codes2.append(low[2])
            z2.append(low[3])
        x = np.ascontiguousarray(whitener.apply(p.rows.x))
        rows = replace(p.rows, codes=codes, z=z, x=x, weights=None, codes2=codes2, z2=z2)
        # the multipliers hold the weights too
        assert self.residual is not None
        unit = p.unit / self.residual.unit(a, len(p.y))
        white = replace(p, rows=rows, y=whitener.apply(p.y), log_det=p.log_det + whitener.log_det(), unit=unit)
        return crossprod.assemble(white, threads)

    # -- one point ----------------------------------------------------------------------------------------------

    def spans(self) -> list[tuple[int, slice]]:
        """(term, its slice of the coordinates) of every structured term."""
        out, at = [], 0
        for t, s in enumerate(self.blocks.structures):
            if not s.free:
                out.append((t, slice(at, at + s.n_coordinates)))
                at += s.n_coordinates
        return out

    @property
    def n_terms(self) -> int:
        """Coordinates of structured terms; the residual's follow."""
        return sum(s.n_coordinates for s in self.blocks.structures if not s.free)

    def with_terms(self, lambdas: list[Array], a: Array) -> list[Array]:
        """Engine factors with the structured terms' parts at a: sds there are relative to the engine's sigma."""
        out = [m.copy() for m in lambdas]
        where = {
            t: (f, part) for f, g in enumerate(self.blocks.groups) for t, part in zip(g.terms, g.slices, strict=True)
        }
        for t, span in self.spans():
            f, part = where[t]
            out[f][part, part] = self.blocks.structures[t].at(a[span])
        return [np.ascontiguousarray(m) for m in out]

    def slopes(self, state: Any, lambdas: list[Array], a: Array, reml: bool, s2: float) -> tuple[Array, list[Array]]:
        """Derivative of the deviance by the coordinates, and per engine group by its factor; sigma fixed at s2."""
        grads = state.gradient(1.0, 1.0 if reml else 0.0, state.r2 / s2)
        where = {
            t: (f, part) for f, g in enumerate(self.blocks.groups) for t, part in zip(g.terms, g.slices, strict=True)
        }
        out = []
        for t, span in self.spans():
            f, part = where[t]
            moves = self.blocks.structures[t].by_coordinate(a[span])
            out += [float(np.vdot(grads[f][part, part], move)) for move in moves]
        return np.r_[out, row_slopes(self, state, lambdas, reml, s2)], grads

    def _scales(self) -> dict[int, Array]:
        """Per term, what its effects are multiplied by to come from the engine's to the user's."""
        groups = self.blocks.groups
        return {t: np.diag(g.basis)[part] for g in groups for t, part in zip(g.terms, g.slices, strict=True)}

    def coordinate_names(self) -> list[str]:
        """What each coordinate moves, in the user's terms."""
        out = []
        where = {t: g.name for g in self.blocks.groups for t in g.terms}
        for t, _ in self.spans():
            s = self.blocks.structures[t]
            sds = [f"sd({where[t]}, effect {i + 1})" for i in range(s.n_sd)] if s.n_sd > 1 else [f"sd({where[t]})"]
            out += [*sds, *([f"rho({where[t]})"] if s.correlated else [])]
        return [*out, *(self.residual.names() if self.residual else ())]

    def term_components(self) -> list[tuple[int, list[int]]]:
        """Each effect of a structured term by itself: what a first guess of its sd needs."""
        return [
            (f, [i])
            for f, group in enumerate(self.blocks.groups)
            for t, part in zip(group.terms, group.slices, strict=True)
            if not self.blocks.structures[t].free
            for i in range(part.start, part.stop)
        ]

    def starts(self, moments: list[Array]) -> Iterator[Array]:
        """Coordinates at which a search may start, the likeliest first: sds by moments, a few correlations."""
        choices: list[list[Array]] = []
        for f, group in enumerate(self.blocks.groups):
            for t, part in zip(group.terms, group.slices, strict=True):
                s = self.blocks.structures[t]
                if s.free:
                    continue
                sds = np.abs(np.diag(moments[f])[part])
                sds = np.full(s.n_sd, np.sqrt(np.mean(sds**2))) if s.n_sd == 1 else sds
                rhos = [theta[s.n_sd :] for theta in s_starts(s, 1.0)]
                level = np.full(s.n_sd, np.sqrt(np.mean(sds**2)))
                sizes = [sds, level] if s.n_sd > 1 and s.correlated else [sds]
                choices.append([s.coordinates(np.r_[size, rho]) for size in sizes for rho in rhos])
        order = [t for g in self.blocks.groups for t in g.terms if not self.blocks.structures[t].free]
        ranked = [choices[order.index(t)] for t, _ in self.spans()]
        if self.residual is not None:
            ranked.append(self.residual.starts(self.parts.y))
        return (np.concatenate(c) if c else np.empty(0) for c in itertools.product(*ranked))

    # -- fit ----------------------------------------------------------------------------------------------------

    @one_at_a_time
    def fit(
        self,
        reml: bool = True,
        start: tuple[Array, ...] | None = None,
        max_evaluations: int = MAX_EVALUATIONS,
        residual: Array | None = None,
    ) -> Optimum:
        """Minimise the criterion over everything and certify the minimum; see `structured_search`.

        `residual` are the residual's parameters that belong to `start`.
        """
        if self.df(reml) <= 0:
            c = self.blocks
            raise DataError(f"{c.n} rows cannot carry {c.p} fixed effects; give the model more rows or fewer columns")
        a = None
        if start is not None:
            known = residual is not None and self.residual is not None
            tail = self.residual.coordinates(residual) if known else self.a  # type: ignore[union-attr, arg-type]
            a = np.r_[self._coordinates(start), tail]
        point, evidence = structured_search.fit(self, reml, a, max(max_evaluations, 1) * 10)
        with point.engine.lock:
            state = point.engine.state(reml, point.lambdas)
            optimum = point.engine._optimum(state, point.lambdas, reml, evidence)
        if self.residual is None:
            return optimum
        return replace(optimum, residual=self.residual.values(point.engine.a))

    def _coordinates(self, lambdas: tuple[Array, ...]) -> Array:
        """Coordinates of the structured terms at per-term factors in the user's coordinates."""
        parts = []
        scales = self._scales()
        for t, (s, m) in enumerate(zip(self.blocks.structures, lambdas, strict=True)):
            if not s.free:
                parts.append(s.coordinates(s.to_theta(self.blocks.unit * m / scales[t][:, None])))
        return np.concatenate([np.empty(0), *parts])

    def fitted(self, optimum: Optimum) -> StructuredEngine:
        """The engine whose rows are whitened as an optimum found best."""
        if self.residual is None:
            return self
        a = self.residual.coordinates(optimum.residual)
        return self if np.array_equal(a, self.a) else self.moved(a)

    @one_at_a_time
    def curvature(self, optimum: Optimum) -> Curvature:
        """Exact Hessian at an optimum along its free directions and the coordinates of its structures."""
        a = np.r_[self._coordinates(optimum.lambdas), self.a]
        lambdas = self.with_terms(list(optimum.engine_lambdas), a)
        point = structured_search.Point(self, a, lambdas, 0.0, np.empty(0), {})
        facts = structured_search.Joint.of(point, optimum.reml).curvature()
        if facts is None:
            raise DataError("the criterion cannot be evaluated next to the optimum, so it has no standard errors there")
        return facts


def entries(w: Whitener, codes: Any, own: Array, before: Array) -> tuple[Any, Array, Any, Any]:
    """Levels a whitened row touches, with their effects: smaller level first.

    `own` are the effects that come from the row itself, `before` those from the row before it in its residual group, which
    may belong to another level of a crossed factor. Where it never does, the second level and its effects are None.
    """
    if not w.serial:
        return codes, own, None, None
    other = np.where(w.previous >= 0, codes[w.previous], codes)
    same = other == codes
    if same.all():
        return codes, own + before, None, None
    first = (codes < other)[:, None]
    low = np.where(same[:, None], own + before, np.where(first, own, before))
    high = np.where(same[:, None], 0.0, np.where(first, before, own))
    second = np.where(same, -1, np.maximum(codes, other)).astype(np.int32)
    return np.minimum(codes, other).astype(np.int32), np.ascontiguousarray(low), second, np.ascontiguousarray(high)
