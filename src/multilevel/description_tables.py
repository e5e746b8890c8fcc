"""Numbers behind `describe`: how grouping factors lie to each other, and columns within and between groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import frame

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Factor", "columns_of", "factor_of", "outliers_of", "relations", "sizes_of", "variances_of"]

Array = NDArray[np.float64]
OUTLYING = 3.0  # sds
ENOUGH = 11  # rows of a group below which no row can lie 3 of its own sds from its mean: (n - 1) / sqrt(n) < 3


@dataclass(frozen=True)
class Factor:
    """A grouping factor: codes (n,), -1 where missing, and levels (J,)."""

    name: str
    codes: NDArray[np.int32]
    levels: NDArray[Any]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(J,) rows of each level."""
        return np.bincount(self.codes[self.codes >= 0], minlength=len(self.levels))


def factor_of(name: str, table: frame.Table) -> Factor:
    """A column as grouping factor, or an interaction ``a:b`` of columns."""
    parts = [name] if name in table.names or ":" not in name else [one.strip() for one in name.split(":")]
    columns = [frame.factor(one, part) for part, one in table.load(parts, dict.fromkeys(parts, "groups")).items()]
    codes, levels = columns[0] if len(columns) == 1 else frame.interaction(*zip(*columns, strict=True))
    return Factor(name, codes, levels)


def relations(factors: Sequence[Factor]) -> list[dict[str, Any]]:
    """How each pair of factors lies to each other.

    Returns
    -------
    list of dict
        a, b; relation: "same", "nested" (a in b; the finer first) or "crossed"; pairs observed, possible; share; lone: share
        of the levels of a that meet a single level of b.
    """
    out = []
    for one, other in combinations(factors, 2):
        both = (one.codes >= 0) & (other.codes >= 0)
        pairs = np.unique(np.column_stack([one.codes[both], other.codes[both]]), axis=0)
        forth, back = (np.bincount(pairs[:, i]) for i in (0, 1))
        nested = int(forth.max(initial=0)) <= 1, int(back.max(initial=0)) <= 1
        finer, coarser, met = (other, one, back) if nested[1] and not nested[0] else (one, other, forth)
        possible = len(one.levels) * len(other.levels)
        out.append(
            {
                "a": finer.name,
                "b": coarser.name,
                "relation": "same" if all(nested) else "nested" if any(nested) else "crossed",
                "pairs": len(pairs),
                "possible": possible,
                "share": len(pairs) / possible if possible else np.nan,
                "lone": float(np.mean(met[met > 0] == 1)) if len(pairs) else np.nan,
            }
        )
    return out


def sizes_of(factors: Sequence[Factor]) -> list[dict[str, Any]]:
    """Levels and rows per level of each factor."""
    out = []
    for one in factors:
        sizes = one.sizes
        known = sizes if len(sizes) else np.zeros(1, dtype=np.int64)
        out.append(
            {
                "group": one.name,
                "levels": len(sizes),
                "min": int(known.min()),
                "median": float(np.median(known)),
                "mean": float(known.mean()),
                "max": int(known.max()),
                "single_row": int(np.sum(sizes == 1)),
                "missing": int(np.sum(one.codes < 0)),
            }
        )
    return out


def columns_of(series: Mapping[str, pd.Series[Any]], factors: Sequence[Factor]) -> list[dict[str, Any]]:
    """What each column holds, what is missing, and the coarsest factor within whose levels it does not vary."""
    out = []
    coarse_first = sorted(factors, key=lambda one: len(one.levels))
    for name, one in series.items():
        holes = frame.missing_mask(one)
        codes = _plain_codes(one, holes)
        out.append(
            {
                "column": name,
                "kind": frame.column_kind(one, name),
                "distinct": int(codes.max(initial=-1)) + 1,
                "missing": int(holes.sum()),
                "missing_share": float(holes.mean()) if len(holes) else np.nan,
                "varies_by": _level_of(codes, coarse_first),
            }
        )
    return out


