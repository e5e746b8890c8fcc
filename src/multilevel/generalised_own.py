"""A group's own coefficients in a generalised model, by maximum likelihood on its rows alone; how far pooling moves them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import pooling_lines
from .pooling_lines import Shrinkage

if TYPE_CHECKING:
    from .generalised import GeneralisedFit

__all__ = ["own_fits", "own_line", "shrinkage"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]

STEPS = 60  # of Newton's method for a group's own fit
SETTLED = 1e-10  # gain in log-likelihood of one more step that is none
ENDLESS = 1e4  # times the variance that the model's fit gives an estimate: it runs off to infinity


def own_fits(
    fit: GeneralisedFit, rows: NDArray[Any], Z: Array, codes: NDArray[Any], J: int, fixed: Array, start: Array
) -> tuple[Array, Array, Array]:
    """Maximum likelihood of each level's own coefficients, the dispersion, extra zeros and thresholds being the model's.

    Newton's method for all levels at once, steps halved where the likelihood falls.

    Parameters
    ----------
    rows : (m,) positions among the rows used
    Z : (m, k) array
    codes : (m,) array
    J : int
        Levels.
    fixed : (m,) array
        What the linear predictor has besides ``Z @ coefficients``.
    start : (J, k) array

    Returns
    -------
    coefficients : (J, k) array
    information, first_information : (J, k, k) arrays
        At these and at the start; coefficients that run to infinity have lost theirs.
    """
    at = np.array(start, dtype=np.float64)
    value, slope, information = _likelihood(fit, rows, Z, codes, J, fixed, at)
    first = information
    moving = np.isfinite(value)
    for _ in range(STEPS):
        step = _solve(information, slope)
        moving = moving & (np.einsum("jk,jk->j", slope, step) > SETTLED)
        if not moving.any():
            break
        length = np.where(moving, 1.0, 0.0)
        for _ in range(30):
            new = at + length[:, None] * step
            after = _likelihood(fit, rows, Z, codes, J, fixed, new)
            worse = np.flatnonzero(~(after[0] >= value - 1e-12 * np.abs(value)) & (length > 0))
            if not len(worse):
                break
            length[worse] /= 2
        at, (value, slope, information) = new, after
    at[np.flatnonzero(~np.isfinite(value))] = np.nan
    return at, information, first


def _likelihood(
    fit: GeneralisedFit, rows: NDArray[Any], Z: Array, codes: NDArray[Any], J: int, fixed: Array, at: Array
) -> tuple[Array, Array, Array]:
    """(J,) log-likelihoods, (J, k) slopes, (J, k, k) information, kept positive."""
    from . import _core

    d = fit.rows_of_data()
    first, second = (one[rows] for one in fit._parameters)
    eta = fixed + np.einsum("ij,ij->i", Z, at[codes])
    trials = None if d.trials is None else d.trials[rows]
    with np.errstate(all="ignore"):
        by_eta = np.asarray(_core.log_densities(fit.family.kernel, d.y[rows], trials, eta, first, second)[0])
    weights = np.ones(len(rows)) if d.weights is None else d.weights[rows]
    value, score, w = (weights * part for part in (by_eta[:, 0], by_eta[:, 1], np.abs(by_eta[:, 2])))
    k = Z.shape[1]
    slope, information = np.empty((J, k)), np.empty((J, k, k))
    for a in range(k):
        slope[:, a] = np.bincount(codes, Z[:, a] * score, J)
        for b in range(a, k):
            information[:, a, b] = information[:, b, a] = np.bincount(codes, Z[:, a] * Z[:, b] * w, J)
    return np.asarray(np.bincount(codes, value, J), dtype=np.float64), slope, information


def _solve(information: Array, slope: Array) -> Array:
    """Newton steps; along directions without information none."""
    good: NDArray[np.bool_] = np.asarray(np.isfinite(information).all(axis=(1, 2)) & np.isfinite(slope).all(axis=1))
    safe = np.where(good[:, None, None], information, np.eye(slope.shape[1]))
    values, vectors = np.linalg.eigh(safe)
    inverse = np.where(values > 1e-12 * values[:, -1:], 1 / np.maximum(values, 1e-300), 0.0)
    turned = np.einsum("jab,ja->jb", vectors, np.where(good[:, None], slope, 0.0))
    return np.asarray(np.einsum("jab,jb->ja", vectors, inverse * turned))


def _variances(information: Array, new: Array) -> Array:
    """(m,) variances of new @ coefficients; infinite without information."""
    values, vectors = np.linalg.eigh(information)
    turned = (new @ vectors) ** 2
    with np.errstate(divide="ignore"):
        return np.asarray((turned / np.maximum(values, 1e-300)[..., None, :]).sum(axis=-1))


def own_line(fit: GeneralisedFit, rows: Index, W: Array, new: Array) -> Array:
    """Linear predictors of one group's own fit at new rows; NaN where its rows do not determine a finite one."""
    d = fit.rows_of_data()
    out = np.full(len(new), np.nan)
    size = np.sqrt(np.einsum("ij,ij->j", W, W))
    size[size == 0] = 1.0
    U, s, Vt = np.linalg.svd(W / size, full_matrices=False)
    rank = int((s > 1e-9 * s[0]).sum()) if len(s) else 0
    trials = d.trials is not None and fit.family.name != "ordinal" and bool((d.trials[rows] > 1).all())
    if rank == 0 or (rank > 1 and len(W) <= rank and not (trials and len(W) == rank)):
        return out
    fixed = np.zeros(len(rows)) if d.offset is None else d.offset[rows]
    start = U[:, :rank].T @ (fit._eta[1][rows] - fixed)
    codes = np.zeros(len(rows), dtype=np.int64)
    found, last, first = own_fits(fit, rows, np.ascontiguousarray(U[:, :rank]), codes, 1, fixed, start[None, :])
    if not np.isfinite(found).all():
        return out
    scaled, V = new / size, Vt[:rank].T
    turned = scaled @ V / s[:rank]
    spanned = np.linalg.norm(scaled - scaled @ V @ V.T, axis=1) <= 1e-7 * np.linalg.norm(scaled, axis=1)
    inside = np.flatnonzero(spanned & (_variances(last[0], turned) < ENDLESS * _variances(first[0], turned)))
    out[inside] = turned[inside] @ found[0]
    return out


