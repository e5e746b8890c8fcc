"""The question of a report, and each fixed effect read out in one plain sentence."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .cli_files import records
from .expressions import analyse
from .report_effects import Atom, Coefficient, coefficients
from .report_html import decimals, escape, fixed, interval, number

if TYPE_CHECKING:
    from .fit import Fit
    from .posterior import Posterior

__all__ = ["Estimate", "estimates", "outcome", "probability", "question", "ratio_name", "readings", "response_name"]

MOST_READ = 24  # sentences


class Estimate:
    """One fixed effect of a fit or a posterior: what it is of, estimate, error, interval; `p` is of a fit's test.

    ``above`` is the probability that it is positive, of a posterior.
    """

    def __init__(self, coefficient: Coefficient, row: Mapping[str, Any], above: float | None) -> None:
        self.coefficient, self.row, self.above = coefficient, row, above
        self.name: str = coefficient.name
        self.value: float = math.nan if row["estimate"] is None else float(row["estimate"])
        self.error: float | None = row.get("std_error", row.get("est_error"))
        self.low: float | None = row.get("conf_low", row.get("ci_low"))
        self.high: float | None = row.get("conf_high", row.get("ci_high"))

    @property
    def known(self) -> bool:
        return math.isfinite(self.value)

    @property
    def readable(self) -> bool:
        """Whether it says something by itself, as parts of curves and contrasts do not."""
        atoms = self.coefficient.atoms
        return atoms is not None and not any(one.kind in ("curve", "contrast") for one in atoms)

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def estimates(source: Fit | Posterior, level: float) -> list[Estimate]:
    """Fixed effects in the order of the model, those not estimable without a value."""
    from .posterior import Posterior

    rows = {row["term"]: row for row in records(source.fixef(level))}
    above: dict[str, float] = {}
    if isinstance(source, Posterior):
        shares = (source.draws_kept.beta > 0).mean(axis=(0, 1))
        above = dict(zip(source.design.names, np.asarray(shares).tolist(), strict=True))
    empty = {"estimate": None}
    return [Estimate(one, rows.get(one.name, empty), above.get(one.name)) for one in coefficients(source.design)]


# -- names ------------------------------------------------------------------------------------------------------


def response_name(source: Fit | Posterior) -> str:
    """What the response is called in a sentence: of counts of successes their column."""
    text = source.design.response
    found = re.match(r"cbind\(\s*`?([^,`]+?)`?\s*,", text) or re.match(r"`?([^`]+?)`?\s*\|\s*trials\s*\(", text)
    return found[1] if found else text.strip("`")


def question(source: Fit | Posterior) -> str:
    """The question that a formula asks (HTML)."""
    design = source.design
    names = list(dict.fromkeys(a.label for one in coefficients(design) for a in one.atoms or ()))
    columns = list(dict.fromkeys(name for label in names for name in _columns(label)))
    response, groups = f"<em>{escape(response_name(source))}</em>", list(dict.fromkeys(t.group for t in design.terms))
    among = _listed([f"<em>{escape(one)}</em>" for one in groups])
    many = "the levels of " if len(groups) == 1 else "the levels of each of "
    slopes = [name for term in design.terms for name in term.names if name != "Intercept"]
    if not columns:
        return f"How much does {response} vary between {many}{among}?" if groups else f"How large is {response}?"
    along = _listed([f"<em>{escape(one)}</em>" for one in columns])
    text = f"How does {response} differ with {along}"
    if not groups:
        return f"{text}?"
    what = f"do {response} and these differences" if slopes else f"does {response}"
    return f"{text}, and how much {what} vary between {many}{among}?"


def _listed(items: list[str]) -> str:
    shown = items if len(items) <= 5 else [*items[:4], f"{len(items) - 4} more"]
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def _columns(text: str) -> tuple[str, ...]:
    try:
        return tuple(analyse(text).columns) or (text,)
    except ValueError:
        return (text,)


# -- scales -----------------------------------------------------------------------------------------------------


def ratio_name(source: Fit | Posterior) -> str:
    """What the exponential of a coefficient is, or nothing where it has no name."""
    family = source.model.distribution
    if family is None:
        return "ratio of geometric means" if _log_response(source) else ""
    if family.name == "lognormal":
        return "ratio of medians"
    if family.link == "logit":
        return "odds ratio"
    if family.link == "log":
        return "rate ratio" if family.name in ("poisson", "nbinom2", "nbinom1") else "ratio of means"
    return "hazard ratio" if family.link == "cloglog" and family.name != "ordinal" else ""


def _log_response(source: Fit | Posterior) -> str:
    """What the natural logarithm is taken of, where the response is one."""
    found = re.fullmatch(r"(?:np\.)?log\(\s*`?([^()`]+?)`?\s*\)", source.design.response.strip())
    return found[1] if found else ""


def outcome(source: Fit | Posterior) -> str:
    """What a coefficient's ratio multiplies, or what a difference is of (HTML)."""
    family, name = source.model.distribution, f"<em>{escape(response_name(source))}</em>"
    if family is None:
        return f"the geometric mean of <em>{escape(_log_response(source))}</em>" if _log_response(source) else name
    if family.name == "ordinal":
        return f"the odds of a higher category of {name}" if family.link == "logit" else name
    labels = source.design.labels
    success = f"{name} being {escape(labels[-1])}" if len(labels) == 2 else name
    if family.name in ("binomial", "betabinomial"):
        what = {"logit": "odds", "cloglog": "hazard"}.get(family.link, "probability")
        return f"the {what} of {success}"
    if family.link == "logit":
        return f"the odds m/(1{chr(0x2212)}m) of the mean m of {name}"
    rate = family.link == "log" and _has_offset(source)
    name = f"the count part of {name}" if family.zero != "none" else name
    return f"the {'median' if family.name == 'lognormal' else 'rate' if rate else 'mean'} of {name}"


