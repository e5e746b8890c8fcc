"""Group effects of a generalised posterior updated with new rows: draws of the effects given the parameters of each draw.

With one grouping factor its levels are independent given the parameters, so only levels that have new rows change. For each
draw the mode and curvature of a level's few effects make a proposal, Student's t, of which importance resampling keeps one in
`CANDIDATES` (Rubin 1988, Bayesian Statistics 3): exact but for the finite number of candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import frame, generalised_condition
from .errors import DataError
from .generalised_condition import NO_MODE
from .posterior_predict import flat
from .row_draws import further, row_designs

if TYPE_CHECKING:
    from .design import Design
    from .families import Family
    from .posterior import Posterior

__all__ = ["effects", "responses_of"]

Array = NDArray[np.float64]

CANDIDATES = 40
DF = 6.0  # of the proposals: tails wider than those of effects with a normal prior
STEPS = 50  # of Newton's method
NUMBERS = 5e6  # numbers held at once, for draws times rows of a level
DERIVATIVES = 4  # numbers of each row that the core gives
SETTLED = 1e-10


def responses_of(posterior: Posterior, table: frame.Table, n: int, given: Any) -> tuple[Array, Array | None, Array | None]:
    """(n,) responses of new rows, their trials and their prior weights."""
    from . import condition as linear
    from .generalised_rows import proportions

    d = posterior.design
    stand_in: Any = SimpleNamespace(design=d, family=posterior.model.distribution, model=posterior.model)
    shares = proportions(stand_in)
    weights = linear.weights_of_new(d.weights is not None or shares, table, given, n)
    y, trials = generalised_condition.response(stand_in, table, n, weights)
    return y, trials, None if shares else weights


@dataclass(frozen=True)
class _Level:
    """One level under every draw: rows (m,), parameters of rows (draws, m), prior precision of effects (draws, k, k)."""

    family: Family
    y: Array
    trials: Array | None
    weights: Array
    z: Array
    eta: Array
    first: Array
    second: Array
    precision: Array

    def value(self, b: Array) -> tuple[Array, Array, Array]:
        """(draws,) log density up to a constant, its (draws, k) slope and (draws, k, k) information, made positive."""
        from . import _core

        eta = self.eta + b @ self.z.T
        shape = eta.shape
        y = np.ascontiguousarray(np.broadcast_to(self.y, shape).ravel())
        trials = None if self.trials is None else np.ascontiguousarray(np.broadcast_to(self.trials, shape).ravel())
        columns = [np.ascontiguousarray(v.ravel()) for v in (eta, self.first, self.second)]
        with np.errstate(all="ignore"):
            found = np.asarray(_core.log_densities(self.family.kernel, y, trials, *columns)[0])
        parts = found[:, :3].reshape(*shape, 3) * self.weights[:, None]
        pulled = np.einsum("skl,sl->sk", self.precision, b)
        value = parts[..., 0].sum(axis=1) - 0.5 * np.einsum("sk,sk->s", b, pulled)
        information = np.einsum("sm,mk,ml->skl", np.abs(parts[..., 2]), self.z, self.z) + self.precision
        return np.where(np.isfinite(value), value, -np.inf), parts[..., 1] @ self.z - pulled, information


def effects(posterior: Posterior, now: Posterior, design: Design, old: int, seed: Any) -> list[Array]:
    """Per term (chains, draws, J, k) effects given the rows of a design, of which the first `old` were known before."""
    from .sampler import seeds

    family, kept = posterior.model.distribution, posterior.draws_kept
    assert family is not None
    rng = seeds(seed)[1]
    codes = design.terms[0].codes
    total, levels = kept.chains * kept.draws, len(design.terms[0].levels)
    before = np.concatenate([flat(b) for b in now.draws_kept.b], axis=2)
    out = np.zeros((total, levels, before.shape[2]))
    out[:, : before.shape[1]] = before
    z = np.hstack([np.ones((len(codes), 1)) if t.Z is None else t.Z for t in design.terms])
    precision, at = np.zeros((total, z.shape[1], z.shape[1])), 0
    for t, term in enumerate(design.terms):
        part = slice(at, at + len(term.names))
        precision[:, part, part] = np.linalg.inv(flat(posterior.covariances(t)))
        at += len(term.names)
    designs, beta, values = row_designs(design, family), flat(kept.beta), further(posterior)
    for level in np.unique(codes[old:]):
        rows = np.flatnonzero(codes == level)
        trials = None if design.trials is None else design.trials[rows]
        weights = np.ones(len(rows)) if design.weights is None else design.weights[rows]
        step = max(1, int(NUMBERS / max(DERIVATIVES * len(rows), CANDIDATES * z.shape[1])))
        for first in range(0, total, step):
            some = slice(first, min(first + step, total))
            eta = beta[some] @ design.X[rows].T + (0.0 if design.offset is None else design.offset[rows])
            own = [values[some] @ one[rows].T for one in designs] + [np.zeros(eta.shape)] * 2
            one = _Level(family, design.y[rows], trials, weights, z[rows], eta, own[0], own[1], precision[some])
            out[some, level] = _drawn(one, out[some, level], rng)
    cuts = np.cumsum([len(t.names) for t in design.terms])[:-1]
    return [np.ascontiguousarray(b.reshape(kept.chains, kept.draws, *b.shape[1:])) for b in np.split(out, cuts, axis=2)]


def _mode(level: _Level, start: Array) -> tuple[Array, Array]:
    """(draws, k) modes by Newton's method, steps halved where the density falls, and (draws, k, k) information there."""
    b = np.array(start)
    value, slope, information = level.value(b)
    for _ in range(STEPS):
        if not (np.isfinite(information).all() and np.isfinite(slope).all()):
            raise DataError(NO_MODE)
        step = np.linalg.solve(information, slope[..., None])[..., 0]
        moving = np.einsum("sk,sk->s", slope, step) > SETTLED
        if not moving.any():
            break
        length = np.where(moving, 1.0, 0.0)
        for _ in range(30):
            new = b + length[:, None] * step
            after = level.value(new)
            worse = ~(after[0] >= value - 1e-10 * np.abs(value)) & (length > 0)
            if not worse.any():
                break
            length[worse] /= 2
        b, (value, slope, information) = new, after
    if not np.isfinite(value).all():
        raise DataError(NO_MODE)
    return b, information


def _drawn(level: _Level, start: Array, rng: np.random.Generator) -> Array:
    """(draws, k) effects, one by importance resampling for each draw of the parameters."""
    mode, information = _mode(level, start)
    try:
        back = np.linalg.inv(np.linalg.cholesky(information))
    except np.linalg.LinAlgError:
        raise DataError(NO_MODE) from None
    # back' z has the inverse information as its covariance
    draws, k = mode.shape
    found, log_weights = np.empty((CANDIDATES, draws, k)), np.empty((CANDIDATES, draws))
    for i in range(CANDIDATES):
        z = rng.standard_normal((draws, k)) * np.sqrt(DF / rng.chisquare(DF, draws))[:, None]
        found[i] = mode + np.einsum("sji,sj->si", back, z)
        log_proposal = -0.5 * (DF + k) * np.log1p((z**2).sum(axis=1) / DF)
        log_weights[i] = level.value(found[i])[0] - log_proposal
    # the largest of log weights with Gumbel noise is a draw in proportion to the weights
    chosen = np.argmax(log_weights + rng.gumbel(size=log_weights.shape), axis=0)
    return np.asarray(found[chosen, np.arange(draws)])
