"""Structures of random terms (cs, homcs, ar1, hetar1, homdiag): against nlme and glmmTMB, plain NumPy, and one another."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import dense_structures as dense
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

import multilevel as ml
from multilevel import Fit, Model, OptionError

Array = NDArray[np.float64]
FOLDER = Path(__file__).parent / "golden_structures"
KINDS = ("homdiag", "cs", "homcs", "ar1", "hetar1")


@cache
def reference(file: str) -> dict[str, Any]:
    """Stored fits of one file, by label."""
    stored = json.loads((FOLDER / f"{file}.json").read_text(encoding="utf-8"))
    return {fit["label"]: fit for fit in stored["fits"]}


def quiet(model: Model, reml: bool = True, **options: Any) -> Fit:
    """The fit, without its warning of a boundary."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ml.SingularFitWarning)
        return model.fit(reml, **options)


# -- against nlme and glmmTMB --------------------------------------------------------------------------------

GOLDEN = [
    ("machines_pd", "REML_pdCompSymm", "machines", "score ~ Machine + homcs(0 + Machine | Worker)"),
    ("machines_pd", "REML_pdDiag", "machines", "score ~ Machine + diag(0 + Machine | Worker)"),
    ("machines_pd", "REML_pdSymm", "machines", "score ~ Machine + us(0 + Machine | Worker)"),
    ("machines_pd", "REML_pdBlocked", "machines", "score ~ Machine + (1 | Worker) + homdiag(0 + Machine | Worker)"),
    ("machines_pd", "REML_nested", "machines", "score ~ Machine + (1 | Worker/Machine)"),
    ("sleepstudy_covstructs", "us_ML", "sleepstudy", "Reaction ~ Days + us(Days | Subject)"),
    ("sleepstudy_covstructs", "diag_ML", "sleepstudy", "Reaction ~ Days + diag(Days | Subject)"),
]


@pytest.mark.parametrize("case", GOLDEN, ids=lambda c: f"{c[0]}-{c[1]}")
def test_the_fits_of_nlme_and_glmmtmb(case: tuple[str, str, str, str]) -> None:
    file, label, data, formula = case
    ref = reference(file)[label]
    fit = Model(formula, ml.load(data)).fit("REML" in ref["method"])
    assert fit.convergence.converged
    np.testing.assert_allclose(fit.loglik, ref["loglik"], atol=1e-6)
    assert fit.loglik > ref["loglik"] - 1e-8
    b, se = np.array(ref["fixed"]["estimate"]), np.array(ref["fixed"]["std_error"])
    np.testing.assert_allclose((fit.optimum.beta - b) / se, 0, atol=1e-4)
    if file == "machines_pd":  # glmmTMB's standard errors are those of the joint fit
        np.testing.assert_allclose(np.sqrt(np.diag(fit.vcov())), se, rtol=1e-4)
    sigma = ref["sigma"] if file == "machines_pd" else np.exp(ref["fixed_dispersion_log"]["estimate"][0] / 2)
    np.testing.assert_allclose(fit.sigma, sigma, rtol=1e-4)
    ours = np.concatenate([np.sqrt(np.diag(c)) for c in fit.random_cov()])
    np.testing.assert_allclose(np.sort(ours), np.sort(np.concatenate([r["sd"] for r in ref["random"]])), rtol=1e-4)
    if len(ref["random"]) == 1 and label != "REML_pdBlocked":
        cov = fit.random_cov()[0]
        np.testing.assert_allclose(cov, ref["random"][0]["cov"], atol=1e-4 * np.max(np.diag(cov)))


