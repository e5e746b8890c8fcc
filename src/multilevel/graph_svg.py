"""A plate diagram as SVG text: rows of nodes, blocks from left to right, arrows from each row to the one below.

Arrows leave a node downwards and turn between rows only, so that they never cross another node.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .graph import Graph, Node

__all__ = ["Box", "Layout", "layout", "svg"]

FONT = 13.0
LINE = 17.0  # height of a line of text
GAP = 22.0  # between nodes
BLOCK_GAP = 34.0
RISE = 46.0  # between rows
PAD = 16.0  # of plates
CAPTION = 20.0
MARGIN = 20.0
NARROW, WIDE, CAPITAL = "iljftr.,:;'|()[]{} !-/\\", "mwMW@%…⊗Σ", "ABCDEFGHIJKLNOPQRSTUVXYZ_~=+×−√<>"
COLOURS = {
    "parameter": ("#ffffff", "#1f4e79"), "fixed": ("#ffffff", "#777777"), "parameters": ("#ffffff", "#1f4e79"),
    "computed": ("#ffffff", "#555555"), "observed": ("#d5dbe3", "#1f2d3d"), "data": ("#eef0f3", "#777777"),
}  # fmt: skip


@dataclass
class Box:
    """A rectangle by its left upper corner."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        return self.x + self.width / 2

    @property
    def bottom(self) -> float:
        return self.y + self.height

    @property
    def right(self) -> float:
        return self.x + self.width


@dataclass
class Layout:
    """Where everything stands.

    Attributes
    ----------
    nodes, plates : dict of Box
    captions : dict of Box
        Of plates.
    arrows : list of (x, y, turn, x, y)
        From, the height below which it may turn, to.
    width, height : float
    """

    nodes: dict[str, Box]
    plates: dict[str, Box]
    captions: dict[str, Box]
    arrows: list[tuple[float, float, float, float, float]]
    width: float
    height: float


def text_width(text: str, size: float = FONT) -> float:
    """Width that a line takes in any usual sans-serif font, rather too much than too little."""
    share = {**dict.fromkeys(NARROW, 0.42), **dict.fromkeys(WIDE, 1.0), **dict.fromkeys(CAPITAL, 0.8)}
    return size * sum(share.get(c, 0.65 if c.isascii() else 1.0) for c in text)


def node_size(node: Node) -> tuple[float, float]:
    """Width and height of a node around its text; an ellipse must hold the corners of it."""
    width = max(text_width(line) for line in node.lines)
    height = LINE * len(node.lines)
    if node.kind in ("parameters", "data", "fixed"):
        return width + 20, height + 12
    return 1.22 * width + 18, 1.75 * height + 4


def layout(graph: Graph) -> Layout:
    """Places of nodes, plates and arrows."""
    boxes = {name: Box(0.0, 0.0, *node_size(node)) for name, node in graph.nodes.items()}
    _place_across(graph, boxes)
    plates = _place_down(graph, boxes)
    captions = {name: _caption(graph, name, plate) for name, plate in plates.items()}
    left = min(b.x for b in [*boxes.values(), *plates.values()]) - MARGIN
    for box in [*boxes.values(), *plates.values(), *captions.values()]:
        box.x -= left
    everything = [*boxes.values(), *plates.values()]
    arrows = [_arrow(graph, a, b, boxes, plates) for a, b in graph.edges]
    return Layout(
        boxes, plates, captions, arrows, max(b.right for b in everything) + MARGIN, max(b.bottom for b in everything) + MARGIN
    )


def _across(graph: Graph, layer: int, block: int) -> list[str]:
    return [n for n, node in graph.nodes.items() if (node.layer, node.block) == (layer, block)]


def _span(graph: Graph, boxes: dict[str, Box], names: list[str]) -> float:
    """Width of nodes side by side, with the plate of a group round them."""
    if not names:
        return 0.0
    width = sum(boxes[n].width for n in names) + GAP * (len(names) - 1)
    plate = graph.nodes[names[0]].plate
    if plate is None or plate == "rows":
        return width
    return max(width + 2 * PAD, 2 * text_width(graph.plates[plate].caption) + 2 * PAD)  # the caption beside the arrow


