"""Figures of a classifier: one item's tree, confusion, reliability, risk and coverage, scales."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError, OptionError
from ..plot_panels import COLOURS, DASHED, NOTE, short, wrap
from ..plots import TITLE, _columns, _figure, _panels, _pyplot, _squeeze
from .level_scores import ChancesAt, chances_at, known_items, reliability_bins, risk_curve
from .tree import Taxonomy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .estimator import TaxonomyClassifier

__all__ = ["confusion_plot", "reliability_plot", "risk_coverage_plot", "scales_plot", "tree_plot"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]

# one for each level, with marks and dashes that differ too
LINES = (
    ("#0072B2", "-", "o"),
    ("#D55E00", (0, (5, 2)), "s"),
    ("#009E73", (0, (1, 1.2)), "^"),
    ("#CC79A7", (0, (5, 2, 1, 2)), "D"),
    ("#E69F00", (0, (3, 1, 1, 1, 1, 1)), "v"),
    ("#56B4E9", (0, (8, 2)), "P"),
)
WHOLE_TREE = 40  # nodes of a tree that is shown whole
SHOWN = 40  # lines of a larger one, about, shared by the levels of the path
BESIDE = 7  # siblings shown at most at each
ROW, LETTER, STEP = 0.185, 0.061, 0.17  # inches: height of a row, width of a letter, indent of a level
NAMED, NUMBERED = 40, 14  # classes of a confusion whose names, and whose shares, can be read
MAX_CONFUSED = 600  # classes that can be drawn with a dot for each pair
MAX_SCALES = 8


def _fitted(model: TaxonomyClassifier) -> Any:
    """pyplot, for a model that is fitted."""
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(model, "tree_")
    return _pyplot()


# -- the tree of one item -------------------------------------------------------------------------------------


class Row:
    """A line of the drawn tree: a node, or (None) the siblings that are not shown."""

    def __init__(self, node: int | None, text: str, depth: int, p: float, above: int) -> None:
        self.node, self.text, self.depth, self.p, self.above = node, text, depth, p, above


def tree_plot(model: TaxonomyClassifier, X_row: Any, ax: Any) -> Axes:
    plt = _fitted(model)
    p = _one_row(model, X_row)
    tree = model.tree_
    path = tree.ancestors(int(tree.leaves[p.argmax()]))
    rows = tree_rows(tree, tree.sums(p), path)
    wide = max(STEP * row.depth + LETTER * len(row.text) for row in rows) + 0.15
    axes, made = _panels(plt, ax, 1, 1, (wide + 2.9, ROW * len(rows) + 1.0))
    _draw_tree(axes[0], rows, set(path), wide)
    if made:
        best = tree.labels[path[-1]]
        _figure(axes).suptitle(f"Most probable: {short(best, 34)} ({_percent(float(p.max()))})", **TITLE)
        if len(tree) > WHOLE_TREE:
            note = f"{len(tree.leaves):,} classes, those beside the most probable; [k]: has k classes"
            axes[0].set_title(wrap(note, round(14 * (wide + 2.9))), **NOTE)
    return axes[0]


def _one_row(model: TaxonomyClassifier, X_row: Any) -> Floats:
    if isinstance(X_row, (list, tuple, np.ndarray)) and np.ndim(X_row) == 1:
        X_row = np.asarray(X_row).reshape(1, -1)
    elif getattr(X_row, "ndim", 2) == 1:  # a sparse vector, a row of a data frame
        X_row = X_row.reshape(1, -1) if hasattr(X_row, "reshape") else X_row.to_frame().T
    rows = np.shape(X_row)[0] if not hasattr(X_row, "shape") else X_row.shape[0]
    if rows != 1:
        raise OptionError(f"X_row has {rows:,} rows; the tree of one item is drawn: give one row, such as X[[0]]")
    return np.asarray(model._leaf_probabilities(X_row)[0])


def tree_rows(tree: Taxonomy, p: Floats, path: Sequence[int]) -> list[Row]:
    """Lines of the tree from the top, siblings by falling probability; of a large tree those beside the path only."""
    whole = len(tree) <= WHOLE_TREE
    beside = min(max(SHOWN // len(path) - 2, 2), BESIDE)
    out: list[Row] = []

    def add(nodes: Sequence[int], depth: int, above: int) -> None:
        order = sorted(nodes, key=lambda node: -p[node])
        shown = order if whole or len(order) <= beside + 1 else order[:beside]
        if not whole and (on_path := [node for node in order if node in path]) and on_path[0] not in shown:
            shown = [*shown[:-1], on_path[0]]  # its parent is likelier than it, but its siblings' parts are not
        for node in shown:
            opened = whole or node in path
            below = f" [{tree.last[node] - tree.first[node]:,}]" if tree.children[node] and not opened else ""
            out.append(Row(node, short(tree.names[node], 34) + below, depth, float(p[node]), above))
            if tree.children[node] and opened:
                add(tree.children[node], depth + 1, len(out) - 1)
        left = [node for node in order if node not in shown]
        if left:
            out.append(Row(None, f"{len(left):,} others", depth, float(p[left].sum()), above))

    add(tree.top, 0, -1)
    return out


def _draw_tree(ax: Axes, rows: Sequence[Row], path: set[int], wide: float) -> None:
    """Names to the left of zero, indented and joined by lines; bars from zero to one to the right."""
    have = _inches(ax)[0]
    bar = max(have - wide, 0.35 * have) - 0.35  # inches from 0 to 1, some left for the numbers
    for y, row in enumerate(rows):
        chosen, x = row.node in path, (STEP * row.depth - wide) / bar
        style: dict[str, Any] = {"weight": "bold"} if chosen else {}
        colour = "partial" if chosen else "band"
        if row.node is None:
            style, colour = {"style": "italic", "color": COLOURS["zero"]}, "faint"
        ax.text(x, y, row.text, va="center", fontsize=8, **style)
        ax.barh(y, row.p, height=0.68, color=COLOURS[colour], zorder=2)
        ax.text(row.p + 0.06 / bar, y, _percent(row.p), va="center", fontsize=7.5, color=COLOURS["zero"])
        if row.above >= 0:
            left = x - 0.6 * STEP / bar
            line: dict[str, Any] = {"color": COLOURS["partial" if chosen else "faint"], "zorder": 3 if chosen else 1}
            line["linewidth"] = 1.4 if chosen else 0.8
            ax.plot([left, left, x - 0.04 / bar], [row.above + 0.45, y, y], **line)
    ax.axvline(0, color=COLOURS["faint"], linewidth=0.8)
    ax.set_xlim(-wide / bar, 1 + 0.35 / bar)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_yticks([])
    ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"], fontsize=8)
    ax.set_xlabel("probability", fontsize=9, x=(wide / bar + 0.5) / (wide / bar + 1 + 0.35 / bar))
    for side in ("left", "right", "top"):
        ax.spines[side].set_visible(False)
    ax.spines["bottom"].set_bounds(0, 1)


def _inches(ax: Axes) -> tuple[float, float]:
    """Width and height of Axes, before any layout."""
    place, figure = ax.get_window_extent(), ax.figure
    return place.width / figure.dpi, place.height / figure.dpi


def _percent(p: float) -> str:
    if p < 0.001:
        return "<0.1%"
    if p > 0.999:
        return "100%" if p == 1 else ">99.9%"
    return f"{100 * p:.1f}%" if p < 0.0995 or p > 0.9905 else f"{100 * p:.0f}%"


# -- confusion ------------------------------------------------------------------------------------------------


def confusion_plot(model: TaxonomyClassifier, X: Any, y: Any, level: Any, ax: Any) -> Axes:
    plt = _fitted(model)
    tree = model.tree_
    classes = tree.at_level(level)
    count = len(classes)
    name = tree.levels[tree.level(level) - 1]
    if count > MAX_CONFUSED:
        sizes = [len(tree.at_level(d)) for d in range(1, tree.level(level))]
        fits = [f"{d} ({size:,} classes)" for d, size in enumerate(sizes, 1) if size <= MAX_CONFUSED]
        way = f"take a level above it: {', '.join(fits)}" if fits else "no level of this tree has so few"
        raise OptionError(f"level {name!r} has {count:,} classes, and {MAX_CONFUSED:,} can be drawn; {way}")
    truth, p = _items(model, X, y)
    found = chances_at(tree, truth, p, level)
    table = np.zeros((count, count))
    np.add.at(table, (found.truth, found.predicted), 1)
    total = table.sum(axis=1, keepdims=True)
    share = np.divide(table, total, out=np.full_like(table, np.nan), where=total > 0)
    side = min(max(0.36 * count, 3.0), 6.2) if count <= NAMED else 6.4
    axes, made = _panels(plt, ax, 1, 1, (side + 2.4, side + 1.9))
    side = side if made else min(_inches(axes[0]))
    _draw_confusion(axes[0], tree, classes, share, side)
    notes = [f"{len(found.truth):,} items, {100 * found.accuracy:.1f}% right"]
    if empty := int(np.sum(total == 0)):
        notes.append(f"{empty:,} of the {count:,} classes without items (grey)")
    if partial := len(truth) - len(found.truth):
        notes.append(f"{partial:,} partial labels above this level left out")
    axes[0].set_title(wrap("; ".join(notes), round(14 * side)), **NOTE)
    if made:
        _figure(axes).suptitle(f"True and predicted classes, {name}", **TITLE)
    return axes[0]


def _draw_confusion(ax: Axes, tree: Taxonomy, classes: Ints, share: Floats, side: float) -> None:
    from matplotlib.colors import PowerNorm

    count = len(classes)
    ax.set_facecolor("#e4e4e4")
    image = ax.imshow(share, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest", aspect="equal")
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.7, pad=0.02, ticks=[0, 0.05, 0.25, 0.5, 1])
    bar.ax.set_yticklabels(["0", "5%", "25%", "50%", "100%"], fontsize=8)
    bar.set_label("share of the true class", fontsize=8)
    if count <= NAMED:
        _name_classes(ax, [tree.labels[node] for node in classes])
        if count <= NUMBERED:
            _write_shares(ax, share)
        if (depth := int(tree.depth[classes].max())) > 1:
            _block_lines(ax, tree.raised(classes, depth - 1), 0.5)
    else:
        _name_blocks(ax, tree, classes, side)
    ax.set_ylabel("true", fontsize=9)
    ax.set_xlabel("predicted", fontsize=9)


def _name_classes(ax: Axes, labels: Sequence[Any]) -> None:
    size = 8 if len(labels) <= 25 else 6.5
    texts = [short(label, 22) for label in labels]
    ax.set_xticks(range(len(labels)), texts, rotation=90, fontsize=size)
    ax.set_yticks(range(len(labels)), texts, fontsize=size)


def _write_shares(ax: Axes, share: Floats) -> None:
    for i, j in zip(*np.nonzero(np.nan_to_num(share) >= 0.005), strict=True):
        colour = "white" if share[i, j] > 0.35 else "black"
        ax.text(j, i, f"{100 * share[i, j]:.0f}", ha="center", va="center", fontsize=7, color=colour)


def _name_blocks(ax: Axes, tree: Taxonomy, classes: Ints, side: float) -> None:
    """Names of the ancestors along both axes, moved apart where blocks are thin; none where these are too many too."""
    count, gap = len(classes), len(classes) * 0.125 / side  # a line of text, as a number of classes
    ax.set_xticks([])
    ax.set_yticks([])
    depths = [
        d for d in range(1, int(tree.depth[classes].max())) if len(np.unique(tree.raised(classes, d))) * gap <= count
    ]
    if not depths:
        return
    blocks = tree.raised(classes, depths[-1])
    _block_lines(ax, blocks, 0.3)
    begins = np.concatenate([[0], _edges(blocks), [count]])
    middle = (begins[:-1] + begins[1:] - 1) / 2
    place = apart(middle, gap, count - 1.0)
    names = [short(tree.labels[node], 18) for node in blocks[begins[:-1]]]
    ax.set_yticks(place, names, fontsize=7)
    ax.set_xticks(place, names, fontsize=7, rotation=90)
    ax.tick_params(length=0, pad=9)
    thin = {"arrowstyle": "-", "color": COLOURS["faint"], "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0}
    left, below = ("axes fraction", "data"), ("data", "axes fraction")
    out = -0.1 / side
    for at, to in zip(middle, place, strict=True):
        ax.annotate("", (0, at), (out, to), xycoords=left, textcoords=left, arrowprops=thin)
        ax.annotate("", (at, 0), (to, out), xycoords=below, textcoords=below, arrowprops=thin)


def _block_lines(ax: Axes, blocks: Ints, width: float) -> None:
    for edge in _edges(blocks):
        for line in (ax.axhline, ax.axvline):
            line(edge - 0.5, color=COLOURS["zero"], linewidth=width)


def apart(places: Floats, gap: float, end: float) -> Floats:
    """Rising places moved as little as keeps neighbours a gap apart, between 0 and `end` where there is room.

    Least squares: less k gaps, places must only not fall; neighbours that would are pooled at their mean.
    """
    shift = gap * np.arange(len(places))
    means: list[float] = []
    sizes: list[int] = []
    for value in places - shift:
        means.append(float(value))
        sizes.append(1)
        while len(means) > 1 and means[-2] > means[-1]:
            size = sizes[-2] + sizes[-1]
            means[-2:] = [(sizes[-2] * means[-2] + sizes[-1] * means[-1]) / size]
            sizes[-2:] = [size]
    return np.asarray(np.maximum(np.minimum(np.repeat(means, sizes), end - shift[-1]), 0.0) + shift)


def _edges(blocks: Ints) -> npt.NDArray[np.intp]:
    """Where a new block begins."""
    return np.flatnonzero(blocks[1:] != blocks[:-1]) + 1


# -- reliability, risk and coverage ---------------------------------------------------------------------------


def reliability_plot(model: TaxonomyClassifier, X: Any, y: Any, level: Any, bins: int, equal: str, ax: Any) -> Any:
    plt = _fitted(model)
    found = _levels(model, X, y, level)
    columns = min(_columns(len(found)), 4) if len(found) > 3 else len(found)
    size = max(3.1 * columns, 3.6), 3.3 * math.ceil(len(found) / columns) + 0.5
    axes, made = _panels(plt, ax, len(found), columns, size)
    for i, (one, (name, chances)) in enumerate(zip(axes, found, strict=True)):
        _draw_reliability(one, chances, bins, equal)
        error = reliability_bins(chances, bins, equal).error
        one.set_title(f"{short(name, 22)}: n = {len(chances.truth):,}, ECE {error:.3f}", fontsize=9)
        one.set_xlabel("probability of the predicted class", fontsize=9)
        if not made or i % columns == 0:
            one.set_ylabel("share that is right", fontsize=9)
    if made:
        _figure(axes).suptitle("Reliability", **TITLE)
    return _squeeze(axes)


def _draw_reliability(ax: Axes, found: ChancesAt, bins: int, equal: str) -> None:
    table = reliability_bins(found, bins, equal)
    low, high = wilson(table.accuracy, table.items)
    share = table.items / table.items.sum()
    width = np.maximum(table.high - table.low, 1e-3)
    bars: dict[str, Any] = {"align": "edge", "color": COLOURS["faint"], "alpha": 0.5, "linewidth": 0}
    ax.bar(table.low, 0.25 * (share / width) / (share / width).max(), width, **bars)
    ax.plot([0, 1], [0, 1], color=COLOURS["zero"], linewidth=1, linestyle=DASHED, zorder=1)
    ax.vlines(table.confidence, low, high, color=COLOURS["partial"], linewidth=1.2, alpha=0.6)
    ax.plot(table.confidence, table.accuracy, color=COLOURS["partial"], marker="o", markersize=4.5, linewidth=1.2)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.02)
    ax.tick_params(labelsize=8)


def wilson(share: Floats, count: npt.NDArray[np.intp]) -> tuple[Floats, Floats]:
    """95 % interval of a share (Wilson 1927)."""
    z = 1.959963984540054
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    return middle - half, middle + half


def risk_coverage_plot(model: TaxonomyClassifier, X: Any, y: Any, level: Any, ax: Any) -> Axes:
    plt = _fitted(model)
    found = _levels(model, X, y, level)
    axes, made = _panels(plt, ax, 1, 1, (5.4, 3.9))
    for k, (name, chances) in enumerate(found):
        colour, dashes, mark = LINES[k % len(LINES)]
        _, coverage, risk = risk_curve(chances)
        # the risk of the few surest items jumps about: from the twentieth on, where there are so many
        kept = np.flatnonzero(coverage * len(chances.truth) >= min(20, len(chances.truth)))
        text = f"{short(name, 24)} (all: {100 * risk[-1]:.1f}%, n = {len(chances.truth):,})"
        axes[0].plot(coverage[kept], risk[kept], color=colour, linestyle=dashes, linewidth=1.6, label=text)
        axes[0].plot(coverage[-1], risk[-1], color=colour, marker=mark, markersize=5, clip_on=False)
    axes[0].set_xlabel("coverage: share of the items that keep their class, the surest first", fontsize=9)
    axes[0].set_ylabel("risk: share of these that are wrong", fontsize=9)
    axes[0].set_xlim(0, 1)
    axes[0].set_ylim(bottom=0)
    axes[0].tick_params(labelsize=8)
    axes[0].legend(fontsize=8, frameon=False, loc="upper left")
    if made:
        _figure(axes).suptitle("Risk and coverage", **TITLE)
    return axes[0]


def _levels(model: TaxonomyClassifier, X: Any, y: Any, level: Any) -> list[tuple[str, ChancesAt]]:
    """Name of each level wanted, and its scores; all that some label reaches."""
    tree = model.tree_
    truth, p = _items(model, X, y)
    if level is None:
        depths = [d for d in range(1, len(tree.levels) + 1) if np.any(known_items(tree, truth, d))]
    else:
        depths = [tree.level(level)]
    return [(tree.levels[d - 1], chances_at(tree, truth, p, d)) for d in depths]


def _items(model: TaxonomyClassifier, X: Any, y: Any) -> tuple[Ints, Floats]:
    """Nodes of the labels, and the leaves' probabilities."""
    p = model._leaf_probabilities(X)
    truth = model.tree_.nodes_of(model._chosen_levels(y), model.separator)
    if len(truth) != len(p):
        raise DataError(f"X has {len(p)} rows and y has {len(truth)}: give one label for each row")
    return truth, p


