"""The engine at stated factors against the dense twin, its derivatives, and what must not change the answer."""

from __future__ import annotations

from typing import Any

import golden
import numpy as np
import pandas as pd
import pytest
from reference import Array, pack
from shapes import NAMES, draw, engine, generic, one, quiet_fit, shape, singular, solution_at, twin

import multilevel as ml
from multilevel import DataError, Model, OptionError
from multilevel.reml import Engine, check_start

CASES = [
    pytest.param(name, weighted, reml, id=f"{name}-{'w-' * weighted}{'REML' if reml else 'ML'}")
    for name in NAMES
    for weighted in (False, True)
    for reml in (True, False)
]
# weights and REML/ML each on every shape, not in every combination
HALF = [case for i, case in enumerate(CASES) if i % 4 in (0, 3)]


def model(name: str, weighted: bool) -> Model:
    return shape(name).weighted if weighted else shape(name).model


def close(found: Any, wanted: Any, tolerance: float = 1e-11, floor: float = 0.0) -> None:
    """Equal relative to the largest element wanted (or to `floor`, where that is larger)."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape
    scale = max(float(np.abs(wanted).max(initial=0.0)), floor)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * scale)


# --- kernel: against the dense twin


@pytest.mark.parametrize(("name", "weighted", "reml"), CASES)
def test_criterion_and_gradient_are_the_twins(name: str, weighted: bool, reml: bool) -> None:
    m = model(name, weighted)
    mine, dense = m.engine(1), twin(m.design)
    for kind in ("generic", "zero", "first", "column"):
        factors = generic(m.design) if kind == "generic" else singular(m.design, kind)
        assert mine.criterion(factors, reml) == pytest.approx(dense.criterion(factors, reml), rel=1e-12)
        assert mine.criterion(factors, reml, 1.7) == pytest.approx(dense.criterion(factors, reml, 1.7), rel=1e-12)
        for found, wanted in zip(mine.gradient(factors, reml), dense.gradient(factors, reml), strict=True):
            close(found, wanted, floor=1.0)


@pytest.mark.parametrize(("name", "weighted", "reml"), HALF)
def test_estimates_are_the_twins(name: str, weighted: bool, reml: bool) -> None:
    m = model(name, weighted)
    mine, dense = m.engine(1), twin(m.design)
    for kind in ("generic", "zero", "first", "column"):
        factors = generic(m.design) if kind == "generic" else singular(m.design, kind)
        found, wanted = solution_at(mine, factors, reml), dense.solution(factors, reml)
        assert found.sigma == pytest.approx(wanted.sigma, rel=1e-12)
        assert found.criterion == pytest.approx(dense.criterion(factors, reml), rel=1e-12)
        close(found.beta, wanted.beta)
        close(found.vcov, wanted.vcov)
        for one_found, one_wanted in zip(found.b, wanted.b, strict=True):
            close(one_found, one_wanted, floor=1e-3)
        for back, given in zip(found.lambdas, factors, strict=True):
            np.testing.assert_allclose(back @ back.T, given @ given.T, rtol=0, atol=1e-14)
        covs = dense.conditional_cov(factors, wanted.sigma)
        for one_found, one_wanted in zip(mine.conditional_cov(found), covs, strict=True):
            close(one_found, one_wanted, floor=1e-3)


@pytest.mark.parametrize(("name", "weighted", "reml"), HALF)
def test_estimation_variance_on_and_off_the_pattern(name: str, weighted: bool, reml: bool) -> None:
    m = model(name, weighted)
    design = m.design
    mine, dense = m.engine(1), twin(design)
    rng = np.random.default_rng(3)
    rows = rng.choice(len(design.y), 12)
    for factors in (generic(design), singular(design, "column")):
        at = solution_at(mine, factors, reml)
        seen, mixed = [], []
        for t, term in enumerate(design.terms):
            z = np.ones((len(rows), 1)) if term.Z is None else term.Z[rows]
            seen.append((t, term.codes[rows], z))
            drawn = rng.integers(-1, len(term.levels), len(rows)).astype(np.int32)
            codes = next((c for u, c, _ in mixed if design.terms[u].group == term.group), drawn)
            mixed.append((t, codes, rng.normal(size=z.shape)))
        for parts in (seen, mixed, []):
            wanted = dense.prediction_var(factors, at.sigma, design.X[rows], parts)
            close(mine.estimation_var(at, design.X[rows], parts), wanted, floor=1e-3)


def test_levels_that_never_met_are_solved_for() -> None:
    """The pattern route says where it does not reach; on the pattern both routes agree."""
    from multilevel import _core

    design = shape("crossed, scattered").model.design
    mine = engine(shape("crossed, scattered").model)
    factors = generic(design)
    at = solution_at(mine, factors, True)
    state = mine.state(True, at.engine_lambdas)
    a, b = design.terms[0].codes, design.terms[1].codes
    x = np.zeros((2, mine.blocks.p))
    met, apart = (a[0], b[0]), (a[0], next(j for j in range(len(design.terms[1].levels)) if j not in b[a == a[0]]))
    codes = [np.array([met[i], apart[i]], dtype=np.int32) for i in range(2)]
    effects = [np.full((2, 1), root[0, 0]) for root in at.engine_lambdas]
    raw = np.asarray(_core.estimation_var(state, x, codes, effects, list(range(len(codes))), True))
    assert np.isfinite(raw[0])
    assert np.isnan(raw[1])
    state = mine.state(True, at.engine_lambdas)
    solved = mine._solved_var(state, x, codes, effects)
    assert solved[0] == pytest.approx(raw[0], rel=1e-12)
    assert np.isfinite(solved[1])


def test_offset_shifts_the_response() -> None:
    s = shape("crossed slopes")
    data = s.data.assign(o=s.data["x3"] * 3 + 2)
    m = Model(s.formula, data, offset="o")
    factors = generic(m.design)
    assert m.engine(1).criterion(factors) == pytest.approx(twin(m.design).criterion(factors), rel=1e-12)
    moved = Model(s.formula, data.assign(y=data["y"] - data["o"])).engine(1)
    assert m.engine(1).criterion(factors) == pytest.approx(moved.criterion(factors), rel=1e-13)


# --- derivative


@pytest.mark.parametrize(("name", "weighted", "reml"), CASES)
def test_gradient_is_a_central_difference(name: str, weighted: bool, reml: bool) -> None:
    m = model(name, weighted)
    mine = m.engine(1)
    theta = np.concatenate(
        [s.to_theta(f) for s, f in zip(mine.blocks.structures, generic(m.design), strict=True)] or [np.empty(0)]
    )
    found = m.gradient(theta, reml)
    assert found.shape == theta.shape
    step = 1e-5
    for i in range(len(theta)):
        move = step * np.eye(len(theta))[i]
        far = m.criterion(theta + 2 * move, reml) - m.criterion(theta - 2 * move, reml)
        near = m.criterion(theta + move, reml) - m.criterion(theta - move, reml)
        assert found[i] == pytest.approx((8 * near - far) / (12 * step), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        "intercept",
        "slope",
        "uncorrelated",
        "merged blocks",
        "crossed slopes",
        "with their interaction",
        "chain with slopes",
        "crossed, scattered, slopes",
        "no fixed effects, crossed",
    ],
)
@pytest.mark.parametrize("reml", [True, False])
def test_curvature_is_the_hessian(name: str, reml: bool) -> None:
    """Along every free direction: the twin's exact gradient differenced, sigma held and sigma profiled out."""
    m = shape(name).model
    mine, dense = m.engine(1), twin(m.design)
    at = solution_at(mine, generic(m.design), reml)
    facts = mine.curvature(at)
    moves = [user_direction(mine, d.group, d.matrix()) for d in facts.directions]
    step = 1e-4

    def slopes(sigma: float | None, signed: float, move: tuple[Array, ...]) -> list[float]:
        factors = [f + signed * d for f, d in zip(base, move, strict=True)]
        g = dense.gradient(factors, reml, sigma)
        return [float(sum(np.vdot(a, b) for a, b in zip(g, other, strict=True))) for other in moves]

    base = user_direction(mine, None, None, at.engine_lambdas)
    for sigma, found in ((at.sigma, facts.hessian), (None, facts.profiled)):
        wanted = [(np.array(slopes(sigma, step, move)) - slopes(sigma, -step, move)) / (2 * step) for move in moves]
        close(found, np.array(wanted), 1e-6)


