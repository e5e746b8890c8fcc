"""Whether a slope varies between groups: the model with one for all against the model with one for each."""

from __future__ import annotations

import html
import textwrap
import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from . import formula as formulas
from .errors import DataError, MultilevelWarning, OptionError
from .frame import like
from .inflation import Unfitted
from .random_tests import p_values, several_p_value
from .side_terms import SideTerm, terms_of
from .slope_tables import own_slopes, sentence_of, verdict_of

if TYPE_CHECKING:
    from .design import Design
    from .fit import Fit
    from .formula import Bar, Formula
    from .model import Model

__all__ = ["SlopeCheck", "random_slope_check"]

Array = NDArray[np.float64]
PLAIN = ("us", "diag")


@dataclass(frozen=True)
class SlopeCheck:
    """Result of `random_slope_check`; prints as its table and sentence.

    Attributes
    ----------
    slope, group : str
    common : Fit
        With one slope for all groups.
    varying : Fit
        With a slope for each.
    lrt, df, p_value, p_boundary : float
        Likelihood-ratio test; p_value is the chi-square's with df, p_boundary knows that a variance cannot be negative (NaN
        where several variances are tested at once and their mixture is not known: see `Fit.ranova`).
    verdict : str
        "vary", "common" or "unclear".
    sentence : str
    """

    slope: str
    group: str
    common: Fit
    varying: Fit
    lrt: float
    df: int
    p_value: float
    p_boundary: float
    verdict: str
    sentence: str

    @property
    def table(self) -> Any:
        """Frame of the two models: slopes, formula, npar, loglik, aic, bic, lrt, df, p_value, p_boundary."""
        fits, lone = (self.common, self.varying), np.nan
        return like(
            self.varying.design.kind,
            {
                "slopes": np.array(["common", "varying"], dtype=object),
                "formula": np.array([fit.formula for fit in fits], dtype=object),
                "npar": np.array([fit.npar for fit in fits]),
                "loglik": np.array([fit.loglik for fit in fits]),
                "aic": np.array([fit.aic for fit in fits]),
                "bic": np.array([fit.bic for fit in fits]),
                "lrt": np.array([lone, self.lrt]),
                "df": np.array([lone, self.df]),
                "p_value": np.array([lone, self.p_value]),
                "p_boundary": np.array([lone, self.p_boundary]),
            },
        )

    @cached_property
    def _own(self) -> dict[str, Any]:
        return own_slopes(self.varying, self.group, self._columns)

    @cached_property
    def _columns(self) -> tuple[str, ...]:
        return _columns_of(self.varying, self.group, self.slope)

    def slopes(self) -> Any:
        """Frame of the slopes of each group.

        Returns
        -------
        frame
            level, term, n (rows), own (from the rows of the group alone, on the scale of the link), std_error (of own, with
            the residual variance of all groups), partial (partially pooled), population. NaN where a group's rows do not
            determine a slope.
        """
        return like(self.varying.design.kind, self._own)

    def plot(self, ax: Any = None) -> Any:
        """Each group's own line and slope beside the partially pooled and the common one.

        Parameters
        ----------
        ax : Axes or array of Axes, optional
            A single one gets the slopes alone.

        Returns
        -------
        Axes or array of two Axes
            Lines along the predictor (where the slope is of one numeric column), and sorted slopes with 95 % intervals.
        """
        from .slope_plot import draw

        return draw(self, self._own, self._columns, ax)

    def __str__(self) -> str:
        lines = [f"{'slopes':<8} {'npar':>4} {'loglik':>11} {'aic':>10} {'bic':>10} {'lrt':>8} {'df':>3} {'p':>8}"]
        p = self.p_value if np.isnan(self.p_boundary) else self.p_boundary
        for name, fit in (("common", self.common), ("varying", self.varying)):
            test = f"{self.lrt:8.2f} {self.df:3d} {p:8.3g}" if fit is self.varying else ""
            lines.append(f"{name:<8} {fit.npar:4d} {fit.loglik:11.2f} {fit.aic:10.2f} {fit.bic:10.2f} {test}".rstrip())
        title = f"Slopes of {self.slope} by {self.group}"
        return "\n".join([title, *lines, "", *textwrap.wrap(self.sentence, 100)])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def random_slope_check(
    model: Any, slope: str | None = None, group: str | None = None, *, reml: bool = True, threads: int | None = None
) -> SlopeCheck:
    """Ask whether the slope of a predictor varies between groups.

    Parameters
    ----------
    model : Model, Fit, GeneralisedFit or Posterior
        With the slope random or not: ``"y ~ x + (1 | g)"`` is compared with ``(1 + x | g)``, ``"y ~ x + (x | g)"`` with
        ``(1 | g)``. A fit is used as it is; of a posterior, its model.
    slope : str, optional
        Fixed term or random effect; default the first random slope, else the first numeric fixed term that varies within
        groups, else the first factor that does.
    group : str, optional
        Grouping factor; default that of the first random slope, else the first of the formula.
    reml : bool
        Criterion of both fits; a Fit keeps its own. Both have the same fixed effects, so that REML's can be compared.
    threads : int, optional
        Of fitting a Model; a Fit keeps its own.

    Returns
    -------
    SlopeCheck
        ``.table``, ``.slopes()``, ``.plot()``, ``.verdict``, ``.sentence``.

    Raises
    ------
    OptionError
        For a slope that is not in the fixed effects, does not vary within any group, or stands in a structured term.
    DataError
        For a model read from a file.

    Notes
    -----
    p_boundary is the mixture ``0.5 chi2(q) + 0.5 chi2(q + 1)`` of a variance with q covariances (Self & Liang 1987, J. Am.
    Stat. Assoc. 82, 605; Stram & Lee 1994, Biometrics 50, 1171), for a slope of several columns as in `Fit.ranova`. The
    verdict is "vary" where p < 0.05 and AIC agree that slopes vary, "common" where both say they do not, "unclear" where they
    differ or a fit is not certain.

    Examples
    --------
    >>> import multilevel as ml
    >>> model = ml.Model("Reaction ~ Days + (1 | Subject)", ml.load("sleepstudy"))
    >>> ml.random_slope_check(model).verdict
    'vary'
    """
    from .model import check_flag

    check_flag("reml", reml)
    if slope is not None and not isinstance(slope, str):
        raise OptionError(f"slope is the name of one term, such as 'homework'; got {slope!r}")
    given, base = _model_of(model)
    rows = cast("Fit", Unfitted(base.design, base))
    group = _group(base.design, group)
    term, bar = _slope(rows, base, group, slope)
    formula = base.formula
    if bar is None:
        small, large = formula, _with_slope(rows, formula, group, term)
    else:
        small, large = _without_slope(rows, formula, bar, term), formula

    def fitted(one: Formula) -> Fit:
        if given is None:
            return _fitted(base, one, formula, reml, threads)
        return given if one is formula else _refitted(given, one)

    return _compared(term, group, fitted(small), fitted(large))


