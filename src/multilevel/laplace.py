"""Engine for generalised models: maximum likelihood by Laplace's approximation.

The mode of the random effects, the approximation and its exact gradient are the core's (`laplace.hpp`); one search runs over
covariances, fixed effects and the family's other coefficients. At the optimum the model is a linear one in the working
response, whose cross-products make an `Engine`: conditional variances and errors of prediction come from there.
"""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import crossprod, optimise
from .covariance import Structure, lower_triangular
from .errors import ConvergenceWarning, DataError, OptionError, listing, users_level
from .laplace_start import starts
from .optimise import STATUS, Direction, Evidence
from .reml import Engine, Optimum

if TYPE_CHECKING:
    from .crossprod import CrossProducts
    from .design import Design
    from .families import Family

Array = NDArray[np.float64]

MAX_EVALUATIONS = 500
SETTLED = 1e-6  # gain in deviance of one more Newton step that is none
STEP = 1e-3  # of differences of the exact gradient: truncation of a millionth, and ten times less of its rounding than 1e-4
RUNAWAY = 1e-6  # curvature, over the largest, under which a dispersion or a share of zeros runs to infinity
FLATTEST = 1e-10  # curvature, over the largest, that counts as none
SMALLEST_WEIGHT = 1e-10  # of a row in the working linear model


@dataclass(frozen=True)
class Coefficients:
    """Coefficients beyond the fixed effects: dispersion, zero inflation or thresholds.

    Attributes
    ----------
    names : tuple of str
    designs : list of (n, m) arrays
        Per further parameter of a row: ``designs[k] @ coefficients``, engine coordinates.
    basis : (m, m) array
        The user's coefficients are ``basis @ engine's``.
    start : (m,) array
        Engine coordinates.
    """

    names: tuple[str, ...]
    designs: list[Array]
    basis: Array
    start: Array

    def rows(self, values: Array) -> list[Array]:
        """Per further parameter, its value in each row."""
        return [design @ values for design in self.designs]