def user_direction(mine: Engine, group: int | None, matrix: Array | None, whole: Any = None) -> tuple[Array, ...]:
    """Engine coordinates to a factor per term, not turned to be lower triangular."""
    out = [np.zeros((s.k, s.k)) for s in mine.blocks.structures]
    for f, g in enumerate(mine.blocks.groups):
        if whole is None and f != group:
            continue
        user = g.basis @ (matrix if whole is None else whole[f])
        for t, part in zip(g.terms, g.slices, strict=True):
            out[t] = user[part, part]
    return tuple(out)


# --- invariance, at stated factors and at the optimum


ORDINARY = [
    "slope",
    "uncorrelated",
    "merged blocks",
    "crossed slopes",
    "with their interaction",
    "crossed, panel",
    "crossed, scattered",
    "chain with slopes",
    "sparse mesh",
]


def same(first: Any, second: Any, tolerance: float = 1e-10) -> None:
    assert second.criterion == pytest.approx(first.criterion, rel=tolerance)
    close(second.beta, first.beta, 1e-8)
    close(np.abs(second.theta), np.abs(first.theta), 1e-6)


@pytest.mark.parametrize("name", ORDINARY)
def test_order_of_rows(name: str) -> None:
    s = shape(name)
    order = np.random.default_rng(1).permutation(len(s.data))
    other = Model(s.formula, s.data.iloc[order])
    factors = generic(s.model.design)
    assert other.engine(1).criterion(factors) == pytest.approx(s.model.engine(1).criterion(factors), rel=1e-12)
    for a, b in zip(other.engine(1).gradient(factors), s.model.engine(1).gradient(factors), strict=True):
        close(a, b, 1e-10, 1.0)
    first, second = s.model.engine(1).fit(), other.engine(1).fit()
    same(first, second)
    for a, b in zip(first.b, second.b, strict=True):
        close(b, a, 1e-6)


