"""Posterior: what draws of a model can do. Methods orchestrate; functions in the other modules compute."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from .errors import DataError, OptionError
from .frame import like
from .posterior_check_verbs import PosteriorCheckVerbs
from .posterior_verbs import PosteriorVerbs

if TYPE_CHECKING:
    from .design import Design
    from .draws import Draws
    from .loo import Loo
    from .model import Model
    from .posterior_plots import PosteriorPlots
    from .prior_table import Entry

Array = NDArray[np.float64]


class Posterior(PosteriorVerbs, PosteriorCheckVerbs):
    """Draws from the posterior of a model. Immutable; frames come back in the library of the data.

    Made by `Model.sample`. Estimates are posterior means, `est_error` posterior standard deviations, `ci_low` and `ci_high`
    quantiles; all on the user's scale.
    """

    def __init__(self, model: Model, draws: Draws, entries: list[Entry]) -> None:
        object.__setattr__(self, "_model", model)
        object.__setattr__(self, "_draws", draws)
        object.__setattr__(self, "_entries", entries)

    _model: Model
    _draws: Draws
    _entries: list[Entry]

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a Posterior does not change; to sample differently, make another (tried to set {name!r})")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Posterior does not change (tried to delete {name!r})")

    # -- what it was made of ------------------------------------------------------------------------------

    @property
    def model(self) -> Model:
        """The model that was sampled."""
        return self._model

    @property
    def design(self) -> Design:
        """Matrices and levels."""
        return self._model.design

    @property
    def formula(self) -> str:
        """The formula as typed."""
        return self._model.formula.text

    @property
    def entries(self) -> list[Entry]:
        """Priors of all parameters."""
        return self._entries

    @property
    def draws_kept(self) -> Draws:
        """Draws as arrays (chains, draws, ...), with what the sampler says."""
        return self._draws

    @property
    def nobs(self) -> int:
        """Rows used."""
        return len(self.design.rows)

    def rows_of_data(self) -> Any:
        """The design with its rows.

        Raises
        ------
        DataError
            For a posterior read from a file without its rows.
        """
        if self.design.y is None:
            raise DataError("this posterior was saved without its data, which this needs; save it with save(path, data=True)")
        return self.design

    def _frame(self, columns: dict[str, Any]) -> Any:
        return like(self.design.kind, columns)

    @cached_property
    def trust(self) -> tuple[bool, str]:
        """Whether the draws may be trusted, and a sentence that says why."""
        from .posterior_tables import verdict

        return verdict(self)

    @cached_property
    def mean_beta(self) -> Array:
        """(p,) posterior means of the coefficients."""
        return np.asarray(self._draws.beta.mean(axis=(0, 1)))

    def mean_b(self, t: int) -> Array:
        """(J, k) posterior means of one term's group effects."""
        return np.asarray(self.group_effects(t).mean(axis=(0, 1)))

    def group_effects(self, t: int) -> Array:
        """(chains, draws, J, k) group effects of one term.

        Raises
        ------
        OptionError
            If they were not kept.
        """
        from .posterior_predict import need_effects

        need_effects(self)
        return self._draws.b[t]

    def covariances(self, t: int) -> Array:
        """(chains, draws, k, k) covariance of one term's effects."""
        term = self.design.terms[t]
        return self._draws.covariances(t, term.structure, len(term.names))

    # -- tables ---------------------------------------------------------------------------------------------

    def fixef(self, level: float = 0.95) -> Any:
        """Coefficients.

        Returns
        -------
        frame
            term, estimate (posterior mean), est_error (posterior sd), ci_low, ci_high (quantiles), rhat, ess_bulk, ess_tail.
        """
        from .inference import check_level
        from .posterior_tables import fixef

        check_level(level)
        return self._frame(fixef(self, level))

    def parameters(self, level: float = 0.95) -> Any:
        """Standard deviations, correlations and sigma: parameter, then the columns of `fixef`; NaN for held ones."""
        from .inference import check_level
        from .posterior_tables import parameters

        check_level(level)
        return self._frame(parameters(self, level))

    def ranef(self, level: float = 0.95, *, condvar: bool = True) -> Any:
        """Group effects: group, level, term, estimate and, with `condvar`, est_error, ci_low, ci_high."""
        from .inference import check_level
        from .model import check_flag
        from .posterior_tables import ranef

        check_level(level)
        check_flag("condvar", condvar)
        found = ranef(self, level)
        return self._frame({n: v for n, v in found.items() if condvar or n not in ("est_error", "ci_low", "ci_high")})

    def coef(self, level: float = 0.95) -> Any:
        """Coefficients of each group, fixed plus group effect: columns of `ranef`."""
        from .inference import check_level
        from .posterior_tables import coef

        check_level(level)
        return self._frame(coef(self, level))

    def varcorr(self) -> Any:
        """Posterior means of variances and covariances of the group effects and the residual, as `Fit.varcorr`.

        Returns
        -------
        frame
            group, term1, term2, vcov (mean of the variance or covariance), sdcor (mean of the sd or correlation).
        """
        rows: list[tuple[Any, ...]] = []
        for t, term in enumerate(self.design.terms):
            cov = self.covariances(t)
            sd = np.sqrt(np.einsum("...ii->...i", cov))
            for i, name in enumerate(term.names):
                rows.append((term.group, name, None, cov[..., i, i].mean(), sd[..., i].mean()))
            if term.structure in ("diag", "homdiag"):
                continue
            for j in range(len(term.names)):
                for i in range(j + 1, len(term.names)):
                    r = cov[..., i, j] / (sd[..., i] * sd[..., j])
                    rows.append((term.group, term.names[j], term.names[i], cov[..., i, j].mean(), r.mean()))
        sigma = self._draws.scalar("sigma")
        if sigma is not None:
            rows.append(("Residual", None, None, (sigma**2).mean(), sigma.mean()))
        names = ("group", "term1", "term2", "vcov", "sdcor")
        types = (object, object, object, float, float)
        return self._frame({n: np.array([r[i] for r in rows], dtype=types[i]) for i, n in enumerate(names)})

    def vcov(self) -> Array:
        """(p, p) posterior covariance of the coefficients."""
        flat = self._draws.beta.reshape(-1, self._draws.beta.shape[2])
        return np.atleast_2d(np.cov(flat, rowvar=False))

    @property
    def sigma(self) -> float:
        """Posterior mean of the residual standard deviation."""
        found = self._draws.scalar("sigma")
        return float("nan") if found is None else float(found.mean())

    @property
    def npar(self) -> int:
        """Parameters sampled: coefficients, sds, correlations, sigma and what else the family or the residuals have.

        Those that a prior holds at a value (`Fixed`) are not counted.
        """
        from .priors import Fixed

        free = [e for e in self._entries if not isinstance(e.prior, Fixed)]
        whole = {e.term for e in free if e.kind == "cor"}  # one entry of all correlations of a term
        correlations = sum(c.kind == "cor" and c.term in whole for c in self._draws.coordinates)
        return sum(e.kind != "cor" for e in free) + correlations

    @property
    def loglik(self) -> NoReturn:
        """Refused, for a posterior has no maximum: an OptionError that says what compares posteriors."""
        _no_maximum("loglik")

    @property
    def deviance(self) -> NoReturn:
        """Refused; see `loglik`."""
        _no_maximum("deviance")

    @property
    def aic(self) -> NoReturn:
        """Refused; see `loglik`."""
        _no_maximum("aic")

    @property
    def aicc(self) -> NoReturn:
        """Refused; see `loglik`."""
        _no_maximum("aicc")

    @property
    def bic(self) -> NoReturn:
        """Refused; see `loglik`."""
        _no_maximum("bic")

    def prior_summary(self) -> Any:
        """Priors of all parameters: parameter, prior, source ("user" or "default")."""
        from .prior_table import summary_of

        return summary_of(self._entries, self.design.kind)

    def summary(self, level: float = 0.95) -> str:
        """The printed posterior, as text."""
        from .inference import check_level
        from .posterior_tables import summary_blocks
        from .tables import text_of

        check_level(level)
        return text_of(summary_blocks(self, level))

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        return f"<Posterior {self.formula!r}, {self._draws.chains} x {self._draws.draws} draws: {self.trust[1]}>"

    def _repr_html_(self) -> str:
        from .posterior_tables import summary_blocks
        from .tables import html_of

        return html_of(summary_blocks(self))

    def to_latex(self) -> str:
        """The summary's tables for LaTeX (booktabs)."""
        from .posterior_tables import summary_blocks
        from .tables import latex_of

        return latex_of(summary_blocks(self))

    @property
    def plot(self) -> PosteriorPlots:
        """Plots: ``posterior.plot.trace()``, ``.forest()``, ``.groups()``, ``.predictive()``, ``.prior()``, ``.pair()``,
        ``.caterpillar()``, ``.effects()``, ``.check()``, ``.residuals()``, ``.shrinkage()``.
        """
        from .posterior_plots import PosteriorPlots

        return PosteriorPlots(self)

    # -- predictions ----------------------------------------------------------------------------------------

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
        """Predict rows from the posterior.

        Parameters
        ----------
        new, groups, offset
            As for a fit (`multilevel.predict.predict`).
        kind : {"response", "link"}
            Of the response (see below), or of the linear predictor.
        new_levels : {"error", "population", "sample"}
            What becomes of groups that were not fitted. "population": the prediction is of a typical group, its effects
            zero, and intervals carry the variance of a new one. "sample": effects of a new group are drawn with each draw
            of the parameters, shared by its rows, and the prediction is the mean over them too: that of a group of which
            nothing is known. Missing groups, and those left out where there is a prediction interval, go the same way.
        interval : None, "confidence" or "prediction"
            Quantiles of the mean in that group, or of a new observation. They carry the whole uncertainty of the model. The
            prediction is the same with and without.
        marginal : bool
            Mean over all groups in place of a typical one. Families other than the gaussian have it of the response and
            without an interval alone.
        seed : int or Generator, optional
            Of groups and responses drawn. Default: other ones each time.

        Returns
        -------
        frame
            prediction (posterior mean) and, with an interval, est_error, ci_low, ci_high; as many rows as given, NaN where
            a row misses a value. Proportions, of counts of successes; their prediction intervals are of the rows' trials
            (one where new rows do not say). Of an ordinal response a column for each category, with a confidence interval
            also ``_low`` and ``_high``, with a prediction interval ci_low and ci_high, the ends of the central categories.
        """
        from .posterior_predict import predict

        return predict(self, new, groups, kind, new_levels, interval, level, marginal, offset, seed)

    def simulate(self, n: int = 1, *, groups: Any = "all", seed: Any = None) -> Any:
        """New responses for the rows fitted (posterior predictive draws): sim_1 ... sim_n; each from a draw of its own.

        Groups named keep their drawn effects, as in brms; others get new ones. Of an ordinal response they are the values of
        the data: numbers, or ordered categories. Of a response of two texts they are 0 for failure and 1 for success, of
        counts among trials the successes. Without a `seed` they are others each time.
        """
        from .posterior_predict import simulate
        from .predict import generator
        from .prior_draws import simulated
        from .sample import check_count

        y = simulate(self, check_count("n", n, 1), groups, generator(seed))
        return self._frame(simulated(self._model, y))

    def prior_predictive(self, n: int = 100, seed: int | None = None) -> Any:
        """Responses drawn from the priors alone; see `Model.prior_predictive`."""
        return self._model.prior_predictive(n, seed)

    def fitted(self) -> Array:
        """(n_input,) posterior means of the expected responses; NaN where a row was left out."""
        if self._model.family == "ordinal":
            raise OptionError("categories have no expectation, for they are no numbers; predict() gives their probabilities")
        return np.asarray(self.predict()["prediction"], dtype=np.float64)

    # -- comparison and hypotheses ---------------------------------------------------------------------------

    def log_likelihood(self) -> Array:
        """(chains, draws, rows used) log density of each response given the group effects."""
        from .row_draws import log_likelihood

        return log_likelihood(self)

    def loo(self, progress: bool | None = None) -> Loo:
        """Leave-one-out cross-validation by Pareto-smoothed importance sampling, some rows at a time.

        Parameters
        ----------
        progress : bool, optional
            Default: a bar after two seconds, on a terminal.
        """
        from .loo import loo_of

        return loo_of(self, progress)

    def hypothesis(self, text: str, level: float = 0.95) -> Any:
        """Posterior of a statement about coefficients, sds and correlations: ``"homework > 0"``, ``"a - b = 0"``.

        Returns
        -------
        frame
            hypothesis, estimate, est_error, ci_low, ci_high of left side less right side, and probability (of the
            inequality; NaN for an equality).
        """
        from .posterior_hypothesis import hypothesis

        return hypothesis(self, text, level)

    # -- hand-overs ------------------------------------------------------------------------------------------

    @cached_property
    def draws(self) -> Any:
        """The draws as an xarray DataTree, which ArviZ takes: `to_arviz` with its defaults, made once."""
        return self.to_arviz()

    def to_arviz(
        self, *, log_likelihood: bool | None = None, posterior_predictive: bool | None = None, seed: Any = 0
    ) -> Any:
        """Draws as an xarray DataTree for ArviZ (``az.summary``, ``az.plot_trace``, ``az.loo``).

        Parameters
        ----------
        log_likelihood : bool, optional
            Whether it holds the log density of each response; default: unless that takes more than half a gigabyte.
        posterior_predictive : bool, optional
            Whether it holds a new response for each row from each draw, the groups keeping their effects; default: by the
            same rule. Of an ordinal response these, and those observed, are numbers of categories from zero.
        seed : int or Generator
            For these. Default 0: the same each time.

        Returns
        -------
        xarray.DataTree
            Groups posterior, sample_stats (of the no-U-turn sampler), log_likelihood, posterior_predictive, observed_data,
            constant_data. Variables have the names of the tables; ``ranef(g)`` has the dimensions g (levels) and g_effect.

        Raises
        ------
        OptionError
            Without xarray: ``pip install 'multilevel[bayes]'``.
        """
        from .arviz_tree import to_arviz

        return to_arviz(self, log_likelihood, posterior_predictive, seed)

    def to_dict(self) -> dict[str, Array]:
        """Draws by name, (chains, draws, ...) arrays: coefficients, sds, correlations, sigma, ``ranef(g)``."""
        from .arviz_tree import to_dict

        return to_dict(self)

    def to_frame(self, effects: bool = True) -> Any:
        """A row for each draw: chain, draw, the parameters and, unless effects=False, ``ranef(g, level, effect)``."""
        from .arviz_tree import to_frame

        return to_frame(self, effects)


def _no_maximum(name: str) -> NoReturn:
    raise NoCriterion(
        f"a posterior has no {name}, which is of a maximum of the likelihood; posteriors are compared by loo(), and "
        f"model.fit().{name} is that of the fit"
    )


class NoCriterion(OptionError, AttributeError):
    """Of criteria of fits; an AttributeError too, so that ``hasattr`` answers."""
