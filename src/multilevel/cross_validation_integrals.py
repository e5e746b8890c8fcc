"""Integrals of densities over a normal linear predictor, and scores of predictive distributions.

``log_score`` is the log of the predictive density at what was observed, more is better; the continuous ranked probability
score (Gneiting & Raftery 2007, J. Am. Stat. Assoc. 102, 359) is on the scale of the response, less is better.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .quadrature import rule

__all__ = [
    "joint_log_score", "normal_crps", "normal_joint", "normal_log_score", "normal_rank", "row_log_scores", "sample_crps",
    "sample_ranks",
]  # fmt: skip

Array = NDArray[np.float64]
Density = Callable[[Array], Array]  # (..., m) linear predictors -> (..., m) log densities

NODES = 41  # of a row's integral
GRID = {1: 41, 2: 25}  # nodes per direction of a joint integral
DRAWS = 4096  # of a joint integral over more directions
DF = 8.0  # of the multivariate t that these come from: heavier tails than the integrand's
STEP = 1e-3
HALF_LOG_2PI = 0.5 * float(np.log(2 * np.pi))


def normal_log_score(y: Array, mean: Array, sd: Array) -> Array:
    """(n,) log densities of normal predictions."""
    z = (y - mean) / sd
    return np.asarray(-0.5 * z * z - np.log(sd) - HALF_LOG_2PI)


def normal_crps(y: Array, mean: Array, sd: Array) -> Array:
    """(n,) scores of normal predictions (Gneiting, Raftery, Westveld & Goldman 2005, Mon. Weather Rev. 133, eq. 5)."""
    from scipy.special import ndtr

    z = (y - mean) / sd
    density = np.exp(-0.5 * z * z - HALF_LOG_2PI)
    return np.asarray(sd * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / np.sqrt(np.pi)))


def normal_joint(y: Array, mean: Array, cov: Array) -> float:
    """Log density of (m,) responses under a normal distribution with covariance (m, m)."""
    from scipy.linalg import solve_triangular

    root = np.linalg.cholesky(cov)
    z = solve_triangular(root, y - mean, lower=True)
    return float(-0.5 * z @ z - np.log(np.diag(root)).sum() - len(y) * HALF_LOG_2PI)


def sample_crps(y: Array, draws: Array) -> Array:
    """(m,) scores of (draws, m) predictive draws: ``E|Y - y| - E|Y - Y'| / 2``, the latter over pairs of different draws."""
    k = len(draws)
    ordered = np.sort(draws, axis=0)
    weights = 2.0 * np.arange(1, k + 1) - k - 1
    apart = 2.0 * (weights @ ordered) / (k * (k - 1))
    return np.asarray(np.abs(draws - y).mean(axis=0) - apart / 2)


def normal_rank(y: Array, mean: Array, sd: Array) -> Array:
    """(n,) probabilities of less than what was observed under normal predictions."""
    from scipy.special import ndtr

    return np.asarray(ndtr((y - mean) / sd))


def sample_ranks(y: Array, draws: Array) -> tuple[Array, Array]:
    """(m,) shares of (draws, m) predictive draws below what was observed, and not above it."""
    return (draws < y).mean(axis=0), (draws <= y).mean(axis=0)


# -- densities over a normal linear predictor -------------------------------------------------------------------------


def row_log_scores(density: Density, mean: Array, sd: Array) -> Array:
    """(m,) ``log E exp(density(eta))``, each with ``eta ~ N(mean, sd**2)``, by adaptive Gauss-Hermite quadrature."""
    z = _row_modes(density, mean, sd)
    curvature = 1 + np.maximum(-_bent(density, mean + sd * z, sd)[2], 0)
    at, log_weights = rule(NODES)
    nodes = z + at[:, None] / np.sqrt(curvature)
    terms = density(mean + sd * nodes) - nodes**2 / 2 + at[:, None] ** 2 / 2 + log_weights[:, None]
    return np.asarray(_log_sum(terms) - 0.5 * np.log(curvature))


def _row_modes(density: Density, mean: Array, sd: Array) -> Array:
    """(m,) modes of the rows' integrands in standardised predictors: Newton's steps, halved where they do not climb."""
    z, reach = np.zeros(len(mean)), np.full(len(mean), 2.0)
    for _ in range(100):
        value, slope, bend = _bent(density, mean + sd * z, sd)
        step = np.clip((slope - z) / (1 + np.maximum(-bend, 0)), -reach, reach)
        new = z + step
        better = density(mean + sd * new) - new**2 / 2 >= value - z**2 / 2
        z, reach = np.where(better, new, z), np.where(better, reach, np.abs(step) / 2)
        if np.abs(step).max(initial=0) < 1e-6:
            break
    return z


