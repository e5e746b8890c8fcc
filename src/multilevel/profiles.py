"""Profile likelihood of sds, correlations, sigma and fixed effects.

zeta is the signed root of the rise in deviance when a parameter is held away from its estimate and all others adapt
(Bates, Maechler, Bolker & Walker 2015, J. Stat. Softw. 67(1), section 5.1); an interval is where ``|zeta|`` stays below
a normal quantile. The limits are sought on the criterion itself, not on an interpolation. Residual variances that depend
on the fitted values stay with those of the fit: they are no function of the parameters.
"""

from __future__ import annotations

import bisect
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import ConvergenceWarning, DataError, OptionError
from .frame import like
from .held import Held
from .inference import check_level
from .profile_paths import FixedPath, Path, RowsPath, VariancePath
from .progress import Progress
from .sd_scale import Parameter, chosen, draws, parameters_of
from .structured import StructuredEngine

if TYPE_CHECKING:
    from .fit import Fit
    from .reml import Engine, Optimum

__all__ = ["Curve", "Profile", "profile"]

Array = NDArray[np.float64]

REACH = 2.575829303548901  # zeta to which profiles are drawn: intervals of 99 %
SPACING = REACH / 8  # of zeta between points, lme4's
POINTS = 60  # a side
RETURNS = 8  # times that a side is walked on after a lower valley was found at its end
LOWER = 1e-6  # deviance below the optimum's that is a better optimum, not rounding
CHEAP = 1e6  # flops of a factorisation below which every point is sought from both neighbours
NEAR = 1e-8  # of a residual correlation to one, which makes rows copies of one another
ROUNDING = 1e-10  # of a first step: an estimate so near the end of its range is there
NO_SIGMA = 1e-3  # of its estimate: zero, where random effects of one row each can take its place


class _Better(Exception):
    """The search for a profile found a lower deviance than the fit."""

    def __init__(self, name: str, value: float, gain: float, start: tuple[Any, Any]) -> None:
        self.start = start
        self.sentence = (
            f"the profile of {name} found a deviance {gain:.3g} below that of the fit (at {value:.6g}), so the fit was not "
            "the maximum of the likelihood"
        )
        super().__init__(self.sentence)


