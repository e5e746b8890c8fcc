"""No pooling: coefficients of each group's own, beside those that all groups share, without any distribution over groups.

It is the regression with a dummy of each group, interacted with the terms that vary: one model with one residual variance (of
other families the dispersion that it is given). Groups are eliminated one by one, so that their number costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .design import Design
    from .families import Family

__all__ = ["Own", "density_of", "own_coefficients"]

Array = NDArray[np.float64]
Density = Callable[[Array], tuple[Array, Array, Array]]

RANK = 1e-9  # of the eigenvalues of scaled cross-products: below it columns coincide
STEPS = 100  # of Newton's method
SETTLED = 1e-11  # gain in log-likelihood, relative, that is none
ENDLESS = 1e4  # times the variance at the start: an estimate that runs off to infinity
SPAN = 1e-8  # squared part of a row that the data do not determine, relative: rounding
TURNED = 1e-2  # part of a row along an endless direction that counts


@dataclass(frozen=True)
class Own:
    """Coefficients without pooling, in coordinates that the rows determine.

    Attributes
    ----------
    values : (J, k) array
        Coefficients of each group on the columns Z that vary; where its rows do not determine them, some that fit.
    common : (c,) array
        Coefficients shared by all groups.
    cov : (J, k, k) array
        Covariance of a group's coefficients in its own coordinates, for a residual variance of one.
    cross : (J, k, r) array
        With the shared ones.
    common_cov : (r, r) array
    turn, basis : (k, k), (J, k, k) arrays
        A row z of a group has the coordinates ``z @ turn @ basis[j]``, zero for what the group's rows do not determine.
    common_turn, common_basis : (c,), (c, r) arrays
        A row x of shared columns has ``x * common_turn @ common_basis``; zero for columns that the groups' own take in.
    endless : (J, k, k) array
        Columns are directions (in a group's coordinates) along which the likelihood rises for ever, as where all outcomes of
        the group are alike; zero without any.
    rank : int
        Coefficients determined.
    loglik : float
        At the estimates; of the Gaussian family minus half the weighted sum of squares.
    """

    values: Array
    common: Array
    cov: Array
    cross: Array
    common_cov: Array
    turn: Array
    basis: Array
    common_turn: Array
    common_basis: Array
    endless: Array
    rank: int
    loglik: float

    def at(self, codes: NDArray[Any], z: Array, x: Array) -> tuple[Array, Array, NDArray[np.int_]]:
        """Linear predictors of rows, their variances and whether they are determined.

        Parameters
        ----------
        codes : (m,) array
            Groups, none below zero.
        z : (m, k) array
        x : (m, c) array

        Returns
        -------
        estimate, variance : (m,) arrays
            Variances for a residual variance of one; NaN where not determined.
        state : (m,) array
            0 determined, 1 not by the group's rows, 2 runs to infinity.
        """
        estimate = np.einsum("ij,ij->i", z, self.values[codes]) + x @ self.common
        turned, shared = z @ self.turn, x * self.common_turn
        own, rest = np.einsum("ij,ijk->ik", turned, self.basis[codes]), shared @ self.common_basis
        variance = np.einsum("ij,ijk,ik->i", own, self.cov[codes], own)
        variance += 2 * np.einsum("ij,ijk,ik->i", own, self.cross[codes], rest)
        variance += np.einsum("ij,jk,ik->i", rest, self.common_cov, rest)
        state = np.zeros(len(codes), dtype=np.int_)
        state[_longer(turned, own) | _longer(shared, rest)] = 1
        lost = np.abs(np.einsum("ij,ijk->ik", own, self.endless[codes])).max(axis=1, initial=0.0)
        state[(state == 0) & (lost > TURNED * np.linalg.norm(own, axis=1))] = 2
        estimate[state > 0] = variance[state > 0] = np.nan
        return estimate, np.maximum(variance, 0.0), state


def _longer(rows: Array, inside: Array) -> NDArray[np.bool_]:
    """Whether rows reach beyond their part in the coordinates that are determined."""
    whole = (rows**2).sum(axis=1)
    return np.asarray(whole - (inside**2).sum(axis=1) > SPAN * whole)


def density_of(design: Design, family: Family | None, first: Array, second: Array) -> Density:
    """Weighted log densities of the rows at linear predictors, their slopes and (positive) curvatures.

    Parameters
    ----------
    first, second : (n,) arrays
        Further parameters of the rows (dispersion, extra zeros, thresholds), which are held.
    """
    from . import _core

    weights = np.ones(len(design.y)) if design.weights is None else design.weights
    offset = np.zeros(len(design.y)) if design.offset is None else design.offset
    if family is None:

        def gaussian(eta: Array) -> tuple[Array, Array, Array]:
            left = design.y - offset - eta
            return -0.5 * weights * left**2, weights * left, weights

        return gaussian

    kernel = family.kernel

    def general(eta: Array) -> tuple[Array, Array, Array]:
        with np.errstate(all="ignore"):
            found = np.asarray(_core.log_densities(kernel, design.y, design.trials, offset + eta, first, second)[0])
        return weights * found[:, 0], weights * found[:, 1], weights * np.abs(found[:, 2])

    return general


def own_coefficients(Z: Array, X: Array, codes: NDArray[np.int32], J: int, density: Density, start: Array) -> Own:
    """Maximum likelihood of each group's coefficients and the shared ones.

    Parameters
    ----------
    Z : (n, k) array
        Columns with a coefficient for each group.
    X : (n, c) array
        Columns with one for all.
    codes : (n,) array
    J : int
        Groups.
    density : callable
        Of linear predictors, as `density_of`.
    start : (n,) array
        Linear predictors to start near.
    """
    turn = _scaling(Z)
    basis, rank = _basis(_gram(Z @ turn, np.ones(len(Z)), codes, J))
    rows = np.einsum("ij,ijk->ik", Z @ turn, basis[codes])
    common_turn, common_basis = _common_basis(rows, X, codes, J)
    shared = X * common_turn @ common_basis
    a, g, value, now, first = _newton(rows, shared, codes, J, density, start)
    inverse = _inverse(now[0])
    common_cov, pulled = _schur(now, inverse)
    return Own(
        values=np.einsum("ab,jbc,jc->ja", turn, basis, a),
        common=common_turn * (common_basis @ g),
        cov=inverse + np.einsum("jab,bc,jdc->jad", pulled, common_cov, pulled),
        cross=-pulled @ common_cov,
        common_cov=common_cov,
        turn=turn,
        basis=basis,
        common_turn=common_turn,
        common_basis=common_basis,
        endless=_endless(now[0], first[0]),
        rank=int(rank.sum()) + common_basis.shape[1],
        loglik=value,
    )


def _size(X: Array) -> Array:
    size = np.sqrt(np.einsum("ij,ij->j", X, X) / max(len(X), 1))
    size[size == 0] = 1.0
    return np.asarray(size)


def _scaling(Z: Array) -> Array:
    """(k, k) matrix that scales the columns, and centres them where one is constant."""
    k = Z.shape[1]
    turn = np.eye(k)
    constant = next((i for i in range(k) if (Z[:, i] == Z[0, i]).all() and Z[0, i] != 0), None)
    if constant is not None:
        for i in (i for i in range(k) if i != constant):
            turn[constant, i] = -Z[:, i].mean() / Z[0, constant]
    return np.asarray(turn / _size(Z @ turn))


def _gram(Z: Array, w: Array, codes: NDArray[np.int32], J: int) -> Array:
    k = Z.shape[1]
    out = np.empty((J, k, k))
    for a in range(k):
        for b in range(a, k):
            out[:, a, b] = out[:, b, a] = np.bincount(codes, w * Z[:, a] * Z[:, b], J)
    return out


def _basis(gram: Array) -> tuple[Array, NDArray[np.int_]]:
    """(J, k, k) orthonormal directions that each group's rows determine, zero for the others; (J,) their number."""
    values, vectors = np.linalg.eigh(gram)
    kept = values > RANK * np.maximum(values[:, -1:], 1e-300)
    return vectors * kept[:, None, :], kept.sum(axis=1)


def _common_basis(rows: Array, X: Array, codes: NDArray[np.int32], J: int) -> tuple[Array, Array]:
    """(c,) scales and (c, r) directions of the shared columns that are not the groups' own."""
    size = _size(X)
    inverse = _inverse(_gram(rows, np.ones(len(rows)), codes, J))
    left = X / size - np.einsum("ij,ijc->ic", rows, (inverse @ _sums(rows, X / size, codes, J))[codes])
    length = np.sqrt(np.einsum("ij,ij->j", left, left) / len(left))
    used = np.flatnonzero(length > np.sqrt(SPAN))
    _, s, vt = np.linalg.svd(left[:, used] / length[used], full_matrices=False)
    rank = int((s > np.sqrt(RANK) * s[0]).sum()) if len(s) else 0
    out, turn = np.zeros((X.shape[1], rank)), np.zeros(X.shape[1])
    out[used], turn[used] = vt[:rank].T, 1 / (size[used] * length[used])
    return turn, out


def _sums(rows: Array, X: Array, codes: NDArray[np.int32], J: int) -> Array:
    """(J, k, c) cross-products by group."""
    out = np.empty((J, rows.shape[1], X.shape[1]))
    for a in range(rows.shape[1]):
        for c in range(X.shape[1]):
            out[:, a, c] = np.bincount(codes, rows[:, a] * X[:, c], J)
    return out


def _inverse(gram: Array) -> Array:
    """Inverses, none along directions without information."""
    values, vectors = np.linalg.eigh(gram)
    inverse = np.where(values > 1e-13 * np.maximum(values[:, -1:], 1e-300), 1 / np.maximum(values, 1e-300), 0.0)
    return np.asarray((vectors * inverse[:, None, :]) @ np.swapaxes(vectors, 1, 2))


Information = tuple[Array, Array, Array]


def _information(rows: Array, X: Array, codes: NDArray[np.int32], J: int, w: Array) -> Information:
    return _gram(rows, w, codes, J), _sums(rows, X * w[:, None], codes, J), np.asarray((X * w[:, None]).T @ X)


def _schur(information: Information, inverse: Array) -> tuple[Array, Array]:
    """(c, c) covariance of the shared coefficients, and (J, k, c) what they move the groups' own by (less the sign)."""
    _, B, C = information
    pulled = inverse @ B
    S = C - np.einsum("jka,jkb->ab", B, pulled)
    return (np.linalg.pinv(S, rcond=1e-13, hermitian=True) if len(S) else S), pulled


def _newton(
    rows: Array, X: Array, codes: NDArray[np.int32], J: int, density: Density, start: Array
) -> tuple[Array, Array, float, Information, Information]:
    """Coefficients on the given columns, log-likelihood, and the information at the end and at the start."""
    k, c = rows.shape[1], X.shape[1]
    _, _, w = density(start)
    first = _information(rows, X, codes, J, np.where(np.isfinite(w), w, 1.0))
    a, g = _nearest(rows, X, codes, J, start)

    def eta(a: Array, g: Array) -> Array:
        return np.asarray(np.einsum("ij,ij->i", rows, a[codes]) + X @ g)

    value, score, w = density(eta(a, g))
    for _ in range(STEPS):
        now = _information(rows, X, codes, J, w)
        inverse = _inverse(now[0])
        slope = np.stack([np.bincount(codes, rows[:, i] * score, J) for i in range(k)], axis=1)
        schur, pulled = _schur(now, inverse)
        dg = schur @ (X.T @ score - np.einsum("jkc,jk->c", pulled, slope))
        da = np.einsum("jab,jb->ja", inverse, slope) - pulled @ dg
        before = np.bincount(codes, value, J)
        length = np.ones(J)
        for _ in range(40):
            new_a, new_g = a + length[:, None] * da, g + length[0] * dg
            new = density(eta(new_a, new_g))
            after = np.bincount(codes, np.where(np.isfinite(new[0]), new[0], -np.inf), J)
            if c:
                worse = np.full(J, not after.sum() >= before.sum() - 1e-12 * abs(before.sum()))
            else:
                worse = ~(after >= before - 1e-12 * np.abs(before))
            if not worse.any():
                break
            length[worse] /= 2
        else:
            break
        a, g, (value, score, w) = new_a, new_g, new
        if after.sum() - before.sum() <= SETTLED * (abs(after.sum()) + 1e-3):
            break
    return a, g, float(value.sum()), _information(rows, X, codes, J, w), first


def _nearest(rows: Array, X: Array, codes: NDArray[np.int32], J: int, start: Array) -> tuple[Array, Array]:
    """Coefficients whose linear predictors lie nearest to the start."""
    information = _information(rows, X, codes, J, np.ones(len(rows)))
    inverse = _inverse(information[0])
    slope = np.stack([np.bincount(codes, rows[:, i] * start, J) for i in range(rows.shape[1])], axis=1)
    schur, pulled = _schur(information, inverse)
    g = schur @ (X.T @ start - np.einsum("jkc,jk->c", pulled, slope))
    return np.einsum("jab,jb->ja", inverse, slope) - pulled @ g, g


def _endless(now: Array, first: Array) -> Array:
    """(J, k, k) directions that have lost nearly all of their information, of length one; zero in place of others."""
    values, vectors = np.linalg.eigh(first)
    good = values > 1e-13 * np.maximum(values[:, -1:], 1e-300)
    root = vectors * np.where(good, 1 / np.sqrt(np.maximum(values, 1e-300)), 0.0)[:, None, :]
    left, turned = np.linalg.eigh(np.swapaxes(root, 1, 2) @ now @ root)
    moved = root @ (turned * (left < 1 / ENDLESS)[:, None, :])  # a direction without any information has length zero
    size = np.linalg.norm(moved, axis=1, keepdims=True)
    return np.asarray(moved / np.where(size > 0, size, 1.0))
