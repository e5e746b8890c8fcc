"""The tree of classes: its nodes, levels, leaves, and which node each label of the data means."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError, OptionError, nearest
from .labels import SEPARATOR, Path, as_path, blank, distinct_labels, shown

__all__ = ["SEPARATOR", "Path", "Taxonomy", "as_path", "distinct_labels"]

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]


class Taxonomy:
    """A tree of classes; the root has no name and is left out.

    Nodes are numbered depth first: parents before their children, the leaves below a node next to each other.

    Parameters
    ----------
    names : sequence of hashable
        Name of each node, in depth-first order.
    parent : sequence of int
        Number of each node's parent; -1 below the root.
    levels : sequence of str, optional
        Names of the levels, from the top.
    separator : str, optional
        Nodes are called by their paths joined by it; None: by their names.

    Attributes
    ----------
    parent, depth : int32 array (nodes,)
        Parent (-1 below the root), and depth (1 below the root).
    leaves : int32 array (leaves,)
        The leaves' nodes.
    leaf_of : int32 array (nodes,)
        Number of each leaf, -1 of inner nodes.
    first, last : int32 array (nodes,)
        The leaves below each node are `first` to `last - 1`.
    labels : tuple
        What a node is called: its name, or where several nodes have this name its path joined by "/".
    """

    def __init__(
        self,
        names: Sequence[Hashable],
        parent: Sequence[int],
        levels: Sequence[str] = (),
        separator: str | None = None,
    ) -> None:
        self.separator = separator
        self.names: tuple[Hashable, ...] = tuple(names)
        self.parent: Ints = np.asarray(parent, dtype=np.int32)
        count = len(self.names)
        if count == 0:
            raise DataError("the tree has no classes; give at least two")
        depth = np.zeros(count, dtype=np.int32)
        children: list[list[int]] = [[] for _ in range(count)]
        for node, above in enumerate(self.parent):
            depth[node] = 1 if above < 0 else depth[above] + 1
            if above >= 0:
                children[above].append(node)
        self.depth: Ints = depth
        self.children: tuple[tuple[int, ...], ...] = tuple(tuple(c) for c in children)
        self.top: tuple[int, ...] = tuple(np.flatnonzero(self.parent < 0).tolist())
        self._number_leaves()
        self.levels: tuple[str, ...] = self._level_names(levels)

    def _number_leaves(self) -> None:
        is_leaf = np.array([not c for c in self.children])
        self.leaves: Ints = np.flatnonzero(is_leaf).astype(np.int32)
        self.leaf_of: Ints = np.where(is_leaf, np.cumsum(is_leaf) - 1, -1).astype(np.int32)
        first = self.leaf_of.copy()
        last = self.leaf_of + 1
        for node in range(len(self) - 1, -1, -1):
            if self.children[node]:
                first[node] = first[self.children[node][0]]
                last[node] = last[self.children[node][-1]]
        self.first: Ints = first
        self.last: Ints = last.astype(np.int32)

    def _level_names(self, levels: Sequence[str]) -> tuple[str, ...]:
        deepest = int(self.depth.max())
        if not len(levels):
            return tuple(f"level {k}" for k in range(1, deepest + 1))
        if len(levels) < deepest:
            raise OptionError(f"levels={list(levels)!r} names {len(levels)} levels, but the tree has {deepest}")
        return tuple(str(name) for name in levels[:deepest])

    # ---- making one ----------------------------------------------------------------------------------------------

    @classmethod
    def from_paths(cls, paths: Iterable[Path], levels: Sequence[str] = (), separator: str | None = None) -> Taxonomy:
        """From the paths of the classes, each from the top: siblings in sorted order."""
        below: dict[Path, set[Path]] = {(): set()}
        for path in paths:
            for k in range(len(path)):
                below.setdefault(path[: k + 1], set())
                below[path[:k]].add(path[: k + 1])
        # so that leaves stand in the order of their joined paths
        inner = {path for path, under in below.items() if under} if separator else set()
        ordered = {path: _in_order(under, inner, separator or "") for path, under in below.items()}
        return cls._numbered(ordered, levels, separator)

    @classmethod
    def _numbered(
        cls, below: Mapping[Path, Sequence[Path]], levels: Sequence[str], separator: str | None = None
    ) -> Taxonomy:
        names: list[Hashable] = []
        parent: list[int] = []
        waiting = [(path, -1) for path in reversed(below[()])]
        while waiting:
            path, above = waiting.pop()
            node = len(names)
            names.append(path[-1])
            parent.append(above)
            waiting.extend((child, node) for child in reversed(below[path]))
        return cls(names, parent, levels, separator)

    @classmethod
    def from_edges(cls, edges: Iterable[tuple[Hashable, Hashable]], levels: Sequence[str] = ()) -> Taxonomy:
        """From pairs (parent, child) in which each name is one node.

        A parent that is missing (None, NaN, "") is the root. Where all hang below one node, that node is the root.

        Raises
        ------
        DataError
            A child with two parents, a circle.
        """
        parents: dict[Hashable, Hashable] = {}
        for above, child in edges:
            if blank(child):
                raise DataError(f"an edge from {above!r} leads to a class without a name ({child!r})")
            above = None if blank(above) else above
            if child in parents and parents[child] != above:
                raise DataError(
                    f"class {child!r} has two parents, {parents[child]!r} and {above!r}; in a tree each class has one. "
                    "If these are two classes with the same name, or pairs that are meant as paths, "
                    "give paths as texts with `separator`, "
                    "or a data frame with one column per level"
                )
            parents[child] = above
        for above in list(parents.values()):
            if above is not None:
                parents.setdefault(above, None)
        return cls._from_parents(parents, levels)

    @classmethod
    def _from_parents(cls, parents: Mapping[Hashable, Hashable], levels: Sequence[str]) -> Taxonomy:
        under: dict[Hashable, list[Hashable]] = {None: []}
        for child, above in parents.items():
            under.setdefault(above, []).append(child)
        top = under[None]
        if len(top) == 1 and under.get(top[0]):
            top = under[top[0]]  # the one node above all is the root
        names: list[Hashable] = []
        numbers: list[int] = []
        waiting = [(name, -1) for name in reversed(top)]
        while waiting:
            name, number = waiting.pop()
            names.append(name)
            numbers.append(number)
            node = len(names) - 1
            waiting.extend((child, node) for child in reversed(under.get(name, [])))
        root = 1 if top is not under[None] else 0
        if len(names) + root < len(parents):
            circle = _circle(parents)
            raise DataError(
                f"the tree goes in a circle: {' -> '.join(repr(name) for name in circle)}; "
                "every class must lead up to the root"
            )
        return cls(names, numbers, levels)

    @classmethod
    def read(cls, tree: Any, levels: Sequence[str] = (), separator: str | None = None) -> Taxonomy:
        """From what users give: {child: parent}, edges, paths, label columns, a networkx graph, a Taxonomy.

        Raises
        ------
        DataError
            A tree with circles, two parents of a class, a class twice, or none at all.
        OptionError
            Something that is no tree.
        """
        if isinstance(tree, Taxonomy):
            return tree if not len(levels) else cls(tree.names, tree.parent.tolist(), levels, tree.separator)
        if isinstance(tree, Mapping):
            return cls.from_edges(((above, child) for child, above in tree.items()), levels)
        if hasattr(tree, "edges") and hasattr(tree, "nodes"):
            return cls.from_edges(((a, b) for a, b, *_ in tree.edges), levels)
        rows = _rows_of_tree(tree)
        _refuse_twice(rows)
        if isinstance(tree, list) and all(isinstance(row, tuple) and len(row) == 2 for row in rows):
            return cls._edges_or_paths(rows, levels)
        paths = [as_path(row, separator) for row in rows]
        _refuse_twice(paths)
        return cls.from_paths(paths, levels)

    @classmethod
    def _edges_or_paths(cls, rows: list[Any], levels: Sequence[str]) -> Taxonomy:
        """Pairs are edges where a name occurs on both sides or a child names its parent; else paths of two levels."""
        above, below = {row[0] for row in rows}, [row[1] for row in rows]
        if above & set(below) or any(blank(a) for a in above):
            return cls.from_edges(rows, levels)
        return cls.from_paths([as_path(row, None) for row in rows], levels)

    # ---- what it is ----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        counts = ", ".join(f"{int(np.sum(self.depth == k))} at {name!r}" for k, name in enumerate(self.levels, 1))
        return f"Taxonomy of {len(self.leaves)} leaves: {counts}"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Taxonomy):
            return NotImplemented
        own, others = (self.names, self.levels, self.separator), (other.names, other.levels, other.separator)
        return own == others and np.array_equal(self.parent, other.parent)

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def paths(self) -> tuple[Path, ...]:
        """Names from the top down to each node."""
        out: list[Path] = []
        for name, above in zip(self.names, self.parent, strict=True):
            out.append((*(out[above] if above >= 0 else ()), name))
        return tuple(out)

    @cached_property
    def labels(self) -> tuple[Hashable, ...]:
        times = Counter(self.names)
        joined = tuple((self.separator or SEPARATOR).join(str(part) for part in path) for path in self.paths)
        mixed = len(times) < len(self) and not all(isinstance(name, str) for name in self.names)
        if self.separator is not None or mixed:
            return joined if len(set(joined)) == len(joined) else self.paths
        out = tuple(name if times[name] == 1 else text for name, text in zip(self.names, joined, strict=True))
        return out if len(set(out)) == len(out) else self.paths

    @cached_property
    def _numbers(self) -> dict[Hashable, int]:
        """Node of each label, and of each path."""
        numbers: dict[Hashable, int] = {path: node for node, path in enumerate(self.paths)}
        numbers.update({label: node for node, label in enumerate(self.labels)})
        return numbers

    def level(self, level: int | str | None) -> int:
        """Depth of a level given by its depth, its name or as "leaf" (also None): the deepest.

        Raises
        ------
        OptionError
            A level that the tree lacks.
        """
        deepest = len(self.levels)
        if level is None or (isinstance(level, str) and level == "leaf" and level not in self.levels):
            return deepest
        if isinstance(level, str) and level in self.levels:
            return self.levels.index(level) + 1
        if isinstance(level, (int, np.integer)) and not isinstance(level, bool) and 1 <= level <= deepest:
            return int(level)
        names = ", ".join(repr(name) for name in self.levels)
        raise OptionError(
            f"level={level!r} is not a level of this tree: give 1 to {deepest}, one of {names}, or 'leaf'"
        )

    def at_level(self, level: int | str | None) -> Ints:
        """Nodes of a level, (k,), in order: those at its depth, and leaves that lie higher."""
        depth = self.level(level)
        return np.flatnonzero((self.depth == depth) | ((self.depth < depth) & (self.leaf_of >= 0))).astype(np.int32)

    def raised(self, nodes: npt.ArrayLike, level: int | str | None) -> Ints:
        """Each node's ancestor at a level; a node that lies higher stays."""
        depth = self.level(level)
        out = np.array(nodes, dtype=np.int32)
        while np.any(deep := self.depth[out] > depth):
            out[deep] = self.parent[out[deep]]
        return out

    def ancestors(self, node: int) -> list[int]:
        """The nodes from the top down to a node, itself the last."""
        out = [int(node)]
        while self.parent[out[-1]] >= 0:
            out.append(int(self.parent[out[-1]]))
        return out[::-1]

    def sums(self, leaf_values: npt.ArrayLike, nodes: Ints | None = None) -> Floats:
        """Values of the leaves (..., leaves) summed over the leaves below nodes: (..., nodes), all nodes if None."""
        values = np.asarray(leaf_values, dtype=np.float64)
        wanted = np.arange(len(self)) if nodes is None else nodes
        out = np.empty((*values.shape[:-1], len(wanted)))
        for at, node in enumerate(wanted):
            first, last = self.first[node], self.last[node]
            out[..., at] = values[..., first] if last == first + 1 else values[..., first:last].sum(axis=-1)
        return out

    # ---- labels of data ------------------------------------------------------------------------------------------

    def node(self, label: Any, separator: str | None = None) -> int:
        """The node that a name, a path (tuple) or a joined path means.

        Raises
        ------
        DataError
            No such class, or several of this name.
        """
        found = self._found(label, separator)
        if found is None:
            raise DataError(self._unknown(label))
        return found

    def _found(self, label: Any, separator: str | None) -> int | None:
        try:
            if label in self._numbers:
                return self._numbers[label]
        except TypeError:
            raise DataError(f"the label {label!r} cannot be a class: give a name or a tuple of names") from None
        if isinstance(label, str):
            for sep in {separator, SEPARATOR} - {None}:
                path = as_path(label, sep)
                if path in self._numbers:
                    return self._numbers[path]
        return None

    def _unknown(self, label: Any) -> str:
        label = label[0] if isinstance(label, tuple) and len(label) == 1 else label
        several = [path for path in self.paths if path[-1] == label]
        if len(several) == 1:
            return f"the label {label!r} is the class {shown(several[0])} here; give the whole path"
        if several:
            some = ", ".join(shown(path) for path in several[:3])
            return f"the label {label!r} is the name of {len(several)} classes ({some}); give the path"
        hint = nearest(str(label), [str(one) for one in self.labels])
        fault = f"the label {shown(label)} is not a class of the tree, which has {len(self)} classes"
        return f"{fault}; {hint}" if hint else fault

    def nodes_of(self, y: Any, separator: str | None = None) -> Ints:
        """The node of each row's label: names, paths, or one column per level (n, levels) with blanks below.

        Raises
        ------
        DataError
            A label that is missing or not in the tree; the row is named.
        """
        codes, unique = distinct_labels(y, separator)
        nodes = np.empty(len(unique), dtype=np.int32)
        for k, label in enumerate(unique):
            found = self._found(label, separator)
            if found is None:
                row = int(np.flatnonzero(codes == k)[0])
                raise DataError(f"row {row}: {self._unknown(label)}")
            nodes[k] = found
        return nodes[codes]


