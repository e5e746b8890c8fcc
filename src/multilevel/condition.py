"""Group effects updated with new rows, parameters held: the posterior of the effects given old and new rows.

The new rows' cross-products are added to the old ones, so a fit saved without its rows can be conditioned too. With the
parameters held, effects follow from ``(Lambda'Z'WZ Lambda + I) u = Lambda'Z'W (y - X beta)``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import frame
from .errors import DataError, OptionError
from .reml import Engine

if TYPE_CHECKING:
    from .crossprod import CrossProducts
    from .design import Design
    from .design_recipe import Grouping, New, Recipe
    from .fit import Fit
    from .reml import Optimum

Array = NDArray[np.float64]
Codes = NDArray[np.int32]


class HeldEngine(Engine):
    """Cross-products of old and new rows, for fixed effects that were estimated from the old ones alone.

    The joint prediction's error is uncorrelated with what distinguishes two unbiased estimates of beta, so the variance
    of a prediction with beta held is the joint one plus ``l' (vcov of the old rows - vcov of all rows) l``.
    """

    excess: Array  # (p, p)
    pull: list[Array]  # per term (J, k, p): derivative of its effects by beta

    @classmethod
    def on(cls, blocks: CrossProducts, threads: int) -> HeldEngine:
        """An engine on cross-products that are there already."""
        out = object.__new__(cls)
        out._keep(blocks, threads)
        return out

    def estimation_var(self, optimum: Optimum, x: Array, parts: list[tuple[int, Codes, Array]]) -> Array:
        """Var of x'beta + sum z'b around its prediction, per row; a code below zero contributes nothing."""
        joint = super().estimation_var(optimum, x, parts)
        along = np.array(x, dtype=np.float64)
        for t, codes, z in parts:
            known = codes >= 0
            along[known] += np.einsum("ik,ikp->ip", z[known], self.pull[t][codes[known]])
        return np.asarray(joint + np.maximum(np.einsum("ij,jk,ik->i", along, self.excess, along), 0.0))


@dataclass(frozen=True)
class Conditioned:
    """Group effects of a fit given its own rows and new ones; parameters as fitted. Made by `Fit.condition`.

    Attributes
    ----------
    fit : Fit
        The fit whose parameters are held.
    n_new : int
        New rows so far.
    new_levels : dict
        Grouping factor -> labels that the fit had not seen.
    """

    fit: Fit
    n_new: int
    new_levels: dict[str, NDArray[Any]]
    _inner: Fit

    def __repr__(self) -> str:
        fresh = ", ".join(f"{len(v)} new of {k}" for k, v in self.new_levels.items() if len(v)) or "no new levels"
        return f"<Conditioned {self.fit.formula!r} on {self.n_new} more rows ({fresh}); ranef(), coef(), predict()>"

    def ranef(self, condvar: bool = True) -> Any:
        """Conditional modes given old and new rows: group, level, term, estimate and, with `condvar`, std_error."""
        return self._inner.ranef(condvar)

    def coef(self) -> Any:
        """Per level, new ones included: fixed plus random effect of every coefficient that varies."""
        return self._inner.coef()

    def predict(self, new: Any, **options: Any) -> Any:
        """Predictions for new rows, as `Fit.predict`; its options hold.

        Intervals carry the uncertainty of the fixed effects as fitted and of the updated group effects; the variance
        parameters are taken as known.
        """
        from .predict import predict

        if new is None:
            raise DataError("give the rows to predict; a conditioned fit holds none")
        return predict(self._inner, new, **options)

    def condition(self, rows: Any, *, weights: Any = None, offset: Any = None) -> Conditioned:
        """Take in more rows; the same as conditioning on all of them at once."""
        return _conditioned(self.fit, self._inner, rows, weights, offset, self)


def condition(fit: Fit, rows: Any, *, weights: Any = None, offset: Any = None) -> Conditioned:
    """Condition a fit on new rows; see `Fit.condition`."""
    residual = fit.model.residual
    if residual is not None and residual.serial is not None:
        raise OptionError(
            f"condition() takes new rows as independent of the old ones, but residuals are correlated within "
            f"{residual.serial.group} here ({residual.serial.text}); refit with all rows"
        )
    if residual is not None and any(not s.covariate for s in residual.spreads):
        raise OptionError(
            "condition() cannot take in rows whose variance depends on the fitted values, which the rows change; use a "
            "covariate in place of fitted, or refit with all rows"
        )
    if residual is not None:
        fit.rows_of_data()  # without them the weights of the rows fitted are not told from the variance functions
    if getattr(fit.design, "known", None):
        raise OptionError(
            "condition() cannot take in rows where the covariance between levels is known, for that of new levels is not; "
            "refit with all rows and a matrix of all levels"
        )
    if not fit.design.terms:
        raise DataError("the model has no group effects that new rows could update")
    return _conditioned(fit, fit, rows, weights, offset, None)


def _conditioned(fit: Fit, now: Fit, rows: Any, weights: Any, offset: Any, before: Conditioned | None) -> Conditioned:
    d = now.design
    table = frame.Table(rows)
    made = d.at(rows, offset=offset)
    _complete(made)
    y = _response(fit, table)
    w = _with_variance(fit, rows, made, _weights(fit, table, weights, made.n))
    codes, levels, fresh = _levels(d, made)
    engine = _merged(fit, now, made, codes, [len(one) for one in levels], y, w)
    optimum = _with_effects(fit, engine)
    design = replace(
        d,
        terms=tuple(replace(t, levels=one) for t, one in zip(d.terms, levels, strict=True)),
        remake=_extended(d.remake, table, codes, levels),
    )
    inner = type(fit)(now.model.with_design(design), optimum, engine)
    if before is not None:
        fresh = {g: np.concatenate([before.new_levels[g], v]) for g, v in fresh.items()}
    return Conditioned(fit, made.n + (before.n_new if before else 0), fresh, inner)


# -- what stands in the new rows ------------------------------------------------------------------------------


def _complete(made: New) -> None:
    if not made.n:
        raise DataError("there are no new rows to condition on")
    if not made.complete.all():
        row = int(np.flatnonzero(~made.complete)[0])
        raise DataError(f"row {row} of the new rows (counting from 0) misses a value of a predictor; drop or fill it")
    for term in made.terms:
        lost = np.flatnonzero(term.codes == -1)
        if len(lost):
            raise DataError(
                f"row {int(lost[0])} of the new rows (counting from 0) has no value of {term.group!r}, so it belongs to no "
                "group; drop or fill it"
            )


def _response(fit: Fit, table: frame.Table) -> Array:
    """(n,) response of the new rows, evaluated as on the left side of the formula."""
    from .expressions import analyse, evaluate
    from .matrix import functions

    text = fit.design.response
    expression = analyse(text, response=True)
    series = table.load(expression.columns, dict.fromkeys(expression.columns, f"the response {text}"))
    values = {name: frame.numbers(one, name) for name, one in series.items()}
    if expression.plain:
        y = values[expression.columns[0]]
    else:
        y = np.asarray(evaluate(expression, values, functions()), dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(y))
    if len(bad):
        raise DataError(
            f"the response {text!r} is {y[bad[0]]} in row {int(bad[0])} of the new rows (counting from 0); conditioning "
            "needs it in every row"
        )
    return y


def _weights(fit: Fit, table: frame.Table, weights: Any, n: int) -> Array | None:
    c = fit.engine.blocks
    weighted = fit.design.weights is not None
    if fit.model.residual is None:  # the cross-products know, where the rows are gone
        weighted = weighted or c.unit != 1.0 or c.core.sum_log_w != 0.0
    return weights_of_new(weighted, table, weights, n)


def weights_of_new(weighted: bool, table: frame.Table, weights: Any, n: int) -> Array | None:
    """(n,) weights of new rows: a column's name or numbers; a model fitted with weights needs them."""
    if weights is None:
        if weighted:
            raise DataError("the model was fitted with weights; give those of the new rows as well (weights=...)")
        return None
    if isinstance(weights, str):
        values = frame.numbers(table.load([weights])[weights], weights)
    else:
        try:
            values = np.asarray(weights, dtype=np.float64)
        except (TypeError, ValueError):
            raise DataError(f"weights must be numbers or the name of a column, got {type(weights).__name__}") from None
    if values.shape != (n,):
        raise DataError(f"the weights have shape {values.shape}, but there are {n} new rows")
    bad = np.flatnonzero(~((values > 0) & (values < np.inf)))
    if len(bad):
        raise DataError(f"the weight of row {int(bad[0])} (counting from 0) is {values[bad[0]]}; weights are positive")
    return values


