"""Model matrices of fixed-effect sides, by formulaic, on bare NumPy columns.

formulaic reads the side into terms, decides which factors need full or reduced coding, evaluates expressions
and remembers the state of transforms. Columns are NumPy arrays or `Coded` factors; coding and assembly happen
here, so that dummies are never stored twice and nothing passes through pandas.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from keyword import iskeyword
from typing import Any

import numpy as np
from formulaic import Formula, ModelSpec, ModelSpecs
from formulaic.errors import FactorEncodingError, FactorEvaluationError, FormulaicError
from formulaic.materializers.pandas import PandasMaterializer
from formulaic.materializers.types import FactorValues
from formulaic.transforms import TRANSFORMS
from formulaic.utils.stateful_transforms import stateful_transform
from interface_meta import override
from numpy.typing import NDArray

from . import contrasts as _contrasts
from . import frame
from .contrasts import Coded, Contrast, Dummy, as_contrast
from .errors import DataError, MultilevelError, listing
from .expressions import CONTRAST_NAMES, ELEMENTWISE, Expression, analyse, column
from .formula import quoted

__all__ = ["Columns", "factors_of", "functions", "materialise"]

Matrix = NDArray[np.float64]
MAX_BYTES = 1 << 30
MAX_LEVELS = 1000
_CHUNK = 4096  # rows written at a time, so that a block of the C-ordered matrix stays in cache


@dataclass
class Columns:
    """The columns a matrix is made of, complete rows only.

    Attributes
    ----------
    n : int
        Rows.
    values : dict
        float64 array or `Coded` by name.
    raw : dict
        Series of numeric columns that are also used as `C(x)`.
    rows : ndarray
        Position of each row in the user's data, for messages.
    """

    n: int
    values: dict[str, Any]
    rows: NDArray[np.int64]
    raw: dict[str, Any] = field(default_factory=dict)
    coded: dict[str, Coded] = field(default_factory=dict)


_PIECES = re.compile(
    r"(?P<odd>`[^`]*`)|(?P<quote>'[^']*'|\"[^\"]*\")|(?P<call>[\w.]+\s*\()|(?P<open>\()|(?P<close>\))"
    r"|(?P<name>(?<![\w.])[^\W\d]\w*(?![\w.]))(?!\s*=(?!=))"
)
_PLAIN = re.compile(r"[^\W\d]\w*")
_STAND_IN = re.compile(r"odd_([0-9a-f]+)_q")
_WHOLE = re.compile(rf"(?<![^:]){_STAND_IN.pattern}(?![^:\[])")  # a column that is a factor of its own, not part of a call
_CLASHING = re.compile(r"[-+.\d].*|.*\(.*", re.DOTALL)  # names that read as a number or a call


def _stand_in(name: str) -> str:
    return f"odd_{name.encode().hex()}_q"


def shown_name(text: str) -> str:
    """Put the names of columns back, in backticks only within calls."""
    if "odd_" not in text:
        return text
    text = _WHOLE.sub(lambda found: bytes.fromhex(found[1]).decode(), text)
    return _STAND_IN.sub(lambda found: quoted(bytes.fromhex(found[1]).decode()), text)


def _shown_names(texts: Sequence[str]) -> tuple[str, ...]:
    """Names of columns of a matrix; a column "log(x)" beside the logarithm of x keeps its backticks."""
    names = tuple(map(shown_name, texts))
    if len(set(names)) == len(names):
        return names
    return tuple(
        _STAND_IN.sub(lambda found: f"`{bytes.fromhex(found[1]).decode()}`", text) if names.count(name) > 1 else name
        for name, text in zip(names, texts, strict=True)
    )


def _without_odd_names(side: str) -> str:
    """Replace by identifiers backticked names inside calls, and columns named as functions, numbers or calls are.

    formulaic makes identifiers itself, some of them at random, so that the state of a transform would not be
    found again on new data. Factors are the same to it where their texts are: a column "1" would be the intercept, a
    column "log(x)" the logarithm of x.
    """
    inside: list[bool] = []

    def piece(found: re.Match[str]) -> str:
        if found["odd"]:
            name = found["odd"][1:-1]
            return _stand_in(name) if any(inside) or _CLASHING.fullmatch(name) else found["odd"]
        if found["name"]:
            clash = found["name"] in _NAMES and not (any(inside) and found["name"] in CONTRAST_NAMES)
            return _stand_in(found["name"]) if clash else found["name"]
        if found["call"] or found["open"]:
            inside.append(bool(found["call"]))
        elif found["close"]:
            del inside[-1:]
        return found.group()

    return _PIECES.sub(piece, side)


@functools.lru_cache(maxsize=256)
def split_terms(side: str) -> Any:
    """Read a side; formulaic's objects are not changed afterwards."""
    try:
        return Formula(_without_odd_names(side))
    except FormulaicError as error:  # the grammar was checked before, so this is a corner we do not know
        raise DataError(f"cannot read {side!r}: {error}") from None


