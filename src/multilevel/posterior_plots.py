"""Figures of a posterior. As those of a fit (`plots`), they return Axes, show nothing and touch no global setting."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import effect_lines, plot_panels, posterior_lines, posterior_panels, posterior_replicates
from .effect_lines import pick
from .errors import OptionError
from .inference import check_level
from .parameter_plots import ParameterPlots, figure_legend, figure_title
from .plot_notes import group_notes
from .plot_panels import MAX_LABELS, MAX_POINTS, NOTE, short, wrap
from .plots import TITLE, _columns, _figure, _panels, _pyplot, _squeeze
from .posterior_check_plots import CheckPlots
from .sample import check_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .posterior_lines import GroupDraws, PosteriorLines

__all__ = ["PosteriorPlots"]

Array = NDArray[np.float64]
MAX_RIDGES = 30  # levels up to which densities are drawn, intervals beyond
INNER = 0.5  # coverage of thick bars


class PosteriorPlots(ParameterPlots, CheckPlots):
    """Plots of a posterior, as ``posterior.plot.groups()``; needs matplotlib (``pip install multilevel[plots]``).

    Every method takes `ax`: the Axes to draw on, or as many as there are panels; by default a new figure is made. It
    returns one Axes, or a flat array of them where there are several panels; ``.figure`` of each is the figure.
    Parameters are named as the tables name them; a class ("b", "sd", "sd(school)", "cor") means all of it, and
    "ranef(school, A, Intercept)" the effect of one group.
    """

    def __repr__(self) -> str:
        return (
            "PosteriorPlots: trace(), forest(), groups(), predictive(), prior(), pair(), caterpillar(), effects(), check(), "
            "residuals(), shrinkage()"
        )

    # -- groups -----------------------------------------------------------------------------------------------

    def forest(
        self,
        group: str | None = None,
        term: str | None = None,
        *,
        kind: str | None = None,
        level: float = 0.95,
        max_groups: int = MAX_LABELS,
        ax: Any = None,
    ) -> Any:
        """Coefficients of each group, sorted: densities or intervals, and the population's value.

        A coefficient is the fixed effect plus that of the group, as in `Posterior.coef`; one without a fixed effect is
        drawn as a difference from the population. Levels stand in the order of the first panel, so that a row is one level
        in each.

        Parameters
        ----------
        group : str, optional
            Grouping factor; default the first of the formula.
        term : str, optional
            Coefficient, such as "Intercept" or "homework"; default all that vary by group, one panel for each.
        kind : {"ridge", "interval"}, optional
            Densities with intervals, or intervals alone: thick bars hold half of the draws. Default: densities up to thirty
            levels.
        level : float
            Coverage of the intervals.
        max_groups : int
            Levels to draw; of more, those spread evenly over the sorted order.
        ax : Axes or array of Axes, optional
            One for each panel.

        Returns
        -------
        Axes or array of Axes
        """
        check_level(level)
        most = check_count("max_groups", max_groups, 1)
        if kind not in (None, "ridge", "interval"):
            raise OptionError(f"kind {kind!r} is not known; allowed are 'ridge', 'interval'")
        panels = posterior_lines.coefficients(self._posterior, group, term)
        total = len(panels[0].levels)
        order = np.argsort(panels[0].values.mean(axis=0), kind="stable")
        order = order[posterior_lines.spread(total, most)]
        kind = kind or ("ridge" if len(order) <= MAX_RIDGES else "interval")
        few = len(order) <= MAX_LABELS
        axes, made = self._rows(panels, len(order), ax, 0.27 if kind == "ridge" else 0.19)
        for i, (one, found) in enumerate(zip(axes, panels, strict=True)):
            values = found.values[:, order]
            mean, low, high = posterior_lines.summaries(values, level)
            if found.population is not None:
                middle, first, last = (float(v[0]) for v in posterior_lines.summaries(found.population[:, None], level))
                posterior_panels.population_line(one, middle, first, last, kind == "ridge")
            else:
                plot_panels.zero_line(one, vertical=True)
            if kind == "ridge":
                posterior_panels.ridge_panel(one, values, mean, (low, high))
            else:
                inner = posterior_lines.summaries(values, INNER)[1:]
                posterior_panels.interval_panel(one, mean, inner, (low, high), np.ones(len(mean), dtype=bool))
            levels = [found.levels[j] for j in order]
            plot_panels.label_levels(one, found.group, levels, i == 0 or not made or i % 3 == 0)
            if kind == "ridge":
                one.set_ylim(-0.5, len(order) + 1.0)
            one.set_title(short(found.name, 30), fontsize=10)
            what = "coefficient" if found.population is not None else "difference from the population"
            one.set_xlabel(what, fontsize=9)
        if made:
            part = f"{len(order)} of {total:,} levels, evenly over the sorted order" if len(order) < total else ""
            bars = " (thick: 50%)" if kind == "interval" and few else ""
            whole = any(found.population is not None for found in panels)
            what = "Coefficients" if whole else "Group effects"
            title = f"{what} by {panels[0].group}: posterior means and {100 * level:.4g}% intervals{bars}"
            figure_title(axes, title, part)
            if whole:
                figure_legend(axes)
        return _squeeze(axes)

    def caterpillar(
        self, group: str | None = None, term: str | None = None, *, level: float = 0.95, ax: Any = None
    ) -> Any:
        """Group effects, sorted: posterior means and intervals; those that miss zero are drawn darker.

        Parameters
        ----------
        group : str, optional
            Grouping factor; default all.
        term : str, optional
            Effect, such as "Intercept" or "Days"; default all, one panel for each.
        level : float
            Coverage; thick bars hold half of the draws.
        ax : Axes or array of Axes, optional
            As many as there are panels.

        Returns
        -------
        Axes or array of Axes
        """
        check_level(level)
        panels = posterior_lines.group_effects(self._posterior, group, term)
        most = max(len(one.levels) for one in panels)
        axes, made = self._rows(panels, most, ax, 0.19)
        order, before = np.empty(0, dtype=np.int64), ""
        for i, (one, found) in enumerate(zip(axes, panels, strict=True)):
            mean, low, high = posterior_lines.summaries(found.values, level)
            inner = posterior_lines.summaries(found.values, INNER)[1:]
            order = order if found.group == before else np.argsort(mean, kind="stable")
            clear = (low > 0) | (high < 0)
            plot_panels.zero_line(one, vertical=True)
            posterior_panels.interval_panel(
                one, mean[order], (inner[0][order], inner[1][order]), (low[order], high[order]), clear[order]
            )
            named = found.group != before or not made or i % 3 == 0
            plot_panels.label_levels(one, found.group, [found.levels[j] for j in order], named)
            one.set_title(f"{short(found.group, 14)}: {short(found.name, 20)}", fontsize=10)
            one.set_xlabel("difference from the population", fontsize=9)
            before = found.group
        if made:
            bars = " (thick: 50%)" if most <= MAX_LABELS else ""
            figure_title(axes, f"Group effects: posterior means and {100 * level:.4g}% intervals{bars}", "")
        return _squeeze(axes)

    @staticmethod
    def _rows(panels: Sequence[GroupDraws], most: int, ax: Any, row: float) -> tuple[list[Axes], bool]:
        """Axes for panels with a row for each level."""
        columns = min(len(panels), 3)
        height = 5.5 if most > MAX_LABELS else max(row * most + 1.3, 2.6)
        size = max(3.3 * columns + 0.7, 5.4), height * math.ceil(len(panels) / columns)
        return _panels(_pyplot(), ax, len(panels), columns, size)

    def groups(
        self,
        x: str | None = None,
        group: str | None = None,
        levels: Any = None,
        *,
        max_groups: int = 18,
        draws: int = 40,
        level: float = 0.95,
        ax: Any = None,
    ) -> Any:
        """Data and lines per group: single draws of the posterior, their mean, and for comparison no and complete pooling.

        Lines are expected responses. Pooled and unpooled lines, which are least squares (see `FitPlots.groups`), are drawn
        for the gaussian family only. Along a factor bars stand for the draws. An ordinal response is drawn by the number of
        its category, counts of successes as shares.

        Parameters
        ----------
        x, group, levels, max_groups
            As for a fit.
        draws : int
            Lines of single draws in each facet.
        level : float
            Coverage of the bars along a factor.
        ax : Axes or array of Axes, optional
            One for each group, or a single one for all together.

        Returns
        -------
        Axes or array of Axes
            A facet for each group.
        """
        check_level(level)
        count = check_count("draws", draws, 1)
        found = posterior_lines.group_lines(self._posterior, x, group, levels, max_groups, count, level)
        facets = found.lines.facets
        together = ax is not None and np.size(ax) == 1
        columns = _columns(len(facets))
        size = max(1.75 * columns + 0.6, 5.6), 1.6 * math.ceil(len(facets) / columns) + 1.6
        axes, made = _panels(_pyplot(), ax, 1 if together else len(facets), columns, size, sharex=True, sharey=True)
        drawn = 0
        for i, facet in enumerate(facets):
            one = axes[0 if together else i]
            limit = max(MAX_POINTS * 2 // max(len(facets), 2), 50)
            drawn += posterior_panels.group_panel(one, found, i, limit, named=i == 0)
            if not together:
                text = f" (n = {len(facet.rows):,})"
                one.set_title(short(facet.level, max(24 - len(text), 8)) + text, fontsize=8.5)
        for one in axes:
            posterior_panels.group_scale(one, found)
        self._label_groups(axes, found, made, columns, drawn, level)
        return _squeeze(axes)

    @staticmethod
    def _label_groups(
        axes: Sequence[Axes], found: PosteriorLines, made: bool, columns: int, drawn: int, level: float
    ) -> None:
        """Names of the axes, title, one legend with the notes."""
        lines = found.lines
        handles, names = posterior_panels.legend_of_groups(axes[0], found, level)
        legend: dict[str, Any] = {"title_fontsize": 8, "fontsize": 8, "frameon": False}
        notes = group_notes(lines, drawn) if not np.isnan(lines.facets[0].pooled).all() else _notes_alone(found, drawn)
        legend["title"] = wrap(notes, 28 * max(columns, 3)) or None
        for i, one in enumerate(axes):
            if lines.x is not None and (not made or i >= len(axes) - columns):
                one.set_xlabel(short(lines.x, 24), fontsize=9)
            if not made:
                one.set_ylabel(found.response, fontsize=9)
        if not made:
            axes[0].legend(handles, names, **legend)
            return
        few = f": {len(lines.facets)} of {lines.total:,} groups" if len(lines.facets) < lines.total else ""
        figure: Any = axes[0].figure
        figure.suptitle(f"{short(found.response, 60)} by {lines.group}{few}", **TITLE)
        figure.supylabel(short(found.response, 50), fontsize=10)
        across = min(len(handles), 3) if columns > 3 else 2
        figure.legend(handles, names, loc="outside lower center", ncols=across, **legend)

    # -- responses --------------------------------------------------------------------------------------------

    def predictive(
        self,
        draws: int | None = None,
        *,
        kind: str | None = None,
        groups: Any = "all",
        seed: Any = 0,
        ax: Any = None,
    ) -> Axes:
        """Observed responses against responses simulated from the posterior: would the model make such data?

        Parameters
        ----------
        draws : int, optional
            Simulated data sets, each from a draw of its own. Default 50 where each is a line, 400 where they are counted;
            fewer for very long data.
        kind : {"density", "cumulative", "frequencies"}, optional
            Kernel densities, cumulative shares, or how often each number or category occurs, with the range of 95 percent
            of simulations (a rootogram, for counts). Default by family; cumulative under 30 rows.
        groups
            Groups that keep their effects, as in `Posterior.simulate`: with None all groups are drawn anew.
        seed : int
        ax : Axes, optional

        Returns
        -------
        Axes
        """
        found = posterior_replicates.replicates(self._posterior, draws, kind, groups, seed)
        axes, made = _panels(_pyplot(), ax, 1, 1, (6.2, 4.0))
        note = posterior_replicates.predictive_panel(axes[0], found)
        axes[0].legend(fontsize=8, frameon=False)
        if note:
            axes[0].set_title(wrap(note, 90), **NOTE)
        if made:
            how = "" if isinstance(groups, str) and groups == "all" else "; groups drawn anew" if groups is None else ""
            _figure(axes).suptitle(f"Posterior predictive check of {short(found.name, 50)}{how}", **TITLE)
        return axes[0]

    def effects(
        self, term: str | None = None, *, level: float = 0.95, at: Mapping[str, Any] | None = None, ax: Any = None
    ) -> Any:
        """Expected response along each fixed predictor, with credible bands; group effects are zero.

        Other predictors are held at their mean (numbers), reference level (factors) or False, as each panel says.

        Parameters
        ----------
        term : str, optional
            Predictor to draw; default all, one panel for each.
        level : float
            Coverage of the bands: quantiles of the draws.
        at : dict, optional
            Predictor to the value to hold it at, or to the (low, high) range to draw.
        ax : Axes or array of Axes, optional
            As many as there are panels.

        Returns
        -------
        Axes or array of Axes
        """
        check_level(level)
        posterior = self._posterior
        names = effect_lines.effect_names(posterior.design)
        shown: list[str | None] = list(names) or [None]
        if term is not None:
            shown = [pick(term, names, "fixed predictor of the model")]
        found = [posterior_lines.effect(posterior, name, at, level) for name in shown]
        columns = min(len(found), 3)
        size = max(3.4 * columns, 5.0), 3.3 * math.ceil(len(found) / columns) + 0.3
        axes, made = _panels(_pyplot(), ax, len(found), columns, size, sharey=True)
        response = posterior_lines.observed(posterior)[1]
        ordinal = posterior.model.distribution is not None and posterior.model.distribution.name == "ordinal"
        for i, (one, effect) in enumerate(zip(axes, found, strict=True)):
            posterior_panels.band_panel(one, effect)
            if ordinal:
                posterior_panels.category_ticks(one, posterior.design.labels)
            if not made or i % columns == 0:
                one.set_ylabel(short(response, 40))
        if made:
            typical = " of a typical group" if posterior.design.terms else ""
            _figure(axes).suptitle(f"Expected response{typical} with {100 * level:.4g}% credible bands", **TITLE)
        return _squeeze(axes)


def _notes_alone(found: PosteriorLines, drawn: int) -> str:
    """Notes where no unpooled line is meant to be there, so that none is missing."""
    lines = found.lines
    whole = tuple(replace(f, unpooled=f.partial) for f in lines.facets)
    return group_notes(replace(lines, facets=whole), drawn)