def shrinkage(fit: GeneralisedFit, group: Any) -> Shrinkage:
    """Coefficients that vary by group, on the scale of the link: each level alone, and partially pooled."""
    from scipy.linalg import block_diag

    design = fit.rows_of_data()
    group = pooling_lines._chosen_group(design, group)
    index = [t for t, term in enumerate(design.terms) if term.group == group]
    terms = [design.terms[t] for t in index]
    codes, levels = terms[0].codes, terms[0].levels
    Z = np.hstack([np.ones((len(design.y), 1)) if term.Z is None else term.Z for term in terms])
    population, inside = pooling_lines._population(Z, design.X, fit.optimum.beta)
    partial = population + np.hstack([fit.optimum.b[t] for t in index])
    rest = fit._eta[1] - np.einsum("ij,ij->i", Z, partial[codes])
    return Shrinkage(
        group=group,
        names=tuple(name for term in terms for name in term.names),
        levels=levels,
        sizes=np.bincount(codes, minlength=len(levels)),
        own=_by_level(fit, Z, codes, rest, partial),
        partial=partial,
        population=population,
        cov=np.asarray(block_diag(*(fit.random_cov()[t] for t in index))),
        fixed=tuple(name for name, kept in zip(design.names, inside, strict=True) if not kept),
        groups=tuple(one for one in pooling_lines.group_names(design) if one != group),
        lost="no finite estimate alone (too few rows, or all outcomes alike)",
    )


def _by_level(fit: GeneralisedFit, Z: Array, codes: NDArray[np.int32], rest: Array, start: Array) -> Array:
    """Own coefficients of every level at once; NaN where rows are too few, columns coincide or they run to infinity."""
    J, k = start.shape
    size = np.sqrt(np.einsum("ij,ij->j", Z, Z) / len(Z))
    size[size == 0] = 1.0
    every = np.arange(len(Z))
    found, last, first = own_fits(fit, every, Z / size, codes, J, rest, start * size)
    values = np.linalg.eigvalsh(first)
    good = (values[:, 0] > 1e-9 * values[:, -1]) & (np.bincount(codes, minlength=J) > (k if k > 1 else 0))
    unit = np.broadcast_to(np.eye(k), (J, k, k))
    good &= (_variances(last, unit) < ENDLESS * _variances(first, unit)).all(axis=1)
    found[~good] = np.nan
    return np.asarray(found / size)
