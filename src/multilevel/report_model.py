"""The model of a report in words and in symbols."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .cli_files import records
from .report_html import bullets, escape, number, paragraph, table
from .report_words import has_offset, response_name

if TYPE_CHECKING:
    from .design import Design, Term
    from .families import Family
    from .fit import Fit
    from .posterior import Posterior

__all__ = ["model_section"]

MOST_TERMS = 9  # coefficients written out
MOST_PRIORS = 60
LETTERS = "buvwst"  # of the terms of group effects
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
NAMES = {
    "gaussian": "normal", "binomial": "binomial", "poisson": "Poisson", "nbinom2": "negative binomial "
    "(quadratic variance)",
    "nbinom1": "negative binomial (linear variance)", "gamma": "gamma", "inverse_gaussian": "inverse Gaussian",
    "beta": "beta", "betabinomial": "beta-binomial", "student": "Student's t", "lognormal": "log-normal",
    "tweedie": "Tweedie", "ordinal": "ordinal (cumulative)",
}  # fmt: skip
LAWS = {  # after "y_i ~"; m stands for the mean, p for a probability
    "gaussian": "Normal({m}, σ²)",
    "poisson": "Poisson({m})",
    "nbinom2": "NegativeBinomial({m}), Var = {m} + {m}² / size",
    "nbinom1": "NegativeBinomial({m}), Var = {m} (1 + α)",
    "gamma": "Gamma({m}), Var = {m}² / shape",
    "inverse_gaussian": "InverseGaussian({m}), Var = {m}³ / λ",
    "beta": "Beta({m} φ, (1 − {m}) φ)",
    "student": "Student t(df, {m}, σ)",
    "tweedie": "Tweedie({m}), Var = φ {m}<sup>p</sup>",
}
LINKS = {
    "identity": "{m}", "log": "log({m})", "logit": "logit({m})", "probit": "Φ⁻¹({m})", "cloglog": "log(−log(1 − {m}))",
    "cauchit": "tan(π({m} − ½))", "inverse": "1 / {m}", "sqrt": "√{m}", "inverse_square": "1 / {m}²",
}  # fmt: skip
STRUCTURES = {
    "us": "with variances and covariances of their own", "diag": "independent of each other",
    "homdiag": "independent of each other, all with the same variance", "cs": "all pairs with the same correlation",
    "homcs": "with one variance and one correlation", "ar1": "with one variance and correlations that "
    "fall with distance",
    "hetar1": "with correlations that fall with distance",
}  # fmt: skip
RESIDUALS = {  # what the structure of residuals says, by its kind
    "ar1": "residuals that follow each other within a group are correlated, less the farther apart",
    "car1": "residuals near each other in time within a group are correlated, less the farther apart",
    "cs": "residuals within a group all have the same correlation",
    "ident": "the residual sd differs between levels",
    "power": "the residual sd is a power of a variable",
    "exp": "the residual sd grows or falls exponentially with a variable",
}


def model_section(source: Fit | Posterior) -> str:
    """Words, equations, and the priors of a posterior."""
    parts = [
        f'<code class="formula">{escape(source.formula)}</code>',
        paragraph(_family_words(source)),
        bullets([*_term_words(source), *_other_words(source)]),
        f'<div class="equations">{"".join(f"<p>{line}</p>" for line in equations(source))}</div>',
        paragraph(
            "Read <i>x</i><sub>i</sub> as the value in row <i>i</i>, and <i>g</i>[<i>i</i>] as the group that "
            "row belongs to. "
            "A name in brackets, as in [<i>a</i> = v], is 1 where that holds and 0 elsewhere.",
            "note",
        ),
        _priors(source),
    ]
    return "\n".join(part for part in parts if part)


# -- words ------------------------------------------------------------------------------------------------------


def _family_words(source: Fit | Posterior) -> str:
    family, name = source.model.distribution, f"<em>{escape(response_name(source))}</em>"
    kind = "linear" if family is None else "generalised linear"
    mixed, without = ("mixed (multilevel) model", "") if source.design.terms else ("model", ", without group effects")
    if family is None:
        return f"A {kind} {mixed} of {name}{without}, with normal residuals."
    link = escape(family.link.replace("_", " "))
    return f"A {kind} {mixed} of {name}{without}: the {NAMES[family.name]} family with the {link} link."


def _term_words(source: Fit | Posterior) -> list[str]:
    out = []
    for term in source.design.terms:
        group, slopes = f"<em>{escape(term.group)}</em>", [one for one in term.names if one != "Intercept"]
        what = ["an intercept"] if "Intercept" in term.names else []
        what += [f"effects of {_few(slopes)}"] if slopes else []
        text = f"Each level of {group} ({len(term.levels):,}) has {' and '.join(what)} of its own"
        known = source.design.known
        structure = f", {STRUCTURES.get(term.structure, escape(term.structure))}" if len(term.names) > 1 else ""
        relatives = "; the levels have a known covariance" if term.group in known else ""
        out.append(f"{text}, drawn from a normal distribution{structure}{relatives}.")
    return out


def _few(names: list[str]) -> str:
    shown = [f"<em>{escape(one)}</em>" for one in names[:5]]
    return ", ".join(shown) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _other_words(source: Fit | Posterior) -> list[str]:
    design, model = source.design, source.model
    out = []
    if model._residual_text:
        serial = model._residual_text.serial
        given = [(serial[0], serial[3])] if serial else []
        given += [(one[0], one[2]) for one in model._residual_text.spreads]
        parts = [f"{RESIDUALS.get(kind, 'a structure')} (<code>{escape(text)}</code>)" for kind, text in given]
        out.append(f"Residuals are structured: {'; '.join(parts)}.")
    if design.weights is not None:
        out.append("Rows have weights.")
    if has_offset(source):
        out.append("An offset is added to the linear predictor, with coefficient one.")
    for what, text in design.remake.extra.items():
        name = "the log dispersion" if what == "dispersion" else "the logit of the share of extra zeros"
        out.append(f"A formula of its own gives {name}: <code>{escape(text)}</code>.")
    if design.dropped:
        out.append(f"Left out, because other columns determine them: {_few(list(design.dropped))}.")
    return out


# -- symbols ----------------------------------------------------------------------------------------------------


def equations(source: Fit | Posterior) -> list[str]:
    """Lines of HTML: law of the response, linear predictor, laws of the group effects."""
    family, design = source.model.distribution, source.design
    predictor = _predictor(source, ordinal=family is not None and family.name == "ordinal")
    lines = _linear(source, predictor) if family is None else _generalised(source, family, predictor)
    return [*lines, *(line for i, term in enumerate(design.terms) for line in _law(design, term, i))]


def _linear(source: Fit | Posterior, predictor: str) -> list[str]:
    design = source.design
    epsilon, spread = "ε<sub>i</sub>", "Normal(0, σ²)"
    if design.weights is not None:
        spread = "Normal(0, σ² / <i>w</i><sub>i</sub>)"
    if source.model._residual_text:
        epsilon, spread = "ε", "Normal(<b>0</b>, σ² <b>R</b>), <b>R</b> structured as above"
    return [f"{_response(source)} = {predictor} + ε<sub>i</sub>", f"{epsilon} ~ {spread}"]


def _response(source: Fit | Posterior) -> str:
    """Symbol of one row's response: of two categories whether it is the second."""
    name, labels = f"<i>{escape(response_name(source))}</i><sub>i</sub>", source.design.labels
    family = source.model.distribution
    if family is not None and family.name in ("binomial", "betabinomial") and len(labels) == 2:
        return f"[{name} = {escape(labels[-1])}]"
    return name


