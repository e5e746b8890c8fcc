"""Profile likelihood: against lme4's stored limits, against direct minimisation, at the ends of the range."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from golden import Golden, fits
from reference import Array
from scipy.optimize import minimize
from shapes import quiet_fit, shape

import multilevel as ml
from multilevel import ConvergenceWarning, DataError, Fit, Model, OptionError, SingularFitWarning
from multilevel.held import Held
from multilevel.profile_paths import without_column
from multilevel.profiles import REACH, Profile
from multilevel.reml import Engine
from multilevel.sd_scale import draws, parameters

PROFILED = [g for g in fits() if "profile95" in g.raw]
SLEEP = ml.load("sleepstudy")
Z95 = 1.959963984540054


def quiet(formula: str, data: Any, reml: bool = True, **options: Any) -> Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Model(formula, data, **options).fit(reml)


@pytest.fixture(scope="module")
def sleep() -> Fit:
    return Model("Reaction ~ Days + (Days | Subject)", SLEEP).fit()


@pytest.fixture(scope="module")
def profiled(sleep: Fit) -> Profile:
    return sleep.profile()


# --- against lme4

# Limits that lme4 1.1-31 interpolates between few points: zeta there is off 1.96 by direct minimisation, ours is not.
INTERPOLATED = {("math10-REML_slope", "cor(schid, Intercept, homework)", 0): -1.97392}


def lme4_limits(g: Golden, fit: Fit) -> dict[str, tuple[float, float]]:
    """lme4's limits by our names: sds and correlations by effect and group, fixed effects in their order."""
    stored = g.raw["profile95"]
    raw = dict(zip(stored["names"], zip(stored["lower"], stored["upper"], strict=True), strict=True))
    out = {}
    for name, limits in raw.items():
        effects, _, group = name.partition("|")
        group = ":".join(reversed(group.split(":"))) if group in ("cask:batch", "Machine:Worker") else group
        kind, _, effects = effects.partition("_")
        if kind in ("sd", "cor"):
            listed = [e.replace("(Intercept)", "Intercept") for e in effects.split(".")][::-1]
            out[f"{kind}({group}, {', '.join(listed)})"] = limits
    out["sigma"] = raw["sigma"]
    return out | dict(zip(fit.design.names, list(raw.values())[-len(fit.design.names) :], strict=True))


@pytest.mark.parametrize("g", PROFILED, ids=lambda g: g.id)
def test_limits_are_those_of_lme4(g: Golden) -> None:
    fit = quiet(g.formula, g.frame(), g.reml, **g.arguments())
    table = fit.profile().confint()
    wanted = lme4_limits(g, fit)
    assert set(table["term"]) == set(wanted)
    for name, low, high in zip(table["term"], table["conf_low"], table["conf_high"], strict=True):
        half = (wanted[name][1] - wanted[name][0]) / 2
        for side, ours in enumerate((low, high)):
            if (g.id, name, side) not in INTERPOLATED:
                assert abs(ours - wanted[name][side]) <= 1e-3 * half, (name, ours, wanted[name][side])


def test_where_lme4_interpolates_direct_minimisation_agrees_with_us() -> None:
    g = next(one for one in PROFILED if one.id == "math10-REML_slope")
    fit = quiet(g.formula, g.frame(), False)
    name = "cor(schid, Intercept, homework)"
    ours = float(fit.profile(name).confint()["conf_low"][0])
    theirs = lme4_limits(g, fit)[name][0]
    assert zeta_of_correlation(fit, ours) == pytest.approx(Z95, abs=1e-5)
    assert zeta_of_correlation(fit, theirs) == pytest.approx(-INTERPOLATED[g.id, name, 0], abs=1e-4)


def zeta_of_correlation(fit: Fit, rho: float) -> float:
    """|zeta| of the correlation of a model with one term of two effects, by Nelder and Mead on the criterion alone."""

    def deviance(p: Array) -> float:
        first, second, sigma = np.exp(p)
        root = np.array([[first, 0.0], [second * rho, second * np.sqrt(1 - rho**2)]])
        return fit.engine.criterion((root / sigma,), False, sigma)

    start = np.log([*np.sqrt(np.diag(fit.random_cov()[0])), fit.sigma])
    found = minimize(
        deviance, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-10, "maxiter": 4000, "maxfev": 4000}
    )
    return float(np.sqrt(found.fun - fit.criterion))


# --- properties


