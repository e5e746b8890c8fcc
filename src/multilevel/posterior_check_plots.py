"""Figures beside the checks of a posterior: the panel of checks, residuals, shrinkage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import plot_check, plot_panels, posterior_checks, posterior_residuals
from .plot_check import Panel
from .plot_panels import COLOURS, DASHED, NOTE, short, wrap, zero_line
from .plots import TITLE, FitPlots, _figure, _panels, _pyplot, _squeeze
from .posterior_predict import flat
from .row_draws import _kept_groups

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .pooling_lines import Shrinkage
    from .posterior import Posterior

__all__ = ["CheckPlots"]

Array = NDArray[np.float64]

MAX_EFFECTS = 4  # quantile plots of group effects
MAX_PARAMETERS = 14  # beside their priors
EFFECT_DRAWS = 400
EFFECT_NUMBERS = 2e6


class CheckPlots:
    """What `PosteriorPlots` inherits: plots of residuals, checks and shrinkage."""

    _posterior: Posterior

    def check(self, *, ax: Any = None) -> Any:
        """The panel beside ``posterior.check()``: is the model right, and what have the priors done?

        Observed responses against simulated ones; normal quantile plot of the quantile residuals, with the band in which 95
        percent of normal samples lie at each point; these over the expected response; by group; ordered group effects of
        each draw over their sd (mean and 95 percent of the draws) against normal quantiles; Pareto k of each row left out;
        the posterior of each parameter in sds of its prior.

        Parameters
        ----------
        ax : array of Axes, optional
            As many as there are panels.

        Returns
        -------
        array of Axes
        """
        posterior = self._posterior
        panels = _panels_of(posterior)
        return FitPlots._panels_of(_as_fit_plots(posterior), panels, f"Checks of {short(posterior.design.response, 50)}", ax)

    def residuals(self, *, ax: Any = None) -> Any:
        """Residuals over the expected response with a local mean, and their normal quantile plot.

        Of the gaussian family: standardised residuals (response less its posterior mean, over the posterior mean of its sd).
        Residuals that are serially correlated are as they are, in units of the response. Of other families: quantile
        residuals, standard normal under the model; of categories over the linear predictor.

        Parameters
        ----------
        ax : Axes or array of two Axes, optional
            With a single one, only residuals over the expected response are drawn.

        Returns
        -------
        Axes or array of two Axes
        """
        posterior = self._posterior
        posterior.rows_of_data()
        normal, serial = posterior.model.distribution is None, posterior_residuals.serial(posterior)
        kind = "response" if serial else "pearson" if normal else "quantile"
        r = posterior_residuals.residuals(posterior, kind, posterior_checks.SEED)
        label = {"response": "residual", "pearson": "standardised residual", "quantile": "quantile residual"}[kind]
        count = 1 if ax is not None and np.size(ax) == 1 else 2
        axes, made = _panels(_pyplot(), ax, count, 2, (8.6, 3.9))
        x, name = _fitted(posterior)
        plot_panels.residual_panel(axes[0], x, r)
        axes[0].set(xlabel=name, ylabel=label)
        if count == 2:
            plot_check.quantiles(axes[1], r, _row_names(posterior), "row ")
            axes[1].set_ylabel(f"ordered {label}")
        if made:
            what = "Residuals" if normal else "Quantile residuals"
            _figure(axes).suptitle(f"{what} of {short(posterior.design.response, 50)}", **TITLE)
        return _squeeze(axes)

    def shrinkage(self, group: str | None = None, terms: str | Sequence[str] | None = None, *, ax: Any = None) -> Axes:
        """How far the posterior means of the groups lie from what each group says by itself.

        As for a fit (`FitPlots.shrinkage`, on the scale of the link where there is one): least squares, or maximum
        likelihood with all else as in the model, on the group's own rows; and posterior means. The regions expected to hold
        50 and 95 percent of groups have the posterior mean of the covariance.

        Parameters
        ----------
        group : str, optional
            Grouping factor; default the first of the formula.
        terms : one or two names, optional
            Effects to draw; default the first two.
        ax : Axes, optional

        Returns
        -------
        Axes
        """
        posterior = self._posterior
        posterior.rows_of_data()
        out = FitPlots.shrinkage(_as_fit_plots(posterior), group, terms, ax=ax)
        if posterior.model.distribution is not None:
            out.set_xlabel(f"{out.get_xlabel()} ({posterior.model.distribution.link} scale)")
        handles, labels = out.get_legend_handles_labels()
        names = [label.replace("this model", "posterior mean") for label in labels]
        for handle, name in zip(handles, names, strict=True):
            handle.set_label(name)
        plot_panels.legend_below(out)
        return out


# -- a posterior as the drawing of fits takes it --------------------------------------------------------------------


class _MeanPlots(FitPlots):
    """Panels of fits, drawn from posterior means."""

    def __init__(self, posterior: Posterior) -> None:
        self._posterior = posterior

    def _shrunk(self, group: Any) -> Shrinkage:
        from . import generalised_own, pooling_lines

        means: Any = posterior_means(self._posterior)
        if self._posterior.model.distribution is None:
            return pooling_lines.shrinkage(means, group)
        return generalised_own.shrinkage(means, group)


def _as_fit_plots(posterior: Posterior) -> FitPlots:
    return _MeanPlots(posterior)


def posterior_means(posterior: Posterior) -> SimpleNamespace:
    """What stands for a fit where only its estimates are read: posterior means of coefficients, effects and covariances."""
    d, family = posterior.rows_of_data(), posterior.model.distribution
    b = tuple(posterior.mean_b(t) for t in range(len(d.terms)))
    covs = [posterior.covariances(t).mean(axis=(0, 1)) for t in range(len(d.terms))]
    out = SimpleNamespace(
        design=d, model=posterior.model, optimum=SimpleNamespace(beta=posterior.mean_beta, b=b),
        rows_of_data=posterior.rows_of_data, random_cov=lambda: covs,
    )  # fmt: skip
    if family is not None:
        out.family, out._parameters, out._eta = _at_means(posterior)
    return out


def _at_means(posterior: Posterior) -> tuple[Any, tuple[Array, Array], tuple[Array, Array]]:
    """The family, rows' further parameters, and linear predictors without and with groups, all at posterior means."""
    from .laplace import coefficients_of
    from .row_draws import further

    d, family = posterior.design, posterior.model.distribution
    assert family is not None
    c = coefficients_of(d, family)
    values = np.linalg.solve(c.basis, further(posterior).mean(axis=0)) if len(c.basis) else np.empty(0)
    rows = [np.asarray(design @ values, dtype=np.float64) for design in c.designs]
    rows += [np.zeros(len(d.y))] * (2 - len(rows))
    eta = d.X @ posterior.mean_beta + (0.0 if d.offset is None else d.offset)
    whole = eta.copy()
    for t, term in enumerate(d.terms):
        z = np.ones((len(d.y), 1)) if term.Z is None else term.Z
        whole += np.einsum("ij,ij->i", z, posterior.mean_b(t)[term.codes])
    return family, (rows[0], rows[1]), (eta, whole)