def test_ar1_with_noise_where_glmmtmb_stops_short() -> None:
    """It ends at the model without noise, 2.5 below the maximum."""
    ref = reference("sleepstudy_covstructs")["ar1_plus_noise_ML"]
    fit = Model("Reaction ~ Days + ar1(0 + factor(Days) | Subject)", ml.load("sleepstudy")).fit(False)
    dense.check_against(fit, dense.of_fit(fit))
    assert fit.loglik > ref["loglik"] + 2.5
    data = ml.load("sleepstudy")
    X = np.column_stack([np.ones(180), data["Days"]])
    y = np.asarray(data["Reaction"], dtype=float)

    def loglik(sd: float, sigma: float, rho: float) -> float:
        V = sd**2 * dense.serial(data["Subject"], data["Days"], rho) + sigma**2 * np.eye(180)
        return -dense.Twin(y, X, V).criterion(False, 1.0) / 2

    shape = ref["parameters_internal"]["estimate"][4]
    noise = float(np.exp(ref["parameters_internal"]["estimate"][2] / 2))
    theirs = loglik(ref["random"][0]["sd"][0], noise, shape / np.sqrt(1 + shape**2))
    np.testing.assert_allclose(theirs, ref["loglik"], atol=1e-6)
    np.testing.assert_allclose(loglik(fit.theta[0] * fit.sigma, fit.sigma, fit.theta[1]), fit.loglik, atol=1e-9)


# -- the dense twin and the derivative -----------------------------------------------------------------------


@cache
def rows(seed: int = 8, n: int = 300) -> pd.DataFrame:
    """20 subjects, 5 visits, 3 replicates, crossed with 6 raters; effects of a visit are AR(1)."""
    rng = np.random.default_rng(seed)
    d = pd.DataFrame({"s": np.repeat(np.arange(20), 15), "t": np.tile(np.repeat(np.arange(5), 3), 20)})
    d["rater"], d["x"], d["z"] = rng.integers(0, 6, n), rng.normal(size=n), rng.normal(size=n)
    d["w"] = rng.uniform(0.5, 2, n)
    effects = rng.normal(size=(20, 5))
    for j in range(1, 5):
        effects[:, j] = 0.7 * effects[:, j - 1] + np.sqrt(0.51) * effects[:, j]
    effects = effects * np.array([0.7, 0.9, 1.1, 1.3, 1.6])
    d["y"] = 2 + 0.3 * d["x"] + effects[d["s"], d["t"]] + 0.5 * rng.normal(size=6)[d["rater"]] + rng.normal(size=n)
    return d


TERMS = [
    *(f"y ~ x + {kind}(0 + factor(t) | s)" for kind in KINDS),
    *(f"y ~ x + (1 | rater) + {kind}(0 + factor(t) | s)" for kind in KINDS),
    "y ~ x + cs(x + z | s)",
    "y ~ x + homcs(0 + x + z | s) + (1 | rater)",
    "y ~ x + homdiag(x | s) + (x | rater)",
    "y ~ x + (1 | s) + hetar1(0 + factor(t) | s)",
    "y ~ x + cs(x | s) + ar1(0 + factor(t) | rater)",
]


@pytest.mark.parametrize("weights", [None, "w"])
@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("formula", TERMS)
def test_a_fit_is_that_of_the_dense_twin(formula: str, reml: bool, weights: str | None) -> None:
    fit = quiet(Model(formula, rows(), weights=weights), reml)
    assert fit.convergence.converged
    at, covs = 0, []
    for term, structure in zip(fit.design.terms, fit.engine.blocks.structures, strict=True):
        theta = fit.theta[at : at + structure.n_theta]
        at += structure.n_theta
        factor = fit.optimum.lambdas[fit.design.terms.index(term)]
        cov = factor @ factor.T if structure.free else dense.covariance(term.structure, len(term.names), theta)
        np.testing.assert_allclose(factor @ factor.T, cov, atol=1e-12 * (1 + np.abs(cov).max()))
        covs.append(cov)
    dense.check_against(fit, dense.twin(fit.design, covs))


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("formula", TERMS)
def test_the_derivative_by_theta(formula: str, reml: bool) -> None:
    model = Model(formula, rows())
    structures = model.engine().blocks.structures
    rng = np.random.default_rng(2)
    parts = []
    for s in structures:
        sds = rng.uniform(0.4, 1.2, s.n_theta)
        if not s.free and s.correlated:
            low, high = s.range()
            sds[-1] = rng.uniform(0.8 * low, 0.8 * high)
        parts.append(sds)
    theta = np.concatenate(parts)
    steps = 1e-5 * np.eye(len(theta))
    differences = [(model.criterion(theta + h, reml) - model.criterion(theta - h, reml)) / 2e-5 for h in steps]
    np.testing.assert_allclose(
        model.gradient(theta, reml), differences, atol=1e-6 * max(1.0, np.abs(differences).max())
    )
    hessian = model.hessian(theta, reml)
    np.testing.assert_allclose(hessian, hessian.T)


