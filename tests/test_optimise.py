"""The search: where it must end whatever the start, scale or shape; what it says of where it ended."""

from __future__ import annotations

import warnings
from typing import Any

import golden
import numpy as np
import pandas as pd
import pytest
from reference import Array
from scipy.optimize import minimize
from shapes import Shape, quiet_fit, random_shape, shape, slopes, twin

import multilevel as ml
from multilevel import ConvergenceWarning, Model, SingularFitWarning, _core
from multilevel.optimise import Evidence
from multilevel.reml import Optimum

SLEEP = ml.load("sleepstudy")
SLEEP_FORMULA = "Reaction ~ Days + (Days | Subject)"


def stored(file: str, label: str) -> tuple[Model, float, int]:
    fit = golden.golden(file, label)
    model = Model(fit.formula, fit.frame(), **fit.arguments())
    return model, fit.criterion, len(np.concatenate([np.atleast_1d(fit.theta)]))


# --- planted starts


STARTS = {
    "zero": lambda n: np.zeros(n),
    "tiny": lambda n: np.full(n, 1e-9),
    "huge": lambda n: np.full(n, 1e4),
    "one": lambda n: np.ones(n),
    "first alone": lambda n: np.eye(n)[0],
    "last alone": lambda n: np.eye(n)[-1],
    "negative": lambda n: -np.ones(n),
}
PLANTED = [
    ("sleepstudy_random_slope", "REML"),
    ("sleepstudy_random_slope", "ML"),
    ("penicillin_crossed", "REML"),
    ("pastes_nested", "REML"),
    ("dyestuff_ri", "ML"),
    ("machines_worker", "REML_slopes"),
    ("math10", "ML_slope"),
    ("oxboys_quadratic", "REML"),
    ("orthodont_growth", "REML"),
    ("sleepstudy_random_slope", "REML_uncorrelated"),
]


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(("file", "label"), PLANTED)
def test_any_start_reaches_the_optimum(file: str, label: str, start: str) -> None:
    """A column of zeros, where the gradient by theta vanishes, must be left: the variance there wants to grow."""
    fit = golden.golden(file, label)
    model = Model(fit.formula, fit.frame())
    need = sum(s.n_theta for s in model.engine(1).blocks.structures)
    found = model.engine(1).fit(fit.reml, tuple(_factors(model, STARTS[start](need))))
    assert found.criterion == pytest.approx(fit.criterion, rel=1e-10)
    assert found.evidence.converged


def _factors(model: Model, theta: Array) -> list[Array]:
    from multilevel.reml import check_start

    return list(check_start(theta, model.engine(1)))


@pytest.mark.parametrize("correlation", [1.0, -1.0])
@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0])
def test_a_start_on_the_wrong_boundary(correlation: float, size: float) -> None:
    """A perfect correlation of either sign is left."""
    fit = Model(SLEEP_FORMULA, SLEEP).fit(start=[size, correlation * size / 5, 0.0])
    assert fit.criterion == pytest.approx(1743.628272, abs=1e-6)
    assert fit.convergence
    assert fit.convergence.restarts >= 0


def test_saddles_of_three_effects() -> None:
    """Starts of rank one and two in each direction end at one optimum."""
    model, criterion, _ = stored("oxboys_quadratic", "REML")
    rng = np.random.default_rng(1)
    for rank in (1, 2):
        for _ in range(4):
            root = rng.normal(size=(3, rank))
            factor = np.linalg.qr(np.hstack([root, np.zeros((3, 3 - rank))]).T, mode="r").T
            found = model.engine(1).fit(True, (np.ascontiguousarray(factor),))
            assert found.criterion == pytest.approx(criterion, rel=1e-10)
            assert found.evidence.converged


# --- bad scaling


