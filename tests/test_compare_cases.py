"""Comparisons of models that are equal, of heavier tails, and of what was read without its rows."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import posterior_samples
import pytest
from scipy.optimize import minimize
from scipy.stats import chi2, t

import multilevel as ml
from multilevel import DataError

SLEEP = ml.load("sleepstudy")


def fit(formula: str, data: Any = SLEEP, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ml.MultilevelWarning)
        return ml.Model(formula, data, **options).fit(threads=1)


def test_equal_models_have_no_winner() -> None:
    found = ml.compare(
        fit("Reaction ~ Days + (Days||Subject)"), fit("Reaction ~ Days + (1|Subject) + (0+Days|Subject)")
    )
    assert "nothing tells them apart" in found.sentence and "prefers" not in found.sentence
    np.testing.assert_allclose(found["aic_weight"], 0.5)


def test_student_beside_the_normal_distribution() -> None:
    """One over the degrees of freedom is zero at the edge; the ratio against a likelihood written by hand."""
    rng = np.random.default_rng(3)
    data = pd.DataFrame({"x": rng.normal(size=300)})
    data["y"] = data["x"] + rng.standard_t(4, size=300)
    found = ml.compare(fit("y ~ x", data), fit("y ~ x", data, family="student"))

    def deviance(p: Any) -> float:
        return -2 * float(
            t.logpdf((data["y"] - p[0] - p[1] * data["x"]) / np.exp(p[2]), np.exp(p[3])).sum() - 300 * p[2]
        )

    by_hand = minimize(deviance, [0.0, 1.0, 0.0, 1.5], method="BFGS").fun
    residual = data["y"] - np.polyval(np.polyfit(data["x"], data["y"], 1), data["x"])
    ratio = 300 * (np.log(2 * np.pi * np.mean(residual**2)) + 1) - by_hand
    assert found["against"][1] == "model 1" and found["reference"][1] == "0.5 chi2(0) + 0.5 chi2(1)"
    assert found["lrt"][1] == pytest.approx(ratio, abs=1e-4)
    assert found["p_boundary"][1] == pytest.approx(chi2.sf(ratio, 1) / 2, rel=1e-4)


def test_given_degrees_of_freedom_are_not_nested() -> None:
    data = SLEEP
    found = ml.compare(fit("Reaction ~ Days", data), fit("Reaction ~ Days", data, family=ml.student(df=4)))
    assert found["against"].tolist() == [None, None]


def test_what_was_read_without_its_rows_is_named(tmp_path: Path) -> None:
    one, two = fit("Reaction ~ Days + (1|Subject)"), fit("Reaction ~ Days + (Days||Subject)")
    one.save(tmp_path / "one.mlv")
    read = ml.read(tmp_path / "one.mlv")
    assert ml.compare(read, two)["p_boundary"][1] == ml.compare(one, two)["p_boundary"][1]
    with pytest.raises(DataError, match="'small' was saved without its data, which simulate= needs"):
        ml.compare({"small": read, "large": two}, simulate=10)


def test_a_posterior_read_without_its_rows_is_named(tmp_path: Path) -> None:
    one = posterior_samples.sampled("Reaction ~ Days + (1 | Subject)", SLEEP)
    one.save(tmp_path / "one.mlv")
    with pytest.raises(DataError, match="'model 2' was saved without its data, which leaving rows out needs"):
        ml.compare(one, ml.read(tmp_path / "one.mlv"))