def test_no_gradient_where_a_correlation_ends() -> None:
    model = Model("y ~ x + ar1(0 + factor(t) | s)", rows())
    assert np.isfinite(model.criterion([0.8, 1.0]))
    with pytest.raises(OptionError, match="no derivative by the correlation of ar1"):
        model.gradient([0.8, 1.0])
    assert np.isfinite(model.gradient([0.0, 0.3])).all()


@pytest.mark.parametrize(
    ("kind", "theta", "message"),
    [
        ("ar1", [1.0, 1.2], "lies between -1 and 1, got 1.2"),
        ("homcs", [1.0, -0.3], "between -0.25 and 1, got -0.3"),
        ("cs", [1.0, 1.0, -1.0, 1.0, 1.0, 0.1], "cannot be negative, got -1"),
        ("homdiag", [-0.5], "cannot be negative"),
        ("hetar1", [1.0], "6 finite covariance parameters"),
    ],
)
def test_theta_out_of_range(kind: str, theta: list[float], message: str) -> None:
    model = Model(f"y ~ x + {kind}(0 + factor(t) | s)", rows())
    with pytest.raises(OptionError, match=message):
        model.criterion(theta)
    with pytest.raises(OptionError, match=message):
        model.fit(start=theta)


def test_satterthwaite_degrees_of_freedom_of_the_twin() -> None:
    fit = Model("y ~ x + (1 | rater) + ar1(0 + factor(t) | s)", rows()).fit()
    at = np.r_[fit.theta, np.log(fit.sigma)]
    order = [t.structure for t in fit.design.terms]

    def twin(v: Array) -> dense.Twin:
        covs, k = [], 0
        for kind, term in zip(order, fit.design.terms, strict=True):
            size = 2 if kind == "ar1" else 1
            theta, k = v[k : k + size], k + size
            covs.append(dense.covariance(kind, len(term.names), theta) if size == 2 else np.array([[theta[0] ** 2]]))
        return dense.twin(fit.design, covs)

    def both(v: Array) -> tuple[float, Array]:
        one, s2 = twin(v), np.exp(2 * v[-1])
        return one.criterion(True, np.sqrt(s2)), np.diag(one.moments()[1]) * s2

    h = 3e-4 * np.eye(len(at))
    grads = np.array([(both(at + e)[1] - both(at - e)[1]) / 6e-4 for e in h])
    hessian = np.array(
        [[sum(both(at + a * e + b * f)[0] * a * b for a in (1, -1) for b in (1, -1)) / 3.6e-7 for f in h] for e in h]
    )
    v = both(at)[1]
    df = 2 * v**2 / np.einsum("ip,ij,jp->p", grads, 2 * np.linalg.inv(hessian), grads)
    np.testing.assert_allclose(fit.fixef()["df"], df, rtol=1e-4)


# -- a structure that contains another -----------------------------------------------------------------------

