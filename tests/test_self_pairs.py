"""Core: rows that touch two levels of a factor, and precisions between levels, against plain NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from multilevel import _core

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """One random problem: factors with one or two levels per row, some with a precision."""

    levels: list[int]
    x: Array
    y: Array
    codes: list[Any]
    z: list[Array]
    codes2: list[Any]
    z2: list[Any]
    priors: list[Any]  # (levels, levels) precision or None
    lambdas: list[Array]

    def build(self) -> Any:
        given = [(f, *_triangle(q)) for f, q in enumerate(self.priors) if q is not None]
        return _core.build(self.codes, self.z, self.levels, self.x, self.y, None, 1, self.codes2, self.z2, given)

    def criterion(self, lambdas: list[Array], reml: bool) -> float:
        """-2 log-likelihood, from V, plus the log-determinants of the precisions, which the core leaves in."""
        n, extra = len(self.y), 0.0
        V = np.eye(n)
        for f, count in enumerate(self.levels):
            k = self.z[f].shape[1]
            Z = np.zeros((n, count, k))
            Z[np.arange(n), self.codes[f]] += self.z[f]
            if self.codes2[f] is not None:
                two = np.flatnonzero(self.codes2[f] >= 0)
                Z[two, self.codes2[f][two]] += self.z2[f][two]
            cov = np.eye(count)
            if self.priors[f] is not None:
                cov = np.linalg.inv(self.priors[f])
                extra += k * np.linalg.slogdet(self.priors[f])[1]
            Z = Z.reshape(n, -1)
            V += Z @ np.kron(cov, lambdas[f] @ lambdas[f].T) @ Z.T
        inverse = np.linalg.inv(V)
        cross = self.x.T @ inverse @ self.x
        rest = self.y - self.x @ np.linalg.solve(cross, self.x.T @ inverse @ self.y)
        df = n - (self.x.shape[1] if reml else 0)
        out = np.linalg.slogdet(V)[1] + (np.linalg.slogdet(cross)[1] if reml else 0.0) + extra
        return float(out + df * (1 + np.log(2 * np.pi * (rest @ inverse @ rest) / df)))


def _triangle(q: Array) -> tuple[Any, Any, Any, Any]:
    """Diagonal, and the entries below it column by column."""
    ptr, idx, values = [0], [], []
    for j in range(len(q)):
        below = j + 1 + np.flatnonzero(q[j + 1 :, j])
        idx += below.tolist()
        values += q[below, j].tolist()
        ptr.append(len(idx))
    return (
        np.diag(q).copy(),
        np.array(ptr, dtype=np.int32),
        np.array(idx, dtype=np.int32),
        np.array(values, dtype=float),
    )


def _case(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    factors = int(rng.integers(1, 4))
    levels = sorted((int(rng.integers(2, [40, 80, 6][seed % 3])) for _ in range(factors)), reverse=True)
    sizes = [int(rng.integers(1, 4)) for _ in levels]
    n, p = int(rng.integers(30, 90)), int(rng.integers(1, 4))
    codes = [rng.integers(0, count, n).astype(np.int32) for count in levels]
    codes2: list[Any] = [None] * factors
    z2: list[Any] = [None] * factors
    priors: list[Any] = [None] * factors
    for f, count in enumerate(levels):
        if rng.random() < 0.5:
            other = rng.integers(-1, count, n).astype(np.int32)
            other[other == codes[f]] = -1
            codes2[f], z2[f] = other, rng.normal(size=(n, sizes[f]))
        if rng.random() < 0.5:
            a = rng.normal(size=(count, count)) * (rng.random((count, count)) < (0.1 if seed % 2 else 0.9))
            priors[f] = a + a.T + np.eye(count) * (np.abs(a + a.T).sum(1).max() + 0.1)
    return Case(
        levels,
        np.column_stack([np.ones(n), rng.normal(size=(n, p - 1))]),
        rng.normal(size=n),
        codes,
        [rng.normal(size=(n, k)) for k in sizes],
        codes2,
        z2,
        priors,
        [rng.normal(size=(k, k)) for k in sizes],
    )


def _deviance(state: Any, lambdas: list[Array], reml: bool, df: int) -> float:
    assert state.set(lambdas) == 0
    return float(state.log_det_u + (state.log_det_x if reml else 0) + df * (1 + np.log(2 * np.pi * state.r2 / df)))


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("seed", range(60))
def test_values_are_those_of_the_whole_covariance(seed: int, reml: bool) -> None:
    case = _case(seed)
    df = len(case.y) - (case.x.shape[1] if reml else 0)
    for threads in (1, 2):
        found = _deviance(_core.State(case.build(), reml, threads), case.lambdas, reml, df)
        np.testing.assert_allclose(found, case.criterion(case.lambdas, reml), rtol=1e-10)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("seed", range(0, 60, 4))
def test_gradients_are_those_of_central_differences(seed: int, reml: bool) -> None:
    case = _case(seed)
    df = len(case.y) - (case.x.shape[1] if reml else 0)
    state = _core.State(case.build(), reml, 1)
    _deviance(state, case.lambdas, reml, df)
    exact = [g.copy() for g in state.gradient(1.0, 1.0 if reml else 0.0, df)]
    for f, factor in enumerate(case.lambdas):
        for i, j in np.ndindex(factor.shape):
            pair = []
            for step in (1e-5, -1e-5):
                moved = [m.copy() for m in case.lambdas]
                moved[f][i, j] += step
                pair.append(_deviance(state, moved, reml, df))
            difference = (pair[0] - pair[1]) / 2e-5
            assert abs(exact[f][i, j] - difference) < 1e-6 * max(1.0, abs(difference))


@pytest.mark.parametrize("seed", range(12))
def test_exported_and_imported(seed: int) -> None:
    case = _case(seed)
    problem = case.build()
    back = _core.import_blocks(_core.export_blocks(problem))
    one, other = _core.State(problem, True, 1), _core.State(back, True, 1)
    assert one.set(case.lambdas) == other.set(case.lambdas) == 0
    assert (one.r2, one.log_det_u, one.log_det_x) == (other.r2, other.log_det_u, other.log_det_x)
    for a, b in zip(one.gradient(1.0, 1.0, 1.0), other.gradient(1.0, 1.0, 1.0), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("seed", range(2, 48, 3))  # few levels: with as many effects as rows there is no minimum
def test_the_search_ends_at_a_minimum(seed: int) -> None:
    case = _case(seed)
    problem = case.build()
    parts = [(f, list(range(z.shape[1]))) for f, z in enumerate(case.z)]
    found = _core.fit(_core.State(problem, True, 1), _core.moment_start(problem, parts), parts, 500, 0)
    assert found["status"] == 0
    best = case.criterion(found["lambdas"], True)
    rng = np.random.default_rng(1)
    for _ in range(20):
        moved = [m + 0.05 * rng.normal(size=m.shape) for m in found["lambdas"]]
        assert case.criterion(moved, True) >= best - 1e-8
