"""Pieces of a formula: names, numbers, calls, operators, each with its place in the text."""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass
from typing import NoReturn

from .errors import FormulaError

__all__ = ["Token", "Tokens", "closing", "fail", "quoted", "unquoted"]

_NAME = re.compile(r"(?:[^\W\d]|\.(?!\d))[\w.]*")
_NUMBER = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_OPERATORS = ("%in%", "||", "**", "~", "+", "-", "*", "/", ":", "^", "|", "(", ")")


@dataclass(frozen=True, slots=True)
class Token:
    kind: str  # "name", "number", "call", "op", "end"
    text: str  # a name without its backticks, a call as typed
    start: int
    end: int
    name: str = ""  # of the function, for a call


class Tokens:
    """The tokens of a text from a position on, one ahead; positions are those of the whole text."""

    def __init__(self, text: str, start: int) -> None:
        self.text = text
        self.position = start
        self.depth = 0
        self.token = self._next()

    # -- tokens ---------------------------------------------------------------------------------------------

    def _next(self) -> Token:
        text = self.text
        while self.position < len(text) and text[self.position].isspace():
            self.position += 1
        start = self.position
        if start >= len(text):
            return Token("end", "", len(text.rstrip()), len(text.rstrip()) + 1)
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
        fail(f"unexpected character {text[start]!r}{advice.get(text[start], '')}", text, start)

    def _take(self, kind: str, value: str, start: int, end: int, name: str = "") -> Token:
        self.position = end
        return Token(kind, value, start, end, name)

    def _backticked(self, start: int) -> Token:
        end = self.text.find("`", start + 1)
        if end < 0:
            fail("the backtick is not closed", self.text, start)
        if end == start + 1:
            fail("there is no name between the backticks", self.text, start, end + 1)
        return self._take("name", self.text[start + 1 : end], start, end + 1)

    def _word(self, found: re.Match[str]) -> Token:
        start, end = found.span()
        after = end
        while after < len(self.text) and self.text[after].isspace():
            after += 1
        if after >= len(self.text) or self.text[after] != "(" or found.group() == ".":
            return self._take("name", found.group(), start, end)
        close = closing(self.text, after)
        return self._take("call", self.text[start : close + 1], start, close + 1, found.group())

    def advance(self) -> Token:
        token, self.token = self.token, self._next()
        return token

    def at(self, *operators: str) -> bool:
        return self.token.kind == "op" and self.token.text in operators


def quoted(name: str) -> str:
    """Put backticks round a column name that is not a plain word."""
    return name if _NAME.fullmatch(name) and name != "." and not keyword.iskeyword(name) else f"`{name}`"


def fail(message: str, text: str, start: int, end: int | None = None) -> NoReturn:
    raise FormulaError(message, text, start, end)


def unquoted(text: str) -> str:
    return re.sub(r"`[^`]*`|'[^']*'|\"[^\"]*\"", "", text)


def closing(text: str, opening: int) -> int:
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
    fail("the quote is not closed" if quote else "this ( is not closed", text, opening)
