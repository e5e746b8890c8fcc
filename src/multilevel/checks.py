"""Checks of a fitted model: a verdict and a sentence each, for people who have to act on them.

Verdicts are ok, look (worth a look at the plot or the rows named), problem, and skipped where a check could not be made or
would take long. A check alarms where a departure is both
clearer than chance (a p-value far below 0.05, for there are many checks) and large enough to matter; with many rows the
first comes easily. `residual_checks` and `effect_checks` have the computations.
"""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .variance_shares import group_list

if TYPE_CHECKING:
    from .fit import Fit

Array = NDArray[np.float64]

SKIPPED, OK, LOOK, PROBLEM = "skipped", "ok", "look", "problem"
VERDICTS = (SKIPPED, OK, LOOK, PROBLEM)  # from harmless to grave
WIDTH = 100  # characters of a printed line
FEW_GROUPS = 5
VIF_LOOK, VIF_PROBLEM = 5.0, 30.0
MISSING_LOOK = 0.05


@dataclass(frozen=True)
class Check:
    """One check: its name, verdict ("ok", "look", "problem", "skipped") and sentence."""

    name: str
    verdict: str
    sentence: str


@dataclass(frozen=True)
class Checks:
    """Results of `Fit.check`; prints as a table.

    Attributes
    ----------
    rows : tuple of Check
    """

    rows: tuple[Check, ...]
    kind: str

    def __iter__(self) -> Iterator[Check]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> Check:
        from .errors import OptionError, nearest

        for row in self.rows:
            if row.name == name:
                return row
        names = [row.name for row in self.rows]
        raise OptionError(f"there is no check {name!r}; {nearest(name, names) or 'there are ' + ', '.join(names)}")

    @property
    def worst(self) -> str:
        """The gravest verdict; "skipped" counts less than "ok"."""
        return max((row.verdict for row in self.rows), key=VERDICTS.index)

    def frame(self) -> Any:
        """Frame: check, verdict, sentence."""
        from .frame import like

        columns = {"check": "name", "verdict": "verdict", "sentence": "sentence"}
        return like(
            self.kind,
            {name: np.array([getattr(r, field) for r in self.rows], dtype=object) for name, field in columns.items()},
        )

    def __str__(self) -> str:
        width = max(len(row.name) for row in self.rows)
        lines = []
        for row in self.rows:
            first = f"{row.name:<{width}}  {row.verdict:<7}  "
            lines.append(
                textwrap.fill(row.sentence, WIDTH, initial_indent=first, subsequent_indent=" " * len(first))
            )
        count = {verdict: sum(row.verdict == verdict for row in self.rows) for verdict in VERDICTS}
        last = f"{count[OK]} ok, {count[LOOK]} to look at, {count[PROBLEM]} problem{'s' * (count[PROBLEM] != 1)}"
        lines.append(last + (f", {count[SKIPPED]} skipped" if count[SKIPPED] else ""))
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><td>{html.escape(r.name)}</td><td>{r.verdict}</td>"
            f"<td style='text-align:left'>{html.escape(r.sentence)}</td></tr>"
            for r in self.rows
        )
        return f"<table><tr><th>check</th><th>verdict</th><th>sentence</th></tr>{cells}</table>"


def check(fit: Fit) -> Checks:
    """All checks of a fit; see `Fit.check`."""
    from . import effect_checks, residual_checks

    fit.rows_of_data()
    facts = residual_checks.facts(fit)
    rows = [
        convergence(fit),
        singular(fit),
        *residual_checks.checks(facts),
        *effect_checks.checks(facts),
        collinearity(fit),
        group_counts(fit),
        missing(fit),
    ]
    return Checks(tuple(rows), fit.design.kind)


# -- checks of the model itself -------------------------------------------------------------------------------


def convergence(fit: Fit) -> Check:
    """Whether the optimum is certified as a minimum."""
    report = fit.convergence
    if report.converged:
        return Check("convergence", OK, "The estimates are a certified optimum.")
    return Check("convergence", PROBLEM, report.sentence)


def singular(fit: Fit) -> Check:
    """Whether a variance or correlation lies on its boundary, with the simpler model and its cost."""
    from .singularity import singularity

    report = singularity(fit)
    if not report:
        return Check("singularity", OK, "Every variance is above zero and no correlation is exactly one.")
    step = report.suggestion
    names = " and ".join(report.components)
    text = f"On the boundary: {names}. The estimate is valid, but these data do not support that much structure."
    if step is not None:
        cost = f" (AIC changes by {step.aic_change:+.1f})" if np.isfinite(step.aic_change) else ""
        options = f", with {step.options}" if step.options else ""
        text += f" Simpler: {step.formula}{options}{cost}; fit.singularity() has the steps."
    return Check("singularity", LOOK, text)