def _with_variance(fit: Fit, rows: Any, made: New, w: Array | None) -> Array | None:
    """The weights with the residual's variance functions in them: one over the squared sd multiplier."""
    from .residual_reader import new_multipliers

    residual = fit.model.residual
    if residual is None:
        return w
    sd = new_multipliers(residual, fit.optimum.residual, rows, np.arange(made.n), np.empty(0))
    return np.asarray((1.0 if w is None else w) / sd**2)


# -- levels and cross-products ----------------------------------------------------------------------------------


def _levels(d: Design, made: New) -> tuple[list[Codes], list[NDArray[Any]], dict[str, NDArray[Any]]]:
    """Per term the codes of the new rows, known levels first and new ones after, and all its levels; the new ones."""
    codes, levels = [], []
    for term, old in zip(made.terms, d.terms, strict=True):
        count = len(old.levels)
        codes.append(np.where(term.codes >= 0, term.codes, count + term.new_codes).astype(np.int32))
        both = np.empty(count + len(term.new_levels), dtype=object)
        both[:count], both[count:] = old.levels, term.new_levels
        levels.append(both if len(term.new_levels) else np.asarray(old.levels))
    return codes, levels, {t.group: np.asarray(t.new_levels, dtype=object) for t in made.terms}


def _extended(recipe: Recipe, table: frame.Table, codes: list[Codes], levels: list[NDArray[Any]]) -> Recipe:
    """The recipe that knows the new levels too."""
    terms = []
    for term, code, known in zip(recipe.terms, codes, levels, strict=True):
        if len(known) > len(term.grouping.parts):
            series = [s for s in table.load(term.grouping.columns).values()]
            term = replace(term, grouping=_more(term.grouping, series, code, len(known)))
        terms.append(term)
    return replace(recipe, terms=tuple(terms))


