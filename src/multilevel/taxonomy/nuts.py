"""Draws of a classifier's posterior by the no-U-turn sampler, for small problems; the reference of everything approximate.

The log posterior of whitened deviations w, log scales and the log of the intercepts' scale t:
log-likelihood - |w|^2 / 2, log s ~ N(log s0, 0.7^2), t ~ half-normal. With g the gradient of the negative log-likelihood by
w, d log-likelihood / d log s_k = - sum over the entries of scale k of w g: deviations are s w, so no more than g is needed.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from .. import chain_diagnostics
from ..errors import OptionError
from ..nuts import Sampler
from ..posterior_tables import verdict_of_chains
from ..sampler import LEAST_DRAWS, chains_of
from .fitting import FittedTree, Settings, _begin, _deviations, fit_tree
from .problems import LocalPiece, Order, Rows, local_trees, pieces
from .scales import LOG_SD, ScaleShape
from .tree import Taxonomy

__all__ = ["Density", "TreeDraws", "check_draws", "check_size", "sample"]

Floats = npt.NDArray[np.float64]

LARGEST = 5000  # deviations that are sampled unless the caller says otherwise
WARMUP = 300  # of each chain at least
DEPTH, TARGET = 10, 0.9  # of the sampler
SPREAD = 0.5  # of the chains' starts about the mode, in prior standard deviations
LEAST = 8  # draws of a chain for R-hat and effective sample sizes, which split it
DIAGNOSED = 400  # deviations whose R-hat goes into the verdict; more are a sample of them


@dataclass(repr=False)
class TreeDraws:
    """Draws of a classifier's posterior.

    Attributes
    ----------
    fitted : list of FittedTree (chains * draws,)
        Each draw as a fit with deviations and scales of its own, chain by chain.
    scales : float array (chains, draws, scales)
    intercept : float array (chains, draws)
        Scale of the intercepts' deviations.
    stats : dict of arrays (chains, draws)
        Of each transition: lp, energy, acceptance_rate, tree_depth, n_steps, diverging.
    r_hat, ess : float
        Largest R-hat, least effective sample size (bulk or tail) of scales, deviations, and log posterior.
    trusted : bool
    sentence : str
        Whether the draws may be trusted, and why.
    """

    fitted: list[FittedTree]
    scales: Floats
    intercept: Floats
    stats: dict[str, Floats]
    r_hat: float
    ess: float
    trusted: bool
    sentence: str

    def __repr__(self) -> str:
        chains, draws = self.intercept.shape
        return f"<TreeDraws, {chains} x {draws}: {self.sentence}>"


class Density:
    """Log posterior with its gradient, as the sampler takes it.

    Coordinates: the deviations that have a scale, problem by problem, whitened; then, unless held, the log scales, and the
    log of the intercepts' scale.

    Parameters
    ----------
    tree : Taxonomy
    rows : Rows
    shape : ScaleShape
        Its `intercept` is the scale of the half-normal prior of the intercepts' scale; where that is held, its value.
    settings : Settings
        `first` is the middle of the scales' prior, or where they are held their values.
    held : bool
        Whether all scales are held.
    """

    def __init__(self, tree: Taxonomy, rows: Rows, shape: ScaleShape, settings: Settings, held: bool = False) -> None:
        double = replace(rows, x=sp.csr_array(rows.x, dtype=np.float64))
        self.tree, self.rows, self.shape, self.held = tree, double, shape, held
        self.likelihood, self.first = settings.likelihood, np.asarray(settings.first, dtype=np.float64)
        self.parts = list(pieces(tree, local_trees(tree, settings.likelihood), shape, double, None, 1))
        self.used = [by_entry(part, part.piece.shape.matrix(self.first)) > 0 for part in self.parts]
        ends = np.cumsum([0, *(int(used.sum()) for used in self.used)])
        self.spans = [slice(a, b) for a, b in zip(ends[:-1], ends[1:], strict=True)]
        self.deviations = int(ends[-1])
        self.sampled_intercept = not held and shape.intercept > 0
        self.size = self.deviations + (0 if held else len(self.first) + self.sampled_intercept)
        self.done, self.stopped = 0, False

    def scales_of(self, x: Floats) -> tuple[Floats, Any]:
        """Scales, and the intercepts', at points (..., size): (..., scales) and (...)."""
        if self.held:
            out = np.broadcast_to(self.first, (*x.shape[:-1], len(self.first)))
            return out, np.broadcast_to(self.shape.intercept, x.shape[:-1])
        at = self.deviations + len(self.first)
        with np.errstate(over="ignore"):  # far out on a trajectory that is given up
            scales = np.exp(x[..., self.deviations : at])
            if not self.sampled_intercept:
                return scales, np.broadcast_to(self.shape.intercept, x.shape[:-1])
            return scales, np.exp(x[..., at])

    def whitened(self, x: Floats, k: int) -> Floats:
        """w of a problem, (features + 1, nodes)."""
        w = np.zeros(self.used[k].shape)
        w[self.used[k]] = x[self.spans[k]]
        return w

    def log_posterior(self, x: Floats, want: bool = True) -> tuple[float, Floats | None]:
        """Up to a constant; minus infinity and None where it cannot be evaluated."""
        scales, t = self.scales_of(x)
        intercept = float(t)
        if not (np.all(np.isfinite(scales)) and np.isfinite(intercept)):
            return -np.inf, None
        slope = np.zeros(self.size)
        w_all = x[: self.deviations]
        value = -0.5 * float(w_all @ w_all)
        slope[: self.deviations] = -w_all
        by_scale, by_intercept = np.zeros(len(self.first)), 0.0
        for k, part in enumerate(self.parts):
            piece, w = part.piece, self.whitened(x, k)
            loss, gradient = piece.fit.gradient(
                w, replace(piece.shape, intercept=intercept).matrix(scales), prior=False
            )
            value -= loss
            slope[self.spans[k]] -= gradient[self.used[k]]
            product = w * gradient
            by_scale -= piece.shape.sums(piece.group, product[:-1])
            by_intercept -= float(product[-1].sum())
        value += self._prior(scales, intercept, by_scale, by_intercept, slope)
        return (value, slope) if np.isfinite(value) else (-np.inf, None)

    def _prior(self, scales: Floats, intercept: float, by_scale: Floats, by_intercept: float, slope: Floats) -> float:
        """Log prior of the scales that are sampled; their part of the slope is filled in."""
        if self.held:
            return 0.0
        at = self.deviations + len(self.first)
        away = np.log(scales / self.first) / LOG_SD
        slope[self.deviations : at] = by_scale - away / LOG_SD
        value = -0.5 * float(away @ away)
        if self.sampled_intercept:
            ratio = (intercept / self.shape.intercept) ** 2
            slope[at] = by_intercept - ratio + 1  # the one is the logarithm's Jacobian
            value += float(np.log(intercept)) - 0.5 * ratio
        return value

    def point(self, fitted: FittedTree) -> Floats:
        """The coordinates of a fit of the same rows."""
        x = np.zeros(self.size)
        _begin(self.parts, fitted, self.first if self.held else fitted.scales)
        for k, part in enumerate(self.parts):
            x[self.spans[k]] = part.piece.w[self.used[k]]
        if not self.held:
            x[self.deviations : self.deviations + len(self.first)] = np.log(fitted.scales)
            if self.sampled_intercept:
                x[-1] = np.log(self.shape.intercept)
        return x

    def fitted(self, x: Floats, dtype: npt.DTypeLike) -> FittedTree:
        """A point as a fit."""
        scales, intercept = self.scales_of(x)
        shape = replace(self.shape, intercept=float(intercept))
        for k, part in enumerate(self.parts):
            part.piece.w = self.whitened(x, k)
            part.piece.shape = shape.on(part.local.nodes)
        u = _deviations(self.tree, self.parts, shape, scales, self.rows).astype(dtype)
        return FittedTree(self.tree, self.likelihood, u, np.array(scales), shape, offset=self.rows.offset)


