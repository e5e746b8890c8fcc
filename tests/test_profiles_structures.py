"""Profile likelihood of models with structures: against a dense likelihood, exact gradients, ends of the range."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from reference import Array
from scipy.optimize import minimize

import multilevel as ml
from multilevel import ConvergenceWarning, DataError, Fit, Model
from multilevel.held import Held
from multilevel.profiles import REACH, Profile
from multilevel.reml import Engine
from multilevel.sd_scale import draws, estimates, parameters_of
from multilevel.structured import StructuredEngine

Z95 = 1.959963984540054
SLEEP = ml.load("sleepstudy")
SLEEP["late"] = pd.Categorical(np.where(SLEEP["Days"] > 4, "b", "a"), ordered=True)
ORTHODONT = ml.load("orthodont")


def crossed() -> pd.DataFrame:
    """AR(1) residuals within groups that are crossed with another factor."""
    rng = np.random.default_rng(4)
    g, t = np.repeat(np.arange(12), 8), np.tile(np.arange(8), 12)
    h, x = rng.integers(0, 6, 96), rng.standard_normal(96)
    e = rng.standard_normal(96)
    for i in range(1, 96):
        e[i] = e[i] if t[i] == 0 else 0.6 * e[i - 1] + 0.8 * e[i]
    y = 1 + 0.5 * x + rng.standard_normal(12)[g] + 0.8 * rng.standard_normal(6)[h] + e
    return pd.DataFrame({"y": y, "x": x, "g": g, "h": h, "t": t})


def uneven() -> pd.DataFrame:
    """CAR(1) residuals at times of any distance."""
    rng = np.random.default_rng(6)
    g, t = np.repeat(np.arange(14), 7), np.sort(rng.uniform(0, 30, (14, 7)), axis=1).ravel()
    e = rng.standard_normal(98)
    for i in range(1, 98):
        if i % 7:
            c = 0.85 ** (t[i] - t[i - 1])
            e[i] = c * e[i - 1] + np.sqrt(1 - c * c) * e[i]
    y = 2 + 0.1 * t + 0.7 * rng.standard_normal(14)[g] + e
    return pd.DataFrame({"y": y, "t": t, "g": g})


CROSSED, UNEVEN = crossed(), uneven()


# --- against a dense likelihood


@dataclass(frozen=True)
class Dense:
    """A model with its covariance of the response as a function of the parameters by name."""

    formula: str
    data: pd.DataFrame
    cov: Callable[[pd.DataFrame, dict[str, float]], Array]
    x: Callable[[pd.DataFrame], Array]
    options: dict[str, Any]

    def fit(self) -> Fit:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Model(self.formula, self.data, **self.options).fit(False)

    def deviance(self, values: dict[str, float], beta: dict[int, float]) -> float:
        """-2 log-likelihood, fixed effects at their best but for those in `beta`."""
        v = self.cov(self.data, values)
        y, x = self.data[self.formula.split()[0]].to_numpy(dtype=float), self.x(self.data)
        y = y - sum(value * x[:, j] for j, value in beta.items())
        x = np.delete(x, list(beta), axis=1)
        try:
            low = np.linalg.cholesky(v)
        except np.linalg.LinAlgError:
            return np.inf
        y, x = np.linalg.solve(low, y), np.linalg.solve(low, x)
        rest = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
        return float(len(y) * np.log(2 * np.pi) + 2 * np.log(np.diag(low)).sum() + rest @ rest)

    def profiled(self, start: dict[str, float], held: dict[str, float], beta: dict[int, float]) -> float:
        """Its least value over the parameters that are not held."""
        free = {name: value for name, value in start.items() if name not in held}

        def value(u: Array) -> float:
            return self.deviance(held | {n: backward(n, one) for n, one in zip(free, u, strict=True)}, beta)

        first = np.array([forward(name, one) for name, one in free.items()])
        if not len(first):
            return value(first)
        found = minimize(value, first, method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-9, "maxiter": 4000})
        return float(minimize(value, found.x, method="BFGS").fun)


def forward(name: str, value: float) -> float:
    """To the whole line: sds and ratios by their logarithm, correlations by Fisher's z."""
    if name.startswith(("cor", "rho")):
        return float(np.arctanh(value))
    return value if name.startswith(("power", "exp")) else float(np.log(value))


def backward(name: str, u: float) -> float:
    if name.startswith(("cor", "rho")):
        return float(np.tanh(u))
    return u if name.startswith(("power", "exp")) else float(np.exp(u))


