"""Predictions, simulation and log-likelihoods from posterior draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import predict as linear
from .errors import OptionError
from .frame import like
from .structured_draws import RowSds, log_density_given_others, structure_draws

if TYPE_CHECKING:
    from .design_recipe import NewTerm
    from .posterior import Posterior

Array = NDArray[np.float64]

Columns = Callable[[slice, Array, Array], dict[str, NDArray[Any]]]  # of some rows, from two (draws, m) linear predictors

CHUNK = 2e7  # numbers held at once: draws times rows


def flat(values: Array) -> Array:
    """Chains one after the other."""
    return values.reshape(values.shape[0] * values.shape[1], *values.shape[2:])


def predict(
    posterior: Posterior,
    new: Any,
    groups: Any,
    kind: str,
    new_levels: str,
    interval: str | None,
    level: float,
    marginal: bool,
    offset: Any,
    seed: Any,
) -> Any:
    """Predict rows; see `Posterior.predict`."""
    from .inference import check_level
    from .model import check_flag

    check_level(level)
    check_flag("marginal", marginal)
    linear._choice("kind", kind, ("response", "link"))
    linear._choice("new_levels", new_levels, ("error", "population", "sample"))
    if interval is not None:
        linear._choice("interval", interval, ("confidence", "prediction"))
    family = posterior.model.distribution
    on_link = family is None or kind == "link"
    if marginal:
        if not (groups is None or isinstance(groups, str) and groups == "all"):
            raise OptionError("marginal=True averages over all groups, so groups cannot name some; leave groups out")
        if family is not None and (interval is not None or kind == "link"):
            raise OptionError(
                "marginal=True gives the mean of the response over all groups without an interval; leave interval and kind "
                "out"
            )
        groups = None
    if family is not None and kind == "link" and interval == "prediction":
        raise OptionError("interval='prediction' is of new responses; leave kind='link' out")
    over_groups = marginal and family is not None
    rows = rows_to_predict(posterior, new, groups, offset, interval == "prediction" or over_groups)
    if new_levels == "error":
        linear._refuse_new_levels(rows.terms)
    rng = linear.generator(seed)
    probabilities = ((1 - level) / 2, (1 + level) / 2)
    columns: dict[str, list[Array]] = {}
    draw_new = interval is not None or new_levels == "sample" or over_groups
    over = new_levels == "sample" or over_groups  # the mean over new groups, not that of a typical one
    made_of = _on_line if on_link else _responses
    columns_of = made_of(posterior, rows, new, interval, probabilities, rng)
    for part, typical, eta in _with_typical(posterior, rows, draw_new, rng):
        for name, values in columns_of(part, eta if over else typical, eta).items():
            columns.setdefault(name, []).append(values)
    made = {name: _spread(rows, np.concatenate(parts)) for name, parts in columns.items()}
    out = like(rows.kind, made)
    source = posterior.model.data if new is None else new
    if rows.kind == "pandas" and len(getattr(source, "index", ())) == len(out):
        out.index = source.index
    return out


def _spread(rows: linear._Rows, values: NDArray[Any]) -> NDArray[Any]:
    """Values of the complete rows among all rows asked for; categories are None elsewhere, numbers NaN."""
    if values.dtype != object:
        return rows.spread(values)
    out = np.full(rows.n, None, dtype=object)
    out[rows.at] = values
    return out


def _on_line(
    posterior: Posterior,
    rows: linear._Rows,
    new: Any,
    interval: str | None,
    probabilities: tuple[float, float],
    rng: np.random.Generator,
) -> Columns:
    """What makes columns of the linear predictor, or of a Gaussian response."""
    sds = RowSds(posterior, rows) if interval == "prediction" else None

    def columns(part: slice, centre: Array, eta: Array) -> dict[str, NDArray[Any]]:
        out = {"prediction": centre.mean(axis=0)}
        if interval is None:
            return out
        if sds is not None:
            eta = eta + sigma_of(posterior)[:, None] * sds.at(part, eta) * rng.standard_normal(eta.shape)
        low, high = np.quantile(eta, probabilities, axis=0)
        return out | {"est_error": eta.std(axis=0, ddof=1), "ci_low": low, "ci_high": high}

    return columns


def _responses(
    posterior: Posterior,
    rows: linear._Rows,
    new: Any,
    interval: str | None,
    probabilities: tuple[float, float],
    rng: np.random.Generator,
) -> Columns:
    """What makes columns of a response that is not Gaussian."""
    from .generalised_rows import trials_of
    from .posterior_response import RowParameters, columns_of

    trials = trials_of(posterior, new, rows) if interval == "prediction" else None
    parameters = RowParameters(posterior, rows, new)

    def columns(part: slice, centre: Array, eta: Array) -> dict[str, NDArray[Any]]:
        own = None if trials is None else trials[part]
        return columns_of(posterior, centre, eta, part, parameters, interval, probabilities, own, rng)

    return columns


def rows_to_predict(posterior: Posterior, new: Any, groups: Any, offset: Any, every: bool) -> linear._Rows:
    """Complete rows with the terms that enter, and with those left out where their variance does."""
    stand_in: Any = posterior
    names = linear.group_names(stand_in, groups)
    if new is None and offset is not None:
        raise OptionError("offset belongs to new rows; the fitted rows have theirs")
    if new is None:
        rows = linear._fitted_rows(stand_in, names, every)
    else:
        rows = linear._new_rows(stand_in, new, names, offset, every)
    if any((term.codes >= 0).any() for term in rows.terms):
        need_effects(posterior)
    return rows


def need_effects(posterior: Posterior) -> None:
    """Refuse where there are groups whose effects were not kept."""
    if posterior.design.terms and not posterior.draws_kept.b:
        raise OptionError(
            "the group effects were not kept (keep='parameters'), and this needs them; sample with keep='all', or leave them "
            "out with groups=None where that can be said"
        )


def predictors(
    posterior: Posterior, rows: linear._Rows, draw_new: bool, rng: np.random.Generator, numbers: float = CHUNK
) -> Iterator[tuple[slice, Array]]:
    """Parts of the rows with their linear predictors (draws, m), at most so many numbers at once.

    Groups that are not known (new, missing or left out) have effects of zero or, on request, effects drawn from the
    population, shared by the rows of one new level.
    """
    for part, _, eta in _with_typical(posterior, rows, draw_new, rng, numbers):
        yield part, eta


def _with_typical(
    posterior: Posterior, rows: linear._Rows, draw_new: bool, rng: np.random.Generator, numbers: float = CHUNK
) -> Iterator[tuple[slice, Array, Array]]:
    """`predictors` with unknown groups at effects of zero, and as asked for; the same array where there is no difference."""
    beta = flat(posterior.draws_kept.beta)
    n = len(rows.X)
    size = max(1, int(numbers / max(len(beta), 1)))
    roots = [_roots(posterior, term.index) if draw_new and (term.codes < 0).any() else None for term in rows.terms]
    fresh = [
        None if root is None else _population(root, len(term.new_levels), rng)
        for root, term in zip(roots, rows.terms, strict=True)
    ]
    for first in range(0, max(n, 1), size):
        part = slice(first, min(first + size, n))
        typical = beta @ rows.X[part].T
        if rows.offset is not None:
            typical += rows.offset[part]
        columns = [linear._columns(term)[part] for term in rows.terms]
        for term, z in zip(rows.terms, columns, strict=True):
            _add_known(posterior, term, part, z, typical)
        eta = typical if all(root is None for root in roots) else typical.copy()
        for term, z, root, effects in zip(rows.terms, columns, roots, fresh, strict=True):
            if root is not None and effects is not None:
                _add_unknown(term, part, z, root, effects, eta, rng)
        yield part, typical, eta


def _roots(posterior: Posterior, t: int) -> Array:
    """(draws, k, k) lower factors of a term's covariance."""
    return np.asarray(np.linalg.cholesky(flat(posterior.covariances(t))))


