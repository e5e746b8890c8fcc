"""Verbs of a Fit about checks: shares of variance, influence, singularity, new rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from .checks import Checks
    from .condition import Conditioned
    from .fit import Fit
    from .singularity import Singularity


class CheckVerbs:
    """Inherited by Fit."""

    def icc(
        self,
        by_group: bool = False,
        level: float = 0.95,
        interval: str | None = "bootstrap",
        n: int = 1000,
        seed: Any = 0,
        progress: bool | None = None,
    ) -> Any:
        """Intraclass correlations: the share of variance that lies between groups.

        Adjusted: random / (random + residual), of what the fixed effects leave. Conditional: random / (fixed + random +
        residual), of everything. The random variance is the mean over rows of z' Sigma z, which is right for random
        slopes (Johnson 2014, Methods Ecol. Evol. 5(9), eq. 10; Nakagawa, Johnson & Schielzeth 2017, J. R. Soc.
        Interface 14). The fixed variance is that of X beta over the rows, divisor n - 1; an offset does not count. With
        weights or variance functions the residual variance is sigma**2 times the mean over rows of the squared sd
        multiplier (1 / weight), that of an average row, so that the unit of the weights does not matter. A serial
        correlation of the residuals leaves it as it is. With a known covariance K between levels each row counts with
        the diagonal of K. A variance of zero is a value like any other: singular fits have their numbers.

        Parameters
        ----------
        by_group : bool
            The share of each grouping factor instead of their sum.
        level : float
            Coverage of the interval.
        interval : {"bootstrap", None}
            Percentile limits of a parametric bootstrap (refits to n responses drawn from the fitted model), which stay
            between 0 and 1 and may begin at 0. None leaves the interval out, which is quick; with structures of terms or
            residuals every refit is a search of its own, and a thousand take minutes.
        n : int
            Number of simulated responses, at least 20.
        seed : int or Generator
            Of the simulation.
        progress : bool, optional
            Show a bar; by default after two seconds in a terminal.

        Returns
        -------
        frame
            kind ("adjusted", "conditional"), estimate and, with an interval, conf_low, conf_high; `by_group` adds group.

        Raises
        ------
        OptionError
            Without random effects; for an unknown interval or an n below 20.
        DataError
            For an interval of a fit saved without its rows; with weights or a residual structure for the estimate too.
        """
        from .variance_shares import icc

        return icc(cast("Fit", self), by_group, level, interval, n, seed, progress)

    def r2(
        self,
        level: float = 0.95,
        interval: str | None = "bootstrap",
        n: int = 1000,
        seed: Any = 0,
        progress: bool | None = None,
    ) -> Any:
        """Marginal R squared (fixed effects) and conditional R squared (fixed and random effects).

        Nakagawa & Schielzeth (2013, Methods Ecol. Evol. 4(2)), with Johnson's (2014) mean random-effect variance. The
        variances are those of `icc`, and so are the parameters.

        Returns
        -------
        frame
            kind ("marginal", "conditional"), estimate and, with an interval, conf_low, conf_high.
        """
        from .variance_shares import r2

        return r2(cast("Fit", self), level, interval, n, seed, progress)

    def influence(
        self,
        group: str | None = None,
        *,
        refit: bool = False,
        variances: bool | None = None,
        progress: bool | None = None,
    ) -> Any:
        """What changes when a row, or all rows of a group, are left out; without refitting.

        Rows: exact deletion with the variance parameters (theta) held, by updating formulas. Groups: the same for the
        coefficients, and the variance parameters without the group by one Newton step from the fitted ones. The column
        ``method`` says so. Parameters of a residual structure are held too. Residuals are normalized ones then; rows of a
        series (serial correlation) can only be left out in groups that hold whole series.

        Parameters
        ----------
        group : str, optional
            Grouping factor of the model whose levels are left out one by one; default single rows.
        refit : bool
            With `group`: really refit without each level, everything estimated anew. The truth, and slow.
        variances : bool, optional
            With `group`: also take the Newton step of the variance parameters, which is most of the work. By default it
            is left out where it would take more than a few minutes, which ``method`` then says; True takes it anyway.
            Structures of residuals, and of terms other than unstructured and diagonal, go without it.
        progress : bool, optional
            Show a bar; by default after two seconds in a terminal.

        Returns
        -------
        frame
            By row (aligned with the data, NaN where a row was left out): leverage (hat values of the conditional fit, as
            lme4's), std_residual (residual over its model sd), student_residual (sigma without the row), cooks (of
            fixed and random effects, as lme4's cooks.distance), cooks_fixed (of the fixed effects), dffits, dfbetas_* (of
            each coefficient: estimate less that without the row, over its standard error in the whole fit).
            By group: level, rows, cooks (of the fixed effects), dfbetas_*, and sigma, sd(...), cor(...) without the
            group. NaN where the rows left do not determine the coefficients.

        Raises
        ------
        OptionError
            For a group that the model does not have, or rows or groups that a serial correlation ties to others.
        DataError
            For a fit saved without its rows.
        """
        from .influence import influence

        return influence(cast("Fit", self), group, refit, variances, progress)

    def check(self) -> Checks:
        """Checks of the model's assumptions, each with a verdict and a plain sentence.

        Convergence, singularity, shape and outliers of the residuals, their spread over fitted values and groups,
        linearity in each numeric predictor, autocorrelation in row order, shape and outliers of the random effects,
        influence, collinearity, number of groups, missing rows and weights. With a structure of the residuals the
        normalized residuals are judged, in the order of its times, and the sentences say so. `multilevel.checks` says how
        each verdict is reached.

        Returns
        -------
        Checks
            Prints as a table; ``.frame()`` gives check, verdict ("ok", "look", "problem"; "skipped" where it could not
            be judged) and sentence.

        Raises
        ------
        DataError
            For a fit saved without its rows.
        """
        from .checks import check

        return check(cast("Fit", self))

    def singularity(self) -> Singularity:
        """Which variance or correlation lies on its boundary, why, and which simpler model to try at what cost.

        Returns
        -------
        Singularity
            Prints as text; true if the fit is singular; ``.frame()`` has a row per simpler model: step, formula,
            options (to be given beside the formula, as the fit has them), what, criterion, change (in -2
            log-likelihood), aic_change, singular.
        """
        from .singularity import singularity

        return singularity(cast("Fit", self))

    def condition(self, rows: Any, *, weights: Any = None, offset: Any = None) -> Conditioned:
        """Update the group effects with new rows, without refitting.

        The parameters (fixed effects, variances) stay as fitted; the effects of known groups are those given the old and
        the new rows together, and groups that were not fitted get effects of their own. New rows have the residual
        variance that variance functions give them.

        Parameters
        ----------
        rows : data frame
            Complete new rows, with the response.
        weights, offset : column name or array, optional
            Needed where the model was fitted with an array of weights or as offset.

        Returns
        -------
        Conditioned
            With `ranef()`, `coef()` and `predict()`; it can be conditioned again.

        Raises
        ------
        DataError
            Where a value is missing in the new rows, or a group is.
        OptionError
            Where residuals are correlated or their variance depends on fitted values, or levels have a known covariance.
        """
        from .condition import condition

        return condition(cast("Fit", self), rows, weights=weights, offset=offset)
