"""Distributions of the response: links, what a response may be, mean, variance, draws; which kernel of the core.

The log density and its derivatives live in the core (`family.hpp`), once, for every engine. A family has up to two
parameters beyond the mean: the first on the log scale (dispersion), the second the logit of a share of zeros or the family's
shape (degrees of freedom, power); an ordinal one has thresholds.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import DataError, OptionError, nearest
from .formula import model_text

__all__ = ["FAMILIES", "Family", "distribution_of", "family_of", "student", "tweedie"]

Array = NDArray[np.float64]

LINKS = ("identity", "log", "logit", "probit", "cloglog", "cauchit", "inverse", "sqrt", "inverse_square")
KINDS = (
    "binomial", "poisson", "nbinom2", "nbinom1", "gamma", "inverse_gaussian", "beta", "betabinomial", "student",
    "gaussian", "lognormal", "ordinal", "tweedie",
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
    "tweedie": ("log",),
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
    "tweedie": "phi",
}  # fmt: skip
SHAPES = {"student": "df", "tweedie": "power"}  # one number for all rows, estimated unless it is given
INSIDE = (float(np.finfo(np.float64).tiny), float(np.nextafter(1.0, 0.0)))  # least and largest number between 0 and 1
LEAST_POWER, POWER_WIDTH = 1.01, 0.98  # as in `tweedie.hpp`: powers from 1.01 to 1.99


@dataclass(frozen=True)
class Family:
    """A distribution with its link.

    Attributes
    ----------
    name, link : str
    zero : {"none", "inflated", "hurdle"}
        Further zeros: a mixture with a point at zero, or a hurdle before a truncated count.
    df : float or None
        Degrees of freedom of Student's t, more than 1; None if they are estimated. Of a fit's family: the estimate.
    power : float or None
        Power of Tweedie's variance ``phi * mu**power``, 1.01 to 1.99; None if it is estimated.
    """

    name: str
    link: str
    zero: str = "none"
    df: float | None = None
    power: float | None = None

    @property
    def kernel(self) -> tuple[int, int, int, float]:
        """How the core knows it."""
        zero = ("none", "inflated", "hurdle").index(self.zero)
        fixed = self.df if self.name == "student" else self.power if self.name == "tweedie" else None
        return KINDS.index(self.name), LINKS.index(self.link), zero, fixed or 0.0

    @property
    def shape(self) -> str | None:
        """Name of the number that is estimated beside mean and dispersion, if there is one: "df" or "power"."""
        name = SHAPES.get(self.name)
        return name if name and getattr(self, name) is None else None

    @property
    def own_number(self) -> float:
        """Degrees of freedom or power.

        Raises
        ------
        OptionError
            Where it is to be estimated (`at_shape` puts a value in).
        """
        found = self.df if self.name == "student" else self.power
        if found is None:
            raise OptionError(f"family {self.name!r} has no {self.shape} before it is estimated; give one or use fit.family")
        return found

    @property
    def finite_variance(self) -> bool:
        """Whether there is a variance: not of Student's t with two degrees of freedom or fewer."""
        return self.name != "student" or self.df is None or self.df > 2

    def at_shape(self, second: float) -> Family:
        """The same family with its shape fixed at a value on the scale of its coefficient (see `shape_value`)."""
        if self.shape is None:
            return self
        value = shape_value(self.shape, second)
        return replace(self, df=value) if self.shape == "df" else replace(self, power=value)

    @property
    def dispersion(self) -> str | None:
        """Name of the dispersion parameter, if there is one."""
        return DISPERSION.get(self.name)

    @property
    def parameters(self) -> int:
        """Rows' parameters beyond eta, as the core counts them."""
        if self.name == "ordinal" or self.zero != "none" or self.shape is not None:
            return 2
        return int(self.dispersion is not None)

    def mean(self, eta: Array) -> Array:
        """Mean of the base distribution (of a proportion, for counts of successes) at the linear predictor."""
        return np.asarray(_INVERSE[self.link](eta), dtype=np.float64)

    def failure(self, eta: Array) -> Array:
        """One less the mean, for links of probabilities: with its digits where the mean rounds to one."""
        return np.asarray(_COMPLEMENT[self.link](eta), dtype=np.float64)

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
        """Variance of the base distribution, infinite for Student's t with two degrees of freedom or fewer.

        Of a proportion for counts of successes. The shape has to be fixed (`at_shape`).
        """
        mu, size = self.mean(eta), np.exp(first)
        m = np.ones(len(eta)) if trials is None else trials
        table: dict[str, Callable[[], Array]] = {
            "binomial": lambda: mu * self.failure(eta) / m,
            "betabinomial": lambda: mu * self.failure(eta) * (size + m) / (size + 1) / m,
            "poisson": lambda: mu,
            "nbinom2": lambda: mu + mu * mu / size,
            "nbinom1": lambda: mu * (1 + size),
            "gamma": lambda: mu * mu / size,
            "inverse_gaussian": lambda: mu**3 / size,
            "beta": lambda: mu * self.failure(eta) / (1 + size),
            "student": lambda: size**2 * student_variance(self.own_number),
            "gaussian": lambda: size**2,
            "lognormal": lambda: np.expm1(size**2) * np.exp(2 * mu + size**2),
            "tweedie": lambda: size * mu**self.own_number,
        }
        return np.asarray(table[self.name](), dtype=np.float64)

    def draw(
        self,
        rng: np.random.Generator,
        eta: Array,
        first: Array,
        second: Array,
        trials: Array | None,
        number: Array | None = None,
    ) -> Array:
        """Random responses, one for each row; `number` are the rows' degrees of freedom or powers, where none is fixed."""
        if self.name == "ordinal":
            raise OptionError("draws of ordinal responses need their thresholds")  # engines draw them from probabilities
        y = self._draw_base(rng, eta, first, trials, number)
        if self.zero != "none":
            y[rng.random(len(eta)) < 1 / (1 + np.exp(-second))] = 0.0
        return y

    def _draw_base(
        self, rng: np.random.Generator, eta: Array, first: Array, trials: Array | None, number: Array | None
    ) -> Array:
        mu, size = self.mean(eta), np.exp(first)
        shape: Any = self.own_number if self.name in SHAPES and number is None else number
        m = np.ones(len(eta), dtype=np.int64) if trials is None else trials.astype(np.int64)
        table: dict[str, Callable[[], Any]] = {
            "binomial": lambda: rng.binomial(m, mu),
            "betabinomial": lambda: rng.binomial(m, beta_draws(rng, mu * size, self.failure(eta) * size)),
            "poisson": lambda: rng.poisson(mu),
            "nbinom2": lambda: rng.poisson(rng.gamma(size, mu / size)),
            "nbinom1": lambda: rng.poisson(rng.gamma(mu / size, size)),
            "gamma": lambda: rng.gamma(size, mu / size),
            "inverse_gaussian": lambda: rng.wald(mu, size),
            "beta": lambda: np.clip(beta_draws(rng, mu * size, self.failure(eta) * size), *INSIDE),
            "student": lambda: mu + size * rng.standard_t(shape, len(mu)),
            "gaussian": lambda: mu + size * rng.standard_normal(len(mu)),
            "lognormal": lambda: np.exp(mu + size * rng.standard_normal(len(mu))),
            "tweedie": lambda: tweedie_draws(rng, mu, size, shape),
        }
        if self.zero == "hurdle":  # counts above zero
            table |= {
                "poisson": lambda: positive_poisson(rng, mu),
                "nbinom2": lambda: positive_nbinom(rng, size, mu / size),
                "nbinom1": lambda: positive_nbinom(rng, mu / size, size),
            }
        positive = self.name in (*COUNTS, "gamma", "inverse_gaussian")
        bad = mu[~(mu >= 0)] if positive else mu[:0]
        try:
            if len(bad):
                raise ValueError
            return np.asarray(table[self.name](), dtype=np.float64)
        except ValueError as error:  # of the generator, too: means beyond its range
            value = bad[0] if len(bad) else np.max(mu)
            raise DataError(
                f"responses of family {self.name!r} cannot be drawn at a mean of {value:.3g}, which effects drawn for the "
                f"groups give with link {self.link!r}; draw at the fitted effects (groups='all'), or use another link"
            ) from error


