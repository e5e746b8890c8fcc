"""Weights of the mixture of chi-squares that a likelihood ratio of linear mixed models follows when several variances go.

Locally the test is one of ``theta in C`` against ``theta = 0`` for a normal estimate of the covariance parameters that go,
with the information J that is left of theirs after the others are estimated. The ratio is then a mixture of chi-squares,
whose weights are the intrinsic volumes of the cone C in the metric of J (Shapiro 1985, Biometrika 72, 133; Self & Liang
1987). In up to three dimensions two of them are shares of a sphere, by the cone and by its polar; the others follow, for
those of even and those of odd dimension have sum one half each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .covariance import FREE

if TYPE_CHECKING:
    from .design import Design, Term
    from .fit import Fit

__all__ = ["chi_bar_weights", "cone_weights"]

Array = NDArray[np.float64]

MOST_EFFECTS = 3000  # columns of the larger model's random part, whose products are dense here
ANGLES = 4096
WITHIN = 1e-8  # relative size of what a smaller model's effect may have outside the larger model's
WORST = 1e-10  # reciprocal condition of the information about the other parameters


def chi_bar_weights(small: Fit, large: Fit, cones: Sequence[int]) -> tuple[float, ...] | None:
    """Weights of chi-squares with 0, 1, ... degrees of freedom beyond those of parameters that are free.

    Parameters
    ----------
    small, large : Fit
        Of the same rows, one within the other.
    cones : sequence of int
        Sizes of the covariance matrices that are zero in the smaller model, as `nested.Step` has them.

    Returns
    -------
    tuple of float or None
        None where they are not known here: more than three parameters in the cones, a smaller model that is itself at the
        boundary, a model that is not Gaussian or has structures, rows that a file does not keep.
    """
    if sum(r * (r + 1) // 2 for r in cones) > 3 or not _plain(small, large):
        return None
    pieces = _pieces(small, large.model.design)
    if pieces is None or sorted(piece.new for piece in pieces if piece.new) != sorted(cones):
        return None
    left = _information(small, pieces)
    return None if left is None else cone_weights(left, tuple(cones))


def _plain(small: Fit, large: Fit) -> bool:
    designs = [fit.model.design for fit in (small, large)]
    size = sum(len(term.levels) * len(term.names) for term in designs[1].terms)
    return (
        not small.generalised
        and not large.generalised
        and not small.is_singular
        and size <= MOST_EFFECTS
        and all(d.y is not None and not d.known for d in designs)
        and all(fit.model.residual is None for fit in (small, large))
        and all(term.structure in FREE for d in designs for term in d.terms)
    )


# -- the larger model's random part, in coordinates of the smaller one's ----------------------------------------------


@dataclass
class Piece:
    """Effects of the larger model that covary: their columns, the smaller model's own ones first.

    Attributes
    ----------
    columns : (n, k) array
    cov : (k, k) array
        Their covariance in the smaller model.
    new : int
        How many of the last ones have no variance there.
    """

    term: Term
    columns: Array
    cov: Array
    new: int


def _pieces(small: Fit, large: Design) -> list[Piece] | None:
    """The larger model's blocks of effects; None where the smaller one's are not within them, each in one."""
    left = [
        (term, columns, cov) for t, term in enumerate(small.design.terms) for columns, cov in _blocks(small, t, term)
    ]
    left.sort(key=lambda one: -one[1].shape[1])
    blocks = [(term, z[:, own]) for term in large.terms for z in [_columns(term)] for own in _parts(term, z.shape[1])]
    held: list[list[tuple[Array, Array]]] = [[] for _ in blocks]
    for term, columns, cov in left:
        homes = [
            i
            for i, (home, z) in enumerate(blocks)
            if _same_groups(term, home) and _room(z, held[i]) >= columns.shape[1] and _inside(columns, z) is not None
        ]
        if not homes:
            return None
        best = min(homes, key=lambda i: _room(blocks[i][1], held[i]))
        held[best].append((columns, cov))
    return [_piece(term, z, inside) for (term, z), inside in zip(blocks, held, strict=True)]


def _columns(term: Term) -> Array:
    return np.ones((len(term.codes), 1)) if term.Z is None else np.asarray(term.Z, dtype=np.float64)


def _parts(term: Term, k: int) -> list[list[int]]:
    """Effects that covary."""
    return [[i] for i in range(k)] if term.structure == "diag" else [list(range(k))]


def _blocks(fit: Fit, t: int, term: Term) -> list[tuple[Array, Array]]:
    z, cov = _columns(term), fit.random_cov()[t]
    return [(z[:, own], cov[np.ix_(own, own)]) for own in _parts(term, z.shape[1])]


def _room(z: Array, inside: list[tuple[Array, Array]]) -> int:
    return int(z.shape[1] - sum(columns.shape[1] for columns, _ in inside))


def _same_groups(one: Term, other: Term) -> bool:
    """Whether two factors part the rows in the same way."""
    pairs = len(np.unique(one.codes.astype(np.int64) * len(other.levels) + other.codes))
    return pairs == len(np.unique(one.codes)) == len(np.unique(other.codes))


def _inside(columns: Array, z: Array) -> Array | None:
    """(k, m) combinations of z that make the columns; None without any."""
    made = np.linalg.lstsq(z, columns, rcond=None)[0]
    off = np.linalg.norm(columns - z @ made, axis=0)
    return np.asarray(made) if np.all(off <= WITHIN * np.linalg.norm(columns, axis=0)) else None


def _piece(term: Term, z: Array, inside: list[tuple[Array, Array]]) -> Piece:
    k = z.shape[1]
    made = [m for columns, _ in inside if (m := _inside(columns, z)) is not None]
    own = np.column_stack([np.empty((k, 0)), *made])
    held = own.shape[1]
    further = np.linalg.svd(own, full_matrices=True)[0][:, held:] if held else np.eye(k)
    further = further / np.linalg.norm(z @ further, axis=0)
    cov, at = np.zeros((k, k)), 0
    for columns, block in inside:
        size = columns.shape[1]
        cov[at : at + size, at : at + size] = block
        at += size
    return Piece(term, z @ np.column_stack([own, further]), cov, k - held)


# -- information about covariance parameters ---------------------------------------------------------------------------


def _information(small: Fit, pieces: list[Piece]) -> Array | None:
    """Expected information about the parameters that go, at the smaller fit, less what the others take of it.

    For ``V = sigma**2 R + sum(psi_a V_a)`` it is ``tr(P V_a P V_b) / 2``, with P the inverse of V, of REML less its
    projection on the fixed effects (Searle, Casella & McCulloch 1992, chapter 6). Every trace is one of products of
    ``Z'PZ``; those with R follow from ``P V P = P``.
    """
    products, free = _products(small, pieces)
    entries, values, tested = _entries(pieces)
    m, sigma2 = len(entries), small.sigma**2
    info = np.empty((m + 1, m + 1))
    for a in range(m):
        for b in range(a + 1):
            info[a, b] = info[b, a] = sum(
                float(np.sum(products[v][s].T * products[t][u])) for s, t in entries[a] for u, v in entries[b]
            )
    traces = np.array([sum(float(np.trace(products[s][t])) for s, t in pairs) for pairs in entries])
    info[m, :m] = info[:m, m] = (traces - values @ info[:m, :m]) / sigma2
    info[m, m] = ((free - values @ traces) / sigma2 - values @ info[:m, m]) / sigma2
    info /= 2
    nuisance = np.append(~tested, True)
    others = info[np.ix_(nuisance, nuisance)]
    scale = np.sqrt(np.diag(others))
    if not np.all(scale > 0) or 1 / np.linalg.cond(others / np.outer(scale, scale)) < WORST:
        return None
    across = info[np.ix_(nuisance, ~nuisance)]
    left = info[np.ix_(~nuisance, ~nuisance)] - across.T @ np.linalg.solve(others, across)
    size = np.sqrt(np.abs(np.diag(left)))
    return left if np.all(size > 0) and np.linalg.eigvalsh(left / np.outer(size, size))[0] > WORST else None


def _products(small: Fit, pieces: list[Piece]) -> tuple[list[list[Array]], float]:
    """``Z'PZ`` as matrices between levels, for every two effects; and the trace of ``P V``."""
    from scipy import sparse

    d, sigma2 = small.model.design, small.sigma**2
    root = np.ones(len(d.y)) if d.weights is None else np.sqrt(d.weights)
    parts, sizes = [], []
    for piece in pieces:
        n, levels = len(piece.term.codes), len(piece.term.levels)
        for column in piece.columns.T:
            parts.append(sparse.csr_matrix((column * root, (np.arange(n), piece.term.codes)), shape=(n, levels)))
            sizes.append(levels)
    z, x = sparse.hstack(parts, format="csr"), d.X * root[:, None]
    inner = np.asarray((z.T @ z).todense()) / sigma2
    cov = _covariance(pieces)
    whole = np.linalg.solve(np.eye(len(inner)) + inner @ cov, np.column_stack([inner, z.T @ x / sigma2]))
    made, across = whole[:, : len(inner)], whole[:, len(inner) :]
    free = float(len(d.y))
    if small.reml:
        free -= x.shape[1]
        left = x.T @ x / sigma2 - (x.T @ z / sigma2) @ cov @ across
        made = made - across @ np.linalg.solve(left, across.T)
    ends = np.concatenate([[0], np.cumsum(sizes)])
    own = [slice(int(a), int(b)) for a, b in zip(ends[:-1], ends[1:], strict=True)]
    return [[made[s, t] for t in own] for s in own], free


