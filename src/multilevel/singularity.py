"""Singular fits: which component is on its boundary, why, and the simpler model to try with what it costs."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .covariance import NO_SD
from .diagnostics import EXTREME, boundary_components
from .errors import MultilevelWarning
from .generalised_simpler import options_text, simpler_model

if TYPE_CHECKING:
    from .design import Design, Term
    from .fit import Fit
    from .formula import Bar, Formula

Array = NDArray[np.float64]

MAX_STEPS = 8  # simplifications in a row
ZERO = 1e-8  # an sd at or below this share of the largest of its term is zero


@dataclass(frozen=True)
class Step:
    """One simpler model.

    Attributes
    ----------
    formula : str
        To be typed as it stands.
    what : str
        What was taken out, in words.
    criterion : float
        -2 log-likelihood (REML criterion or deviance, as the fit); NaN where the rows are not there to refit.
    change : float
        By how much that exceeds the fit's: what the simpler model costs.
    aic_change : float
        AIC less that of the fit; below zero the simpler model is preferred.
    singular : bool
        Whether this model is singular again.
    options : str
        What else the model needs, as the fit: "correlation='ar1(1 | id)', covariance for id as before". Often empty.
    """

    formula: str
    what: str
    criterion: float
    change: float
    aic_change: float
    singular: bool
    options: str = ""


@dataclass(frozen=True)
class Singularity:
    """Report on the boundary of a fit; true if the fit is singular.

    Attributes
    ----------
    components : tuple of str
        What lies on the boundary: "sd(Batch, Intercept) = 0".
    reasons : tuple of str
        A sentence for each.
    steps : tuple of Step
        Simpler models, each simpler than the one before; the last is not singular where one was found.
    """

    components: tuple[str, ...]
    reasons: tuple[str, ...]
    steps: tuple[Step, ...]
    criterion_name: str
    kind: str

    def __bool__(self) -> bool:
        return bool(self.components)

    @property
    def suggestion(self) -> Step | None:
        """The model to try: the first that is not singular any more, else the last; None if nothing is singular."""
        regular = [s for s in self.steps if not s.singular]
        return regular[0] if regular else self.steps[-1] if self.steps else None

    def frame(self) -> Any:
        """The simpler models: step, formula, options, what, criterion, change, aic_change, singular."""
        from .frame import like

        columns: dict[str, Any] = {"step": np.arange(1, len(self.steps) + 1)}
        for name in ("formula", "options", "what"):
            columns[name] = np.array([getattr(s, name) for s in self.steps], dtype=object)
        for name in ("criterion", "change", "aic_change"):
            columns[name] = np.array([getattr(s, name) for s in self.steps], dtype=np.float64)
        columns["singular"] = np.array([s.singular for s in self.steps], dtype=bool)
        return like(self.kind, columns)

    def __str__(self) -> str:
        if not self:
            return "Not singular: every variance is above zero and no correlation is exactly one."
        lines = ["Singular fit."]
        for component, reason in zip(self.components, self.reasons, strict=True):
            lines += [f"  {component}", f"    {reason}"]
        if not self.steps:
            return "\n".join([*lines, "No simpler model can be written down automatically for this structure."])
        lines.append("Simpler models, one step at a time:")
        for i, step in enumerate(self.steps, 1):
            lines += [f"  {i}. {step.formula}", f"     {step.what}{_cost(step, self.criterion_name)}"]
        best = self.suggestion
        if best is not None:
            lines.append(f"Try: {best.formula}{', with ' * bool(best.options)}{best.options}")
            if best.aic_change > 2:
                lines.append(
                    "It describes these data worse (AIC is higher). The singular fit is a valid estimate and may be kept; "
                    "its fixed effects, tests and predictions hold."
                )
        return "\n".join(lines)


def _cost(step: Step, criterion: str) -> str:
    if not np.isfinite(step.change):
        return "; its cost is not known here: fit it to the data and compare"
    change = f"{max(step.change, 0.0):.2f}" if step.change > 0.005 else "0"
    again = "; still singular" if step.singular else ""
    return f"; -2 log-likelihood ({criterion}) rises by {change}, AIC changes by {step.aic_change:+.2f}{again}"


def singularity(fit: Fit) -> Singularity:
    """Report of a fit; see `Fit.singularity`."""
    components = boundary_components(fit)
    if not components:
        return Singularity((), (), (), fit.criterion_name, fit.design.kind)
    reasons = tuple(_reason(fit, c) for c in components)
    return Singularity(components, reasons, tuple(_steps(fit)), fit.criterion_name, fit.design.kind)


# -- reasons ------------------------------------------------------------------------------------------------


def _reason(fit: Fit, component: str) -> str:
    """Why this component is on the boundary, in words for who made the data."""
    if component.startswith("sd("):
        return (
            "The estimate is zero: these levels differ in this effect no more than the rows within them would make them "
            "differ by chance. It does not show that the true variance is zero."
        )
    if component.startswith("cor("):
        structured = re.match(r"cor\(.*, (cs|homcs|ar1|hetar1)\) = (\S+)$", component)
        if structured:
            return _reason_of_rho(structured[1], float(structured[2]))
        how = "opposite ways: the higher one, the lower the other" if component.endswith("-1") else "together"
        return (
            f"The two effects are estimated to move in lockstep, {how}. From a level's first effect its second "
            f"would be known "
            "exactly, which is hardly true. Usually there are too few levels, or too few rows in each, to tell how closely "
            "the two go together."
        )
    return (
        "Some combination of these effects does not differ between levels beyond chance: there are more effects than the "
        "data can tell apart."
    )


def _reason_of_rho(kind: str, rho: float) -> str:
    """Why the one correlation of a structure is at the end of its range."""
    if rho > 0:
        return (
            "The correlation is estimated at one: the effects of a level go up and down together, as one effect would. "
            "These data show no difference between them beyond chance."
        )
    if kind in ("ar1", "hetar1"):
        return (
            "Each effect of a level is estimated to be the opposite of the one before. That is rarely meant: check their "
            "order."
        )
    return (
        "The effects of a level are estimated to cancel out, as far apart as this structure allows: rows of one level are "
        "no more alike than rows of different ones."
    )


# -- simpler models -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Candidate:
    """A reduced design with the formula that says it."""

    design: Design
    formula: Formula
    what: str


def _steps(fit: Fit) -> list[Step]:
    """Simplify until nothing is singular, one term at a time; of two ways the one with the lower AIC."""
    out: list[Step] = []
    now = fit
    for _ in range(MAX_STEPS):
        candidates = _simpler(now)
        if not candidates:
            break
        if fit.design.y is None:
            formula, options = written(candidates[0].formula), _options(fit, candidates[0].design)
            out.append(Step(formula, candidates[0].what, np.nan, np.nan, np.nan, False, options))
            break
        tried = [(candidate, *_refit(now, candidate)) for candidate in candidates]
        candidate, criterion, npar, after = min(tried, key=lambda one: one[1] + 2 * one[2])
        change = criterion - fit.criterion
        singular = after is not None and after.is_singular
        aic = change + 2 * (npar - fit.npar)
        options = _options(fit, candidate.design)
        out.append(Step(written(candidate.formula), candidate.what, criterion, change, aic, singular, options))
        if after is None or not singular:
            break
        now = after
    return out


def _refit(fit: Fit, candidate: Candidate) -> tuple[float, int, Fit | None]:
    """Criterion and parameters of a reduced model; no Fit where no random effects are left."""
    design = candidate.design
    if not design.terms and fit.model.residual is None and not fit.generalised:
        return least_squares(design, fit.reml), design.X.shape[1] + 1, None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MultilevelWarning)  # the report says what is singular
        after = simpler_model(fit.model, design).fit(fit.reml, threads=fit.engine.threads)
    return after.criterion, after.npar, after


def _options(fit: Fit, design: Design) -> str:
    """What must be given to Model beside the simpler formula, as one would type it."""
    residual, out = fit.model.residual, options_text(fit)
    if residual is not None and residual.serial is not None:
        out.append(f'correlation="{residual.serial.text}"')
    if residual is not None and residual.spreads:
        spreads = " + ".join(s.text for s in residual.spreads)
        out.append(f'variance="{spreads}"')
    known = [name for name in fit.design.known if any(t.group == name for t in design.terms)]
    if known:
        out.append(f"covariance= of {in_words(known)} as before")
    return ", ".join(out)


def least_squares(design: Design, reml: bool) -> float:
    """-2 log-likelihood of the model without random effects, with the constants of the mixed one."""
    y = design.y if design.offset is None else design.y - design.offset
    w = np.ones(len(y)) if design.weights is None else design.weights
    q, r = np.linalg.qr(np.sqrt(w)[:, None] * design.X)
    root = np.sqrt(w) * y
    rest = root - q @ (q.T @ root)
    df = len(y) - (design.X.shape[1] if reml else 0)
    log_det = 2 * float(np.sum(np.log(np.abs(np.diag(r))))) if reml else 0.0
    return float(df * (1 + np.log(2 * np.pi * (rest @ rest) / df)) + log_det - np.sum(np.log(w)))


def _simpler(fit: Fit) -> list[Candidate]:
    """Next simpler models for the first singular term: drop what has no variance, else correlations or an effect."""
    design = fit.design
    for (t, index), rank in zip(fit.engine.blocks.owners, fit.optimum.evidence.ranks, strict=True):
        if rank == len(index):
            continue
        term, bar = design.terms[t], design.formula.bars[t]
        where = _shown(bar)
        sd = np.sqrt((fit.optimum.lambdas[t] ** 2).sum(axis=1))
        zero = sd <= ZERO * max(float(sd.max()), 1e-300)
        if zero.all():
            return [_without_term(design, t, f"{where} is left out")]
        if term.structure not in ("us", "diag"):
            continue
        found = [_without_pieces(design, t, zero)] if zero.any() else []
        if not any(found) and term.structure == "us":
            size = np.where(np.array(term.names) == "Intercept", np.inf, sd * _scales(term))
            found = [
                _uncorrelated(design, t, f"{where} without its correlations"),
                _without_pieces(design, t, size == size.min()),
            ]
        if any(found):
            return [one for one in found if one is not None]
    return _simpler_structure(fit)


def _shown(bar: Bar) -> str:
    """A term as typed."""
    opening = "(" if bar.structure in ("us", "diag") else f"{bar.structure}("
    return f"{opening}{bar.effects} {'||' if bar.structure == 'diag' else '|'} {bar.group})"


SIMPLER = {  # structure -> simpler ones, and what they do without
    "cs": (("homcs", "with one variance for all effects"), ("diag", "without its correlation")),
    "hetar1": (("ar1", "with one variance for all effects"), ("diag", "without its correlation")),
    "homcs": (("homdiag", "without its correlation"),),
    "ar1": (("homdiag", "without its correlation"),),
}


def _simpler_structure(fit: Fit) -> list[Candidate]:
    """Next simpler models for the first term with few parameters that has one at its end."""
    design, at = fit.design, 0
    for t, s in enumerate(fit.engine.blocks.structures):
        theta = fit.optimum.theta[at : at + s.n_theta]
        at += s.n_theta
        if s.free:
            continue
        term, bar = design.terms[t], design.formula.bars[t]
        sds, (low, high) = theta[: s.n_sd], s.range()
        if sds.max() <= NO_SD:
            return [_without_term(design, t, f"{_shown(bar)} is left out")]
        top = s.correlated and theta[-1] >= high - EXTREME
        if not (sds.min() <= NO_SD or top or (s.correlated and theta[-1] <= low + EXTREME)):
            continue
        found = [
            _with(design, t, replace(term, structure=kind), replace(bar, structure=kind), f"{_shown(bar)} {what}: {kind}")
            for kind, what in SIMPLER.get(s.kind, ())
        ]
        if top and s.n_sd == 1 and term.Z is not None and bool(np.allclose(term.Z.sum(axis=1), 1)):
            one = replace(term, structure="us", names=("Intercept",), Z=None)
            what = f"{_shown(bar)} as one effect of each level of {bar.group}, which a correlation of one amounts to"
            found.append(_with(design, t, one, replace(bar, structure="us", effects="1"), what))
        return found
    return []


def _scales(term: Term) -> Array:
    """Root mean square of each effect's column, which makes its sd one of the response."""
    return np.ones(1) if term.Z is None else np.asarray(np.sqrt(np.mean(term.Z**2, axis=0)))


