"""Profile likelihood of generalised models: sds, correlations, dispersion, extra zeros, thresholds and fixed effects.

As for linear models (`profiles`): zeta is the signed root of the rise in deviance when a parameter is held and all others
adapt, and limits are sought on the deviance itself. The deviance is the fit's own, by Laplace's approximation or quadrature.
Coefficients can run away: where the deviance stops rising however far one goes, an interval has no end on that side.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from .errors import ConvergenceWarning, MultilevelWarning, OptionError, users_level
from .generalised_held import LinkHeld
from .generalised_refits import Start, direct, fitted_at
from .profile_paths import Rest, minimise
from .profiles import REACH, SPACING, Curve, Profile, _Better
from .progress import Progress
from .sd_scale import Parameter, chosen, estimates, parameters_of

if TYPE_CHECKING:
    from .generalised import GeneralisedFit

__all__ = ["LinkCurve", "LinkPath", "profile"]

Array = NDArray[np.float64]

ROUNDS = 4  # better optima that a search may start again from
SMALL = 2000  # rows up to which every point is sought from both neighbours, and the ends from far starts too
STILL = 1e-4  # deviance gained on a stretch that counts as none
STRETCH = 3.0  # times as far from the estimate as at the beginning of that stretch
ABSURD = 1e5  # sd of a linear predictor whose link is a logit or logarithm, beyond which it may as well be infinite
SHORTEST = 1e-2  # of the first step: so near a value without a minimum a walk stops
LIMIT = 100  # Newton steps of one search
FARTHEST = 1e3  # zeta that stands for a deviance that cannot be evaluated
SHORT = 0.1  # first radius of a search that must stay in its valley
PROMISED = 1e-3  # deviance that a further step may promise where a search has ended
UNITLESS = ("logit", "probit", "cloglog", "cauchit", "log")
WIDEST = 5.0  # standard error of a coefficient on the scale of a link, above which it is no measure of a step


class LinkPath:
    """The best rest at each value of one parameter."""

    def __init__(self, held: LinkHeld, fit: GeneralisedFit) -> None:
        self._held, self._cheap = held, fit.nobs <= SMALL
        o = fit.optimum
        self.first = Rest(held.start(o.lambdas, o.beta, o.residual))

    def solve(self, value: float, start: Rest) -> tuple[float, Rest]:
        """Least deviance with the parameter at `value`, sought from `start`; infinite where the search does not settle.

        Of a density that is not log-concave, Laplace's approximation has no bound below: it falls without end towards
        parameters at which two modes of the random effects merge and the curvature there vanishes. A search that strides into
        such a cleft is done again with short steps.
        """
        held = self._held
        for radius in (1.0, SHORT):
            seen: list[tuple[Array, Array]] = []

            def slope(x: Array, seen: list[tuple[Array, Array]] = seen) -> tuple[float, Array]:
                deviance, gradient = held.slope(x, value)
                seen.append((x, gradient))
                return deviance, gradient

            deviance, rest = minimise(slope, start, LIMIT, lambda x: held.regular(x, value), radius)
            if not np.isfinite(deviance) or settled(rest, seen):
                return deviance, rest
        return np.inf, start

    def onwards(self, before: Rest, last: Rest, share: float) -> Rest:
        """Straight on from two neighbours, by `share` of their distance."""
        return Rest(last.x + share * (last.x - before.x), last.hessian)

    def others(self, rest: Rest) -> list[Rest]:
        """Further starts for a point that has no outer neighbour to check it: the estimate, and where cheap far ones."""
        far = self._held.variants(rest.x) if self._cheap else []
        return [Rest(self.first.x, rest.hessian), *(Rest(x) for x in far)]

    def restart(self, rest: Rest, value: float) -> tuple[list[Array], Array]:
        """Factors of the terms and coefficients, for a search of the whole model from here."""
        return self._held.point(rest.x, value)


def settled(rest: Rest, seen: list[tuple[Array, Array]]) -> bool:
    """Whether a search ended where another Newton step promises nothing; `seen` are the places with their gradients."""
    if rest.hessian is None or not len(rest.x):
        return True
    gradient = next(g for x, g in reversed(seen) if np.array_equal(x, rest.x))
    values, vectors = np.linalg.eigh(rest.hessian)
    bent = np.maximum(np.abs(values), 1e-12 * np.abs(values).max())
    return float(np.sum((vectors.T @ gradient) ** 2 / bent)) / 2 < PROMISED


class LinkCurve(Curve):
    """Profile of one parameter of a generalised model.

    Attributes
    ----------
    endless : set of int
        Sides (-1, 1) on which the deviance stops rising while the parameter runs to infinity.
    broken : set of int
        Sides on which the values end beyond which the deviance has no minimum, or cannot be evaluated.
    """

    def __init__(self, parameter: Parameter, path: LinkPath, estimate: float, fit: GeneralisedFit, step: float) -> None:
        super().__init__(parameter, path, estimate, fit.optimum, step, path._held.range())
        self.endless: set[int] = set()
        self.broken: set[int] = set()
        self._least_step = SHORTEST * step
        bounded = parameter.kind == "sd" and fit.family.link in UNITLESS
        self._absurd = ABSURD * path._held.unit() if bounded else np.inf

    def _walk(self, sign: int, reach: float, bar: Progress | None) -> None:
        super()._walk(sign, reach, bar)
        if self._still(sign):
            self.endless.add(sign)
            self._forget(sign)
        end = self._end(sign)
        if abs(self.zetas[end]) < reach and not self._at_end(self.values[end], sign):
            self.broken.add(sign)

    def _at_end(self, value: float, sign: int) -> bool:
        if super()._at_end(value, sign):
            return True
        if value != self.values[self._end(sign)] or len(self.values) == 1:
            return False
        return sign in self.endless or self._still(sign)

    def _still(self, sign: int) -> bool:
        """Whether the deviance has stopped rising: nothing gained on the way to a value many times as far away."""
        if np.isfinite(self.bounds[sign > 0]):
            return False
        if sign > 0 and self.values[-1] > self._absurd:
            return True
        first = self.values.index(self._first)
        side = range(first, len(self.values)) if sign > 0 else range(first, -1, -1)
        away = np.abs(np.array([self.values[i] for i in side]) - self._first)
        gained = [self.deviances[i] for i in side]
        begin = np.flatnonzero((away >= 10 * self._step) & (away <= away[-1] / STRETCH))
        return len(begin) > 0 and bool(abs(gained[-1] - gained[begin[-1]]) < STILL)

    def _forget(self, sign: int) -> None:
        """Leave out points far on the plain, which a picture would be stretched by."""
        while True:
            end = self._end(sign)
            before = end - sign
            if not 0 <= before < len(self.values) or self.values[before] == self._first:
                return
            if abs(self.deviances[end] - self.deviances[before]) >= STILL:
                return
            for store in (self.values, self.zetas, self.deviances, self._rests):
                store.pop(end)

    def _zeta(self, value: float, deviance: float) -> float:
        zeta = super()._zeta(value, min(deviance, self._least + FARTHEST**2))
        return float(np.clip(zeta, -FARTHEST, FARTHEST))


def profile(fit: GeneralisedFit, which: Any, progress: bool | None) -> Profile:
    """Profile the likelihood of parameters; see `GeneralisedFit.profile`.

    Raises
    ------
    DataError
        For a fit saved without its rows.
    OptionError
        For an unknown name; if the search finds one better optimum after the other.
    """
    fit.rows_of_data()
    picked = chosen(parameters_of(fit), which)
    messages: list[str] = []
    if fit.model._quadrature == 0:
        fit = by_laplace(fit)
        messages.append(
            "Profiles are of Laplace's approximation at its maximum, whose estimates they list; the fit is lme4's quick "
            "start (quadrature=0), whose estimates differ."
        )
        warnings.warn(messages[-1], MultilevelWarning, stacklevel=users_level())
    if not fit.convergence.converged:
        messages.append(f"Profiles are about estimates that are no certain optimum: {fit.convergence.sentence}")
    with Progress(16 * len(picked), "profile", progress) as bar:
        for _ in range(ROUNDS):
            try:
                curves = curves_of(fit, picked, bar)
                break
            except _Better as better:
                messages.append(f"{better.sentence}; the profile starts again from there.")
                warnings.warn(messages[-1], ConvergenceWarning, stacklevel=users_level())
                fit = certain(fitted_from(fit, better), better)
        else:
            raise OptionError(
                f"{messages[-1]} After {ROUNDS} better ones the search was given up: simplify the model, or fit again"
            )
    messages += [text for curve in curves for text in ends(curve)]
    return Profile(fit, curves, fit.optimum.criterion, tuple(messages))


def by_laplace(fit: GeneralisedFit) -> GeneralisedFit:
    """The model fitted by Laplace's approximation, which a quick start only comes near to."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MultilevelWarning)
        return cast("GeneralisedFit", fit.model.with_quadrature(1).fit(threads=fit.engine.threads))


