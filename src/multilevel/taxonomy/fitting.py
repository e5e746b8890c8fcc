"""Fits of a classifier: held-out rows, scales, the posterior mode of the deviations."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from ..errors import ConvergenceWarning, OptionError, users_level
from .objective import Objective, leaf_coefficients, leaf_probabilities
from .problems import LocalPiece, LocalTree, Rows, local_trees, pieces
from .scales import ScaleShape, Tuned, each, tune
from .tree import Taxonomy

__all__ = ["FittedTree", "Settings", "fit_tree", "hold_out"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]


# a problem's node, its features (None: all) and its whitened deviations
Start = tuple[int | None, npt.NDArray[np.intp] | None, npt.NDArray[Any]]


@dataclass(frozen=True)
class Settings:
    """How to fit.

    Attributes
    ----------
    likelihood : "flat" or "nested"
    scales : "holdout", "cv", "fixed" or "evidence"
        How the scales are found; the first value is kept for "fixed".
    first : float array (scales,)
        First value of each scale, the middle of its prior.
    max_iter : int
        Evaluations of each minimisation at most.
    tol : float
        Each minimisation ends when the objective is within `tol` per unit of weight of its minimum.
    threads : int
    validation_fraction : float
    folds : int
        Of "cv".
    seed : numpy.random.Generator
    progress : callable, optional
        Called with (step, held-out loss) after each step of the scales.
    """

    likelihood: str
    scales: str
    first: Floats
    max_iter: int
    tol: float
    threads: int
    validation_fraction: float
    folds: int
    generator: np.random.Generator
    progress: Callable[[int, float], None] | None = None


@dataclass
class FittedTree:
    """A fitted softmax over a tree.

    Attributes
    ----------
    tree : Taxonomy
    likelihood : "flat" or "nested"
    deviations : array or csr_array (features + 1, nodes)
        Deviation of each node's coefficients from its parent's; the last row is the intercepts'. Of "nested": the
        coefficients of each child against its siblings, sparse.
    scales : float array
    shape : ScaleShape
    profile : list of (scales, loss)
        Held-out log-loss per unit of weight on the way to the scales.
    value, gap : float
        Objective, and a bound of what it is above its minimum.
    evaluations : int
    converged : bool
    offset : array (leaves,), optional
        Added to the logits.
    """

    tree: Taxonomy
    likelihood: str
    deviations: Any
    scales: Floats
    shape: ScaleShape
    profile: list[tuple[Floats, float]] = field(default_factory=list)
    value: float = 0.0
    gap: float = 0.0
    evaluations: int = 0
    converged: bool = True
    offset: npt.NDArray[Any] | None = None

    def leaf_probabilities(self, x: Any, threads: int = 1) -> Floats:
        """Probability of each leaf, (rows, leaves)."""
        if self.likelihood == "flat":
            return leaf_probabilities(x, self.leaf_coefficients(), threads, self.offset)
        out = np.empty((x.shape[0], len(self.tree.leaves)))
        step = max(1, 4_000_000 // len(self.tree))
        for at in range(0, x.shape[0], step):
            out[at : at + step] = self._nested(x[at : at + step])
        return out

    def leaf_coefficients(self) -> npt.NDArray[Any]:
        """(features + 1, leaves); of "flat" only."""
        if self.likelihood == "nested":
            raise OptionError(
                "likelihood='nested' has no coefficients of its leaves: a softmax at each node has its own"
            )
        if self._leaf_coefficients is None:
            self._leaf_coefficients = leaf_coefficients(self.tree, self.deviations)
        return self._leaf_coefficients

    _leaf_coefficients: npt.NDArray[Any] | None = None

    def _nested(self, x: Any) -> Floats:
        """Products down the tree of each child's probability given its parent."""
        logits = np.asarray((x @ self.deviations[:-1]).toarray(), dtype=np.float64) + self.deviations[[-1]].toarray()
        logs = np.zeros_like(logits)
        tree = self.tree
        for above, below in [(-1, tree.top), *enumerate(tree.children)]:
            if below:
                z = np.ascontiguousarray(logits[:, list(below)])  # each row summed by itself, whatever rows there are
                z -= z.max(axis=1, keepdims=True)
                z -= np.log(np.exp(z).sum(axis=1, keepdims=True))
                logs[:, list(below)] = z + (logs[:, [above]] if above >= 0 else 0.0)
        out = np.exp(logs[:, tree.leaves])
        return np.asarray(out / out.sum(axis=1, keepdims=True))


