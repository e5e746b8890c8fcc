"""Structures of the residuals: derivatives, the dense twin, structures within structures, boundaries, invariances."""

from __future__ import annotations

import copy
import warnings
from functools import cache
from typing import Any

import dense_structures as dense
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

import multilevel as ml
from multilevel import Fit, Model
from multilevel.structured import StructuredEngine

Array = NDArray[np.float64]


def quiet(model: Model, reml: bool = True, **options: Any) -> Fit:
    """The fit, without its warning of a boundary."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ml.SingularFitWarning)
        return model.fit(reml, **options)


# -- derivatives and the dense twin --------------------------------------------------------------------------


@cache
def rows(seed: int = 3, n: int = 240) -> pd.DataFrame:
    """24 subjects by 10 days, crossed with 8 items, with AR(1) residuals of unequal variance."""
    rng = np.random.default_rng(seed)
    d = pd.DataFrame({"s": np.repeat(np.arange(24), 10), "t": np.tile(np.arange(10), 24)})
    d["item"] = rng.integers(0, 8, n)
    d["x"] = rng.normal(size=n)
    d["sex"] = np.where(np.repeat(rng.integers(0, 2, 24), 10) == 1, "b", "a")
    d["w"], d["z"] = rng.uniform(0.5, 2, n), rng.uniform(1, 5, n)
    d["time"] = np.cumsum(rng.uniform(0.2, 3, n))
    e = np.zeros(n)
    for i in range(n):
        e[i] = 0.6 * e[i - 1] + 0.8 * rng.normal() if d["t"][i] > 0 else rng.normal()
    e *= np.where(d["sex"] == "a", 1, 1.6)
    d["y"] = 1 + 0.5 * d["x"] + rng.normal(size=24)[d["s"]] + 0.7 * rng.normal(size=8)[d["item"]] + e
    return d


STRUCTURED: list[tuple[str, dict[str, Any]]] = [
    ("y ~ x + (1 | s)", {"correlation": "ar1(t | s)"}),
    ("y ~ x + (1 | s) + (1 | item)", {"correlation": "ar1(t | s)"}),
    ("y ~ x + (1 | s) + (1 | item)", {"correlation": "car1(time | s)"}),
    ("y ~ x + (x | item) + (1 | s)", {"correlation": "car1(time | s)", "variance": "ident(sex) + power(z)"}),
    (
        "y ~ x + (x | item) + (1 | s)",
        {"correlation": "car1(time | s)", "variance": ["ident(sex)", "exp(z)"], "weights": "w"},
    ),
    ("y ~ x + (1 | s) + (1 | item)", {"variance": "ident(sex:item)", "weights": "w"}),
    ("y ~ x + (x | s) + (0 + x | item) + (1 | item)", {"correlation": "ar1(1 | s)", "weights": "w"}),
    ("y ~ x + (1 | item)", {"correlation": "ar1(t | s)"}),
    ("y ~ x + (1 | item)", {"correlation": "car1(time | s:sex)", "variance": "exp(x)"}),
    ("y ~ x", {"correlation": "ar1(t | s)", "variance": "power(z)"}),
    ("y ~ 0 + x + (1 | s)", {"correlation": "ar1(t | s)"}),
    ("y ~ x + (1 | s)", {"variance": "power(z)"}),
    ("y ~ x + cs(x + z | s) + (1 | item)", {"correlation": "ar1(1 | s)"}),
    ("y ~ x + homcs(0 + factor(item) | sex) + (1 | s)", {"correlation": "car1(time | s)", "variance": "ident(sex)"}),
    ("y ~ x + hetar1(0 + factor(t) | sex) + (1 | item)", {"correlation": "ar1(t | s)", "weights": "w"}),
]


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("case", STRUCTURED, ids=str)
def test_slopes_are_those_of_central_differences(case: tuple[str, dict[str, Any]], reml: bool) -> None:
    from multilevel import _core

    engine = Model(case[0], rows(), **case[1]).engine(1)
    assert isinstance(engine, StructuredEngine)
    rng = np.random.default_rng(5)
    count = engine.n_terms + len(engine.a)

    def evaluate(a: Array, lambdas: list[Array]) -> tuple[float, Any, list[Array], StructuredEngine]:
        at = engine.moved(a[engine.n_terms :]) if len(engine.a) else engine
        factors = at.with_terms(lambdas, a)
        state = _core.State(at.blocks.core, reml, 1)
        assert state.set(factors) == 0
        df = at.df(reml)
        value = state.log_det_u + (state.log_det_x if reml else 0) + df * np.log(state.r2 / df) + at.blocks.log_det
        return float(value), state, factors, at

    for _ in range(3):
        a = rng.normal(size=count) * 0.5 + 0.3
        lambdas = [rng.normal(size=(g.k, g.k)) for g in engine.blocks.groups]
        _, state, factors, at = evaluate(a, lambdas)
        exact, _ = at.slopes(state, factors, a, reml, state.r2 / at.df(reml))
        steps = 1e-5 * np.eye(count)
        differences = [(evaluate(a + h, lambdas)[0] - evaluate(a - h, lambdas)[0]) / 2e-5 for h in steps]
        np.testing.assert_allclose(exact, differences, atol=1e-6 * max(1.0, np.abs(differences).max()))


def sds(fit: Fit, data: pd.DataFrame) -> Array:
    """Rows' sds relative to sigma, from the estimates and the columns."""
    out = np.ones(len(data))
    for name, value in zip(fit.residual_structure()["parameter"], fit.residual_structure()["estimate"], strict=True):
        inside = name[name.index("(") + 1 : -1]
        if name.startswith("power"):
            out = out * np.abs(data[inside].to_numpy(dtype=float)) ** value
        elif name.startswith("exp"):
            out = out * np.exp(value * data[inside].to_numpy(dtype=float))
        elif name.startswith("ratio"):
            columns, level = inside.split(", ")
            labels = data[columns.split(":")].astype(str).agg(":".join, axis=1)
            out = out * np.where(labels == level, value, 1.0)
    return out


