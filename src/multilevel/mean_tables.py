"""Tables and pictures of estimated means, slopes and contrasts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import tables
from .means import shown
from .multiplicity import interval_method
from .response_scale import transformed

if TYPE_CHECKING:
    from .means import Estimates

__all__ = ["draw", "draw_points", "html", "messages", "text"]

Array = NDArray[np.float64]

_METHODS = {
    "bonferroni": "Bonferroni's method",
    "holm": "Holm's method",
    "sidak": "Šidák's method",
    "tukey": "Tukey's method",
    "fdr": "Benjamini and Hochberg's method (false discovery rate)",
    "scheffe": "Scheffé's method",
    "mvt": "the multivariate t distribution",
}
_DDF = {"satterthwaite": "Satterthwaite's", "kenward-roger": "Kenward and Roger's"}


def messages(made: Estimates) -> list[str]:
    """Sentences under a table."""
    out = [*made.notes, *_scale(made)]
    asked, sizes = made.asked, [len(index) for index in made.groups()]
    ddf = f"{_DDF[asked.ddf]} degrees of freedom" if asked.ddf in _DDF else "normal distribution"
    out.append(f"Intervals: {100 * asked.level:g} %, {ddf}.")
    if asked.adjust != "none" and max(sizes) > 1:
        count = f"{max(sizes)} " + ("estimates" if not made.tests else "tests") + (" in each group" if made.by else "")
        interval = interval_method(asked.adjust)
        what = "P-values and intervals" if made.tests and interval == asked.adjust else "P-values"
        what = what if made.tests else "Intervals"
        method = asked.adjust if made.tests else interval
        other = f"; intervals by {_METHODS[interval]}" if what == "P-values" else ""
        out.append(f"{what} adjusted for {count} by {_METHODS[method]}{other}.")
    lost = int(np.sum(~np.isfinite(made["std_error"])))
    if lost:
        out.append(f"NaN: {lost} of {len(made)} cannot be estimated, for the data do not determine them.")
    return out


def _scale(made: Estimates) -> list[str]:
    """Which scale the numbers are on, where there is a choice."""
    response = made.fit.design.response
    found = transformed(response)
    if found is None:
        return []
    scale = made._scale
    if scale is None:
        asked = made.asked.transform is not None
        return [f"Differences on the scale of {response}." if asked else f"On the scale of {response}."]
    if scale.ratios:
        return [f"Ratios on the scale of {found[1]}; tests are of {response}."]
    return [f"Taken back from {response} to {found[1]}."]


def blocks(made: Estimates) -> list[tables.Block]:
    """One block for each combination of `by`, numbers formatted alike in all."""
    columns = made.columns()
    cells: dict[str, list[str]] = {}
    for name in made.averages.labels:
        if name not in made.by and name != "variable":
            cells[name] = [tables.clean(shown(one)) for one in columns[name]]
    labelled = len(cells)
    joint = ["estimate", "std_error", "conf_low", "conf_high"]
    error = columns["std_error"]
    together = [v for name in joint for v in tables.readable(columns[name], error)]
    texts = tables.numbers(together)
    n = len(made)
    formatted = {name: texts[i * n : (i + 1) * n] for i, name in enumerate(joint)}
    formatted["df"] = tables._degrees(columns["df"])
    if made.tests:
        formatted["statistic"] = tables.numbers([round(t, 3) for t in columns["statistic"].tolist()])
        formatted["p_value"] = tables.p_values(columns["p_value"].tolist())
    cells |= {name: formatted[name] for name in columns if name in formatted}
    if made.asked.ddf == "none":
        del cells["df"]
    align = "l" * labelled + "r" * (len(cells) - labelled)
    out = []
    for index in made.groups():
        group = ", ".join(f"{name} = {tables.clean(shown(columns[name][index[0]]))}" for name in made.by)
        rows = tuple(tuple(column[i] for column in cells.values()) for i in index.tolist())
        out.append(tables.Block(f"{group}:" if group else f"{made.title}:", tuple(cells), rows, align))
    heading = [tables.Block(f"{made.title}:")] if made.by else []
    return [*heading, *out, tables.Block("", notes=tuple(messages(made)))]


def text(made: Estimates) -> str:
    """The table as text."""
    return "\n\n".join(tables._block_text(block) for block in blocks(made)) + "\n"


def html(made: Estimates) -> str:
    """The table as HTML, in the style of the summary."""
    return _html(blocks(made))


def _html(parts: list[tables.Block]) -> str:
    style = "font-variant-numeric:tabular-nums;line-height:1.35;max-width:100%;overflow-x:auto"
    return f'<div style="{style}">\n' + "\n".join(tables._block_html(block) for block in parts) + "\n</div>"


def draw(made: Estimates, ax: Any = None) -> Any:
    """Points and intervals on one Axes, from above."""
    ratios = made._scale is not None and made._scale.ratios
    line = None if not made.tests else 1.0 if ratios else 0.0
    columns = made.columns()
    limits = (columns["conf_low"], columns["conf_high"])
    return draw_points(made.averages.labels, columns["estimate"], limits, line, made.title, made.asked.level, ax)


def draw_points(
    labels: dict[str, NDArray[Any]],
    estimate: Array,
    limits: tuple[Array, Array],
    line: float | None,
    title: str,
    level: float,
    ax: Any,
) -> Any:
    """Labelled points with intervals on one Axes, from above; a line where there is no effect, if there is such a value."""
    from .plot_panels import COLOURS
    from .plots import TITLE, _panels, _pyplot

    count = len(estimate)
    axes, own = _panels(_pyplot(), ax, 1, 1, (6.4, 1.2 + 0.32 * max(count, 3)))
    panel = axes[0]
    names = [name for name in labels if name != "variable"]
    texts = [", ".join(shown(labels[name][i]) for name in names) for i in range(count)]
    at = -np.arange(count, dtype=np.float64)
    panel.hlines(at, *limits, color=COLOURS["partial"], linewidth=1.5)
    panel.plot(estimate, at, "o", color=COLOURS["partial"], markersize=5)
    if line is not None:
        panel.axvline(line, color=COLOURS["zero"], linewidth=0.8, linestyle=":")
    panel.set_yticks(at, texts)
    panel.set_ylim(at[-1] - 0.6, 0.6)
    panel.set_xlabel(f"estimate, {100 * level:g} % interval")
    if own:
        panel.set_title(title, **TITLE)
    return panel
