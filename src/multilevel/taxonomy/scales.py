"""Scales of the deviations: which nodes share one, and how they are found from the data.

Tuned by the log-loss of held-out rows. Its gradient by the logarithms of all scales costs one solve: with w the minimum
of the fitting rows' objective, H its Hessian, g the gradient of the held-out loss by w and H q = g,
d loss / d log s_k = 2 sum over the entries of w that have scale k of w q.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ConvergenceWarning, users_level
from .objective import Objective
from .tree import Taxonomy

__all__ = ["each", "Piece", "ScaleShape", "Tuned", "tune"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]

LOG_SD = 0.7  # of the log-normal prior of a scale, about its first value
REACH = np.log(50.0)  # scales are looked for within a factor 50 of their first value


@dataclass(frozen=True)
class ScaleShape:
    """Which scale each deviation has.

    Attributes
    ----------
    names : tuple of str
        Name of each scale.
    cell : int array (groups, nodes)
        Number of the scale of a feature group's deviations at a node; -1 where they are zero: a node without siblings
        has its parent's coefficients.
    intercept : float
        Scale of the intercepts' deviations.
    """

    names: tuple[str, ...]
    cell: npt.NDArray[np.intp]
    intercept: float

    def matrix(self, scales: Floats) -> Floats:
        """(groups + 1, nodes) for the core: the scale of each deviation, the intercepts' last."""
        out = np.empty((self.cell.shape[0] + 1, self.cell.shape[1]))
        out[:-1] = np.where(self.cell >= 0, scales[self.cell], 0.0)
        out[-1] = np.where(self.cell[0] >= 0, self.intercept, 0.0)
        return out

    def on(self, nodes: npt.ArrayLike) -> ScaleShape:
        """Of some nodes only."""
        return ScaleShape(self.names, self.cell[:, np.asarray(nodes)], self.intercept)

    def sums(self, group: Ints, values: npt.NDArray[Any]) -> Floats:
        """Entries (features, nodes) summed by their scale: (scales,)."""
        out = np.zeros(len(self.names))
        for g in range(self.cell.shape[0]):
            by_node = (
                values[group == g].sum(axis=0, dtype=np.float64)
                if self.cell.shape[0] > 1
                else values.sum(axis=0, dtype=np.float64)
            )
            used = self.cell[g] >= 0
            np.add.at(out, self.cell[g][used], by_node[used])
        return out


def scale_shape(tree: Taxonomy, by: str, groups: Sequence[str], intercept: float) -> ScaleShape:
    """Scales shared by a level, or by the children of a parent; each feature group with its own."""
    alone = np.array([len(tree.children[above]) if above >= 0 else len(tree.top) for above in tree.parent]) == 1
    if by == "level":
        which = tree.depth.astype(np.intp) - 1
        names = list(tree.levels)
    else:
        parents, which = np.unique(tree.parent, return_inverse=True)
        names = ["below the root" if p < 0 else f"below {tree.labels[p]}" for p in parents]
    count = len(names)
    cell = np.stack([np.where(alone, -1, which + g * count) for g in range(len(groups))])
    if len(groups) > 1:
        names = [f"{name}, {group}" for group in groups for name in names]
    return ScaleShape(tuple(names), cell, intercept)


