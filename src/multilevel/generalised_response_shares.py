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


def response_parts(fit: GeneralisedFit) -> JointParts:
    """Variances of the response: of its means over the rows, between groups, within.

    A binomial response counts as one trial. Groups with a level for every row count to the variance within.

    Raises
    ------
    OptionError
        For an ordinal response, which has no variance, and where the variance is infinite.
    DataError
        For a fit saved without its rows.
    """
    check_family(fit.family)
    eta, first, second, groups = rows_of(fit)
    share = np.full(len(eta), 1 / len(eta))
    found = split(fit.family, eta[None], first[None], second[None], groups[None], observation_level(fit), share)
    if not np.isfinite(found.residual).all():
        raise _infinite(fit.family)
    return found


def check_family(family: Family) -> None:
    """Refuse an ordinal response."""
    if family.name == "ordinal":
        raise OptionError(
            "an ordinal response has no mean and no variance; scale='link' has shares of the variable behind its categories"
        )


def _infinite(family: Family) -> OptionError:
    return OptionError(f"the response of family {family.name!r} has no finite variance here, and so no shares of it")


def split(
    family: Family, eta: Array, first: Array, second: Array, groups: Array, own: list[int], share: Array
) -> JointParts:
    """Variances of the response at r parameter sets.

    Parameters
    ----------
    eta, first, second : (r, n) arrays
        Linear predictors without group effects, log dispersion, logit of extra zeros.
    groups : (r, n, g) array
        Variance of the linear predictor by grouping factor.
    own : list of int
        Grouping factors with a level for every row.
    share : (n,) array
        Of each row in the data; sums to one.

    Raises
    ------
    OptionError
        Where there is no variance; Student's t may have an infinite one within groups.
    """
    r, n, g = groups.shape
    eta, first, second, by_row = eta.ravel(), first.ravel(), second.ravel(), groups.reshape(r * n, g)
    total = by_row.sum(axis=1)
    mean, between, within = (one.reshape(r, n) for one in _moments(family, eta, first, second, total))
    kept = [i for i in range(g) if i not in own]
    parts, joint = np.zeros((r, g)), between @ share
    if len(kept) == 1 and not own:
        parts[:, kept[0]] = joint
    else:
        alone = [by_row[:, i] for i in kept]
        found = shared(family, eta, first, second, total, [sum(alone, np.zeros(len(eta))), *alone], share)
        joint = found[0] if own else joint
        parts[:, kept] = np.reshape(found[1:], (len(kept), r)).T
    fixed = (mean - (mean @ share)[:, None]) ** 2 @ share
    fixed = np.where(fixed < 1e-24 * (mean**2 @ share), 0.0, fixed)
    return JointParts(fixed, parts, (within + between) @ share - joint, joint)


def _moments(family: Family, eta: Array, first: Array, second: Array, total: Array) -> tuple[Array, Array, Array]:
    """Mean of each row's response over its groups, its variance between them, and the mean variance within."""
    if family.name == "student":  # identity link: nothing to integrate
        return eta, total, family.variance(eta, first, None) + np.zeros(len(eta))
    check_moments(family, eta, np.sqrt(total))
    found = normal_mean(
        lambda values, at: np.column_stack(moments_at(family, values, first[at], second[at])),
        eta,
        np.sqrt(total),
        link_width(family),
        tilt(family),
    )
    if not np.isfinite(found).all():
        raise _infinite(family)
    mean, square, within = found.T
    return mean, square - mean**2, within


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


def check_moments(family: Family, eta: Array, sd: Array) -> None:
    """Refuse links whose mean over groups does not exist."""
    from .generalised_rows import FAR, RECIPROCAL

    if family.link in RECIPROCAL and (np.abs(eta) < FAR * sd).any():
        raise OptionError(
            f"with link {family.link!r} the variance of the response over groups does not exist: the linear predictor "
            "comes near zero, where its reciprocal has no bound; use scale='link' where there is one, or link='log'"
        )


def shared(
    family: Family, eta: Array, first: Array, second: Array, total: Array, parts: list[Array], share: Array
) -> list[Array]:
    """(r,) mean over rows of the variance of E(y | some effects), for each part of the variance that these effects have.

    With the mean's curve in Hermite polynomials of the whole effect, ``g(eta + s Z) = sum a_k h_k(Z)``, two responses whose
    effects correlate with rho have the covariance ``sum a_k**2 rho**k`` over k > 0 (Mehler's formula).
    """
    if family.name == "student":  # its mean is the linear predictor itself
        return [part.reshape(-1, len(share)) @ share for part in parts]
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
        out.append(np.sum(a[:, 1:] ** 2 * rho[:, None] ** power, axis=1).reshape(-1, len(share)) @ share)
    return out


def polynomials(z: Array) -> Array:
    """(m, DEGREE + 1) normalised Hermite polynomials."""
    out = np.empty((len(z), DEGREE + 1))
    out[:, 0], out[:, 1] = 1.0, z
    for k in range(1, DEGREE):
        out[:, k + 1] = (z * out[:, k] - np.sqrt(k) * out[:, k - 1]) / np.sqrt(k + 1)
    return out
