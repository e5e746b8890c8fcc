"""broom's tables of a fit: tidy, glance, augment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import DataError
from .tables import correlations

if TYPE_CHECKING:
    from .fit import Fit

Array = NDArray[np.float64]

def tidy(fit: Fit, level: float = 0.95) -> Any:
    """Fixed effects and the sds and correlations of the random ones, with broom.mixed's columns."""
    from .frame import like

    fixed = fit.fixef_columns(level, "satterthwaite")
    random = _random_parameters(fit)
    p, r = len(fixed["term"]), len(random)
    out: dict[str, Any] = {
        "effect": ["fixed"] * p + ["ran_pars"] * r,
        "group": [None] * p + [group for group, _, _ in random],
        "term": [*fixed["term"], *(term for _, term, _ in random)],
        "estimate": [*fixed["estimate"], *(value for _, _, value in random)],
    }
    for name in ("std_error", "statistic", "df", "p_value", "conf_low", "conf_high"):
        out[name] = [*fixed[name], *[np.nan] * r]
    text = ("effect", "group", "term")
    columns = {name: np.array(v, dtype=object if name in text else float) for name, v in out.items()}
    return like(fit.design.kind, columns)


def _random_parameters(fit: Fit) -> list[tuple[str, str, float]]:
    """(group, term, estimate): sds, then correlations, of each term; the residual sd."""
    out = []
    for term, cov in zip(fit.design.terms, fit.random_cov(), strict=True):
        sd = np.sqrt(np.diag(cov))
        out += [(term.group, f"sd__{name}", float(s)) for name, s in zip(term.names, sd, strict=True)]
        if term.structure not in ("diag", "homdiag"):
            rows = correlations(cov, sd)
            pairs = [(i, j) for j in range(len(sd)) for i in range(j + 1, len(sd))]
            out += [(term.group, f"cor__{term.names[j]}.{term.names[i]}", rows[i - 1][j]) for i, j in pairs]
    out.append(("Residual", "sd__Observation", fit.sigma))
    r = fit.model.residual
    return out + [("Residual", n, float(v)) for n, v in zip(r.names() if r else (), fit.optimum.residual, strict=True)]


def glance(fit: Fit) -> Any:
    """One row of numbers about the whole fit."""
    from .frame import like

    report = fit.convergence
    values = {
        "nobs": fit.nobs, "npar": fit.npar, "sigma": fit.sigma, "loglik": fit.loglik, "aic": fit.aic,
        "aicc": fit.aicc, "bic": fit.bic, "criterion": fit.criterion_name, "deviance": fit.deviance,
        "df_residual": fit.df_residual, "converged": report.converged, "singular": report.singular,
    }
    return like(fit.design.kind, {name: np.array([value]) for name, value in values.items()})


def augment(fit: Fit) -> Any:
    """The columns the model used, with .fitted, .fixed and .resid, rows as in the data.

    A transformed response stands beside its column, under the name it has in the formula. After `refit` the
    response shown is the one fitted.
    """
    design = fit.rows_of_data()
    aligned = np.full((3, design.n_input), np.nan)
    fixed, total = fit._eta
    aligned[:, design.rows] = fixed, total, design.y - total
    return beside_data(fit, {".fitted": aligned[1], ".fixed": aligned[0], ".resid": aligned[2]})


def beside_data(fit: Any, added: dict[str, Array]) -> Any:
    """Columns (n_input,) of a linear fit or posterior beside the columns of the data that its model used."""
    from .expressions import analyse
    from .frame import Table
    from .frame import numbers as column_numbers

    design = fit.rows_of_data()
    observed = np.full(design.n_input, np.nan)
    observed[design.rows] = design.y
    response = analyse(design.response, response=True)
    data = fit.model._data
    if data is None:
        return _with_columns(None, design.kind, (), {design.response: observed, **added})
    table = Table(data)
    used = {*response.columns, *(name for term in design.terms for name in term.columns)}
    used |= {*design.remake.infos, design.remake.offset_column or response.columns[0]}
    loaded = table.load([response.columns[0]])[response.columns[0]]
    if table.n != design.n_input:
        raise DataError(f"the data had {design.n_input} rows when the model was made, and have {table.n} now; "
                        "make the model again")
    if not response.plain:
        added = {design.response: observed, **added}
    elif not np.array_equal(column_numbers(loaded, design.response)[design.rows], design.y):
        added = {response.columns[0]: observed, **added}
    return _with_columns(data, table.kind, [name for name in table.names if name in used], added)


def _with_columns(data: Any, kind: str, names: Sequence[str], added: dict[str, Array]) -> Any:
    """The named columns of the data with others added, in the library of the data; an index is kept."""
    from .frame import Table, like

    if data is None or kind not in ("pandas", "polars", "pyarrow"):
        return like(kind, {**(Table(data).load(names) if names else {}), **added})
    if kind == "polars":
        import polars as pl

        part = data.lazy().select(names).collect()
        return part.with_columns([pl.Series(name, values) for name, values in added.items()])
    if kind == "pyarrow":
        import pyarrow as pa

        part = data.select([name for name in names if name not in added])
        for name, values in added.items():
            part = part.append_column(name, pa.array(values, from_pandas=True))
        return part
    part = data.loc[:, [str(label) in names for label in data.columns]].copy()
    for name, values in added.items():
        part[name] = values
    return part