def _has_offset(source: Fit | Posterior) -> bool:
    remake = source.design.remake
    return source.design.offset is not None or bool(remake.offset_column) or bool(remake.offsets)


# -- sentences --------------------------------------------------------------------------------------------------


def readings(source: Fit | Posterior, found: list[Estimate], level: float, units: Mapping[str, str]) -> list[str]:
    """A sentence for each fixed effect (HTML), at most `MOST_READ`."""
    several = len({frozenset(atom.label for atom in one.atoms or ()) for one in coefficients(source.design)}) > 2
    say = _size(source, level, units)
    out = []
    for one in found[:MOST_READ]:
        name = f"<strong>{escape(one.name)}</strong>: "
        if not one.known:
            out.append(f"{name}not estimated; the columns before it determine it.")
            continue
        out.append(name + _sentence(source, one, say, level, units, several))
    more = len(found) - len(out)
    return [*out, *([f"{more} further coefficients stand in the table."] if more else [])]


def _sentence(
    source: Fit | Posterior,
    one: Estimate,
    say: Callable[[Estimate], str],
    level: float,
    units: Mapping[str, str],
    several: bool,
) -> str:
    atoms = one.coefficient.atoms
    if atoms is None or (len(atoms) == 1 and atoms[0].kind == "contrast"):
        what = f"of <em>{escape(atoms[0].label)}</em> " if atoms else ""
        return f"a contrast {what}by its coding; read the predictions in its place."
    if not atoms:
        return _level_text(
            source, one, level, "where all numbers are zero and all factors at their reference level", units
        )
    if len(atoms) == 1 and atoms[0].kind == "mean":
        place = f"where <em>{escape(atoms[0].label)}</em> is {escape(atoms[0].level)} and all numbers are zero"
        return _level_text(source, one, level, place, units)
    if len(atoms) > 1:
        parts = _listed([_side(atom, units) for atom in atoms])
        return f"with {parts} together, beyond what each goes with alone, {say(one)}.{_doubt(one, bool(ratio_name(source)))}"
    if atoms[0].kind == "curve":
        return f"one part of the curve along <em>{escape(atoms[0].label)}</em>; read the predictions, not this number alone."
    held = ""
    if one.coefficient.others:
        others = _listed([f"<em>{escape(name)}</em>" for name in one.coefficient.others])
        verb = "is" if len(one.coefficient.others) == 1 else "are"
        held = f" This is where {others} {verb} zero or at the reference level."
    elif several:
        held = " Other predictors are held the same."
    return f"{_side(atoms[0], units)} goes with {say(one)}.{held}{_doubt(one, bool(ratio_name(source)))}"


