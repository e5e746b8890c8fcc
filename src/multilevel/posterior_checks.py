"""Checks of a posterior: of its draws, of the model against the data, of the priors against both.

As the checks of a fit (`checks`), each alarms where a departure is both clearer than chance and large enough to matter.
Posterior predictive p-values compare a statistic of the response with that of responses drawn given the group effects; they
are cautious, for the same data have made the posterior.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .checks import FEW_GROUPS, LOOK, OK, PROBLEM, SKIPPED, Check, Checks, missing
from .families import COUNTS, TRIALS
from .generalised_checks import chance
from .posterior_residuals import expectation, quantile_residuals, serial
from .posterior_values import Parameter, parameters, prior_draws
from .priors import Gamma, InverseGamma, LogNormal
from .residual_checks import fifths, p_text, shape, slope_test, two_sided
from .row_draws import _kept_groups, new_responses

if TYPE_CHECKING:
    from .loo import Loo
    from .posterior import Posterior

__all__ = ["Comparison", "check", "comparisons", "leave_one_out", "simulated"]

Array = NDArray[np.float64]

SEED = 0
SIMULATIONS = 1000
NUMBERS = 2e7  # simulated responses at most
LOO_ROWS, LOO_NUMBERS = 10_000, 4e7  # rows, and log densities (draws times rows), up to which rows are left out
LARGEST_K, MANY_ROWS = 1.0, 0.05  # Pareto k, and share of rows above the good one, that models that are right may have
PRIOR_DRAWS = 100_000
FAR = 0.00135  # of the prior beyond the posterior mean: that of a normal prior beyond 3 sds
DOMINANT = 0.9  # posterior sd over prior sd from which the data said little
SIDED = 2.8  # standard errors of the mean of a term's effects from zero: two in a thousand by chance
SHIFT, RATIO = 0.05, 1.1  # least misfit of a mean (in sds of the response) and of a sd or share that matters


def check(posterior: Posterior) -> Checks:
    """All checks of a posterior; see `Posterior.check`."""
    posterior.rows_of_data()
    _kept_groups(posterior)
    compared = comparisons(posterior)
    rows = [
        sampling(posterior),
        *predictive(posterior),
        *of_residuals(posterior),
        left_out(posterior),
        conflict(compared),
        *one_sided(posterior),
        dominance(compared),
        group_counts(posterior),
        missing(_as_fit(posterior)),
    ]
    return Checks(tuple(rows), posterior.design.kind)


def _as_fit(posterior: Posterior) -> Any:
    """For functions of fits that read the design alone."""
    return posterior


def _family(posterior: Posterior) -> str:
    return posterior.model.family


# -- draws ------------------------------------------------------------------------------------------------------


def sampling(posterior: Posterior) -> Check:
    """Whether the draws may be trusted, as the summary says it."""
    good, sentence = posterior.trust
    return Check("sampling", OK if good else PROBLEM, sentence)


# -- responses of the model -------------------------------------------------------------------------------------


def simulated(posterior: Posterior) -> Array:
    """(s, rows used) responses, each from a draw of its own, given the group effects."""
    kept = posterior.draws_kept
    count = int(max(100, min(SIMULATIONS, NUMBERS // max(len(posterior.design.rows), 1))))
    step = max(1, kept.chains * kept.draws // count)
    some = replace(kept, scalars=kept.scalars[:, ::step], beta=kept.beta[:, ::step], b=[b[:, ::step] for b in kept.b])
    few = type(posterior)(posterior.model, some, posterior.entries)
    (rng,) = np.random.default_rng(SEED).spawn(1)
    return new_responses(few, rng).reshape(-1, len(posterior.design.rows))


def predictive(posterior: Posterior) -> list[Check]:
    """Statistics of the response against those of simulated responses."""
    d, name = posterior.design, _family(posterior)
    y, drawn = np.asarray(d.y, dtype=np.float64), simulated(posterior)
    if name == "ordinal":
        return [_categories(posterior, y, drawn)]
    out = [_mean(y, drawn)]
    single = name in TRIALS and (d.trials is None or bool((d.trials <= 1).all()))
    if single:
        return out
    out.append(_ratio("predictive sd", "sd of the response", float(y.std()), drawn.std(axis=1), _wider(posterior)))
    if name in (*COUNTS, *TRIALS, "tweedie"):
        few = "zeros" if name not in TRIALS else "rows without a success"
        advice = "Try zi='~ 1' or hurdle='~ 1'." if name in COUNTS else "Try a predictor or group effect that tells them."
        out.append(_ratio("predictive zeros", f"number of {few}", float((y == 0).sum()), (drawn == 0).sum(axis=1), advice))
    ends: list[tuple[str, Callable[..., Any]]] = [("largest", np.max)]
    if name not in (*COUNTS, *TRIALS, "tweedie"):
        ends.append(("smallest", np.min))
    return out + [_end(word, float(f(y)), np.asarray(f(drawn, axis=1)), float(y.std())) for word, f in ends]


def _rare(p: float, drawn: Array, level: float = 0.01) -> bool:
    """Whether a p-value among simulated values is below a level, or as small as so few can make it."""
    return p <= max(level, 2.001 / (1 + len(drawn)))


def _mean(y: Array, drawn: Array) -> Check:
    observed, values = float(y.mean()), drawn.mean(axis=1)
    p, off = chance(observed, values), abs(observed - float(values.mean())) / (float(y.std()) or 1.0)
    numbers = f"{observed:.4g} observed, {values.mean():.4g} simulated, {p_text(p)}"
    if not _rare(p, values) or off < SHIFT:
        return Check("predictive mean", OK, f"The model makes responses of the right mean ({numbers}).")
    return Check(
        "predictive mean", PROBLEM if _rare(p, values, 0.003) and off > 4 * SHIFT else LOOK,
        f"The model makes responses of another mean ({numbers}): a prior may hold the coefficients away from the data, or "
        "the family or link is wrong.",
    )  # fmt: skip


def _ratio(name: str, what: str, observed: float, values: Array, advice: str) -> Check:
    p, expected = chance(observed, values), float(values.mean())
    numbers = f"{observed:.4g} observed, {expected:.4g} simulated, {p_text(p)}"
    ratio = max(observed, 0.5 if "zeros" in name else 0.0) / max(expected, 0.5 if "zeros" in name else 1e-300)
    if not _rare(p, values) or 1 / RATIO < ratio < RATIO:
        return Check(name, OK, f"The {what} is one that the model makes ({numbers}).")
    word = "larger" if ratio > 1 else "smaller"
    bad = _rare(p, values, 0.003) and max(ratio, 1 / max(ratio, 1e-300)) > 1.5
    tail = f" {advice}" if ratio > 1 else ""
    return Check(
        name, PROBLEM if bad else LOOK,
        f"The {what} is {word} than the model makes it ({numbers}).{tail}",
    )  # fmt: skip


def _wider(posterior: Posterior) -> str:
    name = _family(posterior)
    if name == "poisson":
        return "Try family='nbinom2', or a group effect for every row."
    if name == "binomial":
        return "Try family='betabinomial', or a group effect for every row."
    return "Look for predictors, or a prior that holds the residual spread too small."


def _end(word: str, observed: float, values: Array, size: float) -> Check:
    p, expected = chance(observed, values), float(np.median(values))
    name = f"predictive {'max' if word == 'largest' else 'min'}"
    numbers = f"{observed:.4g} observed, {expected:.4g} in the middle of those simulated, {p_text(p)}"
    if not _rare(p, values) or abs(observed - expected) < 0.5 * size:
        return Check(name, OK, f"The {word} response is one that the model makes ({numbers}).")
    beyond = (observed > expected) == (word == "largest")
    what = "farther out" if beyond else "less far out"
    advice = (
        "look for mistakes in the data, or try a family with heavier tails"
        if beyond
        else "the response may have a bound that the family does not know, which matters for new rows near it"
    )
    return Check(name, LOOK, f"The {word} response lies {what} than the model makes it ({numbers}); {advice}.")


def _categories(posterior: Posterior, y: Array, drawn: Array) -> Check:
    labels, name = posterior.design.labels, "predictive shares"
    observed = np.array([(y == i).mean() for i in range(len(labels))])
    shares = np.stack([(drawn == i).mean(axis=1) for i in range(len(labels))])
    p = np.minimum(1.0, len(labels) * np.array([chance(o, v) for o, v in zip(observed.tolist(), shares, strict=True)]))
    worst = int(np.argmin(p))
    numbers = (
        f"{labels[worst]}: {observed[worst]:.1%} observed, {shares[worst].mean():.1%} simulated, {p_text(float(p[worst]))}"
    )
    if p[worst] > 0.02:
        return Check(name, OK, f"Categories occur as often as the model says (least alike {numbers}).")
    text = f"Categories do not occur as often as the model says ({numbers}); try another link, or other priors of thresholds."
    return Check(name, LOOK, text)


# -- residuals --------------------------------------------------------------------------------------------------


def of_residuals(posterior: Posterior) -> list[Check]:
    """Checks of the quantile residuals, where there are any."""
    if serial(posterior):
        text = "Not judged: quantile residuals take no serial correlation; model.fit().check() has others."
        return [Check("distribution", SKIPPED, text)]
    r = quantile_residuals(posterior, SEED)
    return [distribution(posterior, r), outliers(posterior, r), *spread(posterior, r)]


def distribution(posterior: Posterior, r: Array) -> Check:
    """Skewness and tails of the quantile residuals, with the thresholds of the checks of fits."""
    skew, kurtosis, z_skew, z_kurtosis = shape(r)
    name, family = "distribution", _family(posterior)
    numbers = f"quantile residuals: skewness {skew:.2f}, excess kurtosis {kurtosis:.2f}"
    skewed, heavy = abs(skew) > 0.4 and abs(z_skew) > 3.3, kurtosis > 1 and z_kurtosis > 5
    light = kurtosis < -0.7 and z_kurtosis < -4
    if not (skewed or heavy or light):
        return Check(name, OK, f"The response is distributed as the {family} family says ({numbers}).")
    what = "skewed" if skewed else "heavier in the tails" if heavy else "flatter"
    advice = "Try family='student'" if heavy and family == "gaussian" and not skewed else "Try another family or link"
    if family == "gaussian" and skew > 0 and skewed:
        advice = "Try the logarithm of the response, or a family for positive numbers"
    return Check(
        name, PROBLEM if abs(skew) > 1.2 or kurtosis > 6 else LOOK,
        f"The response is {what} compared with the {family} family ({numbers}). {advice}.",
    )  # fmt: skip


def outliers(posterior: Posterior, r: Array) -> Check:
    """The largest quantile residual against n normal draws (Bonferroni)."""
    from scipy.special import ndtr

    worst = np.argsort(-np.abs(r), kind="stable")[:5]
    p = min(1.0, len(r) * 2 * float(ndtr(-abs(r[worst[0]]))))
    if p > 0.001:
        return Check("outliers", OK, f"No response is out of line (largest quantile residual {abs(r[worst[0]]):.1f}).")
    far = [i for i in worst if abs(r[i]) > 3.5]
    shown = ", ".join(f"{int(posterior.design.rows[i])} ({r[i]:+.1f})" for i in far)
    return Check(
        "outliers", PROBLEM if p < 1e-6 else LOOK,
        f"The model finds some responses next to impossible: row{'s' * (len(far) > 1)} {shown}, counting from 0 (quantile "
        "residual in sds). Check these values for mistakes; many of them mean a family with too little spread.",
    )  # fmt: skip


def spread(posterior: Posterior, r: Array) -> list[Check]:
    """Glejser's test: size of the residual against the expected response."""
    if _family(posterior) == "ordinal":
        return []
    fitted = expectation(posterior)
    _, t = slope_test(fitted, np.abs(r))
    ratio, p, name = fifths(fitted, np.abs(r)), two_sided(t), "spread over fitted"
    wide = max(ratio, 1 / ratio if ratio > 0 else np.inf)
    if p > 0.003 or wide < 1.25:
        how = "hardly changes" if wide < 1.25 else "does not clearly change"
        return [Check(name, OK, f"Spread of the quantile residuals {how} with the fitted values ({p_text(p)}).")]
    where = "large" if ratio > 1 else "small"
    known = posterior.model.distribution is not None and posterior.model.distribution.dispersion is not None
    advice = "Let the dispersion depend on a predictor: dispersion='~ x'." if known else (
        "Try the logarithm of the response, or a family whose variance grows with its mean."
        if _family(posterior) == "gaussian" and ratio > 1
        else "Try another family."
    )
    return [Check(
        name, PROBLEM if p < 1e-5 and wide > 1.75 else LOOK,
        f"Quantile residuals spread {wide:.1f} times as wide at {where} fitted values ({p_text(p)}): intervals of new rows "
        f"are too short there and too long elsewhere. {advice}",
    )]  # fmt: skip


