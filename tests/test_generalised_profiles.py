"""Profiles, intervals and bootstrap of generalised models: against lme4, glmmTMB and direct minimisation; at the ends."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from generalised_models import CBPP, MODELS, TICKS, fitted, wine
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import minimize

import multilevel as ml
from multilevel import generalised_bootstrap
from multilevel.generalised import GeneralisedFit
from multilevel.generalised_held import LinkHeld
from multilevel.generalised_profiles import LinkCurve
from multilevel.profiles import REACH, Profile
from multilevel.sd_scale import estimates, parameters_of

Array = NDArray[np.float64]
FOLDER = Path(__file__).parent / "golden_glmm"
LME4 = json.loads((FOLDER / "profiles_lme4.json").read_text())["fits"]
Z95 = 1.959963984540054

pytestmark = pytest.mark.filterwarnings("ignore::multilevel.errors.MultilevelWarning")


def epilepsy() -> pd.DataFrame:
    data = ml.load("epilepsy")
    return data.assign(week=data["visit"].astype(float) - 2.5)


def ticks() -> pd.DataFrame:
    return ml.load("grouseticks").astype({"YEAR": "category"})


def counts() -> pd.DataFrame:
    """Poisson counts of twelve groups."""
    rng = np.random.default_rng(1)
    x, g = rng.normal(size=120), np.repeat(np.arange(12), 10)
    y = rng.poisson(np.exp(0.5 + 0.3 * x + rng.normal(size=12)[g] * 0.5))
    return pd.DataFrame({"g": g, "x": x, "y": y, "flat": rng.poisson(1.0, size=120)})


OF_LME4: dict[str, Callable[[], Any]] = {
    "cbpp": lambda: ml.Model(CBPP, ml.load("cbpp"), family="binomial").fit(threads=1),
    "cbpp_agq9": lambda: ml.Model(CBPP, ml.load("cbpp"), family="binomial").fit(threads=1, quadrature=9),
    "epilepsy_slope": lambda: ml.Model("count ~ zBase * Trt + (1 + week | patient)", epilepsy(), family="poisson").fit(
        threads=1
    ),
    "grouseticks": lambda: ml.Model(TICKS, ticks(), family="poisson").fit(threads=1),
}


@cache
def of_lme4(name: str) -> GeneralisedFit:
    fit = OF_LME4[name]()
    assert isinstance(fit, GeneralisedFit)
    return fit


@cache
def profiled(name: str) -> Profile:
    return of_lme4(name).profile()


# -- against lme4 and glmmTMB -----------------------------------------------------------------------------------

# Limits that lme4 1.1-31 is off from, by up to 0.008 of the half width: the deviance there is not that of 1.96 (next test).
OFF = {
    ("epilepsy_slope", "zBase:Trt[T.1]", 0),
    ("epilepsy_slope", "zBase:Trt[T.1]", 1),
    ("grouseticks", "Intercept", 1),
}


def lme4_limits(name: str) -> dict[str, tuple[float, float]]:
    """lme4's limits by our names."""
    stored, fit = LME4[name]["profile95"], of_lme4(name)
    out = {}
    for text, low, high in zip(stored["names"], stored["lower"], stored["upper"], strict=True):
        effects, _, group = text.replace("(Intercept)", "Intercept").partition("|")
        kind, _, effects = effects.partition("_")
        if group:
            out[f"{kind}({group}, {', '.join(effects.split('.')[::-1])})"] = (low, high)
    plain = list(zip(stored["lower"], stored["upper"], strict=True))[len(out) :]
    return out | dict(zip(fit.design.names, plain, strict=True))


@pytest.mark.parametrize("name", OF_LME4)
def test_limits_are_those_of_lme4(name: str) -> None:
    table, wanted = profiled(name).confint(), lme4_limits(name)
    assert set(table["term"]) == set(wanted)
    for term, low, high in zip(table["term"], table["conf_low"], table["conf_high"], strict=True):
        half = (wanted[term][1] - wanted[term][0]) / 2
        for side, ours in enumerate((low, high)):
            if (name, term, side) not in OFF:
                assert abs(ours - wanted[term][side]) <= 1e-3 * half, (term, ours, wanted[term][side])


