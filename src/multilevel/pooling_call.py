"""`multilevel.pooling`: complete, no and partial pooling of the same data, from one formula and a grouping column."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from . import formula as formulas
from .errors import DataError, MultilevelWarning, OptionError, listing
from .formula_tokens import quoted
from .inflation import Unfitted
from .pooling_result import Pooling, made
from .side_terms import SideTerm, matrices, terms_of
from .singularity import in_words

if TYPE_CHECKING:
    from .fit import Fit
    from .model import Model
    from .posterior import Posterior

__all__ = ["Pooling", "pooling"]

ALLOWED = (
    "family",
    "link",
    "dispersion",
    "zi",
    "hurdle",
    "weights",
    "offset",
    "contrasts",
    "priors",
    "missing",
    "levels",
)


def pooling(
    formula: Any,
    group: str | None = None,
    data: Any = None,
    *,
    vary: str | Sequence[str] | None = None,
    method: str = "fit",
    level: float = 0.95,
    reml: bool = True,
    threads: int | None = None,
    chains: int = 4,
    draws: int = 1000,
    seed: int | None = None,
    progress: bool | None = None,
    **options: Any,
) -> Pooling:
    """Fit complete, no and partial pooling side by side.

    Complete pooling ignores the groups. No pooling gives each group coefficients of its own, as a regression on its rows
    alone would. Partial pooling lets the coefficients vary by group around those of the population, by as much as the data
    say.

    Parameters
    ----------
    formula : str, Model, Fit or Posterior
        The fixed part, ``"math ~ homework"``. Or a model or fit with one grouping factor, which is the partial pooling.
    group : str
        Column of the groups; ``"region:city"`` for combinations of two. Of a model or fit it is known.
    data : data frame or dict of columns
    vary : str or list of str, optional
        Terms whose coefficients vary by group, beside the intercept; "1" for the intercept alone. Default: all that vary
        within groups, but the intercept alone where there are too few groups or rows for that (the result says so).
    method : {"fit", "sample"}
        Partial pooling by REML (Laplace's approximation for other families), or by draws from the posterior, with `priors`.
    level : float
        Coverage of the intervals.
    reml : bool
        Of ``method="fit"``: False for maximum likelihood.
    threads : int, optional
    chains, draws, seed, progress
        Of ``method="sample"``, as for `Model.sample`.
    **options
        As for `Model`: family, link, dispersion, zi, hurdle, weights, offset, contrasts, priors, missing, levels.

    Returns
    -------
    Pooling
        ``.frame``, ``.summary()``, ``.plot()``, ``.predict()``, ``.models``; printed, the summary.

    Raises
    ------
    OptionError
        For two or more grouping factors, structured residuals, known covariances and ordinal responses, which these three
        do not describe; for terms that do not vary within groups.
    DataError
        Where there is one group only, or one row in each group.

    Notes
    -----
    Without pooling a Gaussian model has one residual variance for all groups: it is R's ``lm(y ~ 0 + group + group:x)``. The
    coefficients are those of separate regressions; their standard errors use the residual sd of all groups (as
    ``lme4::lmList(pool = TRUE)``). Other families are fitted by maximum likelihood, with the dispersion, extra zeros and so
    on of the partially pooled model. Terms that do not vary have one coefficient for all groups in all three.

    References
    ----------
    Gelman & Hill (2007), Data Analysis Using Regression and Multilevel/Hierarchical Models, chapter 12. Gelman & Pardoe
    (2006), Technometrics 48, 241.

    Examples
    --------
    >>> import multilevel as ml
    >>> found = ml.pooling("math ~ homework", "schid", ml.load("math10"))
    >>> sorted(found.models)
    ['complete', 'no', 'partial']
    """
    from .inference import check_level
    from .model import check_flag

    check_level(level)
    check_flag("reml", reml)
    if method not in ("fit", "sample"):
        raise OptionError(f"method {method!r} is not known; allowed are 'fit' and 'sample'")
    notes: list[str] = []
    if isinstance(formula, str):
        model = _model(formula, group, data, vary, options, notes)
    else:
        model = _given(formula, group, data, vary, options)
    _check(model)
    partial = (
        formula if _is_fitted(formula) else _partial(model, method, reml, threads, (chains, draws, seed, progress))
    )
    told = [text for text in model.design.messages if text not in notes]
    return made(cast("Fit | Posterior", partial), level, threads, [*told, *notes])


# -- which model ------------------------------------------------------------------------------------------------------


def _is_fitted(source: Any) -> bool:
    from .fit import Fit
    from .posterior import Posterior

    return isinstance(source, (Fit, Posterior))


def _given(source: Any, group: Any, data: Any, vary: Any, options: dict[str, Any]) -> Model:
    """The model of a user's own model or fit."""
    from .model import Model

    model = source if isinstance(source, Model) else source.model if _is_fitted(source) else None
    if model is None:
        raise OptionError(f"pooling() takes a formula, a Model or a fit, not {type(source).__name__}")
    for name, value in (("data", data), ("vary", vary), *options.items()):
        if value is not None:
            raise OptionError(f"{name} goes with a formula; a model or fit has its own")
    if model.design.y is None:
        raise DataError("this was saved without its data, which pooling() needs; save it with save(path, data=True)")
    known = list(dict.fromkeys(term.group for term in model.design.terms))
    if group is not None and group not in known:
        raise OptionError(f"{group!r} is no grouping factor of the model; it has {listing(known)}")
    return model


def _check(model: Model) -> None:
    """Refuse what complete, no and partial pooling do not describe."""
    d = model.design
    known = list(dict.fromkeys(term.group for term in d.terms))
    if len(known) != 1:
        what = f"the grouping factors {listing(known)}" if known else "no grouping factor"
        raise OptionError(
            f"pooling() is about one grouping factor, but the model has {what}; compare() and cross_validate() take any"
        )
    if model.residual is not None:
        raise OptionError("pooling() takes residuals as independent; leave correlation and variance out")
    if d.known or any(term.structure not in ("us", "diag") for term in d.terms):
        raise OptionError("pooling() is for plain random effects, without covariance= or a structure such as ar1()")
    if model.family == "ordinal":
        raise OptionError("pooling() is not for ordinal responses; fit the model and use fit.plot.groups()")


def _model(text: str, group: Any, data: Any, vary: Any, options: dict[str, Any], notes: list[str]) -> Model:
    """The partially pooled model of a formula's fixed part."""
    from .model import Model, check_options

    if data is None:
        raise OptionError("data is missing; write pooling('y ~ x', 'group', data)")
    for name in ("correlation", "variance", "covariance"):
        if options.get(name) is not None:
            raise OptionError(
                f"pooling() does not take {name}=; it compares models with independent residuals and groups"
            )
    check_options("Model", options, ALLOWED)
    read = formulas.parse(text)
    if read.bars:
        if group is not None or vary is not None:
            raise OptionError(
                f"the formula {text!r} has a random term already; give the fixed part alone, with group= and vary=, or the "
                "whole formula without these"
            )
        return Model(text, data, **options)
    bar = _bar_group(group, data)
    fixed = text.strip()
    check_groups(read.response, group, data, "pooling() compares groups")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MultilevelWarning)  # the model below says the same of rows and columns
        first = Model(f"{fixed} + (1 | {bar})", data, **options)
    _check(first)
    effects = _effects(first, vary, notes)
    return Model(f"{fixed} + ({effects} | {bar})", data, **options)


