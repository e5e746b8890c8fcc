"""Independent draws of generalised models: importance sampling of parameters, and of group effects given them.

Parameters are proposed as in `independent`, from the shape of their posterior in Laplace's approximation. Each proposal gets
an unbiased estimate of its likelihood from random points of the group effects (`joint_importance.hpp`); weighted by it, the
draws are those of the exact posterior, however few the points (Tran, Scharth, Pitt & Kohn 2013, arXiv:1309.3339).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from . import independent
from .progress import Progress
from .sampler import GROUP_MEMORY, watched

if TYPE_CHECKING:
    from .joint import JointTarget
    from .posterior_mode import Mode

Array = NDArray[np.float64]

LARGEST = 12  # parameters
INNER = (4, 6, 8, 12, 16, 32, 64)  # points of each level of the first factor
OUTER = (2, 4, 8, 16)  # of the other factors' effects
NOISIEST = 1.0  # variance of the log of an estimate from which there is little hope
TRIES = 24  # estimates at the mode that tell it,
PROBE = 1 << 20  # with random numbers of their own, of no round
FLOPS = 50.0  # of a factorisation that take as long as a row does in a pass
SEARCH = 8  # passes over the rows that finding the group effects' mode takes, about
BRIEF = 3e8  # rows times passes of all proposals up to which more rounds are made,
COSTLY = 3e9  # from which there are
FEW = 1000  # proposals in all, duplicates among the draws,
MOST_WORK = 1.2e10  # and beyond which it is left to NUTS
MOST_EFFECTS = 3  # of each level of the first factor


@dataclass(frozen=True)
class Points:
    """How many points of the group effects each proposal gets, and the variance of the log estimate at the mode."""

    outer: int
    inner: int
    noise: float

    @property
    def passes(self) -> int:
        """Passes over the rows that one estimate takes."""
        return SEARCH + self.outer * self.inner


class Estimates:
    """Estimated log posteriors of proposals (m, d), and the group effects that each estimate chose.

    The effects of the last proposals are kept where there is room, otherwise made again. Rounds have random numbers of
    their own.
    """

    def __init__(self, joint: JointTarget, start: Array, points: Points, seed: int, threads: int, keep: bool) -> None:
        self.core, self.start, self.points, self.threads = joint.core, start, points, threads
        self.keep, self.root = keep, seed
        self.chosen: Array | None = None
        self.begin(0)

    def begin(self, part: int) -> None:
        """Take the random numbers of a round, or of another part."""
        self.seed = int(np.random.SeedSequence([self.root, part]).generate_state(1, np.uint64)[0])

    def __call__(self, x: Array) -> Array:
        keep = self.keep and 8.0 * len(x) * len(self.start) <= GROUP_MEMORY / 4
        logs, chosen = self._run(x, np.arange(len(x), dtype=np.int32), keep)
        self.chosen = chosen if keep else None
        return logs

    def effects(self, made: independent.Sample, thin: int) -> Array:
        """(draws, q) engine's group effects of every so manyth draw."""
        at = made.index[:, ::thin].ravel()
        if self.chosen is not None:
            return np.asarray(self.chosen[at])
        x = made.x[:, ::thin].reshape(len(at), -1)
        self.core.restart()  # it may have been stopped, for the proposals that it had evaluated
        return self._run(x, at.astype(np.int32), True)[1]

    def _run(self, x: Array, ids: NDArray[np.int32], effects: bool) -> tuple[Array, Array]:
        p = self.points
        found = self.core.importance(
            np.ascontiguousarray(x), ids, self.start, p.outer, p.inner, self.seed, self.threads, effects
        )
        return found[0], found[1]


def sample(
    joint: JointTarget,
    chains: int,
    draws: int,
    kept: int,
    threads: int,
    seed: int,
    rng: np.random.Generator,
    keep: bool,
    bar: Progress,
) -> tuple[independent.Sample, Estimates] | str:
    """Draws of the parameters, so many of them kept in the end; or why importance sampling is not for this model."""
    reason = unsuited(joint) or too_long(joint, chains)
    if reason:
        return reason
    core, mode, rows = joint.core, joint.mode, equivalent_rows(joint)
    start = centre(joint, mode)
    found = choose_points(joint, mode, start, seed, threads)
    if found.noise > NOISIEST:
        return "its likelihood cannot be estimated well enough (groups too large, or effects too many)"
    count = independent.proposals(chains, draws)
    if rows * found.passes * chains * count > COSTLY:
        count = -(-FEW // chains)
    work = rows * found.passes * chains * count
    if work > MOST_WORK:
        return f"it has too many rows or group effects for the {found.outer * found.inner} points that they need"
    estimates = Estimates(joint, start, found, seed, threads, keep)
    values = watched(core, bar, count / draws, estimates)
    made = independent.rounds(
        values, mode, chains, draws, count, independent.ROUNDS if work > BRIEF else independent.MORE_ROUNDS, kept, rng,
        lambda x: values.run(lambda at: core.marginals(np.ascontiguousarray(at), start, threads), x), estimates.begin,
    )  # fmt: skip
    return made, estimates


def unsuited(joint: JointTarget) -> str:
    """What about a model asks for another method, in words; few parameters and independent group effects do not."""
    groups = joint.engine.groups
    if not groups:
        return "it has no group effects"
    if joint.parameters == 0:
        return "all its parameters are held at values"
    if joint.parameters > LARGEST:
        return f"it has too many parameters ({joint.parameters}; at most {LARGEST})"
    if groups[0].k > MOST_EFFECTS:
        return f"it has too many effects of each group ({groups[0].k}; at most {MOST_EFFECTS})"
    return "the covariance of its group effects across levels is given" if joint.design.known else ""


def too_long(joint: JointTarget, chains: int) -> str:
    """Whether the least number of points and proposals is too much work, in words."""
    rows, many = equivalent_rows(joint), len(joint.engine.groups) > 1
    least = Points(OUTER[0] if many else 1, INNER[0], 0.0)
    return "it has too many rows or group effects" if rows * least.passes * chains * -(-FEW // chains) > MOST_WORK else ""


def equivalent_rows(joint: JointTarget) -> float:
    """Rows, with what a factorisation for the group effects costs in passes over them."""
    return float(len(joint.design.rows) + joint.core.flops / FLOPS)


def centre(joint: JointTarget, mode: Mode) -> Array:
    """(q,) group effects at the mode, where every search for their mode begins."""
    joint.core.marginal(mode.x, False)
    return np.array(joint.state.u)


def choose_points(joint: JointTarget, mode: Mode, start: Array, seed: int, threads: int) -> Points:
    """The numbers of points that cost least for what they are worth."""
    many = len(joint.engine.groups) > 1
    best = Points(1, INNER[0], np.inf)
    for outer in OUTER if many else (1,):
        for inner in INNER:
            noise = _noise(joint, mode, start, Points(outer, inner, 0.0), seed, threads)
            tried = Points(outer, inner, noise)
            if np.isfinite(noise) and _price(tried) < _price(best):
                best = tried
            if noise < 0.05 or (many and inner >= 16 and noise > 0.5):
                break
        if best.noise < 0.1:
            break
    return best


def _price(p: Points) -> float:
    return float(p.passes * np.exp(min(p.noise, 700.0)))


def _noise(joint: JointTarget, mode: Mode, start: Array, points: Points, seed: int, threads: int) -> float:
    tries = Estimates(joint, start, points, seed, threads, False)
    tries.begin(PROBE)
    logs = tries(np.tile(mode.x, (TRIES, 1)))
    return float(np.var(logs, ddof=1)) if np.isfinite(logs).all() else np.inf