# -- which slope ---------------------------------------------------------------------------------------------


def _model_of(source: Any) -> tuple[Fit | None, Model]:
    from .fit import Fit
    from .model import Model

    given = source if isinstance(source, Fit) else None
    base = source if isinstance(source, Model) else getattr(source, "model", None)
    if not isinstance(base, Model):
        how = "; make one of a formula and data: Model(formula, data)" if isinstance(source, str) else ""
        raise OptionError(f"random_slope_check() takes a Model or a fit, not {type(source).__name__}{how}")
    if base.data is None or (given is None and not hasattr(base, "_options")):
        raise DataError(
            "this model was read from a file without what fitting another needs; save fits with save(path, data=True), or "
            "make the model again from its formula and data"
        )
    if not base.design.terms:
        raise OptionError("the model has no groups; write for example (1 | school) for slopes that may vary by school")
    return given, base


def _group(design: Design, group: str | None) -> str:
    from .effect_lines import pick

    known = list(dict.fromkeys(t.group for t in design.terms))
    if group is not None:
        return pick(group, known, "grouping factor of the model")
    sloped = [t.group for t in design.terms if t.names != ("Intercept",)]
    return (sloped or known)[0]


def _slope(rows: Fit, base: Model, group: str, slope: str | None) -> tuple[SideTerm, Bar | None]:
    """The slope's term, and the bar it stands in, where it is random already."""
    random = [(term, bar) for bar in base.formula.bars if bar.group == group for term in _terms(rows, bar)]
    fixed, _ = terms_of(rows, base.design.remake.fixed)
    if slope is None and random:
        return _checked(*random[0])
    candidates = sorted((t for t in fixed if _varies(rows, group, t)), key=lambda t: bool(t.factors))
    if slope is None and not candidates:
        raise OptionError(f"no fixed term varies within levels of {group}, so that there is no slope to check")
    if slope is None:
        return candidates[0], None
    for term, bar in random:
        if _same(term.label, slope):
            return _checked(term, bar)
    known = {t.label: t for t in fixed}
    slope = next((label for label in known if _same(label, slope)), slope)
    if slope not in known:
        from .effect_lines import pick

        every = list(dict.fromkeys([*known, *(t.label for t, _ in random)]))
        pick(slope, every, "term of the model (add it to the fixed effects)")
    if not _varies(rows, group, known[slope]):
        raise OptionError(f"{slope!r} is the same in all rows of every level of {group}: no level has a slope of its own")
    return known[slope], None


def _same(label: str, given: Any) -> bool:
    """Whether a term is meant, spaces apart."""
    return isinstance(given, str) and label.replace(" ", "") == given.strip("`").replace(" ", "")