def _covariance(pieces: list[Piece]) -> Array:
    """(q, q) covariance of all effects in the smaller model, levels of an effect together."""
    from scipy.linalg import block_diag

    return np.asarray(block_diag(*(np.kron(piece.cov, np.eye(len(piece.term.levels))) for piece in pieces)))


def _entries(pieces: list[Piece]) -> tuple[list[list[tuple[int, int]]], Array, NDArray[np.bool_]]:
    """Covariance parameters of the larger model: pairs of effects, values in the smaller model, whether they go."""
    entries: list[list[tuple[int, int]]] = []
    values: list[float] = []
    tested: list[bool] = []
    at = 0
    for piece in pieces:
        k = len(piece.cov)
        for i in range(k):
            for j in range(i, k):
                entries.append([(at + i, at + j)] + ([(at + j, at + i)] if i != j else []))
                values.append(float(piece.cov[i, j]))
                tested.append(i >= k - piece.new)
        at += k
    return entries, np.array(values), np.array(tested)


# -- weights of a cone -------------------------------------------------------------------------------------------------


def cone_weights(information: Array, cones: tuple[int, ...]) -> tuple[float, ...]:
    """Intrinsic volumes of a cone in the metric of an information matrix.

    Parameters
    ----------
    information : (d, d) array
        d of one to three.
    cones : tuple of int
        (1,), (1, 1) and (1, 1, 1): numbers that are not negative; (2,): the entries 11, 12, 22 of a covariance matrix.

    Returns
    -------
    tuple of float
        Weights of chi-squares with 0 to d degrees of freedom.
    """
    inverse: Array = np.asarray(np.linalg.inv(information), dtype=np.float64)
    if cones == (1,):
        return 0.5, 0.5
    if cones == (1, 1):
        top = _orthant(inverse)
        return 0.5 - top, 0.5, top
    if cones == (1, 1, 1):
        top, none = _orthant(inverse), _orthant(information)
    else:
        top, none = _share(inverse, 1.0), _share(information, 0.25)
    return none, 0.5 - top, 0.5 - none, top