def check_groups(response: str, group: str, data: Any, why: str) -> None:
    """Refuse groups that are the response, or a single one, in the words of a caller that has not written a random term.

    Raises
    ------
    OptionError, DataError
    """
    from .frame import Table, label_text

    table = Table(data)
    if response == quoted(group):
        raise OptionError(f"the response and the group are the same column, {group!r}; name the column of the groups")
    if group not in table.names:  # "a:b", which the model looks at
        return
    values = table.load([group])[group].dropna()
    if values.nunique() == 1:
        only = label_text(values.iloc[0])
        raise DataError(f"{why}, and {group!r} has a single one, {only!r}; give a column with two or more")


def _bar_group(group: Any, data: Any) -> str:
    """The group as a formula names it."""
    from .frame import Table

    if not isinstance(group, str) or not group:
        raise OptionError(f"group must be the name of a column, such as 'school'; got {group!r}")
    names = Table(data).names
    if group in names or ":" not in group:
        if group not in names:
            Table(data).load([group], {group: "group"})
        return quoted(group)
    return ":".join(quoted(part.strip()) for part in group.split(":"))


def _effects(first: Model, vary: Any, notes: list[str]) -> str:
    """The left side of the bar."""
    from .slope_check import _varies

    rows = cast("Fit", Unfitted(first.design, first))
    terms, intercept = terms_of(rows, first.design.remake.fixed)
    d = first.design.terms[0]
    within = [term for term in terms if _varies(rows, d.group, term)]
    if vary is not None:
        chosen = _named(vary, terms, within, d.group)
        return _side(intercept, chosen)
    still = [term.label for term in terms if term not in within and not _flat(rows, term)]
    if still:
        what = ("does", "Its part is") if len(still) == 1 else ("do", "Their part is")
        notes.append(f"{in_words(still)} {what[0]} not vary within {d.group}. {what[1]} in the groups' intercepts.")
    width = intercept + sum(len(term.columns) for term in within)
    J, n = len(d.levels), len(first.design.y)
    if within and (n <= J * width or width >= J):
        few = (
            f"{n} rows for {J} groups with {width} coefficients each"
            if n <= J * width
            else f"{J} groups for {width} coefficients"
        )
        notes.append(
            f"Only the intercept varies by {d.group}: {few} are too few for slopes that vary. "
            "vary= asks for them nevertheless."
        )
        within = []
    return _side(intercept, within)


