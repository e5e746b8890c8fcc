"""Linear hypotheses on the fixed effects: reader of "a - b = 0", and their tests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from .errors import FormulaError, OptionError, listing, nearest
from .frame import like
from .inference import check_ddf, check_level, estimates, f_test, t_table

if TYPE_CHECKING:
    from .fit import Fit

Array = NDArray[np.float64]

MAX_LENGTH = 20_000  # characters; longer text is surely no hypothesis
MAX_DEPTH = 40  # nested parentheses
_NUMBER = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_WORD = re.compile(r"(?:[^\W\d]|\.)[\w.]*")
_AFTER_NAME = re.compile(r"[\w.\[(:]")  # a character that would continue a name


@dataclass(frozen=True)
class Hypotheses:
    """``rows @ beta == rhs``.

    Attributes
    ----------
    labels : tuple of str
    rows : (m, p) array
        In the columns of `design.names`.
    rhs : (m,) array
    """

    labels: tuple[str, ...]
    rows: Array
    rhs: Array


def test(
    fit: Fit, hypotheses: Any, rhs: Any = None, joint: bool = False, ddf: str = "satterthwaite", level: float = 0.95
) -> Any:
    """Test linear hypotheses; see `Fit.test`."""
    check_ddf(ddf)
    check_level(level)
    if not isinstance(joint, (bool, np.bool_)):
        raise OptionError(f"joint must be True or False, got {joint!r}")
    asked = read(hypotheses, rhs, fit.design.names, fit.design.dropped)
    if joint:
        statistic, num_df, den_df, p_value = f_test(fit, asked.rows, ddf, asked.rhs)
        columns: dict[str, Any] = {
            "hypothesis": np.array([", ".join(asked.labels)], dtype=object),
            "num_df": np.array([num_df]),
            "den_df": np.array([den_df]),
            "statistic": np.array([statistic]),
            "p_value": np.array([p_value]),
        }
        return like(fit.design.kind, columns)
    estimate, std_error, df = estimates(fit, asked.rows, ddf)
    table = t_table(estimate - asked.rhs, std_error, df, level)
    return like(
        fit.design.kind,
        {
            "hypothesis": np.array(asked.labels, dtype=object),
            "estimate": estimate,
            "std_error": std_error,
            "statistic": table["statistic"],
            "df": df,
            "p_value": table["p_value"],
            "conf_low": table["conf_low"] + asked.rhs,
            "conf_high": table["conf_high"] + asked.rhs,
        },
    )


def read(hypotheses: Any, rhs: Any, names: Sequence[str], dropped: Sequence[str] = ()) -> Hypotheses:
    """Turn what the user gave into rows on the coefficients.

    Raises
    ------
    FormulaError
        For text that cannot be read, with a caret; for a name that is no coefficient, with the nearest one.
    OptionError
        For a matrix or a right-hand side of the wrong shape, and for hypotheses without a coefficient.
    """
    texts = [hypotheses] if isinstance(hypotheses, str) else hypotheses
    if isinstance(texts, (list, tuple)) and texts and all(isinstance(one, str) for one in texts):
        if rhs is not None:
            raise OptionError("rhs goes with a matrix; in a text write the number after the equals sign, 'a - b = 2'")
        found = [Reader(text, names, dropped).equation() for text in texts]
        rows, values = np.array([row for row, _ in found]), np.array([value for _, value in found])
        return Hypotheses(tuple(_label(text) for text in texts), rows, values)
    if hypotheses is None or isinstance(hypotheses, (bool, int, float)) or len(_listed(hypotheses)) == 0:
        raise OptionError(f"no hypothesis is given ({hypotheses!r}); write for example 'a - b = 0', or give a matrix")
    return _from_matrix(hypotheses, rhs, names)


def _listed(values: Any) -> Any:
    return values if hasattr(values, "__len__") else [values]


def _label(text: str) -> str:
    shown = " ".join(text.split())
    return shown if "=" in shown else f"{shown} = 0"


def _from_matrix(values: Any, rhs: Any, names: Sequence[str]) -> Hypotheses:
    p = len(names)
    try:
        rows = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise OptionError(
            "hypotheses are texts such as 'a - b = 0' or a matrix of numbers with a column per coefficient, got "
            f"{str(values)[:200]!r}"
        ) from None
    rows = rows.reshape(1, -1) if rows.ndim == 1 else rows
    if rows.ndim != 2 or rows.shape[1] != p:
        raise OptionError(
            f"the matrix of hypotheses has shape {rows.shape}, but the model has {p} coefficients: {listing(names)}; give a "
            "column for each, in this order"
        )
    if not np.isfinite(rows).all():
        raise OptionError("the matrix of hypotheses has values that are not finite")
    empty = np.flatnonzero(~np.any(rows != 0, axis=1))
    if len(empty):
        raise OptionError(f"row {int(empty[0])} of the matrix of hypotheses (counting from 0) has zeros only")
    try:
        target = np.zeros(len(rows)) if rhs is None else np.broadcast_to(np.array(rhs, dtype=np.float64), len(rows))
    except (TypeError, ValueError):
        raise OptionError(f"rhs must be a number or {len(rows)} numbers, one per row, got {rhs!r}") from None
    if not np.isfinite(target).all():
        raise OptionError(f"rhs must be finite, got {rhs!r}")
    labels = tuple(f"{_written(row, names)} = {value:g}" for row, value in zip(rows, target, strict=True))
    return Hypotheses(labels, rows, np.array(target))


def _written(row: Array, names: Sequence[str]) -> str:
    """A row as text."""
    out = ""
    for value, name in zip(row.tolist(), names, strict=True):
        if value == 0:
            continue
        size = "" if abs(value) == 1 else f"{abs(value):g}*"
        sign = "-" if value < 0 else "+"
        out += f" {sign} {size}{name}" if out else f"{'-' if value < 0 else ''}{size}{name}"
    return out


class Reader:
    """Reads one equation: sums of products of numbers and at most one coefficient, an optional ``=`` between two.

    A value while reading is an array of p coefficients followed by a constant.
    """

    def __init__(self, text: str, names: Sequence[str], dropped: Sequence[str] = ()) -> None:
        if len(text) > MAX_LENGTH:
            raise FormulaError(f"the hypothesis is {len(text)} characters long; at most {MAX_LENGTH} are read")
        self.text, self.at, self.depth = text, 0, 0
        self.names, self.dropped = tuple(names), tuple(dropped)
        self.index = {name: i for i, name in enumerate(self.names)}
        if "Intercept" in self.index:
            self.index.setdefault("(Intercept)", self.index["Intercept"])  # R's name
        self.by_length = sorted([*self.index, *self.dropped], key=len, reverse=True)

    def equation(self) -> tuple[Array, float]:
        """(coefficients, right-hand side)."""
        if not self.text.strip():
            self._fail("the hypothesis is empty; write for example 'a - b = 0'", 0)
        left = self._sum()
        if not self._take("==") and not self._take("=") and self._peek():
            self._fail(f"unexpected {self._peek()!r}; an operator, or = and a number, is expected", self.at)
        right = self._sum() if self._peek() else self._nothing()
        if self._peek():
            what = "there is more than one =" if self._peek() == "=" else f"unexpected {self._peek()!r}"
            self._fail(what, self.at)
        value = left - right
        if not np.isfinite(value).all():
            self._fail("the numbers are too large", 0, len(self.text))
        if not np.any(value[:-1]):
            self._fail("no coefficient is left in this hypothesis, so there is nothing to test", 0, len(self.text))
        return value[:-1], float(-value[-1])

    def _nothing(self) -> Array:
        if self.text.rstrip().endswith("="):
            self._fail("a number is expected after the =", len(self.text.rstrip()))
        return np.zeros(len(self.names) + 1)

    # -- grammar --------------------------------------------------------------------------------------------

    def _sum(self) -> Array:
        out = self._signed()
        while self._peek() in ("+", "-"):
            sign = 1.0 if self._take("+") else -1.0
            if sign < 0:
                self._take("-")
            out = out + sign * self._product()
        return out

    def _signed(self) -> Array:
        """The first of a sum may carry a sign."""
        if self._take("-"):
            return -self._product()
        self._take("+")
        return self._product()

    def _product(self) -> Array:
        out = self._factor()
        while self._peek() in ("*", "/"):
            at = self.at
            if self._take("*"):
                other = self._factor()
                if np.any(out[:-1]) and np.any(other[:-1]):
                    self._fail("coefficients cannot be multiplied; hypotheses are linear", at)
                out = out * other[-1] if np.any(out[:-1]) else other * out[-1]
            else:
                self._take("/")
                other = self._factor()
                if np.any(other[:-1]):
                    self._fail("a hypothesis cannot divide by a coefficient; hypotheses are linear", at)
                if other[-1] == 0:
                    self._fail("division by zero", at)
                out = out / other[-1]
        return out

    def _factor(self) -> Array:
        sign = 1.0
        while self._take("-"):
            sign = -sign
        return sign * self._atom()

    def _atom(self) -> Array:
        char = self._peek()
        if not char or char == "=":
            self._fail("a coefficient or a number is expected here", self.at)
        name = self._name()
        if name is not None:
            return name
        if found := _NUMBER.match(self.text, self.at):
            return self._number(found)
        if char == "(":
            return self._parentheses()
        return self._unknown()

    def _number(self, found: re.Match[str]) -> Array:
        self.at = found.end()
        if _WORD.match(self.text, self.at) or self.text[self.at : self.at + 1] == "`":
            self._fail("an operator is missing; write * between a number and a coefficient", self.at)
        return self._value(float(found.group()))

    def _parentheses(self) -> Array:
        opening = self.at
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self._fail("the parentheses are nested too deeply", opening)
        self._take("(")
        out = self._sum()
        if not self._take(")"):
            self._fail("this ( is not closed", opening)
        self.depth -= 1
        return out

    def _name(self) -> Array | None:
        """The longest coefficient name that stands here, backticks or not."""
        text, start = self.text, self.at
        if text[start] == "`":
            end = text.find("`", start + 1)
            if end > 0 and text[start + 1 : end] in self.by_length and not _continues(text, end + 1):
                return self._coefficient(text[start + 1 : end], start, end + 1)
        for name in self.by_length:
            end = start + len(name)
            if text.startswith(name, start) and not _continues(text, end):
                return self._coefficient(name, start, end)
        return None

    def _coefficient(self, name: str, start: int, end: int) -> Array:
        if name in self.dropped:
            self._fail(
                f"the coefficient {name!r} was left out of the model, being determined by others, and cannot be tested",
                start,
                end,
            )
        self.at = end
        out = self._value(0.0)
        out[self.index[name]] = 1.0
        return out

    def _unknown(self) -> NoReturn:
        start, end = self.at, _end_of_name(self.text, self.at)
        word = self.text[start:end]
        if not _WORD.match(word) and not word.startswith("`"):
            self._fail(f"unexpected {word[:1]!r}; a coefficient or a number is expected here", start)
        hint = nearest(word.strip("`"), self.names) or f"the coefficients are {listing(self.names)}"
        self._fail(f"there is no coefficient {word.strip('`')!r}; {hint}", start, end)

    # -- text -----------------------------------------------------------------------------------------------

    def _value(self, constant: float) -> Array:
        out = np.zeros(len(self.names) + 1)
        out[-1] = constant
        return out

    def _peek(self) -> str:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        return self.text[self.at : self.at + 1]

    def _take(self, symbol: str) -> bool:
        self._peek()
        if not self.text.startswith(symbol, self.at):
            return False
        self.at += len(symbol)
        return True

    def _fail(self, message: str, start: int, end: int | None = None) -> NoReturn:
        raise FormulaError(message, self.text, start, end)


def _continues(text: str, at: int) -> bool:
    """Whether a name goes on at this position, so that what stands before is only its beginning."""
    return bool(_AFTER_NAME.match(text, at))


def _end_of_name(text: str, start: int) -> int:
    """Where an unknown name ends: brackets and calls belong to it."""
    depth, at = 0, start
    if text[start] == "`":
        closing = text.find("`", start + 1)
        return closing + 1 if closing > 0 else len(text)
    while at < len(text):
        char = text[at]
        if char in "[(":
            depth += 1
        elif char in "])":
            if depth == 0:
                break
            depth -= 1
        elif depth == 0 and not (char.isalnum() or char in "_.:"):
            break
        at += 1
    return max(at, start + 1)
