"""Conditioning on new rows against dense formulas, against other routes to the same answer, and its bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import multilevel as ml
from multilevel import DataError, OptionError

pytestmark = pytest.mark.filterwarnings("ignore::multilevel.MultilevelWarning")

SLEEP = "Reaction ~ Days + (Days | Subject)"
CROSSED = "y ~ x + (x | a) + (1 | b) + (1 | a:b)"


def crossed_data() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    n = 240
    a, b, x = rng.integers(0, 12, n), rng.integers(0, 7, n), rng.normal(size=n)
    y = 3 + x + rng.normal(size=12)[a] * (1 + 0.5 * x) + rng.normal(size=7)[b] + rng.normal(size=n)
    names = np.array([f"a{i}" for i in range(12)], dtype=object)
    return pd.DataFrame({"y": y, "x": x, "a": names[a], "b": b, "w": rng.uniform(0.4, 2, n), "o": rng.normal(size=n)})


def dense_modes(fit: Any, data: pd.DataFrame, weights: Any = None, offset: Any = 0.0) -> dict[tuple[str, str, str], float]:
    """E(b | y) at the parameters of `fit` on all rows of `data`, by the n x n covariance: b = G Z' V^-1 (y - X beta)."""
    d = ml.Model(fit.formula, data, weights=weights).design
    n = len(d.y)
    v = np.diag(fit.sigma**2 / (np.ones(n) if d.weights is None else d.weights))
    blocks = []
    for term, cov in zip(d.terms, fit.random_cov(), strict=True):
        z = np.ones((n, 1)) if term.Z is None else term.Z
        wide = np.zeros((n, len(term.levels), z.shape[1]))
        wide[np.arange(n), term.codes] = z
        blocks.append(wide)
        v += np.einsum("ijk,kl,mjl->im", wide, cov, wide)
    rest = np.linalg.solve(v, d.y - d.X @ fit.optimum.beta - (0.0 if d.offset is None else d.offset))
    out = {}
    for term, cov, wide in zip(d.terms, fit.random_cov(), blocks, strict=True):
        b = np.einsum("kl,ijl,i->jk", cov, wide, rest)
        for j, level in enumerate(term.levels):
            for i, name in enumerate(term.names):
                out[term.group, str(level), name] = float(b[j, i])
    return out


def modes(conditioned: Any) -> dict[tuple[str, str, str], float]:
    table = conditioned.ranef()
    return {
        (str(r.group), str(r.level), str(r.term)): float(r.estimate) for r in table.itertuples()
    }


def compare(found: dict[Any, float], want: dict[Any, float]) -> None:
    assert set(found) == set(want)
    top = max(abs(v) for v in want.values())
    for key, value in want.items():
        assert found[key] == pytest.approx(value, abs=1e-8 * top), key


def test_new_groups_get_their_blups() -> None:
    data = ml.load("sleepstudy")
    new = data["Subject"].astype(str) >= "350"
    fit = ml.lmer(SLEEP, data[~new])
    found = modes(fit.condition(data[new]))
    cov = fit.random_cov()[0]
    for subject in ("350", "372"):
        part = data[data["Subject"].astype(str) == subject]
        z = np.column_stack([np.ones(10), part["Days"]])
        v = z @ cov @ z.T + fit.sigma**2 * np.eye(10)
        b = cov @ z.T @ np.linalg.solve(v, part["Reaction"] - z @ fit.optimum.beta)
        assert [found["Subject", subject, n] for n in ("Intercept", "Days")] == pytest.approx(b, rel=1e-9)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize(
    "formula", [CROSSED, "y ~ x + (1 | a) + (0 + x | a) + (1 | b)", "y ~ x + offset(o) + (x || b) + (1 | a)"]
)
@pytest.mark.parametrize("weights", [None, "w"])
def test_half_conditioned_on_the_other_half_is_the_posterior_of_all(formula: str, reml: bool, weights: str | None) -> None:
    data = crossed_data()
    first = (np.arange(240) % 2 == 0) & (data["a"] != "a3") & (data["b"] != 5)  # a level of each is new
    fit = ml.Model(formula, data[first], weights=weights).fit(reml)
    conditioned = fit.condition(data[~first], weights=weights)
    compare(modes(conditioned), dense_modes(fit, pd.concat([data[first], data[~first]]), weights))
    assert "a3" in conditioned.new_levels["a"].tolist() and 5 in conditioned.new_levels["b"].tolist()
    assert conditioned.n_new == int((~first).sum())