def fit_tree(
    tree: Taxonomy, rows: Rows, shape: ScaleShape, settings: Settings, start: FittedTree | None = None
) -> FittedTree:
    """Scales and deviations from rows.

    Raises
    ------
    OptionError
        More memory needed than the machine has.
    """
    locals_ = local_trees(tree, settings.likelihood)
    check_memory(tree, rows, settings)
    tuned, starts = _tuned(tree, locals_, rows, shape, settings)
    threads = settings.threads if settings.likelihood == "flat" else 1
    parts = list(pieces(tree, locals_, shape, rows, None, threads))
    if start is not None:
        _begin(parts, start, tuned.scales)
    else:
        _begin_at_fewer_rows(parts, starts)
    gap = settings.tol

    def minimise(part: LocalPiece) -> tuple[float, float, int, bool]:
        piece = part.piece
        found = piece.fit.minimise(
            piece.w, shape.on(part.local.nodes).matrix(tuned.scales), _allowed(piece.fit, gap), settings.max_iter
        )
        piece.w = found.w
        return found.value, found.gap, found.evaluations, found.converged

    ends = each(minimise, parts, 1 if threads > 1 else settings.threads)
    converged = all(end[3] for end in ends)
    out = FittedTree(
        tree, settings.likelihood, _deviations(tree, parts, shape, tuned.scales, rows), tuned.scales, shape, tuned.profile,
        sum(end[0] for end in ends), sum(end[1] for end in ends), sum(end[2] for end in ends), converged, rows.offset,
    )  # fmt: skip
    if not converged:
        warnings.warn(
            f"the fit has not reached its mode in {max(end[2] for end in ends)} evaluations (its objective may be "
            f"{out.gap:.3g} above the least): raise max_iter={settings.max_iter}, or scale the features to rows of length 1",
            ConvergenceWarning,
            stacklevel=users_level(),
        )
    return out


def _allowed(objective: Objective, tol: float) -> float:
    return tol * max(float(objective.weight.sum()), 1.0)


def _tuned(
    tree: Taxonomy, locals_: list[LocalTree], rows: Rows, shape: ScaleShape, settings: Settings
) -> tuple[Tuned, list[Start]]:
    """Scales, and where the fit to all rows may begin."""
    if settings.scales == "fixed" or not np.any(shape.cell >= 0):
        return Tuned(settings.first), []
    if settings.scales == "evidence":
        from .evidence import evidence_scales

        return evidence_scales(tree, locals_, rows, shape, settings), []
    flat = settings.likelihood == "flat"
    found: list[LocalPiece] = []
    for fit, held_out in _splits(rows, settings):
        fitted = rows.take(fit)
        found += pieces(
            tree, locals_, shape, fitted, as_new(rows.take(held_out), fitted), settings.threads if flat else 1
        )
    if not any(part.piece.held_out is not None for part in found):
        warnings.warn(
            "no rows could be held out to find the scales (every class has one item only, or copies of one): "
            "they keep their first values",
            ConvergenceWarning,
            stacklevel=2,
        )
        return Tuned(settings.first), []
    tolerance = max(settings.tol, 1e-4)
    threads = 1 if flat else settings.threads
    tuned = tune(
        [part.piece for part in found],
        settings.first,
        tolerance,
        settings.max_iter,
        threads,
        progress=settings.progress,
    )
    starts = {part.local.above: part for part in found if part.piece.scales is not None}
    return tuned, [(above, part.features, part.piece.at_scales(tuned.scales)) for above, part in starts.items()]


