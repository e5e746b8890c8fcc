"""Plate diagram of a model: what is drawn from what, and how often.

Here is what the diagram says; `graph_svg` lays it out and draws it. An ellipse is a random quantity, a filled one is
observed, a dashed one is computed; a box holds several parameters, a value held, or columns of the data; a plate repeats
what stands in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arviz_tree import response_name
from .errors import DataError, OptionError
from .graph_svg import svg
from .prior_table import Entry, entries_of
from .priors import Fixed

if TYPE_CHECKING:
    from .model import Model

__all__ = ["Graph", "Node", "Plate", "graph"]

SEPARATE = 3  # parameters of a block that get an ellipse each; more share a box
LINES = 10  # of a box
EFFECTS = 3  # names of effects in one line
LONGEST = 44  # characters of a line
ROWS = "rows"


@dataclass(frozen=True)
class Node:
    """One thing in the diagram.

    Attributes
    ----------
    name : str
    lines : tuple of str
        What stands in it; the first line is its name.
    kind : {"parameter", "fixed", "parameters", "computed", "observed", "data"}
    layer : int
        Row of the diagram, from the top: 0 hyperparameters, 1 what the predictors are made of, 2 predictors, 3 the response.
    block : int
        Nodes of one block stand side by side; blocks go from left to right.
    plate : str or None
    """

    name: str
    lines: tuple[str, ...]
    kind: str
    layer: int
    block: int
    plate: str | None = None


@dataclass(frozen=True)
class Plate:
    """What is repeated: a grouping factor's levels or the rows."""

    name: str
    caption: str


@dataclass
class Graph:
    """Plate diagram; a picture in a notebook, ``str(graph)`` its SVG text.

    Attributes
    ----------
    nodes : dict of Node
    plates : dict of Plate
    edges : list of (from, to)
    """

    nodes: dict[str, Node] = field(default_factory=dict)
    plates: dict[str, Plate] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)

    def add(self, node: Node, *parents: str) -> str:
        """Put a node in, with arrows from its parents; its name."""
        self.nodes[node.name] = node
        self.edges += [(parent, node.name) for parent in parents]
        return node.name

    def _repr_svg_(self) -> str:
        return svg(self)

    def __str__(self) -> str:
        return svg(self)

    def __repr__(self) -> str:
        arrows = ", ".join(f"{a} -> {b}" for a, b in self.edges)
        return f"Graph({arrows})"

    def save(self, path: Any) -> None:
        """Write the diagram to an SVG file.

        Raises
        ------
        OptionError
            For another kind of file.
        """
        if Path(path).suffix.lower() != ".svg":
            raise OptionError(f"the diagram is written as SVG, to a file name.svg, not to {str(path)!r}")
        Path(path).write_text(svg(self), encoding="utf-8")


def graph(model: Model) -> Graph:
    """See `Model.graph`."""
    design = model.design
    if design.y is None:
        raise DataError("this model was saved without its data, which its default priors are scaled by; save it with "
            "save(path, data=True)")  # fmt: skip
    entries = entries_of(model)
    out = Graph()
    predictors = [_group_effects(out, model, entries, t) for t in range(len(design.terms))]
    block = len(design.terms)
    coefficients = [e for e in entries if e.kind == "coefficient"]
    predictors += _parameters(out, coefficients, "coefficients", 1, block)
    eta = _unused(out, "linear predictor", design.response)
    sums = [*(["coefficients × data"] if coefficients else []), *(["group effects"] if design.terms else [])]
    sums += ["offset"] if design.offset is not None else []
    columns = [n for n in design.names if n != "Intercept"]
    columns += [n for t in design.terms if t.Z is not None for n in t.names if n != "Intercept"]
    if columns:
        lines = _cut(tuple(dict.fromkeys(columns)), 5)
        predictors.append(out.add(Node(_unused(out, "data", design.response), lines, "data", 2, block - 1, ROWS)))
    out.add(Node(eta, (eta, "= " + " + ".join(sums or ["0"])), "computed", 2, block, ROWS), *predictors)
    parents = [eta, *_further(out, model, entries, block + 1)]
    name = response_name(design)
    text = _likelihood(model)
    out.add(Node(name, (_short(name), f"~ {text}"), "observed", 3, block, ROWS), *parents)
    out.plates[ROWS] = Plate(ROWS, f"{len(design.rows)} rows")
    return out


def _group_effects(out: Graph, model: Model, entries: list[Entry], t: int) -> str:
    """A random term: its sds and correlations, and the effects of its levels in a plate."""
    term = model.design.terms[t]
    own = [e for e in entries if e.term == t]
    parents = _parameters(out, own, f"sds of {term.group}", 0, t)
    plate = _unused_plate(out, term.group)
    out.plates[plate] = Plate(plate, f"{_short(term.group)}: {len(term.levels)} levels")
    k = len(term.names)
    related = term.group in model.design.known
    if k == 1:
        law = "Normal(0, sd)" if not related else "Normal(0, sd² K)"
    elif not any(e.kind == "cor" for e in own):
        law = "Normal(0, sds), independent"
    else:
        law = "Normal(0, Σ)" if not related else "Normal(0, Σ ⊗ K)"
    names = term.names if k <= EFFECTS else (*term.names[: EFFECTS - 1], f"{k - EFFECTS + 1} more")
    name = _unused(out, f"ranef({term.group})", model.design.response)
    effects = _short(", ".join(_short(n, 20) for n in names))
    title = _short(f"ranef({term.group})")
    lines = (title, f"{effects} ~ {law}") if k == 1 else (title, effects, f"~ {law}")
    return out.add(Node(name, lines, "parameter", 1, t, plate), *parents)


