"""Log posterior of linear models: gradient against differences, value against a dense normal density."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

import multilevel as ml
from multilevel.marginal import Marginal
from multilevel.prior_table import prior_table
from multilevel.reml import Engine

FLAT = {"sd": ml.Flat(), "sigma": ml.Flat(), "cor": ml.LKJ(1)}
SLEEP = "Reaction ~ Days + (Days | Subject)"
CASES: list[tuple[str, str, dict[str, Any]]] = [
    (SLEEP, "sleepstudy", {}),
    (SLEEP, "sleepstudy", {"Intercept": ml.Cauchy(200, 30), "b": ml.Laplace(0, 5)}),
    (SLEEP, "sleepstudy", {"Days": ml.Fixed(8.0), "Intercept": ml.Flat()}),
    (SLEEP, "sleepstudy", {"Days": ml.StudentT(3, 0, 20), "sigma": ml.Fixed(20.0), "cor": ml.Fixed(0.3)}),
    (SLEEP, "sleepstudy", {"sd": ml.Uniform(0, 100), "sigma": ml.HalfCauchy(5), "cor": ml.LKJ(0.5)}),
    ("Reaction ~ Days + (Days || Subject)", "sleepstudy", {"sd(Subject, Days)": ml.Fixed(5.0), "sd": ml.Exponential(0.1)}),
    ("Reaction ~ Days + (Days + I(Days**2) | Subject)", "sleepstudy", {"sd": ml.Gamma(2, 0.1), "Days": ml.Uniform(0, 30)}),
    ("Reaction ~ Days + cs(Days + I(Days**2) | Subject)", "sleepstudy", {"sd": ml.LogNormal(2, 1)}),
    ("Reaction ~ Days + ar1(0 + factor(Days) | Subject)", "sleepstudy", {"sd": ml.InverseGamma(3, 60)}),
    ("Reaction ~ Days + homcs(Days + I(Days**2) | Subject)", "sleepstudy", {}),
    ("diameter ~ 1 + (1 | plate) + (1 | sample)", "penicillin", {"Intercept": ml.Normal(20, 1)}),
    ("strength ~ 1 + (1 | batch / cask)", "pastes", {}),
    ("math ~ homework + (1 | schid) + (0 + homework | schid)", "math10", {"homework": ml.HalfNormal(3)}),
]


def target(formula: str, data: str, priors: dict[str, Any]) -> tuple[Marginal, Any]:
    model = ml.Model(formula, ml.load(data), priors=priors)
    made = Marginal(Engine(model.design, 1), model.design, prior_table(model.design, None, priors))
    from multilevel.sample import start_of

    return made, start_of(made, model)


@pytest.mark.parametrize(("formula", "data", "priors"), CASES)
def test_gradient(formula: str, data: str, priors: dict[str, Any]) -> None:
    made, start = target(formula, data, priors)
    x = start + 0.2 * np.random.default_rng(5).standard_normal(made.size)
    value, gradient = made.core.log_posterior(x, True)
    assert np.isfinite(value)
    step = 1e-4
    for i in range(made.size):
        e = np.zeros(made.size)
        e[i] = step
        f = [made.core.log_posterior(x + k * e, False)[0] for k in (-2, -1, 1, 2)]
        slope = (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * step)
        assert gradient[i] == pytest.approx(slope, rel=1e-6, abs=1e-6 * (1 + np.abs(gradient).max()))


def dense(made: Marginal, x: Any) -> float:
    """Log density of y with everything integrated out, from the covariance matrix of its rows."""
    d = made.design
    values = made.core.constrained(x[None])[0]
    named = list(zip(made.coordinates, values, strict=False))
    sigma = next(v for c, v in named if c.kind == "sigma")
    cov = np.diag(np.full(len(d.y), sigma**2))
    for t, term in enumerate(d.terms):
        k = len(term.names)
        sds = [v for c, v in named if c.term == t and c.kind == "sd"]
        s = np.array(sds * (k if len(sds) == 1 else 1))
        r = np.eye(k)
        for c, v in named:
            if c.term == t and c.kind == "cor":
                r[c.effects[0], c.effects[1]] = r[c.effects[1], c.effects[0]] = v
        z = np.ones((len(d.y), 1)) if term.Z is None else term.Z
        cov += (z @ (r * np.outer(s, s)) @ z.T) * (term.codes[:, None] == term.codes[None])
    mean = np.zeros(len(d.y))
    sampled = iter(values[len(made.coordinates) :])
    for e in made.entries:
        if e.kind != "coefficient":
            continue
        column, prior = d.X[:, e.effect], e.prior
        if isinstance(prior, ml.Normal):
            cov += np.outer(column, column) * prior.sigma**2
            mean += column * prior.mu
        elif isinstance(prior, ml.Fixed):
            mean += column * prior.value
        else:
            mean += column * next(sampled)
    return float(stats.multivariate_normal(mean, cov).logpdf(d.y))


@pytest.mark.parametrize(
    "priors",
    [
        {},
        {"Intercept": ml.Normal(100, 10), "Days": ml.Normal(3, 1)},
        {"Days": ml.Fixed(8.0), "Intercept": ml.Normal(250, 50)},
        {"Intercept": ml.Uniform(100, 400)},
    ],
)
def test_value_is_that_of_the_dense_density(priors: dict[str, Any]) -> None:
    made, start = target(SLEEP, "sleepstudy", {**FLAT, **priors})
    rng = np.random.default_rng(8)
    points = [start + 0.3 * rng.standard_normal(made.size) for _ in range(4)]
    found, wanted = [], []
    for x in points:
        values = made.core.constrained(x[None])[0]
        named = zip(made.coordinates, values, strict=False)
        jacobian = sum(np.log(v) if c.kind != "cor" else np.log1p(-(v**2)) for c, v in named)
        for v in values[len(made.coordinates) :]:  # a uniform coefficient
            jacobian += np.log((v - 100) * (400 - v) / 300) - np.log(300)
        found.append(made.core.log_posterior(x, False)[0])
        wanted.append(dense(made, x) + jacobian)
    np.testing.assert_allclose(np.diff(found), np.diff(wanted), rtol=1e-9, atol=1e-8)


def test_draws_given_the_parameters_have_their_conditional_moments() -> None:
    """With all variances held: coefficients and group effects against the dense normal posterior."""
    priors = {
        "Intercept": ml.Normal(200, 50), "Days": ml.Normal(0, 10), "sd(Subject, Intercept)": ml.Fixed(25.0),
        "sd(Subject, Days)": ml.Fixed(6.0), "cor": ml.Fixed(0.2), "sigma": ml.Fixed(25.0),
    }  # fmt: skip
    posterior = ml.Model(SLEEP, ml.load("sleepstudy"), priors=priors).sample(seed=2, draws=5000)
    assert posterior.draws_kept.method == "exact"
    d = posterior.design
    term = d.terms[0]
    z = np.zeros((len(d.y), 36))
    for i, code in enumerate(term.codes):
        z[i, 2 * code : 2 * code + 2] = term.Z[i]
    block = np.linalg.inv([[625, 30], [30, 36]])
    w = np.hstack([d.X, z])
    precision = w.T @ w / 625
    precision[:2, :2] += np.diag([1 / 2500, 1 / 100])
    for j in range(18):
        s = slice(2 + 2 * j, 4 + 2 * j)
        precision[s, s] += block
    right = w.T @ d.y / 625
    right[:2] += [200 / 2500, 0]
    cov = np.linalg.inv(precision)
    mean = cov @ right
    kept = posterior.draws_kept
    draws = np.concatenate([kept.beta.reshape(-1, 2), kept.b[0].reshape(-1, 36)], axis=1)
    sd = np.sqrt(np.diag(cov))
    assert np.abs((draws.mean(axis=0) - mean) / sd).max() < 4.5 / np.sqrt(len(draws))
    np.testing.assert_allclose(np.corrcoef(draws, rowvar=False), cov / np.outer(sd, sd), atol=5 / np.sqrt(len(draws)))
    np.testing.assert_allclose(draws.std(axis=0), sd, rtol=5 / np.sqrt(2 * len(draws)))
