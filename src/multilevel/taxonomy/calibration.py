"""What held-out rows tell about the probabilities: the prior's power, temperature, errors of stop rules, conformal scores."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError, MultilevelWarning, OptionError, users_level
from .shares import log_probabilities, positive_shares
from .stopping import Cut, Darts, Guarantee, best_darts
from .tree import Taxonomy

__all__ = ["Calibration", "LevelCalibration", "RiskCurve", "best_power", "best_temperature", "knob_of", "upper_bound"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]

# Knobs from the boldest to the most cautious, whose answer is always the root. Fixed before any rows are seen: the proof
# of `Guarantee` needs this. Thresholds are dense near 1, where sure probabilities lie.
THRESHOLDS: Floats = np.concatenate([np.linspace(0.0, 0.99, 991), 1.0 - np.geomspace(0.0099, 1e-6, 60), [1.0, np.inf]])
REWARDS: Floats = np.concatenate([[0.0], np.geomspace(1e-3, 1e6, 361), [np.inf]])
POWERS: Floats = np.linspace(0.0, 1.5, 31)  # tried for the macro-F1
POWER_RANGE = (-1.0, 2.0)  # searched for the log-loss
TEMPERATURE_RANGE = (0.1, 10.0)


@dataclass(frozen=True)
class RiskCurve:
    """Wrong answers of a rule on the calibration rows, by its knob.

    Attributes
    ----------
    knobs : array (k,)
        From the boldest to the most cautious.
    errors : int array (k,)
        Answers that are neither the true class nor above it.
    rows : int
    """

    knobs: Floats
    errors: npt.NDArray[np.int64]
    rows: int

    def boldest(self, allowed: npt.NDArray[np.bool_]) -> float:
        """The last allowed knob on the way from the most cautious before the first that is not; the first where none is."""
        refused = np.flatnonzero(~allowed)
        at = refused[-1] + 1 if len(refused) else 0
        return float(self.knobs[min(at, len(self.knobs) - 1)])


@dataclass(frozen=True)
class LevelCalibration:
    """What the calibration rows tell at one level, for one prior.

    Attributes
    ----------
    threshold, darts : RiskCurve
        By the least probability, and by the reward of `Darts`.
    scores : float array (rows,)
        Conformal scores in order: the sum of the probabilities above that of the true class.
    """

    threshold: RiskCurve
    darts: RiskCurve
    scores: Floats

    def quantile(self, coverage: float) -> float:
        """The score that a share `coverage` of new rows stays within; infinite where the rows are too few to tell."""
        rank = int(np.ceil((len(self.scores) + 1) * coverage - 1e-9))
        return float(self.scores[rank - 1]) if rank <= len(self.scores) else float("inf")


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` found.

    Attributes
    ----------
    tau, temperature : float
        Used by ``prior="calibrated"``.
    rows : int
    profile : list of (tau, macro-F1)
        Where tau was chosen by the macro-F1, else empty.
    levels : dict
        `LevelCalibration` by prior ("train", "uniform", "calibrated") and depth, without depths that no row's label reaches.
    """

    tau: float
    temperature: float
    rows: int
    profile: list[tuple[float, float]] = field(default_factory=list)
    levels: dict[tuple[str, int], LevelCalibration] = field(default_factory=dict)


# ---- power and temperature -------------------------------------------------------------------------------------------


def best_temperature(tree: Taxonomy, p: Floats, nodes: Ints) -> float:
    """Temperature of least log-loss."""
    logs = log_probabilities(p)
    low, high = (np.log(end) for end in TEMPERATURE_RANGE)
    found = _least(lambda at: log_loss(tree, logs / np.exp(at), nodes), low, high)
    return float(np.exp(found))


def best_power(
    tree: Taxonomy, p: Floats, shares: Floats, nodes: Ints, temperature: float, by: str
) -> tuple[float, list[tuple[float, float]]]:
    """Power of the training shares of least log-loss or highest macro-F1, and the profile of the latter.

    Parameters
    ----------
    tree : Taxonomy
    p : array (rows, leaves)
    shares : array (leaves,)
        Of the training items.
    nodes : int32 array (rows,)
        True classes.
    temperature : float
        Taken before the power.
    by : "log-loss" or "macro-f1"

    Raises
    ------
    DataError
        No row is labelled with a leaf, which the macro-F1 needs.
    """
    logs, of_shares = log_probabilities(p) / temperature, np.log(positive_shares(shares))
    if by == "log-loss":
        return _least(lambda tau: log_loss(tree, logs - tau * of_shares, nodes), *POWER_RANGE), []
    known = tree.leaf_of[nodes] >= 0
    if not known.any():
        raise DataError(
            "no row is labelled with a leaf, which tau='macro-f1' needs: take tau='log-loss', or give leaves"
        )
    truth, logs = tree.leaf_of[nodes[known]], logs[known]
    profile = [(float(tau), macro_f1(truth, (logs - tau * of_shares).argmax(axis=1))) for tau in POWERS]
    return max(profile, key=lambda pair: pair[1])[0], profile  # of equal ones the first: the least change


def _least(value: Callable[[float], float], low: float, high: float) -> float:
    from scipy.optimize import minimize_scalar

    return float(minimize_scalar(value, bounds=(low, high), method="bounded", options={"xatol": 1e-4}).x)


def log_loss(tree: Taxonomy, logits: Floats, nodes: Ints) -> float:
    """Mean of -log P(true node), with the softmax of the leaves' logits; an inner node is the sum of its leaves."""
    from scipy.special import logsumexp

    total = float(np.sum(logsumexp(logits, axis=1)))
    for node in np.unique(nodes):
        total -= float(np.sum(logsumexp(logits[nodes == node, tree.first[node] : tree.last[node]], axis=1)))
    return total / len(nodes)


