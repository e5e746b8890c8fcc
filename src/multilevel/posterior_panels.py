"""What the plots of a posterior put on one matplotlib Axes; nothing here imports matplotlib or makes a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import chain_diagnostics, plot_panels
from .kernel_density import density, span
from .plot_panels import COLOURS, DASHED, LINES, MAX_LABELS, MAX_POINTS, NOTE, fewer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .posterior_lines import Band, PosteriorLines
    from .posterior_values import Parameter

__all__ = [
    "CHAINS", "DIVERGING", "band_panel", "chain_densities", "group_panel", "group_scale", "interval_panel", "pair_panel",
    "prior_panel", "rank_panel", "ridge_panel", "trace_panel",
]  # fmt: skip

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]

CHAINS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#4d4d4d")
DIVERGING = "#D55E00"
GRID = 256  # points of a density
MAX_TRACE = 2_000  # draws of a chain that are drawn as a trace
RANK_BINS = 20
WIDEST = 1.0  # how far beyond the posterior a prior is drawn, in widths of the posterior


def _grid(low: float, high: float) -> Array:
    return np.linspace(low, high, GRID)


def _no_heights(ax: Axes) -> None:
    """A density's scale says nothing that its shape does not."""
    ax.set_yticks([])
    ax.set_ylim(bottom=0)
    for side in ("left", "right", "top"):
        ax.spines[side].set_visible(False)
    ax.tick_params(labelsize=8)


# -- chains ---------------------------------------------------------------------------------------------------


def chain_densities(ax: Axes, p: Parameter, diverging: Bools) -> None:
    """A density for each chain; a rug of divergent draws under them."""
    if p.held:
        _held(ax, p)
        return
    x = _grid(*span(p.flat, p.lower, p.upper))
    for c, values in enumerate(p.values):
        style: dict[str, Any] = {"linewidth": 1.3, "alpha": 0.9, "label": f"chain {c + 1}"}
        ax.plot(x, density(values, x, p.lower, p.upper), color=CHAINS[c % len(CHAINS)], **style)
    _no_heights(ax)
    _rug(ax, p.values[diverging])


def _held(ax: Axes, p: Parameter) -> None:
    value = float(p.flat[0])
    ax.axvline(value, color=COLOURS["partial"], linewidth=1.8)
    ax.set_title(f"held at {value:.4g}", loc="right", **NOTE)
    _no_heights(ax)
    reach = 0.5 * abs(value) or 1.0
    ax.set_xlim(value - reach, value + reach)


def _rug(ax: Axes, values: Array) -> None:
    if len(values):
        low, high = ax.get_ylim()
        ax.set_ylim(low - 0.07 * (high - low), high)
        at = np.full(len(values), low - 0.035 * (high - low))
        ax.plot(values, at, "|", color=DIVERGING, markersize=8, label="divergent transition", clip_on=False, zorder=4)


def trace_panel(ax: Axes, p: Parameter, diverging: Bools) -> None:
    """Draws of every chain in their order; divergent ones marked under them."""
    n = p.values.shape[1]
    step = math.ceil(n / MAX_TRACE)
    at = np.arange(0, n, step)
    for c, values in enumerate(p.values):
        ax.plot(at, values[at], color=CHAINS[c % len(CHAINS)], linewidth=0.5, alpha=0.75, label=f"chain {c + 1}")
    where = np.flatnonzero(diverging.any(axis=0))
    if len(where):
        low, high = ax.get_ylim()
        bottom = low - 0.04 * (high - low)
        ax.plot(where, np.full(len(where), bottom), "|", color=DIVERGING, markersize=8, label="divergent transition")
        ax.set_ylim(low - 0.08 * (high - low), high)
    ax.set_xlim(-0.5, n - 0.5)
    ax.tick_params(labelsize=8)
    ax.set_title(_worth(p) + (f"; every {step}th draw drawn" if step > 1 else ""), loc="right", **NOTE)


def rank_panel(ax: Axes, p: Parameter) -> None:
    """How many draws of each chain rank where among all: even, where chains agree.

    Vehtari, Gelman, Simpson, Carpenter & Buerkner (2021), Bayesian Analysis 16, 667, section 4.3.
    """
    chains, n = p.values.shape
    ranks = chain_diagnostics._average_ranks(p.flat).reshape(chains, n)
    edges = np.linspace(0.5, chains * n + 0.5, RANK_BINS + 1)
    for c, own in enumerate(ranks):
        counts = np.histogram(own, bins=edges)[0]
        ax.stairs(counts, edges, color=CHAINS[c % len(CHAINS)], linewidth=1.3, label=f"chain {c + 1}")
    ax.axhline(n / RANK_BINS, color=COLOURS["zero"], linestyle=DASHED, linewidth=1)
    ax.set_ylim(bottom=0)
    ax.set_xlim(edges[0], edges[-1])
    ax.tick_params(labelsize=8)
    ax.set_title(_worth(p), loc="right", **NOTE)


