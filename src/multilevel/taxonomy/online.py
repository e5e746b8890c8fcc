"""Learning from rows in portions, without keeping them.

Of the rows learnt from, a classifier keeps the curvature of their log-likelihood, its diagonal by feature and leaf:
d[j, k] = sum over rows of w x_j^2 p_k (1 - p_k), at the mode when the rows came. The objective of further rows is

    -sum of w log P(label) + |(u - m) / s|^2 / 2 + sum of d[j, k] (B[j, k] - M[j, k])^2 / 2,

m the last mode's deviations, M its leaves' coefficients (sums of m along the paths), B those of u: the quadratic
expansion of the old objective about its minimum, exact in the tree prior and diagonal in the likelihood. What it neglects
are products of different features and of different leaves (online Laplace approximation: Opper and Winther 1998, A
Bayesian approach to on-line learning; with a diagonal: Ritter, Botev and Barber 2018).

A feature that the new rows lack does not move, so that a step costs what its rows cost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from .fitting import FittedTree
from .objective import Objective, leaf_coefficients, leaf_probabilities
from .problems import LocalTree, Order, Rows, columns_of, local_trees
from .reshape import is_sparse
from .tree import Taxonomy

__all__ = ["Effort", "Seen", "added", "block", "curvature", "learn", "seen_rows", "together"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]
BLOCK = 2048  # rows whose probabilities are held at a time


@dataclass(frozen=True)
class Seen:
    """What is kept of the rows a classifier has learnt from.

    Attributes
    ----------
    curvature : array (features + 1, leaves), or csr_array (features + 1, nodes) of nested softmaxes
        Diagonal of the Hessian of -log-likelihood by the coefficients; the last row is the intercepts'.
    sums, squares : csr_array (nodes, features)
        Weighted sums of the rows labelled with each node, and of their squares.
    """

    curvature: Any
    sums: Any
    squares: Any


@dataclass(frozen=True)
class Effort:
    """Evaluations at most, tolerance per unit of weight, threads."""

    max_iter: int
    tol: float
    threads: int


def seen_rows(fitted: FittedTree, rows: Rows, threads: int) -> Seen:
    """What to keep of the rows of a fit."""
    return Seen(_curvatures(fitted, rows, threads), *_sums(fitted.tree, rows))


def learn(fitted: FittedTree, seen: Seen, rows: Rows, effort: Effort, linear: Any = None) -> tuple[FittedTree, Seen]:
    """The mode after further rows, and what is kept then.

    Parameters
    ----------
    fitted : FittedTree
    seen : Seen
    rows : Rows
    effort : Effort
    linear : array or csr_array (features + 1, nodes), optional
        Slope of the old objective by the deviations where it is not at its minimum: at nodes that are new.
    """
    change: list[Any] = []
    converged, evaluations = True, 0
    deviations, curved = _by_column(fitted.deviations), _by_column(seen.curvature)
    for local, features, own in _parts(fitted.tree, fitted.likelihood, rows):
        at = np.concatenate([features, [rows.x.shape[1]]])
        begin = block(deviations, at, local.nodes)
        scale = _scale(fitted, local, own.group)
        held = block(curved, at, _columns(fitted, local)).astype(np.float64)
        slope = None if linear is None else block(linear, at, local.nodes).astype(np.float64)
        found, count, good = _step(local.tree, own, begin, scale, held, slope, effort)
        change.append((at, local.nodes, found - begin))
        converged, evaluations = converged and good, evaluations + count
    end = added(fitted.deviations, change)
    moved = replace(fitted, deviations=end, evaluations=evaluations, converged=converged, _leaf_coefficients=None)
    further = seen_rows(moved, rows, effort.threads)
    return moved, together(seen, further)


def together(one: Seen, other: Seen) -> Seen:
    sums, squares = one.sums + other.sums, one.squares + other.squares
    return Seen(one.curvature + other.curvature, sp.csr_array(sums), sp.csr_array(squares))


def _step(
    tree: Taxonomy, rows: Rows, begin: Any, scale: Floats, held: Floats, slope: Floats | None, effort: Effort
) -> tuple[Any, int, bool]:
    """The mode from `begin` (features + 1, nodes): deviations, evaluations, whether converged.

    scale (features + 1, nodes): 0 where a deviation is fixed; held (features + 1, leaves).
    """
    from scipy.optimize import minimize

    objective = Objective(tree, rows.x, rows.nodes, rows.weight, None, rows.offset, effort.threads)
    ones = np.ones((2, len(tree)))
    free = scale > 0
    precision = np.divide(1.0, scale**2, out=np.zeros_like(scale), where=free)
    slope = np.zeros_like(scale) if slope is None else slope
    total = precision + tree.sums(held)
    whiten = np.divide(1.0, np.sqrt(total), out=np.zeros_like(total), where=free)

    def value(z: Floats) -> tuple[float, Floats]:
        d = whiten * z.reshape(scale.shape)
        loss, gradient = objective.gradient((begin + d).astype(begin.dtype), ones, prior=False)
        leaf = leaf_coefficients(tree, d)
        pull = held * leaf
        loss += float(np.sum((0.5 * precision * d + slope) * d) + 0.5 * np.sum(pull * leaf))
        return loss, (whiten * (gradient + precision * d + slope + tree.sums(pull))).ravel()

    single = begin.dtype == np.float32
    first = value(np.zeros(scale.size))[0]
    smallest = max(0.01 * effort.tol * float(rows.weight.sum()) / max(abs(first), 1.0), 1e-8 if single else 1e-13)
    options: Any = {"maxiter": effort.max_iter, "maxfun": 2 * effort.max_iter, "ftol": smallest}
    options["gtol"] = 1e-4 if single else 1e-7
    found = minimize(value, np.zeros(scale.size), jac=True, method="L-BFGS-B", options=options)
    end = (begin + whiten * found.x.reshape(scale.shape)).astype(begin.dtype)
    return end, int(found.nfev), int(found.status) != 1  # 1: the most evaluations allowed


def curvature(tree: Taxonomy, x: Any, nodes: Ints, weight: Floats, coefficients: Any, threads: int = 1) -> Floats:
    """Diagonal of the Hessian of -log-likelihood by feature and leaf, (features + 1, leaves).

    Of a label that is an inner node v, with shares q = p / P(v) of the leaves below it, these have
    q^2 P(v) (1 - P(v)): the expected information, as the observed one may be negative.
    """
    squares = x.multiply(x).tocsr()
    out = np.zeros((x.shape[1] + 1, len(tree.leaves)))
    for at in range(0, x.shape[0], BLOCK):
        part = slice(at, at + BLOCK)
        p = leaf_probabilities(x[part], coefficients, threads)
        information = p * (1 - p)
        for row in np.flatnonzero(tree.leaf_of[nodes[part]] < 0):
            node = nodes[at + row]
            below = slice(tree.first[node], tree.last[node])
            mass = max(p[row, below].sum(), np.finfo(np.float64).tiny)
            information[row, below] = p[row, below] ** 2 * (1 - mass) / mass
        information *= weight[part, None]
        out[:-1] += squares[part].T @ information
        out[-1] += information.sum(axis=0)
    return np.maximum(out, 0.0)


def _curvatures(fitted: FittedTree, rows: Rows, threads: int) -> Any:
    size = (rows.x.shape[1] + 1, fitted.deviations.shape[1])
    parts = []
    deviations = _by_column(fitted.deviations)
    for local, features, own in _parts(fitted.tree, fitted.likelihood, rows):
        at = np.concatenate([features, [rows.x.shape[1]]])
        coefficients = leaf_coefficients(local.tree, block(deviations, at, local.nodes))
        found = curvature(local.tree, own.x, own.nodes, own.weight, coefficients, threads)
        parts.append((at, _columns(fitted, local), found.astype(rows.x.dtype)))
    if fitted.likelihood == "flat":
        out = np.zeros((size[0], len(fitted.tree.leaves)), dtype=rows.x.dtype)
        for at, columns, found in parts:
            out[np.ix_(at, columns)] = found
        return out
    return added(sp.csr_array(size, dtype=rows.x.dtype), parts)


def _sums(tree: Taxonomy, rows: Rows) -> tuple[Any, Any]:
    count = rows.x.shape[0]
    of = sp.csr_array((rows.weight, (rows.nodes, np.arange(count))), shape=(len(tree), count))
    return sp.csr_array(of @ rows.x), sp.csr_array(of @ rows.x.multiply(rows.x))


def _parts(tree: Taxonomy, likelihood: str, rows: Rows) -> Iterator[tuple[LocalTree, npt.NDArray[Any], Rows]]:
    """Each softmax that some rows tell about, the features of these rows, and the rows with these features alone."""
    order = Order(tree, rows.nodes)
    for local in local_trees(tree, likelihood):
        which, labels = local.rows(order)
        if len(which):
            x = rows.x if len(which) == rows.x.shape[0] else rows.x[which]
            features = np.unique(x.indices)
            group = rows.group[features]
            yield local, features, Rows(columns_of(x, features), labels, rows.weight[which], group, rows.offset)


def _columns(fitted: FittedTree, local: LocalTree) -> npt.NDArray[Any]:
    """Where a softmax's leaves stand in the curvature."""
    return np.arange(len(local.tree.leaves)) if fitted.likelihood == "flat" else local.nodes


