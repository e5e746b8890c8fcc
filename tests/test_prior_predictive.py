"""Responses drawn from priors: against scipy's distributions and moments in closed form."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats
from scipy.special import expit, ndtr
from simulated_rows import NONE, Array, frame, values

import multilevel as ml


def imagined(formula: str, n: int = 300, **options: Any) -> Array:
    """(n, rows) responses of the priors; no effects of groups, coefficients held."""
    given = {"Intercept": ml.Fixed(0.0), "b": ml.Fixed(0.3), "sd": ml.Fixed(NONE)} | options.pop("priors", {})
    if formula.startswith("grade"):
        del given["Intercept"]
    return values(ml.Model(f"{formula} ~ x + (1 | g)", frame(), priors=given, **options).prior_predictive(n, seed=1))


MU = np.exp(0.3)  # in rows of x = 1
P = expit(0.3)
SIZES = ("size", "shape", "lambda", "precision", "sigma", "alpha")
SIZE = {f"{name}[Intercept]": ml.Fixed(float(np.log(3.0))) for name in SIZES}
CONTINUOUS = [
    ("amount", "gamma", "shape", {}, stats.gamma(3, scale=MU / 3)),
    ("amount", "inverse_gaussian", "lambda", {}, stats.invgauss(MU / 3, scale=3)),
    ("amount", "lognormal", "sigma", {}, stats.lognorm(3, scale=MU)),
    ("part", "beta", "precision", {}, stats.beta(3 * P, 3 * (1 - P))),
    ("real", "student(4)", "sigma", {}, stats.t(4, loc=0.3, scale=3)),
    ("real", "student", "sigma", {"df[Intercept]": ml.Fixed(float(np.log(2.5)))}, stats.t(3.5, loc=0.3, scale=3)),
]


@pytest.mark.parametrize(("column", "family", "size", "more", "truth"), CONTINUOUS)
def test_continuous_responses_of_the_priors(column: str, family: str, size: str, more: Any, truth: Any) -> None:
    name = f"{size}[Intercept]"
    y = imagined(column, family=family, priors={name: SIZE[name], **more})
    x = np.asarray(frame()["x"])
    assert stats.kstest(y[:, x == 1].ravel(), truth.cdf).pvalue > 1e-3
    assert stats.kstest(y[:, x == -1].ravel(), truth.cdf).pvalue < 1e-6


COUNTS = [
    ("poisson", {}, {}, stats.poisson(MU).pmf),
    ("nbinom2", {"size[Intercept]": SIZE["size[Intercept]"]}, {}, stats.nbinom(3, 3 / (3 + MU)).pmf),
    ("nbinom1", {"alpha[Intercept]": SIZE["alpha[Intercept]"]}, {}, stats.nbinom(MU / 3, 1 / 4).pmf),
    (
        "poisson", {"zi[Intercept]": ml.Fixed(-0.5)}, {"zi": "~ 1"},
        lambda k: (k == 0) * expit(-0.5) + expit(0.5) * stats.poisson.pmf(k, MU),
    ),
    (
        "poisson", {"zi[Intercept]": ml.Fixed(-0.5)}, {"hurdle": "~ 1"},
        lambda k: np.where(k == 0, expit(-0.5), expit(0.5) * stats.poisson.pmf(k, MU) / -np.expm1(-MU)),
    ),
]  # fmt: skip


def agrees(y: Array, pmf: Any, most: int) -> bool:
    """Whether whole numbers have the frequencies of a distribution."""
    k = np.arange(most)
    wanted = len(y) * np.r_[pmf(k), 1 - np.sum(pmf(k))]
    found = np.r_[[np.sum(y == one) for one in k], np.sum(y >= most)]
    keep = wanted > 5
    return bool(np.sum((found - wanted)[keep] ** 2 / wanted[keep]) < stats.chi2.ppf(0.999, keep.sum()))


@pytest.mark.parametrize(("family", "priors", "options", "pmf"), COUNTS)
def test_counts_of_the_priors(family: str, priors: Any, options: Any, pmf: Any) -> None:
    y = imagined("count", family=family, priors=priors, **options)[:, np.asarray(frame()["x"]) == 1].ravel()
    assert agrees(y, pmf, 8)
    assert not agrees(y, stats.poisson(1.2 * MU).pmf, 8)


@pytest.mark.parametrize("family", ["binomial", "betabinomial"])
def test_successes_of_the_priors(family: str) -> None:
    name = "precision[Intercept]"
    y = imagined("share | trials(m)", 1500, family=family, priors={name: SIZE[name]} if family == "betabinomial" else {})
    data = frame()
    for m in (1, 5):
        own = y[:, (data["x"] == 1) & (data["m"] == m)].ravel()
        truth = stats.binom(m, P) if family == "binomial" else stats.betabinom(m, 3 * P, 3 * (1 - P))
        assert agrees(own, truth.pmf, m + 1)


def test_tweedie_responses_of_the_priors() -> None:
    priors = {"phi[Intercept]": ml.Fixed(0.5), "power[Intercept]": ml.Fixed(0.0)}  # power 1.5
    y = imagined("wet", 2000, family="tweedie", priors=priors)[:, np.asarray(frame()["x"]) == 1].ravel()
    phi = np.exp(0.5)
    assert y.mean() == pytest.approx(MU, rel=0.02)
    assert y.var() == pytest.approx(phi * MU**1.5, rel=0.03)
    assert np.mean(y == 0) == pytest.approx(np.exp(-(MU**0.5) / (phi * 0.5)), rel=0.03)


def test_a_dispersion_with_predictors() -> None:
    priors = {"shape[Intercept]": ml.Fixed(1.0), "shape[x]": ml.Fixed(0.7), "b": ml.Fixed(0.0)}
    y = imagined("amount", 1000, family="gamma", dispersion="~ x", priors=priors)
    for x in (-1, 1):
        own = y[:, np.asarray(frame()["x"]) == x].ravel()
        shape = np.exp(1 + 0.7 * x)
        assert stats.kstest(own, stats.gamma(shape, scale=1 / shape).cdf).pvalue > 1e-3


def test_extra_zeros_with_predictors() -> None:
    priors = {"zi[Intercept]": ml.Fixed(-1.0), "zi[x]": ml.Fixed(1.5), "Intercept": ml.Fixed(8.0)}  # counts have no zeros
    y = imagined("count", 500, family="nbinom2", zi="~ x", priors={**priors, "size[Intercept]": ml.Fixed(3.0)})
    for x in (-1, 1):
        own = y[:, np.asarray(frame()["x"]) == x].ravel()
        assert np.mean(own == 0) == pytest.approx(expit(-1 + 1.5 * x), abs=4.5 * 0.5 / np.sqrt(len(own)))


def test_categories_of_the_priors() -> None:
    y = imagined("grade", 2000, family="ordinal", priors={"low|mid": ml.Normal(-1, NONE), "mid|top": ml.Normal(1, NONE)})
    own = y[:, np.asarray(frame()["x"]) == 1].ravel()
    cut = expit(np.array([-1.3, 0.7]))
    assert agrees(own, lambda k: np.diff(np.r_[0, cut, 1])[k], 3)
    y = imagined("grade", 4000, family="ordinal", priors={"thresholds": ml.Normal(0, 2), "b": ml.Fixed(0.0)})
    # the lowest of two draws has the distribution function 1 - (1 - F)^2
    truth = integrate.quad(lambda t: expit(t) * 2 * (1 - ndtr(t / 2)) * stats.norm.pdf(t / 2) / 2, -40, 40)[0]
    assert np.mean(y == 0) == pytest.approx(truth, abs=4.5 * (y == 0).mean(axis=1).std() / np.sqrt(4000))
    apart = {"low|mid": ml.Normal(9, 0.1), "mid|top": ml.Normal(-9, 0.1)}
    with pytest.raises(ml.OptionError, match="ascending order too rarely"):
        imagined("grade", family="ordinal", priors=apart)


def test_group_effects_of_the_priors() -> None:
    priors = {"Intercept": ml.Normal(0.5, 0.3), "b": ml.Fixed(0.0), "sd(g, Intercept)": ml.Fixed(0.4)}
    y = imagined("count", 6000, family="poisson", priors=priors)
    variance = 0.3**2 + 0.4**2
    mean = np.exp(0.5 + variance / 2)
    assert y.mean() == pytest.approx(mean, rel=0.02)
    assert y.var(axis=0).mean() == pytest.approx(mean + mean**2 * np.expm1(variance), rel=0.05)
    products = np.cov(y, rowvar=False)
    same = np.equal.outer(np.asarray(frame()["g"]), np.asarray(frame()["g"])) & ~np.eye(120, dtype=bool)
    assert products[same].mean() == pytest.approx(mean**2 * np.expm1(variance), rel=0.08)


RHO = 0.6
STRUCTURES = {
    "cs": (RHO * np.ones((3, 3)) + (1 - RHO) * np.eye(3), [1.0, 2.0, 0.5]),
    "homcs": (RHO * np.ones((3, 3)) + (1 - RHO) * np.eye(3), [2.0]),
    "ar1": (RHO ** np.abs(np.subtract.outer(np.arange(3), np.arange(3))), [2.0]),
    "hetar1": (RHO ** np.abs(np.subtract.outer(np.arange(3), np.arange(3))), [1.0, 2.0, 0.5]),
    "diag": (np.eye(3), [1.0, 2.0, 0.5]),
    "homdiag": (np.eye(3), [2.0]),
}


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("family", ["gaussian", "lognormal"])
def test_structured_effects_of_the_priors(structure: str, family: str) -> None:
    r, sds = STRUCTURES[structure]
    data = pd.DataFrame({"g": np.repeat(np.arange(4), 9), "w": np.tile(np.arange(3), 12)})
    data["y"] = np.exp(np.random.default_rng(1).normal(size=36))
    model = ml.Model(f"y ~ 1 + {structure}(0 + factor(w) | g)", data, family=family)
    names = [one for one in model.prior_summary()["parameter"] if one.startswith("sd(")]
    priors: dict[str, Any] = dict(zip(names, map(ml.Fixed, sds), strict=True))
    priors |= {"Intercept": ml.Fixed(0.0), "sigma" if family == "gaussian" else "sigma[Intercept]": ml.Fixed(0.1)}
    if "diag" not in structure:
        priors["cor(g)"] = ml.Fixed(RHO)
    y = values(ml.Model(model.formula.text, data, family=family, priors=priors).prior_predictive(8000, seed=1))
    noise = 0.1 if family == "gaussian" else np.exp(0.1)
    found = np.cov((y if family == "gaussian" else np.log(y))[:, [0, 1, 2, 9]], rowvar=False)
    sd = np.array(sds * (3 if len(sds) == 1 else 1))
    wanted = np.zeros((4, 4))  # the last is of another group
    wanted[:3, :3] = r * np.outer(sd, sd)
    wanted[3, 3] = sd[0] ** 2
    wanted += noise**2 * np.eye(4)
    scale = np.sqrt(np.outer(np.diag(wanted), np.diag(wanted)))
    np.testing.assert_allclose(found / scale, wanted / scale, atol=0.06)


def test_structured_residuals_of_the_priors() -> None:
    data = frame().assign(time=np.arange(120) // 12, w=0.5 + np.arange(120) % 3)
    priors = {
        "Intercept": ml.Normal(1, NONE), "sd": ml.Fixed(NONE), "sigma": ml.Fixed(2.0), "rho(g)": ml.Fixed(0.6),
        "ratio(h)": ml.Fixed(3.0),
    }  # fmt: skip
    options = {"correlation": "ar1(time | g)", "variance": "ident(h)", "weights": "w"}
    model = ml.Model("real ~ 1 + (1 | g)", data, priors=priors, **options)
    y = values(model.prior_predictive(6000, seed=1))
    first = np.flatnonzero(data["g"] == 0)  # rows in order of time
    sd = 2 * np.where(data["h"] == 0, 1.0, 3.0)[first] / np.sqrt(data["w"].to_numpy()[first])
    wanted = np.outer(sd, sd) * 0.6 ** np.abs(np.subtract.outer(np.arange(10), np.arange(10)))
    found = np.cov(y[:, first], rowvar=False)
    np.testing.assert_allclose(found / np.outer(sd, sd), wanted / np.outer(sd, sd), atol=0.07)
    assert np.abs(np.corrcoef(y[:, :12], rowvar=False) - np.eye(12)).max() < 0.07  # other groups


FOLDED = [("poisson", "identity"), ("gamma", "inverse"), ("inverse_gaussian", "inverse_square")]


@pytest.mark.parametrize(("family", "link"), FOLDED)
def test_means_that_cannot_be_are_left_out(family: str, link: str) -> None:
    column = "count" if family == "poisson" else "amount"
    priors = {"Intercept": ml.Normal(1.0, 0.5), "b": ml.Fixed(0.4)}
    y = imagined(column, 3000, family=family, link=link, priors=priors)
    assert np.isfinite(y).all() and (y >= 0).all()
    if family == "poisson":  # the intercept is cut off where a mean would be negative
        truth = stats.truncnorm((0.4 - 1) / 0.5, np.inf, 1, 0.5).mean()
        error = np.sqrt(truth / y.size + 0.25 / len(y))
        assert y.mean() == pytest.approx(truth, abs=4.5 * error)
    with pytest.raises(ml.OptionError, match="give priors that keep it positive"):
        imagined(column, 20, family=family, link=link, priors={"Intercept": ml.Normal(-9, 0.1)})


def test_priors_without_measure_are_told() -> None:
    wide = {"Intercept": ml.Normal(0, 600)}
    with pytest.warns(ml.MultilevelWarning, match="priors are so wide"):
        y = imagined("count", 200, family="poisson", priors=wide)
    assert np.isinf(y).any() and not np.isnan(y).any() and (y == 0).any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = imagined("count", 200, family="nbinom2", zi="~ 1", priors={"Intercept": ml.Fixed(60.0)})
    assert np.median(y[y > 0]) > 1e20 and (y == 0).any()  # means beyond what counts are drawn at
    with pytest.raises(ml.OptionError, match="nothing can be drawn"):
        imagined("count", family="poisson", priors={"Intercept": ml.Flat()})


def test_defaults_of_every_family_can_be_drawn_from() -> None:
    rows = (
        ("count", {"family": "nbinom1", "hurdle": "~ x"}), ("share | trials(m)", {"family": "betabinomial"}),
        ("part", {"family": "beta", "dispersion": "~ x"}), ("wet", {"family": "tweedie"}), ("grade", {"family": "ordinal"}),
    )  # fmt: skip
    for column, options in rows:
        y = values(ml.Model(f"{column} ~ x + (x | g)", frame(), **options).prior_predictive(50, seed=1))
        assert y.shape == (50, 120) and not np.isnan(y).any()


def test_models_that_have_no_prior_predictive() -> None:
    with pytest.raises(ml.OptionError, match="name a column in place of fitted"):
        ml.Model("real ~ x + (1 | g)", frame(), variance="power(fitted)").prior_predictive(2)
    data = frame()
    data.loc[3, "x"] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        y = values(ml.Model("count ~ x + (1 | g)", data, family="poisson").prior_predictive(2, seed=1))
    assert np.isnan(y[:, 3]).all() and not np.isnan(np.delete(y, 3, axis=1)).any()
