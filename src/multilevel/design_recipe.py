"""What remakes the matrices of a design on new data, without the data fitted; saving it as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from . import frame
from .columns import ColumnInfo, recall, uses_of
from .errors import DataError, OptionError, listing, nearest

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Grouping", "New", "NewTerm", "Recipe", "TermRecipe", "from_recipe", "to_recipe"]

Codes = NDArray[np.int32]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class NewTerm:
    """One random-effects term on new data.

    Attributes
    ----------
    index : int
        Position among the terms of the design.
    group : str
    names : tuple of str
        Effects.
    codes : ndarray of int32 (m,)
        Known level, -1 where the group is missing, -2 where the level was not seen when fitting.
    Z : ndarray (m, k) or None
        None means a column of ones.
    new_codes : ndarray of int32 (m,)
        For rows with code -2 the position in `new_levels`, shared by the rows of one level; -1 elsewhere.
    new_levels : ndarray
        Labels not seen when fitting.
    """

    index: int
    group: str
    names: tuple[str, ...]
    codes: Codes
    Z: Matrix | None
    new_codes: Codes
    new_levels: NDArray[Any]


@dataclass(frozen=True)
class New:
    """Matrices of a design on new data.

    Attributes
    ----------
    X : ndarray (m, p)
        Full-rank columns; rows that are not complete are NaN, here and in every Z.
    terms : tuple of NewTerm
        Terms of the groups asked for, in the order of the design.
    offset : ndarray (m,) or None
    complete : ndarray of bool (m,)
        False where a value needed is missing (a missing group value does not count).
    kind : str
        Library of the data given.
    sides : dict
        Further matrices, by what they are of: "dispersion", "zi".
    """

    X: Matrix
    terms: tuple[NewTerm, ...]
    offset: Matrix | None
    complete: NDArray[np.bool_]
    kind: str
    sides: dict[str, Matrix] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Rows."""
        return len(self.complete)


@dataclass(frozen=True)
class Grouping:
    """Levels of a grouping factor by its columns.

    Attributes
    ----------
    columns : tuple of str
    labels : tuple of ndarray
        Levels of each column.
    parts : ndarray (J, m)
        Codes of each column for every level of the factor.
    """

    columns: tuple[str, ...]
    labels: tuple[NDArray[Any], ...]
    parts: NDArray[np.int32]

    def levels(self) -> NDArray[Any]:
        """Labels of the factor, "a:b" for an interaction."""
        if len(self.columns) == 1:
            return self.labels[0]
        texts = [[frame.label_text(label) for label in one.tolist()] for one in self.labels]
        out = np.empty(len(self.parts), dtype=object)
        for index, combination in enumerate(self.parts.tolist()):
            out[index] = ":".join(text[code] for text, code in zip(texts, combination, strict=True))
        return out

    def match(self, series: Sequence[pd.Series[Any]]) -> tuple[Codes, Codes, NDArray[Any]]:
        """Codes on new data, codes among the new levels, and labels of the new levels."""
        codes, labels = [], []
        for name, known, one in zip(self.columns, self.labels, series, strict=True):
            own, extended = _extend(one, name, known)
            codes.append(own)
            labels.append(extended)
        joint, observed = frame.combine(codes, [len(one) for one in labels])
        known_at = {tuple(part): index for index, part in enumerate(self.parts.tolist())}
        found = np.array([known_at.get(tuple(part), -2) for part in observed.tolist()] + [-1], dtype=np.int32)
        unseen = np.flatnonzero(found == -2)
        new_at = np.full(len(found), -1, dtype=np.int32)
        new_at[unseen] = np.arange(len(unseen), dtype=np.int32)
        fresh = Grouping(self.columns, tuple(labels), observed[unseen])
        names = fresh.levels() if len(self.columns) > 1 else labels[0][observed[unseen, 0]]
        return found[joint], new_at[joint], names


