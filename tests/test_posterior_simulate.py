"""Responses drawn from posteriors and from priors: against scipy's distributions and moments in closed form."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from posterior_samples import sampled
from scipy import integrate, stats
from scipy.special import expit, ndtr

import multilevel as ml

Array = NDArray[np.float64]
NONE = 1e-9  # an sd of groups that is as good as none


def frame(rows: int = 120, groups: int = 12) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    g = np.arange(rows) % groups
    data = pd.DataFrame({"g": g, "h": np.arange(rows) // groups % 5, "x": np.where(np.arange(rows) % 2, 1.0, -1.0)})
    data["m"] = 1 + np.arange(rows) % 7
    data["count"] = rng.poisson(2.0, rows)
    data["share"] = rng.binomial(data["m"], 0.4)
    data["amount"] = rng.gamma(2.0, 1.0, rows)
    data["part"] = rng.beta(2.0, 3.0, rows)
    data["real"] = rng.standard_t(4, rows) + 0.5 * rng.normal(size=groups)[g]
    data["wet"] = data["amount"] * (rng.random(rows) > 0.3)
    data["grade"] = pd.Categorical.from_codes(rng.integers(0, 3, rows), ["low", "mid", "top"], ordered=True)
    return data


def values(table: Any) -> Array:
    """(simulations, rows); numbers of categories from zero."""
    codes = [table[n].cat.codes if isinstance(table[n].dtype, pd.CategoricalDtype) else table[n] for n in table]
    return np.array(codes, dtype=np.float64)


def linear_predictors(posterior: Any) -> Array:
    """(draws, rows)."""
    d, kept = posterior.design, posterior.draws_kept
    eta = kept.beta @ d.X.T
    for t, term in enumerate(d.terms):
        z = np.ones((len(d.y), 1)) if term.Z is None else term.Z
        eta = eta + np.einsum("cdnk,nk->cdn", kept.b[t][:, :, term.codes], z)
    return np.asarray(eta.reshape(-1, eta.shape[-1]))


def scalar(posterior: Any, name: str) -> Array:
    """(draws, 1) of one parameter."""
    names = [c.name for c in posterior.draws_kept.coordinates]
    return np.asarray(posterior.draws_kept.scalars[..., names.index(name)].reshape(-1, 1))


@cache
def heavy() -> Any:
    """Student's t, degrees of freedom estimated."""
    return sampled("real ~ x + (1 | g)", frame(), {"draws": 500}, family="student")


@cache
def wet() -> Any:
    """Tweedie's distribution, power estimated."""
    return sampled("wet ~ x + (1 | g)", frame(), {"draws": 500}, family="tweedie")


@cache
def graded() -> Any:
    return sampled("grade ~ x + (1 | g)", frame(), family="ordinal")


# -- simulate: groups kept, and groups drawn anew ----------------------------------------------------------------


@cache
def fixed_counts() -> Any:
    """Poisson counts of crossed groups, every parameter held."""
    priors = {"Intercept": ml.Fixed(1.0), "sd(g, Intercept)": ml.Fixed(0.4), "sd(h, Intercept)": ml.Fixed(0.3)}
    return sampled("count ~ 1 + (1 | g) + (1 | h)", frame(), {"draws": 1500}, family="poisson", priors=priors)


def test_new_groups_have_the_moments_of_a_log_normal_mixture() -> None:
    y = values(fixed_counts().simulate(6000, groups=None, seed=1))
    variance = 0.4**2 + 0.3**2
    mean = np.exp(1 + variance / 2)
    assert y.mean() == pytest.approx(mean, rel=0.02)
    assert y.var(axis=0).mean() == pytest.approx(mean + mean**2 * np.expm1(variance), rel=0.05)
    data, centred = frame(), y - mean
    products = centred.T @ centred / len(y)
    for group, other, s2 in (("g", "h", 0.16), ("h", "g", 0.09)):  # rows of one group go along with each other
        a, b = data[group].to_numpy(), data[other].to_numpy()
        pairs = (a[:, None] == a) & (b[:, None] != b)
        assert products[pairs].mean() == pytest.approx(mean**2 * np.expm1(s2), rel=0.15)
    apart = (data["g"].to_numpy()[:, None] != data["g"].to_numpy()) & (data["h"].to_numpy()[:, None] != data["h"].to_numpy())
    assert abs(products[apart].mean()) < 0.05 * mean**2 * np.expm1(0.09)


