"""Laplace approximation of the core: value against plain NumPy, gradient against differences, search against both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from test_families import FULL, LEAST_ETA, POSITIVE, ZEROS, draws, label, slope

from multilevel import _core
from multilevel.families import TRIALS, Family

Array = NDArray[np.float64]
COMMON = [  # for what need not be tried with every link
    *[Family("binomial", link) for link in ("logit", "probit", "cloglog")],
    *[Family(name, "log") for name in ("poisson", "nbinom2", "nbinom1", "gamma", "tweedie")],
    Family("poisson", "sqrt"), Family("beta", "logit"), Family("betabinomial", "logit"), Family("gaussian", "identity"),
    *[Family(name, "log", zero) for name in ("poisson", "nbinom2") for zero in ZEROS[1:]],
]  # fmt: skip
POISSON, LOGIT = Family("poisson", "log"), Family("binomial", "logit")
SHAPES = {"one": ((12,), (1,)), "slope": ((12,), (2,)), "crossed": ((12, 7), (1, 2)), "three": ((15, 9, 4), (1, 1, 1))}


class Problem:
    """A random design with a response of the family."""

    def __init__(self, family: Family, shape: str, n: int = 150) -> None:
        rng = np.random.default_rng(len(label(family) + shape))
        levels, sizes = SHAPES[shape]
        self.family, self.levels, self.sizes, self.n = family, levels, sizes, n
        self.codes = [rng.integers(0, j, n).astype(np.int32) for j in levels]
        self.z = [None if k == 1 else np.c_[np.ones(n), rng.normal(size=(n, k - 1))] for k in sizes]
        self.x = np.c_[np.ones(n), rng.normal(size=n)]
        bounded = family.link in LEAST_ETA and (family.name in POSITIVE or family.link == "inverse")
        spread = 0.3 if bounded else 1.0  # so that the linear predictor stays positive
        start = 2.5 if bounded else -0.2 if family.link == "cloglog" else 0.2
        self.beta = np.array([start, 0.3 * spread])
        eta = self.x @ self.beta + 0.4 * spread * rng.normal(size=levels[0])[self.codes[0]]
        trials = 5 if family.name in (*TRIALS, "ordinal") else 1
        self.trials = np.full(n, 5.0) if trials == 5 else None
        self.parameters = family.parameters
        first, second = np.full(n, 0.4), np.full(n, -1.0)
        self.y = draws(family, trials, n)[0]
        if family.name == "ordinal":  # all thresholds are two apart
            self.y = np.clip(np.round(eta / 2 + 2 + 0.5 * rng.normal(size=n)), 0, 4)
            first, second = 2 * self.y - 3, 2 * self.y - 5
        elif family.name != "student":
            given = family if family.zero == "none" else Family(family.name, family.link)
            self.y = given.at_shape(-1.0).draw(rng, eta, first, second, self.trials)
            self.y = np.clip(self.y, 1e-3, 1 - 1e-3) if family.name == "beta" else self.y
        self.weights, self.offset = rng.uniform(0.5, 2, n), 0.1 * spread * rng.normal(size=n)
        self.lambdas = [spread * (0.3 * np.eye(k) + 0.2 * rng.normal(size=(k, k))) for k in sizes]
        self.params = [first, second][: self.parameters]

    def state(self, threads: int = 1) -> Any:
        return _core.GlmmState(
            self.codes,
            self.z,
            list(self.levels),
            self.x,
            self.y,
            self.trials,
            self.weights,
            self.offset,
            self.family.kernel,
            threads,
        )

    def dense_z(self) -> list[Array]:
        out = []
        for codes, z, j, k in zip(self.codes, self.z, self.levels, self.sizes, strict=True):
            whole = np.zeros((self.n, j, k))
            whole[np.arange(self.n), codes] = 1.0 if z is None else z
            out.append(whole.reshape(self.n, j * k))
        return out

    def dense(self, beta: Array, lambdas: list[Array], params: list[Array]) -> float:
        """F by Newton's method on dense matrices."""
        root = np.hstack(
            [z @ np.kron(np.eye(j), m) for z, j, m in zip(self.dense_z(), self.levels, lambdas, strict=True)]
        )
        first, second = [*params, np.zeros(self.n), np.zeros(self.n)][:2]
        u = np.zeros(root.shape[1])
        fixed = self.offset + self.x @ beta

        def rows(u: Array) -> Array:
            trials = np.ones(self.n) if self.trials is None else self.trials
            found = _core.log_densities(self.family.kernel, self.y, trials, fixed + root @ u, first, second)[0]
            return np.asarray(self.weights[:, None] * found)

        def objective(u: Array) -> float:
            value = float(-rows(u)[:, 0].sum() + u @ u / 2)
            return value if np.isfinite(value) else np.inf

        for _ in range(60):
            d = rows(u)
            hessian = root.T @ (-d[:, 2, None] * root) + np.eye(len(u))
            step = np.linalg.solve(
                root.T @ (np.maximum(-d[:, 2, None], 1e-8) * root) + np.eye(len(u)), root.T @ d[:, 1] - u
            )
            t = 1.0
            while objective(u + t * step) > objective(u) + 1e-13 and t > 1e-8:
                t /= 2
            u = u + t * step
        return objective(u) + float(np.linalg.slogdet(hessian)[1]) / 2


