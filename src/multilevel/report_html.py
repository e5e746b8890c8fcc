"""Pieces of HTML that a report is put together from; all that comes from outside is escaped here."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .tables import clean

__all__ = [
    "Cell", "Section", "bullets", "decimals", "definitions", "escape", "fixed", "interval", "measured",
    "number", "p_value", "page", "paragraph", "table",
]  # fmt: skip

ON_ONE_PAGE = 10  # rows of a table that paper does not break
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Section:
    """One part of the page: name of its anchor, heading, HTML."""

    anchor: str
    heading: str
    body: str


@dataclass(frozen=True)
class Cell:
    """A cell of a table that shows one thing and has another value, or its own class."""

    shown: str
    value: float | None = None
    style: str = ""


def escape(text: object) -> str:
    """Text of the user's as HTML: on one line, without control characters."""
    return html.escape(clean(text))


def number(value: float | None, digits: int = 4) -> str:
    """A number as people write it: a real minus, thousands parted, powers of ten only where there is no other way."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    size = abs(value)
    if size >= 10**digits:
        text = f"{value:,.0f}" if size < 1e12 else f"{value:.{digits - 1}e}"
    elif size and size < 1e-4:
        text = f"{value:.{digits - 2}e}"
    else:
        text = f"{value:#.{digits}g}".rstrip(".") if not float(value).is_integer() else f"{value:,.0f}"
    return text.replace("-", MINUS)


def decimals(error: float | None, digits: int = 3) -> int | None:
    """Decimals that show so many digits of an error; None where it says nothing of them, or they would be many."""
    if error is None or not math.isfinite(error) or error <= 0:
        return None
    places = max(digits - 1 - math.floor(math.log10(error)), 0)
    return places if places <= 6 else None


def fixed(value: float | None, places: int | None) -> str:
    """A number with so many decimals; None for those that suit itself."""
    if value is None or places is None or not math.isfinite(value) or abs(value) >= 1e12:
        return number(value)
    text = f"{value:,.{places}f}"
    return (text if float(text.replace(",", "")) else text.lstrip("-")).replace("-", MINUS)


def measured(values: Sequence[float | None], error: float | None, digits: int = 3) -> list[Cell]:
    """Cells of a row: numbers to the digits that their error leaves them."""
    places = decimals(error, digits)
    return [Cell(fixed(value, places), value, "n") for value in values]


def p_value(p: float | None) -> str:
    if p is None or math.isnan(p):
        return "–"
    return "&lt; 0.0001" if p < 1e-4 else f"{p:.2g}" if p < 0.1 else f"{p:.2f}"


def interval(low: float | None, high: float | None, places: int | None = None, digits: int = 3) -> str:
    if places is None:
        return f"{number(low, digits)} to {number(high, digits)}"
    return f"{fixed(low, places)} to {fixed(high, places)}"


def paragraph(text: str, style: str = "") -> str:
    """A paragraph of HTML."""
    return f"<p{_style(style)}>{text}</p>" if text else ""


def bullets(items: Sequence[str], style: str = "") -> str:
    """A list of pieces of HTML."""
    return f"<ul{_style(style)}>{''.join(f'<li>{one}</li>' for one in items)}</ul>" if items else ""


def definitions(pairs: Sequence[tuple[str, str]]) -> str:
    """Names with pieces of HTML."""
    return "<dl>" + "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in pairs) + "</dl>"


def table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[Any]], limit: int = 0, rest: str = "") -> str:
    """A table whose first column names the rows; numbers stand to the right, at full precision in ``data-value``.

    Parameters
    ----------
    caption : str
        HTML.
    heads : sequence of str
        As text.
    rows : sequence of rows
        Numbers, `Cell` (HTML), or text, which is escaped.
    limit : int
        Rows to show; 0 for all. `rest` says where the others are.
    """
    shown = rows[:limit] if limit else rows
    numeric = [bool(shown) and all(_numeric(row[j]) for row in shown) for j in range(len(heads))]
    head = "".join(
        f'<th scope="col"{_style("n" if right else "")}>{escape(name)}</th>'
        for name, right in zip(heads, numeric, strict=True)
    )
    body = "".join(f"<tr>{''.join(_cell(one, j == 0) for j, one in enumerate(row))}</tr>" for row in shown)
    more = len(rows) - len(shown)
    note = paragraph(f"{more:,} more row{'s' * (more != 1)}{': ' + rest if rest else ''}.", "note") if more else ""
    label = html.escape(html.unescape(_untagged(caption)))
    size = "wide small" if len(shown) <= ON_ONE_PAGE else "wide"
    return (
        f'<div class="{size}" role="region" tabindex="0" aria-label="{label}"><table><caption>{caption}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{note}"
    )


def _numeric(value: Any) -> bool:
    return value is None or isinstance(value, (int, float)) or (isinstance(value, Cell) and value.style == "n")


def _cell(value: Any, name: bool) -> str:
    tag, scope = ("th", ' scope="row"') if name else ("td", "")
    if isinstance(value, Cell):
        exact = "" if value.value is None or math.isnan(value.value) else f' data-value="{value.value!r}"'
        return f"<{tag}{scope}{_style(value.style)}{exact}>{value.shown}</{tag}>"
    if value is None or isinstance(value, (int, float)):
        exact = "" if value is None else f' data-value="{value!r}"'
        shown = f"{value:,}" if isinstance(value, int) else number(value)
        return f'<{tag}{scope} class="n"{exact}>{shown}</{tag}>'
    return f"<{tag}{scope}>{escape(value)}</{tag}>"


def _untagged(text: str) -> str:
    """HTML without its tags, for a label."""
    out, inside = [], False
    for char in text:
        inside = char == "<" or (inside and char != ">")
        if not inside and char != ">":
            out.append(char)
    return "".join(out)


def _style(style: str) -> str:
    return f' class="{style}"' if style else ""


def page(title: str, byline: str, sections: Sequence[Section], footer: str, facts: Mapping[str, str]) -> str:
    """The whole page.

    Parameters
    ----------
    title : str
        Text.
    byline, footer : str
        HTML.
    sections : sequence of Section
    facts : dict
        Name -> content of further ``meta`` elements, as text.
    """
    from .report_style import STYLE

    meta = "".join(
        f'<meta name="{name}" content="{html.escape(clean(text))}">\n' for name, text in facts.items() if text
    )
    links = "".join(f'<li><a href="#{one.anchor}">{one.heading}</a></li>' for one in sections)
    parts = "\n".join(
        f'<section aria-labelledby="{one.anchor}"><h2 id="{one.anchor}">{one.heading}</h2>\n{one.body}\n</section>'
        for one in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n{meta}'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f'<div class="sheet">\n<header><h1>{escape(title)}</h1>\n<p class="byline">{byline}</p></header>\n'
        f'<nav aria-labelledby="contents"><h2 id="contents">Contents</h2><ol>{links}</ol></nav>\n'
        f"<main>\n{parts}\n</main>\n<footer>{footer}</footer>\n</div>\n</body>\n</html>\n"
    )
