"""Distributions of the response: links, what a response may be, mean, variance, draws; which kernel of the core.

The log density and its derivatives live in the core (`family.hpp`), once, for every engine. A family has up to two
parameters beyond the mean: the first on the log scale (dispersion), the second the logit of a share of zeros; an ordinal one
has thresholds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import OptionError, nearest
from .formula import model_text

__all__ = ["FAMILIES", "Family", "distribution_of", "family_of"]

Array = NDArray[np.float64]

LINKS = ("identity", "log", "logit", "probit", "cloglog", "cauchit", "inverse", "sqrt", "inverse_square")
KINDS = (
    "binomial", "poisson", "nbinom2", "nbinom1", "gamma", "inverse_gaussian", "beta", "betabinomial", "student",
    "gaussian", "lognormal", "ordinal",
)  # fmt: skip
PROBABILITY = ("logit", "probit", "cloglog", "cauchit")
FAMILIES: dict[str, tuple[str, ...]] = {  # links, the first is the default
    "gaussian": ("identity", "log", "inverse"),
    "binomial": PROBABILITY,
    "poisson": ("log", "sqrt", "identity"),
    "nbinom2": ("log", "sqrt"),
    "nbinom1": ("log",),
    "gamma": ("log", "inverse", "identity"),
    "inverse_gaussian": ("log", "inverse_square", "inverse", "identity"),
    "beta": PROBABILITY[:3],
    "betabinomial": PROBABILITY[:3],
    "student": ("identity",),
    "lognormal": ("identity",),
    "ordinal": PROBABILITY,
}
ALIASES = {
    "bernoulli": "binomial", "negative_binomial": "nbinom2", "negbinomial": "nbinom2", "nb": "nbinom2", "nb2": "nbinom2",
    "nb1": "nbinom1", "inverse.gaussian": "inverse_gaussian", "cumulative": "ordinal", "clmm": "ordinal", "t": "student",
    "beta_binomial": "betabinomial", "normal": "gaussian", "gamma": "gamma",
}  # fmt: skip
COUNTS = ("poisson", "nbinom2", "nbinom1")
TRIALS = ("binomial", "betabinomial")
DISPERSION = {  # name of exp(first parameter)
    "nbinom2": "size", "nbinom1": "alpha", "gamma": "shape", "inverse_gaussian": "lambda", "beta": "precision",
    "betabinomial": "precision", "student": "sigma", "gaussian": "sigma", "lognormal": "sigma",
}  # fmt: skip
STUDENT_DF = 5.0


@dataclass(frozen=True)
class Family:
    """A distribution with its link.

    Attributes
    ----------
    name, link : str
    zero : {"none", "inflated", "hurdle"}
        Further zeros: a mixture with a point at zero, or a hurdle before a truncated count.
    df : float
        Degrees of freedom of Student's t.
    """

    name: str
    link: str
    zero: str = "none"
    df: float = STUDENT_DF

    @property
    def kernel(self) -> tuple[int, int, int, float]:
        """How the core knows it."""
        zero = ("none", "inflated", "hurdle").index(self.zero)
        return KINDS.index(self.name), LINKS.index(self.link), zero, self.df

    @property
    def dispersion(self) -> str | None:
        """Name of the dispersion parameter, if there is one."""
        return DISPERSION.get(self.name)

    @property
    def parameters(self) -> int:
        """Rows' parameters beyond eta, as the core counts them."""
        if self.name == "ordinal" or self.zero != "none":
            return 2
        return int(self.dispersion is not None)

    def mean(self, eta: Array) -> Array:
        """Mean of the base distribution (of a proportion, for counts of successes) at the linear predictor."""
        return np.asarray(_INVERSE[self.link](eta), dtype=np.float64)

    def mean_slope(self, eta: Array) -> Array:
        """Its derivative by the linear predictor."""
        return np.asarray(_SLOPE[self.link](eta), dtype=np.float64)

    def expected(self, eta: Array, first: Array, second: Array) -> Array:
        """Mean of the response with its extra zeros; of a proportion for counts of successes."""
        mu = self.mean(eta)
        if self.name == "lognormal":
            return np.asarray(np.exp(mu + np.exp(2 * first) / 2))
        if self.zero == "none":
            return mu
        share = 1 / (1 + np.exp(-second))
        if self.zero == "inflated":
            return np.asarray((1 - share) * mu)
        return np.asarray((1 - share) * mu / -np.expm1(self._log_zero(eta, first)))

    def _log_zero(self, eta: Array, first: Array) -> Array:
        """Log probability of zero of the base distribution."""
        from . import _core

        zero = np.zeros(len(eta))
        base = Family(self.name, self.link)
        return np.asarray(_core.log_densities(base.kernel, zero, None, eta, first, zero)[0][:, 0])

    def variance(self, eta: Array, first: Array, trials: Array | None = None) -> Array:
        """Variance of the base distribution; of a proportion for counts of successes."""
        mu, size = self.mean(eta), np.exp(first)
        m = np.ones(len(eta)) if trials is None else trials
        table: dict[str, Callable[[], Array]] = {
            "binomial": lambda: mu * (1 - mu) / m,
            "betabinomial": lambda: mu * (1 - mu) * (size + m) / (size + 1) / m,
            "poisson": lambda: mu,
            "nbinom2": lambda: mu + mu * mu / size,
            "nbinom1": lambda: mu * (1 + size),
            "gamma": lambda: mu * mu / size,
            "inverse_gaussian": lambda: mu**3 / size,
            "beta": lambda: mu * (1 - mu) / (1 + size),
            "student": lambda: size**2 * self.df / (self.df - 2),
            "gaussian": lambda: size**2,
            "lognormal": lambda: np.expm1(size**2) * np.exp(2 * mu + size**2),
        }
        return np.asarray(table[self.name](), dtype=np.float64)

    def draw(self, rng: np.random.Generator, eta: Array, first: Array, second: Array, trials: Array | None) -> Array:
        """Random responses, one for each row."""
        if self.name == "ordinal":
            raise OptionError("draws of ordinal responses need their thresholds")  # engines draw them from probabilities
        y = self._draw_base(rng, eta, first, trials)
        if self.zero == "none":
            return y
        extra = rng.random(len(eta)) < 1 / (1 + np.exp(-second))
        if self.zero == "hurdle":
            again = (y == 0) & ~extra
            for _ in range(10_000):
                if not again.any():
                    break
                y[again] = self._draw_base(rng, eta[again], first[again], None)
                again = again & (y == 0)
            y[again] = 1.0  # a mean so small that nothing but one can follow a zero truncated away
        y[extra] = 0.0
        return y

    def _draw_base(self, rng: np.random.Generator, eta: Array, first: Array, trials: Array | None) -> Array:
        mu, size = self.mean(eta), np.exp(first)
        m = np.ones(len(eta), dtype=np.int64) if trials is None else trials.astype(np.int64)
        table: dict[str, Callable[[], Any]] = {
            "binomial": lambda: rng.binomial(m, mu),
            "betabinomial": lambda: rng.binomial(m, rng.beta(mu * size, (1 - mu) * size)),
            "poisson": lambda: rng.poisson(mu),
            "nbinom2": lambda: rng.poisson(rng.gamma(size, mu / size)),
            "nbinom1": lambda: rng.poisson(rng.gamma(mu / size, size)),
            "gamma": lambda: rng.gamma(size, mu / size),
            "inverse_gaussian": lambda: rng.wald(mu, size),
            "beta": lambda: rng.beta(mu * size, (1 - mu) * size),
            "student": lambda: mu + size * rng.standard_t(self.df, len(mu)),
            "gaussian": lambda: mu + size * rng.standard_normal(len(mu)),
            "lognormal": lambda: np.exp(mu + size * rng.standard_normal(len(mu))),
        }
        return np.asarray(table[self.name](), dtype=np.float64)


