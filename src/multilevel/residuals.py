"""Structures of the residuals: what a model takes, read; correlation within groups and variance functions.

``Cov(e) = sigma**2 * G C G``. G is diagonal with a standard deviation multiplier per row, C is block-diagonal with
``rho**lag`` between rows of one group. Both are undone row by row: with e in units of its multiplier,
``(e[i] - c e[i-1]) / sqrt(1 - c**2)``, ``c = rho**lag``, has covariance ``sigma**2 I`` (a first-order Markov process), in
O(n) for any parameters. Pinheiro & Bates (2000), Mixed-Effects Models in S and S-PLUS, ch. 5, whose names are given below.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .errors import DataError, OptionError

if TYPE_CHECKING:
    from .fit import Fit

Array = NDArray[np.float64]
Codes = NDArray[np.int32]

FITTED = "fitted"  # stands for the fitted values under power() and exp()
NONE = 1e8  # coordinate of a CAR(1) without any correlation
TINY = 1e-12  # 1 - c**2 at or below which two rows count as copies of one another


@dataclass(frozen=True)
class Serial:
    """AR(1) (corAR1: whole lags, rho of either sign) or CAR(1) (corCAR1: any lags, rho >= 0) within groups.

    Attributes
    ----------
    kind : {"ar1", "car1"}
    text : str
        As typed.
    group : str
    time : str or None
        Column of times; None for the order of the rows.
    previous : (n,) array of int
        Row before this one in its group; -1 for the first.
    lag : (n,) array
        Time since then in units of `unit`; zero for the first.
    unit : float
        Time in which the search's correlation is taken: the median lag, for a correlation over a day says nothing where
        rows lie years apart. For AR(1) the greatest common divisor of the lags: over half of it the correlation would have
        no sign, for only even powers of it occur.
    over : float
        Lag over which the correlation is told, in the user's time: one, unless it would be 0 or 1 to all digits there. For
        AR(1) `unit`.
    """

    kind: str
    text: str
    group: str
    time: str | None
    previous: NDArray[np.int64] = field(repr=False)
    lag: Array = field(repr=False)
    unit: float = 1.0
    over: float = 1.0

    def names(self) -> tuple[str, ...]:
        return (f"rho({self.group})" if self.over == 1.0 else f"rho({self.group}) over {self.over:.6g}",)

    def starts(self) -> list[Array]:
        """Where the search looks first, in coordinates."""
        rhos = (0.3, 0.7, -0.3, 0.95, -0.7) if self.kind == "ar1" else (0.3, 0.7, 1e-8, 0.95, 0.0)
        return [np.array([self._coordinate(rho)]) for rho in rhos]

    # AR(1): rho = sin(a). CAR(1): rho = exp(-a**2), so that every c = rho**lag is smooth in a, for lags of all sizes;
    # with rho itself, or an angle of it, short lags would have a cusp at zero. Zero lies far out, at `NONE`.

    def _coordinate(self, rho: float) -> float:
        if self.kind == "ar1":
            return float(np.arcsin(rho))
        return float(np.sqrt(-np.log(rho))) if rho > 0 else NONE

    def values(self, a: Array) -> Array:
        """Correlation over a lag of `over`, in the user's time."""
        return np.array([np.sin(a[0]) if self.kind == "ar1" else np.exp(-(a[0] ** 2) * (self.over / self.unit))])

    def coordinates(self, values: Array) -> Array:
        """Inverse of `values`.

        Raises
        ------
        OptionError
            For a correlation out of its range.
        """
        rho = float(values[0])
        low = -1.0 if self.kind == "ar1" else 0.0
        if not low <= rho <= 1:
            raise OptionError(f"{self.names()[0]} of {self.kind}() lies between {low:g} and 1, got {rho:g}")
        if self.kind == "ar1":
            return np.array([np.arcsin(rho)])
        return np.array([min(float(np.sqrt(-np.log(rho) * (self.unit / self.over))), NONE) if rho > 0 else NONE])

    def vanished(self, a: Array) -> bool:
        """Whether a CAR(1) has no correlation left, at any of its lags."""
        return self.kind == "car1" and abs(float(a[0])) >= NONE

    def coefficient(self, a: Array) -> tuple[Array, Array]:
        """(n,) c = rho**lag, zero for first rows, and its derivative by the coordinate."""
        later = self.previous >= 0
        c, slope = np.zeros(len(self.lag)), np.zeros(len(self.lag))
        lag = self.lag[later]
        if self.kind == "car1":
            c[later] = np.exp(-(a[0] ** 2) * lag)
            slope[later] = -2 * a[0] * lag * c[later]
            return c, slope
        rho = float(np.sin(a[0]))
        c[later] = np.power(rho, lag)
        slope[later] = lag * np.power(rho, lag - 1) * np.cos(a[0])
        return c, slope


