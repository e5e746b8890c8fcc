"""Contrast codings of factors, with R's matrices and formulaic's column names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import DataError, OptionError, listing, nearest
from .frame import label_text

__all__ = ["Coded", "Contrast", "as_contrast", "contr", "helmert_matrix", "poly_matrix", "sum_matrix"]

Matrix = NDArray[np.float64]
_KINDS = ("treatment", "sum", "helmert", "poly")
_MARKS = {"treatment": "T.", "sum": "S.", "helmert": "H.", "poly": "", "custom": ""}


def sum_matrix(levels: int) -> Matrix:
    """R's contr.sum: the last level is minus the sum of the others."""
    out = np.eye(levels, levels - 1)
    out[-1, :] = -1.0
    return out


def helmert_matrix(levels: int) -> Matrix:
    """R's contr.helmert: each level against the mean of those before it."""
    out = np.zeros((levels, levels - 1))
    for column in range(levels - 1):
        out[: column + 1, column] = -1.0
        out[column + 1, column] = column + 1.0
    return out


def poly_matrix(levels: int) -> Matrix:
    """R's contr.poly: orthonormal polynomials on equally spaced scores, leading coefficients positive."""
    scores = np.arange(levels, dtype=np.float64) - (levels - 1) / 2.0
    columns = [np.full(levels, levels**-0.5)]
    for _ in range(levels - 1):
        new = scores * columns[-1]
        for _ in range(2):  # twice is enough to keep columns orthogonal
            for old in columns:
                new = new - old * (old @ new)
        columns.append(new / np.sqrt(new @ new))
    return np.column_stack(columns[1:]) if levels > 1 else np.empty((levels, 0))


@dataclass(frozen=True, eq=False)
class Contrast:
    """A coding: its kind, the reference level of a treatment coding, or the matrix of one's own.

    Attributes
    ----------
    kind : str
        "treatment", "sum", "helmert", "poly" or "custom".
    base : object
        Reference level of a treatment coding; None for the first.
    matrix : ndarray or None
        (levels, columns), for kind "custom".
    labels : tuple of str
        Column labels, for kind "custom".
    """

    kind: str = "treatment"
    base: Any = None
    matrix: Matrix | None = None
    labels: tuple[str, ...] = ()

    def reduced(self, levels: list[Any], name: str) -> tuple[Matrix, list[str]]:
        """Coding matrix (levels, columns) beside an intercept, and labels such as "[T.b]"."""
        count = len(levels)
        texts = [label_text(level) for level in levels]
        if self.kind == "treatment":
            base = self._base_index(levels, name)
            kept = [index for index in range(count) if index != base]
            matrix, fields = np.eye(count)[:, kept], [texts[index] for index in kept]
        elif self.kind == "sum":
            matrix, fields = sum_matrix(count), texts[:-1]
        elif self.kind == "helmert":
            matrix, fields = helmert_matrix(count), texts[1:]
        elif self.kind == "poly":
            short = {1: ".L", 2: ".Q", 3: ".C"}
            matrix, fields = poly_matrix(count), [short.get(power, f"^{power}") for power in range(1, count)]
        else:
            assert self.matrix is not None
            if self.matrix.shape[0] != count:
                raise DataError(
                    f"the contrast matrix of {name!r} has {self.matrix.shape[0]} rows, but {name!r} has "
                    f"{count} levels: {listing(texts)}"
                )
            matrix, fields = self.matrix, list(self.labels)
        return matrix, [f"[{_MARKS[self.kind]}{field}]" for field in fields]

    def _base_index(self, levels: list[Any], name: str) -> int:
        if self.base is None:
            return 0
        for index, level in enumerate(levels):
            if level == self.base and isinstance(level, bool) == isinstance(self.base, bool):
                return index
        texts = [label_text(level) for level in levels]
        raise DataError(f"the reference level {self.base!r} is not a level of {name!r}: {listing(texts)}")


