"""Fits whose families have a number of their own: degrees of freedom of Student's t, power of Tweedie's distribution."""

from __future__ import annotations

import json
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

import multilevel as ml
from multilevel.families import Family
from multilevel.generalised import GeneralisedFit

Array = NDArray[np.float64]
GOLDEN = json.loads((Path(__file__).parent / "golden_glmm" / "families.json").read_text())
RATE = "rate ~ FoodTreatment + (1 | Nest)"


def owls() -> pd.DataFrame:
    data = ml.load("owls")
    return data.assign(rate=data["SiblingNegotiation"] / data["BroodSize"])


MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "student": ("Reaction ~ Days + (Days | Subject)", {"family": "student"}),
    "student_5": ("Reaction ~ Days + (1 | Subject)", {"family": "student(df=5)"}),
    "tweedie": ("rate ~ FoodTreatment + SexParent + (1 | Nest)", {"family": "tweedie"}),
    "tweedie_dispersion": (RATE, {"family": "tweedie", "dispersion": "~ FoodTreatment"}),
    "tweedie_1.3": (RATE, {"family": ml.tweedie(power=1.3)}),
}


@cache
def fitted(name: str) -> GeneralisedFit:
    formula, options = MODELS[name]
    data = ml.load("sleepstudy") if name.startswith("student") else owls()
    fit: GeneralisedFit = ml.Model(formula, data, **options).fit(threads=1)
    return fit


@pytest.mark.parametrize("name", MODELS)
def test_estimates_are_those_of_glmmtmb(name: str) -> None:
    """Log-likelihoods as high or higher: glmmTMB ends up to 3e-8 below."""
    fit, wanted = fitted(name), GOLDEN[name]
    assert fit.convergence.converged
    assert -1e-9 < fit.loglik - wanted["loglik"] < 1e-6
    np.testing.assert_allclose(fit.optimum.beta, wanted["beta"], rtol=1e-4)
    np.testing.assert_allclose(np.sqrt(np.diag(fit.vcov())), wanted["se"], rtol=1e-4)
    np.testing.assert_allclose(fit.random_cov()[0], wanted["cov"], rtol=1e-4)
    assert (fit.family.df or fit.family.power) == pytest.approx(wanted["shape"], rel=1e-4)
    if wanted["dispersion"] is not None:
        assert np.exp(fit.extra()["estimate"][0]) == pytest.approx(wanted["dispersion"], rel=1e-4)


def test_shapes_in_tables() -> None:
    student, fixed, tweedie = fitted("student"), fitted("student_5"), fitted("tweedie")
    assert list(student.extra()["term"]) == ["sigma[Intercept]", "df[Intercept]"]
    assert list(fixed.extra()["term"]) == ["sigma[Intercept]"]
    assert (student.npar, fixed.npar) == (2 + 3 + 2, 2 + 1 + 1)
    assert "Dispersion: log of the sigma, log of df - 1" in str(student)
    assert "df 2.898 (std. error 0.6" in str(student)
    assert "Family: student (identity), df fixed at 5" in str(fixed)
    assert "power 1.295 (std. error 0.0" in str(tweedie)
    assert np.exp(student.extra()["estimate"][1]) + 1 == pytest.approx(student.family.df)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("data", [False, True])
def test_files_keep_the_shape(name: str, data: bool, tmp_path: Path) -> None:
    fit = fitted(name)
    fit.save(tmp_path / "fit.mlv", data=data)
    back: Any = ml.read(tmp_path / "fit.mlv")
    assert back.family == fit.family
    assert back.model.distribution == fit.model.distribution
    assert back.loglik == fit.loglik
    if data:
        pd.testing.assert_frame_equal(back.simulate(1, seed=2), fit.simulate(1, seed=2))
        assert back.refit(back.design.y).loglik == pytest.approx(fit.loglik, abs=1e-8)


@pytest.mark.parametrize("name", ["student", "tweedie", "tweedie_dispersion"])
def test_residuals_of_simulated_responses_are_normal(name: str) -> None:
    """Quantile residuals given the effects that made the responses: draws, tails and parameters of the rows agree."""
    from dataclasses import replace

    from multilevel.generalised_predict import draw_responses
    from multilevel.generalised_residuals import quantile_residuals

    fit, rng = fitted(name), np.random.default_rng(4)
    groups = [t.group for t in fit.design.terms]
    found = []
    for y in draw_responses(fit, 5, groups, rng):
        one = GeneralisedFit(fit.model.with_design(replace(fit.design, y=y)), fit.optimum, fit.engine)
        found.append(quantile_residuals(one, rng))
    assert stats.kstest(np.concatenate(found), "norm").pvalue > 0.01