@dataclass(frozen=True)
class Spread:
    """Residual sd as a function: a multiplier per level (varIdent), a power or the exponential of a covariate.

    Attributes
    ----------
    kind : {"ident", "power", "exp"}
    text : str
        As typed.
    column : str
        "fitted" for a power of the fitted values.
    codes : (n,) array or None
        Level per row ("ident"); the first level has multiplier one.
    levels : tuple of str
    basis : (n,) array or None
        What the parameter multiplies in log sd: ``log|x|`` or x.
    covariate : bool
        False for the fitted values.
    """

    kind: str
    text: str
    column: str
    codes: Codes | None = field(repr=False, default=None)
    levels: tuple[str, ...] = ()
    basis: Array | None = field(repr=False, default=None)
    covariate: bool = True

    @property
    def n(self) -> int:
        return len(self.levels) - 1 if self.kind == "ident" else 1

    def names(self) -> tuple[str, ...]:
        """Of the parameters: ratios of sds, or the exponent."""
        if self.kind == "ident":
            return tuple(f"ratio({self.column}, {level})" for level in self.levels[1:])
        return (f"{self.kind}({self.column})",)

    def scale(self) -> float:
        """Unit of the coordinate: the parameter is the coordinate divided by it."""
        return 1.0 if self.basis is None else max(float(np.std(self.basis)), 1e-300)

    def values(self, a: Array) -> Array:
        """Ratios to the first level's sd, or the exponent."""
        return np.asarray(np.exp(a) if self.kind == "ident" else a / self.scale())

    def coordinates(self, values: Array) -> Array:
        if self.kind == "ident" and not np.min(values, initial=np.inf) > 0:
            raise OptionError(f"the ratios of sds of {self.text} must be positive, got {np.min(values):g}")
        return np.asarray(np.log(values) if self.kind == "ident" else values * self.scale())

    def log_sd(self, a: Array) -> Array:
        """(n,) log multiplier."""
        if self.codes is not None:
            return np.asarray(np.r_[0.0, a][self.codes])
        assert self.basis is not None
        return np.asarray(self.basis * (a[0] / self.scale()))

    def by_coordinate(self, j: int) -> Array:
        """(n,) derivative of `log_sd` by coordinate j."""
        if self.codes is not None:
            return np.asarray((self.codes == j + 1).astype(np.float64))
        assert self.basis is not None
        return self.basis / self.scale()


