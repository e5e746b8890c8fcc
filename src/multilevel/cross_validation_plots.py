"""Figures of cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import cross_validation_lines as lines
from .cross_validation_models import POOLED, UNPOOLED
from .cross_validation_table import MORE_IS_BETTER, SHOWN
from .errors import OptionError, listing, nearest
from .plot_panels import COLOURS, MAX_LABELS, NOTE, label_levels, short, wrap, zero_line
from .plots import TITLE, _figure, _panels, _pyplot, _squeeze

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .cross_validation_table import CrossValidation

__all__ = ["draw"]

Array = NDArray[np.float64]
KINDS = ("differences", "folds", "groups", "calibration")
FURTHER = ("#CC79A7", "#E69F00", "#000000", "#56B4E9", "#F0E442")  # of Okabe & Ito's palette, beside those of pooling
SHAPES = ("s", "^", "v", "P", "X")


def draw(result: CrossValidation, kind: Any, score: Any, group: Any, ax: Any) -> Any:
    """See `CrossValidation.plot`."""
    if kind not in KINDS:
        raise OptionError(f"kind={kind!r} is not known; {nearest(kind, KINDS) or 'there are ' + listing(KINDS)}")
    if score is not None and kind not in ("differences", "folds"):
        raise OptionError(f"score= goes with kind='differences' or 'folds'; kind={kind!r} has a score of its own")
    if group is not None and kind != "groups":
        raise OptionError("group= goes with kind='groups'")
    if kind == "differences":
        return _differences(result, lines.measure_of(result, score, True), ax)
    if kind == "folds":
        return _folds(result, lines.measure_of(result, score, False), ax)
    return _groups(result, group, ax) if kind == "groups" else _calibration(result, ax)


def _looks(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour and marker of each model: the first as partial pooling, baselines as elsewhere, the rest in turn."""
    known = {POOLED: (COLOURS["pooled"], "_"), UNPOOLED: (COLOURS["unpooled"], "o")}
    out: dict[str, dict[str, Any]] = {}
    rest = iter(range(len(names)))
    for i, name in enumerate(names):
        if name in known:
            colour, marker = known[name]
        elif not i:
            colour, marker = COLOURS["partial"], "D"
        else:
            at = next(rest)
            colour, marker = FURTHER[at % len(FURTHER)], SHAPES[at % len(SHAPES)]
        out[name] = {"color": colour, "marker": marker, "markersize": 5}
        if marker == "_":
            out[name] |= {"markersize": 10, "markeredgewidth": 2}
        elif marker == "o":
            out[name] |= {"markerfacecolor": "white", "markeredgewidth": 1.4}
    return out


def _upright(look: dict[str, Any]) -> dict[str, Any]:
    """The mark where lines lie: a bar along a line is not seen."""
    return {**look, "marker": "|"} if look["marker"] == "_" else look


def _small(look: dict[str, Any]) -> dict[str, Any]:
    """The mark where there are many, none of them a bar, which would look like an interval."""
    return {**look, "marker": "s" if look["marker"] == "_" else look["marker"], "markersize": 3, "markeredgewidth": 0.8}


def _shown(result: CrossValidation, measure: str) -> str:
    per = "fold" if result.folds.what == "folds" else "group"
    return f"log score per {per}" if measure == "joint_log_score" else SHOWN[measure]


def _better(measure: str) -> str:
    return "more is better" if measure in MORE_IS_BETTER else "less is better"


def _note(result: CrossValidation) -> str:
    return result._title()[0].removeprefix("Cross-validation: ")


# -- differences ------------------------------------------------------------------------------------------------------


def _differences(result: CrossValidation, measure: str, ax: Any) -> Any:
    found = lines.differences(result, measure)
    count = len(found.names)
    axes, made = _panels(_pyplot(), ax, 2, 2, (8.8, max(0.45 * count + 1.9, 2.6)), sharey=True)
    looks, at = _looks(result.names), np.arange(count)
    for i, name in enumerate(found.names):
        style = {"capsize": 3, "linestyle": "none", **_upright(looks[name])}
        axes[0].errorbar(found.value[i], i, xerr=_or_zero(found.std_error[i]), **style)
        axes[1].errorbar(found.behind[i], i, xerr=_or_zero(found.behind_error[i]), **style)
    zero_line(axes[1], vertical=True)
    for one in axes:
        one.set_yticks(at, [short(name, 34) for name in found.names], fontsize=9)
        one.set_ylim(count - 0.4, -0.6)  # the best on top
        one.grid(axis="y", color=COLOURS["faint"], linewidth=0.4, alpha=0.6)
        one.set_axisbelow(True)
    axes[0].set_xlabel(f"{_shown(result, measure)} ({_better(measure)})")
    axes[1].set_xlabel(f"worse than {short(found.names[0], 24)} by")
    axes[0].set_title("scores, with a standard error", fontsize=10)
    axes[1].set_title("differences to the best, paired", fontsize=10)
    if made:
        if axes[1].get_yticks().size:
            axes[1].tick_params(labelleft=False)
        unit = ("folds" if result.folds.what == "folds" else "groups") if measure == "joint_log_score" else "rows"
        note = f"{_note(result)}; on the {found.n:,} {unit} that all predict"
        note += f"; {', '.join(found.silent)}: no prediction" if found.silent else ""
        _figure(axes).suptitle(wrap(note, 110), **NOTE)
    return _squeeze(axes)