class Curve:
    """Profile of one parameter: points so far, and any further value on request.

    Attributes
    ----------
    parameter : Parameter
    estimate : float
        Maximum likelihood; NaN for a correlation with an sd of zero.
    values, zetas, deviances : lists of float
        Ascending by value.
    """

    def __init__(
        self,
        parameter: Parameter,
        path: Path,
        estimate: float,
        optimum: Optimum,
        step: float,
        bounds: tuple[float, float],
        open_ends: tuple[bool, bool] = (False, False),
    ) -> None:
        self.parameter, self.estimate = parameter, estimate
        self._path, self._least, self._step = path, optimum.criterion, float(step)
        self._first = 0.0 if np.isnan(estimate) else estimate  # where an sd is zero, every correlation is as good
        for bound, is_open in zip(bounds, open_ends, strict=True):
            if not is_open and abs(self._first - bound) < ROUNDING * self._step:
                self._first = self.estimate = bound
        self.values, self.zetas, self.deviances = [self._first], [0.0], [optimum.criterion]
        self._rests: list[Any] = [path.first]
        self._least_step = 0.0  # beside a value that has no minimum
        self.settled = False  # whether a better optimum is past the time to start again from it
        self.bounds, self._open = bounds, open_ends

    def explore(self, reach: float, thorough: bool, bar: Progress | None = None) -> None:
        """Points on both sides until zeta exceeds `reach`, or the parameter's range ends."""
        for sign in (-1, 1):
            for _ in range(RETURNS):
                before = len(self.values)
                self._walk(sign, reach, bar)
                if len(self.values) == before or not self._return(sign, thorough):
                    break

    def at(self, value: float) -> float:
        """zeta at a value, exactly: the rest is fitted there."""
        place = bisect.bisect_left(self.values, value)
        if place < len(self.values) and self.values[place] == value:
            return self.zetas[place]
        return self._put(value, *self._solve(value))

    def limits(self, level: float) -> tuple[float, float]:
        """Where zeta passes the normal quantiles; the end of the range where it does not."""
        from scipy.special import ndtri

        check_level(level)
        z = float(ndtri(0.5 + level / 2))
        if z > REACH:
            self.explore(z, False)
        return self._limit(-1, z), self._limit(1, z)

    def _limit(self, sign: int, z: float) -> float:
        from scipy.optimize import brentq

        if self._at_end(self._first, sign):
            return self.bounds[sign > 0]
        side = [i for i in range(len(self.values)) if sign * (self.values[i] - self._first) >= 0][::sign]
        for inner, outer in zip(side, side[1:], strict=False):
            if sign * self.zetas[outer] >= z:
                a, b = self.values[inner], self.values[outer]
                rough = 1e-8 * abs(b - a)
                return float(brentq(lambda v: self.at(float(v)) - sign * z, a, b, xtol=rough + 1e-300, rtol=1e-12))
        return self.bounds[sign > 0] if self._at_end(self.values[side[-1]], sign) else float("nan")

    def _at_end(self, value: float, sign: int) -> bool:
        """Whether the range ends here; at an end that cannot be evaluated, a value so near that it is as good."""
        bound = self.bounds[sign > 0]
        if value == bound or not self._open[sign > 0]:
            return value == bound
        if self.parameter.kind == "sigma":
            return sign < 0 and value < NO_SIGMA * self._first
        return abs(bound) == 1.0 and abs(value - bound) < NEAR

    def _end(self, sign: int) -> int:
        return 0 if sign < 0 else len(self.values) - 1

    def _walk(self, sign: int, reach: float, bar: Progress | None) -> None:
        """Outwards in steps of about SPACING in zeta."""
        bound = self.bounds[sign > 0]
        step = self._step
        for count in range(POINTS):
            end = self._end(sign)
            value, zeta = self.values[end], self.zetas[end]
            if abs(zeta) >= reach or self._at_end(value, sign):
                return
            for _ in range(8):
                target = self._inside(value, sign * step, bound)
                found = self._solve(target)
                if target == value or (not np.isfinite(found[0]) and abs(target - value) <= self._least_step):
                    return
                moved = abs(self._zeta(target, found[0]) - zeta)
                if moved <= 2.5 * SPACING:
                    break
                step = abs(target - value) * max(SPACING / moved, 0.1)
            self._put(target, *found)
            if bar is not None:
                bar.add(count < 8)
            # an sd near zero and a zeta near zero rise slowly at first: no leap on their account
            step = abs(target - value) * float(np.clip(SPACING / max(moved, 1e-300), 0.25, 3.0))

    def _inside(self, value: float, step: float, bound: float) -> float:
        """The next value; at the end of the range the end itself, or half way where the likelihood does not exist."""
        target = value + step
        if np.isfinite(bound) and (target - bound) * np.sign(step) >= 0:
            return (value + bound) / 2 if self._open[step > 0] else bound
        return target

    def _return(self, sign: int, thorough: bool) -> bool:
        """Look for a valley that the way out missed: other starts at the end, then each point from its outer neighbour.

        Returns whether the end itself was found lower, so that the way goes on.
        """
        first = self.values.index(self._first)
        end = self._end(sign)
        lower = [self._better(end, start) for start in self._path.others(self._rests[end])]
        if thorough or any(lower):
            for i in range(end - sign, first, -sign):
                self._better(i, self._rests[i + sign])
        return any(lower)

    def _better(self, i: int, start: Any) -> bool:
        deviance, rest = self._path.solve(self.values[i], start)
        if deviance >= self.deviances[i] - 1e-8:
            return False
        self._check(self.values[i], deviance, rest)
        self.deviances[i], self._rests[i] = deviance, rest
        self.zetas[i] = self._zeta(self.values[i], deviance)
        return True

    def _solve(self, value: float) -> tuple[float, Any]:
        """Least deviance at a new value, from its neighbours."""
        place = bisect.bisect_left(self.values, value)
        if 0 < place < len(self.values):
            a, b = place - 1, place
            share = (value - self.values[a]) / (self.values[b] - self.values[a])
            return self._path.solve(value, self._path.onwards(self._rests[b], self._rests[a], -share))
        last = 0 if place == 0 else place - 1
        before = last + (1 if place == 0 else -1)
        if not 0 <= before < len(self.values):
            return self._path.solve(value, self._rests[last])
        share = (value - self.values[last]) / (self.values[last] - self.values[before])
        found = self._path.solve(value, self._path.onwards(self._rests[before], self._rests[last], share))
        return found if np.isfinite(found[0]) else self._path.solve(value, self._rests[last])

    def _put(self, value: float, deviance: float, rest: Any) -> float:
        self._check(value, deviance, rest)
        zeta = self._zeta(value, deviance)
        place = bisect.bisect_left(self.values, value)
        for store, new in ((self.values, value), (self.zetas, zeta), (self.deviances, deviance), (self._rests, rest)):
            store.insert(place, new)
        return zeta

    def _check(self, value: float, deviance: float, rest: Any) -> None:
        if deviance >= self._least - LOWER:
            return
        better = _Better(self.parameter.name, value, self._least - deviance, self._path.restart(rest, value))
        if not self.settled:
            raise better
        warnings.warn(f"{better}; refit from another start", ConvergenceWarning, stacklevel=5)

    def _zeta(self, value: float, deviance: float) -> float:
        return float(np.sign(value - self._first) * np.sqrt(max(deviance - self._least, 0.0)))


