"""Known covariance between the levels of a grouping factor: relatives, species, neighbours.

The effects of such a factor are ``N(0, sigma**2 * Lambda Lambda' x K)`` with K given. The engine works with the precision
``K^{-1}``, which is sparse for pedigrees (Henderson 1976, Biometrics 32:69) and phylogenies with their inner nodes.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import frame
from .errors import ColumnError, DataError, OptionError, listing, nearest

__all__ = ["KnownCovariance", "pedigree"]

Array = NDArray[np.float64]
SYMMETRIC = 1e-8  # relative difference between a matrix and its transpose that counts as rounding
SINGULAR = 1e-10  # share of the largest eigenvalue at or below which the smallest counts as none
DENSE = 0.3  # share of entries from which a matrix is better kept in its own order


class KnownCovariance:
    """Covariance (or precision) between named levels, to be given as ``Model(..., covariance={"animal": ...})``.

    Parameters
    ----------
    levels : sequence of labels
        One for each row of the matrix, as in the data's column. Levels without rows in the data are welcome: their
        effects are predicted too.
    covariance : (J, J) array, optional
        Symmetric and positive definite, for example a kinship or phylogenetic covariance. Variances of the model are
        multiples of it, so give it a diagonal near one.
    precision : (J, J) sparse matrix or array, optional
        Its inverse, where that is what is known (give one of the two).

    Raises
    ------
    DataError
        For a matrix that is not square, symmetric, finite, positive definite, or does not fit the levels.
    """

    precision: Any
    levels: NDArray[Any]
    log_det: float  # log|K|

    def __init__(self, levels: Any, *, covariance: Any = None, precision: Any = None) -> None:
        if (covariance is None) == (precision is None):
            raise OptionError("give either covariance= or precision=, one of the two")
        what = "covariance" if precision is None else "precision"
        matrix = _matrix(covariance if precision is None else precision, what)
        labels = _labels(levels, matrix.shape[0], what)
        if precision is None:
            matrix, log_det = _inverse(matrix)
            order = np.arange(len(labels))
        else:
            order, log_det = _elimination_order(matrix)
        self.precision = matrix[order][:, order].tocsr()
        self.precision.sort_indices()
        self.levels = labels[order]
        self.log_det = log_det

    @classmethod
    def in_order(cls, levels: NDArray[Any], precision: Any) -> KnownCovariance:
        """From a precision that is in elimination order already."""
        out = object.__new__(cls)
        out.precision, out.levels, (_, out.log_det) = precision.tocsr(), levels, _elimination_order(precision)
        out.precision.sort_indices()
        return out

    def __repr__(self) -> str:
        share = self.precision.nnz / max(len(self.levels), 1) ** 2
        return f"KnownCovariance of {len(self.levels)} levels ({share:.1%} of the precision is not zero)"

    def lower(self) -> tuple[Array, Any, Any, Array]:
        """Diagonal of the precision and, per level, its entries with later levels: what the core takes."""
        from scipy.sparse import triu

        upper = triu(self.precision, 1).tocsr()
        upper.sort_indices()
        ptr, idx = np.asarray(upper.indptr, dtype=np.int32), np.asarray(upper.indices, dtype=np.int32)
        return (
            np.asarray(self.precision.diagonal(), dtype=np.float64),
            ptr,
            idx,
            np.asarray(upper.data, dtype=np.float64),
        )

    def match(self, labels: NDArray[Any], name: str) -> NDArray[np.int32]:
        """Position of each label of the data among the levels.

        Raises
        ------
        DataError
            Where levels of the data are lacking.
        """
        at = {label: i for i, label in enumerate(self.levels.tolist())}
        lost = [label for label in labels.tolist() if label not in at]
        if lost:
            as_text = {str(label) for label in at}
            hint = " (they are there as another type: text against numbers)" if str(lost[0]) in as_text else ""
            raise DataError(
                f"the covariance of {name!r} lacks {len(lost)} of its {len(labels)} levels: "
                f"{listing(lost, 5)}{hint}; add them to "
                "the matrix, or leave their rows out"
            )
        return np.array([at[label] for label in labels.tolist()], dtype=np.int32)

    def draw(self, rng: np.random.Generator, k: int) -> Array:
        """(J, k) standard effects: columns independent, rows with covariance K."""
        from scipy.linalg import cholesky, solve_triangular

        noise = rng.standard_normal((len(self.levels), k))
        if self.precision.nnz > DENSE * len(self.levels) ** 2 or len(self.levels) < 500:
            root = cholesky(self.precision.toarray(), lower=True)
            return np.asarray(solve_triangular(root, noise, lower=True, trans="T"))
        from scipy.sparse.linalg import splu

        # Q = L D L' in this order: solve L' x = D^{-1/2} noise
        lu = splu(self.precision.tocsc(), permc_spec="NATURAL", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
        scaled = noise / np.sqrt(lu.U.diagonal())[:, None]
        from scipy.sparse.linalg import spsolve_triangular

        return np.asarray(spsolve_triangular(lu.L.T.tocsr(), scaled, lower=False, unit_diagonal=True))


def standard_effects(
    known: KnownCovariance | None, levels: int, k: int, n: int, rng: np.random.Generator
) -> Array:
    """(n, levels, k) standard effects: columns independent, levels independent too or with the covariance known of them."""
    if known is None:
        return rng.standard_normal((n, levels, k))
    return np.ascontiguousarray(known.draw(rng, n * k).reshape(levels, n, k).swapaxes(0, 1))


def read(given: Any, group: str) -> KnownCovariance:
    """What stands in ``covariance={group: given}``: a KnownCovariance, or a labelled square pandas frame."""
    if isinstance(given, KnownCovariance):
        return given
    index, columns = getattr(given, "index", None), getattr(given, "columns", None)
    if index is None or columns is None or callable(index):
        raise OptionError(
            f"covariance[{group!r}] must say which row belongs to which level: give KnownCovariance(levels, "
            f"covariance=matrix) or "
            f"precision=matrix, or a pandas DataFrame with the levels as index and columns; got {type(given).__name__}"
        )
    if list(index) != list(columns):
        raise DataError(
            f"covariance[{group!r}] has other labels in its index than in its columns; both must be "
            f"the levels, in one order"
        )
    try:
        return KnownCovariance(list(index), covariance=given.to_numpy())
    except DataError as error:
        raise DataError(f"covariance[{group!r}]: {error}") from None


def read_all(given: Any, groups: Sequence[str]) -> dict[str, KnownCovariance]:
    """``covariance={group: ...}`` of a model with these grouping factors."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise OptionError(f"covariance must be a dict from a grouping factor to its matrix, not {type(given).__name__}")
    for name in given:
        if name not in groups:
            has = listing(dict.fromkeys(groups)) if groups else "no random effects"
            hint = nearest(name, groups) or f"the model has {has}"
            raise OptionError(f"covariance names {name!r}, which is no grouping factor of the formula; {hint}")
        if ":" in name:
            raise OptionError(
                f"covariance can be given for a single column, not for the combination {name!r}; make a column of it"
            )
    return {name: read(one, name) for name, one in given.items()}