def correlations(fit: Fit, data: pd.DataFrame) -> Array | None:
    """R of the rows from the estimate and the columns."""
    serial = fit.model.residual.serial if fit.model.residual is not None else None
    if serial is None:
        return None
    groups = data[serial.group.split(":")].astype(str).agg(":".join, axis=1)
    times = dense.order_within(groups) if serial.time is None else data[serial.time].to_numpy(dtype=float)
    return dense.serial(groups, times, fit.optimum.residual[-1])


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("case", STRUCTURED, ids=str)
def test_a_fit_is_that_of_the_dense_twin(case: tuple[str, dict[str, Any]], reml: bool) -> None:
    fit = quiet(Model(case[0], rows(), **case[1]), reml)
    assert fit.convergence.converged
    twin = dense.of_fit(fit, sd=sds(fit, rows()), R=correlations(fit, rows()))
    dense.check_against(fit, twin)
    criterion = fit.model.criterion(fit.theta, reml, residual=fit.optimum.residual)
    np.testing.assert_allclose(criterion, twin.criterion(reml), rtol=1e-10)
    sigma = 1.3 * fit.sigma
    criterion = fit.model.criterion(fit.theta, reml, sigma=sigma, residual=fit.optimum.residual)
    np.testing.assert_allclose(criterion, twin.criterion(reml, sigma), rtol=1e-10)


def half() -> pd.DataFrame:
    """The first twelve subjects."""
    return rows().head(120)


def _twin_at(fit: Fit, values: Array) -> dense.Twin:
    """The twin at other relative sds of intercepts and parameters of the residuals (one random intercept per term)."""
    at = len(fit.theta)
    moved = copy.copy(fit)
    object.__setattr__(moved, "_optimum", _with(fit.optimum, values[:at], values[at:]))
    return dense.of_fit(moved, sd=sds(moved, half()), R=correlations(moved, half()))