def _more(old: Grouping, series: list[Any], codes: Codes, count: int) -> Grouping:
    """A grouping with the levels of the new rows behind the old ones, in the order of their codes."""
    labels, own = [], []
    for name, known, one in zip(old.columns, old.labels, series, strict=True):
        _, unknown = frame.lookup(one, name, known)
        every = np.empty(len(known) + len(unknown), dtype=object)
        every[: len(known)], every[len(known) :] = known, unknown
        labels.append(every)
        own.append(frame.lookup(one, name, every)[0])
    parts = np.empty((count, len(old.columns)), dtype=np.int32)
    parts[: len(old.parts)] = old.parts
    fresh = codes >= len(old.parts)
    parts[codes[fresh]] = np.column_stack(own)[fresh]
    return replace(old, labels=tuple(labels), parts=parts)


def _merged(
    fit: Fit, now: Fit, made: New, codes: list[Codes], counts: list[int], y: Array, w: Array | None
) -> HeldEngine:
    """Old cross-products plus those of the new rows, in the old coordinates."""
    from . import _core

    c, n = now.engine.blocks, made.n
    where = {t.index: t for t in made.terms}
    group_codes, effects = [], []
    for group in c.groups:
        blocks = [np.ones((n, 1)) if (one := where[t].Z) is None else one for t in group.terms]
        effects.append(np.ascontiguousarray(np.hstack(blocks) @ group.basis))
        group_codes.append(np.ascontiguousarray(codes[group.terms[0]]))
    levels = [counts[group.terms[0]] for group in c.groups]
    x = np.ascontiguousarray(made.X @ c.x_basis)
    rest = (y if made.offset is None else y - made.offset) - x @ c.shift
    weights = None if w is None else w / c.unit**2
    extra = _core.build(group_codes, effects, levels, x, rest / c.scale, weights, now.engine.threads)
    core = _core.import_blocks(_padded(_core.export_blocks(c.core), levels)) + extra
    groups = tuple(replace(g, levels=count) for g, count in zip(c.groups, levels, strict=True))
    blocks_now: CrossProducts = replace(c, core=core, groups=groups, n=c.n + n)
    engine = HeldEngine.on(blocks_now, now.engine.threads)
    with engine.lock:
        state = engine.state(fit.reml, fit.optimum.engine_lambdas)
        engine.excess = fit.optimum.vcov - engine.vcov_beta(state, fit.sigma)
        engine.pull = _pull(engine, state, fit.optimum.engine_lambdas)
    return engine


