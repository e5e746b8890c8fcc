"""Structures of one term: theta to factor and back, components, triangular roots."""

from __future__ import annotations

import numpy as np
import pytest
from dense_structures import covariance
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from multilevel import OptionError
from multilevel.covariance import FREE, STRUCTURES, Structure, lower_triangular


@pytest.mark.parametrize("k", [1, 2, 3, 5])
@pytest.mark.parametrize("kind", FREE)
def test_theta_and_back(kind: str, k: int) -> None:
    structure = Structure(kind, k)
    theta = np.arange(1.0, structure.n_theta + 1)
    factor = structure.to_lambda(theta)
    assert factor.shape == (k, k)
    np.testing.assert_array_equal(factor, np.tril(factor))
    np.testing.assert_array_equal(structure.to_theta(factor), theta)
    assert np.count_nonzero(factor) == len(theta) == (k * (k + 1) // 2 if kind == "us" else k)


def test_theta_is_column_after_column() -> None:
    np.testing.assert_array_equal(Structure("us", 3).to_lambda(np.arange(1.0, 7.0)), [[1, 0, 0], [2, 4, 0], [3, 5, 6]])
    np.testing.assert_array_equal(Structure("diag", 2).to_lambda(np.array([2.0, 3.0])), [[2, 0], [0, 3]])


def test_components() -> None:
    assert Structure("us", 3).components() == [[0, 1, 2]]
    assert Structure("diag", 3).components() == [[0], [1], [2]]


@pytest.mark.parametrize("kind", ["toep", "nonsense"])
def test_a_structure_that_is_not_here(kind: str) -> None:
    with pytest.raises(OptionError, match=rf"{kind}\(\) is not available; allowed are us\(\), diag\(\)"):
        Structure(kind, 2)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(0, 5), st.integers(0, 10_000), st.sampled_from([1e-150, 1e-6, 1.0, 1e6]))
def test_triangular_root_of_any_rank(k: int, rank: int, seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    root = np.zeros((k, k))
    root[:, : min(rank, k)] = rng.normal(size=(k, min(rank, k)))
    root = size * root @ np.linalg.qr(rng.normal(size=(k, k)))[0]
    found = lower_triangular(root)
    np.testing.assert_array_equal(found, np.tril(found))
    assert np.all(np.diag(found) >= 0)
    np.testing.assert_allclose(
        (found / size) @ (found / size).T, (root / size) @ (root / size).T, rtol=0, atol=1e-13 * k
    )


def test_triangular_root_keeps_small_variances() -> None:
    """Squaring and factorising would lose an sd of 1e-9 beside one of 1."""
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(2, 2)))[0]
    wanted = np.array([[1.0, 0.0], [0.5, 1e-9]])
    np.testing.assert_allclose(np.abs(lower_triangular(wanted @ rotation)), wanted, rtol=1e-6, atol=1e-16)


def test_triangular_root_of_a_singular_matrix_has_a_zero_column() -> None:
    root = np.outer([1.0, -2.0, 0.5], [0.6, 0.8, 0.0])
    np.testing.assert_allclose(lower_triangular(root), [[1, 0, 0], [-2, 0, 0], [0.5, 0, 0]], atol=1e-15)
    np.testing.assert_array_equal(lower_triangular(np.zeros((3, 3))), np.zeros((3, 3)))
    leading_zero = lower_triangular(np.array([[0.0, 0.0], [1.0, 1.0]]))
    np.testing.assert_allclose(leading_zero @ leading_zero.T, [[0, 0], [0, 2]], atol=1e-15)


# -- structures with few parameters --------------------------------------------------------------------------

FEW = [kind for kind in STRUCTURES if kind not in FREE]


