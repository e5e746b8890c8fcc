"""Shares of the variance of the response, against closed forms, Monte Carlo and brute-force integrals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from generalised_models import MODELS, TICKS, fitted
from numpy.typing import NDArray

import multilevel as ml
from multilevel.generalised import GeneralisedFit
from multilevel.generalised_response_shares import JointParts, polynomials, response_parts

Array = NDArray[np.float64]

pytestmark = pytest.mark.filterwarnings("ignore::multilevel.errors.MultilevelWarning")


def parts_of(fit: Any) -> JointParts:
    made = response_parts(fit)
    assert isinstance(made, JointParts)
    return made


def ticks(formula: str = TICKS, family: str = "poisson") -> Any:
    data = ml.load("grouseticks").astype({"YEAR": "category"})
    return ml.Model(formula, data, family=family).fit(threads=1)


@pytest.mark.parametrize("family", ["poisson", "nbinom2", "nbinom1"])
def test_counts_have_a_closed_form(family: str) -> None:
    """Lognormal means: E = exp(eta + s2 / 2), variance between groups (exp(s2) - 1) E^2, of one factor with its s2."""
    fit = ticks(family=family)
    eta = fit._eta[0]
    alone = [float(cov[0, 0]) for cov in fit.random_cov()]
    s2 = sum(alone)
    mean = np.exp(eta + s2 / 2)
    between = np.mean(np.expm1(s2) * mean**2)
    size = np.exp(fit._parameters[0])
    more = {"poisson": 0.0 * mean, "nbinom2": mean**2 * np.exp(s2) / size, "nbinom1": mean * size}[family]
    within, fixed = np.mean(mean + more), np.var(mean)
    made = fit.icc(scale="response")["estimate"]
    np.testing.assert_allclose(made, [between / (between + within), between / (between + within + fixed)], rtol=1e-10)
    total = between + within + fixed
    np.testing.assert_allclose(fit.r2(scale="response")["estimate"], [fixed / total, (fixed + between) / total], rtol=1e-10)
    single = np.array([np.mean(np.expm1(v) * mean**2) for v in alone])
    by = fit.icc(by_group=True, scale="response")
    np.testing.assert_allclose(by["estimate"][:2], single / (between + within), rtol=1e-9)
    np.testing.assert_allclose(by["estimate"][2:], single / total, rtol=1e-9)


@pytest.mark.parametrize("name", ["binomial", "two values", "zero-inflated", "hurdle", "gamma"])
def test_variances_are_those_of_draws(name: str) -> None:
    """Against 4,000 draws of the group effects (Goldstein, Browne & Rasbash 2002) and, within groups, of the response."""
    fit = fitted(name)
    d, rng, n = fit.design, np.random.default_rng(8), 4000
    first, second = fit._parameters
    rows = np.arange(0, len(d.y), max(1, len(d.y) // 200))
    term = d.terms[0]
    z = np.ones((len(d.y), 1)) if term.Z is None else term.Z
    b = rng.standard_normal((n, z.shape[1])) @ fit.optimum.lambdas[0].T
    eta = fit._eta[0][rows] + b @ z[rows].T
    mean = np.array([fit.family.expected(one, first[rows], second[rows]) for one in eta])
    y = np.array([fit.family.draw(rng, one, first[rows], second[rows], None) for one in eta])
    small = fit.model.with_design(d)
    found = parts_of(GeneralisedFit(small, fit.optimum, fit.engine))
    between = mean.var(axis=0)
    error = 4 * between.mean() * np.sqrt(2 / n) * 1.5
    # the draws are of every so many rows, so are compared with these rows' own integrals
    from multilevel import generalised_response_shares as shares
    from multilevel.generalised_rows import link_width
    from multilevel.normal_mean import normal_mean

    s = np.sqrt(np.einsum("ij,jk,ik->i", z, fit.random_cov()[0], z))[rows]
    made = normal_mean(
        lambda v, at: np.column_stack(shares.moments_at(fit.family, v, first[rows][at], second[rows][at])),
        fit._eta[0][rows], s, link_width(fit.family), shares.tilt(fit.family),
    )  # fmt: skip
    assert np.mean(made[:, 1] - made[:, 0] ** 2) == pytest.approx(between.mean(), abs=error)
    within = np.mean((y - mean) ** 2)
    assert made[:, 2].mean() == pytest.approx(within, rel=0.05)
    everything = parts_of(fit)
    assert everything.joint[0] == found.joint[0] > 0
    total = everything.fixed + everything.joint + everything.residual
    np.testing.assert_allclose(fit.r2(scale="response")["estimate"][1], (everything.fixed + everything.joint) / total)


def test_one_factor_of_two_by_brute_force() -> None:
    """Crossed factors, probit: the variance of the mean given one effect, by the product of two Gauss-Hermite rules."""
    rng = np.random.default_rng(3)
    g, h = np.repeat(np.arange(20), 20), np.tile(np.arange(20), 20)
    eta = 0.4 + rng.standard_normal(20)[g] + 0.6 * rng.standard_normal(20)[h]
    data = pd.DataFrame({"y": (eta + rng.standard_normal(400) > 0).astype(float), "g": g, "h": h})
    fit: Any = ml.Model("y ~ 1 + (1 | g) + (1 | h)", data, family="binomial", link="probit").fit(threads=1)
    from scipy.special import ndtr

    s = [float(np.sqrt(cov[0, 0])) for cov in fit.random_cov()]
    nodes, w = np.polynomial.hermite_e.hermegauss(60)
    w = w / w.sum()
    mean = ndtr(fit.optimum.beta[0] + s[0] * nodes[:, None] + s[1] * nodes)
    overall = w @ mean @ w
    alone = [w @ (mean @ w) ** 2 - overall**2, (w @ mean) ** 2 @ w - overall**2]
    joint = w @ mean**2 @ w - overall**2
    made = parts_of(fit)
    np.testing.assert_allclose(made.groups[0], alone, rtol=1e-7)
    assert made.joint[0] == pytest.approx(joint, rel=1e-7) and sum(alone) < joint
    assert made.residual[0] + made.joint[0] == pytest.approx(overall * (1 - overall), rel=1e-9)


def test_a_level_for_every_row_counts_to_the_variance_within() -> None:
    fit = ticks(TICKS + " + (1 | INDEX)")
    groups = {t.group: float(cov[0, 0]) for t, cov in zip(fit.design.terms, fit.random_cov(), strict=True)}
    s2, kept = sum(groups.values()), groups["BROOD"] + groups["LOCATION"]
    mean = np.exp(fit._eta[0] + s2 / 2)
    between, everything = np.mean(np.expm1(kept) * mean**2), np.mean(np.expm1(s2) * mean**2 + mean)
    assert fit.icc(scale="response")["estimate"][0] == pytest.approx(between / everything, rel=1e-9)


def test_families_without_a_variance_behind_the_link() -> None:
    beta: Any = ml.Model("`yield` ~ temp + (1 | batch)", ml.load("gasolineyield"), family="beta").fit(threads=1)
    cauchit: Any = ml.Model(
        "cbind(incidence, size - incidence) ~ period + (1 | herd)", ml.load("cbpp"), family="binomial", link="cauchit"
    ).fit(threads=1)
    for fit in (beta, cauchit, fitted("zero-inflated"), fitted("hurdle")):
        with pytest.raises(ml.OptionError, match="scale='response' has the shares of the response itself"):
            fit.icc()
        icc, r2 = fit.icc(scale="response")["estimate"], fit.r2(scale="response")["estimate"]
        assert 0 < icc[1] < icc[0] < 1 and 0 < r2[0] < r2[1] < 1
    assert fitted("no groups").r2(scale="response")["estimate"][0] > 0


def test_what_has_no_variance() -> None:
    with pytest.raises(ml.OptionError, match="ordinal response has no mean"):
        fitted("ordinal").icc(scale="response")
    with pytest.raises(ml.OptionError, match="'link', 'response'"):
        fitted("binomial").r2(scale="observation")
    heavy: Any = ml.Model("Reaction ~ Days + (1 | Subject)", ml.load("sleepstudy"), family=ml.student(df=2)).fit(threads=1)
    with pytest.raises(ml.OptionError, match="no finite variance"):
        heavy.icc(scale="response")


def test_intervals_quadrature_and_polars(tmp_path: Any) -> None:
    fit = fitted("binomial")
    made = fit.icc(scale="response", interval="bootstrap", n=20, seed=1)
    assert ((made["conf_low"] <= made["estimate"]) & (made["estimate"] <= made["conf_high"])).all()
    nodes: Any = MODELS["binomial"]().fit(quadrature=9, threads=1)
    assert nodes.icc(scale="response")["estimate"][0] == pytest.approx(fit.icc(scale="response")["estimate"][0], rel=0.1)
    fit.save(tmp_path / "fit.mlv", data=True)
    again: Any = ml.read(tmp_path / "fit.mlv")
    np.testing.assert_allclose(again.r2(scale="response")["estimate"], fit.r2(scale="response")["estimate"], rtol=1e-10)
    fit.save(tmp_path / "fit.mlv")
    with pytest.raises(ml.DataError, match="saved without its data"):
        ml.read(tmp_path / "fit.mlv").icc(scale="response")  # type: ignore[call-arg]
    polars = pytest.importorskip("polars")
    columns = {name: ml.load("cbpp")[name].astype(str).to_list() for name in ("herd", "period")}
    counts = {name: ml.load("cbpp")[name].to_list() for name in ("incidence", "size")}
    other: Any = ml.Model(MODELS["binomial"]().formula.text, polars.DataFrame(columns | counts), family="binomial").fit()
    assert isinstance(other.icc(scale="response"), polars.DataFrame)


def test_polynomials_are_orthonormal() -> None:
    nodes, w = np.polynomial.hermite_e.hermegauss(100)
    h = polynomials(nodes)
    np.testing.assert_allclose((h * (w / w.sum())[:, None]).T @ h, np.eye(h.shape[1]), atol=1e-9)
