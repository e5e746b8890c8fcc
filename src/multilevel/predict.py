"""Predictions with their uncertainty, simulation, refits to other responses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import DataError, OptionError, listing, nearest
from .frame import like

if TYPE_CHECKING:
    from .design import Design
    from .design_recipe import New, NewTerm
    from .fit import Fit

Array = NDArray[np.float64]
Codes = NDArray[np.int32]


def predict(
    fit: Fit,
    new: Any = None,
    *,
    groups: Any = "all",
    kind: str = "response",
    new_levels: str = "error",
    interval: str | None = None,
    level: float = 0.95,
    marginal: bool = False,
    offset: Any = None,
    seed: Any = None,
) -> Any:
    """Predict rows.

    Parameters
    ----------
    new : data frame, optional
        Rows to predict; default the rows fitted.
    groups : "all", None or list of names
        Whose group effects enter. Effects of groups left out are zero: the prediction for a typical group.
    kind : {"response", "link"}
        The same for a Gaussian model.
    new_levels : {"error", "population", "sample"}
        A level that was not fitted: an error; a new group from the population (effect zero, its variance in the
        interval); or one with effects drawn from the population, shared by its rows. A missing group value is an
        unknown group: effect zero and the variance in the interval ("sample": one of the known groups at random).
    interval : None, "confidence" or "prediction"
        Of the mean in that group, or of a new observation. The first carries the uncertainty of the fixed effects, of
        the known groups' effects and the whole variance of new groups; the second adds the residual variance and the
        variance of the groups left out by `groups`. Variances of the random effects are taken as known.
    level : float
        Coverage.
    marginal : bool
        Average over all groups instead of a typical one. For a Gaussian model the mean is the same as ``groups=None``.
    offset : column name or array, optional
        Offset of the new rows, where the model was fitted with an array as offset.
    seed : int or Generator, optional
        For ``new_levels="sample"``.

    Returns
    -------
    frame
        prediction and, with an interval, std_error, conf_low, conf_high; as many rows as given, NaN where a row misses a
        value.
    """
    from .inference import check_level
    from .model import check_flag

    check_level(level)
    check_flag("marginal", marginal)
    _choice("kind", kind, ("response", "link"))
    _choice("new_levels", new_levels, ("error", "population", "sample"))
    if interval is not None:
        _choice("interval", interval, ("confidence", "prediction"))
        if new_levels == "sample":
            raise OptionError(
                "new_levels='sample' draws the effects an interval would describe; use 'population' with one"
            )
    if marginal:
        if not (groups is None or isinstance(groups, str) and groups == "all"):
            raise OptionError("marginal=True averages over all groups, so groups cannot name some; leave groups out")
        groups = None
    names = group_names(fit, groups)
    if new is None and offset is not None:
        raise OptionError("offset belongs to new rows; the fitted rows have theirs")
    every = interval == "prediction"  # a new observation comes from some group, also of the factors left out
    rows = _fitted_rows(fit, names, every) if new is None else _new_rows(fit, new, names, offset, every)
    if new_levels == "error":
        _refuse_new_levels(rows.terms)
    rng = generator(seed)
    if new_levels == "sample":
        _borrow_levels(fit, rows.terms, rng)
    point = rows.X @ fit.optimum.beta
    if rows.offset is not None:
        point = point + rows.offset
    for term in rows.terms:
        point += _contribution(fit, term, new_levels == "sample", rng)
    columns: dict[str, Any] = {"prediction": point}
    if interval is not None:
        columns |= _interval(fit, rows, point, interval, level)
    out = like(rows.kind, {n: rows.spread(v) for n, v in columns.items()})
    source = fit.model.data if new is None else new
    if rows.kind == "pandas" and len(getattr(source, "index", ())) == len(out):
        out.index = source.index
    return out


@dataclass
class _Rows:
    """Complete rows to predict and where they lie among the rows asked for."""

    X: Array
    terms: list[NewTerm]
    offset: Array | None
    weights: Array | None
    at: NDArray[Any]
    n: int
    kind: str
    new: Any = None

    def residual_sd(self, fit: Fit, point: Array) -> Array:
        """(m,) residual sd relative to sigma: of the rows fitted, or of new ones (weight one)."""
        from . import residual_reader, residuals

        if self.new is None:
            return residuals.multipliers(fit)
        if fit.model.residual is None:
            return np.ones(len(point))
        return residual_reader.new_multipliers(fit.model.residual, fit.optimum.residual, self.new, self.at, point)

    def spread(self, values: Array) -> Array:
        out = np.full(self.n, np.nan)
        out[self.at] = values
        return out


def _fitted_rows(fit: Fit, names: list[str], every: bool) -> _Rows:
    from .design_recipe import NewTerm

    d = fit.rows_of_data()
    none = np.full(len(d.y), -1, dtype=np.int32)
    terms = [
        NewTerm(
            t,
            term.group,
            term.names,
            term.codes if term.group in names else none,
            term.Z,
            none,
            np.empty(0, dtype=object),
        )
        for t, term in enumerate(d.terms)
        if every or term.group in names
    ]
    return _Rows(d.X, terms, d.offset, d.weights, d.rows, d.n_input, d.kind)


def _new_rows(fit: Fit, new: Any, names: list[str], offset: Any, every: bool) -> _Rows:
    made: New = fit.design.at(new, groups=names or None, offset=offset, effects=every)
    keep = made.complete
    if keep.all():
        return _Rows(made.X, list(made.terms), made.offset, None, np.arange(made.n), made.n, made.kind, new)
    terms = [
        replace(t, codes=t.codes[keep], Z=None if t.Z is None else t.Z[keep], new_codes=t.new_codes[keep])
        for t in made.terms
    ]
    offset = None if made.offset is None else made.offset[keep]
    return _Rows(made.X[keep], terms, offset, None, np.flatnonzero(keep), made.n, made.kind, new)


def group_names(fit: Fit, groups: Any) -> list[str]:
    """Grouping factors a user's `groups` argument means."""
    known = list(dict.fromkeys(t.group for t in fit.design.terms))
    if groups is None:
        return []
    if isinstance(groups, str):
        if groups == "all":
            return known
        groups = [groups]
    try:
        wanted = [str(g) for g in groups]
    except TypeError:
        raise OptionError(f"groups must be 'all', None or a list of names; got {groups!r}") from None
    for g in wanted:
        if g not in known:
            raise OptionError(
                f"there is no group {g!r} in the model; {nearest(g, known) or 'its groups are ' + listing(known)}"
            )
    return [g for g in known if g in wanted]


