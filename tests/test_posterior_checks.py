"""Residuals, checks and new rows of posteriors: against hand computation from the draws, and against fits."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from posterior_samples import drawn, flat, sampled, texts
from scipy.special import expit, ndtri
from scipy.stats import nbinom, norm

import multilevel as ml
from multilevel import posterior_checks, posterior_condition, posterior_residuals
from multilevel.marginal import Marginal
from multilevel.posterior import Posterior
from multilevel.reml import Engine

matplotlib.use("Agg")
LEVELS = ("ok", "look", "problem", "skipped")


@cache
def schools() -> Any:
    return sampled("math ~ homework + (homework | schid)", ml.load("math10"), {"draws": 1000})


@cache
def herds() -> Any:
    data = ml.load("cbpp")
    return sampled("cbind(incidence, size - incidence) ~ period + (1 | herd)", data, {"draws": 500}, family="binomial")


@cache
def nests() -> Any:
    formula = "SiblingNegotiation ~ FoodTreatment + offset(log(BroodSize)) + (1 | Nest)"
    return sampled(formula, ml.load("owls").head(150), {"draws": 200}, family="nbinom2", zi="~ FoodTreatment")


@cache
def wine() -> Any:
    data = ml.load("wine")
    data["rating"] = pd.Categorical(data["rating"], ordered=True)
    return sampled("rating ~ temp + contact + (1 | judge)", data, {"target": 0.95}, family="ordinal")


def predictors(posterior: Any) -> Any:
    """(draws, rows) linear predictors."""
    d, kept = posterior.design, posterior.draws_kept
    eta = flat(kept.beta) @ d.X.T
    for t, term in enumerate(d.terms):
        z = np.ones((len(d.y), 1)) if term.Z is None else term.Z
        eta = eta + np.einsum("snk,nk->sn", flat(kept.b[t])[:, term.codes], z)
    return eta if d.offset is None else eta + d.offset


def further(posterior: Any) -> Any:
    kept = posterior.draws_kept
    return flat(kept.scalars)[:, [i for i, c in enumerate(kept.coordinates) if c.kind == "further"]]


# -- residuals ------------------------------------------------------------------------------------------------------


def test_residuals_of_a_linear_model() -> None:
    posterior, y = schools(), schools().design.y
    eta, sigma = predictors(posterior), flat(posterior.draws_kept.scalar("sigma"))[:, None]
    np.testing.assert_allclose(posterior.residuals(), y - eta.mean(axis=0))
    np.testing.assert_allclose(posterior.residuals(), y - posterior.fitted())
    np.testing.assert_allclose(posterior.residuals("pearson"), (y - eta.mean(axis=0)) / sigma.mean())
    np.testing.assert_allclose(posterior.residuals("quantile"), ndtri(norm.cdf((y - eta) / sigma).mean(axis=0)))
    fit = posterior.model.fit()
    assert np.abs(posterior.residuals("pearson") - fit.residuals("pearson")).max() < 0.1


def test_weights_and_lost_rows() -> None:
    data = ml.load("math10").assign(w=lambda d: 1.0 + d["homework"])
    data.loc[2, "math"] = np.nan
    posterior = sampled("math ~ homework + (1 | schid)", data, weights="w")
    found, y = posterior.residuals("pearson"), data["math"].to_numpy()
    sigma, w = posterior.draws_kept.scalar("sigma").mean(), data["w"].to_numpy()
    assert np.isnan(found[2]) and len(found) == len(data)
    np.testing.assert_allclose(found, (y - posterior.fitted()) * np.sqrt(w) / sigma)
    r = posterior.residuals("quantile")
    assert np.isnan(r[2]) and abs(np.nanstd(r) - 1) < 0.1


def test_residuals_of_shares() -> None:
    posterior, d = herds(), herds().design
    p = expit(predictors(posterior))
    share = d.y / d.trials
    np.testing.assert_allclose(posterior.residuals(), share - p.mean(axis=0))
    sd = np.sqrt(p * (1 - p) / d.trials).mean(axis=0)
    np.testing.assert_allclose(posterior.residuals("pearson"), (share - p.mean(axis=0)) / sd)


def test_residuals_of_counts_with_extra_zeros() -> None:
    """The distribution function by scipy, and the variance by the law of total variance."""
    posterior, d = nests(), nests().design
    mu = np.exp(predictors(posterior))
    values = further(posterior)
    size = np.exp(values[:, :1])
    share = expit(values[:, 1:] @ d.sides["zi"][0].T)
    base = nbinom(size, size / (size + mu))
    mean, variance = (1 - share) * mu, (1 - share) * (mu + mu**2 / size) + share * (1 - share) * mu**2
    np.testing.assert_allclose(posterior.residuals(), d.y - mean.mean(axis=0))
    np.testing.assert_allclose(posterior.residuals("pearson"), (d.y - mean.mean(axis=0)) / np.sqrt(variance).mean(axis=0))
    upper = (share + (1 - share) * base.cdf(d.y)).mean(axis=0)
    lower = np.where(d.y > 0, share + (1 - share) * base.cdf(d.y - 1), 0.0).mean(axis=0)
    r = posterior.residuals("quantile")
    assert (r > ndtri(lower) - 1e-9).all() and (r < ndtri(upper) + 1e-9).all()
    np.testing.assert_array_equal(r, posterior.residuals("quantile"))
    assert not np.array_equal(r, posterior.residuals("quantile", seed=1))


@pytest.mark.parametrize("made", [herds, nests, wine])
def test_quantile_residuals_are_ranks_among_new_responses(made: Any) -> None:
    """Share of simulated responses below and at the observed one, up to the simulation's error."""
    from multilevel.row_draws import new_responses

    posterior = made()
    y = posterior.design.y
    new = np.concatenate([flat(new_responses(posterior, np.random.default_rng(s))) for s in range(5)])
    lower, upper = (new < y).mean(axis=0), (new <= y).mean(axis=0)
    error = 5 * np.sqrt(0.25 / len(new)) + 0.02  # 0.02: distribution functions are of some of the draws
    p = norm.cdf(posterior.residuals("quantile"))
    assert (p > lower - error).all() and (p < upper + error).all()


