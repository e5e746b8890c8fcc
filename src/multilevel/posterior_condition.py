"""Group effects of a posterior updated with new rows: for every draw of the parameters, effects given all rows.

Linear models: given coefficients, covariances and sigma the effects are jointly normal. The posterior's own core draws them:
it is built on old and new rows together, with every coefficient a coordinate, so that nothing but the effects is left to
draw. Other families are in `posterior_condition_link`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import condition as linear
from . import frame, posterior_condition_link
from .errors import DataError, OptionError
from .generalised_condition import _joined
from .marginal import Marginal
from .posterior_predict import flat, sigma_of
from .priors import LKJ, Fixed, HalfNormal, StudentT

if TYPE_CHECKING:
    from .design import Design
    from .posterior import Posterior
    from .prior_table import Entry

__all__ = ["PosteriorConditioned", "condition"]

Array = NDArray[np.float64]

EDGE = 1e-12  # of a correlation from the end of its range, in which its coordinate is finite


@dataclass(frozen=True)
class PosteriorConditioned:
    """Group effects of a posterior given its own rows and new ones; parameters as drawn. Made by `Posterior.condition`.

    Attributes
    ----------
    posterior : Posterior
        The one whose draws of the parameters are kept.
    n_new : int
        New rows so far.
    new_levels : dict
        Grouping factor -> labels that the posterior had not seen.
    """

    posterior: Posterior
    n_new: int
    new_levels: dict[str, NDArray[Any]]
    _inner: Posterior

    def __repr__(self) -> str:
        fresh = ", ".join(f"{len(v)} new of {k}" for k, v in self.new_levels.items() if len(v)) or "no new levels"
        formula = self.posterior.formula
        return f"<PosteriorConditioned {formula!r} on {self.n_new} more rows ({fresh}); ranef(), coef(), predict()>"

    def ranef(self, level: float = 0.95) -> Any:
        """Group effects given old and new rows: group, level, term, estimate, est_error, ci_low, ci_high."""
        return self._inner.ranef(level)

    def coef(self, level: float = 0.95) -> Any:
        """Coefficients of each group, new ones included, fixed plus group effect: columns of `ranef`."""
        return self._inner.coef(level)

    def group_effects(self, t: int) -> Array:
        """(chains, draws, J, k) group effects of one term, levels in the order of `ranef`."""
        return self._inner.group_effects(t)

    def predict(self, new: Any, **options: Any) -> Any:
        """Predictions for rows, as `Posterior.predict`; its options hold. Intervals carry the whole uncertainty left."""
        if new is None:
            raise DataError("give the rows to predict")
        return self._inner.predict(new, **options)

    def condition(self, rows: Any, *, weights: Any = None, offset: Any = None, seed: Any = 0) -> PosteriorConditioned:
        """Take in more rows; the same as conditioning on all of them at once."""
        return _conditioned(self.posterior, self._inner, rows, weights, offset, seed, self)


def condition(posterior: Posterior, rows: Any, weights: Any, offset: Any, seed: Any) -> PosteriorConditioned:
    """Condition a posterior on new rows; see `Posterior.condition`."""
    d = posterior.design
    if not d.terms:
        raise DataError("the model has no group effects that new rows could update")
    if posterior.model.distribution is not None and len({t.group for t in d.terms}) > 1:
        raise OptionError(
            f"condition() of a posterior of family {posterior.model.family!r} takes one grouping factor in this version; "
            "sample the model with all rows, or use model.fit().condition(rows)"
        )
    if posterior.model.residual is not None:
        raise OptionError(
            "condition() of a posterior takes independent residuals of one variance in this version; sample with all rows, "
            "or use model.fit().condition(rows)"
        )
    if d.known:
        raise OptionError(
            "condition() cannot take in rows where the covariance between levels is known, for that of new levels is not; "
            "sample with all rows and a matrix of all levels"
        )
    posterior.rows_of_data()
    posterior.group_effects(0)  # refuses where they were not kept
    return _conditioned(posterior, posterior, rows, weights, offset, seed, None)


def _conditioned(
    posterior: Posterior, now: Posterior, rows: Any, weights: Any, offset: Any, seed: Any, before: PosteriorConditioned | None
) -> PosteriorConditioned:
    d, table = now.design, frame.Table(rows)
    made = d.at(rows, offset=offset)
    linear._complete(made)
    stand_in: Any = now
    trials = None
    if link := posterior.model.distribution is not None:
        y, trials, w = posterior_condition_link.responses_of(now, table, made.n, weights)
    else:
        y = linear._response(stand_in, table)
        w = linear.weights_of_new(d.weights is not None, table, weights, made.n)
    codes, levels, fresh = linear._levels(d, made)
    design = replace(
        _joined(d, made, y, trials, w, codes, levels), remake=linear._extended(d.remake, table, codes, levels)
    )
    if link:
        b = posterior_condition_link.effects(posterior, now, design, len(d.y), seed)
    else:
        b = _effects(posterior, design, seed)
    draws = replace(now.draws_kept, b=b)
    inner = type(posterior)(now.model.with_design(design), draws, posterior.entries)
    if before is not None:
        fresh = {g: np.concatenate([before.new_levels[g], v]) for g, v in fresh.items()}
    return PosteriorConditioned(posterior, made.n + (before.n_new if before else 0), fresh, inner)


# -- draws of the effects -----------------------------------------------------------------------------------------


def _effects(posterior: Posterior, design: Design, seed: Any) -> list[Array]:
    """Per term (chains, draws, J, k) effects given the rows of a design, one for each draw of the parameters."""
    from .crossprod import default_threads
    from .reml import Engine
    from .sampler import GROUP_MEMORY, seeds

    kept = posterior.draws_kept
    total, count = kept.chains * kept.draws, sum(len(t.levels) * len(t.names) for t in design.terms)
    if 8.0 * total * count > GROUP_MEMORY:
        raise OptionError(
            f"{total} draws of {count} group effects take {8e-9 * total * count:.1f} GB; sample with thin= to keep fewer"
        )
    density = Marginal(Engine(design, 1), design, [_open(e) for e in posterior.entries])
    x = np.ascontiguousarray(coordinates(posterior))
    drawn = density.core.draw(x, seeds(seed)[0], default_threads())
    b = density.effects(drawn)[1]
    return [np.ascontiguousarray(v.reshape(kept.chains, kept.draws, *v.shape[1:])) for v in b]


def _open(entry: Entry) -> Entry:
    """The parameter as a coordinate whose range is open: its prior plays no part once it is given."""
    if isinstance(entry.prior, Fixed):
        return entry
    kinds = {"coefficient": StudentT(3.0), "cor": LKJ(1.0)}  # coefficients with a normal prior would be integrated out
    return replace(entry, prior=kinds.get(entry.kind, HalfNormal(1.0)))


def coordinates(posterior: Posterior) -> Array:
    """(draws, size) unconstrained coordinates of the draws, in the core's order: terms, sigma, coefficients."""
    kept, entries = posterior.draws_kept, posterior.entries
    columns: list[Array] = []
    for t, term in enumerate(posterior.design.terms):
        cov = flat(posterior.covariances(t))
        sd = np.sqrt(np.einsum("sii->si", cov))
        free = [e for e in entries if e.term == t and not isinstance(e.prior, Fixed)]
        columns += [np.log(sd[:, e.effect]) for e in free if e.kind == "sd"]
        if any(e.kind == "cor" for e in free):
            r = cov / (sd[:, :, None] * sd[:, None, :])
            columns += _partial(r) if term.structure == "us" else [_single(r, term.structure)]
    if not any(e.kind == "sigma" and isinstance(e.prior, Fixed) for e in entries):
        columns.append(np.log(sigma_of(posterior)))
    beta = flat(kept.beta)
    columns += [beta[:, e.effect] for e in entries if e.kind == "coefficient" and not isinstance(e.prior, Fixed)]
    return np.column_stack(columns) if columns else np.empty((len(beta), 0))


def _partial(r: Array) -> list[Array]:
    """Inverse hyperbolic tangents of the partial correlations of (draws, k, k) correlation matrices."""
    root = np.linalg.cholesky(r)
    out = []
    for i in range(1, r.shape[1]):
        left = np.ones(len(r))
        for j in range(i):
            z = np.clip(root[:, i, j] / left, EDGE - 1, 1 - EDGE)
            out.append(np.arctanh(z))
            left = left * np.sqrt(1 - z * z)
    return out


def _single(r: Array, structure: str) -> Array:
    """Logit of the place in its range of the one correlation of cs or ar1."""
    lowest = -1.0 / (r.shape[1] - 1) if structure in ("cs", "homcs") else -1.0
    share = np.clip((r[:, 1, 0] - lowest) / (1 - lowest), EDGE, 1 - EDGE)
    return np.asarray(np.log(share / (1 - share)))
