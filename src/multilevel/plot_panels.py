"""What goes on one matplotlib Axes; nothing here imports matplotlib or makes a figure."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .effect_lines import Effect
    from .pooling_lines import Facet, Lines, Shrinkage

__all__ = [
    "COLOURS", "MAX_LABELS", "MAX_POINTS", "NOTE", "arrows", "beyond", "effect_panel", "facet_lines", "facet_panel",
    "facet_points", "facet_scale", "fewer", "label_levels", "modes_panel", "quantile_panel", "residual_panel",
    "short", "smooth", "stems", "wrap",
]  # fmt: skip

Array = NDArray[np.float64]
Index = NDArray[np.int64]

# Okabe & Ito's palette, which colour-blind readers can tell apart; line styles and markers differ as well.
COLOURS = {
    "data": "#8a8a8a",
    "pooled": "#D55E00",
    "unpooled": "#009E73",
    "partial": "#0072B2",
    "band": "#56B4E9",
    "zero": "#555555",
    "faint": "#b0b0b0",
}
DASHED, DOTTED = (0, (5, 2)), (0, (1, 1.2))
LEGEND = {
    "pooled": "pooled (groups ignored)",
    "unpooled": "unpooled (each group alone)",
    "partial": "partially pooled (this model)",
}
LINES: dict[str, dict[str, Any]] = {
    "pooled": {"color": COLOURS["pooled"], "linestyle": DASHED, "linewidth": 1.4, "zorder": 2},
    "unpooled": {"color": COLOURS["unpooled"], "linestyle": DOTTED, "linewidth": 1.7, "zorder": 3},
    "partial": {"color": COLOURS["partial"], "linestyle": "-", "linewidth": 1.7, "zorder": 4},
}
MARKS: dict[str, dict[str, Any]] = {
    "pooled": {"marker": "_", "markersize": 14, "markeredgewidth": 1.6},
    "unpooled": {"marker": "o", "markersize": 5, "markerfacecolor": "white", "markeredgewidth": 1.4},
    "partial": {"marker": "D", "markersize": 4.5},
}
DODGE = {"pooled": 0.0, "unpooled": -0.24, "partial": 0.24}  # of marks at one level of a factor
FAINT = 0.35  # of lines beyond a group's own rows
MAX_POINTS = 5_000  # drawn in one figure's panel; more only darken it
MAX_LABELS = 60  # levels that can still be read one under the other
NOTE: dict[str, Any] = {"fontsize": 8, "color": COLOURS["zero"]}


def fewer(n: int, limit: int) -> Index:
    """Positions to draw, at most `limit`, with a fixed seed so that a plot does not change from call to call."""
    if n <= limit:
        return np.arange(n)
    return np.sort(np.random.default_rng(0).choice(n, limit, replace=False))


def jitter(n: int, width: float) -> Array:
    """Sideways shifts of points at one level, the same in every call."""
    return np.random.default_rng(0).uniform(-width, width, n)


def short(label: Any, limit: int = 16) -> str:
    """A label as text, cut in the middle where it is too long for its place, since ends tell labels apart."""
    text = frame.label_text(label)
    tail = limit // 3
    return text if len(text) <= limit else f"{text[: limit - tail - 1]}…{text[-tail:]}"


def wrap(text: str, width: int) -> str:
    """Break a note into lines."""
    return "\n".join(textwrap.wrap(text, width))


# -- axes -----------------------------------------------------------------------------------------------------


def label_factor(ax: Axes, labels: Sequence[str]) -> None:
    """Names of levels along x, turned where they are long, none where there are too many."""
    ax.set_xlim(-0.5, len(labels) - 0.5)
    if len(labels) > 20:
        ax.set_xticks([])
        return
    texts = [short(one, 12) for one in labels]
    if sum(map(len, texts)) > 14:
        ax.set_xticks(range(len(texts)), texts, rotation=45, ha="right", rotation_mode="anchor")
    else:
        ax.set_xticks(range(len(texts)), texts)


def label_levels(ax: Axes, group: str, levels: Sequence[Any], named: bool = True) -> None:
    """Names of levels along y, or their number where they are too many to read."""
    if len(levels) > MAX_LABELS:
        ax.set_yticks([])
        drawn = f", {MAX_POINTS:,} drawn" if len(levels) > MAX_POINTS else ""
        ax.set_ylabel(f"{group}: {len(levels):,} levels, sorted{drawn}" if named else "")
    else:
        texts = [short(one, 20) for one in levels] if named else [""] * len(levels)
        ax.set_yticks(range(len(levels)), texts, fontsize=8 if len(levels) <= 40 else 6.5)
        ax.set_ylabel(group if named else "")
    ax.set_ylim(-0.8, len(levels) - 0.2)


def whole_ticks(ax: Axes, grid: Array) -> None:
    """Whole numbers as ticks, where a predictor goes from one to another; 0 and 1 only, where from 0 to 1."""
    if grid[0] == 0 and grid[-1] == 1:
        ax.set_xticks([0, 1])
        ax.set_xlim(-0.15, 1.15)
    elif grid[0].is_integer() and grid[-1].is_integer() and grid[-1] - grid[0] > 2:
        ax.locator_params(axis="x", integer=True)


def zero_line(ax: Axes, vertical: bool = False) -> None:
    """A dashed line at zero."""
    draw = ax.axvline if vertical else ax.axhline
    draw(0, color=COLOURS["zero"], linewidth=1, linestyle=DASHED, zorder=1)


# -- groups ---------------------------------------------------------------------------------------------------


def facet_panel(ax: Axes, lines: Lines, facet: Facet, limit: int, named: bool = True) -> int:
    """Points and three lines of a group; returns the number of points drawn.

    Parameters
    ----------
    limit : int
        Points to draw at most.
    named : bool
        Whether the artists enter the legend.
    """
    drawn = facet_points(ax, lines, facet, limit, named)
    facet_lines(ax, lines, facet, named)
    return drawn


def facet_points(ax: Axes, lines: Lines, facet: Facet, limit: int, named: bool = True) -> int:
    """Points of a group; returns how many are drawn."""
    rows = fewer(len(facet.rows), limit)
    x = facet.x[rows] + (jitter(len(rows), 0.08) if lines.labels else 0.0)
    style: dict[str, Any] = {"color": COLOURS["data"], "markersize": 3, "markeredgewidth": 0, "zorder": 1.5}
    dense = max(len(one.rows) for one in lines.facets) > 100
    ax.plot(x, facet.y[rows], "o", alpha=0.4 if dense else 0.8, label="data" if named else None, **style)
    return len(rows)


def facet_lines(ax: Axes, lines: Lines, facet: Facet, named: bool = True) -> None:
    """The three lines of a group: faint beyond its own rows, where the unpooled one, which knows only these, is not drawn."""
    for name, line in LINES.items():
        values = getattr(facet, name)
        label = LEGEND[name] if named else None
        if lines.x is None:
            ax.axhline(values[0], label=label, **line)
            continue
        if lines.labels:
            look = {**MARKS[name], "color": line["color"], "zorder": line["zorder"], "linestyle": "none"}
            here = np.isin(lines.grid, facet.x)
            parts = [(lines.grid + DODGE[name], np.where(some, values, np.nan)) for some in (here, ~here)]
        else:
            x, inside, outside = cut(lines, facet, values)
            lone = np.isfinite(inside).sum() == 1  # all rows of the group at one value
            look = {**line, "marker": "_" if lone else None, "markersize": 9}
            parts = [(x, inside), (x, outside)]
        ax.plot(*parts[0], label=label, **look)
        if name != "unpooled" and beyond(lines, facet):
            ax.plot(*parts[1], **{**look, "alpha": FAINT, "marker": look["marker"] if lines.labels else None})


def cut(lines: Lines, facet: Facet, values: Array) -> tuple[Array, Array, Array]:
    """A curve over a number: where, its part between the least and the largest value of the group, and the rest."""
    low, high = float(facet.x.min()), float(facet.x.max())
    x = np.unique(np.r_[lines.grid, low, high])
    curve = np.interp(x, lines.grid, values)
    return x, np.where((x >= low) & (x <= high), curve, np.nan), np.where((x > low) & (x < high), np.nan, curve)


def beyond(lines: Lines, facet: Facet) -> bool:
    """Whether the grid reaches beyond the group's own rows."""
    if lines.x is None:
        return False
    if lines.labels:
        return not np.isin(lines.grid, facet.x).all()
    return bool(facet.x.min() > lines.grid[0] or facet.x.max() < lines.grid[-1])


