"""Influence of whole groups: exact deletion with the variance parameters held, and their change by one Newton step.

Deleting the rows S of level j takes ``C = A_S' A_S`` from M. Only the few coordinates T that S touches take part, so all
that is needed of M is its inverse on T (Sherman-Morrison-Woodbury). The level's own effects are eliminated from S first,
``(I + A_j A_j')^(-1/2) A_S``, by the same QR that reduces many rows to as many as there are coordinates. The inverse is
then that of the other factors and X alone, one matrix for all levels. Where it would be too large, the updating formula
of `influence` solves for the rows of some groups at a time; groups that touch very much have the cross-products summed
anew without them. All three are exact and agree to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .influence import (
    ALONE,
    GROUP_METHOD,
    HELD_METHOD,
    LONG_METHOD,
    REFIT_METHOD,
    Rows,
    cooks_of,
    dfbetas,
    engine_rows,
    engine_without,
    right_sides,
    times,
    without_rows,
)

if TYPE_CHECKING:
    from .design import Design
    from .fit import Fit
    from .optimise import Curvature

Array = NDArray[np.float64]
Index = NDArray[np.int64]

LARGE = 400  # rows (or coordinates, if fewer) of a group above which its cross-products are summed anew without it
INVERSE = 5000  # coordinates of the other factors up to which their inverse is made: 200 MB
COLUMNS = 512  # right-hand sides solved at once
MUCH_WORK = 2e12  # operations of the Newton step (some minutes) above which it is taken only on demand


# -- what a level touches -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Touched:
    """Rows of one level, on the coordinates that they touch.

    Attributes
    ----------
    at : (m,) array
        The rows.
    place : (t,) array
        Coordinates touched, X last; the level's own are not among them where they are eliminated.
    columns : list of (m,) arrays
        Per entry of the rows that counts, where its first effect stands among `place`.
    """

    at: Index
    place: Index
    columns: list[NDArray[np.intp]]

    @property
    def size(self) -> int:
        """Rows left after reduction."""
        return min(len(self.at), len(self.place) + 1)


def group_rows(codes: NDArray[np.int32], levels: int) -> list[Index]:
    """Rows of each level, in order."""
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.cumsum(np.bincount(codes, minlength=levels))[:-1])


class Deletion:
    """Levels of one engine group, to be deleted one by one at any Lambda.

    Parameters
    ----------
    group : int
        Engine group whose levels they are.
    """

    def __init__(self, fit: Fit, group: int) -> None:
        c = fit.engine.blocks
        self.fit, self.group, self.rows = fit, group, engine_rows(fit)
        self.q, self.p = int(self.rows.offsets[-1]), c.p
        self.own = next(e for e in self.rows.entries if e.group == group)
        # levels that covary in a known way do not fall apart when their rows go: they stay among the others
        self.apart = c.groups[group].name not in fit.design.known
        self.members = group_rows(fit.rows_of_data().terms[c.groups[group].terms[0]].codes, c.groups[group].levels)
        self.entries = [e for e in self.rows.entries if not (self.apart and e is self.own)]
        rest = np.ones(self.q + self.p, dtype=bool)
        if self.apart:
            rest[self.rows.offsets[group] : self.rows.offsets[group + 1]] = False
        self.rest = np.flatnonzero(rest)
        self.position = np.cumsum(rest) - 1
        self.touched = [self._touched(at) for at in self.members]
        self.dense = len(self.rest) <= INVERSE
        sizes = [t.size if self.dense else len(t.at) for t in self.touched]
        self.few = [j for j, size in enumerate(sizes) if size <= LARGE]
        self.many = [j for j, size in enumerate(sizes) if size > LARGE]

    def _touched(self, at: Index) -> Touched:
        sizes = [e.z.shape[1] for e in self.entries]
        firsts = [
            self.rows.offsets[e.group] + np.maximum(e.codes[at], 0).astype(np.int64) * k
            for e, k in zip(self.entries, sizes, strict=True)
        ]
        levels = [np.unique(first) for first in firsts]
        ends = np.cumsum([0, *(len(one) * k for one, k in zip(levels, sizes, strict=True))])
        columns = [
            start + np.searchsorted(one, first) * k
            for start, one, first, k in zip(ends[:-1], levels, firsts, sizes, strict=True)
        ]
        parts = [(one[:, None] + np.arange(k)).ravel() for one, k in zip(levels, sizes, strict=True)]
        return Touched(at, np.concatenate([*parts, np.arange(self.q, self.q + self.p)]).astype(np.int64), columns)

    def work(self) -> float:
        """Operations of one pass, about."""
        blocks = self.fit.engine.blocks
        anew = len(self.many) * (float(blocks.core.flops) + 200.0 * len(self.rows.y))
        if self.dense:
            one_solve = 2.0 * blocks.core.tail_size**2 + 20.0 * (self.q + self.p)
            small = [self.touched[j] for j in self.few]
            each = sum(4.0 * len(t.place) ** 2 * t.size + 30.0 * float(t.size) ** 3 for t in small)
            return float(anew + each + len(self.rest) * one_solve)
        rows = sum(len(self.members[j]) for j in self.few)
        one_solve = 3.0 * float(blocks.core.tail_size) ** 2 + 30.0 * (self.q + self.p)  # slower ones
        return anew + rows * one_solve + sum(2.0 * (self.q + self.p) * float(len(self.members[j])) ** 2 for j in self.few)

    # -- at one Lambda ------------------------------------------------------------------------------------------

    def at(self, lambdas: list[Array], bar: Any = None) -> Deleted:
        """Deletion of the rows of each small group, at the engine's Lambda given."""
        count = len(self.members)
        out = Deleted(np.full((count, self.p), np.nan), np.full((count, 3), np.nan))
        with self.fit.engine.lock:  # one factorisation for all of them
            state = self.fit.engine.state(self.fit.reml, lambdas)
            solution = np.asarray(state.solution())
            if self.dense:
                self._by_inverse(lambdas, _inverse(state, self.rest, self.q + self.p), solution, out, bar)
                return out
            l_x = state.l_x() if self.p else np.zeros((0, 0))
            for batch in _batches(self.members, self.few):
                _delete_batch(self.fit, self.rows, lambdas, self.members, batch, state, solution, l_x, out)
                if bar is not None:
                    bar.add(len(batch))
        return out

    def _by_inverse(self, lambdas: list[Array], inverse: Array, solution: Array, out: Deleted, bar: Any) -> None:
        """Fill `out` from the inverse of the other factors and X."""
        p, c = self.p, self.fit.engine.blocks
        effects = [e.z @ lambdas[e.group] for e in self.entries]
        own = self.own.z @ lambdas[self.group]
        inverse_x = inverse[len(inverse) - p :, len(inverse) - p :]
        for j in self.few:
            touched = self.touched[j]
            a, e, log_det = self._reduced(touched, effects, own, solution)
            part = self.position[touched.place]
            half = a @ inverse[part[:, None], part]
            left = np.eye(len(a)) - half @ a.T
            values, vectors = np.linalg.eigh(left)
            if bar is not None:
                bar.add(1)
            if not (len(values) and values[0] > ALONE):
                continue
            turned = vectors.T @ e
            deleted = vectors @ (turned / values)
            border = half[:, half.shape[1] - p :]
            out.change[j] = c.x_basis @ (c.scale * (border.T @ deleted))
            log_left = float(np.sum(np.log(values)))
            if not self.fit.reml and p:
                log_left = float(np.linalg.slogdet(left + border @ np.linalg.solve(inverse_x, border.T))[1])
            out.terms[j] = log_left - log_det, float(turned @ (turned / values)), len(touched.at)

    def _reduced(
        self, touched: Touched, effects: list[Array], own: Array, solution: Array
    ) -> tuple[Array, Array, float]:
        """A_S on the coordinates touched and its residuals, own effects eliminated; log|I + A_j A_j'|.

        By QR of ``[A_j A_T e; I 0 0]``: below the columns of A_j stand the rows without them, at most t + 1.
        """
        at, m, t = touched.at, len(touched.at), len(touched.place)
        k = own.shape[1] if self.apart else 0
        stack = np.zeros((m + k, k + t + 1))
        if k:
            stack[:m, :k], stack[m:, :k] = own[at], np.eye(k)
        lines = np.arange(m)
        for columns, effect in zip(touched.columns, effects, strict=True):
            z = effect[at]
            for i in range(z.shape[1]):
                stack[lines, k + columns + i] += z[:, i]
        stack[:m, k + t - self.p : k + t] = self.rows.x[at]
        stack[:m, k + t] = self.rows.y[at] - stack[:m, k : k + t] @ solution[touched.place]
        if not k and m <= t + 1:
            return stack[:, :t], stack[:, t], 0.0
        r: Array = np.asarray(np.linalg.qr(stack, mode="r"))
        log_det = 2 * float(np.sum(np.log(np.abs(np.diag(r)[:k]))))
        return r[k:, k : k + t], r[k:, k + t], log_det


