"""What a report says of trust: the table of checks, convergence or sampling, and what to be careful about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .cli_files import records
from .errors import MultilevelError
from .report_data import group_sizes, has_rows
from .report_html import Cell, bullets, definitions, escape, number, paragraph, table
from .report_origin import method_text

if TYPE_CHECKING:
    from .checks import Checks
    from .fit import Fit
    from .posterior import Posterior

__all__ = ["Trust", "care_section", "cautions", "checks_section", "evidence_section", "trust"]

FEW = 5  # levels; FEWER_THAN_GOOD and more are enough not to be named
FEWER_THAN_GOOD = 10
UNEQUAL = 10  # times as many rows in the largest group as in the smallest
STEEP = 3.0  # change of the logit over one sd of a predictor: odds times 20
LOGISTIC_SD = 1.8  # of the logistic distribution, against one of the normal
NAMED = (
    "convergence",
    "singularity",
    "sampling",
    "number of groups",
    "missing rows",
)  # said in other words among cautions


class Trust:
    """The checks of a model, or why there are none; whether its numbers may be used, with the sentence."""

    def __init__(self, checks: Checks | None, why: str, good: bool, sentence: str) -> None:
        self.checks, self.why, self.good, self.sentence = checks, why, good, sentence

    def of(self, verdict: str) -> int:
        return sum(one.verdict == verdict for one in self.checks or ())


def trust(source: Fit | Posterior) -> Trust:
    """Made once for a report; needs the rows for the checks."""
    from .posterior import Posterior

    good, sentence = (
        source.trust if isinstance(source, Posterior) else (source.convergence.converged, source.convergence.sentence)
    )
    try:
        return Trust(source.check(), "", good, sentence)
    except MultilevelError as error:
        return Trust(None, str(error), good, sentence)


def checks_section(found: Trust) -> str:
    if found.checks is None:
        return paragraph(f"The checks could not be made: {escape(found.why)}.".replace("..", "."))
    rows: list[list[Any]] = [
        [one.name, Cell(escape(one.verdict), style=f"verdict {one.verdict}"), one.sentence] for one in found.checks
    ]
    words = (
        "Each line is one assumption: “ok” has nothing against it in these data, “look” is worth a look at "
        "the picture or the rows "
        "named, “problem” changes what may be concluded. Row numbers count from 0."
    )
    return paragraph(words) + table("Checks of the model", ("check", "verdict", "what was found"), rows)


# -- evidence ---------------------------------------------------------------------------------------------------


def evidence_section(source: Fit | Posterior, found: Trust) -> str:
    """Why the numbers are the model's: the optimum of a fit, the sampler of a posterior."""
    from .posterior import Posterior

    parts = [paragraph(f"<strong>{escape(found.sentence)}</strong>")]
    parts += [_sampling(source)] if isinstance(source, Posterior) else [_optimum(source)]
    return "\n".join(parts)


def _optimum(fit: Fit) -> str:
    c = fit.convergence
    restricted = fit.reml and not fit.generalised
    how = "exact" if c.exact_hessian else "average information, its weakest direction checked"
    pairs = [
        ("Criterion", escape(method_text(fit))),
        ("−2 restricted log-likelihood" if restricted else "−2 log-likelihood", number(fit.criterion, 8)),
        ("Largest derivative left", number(c.gradient_norm, 3)),
        ("Still to gain by a Newton step", number(c.decrement, 3)),
        ("Smallest curvature", f"{number(c.min_curvature, 3)} ({how})"),
        ("Evaluations, restarts", f"{c.evaluations}, {c.restarts}"),
        (
            "AIC, BIC",
            f"{number(fit.aic, 6)}, {number(fit.bic, 6)}"
            + (" (by REML: to compare models of the same fixed part only)" if restricted else ""),
        ),
    ]
    if c.boundary:
        pairs.insert(1, ("On the boundary", escape("; ".join(c.boundary))))
    return definitions(pairs)


def _sampling(posterior: Posterior) -> str:
    kept = posterior.draws_kept
    methods = {"exact": "independent draws from the exact posterior", "nuts": "no-U-turn sampler",
               "independent": "importance sampling of quasi-random points"}  # fmt: skip
    pairs = [
        ("Method", methods.get(kept.method, escape(kept.method))),
        ("Draws", f"{kept.chains * kept.draws:,} in {kept.chains} chains"),
    ]
    if "pareto_k" in kept.facts:
        pairs.append(("Pareto k", f"{number(float(kept.facts['pareto_k']), 3)} (good below 0.5)"))
    if "diverging" in kept.stats:
        pairs.append(("Divergent transitions", f"{int(np.sum(kept.stats['diverging'])):,}"))
    rows = [one for frame in (posterior.fixef(), posterior.parameters()) for one in records(frame)]
    columns = {
        name: [row[name] for row in rows if row.get(name) is not None] for name in ("rhat", "ess_bulk", "ess_tail")
    }
    if columns["rhat"]:
        pairs.append(("Largest R-hat", f"{max(columns['rhat']):.3f} (good up to 1.01)"))
    for name, text in (("ess_bulk", "centre"), ("ess_tail", "tails")):
        if columns[name]:
            pairs.append((f"Least effective sample size, {text}", f"{min(columns[name]):,.0f}"))
    return definitions(pairs)


