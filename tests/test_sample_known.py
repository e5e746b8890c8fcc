"""Full Bayes with known covariances between levels: dense densities, another engine, an integral on a grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats
from test_joint import slopes, target
from test_sample import standard_errors

import multilevel as ml


def kinship(levels: int, seed: int = 3) -> Any:
    """A covariance with unequal variances and relatives, some of whose precision is zero."""
    rng = np.random.default_rng(seed)
    blocks = np.zeros((levels, levels))
    for at in range(0, levels, 4):
        w = rng.standard_normal((4, 6))[: min(4, levels - at)]
        blocks[at : at + 4, at : at + 4] = w @ w.T / 6 + 0.3 * np.eye(len(w))
    return blocks


def rows(levels: int = 8, n: int = 60, seed: int = 4) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    g = np.r_[np.arange(levels), rng.integers(0, levels, n - levels)]
    x = rng.standard_normal(n)
    b = np.linalg.cholesky(kinship(levels)) @ rng.standard_normal((levels, 2))
    eta = 0.4 + 0.3 * x + 0.8 * b[g, 0] + 0.4 * x * b[g, 1]
    return {
        "x": x, "g": g, "h": rng.integers(0, 5, n), "count": rng.poisson(np.exp(eta)),
        "positive": np.exp(eta + 0.5 * rng.standard_normal(n)),
    }  # fmt: skip


def known(levels: int = 8) -> dict[str, Any]:
    return {"g": ml.KnownCovariance(list(range(levels)), covariance=kinship(levels))}


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("term", ["(1 | g)", "(x | g)", "(x || g)", "cs(x | g)", "(x | g) + (1 | h)"])
def test_gradients_and_values(term: str, centred: bool) -> None:
    data = rows()
    made = target(f"count ~ x + {term}", data, family="poisson", covariance=known())
    made.centred = [centred] * len(made.engine.groups)
    core = made.core = made._core()
    rng = np.random.default_rng(1)
    phi = 0.3 * rng.standard_normal(made.parameters)
    value, gradient = core.marginal(phi, True)
    wanted = slopes(lambda v: core.marginal(v, False)[0], phi, range(len(phi)))
    np.testing.assert_allclose(gradient, wanted, rtol=1e-5, atol=1e-6 * (1 + np.abs(gradient).max()))
    x = np.r_[phi, 0.3 * rng.standard_normal(core.size - len(phi))]
    value, gradient = core.log_posterior(x, True)
    wanted = slopes(lambda v: core.log_posterior(v, False)[0], x, range(len(x)))
    np.testing.assert_allclose(gradient, wanted, rtol=1e-6, atol=1e-6 * (1 + np.abs(gradient).max()))
    # group effects elsewhere: the change of the density is that of Poisson rows and of a normal vector with covariance G x K
    other = np.r_[phi, 0.3 * rng.standard_normal(core.size - len(phi))]
    found = core.log_posterior(other, False)[0] - value
    wanted_change = conditional(made, data, other) - conditional(made, data, x)
    assert found == pytest.approx(wanted_change, abs=1e-8)


def conditional(made: Any, data: dict[str, Any], x: Any) -> float:
    """log p(y | b) + log p(b), up to what the parameters alone decide, without the library's algebra."""
    d, phi = made.design, x[: made.parameters]
    values = made.core.constrained(phi[None])[0]
    effects = made.effects(made.core.effects(x[None]))
    named = list(zip(made.coordinates, values, strict=False))
    eta = d.X @ values[len(made.coordinates) :]
    out = 0.0
    for t, term in enumerate(d.terms):
        k = len(term.names)
        s = np.array([v for c, v in named if c.term == t and c.kind == "sd"])
        r = np.eye(k)
        for c, v in named:
            if c.term == t and c.kind == "cor":
                r[c.effects[0], c.effects[1]] = r[c.effects[1], c.effects[0]] = v
        if term.group == "g":  # the library may have put the levels into another order
            order = [int(level) for level in term.levels]
            k_levels = kinship(8)[np.ix_(order, order)]
        else:
            k_levels = np.eye(len(term.levels))
        b = effects[t][0]
        cov = np.kron(k_levels, r * np.outer(s, s))
        out += float(stats.multivariate_normal(np.zeros(b.size), cov).logpdf(b.ravel()))
        z = np.ones((len(d.y), 1)) if term.Z is None else term.Z
        eta = eta + np.einsum("ij,ij->i", z, b[term.codes])
    assert len(named)
    return out + float(stats.poisson(np.exp(eta)).logpmf(d.y).sum())


def test_the_marginal_is_the_laplace_approximation_and_the_priors() -> None:
    data = rows()
    priors = {"b": ml.Normal(0, 1), "Intercept": ml.Normal(0, 1), "sd": ml.HalfNormal(2)}
    options: dict[str, Any] = {"family": "poisson", "covariance": known()}
    made = target("count ~ x + (1 | g)", data, priors=priors, **options)
    fit = ml.Model("count ~ x + (1 | g)", data, **options).fit()
    sd, beta = float(np.sqrt(fit.random_cov()[0][0, 0])), fit.optimum.beta
    value, _ = made.core.marginal(np.r_[np.log(sd), beta], False)
    prior = stats.norm(0, 1).logpdf(beta).sum() + stats.halfnorm(scale=2).logpdf(sd) + np.log(sd)
    assert value == pytest.approx(fit.loglik + prior, abs=1e-6)


