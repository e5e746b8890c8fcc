"""The dense twin against R's numbers and against itself, and the reader of R's numbers against the data."""

from __future__ import annotations

import itertools
from functools import cache

import golden
import numpy as np
import pytest
from golden import Golden
from reference import Array, Dense, complex_jacobian, pack, unpack

SMALL = list(golden.fits(rows=300))
MIDDLE = [fit for fit in golden.fits(rows=1000) if fit.n > 300]
EVERY = pytest.mark.parametrize("fit", [pytest.param(fit, id=fit.id) for fit in SMALL + MIDDLE])


@cache
def dense(file: str, label: str) -> tuple[Dense, tuple[Array, ...]]:
    fit = golden.golden(file, label)
    y, X, terms = golden.matrices(fit)
    return Dense(y, X, terms, fit.weights), golden.theta_to_lambdas(fit)


def random_problem(
    shapes: list[tuple[int, int]], n: int = 40, p: int = 2, seed: int = 1, weighted: bool = True
) -> tuple[Dense, list[Array]]:
    """Response, matrices and factors drawn at random; shapes (levels, effects) per term."""
    rng = np.random.default_rng(seed)
    terms = [(rng.integers(0, J, n), None if k == 1 else rng.normal(size=(n, k)), J) for J, k in shapes]
    problem = Dense(
        rng.normal(size=n) * 2,
        rng.normal(size=(n, p)),
        terms,
        rng.uniform(0.5, 2.0, n) if weighted else None,
        rng.normal(size=n),
    )
    return problem, [rng.normal(size=(k, k)) for _, k in shapes]


# --- the reader of the stored fits


def test_every_gaussian_file_is_here() -> None:
    assert len(golden.files()) == 15
    assert len(list(golden.fits())) == 61
    assert sum(fit.df is not None for fit in golden.fits()) >= 50
    assert [fit.id for fit in golden.fits() if fit.singular] == [
        "dyestuff2_singular-REML",
        "dyestuff2_singular-ML",
    ]


@pytest.mark.parametrize("file", golden.files())
def test_the_data_have_the_rows_and_levels_that_r_had(file: str) -> None:
    data = golden.frame(file)
    stored = golden._read(file)
    assert len(data) == stored["dataset"]["rows"]
    for column, factor in dict(stored["factor_levels"] or {}).items():
        assert data[column].cat.categories.tolist() == factor["levels"]
        assert data[column].cat.ordered == factor["ordered"]


@pytest.mark.parametrize("fit", [pytest.param(fit, id=fit.id) for fit in golden.fits()])
def test_a_fit_is_consistent(fit: Golden) -> None:
    assert fit.n == len(fit.frame())
    assert len(fit.names) == len(set(fit.names)) == len(fit.beta)
    assert fit.criterion == pytest.approx(-2.0 * fit.loglik, rel=1e-12)
    for term, factor in zip(fit.terms, golden.theta_to_lambdas(fit), strict=True):
        assert np.array_equal(factor, term.lambda_)
        assert np.allclose(fit.sigma**2 * factor @ factor.T, term.cov, rtol=1e-10, atol=1e-14 * fit.sigma**2)
        assert np.allclose(np.sqrt(np.diag(term.cov)), term.sd, rtol=1e-12)
        k, count = len(term.names), len(term.levels)
        assert term.modes.shape == (count, k)
        assert term.cond_cov.shape == (count, k, k)
        assert count == term.n_levels or term.n_levels > 80
        assert set(term.levels) <= set(golden.levels(fit, term))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("(Intercept)", "Intercept"),
        ("Days", "Days"),
        ("I(Days^2)", "I(Days ** 2)"),
        ("poly(Time, 2)1", "poly(Time, 2)[1]"),
        ("recipeB", "recipe[T.B]"),
        ("temperature.L", "temperature[.L]"),
        ("temperature^4", "temperature[^4]"),
        ("recipeC:temperature^5", "recipe[T.C]:temperature[^5]"),
        ("temp", "temp"),
        ("age:recipeB", "age:recipe[T.B]"),
    ],
)
def test_names_are_translated(name: str, wanted: str) -> None:
    factors = {"recipe": ["A", "B", "C"], "temperature": ["175", "185"], "t": ["emp"]}
    if name == "temp":
        factors.pop("t")
    assert golden.translate(name, factors) == wanted


