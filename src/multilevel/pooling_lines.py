"""Numbers behind the plots of groups: complete, no and partial pooling."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import frame
from .effect_lines import GRID, Source, matrices_at, objects, pick, predictors_of
from .errors import OptionError

if TYPE_CHECKING:
    import pandas as pd

    from .design import Design, Term
    from .design_recipe import New
    from .fit import Fit

__all__ = ["Facet", "Lines", "Shrinkage", "group_lines", "shrinkage"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True)
class Facet:
    """One group's rows and lines.

    Attributes
    ----------
    level : Any
        The user's label.
    rows : (n_g,) array
        Positions among the rows used.
    x, y : (n_g,) arrays
        Where to draw them: the predictor and the response.
    pooled, unpooled, partial : (m,) arrays
        Predictions on the grid; unpooled is NaN where the group's own rows do not determine it.
    """

    level: Any
    rows: Index
    x: Array
    y: Array
    pooled: Array
    unpooled: Array
    partial: Array


@dataclass(frozen=True)
class Lines:
    """Lines of several groups along one predictor.

    Attributes
    ----------
    group : str
    x : str or None
        The predictor; None where the model has none, and rows are drawn in their order.
    labels : tuple of str or None
        Levels of x where it is a factor; the grid then counts 0, 1, ...
    grid : (m,) array
    held : dict
        Other predictors: "mean" or "most frequent level", of each group, at which they are held.
    with_groups : tuple of str
        Other grouping factors whose effects are in the partially pooled line: each group lies in one level.
    facets : tuple of Facet
    total : int
        Levels the grouping factor has.
    """

    group: str
    x: str | None
    labels: tuple[str, ...] | None
    grid: Array
    held: dict[str, str]
    with_groups: tuple[str, ...]
    facets: tuple[Facet, ...]
    total: int


@dataclass(frozen=True)
class Shrinkage:
    """Coefficients per level, alone and partially pooled.

    Attributes
    ----------
    group : str
    names : tuple of str (k)
    levels : (J,) array
    sizes : (J,) array
        Rows of each level.
    own : (J, k) array
        Least squares on the level's rows alone, less what `fixed` and `groups` name; NaN where these are too few.
    partial : (J, k) array
        Population value plus conditional mode.
    population : (k,) array
    cov : (k, k) array
        Estimated covariance of the random effects.
    fixed : tuple of str
        Fixed effects that do not vary by group, subtracted from the response.
    groups : tuple of str
        Other grouping factors, whose effects are subtracted too.
    lost : str
        Why levels may have no own coefficients.
    """

    group: str
    names: tuple[str, ...]
    levels: NDArray[Any]
    sizes: Index
    own: Array
    partial: Array
    population: Array
    cov: Array
    fixed: tuple[str, ...]
    groups: tuple[str, ...]
    lost: str = "too few rows to stand alone"


def group_names(design: Design) -> list[str]:
    """Grouping factors in the order of the formula."""
    return list(dict.fromkeys(term.group for term in design.terms))


def _chosen_group(design: Design, group: Any) -> str:
    known = group_names(design)
    if not known:
        raise OptionError("the model has no grouping factor, so that there are no groups to draw")
    return known[0] if group is None else pick(group, known, "grouping factor of the model")


def _chosen_x(source: Source, group: str, x: str | None) -> str | None:
    """The predictor to draw along: a number that varies by group, a factor that does, any number, any factor."""
    terms = [t for t in source.recipe.terms if t.group == group]
    fixed = predictors_of(source.recipe.fixed)
    varying = list(dict.fromkeys(name for t in terms for name in predictors_of(t.side)))
    taken = {name for t in terms for name in t.grouping.columns}
    if x is not None:
        x = pick(x, list(dict.fromkeys([*fixed, *varying])), "predictor of the model")
        if x in taken:
            raise OptionError(
                f"{x!r} makes the groups {group!r}, so that it does not vary within one; choose another x"
            )
        return x
    for part in (varying, fixed):
        free = [name for name in part if name not in taken]
        for number in (True, False):
            for name in free:
                if (source.levels(name) is None) == number:
                    return name
    return None


# -- lines by group ----------------------------------------------------------------------------------------


def group_lines(fit: Fit, x: Any = None, group: Any = None, levels: Any = None, max_groups: int = 18) -> Lines:
    """Pooled, unpooled and partially pooled lines of some groups.

    Parameters
    ----------
    x, group : str, optional
    levels : labels, optional
        Groups to draw, in this order; default all, or `max_groups` spread evenly over the range of sizes.
    """
    design = fit.rows_of_data()
    group = _chosen_group(design, group)
    term = _term_of(design, group)
    sizes = np.bincount(term.codes, minlength=len(term.levels))
    chosen = _chosen_levels(term, sizes, levels, max_groups)
    source = Source(fit)
    x = _chosen_x(source, group, x)
    included = [one for one in group_names(design) if _within(term, _term_of(design, one))]
    member = [np.flatnonzero(term.codes == code) for code in chosen]
    grid, labels = _grid(source, x)
    made, offset, held = _matrices(fit, source, x, grid, member, included)
    pooled = offset + made.X @ _least_squares(design)
    partial = offset + _partial(fit, made, np.array([rows[0] for rows in member]))
    own_columns, new = _own_columns(design, made, group)
    where = None if x is None else source.values(x)
    facets = []
    for i, (code, rows) in enumerate(zip(chosen, member, strict=True)):
        at = slice(i * len(grid), (i + 1) * len(grid))
        alone = offset[at] + _alone(own_columns(rows), *_response(design, rows), new[at])
        place = np.arange(len(rows), dtype=np.float64) if where is None else where[rows]
        facets.append(Facet(term.levels[code], rows, place, design.y[rows], pooled[at], alone, partial[at]))
    others = tuple(one for one in included if one != group)
    return Lines(group, x, labels, grid, held, others, tuple(facets), len(sizes))


def _term_of(design: Design, group: str) -> Term:
    return next(term for term in design.terms if term.group == group)


def _partial(fit: Fit, made: New, first: Index) -> Array:
    """Fixed effects plus conditional modes on the grid of every group, the groups being those of the rows `first`."""
    out = made.X @ fit.optimum.beta
    for term in made.terms:
        codes = np.repeat(fit.design.terms[term.index].codes[first], made.n // len(first))
        modes = fit.optimum.b[term.index][codes]
        out += modes[:, 0] if term.Z is None else np.einsum("ij,ij->i", term.Z, modes)
    return np.asarray(out)


def _chosen_levels(term: Term, sizes: Index, levels: Any, max_groups: int) -> Index:
    if isinstance(max_groups, bool) or not isinstance(max_groups, (int, np.integer)) or max_groups < 1:
        raise OptionError(f"max_groups must be a positive whole number, got {max_groups!r}")
    if levels is not None:
        given = [levels] if isinstance(levels, str) or not isinstance(levels, Iterable) else list(levels)
        labels = [frame.label_text(level) for level in term.levels.tolist()]
        what = f"level of {term.group!r}"
        found = [labels.index(pick(frame.label_text(one), labels, what)) for one in given]
        if not found:
            raise OptionError("levels is empty; name at least one, or leave it out")
        return np.array(found, dtype=np.int64)
    if len(sizes) <= max_groups:
        return np.arange(len(sizes))
    order = np.argsort(sizes, kind="stable")
    return order[np.linspace(0, len(sizes) - 1, max_groups).round().astype(np.int64)]


def _within(inner: Term, outer: Term) -> bool:
    """Whether every level of one factor lies in one level of the other."""
    home = np.zeros(len(inner.levels), dtype=outer.codes.dtype)
    home[inner.codes] = outer.codes
    return bool(np.array_equal(home[inner.codes], outer.codes))


def _grid(source: Source, x: str | None) -> tuple[Array, tuple[str, ...] | None]:
    if x is None:
        return np.zeros(1), None
    if (levels := source.levels(x)) is not None:
        return np.arange(len(levels), dtype=np.float64), tuple(map(frame.label_text, levels))
    values = source.values(x)
    return np.linspace(values.min(), values.max(), GRID), None


def _matrices(
    fit: Fit, source: Source, x: str | None, grid: Array, member: list[Index], included: list[str]
) -> tuple[New, Array, dict[str, str]]:
    """Matrices and offset on the grid of every group, and how other predictors are held."""
    import pandas as pd

    m = len(grid)
    fixed_rows = {name for t in source.design.terms if t.group in included for name in t.columns}
    columns: dict[str, pd.Series[Any]] = {}
    held = {}
    for name, one in source.series.items():
        if name == x:
            columns[name] = _along(source, name, grid, len(member))
        elif name in fixed_rows:
            columns[name] = one.iloc[np.repeat([rows[0] for rows in member], m)].reset_index(drop=True)
        elif name in source.recipe.infos or name == source.recipe.offset_column:
            if source.levels(name) is None:
                held[name] = "mean"
                columns[name] = pd.Series(np.repeat([source.mean(name, rows) for rows in member], m))
            else:
                held[name] = "most frequent level"
                found = [source.most_frequent(name, rows) for rows in member]
                columns[name] = one.iloc[np.repeat(found, m)].reset_index(drop=True)
    if not columns:
        columns["rows"] = pd.Series(np.zeros(m * len(member)))
    offset = source.design.offset
    means = None if offset is None else np.repeat([offset[rows].mean() for rows in member], m)
    made, total = matrices_at(fit, pd.DataFrame(columns), included, means)
    return made, total, {name: how for name, how in held.items() if name in source.recipe.infos}


def _along(source: Source, name: str, grid: Array, repeats: int) -> pd.Series[Any]:
    """The column on the grid: numbers, or each level once."""
    import pandas as pd

    levels = source.levels(name)
    return pd.Series(np.tile(grid if levels is None else objects(levels), repeats))


def _response(design: Design, rows: Index | slice) -> tuple[Array, Array | None]:
    """Response without offset, and square roots of the weights."""
    y = design.y[rows] if design.offset is None else design.y[rows] - design.offset[rows]
    return y, None if design.weights is None else np.sqrt(design.weights[rows])


def _least_squares(design: Design) -> Array:
    """Coefficients of complete pooling: (weighted) least squares on the fixed side, blind to groups."""
    y, root = _response(design, slice(None))
    X = design.X if root is None else design.X * root[:, None]
    return np.asarray(np.linalg.lstsq(X, y if root is None else y * root, rcond=None)[0], dtype=np.float64)


def _own_columns(design: Design, made: New, group: str) -> tuple[Callable[[Index], Array], Array]:
    """Columns of a group's own regression, for rows of the data and on the grid: fixed ones, and those that vary."""
    extra: dict[str, tuple[int, int]] = {}
    for t, term in enumerate(design.terms):
        for i, name in enumerate(term.names if term.group == group else ()):
            if name not in design.names:
                extra.setdefault(name, (t, i))
    new_z = {t.index: t.Z for t in made.terms}

    def whole(rows: Index) -> Array:
        added = (_column(design.terms[t].Z, i, rows) for t, i in extra.values())
        return np.column_stack([design.X[rows], *added])

    every = np.arange(made.n)
    return whole, np.column_stack([made.X, *(_column(new_z[t], i, every) for t, i in extra.values())])