@pytest.mark.parametrize(("name", "term", "side"), sorted(OFF))
def test_where_lme4_is_off_a_fit_with_the_coefficient_held_agrees_with_us(name: str, term: str, side: int) -> None:
    fit = of_lme4(name)
    ours = float(profiled(name).confint(0.95).set_index("term").loc[term].iloc[1 + side])
    theirs = lme4_limits(name)[term][side]
    assert np.sqrt(deviance_at(fit, term, ours) - fit.criterion) == pytest.approx(Z95, abs=1e-6)
    assert abs(np.sqrt(deviance_at(fit, term, theirs) - fit.criterion) - Z95) > 1e-3


def deviance_at(fit: GeneralisedFit, term: str, value: float) -> float:
    """Deviance of the model with a coefficient held: fitted from nothing, its column moved into the offset."""
    d = fit.design
    j = d.names.index(term)
    rest = replace(
        d,
        X=np.ascontiguousarray(np.delete(d.X, j, axis=1)),
        names=d.names[:j] + d.names[j + 1 :],
        offset=value * d.X[:, j] + (0.0 if d.offset is None else d.offset),
    )
    return fit.model.with_design(rest).fit(threads=1).criterion


def test_limits_of_dispersion_and_zero_inflation_are_those_of_glmmtmb() -> None:
    """TMB::tmbroot finds them on the likelihood itself, as we do; its theta is the logarithm of the sd."""
    stored = json.loads((FOLDER / "profiles_glmmTMB.json").read_text())
    formula = "SiblingNegotiation ~ FoodTreatment + offset(log(BroodSize)) + (1 | Nest)"
    fit = ml.Model(formula, ml.load("owls"), family="nbinom2", zi="~ 1").fit(threads=1)
    table = fit.confint(method="profile").set_index("term")
    ours = ["Intercept", "FoodTreatment[T.Satiated]", "zi[Intercept]", "size[Intercept]", "sd(Nest, Intercept)"]
    for term, low, high in zip(ours, stored["lower"], stored["upper"], strict=True):
        wanted = np.exp([low, high]) if term.startswith("sd(") else np.array([low, high])
        got = table.loc[term, ["conf_low", "conf_high"]].to_numpy(dtype=float)
        np.testing.assert_allclose(got, wanted, atol=1e-4 * np.diff(wanted)[0] / 2, rtol=0)


# -- against direct minimisation --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["zero-inflated", "ordinal", "epilepsy_slope", "cbpp_agq9"])
def test_profiled_deviance_is_that_of_a_constrained_search_without_gradients(name: str) -> None:
    """scipy's SLSQP on the deviance's values in the user's parameters, the held one an equality constraint."""
    fit = fitted(name) if name in MODELS else of_lme4(name)
    every = parameters_of(fit)
    start = np.r_[np.concatenate([own.ravel() for own in fit.optimum.lambdas]), fit.optimum.residual, fit.optimum.beta]
    for one in every if name == "epilepsy_slope" else (every[0], every[1], every[-1]):
        curve = fit.profile(one.name).curves[0]
        estimate = float(estimates([one], fit)[0])
        value = float(curve.limits(0.8)[1]) if one.kind != "cor" else estimate + 0.2
        deviance, held = plain_deviance(fit, one)
        found = minimize(
            deviance,
            start,
            method="SLSQP",
            constraints={"type": "eq", "fun": lambda v, held=held, value=value: held(v) - value},
            options={"ftol": 1e-13, "maxiter": 400},
        )
        assert curve.at(value) ** 2 + fit.criterion == pytest.approx(found.fun, abs=2e-5), one.name
        assert curve.at(value) ** 2 + fit.criterion <= found.fun + 1e-7, one.name


