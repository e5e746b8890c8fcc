"""Likelihood-ratio tests of generalised models: every smaller model fitted as the fit itself was.

Smaller models keep the family, quadrature, offset, weights, dispersion and extra zeros. One without any random effects has an
exact likelihood, which Laplace's approximation and quadrature agree on.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from . import anova, random_tests
from .errors import ConvergenceWarning, MultilevelWarning, OptionError, nearest, users_level
from .progress import Progress

if TYPE_CHECKING:
    from .generalised import GeneralisedFit
    from .model import Model
    from .reml import Optimum

__all__ = ["drop1", "ranova"]

TESTS = {"LRT": "LRT", "Chisq": "LRT", "Wald": "Wald"}  # the second: R's name of the first
HIGHER = 1e-5  # deviance of a smaller model below the fit's that is no rounding


def drop1(fit: GeneralisedFit, test: str, progress: bool | None) -> Any:
    """Tests of leaving out one term at a time; see `GeneralisedFit.drop1`."""
    if not isinstance(test, str) or test not in TESTS:
        hint = "F needs a residual variance, which a generalised model has not" if test == "F" else nearest(test, TESTS)
        raise OptionError(
            f"test {test!r} is not available for generalised models; {hint or 'allowed are LRT and Wald'}"
        )
    if TESTS[test] == "Wald":
        return anova.drop1(fit, "none", "F")
    every, terms, intercept = anova.droppable(fit)
    criteria, df = [fit.criterion], [0]
    with Progress(len(terms), "drop1", progress) as bar:
        smaller = anova.without_terms(fit, every, terms, intercept)
        for term, (model, lost) in zip(terms, smaller, strict=True):
            criteria.append(refitted(fit, model, f"term {term.label}").criterion)
            df.append(lost)
            bar.add(1)
    return anova.ratio_table(fit, terms, criteria, df)


def ranova(fit: GeneralisedFit, progress: bool | None) -> Any:
    """Tests of the random terms; see `GeneralisedFit.ranova`."""
    smaller = random_tests.reductions(fit)
    with Progress(len(smaller), "ranova", progress) as bar:

        def optimum(model: Model, label: str) -> Optimum:
            found = refitted(fit, model, label)
            bar.add(1)
            return found

        return random_tests.table(fit, smaller, optimum)


def refitted(fit: GeneralisedFit, model: Model, label: str) -> Optimum:
    """The optimum of a smaller model.

    Warns
    -----
    ConvergenceWarning
        If it is no certain optimum, or better than that of the fit, which then is none.
    """
    if not model.design.terms and model._quadrature != 1:
        model = model.with_quadrature(1)  # nothing is left to integrate
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MultilevelWarning)
        found = model.fit(threads=fit.engine.threads)
    if not found.convergence.converged:
        warnings.warn(
            f"without {label} the model has no certain optimum, nor the test of it a certain p-value: "
            f"{found.convergence.sentence}",
            ConvergenceWarning,
            stacklevel=users_level(),
        )
    gain = fit.criterion - found.criterion
    if gain > HIGHER and fit.model._quadrature:  # a quick start is at no maximum anyway
        warnings.warn(
            f"the model without {label} has a deviance {gain:.3g} below that of the fit, which is therefore not the maximum "
            "of its likelihood; fit it again from another start",
            ConvergenceWarning,
            stacklevel=users_level(),
        )
    return found.optimum
