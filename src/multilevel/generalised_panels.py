"""The panels of the plots of generalised models, and the numbers they show; nothing here imports matplotlib.

What is simulated is what `generalised_checks` judges: the same draws with the same seed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import generalised_checks, plot_check, plot_panels
from .families import COUNTS, TRIALS
from .generalised_checks import Facts
from .generalised_lines import single
from .plot_panels import COLOURS, DASHED, MAX_POINTS, NOTE, fewer, label_factor, short, whole_ticks, wrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .generalised import GeneralisedFit
    from .generalised_lines import Curve
    from .plot_check import Panel
    from .pooling_lines import Facet, Lines

Array = NDArray[np.float64]

QUARTILES = (0.25, 0.5, 0.75)
FEW_VALUES = 12  # of the prediction, drawn side by side
CELLS = 30  # of a histogram
CALIBRATION = 15  # classes of predicted shares
SKEWED = ("gamma", "inverse_gaussian", "lognormal")  # drawn over the logarithm
BAND = {"color": COLOURS["band"], "alpha": 0.35, "linewidth": 0}


# -- residuals ------------------------------------------------------------------------------------------------


def local_quantiles(x: Array, y: Array, points: int = 40, span: float = 0.5) -> tuple[Array, Array]:
    """Quartiles of y along x: (g,) places and (g, 3) values, with tricube weights over the nearest `span` of the rows.

    Of few different x the quartiles at each one.
    """
    values = np.unique(x)
    if len(values) <= FEW_VALUES:
        return values, np.array([np.quantile(y[x == v], QUARTILES) for v in values])
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    grid = np.unique(x[np.linspace(0, len(x) - 1, points).round().astype(np.int64)])
    nearest = max(2, int(np.ceil(span * len(x))))
    rank = np.argsort(y, kind="stable")
    out = np.empty((len(grid), 3))
    for i, at in enumerate(grid):
        far = np.abs(x - at)
        reach = float(np.partition(far, nearest - 1)[nearest - 1]) * 1.000001 or 1.0
        w = np.clip(1 - (far / reach) ** 3, 0, None)[rank] ** 3
        total = (np.cumsum(w) - 0.5 * w) / w.sum()
        out[i] = np.interp(QUARTILES, total[w > 0], y[rank][w > 0])
    return grid, out


def residual_panel(ax: Axes, f: Facts) -> None:
    """Quantile residuals over the population's linear predictor, with their quartiles and those of the normal."""
    from scipy.special import ndtri

    x, r = np.round(f.fit._eta[0], 10), f.residuals
    rows = fewer(len(x), MAX_POINTS)
    values = np.unique(x)
    few = len(values) <= FEW_VALUES
    x = np.searchsorted(values, x).astype(np.float64) if few else x  # few different predictions stand side by side
    place = x[rows] + (plot_panels.jitter(len(rows), 0.2) if few else 0.0)
    alpha = 0.7 if len(rows) < 300 else 0.35 if len(rows) < 1500 else 0.15
    ax.plot(place, r[rows], "o", color=COLOURS["data"], markersize=3, markeredgewidth=0, alpha=alpha, zorder=1)
    for share in QUARTILES:
        ax.axhline(float(ndtri(share)), color=COLOURS["zero"], linewidth=1, linestyle=DASHED, zorder=2)
    grid, quartiles = local_quantiles(x, r)
    style: dict[str, Any] = {"color": COLOURS["pooled"], "zorder": 3}
    for k, line in enumerate(quartiles.T):
        label = "quartiles" if k == 1 else "_"
        if few:
            ax.hlines(line, grid - 0.35, grid + 0.35, linewidth=2.2 if k == 1 else 1.5, label=label, **style)
        else:
            ax.plot(grid, line, linewidth=2 if k == 1 else 1.3, label=label, **style)
    if few:
        shown = range(0, len(values), 2 if len(values) > 6 else 1)
        ax.set_xticks(list(shown), [f"{values[i]:.3g}" for i in shown])
        ax.set_xlim(-0.6, len(values) - 0.4)
    ax.plot([], [], color=COLOURS["zero"], linewidth=1, linestyle=DASHED, label="expected")
    low, high = float(r.min()), float(r.max())
    ax.set_ylim(low - 0.05 * (high - low), high + 0.22 * (high - low))  # room for the legend
    ax.legend(fontsize=8, loc="upper center", ncols=2, frameon=False)
    ax.set(xlabel=f"population prediction ({f.fit.family.link} scale)", ylabel="quantile residual")


