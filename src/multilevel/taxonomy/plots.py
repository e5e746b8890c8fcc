"""Plots of a classifier: `PlotVerbs`, which the classifier inherits; drawn by `panels`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .estimator import TaxonomyClassifier

__all__ = ["PlotVerbs"]


class PlotVerbs:
    """Plots of a fitted classifier; they need matplotlib (``pip install multilevel[plots]``).

    Every method takes `ax`: the Axes to draw on, or as many as there are panels; by default a new figure is made. It
    returns one Axes, or a flat array of them where there are several panels; ``.figure`` of each is the figure.
    """

    def plot_tree(self, X_row: Any, *, ax: Any = None) -> Axes:
        """The tree with one item's probabilities.

        The most probable class and all above it are drawn darker, siblings by falling probability. Of a tree of more than 40
        nodes only what lies beside the most probable class is shown, and of many siblings the likelier ones.

        Parameters
        ----------
        X_row : array (features,) or (1, features), sparse matrix or data frame of one row
        ax : Axes, optional

        Returns
        -------
        Axes

        Raises
        ------
        OptionError
            More than one row.
        """
        from .panels import tree_plot

        return tree_plot(cast("TaxonomyClassifier", self), X_row, ax)

    def plot_confusion(self, X: Any, y: Any, level: int | str | None = None, *, ax: Any = None) -> Axes:
        """True against predicted classes of a level, as shares of each true class.

        Classes stand in the order of the tree, so that blocks along the diagonal are mistakes below the same parent; where
        there are too many to name, their ancestors are named.

        Parameters
        ----------
        X : array, sparse matrix or data frame (rows, features)
        y : labels
            In any form that `fit` takes. Partial labels that end above the level are left out; the title says how many.
        level : int, str or None
            Depth from 1, name of a level, or None for the deepest.
        ax : Axes, optional

        Returns
        -------
        Axes

        Raises
        ------
        OptionError
            More classes than can be drawn.
        """
        from .panels import confusion_plot

        return confusion_plot(cast("TaxonomyClassifier", self), X, y, level, ax)

    def plot_reliability(
        self, X: Any, y: Any, level: int | str | None = None, *, bins: int = 10, equal: str = "width", ax: Any = None
    ) -> Any:
        """Share that is right against the probability of the most probable class, for each level.

        Points on the dashed line are calibrated; vertical lines are 95 % intervals (Wilson), bars at the bottom the shares
        of the items in each bin, to a scale of their own. The numbers are those of `metrics.reliability`.

        Parameters
        ----------
        X : array, sparse matrix or data frame (rows, features)
        y : labels
            In any form that `fit` takes; partial labels count at the levels that they reach.
        level : int, str or None
            None: a panel for each level.
        bins : int
        equal : {"width", "mass"}
            Bins of equal width, or of equally many items.
        ax : Axes or array of Axes, optional
            As many as there are panels.

        Returns
        -------
        Axes or array of Axes
        """
        from .panels import reliability_plot

        return reliability_plot(cast("TaxonomyClassifier", self), X, y, level, bins, equal, ax)

    def plot_risk_coverage(self, X: Any, y: Any, level: int | str | None = None, *, ax: Any = None) -> Axes:
        """Share of errors among the items that keep their class, as those less sure are left out.

        Lines begin at the twenty surest items, since shares of fewer jump about. The numbers are those of
        `metrics.risk_coverage`.

        Parameters
        ----------
        X : array, sparse matrix or data frame (rows, features)
        y : labels
            In any form that `fit` takes; partial labels count at the levels that they reach.
        level : int, str or None
            None: a line for each level.
        ax : Axes, optional

        Returns
        -------
        Axes
        """
        from .panels import risk_coverage_plot

        return risk_coverage_plot(cast("TaxonomyClassifier", self), X, y, level, ax)

    def plot_scales(self, *, ax: Any = None) -> Axes:
        """Held-out log-loss at the scales tried, and the scales chosen.

        All scales are varied at once, so that points at the same height are one trial. The scales chosen have the least
        loss less the logarithm of their prior, which may be a little beside the least loss. Of more than eight scales only
        those chosen are shown, in their order.

        Parameters
        ----------
        ax : Axes, optional

        Returns
        -------
        Axes

        Raises
        ------
        OptionError
            Scales that were not found by held-out rows, or one only trial.
        """
        from .panels import scales_plot

        return scales_plot(cast("TaxonomyClassifier", self), ax)
