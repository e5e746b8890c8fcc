"""What a simpler generalised model needs beside its formula, and how it is fitted; for `singularity`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .design import Design
    from .fit import Fit
    from .model import Model

__all__ = ["options_text", "simpler_model"]


def simpler_model(model: Model, design: Design) -> Model:
    """The model on a reduced design; without its grouping factor there is nothing left for quadrature to integrate."""
    out = model.with_design(design)
    return out if design.terms or out.distribution is None else out.with_quadrature(1)


def options_text(fit: Fit) -> list[str]:
    """Options of the model as one types them: family and link, formulas of dispersion and zeros."""
    family, sides = fit.model.distribution, fit.design.remake.extra
    if family is None:
        return []
    given: dict[str, Any] = {"family": family.name, "link": family.link}
    if "dispersion" in sides:
        given["dispersion"] = f"~ {sides['dispersion']}"
    if "zi" in sides:
        given["hurdle" if family.zero == "hurdle" else "zi"] = f"~ {sides['zi']}"
    options = getattr(fit.model, "_options", {})
    given |= {name: options[name] for name in ("dispersion", "zi", "hurdle") if isinstance(options.get(name), str)}
    return [f'{name}="{value}"' for name, value in given.items()]