def _generalised(source: Fit | Posterior, family: Family, predictor: str) -> list[str]:
    y, m, left = _response(source), "μ<sub>i</sub>", ""
    if family.name == "ordinal":
        below = LINKS[family.link].format(m=f"P({y} ≤ k)")
        return [f"{below} = τ<sub>k</sub> − η<sub>i</sub>", f"η<sub>i</sub> = {predictor}"]
    if family.name == "lognormal":
        return [f"log({y}) ~ Normal(η<sub>i</sub>, σ²)", f"η<sub>i</sub> = {predictor}"]
    if family.name in ("binomial", "betabinomial"):
        m, design = "p<sub>i</sub>", source.design
        counted = design.response.startswith("cbind(") or "trials(" in design.response
        single = len(design.labels) == 2 or (design.trials is not None and bool((design.trials == 1).all()))
        left = "" if counted or single else "n<sub>i</sub> "  # the response is a share of n
        law = f"Binomial(n<sub>i</sub>, {m})" if counted or left else f"Bernoulli({m})"
        if family.name == "betabinomial":
            law = f"BetaBinomial(n<sub>i</sub>, {m} φ, (1 − {m}) φ)"
    else:
        law = LAWS[family.name].format(m=m)
    zeros = {
        "inflated": [f"{y} = 0 with probability π<sub>i</sub>; else the law above"],
        "hurdle": [f"{y} = 0 with probability π<sub>i</sub>; else the law above, zero left out"],
    }.get(family.zero, [])
    return [f"{left}{y} ~ {law}", *zeros, f"{LINKS[family.link].format(m=m)} = {predictor}"]