def quantile_panel(ax: Axes, f: Facts) -> None:
    """Ordered quantile residuals against normal quantiles, with the band of normal samples."""
    plot_check.quantiles(ax, f.residuals, [f"{row}" for row in f.fit.design.rows.tolist()], "row ")
    ax.set_ylabel("ordered quantile residual")


# -- what the model predicts, and what there is ---------------------------------------------------------------------


@dataclass(frozen=True)
class Frequencies:
    """Observed frequencies with those of simulated responses.

    Attributes
    ----------
    labels : tuple of str
    observed, expected, low, high : (m,) arrays
        Limits hold 95 percent of the simulated ones.
    """

    labels: tuple[str, ...]
    observed: Array
    expected: Array
    low: Array
    high: Array


def _gathered(labels: tuple[str, ...], observed: Array, drawn: Array) -> Frequencies:
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return Frequencies(labels, observed, drawn.mean(axis=0), low, high)


def count_edges(y: Array, drawn: Array) -> NDArray[np.int64]:
    """Least count of each cell: zero alone, then cells of equal width, the last one open."""
    most = int(max(np.quantile(y, 0.98), np.quantile(drawn, 0.98), 1))
    width = int(np.ceil(most / CELLS))
    return np.concatenate([[0], np.arange(1, most + width + 1, width)]).astype(np.int64)


def counts(f: Facts) -> Frequencies:
    """How often each count occurs, and in simulated responses."""
    y = f.fit.design.y
    edges = count_edges(y, f.simulated)
    tables = [np.bincount(np.searchsorted(edges, one, side="right") - 1, minlength=len(edges)) for one in (y, *f.simulated)]
    ends = [*(edges[1:] - 1), None]
    labels = [f"{a}+" if b is None else f"{a}" if a == b else f"{a}-{b}" for a, b in zip(edges, ends, strict=True)]
    return _gathered(tuple(labels), tables[0].astype(np.float64), np.array(tables[1:], dtype=np.float64))


def values(f: Facts) -> tuple[Array, Frequencies]:
    """Cell limits of a continuous response (of its logarithm where it is skewed), and how many rows lie in each."""
    y, drawn = f.fit.design.y, f.simulated
    if f.fit.family.name in SKEWED:
        y, drawn = np.log(y), np.log(np.maximum(drawn, 1e-300))
    low, high = np.quantile(np.concatenate([y, drawn[:20].ravel()]), [0.001, 0.999])
    cells = int(np.clip(np.sqrt(len(y)), 8, CELLS))
    edges = np.linspace(min(low, y.min()), max(high, y.max()), cells + 1)
    tables = [np.histogram(one, edges)[0] for one in (y, *drawn)]
    return edges, _gathered(("",) * cells, tables[0].astype(np.float64), np.array(tables[1:], dtype=np.float64))


def categories(f: Facts) -> list[tuple[str, Frequencies]]:
    """Shares of an ordinal response's categories, where the population's prediction is low and where it is high."""
    d, eta = f.fit.design, f.fit._eta[0]
    parts = [("all rows", np.ones(len(eta), dtype=bool))]
    if generalised_checks.varies(eta):
        high = eta > np.median(eta)
        high = high if high.any() else eta >= np.median(eta)
        parts = [("prediction low", ~high), ("prediction high", high)]
    out = []
    for name, rows in parts:
        tables = np.array([np.bincount(y[rows].astype(np.int64), minlength=len(d.labels)) for y in (d.y, *f.simulated)])
        shares = tables / rows.sum()
        out.append((name, _gathered(d.labels, shares[0], shares[1:])))
    return out