@pytest.mark.parametrize("name", ORDINARY)
def test_labels_of_levels(name: str) -> None:
    s = shape(name)
    rng = np.random.default_rng(2)
    data = s.data.copy()
    for group in {c for t in s.model.design.terms for c in t.columns}:
        old = sorted(data[group].unique())
        data[group] = data[group].map(dict(zip(old, rng.permutation(len(old)), strict=True)))
    other = Model(s.formula, data)
    factors = generic(s.model.design)
    assert other.engine(1).criterion(factors) == pytest.approx(s.model.engine(1).criterion(factors), rel=1e-12)
    same(s.model.engine(1).fit(), other.engine(1).fit())


@pytest.mark.parametrize(
    "name",
    [
        "merged blocks",
        "crossed slopes",
        "with their interaction",
        "chain with slopes",
        "three crossed",
        "chain and crossed",
        "sparse mesh",
    ],
)
def test_order_of_terms(name: str) -> None:
    s = shape(name)
    terms = s.formula.split(" + (")
    turned = " + (".join([terms[0], *terms[:0:-1]])
    other = Model(turned, s.data)
    factors = generic(s.model.design)
    assert other.engine(1).criterion(factors[::-1]) == pytest.approx(s.model.engine(1).criterion(factors), rel=1e-12)
    first, second = s.model.engine(1).fit(), other.engine(1).fit()
    assert second.criterion == pytest.approx(first.criterion, rel=1e-10)
    for a, b in zip(first.lambdas, second.lambdas[::-1], strict=True):
        close(b @ b.T, a @ a.T, 1e-5, 1e-4)