def facet_scale(ax: Axes, lines: Lines) -> None:
    """Limits from the data and the model's lines, so that neither a wild unpooled line nor one far beyond its group's rows
    squeezes them.
    """
    number = lines.x is not None and not lines.labels
    near = [cut(lines, f, f.partial)[1] if number else f.partial for f in lines.facets]
    values = np.concatenate([*near, *(part for f in lines.facets for part in (f.y, f.pooled))])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    margin = 0.05 * (high - low) or 1.0
    ax.set_ylim(low - margin, high + margin)
    ax.tick_params(labelsize=8)
    if lines.labels:
        label_factor(ax, lines.labels)
    elif lines.x is None:
        ax.set_xlim(-0.7, max(len(facet.rows) for facet in lines.facets) - 0.3)
        ax.set_xticks([])
    else:
        whole_ticks(ax, lines.grid)


# -- random effects -------------------------------------------------------------------------------------------


def modes_panel(ax: Axes, mode: Array, half: Array) -> None:
    """Points with intervals from the bottom up, those that miss zero darker."""
    at = np.arange(len(mode))
    if len(mode) > MAX_POINTS:
        at = np.unique(np.linspace(0, len(mode) - 1, MAX_POINTS).round().astype(np.int64))
    clear = np.abs(mode) > half
    zero_line(ax, vertical=True)
    width = 1.4 if len(mode) <= MAX_LABELS else 0.7
    for dark, colour in ((False, COLOURS["faint"]), (True, COLOURS["partial"])):
        rows = at[clear[at] == dark]
        ends = mode[rows] - half[rows], mode[rows] + half[rows]
        ax.hlines(rows, *ends, color=colour, linewidth=width, alpha=0.5 if len(mode) > 500 else 1.0, zorder=2)
    size = 4.0 if len(mode) <= MAX_LABELS else 2.5 if len(mode) <= 500 else 1.0
    ax.plot(mode[at], at, "o", color=COLOURS["partial"], markersize=size, zorder=3)