def plain_deviance(fit: GeneralisedFit, one: Any) -> tuple[Callable[[Array], float], Callable[[Array], float]]:
    """Deviance of one random term's factor (k*k), further coefficients and fixed effects; and the parameter held."""
    engine = fit.model.laplace()
    state = engine.state()
    k, m = len(fit.optimum.lambdas[0]), len(fit.optimum.residual)
    lower = np.tril(np.ones((k, k)))

    def deviance(v: Array) -> float:
        factor = v[: k * k].reshape(k, k) * lower
        beta = np.linalg.solve(engine.x_basis, v[k * k + m :])
        more = np.linalg.solve(engine.coefficients.basis, v[k * k : k * k + m]) if m else np.empty(0)
        root = [np.ascontiguousarray(np.linalg.solve(engine.groups[0].basis, factor))]
        return 2 * float(state.evaluate(beta, root, engine.coefficients.rows(more), False)[0])

    def held(v: Array) -> float:
        factor = v[: k * k].reshape(k, k) * lower
        cov = factor @ factor.T
        if one.kind == "sd":
            return float(np.sqrt(cov[one.i, one.i]))
        if one.kind == "cor":
            return float(cov[one.i, one.j] / np.sqrt(cov[one.i, one.i] * cov[one.j, one.j]))
        return float(v[k * k + one.i + (m if one.kind == "fixed" else 0)])

    return deviance, held


@pytest.mark.parametrize("name", [*(n for n in MODELS if n != "two values"), "cbpp_agq9", "grouseticks"])
def test_gradient_of_the_held_deviance_is_exact(name: str) -> None:
    fit = fitted(name) if name in MODELS else of_lme4(name)
    rng = np.random.default_rng(3)
    state = fit.model.laplace().state()
    o = fit.optimum
    for one in parameters_of(fit):
        held = LinkHeld(fit, state, one)
        x = held.start(o.lambdas, o.beta, o.residual) + 0.05 * rng.standard_normal(held.size)
        value = float(estimates([one], fit)[0]) * 0.95
        _, slope = held.slope(x, value)
        for i in range(held.size):
            step = np.zeros(held.size)
            step[i] = 1e-4
            central = (held.slope(x + step, value)[0] - held.slope(x - step, value)[0]) / 2e-4
            assert slope[i] == pytest.approx(central, rel=2e-5, abs=2e-4), (one.name, i)


# -- what a profile is ------------------------------------------------------------------------------------------


def test_zeta_rises_from_the_estimate_and_is_the_root_of_the_deviance() -> None:
    made = profiled("cbpp")
    assert "5 parameters" in repr(made) and made.deviance == of_lme4("cbpp").criterion
    for _, part in made.frame().groupby("parameter"):
        assert (np.diff(part["zeta"]) > 0).all() and (part["zeta"] == 0).sum() == 1
        assert part["zeta"].max() > REACH - 0.01
        np.testing.assert_allclose(part["zeta"] ** 2, part["deviance"] - made.deviance, atol=1e-8)
    for curve in made.curves:
        low, high = curve.limits(0.9)
        assert curve.at(low) == pytest.approx(-1.6448536, abs=1e-6) and curve.at(high) == pytest.approx(
            1.6448536, abs=1e-6
        )
    inner, outer = made.confint(0.5), made.confint(0.999)
    assert (outer["conf_low"] < inner["conf_low"]).all() and (inner["conf_high"] < outer["conf_high"]).all()


def test_limits_that_nothing_excludes_are_the_ends_of_the_range() -> None:
    table = profiled("grouseticks").confint().set_index("term")
    assert table.loc["sd(LOCATION, Intercept)", "conf_low"] == 0
    # as the likelihood ratio says: zeta at zero is the root of the test's statistic
    curve = profiled("grouseticks").curves[1]
    lrt = of_lme4("grouseticks").ranova().set_index("term").loc["(1 | LOCATION)", "lrt"]
    assert curve.at(0.0) == pytest.approx(-np.sqrt(lrt), abs=1e-5)
    singular = ml.Model("flat ~ x + (x | g)", counts(), family="poisson").fit(threads=1)
    assert singular.is_singular
    made = singular.profile().confint().set_index("term")
    assert tuple(made.loc["cor(g, Intercept, x)", ["conf_low", "conf_high"]]) == (-1.0, 1.0)
    assert tuple(made["conf_low"].iloc[:2]) == (0.0, 0.0)
    assert np.isfinite(made.to_numpy(dtype=float)).all()


