"""Numbers behind the plots of a posterior's groups and effects: lines and coefficients per draw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import effect_lines, pooling_lines
from .effect_lines import Source, pick, predictors_of
from .families import TRIALS, Family
from .pooling_lines import Facet, Lines
from .posterior_replicates import successes_name

if TYPE_CHECKING:
    from .design_recipe import New
    from .posterior import Posterior

__all__ = ["Band", "GroupDraws", "PosteriorLines", "coefficients", "effect", "group_effects", "group_lines", "summaries"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]

CHUNK = 2e7  # numbers held at once: draws times rows


@dataclass(frozen=True)
class GroupDraws:
    """Draws of one effect or coefficient of every level.

    Attributes
    ----------
    group, name : str
    levels : (J,) array
    values : (draws, J) array
    population : (draws,) array or None
        The fixed effect that is in them; None for effects, which are differences from it.
    """

    group: str
    name: str
    levels: NDArray[Any]
    values: Array
    population: Array | None


@dataclass(frozen=True)
class PosteriorLines:
    """Lines per group along a predictor, on the scale of the response.

    Attributes
    ----------
    lines : Lines
        As for a fit; `partial` is the posterior mean. Pooled and unpooled are NaN outside the gaussian family.
    sampled : list of (draws, m) arrays
        Per facet, lines of single draws.
    low, high : list of (m,) arrays
        Per facet, quantiles over all draws.
    response : str
        What the lines and points are of.
    categories : tuple of str
        Of an ordinal response; the lines are then expected numbers of category, the first being 1.
    """

    lines: Lines
    sampled: list[Array]
    low: list[Array]
    high: list[Array]
    response: str
    categories: tuple[str, ...]


@dataclass(frozen=True)
class Band:
    """Expected response along one predictor, group effects at zero; attributes as of `effect_lines.Effect`."""

    name: str | None
    labels: tuple[str, ...] | None
    grid: Array
    mean: Array
    low: Array
    high: Array
    held: dict[str, Any]


# -- effects and coefficients of groups -----------------------------------------------------------------------


def group_effects(posterior: Posterior, group: str | None, term: str | None) -> list[GroupDraws]:
    """Draws of the group effects, a record for each effect of each grouping factor asked for."""
    return _by_group(posterior, group, term, whole=False)


def coefficients(posterior: Posterior, group: str | None, term: str | None) -> list[GroupDraws]:
    """Draws of the coefficients that vary by group, fixed plus group effect, as in `Posterior.coef`."""
    return _by_group(posterior, group, term, whole=True)


def _by_group(posterior: Posterior, group: str | None, term: str | None, whole: bool) -> list[GroupDraws]:
    d = posterior.design
    first = pooling_lines._chosen_group(d, group)
    names = [first] if group is not None or whole else pooling_lines.group_names(d)
    options = dict.fromkeys(name for one in d.terms if one.group in names for name in one.names)
    if term is not None:
        term = "Intercept" if term == "(Intercept)" else term
        pick(term, list(options), f"effect of {names[0]!r}" if len(names) == 1 else "group effect")
    out = []
    for t, one in enumerate(d.terms):
        if one.group not in names:
            continue
        values = _flat(posterior.group_effects(t))
        for i, name in enumerate(one.names):
            if term not in (None, name):
                continue
            if whole and name in d.names:
                population = _flat(posterior.draws_kept.beta)[:, d.names.index(name)]
                out.append(GroupDraws(one.group, name, one.levels, values[:, :, i] + population[:, None], population))
            else:
                out.append(GroupDraws(one.group, name, one.levels, values[:, :, i], None))
    return sorted(out, key=lambda panel: names.index(panel.group))


def summaries(values: Array, level: float) -> tuple[Array, Array, Array]:
    """Means and quantiles of (draws, J) values over the draws."""
    means, lows, highs = [], [], []
    step = max(1, int(CHUNK / len(values)))
    for at in range(0, values.shape[1], step):
        part = values[:, at : at + step]
        low, high = np.quantile(part, [(1 - level) / 2, (1 + level) / 2], axis=0)
        means.append(part.mean(axis=0))
        lows.append(low)
        highs.append(high)
    return np.concatenate(means), np.concatenate(lows), np.concatenate(highs)


def _flat(values: Array) -> Array:
    return values.reshape(-1, *values.shape[2:])


def spread(total: int, count: int) -> Index:
    """Positions of at most `count` draws, evenly over all chains."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(np.int64))


