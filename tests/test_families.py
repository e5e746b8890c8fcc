"""Log densities of the core: values against SciPy, every derivative against differences, over all families and links."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.special as sp
import scipy.stats as st
from numpy.typing import NDArray

import multilevel as ml
from multilevel import OptionError, _core
from multilevel.compound_poisson import tails
from multilevel.families import COUNTS, FAMILIES, TRIALS, Family, family_of, shape_slope, shape_value

Array = NDArray[np.float64]
ZEROS = ("none", "inflated", "hurdle")
FIXED = {"student": {"df": 5.0}, "tweedie": {"power": 1.4}}
FULL: list[Family] = [
    *(Family(name, link) for name, links in FAMILIES.items() for link in links),
    *(Family(name, link, zero) for name in COUNTS for link in FAMILIES[name] for zero in ZEROS[1:]),
    *(Family(name, FAMILIES[name][0], "none", **fixed) for name, fixed in FIXED.items()),
]
POSITIVE = ("poisson", "nbinom2", "nbinom1", "gamma", "inverse_gaussian", "tweedie")  # of mean
LEAST_ETA = ("identity", "sqrt", "inverse", "inverse_square")  # links whose linear predictor has to be positive there
SIX = {1: 3 / 4, 2: -3 / 20, 3: 1 / 60}  # weights of differences of the sixth order


def label(family: Family) -> str:
    """Name of a case."""
    return f"{family.name}-{family.link}-{family.zero}{'-fixed' * (family.df is not None or family.power is not None)}"


def slope(function: Callable[[float], Any], h: float = 2e-3) -> Any:
    """Derivative at zero by differences of the sixth order."""
    return sum(w * (function(k * h) - function(-k * h)) for k, w in SIX.items()) / h


def draws(family: Family, trials: int, n: int = 300) -> tuple[Array, Array, Array, Array]:
    """y, eta and two parameters, of moderate size; both parameters differ between rows, as with a dispersion formula."""
    rng = np.random.default_rng(len(label(family)) + trials)
    eta = np.clip(rng.normal(size=n), -2.2, 1.2 if family.link == "cloglog" else 2.2)
    if family.link in LEAST_ETA and family.name in POSITIVE:
        eta = np.abs(eta) + 0.3
    if family.link == "inverse":
        eta = np.where(eta < 0, eta - 0.3, eta + 0.3)
    first, second = rng.normal(size=n), rng.normal(size=n)
    if family.name == "ordinal":
        first, second = np.maximum(first, second) + 0.05, np.minimum(first, second)
        first, second = first - (first > 1.5), second - (first > 1.5)
    y = {
        "binomial": lambda: rng.integers(0, trials + 1, n), "betabinomial": lambda: rng.integers(0, trials + 1, n),
        "ordinal": lambda: rng.integers(0, trials, n), "beta": lambda: rng.uniform(0.02, 0.98, n),
        "poisson": lambda: rng.poisson(2, n), "nbinom2": lambda: rng.poisson(3, n), "nbinom1": lambda: rng.poisson(3, n),
        "gamma": lambda: rng.gamma(2, size=n), "inverse_gaussian": lambda: rng.gamma(2, size=n) + 0.05,
        "lognormal": lambda: rng.gamma(2, size=n) + 0.05, "tweedie": lambda: rng.gamma(2, size=n) * (rng.random(n) < 0.8),
    }.get(family.name, lambda: rng.normal(size=n))()  # fmt: skip
    return np.asarray(y, dtype=float), eta, first, second


def densities(family: Family, y: Array, trials: float, eta: Array, first: Array, second: Array) -> Any:
    return _core.log_densities(family.kernel, y, np.full(len(y), float(trials)), eta, first, second)


def truth(family: Family, y: Array, trials: float, eta: Array, first: Array, second: Array) -> Array:
    """SciPy's log density, without extra zeros."""
    mu, size = family.mean(eta), np.exp(first)
    df = 1 + np.exp(second) if family.df is None else family.df
    table: dict[str, Callable[[], Any]] = {
        "binomial": lambda: st.binom.logpmf(y, trials, mu),
        "poisson": lambda: st.poisson.logpmf(y, mu),
        "nbinom2": lambda: st.nbinom.logpmf(y, size, size / (size + mu)),
        "nbinom1": lambda: st.nbinom.logpmf(y, mu / size, 1 / (1 + size)),
        "gamma": lambda: st.gamma.logpdf(y, size, scale=mu / size),
        "inverse_gaussian": lambda: st.invgauss.logpdf(y, mu / size, scale=size),
        "beta": lambda: st.beta.logpdf(y, mu * size, (1 - mu) * size),
        "betabinomial": lambda: st.betabinom.logpmf(y, trials, mu * size, (1 - mu) * size),
        "student": lambda: st.t.logpdf(y, df, mu, size),
        "gaussian": lambda: st.norm.logpdf(y, mu, size),
        "lognormal": lambda: st.lognorm.logpdf(y, size, scale=np.exp(mu)),
    }
    if family.name != "ordinal":
        return np.asarray(table[family.name]())
    link = Family("binomial", family.link)
    upper = np.where(y < trials - 1, link.mean(first - eta), 1.0)
    lower = np.where(y > 0, link.mean(second - eta), 0.0)
    return np.asarray(np.log(upper - lower))


