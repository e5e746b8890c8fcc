"""Text to Formula: response, fixed side, offsets and random-effect bars; needs no data.

The grammar is R's. The fixed side is checked here (so that a fault is shown with a caret) and rendered as the
text formulaic reads: `^` inside a call becomes `**`, names with dots inside a call get backticks.
"""

from __future__ import annotations

from dataclasses import dataclass

from .errors import FormulaError
from .expressions import check_expression
from .formula_reader import Bar, Reader
from .formula_tokens import fail, quoted

__all__ = ["Bar", "Formula", "model_text", "parse", "quoted", "render"]

MAX_LENGTH = 20_000  # characters; longer text is surely not a formula


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
        Right side without bars and offsets, as formulaic reads it, its intercept explicit: `"1 + Days"`.
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
        fail("the response is missing; name a column left of the ~", text, split)
    check_expression(response, text, text.find(response), response=True)
    reader = Reader(text, split + 1)
    side = reader.side(closing=False)
    if not (side.parts or side.bars or side.offsets):
        fail("the right side is empty; write 1 for an intercept alone", text, split + 1)
    _refuse_twins(side.bars, text)
    return Formula(text, response, side.text(), tuple(side.bars), tuple(side.offsets))


def model_text(text: str, formula: str = "", at: int = 0) -> str:
    """Render a fixed side, or the left side of a bar, as formulaic reads it; the intercept is explicit."""
    reader = Reader(text, 0)
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
    parts = [formula.fixed]
    for bar in formula.bars:
        line = "||" if bar.structure == "diag" else "|"
        opening = "(" if bar.structure in ("us", "diag") else f"{bar.structure}("
        parts.append(f"{opening}{bar.effects} {line} {':'.join(map(quoted, bar.groups))})")
    parts += [f"offset({expression})" for expression in formula.offsets]
    return f"{formula.response} ~ {' + '.join(parts)}"


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
        equals = text.find("=")
        at = equals if equals >= 0 and text[equals + 1 : equals + 2] != "=" else len(text.rstrip())
        fail("there is no ~; write 'response ~ predictors'", text, at)
    if len(found) > 1:
        fail("there is more than one ~", text, found[1])
    return found[0]


def _refuse_twins(bars: list[Bar], text: str) -> None:
    seen: dict[tuple[str, str, tuple[str, ...]], Bar] = {}
    for bar in bars:
        key = (bar.structure, model_text(bar.effects), bar.groups)
        if key in seen:
            fail(f"the term ({bar.effects} | {bar.group}) is given twice; keep one", text, bar.start, bar.end)
        seen[key] = bar
