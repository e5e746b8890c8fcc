"""Verbs of a Fit about means, contrasts and slopes in the user's units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from .fit import Fit
    from .means import Contrasts, Means


class MeanVerbs:
    """Inherited by Fit."""

    def means(
        self,
        factors: str | Sequence[str] | None = None,
        *,
        by: str | Sequence[str] | None = None,
        at: Mapping[str, Any] | None = None,
        weights: str = "equal",
        level: float = 0.95,
        ddf: str = "satterthwaite",
        adjust: str = "none",
        transform: str | None = None,
    ) -> Means:
        """Estimated marginal means: population predictions, averaged over a balanced grid of the predictors.

        The grid holds every combination of the levels of the factors, and every covariate at its mean over the rows used,
        or at the values in `at` (Searle, Speed & Milliken 1980, American Statistician 34; R's emmeans). Group effects
        are at zero. An offset is a covariate of the grid, or stands at its mean where it was given as an array.

        Parameters
        ----------
        factors : str or list of str, optional
            Columns whose combinations have a mean each: factors, or covariates that `at` gives values for. Text, categories
            and True/False are factors; numbers are covariates unless the formula has ``C(x)``. None for the one mean of
            the whole grid.
        by : str or list of str, optional
            The same means in groups: comparisons, and adjustments for their number, stay within each.
        at : dict, optional
            Column -> value or values in the grid, as in ``{"age": [8, 14]}`` or ``{"sex": ["Male"]}``. What is neither in
            `factors` nor in `by` is averaged over.
        weights : {"equal", "proportional", "cells"}
            How to average over the other factors: all levels alike, by how often their combinations occur in the data, or
            by how often these occur together with the mean's own levels.
        level : float
            Coverage of the intervals.
        ddf : {"satterthwaite", "kenward-roger", "none"}
            Degrees of freedom; "none" uses the normal distribution.
        adjust : {"none", "bonferroni", "sidak", "scheffe", "mvt", "holm", "fdr"}
            Widens the intervals so that they hold together within each group of `by`; for "holm" and "fdr", which have no
            intervals, by Bonferroni's inequality.
        transform : {"response"}, optional
            For a response such as ``log(y)``: take estimates and limits back to `y`, with the standard error by the delta
            method. The result is the transformed mean of log(y) (a median, if normal), not the mean of `y`.

        Returns
        -------
        Means
            ``.frame()`` has the columns of `factors` and `by`, then estimate, std_error, df, conf_low, conf_high; the
            first factor changes fastest. NaN where the data do not determine a mean. ``.contrasts()`` compares them,
            ``.plot()`` draws them.

        Raises
        ------
        OptionError
            For an unknown column, level or option.
        DataError
            For a fit saved without its data, where these are needed.
        """
        from .means import means

        return means(
            cast("Fit", self), factors, by=by, at=at, weights=weights, level=level, ddf=ddf, adjust=adjust,
            transform=transform,
        )  # fmt: skip

    def contrasts(
        self,
        factors: str | Sequence[str],
        method: str | Mapping[str, Any] = "pairwise",
        *,
        by: str | Sequence[str] | None = None,
        at: Mapping[str, Any] | None = None,
        weights: str = "equal",
        level: float = 0.95,
        ddf: str = "satterthwaite",
        adjust: str | None = None,
        ref: Any = None,
        transform: str | None = None,
    ) -> Contrasts:
        """Comparisons between estimated marginal means: ``fit.means(factors, ...).contrasts(method, ...)``.

        Parameters
        ----------
        factors, by, at, weights, level, ddf, transform
            As for `means`.
        method, adjust, ref
            As for `Means.contrasts`.

        Returns
        -------
        Contrasts
            ``.frame()``: contrast, the columns of `by`, estimate, std_error, df, statistic, p_value, conf_low, conf_high.
        """
        from .means import means

        made = means(
            cast("Fit", self), factors, by=by, at=at, weights=weights, level=level, ddf=ddf, transform=transform
        )
        return made.contrasts(method, adjust=adjust, ref=ref)

    def slopes(
        self,
        variable: str,
        *,
        by: str | Sequence[str] | None = None,
        at: Mapping[str, Any] | None = None,
        weights: str = "equal",
        level: float = 0.95,
        ddf: str = "satterthwaite",
        adjust: str = "none",
    ) -> Means:
        """Slopes of the population mean along a numeric predictor, averaged over the grid of `means`.

        The derivative of the prediction by the column itself, whatever the formula makes of it: ``poly(x, 3)``, a spline,
        ``log(x)``, interactions. It is taken where the grid has the column: at its mean, or at the values in `at`.

        Parameters
        ----------
        variable : str
            A numeric column of the fixed side.
        by : str or list of str, optional
            Columns whose combinations have a slope each, as `factors` of `means`.
        at, weights, level, ddf, adjust
            As for `means`.

        Returns
        -------
        Means
            ``.frame()``: variable, the columns of `by`, estimate, std_error, df, statistic, p_value (of no slope),
            conf_low, conf_high. ``.contrasts()`` compares the slopes.
        """
        from .means import slopes

        return slopes(
            cast("Fit", self), variable, by=by, at=at, weights=weights, level=level, ddf=ddf, adjust=adjust
        )  # fmt: skip

    def marginaleffects_model(self) -> Any:
        """This fit as a model of the package marginaleffects: ``avg_slopes(fit.marginaleffects_model())``.

        Predictions are of the population (group effects at zero); tests use the normal distribution, as that package has
        no degrees of freedom per estimate.

        Raises
        ------
        OptionError
            If the package is not installed.
        DataError
            For a fit saved without its data.
        """
        from .marginaleffects import as_model

        return as_model(cast("Fit", self))
