"""How a report was made, so that it can be made again; and how to cite it."""

from __future__ import annotations

import platform
from datetime import date
from typing import TYPE_CHECKING

from . import __version__
from .families import SHAPES
from .report_html import bullets, definitions, escape, paragraph

if TYPE_CHECKING:
    from .fit import Fit
    from .posterior import Posterior

__all__ = ["call_text", "cite_section", "method_text", "origin_section"]

USUAL = {"method": "auto", "target": 0.8, "keep": "all", "thin": 1}  # what Model.sample takes if not told


def origin_section(source: Fit | Posterior, author: str | None) -> str:
    """Versions, the call, seed and date."""
    from .posterior import Posterior

    pairs = [("Library", f"multilevel {escape(__version__)}, Python {escape(platform.python_version())}")]
    pairs += [("Author", escape(author))] if author else []
    pairs += [("Date", date.today().isoformat()), ("Rows", f"{source.nobs:,} used of {source.design.n_input:,}")]
    if isinstance(source, Posterior):
        seed = source.draws_kept.facts.get("seed")
        pairs += [
            ("Seed", "none was given; another run gives slightly other numbers" if seed is None else escape(seed))
        ]
    else:
        pairs += [("Estimation", escape(method_text(source)))]
    return (
        definitions(pairs)
        + f"<pre>{escape_lines(call_text(source))}</pre>"
        + paragraph("Data and arrays stand as “data” and “…”, for a model does not know what they were called.", "note")
    )


def escape_lines(text: str) -> str:
    """Lines of code as HTML, each escaped."""
    return "\n".join(_indented(line) for line in text.split("\n"))


def _indented(line: str) -> str:
    return " " * (len(line) - len(line.lstrip(" "))) + escape(line.lstrip(" "))


def method_text(fit: Fit) -> str:
    """How the parameters were estimated."""
    if not fit.generalised:
        return "restricted maximum likelihood (REML)" if fit.reml else "maximum likelihood"
    nodes = fit.model._quadrature
    known = {0: "lme4's quick start (nAGQ = 0)", 1: "Laplace's approximation"}
    how = known.get(nodes, f"adaptive Gauss–Hermite quadrature with {nodes} points")
    return f"maximum likelihood, by {how}" if fit.design.terms else "maximum likelihood"


def call_text(source: Fit | Posterior) -> str:
    """Python that makes the model again."""
    from .posterior import Posterior
    from .sample import WARMUP

    options = "".join(f",\n    {name}={text}" for name, text in _options(source))
    model = f"model = ml.Model(\n    {source.formula!r},\n    data{options},\n)"
    if isinstance(source, Posterior):
        kept = source.draws_kept
        asked = {"chains": kept.chains, "draws": kept.draws, **kept.facts.get("asked", {})}
        usual = {**USUAL, "warmup": WARMUP}
        parts = [f"{name}={value!r}" for name, value in asked.items() if usual.get(name) != value]
        if kept.facts.get("seed") is not None:
            parts.append(f"seed={kept.facts['seed']!r}")
        last = f"posterior = model.sample({', '.join(parts)})"
    else:
        parts = [] if source.reml or source.generalised else ["reml=False"]
        parts += [f"quadrature={source.model._quadrature}"] if source.model._quadrature != 1 else []
        last = f"fit = model.fit({', '.join(parts)})"
    return f"import multilevel as ml\n\n{model}\n{last}"


def _options(source: Fit | Posterior) -> list[tuple[str, str]]:
    from .posterior import Posterior

    model, design = source.model, source.design
    out: list[tuple[str, str]] = []
    if (family := model.distribution) is not None:
        shape = SHAPES.get(family.name, "")
        held = "" if family.shape or not shape else f"({shape}={getattr(family, shape)!r})"
        out += [("family", repr(family.name + held)), ("link", repr(family.link))]
    for what, text in design.remake.extra.items():
        name = "hurdle" if what == "zi" and family is not None and family.zero == "hurdle" else what
        out.append((name, repr(f"~ {text.lstrip('~ ')}")))
    given = getattr(model, "_options", {})
    for name, there in (("weights", design.weights is not None), ("offset", design.offset is not None)):
        value = given.get(name)
        if isinstance(value, str):
            out.append((name, repr(value)))
        elif value is not None or (not given and there and not design.remake.offsets):
            out.append((name, "…"))
    if model._residual_text:
        if (serial := model._residual_text.serial) is not None:
            out.append(("correlation", repr(serial[3])))
        if spreads := [one[2] for one in model._residual_text.spreads]:
            out.append(("variance", repr(" + ".join(spreads))))
    out += [(name, "{…}") for name in ("contrasts", "levels") if given.get(name)]
    out += [("covariance", "{" + ", ".join(f"{name!r}: …" for name in design.known) + "}")] if design.known else []
    if isinstance(source, Posterior):
        own = [f"{one.name!r}: ml.{one.prior.text()}" for one in source.entries if one.source == "user"]
        out += [("priors", "{" + ", ".join(own) + "}")] if own else []
    return out


def cite_section(source: Fit | Posterior) -> str:
    """The library, and where its methods come from."""
    from .posterior import Posterior

    year = date.today().year
    own = f"multilevel, version {escape(__version__)} ({year}): hierarchical models in Python."
    works = []
    if source.design.terms:
        works.append(
            "Bates, D., Mächler, M., Bolker, B. &amp; Walker, S. (2015). Fitting linear mixed-effects models "
            "using lme4. "
            "<em>Journal of Statistical Software</em> 67(1): the formula and the criterion."
        )
        works.append(
            "Nakagawa, S., Johnson, P. C. D. &amp; Schielzeth, H. (2017). The coefficient of determination R² "
            "and intra-class "
            "correlation coefficient from generalized linear mixed-effects models revisited and expanded. "
            "<em>Journal of the "
            "Royal Society Interface</em> 14: ICC and R²."
        )
    if isinstance(source, Posterior):
        works.append(
            "Vehtari, A., Gelman, A., Simpson, D., Carpenter, B. &amp; Bürkner, P.-C. (2021). "
            "Rank-normalization, folding, and "
            "localization: an improved R-hat. <em>Bayesian Analysis</em> 16(2): R-hat and effective sample sizes."
        )
    elif source.design.terms and not source.generalised:
        works.append(
            "Kuznetsova, A., Brockhoff, P. B. &amp; Christensen, R. H. B. (2017). lmerTest package: tests in "
            "linear mixed effects "
            "models. <em>Journal of Statistical Software</em> 82(13): Satterthwaite's degrees of freedom."
        )
    return paragraph(f"Cite the library with the version, for numbers may change in their last digits: {own}") + (
        paragraph("Methods used here:") + bullets(works) if works else ""
    )
