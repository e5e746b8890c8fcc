"""Slopes of groups on their own, and what the comparison of common and varying slopes says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .fit import Fit
    from .generalised import GeneralisedFit
    from .pooling_lines import Shrinkage

__all__ = ["own_slopes", "sentence_of", "verdict_of"]

Array = NDArray[np.float64]
ALPHA = 0.05
FEW = 10  # levels below which "no sign" means little


def own_slopes(fit: Fit, group: str, columns: Sequence[str]) -> dict[str, Any]:
    """Columns of `SlopeCheck.slopes`."""
    found: Shrinkage = fit.plot._shrunk(group)
    variance = _variances(fit, found)
    index = [found.names.index(name) for name in columns]
    J = len(found.levels)
    return {
        "level": np.tile(np.asarray(found.levels, dtype=object), len(index)),
        "term": np.repeat(np.array(columns, dtype=object), J),
        "n": np.tile(found.sizes, len(index)),
        "own": found.own[:, index].T.ravel(),
        "std_error": np.sqrt(variance[:, index]).T.ravel(),
        "partial": found.partial[:, index].T.ravel(),
        "population": np.repeat(found.population[index], J),
    }


def _variances(fit: Fit, found: Shrinkage) -> Array:
    """(J, k) sampling variances of the own coefficients; NaN where these are, or rows are correlated by the model."""
    design = fit.rows_of_data()
    out = np.full(found.own.shape, np.nan)
    if fit.model.residual is not None:
        return out
    terms = [t for t in design.terms if t.group == found.group]
    Z = np.hstack([np.ones((len(design.y), 1)) if t.Z is None else t.Z for t in terms])
    known = np.isfinite(found.own).all(axis=1)
    information = _information(fit, found, Z, terms[0].codes)
    size = np.sqrt(np.einsum("jaa->ja", information[known]))
    scaled = information[known] / (size[:, :, None] * size[:, None, :])
    out[known] = np.einsum("jaa->ja", np.linalg.inv(scaled)) / size**2
    return out


def _information(fit: Fit, found: Shrinkage, Z: Array, codes: NDArray[Any]) -> Array:
    """(J, k, k) information of each level's rows on its coefficients."""
    J, k = found.own.shape
    if fit.generalised:
        from .generalised_own import _likelihood

        model = cast("GeneralisedFit", fit)
        rest = fit._eta[1] - np.einsum("ij,ij->i", Z, found.partial[codes])
        own = np.where(np.isfinite(found.own), found.own, found.partial)
        return _likelihood(model, np.arange(len(Z)), Z, codes, J, rest, own)[2]
    weights = fit.design.weights
    WZ = Z if weights is None else Z * weights[:, None]
    out = np.empty((J, k, k))
    for a in range(k):
        for b in range(a, k):
            out[:, a, b] = out[:, b, a] = np.bincount(codes, WZ[:, a] * Z[:, b], J)
    return out / fit.sigma**2


def verdict_of(small: Fit, large: Fit, p: float) -> str:
    """ "vary", "common" or "unclear"."""
    certain = small.convergence.converged and large.convergence.converged
    better = large.aic < small.aic
    if not certain or (p < ALPHA) != better:
        return "unclear"
    return "vary" if better else "common"


def sentence_of(
    verdict: str,
    slope: str,
    group: str,
    columns: Sequence[str],
    fits: tuple[Fit, Fit],
    test: tuple[float, float, float],
) -> str:
    """What was found and what to do."""
    small, large = fits
    lrt, plain, boundary = test
    safe = f"p {_p(plain)}, on the safe side, since several variances are tested at once"
    p = safe if np.isnan(boundary) else f"boundary p {_p(boundary)}"
    changes = f"{_change('AIC', small.aic, large.aic)}, {_change('BIC', small.bic, large.bic)}"
    numbers = f"likelihood ratio {lrt:.1f}, {p}; {changes}"
    levels = next(len(t.levels) for t in large.design.terms if t.group == group)
    if verdict == "vary":
        spread = _spread(large, group, columns)
        out = f"Slopes of {slope} differ between levels of {group} ({numbers}). {spread}Keep the slope random."
        if large.bic > small.bic:
            out += " BIC asks for more evidence than that and prefers a common slope."
        return out + _at_the_edge(large)
    if verdict == "common":
        out = f"No sign that slopes of {slope} differ between levels of {group} ({numbers}); a common slope is enough here."
        if levels < FEW:
            out += f" With {levels} levels only large differences would show."
        return out
    if not (small.convergence.converged and large.convergence.converged):
        worse = large if not large.convergence.converged else small
        return f"Whether slopes of {slope} differ between levels of {group} stays open, for a fit is not certain: " + (
            f"{worse.convergence.sentence} ({numbers})"
        )
    return (
        f"Whether slopes of {slope} differ between levels of {group} stays open: the criteria disagree ({numbers}). "
        f"{_spread(large, group, columns)}Let the design decide: where {slope} was varied within {group} and its effect is "
        f"the question, keep the slope random.{_at_the_edge(large)}"
    )


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}" if value < 0.1 else f"= {value:.2f}"


def _change(name: str, before: float, after: float) -> str:
    return f"{name} {'lower' if after < before else 'higher'} by {abs(after - before):.1f}"


def _spread(fit: Fit, group: str, columns: Sequence[str]) -> str:
    """How far slopes lie apart, where the slope is one column with a fixed effect."""
    if len(columns) != 1 or columns[0] not in fit.design.names:
        return ""
    at = next(i for i, t in enumerate(fit.design.terms) if t.group == group and columns[0] in t.names)
    place = fit.design.terms[at].names.index(columns[0])
    sd = float(np.sqrt(fit.random_cov()[at][place, place]))
    mean = float(fit.optimum.beta[fit.design.names.index(columns[0])])
    low, high = mean - 1.96 * sd, mean + 1.96 * sd
    scale = " on the scale of the link" if fit.generalised else ""
    return f"Their sd is {sd:.3g} around a mean of {mean:.3g}{scale}: about 95% of levels between {low:.3g} and {high:.3g}. "


def _at_the_edge(fit: Fit) -> str:
    if not fit.is_singular:
        return ""
    return " The model with varying slopes is singular: a variance of zero, or a correlation of one; see its convergence."
