"""Generalised models with covariance structures and known covariances of levels: glmmTMB, brute force and equivalences."""

from __future__ import annotations

import json
import re
import warnings
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dense_structures import covariance
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import gammaln

import multilevel as ml
from multilevel.covariance import Structure
from multilevel.generalised import GeneralisedFit
from multilevel.laplace_joint import Joint

Array = NDArray[np.float64]
FITS = {
    f["label"]: f for f in json.loads((Path(__file__).parent / "golden_glmm" / "structures.json").read_text())["fits"]
}
EPILEPSY = "count ~ zAge + zBase * Trt + {}(0 + factor(visit) | patient)"


@cache
def data(formula: str) -> pd.DataFrame:
    """The bundled set of a formula, factors with levels in R's order."""
    name = {"count ~ z": "epilepsy", "cbind(in": "cbpp", "r2 ~ Ang": "verbagg", "Sibling": "owls"}
    found = next((value for key, value in name.items() if formula.startswith(key)), "salamanders")
    table = ml.load(found)
    for column in table:
        if column in ("period", "visit", "sample"):
            table[column] = table[column].astype(int)
        elif not pd.api.types.is_numeric_dtype(table[column]):
            table[column] = table[column].astype(str)
    if found == "salamanders":
        table["count01"] = (table["count"] > 0).astype(float)
    return table


@cache
def fitted(label: str) -> GeneralisedFit:
    ref = FITS[label]
    formula = ref["formula"].replace("~ period", "~ factor(period)")
    options = {"zi": "~ mined"} if label.startswith("inflated") else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = ml.Model(formula, data(formula), family=ref["family"], **options).fit(threads=1)
    assert isinstance(fit, GeneralisedFit)
    return fit


def theirs(name: str) -> str:
    """A coefficient's name in R."""
    name = re.sub(r"factor\((\w+)\)", r"\1", name.replace("Intercept", "(Intercept)"))
    return re.sub(r"\[(?:T\.)?([^\]]*)\]", r"\1", name)


# -- glmmTMB ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", list(FITS))
def test_glmmTMB(label: str) -> None:
    fit, ref = fitted(label), FITS[label]
    assert fit.convergence.converged, fit.convergence
    assert fit.loglik > ref["loglik"] - 1e-7
    assert fit.npar == ref["npar"]
    if label not in BOUNDARY:  # glmmTMB stops before correlations of one
        assert fit.loglik < ref["loglik"] + 1e-6
    at = [[theirs(n) for n in fit.design.names].index(name) for name in ref["names"]]
    error = np.sqrt(np.diag(fit.optimum.vcov))[at]
    tolerance = 1e-3 if label in BOUNDARY else 1e-4
    np.testing.assert_allclose(fit.optimum.beta[at] / error, np.array(ref["estimate"]) / error, atol=tolerance, rtol=0)
    if label not in BOUNDARY and "NaN" not in ref["std_error"]:
        np.testing.assert_allclose(error, ref["std_error"], rtol=1e-3 if "inflated" in label else 1e-4)
    for random in ref["random"]:
        cov = next(c for c in fit.random_cov() if len(c) == np.size(random["sd"]))
        sd = np.sqrt(np.diag(cov))
        np.testing.assert_allclose(sd, np.ravel(random["sd"]), rtol=1e-4, atol=2e-5)
        if sd.min() > 1e-3 and label not in BOUNDARY:
            np.testing.assert_allclose(cov / np.outer(sd, sd), np.atleast_2d(random["corr"]), atol=1e-4)


BOUNDARY = ("binomial_ar1", "nbinom2_ar1", "nbinom2_cs", "nbinom2_homcs")


@pytest.mark.parametrize("label", BOUNDARY)
def test_correlations_of_one_are_reached_and_said(label: str) -> None:
    fit = fitted(label)
    assert fit.is_singular
    assert "cor(site" in fit.convergence.sentence


def test_a_vanished_sd_is_on_the_boundary() -> None:
    fit = fitted("binomial_few_cs")
    assert fit.convergence.boundary == ("sd(herd, factor(period)[4]) = 0",)


def test_a_structure_without_variance_is_the_model_without_it() -> None:
    y, t = np.tile([[0.0, 1.0, 2.0, 1.0], [1, 2, 3, 4]], 20)
    d = pd.DataFrame({"y": y, "t": t.astype(int), "g": np.repeat(np.arange(20), 4)})
    with pytest.warns(ml.SingularFitWarning):
        fit = ml.Model("y ~ 1 + ar1(0 + factor(t) | g)", d, family="poisson").fit()
    assert fit.loglik == pytest.approx(float(np.sum(y * np.log(y.mean()) - y.mean() - gammaln(y + 1))), abs=1e-9)
    assert fit.convergence.boundary == ("sd(g, ar1) = 0",)
    assert fit.convergence.converged


