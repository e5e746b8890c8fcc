"""The tree of classes: its nodes, levels, leaves, and which node each label of the data means."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError, OptionError, nearest

__all__ = ["SEPARATOR", "Taxonomy"]

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]
Path = tuple[Hashable, ...]

SEPARATOR = "/"  # joins a path where a name alone would mean several nodes


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

    def __init__(self, names: Sequence[Hashable], parent: Sequence[int], levels: Sequence[str] = ()) -> None:
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
    def from_paths(cls, paths: Iterable[Path], levels: Sequence[str] = ()) -> Taxonomy:
        """From the paths of the classes, each from the top: siblings in sorted order."""
        below: dict[Path, set[Path]] = {(): set()}
        for path in paths:
            for k in range(len(path)):
                below.setdefault(path[: k + 1], set())
                below[path[:k]].add(path[: k + 1])
        return cls._numbered({path: _in_order(under) for path, under in below.items()}, levels)

    @classmethod
    def _numbered(cls, below: Mapping[Path, Sequence[Path]], levels: Sequence[str]) -> Taxonomy:
        names: list[Hashable] = []
        parent: list[int] = []
        waiting = [(path, -1) for path in reversed(below[()])]
        while waiting:
            path, above = waiting.pop()
            node = len(names)
            names.append(path[-1])
            parent.append(above)
            waiting.extend((child, node) for child in reversed(below[path]))
        return cls(names, parent, levels)

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
            if _blank(child):
                raise DataError(f"an edge from {above!r} leads to a class without a name ({child!r})")
            above = None if _blank(above) else above
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
            return tree if not len(levels) else cls(tree.names, tree.parent.tolist(), levels)
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
        if above & set(below) or any(_blank(a) for a in above):
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
        return (self.names, self.levels) == (other.names, other.levels) and np.array_equal(self.parent, other.parent)

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
        return tuple(
            name if times[name] == 1 else SEPARATOR.join(str(part) for part in path)
            for name, path in zip(self.names, self.paths, strict=True)
        )

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
        if several:
            shown = ", ".join(_shown(path) for path in several[:3])
            return f"the label {label!r} is the name of {len(several)} classes ({shown}); give the path"
        hint = nearest(str(label), [str(one) for one in self.labels])
        fault = f"the label {_shown(label)} is not a class of the tree, which has {len(self)} classes"
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


def distinct_labels(y: Any, separator: str | None = None) -> tuple[npt.NDArray[np.intp], list[Any]]:
    """Rows' labels as numbers and the labels they stand for: names, or paths (tuples) where there are several columns.

    Raises
    ------
    DataError
        A missing label, or a blank above a name.
    """
    import pandas as pd

    columns = _columns(y)
    numbers = []
    values: list[Any] = []
    for column in columns:
        try:
            code, unique = pd.factorize(column)
        except TypeError:
            bad = next(label for label in column if getattr(type(label), "__hash__", None) is None)
            raise DataError(f"the label {bad!r} cannot be a class: give a name or a tuple of names") from None
        code = np.where(np.isin(code, [k for k, value in enumerate(unique) if _blank(value)]), -1, code)
        numbers.append(code)
        values.append(unique)
    table = np.column_stack(numbers)
    missing = np.flatnonzero(table[:, 0] < 0)
    if len(missing):
        raise DataError(
            f"row {missing[0]} has no label ({len(missing)} such rows): drop these rows, or give their class"
        )
    gaps: Any = np.flatnonzero(np.any((table[:, :-1] < 0) & (table[:, 1:] >= 0), axis=1)) if len(columns) > 1 else []
    if len(gaps):
        raise DataError(f"row {gaps[0]} has a label below a blank one ({len(gaps)} such rows): fill the level above")
    kept, codes = np.unique(table, axis=0, return_inverse=True)
    labels: list[Any] = [tuple(values[k][c] for k, c in enumerate(row) if c >= 0) for row in kept]
    if len(columns) == 1:
        labels = [label[0] for label in labels]
        if separator is not None:
            labels = [as_path(label, separator) for label in labels]
    return np.asarray(codes).reshape(-1), labels


def as_path(label: Any, separator: str | None) -> Path:
    """The path a label gives: a tuple as it is, a text split at the separator, else a path of one name."""
    if isinstance(label, (tuple, list, np.ndarray)):
        parts = [part for part in label if not _blank(part)]
        if any(_blank(part) for part in label[: len(parts)]):
            raise DataError(f"the path {_shown(tuple(label))} has a blank above a name")
        path = tuple(parts)
    elif isinstance(label, str) and separator:
        path = tuple(part.strip() for part in label.strip(separator).split(separator))
    else:
        path = (label,)
    if not path or any(_blank(part) for part in path):
        raise DataError(f"the label {_shown(label)} is blank or has a blank part")
    return path


def _columns(y: Any) -> list[Any]:
    """One array of objects or numbers per column of labels."""
    import narwhals.stable.v1 as nw

    native = nw.from_native(y, allow_series=True, pass_through=True)
    if isinstance(native, nw.DataFrame):
        return [column.to_numpy() for column in native.iter_columns()]
    if isinstance(native, nw.Series):
        y = native.to_numpy()
    if isinstance(y, list) and any(isinstance(label, tuple) for label in y):
        width = max(len(label) if isinstance(label, tuple) else 1 for label in y)
        padded = [label if isinstance(label, tuple) else (label,) for label in y]
        return [np.array([row[k] if k < len(row) else None for row in padded], dtype=object) for k in range(width)]
    try:
        array = np.asarray(y)
    except ValueError:
        raise DataError(
            "the rows of y differ in their number of labels: give tuples, or fill the levels below with blanks"
        ) from None
    if array.ndim == 1 and array.dtype == object and any(isinstance(label, tuple) for label in array):
        return _columns(list(array))
    if array.dtype.kind in "US":
        array = array.astype(object)  # pandas cannot number NumPy's texts
    if array.ndim not in (1, 2) or array.size == 0:
        raise DataError(f"y has the shape {array.shape}; give one label a row, or one column of labels per level")
    return [array] if array.ndim == 1 else list(array.T)


def _rows_of_tree(tree: Any) -> list[Any]:
    import narwhals.stable.v1 as nw

    native = nw.from_native(tree, eager_only=True, pass_through=True)
    if isinstance(native, nw.DataFrame):
        return list(dict.fromkeys(native.iter_rows()))
    if isinstance(tree, np.ndarray) and tree.ndim == 2:
        return list(dict.fromkeys(tuple(row) for row in tree.tolist()))
    if isinstance(tree, (str, bytes)) or not isinstance(tree, Iterable):
        raise OptionError(
            f"tree={tree!r} is no tree: give {{child: parent}}, pairs (parent, child), paths, a data frame with one column "
            "per level, or a networkx graph"
        )
    return list(tree)


def _refuse_twice(rows: Iterable[Any]) -> None:
    known = [_hashable(row) for row in rows]
    for row in known:
        if getattr(type(row), "__hash__", None) is None:
            raise DataError(f"{row!r} in the tree cannot be a class: give a name, or a path as a tuple of names")
    twice = [row for row, times in Counter(known).items() if times > 1]
    if twice:
        raise DataError(f"class {_shown(twice[0])} is in the tree twice; list each class once")


def _hashable(row: Any) -> Any:
    return tuple(row) if isinstance(row, (list, np.ndarray)) else row


def _in_order(paths: Iterable[Path]) -> list[Path]:
    """Siblings in the order of their names, numbers before texts."""
    siblings = list(paths)
    try:
        return sorted(siblings, key=lambda path: path[-1])  # type: ignore[arg-type, return-value]
    except TypeError:
        return sorted(siblings, key=lambda path: (str(type(path[-1])), str(path[-1])))


def _blank(value: Any) -> bool:
    """Whether a label is missing: None, NaN, or a text of blanks."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return True
    try:
        return bool(value != value)
    except (TypeError, ValueError):
        return False


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


def _shown(label: Any) -> str:
    return repr(SEPARATOR.join(str(part) for part in label)) if isinstance(label, tuple) else repr(label)