T = "(0 + factor(t) | s)"
NESTS: list[tuple[str, list[float], str, list[float]]] = [
    (f"homcs{T}", [0.7, 0.0], f"homdiag{T}", [0.7]),
    (f"ar1{T}", [0.7, 0.0], f"homdiag{T}", [0.7]),
    (f"cs{T}", [0.7] * 5 + [0.3], f"homcs{T}", [0.7, 0.3]),
    (f"hetar1{T}", [0.7] * 5 + [0.3], f"ar1{T}", [0.7, 0.3]),
    (f"cs{T}", [0.7, 0.8, 0.9, 1.0, 1.1, 0.0], f"diag{T}", [0.7, 0.8, 0.9, 1.0, 1.1]),
    (f"hetar1{T}", [0.7, 0.8, 0.9, 1.0, 1.1, 0.0], f"diag{T}", [0.7, 0.8, 0.9, 1.0, 1.1]),
    (f"homcs{T}", [0.7, 1.0], "(1 | s)", [0.7]),
    (f"ar1{T}", [0.7, 1.0], "(1 | s)", [0.7]),
    (f"homcs{T}", [np.sqrt(0.85), 0.36 / 0.85], f"homdiag{T} + (1 | s)", [0.7, 0.6]),
]


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("case", NESTS, ids=str)
def test_the_larger_structure_holds_the_smaller(case: tuple[str, list[float], str, list[float]], reml: bool) -> None:
    larger, smaller = (Model(f"y ~ x + (1 | rater) + {case[i]}", rows()) for i in (0, 2))

    def theta(model: Model, own: Any) -> Array:
        groups = [t.group for t in model.design.terms]
        if len(groups) == 3:  # the term with one effect per visit, then the intercept
            sds = {"rater": 0.4, "homdiag": own[0], "us": own[1]}
            kinds = [t.structure if t.group == "s" else t.group for t in model.design.terms]
            return np.array([sds[kind] for kind in kinds])
        return np.r_[0.4, own] if groups[0] == "rater" else np.r_[own, 0.4]

    np.testing.assert_allclose(
        larger.criterion(theta(larger, case[1]), reml), smaller.criterion(theta(smaller, case[3]), reml), rtol=1e-12
    )
    assert quiet(larger, reml).criterion <= quiet(smaller, reml).criterion + 1e-8


@pytest.mark.parametrize("reml", [True, False])
def test_two_effects_have_one_correlation_under_any_name(reml: bool) -> None:
    two = rows()[rows()["t"] < 2]
    best = {kind: quiet(Model(f"y ~ x + {kind}(0 + factor(t) | s)", two), reml) for kind in (*KINDS, "us")}
    for kind in ("cs", "hetar1"):
        np.testing.assert_allclose(best[kind].criterion, best["us"].criterion, rtol=1e-10)
        np.testing.assert_allclose(best[kind].random_cov()[0], best["us"].random_cov()[0], atol=1e-5)
        np.testing.assert_allclose(best[kind].fixef()["df"], best["us"].fixef()["df"], rtol=1e-4)
    np.testing.assert_allclose(best["ar1"].criterion, best["homcs"].criterion, rtol=1e-11)
    np.testing.assert_allclose(best["ar1"].theta, best["homcs"].theta, rtol=1e-5)
    assert best["homcs"].criterion <= best["homdiag"].criterion + 1e-9


def test_positive_compound_symmetry_is_an_intercept_beside_equal_variances() -> None:
    one = Model("y ~ x + homcs(0 + factor(t) | s)", rows()).fit()
    other = Model("y ~ x + (1 | s) + homdiag(0 + factor(t) | s)", rows()).fit()
    assert one.theta[1] > 0
    np.testing.assert_allclose(one.criterion, other.criterion, rtol=1e-11)
    np.testing.assert_allclose(one.fixef()["df"], other.fixef()["df"], rtol=1e-5)


# -- boundaries ----------------------------------------------------------------------------------------------


def visits(seed: int, effects: Callable[[np.random.Generator], Array], noise: float = 1.0, k: int = 4) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    b = effects(rng)
    groups = len(b)
    d = pd.DataFrame({"g": np.repeat(np.arange(groups), 2 * k), "t": np.tile(np.repeat(np.arange(k), 2), groups)})
    d["x"] = rng.normal(size=len(d))
    d["y"] = b[d["g"], d["t"]] + noise * rng.normal(size=len(d))
    return d


