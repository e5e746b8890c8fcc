"""Intraclass correlations and R squared of a posterior: the shares of every draw.

The definitions are those of fits (`variance_shares`, `generalised_shares`, `generalised_response_shares`), at the parameters
of each draw.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import OptionError
from .generalised_response_shares import JointParts, check_family, split
from .generalised_shares import check_link_scale, null_fit, observation_level, takes_centre, variance_at
from .posterior_predict import flat, sigma_of
from .posterior_tables import columns
from .row_draws import further, row_designs
from .variance_shares import Parts, RowMoments, group_list, level_scales, row_moments

if TYPE_CHECKING:
    from .families import Family
    from .posterior import Posterior

__all__ = ["icc", "link_parts", "r2", "response_parts"]

Array = NDArray[np.float64]

MOST_ROWS = 2_000  # distinct rows of shares of the response, each integrated over its groups for every draw
BUDGET = 400_000  # rows times draws beyond which draws are left out
FEWEST = 400  # draws that stay
BATCH = 20_000  # rows times draws at once


def icc(posterior: Posterior, by_group: Any, level: float, scale: str, progress: bool | None) -> Any:
    """Intraclass correlations; see `Posterior.icc`."""
    from .model import check_flag

    check_flag("by_group", by_group)
    names = group_list(_stand_in(posterior))
    if not names:
        raise OptionError("the model has no random effects, so there is no intraclass correlation; r2() works")
    found = _parts(posterior, level, scale, progress)
    kinds = np.array(["adjusted", "conditional"], dtype=object)
    if not by_group:
        return posterior._frame({"kind": kinds, **_table(found.icc(), level)})
    labels = {"group": np.tile(np.array(names, dtype=object), 2), "kind": np.repeat(kinds, len(names))}
    return posterior._frame({**labels, **_table(found.icc_by_group(), level)})


def r2(posterior: Posterior, level: float, scale: str, progress: bool | None) -> Any:
    """Marginal and conditional R squared; see `Posterior.r2`."""
    found = _parts(posterior, level, scale, progress)
    kinds = np.array(["marginal", "conditional"], dtype=object)
    return posterior._frame({"kind": kinds, **_table(found.r2(), level)})


def _table(values: Array, level: float) -> dict[str, Array]:
    """Columns of (draws, m) shares."""
    return columns(values[None], level, diagnose=False)


def _parts(posterior: Posterior, level: float, scale: str, progress: bool | None) -> Parts:
    from .inference import check_level

    check_level(level)
    if scale not in ("link", "response"):
        raise OptionError(f"scale {scale!r} is not known; allowed are 'link', 'response'")
    posterior.rows_of_data()
    on_link = scale == "link" or posterior.model.distribution is None
    return link_parts(posterior) if on_link else response_parts(posterior, progress)


def _stand_in(posterior: Posterior) -> Any:
    """Moments of the rows ask of a fit for its design and model only, which a posterior has."""
    return posterior


# -- on the scale of the linear predictor ---------------------------------------------------------------------------


def link_parts(posterior: Posterior) -> Parts:
    """Variances at every draw: of the fixed effects, of each grouping factor, and the residual's."""
    moments, family = row_moments(_stand_in(posterior), 1.0), posterior.model.distribution
    groups = _group_variances(posterior, moments)
    if family is None:
        size = sigma_of(posterior)
        residual = size**2 * _squared_multipliers(posterior)
    else:
        residual, size = _distribution_variances(posterior, family), np.zeros(len(groups))
        own = observation_level(_stand_in(posterior))
        residual = residual + groups[:, own].sum(axis=1)
        groups[:, own] = 0.0
    beta = flat(posterior.draws_kept.beta)
    fixed = np.maximum(np.einsum("si,ij,sj->s", beta, moments.fixed, beta), 0.0)
    least = 1e-12 * np.maximum(np.abs(beta).max(axis=1, initial=0.0), size)  # below it a variance is rounding
    return Parts(np.where(np.sqrt(fixed) < least, 0.0, fixed), groups, residual)


def _squared_multipliers(posterior: Posterior) -> Array | float:
    """Mean over the rows of the squared residual sd relative to sigma; (draws,) under variance functions."""
    d, structure, kept = posterior.rows_of_data(), posterior.model.residual, posterior.draws_kept
    known = np.ones(len(d.y)) if d.weights is None else 1 / d.weights
    if structure is None or not structure.spreads:
        return float(known.mean())
    values = flat(kept.scalars)[:, [c.kind == "residual" for c in kept.coordinates]]
    return np.array(
        [np.mean(known * np.exp(2 * structure.log_sd(structure.coordinates(one), len(known)))) for one in values]
    )


def _group_variances(posterior: Posterior, moments: RowMoments) -> Array:
    """(draws, g) mean variance over the rows of each grouping factor's effects."""
    names, kept = group_list(_stand_in(posterior)), posterior.draws_kept
    out = np.zeros((kept.chains * kept.draws, len(names)))
    for t, (term, root) in enumerate(zip(posterior.design.terms, moments.random, strict=True)):
        factors = _roots(flat(posterior.covariances(t)))
        out[:, names.index(term.group)] += np.sum(np.einsum("ri,sij->srj", root, factors) ** 2, axis=(1, 2))
    return out


