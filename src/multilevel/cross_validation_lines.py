"""Numbers behind the plots of cross-validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .cross_validation_table import MEASURES, MORE_IS_BETTER, mean_of
from .errors import OptionError, listing, nearest

if TYPE_CHECKING:
    from .cross_validation_table import CrossValidation

__all__ = [
    "Bars", "Differences", "GroupScores", "bars", "differences", "fold_scores", "gain_by_size", "group_scores", "measure_of",
]  # fmt: skip

Array = NDArray[np.float64]
MANY = 20  # groups, from which on those of like size are averaged


def measure_of(result: CrossValidation, score: str | None, joint: bool) -> str:
    """The score to draw.

    Raises
    ------
    OptionError
        Where there is none of that name here.
    """
    known = (*MEASURES, *(["joint_log_score"] if joint and result.folds.units else []))
    if score is None:
        return "joint_log_score" if "joint_log_score" in known else "log_score"
    if score not in known:
        raise OptionError(f"there is no score {score!r} here; {nearest(score, known) or 'there are ' + listing(known)}")
    return score


@dataclass(frozen=True)
class Differences:
    """Scores of k models on what all of them predict, and differences to the best.

    Attributes
    ----------
    names : tuple of str
        Models that predict anything, the best first.
    value, std_error : (k,) arrays
    behind, behind_error : (k,) arrays
        How much worse than the best, not negative, with the standard error of paired differences; zero and NaN of the best.
    n : int
        Rows, or groups of a joint score.
    silent : tuple of str
        Models that predict nothing of what was left out.
    """

    names: tuple[str, ...]
    value: Array
    std_error: Array
    behind: Array
    behind_error: Array
    n: int
    silent: tuple[str, ...]


def differences(result: CrossValidation, measure: str) -> Differences:
    """Models on what all predict that predict anything; the best is the first in the table of `Differences`."""
    joint = measure == "joint_log_score"
    scored = {name: ~np.isnan(result._joint[name]) if joint else result._scored(name, measure) for name in result.names}
    some = [name for name in result.names if scored[name].any()]
    if not some:
        raise _no_score(measure)
    common = np.logical_and.reduce([scored[name] for name in some])
    if not common.any():
        raise OptionError("no row is predicted by all of the models, so that their scores do not compare; see by_row()")
    found = [
        (*mean_of(result._joint[name][common]), result._joint[name]) if joint else result._measure(name, measure, common)
        for name in some
    ]
    value, error, parts = (
        np.array([one[0] for one in found]),
        np.array([one[1] for one in found]),
        [one[2] for one in found],
    )
    sign = -1.0 if measure in MORE_IS_BETTER else 1.0
    order = np.argsort(sign * value, kind="stable")
    best = order[0]
    apart = [np.nan if i == best else _error(result, parts[i] - parts[best], common, joint) for i in order]
    return Differences(
        tuple(some[i] for i in order),
        value[order],
        error[order],
        sign * (value[order] - value[best]),
        np.array(apart),
        int(common.sum()),
        tuple(name for name in result.names if name not in some),
    )


def _error(result: CrossValidation, each: Array, where: NDArray[np.bool_], joint: bool) -> float:
    return mean_of(each[where])[1] if joint else result._mean(each, where)[1]


def fold_scores(result: CrossValidation, measure: str) -> Array:
    """(models, folds) a score of every model in every fold; NaN where it predicts nothing there."""
    out = np.full((len(result.names), result.folds.count), np.nan)
    for i, name in enumerate(result.names):
        scored = result._scored(name, measure)
        for k in range(result.folds.count):
            own = scored & (result.folds.fold == k)
            out[i, k] = result._measure(name, measure, own)[0] if own.any() else np.nan
    if np.isnan(out).all():
        raise _no_score(measure)
    return out


def _no_score(measure: str) -> OptionError:
    return OptionError(
        f"no model has the score {measure!r}: none predicts any of what was left out, or the response is of categories, "
        "which have no errors"
    )


@dataclass(frozen=True)
class GroupScores:
    """Log scores per row of J groups under each model.

    Attributes
    ----------
    group : str
    levels : tuple
    n : (J,) int array
        Rows scored.
    score : (models, J) array
        Mean log score of the group's rows; of a group left out as a whole its joint log score over its rows.
    gain : (models, J) array
        What the first model has more than each.
    gain_error : (models, J) array
        Standard error of that, from paired differences of rows; NaN of joint scores.
    joint : bool
    """

    group: str
    levels: tuple[Any, ...]
    n: NDArray[np.int64]
    score: Array
    gain: Array
    gain_error: Array
    joint: bool


def group_scores(result: CrossValidation, group: str | None = None) -> GroupScores:
    """Log scores of groups: those left out, else those of a grouping factor of the first model.

    Raises
    ------
    OptionError
        Without groups, and for a group that is not there.
    """
    f = result.folds
    if f.units:
        if group not in (None, f.what):
            raise OptionError(
                f"what was left out together is {f.what!r}, so that {group!r} has no scores; leave group= out"
            )
        n = np.bincount(f.unit[f.unit >= 0], minlength=len(f.units))
        score = np.array([result._joint[name] / n for name in result.names])
        what = "fold" if f.what == "folds" else "group" if f.what == "groups" else f.what
        return GroupScores(what, f.units, n, score, score[0] - score, np.full(score.shape, np.nan), True)
    return _of_rows(result, group)


def _of_rows(result: CrossValidation, group: str | None) -> GroupScores:
    from .effect_lines import pick
    from .resampling import outermost

    d = result.model.design
    if not d.terms:
        raise OptionError("the first model has no groups to show scores of; give one with random terms first")
    known = list(dict.fromkeys(term.group for term in d.terms))
    name = outermost(d)[0] if group is None else pick(group, known, "grouping factor of the first model")
    term = next(one for one in d.terms if one.group == name)
    held, count = result.folds.fold >= 0, len(term.levels)
    rows = np.array([result._rows[one]["log_score"] for one in result.names])

    def mean(values: Array) -> tuple[Array, Array]:
        """Means of levels, and their standard errors; missing where a model does not predict all rows of one."""
        size = np.bincount(term.codes[held], minlength=count).astype(np.float64)
        some = np.where(size > 0, size, np.nan)
        centre = np.bincount(term.codes[held], values[held], count) / some
        square = np.bincount(term.codes[held], (values - centre[term.codes])[held] ** 2, count)
        return centre, np.sqrt(square / np.where(some > 1, some - 1, np.nan) / some)

    score = np.array([mean(one)[0] for one in rows])
    gains = [mean(rows[0] - one) for one in rows]
    n = np.bincount(term.codes[held], minlength=count)
    seen = n > 0
    return GroupScores(
        name,
        tuple(np.asarray(term.levels)[seen].tolist()),
        n[seen],
        score[:, seen],
        np.array([one for one, _ in gains])[:, seen],
        np.array([error for _, error in gains])[:, seen],
        False,
    )


def gain_by_size(n: Array, gain: Array) -> tuple[Array, Array]:
    """Mean gain over the rows of groups of like size, about a tenth of the groups each, and their mean size.

    Parameters
    ----------
    n, gain : (J,) arrays

    Returns
    -------
    size, gain : arrays
        Empty for few groups, and for groups of one size.
    """
    known = np.isfinite(gain)
    n, gain = n[known], gain[known]
    if len(n) < MANY or np.ptp(n) == 0:
        return np.empty(0), np.empty(0)
    steps = np.linspace(0, 1, max(3, min(10, len(n) // 8)), endpoint=False)
    edges = np.unique(np.quantile(n, steps, method="lower"))  # sizes that occur, so that equal ones stay together
    part = np.searchsorted(edges, n, side="right") - 1
    count, rows = np.bincount(part), np.bincount(part, n)
    return rows / count, np.bincount(part, n * gain) / rows


@dataclass(frozen=True)
class Bars:
    """Histogram of ranks in predictive distributions.

    Attributes
    ----------
    height : (bins,) array
        Relative to an even distribution, 1.
    low, high : float
        Where a bar lies with probability 0.95 if predictive distributions are right and rows independent.
    n : int
        Rows.
    """

    height: Array
    low: float
    high: float
    n: int


def bars(result: CrossValidation, model: str) -> Bars | None:
    """The histogram of a model; None where it predicts nothing.

    Responses that take the same value with positive probability are spread over the range that this value has in the
    distribution function (the histogram of Czado, Gneiting & Held 2009).
    """
    from scipy.stats import binom

    below, through = (result._rows[model][name] for name in ("below", "through"))
    some = ~np.isnan(below)
    n = int(some.sum())
    if not n:
        return None
    count = int(np.clip(round(n / 10), 5, 20))
    edges = np.linspace(0, 1, count + 1)
    low, width = below[some], through[some] - below[some]
    wide = np.where(width > 0, width, 1.0)
    inside = np.clip((edges[:, None] - low) / wide, 0, 1)
    steps = np.where(edges[:, None] > low, 1.0, 0.0)
    steps[-1] = 1.0
    share = np.where(width > 0, inside, steps)
    height = np.diff(share, axis=0).mean(axis=1) * count
    limits = np.asarray(binom.ppf([0.025, 0.975], n, 1 / count)) * count / n
    return Bars(height, float(limits[0]), float(limits[1]), n)
