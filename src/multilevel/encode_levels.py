"""Levels of nested columns as numbers, and the means of a random-intercept model at each of them; knows no scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import MultilevelWarning

if TYPE_CHECKING:
    import pandas as pd

    from .fit import Fit

__all__ = ["LINKS", "Encoding", "Levels", "random_intercepts"]

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

LINKS = {"gaussian": "identity", "binomial": "logit", "poisson": "log", "nbinom2": "log", "gamma": "log"}
EXACT = 1e-12  # share of the squares within levels at or below which the fit would find no residual
LOGIT_WIDTH = 0.5  # step over a logistic curve that keeps all digits; see normal_mean


@dataclass(frozen=True)
class Levels:
    """The levels of columns nested in each other, such as city in region, as training rows showed them.

    Attributes
    ----------
    labels : tuple of dict
        Of each column: label -> number; a missing value that counts as a level has the label None.
    keys : tuple of array
        Of each depth, sorted: number of the level above times the size of the column's `labels`, plus the label's number.
        A level's number at that depth is its place here.
    """

    labels: tuple[dict[Any, int], ...]
    keys: tuple[Ints, ...]

    @classmethod
    def read(cls, columns: Sequence[pd.Series[Any]], missing: str) -> tuple[Levels, Ints]:
        """The levels of training rows, and the rows' numbers (n, depth) as `codes` gives them."""
        above = np.zeros(len(columns[0]), dtype=np.int64)
        labels: list[dict[Any, int]] = []
        keys: list[Ints] = []
        codes = np.empty((len(above), len(columns)), dtype=np.int64)
        for depth, column in enumerate(columns):
            own, names = _factorised(column)
            if missing == "level" and np.any(own < 0):
                names = [*names, None]
                own = np.where(own < 0, len(names) - 1, own)
            labels.append({name: at for at, name in enumerate(names)})
            joint = np.where((above < 0) | (own < 0), -1, above * max(len(names), 1) + own)
            keys.append(np.unique(joint[joint >= 0]))
            above = codes[:, depth] = np.where(joint < 0, -1, np.searchsorted(keys[-1], joint))
        return cls(tuple(labels), tuple(keys)), codes

    def codes(self, columns: Sequence[pd.Series[Any]]) -> Ints:
        """Number of each row's level at each depth (n, depth); -1 from the first one on that is unknown or missing."""
        above = np.zeros(len(columns[0]), dtype=np.int64)
        out = np.empty((len(above), len(columns)), dtype=np.int64)
        for depth, (column, labels, keys) in enumerate(zip(columns, self.labels, self.keys, strict=True)):
            own, names = _factorised(column)
            known = np.array([*(labels.get(name, -1) for name in names), labels.get(None, -1)], dtype=np.int64)
            own = known[own]  # -1, missing, reads the last entry
            joint = np.where((above < 0) | (own < 0), -1, above * max(len(labels), 1) + own)
            place = np.searchsorted(keys, joint)
            there = (joint >= 0) & (place < len(keys))
            there[there] = keys[place[there]] == joint[there]
            above = out[:, depth] = np.where(there, place, -1)
        return out

    def above(self, depth: int) -> Ints:
        """For each level at a depth the number of the level above it (0 at the top)."""
        return self.keys[depth] // max(len(self.labels[depth]), 1)

    def names(self, depth: int) -> list[tuple[Any, ...]]:
        """For each level at a depth its labels from the top down."""
        own = list(self.labels[depth])
        last = [own[at] for at in (self.keys[depth] % max(len(own), 1)).tolist()]
        if depth == 0:
            return [(name,) for name in last]
        higher = self.names(depth - 1)
        return [(*higher[up], name) for up, name in zip(self.above(depth).tolist(), last, strict=True)]