def _roots(cov: Array) -> Array:
    """(draws, k, k) factors F with F F' = cov, singular or not."""
    sd = np.sqrt(np.einsum("sii->si", cov))
    scale = np.where(sd > 0, sd, 1.0)
    values, vectors = np.linalg.eigh(cov / (scale[:, :, None] * scale[:, None, :]))
    return np.asarray(sd[:, :, None] * vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :])


def _distribution_variances(posterior: Posterior, family: Family) -> Array:
    """(draws,) residual variance on the scale of the link.

    Where it depends on the mean of the response, that of the model without predictors is its estimate by maximum
    likelihood, the same for all draws.
    """
    d = posterior.rows_of_data()
    check_link_scale(family, d)
    beta, values = flat(posterior.draws_kept.beta), further(posterior)
    centre = np.zeros(len(beta))
    if takes_centre(family):
        centre = beta[:, 0] if d.names == ("Intercept",) else centre + null_fit(posterior.model, d)
    first = centre * 0.0 if family.dispersion is None else values[:, 0]
    second = first if family.shape is None else values[:, 1]
    rows = zip(first.tolist(), second.tolist(), centre.tolist(), strict=True)
    return np.array([variance_at(family.at_shape(shape), size, middle) for size, shape, middle in rows])


# -- on the scale of the response ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rows:
    """Distinct rows, as everything that a draw multiplies.

    Attributes
    ----------
    X : (m, p) array
    offset : (m,) array
    designs : tuple of (m, c) arrays
        Of log dispersion and of extra zeros, by the further coefficients.
    effects : tuple of (m, k) arrays
        Per term; its covariance between these is a row's variance.
    share : (m,) array
        Of each in the data.
    """

    X: Array
    offset: Array
    designs: tuple[Array, ...]
    effects: tuple[Array, ...]
    share: Array


def response_parts(posterior: Posterior, progress: bool | None = None) -> JointParts:
    """Variances of the response at every draw, or at some of them, equally spaced, where there are many distinct rows."""
    from .progress import Progress

    family = posterior.model.distribution
    assert family is not None
    check_family(family)
    rows, own = _distinct(posterior, family), observation_level(_stand_in(posterior))
    chosen, found = _chosen(posterior, len(rows.share)), []
    size = 1 if family.shape is not None else max(1, BATCH // len(rows.share))
    with Progress(len(chosen), "shares", progress) as bar:
        for at in range(0, len(chosen), size):
            part = chosen[at : at + size]
            found.append(_split(posterior, family, rows, part, own))
            bar.add(len(part))
    return JointParts(*(np.concatenate([getattr(one, f.name) for one in found]) for f in fields(JointParts)))


def _chosen(posterior: Posterior, rows: int) -> NDArray[np.intp]:
    """Draws to compute at."""
    total = posterior.draws_kept.chains * posterior.draws_kept.draws
    count = min(total, max(FEWEST, BUDGET // rows))
    return np.linspace(0, total - 1, count).round().astype(np.intp)


def _split(posterior: Posterior, family: Family, rows: _Rows, draws: NDArray[np.intp], own: list[int]) -> JointParts:
    names = group_list(_stand_in(posterior))
    eta = flat(posterior.draws_kept.beta)[draws] @ rows.X.T + rows.offset
    groups = np.zeros((*eta.shape, len(names)))
    for t, (term, z) in enumerate(zip(posterior.design.terms, rows.effects, strict=True)):
        cov = flat(posterior.covariances(t))[draws]
        groups[:, :, names.index(term.group)] += np.einsum("mj,sjk,mk->sm", z, cov, z)
    values = further(posterior)[draws]
    first, second = [*(values @ design.T for design in rows.designs), np.zeros(eta.shape), np.zeros(eta.shape)][:2]
    if family.shape is not None:
        family = family.at_shape(float(second[0, 0]))  # the draws come one by one then
    return split(family, eta, first, second, np.maximum(groups, 0.0), own, rows.share)


def _distinct(posterior: Posterior, family: Family) -> _Rows:
    """Rows that differ in what enters the shares; of very many, quantiles in the order of their mean linear predictors."""
    d = posterior.rows_of_data()
    n = len(d.y)
    effects = []
    for term in d.terms:
        z = np.ones((n, 1)) if term.Z is None else term.Z
        scales = level_scales(_stand_in(posterior), term.group)
        effects.append(z if scales is None else np.sqrt(scales[term.codes])[:, None] * z)
    offset = np.zeros(n) if d.offset is None else d.offset
    designs = row_designs(d, family)
    _, index, counts = np.unique(
        np.column_stack([d.X, offset, *designs, *effects]), axis=0, return_index=True, return_counts=True
    )
    share = counts / n
    if len(index) > MOST_ROWS:
        order = np.argsort((d.X @ posterior.mean_beta + offset)[index], kind="stable")
        wanted = (np.arange(MOST_ROWS) + 0.5) / MOST_ROWS
        index = index[order][np.searchsorted(np.cumsum(share[order]), wanted)]
        share = np.full(MOST_ROWS, 1 / MOST_ROWS)
    return _Rows(
        d.X[index], offset[index], tuple(one[index] for one in designs), tuple(z[index] for z in effects), share
    )
