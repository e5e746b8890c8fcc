"""Every figure; the only file that imports matplotlib, and only when one is drawn.

Methods return what `matplotlib.pyplot.subplots` would: one Axes, or a flat array of them where there are several panels.
Nothing is shown and no global setting is touched. A `fit.plot.effects()[0].figure` is the figure to save.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import frame
from . import pooling_lines as numbers
from .errors import OptionError
from .pooling_lines import pick

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .fit import Fit
    from .pooling_lines import Effect, Facet, Lines, Shrinkage

__all__ = ["COLOURS", "FitPlots"]

Array = NDArray[np.float64]

# Okabe & Ito's palette, which colour-blind readers can tell apart; line styles and markers differ as well.
COLOURS = {"data": "#8a8a8a", "pooled": "#D55E00", "unpooled": "#009E73", "partial": "#0072B2", "zero": "#555555",
           "faint": "#b0b0b0", "band": "#56B4E9"}
STYLES: dict[str, dict[str, Any]] = {
    "pooled": {"color": COLOURS["pooled"], "linestyle": (0, (5, 2)), "linewidth": 1.4, "marker": "_"},
    "unpooled": {"color": COLOURS["unpooled"], "linestyle": (0, (1, 1.2)), "linewidth": 1.7, "marker": "o"},
    "partial": {"color": COLOURS["partial"], "linestyle": "-", "linewidth": 1.7, "marker": "D"},
}
LEGEND = {"pooled": "pooled (groups ignored)", "unpooled": "unpooled (each group alone)",
          "partial": "partially pooled (this model)"}
MAX_POINTS = 5_000  # drawn in one panel; more only darken it
MAX_LABELS = 60  # levels that can still be read one under the other
MAX_ARROWS = 300
NOTE = {"fontsize": 8, "color": COLOURS["zero"]}


class FitPlots:
    """Plots of a fit, as ``fit.plot.groups()``; needs matplotlib (``pip install multilevel[plots]``).

    Every method takes `ax`: the Axes to draw on, or as many as there are panels; a new figure by default. It returns one
    Axes, or a flat array of them where there are several panels.
    """

    def __init__(self, fit: Fit) -> None:
        self._fit = fit

    def __repr__(self) -> str:
        return "FitPlots: groups(), caterpillar(), shrinkage(), effects(), residuals()"

    def groups(self, x: str | None = None, group: str | None = None, levels: Any = None, *, max_groups: int = 18,
               ax: Any = None) -> Any:
        """Data and lines per group: pooled, unpooled and partially pooled.

        The pooled line is least squares on the fixed effects, blind to groups; the unpooled one is least squares on the
        group's own rows, left out where these do not determine it; the partially pooled one is this model, with the
        effects of the group and of factors it is nested in (others at zero). Other predictors are held at each group's
        mean (numbers) or most frequent level (factors), so that lines run through the group's own points.

        Parameters
        ----------
        x : str, optional
            Predictor to draw along; default the first number whose slope varies by group, else the first factor whose
            effect does, else the first number, else the first factor; without any, rows are drawn in their order.
        group : str, optional
            Grouping factor; default the first of the formula.
        levels : labels, optional
            Groups to draw, in this order; default all, or `max_groups` of them spread evenly over the range of sizes.
        max_groups : int
        ax : Axes or array of Axes, optional
            One Axes for each group, or a single one for all lines together.

        Returns
        -------
        Axes or array of Axes
            A facet for each group.
        """
        plt = _pyplot()
        lines = numbers.group_lines(self._fit, x, group, levels, max_groups)
        facets = lines.facets
        together = ax is not None and np.size(ax) == 1 and len(facets) > 1
        columns = _columns(len(facets))
        rows = math.ceil(len(facets) / columns)
        axes, made = _panels(plt, ax, 1 if together else len(facets), columns,
                             (max(1.75 * columns + 0.6, 5.4), 1.6 * rows + 1.5), sharex=True, sharey=True)
        drawn = 0
        for i, facet in enumerate(facets):
            target = axes[0] if together else axes[i]
            drawn += _draw_facet(target, lines, facet, MAX_POINTS // max(len(facets) // 2, 1), i > 0 and together)
            if not together:
                target.set_title(f"{_short(facet.level)} (n = {len(facet.rows):,})", fontsize=9)
        for one in axes:
            _scale_facet(one, self._fit, lines)
        self._label_groups(axes, lines, made, columns, drawn)
        return _squeeze(axes)

    def _label_groups(self, axes: Sequence[Axes], lines: Lines, made: bool, columns: int, drawn: int) -> None:
        """Names of the axes, title, one legend and the notes."""
        y, x = self._fit.design.response, lines.x or "row of the group, in order"
        total = sum(len(facet.rows) for facet in lines.facets)
        few = len(lines.facets) < lines.total
        title = f"{y} by {lines.group}" + (f": {len(lines.facets)} of {lines.total:,} groups" if few else "")
        notes = []
        if lines.held:
            notes.append(f"{_list(lines.held)} at each group's mean or most frequent level")
        if lines.with_groups:
            notes.append(f"partially pooled lines include the effects of {_list(lines.with_groups)}")
        lost = sum(np.isnan(facet.unpooled).all() for facet in lines.facets)
        if lost:
            notes.append(f"{lost} group{'s have' if lost > 1 else ' has'} too few rows for an unpooled line")
        if drawn < total:
            notes.append(f"{drawn:,} of {total:,} points drawn")
        handles, names = axes[0].get_legend_handles_labels()
        options: dict[str, Any] = {"title": _wrap("; ".join(notes), 36 * max(columns, 3) // 2) or None,
                                   "title_fontsize": 8, "fontsize": 8, "frameon": False}
        if not made:
            for one in axes:
                one.set(xlabel=x, ylabel=y)
            axes[0].legend(handles, names, **options)
            return
        figure: Any = axes[0].figure
        figure.suptitle(title, fontsize=11)
        figure.supxlabel(x, fontsize=10)
        figure.supylabel(y, fontsize=10)
        figure.legend(handles, names, loc="outside lower center", ncols=min(len(handles), max(2, columns - 1)), **options)

    def caterpillar(self, group: str | None = None, term: str | None = None, *, level: float = 0.95,
                    ax: Any = None) -> Any:
        """Conditional modes of the random effects with intervals, sorted.

        Intervals are estimate ± z · conditional sd, given the estimated fixed effects and covariances; those that miss
        zero are drawn darker. Levels stand in the order of the group's first panel, so that a row is one level in each.

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
        """
        plt = _pyplot()
        panels = self._modes(group, term)
        half = _quantile(level)
        most = max(len(levels) for _, _, levels, _, _ in panels)
        columns = min(len(panels), 3)
        height = float(np.clip(0.19 * min(most, MAX_LABELS) + 1.1, 2.6, 10.0))
        size = (max(3.3 * columns + 0.7, 5.4), height * math.ceil(len(panels) / columns))
        axes, made = _panels(plt, ax, len(panels), columns, size)
        order = np.empty(0, dtype=np.int64)
        for i, (name, effect, levels, mode, sd) in enumerate(panels):
            first = i == 0 or panels[i - 1][0] != name
            order = np.argsort(mode, kind="stable") if first else order
            one = axes[i]
            _draw_modes(one, mode[order], half * sd[order])
            _label_levels(one, name, [levels[j] for j in order] if len(order) <= MAX_LABELS else len(order),
                          named=first or not made or i % columns == 0)
            one.set_xlabel(f"{effect}, difference from the population", fontsize=9)
            one.set_title(f"{name}: {effect}", fontsize=10)
        if made:
            axes[0].figure.suptitle(f"Random effects with {level:.4g} intervals".replace("0.", "0.", 1), fontsize=11)
        return _squeeze(axes)

    def _modes(self, group: str | None, term: str | None) -> list[tuple[str, str, NDArray[Any], Array, Array]]:
        """Group, effect, levels, conditional modes and sds of each panel."""
        terms = self._fit.design.terms
        names = list(dict.fromkeys(t.group for t in terms))
        if not names:
            raise OptionError("the model has no random effects to draw")
        if group is not None:
            names = [pick(group, names, "grouping factor of the model")]
        wanted = [t for t in terms if t.group in names]
        if term is not None:
            pick(term, list(dict.fromkeys(n for t in wanted for n in t.names)), "random effect"
                 + (f" of {group!r}" if group else ""))
        table = self._fit.ranef()
        column = {name: np.asarray(table[name]) for name in ("estimate", "std_error")}
        out, at = [], 0
        for t in terms:
            for name in t.names:
                rows = slice(at, at + len(t.levels))
                at += len(t.levels)
                if t.group in names and term in (None, name):
                    out.append((t.group, name, t.levels, column["estimate"][rows], column["std_error"][rows]))
        return sorted(out, key=lambda panel: names.index(panel[0]))

    def shrinkage(self, group: str | None = None, terms: Sequence[str] | None = None, *, ax: Any = None) -> Any:
        """How far partial pooling moves each group's own estimate towards the population.

        With two random effects or more: arrows in the plane of two of them, from least squares on the group's own rows to
        the partially pooled coefficient, with the population value and the regions expected to hold 50 and 95 percent of
        groups. With one: a line for each group, sorted. Fixed effects that do not vary by group are subtracted from the
        response first; effects of other grouping factors are not.

        Parameters
        ----------
        group : str, optional
            Grouping factor; default the first of the formula.
        terms : one or two names, optional
            Random effects to draw; default the first two.
        ax : Axes, optional
        """
        plt = _pyplot()
        found = numbers.shrinkage(self._fit, group)
        index = _two(found, terms)
        usable = np.flatnonzero(~np.isnan(found.own[:, index]).any(axis=1))
        lost = len(found.levels) - len(usable)
        keep = usable
        if len(usable) > MAX_ARROWS:
            keep = np.sort(np.random.default_rng(0).choice(usable, MAX_ARROWS, replace=False))
        tall = 0.19 * min(len(keep), MAX_LABELS) + 1.6 if len(index) == 1 else 5.0
        axes, made = _panels(plt, ax, 1, 1, (6.4, float(np.clip(tall, 3.2, 10.0))))
        draw = _draw_lines if len(index) == 1 else _draw_arrows
        draw(axes[0], found, index, keep)
        notes = []
        if len(keep) < len(usable):
            notes.append(f"{len(keep):,} of {len(usable):,} groups drawn")
        if lost:
            notes.append(f"{lost:,} group{'s have' if lost > 1 else ' has'} too few rows of {'their' if lost > 1 else 'its'} own")
        if found.subtracted:
            notes.append(f"fixed effects of {_list(found.subtracted)} subtracted")
        title = f"Shrinkage of {found.group} towards the population"
        if notes:
            axes[0].set_title(_wrap("; ".join(notes), 90), **NOTE)
        if made:
            axes[0].figure.suptitle(title, fontsize=11)
        return axes[0]

    def effects(self, term: str | None = None, *, level: float = 0.95, at: Mapping[str, Any] | None = None,
                points: bool = False, ax: Any = None) -> Any:
        """Population prediction along each fixed predictor, with confidence bands.

        Group effects are zero; other predictors are held at their mean (numbers), reference level (factors) or False, as
        each panel says. The bands carry the uncertainty of the fixed effects.

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
        """
        plt = _pyplot()
        names = numbers.effect_names(self._fit.design)
        chosen: list[str | None] = list(names) or [None]
        if term is not None:
            chosen = [pick(term, names, "fixed predictor of the model")]
        half = _quantile(level)
        if points:
            self._fit.rows_of_data()
        found = [numbers.effect(self._fit, name, at, MAX_POINTS if points else 0) for name in chosen]
        columns = min(len(found), 3)
        size = (max(3.4 * columns, 5.0), 3.3 * math.ceil(len(found) / columns) + 0.3)
        axes, made = _panels(plt, ax, len(found), columns, size, sharey=True)
        for one, effect in zip(axes, found, strict=True):
            _draw_effect(one, effect, half)
            one.set(xlabel=effect.name or "population mean")
        for i, one in enumerate(axes):
            if not made or i % columns == 0:
                one.set_ylabel(self._fit.design.response)
        if made:
            axes[0].figure.suptitle(f"Population prediction with {level:.4g} confidence bands", fontsize=11)
        return _squeeze(axes)

    def residuals(self, *, ax: Any = None) -> Any:
        """Residuals against fitted values with a smooth trend, and their normal quantile-quantile plot.

        Residuals are standardised: times the square root of the weight, divided by sigma.

        Parameters
        ----------
        ax : Axes or array of two Axes, optional
            With a single one, only residuals against fitted values are drawn.
        """
        plt = _pyplot()
        design = self._fit.rows_of_data()
        fitted, residuals = self._fit.fitted()[design.rows], self._fit.residuals("pearson")[design.rows]
        single = ax is not None and np.size(ax) == 1
        axes, made = _panels(plt, ax, 1 if single else 2, 2, (8.6, 3.9))
        _draw_residuals(axes[0], fitted, residuals)
        if not single:
            _draw_quantiles(axes[1], residuals)
        if made:
            axes[0].figure.suptitle(f"Residuals of {design.response}", fontsize=11)
        return _squeeze(axes)


# -- figures and panels ---------------------------------------------------------------------------------------


def _pyplot() -> Any:
    try:
        import matplotlib.pyplot
    except ImportError as error:
        raise OptionError("plots need matplotlib, which is not installed: pip install multilevel[plots]") from error
    return matplotlib.pyplot


def _panels(plt: Any, ax: Any, count: int, columns: int, size: tuple[float, float],
            **share: bool) -> tuple[list[Axes], bool]:
    """The Axes to draw on, and whether they were made here."""
    if ax is not None:
        given = list(np.ravel(np.asarray(ax, dtype=object)))
        if not all(hasattr(one, "add_collection") for one in given):
            raise OptionError(f"ax must be a matplotlib Axes, or an array of them; got {type(ax).__name__}")
        if len(given) != count:
            raise OptionError(f"there are {count} panels to draw, but ax has {len(given)}; give {count}, or leave ax out")
        return given, False
    rows = math.ceil(count / columns)
    figure, grid = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False, **share)
    every = list(grid.ravel())
    for one in every[count:]:
        one.remove()
    if share.get("sharex"):
        for one in every[max(count - columns, 0) : count]:  # those above an empty place carry the labels
            one.tick_params(labelbottom=True)
    return every[:count], True


def _squeeze(axes: list[Axes]) -> Any:
    if len(axes) == 1:
        return axes[0]
    out = np.empty(len(axes), dtype=object)
    out[:] = axes
    return out


def _columns(count: int) -> int:
    """Columns of facets: near square, wider than tall, few empty places."""
    low = math.ceil(math.sqrt(count))
    return min(range(low, min(low + 2, count, 6) + 1) or [min(low, 6)], key=lambda c: (-count % c, c))


def _quantile(level: float) -> float:
    """Half-width of an interval in standard errors."""
    from scipy.special import ndtri

    from .fit import check_level

    check_level(level)
    return float(ndtri(0.5 + level / 2))


def _short(label: Any, limit: int = 16) -> str:
    text = frame.label_text(label)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _list(names: Sequence[str]) -> str:
    shown = list(names) if len(names) <= 4 else [*names[:3], f"{len(names) - 3} more"]
    return shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + " and " + shown[-1]


def _wrap(text: str, width: int) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))


def _sample(n: int, limit: int) -> NDArray[np.int64]:
    """Rows to draw, with a fixed seed, so that a plot does not change from call to call."""
    if n <= limit:
        return np.arange(n)
    return np.sort(np.random.default_rng(0).choice(n, limit, replace=False))


# -- one panel each -------------------------------------------------------------------------------------------


def _draw_facet(ax: Axes, lines: Lines, facet: Facet, limit: int, again: bool) -> int:
    """Points and three lines of a group; returns the number of points drawn."""
    rows = _sample(len(facet.rows), limit)
    x, y = facet.x[rows], facet.y[rows]
    shift = np.random.default_rng(0).uniform(-0.07, 0.07, len(x)) if lines.labels else 0.0
    label = None if again else "data"
    ax.plot(x + shift, y, "o", color=COLOURS["data"], markersize=3, alpha=0.75 if len(x) < 100 else 0.4, markeredgewidth=0,
            label=label, zorder=1.5)
    for k, name in enumerate(("pooled", "unpooled", "partial")):
        style, text = STYLES[name], None if again else LEGEND[name]
        values = getattr(facet, name)
        if lines.x is None:
            ax.axhline(values[0], **{k: v for k, v in style.items() if k != "marker"}, label=text, zorder=2 + k)
        elif lines.labels:
            face = "none" if name == "unpooled" else style["color"]
            ax.plot(lines.grid + (0.0, -0.22, 0.22)[k], values, linestyle="none", marker=style["marker"], color=style["color"],
                    markerfacecolor=face, markersize=(14, 5, 5)[k], markeredgewidth=1.5, label=text, zorder=2 + k)
        else:
            lone = np.isfinite(values).sum() == 1
            ax.plot(lines.grid, values, **{**style, "marker": "_" if lone else None}, markersize=9, label=text, zorder=2 + k)
    return len(rows)


def _scale_facet(ax: Axes, fit: Fit, lines: Lines) -> None:
    """Limits from the data and the model's lines, so that a wild unpooled line does not squeeze them."""
    values = [np.concatenate([f.y, f.partial, f.pooled]) for f in lines.facets]
    low, high = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
    margin = 0.05 * (high - low) or 1.0
    ax.set_ylim(low - margin, high + margin)
    ax.tick_params(labelsize=8)
    if lines.labels:
        _label_factor(ax, lines.labels)
    elif lines.x is None:
        ax.set_xlim(-0.7, max(len(f.rows) for f in lines.facets) - 0.3)
        ax.set_xticks([])
    else:
        _whole_ticks(ax, lines.grid)


