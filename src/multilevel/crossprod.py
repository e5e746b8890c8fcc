"""From a Design to cross-product blocks in well-conditioned coordinates; the last place that touches the rows.

The engine never sees the user's columns: X is orthogonalised, the effects of each term are whitened and y is stripped of
its regression on X and scaled. A price near 1e6 or a year near 2000 then costs no digits, and the optimiser is
invariant to centring and scaling. Everything is undone exactly in `reml`: these are changes of coordinates, not of the
model.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .covariance import Structure
from .errors import DataError

if TYPE_CHECKING:
    from .design import Design, Term

Array = NDArray[np.float64]

MEMORY_LIMIT = 12e9  # bytes one factorisation may take before we refuse; see docs/limitations.md


@dataclass(frozen=True)
class Group:
    """One grouping factor of the engine: the terms that share it, merged.

    Attributes
    ----------
    name : str
        "Subject", "batch:cask".
    terms : tuple of int
        Positions of its terms in the design.
    slices : tuple of slice
        Which of the group's k effects belong to each term.
    basis : (k, k) array
        The effects in engine coordinates are ``Z @ basis``; the group's b is ``basis @ b_engine``.
    """

    name: str
    terms: tuple[int, ...]
    slices: tuple[slice, ...]
    levels: int
    k: int
    basis: Array


@dataclass(frozen=True)
class CrossProducts:
    """Blocks of one design with the way back to the user's coordinates.

    Attributes
    ----------
    core
        Compiled blocks and symbolic plan.
    components : list of (int, list of int)
        Group and effects that covary freely, with ``owners`` saying of which (term, effects).
    x_basis : (p, p) array
        ``X @ x_basis`` are the engine's columns: beta is ``x_basis @ (scale * beta_engine + shift)``.
    shift : (p,) array
        Regression of y on the engine's columns.
    scale : float
        What y was divided by after that.
    unit : float
        Root of the mean weight. The engine's weights have mean one: sigma is ``unit`` times the engine's, a relative
        factor the engine's divided by it.
    log_det : float
        What known covariances add to -2 log-likelihood: log|K| of levels, log|Cov(e) / sigma**2| of rows.
    """

    core: Any
    groups: tuple[Group, ...]
    structures: tuple[Structure, ...]
    components: list[tuple[int, list[int]]]
    owners: list[tuple[int, list[int]]]
    x_basis: Array
    shift: Array
    scale: float
    unit: float
    n: int
    p: int
    rows: Rows = field(repr=False)
    log_det: float = 0.0

    def __getstate__(self) -> dict[str, Any]:
        from . import _core

        return {**self.__dict__, "core": _core.export_blocks(self.core)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        from . import _core

        self.__dict__.update(state, core=_core.import_blocks(state["core"]))


@dataclass(frozen=True)
class Rows:
    """What the engine reads: kept for refits with another response."""

    codes: list[NDArray[np.int32]]
    z: list[Array | None]
    levels: list[int]
    x: Array
    weights: Array | None
    codes2: list[NDArray[np.int32] | None] = field(default_factory=list)
    z2: list[Array | None] = field(default_factory=list)


@dataclass(frozen=True)
class Parts:
    """A design in the engine's coordinates, before its rows are summed.

    Attributes
    ----------
    rows : Rows
    y : (n,) array
        Response without its regression on X, scaled.
    priors : list of tuples
        Known precisions of levels, as `levels.known_priors` gives them, with log|K| in all.
    """

    rows: Rows
    y: Array
    groups: tuple[Group, ...]
    structures: tuple[Structure, ...]
    components: list[tuple[int, list[int]]]
    owners: list[tuple[int, list[int]]]
    x_basis: Array
    shift: Array
    scale: float
    unit: float
    priors: list[Any]
    log_det: float


def default_threads() -> int:
    """Processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def whitening(columns: Array) -> Array:
    """(k, k) upper-triangular T such that ``columns @ T`` is close to orthogonal with mean square one.

    Only conditioning depends on it, never the answer. Gram first (one pass); QR where the Gram matrix lost digits;
    column scales alone where the columns are collinear.
    """
    n, k = columns.shape
    gram = columns.T @ columns / n
    scale = np.sqrt(np.diag(gram))
    scale[scale == 0] = 1.0
    if k == 1:
        return 1.0 / scale.reshape(1, 1)
    try:
        root = np.linalg.cholesky(gram / np.outer(scale, scale)).T
        if np.abs(np.diag(root)).min() < 1e-4:
            root = np.linalg.qr(columns / scale, mode="r") / np.sqrt(n)
    except np.linalg.LinAlgError:
        root = np.linalg.qr(columns / scale, mode="r") / np.sqrt(n)
    diagonal = np.abs(np.diag(root))
    if diagonal.min() < 1e-10 * diagonal.max():
        return np.diag(1.0 / scale)
    inverse = np.linalg.solve(root, np.eye(k))
    return np.asarray(np.triu(inverse) / scale[:, None])


