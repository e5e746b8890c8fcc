"""Structured models in odd circumstances: files without rows, zero starts, scales, changed data, unsettled variances."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import multilevel as ml
from multilevel import DataError, Fit, Model, OptionError


@cache
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(19)
    n = 300
    d = pd.DataFrame({"id": np.repeat(np.arange(30), 10), "t": np.tile(np.arange(10), 30), "x": rng.normal(size=n) + 3})
    d["s"] = rng.choice(["a", "b"], n)
    d["y"] = 2 * d["x"] + rng.normal(size=30)[d["id"]] + rng.normal(size=n)
    return d


def quiet(model: Model, **options: object) -> Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ml.MultilevelWarning)
        return model.fit(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("formula", "options"), [("y ~ x + cs(0 + s | id)", {}), ("y ~ x + (1 | id)", {"correlation": "ar1(t | id)"})]
)
def test_a_structured_model_without_rows_is_not_fitted_again(
    formula: str, options: dict[str, str], tmp_path: Path
) -> None:
    quiet(Model(formula, frame(), **options)).save(tmp_path / "fit.mlv")
    model = ml.read(tmp_path / "fit.mlv").model
    with pytest.raises(DataError, match="saved without its data"):
        model.fit()
    if options:
        with pytest.raises(DataError, match="saved without its data"):
            model.criterion([1.0], residual=[0.1])


@pytest.mark.parametrize("structure", ["homcs", "ar1", "cs"])
def test_a_start_without_variance_is_left(structure: str) -> None:
    d = pd.concat(
        [frame(), frame().assign(y=frame()["y"] + np.random.default_rng(3).normal(size=300))], ignore_index=True
    )
    model = Model(f"y ~ x + {structure}(0 + factor(t) | id)", d)
    start = [0.0] * (10 if structure == "cs" else 1) + [0.3]
    assert quiet(model, start=start).criterion == pytest.approx(quiet(model).criterion, abs=1e-6)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e3, 1e7, 1e9])
def test_the_unit_of_a_slope_changes_nothing(scale: float) -> None:
    rng = np.random.default_rng(24)
    d = pd.DataFrame({"h": np.repeat(np.arange(30), 20), "x": rng.normal(size=600)})
    b = rng.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], size=30)
    d["y"] = b[d["h"], 0] + (1 + b[d["h"], 1]) * d["x"] + rng.normal(size=600)
    fit = Model("y ~ x + cs(x | h)", d.assign(x=d["x"] * scale)).fit()
    free = Model("y ~ x + (x | h)", d).fit()
    np.testing.assert_allclose(fit.fixef()["df"], free.fixef()["df"], rtol=1e-5)
    assert not fit.is_singular
    np.testing.assert_allclose(fit.varcorr()["sdcor"][1] * scale, free.varcorr()["sdcor"][1], rtol=1e-5)


def test_variances_that_do_not_settle_are_not_called_converged() -> None:
    rng = np.random.default_rng(5)
    d = pd.DataFrame({"g": np.repeat(np.arange(12), 8), "x": rng.normal(size=96)})
    d["y"] = 0.8 * d["x"] + rng.normal(size=96)  # fitted values near zero, whose power is anything
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit = Model("y ~ x + (1 | g)", d, variance="power(fitted)").fit()
    settled = "had not settled" not in fit.convergence.sentence
    assert fit.convergence.converged is settled
    assert settled or any(issubclass(w.category, ml.ConvergenceWarning) for w in caught)


def test_a_refit_finds_its_own_fitted_values() -> None:
    d = frame().assign(y=frame()["y"] + 20)
    fit = quiet(Model("y ~ x + (1 | id)", d, variance="power(fitted)"))
    other = (40 - frame()["y"]).to_numpy()
    anew = quiet(Model("y ~ x + (1 | id)", d.assign(y=other), variance="power(fitted)"))
    assert fit.refit(other).criterion == pytest.approx(anew.criterion, abs=1e-7)
    table = fit.refit(np.column_stack([other, other]))
    np.testing.assert_allclose(table.criterion, anew.criterion, atol=1e-7)


@pytest.mark.slow
def test_data_changed_later_change_nothing() -> None:
    d = frame().copy()
    fit = quiet(Model("y ~ x + (1 | id)", d, correlation="ar1(t | id)", variance="ident(s)"))
    before = fit.influence(group="id", refit=True)["cooks"].to_numpy()
    d["s"] = np.roll(d["s"].to_numpy(), 1)
    del d["t"]
    np.testing.assert_array_equal(fit.influence(group="id", refit=True)["cooks"], before)


def test_levels_choose_the_reference_of_ident() -> None:
    first = quiet(Model("y ~ x + (1 | id)", frame(), variance="ident(s)")).residual_structure()["estimate"][0]
    turned = quiet(Model("y ~ x + (1 | id)", frame(), variance="ident(s)", levels={"s": ["b", "a"]}))
    assert turned.residual_structure()["parameter"][0] == "ratio(s, a)"
    assert turned.residual_structure()["estimate"][0] == pytest.approx(1 / first, rel=1e-6)


def test_infinite_times() -> None:
    d = frame().assign(t=np.where(frame()["t"] == 3, np.inf, frame()["t"]))
    for text in ("car1(t | id)", "ar1(t | id)"):
        with pytest.raises(DataError, match="'t'|t is"):
            Model("y ~ x", d, correlation=text)


def test_a_model_without_random_effects_says_which_degrees_of_freedom() -> None:
    fit = Model("y ~ x", frame(), correlation="ar1(t | id)").fit()
    assert "Satterthwaite" in fit.summary() and "n - p" not in fit.summary()


def test_criterion_of_variances_by_fitted_values() -> None:
    with pytest.raises(OptionError, match="depend on the fitted values"):
        Model("y ~ x + (1 | id)", frame(), variance="power(fitted)").criterion([1.0], residual=[0.1])


def test_heterogeneous_ar1_with_one_row_for_each_time() -> None:
    assert quiet(Model("y ~ x + hetar1(0 + factor(t) | id)", frame())).criterion < np.inf


def test_unknown_parents_as_files_write_them() -> None:
    d = pd.DataFrame({"animal": [1, 2, 3, 4, 5], "sire": [0, 0, 0, 1, 1], "dam": [0, 0, 0, 2, 3]})
    known, missing = ml.pedigree(d), ml.pedigree(d.replace(0, np.nan))
    assert len(known.levels) == 5
    np.testing.assert_allclose(known.precision.toarray(), missing.precision.toarray())


def test_odd_levels_and_complex_numbers() -> None:
    with pytest.raises(DataError, match="labels such as text or numbers"):
        ml.KnownCovariance([[1], [2]], covariance=np.eye(2))
    with pytest.raises(DataError, match="square matrix of numbers"):
        ml.KnownCovariance([1, 2], covariance=np.eye(2) * 1j)