def test_an_estimated_shape() -> None:
    data = ml.load("math10")
    priors = {"sd": ml.HalfNormal(10), "Intercept": ml.Normal(50, 20)}
    posterior = sampled("math ~ homework + (1 | schid)", data, {"draws": 100}, family="student", priors=priors)
    from scipy.stats import t

    values = further(posterior)
    names = [c.name for c in posterior.draws_kept.coordinates if c.kind == "further"]
    df = posterior.model.distribution.at_shape
    shape = np.array([df(v).df for v in values[:, names.index(next(n for n in names if "df" in n))]])
    size = np.exp(values[:, [names.index(next(n for n in names if "df" not in n))]])
    expected = ndtri(t.cdf((posterior.design.y - predictors(posterior)) / size, shape[:, None]).mean(axis=0))
    np.testing.assert_allclose(posterior.residuals("quantile"), expected, atol=1e-6)
    assert posterior.check()["predictive sd"].verdict == "ok"


def test_residuals_refuse() -> None:
    with pytest.raises(ml.OptionError, match="kind 'working' is not known; allowed are 'response', 'pearson', 'deviance'"):
        schools().residuals("working")
    for kind in ("response", "pearson", "deviance"):
        with pytest.raises(ml.OptionError, match=f"no {kind} residuals.*kind='quantile'"):
            wine().residuals(kind)
    with pytest.raises(ml.OptionError, match="no expectation.*predict"):
        wine().fitted()
    with pytest.raises(ml.OptionError, match="seed must be"):
        nests().residuals("quantile", seed="x")
    alone = sampled("math ~ 1 + (1 | schid)", ml.load("math10"), {"keep": "parameters", "draws": 50})
    for call in (alone.residuals, alone.check, alone.plot.check):
        with pytest.raises(ml.MultilevelError, match="kept no group effects|not kept"):
            call()


