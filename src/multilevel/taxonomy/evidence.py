"""Scales by the evidence: MacKay's fixed point, with traces of the inverse Hessian by random probes.

With H the Hessian at the mode in whitened coordinates, the deviations of scale k have
gamma_k = sum over its entries of (1 - [H^-1]_ee) directions that the data settle, and s_k^2 <- |u_k|^2 / gamma_k
(MacKay 1992, Neural Computation 4, 415). A probe z of random signs gives z * H^-1 z, whose mean is the diagonal of H^-1
(Hutchinson 1990): one solve serves all scales.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ConvergenceWarning
from .fitting import Settings
from .problems import LocalTree, Rows, pieces
from .scales import REACH, Piece, ScaleShape, Tuned
from .tree import Taxonomy

__all__ = ["evidence_scales", "random_signs", "settled_directions"]

Floats = npt.NDArray[np.float64]
Values = npt.NDArray[Any]

STEPS = 60  # of the fixed point at most
SETTLED = 0.005  # change of log scales that ends it
STRIDE = 1.0  # log scales change by so much at a time at most
FEWEST, MOST, ENTRIES = 4, 64, 200_000  # probes: more of small problems, whose traces average over fewer entries
LEAST = 1e-3  # directions settled, at least: probes may tell none
ACCURACY, PRODUCTS = 1e-3, 200  # of each solve


def evidence_scales(
    tree: Taxonomy, locals_: list[LocalTree], rows: Rows, shape: ScaleShape, settings: Settings
) -> Tuned:
    """Scales at which the settled directions explain the deviations' squares: the evidence of a Laplace approximation.

    Biased on texts: far too small, by a factor of four to six on short ones, as the posterior of coefficients of rare words
    is far from normal. Scales by held-out rows are the default for that reason.

    Parameters
    ----------
    tree : Taxonomy
    locals_ : list of LocalTree
        The trees of the softmaxes, from `local_trees`.
    rows : Rows
    shape : ScaleShape
    settings : Settings
        `first` are the scales to begin at; `generator` draws the probes.

    Returns
    -------
    Tuned
        Within a factor 50 of the first scales; without a profile, as no rows are held out. A scale without deviations in any
        problem keeps its first value.

    References
    ----------
    MacKay (1992), Bayesian interpolation, Neural Computation 4, 415. Hutchinson (1990), Communications in Statistics:
    Simulation and Computation 19, 433.
    """
    flat = settings.likelihood == "flat"
    parts = [part.piece for part in pieces(tree, locals_, shape, rows, None, settings.threads if flat else 1)]
    probes = [random_signs(piece, settings.generator) for piece in parts]
    solutions: list[list[Values] | None] = [None] * len(parts)
    log_scales = np.log(settings.first)
    low, high = log_scales - REACH, log_scales + REACH

    def squares_and_settled(k: int) -> tuple[Floats, Floats]:
        piece, scales = parts[k], np.exp(log_scales)
        piece.minimise(scales, settings.tol * max(float(piece.fit.weight.sum()), 1.0), settings.max_iter)
        settled, solutions[k] = settled_directions(piece, scales, probes[k], solutions[k])
        return piece.shape.sums(piece.group, piece.w[:-1].astype(np.float64) ** 2), settled

    with ThreadPoolExecutor(1 if flat else settings.threads) as pool:
        for _ in range(STEPS):
            found = list(pool.map(squares_and_settled, range(len(parts))))
            squares, settled = (np.sum([one[i] for one in found], axis=0) for i in (0, 1))
            step = _step(squares, settled)
            log_scales, before = np.clip(log_scales + step, low, high), log_scales
            if np.abs(log_scales - before).max() < SETTLED:
                return Tuned(np.exp(log_scales))
    warnings.warn(
        f"the scales of scales='evidence' still change after {STEPS} steps (by {np.abs(step).max():.1%} in the last): take "
        "scales='holdout', or give them",
        ConvergenceWarning,
        stacklevel=2,
    )
    return Tuned(np.exp(log_scales))


def _step(squares: Floats, settled: Floats) -> Floats:
    """Change of the log scales: half the log of |w|^2 / gamma; none where there are no deviations."""
    # half a square more than none, so that deviations of zero shrink their scale by a stride at a time
    wanted = 0.5 * np.log(np.maximum(squares, LEAST * LEAST) / np.maximum(settled, LEAST))
    return np.where((squares == 0) & (settled == 0), 0.0, np.clip(wanted, -STRIDE, STRIDE))


def random_signs(piece: Piece, generator: np.random.Generator, count: int | None = None) -> list[Values]:
    """Probes of a problem's size: +-1 on deviations that have a scale, 0 on the intercepts and elsewhere."""
    size = piece.w.size
    count = int(np.clip(ENTRIES // max(size, 1), FEWEST, MOST)) if count is None else count
    by_group = piece.shape.cell >= 0
    used = by_group[piece.group]
    out = []
    for _ in range(count):
        probe = np.zeros_like(piece.w)
        probe[:-1] = np.where(used, 2 * generator.integers(0, 2, used.shape) - 1, 0)
        out.append(probe)
    return out


def settled_directions(
    piece: Piece, scales: Floats, probes: Sequence[Values], begin: Sequence[Values] | None = None
) -> tuple[Floats, list[Values]]:
    """gamma of each scale at the problem's mode, estimated by probes.

    Parameters
    ----------
    piece : Piece
        At its minimum for these scales.
    scales : float array (scales,)
    probes : sequence of arrays (features + 1, nodes)
        From `random_signs`. The same at all scales make the fixed point one of a smooth function.
    begin : sequence of arrays, optional
        Where the solves begin: the solutions at nearby scales.

    Returns
    -------
    settled : float array (scales,)
        Sum over the scale's deviations of 1 - [H^-1]_ee, H the Hessian in whitened coordinates.
    solutions : list of arrays (features + 1, nodes)
        H^-1 probe, of each probe.
    """
    matrix = piece.shape.matrix(scales)
    piece.fit.value(piece.w, matrix)
    solutions = [
        piece.fit.solve(probe, matrix, None if begin is None else begin[k], tolerance=ACCURACY, most=PRODUCTS)
        for k, probe in enumerate(probes)
    ]
    # z * z is one, so that entries the data say nothing of (their solution is the probe) add exactly nothing
    entries = [np.asarray(z * (z - x), dtype=np.float64)[:-1] for z, x in zip(probes, solutions, strict=True)]
    settled = np.mean([piece.shape.sums(piece.group, one) for one in entries], axis=0)
    return np.asarray(settled), solutions