def _matrix(given: Any, what: str) -> Any:
    """As a sparse matrix, checked."""
    from scipy.sparse import csr_array, issparse

    try:
        sparse: Any = given if issparse(given) else np.asarray(given)
        if np.iscomplexobj(sparse):
            raise TypeError
        made: Any = csr_array(sparse)
        out = made.astype(np.float64)
    except (TypeError, ValueError):
        raise DataError(f"the {what} must be a square matrix of numbers, not {type(given).__name__}") from None
    if out.ndim != 2 or out.shape[0] != out.shape[1]:
        raise DataError(f"the {what} must be square, but its shape is {out.shape}")
    if not np.isfinite(out.data).all():
        raise DataError(f"the {what} has entries that are missing or infinite")
    uneven = abs(out - out.T)
    if uneven.nnz and uneven.max() > SYMMETRIC * np.abs(out.data).max():
        raise DataError(
            f"the {what} is not symmetric: entries differ from their mirror images by up to {uneven.max():.3g}"
        )
    return ((out + out.T) / 2).tocsr()


def _labels(levels: Any, rows: int, what: str) -> NDArray[Any]:
    if (
        isinstance(levels, (str, bytes))
        or not isinstance(levels, (Sequence, np.ndarray))
        and not hasattr(levels, "__iter__")
    ):
        raise OptionError(f"levels must be a list of labels, not {levels!r}")
    values = list(levels)
    if not all(isinstance(value, Hashable) for value in values):
        raise DataError(f"levels must be labels such as text or numbers, not {values[0]!r}")
    if not values:
        raise DataError(f"the {what} has no levels")
    if len(values) != rows:
        raise DataError(f"there are {len(values)} levels for {rows} rows of the {what}")
    if len(set(values)) != len(values):
        twice = next(v for i, v in enumerate(values) if v in values[:i])
        raise DataError(f"the level {twice!r} stands twice among those of the {what}")
    out = np.empty(len(values), dtype=object)
    out[:] = values
    return out