def generator(seed: Any) -> np.random.Generator:
    """Random numbers of a user's seed."""
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError):
        raise OptionError(f"seed must be a whole number of at least zero, or a Generator; got {seed!r}") from None


def _refuse_new_levels(terms: list[NewTerm]) -> None:
    for term in terms:
        if (term.codes == -2).any():
            raise DataError(
                f"{term.group!r} has levels that were not fitted: {listing(term.new_levels, 5)}; use new_levels='population' "
                "(a new group, its variance in the interval) or 'sample', or leave the group out with groups="
            )


def _columns(term: NewTerm) -> Array:
    return np.ones((len(term.codes), 1)) if term.Z is None else term.Z


def _borrow_levels(fit: Fit, terms: list[NewTerm], rng: np.random.Generator) -> None:
    """A missing group value becomes a known level at random, the same in all terms of that group."""
    drawn: dict[str, Codes] = {}
    for i, term in enumerate(terms):
        lost = term.codes == -1
        if not lost.any():
            continue
        if term.group not in drawn:
            drawn[term.group] = rng.integers(0, len(fit.optimum.b[term.index]), len(lost)).astype(np.int32)
        terms[i] = replace(term, codes=np.where(lost, drawn[term.group], term.codes))


def _contribution(fit: Fit, term: NewTerm, sample: bool, rng: np.random.Generator) -> Array:
    """Sum of z b per row; unknown groups count zero unless sampled."""
    b = fit.optimum.b[term.index]
    codes = term.codes
    effects = b[np.maximum(codes, 0)]
    effects[codes < 0] = 0.0
    if sample and len(term.new_levels):
        root = fit.sigma * fit.optimum.lambdas[term.index]
        drawn = rng.standard_normal((len(term.new_levels), len(root))) @ root.T
        fresh = codes == -2
        effects[fresh] = drawn[term.new_codes[fresh]]
    return np.asarray(np.einsum("ij,ij->i", _columns(term), effects))