def test_lognormal_is_the_linear_model_of_the_logarithm() -> None:
    """The same posterior two ways: joint NUTS, and everything but the scales integrated out."""
    data = rows(12, 150)
    data["log"] = np.log(data["positive"])
    priors = {"Intercept": ml.Normal(0, 1), "x": ml.Normal(0, 1), "sd": ml.HalfNormal(1), "cor": ml.LKJ(2)}
    linear = ml.Model(
        "log ~ x + (x | g)", data, covariance=known(12), priors={**priors, "sigma": ml.LogNormal(-0.7, 0.5)}
    )
    joint = ml.Model(
        "positive ~ x + (x | g)", data, family="lognormal", covariance=known(12),
        priors={**priors, "sigma[Intercept]": ml.Normal(-0.7, 0.5)},
    )  # fmt: skip
    found = [m.sample(seed=3, draws=2000) for m in (linear, joint)]
    assert all(p.trust[0] for p in found)
    one, two = (p.draws_kept for p in found)
    pairs = [(one.scalars[..., i], two.scalars[..., i]) for i in range(3)]
    pairs += [(np.log(one.scalars[..., 3]), two.scalars[..., 3])]
    pairs += [(one.beta[..., i], two.beta[..., i]) for i in range(2)]
    pairs += [(one.b[0][:, :, j, i], two.b[0][:, :, j, i]) for j in range(12) for i in range(2)]
    for a, b in pairs:
        (mean_a, sd_a), (mean_b, sd_b) = standard_errors(a), standard_errors(b)
        assert abs(a.mean() - b.mean()) < 4 * np.hypot(mean_a, mean_b)
        assert abs(a.std() - b.std()) < 4 * np.hypot(sd_a, sd_b)


def test_draws_are_of_the_posterior_by_brute_force() -> None:
    """One sd, one coefficient; the effects of each pair of relatives integrated by a product rule of 61 x 61 points."""
    rng = np.random.default_rng(9)
    pairs = [np.array([[1.0, 0.5], [0.5, 1.0]]), np.array([[1.2, 0.9], [0.9, 0.8]])]
    k = np.zeros((4, 4))
    k[:2, :2], k[2:, 2:] = pairs
    data = {"g": np.repeat(np.arange(4), 6), "yes": rng.binomial(1, np.repeat([0.2, 0.5, 0.9, 0.6], 6))}
    priors = {"Intercept": ml.Normal(0, 1), "sd": ml.HalfNormal(1.5)}
    covariance = {"g": ml.KnownCovariance([0, 1, 2, 3], covariance=k)}
    model = ml.Model("yes ~ 1 + (1 | g)", data, family="binomial", covariance=covariance, priors=priors)
    kept = model.sample(seed=6, draws=2500, target=0.95).draws_kept
    z, w = np.polynomial.hermite_e.hermegauss(61)
    points = np.stack(np.meshgrid(z, z, indexing="ij"), axis=-1).reshape(-1, 2)
    weights = np.outer(w, w).ravel()
    sums = np.array([data["yes"][data["g"] == j].sum() for j in range(4)])
    log_sd, beta = np.linspace(-5, 2, 71)[:, None, None], np.linspace(-4, 4, 49)[:, None]
    total = stats.halfnorm(scale=1.5).logpdf(np.exp(log_sd[..., 0])) + log_sd[..., 0] + stats.norm.logpdf(beta[:, 0])
    for at, own in zip((0, 2), pairs, strict=True):
        effects = points @ np.linalg.cholesky(own).T
        log_l = np.zeros((71, 49, len(points)))
        for j in range(2):
            eta = beta + np.exp(log_sd) * effects[:, j]
            log_l += sums[at + j] * eta - 6 * np.logaddexp(0, eta)
        total = total + np.log((np.exp(log_l) * weights).sum(axis=-1))
    p = np.exp(total - total.max())
    p /= p.sum()
    for x, values in ((kept.scalars[..., 0], np.exp(log_sd[..., 0])), (kept.beta[..., 0], beta[:, 0])):
        mean = float((p * values).sum())
        of_mean, of_sd = standard_errors(x)
        assert abs(x.mean() - mean) < 4 * of_mean
        assert abs(x.std() - np.sqrt((p * (values - mean) ** 2).sum())) < 4 * of_sd


def test_levels_without_rows_are_drawn_from_their_relatives() -> None:
    """A pedigree whose parents have no rows: their posterior follows the children's."""
    family = {"animal": list("abcd"), "sire": [None, None, "a", "a"], "dam": [None, None, "b", "b"]}
    import pandas as pd

    rng = np.random.default_rng(2)
    data = {"animal": np.repeat(["c", "d"], 40), "count": rng.poisson(np.repeat([6.0, 5.0], 40))}
    model = ml.Model(
        "count ~ 1 + (1 | animal)", data, family="poisson", covariance={"animal": ml.pedigree(pd.DataFrame(family))},
        priors={"Intercept": ml.Fixed(0.0), "sd": ml.Fixed(1.0)},
    )  # fmt: skip
    posterior = model.sample(seed=1, draws=2000)
    means = {r["level"]: r["estimate"] for r in pd.DataFrame(posterior.ranef()).to_dict("records")}
    # given the children, a parent's mean is K_pc K_cc^{-1} of theirs: halves of each, children correlated by a half
    children = means["c"] + means["d"]
    assert means["c"] == pytest.approx(np.log(6), abs=0.2)
    assert means["a"] == pytest.approx(children / 3, abs=0.06)
    assert means["b"] == pytest.approx(children / 3, abs=0.06)
