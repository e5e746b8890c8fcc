"""The search of generalised models over the coordinates of structured terms.

The compiled search moves free covariances, fixed effects and further coefficients and holds the structured factors; round it
runs a quasi-Newton search over the smooth coordinates. By the envelope theorem the derivative of what the inner search
reaches is the partial derivative, exact by the chain rule from that by Lambda. Newton steps in everything at once end the
search (`laplace.Joint`), and their Hessian certifies it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import quasi_newton
from .covariance import Structure
from .errors import DataError

if TYPE_CHECKING:
    from .laplace import LaplaceEngine
    from .laplace_joint import Joint

Array = NDArray[np.float64]

SNAP = 1e-3  # sd, whitened scale, below which a structured term is tried at zero
SAME = 1e-7  # deviances closer than this are one
TOTAL = 3  # times the limit of evaluations: of the whole search
MAX_STARTS, FEW_STARTS = 16, 6  # combinations of starts that are looked at: where that costs little, and where not
DESCENTS = 3  # of them, from which the search goes down where that costs little
CHEAP = 100_000  # rows times coordinates that cost little
INNER = 100  # evaluations of one inner search: more only where a parameter runs away


@dataclass(frozen=True)
class Point:
    """Coordinates with everything else at its best there.

    Attributes
    ----------
    a, slope : (r,) arrays
        Coordinates and the derivative of the deviance by them.
    lambdas : list of (k, k) arrays
    plain : array
        Fixed effects, then further coefficients; engine coordinates.
    u : (q,) array
        Modes: where the next search for them begins.
    found : dict
        What the compiled search says.
    """

    a: Array
    lambdas: list[Array]
    plain: Array
    u: Array
    value: float
    slope: Array
    found: dict[str, Any]


class Search:
    """Minimises the deviance over coordinates of structures, with all else at its best.

    Parameters
    ----------
    engine : LaplaceEngine
    state
        Its compiled problem, Laplace's approximation or quadrature.
    limit : int
        Evaluations of one search; three times as many of all inner ones.
    """

    def __init__(self, engine: LaplaceEngine, state: Any, limit: int) -> None:
        self.engine, self.state, self.limit, self.spent = engine, state, limit, 0
        self.trace: list[float] = []
        self.cheap = len(engine.design.y) * max(engine.terms.size, 1) < CHEAP

    def at(self, a: Array, from_: Point | dict[str, Any]) -> Point | None:
        """The best of all else at coordinates a, sought from a point; None where the deviance cannot be evaluated."""
        e = self.engine
        if isinstance(from_, Point):
            lambdas, plain, u = from_.lambdas, from_.plain, from_.u
        else:
            lambdas, plain, u = from_["lambdas"], from_["plain"], from_["u"]
        first = [np.ascontiguousarray(m) for m in e.terms.put(lambdas, a)]
        self.state.u = u
        if not np.isfinite(a).all():
            return None
        if e.components or len(plain):
            designs, most = list(e.coefficients.designs), min(self.limit, INNER)
            found = self.state.fit(first, np.ascontiguousarray(plain), designs, e.components, most)
            self.spent += found["evaluations"]
            if found["status"] == 3 or not np.isfinite(found["deviance"]):
                return None
            first = [np.ascontiguousarray(m) for m in e.terms.put(found["lambdas"], a)]
            plain = np.asarray(found["plain"], dtype=np.float64)
        else:
            self.spent += 1
            found = {"status": 0, "null_slopes": [], "rank": [], "decrement": 0.0, "iterations": 0}
        p = e.x.shape[1]
        value, _, by_lambda, _ = self.state.evaluate(plain[:p], first, e.coefficients.rows(plain[p:]), True)
        if not np.isfinite(value):
            return None
        slope = 2 * e.terms.slope(by_lambda, a)
        return (
            Point(a, first, plain, np.array(self.state.u), 2 * value, slope, found)
            if np.isfinite(slope).all()
            else None
        )

    # -- starts -------------------------------------------------------------------------------------------------

    def candidates(self, free: dict[str, Any]) -> Iterator[Array]:
        """Coordinates to begin at, the likeliest first: sds and correlations of the fit without structures, then others."""
        offsets = np.concatenate([[0], np.cumsum([g.levels * g.k for g in self.engine.groups])]).astype(int).tolist()
        levels = [g.levels for g in self.engine.groups]
        choices: list[list[Array]] = []
        moments = self.engine.terms.moments(free["lambdas"], free["u"], offsets, levels)
        for span, (sds, rho) in zip(self.engine.terms.spans, moments, strict=True):
            s = span.structure
            sds = np.maximum(
                sds, 0.05 * max(float(sds.max()), 1.0)
            )  # a start too close to zero would have to climb back
            level = np.full(len(sds), np.sqrt(np.mean(sds**2)))
            sizes = [sds, level] if s.n_sd > 1 and s.correlated else [sds]
            rhos = [np.array([r]) for r in (rho, *correlations(s))] if s.correlated else [np.empty(0)]
            choices.append([s.coordinates(np.r_[size, r]) for size in sizes for r in rhos])
        most = MAX_STARTS if self.cheap else FEW_STARTS
        return (np.concatenate(c) for c in itertools.islice(itertools.product(*choices), most))

    def run(self, free: dict[str, Any], start: Array | None) -> Point:
        """From the best of several starts down.

        Raises
        ------
        DataError
            If the likelihood cannot be evaluated at any of them.
        """
        candidates = [start] if start is not None else list(self.candidates(free))
        points = [p for a in candidates if (p := self.at(a, free)) is not None]
        if not points:
            raise DataError(
                "the likelihood cannot be evaluated at any start of the covariance structure, which points to values far too "
                "large for this family and link; rescale the predictors, or simplify the structure"
            )
        points.sort(key=lambda p: p.value)
        points = [p for i, p in enumerate(points) if i == 0 or p.value > points[i - 1].value + SAME]
        return min((self.down(p) for p in points[: DESCENTS if self.cheap else 1]), key=lambda p: p.value)

    def down(self, point: Point) -> Point:
        """A minimum from a point, with vanished terms exactly at zero."""
        return self.snapped(self.descend(point))

    # -- descent ------------------------------------------------------------------------------------------------

    def descend(self, point: Point) -> Point:
        """Down to a minimum."""
        return quasi_newton.descend(point, self.at, lambda: self.spent > TOTAL * self.limit, self.trace)

    # -- the boundary -------------------------------------------------------------------------------------------

    def snapped(self, point: Point) -> Point:
        """Terms, and effects of terms, whose sds all but vanished, exactly at zero where that is no worse."""
        for span in self.engine.terms.spans:
            s = span.structure
            sd = s.theta_at(point.a[span.at])[: s.n_sd]
            small = np.flatnonzero((sd < SNAP) & (sd > 0))
            if not len(small):
                continue
            a = point.a.copy()
            a[span.at.start + small] = 0.0
            zero = self.at(a, point)
            if zero is not None and zero.value <= point.value + 1e-7:
                whole = len(small) == s.n_sd
                point = (self._grown(zero, span.at, s) if whole else None) or zero
        return point

    def _grown(self, zero: Point, at: slice, s: Structure) -> Point | None:
        """A better point where the vanished term has some variance after all, for any of the usual correlations."""
        for rho in correlations(s) if s.correlated else (None,):
            a = zero.a.copy()
            a[at] = s.coordinates(np.r_[np.full(s.n_sd, 0.05), [] if rho is None else [rho]])
            tried = self.at(a, zero)
            if tried is not None and tried.value < zero.value - SAME:
                return self.descend(tried)
        return None

    def result(self, point: Point) -> dict[str, Any]:
        """In the form of the core's searches, with the coordinates."""
        return {
            **point.found,
            "lambdas": point.lambdas,
            "plain": point.plain,
            "a": point.a,
            "u": point.u,
            "deviance": point.value,
            "iterations": len(self.trace),
            "status": 1 if self.spent > TOTAL * self.limit else 2,  # the gradient decides: `LaplaceEngine._evidence`
            "decrement": float("nan"),
            "trace": list(self.trace),
        }


