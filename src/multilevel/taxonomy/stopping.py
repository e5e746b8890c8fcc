"""Where to stop on the way down the tree: rules that answer with a leaf, an inner node, or the root when all is unsure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import OptionError
from .tree import Taxonomy

__all__ = ["ROOT", "Cost", "Cut", "Darts", "Guarantee", "best_darts", "best_threshold", "least_cost"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]

ROOT = -1  # the root's number among nodes, and the place of its row in a matrix of costs


@dataclass(frozen=True)
class Darts:
    """The most informative answer at an accuracy: argmax over nodes of P(node) (information + reward).

    The information of a node is 1 - log(leaves below) / log(leaves): 1 of a leaf, 0 of the root. An answer is right when
    it is the true class or above it. The reward is the smallest with which the rows of `calibrate` are answered with the
    accuracy; on new rows the accuracy is about this, without a guarantee.

    Parameters
    ----------
    accuracy : float
        Share of right answers, between 0 and 1.
    reward : float, optional
        The reward itself, at least 0; then nothing needs calibration and `accuracy` is not used.

    References
    ----------
    Deng, Krause, Berg and Fei-Fei (2012), Hedging your bets: optimizing accuracy-specificity trade-offs in large scale visual
    recognition, CVPR.
    """

    accuracy: float = 0.9
    reward: float | None = None

    def __post_init__(self) -> None:
        _between("accuracy", self.accuracy)
        if self.reward is not None and not (_is_number(self.reward) and self.reward >= 0):
            raise OptionError(f"reward={self.reward!r} must be a number of at least 0, or None to find it by calibrate")


@dataclass(frozen=True)
class Guarantee:
    """Answers whose accuracy holds for new rows with the probability 1 - delta.

    The knob of the rule (threshold, or reward of `Darts`) is made bolder step by step, as long as the Clopper-Pearson upper
    bound of the share of wrong answers on the rows of `calibrate` is at most 1 - accuracy. As the steps are fixed beforehand
    and the first failure ends them, no correction for their number is needed (fixed-sequence testing). The probability is
    over calibration sets drawn as the new rows are. Too few calibration rows: the root for all.

    Parameters
    ----------
    accuracy : float
        Least share of answers that are the true class or above it.
    delta : float
        Probability that the accuracy is missed.
    rule : {"threshold", "darts"}
        Whose knob is set.

    References
    ----------
    Clopper and Pearson (1934), The use of confidence or fiducial limits; Angelopoulos, Bates, Candès, Jordan and Lei (2021),
    Learn then test: calibrating predictive algorithms to achieve risk control.
    """

    accuracy: float = 0.9
    delta: float = 0.05
    rule: str = "threshold"

    def __post_init__(self) -> None:
        _between("accuracy", self.accuracy)
        _between("delta", self.delta)
        if self.rule not in ("threshold", "darts"):
            raise OptionError(f"rule={self.rule!r} is not known: take 'threshold' or 'darts'")


@dataclass(frozen=True, eq=False)
class Cost:
    """The node of least expected cost: argmin over nodes, the root included, of sum_k P(k) cost[node, k].

    Parameters
    ----------
    cost : {"tree", "information", "hf"}, array (nodes + 1, leaves) or callable
        Distance in the tree, information lost, 1 - hierarchical F1, your own costs (rows as `tree_.labels` and the root's
        as the last, columns as `classes_`), or a function of the tree that returns these.
    """

    cost: Any = "tree"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and bool(np.isfinite(value))


def _between(name: str, value: Any) -> None:
    if not (_is_number(value) and 0 < value < 1):
        raise OptionError(f"{name}={value!r} must lie between 0 and 1")


@dataclass(frozen=True)
class Cut:
    """The tree down to a level, its answers sorted from the most informative to the root.

    Of the answers with equally many classes below, whatever rule looks at the probability takes the most probable; so only
    the best of each such group is kept.

    Attributes
    ----------
    tree : Taxonomy
    depth : int
        Nodes below are left out.
    ends : int32 array (classes,)
        Nodes of the level.
    nodes : int32 array (answers,)
        Nodes and `ROOT` by group; in a group by their first leaf, the deeper first, so that ties go as `argmax` has them.
    begins : array (groups + 1,)
        Where the groups begin in `nodes`.
    information : array (groups,)
        1 of the level's classes, 0 of the root.
    """

    tree: Taxonomy
    depth: int
    ends: Ints = field(init=False)
    nodes: Ints = field(init=False)
    begins: npt.NDArray[np.intp] = field(init=False)
    information: Floats = field(init=False)

    def __post_init__(self) -> None:
        tree = self.tree
        ends = tree.at_level(self.depth)
        nodes = np.append(np.flatnonzero(tree.depth <= self.depth), ROOT)
        begin = np.append(tree.first, 0)[nodes]
        end = np.append(tree.last, len(tree.leaves))[nodes]
        count = np.searchsorted(tree.first[ends], end) - np.searchsorted(tree.first[ends], begin)
        order = np.lexsort((-np.append(tree.depth, 0)[nodes], begin, count))
        sizes, begins = np.unique(count[order], return_index=True)
        object.__setattr__(self, "ends", ends)
        object.__setattr__(self, "nodes", nodes[order].astype(np.int32))
        object.__setattr__(self, "begins", np.append(begins, len(nodes)))
        object.__setattr__(self, "information", 1.0 - np.log(sizes) / np.log(max(len(ends), 2)))

    def best(self, p: Floats) -> tuple[Floats, Ints]:
        """Highest probability in each group and its node, (rows, groups) each, from the leaves' (rows, leaves)."""
        groups = len(self.information)
        values, nodes = np.empty((len(p), groups)), np.empty((len(p), groups), dtype=np.int32)
        of_root = p.sum(axis=1, keepdims=True)  # as a node over all leaves sums, so that the two are equal
        for g in range(groups):
            members = self.nodes[self.begins[g] : self.begins[g + 1]]
            named = members[members != ROOT]
            of_group = self.tree.sums(p, named)
            if len(named) < len(members):
                of_group = np.hstack([of_group, of_root])
            at = of_group.argmax(axis=1)
            values[:, g], nodes[:, g] = of_group[np.arange(len(p)), at], members[at]
        return values, nodes

    def above(self, nodes: Ints, truth: Ints) -> npt.NDArray[np.bool_]:
        """Whether each row's nodes (rows, k) are its true node (rows,) or above it."""
        begin, end = np.append(self.tree.first, 0), np.append(self.tree.last, len(self.tree.leaves))
        inside = (begin[nodes] <= begin[truth][:, None]) & (end[truth][:, None] <= end[nodes])
        # an only child has its parent's leaves, but is not above it
        higher = np.append(self.tree.depth, 0)[nodes] <= self.tree.depth[truth][:, None]
        return np.asarray(inside & higher)


def best_threshold(values: Floats, threshold: float) -> npt.NDArray[np.intp]:
    """Group of each row's answer: the most informative with a probability of at least the threshold, else the root's."""
    enough = values >= threshold
    enough[:, -1] = True
    return np.asarray(enough.argmax(axis=1))


def best_darts(values: Floats, information: Floats, reward: float) -> npt.NDArray[np.intp]:
    """Group of each row's answer: the highest P (information + reward), the more informative of equal ones."""
    if np.isinf(reward):
        return np.full(len(values), values.shape[1] - 1)
    return np.asarray((values * (information + reward)).argmax(axis=1))


def least_cost(cut: Cut, p: Floats, costs: Floats) -> Ints:
    """Node of least expected cost for each row, by costs (nodes + 1, leaves).

    Of answers whose costs differ by rounding only it is the first in `cut.nodes`, thus the most informative: which one
    rounding favours may depend on the rows computed together.
    """
    expected = p @ costs[cut.nodes].T
    equal = expected.min(axis=1, keepdims=True) + 1e-12 * np.abs(costs).max()
    return np.asarray(cut.nodes[(expected <= equal).argmax(axis=1)])
