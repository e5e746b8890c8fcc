"""Variance inflation factors, before a fit from the model matrix, after it from the covariance of the estimates."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from . import design as designs
from . import formula as formulas
from .errors import MissingRowsWarning, MultilevelWarning, OptionError, users_level
from .formula import quoted
from .frame import Table, like
from .plan import make_plan
from .screening import said
from .side_terms import matrices, terms_of

if TYPE_CHECKING:
    from .design import Design
    from .fit import Fit

__all__ = ["Unfitted", "vif"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]
PARALLEL = 1e-7  # sine of the angle between a term and the others below which they coincide
RANK = 1e-10  # singular values below it, relative, are none
NO_INTERCEPT = (
    "the model has no intercept, so that its variance inflation factors compare columns that were not centred and say "
    "little; leave the 0 out"
)


def vif(source: Any, data: Any = None) -> Any:
    """Variance inflation of each fixed term: how much predictors that overlap cost in precision.

    Parameters
    ----------
    source : str, list of str, Model, Fit, GeneralisedFit or Posterior
        A formula, ``"y ~ a + b"`` or ``"~ a + b"`` (random terms and offsets are left aside, but cost rows that miss their
        columns), or columns, ``["a", "b"]``, both with data; or a model, before or after it is fitted.
    data : data frame or dict of columns, optional

    Returns
    -------
    frame
        A row for each term: term; df (columns); vif; se_factor; tolerance.

        vif is the generalised variance inflation factor: one column's usual VIF, ``1 / (1 - R**2)`` of its regression on the
        others; for a factor or spline the inflation of the squared volume of the confidence ellipsoid of its columns,
        which does not depend on the contrasts. se_factor is ``vif**(1 / (2 df))``, by which standard errors grow, comparable
        between terms; its square is read as a VIF is: above 5 look, above 10 the separate effects are uncertain. tolerance
        is ``1 / vif``. A term that the others determine has an infinite vif and a tolerance of zero.

    Raises
    ------
    OptionError
        Without any term but the intercept, for a formula without data, or data where a model has its own.

    Warns
    -----
    MissingRowsWarning
        Where a formula or columns miss values: the factors are of complete rows.

    Notes
    -----
    Of a formula, columns or Model the factors are those of (weighted) least squares on the fixed effects, blind to groups.
    Of a fit or posterior they come from the covariance of its estimates, which knows the groups: a predictor that is constant
    within groups and one that varies there can differ much; columns that the fit left out are not counted again.
    Predictors of an interaction inflate each other by their making; centre them first if their size matters.
    Fox & Monette (1992), J. Am. Stat. Assoc. 87, 178; car::vif of R.

    Examples
    --------
    >>> import multilevel as ml
    >>> ml.vif("math ~ homework + ses + parented", ml.load("math10")).round(2)["vif"].tolist()
    [1.2, 5.57, 5.56]
    """
    from .model import Model

    if hasattr(source, "vcov") and hasattr(source, "design"):
        _no_data(data)
        return like(source.design.kind, _of_estimates(source))
    if isinstance(source, Model):
        _no_data(data)
        return like(source.design.kind, _of_matrix(Unfitted(source.design, source), source.family == "ordinal"))
    rows, kind = _from_formula(source, data)
    return like(kind, _of_matrix(rows, False))


@dataclass(frozen=True)
class Unfitted:
    """A design and its data in the shape that `side_terms` reads."""

    design: Design
    model: Any  # has `data`

    def rows_of_data(self) -> Design:
        """The design."""
        return self.design


@dataclass(frozen=True)
class _Rows:
    data: Any


def _no_data(data: Any) -> None:
    if data is not None:
        raise OptionError("data goes with a formula; a model or fit has its own")


def _from_formula(source: Any, data: Any) -> tuple[Unfitted, str]:
    """Design of the fixed side alone on the rows that the whole formula can use, and the kind of the data."""
    if not isinstance(source, str):
        given = hasattr(source, "columns") or isinstance(source, Mapping)
        names = list(source) if isinstance(source, Iterable) and not given else []
        if not names or not all(isinstance(one, str) for one in names):
            data_last = "; data come second: vif('math ~ ses + homework', data)" if given else ""
            raise OptionError(f"vif() takes a formula, a list of columns, a Model or a fit; got {said(source)}{data_last}")
        source = "~ " + " + ".join(quoted(one) for one in names)
    if data is None:
        raise OptionError(f"the formula {source!r} needs data: vif({source!r}, data)")
    table = Table(data)
    stand_in = "row"
    while stand_in in table.names:
        stand_in += "_"
    one_sided = source.lstrip().startswith("~")
    parsed = formulas.parse(f"{stand_in} {source}" if one_sided else source)
    names = [*table.names, *([stand_in] if one_sided else [])]  # what . stands for, less the response
    plan = make_plan(parsed, names, None, None, None, None, False)
    needed = dict.fromkeys([*(name for one in plan.expressions for name in one.columns), *plan.grouping])
    also = {name: name for name in needed}
    if not one_sided:
        also |= {name: plan.response.text for name in plan.response.columns}
    columns: dict[str, Any] = dict(table.load(also, also))
    columns[stand_in] = np.arange(table.n, dtype=np.float64)  # whatever the response is, it does not matter here
    alone = replace(parsed, response=stand_in, fixed=plan.fixed, bars=(), offsets=())
    design = designs.build(alone, columns, also=also)
    if design.missing:
        warnings.warn(next(m for m in design.messages if "row" in m), MissingRowsWarning, stacklevel=users_level())
    return Unfitted(design, _Rows(columns)), table.kind


def _of_matrix(rows: Unfitted, centred: bool) -> dict[str, Array]:
    """Factors from the full model matrix, columns that others determine included."""
    shown = cast("Fit", rows)
    side = rows.design.remake.fixed
    terms, intercept = terms_of(shown, side)
    _need_terms(terms)
    X = matrices(shown, [side])[0][0]
    weights = rows.design.weights
    root = (np.ones(len(X)) if weights is None else np.sqrt(weights))[:, None]
    before = np.linalg.norm(X * root, axis=0)
    if intercept or centred:
        X = X - np.average(X, axis=0, weights=root[:, 0] ** 2)
    else:
        warnings.warn(NO_INTERCEPT, MultilevelWarning, stacklevel=users_level())
    X = X * root
    size = np.linalg.norm(X, axis=0)
    gone = size <= RANK * before  # constant
    X = np.where(gone, 0.0, X / np.where(gone, 1.0, size))
    R = np.asarray(np.linalg.qr(X, mode="r"))  # the angles between columns are those of the rows
    every = np.concatenate([t.columns for t in terms])
    found = [_by_angles(R, t.columns, np.setdiff1d(every, t.columns)) for t in terms]
    return _table([t.label for t in terms], [df for _, df in found], [value for value, _ in found])


def _by_angles(R: Array, own: Index, others: Index) -> tuple[float, int]:
    """Inflation of a term and the rank of its columns, from the angles between its columns' span and that of the others."""
    mine, rest = _basis(R[:, own]), _basis(R[:, others])
    if not mine.shape[1]:
        return np.inf, 0  # determined by the intercept
    left = mine - rest @ (rest.T @ mine)
    sines = np.linalg.svd(left, compute_uv=False)
    if sines.min() < PARALLEL:
        return np.inf, mine.shape[1]
    return float(np.exp(-2 * np.sum(np.log(np.minimum(sines, 1.0))))), mine.shape[1]