# -- panels -----------------------------------------------------------------------------------------------------


def _fitted(posterior: Posterior) -> tuple[Array, str]:
    """Where residuals are drawn along, and what it is called."""
    if posterior.model.distribution is not None and posterior.model.distribution.name == "ordinal":
        return _at_means(posterior)[2][1], "linear predictor"
    share = posterior.model.distribution is not None and posterior.design.trials is not None
    return posterior_residuals.expectation(posterior), "expected share" if share else "expected response"


def _row_names(posterior: Posterior) -> list[str]:
    return [str(row) for row in posterior.design.rows.tolist()]


def _panels_of(posterior: Posterior) -> list[Panel]:
    posterior.rows_of_data()
    _kept_groups(posterior)
    out = _predictive(posterior)
    if not posterior_residuals.serial(posterior):  # else there are no quantile residuals
        out += _residuals(posterior)
    out += _effects(posterior)
    found = posterior_checks.leave_one_out(posterior)
    if found is not None:
        out.append(("Rows left out", lambda ax: _pareto(ax, posterior, found.pareto_k)))
    compared = posterior_checks.comparisons(posterior)
    if compared:
        out.append(("Posterior in sds of the prior", lambda ax: _priors(ax, compared)))
    return out


def _residuals(posterior: Posterior) -> list[Panel]:
    r = posterior_residuals.quantile_residuals(posterior, posterior_checks.SEED)
    facts: Any = SimpleNamespace(fit=posterior, residuals=r, good=np.ones(len(r), dtype=bool))
    groups = list(dict.fromkeys(t.group for t in posterior.design.terms))
    return [
        ("Residuals: are they normal?", lambda ax: _quantiles(ax, posterior, r)),
        ("Residuals: is the mean straight?", lambda ax: _over_fitted(ax, posterior, r)),
        *((f"Residuals by {short(g, 20)}", _by_group(facts, g)) for g in groups[:2]),
    ]