def test_in_two_parts_is_the_same_as_at_once() -> None:
    data = crossed_data()
    first, second = data[:100], data[100:]
    fit = ml.lmer(CROSSED, first)
    once, twice = fit.condition(second), fit.condition(second[:60]).condition(second[60:])
    compare(modes(twice), modes(once))
    probe = data.sample(30, random_state=1)
    one, two = (c.predict(probe, interval="confidence") for c in (once, twice))
    assert one.to_numpy() == pytest.approx(two.to_numpy(), rel=1e-8)
    assert twice.n_new == 140


def test_the_fit_does_not_change() -> None:
    data = ml.load("sleepstudy")
    fit = ml.lmer(SLEEP, data[:120])
    before = fit.ranef(), fit.criterion, fit.predict(data[:5], interval="confidence")
    fit.condition(data[120:])
    pd.testing.assert_frame_equal(before[0], fit.ranef())
    pd.testing.assert_frame_equal(before[2], fit.predict(data[:5], interval="confidence"))
    assert before[1] == fit.criterion


def test_predictions_and_coefficients_use_the_updated_effects() -> None:
    data = ml.load("sleepstudy")
    new = data["Subject"].astype(str) >= "370"
    fit = ml.lmer(SLEEP, data[~new])
    conditioned = fit.condition(data[new])
    found = modes(conditioned)
    row = pd.DataFrame({"Days": [4.0], "Subject": ["371"]})
    b0, b1 = fit.optimum.beta
    want = b0 + found["Subject", "371", "Intercept"] + 4 * (b1 + found["Subject", "371", "Days"])
    assert conditioned.predict(row)["prediction"].iloc[0] == pytest.approx(want)
    coef = conditioned.coef()
    days = coef[(coef["level"].astype(str) == "371") & (coef["term"] == "Days")]["value"].iloc[0]
    assert days == pytest.approx(b1 + found["Subject", "371", "Days"])
    with pytest.raises(DataError, match="not fitted"):
        fit.predict(row)


@pytest.mark.parametrize("weights", [None, "w"])
def test_intervals_are_exact_for_known_variances(weights: str | None) -> None:
    """Against the variance of the prediction's error as a linear function of the responses, by dense matrices."""
    data = crossed_data()
    first = np.arange(240) < 90
    fit = ml.Model("y ~ x + (x | a) + (1 | b)", data[first], weights=weights).fit()
    conditioned = fit.condition(data[~first], weights=weights)
    probe = data.iloc[[3, 100, 200]]
    std_error = conditioned.predict(probe, interval="confidence")["std_error"].to_numpy()
    both = ml.Model("y ~ x + (x | a) + (1 | b)", pd.concat([data[first], data[~first]]), weights=weights).design
    n, n1 = 240, 90
    r = np.diag(fit.sigma**2 / (np.ones(n) if both.weights is None else both.weights))
    zs, gs = [], []
    for term, cov in zip(both.terms, fit.random_cov(), strict=True):
        z = np.ones((n, 1)) if term.Z is None else term.Z
        wide = np.zeros((n, len(term.levels), z.shape[1]))
        wide[np.arange(n), term.codes] = z
        zs.append(wide.reshape(n, -1))
        gs.append(np.kron(np.eye(len(term.levels)), cov))
    z = np.hstack(zs)
    g = np.zeros((z.shape[1],) * 2)
    at = 0
    for block in gs:
        g[at : at + len(block), at : at + len(block)] = block
        at += len(block)
    v = z @ g @ z.T + r
    x1 = both.X[:n1]
    vx = np.linalg.solve(v[:n1, :n1], x1)
    to_beta = np.zeros((2, n))
    to_beta[:, :n1] = np.linalg.solve(x1.T @ vx, vx.T)
    to_b = g @ z.T @ np.linalg.solve(v, np.eye(n) - both.X @ to_beta)
    position = {i: k for k, i in enumerate([*np.flatnonzero(first), *np.flatnonzero(~first)])}
    for row, se in zip((3, 100, 200), std_error, strict=True):
        i = position[row]
        along = both.X[i] @ to_beta + z[i] @ to_b  # prediction along'y, error along'(Zb + e) - z'b
        error_b = along @ z - z[i]
        assert se == pytest.approx(np.sqrt(error_b @ g @ error_b + along @ r @ along), rel=1e-8)