def _worth(p: Parameter) -> str:
    if p.held:
        return f"held at {float(p.flat[0]):.4g}"
    x = p.values[:, :, None]
    r, size = float(chain_diagnostics.r_hat(x)[0]), float(chain_diagnostics.ess_bulk(x)[0])
    return f"R-hat {r:.3f}, effective draws {size:,.0f}"


# -- one parameter against another, and against its prior -----------------------------------------------------


def pair_panel(ax: Axes, x: Parameter, y: Parameter, diverging: Bools, most: int) -> None:
    """Draws of two parameters, divergent ones on top."""
    clear = np.flatnonzero(~diverging.ravel())
    rows = clear[fewer(len(clear), most)]
    alpha = 0.35 if len(rows) < 1000 else 0.2
    style: dict[str, Any] = {"markeredgewidth": 0, "linestyle": "none"}
    ax.plot(x.flat[rows], y.flat[rows], "o", color=COLOURS["partial"], markersize=2.5, alpha=alpha, zorder=2, **style)
    bad = np.flatnonzero(diverging.ravel())
    if len(bad):
        ax.plot(x.flat[bad], y.flat[bad], "X", color=DIVERGING, markersize=6, label="divergent transition", zorder=3, **style)
    for p, limits in ((x, ax.set_xlim), (y, ax.set_ylim)):
        limits(*_limits(p))
    ax.tick_params(labelsize=7)


def _limits(p: Parameter) -> tuple[float, float]:
    """All draws and a margin, the same in every panel."""
    low, high = float(p.flat.min()), float(p.flat.max())
    margin = 0.04 * (high - low) or 1.0
    return low - margin, high + margin


def one_density(ax: Axes, p: Parameter) -> None:
    """Density of all draws, filled, on the limits that its scatter panels have."""
    x = _grid(*_limits(p))
    _filled(ax, x, density(p.flat, x, p.lower, p.upper))
    ax.set_xlim(*_limits(p))
    _no_heights(ax)


def _filled(ax: Axes, x: Array, height: Array, label: str | None = None) -> None:
    inside = height > 0
    ax.fill_between(x[inside], height[inside], color=COLOURS["band"], alpha=0.4, linewidth=0, zorder=2)
    ax.plot(x[inside], height[inside], color=COLOURS["partial"], linewidth=1.5, label=label, zorder=3)


def prior_panel(ax: Axes, p: Parameter, prior: Array | None) -> bool:
    """Densities of prior and posterior draws; returns whether the prior goes on beyond the panel.

    Parameters
    ----------
    prior : (m,) array or None
        None where there is no density to draw.
    """
    if p.held:
        _held(ax, p)
        return False
    low, high = span(p.flat, p.lower, p.upper)
    cut = False
    if prior is not None:
        width = high - low
        first, last = span(prior, p.lower, p.upper, 0.01)
        cut = first < low - WIDEST * width or last > high + WIDEST * width
        low = min(low, max(first, low - WIDEST * width))
        high = max(high, min(last, high + WIDEST * width))
    x = _grid(low, high)
    _filled(ax, x, density(p.flat, x, p.lower, p.upper), "posterior")
    if prior is not None:
        height = density(prior, x, p.lower, p.upper)
        ax.plot(x, height, color=COLOURS["pooled"], linestyle=DASHED, linewidth=1.5, label="prior", zorder=4)
    ax.set_xlim(low - 0.02 * (high - low), high + 0.02 * (high - low))
    _no_heights(ax)
    return cut


# -- groups ---------------------------------------------------------------------------------------------------


def interval_panel(ax: Axes, mean: Array, inner: tuple[Array, Array], outer: tuple[Array, Array], dark: Bools) -> None:
    """Means with two intervals from the bottom up; those that are not `dark` are drawn paler."""
    at = np.arange(len(mean))
    if len(mean) > MAX_POINTS:
        at = np.unique(np.linspace(0, len(mean) - 1, MAX_POINTS).round().astype(np.int64))
    few = len(mean) <= MAX_LABELS
    for strong, colour in ((False, COLOURS["faint"]), (True, COLOURS["partial"])):
        rows = at[dark[at] == strong]
        pale = 0.5 if len(mean) > 500 else 1.0
        ax.hlines(rows, outer[0][rows], outer[1][rows], color=colour, linewidth=1.1 if few else 0.7, alpha=pale, zorder=2)
        if few:
            ax.hlines(rows, inner[0][rows], inner[1][rows], color=colour, linewidth=2.8, zorder=2)
    size = 4.0 if few else 2.5 if len(mean) <= 500 else 1.0
    ax.plot(mean[at], at, "o", color=COLOURS["partial"], markersize=size, zorder=3)
    ax.tick_params(axis="x", labelsize=8)