def _checked(term: SideTerm, bar: Bar) -> tuple[SideTerm, Bar]:
    if bar.structure not in PLAIN:
        raise OptionError(
            f"{term.label!r} stands in the structured term {bar.text or bar.effects!r} ({bar.structure}), which has no slope "
            "to take out alone; ranova() tests the whole term"
        )
    return term, bar


def _terms(rows: Fit, bar: Bar) -> list[SideTerm]:
    return terms_of(rows, formulas.model_text(bar.effects))[0]


def _varies(rows: Fit, group: str, term: SideTerm) -> bool:
    """Whether a term's columns differ between rows of some level."""
    from .side_terms import matrices

    codes = next(t.codes for t in rows.design.terms if t.group == group)
    X = matrices(rows, [rows.design.remake.fixed])[0][0][:, term.columns]
    first = np.zeros(int(codes.max()) + 1, dtype=np.int64)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    return bool((X[first[codes]] != X).any())


# -- the two models -------------------------------------------------------------------------------------------


def _with_slope(rows: Fit, formula: Formula, group: str, term: SideTerm) -> Formula:
    """The slope added to the first plain term of the group that has an intercept."""
    for i, bar in enumerate(formula.bars):
        if bar.group == group and bar.structure in PLAIN and terms_of(rows, formulas.model_text(bar.effects))[1]:
            bars = (*formula.bars[:i], replace(bar, effects=f"{bar.effects} + {_text(term)}"), *formula.bars[i + 1 :])
            return replace(formula, bars=bars)
    raise OptionError(f"the model has no plain random intercept (1 | {group}) that a slope of {term.label!r} could join")


def _without_slope(rows: Fit, formula: Formula, bar: Bar, term: SideTerm) -> Formula:
    terms, intercept = terms_of(rows, formulas.model_text(bar.effects))
    kept = [_text(t) for t in terms if t.label != term.label]
    if any(term.marginal_to(t) for t in terms):
        raise OptionError(f"{term.label!r} is part of an interaction in ({bar.effects} | {bar.group}); check that one first")
    intercept = intercept or (not kept and bool(term.factors))  # (0 + f | g) becomes (1 | g), as in ranova
    at = formula.bars.index(bar)
    smaller = (replace(bar, effects=" + ".join(["1" if intercept else "0", *kept])),) if intercept or kept else ()
    return replace(formula, bars=(*formula.bars[:at], *smaller, *formula.bars[at + 1 :]))


def _text(term: SideTerm) -> str:
    return term.side.removeprefix("0 + ")


def _refitted(given: Fit, formula: Formula) -> Fit:
    """The other model, on the fit's own response and by its criterion."""
    from .update import update

    whole = replace(formula, fixed=given.design.remake.fixed)  # a dot in an update would mean the old terms
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MultilevelWarning)  # the sentence says what matters
        out = update(given, formulas.render(whole))
    return _on_same_rows(out, given.design)


def _on_same_rows(fit: Fit, design: Design) -> Fit:
    if not np.array_equal(fit.design.rows, design.rows):
        raise DataError("the two models would use different rows, for missing values; leave these rows out of the data")
    return fit


def _fitted(base: Model, formula: Formula, old: Formula, reml: bool, threads: int | None) -> Fit:
    from .model import Model

    model = base if formula is old else Model(formulas.render(formula), base.data, priors=base.priors, **base._options)
    quadrature = base._quadrature if base.distribution is not None and model.design.terms else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MultilevelWarning)  # the sentence says what matters
        fit = model.fit(reml, threads=threads, quadrature=None if quadrature == 1 else quadrature)
    return _on_same_rows(fit, base.design)


def _columns_of(fit: Fit, group: str, slope: str) -> tuple[str, ...]:
    """Names of the slope's columns in the random term that holds it."""
    for bar, term in zip(fit.model.formula.bars, fit.design.terms, strict=True):
        found = next((t for t in _terms(fit, bar) if t.label == slope), None) if bar.group == group else None
        if found is not None:
            return tuple(term.names[i] for i in found.columns)
    raise AssertionError("the slope is in the model by its making")


def _compared(term: SideTerm, group: str, small: Fit, large: Fit) -> SlopeCheck:
    df = large.npar - small.npar
    lrt = small.criterion - large.criterion
    lrt = 0.0 if lrt < 1e-9 * max(1.0, abs(large.criterion)) else lrt
    columns = _columns_of(large, group, term.label)
    home = next(t for t in large.design.terms if t.group == group and columns[0] in t.names)
    others = len(home.names) - 1 if home.structure == "us" else 0
    plain, boundary = p_values(lrt, df, others)
    if len(columns) > 1:
        boundary = several_p_value(small, large, lrt, df)
    verdict = verdict_of(small, large, plain if np.isnan(boundary) else boundary)
    text = sentence_of(verdict, term.label, group, columns, (small, large), (lrt, plain, boundary))
    return SlopeCheck(term.label, group, small, large, lrt, df, plain, boundary, verdict, text)