@functools.lru_cache(maxsize=256)
def factors_of(side: str) -> tuple[Expression, ...]:
    """Expressions of a side that are not constants, each checked."""
    seen: dict[str, Expression] = {}
    for term in split_terms(side):
        for one in term.factors:
            method = one.eval_method.value
            if method == "lookup":
                name = shown_name(one.expr).strip("`")
                seen[one.expr] = column(name)
            elif method == "python":
                seen[one.expr] = analyse(
                    _STAND_IN.sub(lambda found: f"`{bytes.fromhex(found[1]).decode()}`", one.expr)
                )
    return tuple(seen.values())


def materialise(
    sides: Sequence[str], columns: Columns, state: dict[str, Any]
) -> list[tuple[Matrix, tuple[str, ...]]]:
    """Make the matrix of each side.

    Parameters
    ----------
    sides : sequence of str
        As `formula.model_text` renders them.
    columns : Columns
    state : dict
        State of stateful transforms: filled where it is empty, obeyed where it is not.

    Returns
    -------
    list of (ndarray (n, p), names)
    """
    specs = [
        ModelSpec(formula=split_terms(side), na_action="ignore", output="numpy", transform_state=state)
        for side in sides
    ]
    maker = _Materializer(columns, context=functions(columns, sides))
    try:
        with np.errstate(all="ignore"):
            made = maker.get_model_matrix(ModelSpecs(tuple(specs)) if len(specs) > 1 else specs[0])
    except (FactorEvaluationError, FactorEncodingError) as error:
        raise _explained(error) from error
    matrices = list(made) if len(specs) > 1 else [made]
    return [(np.asarray(one), _shown_names(one.model_spec.column_names)) for one in matrices]


def functions(columns: Columns | None = None, sides: Sequence[str] = ()) -> dict[str, Any]:
    """Everything that can be called in a formula."""
    out = dict(_FUNCTIONS)
    if columns is not None and any("C(" in side or "factor(" in side for side in sides):
        out["C"] = out["factor"] = stateful_transform(_factor_maker(columns))
    return out


def _explained(error: Exception) -> MultilevelError:
    """Say in the user's terms why a factor could not be evaluated."""
    cause = error.__cause__ or error
    if isinstance(cause, MultilevelError):
        return cause
    text = str(error)
    which = shown_name(text.partition("`")[2].partition("`")[0])
    if "extend beyond upper" in str(cause):
        return DataError(
            f"{which} has values outside the range it was made for; write extrapolation='extend' or "
            "extrapolation='clip' inside it to allow them"
        )
    return DataError(f"cannot compute {which or text}: {cause}")


# -- functions -------------------------------------------------------------------------------------


def _vector(*values: Any) -> Any:
    return np.array(values)


def _poly(x: Any, degree: int = 1, raw: bool = False, _state: dict[str, Any] | None = None) -> Any:
    state = {} if _state is None else _state
    if not isinstance(degree, (int, np.integer)) or degree < 1:
        raise DataError(f"the degree of poly() is a whole number from 1, not {degree!r}")
    if not raw and "alpha" not in state:
        distinct = len(np.unique(x))
        if degree >= distinct:
            raise DataError(
                f"poly() of degree {degree} needs more than {degree} different values; there are {distinct}"
            )
    return TRANSFORMS["poly"](x, degree, raw, _state=state)


