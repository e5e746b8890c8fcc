"""Verbs of TaxonomyClassifier about draws of the coefficients: spread of probabilities and coefficients."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import ConvergenceWarning, OptionError
from .fitting import FittedTree, Settings
from .problems import Rows
from .scales import ScaleShape
from .tree import Taxonomy

__all__ = ["UncertaintyVerbs", "contrast_sd"]

Floats = npt.NDArray[np.float64]

REFITS, NUTS_DRAWS, CHAINS = 20, 500, 4  # where the user says nothing
BLOCK = 1_000_000  # probabilities of a draw at a time, where all draws are needed at once


class UncertaintyVerbs:
    """Inherited by TaxonomyClassifier."""

    if TYPE_CHECKING:
        tree_: Taxonomy
        fitted_: FittedTree
        separator: str | None
        inference: str
        draws: int | None

        def _rows(self, X: Any, fit: bool = False) -> Any: ...

        def _threads(self) -> int: ...

    draws_: list[FittedTree] | None = None
    trusted_: bool | None = None
    verdict_: str | None = None
    draws_outgrown_: bool = False  # whether there were draws, of coefficients that have changed since

    def _check_draws(self, tree: Taxonomy, rows: Rows, shape: ScaleShape, settings: Settings) -> None:
        """Refuses, before the mode is found, what cannot be sampled."""
        if self.inference == "nuts":
            from .nuts import check_draws, check_size

            check_draws(NUTS_DRAWS if self.draws is None else int(self.draws))
            check_size(tree, rows, shape, settings)

    def _uncertainty(self, rows: Rows, settings: Settings) -> None:
        """Draws of the coefficients, where asked for; of the last fit none are left."""
        self.draws_ = self.trusted_ = self.verdict_ = None
        self.draws_outgrown_ = False
        shape = self.fitted_.shape
        if self.inference == "bootstrap":
            from .bootstrap import bootstrap

            count = REFITS if self.draws is None else int(self.draws)
            self.draws_ = bootstrap(self.tree_, rows, shape, settings, self.fitted_, count, settings.generator)
        elif self.inference == "nuts":
            from .nuts import sample

            count = NUTS_DRAWS if self.draws is None else int(self.draws)
            seed = int(settings.generator.integers(2**31))
            found = sample(self.tree_, rows, shape, settings, count, CHAINS, seed, start=self.fitted_)
            self.draws_, self.trusted_, self.verdict_ = found.fitted, found.trusted, found.sentence
            if not found.trusted:
                warnings.warn(found.sentence, ConvergenceWarning, stacklevel=4)

    def _need_draws(self) -> list[FittedTree]:
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self, "fitted_")
        if not self.draws_ and self.draws_outgrown_:
            raise OptionError(
                "the draws were of the coefficients before partial_fit, add_class, drop_class or merge changed them, and "
                "were dropped: fit the classifier again, to all rows, for draws of it as it is now"
            )
        if not self.draws_:
            raise OptionError(
                "this classifier was fitted without draws of its coefficients: fit it with inference='bootstrap' (refits "
                "with random weights of the rows), or inference='nuts' (the posterior; small problems only)"
            )
        return self.draws_

    def predict_proba_draws(self, X: Any, level: int | str | None = None) -> Floats:
        """Probability of each class of a level under each draw of the coefficients.

        Parameters
        ----------
        X : array, sparse matrix or data frame (rows, features)
        level : int, str or None
            Depth from 1, name of a level, or None for the leaves.

        Returns
        -------
        array (draws, rows, classes)
            Each draw's rows sum to one; columns as of `predict_proba`, for the training items' shares of the classes.

        Raises
        ------
        OptionError
            Fitted without draws, or changed since by `partial_fit`, `add_class`, `drop_class` or `merge`.
        """
        draws = self._need_draws()
        return self._draws_of(draws, self._rows(X), self.tree_.at_level(level))

    def _draws_of(self, draws: list[FittedTree], x: Any, nodes: npt.NDArray[np.int32]) -> Floats:
        out = np.empty((len(draws), x.shape[0], len(nodes)))
        for k, draw in enumerate(draws):
            p = draw.leaf_probabilities(x, self._threads())
            out[k] = p if len(nodes) == p.shape[1] else self.tree_.sums(p, nodes)
        return out

    def predict_proba_interval(
        self, X: Any, level: int | str | None = None, interval: float = 0.9
    ) -> tuple[Floats, Floats]:
        """Bounds of each class's probability: quantiles of the draws.

        Of a bootstrap, how much the probability would change with another sample of rows; of NUTS, the posterior's interval.
        With 20 draws a 90 % interval ends near the second smallest and the second largest of them: take `draws` of 100 and
        more to read bounds closely.

        Parameters
        ----------
        X : array, sparse matrix or data frame (rows, features)
        level : int, str or None
            Depth from 1, name of a level, or None for the leaves.
        interval : float
            Share of the draws between the bounds.

        Returns
        -------
        low, high : arrays (rows, classes)

        Raises
        ------
        OptionError
            Fitted without draws, or changed since by `partial_fit`, `add_class`, `drop_class` or `merge`;
            an interval that does not lie between 0 and 1.
        """
        number = isinstance(interval, (int, float, np.number)) and not isinstance(interval, bool)
        if not (number and 0 < interval < 1):
            raise OptionError(f"interval={interval!r} must lie between 0 and 1, as in interval=0.9")
        draws, nodes, x = self._need_draws(), self.tree_.at_level(level), self._rows(X)
        low, high = np.empty((x.shape[0], len(nodes))), np.empty((x.shape[0], len(nodes)))
        step = max(1, BLOCK // (len(draws) * max(len(nodes), 1)))
        for at in range(0, x.shape[0], step):
            block = slice(at, at + step)
            p = self._draws_of(draws, x[block], nodes)
            low[block], high[block] = np.quantile(p, [(1 - interval) / 2, (1 + interval) / 2], axis=0)
        return low, high

    def coefficient_sd(self, node: Any) -> Floats:
        """Standard deviation over the draws of a node's coefficients less the mean of its siblings'.

        Parameters
        ----------
        node : name, path, or joined path

        Returns
        -------
        array (features + 1,)
            The last is the intercept's. Zero of a node without siblings.

        Raises
        ------
        DataError
            No such class, or several of this name.
        OptionError
            Fitted without draws, or changed since by `partial_fit`, `add_class`, `drop_class` or `merge`.
        """
        return contrast_sd(self._need_draws(), self.tree_.node(node, self.separator))


def contrast_sd(draws: list[FittedTree], node: int) -> Floats:
    """Sd over draws of a node's coefficients less the mean of its siblings': (features + 1,); zero without siblings.

    The raw coefficients of a softmax are settled by the prior alone; these differences are what the data tell.
    """
    tree = draws[0].tree
    above = int(tree.parent[node])
    siblings = list(tree.children[above] if above >= 0 else tree.top)
    own, others = siblings.index(node), max(len(siblings) - 1, 1)
    mean = squares = np.zeros(draws[0].deviations.shape[0])
    for count, draw in enumerate(draws, 1):  # Welford: one draw's coefficients in memory at a time
        u = draw.deviations[:, siblings]
        u = np.asarray(u.toarray() if hasattr(u, "toarray") else u, dtype=np.float64)
        contrast = u[:, own] - (u.sum(axis=1) - u[:, own]) / others if len(siblings) > 1 else np.zeros(len(u))
        change = contrast - mean
        mean = mean + change / count
        squares = squares + change * (contrast - mean)
    return np.asarray(np.sqrt(squares / max(len(draws) - 1, 1)))
