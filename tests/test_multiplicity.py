"""Adjusted p-values and critical values against R's mvtnorm, tables in print, and each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multilevel import OptionError
from multilevel.multiplicity import ADJUSTMENTS, Family, adjust, check_adjust

STORED = json.loads((Path(__file__).parent / "golden_means" / "means.json").read_text(encoding="utf-8"))["mvt"]


def family(statistic: Any, df: Any, covariance: Any = None, means: int | None = None) -> Family:
    t = np.asarray(statistic, dtype=float)
    cov = np.eye(len(t)) if covariance is None else np.asarray(covariance, dtype=float)
    return Family(t, np.broadcast_to(np.asarray(df, dtype=float), t.shape), cov, means)


def pairs(k: int) -> np.ndarray[Any, Any]:
    """Rows of the pairwise differences of k means."""
    first, second = np.triu_indices(k, 1)
    return np.eye(k)[first] - np.eye(k)[second]


@pytest.mark.parametrize("case", STORED, ids=lambda c: c["name"])
def test_multivariate_t_agrees_with_mvtnorm(case: dict[str, Any]) -> None:
    root = np.array(case["root"], dtype=float)
    for t, p in zip(case["t"], case["p_value"], strict=True):
        statistic = np.r_[t, np.zeros(len(root) - 1)]
        found = adjust("mvt", family(statistic, case["df"], root @ root.T), 0.95)[0][0]
        assert found == pytest.approx(p, abs=3e-5)


@pytest.mark.parametrize(("k", "df"), [(3, 12.5), (4, 20.0), (6, np.inf), (5, 4.0)])
def test_multivariate_t_of_balanced_pairs_is_the_studentized_range(k: int, df: float) -> None:
    rows = pairs(k)
    t = np.linspace(0.5, 4.5, len(rows))
    exact = adjust("tukey", family(t, df, means=k), 0.9)
    found = adjust("mvt", family(t, df, rows @ rows.T), 0.9)
    np.testing.assert_allclose(found[0], exact[0], atol=2e-4)
    np.testing.assert_allclose(found[1], exact[1], rtol=1e-3)


def test_tables_in_print() -> None:
    # Dunnett (1964, Biometrics 20), two-sided 5 %, equal groups: 2 and 5 treatments
    for treatments, df, point in ((2, 10, 2.57), (5, 20, 2.73), (3, 60, 2.41)):
        cov = 0.5 + 0.5 * np.eye(treatments)
        assert adjust("mvt", family(np.ones(treatments), df, cov), 0.95)[1][0] == pytest.approx(point, abs=0.006)
    # studentized range, 5 %: q(3, 10) = 3.877, q(4, 20) = 3.958
    for means, df, q in ((3, 10, 3.877), (4, 20, 3.958)):
        found = adjust("tukey", family(np.ones(means), df, means=means), 0.95)[1][0]
        assert found * np.sqrt(2) == pytest.approx(q, abs=6e-4)


def test_each_critical_value_has_the_p_value_of_its_level() -> None:
    rows = pairs(4)
    for method in ("none", "bonferroni", "sidak", "tukey", "scheffe", "mvt"):
        for df in (3.2, 40.0, np.inf):
            critical = adjust(method, family(np.ones(6), df, rows @ rows.T, 4), 0.95)[1]
            again = adjust(method, family(critical, df, rows @ rows.T, 4), 0.95)[0]
            np.testing.assert_allclose(again, 0.05, rtol=1e-6, err_msg=method)


def test_step_wise_methods_by_hand() -> None:
    from scipy.stats import norm

    p = np.array([0.01, 0.04, 0.03, 0.5])
    t = norm.isf(p / 2)
    holm, fdr = (adjust(m, family(t, np.inf), 0.95) for m in ("holm", "fdr"))
    np.testing.assert_allclose(holm[0], [0.04, 0.09, 0.09, 0.5], rtol=1e-9)
    np.testing.assert_allclose(fdr[0], [0.04, 0.16 / 3, 0.16 / 3, 0.5], rtol=1e-9)
    np.testing.assert_allclose(holm[1], norm.isf(0.025 / 4), rtol=1e-9)
    np.testing.assert_array_equal(holm[1], fdr[1])


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-8, 8), min_size=2, max_size=7), st.floats(2, 200), st.integers(0, 10**6))
def test_order_of_the_methods(statistic: list[float], df: float, seed: int) -> None:
    """No adjustment makes a p-value smaller, and none is more careful than Bonferroni's but Scheffé's."""
    root = np.random.default_rng(seed).normal(size=(len(statistic), 3))
    asked = family(statistic, df, root @ root.T)
    p = {m: adjust(m, asked, 0.95)[0] for m in ADJUSTMENTS if m != "tukey"}
    for method, values in p.items():
        assert np.all(values >= p["none"] * (1 - 1e-3) - 1e-9) and np.all(values <= 1), method
    for method in ("holm", "fdr", "sidak"):
        assert np.all(p[method] <= p["bonferroni"] + 1e-12)
    assert np.all(p["mvt"] <= p["sidak"] + 1e-3)
    assert np.all(p["mvt"] <= p["scheffe"] + 1e-3)
    assert np.all(p["fdr"] <= p["holm"] + 1e-12)


def test_same_question_same_answer() -> None:
    cov = pairs(5) @ pairs(5).T
    first, second = (adjust("mvt", family(np.arange(10.0) / 3, 11.0, cov), 0.95) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_questions_without_an_answer_do_not_count() -> None:
    t, df = [2.5, np.nan, 1.0], [9.0, np.nan, 9.0]
    cov = np.array([[1.0, np.nan, 0.3], [np.nan] * 3, [0.3, np.nan, 1.0]])
    for method in [m for m in ADJUSTMENTS if m != "tukey"]:
        p, critical = adjust(method, family(t, df, cov), 0.95)
        expected = adjust(method, family([2.5, 1.0], 9.0, [[1, 0.3], [0.3, 1]]), 0.95)
        np.testing.assert_array_equal(np.isnan(p), [False, True, False])
        np.testing.assert_allclose(p[[0, 2]], expected[0])
        np.testing.assert_allclose(critical[[0, 2]], expected[1])
    p, critical = adjust("mvt", family([np.nan], [np.nan]), 0.95)
    assert np.isnan(p).all() and np.isnan(critical).all()


def test_single_question_is_not_adjusted() -> None:
    expected = adjust("none", family([2.0], 7.0), 0.95)
    for method in ADJUSTMENTS:
        np.testing.assert_allclose(adjust(method, family([2.0], 7.0), 0.95), expected)


def test_what_is_refused() -> None:
    with pytest.raises(OptionError, match="for all pairwise comparisons of means only"):
        adjust("tukey", family([1.0, 2.0], 9.0), 0.95)
    with pytest.raises(OptionError, match="adjust 'tukye' is not known; did you mean 'tukey'?"):
        check_adjust("tukye")
    with pytest.raises(OptionError, match="allowed are 'none', 'bonferroni'"):
        check_adjust(17)