@dataclass(frozen=True)
class Encoding:
    """Means of a target at every known level.

    Attributes
    ----------
    population : float
        Of a row of which no level is known.
    values : tuple of array
        Of each depth: the mean at each level, by its number.
    sds : array (depth,)
        Standard deviations of the intercepts between levels, on the link's scale; NaN where the rows cannot tell.
    sigma : float
        Residual standard deviation of the gaussian family, else NaN.
    certified : bool
        False where the optimum could not be certified: the rows hardly determine the sds.
    """

    population: float
    values: tuple[Array, ...]
    sds: Array
    sigma: float
    certified: bool = True

    def at(self, codes: Ints) -> Array:
        """The mean of rows (n,), from the deepest level that is known."""
        out = np.full(len(codes), self.population)
        for depth, values in enumerate(self.values):
            known = codes[:, depth] >= 0
            out[known] = values[codes[known, depth]]
        return out


def random_intercepts(y: Array, codes: Ints, levels: Levels, family: str, scale: str) -> Encoding:
    """Fit ``y ~ 1 + (1 | first) + (1 | first:second) + ...`` and give its mean at every level.

    Parameters
    ----------
    y : (n,) array
        Numbers; of the binomial family zeros and ones.
    codes : (n, depth) array
        As `Levels.codes`; rows with -1 are left out.
    levels : Levels
        May know more levels than these rows have: those take the mean of the level above.
    family : str
        One of `LINKS`.
    scale : {"response", "link"}

    Notes
    -----
    A depth is left out of the model where the rows cannot tell its variance: it has one level, a level for each row, or
    just the levels of the depth above.
    """
    used = codes[:, -1] >= 0
    y, codes = (y[used], codes[used]) if used.any() else (y, codes[:, :0])
    kept = _depths(codes)
    empty = [np.full(len(keys), np.nan) for keys in levels.keys]
    none = np.full(len(levels.keys), np.nan)
    if not kept or np.all(y == y[0]):
        found = Encoding(_constant(y, family, scale), tuple(empty), none, np.nan)
    elif family == "gaussian" and _exact(y, codes[:, kept[-1]]):
        found = _unpooled(y, codes, kept, empty)
    else:
        found = _pooled(y, codes, kept, empty, family, scale)
    return _filled(found, levels)


def _factorised(column: pd.Series[Any]) -> tuple[Ints, list[Any]]:
    """Numbers of a column's values in the order met, -1 where missing; the labels, comparable between libraries."""
    import pandas as pd

    from .frame import _key

    codes, names = pd.factorize(column)
    return codes.astype(np.int64), [_key(name) for name in np.asarray(names, dtype=object)]


def _depths(codes: Ints) -> list[int]:
    """Depths whose variance the rows can tell."""
    kept, last = [], 1
    for depth in range(codes.shape[1]):
        count = len(np.unique(codes[:, depth]))
        if last < count < len(codes):
            kept.append(depth)
            last = count
    return kept


def _constant(y: Array, family: str, scale: str) -> float:
    """The mean of all; half a success and half a failure more where a logarithm would be infinite (Haldane, Anscombe)."""
    mean = float(y.mean())
    if family == "binomial" and (mean in (0.0, 1.0)):
        mean = (mean * len(y) + 0.5) / (len(y) + 1)
    if scale == "response" or family == "gaussian":
        return mean
    if family == "binomial":
        return float(np.log(mean) - np.log1p(-mean))
    return float(np.log(mean if mean > 0 else 0.5 / len(y)))


def _exact(y: Array, codes: Ints) -> bool:
    """Whether the levels explain the response without a residual, so that nothing is to be smoothed."""
    _, at, counts = np.unique(codes, return_inverse=True, return_counts=True)
    within = y - (np.bincount(at, y) / counts)[at]
    return bool(within @ within <= EXACT * ((y - y.mean()) @ (y - y.mean())))


