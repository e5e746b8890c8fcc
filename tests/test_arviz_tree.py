"""Draws handed to other tools: names, dimensions, values; and our diagnostics against ArviZ's stored ones."""

from __future__ import annotations

import json
import sys
import types
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

import multilevel as ml
from multilevel import chain_diagnostics
from multilevel.arviz_tree import dimension_names, variables
from multilevel.loo import loo
from multilevel.row_draws import log_likelihood, new_responses

STORED = json.loads((Path(__file__).parent / "golden_posteriors" / "diagnostics.json").read_text())


@cache
def drawn(name: str, keep: str = "all", method: str = "auto") -> Any:
    """Posteriors of small models; 200 draws are enough for names and shapes."""
    data = ml.load({"linear": "math10", "counted": "cbpp", "ordered": "wine", "zeros": "salamanders", "flat": "math10"}[name])
    model = {
        "linear": lambda: ml.Model("math ~ homework + (homework | schid)", data),
        "flat": lambda: ml.Model("math ~ homework", data),
        "counted": lambda: ml.Model("incidence | trials(size) ~ period + (1 | herd)", data, family="binomial"),
        "ordered": lambda: ml.Model("rating ~ temp + contact + (1 | judge)", data, family="ordinal"),
        "zeros": lambda: ml.Model("count ~ mined + (1 | site)", data, family="nbinom2", zi="~ mined"),
    }[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ml.ConvergenceWarning)
        return model.sample(seed=1, chains=2, draws=200, warmup=200, keep=keep, method=method)


# -- against ArviZ -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["r_hat", "ess_bulk", "ess_tail", "ess_mean", "mcse_mean"])
@pytest.mark.parametrize("name", list(STORED["draws"]))
def test_diagnostics_agree_with_arviz(name: str, what: str) -> None:
    x = np.array(STORED["draws"][name])
    found = getattr(chain_diagnostics, what)(x[:, :, None])
    assert found[0] == pytest.approx(STORED["expected"][name][what], rel=1e-9)


def test_e_bfmi_agrees_with_arviz() -> None:
    np.testing.assert_allclose(chain_diagnostics.e_bfmi(np.array(STORED["energy"])), STORED["e_bfmi"], rtol=1e-12)


def test_loo_agrees_with_arviz() -> None:
    found, wanted = loo(np.array(STORED["log_likelihood"])), STORED["loo"]
    for mine, theirs in (("elpd", "elpd"), ("se", "se"), ("p_loo", "p_loo"), ("pointwise", "pointwise")):
        np.testing.assert_allclose(getattr(found, mine), wanted[theirs], rtol=1e-9)
    np.testing.assert_allclose(found.pareto_k, wanted["pareto_k"], atol=1e-9)


def test_a_relative_sample_size_moves_loo_by_far_less_than_its_error() -> None:
    wanted = STORED["loo"]
    assert abs(wanted["elpd"] - wanted["elpd_with_its_own_r_eff"]) < 0.02 * wanted["se"]


# -- without xarray ------------------------------------------------------------------------------------------


def test_dict_holds_every_parameter_by_the_name_of_its_prior() -> None:
    posterior = drawn("linear")
    found, kept = posterior.to_dict(), posterior.draws_kept
    assert list(found) == [
        "Intercept", "homework", "sd(schid, Intercept)", "sd(schid, homework)", "cor(schid, Intercept, homework)", "sigma",
        "ranef(schid)",
    ]  # fmt: skip
    np.testing.assert_array_equal(found["homework"], kept.beta[:, :, 1])
    np.testing.assert_array_equal(found["sigma"], kept.scalar("sigma"))
    assert found["ranef(schid)"].shape == (2, 200, 10, 2)
    found["sigma"][:] = 0  # a copy: the posterior does not change
    assert posterior.sigma > 1


def test_frame_has_a_row_for_each_draw() -> None:
    posterior = drawn("linear")
    frame = posterior.to_frame()
    assert frame.shape == (400, 2 + 6 + 20)
    assert frame["chain"].tolist() == [0] * 200 + [1] * 200
    level = posterior.design.terms[0].levels[3]
    np.testing.assert_array_equal(
        frame[f"ranef(schid, {level}, homework)"], posterior.draws_kept.b[0][:, :, 3, 1].ravel()
    )
    assert list(posterior.to_frame(effects=False)) == list(frame)[:8]
    with pytest.raises(ml.OptionError, match="effects must be True or False"):
        posterior.to_frame(effects="no")


def test_frame_is_of_the_users_library() -> None:
    polars = pytest.importorskip("polars")
    data = {"y": [1.0, 2, 4, 3, 2, 5], "g": list("aabbcc")}
    model = ml.Model("y ~ 1 + (1 | g)", polars.DataFrame(data), priors={"sd": ml.Fixed(1.0), "sigma": ml.Fixed(1.0)})
    frame = model.sample(seed=1, chains=1, draws=10).to_frame()
    assert isinstance(frame, polars.DataFrame)
    assert frame.columns[:5] == ["chain", "draw", "Intercept", "sd(g, Intercept)", "sigma"]