class Profile:
    """Profiled deviance of parameters on the scale of sds and correlations, by maximum likelihood.

    Attributes
    ----------
    names : tuple of str
        "sd(Subject, Days)", "cor(Subject, Intercept, Days)", "sigma", fixed effects.
    deviance : float
        -2 log-likelihood at the maximum.
    messages : tuple of str
        What the search met: a better optimum than the fit's.
    """

    def __init__(self, fit: Fit, curves: Sequence[Curve], deviance: float, messages: tuple[str, ...]) -> None:
        self.curves, self.deviance, self.messages = tuple(curves), deviance, messages
        self._fit = fit

    @property
    def names(self) -> tuple[str, ...]:
        """Parameters profiled."""
        return tuple(c.parameter.name for c in self.curves)

    def frame(self) -> Any:
        """Points of the profiles.

        Returns
        -------
        frame
            parameter, value, zeta (signed root of the rise in deviance), deviance (-2 log-likelihood).
        """
        name = np.concatenate([np.full(len(c.values), c.parameter.name, dtype=object) for c in self.curves])
        value, zeta, deviance = (
            np.concatenate([getattr(c, what) for c in self.curves]) for what in ("values", "zetas", "deviances")
        )
        return like(self._fit.design.kind, {"parameter": name, "value": value, "zeta": zeta, "deviance": deviance})

    def confint(self, level: float = 0.95) -> Any:
        """Profile likelihood intervals.

        Returns
        -------
        frame
            term, estimate (maximum likelihood), conf_low, conf_high. A limit of exactly 0 for an sd, or -1 or 1 for a
            correlation, means that the likelihood does not exclude the end of the range.
        """
        limits = np.array([c.limits(level) for c in self.curves]).reshape(-1, 2)
        columns = {
            "term": np.array(self.names, dtype=object),
            "estimate": np.array([c.estimate for c in self.curves]),
            "conf_low": limits[:, 0],
            "conf_high": limits[:, 1],
        }
        return like(self._fit.design.kind, columns)

    def plot(self, ax: Any = None) -> Any:
        """zeta of each parameter with the 50, 80, 95 and 99 % intervals; see `FitPlots.profile`."""
        return self._fit.plot.profile(ax=ax, profile=self)

    def __repr__(self) -> str:
        points = sum(len(c.values) for c in self.curves)
        return f"<Profile of {len(self.curves)} parameters, {points} points; confint(), frame(), plot()>"


def profile(fit: Fit, which: Any = None, progress: bool | None = None) -> Profile:
    """Profile the likelihood of parameters; see `Fit.profile`."""
    picked = chosen(parameters_of(fit), which)
    engine = fit.engine
    if fit.model.residual is not None or not all(structure.free for structure in engine.blocks.structures):
        fit.rows_of_data()  # the search over structures needs them
    optimum = engine.fit(False) if fit.reml else fit.optimum
    messages: list[str] = []
    with Progress(16 * len(picked), "profile", progress) as bar:
        for _ in range(4):
            try:
                curves = _curves(fit, engine.fitted(optimum), optimum, picked, bar)
                break
            except _Better as better:
                messages.append(f"{better.sentence}; the profile starts again from there.")
                optimum = _fitted_from(better)
        else:
            raise OptionError(
                f"{messages[-1]} After four better ones the search was given up: simplify the random effects, or fit again"
            )
    for message in messages:
        warnings.warn(message[0].upper() + message[1:], ConvergenceWarning, stacklevel=3)
    return Profile(fit, curves, optimum.criterion, tuple(messages))


def _fitted_from(better: _Better) -> Optimum:
    """The whole model fitted from where a profile found it better."""
    engine: Engine
    engine, lambdas = better.start
    try:
        return engine.fit(False, lambdas)
    except DataError as error:  # sigma goes to zero where effects of one row each can take its place
        raise DataError(f"{better.sentence}; but it cannot be fitted there: {error}") from None


def _curves(fit: Fit, engine: Engine, optimum: Optimum, picked: Sequence[Parameter], bar: Progress) -> list[Curve]:
    """Profiles to REACH."""
    covs = [optimum.sigma**2 * (m @ m.T)[None] for m in optimum.lambdas]
    values = draws(picked, covs, np.array([optimum.sigma]), optimum.beta[None], optimum.residual[None])[0]
    thorough = engine.blocks.core.flops < CHEAP and fit.model.residual is None
    out = []
    for parameter, value in zip(picked, values, strict=True):
        held = Held(engine, fit.design, parameter, optimum.sigma)
        path: Path
        if parameter.kind != "fixed":
            path, step = VariancePath(held, optimum), held.first_step(float(value))
        else:
            column = parameter.i
            plain = not isinstance(engine, StructuredEngine)
            path = FixedPath(engine, column, optimum) if plain else RowsPath(held, column, fit.design, optimum)
            step = SPACING * float(np.sqrt(optimum.vcov[column, column]))
        curve = Curve(parameter, path, float(value), optimum, step, held.range(), held.open_ends())
        done = bar.done
        curve.explore(REACH, thorough, bar)
        bar.add(done + 16 - bar.done)
        out.append(curve)
    for curve in out:
        curve.settled = True
    return out
