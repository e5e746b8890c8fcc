"""Saving generalised fits: what comes back, with the rows and without; damaged headers are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from generalised_models import MODELS, fitted

import multilevel as ml
from multilevel import archive
from multilevel.generalised import GeneralisedFit

pytestmark = pytest.mark.filterwarnings("ignore::multilevel.errors.MultilevelWarning")


@pytest.mark.parametrize("data", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_saved_and_read(name: str, data: bool, tmp_path: Path) -> None:
    fit, path = fitted(name), tmp_path / "fit.mlv"
    fit.save(path, data=data)
    again = ml.read(path)
    assert isinstance(again, GeneralisedFit)
    assert (again.family, again.npar, again.loglik) == (fit.family, fit.npar, fit.loglik)
    for table in ("fixef", "ranef", "varcorr", "extra", "tidy", "confint", "coef"):
        pd.testing.assert_frame_equal(getattr(again, table)(), getattr(fit, table)(), rtol=1e-13)
    np.testing.assert_array_equal(again.optimum.residual_vcov, fit.optimum.residual_vcov)
    assert again.design.labels == fit.design.labels and again.design.remake.extra == fit.design.remake.extra
    new = fit.model.data.iloc[[3, 1, 20]]
    for kind in ("link",) if name == "ordinal" else ("link", "response"):
        one, other = (f.predict(new, kind=kind, interval="confidence") for f in (again, fit))
        pd.testing.assert_frame_equal(one, other, rtol=1e-12)
    assert "Family:" in again.summary()
    again.save(tmp_path / "again.mlv", data=data)
    assert (tmp_path / "again.mlv").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", MODELS)
def test_saved_with_data_the_rows_work_too(name: str, tmp_path: Path) -> None:
    fit = fitted(name)
    fit.save(tmp_path / "fit.mlv", data=True)
    again: Any = ml.read(tmp_path / "fit.mlv")
    assert again.summary() == fit.summary()
    np.testing.assert_allclose(again.residuals("quantile", seed=3), fit.residuals("quantile", seed=3), rtol=1e-10)
    pd.testing.assert_frame_equal(again.simulate(2, seed=1), fit.simulate(2, seed=1))
    pd.testing.assert_frame_equal(again.check().frame(), fit.check().frame())
    y = fit.simulate(1, seed=1)["sim_1"]
    assert again.refit(y, threads=1).loglik == pytest.approx(fit.refit(y, threads=1).loglik, abs=1e-8)


def test_without_its_rows_a_fit_says_what_it_needs(tmp_path: Path) -> None:
    fitted("zero-inflated").save(tmp_path / "fit.mlv")
    fit: Any = ml.read(tmp_path / "fit.mlv")
    for verb in (fit.fitted, fit.residuals, fit.simulate, fit.check, fit.icc, fit.augment, fit.model.fit):
        with pytest.raises(ml.DataError, match="saved without its data"):
            verb()


def test_the_nodes_of_quadrature_are_kept(tmp_path: Path) -> None:
    fit = MODELS["binomial"]().fit(quadrature=9, threads=1)
    fit.save(tmp_path / "fit.mlv", data=True)
    again = ml.read(tmp_path / "fit.mlv")
    assert again.summary() == fit.summary() and "9 nodes" in again.summary()
    y = fit.simulate(1, seed=2)["sim_1"]
    assert again.refit(y, threads=1).loglik == pytest.approx(fit.refit(y, threads=1).loglik, abs=1e-8)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"link": "loglog"}, "newer version"),
        ({"zero": "some"}, "newer version"),
        ({"df": 1.0}, "degrees of freedom"),
        ({"names": ["size[Intercept]"]}, "wrong shape"),
        ({"sides": {}}, "side"),
        ({"labels": [3]}, "category"),
        ({"zero": "none"}, "coefficients"),
        ({"quadrature": 1000}, "nodes"),
        ({"names": ["a", "b", "c", 4]}, "no name"),
    ],
)
def test_a_damaged_header_is_refused(change: dict[str, Any], what: str, tmp_path: Path) -> None:
    path = tmp_path / "fit.mlv"
    fitted("zero-inflated").save(path)
    with open(path, "rb") as file:
        archive.is_ours(file)
        header, arrays = archive.read(file)
    header["generalised"] |= change
    kept = {k: v for k, v in header.items() if k not in ("format", "version", "library", "arrays")}
    archive.write(path, kept, arrays)
    with pytest.raises(ml.FileError, match=what):
        ml.read(path)
