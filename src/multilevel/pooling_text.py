"""The words of `Pooling`: notes, verdict and summary."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from .errors import listing
from .frame import label_text
from .tables import Block, fixed_point, numbers, text_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .pooling_result import Pooling

__all__ = ["all_notes", "summary", "verdict"]

SHOWN = 12  # groups in the summary
WIDTH = 100
FEW = 15  # groups, with fewer of which 95 % intervals of simulated groups cover 90 %
FULL, LITTLE = 0.9, 0.1  # shrinkage that is nearly complete, or next to none


def all_notes(found: Pooling) -> list[str]:
    """Sentences on groups without coefficients of their own, and on the partially pooled model."""
    return [*_lost(found), *_partial_notes(found)]


def _lost(found: Pooling) -> list[str]:
    """Which coefficients are missing without pooling, and why."""
    c, state = found.columns, found.estimates["no"].state
    out = []
    for value, reason in (
        (1, "whose own rows do not determine it (too few, or the predictor does not vary among them)"),
        (
            2,
            "whose own estimate runs off to infinity (its rows have the same outcome, or are separated by the predictor)",
        ),
    ):
        for k, name in enumerate(c.names):
            levels = [label_text(one) for one in np.asarray(c.levels, dtype=object)[state[:, k] == value]]
            if levels:
                some = f"{len(levels)} of {len(c.levels)} groups" if len(levels) > 1 else "1 group"
                who = f" ({listing(levels, 3)})"
                out.append(f"Without pooling {name} is missing in {some}{who} {reason}.")
    unseen = int((~np.isfinite(found.estimates["partial"].estimate)).any(axis=1).sum())
    if unseen:
        out.append(
            f"In {unseen} of the groups the rows do not show what {', '.join(c.folded)} is, so that a coefficient is missing."
        )
    if np.isnan(found.models["no"].sigma):
        out.append(
            "Without pooling there are as many coefficients as rows: no residual variance, no standard errors, no likelihood."
        )
    return out


def _partial_notes(found: Pooling) -> list[str]:
    from .fit import Fit

    one, out = found.partial, []
    if not isinstance(one, Fit):
        fine, sentence = one.trust
        return [] if fine else [sentence]
    if one.is_singular:
        out.append(
            "The partially pooled fit is singular: a variance between groups is estimated as zero, or a correlation as one. "
            "Shrinkage is then complete along some direction, and intervals of partial pooling are far too narrow; a simpler "
            "vary=, or method='sample' with a prior, says more."
        )
    elif len(found.columns.levels) < FEW:
        out.append(
            f"{len(found.columns.levels)} groups hardly tell the variances, which the intervals of partial pooling take as "
            "known: they are somewhat too narrow. method='sample' knows that too."
        )
    if not one.convergence.converged:
        out.append(one.convergence.sentence)
    if found.models["no"].held is not None and len(found.models["no"].held.optimum.residual):
        out.append("No pooling takes the dispersion and the like from the partially pooled model.")
    return out


# -- verdict ----------------------------------------------------------------------------------------------------------


def verdict(found: Pooling) -> str:
    """What the comparison says."""
    c = found.columns
    parts = []
    for k, name in enumerate(c.names):
        one = found.shrinkage[:, k]
        small, large = int(np.argmin(one)), int(np.argmax(one))
        ends = ""
        if one[large] - one[small] >= 0.005:
            ends = f", from {one[small]:.0%} ({_rows(found, small)}) to {one[large]:.0%} ({_rows(found, large)})"
        parts.append(f"{name} {np.median(one):.0%} in the median{ends}")
    median = float(np.median(found.shrinkage))
    where = "between the two"
    if median > FULL or median < LITTLE:
        where = f"close to {'complete' if median > FULL else 'no'} pooling"
    text = f"Partial pooling stands {where}. Shrinkage (0% no, 100% complete pooling): {'; '.join(parts)}."
    return text + _by_aic(found)


def _rows(found: Pooling, j: int) -> str:
    c = found.columns
    return f"{label_text(c.levels[j])}: {_many(int(c.amount[j]), c.counted)}"


def _many(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' if n != 1 else ''}"


def _sizes(found: Pooling) -> str:
    """Rows and groups, in words."""
    c = found.columns

    def each(values: NDArray[np.int_], what: str) -> str:
        low, high = int(values.min()), int(values.max())
        return f"{_many(low, what)} each" if low == high else f"{low:,} to {_many(high, what)} each"

    out = f"{_many(len(c.codes), 'row')}, {len(c.levels):,} groups of {c.group}: {each(c.sizes, 'row')}"
    return out if c.trials is None else f"{out}, {each(c.trials, 'trial')}"


def _by_aic(found: Pooling) -> str:
    aic = np.asarray(found.criteria_columns["aic"])
    if not np.isfinite(aic).all():
        return ""
    order = np.argsort(aic, kind="stable")
    names = [f"{found.criteria_columns['pooling'][i]} pooling" for i in order]
    away = aic[order] - aic[order[0]]
    return (
        f" AIC, as a model of these groups, is lowest for {names[0]}; "
        f"{names[1]} is {away[1]:.1f} and {names[2]} {away[2]:.1f} above."
    )


# -- summary ----------------------------------------------------------------------------------------------------------


def summary(found: Pooling) -> str:
    """The text of `Pooling.summary`."""
    head = f"{found.formula}\n{_sizes(found)}"
    family = found.partial.model.distribution
    if family is not None:
        head += f"; {family.name} family, coefficients on the {family.link} scale"
    blocks = [_criteria(found), _population(found), _coefficients(found)]
    tail = [*textwrap.wrap(found.verdict, WIDTH)]
    for note in found.notes:
        tail += textwrap.wrap(f"Note: {note}", WIDTH)
    tail += textwrap.wrap(
        "Which one predicts best is a question for rows and groups left out: ml.cross_validate(found.partial, "
        'leave="rows" or "groups", baselines=True).',
        WIDTH,
    )
    return "\n".join([f"Complete, no and partial pooling: {head}", "", text_of(blocks).rstrip("\n"), "", *tail])


def _criteria(found: Pooling) -> Block:
    columns = found.criteria_columns
    keys = {"parameters": "parameters", "loglik": "log-lik", "aic": "AIC", "residual_sd": "residual sd"}
    shown = {name: _dashed(fixed_point(columns[key], 3 if key == "residual_sd" else 1)) for key, name in keys.items()}
    if not np.isfinite(columns["residual_sd"]).any():
        del shown["residual sd"]
    rows = tuple(
        (f"{kind} pooling", *(values[i].strip() for values in shown.values()))
        for i, kind in enumerate(columns["pooling"])
    )
    return Block(
        "Models of these groups (those of partial pooling given the group effects):",
        ("", *shown),
        rows,
        "l" + "r" * len(shown),
    )


def _dashed(texts: list[str]) -> list[str]:
    return ["-" if text.strip() in ("NaN", "Inf") else text for text in texts]


def _population(found: Pooling) -> Block:
    table = found.population
    kinds = [kind for kind in ("complete", "no", "partial") if np.isfinite(np.asarray(table[kind])).any()]
    cells = [[label_text(one) for one in np.asarray(table["term"])]]
    for kind in kinds:
        for end in ("", "_std_error"):
            cells.append(
                [text.strip() for text in _dashed(numbers(np.asarray(table[f"{kind}{end}"], dtype=np.float64), 4))]
            )
    header = ("term", *(name for kind in kinds for name in (kind, "std err")))
    return Block("All groups (fixed effects):", header, tuple(zip(*cells, strict=True)), "l" + "r" * (2 * len(kinds)))


def _coefficients(found: Pooling) -> Block:
    """Groups by size, those in the middle left out where they are many."""
    c = found.columns
    order = np.argsort(c.amount, kind="stable")
    if len(order) > SHOWN:
        order = order[np.linspace(0, len(order) - 1, SHOWN).round().astype(np.int64)]
    rows: list[list[str]] = []
    for k, name in enumerate(c.names):
        drawn = [found.estimates[kind].estimate[order, k] for kind in ("complete", "no", "partial")]
        largest = max(float(np.nanmax(np.abs(one), initial=0.0)) for one in drawn)
        cells: list[list[str]] = [numbers(np.where(np.abs(one) < 1e-9 * largest, 0.0, one), 4) for one in drawn]
        cells.append([f"{value:.0%}" for value in found.shrinkage[order, k]])
        for i, j in enumerate(order):
            values = [_dashed([column[i]])[0].strip() for column in cells]
            rows.append([name if i == 0 else "", label_text(c.levels[j]), f"{c.amount[j]:,}", *values])
    few = f" ({SHOWN} of {len(c.levels):,} groups, from the smallest to the largest)" if len(c.levels) > SHOWN else ""
    header = ("term", c.group, f"{c.counted}s", "complete", "no", "partial", "shrinkage")
    return Block(f"Coefficients by group{few}:", header, tuple(map(tuple, rows)), "llrrrrr")