def test_sum_contrasts_are_named_by_their_level() -> None:
    factors = {"recipe": ["A", "B", "C"]}
    assert golden.translate("recipe2", factors, {"recipe": "sum"}) == "recipe[S.B]"


def test_theta_is_column_major_lower_triangles() -> None:
    one, two = golden.lambdas(np.arange(1.0, 8.0), [3, 1])
    assert np.array_equal(one, [[1, 0, 0], [2, 4, 0], [3, 5, 6]])
    assert np.array_equal(two, [[7]])
    with pytest.raises(ValueError, match="theta has 7"):
        golden.lambdas(np.arange(7.0), [3])


# --- the dense twin against R


@EVERY
def test_criterion_and_its_parts(fit: Golden) -> None:
    problem, factors = dense(fit.file, fit.label)
    assert problem.criterion(factors, fit.reml) == pytest.approx(fit.criterion, rel=1e-12)
    assert problem.criterion(factors, fit.reml, fit.sigma) == pytest.approx(fit.criterion, rel=1e-12)
    ldL2, ldRX2 = problem.determinants(factors)
    assert ldL2 == pytest.approx(fit.raw["ldL2"], abs=1e-9)
    assert ldRX2 == pytest.approx(fit.raw["ldRX2"], abs=1e-9)
    assert problem.solution(factors, fit.reml).r2 == pytest.approx(fit.raw["pwrss"], rel=1e-10)


@EVERY
def test_estimates_modes_and_their_variances(fit: Golden) -> None:
    problem, factors = dense(fit.file, fit.label)
    found = problem.solution(factors, fit.reml)
    assert found.sigma == pytest.approx(fit.sigma, rel=1e-12)
    assert np.allclose(found.beta, fit.beta, rtol=1e-9)
    assert np.allclose(found.vcov, fit.vcov, rtol=1e-9, atol=1e-10 * np.abs(fit.vcov).max())
    assert np.allclose(found.fitted[:5], fit.fitted, rtol=1e-10)
    variances = problem.conditional_cov(factors, fit.sigma)
    for t, term in enumerate(fit.terms):
        where = [golden.levels(fit, term).index(level) for level in term.levels]
        assert np.allclose(found.b[t][where], term.modes, rtol=0, atol=1e-9 * np.abs(term.modes).max())
        assert np.allclose(
            variances[t][where], term.cond_cov, rtol=0, atol=1e-9 * np.abs(term.cond_cov).max()
        )
        assert np.allclose((found.b[t] ** 2).sum(axis=0), term.sum_of_squares, rtol=1e-8)


@EVERY
def test_the_gradient_vanishes_at_the_stored_theta(fit: Golden) -> None:
    problem, factors = dense(fit.file, fit.label)
    for slope in problem.gradient(factors, fit.reml):
        assert np.abs(np.tril(slope)).max() < 1e-4


@pytest.mark.parametrize("fit", [pytest.param(fit, id=fit.id) for fit in SMALL if fit.df is not None])
def test_satterthwaite_is_lmertests(fit: Golden) -> None:
    assert fit.df is not None
    problem, factors = dense(fit.file, fit.label)
    for index in {0, problem.p - 1}:
        found = problem.satterthwaite(np.eye(problem.p)[index], factors, fit.reml)
        assert found == pytest.approx(fit.df[index], rel=1e-6)  # lmerTest's own derivatives are numeric


def test_sleepstudy_has_seventeen_df_at_its_optimum() -> None:
    """Balanced: n_groups - 1 exactly, once the stored theta is polished by Newton steps with the exact Hessian."""
    problem, factors = dense("sleepstudy_random_slope", "REML")
    free = problem._free(None)
    theta = pack(factors, free)
    for _ in range(3):
        here = unpack(theta, problem.sizes, free)
        theta = theta - np.linalg.solve(problem.hessian(here), pack(problem.gradient(here), free))
    here = unpack(theta, problem.sizes, free)
    assert max(np.abs(np.tril(slope)).max() for slope in problem.gradient(here)) < 1e-10
    assert problem.satterthwaite(np.array([0.0, 1.0]), here) == pytest.approx(17.0, abs=1e-9)


# --- the dense twin against itself