def test_zeta_is_zero_at_the_estimate_and_deviance_never_below_the_optimum(profiled: Profile) -> None:
    frame = profiled.frame()
    assert list(frame.columns) == ["parameter", "value", "zeta", "deviance"]
    for name, part in frame.groupby("parameter"):
        estimate = profiled.confint().set_index("term").loc[name, "estimate"]
        at = part[part["value"] == estimate]
        assert len(at) == 1
        assert at["zeta"].item() == 0
        assert (part["deviance"] >= profiled.deviance - 1e-8).all()
        assert (np.diff(part["zeta"]) > 0).all()
        assert part["zeta"].min() < -REACH + 0.01
        assert part["zeta"].max() > REACH - 0.01
        np.testing.assert_allclose(part["zeta"] ** 2, part["deviance"] - profiled.deviance, atol=1e-7)


def test_zeta_at_the_limits_is_the_normal_quantile(profiled: Profile) -> None:
    for curve in profiled.curves:
        low, high = curve.limits(0.95)
        assert curve.at(low) == pytest.approx(-Z95, abs=1e-6)
        assert curve.at(high) == pytest.approx(Z95, abs=1e-6)


def test_levels_beyond_the_points_are_sought_further(profiled: Profile) -> None:
    narrow, wide = profiled.confint(0.5), profiled.confint(0.999)
    inner = profiled.confint()
    assert (wide["conf_low"] < inner["conf_low"]).all()
    assert (inner["conf_low"] < narrow["conf_low"]).all()
    assert (narrow["conf_high"] < inner["conf_high"]).all()
    assert (inner["conf_high"] < wide["conf_high"]).all()
    assert profiled.curves[3].at(wide["conf_high"][3]) == pytest.approx(3.290526731491926, abs=1e-6)


def test_a_reml_fit_is_profiled_by_maximum_likelihood(sleep: Fit, profiled: Profile) -> None:
    by_ml = Model("Reaction ~ Days + (Days | Subject)", SLEEP).fit(False)
    pd.testing.assert_frame_equal(by_ml.profile().confint(), profiled.confint(), rtol=1e-6)
    assert profiled.deviance == pytest.approx(by_ml.criterion, rel=1e-12)
    assert sleep.reml


def test_rescaling_a_predictor_rescales_its_limits(profiled: Profile) -> None:
    hours = SLEEP.assign(Days=SLEEP["Days"] * 24)
    other = quiet("Reaction ~ Days + (Days | Subject)", hours).profile().confint().set_index("term")
    one = profiled.confint().set_index("term")
    for name in one.index:
        factor = 24 if name in ("Days", "sd(Subject, Days)") else 1
        for column in ("estimate", "conf_low", "conf_high"):
            assert other.loc[name, column] * factor == pytest.approx(one.loc[name, column], rel=1e-5)


def test_rescaling_the_response_rescales_sds_and_not_correlations(profiled: Profile) -> None:
    other = quiet("Reaction ~ Days + (Days | Subject)", SLEEP.assign(Reaction=SLEEP["Reaction"] / 1000)).profile()
    for one, scaled in zip(profiled.curves, other.curves, strict=True):
        factor = 1 if one.parameter.kind == "cor" else 1000
        np.testing.assert_allclose(np.array(scaled.limits(0.9)) * factor, one.limits(0.9), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["slope", "uncorrelated", "merged blocks", "crossed slopes", "no fixed effects"])
@pytest.mark.parametrize("kind", ["sd", "cor", "sigma"])
def test_gradient_of_the_held_criterion_is_exact(name: str, kind: str) -> None:
    fit = quiet_fit(shape(name).weighted, False)
    rng = np.random.default_rng(3)
    for parameter in [p for p in parameters(fit.design) if p.kind == kind]:
        held = Held(fit.engine, fit.design, parameter, fit.sigma)
        x = held.start(fit.optimum.lambdas, fit.sigma) + 0.3 * rng.standard_normal(held.size)
        value = {"sd": 0.7 * fit.sigma, "cor": -0.4, "sigma": 1.2 * fit.sigma}[kind]
        _, slope = held.slope(x, value)
        for i in range(held.size):
            step = np.zeros(held.size)
            step[i] = 1e-5
            central = (held.slope(x + step, value)[0] - held.slope(x - step, value)[0]) / 2e-5
            assert slope[i] == pytest.approx(central, rel=1e-6, abs=1e-5)
        _, lambdas, sigma = held.point(x, value)  # what is held is held
        covs = [sigma**2 * (m @ m.T)[None] for m in lambdas]
        assert draws([parameter], covs, np.array([sigma]), np.zeros((1, 0)))[0, 0] == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("name", ["slope", "merged blocks", "crossed slopes"])
