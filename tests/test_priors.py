"""Prior distributions: densities against SciPy, draws, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

import multilevel as ml
from multilevel.prior_draws import correlation_roots
from multilevel.prior_table import Entry, prior_table
from multilevel.priors import Prior

POSITIVE: list[tuple[Prior, Any]] = [
    (ml.HalfNormal(2.0), stats.halfnorm(scale=2)),
    (ml.HalfStudentT(3, 1.5), None),
    (ml.HalfCauchy(2.0), stats.halfcauchy(scale=2)),
    (ml.Exponential(0.5), stats.expon(scale=2)),
    (ml.Gamma(2.0, 3.0), stats.gamma(2, scale=1 / 3)),
    (ml.InverseGamma(3.0, 2.0), stats.invgamma(3, scale=2)),
    (ml.LogNormal(0.3, 0.7), stats.lognorm(0.7, scale=np.exp(0.3))),
    (ml.Uniform(0.5, 4.0), stats.uniform(0.5, 3.5)),
]
LINE: list[tuple[Prior, Any]] = [
    (ml.Normal(1.0, 2.0), stats.norm(1, 2)),
    (ml.StudentT(4, 1.0, 2.0), stats.t(4, 1, 2)),
    (ml.Cauchy(1.0, 2.0), stats.cauchy(1, 2)),
    (ml.Laplace(1.0, 2.0), stats.laplace(1, 2)),
]


def log_densities(prior: Prior, values: Any, name: str) -> Any:
    """Log prior of one parameter, as the posterior of a model has it, up to a constant: with and without this prior."""
    from multilevel.marginal import Marginal
    from multilevel.reml import Engine

    data = {"y": [1.0, 2.0, 4.0, 3.0, 2.5, 5.0, 3.5, 1.5], "g": list("aabbccdd")}
    out = []
    for one in (prior, ml.Flat() if name != "Intercept" else ml.Cauchy(0, 1e9)):
        model = ml.Model("y ~ 1 + (1 | g)", data, priors={"sd": ml.Fixed(1.0), "sigma": ml.Fixed(1.0), name: one})
        target = Marginal(Engine(model.design, 1), model.design, prior_table(model.design, None, model.priors))
        rows = []
        for v in values:
            if isinstance(one, ml.Uniform):
                x = np.log((v - one.lower) / (one.upper - v))
                jacobian = np.log((v - one.lower) * (one.upper - v) / (one.upper - one.lower))
            else:
                x, jacobian = (v, 0.0) if name == "Intercept" else (np.log(v), np.log(v))
            rows.append(target.core.log_posterior(np.array([x]), False)[0] - jacobian)
        out.append(np.array(rows))
    return out[0] - out[1]


@pytest.mark.parametrize(("prior", "truth"), POSITIVE, ids=lambda v: type(v).__name__)
def test_log_densities_of_sds(prior: Prior, truth: Any) -> None:
    values = np.array([0.7, 1.1, 2.3, 3.9])
    found = log_densities(prior, values, "sigma")
    wanted = stats.t(3, scale=1.5).logpdf(values) + np.log(2) if truth is None else truth.logpdf(values)
    np.testing.assert_allclose(found, wanted, atol=1e-9)


@pytest.mark.parametrize(("prior", "truth"), LINE[1:], ids=lambda v: type(v).__name__)
def test_log_densities_of_coefficients(prior: Prior, truth: Any) -> None:
    values = np.array([-3.0, 0.2, 1.5, 6.0])
    found = log_densities(prior, values, "Intercept")
    np.testing.assert_allclose(np.diff(found), np.diff(truth.logpdf(values)), atol=1e-9)


@pytest.mark.parametrize(("prior", "truth"), POSITIVE + LINE, ids=lambda v: type(v).__name__)
def test_draws_are_of_the_distribution(prior: Prior, truth: Any) -> None:
    draws = prior.draw(np.random.default_rng(3), 4000)
    cdf = (lambda x: 2 * stats.t(3, scale=1.5).cdf(x) - 1) if truth is None else truth.cdf
    assert stats.kstest(draws, cdf).pvalue > 1e-3


def test_a_distribution_on_the_line_is_cut_off_for_an_sd() -> None:
    draws = ml.Normal(-1.0, 2.0).draw_positive(np.random.default_rng(1), 3000)
    truth = stats.truncnorm(0.5, np.inf, loc=-1, scale=2)
    assert stats.kstest(draws, truth.cdf).pvalue > 1e-3
    with pytest.raises(ml.OptionError, match="almost no mass on positive"):
        ml.Normal(-50.0, 1.0).draw_positive(np.random.default_rng(1), 10)


@pytest.mark.parametrize("eta", [0.7, 1.0, 4.0])
def test_lkj_draws_have_beta_correlations(eta: float) -> None:
    """Each correlation of a (k, k) LKJ(eta) matrix is beta(eta + k/2 - 1) on (-1, 1)."""
    data = ml.load("sleepstudy")
    model = ml.Model("Reaction ~ Days + (Days + I(Days**2) | Subject)", data)
    entry = Entry("cor(Subject)", "cor", ml.LKJ(eta), "user", 0)
    roots = correlation_roots(entry, model.design.terms[0], 4000, np.random.default_rng(2))
    r = roots @ roots.transpose(0, 2, 1)
    np.testing.assert_allclose(np.einsum("nii->ni", r), 1.0)
    for i, j in ((1, 0), (2, 0), (2, 1)):
        truth = stats.beta(eta + 0.5, eta + 0.5, loc=-1, scale=2)
        assert stats.kstest(r[:, i, j], truth.cdf).pvalue > 1e-3


# -- which parameter has which prior ----------------------------------------------------------------------------


def model(**options: Any) -> ml.Model:
    return ml.Model("math ~ homework + (homework | schid)", ml.load("math10"), **options)


def test_the_narrower_name_wins() -> None:
    given = {
        "sd": ml.HalfNormal(1), "sd(schid)": ml.HalfNormal(2), "sd(schid, homework)": ml.HalfNormal(3),
        "b": ml.Normal(0, 4), "cor": ml.LKJ(5),
    }  # fmt: skip
    table = model(priors=given).prior_summary()
    texts = dict(zip(table["parameter"], table["prior"], strict=True))
    assert texts["sd(schid, Intercept)"] == "HalfNormal(2)"
    assert texts["sd(schid, homework)"] == "HalfNormal(3)"
    assert texts["homework"] == "Normal(0, 4)"
    assert texts["cor(schid)"] == "LKJ(5)"
    assert dict(zip(table["parameter"], table["source"], strict=True))["Intercept"] == "default"


def test_defaults_move_with_the_units_of_the_data() -> None:
    data = ml.load("math10")
    scaled = data.assign(math=1000 * data["math"], homework=data["homework"] / 60)
    one, other = (ml.Model("math ~ homework + (homework | schid)", d) for d in (data, scaled))
    for a, b in zip(prior_table(one.design, None, None), prior_table(other.design, None, None), strict=True):
        if a.kind == "cor":
            continue
        factor = 60_000 if "homework" in a.name else 1000
        assert b.prior.sigma == pytest.approx(factor * a.prior.sigma)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("priors", "message"),
    [
        ({"homewrk": ml.Normal()}, "did you mean 'homework'"),
        ({"sd(school)": ml.HalfNormal(1)}, "no parameter 'sd\\(school\\)'"),
        ({"cor": ml.Normal()}, "take LKJ"),
        ({"homework": ml.LKJ(1)}, "LKJ is a prior of correlations"),
        ({"sd": ml.Fixed(-1)}, "cannot be held at -1"),
        ({"sigma": ml.Uniform(-1, 3)}, "lets be negative"),
        ({"b": 3}, "must be a distribution"),
        ({"cor": ml.Fixed([[1, 2], [2, 1]])}, "is no correlation matrix"),
        ({"cor": ml.Fixed(np.eye(3))}, "is a \\(2, 2\\) matrix"),
        ({"homework": ml.Fixed(np.eye(2))}, "is one number"),
    ],
)
def test_impossible_priors_are_refused(priors: Any, message: str) -> None:
    with pytest.raises(ml.OptionError, match=message):
        model(priors=priors).sample(draws=10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ml.Normal(0, -1), "sigma must be positive"),
        (lambda: ml.Normal("a"), "mu must be a finite number"),  # type: ignore[arg-type]
        (lambda: ml.Uniform(2, 1), "lower must be below upper"),
        (lambda: ml.Fixed("x"), "needs a number or a matrix"),
        (lambda: ml.LKJ(0), "eta must be positive"),
    ],
)
def test_impossible_distributions_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ml.OptionError, match=message):
        make()


def test_a_flat_sd_of_too_few_groups_is_refused() -> None:
    data = {"y": [1.0, 2.0, 4.0, 3.0, 5.0, 2.0], "g": list("aaabbb")}
    with pytest.raises(ml.OptionError, match="has no proper posterior"):
        ml.Model("y ~ 1 + (1 | g)", data, priors={"sd": ml.Flat()}).sample(draws=10)


def test_prior_predictive_has_the_moments_of_the_priors() -> None:
    priors = {
        "Intercept": ml.Normal(10, 2), "homework": ml.Fixed(1.0), "sd(schid, Intercept)": ml.Fixed(3.0),
        "sd(schid, homework)": ml.Fixed(1e-9), "sigma": ml.Fixed(4.0),
    }  # fmt: skip
    one = model(priors=priors)
    draws = np.asarray(one.prior_predictive(4000, seed=1))
    x = np.asarray(one.design.X[:, 1])
    error = np.sqrt((4 + 9 + 16) / 4000)
    assert np.abs(draws.mean(axis=1) - (10 + x)).max() < 5 * error
    assert draws.var(axis=1).mean() == pytest.approx(29, rel=0.03)
    with pytest.raises(ml.OptionError, match="nothing can be drawn"):
        model(priors={"Intercept": ml.Flat()}).prior_predictive(2)
