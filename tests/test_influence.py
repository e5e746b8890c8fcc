"""Influence against lme4, against real deletion, and its identities."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multilevel as ml
from multilevel import DataError, OptionError, group_influence, influence
from multilevel.reml import Engine

pytestmark = pytest.mark.filterwarnings("ignore::multilevel.MultilevelWarning")

STORED = json.loads((Path(__file__).parent / "golden_checks" / "influence.json").read_text(encoding="utf-8"))["fits"]
SLEEP = "Reaction ~ Days + (Days | Subject)"


def fitted(stored: dict[str, Any]) -> Any:
    return ml.Model(stored["formula"], ml.load(stored["data"]), weights=stored["weights"]).fit(stored["reml"])


def designs() -> dict[str, Any]:
    """Slopes, crossed factors, two terms on one group, weights, offset, ML, a group far larger than the others."""
    rng = np.random.default_rng(8)
    n = 150
    a, b, x = rng.integers(0, 9, n), rng.integers(0, 6, n), rng.normal(size=n)
    y = x + rng.normal(size=9)[a] * (1 + x) + rng.normal(size=6)[b] + rng.normal(size=n)
    data = {"y": y, "x": x, "a": a, "b": b, "w": rng.uniform(0.3, 3, n), "o": rng.normal(size=n)}
    return {
        "crossed": (ml.Model("y ~ x + (x | a) + (1 | b)", data), True),
        "ml": (ml.Model("y ~ x + (x | a) + (1 | b)", data), False),
        "weights": (ml.Model("y ~ x + (x | a) + (1 | b)", data, weights="w"), True),
        "weights_ml": (ml.Model("y ~ x + offset(o) + (1 | a) + (0 + x | a)", data, weights="w"), False),
        "nested": (ml.Model("y ~ x + (1 | a) + (x || a:b)", data), True),
    }


@pytest.fixture(scope="module")
def fits() -> dict[str, Any]:
    return {name: model.fit(reml) for name, (model, reml) in designs().items()}


def held(fit: Any, keep: np.ndarray) -> tuple[np.ndarray, float, Any]:
    """Beta, sigma and the engine without some rows, Lambda held: by building the cross-products anew."""
    engine = Engine(group_influence.without_rows(fit.design, keep), 1)
    state = engine.state(fit.reml, engine.engine_lambdas(fit.optimum.lambdas))
    c, solution = engine.blocks, state.solution()
    beta = c.x_basis @ (c.scale * solution[len(solution) - c.p :] + c.shift)
    return beta, c.scale * c.unit * float(np.sqrt(state.r2 / engine.df(fit.reml))), engine


# -- against lme4 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", STORED, ids=lambda s: s["id"])
def test_rows_equal_lme4s_hatvalues_and_cooks_distance(stored: dict[str, Any]) -> None:
    table = fitted(stored).influence()
    assert table["leverage"].to_numpy() == pytest.approx(np.array(stored["hat"]), rel=1e-5)
    want = np.array(stored["cooks"])
    assert table["cooks"].to_numpy() == pytest.approx(want, rel=1e-4, abs=1e-6 * want.max())


@pytest.mark.parametrize("stored", STORED, ids=lambda s: s["id"])
def test_refits_without_each_group_equal_lme4s(stored: dict[str, Any]) -> None:
    fit, group = fitted(stored), stored["group"]
    table = fit.influence(group["name"], refit=True)
    order = [[str(level) for level in table["level"]].index(str(level)) for level in group["level"]]
    change = np.array(group["dfbeta"])
    se = np.sqrt(np.diag(fit.vcov()))
    for i, name in enumerate(fit.design.names):
        found = table[f"dfbetas_{name}"].to_numpy()[order] * se[i]
        assert found == pytest.approx(-change[:, i], abs=2e-4 * se[i])  # lme4: without less with; R's lm: as here
    # lme4 divides by p and multiplies by (groups - p) / groups
    p, count = len(se), len(order)
    assert table["cooks"].to_numpy()[order] * (count - p) / count == pytest.approx(np.array(group["cooks"]), abs=1e-3)
    sds = np.array(group["sdcor"])
    assert table["sigma"].to_numpy()[order] == pytest.approx(sds[:, 0], rel=1e-4)
    sd = [c for c in table.columns if c.startswith("sd(")]
    top = float(np.abs(sds).max())
    for i, name in enumerate(sd):
        assert table[name].to_numpy()[order] == pytest.approx(sds[:, 1 + i], abs=1e-4 * top)


# -- exact with the variance parameters held --------------------------------------------------------------------


@pytest.mark.parametrize("name", designs())
def test_rows_are_deleted_exactly(fits: dict[str, Any], name: str) -> None:
    fit = fits[name]
    d, table = fit.design, fit.influence()
    se = np.sqrt(np.diag(fit.vcov()))
    for row in (0, 17, 94):
        beta, sigma, engine = held(fit, np.arange(len(d.y)) != row)
        change = fit.optimum.beta - beta
        found = [table[f"dfbetas_{n}"][row] for n in d.names]
        assert found == pytest.approx(change / se, abs=1e-8)
        cook = change @ np.linalg.solve(fit.vcov(), change) / len(se)
        assert table["cooks_fixed"][row] == pytest.approx(cook, rel=1e-6, abs=1e-12)
        # the studentised residual uses sigma without the row
        h, w = table["leverage"][row], 1.0 if d.weights is None else d.weights[row]
        e = (d.y[row] - fit.fitted()[row]) * np.sqrt(w)
        assert table["student_residual"][row] == pytest.approx(e / (sigma * np.sqrt(1 - h)), rel=1e-7)
        assert table["std_residual"][row] == pytest.approx(e / (fit.sigma * np.sqrt(1 - h)), rel=1e-9)
        assert table["dffits"][row] == pytest.approx(table["student_residual"][row] * np.sqrt(h / (1 - h)), rel=1e-9)


def test_dffits_is_the_change_of_the_rows_own_prediction(fits: dict[str, Any]) -> None:
    fit = fits["crossed"]
    d, table, row = fit.design, fit.influence(), 33
    other = replace(d, y=np.where(np.arange(len(d.y)) == row, 0.0, d.y))  # leave its value to the weight alone
    tiny = np.where(np.arange(len(d.y)) == row, 1e-12, 1.0)
    engine = Engine(replace(other, weights=tiny), 1)
    state = engine.state(True, engine.engine_lambdas(fit.optimum.lambdas))
    optimum = engine._optimum(state, list(engine.engine_lambdas(fit.optimum.lambdas)), True, fit.optimum.evidence)
    without = d.X[row] @ optimum.beta
    for term, b in zip(d.terms, optimum.b, strict=True):
        without += b[term.codes[row], 0] if term.Z is None else term.Z[row] @ b[term.codes[row]]
    _, sigma, _ = held(fit, np.arange(len(d.y)) != row)
    h = table["leverage"][row]
    assert table["dffits"][row] == pytest.approx((fit.fitted()[row] - without) / (sigma * np.sqrt(h)), rel=1e-6)


@pytest.mark.parametrize("large", [0, 400])
@pytest.mark.parametrize("name", designs())
def test_groups_are_deleted_exactly(
    fits: dict[str, Any], name: str, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the updating formula, and by the way taken for large groups."""
    monkeypatch.setattr(group_influence, "LARGE", large)
    fit = fits[name]
    se = np.sqrt(np.diag(fit.vcov()))
    for group in dict.fromkeys(t.group for t in fit.design.terms):
        term = next(t for t in fit.design.terms if t.group == group)
        table = fit.influence(group)
        assert table["rows"].tolist() == np.bincount(term.codes).tolist()
        for j in range(0, len(term.levels), 3):
            beta, _, _ = held(fit, term.codes != j)
            found = [table[f"dfbetas_{n}"][j] for n in fit.design.names]
            assert found == pytest.approx((fit.optimum.beta - beta) / se, abs=1e-8)


