"""Tests of the terms of the fixed side: anova of types I, II and III, and single-term deletions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import OptionError, nearest
from .frame import like
from .inference import check_ddf, f_test, wald_f
from .rank import dependent_columns
from .side_terms import SideTerm, matrices, only_treatment, terms_of

if TYPE_CHECKING:
    from .fit import Fit
    from .model import Model

Array = NDArray[np.float64]
Index = NDArray[np.int64]

TYPES: dict[Any, int] = {1: 1, 2: 2, 3: 3, "1": 1, "2": 2, "3": 3, "I": 1, "II": 2, "III": 3}
DROP1_TESTS = {"F": "F", "LRT": "LRT", "Chisq": "LRT"}  # the last: R's name of it


def anova(fit: Fit, type: Any = 3, ddf: str = "satterthwaite") -> Any:
    """F test of every term of the fixed side; see `Fit.anova`."""
    kind = TYPES.get(type) if isinstance(type, (int, str)) and not isinstance(type, bool) else None
    if kind is None:
        raise OptionError(f"type {type!r} is not known; allowed are 1, 2, 3 (or 'I', 'II', 'III')")
    check_ddf(ddf)
    terms, intercept = terms_of(fit, fit.design.remake.fixed)
    where = [_kept(fit, term) for term in terms]
    if kind == 1 or len(terms) <= 1:
        rows = _type1(fit, where)
    elif kind == 2:
        rows = _type2(fit, terms, where)
    else:
        rows = _type3(fit, terms, intercept)
    return _table(fit, terms, rows, ddf)


def drop1(fit: Fit, ddf: str = "satterthwaite", test: str = "F") -> Any:
    """Tests of leaving out one term at a time; see `Fit.drop1`."""
    check_ddf(ddf)
    if not isinstance(test, str) or test not in DROP1_TESTS:
        hint = nearest(test, DROP1_TESTS)
        raise OptionError(f"test {test!r} is not known; {hint or 'allowed are F and LRT'}")
    test = DROP1_TESTS[test]
    every, terms, intercept = droppable(fit)
    if test == "LRT":
        return _likelihood_ratios(fit, every, terms, intercept)
    identity = np.eye(len(fit.design.names))
    where = [_kept(fit, term) for term in terms]
    rows = _type1(fit, where) if len(every) == 1 else [identity[columns] for columns in where]
    return _table(fit, terms, rows, ddf)


def droppable(fit: Fit) -> tuple[list[SideTerm], list[SideTerm], bool]:
    """Terms of the fixed side, those of them that no other contains, and whether there is an intercept."""
    every, intercept = terms_of(fit, fit.design.remake.fixed)
    return every, [term for term in every if not any(term.marginal_to(other) for other in every)], intercept


def _table(fit: Fit, terms: list[SideTerm], rows: list[Array], ddf: str) -> Any:
    tests = [f_test(fit, one, ddf) for one in rows]
    statistic, num_df, den_df, p_value = (np.array([test[i] for test in tests], dtype=np.float64) for i in range(4))
    mean_sq = np.array([wald_f(fit, one, ddf) for one in rows], dtype=np.float64) * fit.sigma**2
    return like(
        fit.design.kind,
        {
            "term": np.array([term.label for term in terms], dtype=object),
            "sum_sq": mean_sq * num_df,
            "mean_sq": mean_sq,
            "num_df": num_df,
            "den_df": den_df,
            "statistic": statistic,
            "p_value": p_value,
        },
    )


def _likelihood_ratios(fit: Fit, every: list[SideTerm], terms: list[SideTerm], intercept: bool) -> Any:
    """The model by maximum likelihood beside the models without each term."""

    def criterion(model: Model) -> float:
        return model.engine(fit.engine.threads).fit(False).criterion

    criteria, df = [criterion(fit.model)], [0]
    for smaller, lost in without_terms(fit, every, terms, intercept):
        criteria.append(criterion(smaller))
        df.append(lost)
    return ratio_table(fit, terms, criteria, df)


def without_terms(
    fit: Fit, every: list[SideTerm], terms: list[SideTerm], intercept: bool
) -> Iterator[tuple[Model, int]]:
    """The models without each of `terms`, and how many coefficients they lack."""
    design = fit.rows_of_data()
    for term in terms:
        left = [other.side.removeprefix("0 + ") for other in every if other is not term]
        [(full, _)] = matrices(fit, [" + ".join(["1" if intercept else "0", *left])])
        lost = dependent_columns(full)
        thresholds = intercept and "Intercept" not in design.all_names  # of an ordinal response stand in its place
        kept = [i for i in range(full.shape[1]) if i not in lost and not (thresholds and i == 0)]
        names = tuple(f"column {i}" for i in kept)  # never shown
        smaller = fit.model.with_design(replace(design, X=np.ascontiguousarray(full[:, kept]), names=names))
        yield smaller, len(design.names) - len(kept)


def ratio_table(fit: Fit, terms: list[SideTerm], criteria: Sequence[float], df: Sequence[int]) -> Any:
    """Frame of likelihood-ratio tests from -2 log-likelihoods, the fit's first."""
    from scipy.special import chdtrc

    lrt = np.maximum(np.array(criteria) - criteria[0], 0.0)
    freedom = np.array(df, dtype=np.float64)
    freedom[0] = lrt[0] = np.nan
    npar = fit.npar - np.array(df)
    return like(
        fit.design.kind,
        {
            "term": np.array(["<none>", *(term.label for term in terms)], dtype=object),
            "npar": npar,
            "aic": np.array(criteria) + 2 * npar,
            "lrt": lrt,
            "df": freedom,
            "p_value": np.where(freedom > 0, chdtrc(freedom, lrt), np.nan),
        },
    )