# -- rows left out ----------------------------------------------------------------------------------------------


def leave_one_out(posterior: Posterior) -> Loo | None:
    """Rows left out one by one; None where that takes long."""
    kept = posterior.draws_kept
    n = len(posterior.design.rows)
    if n > LOO_ROWS or float(kept.chains * kept.draws) * n > LOO_NUMBERS:
        return None
    return posterior.loo()


def left_out(posterior: Posterior) -> Check:
    """Pareto k of the rows left out one by one (Vehtari, Gelman & Gabry 2017)."""
    from .loo import GOOD_K

    found, name = leave_one_out(posterior), "leave-one-out"
    if found is None:
        return Check(name, SKIPPED, f"Not tried for {posterior.nobs:,} rows, because it takes long; posterior.loo() does it.")
    k = found.pareto_k
    bad = np.flatnonzero(~(k <= GOOD_K))
    if not len(bad):
        return Check(name, OK, f"No row has much say by itself (largest Pareto k {k.max():.2f}, good up to {GOOD_K}).")
    worst = bad[np.argsort(-k[bad], kind="stable")][:5]
    shown = ", ".join(f"{int(posterior.design.rows[i])} ({k[i]:.2f})" for i in worst)
    more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
    numbers = f"{len(bad)} of {len(k):,} rows have a Pareto k above {GOOD_K}: row{'s' * (len(bad) > 1)} {shown}{more}"
    if k.max() <= LARGEST_K and len(bad) <= MANY_ROWS * len(k):
        return Check(name, OK, f"{numbers}, counting from 0. So few are usual; posterior.loo() is rough for them.")
    return Check(
        name, LOOK,
        f"{numbers}, counting from 0. The posterior without them would be another: they are outliers, or groups have few "
        "rows; posterior.loo() is not to be trusted for them.",
    )  # fmt: skip


