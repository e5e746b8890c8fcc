"""The coefficients of a leaf that takes the place of several siblings.

The merged leaf should have, at every row, the sum q of the probabilities p of the merged ones. Its logit is linear, so
that it can only come near: it minimises the expectation of -q log p' - (1 - q) log(1 - p') over rows like those learnt from,
under a normal prior about the mean of the merged deviations. At the minimum over the intercept, whose prior is flat, the
mass of p' is that of q. As the rows are not kept, they are drawn: each class with its weight, features independent, with
the mean and the mean square that are kept of them. Where means are nowhere negative, as of counts and word weights, a
feature is 0 or one value; else it is normal.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from .fitting import FittedTree
from .objective import node_coefficients
from .online import Seen, block

__all__ = ["like_rows", "united"]

Floats = npt.NDArray[np.float64]

DRAWN = 4000  # rows
MOST = 200  # evaluations of the minimisation
ENTRIES = 4_000_000  # numbers drawn at a time
SEED = 0


def united(fitted: FittedTree, seen: Seen, parts: list[int], by_node: Floats, scale: Floats) -> Floats:
    """Deviation of a leaf in the place of several siblings.

    Parameters
    ----------
    fitted : FittedTree
    seen : Seen
    parts : list of int
        Leaves with the same parent.
    by_node : array (nodes,)
        Weight of the rows labelled with each node.
    scale : array (features + 1,)
        Scale of the deviation's prior; the intercept's is not used.

    Returns
    -------
    array (features + 1,)
    """
    from scipy.optimize import minimize

    u = block(fitted.deviations, np.arange(len(scale)), np.array(parts)).astype(np.float64)
    centre = _mean(fitted, seen, parts, by_node, u)
    x, weight = like_rows(seen, _used(fitted, parts[0], by_node), DRAWN, np.random.default_rng(SEED), parts)
    if not len(weight):
        centre[-1] = np.logaddexp.reduce(u[-1])
        return centre
    own, others = _logits(fitted, parts, x)
    if np.isneginf(others).all():  # no siblings are left: it has its parent's probability with any coefficients
        return centre
    target = _sigmoid(np.logaddexp.reduce(own, axis=1) - others)
    base = own[:, 0] - x @ u[:-1, 0] - u[-1, 0] - others
    width = np.append(scale[:-1], 1.0)
    pull = np.append(np.ones(len(scale) - 1), 0.0)  # none on the intercept

    def value(z: Floats) -> tuple[float, Floats]:
        one = centre + width * z
        eta = base + x @ one[:-1] + one[-1]
        more = weight * (_sigmoid(eta) - target)
        loss = float(weight @ (np.logaddexp(0, eta) - target * eta)) + 0.5 * float(z @ (pull * z))
        return loss, width * np.append(x.T @ more, more.sum()) + pull * z

    options: Any = {"maxiter": MOST, "ftol": 1e-10, "gtol": 1e-6}
    found = minimize(value, np.zeros(len(scale)), jac=True, method="L-BFGS-B", options=options)
    one: Floats = centre + width * found.x
    one[-1] += _shift(base + x @ one[:-1] + one[-1], weight, float(weight @ target))
    return one


def like_rows(
    seen: Seen, by_node: Floats, count: int, generator: np.random.Generator, most_of: list[int]
) -> tuple[Any, Floats]:
    """Rows drawn from what is kept of each class; half of them of the classes in `most_of`.

    Returns
    -------
    x : csr_array (about count, features)
    weight : array
        Of each class's rows together: the class's weight.
    """
    first = np.isin(np.arange(len(by_node)), most_of)
    share = np.zeros(len(by_node))
    for part in (first, ~first):
        share[part] = by_node[part] / max(by_node[part].sum(), 1e-300) / 2
    each = np.floor(count * share + generator.random(len(share))).astype(int)  # a small class by chance
    chance = np.minimum(count * share, 1.0)
    drawn = np.flatnonzero(each)
    signed = np.zeros(seen.sums.shape[1], dtype=bool)
    negative = seen.sums.tocoo()
    signed[negative.col[negative.data < 0]] = True
    found, weight = [], []
    for node in drawn:
        found.append(_of_class(seen, int(node), by_node[node], int(each[node]), signed, generator))
        weight.append(np.full(each[node], by_node[node] / chance[node] / each[node]))
    if not found:
        return sp.csr_array((0, seen.sums.shape[1])), np.zeros(0)
    return sp.csr_array(sp.vstack(found, format="csr")), np.concatenate(weight)


def _of_class(
    seen: Seen, node: int, weight: float, count: int, signed: npt.NDArray[np.bool_], generator: np.random.Generator
) -> Any:
    sums, squares = (sp.csr_array(part[[node]]) for part in (seen.sums, seen.squares))
    features = squares.indices
    second = squares.data.astype(np.float64) / weight
    mean = np.asarray(sums.toarray(), dtype=np.float64)[0, features] / weight
    normal = signed[features]
    spread = np.sqrt(np.maximum(second - mean**2, 0.0))
    often = np.divide(mean**2, second, out=np.zeros_like(mean), where=second > 0)
    size = np.divide(second, mean, out=np.zeros_like(mean), where=mean > 0)
    step = max(1, ENTRIES // max(len(features), 1))
    parts = []
    for at in range(0, count, step):
        shape = (min(step, count - at), len(features))
        values = np.where(generator.random(shape) < often, size, 0.0)
        if normal.any():
            values[:, normal] = mean[normal] + spread[normal] * generator.standard_normal((shape[0], int(normal.sum())))
        row, column = np.nonzero(values)
        parts.append(
            sp.csr_array((values[row, column], (row, features[column])), shape=(shape[0], seen.sums.shape[1]))
        )
    return sp.vstack(parts, format="csr")


def _mean(fitted: FittedTree, seen: Seen, parts: list[int], by_node: Floats, u: Floats) -> Floats:
    """Mean of the deviations, each with the curvature of the log-likelihood as its weight."""
    columns = np.array(parts if fitted.likelihood == "nested" else fitted.tree.leaf_of[parts])
    information = block(seen.curvature, np.arange(len(u)), columns).astype(np.float64)
    information += 1e-12 * np.maximum(by_node[parts], 1e-3)  # a feature without information: by the classes' weight
    return np.asarray((u * information).sum(axis=1) / information.sum(axis=1))


def _used(fitted: FittedTree, part: int, by_node: Floats) -> Floats:
    """Weight of the rows that the softmax of a leaf is about."""
    tree = fitted.tree
    above = int(tree.parent[part])
    if fitted.likelihood == "flat" or above < 0:
        return by_node
    below = np.array([above in tree.ancestors(v) and v != above for v in range(len(tree))])
    return np.where(below, by_node, 0.0)


def _logits(fitted: FittedTree, parts: list[int], x: Any) -> tuple[Floats, Floats]:
    """Logits of the parts (rows, parts), and the logarithm of the sum of the others' exponentiated ones (rows,)."""
    tree = fitted.tree
    if fitted.likelihood == "nested":
        above = int(tree.parent[parts[0]])
        nodes = np.array(tree.children[above] if above >= 0 else tree.top)
        theta = block(fitted.deviations, np.arange(fitted.deviations.shape[0]), nodes)
    else:
        nodes = tree.leaves
        theta = node_coefficients(tree, fitted.deviations)[:, nodes]
    theta = theta.astype(np.float64)
    logits = x @ theta[:-1] + theta[-1]
    own = logits[:, [int(np.flatnonzero(nodes == part)[0]) for part in parts]]
    rest = logits[:, ~np.isin(nodes, parts)]
    return own, np.logaddexp.reduce(rest, axis=1) if rest.shape[1] else np.full(x.shape[0], -np.inf)


def _shift(eta: Floats, weight: Floats, mass: float) -> float:
    """What to add to logits for the mass of their probabilities to be a given one."""
    low, high = -50.0, 50.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if weight @ _sigmoid(eta + middle) < mass else (low, middle)
    return 0.5 * (low + high)


def _sigmoid(z: Floats) -> Floats:
    from scipy.special import expit

    return np.asarray(expit(z))