def beta_draws(rng: np.random.Generator, a: Array, b: Array) -> Array:
    """(n,) beta variables; 1 where b is too small for a number above zero, 0 where a is."""
    drawn = rng.beta(np.where(a == 0, 1.0, a), np.where(b == 0, 1.0, b))
    return np.asarray(np.where(b == 0, 1.0, np.where(a == 0, 0.0, drawn)))


def student_variance(df: float) -> float:
    """Variance of Student's t with scale one; infinite with two degrees of freedom or fewer."""
    return df / (df - 2) if df > 2 else float("inf")


def waiting_time(rng: np.random.Generator, total: Array) -> Array:
    """(n,) first events of Poisson processes of rate one, given that they happen before `total`."""
    return np.asarray(np.minimum(-np.log1p(rng.random(len(total)) * np.expm1(-total)), total))


def positive_poisson(rng: np.random.Generator, mu: Array) -> Array:
    """(n,) Poisson counts given that they are above zero: the first event, and those of the time that is left."""
    return np.asarray(1 + rng.poisson(mu - waiting_time(rng, mu)), dtype=np.float64)


def positive_nbinom(rng: np.random.Generator, size: Array, odds: Array) -> Array:
    """(n,) negative binomial counts, of mean ``size * odds``, given that they are above zero.

    Such a count is what a process in time `size` has come to, whose jumps are logarithmic variables and come at the rate
    ``log(1 + odds)`` (Johnson, Kemp & Kotz, Univariate Discrete Distributions, 5.3): the first jump, and the time left. The
    logarithmic variables are Kemp's (1981, Applied Statistics 30(3), algorithm LK).
    """
    rate = np.log1p(odds)
    left = size - waiting_time(rng, size * rate) / np.maximum(rate, 1e-300)
    share = np.maximum(np.exp(-rate * rng.random(len(size))), 1e-16)
    first = 1 + np.floor(np.log1p(-rng.random(len(size))) / np.log1p(-np.minimum(share, 1 - 1e-16)))
    return np.asarray(first + rng.poisson(rng.gamma(np.maximum(left, 0.0), odds)), dtype=np.float64)