def _basis(X: Array) -> Array:
    U, s, _ = np.linalg.svd(X, full_matrices=False)
    return np.asarray(U[:, s > RANK * max(float(s.max(initial=0.0)), 1.0)])


def _of_estimates(fit: Any) -> dict[str, Array]:
    """Factors from the covariance of the fixed effects (car::vif)."""
    names, labels, columns = _terms_of_estimates(fit)
    V = np.asarray(fit.vcov(), dtype=np.float64)
    use = np.concatenate([np.asarray(one, dtype=np.int64) for one in columns])
    if not len(use):
        raise OptionError("every term was left out of the fit, being determined by others")
    if "Intercept" not in names and fit.model.family != "ordinal":
        warnings.warn(NO_INTERCEPT, MultilevelWarning, stacklevel=users_level())
    sd = np.sqrt(np.diag(V))
    cor = V / np.outer(sd, sd)

    def log_det(part: Any) -> float:
        return float(np.linalg.slogdet(cor[np.ix_(part, part)])[1]) if len(part) else 0.0

    whole = log_det(use)
    values = [np.exp(log_det(own) + log_det(np.setdiff1d(use, own)) - whole) if len(own) else np.inf for own in columns]
    return _table(labels, [len(own) for own in columns], values)


def _terms_of_estimates(fit: Any) -> tuple[tuple[str, ...], list[str], list[list[int]]]:
    """Names of the coefficients, labels of the terms, and the positions of each term's coefficients."""
    names: tuple[str, ...] = fit.design.names
    if fit.design.y is None or fit.model.data is None:  # saved without rows: names are all there is
        keys = [re.sub(r"\[[^\[\]]*\]", "", name) for name in fit.design.all_names if name != "Intercept"]
        labels = list(dict.fromkeys(keys))
        _need_terms(labels)
        stripped = [re.sub(r"\[[^\[\]]*\]", "", name) for name in names]
        return names, labels, [[i for i, key in enumerate(stripped) if key == label] for label in labels]
    side = fit.design.remake.fixed
    terms, _ = terms_of(fit, side)
    _need_terms(terms)
    full = matrices(fit, [side], rows=1)[0][1]
    place = {name: i for i, name in enumerate(names)}
    return names, [t.label for t in terms], [[place[full[c]] for c in t.columns if full[c] in place] for t in terms]


def _need_terms(terms: Sequence[Any]) -> None:
    if not terms:
        raise OptionError("there is no fixed term but the intercept, so that nothing can be inflated")


def _table(labels: list[str], df: list[int], values: Sequence[float]) -> dict[str, Array]:
    inflation, count = np.asarray(values, dtype=np.float64), np.asarray(df)
    return {
        "term": np.array(labels, dtype=object),
        "df": count,
        "vif": inflation,
        "se_factor": np.where(np.isinf(inflation), np.inf, inflation ** (1 / (2 * np.maximum(count, 1)))),
        "tolerance": 1 / inflation,
    }