def _bent(density: Density, eta: Array, sd: Array) -> tuple[Array, Array, Array]:
    """Log densities with their first and second derivatives by the standardised predictor."""
    low, value, high = density(np.stack([eta - STEP, eta, eta + STEP]))
    return value, sd * (high - low) / (2 * STEP), sd**2 * (high - 2 * value + low) / STEP**2


def joint_log_score(density: Density, mean: Array, cov: Array, rng: np.random.Generator) -> float:
    """``log E exp(sum(density(eta)))`` for predictors ``eta ~ N(mean, cov)`` of rows whose group is not known.

    The predictors vary in as many directions as cov has rank. Along one or two the integral is a product of adaptive
    Gauss-Hermite rules; along more it is by importance sampling from a multivariate t at the integrand's mode, with its
    curvature.
    """
    values, vectors = np.linalg.eigh(cov)
    some = values > 1e-12 * max(float(values[-1]), 0.0)
    A = vectors[:, some] * np.sqrt(values[some])
    if not A.shape[1]:
        return float(density(mean).sum())
    z, hessian = _mode(density, mean, A)
    root = np.linalg.inv(np.linalg.cholesky(hessian)).T  # columns: unit steps of the integrand
    r = len(z)
    if r in GRID:
        at, weights = rule(GRID[r])
        nodes = np.stack(np.meshgrid(*[at] * r, indexing="ij"), axis=-1).reshape(-1, r)
        log_weights = np.sum(np.meshgrid(*[weights] * r, indexing="ij"), axis=0).ravel()
        base = log_weights + 0.5 * np.einsum("ij,ij->i", nodes, nodes)
    else:
        nodes, log_density = _student_nodes(r, rng)
        base = -log_density - np.log(DRAWS) - r * HALF_LOG_2PI
    points = z + nodes @ root.T
    terms = base + _sums(density, mean, A, points) - 0.5 * np.einsum("ij,ij->i", points, points)
    return float(_log_sum(terms) + np.log(np.abs(np.diag(root))).sum())


def _student_nodes(r: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """(DRAWS, r) draws of a multivariate t, in pairs of opposite ones, and the logs of their density."""
    from scipy.special import gammaln

    half = rng.standard_normal((DRAWS // 2, r)) * np.sqrt(DF / rng.chisquare(DF, (DRAWS // 2, 1)))
    nodes = np.concatenate([half, -half])
    size = np.einsum("ij,ij->i", nodes, nodes)
    constant = float(gammaln((DF + r) / 2) - gammaln(DF / 2) - 0.5 * r * np.log(DF * np.pi))
    return nodes, constant - 0.5 * (DF + r) * np.log1p(size / DF)


def _sums(density: Density, mean: Array, A: Array, points: Array) -> Array:
    """(k,) joint log densities at points (k, r), some at a time."""
    size = max(1, 500_000 // max(len(mean), 1))
    parts = [density(mean + points[at : at + size] @ A.T).sum(axis=1) for at in range(0, len(points), size)]
    return np.concatenate(parts)


def _mode(density: Density, mean: Array, A: Array) -> tuple[Array, Array]:
    """Mode of the joint density times the standard normal one in the coordinates of A, and the curvature there."""
    z, ones = np.zeros(A.shape[1]), np.ones(len(mean))
    best = float(density(mean).sum())
    hessian = np.eye(len(z))
    for _ in range(100):
        _, slope, bend = _bent(density, mean + A @ z, ones)
        hessian = np.eye(len(z)) + (A * np.maximum(-bend, 0.0)[:, None]).T @ A
        step = np.linalg.solve(hessian, A.T @ slope - z)
        for _ in range(30):  # halved until it climbs
            new = float(density(mean + A @ (z + step)).sum() - 0.5 * (z + step) @ (z + step))
            if new >= best - 1e-9 * max(1.0, abs(best)):
                break
            step = step / 2
        z, best = z + step, new
        if np.abs(step).max() < 1e-6:
            break
    return z, hessian


def _log_sum(terms: Array) -> Array:
    """Log of the sum of exponentials along the first axis."""
    from scipy.special import logsumexp

    return np.asarray(logsumexp(terms, axis=0))