def _with(optimum: Any, theta: Array, residual: Array) -> Any:
    from dataclasses import replace

    return replace(optimum, theta=theta, lambdas=tuple(np.array([[v]]) for v in theta), residual=residual)


@pytest.mark.parametrize("reml", [True, False])
def test_satterthwaite_degrees_of_freedom(reml: bool) -> None:
    """df = 2 v**2 / (g' A g): A twice the inverse Hessian of the deviance in all variance parameters, all by differences."""
    fit = Model("y ~ x + (1 | s) + (1 | item)", half(), correlation="car1(time | s)", variance="ident(sex)").fit(reml)
    start = np.r_[fit.theta, fit.optimum.residual, np.log(fit.sigma)]
    count = len(start)

    def both(v: Array) -> tuple[float, Array]:
        twin = _twin_at(fit, v[:-1])
        return twin.criterion(reml, np.exp(v[-1])), np.diag(twin.moments()[1]) * np.exp(2 * v[-1])

    h = 2e-4 * np.eye(count)
    grads = np.array([(both(start + e)[1] - both(start - e)[1]) / 4e-4 for e in h])
    hessian = np.empty((count, count))
    for i in range(count):
        for j in range(count):
            signs = [both(start + a * h[i] + b * h[j])[0] * a * b for a in (1, -1) for b in (1, -1)]
            hessian[i, j] = sum(signs) / (4 * 2e-4**2)
    inverse = 2 * np.linalg.inv(hessian)
    v = both(start)[1]
    df = 2 * v**2 / np.einsum("ip,ij,jp->p", grads, inverse, grads)
    np.testing.assert_allclose(fit.fixef()["df"], df, rtol=1e-4)


# -- a structure that contains another -----------------------------------------------------------------------


NESTS: list[tuple[str, dict[str, Any], list[float], dict[str, Any]]] = [
    ("y ~ x + (1 | s) + (1 | item)", {"correlation": "ar1(t | s)"}, [0.0], {}),
    ("y ~ x + (1 | s) + (1 | item)", {"correlation": "car1(time | s)"}, [0.0], {}),
    ("y ~ x + (x | s)", {"variance": "ident(sex)"}, [1.0], {}),
    ("y ~ x + (x | s)", {"variance": "power(z)"}, [0.0], {}),
    ("y ~ x + (x | s)", {"variance": "exp(z)", "weights": "w"}, [0.0], {"weights": "w"}),
    (
        "y ~ x + (1 | s)",
        {"variance": "ident(sex) + power(z)", "correlation": "ar1(t | s)"},
        [1.0, 0.0, 0.0],
        {},
    ),
]


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("case", NESTS, ids=str)
def test_the_larger_model_holds_the_smaller(
    case: tuple[str, dict[str, Any], list[float], dict[str, Any]], reml: bool
) -> None:
    formula, options, at, plain = case
    larger, smaller = Model(formula, rows(), **options), Model(formula, rows(), **plain)
    theta = np.linspace(0.3, 0.9, smaller.engine().fit(reml).theta.size)
    np.testing.assert_allclose(larger.criterion(theta, reml, residual=at), smaller.criterion(theta, reml), rtol=1e-12)
    np.testing.assert_allclose(
        larger.gradient(theta, reml, residual=at), smaller.gradient(theta, reml), rtol=1e-8, atol=1e-8
    )
    assert quiet(larger, reml).criterion <= quiet(smaller, reml).criterion + 1e-8


def test_ar1_over_equal_times_is_car1() -> None:
    one = Model("y ~ x + (1 | s)", rows(), correlation="ar1(t | s)").fit()
    other = Model("y ~ x + (1 | s)", rows().assign(t=rows()["t"] * 3.0 + 7), correlation="car1(t | s)").fit()
    assert one.optimum.residual[0] > 0
    np.testing.assert_allclose(one.criterion, other.criterion, rtol=1e-11)
    np.testing.assert_allclose(other.optimum.residual[0] ** 3, one.optimum.residual[0], rtol=1e-6)
    order = Model("y ~ x + (1 | s)", rows(), correlation="ar1(1 | s)").fit()
    assert order.criterion == one.criterion