def _splits(rows: Rows, settings: Settings) -> list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    alike = row_hash(rows.x)
    if settings.scales == "holdout":
        return [hold_out(rows.nodes, alike, settings.validation_fraction, settings.generator)]
    fold = folds(rows.nodes, alike, settings.folds, settings.generator)
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(settings.folds)]


def as_new(held_out: Rows, fitted: Rows) -> Rows:
    """Held-out rows as they would come from outside: without the features that no fitted row has.

    Where all rows have one length, as texts have after TF-IDF, the rest of a row is brought to that length again: a text
    whose unknown words were never counted has it too. Else the shorter rows would call for larger scales.
    """
    known = np.zeros(fitted.x.shape[1], dtype=bool)
    known[fitted.x.indices[fitted.x.data != 0]] = True
    x = held_out.x.copy()
    lengths = _lengths(fitted.x)
    x.data[~known[x.indices]] = 0
    x.eliminate_zeros()
    if len(lengths) and np.ptp(np.append(lengths[lengths > 0], lengths.max())) <= 1e-3 * lengths.max():
        now = _lengths(x)
        factor = np.divide(lengths.max(), now, out=np.ones_like(now), where=now > 0)
        x.data *= np.repeat(factor, np.diff(x.indptr)).astype(x.dtype)
    return Rows(x, held_out.nodes, held_out.weight, held_out.group, held_out.offset)


def _lengths(x: Any) -> Floats:
    return np.sqrt(np.asarray(x.multiply(x).sum(axis=1), dtype=np.float64)).ravel()


def row_hash(x: Any) -> npt.NDArray[np.int64]:
    """A number for each row's content: equal rows have equal numbers."""
    weights = np.random.default_rng(20).standard_normal(x.shape[1])
    return np.asarray(sp.csr_array(x, dtype=np.float64) @ weights, dtype=np.float64).view(np.int64)


def _shuffled(
    nodes: Ints, alike: npt.NDArray[np.int64], generator: np.random.Generator
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Ints]:
    """Sets of equal rows in order of their class, at random within it; the set of each row; the classes in order."""
    _, where, sets = np.unique(np.column_stack([nodes, alike]), axis=0, return_index=True, return_inverse=True)
    order = np.lexsort((generator.random(len(where)), nodes[where]))
    return order, np.asarray(sets).reshape(-1), nodes[where][order]


def _places(classes: Ints) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Of sets sorted by class: number of the class, place within it, and how many sets it has."""
    begins = np.flatnonzero(np.concatenate([[True], classes[1:] != classes[:-1]]))
    counts = np.diff(np.concatenate([begins, [len(classes)]]))
    number = np.repeat(np.arange(len(begins)), counts)
    return number, np.arange(len(classes)) - begins[number], counts[number]


def hold_out(
    nodes: Ints, alike: npt.NDArray[np.int64], fraction: float, generator: np.random.Generator
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows to fit and rows to hold out: a fraction of each class, at least one item of each class fitted.

    Equal rows of a class stay together, so that no held-out row has its copy among the fitted ones.
    """
    order, sets, classes = _shuffled(nodes, alike, generator)
    number, place, counts = _places(classes)
    wanted = fraction * counts
    # a class of few items gives one by chance, so that the fraction holds over all classes
    chance = generator.random(int(number[-1]) + 1)[number]
    wanted = np.minimum(np.floor(wanted) + (chance < wanted % 1), counts - 1)
    held = np.zeros(len(order), dtype=bool)
    held[order[place < wanted]] = True
    return np.flatnonzero(~held[sets]), np.flatnonzero(held[sets])


def folds(
    nodes: Ints, alike: npt.NDArray[np.int64], count: int, generator: np.random.Generator
) -> npt.NDArray[np.intp]:
    """A fold for each row, balanced by class; a class's only item is in no fold (-1), thus always fitted."""
    order, sets, classes = _shuffled(nodes, alike, generator)
    number, place, counts = _places(classes)
    fold = np.empty(len(order), dtype=np.intp)
    fold[order] = np.where(counts > 1, (place + number) % count, -1)
    return fold[sets]