def _orthant(cov: Array) -> float:
    """Probability that two or three normal numbers with this covariance are all positive (Sheppard; David 1953)."""
    sd = np.sqrt(np.diag(cov))
    angles = np.arcsin(np.clip((cov / np.outer(sd, sd))[np.triu_indices(len(sd), 1)], -1, 1))
    return float(0.25 + angles[0] / (2 * np.pi) if len(sd) == 2 else 0.125 + angles.sum() / (4 * np.pi))


def _share(cov: Array, factor: float) -> float:
    """Probability that normal (a, b, c) with this covariance have ``a c >= factor b**2``, a and c positive.

    The share of the sphere that the elliptic cone covers, by its angle from a direction inside it, all around.
    """
    root = np.linalg.cholesky(cov)
    form = root.T @ np.array([[0, 0, 0.5], [0, -factor, 0], [0.5, 0, 0]]) @ root
    sd = np.sqrt(np.diag(cov))
    inside = np.linalg.solve(root, np.array([sd[0], 0.0, sd[2]]))
    axis = inside / np.linalg.norm(inside)
    around = np.linalg.svd(axis[:, None], full_matrices=True)[0][:, 1:]
    turn = 2 * np.pi * np.arange(ANGLES) / ANGLES
    rim = around @ np.stack([np.cos(turn), np.sin(turn)])
    own, cross, other = axis @ form @ axis, axis @ form @ rim, np.einsum("ij,ij->j", rim, form @ rim)
    cotangent = (-cross + np.sqrt(np.maximum(cross**2 - own * other, 0))) / own
    return float(np.mean(1 - cotangent / np.hypot(1, cotangent)) / 2)
