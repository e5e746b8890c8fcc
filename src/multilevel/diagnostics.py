"""Verdict on an optimum, in numbers and one sentence anyone can act on."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .covariance import NO_SD
from .errors import (
    ConvergenceWarning,
    MissingRowsWarning,
    MultilevelWarning,
    RankWarning,
    SingularFitWarning,
    users_level,
)
from .optimise import NO_SLOPE, UNSETTLED

if TYPE_CHECKING:
    from .fit import Fit

EXTREME = 1e-9  # distance from the end of its range at which a structure's correlation counts as being there
PERFECT_CORRELATION = 1 - 1e-9  # correlations beyond it are named as exactly one


@dataclass(frozen=True)
class Convergence:
    """Report on the optimum of a fit.

    Attributes
    ----------
    converged : bool
        Whether the answer is certified as a minimum.
    singular : bool
        Whether a variance is zero or a combination of effects has none.
    sentence : str
        The verdict.
    boundary : tuple of str
        What lies on the boundary, in the user's terms: "sd(Batch, Intercept) = 0".
    gradient_norm : float
        Largest derivative of the deviance along free directions (per unit of relative sd).
    decrement : float
        Deviance that one more Newton step would gain.
    null_slope : float
        Smallest derivative by a vanished variance (NaN if none vanished); not negative at a minimum.
    min_curvature : float
        Smallest eigenvalue of the Hessian along free directions; positive at a strict minimum.
    exact_hessian : bool
        Whether that Hessian is exact, or the average information checked along its weakest direction.
    evaluations, restarts : int
    """

    converged: bool
    singular: bool
    sentence: str
    boundary: tuple[str, ...]
    gradient_norm: float
    decrement: float
    null_slope: float
    min_curvature: float
    exact_hessian: bool
    evaluations: int
    restarts: int

    def __bool__(self) -> bool:
        return self.converged

    def __str__(self) -> str:
        how = "exact" if self.exact_hessian else "average information, weakest direction checked"
        lines = [
            self.sentence,
            f"  evaluations {self.evaluations}, restarts {self.restarts}",
            f"  largest gradient {self.gradient_norm:.2g}, deviance left to gain {self.decrement:.2g}",
            f"  smallest curvature {self.min_curvature:.3g} ({how})",
        ]
        if self.boundary:
            lines.append(f"  on the boundary: {'; '.join(self.boundary)}")
            lines.append(
                f"  smallest derivative by a vanished variance {self.null_slope:.3g} (not negative at a minimum)"
            )
        return "\n".join(lines)


def convergence(fit: Fit) -> Convergence:
    """Report of a fit."""
    e = fit.optimum.evidence
    boundary = boundary_components(fit)
    slopes = [s for s in e.null_slopes if not np.isnan(s)]
    return Convergence(
        e.converged,
        bool(boundary),
        _sentence(fit, boundary),
        boundary,
        e.gradient_norm,
        e.decrement,
        min(slopes) if slopes else float("nan"),
        e.min_curvature,
        e.exact,
        e.evaluations,
        e.restarts,
    )


def _sentence(fit: Fit, boundary: tuple[str, ...]) -> str:
    e = fit.optimum.evidence
    if e.converged and not boundary:
        return f"Converged to a minimum ({e.evaluations} evaluation{'s' * (e.evaluations != 1)})."
    if e.converged:
        names = " and ".join(boundary)
        return f"Converged to a minimum on the boundary: {names}. {_of_the_boundary(fit, boundary)}"
    if e.status == UNSETTLED:
        return (
            "Not converged: the residual variances depend on the fitted values, and the two had not settled "
            "after many rounds. "
            "Use a column in place of fitted."
        )
    if e.decrement < 0 and fit.generalised:
        return (
            "Not converged: the likelihood keeps rising towards the end of a parameter's range: a dispersion, a "
            "share of zeros or a "
            "variance that runs away. Check the smallest and largest responses, or choose another family."
        )
    if e.decrement < 0:
        return (
            "Not converged: the likelihood keeps rising towards a residual variance or correlation at the end "
            "of its range, as it "
            "does where groups hardly vary inside. Simplify the structure of the residuals."
        )
    if e.status == "out of evaluations":
        left = f" with {e.decrement:.2g} deviance left to gain" if e.decrement > 0 else ""
        return (
            f"Not converged: stopped after {e.evaluations} evaluation{'s' * (e.evaluations != 1)}{left}. "
            "Allow more with max_evaluations, or simplify the random effects."
        )
    if e.status == "no further progress":
        top = max((float(np.abs(m).max()) for m in fit.optimum.engine_lambdas), default=0.0)
        if top > 1e5:
            return (
                f"Not certified: what varies between groups is about {top:.0e} times the residual sd, so that rounding "
                "leaves the variances few digits. Check the response for groups in other units."
            )
        return (
            f"Not certified: no further progress, though a gain of {e.decrement:.2g} in deviance seemed possible. Rescale "
            "the predictors of the random effects, or simplify them."
        )
    if not e.min_curvature > e.flat_below or any(abs(slope) <= NO_SLOPE for slope in e.null_slopes):
        return (
            f"Not certified: the criterion is flat or falls off along the variances of {_weak_components(fit)}, which these "
            "data do not determine. Drop or merge some of these random effects."
        )
    return "Not certified: a variance at zero wants to grow. Refit with another start, and please report this."


def _of_the_boundary(fit: Fit, boundary: tuple[str, ...]) -> str:
    """What it means: a zero variance can be left out at no cost, a correlation of one cannot."""
    known = fit.model.distribution is None  # where Fit.singularity works
    if all(component.startswith("sd(") for component in boundary):
        return (
            "The estimate is valid: these data show no more variation there. A simpler random-effects structure fits as "
            f"well{': fit.singularity() names it' * known}."
        )
    return (
        "The estimate is valid, though at the edge of what the model allows. A simpler random-effects structure may fit "
        f"worse{': fit.singularity() lists some, and what each costs' * known}."
    )


def _weak_components(fit: Fit) -> str:
    """Random effects that make up the direction of least curvature."""
    owners, shares = fit.engine.blocks.owners, fit.optimum.evidence.weak
    if fit.optimum.evidence.weak_structure:
        return fit.optimum.evidence.weak_structure
    names = []
    slopes = fit.optimum.evidence.null_slopes
    for (t, index), share, slope in zip(owners, shares or (1.0,) * len(owners), slopes, strict=True):
        term = fit.design.terms[t]
        flat = abs(slope) <= NO_SLOPE
        if flat or (share > 0.05 and not any(abs(s) <= NO_SLOPE for s in slopes)):
            names.append(f"{term.group} ({', '.join(term.names[i] for i in index)})")
    return " and ".join(names)


def boundary_components(fit: Fit) -> tuple[str, ...]:
    """What is singular, in the user's terms: zero sds, correlations of one, or effects that depend on one another."""
    blocks, evidence = fit.engine.blocks, fit.optimum.evidence
    out: list[str] = []
    for (t, index), rank in zip(blocks.owners, evidence.ranks, strict=True):
        if rank == len(index):
            continue
        term = fit.design.terms[t]
        factor = fit.optimum.lambdas[t][index]
        sd = np.sqrt((factor * factor).sum(axis=1))
        zero = sd <= 1e-10 * max(float(sd.max()), 1e-300) if sd.max() > 0 else np.ones(len(sd), dtype=bool)
        names = [term.names[i] for i in index]
        out += [f"sd({term.group}, {n}) = 0" for n, z in zip(names, zero, strict=True) if z]
        left = [i for i in range(len(index)) if not zero[i]]
        if len(left) <= rank:
            continue
        unit = factor[left] / sd[left, None]
        cor = unit @ unit.T
        pairs = [(i, j) for i in range(len(left)) for j in range(i) if abs(cor[i, j]) > PERFECT_CORRELATION]
        out += [f"cor({term.group}, {names[left[j]]}, {names[left[i]]}) = {np.sign(cor[i, j]):.0f}" for i, j in pairs]
        if not pairs:
            listed = ", ".join(names[i] for i in left)
            out.append(
                f"{len(left)} effects of {term.group} ({listed}) vary in {rank} dimension{'s' * (rank > 1)} only"
            )
    return (*out, *_structured_boundary(fit))