class LaplaceEngine:
    """Rows of one generalised model with everything that can be computed from them."""

    def __init__(self, design: Design, family: Family, threads: int | None = None) -> None:
        self.threads = crossprod.default_threads() if threads is None else threads
        self.family, self.design = family, design
        self.lock = threading.RLock()
        crossprod.check_range(design)
        kinds = [t.structure for t in design.terms if not Structure(t.structure, len(t.names)).free]
        if kinds or design.known:
            what = f"{kinds[0]}()" if kinds else "a known covariance of levels"
            raise OptionError(
                f"{what} is available for the gaussian family only in this version; use (x | g) or (x || g)"
            )
        merged = crossprod.merged_groups(design)
        self.groups, self.codes, self.z, self.components, self.owners, self.structures = merged
        self.x_basis = crossprod.whitening(design.X) if design.X.shape[1] else np.zeros((0, 0))
        self.x = np.ascontiguousarray(design.X @ self.x_basis)
        self.coefficients = coefficients_of(design, family)

    def with_threads(self, threads: int) -> LaplaceEngine:
        """The same model with another number of threads."""
        return LaplaceEngine(self.design, self.family, threads)

    def state(self) -> Any:
        """The compiled problem."""
        from . import _core

        d = self.design
        levels = [g.levels for g in self.groups]
        offset = None if d.offset is None else np.ascontiguousarray(d.offset)
        return _core.GlmmState(
            self.codes, self.z, levels, self.x, d.y, d.trials, d.weights, offset, self.family.kernel, self.threads
        )

    # -- the fit ----------------------------------------------------------------------------------------------

    def fit(
        self, start: tuple[Array, ...] | None = None, max_evaluations: int = MAX_EVALUATIONS
    ) -> tuple[Optimum, Engine]:
        """Maximise the likelihood; the optimum and the working linear model there.

        Raises
        ------
        DataError
            If the likelihood cannot be evaluated, or has no maximum (complete separation).
        """
        state = self.state()
        best, spent = self._search(state, start, max_evaluations)
        joint = Joint(self, state, best["lambdas"], best["plain"])
        hessian = joint.hessian()
        if hessian is not None:
            joint.polish(hessian)
            hessian = joint.hessian()
        evidence = self._evidence(best, spent, joint, hessian)
        return self._optimum(state, joint, hessian, evidence)

    def _search(self, state: Any, start: tuple[Array, ...] | None, limit: int) -> tuple[dict[str, Any], int]:
        best: dict[str, Any] | None = None
        spent = 0
        for plain in starts(self, np.r_[self._first_beta(), self.coefficients.start]):
            for size in (0.5, 1.0, 0.1, 2.0) if start is None else (1.0,):
                lambdas = [size * np.eye(g.k) for g in self.groups] if start is None else self._engine_lambdas(start)
                state.u = np.zeros(sum(g.levels * g.k for g in self.groups))
                found = state.fit(lambdas, plain, list(self.coefficients.designs), self.components, limit)
                spent += found["evaluations"]
                if found["status"] != 3 and (best is None or found["deviance"] < best["deviance"] - 1e-7):
                    best = found
                if found["status"] == 0 or (found["status"] != 3 and abs(found["decrement"]) < SETTLED):
                    break
        if best is None or not np.isfinite(best["deviance"]):
            raise DataError(
                "the likelihood cannot be evaluated at any start, which points to values far too large for this "
                "family and link; "
                "rescale the predictors, check the response, or choose another link"
            )
        return best, spent

    def _engine_lambdas(self, lambdas: tuple[Array, ...]) -> list[Array]:
        out = []
        for group in self.groups:
            joint = np.zeros((group.k, group.k))
            for t, part in zip(group.terms, group.slices, strict=True):
                joint[part, part] = lambdas[t]
            out.append(np.ascontiguousarray(np.linalg.solve(group.basis, joint)))
        return out

    def _first_beta(self) -> Array:
        """Fixed effects that give every row the overall mean."""
        d = self.design
        share = d.y if d.trials is None or self.family.name == "ordinal" else d.y / np.maximum(d.trials, 1)
        if self.family.name == "ordinal" or not self.x.shape[1]:
            return np.zeros(self.x.shape[1])
        mean = float(np.mean(np.log(share))) if self.family.name == "lognormal" else float(np.average(share))
        eta = start_eta(self.family, mean)
        rest = np.full(len(d.y), eta) - (0.0 if d.offset is None else d.offset)
        return np.asarray(np.linalg.lstsq(self.x, rest, rcond=None)[0], dtype=np.float64)

    def _evidence(self, best: dict[str, Any], spent: int, joint: Joint, hessian: Array | None) -> Evidence:
        least, most, slope, decrement = float("nan"), 0.0, float("nan"), float(best["decrement"])
        if hessian is not None:
            least, most = np.inf, 0.0
            gradient = joint.gradient(np.zeros(joint.size))
            if len(hessian):
                values, vectors = np.linalg.eigh(hessian * np.outer(joint.sizes(), joint.sizes()))
                most = float(values[-1])
                kept = ~self._runaway(values, vectors)
                least = float(values[kept][0]) if kept.any() else most
            if gradient is not None and len(gradient):
                slope = float(np.abs(gradient).max())
                decrement = float(gradient @ np.linalg.lstsq(hessian, gradient, rcond=None)[0]) / 2
        status = STATUS[best["status"]]
        if abs(decrement) < SETTLED and status in ("no further progress", "out of evaluations"):
            status = "converged"  # the search could not tell the deviances apart any more, the gradient can
        return Evidence(
            status,
            spent,
            best["iterations"],
            0,
            decrement,
            slope,
            least,
            True,
            tuple(best["null_slopes"]),
            tuple(best["rank"]),
            max(optimise.FLAT, optimise.FLAT_RELATIVE * most),
            (),
            tuple(best["trace"]),
        )

    def _runaway(self, values: Array, vectors: Array) -> NDArray[np.bool_]:
        """Flat directions of a Hessian that belong to the dispersion or the extra zeros: their limit is reached at infinity.

        They take nothing from the rest of the model, so they are told by a warning and not held against the optimum.
        """
        m = len(self.coefficients.start)
        if not m or self.family.name == "ordinal":
            return np.zeros(len(values), dtype=bool)
        flat = values <= max(optimise.FLAT, RUNAWAY * float(values[-1]))
        out = flat & ((vectors[-m:] ** 2).sum(axis=0) > 0.9)
        if out.any():
            moves = np.abs(self.coefficients.basis @ vectors[-m:, out]).max(axis=1)
            named = [n for n, v in zip(self.coefficients.names, moves, strict=True) if v > 0.05 * moves.max()]
            warnings.warn(runaway_sentence(self.family, named), ConvergenceWarning, stacklevel=users_level())
        return np.asarray(out)

    def _optimum(self, state: Any, joint: Joint, hessian: Array | None, evidence: Evidence) -> tuple[Optimum, Engine]:
        value, *_ = joint.evaluate(np.zeros(joint.size), False)
        p, m = self.x.shape[1], len(self.coefficients.start)
        at = len(joint.directions)
        cov = np.full((p + m, p + m), np.nan)
        if hessian is not None and len(hessian):
            cov = covariance(hessian, joint.sizes())[at:, at:]
        lambdas: list[Array] = [np.empty(0)] * len(self.structures)
        modes: list[Array] = [np.empty(0)] * len(self.structures)
        u, first = state.u, 0
        for group, root in zip(self.groups, joint.lambdas, strict=True):
            own = u[first : first + group.levels * group.k].reshape(group.levels, group.k)
            first += group.levels * group.k
            factor = group.basis @ root
            b = own @ factor.T
            for t, part in zip(group.terms, group.slices, strict=True):
                lambdas[t] = lower_triangular(factor[part, part])
                modes[t] = b[:, part]
        theta = [s.to_theta(f) for s, f in zip(self.structures, lambdas, strict=True)]
        basis = self.coefficients.basis
        optimum = Optimum(
            False,
            2 * value,
            np.concatenate(theta) if theta else np.empty(0),
            tuple(lambdas),
            1.0,
            self.x_basis @ joint.plain[:p],
            self.x_basis @ cov[:p, :p] @ self.x_basis.T,
            tuple(modes),
            evidence,
            tuple(joint.lambdas),
            basis @ joint.plain[p:],
            basis @ cov[p:, p:] @ basis.T,
        )
        return optimum, Engine.of(self._working(state), self.threads)

    def _working(self, state: Any) -> CrossProducts:
        """Cross-products of the linear model in the working response at the last evaluation."""
        from . import _core

        d = self.design
        eta, w, score = state.rows()
        w = np.maximum(w, SMALLEST_WEIGHT)
        y = eta - (0.0 if d.offset is None else d.offset) + score / w
        levels = [g.levels for g in self.groups]
        core = _core.build(self.codes, self.z, levels, self.x, np.ascontiguousarray(y), w, self.threads)
        p = self.x.shape[1]
        rows = crossprod.Rows(self.codes, self.z, levels, self.x, w)
        return crossprod.CrossProducts(
            core,
            self.groups,
            self.structures,
            self.components,
            self.owners,
            self.x_basis,
            np.zeros(p),
            1.0,
            1.0,
            len(y),
            p,
            rows,
        )