# -- scales ---------------------------------------------------------------------------------------------------


def scales_plot(model: TaxonomyClassifier, ax: Any) -> Axes:
    plt = _fitted(model)
    fitted = model.fitted_
    profile = fitted.profile
    if len(profile) < 2:
        raise OptionError(
            f"the scales (scales={model.scales!r}) were not looked for by held-out rows, so that there is no profile: fit "
            "with scales='holdout' or 'cv'"
        )
    names = fitted.shape.names
    tried, loss = np.array([scales for scales, _ in profile]), np.array([value for _, value in profile])
    if len(names) > MAX_SCALES:
        axes, made = _panels(plt, ax, 1, 1, (5.4, min(max(0.16 * len(names) + 1.4, 3.0), 7.0)))
        _many_scales(axes[0], names, fitted.scales, tried[0])
    else:
        axes, made = _panels(plt, ax, 1, 1, (6.4, 3.6))
        _few_scales(axes[0], names, fitted.scales, tried, loss)
    if made:
        _figure(axes).suptitle("Scales of the deviations", **TITLE)
    return axes[0]


def _few_scales(ax: Axes, names: Sequence[str], chosen: Floats, tried: Floats, loss: Floats) -> None:
    """A line of trials for each scale, in their order by the value; the chosen one as a vertical line."""
    for k, name in enumerate(names):
        colour, dashes, mark = LINES[k % len(LINES)]
        order = np.argsort(tried[:, k])
        style: dict[str, Any] = {"color": colour, "marker": mark, "markersize": 4, "alpha": 0.75}
        ax.plot(tried[order, k], loss[order], linestyle="", **style, label=f"{short(name, 24)}: {chosen[k]:.3g}")
        ax.axvline(chosen[k], color=colour, linestyle=dashes, linewidth=1.3)
    _log_scale(ax, tried)
    ax.set_ylabel("held-out log-loss", fontsize=9)
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
    ax.legend(fontsize=8, frameon=False, title="lines: chosen scales", title_fontsize=8, **place)