def _begin(parts: Sequence[LocalPiece], start: FittedTree, scales: Floats) -> None:
    """Begin at another fit's deviations of the same features and tree."""
    for part in parts:
        matrix = part.piece.shape.matrix(scales)
        u = start.deviations[:, part.local.nodes]
        if part.features is not None:
            u = u[np.concatenate([part.features, [start.deviations.shape[0] - 1]])]
        u = np.asarray(u.toarray()) if hasattr(u, "toarray") else u
        by_row = np.concatenate([matrix[:-1][part.piece.group], matrix[-1:]])
        part.piece.w = np.divide(u, by_row, out=np.zeros_like(u), where=by_row > 0).astype(part.piece.fit.dtype)


def _begin_at_fewer_rows(parts: Sequence[LocalPiece], starts: Sequence[Start]) -> None:
    """Begin at the deviations that the same problems had with fewer rows."""
    before = {above: (features, w) for above, features, w in starts}
    for part in parts:
        if part.local.above not in before:
            continue
        features, w = before[part.local.above]
        if part.features is None or features is None:
            part.piece.w = w
            continue
        _, here, there = np.intersect1d(part.features, features, assume_unique=True, return_indices=True)
        part.piece.w[here] = w[there]
        part.piece.w[-1] = w[-1]


def _deviations(tree: Taxonomy, parts: Sequence[LocalPiece], shape: ScaleShape, scales: Floats, rows: Rows) -> Any:
    """u = s w of all nodes."""
    scaled = []
    for part in parts:
        matrix = part.piece.shape.matrix(scales).astype(part.piece.fit.dtype)
        piece = part.piece
        if len(matrix) == 2:
            piece.w[:-1] *= matrix[0]
        else:
            piece.w[:-1] *= matrix[:-1][piece.group]
        piece.w[-1] *= matrix[-1]
        scaled.append(piece.w)
    if len(parts) == 1 and parts[0].features is None:
        return scaled[0]
    features = rows.x.shape[1]
    columns: list[Any] = []
    for part, u in zip(parts, scaled, strict=True):
        assert part.features is not None
        at = np.concatenate([part.features, [features]])
        row, column = np.meshgrid(at, part.local.nodes, indexing="ij")
        columns.append((u.ravel(), row.ravel(), column.ravel()))
    if not columns:
        return sp.csr_array((features + 1, len(tree)), dtype=rows.x.dtype)
    data, row, column = (np.concatenate([c[k] for c in columns]) for k in range(3))
    return sp.csr_array((data, (row, column)), shape=(features + 1, len(tree)))


VECTORS = 10  # of the size of the coefficients that a minimisation holds


def memory_needed(tree: Taxonomy, rows: Rows, likelihood: str) -> float:
    """Bytes a fit needs beside the data, roughly."""
    size = rows.x.dtype.itemsize
    stride = -(-len(tree.leaves) // 16) * 16
    if likelihood == "flat":
        vectors = VECTORS * (rows.x.shape[1] + 1) * len(tree)
        return float(size * (vectors + 2 * stride * (rows.x.shape[1] + rows.x.shape[0])))
    depth = int(tree.depth.max())
    return float((size + 16) * depth * rows.x.nnz * 4)


def _allowed_memory() -> float:
    """What a container may take."""
    try:
        with open("/sys/fs/cgroup/memory.max") as file:
            return float(file.read())
    except (OSError, ValueError):  # no container, or no limit ("max")
        return np.inf


def check_memory(tree: Taxonomy, rows: Rows, settings: Settings) -> None:
    try:
        have = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError, AttributeError):  # not told by this system
        return
    have = min(have, _allowed_memory())
    need = memory_needed(tree, rows, settings.likelihood)
    if settings.likelihood == "flat" and need > 0.8 * have:
        raise OptionError(
            f"one softmax over {len(tree.leaves)} leaves and {rows.x.shape[1]} features needs about "
            f"{need / 1e9:.0f} GB, and this machine "
            f"has {have / 1e9:.0f} GB: take likelihood='nested' "
            f"(about {memory_needed(tree, rows, 'nested') / 1e9:.1f} GB), or fewer features"
        )
