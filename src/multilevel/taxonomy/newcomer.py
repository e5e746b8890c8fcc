"""The deviation of a new leaf, all other coefficients being known: a logistic regression with a stand-in for the old rows.

For a row x the new leaf has the odds exp(eta), eta = x.u + a + r(x): r is the logit of its parent less the logarithm of the
sum of the other leaves' exponentiated logits. The new rows have the loss w log(1 + exp(-eta)); an old row would have
log(1 + exp(eta)). Of the old rows with one label only their total weight n, mean m and variance v of each feature are
known; with x.u taken as normal, features independent, Jensen's inequality gives their loss at most
n log(1 + exp(eta(m) + v.u^2 / 2)), which is what is minimised: convex in u, and exact where the odds are small.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from .fitting import FittedTree
from .objective import node_coefficients
from .online import Seen
from .problems import Rows

__all__ = ["Newcomer", "fit_newcomer"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Newcomer:
    """A new node's deviation (features + 1,), and slope and curvature of the old rows' loss there."""

    deviation: Floats
    slope: Floats
    curvature: Floats


def fit_newcomer(
    fitted: FittedTree, seen: Seen, by_node: Floats, node: int, known: npt.NDArray[np.bool_], rows: Rows, most: int
) -> Newcomer:
    """Deviation of a node that has none yet.

    Parameters
    ----------
    fitted : FittedTree
        With the node in its tree; its deviation is read as 0.
    seen : Seen
        Of the same tree.
    by_node : array (nodes,)
        Weight of the old rows labelled with each node.
    node : int
    known : bool array (leaves,)
        The leaves that the new one stands against.
    rows : Rows
        Rows of the new leaf.
    most : int
        Evaluations.
    """
    from scipy.optimize import minimize

    x, weight = rows.x, rows.weight
    scale = _scales(fitted, node, rows.group)
    old = _Old(fitted, seen, by_node, node)
    r_new, r_old = _odds(fitted, node, known, x), _odds(fitted, node, known, old.mean)

    def value(z: Floats) -> tuple[float, Floats]:
        u = scale * z
        eta = x @ u[:-1] + u[-1] + r_new
        missing = weight * _sigmoid(-eta)
        loss, slope, _ = old.loss(u, r_old)
        total = float(weight @ np.logaddexp(0, -eta)) + loss + 0.5 * float(z @ z)
        return total, scale * (slope - np.append(x.T @ missing, missing.sum())) + z

    options: Any = {"maxiter": most, "ftol": 1e-10, "gtol": 1e-6}
    found = minimize(value, np.zeros(len(scale)), jac=True, method="L-BFGS-B", options=options)
    deviation = scale * found.x
    _, slope, curvature = old.loss(deviation, r_old)
    return Newcomer(deviation, slope, curvature)


class _Old:
    """The old rows by their labels: mean and variance of each feature, total weight."""

    def __init__(self, fitted: FittedTree, seen: Seen, by_node: Floats, node: int) -> None:
        tree = fitted.tree
        used = by_node > 0
        used[tree.ancestors(node)] = False  # these may be items of the new class
        if fitted.likelihood == "nested":
            above = int(tree.parent[node])
            used &= np.array([above < 0 or (above in tree.ancestors(v) and v != above) for v in range(len(tree))])
        which = np.flatnonzero(used)
        self.weight = by_node[which]
        each = sp.diags_array(1.0 / self.weight) if len(which) else sp.csr_array((0, 0))
        self.mean = sp.csr_array(each @ seen.sums[which].astype(np.float64))
        second = sp.csr_array(each @ seen.squares[which].astype(np.float64))
        self.variance = sp.csr_array(second - self.mean.multiply(self.mean))
        self.variance.data = np.maximum(self.variance.data, 0.0)

    def loss(self, u: Floats, r: Floats) -> tuple[float, Floats, Floats]:
        """Loss, its slope by u and the intercept, and the diagonal of its Hessian, each (features + 1,)."""
        eta = self.mean @ u[:-1] + u[-1] + r + 0.5 * (self.variance @ u[:-1] ** 2)
        p = _sigmoid(eta)
        gain, bend = self.weight * p, self.weight * p * (1 - p)
        spread = self.variance.T @ gain
        slope = np.append(self.mean.T @ gain + spread * u[:-1], gain.sum())
        # sum of bend (m + v u)^2 + gain v
        v = self.variance
        square = self.mean.power(2).T @ bend + 2 * u[:-1] * (self.mean.multiply(v).T @ bend)
        square += u[:-1] ** 2 * (v.power(2).T @ bend)
        return float(self.weight @ np.logaddexp(0, eta)), slope, np.append(square + spread, bend.sum())


def _scales(fitted: FittedTree, node: int, group: npt.NDArray[Any]) -> Floats:
    matrix = fitted.shape.matrix(fitted.scales)[:, node]
    return np.append(matrix[:-1][group], matrix[-1])


def _odds(fitted: FittedTree, node: int, known: npt.NDArray[np.bool_], x: Any) -> Floats:
    """Log odds of a leaf with its parent's coefficients against the leaves that are known."""
    tree = fitted.tree
    above = int(tree.parent[node])
    if fitted.likelihood == "nested":
        family = tree.children[above] if above >= 0 else tree.top
        siblings = [v for v in family if known[tree.first[v] : tree.last[v]].any()]
        theta = fitted.deviations[:, siblings].toarray().astype(np.float64)
        own = np.zeros(x.shape[0])
    else:
        whole = node_coefficients(tree, fitted.deviations)
        theta = whole[:, tree.leaves[known]].astype(np.float64)
        own = x @ whole[:-1, above] + whole[-1, above] if above >= 0 else np.zeros(x.shape[0])
    logits = x @ theta[:-1] + theta[-1]
    top = logits.max(axis=1, initial=-np.inf)
    return np.asarray(own - top - np.log(np.exp(logits - top[:, None]).sum(axis=1)), dtype=np.float64)


def _sigmoid(z: Floats) -> Floats:
    from scipy.special import expit

    return np.asarray(expit(z))