def test_dispersion_and_zeros_without_an_end() -> None:
    """Poisson counts have no excess: the size of a negative binomial and the share of zeros run away."""
    plain = (
        ml.Model("y ~ x + (1 | g)", counts(), family="poisson")
        .fit(threads=1)
        .confint(method="profile")
        .set_index("term")
    )
    size = ml.Model("y ~ x + (1 | g)", counts(), family="nbinom2").fit(threads=1).profile()
    zeros = ml.Model("y ~ x + (1 | g)", counts(), family="poisson", zi="~ 1").fit(threads=1).profile()
    for made, name, column in ((size, "size[Intercept]", "conf_high"), (zeros, "zi[Intercept]", "conf_low")):
        table = made.confint().set_index("term")
        assert np.isinf(table.loc[name, column])
        other = "conf_low" if column == "conf_high" else "conf_high"
        assert np.isfinite(table.loc[name, other])
        assert len(made.messages) == 1 and name in made.messages[0] and "infinity" in made.messages[0]
        np.testing.assert_allclose(
            table.loc["x", ["conf_low", "conf_high"]], plain.loc["x", ["conf_low", "conf_high"]], atol=1e-5
        )
        assert np.abs(made.frame()["value"]).max() < 1e4  # points far on the plain are left out


def test_where_laplaces_approximation_falls_without_end_a_limit_is_missing_and_quadrature_has_it() -> None:
    """A density with heavy tails can have two modes; where they merge, the curvature vanishes and its logarithm with it."""
    rng, g = np.random.default_rng(7), np.arange(40) % 8
    data = pd.DataFrame({"g": g, "y": rng.normal(size=8)[g] + 0.3 * rng.standard_t(2, size=40)})
    model = ml.Model("y ~ 1 + (1 | g)", data, family="student")
    by_laplace, by_quadrature = (model.fit(threads=1, quadrature=n).profile("sigma[Intercept]") for n in (1, 15))
    laplace, quadrature = (made.confint().iloc[0] for made in (by_laplace, by_quadrature))
    assert np.isnan(laplace["conf_low"]) and "no minimum" in by_laplace.messages[0]
    assert np.isfinite(quadrature["conf_low"]) and not by_quadrature.messages
    assert laplace["conf_high"] == pytest.approx(quadrature["conf_high"], abs=0.05)


def test_a_better_optimum_than_the_fits_is_said_and_taken() -> None:
    good = of_lme4("epilepsy_slope")
    beta = good.optimum.beta + 0.5 * np.sqrt(np.diag(good.optimum.vcov))
    deviance = good.criterion + 0.3
    bad = GeneralisedFit(good.model, replace(good.optimum, beta=beta, criterion=deviance), good.engine)
    with pytest.warns(ml.ConvergenceWarning, match="below that of the fit"):
        made = bad.profile("zBase")
    assert made.deviance == pytest.approx(good.criterion, abs=1e-7) and len(made.messages) == 1
    wanted = profiled("epilepsy_slope").confint().set_index("term").loc["zBase"]
    np.testing.assert_allclose(made.confint().iloc[0, 1:].astype(float), wanted.astype(float), rtol=1e-5)


def test_the_quick_start_is_profiled_at_the_maximum() -> None:
    quick = ml.Model(CBPP, ml.load("cbpp"), family="binomial").fit(threads=1, quadrature=0)
    made = quick.profile("period[T.2]")
    assert "quick start" in made.messages[0]
    wanted = profiled("cbpp").confint().set_index("term").loc["period[T.2]"]
    np.testing.assert_allclose(made.confint().iloc[0, 1:].astype(float), wanted.astype(float), rtol=1e-6)


