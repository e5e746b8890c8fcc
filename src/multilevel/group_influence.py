"""Influence of whole groups: exact deletion with the variance parameters held, and their change by one Newton step.

Small groups by the updating formula of `influence`; for large ones (whose H_S would be a large matrix) the
cross-products are summed anew without their rows. Both are exact and agree to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .influence import ALONE, Rows, cooks_of, dfbetas, engine_rows, right_sides, times

if TYPE_CHECKING:
    from .design import Design
    from .fit import Fit
    from .optimise import Curvature

Array = NDArray[np.float64]
Index = NDArray[np.int64]

LARGE = 400  # rows of a group above which its cross-products are summed anew without it; below, the updating formula
COLUMNS = 512  # right-hand sides solved at once


# -- the updating formula -----------------------------------------------------------------------------


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


def group_rows(codes: NDArray[np.int32], levels: int) -> list[Index]:
    """Rows of each level, in order."""
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.cumsum(np.bincount(codes, minlength=levels))[:-1])


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


def delete_groups(
    fit: Fit, rows: Rows, lambdas: list[Array], members: list[Index], use: list[int], bar: Any = None
) -> Deleted:
    """Deletion of the rows of each group in `use`, at the engine's Lambda given."""
    c = fit.engine.blocks
    out = Deleted(np.full((len(members), c.p), np.nan), np.full((len(members), 3), np.nan))
    with fit.engine.lock:  # one factorisation for all of them
        state = fit.engine.state(fit.reml, lambdas)
        solution, l_x = state.solution(), state.l_x() if c.p else np.zeros((0, 0))
        for batch in _batches(members, use):
            _delete_batch(fit, rows, lambdas, members, batch, state, solution, l_x, out)
            if bar is not None:
                bar.add(len(batch))
    return out


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
    e = rows.root_w[every] * rows.y[every] - _fitted(rows, lambdas, solution, every)
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


def _fitted(rows: Rows, lambdas: list[Array], solution: Array, at: Index) -> Array:
    """(m,) weighted fitted values of the rows `at`, engine units."""
    part = Rows(
        rows.root_w[at],
        rows.x[at],
        [code[at] for code in rows.codes],
        [z[at] for z in rows.z],
        rows.y[at],
        rows.offsets,
    )
    return times(part, lambdas, np.asarray(solution).reshape(-1, 1))[:, 0]


# -- large groups, and real refits ----------------------------------------------------------------------


def without_rows(design: Design, keep: NDArray[Any]) -> Design:
    """The design with fewer rows; levels that no row is left of are dropped, unless a known covariance links them."""
    terms = []
    known = getattr(design, "known", None) or {}
    for term in design.terms:
        if term.group in known:
            z = None if term.Z is None else np.ascontiguousarray(term.Z[keep])
            terms.append(replace(term, codes=np.ascontiguousarray(term.codes[keep]), Z=z))
            continue
        used, codes = np.unique(term.codes[keep], return_inverse=True)
        z = None if term.Z is None else np.ascontiguousarray(term.Z[keep])
        terms.append(replace(term, codes=codes.astype(np.int32), levels=term.levels[used], Z=z))
    return replace(
        design,
        y=design.y[keep],
        X=np.ascontiguousarray(design.X[keep]),
        terms=tuple(terms),
        weights=None if design.weights is None else design.weights[keep],
        offset=None if design.offset is None else design.offset[keep],
        rows=design.rows[keep],
    )


def _estimable(design: Design) -> bool:
    """Whether the rows left determine every fixed effect and the variance."""
    from .rank import dependent_columns

    n, p = design.X.shape
    return n > p + 1 and not dependent_columns(design.X) and bool(np.ptp(design.y) > 0)


def _summed_anew(fit: Fit, keep: NDArray[np.bool_], roots: list[Array], facts: Curvature | None) -> tuple[Array, Array]:
    """Beta without some rows, Lambda held, and the slope of the criterion left: the exact way for large groups."""
    from .reml import Engine

    p, r = len(fit.optimum.beta), 0 if facts is None else len(facts.directions) + 1
    small = without_rows(fit.rows_of_data(), keep)
    if not _estimable(small):
        return np.full(p, np.nan), np.full(r, np.nan)
    engine = Engine(small, fit.engine.threads)
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


