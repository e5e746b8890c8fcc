"""Kenward and Roger's method against n x n matrices written as in their paper, and against pbkrtest."""

from __future__ import annotations

import golden
import numpy as np
import pandas as pd
import pytest
from shapes import Array, quiet_fit, shape, twin

import multilevel as ml
from multilevel import Fit, Model, OptionError, inference
from multilevel.kenward_roger import Adjustment, _scale_and_df, adjustment, separate_sets

SHAPES = [
    "no groups",
    "intercept",
    "mean only",
    "six fixed effects",
    "slope",
    "no intercept",
    "three effects",
    "factor effects",
    "uncorrelated",
    "uncorrelated factor",
    "merged",
    "merged blocks",
    "crossed",
    "crossed slopes",
    "crossed, panel, slopes",
    "crossed, scattered, slopes",
    "three crossed",
    "interaction slopes",
    "small chain",
    "chain with slopes",
    "sparse mesh",
    "chain and crossed",
]


def derivatives(fit: Fit) -> list[Array]:
    """G_r of Kenward & Roger: dV by each entry of each covariance, then by the residual variance; all n x n."""
    dense = twin(fit.design)
    out = []
    for term, Z, levels in zip(fit.design.terms, dense.Z, dense.levels, strict=True):
        k = len(term.names)
        for a in range(k):
            for b in range(a, k):
                if a != b and term.structure == "diag":
                    continue
                entry = np.zeros((k, k))
                entry[a, b] = entry[b, a] = 1.0
                out.append(Z @ np.kron(np.eye(levels), entry) @ Z.T)
    return [*out, np.diag(1 / dense.weights)]


def by_definition(fit: Fit) -> tuple[Array, Array, list[Array], Array]:
    """(Phi, adjusted Phi, P, W) as Kenward & Roger (1997) write them, from V and its inverse."""
    X, G = fit.design.X, derivatives(fit)
    V = fit.sigma**2 * G[-1]
    dense = twin(fit.design)
    for cov, Z, levels in zip(fit.random_cov(), dense.Z, dense.levels, strict=True):
        V = V + Z @ np.kron(np.eye(levels), cov) @ Z.T
    inverse = np.linalg.inv(V)
    phi = np.linalg.inv(X.T @ inverse @ X)
    moved = [inverse @ g for g in G]
    P = [-X.T @ h @ inverse @ X for h in moved]
    r = len(G)
    Q = [[X.T @ moved[i] @ moved[j] @ inverse @ X for j in range(r)] for i in range(r)]
    information = np.array(
        [
            [
                np.sum(moved[i] * moved[j].T) - 2 * np.trace(phi @ Q[i][j]) + np.trace(phi @ P[i] @ phi @ P[j])
                for j in range(r)
            ]
            for i in range(r)
        ]
    )
    root = np.sqrt(np.diag(information))
    W = 2 * np.linalg.inv(information / np.outer(root, root)) / np.outer(root, root)
    U = sum(W[i, j] * (Q[i][j] - P[i] @ phi @ P[j]) for i in range(r) for j in range(r))
    return phi, phi + 2 * phi @ U @ phi, P, W


def test_of(phi: Array, P: list[Array], W: Array, L: Array) -> tuple[float, float]:
    """(scale, df) of an F test by definition."""
    theta = L.T @ np.linalg.solve(L @ phi @ L.T, L)
    u = [theta @ phi @ one @ phi for one in P]
    a1 = sum(W[i, j] * np.trace(u[i]) * np.trace(u[j]) for i in range(len(P)) for j in range(len(P)))
    a2 = sum(W[i, j] * np.trace(u[i] @ u[j]) for i in range(len(P)) for j in range(len(P)))
    return _scale_and_df(len(L), a1, a2)


test_of.__test__ = False  # type: ignore[attr-defined]


def compare(fit: Fit, rtol: float = 1e-8) -> None:
    phi, adjusted, P, W = by_definition(fit)
    found = adjustment(fit)
    scale = np.sqrt(np.diag(adjusted))
    np.testing.assert_allclose(
        found.vcov / np.outer(scale, scale), adjusted / np.outer(scale, scale), rtol=0, atol=rtol
    )
    p = len(phi)
    rng = np.random.default_rng(1)
    for L in [*np.eye(p)[:, None, :], rng.normal(size=(1, p))]:
        assert found.degrees(L)[0] == pytest.approx(test_of(phi, P, W, L)[1], rel=rtol * 10)
    for q in range(2, p + 1):
        L = rng.normal(size=(q, p))
        assert found.scale(L) == pytest.approx(test_of(phi, P, W, L), rel=rtol * 100)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_the_definition(name: str, weighted: bool) -> None:
    s = shape(name)
    compare(quiet_fit(s.weighted if weighted else s.model))