def _place_across(graph: Graph, boxes: dict[str, Box]) -> None:
    """Upper rows by blocks; lower rows below the middle of what leads there."""
    upper = sorted({n.block for n in graph.nodes.values() if n.layer < 2})
    at = 0.0
    for block in upper:
        rows = [_across(graph, layer, block) for layer in (0, 1)]
        width = max(_span(graph, boxes, names) for names in rows)
        for names in rows:
            inner = sum(boxes[n].width for n in names) + GAP * (len(names) - 1)
            x = at + (width - inner) / 2
            for name in names:
                boxes[name].x = x
                x += boxes[name].width + GAP
        at += width + BLOCK_GAP
    for layer in (2, 3):
        _place_row(graph, boxes, layer)
    inside = max(boxes[n].right for n, node in graph.nodes.items() if node.plate == "rows")
    outside = [n for n, node in graph.nodes.items() if node.layer == 2 and node.plate != "rows"]
    if outside:
        move = inside + PAD + GAP - min(boxes[n].x for n in outside)
        for name in outside:
            boxes[name].x += max(move, 0.0)


def _place_row(graph: Graph, boxes: dict[str, Box], layer: int) -> None:
    """One of the lower rows: predictors below their parents, as near as the others let them."""
    order = [n for n, node in graph.nodes.items() if node.layer == layer]
    order.sort(key=lambda n: (graph.nodes[n].plate != "rows", graph.nodes[n].block))
    wanted = {}
    for name in order:
        parents = [boxes[a] for a, b in graph.edges if b == name and graph.nodes[a].layer == layer - 1]
        inside = [boxes[a] for a, b in graph.edges if b == name and graph.nodes[a].plate == "rows"]
        own = (inside or parents) if layer == 3 else parents
        wanted[name] = sum(b.middle for b in own) / len(own) if own else None
    main = next((n for n in order if wanted[n] is not None), order[0])
    boxes[main].x = (wanted[main] or 0.0) - boxes[main].width / 2
    place = order.index(main)
    edge = boxes[main].right
    for name in order[place + 1 :]:
        outside = graph.nodes[name].plate != "rows" and graph.nodes[main].plate == "rows"
        least = edge + (GAP + 2 * PAD if outside else GAP)
        middle = wanted[name]
        boxes[name].x = least if middle is None else max(least, middle - boxes[name].width / 2)
        edge = boxes[name].right
    edge = boxes[main].x
    for name in reversed(order[:place]):
        boxes[name].x = edge - 2 * GAP - boxes[name].width
        edge = boxes[name].x


def _place_down(graph: Graph, boxes: dict[str, Box]) -> dict[str, Box]:
    """Heights of the rows, and the plates."""
    y = MARGIN
    plates: dict[str, Box] = {}
    for layer in sorted({node.layer for node in graph.nodes.values()}):
        names = [n for n, node in graph.nodes.items() if node.layer == layer]
        grouped = any(graph.nodes[n].plate not in (None, "rows") for n in names)
        top = y + (PAD if grouped or (layer == 2 and graph.plates) else 0.0)
        tall = max(boxes[n].height for n in names)
        for name in names:
            boxes[name].y = top + (tall - boxes[name].height) / 2 if layer else top + tall - boxes[name].height
        bottom = top + tall
        for name in names if grouped else []:
            plate = graph.nodes[name].plate
            if plate is not None and plate != "rows":
                width = _span(graph, boxes, [name])
                middle = boxes[name].middle
                plates[plate] = Box(middle - width / 2, y, width, bottom + CAPTION + 6 - y)
        y = (bottom + CAPTION + 6 if grouped else bottom) + RISE
    inside = [boxes[n] for n, node in graph.nodes.items() if node.plate == "rows"]
    left, right = min(b.x for b in inside) - PAD, max(b.right for b in inside) + PAD
    top, bottom = min(b.y for b in inside) - PAD, max(b.bottom for b in inside)
    right = max(right, left + 2 * PAD + text_width(graph.plates["rows"].caption))
    plates["rows"] = Box(left, top, right - left, bottom + CAPTION + 6 - top)
    return plates


def _caption(graph: Graph, name: str, plate: Box) -> Box:
    """In the lower left corner; plates are wide enough for the arrow downwards to pass beside it."""
    width = text_width(graph.plates[name].caption)
    return Box(plate.x + 8, plate.bottom - CAPTION - 1, width, CAPTION - 2)


