"""The kernel of the tree softmax against formulas written out, differences, and identities of the optimum."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from multilevel.taxonomy.objective import Objective, leaf_coefficients, leaf_probabilities
from multilevel.taxonomy.tree import Taxonomy

TREE = Taxonomy.from_paths(
    [("a", "x"), ("a", "y"), ("a", "z"), ("b", "x", "deep"), ("b", "x", "deeper"), ("b", "y"), ("c",), ("d", "alone")]
)


class Case:
    """A problem with partial labels, weights, feature groups and offsets; and its objective written out densely."""

    def __init__(self, seed: int, rows: int = 40, features: int = 7, dtype: str = "float64", threads: int = 1) -> None:
        generator = np.random.default_rng(seed)
        dense = generator.normal(size=(rows, features)) * (generator.random((rows, features)) < 0.5)
        self.x = sp.csr_array(dense.astype(dtype))
        self.nodes = generator.integers(0, len(TREE), rows).astype(np.int32)
        self.weight = generator.choice([0.0, 0.5, 1.0, 3.0], rows)
        self.group = generator.integers(0, 2, features).astype(np.int32)
        self.group[:2] = [0, 1]
        self.offset = generator.normal(size=len(TREE.leaves))
        self.scales = generator.uniform(0.3, 2, (3, len(TREE)))
        self.scales[:, -1] = 0  # the only child
        self.w = generator.normal(size=(features + 1, len(TREE))).astype(dtype)
        self.objective = Objective(TREE, self.x, self.nodes, self.weight, self.group, self.offset, threads)

    def by_hand(self, w: np.ndarray) -> float:
        deviations = np.vstack([self.scales[:-1][self.group], self.scales[-1:]]) * w
        below = np.array(
            [[TREE.first[v] <= k < TREE.last[v] for k in range(len(TREE.leaves))] for v in range(len(TREE))]
        )
        coefficients = deviations @ below
        logits = self.x.toarray() @ coefficients[:-1] + coefficients[-1] + self.offset
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        own = np.array([p[i, below[node]].sum() for i, node in enumerate(self.nodes)])
        return float(-self.weight @ np.log(own) + 0.5 * np.sum(w**2))


@pytest.mark.parametrize("seed", range(3))
def test_the_value_is_the_formula(seed: int) -> None:
    case = Case(seed)
    assert case.objective.value(case.w, case.scales) == pytest.approx(case.by_hand(case.w), rel=1e-12)
    half_squares = 0.5 * np.sum(case.w**2)
    assert case.objective.value(case.w, case.scales, prior=False) == pytest.approx(
        case.by_hand(case.w) - half_squares, rel=1e-12
    )


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_gradient_and_hessian_are_differences(seed: int) -> None:
    case = Case(seed)
    direction = np.random.default_rng(seed + 1).normal(size=case.w.shape)
    step = 1e-5

    def along(t: float) -> float:
        return case.by_hand(case.w + t * direction)

    _, gradient = case.objective.gradient(case.w, case.scales)
    assert np.sum(gradient * direction) == pytest.approx((along(step) - along(-step)) / (2 * step), rel=1e-6, abs=1e-5)
    case.objective.value(case.w, case.scales)
    product = case.objective.product(direction, case.scales)
    ahead = case.objective.gradient(case.w + step * direction, case.scales)[1]
    behind = case.objective.gradient(case.w - step * direction, case.scales)[1]
    np.testing.assert_allclose(product, (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-6)


def test_single_precision_is_near_and_threads_change_nothing() -> None:
    double, single = Case(5, rows=600), Case(5, rows=600, dtype="float32")
    value, gradient = double.objective.gradient(double.w, double.scales)
    rough, rough_gradient = single.objective.gradient(single.w, single.scales)
    assert rough == pytest.approx(value, rel=1e-6)
    np.testing.assert_allclose(rough_gradient, gradient, rtol=1e-3, atol=1e-3)
    threaded = Case(5, rows=600, threads=3)
    assert threaded.objective.value(threaded.w, threaded.scales) == value
    np.testing.assert_array_equal(threaded.objective.gradient(threaded.w, threaded.scales)[1], gradient)


def minimum(case: Case) -> np.ndarray:
    found = case.objective.minimise(case.objective.start(), case.scales, gap=1e-20, most=2000)
    assert found.gap < 1e-18
    return found.w


@pytest.mark.parametrize("seed", range(3))
def test_at_the_minimum_deviations_add_up(seed: int) -> None:
    """u_v / s_v^2 is the sum of its children's, and those below the root sum to zero."""
    case = Case(seed)
    w = minimum(case)
    for rows, scales in [(case.group == 0, case.scales[0]), (case.group == 1, case.scales[1])]:
        with np.errstate(invalid="ignore"):
            pull = np.where(scales > 0, w[:-1][rows] / scales, 0.0)
        for node, below in enumerate(TREE.children):
            if below and scales[list(below)].all():
                np.testing.assert_allclose(pull[:, node], pull[:, list(below)].sum(axis=1), atol=1e-8)
    _, gradient = case.objective.gradient(w, case.scales)
    assert np.abs(gradient).max() < 1e-8


def test_the_deviations_below_the_root_sum_to_zero() -> None:
    case = Case(8)
    case.scales[:, -1] = 0
    w = minimum(case)
    top = list(TREE.top)
    for rows, scales in [(case.group == 0, case.scales[0]), (case.group == 1, case.scales[1])]:
        np.testing.assert_allclose((w[:-1][rows][:, top] / scales[top]).sum(axis=1), 0, atol=1e-8)


def test_the_gap_bounds_what_is_left() -> None:
    case = Case(11, rows=300)
    best = case.objective.value(minimum(case), case.scales)
    for gap in (1.0, 1e-2, 1e-4):
        found = case.objective.minimise(case.objective.start(), case.scales, gap=gap, most=500)
        assert found.converged and 0 <= found.value - best <= found.gap <= gap


def test_solves_with_the_hessian() -> None:
    case = Case(4)
    right = np.random.default_rng(0).normal(size=case.w.shape)
    case.objective.value(case.w, case.scales)
    x = case.objective.solve(right, case.scales, tolerance=1e-12, most=500)
    np.testing.assert_allclose(case.objective.product(x, case.scales), right, atol=1e-8)


def test_far_labels_give_no_infinities() -> None:
    """A partial label whose leaves' probabilities underflow still has its logarithm and its gradient."""
    x = sp.csr_array(np.array([[1.0]]))
    w = np.zeros((2, len(TREE)))
    w[0, list(TREE.top)] = [0.0, -900.0, 900.0, 0.0]
    one = np.ones((2, len(TREE)))
    objective = Objective(TREE, x, np.array([TREE.node("b")], dtype=np.int32), np.ones(1))
    value, gradient = objective.gradient(w, one, prior=False)
    assert value == pytest.approx(1800 - np.log(3))
    assert gradient[0, TREE.node("b")] == pytest.approx(-1)
    assert gradient[0, TREE.node("c")] == pytest.approx(1)


def test_probabilities_do_not_depend_on_other_rows() -> None:
    case = Case(2, rows=300, dtype="float32")
    coefficients = leaf_coefficients(TREE, case.w)
    whole = leaf_probabilities(case.x, coefficients, threads=2)
    alone = np.concatenate([leaf_probabilities(case.x[[i]], coefficients) for i in range(case.x.shape[0])])
    np.testing.assert_array_equal(whole, alone)
    logits = case.x.toarray().astype(float) @ coefficients[:-1] + coefficients[-1]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(whole, p, rtol=1e-4, atol=1e-6)
