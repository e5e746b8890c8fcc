"""The figures of `Pooling`: facets and shrinkage as of a fit's plots, and the coefficients of groups with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .effect_lines import pick
from .errors import OptionError
from .generalised_plots import LinkPlots
from .plot_panels import COLOURS, LEGEND, LINES, MARKS, MAX_LABELS, NOTE, label_levels, short
from .plots import TITLE, FitPlots, _figure, _panels, _pyplot, _squeeze
from .pooling_facets import chosen_groups, lines_of, shrinkage_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from .pooling_lines import Lines, Shrinkage
    from .pooling_result import Pooling

__all__ = ["draw"]

FACETS, MOST = 18, 36  # groups drawn
KINDS = ("lines", "coefficients", "shrinkage")
LABEL = {"complete": "complete pooling", "no": "no pooling", "partial": "partial pooling"}
LOOK = {"complete": "pooled", "no": "unpooled", "partial": "partial"}
SHIFT = {"no": 0.17, "partial": -0.17}


def draw(found: Pooling, kind: str, x: Any, levels: Any, term: Any, max_groups: Any, ax: Any) -> Any:
    """See `Pooling.plot`."""
    if kind not in KINDS:
        raise OptionError(f"kind {kind!r} is not known; allowed are 'lines', 'coefficients', 'shrinkage'")
    if kind != "lines" and x is not None:
        raise OptionError(f"x is the predictor of kind='lines'; kind={kind!r} has none")
    if kind == "lines" and term is not None:
        raise OptionError("term is a coefficient of kind='coefficients' or 'shrinkage'; kind='lines' has x")
    if kind == "shrinkage":
        if levels is not None or max_groups is not None:
            raise OptionError("kind='shrinkage' draws all groups; leave levels and max_groups out")
        drawn = _plots(found, None).shrinkage(terms=term, ax=ax)
        _reword(drawn.get_legend())
        return drawn
    if kind == "lines":
        lines = lines_of(found, x, levels, FACETS if max_groups is None else max_groups)
        if lines.x is not None:
            return _plots(found, lines).groups(x, max_groups=len(lines.facets), ax=ax)
    return _coefficients(found, levels, term, MOST if max_groups is None else max_groups, ax)


class _Mine:
    """The numbers of a pooling in the plots of its completely pooled fit."""

    _found: Pooling
    _drawn: Lines | None

    def _group_lines(self, x: Any, group: Any, levels: Any, max_groups: int) -> Lines:
        assert self._drawn is not None
        return self._drawn

    def _shrunk(self, group: Any) -> Shrinkage:
        return shrinkage_of(self._found)

    def _label_groups(self, axes: Sequence[Axes], lines: Lines, made: bool, columns: int, notes: str) -> None:
        """As of a fit, but with the words of pooling: coefficients that do not vary are no group's own."""
        super()._label_groups(axes, lines, made, columns, notes)  # type: ignore[misc]
        figure: Any = axes[0].figure
        for legend in figure.legends if made else [axes[0].get_legend()]:
            _reword(legend)


class _OfFit(_Mine, FitPlots):
    pass


class _OfLink(_Mine, LinkPlots):
    pass


def _plots(found: Pooling, lines: Lines | None) -> Any:
    whole = found.models["complete"]
    out: Any = _OfLink(whole) if whole.generalised else _OfFit(whole)
    out._found, out._drawn = found, lines
    return out


def _reword(legend: Any) -> None:
    words = {LEGEND[look]: LABEL[kind] for kind, look in LOOK.items()}
    for text in legend.get_texts():
        text.set_text(words.get(text.get_text(), text.get_text()))


# -- coefficients -----------------------------------------------------------------------------------------------------


