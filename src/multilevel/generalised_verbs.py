"""Verbs of a generalised fit about tests, intervals and means: what differs from a linear model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, cast

from .errors import OptionError
from .fit import Fit

if TYPE_CHECKING:
    from .bootstrap import Bootstrap
    from .generalised import GeneralisedFit
    from .generalised_means import LinkMeans
    from .means import Contrasts
    from .profiles import Profile


class LinkVerbs(Fit):
    """Inherited by GeneralisedFit."""

    # -- tests ------------------------------------------------------------------------------------------------

    def anova(self, type: Any = 3, ddf: str = "none") -> Any:
        """Wald tests of the terms; see `Fit.anova`. ``statistic`` is the chi-square over num_df, den_df is infinite."""
        check_normal(ddf)
        if isinstance(type, Fit):
            raise OptionError(
                "anova() tests the terms of one fit (type 1, 2 or 3), it does not compare two. Compare their .aic, or twice "
                "the difference of their .loglik where one model lies within the other; drop1() and ranova() do that test"
            )
        return super().anova(type, "none")

    def test(
        self, hypotheses: Any, rhs: Any = None, *, joint: bool = False, ddf: str = "none", level: float = 0.95
    ) -> Any:
        """Wald tests of linear hypotheses about the fixed effects; see `Fit.test`."""
        check_normal(ddf)
        return super().test(hypotheses, rhs, joint=joint, ddf="none", level=level)

    def drop1(self, ddf: str = "none", test: str = "LRT", progress: bool | None = None) -> Any:
        """Test of leaving out each term that no other term contains (R's rule of marginality: ``a`` stays with ``a:x``).

        Parameters
        ----------
        ddf : {"none"}
            Tests use the chi-square distribution.
        test : {"LRT", "Wald"}
            "LRT" (or R's name of it, "Chisq") fits every smaller model as this one was: the same family, quadrature, offset,
            weights, dispersion and extra zeros. "Wald" is from this fit alone, the rows of `anova`.
        progress : bool, optional
            A bar on the error stream. Default: after two seconds, on a terminal.

        Returns
        -------
        frame
            For "LRT": term, npar, aic, lrt, df, p_value, the model itself first as "<none>"; npar counts all parameters of
            the smaller model. For "Wald": term, sum_sq, mean_sq, num_df, den_df, statistic, p_value.

        Raises
        ------
        DataError
            For a fit without its data.

        Warns
        -----
        ConvergenceWarning
            If a smaller model has no certain optimum, or a higher likelihood than this fit.
        """
        from .generalised_tests import drop1

        check_normal(ddf)
        return drop1(cast("GeneralisedFit", self), test, progress)

    def ranova(self, progress: bool | None = None) -> Any:
        """Likelihood-ratio test of each random term, dropped or made smaller; see `Fit.ranova`.

        Every smaller model is fitted as this one was (see `drop1`); one without any random effects by its exact likelihood.

        Returns
        -------
        frame
            term, npar, loglik, aic, lrt, df, p_value, p_boundary; the fit itself first as "<none>".
        """
        from .generalised_tests import ranova

        return ranova(cast("GeneralisedFit", self), progress)

    # -- intervals --------------------------------------------------------------------------------------------

    def confint(
        self,
        level: float = 0.95,
        method: str = "wald",
        ddf: str = "none",
        *,
        which: Any = None,
        n: int = 1000,
        seed: int | None = None,
        kind: str = "parametric",
        interval: str = "percentile",
        threads: int | None = None,
        progress: bool | None = None,
    ) -> Any:
        """Confidence intervals; see `Fit.confint`.

        Parameters
        ----------
        level, which, n, seed, kind, threads, progress
            As for a linear model.
        method : {"wald", "profile", "bootstrap"}
            Wald: fixed effects only, normal distribution. Profile and bootstrap: every parameter, see there.
        ddf : {"none"}
        interval : {"percentile", "basic", "normal"}
            Of the bootstrap.

        Returns
        -------
        frame
            term, estimate, conf_low, conf_high.
        """
        from .generalised_bootstrap import check_interval
        from .intervals import confint

        check_normal(ddf)
        check_interval(interval)
        options = {"n": n, "seed": seed, "kind": kind, "interval": interval, "threads": threads}
        return confint(cast("Fit", self), level, method, "none", which, progress, options)

    def profile(self, which: Any = None, progress: bool | None = None) -> Profile:
        """Profile likelihood of every sd, correlation, coefficient of dispersion, extra zeros or threshold, and fixed effect.

        Each parameter is held at values around its estimate while all others are fitted anew, by Laplace's approximation or
        quadrature as the fit itself; `zeta` is the signed root of the rise in deviance.

        Parameters
        ----------
        which : str or list of str, optional
            "sd(herd, Intercept)", "cor(patient, Intercept, week)", "size[Intercept]", "1|2", a fixed effect. Default all.
        progress : bool, optional
            A bar on the error stream. Default: after two seconds, on a terminal.

        Returns
        -------
        Profile
            `frame()`, `confint(level)`, `plot(ax)`. A limit of exactly 0 for an sd, -1 or 1 for a correlation, means that the
            likelihood does not exclude the end of the range; an infinite one that a coefficient can grow for ever without
            being excluded (`messages` say which).

        Raises
        ------
        DataError
            For a fit saved without its rows.
        OptionError
            For an unknown name; offers the nearest.

        Warns
        -----
        ConvergenceWarning
            If the search meets a higher likelihood than the fit's; the profile then is that of the better optimum.
        MultilevelWarning
            For a fit with ``quadrature=0``: profiles, and the estimates they list, are those of Laplace's approximation.
        """
        from .generalised_profiles import profile

        return profile(cast("GeneralisedFit", self), which, progress)

    def bootstrap(
        self,
        n: int = 1000,
        seed: int | None = None,
        kind: str = "parametric",
        *,
        statistic: Any = None,
        threads: int | None = None,
        progress: bool | None = None,
        **options: Any,
    ) -> Bootstrap:
        """Parametric bootstrap: fits to n responses drawn from the model with new group effects.

        Every search begins at this fit's optimum and ends without standard errors; where it does not settle, the replicate is
        fitted from nothing. A response that has no fit (successes alone, a category missing) counts as failed.

        Parameters
        ----------
        n, seed, statistic, threads, progress
            As for a linear model (`Fit.bootstrap`). A statistic gets a complete fit, which takes longer.
        kind : {"parametric"}

        Returns
        -------
        Bootstrap
            sd(...) and cor(...) of the random effects, coefficients of dispersion, extra zeros or thresholds, and fixed
            effects; intervals are percentile, basic or normal. Interrupted from the keyboard, it holds the draws made until
            then.

        Raises
        ------
        OptionError, DataError
            For bad options; for a fit without its rows; if no replicate could be fitted.

        Warns
        -----
        MultilevelWarning
            If replicates failed, or it was interrupted.
        """
        from .generalised_bootstrap import bootstrap

        for name, value in options.items():
            if value is not None and value is not False:
                raise OptionError(f"{name} is an option of the gaussian family's bootstrap only; leave it out")
        return bootstrap(cast("GeneralisedFit", self), n, seed, kind, statistic, threads, progress)

    # -- means ------------------------------------------------------------------------------------------------

    def means(
        self,
        factors: Any = None,
        *,
        by: Any = None,
        at: Any = None,
        weights: str = "equal",
        level: float = 0.95,
        ddf: str = "none",
        adjust: str = "none",
        transform: str | None = None,
    ) -> LinkMeans:
        """Estimated marginal means of the linear predictor; see `Fit.means`.

        Parameters
        ----------
        factors, by, at, weights, level, adjust
            As for a linear model.
        ddf : {"none"}
            Intervals and tests use the normal distribution.
        transform : {"response"}, optional
            Take estimates and limits back through the link: probabilities, or means of the family without its extra zeros,
            of groups whose effects are zero (not averages over groups: ``predict(marginal=True)`` has those).
        """
        from .generalised_means import means

        check_normal(ddf)
        return means(cast("GeneralisedFit", self), factors, by, at, weights, level, adjust, transform)

    def contrasts(
        self,
        factors: Any,
        method: Any = "pairwise",
        *,
        by: Any = None,
        at: Any = None,
        weights: str = "equal",
        level: float = 0.95,
        ddf: str = "none",
        adjust: str | None = None,
        ref: Any = None,
        transform: str | None = None,
    ) -> Contrasts:
        """Comparisons between estimated marginal means; see `Fit.contrasts`.

        Differences of linear predictors; with transform="response" ratios of means (log link) or odds ratios (logit link).
        """
        from .generalised_means import means

        check_normal(ddf)
        made = means(cast("GeneralisedFit", self), factors, by, at, weights, level, "none", transform, alone=False)
        return made.contrasts(method, adjust=adjust, ref=ref)

    def slopes(
        self,
        variable: str,
        *,
        by: Any = None,
        at: Any = None,
        weights: str = "equal",
        level: float = 0.95,
        ddf: str = "none",
        adjust: str = "none",
    ) -> LinkMeans:
        """Slopes of the linear predictor along a numeric predictor; see `Fit.slopes`."""
        from .generalised_means import slopes

        check_normal(ddf)
        return slopes(cast("GeneralisedFit", self), variable, by, at, weights, level, adjust)


def check_normal(ddf: str) -> None:
    """Refuse degrees of freedom, which generalised models do not have."""
    from .inference import check_ddf

    check_ddf(ddf)
    if ddf != "none":
        raise OptionError(
            f"ddf {ddf!r} is for Gaussian models; generalised ones use the normal distribution, ddf='none'"
        )


def refuse(what: str, instead: str) -> NoReturn:
    """Say that something is not there for generalised models."""
    raise OptionError(f"{what} is not available for generalised models in this version; {instead}")