def test_effects_that_were_not_kept_are_left_out() -> None:
    posterior = drawn("linear", "parameters")
    assert "ranef(schid)" not in posterior.to_dict()
    assert posterior.to_frame().shape == (400, 8)


def test_two_terms_of_one_factor_share_a_variable() -> None:
    model = ml.Model("math ~ homework + (1 | schid) + (0 + homework | schid)", ml.load("math10"))
    posterior = model.sample(seed=1, chains=1, draws=20)
    both = posterior.to_dict()["ranef(schid)"]
    np.testing.assert_array_equal(both, np.concatenate(posterior.draws_kept.b, axis=3))
    assert list(posterior.to_frame())[-1].endswith(", homework)")


def clashing() -> Any:
    """A model whose columns bear the names that the tree uses itself."""
    rng = np.random.default_rng(3)
    n = 40
    data = {
        "chain": rng.normal(size=n), "sigma": rng.normal(size=n), "obs": np.repeat(np.arange(8), 5), "y": rng.normal(size=n),
        "a": rng.normal(size=n), "weights": rng.normal(size=n),
    }  # fmt: skip
    model = ml.Model("y ~ chain + sigma + obs + I(a / 2) + weights + (1 | obs)", data, weights=np.full(n, 2.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ml.MultilevelWarning)
        return model.sample(seed=1, chains=1, draws=20)


def test_columns_named_like_ours_keep_apart() -> None:
    posterior = clashing()
    found = variables(posterior)
    assert len(found) == 6 + 2 + 1 and {"b(sigma)", "b(chain)", "sigma", "obs"} < set(found)
    names = dimension_names(posterior)
    dims = [names.rows, *names.levels.values(), *names.effects.values()]
    assert len(set(dims)) == 3 and not set(dims) & set(found)


# -- the tree --------------------------------------------------------------------------------------------------


def test_tree_without_xarray_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ml.OptionError, match=r"pip install 'multilevel\[bayes\]'.*to_dict\(\)"):
        drawn("linear").to_arviz()


def test_tree_with_an_old_xarray_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    old = types.ModuleType("xarray")
    old.__version__ = "2023.1.0"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "xarray", old)
    with pytest.raises(ml.OptionError, match=r"2024\.11 or later, not 2023\.1\.0"):
        drawn("linear").to_arviz()


def test_tree_of_a_linear_model() -> None:
    pytest.importorskip("xarray")
    posterior = drawn("linear")
    tree = posterior.draws
    assert tree is posterior.draws
    assert set(tree.children) == {"posterior", "log_likelihood", "posterior_predictive", "observed_data", "constant_data"}
    effects = tree["posterior"]["ranef(schid)"]
    assert effects.dims == ("chain", "draw", "schid", "schid_effect")
    one = effects.sel(schid=posterior.design.terms[0].levels[2], schid_effect="homework")
    np.testing.assert_array_equal(one, posterior.draws_kept.b[0][:, :, 2, 1])
    np.testing.assert_array_equal(tree["observed_data"]["math"], posterior.design.y)
    np.testing.assert_array_equal(tree["observed_data"]["obs"], posterior.design.rows)
    np.testing.assert_array_equal(tree["constant_data"]["homework"], posterior.design.X[:, 1])
    assert tree["log_likelihood"]["math"].dims == tree["posterior_predictive"]["math"].dims == ("chain", "draw", "obs")
    np.testing.assert_array_equal(tree["posterior_predictive"]["math"], posterior.to_arviz()["posterior_predictive"]["math"])
    assert tree.attrs["sampler"] == "independent" and tree.attrs["formula"] == posterior.formula


def test_tree_of_a_generalised_model() -> None:
    pytest.importorskip("xarray")
    posterior = drawn("counted", method="nuts")
    tree = posterior.to_arviz(posterior_predictive=True, seed=4)
    stats_of = tree["sample_stats"]
    assert stats_of["diverging"].dtype == bool and stats_of["step_size"].shape == (2, 200)
    np.testing.assert_array_equal(stats_of["energy"], posterior.draws_kept.stats["energy"])
    again = posterior.to_arviz(posterior_predictive=True, seed=4)
    drawn_again = again["posterior_predictive"]["incidence"]
    np.testing.assert_array_equal(tree["posterior_predictive"]["incidence"], drawn_again)
    np.testing.assert_array_equal(tree["constant_data"]["trials"], posterior.design.trials)
    assert drawn("ordered").draws["observed_data"]["rating"].attrs["categories"] == ["1", "2", "3", "4", "5"]


def test_tree_holds_what_was_asked_for() -> None:
    pytest.importorskip("xarray")
    assert "log_likelihood" not in drawn("linear").to_arviz(log_likelihood=False).children
    bare = drawn("linear", "parameters")
    assert not {"log_likelihood", "posterior_predictive"} & set(bare.draws.children)
    assert "posterior_predictive" not in drawn("linear").to_arviz(posterior_predictive=False).children
    with pytest.raises(ml.OptionError, match="keep='all'"):
        bare.to_arviz(log_likelihood=True)
    with pytest.raises(ml.OptionError, match="posterior_predictive must be True or False"):
        bare.to_arviz(posterior_predictive="yes")
    assert "ranef(schid)" not in bare.draws["posterior"]