def _side(atom: Atom, units: Mapping[str, str]) -> str:
    name = f"<em>{escape(atom.label)}</em>"
    if atom.kind == "level":
        return f"{name} being {escape(atom.level)} rather than {escape(atom.base)}"
    if atom.kind == "mean":
        return f"{name} being {escape(atom.level)}"
    if atom.kind in ("contrast", "curve"):
        return f"a contrast or part of {name}"
    unit = units.get(atom.label)
    return f"one more {escape(unit)} of {name}" if unit else f"one more unit of {name}"


def _size(source: Fit | Posterior, level: float, units: Mapping[str, str]) -> Callable[[Estimate], str]:
    """How large a difference is, in words: a ratio where its exponential has a name, else a difference."""
    percent = f"{100 * level:.4g}%"
    ratio, what = ratio_name(source), outcome(source)
    family = source.model.distribution
    unit = units.get(response_name(source), "")

    def multiplied(one: Estimate) -> str:
        times, low, high = (_exp(value) for value in (one.value, one.low, one.high))
        more = 100 * (times - 1)
        rise = f", {number(abs(more), 2)}% {'higher' if more > 0 else 'lower'}" if 1 <= abs(more) <= 100 else ""
        return f"{what} times {number(times, 3)}{rise} ({percent} interval {interval(low, high)})"

    def shifted(one: Estimate) -> str:
        sign = "higher" if one.value > 0 else "lower"
        places = decimals(one.error, 2)
        shown = f"{fixed(abs(one.value), places)}{' ' + escape(unit) if unit and plain else ''}"
        of = what if plain else f"the linear predictor ({link}{turned}) for {what}"
        between = f"{percent} interval {interval(one.low, one.high, places)}"
        return f"{of} {sign} by {shown} on average ({between})" if plain else f"{of} {sign} by {shown} ({between})"

    plain = family is None or family.link == "identity"
    link = "" if family is None else escape(family.link.replace("_", " "))
    turned = ", where higher means a lower mean" if link.startswith("inverse") else ""
    return multiplied if ratio else shifted


def _level_text(source: Fit | Posterior, one: Estimate, level: float, where: str, units: Mapping[str, str]) -> str:
    """The expected response itself."""
    family, percent = source.model.distribution, f"{100 * level:.4g}%"
    ends = [math.nan if v is None else v for v in (one.value, one.low, one.high)]
    typical = " for a typical group" if source.design.terms else ""
    name = f"<em>{escape(response_name(source))}</em>"
    unit = units.get(response_name(source), "")
    plain = family is None or (family.link == "identity" and family.name != "lognormal")
    places = decimals(one.error, 2) if plain and not _log_response(source) else None
    if family is None or family.name == "lognormal":
        logged = _log_response(source) if family is None else response_name(source)
        if logged:
            ends, name = [_exp(v) for v in ends], f"<em>{escape(logged)}</em>"
        what = f"the {'geometric mean' if family is None else 'median'} of {name}" if logged else f"the expected {name}"
    else:
        means = np.asarray(family.mean(np.array(ends)), dtype=float).tolist()
        ends = [means[0], *sorted(means[1:])]
        chance = family.name in ("binomial", "betabinomial")
        labels = source.design.labels
        success = f"{name} being {escape(labels[-1])}" if chance and len(labels) == 2 else name
        part = "the count part of " if family.zero != "none" else ""
        what = f"the probability of {success}" if chance else f"the mean of {part}{success}"
        where += ", with the offset at zero" if _has_offset(source) else ""
    shown = f"{number(ends[0], 3) if places is None else fixed(ends[0], places)}{' ' + escape(unit) if unit else ''}"
    return f"{where}, {what}{typical} is {shown} ({percent} interval {interval(ends[1], ends[2], places)})."


def _doubt(one: Estimate, ratio: bool) -> str:
    if one.above is not None:
        share = one.above if one.value > 0 else 1 - one.above
        return f" Probability of this direction: {probability(share)}."
    return (
        ""
        if one.clear
        else f" The interval includes {'one' if ratio else 'zero'}: these data do not settle the direction."
    )


def probability(share: float) -> str:
    """A probability (HTML); a count of draws does not show that one is 0 or 1."""
    if share > 0.999 or share < 0.001:
        return "&gt; 0.999" if share > 0.5 else "&lt; 0.001"
    return f"{share:.3f}" if share > 0.99 or share < 0.01 else f"{share:.2f}"


def _exp(value: float | None) -> float:
    if value is None:
        return math.nan
    return math.exp(value) if value < 700 else math.inf
