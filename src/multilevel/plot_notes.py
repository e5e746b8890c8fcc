"""Sentences under the plots of groups and of shrinkage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .plot_panels import beyond

if TYPE_CHECKING:
    from .pooling_lines import Lines, Shrinkage


def listed(names: Sequence[str]) -> str:
    shown = list(names) if len(names) <= 4 else [*names[:3], f"{len(names) - 3} more"]
    return shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + " and " + shown[-1]


def group_notes(lines: Lines, drawn: int) -> str:
    notes = []
    for how in dict.fromkeys(lines.held.values()):
        names = [name for name, one in lines.held.items() if one == how]
        notes.append(f"{listed(names)} at each group's {how}")
    if lines.with_groups:
        notes.append(f"partially pooled lines include the effects of {listed(lines.with_groups)}")
    lost = sum(bool(np.isnan(facet.unpooled).all()) for facet in lines.facets)
    if lost:
        own = "their" if lost > 1 else "its"
        notes.append(f"{lost} group{'s have' if lost > 1 else ' has'} no unpooled line: {own} rows do not determine one")
    if any(beyond(lines, facet) for facet in lines.facets):
        notes.append("faint: beyond the group's own rows")
    if lines.x is None:
        notes.append("rows of each group from left to right")
    total = sum(len(facet.rows) for facet in lines.facets)
    if drawn < total:
        notes.append(f"{drawn:,} of {total:,} points drawn")
    return "; ".join(notes)


def shrinkage_notes(found: Shrinkage, usable: int, drawn: int) -> str:
    notes = []
    if drawn < usable:
        notes.append(f"{drawn:,} of {usable:,} groups drawn")
    lost = len(found.levels) - usable
    if lost:
        notes.append(f"{lost:,} group{'s have' if lost > 1 else ' has'} {found.lost}")
    if found.fixed or found.groups:
        what = [f"fixed effects of {listed(found.fixed)}"] if found.fixed else []
        what += [f"effects of {listed(found.groups)}"] if found.groups else []
        notes.append(f"{' and '.join(what)} subtracted")
    return "; ".join(notes)
