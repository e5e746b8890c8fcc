"""Estimated marginal means, contrasts and slopes of generalised models: on the scale of the link, or taken back from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import mean_tables, tables
from . import means as linear
from .errors import OptionError
from .means import Asked, Contrasts, Estimates, Means
from .response_scale import Back

if TYPE_CHECKING:
    from .families import Family
    from .generalised import GeneralisedFit

__all__ = ["LinkContrasts", "LinkMeans", "means", "slopes"]

Array = NDArray[np.float64]

RATIOS = {"log": "ratios", "logit": "odds ratios"}  # what exp(difference) is


@dataclass(frozen=True)
class LinkBack(Back):
    """The inverse of a link; a falling one turns the limits round."""

    def apply(self, numbers: dict[str, Array]) -> dict[str, Array]:
        """Take estimate and limits back, the standard error by the delta method; the test stays where it was."""
        out = super().apply(numbers)
        low, high = out["conf_low"], out["conf_high"]
        return {**out, "conf_low": np.minimum(low, high), "conf_high": np.maximum(low, high)}


def back(family: Family) -> Back:
    """From the linear predictor to the mean of the family (of log y: to the median of y).

    Raises
    ------
    OptionError
        For an ordinal response, which has no mean.
    """
    if family.name == "ordinal":
        raise OptionError(
            "transform='response' is not defined for means of an ordinal response: leave it out for the latent scale, or "
            "compare levels with contrasts(), where it gives odds ratios (logit link)"
        )
    if family.name == "lognormal":
        return LinkBack(np.exp, np.exp, logarithm=True)
    return LinkBack(family.mean, family.mean_slope, logarithm=family.link in RATIOS)


class _Link:
    """What means and contrasts of a generalised model say about their scale."""

    def _sentences(self: Any) -> list[str]:
        out = [one for one in mean_tables.messages(self) if one not in mean_tables._scale(self)]
        return [*out[: len(self.notes)], *self._scale_sentence(), *out[len(self.notes) :]]

    def messages(self) -> list[str]:
        """What a reader of the table has to know."""
        return self._sentences()

    def _blocks(self: Any) -> list[tables.Block]:
        return [*mean_tables.blocks(self)[:-1], tables.Block("", notes=tuple(self._sentences()))]

    def __str__(self) -> str:
        return "\n\n".join(tables._block_text(block) for block in self._blocks()) + "\n"

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return mean_tables._html(self._blocks())


@dataclass(frozen=True, eq=False, repr=False)
class _Logarithms(Means):
    """Means whose comparisons are named as ratios."""

    @property
    def _scale(self) -> Back | None:
        return LinkBack(np.exp, np.exp, logarithm=True)


@dataclass(frozen=True, eq=False, repr=False)
class LinkMeans(_Link, Means):
    """Means or slopes of a generalised model."""

    fit: GeneralisedFit

    @property
    def _scale(self) -> Back | None:
        return None if self.asked.transform is None else back(self.fit.family)

    def _scale_sentence(self) -> list[str]:
        return [scale_sentence(self.fit.family, self.asked.transform is not None)]

    def contrasts(self, method: str | Mapping[str, Any] = "pairwise", **options: Any) -> Contrasts:
        """Compare the means; see `Means.contrasts`. With transform="response" ratios (log link) or odds ratios (logit)."""
        if self.asked.transform is not None:
            check_ratios(self.fit.family)
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        plain = (Means if self.asked.transform is None else _Logarithms)(**values)
        made = replace(plain, asked=replace(self.asked, transform=None)).contrasts(method, **options)
        out: LinkContrasts = _as(LinkContrasts, made, asked=replace(made.asked, transform=self.asked.transform))
        return out


@dataclass(frozen=True, eq=False, repr=False)
class LinkContrasts(_Link, Contrasts):
    """Comparisons between means or slopes of a generalised model."""

    fit: GeneralisedFit

    @property
    def _scale(self) -> Back | None:
        if self.asked.transform is None or not all(np.allclose(w.sum(axis=1), 0) for w in self.weights):
            return None
        return LinkBack(np.exp, np.exp, logarithm=True, ratios=True) if ratios_of(self.fit.family) else None

    def _scale_sentence(self) -> list[str]:
        family = self.fit.family
        if self._scale is None:
            return [f"Differences on the scale of the {scale_name(family)}."]
        return [f"{ratios_of(family).capitalize()}; tests are on the scale of the {scale_name(family)}."]


def ratios_of(family: Family) -> str:
    """What exponentials of differences are; empty where they mean nothing."""
    return "ratios of medians" if family.name == "lognormal" else RATIOS.get(family.link, "")


def check_ratios(family: Family) -> None:
    """Refuse differences taken back to the response, where these are neither ratios nor differences of means."""
    if not ratios_of(family):
        raise OptionError(
            f"differences on the scale of the {family.link} link are neither ratios nor differences of means; leave "
            "transform out"
        )


def scale_name(family: Family) -> str:
    """What the linear predictor is the scale of."""
    return "logarithm" if family.name == "lognormal" else f"{family.link} link"


def scale_sentence(family: Family, response: bool) -> str:
    """Which scale means are on: that of the response, or that of the linear predictor."""
    if not response:
        return f"On the scale of the {scale_name(family)}."
    what = "probabilities" if family.name in ("binomial", "betabinomial") else "means"
    what = "medians" if family.name == "lognormal" else what
    zero = " of the part without the extra zeros" if family.zero == "inflated" else ""
    zero = " of the count before zeros are truncated" if family.zero == "hurdle" else zero
    return f"Taken back from the {scale_name(family)} to {what}{zero}, at group effects of zero."


def _as(kind: type[Any], made: Estimates, **changes: Any) -> Any:
    """The same estimates as another class."""
    values = {field.name: getattr(made, field.name) for field in fields(made)}
    return kind(**{**values, **changes})


def means(
    fit: GeneralisedFit,
    factors: str | Sequence[str] | None,
    by: str | Sequence[str] | None,
    at: Mapping[str, Any] | None,
    weights: str,
    level: float,
    adjust: str,
    transform: str | None,
    alone: bool = True,
) -> LinkMeans:
    """Estimated marginal means; see `GeneralisedFit.means`. `alone` unless they are to be compared only."""
    asked = Asked(level, "none", adjust, transform)
    made = linear.means(fit, factors, by=by, at=at, weights=weights, level=level, ddf="none", adjust=adjust)
    out: LinkMeans = _as(LinkMeans, made, asked=asked)
    if alone:
        out.columns()  # so that what cannot be computed is refused here, not where it is printed
    return out


def slopes(
    fit: GeneralisedFit,
    variable: str,
    by: str | Sequence[str] | None,
    at: Mapping[str, Any] | None,
    weights: str,
    level: float,
    adjust: str,
) -> LinkMeans:
    """Slopes of the linear predictor; see `GeneralisedFit.slopes`."""
    made = linear.slopes(fit, variable, by=by, at=at, weights=weights, level=level, ddf="none", adjust=adjust)
    out: LinkMeans = _as(LinkMeans, made)
    return replace(out, title=out.title.replace("Slopes", "Slopes of the linear predictor", 1))
