"""Kenward and Roger's small-sample covariance and degrees of freedom, without an n x n matrix.

The covariance of y, relative to sigma**2, is ``H = W^-1 + sum_r c_r Z E_r Z'``, linear in the entries c of every
covariance matrix, so that the second derivatives of Kenward & Roger (1997, Biometrics 53, eq. 5) vanish; this is also
what pbkrtest does (Halekoh & Hojsgaard 2014, J. Stat. Softw. 59(9)). All that is needed of H comes from products with
``S = Z'H^-1 Z`` and from ``T = Z'H^-1 X`` in the engine's coordinates. Three choices keep every digit:

- the columns of Z are turned and scaled by a square root F of the covariance where that is not zero, so that
  ``F'SF = F'Z'WZF M^-1`` with ``M = F'Z'WZF + I``, a product of positive matrices;
- the columns of X are such that ``X'H^-1 X = I``;
- the last parameter scales H as a whole instead of W^-1; with the others it spans the same set of covariances.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .crossprod import CrossProducts
    from .fit import Fit

Array = NDArray[np.float64]

VANISHED = 1e-8  # relative sd at or below which a direction of a covariance counts as zero, as in optimise
UNDETERMINED = 1e-10  # share of the largest eigenvalue of the information at or below which a direction has none
CHUNK = 8_000_000  # numbers in one block of right-hand sides: 64 MB


@dataclass(frozen=True)
class Adjustment:
    """What every test by Kenward and Roger's method needs of a fit.

    Attributes
    ----------
    vcov : (p, p) array
        Adjusted covariance of the fixed effects, the user's columns.
    root : (p, p) array
        ``rows @ root`` are contrasts of coefficients whose unadjusted covariance is ``sigma**2 I``.
    slopes : (m, p, p) array
        P_i of Kenward and Roger in those coefficients, one per covariance parameter.
    weight : (m, m) array
        Asymptotic covariance of the parameters, relative to sigma**4 (their W).
    """

    vcov: Array
    root: Array
    slopes: Array
    weight: Array

    def degrees(self, rows: Array) -> Array:
        """Degrees of freedom of each of ``rows @ beta``, rows (m, p).

        With one contrast Kenward and Roger's df is ``2 / A1`` and the scale of F is one.
        """
        turned = rows @ self.root
        length = np.sqrt(np.einsum("ij,ij->i", turned, turned))
        unit = turned / np.where(length > 0, length, 1.0)[:, None]
        change = np.einsum("ma,iab,mb->im", unit, self.slopes, unit, optimize=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(2.0 / np.einsum("im,ij,jm->m", change, self.weight, change, optimize=True))

    def scale(self, rows: Array) -> tuple[float, float]:
        """Factor of the Wald F and denominator df for independent rows (r, p): Kenward & Roger (1997), section 3."""
        q = len(rows)
        basis = np.linalg.qr((rows @ self.root).T)[0]
        change = np.einsum("ar,iab,bs->irs", basis, self.slopes, basis, optimize=True)
        traces = np.einsum("irr->i", change)
        a1 = float(traces @ self.weight @ traces)
        a2 = float(np.sum(self.weight * np.einsum("irs,jsr->ij", change, change, optimize=True)))
        if q == 1:
            return 1.0, 2.0 / a1
        return _scale_and_df(q, a1, a2)


def _scale_and_df(q: int, a1: float, a2: float) -> tuple[float, float]:
    """Match mean and variance of F, exact where Hotelling's and the usual F are exact (pbkrtest's guards)."""
    b = (a1 + 6 * a2) / (2 * q)
    g = ((q + 1) * a1 - (q + 4) * a2) / ((q + 2) * a2)
    below = 3 * q + 2 * (1 - g)
    c1, c2, c3 = g / below, (q - g) / below, (q + 2 - g) / below
    v0, v1, v2 = 1 + c1 * b, 1 - c2 * b, 1 - c3 * b
    mean = 1 - a2 / q
    v0 = 0.0 if abs(v0) < 1e-10 else v0
    ratio = 1.0 if abs(mean) < 1e-14 and abs(v1) < 1e-14 else (mean / v1 if v1 else np.inf)
    rho = ratio**2 * v0 / v2 / q
    df = 4 + (q + 2) / (q * rho - 1)
    factor = 1.0 if abs(df - 2) < 1e-2 else df * mean / (df - 2)
    return float(factor), float(df)


def adjustment(fit: Fit) -> Adjustment:
    """Kenward and Roger's adjustment of a REML fit.

    A variance estimated as zero stays a parameter, as in pbkrtest: in this parametrisation the expected information
    is regular on the boundary, and its uncertainty counts. What is left out is a direction the data say nothing
    about (eigenvalue of the information, in units of its diagonal, at most 1e-10 of the largest), for example one of
    two terms that share a covariance. Satterthwaite's degrees of freedom, by contrast, treat a zero variance as known.

    Memory is linear in random effects, fixed effects and observed pairs of levels. Time: one solve with the factor
    per random effect that meets others; where levels fall into separate sets (nested factors, or one factor only),
    one solve per effect of the largest set.

    Raises
    ------
    OptionError
        For a fit by maximum likelihood, and for covariance structures that are not linear in their parameters.
    """
    _check(fit)
    blocks, optimum = fit.engine.blocks, fit.optimum
    frames = [_frame(blocks, f, root) for f, root in enumerate(optimum.engine_lambdas)]
    with fit.engine.lock:
        state = fit.engine.state(optimum.reml, [factor for factor, _ in frames])
        try:
            products = _Products(state, blocks, frames)
            root = np.linalg.solve(state.l_x(), blocks.x_basis.T).T if blocks.p else np.zeros((0, 0))
            slopes, curves, information = _pieces(products, _parameters(blocks))
        finally:
            fit.engine.state(optimum.reml, optimum.engine_lambdas)
    weight = 2 * _inverse(information)
    m = len(slopes) - 1  # the scale of H adds nothing to the sum below
    inner = curves - np.einsum("iab,jbc->ijac", slopes[:m], slopes[:m], optimize=True)
    added = np.einsum("ij,ijab->ab", weight[:m, :m], inner, optimize=True)
    adjusted = root @ (np.eye(blocks.p) + (added + added.T)) @ root.T
    return Adjustment((optimum.sigma / blocks.unit) ** 2 * adjusted, root, slopes, weight)


def _check(fit: Fit) -> None:
    if not fit.reml:
        raise OptionError(
            "Kenward and Roger's method is defined for REML fits and this one is by maximum likelihood; fit with "
            "reml=True, or use ddf='satterthwaite'"
        )
    for term in fit.design.terms:
        if term.structure not in ("us", "diag"):
            raise OptionError(
                f"ddf='kenward-roger' works for unstructured and diagonal covariances, but the term of {term.group!r} is "
                f"{term.structure}(); use ddf='satterthwaite'"
            )
    if fit.design.known:
        raise OptionError(
            f"ddf='kenward-roger' works for independent levels, but those of {next(iter(fit.design.known))!r} have a known "
            "covariance; use ddf='satterthwaite'"
        )
    if fit.model.residual is not None:
        raise OptionError(
            "ddf='kenward-roger' works for independent residuals, but this model has a residual structure; use "
            "ddf='satterthwaite'"
        )


def _frame(blocks: CrossProducts, f: int, root: Array) -> tuple[Array, Array]:
    """(k, k) square root of a group's covariance, and unit vectors in the columns that vanished from it."""
    k = len(root)
    factor, unit = np.zeros((k, k)), np.zeros((k, k))
    for owner, index in blocks.components:
        if owner != f:
            continue
        u, s, _ = np.linalg.svd(root[np.ix_(index, index)])
        zero = s <= VANISHED
        factor[np.ix_(index, index)] = np.where(zero, 0.0, u * s)
        unit[np.ix_(index, index)] = np.where(zero, u, 0.0)
    return factor, unit