@pytest.mark.parametrize("name", [*ORDINARY, "no groups"])
def test_threads(name: str) -> None:
    """Not a digit: every sum is made in one order."""
    m = shape(name).model
    factors = generic(m.design)
    first, second = engine(m, 1), engine(m, 4)
    assert first.criterion(factors) == second.criterion(factors)
    for a, b in zip(first.gradient(factors), second.gradient(factors), strict=True):
        np.testing.assert_array_equal(a, b)
    assert first.fit().criterion == second.fit().criterion


@pytest.mark.parametrize("name", ["slope", "crossed slopes", "merged blocks"])
def test_weights_as_repeated_rows(name: str) -> None:
    """With sigma given, the criteria differ by what counts rows, n log(2 pi sigma^2), and by the weights' -sum(log w)."""
    s = shape(name)
    times = np.random.default_rng(4).integers(1, 4, len(s.data))
    weighted = Model(s.formula, s.data, weights=times.astype(float)).engine(1)
    repeated = Model(s.formula, s.data.loc[s.data.index.repeat(times)]).engine(1)
    factors = generic(s.model.design)
    for reml in (True, False):
        more = (times.sum() - len(times)) * np.log(2 * np.pi * 1.3**2) + np.log(times).sum()
        assert repeated.criterion(factors, reml, 1.3) == pytest.approx(
            weighted.criterion(factors, reml, 1.3) + more, rel=1e-12
        )
        one_way, other = solution_at(weighted, factors, reml), solution_at(repeated, factors, reml)
        close(other.beta, one_way.beta, 1e-10)
        for a, b in zip(one_way.b, other.b, strict=True):
            close(b, a, 1e-10)


@pytest.mark.parametrize("unit", [4.0, 1e6, 1e-6, 1e14, 1e-14])
def test_unit_of_the_weights(unit: float) -> None:
    """A constant factor belongs to sigma alone; 1e14 is what standard errors of 1e-7 give as 1 / se^2."""
    s = shape("crossed slopes")
    plain, other = quiet_fit(s.weighted), quiet_fit(Model(s.formula, s.data.assign(w=unit * s.data["w"]), weights="w"))
    assert other.criterion == pytest.approx(plain.criterion, rel=1e-10)
    assert other.sigma == pytest.approx(np.sqrt(unit) * plain.sigma, rel=1e-7)
    assert other.is_singular == plain.is_singular
    close(other.vcov(), plain.vcov(), 1e-7)
    for a, b in zip(plain.random_cov(), other.random_cov(), strict=True):
        close(b, a, 1e-5)


@pytest.mark.parametrize("name", ORDINARY)
@pytest.mark.parametrize(("factor", "shift"), [(1e6, 0.0), (1e-8, 0.0), (1.0, 1e6), (-3.0, 12.0)])
def test_scale_of_the_response(name: str, factor: float, shift: float) -> None:
    s = shape(name)
    moved = Model(s.formula, s.data.assign(y=factor * s.data["y"] + shift))
    tolerance = 1e-10 if shift < 1e3 else 1e-9  # y of 1e6 holds ten digits of what varies
    for reml in (True, False):
        first, second = s.model.engine(1).fit(reml), moved.engine(1).fit(reml)
        df = s.model.engine(1).df(reml)
        wanted = first.criterion + 2 * df * np.log(abs(factor))
        assert second.criterion == pytest.approx(wanted, rel=tolerance, abs=1e-7)
        close(second.beta, factor * first.beta + shift * (np.arange(len(first.beta)) == 0), 1e-8)
        assert second.sigma == pytest.approx(abs(factor) * first.sigma, rel=1e-6)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize(("factor", "shift"), [(1e6, 0.0), (1e-5, 0.0), (1.0, 2000.0), (365.25, -7.0)])