def _many_scales(ax: Axes, names: Sequence[str], chosen: Floats, first: Floats) -> None:
    """The chosen scales in their order, beside those that the search began at."""
    order = np.argsort(chosen)
    y = np.arange(len(names))
    ax.hlines(y, first[order], chosen[order], color=COLOURS["faint"], linewidth=1)
    ax.plot(first[order], y, linestyle="", marker="|", color=COLOURS["zero"], markersize=5, label="first")
    ax.plot(chosen[order], y, linestyle="", marker="o", color=COLOURS["partial"], markersize=4, label="chosen")
    if len(names) <= NAMED:
        ax.set_yticks(y, [short(names[k], 28) for k in order], fontsize=7)
    else:
        ax.set_yticks([])
        ax.set_ylabel(f"{len(names):,} scales, sorted", fontsize=9)
    _log_scale(ax, np.stack([first, chosen]))
    ax.legend(fontsize=8, frameon=False, loc="lower right")


def _log_scale(ax: Axes, values: Floats) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, ScalarFormatter

    ax.set_xscale("log")
    near = values.max() < 10 * values.min()  # few powers of ten between them, if any
    ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]) if near else LogLocator(subs=(1.0,)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.set_xlabel("scale", fontsize=9)
    ax.tick_params(labelsize=8)