def _with(design: Design, t: int, term: Term | None, bar: Bar | None, what: str) -> Candidate:
    terms, bars = list(design.terms), list(design.formula.bars)
    if term is None or bar is None:
        del terms[t], bars[t]
    else:
        terms[t], bars[t] = term, bar
    formula = replace(design.formula, bars=tuple(bars))
    return Candidate(replace(design, terms=tuple(terms), formula=formula), formula, what)


def _without_term(design: Design, t: int, what: str) -> Candidate:
    return _with(design, t, None, None, what)


def _uncorrelated(design: Design, t: int, what: str) -> Candidate:
    term, bar = design.terms[t], design.formula.bars[t]
    return _with(design, t, replace(term, structure="diag"), replace(bar, structure="diag"), what)


def _without_pieces(design: Design, t: int, lost: NDArray[np.bool_]) -> Candidate | None:
    """Drop the parts of a term all of whose effects are lost; None where no part can be told to hold them."""
    term, bar = design.terms[t], design.formula.bars[t]
    pieces = _pieces(bar.effects, term.names)
    if pieces is None:
        return None
    gone = [text for text, index in pieces.items() if lost[index].all()]
    kept = {text: index for text, index in pieces.items() if text not in gone}
    if not gone or not kept:
        return None
    names = [n for n in kept if n != "1"]
    effects = " + ".join(["1", *names] if "1" in kept and names else names or ["1"])
    effects = effects if "1" in kept else f"0 + {effects}"
    columns = np.sort(np.concatenate(list(kept.values())))
    only_ones = list(kept) == ["1"]
    what = f"{in_words(['the intercept' if g == '1' else g for g in gone])} no longer varies by {term.group}"
    structure = "us" if len(columns) == 1 else term.structure
    smaller = replace(
        term,
        names=tuple(term.names[i] for i in columns),
        Z=None if only_ones or term.Z is None else np.ascontiguousarray(term.Z[:, columns]),
        structure=structure,
    )
    return _with(design, t, smaller, replace(bar, effects=effects, structure=structure), what)


