"""Intraclass correlations and R squared of generalised models, on the scale of the linear predictor or of the response.

Nakagawa, Johnson & Schielzeth (2017, J. R. Soc. Interface 14): the residual variance is that of the distribution on the
scale of the link. A random intercept with a level for every row is overdispersion and counts to it, as there.
"""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import DataError, MultilevelError, MultilevelWarning, OptionError
from .families import student_variance
from .variance_shares import Parts, estimated, group_list, row_moments

if TYPE_CHECKING:
    from .design import Design
    from .families import Family
    from .generalised import GeneralisedFit
    from .model import Model

__all__ = ["icc", "parts", "r2"]

Array = NDArray[np.float64]

LINK_VARIANCE = {"logit": np.pi**2 / 3, "probit": 1.0, "cloglog": np.pi**2 / 6}  # of the latent variable


def parts(fit: GeneralisedFit) -> Parts:
    """Variances of the fixed effects, of each grouping factor, and of the distribution with its overdispersion.

    Raises
    ------
    OptionError
        For a family and link without a variance on the scale of the link.
    DataError
        For a fit saved without its rows.
    """
    found = estimated(fit, row_moments(fit))
    own = observation_level(fit)
    groups = found.groups.copy()
    groups[:, own] = 0.0
    residual = np.array([distribution_variance(fit)]) + found.groups[:, own].sum(axis=1)
    return Parts(found.fixed, groups, residual)


def observation_level(fit: GeneralisedFit) -> list[int]:
    """Positions of the grouping factors with a level for every row."""
    n = len(fit.rows_of_data().rows)
    full = {t.group for t in fit.design.terms if len(t.levels) == n}
    return [i for i, name in enumerate(group_list(fit)) if name in full]


def distribution_variance(fit: GeneralisedFit) -> float:
    """Residual variance on the scale of the link; see `variance_at`."""
    fit.rows_of_data()
    check_link_scale(fit.family, fit.design)
    centre = null_intercept(fit) if takes_centre(fit.family) else 0.0
    return variance_at(fit.family, float(fit._parameters[0][0]), centre)


def check_link_scale(family: Family, design: Design) -> None:
    """Refuse families, links and models without one variance on the scale of the link."""
    if family.zero != "none":
        _refuse(family, "has extra zeros")
    if design.sides.get("dispersion") is not None:
        _refuse(family, "has a dispersion that differs between rows")
    known = (
        (family.name in ("binomial", "ordinal") and family.link in LINK_VARIANCE)
        or (family.name == "poisson" and family.link == "sqrt")
        or (family.name in ("gaussian", "lognormal", "student") and family.link == "identity")
        or (family.name == "gamma" and family.link == "log")
        or takes_centre(family)
    )
    if not known:
        _refuse(family, f"has the family {family.name!r} with link {family.link!r}")
    if not family.finite_variance:
        raise OptionError(
            f"icc() and r2() are not defined here: the model has Student's t with {family.df:.3g} degrees of freedom, "
            "whose variance is infinite on any scale. Fix more than 2, family=ml.student(df=3), or take varcorr()"
        )


def takes_centre(family: Family) -> bool:
    """Whether the variance on the scale of the link depends on the mean of the response."""
    return family.link == "log" and family.name in ("poisson", "nbinom2", "nbinom1", "tweedie")


def variance_at(family: Family, first: float, centre: float) -> float:
    """Residual variance on the scale of the link, of a family that `check_link_scale` has passed.

    Probabilities: the variance of the latent variable that the link stands for. Logarithms of counts and Tweedie responses:
    ``log(1 + Var(y) / E(y)**2)`` of a lognormal variable, with the mean of the model without predictors at group effects of
    zero (as R's performance). Logarithm of a gamma response: ``trigamma(shape)``, which is the variance of log y itself
    and the one of the paper's three formulas that R's MuMIn recommends; performance 0.10 (insight 0.19) has the delta
    method's ``1 / shape``.

    Parameters
    ----------
    first : float
        Log of the dispersion.
    centre : float
        Linear predictor of the model without predictors, where `takes_centre`.
    """
    if family.name in ("binomial", "ordinal"):
        return float(LINK_VARIANCE[family.link])
    if family.link == "sqrt":
        return 0.25
    if takes_centre(family):
        with np.errstate(over="ignore"):
            return float(np.log1p(family.variance(np.array([centre]), np.array([first]))[0] / np.exp(2 * centre)))
    if family.name == "gamma":
        from scipy.special import polygamma

        return float(polygamma(1, np.exp(first)))
    factor = student_variance(family.own_number) if family.name == "student" else 1.0
    return float(factor * np.exp(2 * first))