def test_holding_a_coefficient_needs_no_rows(name: str) -> None:
    fit = quiet_fit(shape(name).weighted, False)
    d = fit.design
    for column in range(len(d.names)):
        value = 0.8 * fit.optimum.beta[column] + 0.1
        rest = np.ascontiguousarray(np.delete(d.X, column, axis=1))
        offset = value * d.X[:, column] + (0.0 if d.offset is None else d.offset)
        by_rows = Engine(replace(d, X=rest, names=d.names[:column] + d.names[column + 1 :], offset=offset), 1)
        ours = without_column(fit.engine, column, value)
        for lambdas in (fit.optimum.lambdas, tuple(2 * m + 0.1 * np.eye(len(m)) for m in fit.optimum.lambdas)):
            assert ours.criterion(lambdas, False) == pytest.approx(by_rows.criterion(lambdas, False), rel=1e-11)
        assert ours.fit(False).criterion == pytest.approx(by_rows.fit(False).criterion, rel=1e-9)


# --- ends of the range


def test_an_sd_that_zero_cannot_be_excluded_for_ends_at_zero() -> None:
    table = quiet("Yield ~ 1 + (1 | Batch)", ml.load("dyestuff2")).profile().confint().set_index("term")
    assert table.loc["sd(Batch, Intercept)", "estimate"] == 0
    assert table.loc["sd(Batch, Intercept)", "conf_low"] == 0
    assert table.loc["sd(Batch, Intercept)", "conf_high"] == pytest.approx(2.084048, rel=1e-6)
    pastes = quiet("strength ~ 1 + (1 | batch/cask)", ml.load("pastes")).profile("sd(batch, Intercept)")
    assert pastes.confint()["conf_low"][0] == 0
    assert pastes.confint(0.2)["conf_low"][0] > 0.5


def test_a_correlation_that_nothing_excludes_is_the_whole_range() -> None:
    # where the sd of either effect is zero, every correlation gives the same deviance: the profile cannot rise above that
    g = next(fits("orthodont_growth"))
    curve = quiet(g.formula, g.frame(), False).profile("cor(Subject, Intercept, age)").curves[0]
    assert curve.limits(0.95) == (-1.0, 1.0)
    single = quiet("distance ~ age * Sex + (1 | Subject)", g.frame(), False).criterion
    slope = quiet("distance ~ age * Sex + (0 + age | Subject)", g.frame(), False).criterion
    assert min(curve.deviances[0], curve.deviances[-1]) > curve.deviances[curve.values.index(curve.estimate)]
    assert max(curve.deviances) <= min(single, slope) + 1e-6


def test_without_a_correlation_at_the_estimate_its_interval_is_the_whole_range() -> None:
    data = pd.DataFrame({"g": np.repeat(np.arange(12), 8), "x": np.tile(np.linspace(-1, 1, 8), 12)})
    rng = np.random.default_rng(5)
    rest = rng.standard_normal((12, 8))
    rest -= rest.mean(axis=1, keepdims=True)  # no group differs from another in its mean
    data["y"] = rest.ravel()
    fit = quiet("y ~ x + (x | g)", data, False)
    assert np.sqrt(fit.random_cov()[0][0, 0]) < 1e-6
    table = fit.profile("cor(g, Intercept, x)").confint()
    assert (table["conf_low"][0], table["conf_high"][0]) == (-1.0, 1.0)


