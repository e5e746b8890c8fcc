"""New rows for posteriors: against dense normal equations, grids and fits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from posterior_samples import binary, data_of, diseased, flat, nests, sampled, schools, wine

import multilevel as ml
from multilevel import posterior_condition
from multilevel.marginal import Marginal
from multilevel.reml import Engine


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


@pytest.mark.slow
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


@pytest.mark.parametrize("made", [diseased, nests, wine])
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
