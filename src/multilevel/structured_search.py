"""The search over the coordinates of structures, its certificate, and the Hessian that standard errors need."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import optimise, quasi_newton
from .covariance import NO_SD
from .errors import DataError
from .optimise import Curvature, Direction, Evidence
from .residuals import NONE

if TYPE_CHECKING:
    from .structured import StructuredEngine

Array = NDArray[np.float64]

STEP = 1e-4  # of central differences in smooth coordinates: error about 1e-8 both ways
SNAP = 1e-3  # relative sd below which a structured term is tried at zero
LITTLE = 0.05  # correlation of the nearest rows below which a CAR(1) is tried without any
CANNOT = (
    "the criterion cannot be evaluated at any start, which points to values far too large or too small; rescale the response "
    "and the predictors, or simplify the structure"
)
MAX_STARTS, FEW_STARTS = 20, 8  # combinations of starts that are looked at: where that costs little, and where not
DESCENTS = 5  # of them, from which the search goes down where that costs little: a correlation may have two minima
PER_ROW = 100  # operations that whitening a row and differentiating by it cost
CHEAP = 1e8  # operations of one evaluation times coordinates: what costs little


@dataclass(frozen=True)
class Point:
    """Coordinates with the free factors that are best there.

    ``slope`` (r,) is the derivative of the profiled deviance by the coordinates; it is exact although the free factors
    move with them, for those are at their best (envelope theorem).
    """

    engine: StructuredEngine
    a: Array
    lambdas: list[Array]
    value: float
    slope: Array
    found: dict[str, Any]


class Search:
    """Minimises the profiled deviance over structures and free factors."""

    def __init__(self, engine: StructuredEngine, reml: bool, limit: int) -> None:
        self.reml, self.limit, self.spent, self.engine = reml, limit, 0, engine
        self.free = bool(engine.blocks.components)
        self.trace: list[float] = []

    # -- one point ----------------------------------------------------------------------------------------------

    def at(self, a: Array, lambdas: list[Array]) -> Point | None:
        """The best free factors at coordinates a; None where the criterion cannot be evaluated."""
        from . import _core

        engine = self.engine_at(a)
        start = engine.with_terms(lambdas, a)
        state = _core.State(engine.blocks.core, self.reml, engine.threads)
        df = engine.df(self.reml)
        if self.free:
            found = _core.fit(state, start, engine.blocks.components, self.limit, 0)
            self.spent += found["evaluations"]
            start = engine.with_terms(found["lambdas"], a)
            if found["status"] == 3 or state.set(start) != 0:
                return None
        else:
            self.spent += 1
            found = {"status": 0, "null_slopes": [], "rank": [], "decrement": 0.0, "iterations": 0}
            if state.set(start) != 0:
                return None
        value = self.value(engine, state)
        if not np.isfinite(value):
            return None
        slope, _ = engine.slopes(state, start, a, self.reml, state.r2 / df)
        return Point(engine, a, start, value, slope, found)

    def engine_at(self, a: Array) -> StructuredEngine:
        part = a[self.engine.n_terms :]
        if not np.array_equal(part, self.engine.a):
            self.engine = self.engine.moved(part)
        return self.engine

    def value(self, engine: StructuredEngine, state: Any) -> float:
        df = engine.df(self.reml)
        out = state.log_det_u + (state.log_det_x if self.reml else 0.0) + df * np.log(state.r2 / df)
        return float(out + engine.blocks.log_det)

    # -- the search ---------------------------------------------------------------------------------------------

    def run(self, start: Array | None) -> Point:
        """From the best of several starts down, then Newton steps in all coordinates."""
        from . import _core

        engine = self.engine
        loose = [*engine.blocks.components, *engine.term_components()]
        moments = _core.moment_start(engine.blocks.core, loose)
        cost = engine.blocks.core.flops + (PER_ROW * engine.blocks.n if len(engine.a) else 0)
        cheap = cost * max(engine.n_terms + len(engine.a), 1) < CHEAP
        most = MAX_STARTS if cheap else FEW_STARTS
        candidates = [start] if start is not None else list(itertools.islice(engine.starts(moments), most))
        # a variance may have one minimum at zero and another away from it: where that costs little, both are looked for
        unit = [np.eye(g.k) for g in engine.blocks.groups]
        firsts = [moments, unit] if cheap and self.free else [moments]
        points = [p for first in firsts for a in candidates if (p := self.at(a, first)) is not None]
        if not points:
            raise DataError(CANNOT)
        points.sort(key=lambda p: p.value)
        points = [p for i, p in enumerate(points) if i == 0 or p.value > points[i - 1].value + 1e-9]
        return min((self.snapped(self.descend(p)) for p in points[: DESCENTS if cheap else 1]), key=lambda p: p.value)

    def descend(self, point: Point) -> Point:
        """Down to a minimum."""
        return quasi_newton.descend(
            point, lambda a, near: self.at(a, near.lambdas), lambda: self.spent > self.limit, self.trace
        )

    def snapped(self, point: Point) -> Point:
        """Terms whose sds all but vanished, exactly at zero where that is no worse."""
        for t, span in point.engine.spans():
            s = point.engine.blocks.structures[t]
            sd = s.theta_at(point.a[span])[: s.n_sd]
            if not sd.max() < SNAP:
                continue
            a = point.a.copy()
            a[span.start : span.start + s.n_sd] = 0.0
            zero = self.at(a, point.lambdas)
            if zero is not None and zero.value <= point.value + 1e-9:
                point = self._grown(zero, span, s) or zero
        return self._independent(point)

    def _independent(self, point: Point) -> Point:
        """Residuals without a CAR(1), where that is no worse and no usual correlation is better."""
        serial = None if point.engine.residual is None else point.engine.residual.serial
        if serial is None or serial.kind != "car1" or serial.vanished(point.a[-1:]):
            return point
        if np.max(serial.coefficient(point.a[-1:])[0]) > LITTLE:
            return point
        none = self.at(np.r_[point.a[:-1], NONE], point.lambdas)
        if none is None or none.value > point.value + 1e-7:  # a tail that falls off to nothing
            return point
        for start in serial.starts():
            tried = self.at(np.r_[point.a[:-1], start], none.lambdas)
            if tried is not None and tried.value < none.value - 1e-7:
                return self.descend(tried)
        return none

    def _grown(self, zero: Point, span: slice, s: Any) -> Point | None:
        """A better point where the vanished term has some variance after all, for any of the usual correlations."""
        for theta in s_starts(s, 0.05):
            a = zero.a.copy()
            a[span] = s.coordinates(theta)
            tried = self.at(a, zero.lambdas)
            if tried is not None and tried.value < zero.value - 1e-7:
                return self.descend(tried)
        return None


def s_starts(s: Any, sd: float) -> list[Array]:
    """Thetas of a structure with sds of one size and the correlations a search looks at."""
    if not s.correlated:
        return [np.full(s.n_sd, sd)]
    low, _ = s.range()
    return [np.r_[np.full(s.n_sd, sd), rho] for rho in (0.5, 0.9, 0.1, low / 2, 0.9 * low)]


# -- all coordinates at once ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Joint:
    """Directions of the free factors, then coordinates of the structures, about one point."""

    point: Point
    directions: list[Direction]
    coordinates: list[int]
    reml: bool

    @classmethod
    def of(cls, point: Point, reml: bool) -> Joint:
        free = optimise.free_directions(point.lambdas, point.engine.blocks.components)
        return cls(point, free, active(point), reml)

    def sizes(self) -> Array:
        return np.array([*(d.size for d in self.directions), *(1.0 for _ in self.coordinates)])

    def moved(self, x: Array) -> tuple[StructuredEngine, list[Array], Array]:
        """Engine, factors and coordinates at a step x along everything."""
        a = self.point.a.copy()
        a[self.coordinates] += x[len(self.directions) :]
        engine = self.point.engine
        if not np.array_equal(a[engine.n_terms :], engine.a):
            engine = engine.moved(a[engine.n_terms :])
        change = optimise.combined(self.point.lambdas, self.directions, x[: len(self.directions)])
        lambdas = [m + d for m, d in zip(self.point.lambdas, change, strict=True)]
        return engine, engine.with_terms(lambdas, a), a

    def slope(self, x: Array, s2: float | None) -> tuple[Array, Any] | None:
        """Derivative along everything at a step x, sigma profiled out or held at s2; with the state there."""
        from . import _core

        engine, lambdas, a = self.moved(x)
        state = _core.State(engine.blocks.core, self.reml, engine.threads)
        if state.set(lambdas) != 0:
            return None
        at = state.r2 / engine.df(self.reml) if s2 is None else s2
        by_a, grads = engine.slopes(state, lambdas, a, self.reml, at)
        free = [float(np.vdot(grads[d.group], d.matrix())) for d in self.directions]
        return np.r_[free, by_a[self.coordinates]], state

    def curvature(self) -> Curvature | None:
        """Hessian by central differences of the exact gradient, at fixed sigma and with sigma profiled out."""
        zero = np.zeros(len(self.directions) + len(self.coordinates))
        here = self.slope(zero, None)
        if here is None:
            return None
        df = self.point.engine.df(self.reml)
        s2 = here[1].r2 / df
        steps = STEP * self.sizes()
        rows, r2, l_x = [], [], []
        for i, size in enumerate(steps):
            pair = []
            for sign in (1.0, -1.0):
                x = zero.copy()
                x[i] = sign * size
                one = self.slope(x, s2)
                if one is None:
                    return None
                pair.append((one[0], one[1].r2, one[1].l_x()))
            rows.append((pair[0][0] - pair[1][0]) / (2 * size))
            r2.append((pair[0][1] - pair[1][1]) / (2 * size))
            l_x.append([pair[0][2], pair[1][2]])
        p = self.point.engine.blocks.p
        hessian = np.array(rows).reshape(len(steps), len(steps))
        hessian = (hessian + hessian.T) / 2
        slope = np.array(r2)
        none = np.empty(0)
        directions = [*self.directions, *(Direction(-1, none, none, 1.0) for _ in self.coordinates)]
        profiled = hessian - np.outer(slope, slope) / (s2 * s2 * df)
        return Curvature(directions, steps, hessian, profiled, slope, np.array(l_x).reshape(len(steps), 2, p, p))


def active(point: Point) -> list[int]:
    """Coordinates that the criterion depends on: not those of a term without variance."""
    out = []
    for t, span in point.engine.spans():
        s = point.engine.blocks.structures[t]
        sd = s.theta_at(point.a[span])[: s.n_sd]
        vary = int(np.sum(sd > NO_SD)) if s.n_sd > 1 else s.k * int(sd[0] > NO_SD)
        if vary == 0:
            continue
        out += list(range(span.start, span.start + s.n_sd))
        if s.correlated and vary > 1:
            out.append(span.stop - 1)
    residual = point.engine.residual
    gone = residual is not None and residual.serial is not None and residual.serial.vanished(point.a[-1:])
    return out + list(range(point.engine.n_terms, len(point.a) - gone))


def polished(search: Search, point: Point) -> tuple[Point, Joint, Curvature | None]:
    """Newton steps with the exact Hessian in all coordinates; the Hessian at the end."""
    for _ in range(4):
        joint = Joint.of(point, search.reml)
        facts = joint.curvature()
        if facts is None or not len(facts.steps):
            return point, joint, facts
        values = np.linalg.eigvalsh(facts.profiled)
        zero = np.zeros(len(facts.steps))
        now = joint.slope(zero, None)
        if values[0] <= 1e-9 * values[-1] or now is None:
            return point, joint, facts
        step = np.asarray(np.linalg.solve(facts.profiled, -now[0]), dtype=np.float64)
        promise = -float(step @ now[0]) / 2
        if promise < 1e-16 or np.abs(step).max() > 0.5:
            return point, joint, facts
        engine, lambdas, a = joint.moved(step)
        after = joint.slope(step, None)
        if after is None or np.abs(after[0]).max() > 0.5 * np.abs(now[0]).max():
            return point, joint, facts
        point = replace(
            point, engine=engine, a=a, lambdas=lambdas, value=search.value(engine, after[1]), slope=after[0]
        )
        search.spent += 1
    joint = Joint.of(point, search.reml)
    return point, joint, joint.curvature()


def leave_saddle(search: Search, point: Point, joint: Joint, facts: Curvature) -> Point | None:
    """A lower point along the direction of negative curvature, both ways."""
    values, vectors = np.linalg.eigh(facts.profiled)
    tries = []
    for size in (0.3, -0.3):
        _, lambdas, a = joint.moved(np.asarray(size * vectors[:, 0], dtype=np.float64))
        tried = search.at(a, lambdas)
        if tried is not None:
            tries.append(search.descend(tried))
    best = min(tries, key=lambda p: p.value, default=None)
    return best if best is not None and best.value < point.value - 1e-7 else None


def fit(engine: StructuredEngine, reml: bool, start: Array | None, limit: int) -> tuple[Point, Evidence]:
    """Best point and why to trust it."""
    search = Search(engine, reml, limit)
    point = search.run(start)
    restarts = 0
    point, joint, facts = polished(search, point)
    while facts is not None and len(facts.steps) and restarts < 3:
        if np.linalg.eigvalsh(facts.profiled)[0] > -optimise.FLAT:
            break
        better = leave_saddle(search, point, joint, facts)
        if better is None:
            break
        restarts += 1
        point, joint, facts = polished(search, search.snapped(better))
    return point, evidence(search, point, joint, facts, restarts)


def evidence(search: Search, point: Point, joint: Joint, facts: Curvature | None, restarts: int) -> Evidence:
    found = point.found
    if facts is None or not len(facts.steps):
        least, most, slope, decrement, weak = np.inf, 0.0, 0.0, 0.0, ""
        if facts is None:
            least = float("nan")
    else:
        sizes = np.array([max(d.size, 1.0) for d in facts.directions])
        values, vectors = np.linalg.eigh(facts.profiled * np.outer(sizes, sizes))
        now = joint.slope(np.zeros(len(sizes)), None)
        gradient = np.full(len(sizes), np.nan) if now is None else now[0]
        least, most = float(values[0]), float(values[-1])
        slope = float(np.abs(gradient).max())
        decrement = float(gradient @ np.linalg.lstsq(facts.profiled, gradient, rcond=None)[0]) / 2
        at = int(np.argmax(np.abs(vectors[:, 0]))) - len(joint.directions)
        weak = point.engine.coordinate_names()[joint.coordinates[at]] if at >= 0 else ""
    status = "converged" if abs(decrement) < 1e-6 and found["status"] == 0 else "no further progress"
    if search.spent > search.limit:
        status = "out of evaluations"
    return Evidence(
        status,
        search.spent,
        len(search.trace),
        restarts,
        decrement,
        slope,
        least,
        True,
        tuple(found["null_slopes"]),
        tuple(found["rank"]),
        max(optimise.FLAT, optimise.FLAT_RELATIVE * most),
        (),
        tuple(search.trace),
        weak,
    )
