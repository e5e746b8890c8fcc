"""Verbs of a TaxonomyClassifier that answer: probabilities, classes, where to stop, sets, and their calibration."""

from __future__ import annotations

import warnings
from collections.abc import Hashable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from ..errors import MultilevelWarning, OptionError, users_level
from .calibration import (
    Calibration,
    LevelCalibration,
    best_power,
    best_temperature,
    check_tau,
    knob_of,
    level_calibration,
)
from .costs import cost_matrix
from .prediction_sets import PredictionSets, smallest_sets, subtrees
from .shares import log_factors, reweighted
from .stopping import ROOT, Cost, Cut, Darts, Guarantee, best_darts, best_threshold, least_cost
from .tree import Taxonomy

__all__ = ["DecisionVerbs", "Step"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]

BLOCK = 4096  # rows whose nodes' probabilities are held together


class Step(NamedTuple):
    """A node on a path, and its probability."""

    name: Hashable
    probability: float


class DecisionVerbs:
    """Inherited by TaxonomyClassifier."""

    if TYPE_CHECKING:
        tree_: Taxonomy
        classes_: npt.NDArray[Any]
        class_shares_: Floats
        calibration_: Calibration | None

        def _leaf_probabilities(self, X: Any) -> Floats: ...
        def _rows(self, X: Any) -> Any: ...
        def _read_labels(self, y: Any, rows: int, tree: Taxonomy | None = None) -> tuple[Taxonomy, Ints]: ...
        def classes_at(self, level: int | str | None = None) -> npt.NDArray[Any]: ...

    # ---- probabilities -------------------------------------------------------------------------------------------

    def predict_proba(self, X: Any, level: int | str | None = None, prior: Any = "train") -> Floats:
        """Probability of each class of a level.

        Parameters
        ----------
        X : array, sparse matrix or data frame (rows, features)
        level : int, str or None
            Depth from 1, name of a level, or None for the leaves.
        prior : str, float, array or dict
            Shares of the classes where the answers are used:

            - "train": those of the training items;
            - "uniform": all leaves alike: P(leaf) / (training share), brought to the sum one;
            - a number tau: P(leaf) / (training share)^tau; 0 is "train", 1 is "uniform". Between, small classes are found
              more often at little cost to the large ones;
            - an array of the leaves' shares, in the order of `classes_`, or a dict by class, where an inner node's share is
              split over its leaves as the training items are: P(leaf) share / (training share);
            - "calibrated": the tau and temperature that `calibrate` found.

            A leaf without training items counts as having the share of the rarest leaf that has some. A share of 0 rules a
            class out.

        Returns
        -------
        array (rows, classes)
            Rows sum to one; the columns are `classes_at(level)`. A parent's probability is the sum of its children's under
            every prior. A row's probabilities do not depend on other rows.

        Raises
        ------
        OptionError
            A level that the tree lacks, a prior that cannot be read, "calibrated" before `calibrate`.
        """
        p = self._leaves_with(X, prior)
        nodes = self.tree_.at_level(level)
        return p if len(nodes) == p.shape[1] else self.tree_.sums(p, nodes)

    def predict_log_proba(self, X: Any, level: int | str | None = None, prior: Any = "train") -> Floats:
        """Logarithm of `predict_proba`, which takes the same parameters."""
        return np.asarray(np.log(np.maximum(self.predict_proba(X, level, prior), np.finfo(np.float64).tiny)))

    def _leaves_with(self, X: Any, prior: Any) -> Floats:
        """Probabilities of the leaves (rows, leaves) under a prior."""
        _check_fitted(self)
        if isinstance(prior, str) and prior == "calibrated":
            found = self._calibration("prior='calibrated'")
            factors, temperature = log_factors(self.tree_, self.class_shares_, found.tau), found.temperature
        else:
            factors, temperature = log_factors(self.tree_, self.class_shares_, prior), 1.0
        return reweighted(self._leaf_probabilities(X), factors, temperature)

    # ---- classes -------------------------------------------------------------------------------------------------

    def predict(
        self, X: Any, level: int | str | None = None, stop: Any = None, cost: Any = None, prior: Any = "train"
    ) -> npt.NDArray[Any]:
        """The class of each row: the most probable one of a level, or where a rule stops on the way to it.

        Parameters
        ----------
        X : array, sparse matrix or data frame (rows, features)
        level : int, str or None
            Depth from 1, name of a level, or None for the leaves. With `stop` or `cost` the answers may lie above it.
        stop : float or rule, optional
            - a number: of the nodes with at least this probability the one with the fewest classes below, of these the most
              probable. From 1/2 up these nodes lie on one path and this is the deepest of them; 0 is no rule. 0.9 is a
              demand on every single answer: where the probabilities are right, more than 0.9 of the answers are;
            - `Darts(accuracy=0.9)`: the most informative answers that are right in 0.9 of the rows;
            - `Guarantee(accuracy=0.9, delta=0.05)`: right in at least 0.9 of new rows, but for a probability of 0.05;
            - `Cost(...)`: the least expected cost.

            `Darts` and `Guarantee` need `calibrate`.
        cost : str, array (nodes + 1, leaves) or callable, optional
            Short for ``stop=Cost(cost)``.
        prior : str, float, array or dict
            See `predict_proba`. `Darts` and `Guarantee` know "train", "uniform" and "calibrated".

        Returns
        -------
        array (rows,)
            Labels as in `classes_at(level)`; with `stop` or `cost` an array of objects with labels of any node as in
            `tree_.labels`, and None for the root, where a row is too unsure to be told even its topmost class.

        Raises
        ------
        OptionError
            A rule or prior that is not known, `stop` together with `cost`, a rule that has not been calibrated.

        Notes
        -----
        The most probable class of a level need not lie above the most probable leaf, as a parent's probability is the sum of
        its children's: ``predict(X, level=1)`` may differ from the top of ``predict_path(X)``.
        """
        nodes, _ = self._decide(X, level, stop, cost, prior)
        if stop is None and cost is None:
            return np.asarray(self.classes_at(level)[np.searchsorted(self.tree_.at_level(level), nodes)])
        return self._labels(nodes)

    def predict_path(
        self, X: Any, level: int | str | None = None, stop: Any = None, cost: Any = None, prior: Any = "train"
    ) -> list[tuple[Step, ...]]:
        """The path from the top to the class of each row, with the probability at each node.

        Parameters
        ----------
        X, level, stop, cost, prior
            As for `predict`.

        Returns
        -------
        list of tuples
            For each row its steps ``(name, probability)``, names as in `tree_.names`; empty where the answer is the root.

        Notes
        -----
        It is the path to the answer of `predict`, by default the most probable leaf, and may begin at another class than
        ``predict(X, level=1)``, which is the most probable one of that level.
        """
        nodes, p = self._decide(X, level, stop, cost, prior)
        tree, out = self.tree_, []
        for node, chances in zip(nodes.tolist(), p, strict=True):
            above = tree.ancestors(node) if node != ROOT else []
            out.append(tuple(Step(tree.names[v], float(chances[tree.first[v] : tree.last[v]].sum())) for v in above))
        return out

    def _decide(self, X: Any, level: Any, stop: Any, cost: Any, prior: Any) -> tuple[Ints, Floats]:
        """Node of each row's answer, and the probabilities of the leaves."""
        _check_fitted(self)
        rule = _rule(stop, cost)
        cut = Cut(self.tree_, self.tree_.level(level))
        knob = self._knob(rule, cut, prior)
        p = self._leaves_with(X, prior)
        blocks = [_answers(cut, p[at : at + BLOCK], rule, knob) for at in range(0, len(p), BLOCK)]
        return np.concatenate([*blocks, np.empty(0, dtype=np.int32)]).astype(np.int32), p

    def _knob(self, rule: Any, cut: Cut, prior: Any) -> Any:
        """What a rule needs beside the probabilities: its threshold, reward or costs."""
        if isinstance(rule, Cost):
            return cost_matrix(self.tree_, rule.cost)
        if isinstance(rule, Darts) and rule.reward is not None:
            return rule.reward
        if isinstance(rule, (Darts, Guarantee)):
            return knob_of(rule, self._at_level(str(rule), prior, cut.depth))
        return rule

    def _labels(self, nodes: Ints) -> npt.NDArray[Any]:
        """Labels of any nodes as objects, None of the root."""
        table = np.empty(len(self.tree_) + 1, dtype=object)
        table[:-1] = self.tree_.labels
        table[ROOT] = None
        return table[nodes]

    # ---- sets ----------------------------------------------------------------------------------------------------

    def predict_set(
        self,
        X: Any,
        coverage: float = 0.9,
        level: int | str | None = None,
        prior: Any = "train",
        *,
        subtree: bool = False,
        conformal: bool | None = None,
    ) -> PredictionSets:
        """For each row a set of classes that holds the true one with the probability `coverage`.

        After `calibrate` the sets are conformal: over calibration sets and new rows like them the coverage is at least as
        asked, whether or not the probabilities are right. Otherwise each is the smallest set whose probabilities sum to the
        coverage. `method` of the result says which. The most probable class is always in the set.

        Parameters
        ----------
        X : array, sparse matrix or data frame (rows, features)
        coverage : float
            Between 0 and 1.
        level : int, str or None
            Depth from 1, name of a level, or None for the leaves.
        prior : str, float, array or dict
            See `predict_proba`. Conformal sets know "train", "uniform" and "calibrated".
        subtree : bool
            The classes below one node: the smallest such set, for which the result has `nodes`.
        conformal : bool, optional
            None: where calibrated for this prior and level. True: an error where not. False: never.

        Returns
        -------
        PredictionSets
            ``sets[i]`` is a tuple of labels; `members` is a boolean array (rows, classes).

        Raises
        ------
        OptionError
            A coverage outside 0 and 1, conformal sets that have not been calibrated.

        References
        ----------
        Romano, Sesia and Candès (2020), Classification with valid and adaptive coverage (without its randomisation); for
        subtrees Angelopoulos, Bates, Fisch, Lei and Schuster (2022), Conformal risk control.
        """
        _check_fitted(self)
        if isinstance(coverage, bool) or not (isinstance(coverage, (int, float, np.number)) and 0 < coverage < 1):
            raise OptionError(f"coverage={coverage!r} must lie between 0 and 1")
        cut = Cut(self.tree_, self.tree_.level(level))
        found = self._conformal(conformal, prior, cut.depth)
        p = self._leaves_with(X, prior)
        at_level = p if len(cut.ends) == p.shape[1] else self.tree_.sums(p, cut.ends)
        nodes = None
        if subtree:
            members, answers = subtrees(cut, p, coverage, found)
            nodes = self._labels(answers).tolist()
        else:
            members = smallest_sets(at_level, coverage, found)
        order = np.argsort(-at_level, axis=1, kind="stable")
        method = "probabilities" if found is None else "conformal"
        return PredictionSets(self.classes_at(level), members, order, float(coverage), method, nodes)

    def _conformal(self, conformal: bool | None, prior: Any, depth: int) -> LevelCalibration | None:
        if conformal:
            return self._at_level("predict_set with conformal=True", prior, depth)
        calibration: Calibration | None = getattr(self, "calibration_", None)
        if conformal is not None or calibration is None or not isinstance(prior, str):
            return None
        return calibration.levels.get((prior, depth))

    # ---- calibration ---------------------------------------------------------------------------------------------

    def calibrate(self, X: Any, y: Any, *, tau: str | float = "log-loss", temperature: bool = False) -> Self:
        """Learn from held-out rows what ``prior="calibrated"``, `Darts`, `Guarantee` and conformal sets need.

        The coefficients stay. The rows must not be training rows, and should be drawn as the rows to be predicted are: then
        guarantees hold as they are stated for "train" and "uniform". For "calibrated" they hold closely, since one or two
        numbers are fitted to the same rows. `fit` forgets the calibration.

        Parameters
        ----------
        X : array, sparse matrix or data frame (rows, features)
        y : array or data frame
            Labels in any form that `fit` takes. Stop rules and sets use the rows whose label reaches down to the level asked.
        tau : {"log-loss", "macro-f1"} or float
            The power of the training shares that ``prior="calibrated"`` divides out (see `predict_proba`): of least log-loss,
            which stays near 0 if the shares are as in training; or of the highest mean F1 of the classes in `y`, which helps
            small classes; or this number.
        temperature : bool
            Find a temperature by the log-loss too, taken before tau. The scales found by `fit` already set how sure the
            probabilities are, so that this rarely helps.

        Returns
        -------
        self
            With `tau_`, `temperature_` and `calibration_`.

        Raises
        ------
        DataError
            Labels missing or not in the tree, other numbers of rows and labels, no rows, no leaves where they are needed.
        OptionError
            An unknown `tau`.

        Warns
        -----
        MultilevelWarning
            More than one row in twenty is also a training row: probabilities are too good there, and what is learnt too bold.
        """
        _check_fitted(self)
        check_tau(tau)
        p = self._leaf_probabilities(X)
        nodes = self._read_labels(y, len(p), self.tree_)[1]
        _warn_of_training_rows(self, X)
        heat = best_temperature(self.tree_, p, nodes) if temperature else 1.0
        if isinstance(tau, str):
            power, profile = best_power(self.tree_, p, self.class_shares_, nodes, heat, tau)
        else:
            power, profile = float(tau), []
        found = Calibration(power, heat, len(p), profile)
        self.calibration_ = replace(found, levels=_levels(self.tree_, self.class_shares_, p, nodes, found))
        return self

    @property
    def tau_(self) -> float:
        """Power of the training shares that ``prior="calibrated"`` divides out."""
        return self._calibration_or_attribute_error("tau_").tau

    @property
    def temperature_(self) -> float:
        """Temperature of ``prior="calibrated"``."""
        return self._calibration_or_attribute_error("temperature_").temperature

    def _calibration_or_attribute_error(self, name: str) -> Calibration:
        found: Calibration | None = getattr(self, "calibration_", None)
        if found is None:
            raise AttributeError(f"{name} is there after calibrate(X, y) only")
        return found

    def _calibration(self, what: str) -> Calibration:
        found: Calibration | None = getattr(self, "calibration_", None)
        if found is None:
            raise OptionError(
                f"{what} needs held-out rows: call calibrate(X, y) first, with rows that fit has not seen"
            )
        return found

    def _at_level(self, what: str, prior: Any, depth: int) -> LevelCalibration:
        """What the calibration rows tell for a prior and a level."""
        calibration = self._calibration(what)
        if not isinstance(prior, str):
            raise OptionError(
                f"{what} is calibrated for prior='train', 'uniform' and 'calibrated', not for {prior!r}: for a number tau, "
                "calibrate(X, y, tau=tau) and predict with prior='calibrated'; for other shares of the classes give "
                "calibration rows with these shares"
            )
        found = calibration.levels.get((prior, depth))
        if found is None:
            log_factors(
                self.tree_, self.class_shares_, prior if prior != "calibrated" else 0.0
            )  # refuses unknown names
            raise OptionError(
                f"{what}: no calibration row is labelled down to level {self.tree_.levels[depth - 1]!r}; "
                "calibrate with such rows"
            )
        return found