def calibration(f: Facts) -> tuple[Array, Frequencies]:
    """Shares of successes in classes of rows by their predicted share, that of the population over all groups.

    Simulated responses have new group effects: shares predicted with the rows' own effects would follow the rows.
    """
    from .generalised_predict import draw_responses

    fit, d = f.fit, f.fit.design
    trials = np.ones(len(d.y)) if d.trials is None else d.trials
    table = fit.predict(marginal=True) if d.terms else fit.predict()
    predicted = np.asarray(table["prediction"], dtype=np.float64)[d.rows]
    codes = _classes(np.round(predicted, 10), trials)
    total = np.bincount(codes, trials).astype(np.float64)
    drawn = draw_responses(fit, generalised_checks.draws(len(d.y)), [], np.random.default_rng(generalised_checks.SEED))
    tables = np.array([np.bincount(codes, y) / total for y in (d.y, *drawn)])
    found = _gathered(("",) * len(total), tables[0], tables[1:])
    return total, replace(found, expected=np.bincount(codes, trials * predicted) / total)


def _classes(x: Array, weights: Array) -> NDArray[np.intp]:
    """Class of each value: each for itself where there are few, else of equal weight."""
    different = np.unique(x)
    if len(different) <= CALIBRATION:
        return np.searchsorted(different, x).astype(np.intp)
    order = np.argsort(x, kind="stable")
    middle = np.cumsum(weights[order]) - weights[order] / 2
    place = np.minimum((middle / weights.sum() * CALIBRATION).astype(np.int64), CALIBRATION - 1)
    first = np.r_[True, np.diff(place) > 0]
    lower = np.unique(x[order][first])
    return np.unique(np.searchsorted(lower, x, side="right"), return_inverse=True)[1].astype(np.intp)


# -- their panels ---------------------------------------------------------------------------------------------------


def panels(fit: GeneralisedFit) -> list[Panel]:
    """Quantiles of the residuals, residuals over the prediction, dispersion, distribution, effects, influence."""
    f = generalised_checks.facts(fit)
    out: list[Panel] = [
        ("Quantile residuals: are they normal?", lambda ax: quantile_panel(ax, f)),
        ("Residuals: straight and even?", lambda ax: residual_panel(ax, f)),
    ]
    if (dispersion := dispersions(f)) is not None:
        out.append(("Dispersion: as the family says?", lambda ax: dispersion_panel(ax, *dispersion)))
    if fit.family.name in COUNTS:
        out.append(("Counts: as many of each, and zeros?", lambda ax: count_panel(ax, f)))
    elif fit.family.name in TRIALS:
        out.append(("Shares: as predicted?", lambda ax: calibration_panel(ax, f)))
    elif fit.family.name == "ordinal":
        out.append(("Categories: as predicted?", lambda ax: category_panel(ax, f)))
    else:
        out.append(("Values: as the family says?", lambda ax: value_panel(ax, f)))
    return [*out, *plot_check._effect_panels(fit), *_influence(fit)]


def dispersions(f: Facts) -> tuple[float, Array] | None:
    """Observed and simulated ratio that `generalised_checks.dispersion` compares; None where there is none to check."""
    fit, n = f.fit, len(f.fit.design.rows)
    own = any(len(t.levels) > 0.9 * n for t in fit.design.terms)
    left = n - f.effective
    if single(fit) or fit.family.name not in (*COUNTS, *TRIALS) or own or not left > 0.1 * n or f.pearson is None:
        return None
    return float(f.pearson @ f.pearson) / left, generalised_checks.drawn_ratios(fit)


def dispersion_panel(ax: Axes, ratio: float, drawn: Array) -> None:
    """Histogram of the simulated dispersion, the observed one as a line."""
    ax.hist(drawn, bins=20, color=COLOURS["band"], alpha=0.6, label="simulated from the model")
    ax.axvline(ratio, ymax=0.76, color=COLOURS["pooled"], linewidth=2, label=f"observed: {ratio:.2f}")
    low, high = min(float(drawn.min()), ratio), max(float(drawn.max()), ratio)
    ax.set_xlim(low - 0.08 * (high - low), high + 0.08 * (high - low))
    ax.set_ylim(0, 1.35 * ax.get_ylim()[1])
    ax.legend(fontsize=8, loc="upper center", frameon=False)
    ax.set(xlabel="squared Pearson residual, mean", ylabel="simulations")


