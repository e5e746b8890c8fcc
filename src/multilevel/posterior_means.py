"""Means, contrasts and slopes of a posterior: every row of the grid times every draw of the coefficients.

What is taken back to the response is so draw by draw, so that estimates are posterior means on the scale they are shown on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from . import generalised_means, mean_tables, response_scale, tables
from . import means as linear
from .means import Asked, Columns, shown
from .posterior_predict import flat
from .reference_grid import Averages, AveragesTable, dependence, estimable
from .response_scale import Back

if TYPE_CHECKING:
    from .posterior import Posterior

__all__ = ["PosteriorContrasts", "PosteriorEstimates", "PosteriorMeans", "contrasts", "means", "slopes"]

Array = NDArray[np.float64]

Made = TypeVar("Made", bound="PosteriorEstimates")

CHUNK = 2e7  # numbers held at once: draws times estimates


@dataclass(frozen=True, eq=False, repr=False)
class PosteriorEstimates(AveragesTable):
    """Linear combinations of the coefficients of a posterior, each with a label.

    Attributes
    ----------
    posterior : Posterior
    averages : Averages
        Labels, model rows and offsets.
    by : tuple of str
        Columns of the labels within whose combinations comparisons stay.
    asked : Asked
        Level and transformation.
    title : str
    notes : tuple of str
        What was held, and what averaged over.
    """

    posterior: Posterior
    averages: Averages
    by: tuple[str, ...]
    asked: Asked
    title: str
    notes: tuple[str, ...]

    @property
    def compares(self) -> bool:
        """Whether zero (of ratios: one) means no effect, so that the table has the probability to be above."""
        return True

    def frame(self) -> Any:
        """The estimates as a frame of the library of the data."""
        return self.posterior._frame(self.columns())

    def columns(self) -> dict[str, NDArray[Any]]:
        """The columns of `frame` as arrays."""
        return {**self.averages.labels, **{name: values.copy() for name, values in self._numbers.items()}}

    @property
    def draws(self) -> Array:
        """(chains, draws, m) draws of the estimates, on the scale of the table; NaN for what is not determined."""
        kept = self.posterior.draws_kept
        return self._taken_back(self._linear(slice(None))).reshape(kept.chains, kept.draws, -1)

    def _linear(self, part: slice) -> Array:
        """(draws, m) linear combinations."""
        rows = self.averages.rows[part, self.posterior.design.remake.kept]
        made = flat(self.posterior.draws_kept.beta) @ np.nan_to_num(rows).T + self.averages.offset[part]
        made[:, ~self._estimable[part]] = np.nan
        return np.asarray(made)

    def _taken_back(self, values: Array) -> Array:
        back = self._back
        if back is None:
            return values
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            return np.asarray(back.inverse(np.maximum(values, back.least)), dtype=np.float64)

    @cached_property
    def _estimable(self) -> NDArray[np.bool_]:
        stand_in: Any = self.posterior
        return estimable(self.averages.rows, self.posterior.design.remake.kept, dependence(stand_in))

    @cached_property
    def _numbers(self) -> dict[str, Array]:
        """Every number of the table, on the scale asked for."""
        kept = self.posterior.draws_kept
        step = max(1, int(CHUNK / (kept.chains * kept.draws)))
        parts = [self._summary(slice(at, at + step)) for at in range(0, len(self), step)]
        return {name: np.concatenate([one[name] for one in parts]) for name in parts[0]}

    def _summary(self, part: slice) -> dict[str, Array]:
        line = self._linear(part)
        values = self._taken_back(line)
        tails = [0.5 - self.asked.level / 2, 0.5 + self.asked.level / 2]
        with np.errstate(invalid="ignore", over="ignore"):
            low, high = np.quantile(values, tails, axis=0)
            error = values.std(axis=0, ddof=1)
        out = {"estimate": values.mean(axis=0), "est_error": error, "ci_low": low, "ci_high": high}
        if self.compares:
            above = (line > 0).mean(axis=0)
            out["probability"] = np.where(self._estimable[part], above, np.nan)
        return out

    @property
    def _back(self) -> Back | None:
        """How to take draws back to the response, if asked."""
        return None if self.asked.transform is None else _back_of(self.posterior)

    def _scale_sentences(self) -> list[str]:
        """Which scale the numbers are on, where there is a choice."""
        family, response = self.posterior.model.distribution, self.posterior.design.response
        if family is not None:
            return [generalised_means.scale_sentence(family, self.asked.transform is not None)]
        found = response_scale.transformed(response)
        if found is None:
            return []
        return [f"On the scale of {response}." if self._back is None else f"Taken back from {response} to {found[1]}."]

    def messages(self) -> list[str]:
        """What a reader of the table has to know."""
        out = [*self.notes, *self._scale_sentences()]
        out.append(f"Estimates: posterior means; intervals: {100 * self.asked.level:g} %, quantiles of the draws.")
        lost = int(np.sum(~self._estimable))
        if lost:
            out.append(f"NaN: {lost} of {len(self)} cannot be estimated, for the data do not determine them.")
        good, sentence = self.posterior.trust
        return out if good else [*out, sentence]

    def __str__(self) -> str:
        return "\n\n".join(tables._block_text(block) for block in _blocks(self)) + "\n"

    def _repr_html_(self) -> str:
        return mean_tables._html(_blocks(self))

    def plot(self, ax: Any = None) -> Any:
        """Points and intervals, one line each from above.

        Parameters
        ----------
        ax : matplotlib Axes, optional

        Returns
        -------
        Axes
        """
        back = self._back
        line = None if not self.compares else 1.0 if back is not None and back.ratios else 0.0
        limits = (self["ci_low"], self["ci_high"])
        return mean_tables.draw_points(
            self.averages.labels, self["estimate"], limits, line, self.title, self.asked.level, ax
        )


@dataclass(frozen=True, eq=False, repr=False)
class PosteriorMeans(PosteriorEstimates):
    """Posterior of marginal means, or slopes; made by `Posterior.means` and `Posterior.slopes`.

    Prints as a table; ``means["estimate"]`` is one column as an array, ``means.frame()`` the table in the library of the
    data, ``means.draws`` the draws themselves.
    """

    slope: bool = False

    @property
    def compares(self) -> bool:
        """Slopes have the probability to be positive, means have not."""
        return self.slope

    def _scale_sentences(self) -> list[str]:
        family = self.posterior.model.distribution
        return [] if self.slope and family is not None else super()._scale_sentences()  # the title says it

    def contrasts(
        self,
        method: str | Mapping[str, Any] = "pairwise",
        *,
        by: Columns = None,
        ref: Any = None,
        level: float | None = None,
    ) -> PosteriorContrasts:
        """Compare the means within each combination of `by`.

        There is no adjustment for the number of comparisons: probabilities are of each by itself.

        Parameters
        ----------
        method, by, ref
            As for `Means.contrasts` of a fit.
        level : float, optional
            Coverage of the intervals; default that of the means.

        Returns
        -------
        PosteriorContrasts
            With transform="response" ratios (logarithm as response or link) or odds ratios (logit).
        """
        family, transform = self.posterior.model.distribution, self.asked.transform
        if family is not None and transform is not None:
            generalised_means.check_ratios(family)
        within = self.by if by is None else tuple(linear._listed(by, "by"))
        averages, weights = linear.compared(self.averages, within, method, ref, _logarithm(self.posterior, transform))
        asked = self.asked if level is None else replace(self.asked, level=level)
        title = f"Contrasts of {'slopes' if self.slope else 'means'} of{self.title.partition(' of')[2]}"
        return _computed(PosteriorContrasts(self.posterior, averages, within, asked, title, self.notes, weights))


@dataclass(frozen=True, eq=False, repr=False)
class PosteriorContrasts(PosteriorEstimates):
    """Posterior of comparisons; made by `PosteriorMeans.contrasts` and `Posterior.contrasts`.

    Attributes
    ----------
    weights : tuple of ndarray (c, k)
        Of the comparisons on the means, for each combination of `by`.
    """

    weights: tuple[Array, ...] = ()

    @property
    def _back(self) -> Back | None:
        """Differences of logarithms are ratios; those of other transformed means have no scale to go back to."""
        if not _logarithm(self.posterior, self.asked.transform):
            return None
        if not all(np.allclose(w.sum(axis=1), 0) for w in self.weights):
            return None
        family = self.posterior.model.distribution
        if family is not None:
            return Back(np.exp, np.exp, logarithm=True, ratios=True)
        found = response_scale.back(self.posterior.design.response)
        return None if found is None else found.ratio()

    def _scale_sentences(self) -> list[str]:
        family, response = self.posterior.model.distribution, self.posterior.design.response
        found, ratios = response_scale.transformed(response), self._back is not None
        if family is not None:
            what = generalised_means.ratios_of(family).capitalize()
            scale = generalised_means.scale_name(family)
            return [
                f"{what}; probability: of more than one." if ratios else f"Differences on the scale of the {scale}."
            ]
        if found is None:
            return []
        if ratios:
            return [f"Ratios on the scale of {found[1]}; probability: of more than one."]
        return [f"{'On' if self.asked.transform is None else 'Differences on'} the scale of {response}."]


def _back_of(posterior: Posterior) -> Back | None:
    """From the linear predictor to the response; None where it is a column as it is."""
    family = posterior.model.distribution
    return response_scale.back(posterior.design.response) if family is None else generalised_means.back(family)


def _logarithm(posterior: Posterior, transform: str | None) -> bool:
    """Whether comparisons are to be ratios."""
    if transform is None:
        return False
    family = posterior.model.distribution
    if family is not None:
        return bool(generalised_means.ratios_of(family))
    found = response_scale.back(posterior.design.response)
    return found is not None and found.logarithm


def _computed(made: Made) -> Made:
    """Compute now, so that what cannot be is refused here, not where it is printed."""
    made.columns()
    return made


# -- the verbs --------------------------------------------------------------------------------------------------


def means(
    posterior: Posterior,
    factors: Columns,
    by: Columns,
    at: Mapping[str, Any] | None,
    weights: str,
    level: float,
    transform: str | None,
    alone: bool = True,
) -> PosteriorMeans:
    """Marginal means; see `Posterior.means`. `alone` unless they are to be compared only."""
    asked, stand_in = Asked(level, "none", "none", transform), _stand_in(posterior)
    averages, within, notes = linear.mean_averages(stand_in, factors, by, at, weights)
    title = f"Marginal means of {posterior.design.response}, posterior"
    made = PosteriorMeans(posterior, averages, within, asked, title, notes)
    return _computed(made) if alone else made


def contrasts(
    posterior: Posterior,
    factors: Columns,
    method: str | Mapping[str, Any],
    by: Columns,
    at: Mapping[str, Any] | None,
    weights: str,
    level: float,
    ref: Any,
    transform: str | None,
) -> PosteriorContrasts:
    """Comparisons of marginal means; see `Posterior.contrasts`."""
    return means(posterior, factors, by, at, weights, level, transform, alone=False).contrasts(method, ref=ref)


def slopes(
    posterior: Posterior, variable: str, by: Columns, at: Mapping[str, Any] | None, weights: str, level: float
) -> PosteriorMeans:
    """Slopes along a numeric predictor; see `Posterior.slopes`."""
    asked = Asked(level, "none")
    averages, notes = linear.slope_averages(_stand_in(posterior), variable, by, at, weights)
    what = "Slopes" if posterior.model.distribution is None else "Slopes of the linear predictor"
    title = f"{what} of {posterior.design.response} along {variable}, posterior"
    return _computed(PosteriorMeans(posterior, averages, (), asked, title, notes, True))


def _stand_in(posterior: Posterior) -> Any:
    """The grid asks of a fit for its design and data only, which a posterior has."""
    return posterior


# -- how they print -----------------------------------------------------------------------------------------------


def _blocks(made: PosteriorEstimates) -> list[tables.Block]:
    """One block for each combination of `by`, numbers formatted alike in all."""
    columns = made.columns()
    cells: dict[str, list[str]] = {}
    for name in made.averages.labels:
        if name not in made.by and name != "variable":
            cells[name] = [tables.clean(shown(one)) for one in columns[name]]
    labelled, n = len(cells), len(made)
    joint = ["estimate", "est_error", "ci_low", "ci_high"]
    texts = tables.numbers([v for name in joint for v in tables.readable(columns[name], columns["est_error"])])
    cells |= {name: texts[i * n : (i + 1) * n] for i, name in enumerate(joint)}
    if made.compares:
        cells["probability"] = tables.fixed_point(columns["probability"], 3)
    return [
        *_by_group(made, cells, "l" * labelled + "r" * (len(cells) - labelled)),
        tables.Block("", notes=tuple(made.messages())),
    ]


def _by_group(made: PosteriorEstimates, cells: Mapping[str, Sequence[str]], align: str) -> list[tables.Block]:
    out = [tables.Block(f"{made.title}:")] if made.by else []
    for index in linear.groups_of(made.averages, made.by):
        labels = made.averages.labels
        group = ", ".join(f"{name} = {tables.clean(shown(labels[name][index[0]]))}" for name in made.by)
        rows = tuple(tuple(column[i] for column in cells.values()) for i in index.tolist())
        out.append(tables.Block(f"{group}:" if group else f"{made.title}:", tuple(cells), rows, align))
    return out