@pytest.mark.parametrize("scale", [0.0, 0.02])
@pytest.mark.parametrize(
    "name", ["slope", "three effects", "uncorrelated", "crossed slopes", "crossed", "small chain", "factor effects"]
)
def test_it_is_the_definition_on_the_boundary(name: str, scale: float) -> None:
    """Responses without variation between groups: zero variances, perfect correlations; nothing is dropped, nothing NaN."""
    s = shape(name)
    rng = np.random.default_rng([5, len(name)])
    data = s.data.assign(y=1 + s.data["x1"] + rng.normal(size=len(s.data)) + scale * s.data["x2"])
    fit = quiet_fit(Model(s.formula, data))
    assert fit.is_singular
    compare(fit)


def test_far_apart_variances_keep_their_digits() -> None:
    rng = np.random.default_rng(3)
    a = np.repeat(np.arange(12), 20)
    for ratio in (1e-3, 1e3):
        y = ratio * rng.normal(size=12)[a] + rng.normal(size=240)
        data = pd.DataFrame({"y": y, "a": a, "x": rng.normal(size=240)})
        compare(quiet_fit(Model("y ~ x + (1 | a)", data)), 1e-7)


STORED = [fit for fit in golden.fits() if "kenward_roger" in fit.raw]


@pytest.mark.parametrize("reference", STORED, ids=lambda fit: fit.id)
@pytest.mark.filterwarnings("ignore::multilevel.ConvergenceWarning")
def test_it_is_pbkrtests(reference: golden.Golden) -> None:
    """As far as lme4's optimum is ours: standard errors to 2e-7. At a zero variance pbkrtest keeps it as a parameter."""
    fit = quiet_fit(Model(reference.formula, reference.frame(), **reference.arguments()))
    order = [fit.design.names.index(name) for name in reference.names]
    table = fit.fixef(ddf="kenward-roger").iloc[order]
    wanted = reference.raw["kenward_roger"]
    np.testing.assert_allclose(table["std_error"], np.array(wanted["std_error"], float), rtol=5e-7)
    np.testing.assert_allclose(table["df"], np.array(wanted["df"], float), rtol=1e-6)
    np.testing.assert_allclose(table["p_value"], np.array(wanted["p"], float), rtol=1e-4)
    adjusted = adjustment(fit).vcov[np.ix_(order, order)]
    np.testing.assert_allclose(
        adjusted, np.array(wanted["vcov_adjusted"], float), rtol=1e-6, atol=1e-6 * np.abs(np.diag(adjusted)).min()
    )


def test_a_large_crossed_design() -> None:
    """InstEval by columns of Z'V^-1 Z: 4,114 random effects, no n x n matrix."""
    fit = Model("y ~ service + (1 | s) + (1 | d) + (1 | dept)", ml.load("insteval")).fit()
    found = adjustment(fit)
    assert np.all(np.diag(found.vcov) > np.diag(fit.vcov()))
    df = found.degrees(np.eye(2))
    assert 10 < df[0] < 20  # departments, mostly: there are 14
    np.testing.assert_allclose(df, fit.fixef()["df"], rtol=0.1)  # of the order of Satterthwaite's


@pytest.mark.filterwarnings("ignore::multilevel.RankWarning")
def test_dropped_columns_do_not_matter() -> None:
    data = shape("crossed").data
    data = data.assign(twice=2 * data["x1"], third=data["x2"] + data["x1"])
    fit = quiet_fit(Model("y ~ x1 + twice + x2 + third + (1 | a) + (1 | b)", data))
    assert fit.design.dropped == ("twice", "third")
    compare(fit)
    plain = quiet_fit(Model("y ~ x1 + x2 + (1 | a) + (1 | b)", data))
    table = fit.fixef(ddf="kenward-roger").set_index("term")
    assert np.isnan(table.loc["twice", "df"])
    np.testing.assert_allclose(table["df"].dropna(), plain.fixef(ddf="kenward-roger")["df"], rtol=1e-9)