def _plain_codes(series: pd.Series[Any], holes: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(n,) number of each value, -1 where missing; numbers that are not whole count as values too."""
    import pandas as pd

    codes = np.asarray(pd.factorize(series)[0], dtype=np.int64)
    codes[holes] = -1
    return codes


def _level_of(codes: NDArray[np.int64], coarse_first: Sequence[Factor]) -> str:
    """The level a column belongs to: "nothing" for a constant, a factor's name, or "row"."""
    if codes.max(initial=-1) <= 0:
        return "nothing"
    for one in coarse_first:
        known = np.flatnonzero((codes >= 0) & (one.codes >= 0))
        first = np.full(len(one.levels), -1, dtype=np.int64)
        first[one.codes[known]] = codes[known]
        several = np.bincount(one.codes[known], minlength=1).max(initial=0) > 1
        if several and np.array_equal(first[one.codes[known]], codes[known]):
            return one.name
    return "row"


def variances_of(values: Mapping[str, Array], factors: Sequence[Factor]) -> list[dict[str, Any]]:
    """Mean, sd and the variance within and between levels of every numeric column and factor.

    Between is the analysis of variance estimator (Searle, Casella & McCulloch 1992, section 3.6), zero where it is negative.
    """
    out = []
    for column, y in values.items():
        for one in factors:
            known = np.isfinite(y) & (one.codes >= 0)
            within, between = _components(y[known], one.codes[known])
            total = within + between
            out.append(
                {
                    "column": column,
                    "group": one.name,
                    "n": int(known.sum()),
                    "mean": float(y[known].mean()) if known.any() else np.nan,
                    "sd": float(y[known].std(ddof=1)) if known.sum() > 1 else np.nan,
                    "within": within,
                    "between": between,
                    "icc": between / total if total > 0 else np.nan,
                }
            )
    return out


def _components(y: Array, codes: NDArray[Any]) -> tuple[float, float]:
    """Variance within and between; NaN where all rows are alone in their level, or there is one level."""
    sizes = np.bincount(codes).astype(np.float64) if len(codes) else np.zeros(0)
    codes = (np.cumsum(sizes > 0) - 1)[codes] if len(codes) else codes
    sizes = sizes[sizes > 0]
    a, n = len(sizes), len(y)
    if a == n or a < 2:
        return (float(y.var(ddof=1)) if a == 1 and n > 1 else np.nan), np.nan
    centred = y - y.mean()
    mean = np.bincount(codes, centred) / sizes
    within = float(np.sum((centred - mean[codes]) ** 2)) / (n - a)
    within = 0.0 if within <= 1e-24 * float(np.sum(y**2)) / n else within  # rounding of equal values
    among = float(np.sum(sizes * mean**2)) / (a - 1)
    average = (n - float(np.sum(sizes**2)) / n) / (a - 1)
    return within, max((among - within) / average, 0.0)


def outliers_of(values: Mapping[str, Array], factors: Sequence[Factor]) -> list[dict[str, Any]]:
    """Rows more than 3 sds from the mean of their level.

    The sd is the level's own where it has 11 rows or more; in a smaller level no row can lie 3 of its own sds off, and the sd
    within all levels is taken, less the share that the row has in its level's mean.
    """
    out: list[dict[str, Any]] = []
    for column, y in values.items():
        for one in factors:
            known = np.flatnonzero(np.isfinite(y) & (one.codes >= 0))
            z, own = _standardised(y[known], one.codes[known])
            for i in np.flatnonzero(np.abs(z) > OUTLYING):
                row = int(known[i])
                level = one.levels[one.codes[row]]
                sd = "own" if own[i] else "pooled"
                place = {"column": column, "group": one.name, "level": level, "row": row}
                out.append({**place, "value": float(y[row]), "z": float(z[i]), "sd_of": sd})
    return out


def _standardised(y: Array, codes: NDArray[Any]) -> tuple[Array, NDArray[np.bool_]]:
    if not len(y):
        return np.zeros(0), np.zeros(0, dtype=bool)
    sizes = np.bincount(codes).astype(np.float64)
    mean = np.bincount(codes, y) / np.maximum(sizes, 1)
    off = y - mean[codes]
    squares = np.bincount(codes, off**2)
    n = sizes[codes]
    free = len(y) - int(np.sum(sizes > 0))
    pooled = np.sqrt(squares.sum() / free * np.maximum(1 - 1 / n, 0)) if free else np.zeros(len(y))
    own = n >= ENOUGH
    sd = np.where(own, np.sqrt(squares[codes] / np.maximum(n - 1, 1)), pooled)
    tiny = sd <= 1e-12 * np.abs(y).max(initial=0.0)
    return np.where(tiny, 0.0, off / np.where(tiny, 1.0, sd)), own
