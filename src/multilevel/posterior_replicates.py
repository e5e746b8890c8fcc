"""Observed responses against responses simulated from a posterior: numbers and panels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import responses
from .errors import OptionError
from .families import COUNTS, TRIALS
from .kernel_density import density, span
from .plot_panels import COLOURS
from .posterior_predict import simulate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .posterior import Posterior

__all__ = ["Replicates", "predictive_panel", "replicates", "successes_name"]

Array = NDArray[np.float64]

KINDS = ("density", "cumulative", "frequencies")
LINES_DRAWN = 50  # simulated data sets, where each is a line
SETS_COUNTED = 400  # where only quantiles over them are drawn
NUMBERS = 1e7  # simulated numbers at most, unless asked for more
FEW_ROWS = 30  # under which a kernel density shows its kernel rather than the data
MOST_BARS = 40
UNSAID = 0.002  # share of simulated values beyond the panel up to which nothing is said
POSITIVE = ("gamma", "inverse_gaussian", "lognormal")


@dataclass(frozen=True)
class Replicates:
    """Observed and simulated responses.

    Attributes
    ----------
    y : (n,) array
    simulated : (draws, n) array
    kind : {"density", "cumulative", "frequencies"}
    counts : bool
        Whether these are counts without a limit: a rootogram.
    labels : tuple of str
        Categories.
    lower, upper : float
        Ends of the range of the response.
    name : str
    """

    y: Array
    simulated: Array
    kind: str
    counts: bool
    labels: tuple[str, ...]
    lower: float
    upper: float
    name: str


def replicates(posterior: Posterior, draws: int | None, kind: str | None, groups: Any, seed: Any) -> Replicates:
    """Simulate data sets from as many draws.

    Raises
    ------
    OptionError
        For frequencies of a continuous response; for groups kept whose effects were not.
    """
    from .predict import generator
    from .sample import check_count

    d, family = posterior.rows_of_data(), posterior.model.distribution
    name = "gaussian" if family is None else family.name
    discrete = name in (*COUNTS, *TRIALS, "ordinal")
    if kind not in (None, *KINDS):
        raise OptionError(f"kind {kind!r} is not known; allowed are {', '.join(map(repr, KINDS))}")
    if kind == "frequencies" and not discrete:
        raise OptionError(f"a {name} response is continuous, so that it has no frequencies; use 'density' or 'cumulative'")
    if kind is None:
        kind = "frequencies" if discrete else "density" if len(d.y) >= FEW_ROWS else "cumulative"
    if draws is None:
        count = SETS_COUNTED if kind == "frequencies" else LINES_DRAWN
        count = max(min(count, int(NUMBERS / len(d.y)), posterior.draws_kept.chains * posterior.draws_kept.draws), 10)
    else:
        count = check_count("draws", draws, 1)
    simulated = simulate(posterior, count, groups, generator(seed))
    labels = d.labels if name == "ordinal" or (len(d.labels) == 2 and (d.trials is None or (d.trials == 1).all())) else ()
    lower = 0.0 if name in (*POSITIVE, "beta") else -np.inf
    return Replicates(
        np.asarray(d.y, dtype=np.float64), simulated, kind, name in COUNTS, labels, lower, 1.0 if name == "beta" else np.inf,
        successes_name(d.response) if name in TRIALS else d.response,
    )  # fmt: skip


def successes_name(response: str) -> str:
    """What stands for the successes on the left of a formula."""
    if (found := responses._CBIND.match(response)) is not None:
        return responses._arguments(found[1])[0].strip()
    found = responses._TRIALS.match(response)
    return response if found is None else found[1].strip()


# -- panels ---------------------------------------------------------------------------------------------------


def predictive_panel(ax: Axes, found: Replicates) -> str:
    """Draw them; returns a note, "" if there is nothing to say."""
    ax.set_xlabel(found.name)
    ax.tick_params(labelsize=8)
    if found.kind == "frequencies":
        return _frequencies(ax, found)
    return _density(ax, found) if found.kind == "density" else _cumulative(ax, found)


def _window(found: Replicates) -> tuple[float, float, bool]:
    """Range to draw: all that was observed and what is usual of the simulated, at most a width to each side."""
    first, last = span(found.y, found.lower, found.upper, 0.0)
    width = last - first
    low, high = span(found.simulated.ravel(), found.lower, found.upper, 0.0005)
    low, high = min(first, max(low, first - width)), max(last, min(high, last + width))
    beyond = ((found.simulated < low) | (found.simulated > high)).mean()
    return low, high, bool(beyond > UNSAID)


def _density(ax: Axes, found: Replicates) -> str:
    low, high, cut = _window(found)
    x = np.linspace(low, high, 256)
    for i, values in enumerate(found.simulated):
        style: dict[str, Any] = {"color": COLOURS["band"], "linewidth": 0.7, "alpha": 0.5, "zorder": 2}
        label = f"simulated from {len(found.simulated)} draws" if i == 0 else None
        ax.plot(x, density(values, x, found.lower, found.upper), label=label, **style)
    ax.plot(x, density(found.y, x, found.lower, found.upper), color="black", linewidth=1.8, label="observed", zorder=3)
    ax.set_yticks([])
    ax.set_ylim(bottom=0)
    ax.set_ylabel("density", fontsize=9)
    ax.set_xlim(low, high)
    return "simulated values beyond the panel are not shown" if cut else ""


def _cumulative(ax: Axes, found: Replicates) -> str:
    low, high, cut = _window(found)
    share = np.arange(1, len(found.y) + 1) / len(found.y)
    for i, values in enumerate([*found.simulated, found.y]):
        observed = i == len(found.simulated)
        x, y = np.r_[low, np.sort(values), high], np.r_[0.0, share, 1.0]
        style: dict[str, Any] = {"color": COLOURS["band"], "linewidth": 0.7, "alpha": 0.5, "zorder": 2}
        if observed:
            style = {"color": "black", "linewidth": 1.8, "zorder": 3}
        label = "observed" if observed else f"simulated from {len(found.simulated)} draws" if i == 0 else None
        ax.plot(x, y, drawstyle="steps-post", label=label, **style)
    ax.set_xlim(low, high)
    ax.set_ylabel("share of rows up to here", fontsize=9)
    return "simulated values beyond the panel are not shown" if cut else ""


def bars(found: Replicates) -> tuple[Array, Array, Array]:
    """Edges (m + 1,), observed counts (m,) and simulated counts (draws, m) of whole numbers, in bins where they are many."""
    if found.labels:
        count, width = len(found.labels), 1
    else:
        last = max(float(found.y.max()), float(np.quantile(found.simulated, 0.9995)))
        width = math.ceil((last + 1) / MOST_BARS)
        count = math.ceil((last + 1) / width)
    edges = np.linspace(-0.5, count * width - 0.5, count + 1)
    counted = np.array([np.histogram(v, bins=edges)[0] for v in (found.y, *found.simulated)], dtype=np.float64)
    return edges, np.asarray(counted[0]), counted[1:]


def _frequencies(ax: Axes, found: Replicates) -> str:
    edges, observed, simulated = bars(found)
    middle, width = (edges[:-1] + edges[1:]) / 2, float(edges[1] - edges[0])
    ax.bar(middle, observed, width=0.85 * width, color=COLOURS["faint"], label="observed", zorder=2)
    low, mid, high = np.quantile(simulated, [0.025, 0.5, 0.975], axis=0)
    ax.vlines(middle, low, high, color=COLOURS["partial"], linewidth=1.8, zorder=3)
    label = f"simulated: median and 95% of {len(found.simulated)} draws"
    style: dict[str, Any] = {"color": COLOURS["partial"], "markersize": 4.5, "linestyle": "-", "linewidth": 1.8}
    ax.plot(middle, mid, "o", color=COLOURS["partial"], markersize=4.5, zorder=4)
    ax.plot([], [], marker="o", label=label, **style)
    ax.set_ylabel("rows", fontsize=9)
    if found.labels:
        ax.set_xticks(range(len(found.labels)), [str(one) for one in found.labels])
    elif width == 1:
        ax.locator_params(axis="x", integer=True)
    beyond = bool((found.simulated > edges[-1]).mean() > UNSAID)
    notes = ["simulated counts beyond the panel are not shown"] if beyond else []
    if width > 1:
        notes.append(f"counts in bins of {width:.0f}")
    if found.counts:
        ax.set_yscale("function", functions=(lambda v: np.sqrt(np.maximum(v, 0)), np.square))
        notes.append("square root scale: all frequencies vary about alike there (rootogram)")
    ax.set_ylim(0, max(observed.max(), high.max()) * (1.05 if found.counts else 1.2))  # room for the legend
    return "; ".join(notes)
