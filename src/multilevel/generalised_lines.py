"""Numbers behind the plots of generalised models: effects and groups, on the scale of the response.

An ordinal response is drawn as the number of its category, from zero, and its mean is that number's expectation; counts of
successes are drawn as shares.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import effect_lines, pooling_lines
from .effect_lines import Source, effect_names, matrices_at, pick, predictors_of
from .errors import DataError, MultilevelWarning
from .families import TRIALS
from .generalised_own import own_fits, own_line
from .generalised_predict import row_parameters
from .plot_panels import fewer
from .pooling_lines import Facet, Lines

if TYPE_CHECKING:
    from .design import Design
    from .design_recipe import New
    from .generalised import GeneralisedFit

__all__ = ["Curve", "curve", "curve_names", "group_lines", "means", "observed", "parameters_at", "response_label", "shares"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]

BINS = 10  # of a numeric predictor, for shares of single outcomes
FEW_VALUES = 12  # that are drawn as they are
AVERAGED = 100  # rows of a group over which its curves are averaged


# -- the response ---------------------------------------------------------------------------------------------


def response_label(fit: GeneralisedFit) -> str:
    """What is drawn of the response, such as "share of incidence"."""
    text, d = " ".join(fit.design.response.split()), fit.design
    if fit.family.name not in TRIALS:
        return text
    if (found := re.match(r"cbind\s*\(\s*([^,]+?)\s*,", text)) or (found := re.match(r"(.+?)\s*\|\s*trials", text)):
        return f"share of {found[1]}"
    if len(d.labels) == 2:
        return f"share of {text} = {d.labels[1]}"
    return text if d.trials is not None else f"share of {text} = 1"


def single(fit: GeneralisedFit) -> bool:
    """Whether the response is one outcome a row, yes or no."""
    trials = fit.design.trials
    return fit.family.name in TRIALS and (trials is None or bool((trials <= 1).all()))


def observed(fit: GeneralisedFit) -> Array:
    """(n,) response where it is drawn: a share of successes, a value, the number of a category; NaN without trials."""
    with np.errstate(invalid="ignore"):
        return fit._observed()


def means(fit: GeneralisedFit, eta: Array, first: Array, second: Array) -> Array:
    """(m,) mean of what is drawn at linear predictors."""
    if fit.family.name == "ordinal":
        steps = fit.categories_at(eta)
        return np.asarray(steps @ np.arange(steps.shape[1]))
    return fit._mean(eta, first, second)


def parameters_at(fit: GeneralisedFit, sides: Mapping[str, Array], m: int) -> tuple[Array, Array]:
    """(m,) further parameters of new rows, from the matrices of the dispersion and of the extra zeros."""
    out, at = [np.zeros(m), np.zeros(m)], 0
    if fit.family.name == "ordinal":
        return out[0], out[1]
    parts = ["dispersion"] * (fit.family.dispersion is not None) + ["zi"] * (fit.family.zero != "none")
    for what in parts:
        matrix = sides.get(what, np.ones((m, 1)))
        out[what == "zi"] = matrix @ fit.optimum.residual[at : at + matrix.shape[1]]
        at += matrix.shape[1]
    return out[0], out[1]


def classes(x: Array, factor: bool) -> NDArray[np.intp]:
    """(n,) class of each row along a predictor: each value of a factor or of few, else bins of equal count."""
    different = np.unique(x)
    if factor or len(different) <= FEW_VALUES:
        return np.searchsorted(different, x).astype(np.intp)
    inner = np.unique(np.quantile(x, np.linspace(0, 1, BINS + 1)[1:-1]))
    return np.unique(np.searchsorted(inner, x, side="right"), return_inverse=True)[1].astype(np.intp)


def shares(x: Array, y: Array, factor: bool) -> tuple[Array, Array, Array]:
    """Single outcomes gathered in classes: where, share of successes, rows."""
    codes = classes(x, factor)
    count = np.bincount(codes).astype(np.float64)
    return np.bincount(codes, x) / count, np.bincount(codes, y) / count, count


# -- effects --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """Mean of the response along one fixed predictor, group effects at zero.

    Attributes
    ----------
    name : str or None
        None for the mean of a model without predictors.
    labels : tuple of str or None
        Levels where it is a factor; the grid then counts 0, 1, ...
    grid : (m,) array
    estimate, low, high : (m,) arrays
        Means with their limits; of an ordinal response (m, K) probabilities of the categories.
    held : dict
        Value of every other predictor.
    x, size : (c,) arrays
        Classes of rows along the predictor, and their numbers of rows; empty unless asked for.
    y : (c,) or (c, K) array
        Mean that the responses of the class ask for, all other effects being the model's.
    rug : array
        Values of the predictor, where it is a number and the rows are there.
    """

    name: str | None
    labels: tuple[str, ...] | None
    grid: Array
    estimate: Array
    low: Array
    high: Array
    held: dict[str, Any]
    x: Array
    y: Array
    size: Array
    rug: Array


def side_predictors(design: Design) -> list[str]:
    """Columns of the dispersion and of the extra zeros."""
    return list(dict.fromkeys(name for side in design.remake.extra.values() for name in predictors_of(side)))


def curve_names(design: Design) -> list[str]:
    """Predictors of the mean of the response, those of extra zeros included."""
    zeros = design.remake.extra.get("zi")
    return list(dict.fromkeys([*effect_names(design), *predictors_of(zeros)]))


def curve(
    fit: GeneralisedFit, name: str | None, level: float, at: Mapping[str, Any] | None = None, points: bool = False
) -> Curve:
    """Mean along one fixed predictor, the others held as `effect_lines.effect` holds them; bands are those of ``predict``.

    Parameters
    ----------
    level : float
        Coverage of the band.
    at : dict, optional
    points : bool
        Give what the responses ask for besides.
    """
    design, at = fit.design, dict(at or {})
    names = list(dict.fromkeys([*effect_names(design), *side_predictors(design)]))
    for key in at:
        pick(key, names, "fixed predictor of the model, so that at cannot hold it")
    source = None if design.y is None else Source(fit)
    offsets = [one for side in design.remake.offsets for one in predictors_of(side)]
    offsets += [design.remake.offset_column] if design.remake.offset_column else []
    others = [one for one in dict.fromkeys([*names, *offsets]) if one != name]
    held = {one: _rounded(effect_lines._held(one, source, design, at), one, source) for one in others}
    values, grid, labels = effect_lines._drawn(name, source, design, at)
    estimate, low, high = _population_at(fit, name, values, held, level)
    x = y = size = rug = np.empty(0)
    if source is not None and name is not None:
        rug = source.values(name) if labels is None else rug
        x, y, size = _asked_for(fit, name, source.values(name), held, labels is not None) if points else (x, y, size)
    return Curve(name, labels, grid, estimate, low, high, held, x, y, size, rug)


def _rounded(value: Any, name: str, source: Source | None) -> Any:
    """The mean of a centred column is zero, not what rounding leaves of it."""
    if isinstance(value, float) and source is not None and abs(value) < 1e-12 * float(np.abs(source.values(name)).max()):
        return 0.0
    return value


def _asked_for(
    fit: GeneralisedFit, name: str, x: Array, held: Mapping[str, Any], factor: bool
) -> tuple[Array, Array, Array]:
    """Where classes of rows lie, the mean their responses ask for, and their size.

    Of each class the linear predictors are moved by what makes its responses most likely; the curve moved by as much is the
    mean. It is the partial residual of a linear model, averaged in classes, for any family.
    """
    codes = classes(x, factor)
    count = np.bincount(codes).astype(np.float64)
    place = np.bincount(codes, x) / count
    rows = np.arange(len(x))
    start = np.zeros((len(count), 1))
    moved = own_fits(fit, rows, np.ones((len(x), 1)), codes, len(count), fit._eta[1], start)[0][:, 0]
    levels = effect_lines._levels_of(name, None, fit.design) if factor else None
    levels = [False, True] if factor and levels is None else levels
    values = place if levels is None else effect_lines.objects([levels[int(v)] for v in place])
    new, offset = _frame(fit, name, values, held)
    eta = np.asarray(fit.predict(new, groups=None, kind="link", offset=offset)["prediction"]) + moved
    if fit.family.name == "ordinal":
        return place, fit.categories_at(eta), count
    return place, fit._mean(eta, *row_parameters(fit, new, len(eta))), count


def _frame(fit: GeneralisedFit, name: str | None, values: Any, held: Mapping[str, Any]) -> tuple[Any, Array | None]:
    """New rows along a predictor, and their offset where it was fitted as an array: its mean."""
    import pandas as pd

    m = 1 if values is None else len(values)
    columns: dict[str, Any] = {"rows": np.zeros(m)} if not held and name is None else {}
    for key, value in held.items():
        columns[key] = np.full(m, value, dtype=object if isinstance(value, str) else None)
    if name is not None:
        columns[name] = values
    if not fit.design.remake.offset_array:
        return pd.DataFrame(columns), None
    if fit.design.offset is None:
        raise DataError(
            "this model was saved without its data, and with them the offset, which was an array; save it with "
            "save(path, data=True)"
        )
    return pd.DataFrame(columns), np.full(m, fit.design.offset.mean())


def _population_at(
    fit: GeneralisedFit, name: str | None, values: Any, held: Mapping[str, Any], level: float
) -> tuple[Array, Array, Array]:
    """Predictions without group effects and their limits."""
    new, offset = _frame(fit, name, values, held)
    table = fit.predict(new, groups=None, interval="confidence", level=level, offset=offset)
    if fit.family.name == "ordinal":
        labels, ends = fit.design.labels, ("", "_low", "_high")
        found = [np.column_stack([np.asarray(table[f"{one}{end}"]) for one in labels]) for end in ends]
        return found[0], found[1], found[2]
    found = [np.asarray(table[column]) for column in ("prediction", "conf_low", "conf_high")]
    return found[0], found[1], found[2]


# -- groups -----------------------------------------------------------------------------------------------------


def group_lines(fit: GeneralisedFit, x: Any, group: Any, levels: Any, max_groups: int) -> Lines:
    """Pooled, unpooled and partially pooled means of some groups; other parameters as for `pooling_lines.group_lines`.

    Each is the average over the group's rows with x moved to the grid and all else, other groups' effects too, as it is
    there: a curve of means is not the mean's curve. The pooled line is the same family's model without random effects; the
    unpooled one is fitted to the group's rows alone with the model's dispersion, extra zeros or thresholds, and is NaN where
    it runs to infinity.
    """
    design = fit.rows_of_data()
    group = pooling_lines._chosen_group(design, group)
    term = pooling_lines._term_of(design, group)
    sizes = np.bincount(term.codes, minlength=len(term.levels))
    chosen = pooling_lines._chosen_levels(term, sizes, levels, max_groups)
    source = Source(fit)
    x = _within_groups(source, group) if x is None else pooling_lines._chosen_x(source, group, x)
    member = [np.flatnonzero(term.codes == code) for code in chosen]
    grid, labels = pooling_lines._grid(source, x)
    used = [rows[fewer(len(rows), AVERAGED)] for rows in member]
    every = np.concatenate([np.tile(rows, len(grid)) for rows in used])
    made, offset = _moved(fit, source, x, grid, used, every)
    own = parameters_at(fit, made.sides, made.n)
    partial = means(fit, offset + _conditional(fit, made, every), *own)
    pooled = np.full(made.n, np.nan)
    if (without := pooled_fit(fit)) is not None:
        pooled = means(without, offset + made.X @ without.optimum.beta, *parameters_at(without, made.sides, made.n))
    own_columns, new = pooling_lines._own_columns(design, made, group)
    where, y, at = None if x is None else source.values(x), observed(fit), 0
    facets = []
    for code, rows, some in zip(chosen, member, used, strict=True):
        part = slice(at, at := at + len(some) * len(grid))
        eta = offset[part] + own_line(fit, rows, own_columns(rows), new[part])
        alone = np.full(len(eta), np.nan)
        good = np.isfinite(eta)
        alone[good] = means(fit, eta[good], own[0][part][good], own[1][part][good])
        ends = [_averaged(fit, some, one) for one in (pooled[part], alone, partial[part])]
        place = np.arange(len(rows), dtype=np.float64) if where is None else where[rows]
        facets.append(Facet(term.levels[code], rows, place, y[rows], *ends))
    return Lines(group, x, labels, grid, {}, (), tuple(facets), len(sizes))


def _within_groups(source: Source, group: str) -> str | None:
    """The predictor to draw along: as `pooling_lines._chosen_x`, of those that vary within groups."""
    term = pooling_lines._term_of(source.design, group)
    bars = [t for t in source.recipe.terms if t.group == group]
    varying = list(dict.fromkeys(name for t in bars for name in predictors_of(t.side)))
    for names in (varying, predictors_of(source.recipe.fixed)):
        free = []
        for name in names:
            values = source.values(name)
            first = np.zeros(len(term.levels))
            first[term.codes] = values
            if (first[term.codes] != values).any():
                free.append(name)
        for number in (True, False):
            for name in free:
                if (source.levels(name) is None) == number:
                    return name
    return None


def _moved(
    fit: GeneralisedFit, source: Source, x: str | None, grid: Array, used: list[Index], every: Index
) -> tuple[New, Array]:
    """Matrices and offset of the groups' rows with x at each point of the grid: group by group, point by point."""
    import pandas as pd

    columns = {name: one.iloc[every].reset_index(drop=True) for name, one in source.series.items()}
    if x is not None:
        levels = source.levels(x)
        points = grid if levels is None else effect_lines.objects(levels)
        columns[x] = pd.Series(np.concatenate([np.repeat(points, len(rows)) for rows in used]))
    if not columns:
        columns["rows"] = pd.Series(np.zeros(len(every)))
    offset = fit.design.offset
    names = pooling_lines.group_names(fit.design)
    return matrices_at(fit, pd.DataFrame(columns), names, None if offset is None else offset[every])


