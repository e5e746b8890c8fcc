"""Numbers behind the plots: complete, no and partial pooling per group; effects of one predictor at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import frame
from .columns import uses_of
from .errors import DataError, OptionError, listing, nearest

if TYPE_CHECKING:
    import pandas as pd

    from .design import Design, Term
    from .design_recipe import New
    from .fit import Fit

__all__ = ["Effect", "Facet", "Lines", "Shrinkage", "effect", "effect_names", "group_lines", "pick", "shrinkage"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]
GRID = 41  # points of a curve: enough for a spline to look smooth


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
    held : tuple of str
        Other predictors, held at each group's mean or most frequent level.
    with_groups : tuple of str
        Other grouping factors whose effects are in the partially pooled line, because each group lies in one level.
    facets : tuple of Facet
    total : int
        Levels the grouping factor has.
    """

    group: str
    x: str | None
    labels: tuple[str, ...] | None
    grid: Array
    held: tuple[str, ...]
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
        Least squares on the level's rows alone, NaN where these are too few.
    partial : (J, k) array
        Population value plus conditional mode.
    population : (k,) array
    cov : (k, k) array
        Estimated covariance of the random effects.
    subtracted : tuple of str
        Fixed effects that do not vary by group, subtracted from the response before `own`.
    """

    group: str
    names: tuple[str, ...]
    levels: NDArray[Any]
    sizes: Index
    own: Array
    partial: Array
    population: Array
    cov: Array
    subtracted: tuple[str, ...]


@dataclass(frozen=True)
class Effect:
    """Population prediction along one fixed predictor.

    Attributes
    ----------
    name : str or None
        None for the mean of a model without predictors.
    labels : tuple of str or None
        Levels where it is a factor; the grid then counts 0, 1, ...
    grid, estimate, std_error : (m,) arrays
    held : dict
        Value of every other predictor.
    x, y : arrays
        Rows drawn: the estimate at the row's own value plus the row's residual; empty unless asked for.
    """

    name: str | None
    labels: tuple[str, ...] | None
    grid: Array
    estimate: Array
    std_error: Array
    held: dict[str, Any]
    x: Array
    y: Array


def pick(name: Any, options: Sequence[str], what: str) -> str:
    """Return `name` if it is one of the options, and raise an error that offers the nearest if not."""
    if name in options:
        return str(name)
    raise OptionError(f"{name!r} is no {what}; {nearest(name, options) or 'there are ' + listing(options)}")


def group_names(design: Design) -> list[str]:
    """Grouping factors in the order of the formula."""
    return list(dict.fromkeys(term.group for term in design.terms))


def _chosen_group(design: Design, group: Any) -> str:
    known = group_names(design)
    if not known:
        raise OptionError("the model has no grouping factor, so that there are no groups to draw")
    return known[0] if group is None else pick(group, known, "grouping factor of the model")


# -- columns --------------------------------------------------------------------------------------------------


class _Source:
    """Columns of the rows used, and what the model takes each one for."""

    def __init__(self, fit: Fit) -> None:
        self.design = fit.rows_of_data()
        self.recipe = self.design.remake
        names = [*self.recipe.infos, *(name for term in self.design.terms for name in term.columns)]
        if self.recipe.offset_column:
            names.append(self.recipe.offset_column)
        series = frame.Table(fit.model._data).load(names)
        self.series = {name: one.iloc[self.design.rows] for name, one in series.items()}

    def levels(self, name: str) -> list[Any] | None:
        """Levels of a column that enters as a factor."""
        info = self.recipe.infos.get(name)
        return None if info is None else info.levels

    def values(self, name: str) -> Array:
        """Where to draw each row along a column: its number, or the position of its level."""
        if (levels := self.levels(name)) is None:
            return frame.numbers(self.series[name], name)
        known = np.empty(len(levels), dtype=object)
        known[:] = levels
        return frame.lookup(self.series[name], name, known)[0].astype(np.float64)

    def typical(self, name: str, rows: Index) -> Any:
        """Mean of a number over rows, as [mean]; or position of a row with the most frequent level."""
        values = self.values(name)[rows]
        if self.levels(name) is None and self.series[name].dtype != bool:
            return [values[0] if (values == values[0]).all() else values.mean()]
        found, first, counts = np.unique(values, return_index=True, return_counts=True)
        return int(rows[first[np.argmax(counts)]])


def _predictors(side: str | None) -> list[str]:
    from .matrix import factors_of

    return [] if side is None else list(uses_of(factors_of(side)))


def effect_names(design: Design) -> list[str]:
    """Columns on the fixed side, in order."""
    return _predictors(design.remake.fixed)


def _chosen_x(source: _Source, group: str, x: str | None) -> str | None:
    """The predictor to draw along: numeric with a slope that varies, a factor that varies, any number, any factor."""
    terms = [t for t in source.recipe.terms if t.group == group]
    fixed = _predictors(source.recipe.fixed)
    varying = list(dict.fromkeys(name for t in terms for name in _predictors(t.side)))
    taken = {name for t in terms for name in t.grouping.columns}
    if x is not None:
        x = pick(x, list(dict.fromkeys([*fixed, *varying])), "predictor of the model")
        if x in taken:
            raise OptionError(f"{x!r} makes the groups {group!r}, so that it does not vary within one; choose another x")
        return x
    for part in (varying, fixed):
        free = [name for name in part if name not in taken]
        for number in (True, False):
            for name in free:
                if (source.levels(name) is None) == number:
                    return name
    return None


# -- lines by group -------------------------------------------------------------------------------------------


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
    term = next(t for t in design.terms if t.group == group)
    sizes = np.bincount(term.codes, minlength=len(term.levels))
    chosen = _chosen_levels(term, sizes, levels, max_groups)
    source = _Source(fit)
    x = _chosen_x(source, group, x)
    included = [g for g in group_names(design) if _within(term, next(t for t in design.terms if t.group == g))]
    member = [np.flatnonzero(term.codes == code) for code in chosen]
    grid, labels = _grid(source, x)
    made, offset, held = _matrices(fit, source, x, grid, member, included)
    base = offset + made.X @ _least_squares(design)
    partial = offset + made.X @ fit.optimum.beta
    m = len(grid)
    codes = np.repeat(chosen, m)
    for part in made.terms:
        own = design.terms[part.index]
        inner = own.codes[[rows[0] for rows in member]].repeat(m) if own.group != group else codes
        modes = fit.optimum.b[part.index][inner]
        partial += modes[:, 0] if part.Z is None else np.einsum("ij,ij->i", part.Z, modes)
    whole, new = _own_columns(design, made, group)
    where = np.empty(0) if x is None else source.values(x)
    facets = []
    for i, (code, rows) in enumerate(zip(chosen, member, strict=True)):
        at = slice(i * m, (i + 1) * m)
        alone = offset[at] + _alone(whole(rows), *_response(design, rows), new[at])
        place = where[rows] if x is not None else np.arange(len(rows), dtype=np.float64)
        facets.append(Facet(term.levels[code], rows, place, design.y[rows], base[at], alone, partial[at]))
    return Lines(group, x, labels, grid, tuple(held), tuple(g for g in included if g != group), tuple(facets), len(sizes))


def _chosen_levels(term: Term, sizes: Index, levels: Any, max_groups: int) -> Index:
    if isinstance(max_groups, bool) or not isinstance(max_groups, (int, np.integer)) or max_groups < 1:
        raise OptionError(f"max_groups must be a positive whole number, got {max_groups!r}")
    if levels is not None:
        given = [levels] if isinstance(levels, str) or not isinstance(levels, Iterable) else list(levels)
        labels = [frame.label_text(level) for level in term.levels.tolist()]
        found = [labels.index(pick(frame.label_text(one), labels, f"level of {term.group!r}")) for one in given]
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


def _grid(source: _Source, x: str | None) -> tuple[Array, tuple[str, ...] | None]:
    if x is None:
        return np.zeros(1), None
    if (levels := source.levels(x)) is not None:
        return np.arange(len(levels), dtype=np.float64), tuple(map(frame.label_text, levels))
    values = source.values(x)
    return np.linspace(values.min(), values.max(), GRID), None


def _matrices(fit: Fit, source: _Source, x: str | None, grid: Array, member: list[Index],
              included: list[str]) -> tuple[New, Array, list[str]]:
    """Matrices and offset on the grid of every group, and the names of predictors held."""
    import pandas as pd

    m = len(grid)
    fixed_rows = {name for t in source.design.terms if t.group in included for name in t.columns}
    columns: dict[str, pd.Series[Any]] = {}
    held = []
    for name, one in source.series.items():
        if name == x:
            columns[name] = _along(source, name, grid, len(member))
        elif name in fixed_rows:
            columns[name] = one.iloc[np.repeat([rows[0] for rows in member], m)].reset_index(drop=True)
        elif name in source.recipe.infos or name == source.recipe.offset_column:
            held.append(name)
            found = [source.typical(name, rows) for rows in member]
            if isinstance(found[0], list):
                columns[name] = pd.Series(np.repeat([value for value, in found], m))
            else:
                columns[name] = one.iloc[np.repeat(found, m)].reset_index(drop=True)
    if not columns:
        columns["rows"] = pd.Series(np.zeros(m * len(member)))
    means = None if source.design.offset is None else np.repeat([source.design.offset[r].mean() for r in member], m)
    made, offset = _at(fit, pd.DataFrame(columns), included, means)
    return made, offset, [name for name in held if name in source.recipe.infos]


def _along(source: _Source, name: str, grid: Array, repeats: int) -> pd.Series[Any]:
    """The column on the grid: numbers, or one row of each level."""
    import pandas as pd

    if source.levels(name) is None:
        return pd.Series(np.tile(grid, repeats))
    found, first = np.unique(source.values(name), return_index=True)
    return source.series[name].iloc[np.tile(first, repeats)].reset_index(drop=True)


def _at(fit: Fit, new: pd.DataFrame, groups: list[str], means: Array | None) -> tuple[New, Array]:
    """Matrices of new rows and their offset; an offset given as an array is unknown there, so its mean stands in."""
    recipe = fit.design.remake
    if recipe.offset_array:
        made = fit.design.at(new, groups or None, offset=np.zeros(len(new)))
        return made, np.zeros(len(new)) if means is None else means
    made = fit.design.at(new, groups or None)
    return made, np.zeros(len(new)) if made.offset is None else made.offset


def _response(design: Design, rows: Index | slice) -> tuple[Array, Array | None]:
    """Response without offset, and square roots of the weights."""
    y = design.y[rows] if design.offset is None else design.y[rows] - design.offset[rows]
    return y, None if design.weights is None else np.sqrt(design.weights[rows])


def _least_squares(design: Design) -> Array:
    """Coefficients of complete pooling: (weighted) least squares on the fixed side, blind to groups."""
    y, root = _response(design, slice(None))
    X = design.X if root is None else design.X * root[:, None]
    solution: Array = np.linalg.lstsq(X, y if root is None else y * root, rcond=None)[0]
    return solution


def _own_columns(design: Design, made: New, group: str) -> tuple[Any, Array]:
    """Columns of a group's own regression, by rows of the data and on the grid: fixed ones, and those that vary."""
    extra: dict[str, tuple[int, int]] = {}
    for t, term in enumerate(design.terms):
        if term.group == group:
            extra |= {name: (t, i) for i, name in enumerate(term.names) if name not in design.names and name not in extra}
    new_z = {t.index: t.Z for t in made.terms}

    def whole(rows: Index) -> Array:
        return np.column_stack([design.X[rows], *(_column(design.terms[t].Z, i, rows) for t, i in extra.values())])

    every = np.arange(made.n)
    return whole, np.column_stack([made.X, *(_column(new_z[t], i, every) for t, i in extra.values())])