def test_groups_named_keep_their_drawn_effects() -> None:
    posterior = fixed_counts()
    kept = posterior.draws_kept.b[0].reshape(-1, 12)
    y = values(posterior.simulate(6000, groups=["g"], seed=2))
    wanted = np.exp(1 + 0.3**2 / 2) * np.exp(kept).mean(axis=0)[frame()["g"]]
    error = y.std(axis=0) / np.sqrt(len(y))
    assert np.abs((y.mean(axis=0) - wanted) / error).max() < 4.5
    every = values(posterior.simulate(6000, seed=3))
    mean = np.exp(linear_predictors(posterior))
    error = np.sqrt((mean.mean(axis=0) + mean.var(axis=0)) / len(every))
    assert np.abs((every.mean(axis=0) - mean.mean(axis=0)) / error).max() < 4.5
    np.testing.assert_allclose(every.var(axis=0), mean.mean(axis=0) + mean.var(axis=0), rtol=0.15)
    with pytest.raises(ml.OptionError, match="there is no group 'k'"):
        posterior.simulate(groups=["k"])


def test_categories_of_new_groups() -> None:
    posterior = graded()
    y = values(posterior.simulate(1000, groups=None, seed=1))
    cut, sd = scalar(posterior, "low|mid"), scalar(posterior, "sd(g, Intercept)")
    fixed = posterior.draws_kept.beta.reshape(-1, 1) @ posterior.design.X.T
    z, w = np.polynomial.hermite_e.hermegauss(31)
    low = np.mean([expit(cut - fixed - sd * point) for point in z], axis=1)  # (points, rows)
    share = (w / w.sum()) @ low
    error = np.sqrt(share * (1 - share) / len(y))
    assert set(np.unique(y)) == {0.0, 1.0, 2.0}
    assert np.abs(((y == 0).mean(axis=0) - share) / error).max() < 4.5


def test_simulations_of_a_posterior_without_its_group_effects() -> None:
    options = {"keep": "parameters", "draws": 100}
    posterior = sampled("count ~ 1 + (1 | g)", frame(), options, family="poisson")
    assert values(posterior.simulate(5, groups=None, seed=1)).shape == (5, 120)
    with pytest.raises(ml.OptionError, match="were not kept"):
        posterior.simulate(5)


def related() -> tuple[pd.DataFrame, Array]:
    k = 0.7 ** np.abs(np.subtract.outer(np.arange(6), np.arange(6)))
    rng = np.random.default_rng(2)
    data = pd.DataFrame({"a": [f"a{i}" for i in np.arange(36) % 6], "y": rng.normal(size=36)})
    return data, k


def known_model(**priors: Any) -> Any:
    data, k = related()
    known = {"a": ml.KnownCovariance([f"a{i}" for i in range(6)], covariance=k)}
    given = {"Intercept": ml.Normal(0, NONE), "sigma": ml.Fixed(0.5), "sd(a, Intercept)": ml.Fixed(2.0)} | priors
    return ml.Model("y ~ 1 + (1 | a)", data, covariance=known, priors=given)


def test_relatives_go_along_with_each_other() -> None:
    codes = np.arange(36) % 6
    wanted = 4 * related()[1][np.ix_(codes, codes)] + 0.25 * np.eye(36)
    found = values(known_model().sample(seed=1, draws=1500).simulate(6000, groups=None, seed=1))
    np.testing.assert_allclose(np.cov(found, rowvar=False), wanted, atol=0.35)
    prior = values(known_model().prior_predictive(6000, seed=2))
    np.testing.assert_allclose(np.cov(prior, rowvar=False), wanted, atol=0.35)