def _predictive(posterior: Posterior) -> list[Panel]:
    from . import posterior_replicates

    found = posterior_replicates.replicates(posterior, None, None, "all", posterior_checks.SEED)

    def draw(ax: Axes) -> None:
        posterior_replicates.predictive_panel(ax, found)
        if found.kind == "density":
            ax.set_ylim(top=1.25 * ax.get_ylim()[1])  # room for the legend
        ax.legend(fontsize=7, frameon=False, loc="upper left" if found.kind == "cumulative" else "upper right")

    return [("Does the model make such data?", draw)]


def _quantiles(ax: Axes, posterior: Posterior, r: Array) -> None:
    plot_check.quantiles(ax, r, _row_names(posterior), "row ")
    ax.set_ylabel("ordered quantile residual")


def _over_fitted(ax: Axes, posterior: Posterior, r: Array) -> None:
    x, name = _fitted(posterior)
    plot_panels.residual_panel(ax, x, r)
    ax.set(xlabel=name, ylabel="quantile residual")


def _by_group(facts: Any, group: str) -> Callable[[Axes], None]:
    def draw(ax: Axes) -> None:
        plot_check._by_group(ax, facts, group)
        ax.set_ylabel("quantile residual")

    return draw


def _effects(posterior: Posterior) -> list[Panel]:
    """Per group effect: ordered values of each draw over the draw's sd, which are standard normal under the model."""
    out: list[Panel] = []
    for t, term in enumerate(posterior.design.terms):
        levels = len(term.levels)
        if levels < 3:
            continue
        b, cov = flat(posterior.group_effects(t)), flat(posterior.covariances(t))
        step = max(1, len(b) // max(50, min(EFFECT_DRAWS, int(EFFECT_NUMBERS / levels))))
        for i, name in enumerate(term.names):
            ordered = np.sort(b[::step, :, i] / np.sqrt(cov[::step, i, i])[:, None], axis=1)
            out.append((f"{short(term.group, 14)}: {short(name, 18)}", _effect_drawer(ordered)))
    return out[:MAX_EFFECTS]


def _effect_drawer(ordered: Array) -> Callable[[Axes], None]:
    """Quantile plot of (draws, J) ordered effects."""
    from scipy.special import ndtri

    def draw(ax: Axes) -> None:
        n = ordered.shape[1]
        at = np.arange(n) if n <= 500 else np.unique(np.linspace(0, n - 1, 500).round().astype(np.int64))
        expected = ndtri((at + 0.5) / n)
        low, high = np.quantile(ordered[:, at], [0.025, 0.975], axis=0)
        ax.fill_between(expected, low, high, color=COLOURS["band"], alpha=0.3, linewidth=0, label="95% of draws", zorder=1)
        ax.plot(expected[[0, -1]], expected[[0, -1]], color=COLOURS["zero"], linewidth=1, linestyle=DASHED, zorder=2)
        style: dict[str, Any] = {"markersize": 4 if n < 60 else 3, "markeredgewidth": 0, "zorder": 3}
        ax.plot(expected, ordered[:, at].mean(axis=0), "o", color=COLOURS["partial"], label="mean of draws", **style)
        ax.set(xlabel="normal quantile", ylabel="ordered effect / sd")
        ax.legend(fontsize=8, loc="upper left")

    return draw


def _pareto(ax: Axes, posterior: Posterior, k: Array) -> None:
    """Pareto k of every row, with the value from which it is bad."""
    from .loo import GOOD_K

    rows, bad = posterior.design.rows, ~(k <= GOOD_K)
    some = np.union1d(plot_panels.fewer(len(k), plot_panels.MAX_POINTS), np.flatnonzero(bad))
    for dark, colour in ((False, COLOURS["data"]), (True, COLOURS["pooled"])):
        at = some[bad[some] == dark]
        ax.plot(rows[at], k[at], "o", color=colour, markersize=3.5 if dark else 3, markeredgewidth=0)
    ax.axhline(GOOD_K, color=COLOURS["zero"], linestyle=DASHED, linewidth=1, zorder=1)
    top = max(float(np.max(k)), GOOD_K)
    ax.set_ylim(top=top + 0.18 * (top - float(np.min(k))))
    names = [f"row {row}" for row in rows.tolist()]
    plot_check._names(ax, rows.astype(np.float64), k, names, np.where(bad, k, 0.0))
    note: dict[str, Any] = NOTE | {"ha": "right", "va": "top"}
    ax.annotate(f"good up to {GOOD_K}", (0.98, 0.98), xycoords="axes fraction", **note)
    ax.set(xlabel="row", ylabel="Pareto k")
    ax.locator_params(axis="x", nbins=5)


def _priors(ax: Axes, compared: list[posterior_checks.Comparison]) -> None:
    """Means and 95 % intervals in sds of the prior; parameters that moved most come first where there are many."""
    order = sorted(range(len(compared)), key=lambda i: -max(abs(compared[i].shift), compared[i].ratio))[:MAX_PARAMETERS]
    shown = [compared[i] for i in sorted(order, reverse=True)]
    zero_line(ax, vertical=True)
    ends = [c.low for c in shown] + [c.high for c in shown]
    for limit in (-3, 3):
        if min(ends) < 1.3 * limit if limit < 0 else max(ends) > 1.3 * limit:
            ax.axvline(limit, color=COLOURS["faint"], linewidth=1)
    ax.axvspan(-1, 1, color=COLOURS["faint"], alpha=0.25, linewidth=0, label="prior's middle 68%", zorder=0)
    for y, c in enumerate(shown):
        far = c.tail < posterior_checks.FAR
        colour = COLOURS["pooled"] if far else COLOURS["partial"]
        ax.hlines(y, c.low, c.high, color=colour, linewidth=1.8, zorder=2)
        ax.plot(c.shift, y, "o", color=colour, markersize=4.5, zorder=3)
    ax.set_yticks(range(len(shown)), [short(c.name, 22) for c in shown], fontsize=8 if len(shown) <= 8 else 7)
    ax.set_ylim(-0.7, len(shown) + (0.3 if len(shown) < 8 else 0.9))
    ax.set_xlabel("distance from the prior's middle", fontsize=9)
    ax.legend(fontsize=7, loc="upper right", frameon=False)
    if len(shown) < len(compared):
        ax.annotate(wrap(f"{len(shown)} of {len(compared)} parameters", 30), (0.02, 0.02), xycoords="axes fraction", **NOTE)