def _column(Z: Array | None, i: int, rows: Index) -> Array:
    return np.ones(len(rows)) if Z is None else Z[rows, i]


def _alone(W: Array, y: Array, root: Array | None, new: Array) -> Array:
    """Least squares on one group's rows, at new rows; NaN for rows they do not determine, or where they are too few."""
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


# -- shrinkage ------------------------------------------------------------------------------------------------


def shrinkage(fit: Fit, group: Any = None) -> Shrinkage:
    """Coefficients that vary by group: each level alone, and partially pooled."""
    design = fit.rows_of_data()
    group = _chosen_group(design, group)
    index = [t for t, term in enumerate(design.terms) if term.group == group]
    terms = [design.terms[t] for t in index]
    parts = [np.ones((len(design.y), 1)) if term.Z is None else term.Z for term in terms]
    Z = parts[0] if len(parts) == 1 else np.hstack(parts)
    y, root = _response(design, slice(None))
    population, inside = _population(Z, design.X, fit.optimum.beta)
    y = y - design.X[:, ~inside] @ fit.optimum.beta[~inside]
    codes, levels = terms[0].codes, terms[0].levels
    own = _by_level(Z, y, None if root is None else root**2, codes, len(levels))
    modes = np.hstack([fit.optimum.b[t] for t in index])
    covs, cov, at = fit.random_cov(), np.zeros((Z.shape[1],) * 2), 0
    for t in index:
        k = len(covs[t])
        cov[at : at + k, at : at + k] = covs[t]
        at += k
    names = tuple(name for term in terms for name in term.names)
    lost = tuple(name for name, kept in zip(design.names, inside, strict=True) if not kept)
    sizes = np.bincount(codes, minlength=len(levels))
    return Shrinkage(group, names, levels, sizes, own, population + modes, population, cov, lost)


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