def _inverse(state: Any, rest: Index, size: int) -> Array:
    """(r, r) inverse of the whole problem's matrix on some coordinates."""
    out = np.empty((len(rest), len(rest)))
    for first in range(0, len(rest), COLUMNS):
        part = rest[first : first + COLUMNS]
        unit = np.zeros((size, len(part)))
        unit[part, np.arange(len(part))] = 1.0
        out[:, first : first + len(part)] = state.solve(state.solve(unit, False), True)[rest]
    return out


# -- the updating formula, a batch of groups at a time --------------------------------------------------------


@dataclass
class Deleted:
    """What each group's deletion does, levels of one factor.

    Attributes
    ----------
    change : (J, p) array
        Beta less beta without the group; NaN where the other rows do not determine it.
    terms : (J, 3) array
        log |I - H_S| (of the random part alone for ML), e_S' (I - H_S)^-1 e_S (engine units), rows.
    """

    change: Array
    terms: Array


def _batches(members: list[Index], use: list[int]) -> Iterator[list[int]]:
    batch: list[int] = []
    count = 0
    for j in use:
        if batch and count + len(members[j]) > COLUMNS:
            yield batch
            batch, count = [], 0
        batch.append(j)
        count += len(members[j])
    if batch:
        yield batch


def _delete_batch(
    fit: Fit,
    rows: Rows,
    lambdas: list[Array],
    members: list[Index],
    batch: list[int],
    state: Any,
    solution: Array,
    l_x: Array,
    out: Deleted,
) -> None:
    """Fill `out` for the groups of one batch, whose rows are solved for together."""
    c, q = fit.engine.blocks, int(rows.offsets[-1])
    every = np.concatenate([members[j] for j in batch])
    half = state.solve(right_sides(rows, lambdas, every), False)
    e = rows.y[every] - times(rows.part(every), lambdas, solution.reshape(-1, 1))[:, 0]
    back = np.linalg.solve(l_x.T, half[q:]) if c.p else half[q:]  # (M^-1 A_S')_beta
    at = 0
    for j in batch:
        part = slice(at, at := at + len(members[j]))
        h = half[:, part]
        left = np.eye(h.shape[1]) - h.T @ h
        values, vectors = np.linalg.eigh(left)
        if not (len(values) and values[0] > ALONE):
            continue
        turned = vectors.T @ e[part]
        out.change[j] = c.x_basis @ (c.scale * (back[:, part] @ (vectors @ (turned / values))))
        inner = left if fit.reml else np.eye(h.shape[1]) - h[:q].T @ h[:q]
        out.terms[j] = np.linalg.slogdet(inner)[1], float(turned @ (turned / values)), len(values)