def _label_factor(ax: Axes, labels: Sequence[str]) -> None:
    ax.set_xlim(-0.5, len(labels) - 0.5)
    long = sum(len(one) for one in labels) > 14
    if len(labels) <= 20:
        ax.set_xticks(range(len(labels)), [_short(one, 12) for one in labels], rotation=45 if long else 0,
                      ha="right" if long else "center", rotation_mode="anchor")
    else:
        ax.set_xticks([])


def _whole_ticks(ax: Axes, grid: Array) -> None:
    """Ticks at 0 and 1 only where the predictor is an indicator."""
    if grid[0] == 0 and grid[-1] == 1:
        ax.set_xticks([0, 1])
        ax.set_xlim(-0.15, 1.15)


def _draw_modes(ax: Axes, mode: Array, half: Array) -> None:
    """Points and intervals from the bottom up, and the zero line."""
    at = np.arange(len(mode))
    if len(mode) > MAX_POINTS:
        at = np.unique(np.linspace(0, len(mode) - 1, MAX_POINTS).round().astype(np.int64))
    clear = np.abs(mode) > half
    many = len(mode) > MAX_LABELS
    ax.axvline(0, color=COLOURS["zero"], linewidth=1, linestyle=(0, (4, 2)), zorder=1)
    for dark, colour in ((False, COLOURS["faint"]), (True, COLOURS["partial"])):
        rows = at[clear[at] == dark]
        ax.hlines(rows, mode[rows] - half[rows], mode[rows] + half[rows], color=colour, linewidth=0.7 if many else 1.4,
                  alpha=0.5 if len(mode) > 500 else 1.0, zorder=2)
    ax.plot(mode[at], at, "o", color=COLOURS["partial"], markersize=4 if not many else (2.5 if len(mode) < 500 else 1),
            zorder=3)
    ax.set_ylim(-0.8, len(mode) - 0.2)