def test_ident_of_a_combination_holds_that_of_its_parts() -> None:
    both = Model("y ~ x + (1 | s)", rows(), variance="ident(sex:item)").fit(False)
    parts = Model("y ~ x + (1 | s)", rows(), variance="ident(sex) + ident(item)").fit(False)
    assert both.criterion <= parts.criterion + 1e-8
    assert both.npar - parts.npar == 15 - 8


def _serial_over(fit: Fit, data: pd.DataFrame) -> Array:
    """R from the estimate, which may be told over another lag than one."""
    (name, rho), *_ = fit.residual_structure().itertuples(index=False)
    over = float(name.split(" over ")[1]) if " over " in name else 1.0
    return dense.serial(data["g"], data["t"] / over, rho)


# -- boundaries ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_a_negative_correlation_over_uneven_times_is_none_under_car1(seed: int) -> None:
    """Lags from 0.001 to 30: rho**lag has a cusp at zero, where the search must end all the same."""
    rng = np.random.default_rng(seed)
    e = rng.normal(size=200)
    d = pd.DataFrame({"g": np.repeat(np.arange(20), 10), "x": rng.normal(size=200)})
    d["y"] = e - 0.5 * np.r_[0, e[:-1]] + d["x"]
    d["t"] = np.cumsum(rng.exponential(1, 200) ** 3 + 1e-3)
    fit = quiet(Model("y ~ x", d, correlation="car1(t | g)"))
    plain = Model("y ~ x", d).fit()
    assert fit.convergence.converged
    assert fit.criterion <= plain.criterion + 1e-9
    twin = dense.twin(fit.design, [], R=_serial_over(fit, d))
    np.testing.assert_allclose(twin.criterion(True), fit.criterion, rtol=1e-9)
    if fit.optimum.residual[0] == 0:
        np.testing.assert_allclose(fit.optimum.beta, plain.optimum.beta, rtol=1e-9)
        np.testing.assert_allclose(fit.fixef()["df"], plain.fixef()["df"], rtol=1e-6)


def test_units_of_time_may_be_anything() -> None:
    """A correlation over one unit of time is 0 or 1 to all digits where rows lie far from one unit apart."""
    base = Model("y ~ x + (1 | s)", rows(), correlation="car1(time | s)").fit()
    for unit in (1e-7, 1e-3, 1e3, 1e9):
        data = rows().assign(time=rows()["time"] * unit)
        fit = Model("y ~ x + (1 | s)", data, correlation="car1(time | s)").fit()
        np.testing.assert_allclose(fit.criterion, base.criterion, rtol=1e-10)
        np.testing.assert_allclose(fit.residuals("normalized"), base.residuals("normalized"), rtol=1e-5, atol=1e-7)
        name, rho = fit.residual_structure().iloc[0]
        over = float(name.split(" over ")[1]) if " over " in name else 1.0
        np.testing.assert_allclose(rho, base.optimum.residual[0] ** (over / unit), rtol=1e-5)
        assert 1e-12 < rho < 1 - 1e-5


def test_alternating_residuals_have_a_correlation_near_minus_one() -> None:
    rng = np.random.default_rng(1)
    d = pd.DataFrame({"g": np.repeat(np.arange(20), 10), "t": np.tile(np.arange(10), 20), "x": rng.normal(size=200)})
    d["y"] = np.tile([1.0, -1.0], 100) * np.repeat(rng.normal(size=20), 10) + 0.01 * rng.normal(size=200)
    fit = Model("y ~ x", d, correlation="ar1(t | g)").fit()
    assert fit.convergence.converged
    assert -1 < fit.optimum.residual[0] < -0.99
    twin = dense.twin(fit.design, [], R=dense.serial(d["g"], d["t"], fit.optimum.residual[0]))
    np.testing.assert_allclose(twin.criterion(True), fit.criterion, rtol=1e-8)