def _unpooled(y: Array, codes: Ints, kept: list[int], empty: list[Array]) -> Encoding:
    """The limit without a residual: each level's own mean; what is unknown takes the mean of the levels' means."""
    present, at, counts = np.unique(codes[:, kept[-1]], return_inverse=True, return_counts=True)
    means, first = np.bincount(at, y) / counts, np.unique(at, return_index=True)[1]
    values = list(empty)
    for place in range(len(kept) - 1, -1, -1):
        depth = kept[place]
        values[depth] = values[depth].copy()
        values[depth][present] = means
        if place:
            higher = codes[first, kept[place - 1]]
            present, at, counts = np.unique(higher, return_inverse=True, return_counts=True)
            means, first = np.bincount(at, means) / counts, first[np.unique(at, return_index=True)[1]]
    return Encoding(float(means.mean()), tuple(values), np.full(len(values), np.nan), 0.0)


def _pooled(y: Array, codes: Ints, kept: list[int], empty: list[Array], family: str, scale: str) -> Encoding:
    """The fitted model's means at the levels that the rows have."""
    fit = _fit(y, codes, kept, family)
    names = [f"level_{depth + 1}" for depth in kept]
    table = fit.varcorr()
    by_group = dict(zip(table["group"], np.asarray(table["sdcor"], dtype=np.float64), strict=True))
    sds = np.full(len(empty), np.nan)
    sds[kept] = [by_group[name] for name in names]
    values = list(empty)
    unknown = np.max(codes) + 1
    for place, depth in enumerate(kept):
        present, first = np.unique(codes[:, depth], return_index=True)
        rows = {name: codes[first, at] for name, at in zip(names, kept, strict=True)}
        rows |= {name: np.full(len(first), unknown) for name in names[place + 1 :]}
        values[depth] = values[depth].copy()
        values[depth][present] = _means(fit, rows, np.sum(sds[kept[place + 1 :]] ** 2), family, scale)
    top = {name: np.array([unknown]) for name in names}
    population = float(_means(fit, top, np.sum(sds[kept] ** 2), family, scale)[0])
    sigma = float(fit.sigma) if family == "gaussian" else np.nan
    return Encoding(population, tuple(values), sds, sigma, bool(fit.convergence.converged))


def _fit(y: Array, codes: Ints, kept: list[int], family: str) -> Fit:
    """The model; a variance of zero is an answer here, and doubt about the optimum is `Encoding.certified`."""
    from .model import Model

    columns: dict[str, Any] = {f"level_{depth + 1}": codes[:, depth] for depth in kept}
    right = " + ".join(f"(1 | {name})" for name in columns)
    left = "target"
    successes = y
    if family == "binomial":  # zeros and ones of a level are as good as their sum
        _, first, at = np.unique(codes[:, kept[-1]], return_index=True, return_inverse=True)
        columns = {name: column[first] for name, column in columns.items()}
        successes, left = np.bincount(at, y).astype(np.float64), "target | trials(rows)"
        columns["rows"] = np.bincount(at)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MultilevelWarning)
        model = Model(f"{left} ~ 1 + {right}", {"target": successes, **columns}, family=family, link=_link(family))
        return model.fit(threads=1)


def _link(family: str) -> str | None:
    return None if family == "gaussian" else LINKS[family]


def _means(fit: Fit, rows: dict[str, Any], variance: float, family: str, scale: str) -> Array:
    """Mean of the target in levels whose intercepts below are unknown, with that variance on the link's scale."""
    from .families import Family
    from .normal_mean import normal_mean

    eta = np.asarray(fit.predict(rows, kind="link", new_levels="population")["prediction"], dtype=np.float64)
    if scale == "link" or family == "gaussian":
        return eta
    if LINKS[family] == "log":
        return np.asarray(np.exp(eta + variance / 2))
    mean = Family("binomial", "logit").mean
    return normal_mean(lambda values, _: mean(values), eta, np.full(len(eta), np.sqrt(variance)), LOGIT_WIDTH)


def _filled(found: Encoding, levels: Levels) -> Encoding:
    """Levels that the rows lack, and depths left out, with the mean of the level above."""
    values: list[Array] = []
    for depth, own in enumerate(found.values):
        above = values[-1][levels.above(depth)] if depth else np.full(len(own), found.population)
        values.append(np.where(np.isnan(own), above, own))
    return replace(found, values=tuple(values))