def same(column: Any) -> Array:
    """(n, n) whether two rows belong to one level."""
    codes = np.asarray(column)
    return (codes[:, None] == codes[None, :]).astype(float)


def gaps(column: Any) -> Array:
    times = np.asarray(column, dtype=float)
    return np.abs(times[:, None] - times[None, :])


def with_one(*columns: str) -> Callable[[pd.DataFrame], Array]:
    return lambda d: np.column_stack([np.ones(len(d)), *(d[c].to_numpy(dtype=float) for c in columns)])


def ar1_effects(d: pd.DataFrame, p: dict[str, float]) -> Array:
    effects = p["sd(Subject, ar1)"] ** 2 * p["cor(Subject, ar1)"] ** gaps(d["Days"])
    return same(d["Subject"]) * effects + p["sigma"] ** 2 * np.eye(len(d))


def homcs_effects(d: pd.DataFrame, p: dict[str, float]) -> Array:
    one = same(d["late"])
    effects = p["sd(Subject, homcs)"] ** 2 * (one + p["cor(Subject, homcs)"] * (1 - one))
    return same(d["Subject"]) * effects + p["sigma"] ** 2 * np.eye(len(d))


def ar1_rows(d: pd.DataFrame, p: dict[str, float]) -> Array:
    rows = p["sigma"] ** 2 * same(d["g"]) * p["rho(g)"] ** gaps(d["t"])
    return p["sd(g, Intercept)"] ** 2 * same(d["g"]) + p["sd(h, Intercept)"] ** 2 * same(d["h"]) + rows


def ident_rows(d: pd.DataFrame, p: dict[str, float]) -> Array:
    second = next(name for name in p if name.startswith("ratio"))
    sd = np.where(d["Sex"] == second[len("ratio(Sex, ") : -1], p[second], 1.0)
    return p["sd(Subject, Intercept)"] ** 2 * same(d["Subject"]) + p["sigma"] ** 2 * np.diag(sd**2)


def car1_rows(d: pd.DataFrame, p: dict[str, float]) -> Array:
    name = next(n for n in p if n.startswith("rho"))
    over = float(name.partition(" over ")[2] or 1.0)  # lag of which the correlation is told
    rows = p["sigma"] ** 2 * same(d["g"]) * p[name] ** (gaps(d["t"]) / over)
    return p["sd(g, Intercept)"] ** 2 * same(d["g"]) + rows


def power_rows(d: pd.DataFrame, p: dict[str, float]) -> Array:
    sd = d["age"].to_numpy(dtype=float) ** p["power(age)"]
    return p["sd(Subject, Intercept)"] ** 2 * same(d["Subject"]) + p["sigma"] ** 2 * np.diag(sd**2)


DENSE = {
    "ar1 effects": Dense("Reaction ~ Days + ar1(0 + factor(Days) | Subject)", SLEEP, ar1_effects, with_one("Days"), {}),
    "homcs effects": Dense("Reaction ~ Days + homcs(0 + late | Subject)", SLEEP, homcs_effects, with_one("Days"), {}),
    "ar1 rows, crossed": Dense(
        "y ~ x + (1 | g) + (1 | h)", CROSSED, ar1_rows, with_one("x"), {"correlation": "ar1(t | g)"}
    ),
    "ident": Dense(
        "distance ~ age + (1 | Subject)", ORTHODONT, ident_rows, with_one("age"), {"variance": "ident(Sex)"}
    ),
    "car1": Dense("y ~ t + (1 | g)", UNEVEN, car1_rows, with_one("t"), {"correlation": "car1(t | g)"}),
    "power": Dense(
        "distance ~ age + (1 | Subject)", ORTHODONT, power_rows, with_one("age"), {"variance": "power(age)"}
    ),
}


@cache
def dense_profile(name: str) -> tuple[Fit, Profile]:
    fit = DENSE[name].fit()
    return fit, fit.profile()


