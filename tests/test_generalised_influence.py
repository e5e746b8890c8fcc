"""Influence in generalised models: against lme4, dense algebra and real refits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from generalised_models import CBPP, OWLS, TICKS, fitted, wine
from numpy.typing import NDArray

import multilevel as ml
from multilevel import DataError, OptionError, group_influence
from multilevel import generalised_influence as influence
from multilevel.generalised import GeneralisedFit

Array = NDArray[np.float64]

pytestmark = pytest.mark.filterwarnings("ignore::multilevel.errors.MultilevelWarning")

STORED = json.loads((Path(__file__).parent / "golden_checks" / "influence_glmm.json").read_text(encoding="utf-8"))["fits"]


def ticks() -> GeneralisedFit:
    data = ml.load("grouseticks")
    data["YEAR"] = data["YEAR"].astype("category")
    fit = ml.Model(TICKS, data, family="poisson").fit(threads=1)
    assert isinstance(fit, GeneralisedFit)
    return fit


@pytest.fixture(scope="module")
def fits() -> dict[str, GeneralisedFit]:
    owls = ml.Model(OWLS, ml.load("owls"), family="nbinom2", zi="~ FoodTreatment").fit(threads=1)
    assert isinstance(owls, GeneralisedFit)
    return {"cbpp": fitted("binomial"), "grouseticks": ticks(), "owls": owls, "wine": fitted("ordinal")}


def changes(table: Any) -> Array:
    return np.asarray(table[[c for c in table.columns if c.startswith("dfbetas_")]], dtype=np.float64)


# -- rows -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", STORED, ids=lambda s: s["id"])
def test_rows_equal_lme4s_hat_values_and_cooks_distance(stored: dict[str, Any], fits: dict[str, Any]) -> None:
    table = fits[stored["id"]].influence()
    assert table["leverage"].to_numpy() == pytest.approx(np.array(stored["hat"]), rel=1e-5)
    want = np.array(stored["cooks"])
    assert table["cooks"].to_numpy() == pytest.approx(want, rel=1e-4, abs=1e-6 * want.max())
    pearson = np.array(stored["pearson"])
    np.testing.assert_allclose(table["std_residual"], pearson / np.sqrt(1 - table["leverage"]), rtol=1e-4, atol=1e-5)


def dense(rows: Any, lambdas: list[Array]) -> Array:
    """(n, q + p) the whitened matrix of the working linear model."""
    out = np.zeros((len(rows.x), int(rows.offsets[-1]) + rows.x.shape[1]))
    out[:, int(rows.offsets[-1]) :] = rows.x
    for one in rows.entries:
        k = one.z.shape[1]
        for i, code in enumerate(one.codes):
            first = rows.offsets[one.group] + code * k
            out[i, first : first + k] += one.z[i] @ lambdas[one.group]
    return out


@pytest.mark.parametrize("name", ["cbpp", "gamma"])
def test_rows_are_deleted_exactly_from_the_working_model(name: str) -> None:
    """One Newton step of all effects at once without the row, by a dense solve."""
    fit = fitted("binomial" if name == "cbpp" else name)
    rows, lambdas = influence.working_rows(fit), list(fit.optimum.engine_lambdas)
    A = dense(rows, lambdas)
    q = int(rows.offsets[-1])
    M = A.T @ A + np.diag(np.r_[np.ones(q), np.zeros(A.shape[1] - q)])
    score, w = influence.score_and_weight(fit)
    se = np.sqrt(np.diag(fit.optimum.vcov))
    table = fit.influence()
    for row in (0, 10, 55):
        without = M - np.outer(A[row], A[row])
        step = np.linalg.solve(without, A[row] * score[row] / np.sqrt(w[row]))[q:]
        np.testing.assert_allclose(changes(table)[row], fit.engine.blocks.x_basis @ step / se, rtol=1e-6, atol=1e-10)
        if name == "cbpp":  # of other links and families leverages have expected weights
            assert table["leverage"][row] == pytest.approx(float(A[row] @ np.linalg.solve(M, A[row])), rel=1e-8)
        change = fit.engine.blocks.x_basis @ step
        cook = change @ np.linalg.solve(fit.optimum.vcov, change) / len(se)
        assert table["cooks_fixed"][row] == pytest.approx(cook, rel=1e-6)


def test_rows_of_ordinal_models_move_the_thresholds() -> None:
    """Newton step of modes, coefficients and thresholds without the row, its derivatives by differences."""
    fit = fitted("ordinal")
    d, lam = fit.design, float(fit.optimum.engine_lambdas[0][0, 0] * fit.engine.blocks.groups[0].basis[0, 0])
    judges, p, r = len(d.terms[0].levels), len(fit.optimum.beta), len(fit.optimum.residual)
    at = np.r_[fit.optimum.b[0][:, 0] / lam, fit.optimum.beta, fit.optimum.residual]

    def densities(values: Array) -> Array:
        eta = lam * values[:judges][d.terms[0].codes] + d.X @ values[judges : judges + p]
        cuts = np.r_[-np.inf, values[judges + p :], np.inf]
        y = d.y.astype(int)
        above, below = (1 / (1 + np.exp(-(cuts[y + up] - eta))) for up in (1, 0))
        return np.log(above - below)

    size, h = len(at), 1e-4
    unit = h * np.eye(size)
    slope = np.array([(densities(at + one) - densities(at - one)) / (2 * h) for one in unit]).T
    curve = np.empty((len(d.y), size, size))
    for i in range(size):
        for j in range(size):
            ends = [densities(at + a * unit[i] + b * unit[j]) * a * b for a in (1, -1) for b in (1, -1)]
            curve[:, i, j] = -sum(ends) / (4 * h * h)
    whole = curve.sum(axis=0) + np.diag(np.r_[np.ones(judges), np.zeros(p + r)])
    found, se = changes(fit.influence()), np.sqrt(np.diag(fit.optimum.vcov))
    for row in (3, 9, 40):
        step = np.linalg.solve(whole - curve[row], slope[row])[judges : judges + p]
        np.testing.assert_allclose(found[row], step / se, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("name", "largest", "off"), [("cbpp", 0.96, 0.11), ("wine", 0.39, 0.08)])
def test_rows_are_as_near_to_refits_as_the_page_says(name: str, largest: float, off: float, fits: dict[str, Any]) -> None:
    fit = fits[name]
    d, se = fit.design, np.sqrt(np.diag(fit.optimum.vcov))
    truth = np.empty((len(d.y), len(se)))
    for i in range(len(d.y)):
        small = influence.part_of(d, np.arange(len(d.y)) != i)
        truth[i] = (fit.optimum.beta - fit.model.with_design(small).fit(threads=1).optimum.beta) / se
    assert np.abs(truth).max() == pytest.approx(largest, abs=0.01)
    assert np.abs(changes(fit.influence()) - truth).max() < off


# -- groups ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "group", "off"), [("cbpp", "herd", 0.018), ("grouseticks", "LOCATION", 0.018), ("wine", "judge", 0.028)]
)
def test_two_steps_come_near_to_refits(name: str, group: str, off: float, fits: dict[str, Any]) -> None:
    fit = fits[name]
    found, truth = fit.influence(group), fit.influence(group, refit=True)
    assert list(found.columns) == list(truth.columns)
    assert np.abs(changes(truth)).max() > 0.4  # so that there is something to miss
    assert np.abs(changes(found) - changes(truth)).max() < off
    assert found["rows"].tolist() == np.bincount(fit.design.terms[0].codes).tolist() or group == "LOCATION"
    for column in [c for c in found.columns if c.startswith(("sd(", "size", "1|", "4|"))]:
        moves = float(truth[column].max() - truth[column].min())
        assert np.abs(found[column] - truth[column]).max() < 0.15 * moves, column
    np.testing.assert_allclose(found["cooks"], truth["cooks"], atol=0.03)
    assert set(truth["method"]) == {"refitted"} and set(found["method"]) == {influence.STEP_METHOD}


def test_steps_lower_the_deviance_of_the_other_rows(fits: dict[str, Any]) -> None:
    """Nests of the zero-inflated model: nearly down to the minimum of a model that never had their rows."""
    fit = fits["owls"]
    without, codes = influence.Without(fit), fit.design.terms[0].codes
    for nest in ("Oleyes", "Forel"):
        gone = codes == list(fit.design.terms[0].levels).index(nest)
        model = fit.model.with_design(influence.part_of(fit.design, ~gone))
        least, engine = model.fit(threads=1), model.laplace()

        def deviance(beta: Array, sd: float, more: Array, engine: Any = engine) -> float:
            at = np.linalg.solve(engine.x_basis, beta), np.linalg.solve(engine.coefficients.basis, more)
            root = np.array([[sd / engine.groups[0].basis[0, 0]]])
            return 2 * float(engine.state().evaluate(at[0], [root], engine.coefficients.rows(at[1]), False)[0])

        o = fit.optimum
        start = deviance(o.beta, float(o.lambdas[0][0, 0]), o.residual)
        step = without.steps(gone)
        assert step is not None
        beta, covs, more = without.moved(step)
        end = deviance(beta, float(np.sqrt(covs[0][0, 0])), more)
        assert least.deviance - 1e-8 <= end < least.deviance + 0.01 * (start - least.deviance)


@pytest.mark.parametrize("nodes", [0, 9])
def test_other_engines(nodes: int) -> None:
    fit = ml.Model(CBPP, ml.load("cbpp"), family="binomial").fit(quadrature=nodes, threads=1)
    found, truth = fit.influence("herd"), fit.influence("herd", refit=True)
    assert np.abs(changes(found) - changes(truth)).max() < 0.035
    np.testing.assert_allclose(found["sd(herd, Intercept)"], truth["sd(herd, Intercept)"], atol=0.006)


@pytest.mark.parametrize("family", ["gamma-inverse", "student", "nbinom1", "ordinal-cauchit"])
def test_two_steps_for_other_families_and_links(family: str) -> None:
    """A link with an edge, densities that are not log-concave."""
    rng = np.random.default_rng(0)
    g, x, b = rng.integers(0, 15, 300), rng.normal(size=300), 0.5 * rng.normal(size=15)
    eta = 0.5 + 0.4 * x + b[g]
    y = {
        "gamma-inverse": rng.gamma(3, np.exp(eta) / 3),
        "student": eta + 0.4 * rng.standard_t(5, 300),
        "nbinom1": rng.poisson(rng.gamma(np.exp(eta), 1.0)),
        "ordinal-cauchit": np.digitize(eta + rng.normal(size=300), [-0.5, 0.5, 1.5]),
    }[family]
    name, _, link = family.partition("-")
    model = ml.Model("y ~ x + (1 | g)", {"y": y, "x": x, "g": g}, family=name, link=link or None)
    fit = model.fit(threads=1)
    found, truth = (pd.DataFrame(fit.influence("g", refit=refit)) for refit in (False, True))
    assert np.abs(changes(truth)).max() > 0.3
    assert np.abs(changes(found) - changes(truth)).max() < 0.06


@pytest.mark.parametrize("constants", [{"INVERSE": 0}, {"LARGE": 0}])
def test_ways_of_deletion_from_the_working_model_agree(
    constants: dict[str, int], fits: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = fits["grouseticks"]
    first = fit.influence("LOCATION", variances=False)
    assert set(first["method"]) == {influence.HELD_METHOD} and not [c for c in first.columns if c.startswith("sd(")]
    for name, value in constants.items():
        monkeypatch.setattr(group_influence, name, value)
    np.testing.assert_allclose(changes(fit.influence("LOCATION", variances=False)), changes(first), atol=1e-7)
    truth = fit.influence("LOCATION", refit=True)
    assert np.abs(changes(first) - changes(truth)).max() < 0.12


def test_deletion_from_the_working_model_is_for_costly_fits(fits: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(influence, "MUCH_WORK", 0.0)
    table = fits["cbpp"].influence("herd")
    assert "variances=True" in table["method"][0]
    assert fits["cbpp"].influence("herd", variances=True)["method"][0] == influence.STEP_METHOD


# -- weights, missing rows, frames, files --------------------------------------------------------------------------


def test_weights_count_rows_and_missing_rows_stay_missing() -> None:
    data = ml.load("cbpp")
    data["twice"] = np.where(data.index == 5, 2.0, 1.0)
    model = ml.Model(CBPP, data, family="binomial", weights="twice")
    doubled = pd.concat([data, data.iloc[[5]]], ignore_index=True)
    one, two = model.fit(threads=1), ml.Model(CBPP, doubled, family="binomial").fit(threads=1)
    np.testing.assert_allclose(changes(one.influence("herd")), changes(two.influence("herd")), atol=1e-6)
    assert one.influence()["leverage"][5] == pytest.approx(2 * two.influence()["leverage"][5], rel=1e-6)
    holes = data.astype({"incidence": float})
    holes.loc[3, "incidence"] = np.nan
    table = ml.Model(CBPP, holes, family="binomial").fit(threads=1).influence()
    assert len(table) == len(data) and table["cooks"].isna().tolist() == [i == 3 for i in range(len(data))]


def test_frames_stay_in_their_library() -> None:
    pl = pytest.importorskip("polars")
    data = pl.from_pandas(ml.load("cbpp"))
    fit = ml.Model(CBPP, data, family="binomial").fit(threads=1)
    assert isinstance(fit.influence(), pl.DataFrame) and isinstance(fit.influence("herd"), pl.DataFrame)
    made, known = fit.influence("herd"), fitted("binomial").influence("herd")
    cooks = dict(zip(map(str, known["level"]), known["cooks"], strict=True))
    np.testing.assert_allclose(made["cooks"], [cooks[str(level)] for level in made["level"]], rtol=1e-5)


def test_groups_that_alone_determine_something_have_no_numbers() -> None:
    data = wine()
    data = data[(data["judge"] == "1") | (data["rating"].astype(int) < 5)].copy()
    fit = ml.Model("rating ~ temp + (1 | judge)", data, family="ordinal").fit(threads=1)
    table = fit.influence("judge")
    assert table["cooks"].isna().tolist() == [level == "1" for level in table["level"].astype(str)]


def test_saved_fits(tmp_path: Path) -> None:
    fit = fitted("binomial")
    fit.save(tmp_path / "bare.mlv")
    with pytest.raises(DataError, match="data=True"):
        ml.read(tmp_path / "bare.mlv").influence("herd")
    fit.save(tmp_path / "whole.mlv", data=True)
    again = ml.read(tmp_path / "whole.mlv")
    np.testing.assert_allclose(changes(again.influence("herd")), changes(fit.influence("herd")), atol=1e-7)
    np.testing.assert_allclose(again.influence()["cooks"], fit.influence()["cooks"], rtol=1e-7)


def test_what_is_asked_wrongly() -> None:
    fit = fitted("binomial")
    with pytest.raises(OptionError, match="refit=True refits without each level"):
        fit.influence(refit=True)
    with pytest.raises(OptionError, match="herd"):
        fit.influence("heard")
    with pytest.raises(OptionError, match="group must be the name"):
        fit.influence(3)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="refit"):
        fit.influence("herd", refit="yes")  # type: ignore[arg-type]
    table = fitted("no groups").influence()
    assert np.isfinite(table["cooks"]).all() and table["leverage"].sum() == pytest.approx(4, rel=1e-6)