def _factor_maker(columns: Columns) -> Callable[..., Any]:
    """`C(x, contrast, levels=...)` for these columns."""
    by_array = {id(columns.values[name]): name for name in columns.raw}

    def C(
        data: Any,
        contrast: Any = None,
        *,
        contrasts: Any = None,
        contr: Any = None,
        levels: Any = None,  # noqa: N802
        _state: dict[str, Any] | None = None,
    ) -> Any:
        state = {} if _state is None else _state
        if id(data) in by_array:
            data = columns.coded[by_array[id(data)]]
        coded = data if isinstance(data, Coded) else _code_array(data, state)
        if levels is not None:
            coded = coded.ordered_as(
                list(np.asarray(levels).tolist() if isinstance(levels, np.ndarray) else levels)
            )
        chosen = next((spec for spec in (contrast, contrasts, contr) if spec is not None), None)
        if chosen is not None:
            coded = replace(coded, contrast=as_contrast(chosen, coded.name))
        return FactorValues(coded, kind="categorical", spans_intercept=True)

    return C


def _code_array(data: Any, state: dict[str, Any]) -> Coded:
    """Factor of an expression such as `C(I(x > 3))`, whose levels live in the state of the transform."""
    values = np.asarray(data.__wrapped__ if isinstance(data, FactorValues) else data)
    if values.ndim != 1:
        raise DataError("C() needs one column")
    if "levels" not in state:
        codes, labels = frame.factor(values, "C()")
        state["levels"] = labels.tolist()
        return Coded("C()", codes, labels.tolist(), Contrast())
    codes, unknown = frame.lookup(values, "C()", np.array(state["levels"], dtype=object))
    if len(unknown):
        raise DataError(
            f"C() has the value {unknown[0]!r}, which did not occur when fitting; allowed are "
            f"{listing(state['levels'])}"
        )
    return Coded("C()", codes, state["levels"], Contrast())


_FUNCTIONS: dict[str, Any] = {
    **{name: TRANSFORMS[name] for name in ("bs", "cr", "cc", "scale", "center", "standardize", "I", "np")},
    **ELEMENTWISE,
    **_contrasts.NAMES,
    "contr": _contrasts.contr,
    "c": _vector,
    "poly": stateful_transform(_poly),
}
_NAMES = frozenset((*_FUNCTIONS, "C", "factor"))


# -- materialisation -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Product:
    """The product of columns, computed piece by piece."""

    parts: tuple[Any, ...]
    scale: float

    def __getitem__(self, rows: slice) -> Any:
        out = functools.reduce(np.multiply, (_piece(part, rows) for part in self.parts))
        return out if self.scale == 1 else self.scale * out


@dataclass(frozen=True, slots=True)
class _Constant:
    """A column of one value, such as the intercept."""

    value: float

    def __rmul__(self, scale: float) -> _Constant:
        return _Constant(scale * self.value)

    def __getitem__(self, rows: slice) -> Any:
        return self.value


def _piece(part: Any, rows: slice) -> Any:
    """Rows of an array, a lazy column or a scalar."""
    if isinstance(part, np.ndarray):
        return part[rows] if part.ndim else part
    return part[rows] if hasattr(part, "__getitem__") else part


