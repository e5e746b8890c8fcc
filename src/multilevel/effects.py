"""Tables of effects by level and of their variances, as columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .fit import Fit


def ranef(fit: Fit, condvar: bool) -> dict[str, Any]:
    """Columns of `Fit.ranef`."""
    out: dict[str, list[Any]] = {"group": [], "level": [], "term": [], "estimate": [], "std_error": []}
    covs = fit.conditional_cov() if condvar else None
    for t, term in enumerate(fit.design.terms):
        levels, k = len(term.levels), len(term.names)
        out["group"].append(np.repeat(np.array([term.group], dtype=object), levels * k))
        out["level"].append(np.tile(np.asarray(term.levels, dtype=object), k))
        out["term"].append(np.repeat(np.array(term.names, dtype=object), levels))
        out["estimate"].append(fit.optimum.b[t].T.ravel())
        if covs is not None:
            variances = np.einsum("jkk->jk", covs[t])
            out["std_error"].append(np.sqrt(np.maximum(variances, 0)).T.ravel())
    return {name: join(v) for name, v in out.items() if name != "std_error" or condvar}


def coef(fit: Fit) -> dict[str, Any]:
    """Columns of `Fit.coef`."""
    out: dict[str, list[Any]] = {"group": [], "level": [], "term": [], "value": []}
    fixed = dict(zip(fit.design.names, fit.optimum.beta, strict=True))
    for group in dict.fromkeys(t.group for t in fit.design.terms):
        terms = [(t, term) for t, term in enumerate(fit.design.terms) if term.group == group]
        random = {n: fit.optimum.b[t][:, i] for t, term in terms for i, n in enumerate(term.names)}
        levels = np.asarray(terms[0][1].levels, dtype=object)
        for name in [*fit.design.names, *(n for n in random if n not in fixed)]:
            out["group"].append(np.repeat(np.array([group], dtype=object), len(levels)))
            out["level"].append(levels)
            out["term"].append(np.repeat(np.array([name], dtype=object), len(levels)))
            out["value"].append(fixed.get(name, 0.0) + random.get(name, np.zeros(len(levels))))
    return {name: join(v) for name, v in out.items()}


def varcorr(fit: Fit) -> dict[str, Any]:
    """Columns of `Fit.varcorr`."""
    rows: list[tuple[str, str | None, str | None, float, float]] = []
    for term, cov in zip(fit.design.terms, fit.random_cov(), strict=True):
        sd = np.sqrt(np.diag(cov))
        rows += [(term.group, n, None, cov[i, i], sd[i]) for i, n in enumerate(term.names)]
        if term.structure in ("diag", "homdiag"):
            continue
        for j in range(len(sd)):
            for i in range(j + 1, len(sd)):
                cor = cov[i, j] / (sd[i] * sd[j]) if sd[i] * sd[j] > 0 else np.nan
                rows.append((term.group, term.names[j], term.names[i], cov[i, j], cor))
    rows.append(("Residual", None, None, fit.sigma**2, fit.sigma))
    names = ("group", "term1", "term2", "vcov", "sdcor")
    types = (object, object, object, float, float)
    return {n: np.array([r[i] for r in rows], dtype=types[i]) for i, n in enumerate(names)}


def join(parts: list[Any]) -> Any:
    """Concatenate columns of several terms; none is an empty column."""
    return np.concatenate(parts) if parts else np.empty(0)
