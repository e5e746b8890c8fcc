"""What the tests read off a report: the tree of its elements, its tables, its text."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "img", "br", "hr", "link", "input"}


@dataclass
class Table:
    caption: str = ""
    heads: list[str] = field(default_factory=list)
    rows: list[list[tuple[str, float | None]]] = field(default_factory=list)

    def column(self, j: int) -> list[float | None]:
        return [row[j][1] for row in self.rows]

    def names(self) -> list[str]:
        return [row[0][0] for row in self.rows]


class Page(HTMLParser):
    """A page read strictly: every element is closed, in order."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(convert_charrefs=True)
        self.source = Path(path).read_text(encoding="utf-8")
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[Table] = []
        self.sections: dict[str, str] = {}
        self.pieces: list[str] = []
        self._cell: list[str] | None = None
        self._value: float | None = None
        self._section = ""
        self.feed(self.source)
        self.close()
        assert not self.stack, f"not closed: {self.stack}"
        self.text = " ".join("".join(self.pieces).split())

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        assert len(given) == len(attrs), f"an attribute twice in <{tag}>"
        self.tags.append((tag, given))
        if tag not in VOID:
            self.stack.append(tag)
        if tag == "table":
            self.tables.append(Table())
        if tag == "tr" and "tbody" in self.stack:
            self.tables[-1].rows.append([])
        if tag in ("td", "th", "caption"):
            self._cell, self._value = [], float(given["data-value"]) if given.get("data-value") else None
        if tag == "h2":
            self._section = given.get("id") or ""

    def handle_endtag(self, tag):
        assert self.stack and self.stack.pop() == tag, f"</{tag}> at {self.getpos()} closes nothing"
        if tag in ("td", "th", "caption") and self._cell is not None:
            shown, table = "".join(self._cell), self.tables[-1]
            if tag == "caption":
                table.caption = shown
            elif "thead" in self.stack:
                table.heads.append(shown)
            else:
                table.rows[-1].append((shown, self._value))
            self._cell = None
        if tag in ("p", "li", "td", "th", "h2", "h3", "dd", "dt", "caption"):
            self.pieces.append(" ")

    def handle_data(self, data):
        if "style" in self.stack:
            return
        self.pieces.append(data)
        self.sections[self._section] = self.sections.get(self._section, "") + data
        if self._cell is not None:
            self._cell.append(data)

    def table(self, caption: str) -> Table:
        found = [one for one in self.tables if one.caption.startswith(caption)]
        assert len(found) == 1, [one.caption for one in self.tables]
        return found[0]

    def pictures(self) -> list[tuple[str, bytes]]:
        """Type and content of each picture."""
        out = []
        for tag, given in self.tags:
            if tag == "img":
                found = re.fullmatch(r"data:image/(svg\+xml|png);base64,([A-Za-z0-9+/=]+)", given["src"] or "")
                assert found, (given["src"] or "")[:80]
                out.append((found[1], base64.b64decode(found[2], validate=True)))
        return out
