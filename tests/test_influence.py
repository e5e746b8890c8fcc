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
    engine = Engine(influence.without_rows(fit.design, keep), 1)
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


WAYS = {"inverse": {}, "rows": {"INVERSE": 0}, "anew": {"LARGE": 0}}  # of deletion: on what is touched, by rows, by sums


def take(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for constant, value in WAYS[way].items():
        monkeypatch.setattr(group_influence, constant, value)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", designs())
def test_groups_are_deleted_exactly(fits: dict[str, Any], name: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In each of the three ways."""
    take(way, monkeypatch)
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


@pytest.mark.parametrize("way", ["rows", "anew"])
@pytest.mark.parametrize("name", designs())
def test_all_ways_take_the_same_newton_step(
    fits: dict[str, Any], name: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = fits[name]
    group = fit.design.terms[0].group
    one = fit.influence(group).select_dtypes("number")
    take(way, monkeypatch)
    two = fit.influence(group).select_dtypes("number")
    assert any(c.startswith("sd(") for c in one.columns)
    for column in one.columns:
        assert one[column].to_numpy() == pytest.approx(two[column].to_numpy(), abs=2e-5 * (1 + np.abs(two[column]).max()))


def test_the_slope_of_the_newton_step_is_that_of_the_criterion_without_the_group(fits: dict[str, Any]) -> None:
    fit = fits["ml"]
    facts, term = fit.curvature, fit.design.terms[0]
    group = next(f for f, one in enumerate(fit.engine.blocks.groups) if one.name == term.group)
    deletion = group_influence.Deletion(fit, group)
    slopes = group_influence._slopes(deletion, facts, deletion.at(list(fit.optimum.engine_lambdas)))
    for j in (0, 5):
        engine = Engine(influence.without_rows(fit.design, term.codes != j), 1)
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


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("refit", [True, False])
def test_a_group_that_alone_determines_a_coefficient_has_none(
    way: str, refit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(way, monkeypatch)
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


# -- structures of the residuals, known covariances -----------------------------------------------------------------


def structured() -> dict[str, Any]:
    """Series within s, which is nested in school; items crossed with it; a spread by sex and by x; relatives."""
    rng = np.random.default_rng(11)
    s, t = np.repeat(np.arange(24), 6), np.tile(np.arange(6), 24)
    item, x, sex = rng.integers(0, 5, 144), rng.uniform(0.5, 3, 144), np.where(s % 2 == 0, "f", "m")
    e = rng.normal(size=144)
    for i in range(1, 144):
        e[i] = 0.6 * e[i - 1] + 0.8 * e[i] if s[i] == s[i - 1] else e[i]
    y = x + rng.normal(size=24)[s] + 0.5 * rng.normal(size=5)[item] + e * np.where(sex == "f", 1, 2)
    data = {"y": y, "x": x, "s": s, "t": t, "item": item, "sex": sex, "school": s // 6, "w": rng.uniform(0.5, 2, 144)}
    root = rng.normal(size=(24, 24)) * 0.2 + np.eye(24)
    kin = {"s": ml.KnownCovariance(np.arange(24), covariance=root @ root.T)}
    serial = "ar1(t | s)"
    return {
        "ident": ml.Model("y ~ x + (1 | s) + (1 | item)", data, variance="ident(sex)", weights="w"),
        "power": ml.Model("y ~ x + (x | s)", data, variance="power(x)"),
        "fitted": ml.Model("y ~ x + (1 | s)", data | {"y": y + 20}, variance="power(fitted)"),
        "ar1": ml.Model("y ~ x + (1 | s) + (1 | item)", data, correlation=serial),
        "both": ml.Model("y ~ x + (1 | school) + (1 | s)", data, correlation=serial, variance="ident(sex) + power(x)"),
        "car1": ml.Model("y ~ x + (1 | s)", data, correlation="car1(t | s)", weights="w"),
        "kin": ml.Model("y ~ x + (x | s) + (1 | item)", data, covariance=kin),
        "cs": ml.Model("y ~ x + homcs(0 + factor(h) | s) + (1 | item)", data | {"h": t // 2}),
    }


def covariance_of(fit: Any) -> np.ndarray:
    """(n, n) covariance of the response by its definition."""
    d, n = fit.design, len(fit.design.y)
    sd = np.ones(n) if d.weights is None else 1 / np.sqrt(d.weights)
    values, at = list(fit.optimum.residual), 0
    correlation = np.eye(n)
    data = fit.model.data
    for spread in fit.model.residual.spreads if fit.model.residual else ():
        if spread.kind == "ident":
            sd = sd * np.where(data["sex"] == "f", 1.0, values[at])
        elif spread.column == "fitted":
            sd = sd * np.exp(values[at] * spread.basis)  # of the fitted values that the last round began with
        else:
            sd = sd * data["x"] ** values[at]
        at += 1
    if fit.model.residual and fit.model.residual.serial:
        same = data["s"][:, None] == data["s"]
        correlation = same * values[at] ** np.abs(np.subtract.outer(data["t"], data["t"]))
    v = fit.sigma**2 * correlation * np.outer(sd, sd)
    for term, cov in zip(d.terms, fit.random_cov(), strict=True):
        z = np.ones((n, 1)) if term.Z is None else term.Z
        wide = np.zeros((n, len(term.levels), z.shape[1]))
        wide[np.arange(n), term.codes] = z
        known = d.known.get(term.group)
        k = np.eye(len(term.levels)) if known is None else np.linalg.inv(known.precision.toarray())
        v += np.einsum("iak,ab,kl,jbl->ij", wide, k, cov, wide, optimize=True)
    return v


def generalised(fit: Any, v: np.ndarray, keep: np.ndarray) -> np.ndarray:
    x, y = fit.design.X[keep], fit.design.y[keep]
    inner = np.linalg.solve(v[np.ix_(keep, keep)], np.column_stack([x, y]))
    return np.linalg.solve(x.T @ inner[:, :-1], x.T @ inner[:, -1])


@pytest.fixture(scope="module")
def structured_fits() -> dict[str, Any]:
    return {name: model.fit() for name, model in structured().items()}


@pytest.mark.parametrize("name", structured())
def test_deletion_with_structures_equals_generalised_least_squares(structured_fits: dict[str, Any], name: str) -> None:
    fit = structured_fits[name]
    v, n = covariance_of(fit), len(fit.design.y)
    assert generalised(fit, v, np.ones(n, bool)) == pytest.approx(fit.optimum.beta, rel=1e-8)
    se = np.sqrt(np.diag(fit.vcov()))
    columns = [f"dfbetas_{n}" for n in fit.design.names]
    if not (fit.model.residual and fit.model.residual.serial):
        rows = fit.influence()
        for row in (0, 31, 100):
            change = fit.optimum.beta - generalised(fit, v, np.arange(n) != row)
            assert rows.loc[row, columns].to_numpy(float) == pytest.approx(change / se, abs=1e-8)
    for term in fit.design.terms:
        if not influence.holds_series(fit, term.group):
            continue
        table = fit.influence(term.group)
        for j in range(0, len(term.levels), 5):
            change = fit.optimum.beta - generalised(fit, v, term.codes != j)
            assert table.loc[j, columns].to_numpy(float) == pytest.approx(change / se, abs=1e-8)


@pytest.mark.parametrize("name", ["both", "car1", "kin", "ident"])
@pytest.mark.parametrize("way", ["rows", "anew"])
def test_all_ways_agree_with_structures(
    structured_fits: dict[str, Any], name: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = structured_fits[name]
    one = fit.influence("s").select_dtypes("number")
    take(way, monkeypatch)
    two = fit.influence("s").select_dtypes("number")
    assert ("sigma" in one.columns) == (name == "kin")
    for column in one.columns:
        assert one[column].to_numpy() == pytest.approx(two[column].to_numpy(), abs=2e-5 * (1 + np.abs(two[column]).max()))


@pytest.mark.parametrize("name", ["ident", "both", "car1"])
def test_residuals_of_structures_are_normalized_over_their_own_sd(structured_fits: dict[str, Any], name: str) -> None:
    fit = structured_fits[name]
    table = influence.by_row(fit)
    v, n = covariance_of(fit), len(fit.design.y)
    assert table["std_residual"] * np.sqrt(1 - table["leverage"]) == pytest.approx(fit.residuals("normalized"), abs=1e-8)
    # Var(y - fitted) by the definition, whitened: R V^-1 (V - X vcov X') V^-1 R
    random = v.copy()
    for term, cov in zip(fit.design.terms, fit.random_cov(), strict=True):
        random -= (term.codes[:, None] == term.codes) * cov[0, 0]
    pull = random @ np.linalg.inv(v)
    left = pull @ (v - fit.design.X @ fit.vcov() @ fit.design.X.T) @ pull.T
    white = influence.engine_rows(fit).whiten(np.eye(n)) * fit.engine.blocks.unit
    assert white @ random @ white.T == pytest.approx(fit.sigma**2 * np.eye(n), abs=1e-9)
    assert np.diag(white @ left @ white.T) / fit.sigma**2 == pytest.approx(1 - table["leverage"], abs=1e-8)


def test_series_are_not_torn_apart(structured_fits: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=r"ar1\(t \| s\).*influence\('s'\)"):
        structured_fits["ar1"].influence()
    with pytest.raises(OptionError, match="levels of 'item' cannot be left out.*refit=True does it"):
        structured_fits["ar1"].influence("item")
    data = structured()["ar1"].data
    ordered = ml.Model("y ~ x + (1 | s) + (1 | item)", data, correlation="ar1(1 | s)").fit()
    with pytest.raises(OptionError, match="give the correlation a column of times"):
        ordered.influence("item", refit=True)


def test_refits_without_a_group_keep_the_structure(structured_fits: dict[str, Any]) -> None:
    fit = structured_fits["ar1"]
    table = fit.influence("item", refit=True)
    data = {name: values[fit.model.data["item"] != 2] for name, values in fit.model.data.items()}
    again = ml.Model("y ~ x + (1 | s) + (1 | item)", data, correlation="ar1(t | s)").fit()
    change = (fit.optimum.beta - again.optimum.beta) / np.sqrt(np.diag(fit.vcov()))
    assert table.loc[2, ["dfbetas_Intercept", "dfbetas_x"]].to_numpy(float) == pytest.approx(change, abs=1e-4)
    assert table["sigma"][2] == pytest.approx(again.sigma, rel=1e-4)


def test_a_group_that_alone_has_a_variance_of_its_own_cannot_be_refitted_without() -> None:
    data = structured()["power"].data
    fit = ml.Model("y ~ x + (1 | s)", data | {"k": np.where(data["s"] == 3, "u", "v")}, variance="ident(k)").fit()
    again, held_there = fit.influence("s", refit=True), fit.influence("s")
    assert again["sigma"].isna().to_numpy().nonzero()[0].tolist() == [3]
    assert again["cooks"].isna().to_numpy().nonzero()[0].tolist() == [3] and held_there["cooks"].notna().all()


def test_much_work_leaves_the_newton_step_out_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = ml.lmer(SLEEP, ml.load("sleepstudy"))
    monkeypatch.setattr(group_influence, "MUCH_WORK", 0.0)
    short = fit.influence("Subject")
    assert "sigma" not in short.columns and set(short["method"]) == {influence.LONG_METHOD}
    assert "variances=True" in influence.LONG_METHOD
    assert "sigma" in fit.influence("Subject", variances=True).columns


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