@pytest.mark.slow
@pytest.mark.parametrize("name", list(DENSE))
def test_limits_are_those_of_a_dense_likelihood(name: str) -> None:
    dense = DENSE[name]
    fit, profile = dense_profile(name)
    every = parameters_of(fit)
    assert profile.names == tuple(p.name for p in every)
    at = dict(zip(profile.names, estimates(every, fit), strict=True))
    start = {p.name: float(at[p.name]) for p in every if p.kind != "fixed"}
    least = dense.profiled(start, {}, {})
    assert profile.deviance == pytest.approx(least, abs=1e-6)
    for curve in profile.curves:
        for limit, end in zip(curve.limits(0.95), curve.bounds, strict=True):
            if limit == end == 0:  # the deviance there is not as high
                assert dense.profiled(start, {curve.parameter.name: 1e-9}, {}) < least + Z95**2
                continue
            fixed = curve.parameter.kind == "fixed"
            held = {} if fixed else {curve.parameter.name: limit}
            rise = dense.profiled(start, held, {curve.parameter.i: limit} if fixed else {}) - least
            # zeta off by 1e-4 is a limit off by 5e-5 of the half-width
            assert np.sqrt(rise) == pytest.approx(Z95, abs=1e-4), (curve.parameter.name, limit)


@pytest.mark.parametrize("name", list(DENSE))
def test_zeta_is_zero_at_the_estimate_and_deviance_never_below_the_optimum(name: str) -> None:
    fit, profile = dense_profile(name)
    assert not profile.messages
    assert profile.deviance == fit.criterion
    for curve in profile.curves:
        assert curve.at(curve.estimate) == 0
        assert min(curve.deviances) >= profile.deviance - 1e-8
        assert (np.diff(curve.zetas) > 0).all()
        for zeta, value, end in zip(curve.zetas[:: len(curve.zetas) - 1], curve.values[:: len(curve.values) - 1],
                                    curve.bounds, strict=True):  # fmt: skip
            none = curve.parameter.kind == "sigma" and value < 1e-3 * curve.estimate
            assert abs(zeta) > REACH - 1e-9 or value == end or none


# --- the criterion with one parameter held

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "ar1": ("Reaction ~ Days + ar1(0 + factor(Days) | Subject)", {}),
    "hetar1 beside": ("Reaction ~ Days + (0 + Days | Subject) + hetar1(0 + late | Subject)", {}),
    "cs": ("Reaction ~ Days + cs(1 + Days | Subject)", {}),
    "homdiag": ("Reaction ~ Days + homdiag(1 + Days | Subject)", {}),
    "homcs, ident": ("Reaction ~ Days + homcs(0 + late | Subject)", {"variance": "ident(late)"}),
    "us, ar1 rows": ("Reaction ~ Days + (Days | Subject)", {"correlation": "ar1(Days | Subject)"}),
    "car1, exp": (
        "Reaction ~ Days + (1 | Subject)",
        {"correlation": "car1(Days | Subject)", "variance": ["exp(Days)", "ident(late)"]},
    ),
    "power(fitted)": ("Reaction ~ Days + (1 | Subject)", {"variance": "power(fitted)"}),
    "weights": (
        "Reaction ~ Days + (1 | Subject)",
        {"variance": "ident(late)", "weights": np.exp(np.sin(np.arange(180.0)))},
    ),
}


def quiet(formula: str, data: Any, reml: bool = True, **options: Any) -> Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Model(formula, data, **options).fit(reml)


@pytest.mark.parametrize("name", list(MODELS))
def test_gradient_of_the_held_criterion_is_exact(name: str) -> None:
    formula, options = MODELS[name]
    fit = quiet(formula, SLEEP, False, **options)
    rng = np.random.default_rng(3)
    every = parameters_of(fit)
    residual = fit.model.residual
    for parameter, estimate in zip(every, estimates(every, fit), strict=True):
        held = Held(fit.engine, fit.design, parameter, fit.sigma)
        best = held.start(fit.optimum.lambdas, fit.sigma, fit.optimum.residual)
        if parameter.kind != "fixed":
            value, slope = held.slope(best, estimate)
            assert value == pytest.approx(fit.criterion, abs=1e-8)
            assert np.abs(slope).max() < 1e-4
        # with sigma held, another power of values near 300 makes a deviance of 1e9, of which differences say nothing
        x = best + (0.005 if name == "power(fitted)" else 0.2) * rng.standard_normal(held.size)
        value = {"cor": -0.1, "fixed": 0.0}.get(parameter.kind, 0.8 * estimate)
        _, slope = held.slope(x, value)
        for i in range(held.size):
            step = np.zeros(held.size)
            step[i] = 1e-5
            central = (held.slope(x + step, value)[0] - held.slope(x - step, value)[0]) / 2e-5
            assert slope[i] == pytest.approx(central, rel=1e-6, abs=1e-5)
        _, lambdas, sigma = held.point(x, value)  # what is held is held
        covs = [sigma**2 * (m @ m.T)[None] for m in lambdas]
        values = np.empty((1, 0)) if residual is None else residual.values(held.unpack(x, value)[2])[None]
        found = draws([parameter], covs, np.array([sigma]), np.zeros((1, len(fit.design.names))), values)
        assert found[0, 0] == pytest.approx(value, rel=1e-10)