# -- derivatives --------------------------------------------------------------------------------------------------------

DERIVATIVES = [
    *product(("ar1", "hetar1", "cs", "homcs", "homdiag"), ("poisson",), (1,)),
    *product(("ar1", "cs"), ("nbinom2", "gamma"), (1,)),
    *product(("hetar1", "cs", "homcs"), ("poisson", "nbinom2"), (5,)),
]


@pytest.mark.parametrize(("structure", "family", "nodes"), DERIVATIVES)
def test_derivative_of_the_structured_objective(structure: str, family: str, nodes: int) -> None:
    d = data("count ~ z").assign(count=lambda t: t["count"] + (0.5 if family == "gamma" else 0))
    d = d.assign(visit=np.minimum(d["visit"], 3))
    extra = "" if nodes > 1 else " + (1 | Base)"
    options: dict[str, Any] = {"zi": "~ Trt"} if family == "nbinom2" else {}
    engine = ml.Model(EPILEPSY.format(structure) + extra, d, family=family, **options).with_quadrature(nodes).laplace(1)
    state = engine.state()
    s = engine.terms.spans[0].structure
    a = s.coordinates(np.r_[np.linspace(0.5, 0.9, s.n_sd), [0.4] if s.correlated else []])
    lambdas = engine.terms.put([0.6 * np.eye(g.k) for g in engine.groups], a)
    joint = Joint(engine, state, lambdas, np.r_[engine._first_beta(), engine.coefficients.start + 0.1], a)
    exact = joint.gradient(np.zeros(joint.size))
    assert exact is not None
    assert joint.size == len(joint.directions) + s.n_coordinates + len(joint.plain)
    steps = 1e-4 * np.eye(joint.size)
    value = [[2 * joint.evaluate(k * step, False)[0] for k in (1, -1, 2, -2)] for step in steps]
    four = np.array([(8 * (v[0] - v[1]) - (v[2] - v[3])) / 12e-4 for v in value])
    np.testing.assert_allclose(exact, four, atol=3e-8 * np.abs(exact).max())


# -- equivalences -------------------------------------------------------------------------------------------------------


def same(one: Any, other: Any, tolerance: float = 1e-8) -> None:
    assert one.convergence.converged
    assert other.convergence.converged
    assert one.loglik == pytest.approx(other.loglik, abs=tolerance)
    np.testing.assert_allclose(one.optimum.beta, other.optimum.beta, atol=1e-6)
    np.testing.assert_allclose(one.optimum.vcov, other.optimum.vcov, rtol=1e-4, atol=1e-10)


