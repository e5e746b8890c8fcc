"""Independent draws of a small posterior by randomised quasi-Monte Carlo importance sampling.

The proposal is a product of one-dimensional densities along the axes of the curvature at the mode, each an interpolation of
the log posterior on that axis: it has the posterior's own skewness and tails there. Points are a
scrambled Sobol sequence, one scrambling per chain. Pareto's k of the importance ratios says whether the draws may be used
(Vehtari, Simpson, Gelman, Yao & Gabry 2024, J. Mach. Learn. Res. 25(72)).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .pareto import smoothed_log_weights
from .posterior_mode import Mode
from .sobol import scrambled_sobol

Array = NDArray[np.float64]

REACH = np.array([0.0, 0.25, 0.5, 0.75, 1.0, 1.4, 1.8, 2.3, 2.9, 3.6, 4.5, 5.6, 7.0])  # grid along an axis, in sds
MIXTURE = ((0.85, 0.92), (0.15, 0.4))  # shares and powers: near the posterior, and a defence against its tails
LEAST_SLOPE = 0.7  # of the log density at the ends, away from the mode
EXTRA = 1  # proposals per draw: weights are nearly equal, so that nearly all are kept
LEAST_PROPOSALS = 4000  # in all, so that Pareto's k means something


@dataclass(frozen=True)
class Sample:
    """Draws and how good they are.

    Attributes
    ----------
    x : (chains, draws, d) array
    pareto_k : float
        Shape of the tail of the importance ratios; below 0.5 all is well.
    effective : float
        Effective number of independent draws; not more than that of the proposals, nor scaled beyond the draws kept.
    log_evidence : float
        Log of the integral of the posterior density as it is computed.
    proposals : int
    """

    x: Array
    pareto_k: float
    effective: float
    log_evidence: float
    proposals: int


class Slice:
    """Density along one axis, proportional to the exponential of a piecewise linear function.

    Parameters
    ----------
    z, log_density : (m,) arrays
        Grid, and the log posterior on it.
    power : float
        What the posterior is raised to: below one the tails are heavier.
    """

    def __init__(self, z: Array, log_density: Array, power: float) -> None:
        keep = np.isfinite(log_density)
        self.z, self.h = z[keep], power * (log_density[keep] - log_density[keep].max())
        self.slopes = np.diff(self.h) / np.diff(self.z)
        first, last = max(self.slopes[0], LEAST_SLOPE * power), min(self.slopes[-1], -LEAST_SLOPE * power)
        inner = np.exp(self.h[:-1]) * np.diff(self.z) * _mean_exp(self.slopes * np.diff(self.z))
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


def draw(
    values: Callable[[Array], Array], mode: Mode, chains: int, draws: int, count: int, rng: np.random.Generator
) -> Sample:
    """Sample a posterior.

    Parameters
    ----------
    values : callable
        (m, d) points -> (m,) log posteriors.
    chains, draws, count : int
        Chains; draws and proposals of each.
    """
    d = len(mode.x)
    parts = _slices(values, mode)
    # one scrambling per chain; the first number chooses the part of the mixture
    u = np.concatenate([scrambled_sobol(count, d + 1, rng) for _ in range(chains)])
    z, log_q = _propose(parts, u)
    z, log_q = z.reshape(chains, count, d), log_q.reshape(chains, count)
    x = mode.x + z @ mode.root.T
    log_p = values(x.reshape(-1, d)).reshape(chains, count)
    log_w = np.where(np.isfinite(log_p), log_p - log_q, -np.inf)
    smooth, k = smoothed_log_weights(log_w.ravel())
    weights = np.exp(smooth - smooth.max())
    effective = float(weights.sum() ** 2 / (weights**2).sum()) * min(1.0, draws / count)
    half_log_det = float(np.linalg.slogdet(mode.root)[1])
    evidence = float(np.log(np.mean(np.exp(log_w - log_w.max()))) + log_w.max() + half_log_det)
    kept = np.stack([_resample(x[c], weights.reshape(chains, count)[c], draws, rng) for c in range(chains)])
    return Sample(kept, k, effective, evidence, chains * count)


def proposals(chains: int, draws: int) -> int:
    """Proposals of each chain."""
    return max(EXTRA * draws, -(-LEAST_PROPOSALS // chains))


def _propose(parts: list[list[Slice]], u: Array) -> tuple[Array, Array]:
    """(m, d) points of the mixture at (m, d + 1) probabilities, and the logs of its density."""
    edges = np.cumsum([share for share, _ in MIXTURE])
    which = np.searchsorted(edges, u[:, 0])
    z = np.empty((len(u), u.shape[1] - 1))
    for i, slices in enumerate(parts):
        own = which == i
        for j, one in enumerate(slices):
            z[own, j] = one.draw(u[own, j + 1])
    logs = [
        np.log(share) + sum(one.log_density(z[:, j]) for j, one in enumerate(slices))
        for (share, _), slices in zip(MIXTURE, parts, strict=True)
    ]
    return z, np.asarray(np.logaddexp.reduce(logs, axis=0))


def _slices(values: Callable[[Array], Array], mode: Mode) -> list[list[Slice]]:
    """Per part of the mixture, a density for each axis."""
    d = len(mode.x)
    grid = np.r_[-REACH[:0:-1], REACH]
    points = np.concatenate([mode.x + grid[:, None] * mode.root[:, j] for j in range(d)])
    heights = values(points).reshape(d, len(grid))
    return [[Slice(grid, h, power) for h in heights] for _, power in MIXTURE]


def _resample(x: Array, weights: Array, draws: int, rng: np.random.Generator) -> Array:
    """Rows in proportion to their weights, each as often as expected but for rounding, in random order.

    The order is made random before, too: every other point of a Sobol sequence lies in one half of the cube.
    """
    order = rng.permutation(len(x))
    edges = np.cumsum(weights[order]) / weights.sum()
    at = np.minimum(np.searchsorted(edges, (rng.random() + np.arange(draws)) / draws), len(x) - 1)
    return np.asarray(x[order[at]][rng.permutation(draws)])
