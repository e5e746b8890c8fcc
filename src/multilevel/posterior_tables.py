"""Tables of a posterior, and its printed summary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import chain_diagnostics as chains
from .independent import GOOD_ESS, GOOD_K, may_be_trusted
from .tables import Block, clean, effect_name, fixed_point, numbers

if TYPE_CHECKING:
    from .posterior import Posterior

Array = NDArray[np.float64]

DIAGNOSED = 400  # effects of groups whose R-hat goes into the verdict; more are a sample of them
GOOD_R_HAT = 1.01
GOOD_BFMI = 0.3


def columns(x: Array, level: float, diagnose: bool = True, most: Array | float = np.inf) -> dict[str, Array]:
    """Estimates of (chains, draws, m) values: mean, sd, interval and, on request, convergence.

    `most` is what they are worth at most, from `worth`, one number or (m,).
    """
    flat = x.reshape(-1, *x.shape[2:])
    low, high = np.quantile(flat, [(1 - level) / 2, (1 + level) / 2], axis=0)
    out = {"estimate": flat.mean(axis=0), "est_error": flat.std(axis=0, ddof=1), "ci_low": low, "ci_high": high}
    if diagnose:
        bulk, tail = np.minimum(chains.ess_bulk(x), most), np.minimum(chains.ess_tail(x), most)
        out |= {"rhat": chains.r_hat(x), "ess_bulk": bulk, "ess_tail": tail}
    return out


def worth(posterior: Posterior, coefficients: bool) -> float:
    """Largest effective sample size of coefficients, or of parameters.

    Draws by importance sampling come in random order, and do not show how often proposals are repeated. Coefficients of
    linear models are drawn afresh given the parameters.
    """
    kept = posterior.draws_kept
    if kept.method != "independent":
        return float("inf")
    total = kept.chains * kept.draws
    afresh = posterior.model.distribution is None and float(kept.facts.get("proposals", total)) >= total
    return float("inf") if coefficients and afresh else float(kept.facts["effective"])


def fixef(posterior: Posterior, level: float) -> dict[str, Any]:
    """Columns of `Posterior.fixef`."""
    names = np.array(posterior.design.names, dtype=object)
    return {"term": names, **columns(posterior.draws_kept.beta, level, most=worth(posterior, True))}


def parameters(posterior: Posterior, level: float) -> dict[str, Any]:
    """Columns of `Posterior.parameters`: sds, correlations, sigma."""
    kept = posterior.draws_kept
    names = np.array([c.name for c in kept.coordinates], dtype=object)
    return {"parameter": names, **columns(kept.scalars, level, most=worth(posterior, False))}


def ranef(posterior: Posterior, level: float) -> dict[str, Any]:
    """Columns of `Posterior.ranef`."""
    out: dict[str, list[Any]] = {}
    for t, term in enumerate(posterior.design.terms):
        levels, k = len(term.levels), len(term.names)
        own = posterior.group_effects(t)
        values = np.moveaxis(own, 3, 2).reshape(*own.shape[:2], k * levels)
        part: dict[str, Any] = {
            "group": np.repeat(np.array([term.group], dtype=object), levels * k),
            "level": np.tile(np.asarray(term.levels, dtype=object), k),
            "term": np.repeat(np.array(term.names, dtype=object), levels),
            **columns(values, level, diagnose=False),
        }
        for name, column in part.items():
            out.setdefault(name, []).append(column)
    return {name: np.concatenate(v) for name, v in out.items()}


def coef(posterior: Posterior, level: float) -> dict[str, Any]:
    """Columns of `Posterior.coef`: fixed effect plus group effect, per level."""
    d, beta = posterior.design, posterior.draws_kept.beta
    out: dict[str, list[Any]] = {}
    for group in dict.fromkeys(t.group for t in d.terms):
        terms = [(t, term) for t, term in enumerate(d.terms) if term.group == group]
        random = {n: posterior.group_effects(t)[..., i] for t, term in terms for i, n in enumerate(term.names)}
        levels = np.asarray(terms[0][1].levels, dtype=object)
        for name in [*d.names, *(n for n in random if n not in d.names)]:
            values = np.zeros((*beta.shape[:2], len(levels)))
            if name in d.names:
                values = values + beta[..., d.names.index(name), None]
            values = values + random.get(name, 0.0)
            part: dict[str, Any] = {
                "group": np.repeat(np.array([group], dtype=object), len(levels)),
                "level": levels,
                "term": np.repeat(np.array([name], dtype=object), len(levels)),
                **columns(values, level, diagnose=False),
            }
            for key, column in part.items():
                out.setdefault(key, []).append(column)
    return {name: np.concatenate(v) for name, v in out.items()}


# -- may it be trusted ----------------------------------------------------------------------------------------


def verdict(posterior: Posterior) -> tuple[bool, str]:
    """Whether the draws may be trusted, and one sentence on it."""
    kept = posterior.draws_kept
    total = kept.chains * kept.draws
    if not all(_finite(one) for one in (kept.scalars, kept.beta, *kept.b)):
        return False, "Do not trust these draws: some of them are no numbers; sample again, with tighter priors."
    if kept.method in ("exact", "independent"):
        return _verdict_of_independent(posterior, total)
    worst, least = _worst(posterior)
    diverging = int(kept.stats["diverging"].sum()) if "diverging" in kept.stats else 0
    bfmi = float(chains.e_bfmi(kept.stats["energy"]).min()) if "energy" in kept.stats else 1.0
    return verdict_of_chains(worst, least, diverging, bfmi, "raise target= (0.95) or give tighter priors to sds")


def verdict_of_chains(worst: float, least: float, diverging: int, bfmi: float, cure: str) -> tuple[bool, str]:
    """The same from the largest R-hat, least effective sample size, divergent transitions and least E-BFMI.

    Parameters
    ----------
    cure : str
        What to do about divergent transitions.
    """
    problems = []
    if not worst <= GOOD_R_HAT:
        problems.append(
            f"R-hat reaches {worst:.3f} (good up to {GOOD_R_HAT}): the chains disagree; take more warmup and draws"
        )
    if diverging:
        problems.append(
            f"{diverging} divergent transition{'s' * (diverging > 1)}: the sampler could not follow the posterior; {cure}"
        )
    if not least >= GOOD_ESS:
        problems.append(f"the least effective sample size is {least:.0f} (good from {GOOD_ESS:.0f}); take more draws")
    if bfmi < GOOD_BFMI:
        problems.append(f"E-BFMI is {bfmi:.2f} (good from {GOOD_BFMI}): tails are explored slowly; take more draws")
    if problems:
        return False, "Do not trust these draws yet: " + "; ".join(problems) + "."
    return True, (
        f"The draws may be trusted: largest R-hat {worst:.3f}, effective sample sizes from {least:.0f}, no divergences, "
        f"E-BFMI {bfmi:.2f}."
    )


def _shown(k: float) -> str:
    """Pareto k to two digits, or to as many as tell it from what is still good."""
    texts = (f"{k:.{digits}f}" for digits in range(2, 9))
    return next((text for text in texts if (float(text) < GOOD_K) == (k < GOOD_K)), repr(k))


def _verdict_of_independent(posterior: Posterior, total: int) -> tuple[bool, str]:
    kept = posterior.draws_kept
    if kept.method == "exact":
        return True, f"The draws may be trusted: {total} independent draws from the exact posterior."
    k, effective = float(kept.facts["pareto_k"]), float(kept.facts["effective"])
    if kept.facts.get("stopped"):
        return False, (
            f"Do not trust these draws: importance sampling was stopped early, after {kept.facts['proposals']} proposals; "
            f"Pareto k {_shown(k)} (good below {GOOD_K}), worth {effective:.0f} of {total}."
        )
    if may_be_trusted(k, effective, total, int(kept.facts.get("proposals", total))):
        return True, (
            f"The draws may be trusted: by importance sampling, Pareto k {_shown(k)} (good below {GOOD_K}), worth "
            f"{effective:.0f} of {total}."
        )
    return False, (
        f"Do not trust these draws: importance sampling, Pareto k {_shown(k)} (good below {GOOD_K}), worth "
        f"{effective:.0f} of {total}; sample with method='nuts'."
    )


def _finite(x: Array) -> bool:
    return x.size == 0 or bool(np.isfinite(x.min()) and np.isfinite(x.max()))


def _worst(posterior: Posterior) -> tuple[float, float]:
    """Largest R-hat and least effective sample size (bulk or tail) of parameters, coefficients, group effects."""
    kept = posterior.draws_kept
    parts = [kept.scalars, kept.beta]
    for b in kept.b:
        flat = b.reshape(*b.shape[:2], -1)
        step = max(1, flat.shape[2] * len(kept.b) // DIAGNOSED)
        parts.append(flat[:, :, ::step])
    x = np.concatenate(parts, axis=2)
    r, bulk, tail = chains.r_hat(x), chains.ess_bulk(x), chains.ess_tail(x)
    if np.isnan(r).all():
        return 1.0, float("inf")
    worth = np.concatenate([bulk, tail])
    known = worth[np.isfinite(worth)]  # none, of a handful of draws
    return float(np.nanmax(r)), float(known.min()) if len(known) else float("nan")


# -- the printed posterior -------------------------------------------------------------------------------------


def summary_blocks(posterior: Posterior, level: float = 0.95) -> list[Block]:
    """What the summary shows."""
    kept = posterior.draws_kept
    total = kept.chains * kept.draws
    how = {
        "exact": "drawn exactly",
        "independent": "quasi-Monte Carlo importance sampling",
        "nuts": "no-U-turn sampler",
    }[kept.method]
    notes = [f"Formula: {' '.join(clean(posterior.formula).split())}"]
    residual = posterior.model.residual
    if residual is not None:
        held = "" if all(s.covariate for s in residual.spreads) else " (fitted values: those of the REML fit)"
        notes.append(f"Residual: {', '.join(clean(text) for text in residual.texts())}{held}")
    notes.append(f"Draws: {total} in {kept.chains} chains, {how}")
    family = posterior.model.distribution
    title = "Linear mixed model, posterior"
    if family is not None:
        title = "Generalized linear mixed model, posterior"
        notes.insert(0, f"Family: {family.name} ({family.link})")
    out = [Block(title, notes=tuple(notes))]
    table = parameters(posterior, level)
    fixed = {e.name for e in posterior.entries if type(e.prior).__name__ == "Fixed"}
    counts = {t.group: len(t.levels) for t in posterior.design.terms}
    sizes = "; ".join(f"{clean(g)}, {n}" for g, n in counts.items())
    observed = [f"Number of obs: {posterior.nobs}" + (f", groups:  {sizes}" if sizes else ""), *_scales(posterior)]
    labels = [f"{c.name}{' (fixed)' if c.name in fixed else ''}" for c in kept.coordinates]
    out.append(_table("Standard deviations and correlations:", labels, table, level, tuple(observed)))
    if posterior.design.names:
        names = [effect_name(n) for n in posterior.design.names]
        out.append(_table("Coefficients:", names, fixef(posterior, level), level, ()))
    out.append(Block("", notes=(posterior.trust[1], *posterior.design.messages)))
    return out


def _scales(posterior: Posterior) -> list[str]:
    """On which scale the coefficients of dispersion and of extra zeros stand, if there are any."""
    family = posterior.model.distribution
    names = [c.name for c in posterior.draws_kept.coordinates if c.kind == "further" and c.name.endswith("]")]
    if family is None or family.name == "ordinal" or not names:
        return []
    scales = {str(family.dispersion): "log", "zi": "logit", "df": "log of df - 1", "power": "scaled logit of the power"}
    present = dict.fromkeys(name.split("[")[0] for name in names)
    return ["Scales: " + ", ".join(f"{name}[...] {scales[name]}" for name in present if name in scales)]


def _table(title: str, labels: list[str], table: dict[str, Any], level: float, notes: tuple[str, ...]) -> Block:
    percent = f"{100 * level:g} %"
    header = ("", "Estimate", "Est.Error", f"l-{percent} CI", f"u-{percent} CI", "R-hat", "Bulk ESS", "Tail ESS")
    m = len(labels)
    joint = numbers([*table["estimate"], *table["est_error"], *table["ci_low"], *table["ci_high"]], 4)
    cells = [
        [clean(v) for v in labels],
        *(joint[i * m : (i + 1) * m] for i in range(4)),
        ["" if np.isnan(v) else text for v, text in zip(table["rhat"], fixed_point(table["rhat"], 3), strict=True)],
        ["" if np.isnan(v) else f"{v:.0f}" for v in table["ess_bulk"]],
        ["" if np.isnan(v) else f"{v:.0f}" for v in table["ess_tail"]],
    ]
    return Block(title, header, tuple(zip(*cells, strict=True)), "lrrrrrrr", notes)