def _population(roots: Array, count: int, rng: np.random.Generator) -> Array:
    """(draws, count, k) effects of so many new groups."""
    z = rng.standard_normal((len(roots), count, roots.shape[-1]))
    return np.asarray(np.einsum("sij,slj->sli", roots, z))


def _add_known(posterior: Posterior, term: NewTerm, part: slice, z: Array, eta: Array) -> None:
    codes = term.codes[part]
    known = np.flatnonzero(codes >= 0)
    if len(known):
        b = flat(posterior.draws_kept.b[term.index])
        for i in range(z.shape[1]):
            eta[:, known] += b[:, codes[known], i] * z[known, i]


def _add_unknown(
    term: NewTerm, part: slice, z: Array, root: Array, fresh: Array, eta: Array, rng: np.random.Generator
) -> None:
    codes, new_codes = term.codes[part], term.new_codes[part]
    new = np.flatnonzero(codes == -2)
    if len(new):
        eta[:, new] += np.einsum("slk,lk->sl", fresh[:, new_codes[new]], z[new])
    nobody = np.flatnonzero(codes == -1)
    if len(nobody):
        eta[:, nobody] += np.einsum("slk,lk->sl", _population(root, len(nobody), rng), z[nobody])


def sigma_of(posterior: Posterior) -> Array:
    """(draws,) residual sd."""
    found = posterior.draws_kept.scalar("sigma")
    assert found is not None
    return flat(found)