def _predictor(source: Fit | Posterior, ordinal: bool) -> str:
    from .report_effects import coefficients

    design = source.design
    parts = []
    kept = [one for one in coefficients(design) if one.name in set(design.names)]
    for j, one in enumerate(kept[:MOST_TERMS]):
        beta = f"β{str(j + ordinal).translate(SUBSCRIPTS)}"
        factors = [_factor(atom.kind, atom.label, atom.level) for atom in one.atoms or ()]
        if one.atoms is None:
            factors = [f"<i>{escape(one.name)}</i><sub>i</sub>"]
        parts.append(" ".join([beta, *factors]))
    more = len(kept) - len(parts)
    parts += [f"… ({more} more terms)"] if more else []
    parts += ["offset<sub>i</sub>"] if has_offset(source) else []
    for i, term in enumerate(design.terms):
        effects = term.names[:3]
        for k, name in enumerate(effects):
            times = "" if name == "Intercept" else f" <i>{escape(name)}</i><sub>i</sub>"
            parts.append(f"{_effect(i, k, f'{escape(term.group)}[i]')}{times}")
        parts += [f"… ({len(term.names) - 3} more effects)"] if len(term.names) > 3 else []
    return " + ".join(parts) or "0"


def _factor(kind: str, label: str, level: str) -> str:
    if kind in ("level", "mean"):
        return f"[<i>{escape(label)}</i><sub>i</sub> = {escape(level)}]"
    shown = label if kind == "number" else f"{label}{level}"
    return f"<i>{escape(shown)}</i><sub>i</sub>"


def _effect(i: int, k: int, group: str) -> str:
    """Symbol of one group effect: a letter for each term, a number for each effect."""
    return f"<i>{LETTERS[i % len(LETTERS)]}</i>{str(k).translate(SUBSCRIPTS)}<sub>,{group}</sub>"


def _law(design: Design, term: Term, i: int) -> list[str]:
    group = escape(term.group)
    shown = [_effect(i, k, group) for k in range(min(len(term.names), 3))]
    left = shown[0] if len(term.names) == 1 else f"({', '.join(shown)}{', …' if len(term.names) > 3 else ''})"
    relatives = " <b>A</b>" if term.group in design.known else ""
    several = sum(one.group == term.group for one in design.terms) > 1  # then each needs a name of its own
    name = f"{LETTERS[i % len(LETTERS)]},{group}" if several else group
    if len(term.names) == 1:
        return [f"{left} ~ Normal(0, σ<sub>{name}</sub>²{relatives})"]
    shape = "" if term.structure == "us" else " diagonal" if "diag" in term.structure else " structured as above"
    shape = f", <b>Σ</b><sub>{name}</sub>{shape}" if shape else ""
    return [f"{left} ~ Normal(<b>0</b>, <b>Σ</b><sub>{name}</sub>{relatives}){shape}"]


# -- priors -----------------------------------------------------------------------------------------------------


def _priors(source: Fit | Posterior) -> str:
    from .posterior import Posterior

    if not isinstance(source, Posterior):
        return ""
    rows = [[one["parameter"], one["prior"], one["source"]] for one in records(source.prior_summary())]
    own = sum(row[2] == "user" for row in rows)
    words = (
        f"{number(own)} of {len(rows)} priors were set by the user; the others are the defaults of the library, "
        "weakly informative and on the scale of the data."
        if own
        else "All priors are the defaults of the library, weakly informative and on the scale of the data."
    )
    shown = table(
        "Prior distributions", ("parameter", "prior", "source"), rows, MOST_PRIORS, "posterior.prior_summary()"
    )
    return f"<h3>Priors</h3>{paragraph(words)}{shown}"