def build(design: Design, threads: int) -> CrossProducts:
    """Sum the rows of a design into blocks.

    Raises
    ------
    DataError
        If y is an exact linear function of the fixed effects, or the model needs more memory than MEMORY_LIMIT.
    """
    return assemble(prepare(design), threads)


def prepare(design: Design) -> Parts:
    """The rows of a design in the engine's coordinates."""
    check_range(design)
    groups, codes, z, components, owners, structures = merged_groups(design)
    x_basis = whitening(design.X) if design.X.shape[1] else np.zeros((0, 0))
    x = np.ascontiguousarray(design.X @ x_basis)
    mean_weight = 1.0 if design.weights is None else float(np.mean(design.weights))
    weights = None if design.weights is None else design.weights / mean_weight
    y, shift, scale = center_response(design, x, weights)
    rows = Rows(codes, z, [g.levels for g in groups], x, weights)
    priors, log_det = known_priors(design, groups)
    return Parts(
        rows,
        y,
        groups,
        structures,
        components,
        owners,
        x_basis,
        shift,
        scale,
        float(np.sqrt(mean_weight)),
        priors,
        log_det,
    )


def merged_groups(
    design: Design,
) -> tuple[
    tuple[Group, ...],
    list[NDArray[np.int32]],
    list[Array | None],
    list[tuple[int, list[int]]],
    list[tuple[int, list[int]]],
    tuple[Structure, ...],
]:
    """Grouping factors in elimination order: groups, codes, whitened effects, components with their owners, structures."""
    structures = tuple(Structure(t.structure, len(t.names)) for t in design.terms)
    groups, codes, z, components, owners = [], [], [], [], []
    for f, terms in enumerate(_group_order(design)):
        group, columns, parts, sources = _merge(design, terms, structures)
        groups.append(group)
        codes.append(np.ascontiguousarray(design.terms[terms[0]].codes))
        z.append(columns)
        components += [(f, part) for part in parts]
        owners += sources
    return tuple(groups), codes, z, components, owners, structures


def assemble(parts: Parts, threads: int) -> CrossProducts:
    """Sum rows in the engine's coordinates into blocks."""
    from . import _core

    r = parts.rows
    core = _core.build(r.codes, r.z, r.levels, r.x, parts.y, r.weights, threads, r.codes2, r.z2, parts.priors)
    _check_memory(core, parts.groups)
    return CrossProducts(
        core,
        parts.groups,
        parts.structures,
        parts.components,
        parts.owners,
        parts.x_basis,
        parts.shift,
        parts.scale,
        parts.unit,
        len(parts.y),
        r.x.shape[1],
        r,
        parts.log_det,
    )


def known_priors(design: Design, groups: tuple[Group, ...]) -> tuple[list[Any], float]:
    """Precisions of levels that covary in a known way, for the core, and what they add to the criterion."""
    priors: list[Any] = []
    log_det = 0.0
    for f, group in enumerate(groups):
        known = design.known.get(group.name)
        if known is not None:
            priors.append((f, *known.lower()))
            log_det += group.k * known.log_det
    return priors, log_det


def check_range(design: Design) -> None:
    """Refuse columns whose squares leave the range of floating point."""
    sides = [("fixed effect", design.names, design.X)]
    sides += [("random effect", t.names, t.Z) for t in design.terms if t.Z is not None and t.Z is not design.X]
    for what, names, columns in sides:
        if not columns.shape[1]:
            continue
        squares = np.einsum("ij,ij->j", columns, columns)
        if np.isfinite(squares).all() and squares.min() > 0 and columns.max() < 1e100 and columns.min() > -1e100:
            continue  # the usual case, in three fast passes
        top = np.maximum(columns.max(axis=0), -columns.min(axis=0))
        bad = np.flatnonzero((top > 1e100) | ((top < 1e-100) & (top > 0)))
        if len(bad):
            raise DataError(
                f"the {what} {names[bad[0]]!r} reaches {top[bad[0]]:.3g} at most, whose square leaves the range of floating "
                "point; rescale that column, for example to other units"
            )


