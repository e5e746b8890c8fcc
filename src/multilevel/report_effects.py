"""What each coefficient of a model is of: a number, a level against another, part of a curve, an interaction."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, product
from typing import TYPE_CHECKING, Any

from .expressions import analyse
from .frame import label_text

if TYPE_CHECKING:
    from .columns import ColumnInfo
    from .design import Design

__all__ = ["Atom", "Coefficient", "coefficients"]

MOST_COLUMNS = 40  # of one expression such as a spline
MOST_NAMES = 20_000  # combinations of levels that are tried for one term


@dataclass(frozen=True)
class Atom:
    """One variable's part of a coefficient.

    Attributes
    ----------
    kind : {"number", "level", "mean", "contrast", "curve"}
        A number; a level against the reference; a level by itself; another contrast of a factor; one of several columns
        of an expression.
    label : str
        Column or expression.
    level, base : str
    """

    kind: str
    label: str
    level: str = ""
    base: str = ""


@dataclass(frozen=True)
class Coefficient:
    """A coefficient by its atoms (none for the intercept; None where its name was not understood).

    ``others`` are variables that it interacts with elsewhere in the formula; of an intercept, and of levels that have a
    mean each, all others.
    """

    name: str
    atoms: tuple[Atom, ...] | None
    others: tuple[str, ...] = ()


def coefficients(design: Design) -> list[Coefficient]:
    """Each column of the fixed side; needs no rows."""
    from .matrix import split_terms

    infos = design.remake.infos
    wanted = set(design.all_names)
    found: dict[str, tuple[Atom, ...]] = {"Intercept": ()}
    sets: list[frozenset[str]] = []
    for term in split_terms(design.remake.fixed):
        factors = [one for one in term.factors if str(one.eval_method.value) != "literal"]
        if not factors:
            continue
        atoms = [dict(_atoms(one, infos)) for one in factors]
        sets.append(frozenset(next(iter(one.values())).label for one in atoms))
        for names in islice(product(*atoms), MOST_NAMES):
            name = ":".join(names)
            if name in wanted:
                found[name] = tuple(part[one] for part, one in zip(atoms, names, strict=True))
    return [_placed(name, _curved(found.get(name), sets), sets) for name in design.all_names]


def _atoms(factor: Any, infos: Mapping[str, ColumnInfo]) -> Iterator[tuple[str, Atom]]:
    """Names that a variable's columns may have, with what they mean."""
    from .matrix import shown_name

    text = str(shown_name(factor.expr))
    label = text.strip("`") if factor.eval_method.value == "lookup" else text
    plain = re.fullmatch(r"(?:C|factor)\(\s*`?(.+?)`?\s*\)", label)
    info = infos.get(label) or infos.get(plain[1] if plain else "")
    categorical = info is not None and info.levels is not None and (bool(plain) or not info.number)
    if not categorical or info is None or info.levels is None:
        yield label, Atom("number", label)
        yield from ((f"{label}[{i}]", Atom("curve", label, f"[{i}]")) for i in range(MOST_COLUMNS))
        return
    title, texts = (plain[1] if plain else label), [label_text(one) for one in info.levels]
    yield from ((f"{label}[{one}]", Atom("mean", title, one)) for one in texts)
    if len(texts) > 1:
        marks = info.contrast.reduced(info.levels, label)[1]
        if info.contrast.kind == "treatment":
            base = label_text(info.levels[0] if info.contrast.base is None else info.contrast.base)
            for mark, level in zip(marks, [one for one in texts if one != base], strict=False):
                yield f"{label}{mark}", Atom("level", title, level, base)
        else:
            yield from ((f"{label}{mark}", Atom("contrast", title, mark)) for mark in marks)


def _curved(atoms: tuple[Atom, ...] | None, sets: list[frozenset[str]]) -> tuple[Atom, ...] | None:
    """A number whose column stands in another expression too (x beside x squared) is part of a curve."""
    return None if atoms is None else tuple(_bent(atom, sets) for atom in atoms)


def _bent(atom: Atom, sets: list[frozenset[str]]) -> Atom:
    own = _columns(atom.label) if atom.kind == "number" else frozenset()
    twins = any(one != atom.label and own & _columns(one) for group in sets for one in group)
    return Atom("curve", atom.label) if twins else atom


def _columns(text: str) -> frozenset[str]:
    try:
        found = analyse(text).columns
    except ValueError:
        found = ()
    return frozenset(found) or frozenset([text])


def _placed(name: str, atoms: tuple[Atom, ...] | None, sets: list[frozenset[str]]) -> Coefficient:
    own = frozenset(one.label for one in atoms or ())
    if atoms is None:
        return Coefficient(name, atoms)
    if all(one.kind == "mean" for one in atoms):
        return Coefficient(name, atoms, tuple(dict.fromkeys(one for group in sets for one in sorted(group - own))))
    return Coefficient(name, atoms, tuple(sorted({one for group in sets if own < group for one in group - own})))
