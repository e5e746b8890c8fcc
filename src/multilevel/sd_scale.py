"""Parameters as people read them: standard deviations, correlations, sigma and fixed effects, by name.

The engine's coordinates are relative factors Lambda; here is the map to the sd and correlation scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from .covariance import NO_SD, Structure
from .errors import OptionError, listing, nearest

if TYPE_CHECKING:
    from .design import Design
    from .fit import Fit
    from .generalised import GeneralisedFit

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Parameter:
    """One parameter on the scale of sds and correlations.

    Attributes
    ----------
    name : str
        "sd(Subject, Days)", "cor(Subject, Intercept, Days)", "sigma", or the fixed effect's name. A structure of few
        parameters: "sd(Subject, ar1)" where one sd holds for all effects, "cor(Subject, ar1)".
    kind : {"sd", "cor", "sigma", "residual", "fixed"}
        "residual" is a parameter of the residuals' structure.
    term : int
        Position of its random term, -1 for sigma and fixed effects.
    i, j : int
        The effect (and for a correlation the second) in the term, the column of X, or the place in
        `Optimum.residual`.
    structure : str
        Of the term, where it is not free: a correlation is then the one all pairs of effects follow from.
    """

    name: str
    kind: str
    term: int = -1
    i: int = 0
    j: int = 0
    structure: str = ""


def parameters(design: Design, residual: Sequence[str] = ()) -> tuple[Parameter, ...]:
    """Every parameter: the terms' sds and correlations, sigma, fixed effects (columns dropped for rank have none).

    `residual` names the parameters of the residuals' structure; they follow sigma.
    """
    out: list[Parameter] = []
    seen: dict[tuple[str, str], int] = {}
    for t, term in enumerate(design.terms):
        k, g = len(term.names), term.group
        form = Structure(term.structure, k)
        sds = [Parameter(f"sd({g}, {n})", "sd", t, i) for i, n in enumerate(term.names)]
        if form.free:
            pairs = [(i, j) for i in range(k) for j in range(i + 1, k)] if form.kind == "us" else []
            out += sds
            out += [Parameter(f"cor({g}, {term.names[i]}, {term.names[j]})", "cor", t, i, j) for i, j in pairs]
            continue
        count = seen[g, form.kind] = seen.get((g, form.kind), 0) + 1
        label = form.kind if count == 1 else f"{form.kind} {count}"
        out += sds if form.n_sd > 1 else [Parameter(f"sd({g}, {label})", "sd", t, 0)]
        out += [Parameter(f"cor({g}, {label})", "cor", t, 0, 1, form.kind)] if form.correlated else []
    out.append(Parameter("sd(Residual)" if "sigma" in design.names else "sigma", "sigma"))
    out += [Parameter(name, "residual", -1, i) for i, name in enumerate(residual)]
    return (*out, *(Parameter(name, "fixed", -1, i) for i, name in enumerate(design.names)))


def parameters_of(fit: Fit) -> tuple[Parameter, ...]:
    """Every parameter of a fit, with those of the residuals' structure or a generalised model's further coefficients."""
    if fit.generalised:
        names = cast("GeneralisedFit", fit).coefficients.names
        return tuple(p for p in parameters(fit.design, names) if p.kind != "sigma")
    return parameters(fit.design, () if fit.model.residual is None else fit.model.residual.names())


def chosen(every: Sequence[Parameter], which: Any) -> tuple[Parameter, ...]:
    """The parameters a user's `which` names, in the order of `every`.

    Raises
    ------
    OptionError
        For a name that is not there; offers the nearest.
    """
    if which is None:
        return tuple(every)
    names = [which] if isinstance(which, str) else which
    known = [p.name for p in every]
    try:
        wanted = list(names)
    except TypeError:
        raise OptionError(f"which must be a parameter's name or a list of names, got {which!r}") from None
    for name in wanted:
        if name not in known:
            hint = nearest(name, known) or "its parameters are " + listing(known, 20)
            raise OptionError(f"there is no parameter {name!r} in the model; {hint}")
    if not wanted:
        raise OptionError(f"which names no parameter; allowed are {listing(known, 20)}, or None for all")
    return tuple(p for p in every if p.name in wanted)


def estimates(every: Sequence[Parameter], fit: Fit) -> Array:
    """(m,) values at a fit; a correlation with an sd of zero is NaN."""
    covs = [c[None] for c in fit.random_cov()]
    optimum = fit.optimum
    out: Array = draws(every, covs, np.array([fit.sigma]), optimum.beta[None], optimum.residual[None])[0]
    return out


def draws(
    every: Sequence[Parameter], covs: Sequence[Array], sigma: Array, beta: Array, residual: Array | None = None
) -> Array:
    """(r, m) values of r fits: covariances (r, k, k) per term, sigma (r,), beta (r, p), residual (r, c)."""
    out = np.empty((len(sigma), len(every)))
    for at, one in enumerate(every):
        if one.kind == "sigma":
            out[:, at] = sigma
        elif one.kind == "fixed":
            out[:, at] = beta[:, one.i]
        elif one.kind == "residual":
            assert residual is not None
            out[:, at] = residual[:, one.i]
        elif one.kind == "sd":
            out[:, at] = np.sqrt(covs[one.term][:, one.i, one.i])
        else:
            cov = covs[one.term]
            if not one.structure:
                out[:, at] = _correlation(cov, one.i, one.j)
                continue
            form = Structure(one.structure, cov.shape[1])
            out[:, at] = [_rho(form, c, s) for c, s in zip(cov, sigma, strict=True)]
    return out


def _correlation(cov: Array, i: int, j: int) -> Array:
    """(r,) correlations of two effects; NaN where an sd is zero."""
    size = np.sqrt(cov[:, i, i] * cov[:, j, j])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(size > 0, np.clip(cov[:, i, j] / size, -1.0, 1.0), np.nan)


def _rho(form: Structure, cov: Array, sigma: float) -> float:
    """The one correlation of a structure; NaN where fewer than two effects vary."""
    sd = np.sqrt(np.diag(cov))
    vary = sd > NO_SD * sigma
    if np.sum(vary) < 2:
        return float("nan")
    size = np.where(vary, sd, np.inf)
    values, vectors = np.linalg.eigh(cov / np.outer(size, size))
    return float(form.to_theta(vectors * np.sqrt(np.maximum(values, 0.0)))[-1])
