"""Verbs of a Posterior about means, shares of variance and broom's tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from .posterior import Posterior
    from .posterior_means import PosteriorContrasts, PosteriorMeans


class PosteriorVerbs:
    """Inherited by Posterior."""

    # -- means ------------------------------------------------------------------------------------------------

    def means(
        self,
        factors: str | Sequence[str] | None = None,
        *,
        by: str | Sequence[str] | None = None,
        at: Mapping[str, Any] | None = None,
        weights: str = "equal",
        level: float = 0.95,
        transform: str | None = None,
    ) -> PosteriorMeans:
        """Posterior of marginal means: population predictions, averaged over a balanced grid of the predictors.

        The grid and the labels are those of `Fit.means`; group effects are at zero. Of models that are not linear the means
        are of the linear predictor, unless taken back.

        Parameters
        ----------
        factors : str or list of str, optional
            Columns whose combinations have a mean each: factors, or covariates that `at` gives values for. None for the
            one mean of the whole grid.
        by : str or list of str, optional
            The same means in groups, within which comparisons stay.
        at : dict, optional
            Column -> value or values in the grid, as in ``{"age": [8, 14]}`` or ``{"sex": ["Male"]}``.
        weights : {"equal", "proportional", "cells"}
            How to average over the other factors; see `Fit.means`.
        level : float
            Of the intervals.
        transform : {"response"}, optional
            Take every draw back through the link, or a transformation of the response such as ``log(y)``: probabilities,
            means of the family without its extra zeros (medians, where the logarithm is normal). The estimate is the
            posterior mean of what was taken back, which is not what the mean taken back would be.

        Returns
        -------
        PosteriorMeans
            ``.frame()`` has the columns of `factors` and `by`, then estimate (posterior mean), est_error (posterior sd),
            ci_low, ci_high (quantiles); the first factor changes fastest. NaN where the data do not determine a mean.
            ``.contrasts()`` compares them, ``.plot()`` draws them, ``.draws`` are (chains, draws, m) draws.

        Raises
        ------
        OptionError
            For an unknown column, level or option; for transform="response" of an ordinal response.
        DataError
            For a posterior saved without its data, where these are needed.
        """
        from .posterior_means import means

        return means(cast("Posterior", self), factors, by, at, weights, level, transform)

    def contrasts(
        self,
        factors: str | Sequence[str],
        method: str | Mapping[str, Any] = "pairwise",
        *,
        by: str | Sequence[str] | None = None,
        at: Mapping[str, Any] | None = None,
        weights: str = "equal",
        level: float = 0.95,
        ref: Any = None,
        transform: str | None = None,
    ) -> PosteriorContrasts:
        """Posterior of comparisons between marginal means: ``posterior.means(factors, ...).contrasts(method, ...)``.

        Parameters
        ----------
        factors, by, at, weights, level
            As for `means`.
        method, ref
            As for `Means.contrasts` of a fit: "pairwise", "revpairwise", "trt.vs.ctrl", "consecutive", "poly", "eff" or a
            dict of name to weights.
        transform : {"response"}, optional
            Differences of logarithms as ratios, of logits as odds ratios, draw by draw.

        Returns
        -------
        PosteriorContrasts
            ``.frame()``: contrast, the columns of `by`, estimate, est_error, ci_low, ci_high, and probability: that the
            difference is above zero (the ratio above one). Nothing is adjusted for the number of comparisons.
        """
        from .posterior_means import contrasts

        return contrasts(cast("Posterior", self), factors, method, by, at, weights, level, ref, transform)

    def slopes(
        self,
        variable: str,
        *,
        by: str | Sequence[str] | None = None,
        at: Mapping[str, Any] | None = None,
        weights: str = "equal",
        level: float = 0.95,
    ) -> PosteriorMeans:
        """Posterior of slopes along a numeric predictor, averaged over the grid of `means`; see `Fit.slopes`.

        Of models that are not linear, slopes of the linear predictor.

        Parameters
        ----------
        variable : str
            A numeric column of the fixed side.
        by : str or list of str, optional
            Columns whose combinations have a slope each, as `factors` of `means`.
        at, weights, level
            As for `means`.

        Returns
        -------
        PosteriorMeans
            ``.frame()``: variable, the columns of `by`, estimate, est_error, ci_low, ci_high, and probability: that the
            slope is above zero. ``.contrasts()`` compares the slopes.
        """
        from .posterior_means import slopes

        return slopes(cast("Posterior", self), variable, by, at, weights, level)

    # -- shares of variance -----------------------------------------------------------------------------------

    def icc(
        self, by_group: bool = False, level: float = 0.95, *, scale: str = "link", progress: bool | None = None
    ) -> Any:
        """Posterior of the intraclass correlations: the share of variance that lies between groups.

        Computed at the parameters of every draw as `Fit.icc` computes it at the estimates: adjusted, random / (random +
        residual); conditional, random / (fixed + random + residual). No group effects are needed for it.

        Of models that are not linear the residual variance is that of the distribution on the scale of the link (Nakagawa,
        Johnson & Schielzeth 2017). Where it depends on the mean of the response (counts, Tweedie), this is the mean of the
        model without predictors, estimated by maximum likelihood once; in models of an intercept alone, that of each draw.

        Parameters
        ----------
        by_group : bool
            The share of each grouping factor instead of their sum.
        level : float
            Of the intervals.
        scale : {"link", "response"}
            Of the linear predictor, or of the response itself (Goldstein, Browne & Rasbash 2002); the same for a linear
            model. Shares of the response integrate over the groups for each row and draw; of more than 2,000 distinct rows
            quantiles are taken, and with many rows 400 draws or more, evenly spaced.
        progress : bool, optional
            Show a bar; by default after two seconds in a terminal.

        Returns
        -------
        frame
            kind ("adjusted", "conditional"), estimate (posterior mean), est_error, ci_low, ci_high; `by_group` adds group.

        Raises
        ------
        OptionError
            Without random effects; for families and links without such a variance (scale="response" is for all but
            ordinal).
        DataError
            For a posterior saved without its rows.
        """
        from .posterior_shares import icc

        return icc(cast("Posterior", self), by_group, level, scale, progress)

    def r2(self, level: float = 0.95, *, scale: str = "link", progress: bool | None = None) -> Any:
        """Posterior of marginal R squared (fixed effects) and conditional R squared (fixed and random effects).

        Nakagawa & Schielzeth (2013, Methods Ecol. Evol. 4(2)) with Johnson's (2014) mean random-effect variance, at every
        draw; variances and parameters are those of `icc`.

        Returns
        -------
        frame
            kind ("marginal", "conditional"), estimate (posterior mean), est_error, ci_low, ci_high.
        """
        from .posterior_shares import r2

        return r2(cast("Posterior", self), level, scale, progress)

    # -- broom ------------------------------------------------------------------------------------------------

    def tidy(self, level: float = 0.95) -> Any:
        """broom's table: coefficients, then sds and correlations, with broom.mixed's columns.

        Returns
        -------
        frame
            effect ("fixed", "ran_pars"; "extra" for dispersion, extra zeros or thresholds), group, term, estimate
            (posterior mean), std_error (posterior sd), conf_low, conf_high (quantiles), rhat, ess (bulk).
        """
        from .posterior_broom import tidy

        return tidy(cast("Posterior", self), level)

    def glance(self) -> Any:
        """One row: nobs, sigma, method, chains, draws (in all), rhat (largest), ess, divergences, pareto_k, trusted.

        ess is the least effective sample size of the no-U-turn sampler, of importance sampling what its draws are worth.
        """
        from .posterior_broom import glance

        return glance(cast("Posterior", self))

    def augment(self, new: Any = None, new_levels: str = "error", *, offset: Any = None) -> Any:
        """The columns the model used with .fitted (posterior mean), .est_error (its posterior sd), .resid and parts.

        Parts: .fixed without the group effects (linear models), .linear, the linear predictor (others). An ordinal response
        has no mean: .linear and its .est_error alone. Rows as in the data, NaN where one was left out.

        Parameters
        ----------
        new : data frame, optional
            New rows, with all their columns; without .resid.
        new_levels : {"error", "population", "sample"}
            For `predict`.
        offset : column name or array, optional
            Of the new rows, where the model was made with an array as offset.
        """
        from .posterior_broom import augment

        return augment(cast("Posterior", self), new, new_levels, offset)
