"""What a saved fit keeps of a generalised model: family, coefficients beyond the fixed effects, rows of the response."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .archive import need
from .storage_rows import shaped

if TYPE_CHECKING:
    from .crossprod import Rows
    from .design import Design
    from .families import Family
    from .fit import Fit
    from .generalised import GeneralisedFit
    from .laplace import Coefficients
    from .reml import Optimum

__all__ = ["coefficients", "family_in", "pack", "response_rows", "with_labels", "with_parameters", "with_response"]

Array = NDArray[Any]

MOST_NODES = 100
ZEROS = ("none", "inflated", "hurdle")


def pack(fit: Fit, data: bool, arrays: dict[str, Array]) -> dict[str, Any] | None:
    """Header of a generalised model; its numbers go into `arrays`. None for a Gaussian one."""
    from .generalised import GeneralisedFit

    if not isinstance(fit, GeneralisedFit):
        return None
    d, family = fit.design, fit.model.distribution
    assert family is not None
    arrays |= {"residual": fit.optimum.residual, "residual_vcov": fit.optimum.residual_vcov}
    o = fit.optimum
    if len(o.joint_vcov) == len(o.beta) + len(o.residual) + len(o.moves):  # not of a file of an older version
        arrays |= {"joint_vcov": o.joint_vcov, "moves": o.moves}
        arrays |= {f"following{t}": one for t, one in enumerate(fit.following)}
    if data:
        working = fit.engine.blocks.rows.weights
        assert working is not None
        arrays["working"] = working
        if d.trials is not None:
            arrays["trials"] = d.trials
        arrays |= {f"side_{what}": matrix for what, (matrix, _) in d.sides.items()}
    return {
        "link": family.link,
        "zero": family.zero,
        "df": family.df,
        "power": family.power,
        "quadrature": fit.model._quadrature,
        "weighted": fit.weighted,
        "names": list(fit.coefficients.names),
        "labels": list(d.labels),
        "sides": {what: list(names) for what, (_, names) in d.sides.items()},
    }


def family_in(header: Mapping[str, Any]) -> Family | None:
    """The family of a saved fit; None for the Gaussian model with an identity link."""
    from .families import FAMILIES, Family

    saved = header.get("generalised")
    if saved is None:
        need(header["family"] == "gaussian", "its family is of a newer version")
        return None
    name, link, zero = header["family"], saved["link"], saved["zero"]
    df, power = saved["df"], saved.get("power")
    need(name in FAMILIES and link in FAMILIES[name] and zero in ZEROS, "its family is of a newer version")
    need(df is None or (type(df) is float and 1 < df < np.inf), "the degrees of freedom of its family are wrong")
    need(power is None or (type(power) is float and 1 < power < 2), "the power of its family is wrong")
    return Family(name, link, zero, df if name == "student" else None, power)  # a df of all families in earlier files


def nodes_in(saved: Mapping[str, Any]) -> int:
    """Nodes of quadrature per effect; 1 for a Gaussian model too."""
    nodes = saved.get("quadrature", 1)
    need(type(nodes) is int and 0 <= nodes <= MOST_NODES, "the number of nodes is wrong")
    return int(nodes)


def with_labels(design: Design, saved: Mapping[str, Any], family: Family) -> Design:
    """The design with its categories and the names of its further sides, which have no rows yet."""
    labels, sides = saved["labels"], saved["sides"]
    need(all(isinstance(one, str) for one in labels), "a category is no text")
    need(family.name != "ordinal" or len(labels) > 2, "the categories are missing")
    need(set(sides) == set(design.remake.extra) and set(sides) <= {"dispersion", "zi"}, "a side of the model is unknown")
    need(all(isinstance(n, str) for names in sides.values() for n in names), "a coefficient has no name")
    if family.name == "ordinal":  # thresholds are intercepts enough, as `design.build` says
        shown = tuple(name for name in design.all_names if name != "Intercept")
        design = replace(design, all_names=shown, dropped=tuple(name for name in shown if name not in design.names))
    none: Any = None
    return replace(design, labels=tuple(labels), sides={what: (none, tuple(names)) for what, names in sides.items()})


def with_parameters(optimum: Optimum, saved: Mapping[str, Any], arrays: Mapping[str, Array]) -> Optimum:
    """The optimum with its coefficients beyond the fixed effects."""
    m = len(saved["names"])
    values = shaped(arrays, "residual", (m,))
    need(bool(np.isfinite(values).all()), "a coefficient is no number")
    optimum = replace(optimum, residual=values, residual_vcov=shaped(arrays, "residual_vcov", (m, m)))
    if "joint_vcov" not in arrays:
        return optimum
    moves = shaped(arrays, "moves", (len(arrays["moves"]), sum(len(one) ** 2 for one in optimum.engine_lambdas)))
    size = len(optimum.beta) + m + len(moves)
    return replace(optimum, joint_vcov=shaped(arrays, "joint_vcov", (size, size)), moves=moves)


def with_response(
    design: Design, rows: Rows, saved: Mapping[str, Any], arrays: Mapping[str, Array], family: Family
) -> tuple[Design, Rows]:
    """Trials and the matrices of the further sides; the rows' weights are those of the working linear model."""
    working = shaped(arrays, "working", (len(design.rows),))
    need(bool((working > 0).all() and np.isfinite(working).all()), "a weight is wrong")
    return response_rows(design, arrays, family), replace(rows, weights=working)


