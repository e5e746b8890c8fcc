"""Log densities of the core: values against SciPy, every derivative against differences of the one before."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.special as sp
import scipy.stats as st
from numpy.typing import NDArray

from multilevel import _core

Array = NDArray[np.float64]
KINDS = ("binomial", "poisson", "nb2", "nb1", "gamma", "inverse gaussian", "beta", "beta-binomial", "student", "gaussian",
         "lognormal", "ordinal")  # fmt: skip
LINKS = ("identity", "log", "logit", "probit", "cloglog", "cauchit", "inverse", "sqrt", "inverse square")
INVERSE: dict[str, Callable[[Array], Array]] = {
    "identity": lambda e: e, "log": np.exp, "logit": sp.expit, "probit": sp.ndtr, "cloglog": lambda e: -np.expm1(-np.exp(e)),
    "cauchit": st.cauchy.cdf, "inverse": lambda e: 1 / e, "sqrt": lambda e: e * e, "inverse square": lambda e: e**-0.5,
}  # fmt: skip
CASES = [
    *[("binomial", link, trials) for link in ("logit", "probit", "cloglog", "cauchit") for trials in (1, 7)],
    *[("poisson", link, 1) for link in ("log", "sqrt", "identity")],
    *[(kind, "log", 1) for kind in ("nb2", "nb1", "gamma", "inverse gaussian")],
    ("gamma", "inverse", 1), ("gamma", "identity", 1), ("inverse gaussian", "inverse square", 1),
    *[("beta", link, 1) for link in ("logit", "probit", "cloglog")],
    ("beta-binomial", "logit", 9), ("student", "identity", 1), ("gaussian", "identity", 1), ("gaussian", "log", 1),
    ("lognormal", "identity", 1),
    *[("ordinal", link, 5) for link in ("logit", "probit", "cauchit", "cloglog")],
]  # fmt: skip
ZERO = [(kind, "log", zero) for kind in ("poisson", "nb2", "nb1") for zero in (1, 2)]


def truth(kind: str, link: str, y: Array, eta: Array, first: Array, second: Array, trials: float) -> Array:
    """SciPy's log density."""
    mu, size = INVERSE[link](eta), np.exp(first)
    table: dict[str, Callable[[], Any]] = {
        "binomial": lambda: st.binom.logpmf(y, trials, mu),
        "poisson": lambda: st.poisson.logpmf(y, mu),
        "nb2": lambda: st.nbinom.logpmf(y, size, size / (size + mu)),
        "nb1": lambda: st.nbinom.logpmf(y, mu / size, 1 / (1 + size)),
        "gamma": lambda: st.gamma.logpdf(y, size, scale=mu / size),
        "inverse gaussian": lambda: st.invgauss.logpdf(y, mu / size, scale=size),
        "beta": lambda: st.beta.logpdf(y, mu * size, (1 - mu) * size),
        "beta-binomial": lambda: st.betabinom.logpmf(y, trials, mu * size, (1 - mu) * size),
        "student": lambda: st.t.logpdf(y, 5.0, mu, size),
        "gaussian": lambda: st.norm.logpdf(y, mu, size),
        "lognormal": lambda: st.lognorm.logpdf(y, size, scale=np.exp(mu)),
    }
    if kind != "ordinal":
        return np.asarray(table[kind]())
    upper = np.where(y < trials - 1, INVERSE[link](first - eta), 1.0)
    lower = np.where(y > 0, INVERSE[link](second - eta), 0.0)
    return np.asarray(np.log(upper - lower))


def draws(kind: str, link: str, trials: int, n: int = 300) -> tuple[Array, Array, Array, Array]:
    """y, eta and two parameters, of moderate size."""
    rng = np.random.default_rng(len(kind) + 7 * len(link) + trials)
    eta = np.clip(rng.normal(size=n), -2.2, 2.2 if link != "cloglog" else 1.2)
    if link in ("inverse", "identity", "sqrt", "inverse square") and kind in ("poisson", "gamma", "inverse gaussian"):
        eta = np.abs(eta) + 0.3
    first, second = rng.normal(size=n), rng.normal(size=n)
    if kind == "ordinal":
        first, second = np.maximum(first, second) + 0.05, np.minimum(first, second)
        first, second = first - (first > 1.5), second - (first > 1.5)
    y = {
        "binomial": lambda: rng.integers(0, trials + 1, n), "beta-binomial": lambda: rng.integers(0, trials + 1, n),
        "ordinal": lambda: rng.integers(0, trials, n), "beta": lambda: rng.uniform(0.02, 0.98, n),
        "poisson": lambda: rng.poisson(2, n), "nb2": lambda: rng.poisson(3, n), "nb1": lambda: rng.poisson(3, n),
        "gamma": lambda: rng.gamma(2, size=n), "inverse gaussian": lambda: rng.gamma(2, size=n) + 0.05,
        "lognormal": lambda: rng.gamma(2, size=n) + 0.05,
    }.get(kind, lambda: rng.normal(size=n))()  # fmt: skip
    return y.astype(float), eta, first, second


