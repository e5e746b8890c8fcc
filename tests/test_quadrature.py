"""Adaptive quadrature against brute-force integrals, differences and stored fits; the quick start against lme4."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.optimize import minimize
from scipy.special import logsumexp, roots_hermitenorm
from scipy.stats import binom, poisson
from test_families import FULL, label
from test_laplace import COMMON, LOGIT, POISSON, Problem, check_gradient

import multilevel as ml
from multilevel import OptionError, _core
from multilevel import design as designs
from multilevel import formula as formulas
from multilevel.families import Family, family_of
from multilevel.quadrature import QuadratureEngine, engine_for, rule, saturated

Array = NDArray[np.float64]
FOLDER = Path(__file__).parent / "golden_glmm"
SMOOTH = [family for family in COMMON if family.link != "sqrt"]  # whose density exists at every linear predictor
CBPP = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
EPILEPSY = "count ~ zAge + zBase * Trt + (1 | patient)"


def state_of(problem: Problem, nodes: int, threads: int = 1) -> Any:
    state = problem.state(threads)
    state.set_quadrature(*rule(nodes))
    return state


def prepare(formula: str, data: Any, family: str, link: str | None = None) -> tuple[Any, Any]:
    found = family_of(family, link, "none")
    return designs.build(formulas.parse(formula), data, family=found), found


def fitted(formula: str, data: Any, family: str, nodes: int, link: str | None = None) -> Any:
    return engine_for(*prepare(formula, data, family, link), nodes, 1).fit()[0]


# -- the rule ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nodes", [1, 2, 9, 40, 100])
def test_rule(nodes: int) -> None:
    at, log_weights = rule(nodes)
    wanted, weights = roots_hermitenorm(nodes)
    np.testing.assert_allclose(at, wanted, atol=1e-13)
    np.testing.assert_allclose(log_weights, np.log(weights / weights.sum()), atol=1e-11)  # the smallest ones, too
    moments = {2: 1.0, 4: 3.0, 6: 15.0}
    for power, moment in moments.items():
        if power < 2 * nodes:
            assert np.exp(log_weights) @ at**power == pytest.approx(moment, rel=1e-12)


# -- value ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["one", "slope"])
@pytest.mark.parametrize("family", FULL, ids=label)
def test_one_node_is_laplace(family: Family, shape: str) -> None:
    problem = Problem(family, shape)
    here = problem.beta, problem.lambdas, problem.params
    laplace, one = problem.state().evaluate(*here, True), state_of(problem, 1).evaluate(*here, True)
    assert one[0] == pytest.approx(laplace[0], rel=1e-14, abs=1e-13)
    np.testing.assert_allclose(one[1], laplace[1], atol=1e-10)
    np.testing.assert_allclose(one[2][0], laplace[2][0], atol=1e-10)
    for found, wanted in zip(one[3], laplace[3], strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-10)


def test_no_nodes_is_laplace_again() -> None:
    problem = Problem(POISSON, "one")
    here = problem.beta, problem.lambdas, problem.params
    state = state_of(problem, 7)
    more = state.evaluate(*here, False)[0]
    state.set_quadrature(np.empty(0), np.empty(0))
    laplace = problem.state().evaluate(*here, False)[0]
    assert state.evaluate(*here, False)[0] == pytest.approx(laplace, rel=1e-14)
    assert abs(more - laplace) > 1e-4


def level_density(problem: Problem, level: int, u: Array) -> Array:
    """(m,) log density of a level's rows at each of m effects u (m, k)."""
    rows = np.flatnonzero(problem.codes[0] == level)
    z = np.ones((len(rows), 1)) if problem.z[0] is None else problem.z[0][rows]
    eta = (problem.offset + problem.x @ problem.beta)[rows] + u @ problem.lambdas[0].T @ z.T
    first, second = [*(p[rows] for p in problem.params), np.zeros(len(rows)), np.zeros(len(rows))][:2]
    trials = np.ones(len(rows)) if problem.trials is None else problem.trials[rows]
    columns = [np.tile(v, len(u)) for v in (problem.y[rows], trials, first, second)]
    found = _core.log_densities(problem.family.kernel, columns[0], columns[1], eta.ravel(), columns[2], columns[3])[0][:, 0]
    return np.asarray(found.reshape(eta.shape) @ problem.weights[rows])


