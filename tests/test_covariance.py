"""Structures of one term: theta to factor and back, components, triangular roots."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multilevel import OptionError
from multilevel.covariance import FREE, Structure, lower_triangular


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