SHAPES = [[(1, 1)], [(6, 1)], [(5, 2)], [(4, 3)], [(6, 1), (3, 1)], [(7, 2), (4, 1)], []]


@pytest.mark.parametrize("sigma", [None, 1.3])
@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_gradient_is_the_derivative_of_the_criterion(
    shapes: list[tuple[int, int]], reml: bool, sigma: float | None
) -> None:
    problem, factors = random_problem(shapes)
    for t, slope in enumerate(problem.gradient(factors, reml, sigma)):
        for i, j in itertools.product(range(problem.sizes[t]), repeat=2):
            moved = [factor.astype(complex) for factor in factors]
            moved[t][i, j] += 1e-30j
            exact = np.imag(problem.criterion(moved, reml, sigma)) / 1e-30
            assert slope[i, j] == pytest.approx(exact, rel=1e-10, abs=1e-10)
            ahead, behind = ([f.copy() for f in factors] for _ in range(2))
            ahead[t][i, j] += 1e-5
            behind[t][i, j] -= 1e-5
            rough = (problem.criterion(ahead, reml, sigma) - problem.criterion(behind, reml, sigma)) / 2e-5
            assert slope[i, j] == pytest.approx(rough, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("reml", [True, False])
def test_sigma_is_where_its_gradient_vanishes(reml: bool) -> None:
    problem, factors = random_problem([(5, 2)])
    best = problem.solution(factors, reml).sigma
    assert problem.sigma_gradient(factors, best, reml) == pytest.approx(0.0, abs=1e-10)
    assert problem.criterion(factors, reml, best) == pytest.approx(
        problem.criterion(factors, reml), rel=1e-13
    )
    exact = complex_jacobian(
        lambda s: np.atleast_1d(problem.criterion(factors, reml, s[0])), np.array([1.7])
    )[0, 0]
    assert problem.sigma_gradient(factors, 1.7, reml) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("sigma", [None, 1.3])
@pytest.mark.parametrize("structure", ["us", "diag"])
def test_hessian_against_differences_of_the_criterion(structure: str, sigma: float | None) -> None:
    problem, factors = random_problem([(5, 2), (4, 1)])
    factors = [np.diag(np.diag(f)) if structure == "diag" else np.tril(f) for f in factors]
    structures = [structure, "us"]
    free = problem._free(structures)
    start = pack(factors, free)
    start = start if sigma is None else np.append(start, sigma)

    def value(at: Array) -> float:
        inner = unpack(at[: len(at) - (sigma is not None)], problem.sizes, free)
        return float(problem.criterion(inner, True, None if sigma is None else at[-1]))

    H = problem.hessian(factors, True, sigma, structures)
    h = 1e-4
    for i, j in itertools.product(range(len(start)), repeat=2):
        e, f = np.eye(len(start))[i] * h, np.eye(len(start))[j] * h
        rough = (
            value(start + e + f) - value(start + e - f) - value(start - e + f) + value(start - e - f)
        ) / (4 * h * h)
        assert H[i, j] == pytest.approx(rough, rel=1e-5, abs=1e-4)


@pytest.mark.parametrize("shapes", [shape for shape in SHAPES if shape], ids=str)
def test_joint_covariance_is_the_inverse_of_hendersons_matrix(shapes: list[tuple[int, int]]) -> None:
    """[Z'WZ + G^-1, Z'WX; X'WZ, X'WX]^-1 sigma^2: the mixed-model equations know nothing of the marginal V."""
    problem, factors = random_problem(shapes)
    both = np.hstack([*problem.Z, problem.X])
    left = both.T @ (problem.weights[:, None] * both)
    start = 0
    for t, factor in enumerate(factors):
        G = np.kron(np.eye(problem.levels[t]), factor @ factor.T)
        left[start : start + len(G), start : start + len(G)] += np.linalg.inv(G)
        start += len(G)
    wanted = 1.7**2 * np.linalg.inv(left)
    found = problem.joint_cov(factors, 1.7)
    assert np.allclose(found, wanted, rtol=1e-8, atol=1e-8 * np.abs(wanted).max())
    right = both.T @ (problem.weights * problem.y)
    solved = np.linalg.solve(left, right)
    solution = problem.solution(factors)
    assert np.allclose(solved[start:], solution.beta, rtol=1e-8)
    assert np.allclose(solved[:start], np.concatenate([b.ravel() for b in solution.b]), rtol=1e-7, atol=1e-9)


def test_conditional_covariance_given_the_fixed_effects() -> None:
    """The b block of Henderson's matrix alone, inverted, level by level."""
    problem, factors = random_problem([(5, 2)])
    Z, G = problem.Z[0], np.kron(np.eye(5), factors[0] @ factors[0].T)
    full = 1.7**2 * np.linalg.inv(Z.T @ (problem.weights[:, None] * Z) + np.linalg.inv(G))
    for level, block in enumerate(problem.conditional_cov(factors, 1.7)[0]):
        assert np.allclose(
            block, full[2 * level : 2 * level + 2, 2 * level : 2 * level + 2], rtol=1e-9, atol=1e-12
        )


def test_prediction_variance_of_fixed_part_and_of_one_level() -> None:
    problem, factors = random_problem([(5, 2), (4, 1)])
    x = np.array([[1.0, -2.0], [0.3, 0.4]])
    nothing = np.array([-1, -1])
    plain = problem.prediction_var(factors, 1.7, x, [])
    assert np.allclose(
        plain, np.einsum("ij,jk,ik->i", x, problem.solution(factors, sigma=1.7).vcov, x), rtol=1e-10
    )
    assert np.allclose(problem.prediction_var(factors, 1.7, x, [(1, nothing, None)]), plain)
    z = np.array([[1.0, 0.5], [2.0, -1.0]])
    found = problem.prediction_var(factors, 1.7, x, [(0, np.array([3, 0]), z), (1, np.array([2, -1]), None)])
    row = np.zeros(10 + 4 + 2)
    row[[6, 7, 12, 14, 15]] = [1.0, 0.5, 1.0, 1.0, -2.0]
    assert found[0] == pytest.approx(row @ problem.joint_cov(factors, 1.7) @ row, rel=1e-12)


@pytest.mark.parametrize("reml", [True, False])
def test_whole_weights_are_repeated_rows(reml: bool) -> None:
    """Estimates agree; the criteria differ by constants of the repeated rows only, whatever the factors."""
    rng = np.random.default_rng(3)
    n, counts = 25, rng.integers(1, 4, 25)
    codes, y, X = rng.integers(0, 5, n), rng.normal(size=n), rng.normal(size=(n, 2))
    few = Dense(y, X, [(codes, None, 5)], counts)
    many = Dense(np.repeat(y, counts), np.repeat(X, counts, axis=0), [(np.repeat(codes, counts), None, 5)])
    gaps = []
    for size in (0.0, 0.7, 1.9):
        factors = [np.array([[size]])]
        one, two = few.solution(factors, reml), many.solution(factors, reml)
        assert np.allclose(one.beta, two.beta, rtol=1e-10)
        assert np.allclose(one.b[0], two.b[0], rtol=1e-8, atol=1e-12)
        gaps.append(few.criterion(factors, reml, 1.1) - many.criterion(factors, reml, 1.1))
    assert np.ptp(gaps) < 1e-10


def test_an_offset_is_taken_off_and_a_negative_code_has_no_effect() -> None:
    rng = np.random.default_rng(4)
    codes, y, X, off = (
        rng.integers(-1, 4, 20),
        rng.normal(size=20),
        rng.normal(size=(20, 2)),
        rng.normal(size=20),
    )
    factors = [np.array([[0.8]])]
    one = Dense(y, X, [(codes, None, 4)], offset=off)
    two = Dense(y - off, X, [(codes, None, 4)])
    assert one.criterion(factors) == pytest.approx(two.criterion(factors), rel=1e-14)
    assert np.allclose(one.solution(factors).fitted, two.solution(factors).fitted + off)
    assert not one.Z[0][codes < 0].any()


def test_no_random_term_is_least_squares() -> None:
    problem, _ = random_problem([], weighted=False)
    found = problem.solution([], reml=True)
    beta, rss = np.linalg.lstsq(problem.X, problem.y, rcond=None)[:2]
    assert np.allclose(found.beta, beta)
    assert found.r2 == pytest.approx(rss[0])
    assert problem.satterthwaite(np.array([1.0, 0.0]), []) == pytest.approx(problem.n - problem.p)
