"""The figure of `random_slope_check`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .effect_lines import predictors_of
from .plot_panels import COLOURS, DOTTED, LEGEND, LINES, MARKS, MAX_LABELS, MAX_POINTS, NOTE, fewer, label_levels, wrap
from .plots import _figure, _panels, _pyplot, _squeeze

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .pooling_lines import Lines
    from .slope_check import SlopeCheck

__all__ = ["draw"]

MAX_LINES = 60


def draw(check: SlopeCheck, own: Mapping[str, Any], columns: Sequence[str], ax: Any) -> Any:
    """Lines and slopes; see `SlopeCheck.plot`."""
    plt = _pyplot()
    lines = ax is None or np.size(ax) == 2
    lines = lines and _drawable(check, columns)
    panels = len(columns) + lines
    levels = len(own["level"]) // len(columns)
    known = [int(np.isfinite(own["own"][i * levels : (i + 1) * levels]).sum()) for i in range(len(columns))]
    shown = max(count or levels for count in known)
    tall = 5.0 if shown > MAX_LABELS else min(max(0.19 * shown + 1.9, 4.0), 8.5)
    axes, made = _panels(plt, ax, panels, panels, (4.6 * panels, tall))
    if lines:
        _lines_panel(axes[0], check)
    for i, name in enumerate(columns):
        rows = slice(i * levels, (i + 1) * levels)
        part = {key: np.asarray(value)[rows] for key, value in own.items()}
        _slopes_panel(axes[i + lines], check, name, part, named=not lines and not i)
    if made:
        _figure(axes).suptitle(wrap(check.sentence, 48 * panels), **{**NOTE, "fontsize": 9})
    return _squeeze(axes)


def _drawable(check: SlopeCheck, columns: Sequence[str]) -> bool:
    fit = check.varying
    known = predictors_of(fit.design.remake.fixed)
    return len(columns) == 1 and columns[0] == check.slope and check.slope in known


def _lines_panel(ax: Axes, check: SlopeCheck) -> None:
    """Every group's own and partially pooled line along the predictor."""
    found = check.varying.plot._group_lines(check.slope, check.group, None, MAX_LINES)
    thin: dict[str, Any] = {"linewidth": 0.9, "alpha": 0.7}
    for i, facet in enumerate(found.facets):
        label = (LEGEND["unpooled"], LEGEND["partial"]) if not i else (None, None)
        inside = (found.grid >= facet.x.min()) & (found.grid <= facet.x.max())
        own = np.where(inside, facet.unpooled, np.nan)  # no further than the group's own rows
        ax.plot(found.grid, own, color=COLOURS["unpooled"], linestyle=DOTTED, label=label[0], **thin)
        ax.plot(found.grid, facet.partial, color=COLOURS["partial"], label=label[1], **thin)
    mean = np.mean([facet.pooled for facet in found.facets], axis=0)
    ax.plot(found.grid, mean, label=LEGEND["pooled"], **{**LINES["pooled"], "linewidth": 2.2, "zorder": 5})
    shown = f" ({len(found.facets)} of {found.total:,})" if found.total > len(found.facets) else ""
    ax.set_title(f"lines of {check.group}{shown}", fontsize=10)
    ax.set(xlabel=check.slope, ylabel=check.varying.plot._response)
    ax.set_ylim(*_limits(found))
    ax.legend(fontsize=7.5)


def _limits(found: Lines) -> tuple[float, float]:
    """Room for the model's lines and own ones near them: a wild line of a small group does not squeeze the rest."""
    values = np.concatenate([np.concatenate([f.partial, f.pooled]) for f in found.facets])
    own = np.concatenate([f.unpooled for f in found.facets])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    reach = 0.25 * (high - low) or 1.0
    if np.isfinite(own).any():
        low, high = min(low, max(float(np.nanmin(own)), low - reach)), max(high, min(float(np.nanmax(own)), high + reach))
    margin = 0.04 * (high - low) or 1.0
    return low - margin, high + margin


def _slopes_panel(ax: Axes, check: SlopeCheck, name: str, own: Mapping[str, Any], named: bool) -> None:
    """Own slopes with intervals and partially pooled ones, sorted by the first; the latter alone where none is known."""
    known = np.flatnonzero(np.isfinite(own["own"]))
    shown, by = (known, "own") if len(known) else (np.arange(len(own["own"])), "partial")
    keep = shown[fewer(len(shown), MAX_POINTS)]
    keep = keep[np.argsort(own[by][keep], kind="stable")]
    at = np.arange(len(keep))
    half = np.nan_to_num(1.96 * own["std_error"][keep])
    few = len(keep) <= MAX_LABELS
    centre = own["own"][keep]
    ax.axvline(float(own["population"][0]), label="mean of groups", **{**LINES["pooled"], "zorder": 1})
    ax.hlines(at, centre - half, centre + half, color=COLOURS["faint"], linewidth=1.3 if few else 0.7, zorder=2)
    for key, values in (("unpooled", centre), ("partial", own["partial"][keep])):
        look = {**MARKS[key], **({} if few else {"markersize": 2.5, "markeredgewidth": 0.8})}
        label = LEGEND[key] if np.isfinite(values).any() else None
        ax.plot(values, at, linestyle="none", color=COLOURS[key], label=label, zorder=LINES[key]["zorder"], **look)
    label_levels(ax, check.group, [own["level"][j] for j in keep])
    lost = len(own["own"]) - len(known)
    without = f" ({lost:,} of {len(own['own']):,} levels without own slope)" if lost else ""
    title = f"95% intervals{without}" if len(known) else "no level's rows give a slope of its own"
    ax.set_title(title, fontsize=10)
    what = f"slope of {name}" if name == check.slope else name
    ax.set_xlabel(f"{what} (dashed: mean of groups)")
    ends = np.concatenate([centre - half, centre + half]) if len(known) else own["partial"][keep]
    low, high = np.percentile(ends, [1, 99]) if len(keep) else (0.0, 1.0)
    low, high = min(low, float(own["population"][0])), max(high, float(own["population"][0]))
    margin = 0.1 * (high - low) or 1.0
    ax.set_xlim(low - margin, high + margin)
    if named:  # the panel of lines has the same
        ax.legend(fontsize=7.5, loc="upper left")  # sorted upwards, slopes leave that corner free