def _interval(fit: Fit, rows: _Rows, point: Array, interval: str, level: float) -> dict[str, Array]:
    from scipy.special import ndtri

    parts = [(t.index, t.codes, _columns(t)) for t in rows.terms]
    variance = fit.engine.estimation_var(fit.optimum, rows.X, parts)
    more = fit.more_vcov()
    if more is not None:
        variance = np.maximum(variance + np.einsum("ij,jk,ik->i", rows.X, more, rows.X), 0.0)
    covs = fit.random_cov()
    for term in rows.terms:
        unknown = term.codes < 0
        if unknown.any():
            z = _columns(term)[unknown]
            variance[unknown] += np.einsum("ij,jk,ik->i", z, covs[term.index], z)
    if interval == "prediction":
        variance += (fit.sigma * rows.residual_sd(fit, point)) ** 2
    std_error = np.sqrt(variance)
    half = float(ndtri(0.5 + level / 2)) * std_error
    return {"std_error": std_error, "conf_low": point - half, "conf_high": point + half}


def simulate(fit: Fit, n: int = 1, *, groups: Any = None, seed: Any = None) -> Any:
    """Draw new responses for the rows fitted.

    Parameters
    ----------
    n : int
        Number of responses.
    groups : None, "all" or list of names
        Groups whose estimated effects are kept; the others' are drawn anew. Default: all drawn anew, as for a parametric
        bootstrap. (`predict` has the other default, as in lme4: it keeps all.)
    seed : int or Generator, optional

    Returns
    -------
    frame
        sim_1 ... sim_n, rows as in the data (NaN where a row was left out).
    """
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise OptionError(f"n must be a positive whole number, got {n!r}")
    kept = group_names(fit, groups)
    y = draw_responses(fit, int(n), kept, generator(seed))
    out = np.full((n, fit.design.n_input), np.nan)
    out[:, fit.design.rows] = y
    return like(fit.design.kind, {f"sim_{i + 1}": column for i, column in enumerate(out)})


def draw_responses(fit: Fit, n: int, kept: list[str], rng: np.random.Generator) -> Array:
    """(n, rows used) responses; the order of draws is fixed, so that a seed means one answer."""
    from .residuals import correlate, multipliers, serial_part

    d = fit.rows_of_data()
    mean = d.X @ fit.optimum.beta
    if d.offset is not None:
        mean = mean + d.offset
    y = np.tile(mean, (n, 1))
    for t, term in enumerate(d.terms):
        z = np.ones((len(d.y), 1)) if term.Z is None else term.Z
        if term.group in kept:
            y += np.einsum("ij,ij->i", z, fit.optimum.b[t][term.codes])
            continue
        root = fit.sigma * fit.optimum.lambdas[t]
        known = d.known.get(term.group)
        for i in range(n):
            size = len(term.levels), len(root)
            b = (rng.standard_normal(size) if known is None else known.draw(rng, size[1])) @ root.T
            y[i] += np.einsum("ij,ij->i", z, b[term.codes])
    noise = rng.standard_normal(y.shape) * fit.sigma
    serial = serial_part(fit)
    y += (noise if serial is None else correlate(serial, noise)) * multipliers(fit)
    return y


@dataclass(frozen=True)
class Refits:
    """Many responses fitted on one design.

    Attributes
    ----------
    names : tuple of str
        Responses.
    beta, std_error : (r, p) arrays
    sigma, criterion : (r,) arrays
    theta : (r, n_theta) array
    converged : (r,) bool array
    """

    fit: Fit
    names: tuple[str, ...]
    beta: Array
    std_error: Array
    sigma: Array
    criterion: Array
    theta: Array
    converged: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        done = int(np.sum(self.converged))
        return f"<Refits of {self.fit.formula!r}: {len(self)} responses, {done} converged; fixef(), varcorr(), glance()>"

    def fixef(self) -> Any:
        """Frame: response, term, estimate, std_error, statistic, p_value (normal distribution)."""
        from .inference import t_table

        terms = self.fit.design.names
        estimate, std_error = self.beta.ravel(), self.std_error.ravel()
        table = t_table(estimate, std_error, np.full(len(estimate), np.inf), 0.95)
        return like(
            self.fit.design.kind,
            {
                "response": np.repeat(np.array(self.names, dtype=object), len(terms)),
                "term": np.tile(np.array(terms, dtype=object), len(self)),
                "estimate": estimate,
                "std_error": std_error,
                "statistic": table["statistic"],
                "p_value": table["p_value"],
            },
        )

    def varcorr(self) -> Any:
        """Frame: response, group, term1, term2, vcov, sdcor, as `Fit.varcorr` per response."""
        columns: dict[str, list[Any]] = {n: [] for n in ("response", "group", "term1", "term2", "vcov", "sdcor")}

        def put(group: str, term1: str | None, term2: str | None, vcov: Array, sdcor: Array) -> None:
            for name, value in zip(columns, (self.names, group, term1, term2, vcov, sdcor), strict=True):
                whole = name in ("response", "vcov", "sdcor")
                columns[name].append(
                    np.asarray(value, dtype=object if name == "response" else float)
                    if whole
                    else np.full(len(self), value, dtype=object)
                )

        at = 0
        for term, s in zip(self.fit.design.terms, self.fit.engine.blocks.structures, strict=True):
            roots = np.stack([s.to_lambda(t[at : at + s.n_theta]) for t in self.theta])
            at += s.n_theta
            cov = self.sigma[:, None, None] ** 2 * (roots @ roots.transpose(0, 2, 1))
            sd = np.sqrt(np.einsum("rkk->rk", cov))
            for i, name in enumerate(term.names):
                put(term.group, name, None, cov[:, i, i], sd[:, i])
            for j in range(len(term.names) if s.kind != "diag" else 0):
                for i in range(j + 1, len(term.names)):
                    with np.errstate(invalid="ignore", divide="ignore"):
                        put(
                            term.group, term.names[j], term.names[i], cov[:, i, j], cov[:, i, j] / (sd[:, i] * sd[:, j])
                        )
        put("Residual", None, None, self.sigma**2, self.sigma)
        return like(self.fit.design.kind, {n: np.concatenate(v) for n, v in columns.items()})

    def glance(self) -> Any:
        """Frame: response, sigma, loglik, criterion name, converged."""
        return like(
            self.fit.design.kind,
            {
                "response": np.array(self.names, dtype=object),
                "sigma": self.sigma,
                "loglik": -self.criterion / 2,
                "criterion": np.full(len(self), self.fit.criterion_name, dtype=object),
                "converged": self.converged,
            },
        )


