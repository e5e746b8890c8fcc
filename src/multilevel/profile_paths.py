"""The rest of the model at its best while one parameter is held: what profiles are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import DataError
from .reml import Engine
from .structured import StructuredEngine

if TYPE_CHECKING:
    from .design import Design
    from .held import Held
    from .reml import Optimum

Array = NDArray[np.float64]
Slope = Callable[[Array], tuple[float, Array]]

ENOUGH = 1e-10  # deviance a further step may promise at most
NEGATIVE = 1e-6  # of the largest curvature: a saddle, not rounding
STEP = 1e-5  # of the differences of the gradient


@dataclass(frozen=True)
class Rest:
    """Free covariance parameters at their best, with the Hessian there."""

    x: Array
    hessian: Array | None = None


def minimise(
    slope: Slope, start: Rest, limit: int = 200, regular: Callable[[Array], bool] | None = None, radius: float = 1.0
) -> tuple[float, Rest]:
    """Minimise from a start nearby: a trust-region Newton search that leaves saddles.

    Steps are Newton's with the absolute values of the Hessian's eigenvalues (Dauphin et al. 2014, "saddle-free Newton"):
    the criterion is even in the column of a vanished effect, which is a saddle where that effect wants to return. The
    Hessian is by differences of the exact gradient; on the way it is kept by the symmetric rank-one update, and taken
    anew before a point passes as the minimum; not where `regular` says that there is no saddle, and the update will do.

    Returns
    -------
    (float, Rest)
        Value and place; infinite where the criterion cannot be evaluated at the start.
    """
    x = start.x
    value, g = _try(slope, x)
    if not np.isfinite(value) or not len(x):
        return value, start
    fresh = start.hessian is None
    hessian = _differences(slope, x, g) if start.hessian is None else start.hessian
    for _ in range(limit):
        size = np.maximum(1.0, np.abs(x))
        step, promised, saddle = _newton(g * size, hessian * np.outer(size, size), radius)
        if promised < ENOUGH and not saddle:
            if fresh or (regular is not None and regular(x)):
                break
            hessian, fresh = _differences(slope, x, g), True
            continue
        after, slope_after = _try(slope, x + size * step)
        # where rounding hides what is left to gain, the gradient judges
        small = promised < 1e-7 and after < value + 1e-7 and _norm(slope_after, size) < _norm(g, size)
        if after < value or small:
            hessian, fresh = _updated(hessian, size * step, slope_after - g), False
            good = value - after > 0.5 * promised
            radius = max(radius, 3 * float(np.linalg.norm(step))) if good else radius
            x, value, g = x + size * step, after, slope_after
        elif not fresh:
            hessian, fresh = _differences(slope, x, g), True
        else:
            radius = float(np.linalg.norm(step)) / 4
            if radius < 1e-9:
                break
    return value, Rest(x, hessian)


def _try(slope: Slope, x: Array) -> tuple[float, Array]:
    try:
        return slope(x)
    except DataError:  # factors so large that the factorisation fails: no place for a minimum
        return np.inf, np.zeros(len(x))


def _norm(g: Array, size: Array) -> float:
    return float(np.abs(g * size).max())


def _newton(g: Array, hessian: Array, radius: float) -> tuple[Array, float, bool]:
    """Step, gain it promises by the quadratic model, and whether it leaves a saddle."""
    values, vectors = np.linalg.eigh(hessian)
    top = max(float(np.abs(values).max()), 1e-300)
    bent = np.maximum(np.abs(values), 1e-12 * top)
    along = vectors.T @ g
    step = -along / bent
    push = (values < -NEGATIVE * top) & (np.abs(step) < 1e-2)
    step[push] = np.where(step[push] < 0, -1e-2, 1e-2)
    length = float(np.linalg.norm(step))
    if length > radius:
        step *= radius / length
    promised = float(np.sum(along**2 / bent)) / 2
    return vectors @ step, promised, bool(push.any())


def _differences(slope: Slope, x: Array, g: Array) -> Array:
    out = np.empty((len(x), len(x)))
    for i in range(len(x)):
        moved = x.copy()
        moved[i] += STEP * max(1.0, abs(x[i]))
        value, after = _try(slope, moved)
        out[i] = (after - g) / (moved[i] - x[i]) if np.isfinite(value) else 0.0
    return np.asarray((out + out.T) / 2)


def _updated(hessian: Array, step: Array, change: Array) -> Array:
    """Symmetric rank-one update (Nocedal & Wright 2006, eq. 6.24, skipped as in 6.26)."""
    rest = change - hessian @ step
    scale = float(rest @ step)
    if abs(scale) < 1e-8 * float(np.linalg.norm(rest) * np.linalg.norm(step)):
        return hessian
    return np.asarray(hessian + np.outer(rest, rest) / scale)


class Path(Protocol):
    """The rest of the model along one parameter; what a rest is, is the path's own business."""

    first: Any

    def solve(self, value: float, start: Any) -> tuple[float, Any]: ...
    def onwards(self, before: Any, last: Any, share: float) -> Any: ...
    def others(self, rest: Any) -> list[Any]: ...
    def restart(self, rest: Any, value: float) -> tuple[Any, Any]: ...


