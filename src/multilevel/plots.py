"""Every figure; the only file that imports matplotlib, and only when one is drawn.

Methods return what `matplotlib.pyplot.subplots` would: one Axes, or a flat array of them where there are several
panels. Nothing is shown and no global setting is touched.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import effect_lines, plot_panels, pooling_lines
from .effect_lines import pick
from .errors import OptionError
from .plot_notes import group_notes, shrinkage_notes
from .plot_panels import MAX_LABELS, MAX_POINTS, NOTE, short, wrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .fit import Fit
    from .pooling_lines import Facet, Lines, Shrinkage

__all__ = ["FitPlots"]

Array = NDArray[np.float64]
MAX_ARROWS = 300
TITLE: dict[str, Any] = {"fontsize": 11}


class FitPlots:
    """Plots of a fit, as ``fit.plot.groups()``; needs matplotlib (``pip install multilevel[plots]``).

    Every method takes `ax`: the Axes to draw on, or as many as there are panels; by default a new figure is made. It
    returns one Axes, or a flat array of them where there are several panels; ``.figure`` of each is the figure.
    """

    def __init__(self, fit: Fit) -> None:
        self._fit = fit

    def __repr__(self) -> str:
        return "FitPlots: groups(), caterpillar(), shrinkage(), effects(), residuals(), check(), influence(), profile()"

    def groups(
        self,
        x: str | None = None,
        group: str | None = None,
        levels: Any = None,
        *,
        max_groups: int = 18,
        ax: Any = None,
    ) -> Any:
        """Data and lines per group: pooled, unpooled and partially pooled.

        The pooled line is least squares on the fixed effects, blind to groups. The unpooled one is least squares on
        the group's own rows, left out where these do not determine it. The partially pooled one is this model, with
        the effects of the group and of the factors it is nested in (others at zero). Other predictors are held at each
        group's mean (numbers) or most frequent level (factors), so that lines run through the group's own points. Beyond
        these lines are faint, and there is no unpooled one.

        Parameters
        ----------
        x : str, optional
            Predictor to draw along; default the first number whose slope varies by group, else the first factor whose
            effect does, else the first number, else the first factor; without any, rows stand in their order.
        group : str, optional
            Grouping factor; default the first of the formula.
        levels : labels, optional
            Groups to draw, in this order; default all, or `max_groups` spread evenly over the range of sizes.
        max_groups : int
        ax : Axes or array of Axes, optional
            One for each group, or a single one for all together.

        Returns
        -------
        Axes or array of Axes
            A facet for each group.
        """
        plt = _pyplot()
        lines = self._group_lines(x, group, levels, max_groups)
        count = len(lines.facets)
        together = ax is not None and np.size(ax) == 1
        columns = _columns(count)
        size = max(1.75 * columns + 0.6, 5.6), 1.6 * math.ceil(count / columns) + 1.5
        axes, made = _panels(plt, ax, 1 if together else count, columns, size, sharex=True, sharey=True)
        drawn = 0
        for i, facet in enumerate(lines.facets):
            one = axes[0 if together else i]
            limit = max(MAX_POINTS * 2 // max(count, 2), 50)
            drawn += self._facet(one, lines, facet, limit, i == 0)
            if not together:
                count_text = f" (n = {len(facet.rows):,})"
                one.set_title(short(facet.level, max(24 - len(count_text), 8)) + count_text, fontsize=8.5)
        for one in axes:
            plot_panels.facet_scale(one, lines)
        self._label_groups(axes, lines, made, columns, group_notes(lines, drawn))
        return _squeeze(axes)

    @property
    def _response(self) -> str:
        """What the response is called along an axis."""
        return self._fit.design.response

    def _group_lines(self, x: Any, group: Any, levels: Any, max_groups: int) -> Lines:
        return pooling_lines.group_lines(self._fit, x, group, levels, max_groups)

    def _facet(self, ax: Axes, lines: Lines, facet: Facet, limit: int, named: bool) -> int:
        return plot_panels.facet_panel(ax, lines, facet, limit, named)

    def _label_groups(self, axes: Sequence[Axes], lines: Lines, made: bool, columns: int, notes: str) -> None:
        """Names of the axes, title, one legend with the notes."""
        response = self._response
        handles, names = axes[0].get_legend_handles_labels()
        if all(np.isnan(facet.unpooled).all() for facet in lines.facets):
            at = names.index(plot_panels.LEGEND["unpooled"])
            handles, names = [*handles[:at], *handles[at + 1 :]], [*names[:at], *names[at + 1 :]]
        legend: dict[str, Any] = {"title_fontsize": 8, "fontsize": 8, "frameon": False}
        legend["title"] = wrap(notes, 28 * max(columns, 3)) or None
        for i, one in enumerate(axes):
            if lines.x is not None and (not made or i >= len(axes) - columns):
                one.set_xlabel(short(lines.x, 24), fontsize=9)
            if not made:
                one.set_ylabel(response, fontsize=9)
        if not made:
            axes[0].legend(handles, names, **legend)
            return
        few = f": {len(lines.facets)} of {lines.total:,} groups" if len(lines.facets) < lines.total else ""
        figure: Any = axes[0].figure
        figure.suptitle(f"{response} by {lines.group}{few}", **TITLE)
        figure.supylabel(response, fontsize=10)
        across = len(handles) if columns > 3 else 2
        figure.legend(handles, names, loc="outside lower center", ncols=across, **legend)

    def caterpillar(
        self, group: str | None = None, term: str | None = None, *, level: float = 0.95, ax: Any = None
    ) -> Any:
        """Conditional modes of the random effects with intervals, sorted.

        Intervals are estimate ± z times conditional sd, given the estimated fixed effects and covariances; those that
        miss zero are drawn darker. Levels stand in the order of the group's first panel, so that a row is one level in
        each of its panels.

        Parameters
        ----------
        group : str, optional
            Grouping factor; default all.
        term : str, optional
            Effect, such as "Intercept" or "Days"; default all, one panel for each.
        level : float
            Coverage.
        ax : Axes or array of Axes, optional
            As many as there are panels.

        Returns
        -------
        Axes or array of Axes
        """
        plt = _pyplot()
        half = _half_width(level)
        panels = self._modes(group, term)
        most = max(len(levels) for _, _, levels, _, _ in panels)
        columns = min(len(panels), 3)
        height = 5.5 if most > MAX_LABELS else max(0.19 * most + 1.3, 2.6)
        size = max(3.3 * columns + 0.7, 5.4), height * math.ceil(len(panels) / columns)
        axes, made = _panels(plt, ax, len(panels), columns, size)
        order, before = np.empty(0, dtype=np.int64), ""
        for i, (name, effect, levels, mode, sd) in enumerate(panels):
            order = order if name == before else np.argsort(mode, kind="stable")
            plot_panels.modes_panel(axes[i], mode[order], half * sd[order])
            named = name != before or not made or i % columns == 0
            plot_panels.label_levels(axes[i], name, [levels[j] for j in order], named)
            axes[i].set_title(f"{short(name, 14)}: {short(effect, 20)}", fontsize=10)
            axes[i].set_xlabel("difference from the population", fontsize=9)
            before = name
        if made:
            _figure(axes).suptitle(f"Random effects with {100 * level:.4g}% intervals", **TITLE)
        return _squeeze(axes)

    def _modes(self, group: str | None, term: str | None) -> list[tuple[str, str, NDArray[Any], Array, Array]]:
        """Group, effect, levels, conditional modes and sds of each panel."""
        terms = self._fit.design.terms
        names = pooling_lines.group_names(self._fit.design)
        if not names:
            raise OptionError("the model has no random effects to draw")
        if group is not None:
            names = [pick(group, names, "grouping factor of the model")]
        effects = dict.fromkeys(name for one in terms if one.group in names for name in one.names)
        if term is not None:
            pick(term, list(effects), f"random effect of {names[0]!r}" if len(names) == 1 else "random effect")
        table = self._fit.ranef()
        mode, sd = np.asarray(table["estimate"]), np.asarray(table["std_error"])
        out, at = [], 0
        for one in terms:
            for name in one.names:
                rows = slice(at, at + len(one.levels))
                at += len(one.levels)
                if one.group in names and term in (None, name):
                    out.append((one.group, name, one.levels, mode[rows], sd[rows]))
        return sorted(out, key=lambda panel: names.index(panel[0]))

    def shrinkage(self, group: str | None = None, terms: str | Sequence[str] | None = None, *, ax: Any = None) -> Axes:
        """How far partial pooling moves each group's own estimate towards the population.

        With two random effects: arrows in their plane from least squares on the group's own rows to the partially
        pooled coefficients, the population value, and the regions expected to hold 50 and 95 percent of groups. With
        one: a line for each group, sorted. Fixed effects that do not vary by group, and effects of other grouping
        factors, are subtracted from the response first.

        Parameters
        ----------
        group : str, optional
            Grouping factor; default the first of the formula.
        terms : one or two names, optional
            Random effects to draw; default the first two.
        ax : Axes, optional

        Returns
        -------
        Axes
        """
        plt = _pyplot()
        found = self._shrunk(group)
        index = _one_or_two(found, terms)
        usable = np.flatnonzero(~np.isnan(found.own[:, index]).any(axis=1))
        keep = usable[plot_panels.fewer(len(usable), MAX_ARROWS)]
        tall = 5.0 if len(index) == 2 or len(keep) > MAX_LABELS else max(0.19 * len(keep) + 1.6, 3.2)
        axes, made = _panels(plt, ax, 1, 1, (6.4, tall))
        if len(index) == 2:
            plot_panels.arrows(axes[0], found, index, keep)
        else:
            plot_panels.stems(axes[0], found, index[0], keep)
        axes[0].set_title(wrap(shrinkage_notes(found, len(usable), len(keep)), 90), **NOTE)
        if made:
            _figure(axes).suptitle(f"Shrinkage of {found.group} towards the population", **TITLE)
        return axes[0]

    def _shrunk(self, group: Any) -> Shrinkage:
        return pooling_lines.shrinkage(self._fit, group)

    def effects(
        self,
        term: str | None = None,
        *,
        level: float = 0.95,
        at: Mapping[str, Any] | None = None,
        points: bool = False,
        ax: Any = None,
    ) -> Any:
        """Population prediction along each fixed predictor, with confidence bands.

        Group effects are zero; other predictors are held at their mean (numbers), reference level (factors) or False,
        as each panel says. The bands carry the uncertainty of the fixed effects.

        Parameters
        ----------
        term : str, optional
            Predictor to draw; default all, one panel for each.
        level : float
            Coverage of the bands.
        at : dict, optional
            Predictor to the value to hold it at, or to the (low, high) range to draw.
        points : bool
            Draw partial residuals too: the prediction at the row's own value plus the row's residual.
        ax : Axes or array of Axes, optional
            As many as there are panels.

        Returns
        -------
        Axes or array of Axes
        """
        plt = _pyplot()
        half = _half_width(level)
        if points:
            self._fit.rows_of_data()
        names = effect_lines.effect_names(self._fit.design)
        chosen: list[str | None] = list(names) or [None]
        if term is not None:
            chosen = [pick(term, names, "fixed predictor of the model")]
        limit = MAX_POINTS if points else 0
        found = [effect_lines.effect(self._fit, name, at, limit) for name in chosen]
        columns = min(len(found), 3)
        size = max(3.4 * columns, 5.0), 3.3 * math.ceil(len(found) / columns) + 0.3
        axes, made = _panels(plt, ax, len(found), columns, size, sharey=True)
        for i, (one, effect) in enumerate(zip(axes, found, strict=True)):
            plot_panels.effect_panel(one, effect, half)
            if not made or i % columns == 0:
                one.set_ylabel(self._fit.design.response)
        if made:
            title = f"Population prediction with {100 * level:.4g}% confidence bands"
            if points and len(self._fit.design.y) > MAX_POINTS:
                title += f"\npartial residuals of {MAX_POINTS:,} of {len(self._fit.design.y):,} rows"
            elif points:
                title += " and partial residuals"
            _figure(axes).suptitle(title, **TITLE)
        return _squeeze(axes)

    def residuals(self, *, ax: Any = None) -> Any:
        """Residuals against fitted values with a smooth trend, and their normal quantile-quantile plot.

        Residuals are standardised: times the square root of the weight, divided by sigma.

        Parameters
        ----------
        ax : Axes or array of two Axes, optional
            With a single one, only residuals against fitted values are drawn.

        Returns
        -------
        Axes or array of two Axes
        """
        plt = _pyplot()
        design = self._fit.rows_of_data()
        fitted = self._fit.fitted()[design.rows]
        residuals = self._fit.residuals("pearson")[design.rows]
        count = 1 if ax is not None and np.size(ax) == 1 else 2
        axes, made = _panels(plt, ax, count, 2, (8.6, 3.9))
        plot_panels.residual_panel(axes[0], fitted, residuals)
        if count == 2:
            plot_panels.quantile_panel(axes[1], residuals)
        if made:
            _figure(axes).suptitle(f"Residuals of {design.response}", **TITLE)
        return _squeeze(axes)

    def check(self, *, ax: Any = None) -> Any:
        """The panel beside ``fit.check()``: are the mean, the spread and the shapes as the model says.

        Residuals against fitted values with a local mean; their spread; normal quantile plots of the residuals and of
        each random effect, with the band in which 95 percent of normal samples lie at each point; residuals by group;
        Cook's distance of the groups (of rows, where there are very many).

        Parameters
        ----------
        ax : array of Axes, optional
            As many as there are panels.

        Returns
        -------
        array of Axes
        """
        self._fit.rows_of_data()
        return self._panels_of(self._check_panels(), f"Checks of {self._fit.design.response}", ax)

    def influence(self, group: str | None = None, *, ax: Any = None) -> Any:
        """Influence of rows, or of the levels of a grouping factor; the numbers are those of ``fit.influence``.

        Parameters
        ----------
        group : str, optional
            Grouping factor; then Cook's distance of each level and the change of each coefficient without it.
        ax : array of Axes, optional
            As many as there are panels.

        Returns
        -------
        Axes or array of Axes
        """
        self._fit.rows_of_data()
        return self._panels_of(self._influence_panels(group), f"Influence on {self._fit.design.response}", ax)

    def profile(self, which: Any = None, *, ax: Any = None, profile: Any = None) -> Any:
        """Profile likelihood: zeta, the signed root of the rise in deviance, by the value of each parameter.

        A straight line means that a symmetric interval is right; steps mark the 50, 80, 95 (strong) and 99 % intervals. A
        line that ends inside them has met the end of the parameter's range.

        Parameters
        ----------
        which : str or list of str, optional
            Parameters, as for `Fit.profile`.
        ax : Axes or array of Axes, optional
            As many as there are parameters.
        profile : Profile, optional
            One computed before.

        Returns
        -------
        Axes or array of Axes
        """
        from . import plot_profile

        curves = plot_profile.curves(self._fit, which, profile)
        count, columns = len(curves), _columns(len(curves))
        size = max(2.7 * columns, 4.2), 2.3 * math.ceil(count / columns) + 0.9
        axes, made = _panels(_pyplot(), ax, count, columns, size)
        for i, (one, curve) in enumerate(zip(axes, curves, strict=True)):
            plot_profile.profile_panel(one, curve)
            if not made or i % columns == 0:
                one.set_ylabel(plot_profile.ZETA, fontsize=8)
        if made:
            _figure(axes).suptitle(f"Profiles of {self._fit.design.response}", **TITLE)
            _figure(axes).supxlabel(plot_profile.NOTE, **NOTE)
        return _squeeze(axes)

    def _check_panels(self) -> Sequence[Any]:
        from . import plot_check

        return plot_check.panels(self._fit)

    def _influence_panels(self, group: str | None) -> Sequence[Any]:
        from . import plot_check

        return plot_check.influence_panels(self._fit, group)

    def _panels_of(self, panels: Sequence[Any], title: str, ax: Any) -> Any:
        columns = min((3, 4), key=lambda c: -len(panels) % c) if len(panels) > 4 else min(len(panels), 3)
        size = max(3.4 * columns, 5.0), 3.2 * math.ceil(len(panels) / columns) + 0.3
        axes, made = _panels(_pyplot(), ax, len(panels), columns, size)
        for one, (name, draw) in zip(axes, panels, strict=True):
            draw(one)
            one.set_title(name, fontsize=10)
        if made:
            _figure(axes).suptitle(title, **TITLE)
        return _squeeze(axes)


# -- figures and panels -------------------------------------------------------------------------------------


def _pyplot() -> Any:
    try:
        import matplotlib.pyplot
    except ImportError as error:
        raise OptionError("plots need matplotlib, which is not installed: pip install multilevel[plots]") from error
    return matplotlib.pyplot


def _panels(
    plt: Any, ax: Any, count: int, columns: int, size: tuple[float, float], **share: bool
) -> tuple[list[Axes], bool]:
    """The Axes to draw on, and whether they were made here."""
    if ax is not None:
        given = list(np.ravel(np.asarray(ax, dtype=object)))
        if not all(hasattr(one, "add_collection") for one in given):
            raise OptionError(f"ax must be a matplotlib Axes, or an array of them; got {type(ax).__name__}")
        if len(given) != count:
            raise OptionError(f"there are {count} panels to draw, but ax has {len(given)}; give {count} Axes")
        return given, False
    rows = math.ceil(count / columns)
    made = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False, **share)
    every = list(made[1].ravel())
    for one in every[count:]:
        one.remove()
    if share.get("sharex"):
        for one in every[max(count - columns, 0) : count]:  # those above an empty place carry the labels
            one.tick_params(labelbottom=True)
    return every[:count], True


def _figure(axes: Sequence[Axes]) -> Any:
    return axes[0].figure


def _squeeze(axes: list[Axes]) -> Any:
    if len(axes) == 1:
        return axes[0]
    out = np.empty(len(axes), dtype=object)
    out[:] = axes
    return out


def _columns(count: int) -> int:
    """Columns of facets: near square, rather wide than tall, few empty places."""
    low = min(math.ceil(math.sqrt(count)), 6)
    return min(range(low, min(low + 2, max(count, low), 6) + 1), key=lambda c: (-count % c, c))


def _half_width(level: float) -> float:
    """Half-width of an interval in standard errors."""
    from scipy.special import ndtri

    from .inference import check_level

    check_level(level)
    return float(ndtri(0.5 + level / 2))


def _one_or_two(found: Shrinkage, terms: str | Sequence[str] | None) -> list[int]:
    """Positions of the random effects to draw."""
    if terms is None:
        return list(range(min(len(found.names), 2)))
    given = [terms] if isinstance(terms, str) else list(terms)
    if len(given) not in (1, 2) or len(set(given)) < len(given):
        raise OptionError(f"terms must name one random effect, or two different ones, not {given!r}")
    return [found.names.index(pick(one, found.names, f"random effect of {found.group!r}")) for one in given]