@pytest.mark.parametrize("name", designs())
def test_both_ways_take_the_same_newton_step(
    fits: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = fits[name]
    group = fit.design.terms[0].group
    one = fit.influence(group).select_dtypes("number")
    monkeypatch.setattr(group_influence, "LARGE", 0)
    two = fit.influence(group).select_dtypes("number")
    assert any(c.startswith("sd(") for c in one.columns)
    for column in one.columns:
        assert one[column].to_numpy() == pytest.approx(two[column].to_numpy(), abs=2e-5 * (1 + np.abs(two[column]).max()))


def test_the_slope_of_the_newton_step_is_that_of_the_criterion_without_the_group(fits: dict[str, Any]) -> None:
    fit = fits["ml"]
    facts, term = fit.curvature, fit.design.terms[0]
    rows = influence.engine_rows(fit)
    members = group_influence.group_rows(term.codes, len(term.levels))
    few = list(range(len(members)))
    found = group_influence.delete_groups(fit, rows, list(fit.optimum.engine_lambdas), members, few)
    slopes = group_influence._slopes(fit, rows, members, few, facts, found, None)
    for j in (0, 5):
        engine = Engine(group_influence.without_rows(fit.design, term.codes != j), 1)
        for i, d in enumerate(facts.directions):
            ends = []
            for sign in (1, -1):
                moved = [np.array(m) for m in fit.optimum.engine_lambdas]
                moved[d.group] = moved[d.group] + sign * 1e-4 * d.matrix()
                ends.append(engine.criterion(tuple(group_influence.user_roots(fit, moved)), fit.reml, fit.sigma))
            assert slopes[j, i] == pytest.approx((ends[0] - ends[1]) / 2e-4, abs=2e-4)
        step = 1e-5 * fit.sigma
        ends = [engine.criterion(fit.optimum.lambdas, fit.reml, fit.sigma + s * step) for s in (1, -1)]
        assert slopes[j, -1] == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=1e-3)


