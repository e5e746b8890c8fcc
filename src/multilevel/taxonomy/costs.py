"""What a prediction costs when another class is true: matrices with a row for each node and one for the root."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import OptionError
from .tree import Taxonomy

__all__ = ["cost_matrix", "hf_loss", "information_loss", "tree_distance"]

Floats = npt.NDArray[np.float64]


def tree_distance(tree: Taxonomy) -> Floats:
    """Edges between the predicted node and the true leaf.

    Returns
    -------
    array (nodes + 1, leaves)
        Rows in the order of `tree.labels`, the root last.
    """
    depth = np.append(tree.depth, 0)[:, None]
    return np.asarray(depth + tree.depth[tree.leaves] - 2.0 * common_depth(tree))


def hf_loss(tree: Taxonomy) -> Floats:
    """1 - hierarchical F1 of one item, with sets of ancestors without the root; the root costs 1.

    Returns
    -------
    array (nodes + 1, leaves)
        Rows in the order of `tree.labels`, the root last.

    References
    ----------
    Kiritchenko, Matwin, Nock and Famili (2006), Learning and evaluation in the presence of class hierarchies.
    """
    depth = np.append(tree.depth, 0)[:, None]
    return np.asarray(1.0 - 2.0 * common_depth(tree) / (depth + tree.depth[tree.leaves]))


def information_loss(tree: Taxonomy, wrong: float = 2.0) -> Floats:
    """Share of the information that a right answer leaves out, log(leaves below) / log(leaves); a wrong one costs `wrong`.

    Right is the true leaf or a node above it. With ``wrong = 1 + reward`` this is the rule ``Darts(reward=reward)``.

    Parameters
    ----------
    tree : Taxonomy
    wrong : float
        At least 1, which is what the root costs.

    Returns
    -------
    array (nodes + 1, leaves)
        Rows in the order of `tree.labels`, the root last.

    Raises
    ------
    OptionError
        `wrong` below 1: a wrong answer would be better than none.
    """
    if not (np.isfinite(wrong) and wrong >= 1):
        raise OptionError(f"wrong={wrong!r} must be at least 1, which is what the root costs")
    count = np.append(tree.last - tree.first, len(tree.leaves))[:, None]
    lost = np.log(count) / np.log(max(len(tree.leaves), 2))
    return np.asarray(np.where(_above(tree), lost, wrong))


def cost_matrix(tree: Taxonomy, cost: Any) -> Floats:
    """The matrix that "tree", "information", "hf", a function of the tree or an array gives.

    Parameters
    ----------
    tree : Taxonomy
    cost : str, array (nodes + 1, leaves) or callable
        Rows in the order of `tree.labels`, the root last; columns in the order of the leaves.

    Returns
    -------
    array (nodes + 1, leaves)

    Raises
    ------
    OptionError
        An unknown name, a matrix of another shape, costs that are not finite.
    """
    if isinstance(cost, str):
        if cost not in BUILDERS:
            names = ", ".join(map(repr, BUILDERS))
            raise OptionError(f"cost={cost!r} is not known: take {names}, a matrix, or a function of the tree")
        return BUILDERS[cost](tree)
    try:
        matrix = np.asarray(cost(tree) if callable(cost) else cost, dtype=np.float64)
    except (TypeError, ValueError) as fault:
        raise OptionError(f"the costs are not a matrix of numbers: {fault}") from None
    wanted = (len(tree) + 1, len(tree.leaves))
    if matrix.shape != wanted:
        raise OptionError(
            f"the costs have the shape {matrix.shape}: give {wanted}, a row for each of the tree's {len(tree)} nodes (as "
            f"tree_.labels) and the root's as the last, and a column for each of its {len(tree.leaves)} leaves (as classes_)"
        )
    if not np.all(np.isfinite(matrix)):
        node, leaf = (int(k) for k in np.argwhere(~np.isfinite(matrix))[0])
        raise OptionError(
            f"the cost in row {node}, column {leaf} is {matrix[node, leaf]}: costs must be finite numbers"
        )
    return matrix


BUILDERS = {"tree": tree_distance, "information": information_loss, "hf": hf_loss}


def _above(tree: Taxonomy) -> npt.NDArray[np.bool_]:
    """Whether a node is a leaf or above it, (nodes + 1, leaves); the root is above all."""
    leaf = np.arange(len(tree.leaves))
    below = (tree.first[:, None] <= leaf) & (leaf < tree.last[:, None])
    return np.vstack([below, np.ones((1, len(leaf)), dtype=bool)])


def common_depth(tree: Taxonomy) -> Floats:
    """Depth of the lowest node above both a node and a leaf, (nodes + 1, leaves); 0 where only the root is."""
    out = _above(tree).astype(np.float64)
    out[-1] = 0.0
    for node, above in enumerate(tree.parent):
        if above >= 0:
            out[node] += out[above]
    return out