def refit(fit: Fit, y: Any, threads: int | None = None) -> Fit | Refits:
    """Fit the model of `fit` to other responses; see `Fit.refit`."""
    from . import refits
    from .fit import Fit as FitClass

    d = fit.rows_of_data()
    values, names = _responses(y, d)
    if names is not None:
        found = refits.refit(fit.engine, d, values, fit.optimum, threads, fit.model)
        return Refits(
            fit,
            names,
            found["beta"],
            found["std_error"],
            found["sigma"],
            found["criterion"],
            found["theta"],
            np.asarray(found["converged"], dtype=bool),
        )
    if np.all(values[0] == values[0, 0]):
        raise DataError(f"the new response is {values[0, 0]:g} in all rows; there is nothing to explain")
    model = fit.model.with_design(replace(d, y=values[0]))
    if model.residual is not None and model.residual.iterated:
        return model.fit(fit.reml, threads=threads or fit.engine.threads)
    engine = model.engine(threads or fit.engine.threads)
    optimum = engine.fit(fit.reml)
    return FitClass(model, optimum, engine.fitted(optimum))


def _responses(y: Any, d: Design) -> tuple[Array, tuple[str, ...] | None]:
    """(r, rows used) responses and their names (None for a single one-dimensional response)."""
    names: list[str] | None = None
    if hasattr(y, "columns") or isinstance(y, dict):
        from .frame import Table

        table = Table(y)
        names = list(table.names)
        y = np.column_stack([np.asarray(v, dtype=np.float64) for v in table.load(names).values()])
    try:
        array = np.asarray(y, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"the new response must be numbers, got {type(y).__name__}") from None
    if array.ndim not in (1, 2) or array.shape[0] != d.n_input:
        raise DataError(
            f"the new response must have {d.n_input} rows, as the data of the model; got shape {array.shape}"
        )
    if array.ndim == 2 and not array.shape[1]:
        raise DataError("there is no column in the new responses; give one per response")
    used = array[d.rows] if array.ndim == 2 else array[d.rows, None]
    bad = np.argwhere(~np.isfinite(used))
    if len(bad):
        row, column = bad[0]
        which = f" of column {column if names is None else names[column]!r}" if array.ndim == 2 else ""
        raise DataError(
            f"the new response{which} is {used[row, column]} in row {int(d.rows[row])} (counting from 0), a row the "
            "model uses; give finite numbers there"
        )
    if array.ndim == 2 and names is None:
        names = [f"y{i + 1}" for i in range(used.shape[1])]
    return np.ascontiguousarray(used.T), None if names is None else tuple(names)


def _choice(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        hint = nearest(value, allowed) if isinstance(value, str) else ""
        raise OptionError(f"{name} {value!r} is not known; {hint or 'allowed are ' + listing(allowed)}")