def by_entry(part: LocalPiece, matrix: Floats) -> Floats:
    """Scale of every entry of a problem's w, (features + 1, nodes)."""
    return np.concatenate([matrix[:-1][part.piece.group], matrix[-1:]])


def check_draws(draws: int) -> None:
    if draws < LEAST_DRAWS:
        raise OptionError(
            f"draws={draws}: inference='nuts' takes at least {LEAST_DRAWS} draws of each chain; 500 are usual"
        )


def check_size(tree: Taxonomy, rows: Rows, shape: ScaleShape, settings: Settings, largest: int = LARGEST) -> int:
    """Number of deviations that `sample` would sample; known before any fit.

    Raises
    ------
    OptionError
        More than `largest`.
    """
    order, count = Order(tree, rows.nodes), 0
    for local in local_trees(tree, settings.likelihood):
        which, _ = local.rows(order)
        if not len(which):
            continue
        group = rows.group if local.above is None else rows.group[np.unique(rows.x[which].indices)]
        free = (shape.on(local.nodes).matrix(settings.first) > 0).sum(axis=1)
        count += int(free[:-1][group].sum() + free[-1])
    if count > largest:
        raise OptionError(
            f"inference='nuts' would sample {count:,} coefficients ({rows.x.shape[1]:,} features and an "
            f"intercept at {len(tree)} nodes), more than the {largest:,} it is made for: take inference='bootstrap', or "
            "fewer features"
        )
    return count