def test_tree_with_clashing_names() -> None:
    pytest.importorskip("xarray")
    tree = clashing().draws
    assert "b(sigma)" in tree["posterior"] and "I(a ÷ 2)" in tree["posterior"].data_vars
    assert tree["constant_data"]["weights"].shape == tree["constant_data"]["weights_"].shape == (40,)


def test_arviz_takes_the_tree() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arviz_stats = pytest.importorskip("arviz_stats")
        posterior = drawn("linear")
        table = arviz_stats.summary(posterior.draws, round_to="none")
        theirs = arviz_stats.loo(posterior.draws, reff=1.0)
    frame = posterior.fixef()
    assert float(table.loc["homework", "mean"]) == pytest.approx(float(frame["estimate"].iloc[1]), rel=1e-9)
    assert float(table.loc["homework", "r_hat"]) == pytest.approx(float(frame["rhat"].iloc[1]), rel=1e-6)
    assert float(table.loc["homework", "ess_bulk"]) == pytest.approx(float(frame["ess_bulk"].iloc[1]), rel=1e-6)
    ours = posterior.loo()
    assert (ours.elpd, ours.se, ours.p_loo) == pytest.approx((theirs.elpd, theirs.se, theirs.p), rel=1e-6)


# -- rows under draws ------------------------------------------------------------------------------------------


def predictor(posterior: Any, i: int) -> Any:
    """(n,) linear predictor of one draw, put together from the tables."""
    d, kept = posterior.design, posterior.draws_kept
    eta = d.X @ kept.beta[0, i]
    for t, term in enumerate(d.terms):
        z = np.ones((len(d.y), 1)) if term.Z is None else term.Z
        eta = eta + (kept.b[t][0, i][term.codes] * z).sum(axis=1)
    return eta


def test_log_likelihood_of_successes() -> None:
    posterior = drawn("counted")
    d, found = posterior.design, log_likelihood(posterior)
    for i in (0, 57):
        p = 1 / (1 + np.exp(-predictor(posterior, i)))
        np.testing.assert_allclose(found[0, i], stats.binom(d.trials, p).logpmf(d.y), rtol=1e-10, atol=1e-10)
    assert np.isfinite(posterior.loo().elpd)


def test_log_likelihood_of_categories() -> None:
    posterior = drawn("ordered")
    d, i = posterior.design, 23
    eta, cuts = predictor(posterior, i), posterior.draws_kept.scalars[0, i, 1:]
    below = 1 / (1 + np.exp(-(np.r_[-np.inf, cuts, np.inf][None, :] - eta[:, None])))
    steps = np.diff(below, axis=1)[np.arange(len(d.y)), d.y.astype(int)]
    np.testing.assert_allclose(log_likelihood(posterior)[0, i], np.log(steps), rtol=1e-9)


@pytest.mark.slow
def test_log_likelihood_of_extra_zeros() -> None:
    posterior = drawn("zeros")
    d, kept, i = posterior.design, posterior.draws_kept, 11
    further = {c.name: kept.scalars[0, i, j] for j, c in enumerate(kept.coordinates)}
    mined = d.X[:, 1]
    share = 1 / (1 + np.exp(-(further["zi[Intercept]"] + further["zi[mined[T.no]]"] * mined)))
    size, mu = np.exp(further["size[Intercept]"]), np.exp(predictor(posterior, i))
    mass = (1 - share) * stats.nbinom(size, size / (size + mu)).pmf(d.y) + share * (d.y == 0)
    np.testing.assert_allclose(log_likelihood(posterior)[0, i], np.log(mass), rtol=1e-9)


def test_weights_multiply_the_log_likelihood() -> None:
    data = ml.load("cbpp")
    model = ml.Model(
        "incidence | trials(size) ~ 1 + (1 | herd)", data, family="binomial", weights=np.full(len(data), 2.0),
        priors={"sd": ml.Fixed(0.5)},
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ml.ConvergenceWarning)
        posterior = model.sample(seed=1, chains=1, draws=20, warmup=50)
    p = 1 / (1 + np.exp(-predictor(posterior, 3)))
    wanted = 2 * stats.binom(model.design.trials, p).logpmf(model.design.y)
    np.testing.assert_allclose(log_likelihood(posterior)[0, 3], wanted, rtol=1e-10)


@pytest.mark.parametrize("name", ["linear", "flat", "counted", "ordered", "zeros"])
def test_new_responses_have_the_moments_of_the_model(name: str) -> None:
    posterior = drawn(name)
    y = new_responses(posterior, np.random.default_rng(5))
    assert y.shape == (2, 200, len(posterior.design.rows))
    observed = posterior.design.y
    means = y.mean(axis=2).ravel()
    assert abs(means.mean() - observed.mean()) < 4 * means.std()
    if name != "linear" and name != "flat":
        assert (y == np.round(y)).all() and y.min() >= 0


def test_new_responses_need_the_group_effects() -> None:
    with pytest.raises((ml.OptionError, ml.DataError), match="keep='all'"):
        new_responses(drawn("linear", "parameters"), np.random.default_rng(1))
