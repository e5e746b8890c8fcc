"""Tables of a report: fixed effects, variances with ICC and R², group effects."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .cli_files import records
from .errors import MultilevelError
from .report_html import Cell, bullets, decimals, escape, fixed, measured, number, p_value, paragraph, table
from .report_sentences import probability, ratio_texts, readings
from .report_words import Estimate, conditional, ratio_name, scale_name

if TYPE_CHECKING:
    from .fit import Fit
    from .posterior import Posterior

__all__ = ["effects_section", "groups_section", "variance_section"]

MOST_ROWS = 60  # of a table of coefficients
ALL_LEVELS, ENDS = 20, 6  # levels shown; beyond as many, the highest and lowest


def effects_section(source: Fit | Posterior, found: list[Estimate], level: float, units: Mapping[str, str]) -> str:
    """Table of the fixed effects, a sentence for each, ratios where they have a name."""
    if not found:
        return paragraph("The model has no fixed effects.")
    percent, ratio = f"{100 * level:.4g}%", ratio_name(source)
    bayes = found[0].above is not None
    heads = ["term", "estimate", "est. error" if bayes else "std. error", f"{percent} from", "to"]
    heads += ["probability > 0"] if bayes else [*(["df"] if not source_generalised(source) else []), "p"]
    rows: list[list[Any]] = [
        [one.name, *measured([one.value, one.error, one.low, one.high], one.error), *_test(source, one)]
        for one in found
    ]
    rest = f"{'posterior' if bayes else 'fit'}.fixef() has all"
    parts = [table("Fixed effects: the population", heads, rows, MOST_ROWS, rest)]
    if ratio:
        times = [[one.name, *_times(one)] for one in found if one.known and one.readable]
        kept = [row for row in times if row[0] != "Intercept"]
        names = ("term", ratio, f"{percent} from", "to")
        parts.append(
            table(f"The same as {escape(ratio.replace('ratio', 'ratios'))}: exponentials", names, kept, MOST_ROWS, rest)
            if kept
            else ""
        )
    parts.append("<h3>In words</h3>")
    parts.append(bullets(readings(source, found, level, units)))
    parts.append(paragraph(_reservation(source, bayes), "note"))
    return "\n".join(part for part in parts if part)


def source_generalised(source: Fit | Posterior) -> bool:
    return source.model.distribution is not None


def _test(source: Fit | Posterior, one: Estimate) -> list[Any]:
    if one.above is not None:
        return [Cell(probability(one.above), one.above, "n")]
    p, df = one.row.get("p_value"), one.row.get("df")
    last = Cell(p_value(p), p, "n")
    return [last] if source_generalised(source) else [Cell("–" if df is None else f"{df:,.1f}", df, "n"), last]


def _times(one: Estimate) -> list[Cell]:
    values = [None if v is None else math.exp(v) if v < 700 else math.inf for v in (one.value, one.low, one.high)]
    return [Cell(text, value, "n") for text, value in zip(ratio_texts(one), values, strict=True)]


def _share(value: float | None) -> Cell:
    """A share or a correlation."""
    return Cell(fixed(value, 3), value, "n")


def _reservation(source: Fit | Posterior, bayes: bool) -> str:
    text = (
        "These are differences between rows that differ in a predictor, given the model. Whether changing "
        "the predictor would "
        "change the response depends on how the data came about."
    )
    family = source.model.distribution
    if conditional(source) and family is not None:
        text += " They compare rows of the same group;"
        if family.link == "log":
            text += (
                " averaged over groups, means are higher than those of a typical group, and ratios stay the same only "
                "where nothing but intercepts varies."
            )
        else:
            text += " averaged over groups, differences are others, and as a rule smaller."
    if bayes:
        return (
            f"{text} Estimates are posterior means, their errors posterior sds. Intervals lie between quantiles and hold "
            "the stated share of the posterior probability, by the model and its priors."
        )
    return f"{text} {_tests(source)}"


def _tests(source: Fit | Posterior) -> str:
    if source_generalised(source):
        return "Tests and intervals use the normal distribution (Wald)."
    if source.design.terms:
        return "Tests and intervals use Student's t with Satterthwaite's degrees of freedom."
    return "Tests and intervals use Student's t."


# -- variances --------------------------------------------------------------------------------------------------


def variance_section(source: Fit | Posterior, level: float) -> str:
    """Sds and correlations of the group effects, shares of variance, other parameters."""
    from .posterior import Posterior

    parts = [_parameters(source, level)] if isinstance(source, Posterior) else [_components(source), _further(source)]
    return "\n".join(part for part in [*parts, _shares(source, level)] if part)


def _components(fit: Fit) -> str:
    rows: list[list[Any]] = []
    scale, found = scale_name(fit), records(fit.varcorr())
    for one in found:
        pair = one["term2"] is not None
        name = f"{one['term1']}, {one['term2']}" if pair else one["term1"] or ""
        rows.append(
            [one["group"], name, *((None, None, _share(one["sdcor"])) if pair else (one["vcov"], one["sdcor"], None))]
        )
    if not rows:
        return paragraph("There are no group effects and no residual variance.")
    shown = table(
        "What varies", ("group", "effect", "variance", "sd", "correlation"), rows, MOST_ROWS, "fit.varcorr() has all"
    )
    return shown + paragraph(
        "About two thirds of groups lie within one sd of the population"
        + (f", on the {escape(scale)} scale." if scale else ".")
        if any(one["group"] != "Residual" and one["sdcor"] for one in found)
        else ""
    )


def _parameters(posterior: Posterior, level: float) -> str:
    rows = [
        [
            one["parameter"],
            *measured([one[name] for name in ("estimate", "est_error", "ci_low", "ci_high")], one["est_error"]),
        ]
        for one in records(posterior.parameters(level))
    ]
    heads = ("parameter", "estimate", "est. error", f"{100 * level:.4g}% from", "to")
    return table(
        "Standard deviations, correlations and what else there is", heads, rows, MOST_ROWS, "posterior.parameters()"
    )


def _further(fit: Fit) -> str:
    """Dispersion, thresholds, extra zeros, structure of the residuals."""
    rows = [[next(iter(one.values())), *list(one.values())[1:]] for one in records(fit.residual_structure())]
    if not rows:
        return ""
    heads = ("parameter", "estimate", "std. error")[: len(rows[0])]
    return table(_further_title(fit), heads, rows, MOST_ROWS, "fit.residual_structure()")


def _further_title(fit: Fit) -> str:
    family = fit.model.distribution
    if family is None:
        return "Structure of the residuals"
    if family.name == "ordinal":
        return "Thresholds between the categories"
    said = {
        "size": "log of the size", "sigma": "log of sigma", "shape": "log of the shape",
        "df": "log of the degrees of freedom less one", "power": "logit of the power's place in its range",
        "zi": "logit of the share of extra zeros", "hurdle": "logit of the share of zeros",
    }  # fmt: skip
    names = dict.fromkeys(str(next(iter(one.values()))).partition("[")[0] for one in records(fit.residual_structure()))
    return f"Beyond the mean: {', '.join(said.get(name, f'log of {escape(name)}') for name in names)}"


def _shares(source: Fit | Posterior, level: float) -> str:
    from .posterior import Posterior

    quick: dict[str, Any] = {} if isinstance(source, Posterior) else {"interval": None}  # no refits for a report
    rows, why = _found_shares(source, {"level": level, **quick})
    title = "Shares of the variance"
    if not rows and source_generalised(source):  # families without a variance on the scale of the link
        rows, _ = _found_shares(source, {"level": level, **quick, "scale": "response"})
        title += " of the response itself"
    if not rows:
        return paragraph(f"Shares of variance are not there. {escape(why)}.", "note") if why else ""
    heads = ("share", "estimate", f"{100 * level:.4g}% from", "to")
    without = all(row[2].value is None for row in rows)
    shown = table(title, heads[: 2 if without else 4], [row[: 2 if without else 4] for row in rows])
    return shown + paragraph(_share_words(source, rows))


def _found_shares(source: Fit | Posterior, options: dict[str, Any]) -> tuple[list[list[Any]], str]:
    """Rows of ICC and R², and why there are none."""
    rows: list[list[Any]] = []
    why = ""
    for name, what in (("ICC", source.icc), ("R²", source.r2)):
        try:
            found = records(what(**options))
        except MultilevelError as error:
            why = str(error)
            continue
        for one in found:
            rows.append(
                [f"{name}, {one['kind']}", *(_share(one.get(which)) for which in ("estimate", "ci_low", "ci_high"))]
            )
    return rows, why


def _share_words(source: Fit | Posterior, rows: list[list[Any]]) -> str:
    found = {row[0]: row[1].value for row in rows if row[1].value is not None}
    words = []
    groups, predictors = bool(source.design.terms), any(name != "Intercept" for name in source.design.names)
    if "ICC, adjusted" in found:
        words.append(
            f"Of {'what the predictors leave' if predictors else 'the variance'}, {_percent(found['ICC, adjusted'])} lies "
            "between groups (adjusted ICC)."
        )
    if predictors and "R², marginal" in found and "R², conditional" in found:
        words.append(
            f"The predictors account for {_percent(found['R², marginal'])} of the variance (marginal R²)"
            + (f"; with the groups it is {_percent(found['R², conditional'])} (conditional R²)." if groups else ".")
        )
    return " ".join(words)


def _percent(share: float) -> str:
    if 0 < share < 0.01 or 0.99 < share < 1:
        return "less than 1%" if share < 0.5 else "more than 99%"
    return f"{100 * share:.0f}%"


# -- groups -----------------------------------------------------------------------------------------------------


def groups_section(source: Fit | Posterior, level: float) -> str:
    """The group effects: each level where there are few, else the highest and lowest."""
    from .posterior import Posterior

    if not source.design.terms:
        return paragraph("The model has no group effects.")
    scale = scale_name(source)
    try:
        rows = records(source.ranef(level) if isinstance(source, Posterior) else source.ranef())
    except MultilevelError as error:
        return paragraph(f"{escape(error)}.", "note")
    parts = [
        paragraph(
            "How far each group lies from the population. These estimates are partially pooled: the fewer rows a "
            "group has, and "
            "the noisier they are, the more it is drawn towards the population. Ranks of groups are less certain "
            "than they look."
            + (f" They are on the {escape(scale)} scale." if scale else "")
            + (
                ""
                if isinstance(source, Posterior)
                else " Intervals are normal, each by itself, and take the estimated variances and fixed effects as known."
            )
        ),
        "" if isinstance(source, Posterior) else bullets(_reliabilities(source, rows)),
    ]
    for group, term in dict.fromkeys((row["group"], row["term"]) for row in rows):
        own = [row for row in rows if (row["group"], row["term"]) == (group, term)]
        parts.append(_ends(group, term, own, level))
    return "\n".join(part for part in parts if part)


def _ends(group: str, term: str, rows: list[dict[str, Any]], level: float) -> str:
    ordered = sorted(rows, key=lambda row: math.inf if row["estimate"] is None else -row["estimate"])
    title = f"<em>{escape(group)}</em>: {escape('(Intercept)' if term == 'Intercept' else term)}"
    if len(ordered) > ALL_LEVELS:
        title += f", the {ENDS} highest and {ENDS} lowest of {len(ordered):,} levels"
        ordered = [*ordered[:ENDS], *ordered[-ENDS:]]
    half = _half(level)
    errors = [error for row in ordered if (error := row.get("std_error", row.get("est_error")))]
    places = decimals(float(np.median(errors)) if errors else None)
    shown: list[list[Any]] = []
    for row in ordered:
        error = row.get("std_error", row.get("est_error"))
        low, high = row.get("ci_low"), row.get("ci_high")
        if low is None and error is not None:
            low, high = row["estimate"] - half * error, row["estimate"] + half * error
        shown.append(
            [str(row["level"]), *(Cell(fixed(v, places), v, "n") for v in (row["estimate"], error, low, high))]
        )
    return table(title, (group, "difference", "error", f"{100 * level:.4g}% from", "to"), shown)


def _half(level: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(0.5 + level / 2))


def _reliabilities(fit: Fit, rows: list[dict[str, Any]]) -> list[str]:
    """The share of a group's own difference that is kept on average: one less mean conditional variance over variance."""
    variance = {(one["group"], one["term1"]): one["vcov"] for one in records(fit.varcorr()) if one["term2"] is None}
    errors: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if row["std_error"] is not None:
            errors.setdefault((row["group"], row["term"]), []).append(row["std_error"] ** 2)
    out = []
    for key, squares in errors.items():
        total = variance.get(key)
        if not total:
            out.append(
                f"<em>{escape(key[0])}</em>, {escape(key[1])}: the variance is zero, so that all groups are pooled "
                "completely."
            )
            continue
        kept = min(max(1 - float(np.mean(squares)) / total, 0.0), 1.0)
        out.append(
            f"<em>{escape(key[0])}</em>, {escape(key[1])}: the data tell {number(100 * kept, 2)}% of the variance "
            "between "
            "groups apart (reliability, averaged over groups); the rest is pooled."
        )
    return out
