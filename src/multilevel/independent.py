"""Independent draws of a small posterior by randomised quasi-Monte Carlo importance sampling.

Proposals are a mixture. In the first round its parts are products of one-dimensional densities along the axes of the
curvature at the mode, each an interpolation of the log posterior on that axis, so that they have its skewness and tails.
Where the check fails, further rounds add products of the marginal densities along the principal axes of what the last one
found, and normal kernels about its points, which follow curved ridges. Points are a scrambled Sobol sequence, one scrambling
per chain. Pareto's k of the importance ratios says whether the draws may be used (Vehtari, Simpson, Gelman, Yao & Gabry 2024,
J. Mach. Learn. Res. 25(72)).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .errors import MultilevelError
from .pareto import smoothed_log_weights
from .posterior_mode import Mode
from .sampler import SamplingStopped, told_of_stop
from .sobol import MOST_DIMENSIONS, scrambled_sobol

if TYPE_CHECKING:
    from .sampler import Watched

Array = NDArray[np.float64]
Mixture = list["Part | Kernels"]

REACH = np.array([0.0, 0.25, 0.5, 0.75, 1.0, 1.4, 1.8, 2.3, 2.9, 3.6, 4.5, 5.6, 7.0])  # grid along an axis, in sds
MIXTURE = ((0.85, 0.92), (0.15, 0.4))  # shares and powers: near the posterior, and a defence against its tails
SECOND = ((0.35, 0.95), (0.1, 0.5))  # the same of marginal densities in a second round
KERNELS, KERNEL_SHARE = 300, 0.3  # of it
ROUNDS = 3  # tries, each with what the one before it found, where one takes long
MORE_ROUNDS = 6  # and where not
ENDS = 5e-4  # probability beyond the grid of a marginal density
CELLS = 33  # points of that grid
NARROWEST = 1e-6  # sd of it, in units of the curvature at the mode, under which it counts as unknown
LEAST_SLOPE = 0.7  # of the log density at the ends, away from the mode
EXTRA = 1  # proposals per draw: weights are nearly equal, so that nearly all are kept
LEAST_PROPOSALS = 4000  # in all, so that Pareto's k means something
LEAST_EVALUATED = 100  # of proposals, of which a stopped sampler keeps draws
FEWEST = 5  # proposals with a weight under which nothing can be said
BLOCK = 4096  # rows of a sum of kernels at once
GOOD_K = 0.5  # Pareto's k up to which independent draws are used
GOOD_SHARE = 0.15  # and the effective share of proposals from which,
GOOD_ESS = 400.0  # which must be worth so many, too, or half of the draws


@dataclass(frozen=True)
class Sample:
    """Draws and how good they are.

    Attributes
    ----------
    x : (chains, draws, d) array
    index : (chains, draws) array
        Which proposal each draw is, chains one after the other.
    pareto_k : float
        Shape of the tail of the importance ratios; below 0.5 all is well. Infinite where too few proposals have a weight.
    proposed : float
        Effective number of independent draws that the proposals are worth.
    log_evidence : float
        Log of the integral of the posterior density as it is computed.
    proposals : int
    z, weights : (proposals, d), (proposals,) arrays
        All of them in the coordinates of the curvature at the mode.
    parts : list of Part or Kernels
        What they were drawn from.
    stopped : bool
        Whether not all proposals were evaluated; draws are then of those that were, chains together.
    """

    x: Array
    index: NDArray[np.int64]
    pareto_k: float
    proposed: float
    log_evidence: float
    proposals: int
    z: Array
    weights: Array
    parts: Mixture
    stopped: bool = False

    def effective(self, kept: int) -> float:
        """Effective number of independent draws among so many that are kept."""
        return _worth(self.proposed, kept, self.proposals) if self.proposed > 0 else 0.0

    def facts(self, kept: int) -> dict[str, float | bool]:
        """What is told of so many draws kept."""
        out: dict[str, float | bool] = {
            "pareto_k": self.pareto_k, "effective": self.effective(kept), "log_evidence": self.log_evidence,
            "proposals": self.proposals,
        }  # fmt: skip
        return out | ({"stopped": True} if self.stopped else {})

    def good(self, kept: int) -> bool:
        """Whether so many of the draws may be trusted."""
        return not self.stopped and may_be_trusted(self.pareto_k, self.effective(kept), kept, self.proposals)


def may_be_trusted(pareto_k: float, effective: float, kept: int, proposed: int) -> bool:
    """Whether draws by importance sampling pass the check: Pareto's k, and what the draws kept are worth."""
    least = max(GOOD_SHARE * min(kept, proposed), min(GOOD_ESS, kept / 2))
    return bool(pareto_k < GOOD_K and effective >= least)