def test_offsets_weights_missing_rows_and_polars() -> None:
    """Rows twice are rows of weight two, a missing row is no row; limits come back in the library of the data."""
    pl = pytest.importorskip("polars")
    data = counts().assign(t=1.0 + np.arange(120) % 3)
    one = data.assign(w=np.where(data["x"] > 0, 2.0, 1.0), x=data["x"].where(np.arange(120) != 7))
    twice = pd.concat([one, one[(one["w"] == 2)]]).dropna()
    options = {"family": "poisson", "offset": "t"}
    weighted = ml.Model("y ~ x + (1 | g)", pl.from_pandas(one), weights="w", **options).fit(threads=1)
    doubled = ml.Model("y ~ x + (1 | g)", twice, **options).fit(threads=1)
    got, wanted = weighted.confint(method="profile"), doubled.confint(method="profile")
    assert isinstance(got, pl.DataFrame) and isinstance(weighted.profile("x").frame(), pl.DataFrame)
    for column in ("conf_low", "conf_high"):
        np.testing.assert_allclose(got[column].to_numpy(), wanted[column], rtol=1e-6)


def test_a_fit_read_from_a_file(tmp_path: Path) -> None:
    fit = of_lme4("cbpp")
    fit.save(tmp_path / "rows.mlv", data=True)
    fit.save(tmp_path / "bare.mlv")
    read = ml.read(tmp_path / "rows.mlv")
    pd.testing.assert_frame_equal(
        read.profile("period[T.2]").confint(), fit.profile("period[T.2]").confint(), rtol=1e-8
    )
    np.testing.assert_allclose(read.bootstrap(5, seed=1).draws, fit.bootstrap(5, seed=1).draws, rtol=1e-6)
    for verb in (ml.read(tmp_path / "bare.mlv").profile, ml.read(tmp_path / "bare.mlv").bootstrap):
        with pytest.raises(ml.DataError, match="without its data"):
            verb()


def test_pictures() -> None:
    pytest.importorskip("matplotlib").use("Agg")
    assert profiled("cbpp").plot() is not None
    zeros = ml.Model("y ~ x + (1 | g)", counts(), family="poisson", zi="~ 1").fit(threads=1)
    ax = zeros.profile("zi[Intercept]").plot()
    assert ax.get_title() == "zi[Intercept]" and np.isfinite(ax.get_xlim()).all()


# -- confint ----------------------------------------------------------------------------------------------------


def test_confint_by_any_method() -> None:
    fit = of_lme4("cbpp")
    wald = fit.confint()
    assert list(wald["term"]) == list(fit.design.names)
    half = stats.norm.ppf(0.975) * np.sqrt(np.diag(fit.vcov()))
    np.testing.assert_allclose(wald["conf_high"], fit.optimum.beta + half, rtol=1e-12)
    np.testing.assert_allclose(fit.conf_int().to_numpy(), wald[["conf_low", "conf_high"]], rtol=1e-12)
    some = ["period[T.2]", "sd(herd, Intercept)"]
    by_profile = fit.confint(0.9, "profile", which=some)
    assert list(by_profile["term"]) == some[::-1]
    draws = fit.bootstrap(60, seed=2)
    for interval in ("percentile", "basic", "normal"):
        made = fit.confint(0.9, "bootstrap", n=60, seed=2, interval=interval, which=some)
        wanted = draws.confint(0.9, interval).set_index("term").loc[some[::-1]].reset_index()
        pd.testing.assert_frame_equal(made, wanted)
    for options, text in (
        ({"method": "profil"}, "did you mean 'profile'"),
        ({"method": "profile", "which": "period[T.5]"}, "period"),
        ({"method": "profile", "which": "sigma"}, "no parameter 'sigma'"),
        ({"method": "bootstrap", "which": "herd"}, "no parameter 'herd'"),
        ({"method": "bootstrap", "interval": "bca"}, "BCa"),
        ({"method": "bootstrap", "kind": "case", "n": 3}, "parametric"),
        ({"method": "wald", "which": "sd(herd, Intercept)"}, "fixed effects only"),
        ({"ddf": "kenward-roger"}, "kenward-roger"),
        ({"level": 95}, "level"),
    ):
        with pytest.raises(ml.OptionError, match=text):
            fit.confint(**options)