def _label_levels(ax: Axes, group: str, levels: Any, named: bool) -> None:
    """Level names on the y axis, or their number where they are too many to read."""
    if isinstance(levels, int):
        ax.set_yticks([])
        ax.set_ylabel(f"{group}: {levels:,} levels, sorted" if named else "")
        return
    size = 8 if len(levels) <= 40 else 6.5
    ax.set_yticks(range(len(levels)), [_short(one, 20) for one in levels] if named else [""] * len(levels), fontsize=size)
    ax.set_ylabel(group if named else "")


def _two(found: Shrinkage, terms: Sequence[str] | None) -> list[int]:
    """Positions of the random effects to draw."""
    if terms is None:
        return list(range(min(len(found.names), 2)))
    given = [terms] if isinstance(terms, str) else list(terms)
    if len(given) not in (1, 2) or len(set(given)) < len(given):
        raise OptionError(f"terms must name one random effect or two different ones, not {given!r}")
    return [found.names.index(pick(one, found.names, f"random effect of {found.group!r}")) for one in given]


def _draw_arrows(ax: Axes, found: Shrinkage, index: list[int], keep: NDArray[np.int64]) -> None:
    """Arrows in the plane of two coefficients, the population value, and the ellipses of the covariance."""
    own, partial = found.own[np.ix_(keep, index)], found.partial[np.ix_(keep, index)]
    centre = found.population[index]
    values, vectors = np.linalg.eigh(found.cov[np.ix_(index, index)])
    root = vectors * np.sqrt(np.maximum(values, 0))
    angle = np.linspace(0, 2 * np.pi, 200)
    for coverage, style in ((0.5, "-"), (0.95, (0, (5, 2)))):
        ring = centre + np.sqrt(-2 * np.log1p(-coverage)) * np.column_stack([np.cos(angle), np.sin(angle)]) @ root.T
        ax.plot(ring[:, 0], ring[:, 1], color=COLOURS["faint"], linestyle=style, linewidth=1.2, zorder=1,
                label=f"{coverage:.0%} of groups expected inside")
    if len(keep):
        ax.quiver(*own.T, *(partial - own).T, angles="xy", scale_units="xy", scale=1, color=COLOURS["faint"], width=0.003,
                  headwidth=5, headlength=6, zorder=2)
    ax.plot(*own.T, "o", color=COLOURS["unpooled"], markerfacecolor="white", markersize=5, label=LEGEND["unpooled"], zorder=3)
    ax.plot(*partial.T, "D", color=COLOURS["partial"], markersize=4, label=LEGEND["partial"], zorder=4)
    ax.plot(*centre, "X", color=COLOURS["pooled"], markeredgecolor="white", markersize=11, linestyle="none", label="population",
            zorder=5)
    ax.set(xlabel=found.names[index[0]], ylabel=found.names[index[1]])
    ax.legend(fontsize=8)