# -- lines by group -------------------------------------------------------------------------------------------


def group_lines(
    posterior: Posterior, x: Any, group: Any, levels: Any, max_groups: int, draws: int, level: float
) -> PosteriorLines:
    """Posterior lines of some groups, and for the gaussian family what complete and no pooling say.

    Parameters
    ----------
    x, group, levels, max_groups
        As of `pooling_lines.group_lines`.
    draws : int
        Lines of single draws.
    level : float
        Coverage of the quantiles.
    """
    fit: Any = posterior  # what is used here of a fit a posterior has too: design, rows, model
    design = posterior.rows_of_data()
    group = pooling_lines._chosen_group(design, group)
    term = pooling_lines._term_of(design, group)
    sizes = np.bincount(term.codes, minlength=len(term.levels))
    chosen = pooling_lines._chosen_levels(term, sizes, levels, max_groups)
    source = Source(fit)
    x = pooling_lines._chosen_x(source, group, x)
    included = [
        one for one in pooling_lines.group_names(design) if pooling_lines._within(term, pooling_lines._term_of(design, one))
    ]
    member = [np.flatnonzero(term.codes == code) for code in chosen]
    grid, labels = pooling_lines._grid(source, x)
    made, offset, held = pooling_lines._matrices(fit, source, x, grid, member, included)
    pooled, unpooled = _without_pooling(posterior, made, offset, member, group)
    means = _group_means(posterior, made, offset, np.array([rows[0] for rows in member]))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    where = None if x is None else source.values(x)
    y, name = observed(posterior)
    shown = spread(len(means), draws)
    facets, parts = [], [slice(i * len(grid), (i + 1) * len(grid)) for i in range(len(member))]
    for code, rows, at in zip(chosen, member, parts, strict=True):
        place = np.arange(len(rows), dtype=np.float64) if where is None else where[rows]
        middle = means[:, at].mean(axis=0)
        facets.append(Facet(term.levels[code], rows, place, y[rows], pooled[at], unpooled[at], middle))
    others = tuple(one for one in included if one != group)
    lines = Lines(group, x, labels, grid, held, others, tuple(facets), len(sizes))
    categories = design.labels if _family(posterior) == "ordinal" else ()
    sampled = [means[shown, at] for at in parts]
    return PosteriorLines(lines, sampled, [low[at] for at in parts], [high[at] for at in parts], name, categories)


def _without_pooling(
    posterior: Posterior, made: New, offset: Array, member: list[Index], group: str
) -> tuple[Array, Array]:
    """Least squares blind to groups, and on each group's own rows, on the grid; NaN outside the gaussian family."""
    unpooled = np.full(made.n, np.nan)
    if posterior.model.distribution is not None:
        return unpooled, unpooled
    design = posterior.design
    pooled = offset + made.X @ pooling_lines._least_squares(design)
    own_columns, new = pooling_lines._own_columns(design, made, group)
    for rows, at in zip(member, np.split(np.arange(made.n), len(member)), strict=True):
        response = pooling_lines._response(design, rows)
        unpooled[at] = offset[at] + pooling_lines._alone(own_columns(rows), *response, new[at])
    return pooled, unpooled