def correlations(s: Structure) -> tuple[float, ...]:
    """Correlations of a structure that a search looks at."""
    low, _ = s.range()
    return (0.5, 0.9, 0.1, low / 2, 0.9 * low)


def search(
    engine: LaplaceEngine, state: Any, free: dict[str, Any], start: Array | None, limit: int
) -> tuple[dict[str, Any], int]:
    """The best point and the evaluations spent.

    Parameters
    ----------
    free : dict
        Of the compiled search that moved the structured effects' sds one by one, or held them at the start; "u" are modes.
    start : (r,) array, optional
        Coordinates to begin at.
    """
    run = Search(engine, state, limit)
    point = run.run(free, start)
    return run.result(point), run.spent


def leave_saddle(
    engine: LaplaceEngine, state: Any, joint: Joint, hessian: Array, best: dict[str, Any], limit: int
) -> tuple[dict[str, Any] | None, int]:
    """A lower point along the direction of least curvature, both ways; None where there is none."""
    if best["status"] == 1:  # out of evaluations already
        return None, 0
    sizes = joint.sizes()
    values, vectors = np.linalg.eigh(hessian * np.outer(sizes, sizes))
    if not values[0] < -1e-5 * max(1.0, float(values[-1]) * 1e-4):
        return None, 0
    run = Search(engine, state, limit)
    found = []
    for size in (0.3, -0.3):
        a, lambdas, plain = joint.moved(np.asarray(size * sizes * vectors[:, 0], dtype=np.float64))
        tried = run.at(a, {"lambdas": lambdas, "plain": plain, "u": best["u"]})
        if tried is not None:
            found.append(run.down(tried))
    lowest = min(found, key=lambda p: p.value, default=None)
    if lowest is None or not lowest.value < best["deviance"] - SAME:
        return None, run.spent
    return run.result(lowest), run.spent
