"""A fit handed to the package marginaleffects."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

import multilevel as ml

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of marginaleffects, by polars
PAGE = Path(__file__).resolve().parents[1] / "docs" / "means.md"


def fit_of(formula: str = "distance ~ age * Sex + (age | Subject)") -> ml.Fit:
    return ml.lmer(formula, ml.load("orthodont"))


def test_without_the_package_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "marginaleffects", None)
    monkeypatch.setitem(sys.modules, "marginaleffects.classes", None)
    with pytest.raises(ml.OptionError, match="pip install marginaleffects"):
        fit_of().marginaleffects_model()


def test_adapter_predicts_as_the_fit_does() -> None:
    pytest.importorskip("marginaleffects")
    import polars

    fit = fit_of("distance ~ poly(age, 2) * Sex + (age | Subject)")
    model = fit.marginaleffects_model()
    new = polars.DataFrame({"age": [8.0, 13.5], "Sex": ["Male", "Female"]})
    found = model.get_predict(model.get_coef(), model.get_exog(new))["estimate"].to_numpy()
    np.testing.assert_allclose(found, fit.predict(new, groups=None)["prediction"].to_numpy(), rtol=1e-12)
    np.testing.assert_array_equal(model.get_vcov(), fit.vcov())
    assert model.get_vcov(False) is None and model.find_response() == "distance"
    assert model.find_predictors() == ["age", "Sex"] and len(model.get_modeldata()) == fit.nobs
    with pytest.raises(ml.OptionError, match="vcov must be True, False or a matrix"):
        model.get_vcov("HC3")


def test_agrees_with_our_means_and_slopes() -> None:
    pytest.importorskip("marginaleffects")
    from marginaleffects import avg_slopes, datagrid, predictions

    fit = fit_of()
    model = fit.marginaleffects_model()
    # predictions are linear in the coefficients, so that a long step is exact and a short one only rounds
    theirs = avg_slopes(model, variables="age", by="Sex", eps_vcov=1.0)
    ours = fit.slopes("age", by="Sex", ddf="none")
    order = [theirs["Sex"].to_list().index(sex) for sex in ours["Sex"]]
    for column in ("estimate", "std_error", "statistic", "conf_low", "conf_high"):
        np.testing.assert_allclose(theirs[column].to_numpy()[order], ours[column], rtol=1e-7)
    grid = datagrid(model, Sex=["Male", "Female"], age=[8, 14])
    theirs = predictions(model, newdata=grid)
    ours = fit.means(["age", "Sex"], at={"age": [8, 14]}, ddf="none")
    for column in ("estimate", "std_error", "conf_low", "conf_high"):
        np.testing.assert_allclose(theirs[column].to_numpy(), ours[column], rtol=1e-6)


def test_the_example_of_the_page_runs() -> None:
    pytest.importorskip("marginaleffects")
    block = re.search(r"```py\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    exec(compile(block[1], "<page>", "exec"), {})
