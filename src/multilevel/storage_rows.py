"""The rows of a fit saved with its data, and arrays of a file checked for their shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .archive import need

if TYPE_CHECKING:
    from .crossprod import CrossProducts, Rows
    from .design import Design

__all__ = ["design_with_rows", "rows_out", "shaped", "with_rows"]

Array = NDArray[Any]


def rows_out(design: Design) -> dict[str, Array]:
    """Arrays of the rows."""
    out: dict[str, Array] = {"y": design.y, "X": design.X}
    out |= {name: value for name in ("weights", "offset") if (value := getattr(design, name)) is not None}
    for t, term in enumerate(design.terms):
        out[f"codes{t}"] = term.codes
        if term.Z is not None:
            out[f"Z{t}"] = term.Z
    return out


def design_with_rows(design: Design, arrays: Mapping[str, Array]) -> Design:
    """The design with its rows again."""
    n = len(design.rows)
    terms = []
    for t, term in enumerate(design.terms):
        codes = shaped(arrays, f"codes{t}", (n,), np.int32)
        need(bool(((codes >= 0) & (codes < len(term.levels))).all()), "a code is out of range")
        Z = shaped(arrays, f"Z{t}", (n, len(term.names))) if f"Z{t}" in arrays else None
        need(Z is not None or len(term.names) == 1, "a matrix of random effects is missing")
        terms.append(replace(term, codes=codes, Z=Z))
    weights, offset = (shaped(arrays, name, (n,)) if name in arrays else None for name in ("weights", "offset"))
    return replace(
        design,
        y=shaped(arrays, "y", (n,)),
        X=shaped(arrays, "X", (n, len(design.names))),
        terms=tuple(terms),
        weights=weights,
        offset=offset,
    )


def with_rows(design: Design, arrays: Mapping[str, Array], blocks: CrossProducts) -> tuple[Design, Rows]:
    """The design with its rows again, and what the engine reads of them."""
    from .crossprod import Rows

    design = design_with_rows(design, arrays)
    n, terms, weights = len(design.y), design.terms, design.weights
    z = []
    for group in blocks.groups:
        parts = [np.ones((n, 1)) if (own := terms[t].Z) is None else own for t in group.terms]
        alone = group.k == 1 and terms[group.terms[0]].Z is None
        z.append(
            None if alone else np.ascontiguousarray((parts[0] if len(parts) == 1 else np.hstack(parts)) @ group.basis)
        )
    rows = Rows(
        [terms[g.terms[0]].codes for g in blocks.groups],
        z,
        [g.levels for g in blocks.groups],
        np.ascontiguousarray(design.X @ blocks.x_basis),
        None if weights is None else weights / blocks.unit**2,
    )
    return design, rows


def shaped(arrays: Mapping[str, Array], name: str, shape: tuple[int, ...], dtype: Any = np.float64) -> Array:
    """An array of the file, of the shape and type that the rest of the file calls for."""
    value = arrays[name]
    need(value.shape == shape and value.dtype == dtype, f"array {name!r} has a wrong shape")
    return value