def _parameters(out: Graph, own: list[Entry], title: str, layer: int, block: int) -> list[str]:
    """An ellipse for each parameter, or one box for many."""
    if len(own) <= SEPARATE:
        return [
            out.add(Node(_unused(out, e.name), (_short(e.name), _law(e)), _kind(e), layer, block)) for e in own
        ]
    lines = _cut(tuple(f"{_short(e.name, 30)} {_law(e)}" for e in own), LINES)
    return [out.add(Node(_unused(out, title), lines, "parameters", layer, block))]


def _further(out: Graph, model: Model, entries: list[Entry], block: int) -> list[str]:
    """What the response depends on beside the linear predictor: sigma, residual structure, dispersion, zeros, thresholds."""
    family, design = model.distribution, model.design
    if family is None:
        structure = [e for e in entries if e.kind == "residual"]
        sigma = _parameters(out, [e for e in entries if e.kind == "sigma"], "sigma", 2, block)
        return sigma + _parameters(out, structure, "residual structure", 2, block + 1)
    own = [e for e in entries if e.kind == "further"]
    if family.name == "ordinal":
        return _parameters(out, own, "thresholds", 2, block)
    parents = []
    zeros = [e for e in own if e.name.startswith("zi[")]
    for what, part in (("dispersion", [e for e in own if e not in zeros]), ("zi", zeros)):
        if not part:
            continue
        if what not in design.sides or design.sides[what][1] == ("Intercept",):
            parents += _parameters(out, part, what, 2, block)
        else:
            above = _parameters(out, part, what, 1, block)
            title = f"log {family.dispersion}" if what == "dispersion" else "logit zi"
            node = Node(_unused(out, title), (title, "= coefficients × data"), "computed", 2, block, ROWS)
            parents.append(out.add(node, *above))
        block += 1
    return parents


def _likelihood(model: Model) -> str:
    """Distribution of the response, as a short formula."""
    family, design = model.distribution, model.design
    weighted = " / √weights" if design.weights is not None else ""
    if family is None:
        return f"Normal(predictor, {'Σ, structured' if model.residual is not None else 'sigma' + weighted})"
    inverse = {
        "identity": "{}", "log": "exp({})", "logit": "logit⁻¹({})", "probit": "Φ({})", "cloglog": "cloglog⁻¹({})",
        "cauchit": "cauchit⁻¹({})", "inverse": "1 / {}", "sqrt": "{}²", "inverse_square": "1 / √{}",
    }  # fmt: skip
    mean = inverse[family.link].format("predictor")
    name = {
        "poisson": "Poisson", "nbinom2": "NegativeBinomial", "nbinom1": "NegativeBinomial1", "gamma": "Gamma",
        "inverse_gaussian": "InverseGaussian", "beta": "Beta", "student": "StudentT", "gaussian": "Normal",
        "lognormal": "LogNormal", "betabinomial": "BetaBinomial", "binomial": "Binomial",
    }.get(family.name, family.name)  # fmt: skip
    if family.name == "ordinal":
        return f"Cumulative({family.link}, thresholds − predictor)"
    if family.name == "binomial" and design.trials is None:
        return f"Bernoulli({mean})"
    parts = ["trials"] if family.name in ("binomial", "betabinomial") and design.trials is not None else []
    parts += [mean, *([family.dispersion] if family.dispersion is not None else [])]
    law = f"{name}({', '.join(parts)})"
    return {"none": law, "inflated": f"ZeroInflated(zi, {law})", "hurdle": f"Hurdle(zi, {law})"}[family.zero]


def _law(entry: Entry) -> str:
    if isinstance(entry.prior, Fixed):
        return entry.prior.text().replace("Fixed(", "= ").rstrip(")")
    return f"~ {entry.text()}"


def _kind(entry: Entry) -> str:
    return "fixed" if isinstance(entry.prior, Fixed) else "parameter"


def _short(text: str, limit: int = LONGEST) -> str:
    """A long text without its middle, for names often differ at the end."""
    plain = " ".join(text.split())
    return plain if len(plain) <= limit else plain[: limit - limit // 3 - 1] + "…" + plain[-(limit // 3) :]


def _cut(lines: tuple[str, ...], most: int) -> tuple[str, ...]:
    lines = tuple(_short(line, 2 * LONGEST) for line in lines)
    return lines if len(lines) <= most else (*lines[: most - 1], f"and {len(lines) - most + 1} more")


def _unused(out: Graph, name: str, *reserved: str) -> str:
    while name in out.nodes or name in reserved:
        name += " "
    return name


def _unused_plate(out: Graph, name: str) -> str:
    while name in out.plates or name == ROWS:
        name += " "
    return name