def _check_fitted(estimator: Any) -> None:
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(estimator)


def _rule(stop: Any, cost: Any) -> Any:
    """The rule asked for: a threshold (0 for the best class of the level), Darts, Guarantee or Cost."""
    if cost is not None:
        if stop is not None:
            raise OptionError("stop and cost are two rules: give one of them")
        return cost if isinstance(cost, Cost) else Cost(cost)
    if stop is None or isinstance(stop, (Darts, Guarantee, Cost)):
        return stop
    if isinstance(stop, (int, float, np.number)) and not isinstance(stop, bool) and 0 <= stop <= 1:
        return float(stop)
    raise OptionError(
        f"stop={stop!r} is not known: give a probability from 0 to 1, Darts(...), Guarantee(...) or Cost(...)"
    )


def _answers(cut: Cut, p: Floats, rule: Any, knob: Any) -> Ints:
    """Node of each row's answer."""
    if rule is None:
        at_level = p if len(cut.ends) == p.shape[1] else cut.tree.sums(p, cut.ends)
        return np.asarray(cut.ends[at_level.argmax(axis=1)])
    if isinstance(rule, Cost):
        return least_cost(cut, p, knob)
    values, nodes = cut.best(p)
    if isinstance(rule, Darts) or (isinstance(rule, Guarantee) and rule.rule == "darts"):
        groups = best_darts(values, cut.information, knob)
    else:
        groups = best_threshold(values, knob)
    return np.asarray(nodes[np.arange(len(p)), groups])