# -- effects --------------------------------------------------------------------------------------------------


def effect(fit: Fit, name: str | None, at: Mapping[str, Any] | None = None, points: int = 0) -> Effect:
    """Population prediction along one fixed predictor, the others held.

    Parameters
    ----------
    name : str or None
        None for a model without predictors.
    at : dict, optional
        Column to the value to hold it at, or to the (low, high) range to draw (held at its middle elsewhere). Default:
        the mean of numbers over the rows used, the reference (first) level of factors, False.
    points : int
        Rows to give besides (at most), drawn with a fixed seed.
    """
    design = fit.design
    names = effect_names(design)
    at = dict(at or {})
    for key in at:
        pick(key, names, "fixed predictor of the model, so that at cannot hold it")
    source = None if design.y is None else _Source(fit)
    offsets = [n for side in design.remake.offsets for n in _predictors(side)]
    if design.remake.offset_column:
        offsets.append(design.remake.offset_column)
    others = [n for n in dict.fromkeys([*names, *offsets]) if n != name]
    held = {n: _held(n, source, design, at) for n in others}
    values, grid, labels = _drawn(name, source, design, at)
    estimate, std_error = _population_at(fit, name, values, held)
    x = y = np.empty(0)
    if points and source is not None and name is not None:
        rows = np.arange(len(design.y))
        if len(rows) > points:
            rows = np.sort(np.random.default_rng(0).choice(rows, points, replace=False))
        x = source.values(name)[rows]
        y = _population_at(fit, name, source.series[name].iloc[rows].reset_index(drop=True), held)[0]
        y = y + fit.residuals()[design.rows][rows]
    shown = {n: v for n, v in held.items() if n in names}
    return Effect(name, labels, grid, estimate, std_error, shown, x, y)