# -- families whose shape is estimated -----------------------------------------------------------------------------


def test_densities_use_the_drawn_degrees_of_freedom() -> None:
    posterior = heavy()
    df, sigma = 1 + np.exp(scalar(posterior, "df[Intercept]")), np.exp(scalar(posterior, "sigma[Intercept]"))
    assert df.std() > 0.1
    found = posterior.log_likelihood().reshape(-1, 120)
    wanted = stats.t.logpdf(posterior.design.y, df, loc=linear_predictors(posterior), scale=sigma)
    np.testing.assert_allclose(found, wanted, atol=1e-9)


def compound(posterior: Any) -> tuple[Array, Array, Array]:
    """Mean of the number of gamma variables in a response, their shape and scale, each (draws, rows) or (draws, 1)."""
    power = 1.01 + 0.98 * expit(scalar(posterior, "power[Intercept]"))
    phi, mu = np.exp(scalar(posterior, "phi[Intercept]")), np.exp(linear_predictors(posterior))
    rate = mu ** (2 - power) / (phi * (2 - power))
    return rate, (2 - power) / (power - 1), phi * (power - 1) * mu ** (power - 1)


def test_densities_use_the_drawn_power() -> None:
    posterior = wet()
    rate, shape, scale = compound(posterior)
    y, n = np.asarray(posterior.design.y), np.arange(1, 60).reshape(-1, 1, 1)
    some = slice(0, 200)
    terms = stats.poisson.pmf(n, rate[some]) * stats.gamma.pdf(np.maximum(y, 1e-9), n * shape[some], scale=scale[some])
    wanted = np.where(y == 0, -rate[some], np.log(terms.sum(axis=0)))
    np.testing.assert_allclose(posterior.log_likelihood().reshape(-1, 120)[some], wanted, atol=1e-6)


def test_intervals_of_a_new_response_with_heavy_tails() -> None:
    posterior = heavy()
    df, sigma = 1 + np.exp(scalar(posterior, "df[Intercept]")), np.exp(scalar(posterior, "sigma[Intercept]"))
    eta = linear_predictors(posterior)
    found = posterior.predict(interval="prediction", level=0.8, seed=1)
    error = np.sqrt(0.1 * 0.9 / len(eta))
    for column, p in (("ci_low", 0.1), ("ci_high", 0.9)):
        below = stats.t.cdf((np.asarray(found[column]) - eta) / sigma, df).mean(axis=0)
        assert np.abs(below - p).max() < 5 * error
    np.testing.assert_allclose(found["prediction"], eta.mean(axis=0))
    new = posterior.predict({"x": [1.0], "g": [99]}, interval="prediction", new_levels="population", seed=2)
    assert np.isfinite(np.asarray(new)).all()


def test_intervals_of_a_new_response_with_zeros() -> None:
    posterior = wet()
    rate, shape, scale = compound(posterior)
    found = posterior.predict(interval="prediction", level=0.8, seed=1)
    top = np.asarray(found["ci_high"])
    n = np.arange(1, 60).reshape(-1, 1, 1)
    below = np.exp(-rate) + sum(stats.poisson.pmf(k, rate) * stats.gamma.cdf(top / scale, k * shape) for k in n[:, 0, 0])
    assert np.abs(below.mean(axis=0) - 0.9).max() < 5 * np.sqrt(0.09 / len(rate))
    none = np.exp(-rate).mean(axis=0)
    assert (np.asarray(found["ci_low"])[none > 0.13] == 0).all()


