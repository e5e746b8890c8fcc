"""The structure of the data of a report: groups, how they lie to each other, what is missing, what was left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .cli_files import records
from .errors import MultilevelError
from .frame import Table
from .report_html import bullets, escape, paragraph, table

if TYPE_CHECKING:
    from .fit import Fit
    from .posterior import Posterior

__all__ = ["data_section", "group_sizes", "has_rows"]

MOST_COLUMNS = 40
RESIDUAL = "so that it cannot be told from the residual"
EXTRA = "which takes up what varies beyond the family"
SUGGESTION = "Random intercepts that this structure suggests"  # before a model; here there is one


def has_rows(source: Fit | Posterior) -> bool:
    """Whether the rows are there: not in a model read from a file without them."""
    return source.design.y is not None


def data_section(source: Fit | Posterior) -> str:
    """Rows used and left out, groups and columns, sentences of `describe`."""
    design = source.design
    lost = design.n_input - source.nobs
    used = f"{source.nobs:,} of {design.n_input:,} rows were used" if lost else f"All {source.nobs:,} rows were used"
    parts = [paragraph(f"{used}.")]
    parts.append(bullets([escape(one) for one in design.messages]))
    found = _described(source)
    if found is None:
        rows = [[name, levels] for name, levels in _levels(source).items()]
        parts.append(table("Grouping factors", ("group", "levels"), rows) if rows else "")
        if not has_rows(source):
            parts.append(
                paragraph(
                    "This model was read from a file without its rows, so that no more is known of the data here. "
                    "Save it with <code>save(path, data=True)</code> for a full report.",
                    "note",
                )
            )
        return "\n".join(part for part in parts if part)
    return "\n".join([*parts, *_tables(found, source.model.distribution is not None)])


def _tables(found: Any, generalised: bool) -> list[str]:
    sizes = [
        [one["group"], one["levels"], one["min"], one["median"], one["max"], one["single_row"], one["missing"]]
        for one in records(found.groups)
    ]
    heads = ("group", "levels", "fewest rows", "median", "most rows", "levels of one row", "missing")
    columns = [
        [one["column"], one["kind"], one["distinct"], one["missing"], one["varies_by"]]
        for one in records(found.columns)
    ]
    sentences = [one for one in found.sentences if not one.startswith(SUGGESTION)]
    if generalised:  # there is no residual that it could be told from
        sentences = [one.replace(RESIDUAL, EXTRA) for one in sentences]
    rest = "multilevel.describe(data, groups) shows all"
    return [
        table("Grouping factors", heads, sizes),
        table("Columns used", ("column", "kind", "values", "missing", "varies by"), columns, MOST_COLUMNS, rest)
        if columns
        else "",
        bullets([escape(one) for one in sentences]),
    ]


def _described(source: Fit | Posterior) -> Any:
    """What `describe` says of the columns used; None without rows or without groups."""
    from .description import describe
    from .storage import used_columns

    groups = list(dict.fromkeys(term.group for term in source.design.terms))
    if not has_rows(source) or not groups or source.model.data is None:
        return None
    try:
        names = set(Table(source.model.data).names)
        keys = {name for term in source.design.terms for name in term.columns}
        used: Any = source
        columns = [name for name in dict.fromkeys(used_columns(used)) if name in names and name not in keys]
        return describe(source.model.data, groups, columns)
    except MultilevelError:  # a column of a kind that is not described
        return None


def _levels(source: Fit | Posterior) -> dict[str, int]:
    return {term.group: len(term.levels) for term in source.design.terms}


def group_sizes(source: Fit | Posterior) -> dict[str, tuple[int, int]]:
    """Fewest and most rows of a level of each grouping factor, where the rows are there."""
    import numpy as np

    out: dict[str, tuple[int, int]] = {}
    for term in source.design.terms:
        if has_rows(source) and term.codes is not None:
            counts = np.bincount(term.codes[term.codes >= 0], minlength=len(term.levels))
            out[term.group] = int(counts.min(initial=len(term.codes))), int(counts.max(initial=0))
    return out