def count_panel(ax: Axes, f: Facts) -> None:
    """Rootogram: bars of the roots of observed frequencies, expected ones with their band."""
    found = counts(f)
    at = np.arange(len(found.labels))
    colours = [COLOURS["data"]] * len(at)
    colours[0] = COLOURS["zero"]
    ax.bar(at, np.sqrt(found.observed), width=0.8, color=colours, alpha=0.65, zorder=1, label="observed")
    _expected(ax, at.astype(np.float64), *(np.sqrt(one) for one in (found.expected, found.low, found.high)))
    room = 22 // max(map(len, found.labels))
    shown = at[:: max(1, int(np.ceil(len(at) / room)))]
    ax.set_xticks(shown, [found.labels[i] for i in shown], fontsize=8)
    ticks = np.array([0, 1, 4, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 100_000, 1_000_000], dtype=np.float64)
    most = max(float(found.observed.max()), float(found.high.max()))
    ticks = ticks[ticks <= most]
    ticks = ticks[np.r_[True, np.diff(np.sqrt(ticks)) > 0.1 * np.sqrt(most)]]
    ax.set_yticks(np.sqrt(ticks), [f"{t:,.0f}" for t in ticks])
    ax.set_ylim(0, 1.25 * np.sqrt(most))
    zeros = f"zeros: {found.observed[0]:,.0f}, {found.expected[0]:,.1f} expected"
    ax.legend(fontsize=8, loc="upper right", frameon=False, title=zeros, title_fontsize=8)
    ax.set(xlabel=short(f.fit.design.response, 24), ylabel="rows (root scale)")


def _expected(ax: Axes, x: Array, middle: Array, low: Array, high: Array) -> None:
    ax.fill_between(x, low, high, label="95% of simulations", zorder=2, **BAND)  # type: ignore[arg-type]
    ax.plot(x, middle, "o-", color=COLOURS["partial"], markersize=3, linewidth=1.2, label="expected", zorder=3)


def value_panel(ax: Axes, f: Facts) -> None:
    """Histogram of the response with the band of simulated ones."""
    edges, found = values(f)
    ax.stairs(found.observed, edges, fill=True, color=COLOURS["data"], alpha=0.5, label="observed", zorder=1)
    _expected(ax, (edges[1:] + edges[:-1]) / 2, found.expected, found.low, found.high)
    ax.set_ylim(0, 1.35 * max(float(found.observed.max()), float(found.high.max())))
    ax.legend(fontsize=8, loc="upper center", ncols=2, frameon=False)
    name = short(f.fit.design.response, 20)
    ax.set(xlabel=f"log {name}" if f.fit.family.name in SKEWED else name, ylabel="rows")


def calibration_panel(ax: Axes, f: Facts) -> None:
    """Observed over predicted shares, with the intervals of simulated ones."""
    total, found = calibration(f)
    x = found.expected
    ends = [min(x.min(), found.low.min(), found.observed.min()), max(x.max(), found.high.max(), found.observed.max())]
    margin = 0.05 * (ends[1] - ends[0]) or 0.05
    line = [max(ends[0] - margin, 0.0), min(ends[1] + margin, 1.0)]
    ax.plot(line, line, color=COLOURS["zero"], linewidth=1, linestyle=DASHED, zorder=1)
    ax.vlines(x, found.low, found.high, color=COLOURS["band"], linewidth=5, alpha=0.6, label="95% of simulations", zorder=2)
    ax.plot(x, found.observed, "o", color=COLOURS["partial"], markersize=5, label="observed", zorder=3)
    ax.set_ylim(ends[0] - margin, ends[1] + 4 * margin)
    ax.legend(fontsize=8, loc="upper left", frameon=False)
    what = "rows" if f.fit.design.trials is None else "trials"
    low, high = int(total.min()), int(total.max())
    note = f"{low:,} {what} in each point" if low == high else f"{low:,} to {high:,} {what} in each point"
    ax.annotate(note, (0.98, 0.02), xycoords="axes fraction", ha="right", **NOTE)
    ax.set(xlabel="share predicted for all groups", ylabel="share observed")