def _conditional(fit: GeneralisedFit, made: New, every: Index) -> Array:
    """(m,) fixed effects plus the effects of all groups of the rows."""
    out = made.X @ fit.optimum.beta
    for term in made.terms:
        modes = fit.optimum.b[term.index][fit.design.terms[term.index].codes[every]]
        out += modes[:, 0] if term.Z is None else np.einsum("ij,ij->i", term.Z, modes)
    return np.asarray(out)


def _averaged(fit: GeneralisedFit, rows: Index, values: Array) -> Array:
    """(grid,) averages over rows, by their trials where the response counts successes."""
    trials = fit.design.trials if fit.family.name in TRIALS else None
    weights = np.ones(len(rows)) if trials is None else trials[rows]
    if not weights.sum() > 0:
        weights = np.ones(len(rows))
    return np.asarray(values.reshape(-1, len(rows)) @ weights / weights.sum())


def pooled_fit(fit: GeneralisedFit) -> GeneralisedFit | None:
    """The same family's model without random effects; None where it has no estimates."""
    from .generalised import GeneralisedFit

    model = fit.model.with_design(replace(fit.design, terms=())).with_quadrature(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MultilevelWarning)  # what is said of it is not about the user's model
        try:
            found = model.fit(threads=fit.engine.threads)
        except DataError:
            return None
    assert isinstance(found, GeneralisedFit)
    return found