@dataclass(frozen=True)
class Residual:
    """Structure of the residuals of one model: at most one correlation, any number of variance functions.

    Coordinates are unconstrained: variance functions in their order, then the correlation's angle.
    """

    serial: Serial | None
    spreads: tuple[Spread, ...]
    log_sd0: Array | None = field(repr=False, default=None)  # of prior weights with mean one: -log(w) / 2

    @property
    def n_coordinates(self) -> int:
        return sum(s.n for s in self.spreads) + (self.serial is not None)

    @property
    def iterated(self) -> bool:
        """Whether the variance depends on the fitted values, so that the fit is a fixed point."""
        return any(not s.covariate and s.basis is None for s in self.spreads)

    def with_fitted(self, fitted: Array) -> Residual:
        """The same with these fitted values under power(fitted) and exp(fitted)."""
        if not np.ptp(fitted) > 1e-10 * np.abs(fitted).max(initial=0.0):
            text = next(s.text for s in self.spreads if not s.covariate)
            raise DataError(
                f"{text} needs fitted values that vary, but without it they are {fitted[0]:.6g} in every row used; leave "
                f"it out, or name a column"
            )
        size = np.maximum(np.abs(fitted), 1e-8 * max(float(np.abs(fitted).max()), 1e-300))
        spreads = tuple(
            s if s.covariate else replace(s, basis=np.log(size) if s.kind == "power" else fitted) for s in self.spreads
        )
        return replace(self, spreads=spreads)

    def without_fitted(self) -> Residual:
        """The same before any fitted values are known: for another response."""
        return replace(self, spreads=tuple(s if s.covariate else replace(s, basis=None) for s in self.spreads))

    def names(self) -> tuple[str, ...]:
        """Of the parameters, in the user's terms."""
        out = [name for s in self.spreads for name in s.names()]
        return (*out, *(self.serial.names() if self.serial else ()))

    def texts(self) -> tuple[str, ...]:
        """The pieces as typed."""
        return (*(s.text for s in self.spreads), *([self.serial.text] if self.serial else []))

    def _split(self, a: Array) -> list[Array]:
        ends = np.cumsum([s.n for s in self.spreads])
        return np.split(a, ends) if len(self.spreads) else [a]

    def values(self, a: Array) -> Array:
        """Parameters in the user's terms: ratios and exponents, then rho."""
        parts = self._split(a)
        out = [s.values(part) for s, part in zip(self.spreads, parts, strict=False)]
        return np.concatenate([*out, *([self.serial.values(parts[-1])] if self.serial else [])])

    def coordinates(self, values: Array) -> Array:
        """Inverse of `values`."""
        parts = self._split(np.asarray(values, dtype=np.float64))
        out = [s.coordinates(part) for s, part in zip(self.spreads, parts, strict=False)]
        return np.concatenate([*out, *([self.serial.coordinates(parts[-1])] if self.serial else [])])

    def starts(self, rest: Array | None = None) -> list[Array]:
        """Coordinates at which a search may start: several correlations; sds as residuals `rest` (n,) vary, and constant."""
        flat = np.zeros(sum(s.n for s in self.spreads))
        levels = [flat]
        if rest is not None and self.spreads:
            size = np.log(np.maximum(np.abs(rest), 1e-6 * max(float(np.abs(rest).max()), 1e-300)))
            slopes = np.column_stack([s.by_coordinate(j) for s in self.spreads for j in range(s.n)])
            design = np.column_stack([np.ones(len(size)), slopes])
            moment = np.clip(np.linalg.lstsq(design, size, rcond=None)[0][1:], -2, 2)
            levels = [np.asarray(moment, dtype=np.float64), flat, np.asarray(-moment, dtype=np.float64)]
        if self.serial is None:
            return levels
        return [np.r_[level, angle] for angle in self.serial.starts() for level in levels]

    def log_sd(self, a: Array, rows: int) -> Array:
        """(n,) log sd multiplier of each row, those of the weights included."""
        out = np.zeros(rows) if self.log_sd0 is None else self.log_sd0.copy()
        for s, part in zip(self.spreads, self._split(a), strict=False):
            out += s.log_sd(part)
        return out

    def unit(self, a: Array, rows: int) -> float:
        """What the engine's sigma is times the user's: it works with multipliers whose geometric mean is one.

        A power of a covariate near 10**4 would else move sigma, and with it every relative factor, by orders of magnitude.
        """
        return float(np.exp(np.mean(self.log_sd(a, rows))))

    def at(self, a: Array, rows: int) -> Whitener:
        """What undoes the structure at coordinates a."""
        log_sd = self.log_sd(a, rows)
        log_sd -= np.mean(log_sd)
        slopes = [s.by_coordinate(j) for s in self.spreads for j in range(s.n)]
        slopes = [slope - np.mean(slope) for slope in slopes]
        if self.serial is None:
            none = np.full(rows, -1, dtype=np.int64)
            return Whitener(np.exp(-log_sd), none, np.zeros(rows), np.zeros(rows), slopes, False)
        c, slope = self.serial.coefficient(self._split(a)[-1])
        return Whitener(np.exp(-log_sd), self.serial.previous, c, slope, slopes, True)


