"""Values of a classifier as JSON's types and plain arrays, and back.

Numbers come back bit for bit and labels as what they were. Nothing is run, and nothing is made whose kind is not named here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from ..archive import need
from ..errors import DataError
from ..recipe_json import decode_value, encode_value
from .tree import Taxonomy

__all__ = ["Packer", "Unpacker"]

Array = npt.NDArray[Any]

RECORDS = {  # dataclasses that a classifier may hold, and where they are
    "FittedTree": "fitting",
    "ScaleShape": "scales",
    "Seen": "online",
    "Calibration": "calibration",
    "LevelCalibration": "calibration",
    "RiskCurve": "calibration",
}
STORED = {"b1": "|b1", "f2": "<f2", "f4": "<f4", "f8": "<f8", "i4": "<i4", "i8": "<i8"}  # what the file knows
WIDER = {"i1": "<i4", "i2": "<i4", "u1": "<i4", "u2": "<i4", "u4": "<i8"}  # kept in a wider one, and brought back


class Packer:
    """Writes values; arrays and trees, which may occur twice, go into lists of their own.

    Parameters
    ----------
    narrow : sequence of arrays
        Arrays stored with 16 bits a number.
    """

    def __init__(self, narrow: Sequence[Array] = ()) -> None:
        self.arrays: dict[str, Array] = {}
        self.trees: list[dict[str, Any]] = []
        self._narrow = {id(array) for array in narrow}
        self._known: dict[int, tuple[Any, int]] = {}

    def pack(self, value: Any, what: str) -> Any:
        """A value in JSON's types.

        Raises
        ------
        DataError
            A value of a kind that the file cannot hold; `what` names it.
        """
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {"float": repr(value)}
        if isinstance(value, Taxonomy):
            return {"tree": self._tree(value, what)}
        if isinstance(value, np.ndarray):
            return self._array(value, what)
        if isinstance(value, (list, tuple)):
            return {"tuple" if isinstance(value, tuple) else "list": [self.pack(one, what) for one in value]}
        if isinstance(value, Mapping):
            return {"dict": [[self.pack(key, what), self.pack(one, what)] for key, one in value.items()]}
        if isinstance(value, np.generic):
            return self._scalar(value, what)
        return self._other(value, what)

    def _other(self, value: Any, what: str) -> Any:
        if getattr(value, "format", None) == "csr":
            parts = [self._array(getattr(value, name), what) for name in ("data", "indices", "indptr")]
            return {"csr": parts, "shape": list(value.shape)}
        if dataclasses.is_dataclass(value) and type(value).__name__ in RECORDS:
            names = [one.name for one in dataclasses.fields(value) if not one.name.startswith("_")]
            fields = {name: self.pack(getattr(value, name), what) for name in names}
            return {"record": type(value).__name__, "fields": fields}
        if isinstance(value, np.random.RandomState):
            return {"random": self.pack(value.get_state(), what)}
        if hasattr(value, "isoformat") or type(value).__name__ in ("Interval", "Period"):
            saved = encode_value(value)
            again = decode_value(saved)
            if type(again) is type(value) and again == value:
                return {"other": saved}
        raise DataError(
            f"{what} is or holds {str(value)[:60]!r} of type {type(value).__name__}, which the file cannot hold; it holds "
            "numbers, texts, dates, arrays, and lists, tuples and dicts of them"
        )

    def _scalar(self, value: Any, what: str) -> Any:
        if value.dtype.kind in "biufU" and value.dtype.itemsize <= (8 if value.dtype.kind in "iuf" else 1 << 20):
            kind = "U" if value.dtype.kind == "U" else value.dtype.str
            return {"scalar": self.pack(value.item(), what), "dtype": kind}
        return self._other(value, what)

    def _array(self, value: Array, what: str) -> Any:
        if value.dtype.kind in "OU":
            kind = "texts" if value.dtype.kind == "U" else "objects"
            return {kind: [self.pack(one, what) for one in value.ravel().tolist()], "shape": list(value.shape)}
        short = value.dtype.str[1:]
        stored = WIDER.get(short, STORED.get(short))
        if stored is None:
            return self._other(value, what)
        name = f"array{len(self.arrays)}"
        self.arrays[name] = value.astype("<f2" if id(value) in self._narrow else stored)
        return {"array": name, "dtype": short}

    def _tree(self, tree: Taxonomy, what: str) -> int:
        if id(tree) not in self._known:
            names = [self.pack(name, f"a class of {what}") for name in tree.names]
            self.trees.append(
                {
                    "names": names,
                    "parent": tree.parent.tolist(),
                    "levels": list(tree.levels),
                    "separator": tree.separator,
                }
            )
            self._known[id(tree)] = (tree, len(self.trees) - 1)
        return self._known[id(tree)][1]


class Unpacker:
    """Inverts `Packer`; raises errors of nearly any kind where a file is damaged.

    Parameters
    ----------
    arrays : dict of arrays
    trees : list
        As `Packer` left them.
    """

    def __init__(self, arrays: Mapping[str, Array], trees: Sequence[Mapping[str, Any]]) -> None:
        self._arrays = arrays
        self._trees: list[Taxonomy] = []
        self._trees += [self._tree(tree) for tree in trees]

    def unpack(self, saved: Any) -> Any:
        if not isinstance(saved, (dict, list)):
            return saved
        need(isinstance(saved, dict), "a value is of an unknown kind")
        kind = next((kind for kind in self._kinds if kind in saved), None)
        need(kind is not None, "a value is of an unknown kind")
        return self._kinds[str(kind)](self, saved)

    def _float(self, saved: Any) -> float:
        return float(saved["float"])

    def _tree_of(self, saved: Any) -> Taxonomy:
        number = saved["tree"]
        need(type(number) is int and 0 <= number < len(self._trees), "a tree is missing")
        found: Taxonomy = self._trees[number]
        return found

    def _list(self, saved: Any) -> list[Any]:
        return [self.unpack(one) for one in saved["list"]]

    def _tuple(self, saved: Any) -> tuple[Any, ...]:
        return tuple(self.unpack(one) for one in saved["tuple"])

    def _dict(self, saved: Any) -> dict[Any, Any]:
        return {self.unpack(key): self.unpack(one) for key, one in saved["dict"]}

    def _scalar(self, saved: Any) -> Any:
        value = self.unpack(saved["scalar"])
        if saved["dtype"] == "U":
            return np.str_(value)
        return _plain_dtype(saved["dtype"]).type(value)

    def _array(self, saved: Any) -> Array:
        return self._arrays[saved["array"]].astype(_plain_dtype(saved["dtype"]))

    def _texts(self, saved: Any) -> Array:
        need(all(isinstance(one, str) for one in saved["texts"]), "a text is missing")
        return np.array(saved["texts"], dtype=str).reshape(saved["shape"])

    def _objects(self, saved: Any) -> Array:
        out = np.empty(len(saved["objects"]), dtype=object)
        out[:] = [self.unpack(one) for one in saved["objects"]]
        return out.reshape(saved["shape"])

    def _csr(self, saved: Any) -> Any:
        import scipy.sparse as sp

        data, indices, indptr = (self.unpack(part) for part in saved["csr"])
        rows, columns = saved["shape"]
        sizes = min(rows, columns) >= 0 and indptr.shape == (rows + 1,) and data.shape == indices.shape == (len(data),)
        need(sizes and indptr.dtype.kind == indices.dtype.kind == "i", "rows have a wrong shape")
        need(
            indptr[0] == 0 and indptr[-1] == len(data) and bool((np.diff(indptr) >= 0).all()), "rows have a wrong shape"
        )
        need(not len(data) or (indices.min() >= 0 and indices.max() < columns), "a column is out of range")
        return sp.csr_array((data, indices, indptr), shape=(rows, columns))

    def _record(self, saved: Any) -> Any:
        kind = getattr(import_module(f".{RECORDS[saved['record']]}", __package__), saved["record"])
        fields = {str(name): self.unpack(one) for name, one in saved["fields"].items()}
        need(not any(name.startswith("_") for name in fields), "a value has an unknown part")
        return kind(**fields)

    def _random(self, saved: Any) -> np.random.RandomState:
        out = np.random.RandomState()
        out.set_state(self.unpack(saved["random"]))
        return out

    def _other(self, saved: Any) -> Any:
        return decode_value(saved["other"])

    def _tree(self, saved: Mapping[str, Any]) -> Taxonomy:
        names, parent = [self.unpack(name) for name in saved["names"]], saved["parent"]
        need(len(names) == len(parent) and all(type(above) is int for above in parent), "a tree has a wrong size")
        path: list[int] = []
        for node, above in enumerate(parent):  # depth first: a parent is the last node, or above it
            while path and path[-1] != above:
                path.pop()
            need(bool(path) or above == -1, "a tree is not in order")
            path.append(node)
        need(all(isinstance(level, str) for level in saved["levels"]), "a level is no text")
        separator = saved.get("separator")
        need(separator is None or (isinstance(separator, str) and separator != ""), "a separator is no text")
        return Taxonomy(names, parent, saved["levels"], separator)

    _kinds: dict[str, Callable[[Any, Any], Any]] = {
        "float": _float, "tree": _tree_of, "list": _list, "tuple": _tuple, "dict": _dict, "scalar": _scalar, "array": _array,
        "texts": _texts, "objects": _objects, "csr": _csr, "record": _record, "random": _random, "other": _other,
    }  # fmt: skip


def _plain_dtype(text: str) -> np.dtype[Any]:
    dtype = np.dtype(text)
    need(dtype.kind in "biuf" and dtype.itemsize <= 8, "an array is of an unknown type")
    return dtype