def _or_zero(error: float) -> float:
    return 0.0 if np.isnan(error) else error


# -- folds ------------------------------------------------------------------------------------------------------------


def _folds(result: CrossValidation, measure: str, ax: Any) -> Any:
    scores, count = lines.fold_scores(result, measure), result.folds.count
    axes, made = _panels(_pyplot(), ax, 1, 1, (min(max(0.34 * count + 4.0, 6.8), 11), 3.9))
    one, looks, at = axes[0], _looks(result.names), np.arange(count)
    spread = (np.arange(len(result.names)) - (len(result.names) - 1) / 2) * min(0.5 / len(result.names), 0.16)
    for i, name in enumerate(result.names):
        if np.isnan(scores[i]).all():
            continue
        style = dict(looks[name]) if count <= MAX_LABELS else {**looks[name], "markersize": 2.5}
        one.plot(at + spread[i], scores[i], linestyle="none", label=short(name, 40), zorder=3, **style)
        mean = result._measure(name, measure, result._scored(name, measure))[0]
        one.axhline(mean, color=looks[name]["color"], linewidth=1, zorder=1)
    if count <= MAX_LABELS:
        texts = [short(label, 10) for label in result.folds.labels]
        turned = sum(map(len, texts)) > 60
        one.set_xticks(at, texts, rotation=90 if turned else 0, fontsize=8)
        for edge in at[:-1] + 0.5:
            one.axvline(edge, color=COLOURS["faint"], linewidth=0.4, zorder=0)
    one.set_xlim(-0.6, count - 0.4)
    whole = result.folds.what not in ("rows", "folds") and result.folds.labels == result.folds.units
    one.set_xlabel(result.folds.what if whole else "fold")
    one.set_ylabel(f"{_shown(result, measure)} ({_better(measure)})")
    one.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)
    if made:
        _figure(axes).suptitle(wrap(f"{_note(result)}; lines: means over rows", 90), **NOTE)
    return axes[0]


# -- groups -----------------------------------------------------------------------------------------------------------


def _groups(result: CrossValidation, group: str | None, ax: Any) -> Any:
    found = lines.group_scores(result, group)
    count = len(found.levels)
    tall = 5.0 if count > MAX_LABELS else min(max(0.19 * count + 1.9, 3.8), 9.0)
    axes, made = _panels(_pyplot(), ax, 2, 2, (10.0, tall))
    _scores_panel(axes[0], result, found)
    _gains_panel(axes[1], result, found)
    if made:
        what = (
            "the joint log score of its rows, per row"
            if found.joint
            else "the mean log score of its rows when left out"
        )
        _figure(axes).suptitle(wrap(f"{_note(result)}. Of each {found.group}: {what}", 120), **NOTE)
    return _squeeze(axes)


def _scores_panel(ax: Axes, result: CrossValidation, found: lines.GroupScores) -> None:
    """Scores of groups from the smallest up, a marker for each model."""
    order = np.argsort(found.n, kind="stable")
    looks, at, few = _looks(result.names), np.arange(len(order)), len(order) <= MAX_LABELS
    score = found.score[:, order]
    known = [i for i in range(len(score)) if np.isfinite(score[i]).any()]
    if len(known) > 1 and few:
        rows = np.flatnonzero(np.isfinite(score).any(axis=0))
        ends = np.nanmin(score[:, rows], axis=0), np.nanmax(score[:, rows], axis=0)
        ax.hlines(rows, *ends, color=COLOURS["faint"], linewidth=1.2, zorder=1)
    for i in known:
        name = result.names[i]
        style = {**(_upright(looks[name]) if few else _small(looks[name])), "zorder": 3 + (not i)}
        ax.plot(score[i], at, linestyle="none", label=short(name, 24), **style)
    labels = [f"{short(found.levels[j], 14)} ({found.n[j]:,})" for j in order]
    label_levels(ax, found.group, labels)
    if not few:
        ax.set_ylabel(f"{found.group}: {len(order):,} levels, the smallest below")
    ax.set_ylim(-0.8, len(order) + max(0.06 * len(order), 0.9))  # room for the legend
    ax.set_xlabel("log score per row (more is better)")
    ax.set_title("by group" + (" (rows)" if few else ""), fontsize=10)
    ax.legend(fontsize=7.5, loc="upper center", ncols=3, columnspacing=1.0, handletextpad=0.3, frameon=False)