def _inverse(covariance: Any) -> tuple[Any, float]:
    """Precision and log-determinant of a covariance."""
    from scipy.linalg import eigh
    from scipy.sparse import csr_array

    values, vectors = eigh(covariance.toarray())
    if not values[0] > SINGULAR * values[-1]:
        raise DataError(
            f"the covariance is not positive definite: its smallest eigenvalue is {values[0]:.3g}, its largest "
            f"{values[-1]:.3g}. Levels that "
            "are copies of one another (clones, identical species) must be merged; where rounding did it, add a "
            "little to the diagonal, "
            "for example 0.01"
        )
    inverse = (vectors / values) @ vectors.T
    inverse[np.abs(inverse) < 1e-14 * np.abs(inverse).max()] = 0.0
    return csr_array((inverse + inverse.T) / 2), float(np.sum(np.log(values)))


def _elimination_order(precision: Any) -> tuple[NDArray[Any], float]:
    """Order of levels in which a Cholesky factor stays sparse, and log|K|; refuses what is not positive definite."""
    from scipy.sparse.linalg import splu

    j = precision.shape[0]
    if precision.nnz > DENSE * j * j:
        values = np.linalg.eigvalsh(precision.toarray())
        if values[0] > SINGULAR * values[-1]:
            return np.arange(j), -float(np.sum(np.log(values)))
        raise DataError(_indefinite(f"its smallest eigenvalue is {values[0]:.3g}"))
    if not (precision.diagonal() > 0).all():
        raise DataError(_indefinite("it has entries on the diagonal that are not positive"))
    try:
        lu = splu(precision.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    except RuntimeError:
        raise DataError(_indefinite("it is singular")) from None
    pivots = lu.U.diagonal()
    if not (pivots > SINGULAR * pivots.max()).all() or not np.array_equal(lu.perm_r, lu.perm_c):
        raise DataError(_indefinite(f"its Cholesky factorisation meets a pivot of {pivots.min():.3g}"))
    return np.argsort(lu.perm_c), -float(np.sum(np.log(pivots)))


def _indefinite(why: str) -> str:
    return (
        f"the precision is not positive definite: {why}. A precision must be the inverse of a covariance; an "
        f"intrinsic (CAR, random-walk) "
        "one needs a little added to its diagonal"
    )


# -- pedigrees ----------------------------------------------------------------------------------------------------------


def pedigree(data: Any, animal: str = "animal", sire: str = "sire", dam: str = "dam") -> KnownCovariance:
    """Additive relationships of a pedigree (numerator relationship matrix, inbreeding included).

    Parameters
    ----------
    data : data frame
        One row per animal.
    animal, sire, dam : str
        Columns; a missing value is an unknown parent, and so are 0, "0", "*" and "" unless an animal bears that label.
        Parents without a row of their own become founders.

    Returns
    -------
    KnownCovariance
        Its precision is made directly and is sparse: Henderson (1976), Biometrics 32:69; inbreeding by Meuwissen & Luo
        (1992), Genet. Sel. Evol. 24:305.

    Raises
    ------
    DataError
        For an animal that stands twice or is its own ancestor.
    """
    table = frame.Table(data)
    try:
        series = table.load([animal, sire, dam])
    except ColumnError as error:
        raise ColumnError(f"{error}. Name the columns of the pedigree with animal=, sire= and dam=") from None
    own = [None if hole else label for label, hole in _with_holes(series[animal])]
    parents = [[None if hole else label for label, hole in _with_holes(series[name])] for name in (sire, dam)]
    if None in own:
        raise DataError(
            f"the column {animal!r} misses a value in row {own.index(None)} (counting from 0); "
            f"every animal needs a label"
        )
    if len(set(own)) != len(own):
        twice = next(v for i, v in enumerate(own) if v in set(own[:i]))
        raise DataError(f"the animal {twice!r} stands twice in {animal!r}; a pedigree has one row for each")
    unknown = {0, "0", "*", ""} - set(own)  # how pedigree files write a parent that is not known
    parents = [[None if p in unknown else p for p in column] for column in parents]
    family = dict(zip(own, zip(*parents, strict=True), strict=True))
    labels = _parents_first(family)
    at = {label: i for i, label in enumerate(labels)}
    ancestors = np.array(
        [[at.get(p, -1) if p is not None else -1 for p in family.get(x, (None, None))] for x in labels]
    )
    precision, log_det = _henderson(ancestors)
    out = KnownCovariance(labels, precision=precision)
    out.log_det = log_det
    return out


def _with_holes(series: Any) -> list[tuple[Any, bool]]:
    """Labels and whether they are missing; whole numbers that a missing one made floats are whole again."""
    values = [int(v) if isinstance(v, float) and v.is_integer() else v for v in series.tolist()]
    return list(zip(values, frame.missing_mask(series).tolist(), strict=True))


def _parents_first(family: dict[Any, tuple[Any, Any]]) -> list[Any]:
    """All animals, each after its parents."""
    done: dict[Any, None] = {}
    for first in family:
        stack: list[tuple[Any, bool]] = [(first, False)]
        open_now: set[Any] = set()
        while stack:
            label, parents_done = stack.pop()
            if parents_done:
                open_now.discard(label)
                done[label] = None
                continue
            if label in done:
                continue
            if label in open_now:
                raise DataError(f"the animal {label!r} is its own ancestor; correct the pedigree")
            open_now.add(label)
            stack.append((label, True))
            stack += [(p, False) for p in family.get(label, (None, None)) if p is not None and p not in done]
    return list(done)


def _henderson(parents: NDArray[Any]) -> tuple[Any, float]:
    """Inverse of the relationship matrix from (n, 2) positions of parents (-1 unknown), and its log|K|."""
    from scipy.sparse import coo_array

    n = len(parents)
    inbreeding = np.zeros(n + 1)
    inbreeding[-1] = -1.0  # of an unknown parent: makes the formula for the Mendelian variance right
    within = np.empty(n)
    couples: dict[tuple[int, int], float] = {}
    pairs = [(s, d) for s, d in parents.tolist()]
    for i, (s, d) in enumerate(pairs):
        within[i] = 0.5 - 0.25 * (inbreeding[s] + inbreeding[d])
        if s < 0 or d < 0:
            continue
        if (s, d) not in couples:
            couples[s, d] = _relationship(pairs, within, i) - 1
        inbreeding[i] = couples[s, d]
    rows, cols, values = [], [], []
    for i, (s, d) in enumerate(parents.tolist()):
        family = [(i, 1.0), *((p, -0.5) for p in (s, d) if p >= 0)]
        for a, x in family:
            for b, y in family:
                rows.append(a)
                cols.append(b)
                values.append(x * y / within[i])
    return coo_array((values, (rows, cols)), shape=(n, n)).tocsr(), float(np.sum(np.log(within)))


def _relationship(parents: list[tuple[int, int]], within: Array, i: int) -> float:
    """Diagonal of the relationship matrix: sum over ancestors of (path coefficient)**2 times Mendelian variance."""
    import heapq

    share = {i: 1.0}
    heap = [-i]
    total = 0.0
    while heap:
        a = -heapq.heappop(heap)  # youngest first: all paths into it are complete
        weight = share.pop(a)
        total += weight * weight * within[a]
        for p in parents[a]:
            if p >= 0:
                if p not in share:
                    share[p] = 0.0
                    heapq.heappush(heap, -p)
                share[p] += weight / 2
    return total
