"""Each fixed effect of a report read out in one plain sentence that claims no more than the model does."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .report_effects import Atom, coefficients
from .report_html import decimals, escape, fixed, interval, number
from .report_words import (
    COUNTS,
    Estimate,
    conditional,
    has_offset,
    listed,
    log_response,
    outcome,
    ratio_name,
    response_name,
    scale_name,
)

if TYPE_CHECKING:
    from .fit import Fit
    from .posterior import Posterior

__all__ = ["probability", "ratio_texts", "readings"]

MOST_READ = 24  # sentences
CENTRED = ("sum", "helmert", "poly")  # contrasts whose columns add up to zero over the levels
Size = Callable[[Estimate, str], str]


def readings(source: Fit | Posterior, found: list[Estimate], level: float, units: Mapping[str, str]) -> list[str]:
    """A sentence for each fixed effect (HTML), at most `MOST_READ`."""
    reader = _Reader(source, level, units)
    out = []
    for one in found[:MOST_READ]:
        name = f"<strong>{escape(one.name)}</strong>: "
        known = reader.sentence(one) if one.known else "not estimated; the columns before it determine it."
        out.append(name + known)
    more = len(found) - len(out)
    return [*out, *([f"{more} further coefficients stand in the table."] if more else [])]


class _Reader:
    """What the sentences of one model share."""

    def __init__(self, source: Fit | Posterior, level: float, units: Mapping[str, str]) -> None:
        self.source, self.level, self.units = source, level, units
        made = coefficients(source.design)
        atoms = [atom for one in made for atom in one.atoms or ()]
        self.atoms = {atom.label: atom for atom in sorted(atoms, key=lambda atom: atom.kind != "mean")}
        self.alone = {one.atoms[0].label for one in made if one.atoms is not None and len(one.atoms) == 1}
        self.labels = {label for one in made for label in (*one.others, *(atom.label for atom in one.atoms or ()))}
        self.say = _size(source, level, units)
        self.truths = _truths(source, list(self.atoms))

    def sentence(self, one: Estimate) -> str:
        atoms = one.coefficient.atoms
        if atoms is None:
            return "a contrast by its coding; read the predictions in its place."
        own = tuple(atom for atom in atoms if atom.kind == "mean")
        rest = tuple(atom for atom in atoms if atom.kind != "mean")
        if not rest:
            return _level_text(self.source, one, self.level, self.where(one.coefficient.others, own), self.units)
        if unread := _unread(rest):
            return unread
        return self.difference(one, own, rest)

    def difference(self, one: Estimate, own: Sequence[Atom], atoms: Sequence[Atom]) -> str:
        """Of numbers and levels, or of several together; `own` are levels that have a coefficient each."""
        sides = [self.side(atom) for atom in atoms]
        beyond = ""
        if len(atoms) > 1 and all(atom.label in self.alone for atom in atoms):
            said = " together with ".join(sides)
            beyond = ", beyond what each goes with alone" + (" or in pairs" if len(atoms) > 2 else "")
        elif len(atoms) > 1:  # there is no effect of each alone for it to come on top of
            said = "one more unit of the product of " + listed([f"<em>{escape(a.label)}</em>" for a in atoms])
        else:
            said = sides[0]
        return f"{said} goes with {self.say(one, beyond)}.{self.held(one, own)}{_doubt(one, bool(ratio_name(self.source)))}"

    def side(self, atom: Atom) -> str:
        name = f"<em>{escape(atom.label)}</em>"
        if atom.kind == "level":
            return f"{name} being {escape(atom.level)} rather than {escape(atom.base)}"
        if atom.label in self.truths:
            return f"{name} being true rather than false"
        unit = self.units.get(atom.label)
        return f"one more {escape(unit)} of {name}" if unit else f"one more unit of {name}"

    def held(self, one: Estimate, own: Sequence[Atom]) -> str:
        """What the difference is given."""
        group, others = conditional(self.source), one.coefficient.others
        named = {*others, *(atom.label for atom in one.coefficient.atoms or ())}
        same = ["other predictors"] if self.labels - named else []
        held = " and ".join([*same, *(["the group"] if group else [])])
        where = self.where(others, own)
        if where:
            return f" This is {where}{f', {held} held the same' if held else ''}."
        return f" {held[0].upper()}{held[1:]} {'are' if same else 'is'} held the same." if held else ""

    def where(self, labels: Sequence[str], own: Sequence[Atom] = ()) -> str:
        """The place where variables are zero, at their reference level, or averaged over (HTML); "" without any."""
        infos = self.source.design.remake.infos
        at = [f"<em>{escape(atom.label)}</em> is {escape(atom.level)}" for atom in own]
        over = []
        for label in labels:
            atom, name = self.atoms.get(label), f"<em>{escape(label)}</em>"
            info = infos.get(label) or infos.get(f"C({label})")
            if atom is not None and atom.kind == "contrast" and info is not None and info.contrast.kind in CENTRED:
                over.append(name)
            elif atom is None or atom.kind == "contrast" or (atom.kind == "curve" and atom.level):
                at.append(f"the columns of {name} are zero")
            elif atom.kind == "level":
                at.append(f"{name} is {escape(atom.base)}")
            elif atom.kind != "mean":
                at += self.zero(label, labels)
        scale = scale_name(self.source)
        on = f" on the {escape(scale)} scale" if scale else ""
        place = f"where {listed(list(dict.fromkeys(at)))}" if at else ""
        average = f"averaged{on} over the levels of {listed(over)}" if over else ""
        return ", ".join(part for part in (place, average) if part)

    def zero(self, label: str, labels: Sequence[str]) -> list[str]:
        """A number at zero in plain words; nothing for a power of one that is at zero anyway."""
        centred = re.fullmatch(r"(?:center|scale)\(\s*`?([^()`,]+?)`?\s*\)", label)
        if centred:
            return [f"<em>{escape(centred[1])}</em> is at its mean"]
        power = re.fullmatch(r"I\(\s*`?([^()`]+?)`?\s*\*\*\s*\d+\s*\)", label)
        if power and power[1] in labels:
            return []
        return [f"<em>{escape(label)}</em> is {'false' if label in self.truths else 'zero'}"]


def _unread(atoms: Sequence[Atom]) -> str:
    """The sentence on parts of curves and contrasts, which say nothing by themselves; "" for others."""
    kinds = {atom.kind for atom in atoms}
    if not kinds & {"curve", "contrast"}:
        return ""
    names = listed([f"<em>{escape(atom.label)}</em>" for atom in atoms])
    if len(atoms) > 1:
        return f"one part of how {names} act together; read the predictions, not this number alone."
    if "contrast" in kinds:
        return f"a contrast of {names} by its coding; read the predictions in its place."
    return f"one part of the curve along {names}; read the predictions, not this number alone."


def _truths(source: Fit | Posterior, labels: Sequence[str]) -> set[str]:
    """Columns of true and false, which enter as 1 and 0; needs the rows."""
    data: Any = source.model.data
    found = set()
    for label in labels if data is not None else ():
        try:
            column = data[label]
        except Exception:  # an expression, which is no column: each kind of frame says so in its own way
            continue
        if str(getattr(column, "dtype", getattr(column, "type", ""))).lower().startswith("bool"):
            found.add(label)
    return found


# -- sizes ------------------------------------------------------------------------------------------------------


def ratio_texts(one: Estimate) -> list[str]:
    """Exponentials of the estimate and its ends: three digits, and more where a ratio lies near one."""
    values = [_exp(value) for value in (one.value, one.low, one.high)]
    places = decimals(None if one.error is None else one.error * values[0], 2)
    if places is not None and places > 2 and 0.5 < values[0] < 2:
        return [fixed(value, places) for value in values]
    return [number(value, 3) for value in values]


def _size(source: Fit | Posterior, level: float, units: Mapping[str, str]) -> Size:
    """How large a difference is, in words: a ratio where its exponential has a name, else a difference."""
    percent = f"{100 * level:.4g}%"
    ratio, what = ratio_name(source), outcome(source)
    family = source.model.distribution
    unit = units.get(response_name(source), "")
    plain = family is None or family.link == "identity"
    link = "" if family is None else escape(family.link.replace("_", " "))
    turned = ", where higher means a lower mean" if link.startswith("inverse") else ""

    def multiplied(one: Estimate, beyond: str = "") -> str:
        times, low, high = ratio_texts(one)
        more = 100 * (_exp(one.value) - 1)
        rise = f", {number(abs(more), 2)}% {'higher' if more > 0 else 'lower'}" if 1 <= abs(more) <= 100 else ""
        between = f"{percent} interval {low} to {high}" if one.low is not None else f"no {percent} interval"
        return f"{what} times {times}{rise} ({between}){beyond}"

    def shifted(one: Estimate, beyond: str = "") -> str:
        sign = "higher" if one.value > 0 else "lower"
        places = decimals(one.error, 2)
        shown = f"{fixed(abs(one.value), places)}{' ' + escape(unit) if unit and plain else ''}"
        of = what if plain else f"the linear predictor ({link}{turned}) for {what}"
        between = _between(percent, one.low, one.high, places)
        return f"{of} {sign} by {shown}{' on average' if plain else ''} ({between}){beyond}"

    return multiplied if ratio else shifted


def _between(percent: str, low: float | None, high: float | None, places: int | None) -> str:
    known = low is not None and high is not None and not math.isnan(low + high)
    return f"{percent} interval {interval(low, high, places)}" if known else f"no {percent} interval"


def _level_text(source: Fit | Posterior, one: Estimate, level: float, where: str, units: Mapping[str, str]) -> str:
    """The expected response itself."""
    percent = f"{100 * level:.4g}%"
    typical = " for a typical group" if source.design.terms else ""
    what, ends, places = _expected(source, one)
    unit = units.get(response_name(source), "")
    shown = f"{number(ends[0], 3) if places is None else fixed(ends[0], places)}{' ' + escape(unit) if unit else ''}"
    place = ", ".join([part for part in (where, "with the offset at zero" if has_offset(source) else "") if part])
    between = _between(percent, ends[1], ends[2], places)
    return f"{f'{place}, ' if place else ''}{what}{typical} is {shown} ({between})."


def _expected(source: Fit | Posterior, one: Estimate) -> tuple[str, list[float], int | None]:
    """What is expected (HTML), its estimate with the ends of the interval, and decimals."""
    family, name = source.model.distribution, f"<em>{escape(response_name(source))}</em>"
    ends = [math.nan if v is None else v for v in (one.value, one.low, one.high)]
    if family is None or family.name == "lognormal":
        if not scale_name(source):
            return f"the expected {name}", ends, decimals(one.error, 2)
        logged = log_response(source) if family is None else response_name(source)
        mean = "geometric mean" if family is None else "median"
        return f"the {mean} of <em>{escape(logged)}</em>", [_exp(v) for v in ends], None
    means = np.asarray(family.mean(np.array(ends)), dtype=float).tolist()
    ends = [means[0], *sorted(means[1:])]
    places = decimals(one.error, 2) if family.link == "identity" else None
    if family.name in ("binomial", "betabinomial"):
        labels = source.design.labels
        return f"the probability of {name}{f' being {escape(labels[-1])}' if len(labels) == 2 else ''}", ends, places
    kind = "centre" if family.name == "student" else "mean"
    return f"the {kind} of {COUNTS[family.zero] + ' of ' if family.zero in COUNTS else ''}{name}", ends, places


def _doubt(one: Estimate, ratio: bool) -> str:
    if one.above is not None:
        share = one.above if one.value > 0 else 1 - one.above
        return f" Probability of this direction: {probability(share)}."
    if one.clear or one.low is None:
        return ""
    return f" The interval includes {'one' if ratio else 'zero'}: these data do not settle the direction."


def probability(share: float) -> str:
    """A probability (HTML); a count of draws does not show that one is 0 or 1."""
    if share > 0.999 or share < 0.001:
        return "&gt; 0.999" if share > 0.5 else "&lt; 0.001"
    return f"{share:.3f}" if share > 0.99 or share < 0.01 else f"{share:.2f}"


def _exp(value: float | None) -> float:
    if value is None:
        return math.nan
    return math.exp(value) if value < 700 else math.inf