def collinearity(fit: Fit) -> Check:
    """Variance inflation factors of the fixed effects, per term, from their estimated covariance.

    Generalised VIFs (Fox & Monette 1992, JASA 87) to the power 1 / columns, comparable to the VIF of one column. Terms
    that share a variable (interactions, powers) inflate each other by their making and are left out of the verdict.
    """
    vifs = inflation(fit)
    name = "collinearity"
    if not vifs:
        return Check(name, OK, "Fewer than two separate predictors, so there is nothing to be collinear.")
    worst = max(vifs, key=lambda key: vifs[key])
    value = vifs[worst]
    if value <= VIF_LOOK:
        return Check(
            name, OK, f"Predictors can be told apart: the largest variance inflation is {value:.2g} ({worst})."
        )
    high = ", ".join(f"{key} {v:.2g}" for key, v in sorted(vifs.items(), key=lambda kv: -kv[1]) if v > VIF_LOOK)
    return Check(
        name,
        PROBLEM if value > VIF_PROBLEM else LOOK,
        f"Predictors overlap (variance inflation: {high}). Their separate effects are uncertain: the standard error of "
        f"{worst} is {np.sqrt(value):.1f} times what it would be without overlap. Predictions are not hurt; drop or combine "
        "predictors if their separate effects matter.",
    )


def inflation(fit: Fit) -> dict[str, float]:
    """Per separate term its generalised VIF to the power 1 / columns; empty with fewer than two."""
    names = fit.design.names
    use = [i for i, n in enumerate(names) if n != "Intercept"]
    if "Intercept" not in names or len(use) < 2:
        return {}
    se = np.sqrt(np.diag(fit.optimum.vcov))
    cor = (fit.optimum.vcov / np.outer(se, se))[np.ix_(use, use)]
    keys = [_term_of(names[i]) for i in use]
    out = {}
    for key in dict.fromkeys(keys):
        mine = [i for i, k in enumerate(keys) if k == key]
        rest = [i for i, k in enumerate(keys) if k != key]
        if not rest or any(_share(key, other) for other in set(keys) - {key}):
            continue
        parts = [np.linalg.slogdet(cor[np.ix_(part, part)])[1] for part in (mine, rest)]
        out[key] = float(np.exp((parts[0] + parts[1] - np.linalg.slogdet(cor)[1]) / len(mine)))
    return out


def _term_of(name: str) -> str:
    """ "recipe[T.B]:temp" -> "recipe:temp"."""
    return re.sub(r"\[[^\[\]]*\]", "", name)


def _share(a: str, b: str) -> bool:
    words = [set(re.findall(r"[^\W\d]\w*", text)) - {"I", "poly", "log", "exp", "sqrt", "np"} for text in (a, b)]
    return bool(words[0] & words[1])


def group_counts(fit: Fit) -> Check:
    """Grouping factors with too few levels for their variance."""
    counts = {t.group: len(t.levels) for t in fit.design.terms}
    few = {g: count for g, count in counts.items() if count < FEW_GROUPS}
    shown = ", ".join(f"{g} {count}" for g, count in counts.items())
    if not counts:
        return Check("number of groups", OK, "The model has no groups.")
    if not few:
        return Check("number of groups", OK, f"Levels: {shown}; enough to estimate variances between them.")
    names = " and ".join(f"{g} ({count} levels)" for g, count in few.items())
    return Check(
        "number of groups",
        LOOK,
        f"{names}: a variance between so few groups is very uncertain. Look at its interval, or enter "
        f"{' and '.join(few)} as a fixed effect; what is said of other groups rests on little.",
    )


def missing(fit: Fit) -> Check:
    """Rows that were left out."""
    d = fit.design
    lost = d.n_input - len(d.rows)
    if not lost:
        return Check("missing rows", OK, f"All {d.n_input:,} rows were used.")
    share = lost / d.n_input
    where = ", ".join(f"{name} in {count:,}" for name, count in d.missing.items())
    text = f"{lost:,} of {d.n_input:,} rows ({share:.1%}) were left out" + (f" (missing: {where})" if where else "") + "."
    if share <= MISSING_LOOK:
        return Check("missing rows", OK, text)
    return Check(
        "missing rows",
        LOOK,
        f"{text} If what is missing depends on the response, estimates are biased; say in the report how many rows were lost "
        "and why, or impute.",
    )


def groups_of(fit: Fit) -> list[str]:
    """Grouping factors in the order of the formula."""
    return group_list(fit)
