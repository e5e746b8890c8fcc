"""Group effects of a generalised fit updated with new rows, parameters held: mode and curvature given old and new rows.

The likelihood of the old rows is no quadratic, so they have to be there; the mode is found anew on both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import condition as linear
from . import frame
from .errors import DataError, OptionError
from .generalised_rows import proportions
from .laplace import LaplaceEngine
from .laplace_working import WorkingEngine

if TYPE_CHECKING:
    from .design import Design
    from .design_recipe import New
    from .generalised import GeneralisedFit

__all__ = ["LinkConditioned", "condition"]

Array = NDArray[np.float64]

NO_MODE = (
    "the effects have no mode given the new rows: the likelihood cannot be evaluated there. Check the new rows for values "
    "far from those fitted, or refit with all rows"
)


@dataclass(frozen=True, repr=False)
class LinkConditioned(linear.Conditioned):
    """Group effects of a generalised fit given its own rows and new ones; parameters as fitted. See `Conditioned`."""

    def predict(self, new: Any, **options: Any) -> Any:
        """Predictions for new rows, as the fit's; intervals carry the parameters' uncertainty and the updated effects'."""
        if new is None:
            raise DataError("give the rows to predict; a conditioned fit holds none")
        return self._inner.predict(new, **options)

    def condition(self, rows: Any, *, weights: Any = None, offset: Any = None) -> LinkConditioned:
        """Take in more rows; the same as conditioning on all of them at once."""
        return _conditioned(self.fit, self._inner, rows, weights, offset, self)  # type: ignore[arg-type]


def condition(fit: GeneralisedFit, rows: Any, *, weights: Any = None, offset: Any = None) -> LinkConditioned:
    """Condition a fit on new rows; see `GeneralisedFit.condition`."""
    if fit.design.known:
        raise OptionError(
            "condition() cannot take in rows where the covariance between levels is known, for that of new levels is not; "
            "refit with all rows and a matrix of all levels"
        )
    if not fit.design.terms:
        raise DataError("the model has no group effects that new rows could update")
    fit.rows_of_data()
    return _conditioned(fit, fit, rows, weights, offset, None)


def _conditioned(
    fit: GeneralisedFit, now: GeneralisedFit, rows: Any, weights: Any, offset: Any, before: LinkConditioned | None
) -> LinkConditioned:
    d, table = now.design, frame.Table(rows)
    made = d.at(rows, offset=offset)
    linear._complete(made)
    given = _weights(fit, table, weights, made.n)
    y, trials = response(fit, table, made.n, given)
    codes, levels, fresh = linear._levels(d, made)
    design = _joined(d, made, y, trials, None if proportions(fit) else given, codes, levels)
    design = replace(design, remake=linear._extended(d.remake, table, codes, levels))
    inner = _at_mode(fit, now, design)
    if before is not None:
        fresh = {g: np.concatenate([before.new_levels[g], v]) for g, v in fresh.items()}
    return LinkConditioned(fit, made.n + (before.n_new if before else 0), fresh, inner)


def _joined(
    d: Design, made: New, y: Array, trials: Array | None, weights: Array | None, codes: list[Any], levels: list[Any]
) -> Design:
    """The design of the old rows and the new ones."""

    def both(old: Array | None, new: Array | None, none: float) -> Array | None:
        if old is None and new is None:
            return None
        first = np.full(len(d.y), none) if old is None else old
        return np.ascontiguousarray(np.concatenate([first, np.full(made.n, none) if new is None else new]))

    terms = []
    for term, new, code, level in zip(d.terms, made.terms, codes, levels, strict=True):
        z = None if term.Z is None else np.ascontiguousarray(np.vstack([term.Z, np.asarray(new.Z)]))
        joined = np.ascontiguousarray(np.concatenate([term.codes, code]), dtype=np.int32)
        terms.append(replace(term, codes=joined, Z=z, levels=level))
    sides = {what: (np.vstack([old, made.sides[what]]), names) for what, (old, names) in d.sides.items()}
    return replace(
        d,
        y=np.concatenate([d.y, y]),
        X=np.ascontiguousarray(np.vstack([d.X, made.X])),
        terms=tuple(terms),
        weights=both(d.weights, weights, 1.0),
        offset=both(d.offset, made.offset, 0.0),
        trials=both(d.trials, trials, 1.0),
        rows=np.arange(len(d.y) + made.n),
        n_input=len(d.y) + made.n,
        sides=sides,
    )


