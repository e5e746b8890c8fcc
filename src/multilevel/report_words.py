"""What a report calls things: the question, the response, the scale of a coefficient; each fixed effect with its row."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .cli_files import records
from .expressions import analyse
from .report_effects import Coefficient, coefficients
from .report_html import escape

if TYPE_CHECKING:
    from .fit import Fit
    from .posterior import Posterior

__all__ = [
    "COUNTS", "Estimate", "conditional", "estimates", "has_offset", "heading", "listed", "log_response", "outcome",
    "question", "ratio_name", "response_name", "scale_name",
]  # fmt: skip

COUNTS = {  # what the mean is of where a formula of its own gives the zeros
    "inflated": "the count part",
    "hurdle": "the count part (its zeros not yet left out)",
}


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


def heading(source: Fit | Posterior) -> str:
    """The title of a page that was given none (text)."""
    return f"{response_name(source)}: a {'multilevel' if source.design.terms else 'regression'} model"


def question(source: Fit | Posterior) -> str:
    """The question that a formula asks (HTML)."""
    design = source.design
    made = coefficients(design)
    names = [label for one in made for label in (*(atom.label for atom in one.atoms or ()), *one.others)]
    columns = list(dict.fromkeys(name for label in names for name in _columns(label)))
    response, groups = f"<em>{escape(response_name(source))}</em>", list(dict.fromkeys(t.group for t in design.terms))
    among = listed([f"<em>{escape(one)}</em>" for one in groups])
    many = "the levels of " if len(groups) == 1 else "the levels of each of "
    slopes = [name for term in design.terms for name in term.names if name != "Intercept"]
    if not columns:
        return f"How much does {response} vary between {many}{among}?" if groups else f"How large is {response}?"
    along = listed([f"<em>{escape(one)}</em>" for one in columns])
    text = f"How does {response} differ with {along}"
    if not groups:
        return f"{text}?"
    what = f"do {response} and these differences" if slopes else f"does {response}"
    return f"{text}, and how much {what} vary between {many}{among}?"


def listed(items: list[str]) -> str:
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
        return "ratio of geometric means" if log_response(source) else ""
    if family.name == "lognormal":
        return "ratio of medians"
    if family.link == "logit":
        return "odds ratio"
    if family.link == "log":
        return "rate ratio" if family.name in ("poisson", "nbinom2", "nbinom1") else "ratio of means"
    return "hazard ratio" if family.link == "cloglog" and family.name != "ordinal" else ""


def log_response(source: Fit | Posterior) -> str:
    """What the natural logarithm is taken of, where the response is one."""
    found = re.fullmatch(r"(?:np\.)?log\(\s*`?([^()`]+?)`?\s*\)", source.design.response.strip())
    return found[1] if found else ""


def outcome(source: Fit | Posterior) -> str:
    """What a coefficient's ratio multiplies, or what a difference is of (HTML)."""
    family, name = source.model.distribution, f"<em>{escape(response_name(source))}</em>"
    if family is None:
        return f"the geometric mean of <em>{escape(log_response(source))}</em>" if log_response(source) else name
    if family.name == "ordinal":
        return f"the odds of a higher category of {name}" if family.link == "logit" else name
    labels = source.design.labels
    success = f"{name} being {escape(labels[-1])}" if len(labels) == 2 else name
    if family.name in ("binomial", "betabinomial"):
        what = {"logit": "odds", "cloglog": "hazard"}.get(family.link, "probability")
        return f"the {what} of {success}"
    if family.link == "logit":
        return f"the odds m/(1{chr(0x2212)}m) of the mean m of {name}"
    rate = family.link == "log" and has_offset(source)
    name = f"{COUNTS[family.zero]} of {name}" if family.zero in COUNTS else name
    if family.name == "student":  # near one degree of freedom a mean says little
        return f"the centre of {name}"
    return f"the {'median' if family.name == 'lognormal' else 'rate' if rate else 'mean'} of {name}"


def scale_name(source: Fit | Posterior) -> str:
    """The scale of coefficients and group effects where it is not that of the response: "log", "logit"."""
    family = source.model.distribution
    if family is None:
        return "log" if log_response(source) else ""
    return "log" if family.name == "lognormal" else "" if family.link == "identity" else family.link.replace("_", " ")


def conditional(source: Fit | Posterior) -> bool:
    """Whether differences within a group are others than differences of averages over groups."""
    family = source.model.distribution
    curved = family is not None and family.link != "identity" and family.name != "lognormal"
    return curved and bool(source.design.terms)


def has_offset(source: Fit | Posterior) -> bool:
    remake = source.design.remake
    return source.design.offset is not None or bool(remake.offset_column) or bool(remake.offsets)