def _draw_lines(ax: Axes, found: Shrinkage, index: list[int], keep: NDArray[np.int64]) -> None:
    """One line for each group from its own estimate to the partially pooled one, sorted by the first."""
    own, partial = found.own[keep, index[0]], found.partial[keep, index[0]]
    order = np.argsort(own, kind="stable")
    at = np.arange(len(order))
    few = len(order) <= MAX_LABELS
    ax.axvline(found.population[index[0]], color=COLOURS["pooled"], linestyle=(0, (5, 2)), linewidth=1.4, label="population",
               zorder=1)
    ax.hlines(at, own[order], partial[order], color=COLOURS["faint"], linewidth=1.4 if few else 0.8, zorder=2)
    ax.plot(own[order], at, "o", color=COLOURS["unpooled"], markerfacecolor="white", markersize=5 if few else 3,
            label=LEGEND["unpooled"], zorder=3)
    ax.plot(partial[order], at, "D", color=COLOURS["partial"], markersize=4 if few else 2.5, label=LEGEND["partial"], zorder=4)
    labels = [found.levels[j] for j in keep[order]]
    _label_levels(ax, found.group, labels if few else len(labels), True)
    ax.set_ylim(-0.8, len(order) - 0.2)
    ax.set_xlabel(found.names[index[0]])
    ax.legend(fontsize=8)


