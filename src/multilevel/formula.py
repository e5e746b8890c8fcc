"""Text to Formula: response, fixed side, offsets and random-effect bars; needs no data.

The grammar is R's. The fixed side is checked here (so that a fault is shown with a caret) and rendered as the
text formulaic reads: `^` inside a call becomes `**`, names with dots inside a call get backticks.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from .errors import FormulaError
from .expressions import check_expression, translate

__all__ = ["Bar", "Formula", "model_text", "parse", "quoted", "render"]

STRUCTURES = ("us", "diag", "cs", "ar1")
MAX_LENGTH = 20_000  # characters; longer text is surely not a formula
MAX_DEPTH = 40  # nested parentheses
MAX_TERMS = 5_000  # a*b*c*... doubles with each factor; beyond this a typing mistake is likelier than a model
_NAME = re.compile(r"(?:[^\W\d]|\.(?!\d))[\w.]*")
_NUMBER = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_OPERATORS = ("%in%", "||", "**", "~", "+", "-", "*", "/", ":", "^", "|", "(", ")")


@dataclass(frozen=True, slots=True)
class Bar:
    """One random-effects term `(effects | group)`."""

    text: str
    effects: str
    groups: tuple[str, ...]
    structure: str
    start: int
    end: int

    @property
    def group(self) -> str:
        """Name of the grouping factor, `"batch:cask"` for an interaction."""
        return ":".join(self.groups)


@dataclass(frozen=True, slots=True)
class Formula:
    """A parsed formula.

    Attributes
    ----------
    text : str
        As typed.
    response : str
        Left side as typed, e.g. `"log(y)"`.
    fixed : str
        Right side without bars and offsets, in the form formulaic reads, its intercept explicit: `"1 + Days"`.
    bars : tuple of Bar
        Random-effects terms; `a/b` is already `a` and `a:b`.
    offsets : tuple of str
        Expressions inside `offset(...)`.
    """

    text: str
    response: str
    fixed: str
    bars: tuple[Bar, ...]
    offsets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # "name", "number", "call", "op", "end"
    text: str  # a name without its backticks, a call as typed
    start: int
    end: int
    name: str = ""  # of the function, for a call


@dataclass(slots=True)
class _Side:
    """What one side of a `+` list amounts to while it is read."""

    parts: list[tuple[str, str]] = field(default_factory=list)  # sign, rendered text
    bars: list[Bar] = field(default_factory=list)
    offsets: list[str] = field(default_factory=list)
    terms: int = 0

    def text(self) -> str:
        """Render with the intercept explicit."""
        stated = any(text in ("0", "1") for _, text in self.parts)
        out = "" if stated else "1"
        for sign, text in self.parts:
            out += f" {sign} {text}" if out else (text if sign == "+" else f"{sign}{text}")
        return out


def parse(text: str) -> Formula:
    """Read a formula such as `"y ~ x + (x | g)"`.

    Parameters
    ----------
    text : str
        `response ~ fixed + (effects | group) + offset(expression)`.

    Returns
    -------
    Formula

    Raises
    ------
    FormulaError
        With a caret under the fault.
    """
    if not isinstance(text, str):
        raise FormulaError(f"a formula is a text such as 'y ~ x + (1 | group)', not {type(text).__name__}")
    if len(text) > MAX_LENGTH:
        raise FormulaError(f"the formula is {len(text)} characters long; at most {MAX_LENGTH} are read")
    if not text.strip():
        raise FormulaError("the formula is empty; write for example 'y ~ x + (1 | group)'")
    split = _tilde(text)
    response = text[:split].strip()
    if not response:
        _fail("the response is missing; name a column left of the ~", text, split)
    check_expression(response, text, text.find(response), response=True)
    reader = _Reader(text, split + 1)
    side = reader.side(closing=False)
    if not (side.parts or side.bars or side.offsets):
        _fail("the right side is empty; write 1 for an intercept alone", text, split + 1)
    _refuse_twins(side.bars, text)
    return Formula(text, response, side.text(), tuple(side.bars), tuple(side.offsets))


def model_text(text: str, formula: str = "", at: int = 0) -> str:
    """Render one fixed-effect side, or the left side of a bar, as formulaic reads it; the intercept is explicit."""
    reader = _Reader(text, 0)
    try:
        side = reader.side(closing=False)
    except FormulaError as error:
        raise FormulaError(
            error.message, formula or text, (error.start or 0) + at, (error.end or 0) + at
        ) from None
    if side.bars or side.offsets:
        raise FormulaError("a random-effects term or an offset cannot stand here", formula or text, at)
    return side.text()


def render(formula: Formula) -> str:
    """Write a formula in normal form; parsing the result gives the same model."""
    opening = {"us": "(", "diag": "(", "cs": "cs(", "ar1": "ar1("}
    parts = [formula.fixed]
    for bar in formula.bars:
        line = "||" if bar.structure == "diag" else "|"
        parts.append(f"{opening[bar.structure]}{bar.effects} {line} {':'.join(map(quoted, bar.groups))})")
    parts += [f"offset({expression})" for expression in formula.offsets]
    return f"{formula.response} ~ {' + '.join(parts)}"


def quoted(name: str) -> str:
    """Put backticks round a column name that is not a plain word."""
    return name if _NAME.fullmatch(name) and name != "." and not keyword.iskeyword(name) else f"`{name}`"


def _fail(message: str, text: str, start: int, end: int | None = None) -> NoReturn:
    raise FormulaError(message, text, start, end)


def _tilde(text: str) -> int:
    """Position of the one `~` that stands outside quotes and parentheses."""
    found: list[int] = []
    quote = ""
    for position, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"`":
            quote = char
        elif char == "~":
            found.append(position)
    if not found:
        _fail("there is no ~; write 'response ~ predictors'", text, len(text.rstrip()))
    if len(found) > 1:
        _fail("there is more than one ~", text, found[1])
    return found[0]


def _refuse_twins(bars: list[Bar], text: str) -> None:
    seen: dict[tuple[str, str, tuple[str, ...]], Bar] = {}
    for bar in bars:
        key = (bar.structure, model_text(bar.effects), bar.groups)
        if key in seen:
            _fail(
                f"the term ({bar.effects} | {bar.group}) is given twice; keep one", text, bar.start, bar.end
            )
        seen[key] = bar


class _Reader:
    """Recursive descent over one right side; positions are those of the whole text."""

    def __init__(self, text: str, start: int) -> None:
        self.text = text
        self.position = start
        self.depth = 0
        self.token = self._next()

    # -- tokens ---------------------------------------------------------------------------------------------

    def _next(self) -> _Token:
        text = self.text
        while self.position < len(text) and text[self.position].isspace():
            self.position += 1
        start = self.position
        if start >= len(text):
            return _Token("end", "", len(text.rstrip()), len(text.rstrip()) + 1)
        if text[start] == "`":
            return self._backticked(start)
        if found := _NUMBER.match(text, start):
            return self._take("number", found.group(), start, found.end())
        if found := _NAME.match(text, start):
            return self._word(found)
        for operator in _OPERATORS:
            if text.startswith(operator, start):
                return self._take("op", operator, start, start + len(operator))
        advice = {
            "=": "; use ~",
            '"': "; column names go without quotes, or in backticks",
            "'": "; column names go without quotes, or in backticks",
            "{": "; use I( )",
            "<": "; comparisons go inside I( )",
            ">": "; comparisons go inside I( )",
            "[": "; indexing is not possible",
            "]": "",
        }
        _fail(f"unexpected character {text[start]!r}{advice.get(text[start], '')}", text, start)

    def _take(self, kind: str, value: str, start: int, end: int, name: str = "") -> _Token:
        self.position = end
        return _Token(kind, value, start, end, name)

    def _backticked(self, start: int) -> _Token:
        end = self.text.find("`", start + 1)
        if end < 0:
            _fail("the backtick is not closed", self.text, start)
        if end == start + 1:
            _fail("there is no name between the backticks", self.text, start, end + 1)
        return self._take("name", self.text[start + 1 : end], start, end + 1)

    def _word(self, found: re.Match[str]) -> _Token:
        start, end = found.span()
        after = end
        while after < len(self.text) and self.text[after].isspace():
            after += 1
        if after >= len(self.text) or self.text[after] != "(" or found.group() == ".":
            return self._take("name", found.group(), start, end)
        close = _closing(self.text, after)
        return self._take("call", self.text[start : close + 1], start, close + 1, found.group())

    def advance(self) -> _Token:
        token, self.token = self.token, self._next()
        return token

    def at(self, *operators: str) -> bool:
        return self.token.kind == "op" and self.token.text in operators

    # -- fixed side -----------------------------------------------------------------------------------------

    def side(self, closing: bool) -> _Side:
        """Read `a + b - c + (x | g)` up to the end, or up to a bar or `)` when `closing`."""
        out = _Side()
        if self.token.kind == "end" or (closing and self.at(")", "|", "||")):
            return out
        while True:
            self._chunk(out, self._signs())
            if self.token.kind == "end" or (closing and self.at(")", "|", "||")):
                return out
            if not self.at("+", "-"):
                self._stray(self.token)

    def _signs(self) -> str:
        sign = "+"
        while self.at("+", "-"):
            sign = {"+": "-", "-": "+"}[sign] if self.advance().text == "-" else sign
        return sign

    def _stray(self, token: _Token) -> NoReturn:
        if token.text in ("|", "||"):
            _fail(
                "a random-effects term needs parentheses, as in (1 | group)",
                self.text,
                token.start,
                token.end,
            )
        if token.text == ")":
            _fail("this ) closes nothing", self.text, token.start)
        if token.text == "~":
            _fail("~ cannot stand here", self.text, token.start)
        _fail("an operator such as + is missing before this", self.text, token.start, token.end)

    def _chunk(self, out: _Side, sign: str) -> None:
        """Read one summand: a bar, an offset, 0 or 1, or a fixed term."""
        token = self.token
        if token.kind == "number" and self._number(out, sign):
            return
        if token.kind == "call" and (token.name == "offset" or self._is_bar(token)):
            self.advance()
            self._plus_only(token, sign)
            if token.name == "offset":
                out.offsets.append(self._offset(token))
            else:
                out.bars += self._structured(token)
            return
        if self.at("(") and (inner := self._bar_group(sign)):
            out.bars += inner.bars
            out.offsets += inner.offsets
            out.parts += inner.parts
            out.terms += inner.terms
            return
        rendered, count = self._product()
        out.terms += count
        if out.terms > MAX_TERMS:
            _fail(f"this makes more than {MAX_TERMS} terms", self.text, token.start, self.token.start)
        out.parts.append((sign, rendered))

    def _number(self, out: _Side, sign: str) -> bool:
        token = self.advance()
        if float(token.text) not in (0.0, 1.0):
            _fail(
                "numbers other than 0 and 1 are no terms; for arithmetic write I( )",
                self.text,
                token.start,
                token.end,
            )
        if self.at("*", "/", ":", "^", "**", "%in%"):
            _fail("arithmetic goes inside I( )", self.text, token.start, self.token.end)
        one = (float(token.text) == 1.0) == (sign == "+")
        out.parts.append(("+", "1" if one else "0"))
        return True

    def _plus_only(self, token: _Token, sign: str) -> None:
        if sign == "-":
            _fail("a random-effects term or an offset can only be added", self.text, token.start, token.end)
        if self.at("*", "/", ":", "^", "**", "%in%"):
            _fail(
                "a random-effects term or an offset can only be added, not combined",
                self.text,
                token.start,
                self.token.end,
            )

    def _offset(self, token: _Token) -> str:
        inside = token.text[token.text.index("(") + 1 : -1]
        if not inside.strip():
            _fail("the offset is empty", self.text, token.start, token.end)
        check_expression(inside, self.text, token.end - 1 - len(inside))
        return inside.strip()

    def _product(self) -> tuple[str, int]:
        """`a*b`, `a/b`, `a %in% b`, `a:b`, `a^2`: rendered text and how many terms it makes."""
        return self._binary(
            ("*", "/"), lambda: self._binary(("%in%",), lambda: self._binary((":",), self._power))
        )

    def _binary(self, operators: tuple[str, ...], read: Callable[[], tuple[str, int]]) -> tuple[str, int]:
        text, count = read()
        while self.at(*operators):
            operator = self.advance()
            more, other = read()
            count = {"*": count + other + count * other, "/": count + other}.get(operator.text, count * other)
            if count > MAX_TERMS:
                _fail(f"this makes more than {MAX_TERMS} terms", self.text, operator.start)
            colon = operator.text in (
                ":",
                "%in%",
            )  # to formulaic %in% means nesting, to R the same as a colon
            text = f"{text}:{more}" if colon else f"{text} {operator.text} {more}"
        return text, count

    def _power(self) -> tuple[str, int]:
        text, count = self._atom()
        if self.at("^", "**"):
            operator = self.advance()
            exponent = self.token
            if exponent.kind != "number" or not exponent.text.isdigit() or int(exponent.text[:4]) < 1:
                _fail(
                    "the power of a term is a whole number from 1; for arithmetic write I(x^2)",
                    self.text,
                    operator.start,
                    exponent.end,
                )
            power = int(exponent.text[:4])
            if count > 1 and (power > 20 or count**power > 20 * MAX_TERMS):
                _fail("this power makes too many terms", self.text, operator.start, exponent.end)
            self.advance()
            text, count = (f"{text}**{power}", count**power) if count > 1 or "." in text else (text, count)
            if self.at("^", "**"):
                _fail("one power is enough", self.text, self.token.start)
        return text, count

    def _atom(self) -> tuple[str, int]:
        token = self.token
        if token.kind == "name":
            self.advance()
            return ("." if self.text[token.start : token.end] == "." else quoted(token.text)), 1
        if token.kind == "call":
            self.advance()
            if token.name == "offset" or self._is_bar(token):
                _fail(
                    "a random-effects term or an offset can only be added at the top level",
                    self.text,
                    token.start,
                    token.end,
                )
            check_expression(token.text, self.text, token.start)
            return translate(token.text), 1
        if token.kind == "number":
            _fail(
                "a number cannot be part of a term; for arithmetic write I( )",
                self.text,
                token.start,
                token.end,
            )
        if self.at("("):
            return self._group()
        if token.kind == "end":
            _fail("the formula ends where a term is expected", self.text, token.start)
        _fail(f"a term is expected here, not {token.text!r}", self.text, token.start, token.end)

    def _group(self) -> tuple[str, int]:
        opening = self._open()
        inner = self.side(closing=True)
        if self.at("|", "||"):
            _fail("a random-effects term can only be added at the top level", self.text, opening.start)
        if inner.bars or inner.offsets:
            _fail(
                "a random-effects term or an offset can only be added at the top level",
                self.text,
                opening.start,
            )
        if not inner.parts:
            _fail("there is nothing between the parentheses", self.text, opening.start)
        self._close(opening)
        out = ""
        for sign, text in inner.parts:
            out += f" {sign} {text}" if out else (text if sign == "+" else f"{sign}{text}")
        return f"({out})", inner.terms

    def _open(self) -> _Token:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            _fail("the parentheses are nested too deeply", self.text, self.token.start)
        return self.advance()

    def _close(self, opening: _Token) -> int:
        if not self.at(")"):
            if self.token.kind == "end":
                _fail("this ( is not closed", self.text, opening.start)
            self._stray(self.token)
        self.depth -= 1
        end = self.token.end
        self.advance()
        return end

    # -- random side ----------------------------------------------------------------------------------------

    def _is_bar(self, token: _Token) -> bool:
        """Whether a call such as `diag(x | g)` holds a bar outside inner parentheses."""
        inside = token.text[token.text.index("(") + 1 : -1]
        return token.name in STRUCTURES and "|" in inside or _bar_inside(inside)

    def _bar_group(self, sign: str) -> _Side | None:
        """Read `(x | g)`, or `(a + (x | g))`; None, and nothing read, for parentheses without any bar."""
        token = self.token
        close = _closing(self.text, token.start)
        if not _holds_bar(self.text[token.start : close]):
            return None
        self._open()
        inner = self.side(closing=True)
        if self.at("|", "||"):
            structure = "diag" if self.token.text == "||" else "us"
            inner = self._bar(token, token.start, inner, structure)
        else:
            self._close(token)
        self._plus_only(token, sign)
        return inner

    def _bar(self, opening: _Token, start: int, effects: _Side, structure: str) -> _Side:
        """Read from the bar on; `start` is where the term begins, the name of its structure included."""
        text = self.text
        line = self.advance()
        inside = text.index("(", start) + 1
        typed = text[inside : line.start].strip()
        if not typed:
            _fail("the effects are missing left of the bar; write 1 for an intercept", text, start, line.end)
        if effects.bars or effects.offsets or _dots(effects):
            _fail("only plain terms can stand left of the bar", text, inside, line.start)
        if self.at(")") or self.token.kind == "end":
            _fail("the grouping factor is missing right of the bar", text, line.start, self.token.end)
        groups = self._grouping()
        end = self._close(opening)
        whole = text[start:end]
        return _Side(bars=[Bar(whole, typed, group, structure, start, end) for group in groups])

    def _structured(self, token: _Token) -> list[Bar]:
        """Read `cs(x | g)` and the like."""
        if token.name not in STRUCTURES:
            if token.name in ("I", "log", "exp", "C", "factor"):
                _fail("a bar cannot stand inside a function", self.text, token.start, token.end)
            _fail(
                f"{token.name}( | ) is no covariance structure; there are {', '.join(STRUCTURES)}. "
                "If it is a column, an operator such as + is missing after it",
                self.text,
                token.start,
                token.start + len(token.name),
            )
        inner = _Reader(self.text[: token.end], token.start + len(token.name))
        inner.depth = self.depth
        opening = inner._open()
        effects = inner.side(closing=True)
        if not inner.at("|", "||"):
            inner._stray(inner.token)
        if inner.at("||") and token.name != "diag":
            _fail(
                f"|| contradicts {token.name}( ); use a single bar",
                self.text,
                inner.token.start,
                inner.token.end,
            )
        return inner._bar(opening, token.start, effects, token.name).bars

    def _grouping(self) -> list[tuple[str, ...]]:
        """`a + b`, `a/b`, `a*b`, `a:b` right of a bar, as a list of interactions without repeats."""
        out = self._grouping_product()
        while self.at("+"):
            self.advance()
            out += self._grouping_product()
        if self.at("|", "||"):
            _fail(
                "one bar is enough; for several grouping factors write (1 | a) + (1 | b)",
                self.text,
                self.token.start,
                self.token.end,
            )
        return list(dict.fromkeys(out))

    def _grouping_product(self) -> list[tuple[str, ...]]:
        out = self._grouping_colon()
        while self.at("*", "/"):
            operator = self.advance()
            other = self._grouping_colon()
            if operator.text == "*":
                out = out + other + _cross(out, other)
            else:
                out = out + _cross([tuple(dict.fromkeys(name for group in out for name in group))], other)
            if len(out) > 50:
                _fail("this makes too many grouping factors", self.text, operator.start)
        return out

    def _grouping_colon(self) -> list[tuple[str, ...]]:
        out = self._grouping_atom()
        while self.at(":"):
            operator = self.advance()
            out = _cross(out, self._grouping_atom())
            if len(out) > 50:
                _fail("this makes too many grouping factors", self.text, operator.start)
        return out

    def _grouping_atom(self) -> list[tuple[str, ...]]:
        token = self.token
        if self.at("("):
            opening = self._open()
            out = self._grouping()
            self._close(opening)
            return out
        if token.kind == "name" and self.text[token.start : token.end] != ".":
            self.advance()
            return [(token.text,)]
        if token.kind == "call" and token.name in ("factor", "C", "as.factor"):
            self.advance()
            inside = _Reader(token.text[token.text.index("(") + 1 : -1], 0)
            name = inside.token
            if name.kind == "name" and inside.advance() and inside.token.kind == "end":
                return [(name.text,)]
        _fail(
            "right of the bar stand column names, as in g, a:b or a/b; make a column for anything else",
            self.text,
            token.start,
            token.end,
        )


def _cross(left: list[tuple[str, ...]], right: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return [tuple(dict.fromkeys((*one, *two))) for one in left for two in right]


def _dots(side: _Side) -> bool:
    return any(re.search(r"(?<![\w.`])\.(?![\w.`])", text) for _, text in side.parts)


def _unquoted(text: str) -> str:
    return re.sub(r"`[^`]*`|'[^']*'|\"[^\"]*\"", "", text)


def _holds_bar(text: str) -> bool:
    """Whether a bar stands in these parentheses outside any function other than a covariance structure."""
    calls: list[bool] = []
    before = ""
    text = _unquoted(text)
    for found in re.finditer(r"[\w.]+|[()|]", text):
        piece = found.group()
        if piece == "(":
            calls.append(before not in ("", *STRUCTURES))
        elif piece == ")":
            del calls[-1:]
        elif piece == "|" and not any(calls):
            return True
        before = piece if piece not in "()|" and re.compile(r"\s*\(").match(text, found.end()) else ""
    return False


def _bar_inside(inside: str) -> bool:
    """Whether a bar stands outside quotes and inner parentheses."""
    depth = 0
    for char in _unquoted(inside):
        depth += (char in "([{") - (char in ")]}")
        if char == "|" and depth == 0:
            return True
    return False


def _closing(text: str, opening: int) -> int:
    """Position of the parenthesis that closes the one at `opening`."""
    depth = 0
    quote = ""
    for position in range(opening, len(text)):
        char = text[position]
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"`":
            quote = char
        elif char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
            if depth == 0:
                return position
    _fail("the quote is not closed" if quote else "this ( is not closed", text, opening)