def _parameters(blocks: CrossProducts) -> list[tuple[int, int, int]]:
    """(group, a, b), a <= b: the free entries of every covariance."""
    return [(f, a, b) for f, index in blocks.components for i, a in enumerate(index) for b in index[i:]]


class _Products:
    """Products with S = F'Z'H^-1 Z F and its blocks, on (q + p, r) arrays whose rows of X are ignored.

    F is the square root of the covariance of each group with unit vectors where that is zero.
    """

    def __init__(self, state: Any, blocks: CrossProducts, frames: list[tuple[Array, Array]]) -> None:
        self.state, self.blocks = state, blocks
        self.units = [unit for _, unit in frames]
        self.singular = any(unit.any() for unit in self.units)
        sizes = [g.levels * g.k for g in blocks.groups]
        self.parts = [slice(end - size, end) for end, size in zip(np.cumsum(sizes).tolist(), sizes, strict=True)]
        self.q = sum(sizes)

    def _vanished(self, x: Array, transposed: bool) -> Array:
        """The part of F x (or F'x) that belongs to directions without variance."""
        out = np.zeros_like(x)
        for group, part, unit in zip(self.blocks.groups, self.parts, self.units, strict=True):
            if unit.any():
                turned = np.matmul(unit.T if transposed else unit, x[part].reshape(group.levels, group.k, -1))
                out[part] = turned.reshape(group.levels * group.k, -1)
        return out

    def _finish(self, moved: Array) -> Array:
        """F'Z'W applied to [Z X] moved."""
        sums = self.state.cross(moved)
        out: Array = self.state.apply_lambda(sums, True)
        if self.singular:
            out += self._vanished(sums, True)
        out[self.q :] = 0.0
        return out

    def apply(self, x: Array) -> Array:
        """S x."""
        if not self.singular:
            return self._finish(self.state.apply_lambda(self.state.solve_random(x), False))
        apart = self._vanished(x, False)
        rest = x - self.state.apply_lambda(self.state.cross(apart), True)
        return self._finish(apart + self.state.apply_lambda(self.state.solve_random(rest), False))

    def fixed(self, root: Array) -> Array:
        """T = F'Z'H^-1 X in the columns of X that `root` makes, (q + p, p)."""
        p = self.blocks.p
        columns = np.zeros((self.q + p, p))
        columns[self.q :] = root
        own: Array = self.state.solve_random(self.state.apply_lambda(self.state.cross(columns), True))
        if not self.singular:
            own[self.q :] = 0.0
            return own
        # F'Z'W (X - Z Lambda M^-1 Lambda'Z'WX) is M^-1 Lambda'Z'WX where there is variance
        columns[: self.q] = -self.state.apply_lambda(own, False)[: self.q]
        own += self._vanished(self.state.cross(columns), True)
        own[self.q :] = 0.0
        return own

    def entry(self, x: Array, parameter: tuple[int, int, int]) -> Array:
        """E_r x: the rows of effects a and b of a group exchanged, the others zero."""
        f, a, b = parameter
        group, part = self.blocks.groups[f], self.parts[f]
        out = np.zeros_like(x)
        source = x[part].reshape(group.levels, group.k, -1)
        target = out[part].reshape(group.levels, group.k, -1)
        target[:, a] = source[:, b]
        target[:, b] = source[:, a]
        return out

    def squares(self) -> tuple[dict[tuple[int, int], Array], list[Array]]:
        """Sums over S that traces are made of.

        Returns
        -------
        dict
            (g, h) -> (k_g, k_g, k_h, k_h) array: sum over levels j, l of ``S[ja, lc] * S[jb, ld]`` at [a, b, c, d].
        list of (k, k) arrays
            Per group, the sum over levels j of ``S[ja, jb]``.
        """
        groups = self.blocks.groups
        pairs = {
            (g, h): np.zeros((a.k, a.k, b.k, b.k)) for h, b in enumerate(groups) for g, a in enumerate(groups[: h + 1])
        }
        traces = [np.zeros((g.k, g.k)) for g in groups]
        colours = separate_sets(self.blocks)
        for h, group in enumerate(groups):
            for chosen in self._chunks(colours[h], group.k):
                width = int(chosen.max()) + 1
                levels = np.flatnonzero(chosen >= 0)
                rhs = np.zeros((self.q + self.blocks.p, width * group.k))
                rows = self.parts[h].start + levels[:, None] * group.k + np.arange(group.k)
                rhs[rows, chosen[levels][:, None] * group.k + np.arange(group.k)] = 1.0
                found = self.apply(rhs)
                own = found[self.parts[h]].reshape(group.levels, group.k, width, group.k)
                traces[h] += own[levels, :, chosen[levels], :].sum(axis=0)
                for g, other in enumerate(groups[: h + 1]):
                    block = found[self.parts[g]].reshape(other.levels, other.k, width, group.k)
                    if other.k == group.k == 1:
                        pairs[g, h] += np.vdot(block, block)
                        continue
                    flat = block.transpose(1, 3, 0, 2).reshape(other.k * group.k, -1)
                    sums = (flat @ flat.T).reshape(other.k, group.k, other.k, group.k)
                    pairs[g, h] += sums.transpose(0, 2, 1, 3)
        return pairs, traces

    def _chunks(self, colours: NDArray[np.int64], k: int) -> Iterator[NDArray[np.int64]]:
        """Colours renumbered within each chunk of them, -1 outside it."""
        count = int(colours.max()) + 1
        step = max(8, min(512, CHUNK // (k * max(self.q + self.blocks.p, 1))))
        for first in range(0, count, step):
            yield np.where((colours >= first) & (colours < first + step), colours - first, -1)


def separate_sets(blocks: CrossProducts) -> list[NDArray[np.int64]]:
    """Per group (J,): a number per level, different for levels that rows connect, directly or through others.

    Levels of one number can share a right-hand side, for S is zero between sets of levels that nothing connects.
    """
    sizes = [g.levels for g in blocks.groups]
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    codes = getattr(blocks.rows, "codes", None)
    if len(sizes) <= 1:
        sets = np.arange(int(starts[-1]), dtype=np.int64)
    elif not codes or len(codes[0]) == 0:  # a fit saved without its rows: one set is always right
        sets = np.zeros(int(starts[-1]), dtype=np.int64)
    else:
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        first = np.concatenate([codes[0].astype(np.int64)] * (len(sizes) - 1))
        other = np.concatenate(
            [code.astype(np.int64) + start for code, start in zip(codes[1:], starts[1:], strict=False)]
        )
        met = coo_matrix((np.ones(len(first), dtype=np.int8), (first, other)), shape=(int(starts[-1]),) * 2)
        sets = connected_components(met, directed=False)[1].astype(np.int64)
    return [_count_within(sets[a:b]) for a, b in zip(starts[:-1], starts[1:], strict=True)]


def _count_within(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Position of each entry among those of the same label."""
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    new = np.concatenate([[True], ordered[1:] != ordered[:-1]]) if len(labels) else np.zeros(0, dtype=bool)
    begins = np.flatnonzero(new)
    out = np.empty(len(labels), dtype=np.int64)
    out[order] = np.arange(len(labels)) - np.repeat(begins, np.diff(np.append(begins, len(labels))))
    return out


def _pieces(products: _Products, parameters: list[tuple[int, int, int]]) -> tuple[Array, Array, Array]:
    """P_i (m + 1, p, p), Q_ij (m, m, p, p) and the expected information (m + 1, m + 1), X'H^-1 X being I.

    The last parameter is the scale of H: P = -I, and its Q with parameter i is -P_i.
    """
    blocks = products.blocks
    m, p = len(parameters), blocks.p
    half = np.linalg.solve(products.state.l_x(), np.eye(p)).T if p else np.zeros((0, 0))
    T = products.fixed(half)
    moved = [products.entry(T, parameter) for parameter in parameters]
    slopes = np.zeros((m + 1, p, p))
    for i, one in enumerate(moved):
        slopes[i] = -(T.T @ one)
    slopes[m] = -np.eye(p)
    curves = np.zeros((m, m, p, p))
    for j, one in enumerate(moved):
        through = products.apply(one) if p else one
        for i, other in enumerate(moved):
            curves[i, j] = other.T @ through
    pairs, traces = products.squares()
    information = np.zeros((m + 1, m + 1))
    for i, one_at in enumerate(parameters):
        f, a, b = one_at
        for j, other_at in enumerate(parameters):
            information[i, j] = _trace(pairs, one_at, other_at) - 2 * np.trace(curves[i, j])
        information[i, m] = (traces[f][a, b] + traces[f][b, a]) / (2 if a == b else 1) + np.trace(slopes[i])
    information[:m, :m] += np.einsum("iab,jba->ij", slopes[:m], slopes[:m], optimize=True)
    information[m, :m] = information[:m, m]
    information[m, m] = blocks.n - p
    return slopes, curves, information


def _trace(pairs: dict[tuple[int, int], Array], one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    """tr(E_r S E_s S)."""
    if one[0] > other[0]:
        one, other = other, one
    (g, a, b), (h, c, d) = one, other
    table = pairs[g, h]
    left = [(a, b)] if a == b else [(a, b), (b, a)]
    right = [(c, d)] if c == d else [(c, d), (d, c)]
    return float(sum(table[i, j, k, m] for i, j in left for k, m in right))


def _inverse(information: Array) -> Array:
    """Inverse of the information on the directions that have any."""
    size = np.diag(information)
    known = size > 0
    out = np.zeros_like(information)
    if not known.any():
        return out
    root = np.sqrt(size[known])
    values, vectors = np.linalg.eigh(information[np.ix_(known, known)] / np.outer(root, root))
    keep = values > UNDETERMINED * values[-1]
    half = vectors[:, keep] / np.sqrt(values[keep]) / root[:, None]
    out[np.ix_(known, known)] = half @ half.T
    return out