@pytest.mark.parametrize("make", [heavy, wet])
def test_simulations_use_the_drawn_shape(make: Any) -> None:
    posterior = make()
    y = values(posterior.simulate(4000, seed=4))
    eta = linear_predictors(posterior)
    if make is heavy:
        df, sigma = 1 + np.exp(scalar(posterior, "df[Intercept]")), np.exp(scalar(posterior, "sigma[Intercept]"))
        wanted = stats.t.cdf((2.0 - eta) / sigma, df).mean(axis=0)
        found = (y <= 2.0).mean(axis=0)
    else:
        wanted, found = np.exp(-compound(posterior)[0]).mean(axis=0), (y == 0).mean(axis=0)
    assert np.abs((found - wanted) / np.sqrt(wanted * (1 - wanted) / len(y))).max() < 4.5
    again = values(posterior.simulate(50, groups=None, seed=5))
    assert np.isfinite(again).all()


# -- prediction intervals of categories and proportions ------------------------------------------------------------


def test_central_categories() -> None:
    posterior = graded()
    eta = linear_predictors(posterior)
    cuts = [scalar(posterior, name) for name in ("low|mid", "mid|top")]
    below = np.column_stack([*(expit(cut - eta).mean(axis=0) for cut in cuts), np.ones(120)])
    labels = np.array(["low", "mid", "top"], dtype=object)
    found = posterior.predict(interval="prediction", level=0.4)
    for column, p in (("ci_low", 0.3), ("ci_high", 0.7)):
        assert list(found[column]) == labels[(below < p).sum(axis=1)].tolist()
    assert list(found.columns) == [*labels, "ci_low", "ci_high"]
    np.testing.assert_allclose(found["low"], below[:, 0])
    new = posterior.predict({"x": [1.0, np.nan], "g": [0, 1]}, interval="prediction")
    assert new["ci_low"][0] == "low" and pd.isna(new["ci_low"][1]) and np.isnan(new["low"][1])


def test_proportions_of_the_trials_of_new_rows() -> None:
    priors = {"Intercept": ml.Fixed(0.0), "sd": ml.Fixed(NONE)}
    posterior = sampled("share | trials(m) ~ 1 + (1 | g)", frame(), {"draws": 1000}, family="binomial", priors=priors)
    new = pd.DataFrame({"g": [0, 0, 1], "m": [50, 4, np.nan]})
    found = posterior.predict(new, interval="prediction", level=0.9, seed=1)
    for i, m in enumerate((50, 4)):
        for column, p in (("ci_low", 0.05), ("ci_high", 0.95)):
            limit = found[column][i] * m
            assert limit == pytest.approx(round(limit), abs=1e-9)  # a number of successes
            assert abs(limit - stats.binom.ppf(p, m, 0.5)) <= 1
    assert np.isnan(found["ci_low"][2])
    assert posterior.predict(new[["g"]], interval="prediction")["ci_high"][0] == 1.0  # one trial, where they are not said


# -- responses of the priors -----------------------------------------------------------------------------------------


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


def test_structured_residuals_of_a_posterior() -> None:
    data = frame().assign(time=np.arange(120) // 12)
    priors = {"rho(g)": ml.Fixed(0.6), "ratio(h)": ml.Fixed(3.0), "sigma": ml.Fixed(2.0), "Intercept": ml.Normal(0, NONE)}
    options = {"correlation": "ar1(time | g)", "variance": "ident(h)"}
    posterior = sampled("real ~ 1 + (1 | g)", data, priors=priors | {"sd": ml.Fixed(0.5)}, **options)
    y = values(posterior.simulate(6000, groups=None, seed=1))
    first = np.flatnonzero(data["g"] == 0)
    sd = 2 * np.where(data["h"] == 0, 1.0, 3.0)[first]
    wanted = np.outer(sd, sd) * 0.6 ** np.abs(np.subtract.outer(np.arange(10), np.arange(10))) + 0.25
    found = np.cov(y[:, first], rowvar=False)
    np.testing.assert_allclose(found / np.outer(sd, sd), wanted / np.outer(sd, sd), atol=0.08)