def arrows(ax: Axes, found: Shrinkage, index: list[int], keep: Index) -> None:
    """Arrows in the plane of two coefficients, the population value, and ellipses of the covariance."""
    own, partial = found.own[keep][:, index], found.partial[keep][:, index]
    centre = found.population[index]
    values, vectors = np.linalg.eigh(found.cov[index][:, index])
    root = vectors * np.sqrt(np.maximum(values, 0))
    angle = np.linspace(0, 2 * np.pi, 200)
    circle = np.column_stack([np.cos(angle), np.sin(angle)])
    for coverage, style in ((0.5, "-"), (0.95, DASHED)):
        ring = centre + np.sqrt(-2 * np.log1p(-coverage)) * circle @ root.T
        label = f"{coverage:.0%} of groups expected inside"
        ax.plot(*ring.T, color=COLOURS["faint"], linestyle=style, linewidth=1.2, label=label, zorder=1)
    if len(keep):
        shape: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.003}
        shape |= {"headwidth": 5, "headlength": 6, "color": COLOURS["faint"], "zorder": 2}
        ax.quiver(*own.T, *(partial - own).T, **shape)
    _mark(ax, own[:, 0], own[:, 1], "unpooled")
    _mark(ax, partial[:, 0], partial[:, 1], "partial")
    cross: dict[str, Any] = {"marker": "X", "markersize": 11, "markeredgecolor": "white", "linestyle": "none"}
    ax.plot(*centre, color=COLOURS["pooled"], label="population", zorder=5, **cross)
    ax.set(xlabel=found.names[index[0]], ylabel=found.names[index[1]])
    legend_below(ax)


def stems(ax: Axes, found: Shrinkage, index: int, keep: Index) -> None:
    """One line for each group from its own estimate to the partially pooled one, sorted by the first."""
    keep = keep[np.argsort(found.own[keep, index], kind="stable")]
    own, partial, at = found.own[keep, index], found.partial[keep, index], np.arange(len(keep))
    few = len(keep) <= MAX_LABELS
    ax.axvline(found.population[index], label="population", **{**LINES["pooled"], "zorder": 1})
    ax.hlines(at, own, partial, color=COLOURS["faint"], linewidth=1.4 if few else 0.8, zorder=2)
    _mark(ax, own, at, "unpooled", few)
    _mark(ax, partial, at, "partial", few)
    label_levels(ax, found.group, [found.levels[j] for j in keep])
    ax.set_xlabel(found.names[index])
    legend_below(ax)


def legend_below(ax: Axes) -> None:
    """A legend under the axis' label, where it hides no group."""
    from matplotlib.transforms import ScaledTranslation

    figure = ax.get_figure(root=True)
    assert figure is not None
    # in points below the axes: a share of their height would meet the label where they are low
    under = ax.transAxes + ScaledTranslation(0, -33 / 72, figure.dpi_scale_trans)
    place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "bbox_transform": under}
    ax.legend(fontsize=8, frameon=False, ncols=3, borderaxespad=0, **place)


def _mark(ax: Axes, x: Array, y: NDArray[Any], name: str, large: bool = True) -> None:
    line, look = LINES[name], dict(MARKS[name])
    if not large:
        look |= {"markersize": 2.5, "markeredgewidth": 0.8}
    ax.plot(x, y, linestyle="none", color=line["color"], label=LEGEND[name], zorder=line["zorder"], **look)


# -- effects --------------------------------------------------------------------------------------------------


