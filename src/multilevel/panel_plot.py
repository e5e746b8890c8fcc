"""The figure of `panel`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .effect_lines import pick
from .errors import OptionError
from .plot_panels import COLOURS, NOTE, short, wrap, zero_line
from .plots import _columns, _figure, _panels, _pyplot, _squeeze

if TYPE_CHECKING:
    from .panel_result import Panel

__all__ = ["draw"]

MAX_TERMS = 12
LOOK: dict[str, tuple[str, str]] = {  # colour and marker
    "pooled": (COLOURS["pooled"], "s"),
    "between": ("#CC79A7", "v"),
    "random": (COLOURS["partial"], "D"),
    "mundlak": (COLOURS["band"], "^"),
    "within": (COLOURS["unpooled"], "o"),
}


def draw(panel: Panel, terms: Any, ax: Any) -> Any:
    """A panel for each term; see `Panel.plot`."""
    wanted = _terms(panel, terms)
    plt, count = _pyplot(), len(wanted)
    columns = count if count <= 3 else _columns(count)
    height = 0.26 * len(panel.estimates) + 1.0
    axes, made = _panels(plt, ax, count, columns, (3.1 * columns + 0.7, height * -(-count // columns) + 0.75))
    long = panel.columns()
    for i, (one, term) in enumerate(zip(axes, wanted, strict=True)):
        _panel(one, panel, term, long, labelled=not made or i % columns == 0)
    if made:
        level = f"{100 * panel.asked.level:g}% intervals, standard errors {panel.asked.errors}"
        _figure(axes).suptitle(wrap(f"{panel.asked.formula}: {level}", 36 * columns), **{**NOTE, "fontsize": 9})
    return _squeeze(axes)


def _terms(panel: Panel, terms: Any) -> list[str]:
    known = [name for name in panel.terms if name != "Intercept"]
    if terms is None:
        return [name for name in known if name in panel.rows.names][:MAX_TERMS]
    wanted = [
        pick(one, list(panel.terms), "term of the panel")
        for one in ([terms] if isinstance(terms, str) else list(terms))
    ]
    if not wanted:
        raise OptionError("terms is empty; name one or more, or leave it out for all")
    return wanted


def _panel(ax: Any, panel: Panel, term: str, long: dict[str, Any], labelled: bool) -> None:
    """One term: an estimate with its interval for each estimator, from the top."""
    names = list(panel.estimates)
    for at, name in enumerate(names):
        colour, marker = LOOK[name]
        row = np.flatnonzero((long["estimator"] == name) & (long["term"] == term))
        if not len(row):
            look = {"ha": "right", "va": "center", "backgroundcolor": "white", **NOTE}
            ax.text(0.98, at, "none", transform=ax.get_yaxis_transform(), **look)
            continue
        low, value, high = (float(long[key][row[0]]) for key in ("conf_low", "estimate", "conf_high"))
        ax.hlines(at, low, high, color=colour, linewidth=1.8, zorder=3)
        ax.plot(
            value, at, marker=marker, color=colour, markersize=6, markerfacecolor="white", markeredgewidth=1.6, zorder=4
        )
    zero_line(ax, vertical=True)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_yticks(range(len(names)), names if labelled else [""] * len(names))
    ax.set_title(short(term, 34), fontsize=10)
    ax.locator_params(axis="x", nbins=5)
    ax.tick_params(axis="both", labelsize=8.5)