def sample(
    tree: Taxonomy,
    rows: Rows,
    shape: ScaleShape,
    settings: Settings,
    draws: int = 500,
    chains: int = 4,
    seed: int = 0,
    *,
    start: FittedTree | None = None,
    warmup: int | None = None,
    largest: int = LARGEST,
) -> TreeDraws:
    """Draws of deviations and scales from their posterior, in double precision.

    Parameters
    ----------
    tree : Taxonomy
    rows : Rows
    shape : ScaleShape
        Its `intercept` is the scale of a half-normal prior of the intercepts' scale.
    settings : Settings
        With ``scales="fixed"`` all scales are held at `first`, the intercepts' too; else they are sampled, with a
        log-normal prior about `first`.
    draws : int
        Of each chain, kept.
    chains : int
    seed : int
    start : FittedTree, optional
        The mode, about which the chains begin; None: it is found first.
    warmup : int, optional
        Of each chain; None: as many as draws, at least 300.
    largest : int
        Deviations that are sampled at most.

    Returns
    -------
    TreeDraws

    Raises
    ------
    OptionError
        More deviations than `largest`; fewer than 4 draws.
    """
    check_draws(draws)
    check_size(tree, rows, shape, settings, largest)
    density = Density(tree, rows, shape, settings, settings.scales == "fixed")
    if start is None:
        start = fit_tree(tree, rows, shape, replace(settings, scales="fixed", progress=None))
    warmup = max(draws, WARMUP) if warmup is None else warmup
    # a density for each chain: the kernel keeps its last place
    own = [density, *(Density(tree, rows, shape, settings, density.held) for _ in range(chains - 1))]
    x, stats = _chains(own, density.point(start), warmup, draws, seed, settings.threads)
    scales, intercept = density.scales_of(x)
    worst, least = _worst(density, x, stats)
    trusted, sentence = verdict(worst, least, stats)
    fitted = [density.fitted(point, rows.x.dtype) for point in x.reshape(-1, x.shape[-1])]
    return TreeDraws(fitted, np.array(scales), np.array(intercept), stats, worst, least, trusted, sentence)


def _chains(
    own: list[Density], center: Floats, warmup: int, draws: int, seed: int, threads: int
) -> tuple[Floats, dict[str, Floats]]:
    """Points (chains, draws, size) and what the sampler says of each transition."""
    root = cast(Any, sp.eye_array(len(center), format="csr"))  # whitened already; the metric is learnt

    def run(c: int) -> dict[str, Any]:
        rng = np.random.default_rng([seed, c])
        sampler = Sampler(own[c], center, root, warmup, draws, DEPTH, TARGET)
        return sampler.run(SPREAD * rng.standard_normal(len(center)), rng)

    with ThreadPoolExecutor(max(1, min(threads, len(own)))) as pool:
        try:
            found = list(pool.map(run, range(len(own))))
        except BaseException:  # Ctrl-C: the chains end at their next step
            for one in own:
                one.stopped = True
            raise
    x, stats, _ = chains_of(found, draws, TARGET)
    return x, stats


def _worst(density: Density, x: Floats, stats: dict[str, Floats]) -> tuple[float, float]:
    """Largest R-hat and least effective sample size of scales, some deviations, log posterior; NaN if they say nothing."""
    some = np.unique(np.linspace(0, density.deviations - 1, DIAGNOSED).astype(int))
    which = np.concatenate([some, np.arange(density.deviations, density.size)])
    values = np.concatenate([x[..., which], stats["lp"][..., None]], axis=-1)
    values = values[..., np.ptp(values, axis=(0, 1)) > 0]
    if x.shape[1] < LEAST or not values.size:
        return np.nan, np.nan
    worst = chain_diagnostics.r_hat(values)
    sizes = np.concatenate([chain_diagnostics.ess_bulk(values), chain_diagnostics.ess_tail(values)])
    worst, sizes = worst[~np.isnan(worst)], sizes[~np.isnan(sizes)]  # an indicator of a tail may be constant
    if not (worst.size and sizes.size):
        return np.nan, np.nan
    return float(worst.max()), float(sizes.min())


def verdict(worst: float, least: float, stats: dict[str, Floats]) -> tuple[bool, str]:
    """Whether the draws may be trusted, and one sentence on it."""
    if np.isnan(worst) or np.isnan(least):
        count = stats["energy"].shape[1]
        why = f"{count} draws of each chain are too few to judge" if count < LEAST else "the chains have not moved"
        return False, f"Do not trust these draws: {why}; take more draws."
    bfmi = float(chain_diagnostics.e_bfmi(stats["energy"]).min())
    return verdict_of_chains(worst, least, int(stats["diverging"].sum()), bfmi, "hold the scales (scales='fixed')")
