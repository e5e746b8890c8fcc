"""One model fitted to other responses, one or thousands."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from reference import Array
from scipy import stats
from shapes import quiet_fit, shape

import multilevel as ml
from multilevel import DataError, Fit, Model
from multilevel.predict import Refits

SLEEP = ml.load("sleepstudy")
FORMULA = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def sleep() -> Fit:
    return Model(FORMULA, SLEEP).fit()


def values(frame: Any, name: str = "prediction") -> Array:
    return np.asarray(frame[name], dtype=float)


# --- refits


def test_refit_to_the_same_response_is_the_same_fit(sleep: Fit) -> None:
    again = sleep.refit(SLEEP["Reaction"])
    assert isinstance(again, Fit)
    assert again.criterion == pytest.approx(sleep.criterion, rel=1e-13)
    np.testing.assert_allclose(again.theta, sleep.theta, rtol=1e-8)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize(
    "name",
    [
        "slope",
        "uncorrelated",
        "merged blocks",
        "crossed slopes",
        "with their interaction",
        "no fixed effects",
        "no groups",
        "crossed, panel",
    ],
)
def test_many_refits_are_the_single_ones(name: str, reml: bool) -> None:
    s = shape(name)
    fit = quiet_fit(s.weighted, reml)
    ys = fit.simulate(12, seed=1).to_numpy()
    many = fit.refit(ys)
    assert isinstance(many, Refits)
    assert len(many) == 12
    for i in range(12):
        single = quiet_refit(fit, ys[:, i])
        assert many.criterion[i] == pytest.approx(single.criterion, rel=1e-8, abs=1e-6)
        assert bool(many.converged[i]) or not single.convergence
        assert many.sigma[i] == pytest.approx(single.sigma, rel=1e-5)
        np.testing.assert_allclose(many.beta[i], single.optimum.beta, rtol=1e-5, atol=1e-5 * single.sigma)
        np.testing.assert_allclose(many.std_error[i], np.sqrt(np.diag(single.vcov())), rtol=1e-4)
        at = 0
        for structure, cov in zip(fit.engine.blocks.structures, single.random_cov(), strict=True):
            root = many.sigma[i] * structure.to_lambda(many.theta[i][at : at + structure.n_theta])
            at += structure.n_theta
            np.testing.assert_allclose(root @ root.T, cov, rtol=0, atol=2e-4 * max(single.sigma**2, np.abs(cov).max()))


def quiet_refit(fit: Fit, y: Array) -> Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = fit.refit(y)
    assert isinstance(found, Fit)
    return found


def test_refits_do_not_depend_on_threads(sleep: Fit) -> None:
    ys = sleep.simulate(150, seed=2).to_numpy()
    first, second = sleep.refit(ys, threads=1), sleep.refit(ys, threads=4)
    for name in ("beta", "std_error", "sigma", "criterion", "theta"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert first.converged.all()


def test_tables_of_refits(sleep: Fit) -> None:
    sims = sleep.simulate(3, seed=1)
    many = sleep.refit(sims)
    fixed = many.fixef()
    assert list(fixed["response"]) == ["sim_1", "sim_1", "sim_2", "sim_2", "sim_3", "sim_3"]
    assert list(fixed["term"]) == ["Intercept", "Days"] * 3
    np.testing.assert_allclose(fixed["statistic"], fixed["estimate"] / fixed["std_error"])
    np.testing.assert_allclose(fixed["p_value"], 2 * stats.norm.sf(np.abs(fixed["statistic"])), rtol=1e-9)
    single = quiet_refit(sleep, sims["sim_2"])
    own = many.varcorr()
    own = own[own["response"] == "sim_2"].reset_index(drop=True)
    wanted = single.varcorr()
    np.testing.assert_allclose(own["vcov"], wanted["vcov"], rtol=1e-5)
    assert list(own["group"]) == list(wanted["group"])
    assert list(own["term1"].fillna("")) == list(wanted["term1"].fillna(""))
    glance = many.glance()
    assert glance["loglik"][1] == pytest.approx(single.loglik, rel=1e-9)
    assert set(glance["criterion"]) == {"REML"}
    assert glance["converged"].all()


def test_refits_skip_rows_left_out() -> None:
    data = SLEEP.copy()
    data.loc[4, "Reaction"] = np.nan
    with pytest.warns(ml.MissingRowsWarning):
        fit = Model(FORMULA, data).fit()
    y = data["Reaction"].to_numpy() * 2
    assert quiet_refit(fit, y).sigma == pytest.approx(2 * fit.sigma, rel=1e-6)
    assert fit.refit(np.column_stack([y, y])).sigma == pytest.approx([2 * fit.sigma] * 2, rel=1e-6)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.ones(180), "is 1 in all rows"),
        (np.ones(3), r"must have 180 rows.*\(3,\)"),
        (np.full(180, np.nan), "nan in row 0"),
        ("abc", "must be numbers"),
        (np.ones((2, 180, 2)), "180 rows"),
        (np.column_stack([SLEEP["Reaction"], np.full(180, 2.0)]), "response 1 of the 2.*exact linear function"),
        (np.where(np.arange(180) == 9, np.inf, 1.0 * np.arange(180)), "inf in row 9"),
    ],
)
def test_responses_that_cannot_be_fitted(sleep: Fit, y: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        sleep.refit(y)


def test_a_refit_that_the_effects_reproduce(sleep: Fit) -> None:
    """Among many, one perfect response is said not to have converged and leaves the others alone."""
    perfect = sleep.design.terms[0].codes + 2.0 * SLEEP["Days"].to_numpy()
    many = sleep.refit(np.column_stack([perfect, SLEEP["Reaction"]]))
    assert many.converged.tolist() == [False, True]
    assert many.criterion[1] == pytest.approx(sleep.criterion, rel=1e-10)


def test_parametric_bootstrap_is_centred(sleep: Fit) -> None:
    """simulate + refit: the spread of estimates is their standard error."""
    many = sleep.refit(sleep.simulate(1500, seed=7).to_numpy())
    assert many.converged.mean() > 0.999
    np.testing.assert_allclose(many.beta.std(axis=0), np.sqrt(np.diag(sleep.vcov())), rtol=0.08)
    bias = (many.beta.mean(axis=0) - sleep.optimum.beta) / np.sqrt(np.diag(sleep.vcov()) / 1500)
    assert np.abs(bias).max() < 4
    assert many.sigma.mean() == pytest.approx(sleep.sigma, rel=0.01)
