"""The panels of ``fit.plot.check()`` and ``fit.plot.influence()``; nothing here imports matplotlib or makes a figure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .plot_panels import COLOURS, DASHED, MAX_POINTS, NOTE, fewer, short, smooth, zero_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .fit import Fit
    from .residual_checks import Facts

__all__ = ["Panel", "influence_panels", "panels"]

Array = NDArray[np.float64]
Panel = tuple[str, "Callable[[Axes], None]"]  # its title, and what draws it

MAX_EFFECTS = 6  # quantile plots of random effects in one figure
MAX_GROUPS = 30  # levels of a factor side by side
SIDE_BY_SIDE = 20  # names of levels in one row
NAMED = 3  # points that get their names


def panels(fit: Fit) -> list[Panel]:
    """Residuals against fitted values, spread, quantiles, residuals by group, quantiles of effects, influence."""
    from . import residual_checks

    f = residual_checks.facts(fit)
    out: list[Panel] = [
        ("Residuals: is the mean straight?", lambda ax: _residuals(ax, f)),
        ("Spread: is it even?", lambda ax: _spread(ax, f)),
        ("Residuals: are they normal?", lambda ax: _residual_quantiles(ax, f)),
    ]
    groups = list(dict.fromkeys(t.group for t in fit.design.terms))
    out += [(f"Residuals by {short(g, 20)}", lambda ax, g=g: _by_group(ax, f, g)) for g in groups[:2]]  # type: ignore[misc]
    out += _effect_panels(fit)
    return [*out, *_influence_of(f, groups)]


# -- residuals ------------------------------------------------------------------------------------------------


def _label(f: Facts) -> str:
    return "standardised residual" if f.fit.model.residual is None else "normalized residual"


def _dots(ax: Axes, x: Array, y: Array) -> None:
    rows = fewer(len(x), MAX_POINTS)
    alpha = 0.7 if len(rows) < 1000 else 0.25
    ax.plot(x[rows], y[rows], "o", color=COLOURS["data"], markersize=3, markeredgewidth=0, alpha=alpha, zorder=1)
    if len(rows) < len(x):
        ax.annotate(f"{len(rows):,} of {len(x):,} drawn", (0.02, 0.02), xycoords="axes fraction", **NOTE)


def _names(ax: Axes, x: Array, y: Array, labels: list[str], far: Array, count: int = NAMED) -> None:
    """Names of the farthest points, towards the middle of the panel; none where it would lie on another."""
    wide, tall = float(np.ptp(x)) or 1.0, float(np.ptp(y)) or 1.0
    middle = (float(np.min(x)) + float(np.max(x))) / 2
    placed: list[int] = []
    for i in np.argsort(-far, kind="stable")[:count].tolist():
        near = any(abs(x[i] - x[j]) < 0.3 * wide and abs(y[i] - y[j]) < 0.06 * tall for j in placed)
        if not far[i] > 0 or near:
            continue
        placed.append(i)
        side = -1 if x[i] > middle else 1
        style: dict[str, Any] = {"ha": "right" if side < 0 else "left", "va": "center", "fontsize": 7.5}
        where: dict[str, Any] = {"xytext": (4 * side, 0), "textcoords": "offset points"}
        ax.annotate(labels[i], (float(x[i]), float(y[i])), color=COLOURS["zero"], **where, **style)


def _trend(ax: Axes, x: Array, y: Array, label: str) -> None:
    at, mean = smooth(x, y)
    if len(at) > 1:
        ax.plot(at, mean, color=COLOURS["pooled"], linewidth=1.8, label=label, zorder=3)


def _row_names(f: Facts) -> list[str]:
    return [f"row {row}" for row in f.fit.design.rows[f.good].tolist()]


def _residuals(ax: Axes, f: Facts) -> None:
    x, y = f.fitted[f.good], f.residuals[f.good]
    zero_line(ax)
    _dots(ax, x, y)
    _trend(ax, x, y, "local mean")
    _names(ax, x, y, _row_names(f), np.where(np.abs(y) > 3, np.abs(y), 0.0))
    ax.legend(fontsize=8, loc="best")
    ax.set(xlabel=f"fitted {short(f.fit.design.response, 24)}", ylabel=_label(f))


def _spread(ax: Axes, f: Facts) -> None:
    x, y = f.fitted[f.good], np.sqrt(np.abs(f.residuals[f.good]))
    expected = 0.82218  # mean of sqrt(|z|), z standard normal: 2**0.25 * Gamma(0.75) / sqrt(pi)
    ax.axhline(expected, color=COLOURS["zero"], linewidth=1, linestyle=DASHED, zorder=1, label="expected")
    _dots(ax, x, y)
    _trend(ax, x, y, "local mean")
    ax.set_ylim(bottom=0)
    ax.legend(fontsize=8, loc="best")
    ax.set(xlabel=f"fitted {short(f.fit.design.response, 24)}", ylabel="root of |residual|")


def _residual_quantiles(ax: Axes, f: Facts) -> None:
    r = f.residuals[f.good]
    quantiles(ax, r, [f"{row}" for row in f.fit.design.rows[f.good].tolist()], "row ")
    ax.set_ylabel(f"ordered {_label(f)}")


def quantiles(ax: Axes, values: Array, labels: list[str], prefix: str = "") -> None:
    """Ordered values against normal quantiles, with the band that 95 % of normal order statistics lie in, each for itself."""
    from scipy.special import betaincinv, ndtri

    n = len(values)
    order = np.argsort(values, kind="stable")
    at = np.arange(n)
    if n > MAX_POINTS:  # the tails whole, the middle thinned
        middle = np.linspace(0, n - 1, MAX_POINTS - 200).round().astype(np.int64)
        at = np.unique(np.concatenate([at[:100], middle, at[-100:]]))
    expected = ndtri((at + 0.5) / n)
    low, high = (ndtri(betaincinv(at + 1.0, n - at + 0.0, share)) for share in (0.025, 0.975))
    band: dict[str, Any] = {"color": COLOURS["band"], "alpha": 0.3, "linewidth": 0, "zorder": 1}
    ax.fill_between(expected, low, high, label="95% of normal samples", **band)
    ax.plot(expected[[0, -1]], expected[[0, -1]], color=COLOURS["zero"], linewidth=1, linestyle=DASHED, zorder=2)
    y = values[order][at]
    size = 4 if n < 60 else 3
    ax.plot(expected, y, "o", color=COLOURS["partial"], markersize=size, markeredgewidth=0, zorder=3)
    outside = np.where((y < low) | (y > high), np.abs(y), 0.0)
    _names(ax, expected, y, [prefix + labels[i] for i in order[at]], np.where(np.abs(y) > 2, outside, 0.0))
    ax.set_xlabel("normal quantile")
    ax.legend(fontsize=8, loc="upper left")


def _by_group(ax: Axes, f: Facts, group: str) -> None:
    """Boxes of residuals per level; of many levels, those with the widest and the narrowest residuals."""
    term = next(t for t in f.fit.design.terms if t.group == group)
    codes, r = term.codes[f.good], f.residuals[f.good]
    counts = np.bincount(codes, minlength=len(term.levels))
    size = np.sqrt(np.bincount(codes, r**2, minlength=len(counts)) / np.maximum(counts, 1))
    levels = np.flatnonzero(counts > 0)
    levels = levels[np.argsort(size[levels], kind="stable")]
    note = ""
    if len(levels) > MAX_GROUPS:
        enough = levels[counts[levels] >= min(5, counts[levels].max())]
        half = MAX_GROUPS // 2
        note = f"{half} narrowest and {half} widest of {len(levels):,}"
        levels = np.concatenate([enough[:half], enough[-half:]]) if len(enough) > MAX_GROUPS else enough
    parts = [r[codes == j] for j in levels]
    style: dict[str, Any] = {"widths": 0.6, "showfliers": True, "patch_artist": True}
    style |= {"flierprops": {"marker": "o", "markersize": 2.5, "markerfacecolor": COLOURS["data"], "markeredgewidth": 0}}
    style |= {"boxprops": {"facecolor": COLOURS["band"], "alpha": 0.5, "linewidth": 0.8}}
    style |= {"medianprops": {"color": COLOURS["partial"], "linewidth": 1.4}}
    ax.boxplot(parts, positions=np.arange(len(parts)), **style)
    zero_line(ax)
    names = [short(term.levels[j], 10) for j in levels]
    _level_ticks(ax, names, 90 if len(names) > 8 or sum(map(len, names)) > 30 else 0)
    ax.set_xlabel(f"{short(group, 24)}, by spread" + (f"\n{note}" if note else ""), fontsize=9)
    ax.set_ylabel(_label(f))


def _level_ticks(ax: Axes, labels: list[str], turned: int = 90) -> None:
    """Names of levels; of more than stand side by side every second one is set lower."""
    at = np.arange(len(labels))
    style: dict[str, Any] = {"fontsize": 8 if len(labels) <= SIDE_BY_SIDE else 7, "rotation": turned}
    if len(labels) <= SIDE_BY_SIDE:
        ax.set_xticks(at, labels, **style)
        return
    ax.set_xticks(at[::2], labels[::2], **style)
    ax.set_xticks(at[1::2], labels[1::2], minor=True, **style)
    lower = 5 + 4.6 * max(map(len, labels[::2]))
    ax.tick_params(axis="x", which="minor", length=lower, width=0.5, color=COLOURS["faint"], pad=1)


# -- random effects and influence -----------------------------------------------------------------------------


def _effect_panels(fit: Fit) -> list[Panel]:
    from .effect_checks import standardised_modes

    out: list[Panel] = []
    for t, term in enumerate(fit.design.terms):
        drawn: list[Array] = []
        for i, name in enumerate(term.names):
            z = standardised_modes(fit, t, i)
            if z is None or np.isfinite(z).sum() < 3:
                continue
            if any(np.allclose(z, one, atol=1e-6, equal_nan=True) for one in drawn):
                continue  # effects with a correlation of one
            drawn.append(z)
            keep = np.isfinite(z)
            labels = [short(level, 14) for level in term.levels[keep]]
            out.append((f"{short(term.group, 14)}: {short(name, 18)}", _effect_drawer(z[keep], labels)))
    return out[:MAX_EFFECTS]


def _effect_drawer(z: Array, labels: list[str]) -> Callable[[Axes], None]:
    def draw(ax: Axes) -> None:
        quantiles(ax, z, labels)
        ax.set_ylabel("ordered standardised effect")

    return draw


def _influence_of(f: Facts, groups: list[str]) -> list[Panel]:
    """Cook's distance of the levels of the first factor where that is cheap, else of rows."""
    from .effect_checks import quick
    from .influence import holds_series

    fit = f.fit
    if not len(fit.optimum.beta):
        return []
    groups = [g for g in groups if holds_series(fit, g)]
    if groups and quick(fit, groups[0]):
        return [_group_panel(fit, groups[0])]
    return [] if f.serial is not None else [_row_panel(f)]  # rows of a series cannot be left out one by one


