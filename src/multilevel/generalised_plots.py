"""Plots of a generalised fit: on the scale of the response where they show means, of the link where they show effects."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import generalised_checks, generalised_lines, generalised_own, generalised_panels
from .effect_lines import pick
from .inference import check_level
from .plots import TITLE, FitPlots, _figure, _panels, _pyplot, _squeeze

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from .generalised import GeneralisedFit
    from .pooling_lines import Facet, Lines, Shrinkage

__all__ = ["LinkPlots"]


class LinkPlots(FitPlots):
    """Plots of a generalised fit, as ``fit.plot.groups()``; see `FitPlots` for what all take and return."""

    _fit: GeneralisedFit

    def __repr__(self) -> str:
        return super().__repr__().replace("FitPlots", "LinkPlots")

    @property
    def _response(self) -> str:
        return generalised_lines.response_label(self._fit)

    # -- groups -----------------------------------------------------------------------------------------------

    def groups(
        self,
        x: str | None = None,
        group: str | None = None,
        levels: Any = None,
        *,
        max_groups: int = 18,
        ax: Any = None,
    ) -> Any:
        """Data and curves per group on the scale of the response: pooled, unpooled and partially pooled.

        The pooled curve is the same family's model without random effects. The unpooled one is fitted to the group's own
        rows, with the model's dispersion, extra zeros or thresholds, and left out where it is not finite (all outcomes
        alike). The partially pooled one is this model. Shares are circles sized by their trials; single outcomes are
        gathered into shares at each value of x, or in bins. An ordinal response is drawn with its expected category. All
        are averages over the group's rows with x moved, so that they can be compared with the data. By default x is the
        first number, else the first factor, that varies within groups; without any, rows stand in their order.

        Parameters
        ----------
        x, group, levels, max_groups, ax
            As for a linear model (`FitPlots.groups`).

        Returns
        -------
        Axes or array of Axes
        """
        self._fit.rows_of_data()
        return super().groups(x, group, levels, max_groups=max_groups, ax=ax)

    def _group_lines(self, x: Any, group: Any, levels: Any, max_groups: int) -> Lines:
        return generalised_lines.group_lines(self._fit, x, group, levels, max_groups)

    def _facet(self, ax: Axes, lines: Lines, facet: Facet, limit: int, named: bool) -> int:
        return generalised_panels.facet_panel(ax, self._fit, lines, facet, limit, named)

    def _label_groups(self, axes: Sequence[Axes], lines: Lines, made: bool, columns: int, notes: str) -> None:
        for one in axes:
            generalised_panels.facet_scale(one, self._fit, lines)
        told = [f"{'lines' if lines.x is None else 'curves'} averaged over each group's rows", *([notes] if notes else [])]
        super()._label_groups(axes, lines, made, columns, "; ".join(told))

    def shrinkage(self, group: str | None = None, terms: str | Sequence[str] | None = None, *, ax: Any = None) -> Axes:
        """How far partial pooling moves each group's own estimate towards the population, on the scale of the link.

        As for a linear model (`FitPlots.shrinkage`); a group's own estimate is by maximum likelihood, with all else (other
        fixed effects, other groups, dispersion, extra zeros, thresholds) as in the model. Groups without a finite one, such
        as those whose outcomes are all alike, are left out, and the figure says how many.
        """
        out = super().shrinkage(group, terms, ax=ax)
        out.set_xlabel(f"{out.get_xlabel()} ({self._fit.family.link} scale)")
        return out

    def _shrunk(self, group: Any) -> Shrinkage:
        return generalised_own.shrinkage(self._fit, group)

    # -- effects ----------------------------------------------------------------------------------------------

    def effects(
        self,
        term: str | None = None,
        *,
        level: float = 0.95,
        at: Mapping[str, Any] | None = None,
        points: bool = False,
        ax: Any = None,
    ) -> Any:
        """Mean of the response along each fixed predictor, with confidence bands.

        Group effects are zero; other predictors are held at their mean (numbers), reference level (factors) or False, as
        each panel says. Extra zeros are in the mean. The bands are the confidence intervals of ``predict``. Of an ordinal
        response the probability of each category. Ticks along the bottom are the rows' values.

        Parameters
        ----------
        term, level, at, ax
            As for a linear model (`FitPlots.effects`).
        points : bool
            Draw circles too: the mean that the responses at each level, or in bins of a number, ask for while all other
            effects are the model's; their area goes with their rows. A curve that misses them bends the wrong way.

        Returns
        -------
        Axes or array of Axes
        """
        plt = _pyplot()
        check_level(level)
        if points:
            self._fit.rows_of_data()
        names = generalised_lines.curve_names(self._fit.design)
        chosen: list[str | None] = list(names) or [None]
        if term is not None:
            chosen = [pick(term, names, "fixed predictor of the model")]
        found = [generalised_lines.curve(self._fit, name, level, at, points) for name in chosen]
        columns = min(len(found), 3)
        ordinal = self._fit.family.name == "ordinal"
        size = max(3.4 * columns, 5.0), 3.3 * math.ceil(len(found) / columns) + (0.6 if ordinal else 0.3)
        axes, made = _panels(plt, ax, len(found), columns, size, sharey=True)
        for i, (one, curve) in enumerate(zip(axes, found, strict=True)):
            generalised_panels.curve_panel(one, self._fit, curve)
            if not made or i % columns == 0:
                one.set_ylabel("probability" if ordinal else self._response)
        if made:
            what = "Population probabilities of categories" if ordinal else "Population mean"
            _figure(axes).suptitle(f"{what} with {100 * level:.4g}% confidence bands", **TITLE)
        if ordinal:
            self._category_legend(axes, made)
        return _squeeze(axes)

    def _category_legend(self, axes: list[Axes], made: bool) -> None:
        style: dict[str, Any] = {"fontsize": 8, "title_fontsize": 8, "frameon": False, "title": self._fit.design.response}
        if made:
            handles, labels = axes[0].get_legend_handles_labels()
            _figure(axes).legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 8), **style)
        else:
            axes[0].legend(**style)

    # -- residuals, checks, influence -----------------------------------------------------------------------------

    def residuals(self, *, ax: Any = None) -> Any:
        """Quantile residuals over the population's prediction with their quartiles, and their normal quantile plot.

        The residuals are those that ``fit.check()`` judges: standard normal under the model, drawn with a fixed seed, given
        the effects of groups with eight rows or more on average.

        Parameters
        ----------
        ax : Axes or array of two Axes, optional
            With a single one, only residuals over the prediction are drawn.

        Returns
        -------
        Axes or array of two Axes
        """
        import numpy as np

        self._fit.rows_of_data()
        f = generalised_checks.facts(self._fit)
        count = 1 if ax is not None and np.size(ax) == 1 else 2
        axes, made = _panels(_pyplot(), ax, count, 2, (8.6, 3.9))
        generalised_panels.residual_panel(axes[0], f)
        if count == 2:
            generalised_panels.quantile_panel(axes[1], f)
        if made:
            _figure(axes).suptitle(f"Quantile residuals of {self._fit.design.response}", **TITLE)
        return _squeeze(axes)

    def check(self, *, ax: Any = None) -> Any:
        """The panel beside ``fit.check()``: does the response look like one of the model.

        Normal quantile plot of the quantile residuals; these over the population's prediction, with their quartiles; the
        dispersion against simulated ones; how often each count, category or value occurs, or shares observed over shares
        predicted, against simulated ones; quantile plots of the random effects; Cook's distance of the groups (of rows,
        where there are very many).

        Parameters
        ----------
        ax : array of Axes, optional
            As many as there are panels.

        Returns
        -------
        array of Axes
        """
        return super().check(ax=ax)

    def _check_panels(self) -> Sequence[Any]:
        return generalised_panels.panels(self._fit)

    def _influence_panels(self, group: str | None) -> Sequence[Any]:
        return generalised_panels.influence_panels(self._fit, group)