# -- bootstrap --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["binomial", "ordinal", "zero-inflated", "cbpp_agq9", "epilepsy_slope"])
def test_searches_from_the_optimum_find_what_fits_from_nothing_find(name: str) -> None:
    fit = fitted(name) if name in MODELS else of_lme4(name)
    work = generalised_bootstrap._Work(fit, None)
    seeds = np.random.SeedSequence(4).spawn(6)
    for seed in seeds:
        lean = work.lean(seed)
        assert isinstance(lean, np.ndarray)
        y = work.response(seed)
        full = fit.model.with_design(replace(fit.design, y=y)).fit(threads=1)
        np.testing.assert_allclose(lean, estimates(parameters_of(fit), full), rtol=2e-4, atol=2e-4)


def test_draws_depend_on_the_seed_alone() -> None:
    fit = of_lme4("cbpp")
    made = fit.bootstrap(30, seed=3, threads=1)
    np.testing.assert_array_equal(made.draws, fit.bootstrap(30, seed=3, threads=3).draws)
    np.testing.assert_array_equal(made.draws[:12], fit.bootstrap(12, seed=3).draws)
    by_statistic = fit.bootstrap(
        4, seed=3, statistic=lambda one: dict(zip(one.design.names, one.optimum.beta, strict=True))
    )
    np.testing.assert_allclose(by_statistic.draws, made.draws[:4, 1:], atol=1e-5)
    assert not np.array_equal(made.draws, fit.bootstrap(30, seed=4).draws)


def test_failures_are_counted_and_told() -> None:
    rare = wine().iloc[::2]
    fit = ml.Model("rating ~ temp + (1 | judge)", rare, family="ordinal").fit(threads=1)
    with pytest.warns(ml.MultilevelWarning, match="replicates failed"):
        made = fit.bootstrap(120, seed=1)
    assert made.failures and "category" in made.failures[0][1]
    assert np.isnan(made.draws[made.failures[0][0]]).all()

    def wrong(one: Any) -> float:
        raise ValueError("no number today")

    calls = iter([True])
    with pytest.raises(ml.DataError, match="no number today"):
        fit.bootstrap(3, seed=1, statistic=lambda one: 1.0 if next(calls, False) else wrong(one))


def test_interrupted_from_the_keyboard_it_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = of_lme4("cbpp")
    whole = fit.bootstrap(200, seed=5)
    run, seen = generalised_bootstrap._Work.run, []

    def interrupted(self: Any, *options: Any) -> Any:
        for batch in run(self, *options):
            if seen:
                raise KeyboardInterrupt
            seen.append(batch)
            yield batch

    monkeypatch.setattr(generalised_bootstrap._Work, "run", interrupted)
    with pytest.warns(ml.MultilevelWarning, match="Interrupted"):
        made = fit.bootstrap(200, seed=5)
    assert 0 < len(made) < 200
    np.testing.assert_array_equal(made.draws, whole.draws[: len(made)])


def test_progress_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    fit = of_lme4("cbpp")
    fit.bootstrap(8, seed=1, statistic=lambda one: time.sleep(0.03) or one.loglik, progress=True)
    assert "bootstrap [##" in capsys.readouterr().err
    fit.profile(progress=True)
    assert "profile [##" in capsys.readouterr().err
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit.bootstrap(20, seed=1, progress=False)
    assert not capsys.readouterr().err


def test_curves_know_their_class() -> None:
    assert all(isinstance(curve, LinkCurve) and not curve.endless for curve in profiled("cbpp").curves)