def _structured_boundary(fit: Fit) -> list[str]:
    """Zero sds and extreme correlations of terms with few parameters."""
    out: list[str] = []
    at = 0
    groups = fit.engine.blocks.groups
    scales = {t: np.diag(g.basis)[part] for g in groups for t, part in zip(g.terms, g.slices, strict=True)}
    for t, (term, s) in enumerate(zip(fit.design.terms, fit.engine.blocks.structures, strict=True)):
        theta = fit.optimum.theta[at : at + s.n_theta]
        at += s.n_theta
        if s.free:
            continue
        sds = theta[: s.n_sd] / scales[t][: s.n_sd]  # in the engine's units, where what counts as none is stated
        if s.n_sd == 1 and sds[0] <= NO_SD:
            out.append(f"sd({term.group}, {s.kind}) = 0")
        elif s.n_sd > 1:
            out += [f"sd({term.group}, {n}) = 0" for n, sd in zip(term.names, sds, strict=True) if sd <= NO_SD]
        low, high = s.range()
        if s.correlated and sds.max() > NO_SD and not low + EXTREME < theta[-1] < high - EXTREME:
            out.append(f"cor({term.group}, {s.kind}) = {theta[-1]:.4g}")
    return out


def fit_messages(fit: Fit) -> tuple[str, ...]:
    """Sentences about rows and columns left out, and about the optimum where it is singular or not certain."""
    report = convergence(fit)
    more = () if report.converged and not report.singular else (report.sentence,)
    return (*fit.design.messages, *more)


def warn_of(fit: Fit) -> None:
    """Warn, in typed classes, of what a user must not miss; the sentences stay in `fit.messages`."""
    design, level = fit.design, users_level()
    if design.missing:
        warnings.warn(next(m for m in design.messages if "row" in m), MissingRowsWarning, stacklevel=level)
    if design.dropped:
        warnings.warn(next(m for m in design.messages if design.dropped[0] in m), RankWarning, stacklevel=level)
    for message in design.messages:
        if "has the single value" in message:
            warnings.warn(message, RankWarning, stacklevel=level)
        elif "numbers written as text" in message:
            warnings.warn(message, MultilevelWarning, stacklevel=level)
    report = convergence(fit)
    if not report.converged:
        warnings.warn(report.sentence, ConvergenceWarning, stacklevel=level)
    elif report.singular:
        warnings.warn(report.sentence, SingularFitWarning, stacklevel=level)