def by_group(fit: Fit, name: str, *, variances: bool = True, progress: bool | None = None) -> dict[str, Any]:
    """Per level: rows, cooks, dfbetas_* and, with `variances`, sigma and the sds and correlations without it."""
    from .progress import Progress

    index = next(t for t, term in enumerate(fit.rows_of_data().terms) if term.group == name)
    term = fit.design.terms[index]
    members = group_rows(term.codes, len(term.levels))
    lambdas = list(fit.optimum.engine_lambdas)
    facts = fit.curvature if variances and one_step_possible(fit) else None
    few = [j for j, at in enumerate(members) if len(at) <= LARGE]
    many = [j for j, at in enumerate(members) if len(at) > LARGE]
    rows = engine_rows(fit)
    passes = 1 + (0 if facts is None else 2 * len(facts.directions))
    with Progress(passes * len(few) + len(many), "influence", progress) as bar:
        found = delete_groups(fit, rows, lambdas, members, few, bar)
        slopes = np.empty((len(members), 0)) if facts is None else _slopes(fit, rows, members, few, facts, found, bar)
        for j in many:
            keep = np.ones(len(fit.design.y), dtype=bool)
            keep[members[j]] = False
            beta, slope = _summed_anew(fit, keep, user_roots(fit, lambdas), facts)
            found.change[j] = fit.optimum.beta - beta
            if facts is not None:
                slopes[j] = slope
            bar.add(1)
    out: dict[str, Any] = {
        "rows": np.array([len(at) for at in members]),
        "cooks": cooks_of(fit, found.change),
        **dfbetas(fit, found.change),
    }
    return out if facts is None else out | _one_step(fit, facts, slopes)


def one_step_possible(fit: Fit) -> bool:
    """Whether the directions of the curvature are those of the covariance parameters."""
    return all(t.structure in ("us", "diag") for t in fit.design.terms)


def _slopes(
    fit: Fit, rows: Rows, members: list[Index], few: list[int], facts: Curvature, found: Deleted, bar: Any
) -> Array:
    """(J, r + 1) slope, along each direction and log sigma, of the criterion without each group.

    The whole criterion is flat at the optimum, so that the slope is that of the deleted part with its sign turned:
    the deleted rows' predictive density given the others, ``-log |I - H_S| + e' (I - H_S)^-1 e / s2 + m log s2``.
    """
    lambdas = list(fit.optimum.engine_lambdas)
    s2 = (fit.sigma / (fit.engine.blocks.scale * fit.engine.blocks.unit)) ** 2
    out = np.full((len(members), len(facts.directions) + 1), np.nan)
    for i, (d, step) in enumerate(zip(facts.directions, facts.steps, strict=True)):
        ends = []
        for sign in (1.0, -1.0):
            moved = [m + sign * step * d.matrix() if f == d.group else m for f, m in enumerate(lambdas)]
            terms = delete_groups(fit, rows, moved, members, few, bar).terms
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


def refitted(fit: Fit, name: str, progress: bool | None = None) -> dict[str, Any]:
    """The same table by refitting without each group."""
    import warnings

    from .errors import MultilevelWarning
    from .progress import Progress

    d = fit.rows_of_data()
    term = next(one for one in d.terms if one.group == name)
    levels, p = len(term.levels), len(fit.optimum.beta)
    change, sigma, covs = np.full((levels, p), np.nan), np.full(levels, np.nan), []
    with Progress(levels, "refits", progress) as bar:
        for j in range(levels):
            small = without_rows(d, term.codes != j)
            if _estimable(small):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", MultilevelWarning)  # one fit in a table, not the user's own
                    optimum = fit.model.with_design(small).fit(fit.reml, threads=fit.engine.threads).optimum
                change[j], sigma[j] = fit.optimum.beta - optimum.beta, optimum.sigma
                covs.append([optimum.sigma**2 * (m @ m.T) for m in optimum.lambdas])
            else:
                covs.append([np.full((len(t.names),) * 2, np.nan) for t in d.terms])
            bar.add(1)
    return {
        "rows": np.bincount(term.codes, minlength=levels),
        "cooks": cooks_of(fit, change),
        **dfbetas(fit, change),
        **_sd_columns(fit, sigma, covs),
    }