def _at_mode(fit: GeneralisedFit, now: GeneralisedFit, design: Design) -> GeneralisedFit:
    """A fit on all rows with the parameters as they were and the effects at their mode."""
    family = fit.model.distribution
    assert family is not None
    engine, o = LaplaceEngine(design, family, now.engine.threads), now.optimum
    user = [g.basis @ root for g, root in zip(now.engine.blocks.groups, o.engine_lambdas, strict=True)]
    roots = [np.ascontiguousarray(np.linalg.solve(g.basis, one)) for g, one in zip(engine.groups, user, strict=True)]
    values = np.empty(0)
    if len(o.residual):
        values = np.asarray(np.linalg.solve(engine.coefficients.basis, o.residual), dtype=np.float64)
    beta = np.linalg.solve(engine.x_basis, o.beta) if len(o.beta) else np.empty(0)
    state = engine.state()
    value, *_ = state.evaluate(np.ascontiguousarray(beta), roots, engine.coefficients.rows(values), False)
    if not np.isfinite(value):
        raise DataError(NO_MODE)
    b: list[Array] = [np.empty(0)] * len(design.terms)
    u, first = np.asarray(state.u), 0
    for group, factor in zip(engine.groups, user, strict=True):
        modes = u[first : first + group.levels * group.k].reshape(group.levels, group.k) @ factor.T
        first += group.levels * group.k
        for t, part in zip(group.terms, group.slices, strict=True):
            b[t] = np.ascontiguousarray(modes[:, part])
    optimum = replace(o, b=tuple(b), engine_lambdas=tuple(roots))
    working = WorkingEngine.of(engine._working(state, roots), now.engine.threads)
    inner = type(fit)(now.model.with_design(design), optimum, working)
    inner.following  # noqa: B018 (computed while the rows are at hand, for predictions that know them no more)
    return inner


# -- what stands in the new rows --------------------------------------------------------------------------------------


def _weights(fit: GeneralisedFit, table: frame.Table, weights: Any, n: int) -> Array | None:
    """(n,) prior weights of the new rows, or the trials of their proportions."""
    return linear.weights_of_new(fit.weighted, table, weights, n)


def response(fit: GeneralisedFit, table: frame.Table, n: int, weights: Array | None) -> tuple[Array, Array | None]:
    """(n,) response of new rows as the family takes it, and their trials.

    Raises
    ------
    DataError
        For a value that the family cannot have, with its row.
    """
    from . import responses as read
    from .expressions import analyse

    text, rows = fit.design.response, np.arange(n)
    if fit.design.labels:
        return _labelled(fit, table, text)
    pair, among = read._CBIND.match(text), read._TRIALS.match(text)
    parts = read._arguments(pair[1]) if pair else [among[1], among[2]] if among else [text]
    names = [name for part in parts for name in analyse(part.strip(), response=True).columns]
    series = table.load(list(dict.fromkeys(names)), dict.fromkeys(names, f"the response {text}"))
    values = [read._values(part, series) for part in parts]
    if pair or among:
        for one, what in zip(values, ("successes", "failures" if pair else "trials"), strict=True):
            read._check(one, rows, text, f"the number of {what}", low=0, whole=True)
        total = values[0] + values[1] if pair else values[1]
        read._refuse(values[0] > total, rows, f"the response {text}", values[0], "at most the number of trials")
        return values[0], total
    y = values[0]
    if proportions(fit):
        assert weights is not None
        good = y * weights
        uneven = ~(np.abs(good - np.round(good)) <= 1e-6 * np.maximum(weights, 1)) | ~((y >= 0) & (y <= 1))
        read._refuse(uneven, rows, f"the response {text!r} times its weight", good, "a whole number of successes")
        return np.round(good), weights
    _possible(fit, y, rows, text)
    return y, None


def _possible(fit: GeneralisedFit, y: Array, rows: NDArray[Any], text: str) -> None:
    from . import responses as read
    from .families import COUNTS, TRIALS

    name, what = fit.family.name, f"the response {text!r}"
    if name in COUNTS:
        read._check(y, rows, repr(text), f"the response of family {name!r}", low=0, whole=True)
    elif name in TRIALS:
        read._refuse(~((y == 0) | (y == 1)), rows, what, y, "0 or 1")
    elif name in ("gamma", "inverse_gaussian", "lognormal"):
        read._refuse(~(y > 0) | ~np.isfinite(y), rows, what, y, f"greater than zero for family {name!r}")
    elif name == "tweedie":
        read._refuse(~(y >= 0) | ~np.isfinite(y), rows, what, y, "at least zero for family 'tweedie'")
    elif name == "beta":
        read._refuse(~((y > 0) & (y < 1)), rows, what, y, "between 0 and 1, both excluded, for family 'beta'")
    else:
        read._refuse(~np.isfinite(y), rows, what, y, "a finite number")


def _labelled(fit: GeneralisedFit, table: frame.Table, text: str) -> tuple[Array, Array | None]:
    """Numbers of the categories, or failure and success, of a response in words."""
    name = text.strip().strip("`")
    series = table.load([name], {name: f"the response {text}"})[name]
    known = {label: i for i, label in enumerate(fit.design.labels)}
    lost = frame.missing_mask(series)
    found = [-1 if gone else known.get(_label(value), -1) for value, gone in zip(series.tolist(), lost, strict=True)]
    codes = np.array(found, dtype=np.float64)
    bad = np.flatnonzero(codes < 0)
    if len(bad):
        raise DataError(
            f"the response {name!r} is {series.tolist()[bad[0]]!r} in row {int(bad[0])} of the new rows (counting from 0); "
            f"known are {', '.join(map(repr, known))}"
        )
    return codes, np.full(len(codes), float(len(known))) if fit.family.name == "ordinal" else None


def _label(value: Any) -> str:
    """A value as the labels write it: a whole number read as a float is one."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        value = int(value)
    return frame.label_text(value)
