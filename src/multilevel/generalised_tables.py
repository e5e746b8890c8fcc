"""The printed summary of a generalised model, as lme4's glmer prints it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .tables import (
    LEGEND,
    STARS,
    Block,
    clean,
    closing,
    correlation_block,
    criterion_block,
    effect_name,
    numbers,
    p_values,
    random_block,
    readable,
    residual_block,
    stars,
)

if TYPE_CHECKING:
    from .generalised import GeneralisedFit


def summary_blocks(fit: GeneralisedFit) -> list[Block]:
    """Everything a summary shows, in order."""
    scaled = None if fit.family.name == "ordinal" else residual_block(fit)
    blocks = [
        _heading(fit),
        criterion_block(fit),
        scaled,
        random_block(fit),
        _extra(fit),
        _fixed(fit),
        correlation_block(fit),
        closing(fit),
    ]
    return [block for block in blocks if block is not None]


def _heading(fit: GeneralisedFit) -> Block:
    kind = "Generalized linear mixed model" if fit.design.terms else "Generalized linear model"
    how = "maximum likelihood (Laplace approximation)" if fit.design.terms else "maximum likelihood"
    zeros = {"none": "", "inflated": ", zero-inflated", "hurdle": ", hurdle at zero"}[fit.family.zero]
    lines = [
        f"Family: {fit.family.name} ({fit.family.link}){zeros}",
        f"Formula: {' '.join(clean(fit.formula).split())}",
    ]
    return Block(f"{kind} fit by {how}", notes=tuple(lines))


def _extra(fit: GeneralisedFit) -> Block | None:
    names = fit.coefficients.names
    if not names:
        return None
    estimate, error = fit.optimum.residual, np.sqrt(np.diag(fit.optimum.residual_vcov))
    texts = numbers([*readable(estimate, error), *error])
    rows = tuple(zip(map(clean, names), texts[: len(names)], texts[len(names) :], strict=True))
    title = "Thresholds:" if fit.family.name == "ordinal" else "Dispersion (log scale) and extra zeros (logit scale):"
    if fit.family.name != "ordinal" and fit.family.zero == "none":
        title = f"Dispersion: log of the {fit.family.dispersion}"
    elif fit.family.name != "ordinal" and fit.family.dispersion is None:
        title = "Extra zeros (logit scale):"
    return Block(title, ("", "Estimate", "Std. Error"), rows, "lrr")


def _fixed(fit: GeneralisedFit) -> Block | None:
    columns = fit.fixef_columns(0.95, "none")
    kept = [i for i, name in enumerate(fit.design.all_names) if name not in set(fit.design.dropped)]
    if not kept:
        return None
    get = {name: np.asarray(values)[kept] for name, values in columns.items()}
    p = len(kept)
    joint = numbers([*readable(get["estimate"], get["std_error"]), *get["std_error"]])
    statistic = numbers([round(t, 3) for t in get["statistic"].tolist()])
    pvalue = get["p_value"].tolist()
    cells = [[effect_name(name) for name in get["term"].tolist()], joint[:p], joint[p:], statistic, p_values(pvalue)]
    header, align, notes = ["", "Estimate", "Std. Error", "z value", "Pr(>|z|)"], "lrrrr", []
    if any(p <= STARS[-1][0] for p in pvalue):
        cells.append([stars(p) for p in pvalue])
        header, align, notes = [*header, ""], align + "l", ["---", LEGEND]
    lost = tuple(m for m in fit.design.messages if "full rank" in m)
    return Block("Fixed effects:", tuple(header), tuple(zip(*cells, strict=True)), align, (*notes, *lost))
