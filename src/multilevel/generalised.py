"""Fit of a generalised model: what differs from a Gaussian one.

Estimates are by maximum likelihood with Laplace's approximation; tests use the normal distribution. `fitted` and
predictions are means of the response (of a proportion, where it counts successes), the linear predictor with
``kind="link"``.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import OptionError
from .frame import like
from .generalised_verbs import LinkVerbs, refuse

if TYPE_CHECKING:
    from .checks import Checks
    from .families import Family
    from .generalised_condition import LinkConditioned
    from .generalised_plots import LinkPlots
    from .laplace import Coefficients

Array = NDArray[np.float64]


class GeneralisedFit(LinkVerbs):
    """A fitted generalised linear mixed model."""

    generalised = True

    # -- what it was made of ------------------------------------------------------------------------------

    @property
    def family(self) -> Family:
        """Distribution and link; degrees of freedom (``df``) or power that were estimated stand at their estimate."""
        family = self._model.distribution
        assert family is not None
        return family if family.shape is None else family.at_shape(float(self._optimum.residual[-1]))

    @cached_property
    def coefficients(self) -> Coefficients:
        """Designs of the coefficients beyond the fixed effects."""
        return self._model.laplace().coefficients

    @property
    def npar(self) -> int:
        """Estimated parameters: fixed effects, covariance parameters, dispersion, zero inflation or thresholds."""
        return len(self._optimum.beta) + len(self._optimum.theta) + len(self._optimum.residual)

    def extra(self) -> Any:
        """Coefficients beyond the fixed effects: log of the dispersion, logit of the share of zeros, thresholds.

        Returns
        -------
        frame
            term, estimate, std_error.
        """
        error = np.sqrt(np.diag(self._optimum.residual_vcov))
        names = np.array(self.coefficients.names, dtype=object)
        return self._frame({"term": names, "estimate": self._optimum.residual.copy(), "std_error": error})

    def residual_structure(self) -> Any:
        """The same as `extra`: a generalised model has no structured residual."""
        return self.extra()

    def varcorr(self) -> Any:
        """Variances and covariances of the random effects; see `Fit.varcorr`. There is no residual variance."""
        from .generalised_tables import without_residual

        return self._frame(without_residual(super().varcorr(), "group"))

    def tidy(self, level: float = 0.95) -> Any:
        """broom's table, with the coefficients of dispersion, extra zeros or thresholds as effect "extra"."""
        from .generalised_tables import tidy

        return tidy(self, level)

    def more_vcov(self) -> Array | None:
        """What the uncertainty of covariances and dispersion adds to the working linear model's covariance of beta."""
        with self._engine.lock:
            state = self._engine.state(False, self._optimum.engine_lambdas)
            return np.asarray(self._optimum.vcov - self._engine.vcov_beta(state, 1.0))

    @cached_property
    def weighted(self) -> bool:
        """Whether the model was given weights: prior ones, or the trials of proportions."""
        from .generalised_rows import proportions

        d = self.rows_of_data()
        return d.weights is not None or proportions(self)

    @cached_property
    def following(self) -> tuple[Array, ...]:
        """Per term: derivative of the modes by all parameters but the fixed effects; see `generalised_uncertainty`."""
        from .generalised_uncertainty import following

        return following(self)

    # -- per row ------------------------------------------------------------------------------------------

    @cached_property
    def _parameters(self) -> tuple[Array, Array]:
        """(n,) further parameters of each row used, zero where the family has none."""
        engine = self.coefficients
        values: Array = np.empty(0)
        if len(engine.basis):
            values = np.asarray(np.linalg.solve(engine.basis, self._optimum.residual), dtype=np.float64)
        none = np.zeros(self._engine.blocks.n)
        rows = [*engine.rows(values), none, none]
        return rows[0], rows[1]

    def _observed(self) -> Array:
        """(n,) response, a proportion where it counts successes."""
        d = self.rows_of_data()
        counts = d.trials is not None and self.family.name != "ordinal"
        return np.asarray(d.y / d.trials if counts and d.trials is not None else d.y)

    def fitted(self, kind: str = "response") -> Array:
        """(n_input,) conditional means of the response, or linear predictors (kind "link"); NaN where a row was left out."""
        if kind not in ("response", "link"):
            raise OptionError(f"kind {kind!r} is not known; allowed are 'response', 'link'")
        eta = self._eta[1]
        return self._aligned(eta if kind == "link" else self._mean(eta, *self._parameters))

    def _mean(self, eta: Array, first: Array, second: Array) -> Array:
        if self.family.name == "ordinal":
            refuse("the mean of an ordinal response", "use probabilities()")
        return self.family.expected(eta, first, second)

    def probabilities(self, new: Any = None) -> Any:
        """Probability of each category of an ordinal response, conditional on the group effects; a column per category.

        At the rows fitted, or at new ones: ``probabilities(new)`` is ``predict(new)``, which has intervals too.
        """
        if self.family.name != "ordinal":
            raise OptionError(
                f"probabilities() are of categories, which family {self.family.name!r} does not have; use fitted()"
            )
        if new is not None:
            return self.predict(new)
        steps = self.categories_at(self._eta[1])
        labels = self.rows_of_data().labels
        return self._frame({label: self._aligned(steps[:, i]) for i, label in enumerate(labels)})

    def categories_at(self, eta: Array) -> Array:
        """(m, categories) probabilities of an ordinal response at linear predictors (m,)."""
        from .families import Family

        link = Family("binomial", self.family.link)
        upper = [link.mean(t - eta) for t in self._optimum.residual]
        return np.diff(np.column_stack([np.zeros(len(eta)), *upper, np.ones(len(eta))]), axis=1)

    def residuals(self, kind: str = "response", seed: Any = None) -> Array:
        """(n_input,) residuals, NaN where a row was left out.

        Parameters
        ----------
        kind : {"response", "pearson", "deviance", "quantile"}
            y - mean; that divided by the sd of the response (weights included); signed root of the row's share of the
            deviance; randomised quantile residuals, standard normal under the model (Dunn & Smyth 1996).
        seed : int or Generator, optional
            Of the random part of quantile residuals.
        """
        if kind not in ("response", "pearson", "deviance", "quantile"):
            raise OptionError(
                f"kind {kind!r} is not available for family {self.family.name!r}; allowed are 'response', "
                f"'pearson', 'deviance', 'quantile'"
            )
        if kind == "quantile":
            from .generalised_residuals import quantile_residuals

            return self._aligned(quantile_residuals(self, seed))
        if kind == "deviance":
            from .generalised_deviance import deviance_residuals

            return self._aligned(deviance_residuals(self))
        d, eta = self.rows_of_data(), self._eta[1]
        first, second = self._parameters
        raw = self._observed() - self._mean(eta, first, second)
        if kind == "response":
            return self._aligned(raw)
        if not self.family.finite_variance:
            refuse(f"a Pearson residual of Student's t with df {self.family.df:.3g}, whose variance is infinite,",
                   "use 'quantile'")  # fmt: skip
        weights = 1.0 if d.weights is None else d.weights
        least = np.finfo(float).tiny  # a mean at the end of its range leaves no variance, and no residual
        return self._aligned(raw * np.sqrt(weights / np.maximum(self._variance(eta, first, second), least)))

    def augment(self) -> Any:
        """The columns the model used with .fitted (mean), .linear (predictor), .resid (y less the mean) and .pearson.

        Rows as in the data, NaN where one was left out. An ordinal response has no mean: .linear alone.
        """
        from .broom import _with_columns
        from .frame import Table
        from .storage import used_columns

        added = {".linear": self.fitted("link")}
        if self.family.name != "ordinal":
            added = {".fitted": self.fitted(), **added, ".resid": self.residuals()}
            if self.family.finite_variance:
                added[".pearson"] = self.residuals("pearson")
        data = self._model.data
        if data is None:
            return _with_columns(None, self.design.kind, (), added)
        table, used = Table(data), set(used_columns(self))
        return _with_columns(data, table.kind, [name for name in table.names if name in used], added)

    def _variance(self, eta: Array, first: Array, second: Array) -> Array:
        """Variance of the response with its extra zeros; of a proportion for counts of successes."""
        base = self.family.variance(eta, first, self.rows_of_data().trials)
        if self.family.zero == "none":
            return base
        mean, mu = self._mean(eta, first, second), self.family.mean(eta)
        return np.asarray(mean / mu * (base + mu * mu) - mean * mean)

    def _predicted(self, new: Any, options: dict[str, Any]) -> Any:
        from .generalised_predict import predict

        return predict(self, new, **options)

    def simulate(self, n: int = 1, *, groups: Any = None, seed: Any = None) -> Any:
        """New responses for the rows fitted: sim_1 ... sim_n; see `multilevel.predict.simulate`.

        Of an ordinal response they are the values of the data: numbers, or ordered categories. Of a response of two texts
        they are 0 for failure and 1 for success (`messages` say which is which), of counts among trials the successes.
        """
        from .generalised_predict import draw_responses
        from .predict import generator, group_names
        from .responses import labelled

        if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
            raise OptionError(f"n must be a positive whole number, got {n!r}")
        y = draw_responses(self, int(n), group_names(self, groups), generator(seed))
        out = np.full((n, self.design.n_input), np.nan)
        out[:, self.design.rows] = y
        ordinal = self.family.name == "ordinal"
        columns = [labelled(self.design, self._model.data, one) for one in out] if ordinal else list(out)
        return like(self.design.kind, {f"sim_{i + 1}": column for i, column in enumerate(columns)})

    def refit(self, y: Any, *, threads: int | None = None) -> Any:
        """Fit the same model to another response.

        Parameters
        ----------
        y : (n_input,) column, array or list
            What `simulate` draws, or values such as the model's own: successes of each row's trials (with a response of
            proportions those too), categories by name or by their numbers from 0, else the response itself. Rows that the
            model left out may hold anything.
        threads : int, optional

        Raises
        ------
        DataError
            For the wrong number of values, and one that the family cannot have, with its row; where a response has no fit
            (all alike, or a category missing).
        """
        from dataclasses import replace

        from .generalised_response import new_response

        design = replace(self.rows_of_data(), y=new_response(self, y))
        return self._model.with_design(design).fit(threads=threads)

    def condition(self, rows: Any, *, weights: Any = None, offset: Any = None) -> LinkConditioned:
        """Update the group effects with new rows, without refitting; see `Fit.condition`.

        The parameters stay as fitted; effects are at their mode given the old and the new rows, their errors from the
        curvature there (with ``quadrature`` too). New groups get effects of their own. Weights are those of the new rows
        where the model has some (of proportions their trials).

        Raises
        ------
        DataError
            Where a value is missing or impossible in the new rows; for a fit saved without its rows, whose likelihood the
            update needs.
        OptionError
            Where levels have a known covariance.
        """
        from .generalised_condition import condition

        return condition(self, rows, weights=weights, offset=offset)

    def marginaleffects_model(self, kind: str = "response") -> Any:
        """This fit as a model of the package marginaleffects: ``avg_slopes(fit.marginaleffects_model())``.

        Parameters
        ----------
        kind : {"response", "link"}
            Predictions are means of the response at group effects of zero (of an ordinal response probabilities of the
            categories), with the uncertainty of dispersion, extra zeros and thresholds; or linear predictors.
        """
        from .generalised_marginaleffects import as_model

        return as_model(self, kind)

    # -- checks and shares ---------------------------------------------------------------------------------

    def check(self) -> Checks:
        """Checks of the model's assumptions, each with a verdict and a plain sentence.

        Convergence, singularity, over- and underdispersion, number of zeros, shape, outliers, bend and spread of the
        quantile residuals, shape and outliers of the random effects, separation, collinearity, number of groups, missing
        rows. `multilevel.generalised_checks` says how each verdict is reached.
        """
        from .generalised_checks import check

        return check(self)

    def icc(
        self,
        by_group: bool = False,
        level: float = 0.95,
        interval: str | None = None,
        n: int = 200,
        seed: Any = 0,
        progress: bool | None = None,
        scale: str = "link",
    ) -> Any:
        """Intraclass correlations on the scale of the link (Nakagawa, Johnson & Schielzeth 2017) or of the response.

        On the scale of the link as for a linear model, with the variance of the distribution in place of sigma squared:
        pi^2/3 (logit), 1 (probit), pi^2/6 (cloglog), ``log(1 + Var(y) / E(y)^2)`` (log link, at the mean of the model without
        predictors), ``trigamma(shape)`` (gamma with log link: the variance of log y). A random intercept with a level for
        every row is overdispersion and counts to that variance.

        On the scale of the response the variance of y itself is split: between groups lies that of E(y | group), averaged
        over the fixed predictors of the rows (Goldstein, Browne & Rasbash 2002; R's QGglmm). A binomial response counts as
        one trial. With several groups, `by_group` has the variance of the mean given one factor alone; the mean being
        curved, these need not add up to the whole.

        Parameters
        ----------
        by_group : bool
            The share of each grouping factor instead of their sum.
        level : float
        interval : {None, "bootstrap"}
            Percentile limits of a parametric bootstrap; every one of its n refits is a search of its own.
        n, seed, progress
            Of the bootstrap.
        scale : {"link", "response"}

        Returns
        -------
        frame
            kind ("adjusted", "conditional"), estimate and, with an interval, conf_low, conf_high; `by_group` adds group.

        Raises
        ------
        OptionError
            Without random effects; for families and links without such a variance (scale="response" is for all but
            ordinal).
        DataError
            For a fit saved without its rows.
        """
        from .generalised_shares import icc

        return icc(self, by_group, level, interval, n, seed, progress, scale)

    def r2(
        self,
        level: float = 0.95,
        interval: str | None = None,
        n: int = 200,
        seed: Any = 0,
        progress: bool | None = None,
        scale: str = "link",
    ) -> Any:
        """Marginal and conditional R squared; scales, variances and parameters as for `icc`.

        Returns
        -------
        frame
            kind ("marginal", "conditional"), estimate and, with an interval, conf_low, conf_high.
        """
        from .generalised_shares import r2

        return r2(self, level, interval, n, seed, progress, scale)

    def influence(
        self,
        group: str | None = None,
        *,
        refit: bool = False,
        variances: bool | None = None,
        progress: bool | None = None,
    ) -> Any:
        """What changes when a row, or all rows of a group, are left out; without refitting.

        Parameters as for a linear model (`Fit.influence`). Rows: one step in the working linear model with covariances and
        weights held. Groups: two Newton steps of the likelihood without the group, in all parameters;
        `multilevel.generalised_influence` says how far they are from refits.

        Returns
        -------
        frame
            By row: leverage, std_residual (Pearson residual over its sd), cooks and dffits, all with the expected weights
            that lme4 takes; cooks_fixed and dfbetas_* (one step with the curvature at the data). Of an ordinal response,
            which has no Pearson residual, all are with that curvature.
            By group: level, rows, cooks, dfbetas_*; sd(...), cor(...) and the coefficients of `extra` without the group
            (not with variances=False, the working linear model for groups too, which is quicker and less exact).
        """
        from .influence import influence

        return influence(self, group, refit, variances, progress)

    @property
    def plot(self) -> LinkPlots:
        """Plots, as ``fit.plot.check()``; see `multilevel.generalised_plots.LinkPlots`."""
        from .generalised_plots import LinkPlots

        return LinkPlots(self)

    # -- text ---------------------------------------------------------------------------------------------

    def summary(self, ddf: str = "none") -> str:
        """The printed model, as text."""
        from .generalised_tables import summary_blocks
        from .tables import text_of

        return text_of(summary_blocks(self))

    def _repr_html_(self) -> str:
        from .generalised_tables import summary_blocks
        from .tables import html_of

        return html_of(summary_blocks(self))

    def to_latex(self) -> str:
        """The summary's tables for LaTeX (booktabs)."""
        from .generalised_tables import summary_blocks
        from .tables import latex_of

        return latex_of(summary_blocks(self))
