"""Sets of classes that hold the true one with a wanted probability."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from .calibration import LevelCalibration, subtree_threshold, sums_before
from .stopping import Cut, best_threshold

__all__ = ["PredictionSets", "smallest_sets", "subtrees"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class PredictionSets(Sequence[tuple[Hashable, ...]]):
    """A set of classes for each row; ``sets[i]`` is the tuple of row i, the most probable class first.

    Attributes
    ----------
    classes : array (classes,)
        Labels of the level.
    members : bool array (rows, classes)
    order : int array (rows, classes)
        The classes of each row from the most probable.
    coverage : float
        As asked for.
    method : "conformal" or "probabilities"
        Whether the sets hold the true class with this probability by the calibration rows, or if the probabilities are right.
    nodes : list of labels, optional
        Of subtrees: the node whose classes the set is, None where it is the root.
    """

    classes: npt.NDArray[Any]
    members: Bools
    order: npt.NDArray[np.intp]
    coverage: float
    method: str
    nodes: list[Hashable] | None = None

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Classes in each set, (rows,)."""
        return np.asarray(self.members.sum(axis=1))

    def __len__(self) -> int:
        return len(self.members)

    @overload
    def __getitem__(self, row: int) -> tuple[Hashable, ...]: ...
    @overload
    def __getitem__(self, row: slice) -> list[tuple[Hashable, ...]]: ...
    def __getitem__(self, row: int | slice) -> tuple[Hashable, ...] | list[tuple[Hashable, ...]]:
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        order = self.order[row]
        return tuple(self.classes[order[self.members[row][order]]].tolist())

    def __iter__(self) -> Iterator[tuple[Hashable, ...]]:
        return (self[row] for row in range(len(self)))

    def __repr__(self) -> str:
        mean = f", {self.sizes.mean():.2f} classes on average" if len(self) else ""
        return f"PredictionSets({len(self)} rows{mean}; coverage {self.coverage:g} by {self.method})"


def smallest_sets(p: Floats, coverage: float, found: LevelCalibration | None) -> Bools:
    """Classes taken from the most probable on until their sum reaches the coverage, or passes its conformal stand-in.

    Adaptive prediction sets without randomisation: a class is in where the sum of those above it is at most the quantile
    of the calibration rows' scores. The most probable class is always in.

    Parameters
    ----------
    p : array (rows, classes)
    coverage : float
    found : LevelCalibration, optional
        None: the probabilities are taken at their word.
    """
    before = sums_before(p)
    if found is None:
        return np.asarray(before < coverage - 1e-12)  # a sum that reaches the coverage but for rounding ends the set
    return np.asarray(before <= found.quantile(coverage))


def subtrees(cut: Cut, p: Floats, coverage: float, found: LevelCalibration | None) -> tuple[Bools, Ints]:
    """The smallest subtree of at least the coverage, or its conformal stand-in: members (rows, classes) and nodes (rows,)."""
    threshold = coverage - 1e-12 if found is None else subtree_threshold(found, coverage)
    values, answers = cut.best(p)
    nodes = answers[np.arange(len(p)), best_threshold(values, threshold)]
    begin = np.append(cut.tree.first, 0)[nodes][:, None]
    end = np.append(cut.tree.last, len(cut.tree.leaves))[nodes][:, None]
    first_leaf = cut.tree.first[cut.ends]
    return (begin <= first_leaf) & (first_leaf < end), nodes