def sizes(family: Family) -> tuple[int, ...]:
    """Trials, or categories of an ordinal response."""
    return (1, 7) if family.name in TRIALS else (5,) if family.name == "ordinal" else (1,)


CASES = [(family, trials) for family in FULL for trials in sizes(family)]
NAMES = [f"{label(family)}-{trials}" for family, trials in CASES]


@pytest.mark.parametrize(("family", "trials"), [c for c in CASES if c[0].name != "tweedie"],
                         ids=[n for n in NAMES if not n.startswith("tweedie")])  # fmt: skip
def test_density_is_scipys(family: Family, trials: int) -> None:
    y, eta, first, second = draws(family, trials)
    ours = densities(family, y, trials, eta, first, second)[0][:, 0]
    wanted = truth(family, y, trials, eta, first, second)
    if family.zero != "none":
        share, base = sp.expit(second), np.exp(wanted)
        none = np.exp(truth(family, np.zeros(len(y)), trials, eta, first, second))
        with np.errstate(divide="ignore"):
            mixed = np.log(np.where(y == 0, share, 0.0) + (1 - share) * base)
            wanted = mixed if family.zero == "inflated" else np.log(np.where(y == 0, share, (1 - share) * base / (1 - none)))
    np.testing.assert_allclose(ours, wanted, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("family", "trials"), CASES, ids=NAMES)
def test_derivatives_are_differences(family: Family, trials: int) -> None:
    """Three by eta; by each further parameter of the value and of its first two derivatives by eta."""
    y, eta, first, second = draws(family, trials)

    def moved(index: int, derivatives: int) -> Callable[[float], Array]:
        def at(t: float) -> Array:
            where = [eta, first, second]
            where[index] = where[index] + t
            return np.asarray(densities(family, y, trials, *where)[0][:, :derivatives])

        return at

    def close(found: Array, wanted: Array) -> None:
        scale = 1 + np.abs(wanted).max(axis=0)  # differences lose what the largest rows do
        np.testing.assert_allclose(found / scale, wanted / scale, atol=3e-9)
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-7)

    value, by_first, by_second = densities(family, y, trials, eta, first, second)
    close(value[:, 1:], slope(moved(0, 3)))
    if family.parameters > 0:
        close(by_first, slope(moved(1, 3)))
    if family.parameters > 1:
        close(by_second, slope(moved(2, 3)))


