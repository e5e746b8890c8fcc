"""Fit: what a fitted model can do. Methods orchestrate; functions in the other modules compute."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import inference
from .errors import DataError, OptionError
from .frame import like
from .inference import check_level
from .statsmodels_names import StatsmodelsNames
from .verbs_checks import CheckVerbs
from .verbs_intervals import IntervalVerbs
from .verbs_means import MeanVerbs
from .verbs_tests import TestVerbs

if TYPE_CHECKING:
    from os import PathLike

    from .design import Design
    from .diagnostics import Convergence
    from .kenward_roger import Adjustment
    from .model import Model
    from .optimise import Curvature
    from .plots import FitPlots
    from .reml import Engine, Optimum

Array = NDArray[np.float64]


class Fit(TestVerbs, MeanVerbs, IntervalVerbs, CheckVerbs, StatsmodelsNames):
    """A fitted linear mixed model. Immutable; frames come back in the library of the data.

    Made by `Model.fit`, `lmer` or `read`. Estimates are on the user's scale; `sigma` and every "sd" are standard
    deviations, `vcov` a covariance, `loglik` a log-likelihood and `criterion` minus twice it.
    """

    def __init__(self, model: Model, optimum: Optimum, engine: Engine) -> None:
        object.__setattr__(self, "_model", model)
        object.__setattr__(self, "_optimum", optimum)
        object.__setattr__(self, "_engine", engine)

    generalised = False  # whether the response is other than Gaussian: tests then use the normal distribution

    _model: Model
    _optimum: Optimum
    _engine: Engine

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a Fit does not change; to fit differently, make another (tried to set {name!r})")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Fit does not change (tried to delete {name!r})")

    # -- what it was made of ------------------------------------------------------------------------------

    @property
    def model(self) -> Model:
        """The model that was fitted."""
        return self._model

    @property
    def design(self) -> Design:
        """Matrices and levels."""
        return self._model.design

    @property
    def optimum(self) -> Optimum:
        """Numbers of the optimum with the evidence for it."""
        return self._optimum

    @property
    def engine(self) -> Engine:
        """Cross-products and factorisation."""
        return self._engine

    @property
    def formula(self) -> str:
        """The formula as typed."""
        return self._model.formula.text

    @property
    def reml(self) -> bool:
        """True if fitted by REML, False if by maximum likelihood."""
        return self._optimum.reml

    @property
    def messages(self) -> tuple[str, ...]:
        """Sentences about rows and columns left out, and about the optimum where it is singular or not certain."""
        from .diagnostics import fit_messages

        return fit_messages(self)

    # -- scalars ------------------------------------------------------------------------------------------

    @property
    def sigma(self) -> float:
        """Residual standard deviation (of an observation with weight one)."""
        return self._optimum.sigma

    @property
    def theta(self) -> Array:
        """Covariance parameters: entries of each term's relative Cholesky factor, as in lme4."""
        return self._optimum.theta.copy()

    @property
    def nobs(self) -> int:
        """Rows used."""
        return self._engine.blocks.n

    @property
    def npar(self) -> int:
        """Estimated parameters: fixed effects, covariance parameters, those of the residuals' structure, residual sd."""
        return len(self._optimum.beta) + len(self._optimum.theta) + len(self._optimum.residual) + 1

    @property
    def criterion(self) -> float:
        """-2 log-likelihood: the REML criterion, or the ML deviance."""
        return self._optimum.criterion

    @property
    def criterion_name(self) -> str:
        """ "REML" or "ML": what loglik, aic, aicc and bic are of."""
        return "REML" if self.reml else "ML"

    @property
    def deviance(self) -> float:
        """-2 log-likelihood of the criterion used (see `criterion_name`)."""
        return self._optimum.criterion

    @property
    def loglik(self) -> float:
        """Log-likelihood (restricted if fitted by REML)."""
        return -self._optimum.criterion / 2

    @property
    def aic(self) -> float:
        """Akaike's criterion on the criterion used; REML values compare only models with the same fixed effects."""
        return self.criterion + 2 * self.npar

    @property
    def aicc(self) -> float:
        """AIC with the small-sample term, n = rows; infinite where rows do not exceed parameters plus one."""
        k, n = self.npar, self.nobs
        return self.aic + 2 * k * (k + 1) / (n - k - 1) if n > k + 1 else float("inf")

    @property
    def bic(self) -> float:
        """Schwarz's criterion on the criterion used, n = rows (as lme4)."""
        return float(self.criterion + np.log(self.nobs) * self.npar)

    @property
    def df_residual(self) -> int:
        """Rows minus parameters."""
        return self.nobs - self.npar

    @property
    def is_singular(self) -> bool:
        """Whether a variance is zero or a correlation exactly one in absolute value."""
        from .diagnostics import boundary_components

        return bool(boundary_components(self))

    @property
    def convergence(self) -> Convergence:
        """Report: verdict in a sentence, gradient, boundary components, curvature, evaluations."""
        from .diagnostics import convergence

        return convergence(self)

    # -- tables -------------------------------------------------------------------------------------------

    @cached_property
    def curvature(self) -> Curvature:
        """Second-order facts at the optimum, which Satterthwaite's degrees of freedom need."""
        return self._engine.curvature(self._optimum)

    @cached_property
    def _fixed_df(self) -> Array:
        return self._estimates("satterthwaite")[2]

    def _estimates(self, ddf: str) -> tuple[Array, Array, Array]:
        """Estimate, standard error and df of each coefficient; kept, for printing asks for them again."""
        if ddf not in self._known_estimates:
            self._known_estimates[ddf] = inference.estimates(self, np.eye(len(self._optimum.beta)), ddf)
        return self._known_estimates[ddf]

    @cached_property
    def _known_estimates(self) -> dict[str, tuple[Array, Array, Array]]:
        return {}

    @cached_property
    def kenward_roger(self) -> Adjustment:
        """Kenward and Roger's adjustment of the fixed effects' covariance, made once."""
        from .kenward_roger import adjustment

        return adjustment(self)

    def _frame(self, columns: dict[str, Any]) -> Any:
        return like(self.design.kind, columns)

    def _full(self, values: Array) -> Array:
        """Per estimated column -> per column of the full model matrix, NaN for dropped ones."""
        position = {name: i for i, name in enumerate(self.design.names)}
        return np.array([values[position[name]] if name in position else np.nan for name in self.design.all_names])

    def fixef(self, level: float = 0.95, ddf: str = "satterthwaite") -> Any:
        """Fixed effects.

        Parameters
        ----------
        level : float
            Coverage of the interval.
        ddf : {"satterthwaite", "kenward-roger", "none"}
            Degrees of freedom; Kenward and Roger's come with their standard errors; "none" uses the normal distribution.

        Returns
        -------
        frame
            term, estimate, std_error, statistic, df, p_value, conf_low, conf_high; columns dropped for rank are NaN rows.
        """
        return self._frame(self.fixef_columns(level, ddf))

    def fixef_columns(self, level: float = 0.95, ddf: str = "satterthwaite") -> dict[str, Any]:
        """The columns of `fixef` as arrays."""
        check_level(level)
        estimate, std_error, df = self._estimates(ddf)
        table = inference.t_table(estimate, std_error, df, level)
        columns = {
            "estimate": estimate,
            "std_error": std_error,
            "statistic": table["statistic"],
            "df": df,
            "p_value": table["p_value"],
            "conf_low": table["conf_low"],
            "conf_high": table["conf_high"],
        }
        return {"term": np.array(self.design.all_names, dtype=object), **{n: self._full(v) for n, v in columns.items()}}

    def ranef(self, condvar: bool = True) -> Any:
        """Conditional modes of the random effects (BLUPs).

        Returns
        -------
        frame
            group, level, term, estimate and, with `condvar`, std_error: the conditional sd given the estimated fixed
            effects and covariances (lme4's condVar).
        """
        from .effects import ranef

        return self._frame(ranef(self, condvar))

    def conditional_cov(self) -> tuple[Array, ...]:
        """Per term (J, k, k): conditional covariance of each level's effects (lme4's condVar)."""
        return self._conditional_cov

    @cached_property
    def _conditional_cov(self) -> tuple[Array, ...]:
        return self._engine.conditional_cov(self._optimum)

    def coef(self) -> Any:
        """Per level: fixed plus random effect of every coefficient that varies.

        Returns
        -------
        frame
            group, level, term, value. A term without a fixed effect has the random one alone.
        """
        from .effects import coef

        return self._frame(coef(self))

    def varcorr(self) -> Any:
        """Variances and covariances of the random effects and the residual.

        Returns
        -------
        frame
            group, term1, term2, vcov, sdcor: a variance and its sd where term2 is missing, a covariance and its
            correlation (NaN where an sd is zero) otherwise.
        """
        from .effects import varcorr

        return self._frame(varcorr(self))

    def random_cov(self) -> tuple[Array, ...]:
        """Per term, the (k, k) covariance matrix of its random effects."""
        return tuple(self.sigma**2 * (m @ m.T) for m in self._optimum.lambdas)

    def residual_structure(self) -> Any:
        """Parameters of the residuals' structure.

        Returns
        -------
        frame
            parameter, estimate: rho for a serial correlation (over a lag of one, or the lag that its name says), ratios
            of sds to that of the first level, exponents of variance functions. Without a structure it has no rows.
        """
        r = self._model.residual
        names = r.names() if r is not None else ()
        return self._frame({"parameter": np.array(names, dtype=object), "estimate": self._optimum.residual.copy()})

    def more_vcov(self) -> Array | None:
        """What the covariance of the fixed effects has beyond that of `engine`; None where they are the same."""
        return None

    def vcov(self) -> Array:
        """(p, p) covariance matrix of the estimated fixed effects, in the order of `design.names`."""
        return self._optimum.vcov.copy()

    def tidy(self, level: float = 0.95) -> Any:
        """broom's table: effect, group, term, estimate, std_error, statistic, df, p_value, conf_low, conf_high."""
        from .broom import tidy

        return tidy(self, level)

    def glance(self) -> Any:
        """One row: nobs, npar, sigma, loglik, aic, aicc, bic, criterion, df_residual, converged, singular."""
        from .broom import glance

        return glance(self)

    def augment(self) -> Any:
        """The columns the model used with .fitted, .fixed, .resid; rows as in the data (NaN where a row was left out)."""
        from .broom import augment

        return augment(self)

    def rows_of_data(self) -> Design:
        """The design, where the rows are still there (a fit saved without its data has none)."""
        if self.design.y is None:
            raise DataError("this fit was saved without its data, which this needs; save it with save(path, data=True)")
        return self.design

    # -- per row ------------------------------------------------------------------------------------------

    @cached_property
    def _eta(self) -> tuple[Array, Array]:
        """(population, conditional) fitted values of the rows used."""
        d = self.rows_of_data()
        fixed = d.X @ self._optimum.beta
        if d.offset is not None:
            fixed = fixed + d.offset
        total = fixed.copy()
        for term, b in zip(d.terms, self._optimum.b, strict=True):
            rows = b[term.codes]
            total += rows[:, 0] if term.Z is None else np.einsum("ij,ij->i", term.Z, rows)
        return fixed, total

    def _aligned(self, values: Array) -> Array:
        """Length of the input, NaN where a row was left out."""
        out = np.full(self.design.n_input, np.nan)
        out[self.design.rows] = values
        return out

    def fitted(self) -> Array:
        """(n_input,) conditional fitted values, NaN where a row was left out."""
        return self._aligned(self._eta[1])

    def residuals(self, kind: str = "response") -> Array:
        """(n_input,) residuals, NaN where a row was left out.

        Parameters
        ----------
        kind : {"response", "pearson", "deviance", "quantile", "normalized"}
            y - fitted; that divided by the row's sd relative to sigma (weights, variance functions; deviance), and by sigma
            as well (pearson). Normalized ones are also freed of a serial correlation, as in nlme; quantile residuals are the
            same for a Gaussian response.
        """
        from .residuals import multipliers, serial_part

        if kind not in ("response", "pearson", "deviance", "quantile", "normalized"):
            raise OptionError(
                f"kind {kind!r} is not known; allowed are 'response', 'pearson', 'deviance', 'quantile', 'normalized'"
            )
        raw = self.rows_of_data().y - self._eta[1]
        if kind == "response":
            return self._aligned(raw)
        scaled = raw / multipliers(self)
        if kind == "deviance":
            return self._aligned(scaled)
        serial = serial_part(self) if kind in ("quantile", "normalized") else None
        return self._aligned((scaled if serial is None else serial.apply(scaled)) / self.sigma)

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
        """Predictions for the rows fitted or for new ones; see `multilevel.predict.predict`."""
        options = {
            "groups": groups, "kind": kind, "new_levels": new_levels, "interval": interval, "level": level,
            "marginal": marginal, "offset": offset, "seed": seed,
        }  # fmt: skip
        return self._predicted(new, options)

    def _predicted(self, new: Any, options: dict[str, Any]) -> Any:
        from .predict import predict

        return predict(self, new, **options)

    def simulate(self, n: int = 1, *, groups: Any = None, seed: Any = None) -> Any:
        """New responses from the fitted model; see `multilevel.predict.simulate`."""
        from .predict import simulate

        return simulate(self, n, groups=groups, seed=seed)

    def refit(self, y: Any, *, threads: int | None = None) -> Any:
        """Fit the same model to another response, or to many at once.

        Parameters
        ----------
        y : (n_input,) array or (n_input, r) array or frame
            Rows as in the data given to the model.

        Returns
        -------
        Fit
            For one response.
        Refits
            For a two-dimensional y: `fixef()`, `varcorr()`, `glance()` with a row per response and term.
        """
        from .predict import refit

        return refit(self, y, threads)

    # -- in and out ---------------------------------------------------------------------------------------

    def summary(self, ddf: str = "satterthwaite") -> str:
        """The printed model, as text."""
        from .tables import summary_text

        return summary_text(self, ddf)

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        return f"<Fit {self.formula!r} by {self.criterion_name}: {self.convergence.sentence}>"

    def _repr_html_(self) -> str:
        from .tables import summary_html

        return summary_html(self)

    def to_latex(self) -> str:
        """The summary's tables for LaTeX (booktabs)."""
        from .tables import summary_latex

        return summary_latex(self)

    def save(self, path: str | PathLike[str], data: bool = False) -> None:
        """Write the fit to one small file that `multilevel.read` opens.

        Parameters
        ----------
        data : bool
            Keep the rows too, so that fitted values, residuals and refits work after reading.
        """
        from .storage import save

        save(self, path, data)

    @property
    def plot(self) -> FitPlots:
        """Plots: ``fit.plot.groups()``, ``.caterpillar()``, ``.shrinkage()``, ``.effects()``, ``.residuals()``, ``.check()``,
        ``.influence()``, ``.profile()``.
        """
        from .plots import FitPlots

        return FitPlots(self)
