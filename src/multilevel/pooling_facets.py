"""Numbers behind the figures of `Pooling`: the three lines of each group, and the coefficients before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from . import generalised_lines, pooling_lines
from . import predict as linear
from .effect_lines import Source
from .plot_panels import fewer
from .pooling_lines import Facet, Lines, Shrinkage

if TYPE_CHECKING:
    from .design_recipe import New
    from .generalised import GeneralisedFit
    from .pooling_result import Pooling
    from .posterior import Posterior

__all__ = ["chosen_groups", "lines_of", "shrinkage_of"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]

DRAWS = 400  # over which a posterior's curve is averaged
LOST = "no coefficients of their own"


def chosen_groups(found: Pooling, levels: Any, most: int) -> Index:
    """Positions of the groups to draw: those named, or some spread evenly over the range of sizes."""
    term = found.partial.design.terms[0]
    return pooling_lines._chosen_levels(term, found.columns.amount, levels, most)


def lines_of(found: Pooling, x: Any, levels: Any, max_groups: int) -> Lines:
    """Lines of some groups along a predictor; `Lines.x` is None where no predictor varies within groups.

    Of a Gaussian response other predictors are held at each group's mean or most frequent level; of other families the lines
    are averages over the group's rows with x moved, as in `generalised_lines.group_lines`.
    """
    fit: Any = found.partial
    design, group = fit.rows_of_data(), found.group
    term = pooling_lines._term_of(design, group)
    chosen = chosen_groups(found, levels, max_groups)
    source = Source(fit)
    x = generalised_lines._within_groups(source, group) if x is None else pooling_lines._chosen_x(source, group, x)
    member = [np.flatnonzero(term.codes == code) for code in chosen]
    grid, labels = pooling_lines._grid(source, x)
    mean = found.models["no"].held is None
    used = [rows[:1] if mean else rows[fewer(len(rows), generalised_lines.AVERAGED)] for rows in member]
    codes = np.concatenate([np.full(len(rows) * len(grid), code) for code, rows in zip(chosen, used, strict=True)])
    held: dict[str, str] = {}
    if mean:
        made, offset, held = pooling_lines._matrices(fit, source, x, grid, member, [group])
    else:
        every = np.concatenate([np.tile(rows, len(grid)) for rows in used])
        made, offset = generalised_lines._moved(fit, source, x, grid, used, every)
    values = _means(found, made, offset, codes)
    where, y, at, facets = None if x is None else source.values(x), _observed(found), 0, []
    for code, rows, some in zip(chosen, member, used, strict=True):
        part = slice(at, at := at + len(some) * len(grid))
        ends = [one[part] if mean else _averaged(found, some, one[part]) for one in values]
        place = np.arange(len(rows), dtype=np.float64) if where is None else where[rows]
        facets.append(Facet(term.levels[code], rows, place, y[rows], *ends))
    return Lines(group, x, labels, grid, held, (), tuple(facets), len(term.levels))


def _observed(found: Pooling) -> Array:
    """(n,) response where it is drawn."""
    if found.models["no"].held is None:
        return np.asarray(found.partial.design.y)
    return generalised_lines.observed(cast("GeneralisedFit", found.models["complete"]))


def _averaged(found: Pooling, rows: Index, values: Array) -> Array:
    return generalised_lines._averaged(cast("GeneralisedFit", found.models["complete"]), rows, values)


def _means(found: Pooling, made: New, offset: Array, codes: NDArray[Any]) -> tuple[Array, Array, Array]:
    """(m,) means by complete, no and partial pooling, of rows and their groups."""
    whole, own = found.models["complete"], found.models["no"]
    Z = np.hstack([linear._columns(term) for term in made.terms])
    pooled = offset + made.X @ whole.optimum.beta
    alone = own.eta(made.X, Z, codes, offset)[0]
    if own.held is None:
        beta, b = _coefficients(found)
        return pooled, alone, offset + made.X @ beta + np.einsum("ij,ij->i", Z, b[codes])
    known = np.isfinite(alone)
    first, second = generalised_lines.parameters_at(own.held, made.sides, made.n)
    alone[known] = generalised_lines.means(own.held, alone[known], first[known], second[known])
    pooled = generalised_lines.means(whole, pooled, *generalised_lines.parameters_at(whole, made.sides, made.n))
    return pooled, alone, _partial_means(found, made, offset, Z, codes)


def _coefficients(found: Pooling) -> tuple[Array, Array]:
    """Fixed effects, and (J, k) group effects: estimates, or posterior means."""
    from .posterior import Posterior

    one, terms = found.partial, found.columns.terms
    if isinstance(one, Posterior):
        return one.mean_beta, np.hstack([one.mean_b(t) for t in terms])
    return one.optimum.beta, np.hstack([one.optimum.b[t] for t in terms])


def _partial_means(found: Pooling, made: New, offset: Array, Z: Array, codes: NDArray[Any]) -> Array:
    """(m,) means of another family's response by partial pooling."""
    from .posterior import Posterior

    if isinstance(found.partial, Posterior):
        return _mean_of_draws(found.partial, made, offset, codes)
    fit = cast("GeneralisedFit", found.partial)
    beta, b = _coefficients(found)
    eta = offset + made.X @ beta + np.einsum("ij,ij->i", Z, b[codes])
    return generalised_lines.means(fit, eta, *generalised_lines.parameters_at(fit, made.sides, made.n))


def _mean_of_draws(posterior: Posterior, made: New, offset: Array, codes: NDArray[Any]) -> Array:
    from .posterior_lines import CHUNK, _flat, expected, spread

    kept = posterior.draws_kept
    some = spread(kept.chains * kept.draws, min(DRAWS, max(int(CHUNK / made.n), 20)))
    eta = offset + _flat(kept.beta)[some] @ made.X.T
    for term in made.terms:
        b = _flat(posterior.group_effects(term.index))[some]
        for i in range(b.shape[2]):
            eta += b[:, codes, i] * (1.0 if term.Z is None else term.Z[:, i])
    return np.asarray(expected(posterior, eta, made, some).mean(axis=0))


# -- shrinkage ------------------------------------------------------------------------------------------------------


def shrinkage_of(found: Pooling) -> Shrinkage:
    """Coefficients without and with partial pooling; the population's is the mean over groups where it differs."""
    c = found.columns
    beta = _coefficients(found)[0]
    return Shrinkage(
        group=found.group,
        names=c.names,
        levels=c.levels,
        sizes=np.asarray(c.sizes, dtype=np.int64),
        own=found.estimates["no"].estimate,
        partial=found.estimates["partial"].estimate,
        population=np.nanmean(c.parts @ beta, axis=0),
        cov=_cov(found),
        fixed=(),
        groups=(),
        lost=LOST,
    )


def _cov(found: Pooling) -> Array:
    """(k, k) covariance between groups."""
    from scipy.linalg import block_diag

    from .posterior import Posterior

    one = found.partial
    if isinstance(one, Posterior):
        parts = [one.covariances(t).mean(axis=(0, 1)) for t in found.columns.terms]
    else:
        covs = one.random_cov()
        parts = [covs[t] for t in found.columns.terms]
    return np.asarray(block_diag(*parts))