def effect_panel(ax: Axes, effect: Effect, half: float) -> None:
    """Line with band, or points with bars, and what is held where."""
    estimate, width = effect.estimate, half * effect.std_error
    if len(effect.x):
        x = effect.x + (jitter(len(effect.x), 0.12) if effect.labels else 0.0)
        alpha = 0.5 if len(x) < 500 else 0.25
        ax.plot(x, effect.y, "o", color=COLOURS["data"], markersize=2.5, markeredgewidth=0, alpha=alpha, zorder=1)
    if effect.labels or effect.name is None:
        style: dict[str, Any] = {"fmt": "D", "markersize": 5, "capsize": 3, "color": COLOURS["partial"]}
        ax.errorbar(effect.grid, estimate, yerr=width, zorder=3, **style)
        label_factor(ax, effect.labels or ("",))
    else:
        band: dict[str, Any] = {"color": COLOURS["band"], "alpha": 0.35, "linewidth": 0, "zorder": 2}
        ax.fill_between(effect.grid, estimate - width, estimate + width, **band)
        ax.plot(effect.grid, estimate, color=COLOURS["partial"], linewidth=1.8, zorder=3)
        whole_ticks(ax, effect.grid)
    ax.set_xlabel(effect.name or "population mean")
    if effect.held:
        ax.set_title(wrap(f"at {held_text(effect.held)}", 46), **NOTE)


def held_text(held: Mapping[str, Any]) -> str:
    """What predictors are held at, in words."""
    texts = []
    for name, value in held.items():
        shown = f"{value:.3g}" if isinstance(value, float) else frame.label_text(value)
        texts.append(f"{name} = {shown}")
    if len(texts) > 5:
        texts = [*texts[:4], f"and {len(texts) - 4} more at their typical values"]
    return ", ".join(texts)


# -- residuals ------------------------------------------------------------------------------------------------


def residual_panel(ax: Axes, fitted: Array, residuals: Array) -> None:
    """Residuals against fitted values, with a smooth trend."""
    rows = fewer(len(fitted), MAX_POINTS)
    zero_line(ax)
    style: dict[str, Any] = {"color": COLOURS["data"], "markersize": 3, "markeredgewidth": 0}
    ax.plot(fitted[rows], residuals[rows], "o", alpha=0.7 if len(rows) < 1000 else 0.25, **style)
    x, y = smooth(fitted, residuals)
    if len(x) > 1:
        ax.plot(x, y, color=COLOURS["pooled"], linewidth=1.8, label="local mean")
        ax.legend(fontsize=8, loc="upper right")
    ax.set(xlabel="fitted value", ylabel="standardised residual")
    if len(rows) < len(fitted):
        ax.set_title(f"{len(rows):,} of {len(fitted):,} points drawn", **NOTE)


def quantile_panel(ax: Axes, residuals: Array) -> None:
    """Ordered residuals against normal quantiles; where there are many, the tails are kept whole."""
    from scipy.special import ndtri

    n = len(residuals)
    at = np.arange(n)
    if n > MAX_POINTS:
        middle = np.linspace(0, n - 1, MAX_POINTS - 200).round().astype(np.int64)
        at = np.unique(np.concatenate([at[:100], middle, at[-100:]]))
    expected = ndtri((at + 0.5) / n)
    ends = [expected[0], expected[-1]]
    ax.plot(ends, ends, color=COLOURS["zero"], linewidth=1, linestyle=DASHED, label="normal")
    ax.plot(expected, np.sort(residuals)[at], "o", color=COLOURS["partial"], markersize=3, markeredgewidth=0)
    ax.set(xlabel="normal quantile", ylabel="ordered standardised residual")
    ax.legend(fontsize=8, loc="upper left")


def smooth(x: Array, y: Array, points: int = 60, span: float = 0.5) -> tuple[Array, Array]:
    """Local linear mean of y along x, with tricube weights over the nearest `span` of the rows.

    Long columns are averaged in 500 bins of equal count first, which changes nothing that can be seen.
    """
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    size = np.ones(len(x))
    if len(x) > 1000:
        starts = np.linspace(0, len(x), 501).astype(np.int64)
        size = np.diff(starts).astype(np.float64)
        x, y = np.add.reduceat(x, starts[:-1]) / size, np.add.reduceat(y, starts[:-1]) / size
    grid = np.unique(x[np.linspace(0, len(x) - 1, points).round().astype(np.int64)])
    nearest = max(2, math.ceil(span * len(x)))
    out = np.empty(len(grid))
    for i, at in enumerate(grid):
        far = np.abs(x - at)
        reach = float(np.partition(far, nearest - 1)[nearest - 1]) * 1.000001 or 1.0
        w = size * np.clip(1 - (far / reach) ** 3, 0, None) ** 3
        mean = np.average(x, weights=w)
        spread = np.average((x - mean) ** 2, weights=w)
        slope = np.average((x - mean) * y, weights=w) / spread if spread > 1e-12 * reach**2 else 0.0
        out[i] = np.average(y, weights=w) + slope * (at - mean)
    return grid, out
