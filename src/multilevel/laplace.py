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

from . import crossprod, laplace_structured, optimise
from .covariance import lower_triangular
from .errors import ConvergenceWarning, DataError, listing, users_level
from .families import shape_limit
from .laplace_coordinates import Coordinates
from .laplace_joint import Joint as Joint
from .laplace_joint import covariance
from .laplace_start import in_units, runs_away, starts, unit_of
from .laplace_working import WorkingEngine, observed_core
from .optimise import STATUS, Evidence
from .reml import Engine, Optimum

if TYPE_CHECKING:
    from .crossprod import CrossProducts
    from .design import Design
    from .families import Family

Array = NDArray[np.float64]

MAX_EVALUATIONS = 500
MOVED = 1e-4  # relative step of the last Newton steps from which the Hessian is computed anew
SETTLED = 1e-6  # gain in deviance of one more Newton step that is none
RUNAWAY = 1e-6  # curvature, over the largest, under which a dispersion or a share of zeros runs to infinity
TWO_SIDES = (
    "the predictor of some rows with a positive response is below zero, where the mean of link 'sqrt' rises again: the "
    "likelihood has a maximum on either side, and Laplace's approximation knows one. Use link='log', or quadrature=25"
)
FEW_ROWS = 20_000  # up to which a variance of zero is doubted by further searches
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
        self.unit = unit_of(design, family)
        merged = in_units(crossprod.merged_groups(design), self.unit)
        self.groups, self.codes, self.z, self.components, self.owners, self.structures = merged
        self.terms = Coordinates(self.groups, self.structures)
        self.priors, self.prior_log_det = crossprod.known_priors(design, self.groups)
        self.x_basis = self.unit * crossprod.whitening(design.X) if design.X.shape[1] else np.zeros((0, 0))
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
        known = {"priors": self.priors, "prior_log_det": self.prior_log_det} if self.priors else {}
        return _core.GlmmState(
            self.codes, self.z, levels, self.x, d.y, d.trials, d.weights, offset, self.family.kernel, self.threads, **known
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
        return self.finish(state, best, spent, max_evaluations)

    def finish(
        self, state: Any, best: dict[str, Any], spent: int, limit: int = MAX_EVALUATIONS
    ) -> tuple[Optimum, Engine]:
        """The optimum and the working linear model from what a search found: Newton steps, certificate, standard errors."""
        joint, hessian = self._polished(state, best)
        if self.terms and hessian is not None and joint.size:
            better, more = laplace_structured.leave_saddle(self, state, joint, hessian, best, limit)
            spent += more
            if better is not None:
                best = better
                joint, hessian = self._polished(state, best)
        evidence = self._evidence(best, spent, joint, hessian)
        made = self._optimum(state, joint, hessian, evidence)
        two_sided = self.family.link == "sqrt" and getattr(self, "nodes", 1) <= 1
        if two_sided and ((state.rows()[0] < 0) & (self.design.y > 0)).any():
            warnings.warn(TWO_SIDES, ConvergenceWarning, stacklevel=users_level())
        return made

    def _polished(self, state: Any, best: dict[str, Any]) -> tuple[Joint, Array | None]:
        """The best point after Newton steps in all coordinates, and the Hessian there."""
        if "u" in best:
            state.u = best["u"]
        joint = Joint(self, state, best["lambdas"], best["plain"], best.get("a"))
        hessian = joint.hessian()
        if hessian is not None and joint.polish(hessian) > MOVED:
            hessian = joint.hessian()
        return joint, hessian

    def _search(self, state: Any, start: tuple[Array, ...] | None, limit: int) -> tuple[dict[str, Any], int]:
        """The best of several searches; structured terms by a search round them (`laplace_structured`)."""
        if not self.terms:
            return self._free_search(state, start, limit, self.components)
        components = self.components if start is not None else [*self.components, *self.terms.singles()]
        free, spent = self._free_search(state, start, limit, components)
        first = None if start is None else self.terms.of(self._engine_lambdas(start))
        best, more = laplace_structured.search(self, state, free, first, limit)
        return best, spent + more

    def _free_search(
        self, state: Any, start: tuple[Array, ...] | None, limit: int, components: list[tuple[int, list[int]]]
    ) -> tuple[dict[str, Any], int]:
        best: dict[str, Any] | None = None
        spent = 0

        def attempt(lambdas: list[Array], plain: Array) -> dict[str, Any]:
            nonlocal best, spent
            state.u = np.zeros(sum(g.levels * g.k for g in self.groups))
            found: dict[str, Any] = state.fit(lambdas, plain, list(self.coefficients.designs), components, limit)
            found["u"] = state.u
            spent += found["evaluations"]
            if found["status"] != 3 and (best is None or found["deviance"] < best["deviance"] - 1e-7):
                best = found
            return found

        for plain in starts(self, np.concatenate([self._first_beta(), self.coefficients.start])):
            for size in (0.5, 1.0, 0.1, 2.0) if start is None else (1.0,):
                lambdas = [size * np.eye(g.k) for g in self.groups] if start is None else self._engine_lambdas(start)
                found = attempt(lambdas, plain)
                if found["status"] == 0 or (found["status"] != 3 and abs(found["decrement"]) < SETTLED):
                    break
                if runs_away(self, found):
                    found["decrement"] = -np.inf
                    break
        if start is None and best is not None and len(self.design.y) <= FEW_ROWS and self._vanished(best, components):
            for size in (3.0, 6.0):  # a variance of zero is often one of two minima where the data say little
                attempt([size * np.eye(g.k) for g in self.groups], best["plain"])
        if best is None or not np.isfinite(best["deviance"]):
            raise DataError(
                "the likelihood cannot be evaluated at any start, which points to values far too large for this "
                "family and link; "
                "rescale the predictors, check the response, or choose another link"
            )
        return best, spent

    @staticmethod
    def _vanished(best: dict[str, Any], components: list[tuple[int, list[int]]]) -> bool:
        """Whether a direction of some covariance is zero."""
        return any(rank < len(index) for rank, (_, index) in zip(best["rank"], components, strict=True))

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
        if self.family.name == "student":
            mean = float(np.median(share))  # gross outliers carry a mean off
        eta = start_eta(self.family, mean)
        rest = np.full(len(d.y), eta) - (0.0 if d.offset is None else d.offset)
        quick = np.asarray(self.x.T @ rest / len(rest), dtype=np.float64)  # the columns are orthogonal but for lost digits
        if d.offset is None and np.abs(self.x @ quick - rest).max() < 1e-6 * (1 + abs(eta)):
            return quick
        return np.asarray(np.linalg.lstsq(self.x, rest, rcond=None)[0], dtype=np.float64)

    def _evidence(self, best: dict[str, Any], spent: int, joint: Joint, hessian: Array | None) -> Evidence:
        least, most, slope, decrement = float("nan"), 0.0, float("nan"), float(best["decrement"])
        if hessian is not None:
            least, most = np.inf, 0.0
            gradient = joint.gradient(np.zeros(joint.size)) if joint.here is None else joint.here
            sizes = joint.sizes()
            values, vectors = np.linalg.eigh(hessian * np.outer(sizes, sizes)) if joint.size else (np.empty(0), hessian)
            if joint.size:
                most = float(values[-1])
                kept = ~self._runaway(values, vectors, joint)
                least = float(values[kept][0]) if kept.any() else most
            if gradient is not None and joint.size:
                slope = float(np.abs(gradient).max())
                along = vectors.T @ (sizes * gradient)
                told = np.abs(values) > np.finfo(float).eps * len(values) * np.abs(values).max()
                decrement = float((along[told] ** 2 / values[told]).sum()) / 2
        status = STATUS[best["status"]]
        if abs(decrement) < SETTLED and status in ("no further progress", "out of evaluations"):
            status = "converged"  # the search could not tell the deviances apart any more, the gradient can
        weak = joint.weakest(hessian) if hessian is not None and self.terms else ""
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
            weak,
        )

    def _runaway(self, values: Array, vectors: Array, joint: Joint) -> NDArray[np.bool_]:
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
            last = float(self.coefficients.basis[-1] @ joint.plain[-m:])
            warnings.warn(runaway_sentence(self.family, named, last), ConvergenceWarning, stacklevel=users_level())
        return np.asarray(out)

    def _optimum(self, state: Any, joint: Joint, hessian: Array | None, evidence: Evidence) -> tuple[Optimum, Engine]:
        value = joint.settle()
        p, at = self.x.shape[1], joint.first
        whole = np.full((joint.size, joint.size), np.nan)
        if hessian is not None and len(hessian):
            whole = covariance(hessian, joint.sizes())
        cov = whole[at:, at:]
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
            *joint.of_user(whole),
        )
        return optimum, WorkingEngine.of(self._working(state, joint.lambdas), self.threads)

    def _working(self, state: Any, lambdas: list[Array]) -> CrossProducts:
        """Cross-products of the linear model in the working response at the last evaluation."""
        from . import _core

        d = self.design
        eta, observed, score = state.rows()
        w = np.maximum(observed, SMALLEST_WEIGHT / self.unit**2)
        eta = eta - (0.0 if d.offset is None else d.offset)
        y = eta + score / w
        levels = [g.levels for g in self.groups]
        y = np.ascontiguousarray(y)
        core = _core.build(self.codes, self.z, levels, self.x, y, w, self.threads, priors=self.priors)
        core = observed_core(self, core, eta, observed, lambdas)
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
            self.prior_log_det,
        )