def test_a_structure_that_is_another_one_has_its_profile() -> None:
    free = quiet("Reaction ~ Days + (Days | Subject)", SLEEP).profile().confint()
    few = quiet("Reaction ~ Days + cs(1 + Days | Subject)", SLEEP).profile().confint()
    assert list(few["term"])[:3] == ["sd(Subject, Intercept)", "sd(Subject, Days)", "cor(Subject, cs)"]
    np.testing.assert_allclose(few.iloc[:, 1:].astype(float), free.iloc[:, 1:].astype(float), rtol=1e-5)
    ar1 = quiet("Reaction ~ Days + hetar1(0 + late | Subject)", SLEEP).profile().confint()
    cs = quiet("Reaction ~ Days + cs(0 + late | Subject)", SLEEP).profile().confint()
    np.testing.assert_allclose(ar1.iloc[:, 1:].astype(float), cs.iloc[:, 1:].astype(float), rtol=1e-5)


def test_known_covariances_beside_structures() -> None:
    levels = sorted(set(SLEEP["Subject"].astype(str)))
    root = np.random.default_rng(1).standard_normal((18, 40))
    known = pd.DataFrame(root @ root.T / 40, index=levels, columns=levels)
    data = SLEEP.assign(Subject=SLEEP["Subject"].astype(str))
    fit = quiet("Reaction ~ Days + (1 | Subject)", data, False, covariance={"Subject": known}, variance="ident(late)")
    z = (data["Subject"].to_numpy()[:, None] == np.array(levels)).astype(float)

    def cov(d: pd.DataFrame, p: dict[str, float]) -> Array:
        rows = p["sigma"] ** 2 * np.diag(np.where(d["late"] == "b", p["ratio(late, b)"], 1.0) ** 2)
        return p["sd(Subject, Intercept)"] ** 2 * z @ known.to_numpy() @ z.T + rows

    dense = Dense("Reaction ~ Days + (1 | Subject)", data, cov, with_one("Days"), {})
    profile = fit.profile(["ratio(late, b)", "sd(Subject, Intercept)"])
    start = dict(zip([p.name for p in parameters_of(fit)][:3], estimates(parameters_of(fit), fit), strict=False))
    for curve in profile.curves:
        for limit in curve.limits(0.95):
            rise = dense.profiled(start, {curve.parameter.name: limit}, {}) - profile.deviance
            assert np.sqrt(rise) == pytest.approx(Z95, abs=1e-4)


def test_names_of_two_terms_of_one_structure_differ() -> None:
    fit = quiet("Reaction ~ Days + homdiag(1 + Days | Subject) + homdiag(0 + late | Subject)", SLEEP)
    names = [p.name for p in parameters_of(fit)]
    assert names[:2] == ["sd(Subject, homdiag)", "sd(Subject, homdiag 2)"]


# --- ends of the range, several valleys