def brute(problem: Problem) -> float:
    """-log-likelihood: adaptive integration for one effect, a dense grid for two."""
    total = 0.0
    for level in range(problem.levels[0]):
        line = np.linspace(-7.5, 7.5, 121)
        k = problem.sizes[0]
        grid = np.stack(np.meshgrid(*[line] * k, indexing="ij"), axis=-1).reshape(-1, k)
        logs = level_density(problem, level, grid) - (grid**2).sum(axis=1) / 2 - k / 2 * np.log(2 * np.pi)
        if k == 2:
            total += float(logsumexp(logs)) + k * np.log(line[1] - line[0])
            continue
        top, centre = float(logs.max()), float(line[np.argmax(logs)])

        def integrand(u: float, top: float = top, level: int = level) -> float:
            at = np.array([[u]])
            return float(np.exp(level_density(problem, level, at)[0] - u**2 / 2 - np.log(2 * np.pi) / 2 - top))

        total += top + np.log(quad(integrand, -12, 12, points=[centre], epsabs=0, epsrel=1e-11, limit=200)[0])
    return -total


@pytest.mark.parametrize("shape", ["one", "slope"])
@pytest.mark.parametrize("family", SMOOTH, ids=label)
def test_converges_to_the_integral(family: Family, shape: str) -> None:
    problem = Problem(family, shape)
    wanted = brute(problem)
    here = problem.beta, problem.lambdas, problem.params
    errors = [abs(state_of(problem, nodes).evaluate(*here, False)[0] - wanted) for nodes in (1, 5, 15, 45)]
    assert errors[-1] < 1e-8 * (1 + abs(wanted))
    floor = 1e-9 * (1 + abs(wanted))
    for more, fewer in zip(errors[1:], errors[:-1], strict=True):
        assert more <= max(0.5 * fewer, floor)
    if family.name != "gaussian":
        assert errors[0] > 1e-7


def test_three_effects_of_a_gaussian_model_are_exact() -> None:
    rng = np.random.default_rng(3)
    n, levels = 60, 6
    codes, z = rng.integers(0, levels, n).astype(np.int32), np.c_[np.ones(n), rng.normal(size=(n, 2))]
    x, y, root = np.ones((n, 1)), rng.normal(size=n), 0.5 * rng.normal(size=(3, 3))
    state = _core.GlmmState([codes], [z], [levels], x, y, None, None, None, (9, 0, 0, 0.0), 1)
    state.set_quadrature(*rule(4))
    found = state.evaluate(np.array([0.1]), [root], [np.full(n, -0.2)], False)[0]
    b = z @ root
    cov = np.exp(-0.4) * np.eye(n) + (b @ b.T) * (codes[:, None] == codes)
    r = y - 0.1
    assert found == pytest.approx((np.linalg.slogdet(2 * np.pi * cov)[1] + r @ np.linalg.solve(cov, r)) / 2, rel=1e-12)


def test_turned_factors_are_the_same_model() -> None:
    """Lambda Q with Q orthogonal has the covariance of Lambda: value the same, and the gradient turns along."""
    problem = Problem(POISSON, "slope")
    state, (lam,) = state_of(problem, 3), problem.lambdas
    value, by_beta, by_lambda, _ = state.evaluate(problem.beta, [lam], [], True)
    for angle in (0.3, 2.0):
        q = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        other = state.evaluate(problem.beta, [np.ascontiguousarray(lam @ q)], [], True)
        assert other[0] == pytest.approx(value, rel=1e-13)
        np.testing.assert_allclose(other[1], by_beta, rtol=1e-9)
        np.testing.assert_allclose(other[2][0], by_lambda[0] @ q, rtol=1e-8, atol=1e-9)


def test_equal_axes_have_a_finite_gradient() -> None:
    problem = Problem(POISSON, "slope")
    for factor in (0.5 * np.eye(2), np.zeros((2, 2)), np.array([[0.3, 0.4], [-0.4, 0.3]])):
        value, _, by_lambda, _ = state_of(problem, 3).evaluate(problem.beta, [factor], [], True)
        assert np.isfinite(value)
        assert np.isfinite(by_lambda[0]).all()


def test_several_factors_are_refused_by_the_core() -> None:
    with pytest.raises(ValueError, match="one grouping factor"):
        state_of(Problem(POISSON, "crossed"), 3)