# -- priors -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """A parameter's posterior beside its prior.

    Attributes
    ----------
    name : str
    shift : float
        Posterior mean less the prior's median, in its sds.
    ratio : float
        Sd of the posterior over that of the prior. Both sds are half the width of the central 68.27 percent, which is the
        sd of a normal distribution and exists for every one.
    low, high : float
        Ends of the posterior's central 95 percent, as `shift`.
    tail : float
        Share of the prior beyond the posterior mean, on the side that counts.
    """

    name: str
    shift: float
    ratio: float
    low: float
    high: float
    tail: float


def comparisons(posterior: Posterior) -> list[Comparison]:
    """All parameters that have a proper prior and are not held."""
    rng = np.random.default_rng(SEED)
    out = []
    for p in parameters(posterior):
        if p.held or (prior := prior_draws(posterior, p, PRIOR_DRAWS, rng)) is None:
            continue
        first, middle, last = np.quantile(prior, [0.15865, 0.5, 0.84135])
        sd, mean = (last - first) / 2, float(p.flat.mean())
        own = np.quantile(p.flat, [0.15865, 0.84135])
        low, high = (np.quantile(p.flat, [0.025, 0.975]) - middle) / sd
        shift, ratio = (mean - middle) / sd, (own[1] - own[0]) / 2 / sd
        out.append(Comparison(p.name, float(shift), float(ratio), float(low), float(high), _tail(p, prior, mean)))
    return out


def _tail(p: Parameter, prior: Array, mean: float) -> float:
    """Share of the prior beyond a value; below it only for priors that keep away from the lower end of the range.

    A small standard deviation is not against a prior that is largest at zero.
    """
    above = float((prior > mean).mean())
    assert p.entry is not None
    if p.kind in ("sd", "sigma") and not isinstance(p.entry.prior, (Gamma, InverseGamma, LogNormal)):
        return above
    return min(above, float((prior < mean).mean()))


def conflict(compared: list[Comparison]) -> Check:
    """Posterior means in the tails of their priors: the data and the prior contradict each other."""
    name = "prior and data"
    far = sorted((c for c in compared if c.tail < FAR), key=lambda c: -abs(c.shift))
    if not compared:
        return Check(name, OK, "No parameter has a proper prior that the data could contradict.")
    if not far:
        return Check(name, OK, "No posterior lies in the tail of its prior.")
    shown = ", ".join(f"{c.name} ({c.shift:+.1f} prior sds from its middle)" for c in far[:5])
    more = f" and {len(far) - 5} more" if len(far) > 5 else ""
    return Check(
        name, PROBLEM if max(abs(c.shift) for c in far) > 6 else LOOK,
        f"The data contradict the prior of {shown}{more}: the posterior lies where the prior held nearly nothing. Check the "
        "units of the prior and of the data; if both are right the posterior is a compromise that neither supports.",
    )  # fmt: skip


def one_sided(posterior: Posterior) -> list[Check]:
    """Whether group effects lie to one side of zero: a prior holds the coefficient away from where the groups are.

    Under the model the mean of J effects over their sd has the sd 1 / sqrt(J), in every draw.
    """
    from .posterior_predict import flat

    out, d = [], posterior.design
    for t, term in enumerate(d.terms):
        if d.known.get(term.group) is not None:
            continue
        sd = np.sqrt(np.einsum("sii->si", flat(posterior.covariances(t))))
        means = flat(posterior.group_effects(t)).mean(axis=1) / sd
        z = np.sqrt(len(term.levels)) * means.mean(axis=0)
        for i in np.flatnonzero(np.abs(z) > SIDED).tolist():
            side, name = "above" if z[i] > 0 else "below", term.names[i]
            cause = f"the prior of {name} holds it away from where the groups are" if name in d.names else (
                f"the model has no coefficient of {name} for all groups, which they seem to share"
            )
            out.append(Check(
                f"effects of {term.group}", PROBLEM if abs(z[i]) > 5 else LOOK,
                f"Effects of {term.group} on {name} lie {side} zero as a whole, by {abs(z[i]):.1f} standard errors: {cause}, "
                "so that the variance between groups stands in for it.",
            ))  # fmt: skip
    if d.terms and not out:
        return [Check("group effects", OK, "Effects of groups lie around zero, as differences from the population should.")]
    return out


def dominance(compared: list[Comparison]) -> Check:
    """Posteriors about as wide as their priors: the data said little."""
    name = "data over prior"
    same = [c for c in compared if c.ratio >= DOMINANT and not c.tail < FAR]
    if not same:
        return Check(name, OK, "The data have narrowed the prior of every parameter.")
    shown = ", ".join(f"{c.name} (sd {c.ratio:.2f} of the prior's)" for c in same[:5])
    more = f" and {len(same) - 5} more" if len(same) > 5 else ""
    return Check(
        name, LOOK,
        f"The data said little about {shown}{more}: what is said of {'it' if len(same) == 1 else 'them'} is the prior. "
        "Report the prior with it, or leave the parameter out.",
    )  # fmt: skip


def group_counts(posterior: Posterior) -> Check:
    """Grouping factors with so few levels that the prior of their sd has much say."""
    counts = {t.group: len(t.levels) for t in posterior.design.terms}
    few = {g: count for g, count in counts.items() if count < FEW_GROUPS}
    if not counts:
        return Check("number of groups", OK, "The model has no groups.")
    if not few:
        shown = ", ".join(f"{g} {count}" for g, count in counts.items())
        return Check("number of groups", OK, f"Levels: {shown}; enough to learn variances between them.")
    names = " and ".join(f"{g} ({count} levels)" for g, count in few.items())
    return Check(
        "number of groups", LOOK,
        f"{names}: so few groups say little about the variance between them, so that its prior has much say. Try another "
        "prior of the sd and see what changes.",
    )  # fmt: skip
