"""What the hard cases of benchmarks/hard_cases.py broke: densities, searches, tails and draws far out."""

from __future__ import annotations

import pickle
import warnings
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit
from test_generalised import fit, grouped

from multilevel import ConvergenceWarning, DataError, Model, _core
from multilevel.compound_poisson import draw as tweedie_draw
from multilevel.families import Family
from multilevel.generalised_residuals import _integrated, base_tails, beta_binomial_tails, truncated
from multilevel.generalised_uncertainty import quadratic

# -- densities ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eta", [-3.0, 1.0, 3.0, 6.5, 20.0, 39.0, 200.0])
@pytest.mark.parametrize("second", [-20.0, -1.0, 2.0, 40.0])
def test_zero_inflation_at_a_huge_mean(eta: float, second: float) -> None:
    """log(p + (1 - p) exp(-mu)): the log of the share alone where exp(-mu) is nothing."""
    kernel = Family("poisson", "log", "inflated").kernel

    def density(at: float, share: float) -> Any:
        one = np.array([at])
        return [np.asarray(v)[0] for v in _core.log_densities(kernel, np.zeros(1), None, one, 0 * one, np.array([share]))]

    by_eta, _, by_share = density(eta, second)
    log_share = -np.logaddexp(0, -second)
    wanted = np.logaddexp(log_share, -np.logaddexp(0, second) - np.exp(eta))
    if second > 0:  # 1 - (1 - p)(1 - exp(-mu))
        wanted = np.log1p(expit(-second) * np.expm1(-np.exp(eta)))
    assert by_eta[0] == pytest.approx(wanted, rel=1e-12, abs=1e-300)
    if eta >= 20:
        assert by_eta[0] == pytest.approx(log_share, rel=1e-14) and (by_eta[1:] == 0).all()
    h = 1e-5
    for k in range(3):
        slope = (density(eta + h, second)[0][k] - density(eta - h, second)[0][k]) / (2 * h)
        assert by_eta[k + 1] == pytest.approx(slope, rel=1e-5, abs=1e-7 * max(1, np.exp(min(eta, 6.5))))
    slope = (density(eta, second + h)[0][0] - density(eta, second - h)[0][0]) / (2 * h)
    assert by_share[0] == pytest.approx(slope, rel=1e-5, abs=1e-8)


# -- searches -----------------------------------------------------------------------------------------------------


def test_offsets_without_derivatives_end_in_a_sentence() -> None:
    d = grouped(14)
    sign = np.where(np.arange(len(d["x"])) % 2, 300.0, -300.0)
    y = np.digitize(d["eta"] + d["rng"].logistic(size=len(sign)), [-1.0, 0.5, 2.0])
    with pytest.raises(DataError, match="cannot be evaluated at any start"):
        fit("y ~ x + offset(o) + (1 | g)", {"y": y, "x": d["x"], "g": d["g"], "o": sign}, "ordinal", link="cloglog")