class _Materializer(PandasMaterializer):  # type: ignore[misc]
    """formulaic's materializer on `Columns`; it is not registered, only used from here."""

    @override
    def _init(self) -> None:
        self.data: Any
        self._n = self.data.n
        self._rows = self.data.rows
        values = self.data.values
        self.data = {name: one for name, one in values.items() if name not in _NAMES}
        odd = [name for name in values if name in _NAMES or iskeyword(name) or not _PLAIN.fullmatch(name)]
        self.data |= {_stand_in(name): values[name] for name in odd}

    @property
    @override
    def nrows(self) -> int:
        return int(self._n)

    @override
    def _is_categorical(self, values: Any) -> bool:
        return isinstance(values, Coded)

    @override
    def _encode_constant(
        self, value: Any, metadata: Any, encoder_state: Any, spec: Any, drop_rows: Any
    ) -> Any:
        return _Constant(float(value))

    @override
    def _encode_numerical(
        self, values: Any, metadata: Any, encoder_state: Any, spec: Any, drop_rows: Any
    ) -> Any:
        return values

    @override
    def _encode_categorical(
        self,
        values: Any,
        metadata: Any,
        encoder_state: Any,
        spec: Any,
        drop_rows: Any,
        reduced_rank: bool = False,
    ) -> Any:
        coded: Coded = values.__wrapped__ if isinstance(values, FactorValues) else values
        if len(coded.levels) > MAX_LEVELS or len(coded.levels) * self._n * 8 > MAX_BYTES:
            raise too_many(coded.name, len(coded.levels), self._n)
        return FactorValues(
            coded.columns(reduced_rank), kind="categorical", spans_intercept=False, format="{name}{field}"
        )

    @override
    def _get_columns_for_term(
        self, factors: list[dict[str, Any]], spec: Any, scale: float = 1
    ) -> dict[str, Any]:
        count = functools.reduce(lambda total, one: total * len(one), factors, 1)
        if count > 20 * MAX_LEVELS or (count > 1 and count * self._n * 8 > MAX_BYTES):
            names = ":".join(next(iter(one)).partition("[")[0] for one in factors)
            raise too_many(shown_name(names), count, self._n)
        out = {}
        for reverse in itertools.product(*(list(one.items()) for one in reversed(factors))):
            pairs = reverse[::-1]
            values = tuple(
                value.__wrapped__ if isinstance(value, FactorValues) else value for _, value in pairs
            )
            name = ":".join(name for name, _ in pairs)
            out[name] = values[0] if len(values) == 1 and scale == 1 else _Product(values, scale)
        return out

    @override
    def _combine_columns(self, cols: Sequence[tuple[str, Any]], spec: Any, drop_rows: Any) -> Any:
        n = self._n
        for name, values in cols:
            _check_column(name, values, n)
        out = np.empty((n, len(cols)), dtype=np.float64)
        for rows in _chunks(n):
            for index, (_, values) in enumerate(cols):
                out[rows, index] = _piece(values, rows)
        if not np.isfinite(out.sum()):  # one cheap pass; the search runs only when something is wrong
            bad = np.argwhere(~np.isfinite(out))
            if len(bad):
                row, index = (int(value) for value in bad[0])
                raise not_finite(shown_name(cols[index][0]), out[row, index], int(self._rows[row]))
        return out


def _chunks(n: int) -> Iterator[slice]:
    for start in range(0, n, _CHUNK):
        yield slice(start, min(start + _CHUNK, n))


def _check_column(name: str, given: Any, n: int) -> None:
    """Refuse what is no column of numbers."""
    values = given.__wrapped__ if isinstance(given, FactorValues) else given
    if isinstance(values, _Product):
        for part in values.parts:
            _check_column(name, part, n)
        return
    if isinstance(values, (Dummy, _Constant)):
        return
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise DataError(f"{shown_name(name)} gives values that are no numbers")
    if array.ndim and array.shape != (n,):
        raise DataError(f"{shown_name(name)} gives {len(array)} values for {n} rows")


def too_many(name: str, columns: int, n: int) -> DataError:
    """Refuse a fixed effect that would fill the memory."""
    size = columns * n * 8 / 1e9
    return DataError(
        f"{name!r} would make {columns} columns of the model matrix ({size:.2g} GB); a factor with that many "
        f"levels is better a random effect: (1 | {name})"
    )


def not_finite(name: str, value: float, row: int) -> DataError:
    """Report an infinite or undefined value."""
    what = "not a number" if np.isnan(value) else f"{value}"
    return DataError(
        f"{name!r} is {what} in row {row} (counting from 0); remove the row, or set the value to missing, "
        "if it is no error"
    )
