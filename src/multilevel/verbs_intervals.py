"""Verbs of a Fit about intervals: confint, profile, bootstrap."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from .bootstrap import Bootstrap
    from .fit import Fit
    from .profiles import Profile


class IntervalVerbs:
    """Inherited by Fit."""

    def confint(
        self,
        level: float = 0.95,
        method: str = "wald",
        ddf: str = "satterthwaite",
        *,
        which: Any = None,
        n: int = 1000,
        seed: int | None = None,
        kind: str = "parametric",
        interval: str = "percentile",
        threads: int | None = None,
        progress: bool | None = None,
    ) -> Any:
        """Confidence intervals.

        Parameters
        ----------
        level : float
            Coverage.
        method : {"wald", "profile", "bootstrap"}
            Wald: fixed effects only, estimate and standard error, t distribution. Profile: profile likelihood of every
            parameter, see `profile`. Bootstrap: draws of every parameter, see `bootstrap`.
        ddf : str
            Degrees of freedom of Wald intervals, as for `fixef`.
        which : str or list of str, optional
            Parameters; default all the method knows. Profiles of a few cost less than of all.
        n, seed, kind, threads
            Of the bootstrap.
        interval : {"percentile", "bca", "basic", "normal"}
            From the bootstrap's draws.
        progress : bool, optional
            A bar on the error stream. Default: after two seconds, on a terminal.

        Returns
        -------
        frame
            term, estimate, conf_low, conf_high. Sds and correlations are named "sd(Subject, Days)" and
            "cor(Subject, Intercept, Days)", the residual sd "sigma".

        Raises
        ------
        OptionError
            For an unknown method or parameter; offers the nearest name.
        """
        from .intervals import confint

        options = {"n": n, "seed": seed, "kind": kind, "interval": interval, "threads": threads}
        return confint(cast("Fit", self), level, method, ddf, which, progress, options)

    def profile(self, which: Any = None, progress: bool | None = None) -> Profile:
        """Profile likelihood of every sd, correlation, sigma and fixed effect.

        Each parameter is held at values around its estimate while all others are fitted anew; `zeta` is the signed root
        of the rise in deviance. As in lme4 the likelihood is the full one: a REML fit is fitted by maximum likelihood
        first, and the estimates are those. Variances that depend on the fitted values (``power(fitted)``) are held at those
        of the fit.

        Parameters
        ----------
        which : str or list of str, optional
            "sd(Subject, Days)", "cor(Subject, Intercept, Days)", "sigma", a fixed effect; of structures "sd(Subject, ar1)",
            "cor(Subject, ar1)", "rho(Mare)", "ratio(Sex, Male)". Default all.
        progress : bool, optional
            A bar on the error stream. Default: after two seconds, on a terminal.

        Returns
        -------
        Profile
            `frame()`, `confint(level)`, `plot(ax)`. Limits are sought on the criterion itself. Exactly 0 for an sd, -1 or
            1 for a correlation, means that the likelihood does not exclude the end of the range.

        Raises
        ------
        OptionError
            For an unknown name; offers the nearest.

        Warns
        -----
        ConvergenceWarning
            If the search meets a higher likelihood than the fit's; the profile then is that of the better optimum.
        """
        from .profiles import profile

        return profile(cast("Fit", self), which, progress)

    def bootstrap(
        self,
        n: int = 1000,
        seed: int | None = None,
        kind: str = "parametric",
        *,
        statistic: Callable[[Any], Any] | None = None,
        group: str | None = None,
        within: bool = False,
        threads: int | None = None,
        progress: bool | None = None,
    ) -> Bootstrap:
        """Fit many data sets like this one.

        Parameters
        ----------
        n : int
            Replicates.
        seed : int, optional
            The same seed gives the same draws, for any number of threads; replicate i is the same for any n (to rounding).
        kind : {"parametric", "residual", "case"}
            Parametric: responses simulated from the fit. Residual: conditional modes and residuals drawn with
            replacement, after they are centred and reflated to the estimated covariances (Carpenter, Goldstein & Rasbash
            2003). Case: whole groups drawn with replacement, with their rows; a serial correlation of the residuals must
            stay within the groups drawn.
        statistic : callable, optional
            Of a Fit, returns a number, several, or a dict of name to number; in place of the parameters. Each replicate
            is then a fit of its own, which takes longer.
        group : str, optional
            For cases: the factor whose groups are drawn; default the outermost. With crossed factors only one is drawn
            (by default that with most levels), and the levels of the others stay as they are.
        within : bool
            For cases: also draw the rows within each group again.
        threads : int, optional
            Default every processor this process may use.
        progress : bool, optional
            A bar on the error stream. Default: after two seconds, on a terminal.

        Returns
        -------
        Bootstrap
            `frame()` of draws, `confint(level, kind)`, `failures`, `seed`. Singular replicates count: their sd is zero,
            their correlations do not exist. Interrupted from the keyboard, it holds the draws made until then.

        Raises
        ------
        OptionError, DataError
            For bad options; for a fit without its rows; if no replicate could be fitted.

        Warns
        -----
        MultilevelWarning
            If replicates failed, or it was interrupted.
        """
        from .bootstrap import bootstrap

        return bootstrap(cast("Fit", self), n, seed, kind, statistic, group, within, threads, progress)
