"""New data for the bootstrap: responses from modes and residuals drawn again, designs of groups drawn again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .covariance import FREE
from .errors import DataError, OptionError, listing
from .rank import dependent_columns

if TYPE_CHECKING:
    from .design import Design, Term
    from .fit import Fit
    from .residuals import Residual, Serial, Spread, Whitener

Array = NDArray[np.float64]
Index = NDArray[np.intp]

APART = ("diag", "homdiag")  # structures whose effects do not covary
BLOCKS = 200  # levels left out one by one by the jackknife; more are left out in blocks


@dataclass(frozen=True)
class Pool:
    """Centred and reflated modes and residuals of a fit, to draw from.

    Attributes
    ----------
    mean : (n,) array
        Fixed part with the offset.
    modes : tuple of (J, k) arrays
        Per term; their mean product is the estimated covariance.
    residuals : (n,) array
        Independent, with one variance; their mean square is sigma squared.
    multipliers : (n,) array
        Residual sd of each row over sigma.
    serial : Whitener or None
        Correlation of the residuals.
    """

    mean: Array
    modes: tuple[Array, ...]
    residuals: Array
    multipliers: Array
    serial: Whitener | None = None


def pool(fit: Fit) -> Pool:
    """Transformed modes and residuals (Carpenter, Goldstein & Rasbash 2003, J. R. Stat. Soc. C 52, section 3.2).

    Conditional modes are shrunk, so that resampling them as they are would give too little variance. They are centred
    and multiplied by the matrix that makes their mean product the estimated covariance; residuals likewise, after their
    own structure is undone.
    """
    from .residuals import multipliers, serial_part

    design = fit.rows_of_data()
    mean = design.X @ fit.optimum.beta
    if design.offset is not None:
        mean = mean + design.offset
    modes = []
    for term, b, cov in zip(design.terms, fit.optimum.b, fit.random_cov(), strict=True):
        levels, k = b.shape
        if levels <= k and term.structure not in FREE:
            raise OptionError(
                f"kind 'residual' draws the effects of {term.group!r} again, and its {levels} levels cannot show how "
                f"{k} effects of {term.structure}() covary; use kind='parametric'"
            )
        centred = b - b.mean(axis=0)
        modes.append(centred @ reflation(centred.T @ centred / levels, cov, term.structure in APART))
    sds, serial = multipliers(fit), serial_part(fit)
    rest = (design.y - fit._eta[1]) / sds
    rest = rest if serial is None else serial.apply(rest)
    rest = rest - rest.mean()
    return Pool(mean, tuple(modes), rest * (fit.sigma / np.sqrt(np.mean(rest * rest))), sds, serial)


def reflation(found: Array, wanted: Array, apart: bool) -> Array:
    """(k, k) A with ``A.T @ found @ A == wanted``; directions in which `found` is zero stay zero.

    With `apart`, effects are scaled one by one, for a model in which they do not covary.
    """
    sd = np.sqrt(np.diag(wanted))
    size = np.where(sd > 0, sd, 1.0)
    a, b = found / np.outer(size, size), wanted / np.outer(size, size)
    if apart:
        a, b = np.diag(np.diag(a)), np.diag(np.diag(b))
    values, vectors = np.linalg.eigh(a)
    known = values > 1e-12 * max(float(values[-1]), 1e-300)
    inverse = (vectors[:, known] / np.sqrt(values[known])) @ vectors[:, known].T
    values, vectors = np.linalg.eigh(b)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    return np.asarray((inverse @ root) * size / size[:, None])


def drawn_response(source: Pool, design: Design, rng: np.random.Generator) -> Array:
    """(n,) response: modes by level and residuals by row, with replacement."""
    y = source.mean.copy()
    for term, modes in zip(design.terms, source.modes, strict=True):
        levels, k = modes.shape
        if term.structure in APART:  # effects that do not covary are drawn apart
            effects = modes[rng.integers(0, levels, (levels, k)), np.arange(k)]
        else:
            effects = modes[rng.integers(0, levels, levels)]
        rows = effects[term.codes]
        y += rows[:, 0] if term.Z is None else np.einsum("ij,ij->i", term.Z, rows)
    from .residuals import correlate

    noise = source.residuals[rng.integers(0, len(y), len(y))]
    return y + source.multipliers * (noise if source.serial is None else correlate(source.serial, noise))


def nested(inner: Term, outer: Term) -> bool:
    """Whether each level of `inner` meets one level of `outer` only."""
    first = np.full(len(inner.levels), -1, dtype=np.int64)
    first[inner.codes] = outer.codes
    return bool(np.array_equal(first[inner.codes], outer.codes))


def outermost(design: Design) -> tuple[str, bool]:
    """The grouping factor nested in no other, and whether there are several: of crossed ones that with most levels."""
    terms = {t.group: t for t in design.terms}
    outer = [
        t
        for t in terms.values()
        if not any(len(t.levels) > len(o.levels) and nested(t, o) for o in terms.values() if o is not t)
    ]
    return max(outer, key=lambda t: len(t.levels)).group, len(outer) > 1


class Cases:
    """The groups of one factor with their rows, to be drawn again or left out."""

    def __init__(self, design: Design, group: str) -> None:
        self.design, self.group = design, group
        self._outer: Term = next(t for t in design.terms if t.group == group)
        codes = self._outer.codes
        order = np.argsort(codes, kind="stable")
        ends = np.cumsum(np.bincount(codes, minlength=len(self._outer.levels)))
        self.rows: list[Index] = [np.asarray(part) for part in np.split(order, ends[:-1])]

    def parts(self, rng: np.random.Generator, within: bool) -> list[Index]:
        """Rows of as many groups, drawn with replacement; `within` draws the rows of each again too."""
        count = len(self.rows)
        parts = [self.rows[j] for j in rng.integers(0, count, count)]
        return [part[rng.integers(0, len(part), len(part))] for part in parts] if within else parts

    def drawn(self, rng: np.random.Generator, within: bool) -> Design:
        """The design of `parts`; each draw is a group of its own."""
        return self.design_of(self.parts(rng, within))

    def holds(self, serial: Serial) -> bool:
        """Whether residuals are correlated within the groups only."""
        later = serial.previous >= 0
        codes = self._outer.codes
        return bool(np.array_equal(codes[later], codes[serial.previous[later]]))

    def blocks(self) -> list[Index]:
        """Sets of levels that the jackknife leaves out: one by one, or BLOCKS sets of about the same size."""
        count = len(self.rows)
        return [np.asarray(part) for part in np.array_split(np.arange(count), min(count, BLOCKS))]

    def without(self, levels: Index) -> list[Index]:
        """Rows of the design less some groups."""
        lost = set(levels.tolist())
        return [part for j, part in enumerate(self.rows) if j not in lost]

    def design_of(self, parts: list[Index]) -> Design:
        """The rows of `parts`, of which each is a group of its own.

        Raises
        ------
        DataError
            If they do not determine the fixed effects, or a factor has a single level left.
        """
        old = self.design
        rows = np.concatenate(parts)
        draw = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        x = np.ascontiguousarray(old.X[rows])
        if lost := dependent_columns(x):
            raise DataError(
                f"the groups drawn do not determine the fixed effects of {listing([old.names[i] for i in lost])}"
            )
        terms = tuple(self._term(term, rows, draw) for term in old.terms)
        weights, offset = (None if v is None else v[rows] for v in (old.weights, old.offset))
        # rows stay those of the data, so that a structure of the residuals finds its columns there
        new: dict[str, Any] = {
            "y": old.y[rows],
            "X": x,
            "terms": terms,
            "weights": weights,
            "offset": offset,
            "rows": old.rows[rows],
        }
        return replace(old, **new)

    def _term(self, term: Term, rows: Index, draw: Index) -> Term:
        """Codes of the new rows: a group drawn twice is two groups, with what is nested in it; crossed levels stay."""
        codes = term.codes[rows].astype(np.int64)
        if term.group == self.group or nested(term, self._outer):
            codes = draw * len(term.levels) + codes
        found, new = np.unique(codes, return_inverse=True)
        if len(found) < 2:
            raise DataError(f"the groups drawn have a single level of {term.group!r}")
        levels = term.levels[found % len(term.levels)]
        z = None if term.Z is None else np.ascontiguousarray(term.Z[rows])
        return replace(term, codes=new.astype(np.int32), levels=levels, Z=z)


def residual_of(residual: Residual, parts: list[Index]) -> Residual:
    """The residuals' structure on rows drawn again, in which no correlation leaves a part.

    Variances that depend on the fitted values wait for those of the new rows.

    Raises
    ------
    DataError
        If the rows do not determine a parameter of it.
    """
    rows = np.concatenate(parts)
    spreads = tuple(_spread(one, rows) for one in residual.spreads)
    serial = residual.serial
    if serial is None:
        return replace(residual, spreads=spreads)
    place = np.full(len(serial.previous), -1, dtype=np.int64)
    previous, at = [], 0
    for part in parts:
        place[part] = np.arange(at, at + len(part))
        before = serial.previous[part]
        previous.append(np.where(before >= 0, place[before], -1))
        at += len(part)
    new = np.concatenate(previous)
    if not (new >= 0).any():
        raise DataError(f"no group drawn has two rows, so {serial.text} has nothing to correlate")
    return replace(residual, spreads=spreads, serial=replace(serial, previous=new, lag=serial.lag[rows]))


def _spread(one: Spread, rows: Index) -> Spread:
    if one.codes is not None:
        codes = one.codes[rows]
        lost = sorted(set(range(len(one.levels))) - set(codes.tolist()))
        if lost:
            raise DataError(
                f"the groups drawn have no row of {one.levels[lost[0]]!r}, so {one.text} lacks its variance"
            )
        return replace(one, codes=codes)
    if not one.covariate:
        return replace(one, basis=None)
    assert one.basis is not None
    basis = one.basis[rows]
    if np.ptp(basis) == 0:
        raise DataError(f"{one.column!r} has one value in the groups drawn, so {one.text} has nothing to depend on")
    return replace(one, basis=basis)