class Joint:
    """Covariances along their free directions and all other coordinates about one point."""

    def __init__(self, engine: LaplaceEngine, state: Any, lambdas: list[Array], plain: Array) -> None:
        self.engine, self.state, self.lambdas, self.plain = engine, state, list(lambdas), np.array(plain)
        self._direct()

    def _direct(self) -> None:
        self.directions: list[Direction] = optimise.free_directions(self.lambdas, self.engine.components)
        self.size = len(self.directions) + len(self.plain)

    def sizes(self) -> Array:
        """Of each coordinate, for steps and curvatures."""
        return np.array([*(d.size for d in self.directions), *np.ones(len(self.plain))])

    def evaluate(self, step: Array, want: bool) -> Any:
        """Half the deviance with its derivatives at a step."""
        at = len(self.directions)
        change = optimise.combined(self.lambdas, self.directions, step[:at])
        lambdas = [np.ascontiguousarray(m + c) for m, c in zip(self.lambdas, change, strict=True)]
        plain = self.plain + step[at:]
        p = self.engine.x.shape[1]
        rows = self.engine.coefficients.rows(plain[p:])
        return self.state.evaluate(np.ascontiguousarray(plain[:p]), lambdas, rows, want)

    def gradient(self, step: Array) -> Array | None:
        """Derivative of the deviance along everything."""
        value, by_beta, by_lambda, by_rows = self.evaluate(step, True)
        if not np.isfinite(value):
            return None
        free = [2 * float(np.vdot(by_lambda[d.group], d.matrix())) for d in self.directions]
        more = np.zeros(len(self.engine.coefficients.start))
        for design, rows in zip(self.engine.coefficients.designs, by_rows, strict=True):
            more = more + 2 * (design.T @ rows)
        return np.asarray(np.r_[free, 2 * by_beta, more], dtype=np.float64)

    def hessian(self) -> Array | None:
        """Of the deviance, by central differences of the exact gradient; None where that fails."""
        sizes = STEP * self.sizes()
        rows = []
        for i, size in enumerate(sizes):
            step = np.zeros(self.size)
            step[i] = size
            up, down = self.gradient(step), self.gradient(-step)
            if up is None or down is None:
                return None
            rows.append((up - down) / (2 * size))
        out = np.array(rows).reshape(self.size, self.size)
        return np.asarray((out + out.T) / 2) if np.isfinite(out).all() else None

    def polish(self, hessian: Array) -> None:
        """Newton steps judged by the gradient, where the deviance can no longer tell."""
        if not self.size or np.linalg.eigvalsh(hessian)[0] <= 0:
            return
        now = self.gradient(np.zeros(self.size))
        for _ in range(3):
            if now is None:
                return
            step = np.asarray(-np.linalg.solve(hessian, now), dtype=np.float64)
            after = self.gradient(step)
            if after is None or not np.abs(after).max() < 0.5 * np.abs(now).max():
                self.evaluate(np.zeros(self.size), False)
                return
            change = optimise.combined(self.lambdas, self.directions, np.asarray(step[: len(self.directions)]))
            self.lambdas = [m + c for m, c in zip(self.lambdas, change, strict=True)]
            self.plain = self.plain + step[len(self.directions) :]
            now = after