@dataclass
class Piece:
    """One independent problem: its rows for fitting and its held-out rows.

    Attributes
    ----------
    fit : Objective
    held_out : Objective or None
    shape : ScaleShape
        Of this problem's nodes.
    group : int array (features,)
    w : array (features + 1, nodes)
        The minimum at the last scales; warm start of the next.
    """

    fit: Objective
    held_out: Objective | None
    shape: ScaleShape
    group: Ints
    w: npt.NDArray[Any]
    scales: Floats | None = None
    direction: npt.NDArray[Any] | None = None  # the last q, where the next solve begins
    evaluations: int = 0

    def minimise(self, scales: Floats, gap: float, most: int) -> bool:
        """To the minimum at new scales, from the deviations of the last ones."""
        matrix = self.shape.matrix(scales)
        found = self.fit.minimise(self.at_scales(scales), matrix, gap, most)
        self.w, self.scales = found.w, scales.copy()
        self.evaluations += found.evaluations
        return found.converged

    def at_scales(self, scales: Floats) -> npt.NDArray[Any]:
        """The same deviations in units of other scales."""
        if self.scales is None:
            return self.w
        return np.asarray(self.w * self._ratio(self.shape.matrix(self.scales), self.shape.matrix(scales)))

    def _ratio(self, old: Floats, new: Floats) -> npt.NDArray[Any]:
        ratio = np.divide(old, new, out=np.zeros_like(old), where=new > 0).astype(self.w.dtype)
        return (
            np.concatenate([ratio[self.group], ratio[-1:]])
            if len(ratio) > 2
            else np.concatenate([np.broadcast_to(ratio[0], (len(self.group), ratio.shape[1])), ratio[-1:]])
        )

    def loss(self, scales: Floats, gap: float, most: int) -> tuple[float, Floats]:
        """Log-loss of the held-out rows (their sum), and its gradient by the scales' logarithms."""
        assert self.held_out is not None
        self.minimise(scales, gap, most)
        matrix = self.shape.matrix(scales)
        loss, gradient = self.held_out.gradient(self.w, matrix, prior=False)
        self.fit.value(self.w, matrix)
        q = self.fit.solve(gradient, matrix, self.direction, tolerance=0.01, most=60)
        self.direction = q
        return loss, 2 * self.shape.sums(self.group, (self.w * q)[:-1])


@dataclass
class Tuned:
    """Scales found, and the way there.

    Attributes
    ----------
    scales : float array (scales,)
    profile : list of (scales, loss)
        Held-out log-loss per unit of weight at each step.
    """

    scales: Floats
    profile: list[tuple[Floats, float]] = field(default_factory=list)


def tune(
    pieces: Sequence[Piece],
    first: Floats,
    tolerance: float,
    most: int,
    threads: int = 1,
    steps: int = 15,
    progress: Callable[[int, float], None] | None = None,
) -> Tuned:
    """Scales with the least held-out log-loss, less the log of their prior.

    Parameters
    ----------
    pieces : sequence of Piece
        Problems that share the scales.
    first : float array (scales,)
        First value of each scale, the middle of its log-normal prior.
    tolerance : float
        Of each minimisation, per unit of weight.
    most : int
        Evaluations of each minimisation at most.
    threads : int
        Pieces minimised at a time.
    """
    from scipy.optimize import minimize

    total = sum(float(p.held_out.weight.sum()) for p in pieces if p.held_out is not None)
    used = [p for p in pieces if p.held_out is not None]
    out = Tuned(first)
    centre = np.log(first)

    def loss(log_scales: Floats) -> tuple[float, Floats]:
        scales = np.exp(log_scales)
        parts = each(lambda p: p.loss(scales, tolerance * max(float(p.fit.weight.sum()), 1.0), most), used, threads)
        value = sum(part[0] for part in parts)
        gradient = np.sum([part[1] for part in parts], axis=0)
        out.profile.append((scales, value / total))
        away = (log_scales - centre) / LOG_SD
        if progress is not None:
            progress(len(out.profile), value / total)
        return (value + 0.5 * float(away @ away)) / total, (gradient + away / LOG_SD) / total

    bounds = [(c - REACH, c + REACH) for c in centre]
    found = minimize(
        loss, centre, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": steps, "ftol": 5e-4, "gtol": 1e-4}
    )
    out.scales = np.exp(found.x)
    at_end = [k for k, (low, high) in enumerate(bounds) if not low + 1e-6 < found.x[k] < high - 1e-6]
    if at_end:
        name = used[0].shape.names[at_end[0]]
        warnings.warn(
            f"the scale of {name!r} went to the end of where it is looked for, {out.scales[at_end[0]]:.3g}: "
            "give prior_scale a value nearer to what suits the features, or look whether the weights are far from 1",
            ConvergenceWarning,
            stacklevel=users_level(),
        )
    return out


def each(task: Callable[[Any], Any], items: Sequence[Any], threads: int) -> list[Any]:
    """Results of a task on each item; a single one in this thread, which hears Ctrl-C."""
    if len(items) <= 1 or threads <= 1:
        return [task(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(task, items))
