"""Checks of generalised models: dispersion, zeros, quantile residuals, separation, and what all models share.

Residuals are randomised quantile residuals (standard normal under the model), drawn with a fixed seed so that a check says
the same twice. They are conditional on the effects of groups that have rows enough, integrated over those of small groups
(which follow their rows too closely), and judged against the population's linear predictor: shrinkage alone correlates
them with fitted values that include the group effects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from . import effect_checks
from .checks import (
    LOOK,
    OK,
    PROBLEM,
    SKIPPED,
    Check,
    Checks,
    collinearity,
    convergence,
    group_counts,
    missing,
)
from .families import COUNTS, TRIALS
from .generalised_predict import draw_responses
from .generalised_residuals import partly_marginal
from .influence import Entry, Rows, leverages
from .residual_checks import fifths, p_text, shape, two_sided

if TYPE_CHECKING:
    from .generalised import GeneralisedFit

Array = NDArray[np.float64]

SEED = 0
SIMULATIONS = 200
NUMBERS = 2e7  # most simulated responses
ENOUGH_ROWS = 8  # of a group on average, for residuals given its effects
FEWEST_LEVELS = 4  # of a factor that separates
ALIKE = 0.9  # of these levels without a spread
LARGE_EFFECT = 10.0  # of a predictor over its range, on the scale of the link: a probability from 0.7 to 99.3 %


@dataclass(frozen=True)
class Facts:
    """What the checks share.

    Attributes
    ----------
    fit : GeneralisedFit
    residuals : (n,) array
        Quantile residuals.
    pearson : (n,) array or None
        Without prior weights; None for an ordinal response.
    simulated : (s, n) array
        Responses drawn given the fitted effects of groups with rows enough, and new effects of the others.
    effective : float
        Parameters the fit has used up on the rows: the trace of its hat matrix.
    clusters : (n,) array
        Rows that share an effect which the residuals are not freed of; each its own if there are none.
    """

    fit: GeneralisedFit
    residuals: Array
    pearson: Array | None
    simulated: Array
    effective: float
    clusters: NDArray[np.int32]


def check(fit: GeneralisedFit) -> Checks:
    """All checks of a generalised fit; see `Fit.check`."""
    fit.rows_of_data()
    f = facts(fit)
    effects = [effect_checks._effect(fit, t, i) for t, term in enumerate(fit.design.terms) for i in range(len(term.names))]
    rows = [
        convergence(fit),
        singular(fit),
        dispersion(f),
        *zeros(f),
        distribution(f),
        outliers(f),
        curvature(f),
        spread(f),
        *(one for one in effects if one is not None),
        *separation(fit),
        predictors(fit),
        group_counts(fit),
        missing(fit),
    ]
    return Checks(tuple(rows), fit.design.kind)


def facts(fit: GeneralisedFit) -> Facts:
    """Residuals and simulated responses of a fit."""
    n = len(fit.design.rows)
    count = draws(n)
    kept = [t.group for t in fit.design.terms if len(t.levels) * ENOUGH_ROWS <= n]
    (rng,) = np.random.default_rng(SEED).spawn(1)  # not the stream of simulate(seed=0)
    residuals = partly_marginal(fit, kept, rng)
    pearson = None if fit.family.name == "ordinal" else standardised(fit, fit.design.y)
    small = [t for t in fit.design.terms if t.group not in kept]
    clusters = min(small, key=lambda t: len(t.levels)).codes if small else np.arange(n, dtype=np.int32)
    return Facts(fit, residuals, pearson, draw_responses(fit, count, kept, rng), effective(fit), clusters)


def varies(values: Array) -> bool:
    """Whether values differ by more than rounding."""
    return bool(np.ptp(values) > 1e-8 * (1 + float(np.abs(values).max())))


def trend(x: Array, y: Array, clusters: NDArray[np.int32]) -> tuple[float, float]:
    """Slope of y on standardised x, and its t statistic, robust to what rows of a cluster have in common."""
    z = (x - x.mean()) / x.std()
    slope = float(np.mean(z * y))
    parts = np.bincount(clusters, z * (y - y.mean() - slope * z))
    error = float(np.sqrt(parts @ parts)) / len(x)
    return slope, slope / error if error > 0 else 0.0


def draws(n: int) -> int:
    """Simulated responses of n rows."""
    return int(max(20, min(SIMULATIONS, NUMBERS // n)))


def standardised(fit: GeneralisedFit, y: Array) -> Array:
    """(n,) or (s, n) responses less their mean, over their sd; prior weights do not count."""
    d, eta = fit.design, fit._eta[1]
    first, second = fit._parameters
    observed = y if d.trials is None else y / d.trials
    return np.asarray((observed - fit._mean(eta, first, second)) / np.sqrt(fit._variance(eta, first, second)))


def effective(fit: GeneralisedFit) -> float:
    """Trace of the hat matrix of the linear model in the working response."""
    rows, groups = fit.engine.blocks.rows, fit.engine.blocks.groups
    root = np.ones(fit.engine.blocks.n) if rows.weights is None else np.sqrt(rows.weights)
    entries = []
    for f, (codes, z) in enumerate(zip(rows.codes, rows.z, strict=True)):
        own = np.ones((len(root), 1)) if z is None else z
        entries.append(Entry(f, codes, root[:, None] * own))
    offsets = np.concatenate([[0], np.cumsum([g.levels * g.k for g in groups])]).astype(np.int64)
    return float(leverages(fit, Rows(root[:, None] * rows.x, tuple(entries), root, offsets, root, None)).sum())


def chance(observed: float, drawn: Array) -> float:
    """Two-sided p-value of a statistic among its simulated values."""
    above, below = np.sum(drawn >= observed), np.sum(drawn <= observed)
    return float(min(1.0, 2 * (1 + min(above, below)) / (1 + len(drawn))))


# -- the model itself -----------------------------------------------------------------------------------------


def singular(fit: GeneralisedFit) -> Check:
    """Whether a variance or correlation lies on its boundary."""
    names = fit.convergence.boundary
    if not names:
        return Check("singularity", OK, "Every variance is above zero and no correlation is exactly one.")
    return Check(
        "singularity",
        LOOK,
        f"On the boundary: {' and '.join(names)}. The estimate is valid, but these data do not support that much structure; "
        "leave the effect out, or its correlations with ||.",
    )


def separation(fit: GeneralisedFit) -> list[Check]:
    """Whether a predictor tells the outcomes apart (nearly) completely, so that its coefficient runs away."""
    if fit.family.name not in (*TRIALS, "ordinal"):
        return []
    if (text := uniform_groups(fit)) is not None:
        return [Check("separation", PROBLEM, text)]
    if not len(fit.optimum.beta):
        return []
    span, error = np.ptp(fit.design.X, axis=0), np.sqrt(np.diag(fit.optimum.vcov))
    size = np.abs(fit.optimum.beta) * span
    lost = (size > LARGE_EFFECT) & ~(np.abs(fit.optimum.beta) > 1.5 * error)
    if not lost.any():
        return [Check("separation", OK, "No predictor tells the outcomes apart completely.")]
    names = ", ".join(f"{fit.design.names[i]} ({fit.optimum.beta[i]:.3g})" for i in np.flatnonzero(lost))
    return [
        Check(
            "separation",
            PROBLEM,
            f"The coefficient of {names} is huge and its standard error as well: at some value of the predictor all outcomes "
            "are alike (separation), so that the estimate runs off to infinity. Merge levels or leave the predictor out; do "
            "not use its Wald test.",
        )
    ]


def uniform_groups(fit: GeneralisedFit) -> str | None:
    """What it means that (nearly) every level of a grouping factor has successes alone or failures alone.

    Levels with two trials or more count. Where there is no spread within levels, the likelihood hardly bounds their variance.
    Rare outcomes leave many levels without one anyway: more than half of them must be alike for another reason.
    """
    if fit.family.name not in TRIALS:
        return None
    d = fit.design
    trials = np.ones(len(d.y)) if d.trials is None else d.trials
    for term in d.terms:
        good, all_ = (np.bincount(term.codes, one, minlength=len(term.levels)) for one in (d.y, trials))
        told = all_ >= 2
        alike = int(np.sum(told & ((good == 0) | (good == all_))))
        count, share = int(told.sum()), float(good.sum() / all_.sum())
        by_chance = float(np.sum(share ** all_[told] + (1 - share) ** all_[told]))
        if count >= FEWEST_LEVELS and alike >= ALIKE * count and by_chance < count / 2:
            how = f"all {count}" if alike == count else f"{alike} of {count}"
            return (
                f"In {how} levels of {term.group} the outcomes are alike, only successes or only failures: the factor tells "
                "them apart (separation), so that the variance between its levels and the fixed effects are hardly bounded "
                "and their standard errors mean little. More data within levels, a model with a prior or penalty on the "
                f"variance (not in this library), or leaving {term.group} out would help."
            )
    return None


def predictors(fit: GeneralisedFit) -> Check:
    """Collinearity, which is judged from models with an intercept."""
    if fit.family.name == "ordinal":
        return Check("collinearity", SKIPPED, "Not judged: thresholds stand in place of an intercept.")
    return collinearity(fit)


# -- dispersion and zeros -------------------------------------------------------------------------------------


def dispersion(f: Facts) -> Check:
    """Sum of squared Pearson residuals over n less the effective parameters, against responses of the model."""
    name, family = "dispersion", f.fit.family
    trials = f.fit.design.trials
    if family.name == "ordinal" or (family.name in TRIALS and (trials is None or bool((trials <= 1).all()))):
        return Check(name, OK, "Single outcomes cannot vary more than their probability says: nothing to check.")
    if family.name not in (*COUNTS, *TRIALS):
        return Check(name, OK, f"The {family.dispersion} is estimated, so there is no dispersion left over to check.")
    assert f.pearson is not None
    n = len(f.pearson)
    if own := [t.group for t in f.fit.design.terms if len(t.levels) > 0.9 * n]:
        return Check(name, OK, f"The model has an effect of {own[0]} for (nearly) every row, which takes up any "
            f"overdispersion.")
    left = n - f.effective
    if not left > 0.1 * n:
        return Check(name, SKIPPED, "Not judged: the model has about as many effects as rows.")
    ratio, drawn = float(f.pearson @ f.pearson) / left, drawn_ratios(f.fit)
    p = chance(ratio, drawn)
    numbers = f"ratio {ratio:.2f}, {p_text(p)}"
    if p > 0.02 or 0.8 < ratio < 1.2:
        return Check(name, OK, f"The response varies as much as the {family.name} family says ({numbers}).")
    if ratio < 1:
        return Check(
            name, LOOK,
            f"The response varies less than the {family.name} family says ({numbers}). Standard errors are too large, tests "
            "are cautious.",
        )  # fmt: skip
    return Check(
        name,
        PROBLEM if ratio > 1.5 else LOOK,
        f"The response varies more than the {family.name} family says ({numbers}). Standard errors are too small by about "
        f"{np.sqrt(ratio):.1f} times. {_wider(f.fit)}",
    )


def drawn_ratios(fit: GeneralisedFit) -> Array:
    """Mean squared Pearson residual of each of the responses simulated given all group effects."""
    every = [t.group for t in fit.design.terms]
    simulated = draw_responses(fit, draws(len(fit.design.rows)), every, np.random.default_rng(SEED).spawn(2)[1])
    return np.asarray(np.mean(standardised(fit, simulated) ** 2, axis=1))


def _wider(fit: GeneralisedFit) -> str:
    name = fit.family.name
    if name == "poisson":
        return "Try family='nbinom2', a group effect for every row, or zi='~ 1' if it is the zeros."
    if name == "binomial":
        return "Try family='betabinomial', or a group effect for every row."
    return "Try dispersion='~ x' with a predictor, or another family."


def zeros(f: Facts) -> list[Check]:
    """Number of zeros against that in simulated responses; counts only."""
    family = f.fit.family
    if family.name not in COUNTS:
        return []
    observed, drawn = int(np.sum(f.fit.design.y == 0)), np.sum(f.simulated == 0, axis=1)
    expected, p = float(drawn.mean()), chance(float(observed), drawn)
    numbers = f"{observed:,} observed, {expected:.1f} expected, {p_text(p)}"
    ratio = observed / max(expected, 0.5)
    if p > 0.02 or 0.9 < ratio < 1.1:
        return [Check("zeros", OK, f"There are as many zeros as the model says ({numbers}).")]
    if ratio < 1:
        text = f"There are fewer zeros than the model says ({numbers}). A zero may be impossible, or a hurdle: hurdle='~ 1'."
        return [Check("zeros", LOOK, text)]
    advice = "zi='~ 1' or hurdle='~ 1'" if family.zero == "none" else "predictors in zi= or hurdle="
    wide = " A negative binomial family may be enough." if family.name == "poisson" else ""
    return [
        Check(
            "zeros",
            PROBLEM if ratio > 1.5 else LOOK,
            f"There are more zeros than the model says ({numbers}). Try {advice}.{wide}",
        )
    ]


# -- quantile residuals ---------------------------------------------------------------------------------------


def distribution(f: Facts) -> Check:
    """Skewness and tails of the quantile residuals."""
    skew, kurtosis, z_skew, z_kurtosis = shape(f.residuals)
    name = "distribution"
    numbers = f"quantile residuals: skewness {skew:.2f}, excess kurtosis {kurtosis:.2f}"
    skewed, heavy = abs(skew) > 0.4 and abs(z_skew) > 3.3, kurtosis > 1 and z_kurtosis > 5
    light = kurtosis < -0.7 and z_kurtosis < -4
    if not (skewed or heavy or light):
        return Check(name, OK, f"The response is distributed as the {f.fit.family.name} family says ({numbers}).")
    what = "skewed" if skewed else "heavier in the tails" if heavy else "flatter"
    bad = abs(skew) > 1.2 or kurtosis > 6
    return Check(
        name,
        PROBLEM if bad else LOOK,
        f"The response is {what} compared with the {f.fit.family.name} family ({numbers}). Try another family or link.",
    )


def outliers(f: Facts) -> Check:
    """Quantile residuals beyond 3.5; the largest against n normal draws (Bonferroni)."""
    from scipy.special import ndtr

    r, d = f.residuals, f.fit.design
    worst = np.argsort(-np.abs(r))[:5]
    p = min(1.0, len(r) * 2 * float(ndtr(-abs(r[worst[0]]))))
    if p > 0.001:
        text = f"No response is out of line (largest quantile residual {abs(r[worst[0]]):.1f})."
        return Check("outliers", OK, text)
    far = [i for i in worst if abs(r[i]) > 3.5]
    shown = ", ".join(f"{int(d.rows[i])} ({r[i]:+.1f})" for i in far)
    return Check(
        "outliers",
        PROBLEM if p < 1e-6 else LOOK,
        f"The model finds some responses next to impossible: row{'s' * (len(far) > 1)} {shown}, counting from 0 (quantile "
        "residual in sds). Check these values for mistakes; many of them mean a family with too little spread.",
    )


def curvature(f: Facts) -> Check:
    """Quadratic trend of the quantile residuals over the population's linear predictor."""
    eta, r = f.fit._eta[0], f.residuals
    name = "trend over fitted"
    if not varies(eta) or len(np.unique(eta)) < 4:
        return Check(name, OK, "Too few different fitted values for a trend.")
    z = (eta - eta.mean()) / eta.std()
    bend = z**2 - np.polyval(np.polyfit(z, z**2, 1), z)
    slope, t = trend(bend, r, f.clusters)
    p = two_sided(t)
    if p > 0.003 or abs(slope) < 0.1:
        return Check(name, OK, f"No bend of the residuals over the fitted values ({p_text(p)}).")
    return Check(
        name,
        PROBLEM if p < 1e-6 and abs(slope) > 0.3 else LOOK,
        f"Residuals bend over the fitted values ({p_text(p)}): the effect of a predictor is not straight on the scale of the "
        f"{f.fit.family.link} link. Try a polynomial or spline of it, an interaction, or another link.",
    )


def spread(f: Facts) -> Check:
    """Glejser's test: size of the quantile residual against the population's linear predictor."""
    eta, size = f.fit._eta[0], np.abs(f.residuals)
    if not varies(eta):
        return Check("spread over fitted", OK, "Too few different fitted values for a trend.")
    ratio, p = fifths(eta, size), two_sided(trend(eta, size, f.clusters)[1])
    wide = max(ratio, 1 / ratio if ratio > 0 else np.inf)
    name = "spread over fitted"
    if p > 0.003 or wide < 1.25:
        return Check(name, OK, f"The spread fits the family at small and large fitted values alike ({p_text(p)}).")
    where = "large" if ratio > 1 else "small"
    advice = " Let the dispersion vary: dispersion='~ x'." if f.fit.family.dispersion else " Try another family."
    return Check(
        name,
        PROBLEM if p < 1e-6 and wide > 1.75 else LOOK,
        f"Residuals spread {wide:.1f} times as wide at {where} fitted values as the family says ({p_text(p)}).{advice}",
    )