def tweedie_draws(rng: np.random.Generator, mu: Array, phi: Array, power: float | Array) -> Array:
    """Random responses of Tweedie's distribution."""
    from .compound_poisson import draw

    return draw(rng, mu, phi, power)


def shape_value(what: str, coefficient: float) -> float:
    """Degrees of freedom or power at its coefficient.

    The degrees of freedom are ``1 + exp(coefficient)``: more than one, so that there is a mean (as in brms), and next to
    normal where it is large. The power is ``1.01 + 0.98 / (1 + exp(-coefficient))``: nearer one the density of a response
    on a grid grows without bound, nearer two there are no zeros.
    """
    return float(shape_values(what, np.asarray(coefficient)))


def shape_values(what: str, coefficients: Array) -> Array:
    """`shape_value` of many coefficients; degrees of freedom up to a number that draws of Student's t can take."""
    if what == "df":
        return np.asarray(1 + np.exp(np.minimum(coefficients, 300.0)))
    return np.asarray(LEAST_POWER + POWER_WIDTH / (1 + np.exp(-coefficients)))


def shape_slope(what: str, coefficient: float) -> float:
    """Derivative of `shape_value` by the coefficient."""
    if what == "df":
        return float(np.exp(coefficient))
    share = float(1 / (1 + np.exp(-coefficient)))
    return POWER_WIDTH * share * (1 - share)


def shape_limit(what: str, coefficient: float) -> tuple[str, str]:
    """Why the coefficient of a shape runs to infinity or minus infinity, and what to do."""
    if what == "df":
        if coefficient > 0:
            return "the tails are no heavier than those of the normal distribution", "family 'gaussian' fits as well"
        return "the tails are as heavy as they can be with a mean (df near 1)", "look for gross errors in the response"
    if coefficient > 0:
        return f"the power is at its upper limit, {LEAST_POWER + POWER_WIDTH:g}", "without zeros, family 'gamma' fits as well"
    return (
        f"the power is at its lower limit, {LEAST_POWER:g}, where responses are multiples of the dispersion",
        "a family of counts may fit as well",
    )


def student(df: float | None = None) -> Family:
    """Student's t: location, scale sigma and degrees of freedom.

    Parameters
    ----------
    df : float, optional
        Degrees of freedom, more than 1; estimated if not given, as with ``family="student"``.

    Examples
    --------
    >>> import multilevel as ml
    >>> model = ml.Model("Reaction ~ Days + (1 | Subject)", ml.load("sleepstudy"), family=ml.student(df=4))
    >>> model.distribution.df
    4.0
    """
    return Family("student", "identity", df=_fixed_shape("df", df))


def tweedie(power: float | None = None) -> Family:
    """Tweedie's compound Poisson-gamma distribution: amounts with exact zeros, variance ``phi * mu**power``.

    Parameters
    ----------
    power : float, optional
        1.01 to 1.99; estimated if not given, as with ``family="tweedie"``.
    """
    return Family("tweedie", "log", power=_fixed_shape("power", power))