def runaway_sentence(family: Family, names: list[str], last: float = 0.0) -> str:
    """What it means that coefficients of the dispersion or the extra zeros have no finite estimate; `last`: the shape's."""
    many = len(names) > 1
    if all(name.startswith("zi[") for name in names):
        why = "in some rows the share of extra zeros is estimated as exactly zero or one"
        remedy = "a simpler zi= or hurdle= fits as well"
    elif family.shape is not None and names == [f"{family.shape}[Intercept]"]:
        why, remedy = shape_limit(family.shape, last)
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
        "log": np.log(max(mean, 1e-300)),
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
    if family.shape is not None:
        zero = len(blocks)
        blocks.append((family.shape, np.ones((n, 1)), ("Intercept",), {"df": np.log(4.0), "power": 0.0}[family.shape]))
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
    size = min(max(float(np.abs(y).max(initial=0.0)), 1e-300), 1e300)
    unit = float(np.log(size))  # moments are of responses over the largest, whose powers stay in range
    mean, var = float(np.mean(y / size)), max(float(np.var(y / size)), 1e-300)
    positive, spread = float(np.log(max(mean, 1e-300))), float(np.log(var))
    table = {
        "nbinom2": 0.0,
        "nbinom1": 0.0,
        "gamma": 2 * positive - spread,
        "inverse_gaussian": 3 * positive - spread + unit,
        "beta": np.log(max(mean * (1 / size - mean) / var - 1, 1.0)),
        "betabinomial": 2.0,
        "student": np.log(robust_sd(y)),
        "tweedie": spread - 1.5 * positive + 0.5 * unit,
        "lognormal": np.log(max(float(np.std(np.log(np.maximum(y, 1e-300)))), 1e-8)),
    }
    return float(table[family.name] if family.name in table else spread / 2 + unit)


def robust_sd(y: Array) -> float:
    """Median absolute deviation, scaled to the sd of a normal variable; the sd where half of the responses are one value."""
    found = 1.4826 * float(np.median(np.abs(y - np.median(y))))
    return found if found > 0 else max(float(np.std(y)), 1e-150)


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
