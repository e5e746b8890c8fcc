"""Which prior each parameter of a model has: a user's by name or class, otherwise the default.

Names are those the tables show: a coefficient (``"homework"``), ``"sd(schid, homework)"``, ``"cor(schid)"``, ``"sigma"``;
those of structured residuals are in `residual_priors`.
Classes are ``"b"`` (all coefficients but the intercept), ``"sd(schid)"``, ``"sd"``, ``"cor"``. The narrower one wins.

Defaults are weakly informative and scaled by the data (Gaussian models: the sd of the response; others: the scale of the
link): a coefficient normal with 2.5 sds of y over the sd of its column, an sd the half of Student's t with 3 degrees of
freedom and scale sd(y) over the column's sd, correlations LKJ(2). The intercept is the value at predictors of zero, so its
default is wide where these are far from zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import residual_priors
from .errors import DataError, OptionError, listing, nearest
from .improper import refuse_improper
from .priors import LKJ, Fixed, Flat, HalfStudentT, Normal, Prior, Uniform

if TYPE_CHECKING:
    from .design import Design
    from .families import Family
    from .residuals import Residual

Array = NDArray[np.float64]

COEFFICIENT = 2.5  # default sd of a standardised coefficient, in sds of y
INTERCEPT = 2.5
SD_DF = 3.0
FURTHER = 2.5  # default sd of coefficients of dispersion and extra zeros, on the log and logit scale
THRESHOLD = 5.0
ETA = 2.0


@dataclass(frozen=True)
class Entry:
    """One parameter's prior.

    Attributes
    ----------
    name : str
    kind : {"coefficient", "sd", "cor", "sigma", "further", "residual"}
    prior : Prior
    source : {"user", "default"}
    term : int
        Position of the random term, -1 for others.
    effect : int
        Position of the effect in its term, of the coefficient, or among the residual's parameters.
    limits : tuple of float
        Of a residual's parameter: between what it lies.
    typical : bool
        Of sigma: the prior is of the sd of a typical row (`residual_priors.typical`).
    """

    name: str
    kind: str
    prior: Prior
    source: str
    term: int = -1
    effect: int = -1
    limits: tuple[float, float] = (-np.inf, np.inf)
    typical: bool = False

    def text(self) -> str:
        """The prior as a user would write it."""
        return self.prior.text() + (residual_priors.TYPICAL if self.typical else "")


def prior_table(
    design: Design,
    family: Family | None,
    given: Mapping[str, Any] | None,
    further: Sequence[tuple[str, float]] = (),
    residual: Residual | None = None,
) -> list[Entry]:
    """Entries for all parameters.

    Parameters
    ----------
    further : sequence of (name, number)
        A family's other coefficients with first guesses of them.
    residual : Residual, optional
        Structure of the residuals of a Gaussian model.

    Raises
    ------
    OptionError
        For a name that is no parameter or class of the model, with what exists; for a prior of a kind the parameter
        cannot have.
    """
    given = dict(given or {})
    slots = _slots(design, family) + _further_slots(further)
    slots += [] if residual is None else residual_priors.slots(residual)
    limits = [] if residual is None else residual_priors.limits(residual)
    known = {key for slot in slots for key in slot[3]}
    for name in given:
        if name not in known:
            raise OptionError(_unknown(str(name), slots))
    out = []
    for name, kind, position, keys, default in slots:
        chosen = next((given[k] for k in keys if k in given), None)
        entry = Entry(name, kind, default if chosen is None else chosen, "default" if chosen is None else "user", *position)
        if kind == "residual":
            entry = replace(entry, limits=residual_priors.within(entry.prior, name, limits[entry.effect]))
        else:
            _check(entry, design)
        if kind == "sigma" and chosen is None and residual_priors.typical(residual):
            entry = replace(entry, typical=True)
        out.append(entry)
    if family is not None:
        refuse_improper(out, design, family)
    return out


Slot = tuple[str, str, tuple[int, int], tuple[str, ...], Prior]


def _slots(design: Design, family: Family | None) -> list[Slot]:
    """Parameters with the keys that address them, narrowest first, and their default priors."""
    location, size = scale_of_response(design, family)
    slots: list[Slot] = []
    X = design.X
    means, sds = X.mean(axis=0), X.std(axis=0)
    slopes = [COEFFICIENT * size / s if s > 0 else COEFFICIENT * size for s in sds]
    for i, name in enumerate(design.names):
        if name == "Intercept":
            others = sum((slopes[j] * means[j]) ** 2 for j in range(len(means)) if j != i)
            default: Prior = Normal(location, float(np.sqrt((INTERCEPT * size) ** 2 + others)))
            slots.append((name, "coefficient", (-1, i), (name, "(Intercept)"), default))
        else:
            slots.append((name, "coefficient", (-1, i), (name, "b"), Normal(0.0, float(slopes[i]))))
    for t, term in enumerate(design.terms):
        spread = _effect_scales(term.Z, len(term.names))
        single = term.structure in ("homdiag", "homcs", "ar1")
        effects = [(f"sd({term.group})", 0)] if single else [
            (f"sd({term.group}, {name})", e) for e, name in enumerate(term.names)
        ]
        for name, e in effects:
            keys = (name, f"sd({term.group})", "sd")
            slots.append((name, "sd", (t, e), keys, HalfStudentT(SD_DF, float(size / spread[e]))))
        if len(term.names) > 1 and term.structure not in ("diag", "homdiag"):
            name = f"cor({term.group})"
            slots.append((name, "cor", (t, -1), (name, "cor"), LKJ(ETA)))
    if family is None:
        slots.append(("sigma", "sigma", (-1, -1), ("sigma",), HalfStudentT(SD_DF, size)))
    return slots


def _further_slots(further: Sequence[tuple[str, float]]) -> list[Slot]:
    """Coefficients of the log dispersion, of the logit of extra zeros, thresholds: normal, wide on these scales."""
    slots: list[Slot] = []
    for i, (name, guess) in enumerate(further):
        block = name.split("[")[0] if name.endswith("]") else "thresholds"
        if block == "thresholds":
            default = Normal(0.0, THRESHOLD)
        else:
            default = Normal(guess if name.endswith("[Intercept]") and block != "zi" else 0.0, FURTHER)
        slots.append((name, "further", (-1, i), (name, block), default))
    return slots


def scale_of_response(design: Design, family: Family | None) -> tuple[float, float]:
    """Location and sd that defaults are measured in, on the scale of the link.

    Of the response where the link is the identity; an sd of one about the link of the mean where it is a logarithm; for
    other links of means their slope there times the response's sd; (0, 1) for probabilities and ordinal responses.
    """
    link = "identity" if family is None else family.link
    if link in ("logit", "probit", "cloglog", "cauchit"):
        return 0.0, 1.0
    y = np.log(design.y) if family is not None and family.name == "lognormal" else design.y
    w = np.ones(len(y)) if design.weights is None else design.weights
    offset = np.zeros(len(y)) if design.offset is None else design.offset
    if link == "identity":
        mean, sd = _moments(y - offset, w, robust=family is not None and family.name == "student")
        return mean, sd if sd > 0 else 1.0
    if design.trials is not None:
        y = y / design.trials
    mean, sd = _moments(y, w, robust=False)
    mean = mean if mean > 0 else 1.0
    if link == "log":
        exposure = float(np.log(np.average(np.exp(offset - offset.max()), weights=w)) + offset.max())
        return float(np.log(mean)) - exposure, 1.0
    powers = {"sqrt": 0.5, "inverse": -1.0, "inverse_square": -2.0}
    power = powers[link]
    size = abs(power) * mean ** (power - 1) * (sd if sd > 0 else mean)
    return mean**power - float(np.average(offset, weights=w)), size


def _moments(y: Array, w: Array, robust: bool) -> tuple[float, float]:
    """Mean and sd; from quartiles where single values may be far out."""
    if robust:
        low, middle, high = np.quantile(y, [0.25, 0.5, 0.75])
        if high > low:
            return float(middle), float(high - low) / 1.349
    mean = float(np.average(y, weights=w))
    return mean, float(np.sqrt(np.average((y - mean) ** 2, weights=w)))


def _effect_scales(z: Array | None, k: int) -> list[float]:
    """Per effect the sd of its column; of a constant one its size."""
    if z is None:
        return [1.0] * k
    out = []
    for column in z.T:
        sd = float(column.std())
        out.append(sd if sd > 1e-8 * float(np.abs(column).max()) else max(float(np.abs(column).max()), 1e-300))
    return out


def _unknown(name: str, slots: list[Slot]) -> str:
    names = [s[0] for s in slots]
    classes = sorted({k for s in slots for k in s[3]} - set(names) - {"(Intercept)"})
    hint = nearest(name, [*names, *classes])
    text = f"there is no parameter {name!r} to give a prior to; "
    return text + (f"{hint}; " if hint else "") + f"its parameters are {listing(names)}, classes of them {listing(classes)}"


def _check(entry: Entry, design: Design) -> None:
    prior, name = entry.prior, entry.name
    if entry.kind == "cor":
        if not isinstance(prior, (LKJ, Fixed)):
            raise OptionError(f"correlations take LKJ(eta) or Fixed(value), but {name} was given {prior.text()}")
        return
    if isinstance(prior, LKJ):
        raise OptionError(f"LKJ is a prior of correlations; {name} is not one")
    bounded = isinstance(prior, (Fixed, Uniform)) or prior.positive
    if entry.kind == "further" and not name.endswith("]") and bounded:
        raise OptionError(
            f"{name} is one of the thresholds, which ascend together: it cannot be held or have limits, but was given "
            f"{prior.text()}; use ml.Normal, ml.StudentT, ml.Cauchy or ml.Flat"
        )
    if isinstance(prior, Fixed):
        if not isinstance(prior.value, float):
            raise OptionError(f"{name} is one number, but Fixed was given a matrix of shape {np.shape(prior.value)}")
        if entry.kind not in ("coefficient", "further") and prior.value <= 0:
            raise OptionError(
                f"{name} is a standard deviation, so it cannot be held at {prior.value:g}; give a positive number"
            )
        return
    if entry.kind in ("coefficient", "further"):
        return
    if getattr(prior, "upper", 1.0) <= 0 or (hasattr(prior, "lower") and prior.lower < 0):
        raise OptionError(f"{name} is a standard deviation, which {prior.text()} lets be negative; use limits from zero up")
    if isinstance(prior, Flat) and entry.kind == "sd":
        levels, effects = len(design.terms[entry.term].levels), len(design.terms[entry.term].names)
        if levels < effects + 2:
            raise OptionError(
                f"a flat prior of {name} with {levels} levels has no proper posterior (it takes at least {effects + 2}); "
                "give a proper prior such as ml.HalfNormal(s)"
            )


def further_of(model: Any) -> list[tuple[str, float]]:
    """Names and first guesses of a family's further coefficients."""
    if model.distribution is None:
        return []
    c = model.laplace().coefficients
    return list(zip(c.names, (c.basis @ c.start).tolist(), strict=True))


def summary(model: Any) -> Any:
    """Frame of all priors; see `Model.prior_summary`."""
    if model.design.y is None:
        raise DataError(
            "this model was saved without its data, which its default priors are scaled by; save it with "
            "save(path, data=True)"
        )
    return summary_of(entries_of(model), model.design.kind)


def entries_of(model: Any) -> list[Entry]:
    """Entries for all parameters of a model."""
    return prior_table(model.design, model.distribution, model.priors, further_of(model), model.residual)


def summary_of(entries: Sequence[Entry], kind: str) -> Any:
    """Frame of the priors of all parameters, in a library."""
    from .frame import like

    columns = {
        "parameter": np.array([e.name for e in entries], dtype=object),
        "prior": np.array([e.text() for e in entries], dtype=object),
        "source": np.array([e.source for e in entries], dtype=object),
    }
    return like(kind, columns)
