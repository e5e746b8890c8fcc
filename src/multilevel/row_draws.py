"""What each posterior draw says of each row fitted, for any family: log density of its response, and a new response."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .families import Family, shape_values
from .laplace import coefficients_of
from .posterior_predict import CHUNK as LARGEST
from .posterior_predict import flat, need_effects, predictors, rows_to_predict, sigma_of
from .posterior_predict import log_likelihood as log_normal
from .posterior_predict import log_likelihood_parts as log_normal_parts
from .residuals import structured_noise
from .structured_draws import structure_draws

if TYPE_CHECKING:
    from .design import Design
    from .posterior import Posterior

__all__ = ["drawn", "drawn_responses", "log_likelihood", "log_likelihood_parts", "new_responses"]

Array = NDArray[np.float64]

CHUNK = 500_000  # rows times draws that the core is given at once


@dataclass(frozen=True)
class _Part:
    """Some rows under some draws, every array (draws, rows) or (rows,)."""

    rows: slice
    draws: slice
    eta: Array
    first: Array
    second: Array


def log_likelihood(posterior: Posterior) -> Array:
    """(chains, draws, rows used) log density of each response given the group effects, times the row's weight.

    Where residuals are serially correlated, given all other rows of its series too.

    Raises
    ------
    OptionError
        If the group effects were not kept.
    """
    if posterior.model.distribution is None:
        _kept_groups(posterior)
        return log_normal(posterior)
    kept = posterior.draws_kept
    out = np.empty((kept.chains * kept.draws, len(posterior.rows_of_data().y)))
    for rows, values in log_likelihood_parts(posterior):
        out[:, rows] = values
    return out.reshape(kept.chains, kept.draws, -1)


def log_likelihood_parts(posterior: Posterior, numbers: float = LARGEST) -> Iterator[tuple[slice, Array]]:
    """Parts of the rows with the (draws, m) log densities of their responses, at most so many numbers at once.

    All rows together where residuals are serially correlated, for there each depends on others.

    Raises
    ------
    OptionError
        If the group effects were not kept.
    """
    d, family, residual = posterior.rows_of_data(), posterior.model.distribution, posterior.model.residual
    if family is None:
        _kept_groups(posterior)
        if residual is not None and residual.serial is not None:
            yield slice(0, len(d.y)), flat(log_normal(posterior))
        else:
            yield from log_normal_parts(posterior, numbers)
        return
    from . import _core

    kept = posterior.draws_kept
    total, out = kept.chains * kept.draws, np.empty((0, 0))
    for part in _parts(posterior, numbers):
        shape = part.eta.shape
        if part.draws.start == 0:
            out = np.empty((total, shape[1]))
        y, trials = np.broadcast_to(d.y[part.rows], shape), None
        if d.trials is not None:
            trials = np.ascontiguousarray(np.broadcast_to(d.trials[part.rows], shape).ravel())
        columns = [np.ascontiguousarray(v.ravel()) for v in (y, part.eta, part.first, part.second)]
        density = _core.log_densities(family.kernel, columns[0], trials, *columns[1:])[0][:, 0]
        out[part.draws] = np.asarray(density).reshape(shape)
        if part.draws.stop == total:
            yield part.rows, out if d.weights is None else out * d.weights[part.rows]


def new_responses(posterior: Posterior, rng: np.random.Generator) -> Array:
    """(chains, draws, rows used) responses of the rows fitted, one from every draw; groups keep their effects.

    Successes, of counts of them; numbers of categories from zero, of an ordinal response.
    """
    d, family = posterior.rows_of_data(), posterior.model.distribution
    kept = posterior.draws_kept
    out = np.empty((kept.chains * kept.draws, len(d.y)))
    if family is None:
        rows = rows_to_predict(posterior, None, _kept_groups(posterior), None, True)
        sigma, sd = sigma_of(posterior)[:, None], np.ones(len(d.y)) if d.weights is None else 1 / np.sqrt(d.weights)
        structure = posterior.model.residual
        for piece, eta in predictors(posterior, rows, False, rng):
            out[:, piece] = eta if structure is not None else eta + sigma * sd[piece] * rng.standard_normal(eta.shape)
        if structure is not None:
            noise = rng.standard_normal(out.shape)
            out += sigma * structured_noise(structure, structure_draws(posterior), d.weights, noise)
        return out.reshape(kept.chains, kept.draws, -1)
    for part in _parts(posterior):
        if family.name == "ordinal":
            out[part.draws, part.rows] = categories(family, part.eta, further(posterior)[part.draws], rng)
            continue
        trials = None if d.trials is None else d.trials[part.rows]
        out[part.draws, part.rows] = drawn(family, rng, part.eta, part.first, part.second, trials)
    return out.reshape(kept.chains, kept.draws, -1)


def drawn_responses(d: Design, family: Family, eta: Array, values: Array, rng: np.random.Generator) -> Array:
    """(draws, rows used) responses from linear predictors and the family's further coefficients (draws, m)."""
    if family.name == "ordinal":
        return categories(family, eta, values, rng)
    own = [values @ design.T for design in row_designs(d, family)]
    own += [np.zeros(eta.shape)] * (2 - len(own))
    return drawn(family, rng, eta, own[0], own[1], d.trials)


def drawn(
    family: Family, rng: np.random.Generator, eta: Array, first: Array, second: Array, trials: Array | None
) -> Array:
    """(draws, m) random responses; rows' parameters (draws, m), an estimated shape among them, and trials (m,)."""
    m = None if trials is None else np.broadcast_to(trials, eta.shape).ravel()
    number = None if family.shape is None else shape_values(family.shape, second.ravel())
    return family.draw(rng, eta.ravel(), first.ravel(), second.ravel(), m, number).reshape(eta.shape)


def categories(family: Family, eta: Array, thresholds: Array, rng: np.random.Generator) -> Array:
    """(draws, m) numbers of categories from zero, with thresholds (draws, categories - 1)."""
    link = Family("binomial", family.link)
    u = rng.random(eta.shape)
    out = np.zeros(eta.shape)
    for column in thresholds.T:
        out += u > link.mean(column[:, None] - eta)
    return out


def row_designs(d: Design, family: Family) -> list[Any]:
    """Per further parameter of a row the (n, m) design by the user's coefficients."""
    c = coefficients_of(d, family)
    back = np.linalg.inv(c.basis)
    return [design @ back for design in c.designs]


def further(posterior: Posterior) -> Array:
    """(draws, m) coefficients of dispersion and extra zeros, or thresholds."""
    kept = posterior.draws_kept
    own = [i for i, c in enumerate(kept.coordinates) if c.kind == "further"]
    return flat(kept.scalars)[:, own]


def _parts(posterior: Posterior, numbers: float = LARGEST) -> Iterator[_Part]:
    """All rows under all draws, piece by piece, with their linear predictors and further parameters."""
    d, family = posterior.rows_of_data(), posterior.model.distribution
    assert family is not None
    designs = row_designs(d, family)
    values = further(posterior)
    rows = rows_to_predict(posterior, None, _kept_groups(posterior), None, False)
    for piece, eta in predictors(posterior, rows, False, np.random.default_rng(0), numbers):
        step = max(1, CHUNK // max(eta.shape[1], 1))
        for at in range(0, len(eta), step):
            draws = slice(at, min(at + step, len(eta)))
            own = [values[draws] @ design[piece].T for design in designs]
            own += [np.zeros(eta[draws].shape)] * (2 - len(own))
            yield _Part(piece, draws, eta[draws], own[0], own[1])


def _kept_groups(posterior: Posterior) -> str:
    need_effects(posterior)
    return "all"