def influence_panels(fit: Fit, group: str | None) -> list[Panel]:
    """Cook's distance and the change of each coefficient, of rows or of the levels of a factor."""
    from . import residual_checks
    from .group_influence import by_group
    from .influence import check_rows_apart, influence

    if group is None:
        check_rows_apart(fit)
        f = residual_checks.facts(fit)
        return [_leverage_panel(f), _row_panel(f)]
    influence(fit, group, variances=False)  # says what is wrong with the name
    table = by_group(fit, group, variances=False)[0]
    return [_group_panel(fit, group, table), *(_change_panel(fit, group, table, name) for name in fit.design.names[:5])]


def _worth_a_look(ax: Axes, limit: float) -> None:
    """From where fit.check() tells of a Cook's distance: a line if it lies within, and a note above everything drawn."""
    top = 1.12 * ax.get_ylim()[1]  # room for the note, which no line may cross
    ax.set_ylim(0, 1.2 * limit if 0.85 * top < limit < top else top)
    if ax.get_ylim()[1] > limit:
        ax.axhline(limit, color=COLOURS["zero"], linewidth=1, linestyle=DASHED, zorder=1)
    note: dict[str, Any] = NOTE | {"ha": "right", "va": "top"}
    ax.annotate(f"worth a look from {limit:.2g}", (0.98, 0.98), xycoords="axes fraction", **note)