@pytest.mark.parametrize("shape", ["one", "slope"])
def test_threads_and_order_of_rows_change_nothing(shape: str) -> None:
    problem = Problem(Family("nbinom2", "log"), shape, n=4000)
    here = problem.beta, problem.lambdas, problem.params
    one, three = (state_of(problem, 5, threads).evaluate(*here, True) for threads in (1, 3))
    assert one[0] == three[0]
    for found, wanted in ((one[1], three[1]), (one[2][0], three[2][0]), (one[3][0], three[3][0])):
        np.testing.assert_array_equal(found, wanted)
    order = np.random.default_rng(0).permutation(problem.n)
    for name in ("x", "y", "weights", "offset"):
        setattr(problem, name, np.ascontiguousarray(getattr(problem, name)[order]))
    problem.codes = [c[order] for c in problem.codes]
    problem.z = [None if z is None else z[order] for z in problem.z]
    moved = state_of(problem, 5).evaluate(*here, True)
    assert moved[0] == pytest.approx(one[0], rel=1e-13)
    np.testing.assert_allclose(moved[2][0], one[2][0], rtol=1e-9)


# -- gradient and search -------------------------------------------------------------------------------------------


GRADIENTS = [(f, shape, nodes) for f in COMMON for shape in ("one", "slope") for nodes in (2, 5)]
GRADIENTS += [(f, "one", 4) for f in FULL if f not in COMMON]


@pytest.mark.parametrize(("family", "shape", "nodes"), GRADIENTS, ids=[f"{label(f)}-{s}-{n}" for f, s, n in GRADIENTS])
def test_gradient(family: Family, shape: str, nodes: int) -> None:
    problem = Problem(family, shape)
    state = state_of(problem, nodes)
    found = state.evaluate(problem.beta, problem.lambdas, problem.params, True)
    check_gradient(problem, lambda *at: state.evaluate(*at, False)[0], found[1:], 1e-7, 3e-4)


@pytest.mark.parametrize("shape", ["one", "slope"])
@pytest.mark.parametrize("family", [LOGIT, Family("gamma", "log"), Family("beta", "logit")], ids=label)
def test_search_ends_at_the_minimum(family: Family, shape: str) -> None:
    problem = Problem(family, shape)
    m, k = problem.parameters, problem.sizes[0]
    state, places = state_of(problem, 7), np.tril_indices(k)
    columns = [np.ascontiguousarray(np.tile(np.eye(m)[i], (problem.n, 1))) for i in range(m)]
    start = np.r_[problem.beta, [p[0] for p in problem.params]]
    found = state.fit([0.5 * np.eye(k)], start, columns, [(0, list(range(k)))], 300)
    assert found["status"] == 0

    def objective(v: Array) -> tuple[float, Array]:
        lower, at = np.zeros((k, k)), 2 + len(places[0])
        lower[places] = v[2:at]
        value, by_beta, by_lambda, by_rows = state.evaluate(
            v[:2], [lower], [np.full(problem.n, p) for p in v[at:]], True
        )
        return value, np.r_[by_beta, by_lambda[0][places], [p.sum() for p in by_rows]]

    first = np.r_[problem.beta, 0.7 * np.eye(k)[places], start[2:]]
    other = minimize(objective, first, jac=True, method="BFGS", options={"gtol": 1e-7})
    assert found["deviance"] <= 2 * other.fun + 1e-7


# -- stored fits ---------------------------------------------------------------------------------------------------


def stored(file: str, label: str) -> dict[str, Any]:
    fits = json.loads((FOLDER / f"{file}.json").read_text(encoding="utf-8"))["fits"]
    return dict(next(fit for fit in fits if fit["label"] == label))


def load(name: str) -> Any:
    data = ml.load(name)
    if name == "tumors":
        data["study"] = np.arange(len(data)).astype(str)
    return data


CASES = [
    ("cbpp_binomial", "AGQ9", "cbpp", CBPP, "binomial", 9),
    ("cbpp_binomial", "AGQ25", "cbpp", CBPP, "binomial", 25),
    ("epilepsy_poisson", "AGQ15", "epilepsy", EPILEPSY, "poisson", 15),
    ("tumors_binomial", "AGQ11", "tumors", "cbind(y, K - y) ~ 1 + (1 | study)", "binomial", 11),
    ("inhaler_clmm", "AGQ11", "inhaler", "rating ~ treat + period + carry + (1 | subject)", "ordinal", 11),
    ("wine_clmm", "AGQ15", "wine", "rating ~ temp + contact + (1 | judge)", "ordinal", 15),
]