def _padded(saved: dict[str, Any], levels: list[int]) -> dict[str, Any]:
    """Exported cross-products with room for more levels, which no old row belongs to."""
    out = dict(saved)
    old, p = list(saved["levels"]), saved["p"]
    for f, (before, now, k) in enumerate(zip(old, levels, saved["k"], strict=True)):
        for name, size in (("diag", k * k), ("border", k * p), ("zy", k)):
            out[f"{name}{f}"] = np.concatenate([saved[f"{name}{f}"], np.zeros((now - before) * size)])
        for g in range(f + 1, len(old)):
            ptr = saved[f"ptr{f}_{g}"]
            out[f"ptr{f}_{g}"] = np.concatenate([ptr, np.full(now - before, ptr[-1])])
    out["levels"] = levels
    return out


def _pull(engine: Engine, state: Any, lambdas: tuple[Array, ...]) -> list[Array]:
    """Per term (J, k, p): derivative of its effects by beta, both in the user's coordinates."""
    c = engine.blocks
    q = sum(g.levels * g.k for g in c.groups)
    unit = np.zeros((q + c.p, c.p))
    unit[q:] = np.eye(c.p)
    return _by_term(engine, -_effects(state, state.cross(unit)) @ np.linalg.inv(c.x_basis) if c.p else unit, lambdas)


def _effects(state: Any, rhs: Array) -> Array:
    """u = (Lambda'Z'WZ Lambda + I)^-1 Lambda' rhs; the rows of X are not used."""
    return np.asarray(state.solve_random(state.apply_lambda(np.ascontiguousarray(rhs), True)))


def _by_term(engine: Engine, u: Array, lambdas: tuple[Array, ...]) -> list[Array]:
    """Spherical effects (q, r) of the engine as b (J, k, r) per term in the user's coordinates."""
    c = engine.blocks
    out: list[Array] = [np.empty(0)] * len(c.structures)
    at = 0
    for group, root in zip(c.groups, lambdas, strict=True):
        block = u[at : at + group.levels * group.k].reshape(group.levels, group.k, u.shape[1])
        at += group.levels * group.k
        b = np.einsum("ab,jbr->jar", group.basis @ root, block)
        for t, part in zip(group.terms, group.slices, strict=True):
            out[t] = b[:, part]
    return out


def _with_effects(fit: Fit, engine: HeldEngine) -> Optimum:
    """The optimum of the fit with the effects given all rows at its parameters."""
    c, optimum = engine.blocks, fit.optimum
    with engine.lock:
        state = engine.state(fit.reml, optimum.engine_lambdas)
        joint = np.asarray(state.solution()).reshape(-1, 1)
        q = len(joint) - c.p
        held = np.zeros_like(joint)
        if c.p:
            held[q:, 0] = (np.linalg.solve(c.x_basis, optimum.beta) - c.shift) / c.scale
        # the joint solution solves the normal equations, which gives back Z'W y: u is moved by the change of beta only
        shift = np.zeros_like(joint)
        shift[q:] = joint[q:] - held[q:]
        u = joint[:q] + _effects(state, state.cross(shift))[:q]
    b = _by_term(engine, c.scale * u, optimum.engine_lambdas)
    return replace(optimum, b=tuple(np.ascontiguousarray(one[:, :, 0]) for one in b))