def fitted_from(fit: GeneralisedFit, better: _Better) -> GeneralisedFit:
    """The whole model fitted from where a profile found it better."""
    factors, plain = better.start
    engine = fit.model.laplace()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MultilevelWarning)
        if direct(engine):
            found = fitted_at(fit.model, engine, Start(engine._engine_lambdas(tuple(factors)), plain))
            if found is not None:
                return found
        from .generalised import GeneralisedFit as FitClass

        return FitClass(fit.model, *engine.fit(tuple(factors)))


def certain(fit: GeneralisedFit, better: _Better) -> GeneralisedFit:
    """A better fit, if it is an optimum.

    Raises
    ------
    OptionError
        If it is none: there is nothing to profile about.
    """
    if fit.convergence.converged:
        return fit
    raise OptionError(
        f"{better.sentence}; but the search from there ends at no certain optimum: {fit.convergence.sentence} Laplace's "
        "approximation may have none for this family and these data: use quadrature, a simpler model, or method='bootstrap'"
    )


def curves_of(fit: GeneralisedFit, picked: Sequence[Parameter], bar: Progress) -> list[LinkCurve]:
    """Profiles to REACH."""
    state = fit.model.laplace().state()
    out = []
    for parameter, value in zip(picked, estimates(picked, fit), strict=True):
        held = LinkHeld(fit, state, parameter)
        curve = LinkCurve(parameter, LinkPath(held, fit), float(value), fit, first_step(fit, held, parameter, value))
        done = bar.done
        curve.explore(REACH, fit.nobs <= SMALL, bar)
        bar.add(done + 16 - bar.done)
        out.append(curve)
    for curve in out:
        curve.settled = True
    return out