def _set(seed: int) -> tuple[str, dict[str, str], pd.DataFrame]:
    """A simulated set and a model for it; correlations of either sign, sometimes none, uneven times, missing rows."""
    rng = np.random.default_rng(seed)
    groups, size = int(rng.integers(5, 12)), int(rng.integers(4, 9))
    d = pd.DataFrame({"g": np.repeat(np.arange(groups), size), "t": np.tile(np.arange(size), groups)})
    n = len(d)
    d["item"], d["x"] = rng.integers(0, 4, n), rng.normal(size=n)
    d["h"] = np.where(rng.random(n) < 0.4, "u", "v")
    d["z"] = rng.uniform(0.5, 4, n)
    d["time"] = np.cumsum(rng.exponential(1, n) ** 1.5 + 0.02)
    rho, e = rng.choice([-0.6, 0.0, 0.4, 0.9]), rng.normal(size=n)
    for i in range(n):
        if d["t"][i] > 0:
            e[i] = rho * e[i - 1] + np.sqrt(1 - rho**2) * e[i]
    e = e * np.where(d["h"] == "u", rng.choice([1.0, 2.0]), 1.0) * d["z"] ** rng.choice([0.0, 0.7])
    d["y"] = e + rng.choice([0.0, 0.3, 1.0]) * rng.normal(size=groups)[d["g"]] + 0.5 * rng.normal(size=4)[d["item"]]
    d = d[rng.random(n) > 0.1].reset_index(drop=True)
    formula = ["y ~ x", "y ~ x + (1 | g)", "y ~ x + (1 | item)", "y ~ x + (1 | g) + (1 | item)"][seed % 4]
    options = [{"correlation": "ar1(t | g)"}, {"correlation": "car1(time | g)"}, {"variance": "ident(h)"}]
    options += [{"correlation": "ar1(t | g)", "variance": "ident(h)"}, {"variance": "power(z)"}]
    return formula, options[seed % 5], d


def _dense_best(fit: Fit, d: pd.DataFrame, starts: int = 4) -> float:
    """Least criterion a slow search over the dense likelihood finds from many starts."""
    r = fit.model.residual
    assert r is not None
    zs = [dense.indicator(t.codes, t.Z, len(t.levels)) for t in fit.design.terms]
    blocks = [z @ z.T for z in zs]
    same = np.equal.outer(np.asarray(d["g"]), np.asarray(d["g"]))
    column = None if r.serial is None else d[r.serial.time].to_numpy(dtype=float)
    lag = None if column is None else np.where(same, np.abs(np.subtract.outer(column, column)), np.inf)
    y, X = fit.design.y, fit.design.X
    df = len(y) - X.shape[1]

    def value(v: Array) -> float:
        sd = np.ones(len(y))
        if r.spreads:
            power = v[len(zs)]
            sd = np.where(d["h"] == "u", np.exp(power), 1.0) if r.spreads[0].kind == "ident" else d["z"] ** power
        R = np.eye(len(y))
        if r.serial is not None and lag is not None:
            rho = np.sin(v[-1]) if r.serial.kind == "ar1" else np.exp(-np.exp(v[-1]))
            R = np.where(np.isinf(lag), 0.0, np.power(rho, np.where(np.isinf(lag), 1.0, lag)))
            np.fill_diagonal(R, 1.0)
        V = np.outer(sd, sd) * R + sum(s**2 * b for s, b in zip(v, blocks, strict=False))
        try:
            root = np.linalg.cholesky(V)
        except np.linalg.LinAlgError:
            return 1e10
        white = np.linalg.solve(root, np.column_stack([X, y]))
        q, upper = np.linalg.qr(white[:, :-1])
        rest = white[:, -1] - q @ (q.T @ white[:, -1])
        logs = 2 * np.log(np.diag(root)).sum() + 2 * np.log(np.abs(np.diag(upper))).sum()
        return float(logs + df * (1 + np.log(2 * np.pi * (rest @ rest) / df)))

    rng = np.random.default_rng(0)
    count = len(zs) + r.n_coordinates
    runs = [minimize(value, rng.uniform(-1, 1, count), method="BFGS", options={"gtol": 1e-6}) for _ in range(starts)]
    return min(float(run.fun) for run in runs)