def test_a_fit_without_its_rows_can_be_conditioned(tmp_path: Any) -> None:
    data = crossed_data()
    fit = ml.lmer(CROSSED, data[:100])
    fit.save(tmp_path / "a.mlv")
    compare(modes(ml.read(tmp_path / "a.mlv").condition(data[100:])), modes(fit.condition(data[100:])))


def test_a_transformed_response() -> None:
    data = ml.load("sleepstudy")
    fit = ml.lmer("log(Reaction) ~ Days + (1 | Subject)", data[:100])
    compare(modes(fit.condition(data[100:])), dense_modes(fit, data))


def test_polars_rows() -> None:
    pl = pytest.importorskip("polars")
    data = ml.load("sleepstudy")
    fit = ml.lmer(SLEEP, pl.from_pandas(data[:100]))
    table = fit.condition(pl.from_pandas(data[100:])).ranef()
    assert type(table).__module__.startswith("polars")


def test_bad_rows_are_named(tmp_path: Any) -> None:
    data = crossed_data()
    fit = ml.lmer("y ~ x + (x | a)", data[:100])
    new = data[100:110].reset_index(drop=True)
    for change, message in (
        ({"y": np.where(np.arange(10) == 4, np.nan, 1.0)}, "row 4 of the new rows"),
        ({"x": np.where(np.arange(10) == 2, np.nan, 1.0)}, "row 2 of the new rows .* predictor"),
        ({"a": np.where(np.arange(10) == 6, None, "a1")}, "row 6 .* no value of 'a'"),
    ):
        with pytest.raises(DataError, match=message):
            fit.condition(new.assign(**change))
    with pytest.raises(DataError, match="no new rows"):
        fit.condition(new[:0])
    with pytest.raises(ml.ColumnError, match="'y'"):
        fit.condition(new.drop(columns="y"))
    with pytest.raises(DataError, match="rows to predict"):
        fit.condition(new).predict(None)


def test_weights_are_asked_for_and_checked() -> None:
    data = crossed_data()
    fit = ml.Model("y ~ x + (x | a)", data[:100], weights="w").fit()
    new = data[100:110]
    with pytest.raises(DataError, match="fitted with weights"):
        fit.condition(new)
    with pytest.raises(DataError, match=r"shape \(3,\)"):
        fit.condition(new, weights=[1, 2, 3])
    with pytest.raises(DataError, match="weight of row 0"):
        fit.condition(new, weights=np.zeros(10))
    with pytest.raises(DataError, match="numbers or the name"):
        fit.condition(new, weights=["a"] * 10)


def test_a_singular_fit_leaves_its_zero_effects_at_zero() -> None:
    data = ml.load("dyestuff2")
    fit = ml.lmer("Yield ~ 1 + (1 | Batch)", data)
    table = fit.condition(pd.DataFrame({"Yield": [9.0, 10.0], "Batch": ["Z", "Z"]})).ranef()
    assert table["estimate"].to_numpy() == pytest.approx(np.zeros(7), abs=1e-12)


