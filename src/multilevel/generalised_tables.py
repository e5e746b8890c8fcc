"""The printed summary of a generalised model, as lme4's glmer prints it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .families import SHAPES, shape_slope, shape_value
from .tables import (
    LEGEND,
    STARS,
    Block,
    clean,
    closing,
    correlation_block,
    correlations,
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
    scaled = residual_block(fit) if fit.family.name != "ordinal" and fit.family.finite_variance else None
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
    nodes = fit.model._quadrature
    rule = {0: "lme4's quick start, nAGQ = 0", 1: "Laplace approximation"}.get(nodes, f"adaptive quadrature, {nodes} nodes")
    how = f"maximum likelihood ({rule})" if fit.design.terms else "maximum likelihood"
    zeros = {"none": "", "inflated": ", zero-inflated", "hurdle": ", hurdle at zero"}[fit.family.zero]
    family = fit.model.distribution
    fixed = "" if family is None or family.name not in SHAPES or family.shape else f", {SHAPES[family.name]} fixed at "
    fixed += f"{getattr(family, SHAPES[fit.family.name]):g}" if fixed else ""
    lines = [
        f"Family: {fit.family.name} ({fit.family.link}){zeros}{fixed}",
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
    notes: tuple[str, ...] = ()
    family = fit.model.distribution
    shape = None if family is None else family.shape
    title = "Thresholds:" if fit.family.name == "ordinal" else "Dispersion (log scale) and extra zeros (logit scale):"
    if fit.family.name != "ordinal" and fit.family.zero == "none":
        title = f"Dispersion: log of the {fit.family.dispersion}"
        if shape is not None:
            title += {"df": ", log of df - 1", "power": ", scaled logit of the power"}[shape]
            value, slope = shape_value(shape, float(estimate[-1])), shape_slope(shape, float(estimate[-1]))
            notes = (f"{shape} {value:.4g} (std. error {slope * error[-1]:.2g})",)
    elif fit.family.name != "ordinal" and fit.family.dispersion is None:
        title = "Extra zeros (logit scale):"
    return Block(title, ("", "Estimate", "Std. Error"), rows, "lrr", notes)


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


def without_residual(table: Any, column: str) -> dict[str, NDArray[Any]]:
    """Columns of a frame of any library, without the rows of the residual."""
    from .generalised_predict import column_names

    columns = {name: np.asarray(table[name]) for name in column_names(table)}
    kept = columns[column] != "Residual"
    return {name: values[kept] for name, values in columns.items()}


def tidy(fit: GeneralisedFit, level: float) -> Any:
    """Fixed effects, sds and correlations of the random ones, and further coefficients, with broom.mixed's columns."""
    from .inference import t_table

    fixed, random = fit.fixef_columns(level, "none"), _random_parameters(fit)
    names, estimate = fit.coefficients.names, fit.optimum.residual
    error = np.sqrt(np.diag(fit.optimum.residual_vcov))
    p, r, m = len(fixed["term"]), len(random), len(names)
    extra: dict[str, Any] = {"df": np.full(m, np.inf), **t_table(estimate, error, np.full(m, np.inf), level)}
    extra |= {"std_error": error}
    effect = ["fixed"] * p + ["ran_pars"] * r + ["extra"] * m
    columns: dict[str, Any] = {
        "effect": np.array(effect, dtype=object),
        "group": np.array([None] * p + [group for group, _, _ in random] + [None] * m, dtype=object),
        "term": np.array([*fixed["term"], *(term for _, term, _ in random), *names], dtype=object),
        "estimate": np.array([*fixed["estimate"], *(value for _, _, value in random), *estimate]),
    }
    for name in ("std_error", "statistic", "df", "p_value", "conf_low", "conf_high"):
        columns[name] = np.concatenate([fixed[name], np.full(r, np.nan), extra[name]])
    return fit._frame(columns)


def _random_parameters(fit: GeneralisedFit) -> list[tuple[str, str, float]]:
    """(group, term, estimate): sds, then correlations, of each term."""
    out = []
    for term, cov in zip(fit.design.terms, fit.random_cov(), strict=True):
        sd = np.sqrt(np.diag(cov))
        out += [(term.group, f"sd__{name}", float(s)) for name, s in zip(term.names, sd, strict=True)]
        if term.structure != "diag":
            rows = correlations(cov, sd)
            pairs = [(i, j) for j in range(len(sd)) for i in range(j + 1, len(sd))]
            out += [(term.group, f"cor__{term.names[j]}.{term.names[i]}", rows[i - 1][j]) for i, j in pairs]
    return out
