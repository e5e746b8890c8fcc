"""Prior distributions a user writes: ``ml.Normal(0, 10)``.

Each is a small record that knows its density's kind and parameters in the core (`priors.hpp`), its draws, and its text. On a
parameter that cannot be negative (a standard deviation) a distribution on the whole line is cut off at zero.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .errors import OptionError

__all__ = [
    "LKJ", "Cauchy", "Exponential", "Fixed", "Flat", "Gamma", "HalfCauchy", "HalfNormal", "HalfStudentT", "InverseGamma",
    "Laplace", "LogNormal", "Normal", "Prior", "StudentT", "Uniform", "check_priors",
]  # fmt: skip

Array = NDArray[np.float64]
KINDS = (
    "flat", "normal", "student", "exponential", "gamma", "inverse_gamma", "log_normal", "uniform", "laplace",
)  # fmt: skip  # as the core numbers them


@dataclass(frozen=True)
class Prior:
    """A prior distribution; see its subclasses."""

    positive: ClassVar[bool] = False  # lives on the positive numbers only
    scales: ClassVar[tuple[str, ...]] = ()  # parameters that must be positive

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not np.isfinite(value):
                raise OptionError(f"{type(self).__name__}: {field.name} must be a finite number, got {value!r}")
            if field.name in self.scales and value <= 0:
                raise OptionError(f"{type(self).__name__}: {field.name} must be positive, got {value!r}")
            object.__setattr__(self, field.name, float(value))

    def text(self) -> str:
        """As a user would write it."""
        values = ", ".join(f"{getattr(self, f.name):.4g}" for f in fields(self))
        return f"{type(self).__name__}({values})"


class Density(Prior, ABC):
    """Prior of a single number that is not held."""

    @abstractmethod
    def kernel(self) -> tuple[str, float, float, float]:
        """Kind in the core and its three parameters."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, n: int) -> Array:
        """(n,) random values."""

    def draw_positive(self, rng: np.random.Generator, n: int) -> Array:
        """(n,) random values of the distribution cut off at zero.

        Raises
        ------
        OptionError
            If less than a thousandth of it is positive.
        """
        out = np.empty(0)
        for _ in range(1000):
            values = self.draw(rng, max(n, 100))
            out = np.r_[out, values[values > 0]]
            if len(out) >= n:
                return np.asarray(out[:n])
        raise OptionError(f"{self} has almost no mass on positive numbers, where this parameter lives")


@dataclass(frozen=True)
class Normal(Density):
    """Normal distribution.

    Parameters
    ----------
    mu, sigma : float
        Mean and standard deviation.
    """

    mu: float = 0.0
    sigma: float = 1.0
    scales = ("sigma",)

    def kernel(self) -> tuple[str, float, float, float]:
        return "normal", self.mu, self.sigma, 0.0

    def draw(self, rng: np.random.Generator, n: int) -> Array:
        return rng.normal(self.mu, self.sigma, n)


@dataclass(frozen=True)
class StudentT(Density):
    """Student's t distribution.

    Parameters
    ----------
    nu, mu, sigma : float
        Degrees of freedom, location, scale.
    """

    nu: float
    mu: float = 0.0
    sigma: float = 1.0
    scales = ("nu", "sigma")

    def kernel(self) -> tuple[str, float, float, float]:
        return "student", self.nu, self.mu, self.sigma

    def draw(self, rng: np.random.Generator, n: int) -> Array:
        return np.asarray(self.mu + self.sigma * rng.standard_t(self.nu, n))


@dataclass(frozen=True)
class Cauchy(Density):
    """Cauchy distribution.

    Parameters
    ----------
    mu, sigma : float
        Location and scale.
    """

    mu: float = 0.0
    sigma: float = 1.0
    scales = ("sigma",)

    def kernel(self) -> tuple[str, float, float, float]:
        return "student", 1.0, self.mu, self.sigma

    def draw(self, rng: np.random.Generator, n: int) -> Array:
        return np.asarray(self.mu + self.sigma * rng.standard_cauchy(n))


@dataclass(frozen=True)
class Laplace(Density):
    """Laplace (double exponential) distribution.

    Parameters
    ----------
    mu, b : float
        Location and scale.
    """

    mu: float = 0.0
    b: float = 1.0
    scales = ("b",)

    def kernel(self) -> tuple[str, float, float, float]:
        return "laplace", self.mu, self.b, 0.0

    def draw(self, rng: np.random.Generator, n: int) -> Array:
        return rng.laplace(self.mu, self.b, n)


@dataclass(frozen=True)
class HalfNormal(Density):
    """Normal distribution around zero, its positive half.

    Parameters
    ----------
    sigma : float
        Standard deviation of the whole normal distribution.
    """

    sigma: float = 1.0
    scales = ("sigma",)
    positive = True

    def kernel(self) -> tuple[str, float, float, float]:
        return "normal", 0.0, self.sigma, 0.0

    def draw(self, rng: np.random.Generator, n: int) -> Array:
        return np.asarray(np.abs(rng.normal(0.0, self.sigma, n)))


@dataclass(frozen=True)
class HalfStudentT(Density):
    """Student's t distribution around zero, its positive half.

    Parameters
    ----------
    nu, sigma : float
        Degrees of freedom and scale.
    """

    nu: float
    sigma: float = 1.0
    scales = ("nu", "sigma")
    positive = True

    def kernel(self) -> tuple[str, float, float, float]:
        return "student", self.nu, 0.0, self.sigma

    def draw(self, rng: np.random.Generator, n: int) -> Array:
        return np.asarray(np.abs(self.sigma * rng.standard_t(self.nu, n)))


