"""Likelihood-ratio tests of random terms, with p-values that know the boundary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .frame import like
from .side_terms import SideTerm, terms_of

if TYPE_CHECKING:
    from .design import Design, Term
    from .fit import Fit
    from .model import Model
    from .reml import Optimum


@dataclass(frozen=True)
class Reduction:
    """One smaller model.

    Attributes
    ----------
    label : str
    terms : tuple of Term
        All random terms of the smaller model.
    covariances : int or None
        With one variance dropped, how many covariances go with it; None where several variances are dropped.
    """

    label: str
    terms: tuple[Term, ...]
    covariances: int | None


def ranova(fit: Fit) -> Any:
    """Test of each random term; see `Fit.ranova`."""

    from .fit import Fit

    made: list[Fit] = []

    def optimum(model: Model, _: str) -> Optimum:
        engine = model.engine(fit.engine.threads)
        made.append(Fit(model, engine.fit(fit.reml), engine))
        return made[-1].optimum

    return table(fit, reductions(fit), optimum, lambda lrt, df: several_p_value(made[-1], fit, lrt, df))


def reductions(fit: Fit) -> list[Reduction]:
    """Every smaller model of `Fit.ranova`."""
    design = fit.rows_of_data()
    return [one for t in range(len(design.terms)) for one in _reductions(fit, design, t)]


def table(
    fit: Fit,
    smaller: list[Reduction],
    optimum_of: Callable[[Model, str], Optimum],
    several: Callable[[float, int], float] | None = None,
) -> Any:
    """Frame of the tests; `optimum_of` fits a smaller model, whose label it is told too.

    `several` has the p-value at the boundary, of the model fitted last, where more than one variance goes.
    """
    design = fit.design
    rows: list[tuple[Any, ...]] = [("<none>", fit.npar, fit.loglik, fit.aic, np.nan, np.nan, np.nan, np.nan)]
    for reduction in smaller:
        optimum = optimum_of(fit.model.with_design(replace(design, terms=reduction.terms)), reduction.label)
        npar = fit.npar - len(fit.optimum.theta) + len(optimum.theta)
        df = fit.npar - npar
        lrt = optimum.criterion - fit.criterion
        lrt = 0.0 if lrt < 1e-9 * max(1.0, abs(fit.criterion)) else lrt
        plain, boundary = p_values(lrt, df, reduction.covariances)
        if several is not None and reduction.covariances is None:
            boundary = several(lrt, df)
        rows.append(
            (reduction.label, npar, -optimum.criterion / 2, optimum.criterion + 2 * npar, lrt, df, plain, boundary)
        )
    names = ("term", "npar", "loglik", "aic", "lrt", "df", "p_value", "p_boundary")
    types = (object, int, float, float, float, float, float, float)
    return like(fit.design.kind, {n: np.array([row[i] for row in rows], dtype=types[i]) for i, n in enumerate(names)})


def p_values(lrt: float, df: int, covariances: int | None) -> tuple[float, float]:
    """Tail of chi-square with df, and of the mixture for a variance on the boundary of its range.

    Dropping a variance with q covariances: ``0.5 chi2(q) + 0.5 chi2(q + 1)`` (Self & Liang 1987, case 5 with q = 0;
    Stram & Lee 1994). NaN where several variances go at once: the weights then depend on the design (`several_p_value`).
    """
    from scipy.special import chdtrc

    plain = float(chdtrc(df, lrt)) if df > 0 else np.nan
    if covariances is None or df != covariances + 1:
        return plain, np.nan
    below = float(chdtrc(covariances, lrt)) if covariances else float(lrt <= 0)
    return plain, 0.5 * below + 0.5 * plain


def several_p_value(small: Fit, large: Fit, lrt: float, df: int) -> float:
    """Tail of the mixture where several variances go at once; NaN where its weights are not known (see `chi_bar`)."""
    from .chi_bar import chi_bar_weights
    from .nested import step_between

    step = step_between(small.model, large.model)
    if step is None or not step.known or step.df != df or not step.cones:
        return np.nan
    if not step.exact:
        step = replace(step, weights=chi_bar_weights(small, large, step.cones))
    return step.p_values(lrt)[1] if step.exact else np.nan


def _reductions(fit: Fit, design: Design, t: int) -> list[Reduction]:
    """Smaller models of one term by lmerTest's rule."""
    term, bar = design.terms[t], design.formula.bars[t]
    others = (*design.terms[:t], *design.terms[t + 1 :])
    shown = f"({bar.effects.strip()} | {term.group})"
    if term.structure not in ("us", "diag"):
        return [Reduction(f"{term.structure}{shown}", others, 0 if len(term.names) == 1 else None)]
    side = design.remake.terms[t].side
    parts, intercept = ([], True) if side is None else terms_of(fit, side)
    if term.structure == "diag":
        first = [Reduction(f"(1 | {term.group})", _without(design, t, [0]), 0)] if intercept else []
        return first + [
            Reduction(
                f"{part.label} in (0 + {part.label} | {term.group})",
                _without(design, t, part.columns.tolist()),
                0 if len(part.columns) == 1 else None,
            )
            for part in parts
        ]
    if not parts or (len(parts) == 1 and not intercept):
        return [_whole(design, t, shown, parts, others)]
    return [
        Reduction(
            f"{part.label} in {shown}",
            _without(design, t, part.columns.tolist()),
            len(term.names) - 1 if len(part.columns) == 1 else None,
        )
        for part in parts
        if not any(part.marginal_to(other) for other in parts)
    ]


def _whole(design: Design, t: int, shown: str, parts: list[SideTerm], others: tuple[Term, ...]) -> Reduction:
    """(1 | g) and (0 + x | g) are removed; (0 + f | g) for a factor f becomes (1 | g) where g has no other intercept."""
    term = design.terms[t]
    if parts and parts[0].factors and not parts[0].numbers:
        label = f"{parts[0].label} in {shown}"
        if any(other.group == term.group and "Intercept" in other.names for other in others):
            return Reduction(label, others, None)
        ones = replace(term, names=("Intercept",), Z=None)
        return Reduction(label, (*design.terms[:t], ones, *design.terms[t + 1 :]), None)
    return Reduction(shown, others, 0 if len(term.names) == 1 else None)


def _without(design: Design, t: int, columns: list[int]) -> tuple[Term, ...]:
    """The random terms without some effects of one."""
    term = design.terms[t]
    kept = [i for i in range(len(term.names)) if i not in columns]
    before, after = design.terms[:t], design.terms[t + 1 :]
    if not kept or term.Z is None:
        return (*before, *after)
    names = tuple(term.names[i] for i in kept)
    only_ones = names == ("Intercept",)
    smaller = replace(term, names=names, Z=None if only_ones else np.ascontiguousarray(term.Z[:, kept]))
    return (*before, smaller, *after)
