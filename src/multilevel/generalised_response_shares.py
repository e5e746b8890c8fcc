"""Shares of the variance of the response itself, in place of a latent variable behind the link.

The variance of y is split by the law of total variance: that of its mean over the fixed predictors of the rows, the mean
over these rows of that between groups of E(y | group), and the mean of the variance within groups. Goldstein, Browne &
Rasbash (2002, Understanding Statistics 1(4)) draw group effects for it; de Villemereuil, Schielzeth, Nakagawa & Morrissey
(2016, Genetics 204(3), eq. 6-11; R's QGglmm) integrate over them, as here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .errors import OptionError
from .generalised_rows import edge, link_width
from .generalised_shares import observation_level
from .normal_mean import normal_mean
from .variance_shares import Parts, group_list, level_scales

if TYPE_CHECKING:
    from .families import Family
    from .generalised import GeneralisedFit

__all__ = ["response_parts"]

Array = NDArray[np.float64]

MOST_ROWS = 20_000  # distinct ones; of more, every so many in the order of their linear predictors
DEGREE = 60  # of Hermite polynomials


def response_parts(fit: GeneralisedFit) -> Parts:
    """Variances of the response: of its means over the rows, between groups, within.

    A binomial response counts as one trial. Groups with a level for every row count to the variance within.

    Raises
    ------
    OptionError
        For an ordinal response, which has no variance, and where the variance is infinite.
    DataError
        For a fit saved without its rows.
    """
    if fit.family.name == "ordinal":
        raise OptionError(
            "an ordinal response has no mean and no variance; scale='link' has shares of the variable behind its categories"
        )
    eta, first, second, groups = rows_of(fit)
    total = groups.sum(axis=1)
    check_moments(fit, eta, np.sqrt(total))
    moments = normal_mean(
        lambda values, at: np.column_stack(moments_at(fit.family, values, first[at], second[at])),
        eta,
        np.sqrt(total),
        link_width(fit.family),
        tilt(fit.family),
    )
    mean, square, within = moments.T
    if not np.isfinite(moments).all():
        raise OptionError(f"the response of family {fit.family.name!r} has no finite variance here, and so no shares of it")
    between = square - mean**2
    own = observation_level(fit)
    kept = [i for i in range(groups.shape[1]) if i not in own]
    parts = np.zeros((1, groups.shape[1]))
    if len(kept) == 1 and not own:
        parts[0, kept[0]] = float(np.mean(between))
        joint = parts[0, kept[0]]
    else:
        alone = [groups[:, i] for i in kept]
        found = shared(fit.family, eta, first, second, total, [sum(alone, np.zeros(len(eta))), *alone])
        joint = float(np.mean(between)) if not own else found[0]
        parts[0, kept] = found[1:]
    fixed = float(np.mean((mean - mean.mean()) ** 2))
    fixed = 0.0 if fixed < 1e-24 * float(np.mean(mean**2)) else fixed
    residual = float(np.mean(within + between)) - joint
    return JointParts(np.array([fixed]), parts, np.array([residual]), np.array([joint]))


@dataclass(frozen=True)
class JointParts(Parts):
    """Parts whose groups together hold another variance than the sum of each alone, the mean being curved in their effects.

    Attributes
    ----------
    joint : (r,) array
        Variance between groups, of all factors together.
    """

    joint: Array

    def icc(self) -> Array:
        """(r, 2): adjusted and conditional."""
        return replace_groups(self).icc()

    def icc_by_group(self) -> Array:
        """(r, 2 g): variance of the mean given one factor alone, over what `icc` divides by."""
        base = (self.joint + self.residual)[:, None]
        return np.hstack([self.groups / base, self.groups / (base + self.fixed[:, None])])

    def r2(self) -> Array:
        """(r, 2): marginal and conditional."""
        return replace_groups(self).r2()


def replace_groups(parts: JointParts) -> Parts:
    """The same with the groups as one."""
    return Parts(parts.fixed, parts.joint[:, None], parts.residual)


def rows_of(fit: GeneralisedFit) -> tuple[Array, Array, Array, Array]:
    """Linear predictors without group effects, further parameters, and the variance by grouping factor (m, g), of rows.

    Rows that are alike stay as they are; of very many every so many are taken, in the order of their linear predictors.
    """
    d, eta = fit.rows_of_data(), fit._eta[0]
    first, second = fit._parameters
    names = group_list(fit)
    groups = np.zeros((len(eta), len(names)))
    for term, cov in zip(d.terms, fit.random_cov(), strict=True):
        z = np.ones((len(eta), 1)) if term.Z is None else term.Z
        scales = level_scales(fit, term.group)
        own = np.einsum("ij,jk,ik->i", z, cov, z)
        groups[:, names.index(term.group)] += own if scales is None else scales[term.codes] * own
    if len(eta) > MOST_ROWS:
        order = np.argsort(eta, kind="stable")
        at = order[np.linspace(0, len(eta) - 1, MOST_ROWS).round().astype(np.intp)]
        eta, first, second, groups = eta[at], first[at], second[at], groups[at]
    return eta, first, second, groups


def tilt(family: Family) -> float:
    """How steeply the largest moment needed grows, as a power of e."""
    if family.link == "log" or family.name == "lognormal":
        return 3.0 if family.name == "inverse_gaussian" else 2.0
    return 0.0


def moments_at(family: Family, eta: Array, first: Array, second: Array) -> tuple[Array, Array, Array]:
    """Mean of one response (one trial) with its extra zeros, the mean's square, and its variance, at linear predictors."""
    eta = edge(family, eta)
    mean = family.expected(eta, first, second)
    base = replace(family, zero="none").variance(eta, first, None)
    if family.zero == "none":
        return mean, mean * mean, base
    mu = family.mean(eta)
    return mean, mean * mean, mean / mu * (base + mu * mu) - mean * mean