def _coefficients(found: Pooling, levels: Any, term: Any, most: int, ax: Any) -> Any:
    """A panel for each coefficient, the groups one under the other by their rows."""
    c = found.columns
    names = list(c.names) if term is None else [pick(term, c.names, "coefficient that varies by group")]
    chosen = chosen_groups(found, levels, most)
    chosen = chosen[np.argsort(c.amount[chosen], kind="stable")]
    columns = min(len(names), 3)
    height = 5.5 if len(chosen) > MAX_LABELS else max(0.22 * len(chosen) + 1.7, 3.0)
    size = max(3.5 * columns + 0.9, 5.6), height * -(-len(names) // columns)
    axes, made = _panels(_pyplot(), ax, len(names), columns, size)
    for i, (one, name) in enumerate(zip(axes, names, strict=True)):
        k = c.names.index(name)
        _panel(one, found, k, chosen)
        labels = [f"{short(c.levels[j], 16)} ({c.amount[j]:,})" for j in chosen]
        label_levels(one, f"{c.group} ({c.counted}s)", labels, i % columns == 0 or not made)
        one.set_title(short(name, 30), fontsize=10)
        family = found.partial.model.distribution
        one.set_xlabel("coefficient" if family is None else f"coefficient ({family.link} scale)", fontsize=9)
        if not made:
            one.legend(fontsize=8)
    if made:
        few = f"\n{len(chosen)} of {len(c.levels):,} groups" if len(chosen) < len(c.levels) else ""
        _figure(axes).suptitle(f"Coefficients by {c.group} with {100 * found.level:.4g}% intervals{few}", **TITLE)
        handles, texts = axes[0].get_legend_handles_labels()
        lost = int((~np.isfinite(found.estimates["no"].estimate[chosen])).any(axis=1).sum())
        note = f"{lost} of the groups drawn have no estimate of their own" if lost else None
        legend: dict[str, Any] = {"fontsize": 8, "frameon": False, "title": note, "title_fontsize": NOTE["fontsize"]}
        _figure(axes).legend(handles, texts, loc="outside lower center", ncols=3, **legend)
    return _squeeze(axes)


def _panel(ax: Axes, found: Pooling, k: int, chosen: NDArray[np.int64]) -> None:
    """One coefficient of the groups."""
    at, few = np.arange(len(chosen)), len(chosen) <= MAX_LABELS
    whole = found.estimates["complete"]
    centre = whole.estimate[chosen, k]
    if np.ptp(centre[np.isfinite(centre)]) < 1e-12 * max(1.0, float(np.nanmax(np.abs(centre)))):
        ax.axvspan(
            float(whole.low[chosen[0], k]),
            float(whole.high[chosen[0], k]),
            color=COLOURS["pooled"],
            alpha=0.12,
            linewidth=0,
        )
        ax.axvline(float(centre[0]), label=LABEL["complete"], **{**LINES["pooled"], "zorder": 1})
    else:
        look: dict[str, Any] = {
            "marker": "|",
            "markersize": 9,
            "markeredgewidth": 1.6,
            "linestyle": "none",
            "zorder": 2,
        }
        ax.plot(centre, at, color=COLOURS["pooled"], label=LABEL["complete"], **look)
    for kind, shift in SHIFT.items():
        one, name = found.estimates[kind], LOOK[kind]
        place = at + (shift if few else 0.0)
        style: dict[str, Any] = {"color": COLOURS[name], "alpha": 0.55, "linewidth": 1.4 if few else 0.7}
        ax.hlines(place, one.low[chosen, k], one.high[chosen, k], zorder=LINES[name]["zorder"] - 1, **style)
        mark = {**MARKS[name], **({} if few else {"markersize": 2.5, "markeredgewidth": 0.8})}
        order = LINES[name]["zorder"]
        ax.plot(
            one.estimate[chosen, k],
            place,
            linestyle="none",
            color=COLOURS[name],
            label=LABEL[kind],
            zorder=order,
            **mark,
        )
    _limits(ax, found, k, chosen)


def _limits(ax: Axes, found: Pooling, k: int, chosen: NDArray[np.int64]) -> None:
    """Room for partial pooling with its intervals and the estimates without; wide intervals of small groups are cut off."""
    one, own = found.estimates["partial"], found.estimates["no"]
    values = np.concatenate([one.low[chosen, k], one.high[chosen, k], own.estimate[chosen, k]])
    values = values[np.isfinite(values)]
    low, high = float(values.min()), float(values.max())
    margin = 0.06 * (high - low) or 1.0
    ax.set_xlim(low - margin, high + margin)