def test_units_do_not_matter() -> None:
    data = ml.load("math10")
    base = Model("math ~ homework + ses + (homework | schid)", data).fit()
    far = data.assign(homework=data["homework"] * 1e5, math=data["math"] / 1e4, ses=data["ses"] * 1e-3)
    other = Model("math ~ homework + ses + (homework | schid)", far).fit()
    one, two = base.fixef(ddf="kenward-roger"), other.fixef(ddf="kenward-roger")
    np.testing.assert_allclose(two["df"], one["df"], rtol=1e-7)
    np.testing.assert_allclose(two["statistic"], one["statistic"], rtol=1e-7)
    rows = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    first, second = inference.f_test(base, rows, "kenward-roger"), inference.f_test(other, rows, "kenward-roger")
    np.testing.assert_allclose(second, first, rtol=1e-6)


def test_scaled_weights_are_no_news() -> None:
    s = shape("crossed slopes")
    one = adjustment(quiet_fit(s.weighted))
    two = adjustment(quiet_fit(Model(s.formula, s.data.assign(w=s.data["w"] * 1e4), weights="w")))
    np.testing.assert_allclose(two.vcov, one.vcov, rtol=1e-7)


def test_without_groups_it_is_the_linear_model() -> None:
    fit = shape("no groups").model.fit()
    found = adjustment(fit)
    np.testing.assert_allclose(found.vcov, fit.vcov(), rtol=1e-12)
    np.testing.assert_allclose(found.degrees(np.eye(3)), 37.0, rtol=1e-12)
    assert found.scale(np.eye(3)) == pytest.approx((1.0, 37.0), rel=1e-9)


def test_hotellings_case_is_exact() -> None:
    """Balanced random slopes: the F test of both coefficients is Hotelling's, F(2, J - 2) with factor (J - 2)/(J - 1)."""
    fit = Model("Reaction ~ Days + (Days | Subject)", ml.load("sleepstudy")).fit()
    factor, df = adjustment(fit).scale(np.eye(2))
    assert df == pytest.approx(16.0, rel=1e-8)
    assert factor == pytest.approx(16 / 17, rel=1e-8)


def test_levels_that_never_meet_share_right_hand_sides() -> None:
    nested = quiet_fit(shape("small chain").model).engine.blocks  # c/b/a: 4 regions
    names = [group.name for group in nested.groups]
    numbers = separate_sets(nested)
    region = numbers[names.index("c")]
    assert region.max() == 0 and len(region) == 4
    crossed = quiet_fit(shape("crossed").model).engine.blocks
    for group, number in zip(crossed.groups, separate_sets(crossed), strict=True):
        assert sorted(number.tolist()) == list(range(group.levels))
    alone = quiet_fit(shape("slope").model).engine.blocks
    assert not separate_sets(alone)[0].any()


def test_small_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from multilevel import kenward_roger

    fit = quiet_fit(shape("crossed slopes").model)
    whole = adjustment(fit)
    monkeypatch.setattr(kenward_roger, "CHUNK", 1)
    parts: Adjustment = adjustment(fit)
    np.testing.assert_allclose(parts.vcov, whole.vcov, rtol=1e-12)
    np.testing.assert_allclose(parts.weight, whole.weight, rtol=1e-10)


def test_it_leaves_the_fit_as_it_was() -> None:
    fit = quiet_fit(shape("crossed slopes").model)
    criterion = fit.engine.criterion(fit.optimum.lambdas, True)
    adjustment(fit)
    assert fit.engine.criterion(fit.optimum.lambdas, True) == criterion
    again = quiet_fit(Model(fit.formula, shape("crossed slopes").data))
    np.testing.assert_allclose(fit.fixef()["df"], again.fixef()["df"], rtol=1e-9)


def test_it_works_on_a_fit_saved_without_rows(tmp_path: object) -> None:
    for name in ("crossed slopes", "slope", "small chain"):
        fit = quiet_fit(shape(name).model)
        path = f"{tmp_path}/fit.mlm"
        fit.save(path)
        again = ml.read(path)
        one, two = fit.fixef(ddf="kenward-roger"), again.fixef(ddf="kenward-roger")
        np.testing.assert_allclose(two["df"], one["df"], rtol=1e-9)
        np.testing.assert_allclose(two["std_error"], one["std_error"], rtol=1e-9)


def test_maximum_likelihood_is_refused() -> None:
    fit = Model("Reaction ~ Days + (Days | Subject)", ml.load("sleepstudy")).fit(reml=False)
    with pytest.raises(
        OptionError, match=r"defined for REML fits and this one is by maximum likelihood; fit with reml=True"
    ):
        fit.fixef(ddf="kenward-roger")


@pytest.mark.parametrize("q", [2, 3, 5])
def test_the_factor_with_known_covariances_is_one(q: int) -> None:
    factor, df = _scale_and_df(q, 1e-9 * q, 1e-9)
    assert factor == pytest.approx(1.0, abs=1e-6)
    assert df > 1e6