def check_moments(fit: GeneralisedFit, eta: Array, sd: Array) -> None:
    """Refuse links whose mean over groups does not exist."""
    from .generalised_rows import FAR, RECIPROCAL

    if fit.family.link in RECIPROCAL and (np.abs(eta) < FAR * sd).any():
        raise OptionError(
            f"with link {fit.family.link!r} the variance of the response over groups does not exist: the linear predictor "
            "comes near zero, where its reciprocal has no bound; use scale='link' where there is one, or link='log'"
        )


def shared(
    family: Family, eta: Array, first: Array, second: Array, total: Array, parts: list[Array]
) -> list[float]:
    """Mean over rows of the variance of E(y | some effects), for each part of the variance that these effects have.

    With the mean's curve in Hermite polynomials of the whole effect, ``g(eta + s Z) = sum a_k h_k(Z)``, two responses whose
    effects correlate with rho have the covariance ``sum a_k**2 rho**k`` over k > 0 (Mehler's formula).
    """
    sd = np.sqrt(total)
    scale = np.where(sd > 0, sd, 1.0)

    def weighted(values: Array, at: NDArray[np.intp]) -> Array:
        z = (values - eta[at]) / scale[at]
        mean = family.expected(edge(family, values), first[at], second[at])
        return mean[:, None] * polynomials(z)

    a = normal_mean(weighted, eta, sd, np.minimum(link_width(family), scale / 3), tilt(family) / 2)
    power = np.arange(1, DEGREE + 1)
    out = []
    for part in parts:
        rho = np.where(total > 0, part / np.where(total > 0, total, 1.0), 0.0)
        out.append(float(np.mean(np.sum(a[:, 1:] ** 2 * rho[:, None] ** power, axis=1))))
    return out


def polynomials(z: Array) -> Array:
    """(m, DEGREE + 1) normalised Hermite polynomials."""
    out = np.empty((len(z), DEGREE + 1))
    out[:, 0], out[:, 1] = 1.0, z
    for k in range(1, DEGREE):
        out[:, k + 1] = (z * out[:, k] - np.sqrt(k) * out[:, k - 1]) / np.sqrt(k + 1)
    return out
