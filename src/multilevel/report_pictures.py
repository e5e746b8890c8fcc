"""Pictures of a report, inside the page: as SVG where that is small, else as PNG of few colours."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from .errors import MultilevelError
from .report_html import escape, paragraph

__all__ = ["available", "picture"]

LARGEST_SVG = 90_000  # bytes; beyond, the same as PNG
DPI = 150
COLOURS = 96  # of a PNG
INSTALL = "Pictures need matplotlib, which is not installed here: <code>pip install multilevel[plots]</code>."
Draw = Callable[[], Any]


def available() -> bool:
    return find_spec("matplotlib") is not None


def picture(draw: Draw, alt: str, caption: str, otherwise: str = "") -> str:
    """A figure as HTML; a sentence in its place where it cannot be drawn.

    Parameters
    ----------
    draw : callable
        Gives Axes, or an array of them.
    alt : str
        What is seen, as text.
    caption : str
        HTML.
    otherwise : str
        The sentence in its place (HTML); default what the error says.
    """
    if not available():
        return ""
    try:
        with _own_look():
            kind, data, width, height = _bytes(draw)
    except MultilevelError as error:
        return paragraph(otherwise or f"No picture here: {escape(error)}.".replace("..", "."), "note")
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    size = f'width="{width}" height="{height}"'
    return (
        f'<figure><img src="{source}" alt="{escape(alt)}" {size}>'
        f"{f'<figcaption>{caption}</figcaption>' if caption else ''}</figure>"
    )


@contextmanager
def _own_look() -> Iterator[None]:
    """The library's look whatever the user's settings; no window opens, and no figure of the user's is touched."""
    import matplotlib.pyplot as plt

    with warnings.catch_warnings(), plt.style.context("default"), plt.ioff():
        warnings.simplefilter("ignore")
        plt.rcParams["svg.fonttype"] = "path"
        plt.rcParams["text.parse_math"] = False  # a dollar in the name of a column is a dollar
        plt.rcParams["svg.hashsalt"] = "multilevel"
        yield


def _bytes(draw: Draw) -> tuple[str, bytes, int, int]:
    """Type, content, and width and height in CSS pixels."""
    import matplotlib.pyplot as plt

    before = set(plt.get_fignums())
    try:
        axes = draw()
        figure = (axes if hasattr(axes, "figure") else axes.flat[0]).figure
        width, height = (round(96 * float(size)) for size in figure.get_size_inches())
        buffer = io.BytesIO()
        nothing: dict[str, Any] = {"Date": None, "Creator": None}
        figure.savefig(buffer, format="svg", metadata=nothing)
        if buffer.tell() <= LARGEST_SVG:
            return "svg+xml", buffer.getvalue(), width, height
        return "png", _png(figure), width, height
    finally:
        for one in set(plt.get_fignums()) - before:
            plt.close(one)


def _png(figure: Any) -> bytes:
    from PIL import Image

    full, small = io.BytesIO(), io.BytesIO()
    figure.savefig(full, format="png", dpi=DPI)
    full.seek(0)
    with Image.open(full) as image:
        image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(small, format="PNG", optimize=True)
    return min(full.getvalue(), small.getvalue(), key=len)
