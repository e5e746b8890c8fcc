"""Recursive descent over the right side of a formula: fixed terms, random-effects bars, offsets."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from .expressions import check_expression, translate
from .formula_tokens import Token, Tokens, closing, fail, quoted, unquoted

__all__ = ["Bar", "Reader", "Side"]

STRUCTURES = ("us", "diag", "homdiag", "cs", "homcs", "ar1", "hetar1")
MAX_DEPTH = 40  # nested parentheses
MAX_TERMS = 5_000  # a*b*c*... doubles with each factor; beyond this a typing mistake is likelier than a model


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


@dataclass(slots=True)
class Side:
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


class Reader(Tokens):
    """Reads one right side."""

    def __init__(self, text: str, start: int) -> None:
        super().__init__(text, start)
        self.depth = 0

    # -- fixed side -----------------------------------------------------------------------------------------

    def side(self, closing: bool) -> Side:
        """Read `a + b - c + (x | g)` up to the end, or up to a bar or `)` when `closing`."""
        out = Side()
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

    def _stray(self, token: Token) -> NoReturn:
        if token.text in ("|", "||"):
            fail(
                "a random-effects term needs parentheses, as in (1 | group)",
                self.text,
                token.start,
                token.end,
            )
        if token.text == ")":
            fail("this ) closes nothing", self.text, token.start)
        if token.text == "~":
            fail("~ cannot stand here", self.text, token.start)
        fail("an operator such as + is missing before this", self.text, token.start, token.end)

    def _chunk(self, out: Side, sign: str) -> None:
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
            fail(f"this makes more than {MAX_TERMS} terms", self.text, token.start, self.token.start)
        out.parts.append((sign, rendered))

    def _number(self, out: Side, sign: str) -> bool:
        token = self.advance()
        if float(token.text) not in (0.0, 1.0):
            fail(
                "numbers other than 0 and 1 are no terms; for arithmetic write I( )",
                self.text,
                token.start,
                token.end,
            )
        if self.at("*", "/", ":", "^", "**", "%in%"):
            fail("arithmetic goes inside I( )", self.text, token.start, self.token.end)
        one = (float(token.text) == 1.0) == (sign == "+")
        out.parts.append(("+", "1" if one else "0"))
        return True

    def _plus_only(self, token: Token, sign: str) -> None:
        if sign == "-":
            fail("a random-effects term or an offset can only be added", self.text, token.start, token.end)
        if self.at("*", "/", ":", "^", "**", "%in%"):
            fail(
                "a random-effects term or an offset can only be added, not combined",
                self.text,
                token.start,
                self.token.end,
            )

    def _offset(self, token: Token) -> str:
        inside = token.text[token.text.index("(") + 1 : -1]
        if not inside.strip():
            fail("the offset is empty", self.text, token.start, token.end)
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
                fail(f"this makes more than {MAX_TERMS} terms", self.text, operator.start)
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
                fail(
                    "the power of a term is a whole number from 1; for arithmetic write I(x^2)",
                    self.text,
                    operator.start,
                    exponent.end,
                )
            power = int(exponent.text[:4])
            if count > 1 and (power > 20 or count**power > 20 * MAX_TERMS):
                fail("this power makes too many terms", self.text, operator.start, exponent.end)
            self.advance()
            text, count = (f"{text}**{power}", count**power) if count > 1 or "." in text else (text, count)
            if self.at("^", "**"):
                fail("one power is enough", self.text, self.token.start)
        return text, count

    def _atom(self) -> tuple[str, int]:
        token = self.token
        if token.kind == "name":
            self.advance()
            return ("." if self.text[token.start : token.end] == "." else quoted(token.text)), 1
        if token.kind == "call":
            self.advance()
            if token.name == "offset" or self._is_bar(token):
                fail(
                    "a random-effects term or an offset can only be added at the top level",
                    self.text,
                    token.start,
                    token.end,
                )
            check_expression(token.text, self.text, token.start)
            return translate(token.text), 1
        if token.kind == "number":
            fail(
                "a number cannot be part of a term; for arithmetic write I( )",
                self.text,
                token.start,
                token.end,
            )
        if self.at("("):
            return self._group()
        if token.kind == "end":
            fail("the formula ends where a term is expected", self.text, token.start)
        fail(f"a term is expected here, not {token.text!r}", self.text, token.start, token.end)

    def _group(self) -> tuple[str, int]:
        opening = self._open()
        inner = self.side(closing=True)
        if self.at("|", "||"):
            fail("a random-effects term can only be added at the top level", self.text, opening.start)
        if inner.bars or inner.offsets:
            fail(
                "a random-effects term or an offset can only be added at the top level",
                self.text,
                opening.start,
            )
        if not inner.parts:
            fail("there is nothing between the parentheses", self.text, opening.start)
        self._close(opening)
        out = ""
        for sign, text in inner.parts:
            out += f" {sign} {text}" if out else (text if sign == "+" else f"{sign}{text}")
        return f"({out})", inner.terms

    def _open(self) -> Token:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            fail("the parentheses are nested too deeply", self.text, self.token.start)
        return self.advance()

    def _close(self, opening: Token) -> int:
        if not self.at(")"):
            if self.token.kind == "end":
                fail("this ( is not closed", self.text, opening.start)
            self._stray(self.token)
        self.depth -= 1
        end = self.token.end
        self.advance()
        return end

    # -- random side ----------------------------------------------------------------------------------------

    def _is_bar(self, token: Token) -> bool:
        """Whether a call such as `diag(x | g)` holds a bar outside inner parentheses."""
        inside = token.text[token.text.index("(") + 1 : -1]
        return token.name in STRUCTURES and "|" in inside or _bar_inside(inside)

    def _bar_group(self, sign: str) -> Side | None:
        """Read `(x | g)`, or `(a + (x | g))`; None, and nothing read, for parentheses without any bar."""
        token = self.token
        close = closing(self.text, token.start)
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

    def _bar(self, opening: Token, start: int, effects: Side, structure: str) -> Side:
        """Read from the bar on; `start` is where the term begins, the name of its structure included."""
        text = self.text
        line = self.advance()
        inside = text.index("(", start) + 1
        typed = text[inside : line.start].strip()
        if not typed:
            fail("the effects are missing left of the bar; write 1 for an intercept", text, start, line.end)
        if effects.bars or effects.offsets or _dots(effects):
            fail("only plain terms can stand left of the bar", text, inside, line.start)
        if self.at(")") or self.token.kind == "end":
            fail("the grouping factor is missing right of the bar", text, line.start, self.token.end)
        groups = self._grouping()
        end = self._close(opening)
        whole = text[start:end]
        return Side(bars=[Bar(whole, typed, group, structure, start, end) for group in groups])

    def _structured(self, token: Token) -> list[Bar]:
        """Read `cs(x | g)` and the like."""
        if token.name not in STRUCTURES:
            if token.name in ("I", "log", "exp", "C", "factor"):
                fail("a bar cannot stand inside a function", self.text, token.start, token.end)
            fail(
                f"{token.name}( | ) is no covariance structure; there are {', '.join(STRUCTURES)}. "
                "If it is a column, an operator such as + is missing after it",
                self.text,
                token.start,
                token.start + len(token.name),
            )
        inner = Reader(self.text[: token.end], token.start + len(token.name))
        inner.depth = self.depth
        opening = inner._open()
        effects = inner.side(closing=True)
        if not inner.at("|", "||"):
            inner._stray(inner.token)
        if inner.at("||") and token.name != "diag":
            fail(
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
            fail(
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
                fail("this makes too many grouping factors", self.text, operator.start)
        return out

    def _grouping_colon(self) -> list[tuple[str, ...]]:
        out = self._grouping_atom()
        while self.at(":"):
            operator = self.advance()
            out = _cross(out, self._grouping_atom())
            if len(out) > 50:
                fail("this makes too many grouping factors", self.text, operator.start)
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
            inside = Reader(token.text[token.text.index("(") + 1 : -1], 0)
            name = inside.token
            if name.kind == "name" and inside.advance() and inside.token.kind == "end":
                return [(name.text,)]
        fail(
            "right of the bar stand column names, as in g, a:b or a/b; make a column for anything else",
            self.text,
            token.start,
            token.end,
        )


def _cross(left: list[tuple[str, ...]], right: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return [tuple(dict.fromkeys((*one, *two))) for one in left for two in right]


def _dots(side: Side) -> bool:
    return any(re.search(r"(?<![\w.`])\.(?![\w.`])", text) for _, text in side.parts)


def _holds_bar(text: str) -> bool:
    """Whether a bar stands in these parentheses outside any function other than a covariance structure."""
    calls: list[bool] = []
    before = ""
    text = unquoted(text)
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
    for char in unquoted(inside):
        depth += (char in "([{") - (char in ")]}")
        if char == "|" and depth == 0:
            return True
    return False