@pytest.mark.parametrize("seed", range(6))
def test_profiles_of_three_effects_are_as_low_as_a_search_from_many_starts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    g, x, w = np.repeat(np.arange(9), 6), rng.standard_normal(54), rng.standard_normal(54)
    b = rng.standard_normal((9, 3)) @ np.diag([1.0, 0.6, 0.3])
    y = b[g, 0] + b[g, 1] * x + b[g, 2] * w + rng.standard_normal(54)
    fit = quiet("y ~ 1 + (1 + x + w | g)", pd.DataFrame({"y": y, "g": g, "x": x, "w": w}), False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        profile = fit.profile(["sd(g, x)", "cor(g, x, w)", "sigma"])
    for curve in profile.curves:
        held = Held(fit.engine, fit.design, curve.parameter, fit.sigma)
        for i in (0, len(curve.values) // 3, len(curve.values) - 1):
            value = curve.values[i]
            best = min(
                minimize(held.slope, rng.standard_normal(held.size), args=(value,), jac=True, method="BFGS").fun
                for _ in range(8)
            )
            assert curve.deviances[i] <= best + 1e-5


# --- a better optimum, other structures, bad input


def test_a_better_optimum_is_said_and_used() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = Model("math ~ homework + (homework | schid)", ml.load("math10"))
        stopped = model.fit(False, start=[0.05, 0.0, 0.05], max_evaluations=1)
    right = quiet("math ~ homework + (homework | schid)", ml.load("math10"), False)
    assert stopped.criterion > right.criterion + 0.1
    with pytest.warns(ConvergenceWarning, match="found a deviance .* below that of the fit"):
        profile = stopped.profile(["sigma", "homework"])
    assert len(profile.messages) >= 1
    np.testing.assert_allclose(
        profile.confint()["conf_low"], right.profile(["sigma", "homework"]).confint()["conf_low"], rtol=1e-5
    )


def test_a_fit_read_from_a_file_has_its_profile(tmp_path: Any, sleep: Fit, profiled: Profile) -> None:
    sleep.save(tmp_path / "fit.ml")
    again = ml.read(tmp_path / "fit.ml")
    with pytest.raises(DataError):
        again.rows_of_data()
    np.testing.assert_allclose(again.profile().confint()["conf_low"], profiled.confint()["conf_low"], rtol=1e-6)


def test_fixed_effects_beside_a_structure_of_the_residuals() -> None:
    fit = quiet("Reaction ~ Days + (1 | Subject)", SLEEP, False, correlation="ar1(Days | Subject)")
    curve = fit.profile("Days").curves[0]
    low, high = curve.limits(0.95)
    wald = fit.confint(which="Days", ddf="none")
    assert (low, high) == pytest.approx((wald["conf_low"][0], wald["conf_high"][0]), rel=0.03)
    shifted = SLEEP.assign(Reaction=SLEEP["Reaction"] - low * SLEEP["Days"])
    held = quiet("Reaction ~ 1 + (1 | Subject)", shifted, False, correlation="ar1(Days | Subject)")
    assert held.criterion - fit.criterion == pytest.approx(Z95**2, rel=1e-5)


def test_known_covariances_between_levels_change_nothing_here() -> None:
    levels = sorted(set(SLEEP["Subject"].astype(str)))
    rng = np.random.default_rng(1)
    root = rng.standard_normal((18, 40))
    known = pd.DataFrame(root @ root.T / 40, index=levels, columns=levels)
    data = SLEEP.assign(Subject=SLEEP["Subject"].astype(str))
    fit = quiet("Reaction ~ Days + (1 | Subject)", data, False, covariance={"Subject": known})
    table = fit.profile().confint()

    # the same by dense algebra: deviance with the sd held at its lower limit
    z = (data["Subject"].to_numpy()[:, None] == np.array(levels)).astype(float)
    x = np.column_stack([np.ones(180), SLEEP["Days"]])
    y = SLEEP["Reaction"].to_numpy()

    def deviance(sd: float, sigma: float) -> float:
        v = sd**2 * z @ known.to_numpy() @ z.T + sigma**2 * np.eye(180)
        beta = np.linalg.solve(x.T @ np.linalg.solve(v, x), x.T @ np.linalg.solve(v, y))
        rest = y - x @ beta
        return float(180 * np.log(2 * np.pi) + np.linalg.slogdet(v)[1] + rest @ np.linalg.solve(v, rest))

    sd = table["conf_low"][0]
    held = minimize(lambda p: deviance(sd, np.exp(p[0])), [np.log(fit.sigma)], method="Nelder-Mead")
    assert held.fun - fit.criterion == pytest.approx(Z95**2, abs=1e-4)


def test_unknown_parameters_offer_the_nearest(sleep: Fit) -> None:
    with pytest.raises(OptionError, match=r"no parameter 'sd\(Subject, Day\)' .* did you mean 'sd\(Subject, Days\)'"):
        sleep.profile("sd(Subject, Day)")
    with pytest.raises(
        OptionError, match=r"no parameter 'q' in the model; its parameters are 'sd\(Subject, Intercept\)'"
    ):
        sleep.profile(["sigma", "q"])
    with pytest.raises(OptionError, match="which names no parameter"):
        sleep.profile([])
    with pytest.raises(OptionError, match="which must be a parameter's name or a list"):
        sleep.profile(3)


def test_which_picks_parameters_in_their_usual_order(sleep: Fit) -> None:
    assert sleep.profile(["Days", "sigma"]).names == ("sigma", "Days")


def test_a_fixed_effect_called_sigma_keeps_its_name() -> None:
    data = SLEEP.rename(columns={"Days": "sigma"})
    fit = quiet("Reaction ~ sigma + (1 | Subject)", data)
    names = fit.profile().names
    assert names == ("sd(Subject, Intercept)", "sd(Residual)", "Intercept", "sigma")


def test_ctrl_c_stops_a_profile(sleep: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [0]
    slope = Engine.slope

    def interrupted(self: Engine, *args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] > 50:
            raise KeyboardInterrupt
        return slope(self, *args, **kwargs)

    monkeypatch.setattr(Engine, "slope", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sleep.profile()
    monkeypatch.undo()
    assert sleep.profile("sigma").confint()["conf_low"][0] == pytest.approx(22.898257, rel=1e-6)


# --- confint, printing, frames, plot


def test_confint_by_every_method(sleep: Fit, profiled: Profile) -> None:
    columns = ["term", "estimate", "conf_low", "conf_high"]
    wald = sleep.confint()
    assert list(wald.columns) == columns
    assert wald["conf_low"][1] == pytest.approx(7.205956, rel=1e-6)
    table = sleep.confint(method="profile", which=["sigma", "Days"])
    assert list(table.columns) == columns
    assert list(table["term"]) == ["sigma", "Days"]
    np.testing.assert_allclose(table["conf_low"], profiled.confint()["conf_low"][[3, 5]], rtol=1e-8)
    assert list(sleep.confint(which="Days")["term"]) == ["Days"]
    with pytest.raises(OptionError, match="method 'profil' is not available; did you mean 'profile'"):
        sleep.confint(method="profil")
    with pytest.raises(
        OptionError, match="no interval of 'sigma' by method 'wald'.*Wald intervals are of fixed effects"
    ):
        sleep.confint(which="sigma")
    with pytest.raises(OptionError, match="level must lie between 0 and 1"):
        sleep.confint(95, method="profile")


@pytest.mark.parametrize("kind", ["polars", "pyarrow"])
def test_frames_come_back_in_the_callers_library(kind: str) -> None:
    data: Any = {name: SLEEP[name].to_numpy() for name in SLEEP}
    if kind == "polars":
        data = pytest.importorskip("polars").DataFrame(data)
    else:
        data = pytest.importorskip("pyarrow").table({n: v.tolist() for n, v in data.items()})
    fit = quiet("Reaction ~ Days + (1 | Subject)", data)
    for frame in (fit.confint(), fit.confint(method="profile", which="sigma"), fit.profile("sigma").frame()):
        assert type(frame) is type(data)


def test_the_bar_of_a_profile(sleep: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    sleep.profile("sigma", progress=False)
    assert capsys.readouterr().err == ""
    with pytest.raises(OptionError, match="progress must be"):
        sleep.profile("sigma", progress=1)  # type: ignore[arg-type]


def test_print(profiled: Profile) -> None:
    assert repr(profiled).startswith("<Profile of 6 parameters, ")


def test_plot(sleep: Fit, profiled: Profile) -> None:
    pytest.importorskip("matplotlib").use("Agg")
    import matplotlib.pyplot as plt

    axes = profiled.plot()
    assert [one.get_title() for one in axes] == list(profiled.names)
    steps = [line.get_xdata()[0] for line in axes[3].lines if len(line.get_xdata()) == 2]
    low, high = profiled.confint()[["conf_low", "conf_high"]].iloc[3]
    assert any(np.isclose(steps, low))
    assert any(np.isclose(steps, high))
    single = sleep.plot.profile("sigma")
    assert single.get_title() == "sigma"
    assert single.get_ylabel().replace("\n", " ") == "zeta: signed root of the change in deviance"
    again = sleep.plot.profile(["Days", "sigma"], profile=profiled)
    assert [one.get_title() for one in again] == ["sigma", "Days"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SingularFitWarning)
        edge = Model("Yield ~ 1 + (1 | Batch)", ml.load("dyestuff2")).fit().plot.profile("sd(Batch, Intercept)")
    assert edge.get_title() == "sd(Batch, Intercept)"
    plt.close("all")
    assert "matplotlib" in sys.modules
