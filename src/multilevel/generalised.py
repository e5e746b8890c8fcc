"""Fit of a generalised model: what differs from a Gaussian one.

Estimates are by maximum likelihood with Laplace's approximation; tests use the normal distribution. `fitted` and
predictions are means of the response (of a proportion, where it counts successes), the linear predictor with
``kind="link"``.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from .errors import DataError, OptionError
from .fit import Fit
from .frame import like

if TYPE_CHECKING:
    from .families import Family
    from .laplace import Coefficients

Array = NDArray[np.float64]

NODES = 41  # of Gauss-Hermite quadrature over a normal linear predictor: exact to rounding for sds up to about three


class GeneralisedFit(Fit):
    """A fitted generalised linear mixed model."""

    generalised = True

    # -- what it was made of ------------------------------------------------------------------------------

    @property
    def family(self) -> Family:
        """Distribution and link."""
        family = self._model.distribution
        assert family is not None
        return family

    @property
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

    # -- per row ------------------------------------------------------------------------------------------

    @cached_property
    def _parameters(self) -> tuple[Array, Array]:
        """(n,) further parameters of each row used, zero where the family has none."""
        engine = self._model.laplace().coefficients
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

    def probabilities(self) -> Any:
        """Probability of each category of an ordinal response, conditional on the group effects; a column per category."""
        if self.family.name != "ordinal":
            raise OptionError(
                f"probabilities() are of categories, which family {self.family.name!r} does not have; use fitted()"
            )
        from .families import Family

        link = Family("binomial", self.family.link)
        d, eta = self.rows_of_data(), self._eta[1]
        upper = [link.mean(t - eta) for t in self._optimum.residual]
        steps = np.diff(np.column_stack([np.zeros(len(eta)), *upper, np.ones(len(eta))]), axis=1)
        return self._frame({label: self._aligned(steps[:, i]) for i, label in enumerate(d.labels)})

    def residuals(self, kind: str = "response", seed: Any = None) -> Array:
        """(n_input,) residuals, NaN where a row was left out.

        Parameters
        ----------
        kind : {"response", "pearson", "deviance"}
            y - mean; that divided by the family's sd; signed root of the row's share of the deviance.
        """
        if kind not in ("response", "pearson", "deviance"):
            raise OptionError(
                f"kind {kind!r} is not available for family {self.family.name!r}; allowed are 'response', "
                f"'pearson', 'deviance'"
            )
        d, eta = self.rows_of_data(), self._eta[1]
        first, second = self._parameters
        raw = self._observed() - self._mean(eta, first, second)
        if kind == "response":
            return self._aligned(raw)
        weights = 1.0 if d.weights is None else d.weights
        if kind == "pearson":
            return self._aligned(raw * np.sqrt(weights / self.family.variance(eta, first, d.trials)))
        return self._aligned(np.sign(raw) * np.sqrt(np.maximum(weights * self._row_deviance(eta, first), 0)))

    def _row_deviance(self, eta: Array, first: Array) -> Array:
        from scipy.special import xlogy

        d, mu = self.rows_of_data(), self.family.mean(eta)
        y = d.y
        if self.family.zero != "none":
            refuse("the deviance of a model with extra zeros", "use 'pearson'")
        if self.family.name == "poisson":
            return np.asarray(2 * (xlogy(y, y / mu) - (y - mu)))
        if self.family.name == "binomial":
            m = np.ones(len(y)) if d.trials is None else d.trials
            return np.asarray(2 * (xlogy(y, y / (m * mu)) + xlogy(m - y, (m - y) / (m - m * mu))))
        if self.family.name == "gamma":
            return np.asarray(2 * ((y - mu) / mu - np.log(y / mu)))
        if self.family.name == "inverse_gaussian":
            return np.asarray((y - mu) ** 2 / (mu**2 * y))
        if self.family.name == "nbinom2":
            size = np.exp(first)
            return np.asarray(2 * (xlogy(y, y / mu) - (y + size) * np.log((y + size) / (mu + size))))
        refuse(f"the deviance of family {self.family.name!r}", "use 'pearson'")

    def predict(
        self,
        new: Any = None,
        *,
        groups: Any = "all",
        kind: str = "response",
        new_levels: str = "error",
        interval: str | None = None,
        level: float = 0.95,
        marginal: bool = False,
        offset: Any = None,
        seed: Any = None,
    ) -> Any:
        """Predictions: means of the response, or linear predictors; see `multilevel.generalised_predict.predict`."""
        from .generalised_predict import predict

        return predict(self, new, groups, kind, new_levels, interval, level, marginal, offset, seed)

    def simulate(self, n: int = 1, *, groups: Any = None, seed: Any = None) -> Any:
        """New responses for the rows fitted: sim_1 ... sim_n; see `multilevel.predict.simulate`."""
        from .generalised_predict import draw_responses
        from .predict import generator, group_names

        if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
            raise OptionError(f"n must be a positive whole number, got {n!r}")
        y = draw_responses(self, int(n), group_names(self, groups), generator(seed))
        out = np.full((n, self.design.n_input), np.nan)
        out[:, self.design.rows] = y
        return like(self.design.kind, {f"sim_{i + 1}": column for i, column in enumerate(out)})

    def refit(self, y: Any, *, threads: int | None = None) -> Any:
        """Fit the same model to another response: (n_input,) values as the family takes them."""
        from dataclasses import replace

        values = np.asarray(y, dtype=np.float64)
        d = self.rows_of_data()
        if values.shape != (d.n_input,) or not np.isfinite(values[d.rows]).all():
            raise DataError(f"the new response must hold a finite number for each of the {d.n_input} rows of the data")
        return self._model.with_design(replace(d, y=values[d.rows])).fit(threads=threads)

    # -- what is not there yet ----------------------------------------------------------------------------

    def _gaussian_only(self, *_: Any, **__: Any) -> NoReturn:
        refuse("this verb", "compare models by AIC and likelihood-ratio tests")

    ranova = drop1 = profile = bootstrap = influence = condition = check = singularity = icc = r2 = _gaussian_only
    means = contrasts = slopes = marginaleffects_model = save = augment = _gaussian_only

    def confint(self, level: float = 0.95, method: str = "wald", *args: Any, **options: Any) -> Any:
        """Wald intervals of the fixed effects."""
        if method != "wald":
            raise OptionError(
                f"method {method!r} is available for the gaussian family only in this version; allowed is 'wald'"
            )
        table = self.fixef_columns(level, "none")
        return self._frame({name: table[name] for name in ("term", "estimate", "conf_low", "conf_high")})

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


def refuse(what: str, instead: str) -> NoReturn:
    """Say that something is not there for generalised models."""
    raise OptionError(f"{what} is not available for generalised models in this version; {instead}")