@dataclass(frozen=True, eq=False)
class Coded:
    """A factor column ready for coding: codes (n,), levels in order, contrast."""

    name: str
    codes: NDArray[np.int32]
    levels: list[Any]
    contrast: Contrast

    def columns(self, reduced: bool) -> dict[str, Dummy]:
        """Columns by label; nothing is computed until they are written."""
        if reduced:
            if len(self.levels) < 2:
                return {}
            matrix, fields = self.contrast.reduced(self.levels, self.name)
        else:
            matrix = np.eye(len(self.levels))
            fields = [f"[{label_text(level)}]" for level in self.levels]
        return {
            field: Dummy(self.codes, np.ascontiguousarray(matrix[:, j])) for j, field in enumerate(fields)
        }

    def ordered_as(self, wanted: list[Any]) -> Coded:
        """The same factor with its levels in a stated order."""
        order = {label: index for index, label in enumerate(dict.fromkeys(wanted))}
        outside = [label for label in self.levels if label not in order]
        if outside:
            raise DataError(
                f"column {self.name!r} has the value {outside[0]!r}, which is not among the levels given: "
                f"{listing(wanted)}"
            )
        present = set(self.levels)
        kept = [label for label in order if label in present]
        position = {label: index for index, label in enumerate(kept)}
        table = np.array([*(position[label] for label in self.levels), -1], dtype=np.int32)
        return replace(self, codes=table[self.codes], levels=kept)


@dataclass(frozen=True, eq=False, slots=True)
class Dummy:
    """One coded column, `values[codes]`, computed piece by piece."""

    codes: NDArray[np.int32]
    values: Matrix

    def __getitem__(self, rows: slice) -> Matrix:
        return self.values[self.codes[rows]]


def as_contrast(spec: Any, column: str = "") -> Contrast:
    """Read what a user may give as a contrast: a name, a `Contrast`, or a matrix.

    Raises
    ------
    OptionError
        Listing what is allowed.
    """
    if isinstance(spec, Contrast):
        return spec
    if callable(spec):
        return as_contrast(spec(), column)
    where = f" of {column!r}" if column else ""
    if isinstance(spec, str):
        kind = spec.lower().removeprefix("contr.")
        if kind in _KINDS:
            return Contrast(kind)
        hint = nearest(kind, _KINDS)
        raise OptionError(
            f"unknown contrast {spec!r}{where}; {hint + ' ' if hint else ''}allowed are {listing(_KINDS)}, "
            "or a matrix with a row for each level"
        )
    labels = [str(label) for label in spec.columns] if hasattr(spec, "columns") else []
    try:
        matrix = np.array(spec, dtype=np.float64)
    except (TypeError, ValueError):
        matrix = np.empty(0)
    if matrix.ndim != 2 or not matrix.size or not np.isfinite(matrix).all():
        raise OptionError(
            f"the contrast{where} must be one of {listing(_KINDS)}, or a finite matrix with a row for each "
            f"level, not {type(spec).__name__}"
        )
    return Contrast("custom", None, matrix, tuple(labels or map(str, range(1, matrix.shape[1] + 1))))


def treatment(base: Any = None, *, reference: Any = None) -> Contrast:
    """Treatment coding, `Treatment("b")` inside a formula."""
    return Contrast("treatment", reference if base is None else base)


def _plain(kind: str) -> Any:
    def make() -> Contrast:
        return Contrast(kind)

    make.__name__ = kind
    return make


class contr:  # noqa: N801  (R's name)
    """R's and formulaic's spelling, `C(x, contr.sum)`."""

    treatment = staticmethod(treatment)
    sum = staticmethod(_plain("sum"))
    helmert = staticmethod(_plain("helmert"))
    poly = staticmethod(_plain("poly"))


NAMES: dict[str, Any] = {
    "Treatment": treatment,
    "Sum": contr.sum,
    "Helmert": contr.helmert,
    "Poly": contr.poly,
}