def simulate(posterior: Posterior, n: int, groups: Any, rng: np.random.Generator) -> Array:
    """(n, rows used) responses, each from a posterior draw of its own; groups not kept get new effects.

    Successes, of counts of them; numbers of categories from zero, of an ordinal response.
    """
    d, family = posterior.rows_of_data(), posterior.model.distribution
    kept = linear.group_names(posterior, groups)  # type: ignore[arg-type]
    total = posterior.draws_kept.chains * posterior.draws_kept.draws
    chosen = rng.choice(total, n, replace=n > total)
    eta = _predictors_of(posterior, chosen, kept, rng)
    if family is not None:
        from .row_draws import drawn_responses, further

        return drawn_responses(d, family, eta, further(posterior)[chosen], rng)
    from .residuals import structured_noise

    structure = structure_draws(posterior)[chosen]
    noise = structured_noise(posterior.model.residual, structure, d.weights, rng.standard_normal(eta.shape))
    return np.asarray(eta + sigma_of(posterior)[chosen, None] * noise)


def _predictors_of(
    posterior: Posterior, chosen: NDArray[np.intp], kept: Sequence[str], rng: np.random.Generator
) -> Array:
    """(n, rows used) linear predictors of some draws, groups not kept with new effects from the population of the draw."""
    from .relatives import standard_effects

    d = posterior.rows_of_data()
    eta: Array = flat(posterior.draws_kept.beta)[chosen] @ d.X.T
    if d.offset is not None:
        eta += d.offset
    for t, term in enumerate(d.terms):
        if term.group in kept:
            b = flat(posterior.group_effects(t))[chosen]
        else:
            z = standard_effects(d.known.get(term.group), len(term.levels), len(term.names), len(chosen), rng)
            b = np.einsum("sij,slj->sli", _roots(posterior, t)[chosen], z)
        columns = np.ones((len(d.y), 1)) if term.Z is None else term.Z
        for i in range(columns.shape[1]):
            eta += b[:, term.codes, i] * columns[:, i]
    return eta


def log_likelihood(posterior: Posterior) -> Array:
    """(chains, draws, rows used) log density of each response given the group effects, and all other rows of its series."""
    d = posterior.rows_of_data()
    kept, residual = posterior.draws_kept, posterior.model.residual
    out = np.empty((kept.chains * kept.draws, len(d.y)))
    if residual is not None and residual.serial is not None:
        return _given_others(posterior, out).reshape(kept.chains, kept.draws, -1)
    for part, values in log_likelihood_parts(posterior):
        out[:, part] = values
    return out.reshape(kept.chains, kept.draws, -1)


def log_likelihood_parts(posterior: Posterior, numbers: float = CHUNK) -> Iterator[tuple[slice, Array]]:
    """Parts of the rows with the (draws, m) log densities of their responses; for residuals that are independent."""
    d = posterior.rows_of_data()
    rows = rows_to_predict(posterior, None, "all", None, False)
    sigma, sds = sigma_of(posterior)[:, None], RowSds(posterior, rows)
    for part, eta in predictors(posterior, rows, False, np.random.default_rng(0), numbers):
        sd = sds.at(part, eta)
        rest = (d.y[part] - eta) / sigma
        yield part, np.asarray(-0.5 * (rest / sd) ** 2 - np.log(sd) - 0.5 * np.log(2 * np.pi) - np.log(sigma))


def _given_others(posterior: Posterior, out: Array) -> Array:
    """(draws, rows used) log densities where residuals are serially correlated, in an array to work in."""
    d = posterior.rows_of_data()
    rows = rows_to_predict(posterior, None, "all", None, False)
    sigma, sds = sigma_of(posterior)[:, None], RowSds(posterior, rows)
    for part, eta in predictors(posterior, rows, False, np.random.default_rng(0)):
        out[:, part] = (d.y[part] - eta) / sigma
    return np.asarray(log_density_given_others(posterior, out, sds.of) - np.log(sigma))
