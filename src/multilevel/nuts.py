"""The no-U-turn sampler for densities that are not compiled; `nuts.hpp` is the one for those that are.

Multinomial sampling from the trajectory and the generalised criterion (Betancourt 2017, arXiv:1701.02434), dual averaging of
the step (Hoffman & Gelman 2014, JMLR 15, 1593), a diagonal metric from the warmup. Steps need not have the exact gradient:
any function of the place keeps them reversible and volume-preserving, and points are weighted by the density itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

DIVERGENT = 1000.0  # loss of energy that ends a trajectory
START, LAST = 0.15, 0.25  # shares of the warmup that adapt the step alone, at its beginning and end
GAMMA, DELAY, KAPPA = 0.05, 10.0, 0.75  # of dual averaging


class Target(Protocol):
    """Log posterior with its gradient, and whether to go on."""

    done: int
    stopped: bool

    def log_posterior(self, x: Array, want: bool) -> tuple[float, Array | None]: ...


@dataclass
class _Point:
    """A place of a trajectory: position, momentum, slope, log density, less its energy."""

    z: Array
    p: Array
    slope: Array
    lp: float
    log_weight: float


@dataclass
class _Tree:
    """Ends of a piece of trajectory, a point of it drawn by weight, the sum of its momenta."""

    left: _Point
    right: _Point
    chosen: _Point
    log_weight: float
    p: Array
    going: bool


class Sampler:
    """Chains of a density, in coordinates ``x = center + root @ z`` in which it is nearly round."""

    def __init__(
        self, density: Target, center: Array, root: Array, warmup: int, draws: int, max_depth: int, target: float
    ) -> None:
        self.density, self.center, self.root = density, center, root
        self.warmup, self.draws, self.max_depth, self.target = warmup, draws, max_depth, target

    def run(self, start: Array, rng: np.random.Generator) -> dict[str, Any]:
        """One chain: points (draws, size) and, per draw, what the sampler says of it."""
        self.rng, self.inverse, self.gradients = rng, np.ones(len(start)), 0
        point = None if self.density.stopped else self._first(start)
        stats: dict[str, list[float]] = {
            n: [] for n in ("lp", "energy", "acceptance_rate", "tree_depth", "n_steps", "diverging")
        }
        if point is None:
            return self._result(np.empty((0, len(start))), stats, 0.0, 0)
        step = _Step(self._first_step(point), self.target)
        places: list[Array] = []
        slow: list[Array] = []
        first, last = int(START * self.warmup), int((1 - LAST) * self.warmup)
        spent = 0
        for i in range(self.warmup + self.draws):
            if self.density.stopped:
                break
            if i == self.warmup:
                spent = self.gradients
            point, told = self._transition(point, step.size(i < self.warmup))
            if self.density.stopped:  # its trajectory was cut off
                break
            self.density.done += 1
            if i < self.warmup:
                step.learn(told["acceptance_rate"])
                slow += [point.z] if first <= i < last else []
                if i + 1 in ((first + last) // 2, last) and len(slow) > 10:
                    self._learn_metric(np.array(slow))
                    slow = []
                    step = _Step(self._first_step(point), self.target)
                continue
            places.append(self.center + self.root @ point.z)
            for name, values in stats.items():
                values.append(told[name])
        return self._result(np.array(places).reshape(-1, len(start)), stats, step.size(False), spent)

    def _result(self, x: Array, stats: dict[str, list[float]], step: float, spent: int) -> dict[str, Any]:
        return {"x": x, **{n: np.array(v) for n, v in stats.items()}, "step_size": step, "warmup_gradients": spent}

    # -- the density in round coordinates -----------------------------------------------------------------------

    def _at(self, z: Array, p: Array) -> _Point:
        self.gradients += 1
        value, slope = self.density.log_posterior(self.center + self.root @ z, True)
        if slope is None or not np.isfinite(value):
            return _Point(z, p, np.zeros(len(z)), -np.inf, -np.inf)
        return _Point(z, p, self.root.T @ slope, value, value - 0.5 * float(p @ (self.inverse * p)))

    def _first(self, start: Array) -> _Point | None:
        """The start, nearer the mode until the density can be evaluated."""
        for i in range(10):
            point = self._at(start * 0.5**i, np.zeros(len(start)))
            if np.isfinite(point.lp):
                return point
        return None

    def _leap(self, a: _Point, size: float) -> _Point:
        p = a.p + 0.5 * size * a.slope
        found = self._at(a.z + size * self.inverse * p, p)
        found.p = p + 0.5 * size * found.slope
        if np.isfinite(found.lp):
            found.log_weight = found.lp - 0.5 * float(found.p @ (self.inverse * found.p))
        return found

    def _first_step(self, point: _Point) -> float:
        """A step whose acceptance is about a half."""
        size, direction = 1.0, 0
        start = self._thrown(point)
        for _ in range(30):
            gain = self._leap(start, size).log_weight - start.log_weight
            now = 1 if gain > np.log(0.5) else -1
            if direction and now != direction:
                break
            direction = now
            size *= 2.0**now
        return size

    def _learn_metric(self, z: Array) -> None:
        n = len(z)
        self.inverse = (n * z.var(axis=0, ddof=1) + 5e-3) / (n + 5)

    def _thrown(self, point: _Point) -> _Point:
        """The same place with a new momentum."""
        p = self.rng.standard_normal(len(point.z)) / np.sqrt(self.inverse)
        return _Point(point.z, p, point.slope, point.lp, point.lp - 0.5 * float(p @ (self.inverse * p)))

    # -- one transition -----------------------------------------------------------------------------------------

    def _transition(self, point: _Point, size: float) -> tuple[_Point, dict[str, float]]:
        start = self._thrown(point)
        self.origin, self.accepted, self.steps, self.diverging = start.log_weight, 0.0, 0, False
        tree = _Tree(start, start, start, 0.0, start.p, True)
        depth = 0
        while depth < self.max_depth:
            forward = self.rng.random() < 0.5
            more = self._grow(tree.right if forward else tree.left, depth, size if forward else -size)
            depth += 1
            if not more.going:
                break
            # the new half is preferred: the draw moves further
            if np.log(self.rng.random()) < more.log_weight - tree.log_weight:
                tree.chosen = more.chosen
            tree = self._joined(*((tree, more) if forward else (more, tree)), tree.chosen)
            if not tree.going:
                break
        return tree.chosen, {
            "lp": tree.chosen.lp, "energy": -start.log_weight, "acceptance_rate": self.accepted / max(self.steps, 1),
            "tree_depth": float(depth), "n_steps": float(self.steps), "diverging": float(self.diverging),
        }  # fmt: skip

    def _grow(self, end: _Point, depth: int, size: float) -> _Tree:
        """A piece of 2^depth points beyond an end."""
        if self.density.stopped:
            return _Tree(end, end, end, -np.inf, end.p, False)
        if depth == 0:
            point = self._leap(end, size)
            log_weight = point.log_weight - self.origin
            self.steps += 1
            self.accepted += min(1.0, float(np.exp(min(log_weight, 0.0))))
            lost = not log_weight > -DIVERGENT
            self.diverging = self.diverging or lost
            return _Tree(point, point, point, log_weight, point.p, not lost)
        one = self._grow(end, depth - 1, size)
        if not one.going:
            return one
        two = self._grow(one.right if size > 0 else one.left, depth - 1, size)
        if not two.going:
            return two
        total = np.logaddexp(one.log_weight, two.log_weight)
        chosen = two.chosen if np.log(self.rng.random()) < two.log_weight - total else one.chosen
        return self._joined(*((one, two) if size > 0 else (two, one)), chosen)

    def _joined(self, left: _Tree, right: _Tree, chosen: _Point) -> _Tree:
        """Two neighbouring pieces; whether the whole, or either with the first point of the other, has not turned back."""
        p = left.p + right.p
        going = (
            self._onward(left.left, right.right, p)
            and self._onward(left.left, right.left, left.p + right.left.p)
            and self._onward(left.right, right.right, right.p + left.right.p)
        )
        return _Tree(left.left, right.right, chosen, float(np.logaddexp(left.log_weight, right.log_weight)), p, going)

    def _onward(self, left: _Point, right: _Point, p: Array) -> bool:
        along = self.inverse * p
        return bool(left.p @ along > 0 and right.p @ along > 0)


class _Step:
    """Step size by dual averaging towards an acceptance."""

    def __init__(self, size: float, target: float) -> None:
        self.middle, self.target = np.log(10 * size), target
        self.log_size, self.log_mean, self.gap, self.count = np.log(size), 0.0, 0.0, 0

    def learn(self, acceptance: float) -> None:
        self.count += 1
        share = 1 / (self.count + DELAY)
        self.gap = (1 - share) * self.gap + share * (self.target - acceptance)
        self.log_size = self.middle - np.sqrt(self.count) / GAMMA * self.gap
        weight = self.count**-KAPPA
        self.log_mean = weight * self.log_size + (1 - weight) * self.log_mean

    def size(self, learning: bool) -> float:
        """The step to try while learning, and the one to keep."""
        return float(np.exp(self.log_size if learning or not self.count else self.log_mean))