def center_response(design: Design, x: Array, w: Array | None) -> tuple[Array, Array, float]:
    """y without offset and regression on x, and scaled to mean square one: (y, shift, scale)."""
    y = design.y if design.offset is None else design.y - design.offset
    n = len(y)
    top = float(max(y.max(), -y.min()))
    if not 1e-100 < top < 1e100:
        raise DataError(
            f"the response {design.response!r} less the offset reaches {top:.3g}, whose square leaves the range of floating "
            "point; rescale it, for example to other units"
        )
    shift: Array = np.zeros(x.shape[1])
    rest: Array = y
    for _ in range(2):  # x is only nearly orthogonal: once more mops up
        if not x.shape[1]:
            break
        if w is None:
            step = x.T @ rest / n
        else:
            step = np.asarray(
                np.linalg.lstsq(x.T @ (w[:, None] * x), x.T @ (w * rest), rcond=None)[0], dtype=np.float64
            )
        shift = np.asarray(shift + step)
        rest = np.asarray(rest - x @ step)
    scale = float(np.sqrt(rest @ rest / n))
    if not scale > 1e-12 * float(np.sqrt(y @ y / n)):
        raise DataError(
            f"the response {design.response!r} is an exact linear function of the fixed effects (residuals are zero to "
            "12 digits), so there is no variance left to model; check the response and the columns it was made from"
        )
    return rest / scale, shift, scale


def _group_order(design: Design) -> list[list[int]]:
    """Terms by grouping factor; factors by elimination order: nested ones first, then by size."""
    by_name: dict[str, list[int]] = {}
    for t, term in enumerate(design.terms):
        by_name.setdefault(term.group, []).append(t)
    order = sorted(by_name.values(), key=lambda ts: -_size(design, ts))
    for i in range(1, len(order)):
        for j in range(i):
            inner, outer = design.terms[order[i][0]], design.terms[order[j][0]]
            if len(inner.levels) > len(outer.levels) and _nested(inner, outer):
                order.insert(j, order.pop(i))
                break
    return order


def _size(design: Design, terms: list[int]) -> int:
    return len(design.terms[terms[0]].levels) * sum(len(design.terms[t].names) for t in terms)


def _nested(inner: Term, outer: Term) -> bool:
    """Whether each level of `inner` meets one level of `outer` only."""
    first = np.full(len(inner.levels), -1, dtype=np.int64)
    first[inner.codes] = outer.codes
    return bool(np.array_equal(first[inner.codes], outer.codes))


def _merge(
    design: Design, terms: list[int], structures: tuple[Structure, ...]
) -> tuple[Group, Array | None, list[list[int]], list[tuple[int, list[int]]]]:
    """One engine factor from the terms on one group: basis, whitened columns, components and their owners."""
    name = design.terms[terms[0]].group
    seen: dict[str, int] = {}
    for t in terms:
        for effect in design.terms[t].names:
            if effect in seen:
                raise DataError(
                    f"the effect {effect!r} varies by {name!r} in two terms of the formula; its variance cannot be split "
                    "between them: keep it in one (for example (0 + x | g) beside (1 | g))"
                )
            seen[effect] = t
    k = len(seen)
    only = design.terms[terms[0]]
    levels = len(only.levels)
    if k == 1 and only.Z is None:
        own = structures[terms[0]].components()
        return Group(name, (terms[0],), (slice(0, 1),), levels, 1, np.eye(1)), None, own, [(terms[0], i) for i in own]
    blocks = [np.ones((len(design.y), 1)) if (z := design.terms[t].Z) is None else z for t in terms]
    basis = np.zeros((k, k))
    slices, parts, owners, at = [], [], [], 0
    for t, block in zip(terms, blocks, strict=True):
        if not structures[t].free:
            # scaled, for the search's steps; by one number where the effects share an sd
            columns = list(range(at, at + block.shape[1]))
            size = np.sqrt(np.einsum("ij,ij->j", block, block) / np.maximum(np.count_nonzero(block, axis=0), 1))
            size = np.where(size > 0, size, 1.0) if structures[t].n_sd > 1 else np.sqrt(np.mean(size**2))
            basis[columns, columns] = 1.0 / size
        for part in structures[t].components():
            columns = [at + i for i in part]
            basis[np.ix_(columns, columns)] = whitening(block[:, part])
            parts.append(columns)
            owners.append((t, part))
        slices.append(slice(at, at + block.shape[1]))
        at += block.shape[1]
    z = np.ascontiguousarray((blocks[0] if len(blocks) == 1 else np.hstack(blocks)) @ basis)
    return Group(name, tuple(terms), tuple(slices), levels, k, basis), z, parts, owners


def _check_memory(core: Any, groups: tuple[Group, ...]) -> None:
    if core.bytes > MEMORY_LIMIT:
        sizes = ", ".join(f"{g.name} ({g.levels} levels x {g.k})" for g in groups)
        raise DataError(
            f"this model needs about {core.bytes / 1e9:.0f} GB: the crossed factors leave a dense block of "
            f"{core.tail_size} rows ({sizes}). Allowed are {MEMORY_LIMIT / 1e9:.0f} GB. Drop or coarsen all but the "
            "largest crossed factor, or fit a sample of its levels"
        )
