"""Cross-validation of responses that are not normal, and of posteriors, against integrals by brute force."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cross_validation_samples import clustered, rows_of, schools
from scipy import integrate, stats
from scipy.special import expit, logsumexp

import multilevel as ml


def by_grid(density: Any, mean: Any, cov: Any, nodes: int) -> float:
    """Log of the mean of exp(sum(density)) over a normal predictor, by even steps along each direction it varies in."""
    values, vectors = np.linalg.eigh(cov)
    some = values > 1e-11 * values[-1]
    A = vectors[:, some] * np.sqrt(values[some])
    at = np.linspace(-7, 7, nodes)
    z = np.array(list(itertools.product(at, repeat=A.shape[1])))
    terms = density(mean + z @ A.T).sum(axis=1) + stats.norm.logpdf(z).sum(axis=1)
    return float(logsumexp(terms) + A.shape[1] * np.log(at[1] - at[0]))


def crps_of(below: Any, y: int, draws: int) -> tuple[float, float]:
    """CRPS of a distribution on 0, 1, ..., and the standard error of its estimate from independent draws.

    The estimate ``mean|X - y| - mean|X - X'| / 2`` varies as the mean over draws of ``|X - y| - E|X - X'|`` (Hoeffding).
    """
    counts = np.arange(len(below))
    chance = np.diff(below, prepend=0.0)
    single = np.abs(counts - y) - np.abs(counts[:, None] - counts) @ chance
    variance = chance @ single**2 - (chance @ single) ** 2
    return float(np.sum((below - (counts >= y)) ** 2)), float(np.sqrt(variance / draws))


def log_mean(terms: Any) -> tuple[Any, Any]:
    """Log of the mean of densities over draws (draws, ...), and the standard error between two such means."""
    value = logsumexp(terms, axis=0) - np.log(len(terms))
    spread = np.exp(logsumexp(2 * np.asarray(terms), axis=0) - np.log(len(terms)) - 2 * value) - 1
    return value, np.sqrt(2 * spread / len(terms))


DENSITIES: dict[str, tuple[Any, float, float, float]] = {
    "outlier of student": (lambda e: stats.t.logpdf(30 - e, 3, scale=0.3), 0.0, 2.0, 1e-7),
    "large count": (lambda e: stats.poisson.logpmf(100_000, np.exp(e)), 10.0, 1.0, 1e-7),
    "no count": (lambda e: stats.poisson.logpmf(0, np.exp(e)), 3.0, 2.0, 1e-6),
    "unlikely success": (lambda e: -np.logaddexp(0, -e), -8.0, 4.0, 1e-6),
    "success, cloglog": (lambda e: np.log(-np.expm1(-np.exp(np.minimum(e, 5)))), -3.0, 3.0, 1e-5),
    "success, cauchit": (lambda e: np.log(np.arctan(e) / np.pi + 0.5), -6.0, 3.0, 2e-3),  # two humps
    "no spread": (lambda e: stats.norm.logpdf(1.0, e), 0.5, 0.0, 1e-12),
}


@pytest.mark.parametrize("name", DENSITIES)
def test_integrals_over_a_linear_predictor(name: str) -> None:
    from multilevel.cross_validation_integrals import joint_log_score, row_log_scores

    density, mean, sd, within = DENSITIES[name]
    z = np.linspace(-12, 12, 200_001)
    exact = logsumexp(density(mean + sd * z) + stats.norm.logpdf(z)) + np.log(z[1] - z[0])
    exact = exact if sd else density(np.float64(mean))
    assert row_log_scores(density, np.array([mean]), np.array([sd]))[0] == pytest.approx(exact, abs=within)
    joint = joint_log_score(density, np.array([mean]), np.array([[sd**2]]), np.random.default_rng(0))
    assert joint == pytest.approx(exact, abs=within)


@pytest.mark.parametrize(("kind", "side", "nodes", "within"), [
    ("binomial", "x", 141, 1e-6), ("poisson", "x", 281, 1e-6), ("binomial", "x + w", 71, 0.01),
])  # fmt: skip
def test_joint_score_of_a_group_against_a_grid(kind: str, side: str, nodes: int, within: float) -> None:
    data = clustered(kind)
    formula = f"y ~ {side} + (1 | g)"
    result = ml.cross_validate(ml.Model(formula, data, family=kind), leave="groups", folds="all", seed=2)
    table = result.by_group().set_index("group")
    for label in (0, 5):
        out = (data["g"] == label).to_numpy()
        fit = ml.Model(formula, data[~out], family=kind).fit()
        new = data[out]
        x = np.column_stack([np.ones(len(new)), *(new[name] for name in side.split(" + "))])
        cov = x @ np.asarray(fit.vcov()) @ x.T + fit.varcorr()["vcov"].iloc[0]
        y = new["y"].to_numpy()
        density = {
            "binomial": lambda eta, y=y: stats.bernoulli.logpmf(y, expit(eta)),
            "poisson": lambda eta, y=y: stats.poisson.logpmf(y, np.exp(eta)),
        }[kind]
        exact = by_grid(density, x @ fit.fixef()["estimate"].to_numpy(), cov, nodes)
        assert table.loc[label, "joint_log_score"] == pytest.approx(exact, abs=within)


@pytest.mark.parametrize("leave", ["rows", "groups"])
def test_scores_of_counts_by_row_against_integrals(leave: str) -> None:
    data = clustered("poisson")
    model = ml.Model("y ~ x + (1 | g)", data, family="poisson")
    result = ml.cross_validate(model, leave=leave, folds=4, seed=2)
    found = rows_of(result, result.names[0])
    fold = found["fold"].iloc[0]
    out = (found["fold"] == fold).to_numpy()
    fit = ml.Model("y ~ x + (1 | g)", data[~out], family="poisson").fit()
    link = fit.predict(data[out], kind="link", interval="confidence", new_levels="population")
    means = fit.predict(data[out], new_levels="population")["prediction"]
    np.testing.assert_allclose(found.loc[out, "prediction"], means, rtol=1e-6)
    counts = np.arange(400)
    z = np.linspace(-9, 9, 2001)
    for place in range(0, out.sum(), 7):
        mean, sd = link["prediction"].iloc[place], link["std_error"].iloc[place]
        eta = mean + sd * z
        density = stats.poisson.pmf(counts[:, None], np.exp(eta)) * stats.norm.pdf(z)
        probability = integrate.trapezoid(density, z, axis=1)
        y = int(data.loc[out, "y"].iloc[place])
        assert found.loc[out, "log_score"].iloc[place] == pytest.approx(np.log(probability[y]), abs=1e-5)
        crps, error = crps_of(np.cumsum(probability), y, 1000)
        assert abs(found.loc[out, "crps"].iloc[place] - crps) < 4 * error


def test_proportions_and_categories() -> None:
    data = clustered("binomial").assign(n=4)
    rng = np.random.default_rng(1)
    shift = rng.standard_normal(14)[data["g"]]
    data["s"] = rng.binomial(4, expit(0.5 * data["x"] + shift))
    result = ml.cross_validate(ml.Model("s | trials(n) ~ x + (1 | g)", data, family="binomial"), folds=3, seed=1)
    rows = rows_of(result, result.names[0])
    np.testing.assert_allclose(rows["observed"], data["s"] / 4)
    assert rows["prediction"].between(0, 1).all() and (rows["crps"] < 1).all()
    fold = (rows["fold"] == 1).to_numpy()
    fit = ml.Model("s | trials(n) ~ x + (1 | g)", data[~fold], family="binomial").fit()
    link = fit.predict(data[fold], kind="link", interval="confidence")
    z = np.linspace(-9, 9, 1001)
    eta = link["prediction"].to_numpy()[:, None] + link["std_error"].to_numpy()[:, None] * z
    pmf = stats.binom.pmf(data.loc[fold, "s"].to_numpy()[:, None], 4, expit(eta)) * stats.norm.pdf(z)
    np.testing.assert_allclose(rows.loc[fold, "log_score"], np.log(integrate.trapezoid(pmf, z, axis=1)), atol=1e-6)

    data["c"] = np.digitize(data["x"] + 1.5 * shift + rng.logistic(size=len(data)), [-1.0, 1.0])
    model = ml.Model("c ~ x + (1 | g)", data, family="ordinal")
    result = ml.cross_validate(model, leave="groups", folds=4, seed=1)
    rows = rows_of(result, result.names[0])
    out = (rows["fold"] == 1).to_numpy()
    fit = ml.Model("c ~ x + (1 | g)", data[~out], family="ordinal").fit()
    link = fit.predict(data[out], kind="link", interval="confidence", new_levels="population")
    cuts = np.concatenate([[-np.inf], fit.extra()["estimate"], [np.inf]])
    code = data.loc[out, "c"].to_numpy()
    eta = link["prediction"].to_numpy()[:, None] + link["std_error"].to_numpy()[:, None] * z
    share = expit(cuts[code + 1][:, None] - eta) - expit(cuts[code][:, None] - eta)
    exact = np.log(integrate.trapezoid(share * stats.norm.pdf(z), z, axis=1))
    np.testing.assert_allclose(rows.loc[out, "log_score"], exact, atol=1e-5)
    assert rows["prediction"].isna().all() and np.isfinite(result.summary()["crps"]).all()
    joint = result.by_group()["joint_log_score"].to_numpy()
    assert np.isfinite(joint).all() and joint.max() < 0


@pytest.mark.parametrize("family", ["gamma", "student", "nbinom2", "lognormal", "beta", "tweedie"])
def test_every_kind_of_response_has_scores(family: str) -> None:
    data = clustered("poisson", 10, 10)
    rng = np.random.default_rng(3)
    mean = np.exp(0.3 * data["x"])
    data["y"] = {
        "gamma": rng.gamma(3, mean / 3), "student": data["x"] + rng.standard_t(4, len(data)),
        "nbinom2": rng.negative_binomial(2, 2 / (2 + mean)), "lognormal": mean * np.exp(rng.standard_normal(len(data))),
        "beta": rng.beta(4 * expit(data["x"]), 4 * expit(-data["x"])), "tweedie": rng.poisson(mean) * rng.gamma(2, mean),
    }[family]  # fmt: skip
    result = ml.cross_validate(ml.Model("y ~ x + (1 | g)", data, family=family), leave="groups", folds=3, seed=1)
    summary = result.summary()
    assert np.isfinite(summary[["rmse", "mae", "log_score", "crps", "joint_log_score"]].to_numpy()).all()
    rows = rows_of(result, result.names[0])
    assert (rows["crps"] > 0).all() and rows["crps"].mean() < np.abs(rows["observed"] - rows["prediction"]).mean() * 1.05


def alone(data: pd.DataFrame, column: str, label: Any) -> Any:
    """Labels of one fold: the rows of one group."""
    return np.where(data[column] == label, "out", None)


def draws_of(post: Any) -> tuple[Any, Any]:
    """(draws, p) coefficients and (draws, k, k) covariances of the first term."""
    beta, cov = post.draws_kept.beta, post.covariances(0)
    return beta.reshape(-1, beta.shape[-1]), np.reshape(cov, (-1, *cov.shape[-2:]))


def test_a_posterior_averages_densities_over_draws() -> None:
    """Against a loop over other draws of the same posterior, each with its dense density."""
    data, formula = schools(), "math ~ homework + (homework | schid)"
    start = ml.Model(formula, data).sample(chains=2, draws=1500, seed=1, progress=False)
    found = ml.cross_validate(start, leave=alone(data, "schid", 7472), seed=1)
    out = (data["schid"] == 7472).to_numpy()
    post = ml.Model(formula, data[~out]).sample(chains=2, draws=1500, seed=99, progress=False)
    beta, between = draws_of(post)
    sigma = post.draws_kept.scalar("sigma").ravel()
    x, y = np.column_stack([np.ones(out.sum()), data.loc[out, "homework"]]), data.loc[out, "math"].to_numpy(float)
    joint, each, ranks = [], [], []
    for b, cov, s in zip(beta, between, sigma, strict=True):
        total = x @ cov @ x.T + s**2 * np.eye(len(x))
        joint.append(stats.multivariate_normal(x @ b, total).logpdf(y))
        own = stats.norm(x @ b, np.sqrt(np.diag(total)))
        each.append(own.logpdf(y))
        ranks.append(own.cdf(y))
    value, error = log_mean(joint)
    assert abs(found.by_group()["joint_log_score"].iloc[0] - value) < 4 * error
    rows = found.by_row()
    by_row, error = log_mean(each)
    assert np.all(np.abs(rows["log_score"] - by_row) < 4 * error)
    error = np.std(ranks, axis=0) * np.sqrt(2 / 2000)
    assert np.all(np.abs(rows["pit"] - np.mean(ranks, axis=0)) < 4 * error)
    means = beta @ x.T
    error = means.std(axis=0) * np.sqrt(2 / 2000)  # of the difference of two means, each worth 2,000 draws at least
    assert np.all(np.abs(rows["prediction"] - means.mean(axis=0)) < 4 * error)


def test_a_posterior_of_counts_averages_densities_over_draws() -> None:
    data, formula = clustered("poisson"), "y ~ x + (1 | g)"
    start = ml.Model(formula, data, family="poisson").sample(chains=2, draws=400, seed=1, progress=False)
    found = ml.cross_validate(start, leave=alone(data, "g", 3), seed=1)
    out = (data["g"] == 3).to_numpy()
    post = ml.Model(formula, data[~out], family="poisson").sample(chains=2, draws=400, seed=99, progress=False)
    beta, between = draws_of(post)
    x, y = np.column_stack([np.ones(out.sum()), data.loc[out, "x"]]), data.loc[out, "y"].to_numpy()
    z = np.linspace(-7, 7, 401)
    weights = stats.norm.logpdf(z) + np.log(z[1] - z[0])
    each, squares, joint, below = [], [], [], []
    counts = np.arange(y.max() + 200)
    for k, (b, cov) in enumerate(zip(beta, between, strict=True)):
        means = np.exp((x @ b) + np.sqrt(cov[0, 0]) * z[:, None])
        if k % 10 == 0:
            chances = stats.poisson.cdf(counts, means[::10, :, None])
            below.append(np.einsum("z,zik->ik", 10 * np.exp(weights[::10]), chances))
        terms = stats.poisson.logpmf(y, means)
        each.append(logsumexp(terms + weights[:, None], axis=0))
        squares.append(logsumexp(2 * terms + weights[:, None], axis=0))
        joint.append(logsumexp(terms.sum(axis=1) + weights))
    value, error = log_mean(joint)
    error *= np.sqrt((1 + len(joint) / 400) / 2)  # 400 draws are behind a group's score, all of them behind this one
    assert abs(found.by_group()["joint_log_score"].iloc[0] - value) < 4 * error
    rows = found.by_row()
    log_density = logsumexp(each, axis=0) - np.log(len(each))
    # a row's density is a mean over draws of the group's effect: its relative error is known from the mean of squares
    spread = np.exp(logsumexp(squares, axis=0) - np.log(len(each)) - 2 * log_density) - 1
    assert np.all(np.abs(rows["log_score"] - log_density) < 4 * np.sqrt(2 * spread / len(each)))
    whole = np.mean(below, axis=0)
    for i, observed in enumerate(y.tolist()):
        exact, error = crps_of(whole[i], observed, len(beta))
        lean = [2 * np.sum((whole[i] - (counts >= observed)) * (one[i] - whole[i])) for one in below]
        error = np.hypot(error, np.std(lean) / np.sqrt(len(below)))  # the draws of the parameters behind `whole`
        assert abs(rows["crps"].iloc[i] - exact) < 4 * error