def _rows_of_tree(tree: Any) -> list[Any]:
    import narwhals.stable.v1 as nw

    native = nw.from_native(tree, eager_only=True, pass_through=True)
    if isinstance(native, nw.DataFrame):
        return _distinct(native.iter_rows())
    if isinstance(tree, np.ndarray) and tree.ndim == 2:
        return _distinct(tree.tolist())
    if isinstance(tree, (str, bytes)) or not isinstance(tree, Iterable):
        raise OptionError(
            f"tree={tree!r} is no tree: give {{child: parent}}, pairs (parent, child), paths, a data frame with one column "
            "per level, or a networkx graph"
        )
    return list(tree)


def _distinct(rows: Iterable[Iterable[Any]]) -> list[Any]:
    return list(dict.fromkeys(tuple(None if blank(part) else part for part in row) for row in rows))


def _refuse_twice(rows: Iterable[Any]) -> None:
    known = [_hashable(row) for row in rows]
    for row in known:
        if getattr(type(row), "__hash__", None) is None:
            raise DataError(f"{row!r} in the tree cannot be a class: give a name, or a path as a tuple of names")
    twice = [row for row, times in Counter(known).items() if times > 1]
    if twice:
        raise DataError(f"class {shown(twice[0])} is in the tree twice; list each class once")


def _hashable(row: Any) -> Any:
    return tuple(row) if isinstance(row, (list, np.ndarray)) else row


def _in_order(paths: Iterable[Path], inner: Collection[Path] = (), separator: str = "") -> list[Path]:
    """Siblings in the order of their names, numbers before texts; names of inner nodes with the separator after them."""
    siblings = list(paths)

    def key(path: Path) -> Any:
        return path[-1] + separator if path in inner and isinstance(path[-1], str) else path[-1]

    try:
        return sorted(siblings, key=key)
    except TypeError:
        return sorted(siblings, key=lambda path: (str(type(path[-1])), str(path[-1])))


def _circle(parents: Mapping[Hashable, Hashable]) -> list[Hashable]:
    """Names along a circle, the first again at the end."""
    cleared: set[Hashable] = {None}
    for start in parents:
        trail: list[Hashable] = []
        name: Hashable = start
        while name not in cleared and name not in trail:
            trail.append(name)
            name = parents[name]
        if name not in cleared:
            return [*trail[trail.index(name) :], name]
        cleared.update(trail)
    return []