def covariance(hessian: Array, sizes: Array) -> Array:
    """Inverse of half the deviance's Hessian; a direction without curvature gets a variance that says nothing is known."""
    scaled = hessian * np.outer(sizes, sizes) / 2
    values, vectors = np.linalg.eigh(scaled)
    inverse = 1 / np.maximum(values, FLATTEST * max(values[-1], 1e-300))
    return np.asarray((vectors * inverse) @ vectors.T * np.outer(sizes, sizes))


def runaway_sentence(family: Family, names: list[str]) -> str:
    """What it means that coefficients of the dispersion or the extra zeros have no finite estimate."""
    many = len(names) > 1
    if all(name.startswith("zi[") for name in names):
        why = "in some rows the share of extra zeros is estimated as exactly zero or one"
        remedy = "a simpler zi= or hurdle= fits as well"
    else:
        limit = {"nbinom1": "poisson", "nbinom2": "poisson", "betabinomial": "binomial"}.get(family.name)
        why = f"the response varies no more than in family {limit!r}" if limit else "it hardly varies about its mean"
        remedy = f"family {limit!r} fits as well" if limit else "check for repeated values"
    return (
        f"the likelihood is flat along the coefficient{'s' * many} {listing(names)}, whose estimate{'s' * many} "
        f"run{'s' * (not many)} to infinity: {why}. The rest of the model is not affected; {remedy}"
    )