@pytest.mark.parametrize(("factor", "shift"), [(1e6, 0.0), (1e-6, 0.0), (1.0, 2000.0), (1e3, -1e6), (86_400.0, 0.0)])
@pytest.mark.parametrize("reml", [True, False])
def test_units_of_the_predictor(factor: float, shift: float, reml: bool) -> None:
    base = Model(SLEEP_FORMULA, SLEEP).fit(reml)
    moved = quiet_fit(Model(SLEEP_FORMULA, SLEEP.assign(Days=SLEEP["Days"] * factor + shift)), reml)
    assert moved.convergence
    assert moved.convergence.evaluations <= base.convergence.evaluations + 3
    wanted = base.criterion + (2 * np.log(factor) if reml else 0.0)
    assert moved.criterion == pytest.approx(wanted, rel=1e-10)
    slope, unmoved = (float(f.random_cov()[0][1, 1]) for f in (moved, base))  # intercepts lie elsewhere now
    assert slope * factor**2 == pytest.approx(unmoved, rel=1e-6)
    assert moved.fixef()["estimate"][1] * factor == pytest.approx(10.467286, rel=1e-6)


def test_units_of_the_response() -> None:
    base = Model(SLEEP_FORMULA, SLEEP).fit()
    for factor in (1e-9, 1e9):
        fit = Model(SLEEP_FORMULA, SLEEP.assign(Reaction=SLEEP["Reaction"] * factor)).fit()
        assert fit.sigma == pytest.approx(base.sigma * factor, rel=1e-8)
        np.testing.assert_allclose(fit.theta, base.theta, rtol=1e-6)


@pytest.mark.parametrize(("ratio", "digits"), [(1e2, 1e-8), (1e3, 1e-6), (1e4, 1e-5)])
def test_groups_that_differ_far_more_than_their_rows(ratio: float, digits: float) -> None:
    """Balanced one-way data: REML has a closed form. The sums of squares alone cost twice the digits of the ratio."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        a = np.repeat(np.arange(20), 6)
        y = ratio * rng.normal(size=20)[a] + rng.normal(size=120)
        fit = Model("y ~ 1 + (1 | a)", pd.DataFrame({"y": y, "a": a})).fit()
        cells = y.reshape(20, 6)
        within = cells.var(axis=1, ddof=1).mean()
        between = cells.mean(axis=1).var(ddof=1) - within / 6
        assert fit.convergence
        assert fit.sigma == pytest.approx(np.sqrt(within), rel=digits)
        assert fit.random_cov()[0][0, 0] == pytest.approx(between, rel=digits)


# --- boundaries, reached and named


def test_radon_varying_slope_is_not_trapped() -> None:
    """One of lme4's optimisers stops at a singular fit five units of deviance away."""
    for label in ("REML_varying_slope", "ML_varying_slope"):
        model, criterion, count = stored("radon_mn", label)
        reml = label.startswith("REML")
        assert model.fit(reml).criterion <= criterion + 1e-8
        for start in ([0.0, 0, 0], [0.3, 0.3, 0.0], [0.3, -0.3, 0.0], [0.0, 0.0, 1.0], [5.0, 0, 5.0]):
            fit = model.fit(reml, start=start)
            assert fit.criterion == pytest.approx(criterion, rel=1e-9), start
            assert fit.convergence
            assert not fit.is_singular
        assert count == 3


@pytest.mark.parametrize("reml", [True, False])
def test_dyestuff2_is_exactly_zero(reml: bool) -> None:
    model = Model("Yield ~ 1 + (1 | Batch)", ml.load("dyestuff2"))
    with pytest.warns(SingularFitWarning, match=r"sd\(Batch, Intercept\) = 0"):
        fit = model.fit(reml)
    assert fit.theta.tolist() == [0.0]
    assert fit.is_singular
    assert np.all(fit.ranef()["estimate"] == 0)
    assert np.all(fit.ranef()["std_error"] == 0)
    report = fit.convergence
    assert report.converged
    assert report.singular
    assert report.boundary == ("sd(Batch, Intercept) = 0",)
    assert report.null_slope >= 0
    assert "minimum on the boundary" in report.sentence
    assert "vanished variance" in str(report)