def _normal_pdf(eta: Array) -> Array:
    return np.asarray(np.exp(-0.5 * eta * eta) / np.sqrt(2 * np.pi))


def _expit(eta: Array) -> Array:
    from scipy.special import expit

    return np.asarray(expit(eta))


def _ndtr(eta: Array) -> Array:
    from scipy.special import ndtr

    return np.asarray(ndtr(eta))


_INVERSE: dict[str, Callable[[Array], Any]] = {
    "identity": lambda e: e,
    "log": np.exp,
    "logit": _expit,
    "probit": _ndtr,
    "cloglog": lambda e: -np.expm1(-np.exp(e)),
    "cauchit": lambda e: 0.5 + np.arctan(e) / np.pi,
    "inverse": lambda e: 1 / e,
    "sqrt": lambda e: e * e,
    "inverse_square": lambda e: e**-0.5,
}
_SLOPE: dict[str, Callable[[Array], Any]] = {
    "identity": np.ones_like,
    "log": np.exp,
    "logit": lambda e: _expit(e) * _expit(-e),
    "probit": _normal_pdf,
    "cloglog": lambda e: np.exp(e - np.exp(e)),
    "cauchit": lambda e: 1 / (np.pi * (1 + e * e)),
    "inverse": lambda e: -1 / (e * e),
    "sqrt": lambda e: 2 * e,
    "inverse_square": lambda e: -0.5 * e**-1.5,
}