def response_rows(design: Design, arrays: Mapping[str, Array], family: Family) -> Design:
    """The design with the trials and the matrices of the further sides."""
    from .families import TRIALS

    n = len(design.rows)
    trials = shaped(arrays, "trials", (n,)) if "trials" in arrays else None
    y = design.y
    if family.name == "ordinal":
        need(bool(((y >= 0) & (y < len(design.labels)) & (y == np.floor(y))).all()), "a category is out of range")
        need(trials is not None and set(trials.tolist()) == {len(design.labels)}, "a category is out of range")
    elif trials is not None:
        need(family.name in TRIALS and bool(((y >= 0) & (y <= trials)).all()), "the trials are out of range")
    sides = {what: (shaped(arrays, f"side_{what}", (n, len(names))), names) for what, (_, names) in design.sides.items()}
    return replace(design, trials=trials, sides=sides)


def coefficients(saved: Mapping[str, Any]) -> Coefficients:
    """Names of the coefficients beyond the fixed effects, of a fit without its rows."""
    from .laplace import Coefficients

    names = saved["names"]
    need(all(isinstance(one, str) for one in names), "a coefficient has no name")
    return Coefficients(tuple(names), [], np.eye(len(names)), np.zeros(len(names)))


def options_of(fit: Fit) -> dict[str, Any]:
    """Options of the model of a fit read from a file that say its family."""
    family, sides = fit.model.distribution, fit.design.remake.extra
    assert family is not None
    given: dict[str, Any] = {"family": replace(family, zero="none")}
    if "dispersion" in sides:
        given["dispersion"] = f"~ {sides['dispersion']}"
    if "zi" in sides:
        given["hurdle" if family.zero == "hurdle" else "zi"] = f"~ {sides['zi']}"
    return given


def finished(fit: GeneralisedFit, saved: Mapping[str, Any], arrays: Mapping[str, Array]) -> GeneralisedFit:
    """A fit read from a file: without its rows its coefficients have names only."""
    held, sides = coefficients(saved), fit.design.sides
    parts = ["dispersion"] * (fit.family.dispersion is not None) + ["zi"] * (fit.family.zero != "none")
    expected = sum(len(sides[what][1]) if what in sides else 1 for what in parts)
    family = fit.model.distribution
    expected += int(family is not None and family.shape is not None)
    if fit.family.name == "ordinal":
        expected = len(fit.design.labels) - 1
    need(len(held.names) == expected and set(sides) <= set(parts), "the coefficients disagree with the family")
    if "joint_vcov" in arrays:
        rest = len(fit.optimum.joint_vcov) - len(fit.optimum.beta)
        made = [shaped(arrays, f"following{t}", (*b.shape, rest)) for t, b in enumerate(fit.optimum.b)]
        fit.__dict__["following"] = tuple(made)
    if fit.design.y is None:
        need(type(saved.get("weighted", False)) is bool, "it does not say whether it was weighted")
        fit.__dict__["weighted"] = saved.get("weighted", False)
        fit.__dict__["coefficients"] = held
    else:
        need(fit.coefficients.names == held.names, "the coefficients disagree with the design")
    return fit
