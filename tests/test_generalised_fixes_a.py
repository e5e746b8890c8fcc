"""Densities, draws and residuals where means round to one or lie near zero; deviance residuals of further families."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from generalised_models import fitted
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import minimize_scalar
from scipy.special import gammaln, logsumexp, ndtr
from test_generalised import fit, grouped

from multilevel import Model, OptionError, _core
from multilevel.compound_poisson import draw as tweedie_draw
from multilevel.families import PROBABILITY, Family
from multilevel.generalised_intervals import lower_tail
from multilevel.generalised_residuals import base_tails, beta_binomial_tails

Array = NDArray[np.float64]
SHARES = [(name, link) for name in ("binomial", "beta", "betabinomial") for link in PROBABILITY[:3]]
STEEP = {"logit": 12.0, "probit": 1.5, "cloglog": 1.0}  # so that many means round to one


def densities(family: Family, y: Any, eta: Any, first: float = 0.0, trials: Any = None) -> Array:
    """(n, 4) log densities and their derivatives by eta."""
    y, eta = np.asarray(y, dtype=float), np.asarray(eta, dtype=float)
    ones = np.ones(len(y))
    return np.asarray(_core.log_densities(family.kernel, y, trials, eta, first * ones, 0 * ones)[0])


# -- means that round to one --------------------------------------------------------------------------------------


@pytest.mark.parametrize("link", PROBABILITY)
def test_failures_keep_their_digits(link: str) -> None:
    family, eta = Family("binomial", link), np.linspace(-3, 3, 25)
    np.testing.assert_allclose(family.failure(eta), 1 - family.mean(eta), rtol=1e-12, atol=1e-15)
    far = {
        "logit": (50.0, np.exp(-50.0)), "probit": (12.0, ndtr(-12.0)), "cloglog": (5.0, np.exp(-np.exp(5.0))),
        "cauchit": (1e20, 1 / (np.pi * 1e20)),
    }[link]  # fmt: skip
    assert family.failure(np.array([far[0]]))[0] == pytest.approx(far[1], rel=1e-12, abs=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ends = np.array([-1e5, 1e5])
        np.testing.assert_allclose(family.mean(ends), [0, 1], atol=1e-5)
        np.testing.assert_allclose(family.failure(ends), [1, 0], atol=1e-5)
        assert (family.mean_slope(ends) < 1e-8).all()


def test_tails_at_parameters_of_zero() -> None:
    """Point masses at no and at all successes."""
    y, m = np.array([-1.0, 0.0, 5.0, 11.0, 12.0]), np.full(5, 12.0)
    zero, two = np.zeros(5), np.full(5, 2.0)
    for trials, count in ((m, y), (100 * m, np.where(y < 0, y, 100 * y))):
        np.testing.assert_array_equal(beta_binomial_tails(count, trials, two, zero), [[0, 0, 0, 0, 1], [1, 1, 1, 1, 0]])
        np.testing.assert_array_equal(beta_binomial_tails(count, trials, zero, two), [[0, 1, 1, 1, 1], [1, 0, 0, 0, 0]])
    beta, share = Family("beta", "cloglog"), np.array([0.0, 0.5, 1.0])
    below, above = base_tails(beta, share, np.full(3, 8.0), np.zeros(3), None)
    np.testing.assert_array_equal([below, above], [[0, 0, 1], [1, 1, 0]])


@pytest.mark.parametrize("link", PROBABILITY[:3])
def test_tails_are_turned_round_with_the_response(link: str) -> None:
    """P(Y <= y) where failure is next to impossible is P(Y > y) where success is."""
    y, m = np.array([0.0, 5.0, 11.0]), np.full(3, 12.0)
    eta = {"logit": 45.0, "probit": 9.0, "cloglog": 3.8}[link]
    p = Family("binomial", link).failure(np.array([eta]))[0]
    assert 1 - p == 1
    at, first = np.full(3, eta), np.full(3, 0.7)
    below, _ = base_tails(Family("binomial", link), y, at, first, m)
    np.testing.assert_allclose(below, stats.binom(m, p).sf(m - y - 1), rtol=1e-9)
    np.testing.assert_allclose(below, lower_tail(Family("binomial", link), y, at, first, m), rtol=1e-9)
    below, _ = base_tails(Family("betabinomial", link), y, at, first, m)
    ratio = below / p  # to first order, chances of m - y or more failures
    k = np.arange(13)
    size = np.exp(0.7)
    pmf = np.exp(gammaln(13) - gammaln(k[1:] + 1) - gammaln(13 - k[1:]) + gammaln(k[1:]) + gammaln(size + 12 - k[1:])
                 - gammaln(size + 12) + 0.7)  # fmt: skip
    np.testing.assert_allclose(ratio, [pmf[k[1:] >= 12 - one].sum() for one in y], rtol=1e-9)


@pytest.mark.parametrize(("name", "link"), SHARES)
def test_models_of_means_that_round_to_one(name: str, link: str) -> None:
    """Residuals, intervals against the model's own responses, checks and bootstrap, without a warning of NumPy's."""
    d, m = grouped(31), np.full(240, 12.0)
    eta = STEEP[link] * (1.0 + 1.2 * d["x"] + d["eta"])
    family = Family(name, link)
    trials = None if name == "beta" else m
    y = family.draw(np.random.default_rng(4), eta, np.full(240, np.log(6.0)), np.zeros(240), trials)
    assert np.isfinite(y).all() and (name != "beta" or ((y > 0) & (y < 1)).all())
    formula = "y ~ x + (1 | g)" if name == "beta" else "y | trials(m) ~ x + (1 | g)"
    one = fit(formula, {"y": y, "m": m, "x": d["x"], "g": d["g"]}, name, link=link)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        for kind in ("quantile", "deviance", "pearson"):
            assert np.isfinite(one.residuals(kind, seed=1)).all()
        assert 0.7 < one.residuals("quantile", seed=1).std() < 1.2
        assert one.check()
        limits = one.predict(interval="prediction")
        low, high = (
            np.asarray(limits[end])[:, None] - 1e-9 * sign for end, sign in (("conf_low", 1), ("conf_high", -1))
        )
        drawn = one.simulate(40, groups=["g"], seed=2)
        drawn = np.column_stack([np.asarray(drawn[f"sim_{i + 1}"]) for i in range(40)]) / (1 if name == "beta" else 12)
        assert np.mean((drawn >= low) & (drawn <= high)) >= 0.95
        far = {"x": d["x"] + 300.0, "g": d["g"], "m": m}
        assert np.isfinite(np.asarray(one.predict(far, interval="confidence"), dtype=float)).all()
        assert np.isfinite(np.asarray(one.predict(far, marginal=True, interval="confidence"), dtype=float)).all()
    assert not one.bootstrap(4, seed=3, threads=1).failures


@pytest.mark.parametrize("link", PROBABILITY[:3])
def test_densities_of_parameters_too_small_for_a_number(link: str) -> None:
    """lgamma(b) is -log(b) there, and log(b) is known: densities against those of the other end, and differences."""
    eta, first = {"logit": 800.0, "probit": 40.0, "cloglog": 7.0}[link], 0.7
    log_q = {"logit": -eta, "probit": stats.norm.logcdf(-eta), "cloglog": -np.exp(min(eta, 7.0))}[link]
    size, y = np.exp(first), np.array([0.3, 0.999])
    found = densities(Family("beta", link), y, np.full(2, eta), first)
    np.testing.assert_allclose(found[:, 0], log_q + first + (size - 1) * np.log(y) - np.log1p(-y), rtol=1e-12)
    k, m = np.array([0.0, 3.0, 12.0]), np.full(3, 12.0)
    counts = densities(Family("betabinomial", link), k, np.full(3, eta), first, m)
    log_choose = gammaln(13) - gammaln(k + 1) - gammaln(13 - k)
    ratio = gammaln(size + k) + gammaln(np.maximum(12 - k, 1)) - gammaln(size + 12)
    np.testing.assert_allclose(
        counts[:, 0], np.where(k < 12, log_choose + ratio + log_q + first, 0.0), rtol=1e-12, atol=1e-9
    )
    h = 1e-5
    for family, at, trials in ((Family("beta", link), y, None), (Family("betabinomial", link), k, m)):
        here, up, down = (densities(family, at, np.full(len(at), eta + s * h), first, trials) for s in (0, 1, -1))
        np.testing.assert_allclose(here[:, 1:], (up - down)[:, :3] / (2 * h), rtol=1e-5, atol=1e-4)


# -- the square root link -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["poisson", "nbinom2"])
def test_the_mean_is_the_square_on_either_side_of_zero(name: str) -> None:
    family, first = Family(name, "sqrt"), 0.4
    size = np.exp(first)
    eta = np.array([-150.0, -3.0, -0.2, -1e-9, 1e-9, 0.2, 3.0, 150.0])
    mu = eta**2

    def log_pmf(y: float) -> Array:
        if name == "poisson":
            return np.asarray(stats.poisson(mu).logpmf(y))
        choose = gammaln(y + size) - gammaln(size) - gammaln(y + 1)
        return np.asarray(choose + y * np.log(mu / (mu + size)) - size * np.log1p(mu / size))

    for y in (0.0, 1.0, 7.0, 20_000.0):
        found = densities(family, np.full(8, y), eta, first)
        np.testing.assert_allclose(found[:, 0], log_pmf(y), rtol=1e-8, atol=1e-15)
        np.testing.assert_allclose(found, found[::-1] * [1, -1, 1, -1], rtol=1e-12)  # even
        kept = np.abs(eta) > 0.1
        up, down = (densities(family, np.full(8, y), eta + s * 1e-6, first) for s in (1, -1))
        np.testing.assert_allclose(found[kept, 1:], (up - down)[kept, :3] / 2e-6, rtol=1e-5, atol=1e-4)
    at_zero = densities(family, [0.0], [0.0], first)[0]
    np.testing.assert_array_equal(at_zero, [0, 0, -2, 0])


def test_square_roots_of_means_near_zero() -> None:
    """Rows that hardly count anything: their predictors lie on both sides of zero. Against the integral on a fine grid."""
    rng = np.random.default_rng(8)
    g, off = np.repeat(np.arange(15), 20), np.tile(np.arange(20) < 4, 15).astype(float)
    y = rng.poisson((3 * (1 - off) + 0.4 * rng.normal(size=15)[g]) ** 2).astype(float)
    data = {"y": y, "off": off, "g": g}
    for name, error in (("poisson", 1e-7), ("nbinom2", 0.02)):  # a polynomial times a normal density is exact
        if name == "nbinom2":
            data["y"] = y = rng.poisson(y * rng.gamma(2, 0.5, len(y))).astype(float)
        one: Any = Model("y ~ off + (1 | g)", data, family=name, link="sqrt").fit(quadrature=25, threads=1)
        assert one.convergence.converged and (one.fitted("link") < 0).any()
        sd = float(np.sqrt(one.random_cov()[0][0, 0]))
        b = np.linspace(-8 * sd, 8 * sd, 4001)
        mu = ((one.design.X @ one.optimum.beta)[:, None] + b) ** 2
        size = 0.0 if name == "poisson" else np.exp(one._parameters[0][0])
        base = stats.poisson(mu) if name == "poisson" else stats.nbinom(size, size / (size + mu))
        rows = base.logpmf(y[:, None])
        total = sum(logsumexp(rows[g == k].sum(axis=0) + stats.norm(0, sd).logpdf(b)) for k in range(15))
        assert one.loglik == pytest.approx(total + 15 * np.log(b[1] - b[0]), abs=error)


# -- deviance residuals -------------------------------------------------------------------------------------------


def response(name: str, d: dict[str, Any]) -> tuple[str, str | None, Array]:
    """Family, link and a response of it."""
    rng, n = np.random.default_rng(12), len(d["x"])
    base = name.partition(" ")[0]
    link = name.partition(" ")[2] or None
    if base == "gaussian":
        eta = d["eta"] if link == "log" else 2 + 0.2 * d["eta"]
        return base, link, Family(base, str(link)).mean(eta) + 0.1 * rng.normal(size=n)
    if base == "lognormal":
        return base, link, np.exp(d["eta"] + rng.normal(size=n))
    if base == "tweedie":
        return "tweedie(power=1.5)", link, tweedie_draw(rng, np.exp(d["eta"]), np.full(n, 1.5), 1.5)
    family = Family(base, link or {"nbinom1": "log"}.get(base, "logit"))
    m = np.full(n, 12.0) if base == "betabinomial" else None
    return base, link, family.draw(rng, d["eta"], np.full(n, 0.7), np.zeros(n), m)


@pytest.mark.parametrize(
    "name",
    ["gaussian log", "gaussian inverse", "lognormal", "tweedie", "beta", "beta cloglog", "betabinomial", "nbinom1"],
)
def test_deviance_residuals(name: str) -> None:
    """Twice the gain in log density at the best mean for the row, sought by another search; times the dispersion, where that
    is a factor of it."""
    d = grouped(33)
    family, link, y = response(name, d)
    counts = family == "betabinomial"
    data, weights = {"y": y, "m": np.full(240, 12.0), "x": d["x"], "g": d["g"]}, np.tile([1.0, 2.0], 120)
    formula = "y | trials(m) ~ x + (1 | g)" if counts else "y ~ x + (1 | g)"
    one = fit(formula, data, family, link=link, weights=weights)
    found = one.residuals("deviance")
    eta, first = one._eta[1], one._parameters[0]
    scale = {"gaussian": 2.0, "lognormal": 2.0, "tweedie": 1.0}.get(family.partition("(")[0])
    factor = 1.0 if scale is None else float(np.exp(scale * first[0]))
    for i in np.r_[0:240:12, np.argmin(y), np.argmax(y)]:

        def density(at: float, i: int = int(i)) -> float:
            trials = np.full(1, 12.0) if counts else None
            return float(densities(one.family, y[i : i + 1], [at], first[i], trials)[0, 0])

        grid = np.linspace(-30, 30, 2001) if link != "inverse" else np.linspace(0.05, 5, 2001)
        values = [density(at) for at in grid]
        k = int(np.argmax(values))
        bounds = grid[max(k - 1, 0)], grid[min(k + 1, 2000)]
        best = minimize_scalar(lambda at: -density(at), bounds=bounds, method="bounded", options={"xatol": 1e-11})
        top = max(-best.fun, max(values))
        assert found[i] ** 2 == pytest.approx(weights[i] * factor * 2 * (top - density(eta[i])), rel=1e-5, abs=1e-8)
        if abs(found[i]) > 1e-3:
            at_best, at_fit = one.family.mean(np.array([best.x, eta[i]]))
            assert np.sign(found[i]) == np.sign(at_best - at_fit)


def test_there_is_no_deviance_of_some() -> None:
    d = grouped(34)
    heavy = fit("y ~ x + (1 | g)", {"y": d["eta"] + d["rng"].standard_t(4, 240), "x": d["x"], "g": d["g"]}, "student")
    named = {"zero-inflated": "extra zeros", "hurdle": "extra zeros", "ordinal": "no mean"}
    for one, why in [*((fitted(name), why) for name, why in named.items()), (heavy, "Student's t")]:
        with pytest.raises(OptionError, match=f"{why}.*use 'quantile'"):
            one.residuals("deviance")