def test_one_newton_step_goes_most_of_the_way_to_the_refit() -> None:
    fit = ml.lmer(SLEEP, ml.load("sleepstudy"))
    step, truth = fit.influence("Subject"), fit.influence("Subject", refit=True)
    cov = fit.random_cov()[0]
    start = {"sigma": fit.sigma, "sd(Subject, Intercept)": cov[0, 0] ** 0.5, "sd(Subject, Days)": cov[1, 1] ** 0.5}
    for column, value in start.items():
        moved, all_the_way = step[column] - value, truth[column] - value
        assert np.corrcoef(moved, all_the_way)[0, 1] > 0.98
        assert np.abs(moved - all_the_way).max() < 0.25 * np.abs(all_the_way).max()
    assert np.abs(step["cooks"] - truth["cooks"]).max() < 0.02
    assert set(step["method"]) == {influence.GROUP_METHOD} and set(truth["method"]) == {"refitted"}


# -- identities and properties ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", designs())
def test_leverages_are_the_diagonal_of_the_hat_matrix(fits: dict[str, Any], name: str) -> None:
    """Against the dense matrix of the augmented least squares problem, and its trace."""
    fit = fits[name]
    d = fit.design
    n = len(d.y)
    blocks = []
    for term, root in zip(d.terms, fit.optimum.lambdas, strict=True):
        z = np.ones((n, 1)) if term.Z is None else term.Z
        wide = np.zeros((n, len(term.levels), z.shape[1]))
        wide[np.arange(n), term.codes] = z
        blocks.append((wide @ root).reshape(n, -1))
    random = np.hstack(blocks)
    a = np.sqrt(np.ones(n) if d.weights is None else d.weights)[:, None] * np.hstack([random, d.X])
    m = a.T @ a
    q = random.shape[1]
    m[:q, :q] += np.eye(q)
    hat = a @ np.linalg.solve(m, a.T)
    leverage = fit.influence()["leverage"].to_numpy()
    assert leverage == pytest.approx(np.diag(hat), abs=1e-9)
    assert leverage.sum() == pytest.approx(np.trace(np.linalg.solve(m, a.T @ a)), rel=1e-9)
    assert len(d.names) < leverage.sum() < len(d.names) + q
    rows = influence.engine_rows(fit)
    v = np.random.default_rng(0).normal(size=(n, 3))
    assert influence.projected(fit, rows, v) == pytest.approx(v - hat @ v, abs=1e-9)


def test_units_do_not_matter() -> None:
    data = ml.load("sleepstudy")
    moved = data.assign(Reaction=data["Reaction"] * 1e3, Days=data["Days"] * 60)
    for group in (None, "Subject"):
        one, two = (ml.lmer(SLEEP, d).influence(group) for d in (data, moved))
        for column in one.columns:
            if column.startswith(("cooks", "dfb", "lev", "std", "stud", "dff", "cor")):
                assert one[column].to_numpy() == pytest.approx(two[column].to_numpy(), abs=1e-5)