class Slice:
    """Density along one axis, proportional to the exponential of a piecewise linear function.

    Where fewer than two heights are known it is that of a standard normal there.

    Parameters
    ----------
    z, log_density : (m,) arrays
        Grid, and the log posterior on it.
    power : float
        What the posterior is raised to: below one the tails are heavier.
    scale : float
        Least slope of the tails is in units of this.
    """

    def __init__(self, z: Array, log_density: Array, power: float, scale: float = 1.0) -> None:
        keep = np.isfinite(log_density)
        if keep.sum() < 2:
            keep, log_density = np.ones(len(z), dtype=bool), -0.5 * (z * scale) ** 2
        self.z, self.h = z[keep], power * (log_density[keep] - log_density[keep].max())
        self.slopes = np.diff(self.h) / np.diff(self.z)
        least = LEAST_SLOPE * power * scale
        first, last = max(self.slopes[0], least), min(self.slopes[-1], -least)
        # from the higher end of each piece, where no exponential overflows
        inner = np.exp(np.maximum(self.h[:-1], self.h[1:])) * np.diff(self.z) * _mean_exp(-np.abs(np.diff(self.h)))
        mass = np.r_[np.exp(self.h[0]) / first, inner, np.exp(self.h[-1]) / -last]
        self.first, self.last = first, last
        self.log_total = float(np.log(mass.sum()))
        self.edges = np.r_[0.0, np.cumsum(mass) / mass.sum()]

    def draw(self, u: Array) -> Array:
        """Values at probabilities (m,)."""
        part = np.clip(np.searchsorted(self.edges, u, side="right") - 1, 0, len(self.edges) - 2)
        share = (u - self.edges[part]) / (self.edges[part + 1] - self.edges[part])
        share = np.clip(share, 1e-300, 1 - 1e-16)
        out = np.empty(len(u))
        left, right = part == 0, part == len(self.edges) - 2
        out[left] = self.z[0] + np.log(share[left]) / self.first
        out[right] = self.z[-1] + np.log1p(-share[right]) / self.last
        inner = ~(left | right)
        i = part[inner] - 1
        width = np.diff(self.z)[i]
        out[inner] = self.z[i] + _inverse_share(share[inner], self.slopes[i] * width) * width
        return out

    def log_density(self, z: Array) -> Array:
        """Log density at values (m,)."""
        inside = np.interp(z, self.z, self.h)
        beyond = self.first * np.minimum(z - self.z[0], 0.0) + self.last * np.maximum(z - self.z[-1], 0.0)
        return np.asarray(inside + beyond - self.log_total)


def _mean_exp(a: Array) -> Array:
    """Integral of exp(a t) over t in (0, 1)."""
    small = np.abs(a) < 1e-8
    safe = np.where(small, 1.0, a)
    return np.where(small, 1 + a / 2, np.expm1(safe) / safe)


def _inverse_share(share: Array, a: Array) -> Array:
    """t with integral of exp(a s) over (0, t) the given share of that over (0, 1)."""
    small = np.abs(a) < 1e-8
    safe = np.where(small, 1.0, a)
    # for a large positive a from the upper end, where no exponential overflows
    up = np.minimum(safe, 700.0)
    low = np.log1p(share * np.expm1(up)) / safe
    high = 1 + np.log(share + (1 - share) * np.exp(-np.maximum(safe, 0.0))) / safe
    return np.where(small, share, np.where(safe > 30, high, low))