def _kept(fit: Fit, term: SideTerm) -> Index:
    """Positions of a term's columns among those that are estimated."""
    position = {int(column): i for i, column in enumerate(fit.design.remake.kept)}
    return np.array([position[column] for column in term.columns.tolist() if column in position], dtype=np.int64)


# -- hypotheses of the three types -----------------------------------------------------------------


def _type1(fit: Fit, where: list[Index]) -> list[Array]:
    """Each term adjusted for those before it: rows of the triangle of X, diagonal one."""
    triangle = _unit_triangle(fit.rows_of_data().X)
    return [triangle[columns] for columns in where]


def _type2(fit: Fit, terms: list[SideTerm], where: list[Index]) -> list[Array]:
    """Each term adjusted for those that do not contain it: the same with the containing terms moved to the end."""
    triangle = np.linalg.qr(fit.rows_of_data().X)[1]
    p = triangle.shape[1]
    out = []
    for term, columns in zip(terms, where, strict=True):
        containing = [at for other, at in zip(terms, where, strict=True) if term.inside(other)]
        if not containing:
            out.append(np.eye(p)[columns])
            continue
        last = np.concatenate([columns, *containing])
        order = np.concatenate([np.setdiff1d(np.arange(p), last), last])
        rows = np.empty((len(columns), p))
        first = p - len(last)
        rows[:, order] = _unit_triangle(triangle[:, order])[first : first + len(columns)]
        out.append(rows)
    return out


def _unit_triangle(columns: Array) -> Array:
    triangle = np.linalg.qr(columns)[1]
    return np.asarray(np.triu(triangle / np.diag(triangle)[:, None]))


def _type3(fit: Fit, terms: list[SideTerm], intercept: bool) -> list[Array]:
    """SAS's type III hypotheses, as lmerTest makes them.

    The estimable functions of a term are written in the parameters of the overparametrised model (a dummy for every
    level) and made orthogonal to those of the terms that contain it. Factors are coded by treatment contrasts first,
    so that neither the hypothesis nor the basis it is written in depends on the coding of the fit.
    """
    X = fit.rows_of_data().X
    own = only_treatment(fit)
    side = fit.design.remake.fixed
    if own:
        coded, kept = X, fit.design.remake.kept
    else:
        [(full, _)] = matrices(fit, [side], treatment=True)
        lost = dependent_columns(full)
        kept = np.array([i for i in range(full.shape[1]) if i not in lost], dtype=np.int64)
        coded = full[:, kept]
    position = {int(column): i for i, column in enumerate(kept)}
    where = [[position[c] for c in term.columns.tolist() if c in position] for term in terms]
    made = matrices(fit, [term.side for term in terms], treatment=not own)
    ones = [np.ones((len(X), 1))] if intercept else []
    functions = _in_columns(coded, np.hstack([*ones, *(one for one, _ in made)]))  # (p, parameters)
    back = np.eye(len(kept)) if own else _in_columns(coded, X)
    out = []
    for i, term in enumerate(terms):
        rows = np.eye(len(kept))[where[i]]
        containing = [c for j, other in enumerate(terms) if term.inside(other) for c in where[j]]
        if containing and len(rows):
            share = np.linalg.lstsq(functions[containing].T, functions[where[i]].T, rcond=1e-9)[0].T
            share[np.abs(share) < 1e-12] = 0.0
            rows[:, containing] -= share
        out.append(rows @ back)
    return out


def _in_columns(basis: Array, columns: Array) -> Array:
    """Coefficients of columns in a basis of independent columns; rounding set to zero."""
    scale = np.sqrt(np.einsum("ij,ij->j", basis, basis))
    q, r = np.linalg.qr(basis / scale)
    out = np.linalg.solve(r, q.T @ columns) / scale[:, None] if basis.shape[1] else np.zeros((0, columns.shape[1]))
    size = np.sqrt(np.einsum("ij,ij->j", columns, columns))
    out[np.abs(out) * scale[:, None] < 1e-10 * size] = 0.0
    return np.asarray(out)