def category_panel(ax: Axes, f: Facts) -> None:
    """Observed shares of categories, with the intervals of simulated ones."""
    parts = categories(f)
    at = np.arange(len(f.fit.design.labels))
    most = 0.0
    for i, (name, found) in enumerate(parts):
        place = at + (i - (len(parts) - 1) / 2) * 0.42
        colour = (COLOURS["partial"], COLOURS["pooled"])[i]
        ax.bar(place, found.observed, width=0.38, color=colour, alpha=0.35, label=name, zorder=1)
        ax.vlines(place, found.low, found.high, color=colour, linewidth=1.6, zorder=2)
        ax.plot(place, found.expected, "o", color=colour, markersize=5, zorder=3)
        most = max(most, float(found.observed.max()), float(found.high.max()))
    label_factor(ax, f.fit.design.labels)
    ax.set_ylim(0, 1.35 * most)
    title = "bars: observed; dots: expected, 95% of simulations"
    ax.legend(fontsize=8, loc="upper center", ncols=len(parts), frameon=False, title=title, title_fontsize=7.5)
    ax.set(xlabel=short(f.fit.design.response, 24), ylabel="share of rows")


# -- influence --------------------------------------------------------------------------------------------------


def _influence(fit: GeneralisedFit) -> list[Panel]:
    """Cook's distance of the levels of the first factor where that is cheap, else of rows."""
    from .effect_checks import quick

    if not len(fit.optimum.beta):
        return []
    groups = list(dict.fromkeys(t.group for t in fit.design.terms))
    if groups and quick(fit, groups[0]):
        return [_group_panel(fit, groups[0])]
    return influence_panels(fit, None)[1:]


def _group_panel(fit: GeneralisedFit, group: str) -> Panel:
    from .generalised_influence import by_group

    return plot_check._group_panel(fit, group, by_group(fit, group, variances=False)[0])


def influence_panels(fit: GeneralisedFit, group: str | None) -> list[Panel]:
    """Cook's distance and the change of each coefficient, of rows or of the levels of a factor."""
    from . import residual_checks
    from .generalised_influence import by_group, by_row
    from .influence import influence

    if group is None:
        table = by_row(fit)
        f = residual_checks.Facts(fit, table, np.isfinite(table["std_residual"]), fit._eta[1])
        return [plot_check._leverage_panel(f), plot_check._row_panel(f)]
    influence(fit, group, variances=False)  # says what is wrong with the name
    table = by_group(fit, group)[0]
    names = fit.design.names[:5]
    changes = [(f"{short(one, 18)} without it", plot_check._change_panel(fit, group, table, one)[1]) for one in names]
    return [plot_check._group_panel(fit, group, table), *changes]


# -- groups and effects ---------------------------------------------------------------------------------------------


def facet_panel(ax: Axes, fit: GeneralisedFit, lines: Lines, facet: Facet, limit: int, named: bool) -> int:
    """Points, shares sized by their trials, and three lines of a group; returns the number of points drawn."""
    nothing = np.empty(0)
    empty = replace(facet, rows=np.empty(0, dtype=np.int64), x=nothing, y=nothing)
    plot_panels.facet_points(ax, lines, empty, limit, named)
    plot_panels.facet_lines(ax, lines, facet, named)
    rows = np.flatnonzero(np.isfinite(facet.y))
    rows = rows[fewer(len(rows), limit)]
    x, y, trials = facet.x[rows], facet.y[rows], fit.design.trials
    if single(fit):
        x, y, size = _shares(lines, x, y)
        draw_shares(ax, x, y, size)
        return len(facet.rows)
    if trials is not None and fit.family.name in TRIALS:
        draw_shares(ax, x, y, trials[facet.rows[rows]], float(np.max(trials)))
        return len(facet.rows)
    x = x + (plot_panels.jitter(len(x), 0.08) if lines.labels else 0.0)
    y = y + (plot_panels.jitter(len(y), 0.12)[::-1] if fit.family.name == "ordinal" else 0.0)
    alpha = 0.4 if max(len(one.rows) for one in lines.facets) > 100 else 0.8
    ax.plot(x, y, "o", color=COLOURS["data"], markersize=3, markeredgewidth=0, alpha=alpha, zorder=1.5)
    return len(rows) + len(facet.rows) - int(np.isfinite(facet.y).sum())


def _shares(lines: Lines, x: Array, y: Array) -> tuple[Array, Array, Array]:
    from .generalised_lines import shares

    if lines.x is None:
        return np.array([(len(y) - 1) / 2]), np.array([y.mean()]), np.array([float(len(y))])
    return shares(x, y, lines.labels is not None)