def _fixed_shape(what: str, value: Any) -> float | None:
    if value is None:
        return None
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if what == "df" and not (number and 1 < value < np.inf):
        raise OptionError(f"df must be a finite number greater than 1, so that there is a mean; got {value!r}")
    if what == "power" and not (number and LEAST_POWER <= value <= LEAST_POWER + POWER_WIDTH):
        raise OptionError(
            f"power must be between {LEAST_POWER} and {LEAST_POWER + POWER_WIDTH:g} (1 is poisson, 2 is gamma); got {value!r}"
        )
    return float(value)


def _normal_pdf(eta: Array) -> Array:
    return np.asarray(np.exp(-0.5 * eta * eta) / np.sqrt(2 * np.pi))


def _expit(eta: Array) -> Array:
    from scipy.special import expit

    return np.asarray(expit(eta))


def _ndtr(eta: Array) -> Array:
    from scipy.special import ndtr

    return np.asarray(ndtr(eta))


def _power_of_e(eta: Array) -> Array:
    """exp(eta), of predictors of a log-log link: beyond 700 there is no failure either way."""
    return np.asarray(np.exp(np.minimum(eta, 700.0)))


_INVERSE: dict[str, Callable[[Array], Any]] = {
    "identity": lambda e: e,
    "log": np.exp,
    "logit": _expit,
    "probit": _ndtr,
    "cloglog": lambda e: -np.expm1(-_power_of_e(e)),
    "cauchit": lambda e: np.arctan2(1.0, -e) / np.pi,
    "inverse": lambda e: 1 / e,
    "sqrt": lambda e: e * e,
    "inverse_square": lambda e: e**-0.5,
}
_COMPLEMENT: dict[str, Callable[[Array], Any]] = {  # 1 - the inverse
    "logit": lambda e: _expit(-e),
    "probit": lambda e: _ndtr(-e),
    "cloglog": lambda e: np.exp(-_power_of_e(e)),
    "cauchit": lambda e: np.arctan2(1.0, e) / np.pi,
}
_SLOPE: dict[str, Callable[[Array], Any]] = {
    "identity": np.ones_like,
    "log": np.exp,
    "logit": lambda e: _expit(e) * _expit(-e),
    "probit": _normal_pdf,
    "cloglog": lambda e: np.exp(np.minimum(e, 700.0) - _power_of_e(e)),
    "cauchit": lambda e: 1 / (np.pi * (1 + e * e)),
    "inverse": lambda e: -1 / (e * e),
    "sqrt": lambda e: 2 * e,
    "inverse_square": lambda e: -0.5 * e**-1.5,
}


_WITH_SHAPE = re.compile(r"\s*(\w+)\s*\(\s*(?:(df|power)\s*=)?\s*([-+.\w]+)\s*\)\s*$")


def family_of(name: Any, link: Any = None, zero: str = "none") -> Family:
    """The family a user means: a name, a name with its shape such as ``"student(df=4)"``, or a `Family`.

    Raises
    ------
    OptionError
        For an unknown family or a link it does not have, with the nearest name and what is allowed.
    """
    shape: dict[str, float | None] = {}
    if isinstance(name, Family):
        shape = {what: getattr(name, what) for what in ("df", "power")}
        name, link = name.name, name.link if link is None else link
    known = ", ".join(FAMILIES)
    if not isinstance(name, str):
        raise OptionError(f"family must be a name, one of {known}; got {name!r}")
    if (found := _WITH_SHAPE.match(name)) is not None:
        name, shape = found[1], _shape_in(name, *found.groups())
    key = ALIASES.get(name.lower(), name.lower())
    if key not in FAMILIES:
        hint = nearest(key, [*FAMILIES, *ALIASES])
        raise OptionError(f"family {name!r} is not available; {hint or ''} allowed are {known}".replace("  ", " "))
    links = FAMILIES[key]
    if link is not None and link not in links:
        raise OptionError(f"link {link!r} is not available for family {key!r}; allowed are {', '.join(map(repr, links))}")
    if zero != "none" and key not in COUNTS:
        raise OptionError(f"zi and hurdle are for counts ({', '.join(COUNTS)}), not for family {key!r}; leave them out")
    return Family(key, link or links[0], zero, **shape)


def _shape_in(text: str, name: str, what: str | None, value: str) -> dict[str, float | None]:
    """The shape of ``"student(4)"`` or ``"tweedie(power=1.5)"``."""
    own = SHAPES.get(ALIASES.get(name.lower(), name.lower()))
    if own is None or (what or own) != own:
        raise OptionError(f"family {text!r} is not available; only student(df=...) and tweedie(power=...) have a number")
    try:
        number = float(value)
    except ValueError:
        raise OptionError(f"family {text!r}: {own} must be a number, got {value!r}") from None
    return {own: _fixed_shape(own, number)}


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
