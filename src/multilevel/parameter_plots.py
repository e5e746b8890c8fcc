"""Figures of a posterior's parameters: chains, pairs, priors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import posterior_panels, posterior_values
from .errors import OptionError
from .plot_panels import NOTE, short, wrap
from .plots import TITLE, _columns, _figure, _panels, _pyplot, _squeeze
from .sample import check_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .posterior import Posterior
    from .posterior_values import Parameter

__all__ = ["ParameterPlots", "figure_legend", "figure_title"]

MAX_TRACES, MAX_PRIORS, MAX_PAIRS = 8, 12, 6
LARGEST_PAIRS = 10  # panels to a side, however many are asked for
PAIR_POINTS = 2_000
PRIOR_DRAWS = 100_000
SCALARS_FIRST = ("sd", "sigma", "cor", "coefficient", "further")


class ParameterPlots:
    """What `PosteriorPlots` inherits: plots of parameters."""

    def __init__(self, posterior: Posterior) -> None:
        self._posterior = posterior

    def trace(self, parameters: str | Sequence[str] | None = None, *, kind: str | None = None, ax: Any = None) -> Any:
        """Density of each chain, and its draws in their order, of every parameter; divergent transitions are marked.

        Parameters
        ----------
        parameters : str or list of str, optional
            Default all that are not held; of more than eight those of least effective sample size.
        kind : {"trace", "rank", "density"}, optional
            Beside the densities: draws in their order, or how many of each chain rank where among all; or densities alone,
            the default where draws are independent, so that their order says nothing.
        ax : Axes or array of Axes, optional
            One for each parameter, or two, row by row, with traces or ranks.

        Returns
        -------
        Axes or array of Axes
        """
        posterior = self._posterior
        kept = posterior.draws_kept
        independent = kept.method != "nuts"
        if kind not in (None, "trace", "rank", "density"):
            raise OptionError(f"kind {kind!r} is not known; allowed are 'trace', 'rank', 'density'")
        kind = kind or ("density" if independent else "trace")
        shown, part = posterior_values.chosen(posterior, parameters, MAX_TRACES)
        diverging = posterior_values.diverging(posterior)
        count, columns = len(shown) * (1 if kind == "density" else 2), 2
        if kind == "density":
            columns = min(_columns(len(shown)), 4)
        size = max(3.2 * columns, 4.2) if kind == "density" else 8.4, 1.7 * math.ceil(count / columns) + 0.9
        axes, made = _panels(_pyplot(), ax, count, columns, size)
        for i, p in enumerate(shown):
            one = axes[i if kind == "density" else 2 * i]
            posterior_panels.chain_densities(one, p, diverging)
            one.set_title(short(p.name, 34), fontsize=9, loc="left")
            if kind == "trace":
                posterior_panels.trace_panel(axes[2 * i + 1], p, diverging)
            elif kind == "rank":
                posterior_panels.rank_panel(axes[2 * i + 1], p)
        if kind != "density":
            axes[-1].set_xlabel("draw" if kind == "trace" else "rank among the draws of all chains", fontsize=9)
        if made:
            _spaced(axes)
            figure_title(axes, _trace_title(posterior, int(diverging.sum())), part)
            figure_legend(axes, limit=len(posterior_panels.CHAINS) + 1)
        return _squeeze(axes)

    def pair(
        self, parameters: str | Sequence[str] | None = None, *, max_points: int = PAIR_POINTS, ax: Any = None
    ) -> Any:
        """Draws of each two parameters against each other, with their correlations; divergent transitions are marked.

        Parameters
        ----------
        parameters : list of str, optional
            Default all that are not held; of more than six the sds, sigma and correlations go first.
        max_points : int
            Draws in one panel; divergent ones are all drawn.
        ax : array of Axes, optional
            As many as the square of the number of parameters, row by row.

        Returns
        -------
        array of Axes
        """
        check_count("max_points", max_points, 1)
        posterior = self._posterior
        shown, part = posterior_values.chosen(posterior, parameters, MAX_PAIRS, SCALARS_FIRST)
        free = [p for p in shown if not p.held]
        k = len(free)
        if k < 2 or k > LARGEST_PAIRS:
            raise OptionError(
                f"a scatter matrix takes from two to {LARGEST_PAIRS} parameters that are not held at a value, not {k}; name "
                "them, as in pair(['sd', 'sigma'])"
            )
        diverging = posterior_values.diverging(posterior)
        side = max(1.55 * k, 4.2)
        axes, made = _panels(_pyplot(), ax, k * k, k, (side + 0.4, side + 0.6))
        for i, y in enumerate(free):
            for j, x in enumerate(free):
                self._pair(axes[i * k + j], i, j, x, y, diverging, max_points)
                _outer_labels(axes[i * k + j], i, j, k, x, y)
        if made:
            total = diverging.size
            drawn = f"{max_points:,} of {total:,} draws" if total > max_points else f"{total:,} draws"
            bad = int(diverging.sum())
            extra = f"; {_divergent(bad)}, marked" if bad else ""
            figure_title(axes, f"Draws of pairs of parameters: {drawn}{extra}", part)
            figure_legend(axes)
        return _squeeze(axes)

    @staticmethod
    def _pair(ax: Axes, i: int, j: int, x: Parameter, y: Parameter, diverging: Any, most: int) -> None:
        if i == j:
            posterior_panels.one_density(ax, x)
        elif i > j:
            posterior_panels.pair_panel(ax, x, y, diverging, most)
        else:
            r = float(np.corrcoef(x.flat, y.flat)[0, 1])
            text = f"{round(r, 2) + 0.0:.2f}"
            ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes, fontsize=9 + 5 * abs(r))
            ax.set_axis_off()

    def prior(self, parameters: str | Sequence[str] | None = None, *, ax: Any = None) -> Any:
        """Density of each parameter's prior against that of its posterior: what the data have added.

        Prior draws are made anew, with a fixed seed. A flat prior has no density and a parameter that is held no draws;
        their panels say so.

        Parameters
        ----------
        parameters : str or list of str, optional
            Default all that are not held, at most twelve.
        ax : Axes or array of Axes, optional
            One for each parameter.

        Returns
        -------
        Axes or array of Axes
        """
        posterior = self._posterior
        shown, part = posterior_values.chosen(posterior, parameters, MAX_PRIORS)
        if effect := next((p for p in shown if p.entry is None), None):
            raise OptionError(f"{effect.name} has no prior of its own: groups are drawn from their population; see 'sd'")
        columns = min(_columns(len(shown)), 4)
        size = max(2.9 * columns, 4.2), 2.05 * math.ceil(len(shown) / columns) + 1.0
        axes, made = _panels(_pyplot(), ax, len(shown), columns, size)
        rng, cut = np.random.default_rng(0), False
        for one, p in zip(axes, shown, strict=True):
            draws = None if p.held else posterior_values.prior_draws(posterior, p, PRIOR_DRAWS, rng)
            cut = posterior_panels.prior_panel(one, p, draws) or cut
            one.set_title(short(p.name, 30), fontsize=9, loc="left")
            if p.entry is not None and not p.held:
                missing = " (no density)" if draws is None else ""
                ordered = ", in ascending order" if posterior_values.ordered(posterior, p) else ""
                one.set_xlabel(p.entry.prior.text() + ordered + missing, **NOTE)
        if made:
            _spaced(axes)
            beyond = "a prior wider than its panel goes on beyond it" if cut else ""
            figure_title(axes, "Prior and posterior", "; ".join(filter(None, (part, beyond))))
            figure_legend(axes)
        return _squeeze(axes)


# -- titles and legends ---------------------------------------------------------------------------------------


def figure_title(axes: Sequence[Axes], title: str, note: str = "") -> None:
    """Title of the figure and a note under it, broken to its width."""
    width = int(11.5 * _figure(axes).get_figwidth())
    _figure(axes).suptitle("\n".join(wrap(one, width) for one in (title, note) if one), **TITLE)


def _trace_title(posterior: Posterior, bad: int) -> str:
    kept = posterior.draws_kept
    start = f"{kept.chains * kept.draws:,} draws in {kept.chains} chain{'s' * (kept.chains > 1)}"
    if kept.method == "nuts":
        return f"{start} (no-U-turn sampler), {_divergent(bad) + ', marked' if bad else 'no divergent transitions'}"
    how = "importance sampling" if kept.method == "independent" else "drawn exactly"
    return f"{start}: independent draws ({how}), which have no order to trace"


def _divergent(count: int) -> str:
    return f"{count} divergent transition{'s' * (count > 1)}"


def figure_legend(axes: Sequence[Axes], limit: int = 8) -> None:
    """One legend under the figure of what its panels hold; none of very many."""
    found: dict[str, Any] = {}
    for one in axes:
        handles, names = one.get_legend_handles_labels()
        found |= {n: h for n, h in zip(names, handles, strict=True) if n not in found}
    if 0 < len(found) <= limit:
        _figure(axes).legend(found.values(), found.keys(), loc="outside lower center", ncols=min(len(found), 5), fontsize=8,
                             frameon=False)  # fmt: skip


def _spaced(axes: Sequence[Axes]) -> None:
    """Room between panels without a frame, whose numbers would meet."""
    _figure(axes).get_layout_engine().set(w_pad=0.1, h_pad=0.06)


def _outer_labels(ax: Axes, i: int, j: int, k: int, x: Parameter, y: Parameter) -> None:
    """Names below the last row and left of the first column; numbers there only."""
    if i == k - 1:
        ax.set_xlabel(short(x.name, 24), fontsize=7.5)
    else:
        ax.set_xticklabels([])
    if j == 0:
        ax.set_ylabel(short(y.name, 24), fontsize=7.5)
    elif i != j:
        ax.set_yticklabels([])