def noise(seed: int, copies: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    g, t = np.repeat(np.arange(8), 6 * copies), np.tile(np.arange(6), 8 * copies)
    return pd.DataFrame({"g": g, "t": t, "y": rng.standard_normal(48 * copies)})


def test_limits_at_the_ends_of_the_range() -> None:
    data = noise(1)
    car1 = quiet("y ~ 1 + (1 | g)", data, False, correlation="car1(t | g)").profile(["sd(g, Intercept)", "rho(g)"])
    assert car1.confint()["conf_low"].tolist() == [0.0, 0.0]
    assert (car1.confint()["conf_high"] > 0.5).all()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        cs = quiet("y ~ 1 + homcs(0 + factor(t) | g)", noise(2, 2), False).profile()
    table = cs.confint().set_index("term")
    assert table.loc["sd(g, homcs)", "conf_low"] == 0
    assert tuple(table.loc["cor(g, homcs)", ["conf_low", "conf_high"]]) == (pytest.approx(-0.2), 1.0)
    # the residual sd may be zero where every row has an effect of its own: AR(1) without noise
    effects = quiet("Reaction ~ Days + ar1(0 + factor(Days) | Subject)", SLEEP, False)
    alone = quiet("Reaction ~ Days", SLEEP, False, correlation="ar1(Days | Subject)")
    assert alone.criterion - effects.criterion < 2.5758**2
    curve = effects.profile("sigma").curves[0]
    assert curve.limits(0.95)[0] > 5
    assert curve.limits(0.99)[0] == 0
    assert curve.deviances[0] == pytest.approx(alone.criterion, abs=1e-3)


def test_a_correlation_that_vanished_has_a_profile() -> None:
    rng = np.random.default_rng(12)
    t = np.sort(rng.uniform(0, 5, (10, 6)), axis=1).ravel()
    data = pd.DataFrame({"y": rng.standard_normal(60), "g": np.repeat(np.arange(10), 6), "t": t})
    fit = quiet("y ~ 1", data, False, correlation="car1(t | g)")
    assert fit.optimum.residual[0] == 0
    profile = fit.profile()
    table = profile.confint().set_index("term")
    rho = table.iloc[1]
    assert rho["conf_low"] == 0
    assert 0 < rho["conf_high"] < 1
    plain = quiet("y ~ 1", data, False).profile().confint().set_index("term")
    assert table.loc["sigma", "conf_low"] == pytest.approx(plain.loc["sigma", "conf_low"], rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("formula", "options"),
    [
        ("y ~ 1 + cs(0 + factor(t) | g)", {}),
        ("y ~ 1 + hetar1(0 + factor(t) | g)", {}),
        ("y ~ 1 + (t | g)", {"correlation": "ar1(t | g)"}),
    ],
)
@pytest.mark.parametrize("seed", [3, 4])
def test_profiles_are_as_low_as_a_search_from_many_starts(formula: str, options: dict[str, str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    fit = quiet(formula, noise(seed, 2).drop_duplicates(["g", "t"]) if options else noise(seed, 2), False, **options)
    which = [p.name for p in parameters_of(fit) if p.kind != "fixed"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        profile = fit.profile([which[0], which[-2], which[-1]])
    for curve in profile.curves:
        held = Held(fit.engine, fit.design, curve.parameter, fit.sigma)

        def slope(x: Array, value: float, held: Held = held) -> tuple[float, Array]:
            try:
                return held.slope(x, value)
            except DataError:  # factors so large that they have no factorisation
                return 1e9, np.zeros(len(x))

        for i in (0, len(curve.values) // 3, len(curve.values) - 1):
            value = curve.values[i]
            starts = rng.standard_normal((6, held.size))
            best = min(minimize(slope, x, args=(value,), jac=True, method="BFGS").fun for x in starts)
            assert curve.deviances[i] <= best + 1e-5, (curve.parameter.name, value)


def test_a_better_optimum_is_said_and_used() -> None:
    right, whole = dense_profile("ar1 rows, crossed")
    engine, residual = right.engine, right.model.residual
    assert isinstance(engine, StructuredEngine)
    assert residual is not None
    held = engine.moved(residual.coordinates(np.array([0.2])))  # the best fit with this correlation, no more
    optimum = replace(Engine.of(held.blocks, 1).fit(False), residual=np.array([0.2]))
    stopped = Fit(right.model, optimum, held)
    assert stopped.criterion > right.criterion + 1e-3
    which = ["rho(g)", "x"]
    with pytest.warns(ConvergenceWarning, match="found a deviance .* below that of the fit"):
        table = stopped.profile(which).confint()
    wanted = whole.confint().set_index("term").loc[which, "conf_low"]
    np.testing.assert_allclose(table["conf_low"], wanted, rtol=1e-4)


def test_a_fit_read_from_a_file_needs_its_rows(tmp_path: Any) -> None:
    fit, profile = dense_profile("homcs effects")
    fit.save(tmp_path / "without.ml")
    with pytest.raises(DataError, match="saved without its data"):
        ml.read(tmp_path / "without.ml").profile("sigma")
    fit.save(tmp_path / "with.ml", data=True)
    again = ml.read(tmp_path / "with.ml").profile("cor(Subject, homcs)").curves[0]
    np.testing.assert_allclose(again.limits(0.95), profile.curves[1].limits(0.95), rtol=1e-6)


def test_a_variance_by_fitted_values_is_held_at_those_of_the_fit() -> None:
    fit = quiet("Reaction ~ Days + (1 | Subject)", SLEEP, False, variance="power(fitted)")
    data = SLEEP.assign(size=np.asarray(fit.fitted()))
    fixed = quiet("Reaction ~ Days + (1 | Subject)", data, False, variance="power(size)")
    ours, wanted = fit.profile().confint(), fixed.profile().confint()
    np.testing.assert_allclose(ours.iloc[:, 1:].astype(float), wanted.iloc[:, 1:].astype(float), rtol=1e-4)