# -- large groups, and real refits ----------------------------------------------------------------------


def _estimable(design: Design) -> bool:
    """Whether the rows left determine every fixed effect and the variance."""
    from .rank import dependent_columns

    n, p = design.X.shape
    return n > p + 1 and not dependent_columns(design.X) and bool(np.ptp(design.y) > 0)


def _summed_anew(fit: Fit, keep: NDArray[np.bool_], roots: list[Array], facts: Curvature | None) -> tuple[Array, Array]:
    """Beta without some rows, Lambda held, and the slope of the criterion left: the exact way for large groups."""
    p, r = len(fit.optimum.beta), 0 if facts is None else len(facts.directions) + 1
    small = without_rows(fit.rows_of_data(), keep)
    if not _estimable(small):
        return np.full(p, np.nan), np.full(r, np.nan)
    engine = engine_without(fit, small, keep)
    c = engine.blocks
    with engine.lock:
        solution = engine.state(fit.reml, engine.engine_lambdas(roots)).solution()
    beta = c.x_basis @ (c.scale * solution[len(solution) - c.p :] + c.shift)
    slope = np.empty(r)
    if facts is not None:
        _, grads, by_sigma = engine.slope(tuple(roots), fit.sigma, fit.reml)
        for i, d in enumerate(facts.directions):
            group = fit.engine.blocks.groups[d.group]
            move = group.basis @ d.matrix() / fit.engine.blocks.unit
            slope[i] = sum(
                float(np.vdot(grads[t], move[part, part]))
                for t, part in zip(group.terms, group.slices, strict=True)
            )
        slope[-1] = by_sigma * fit.sigma
    return beta, slope