def first_step(fit: GeneralisedFit, held: LinkHeld, parameter: Parameter, value: float) -> float:
    """About SPACING in zeta by the curvature at the optimum; of a coefficient without one a small step."""
    if parameter.kind in ("sd", "cor"):
        return held.first_step(float(value))
    vcov = fit.optimum.vcov if parameter.kind == "fixed" else fit.optimum.residual_vcov
    error = float(np.sqrt(vcov[parameter.i, parameter.i]))
    if not np.isfinite(error) or error <= 0:
        error = max(abs(float(value)), 1.0)
    return SPACING * (min(error, WIDEST) if parameter.kind == "residual" else error)


def ends(curve: LinkCurve) -> list[str]:
    """What it means that an interval may have no end, or none that can be found."""
    name, out = curve.parameter.name, []
    for sign in (-1, 1):
        side = "lower" if sign < 0 else "upper"
        if sign in curve.endless:
            out.append(
                f"The likelihood hardly changes as {name} goes to {'minus ' * (sign < 0)}infinity: at levels that do not "
                f"exclude that, its interval has no {side} end."
            )
        elif sign in curve.broken:
            out.append(
                f"Beyond {curve.values[curve._end(sign)]:.6g} of {name} the deviance has no minimum near those before it, or "
                f"cannot be evaluated: a limit farther than that is missing. Quadrature or a bootstrap may have one."
            )
    return out