def start_eta(family: Family, mean: float) -> float:
    """Linear predictor of the overall mean."""
    from scipy.special import logit, ndtri

    p = min(max(mean, 1e-3), 1 - 1e-3)
    positive = max(mean, 1e-3)
    table = {
        "identity": mean,
        "log": np.log(positive),
        "logit": logit(p),
        "probit": ndtri(p),
        "cloglog": np.log(-np.log1p(-p)),
        "cauchit": np.tan(np.pi * (p - 0.5)),
        "inverse": 1 / positive,
        "sqrt": np.sqrt(positive),
        "inverse_square": positive**-2.0,
    }
    return float(table[family.link])


def coefficients_of(design: Design, family: Family) -> Coefficients:
    """Dispersion, zero inflation or thresholds with their designs and first values."""
    n = len(design.y)
    if family.name == "ordinal":
        return thresholds(design)
    blocks: list[tuple[str, Array, tuple[str, ...], float]] = []
    if family.dispersion is not None:
        matrix, names = design.sides.get("dispersion", (np.ones((n, 1)), ("Intercept",)))
        blocks.append((family.dispersion, matrix, names, start_dispersion(design, family)))
    zero = None
    if family.zero != "none":
        matrix, names = design.sides.get("zi", (np.ones((n, 1)), ("Intercept",)))
        share = float(np.mean(design.y == 0))
        zero = len(blocks)
        first = np.log(share / (1 - share)) if family.zero == "hurdle" and 0 < share < 1 else -1.0
        blocks.append(("zi", matrix, names, float(first)))
    m = sum(matrix.shape[1] for _, matrix, _, _ in blocks)
    basis, start, names_out = np.zeros((m, m)), np.zeros(m), []
    designs = [np.zeros((n, m)) for _ in range(family.parameters)]
    at = 0
    for i, (what, matrix, names, first) in enumerate(blocks):
        part = slice(at, at + matrix.shape[1])
        basis[part, part] = crossprod.whitening(matrix)
        own = matrix @ basis[part, part]
        designs[1 if zero == i else 0][:, part] = own
        start[part] = np.linalg.lstsq(own, np.full(n, first), rcond=None)[0]
        names_out += [f"{what}[{name}]" for name in names]
        at += matrix.shape[1]
    return Coefficients(tuple(names_out), [np.ascontiguousarray(d) for d in designs], basis, start)


def start_dispersion(design: Design, family: Family) -> float:
    """Log of a first dispersion, by moments of the raw response."""
    y = design.y if design.trials is None else design.y / np.maximum(design.trials, 1)
    mean, var = float(np.mean(y)), max(float(np.var(y)), 1e-300)
    table = {
        "nbinom2": 0.0,
        "nbinom1": 0.0,
        "gamma": np.log(mean**2 / var),
        "inverse_gaussian": np.log(max(mean, 1e-300) ** 3 / var) if mean > 0 else 0.0,
        "beta": np.log(max(mean * (1 - mean) / var - 1, 1.0)),
        "betabinomial": 2.0,
        "lognormal": np.log(max(float(np.std(np.log(np.maximum(y, 1e-300)))), 1e-8)),
    }
    return float(table[family.name] if family.name in table else np.log(np.sqrt(var)))


def thresholds(design: Design) -> Coefficients:
    """An ordinal response's thresholds: the one above and the one below each row's category."""
    count = len(design.labels)
    above, below = np.zeros((len(design.y), count - 1)), np.zeros((len(design.y), count - 1))
    category = design.y.astype(np.intp)
    inner = category < count - 1
    above[inner, category[inner]] = 1.0
    below[category > 0, category[category > 0] - 1] = 1.0
    share = np.cumsum(np.bincount(category, minlength=count))[:-1] / len(category)
    start = np.log(share / (1 - share))
    names = tuple(f"{a}|{b}" for a, b in zip(design.labels, design.labels[1:], strict=False))
    return Coefficients(names, [above, below], np.eye(count - 1), np.asarray(start))
