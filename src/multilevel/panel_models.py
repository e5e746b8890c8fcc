"""Panel regression: fixed effects as the limiting case of partial pooling, beside the other estimators."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from . import formula as formulas
from . import panel_estimates as estimates
from . import panel_hausman as hausman
from .errors import DataError, MultilevelWarning, OptionError, nearest
from .formula import quoted
from .frame import Table, factor, like
from .panel_result import Asked, Mundlak, Panel
from .panel_rows import PanelRows, rows_of
from .pooling_call import check_groups

if TYPE_CHECKING:
    from .fit import Fit
    from .model import Model
    from .panel_estimates import Estimate

__all__ = ["panel"]

ESTIMATORS = ("pooled", "between", "random", "mundlak", "within")
VCOV = ("group", "iid", "hetero", "group+time")
RANDOM = {"reml": "REML", "ml": "ML", "swamy-arora": "Swamy-Arora"}


def panel(
    formula: str,
    group: str,
    data: Any,
    *,
    time: str | None = None,
    vcov: str = "group",
    random: str = "reml",
    estimators: Iterable[str] = ESTIMATORS,
    level: float = 0.95,
    family: Any = "gaussian",
) -> Panel:
    """Fixed effects (within) of a panel beside the pooled, between and random-effects estimates.

    The within estimate gives each group an effect of its own, without any pooling: what partial pooling comes to when the
    variance between groups is taken as infinite. It uses changes within groups only, so that whatever is constant in a
    group cannot bias it, known or not. The between estimate uses only means of groups. Random effects mix the two by what
    the variances say, and are right for both only if both estimate the same, which Hausman's test asks. With Mundlak's
    terms (the group means of the predictors, also called correlated random effects) the model has both apart.

    Parameters
    ----------
    formula : str
        ``"y ~ a + b"``, without random terms.
    group : str
        Column of the units that are observed repeatedly.
    data : data frame or dict of columns
        A row for each observation; groups may differ in size. Rows with missing values are left out.
    time : str, optional
        Column of the periods: gives each period an effect, in all estimators (two-way fixed effects in the within estimate).
    vcov : {"group", "iid", "hetero", "group+time"}
        Standard errors: rows of a group correlated in any way (clusters); independent with one variance, given the
        random effects where there are any; independent with any variances (HC1); clusters both ways. With "group" and
        "group+time" the between estimate, a row per group, has HC1.
    random : {"reml", "ml", "swamy-arora"}
        Variances of the random-effects estimate: by this library's fit, or by the moments of R's plm and of Stata's
        ``xtreg, re sa``.
    estimators : list of str
        Some of "pooled", "between", "random", "mundlak", "within"; "within" needs pyfixest (``pip install
        'multilevel[panel]'``).
    level : float
        Coverage of the intervals.
    family : str
        "gaussian" only.

    Returns
    -------
    Panel
        ``.frame()``, ``.summary()``, ``.hausman``, ``.mundlak``, ``.models``, ``.verdict``, ``.plot()``.

    Raises
    ------
    OptionError
        For random terms in the formula, unknown options, no pyfixest, and where no predictor varies within groups.
    DataError, ColumnError, FormulaError
        With the column, the value and the way out.

    Notes
    -----
    Clusters take Stata's small-sample factor and t with the number of clusters less one; pyfixest has the same.
    Groups with a single row say nothing on changes and are left out of the within estimate.
    Hausman (1978), Econometrica 46, 1251; Mundlak (1978), Econometrica 46, 69; Wooldridge (2010), Econometric Analysis of
    Cross Section and Panel Data, chapter 10.

    Examples
    --------
    >>> import multilevel as ml
    >>> firms = ml.load("grunfeld")
    >>> found = ml.panel("inv ~ value + capital", "firm", firms, estimators=["pooled", "random"])
    >>> found.coef("random").round(4).tolist()
    [-57.8644, 0.1098, 0.3082]
    """
    from .inference import check_level

    wanted = _options(vcov, random, estimators, time, family)
    check_level(level)
    if "within" in wanted:
        estimates.pyfixest()  # before anything is fitted
    base = _model(formula, group, data, time)
    rows = _rows(base, group, time)
    messages = [*base.design.messages, *_messages(rows, group, time)]
    fits: dict[str, Estimate] = {}
    for name in (name for name in ESTIMATORS if name in wanted):
        one = _estimate(name, base, rows, group, time, vcov, random)
        if one is None:
            messages.append(_no_between(rows, group) if name == "between" else _no_means(rows, group))
        else:
            fits[name] = one
    for name, one in ((name, one.model) for name, one in fits.items() if name in ("random", "mundlak")):
        messages += [
            f"{name}: {text}"
            for text in getattr(one, "messages", ())
            if text not in messages and text not in one.design.messages
        ]
    tests = _tests(rows, fits, vcov, random, messages)
    mundlak = _mundlak(fits["mundlak"], base, rows, vcov) if "mundlak" in fits else None
    shown = f"{base.design.response} ~ {formula.partition('~')[2].strip()}"
    asked = Asked(" ".join(shown.split()), group, time, vcov, RANDOM[random], level, base.design.kind)
    return Panel(asked, fits, rows, tuple(tests), mundlak, tuple(messages))


# -- what was asked for ---------------------------------------------------------------------------------------


def _options(vcov: Any, random: Any, chosen: Any, time: str | None, family: Any) -> list[str]:
    if family != "gaussian":
        raise OptionError(
            f"panel() is for the gaussian family, got {family!r}: with other families the estimates are not on one scale and "
            "have no Hausman test. For counts within groups use pyfixest.fepois; Mundlak's terms can be added to any "
            "multilevel.Model by hand"
        )
    for what, value, allowed in (("vcov", vcov, VCOV), ("random", random, tuple(RANDOM))):
        if not isinstance(value, str) or value not in allowed:
            hint = nearest(value, allowed)
            raise OptionError(
                f"{what} must be one of {', '.join(map(repr, allowed))}, got {value!r}" + (f"; {hint}" if hint else "")
            )
    names = [chosen] if isinstance(chosen, str) else list(chosen) if isinstance(chosen, Iterable) else [chosen]
    unknown = [name for name in names if name not in ESTIMATORS]
    if unknown or not names:
        shown = ", ".join(map(repr, ESTIMATORS))
        raise OptionError(f"estimators must be some of {shown}, got {unknown[0] if unknown else chosen!r}")
    if vcov == "group+time" and time is None:
        raise OptionError("vcov='group+time' needs the column of the periods: time='year'")
    return names


def _model(formula: str, group: Any, data: Any, time: Any) -> Model:
    """The random-effects model of the panel; checks all that can be wrong with formula, columns and rows."""
    from .model import Model

    for what, value in (("group", group), ("time", time)):
        if not isinstance(value, str) and not (what == "time" and value is None):
            raise OptionError(f"{what} must be the name of a column, got {value!r}")
    if time == group:
        raise OptionError(f"group and time are the same column, {group!r}; time is the column of the periods")
    parsed = formulas.parse(formula)
    if parsed.bars or parsed.offsets:
        what = (
            "random terms, such as (1 | group); name the group in group="
            if parsed.bars
            else "offset(); take it off the response"
        )
        raise OptionError(f"the formula of panel() has no {what}: {formula!r}")
    table = Table(data)
    table.load([group, *([time] if time else [])], {group: "group", **({time: "time"} if time else {})})
    check_groups(parsed.response, group, data, "a panel compares groups")
    side = formula.partition("~")[2].strip()
    periods = f"factor({quoted(time)}) + " if time else ""
    return Model(f"{parsed.response} ~ {periods}{side} + (1 | {quoted(group)})", data)


def _rows(base: Model, group: str, time: str | None) -> PanelRows:
    design, codes = base.design, None
    if time is not None:
        column = Table(base.data).load([time])[time]
        codes = factor(column.iloc[design.rows].reset_index(drop=True), time)[0]
    rows = rows_of(design, codes, f"factor({quoted(time)})[" if time else "")
    if rows.count < 2:
        raise DataError(f"a panel needs two groups or more, and {group!r} has {rows.count}")
    if rows.sizes.max() < 2:
        raise DataError(f"no group of {group!r} has two rows: there is nothing to compare within groups")
    if not rows.predictors:
        raise OptionError("the formula has no predictor; write for example 'y ~ x'")
    return rows


def _messages(rows: PanelRows, group: str, time: str | None) -> list[str]:
    """Sentences on what the panel is like."""
    out = []
    if alone := int((rows.sizes == 1).sum()):
        has = "group has a single row and says" if alone == 1 else "groups have a single row each and say"
        out.append(
            f"{alone} {has} nothing on changes within; the within estimate leaves {'it' if alone == 1 else 'them'} out."
        )
    if rows.constant:
        names, one = _terms(rows, rows.constant)
        does, it = ("does", "it") if one else ("do", "them")
        out.append(f"{names} {does} not change within any {group}, so that there is no within estimate of {it}.")
    gone = [i for i in rows.predictors if i not in rows.inside and i not in rows.constant]
    if gone:
        by = f"effects of {group}" + (f" and {time}" if time else "")
        names, _ = _terms(rows, gone)
        out.append(f"{names}: determined by {by} and the predictors before, so that there is no within estimate.")
    if rows.time is not None:
        pairs = np.unique(np.column_stack([rows.group, rows.time]), axis=0)
        if len(pairs) < len(rows.y):
            many = len(rows.y) - len(pairs)
            out.append(
                f"{group} and {time} do not name a row: {many} row{'s repeat' if many > 1 else ' repeats'} a pair that "
                "another row has; check that this is meant."
            )
    return out


def _terms(rows: PanelRows, columns: list[int]) -> tuple[str, bool]:
    """The terms that columns belong to, and whether it is a single one."""
    found = list(dict.fromkeys(re.sub(r"\[[^\[\]]*\]", "", rows.names[i]) for i in columns))
    return ", ".join(found), len(found) == 1


def _no_between(rows: PanelRows, group: str) -> str:
    return f"There is no between estimate: {rows.count} means of {group} are too few for {len(rows.across[1])} coefficients."


def _no_means(rows: PanelRows, group: str) -> str:
    if rows.shifted:
        return f"There are no Mundlak terms: {rows.count} means of {group} are too few for them."
    return (
        f"There are no Mundlak terms: every {group} has the same mean of the predictors that change within it, or the other "
        "predictors determine it."
    )


# -- the estimates --------------------------------------------------------------------------------------------


def _estimate(
    name: str, base: Model, rows: PanelRows, group: str, time: str | None, vcov: str, random: str
) -> Estimate | None:
    if name == "pooled":
        return estimates.pooled(rows, vcov)
    if name == "between":
        return estimates.between(rows, vcov)
    if name == "random" and random == "swamy-arora":
        return estimates.of_variances(estimates.swamy_arora(rows), rows, vcov)
    if name == "random":
        return estimates.of_fit(_fitted(base, random), rows, vcov)
    if not rows.inside:
        raise OptionError(
            f"no predictor changes within levels of {group!r}, so that there is no {name} estimate; ask for others: "
            "estimators=('pooled', 'between', 'random')"
        )
    if name == "within":
        return estimates.within(rows, base.design.response, group, time, vcov)
    return estimates.of_fit(_with_means(base, rows, random), rows, vcov) if rows.shifted and rows.spare > 0 else None


def _mean_names(base: Model, rows: PanelRows) -> list[str]:
    """Names of the columns of group means."""
    taken, out = set(Table(base.data).names), []
    for i in rows.shift:
        name = f"mean({rows.names[i].replace('`', '')})"
        while name in taken:
            name += "_"
        taken.add(name)
        out.append(name)
    return out


def _with_means(base: Model, rows: PanelRows, random: str) -> Fit:
    """The random-effects model with group means as further predictors."""
    from .model import Model
    from .plan import make_plan

    table, design = Table(base.data), base.design
    plan = make_plan(base.formula, list(table.names), None, None, None, None, False)
    used = [name for one in (*plan.expressions, plan.response) for name in one.columns]
    series = table.load(dict.fromkeys([*used, *plan.grouping]))
    columns: dict[str, Any] = {name: one.iloc[design.rows].reset_index(drop=True) for name, one in series.items()}
    means = rows.means(rows.X[:, rows.shift])[rows.group]
    names = _mean_names(base, rows)
    columns |= {name: np.ascontiguousarray(means[:, k]) for k, name in enumerate(names)}
    fixed = " + ".join([design.remake.fixed, *map(quoted, names)])
    model = Model(formulas.render(replace(base.formula, fixed=fixed)), like(design.kind, columns))
    return _fitted(model, random)


def _fitted(model: Model, random: str) -> Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MultilevelWarning)  # the messages of the result say what matters
        return model.fit(random != "ml")


def _mundlak(found: Estimate, base: Model, rows: PanelRows, vcov: str) -> Mundlak:
    """The terms of group means, with their joint test."""
    names = [name for name, i in zip(_mean_names(base, rows), rows.shift, strict=True) if not rows.period[i]]
    coef, _, plain = found.part(names)
    tests = [hausman.wald(coef, plain, np.inf, "joint")]
    if vcov != "iid":
        whitened = estimates.random_variances(found.model).whitened(rows, found.model.design.X)
        at = [found.names.index(name) for name in names]
        tests.append(hausman.robust_wald(whitened, at, rows, vcov, "joint, robust"))
    return Mundlak(tuple(names), tuple(tests), found.model)


def _tests(
    rows: PanelRows, fits: dict[str, Estimate], vcov: str, random: str, messages: list[str]
) -> list[hausman.Test]:
    """Hausman's test in its forms, as far as the estimates asked for allow."""
    if "random" not in fits or not rows.shifted or rows.count <= len(rows.shifted) + 1:
        return []
    names = [rows.names[i] for i in rows.shifted]
    out, moments = [], None
    try:
        moments = estimates.swamy_arora(rows)
    except DataError as error:
        messages.append(f"No test with variances by Swamy and Arora: {error}.")
    if "within" in fits and moments is not None:
        other = estimates.of_variances(moments, rows, "iid")
        out.append(hausman.classic(fits["within"], other, names, "classic, Swamy-Arora"))
    if "within" in fits and random != "swamy-arora":
        out.append(hausman.classic(fits["within"], fits["random"], names, f"classic, {RANDOM[random]}"))
    variances = moments if random == "swamy-arora" else estimates.random_variances(fits["random"].model)
    return out + hausman.regression(rows, cast("estimates.Variances", variances), vcov)