def _stems(ax: Axes, values: Array, labels: list[str], few: bool) -> None:
    at = np.arange(len(values))
    ax.vlines(at, 0, values, color=COLOURS["faint"], linewidth=1.2 if few else 0.7, zorder=2)
    ax.plot(at, values, "o", color=COLOURS["partial"], markersize=4 if few else 2, markeredgewidth=0, zorder=3)
    if few:
        _level_ticks(ax, labels)
    else:
        ax.set_xticks([])
        _names(ax, at.astype(np.float64), values, labels, np.abs(values))


def _group_panel(fit: Fit, group: str, table: dict[str, Any] | None = None) -> Panel:
    from .effect_checks import COOK_LOOK, FEW_LOOK
    from .group_influence import by_group

    found = by_group(fit, group, variances=False)[0] if table is None else table
    levels = next(t.levels for t in fit.design.terms if t.group == group)

    def draw(ax: Axes) -> None:
        cook = np.nan_to_num(found["cooks"])
        few = len(levels) <= MAX_GROUPS
        _stems(ax, cook, [short(one, 10) for one in levels], few)
        _worth_a_look(ax, max(COOK_LOOK, FEW_LOOK / len(levels)))
        ax.set_xlabel(short(group, 24) if few else f"{short(group, 24)}: {len(levels):,} levels")
        ax.set_ylabel("Cook's distance")

    return f"Influence of {short(group, 20)}", draw