def _held(name: str, source: _Source | None, design: Design, at: Mapping[str, Any]) -> Any:
    """The value of a predictor that is not drawn."""
    info = design.remake.infos.get(name)
    levels = None if info is None else info.levels
    if name in at:
        if levels is None:
            return float(np.mean(_numbers_of(name, at[name])))
        known = {frame.label_text(level): level for level in levels}
        return known[pick(frame.label_text(at[name]), list(known), f"level of {name!r}")]
    if levels is not None:
        return levels[0]
    if source is None:
        raise DataError(f"this fit was saved without its data, so that the value of {name!r} is not known; give it, as in "
                        f"at={{{name!r}: 0}}, or save the fit with save(path, data=True)")
    return 0.0 if source.series[name].dtype == bool else float(source.values(name).mean())


def _numbers_of(name: str, given: Any) -> Array:
    try:
        values = np.atleast_1d(np.asarray(given, dtype=np.float64))
    except (TypeError, ValueError):
        values = np.array([np.nan])
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise OptionError(f"at[{name!r}] must be a number, or a (low, high) range, not {given!r}")
    return values


def _drawn(name: str | None, source: _Source | None, design: Design,
           at: Mapping[str, Any]) -> tuple[Any, Array, tuple[str, ...] | None]:
    """Values to predict at, where to draw them, and labels."""
    if name is None:
        return None, np.zeros(1), None
    if (levels := design.remake.infos[name].levels) is not None:
        values = np.empty(len(levels), dtype=object)
        values[:] = levels
        return values, np.arange(len(levels), dtype=np.float64), tuple(map(frame.label_text, levels))
    if name in at and np.ndim(at[name]):
        found = _numbers_of(name, at[name])
    elif source is not None:
        found = source.values(name)
    else:
        raise DataError(f"this fit was saved without its data, so that the range of {name!r} is not known; give it, as in "
                        f"at={{{name!r}: (0, 1)}}, or save the fit with save(path, data=True)")
    grid = np.linspace(found.min(), found.max(), GRID)
    return grid, grid, None


def _population_at(fit: Fit, name: str | None, values: Any, held: Mapping[str, Any]) -> tuple[Array, Array]:
    """Prediction without group effects, and its standard error from the fixed effects."""
    import pandas as pd

    m = 1 if values is None else len(values)
    columns: dict[str, Any] = {"rows": np.zeros(m)} if not held and name is None else {}
    columns |= {key: np.full(m, value, dtype=object if isinstance(value, str) else None) for key, value in held.items()}
    if name is not None:
        columns[name] = values
    known = fit.design.offset
    means = None if known is None or not fit.design.remake.offset_array else np.full(m, known.mean())
    made, offset = _at(fit, pd.DataFrame(columns), [], means)
    variance = np.einsum("ij,jk,ik->i", made.X, fit.optimum.vcov, made.X)
    return offset + made.X @ fit.optimum.beta, np.sqrt(variance)
