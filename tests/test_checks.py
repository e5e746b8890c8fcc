"""The checks: quiet on clean data, loud on planted faults, true numbers in the sentences; the panel."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import multilevel as ml
from multilevel import DataError, OptionError, checks, effect_checks, residual_checks

pytestmark = pytest.mark.filterwarnings("ignore::multilevel.MultilevelWarning")

SIZES = [(20, 8), (40, 5), (15, 15)]


def simulated(seed: int, fault: str = "") -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    groups, rows = SIZES[seed % 3]
    g, n = np.repeat(np.arange(groups), rows), groups * rows
    x, z, e = rng.normal(size=n), rng.normal(size=groups)[g], rng.normal(size=n)
    b = rng.normal(size=(groups, 2)) * [1, 0.5]
    if fault == "autocorrelation":
        for i in range(1, n):
            e[i] = 0.7 * e[i - 1] + 0.71 * e[i] if g[i] == g[i - 1] else e[i]
    if fault == "outlying group":
        b[3, 0] = 12.0
    mean = 2 * x + z + b[g, 0] + b[g, 1] * x
    if fault == "spread":
        e = e * np.exp(0.5 * (mean - mean.mean()) / mean.std())
    if fault == "spread by group":
        e[g == 5] *= 6
    if fault == "curve":
        mean = mean + 0.6 * x**2
    if fault == "outlier":
        e[17] = 9.0
    if fault == "skewed":
        e = np.exp(rng.normal(size=n))
    return {"y": mean + e, "x": x, "z": z, "g": g}


def checked(seed: int, fault: str = "") -> ml.Fit | Any:
    return ml.lmer("y ~ x + z + (x | g)", simulated(seed, fault)).check()


def test_clean_data_raise_few_alarms() -> None:
    worst = Counter(checked(seed).worst for seed in range(1000, 1060))
    assert worst["problem"] <= 1
    assert worst["look"] <= 10


@pytest.mark.parametrize(
    ("fault", "name", "least"),
    [
        ("autocorrelation", "order within g", 9),
        ("outlying group", "effects of g (Intercept)", 9),
        ("spread", "spread over fitted", 9),
        ("spread by group", "spread by g", 9),
        ("curve", "linearity", 10),
        ("outlier", "residual outliers", 10),
        ("skewed", "residual normality", 10),
    ],
)
def test_planted_faults_are_found(fault: str, name: str, least: int) -> None:
    assert sum(checked(seed, fault)[name].verdict != "ok" for seed in range(12)) >= least


def test_sentences_name_the_faulty() -> None:
    assert "row 17 (" in checked(0, "outlier")["residual outliers"].sentence.replace("rows 17", "row 17")
    assert checked(0, "outlying group")["effects of g (Intercept)"].sentence.startswith("3 (+")
    assert "5 (" in checked(0, "spread by group")["spread by g"].sentence
    assert "along x" in checked(0, "curve")["linearity"].sentence


def test_the_score_test_of_a_bend_is_that_of_the_larger_model() -> None:
    """With the variance parameters held, its t is the coefficient over its standard error at those parameters."""
    data = ml.load("sleepstudy")
    for weights in (None, np.tile([1, 2, 0.5], 60)):
        fit = ml.Model("Reaction ~ Days + (Days | Subject)", data, weights=weights).fit()
        found = residual_checks.bend(residual_checks.facts(fit), 1)
        assert found is not None
        large = ml.Model("Reaction ~ Days + I(Days^2) + (Days | Subject)", data, weights=weights)
        engine = large.engine()
        state = engine.state(True, engine.engine_lambdas(fit.optimum.lambdas))
        c, solution = engine.blocks, state.solution()
        beta = c.x_basis @ (c.scale * solution[len(solution) - c.p :] + c.shift)
        se = np.sqrt(engine.vcov_beta(state, fit.sigma)[2, 2])
        assert found.t == pytest.approx(beta[2] / se, rel=1e-6)


def test_simulated_residuals_have_variance_one() -> None:
    fit = ml.Model("Reaction ~ Days + (Days | Subject)", ml.load("sleepstudy"), weights=np.tile([1, 2, 0.5], 60)).fit()
    drawn = residual_checks.simulated_residuals(residual_checks.facts(fit), 4000)
    variance = drawn.var(axis=1)
    assert variance.mean() == pytest.approx(1, abs=0.01)
    assert np.abs(variance - 1).max() < 0.12  # sd of each is 0.022


def test_standardised_modes_have_variance_one() -> None:
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(4000), rng.integers(2, 6, 4000))
    x = rng.normal(size=len(g))
    b = rng.normal(size=(4000, 2)) * [1.0, 0.7]
    y = b[g, 0] + b[g, 1] * x + rng.normal(size=len(g))
    fit = ml.lmer("y ~ x + (x | g)", {"y": y, "x": x, "g": g})
    for i in range(2):
        z = effect_checks.standardised_modes(fit, 0, i)
        assert z is not None and np.mean(z**2) == pytest.approx(1, abs=0.08)


def test_variance_inflation_of_a_model_without_groups_effect() -> None:
    """At a variance of zero it is 1 / (1 - R2) of each predictor on the others."""
    rng = np.random.default_rng(2)
    n = 200
    a, c = rng.normal(size=n), rng.normal(size=n)
    b = a + 0.3 * rng.normal(size=n)
    g = np.tile(np.arange(20), 10)
    y = a + rng.normal(size=n)
    y -= np.array([y[g == j].mean() for j in range(20)])[g]  # no variance between groups
    fit = ml.lmer("y ~ a + b + c + (1 | g)", {"y": y, "a": a, "b": b, "c": c, "g": g})
    assert fit.is_singular
    x = np.column_stack([a, b, c])
    for i, name in enumerate("abc"):
        others = np.column_stack([np.ones(n), np.delete(x, i, axis=1)])
        rest = x[:, i] - others @ np.linalg.lstsq(others, x[:, i], rcond=None)[0]
        assert checks.inflation(fit)[name] == pytest.approx(np.sum((x[:, i] - x[:, i].mean()) ** 2) / (rest @ rest))
    found = fit.check()
    assert found["collinearity"].verdict == "look" and found["singularity"].verdict == "look"


def test_interactions_do_not_count_as_collinear() -> None:
    data = ml.load("math10")
    fit = ml.lmer("math ~ homework * public + ses + (1 | schid)", data)
    assert set(checks.inflation(fit)) == {"ses"}


def test_few_groups_missing_rows_and_weights_are_told() -> None:
    data = ml.load("sleepstudy")
    few = data[data["Subject"].astype(str).isin(["308", "309", "310"])].copy()
    found = ml.lmer("Reaction ~ Days + (1 | Subject)", few).check()
    assert found["number of groups"].verdict == "look" and "Subject (3 levels)" in found["number of groups"].sentence
    data.loc[:20, "Reaction"] = np.nan
    lost = ml.lmer("Reaction ~ Days + (1 | Subject)", data).check()["missing rows"]
    assert lost.verdict == "look" and "21 of 180" in lost.sentence
    rng = np.random.default_rng(0)
    w = rng.uniform(0.1, 10, 400)
    g = np.tile(np.arange(20), 20)
    for y, verdict in ((rng.normal(size=400) / np.sqrt(w), "ok"), (rng.normal(size=400), "look")):
        fit = ml.Model("y ~ 1 + (1 | g)", {"y": y + rng.normal(size=20)[g], "g": g, "w": w}, weights="w").fit()
        assert fit.check()["weights"].verdict == verdict


def test_an_influential_row_and_group_are_named() -> None:
    data = simulated(0)
    x, y = data["x"].copy(), data["y"].copy()
    x[5], y[5] = 40.0, -60.0
    found = ml.lmer("y ~ x + (1 | g)", {**data, "x": x, "y": y}).check()
    assert found["influential rows"].verdict == "problem" and "5 (Cook" in found["influential rows"].sentence
    assert found["influential g"].verdict == "problem" and "0 (Cook" in found["influential g"].sentence


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)"),
        ("cake", "angle ~ recipe * temperature + (1 | recipe:replicate)"),
        ("dyestuff2", "Yield ~ 1 + (1 | Batch)"),
        ("machines", "score ~ Machine + (0 + Machine | Worker)"),
        ("radon", "log_radon ~ floor + log_uranium + (floor | county)"),
        ("sleepstudy", "Reaction ~ 0 + (1 | Subject)"),
    ],
)
def test_every_kind_of_model_can_be_checked(name: str, formula: str) -> None:
    found = ml.lmer(formula, ml.load(name)).check()
    names = [row.name for row in found]
    assert len(set(names)) == len(names) >= 9
    for row in found:
        assert row.verdict in checks.VERDICTS
        assert row.sentence.endswith((".", ")")) and "nan" not in row.sentence.split() and "inf " not in row.sentence


def test_the_table_prints_and_is_a_frame() -> None:
    found = ml.lmer("Reaction ~ Days + (Days | Subject)", ml.load("sleepstudy")).check()
    text = str(found)
    assert text.splitlines()[-1] == "12 ok, 3 to look at, 0 problems"
    assert max(map(len, text.splitlines())) <= checks.WIDTH
    table = found.frame()
    assert list(table.columns) == ["check", "verdict", "sentence"] and len(table) == len(found) == 15
    assert "<td>residual outliers</td><td>look</td>" in found._repr_html_()
    assert found.worst == "look"
    with pytest.raises(OptionError, match="did you mean 'linearity'"):
        found["linear"]


def test_a_fit_without_its_rows_says_so(tmp_path: Any) -> None:
    fit = ml.lmer("Reaction ~ Days + (Days | Subject)", ml.load("sleepstudy"))
    fit.save(tmp_path / "a.mlv")
    with pytest.raises(DataError, match="without its data"):
        ml.read(tmp_path / "a.mlv").check()


# -- pictures -------------------------------------------------------------------------------------------------


@pytest.fixture
def plt() -> Any:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as pyplot

    yield pyplot
    pyplot.close("all")


def test_the_panel_draws_the_residuals_and_names_the_far_rows(plt: Any) -> None:
    fit = ml.lmer("Reaction ~ Days + (Days | Subject)", ml.load("sleepstudy"))
    axes = fit.plot.check()
    assert [ax.get_title() for ax in axes] == [
        "Residuals: is the mean straight?",
        "Spread: is it even?",
        "Residuals: are they normal?",
        "Residuals by Subject",
        "Subject: Intercept",
        "Subject: Days",
        "Influence of Subject",
    ]
    r = fit.influence()["std_residual"].to_numpy()
    drawn = axes[0].lines[1].get_xydata()
    assert drawn[:, 0] == pytest.approx(fit.fitted()) and drawn[:, 1] == pytest.approx(r)
    assert {t.get_text() for t in axes[0].texts} >= {"row 56"}
    assert axes[2].lines[1].get_ydata() == pytest.approx(np.sort(r))
    cook = fit.influence("Subject")["cooks"]
    assert axes[-1].lines[0].get_ydata() == pytest.approx(cook.to_numpy())
    assert axes[0].get_xlabel() == "fitted Reaction"


def test_influence_is_drawn_by_row_and_by_group(plt: Any) -> None:
    fit = ml.lmer("Reaction ~ Days + (Days | Subject)", ml.load("sleepstudy"))
    axes = fit.plot.influence("Subject")
    table = fit.influence("Subject")
    assert axes[2].lines[1].get_ydata() == pytest.approx(-table["dfbetas_Days"].to_numpy())
    rows = fit.plot.influence()
    assert rows[0].lines[1].get_xdata() == pytest.approx(fit.influence()["leverage"].to_numpy())
    given = plt.subplots(1, 2)[1]
    assert fit.plot.influence(ax=given)[0] is given[0]
    with pytest.raises(OptionError, match="did you mean 'Subject'"):
        fit.plot.influence("Subjct")
    with pytest.raises(OptionError, match="7 panels"):
        fit.plot.check(ax=given)


def test_names_of_many_levels_stand_apart_and_the_note_above_all_stems(plt: Any) -> None:
    litters = ml.load("ratpupweight")
    fit = ml.lmer("weight ~ sex + Lsize + (1 | Litter)", litters, variance="ident(Treatment)")
    axes = fit.plot.check()
    axes[0].figure.canvas.draw()
    for ax in (axes[3], axes[-1]):
        rows = [ax.get_xticklabels(minor=minor) for minor in (False, True)]
        names = [label.get_text() for pair in zip(rows[0], [*rows[1], None], strict=True) for label in pair if label]
        assert sorted(names) == sorted(fit.design.terms[0].levels)
        for row in rows:
            boxes = [label.get_window_extent() for label in row]
            assert all(a.x1 < b.x0 for a, b in zip(boxes, boxes[1:], strict=False))
        assert min(b.get_window_extent().y1 for b in rows[0]) > max(b.get_window_extent().y1 for b in rows[1])
    ax = axes[-1]
    [note] = [text for text in ax.texts if text.get_text().startswith("worth a look from")]
    top = ax.transData.transform((0, float(np.max(ax.lines[0].get_ydata()))))[1]
    assert top < note.get_window_extent().y0


@pytest.mark.slow
@pytest.mark.parametrize(
    "formula", ["diameter ~ 1 + (1 | plate) + (1 | sample)", "diameter ~ 0 + (1 | plate)", "diameter ~ sample + (1 | plate)"]
)
def test_panels_of_other_models(plt: Any, formula: str) -> None:
    for ax in np.ravel(ml.lmer(formula, ml.load("penicillin")).plot.check()):
        assert ax.get_title() and ax.get_ylabel() and ax.has_data()
        ax.figure.canvas.draw()
        assert np.isfinite(ax.get_ylim()).all()


# -- structures of the residuals --------------------------------------------------------------------------------------


def series(seed: int, rho: float = 0.7, spread: bool = False) -> dict[str, Any]:
    data = simulated(seed, "")
    rng = np.random.default_rng(seed + 500)
    g, e = data["g"], rng.normal(size=len(data["g"]))
    for i in range(1, len(e)):
        e[i] = rho * e[i - 1] + np.sqrt(1 - rho**2) * e[i] if g[i] == g[i - 1] else e[i]
    kind = np.where(g % 2, "a", "b")
    data["y"] = 2 * data["x"] + rng.normal(size=g.max() + 1)[g] + e * (np.where(kind == "a", 1, 3) if spread else 1.0)
    t = np.arange(len(g)) - np.searchsorted(g, g)
    return {name: values[::-1] for name, values in (data | {"kind": kind, "t": t}).items()}  # rows not in order of time


def test_what_a_structure_explains_is_not_alarmed_at() -> None:
    loud, quiet = Counter(), Counter()
    for seed in range(3, 15, 3):
        data = series(seed, spread=True)
        plain = ml.Model("y ~ x + (1 | g)", data).fit().check()
        fit = ml.Model("y ~ x + (1 | g)", data, correlation="ar1(t | g)", variance="ident(kind)").fit()
        found = fit.check()
        for name in ("order within g", "spread by g"):
            loud[name] += plain[name].verdict != "ok"
            quiet[name] += found[name].verdict != "ok"
        assert "ar1(t | g) takes up the serial correlation" in found["order within g"].sentence
        assert "ormalized residuals" in found["residual normality"].sentence
        assert "ormalized residual" in found["residual outliers"].sentence
        assert "ormalized residuals" in found["spread over fitted"].sentence
        assert "single ones cannot be left out" in found["influential rows"].sentence
        assert found["influential rows"].verdict == "skipped" and str(found).endswith(", 1 skipped")
        assert "No level moves" in found["influential g"].sentence
    assert min(loud.values()) >= 3 and max(quiet.values(), default=0) == 0


def test_serial_correlation_of_another_kind_is_left_over() -> None:
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(30), 20)
    walk = np.concatenate([np.convolve(rng.normal(size=22), [1, -0.9, 0.8], "valid") for _ in range(30)])
    data = {"y": walk + rng.normal(size=30)[g], "g": g, "t": np.tile(np.arange(20), 30)}
    found = ml.Model("y ~ 1 + (1 | g)", data, correlation="ar1(t | g)").fit().check()["order within g"]
    assert found.verdict != "ok" and "does not take up all serial correlation" in found.sentence


def test_outliers_and_bends_are_found_under_a_structure() -> None:
    data = {name: values.copy() for name, values in series(4).items()}
    data["y"][17] += 9
    found = ml.Model("y ~ x + (1 | g)", data, correlation="ar1(t | g)").fit().check()
    assert found["residual outliers"].verdict != "ok" and " 17 (" in found["residual outliers"].sentence
    data = series(4)
    data["y"] = data["y"] + 0.6 * data["x"] ** 2
    assert ml.Model("y ~ x + (1 | g)", data, correlation="ar1(t | g)").fit().check()["linearity"].verdict != "ok"


def test_a_bend_is_tested_as_the_square_in_the_model() -> None:
    """The score test of x squared is the t test of a fit with it, parameters held, to first order."""
    data = series(5)
    fit = ml.Model("y ~ x + (1 | g)", data, correlation="ar1(t | g)", variance="ident(kind)").fit()
    f = residual_checks.facts(fit)
    bend = residual_checks.bend(f, fit.design.names.index("x"))
    from test_influence import covariance_of

    v = covariance_of(_as_influence_data(fit, data))
    x = np.column_stack([np.ones(len(data["x"])), data["x"], data["x"] ** 2])
    cov = np.linalg.inv(x.T @ np.linalg.solve(v, x))
    beta = cov @ x.T @ np.linalg.solve(v, data["y"])
    assert bend is not None and bend.t == pytest.approx(beta[2] / np.sqrt(cov[2, 2]), rel=1e-6)


def _as_influence_data(fit: Any, data: dict[str, Any]) -> Any:
    """The fit's numbers with the names that `covariance_of` reads."""
    levels = fit.model.residual.spreads[0].levels
    view = {"s": data["g"], "t": data["t"], "sex": np.where(data["kind"] == levels[0], "f", "m")}
    return SimpleNamespace(
        design=fit.design, optimum=fit.optimum, sigma=fit.sigma, random_cov=fit.random_cov,
        model=SimpleNamespace(residual=fit.model.residual, data=view),
    )  # fmt: skip


def test_groups_that_series_cross_are_not_judged() -> None:
    data = series(6)
    data["item"] = np.random.default_rng(0).integers(0, 6, len(data["y"]))
    fit = ml.Model("y ~ x + (1 | g) + (1 | item)", data, correlation="ar1(t | g)").fit()
    assert "lie in several levels of item" in fit.check()["influential item"].sentence
    axes = fit.plot.check()
    labels = {ax.get_ylabel() for ax in axes.ravel()}
    assert "normalized residual" in labels and "standardised residual" not in labels