class VariancePath:
    """The best rest at each value of an sd, a correlation, sigma, or a parameter of the residuals' structure."""

    def __init__(self, held: Held, optimum: Optimum) -> None:
        self._held = held
        self.first = Rest(held.start(optimum.lambdas, optimum.sigma, optimum.residual))

    def solve(self, value: float, start: Rest) -> tuple[float, Rest]:
        """Least deviance with the parameter at `value`, sought from `start`."""
        return minimise(lambda x: self._held.slope(x, value), start)

    def onwards(self, before: Rest, last: Rest, share: float) -> Rest:
        """Straight on from two neighbours, by `share` of their distance."""
        return Rest(last.x + share * (last.x - before.x), last.hessian)

    def others(self, rest: Rest) -> list[Rest]:
        """Further starts for a point that has no outer neighbour to check it."""
        return [self.first, *(Rest(x) for x in self._held.variants(rest.x))]

    def restart(self, rest: Rest, value: float) -> tuple[Engine, tuple[Array, ...]]:
        """Engine and relative factors per term, for a search of the whole model from here."""
        return self._held.point(rest.x, value)[:2]


class FixedPath:
    """The best rest at each value of a fixed effect.

    Holding a coefficient takes its column out of X and value times column out of y. Both are linear in the
    cross-products of [X y], so the rows are not needed.
    """

    def __init__(self, engine: Engine, column: int, optimum: Optimum) -> None:
        self._engine, self._column = engine, column
        self.first = tuple(optimum.lambdas)

    def solve(self, value: float, start: tuple[Array, ...]) -> tuple[float, tuple[Array, ...]]:
        """Least deviance with the coefficient at `value`, sought from `start`."""
        engine = without_column(self._engine, self._column, value)
        found = engine.fit(False, start)
        if not found.evidence.converged:
            again = engine.fit(False)
            found = min(found, again, key=lambda one: one.criterion)
        return found.criterion, found.lambdas

    def onwards(self, before: Any, last: tuple[Array, ...], share: float) -> tuple[Array, ...]:
        """The last neighbour: the engine's own search needs no better start."""
        return last

    def others(self, rest: tuple[Array, ...]) -> list[tuple[Array, ...]]:
        """The estimate as a further start."""
        return [self.first]

    def restart(self, rest: tuple[Array, ...], value: float) -> tuple[Engine, tuple[Array, ...]]:
        """Engine and relative factors per term, for a search of the whole model from here."""
        return self._engine, rest


class RowsPath(VariancePath):
    """The best rest at each value of a fixed effect, in models whose engine needs the rows.

    Structures of few parameters and structured residuals have no search on cross-products alone; the covariances are
    fitted as for a parameter of theirs that is held, on the response less the column.
    """

    def __init__(self, held: Held, column: int, design: Design, optimum: Optimum) -> None:
        super().__init__(held, optimum)
        self._column, self._design = column, design

    def solve(self, value: float, start: Rest) -> tuple[float, Rest]:
        """Least deviance with the coefficient at `value`, sought from `start`."""
        d, j, engine = self._design, self._column, self._held.engine
        x = np.ascontiguousarray(np.delete(d.X, j, axis=1))
        offset = value * d.X[:, j] + (0.0 if d.offset is None else d.offset)
        rest = replace(d, X=x, names=d.names[:j] + d.names[j + 1 :], offset=offset)
        assert isinstance(engine, StructuredEngine)
        held = self._held.on(StructuredEngine(rest, engine.residual, engine.threads))
        return minimise(lambda x: held.slope(x, value), start)


def without_column(engine: Engine, column: int, value: float) -> Engine:
    """The engine of ``y - value * X[:, column]`` on the other columns of X, from the cross-products alone.

    In the engine's orthogonalised columns the coefficient is ``row @ (scale * beta + shift)``, with ``row`` that of
    `x_basis`. Columns are rotated so that only the last one moves it; that one is then held.
    """
    from . import _core

    c = engine.blocks
    p = c.p
    row = c.x_basis[column]
    turn = np.linalg.svd(row[None])[2]
    last, rest = row / np.linalg.norm(row), turn[1:].T
    move = (value - row @ c.shift) / (c.scale * np.linalg.norm(row))
    old = _core.export_blocks(c.core)
    xx, xy = old["xx"].reshape(p, p), old["xy"]
    new = dict(old, p=p - 1)
    new["xx"] = np.ascontiguousarray(rest.T @ xx @ rest).ravel()
    new["xy"] = np.ascontiguousarray(rest.T @ (xy - move * (xx @ last)))
    new["yy"] = float(old["yy"] - 2 * move * (last @ xy) + move**2 * (last @ xx @ last))
    for f in range(len(c.groups)):
        border = old[f"border{f}"].reshape(-1, p)
        new[f"border{f}"] = np.ascontiguousarray(border @ rest).ravel()
        new[f"zy{f}"] = np.ascontiguousarray(old[f"zy{f}"] - move * (border @ last))
    blocks = replace(c, core=_core.import_blocks(new), x_basis=c.x_basis @ rest, shift=np.zeros(p - 1), p=p - 1)
    return Engine.of(blocks, engine.threads)
