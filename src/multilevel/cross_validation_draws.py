"""Scores of left-out rows under posterior draws: densities averaged over draws, with new groups' effects integrated out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from . import cross_validation_integrals as integrals
from . import predict as linear
from .cross_validation_fits import Held, Outcome, Scores, correlation_of, replace_rows
from .posterior_predict import _roots, _with_typical, rows_to_predict, sigma_of
from .structured_draws import RowSds, structure_draws

if TYPE_CHECKING:
    from .posterior import Posterior

__all__ = ["scores_of_posterior"]

Array = NDArray[np.float64]

JOINT_DRAWS = 400  # of a posterior, for the joint density of a group under a family that is not Gaussian


def scores_of_posterior(posterior: Posterior, held: Held, rng: np.random.Generator) -> Scores:
    """Score rows that a posterior has not seen; its predictive density is the mean over draws."""
    responses = np.random.default_rng(rng.integers(0, 2**63))  # alike in all models, as effects take unlike many numbers
    rows = rows_to_predict(posterior, held.frame, "all", held.offset, False)
    parts = list(_with_typical(posterior, rows, True, rng))
    typical = np.concatenate([one for _, one, _ in parts], axis=1)
    eta = np.concatenate([one for _, _, one in parts], axis=1)
    if posterior.model.distribution is None:
        return _gaussian(posterior, held, rows, typical, eta, responses)
    return _generalised(posterior, held, rows, typical, eta, rng, responses)


def _new_group_cov(posterior: Posterior, rows: linear._Rows, index: NDArray[np.intp], draws: NDArray[np.intp]) -> Array:
    """(draws, k, k) covariance of linear predictors from the effects of groups that were not fitted."""
    cov = np.zeros((len(draws), len(index), len(index)))
    for term in (replace_rows(one, index) for one in rows.terms):
        unknown = term.codes < 0
        if unknown.any():
            half = np.einsum("ij,sjk->sik", linear._columns(term), _roots(posterior, term.index)[draws])
            same = unknown[:, None] & unknown & (term.new_codes[:, None] == term.new_codes)
            cov += np.where(same, half @ half.transpose(0, 2, 1), 0.0)
    return cov


def _new_group_variance(posterior: Posterior, rows: linear._Rows, shape: tuple[int, ...]) -> Array:
    """(draws, m) the diagonal of that, of every row."""
    out = np.zeros(shape)
    for term in rows.terms:
        unknown = np.flatnonzero(term.codes < 0)
        if len(unknown):
            half = np.einsum("ij,sjk->sik", linear._columns(term)[unknown], _roots(posterior, term.index))
            out[:, unknown] += np.einsum("sik,sik->si", half, half)
    return out


def _gaussian(
    posterior: Posterior, held: Held, rows: linear._Rows, typical: Array, eta: Array, rng: np.random.Generator
) -> Scores:
    weights, y = held.of(held.model.design.weights), held.y
    noise = sigma_of(posterior)[:, None] * RowSds(posterior, rows).at(slice(0, len(y)), typical)
    noise = np.broadcast_to(noise / (1.0 if weights is None else np.sqrt(weights)), typical.shape)
    sd = np.sqrt(_new_group_variance(posterior, rows, typical.shape) + noise**2)
    each = integrals.normal_log_score(y, typical, sd)
    structure, residual = structure_draws(posterior), posterior.model.residual
    joint: dict[int, float] = {}
    for unit, index in held.parts():
        found = np.empty(len(typical))
        for first in range(0, len(typical), 100):
            draws = np.arange(first, min(first + 100, len(typical)))
            cov = _new_group_cov(posterior, rows, index, draws)
            for draw, own in zip(draws, cov, strict=True):
                s = noise[draw, index]
                correlation = correlation_of(held, index, residual, structure[draw])
                found[draw] = integrals.normal_joint(y[index], typical[draw, index], own + correlation * np.outer(s, s))
        joint[unit] = float(logsumexp(found) - np.log(len(found)))
    log_score = logsumexp(each, axis=0) - np.log(len(each))
    crps = integrals.sample_crps(y, eta + noise * rng.standard_normal(eta.shape))
    rank = integrals.normal_rank(y, typical, sd).mean(axis=0)
    return Scores(y, typical.mean(axis=0), np.asarray(log_score), crps, joint, rank, rank)


def _generalised(
    posterior: Posterior,
    held: Held,
    rows: linear._Rows,
    typical: Array,
    eta: Array,
    rng: np.random.Generator,
    responses: np.random.Generator,
) -> Scores:
    from .posterior_response import RowParameters
    from .row_draws import further

    family, m = posterior.model.distribution, len(held.at)
    assert family is not None
    values = further(posterior)
    ordinal = family.name == "ordinal"
    first = second = np.zeros(eta.shape)
    if not ordinal:
        first, second = RowParameters(posterior, rows, held.frame).at(slice(0, m), eta.shape)
    joint = _joint(posterior, held, rows, typical, first, second, rng)
    draws, each = np.empty(eta.shape), np.empty(eta.shape)
    whole = Outcome(family, held, first, second, np.empty(0))
    if ordinal:
        for i in range(len(eta)):
            one = Outcome(family, held, first[i], second[i], values[i])
            each[i], draws[i] = one.log_density(eta[i]), one.draw(eta[i : i + 1], responses)[0]
        prediction = np.full(m, np.nan)
    else:
        each, draws = whole.log_density(eta), whole.draw(eta, responses)
        flat = [one.ravel() for one in (typical, first, second)]
        prediction = family.expected(*flat).reshape(eta.shape).mean(axis=0)
    log_score = logsumexp(each, axis=0) - np.log(len(each))
    crps, below, through = whole.against(draws)
    return Scores(whole.observed(), prediction, np.asarray(log_score), crps, joint, below, through)


def _joint(
    posterior: Posterior,
    held: Held,
    rows: linear._Rows,
    typical: Array,
    first: Array,
    second: Array,
    rng: np.random.Generator,
) -> dict[int, float]:
    """Joint log densities of units: given a draw, over the new groups' effects by quadrature; then over draws."""
    from .row_draws import further

    family, out = posterior.model.distribution, {}
    assert family is not None
    values = further(posterior)
    some = np.unique(np.linspace(0, len(typical) - 1, JOINT_DRAWS).astype(np.intp))
    for unit, index in held.parts():
        cov = _new_group_cov(posterior, rows, index, some)
        found = np.empty(len(some))
        for place, draw in enumerate(some.tolist()):
            own = Outcome(family, held, first[draw], second[draw], values[draw]).part(index)
            found[place] = integrals.joint_log_score(own.log_density, typical[draw, index], cov[place], rng)
        out[unit] = float(logsumexp(found) - np.log(len(found)))
    return out
