"""Posterior of generalised models: gradients over families, and draws against integrals, a linear model and a reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_sample import REFERENCE, standard_errors

import multilevel as ml
from multilevel.joint import JointTarget
from multilevel.prior_table import further_of, prior_table


def rows(seed: int = 4) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    n = 60
    x = rng.standard_normal(n)
    g, h = rng.integers(0, 8, n), rng.integers(0, 5, n)
    eta = 0.3 * x + rng.normal(0, 0.5, 8)[g]
    return {
        "x": x, "g": g, "h": h, "m": np.full(n, 7), "bin": rng.binomial(7, 1 / (1 + np.exp(-eta))),
        "count": rng.poisson(np.exp(eta)) * (rng.random(n) > 0.2), "pos": rng.gamma(3.0, np.exp(eta) / 3),
        "share": np.clip(rng.beta(3, 3, n), 0.01, 0.99), "num": eta + rng.standard_normal(n),
        "cat": np.digitize(eta + rng.logistic(size=n), [-1, 0.5, 2]),
    }  # fmt: skip


CASES: list[tuple[str, dict[str, Any]]] = [
    *(("bin | trials(m)", {"family": "binomial", "link": k}) for k in ("logit", "probit", "cloglog", "cauchit")),
    ("bin | trials(m)", {"family": "betabinomial"}),
    ("count", {"family": "poisson"}),
    ("count", {"family": "poisson", "link": "sqrt"}),
    ("count", {"family": "nbinom2"}),
    ("count", {"family": "nbinom1", "dispersion": "~ x"}),
    ("count", {"family": "nbinom2", "zi": "~ x"}),
    ("count", {"family": "poisson", "hurdle": "~ 1"}),
    ("pos", {"family": "gamma"}),
    ("pos", {"family": "inverse_gaussian"}),
    ("pos", {"family": "lognormal", "dispersion": "~ x"}),
    ("pos", {"family": "gaussian", "link": "log"}),
    ("share", {"family": "beta"}),
    ("num", {"family": "student"}),
    *(("cat", {"family": "ordinal", "link": k}) for k in ("logit", "probit", "cloglog", "cauchit")),
]
PRIORS: list[dict[str, Any]] = [{}, {"x": ml.StudentT(3, 0, 1), "sd": ml.HalfNormal(1), "cor": ml.LKJ(1)}]


def target(formula: str, data: Any, **options: Any) -> JointTarget:
    model = ml.Model(formula, data, **options)
    entries = prior_table(model.design, model.distribution, model.priors, further_of(model))
    return JointTarget(model.laplace(1), entries)


def slopes(f: Any, x: Any, index: Any) -> Any:
    """Derivatives of f by differences of fourth order."""
    out = []
    for i in index:
        e = np.zeros(len(x))
        e[i] = 1e-3
        v = [f(x + k * e) for k in (-2, -1, 1, 2)]
        out.append((v[0] - 8 * v[1] + 8 * v[2] - v[3]) / 0.012)
    return np.array(out)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("priors", PRIORS, ids=["default", "given"])
@pytest.mark.parametrize(("response", "options"), CASES, ids=lambda v: v if isinstance(v, str) else "-".join(v.values()))
def test_gradients(response: str, options: dict[str, Any], priors: dict[str, Any], centred: bool) -> None:
    made = target(f"{response} ~ x + (x | g) + (1 | h)", rows(), priors=priors, **options)
    made.centred = [centred] * len(made.engine.groups)
    core = made.core = made._core()
    rng = np.random.default_rng(1)
    sds = [np.array([0.6, 0.4]), np.array([0.5])]
    beta = made.engine.x_basis @ made.engine._first_beta()
    c = made.engine.coefficients
    phi = np.array(made._coordinates(sds, [np.eye(2), np.eye(1)], beta, c.basis @ c.start))
    phi = phi + 0.05 * rng.standard_normal(len(phi))
    value, gradient = core.marginal(phi, True)
    assert np.isfinite(value)
    wanted = slopes(lambda v: core.marginal(v, False)[0], phi, range(len(phi)))
    np.testing.assert_allclose(gradient, wanted, rtol=1e-5, atol=1e-6 * (1 + np.abs(gradient).max()))
    core.marginal(phi, False)
    mode = core.group_mode(phi)
    x = np.r_[phi, mode + 0.05 * rng.standard_normal(len(mode))]
    value, gradient = core.log_posterior(x, True)
    assert np.isfinite(value)
    index = np.r_[0 : len(phi), rng.integers(len(phi), len(x), 8)]
    wanted = slopes(lambda v: core.log_posterior(v, False)[0], x, index)
    np.testing.assert_allclose(gradient[index], wanted, rtol=1e-6, atol=1e-6 * (1 + np.abs(gradient).max()))


def test_the_marginal_is_the_laplace_approximation_and_the_priors() -> None:
    from scipy import stats

    data = ml.load("cbpp")
    formula = "cbind(incidence, size - incidence) ~ 1 + (1 | herd)"
    priors = {"Intercept": ml.Normal(-1, 1), "sd": ml.HalfNormal(2)}
    made = target(formula, data, family="binomial", priors=priors)
    fit = ml.Model(formula, data, family="binomial").fit()
    sd, beta = float(np.sqrt(fit.random_cov()[0][0, 0])), float(fit.optimum.beta[0])
    value, _ = made.core.marginal(np.array([np.log(sd), beta]), False)
    prior = stats.norm(-1, 1).logpdf(beta) + stats.halfnorm(scale=2).logpdf(sd) + np.log(sd)
    assert value == pytest.approx(fit.loglik + prior, abs=1e-6)


def test_draws_are_of_the_posterior_by_quadrature() -> None:
    """Two parameters: the posterior on a grid, herd effects integrated by 41 Gauss-Hermite nodes."""
    from scipy import stats

    data = ml.load("cbpp")
    priors = {"Intercept": ml.Normal(-1, 1), "sd": ml.HalfNormal(2)}
    formula = "cbind(incidence, size - incidence) ~ 1 + (1 | herd)"
    posterior = ml.Model(formula, data, family="binomial", priors=priors).sample(seed=4, draws=2500)
    z, w = np.polynomial.hermite_e.hermegauss(61)
    log_sd, beta = np.meshgrid(np.linspace(-4, 1.5, 111), np.linspace(-3.5, 0.5, 101), indexing="ij")
    eta = beta[..., None] + np.exp(log_sd)[..., None] * z
    total = stats.norm(-1, 1).logpdf(beta) + stats.halfnorm(scale=2).logpdf(np.exp(log_sd)) + log_sd
    for _, own in data.groupby("herd"):
        log_l = own["incidence"].sum() * eta - own["size"].sum() * np.logaddexp(0, eta)
        top = log_l.max(axis=-1)
        total = total + top + np.log((np.exp(log_l - top[..., None]) * w).sum(axis=-1))
    p = np.exp(total - total.max())
    p /= p.sum()
    kept = posterior.draws_kept
    for x, values in ((kept.scalars[:, :, 0], np.exp(log_sd)), (kept.beta[:, :, 0], beta)):
        mean = float((p * values).sum())
        sd = float(np.sqrt((p * (values - mean) ** 2).sum()))
        of_mean, of_sd = standard_errors(x)
        assert abs(x.mean() - mean) < 4 * of_mean
        assert abs(x.std() - sd) < 4 * of_sd


def test_lognormal_is_the_linear_model_of_the_logarithm() -> None:
    """The same posterior two ways: joint NUTS, and everything but the scales integrated out."""
    data = ml.load("sleepstudy")
    data["log"] = np.log(data["Reaction"])
    shared = {
        "Intercept": ml.Normal(5.5, 0.5), "Days": ml.Normal(0, 0.1), "sd(Subject, Intercept)": ml.HalfNormal(0.3),
        "sd(Subject, Days)": ml.HalfNormal(0.1), "cor": ml.LKJ(2),
    }  # fmt: skip
    linear = ml.Model("log ~ Days + (Days | Subject)", data, priors={**shared, "sigma": ml.LogNormal(-2.5, 0.5)})
    joint = ml.Model(
        "Reaction ~ Days + (Days | Subject)", data, family="lognormal",
        priors={**shared, "sigma[Intercept]": ml.Normal(-2.5, 0.5)},
    )  # fmt: skip
    one, two = (m.sample(seed=s, draws=2000).draws_kept for s, m in ((1, linear), (2, joint)))
    pairs = [(one.scalars[..., i], two.scalars[..., i]) for i in range(3)]
    pairs += [(np.log(one.scalars[..., 3]), two.scalars[..., 3])]
    pairs += [(one.beta[..., i], two.beta[..., i]) for i in range(2)]
    pairs += [(one.b[0][:, :, j, i], two.b[0][:, :, j, i]) for j in (0, 7, 17) for i in (0, 1)]
    for a, b in pairs:
        (ma, sa), (mb, sb) = standard_errors(a), standard_errors(b)
        assert abs(a.mean() - b.mean()) < 4 * np.hypot(ma, mb)
        assert abs(a.std() - b.std()) < 4 * np.hypot(sa, sb)


def test_thresholds_ascend_in_every_draw() -> None:
    import pandas as pd

    wine = ml.load("wine")
    wine["rating"] = pd.Categorical(wine["rating"], ordered=True)
    posterior = ml.Model("rating ~ temp + contact + (1 | judge)", wine, family="ordinal").sample(seed=2, target=0.95)
    thresholds = posterior.draws_kept.scalars[..., 1:]
    assert thresholds.shape[-1] == 4
    assert (np.diff(thresholds, axis=-1) > 0).all()


def test_held_parameters_stay_where_they_are() -> None:
    priors = {"sd": ml.Fixed(0.5), "period[T.2]": ml.Fixed(-1.0)}
    posterior = ml.Model(
        "cbind(incidence, size - incidence) ~ period + (1 | herd)", ml.load("cbpp"), family="binomial", priors=priors
    ).sample(seed=2)
    assert (posterior.draws_kept.scalars == 0.5).all()
    assert (posterior.draws_kept.beta[..., 1] == -1.0).all()
    assert posterior.draws_kept.beta[..., 0].std() > 0.1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Do not trust")  # too few draws to be called good, but enough to compare
def test_poisson_reference() -> None:
    """100,000 rows, 2,000 groups with intercept and slope; differences are in Monte Carlo errors of these few draws."""
    rng = np.random.default_rng(8)
    levels, n = 2000, 100_000
    g, x = rng.integers(0, levels, n), rng.standard_normal(n)
    u0, u1 = rng.normal(0, 0.5, levels), rng.normal(0, 0.3, levels)
    y = rng.poisson(np.exp(0.5 + u0[g] + (0.3 + u1[g]) * x))
    data = {"y": y, "x": np.round(x, 6), "g": g}
    priors = {"Intercept": ml.Normal(0, 2.5), "b": ml.Normal(0, 2.5), "sd": ml.HalfNormal(1)}
    model = ml.Model("y ~ x + (x || g)", data, family="poisson", priors=priors)
    kept = model.sample(seed=1, chains=2, draws=300, warmup=200).draws_kept
    found = {
        "b_Intercept": kept.beta[..., 0], "b_x": kept.beta[..., 1], "sd_Intercept": kept.scalars[..., 0],
        "sd_x": kept.scalars[..., 1],
    }  # fmt: skip
    for name, x in found.items():
        ref = REFERENCE["poisson"]["hyper"][name]
        of_mean, of_sd = standard_errors(x)
        assert abs(x.mean() - ref["mean"]) < 4 * np.hypot(of_mean, ref["mcse_mean"]), name
        assert abs(x.std() - ref["sd"]) < 4 * np.hypot(of_sd, ref["mcse_sd"]), name