def user_roots(fit: Fit, lambdas: list[Array]) -> list[Array]:
    """Per term a (k, k) square root in the user's coordinates of the engine's."""
    c = fit.engine.blocks
    out: list[Array] = [np.empty(0)] * len(c.structures)
    for group, root in zip(c.groups, lambdas, strict=True):
        whole = group.basis @ root / c.unit
        for t, part in zip(group.terms, group.slices, strict=True):
            out[t] = whole[part, part]
    return out


# -- the table ------------------------------------------------------------------------------------------


def by_group(
    fit: Fit, name: str, variances: bool | None = None, progress: bool | None = None
) -> tuple[dict[str, Any], str]:
    """Per level: rows, cooks, dfbetas_* and, with `variances`, sigma and the sds and correlations without it; how."""
    from .progress import Progress

    group = next(f for f, one in enumerate(fit.engine.blocks.groups) if one.name == name)
    deletion = Deletion(fit, group)
    lambdas = list(fit.optimum.engine_lambdas)
    facts = fit.curvature if variances is not False and one_step_possible(fit) else None
    passes = 1 + (0 if facts is None else 2 * len(facts.directions))
    long = facts is not None and variances is None and passes * deletion.work() > MUCH_WORK
    if long:
        facts, passes = None, 1
    with Progress(passes * len(deletion.few) + len(deletion.many), "influence", progress) as bar:
        found = deletion.at(lambdas, bar)
        slopes = np.empty((len(deletion.members), 0)) if facts is None else _slopes(deletion, facts, found, bar)
        for j in deletion.many:
            keep = np.ones(len(fit.design.y), dtype=bool)
            keep[deletion.members[j]] = False
            beta, slope = _summed_anew(fit, keep, user_roots(fit, lambdas), facts)
            found.change[j] = fit.optimum.beta - beta
            if facts is not None:
                slopes[j] = slope
            bar.add(1)
    out: dict[str, Any] = {
        "rows": np.array([len(at) for at in deletion.members]),
        "cooks": cooks_of(fit, found.change),
        **dfbetas(fit, found.change),
    }
    if facts is None:
        return out, LONG_METHOD if long else HELD_METHOD
    return out | _one_step(fit, facts, slopes), GROUP_METHOD


def one_step_possible(fit: Fit) -> bool:
    """Whether the directions of the curvature are those of the covariance parameters, and there are no others."""
    return fit.model.residual is None and all(t.structure in ("us", "diag") for t in fit.design.terms)


def _slopes(deletion: Deletion, facts: Curvature, found: Deleted, bar: Any = None) -> Array:
    """(J, r + 1) slope, along each direction and log sigma, of the criterion without each group.

    The whole criterion is flat at the optimum, so that the slope is that of the deleted part with its sign turned:
    the deleted rows' predictive density given the others, ``-log |I - H_S| + e' (I - H_S)^-1 e / s2 + m log s2``. By
    central differences, two factorisations per direction for all groups together.
    """
    fit = deletion.fit
    lambdas = list(fit.optimum.engine_lambdas)
    s2 = (fit.sigma / (fit.engine.blocks.scale * fit.engine.blocks.unit)) ** 2
    out = np.full((len(deletion.members), len(facts.directions) + 1), np.nan)
    for i, (d, step) in enumerate(zip(facts.directions, facts.steps, strict=True)):
        ends = []
        for sign in (1.0, -1.0):
            moved = [m + sign * step * d.matrix() if f == d.group else m for f, m in enumerate(lambdas)]
            terms = deletion.at(moved, bar).terms
            ends.append(terms[:, 1] / s2 - terms[:, 0])
        out[:, i] = -(ends[0] - ends[1]) / (2 * step)
    out[:, -1] = -2 * (found.terms[:, 2] - found.terms[:, 1] / s2)
    return out


