"""What the minimiser found, and the proof: curvature at the optimum by differences of the exact gradient.

The search itself (trust-region Newton with the average information, in the eigenbasis of each covariance) runs in
`src/core/trust.hpp`, because a small model's whole fit costs less than one call from Python. Here are its verdict, the
directions in which an optimum may still move, and the Hessian that certifies it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

UNSETTLED = "not settled"  # variances and the fitted values they depend on
STATUS = ("converged", "out of evaluations", "no further progress", "start failed", UNSETTLED)
NO_SLOPE = 1e-7  # a vanished variance with less slope than this is as good at any value: not determined, not zero
POLISHED = 1e-18  # decrement at which the estimates have ten digits or so already
FLAT = 1e-5  # curvature 2 / se**2: an error of 450 times the sd (or the residual sd, if larger) determines nothing
FLAT_RELATIVE = 1e-8  # of the largest curvature: the error of the differences
STEP = 1e-4  # relative step of the central differences of the gradient: error about 1e-8 both ways


@dataclass(frozen=True)
class Evidence:
    """Why the optimum may be trusted (or not).

    Attributes
    ----------
    status : str
        One of STATUS.
    evaluations, iterations, restarts : int
        Of the deviance with its gradient; restarts leave saddles and wrong boundaries.
    decrement : float
        Deviance that one more Newton step promises.
    gradient_norm : float
        Largest derivative along free directions (whitened coordinates).
    min_curvature : float
        Smallest eigenvalue of the Hessian along free directions, by changes of the relative sd (or of its logarithm,
        where it exceeds one); `exact` says whether of the exact Hessian or of the
        average information with one exact directional check.
    null_slopes : tuple of float
        Per component, the smallest derivative of the deviance by a variance that vanished (NaN: none vanished). At a
        minimum on the boundary it is not negative (KKT).
    ranks : tuple of int
        Per component, dimensions with positive variance.
    flat_below : float
        Curvature at or below this is none: rounding, or a standard error of hundreds of residual sds.
    weak : tuple of float
        Per component, its share (0 to 1) in the direction of least curvature: what a flat criterion cannot tell apart.
    weak_structure : str
        The parameter of a structure that makes up most of that direction, if one does.
    """

    status: str
    evaluations: int
    iterations: int
    restarts: int
    decrement: float
    gradient_norm: float
    min_curvature: float
    exact: bool
    null_slopes: tuple[float, ...]
    ranks: tuple[int, ...]
    flat_below: float = 0.0
    weak: tuple[float, ...] = ()
    trace: tuple[float, ...] = field(repr=False, default=())
    weak_structure: str = ""

    @property
    def converged(self) -> bool:
        """Whether every condition of a local minimum holds."""
        kkt = all(not slope < -1e-4 and not abs(slope) <= NO_SLOPE for slope in self.null_slopes)
        return self.status == "converged" and kkt and self.min_curvature > self.flat_below


@dataclass(frozen=True)
class Direction:
    """One way a group's Lambda may move: ``left @ right.T``, with the size of what it moves."""

    group: int
    left: Array
    right: Array
    size: float

    def matrix(self) -> Array:
        return np.asarray(self.left[:, None] * self.right)


@dataclass(frozen=True)
class Curvature:
    """Second-order facts at the optimum, in engine coordinates.

    ``hessian`` (r, r) is of the deviance at fixed sigma, ``profiled`` with sigma profiled out; ``r2_slope`` (r,)
    differentiates the penalised residual sum of squares; ``l_x`` (r, 2, p, p) holds the X factor at plus and minus each step.
    """

    directions: list[Direction]
    steps: Array
    hessian: Array
    profiled: Array
    r2_slope: Array
    l_x: Array


def free_directions(
    lambdas: list[Array], components: list[tuple[int, list[int]]], tolerance: float = 1e-8
) -> list[Direction]:
    """Directions U_a V_c' (a >= c, c not vanished) of every component, lower triangular in its eigenbasis."""
    out = []
    for f, index in components:
        block = lambdas[f][np.ix_(index, index)]
        u, s, vt = (
            np.linalg.svd(block) if len(index) > 1 else (np.eye(1), np.abs(block[0]), np.sign(block) + (block == 0))
        )
        k = len(lambdas[f])
        for c in range(len(index)):
            if s[c] <= tolerance:
                continue
            for a in range(c, len(index)):
                left, right = np.zeros(k), np.zeros(k)
                left[index], right[index] = u[:, a], vt[c]
                out.append(Direction(f, left, right, max(float(s[c]), 0.01)))
    return out


def flat_below(found: dict[str, Any]) -> float:
    """Curvature that differences of the gradient cannot tell from none, or that determines nothing."""
    return max(FLAT, FLAT_RELATIVE * float(found.get("max_curvature", 0.0)))


def combined(lambdas: list[Array], directions: list[Direction], weights: Array) -> list[Array]:
    """Per group, the weighted sum of directions as a change of Lambda."""
    out = [np.zeros_like(m) for m in lambdas]
    for weight, d in zip(weights, directions, strict=True):
        out[d.group] += weight * d.matrix()
    return out


def curvature(state: Any, lambdas: list[Array], directions: list[Direction], df: float) -> Curvature | None:
    """Exact Hessian by central differences of the exact gradient; leaves the state at `lambdas`.

    None where the criterion cannot be evaluated next to `lambdas`.
    """
    from . import _core

    steps = np.array([STEP * d.size for d in directions])
    found = _core.differences(state, lambdas, [d.group for d in directions], [d.matrix() for d in directions], steps)
    if found["failed"]:
        return None
    s2 = state.r2 / df
    gradients, r2 = found["gradients"], found["r2"]
    hessian = (gradients[:, 0] - gradients[:, 1]) / (2 * steps[:, None])
    hessian = (hessian + hessian.T) / 2
    slope = (r2[:, 0] - r2[:, 1]) / (2 * steps)
    return Curvature(
        directions, steps, hessian, hessian - np.outer(slope, slope) / (s2 * s2 * df), slope, found["l_x"]
    )


def polish(state: Any, best: dict[str, Any], facts: Curvature, reml: bool, df: float) -> None:
    """Newton steps with the exact Hessian, judged by the gradient: rounding hides them from the deviance.

    The search stops where the deviance can no longer tell, with estimates right to seven digits or so; this gives them
    all digits for the price of a gradient or two. Updates `best` in place where the gradient shrinks.
    """
    if best["decrement"] < POLISHED:
        return
    moves = [d.matrix() for d in facts.directions]

    def slope(lambdas: list[Array]) -> Array | None:
        if state.set(lambdas) != 0:
            return None
        g = state.gradient(1.0, 1.0 if reml else 0.0, df)
        return np.array([np.vdot(g[d.group], m) for d, m in zip(facts.directions, moves, strict=True)])

    now = slope(best["lambdas"])
    for _ in range(2):
        if now is None:
            return
        step = np.asarray(np.linalg.solve(facts.profiled, -now), dtype=np.float64)
        change = combined(best["lambdas"], facts.directions, step)
        moved = [m + d for m, d in zip(best["lambdas"], change, strict=True)]
        after = slope(moved)
        if after is None or not np.abs(after).max() < 0.5 * np.abs(now).max():
            return
        best["lambdas"], best["gradient_norm"] = moved, float(np.abs(after).max())
        best["decrement"] = float(after @ np.linalg.solve(facts.profiled, after)) / 2
        now = after