def _draw_effect(ax: Axes, effect: Effect, half: float) -> None:
    """Line with band, or points with bars, and what is held where."""
    estimate, width = effect.estimate, half * effect.std_error
    if len(effect.x):
        shift = np.random.default_rng(0).uniform(-0.12, 0.12, len(effect.x)) if effect.labels else 0.0
        ax.plot(effect.x + shift, effect.y, "o", color=COLOURS["data"], markersize=2.5, alpha=0.35, markeredgewidth=0, zorder=1)
    if effect.labels or effect.name is None:
        ax.errorbar(effect.grid, estimate, yerr=width, fmt="D", color=COLOURS["partial"], markersize=5, capsize=3, zorder=3)
        _label_factor(ax, effect.labels or ("",))
    else:
        ax.fill_between(effect.grid, estimate - width, estimate + width, color=COLOURS["band"], alpha=0.35, linewidth=0, zorder=2)
        ax.plot(effect.grid, estimate, color=COLOURS["partial"], linewidth=1.8, zorder=3)
        _whole_ticks(ax, effect.grid)
    if effect.held:
        shown = [f"{n} = {v:.3g}" if isinstance(v, float) else f"{n} = {frame.label_text(v)}" for n, v in effect.held.items()]
        more = [f"and {len(shown) - 4} more at their typical values"] if len(shown) > 5 else []
        ax.set_title(_wrap("at " + ", ".join([*(shown[:4] if more else shown), *more]), 46), **NOTE)