def test_rows_align_with_the_data() -> None:
    data = ml.load("sleepstudy")
    data.loc[[3, 40], "Reaction"] = np.nan
    table = ml.lmer(SLEEP, data).influence()
    assert len(table) == 180
    assert table.drop(columns="method").isna().all(axis=1).to_numpy().nonzero()[0].tolist() == [3, 40]


def test_a_row_that_alone_determines_a_coefficient_has_no_deletion() -> None:
    data = ml.load("sleepstudy").assign(one=np.arange(180) == 7)
    table = ml.lmer("Reaction ~ Days + one + (Days | Subject)", data.astype({"one": float})).influence()
    assert table["leverage"][7] == pytest.approx(1)
    assert np.isnan(table["cooks"][7]) and np.isnan(table["dfbetas_one"][7])
    assert table["cooks"].notna().sum() == 179


@pytest.mark.parametrize("large", [0, 400])
@pytest.mark.parametrize("refit", [True, False])
def test_a_group_that_alone_determines_a_coefficient_has_none(
    large: int, refit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_influence, "LARGE", large)
    data = ml.load("sleepstudy")
    data["odd"] = np.where(data["Subject"].astype(str) == "330", np.arange(180) % 3, 0.0)
    table = ml.lmer("Reaction ~ Days + odd + (1 | Subject)", data).influence("Subject", refit=refit)
    lost = table["cooks"].isna().to_numpy()
    assert [str(level) for level in table["level"][lost]] == ["330"]


def test_a_singular_fit_and_one_without_fixed_effects() -> None:
    table = ml.lmer("Yield ~ 1 + (1 | Batch)", ml.load("dyestuff2")).influence("Batch")
    assert table["sd(Batch, Intercept)"].to_numpy() == pytest.approx(np.zeros(6), abs=1e-10)
    assert np.isfinite(table["cooks"]).all()
    data = ml.load("sleepstudy")
    rows = ml.lmer("Reaction ~ 0 + (1 | Subject)", data).influence()
    assert np.isfinite(rows["leverage"]).all()


def test_without_the_newton_step() -> None:
    fit = ml.lmer(SLEEP, ml.load("sleepstudy"))
    short, whole = fit.influence("Subject", variances=False), fit.influence("Subject")
    assert list(short.columns) == ["level", "rows", "cooks", "dfbetas_Intercept", "dfbetas_Days", "method"]
    assert short["cooks"].to_numpy() == pytest.approx(whole["cooks"].to_numpy())
    assert set(short["method"]) == {influence.HELD_METHOD}


def test_a_residual_structure_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = ml.lmer(SLEEP, ml.load("sleepstudy"))
    monkeypatch.setattr(type(fit.model), "residual", "ar1", raising=False)
    verbs = (fit.influence, fit.check, lambda: fit.icc(interval=None), lambda: fit.condition(ml.load("sleepstudy")))
    for verb in verbs:
        with pytest.raises(OptionError, match="residual structure"):
            verb()


def test_wrong_arguments_are_named(tmp_path: Any) -> None:
    fit = ml.lmer(SLEEP, ml.load("sleepstudy"))
    with pytest.raises(OptionError, match="did you mean 'Subject'"):
        fit.influence("subject")
    with pytest.raises(OptionError, match="name of a grouping factor"):
        fit.influence(3)
    with pytest.raises(OptionError, match="group="):
        fit.influence(refit=True)
    with pytest.raises(OptionError, match="True or False"):
        fit.influence("Subject", variances=1)
    fit.save(tmp_path / "a.mlv")
    with pytest.raises(DataError, match="without its data"):
        ml.read(tmp_path / "a.mlv").influence()


def test_a_fit_read_with_its_rows(tmp_path: Any) -> None:
    fit = ml.Model(SLEEP, ml.load("sleepstudy"), weights=np.tile([1, 2, 0.5], 60)).fit()
    fit.save(tmp_path / "a.mlv", data=True)
    for group in (None, "Subject"):
        one, two = (f.influence(group).select_dtypes("number") for f in (fit, ml.read(tmp_path / "a.mlv")))
        assert one.to_numpy() == pytest.approx(two.to_numpy(), abs=1e-6)


@pytest.mark.slow
def test_many_rows_and_crossed_factors_in_seconds() -> None:
    table = ml.lmer("y ~ service + (1 | s) + (1 | d) + (1 | dept)", ml.load("insteval")).influence()
    assert len(table) == 73_421 and np.isfinite(table["cooks"]).all()