@pytest.mark.parametrize("kind", KINDS)
def test_no_variance_at_all(kind: str) -> None:
    """Negatively correlated replicates: the variance between cells is exactly zero, and said to be."""
    d = visits(1, lambda rng: np.zeros((12, 4)))
    d["y"] = np.where(np.arange(len(d)) % 2 == 0, 1.0, -1.0) + 0.1 * d["y"]
    with pytest.warns(ml.SingularFitWarning):
        fit = Model(f"y ~ x + {kind}(0 + factor(t) | g)", d).fit()
    assert fit.convergence.converged
    assert fit.is_singular
    np.testing.assert_array_equal(fit.random_cov()[0], 0)
    assert "sd(g, " in fit.convergence.sentence
    plain = Model("y ~ x", d).fit()
    np.testing.assert_allclose(fit.criterion, plain.criterion, rtol=1e-12)
    np.testing.assert_allclose(fit.fixef()["df"], plain.fixef()["df"], rtol=1e-8)


@pytest.mark.parametrize(("kind", "rho"), [("homcs", 1.0), ("cs", 1.0), ("ar1", 1.0), ("hetar1", 1.0)])
def test_a_correlation_of_one(kind: str, rho: float) -> None:
    d = visits(3, lambda rng: 2 * np.repeat(rng.normal(size=(25, 1)), 4, axis=1))
    cells = d.groupby(["g", "t"])["y"].transform("mean") - d.groupby("g")["y"].transform("mean")
    d["y"] = d["y"] - cells  # cells differ less than noise makes them: no second variance component is left
    fit = quiet(Model(f"y ~ x + {kind}(0 + factor(t) | g)", d))
    assert fit.convergence.converged
    np.testing.assert_allclose(fit.theta[-1], rho, atol=1e-9)
    assert f"cor(g, {kind}) = 1" in fit.convergence.sentence
    if kind in ("homcs", "ar1"):
        np.testing.assert_allclose(fit.criterion, Model("y ~ x + (1 | g)", d).fit().criterion, rtol=1e-10)


@pytest.mark.parametrize("kind", ["homcs", "cs"])
def test_the_least_correlation_of_compound_symmetry(kind: str) -> None:
    """Effects that sum to zero within each group: rho = -1/(k - 1)."""
    d = visits(4, lambda rng: (lambda b: 2 * (b - b.mean(axis=1, keepdims=True)))(rng.normal(size=(40, 4))), 0.5)
    d["y"] = d["y"] - d.groupby("g")["y"].transform("mean")
    fit = quiet(Model(f"y ~ x + {kind}(0 + factor(t) | g)", d))
    assert fit.convergence.converged
    np.testing.assert_allclose(fit.theta[-1], -1 / 3, atol=1e-9)
    assert f"cor(g, {kind}) = -0.3333" in fit.convergence.sentence
    dense.check_against(fit, dense.of_fit(fit), 1e-8)


@pytest.mark.parametrize("kind", ["ar1", "hetar1"])
def test_a_serial_correlation_of_minus_one(kind: str) -> None:
    signs = np.array([1.0, -1.0, 1.0, -1.0])
    d = visits(5, lambda rng: 2 * rng.normal(size=(25, 1)) * signs)
    rest = d["y"] - signs[d["t"]] * (d["y"] * signs[d["t"]]).groupby(d["g"]).transform("mean")
    cells = rest.groupby([d["g"], d["t"]]).transform("mean")
    d["y"] = d["y"] - cells
    fit = quiet(Model(f"y ~ x + {kind}(0 + factor(t) | g)", d))
    assert fit.convergence.converged
    np.testing.assert_allclose(fit.theta[-1], -1, atol=1e-9)
    assert f"cor(g, {kind}) = -1" in fit.convergence.sentence