def _draw_residuals(ax: Axes, fitted: Array, residuals: Array) -> None:
    rows = _sample(len(fitted), MAX_POINTS)
    ax.axhline(0, color=COLOURS["zero"], linewidth=1, linestyle=(0, (4, 2)))
    ax.plot(fitted[rows], residuals[rows], "o", color=COLOURS["data"], markersize=3, alpha=0.6 if len(rows) < 1000 else 0.25,
            markeredgewidth=0)
    x, y = smooth(fitted, residuals)
    ax.plot(x, y, color=COLOURS["pooled"], linewidth=1.8, label="local mean")
    ax.set(xlabel="fitted value", ylabel="standardised residual")
    ax.legend(fontsize=8, loc="upper right")
    if len(rows) < len(fitted):
        ax.set_title(f"{len(rows):,} of {len(fitted):,} points drawn", **NOTE)


def _draw_quantiles(ax: Axes, residuals: Array) -> None:
    """Ordered residuals against normal quantiles; the tails are kept whole where there are too many to draw."""
    from scipy.special import ndtri

    n = len(residuals)
    at = np.arange(n)
    if n > MAX_POINTS:
        middle = np.linspace(0, n - 1, MAX_POINTS - 200).round().astype(np.int64)
        at = np.unique(np.concatenate([at[:100], middle, at[-100:]]))
    expected = ndtri((at + 0.5) / n)
    ordered = np.sort(residuals)[at]
    ends = [expected[0], expected[-1]]
    ax.plot(ends, ends, color=COLOURS["zero"], linewidth=1, linestyle=(0, (4, 2)), label="normal")
    ax.plot(expected, ordered, "o", color=COLOURS["partial"], markersize=3, markeredgewidth=0)
    ax.set(xlabel="normal quantile", ylabel="ordered standardised residual")
    ax.legend(fontsize=8, loc="upper left")