def _pieces(effects: str, names: tuple[str, ...]) -> dict[str, NDArray[np.intp]] | None:
    """Parts of the left side of a bar and the effects each makes; None where they cannot be matched."""
    from .formula import model_text

    texts = [one for one in _split(model_text(effects)) if one != "0"]
    out: dict[str, NDArray[np.intp]] = {}
    free = list(range(len(names)))
    for text in texts:
        if any(mark in text for mark in "*:/%^|") or text.startswith("-"):
            return None  # one part makes effects of several names: the formula is left to the user
        mine = [i for i in free if _makes(text, names[i])]
        if not mine:
            return None
        free = [i for i in free if i not in mine]
        out[text] = np.array(mine, dtype=np.intp)
    return out if not free else None


def _makes(text: str, name: str) -> bool:
    if text == "1":
        return name == "Intercept"
    plain = text.strip("`")
    return name in (text, plain) or name.startswith((f"{text}[", f"{plain}["))


def _split(text: str) -> list[str]:
    """Parts of a sum, split at plus signs outside parentheses."""
    parts, depth, at = [], 0, 0
    for i, char in enumerate(text):
        depth += (char in "([") - (char in ")]")
        if char == "+" and depth == 0:
            parts.append(text[at:i].strip())
            at = i + 1
    return [*parts, text[at:].strip()]


def in_words(names: Sequence[str]) -> str:
    """Names as a sentence has them: a, b and c."""
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def written(formula: Formula) -> str:
    """A formula as one would type it: an intercept that goes without saying is left out."""
    from .formula import render

    fixed = re.sub(r"^1 \+ ", "", formula.fixed)
    return render(replace(formula, fixed=fixed))