def perfect(sign: float, seed: int = 1) -> pd.DataFrame:
    """Slopes that are a multiple of the intercepts, measured well."""
    rng = np.random.default_rng(seed)
    a = np.repeat(np.arange(15), 12)
    x = rng.normal(size=len(a))
    b = rng.normal(size=15)[a]
    return pd.DataFrame({"y": 1 + b + sign * 0.5 * b * x + rng.normal(size=len(a)), "x": x, "a": a})


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_perfect_correlation_is_named(sign: float) -> None:
    found = []
    for seed in range(8):
        fit = quiet_fit(Model("y ~ x + (x | a)", perfect(sign, seed)))
        assert fit.convergence, seed
        if not fit.is_singular:
            continue
        found.append(seed)
        assert fit.convergence.boundary == (f"cor(a, Intercept, x) = {sign:.0f}",)
        table = fit.varcorr()
        cor = table[table["term2"].notna()]["sdcor"].iloc[0]
        assert cor == pytest.approx(sign, abs=1e-12)
        assert fit.convergence.null_slope > -1e-5
    assert len(found) >= 2


def test_effects_that_lie_in_a_plane_are_named() -> None:
    rng = np.random.default_rng(3)
    a = np.repeat(np.arange(20), 15)
    x1, x2 = rng.normal(size=(2, len(a)))
    b = rng.normal(size=(20, 2))[a]
    y = b[:, 0] + b[:, 1] * x1 + (b[:, 0] + b[:, 1]) * x2 + 0.3 * rng.normal(size=len(a))
    fit = quiet_fit(Model("y ~ x1 + x2 + (x1 + x2 | a)", pd.DataFrame({"y": y, "x1": x1, "x2": x2, "a": a})))
    assert fit.convergence
    assert fit.optimum.evidence.ranks in ((2,), (3,))
    if fit.is_singular:
        assert fit.convergence.boundary == ("3 effects of a (Intercept, x1, x2) vary in 2 dimensions only",)


@pytest.mark.parametrize(
    "formula",
    ["y ~ x1 + (x1 + x2 | a)", "y ~ x1 + (x1 + x2 || a)", "y ~ x1 + (1 | a) + (1 | b)", "y ~ x1 + (x1 | a) + (x2 | b)"],
)
@pytest.mark.parametrize("reml", [True, False])
def test_no_variation_at_all(formula: str, reml: bool) -> None:
    """Pure noise, groups balanced against it: every variance exactly zero, certified."""
    data = shape("crossed slopes").data.copy()
    rng = np.random.default_rng(5)
    data["y"] = rng.normal(size=len(data))
    for group in ("a", "b", "a", "b", "a", "b"):
        for x in (1.0, data["x1"], data["x2"]):
            z = pd.Series(x, index=data.index)
            product, square = ((v * z).groupby(data[group]).transform("sum") for v in (data["y"], z))
            data["y"] -= z * product / square
    fit = quiet_fit(Model(formula, data), reml)
    assert fit.convergence
    assert np.abs(fit.theta).max() < 1e-8 or fit.is_singular
    if formula != "y ~ x1 + (x1 | a) + (x2 | b)":
        assert np.all(fit.theta == 0)


def test_machines_decorrelated() -> None:
    """(Machine || Worker): an intercept and two differences, each with its own variance."""
    data = ml.load("machines")
    fit = quiet_fit(Model("score ~ Machine + (Machine || Worker)", data))
    assert fit.convergence
    table = fit.varcorr()
    assert table["term2"].isna().all()
    assert len(fit.theta) == 3
    factor = fit.optimum.lambdas[0]
    np.testing.assert_array_equal(factor, np.diag(np.diag(factor)))
    dense = twin(fit.design)

    def value(theta: Array) -> float:
        return float(dense.criterion([np.diag(theta)]))

    best = min(
        minimize(value, start, method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10, "maxiter": 2000}).fun
        for start in (np.ones(3), np.full(3, 3.0))
    )
    assert fit.criterion <= best + 1e-8
    parted = quiet_fit(
        Model(
            "score ~ Machine + (1 | Worker) + (0 + x1 | Worker) + (0 + x2 | Worker)",
            data.assign(x1=(data["Machine"] == "B") * 1.0, x2=(data["Machine"] == "C") * 1.0),
        )
    )
    assert parted.criterion == pytest.approx(fit.criterion, rel=1e-11)


