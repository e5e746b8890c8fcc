"""broom's tables of a posterior: tidy, glance, augment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .broom import _with_columns, beside_data
from .families import TRIALS
from .posterior_tables import _worst, columns, worth

if TYPE_CHECKING:
    from .posterior import Posterior

__all__ = ["augment", "glance", "tidy"]

Array = NDArray[np.float64]
Row = tuple[str, str | None, str, Array]


def tidy(posterior: Posterior, level: float) -> Any:
    """Columns of `Posterior.tidy`."""
    from .inference import check_level

    check_level(level)
    kept = posterior.draws_kept
    rows: list[Row] = [("fixed", None, name, kept.beta[:, :, i]) for i, name in enumerate(posterior.design.names)]
    rows += _random_parameters(posterior)
    for i, c in enumerate(kept.coordinates):
        if c.kind == "further":
            rows.append(("extra", None, c.name, kept.scalars[:, :, i]))
    out: dict[str, Any] = {
        name: np.array([row[i] for row in rows], dtype=object) for i, name in enumerate(("effect", "group", "term"))
    }
    most = np.array([worth(posterior, row[0] == "fixed") for row in rows])
    found = columns(np.stack([row[3] for row in rows], axis=2), level, most=most) if rows else {}
    names = {
        "estimate": "estimate", "est_error": "std_error", "ci_low": "conf_low", "ci_high": "conf_high", "rhat": "rhat",
        "ess_bulk": "ess",
    }  # fmt: skip
    return posterior._frame(out | {new: found.get(old, np.empty(0)) for old, new in names.items()})


def _random_parameters(posterior: Posterior) -> list[Row]:
    """Sds, then correlations, of each term; the residual sd and structure."""
    out: list[Row] = []
    for t, term in enumerate(posterior.design.terms):
        cov = posterior.covariances(t)
        sd = np.sqrt(np.einsum("...ii->...i", cov))
        out += [("ran_pars", term.group, f"sd__{name}", sd[..., i]) for i, name in enumerate(term.names)]
        if term.structure not in ("diag", "homdiag"):
            for j in range(len(term.names)):
                for i in range(j + 1, len(term.names)):
                    values = cov[..., i, j] / (sd[..., i] * sd[..., j])
                    out.append(("ran_pars", term.group, f"cor__{term.names[j]}.{term.names[i]}", values))
    kept = posterior.draws_kept
    sigma = kept.scalar("sigma")
    if sigma is not None:
        out.append(("ran_pars", "Residual", "sd__Observation", sigma))
    structure = [i for i, c in enumerate(kept.coordinates) if c.kind == "residual"]
    return out + [("ran_pars", "Residual", kept.coordinates[i].name, kept.scalars[:, :, i]) for i in structure]


def glance(posterior: Posterior) -> Any:
    """Columns of `Posterior.glance`."""
    kept = posterior.draws_kept
    rhat, ess = _worst(posterior)
    total = kept.chains * kept.draws
    divergences = int(kept.stats["diverging"].sum()) if "diverging" in kept.stats else 0
    effective = {"nuts": ess, "exact": float(total)}.get(kept.method, float(kept.facts.get("effective", np.nan)))
    values = {
        "nobs": posterior.nobs, "sigma": posterior.sigma, "method": kept.method, "chains": kept.chains,
        "draws": total, "rhat": rhat, "ess": effective, "divergences": divergences,
        "pareto_k": float(kept.facts.get("pareto_k", np.nan)) if kept.method == "independent" else np.nan,
        "trusted": posterior.trust[0],
    }  # fmt: skip
    return posterior._frame({name: np.array([value]) for name, value in values.items()})


def augment(posterior: Posterior, new: Any, new_levels: str, offset: Any = None) -> Any:
    """Columns of `Posterior.augment`."""
    from .frame import Table

    if new is None:
        posterior.rows_of_data()
    added = _values(posterior, new, new_levels, offset)
    if new is not None:
        table = Table(new)
        return _with_columns(new, table.kind, table.names, added)
    family, d = posterior.model.distribution, posterior.design
    if ".fitted" in added:
        observed = np.full(d.n_input, np.nan)
        counts = family is not None and family.name in TRIALS and d.trials is not None
        observed[d.rows] = d.y / d.trials if counts and d.trials is not None else d.y
        added[".resid"] = observed - added[".fitted"]
    if family is None:
        return beside_data(posterior, added)
    from .storage import used_columns

    stand_in: Any = posterior  # whose design says which columns it used
    data, used = posterior.model.data, set(used_columns(stand_in))
    if data is None:
        return _with_columns(None, d.kind, (), added)
    table = Table(data)
    return _with_columns(data, table.kind, [name for name in table.names if name in used], added)


def _values(posterior: Posterior, new: Any, new_levels: str, offset: Any) -> dict[str, Array]:
    """Fitted values, their posterior sds and what they are made of."""
    family, given = posterior.model.distribution, {"offset": offset, "seed": 0}
    if family is not None and family.name == "ordinal":
        line = posterior.predict(new, new_levels=new_levels, kind="link", interval="confidence", **given)
        return {".linear": _column(line, "prediction"), ".est_error": _column(line, "est_error")}
    found = posterior.predict(new, new_levels=new_levels, interval="confidence", **given)
    out = {".fitted": _column(found, "prediction"), ".est_error": _column(found, "est_error")}
    if family is None:
        fixed = posterior.predict(new, groups=None, new_levels="population", **given)
        return out | {".fixed": _column(fixed, "prediction")}
    return out | {".linear": _column(posterior.predict(new, new_levels=new_levels, kind="link", **given), "prediction")}


def _column(table: Any, name: str) -> Array:
    return np.asarray(table[name], dtype=np.float64)