# -- far out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eta", [-400.0, -40.0, -8.0, -5.001, -4.999, 8.0, 40.0])
def test_tails_of_the_normal_distribution(eta: float) -> None:
    one = np.ones(1)
    found = densities(Family("binomial", "probit"), one, 1, one * eta, one, one)[0][0]
    wanted = st.norm.logcdf(eta)
    np.testing.assert_allclose(found[0], wanted, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(found[1], np.exp(st.norm.logpdf(eta) - wanted), rtol=1e-9, atol=1e-15)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("eta", [-700.0, -30.0, 30.0, 700.0])
@pytest.mark.parametrize("link", ["logit", "cauchit"])
def test_far_out_nothing_overflows(link: str, eta: float) -> None:
    one = np.ones(1)
    for y in (0.0, 1.0):
        assert np.isfinite(densities(Family("binomial", link), one * y, 1, one * eta, one, one)[0]).all()


FAR = np.array([(y, m, s) for y in (0, 1, 31, 400, 1e7) for m in (1e-10, 1.0, 300.0, 1e7) for s in (1e-8, 1.0, 1e12, 1e18)])


@pytest.mark.parametrize("zero", ZEROS)
@pytest.mark.parametrize("name", COUNTS)
def test_counts_far_out_have_finite_derivatives(name: str, zero: str) -> None:
    y, mu, size = FAR.T.copy()
    some = (y > 0) | (zero != "hurdle")
    for second in (-30.0, 0.0, 30.0):
        found = densities(Family(name, "log", zero), y[some], 1, np.log(mu[some]), np.log(size[some]), 0 * y[some] + second)
        assert all(np.isfinite(one).all() for one in found)


HUGE = [  # family, response, trials, eta, first parameter, log density in sixty digits
    ("poisson", 1e+07, 1, 16.1181, 0, -8.9780809379718715),
    ("poisson", 20000, 1, 9.9, 0, -5.9921754289897787),
    ("poisson", 1e+12, 1, 27.631, 0, -237.67409911755046),
    ("nbinom2", 1e+07, 1, 16.0, 0.5, -16.848974623191681),
    ("nbinom2", 1e+07, 1, 16.118, 30.0, -9.023730862734454),
    ("nbinom2", 1e+12, 1, 20.0, -3.0, -132.99250543196165),
    ("nbinom2", 20000, 1, 9.9, -20.0, -29.903487594630688),
    ("nbinom1", 1e+07, 1, 16.118, 1.0, -9.6469543796366697),
    ("nbinom1", 1e+12, 1, 27.631, 9.0, -19.262030699580818),
    ("nbinom1", 1e+09, 1, 10.0, 12.0, -6165.6722142009264),
    ("binomial", 3e+08, 1e+09, -0.8473, 0, -10.500728261728368),
    ("binomial", 20, 1e+09, -17.7, 0, -2.4286219981074274),
]


@pytest.mark.parametrize(("name", "y", "trials", "eta", "first", "wanted"), HUGE)
def test_huge_counts_keep_their_digits(name: str, y: float, trials: float, eta: float, first: float, wanted: float) -> None:
    one = np.ones(1)
    found = densities(Family(name, FAMILIES[name][0]), y * one, trials, eta * one, first * one, one)[0][0, 0]
    assert found == pytest.approx(wanted, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", COUNTS)
def test_derivatives_of_huge_counts(name: str) -> None:
    family, y, none = Family(name, "log"), np.array([1.1e4, 3e5]), np.zeros(2)
    for first in (-2.0, 1.0):
        found = densities(family, y, 1, np.log(y) + 0.1, none + first, none)

        def by_eta(t: float, family: Family = family, first: float = first) -> Array:
            return np.asarray(densities(family, y, 1, np.log(y) + 0.1 + t, none + first, none)[0][:, :3])

        def by_first(t: float, family: Family = family, first: float = first) -> Array:
            return np.asarray(densities(family, y, 1, np.log(y) + 0.1, none + first + t, none)[0][:, :3])

        np.testing.assert_allclose(found[0][:, 1:], slope(by_eta), rtol=1e-8, atol=1e-6)
        np.testing.assert_allclose(found[1], slope(by_first), rtol=1e-8, atol=1e-6)


@pytest.mark.parametrize("y", [2.0, 31.0, 400.0, 1e7])
def test_a_negative_binomial_of_huge_size_is_poisson(y: float) -> None:
    """Also where the count is too large for a product of its factors, and so are derivatives by the size."""
    one, none = np.array([y]), np.zeros(1)
    for eta in np.log(y) + np.array([-0.1, 0.0, 0.1]):
        wanted = densities(Family("poisson", "log"), one, 1, none + eta, none, none)[0][0]
        for name, large in (("nbinom2", 60.0), ("nbinom1", -60.0)):
            found = densities(Family(name, "log"), one, 1, none + eta, none + large, none)
            np.testing.assert_allclose(found[0][0], wanted, rtol=1e-9, atol=1e-9 + 1e-14 * y)
            np.testing.assert_allclose(found[1], 0.0, atol=1e-8 + 1e-13 * y)


def test_a_gamma_variable_of_huge_shape_keeps_its_digits() -> None:
    """Log density of the normal distribution it tends to, up to the order of 1 / sqrt(shape)."""
    z = np.linspace(-3, 3, 7)
    for log_shape in (20.0, 40.0):
        y = np.exp(z * np.exp(-log_shape / 2))
        none = np.zeros(7)
        found = densities(Family("gamma", "log"), y, 1, none, none + log_shape, none)[0][:, 0]
        wanted = -(z**2) / 2 + log_shape / 2 - np.log(2 * np.pi) / 2
        np.testing.assert_allclose(found, wanted, atol=30 * np.exp(-log_shape / 2))


def test_a_beta_binomial_of_huge_precision_is_binomial() -> None:
    k, none = np.array([0.0, 1.0, 35.0, 60.0, 100.0]), np.zeros(5)
    found = densities(Family("betabinomial", "logit"), k, 100, none + 0.2, none + np.log(1e13), none)
    wanted = densities(Family("binomial", "logit"), k, 100, none + 0.2, none, none)[0]
    np.testing.assert_allclose(found[0], wanted, rtol=1e-9, atol=1e-9)


# -- Student's t -----------------------------------------------------------------------------------------------


def test_student_tends_to_the_normal_distribution() -> None:
    y, none = np.array([-3.0, 0.1, 2.0, 30.0]), np.zeros(4)
    found = densities(Family("student", "identity"), y, 1, none, none, none + np.log(1e12))
    wanted = densities(Family("gaussian", "identity"), y, 1, none, none, none)
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(found[2][:, 0], 0.0, atol=1e-6)


def test_slope_of_student_by_its_degrees_of_freedom_keeps_its_digits() -> None:
    """By the expansion in 1/df: (z^4 - 2 z^2 - 1) / (4 df), less by the derivative of log(df - 1)."""
    z, none = np.array([0.0, 0.5, 1.5, 3.0]), np.zeros(4)
    for coefficient in (12.0, 18.0):
        found = densities(Family("student", "identity"), z, 1, none, none, none + coefficient)[2][:, 0]
        wanted = -(z**4 - 2 * z**2 - 1) / 4 * np.exp(-coefficient)
        np.testing.assert_allclose(found, wanted, rtol=3e-4, atol=1e-15)


# -- Tweedie ---------------------------------------------------------------------------------------------------

TWEEDIE = json.loads((Path(__file__).parent / "golden_glmm" / "tweedie_densities.json").read_text())


def tweedie(y: Array, mu: Array, phi: Array, power: float) -> Array:
    none = np.zeros(len(y))
    return np.asarray(densities(Family("tweedie", "log", power=power), y, 1, np.log(mu), np.log(phi), none)[0][:, 0])


def test_tweedie_density_is_the_series_in_many_digits() -> None:
    """Dunn & Smyth's series summed in sixty digits; up to some 300,000 terms, powers from 1.01 to 1.99."""
    columns = {name: np.array(TWEEDIE[name]) for name in ("y", "mu", "phi", "power", "log_density")}
    for power in np.unique(columns["power"]):
        rows = columns["power"] == power
        y, mu, phi, _, wanted = (columns[name][rows] for name in columns)
        np.testing.assert_allclose(tweedie(y, mu, phi, float(power)), wanted, rtol=1e-12, atol=1e-12)
    assert len(columns["y"]) > 200


@pytest.mark.parametrize("power", [1.01, 1.1, 1.5, 1.9, 1.99])
@pytest.mark.parametrize("phi", [0.05, 1.0, 20.0])
def test_tweedie_sums_to_one(power: float, phi: float) -> None:
    """Distribution function near zero plus the integral; Gauss-Legendre on a fine grid in log y."""
    mu, (nodes, weights) = 2.0, np.polynomial.legendre.leggauss(20)
    edges = np.linspace(np.log(1e-8), np.log(mu * (1 + 60 * np.sqrt(phi) + 60 * phi)), 1200)
    x = (edges[:-1, None] + edges[1:, None]) / 2 + np.diff(edges)[:, None] / 2 * nodes
    y = np.exp(x).ravel()
    density = np.exp(tweedie(y, np.full(len(y), mu), np.full(len(y), phi), power)) * y
    total = float((density.reshape(x.shape) @ weights) @ np.diff(edges) / 2)
    below = float(tails(np.full(1, 1e-8), np.full(1, mu), np.full(1, phi), power)[0][0])
    assert below + total == pytest.approx(1.0, abs=1e-9)


def test_tweedie_with_a_billion_terms_is_the_saddlepoint_density() -> None:
    """And takes no longer: a smooth bell is summed on a grid."""
    y, power = np.array([2.7, 3.0, 3.3]), 1.5
    for phi in (1e-9, 1e-14):
        r = 0.5 * np.sqrt(phi)  # log(mu / y)
        found = tweedie(y, y * np.exp(r), np.full(3, phi), power)
        half_deviance = 8 * np.sqrt(y) * np.sinh(r / 4) ** 2
        wanted = -half_deviance / phi - 0.5 * np.log(2 * np.pi * phi * y**power)
        np.testing.assert_allclose(found, wanted, rtol=1e-8)


def test_tweedie_derivatives_hold_at_the_ends_of_the_power() -> None:
    y, none = np.array([0.0, 0.3, 1.0, 4.0, 30.0]), np.zeros(5)
    family = Family("tweedie", "log")
    for second in (-6.0, -3.0, 3.0, 6.0):
        for first in (-4.0, 1.0):
            found = densities(family, y, 1, none + 0.4, none + first, none + second)
            for index, wanted in ((1, found[1]), (2, found[2])):

                def at(t: float, index: int = index, first: float = first, second: float = second) -> Array:
                    where = [none + first + t * (index == 1), none + second + t * (index == 2)]
                    return np.asarray(densities(family, y, 1, none + 0.4, *where)[0][:, :3])

                scale = 1 + np.abs(found[0][:, :3])
                np.testing.assert_allclose(wanted / scale, slope(at, 3e-4) / scale, rtol=1e-7, atol=2e-9)


@pytest.mark.parametrize(("power", "phi", "mu"), [(1.05, 0.5, 2.0), (1.5, 1.0, 1.0), (1.9, 0.4, 5.0), (1.3, 1e-4, 3.0)])
def test_draws_and_tails_of_tweedie(power: float, phi: float, mu: float) -> None:
    from scipy.integrate import quad

    n = 40_000
    family = Family("tweedie", "log", power=power)
    eta, first = np.full(n, np.log(mu)), np.full(n, np.log(phi))
    y = family.draw(np.random.default_rng(3), eta, first, np.zeros(n), None)
    sd = np.sqrt(family.variance(eta, first)[0])
    assert abs(y.mean() - mu) < 4 * sd / np.sqrt(n)
    fourth = np.mean((y - mu) ** 4)
    assert abs(np.mean((y - mu) ** 2) - sd**2) < 4 * np.sqrt(fourth / n)
    at = np.array([0.0, mu - 0.4 * sd if mu > 0.4 * sd else 0.1 * mu, mu, mu + sd])
    below, above = tails(at, np.full(4, mu), np.full(4, phi), power)
    np.testing.assert_allclose(below + above, 1.0, atol=1e-13)
    share = np.array([np.mean(y <= limit) for limit in at])
    assert (np.abs(share - below) < 4.5 * np.sqrt(below * above / n) + 1e-12).all()
    zero = float(np.exp(tweedie(np.zeros(1), np.full(1, mu), np.full(1, phi), power)[0]))
    assert below[0] == pytest.approx(zero, rel=1e-12, abs=1e-300)

    def density(x: float) -> float:
        return float(np.exp(tweedie(np.array([x]), np.full(1, mu), np.full(1, phi), power)[0]))

    area = quad(density, at[1], at[3], limit=500, epsabs=1e-12)[0]
    assert area == pytest.approx(below[3] - below[1], abs=1e-10)
    np.testing.assert_array_equal(tails(np.array([-1.0]), np.ones(1), np.ones(1), 1.5), [[0.0], [1.0]])


# -- what a user says ------------------------------------------------------------------------------------------


def test_shapes_are_fixed_or_estimated() -> None:
    assert family_of("student").shape == "df"
    assert family_of("t") == ml.student() == family_of(ml.student())
    assert family_of("tweedie").shape == "power"
    for given in (ml.student(4), ml.student(df=4), "student(4)", "student(df = 4)", "t(df=4.0)"):
        assert family_of(given) == Family("student", "identity", df=4.0)
    assert family_of("tweedie(power=1.5)") == ml.tweedie(1.5)
    assert ml.tweedie(1.5).shape is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ml.student(1), "df must be a finite number greater than 1"),
        (lambda: ml.student(df=np.inf), "greater than 1.*inf"),
        (lambda: ml.student(df="4"), "got '4'"),
        (lambda: ml.tweedie(2), r"power must be between 1.01 and 1.99 \(1 is poisson, 2 is gamma\); got 2"),
        (lambda: family_of("student(df=four)"), "df must be a number, got 'four'"),
        (lambda: family_of("student(power=2)"), r"only student\(df=...\) and tweedie\(power=...\) have a number"),
        (lambda: family_of("poisson(3)"), r"only student\(df=...\)"),
        (lambda: family_of(ml.student(4), "log"), "link 'log' is not available for family 'student'"),
        (lambda: family_of(ml.student(4), None, "inflated"), "zi and hurdle are for counts"),
    ],
)
def test_wrong_shapes_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make()


def test_scales_of_the_shapes() -> None:
    for what in ("df", "power"):
        for at in (-3.0, 0.0, 2.0):
            found = slope(lambda t, what=what, at=at: shape_value(what, at + t))
            assert found == pytest.approx(shape_slope(what, at), rel=1e-9)
    assert shape_value("df", np.log(3.0)) == pytest.approx(4.0)
    assert shape_value("power", 0.0) == pytest.approx(1.5)