# --- saying so when it is not certain


def test_out_of_evaluations() -> None:
    model = Model(SLEEP_FORMULA, SLEEP)
    with pytest.warns(ConvergenceWarning, match=r"stopped after .* evaluations.*max_evaluations"):
        fit = model.fit(max_evaluations=1, start=[3.0, 0.0, 3.0])
    assert not fit.convergence
    assert not fit.convergence.converged
    assert fit.optimum.evidence.status == "out of evaluations"
    assert any("max_evaluations" in message for message in fit.messages)
    assert np.isfinite(fit.criterion)
    assert model.fit().convergence.converged


def test_few_evaluations_bound_the_whole_search() -> None:
    """Retries count against the bound as well, more or less: it never runs away."""
    model = Model("y ~ x1 + x2 + (x1 + x2 | a)", shape("three effects").data)
    for limit in (1, 2, 3, 5):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.simplefilter("ignore", SingularFitWarning)
            fit = model.fit(max_evaluations=limit)
        assert fit.convergence.evaluations <= 20 * limit + 20
        assert np.isfinite(fit.criterion)


@pytest.mark.parametrize("status", [2, 3])
def test_another_start_after_a_failed_one(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    real, calls = _core.fit, []

    def once_bad(state: Any, start: Any, components: Any, limit: int, em_steps: int) -> dict[str, Any]:
        found = dict(real(state, start, components, limit, em_steps))
        calls.append(found["evaluations"])
        return found if len(calls) > 1 else {**found, "status": status, "deviance": np.inf}

    model = Model(SLEEP_FORMULA, SLEEP)
    monkeypatch.setattr(_core, "fit", once_bad)
    fit = model.fit()
    assert fit.criterion == pytest.approx(1743.628272, abs=1e-6)
    assert fit.convergence
    assert fit.convergence.restarts >= 1
    assert fit.convergence.evaluations == sum(calls)


def test_a_saddle_is_left_downhill(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that stopped where the gradient vanishes and the curvature is negative goes on by itself."""
    real, calls = _core.fit, []
    model = Model("Yield ~ 1 + (1 | Batch)", ml.load("dyestuff"))

    def stops_at_the_saddle(state: Any, start: Any, components: Any, limit: int, em_steps: int) -> dict[str, Any]:
        found = dict(real(state, start, components, limit, em_steps))
        calls.append(1)
        if len(calls) > 1:
            return found
        near_zero = [np.array([[1e-5]])]
        state.set(near_zero)
        return {**found, "lambdas": near_zero, "rank": [1], "null_slopes": [np.nan], "deviance": found["deviance"] + 3}

    monkeypatch.setattr(_core, "fit", stops_at_the_saddle)
    fit = model.fit()
    assert len(calls) >= 2
    assert fit.criterion == pytest.approx(319.654277, abs=1e-5)
    assert fit.convergence.restarts >= 1
    assert fit.convergence


@pytest.mark.parametrize(
    ("change", "certain"),
    [
        ({}, True),
        ({"status": "no further progress"}, False),
        ({"status": "out of evaluations"}, False),
        ({"null_slopes": (float("nan"), -1.0)}, False),
        ({"null_slopes": (0.5, float("nan"))}, True),
        ({"null_slopes": (0.0, float("nan"))}, False),  # as good at any value: not determined
        ({"min_curvature": 0.0}, False),
        ({"min_curvature": -1.0}, False),
        ({"min_curvature": float("nan")}, False),
    ],
)
def test_what_convergence_needs(change: dict[str, Any], certain: bool) -> None:
    base: dict[str, Any] = {
        "status": "converged",
        "evaluations": 5,
        "iterations": 4,
        "restarts": 0,
        "decrement": 1e-13,
        "gradient_norm": 1e-7,
        "min_curvature": 1.0,
        "exact": True,
        "null_slopes": (float("nan"),),
        "ranks": (1,),
    }
    assert Evidence(**(base | change)).converged is certain


# --- simulated designs


def check_optimum(s: Shape, found: Optimum, reml: bool) -> None:
    """First-order conditions by the twin, on the cone of covariance matrices."""
    assert found.evidence.converged, (s.name, s.formula, reml, found.evidence)
    design = s.model.design
    for term, slope, factor in zip(design.terms, slopes(twin(design), found.lambdas, reml), found.lambdas, strict=True):
        if term.structure == "diag":
            slope = np.diag(np.diag(slope))
        scale = 1.0 + np.abs(slope).max()
        assert np.linalg.eigvalsh(slope).min() > -1e-4 * scale, (s.name, s.formula, reml)
        root = factor / max(float(np.abs(factor).max()), 1e-300)
        if term.Z is not None:
            size = np.sqrt((term.Z**2).mean(axis=0))
            root = factor * size[:, None] / max(float(np.abs(factor * size[:, None]).max()), 1e-300)
        assert np.abs(slope @ root).max() < 1e-3 * scale, (s.name, s.formula, reml)


@pytest.mark.slow
def test_a_thousand_designs_are_certified() -> None:
    singular_ones = 0
    for seed in range(1000):
        s = random_shape(seed)
        reml = bool(seed // 10 % 2)
        found = s.model.engine(1).fit(reml)
        check_optimum(s, found, reml)
        sizes = [len(index) for _, index in s.model.engine(1).blocks.owners]
        singular_ones += any(r < k for r, k in zip(found.evidence.ranks, sizes, strict=True))
    assert 150 < singular_ones < 850


def best_by_scipy(s: Shape, reml: bool, starts: int) -> float:
    """Lowest criterion of the dense twin by L-BFGS-B from several starts."""
    design = s.model.design
    dense = twin(design)
    structures = s.model.engine(1).blocks.structures
    sizes = [t.n_theta for t in structures]
    sizes_of_z = [np.ones(1) if t.Z is None else np.sqrt((t.Z**2).mean(axis=0)) for t in design.terms]
    scale = np.concatenate(
        [st.to_theta(np.tile(1 / size[:, None], (1, st.k))) for st, size in zip(structures, sizes_of_z, strict=True)]
    )

    def value(theta: Array) -> tuple[float, Array]:
        parts = np.split(theta * scale, np.cumsum(sizes)[:-1])
        factors = [st.to_lambda(part) for st, part in zip(structures, parts, strict=True)]
        slope = [st.to_theta(g) for st, g in zip(structures, dense.gradient(factors, reml), strict=True)]
        return float(dense.criterion(factors, reml)), np.concatenate(slope) * scale

    rng = np.random.default_rng(1)
    options = {"ftol": 1e-14, "gtol": 1e-7, "maxiter": 300}
    every = [np.concatenate([st.to_theta(np.eye(st.k)) for st in structures])]
    every += [rng.normal(size=len(scale)) * 10 ** rng.uniform(-1, 0.5) for _ in range(starts - 1)]
    return min(float(minimize(value, start, jac=True, method="L-BFGS-B", options=options).fun) for start in every)


@pytest.mark.parametrize("seed", range(0, 200, 17))
def test_never_worse_than_scipy_on_the_twin(seed: int) -> None:
    compare_with_scipy(seed, 2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1150))
def test_never_worse_than_scipy_on_more(seed: int) -> None:
    compare_with_scipy(seed, 4)


def compare_with_scipy(seed: int, starts: int) -> None:
    s = random_shape(seed)
    for reml in (True, False):
        found = s.model.engine(1).fit(reml)
        assert found.evidence.converged
        best = best_by_scipy(s, reml, starts)
        assert found.criterion <= best + 1e-8 * abs(best), (s.name, s.formula, reml)