def test_draws_are_thinned_evenly() -> None:
    posterior = herds()
    assert posterior_residuals.thinned(posterior).draws_kept.draws <= posterior.draws_kept.draws
    few = replace(posterior.draws_kept, beta=np.tile(posterior.draws_kept.beta, (1, 40, 1)))
    many = replace(few, scalars=np.tile(few.scalars, (1, 40, 1)), b=[np.tile(b, (1, 40, 1, 1)) for b in few.b])
    found = posterior_residuals.thinned(Posterior(posterior.model, many, posterior.entries))
    assert found.draws_kept.chains * found.draws_kept.draws * 56 <= 2e5


# -- new rows ---------------------------------------------------------------------------------------------------------


def by_hand(posterior: Any, d: Any, i: int) -> tuple[Any, Any]:
    """Mean and covariance of all effects given the rows of a design, at draw i: dense normal equations."""
    kept = posterior.draws_kept
    beta, sigma = flat(kept.beta)[i], flat(kept.scalar("sigma"))[i]
    Z, blocks = [], []
    for t, term in enumerate(d.terms):
        z = np.ones((len(d.y), 1)) if term.Z is None else term.Z
        part = np.zeros((len(d.y), len(term.levels), z.shape[1]))
        part[np.arange(len(d.y)), term.codes] = z
        Z.append(part.reshape(len(d.y), -1))
        blocks.append(np.kron(np.eye(len(term.levels)), np.linalg.inv(flat(posterior.covariances(t))[i])))
    Z = np.hstack(Z)
    precision, at = Z.T @ ((np.ones(len(d.y)) if d.weights is None else d.weights)[:, None] * Z) / sigma**2, 0
    for block in blocks:
        precision[at : at + len(block), at : at + len(block)] += block
        at += len(block)
    w = np.ones(len(d.y)) if d.weights is None else d.weights
    rest = d.y - d.X @ beta - (0 if d.offset is None else d.offset)
    cov = np.linalg.inv(precision)
    return cov @ Z.T @ (w * rest) / sigma**2, cov


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "correlated": ("y ~ x + (x | g)", {}),
    "uncorrelated, crossed, weights": ("y ~ x + (x || g) + (1 | h)", {"weights": "w"}),
    "compound symmetry, offset": ("y ~ x + offset(x) + cs(0 + arm | g)", {}),
    "autoregressive": ("y ~ x + ar1(0 + arm | g)", {"levels": {"arm": list("abc")}}),
    "held": ("y ~ x + (x | g)", {"priors": {"x": ml.Fixed(1.0), "cor": ml.Fixed(0.3), "sigma": ml.Fixed(1.1)}}),
    "other priors": ("y ~ x + (1 | g)", {"priors": {"x": ml.Uniform(-3, 3), "sd": ml.Uniform(0, 4), "b": ml.Cauchy()}}),
}