def draw_shares(ax: Axes, x: Array, y: Array, size: Array, most: float | None = None) -> None:
    """Circles whose area goes with what they count for."""
    area = 5 + 55 * size / (float(size.max()) if most is None else most)
    ax.scatter(x, y, s=area, color=COLOURS["data"], alpha=0.55, linewidths=0, zorder=1.5)


def facet_scale(ax: Axes, fit: GeneralisedFit, lines: Lines) -> None:
    """Limits: shares from zero to one at most, categories by their names."""
    if fit.family.name == "ordinal":
        label_categories(ax, fit)
    elif fit.family.name in TRIALS:
        top = max(float(np.nanmax(np.r_[f.y, f.partial, f.pooled])) for f in lines.facets)
        ax.set_ylim(-0.05 * top, 1.08 * top)
    elif fit.family.name in (*COUNTS, *SKEWED) and ax.get_ylim()[0] < 0:
        ax.set_ylim(bottom=-0.04 * ax.get_ylim()[1])


def label_categories(ax: Axes, fit: GeneralisedFit) -> None:
    """Names of the categories along y."""
    labels = fit.design.labels
    if len(labels) <= 12:
        ax.set_yticks(range(len(labels)), [short(one, 10) for one in labels])
    ax.set_ylim(-0.4, len(labels) - 0.6)


def curve_panel(ax: Axes, fit: GeneralisedFit, curve: Curve) -> None:
    """Line with band, or points with bars; rug, responses, and what is held where."""
    if len(curve.rug):
        rug = curve.rug[fewer(len(curve.rug), 500)]
        style: dict[str, Any] = {"marker": "|", "markersize": 5, "linestyle": "none", "color": COLOURS["faint"]}
        ax.plot(rug, np.full(len(rug), 0.015), transform=ax.get_xaxis_transform(), zorder=1, **style)
    if curve.estimate.ndim == 1:
        _mean_line(ax, curve, curve.estimate, curve.low, curve.high, COLOURS["partial"], COLOURS["band"], "D")
        if len(curve.x):
            draw_shares(ax, curve.x, curve.y, curve.size)
    else:
        count = curve.estimate.shape[1]
        for k, label in enumerate(fit.design.labels):
            colour = _shade(k / max(count - 1, 1))
            parts = (curve.estimate[:, k], curve.low[:, k], curve.high[:, k])
            aside = 0.6 * ((k + 0.5) / count - 0.5)
            _mean_line(ax, curve, *parts, colour, colour, "osD^vPX"[k % 7], label, aside)
            if len(curve.x):
                draw_shares(ax, curve.x + (aside if curve.labels else 0.0), curve.y[:, k], curve.size)
        ax.set_ylim(0, 1.03)
    if curve.labels or curve.name is None:
        label_factor(ax, curve.labels or ("",))
    else:
        whole_ticks(ax, curve.grid)
    ax.set_xlabel(curve.name or "population mean")
    if curve.held:
        ax.set_title(wrap(f"at {plot_panels.held_text(curve.held)}", 46), **NOTE)


def _mean_line(
    ax: Axes, curve: Curve, middle: Array, low: Array, high: Array, colour: Any, band: Any, marker: str,
    label: str = "_", aside: float = 0.0,
) -> None:  # fmt: skip
    if curve.labels or curve.name is None:
        bars = np.maximum([middle - low, high - middle], 0)
        look: dict[str, Any] = {"fmt": marker, "markersize": 5, "capsize": 3, "color": colour, "zorder": 3}
        ax.errorbar(curve.grid + aside, middle, yerr=bars, label=label, **look)
        return
    several = label != "_"
    ax.fill_between(curve.grid, low, high, color=band, alpha=0.15 if several else 0.35, linewidth=0, zorder=2)
    ax.plot(curve.grid, middle, color=colour, linewidth=1.8, label=label, zorder=3)


def _shade(part: float) -> tuple[float, float, float]:
    """From light to dark blue."""
    light, dark = np.array([0.65, 0.80, 0.92]), np.array([0.03, 0.19, 0.42])
    mixed = light + part * (dark - light)
    return float(mixed[0]), float(mixed[1]), float(mixed[2])