def _scale(fitted: FittedTree, local: LocalTree, group: Ints) -> Floats:
    """Scale of each deviation, (features + 1, nodes); 0 where it is fixed."""
    matrix = fitted.shape.on(local.nodes).matrix(fitted.scales)
    return np.concatenate([matrix[:-1][group], matrix[-1:]])


def _by_column(matrix: Any) -> Any:
    return sp.csc_array(matrix) if is_sparse(matrix) else matrix


def block(matrix: Any, rows: npt.NDArray[Any], columns: npt.NDArray[Any]) -> Any:
    """Some rows and columns of an array or sparse array, as an array."""
    if is_sparse(matrix):
        return np.ascontiguousarray(sp.csc_array(matrix)[:, columns].tocsr()[rows].toarray())
    return matrix[np.ix_(rows, columns)]


def added(matrix: Any, changes: list[Any]) -> Any:
    """Blocks (rows, columns, values) added to an array or csr_array, which is left alone."""
    if not is_sparse(matrix):
        out = np.array(matrix, order="C")
        for rows, columns, values in changes:
            out[np.ix_(rows, columns)] += values
        return out
    data, row, column = [], [], []
    for rows, columns, values in changes:
        i, j = np.nonzero(values)
        data.append(values[i, j])
        row.append(np.asarray(rows)[i])
        column.append(np.asarray(columns)[j])
    if not data:
        return matrix
    at = (np.concatenate(row), np.concatenate(column))
    return sp.csr_array(matrix + sp.csr_array((np.concatenate(data), at), shape=matrix.shape))