def _column(Z: Array | None, i: int, rows: Index) -> Array:
    return np.ones(len(rows)) if Z is None else Z[rows, i]


def _alone(W: Array, y: Array, root: Array | None, new: Array) -> Array:
    """Least squares on one group's rows, at new rows; NaN where the group's rows do not determine them."""
    if root is not None:
        W, y = W * root[:, None], y * root
    size = np.sqrt(np.einsum("ij,ij->j", W, W))
    size[size == 0] = 1.0
    U, s, Vt = np.linalg.svd(W / size, full_matrices=False)
    rank = int((s > 1e-9 * s[0]).sum()) if len(s) else 0
    if rank == 0 or (rank > 1 and len(W) <= rank):
        return np.full(len(new), np.nan)
    scaled, V = new / size, Vt[:rank].T
    out: Array = scaled @ (V @ ((U[:, :rank].T @ y) / s[:rank]))
    outside = np.linalg.norm(scaled - scaled @ V @ V.T, axis=1) > 1e-7 * np.linalg.norm(scaled, axis=1)
    out[outside] = np.nan
    return out


# -- shrinkage ---------------------------------------------------------------------------------------------


def shrinkage(fit: Fit, group: Any = None) -> Shrinkage:
    """Coefficients that vary by group: each level alone, and partially pooled."""
    from scipy.linalg import block_diag

    design = fit.rows_of_data()
    group = _chosen_group(design, group)
    index = [t for t, term in enumerate(design.terms) if term.group == group]
    terms = [design.terms[t] for t in index]
    codes, levels = terms[0].codes, terms[0].levels
    parts = [np.ones((len(design.y), 1)) if term.Z is None else term.Z for term in terms]
    Z = parts[0] if len(parts) == 1 else np.hstack(parts)
    y, root = _response(design, slice(None))
    population, inside = _population(Z, design.X, fit.optimum.beta)
    y = y - design.X[:, ~inside] @ fit.optimum.beta[~inside] - _other_effects(fit, group)
    own = _by_level(Z, y, None if root is None else root**2, codes, len(levels))
    return Shrinkage(
        group=group,
        names=tuple(name for term in terms for name in term.names),
        levels=levels,
        sizes=np.bincount(codes, minlength=len(levels)),
        own=own,
        partial=population + np.hstack([fit.optimum.b[t] for t in index]),
        population=population,
        cov=np.asarray(block_diag(*(fit.random_cov()[t] for t in index))),
        fixed=tuple(name for name, kept in zip(design.names, inside, strict=True) if not kept),
        groups=tuple(one for one in group_names(design) if one != group),
    )


