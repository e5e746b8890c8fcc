"""Estimated marginal means, slopes, and comparisons between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import inference, response_scale
from .effect_lines import objects
from .errors import OptionError, listing, nearest
from .frame import label_text, like
from .mean_contrasts import contrast_weights, default_adjust
from .multiplicity import Family, adjust, check_adjust
from .reference_grid import (
    WEIGHTS,
    Averages,
    AveragesTable,
    ReferenceGrid,
    average,
    dependence,
    derivative,
    estimable,
    make_grid,
)

if TYPE_CHECKING:
    from .fit import Fit

__all__ = ["Contrasts", "Estimates", "Means", "means", "slopes"]

Array = NDArray[np.float64]
Columns = str | Sequence[str] | None
_NUMBERS = ("estimate", "std_error", "df", "statistic", "p_value", "conf_low", "conf_high")


@dataclass(frozen=True)
class Asked:
    """How estimates are to be given."""

    level: float = 0.95
    ddf: str = "satterthwaite"
    adjust: str = "none"
    transform: str | None = None

    def __post_init__(self) -> None:
        inference.check_level(self.level)
        check_adjust(self.adjust)
        if self.transform not in (None, "response"):
            raise OptionError(f"transform {self.transform!r} is not known; allowed are 'response' and None")


@dataclass(frozen=True, eq=False, repr=False)
class Estimates(AveragesTable):
    """Linear combinations of the fixed effects, each with a label.

    Attributes
    ----------
    fit : Fit
    averages : Averages
        Labels, model rows and offsets.
    by : tuple of str
        Columns of the labels within whose combinations comparisons and adjustments stay.
    asked : Asked
    title : str
    notes : tuple of str
        What was held, and what averaged over.
    """

    fit: Fit
    averages: Averages
    by: tuple[str, ...]
    asked: Asked
    title: str
    notes: tuple[str, ...]

    @property
    def tests(self) -> bool:
        """Whether the table has tests against zero."""
        return True

    def frame(self) -> Any:
        """The estimates as a frame of the library of the data."""
        return like(self.fit.design.kind, self.columns())

    def columns(self) -> dict[str, NDArray[Any]]:
        """The columns of `frame` as arrays."""
        shown = [name for name in _NUMBERS if self.tests or name not in ("statistic", "p_value")]
        return {**self.averages.labels, **{name: self._numbers[name].copy() for name in shown}}

    def groups(self) -> list[NDArray[np.int64]]:
        """Positions of the estimates of each combination of `by`, in order."""
        return groups_of(self.averages, self.by)

    @cached_property
    def _numbers(self) -> dict[str, Array]:
        """Every number of the table, on the scale asked for."""
        estimate, std_error, df = (np.full(len(self), np.nan) for _ in range(3))
        known = self._estimable
        rows = self.averages.rows[:, self.fit.design.remake.kept][known]
        if len(rows):
            estimate[known], std_error[known], df[known] = inference.estimates(self.fit, rows, self.asked.ddf)
        estimate = estimate + self.averages.offset
        with np.errstate(divide="ignore", invalid="ignore"):
            statistic = estimate / std_error
        p_value, critical = np.full((2, len(self)), np.nan)
        for group, index in enumerate(self.groups()):
            family = Family(statistic[index], df[index], self._covariance(index), self._compared(group, index))
            p_value[index], critical[index] = adjust(self.asked.adjust, family, self.asked.level)
        out = {"estimate": estimate, "std_error": std_error, "df": df, "statistic": statistic, "p_value": p_value}
        out |= {"conf_low": estimate - critical * std_error, "conf_high": estimate + critical * std_error}
        back = self._scale
        return out if back is None else back.apply(out)

    @cached_property
    def _estimable(self) -> NDArray[np.bool_]:
        return estimable(self.averages.rows, self.fit.design.remake.kept, dependence(self.fit))

    def _covariance(self, index: NDArray[np.int64]) -> Array:
        """Covariance of some estimates, NaN where one is not determined; made only where a method needs it."""
        if self.asked.adjust not in ("scheffe", "mvt"):
            return np.empty((0, 0))
        rows = self.averages.rows[index][:, self.fit.design.remake.kept]
        cov: Array = rows @ _vcov(self.fit, self.asked.ddf) @ rows.T
        return cov

    def _compared(self, group: int, index: NDArray[np.int64]) -> int | None:
        """Number of means whose pairwise differences the estimates of a group are; None where they are anything else."""
        return None

    @property
    def _scale(self) -> response_scale.Back | None:
        """How to take the estimates back to the response, if asked."""
        if self.asked.transform is None:
            return None
        return response_scale.back(self.fit.design.response)

    def messages(self) -> list[str]:
        """What a reader of the table has to know."""
        from .mean_tables import messages

        return messages(self)

    def __str__(self) -> str:
        from .mean_tables import text

        return text(self)

    def _repr_html_(self) -> str:
        from .mean_tables import html

        return html(self)

    def plot(self, ax: Any = None) -> Any:
        """Points and intervals, one line each from above.

        Parameters
        ----------
        ax : matplotlib Axes, optional

        Returns
        -------
        Axes
        """
        from .mean_tables import draw

        return draw(self, ax)


@dataclass(frozen=True, eq=False, repr=False)
class Means(Estimates):
    """Estimated marginal means, or slopes; made by `Fit.means` and `Fit.slopes`.

    Prints as a table; ``means["estimate"]`` is one column as an array, ``means.frame()`` the table in the library of the
    data.
    """

    slope: bool = False

    @property
    def tests(self) -> bool:
        """Slopes are tested against zero, means are not."""
        return self.slope

    def names(self) -> list[str]:
        """Labels of the means, without the columns of `by`."""
        return names_of(self.averages, self.by)

    def contrasts(
        self,
        method: str | Mapping[str, Any] = "pairwise",
        *,
        by: Columns = None,
        adjust: str | None = None,
        ref: Any = None,
        level: float | None = None,
    ) -> Contrasts:
        """Compare the means within each combination of `by`.

        Parameters
        ----------
        method : str or dict
            "pairwise" (each minus every later one), "revpairwise", "trt.vs.ctrl" (each minus the one of `ref`),
            "consecutive" (each minus the one before), "poly" (polynomial trends over equally spaced levels), "eff" (each
            minus the average), or name -> weights, as in ``{"A - rest": [1, -0.5, -0.5]}`` or
            ``{"C - A": {"C": 1, "A": -1}}``.
        by : str or list of str, optional
            Other columns to compare within than those that the means were made with; [] for none.
        adjust : {"none", "bonferroni", "holm", "sidak", "tukey", "fdr", "scheffe", "mvt"}, optional
            For the number of comparisons in each combination of `by`. Default: "tukey" for pairwise, "mvt" (Dunnett's
            method, exact) for trt.vs.ctrl and consecutive, "fdr" for eff, else "none". Intervals are adjusted alike; for
            "holm" and "fdr", which have none, they are Bonferroni's.
        ref : label or position, optional
            The control of "trt.vs.ctrl"; default the first.
        level : float, optional
            Coverage of the intervals; default that of the means.

        Returns
        -------
        Contrasts
            With a logarithm as response and transform="response", ratios.
        """
        ratios = self._scale is not None and self._scale.logarithm
        within = self.by if by is None else tuple(_listed(by, "by"))
        averages, weights = compared(self.averages, within, method, ref, ratios)
        asked = replace(self.asked, adjust=adjust if adjust is not None else default_adjust(method))
        asked = asked if level is None else replace(asked, level=level)
        if asked.adjust == "tukey" and method not in ("pairwise", "revpairwise"):
            raise OptionError("adjust='tukey' is for all pairwise comparisons only; for these use 'sidak' or 'mvt'")
        title = f"Contrasts of {'slopes' if self.slope else 'means'} of{self.title.partition(' of')[2]}"
        pairs = method in ("pairwise", "revpairwise")
        out = Contrasts(self.fit, averages, within, asked, title, self.notes, weights, pairs)
        out.columns()  # so that what cannot be computed is refused here, not where it is printed
        return out


@dataclass(frozen=True, eq=False, repr=False)
class Contrasts(Estimates):
    """Comparisons between means or slopes; made by `Means.contrasts` and `Fit.contrasts`.

    Attributes
    ----------
    weights : tuple of ndarray (c, k)
        Of the comparisons on the means, for each combination of `by`.
    pairs : bool
        Whether these are all pairwise differences.
    """

    weights: tuple[Array, ...] = ()
    pairs: bool = False

    def _compared(self, group: int, index: NDArray[np.int64]) -> int | None:
        if not self.pairs:
            return None
        made = self.weights[group][self._estimable[index]]
        return int(np.any(made != 0, axis=0).sum())

    @property
    def _scale(self) -> response_scale.Back | None:
        """Differences of logarithms are ratios; those of other transformed means have no scale to go back to."""
        back = super()._scale
        balanced = all(np.allclose(w.sum(axis=1), 0) for w in self.weights)
        return back.ratio() if back is not None and balanced else None


def groups_of(averages: Averages, by: Sequence[str]) -> list[NDArray[np.int64]]:
    """Positions of the averages of each combination of some columns, in order."""
    found: dict[tuple[str, ...], list[int]] = {}
    for i in range(len(averages.rows)):
        key = tuple(label_text(averages.labels[name][i]) for name in by)
        found.setdefault(key, []).append(i)
    return [np.array(one, dtype=np.int64) for one in found.values()]


def names_of(averages: Averages, by: Sequence[str]) -> list[str]:
    """Labels of the averages, without the columns of `by`."""
    columns = [v for name, v in averages.labels.items() if name not in by and name != "variable"]
    return [" ".join(shown(one[i]) for one in columns) for i in range(len(averages.rows))]


def compared(
    averages: Averages, within: tuple[str, ...], method: str | Mapping[str, Any], ref: Any, ratios: bool
) -> tuple[Averages, tuple[Array, ...]]:
    """Comparisons of averages within each combination of some columns, and their weights (c, k) there.

    Raises
    ------
    OptionError
        For a column that the averages lack, for a single one with nothing to compare, and as `contrast_weights`.
    """
    labels = averages.labels
    for name in within:
        if name not in labels or name == "variable":
            hint = nearest(name, labels) or f"they have {listing(n for n in labels if n != 'variable')}"
            raise OptionError(f"by names {name!r}, which is no column of these means; {hint}")
    names, groups = names_of(averages, within), groups_of(averages, within)
    if min(len(index) for index in groups) < 2:
        which = f" in each combination of {listing(within)}" if within else ""
        raise OptionError(f"there is a single mean{which}, so there is nothing to compare; name more factors")
    made = [(index, *contrast_weights(method, [names[i] for i in index], ref, ratios)) for index in groups]
    found = Averages(
        {
            "contrast": objects([name for _, one, _ in made for name in one]),
            **{name: np.concatenate([np.repeat(labels[name][i[:1]], len(w)) for i, _, w in made]) for name in within},
        },
        np.concatenate([_combined(w, averages.rows[i]) for i, _, w in made]),
        np.concatenate([_combined(w, averages.offset[i]) for i, _, w in made]),
    )
    return found, tuple(w for _, _, w in made)


def shown(label: Any) -> str:
    """A label as text: whole numbers without their decimal point."""
    return f"{label:.6g}" if isinstance(label, float) else label_text(label)


def _combined(weights: Array, rows: Array) -> Array:
    """Weights times rows; what is rounding only becomes zero, and a missing row counts where it has a weight."""
    made = np.array([one[one != 0] @ rows[one != 0] for one in weights])
    size = np.abs(weights) @ np.abs(np.nan_to_num(rows))
    return np.where(np.abs(made) < 1e-13 * size, 0.0, made)


def _vcov(fit: Fit, ddf: str) -> Array:
    """(p, p) covariance of the fixed effects whose quadratic forms `inference.estimates` takes the root of."""
    if ddf in ("satterthwaite", "none"):
        return fit.optimum.vcov
    p = len(fit.optimum.beta)
    first, second = np.tril_indices(p)
    rows = np.eye(p)[first] + np.eye(p)[second]  # var(a + b) = var(a) + var(b) + 2 cov(a, b)
    found = np.zeros((p, p))
    found[first, second] = inference.estimates(fit, rows, ddf)[1] ** 2
    sd2 = np.diag(found) / 4
    out = (found - sd2[:, None] - sd2) / 2
    out = np.tril(out, -1)
    return out + out.T + np.diag(sd2)


# -- the verbs --------------------------------------------------------------------------------------------------


def means(
    fit: Fit,
    factors: Columns = None,
    *,
    by: Columns = None,
    at: Mapping[str, Any] | None = None,
    weights: str = "equal",
    level: float = 0.95,
    ddf: str = "satterthwaite",
    adjust: str = "none",
    transform: str | None = None,
) -> Means:
    """Estimated marginal means; see `Fit.means`."""
    asked = Asked(level, ddf, adjust, transform)
    averages, within, notes = mean_averages(fit, factors, by, at, weights)
    if transform is not None:
        response_scale.back(fit.design.response)
    title = f"Estimated marginal means of {fit.design.response}"
    return _computed(Means(fit, averages, within, asked, title, notes))


def mean_averages(
    fit: Fit, factors: Columns, by: Columns, at: Mapping[str, Any] | None, weights: str
) -> tuple[Averages, tuple[str, ...], tuple[str, ...]]:
    """Averages over the grid that are means, the columns of `by`, and sentences on what was held and averaged over."""
    _check_weights(weights)
    wanted, within = _listed(factors, "factors"), _listed(by, "by")
    grid = make_grid(fit, at)
    columns = _checked(grid, wanted, within, at, "means")
    averages = average(grid, columns, weights, fit.design.weights)
    return averages, tuple(within), _about(grid, columns, weights)


def slopes(
    fit: Fit,
    variable: str,
    *,
    by: Columns = None,
    at: Mapping[str, Any] | None = None,
    weights: str = "equal",
    level: float = 0.95,
    ddf: str = "satterthwaite",
    adjust: str = "none",
) -> Means:
    """Slopes along a numeric predictor; see `Fit.slopes`."""
    asked = Asked(level, ddf, adjust)
    averages, notes = slope_averages(fit, variable, by, at, weights)
    title = f"Slopes of {fit.design.response} along {variable}"
    return _computed(Means(fit, averages, (), asked, title, notes, True))


def slope_averages(
    fit: Fit, variable: str, by: Columns, at: Mapping[str, Any] | None, weights: str
) -> tuple[Averages, tuple[str, ...]]:
    """Averages over the grid that are slopes along a predictor, and sentences on what was held and averaged over."""
    _check_weights(weights)
    wanted = _listed(by, "by")
    grid = make_grid(fit, at)
    if variable not in grid.values:
        hint = nearest(variable, grid.values) or f"there are {listing(grid.values)}"
        raise OptionError(f"{variable!r} is no fixed predictor of the model; {hint}")
    if variable in grid.factors:
        raise OptionError(
            f"{variable!r} is a factor, which has no slope; compare its levels with contrasts({variable!r})"
        )
    columns = _checked(grid, wanted, [], at, "slopes")
    found = average(derivative(fit, grid, variable), columns, weights, fit.design.weights)
    labels = {"variable": objects([variable] * len(found.rows)), **found.labels}
    return replace(found, labels=labels), _about(grid, columns, weights)


def _computed(made: Means) -> Means:
    """Compute now, so that what cannot be is refused here, not where it is printed."""
    if made.asked.adjust == "tukey":
        raise OptionError(
            "adjust='tukey' is for pairwise comparisons, as in .contrasts('pairwise'); for the intervals of means use "
            "'sidak' or 'mvt'"
        )
    made.columns()
    return made


def _listed(given: Columns, what: str) -> list[str]:
    """Names of columns as a list."""
    if given is None:
        return []
    if isinstance(given, str):
        return [given]
    if isinstance(given, Iterable):
        names = list(given)
        if all(isinstance(one, str) for one in names):
            return names
    raise OptionError(f"{what} must be the name of a column or a list of names, not {given!r}")


def _check_weights(weights: object) -> None:
    if weights not in WEIGHTS:
        hint = nearest(weights, WEIGHTS) or f"allowed are {listing(WEIGHTS)}"
        raise OptionError(f"weights {weights!r} is not known; {hint}")


def _checked(
    grid: ReferenceGrid, wanted: list[str], within: list[str], at: Mapping[str, Any] | None, verb: str
) -> list[str]:
    """The columns to keep apart: factors, or covariates with values in `at`."""
    columns = [*wanted, *within]
    twice = [name for name in columns if columns.count(name) > 1]
    if twice:
        both = "both in factors and in by" if twice[0] in wanted and twice[0] in within else "named more than once"
        raise OptionError(f"{twice[0]!r} is {both}; name each column once")
    for name in columns:
        if name not in grid.values:
            hint = nearest(name, grid.values) or f"there are {listing(grid.values)}"
            raise OptionError(f"{name!r} is no fixed predictor of the model; {hint}")
        if name not in grid.factors and name not in (at or {}):
            also = f", or use slopes({name!r})" if verb == "means" else ""
            raise OptionError(
                f"{name!r} is a number, not a factor; give the values to take {verb} at, as in at={{{name!r}: [0, 1]}}"
                f"{also}, or write C({name}) in the formula"
            )
    return columns


def _about(grid: ReferenceGrid, columns: Sequence[str], weights: str) -> tuple[str, ...]:
    """What was held, and what averaged over."""
    held = {name: value for name, value in grid.held.items() if name not in columns}
    notes = [f"At {', '.join(f'{name} = {value:.6g}' for name, value in held.items())}."] if held else []
    over = [name for name, values in grid.values.items() if name not in columns and len(values) > 1]
    if over:
        how = {"equal": "with equal weights", "proportional": "by frequencies", "cells": "by frequencies of cells"}
        notes.append(f"Averaged over {', '.join(over)}, {how[weights]}.")
    return tuple(notes)
