"""Terms of one side of a formula: what they are made of, their columns, and which contain which."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .columns import ColumnInfo, recall, uses_of
from .contrasts import Contrast
from .errors import DataError
from .formula import quoted
from .frame import Table

if TYPE_CHECKING:
    from .design_recipe import Recipe
    from .fit import Fit

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SideTerm:
    """One term such as ``recipe:temperature``.

    Attributes
    ----------
    label : str
        As R shows it.
    side : str
        The term alone, without an intercept, as `matrix.materialise` reads it.
    factors : frozenset of str
        Categorical expressions in it.
    numbers : frozenset of str
        Numeric expressions in it.
    columns : (m,) int array
        Positions in the full matrix of the side (before any column is dropped for rank).
    """

    label: str
    side: str
    factors: frozenset[str]
    numbers: frozenset[str]
    columns: NDArray[np.int64]

    def inside(self, other: SideTerm) -> bool:
        """Whether the other contains this one: the same numbers, more factors (SAS; lmerTest's containment)."""
        return self.numbers == other.numbers and self.factors < other.factors

    def marginal_to(self, other: SideTerm) -> bool:
        """Whether the other has every variable of this one and more (R's rule of marginality)."""
        return (self.factors | self.numbers) < (other.factors | other.numbers)


def terms_of(fit: Fit, side: str) -> tuple[list[SideTerm], bool]:
    """Terms of a side in the order of its columns, without the intercept, and whether it has one."""
    from .matrix import split_terms

    recipe = fit.design.remake
    pieces = [list(term.factors) for term in split_terms(side)]
    constant = [all(_is_constant(one) for one in piece) for piece in pieces]
    texts = [":".join(_rendered(one) for one in piece) for piece in pieces]
    intercept = any(constant)
    first = "1" if intercept else "0"
    kept = [text for text, flat in zip(texts, constant, strict=True) if not flat]
    prefixes = [" + ".join([first, *kept[: i + 1]]) for i in range(len(kept))]
    widths = [len(names) for _, names in matrices(fit, [*([first] if intercept else []), *prefixes], rows=1)]
    ends = widths if intercept else [0, *widths]
    out = []
    shown = [piece for piece, flat in zip(pieces, constant, strict=True) if not flat]
    for i, (text, piece) in enumerate(zip(kept, shown, strict=True)):
        kinds = {_label(one): _is_factor(recipe, _rendered(one)) for one in piece}
        out.append(
            SideTerm(
                ":".join(_label(one) for one in piece),
                f"0 + {text}",
                frozenset(name for name, factor in kinds.items() if factor),
                frozenset(name for name, factor in kinds.items() if not factor),
                np.arange(ends[i], ends[i + 1]),
            )
        )
    return out, intercept


def matrices(
    fit: Fit, sides: Sequence[str], rows: int | None = None, treatment: bool = False
) -> list[tuple[Array, tuple[str, ...]]]:
    """Matrices of sides on the rows fitted, by the levels and states of the fit.

    Parameters
    ----------
    sides : sequence of str
        Made of factors of the fit's own sides.
    rows : int, optional
        Only the first so many rows.
    treatment : bool
        Code every factor by treatment contrasts, first level as reference (`C()` with a contrast inside keeps its own).

    Raises
    ------
    DataError
        For a fit saved without its rows.
    """
    from .matrix import factors_of, materialise

    design = fit.rows_of_data()
    data = fit.model.data
    if data is None:
        raise DataError("this fit does not know the data it was made of, which this test needs; fit the model again")
    recipe = design.remake
    names = list(uses_of(one for side in sides for one in factors_of(side)))
    used = design.rows if rows is None else design.rows[:rows]
    series = {name: one.iloc[used] for name, one in Table(data).load(names).items()} if names else {}
    infos = {name: _treatment(info) for name, info in recipe.infos.items()} if treatment else recipe.infos
    columns = recall(series, names, infos, used)
    state = {key: dict(value) for key, value in recipe.state.items()}
    unique = list(dict.fromkeys(sides))
    made = dict(zip(unique, materialise(unique, columns, state), strict=True)) if unique else {}
    return [made[side] for side in sides]


def only_treatment(fit: Fit) -> bool:
    """Whether every factor of the fixed side is coded by treatment contrasts."""
    from .matrix import factors_of

    recipe = fit.design.remake
    uses = [one for one in factors_of(recipe.fixed) if _is_factor(recipe, one.text)]
    return all(recipe.infos[name].contrast.kind == "treatment" for one in uses for name in one.columns)


def _treatment(info: ColumnInfo) -> ColumnInfo:
    return info if info.contrast.kind == "treatment" else replace(info, contrast=Contrast())


def _is_constant(factor: Any) -> bool:
    return str(factor.eval_method.value) == "literal"


def _label(factor: Any) -> str:
    from .matrix import shown_name

    return str(shown_name(factor.expr).strip("`")) if factor.eval_method.value == "lookup" else str(shown_name(factor.expr))


def _rendered(factor: Any) -> str:
    """A factor as `materialise` reads it again."""
    from .matrix import shown_name

    if factor.eval_method.value == "lookup":
        return quoted(str(shown_name(factor.expr)).strip("`"))
    return str(shown_name(factor.expr))


def _is_factor(recipe: Recipe, text: str) -> bool:
    """Whether an expression of one side is categorical."""
    if re.match(r"(C|factor)\s*\(", text):
        return True
    info = recipe.infos.get(text.strip("`"))
    return info is not None and info.levels is not None and not info.number