def _group_means(posterior: Posterior, made: New, offset: Array, first: Index) -> Array:
    """(draws, rows) expected responses on the grid of every group, the groups being those of the rows `first`."""
    kept = posterior.draws_kept
    some = spread(kept.chains * kept.draws, max(int(CHUNK / made.n), 200))
    eta = offset + _flat(kept.beta)[some] @ made.X.T
    for term in made.terms:
        codes = np.repeat(posterior.design.terms[term.index].codes[first], made.n // len(first))
        b = _flat(posterior.group_effects(term.index))[some]
        for i in range(b.shape[2]):
            eta += b[:, codes, i] * (1.0 if term.Z is None else term.Z[:, i])
    return expected(posterior, eta, made, some)


# -- effects --------------------------------------------------------------------------------------------------


def effect(posterior: Posterior, name: str | None, at: Mapping[str, Any] | None, level: float) -> Band:
    """Expected response along one fixed predictor, the others held, group effects at zero.

    Parameters
    ----------
    name, at
        As of `effect_lines.effect`.
    level : float
        Coverage of the band.
    """
    fit: Any = posterior
    design, recipe = posterior.design, posterior.design.remake
    names = effect_lines.effect_names(design)
    at = dict(at or {})
    for key in at:
        pick(key, names, "fixed predictor of the model, so that at cannot hold it")
    source = None if design.y is None else Source(fit)
    further = [n for side in (*recipe.offsets, *recipe.extra.values()) for n in predictors_of(side)]
    if recipe.offset_column:
        further.append(recipe.offset_column)
    others = [n for n in dict.fromkeys([*names, *further]) if n != name]
    held = {n: effect_lines._held(n, source, design, at) for n in others}
    values, grid, labels = effect_lines._drawn(name, source, design, at)
    made, offset = effect_lines.population_rows(fit, name, values, held)
    eta = offset + _flat(posterior.draws_kept.beta) @ made.X.T
    means = expected(posterior, eta, made, np.arange(len(eta)))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    shown = {n: v for n, v in held.items() if n in names}
    return Band(name, labels, grid, means.mean(axis=0), low, high, shown)


# -- scale of the response --------------------------------------------------------------------------------------


def _family(posterior: Posterior) -> str:
    found = posterior.model.distribution
    return "gaussian" if found is None else found.name


def observed(posterior: Posterior) -> tuple[Array, str]:
    """(n,) responses on the scale of `expected`, and what they are called."""
    d = posterior.rows_of_data()
    family = _family(posterior)
    if family == "ordinal":
        return np.asarray(d.y + 1), f"{d.response} (number of category)"
    if family in TRIALS and d.trials is not None and (d.trials != 1).any():
        with np.errstate(invalid="ignore"):
            return np.asarray(d.y / d.trials), f"{successes_name(d.response)}, share of trials"
    if family in TRIALS and len(d.labels) == 2 and d.labels[1] not in ("1", "True"):
        return np.asarray(d.y, dtype=np.float64), f"{d.response} ({d.labels[1]} = 1)"
    return np.asarray(d.y, dtype=np.float64), d.response


def expected(posterior: Posterior, eta: Array, made: New, some: Index) -> Array:
    """Mean of the response at linear predictors.

    Parameters
    ----------
    eta : (draws, m) array
    made : New
        The rows, for dispersion and extra zeros.
    some : (draws,) array
        Which draws they are of.

    Returns
    -------
    (draws, m) array
        Of a proportion for counts of successes; of an ordinal response the mean number of its category, from 1.
    """
    family = posterior.model.distribution
    if family is None:
        return eta
    further = _further(posterior)[some]
    if family.name == "ordinal":
        link = Family("binomial", family.link)
        return np.asarray(1 + sum(1 - link.mean(further[:, k, None] - eta) for k in range(further.shape[1])))
    parts, at = [np.zeros_like(eta), np.zeros_like(eta)], 0
    sides = ["dispersion"] * (family.dispersion is not None) + ["zi"] * (family.zero != "none")
    for k, what in enumerate(sides):
        matrix = made.sides.get(what, np.ones((made.n, 1)))
        parts[1 if what == "zi" else k] = further[:, at : at + matrix.shape[1]] @ matrix.T
        at += matrix.shape[1]
    first, second = parts
    return family.expected(eta.ravel(), first.ravel(), second.ravel()).reshape(eta.shape)


def _further(posterior: Posterior) -> Array:
    """(draws, m) coefficients of dispersion and extra zeros, or thresholds."""
    kept = posterior.draws_kept
    index = [i for i, c in enumerate(kept.coordinates) if c.kind == "further"]
    return _flat(kept.scalars)[:, index]