@dataclass(frozen=True)
class Part:
    """One part of the mixture that is proposed from: independent coordinates r, ``z = centre + turn @ r``.

    Attributes
    ----------
    share : float
    centre, turn : (d,), (d, d) arrays
    slices : list of Slice
        Density of each coordinate of r.
    """

    share: float
    centre: Array
    turn: Array
    slices: list[Slice]

    def draw(self, u: Array, rng: np.random.Generator) -> Array:
        """(m, d) points at (m, d) probabilities."""
        r = np.column_stack([one.draw(u[:, j]) for j, one in enumerate(self.slices)])
        return np.asarray(self.centre + r @ self.turn.T)

    def log_density(self, z: Array) -> Array:
        """(m,) log densities, times the part's share."""
        r = np.linalg.solve(self.turn, (z - self.centre).T)
        log_det = float(np.linalg.slogdet(self.turn)[1])
        return np.asarray(
            np.log(self.share) - log_det + sum(one.log_density(r[j]) for j, one in enumerate(self.slices))
        )


@dataclass(frozen=True)
class Kernels:
    """A part of the mixture that follows curved ridges: normal densities about points of a first round (m, d).

    `root` is the factor of their common covariance (d, d).
    """

    share: float
    points: Array
    root: Array

    def draw(self, u: Array, rng: np.random.Generator) -> Array:
        """(m, d) points at (m, d) probabilities, the normal densities taken in turn, in random order."""
        from scipy.special import ndtri

        at = rng.permutation(len(u)) % len(self.points)
        return np.asarray(self.points[at] + ndtri(np.clip(u, 1e-300, 1 - 1e-16)) @ self.root.T)

    def log_density(self, z: Array) -> Array:
        """(m,) log densities, times the part's share."""
        a, b = (np.linalg.solve(self.root, part.T).T for part in (z, self.points))
        total = np.empty(len(a))
        for at in range(0, len(a), BLOCK):
            own = a[at : at + BLOCK]
            square = (own**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * own @ b.T
            total[at : at + BLOCK] = np.logaddexp.reduce(-0.5 * square, axis=1)
        d = z.shape[1]
        log_det = float(np.linalg.slogdet(self.root)[1])
        return np.asarray(np.log(self.share / len(b)) + total - log_det - 0.5 * d * np.log(2 * np.pi))


def rounds(
    values: Watched,
    mode: Mode,
    chains: int,
    draws: int,
    count: int,
    most: int,
    kept: int,
    rng: np.random.Generator,
    shape: Callable[[Array], Array] | None = None,
    begin: Callable[[int], None] | None = None,
) -> Sample:
    """`draw` until its check is passed for so many draws kept, at most so often, with what the round before found.

    Before each round `begin` is told its number.

    Raises
    ------
    MultilevelError
        If sampling was stopped before enough proposals were evaluated.
    """
    found = None
    for i in range(most):
        if begin is not None:
            begin(i)
        found = draw(values, mode, chains, draws, count, rng, shape, found)
        if values.stopped:
            return _of_stopped(found)
        if found.good(kept) or not found.weights.any():
            break
    assert found is not None
    return found


def _of_stopped(found: Sample) -> Sample:
    evaluated = int(np.count_nonzero(found.weights))
    if evaluated < LEAST_EVALUATED:
        raise SamplingStopped
    told_of_stop(f"draws of the {evaluated} of {found.proposals} proposals evaluated so far are kept")
    return replace(found, proposals=evaluated, log_evidence=float("nan"))


def refuse_empty(found: Sample) -> None:
    """Refuse draws of proposals that all, or nearly all, have no weight."""
    if np.count_nonzero(found.weights) < FEWEST:
        raise MultilevelError(
            "importance sampling found no draws: the posterior cannot be evaluated around its mode; sample with "
            "method='nuts', or give tighter priors"
        )


def draw(
    values: Callable[[Array], Array],
    mode: Mode,
    chains: int,
    draws: int,
    count: int,
    rng: np.random.Generator,
    shape: Callable[[Array], Array] | None = None,
    before: Sample | None = None,
) -> Sample:
    """Sample a posterior.

    Parameters
    ----------
    values : callable
        (m, d) points -> (m,) log posteriors, or logs of unbiased estimates of the posterior density.
    chains, draws, count : int
        Chains; draws and proposals of each.
    shape : callable, optional
        Like `values`, an approximation that the proposal is made of; default `values` itself.
    before : Sample, optional
        What a first round found: most proposals then come from its marginal densities along its principal axes, and kernels.
    """
    d = len(mode.x)
    parts = _first_parts(shape or values, mode) if before is None else _second_parts(before, rng)
    # one scrambling per chain; the first number chooses the part of the mixture
    u = np.concatenate([_points(count, d + 1, rng) for _ in range(chains)])
    z, log_q = _propose(parts, u, rng)
    z, log_q = z.reshape(chains, count, d), log_q.reshape(chains, count)
    x = mode.x + z @ mode.root.T
    log_p = values(x.reshape(-1, d)).reshape(chains, count)
    log_w = np.where(np.isfinite(log_p) & np.isfinite(log_q), log_p - log_q, -np.inf)
    stopped = bool(getattr(values, "stopped", False))
    weights, k, mean = _weigh(log_w.ravel())
    proposed = float(weights.sum() ** 2 / max((weights**2).sum(), 1e-300))
    evidence = mean + float(np.linalg.slogdet(mode.root)[1])
    index = _chosen(weights, chains, draws, stopped, rng)
    kept = x.reshape(-1, d)[index]
    return Sample(kept, index, k, proposed, evidence, chains * count, z.reshape(-1, d), weights, parts, stopped)


def _weigh(log_w: Array) -> tuple[Array, float, float]:
    """(m,) smoothed weights up to a factor, Pareto's k, and the log of the mean of the weights as they are."""
    there = np.isfinite(log_w)
    weights, top = np.zeros(len(log_w)), float(log_w.max())
    if not there.any():
        return weights, float("inf"), -float("inf")
    mean = float(np.log(np.mean(np.exp(log_w - top))) + top)
    with np.errstate(all="ignore"):  # nearly all the weight on one proposal
        smooth, k = smoothed_log_weights(log_w[there])
    if there.sum() < FEWEST or not np.isfinite(k) or np.isnan(smooth).any():
        smooth, k = log_w[there] - top, float("inf")
    weights[there] = np.exp(smooth - smooth.max())
    return weights, float(k), mean


def _chosen(weights: Array, chains: int, draws: int, pooled: bool, rng: np.random.Generator) -> NDArray[np.int64]:
    """(chains, draws) proposals by weight, of each chain its own unless they are pooled or its own have none."""
    if not weights.any():
        return np.zeros((chains, draws), dtype=np.int64)
    if pooled:
        return _resample(weights, chains * draws, rng).reshape(chains, draws)
    count = len(weights) // chains
    out = []
    for c, own in enumerate(weights.reshape(chains, count)):
        out.append(_resample(own, draws, rng) + c * count if own.any() else _resample(weights, draws, rng))
    return np.stack(out)


def _points(n: int, d: int, rng: np.random.Generator) -> Array:
    """(n, d) uniform points: a scrambled Sobol sequence in as many coordinates as there are, plain random numbers beyond."""
    even = scrambled_sobol(n, min(d, MOST_DIMENSIONS), rng)
    return even if d <= MOST_DIMENSIONS else np.column_stack([even, rng.random((n, d - MOST_DIMENSIONS))])


def _worth(proposed: float, kept: int, count: int) -> float:
    """Effective number of draws kept of so many proposals, themselves worth a number: fewer draws add their own variance."""
    return 1 / (1 / proposed + max(0.0, 1 - kept / count) / kept)


def proposals(chains: int, draws: int) -> int:
    """Proposals of each chain."""
    return max(EXTRA * draws, -(-LEAST_PROPOSALS // chains))


def _propose(parts: Mixture, u: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """(m, d) points of the mixture at (m, d + 1) probabilities, and the logs of its density."""
    edges = np.cumsum([part.share for part in parts])
    which = np.minimum(np.searchsorted(edges, u[:, 0]), len(parts) - 1)
    z = np.empty((len(u), u.shape[1] - 1))
    for i, part in enumerate(parts):
        own = which == i
        z[own] = part.draw(u[own, 1:], rng)
    return z, np.asarray(np.logaddexp.reduce([part.log_density(z) for part in parts], axis=0))


def _first_parts(values: Callable[[Array], Array], mode: Mode) -> Mixture:
    """The posterior along each axis of its curvature at the mode, as it is and flatter."""
    d = len(mode.x)
    grid = np.r_[-REACH[:0:-1], REACH]
    points = np.concatenate([mode.x + grid[:, None] * mode.root[:, j] for j in range(d)])
    heights = values(points).reshape(d, len(grid))
    return [
        Part(share, np.zeros(d), np.eye(d), [Slice(grid, h, power) for h in heights]) for share, power in MIXTURE
    ]


def _second_parts(before: Sample, rng: np.random.Generator) -> Mixture:
    """The last round's mixture, the marginal densities along the principal axes of what it found, and kernels there."""
    w = before.weights / before.weights.sum()
    centre = w @ before.z
    d = len(centre)
    cov = (before.z - centre).T @ ((before.z - centre) * w[:, None])
    values, turn = np.linalg.eigh(cov)
    r = (before.z - centre) @ turn
    found: Mixture = [Part(share, centre, turn, [_marginal(c, w, power) for c in r.T]) for share, power in SECOND]
    width = (4 / ((d + 2) * KERNELS)) ** (1 / (d + 4))
    if not values[-1] > NARROWEST**2:
        values = np.ones(d)
    root = turn * (width * np.sqrt(np.maximum(values, 1e-12 * values[-1])))
    found.append(Kernels(KERNEL_SHARE, before.z[_resample(before.weights, KERNELS, rng)], root))
    left = 1 - sum(part.share for part in found)
    kept = [part for part in before.parts if not isinstance(part, Kernels)]
    total = sum(part.share for part in kept)
    return [replace(part, share=left * part.share / total) for part in kept] + found


def _marginal(r: Array, w: Array, power: float) -> Slice:
    """Smoothed density of weighted points on a line."""
    order = np.argsort(r)
    cumulative = np.cumsum(w[order])
    low, high = r[order][np.searchsorted(cumulative, [ENDS, 1 - ENDS]).clip(0, len(r) - 1)]
    middle = float(w @ r)
    sd = float(np.sqrt(w @ (r - middle) ** 2))
    if not (sd > NARROWEST and high > low):  # one proposal has all the weight: as wide as the curvature says
        low, high, sd = middle - 2.0, middle + 2.0, 1.0
    width = sd * (1.06 / (1 / (w @ w)) ** 0.2)
    grid = np.linspace(low, high, CELLS)
    density = np.array([np.exp(-0.5 * ((at - r) / width) ** 2) @ w for at in grid])
    return Slice(grid, np.log(np.maximum(density, 1e-300)), power, 1 / sd)


def _resample(weights: Array, draws: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Positions in proportion to weights, each as often as expected but for rounding, in random order.

    The order is made random before, too: every other point of a Sobol sequence lies in one half of the cube.
    """
    order = rng.permutation(len(weights))
    edges = np.cumsum(weights[order]) / weights.sum()
    at = np.minimum(np.searchsorted(edges, (rng.random() + np.arange(draws)) / draws), len(weights) - 1)
    return np.asarray(order[at][rng.permutation(draws)])
