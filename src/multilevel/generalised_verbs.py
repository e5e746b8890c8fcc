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


class LinkVerbs(Fit):
    """Inherited by GeneralisedFit."""

    # -- tests ------------------------------------------------------------------------------------------------

    def anova(self, type: Any = 3, ddf: str = "none") -> Any:
        """Wald tests of the terms; see `Fit.anova`. ``statistic`` is the chi-square over num_df, den_df is infinite."""
        check_normal(ddf)
        return super().anova(type, "none")

    def test(
        self, hypotheses: Any, rhs: Any = None, *, joint: bool = False, ddf: str = "none", level: float = 0.95
    ) -> Any:
        """Wald tests of linear hypotheses about the fixed effects; see `Fit.test`."""
        check_normal(ddf)
        return super().test(hypotheses, rhs, joint=joint, ddf="none", level=level)

    def bootstrap(
        self,
        n: int = 200,
        seed: int | None = None,
        kind: str = "parametric",
        *,
        statistic: Any = None,
        progress: bool | None = None,
        **options: Any,
    ) -> Bootstrap:
        """Parametric bootstrap: fits to n responses drawn from the model with new group effects, one after the other.

        Parameters
        ----------
        n, seed, statistic, progress
            As for a linear model (`Fit.bootstrap`).
        kind : {"parametric"}

        Returns
        -------
        Bootstrap
            sd(...) and cor(...) of the random effects, coefficients of dispersion, extra zeros or thresholds, and fixed
            effects; intervals are percentile, basic or normal.
        """
        from .generalised_bootstrap import bootstrap

        if options:
            raise OptionError(f"{next(iter(options))} is an option of the gaussian family's bootstrap only; leave it out")
        return bootstrap(cast("GeneralisedFit", self), n, seed, kind, statistic, progress)

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

    def confint(self, level: float = 0.95, method: str = "wald", *args: Any, **options: Any) -> Any:
        """Wald intervals of the fixed effects."""
        if method != "wald":
            raise OptionError(
                f"method {method!r} is available for the gaussian family only in this version; allowed is 'wald'"
            )
        table = self.fixef_columns(level, "none")
        return self._frame({name: table[name] for name in ("term", "estimate", "conf_low", "conf_high")})


def check_normal(ddf: str) -> None:
    """Refuse degrees of freedom, which generalised models do not have; the Gaussian default stands for none."""
    from .inference import _normal_only, check_ddf

    check_ddf(ddf)
    _normal_only(ddf)


def refuse(what: str, instead: str) -> NoReturn:
    """Say that something is not there for generalised models."""
    raise OptionError(f"{what} is not available for generalised models in this version; {instead}")