CASES = [(f, shape) for f in FULL for shape in ("slope", "crossed")] + [(f, s) for f in COMMON for s in ("one", "three")]


@pytest.mark.parametrize(("family", "shape"), CASES, ids=[f"{label(f)}-{s}" for f, s in CASES])
def test_value_and_gradient(family: Family, shape: str) -> None:
    """All families and links; dispersion, extra zeros and shapes along a constant and along a predictor."""
    problem = Problem(family, shape)
    state = problem.state()
    here = problem.beta, problem.lambdas, problem.params
    value, *found = state.evaluate(*here, True)
    np.testing.assert_allclose(value, problem.dense(*here), rtol=1e-9)
    check_gradient(problem, lambda *at: state.evaluate(*at, False)[0], found)


def close(found: float, wanted: float, tolerance: float) -> None:
    assert abs(found - wanted) <= tolerance * (1 + abs(wanted))


def check_gradient(problem: Problem, value: Any, found: Any, tolerance: float = 2e-8, h: float = 2e-3) -> None:
    """Derivatives by beta (None: not asked), Lambda and the rows' parameters of value(beta, lambdas, params)."""
    beta, lambdas, params = problem.beta, problem.lambdas, problem.params
    for j in range(0 if found[0] is None else 2):
        close(found[0][j], slope(lambda t, j=j: value(beta + t * np.eye(2)[j], lambdas, params), h), tolerance)
    for f, m in enumerate(lambdas):
        for i in np.ndindex(m.shape):
            e = np.zeros_like(m)
            e[i] = 1

            def moved(t: float, f: int = f, e: Array = e) -> float:
                return float(value(beta, [a + t * e if g == f else a for g, a in enumerate(lambdas)], params))

            close(found[1][f][i], slope(moved, h), tolerance)
    for k in range(problem.parameters):
        for along in problem.x.T:

            def shifted(t: float, k: int = k, along: Array = along) -> float:
                return float(value(beta, lambdas, [one + t * (i == k) * along for i, one in enumerate(params)]))

            close(found[2][k] @ along, slope(shifted, h), tolerance)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("family", [LOGIT, POISSON, Family("nbinom2", "log")], ids=label)
def test_search_ends_at_the_minimum(family: Family, shape: str) -> None:
    problem = Problem(family, shape)
    m = problem.parameters
    state = problem.state()
    components = [(f, list(range(k))) for f, k in enumerate(problem.sizes)]
    designs = [np.ones((problem.n, 1))] * m
    start = [0.5 * np.eye(k) for k in problem.sizes]
    found = state.fit(start, np.r_[problem.beta, np.zeros(m)], designs, components, 300)
    assert found["status"] == 0

    def objective(v: Array) -> tuple[float, Array]:
        beta, at, lambdas = v[:2], 2, []
        for k in problem.sizes:
            lower = np.zeros((k, k))
            lower[np.tril_indices(k)] = v[at : at + k * (k + 1) // 2]
            at += k * (k + 1) // 2
            lambdas.append(lower)
        params = [np.full(problem.n, p) for p in v[at:]]
        value, by_beta, by_lambda, by_params = state.evaluate(beta, lambdas, params, True)
        parts = [g[np.tril_indices(len(g))] for g in by_lambda]
        return value, np.concatenate([by_beta, *parts, [p.sum() for p in by_params]])

    first = np.concatenate([problem.beta, *[0.7 * np.eye(k)[np.tril_indices(k)] for k in problem.sizes], np.zeros(m)])
    other = minimize(objective, first, jac=True, method="BFGS", options={"gtol": 1e-7})
    assert found["deviance"] <= 2 * other.fun + 1e-7


def test_threads_change_nothing() -> None:
    problem = Problem(LOGIT, "crossed", n=8000)
    values = [problem.state(threads).evaluate(problem.beta, problem.lambdas, [], True) for threads in (1, 3)]
    assert values[0][0] == values[1][0]
    np.testing.assert_array_equal(values[0][1], values[1][1])