def macro_f1(truth: Ints, predicted: npt.NDArray[np.intp]) -> float:
    """Mean F1 over the classes that occur in `truth`: a set that does not change with the prediction."""
    count = int(max(truth.max(), predicted.max())) + 1
    occur, said = np.bincount(truth, minlength=count), np.bincount(predicted, minlength=count)
    right = np.bincount(truth[truth == predicted], minlength=count)
    there = occur > 0
    return float(np.mean(2.0 * right[there] / (occur + said)[there]))


# ---- stop rules ------------------------------------------------------------------------------------------------------


def level_calibration(cut: Cut, p: Floats, nodes: Ints) -> LevelCalibration | None:
    """Errors and scores at a level, from the rows whose label reaches down to it; None where there is no such row."""
    reached = np.isin(cut.tree.raised(nodes, cut.depth), cut.ends)
    if not reached.any():
        return None
    p, nodes = p[reached], nodes[reached]
    values, answers = cut.best(p)
    right = cut.above(answers, nodes)
    truth = np.searchsorted(cut.ends, cut.tree.raised(nodes, cut.depth))
    scores = np.sort(sums_before(cut.tree.sums(p, cut.ends))[np.arange(len(p)), truth])
    thresholds = RiskCurve(THRESHOLDS, threshold_errors(values, right), len(p))
    return LevelCalibration(
        thresholds, RiskCurve(REWARDS, darts_errors(values, cut.information, right), len(p)), scores
    )


def threshold_errors(values: Floats, right: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Wrong answers at each of `THRESHOLDS`.

    A row answers with group g where the threshold lies above the probabilities of the groups before and is at most its
    own: one interval, counted by its ends.
    """
    ahead = np.full(values.shape, -np.inf)
    ahead[:, 1:] = np.maximum.accumulate(values, axis=1)[:, :-1]
    begin = np.searchsorted(THRESHOLDS, ahead, side="right")
    end = np.searchsorted(THRESHOLDS, values, side="right")
    end[:, -1] = len(THRESHOLDS)
    wrong = ~right & (begin < end)
    steps = np.bincount(begin[wrong], minlength=len(THRESHOLDS) + 1) - np.bincount(
        end[wrong], minlength=len(THRESHOLDS) + 1
    )
    return np.asarray(np.cumsum(steps)[:-1])


def darts_errors(values: Floats, information: Floats, right: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Wrong answers at each of `REWARDS`."""
    rows = np.arange(len(values))
    return np.array(
        [np.sum(~right[rows, best_darts(values, information, reward)]) for reward in REWARDS], dtype=np.int64
    )


def upper_bound(errors: npt.ArrayLike, rows: int, delta: float) -> Floats:
    """One-sided upper confidence bound of Clopper and Pearson (1934) for the probability of an error."""
    from scipy.special import betaincinv

    wrong = np.asarray(errors, dtype=np.float64)
    bound = betaincinv(wrong + 1.0, np.maximum(rows - wrong, 0.5), 1.0 - delta)
    return np.where(wrong >= rows, 1.0, bound)


def knob_of(rule: Darts | Guarantee, found: LevelCalibration) -> float:
    """Threshold or reward with which a rule keeps its promise on the calibration rows."""
    curve = found.threshold if isinstance(rule, Guarantee) and rule.rule == "threshold" else found.darts
    least = 0
    if isinstance(rule, Darts):
        allowed = curve.errors <= (1.0 - rule.accuracy) * curve.rows + 1e-9
    else:
        allowed = upper_bound(curve.errors, curve.rows, rule.delta) <= 1.0 - rule.accuracy
        least = int(np.ceil(np.log(rule.delta) / np.log(rule.accuracy)))
    knob = curve.boldest(allowed)
    if np.isinf(knob):
        few = (
            f"at least {least} are needed even without errors"
            if curve.rows < least
            else "too many sure answers are wrong"
        )
        warnings.warn(
            f"{rule} cannot be kept with {curve.rows} calibration rows ({few}): every answer is the root. Calibrate "
            "with more rows, or ask for less",
            MultilevelWarning,
            stacklevel=users_level(),
        )
    return knob


def subtree_threshold(found: LevelCalibration, coverage: float) -> float:
    """Threshold at which a new row's answer misses the true class with a probability of at most 1 - coverage.

    The probability is over calibration sets as well.

    Conformal risk control (Angelopoulos, Bates, Fisch, Lei and Schuster 2022) needs errors that fall as the threshold
    rises in every row: true from 1/2 up, where a row's answers lie on one path.
    """
    curve = found.threshold
    allowed = (curve.errors + 1.0) / (curve.rows + 1.0) <= 1.0 - coverage + 1e-12
    return curve.boldest(allowed & (curve.knobs >= 0.5))


# ---- sets ------------------------------------------------------------------------------------------------------------


def sums_before(p: Floats) -> Floats:
    """For each class the sum of the probabilities above its own, and of equal ones before it; (rows, classes)."""
    order = np.argsort(-p, axis=1, kind="stable")
    ranked = np.take_along_axis(p, order, axis=1)
    before = np.zeros_like(ranked)
    np.cumsum(ranked[:, :-1], axis=1, out=before[:, 1:])
    out = np.empty_like(before)
    np.put_along_axis(out, order, before, axis=1)
    return out


def check_tau(tau: Any) -> None:
    """Raise for a `tau` that `calibrate` does not know."""
    number = isinstance(tau, (int, float, np.number)) and not isinstance(tau, bool) and np.isfinite(tau)
    if not number and tau not in ("log-loss", "macro-f1"):
        raise OptionError(
            f"tau={tau!r} is not known: take 'log-loss', 'macro-f1' or a number (0 keeps the training prior)"
        )