def densities(kind: str, link: str, zero: int, y: Array, trials: int, eta: Array, first: Array, second: Array) -> Any:
    family = (KINDS.index(kind), LINKS.index(link), zero, 5.0)
    return _core.log_densities(family, y, np.full(len(y), float(trials)), eta, first, second)


@pytest.mark.parametrize(("kind", "link", "trials"), CASES)
def test_density_is_scipys(kind: str, link: str, trials: int) -> None:
    y, eta, first, second = draws(kind, link, trials)
    ours = densities(kind, link, 0, y, trials, eta, first, second)[0][:, 0]
    np.testing.assert_allclose(ours, truth(kind, link, y, eta, first, second, trials), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("kind", "link", "zero"), ZERO)
def test_zero_inflated_and_hurdle_densities(kind: str, link: str, zero: int) -> None:
    y, eta, first, second = draws(kind, link, 1)
    ours = densities(kind, link, zero, y, 1, eta, first, second)[0][:, 0]
    share, base = sp.expit(second), np.exp(truth(kind, link, y, eta, first, second, 1))
    none = np.exp(truth(kind, link, np.zeros(len(y)), eta, first, second, 1))
    wanted = np.where(y == 0, share, 0.0) + (1 - share) * base
    if zero == 2:
        wanted = np.where(y == 0, share, (1 - share) * base / (1 - none))
    np.testing.assert_allclose(ours, np.log(wanted), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    ("kind", "link", "zero", "trials"), [(k, link, 0, t) for k, link, t in CASES] + [(k, link, z, 1) for k, link, z in ZERO]
)
def test_derivatives_are_differences(kind: str, link: str, zero: int, trials: int) -> None:
    y, eta, first, second = draws(kind, link, trials)
    h = 1e-5

    def central(move: tuple[float, float, float]) -> list[Array]:
        up = densities(kind, link, zero, y, trials, eta + move[0], first + move[1], second + move[2])
        down = densities(kind, link, zero, y, trials, eta - move[0], first - move[1], second - move[2])
        return [(a - b) / (2 * h) for a, b in zip(up, down, strict=True)]

    here = densities(kind, link, zero, y, trials, eta, first, second)
    by_eta = central((h, 0, 0))[0][:, :3]
    np.testing.assert_allclose(here[0][:, 1:], by_eta, rtol=1e-6, atol=2e-6)
    np.testing.assert_allclose(here[1], central((0, h, 0))[0][:, :3], rtol=1e-6, atol=2e-6)
    np.testing.assert_allclose(here[2], central((0, 0, h))[0][:, :3], rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("eta", [-400.0, -40.0, -8.0, -5.001, -4.999, 8.0, 40.0])
def test_tails_of_the_normal_distribution(eta: float) -> None:
    one = np.ones(1)
    found = densities("binomial", "probit", 0, one, 1, one * eta, one, one)[0][0]
    wanted = st.norm.logcdf(eta)
    np.testing.assert_allclose(found[0], wanted, rtol=1e-12, atol=1e-15)
    slope = np.exp(st.norm.logpdf(eta) - wanted)
    np.testing.assert_allclose(found[1], slope, rtol=1e-9, atol=1e-15)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("eta", [-700.0, -30.0, 30.0, 700.0])
@pytest.mark.parametrize("link", ["logit", "cauchit"])
def test_far_out_nothing_overflows(link: str, eta: float) -> None:
    one = np.ones(1)
    for y in (0.0, 1.0):
        assert np.isfinite(densities("binomial", link, 0, one * y, 1, one * eta, one, one)[0]).all()


def test_a_negative_binomial_of_huge_size_is_poisson() -> None:
    y, eta, _, second = draws("poisson", "log", 1)
    size = np.full(len(y), np.log(1e12))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = densities("nb2", "log", 0, y, 1, eta, size, second)[0]
    wanted = densities("poisson", "log", 0, y, 1, eta, size, second)[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)