def _refuse(family: Family, what: str) -> None:
    instead = "" if family.name == "ordinal" else "; scale='response' has the shares of the response itself"
    raise OptionError(
        f"icc() and r2() are not defined here: the model {what}, for which there is no variance on the scale of the link"
        f"{instead}. On the scale of the link there are binomial and ordinal (logit, probit, cloglog), poisson, nbinom1, "
        "nbinom2, tweedie and gamma (log), student and lognormal"
    )


def null_intercept(fit: GeneralisedFit) -> float:
    """Intercept of the model with the same group effects and no predictors."""
    d = fit.design
    if d.names == ("Intercept",):
        return float(fit.optimum.beta[0])
    return null_fit(fit.model, d, fit.engine.threads)


def null_fit(model: Model, design: Design, threads: int | None = None) -> float:
    """The same by maximum likelihood, for a model with any fixed effects."""
    ones = np.ones((len(design.rows), 1))
    null = replace(design, X=ones, names=("Intercept",), all_names=("Intercept",), dropped=(), messages=(), missing={})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MultilevelWarning)
        return float(model.with_design(null).fit(threads=threads).optimum.beta[0])


def icc(
    fit: GeneralisedFit,
    by_group: bool,
    level: float,
    interval: str | None,
    n: int,
    seed: Any,
    progress: bool | None,
    scale: str = "link",
) -> Any:
    """Intraclass correlations; see `GeneralisedFit.icc`."""
    from .model import check_flag

    check_flag("by_group", by_group)
    names = group_list(fit)
    if not names:
        raise OptionError("the model has no random effects, so there is no intraclass correlation; r2() works")
    table = _table(fit, "icc_by_group" if by_group else "icc", level, interval, n, seed, progress, scale)
    kinds = np.array(["adjusted", "conditional"], dtype=object)
    if not by_group:
        return fit._frame({"kind": kinds, **table})
    return fit._frame(
        {"group": np.tile(np.array(names, dtype=object), 2), "kind": np.repeat(kinds, len(names)), **table}
    )


def r2(
    fit: GeneralisedFit,
    level: float,
    interval: str | None,
    n: int,
    seed: Any,
    progress: bool | None,
    scale: str = "link",
) -> Any:
    """Marginal and conditional R squared; see `GeneralisedFit.r2`."""
    table = _table(fit, "r2", level, interval, n, seed, progress, scale)
    return fit._frame({"kind": np.array(["marginal", "conditional"], dtype=object), **table})


def _table(
    fit: GeneralisedFit,
    what: str,
    level: float,
    interval: str | None,
    n: int,
    seed: Any,
    progress: bool | None,
    scale: str,
) -> dict[str, Array]:
    from .generalised_response_shares import response_parts
    from .variance_shares import _check

    _check(level, interval, n)
    if scale not in ("link", "response"):
        raise OptionError(f"scale {scale!r} is not known; allowed are 'link', 'response'")
    of = parts if scale == "link" else response_parts
    out = {"estimate": getattr(of(fit), what)()[0]}
    if interval is not None:
        draws = np.array([getattr(of(one), what)()[0] for one in refits(fit, n, seed, progress)])
        out["conf_low"], out["conf_high"] = np.quantile(draws, [0.5 - level / 2, 0.5 + level / 2], axis=0)
    return out


def refits(fit: GeneralisedFit, n: int, seed: Any, progress: bool | None) -> list[GeneralisedFit]:
    """Fits to n responses drawn from the model with new group effects; those that failed are left out.

    Raises
    ------
    DataError
        If more than half of them failed.
    """
    from .generalised_predict import draw_responses
    from .predict import generator
    from .progress import Progress

    rng, found = generator(seed), []
    with Progress(n, "bootstrap", progress) as bar:
        for _ in range(n):
            y = draw_responses(fit, 1, [], rng)[0]
            # what cannot be fitted counts with what did not converge
            with warnings.catch_warnings(), contextlib.suppress(MultilevelError):
                warnings.simplefilter("ignore", MultilevelWarning)
                again: Any = fit.model.with_design(replace(fit.design, y=y)).fit(threads=fit.engine.threads)
                if again.convergence.converged:
                    found.append(again)
            bar.add(1)
    if len(found) < 0.5 * n:
        raise DataError(
            f"{n - len(found)} of {n} refits to simulated responses did not converge, too many for an interval; use "
            "interval=None"
        )
    if len(found) < 0.99 * n:
        warnings.warn(
            f"{n - len(found)} of {n} refits to simulated responses did not converge and were left out",
            MultilevelWarning,
            stacklevel=5,
        )
    return found