def _flat(rows: Fit, term: SideTerm) -> bool:
    """Whether a term is the same in all rows, so that the intercept has it and the model leaves it out."""
    X = matrices(rows, [rows.design.remake.fixed])[0][0][:, term.columns]
    return bool(np.ptp(X, axis=0).max(initial=0.0) == 0)


def _side(intercept: bool, terms: Sequence[SideTerm]) -> str:
    """The effects as a formula has them."""
    if not terms:
        return "1"
    return " + ".join([*([] if intercept else ["0"]), *(term.side.removeprefix("0 + ") for term in terms)])


def _named(vary: Any, terms: list[SideTerm], within: list[SideTerm], group: str) -> list[SideTerm]:
    """The terms a user names."""
    from .effect_lines import pick

    if not isinstance(vary, (str, list, tuple)):
        raise OptionError(f"vary must be the name of a term, such as 'x', or a list of names; got {vary!r}")
    given = [vary] if isinstance(vary, str) else list(vary)
    known = {term.label.replace(" ", ""): term for term in terms}
    out = []
    for one in given:
        if isinstance(one, str) and one.strip() in ("1", "Intercept"):
            continue
        name = one.replace(" ", "").strip("`") if isinstance(one, str) else one
        if name not in known:
            pick(one, ["1", *(term.label for term in terms)], "term of the formula, so that vary cannot name it")
        if known[name] not in within:
            raise OptionError(
                f"{one!r} is the same in all rows of every level of {group}: no level has a coefficient of its own"
            )
        out.append(known[name])
    return out


def _partial(
    model: Model, method: str, reml: bool, threads: int | None, sampling: tuple[int, int, int | None, bool | None]
) -> Fit | Posterior:
    if method == "sample":
        chains, draws, seed, progress = sampling
        return model.sample(chains=chains, draws=draws, seed=seed, threads=threads, progress=progress)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MultilevelWarning)  # the result says what matters
        return model.fit(reml, threads=threads)