def _one_step(fit: Fit, facts: Curvature, slopes: Array) -> dict[str, Array]:
    """Covariance parameters after one Newton step from the whole fit's optimum, with its curvature."""
    c, r = fit.engine.blocks, len(facts.directions)
    s2 = (fit.sigma / (c.scale * c.unit)) ** 2
    hessian = np.empty((r + 1, r + 1))
    hessian[:r, :r] = facts.hessian
    hessian[r, :r] = hessian[:r, r] = -2 * facts.r2_slope / s2
    hessian[r, r] = 4 * fit.engine.df(fit.reml)
    root = np.sqrt(np.maximum(np.diag(hessian), 1e-300))
    values, vectors = np.linalg.eigh(hessian / np.outer(root, root))
    keep = values > 1e-8 * values[-1]
    inverse = vectors[:, keep] / values[keep] @ vectors[:, keep].T / np.outer(root, root)
    steps = -slopes @ inverse
    covs, sigma = [], fit.sigma * np.exp(steps[:, -1])
    for step, s in zip(steps, sigma, strict=True):
        moved = [np.array(m) for m in fit.optimum.engine_lambdas]
        for weight, d in zip(step, facts.directions, strict=False):
            moved[d.group] = moved[d.group] + weight * d.matrix()
        covs.append([s**2 * (m @ m.T) for m in user_roots(fit, moved)])
    return _sd_columns(fit, sigma, covs)


def _sd_columns(fit: Fit, sigma: Array, covs: list[list[Array]]) -> dict[str, Array]:
    """sigma, sd(group, effect) and cor(group, effect, effect) columns."""
    out: dict[str, Array] = {"sigma": sigma}
    for t, term in enumerate(fit.design.terms):
        cov = np.stack([one[t] for one in covs])
        sd = np.sqrt(np.einsum("jkk->jk", cov))
        for i, name in enumerate(term.names):
            out[f"sd({term.group}, {name})"] = sd[:, i]
        if term.structure == "diag":
            continue
        for a in range(len(term.names)):
            for b in range(a + 1, len(term.names)):
                with np.errstate(divide="ignore", invalid="ignore"):
                    out[f"cor({term.group}, {term.names[a]}, {term.names[b]})"] = cov[:, a, b] / (sd[:, a] * sd[:, b])
    return out


def refitted(fit: Fit, name: str, progress: bool | None = None) -> tuple[dict[str, Any], str]:
    """The same table by refitting without each group; NaN where the rows left cannot be fitted."""
    import warnings

    from .errors import DataError, MultilevelWarning
    from .progress import Progress

    d = fit.rows_of_data()
    term = next(one for one in d.terms if one.group == name)
    levels, p = len(term.levels), len(fit.optimum.beta)
    change, sigma, covs = np.full((levels, p), np.nan), np.full(levels, np.nan), []
    with Progress(levels, "refits", progress) as bar:
        for j in range(levels):
            small = without_rows(d, term.codes != j)
            covs.append([np.full((len(t.names),) * 2, np.nan) for t in d.terms])
            if _estimable(small):
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", MultilevelWarning)  # one fit in a table, not the user's own
                        optimum = fit.model.with_design(small).fit(fit.reml, threads=fit.engine.threads).optimum
                except DataError:  # for example the one group of a level of ident()
                    bar.add(1)
                    continue
                change[j], sigma[j] = fit.optimum.beta - optimum.beta, optimum.sigma
                covs[j] = [optimum.sigma**2 * (m @ m.T) for m in optimum.lambdas]
            bar.add(1)
    table = {
        "rows": np.bincount(term.codes, minlength=levels),
        "cooks": cooks_of(fit, change),
        **dfbetas(fit, change),
        **_sd_columns(fit, sigma, covs),
    }
    return table, REFIT_METHOD
