"""Draws from the priors alone, and the responses they imply."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import OptionError
from .frame import like
from .marginal import fixed_root
from .prior_table import Entry, prior_table
from .priors import LKJ, Density, Fixed

if TYPE_CHECKING:
    from .design import Design
    from .model import Model

Array = NDArray[np.float64]


def prior_predictive(model: Model, n: int, seed: Any) -> Any:
    """See `Model.prior_predictive`."""
    from .predict import generator
    from .sample import check_count

    if model.distribution is not None or model.residual is not None:
        raise OptionError(
            "prior_predictive() is available for gaussian models with independent residuals only in this version"
        )
    count, rng, d = check_count("n", n, 1), generator(seed), model.design
    entries = prior_table(d, None, model.priors)
    out = np.full((count, d.n_input), np.nan)
    out[:, d.rows] = responses(d, entries, count, rng)
    return like(d.kind, {f"sim_{i + 1}": column for i, column in enumerate(out)})


def responses(d: Design, entries: list[Entry], n: int, rng: np.random.Generator) -> Array:
    """(n, rows used) responses of a Gaussian model, of as many draws of all parameters."""
    values, eta = predictors(d, entries, n, rng)
    scale = np.ones(len(d.y)) if d.weights is None else 1 / np.sqrt(d.weights)
    return np.asarray(eta + values["sigma"][:, None] * scale * rng.standard_normal(eta.shape))


def predictors(
    d: Design, entries: list[Entry], n: int, rng: np.random.Generator
) -> tuple[dict[str, Array], Array]:
    """Draws of all parameters by name, correlations as ``cor(g)`` (n, k, k) factors, and (n, rows used) linear predictors."""
    values = {e.name: _draw(e, rng, n) for e in entries if e.kind != "cor"}
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
        z = rng.standard_normal((n, len(term.levels), k))
        b = np.einsum("nij,nlj->nli", roots * sd[:, :, None], z)
        columns = np.ones((len(d.y), 1)) if term.Z is None else term.Z
        for i in range(k):
            eta += b[:, term.codes, i] * columns[:, i]
    return values, eta


def _draw(entry: Entry, rng: np.random.Generator, n: int) -> Array:
    if isinstance(entry.prior, Fixed):
        return entry.prior.draw(rng, n)
    assert isinstance(entry.prior, Density)
    return entry.prior.draw(rng, n) if entry.kind == "coefficient" else entry.prior.draw_positive(rng, n)


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