def _theta(s: Structure, seed: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    out = rng.uniform(0.3, 1.5, s.n_theta)
    if s.correlated:
        low, high = s.range()
        out[-1] = low + (high - low) * rng.uniform(0.05, 0.95)
    return out


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("kind", FEW)
def test_covariance_of_theta_and_back(kind: str, k: int) -> None:
    s = Structure(kind, k)
    for seed in range(10):
        theta = _theta(s, seed)
        factor = s.to_lambda(theta)
        np.testing.assert_array_equal(factor, np.tril(factor))
        np.testing.assert_allclose(factor @ factor.T, covariance(kind, k, theta), atol=1e-14)
        np.testing.assert_allclose(s.to_theta(factor), theta, rtol=1e-12)
        np.testing.assert_allclose(s.theta_at(s.coordinates(theta)), theta, rtol=1e-12, atol=1e-15)
        root = s.at(s.coordinates(theta))
        np.testing.assert_allclose(root @ root.T, factor @ factor.T, atol=1e-14)


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("kind", FEW)
def test_derivatives_of_root_and_factor(kind: str, k: int) -> None:
    s = Structure(kind, k)
    rng = np.random.default_rng(k)
    for a in (rng.normal(size=s.n_coordinates), np.zeros(s.n_coordinates), np.full(s.n_coordinates, np.pi / 2)):
        for h, move in zip(1e-6 * np.eye(len(a)), s.by_coordinate(a), strict=True):
            np.testing.assert_allclose(move, (s.at(a + h) - s.at(a - h)) / 2e-6, atol=1e-8)
    theta, gradient = _theta(s, 1), rng.normal(size=(k, k))
    steps = 1e-6 * np.eye(len(theta))
    differences = [np.sum(gradient * (s.to_lambda(theta + h) - s.to_lambda(theta - h))) / 2e-6 for h in steps]
    np.testing.assert_allclose(s.slope(theta, gradient), differences, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("kind", [kind for kind in FEW if Structure(kind, 2).correlated])
def test_ends_of_the_range(kind: str, k: int) -> None:
    s = Structure(kind, k)
    for rho in s.range():
        theta = np.r_[np.ones(s.n_sd), rho]
        factor = s.to_lambda(theta)
        np.testing.assert_allclose(factor @ factor.T, covariance(kind, k, theta), atol=1e-7)
        np.testing.assert_allclose(s.to_theta(factor), theta, atol=1e-12)
        assert np.linalg.matrix_rank(factor, 1e-6) == (k - 1 if kind in ("cs", "homcs") and rho < 0 and k > 2 else 1)
        with pytest.raises(OptionError, match="no derivative by the correlation"):
            s.slope(theta, np.ones((k, k)))
        with pytest.raises(OptionError, match="lies between"):
            s.to_lambda(np.r_[np.ones(s.n_sd), rho * 1.01])


@pytest.mark.parametrize("kind", ["cs", "hetar1"])
@pytest.mark.parametrize("without", [[0], [1], [2], [1, 2], [0, 3]])
def test_effects_without_variance_leave_the_correlation(kind: str, without: list[int]) -> None:
    s = Structure(kind, 4)
    theta = np.array([0.7, 1.1, 0.9, 1.4, -0.2])
    theta[without] = 0.0
    back = s.to_theta(s.to_lambda(theta))
    np.testing.assert_allclose(back, theta, atol=1e-12)
    np.testing.assert_allclose(s.slope(np.r_[np.zeros(4), 0.3], np.eye(4))[-1], 0.0)


def test_effects_two_apart_do_not_tell_the_sign_of_ar1() -> None:
    s = Structure("hetar1", 3)
    theta = np.array([1.0, 0.0, 2.0, -0.5])
    back = s.to_theta(s.to_lambda(theta))
    np.testing.assert_allclose(back, np.abs(theta), atol=1e-12)
    np.testing.assert_allclose(covariance("hetar1", 3, back), covariance("hetar1", 3, theta), atol=1e-12)
    np.testing.assert_array_equal(s.to_theta(s.to_lambda(np.array([1.0, 0.0, 0.0, -0.5]))), [1, 0, 0, 0])


@pytest.mark.parametrize("kind", FEW)
def test_no_negative_sds(kind: str) -> None:
    s = Structure(kind, 3)
    with pytest.raises(OptionError, match=rf"the sds of {kind}\(\) cannot be negative, got -0.1"):
        s.to_lambda(np.r_[-0.1, np.ones(s.n_theta - 1) / 2])