def _levels(
    tree: Taxonomy, shares: Floats, p: Floats, nodes: Ints, found: Calibration
) -> dict[tuple[str, int], LevelCalibration]:
    """What the rows tell for each prior at each level."""
    out = {}
    priors = {"train": (0.0, 1.0), "uniform": (1.0, 1.0), "calibrated": (found.tau, found.temperature)}
    for prior, (power, heat) in priors.items():
        changed = reweighted(p, log_factors(tree, shares, power), heat)
        for depth in range(1, len(tree.levels) + 1):
            at_level = level_calibration(Cut(tree, depth), changed, nodes)
            if at_level is not None:
                out[prior, depth] = at_level
    return out


def _warn_of_training_rows(estimator: Any, X: Any) -> None:
    """Tell of rows that are among the training rows, which are known by a number each; a few may be alike by chance."""
    from .fitting import row_hash

    kept = getattr(estimator, "row_hashes_", None)
    if kept is None:
        return
    hashes = row_hash(estimator._rows(X))
    copies = int(np.isin(hashes[hashes != 0], kept).sum())  # a row without any feature has the number 0
    if copies > 0.05 * len(hashes):
        warnings.warn(
            f"{copies} of the {len(hashes)} calibration rows are also training rows: the probabilities are too good there, "
            "and what is learnt from them is too bold; calibrate with rows that the fit has not seen",
            MultilevelWarning,
            stacklevel=users_level(),
        )
