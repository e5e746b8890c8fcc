"""Draws from the priors alone, and the responses they imply."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import residual_priors
from .errors import DataError, MultilevelWarning, OptionError, users_level
from .families import COUNTS
from .frame import like
from .marginal import fixed_root
from .prior_table import Entry, entries_of
from .priors import LKJ, Density, Fixed
from .relatives import standard_effects
from .residuals import structured_noise

if TYPE_CHECKING:
    from .design import Design
    from .families import Family
    from .model import Model

Array = NDArray[np.float64]

OWN_WAY = ("cor", "further", "residual")  # kinds of parameters that are drawn apart
TRIES = 200  # blocks of draws, in search of those that are possible
LARGEST_COUNT, LARGEST = 1e12, 1e100  # means up to which responses are drawn
POSITIVE = ("poisson", "gamma", "inverse_gaussian")  # families whose mean is
HALF_LINE = ("identity", "inverse", "inverse_square")  # links that do not see to it
EDGES: dict[str, Callable[[float], float]] = {  # linear predictors of a mean
    "log": lambda mean: float(np.log(mean)),
    "identity": float,
    "inverse": lambda mean: 1 / mean,
    "sqrt": lambda mean: mean**0.5,
    "inverse_square": lambda mean: mean**-2,
}


def prior_predictive(model: Model, n: int, seed: Any) -> Any:
    """See `Model.prior_predictive`."""
    from .predict import generator
    from .sample import check_count

    if model.residual is not None and model.residual.iterated:
        raise OptionError(
            "prior_predictive() needs variances that do not depend on the fitted values, which priors have none of: name a "
            "column in place of fitted"
        )
    if model.design.y is None:
        raise DataError("this model was saved without its data, whose rows this needs; save it with save(path, data=True)")
    count, rng, d = check_count("n", n, 1), generator(seed), model.design
    return like(d.kind, simulated(model, responses(model, entries_of(model), count, rng)))


def simulated(model: Model, y: Array) -> dict[str, Any]:
    """Columns sim_1 ... of (n, rows used) responses: rows left out are missing, categories the values of the data."""
    from .responses import labelled

    d = model.design
    out = np.full((len(y), d.n_input), np.nan)
    out[:, d.rows] = y
    columns = [labelled(d, model.data, one) for one in out] if model.family == "ordinal" else list(out)
    return {f"sim_{i + 1}": column for i, column in enumerate(columns)}


def responses(model: Model, entries: list[Entry], n: int, rng: np.random.Generator) -> Array:
    """(n, rows used) responses, of as many draws of all parameters; of an ordinal response numbers of categories."""
    d = model.design
    if model.distribution is not None:
        return _of_family(d, model.distribution, entries, n, rng)
    values, eta = predictors(d, entries, n, rng)
    own = np.column_stack([residual_priors.draw(e, rng, n) for e in entries if e.kind == "residual"] or [np.empty((n, 0))])
    noise = structured_noise(model.residual, own, d.weights, rng.standard_normal(eta.shape))
    entry = next(e for e in entries if e.kind == "sigma")
    sigma = residual_priors.sigma(entry, values["sigma"], model.residual, own, d)
    return np.asarray(eta + sigma[:, None] * noise)


def _of_family(d: Design, family: Family, entries: list[Entry], n: int, rng: np.random.Generator) -> Array:
    eta = _possible_predictors(d, family, entries, n, rng)
    further = [e for e in entries if e.kind == "further"]
    if family.name == "ordinal":
        values = thresholds(further, n, rng)
        if len(values) < n:
            raise OptionError(
                "the priors of the thresholds put them in ascending order too rarely to draw from; give ascending means, or "
                "one prior for all as 'thresholds'"
            )
    else:
        values = np.column_stack([_draw(e, rng, n) for e in further] or [np.empty((n, 0))])
    y = _drawn(d, family, eta, values, rng)
    if not np.isfinite(y).all():
        share = int((~np.isfinite(y)).any(axis=1).sum())
        warnings.warn(
            f"the priors are so wide that {share} of {n} simulated data sets have responses beyond any number (infinite); "
            "give narrower ones",
            MultilevelWarning,
            stacklevel=users_level(),
        )
    return y


def _drawn(d: Design, family: Family, eta: Array, values: Array, rng: np.random.Generator) -> Array:
    """Responses; those of means beyond what generators take are drawn at the largest and multiplied."""
    from .row_draws import drawn_responses

    most = LARGEST_COUNT if family.name in COUNTS else LARGEST
    with np.errstate(all="ignore"):
        mean = family.mean(eta)
        large = np.abs(mean) > most
        held = np.where(large, EDGES[family.link](most) if family.link in EDGES else eta, eta)
        if family.link == "log":
            held = np.maximum(held, -500.0)  # where the mean rounds to zero
        try:
            y = drawn_responses(d, family, held, values, rng)
        except DataError:
            raise OptionError(
                f"the priors are so wide that responses of family {family.name!r} cannot be drawn; give narrower ones "
                "(model.prior_summary() lists them)"
            ) from None
        above = large & (y != 0)
        y[above] *= mean[above] / most
    return y


def _possible_predictors(
    d: Design, family: Family, entries: list[Entry], n: int, rng: np.random.Generator
) -> Array:
    """(n, rows used) linear predictors that the family's mean allows in every row.

    A posterior gives none of its mass to others, so that the prior is cut off there too.
    """
    found: list[Array] = []
    count = 0
    for _ in range(TRIES):
        eta = predictors(d, entries, n, rng)[1]
        if family.link in HALF_LINE and family.name in POSITIVE:
            eta = eta[(eta > 0).all(axis=1)]
        found.append(eta)
        count += len(eta)
        if count >= n:
            return np.concatenate(found)[:n]
    raise OptionError(
        f"with these priors the mean of family {family.name!r} is negative in some row of {1 - count / (TRIES * n):.2%} of "
        f"draws, which link {family.link!r} does not exclude; give priors that keep it positive, or use link='log'"
    )


def predictors(
    d: Design, entries: list[Entry], n: int, rng: np.random.Generator
) -> tuple[dict[str, Array], Array]:
    """Draws of all parameters by name, and (n, rows used) linear predictors.

    Correlations are ``cor(g)``, (n, k, k) factors. A family's further coefficients and the residual's are not among them.
    """
    values = {e.name: _draw(e, rng, n) for e in entries if e.kind not in OWN_WAY}
    beta = np.column_stack([values[e.name] for e in entries if e.kind == "coefficient"] or [np.empty((n, 0))])
    eta = beta @ d.X.T
    if d.offset is not None:
        eta += d.offset
    for t, term in enumerate(d.terms):
        k = len(term.names)
        sds = [values[e.name] for e in entries if e.kind == "sd" and e.term == t]
        sd = np.column_stack(sds * (k if len(sds) == 1 else 1))
        cor = next((e for e in entries if e.kind == "cor" and e.term == t), None)
        roots = np.tile(np.eye(k), (n, 1, 1)) if cor is None else correlation_roots(cor, term, n, rng)
        if cor is not None:
            values[cor.name] = roots
        z = standard_effects(d.known.get(term.group), len(term.levels), k, n, rng)
        b = np.einsum("nij,nlj->nli", roots * sd[:, :, None], z)
        columns = np.ones((len(d.y), 1)) if term.Z is None else term.Z
        for i in range(k):
            eta += b[:, term.codes, i] * columns[:, i]
    return values, eta


def _draw(entry: Entry, rng: np.random.Generator, n: int) -> Array:
    if isinstance(entry.prior, Fixed):
        return entry.prior.draw(rng, n)
    assert isinstance(entry.prior, Density)
    positive = entry.kind in ("sd", "sigma")
    return entry.prior.draw_positive(rng, n) if positive else entry.prior.draw(rng, n)


def thresholds(entries: list[Entry], n: int, rng: np.random.Generator) -> Array:
    """(n, m) thresholds of an ordinal response from their priors, given that they ascend; fewer where that is rare.

    Equal priors: sorted draws. Others: those draws that happen to ascend. Held ones are what they are.
    """
    held = [float(e.prior.value) for e in entries if isinstance(e.prior, Fixed)]
    if held and len(held) == len(entries):
        return np.tile(held, (n, 1))
    priors = [e.prior for e in entries if isinstance(e.prior, Density)]
    assert len(priors) == len(entries)
    if all(prior == priors[0] for prior in priors):
        return np.sort(np.column_stack([prior.draw(rng, n) for prior in priors]), axis=1)
    found = np.empty((0, len(priors)))
    for _ in range(TRIES):
        values = np.column_stack([prior.draw(rng, n) for prior in priors])
        found = np.r_[found, values[(np.diff(values, axis=1) > 0).all(axis=1)]]
        if len(found) >= n:
            break
    return found[:n]


def correlation_roots(entry: Entry, term: Any, n: int, rng: np.random.Generator) -> Array:
    """(n, k, k) Cholesky factors of correlations from their prior.

    Partial correlations of an LKJ matrix are beta variables (Lewandowski, Kurowicka & Joe 2009, section 2.4).
    """
    k = len(term.names)
    if isinstance(entry.prior, Fixed):
        kind = {"us": 1, "cs": 2, "homcs": 2}.get(term.structure, 3)
        return np.tile(fixed_root(entry.prior.value, term, kind), (n, 1, 1))
    assert isinstance(entry.prior, LKJ)
    eta = entry.prior.eta
    if term.structure != "us":
        lowest = -1.0 / (k - 1) if term.structure in ("cs", "homcs") else -1.0
        rho = lowest + (1 - lowest) * rng.beta(eta, eta, n)
        lag = np.abs(np.subtract.outer(np.arange(k), np.arange(k)))
        r = np.where(lag == 0, 1.0, rho[:, None, None] if "cs" in term.structure else rho[:, None, None] ** lag)
        return np.asarray(np.linalg.cholesky(r + 1e-12 * np.eye(k)))
    out = np.zeros((n, k, k))
    out[:, 0, 0] = 1.0
    for i in range(1, k):
        left = np.ones(n)
        for j in range(i):
            shape = eta + (k - 2 - j) / 2
            z = 2 * rng.beta(shape, shape, n) - 1
            out[:, i, j] = z * left
            left = left * np.sqrt(1 - z * z)
        out[:, i, i] = left
    return out