@pytest.mark.parametrize(("file", "label", "name", "formula", "family", "nodes"), CASES)
def test_stored_fits(file: str, label: str, name: str, formula: str, family: str, nodes: int) -> None:
    wanted = stored(file, label)
    design, found = prepare(formula, load(name), family)
    optimum = engine_for(design, found, nodes, 1).fit()[0]
    assert optimum.evidence.converged
    constant = 0.0 if family == "ordinal" else saturated(design, found)  # lme4 leaves it out, clmm does not
    assert -optimum.criterion / 2 == pytest.approx(wanted["loglik"] + constant, abs=1e-8)
    estimates = np.r_[optimum.residual, optimum.beta]
    np.testing.assert_allclose(estimates, wanted["fixed"]["estimate"], atol=1e-6)
    errors = np.sqrt(np.r_[np.diag(optimum.residual_vcov), np.diag(optimum.vcov)])
    np.testing.assert_allclose(errors, wanted["fixed"]["std_error"], rtol=1e-4)
    random = wanted["random"]
    sd = (random[0] if isinstance(random, list) else next(iter(random.values())))["sd"][0]
    assert optimum.theta[0] == pytest.approx(sd, abs=1e-6)


def test_saturated_log_likelihood() -> None:
    data = ml.load("cbpp")
    y, n = data["incidence"].to_numpy(), data["size"].to_numpy()
    assert saturated(*prepare(CBPP, data, "binomial")) == pytest.approx(binom.logpmf(y, n, y / n).sum(), rel=1e-12)
    data = ml.load("epilepsy")
    counts = data["count"].to_numpy()
    wanted = sum(poisson.logpmf(c, c) if c else 0.0 for c in counts)
    assert saturated(*prepare(EPILEPSY, data, "poisson")) == pytest.approx(wanted, rel=1e-12)
    with pytest.raises(OptionError, match="binomial and poisson"):
        saturated(*prepare(EPILEPSY, data, "nbinom2"))


@pytest.mark.parametrize(("link", "label"), [("probit", "Laplace_probit"), ("cloglog", "Laplace_cloglog")])
def test_observed_information_is_nearer_to_the_integral(link: str, label: str) -> None:
    """lme4's Laplace uses the expected information where the link is not canonical; the observed one is Laplace's method."""
    laplace, nine, exact = (-fitted(CBPP, ml.load("cbpp"), "binomial", k, link).criterion / 2 for k in (1, 9, 25))
    theirs = stored("cbpp_binomial", label)["loglik"]
    assert abs(nine - exact) < 2e-5
    assert abs(laplace - exact) < abs(theirs - exact) / 3