def owls(term: str, family: str = "poisson") -> Any:
    formula = "SiblingNegotiation ~ FoodTreatment + offset(log(BroodSize)) + "
    levels = {"FoodTreatment": ["Deprived", "Satiated"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ml.SingularFitWarning)  # with nbinom2 the correlation is one
        return ml.Model(formula + term, data("Sibling"), family=family, levels=levels).fit()


def test_homdiag_of_one_column_is_a_random_intercept() -> None:
    same(owls("homdiag(1 | Nest)"), owls("(1 | Nest)"))


@pytest.mark.parametrize("structure", ["cs", "hetar1"])
@pytest.mark.parametrize("family", ["poisson", "nbinom2"])
def test_two_effects_with_one_correlation_are_unstructured(structure: str, family: str) -> None:
    one, other = owls(f"{structure}(0 + FoodTreatment | Nest)", family), owls("(0 + FoodTreatment | Nest)", family)
    same(one, other)
    np.testing.assert_allclose(one.random_cov()[0], other.random_cov()[0], rtol=1e-5)
    np.testing.assert_allclose(one.ranef()["estimate"], other.ranef()["estimate"], atol=1e-5)


def test_homcs_is_two_intercepts() -> None:
    d = data("count ~ z")
    one = ml.Model(EPILEPSY.format("homcs"), d, family="poisson").fit()
    other = ml.Model("count ~ zAge + zBase * Trt + (1 | patient) + (1 | patient:visit)", d, family="poisson").fit()
    same(one, other)


def test_quadrature_of_two_effects_with_one_correlation_is_unstructured() -> None:
    formula = "count ~ zAge + {}(0 + half | patient)"
    d = data("count ~ z").assign(half=lambda t: np.where(t["visit"] < 3, "a", "b"))
    fits = [ml.Model(formula.format(s), d, family="poisson").fit(quadrature=7) for s in ("cs", "us")]
    same(*fits)
    assert abs(fits[0].loglik - ml.Model(formula.format("cs"), d, family="poisson").fit().loglik) > 0.01


def test_quick_start_of_two_effects_with_one_correlation_is_unstructured() -> None:
    formula = "count ~ zAge + {}(0 + half | patient)"
    d = data("count ~ z").assign(half=lambda t: np.where(t["visit"] < 3, "a", "b"))
    one, other = (ml.Model(formula.format(s), d, family="poisson").fit(quadrature=0) for s in ("cs", "us"))
    assert one.loglik == pytest.approx(other.loglik, abs=1e-7)


def test_rows_and_terms_in_any_order() -> None:
    d = data("count ~ z")
    first = "count ~ zAge + ar1(0 + factor(visit) | patient) + (1 | Base)"
    second = "count ~ zAge + (1 | Base) + ar1(0 + factor(visit) | patient)"
    mixed = d.sample(frac=1, random_state=5)
    mixed["patient"] = mixed["patient"].map({p: f"{(int(p) * 37) % 101:03d}" for p in mixed["patient"].unique()})
    same(ml.Model(first, d, family="poisson").fit(), ml.Model(second, mixed, family="poisson").fit())


def test_ordinal_and_start() -> None:
    wine = ml.load("wine")
    wine["rating"] = pd.Categorical(wine["rating"], ordered=True)
    one = ml.Model("rating ~ contact + cs(0 + temp | judge)", wine, family="ordinal").fit()
    other = ml.Model("rating ~ contact + (0 + temp | judge)", wine, family="ordinal").fit()
    assert one.loglik == pytest.approx(other.loglik, abs=1e-7)
    again = one.model.fit(start=one.optimum.theta)
    assert again.loglik == pytest.approx(one.loglik, abs=1e-8)
    np.testing.assert_allclose(again.optimum.theta, one.optimum.theta, atol=1e-5)


# -- brute force --------------------------------------------------------------------------------------------------------


def laplace(y: Array, x: Array, z: Array, cov: Array, beta: Array) -> tuple[float, Array]:
    """Log-likelihood of Poisson counts by Laplace's approximation, and the modes, from the definition."""
    precision, b = np.linalg.inv(cov), np.zeros(len(cov))
    for _ in range(100):
        mu = np.exp(x @ beta + z @ b)
        hessian = z.T @ (mu[:, None] * z) + precision
        slope = z.T @ (y - mu) - precision @ b
        move = np.linalg.solve(hessian, slope)
        b = b + move
        if slope @ move < 1e-22:
            break
    eta = x @ beta + z @ b
    value = np.sum(y * eta - np.exp(eta) - gammaln(y + 1)) - b @ precision @ b / 2
    return float(value - np.linalg.slogdet(cov)[1] / 2 - np.linalg.slogdet(hessian)[1] / 2), b


def indicator(codes: NDArray[Any], levels: int) -> Array:
    out = np.zeros((len(codes), levels))
    out[np.arange(len(codes)), codes] = 1
    return out


@pytest.mark.parametrize("kind", ["ar1", "hetar1", "cs", "homcs", "homdiag"])
def test_structures_by_brute_force(kind: str) -> None:
    rng = np.random.default_rng(8)
    d = pd.DataFrame({"g": np.repeat(np.arange(12), 9), "t": np.tile(np.repeat([1, 2, 3], 3), 12)})
    d["x"] = rng.standard_normal(len(d))
    root = np.linalg.cholesky(covariance("ar1", 3, np.array([0.8, 0.5])))
    b = rng.standard_normal((12, 3)) @ root.T
    d["y"] = rng.poisson(np.exp(0.5 + 0.3 * d["x"] + b[d["g"], d["t"] - 1]))
    fit = ml.Model(f"y ~ x + {kind}(0 + factor(t) | g)", d, family="poisson").fit()
    z = indicator((d["g"] * 3 + d["t"] - 1).to_numpy(), 36)
    x, y = np.column_stack([np.ones(len(d)), d["x"]]), d["y"].to_numpy()

    def loglik(values: Array) -> float:
        return laplace(y, x, z, np.kron(np.eye(12), covariance(kind, 3, values[2:])), values[:2])[0]

    best = np.r_[fit.optimum.beta, fit.optimum.theta]
    assert loglik(best) == pytest.approx(fit.loglik, abs=1e-9)
    slopes = [(loglik(best + s) - loglik(best - s)) / 2e-4 for s in 1e-4 * np.eye(len(best))]
    np.testing.assert_allclose(slopes, 0, atol=2e-5)
    s = Structure(kind, 3)
    for _ in range(40):  # and nothing far away is better
        away = np.r_[rng.normal(0, 1, 2), rng.uniform(0.05, 1.5, s.n_sd), [rng.uniform(-0.4, 0.95)] if s.correlated else []]
        assert loglik(away) < fit.loglik


# -- known covariances --------------------------------------------------------------------------------------------------


def family_tree(n: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows: list[tuple[str, str | None, str | None]] = [(f"a{i}", None, None) for i in range(8)]
    for i in range(8, n):
        sire, dam = rng.choice(i, 2, replace=False)
        rows.append((f"a{i}", f"a{sire}", f"a{dam}"))
    return pd.DataFrame(rows, columns=["animal", "sire", "dam"])


@cache
def animals() -> tuple[pd.DataFrame, Any, Array]:
    """Counts of relatives, their pedigree, and the dense relationship matrix in its order."""
    rng = np.random.default_rng(3)
    known = ml.pedigree(family_tree(30, 2))
    a = np.linalg.inv(known.precision.toarray())
    b = 0.8 * np.linalg.cholesky(a) @ rng.standard_normal(30)
    code, herd, x = rng.integers(0, 26, 160), rng.integers(0, 6, 160), rng.standard_normal(160)
    y = rng.poisson(np.exp(0.5 + 0.3 * x + b[code] + 0.4 * rng.standard_normal(6)[herd]))
    d = pd.DataFrame({"y": y, "x": x, "animal": known.levels[code], "herd": herd.astype(str), "code": code})
    return d, known, a


def test_known_covariance_by_brute_force() -> None:
    d, known, a = animals()
    fit = ml.Model("y ~ x + (1 | animal)", d, family="poisson", covariance={"animal": known}).fit()
    x, y, z = np.column_stack([np.ones(160), d["x"]]), d["y"].to_numpy(), indicator(d["code"].to_numpy(), 30)

    def minus(values: Array) -> float:
        return -laplace(y, x, z, values[2] ** 2 * a, values[:2])[0]

    options = {"xatol": 1e-8, "fatol": 1e-11, "maxiter": 2000}
    found = minimize(minus, [0.4, 0.2, 0.7], method="Nelder-Mead", options=options)
    assert fit.convergence.converged
    assert fit.loglik == pytest.approx(-found.fun, abs=1e-9)
    np.testing.assert_allclose(np.r_[fit.optimum.beta, fit.optimum.theta], found.x, atol=1e-6)
    modes = laplace(y, x, z, fit.optimum.theta[0] ** 2 * a, fit.optimum.beta)[1]
    np.testing.assert_allclose(fit.optimum.b[0][:, 0], modes, atol=1e-9)  # of levels without rows too


def test_known_covariance_dense_and_in_any_order() -> None:
    d, known, a = animals()
    order = np.random.default_rng(1).permutation(30)
    dense = ml.KnownCovariance(known.levels[order], covariance=a[np.ix_(order, order)])
    mixed = d.sample(frac=1, random_state=2)
    formula = "y ~ x + (1 | herd) + (1 | animal)"
    one = ml.Model(formula, d, family="poisson", covariance={"animal": known}).fit()
    same(one, ml.Model(formula, mixed, family="poisson", covariance={"animal": dense}).fit())


def test_known_covariance_of_unrelated_levels() -> None:
    d, known, _ = animals()
    unrelated = ml.pedigree(pd.DataFrame({"animal": known.levels, "sire": None, "dam": None}))
    for family, term in (("poisson", "(1 | animal)"), ("nbinom2", "(x | animal)"), ("poisson", "cs(x | animal)")):
        formula = f"y ~ x + {term}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a correlation or the size may run to its end
            one = ml.Model(formula, d, family=family, covariance={"animal": unrelated}).fit()
            other = ml.Model(formula, d, family=family).fit()
        assert one.loglik == pytest.approx(other.loglik, abs=1e-7)
        np.testing.assert_allclose(one.optimum.beta, other.optimum.beta, atol=1e-5)


@pytest.mark.parametrize(("family", "dense"), list(product(("poisson", "nbinom2", "binomial"), (False, True))))
def test_derivative_with_a_known_covariance(family: str, dense: bool) -> None:
    d, known, a = animals()
    if family == "binomial":
        d = d.assign(y=(d["y"] > 1).astype(int))
    given = ml.KnownCovariance(known.levels, covariance=a) if dense else known
    formula = "y ~ x + (x | animal) + (1 | herd)"
    engine = ml.Model(formula, d, family=family, covariance={"animal": given}).laplace(1)
    lambdas = [0.5 * np.eye(g.k) + 0.2 * np.tri(g.k, k=-1) for g in engine.groups]
    joint = Joint(engine, engine.state(), lambdas, np.r_[engine._first_beta(), engine.coefficients.start])
    exact = joint.gradient(np.zeros(joint.size))
    assert exact is not None
    value = [[2 * joint.evaluate(k * step, False)[0] for k in (1, -1, 2, -2)] for step in 1e-4 * np.eye(joint.size)]
    four = np.array([(8 * (v[0] - v[1]) - (v[2] - v[3])) / 12e-4 for v in value])
    np.testing.assert_allclose(exact, four, atol=3e-8 * np.abs(exact).max())


def test_known_covariance_refuses_quadrature() -> None:
    d, known, _ = animals()
    model = ml.Model("y ~ x + (1 | animal)", d, family="poisson", covariance={"animal": known})
    with pytest.raises(ml.OptionError, match="independent"):
        model.fit(quadrature=5)
    quick, full = model.fit(quadrature=0), model.fit()
    assert full.loglik - 0.5 < quick.loglik <= full.loglik + 1e-9


def test_known_covariance_draws_relatives_together() -> None:
    from multilevel.generalised_predict import draw_predictors

    d, known, a = animals()
    fit: Any = ml.Model("y ~ x + (1 | animal)", d, family="poisson", covariance={"animal": known}).fit()
    rng = np.random.default_rng(4)
    first = [int(np.flatnonzero(d["code"] == j)[0]) for j in range(20) if (d["code"] == j).any()]
    code = d["code"].to_numpy()[first]
    draws = np.array([draw_predictors(fit, [], rng)[first] for _ in range(4000)]) / fit.optimum.theta[0]
    expected = a[np.ix_(code, code)]
    error = np.sqrt((expected**2 + np.outer(np.diag(expected), np.diag(expected))) / 4000)
    assert np.abs((np.cov(draws.T) - expected) / error).max() < 5


# -- downstream ---------------------------------------------------------------------------------------------------------


def test_verbs_of_a_structured_fit(tmp_path: Path) -> None:
    fit, d = fitted("poisson_ar1"), data("count ~ z")
    assert "ar1(), correlation 0.699**lag" in fit.summary()
    assert fit.npar == 7
    table = fit.ranef()
    assert len(table["estimate"]) == 4 * 59
    sims = fit.simulate(200, seed=1)
    wide = np.array([sims[c] for c in sims]).reshape(200, -1)
    assert wide.mean() == pytest.approx(fit.predict(marginal=True)["prediction"].mean(), rel=0.05)
    new = fit.predict(d.head(3), interval="confidence")
    assert np.isfinite(np.asarray(new)).all()
    fit.save(tmp_path / "small.mlv")
    small = ml.read(tmp_path / "small.mlv")
    np.testing.assert_array_equal(small.optimum.theta, fit.optimum.theta)
    np.testing.assert_allclose(np.asarray(small.predict(d.head(3), interval="confidence")), np.asarray(new))
    fit.save(tmp_path / "all.mlv", data=True)
    again = ml.read(tmp_path / "all.mlv")
    assert again.summary() == fit.summary()
    assert again.model.fit().loglik == pytest.approx(fit.loglik, abs=1e-9)
    share = fit.icc()
    assert 0 < float(share["estimate"][0]) < 1
    assert fit.check() is not None


def test_verbs_of_a_fit_with_known_covariance(tmp_path: Path) -> None:
    d, known, _ = animals()
    fit = ml.Model("y ~ x + (1 | animal)", d, family="poisson", covariance={"animal": known}).fit()
    assert "known covariance" in fit.summary()
    new = np.asarray(fit.predict(d.head(3), interval="confidence"))
    fit.save(tmp_path / "all.mlv", data=True)
    again = ml.read(tmp_path / "all.mlv")
    np.testing.assert_allclose(np.asarray(again.predict(d.head(3), interval="confidence")), new)
    assert again.model.fit().loglik == pytest.approx(fit.loglik, abs=1e-9)
    assert again.simulate(1, seed=3)["sim_1"].tolist() == fit.simulate(1, seed=3)["sim_1"].tolist()
    assert np.isfinite(np.asarray(fit.ranef()["estimate"])).all()
    assert len(fit.ranef()["estimate"]) == 30


def test_few_effects_limit_of_quadrature_is_said() -> None:
    with pytest.raises(ml.OptionError, match="at most 3 random effects"):
        ml.Model(EPILEPSY.format("ar1"), data("count ~ z"), family="poisson").fit(quadrature=5)