def test_quadrature_and_shares_take_the_shape() -> None:
    fit = fitted("tweedie")
    more: Any = ml.Model(MODELS["tweedie"][0], owls(), family="tweedie").fit(threads=1, quadrature=7)
    assert abs(more.loglik - fit.loglik) < 0.5
    assert more.family.power == pytest.approx(fit.family.power, abs=0.01)
    null: Any = ml.Model("rate ~ 1 + (1 | Nest)", owls(), family="tweedie").fit(threads=1)
    mean, var = np.exp(null.optimum.beta[0]), null.random_cov()[0][0, 0]
    own = np.log1p(np.exp(null.extra()["estimate"][0]) * mean ** (null.family.power - 2))
    assert null.icc()["estimate"][0] == pytest.approx(var / (var + own), rel=1e-9)
    student = fitted("student_5")
    sigma2, var = np.exp(2 * student.extra()["estimate"][0]), student.random_cov()[0][0, 0]
    assert student.icc()["estimate"][0] == pytest.approx(var / (var + sigma2 * 5 / 3), rel=1e-9)


# -- at the limits ---------------------------------------------------------------------------------------------


def table(y: Array) -> dict[str, Any]:
    n = len(y)
    return {"y": y, "x": np.linspace(-1, 1, n), "g": np.arange(n) % 20}


def fit_of(y: Array, family: Any) -> tuple[GeneralisedFit, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit: GeneralisedFit = ml.Model("y ~ x + (1 | g)", table(y), family=family).fit(threads=1)
    return fit, [str(w.message) for w in caught if issubclass(w.category, ml.ConvergenceWarning)]


def effects(n: int) -> Array:
    return np.asarray(np.random.default_rng(1).normal(size=20)[np.arange(n) % 20])


def test_light_tails_are_the_normal_distribution() -> None:
    n, rng = 300, np.random.default_rng(2)
    y = effects(n) + rng.uniform(-1, 1, n)
    fit, said = fit_of(y, "student")
    assert len(said) == 1
    assert "'df[Intercept]'" in said[0]
    assert "no heavier than those of the normal distribution" in said[0]
    assert fit.convergence.converged
    normal: Any = ml.Model("y ~ x + (1 | g)", table(y)).fit(reml=False, threads=1)
    assert fit.loglik == pytest.approx(normal.loglik, abs=1e-5)
    np.testing.assert_allclose(fit.optimum.beta, normal.optimum.beta, atol=1e-4)


def test_a_power_at_its_limit_is_said() -> None:
    y = np.random.default_rng(3).poisson(np.exp(0.5 * effects(200))).astype(float)
    _, said = fit_of(y, "tweedie")
    assert any("lower limit, 1.01" in one and "family of counts" in one for one in said)


def test_heavy_tails_have_no_variance() -> None:
    rng = np.random.default_rng(6)
    fit, _ = fit_of(effects(400) + rng.standard_t(1.5, 400), "student")
    assert 1 < fit.family.df < 2
    assert np.isinf(fit.family.variance(np.zeros(1), np.zeros(1))).all()
    with pytest.raises(ml.OptionError, match="variance is infinite.*'quantile'"):
        fit.residuals("pearson")
    with pytest.raises(ml.OptionError, match="degrees of freedom, whose variance is infinite"):
        fit.icc()
    assert ".pearson" not in fit.augment()
    assert "Scaled residuals" not in str(fit)
    assert stats.kstest(fit.residuals("quantile"), "norm").pvalue > 0.001
    assert np.isfinite(fit.simulate(1, seed=1)["sim_1"]).all()
    assert fit.check()["distribution"].verdict == "ok"


def test_tails_heavier_than_any_with_a_mean_are_said() -> None:
    fit, said = fit_of(np.random.default_rng(5).standard_t(0.5, 200), "student")
    assert any("as heavy as they can be with a mean" in one for one in said)
    assert fit.family.df == pytest.approx(1, abs=0.01)


def test_means_and_predictions_of_tweedie_are_of_the_whole() -> None:
    """The mean has the zeros in it, so that predictions average to the responses as for a Poisson model."""
    fit = fitted("tweedie")
    assert fit.fitted().mean() == pytest.approx(owls()["rate"].mean(), rel=0.02)
    assert np.mean(fit.simulate(1, seed=3)["sim_1"] == 0) == pytest.approx(np.mean(owls()["rate"] == 0), abs=0.06)


def test_a_family_without_its_number_says_so() -> None:
    with pytest.raises(ml.OptionError, match="'student' has no df before it is estimated"):
        ml.student().variance(np.zeros(1), np.zeros(1))
    with pytest.raises(ml.OptionError, match="'tweedie' has no power before it is estimated"):
        ml.tweedie().draw(np.random.default_rng(1), np.zeros(1), np.zeros(1), np.zeros(1), None)


def test_families_given_as_objects_update() -> None:
    fit = fitted("student_5")
    assert fit.update(". ~ . - Days").family == Family("student", "identity", df=5.0)
    assert ml.Model("y ~ x + (1 | g)", table(effects(60) + np.linspace(0, 1, 60)), family=ml.student()).family == "student"


def test_no_messages_at_the_end_of_the_interpreter() -> None:
    """An object of the core that outlives it, as those held in caches may."""
    import subprocess
    import sys

    text = (
        "import ctypes, multilevel as ml\n"
        "model = ml.Model('incidence ~ period + (1 | herd)', ml.load('cbpp'), family='poisson')\n"
        "state = model.laplace(1).state()\n"
        "ctypes.pythonapi.Py_IncRef(ctypes.py_object(state))\n"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=120, check=True)
    assert done.stderr == ""
