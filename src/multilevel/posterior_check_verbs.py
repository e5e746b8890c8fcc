"""Verbs of a Posterior about checks, residuals, new rows and files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .checks import Checks
    from .posterior import Posterior
    from .posterior_condition import PosteriorConditioned


class PosteriorCheckVerbs:
    """Inherited by Posterior."""

    def residuals(self, kind: str = "response", seed: Any = 0) -> NDArray[np.float64]:
        """Responses against what the posterior expects, given the drawn group effects.

        Parameters
        ----------
        kind : {"response", "pearson", "deviance", "quantile"}
            Response less the posterior mean of its expectation (of proportions, where successes are counted); that over the
            posterior mean of the response's sd, weights included; signed root of the row's share of the deviance, as that
            of a fit whose means and dispersion are the posterior's (of the gaussian family pearson residuals times sigma);
            randomised quantile residuals (Dunn & Smyth 1996), the
            normal quantile of the posterior predictive distribution function at the response, which are near standard
            normal if the model is right (a little narrower: each row has informed its own prediction). Quantile residuals
            and the sd are of evenly spaced draws where rows are many.
        seed : int or Generator
            Of the random part of quantile residuals, which a discrete response has. Default 0: the same each time.

        Returns
        -------
        (n_input,) array
            NaN where a row was left out.

        Raises
        ------
        OptionError
            For an unknown kind; for any but "quantile" of an ordinal response; for any but "response" where residuals are
            serially correlated; for "deviance" with extra zeros or Student's t; where group effects were not kept.
        DataError
            For a posterior read from a file without its rows.
        """
        from .posterior_residuals import residuals

        posterior = cast("Posterior", self)
        found = residuals(posterior, kind, seed)
        out = np.full(posterior.design.n_input, np.nan)
        out[posterior.design.rows] = found
        return out

    def check(self) -> Checks:
        """Checks of the draws, the model and its priors, each with a verdict and a plain sentence.

        Whether the sampler may be trusted (R-hat, effective sample sizes, divergences, E-BFMI, or Pareto k); posterior
        predictive checks of the mean, the sd, the share of zeros and the extremes of the response, as far as its family
        has them (Gelman, Meng & Stern 1996, Statistica Sinica 6); shape of the quantile residuals; Pareto k of the rows
        left out one by one; parameters whose posterior lies far from their prior, group effects that lie to one side of
        zero, and parameters of which the data said little. `multilevel.posterior_checks` says how each verdict is reached.

        Returns
        -------
        Checks
            Prints as a table; ``.frame()`` gives check, verdict ("ok", "look", "problem"; "skipped" where it could not
            be judged) and sentence.

        Raises
        ------
        DataError
            For a posterior read from a file without its rows.
        OptionError
            Where group effects were not kept.
        """
        from .posterior_checks import check

        return check(cast("Posterior", self))

    def condition(self, rows: Any, *, weights: Any = None, offset: Any = None, seed: Any = 0) -> PosteriorConditioned:
        """Update the group effects with new rows, without sampling again.

        The draws of the parameters (coefficients, covariances, sigma) stay as they are, given the old rows alone, as those
        of a fit do: many new rows would move them, and then the model should be sampled with all. For each draw the
        effects are drawn anew from their exact distribution given old and new rows (of other families than the gaussian
        by importance resampling, for the groups that have new rows); groups that were not fitted get effects of their own.

        Parameters
        ----------
        rows : data frame
            Complete new rows, with the response.
        weights, offset : column name or array, optional
            Needed where the model was made with an array of weights or as offset.
        seed : int or None
            Of the draws of the effects. Default 0: the same each time.

        Returns
        -------
        PosteriorConditioned
            With `ranef()`, `coef()` and `predict()`; it can be conditioned again.

        Raises
        ------
        DataError
            Where a value or a group is missing in the new rows; for a posterior read from a file without its rows.
        OptionError
            For several grouping factors in other families than the gaussian; for structured residuals or a known
            covariance between levels; where group effects were not kept.
        """
        from .posterior_condition import condition

        return condition(cast("Posterior", self), rows, weights, offset, seed)

    def save(self, path: str | os.PathLike[str], data: bool = False) -> None:
        """Write the posterior to one file that `multilevel.read` opens.

        It holds the draws exactly as they are, the priors, what the sampler said and all that predicting new rows takes.
        Read back it prints the same; no pickle, so that a file from elsewhere can do no harm.

        Parameters
        ----------
        path : str or path
            Replaced only once the new file is complete.
        data : bool
            Keep the rows too, so that residuals, checks, simulations and `condition` work after reading.

        Raises
        ------
        FileError
            When the file cannot be written.
        DataError
            With `data` for a posterior that has no rows; when a level is of a type that the file cannot hold.
        """
        from .posterior_storage import save

        save(cast("Posterior", self), path, data)