def test_effects_of_a_constant_share() -> None:
    """Nothing is left to the working linear model's residuals, which is no reason to refuse it."""
    d = grouped(17)
    data = {"y": np.full(240, 6.0), "m": np.full(240, 12.0), "x": d["x"], "g": d["g"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one = Model("y | trials(m) ~ x + (1 | g)", data, family="binomial", link="cloglog").fit()
    assert (one.ranef()["estimate"] == 0).all() and (one.ranef()["std_error"] == 0).all()
    assert np.isfinite(np.asarray(one.predict(interval="confidence"), dtype=float)).all()
    assert one.check()
    for engine in (one.engine.with_threads(1), pickle.loads(pickle.dumps(one.engine))):
        assert np.isfinite(engine.conditional_cov(one.optimum)[0]).all()


@pytest.mark.parametrize("family", ["student", "gamma", "inverse_gaussian"])
@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_units_of_the_response_do_not_matter(family: str, unit: float) -> None:
    d = grouped(18)
    y = d["eta"] + 0.5 * d["rng"].standard_t(5, len(d["x"]))
    y = y if family == "student" else np.exp(y) + 3
    ends = [
        fit("y ~ x + (1 | g)", {"y": scale * y, "x": d["x"], "g": d["g"]}, family, link="identity") for scale in (1, unit)
    ]
    plain, moved = ends
    assert moved.convergence.converged
    assert moved.loglik + len(y) * np.log(unit) == pytest.approx(plain.loglik, abs=1e-6)
    np.testing.assert_allclose(moved.optimum.beta / unit, plain.optimum.beta, rtol=1e-5)
    np.testing.assert_allclose(moved.optimum.theta / unit, plain.optimum.theta, rtol=1e-5)
    np.testing.assert_allclose(moved.vcov() / unit**2, plain.vcov(), rtol=1e-3, atol=1e-5)
    errors = [np.asarray(one.predict(interval="confidence")["std_error"]) for one in ends]
    np.testing.assert_allclose(errors[1] / unit, errors[0], rtol=1e-3)
    for name in ("estimate", "std_error"):
        np.testing.assert_allclose(moved.ranef()[name] / unit, plain.ranef()[name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("unit", [1e-9, 1e-120])
def test_units_of_a_tweedie_response_do_not_matter(unit: float) -> None:
    d = grouped(19)
    y = tweedie_draw(d["rng"], np.exp(d["eta"]), np.full(240, 1.5), 1.5)
    plain, moved = (
        fit("y ~ x + (1 | g)", {"y": scale * y, "x": d["x"], "g": d["g"]}, "tweedie(power=1.5)") for scale in (1, unit)
    )
    assert moved.convergence.converged
    np.testing.assert_allclose(moved.optimum.beta - [np.log(unit), 0], plain.optimum.beta, atol=1e-4)


def test_a_perfect_fit_is_given_up_early() -> None:
    d = grouped(20)
    y = expit(0.4 + 0.5 * d["x"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        one = Model("y ~ x + (1 | g)", {"y": y, "x": d["x"], "g": d["g"]}, family="beta").fit(threads=1)
    assert any(issubclass(w.category, ConvergenceWarning) for w in caught)
    assert not one.convergence.converged and one.convergence.evaluations < 100


def test_a_summary_without_residuals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pearson residuals of a perfect fit are zero over zero."""
    d = grouped(22)
    one = fit("y ~ x + (1 | g)", {"y": np.exp(d["eta"] + d["rng"].normal(size=240)), "x": d["x"], "g": d["g"]}, "lognormal")
    assert "Scaled residuals" in one.summary()
    monkeypatch.setattr(type(one), "residuals", lambda *_, **__: np.full(240, np.nan))
    assert "Scaled residuals" not in one.summary()


def test_a_search_that_ends_in_a_corner_is_not_the_only_start() -> None:
    """One row of weight 1e9: its threshold meets the next one, where the model without random effects gives up."""
    d = grouped(24)
    y = np.digitize(d["eta"] + d["rng"].logistic(size=240), [-1.0, 0.5, 2.0])
    y[17] = 0
    weights = np.where(np.arange(240) == 17, 1e9, 1.0)
    one = fit("y ~ x + (1 | g)", {"y": y, "x": d["x"], "g": d["g"]}, "ordinal", link="cloglog", weights=weights)
    assert one.convergence.converged and np.isfinite(one.vcov()).all()
    assert one.fitted("link")[17] < one.optimum.residual[0] - 2  # as good as certain


# -- tails --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("m", [1, 12, 400])
@pytest.mark.parametrize(("a", "b"), [("1/100", "2/100"), ("3", "7"), ("1/1000", "5"), ("1000000000", "3000000000")])
def test_tails_of_beta_binomial_counts(m: int, a: str, b: str) -> None:
    """Against exact sums of fractions; the integral as well where the sum would be taken."""
    one, two, term = Fraction(a), Fraction(b), Fraction(1)
    terms = [term]
    for k in range(m):
        term = term * (m - k) * (one + k) / ((k + 1) * (two + m - k - 1))
        terms.append(term)
    total = sum(terms)
    y = np.unique([0, m // 5, m // 3, m - 1])
    below = np.array([float(sum(terms[: i + 1]) / total) for i in y])
    above = np.array([float(sum(terms[i + 1 :]) / total) for i in y])
    ones = np.ones(len(y))
    given = (y.astype(float), m * ones, float(one) * ones, float(two) * ones)
    for found in (beta_binomial_tails(*given), _integrated(*given)):
        for got, wanted in zip(found, (below, above), strict=True):
            np.testing.assert_allclose(got[wanted > 1e-15], wanted[wanted > 1e-15], rtol=1e-10)


def test_tails_of_very_many_trials() -> None:
    """A beta-binomial share is a beta variable then."""
    y, m = np.array([-1.0, 1e8, 3e8, 9e8, 1e9]), np.full(5, 1e9)
    below, above = beta_binomial_tails(y, m, np.full(5, 3.0), np.full(5, 5.0))
    np.testing.assert_allclose(below[1:4], stats.beta(3, 5).cdf(y[1:4] / m[1:4]), rtol=1e-7)
    np.testing.assert_allclose(above[1:4], stats.beta(3, 5).sf(y[1:4] / m[1:4]), rtol=1e-7)
    np.testing.assert_array_equal([below[0], above[0], below[4], above[4]], [0, 1, 1, 0])


@pytest.mark.parametrize(
    ("name", "mean", "size"), [("nbinom2", 1e-300, 1.0), ("nbinom2", 3.0, 1e25), ("poisson", 1e-12, 1.0)]
)
def test_tails_above_a_hurdle(name: str, mean: float, size: float) -> None:
    family, y = Family(name, "log", "hurdle"), np.array([0.0, 1.0, 2.0, 5.0])
    eta, first = np.full(4, np.log(mean)), np.full(4, np.log(size))
    below, above = truncated(family, y, eta, first, *base_tails(family, y, eta, first, None))
    base = stats.poisson(mean)
    wanted = np.clip(base.sf(y) / -np.expm1(-mean), 0, 1)
    np.testing.assert_allclose(above, wanted, rtol=1e-10, atol=1e-290)
    np.testing.assert_allclose(below, 1 - wanted, rtol=1e-10)


def test_a_row_of_a_thousand_million_trials_is_checked() -> None:
    d = grouped(21)
    p = expit(d["eta"])
    data = {"y": d["rng"].binomial(12, d["rng"].beta(4 * p, 4 - 4 * p)).astype(float), "m": np.full(240, 12.0)}
    data["y"][17], data["m"][17] = 333_333_333.0, 1e9
    one = fit("y | trials(m) ~ x + (1 | g)", {**data, "x": d["x"], "g": d["g"]}, "betabinomial")
    residuals = one.residuals("quantile", seed=1)
    assert np.isfinite(residuals).all() and abs(residuals[17]) < 4
    assert "dispersion" in str(one.check())


def test_errors_do_not_cancel_to_nothing() -> None:
    """A slope that is hardly known, far from zero: the variance along a row is all rounding."""
    x, e = np.array([[1.0, 1e6]]), np.array([1e6, -1.0])
    cov = 4e5 * np.outer(e, e) + np.diag([1e-3, 1e-9])
    assert quadratic(x, cov)[0] >= 1e-3
    plain = np.array([[1.0, 0.5], [0.2, -1.0]])
    np.testing.assert_array_equal(quadratic(plain, np.eye(2)), (plain**2).sum(axis=1))


# -- draws --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "mean", "size"),
    [
        ("poisson", 1e-9, 1.0), ("poisson", 0.3, 1.0), ("poisson", 4.0, 1.0), ("nbinom2", 0.2, 0.05),
        ("nbinom2", 3.0, 0.7), ("nbinom2", 2.0, 1e20), ("nbinom1", 0.3, 2.0), ("nbinom1", 6.0, 0.5),
    ],
)  # fmt: skip
def test_draws_above_a_hurdle(name: str, mean: float, size: float) -> None:
    n, family = 50_000, Family(name, "log", "hurdle")
    ones = np.ones(n)
    y = family.draw(np.random.default_rng(5), np.log(mean) * ones, np.log(size) * ones, -700 * ones, None)
    base = {
        "poisson": stats.poisson(mean), "nbinom1": stats.nbinom(mean / size, 1 / (1 + size)),
        "nbinom2": stats.nbinom(size, size / (size + mean)) if size < 1e10 else stats.poisson(mean),
    }[name]  # fmt: skip
    more = float(base.sf(0))
    top = max(1, int(base.isf(more * 1e-3)))
    k = np.arange(1, top + 1)
    expected = n * np.r_[base.pmf(k), base.sf(top)] / more
    counts = np.r_[[(y == i).sum() for i in k], (y > top).sum()]
    kept = expected > 5
    assert counts.sum() == n and y.min() == 1
    square = float(((counts - expected)[kept] ** 2 / expected[kept]).sum())
    assert stats.chi2.sf(square, max(int(kept.sum()) - 1, 1)) > 1e-3


def test_draws_of_huge_counts_above_a_hurdle() -> None:
    """At once, by their distribution function."""
    n, mean, size = 50_000, 1e9, 0.05
    ones = np.ones(n)
    y = Family("nbinom2", "log", "hurdle").draw(
        np.random.default_rng(6), np.log(mean) * ones, np.log(size) * ones, 0 * ones, None
    )
    base = stats.nbinom(size, size / (size + mean))
    assert np.mean(y == 0) == pytest.approx(0.5, abs=0.01)
    for share in (0.25, 0.5, 0.75, 0.95):
        at = base.isf(base.sf(0) * (1 - share))
        assert np.mean(y[y > 0] <= at) == pytest.approx(share, abs=0.015)