def smooth(x: Array, y: Array, points: int = 60, span: float = 0.5) -> tuple[Array, Array]:
    """Local linear mean of y along x with tricube weights over the nearest `span` of the rows.

    Long columns are averaged in 500 bins of equal count first, which changes nothing that can be seen.
    """
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    size = np.ones(len(x))
    if len(x) > 1000:
        starts = np.linspace(0, len(x), 501).astype(np.int64)[:-1]
        size = np.diff(np.append(starts, len(x))).astype(np.float64)
        x, y = np.add.reduceat(x, starts) / size, np.add.reduceat(y, starts) / size
    grid = np.unique(x[np.linspace(0, len(x) - 1, points).round().astype(np.int64)])
    nearest = max(2, math.ceil(span * len(x)))
    out = np.empty(len(grid))
    for i, at in enumerate(grid):
        far = np.abs(x - at)
        reach = np.partition(far, nearest - 1)[nearest - 1] * 1.000001 or 1.0
        w = size * np.clip(1 - (far / reach) ** 3, 0, None) ** 3
        mean = np.average(x, weights=w)
        spread = np.average((x - mean) ** 2, weights=w)
        slope = np.average((x - mean) * y, weights=w) / spread if spread > 1e-12 * reach**2 else 0.0
        out[i] = np.average(y, weights=w) + slope * (at - mean)
    return grid, out