def _change_panel(fit: Fit, group: str, table: dict[str, Any], name: str) -> Panel:
    levels = next(t.levels for t in fit.design.terms if t.group == group)

    def draw(ax: Axes) -> None:
        few = len(levels) <= MAX_GROUPS
        zero_line(ax)
        _stems(ax, np.nan_to_num(-table[f"dfbetas_{name}"]), [short(one, 10) for one in levels], few)
        ax.set_xlabel(short(group, 24) if few else f"{short(group, 24)}: {len(levels):,} levels")
        ax.set_ylabel("moves by (standard errors)")

    return f"{short(name, 22)} without the level", draw


def _row_panel(f: Facts) -> Panel:
    from .effect_checks import COOK_LOOK

    def draw(ax: Axes) -> None:
        cook = np.nan_to_num(f.table["cooks_fixed"])
        rows = f.fit.design.rows
        top = fewer(len(cook), MAX_POINTS)
        top = np.union1d(top, np.argsort(-cook)[:20])
        ax.vlines(rows[top], 0, cook[top], color=COLOURS["partial"], linewidth=0.8)
        _names(ax, rows[top].astype(np.float64), cook[top], [f"row {i}" for i in rows[top].tolist()], cook[top])
        _worth_a_look(ax, COOK_LOOK)
        ax.set(xlabel="row", ylabel="Cook's distance")
        ax.locator_params(axis="x", nbins=5)

    return "Influence of rows", draw


def _leverage_panel(f: Facts) -> Panel:
    def draw(ax: Axes) -> None:
        h, r = f.table["leverage"][f.good], f.residuals[f.good]
        zero_line(ax)
        _dots(ax, h, r)
        _names(ax, h, r, _row_names(f), np.nan_to_num(f.table["cooks"][f.good]))
        ax.set(xlabel="leverage", ylabel=_label(f))

    return "Leverage and residuals", draw