def test_scale_and_centre_of_a_predictor(reml: bool, factor: float, shift: float) -> None:
    """(x | a) is the same model for any a + b x; the REML criterion shifts by the Jacobian log|T|^2, ML not at all."""
    s = shape("crossed slopes")
    moved = s.data.assign(x1=factor * s.data["x1"] + shift)
    first, second = quiet_fit(s.model, reml), quiet_fit(Model(s.formula, moved), reml)
    jacobian = 2 * np.log(factor) if reml else 0.0
    assert second.criterion == pytest.approx(first.criterion + jacobian, rel=1e-10)
    np.testing.assert_allclose(second.fitted(), first.fitted(), rtol=0, atol=1e-6 * np.ptp(first.fitted()))
    assert second.sigma == pytest.approx(first.sigma, rel=1e-7)


def test_duplicated_information_changes_nothing_else() -> None:
    """An unused level and an unused column leave the engine as it was."""
    s = shape("slope")
    data = s.data.assign(a=pd.Categorical(s.data["a"], [*sorted(s.data["a"].unique()), "never"]), junk=1)
    assert Model(s.formula, data).engine(1).fit().criterion == s.model.engine(1).fit().criterion


# --- the entry points for a theta


def test_criterion_and_gradient_take_lme4s_theta() -> None:
    stored = golden.golden("sleepstudy_random_slope", "ML")
    m = ml.Model(stored.formula, ml.load("sleepstudy"))
    assert m.criterion(stored.theta, reml=False) == pytest.approx(stored.criterion, rel=1e-12)
    assert np.abs(m.gradient(stored.theta, reml=False)).max() < 1e-4
    with_sigma = m.criterion(stored.theta, reml=False, sigma=1.01 * stored.sigma)
    assert with_sigma > m.criterion(stored.theta, reml=False, sigma=stored.sigma) - 1e-9
    assert m.criterion(stored.theta, reml=False, sigma=stored.sigma) == pytest.approx(stored.criterion, rel=1e-12)
    both = ml.Model("Reaction ~ Days + (Days || Subject)", ml.load("sleepstudy"))
    assert len(both.gradient([1.0, 0.2])) == 2
    dense = twin(both.design)
    factors = [np.array([[1.0]]), np.array([[0.2]])] if len(both.design.terms) == 2 else [np.diag([1.0, 0.2])]
    structures = [t.structure for t in both.design.terms]
    wanted = pack(dense.gradient(factors), dense._free(structures))
    np.testing.assert_allclose(both.gradient([1.0, 0.2]), wanted, rtol=1e-10)


@pytest.mark.parametrize("start", [[1.0], [1, 2, 3, 4], [1, np.nan, 1], [1, np.inf, 1]])
def test_start_of_a_wrong_length_or_value(start: list[float]) -> None:
    m = shape("slope").model
    with pytest.raises(OptionError, match="3 finite covariance parameters"):
        check_start(start, m.engine(1))
    with pytest.raises(OptionError, match="3 finite"):
        m.fit(start=start)
    with pytest.raises(OptionError, match="3 finite"):
        m.criterion(start)


def test_a_response_that_the_effects_reproduce() -> None:
    """No residual variance: said, not returned as a number."""
    data = draw(60, one(6, 60), 1)
    data["y"] = 3.0 + 2.0 * data["x1"]
    with pytest.raises(DataError, match=r"'y' is an exact linear function of the fixed effects"):
        Model("y ~ x1 + (1 | a)", data).fit()
    data["y"] = data["a"].astype("category").cat.codes * 1.5 + 2.0 * data["x1"]
    with pytest.raises(DataError, match="residual variance is zero"):
        Model("y ~ x1 + (1 | a)", data).fit()


def test_more_fixed_effects_than_rows() -> None:
    data = draw(6, one(2, 6), 2)
    with pytest.raises(DataError, match="exact linear function|cannot carry"):
        Model("y ~ x1 + x2 + x3 + x4 + x5 + (1 | a)", data).fit()