@dataclass(frozen=True)
class Whitener:
    """The rows' transformation B at one point, ``B'B = Cov(e)^{-1} sigma**2``, and its derivatives.

    Attributes
    ----------
    inverse_sd : (n,) array
    previous : (n,) array of int
    c, c_slope : (n,) arrays
        Coefficient of the row before, and its derivative by the last coordinate.
    log_sd_slopes : list of (n,) arrays
        Derivatives of the log sd by the other coordinates.
    serial : bool
        Whether there is a last coordinate.
    """

    inverse_sd: Array
    previous: NDArray[np.int64]
    c: Array
    c_slope: Array
    log_sd_slopes: list[Array]
    serial: bool

    def __post_init__(self) -> None:
        object.__setattr__(self, "rest", np.sqrt(np.maximum(1 - self.c**2, TINY)))

    rest: Array = field(init=False, repr=False)  # sqrt(1 - c**2)

    def own(self, values: Array) -> Array:
        """The part of B @ values that comes from each row itself; values (n,) or (n, m)."""
        return _rows(self.inverse_sd / self.rest, values)

    def before(self, values: Array) -> Array:
        """The part that comes from the row before."""
        weight = -self.c * self.inverse_sd[self.previous] / self.rest
        return _rows(weight, values[self.previous])

    def own_slope(self, j: int, values: Array) -> Array:
        """Derivative of `own` by coordinate j."""
        if j < len(self.log_sd_slopes):
            return _rows(-self.log_sd_slopes[j] * self.inverse_sd / self.rest, values)
        return _rows(self.inverse_sd * self.c * self.c_slope / self.rest**3, values)

    def before_slope(self, j: int, values: Array) -> Array:
        """Derivative of `before` by coordinate j."""
        before = self.inverse_sd[self.previous]
        if j < len(self.log_sd_slopes):
            weight = self.c * self.log_sd_slopes[j][self.previous] * before / self.rest
        else:  # d(c / sqrt(1 - c^2)) = dc / sqrt(1 - c^2)^3
            weight = -self.c_slope * before / self.rest**3
        return _rows(weight, values[self.previous])

    def apply(self, values: Array) -> Array:
        """B @ values."""
        return self.own(values) + self.before(values) if self.serial else self.own(values)

    def apply_slope(self, j: int, values: Array) -> Array:
        """dB/da_j @ values."""
        return self.own_slope(j, values) + self.before_slope(j, values) if self.serial else self.own_slope(j, values)

    def log_det(self) -> float:
        """log|Cov(e) / sigma**2|."""
        return float(2 * np.sum(np.log(self.rest)) - 2 * np.sum(np.log(self.inverse_sd)))

    def log_det_slopes(self) -> Array:
        """Its derivatives by the coordinates."""
        out = [2 * np.sum(slope) for slope in self.log_sd_slopes]
        if self.serial:
            out.append(-2 * np.sum(self.c * self.c_slope / self.rest**2))
        return np.array(out)


# -- of a fit -----------------------------------------------------------------------------------------------------------


def multipliers(fit: Fit) -> Array:
    """(n,) residual sd of each row used, relative to sigma: weights and variance functions."""
    design = fit.rows_of_data()
    out = np.ones(len(design.y)) if design.weights is None else 1 / np.sqrt(design.weights)
    r = fit.model.residual
    return out if r is None else np.asarray(out * np.exp(r.log_sd(r.coordinates(fit.optimum.residual), len(out))))


def serial_part(fit: Fit) -> Whitener | None:
    """The correlation of a fit's residuals by itself, for residuals that have been divided by their sds."""
    r = fit.model.residual
    if r is None or r.serial is None:
        return None
    rows = len(fit.rows_of_data().y)
    a = r.coordinates(fit.optimum.residual)[-1:]
    return Residual(r.serial, ()).at(a, rows)


def correlate(whitener: Whitener, noise: Array) -> Array:
    """(..., n) independent noise -> noise with the correlation that `whitener` undoes."""
    waiting = np.flatnonzero(whitener.previous >= 0)
    out = noise.copy()
    while len(waiting):  # rows whose predecessor is done, one place in the groups at a time
        open_now = np.zeros(len(whitener.previous), dtype=bool)
        open_now[waiting] = True
        ready = ~open_now[whitener.previous[waiting]]
        rows = waiting[ready]
        before = out[..., whitener.previous[rows]]
        out[..., rows] = whitener.rest[rows] * noise[..., rows] + whitener.c[rows] * before
        waiting = waiting[~ready]
    return out


def structured_noise(residual: Residual | None, values: Array, weights: Array | None, noise: Array) -> Array:
    """(r, n) standard noise -> residuals relative to sigma, row i with the parameters ``values[i]`` of the structure."""
    out = noise if weights is None else noise / np.sqrt(weights)
    if residual is None:
        return out
    out = out.copy()
    for i, own in enumerate(values):
        a = residual.coordinates(own)
        if residual.serial is not None:
            out[i] = correlate(Residual(residual.serial, ()).at(a[-1:], noise.shape[1]), noise[i])
            out[i] /= 1.0 if weights is None else np.sqrt(weights)
        out[i] *= np.exp(residual.log_sd(a, noise.shape[1]))
    return out


def _rows(weight: Array, values: Array) -> Array:
    return np.asarray(weight * values if values.ndim == 1 else weight[:, None] * values)