def _other_effects(fit: Fit, group: str) -> Array:
    """Conditional modes of the other grouping factors, per row."""
    out = np.zeros(len(fit.design.y))
    for term, b in zip(fit.design.terms, fit.optimum.b, strict=True):
        if term.group != group:
            modes = b[term.codes]
            out += modes[:, 0] if term.Z is None else np.einsum("ij,ij->i", term.Z, modes)
    return out


def _population(Z: Array, X: Array, beta: Array) -> tuple[Array, NDArray[np.bool_]]:
    """What the fixed effects say in the coordinates of Z, and which of their columns Z spans."""
    size = np.sqrt(np.einsum("ij,ij->j", Z, Z))
    size[size == 0] = 1.0
    scaled = Z / size
    A = np.linalg.pinv(scaled.T @ scaled, rcond=1e-10) @ (scaled.T @ X)
    left = X - scaled @ A
    inside = np.sqrt(np.einsum("ij,ij->j", left, left)) <= 1e-7 * np.sqrt(np.einsum("ij,ij->j", X, X))
    return (A[:, inside] @ beta[inside]) / size, inside


def _by_level(Z: Array, y: Array, w: Array | None, codes: NDArray[np.int32], J: int) -> Array:
    """Least squares within every level at once, NaN where rows are too few or columns coincide."""
    k = Z.shape[1]
    size = np.sqrt(np.einsum("ij,ij->j", Z, Z) / len(Z))
    size[size == 0] = 1.0
    Z = Z / size
    WZ = Z if w is None else Z * w[:, None]
    gram = np.empty((J, k, k))
    right = np.empty((J, k, 1))
    for a in range(k):
        right[:, a, 0] = np.bincount(codes, WZ[:, a] * y, J)
        for b in range(a, k):
            gram[:, a, b] = gram[:, b, a] = np.bincount(codes, WZ[:, a] * Z[:, b], J)
    values = np.linalg.eigvalsh(gram)
    enough = np.bincount(codes, minlength=J) > (k if k > 1 else 0)
    good = (values[:, 0] > 1e-9 * values[:, -1]) & enough
    out = np.full((J, k), np.nan)
    out[good] = np.linalg.solve(gram[good], right[good])[:, :, 0] / size
    return out
