"""What Model inherits: priors, posterior draws and hand-overs to other tools."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from .graph import Graph
    from .model import Model
    from .numpyro_model import NumpyroModel
    from .posterior import Posterior


class BayesVerbs:
    """Verbs of full Bayes; each a docstring and a call."""

    priors: Mapping[str, Any] = MappingProxyType({})  # a model read from a file has none of its own

    def sample(
        self,
        *,
        chains: int = 4,
        draws: int = 1000,
        warmup: int | None = None,
        seed: int | None = None,
        method: str = "auto",
        target: float = 0.8,
        threads: int | None = None,
        keep: str = "all",
        thin: int = 1,
        progress: bool | None = None,
    ) -> Posterior:
        """Draw from the posterior distribution: full Bayes, with the model's `priors`.

        Parameters
        ----------
        chains, draws, warmup : int
            Chains, draws of each (before `thin`, which keeps some of them), and steps before them that adapt NUTS (default
            300; independent draws need none).
        seed : int, optional
            The same seed gives the same draws, whatever the number of threads. Default: other draws each time.
        method : {"auto", "independent", "nuts"}
            How the variances and correlations are drawn: by importance sampling where its check (Pareto's k) is passed and
            by the no-U-turn sampler where not; or one of them. Of linear models coefficients and group effects are drawn
            exactly given them; of other families they are drawn with them.
            The parameters of structured residuals are among the former, and take longer; where a variance depends on the
            fitted values, those of the REML fit are taken as known.
        target : float
            Acceptance NUTS aims at; nearer to one for posteriors that are hard to follow.
        threads : int, optional
            Chains at a time; default every processor this process may use.
        keep : {"all", "parameters"}
            Whether group effects are kept; they take most of the memory.
        thin : int
            Keep every so manyth draw.
        progress : bool, optional
            Default: a bar after two seconds, on a terminal.

        Returns
        -------
        Posterior
            Printed, it says whether it may be trusted.

        Raises
        ------
        OptionError
            For priors on parameters the model lacks or that they cannot have, with what exists.
        """
        from .sample import posterior

        return posterior(cast("Model", self), chains, draws, warmup, seed, method, target, threads, keep, thin, progress)

    def prior_summary(self) -> Any:
        """Priors of all parameters, defaults included: parameter, prior, source ("user" or "default")."""
        from .prior_table import summary

        return summary(cast("Model", self))

    def prior_predictive(self, n: int = 100, seed: int | None = None) -> Any:
        """Responses drawn from the priors alone, for the rows of the data.

        Parameters
        ----------
        n : int
            Simulated data sets, each from a draw of its own of all parameters and group effects.
        seed : int, optional
            Default: other draws each time.

        Returns
        -------
        frame
            sim_1 ... sim_n, with a row for each of the data: missing where one was left out. Successes, of counts of them;
            values of the data (numbers, or ordered categories), of an ordinal response. Where the link lets a mean be
            negative that cannot be, draws with such a row are left out, as in the posterior.

        Raises
        ------
        OptionError
            For flat priors, from which nothing can be drawn; for variances that depend on the fitted values.
        """
        from .prior_draws import prior_predictive

        return prior_predictive(cast("Model", self), n, seed)

    def graph(self) -> Graph:
        """Plate diagram of the model: priors, parameters, a plate per random term, a plate of the rows.

        Returns
        -------
        Graph
            Shown as a picture in a notebook; ``save("model.svg")`` writes it, ``str`` is its SVG text.

        Examples
        --------
        >>> import multilevel as ml
        >>> ml.Model("math ~ homework + (homework | schid)", ml.load("math10")).graph().nodes["math"].plate
        'rows'
        """
        from .graph import graph

        return graph(cast("Model", self))

    def to_numpyro(self) -> NumpyroModel:
        """The same model with the same priors for NumPyro, to go on where formulas end.

        Returns
        -------
        NumpyroModel
            ``source`` is Python text to edit, ``args`` the data it takes, ``model`` the function itself (NumPyro must be
            installed for that one).

        Raises
        ------
        OptionError
            For structured residuals and for priors that NumPyro cannot express.
        """
        from .numpyro_model import numpyro_model

        return numpyro_model(cast("Model", self))