def family_of(name: Any, link: Any = None, zero: str = "none") -> Family:
    """The family a user means.

    Raises
    ------
    OptionError
        For an unknown family or a link it does not have, with the nearest name and what is allowed.
    """
    if isinstance(name, Family):
        return name
    known = ", ".join(FAMILIES)
    if not isinstance(name, str):
        raise OptionError(f"family must be a name, one of {known}; got {name!r}")
    key = ALIASES.get(name.lower(), name.lower())
    if key not in FAMILIES:
        hint = nearest(key, [*FAMILIES, *ALIASES])
        raise OptionError(f"family {name!r} is not available; {hint or ''} allowed are {known}".replace("  ", " "))
    links = FAMILIES[key]
    if link is not None and link not in links:
        raise OptionError(f"link {link!r} is not available for family {key!r}; allowed are {', '.join(map(repr, links))}")
    if zero != "none" and key not in COUNTS:
        raise OptionError(f"zi and hurdle are for counts ({', '.join(COUNTS)}), not for family {key!r}; leave them out")
    return Family(key, link or links[0], zero)


def distribution_of(
    family: Any, link: Any, dispersion: Any, zi: Any, hurdle: Any
) -> tuple[Family | None, dict[str, str]]:
    """Family of a generalised model (None for the Gaussian one) and its further fixed sides, rendered."""
    if zi is not None and hurdle is not None:
        raise OptionError("zi and hurdle are two ways to model zeros; give one of them")
    zero = "inflated" if zi is not None else "hurdle" if hurdle is not None else "none"
    found = family_of(family, link, zero)
    sides = {"dispersion": dispersion, "zi": zi if zi is not None else hurdle}
    given = {what: side_text(text, what) for what, text in sides.items() if text is not None}
    if found.dispersion is None and "dispersion" in given:
        raise OptionError(f"family {found.name!r} has no dispersion to model; leave dispersion out")
    if found.name == "gaussian" and found.link == "identity":
        if given:
            raise OptionError("the gaussian family takes variance= for unequal variances, for example variance='exp(x)'")
        return None, {}
    return found, given


def side_text(text: Any, what: str) -> str:
    """The right side of ``"~ x + z"``, rendered for formulaic."""
    if not isinstance(text, str) or not text.strip().startswith("~"):
        raise OptionError(f"{what} must be a formula such as '~ x' or '~ 1', got {text!r}")
    return model_text(text.strip()[1:].strip(), text)