@pytest.mark.parametrize("seed", [*range(60), 273, 391, 521])  # the last: two minima each
def test_no_slow_search_finds_anything_better(seed: int) -> None:
    formula, options, d = _set(seed)
    fit = quiet(Model(formula, d, **options))
    assert fit.convergence.converged, fit.convergence
    assert fit.criterion <= _dense_best(fit, d) + 1e-6


# -- invariances ---------------------------------------------------------------------------------------------

ALL = {"correlation": "car1(time | s)", "variance": "ident(sex) + power(z)"}


def test_the_order_of_rows_with_times_does_not_matter() -> None:
    base = Model("y ~ x + (1 | s) + (1 | item)", rows(), **ALL).fit()
    shuffled = rows().sample(frac=1, random_state=4)
    fit = Model("y ~ x + (1 | s) + (1 | item)", shuffled.reset_index(drop=True), **ALL).fit()
    np.testing.assert_allclose(fit.criterion, base.criterion, rtol=1e-11)
    np.testing.assert_allclose(fit.optimum.residual, base.optimum.residual, rtol=1e-6)
    np.testing.assert_allclose(
        fit.residuals("normalized"), base.residuals("normalized")[shuffled.index], rtol=1e-5, atol=1e-6
    )


def test_names_of_levels_do_not_matter() -> None:
    renamed = rows().assign(
        s=[f"subject {99 - v}" for v in rows()["s"]], sex=rows()["sex"].map({"a": "A man", "b": "a woman"})
    )
    base = Model("y ~ x + (1 | s)", rows(), **ALL).fit()
    fit = Model("y ~ x + (1 | s)", renamed, **ALL).fit()
    np.testing.assert_allclose(fit.criterion, base.criterion, rtol=1e-11)
    np.testing.assert_allclose(fit.optimum.residual, base.optimum.residual, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-6, 1e5])
def test_units_of_the_response(scale: float) -> None:
    base = Model("y ~ x + (1 | s)", rows(), **ALL).fit()
    fit = Model("y ~ x + (1 | s)", rows().assign(y=scale * (rows()["y"] + 40)), **ALL).fit()
    df = len(rows()) - 2
    np.testing.assert_allclose(fit.criterion, base.criterion + 2 * df * np.log(scale), rtol=1e-9)
    np.testing.assert_allclose(fit.optimum.residual, base.optimum.residual, rtol=1e-6)
    np.testing.assert_allclose(fit.sigma / scale, base.sigma, rtol=1e-6)


@pytest.mark.parametrize("unit", [1e-8, 1e8])
def test_units_of_a_covariate_under_a_power(unit: float) -> None:
    base = Model("y ~ x + (1 | s)", rows(), variance="power(z)").fit()
    fit = Model("y ~ x + (1 | s)", rows().assign(z=rows()["z"] * unit), variance="power(z)").fit()
    np.testing.assert_allclose(fit.criterion, base.criterion, rtol=1e-11)
    np.testing.assert_allclose(fit.optimum.residual, base.optimum.residual, rtol=1e-6)
    np.testing.assert_allclose(fit.sigma, base.sigma * unit ** -fit.optimum.residual[0], rtol=1e-5)
    np.testing.assert_allclose(fit.random_cov()[0], base.random_cov()[0], rtol=1e-6)
    np.testing.assert_allclose(
        Model("y ~ x + (1 | s)", rows().assign(z=-rows()["z"]), variance="power(z)").fit().criterion, base.criterion
    )


def test_threads_do_not_matter() -> None:
    one = Model("y ~ x + (1 | s) + (1 | item)", rows(), **ALL).fit(threads=1)
    two = Model("y ~ x + (1 | s) + (1 | item)", rows(), **ALL).fit(threads=2)
    np.testing.assert_allclose(two.criterion, one.criterion, rtol=1e-13)
    np.testing.assert_allclose(two.optimum.residual, one.optimum.residual, rtol=1e-8)