def test_vector_effects_fit() -> None:
    """Intercept and slope per patient: settles as nodes are added, and leaves Laplace behind."""
    data = ml.load("epilepsy")
    data["time"] = np.tile([-0.5, -0.2, 0.2, 0.5], len(data) // 4)
    formula = "count ~ zBase + time + (1 + time | patient)"
    values = [-fitted(formula, data, "poisson", nodes).criterion / 2 for nodes in (1, 5, 15, 25)]
    assert abs(values[3] - values[2]) < 1e-5 < abs(values[1] - values[0])


@pytest.mark.parametrize("nodes", [3, 5, 25])
def test_perfect_correlation(nodes: int) -> None:
    """At a singular covariance the slope by the vanished variance is that of the likelihood, not of the nodes' axes."""
    formula = "count ~ zBase + (1 + zAge | patient)"
    laplace, more = (fitted(formula, ml.load("epilepsy"), "poisson", k) for k in (1, nodes))
    assert more.evidence.converged
    assert more.evidence.ranks == laplace.evidence.ranks == (1,)
    assert more.evidence.null_slopes[0] == pytest.approx(laplace.evidence.null_slopes[0], rel=0.05)


# -- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nodes", [-1, 101, 2.5, True, "9", None])
def test_bad_number_of_nodes(nodes: Any) -> None:
    with pytest.raises(OptionError, match="quadrature must be a whole number of nodes"):
        engine_for(*prepare(CBPP, ml.load("cbpp"), "binomial"), nodes)


@pytest.mark.parametrize(
    ("formula", "nodes", "sentence"),
    [
        (
            "count ~ 1 + (1 | patient) + (1 | visit)",
            5,
            r"needs one grouping factor, and the formula has 2 \(.*patient.*\)",
        ),
        ("count ~ 1 + (1 | Trt / patient)", 5, r"needs one grouping factor, and the formula has 2"),
        ("count ~ 1 + (1 + zAge + zBase + Age | patient)", 2, r"at most 3 random effects .* the formula has 4"),
        ("count ~ 1 + (1 + zAge + zBase | patient)", 22, r"takes 10,648 points .* use quadrature=21 or less"),
    ],
)
def test_refusals(formula: str, nodes: int, sentence: str) -> None:
    with pytest.raises(OptionError, match=sentence):
        engine_for(*prepare(formula, ml.load("epilepsy"), "poisson"), nodes)


def test_uncorrelated_terms_of_one_factor_are_one_integral() -> None:
    design, family = prepare("count ~ 1 + (1 + zAge || patient)", ml.load("epilepsy"), "poisson")
    engine = engine_for(design, family, 5, 1)
    assert isinstance(engine, QuadratureEngine)
    assert engine.groups[0].k == 2
    assert engine.with_threads(2).nodes == 5


# -- the quick start -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["one", "slope", "crossed"])
@pytest.mark.parametrize("family", COMMON, ids=label)
def test_gradient_at_the_joint_mode(family: Family, shape: str) -> None:
    problem = Problem(family, shape)
    state = problem.state()
    value, beta, by_lambda, by_rows, information = state.joint_mode(problem.beta, problem.lambdas, problem.params)
    assert value == pytest.approx(problem.state().evaluate(beta, problem.lambdas, problem.params, False)[0], rel=1e-12)
    score = problem.x.T @ state.rows()[2]
    assert score @ np.linalg.solve(information, score) < 1e-12
    check_gradient(problem, lambda *at: state.joint_mode(*at)[0], (None, by_lambda, by_rows), 1e-6)


def test_quick_start_of_cbpp() -> None:
    optimum = fitted(CBPP, ml.load("cbpp"), "binomial", 0)
    assert optimum.evidence.converged
    # lme4 1.1-31, nAGQ = 0
    assert -optimum.criterion / 2 == pytest.approx(-92.0542954728184, abs=1e-8)
    beta = [-1.36047175523101, -0.976177471081452, -1.11107689344698, -1.55968051579739]
    np.testing.assert_allclose(optimum.beta, beta, atol=1e-6)
    assert optimum.theta[0] == pytest.approx(0.641815069516918, abs=1e-6)
    # lme4's errors are those at known covariances
    errors = [0.227574622144965, 0.303287348718702, 0.323511803001885, 0.42445550129207]
    np.testing.assert_allclose(np.sqrt(np.diag(optimum.vcov)), errors, rtol=0.02)
    assert optimum.criterion > fitted(CBPP, ml.load("cbpp"), "binomial", 1).criterion


def test_quick_start_of_crossed_and_vector_effects() -> None:
    data = ml.load("epilepsy")
    for formula in ("count ~ zBase + (1 | patient) + (1 | visit)", "count ~ zBase + (1 + zAge || patient)"):
        quick, laplace = (fitted(formula, data, "poisson", nodes) for nodes in (0, 1))
        assert quick.evidence.converged
        assert 0 < quick.criterion - laplace.criterion < 1
        np.testing.assert_allclose(quick.beta, laplace.beta, atol=0.05)


def test_quick_start_at_a_vanished_variance() -> None:
    rng = np.random.default_rng(1)
    group = np.repeat(np.arange(20), 10)
    data = {"g": group.astype(str), "y": np.tile([0, 1], 100), "x": rng.normal(size=200)}
    quick, laplace = (fitted("y ~ x + (1 | g)", data, "binomial", nodes) for nodes in (0, 1))
    assert quick.lambdas[0][0, 0] == 0 == laplace.lambdas[0][0, 0]
    assert quick.evidence.ranks == (0,)
    assert quick.evidence.null_slopes[0] == pytest.approx(laplace.evidence.null_slopes[0], rel=1e-2)
    assert quick.criterion == pytest.approx(laplace.criterion, rel=1e-9)