def _gains_panel(ax: Axes, result: CrossValidation, found: lines.GroupScores) -> None:
    """What the first model gains on each other, against the number of rows."""
    looks, first = _looks(result.names), result.names[0]
    n = found.n.astype(np.float64)
    zero_line(ax)
    drawn = [i for i in range(1, len(result.names)) if np.isfinite(found.gain[i]).any()]
    wide = n.max() > 10 * n.min()
    for place, i in enumerate(drawn):
        name = result.names[i]
        shift = (place - (len(drawn) - 1) / 2) * (0.012 if wide else 0.008 * max(np.ptp(n), 1.0))
        x = n * (1 + shift) if wide else n + shift
        total = np.isfinite(found.gain[i])
        mean = float(found.gain[i][total] @ n[total] / n[total].sum())
        label = f"than {short(name, 26)}: {mean:+.3g}"
        error = np.nan_to_num(found.gain_error[i])
        style = {**_small(looks[name]), "markersize": 3.5 if len(n) > MAX_LABELS else 5, "zorder": 3}
        faint = 0.45 if len(n) > MAX_LABELS else 0.9
        bars = ax.errorbar(x, found.gain[i], yerr=error, linestyle="none", elinewidth=0.8, alpha=faint, **style)
        bars.set_label(label)
        along, level = lines.gain_by_size(n, found.gain[i])
        ax.plot(along, level, color=looks[name]["color"], linewidth=1.8, zorder=4)
    if wide:
        ax.set_xscale("log")
    elif np.ptp(n) == 0:
        ax.set_xlim(n[0] - 1, n[0] + 1)
        ax.set_xticks([n[0]])
    else:
        ax.locator_params(axis="x", integer=True)
    ax.set_xlabel(f"rows of the {found.group}")
    ax.set_ylabel("gain in log score per row")
    many = "; lines: mean over rows of groups of like size" if len(n) >= lines.MANY else ""
    ax.set_title(wrap(f"{short(first, 34)} predicts better above zero{many}", 60), fontsize=10)
    if drawn:
        ax.legend(fontsize=7.5, loc="best", title="mean gain per row", title_fontsize=7.5)
    else:
        ax.text(0.5, 0.6, "no other model predicts these groups", ha="center", transform=ax.transAxes, **NOTE)


# -- calibration ------------------------------------------------------------------------------------------------------


def _calibration(result: CrossValidation, ax: Any) -> Any:
    found = [(name, bar) for name in result.names if (bar := lines.bars(result, name)) is not None]
    if not found:
        raise OptionError("no model predicts any of the rows left out, so that there is nothing to be calibrated")
    columns = min(len(found), 3)
    size = max(3.2 * columns + 0.4, 4.6), 3.0 * -(-len(found) // columns) + 0.5
    axes, made = _panels(_pyplot(), ax, len(found), columns, size, sharey=True)
    looks = _looks(result.names)
    for i, (one, (name, bar)) in enumerate(zip(axes, found, strict=True)):
        count = len(bar.height)
        one.axhspan(bar.low, bar.high, color=COLOURS["faint"], alpha=0.35, linewidth=0, zorder=0)
        one.axhline(1, color=COLOURS["zero"], linewidth=1, linestyle=(0, (5, 2)), zorder=3)
        edges = (np.arange(count) + 0.5) / count
        one.bar(edges, bar.height, 0.92 / count, color=looks[name]["color"], alpha=0.75, zorder=2)
        one.set(xlim=(0, 1), xticks=[0, 0.5, 1])
        one.set_title(short(name, 32), fontsize=10)
        one.set_xlabel("place in the predictive distribution", fontsize=9)
        if not made or i % columns == 0:
            one.set_ylabel("share of rows, relative to even")
    if made:
        note = (
            "Bars at 1 where predictive distributions are right; higher at both ends: too narrow; in the middle: too wide; "
            "at one end: biased. Band: 95 % of bars, were rows independent"
        )
        _figure(axes).suptitle(wrap(note, 40 * columns), **{**TITLE, **NOTE})
    return _squeeze(axes)