def ridge_panel(ax: Axes, values: Array, mean: Array, outer: tuple[Array, Array]) -> None:
    """Densities of (draws, J) values one above the other, all of one area, with means and intervals.

    The tallest reaches over 1.7 rows; lower rows stand in front.
    """
    J = values.shape[1]
    curves = []
    for j in range(J):
        x = _grid(*span(values[:, j], tail=0.005))
        curves.append((x, density(values[:, j], x)))
    top = max(float(height.max()) for _, height in curves)
    for j, (x, height) in enumerate(curves):
        front = 3 + (J - j) / (J + 1)
        y = j + 1.7 * height / top
        ax.fill_between(x, j, y, color="white", linewidth=0, zorder=front)
        ax.fill_between(x, j, y, color=COLOURS["band"], alpha=0.45, linewidth=0, zorder=front)
        ax.plot(x, y, color=COLOURS["partial"], linewidth=0.9, zorder=front)
    at = np.arange(J)
    ax.hlines(at, *outer, color=COLOURS["partial"], linewidth=1.6, zorder=5)
    ax.plot(mean, at, "o", color=COLOURS["partial"], markersize=3.5 if J <= 30 else 2.5, zorder=5)
    ax.tick_params(axis="x", labelsize=8)


def population_line(ax: Axes, mean: float, low: float, high: float, front: bool) -> None:
    """The population's value with its interval behind the groups; the line may go in front of densities."""
    label = "population, mean and interval"
    ax.axvspan(low, high, color=COLOURS["pooled"], alpha=0.12, linewidth=0, zorder=0.5)
    ax.axvline(mean, color=COLOURS["pooled"], linestyle=DASHED, linewidth=1.4, zorder=4.5 if front else 1, label=label)


def group_panel(ax: Axes, found: PosteriorLines, i: int, limit: int, named: bool) -> int:
    """Points of a group, lines of single draws, and the lines that a fit's panel has; returns the points drawn."""
    lines, facet = found.lines, found.lines.facets[i]
    thin: dict[str, Any] = {"color": COLOURS["band"], "linewidth": 0.6, "alpha": 0.35, "zorder": 1.2}
    if lines.labels:
        at = lines.grid + plot_panels.DODGE["partial"]
        ax.vlines(at, found.low[i], found.high[i], color=COLOURS["partial"], linewidth=1.4, zorder=2.5)
    elif lines.x is None:
        for value in found.sampled[i][:, 0]:
            ax.axhline(value, **thin)
    else:
        ax.plot(lines.grid, found.sampled[i].T, **thin)
    return plot_panels.facet_panel(ax, lines, facet, limit, named)


def group_scale(ax: Axes, found: PosteriorLines) -> None:
    """Limits from the data, the posterior's lines and the pooled one."""
    lines = found.lines
    parts = [part for f in lines.facets for part in (f.y, f.partial, f.pooled)] + [*found.low, *found.high]
    values = np.concatenate(parts)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    margin = 0.05 * (high - low) or 1.0
    plot_panels.facet_scale(ax, lines)
    ax.set_ylim(low - margin, high + margin)
    category_ticks(ax, found.categories)


def category_ticks(ax: Axes, categories: Sequence[str]) -> None:
    """Names of categories along y."""
    if 0 < len(categories) <= 12:
        ax.set_yticks(range(1, len(categories) + 1), [plot_panels.short(one, 12) for one in categories])


def legend_of_groups(ax: Axes, found: PosteriorLines, level: float) -> tuple[list[Any], list[str]]:
    """What was drawn, with names."""
    names = {**plot_panels.LEGEND, "partial": "posterior mean (partially pooled)"}
    given = {"data": "data", **{plot_panels.LEGEND[k]: names[k] for k in LINES}}
    empty = [k for k in ("pooled", "unpooled") if all(np.isnan(getattr(f, k)).all() for f in found.lines.facets)]
    lost = {plot_panels.LEGEND[k] for k in empty}
    handles, texts = ax.get_legend_handles_labels()
    kept = [(h, given[t]) for h, t in zip(handles, texts, strict=True) if t not in lost]
    if found.lines.labels:
        kept.append((ax.collections[0], f"{100 * level:.4g}% of draws"))
    else:
        (line,) = ax.plot([], [], color=COLOURS["band"], linewidth=1.0)
        kept.append((line, f"{len(found.sampled[0])} single draws"))
    return [h for h, _ in kept], [t for _, t in kept]


# -- effects --------------------------------------------------------------------------------------------------


def band_panel(ax: Axes, effect: Band) -> None:
    """Mean line with a credible band, or points with bars, and what is held where."""
    if effect.labels or effect.name is None:
        ends = np.stack([effect.mean - effect.low, effect.high - effect.mean])
        style: dict[str, Any] = {"fmt": "D", "markersize": 5, "capsize": 3, "color": COLOURS["partial"]}
        ax.errorbar(effect.grid, effect.mean, yerr=ends, zorder=3, **style)
        plot_panels.label_factor(ax, effect.labels or ("",))
    else:
        ax.fill_between(effect.grid, effect.low, effect.high, color=COLOURS["band"], alpha=0.35, linewidth=0, zorder=2)
        ax.plot(effect.grid, effect.mean, color=COLOURS["partial"], linewidth=1.8, zorder=3)
        plot_panels.whole_ticks(ax, effect.grid)
    ax.set_xlabel(effect.name or "population mean")
    if effect.held:
        shown: Any = effect
        ax.set_title(plot_panels.wrap(f"at {plot_panels.held_text(shown.held)}", 46), **NOTE)