@dataclass(frozen=True)
class HalfCauchy(Density):
    """Cauchy distribution around zero, its positive half.

    Parameters
    ----------
    sigma : float
        Scale: its median.
    """

    sigma: float = 1.0
    scales = ("sigma",)
    positive = True

    def kernel(self) -> tuple[str, float, float, float]:
        return "student", 1.0, 0.0, self.sigma

    def draw(self, rng: np.random.Generator, n: int) -> Array:
        return np.asarray(np.abs(self.sigma * rng.standard_cauchy(n)))


@dataclass(frozen=True)
class Exponential(Density):
    """Exponential distribution.

    Parameters
    ----------
    rate : float
        One over the mean.
    """

    rate: float = 1.0
    scales = ("rate",)
    positive = True

    def kernel(self) -> tuple[str, float, float, float]:
        return "exponential", self.rate, 0.0, 0.0

    def draw(self, rng: np.random.Generator, n: int) -> Array:
        return rng.exponential(1 / self.rate, n)


@dataclass(frozen=True)
class Gamma(Density):
    """Gamma distribution; its mean is shape / rate.

    Parameters
    ----------
    shape, rate : float
    """

    shape: float
    rate: float
    scales = ("shape", "rate")
    positive = True

    def kernel(self) -> tuple[str, float, float, float]:
        return "gamma", self.shape, self.rate, 0.0

    def draw(self, rng: np.random.Generator, n: int) -> Array:
        return rng.gamma(self.shape, 1 / self.rate, n)


@dataclass(frozen=True)
class InverseGamma(Density):
    """Distribution of one over a gamma variable; its mean is scale / (shape - 1).

    Parameters
    ----------
    shape, scale : float
    """

    shape: float
    scale: float
    scales = ("shape", "scale")
    positive = True

    def kernel(self) -> tuple[str, float, float, float]:
        return "inverse_gamma", self.shape, self.scale, 0.0

    def draw(self, rng: np.random.Generator, n: int) -> Array:
        return np.asarray(self.scale / rng.gamma(self.shape, 1.0, n))


@dataclass(frozen=True)
class LogNormal(Density):
    """Distribution of the exponential of a normal variable.

    Parameters
    ----------
    mu, sigma : float
        Mean and standard deviation of the logarithm.
    """

    mu: float = 0.0
    sigma: float = 1.0
    scales = ("sigma",)
    positive = True

    def kernel(self) -> tuple[str, float, float, float]:
        return "log_normal", self.mu, self.sigma, 0.0

    def draw(self, rng: np.random.Generator, n: int) -> Array:
        return rng.lognormal(self.mu, self.sigma, n)


@dataclass(frozen=True)
class Uniform(Density):
    """Uniform distribution between two limits.

    Parameters
    ----------
    lower, upper : float
    """

    lower: float
    upper: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.lower < self.upper:
            raise OptionError(f"Uniform: lower must be below upper, got {self.lower:g} and {self.upper:g}")

    def kernel(self) -> tuple[str, float, float, float]:
        return "uniform", self.lower, self.upper, 0.0

    def draw(self, rng: np.random.Generator, n: int) -> Array:
        return rng.uniform(self.lower, self.upper, n)


@dataclass(frozen=True)
class Flat(Density):
    """Constant density: no prior information, and no proper distribution either. Nothing can be drawn from it."""

    def kernel(self) -> tuple[str, float, float, float]:
        return "flat", 0.0, 0.0, 0.0

    def draw(self, rng: np.random.Generator, n: int) -> Array:
        raise OptionError("a flat prior is no distribution: nothing can be drawn from it; give a proper prior")


@dataclass(frozen=True)
class LKJ(Prior):
    """Prior of a correlation matrix, density proportional to its determinant to the power eta - 1.

    Lewandowski, Kurowicka & Joe (2009), J. Multivar. Anal. 100, 1989. For the single correlation of cs() and ar1() a
    beta(eta, eta) distribution on the range it may have.

    Parameters
    ----------
    eta : float
        1 is uniform over correlation matrices; larger values prefer small correlations.
    """

    eta: float = 1.0
    scales = ("eta",)


@dataclass(frozen=True, eq=False)
class Fixed(Prior):
    """A parameter held at a value; for correlations a number or a (k, k) correlation matrix.

    Parameters
    ----------
    value : float or (k, k) array
    """

    value: Any

    def __post_init__(self) -> None:
        try:
            value = np.asarray(self.value, dtype=np.float64)
        except (TypeError, ValueError):
            raise OptionError(f"Fixed needs a number or a matrix, got {self.value!r}") from None
        if value.ndim not in (0, 2) or not np.isfinite(value).all():
            raise OptionError(f"Fixed needs one finite number or a square matrix, got {self.value!r}")
        object.__setattr__(self, "value", float(value) if value.ndim == 0 else value)

    def draw(self, rng: np.random.Generator, n: int) -> Array:
        """(n,) times the value."""
        return np.full(n, self.value)

    def text(self) -> str:
        return f"Fixed({self.value:.4g})" if isinstance(self.value, float) else "Fixed(matrix)"


def check_priors(priors: Any) -> dict[str, Any]:
    """Priors by the names of parameters, as a model takes them.

    Raises
    ------
    OptionError
        If they are no dict of distributions.
    """
    if priors is None:
        return {}
    try:
        found = dict(priors)
    except (TypeError, ValueError):
        raise OptionError(f"priors must be a dict such as {{'b': ml.Normal(0, 10)}}, got {priors!r}") from None
    for name, prior in found.items():
        if not isinstance(prior, Prior):
            raise OptionError(
                f"the prior of {name!r} must be a distribution such as ml.Normal(0, 10) or ml.Fixed(1), got {prior!r}"
            )
    return found