# -- structures of the residuals ---------------------------------------------------------------------------------------


def spread_data() -> pd.DataFrame:
    rng = np.random.default_rng(9)
    g, x = np.repeat(np.arange(20), 8), rng.uniform(0.5, 3, 160)
    y = x + rng.normal(size=20)[g] * (1 + 0.3 * x) + rng.normal(size=160) * x * np.where(g % 2, 1.0, 2.0)
    t, sex = np.tile(np.arange(8), 20), np.where(g % 2, "a", "b")
    return pd.DataFrame({"y": y, "x": x, "g": g, "t": t, "sex": sex, "w": rng.uniform(0.5, 2, 160)})


@pytest.mark.parametrize("weights", [None, "w"])
def test_rows_of_other_variance_count_by_it(weights: str | None) -> None:
    """The same as weights of one over the squared multipliers, by the dense formula; and one step or two."""
    data = spread_data()
    old, new = data[data["g"] < 17], data[data["g"] >= 15]
    old = old[(old["g"] < 15) | (old["t"] < 4)]
    fit = ml.Model("y ~ x + (x | g)", old, variance="ident(sex) + power(x)", weights=weights).fit()
    new = new[~new.index.isin(old.index)]
    both = pd.concat([old, new])
    ratio, power = fit.optimum.residual
    sd = np.where(both["sex"] == fit.model.residual.spreads[0].levels[0], 1.0, ratio) * both["x"] ** power
    w = (1.0 if weights is None else both["w"]) / sd**2
    conditioned = fit.condition(new, weights=weights)
    compare(modes(conditioned), dense_modes(fit, both, weights=np.asarray(w)))
    twice = fit.condition(new[:5], weights=weights).condition(new[5:], weights=weights)
    compare(modes(twice), modes(conditioned))
    low = conditioned.predict(new[:3], interval="prediction")
    assert (low["conf_low"] < low["prediction"]).all()


def test_structures_that_new_rows_would_change_are_refused(tmp_path: Any) -> None:
    data = spread_data()
    fit = ml.Model("y ~ x + (1 | g)", data, correlation="ar1(t | g)").fit()
    with pytest.raises(OptionError, match=r"correlated within g.*ar1\(t \| g\).*refit"):
        fit.condition(data[:3])
    fit = ml.Model("y ~ x + (1 | g)", data.assign(y=data["y"] + 30), variance="power(fitted)").fit()
    with pytest.raises(OptionError, match="depends on the fitted values"):
        fit.condition(data[:3])
    fit = ml.Model("y ~ x + (1 | g)", data, variance="ident(sex)").fit()
    with pytest.raises(DataError, match="no variance for 'c' of 'sex'"):
        fit.condition(data[:3].assign(sex="c"))
    fit = ml.Model("y ~ x + (1 | g)", data, variance="power(x)").fit()
    with pytest.raises(DataError, match=r"power\(x\) needs x .*row 1 "):
        fit.condition(data[:3].assign(x=[1.0, 0.0, 2.0]))
    fit.save(tmp_path / "a.mlv")
    with pytest.raises(DataError, match="without its data"):
        ml.read(tmp_path / "a.mlv").condition(data[:3])
    kin = {"g": ml.KnownCovariance(np.arange(20), covariance=np.eye(20) + 0.1)}
    with pytest.raises(OptionError, match="covariance between levels is known"):
        ml.Model("y ~ x + (1 | g)", data, covariance=kin).fit().condition(data[:3])


@pytest.mark.parametrize("structure", ["homcs", "ar1"])
def test_structures_of_random_terms_are_no_obstacle(structure: str) -> None:
    data = spread_data().assign(h=lambda d: d["t"] // 2)
    fit = ml.lmer(f"y ~ x + {structure}(0 + factor(h) | g)", data[data["g"] < 17])
    compare(modes(fit.condition(data[data["g"] >= 17])), dense_modes(fit, data))
