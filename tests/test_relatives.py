"""Known covariances between levels: the numerator relationship matrix by hand, the dense twin, bad matrices, size."""

from __future__ import annotations

import time
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import dense_structures as dense
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array

import multilevel as ml
from multilevel import DataError, Fit, KnownCovariance, Model, OptionError

Array = NDArray[np.float64]


def quiet(model: Model, reml: bool = True) -> Fit:
    """The fit, without its warning of a boundary."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ml.SingularFitWarning)
        return model.fit(reml)


# -- pedigrees -----------------------------------------------------------------------------------------------


def tabular(animals: list[Any], sires: list[Any], dams: list[Any]) -> pd.DataFrame:
    """Numerator relationships by the recursion of Emik & Terrill (1949): parents before offspring."""
    count = len(animals)
    at = {name: i for i, name in enumerate(animals)}
    A = np.zeros((count, count))
    for i in range(count):
        parents = [at[p] for p in (sires[i], dams[i]) if p in at]
        for j in range(i):
            A[i, j] = A[j, i] = sum(A[j, p] for p in parents) / 2
        A[i, i] = 1 + (A[parents[0], parents[1]] / 2 if len(parents) == 2 else 0)
    return pd.DataFrame(A, animals, animals)


def covariance(known: KnownCovariance) -> pd.DataFrame:
    return pd.DataFrame(np.linalg.inv(known.precision.toarray()), known.levels, known.levels)


def test_a_hand_computed_pedigree_with_inbreeding() -> None:
    """Full sibs c, d of unrelated a, b; e from c x d has inbreeding 1/4; f from e and its grandsire a."""
    frame = pd.DataFrame(
        {"animal": list("fecdab"), "sire": ["a", "c", "a", "a", None, None], "dam": ["e", "d", "b", "b", None, None]}
    )
    A = covariance(ml.pedigree(frame)).loc[list("abcdef"), list("abcdef")]
    by_hand = [
        [1, 0, 0.5, 0.5, 0.5, 0.75],
        [0, 1, 0.5, 0.5, 0.5, 0.25],
        [0.5, 0.5, 1, 0.5, 0.75, 0.625],
        [0.5, 0.5, 0.5, 1, 0.75, 0.625],
        [0.5, 0.5, 0.75, 0.75, 1.25, 0.875],
        [0.75, 0.25, 0.625, 0.625, 0.875, 1.25],
    ]
    np.testing.assert_allclose(A, by_hand, atol=1e-12)


def _random_pedigree(seed: int, count: int, founders: int = 10) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    none = [None] * founders
    parents = [[*none, *(int(rng.integers(1, i + 1)) for i in range(founders, count))] for _ in range(2)]
    out = pd.DataFrame({"animal": range(1, count + 1), "sire": parents[0], "dam": parents[1]})
    out.loc[rng.random(count) < 0.15, "dam"] = None
    return out


@pytest.mark.parametrize("seed", range(5))
def test_any_pedigree_against_the_recursion(seed: int) -> None:
    """Selfing included: an animal may be both parents."""
    frame = _random_pedigree(seed, 70)
    A = tabular(frame["animal"].tolist(), frame["sire"].tolist(), frame["dam"].tolist())
    known = ml.pedigree(frame.sample(frac=1, random_state=seed))  # in any order of rows
    np.testing.assert_allclose(covariance(known).loc[A.index, A.index], A, atol=1e-9)
    np.testing.assert_allclose(known.log_det, np.linalg.slogdet(A.to_numpy())[1], atol=1e-9)


def test_parents_without_a_row_are_founders() -> None:
    frame = pd.DataFrame({"animal": ["x", "y"], "sire": ["s", "s"], "dam": ["p", "q"]})
    known = ml.pedigree(frame)
    assert set(known.levels) == {"x", "y", "s", "p", "q"}
    A = covariance(known)
    np.testing.assert_allclose([A.loc["x", "y"], A.loc["x", "s"], A.loc["p", "q"]], [0.25, 0.5, 0], atol=1e-12)


def test_other_names_of_columns_and_other_libraries() -> None:
    frame = _random_pedigree(1, 30)
    base = ml.pedigree(frame)
    named = ml.pedigree(
        frame.rename(columns={"animal": "id", "sire": "father", "dam": "mother"}), "id", "father", "mother"
    )
    polars = pytest.importorskip("polars")
    table = polars.DataFrame({name: [None if pd.isna(v) else int(v) for v in frame[name]] for name in frame})
    for other in (named, ml.pedigree(table)):
        assert other.levels.tolist() == base.levels.tolist()
        np.testing.assert_allclose(other.precision.toarray(), base.precision.toarray())


def test_whole_numbers_stay_whole_numbers() -> None:
    """A missing parent makes pandas hold the column as floats; the labels are the animals' all the same."""
    frame = pd.DataFrame({"animal": [3, 4], "sire": [1.0, np.nan], "dam": [2.0, 3.0]})
    known = ml.pedigree(frame)
    assert sorted(str(v) for v in known.levels) == ["1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"animal": ["a", "b"], "sire": ["b", "a"], "dam": [None, None]}, "is its own ancestor"),
        ({"animal": ["a", "b"], "sire": ["a", None], "dam": [None, None]}, "'a' is its own ancestor"),
        ({"animal": ["a", "b", "c"], "sire": ["b", "c", "a"], "dam": [None] * 3}, "is its own ancestor"),
        ({"animal": ["a", "a"], "sire": [None, "b"], "dam": [None, None]}, "'a' stands twice"),
        ({"animal": ["a", None], "sire": [None, "b"], "dam": [None, None]}, "misses a value in row 1"),
    ],
)
def test_pedigrees_that_cannot_be(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ml.pedigree(pd.DataFrame(columns))


def test_a_pedigree_without_its_columns() -> None:
    with pytest.raises(ml.ColumnError, match="'dam'.*Name the columns of the pedigree with animal=, sire= and dam="):
        ml.pedigree(pd.DataFrame({"animal": [1], "sire": [None]}))


# -- the dense twin ------------------------------------------------------------------------------------------


@cache
def animals() -> tuple[pd.DataFrame, KnownCovariance, pd.DataFrame]:
    """Records of 41 of 60 animals, three each, crossed with 5 herds; the pedigree and its A."""
    frame = _random_pedigree(0, 60)
    known = ml.pedigree(frame)
    A = tabular(frame["animal"].tolist(), frame["sire"].tolist(), frame["dam"].tolist())
    rng = np.random.default_rng(4)
    effects = np.linalg.cholesky(A.to_numpy()) @ rng.normal(size=(60, 2))
    d = pd.DataFrame({"animal": np.repeat(np.arange(20, 61), 3), "t": np.tile(np.arange(3), 41)})
    d["x"], d["herd"] = rng.normal(size=123), rng.integers(0, 5, 123)
    row = d["animal"].to_numpy() - 1
    d["y"] = 1 + 0.3 * d["x"] + 1.5 * effects[row, 0] + 0.6 * effects[row, 1] * d["x"] + rng.normal(size=123)
    d["w"] = rng.uniform(0.5, 2, 123)
    return d, known, A


CASES: list[tuple[str, dict[str, Any]]] = [
    ("y ~ x + (1 | animal)", {}),
    ("y ~ x + (1 | animal)", {"weights": "w"}),
    ("y ~ x + (x | animal)", {}),
    ("y ~ x + (x || animal) + (1 | herd)", {}),
    ("y ~ x + (x | animal) + (1 | herd)", {"weights": "w"}),
    ("y ~ x + cs(x | animal) + (1 | herd)", {}),
    ("y ~ x + ar1(0 + factor(t) | animal)", {}),
    ("y ~ x + (1 | animal) + (1 | herd)", {"correlation": "ar1(t | animal)"}),
    ("y ~ x + (1 | animal)", {"correlation": "car1(row | herd)", "variance": "ident(t)", "weights": "w"}),
]


@pytest.mark.parametrize("how", ["pedigree", "dense", "precision"])
@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_fit_is_that_of_the_dense_twin(case: tuple[str, dict[str, Any]], reml: bool, how: str) -> None:
    formula, options = case
    data, pedigree, A = animals()
    data = data.assign(row=np.arange(123))
    given: Any = {"pedigree": pedigree, "dense": A}.get(how)
    if how == "precision":
        given = KnownCovariance(A.index, precision=csr_array(np.linalg.inv(A.to_numpy())))
    fit = quiet(Model(formula, data, covariance={"animal": given}, **options), reml)
    assert fit.convergence.converged
    levels = next(t.levels for t in fit.design.terms if t.group == "animal")
    assert len(levels) == 60  # those without records as well
    K = A.loc[list(levels), list(levels)].to_numpy()
    R = sd = None
    if "correlation" in options:
        groups, times = ("animal", "t") if options["correlation"].startswith("ar1") else ("herd", "row")
        (name, rho), *_ = fit.residual_structure().tail(1).itertuples(index=False)
        over = float(name.split(" over ")[1]) if " over " in name else 1.0
        R = dense.serial(data[groups], data[times] / over, rho)
    if "variance" in options:
        sd = np.r_[1.0, fit.optimum.residual[:2]][data["t"]]
    dense.check_against(fit, dense.of_fit(fit, {"animal": K}, sd, R))


def test_satterthwaite_degrees_of_freedom() -> None:
    data, pedigree, A = animals()
    fit = Model("y ~ x + (1 | animal)", data, covariance={"animal": pedigree}).fit()
    K = A.loc[list(fit.design.terms[0].levels), list(fit.design.terms[0].levels)].to_numpy()

    def both(v: Array) -> tuple[float, Array]:
        twin = dense.twin(fit.design, [np.array([[v[0] ** 2]])], {"animal": K})
        return twin.criterion(True, np.exp(v[1])), np.diag(twin.moments()[1]) * np.exp(2 * v[1])

    at, h = np.array([fit.theta[0], np.log(fit.sigma)]), 2e-4 * np.eye(2)
    grads = np.array([(both(at + e)[1] - both(at - e)[1]) / 4e-4 for e in h])
    hessian = np.array(
        [[sum(both(at + a * e + b * f)[0] * a * b for a in (1, -1) for b in (1, -1)) / 1.6e-7 for f in h] for e in h]
    )
    df = 2 * both(at)[1] ** 2 / np.einsum("ip,ij,jp->p", grads, 2 * np.linalg.inv(hessian), grads)
    np.testing.assert_allclose(fit.fixef()["df"], df, rtol=1e-4)


def test_the_identity_is_the_plain_model() -> None:
    data, *_ = animals()
    levels = sorted(set(data["animal"]))
    for given in (
        pd.DataFrame(np.eye(len(levels)), levels, levels),
        KnownCovariance(levels, precision=diags_array(np.ones(len(levels)))),
    ):
        for formula in ("y ~ x + (x | animal) + (1 | herd)", "y ~ x + cs(x | animal)"):
            plain = quiet(Model(formula, data))
            fit = quiet(Model(formula, data, covariance={"animal": given}))
            np.testing.assert_allclose(fit.criterion, plain.criterion, rtol=1e-11)
            np.testing.assert_allclose(fit.theta, plain.theta, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(fit.fixef()["df"], plain.fixef()["df"], rtol=1e-5)


def test_a_multiple_of_the_covariance_changes_the_variance_only() -> None:
    data, _, A = animals()
    one = Model("y ~ x + (1 | animal)", data, covariance={"animal": A}).fit()
    four = Model("y ~ x + (1 | animal)", data, covariance={"animal": 4 * A}).fit()
    np.testing.assert_allclose(four.criterion, one.criterion, rtol=1e-11)
    np.testing.assert_allclose(2 * four.theta, one.theta, rtol=1e-6)


def test_a_correlation_between_sites_of_a_line() -> None:
    """Two factors with known covariances at once, one dense and one sparse."""
    data, pedigree, A = animals()
    herds = pd.DataFrame(dense.correlation("ar1", 5, 0.6), range(5), range(5))
    fit = quiet(Model("y ~ x + (1 | animal) + (1 | herd)", data, covariance={"animal": pedigree, "herd": herds}))
    known = {
        t.group: {"animal": A, "herd": herds}[t.group].loc[list(t.levels), list(t.levels)].to_numpy()
        for t in fit.design.terms
    }
    dense.check_against(fit, dense.of_fit(fit, known))


def test_no_variance_between_relatives() -> None:
    data, pedigree, _ = animals()
    rng = np.random.default_rng(2)
    y = np.tile([1.0, -2.0, 1.0], 41) + 0.01 * rng.normal(size=123)
    with pytest.warns(ml.SingularFitWarning):
        fit = Model("y ~ x + (1 | animal)", data.assign(y=y), covariance={"animal": pedigree}).fit()
    assert fit.convergence.converged
    assert fit.theta[0] == 0
    np.testing.assert_allclose(fit.criterion, Model("y ~ x", data.assign(y=y)).fit().criterion, rtol=1e-11)


# -- what a fit does -----------------------------------------------------------------------------------------


def test_effects_of_animals_without_records_are_predicted() -> None:
    data, pedigree, A = animals()
    fit = Model("y ~ x + (1 | animal)", data, covariance={"animal": pedigree}).fit()
    effects = fit.ranef()
    assert len(effects) == 60
    new = pd.DataFrame({"animal": [5, 30], "x": [0.0, 0.0]})
    out = fit.predict(new, interval="confidence")
    by = dict(zip(effects["level"].astype(str), effects["estimate"], strict=True))
    intercept = fit.optimum.beta[0]
    np.testing.assert_allclose(out["prediction"], [intercept + by["5"], intercept + by["30"]], rtol=1e-10)
    assert out["std_error"].iloc[0] > out["std_error"].iloc[1]
    with pytest.raises(DataError, match="99"):
        fit.predict(new.assign(animal=[5, 99]))


@pytest.mark.parametrize("data", [False, True])
def test_saved_and_read(tmp_path: Path, data: bool) -> None:
    rows, pedigree, _ = animals()
    fit = Model("y ~ x + (x | animal)", rows, covariance={"animal": pedigree}).fit()
    fit.save(tmp_path / "fit.mlv", data=data)
    back = ml.read(tmp_path / "fit.mlv")
    np.testing.assert_allclose(back.fixef()["df"], fit.fixef()["df"], rtol=1e-8)
    new = rows.head(5)
    np.testing.assert_allclose(
        back.predict(new, interval="prediction"), fit.predict(new, interval="prediction"), rtol=1e-10
    )
    if data:
        assert str(back) == str(fit)
        np.testing.assert_allclose(back.refit(fit.design.y).criterion, fit.criterion, rtol=1e-10)
        np.testing.assert_allclose(back.simulate(2, seed=1), fit.simulate(2, seed=1), atol=1e-8)


def test_simulated_effects_have_the_covariance() -> None:
    data, pedigree, A = animals()
    small = data[data["animal"] > 52].reset_index(drop=True)
    fit = Model("y ~ x + (1 | animal)", small, covariance={"animal": pedigree}).fit()
    K = A.loc[list(fit.design.terms[0].levels), list(fit.design.terms[0].levels)].to_numpy()
    V = dense.of_fit(fit, {"animal": K}).V * fit.sigma**2
    made = fit.simulate(5000, seed=5).to_numpy() - (fit.design.X @ fit.optimum.beta)[:, None]
    scale = np.sqrt(np.outer(np.diag(V), np.diag(V)))
    assert np.abs((made @ made.T / 5000 - V) / scale).max() < 5 * np.sqrt(2 / 5000)


@pytest.mark.parametrize("size", [300, 700])
def test_draws_have_the_covariance(size: int) -> None:
    """Small ones by a dense factor, large ones by a sparse one."""
    frame = _random_pedigree(7, size, 50)
    known = ml.pedigree(frame)
    draws = known.draw(np.random.default_rng(1), 4000)
    A = covariance(known).to_numpy()
    scale = np.sqrt(np.outer(np.diag(A), np.diag(A)))
    assert np.abs((draws @ draws.T / 4000 - A) / scale).max() < 6 * np.sqrt(2 / 4000)


def test_rows_of_missing_groups_are_left_out() -> None:
    data, pedigree, _ = animals()
    holes = data.assign(animal=data["animal"].astype(float).mask(np.arange(123) == 7))
    with pytest.warns(ml.MissingRowsWarning, match="1 of 123 rows"):
        fit = Model("y ~ x + (1 | animal)", holes, covariance={"animal": pedigree}).fit()
    other = Model("y ~ x + (1 | animal)", data.drop(index=7), covariance={"animal": pedigree}).fit()
    np.testing.assert_allclose(fit.criterion, other.criterion, rtol=1e-12)


def test_the_summary_says_so() -> None:
    data, pedigree, _ = animals()
    text = Model("y ~ x + (1 | animal)", data, covariance={"animal": pedigree}).fit().summary()
    assert "animal: its levels have a known covariance" in text
    assert "KnownCovariance of 60 levels" in repr(pedigree)


# -- bad input -----------------------------------------------------------------------------------------------

GOOD = np.array([[1.0, 0.5, 0.2], [0.5, 1.0, 0.3], [0.2, 0.3, 1.0]])


@pytest.mark.parametrize(
    ("levels", "matrices", "error", "message"),
    [
        (["a", "b", "c"], {}, OptionError, "either covariance= or precision="),
        (["a", "b", "c"], {"covariance": GOOD, "precision": GOOD}, OptionError, "either covariance= or precision="),
        (["a", "b"], {"covariance": GOOD}, DataError, "2 levels for 3 rows"),
        (["a", "b", "a"], {"covariance": GOOD}, DataError, "'a' stands twice"),
        ("abc", {"covariance": GOOD}, OptionError, "levels must be a list of labels"),
        (5, {"covariance": GOOD}, OptionError, "levels must be a list of labels"),
        (["a", "b", "c"], {"covariance": GOOD[:2]}, DataError, r"must be square, but its shape is \(2, 3\)"),
        (["a", "b", "c"], {"covariance": GOOD[0]}, DataError, "must be square"),
        (["a", "b", "c"], {"covariance": "matrix"}, DataError, "square matrix of numbers"),
        (["a", "b", "c"], {"covariance": np.where(GOOD == 0.3, np.nan, GOOD)}, DataError, "missing or infinite"),
        (["a", "b", "c"], {"covariance": np.triu(GOOD)}, DataError, "not symmetric.*0.5"),
        (["a", "b", "c"], {"precision": np.triu(GOOD)}, DataError, "not symmetric"),
        (["a", "b", "c"], {"covariance": np.ones((3, 3))}, DataError, "not positive definite.*copies of one another"),
        (["a", "b", "c"], {"covariance": GOOD - np.eye(3)}, DataError, "not positive definite"),
        (["a", "b", "c"], {"precision": GOOD - np.eye(3)}, DataError, "precision is not positive definite"),
        (["a", "b", "c"], {"precision": np.zeros((3, 3))}, DataError, "precision is not positive definite"),
        ([], {"covariance": np.empty((0, 0))}, DataError, "no levels"),
    ],
)
def test_matrices_that_cannot_be(levels: Any, matrices: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        KnownCovariance(levels, **matrices)


def test_sparse_precisions_that_are_not_positive_definite() -> None:
    """A random walk along 40 levels has no proper covariance; with something added it has."""
    walk = diags_array([2.0 * np.ones(40), -np.ones(39), -np.ones(39)], offsets=[0, 1, -1]).tolil()
    walk[0, 0] = walk[39, 39] = 1.0
    with pytest.raises(DataError, match="not positive definite.*intrinsic.*added to its diagonal"):
        KnownCovariance(range(40), precision=walk.tocsr())
    proper = KnownCovariance(range(40), precision=walk.tocsr() + 0.1 * diags_array(np.ones(40)))
    matrix = (walk.tocsr() + 0.1 * diags_array(np.ones(40))).toarray()
    np.testing.assert_allclose(proper.log_det, -np.linalg.slogdet(matrix)[1], rtol=1e-10)
    indefinite = walk.tocsr() - 0.5 * diags_array(np.ones(40))
    with pytest.raises(DataError, match="not positive definite"):
        KnownCovariance(range(40), precision=indefinite)
    negative = walk.tocsr() - 3 * diags_array(np.ones(40))
    with pytest.raises(DataError, match="diagonal that are not positive"):
        KnownCovariance(range(40), precision=negative)


@pytest.mark.parametrize("seed", range(8))
def test_sparse_and_dense_precisions_agree(seed: int) -> None:
    rng = np.random.default_rng(seed)
    entries = rng.normal(size=(80, 80)) * (rng.random((80, 80)) < 0.02)
    matrix = entries @ entries.T + np.diag(10 ** rng.uniform(-2, 2, 80))
    matrix = (matrix + matrix.T) / 2
    known = KnownCovariance(range(80), precision=csr_array(matrix))
    np.testing.assert_allclose(known.log_det, -np.linalg.slogdet(matrix)[1], rtol=1e-9)
    order = known.levels.astype(int)
    np.testing.assert_allclose(known.precision.toarray(), matrix[np.ix_(order, order)])


def test_covariances_that_do_not_fit_the_model() -> None:
    data, pedigree, A = animals()
    formula = "y ~ x + (1 | animal)"
    few = A.loc[30:, 30:]
    cases: list[tuple[str, Any, type[Exception], str]] = [
        (formula, {"animal": few}, DataError, r"of 'animal' lacks 10 of its 41 levels: .*20.*add them"),
        (
            formula,
            {"animal": pd.DataFrame(A.to_numpy(), A.index.astype(str), A.index.astype(str))},
            DataError,
            "text against numbers",
        ),
        (formula, {"herd": A}, OptionError, "'herd', which is no grouping factor"),
        (formula, {"animals": A}, OptionError, "did you mean 'animal'"),
        ("y ~ x", {"animal": A}, OptionError, "no random effects"),
        (formula, A, OptionError, "must be a dict|dict from a grouping factor"),
        (formula, {"animal": A.to_numpy()}, OptionError, "must say which row belongs to which level"),
        (formula, {"animal": A.to_numpy().tolist()}, OptionError, "must say which row belongs to which level"),
        (formula, {"animal": A.rename(columns={1: 61})}, DataError, "other labels in its index than in its columns"),
        ("y ~ x + (1 | animal:herd)", {"animal:herd": A}, OptionError, "single column"),
        (formula, {"animal": A - A}, DataError, r"covariance\['animal'\]: the covariance is not positive definite"),
    ]
    for text, given, error, message in cases:
        with pytest.raises(error, match=message):
            Model(text, data, covariance=given)


def test_eight_hundred_animals_stay_sparse() -> None:
    frame = _random_pedigree(2, 800, 100)
    known = ml.pedigree(frame)
    assert known.precision.nnz < 8 * 800
    rng = np.random.default_rng(3)
    by = dict(zip(known.levels.tolist(), known.draw(rng, 1)[:, 0], strict=True))
    d = pd.DataFrame({"animal": np.arange(100, 801), "x": rng.normal(size=701)})
    d["y"] = d["x"] + [by[a] for a in d["animal"]] + rng.normal(size=701)
    fit = Model("y ~ x + (1 | animal)", d, covariance={"animal": known}).fit()
    assert fit.convergence.converged
    A = covariance(known).loc[list(fit.design.terms[0].levels), list(fit.design.terms[0].levels)].to_numpy()
    np.testing.assert_allclose(dense.of_fit(fit, {"animal": A}).criterion(True), fit.criterion, rtol=1e-10)


# -- size ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_five_thousand_animals_stay_sparse() -> None:
    rng = np.random.default_rng(3)
    count, founders = 5000, 200
    own = np.arange(founders, count)
    generation = np.maximum(0, own - 600)
    sire, dam = np.full(count, np.nan), np.full(count, np.nan)
    sire[founders:] = rng.integers(generation, own) // 2 * 2
    dam[founders:] = np.minimum(rng.integers(generation, own) // 2 * 2 + 1, own - 1)
    start = time.process_time()
    known = ml.pedigree(pd.DataFrame({"animal": np.arange(count), "sire": sire, "dam": dam}))
    assert known.precision.nnz < 12 * count
    effects = known.draw(rng, 1)[:, 0]
    by = dict(zip(known.levels.tolist(), effects, strict=True))
    d = pd.DataFrame({"animal": np.arange(1000, count), "herd": rng.integers(0, 100, count - 1000)})
    d["x"] = rng.normal(size=len(d))
    d["y"] = d["x"] + np.array([by[a] for a in d["animal"]]) + rng.normal(size=len(d)) + rng.normal(size=100)[d["herd"]]
    fit = Model("y ~ x + (1 | animal) + (1 | herd)", d, covariance={"animal": known}).fit()
    assert fit.convergence.converged
    ratio = dict(zip([t.group for t in fit.design.terms], fit.random_cov(), strict=True))["animal"][0, 0]
    assert 0.6 < ratio < 1.5
    assert time.process_time() - start < 60
