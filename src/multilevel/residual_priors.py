"""Priors of the parameters of structured residuals: correlations, ratios of sds, exponents.

Names are those of the fit (`residuals.Residual.names`): ``"rho(subject)"``, ``"ratio(sex, male)"``, ``"power(age)"``. Classes
are ``"rho"``, ``"ratio(sex)"`` and ``"ratio"``. Defaults are weakly informative: a correlation uniform on its range, the
logarithm of a ratio of sds standard normal, an exponent of a power standard normal, that of exp(x) normal with one over the
sd of x. Where sigma is the sd at a covariate of one or zero, its default prior is of the sd of a typical row instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import OptionError
from .priors import LKJ, Density, Fixed, LogNormal, Normal, Prior, Uniform

if TYPE_CHECKING:
    from .prior_table import Entry, Slot
    from .residuals import Residual

Array = NDArray[np.float64]

TYPICAL = " for the sd of a typical row"  # what the default prior of sigma is of, where sigma itself is far from all rows


def slots(residual: Residual) -> list[Slot]:
    """Parameters with the keys that address them, narrowest first, and their default priors."""
    out: list[Slot] = []
    for s in residual.spreads:
        for name in s.names():
            position = (-1, len(out))
            if s.kind == "ident":
                out.append((name, "residual", position, (name, f"ratio({s.column})", "ratio"), LogNormal(0.0, 1.0)))
            else:
                out.append((name, "residual", position, (name,), Normal(0.0, _exponent_sd(s))))
    if residual.serial is not None:
        (name,) = residual.serial.names()
        keys = tuple(dict.fromkeys((name, f"rho({residual.serial.group})", "rho")))
        out.append((name, "residual", (-1, len(out)), keys, Uniform(*_rho_limits(residual))))
    return out


def _exponent_sd(spread: Any) -> float:
    """Of the default prior: the residual sd may change by a factor of e over an sd of the column."""
    if spread.kind == "power" or spread.basis is None:
        return 1.0
    return 1.0 / max(float(np.std(spread.basis)), 1e-300)


def typical(residual: Residual | None) -> bool:
    """Whether sigma is the sd at a covariate of one or zero, maybe far from all rows: its default prior is of another sd.

    That is the sd of a typical row, the geometric mean of all: ``sigma * residual.unit(a, rows)``.
    """
    return residual is not None and any(s.kind != "ident" for s in residual.spreads)


def unit(residual: Residual, values: Array, weights: Array | None, rows: int) -> float:
    """Sd of a typical row over sigma, at values of the residual's parameters."""
    if weights is not None:
        residual = replace(residual, log_sd0=-np.log(weights / np.mean(weights)) / 2)
    return residual.unit(residual.coordinates(values), rows)


def _rho_limits(residual: Residual) -> tuple[float, float]:
    assert residual.serial is not None
    return (-1.0 if residual.serial.kind == "ar1" else 0.0), 1.0


def limits(residual: Residual) -> list[tuple[float, float]]:
    """Per parameter, between what it lies."""
    out = [((0.0 if s.kind == "ident" else -np.inf), np.inf) for s in residual.spreads for _ in range(s.n)]
    return out if residual.serial is None else [*out, _rho_limits(residual)]


def within(prior: Prior, name: str, limit: tuple[float, float]) -> tuple[float, float]:
    """Limits of a parameter under its prior.

    Raises
    ------
    OptionError
        If the parameter cannot have that prior.
    """
    low, high = limit
    between = f"lies between {low:g} and {high:g}" if np.isfinite(high) else "is positive"
    if isinstance(prior, LKJ):
        raise OptionError(f"LKJ is a prior of correlations of group effects; give {name} ml.Uniform, ml.Normal or another")
    if isinstance(prior, Fixed):
        if not isinstance(prior.value, float):
            raise OptionError(f"{name} is one number, but Fixed was given a matrix of shape {np.shape(prior.value)}")
        inside = low < prior.value < high or (prior.value == 0 and low == 0 and np.isfinite(high))
        if not inside:
            raise OptionError(f"{name} {between}, so it cannot be held at {prior.value:g}")
        return limit
    if isinstance(prior, Uniform):
        if prior.lower < low or prior.upper > high:
            raise OptionError(f"{name} {between}, beyond which {prior.text()} goes; use limits within")
        return prior.lower, prior.upper
    return (max(low, 0.0) if prior.positive else low), high


def draw(entry: Entry, rng: np.random.Generator, n: int) -> Array:
    """(n,) values of the prior, cut off at the parameter's limits.

    Raises
    ------
    OptionError
        If next to nothing of it lies within them, or there is nothing to draw from.
    """
    if isinstance(entry.prior, Fixed):
        return entry.prior.draw(rng, n)
    assert isinstance(entry.prior, Density)
    out = np.empty(0)
    for _ in range(1000):
        values = entry.prior.draw(rng, max(n, 100))
        out = np.r_[out, values[(values > entry.limits[0]) & (values < entry.limits[1])]]
        if len(out) >= n:
            return np.asarray(out[:n])
    raise OptionError(
        f"{entry.prior.text()} has almost no mass between {entry.limits[0]:g} and {entry.limits[1]:g}, where "
        f"{entry.name} lives"
    )


# -- on the line ----------------------------------------------------------------------------------------------


def value(entry: Entry, x: float) -> tuple[float, float]:
    """A parameter at an unconstrained coordinate, and the log derivative of it."""
    low, high = entry.limits
    if np.isinf(high):
        return (x, 0.0) if np.isinf(low) else (low + float(np.exp(x)), x)
    e = float(np.exp(-abs(x)))
    share = (1.0 if x >= 0 else e) / (1 + e)
    return low + (high - low) * share, float(np.log(high - low)) - abs(x) - 2 * float(np.log1p(e))


def coordinate(entry: Entry, v: float) -> float:
    """Unconstrained coordinate of a value, moved inside the limits where it lies on or beyond them."""
    low, high = entry.limits
    if np.isinf(high):
        return v if np.isinf(low) else float(np.log(max(v - low, 1e-8)))
    share = min(max((v - low) / (high - low), 1e-3), 1 - 1e-3)
    return float(np.log(share / (1 - share)))


def sigma(entry: Entry, drawn: Array, residual: Residual | None, own: Array, design: Any) -> Array:
    """(n,) sigma from draws of what its prior is of, with (n, m) values of the residual's parameters."""
    if not entry.typical:
        return drawn
    assert residual is not None
    units = np.array([unit(residual, values, design.weights, len(design.y)) for values in own])
    return np.asarray(drawn / units)


def log_density(prior: Prior, v: float) -> float:
    """Of a prior at a value within its limits, as the core computes it (`priors.hpp`); without constants."""
    assert isinstance(prior, Density)
    kind, a, b, c = prior.kernel()
    if kind == "normal":
        return -0.5 * ((v - a) / b) ** 2
    if kind == "student":
        return -0.5 * (a + 1) * float(np.log1p(((v - b) / c) ** 2 / a))
    if kind == "laplace":
        return -abs(v - a) / b
    if kind == "exponential":
        return -a * v
    if kind == "gamma":
        return (a - 1) * float(np.log(v)) - b * v
    if kind == "inverse_gamma":
        return -(a + 1) * float(np.log(v)) - b / v
    if kind == "log_normal":
        return -0.5 * ((float(np.log(v)) - a) / b) ** 2 - float(np.log(v))
    return 0.0  # flat, uniform


def free(entries: Sequence[Entry]) -> list[Entry]:
    """Residual parameters that are not held."""
    return [e for e in entries if e.kind == "residual" and not isinstance(e.prior, Fixed)]
