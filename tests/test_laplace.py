"""Laplace approximation of the core: value against plain NumPy, gradient against differences, search against both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from test_families import KINDS, LINKS

from multilevel import _core

Array = NDArray[np.float64]
FAMILIES = [
    *[("binomial", link, 0) for link in ("logit", "probit", "cloglog")],
    *[(kind, "log", 0) for kind in ("poisson", "nb2", "nb1", "gamma")],
    *[("poisson", "sqrt", 0), ("beta", "logit", 0), ("beta-binomial", "logit", 0), ("gaussian", "identity", 0)],
    *[(kind, "log", zero) for kind in ("poisson", "nb2") for zero in (1, 2)],
]
SHAPES = {"one": ((12,), (1,)), "slope": ((12,), (2,)), "crossed": ((12, 7), (1, 2)), "three": ((15, 9, 4), (1, 1, 1))}


class Problem:
    """A random design with a response of the family."""

    def __init__(self, kind: str, link: str, zero: int, shape: str, n: int = 150) -> None:
        rng = np.random.default_rng(len(kind + link + shape) + zero)
        levels, sizes = SHAPES[shape]
        self.levels, self.sizes, self.n = levels, sizes, n
        self.codes = [rng.integers(0, j, n).astype(np.int32) for j in levels]
        self.z = [None if k == 1 else np.c_[np.ones(n), rng.normal(size=(n, k - 1))] for k in sizes]
        self.x = np.c_[np.ones(n), rng.normal(size=n)]
        start = 1.5 if link == "sqrt" else 0.2
        eta = self.x @ [start, 0.3] + 0.4 * rng.normal(size=levels[0])[self.codes[0]]
        self.trials = np.full(n, 5.0) if "binomial" in kind and "negative" not in kind else None
        p = 1 / (1 + np.exp(-eta))
        y = {
            "binomial": lambda: rng.binomial(5, p), "beta-binomial": lambda: rng.binomial(5, p),
            "beta": lambda: rng.beta(4 * p, 4 - 4 * p),
            "gamma": lambda: rng.gamma(2, np.exp(eta) / 2), "gaussian": lambda: eta + rng.normal(size=n),
        }.get(kind, lambda: rng.poisson(eta**2 if link == "sqrt" else np.exp(eta)))()  # fmt: skip
        self.y = np.asarray(y, dtype=float)
        self.weights, self.offset = rng.uniform(0.5, 2, n), 0.1 * rng.normal(size=n)
        self.parameters = 2 if zero else int(kind not in ("binomial", "poisson"))
        self.beta = np.array([start, 0.3])
        self.lambdas = [0.3 * np.eye(k) + 0.2 * rng.normal(size=(k, k)) for k in sizes]
        self.params = [np.full(n, 0.4), np.full(n, -1.0)][: self.parameters]
        self.family = (KINDS.index(kind), LINKS.index(link), zero, 5.0)

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
            self.family,
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
            found = _core.log_densities(self.family, self.y, trials, fixed + root @ u, first, second)[0]
            return np.asarray(self.weights[:, None] * found)

        def objective(u: Array) -> float:
            return float(-rows(u)[:, 0].sum() + u @ u / 2)

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


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("kind", "link", "zero"), FAMILIES)
def test_value_and_gradient(kind: str, link: str, zero: int, shape: str) -> None:
    problem = Problem(kind, link, zero, shape)
    state, h = problem.state(), 1e-5
    here = problem.beta, problem.lambdas, problem.params
    value, by_beta, by_lambda, by_params = state.evaluate(*here, True)
    np.testing.assert_allclose(value, problem.dense(*here), rtol=1e-9)

    def slope(up: Any, down: Any) -> float:
        return float((state.evaluate(*up, False)[0] - state.evaluate(*down, False)[0]) / (2 * h))

    def close(found: float, wanted: float) -> None:
        assert abs(found - wanted) <= 2e-6 * (1 + abs(wanted))

    for j in range(2):
        e = h * np.eye(2)[j]
        close(by_beta[j], slope((here[0] + e, *here[1:]), (here[0] - e, *here[1:])))
    for f, m in enumerate(problem.lambdas):
        for i in np.ndindex(m.shape):
            up, down = ([one.copy() for one in problem.lambdas] for _ in range(2))
            up[f][i] += h
            down[f][i] -= h
            close(by_lambda[f][i], slope((here[0], up, here[2]), (here[0], down, here[2])))
    for k in range(problem.parameters):
        up, down = ([one + sign * h * (i == k) for i, one in enumerate(problem.params)] for sign in (1, -1))
        close(by_params[k].sum(), slope((*here[:2], up), (*here[:2], down)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("kind", "link", "zero"), [("binomial", "logit", 0), ("poisson", "log", 0), ("nb2", "log", 0)])
def test_search_ends_at_the_minimum(kind: str, link: str, zero: int, shape: str) -> None:
    problem = Problem(kind, link, zero, shape)
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
    problem = Problem("binomial", "logit", 0, "crossed", n=8000)
    values = [problem.state(threads).evaluate(problem.beta, problem.lambdas, [], True) for threads in (1, 3)]
    assert values[0][0] == values[1][0]
    np.testing.assert_array_equal(values[0][1], values[1][1])
