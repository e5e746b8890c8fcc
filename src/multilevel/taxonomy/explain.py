"""What a classifier has learnt: the features of a class, of one row's path, and how much each class leans on its parent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError, OptionError
from .curvature import Information, as_dense, family

if TYPE_CHECKING:
    import pandas as pd

    from .fitting import FittedTree
    from .tree import Taxonomy

__all__ = ["ExplainVerbs"]

Floats = npt.NDArray[np.float64]
INTERCEPT, OTHER = "(intercept)", "(other features)"
SIGNS = ("for", "against", "both")


class ExplainVerbs:
    """Inherited by TaxonomyClassifier."""

    if TYPE_CHECKING:
        tree_: Taxonomy
        fitted_: FittedTree
        node_weight_: Floats
        n_features_in_: int
        separator: str | None

        def _rows(self, X: Any, fit: bool = False) -> Any: ...
        def _feature_groups(self, features: int) -> tuple[npt.NDArray[np.int32], list[str]]: ...

    def explain(self, node: Any, n: int = 10, *, names: Sequence[str] | None = None, sign: str = "for") -> pd.DataFrame:
        """Features that tell a class from its siblings.

        Only differences of coefficients mean something in a softmax, so all columns are differences from siblings.

        Parameters
        ----------
        node : label or path
            A leaf or an inner node.
        n : int
            Features shown.
        names : sequence of str (features,), optional
            Names of the features, such as ``vectorizer.get_feature_names_out()``; None: the columns of the data frame that
            was fitted, else x0, x1, ...
        sign : {"for", "against", "both"}
            Features that speak for the class, for its siblings, or the strongest of both.

        Returns
        -------
        pandas.DataFrame
            feature, and on the scale of log-odds per unit of the feature:

            contrast
                The class's coefficient less the mean of its siblings' (the parent's cancels); the table is sorted by it.
            inherited
                The same differences of the classes above it, summed; of likelihood="flat" only.
            total
                contrast + inherited; of likelihood="flat" only.
            sd
                Standard deviation of the contrast: over the draws of inference="bootstrap" and "nuts"; else conditional, each
                feature by itself and all others known, which leaves out that classes compete for the same items and is too
                small there.
            shrinkage
                Share of the parent in the class's coefficient: 1, the parent's taken over; 0, from the class's own items.
                At the top, and for likelihood="nested", the share of zero.

            `shrinkage` and the conditional `sd` need what a fit keeps of the training rows (`seen_`); they are left out where
            the model was saved with ``seen=False``.

        Raises
        ------
        DataError
            No such class.
        OptionError
            A class without siblings, an unknown sign, names of another number.

        Notes
        -----
        Conditional variances by belief propagation along the tree for each feature (module `curvature`).
        """
        import pandas as pd

        fitted = self._fitted_tree()
        wanted = _count(n)
        _check_sign(sign)
        at = self.tree_.node(node, self.separator)
        if len(family(self.tree_, at)) == 1:
            raise OptionError(
                f"{self.tree_.labels[at]!r} has no siblings to be told from: its coefficients are its parent's; "
                f"{_instead(self.tree_, at)}"
            )
        labels = self._names(names)
        contrast = _contrast(fitted, at)[:-1]
        chosen = _strongest(contrast, wanted, sign)
        out: dict[str, Any] = {"feature": labels[chosen], "contrast": contrast[chosen]}
        if fitted.likelihood == "flat":
            above = self.tree_.ancestors(at)[:-1]
            out["inherited"] = sum((_contrast(fitted, k, chosen) for k in above), np.zeros(len(chosen)))
            out["total"] = out["contrast"] + out["inherited"]
        known = self._information()
        if known is not None:
            out["sd"], out["shrinkage"] = known.contrast(at, chosen)
        draws = getattr(self, "draws_", None)
        if draws:
            out["sd"] = np.std([_contrast(draw, at, chosen) for draw in draws], axis=0, ddof=1)
        return pd.DataFrame(out)

    def explain_row(
        self, x: Any, node: Any = None, n: int | None = None, *, names: Sequence[str] | None = None
    ) -> pd.DataFrame:
        """What each feature of one row contributes at each step down its path.

        Parameters
        ----------
        x : array (features,), or array, sparse matrix or data frame (1, features)
        node : label or path, optional
            Explain the way to this class; None: to the most probable leaf.
        n : int, optional
            Features shown at each step, the others summed in one line; None: all that the row has.
        names : sequence of str (features,), optional
            As of `explain`.

        Returns
        -------
        pandas.DataFrame
            level, node, feature, value (the row's), contrast (coefficient less the mean of the node's siblings'),
            contribution (their product). At each step the contributions, the intercept's included, sum to the node's score
            less the mean of its siblings'; for leaves, and at each step of likelihood="nested", scores differ as the
            logarithms of probabilities do. An inner node of likelihood="flat" is scored by its own coefficients. Steps
            without siblings are left out.

        Raises
        ------
        DataError
            More rows than one, no such class.
        OptionError
            Names of another number.
        """
        import pandas as pd

        fitted = self._fitted_tree()
        wanted = None if n is None else _count(n)
        row = self._rows(x if getattr(x, "ndim", 1) == 2 else np.asarray(x)[None])
        if row.shape[0] != 1:
            raise DataError(f"x has {row.shape[0]} rows; explain_row takes one, such as X[[0]]")
        labels = self._names(names)
        if node is None:
            at = int(self.tree_.leaves[fitted.leaf_probabilities(row)[0].argmax()])
        else:
            at = self.tree_.node(node, self.separator)
        steps = [k for k in self.tree_.ancestors(at) if len(family(self.tree_, k)) > 1]
        tables = [self._step(row, k, wanted, labels) for k in steps]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(STEP))

    def _step(self, row: Any, node: int, n: int | None, labels: npt.NDArray[Any]) -> pd.DataFrame:
        import pandas as pd

        own = row.indices
        contrast = _contrast(self.fitted_, node, np.append(own, row.shape[1]))
        value = np.append(row.data.astype(np.float64), 1.0)
        made = value * contrast
        order = np.argsort(-np.abs(made[:-1]), kind="stable")
        shown, rest = (order, order[:0]) if n is None else (order[:n], order[n:])
        at = np.append(shown, len(own))
        out: dict[str, Any] = {
            "level": self.tree_.levels[self.tree_.depth[node] - 1],
            "node": [self.tree_.labels[node]] * len(at),
            "feature": [*labels[own[shown]], INTERCEPT],
            "value": value[at],
            "contrast": contrast[at],
            "contribution": made[at],
        }
        table = pd.DataFrame(out)
        if len(rest):
            table.loc[len(table)] = [out["level"], self.tree_.labels[node], OTHER, np.nan, np.nan, made[rest].sum()]
        return table

    @property
    def shrinkage_(self) -> pd.DataFrame:
        """How much each class leans on its parent.

        Returns
        -------
        pandas.DataFrame
            One row per node, in the tree's order:

            node, level, parent
                Labels; the parent of a top class is missing.
            n
                Weight of the items of the class and of those below it.
            norm
                Length of its deviation from its parent (features only).
            pooling
                Share of the parent in its coefficients: the mean of `explain`'s `shrinkage` over the features, weighted by
                their squares among the class's items; 1 for a class without items. Items predicted with certainty tell
                little.
            n_effective
                n / (1 - pooling): its items and what its parent counts for; NaN where pooling is 1.

            `pooling` and `n_effective` are left out where the model was saved with ``seen=False``.
        """
        import pandas as pd

        fitted, tree = self._fitted_tree(), self.tree_
        count = self.node_weight_.copy()
        for node in range(len(tree) - 1, -1, -1):
            if tree.parent[node] >= 0:
                count[tree.parent[node]] += count[node]
        out: dict[str, Any] = {
            "node": list(tree.labels),
            "level": [tree.levels[depth - 1] for depth in tree.depth],
            "parent": [tree.labels[above] if above >= 0 else None for above in tree.parent],
            "n": count,
            "norm": _norms(fitted.deviations[:-1]),
        }
        known = self._information()
        if known is not None:
            pooling = known.pooling()
            out["pooling"] = pooling
            out["n_effective"] = np.divide(count, 1 - pooling, out=np.full(len(tree), np.nan), where=pooling < 1)
        return pd.DataFrame(out)

    # -- what the verbs need -------------------------------------------------------------------------------------

    def _fitted_tree(self) -> FittedTree:
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self)
        return self.fitted_

    def _information(self) -> Information | None:
        """What the training rows tell; None where a saved model came without it."""
        seen = getattr(self, "seen_", None)
        return None if seen is None else Information(self.fitted_, seen, self._feature_groups(self.n_features_in_)[0])

    def _names(self, names: Sequence[str] | None) -> npt.NDArray[Any]:
        count = self.fitted_.deviations.shape[0] - 1
        if names is None:
            names = getattr(self, "feature_names_in_", None)
        if names is None:
            return np.array([f"x{j}" for j in range(count)], dtype=object)
        if isinstance(names, str) or len(names) != count:
            how_many = "is one text" if isinstance(names, str) else f"has {len(names)}"
            raise OptionError(f"names {how_many}; give a name for each of the {count} features, in their order")
        return np.array(list(names), dtype=object)


STEP = ("level", "node", "feature", "value", "contrast", "contribution")


def _contrast(fitted: FittedTree, node: int, which: npt.NDArray[Any] | None = None) -> Floats:
    """A node's deviations less the mean of its siblings', of all features and the intercept or of some; 0 if it has none."""
    siblings = family(fitted.tree, node)
    u = fitted.deviations if which is None else fitted.deviations[which]
    u = u[:, list(siblings)]
    dense = as_dense(u)
    if len(siblings) == 1:
        return np.zeros(len(dense))
    own = dense[:, siblings.index(node)]
    return np.asarray(own - (dense.sum(axis=1) - own) / (len(siblings) - 1))


def _strongest(contrast: Floats, n: int, sign: str) -> npt.NDArray[np.intp]:
    """Features with the largest values first, of those that have the sign asked for."""
    size = np.abs(contrast) if sign == "both" else contrast if sign == "for" else -contrast
    order = np.argsort(-size, kind="stable")[:n]
    return order[size[order] > 0]


def _norms(u: Any) -> Floats:
    square = u.power(2) if hasattr(u, "power") else np.square(u, dtype=np.float64)  # sparse ones have the method
    return np.sqrt(np.asarray(square.sum(axis=0), dtype=np.float64)).ravel()


def _count(n: Any) -> int:
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise OptionError(f"n={n!r} must be a whole number of at least 1, the number of features to show")
    return int(n)


def _check_sign(sign: Any) -> None:
    if sign not in SIGNS:
        raise OptionError(f"sign={sign!r} is not known: take {', '.join(map(repr, SIGNS))}")


def _instead(tree: Taxonomy, node: int) -> str:
    """The nearest class above that has siblings, to explain instead."""
    above = [k for k in tree.ancestors(node)[:-1] if len(family(tree, k)) > 1]
    return f"explain {tree.labels[above[-1]]!r} instead" if above else "no class above it has siblings either"