def _extend(series: pd.Series[Any], name: str, known: NDArray[Any]) -> tuple[Codes, NDArray[Any]]:
    """Codes of a column on the known labels followed by its new ones."""
    codes, unknown = frame.lookup(series, name, known)
    if not len(unknown):
        return codes, known
    if len(known) and _is_text(known[0]) != _is_text(unknown[0]):
        kinds = {True: "text", False: "no text"}
        raise DataError(
            f"column {name!r} was {kinds[_is_text(known[0])]} when fitting (such as {frame.label_text(known[0])}), and is "
            f"{kinds[_is_text(unknown[0])]} now ({unknown[0]!r}); convert it"
        )
    labels = np.empty(len(known) + len(unknown), dtype=object)
    labels[: len(known)], labels[len(known) :] = known, unknown
    own, _ = frame.lookup(series, name, labels)
    return own, labels


def _is_text(label: Any) -> bool:
    return isinstance(label, str)


@dataclass(frozen=True)
class TermRecipe:
    """One random-effects term: its grouping, the side that makes its Z (None for ones), names, structure."""

    group: str
    names: tuple[str, ...]
    structure: str
    grouping: Grouping
    side: str | None


@dataclass(frozen=True)
class Recipe:
    """Everything `at` needs.

    Attributes
    ----------
    fixed : str
        Fixed side for formulaic.
    kept : ndarray of int
        Columns of the full matrix that are kept.
    all_names : tuple of str
    terms : tuple of TermRecipe
    offsets : tuple of str
        Sides of one column each.
    offset_column : str or None
    offset_array : bool
        Whether an array was added to the offset, which new data cannot remake.
    infos : dict
        What each column is.
    state : dict
        State of stateful transforms.
    extra : dict
        Further fixed sides by what they are of: "dispersion", "zi".
    """

    fixed: str
    kept: NDArray[np.int64]
    all_names: tuple[str, ...]
    terms: tuple[TermRecipe, ...]
    offsets: tuple[str, ...]
    offset_column: str | None
    offset_array: bool
    infos: dict[str, ColumnInfo]
    state: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, str] = field(default_factory=dict)

    def at(
        self, new: Any, groups: str | Iterable[str] | None = "all", offset: Any = None, *, effects: bool = False
    ) -> New:
        """Make the matrices on new data.

        Parameters
        ----------
        new : data frame
            The response need not be there, nor grouping columns of groups not asked for.
        groups : "all", None or names
            Which grouping factors to look up.
        offset : column name or array, optional
            Needed where the model was fitted with an array as offset.
        effects : bool
            Also the terms of groups not asked for, with their effects (Z) and every group unknown (code -1).
        """
        wanted = self._wanted(groups)
        chosen = [index for index, term in enumerate(self.terms) if effects or term.group in wanted]
        sides = [
            self.fixed,
            *dict.fromkeys(side for i in chosen if (side := self.terms[i].side) not in (None, self.fixed)),
        ]
        sides = list(dict.fromkeys([*sides, *self.extra.values()]))
        names, where = self._columns([*sides, *self.offsets])
        table = frame.Table(new)
        named = offset if isinstance(offset, str) else (self.offset_column if offset is None else None)
        needed = [*names, *([named] if named else [])]
        grouping = [
            name for i in chosen if self.terms[i].group in wanted for name in self.terms[i].grouping.columns
        ]
        first = (
            [] if needed or grouping else list(table.names[:1])
        )  # an intercept alone: any column tells the rows
        series = table.load([*needed, *grouping, *first], where)
        complete = np.ones(table.n, dtype=bool)
        for name in needed:
            complete &= ~frame.missing_mask(series[name])
        extra = self._extra_offset(series, named, offset, table.n)
        if extra is not None:
            complete &= ~np.isnan(extra)
        made, offset_total = self._matrices(sides, series, names, complete, extra)
        terms = tuple(
            self._term(i, series if self.terms[i].group in wanted else None, made, table.n) for i in chosen
        )
        X = made[self.fixed]
        return New(
            X if len(self.kept) == X.shape[1] else np.ascontiguousarray(X[:, self.kept]),
            terms,
            offset_total,
            complete,
            table.kind,
            {what: made[side] for what, side in self.extra.items()},
        )

    def _wanted(self, groups: str | Iterable[str] | None) -> set[str]:
        known = list(dict.fromkeys(term.group for term in self.terms))
        if groups is None:
            return set()
        if isinstance(groups, str):
            if groups == "all":
                return set(known)
            groups = [groups]
        out = set(groups)
        for name in out:
            if name not in known:
                raise OptionError(
                    f"{name!r} is no grouping factor of the model; {nearest(name, known)} It has "
                    f"{listing(known)}; or give groups='all' or None".replace("  ", " ")
                )
        return out

    def _columns(self, sides: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        from .matrix import factors_of

        uses = uses_of(one for side in sides for one in factors_of(side))
        return list(uses), {name: use.where for name, use in uses.items()}

    def _extra_offset(
        self, series: Mapping[str, Any], named: str | None, offset: Any, n: int
    ) -> Matrix | None:
        """The part of the offset that is no expression of the formula."""
        if named:
            return frame.numbers(series[named], named)
        if offset is not None:
            values = np.asarray(offset, dtype=np.float64)
            if values.shape != (n,):
                raise DataError(f"the offset has shape {values.shape}, but the new data have {n} rows")
            return values
        if self.offset_array:
            raise DataError(
                "the model was fitted with an array as offset; give the offset of the new rows as well "
                "(offset=...), or fit with the name of a column"
            )
        return None

    def _matrices(
        self,
        sides: list[str],
        series: Mapping[str, Any],
        names: list[str],
        complete: NDArray[np.bool_],
        extra: Matrix | None,
    ) -> tuple[dict[str, Matrix], Matrix | None]:
        """Matrix of each side, NaN in rows that are not complete, and the whole offset."""
        from .matrix import materialise

        rows = np.flatnonzero(complete)
        whole = len(rows) == len(complete)
        part = series if whole else {name: series[name].iloc[rows] for name in names}
        every = [*sides, *self.offsets]
        if len(rows):
            made = [
                one
                for one, _ in materialise(every, recall(part, names, self.infos, rows), _copied(self.state))
            ]
        else:
            widths = {self.fixed: len(self.all_names)} | {t.side: len(t.names) for t in self.terms if t.side}
            made = [np.empty((0, widths.get(side, 1))) for side in every]
        if not whole:
            made = [_spread(one, complete) for one in made]
        total = None
        for one in made[len(sides) :]:
            total = one[:, 0] if total is None else total + one[:, 0]
        if extra is not None:
            total = extra.copy() if total is None else total + extra
            total[~complete] = np.nan
        return dict(zip(sides, made, strict=False)), total

    def _term(self, index: int, series: Mapping[str, Any] | None, made: Mapping[str, Matrix], n: int) -> NewTerm:
        term = self.terms[index]
        if series is None:
            unknown = np.full(n, -1, dtype=np.int32)
            codes, new_codes, labels = unknown, unknown, np.empty(0, dtype=object)
        else:
            codes, new_codes, labels = term.grouping.match([series[name] for name in term.grouping.columns])
        Z = made[term.side] if term.side is not None else None
        return NewTerm(index, term.group, term.names, codes, Z, new_codes, labels)


def _spread(values: Matrix, complete: NDArray[np.bool_]) -> Matrix:
    out = np.full((len(complete), values.shape[1]), np.nan)
    out[complete] = values
    return out


def _copied(state: Mapping[str, Any]) -> dict[str, Any]:
    """Transforms may write into their state; the recipe must not change."""
    return {key: dict(value) for key, value in state.items()}


class _HasRecipe(Protocol):
    @property
    def remake(self) -> Recipe: ...


def to_recipe(design: _HasRecipe | Recipe) -> dict[str, Any]:
    """Describe a design without its data, in lists, dicts, numbers and texts only."""
    from .recipe_json import encode

    return encode(design if isinstance(design, Recipe) else design.remake)


def from_recipe(saved: Mapping[str, Any]) -> Recipe:
    """Restore what `to_recipe` described; its `at` gives the same matrices.

    Raises
    ------
    FileError
        When the description is damaged. Nothing in it is run before the grammar of formulas has passed it.
    """
    from .recipe_json import decode

    return decode(saved)