def _arrow(
    graph: Graph, start: str, end: str, boxes: dict[str, Box], plates: dict[str, Box]
) -> tuple[float, float, float, float, float]:
    a, b = boxes[start], boxes[end]
    if graph.nodes[start].layer == graph.nodes[end].layer:  # the data beside a predictor
        return a.right, a.y + a.height / 2, a.y + a.height / 2, b.x, b.y + b.height / 2
    others = sorted((boxes[p].middle for p, q in graph.edges if q == end and graph.nodes[p].layer < graph.nodes[end].layer))
    share = (others.index(a.middle) + 0.5) / len(others) - 0.5
    spread = 0.5 * b.width * share if len(others) > 1 else 0.0
    rounded = graph.nodes[end].kind in ("parameter", "computed", "observed")
    drop = b.height / 2 * (1 - (1 - (2 * spread / b.width) ** 2) ** 0.5) if rounded else 0.0
    layer = graph.nodes[start].layer
    row = [boxes[n].bottom for n, node in graph.nodes.items() if node.layer == layer]
    row += [plates[node.plate].bottom for node in graph.nodes.values() if node.layer == layer < 2 and node.plate in plates]
    return a.middle, a.bottom, max(row), b.middle + spread, b.y + drop


# -- drawing ---------------------------------------------------------------------------------------------------


def svg(graph: Graph) -> str:
    """The diagram as SVG text."""
    placed = layout(graph)
    w, h = placed.width, placed.height
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{w:.0f}" height="{h:.0f}" viewBox="0 0 {w:.1f} {h:.1f}" '
        f'font-family="Helvetica, Arial, sans-serif" font-size="{FONT:g}" role="img">',
        f"<title>{escape(repr(graph))}</title>",
        '<defs><marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0,0 L10,5 L0,10 z" fill="#444444"/></marker></defs>',
        f'<rect width="{w:.1f}" height="{h:.1f}" fill="#ffffff"/>',
    ]
    for name, box in placed.plates.items():
        out.append(
            f'<rect x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" rx="8" '
            'fill="none" stroke="#8a97a6" stroke-width="1.2"/>'
        )
        spot = placed.captions[name]
        caption = escape(graph.plates[name].caption)
        out.append(f'<text x="{spot.x:.1f}" y="{spot.bottom - 5:.1f}" fill="#5a6673">{caption}</text>')
    out += [_path(*arrow) for arrow in placed.arrows]
    for name, box in placed.nodes.items():
        out += _node(graph.nodes[name], box)
    return "\n".join([*out, "</svg>"]) + "\n"


def _path(x0: float, y0: float, turn: float, x1: float, y1: float) -> str:
    """Straight down to where arrows may turn, then a curve that arrives from above; level arrows are straight."""
    if y0 == turn and abs(y1 - y0) < 1:
        way = f"M{x0:.1f},{y0:.1f} L{x1:.1f},{y1:.1f}"
    else:
        middle = (turn + y1) / 2
        way = f"M{x0:.1f},{y0:.1f} L{x0:.1f},{turn:.1f} C{x0:.1f},{middle:.1f} {x1:.1f},{middle:.1f} {x1:.1f},{y1:.1f}"
    return f'<path d="{way}" fill="none" stroke="#444444" stroke-width="1.2" marker-end="url(#arrow)"/>'


def _node(node: Node, box: Box) -> list[str]:
    fill, stroke = COLOURS[node.kind]
    style = f'fill="{fill}" stroke="{stroke}" stroke-width="1.3"'
    if node.kind == "computed":
        style += ' stroke-dasharray="4 3"'
    if node.kind in ("parameters", "data", "fixed"):
        shape = f'<rect x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" rx="3" {style}/>'
    else:
        cx, cy = box.middle, box.y + box.height / 2
        shape = f'<ellipse cx="{cx:.1f}" cy="{cy:.1f}" rx="{box.width / 2:.1f}" ry="{box.height / 2:.1f}" {style}/>'
    first = box.y + box.height / 2 - LINE * len(node.lines) / 2 + 0.75 * LINE
    out = [shape]
    for i, line in enumerate(node.lines):
        bold = ' font-weight="600"' if i == 0 and node.kind not in ("parameters", "data") else ""
        out.append(
            f'<text x="{box.middle:.1f}" y="{first + i * LINE:.1f}" text-anchor="middle" fill="#1d2733"{bold}>'
            f"{escape(line)}</text>"
        )
    return out