# -- cautions ---------------------------------------------------------------------------------------------------


def cautions(source: Fit | Posterior, found: Trust) -> list[str]:
    """What somebody who uses the numbers ought to know first (HTML), the gravest first."""
    from .posterior import Posterior

    out = [] if found.good else [f"<strong>Do not rely on these numbers yet.</strong> {escape(found.sentence)}"]
    if not isinstance(source, Posterior) and source.convergence.boundary:
        edge = escape(" and ".join(source.convergence.boundary))
        out.append(
            f"The fit is singular: {edge}. The data do not tell this variance from zero, or this correlation from "
            "one; it is no "
            "proof that there is none. Standard errors take it as known."
        )
    out += _nearly_separated(source)
    out += _group_cautions(source)
    lost = source.design.n_input - source.nobs
    if lost:
        out.append(
            f"{lost:,} of {source.design.n_input:,} rows ({100 * lost / source.design.n_input:.2g}%) were left "
            "out. If their values "
            "are missing for reasons that have to do with the response, the estimates are off."
        )
    if source.design.dropped:
        names = ", ".join(f"<em>{escape(one)}</em>" for one in source.design.dropped[:6])
        more = len(source.design.dropped) - 6
        out.append(
            f"Not estimated, because other columns determine them: {names}{f' and {more} more' if more > 0 else ''}."
        )
    for one in found.checks or ():
        if one.verdict in ("look", "problem") and one.name not in NAMED:
            out.append(f"<strong>{escape(one.name[:1].upper() + one.name[1:])}:</strong> {escape(one.sentence)}")
    if found.checks is None:
        out.append("The assumptions were not checked here, for the rows are not at hand.")
    return out


def _nearly_separated(source: Fit | Posterior) -> list[str]:
    """Predictors of which one sd multiplies the odds so much that Wald's intervals are no longer to be trusted."""
    from .posterior import Posterior

    family, design = source.model.distribution, source.design
    binary = family is not None and family.name in ("binomial", "betabinomial", "ordinal")
    if isinstance(source, Posterior) or family is None or not binary or not has_rows(source):
        return []
    slopes = {row["term"]: row["estimate"] for row in records(source.fixef())}
    spread = dict(zip(design.names, np.std(np.asarray(design.X), axis=0).tolist(), strict=True))
    limit = STEEP if family.link == "logit" else STEEP / LOGISTIC_SD
    out = []
    for name, sd in spread.items():
        if name != "Intercept" and abs(sd * (slopes.get(name) or 0.0)) > limit:
            out.append(
                f"<em>{escape(name)}</em> nearly tells the outcomes apart. Its estimate hangs on few rows, and its Wald "
                "interval and p-value are poor; profile intervals (<code>fit.profile()</code>) are better."
            )
    return out


def _group_cautions(source: Fit | Posterior) -> list[str]:
    out = []
    sizes = group_sizes(source)
    for group, levels in {term.group: len(term.levels) for term in source.design.terms}.items():
        name = f"<em>{escape(group)}</em>"
        if levels < FEW:
            out.append(
                f"{name} has {levels} level{'s' * (levels != 1)} only. That says next to nothing of a variance; think "
                "of "
                "it as a fixed effect."
            )
        elif levels < FEWER_THAN_GOOD:
            out.append(f"{name} has {levels} levels. Its variance is uncertain, and intervals may be too short.")
        low, high = sizes.get(group, (1, 1))
        if low and high >= UNEQUAL * low:
            out.append(
                f"Groups of {name} are of very unequal size ({low:,} to {high:,} rows): small ones are drawn far more "
                "towards the "
                "population than large ones."
            )
    return out


def care_section(source: Fit | Posterior, found: Trust, bayes: bool) -> str:
    """Cautions of this model, then what holds for every one of its kind."""
    own = cautions(source, found)
    always = [
        "Associations are not effects of doing something; that needs an experiment, or assumptions this page "
        "knows nothing of.",
        "The formula was taken as given. If it was chosen by looking at these data, intervals are too short "
        "and p-values too small."
        if not bayes
        else "The formula and the priors were taken as given; other choices give other posteriors.",
    ]
    if source.design.terms and not bayes:
        always.append(
            "Intervals of predictions and of group effects take the estimated variances as known, which makes "
            "them too short where "
            "there are few groups."
        )
    first = (
        bullets(own) if own else paragraph("Nothing in the checks, the convergence or the data asks for special care.")
    )
    return f"{first}<h3>Always</h3>{bullets(always)}"