@pytest.mark.parametrize("kind", ["cs", "hetar1"])
def test_one_effect_without_variance_between_two_with(kind: str) -> None:
    """The correlation of the others stays known, in theta as in the covariance."""
    base = np.array([[1.0, 0.0, 0.6], [0.0, 0.0, 0.0], [0.6, 0.0, 1.0]])
    d = visits(6, lambda rng: 2 * rng.multivariate_normal(np.zeros(3), base, 60), k=3)
    middle = d["t"] == 1
    d.loc[middle, "y"] = np.where(np.arange(middle.sum()) % 2 == 0, 1.0, -1.0) + 0.01 * d.loc[middle, "y"]
    fit = quiet(Model(f"y ~ 0 + factor(t) + {kind}(0 + factor(t) | g)", d))
    assert fit.convergence.converged
    assert fit.theta[1] < 1e-3
    assert abs(fit.theta[-1]) > 0.2
    cov = fit.random_cov()[0] / fit.sigma**2
    np.testing.assert_allclose(cov, dense.covariance(kind, 3, fit.theta), atol=1e-9)
    again = quiet(Model(f"y ~ 0 + factor(t) + {kind}(0 + factor(t) | g)", d), start=fit.theta)
    np.testing.assert_allclose(again.criterion, fit.criterion, rtol=1e-11)
    dense.check_against(fit, dense.of_fit(fit), 1e-8)


def _shape(seed: int) -> tuple[str, pd.DataFrame, int]:
    """A simulated set: small groups, weak or strong effects, missing cells, sometimes no effects at all."""
    rng = np.random.default_rng(seed)
    kind = KINDS[seed % 5]
    k, groups = int(rng.integers(2, 5)), int(rng.integers(5, 14))
    reps = int(rng.integers(2, 4))
    d = pd.DataFrame({"g": np.repeat(np.arange(groups), k * reps), "t": np.tile(np.repeat(np.arange(k), reps), groups)})
    d["x"] = rng.normal(size=len(d))
    root = np.linalg.cholesky(dense.covariance("ar1", k, np.array([1.0, rng.uniform(-0.95, 0.95)])) + 1e-12 * np.eye(k))
    size = rng.choice([0.0, 0.2, 0.7, 2.0])
    effects = size * rng.normal(size=(groups, k)) @ root.T * rng.uniform(0.3, 1.5, k)
    d["y"] = effects[d["g"], d["t"]] + rng.normal(size=len(d))
    d = d[rng.random(len(d)) > 0.15].reset_index(drop=True)
    return f"y ~ x + {kind}(0 + factor(t) | g)", d, k


def _dense_best(fit: Fit, kind: str, k: int, starts: int) -> float:
    """Least criterion a slow search over the dense likelihood finds from many starts."""
    z = dense.indicator(fit.design.terms[0].codes, fit.design.terms[0].Z, len(fit.design.terms[0].levels))
    y, X, groups = fit.design.y, fit.design.X, len(fit.design.terms[0].levels)
    sds = k if kind in ("cs", "hetar1") else 1
    low = -1 / (k - 1) if kind in ("cs", "homcs") else -1.0

    def value(v: Array) -> float:
        theta = np.abs(v[:sds])
        if kind != "homdiag":
            theta = np.r_[theta, low + (1 - low) * (np.sin(v[sds]) + 1) / 2]
        cov = dense.covariance(kind, k, theta)
        V = np.eye(len(y)) + z @ np.kron(np.eye(groups), cov) @ z.T
        root = np.linalg.cholesky(V)
        white = np.linalg.solve(root, np.column_stack([X, y]))
        q, r = np.linalg.qr(white[:, :-1])
        rest = white[:, -1] - q @ (q.T @ white[:, -1])
        df = len(y) - X.shape[1]
        out = 2 * np.log(np.diag(root)).sum() + 2 * np.log(np.abs(np.diag(r))).sum()
        return float(out + df * (1 + np.log(2 * np.pi * (rest @ rest) / df)))

    rng = np.random.default_rng(0)
    best = np.inf
    for _ in range(starts):
        start = np.r_[rng.uniform(0, 1.5, sds), rng.uniform(-1.5, 1.5, 0 if kind == "homdiag" else 1)]
        found = minimize(value, start, method="BFGS", options={"gtol": 1e-6})
        best = min(best, float(found.fun))
    return best


@pytest.mark.parametrize("seed", range(60))
def test_no_slow_search_finds_anything_better(seed: int) -> None:
    formula, data, k = _shape(seed)
    fit = quiet(Model(formula, data))
    assert fit.convergence.converged, fit.convergence
    assert fit.criterion <= _dense_best(fit, KINDS[seed % 5], k, 4) + 1e-6
