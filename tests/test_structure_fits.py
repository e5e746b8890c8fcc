"""What fits with structured random terms do: files, refits, simulation, summaries, invariances; and bad input."""

from __future__ import annotations

import copy
import pickle
import warnings
from functools import cache
from pathlib import Path

import dense_structures as dense
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from test_structures import quiet, rows, visits

import multilevel as ml
from multilevel import DataError, Fit, FormulaError, Model, OptionError

Array = NDArray[np.float64]

# -- what a fit does -----------------------------------------------------------------------------------------


@cache
def full() -> Fit:
    return Model("y ~ x + (1 | rater) + hetar1(0 + factor(t) | s)", rows()).fit()


@pytest.mark.parametrize("data", [False, True])
def test_saved_and_read(tmp_path: Path, data: bool) -> None:
    fit = full()
    fit.save(tmp_path / "fit.mlv", data=data)
    back = ml.read(tmp_path / "fit.mlv")
    np.testing.assert_array_equal(back.theta, fit.theta)
    np.testing.assert_allclose(back.fixef()["df"], fit.fixef()["df"], rtol=1e-8)
    new = rows().head(9)
    np.testing.assert_allclose(
        back.predict(new, interval="prediction"), fit.predict(new, interval="prediction"), rtol=1e-10
    )
    if data:
        assert str(back) == str(fit)
        np.testing.assert_allclose(back.refit(fit.design.y).criterion, fit.criterion, rtol=1e-10)
        np.testing.assert_allclose(back.simulate(2, seed=1), fit.simulate(2, seed=1), atol=1e-8)


def test_copies_and_pickles() -> None:
    for other in (copy.deepcopy(full()), pickle.loads(pickle.dumps(full()))):
        assert other.criterion == full().criterion
        np.testing.assert_array_equal(other.theta, full().theta)


def test_simulated_effects_have_the_structure() -> None:
    d = visits(2, lambda rng: rng.normal(size=(6, 3)), k=3)
    fit = quiet(Model("y ~ x + ar1(0 + factor(t) | g)", d), start=[2.0, 0.5])
    made = fit.simulate(4000, seed=5).to_numpy() - (fit.design.X @ fit.optimum.beta)[:, None]
    V = dense.of_fit(fit).V * fit.sigma**2
    scale = np.sqrt(np.outer(np.diag(V), np.diag(V)))
    assert np.abs(made @ made.T / 4000 - V).max() < 5 * np.sqrt(2 / 4000) * scale.max()


def test_refits_to_one_or_many_responses() -> None:
    fit = full()
    made = fit.simulate(3, seed=3)
    many = fit.refit(made.to_numpy())
    for i in range(3):
        fresh = quiet(Model(fit.formula, rows().assign(y=made.to_numpy()[:, i])))
        np.testing.assert_allclose(many.criterion[i], fresh.criterion, rtol=1e-9)
        np.testing.assert_allclose(quiet_refit(fit, made.to_numpy()[:, i]).criterion, fresh.criterion, rtol=1e-9)


def quiet_refit(fit: Fit, y: Array) -> Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ml.SingularFitWarning)
        out = fit.refit(y)
    assert isinstance(out, Fit)
    return out


def test_the_summary_shows_the_structure() -> None:
    assert "hetar1" in full().summary()
    text = Model("y ~ x + homcs(0 + factor(t) | s)", rows()).fit().summary()
    assert "homcs" in text
    assert "each of 5 effects" in text


def test_rows_levels_units_and_threads_do_not_matter() -> None:
    formula, base = full().formula, full()
    shuffled = Model(formula, rows().sample(frac=1, random_state=1).reset_index(drop=True)).fit()
    named = Model(formula, rows().assign(s=[f"s{50 - v}" for v in rows()["s"]])).fit()
    threads = Model(formula, rows()).fit(threads=2)
    for fit in (shuffled, named, threads):
        np.testing.assert_allclose(fit.criterion, base.criterion, rtol=1e-11)
        np.testing.assert_allclose(fit.theta, base.theta, rtol=1e-5, atol=1e-7)
    scaled = Model(formula, rows().assign(y=1e4 * (rows()["y"] + 9))).fit()
    np.testing.assert_allclose(scaled.theta, base.theta, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(scaled.criterion, base.criterion + 2 * 298 * np.log(1e4), rtol=1e-10)


# -- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("term", "message"),
    [
        ("ar1(0 + word | s)", "takes the levels of 'word' in their order.*ordered categorical"),
        ("hetar1(0 + word | s)", "takes the levels of 'word' in their order"),
        ("ar1(x | s)", "needs one 0/1 effect for each position"),
        ("ar1(0 + x + z | s)", "needs one 0/1 effect for each position"),
        ("ar1(factor(t) | s)", r"write it like ar1\(0 \+ factor\(week\) \| s\)"),
        ("ar1(1 | s)", "correlates effects, but this term has one"),
        ("cs(1 | s)", r"correlates effects.*write \(1 \| s\)"),
        ("homcs(0 + x | s)", "correlates effects"),
    ],
)
def test_terms_that_do_not_suit_their_structure(term: str, message: str) -> None:
    data = rows().assign(word=rows()["t"].map(lambda v: "v" + "abcde"[v]))
    with pytest.raises(FormulaError, match=message):
        Model(f"y ~ x + {term}", data)


@pytest.mark.parametrize("name", ["toep", "corAR1", "pdCompSymm", "arma"])
def test_structures_that_are_not_here(name: str) -> None:
    with pytest.raises((FormulaError, OptionError), match=name):
        Model(f"y ~ x + {name}(0 + factor(t) | s)", rows())


def test_an_order_may_be_stated() -> None:
    data = rows().assign(word=rows()["t"].map(lambda v: "v" + "ebadc"[v]))
    order = [f"v{c}" for c in "ebadc"]
    base = Model("y ~ x + ar1(0 + factor(t) | s)", rows()).fit()
    for model in (
        Model("y ~ x + ar1(0 + word | s)", data, levels={"word": order}),
        Model("y ~ x + ar1(0 + word | s)", data.assign(word=pd.Categorical(data["word"], order, ordered=True))),
    ):
        np.testing.assert_allclose(model.fit().criterion, base.criterion, rtol=1e-11)


def test_uneven_positions_are_told() -> None:
    uneven = rows().assign(t=rows()["t"].map({0: 0, 1: 1, 2: 2, 3: 5, 4: 9}))
    fit = Model("y ~ x + ar1(0 + factor(t) | s)", uneven).fit()
    assert any("equally spaced, though they are not" in m for m in fit.messages)


def test_as_many_effects_as_rows() -> None:
    one = rows().groupby(["s", "t"], as_index=False).first()
    with pytest.raises(DataError, match="variances cannot be told from the residual variance"):
        Model("y ~ x + homdiag(0 + factor(t) | s)", one).fit()