def data_of(seed: int, n: int, groups: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    g = rng.integers(0, groups, n)
    data = pd.DataFrame({"x": rng.normal(size=n), "g": g, "h": rng.integers(0, 4, n), "w": rng.uniform(0.5, 2, n)})
    data["arm"] = rng.choice(["a", "b", "c"], n)
    data["y"] = 1 + data["x"] + np.sin(g) * (1 + data["x"]) + rng.normal(size=n)
    return data


@pytest.mark.parametrize("name", CASES)
def test_new_rows_are_taken_in_exactly(name: str) -> None:
    """Standardised by the dense mean and covariance of its draw, every draw of all effects is standard normal."""
    formula, given = CASES[name]
    posterior = sampled(formula, data_of(1, 60, 6), {"draws": 500}, **given)
    new = data_of(2, 12, 9)
    found = posterior.condition(new, weights=given.get("weights"), seed=3)
    d, kept = found._inner.design, posterior.draws_kept
    assert len(d.y) == 72 and found.n_new == 12
    total = kept.chains * kept.draws
    z = []
    effects = np.hstack([flat(found.group_effects(t)).reshape(total, -1) for t in range(len(d.terms))])
    for i in range(0, total, 10):
        mean, cov = by_hand(posterior, d, i)
        z.append(np.linalg.solve(np.linalg.cholesky(cov), effects[i] - mean))
    z = np.array(z)
    assert abs(z.mean()) < 4 / np.sqrt(z.size) and abs(z.var() - 1) < 4 * np.sqrt(2 / z.size)
    assert np.abs(np.cov(z.T) - np.eye(z.shape[1])).max() < 6 / np.sqrt(len(z))
    assert found._inner.draws_kept.beta is kept.beta and found._inner.draws_kept.scalars is kept.scalars


def test_coordinates_give_the_draws_back() -> None:
    for name in CASES:
        formula, given = CASES[name]
        posterior = sampled(formula, data_of(1, 60, 6), {"draws": 50}, **given)
        entries = [posterior_condition._open(e) for e in posterior.entries]
        density = Marginal(Engine(posterior.design, 1), posterior.design, entries)
        x = np.ascontiguousarray(posterior_condition.coordinates(posterior))
        back = density.core.constrained(x)[:, : posterior.draws_kept.scalars.shape[2]]
        np.testing.assert_allclose(back, flat(posterior.draws_kept.scalars), rtol=1e-9, atol=1e-12)
        beta, _ = density.effects(density.core.draw(x, 1, 1))
        np.testing.assert_allclose(beta, flat(posterior.draws_kept.beta), rtol=1e-9, atol=1e-9)


def test_tables_and_predictions_of_the_conditioned() -> None:
    posterior, data = schools(), ml.load("math10")
    new = data.head(4).assign(schid=[data["schid"][0]] * 2 + [99, 99])
    found = posterior.condition(new)
    assert "4 more rows (1 new of schid)" in repr(found) and found.new_levels["schid"].tolist() == [99]
    ranef, coef = found.ranef(), found.coef(0.5)
    assert ranef.columns.tolist() == ["group", "level", "term", "estimate", "est_error", "ci_low", "ci_high"]
    assert 99 in ranef["level"].tolist() and len(coef) == 22
    row = new.tail(1)
    with pytest.raises(ml.DataError, match="levels that were not fitted"):
        posterior.predict(row)
    b = flat(found.group_effects(0))[:, -1]
    eta = (flat(posterior.draws_kept.beta) + b) @ np.array([1.0, row["homework"].iloc[0]])
    table = found.predict(row, interval="confidence")
    np.testing.assert_allclose(table["prediction"], eta.mean())
    np.testing.assert_allclose(table["est_error"], eta.std(ddof=1))
    fit = posterior.model.fit().condition(new).ranef()
    assert np.abs(fit["estimate"] - ranef["estimate"]).max() < 1.5  # parameters of the fit are modes


def test_conditioning_twice_is_conditioning_once() -> None:
    posterior = sampled("y ~ x + (1 | g)", data_of(1, 60, 6), {"draws": 1000})
    new = data_of(2, 12, 9)
    once, twice = posterior.condition(new), posterior.condition(new.head(5)).condition(new.tail(7), seed=1)
    one, two = once.ranef().sort_values("level"), twice.ranef().sort_values("level")
    assert twice.n_new == 12 and one["level"].tolist() == two["level"].tolist()
    assert set(twice.new_levels["g"]) == set(once.new_levels["g"])
    error = one["est_error"].to_numpy() / np.sqrt(4000)
    assert (np.abs(one["estimate"].to_numpy() - two["estimate"].to_numpy()) < 6 * error).all()
    np.testing.assert_array_equal(once.group_effects(0), posterior.condition(new).group_effects(0))


def binary() -> pd.DataFrame:
    return data_of(5, 90, 6).assign(t=lambda d: (d["y"] > 1).astype(int))


def test_new_rows_of_another_family() -> None:
    """Against the effect's distribution on a grid, for each of some draws; groups without new rows keep their draws."""
    posterior = sampled("t ~ x + offset(w) + (1 | g)", binary(), {"draws": 1000}, family="binomial")
    new = pd.DataFrame({"t": [1, 1, 0, 1], "x": [0.5, -1.0, 0.2, 2.0], "w": [1.0, 0.5, 1.5, 1.0], "g": [2, 2, 77, 77]})
    found = posterior.condition(new, seed=4)
    b, old, d = flat(found.group_effects(0))[:, :, 0], flat(posterior.group_effects(0))[:, :, 0], found._inner.design
    levels = d.terms[0].levels.tolist()
    rest = [i for i, g in enumerate(posterior.design.terms[0].levels.tolist()) if g != 2]
    np.testing.assert_array_equal(b[:, rest], old[:, rest])
    beta, sd = flat(posterior.draws_kept.beta), flat(posterior.draws_kept.scalars)[:, 0]
    for g in (2, 77):
        j = levels.index(g)
        rows = d.terms[0].codes == j
        grid = np.linspace(-1, 1, 801) * 9 * sd[:, None]
        eta = (beta @ d.X[rows].T + d.offset[rows])[:, :, None] + grid[:, None, :]
        log = np.where(d.y[rows][:, None] == 1, -np.logaddexp(0, -eta), -np.logaddexp(0, eta)).sum(axis=1)
        p = np.exp(log - 0.5 * (grid / sd[:, None]) ** 2)
        below = np.cumsum(p / p.sum(axis=1, keepdims=True), axis=1)
        u = np.array([np.interp(v, x, c) for v, x, c in zip(b[:, j], grid, below, strict=True)])
        ranks = np.sort(u)
        assert np.abs(ranks - np.arange(1, len(u) + 1) / len(u)).max() < 1.95 / np.sqrt(len(u))  # Kolmogorov, 0.1 %
    table = found.predict(new, interval="confidence")
    assert ((table["prediction"] > 0) & (table["prediction"] < 1)).all() and len(found.ranef()) == 7


@pytest.mark.parametrize("made", [herds, nests, wine])
def test_new_rows_of_other_families(made: Any) -> None:
    """Rows that are there already, once more: effects move away from zero, as those of a fit do."""
    posterior = made()
    data, group = posterior.model.data, posterior.design.terms[0].group
    new = data[data[group] == data[group].iloc[0]]
    found = posterior.condition(new)
    j = posterior.design.terms[0].levels.tolist().index(data[group].iloc[0])
    fit = posterior.model.fit()
    change = found.ranef()["estimate"].iloc[j] - posterior.ranef()["estimate"].iloc[j]
    by_fit = fit.condition(new).ranef()["estimate"].iloc[j] - fit.ranef()["estimate"].iloc[j]
    spread = posterior.ranef()["est_error"].iloc[j]
    assert abs(change - by_fit) < 0.25 * spread
    assert found.ranef()["est_error"].iloc[j] < spread


def test_condition_refuses() -> None:
    new = ml.load("math10").head(3)
    posterior = schools()
    with pytest.raises(ml.DataError, match="there are no new rows"):
        posterior.condition(new.head(0))
    with pytest.raises(ml.DataError, match="misses a value of a predictor"):
        posterior.condition(new.assign(homework=np.nan))
    with pytest.raises(ml.DataError, match="has no value of 'schid'"):
        posterior.condition(new.assign(schid=np.nan))
    with pytest.raises(ml.DataError, match="'math' is nan in row 0"):
        posterior.condition(new.assign(math=np.nan))
    with pytest.raises(ml.ColumnError, match="math"):
        posterior.condition(new.drop(columns="math"))
    with pytest.raises(ml.OptionError, match="seed must be"):
        posterior.condition(new, seed=-1)
    with pytest.raises(ml.DataError, match="give the rows to predict"):
        posterior.condition(new).predict(None)
    crossed = sampled("t ~ x + (1 | g) + (1 | h)", binary(), {"draws": 20, "chains": 2}, family="binomial")
    with pytest.raises(ml.OptionError, match="takes one grouping factor"):
        crossed.condition(binary().head(3))
    with pytest.raises(ml.DataError, match="0 or 1"):
        sampled("t ~ x + (1 | g)", binary(), {"draws": 20}, family="binomial").condition(binary().assign(t=0.5))
    flatly = sampled("math ~ homework", ml.load("math10"), {"draws": 50})
    with pytest.raises(ml.DataError, match="no group effects that new rows could update"):
        flatly.condition(new)
    weighted = sampled("y ~ x + (1 | g)", data_of(1, 60, 6), {"draws": 50}, weights="w")
    with pytest.raises(ml.DataError, match="fitted with weights"):
        weighted.condition(data_of(2, 5, 6))


# -- checks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("made", [schools, herds, nests, wine])
def test_checks_have_a_verdict_and_a_sentence(made: Any) -> None:
    found = made().check()
    assert all(c.verdict in LEVELS and c.sentence.endswith(".") for c in found)
    assert found["sampling"].sentence == made().trust[1]
    assert {"distribution", "outliers", "leave-one-out", "prior and data", "data over prior"} <= {c.name for c in found}
    assert found.frame().columns.tolist() == ["check", "verdict", "sentence"]
    assert str(found) == str(made().check())


def test_draws_that_may_not_be_trusted() -> None:
    data = ml.load("math10")
    posterior = sampled("math ~ homework + (homework | schid)", data, {"draws": 10, "method": "nuts", "warmup": 10})
    assert posterior.check()["sampling"].verdict == "problem"


def test_a_well_behaved_model_passes() -> None:
    rng = np.random.default_rng(5)
    g = np.arange(300) % 30
    x = rng.normal(size=300)
    data = pd.DataFrame({"x": x, "g": g, "y": 2 + x + rng.normal(size=30)[g] + rng.normal(size=300)})
    found = sampled("y ~ x + (1 | g)", data, {"draws": 500}).check()
    assert {c.name: c.verdict for c in found if c.verdict != "ok"} == {}


def test_too_many_zeros_and_too_much_spread() -> None:
    rng = np.random.default_rng(6)
    g = np.arange(240) % 12
    y = np.where(rng.random(240) < 0.5, 0, rng.poisson(6, 240))
    found = sampled("y ~ 1 + (1 | g)", pd.DataFrame({"y": y, "g": g}), {"draws": 250}, family="poisson").check()
    assert found["predictive zeros"].verdict == "problem" and "zi='~ 1'" in found["predictive zeros"].sentence
    assert found["predictive sd"].verdict == "problem" and "nbinom2" in found["predictive sd"].sentence
    assert found["predictive mean"].verdict == "ok"


def test_outliers_and_rows_left_out() -> None:
    data = data_of(3, 120, 8)
    data.loc[17, "y"] += 25
    found = sampled("y ~ x + (1 | g)", data, {"draws": 500}).check()
    assert "17 (+" in found["outliers"].sentence and found["outliers"].verdict == "problem"
    assert found["leave-one-out"].verdict == "look" and "17 (" in found["leave-one-out"].sentence
    assert found["predictive max"].verdict == "look"


def test_spread_that_grows() -> None:
    rng = np.random.default_rng(7)
    x = rng.uniform(0, 5, 400)
    data = pd.DataFrame({"x": x, "y": 1 + 2 * x + rng.normal(size=400) * (0.2 + x)})
    found = sampled("y ~ x", data).check()
    assert found["spread over fitted"].verdict == "problem" and "logarithm" in found["spread over fitted"].sentence


def test_priors_that_the_data_contradict_and_that_dominate() -> None:
    data = data_of(4, 100, 8)
    priors = {"Intercept": ml.Normal(-20, 1), "sigma": ml.HalfNormal(20), "x": ml.Normal(0, 1e-3)}
    posterior = sampled("y ~ x", data, {"draws": 500}, priors=priors)
    found = posterior.check()
    assert found["prior and data"].verdict in ("look", "problem") and "Intercept (+" in found["prior and data"].sentence
    assert "x (sd" in found["data over prior"].sentence and "Intercept" not in found["data over prior"].sentence
    compared = {c.name: c for c in posterior_checks.comparisons(posterior)}
    own = flat(posterior.draws_kept.beta)[:, posterior.design.names.index("Intercept")]
    assert compared["Intercept"].shift == pytest.approx(own.mean() + 20, rel=0.02)  # in sds of a standard normal
    x = flat(posterior.draws_kept.beta)[:, posterior.design.names.index("x")]
    assert compared["x"].ratio == pytest.approx(x.std() / 1e-3, rel=0.05)
    assert compared["sigma"].tail > 0.5  # a small sd is not against a prior that is largest at zero


def test_groups_that_stand_in_for_a_coefficient() -> None:
    """A prior far from the data moves the groups instead of the coefficient."""
    priors = {"Intercept": ml.Normal(-20, 1)}
    found = sampled("y ~ x + (1 | g)", data_of(4, 200, 25), {"draws": 500}, priors=priors).check()["effects of g"]
    assert found.verdict in ("look", "problem") and "above zero" in found.sentence and "prior of Intercept" in found.sentence
    data = data_of(4, 400, 30).assign(y=lambda d: 3 * d["x"] + np.random.default_rng(0).normal(size=400))
    found = sampled("y ~ 1 + (x | g)", data, {"draws": 500}).check()["effects of g"]
    assert found.verdict in ("look", "problem") and "no coefficient of x for all groups" in found.sentence


def test_held_and_flat_parameters_have_no_prior_to_compare() -> None:
    priors = {"sigma": ml.Fixed(1.0), "b": ml.Flat(), "Intercept": ml.Flat()}
    posterior = sampled("y ~ x", data_of(4, 60, 8), priors=priors)
    assert posterior_checks.comparisons(posterior) == []
    assert posterior.check()["prior and data"].verdict == "ok"


def test_structured_residuals_are_judged_as_far_as_they_can_be() -> None:
    data = ml.load("sleepstudy")
    posterior = sampled("Reaction ~ Days + (1 | Subject)", data, {"draws": 50}, correlation="ar1(Days | Subject)")
    found = posterior.check()
    assert found["distribution"].verdict == "skipped" and found["predictive sd"].verdict == "ok"
    with pytest.raises(ml.OptionError, match="kind='quantile' takes residuals without a serial correlation"):
        posterior.residuals("quantile")
    assert "Rows left out" in texts(drawn(posterior.plot.check()))
    matplotlib.pyplot.close("all")


def test_few_groups() -> None:
    found = sampled("y ~ x + (1 | h)", data_of(4, 60, 8), {"draws": 250}).check()
    assert found["number of groups"].verdict == "look" and "h (4 levels)" in found["number of groups"].sentence


# -- plots ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("made", [schools, herds, nests, wine])
def test_the_panel_of_checks(made: Any) -> None:
    axes = made().plot.check()
    figure = drawn(axes)
    found = texts(figure)
    for title in ("Does the model make such data?", "Residuals: are they normal?", "Rows left out", "sds of the prior"):
        assert title in found
    matplotlib.pyplot.close(figure)


@pytest.mark.parametrize("made", [schools, herds, nests, wine])
def test_residuals_as_a_figure(made: Any) -> None:
    posterior = made()
    axes = posterior.plot.residuals()
    kind = "pearson" if made is schools else "quantile"
    points = next(line for line in axes[0].lines if line.get_marker() == "o")
    np.testing.assert_allclose(points.get_ydata(), posterior.residuals(kind))
    matplotlib.pyplot.close(drawn(axes))
    one = matplotlib.pyplot.figure().add_subplot()
    assert posterior.plot.residuals(ax=one) is one
    matplotlib.pyplot.close(one.figure)


def test_shrinkage_as_a_figure() -> None:
    posterior = schools()
    ax = posterior.plot.shrinkage()
    partial = next(line for line in ax.lines if "posterior mean" in str(line.get_label()) or line.get_marker() == "D")
    mean = posterior.mean_beta + posterior.mean_b(0)
    np.testing.assert_allclose(np.column_stack(partial.get_data()), mean)
    assert "posterior mean" in texts(drawn(ax)) and "this model" not in texts(ax.figure)
    stems = posterior.plot.shrinkage(terms="homework")
    assert stems.get_xlabel() == "homework"
    matplotlib.pyplot.close("all")
    for made in (herds, nests, wine):
        ax = made().plot.shrinkage()
        assert ax.get_xlabel().startswith("Intercept (lo")
        matplotlib.pyplot.close(drawn(ax))
    with pytest.raises(ml.OptionError, match="no grouping factor"):
        sampled("math ~ homework", ml.load("math10"), {"draws": 50}).plot.shrinkage()
