"""Predictions of generalised models with their intervals, against glmmTMB, integrals, draws and simulated coverage."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from generalised_models import CBPP, MODELS, OWLS, TICKS, fitted, wine
from numpy.typing import NDArray
from scipy import integrate, special, stats

import multilevel as ml
from multilevel.families import Family
from multilevel.generalised import GeneralisedFit
from multilevel.generalised_intervals import Predictive
from multilevel.generalised_uncertainty import by_parameters, errors, joint_vcov
from multilevel.normal_mean import normal_mean
from multilevel.predict import _fitted_rows

Array = NDArray[np.float64]

pytestmark = pytest.mark.filterwarnings("ignore::multilevel.errors.MultilevelWarning")
GOLDEN = json.loads((Path(__file__).parent / "golden_glmm" / "predict_glmmTMB.json").read_text())


def fit_of(formula: str, data: Any, family: str, **options: Any) -> GeneralisedFit:
    fit = ml.Model(formula, data, family=family, **options).fit(threads=1)
    assert isinstance(fit, GeneralisedFit)
    return fit


# -- errors of linear predictors --------------------------------------------------------------------------------


@cache
def golden_fit(name: str) -> GeneralisedFit:
    ticks, epilepsy = ml.load("grouseticks").astype({"YEAR": "category"}), ml.load("epilepsy")
    made: dict[str, tuple[str, Any, dict[str, Any]]] = {
        "cbpp": (CBPP, ml.load("cbpp"), {"family": "binomial"}),
        "owls": (OWLS, ml.load("owls"), {"family": "nbinom2", "zi": "~ FoodTreatment"}),
        "hurdle": (OWLS, ml.load("owls"), {"family": "poisson", "hurdle": "~ 1"}),
        "epilepsy": ("count ~ zAge + zBase * Trt + (1 | patient)", epilepsy, {"family": "nbinom2"}),
        "slope": ("count ~ zAge + zBase + (zBase | visit) + (1 | patient)", epilepsy, {"family": "poisson"}),
        "ticks": (TICKS, ticks, {"family": "poisson"}),
        "dietox": ("Weight ~ log(Time) + (1 | Pig)", ml.load("dietox"), {"family": "gamma"}),
    }
    formula, data, options = made[name]
    return fit_of(formula, data, **options)


@pytest.mark.parametrize("name", GOLDEN)
def test_standard_errors_are_those_of_glmmTMB(name: str) -> None:
    fit, wanted = golden_fit(name), GOLDEN[name]
    assert fit.loglik == pytest.approx(wanted["loglik"], abs=1e-6)
    for groups, what in (("all", "link"), (None, "population")):
        made = fit.predict(kind="link", groups=groups, interval="confidence").iloc[wanted["rows"]]
        np.testing.assert_allclose(made["prediction"], wanted[what]["fit"], atol=1e-5)
        np.testing.assert_allclose(made["std_error"], wanted[what]["se"], rtol=5e-6)
    made = fit.predict(interval="confidence").iloc[wanted["rows"]]
    np.testing.assert_allclose(made["prediction"], wanted["response"]["fit"], rtol=1e-5)
    if name != "cbpp":  # relative error of the mean: half the width on the log scale, extra zeros included
        relative = np.log(made["conf_high"] / made["conf_low"]) / 2 / stats.norm.ppf(0.975)
        np.testing.assert_allclose(relative, np.array(wanted["response"]["se"]) / wanted["response"]["fit"], rtol=1e-5)


@pytest.mark.parametrize("name", ["binomial", "zero-inflated", "ordinal", "gamma"])
def test_modes_move_with_parameters_as_differences_say(name: str) -> None:
    """Derivatives of the modes by fixed effects and further coefficients, against modes found anew."""
    fit = fitted(name)
    engine, o = fit.model.laplace(), fit.optimum
    state, p = engine.state(), len(fit.optimum.beta)
    roots = [np.array(one) for one in o.engine_lambdas]
    beta = np.linalg.solve(engine.x_basis, o.beta)
    values = np.linalg.solve(engine.coefficients.basis, o.residual) if len(o.residual) else np.empty(0)

    def modes(step: Array) -> Array:
        b = beta + np.linalg.solve(engine.x_basis, step[:p])
        more = values + (np.linalg.solve(engine.coefficients.basis, step[p:]) if len(values) else 0)
        for _ in range(2):
            state.evaluate(b, roots, engine.coefficients.rows(more), False)
        (group,) = engine.groups
        return np.asarray(state.u).reshape(group.levels, group.k) @ (group.basis @ roots[0]).T

    by_beta, others = by_parameters(fit)
    made = np.concatenate([by_beta[0], others[0]], axis=2)
    for i in range(p + len(values)):
        step = np.zeros(p + len(values))
        step[i] = 1e-4
        numeric = (modes(step) - modes(-step)) / 2e-4
        np.testing.assert_allclose(made[:, :, i], numeric, atol=2e-5 * max(1.0, float(np.abs(numeric).max())))


def test_errors_of_a_fit_saved_without_its_rows(tmp_path: Path) -> None:
    asked: list[Any] = [{"interval": "prediction"}, {"interval": "confidence"}, {"marginal": True, "interval": "confidence"}]
    for name in ("zero-inflated", "ordinal", "gamma", "two values"):
        fit = fitted(name)
        fit.save(tmp_path / "fit.mlv")
        again = ml.read(tmp_path / "fit.mlv")
        new = fit.model.data.iloc[[3, 1, 20]]
        for options in asked:
            one, other = fit.predict(new, **options), again.predict(new, **options)
            pd.testing.assert_frame_equal(one, other, rtol=1e-9)


# -- integrals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sd", [0.01, 0.5, 2.0, 8.0, 40.0])
def test_means_over_a_normal_predictor(sd: float) -> None:
    centre = np.array([-3.0, 0.2, 4.0])
    sds = np.full(3, sd)
    made = normal_mean(lambda v, _: special.ndtr(v), centre, sds, 0.5)
    np.testing.assert_allclose(made, special.ndtr(centre / np.hypot(1, sd)), atol=1e-12)
    if sd <= 2:  # beyond, the mean of a logarithm's inverse is of no use
        made = normal_mean(lambda v, _: np.exp(v), centre, sds, 0.33, 1.0)
        np.testing.assert_allclose(made, np.exp(centre + sd**2 / 2), rtol=1e-12)
    for link, width in (("logit", 0.66), ("cloglog", 0.33), ("cauchit", 0.2)):
        family = Family("binomial", link)
        made = normal_mean(lambda v, _, family=family: family.mean(v), centre, sds, width)
        for c, one in zip(centre, made, strict=True):
            split = sorted({-10.0, -c / sd, 10.0} if abs(c / sd) < 10 else {-10.0, 10.0})
            brute = sum(
                integrate.quad(
                    lambda z, c=c, family=family: float(family.mean(np.array([c + sd * z]))[0]) * stats.norm.pdf(z),
                    a, b, epsabs=1e-12, limit=400,
                )[0]
                for a, b in zip(split, split[1:], strict=False)
            )  # fmt: skip
            assert one == pytest.approx(brute, abs=1e-8)


@pytest.mark.parametrize("name", ["binomial", "zero-inflated", "hurdle", "ordinal", "gamma"])
def test_marginal_means_are_integrals_and_their_errors_follow_the_parameters(name: str) -> None:
    """Standard errors by differences of the integral over every parameter, written out anew."""
    fit = fitted(name)
    new = fit.model.data.iloc[[0, 30]]
    o, p = fit.optimum, len(fit.optimum.beta)
    design = fit.design.at(new, None)
    z = np.column_stack([np.ones(2), np.log(new["Time"])]) if name == "gamma" else np.ones((2, 1))
    (group,) = fit.engine.blocks.groups
    root = group.basis @ o.engine_lambdas[0]
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()

    def mean(step: Array) -> Array:
        eta = design.X @ (o.beta + step[:p]) + (0.0 if design.offset is None else design.offset)
        more = o.residual + step[p : p + len(o.residual)]
        moved = root + np.tensordot(step[p + len(o.residual) :], o.moves.reshape(-1, *root.shape), 1)
        s = np.linalg.norm(z @ moved, axis=1)
        values = eta[:, None] + s[:, None] * nodes
        if name == "ordinal":
            below = np.array([special.expit(cut - values) @ weights for cut in more]).T
            return np.diff(np.column_stack([np.zeros(2), below, np.ones(2)])).ravel()
        if name == "binomial":
            return special.expit(values) @ weights
        if name == "gamma":
            return np.exp(values) @ weights
        if name == "hurdle":
            return special.expit(-more[-1]) * (np.exp(values) / -np.expm1(-np.exp(values))) @ weights
        return special.expit(-(design.sides["zi"] @ more[-2:])) * (np.exp(values) @ weights)

    cov = joint_vcov(fit)
    slopes = np.array([(mean(h) - mean(-h)) / 2e-5 for h in 1e-5 * np.eye(len(cov))])
    error = np.sqrt(np.einsum("ic,ij,jc->c", slopes, cov, slopes))
    made = fit.predict(new, marginal=True, interval="confidence")
    wide = stats.norm.ppf(0.975)
    value = mean(np.zeros(len(cov)))
    if name == "ordinal":
        labels = list(fit.design.labels)
        assert list(made.columns)[: len(labels)] == labels
        np.testing.assert_allclose(made[labels].to_numpy().ravel(), value, rtol=1e-8)
        np.testing.assert_allclose(made[labels].sum(axis=1), 1, rtol=1e-12)
        half = wide * error / (value * (1 - value))
        high = made[[f"{label}_high" for label in labels]].to_numpy().ravel()
        np.testing.assert_allclose(high, special.expit(special.logit(value) + half), rtol=1e-5)
        return
    np.testing.assert_allclose(made["prediction"], value, rtol=1e-7)
    np.testing.assert_allclose(made["std_error"], error, rtol=1e-5)
    low = special.expit(special.logit(value) - wide * error / (value * (1 - value))) if name == "binomial" else None
    low = np.exp(np.log(value) - wide * error / value) if low is None else low
    np.testing.assert_allclose(made["conf_low"], low, rtol=1e-5)
    np.testing.assert_allclose(fit.predict(new, marginal=True)["prediction"], made["prediction"], rtol=1e-12)


def test_a_large_variance_costs_no_digits() -> None:
    """A variance of 100 between groups on the logit scale, where a fixed Gauss-Hermite rule loses its digits."""
    rng = np.random.default_rng(5)
    g = np.repeat(np.arange(60), 8)
    y = (rng.random(480) < special.expit(0.5 + 9 * rng.standard_normal(60)[g])).astype(float)
    fit = fit_of("y ~ 1 + (1 | g)", pd.DataFrame({"y": y, "g": g}), "binomial")
    sd, eta = np.sqrt(fit.random_cov()[0][0, 0]), fit.optimum.beta[0]
    assert sd > 4
    brute = integrate.quad(lambda z: special.expit(eta + sd * z) * stats.norm.pdf(z), -10, 10, epsabs=1e-13, limit=500)[0]
    assert fit.predict(marginal=True)["prediction"][0] == pytest.approx(brute, abs=1e-10)


# -- limits of new responses --------------------------------------------------------------------------------------

RESPONSES = [
    Family("binomial", "logit"), Family("binomial", "cauchit"), Family("betabinomial", "logit"), Family("poisson", "log"),
    Family("poisson", "sqrt"), Family("nbinom2", "log"), Family("nbinom1", "log"), Family("gamma", "log"),
    Family("gamma", "inverse"), Family("inverse_gaussian", "log"), Family("beta", "logit"),
    Family("student", "identity", df=4.0),
    Family("gaussian", "log"), Family("lognormal", "identity"), Family("poisson", "log", "inflated"),
    Family("nbinom2", "log", "hurdle"), Family("tweedie", "log", power=1.5),
]  # fmt: skip


@pytest.mark.parametrize("family", RESPONSES, ids=lambda f: f"{f.name}-{f.link}-{f.zero}")
def test_limits_are_quantiles_of_draws(family: Family) -> None:
    """Against 200,000 draws of predictor and response; three standard errors of a share of draws, one percent at most."""
    rng, n = np.random.default_rng(3), 200_000
    eta, sd = np.array([-0.5, 1.2]), np.array([0.3, 0.8])
    if family.link == "inverse":
        eta, sd = np.array([0.8, 2.5]), np.array([0.1, 0.3])
    first = np.array([0.2, -0.5]) if family.name == "lognormal" else np.array([0.2, 3.0])
    second, trials = np.full(2, -0.5), np.array([1.0, 12.0])
    if family.name not in ("binomial", "betabinomial"):
        trials = np.ones(2)
    new = Predictive(family, eta, sd, first, second, trials)
    limits = {p: new.quantile(p) for p in (0.025, 0.4, 0.975)}
    discrete = family.name in ("binomial", "betabinomial", "poisson", "nbinom2", "nbinom1")
    for i in range(2):
        values = eta[i] + sd[i] * rng.standard_normal(n)
        ones = np.ones(n)
        many = trials[i] * ones if family.name in ("binomial", "betabinomial") else None
        y = family.draw(rng, values, first[i] * ones, second[i] * ones, many) / trials[i]
        for p, limit in limits.items():
            margin = 3.5 * np.sqrt(p * (1 - p) / n)
            at_most = np.mean(y <= limit[i] * (1 + 1e-9))
            if discrete or limit[i] == 0:
                assert at_most >= p - margin and np.mean(y <= limit[i] * (1 - 1e-9) - 1e-12) < p + margin
            else:
                assert at_most == pytest.approx(p, abs=margin)


def test_prediction_intervals_are_whole_and_hold_their_share() -> None:
    fit = fitted("binomial")
    data = fit.model.data
    made = fit.predict(interval="prediction")
    counts = made[["conf_low", "conf_high"]].to_numpy() * data["size"].to_numpy()[:, None]
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-9)
    np.testing.assert_allclose(made["prediction"], fit.fitted())
    observed = (data["incidence"] / data["size"]).to_numpy()
    assert np.mean((observed >= made["conf_low"]) & (observed <= made["conf_high"])) >= 0.93
    narrow = fit.predict(interval="prediction", level=0.5)
    assert (narrow["conf_high"] <= made["conf_high"]).all() and (narrow["conf_low"] >= made["conf_low"]).all()
    # a new herd is less certain than a known one
    new = data.head(4).assign(herd="new")
    unknown = fit.predict(new, interval="prediction", new_levels="population")
    pd.testing.assert_frame_equal(unknown, fit.predict(data.head(4), groups=None, interval="prediction"))
    assert (unknown["std_error"] > made["std_error"].head(4)).all()
    both = fit.predict(data.head(4), marginal=True, interval="prediction")
    pd.testing.assert_frame_equal(both[["conf_low", "conf_high"]], unknown[["conf_low", "conf_high"]])
    np.testing.assert_allclose(both["prediction"], fit.predict(data.head(4), marginal=True)["prediction"])


def test_trials_of_new_rows() -> None:
    fit = fitted("binomial")
    one = fit.predict({"period": ["1"], "herd": ["1"]}, interval="prediction")  # no counts there: one trial
    assert set(np.asarray([*one["conf_low"], *one["conf_high"]])) <= {0.0, 1.0}
    many = {"period": ["1", "1"], "herd": ["1", "1"], "incidence": [0, 0], "size": [1000, 0.0]}
    with pytest.raises(ml.DataError, match="number of trials is 0 in row 1"):
        fit.predict(many, interval="prediction")
    many["size"] = [1000, np.nan]
    made = fit.predict(many, interval="prediction")
    eta = fit.predict(many, kind="link", interval="confidence")
    wanted = special.expit(eta["prediction"][0] - 1.96 * np.hypot(eta["std_error"][0], 0.07))
    assert made["conf_low"][0] == pytest.approx(wanted, abs=0.01)
    assert np.isnan(made["conf_low"][1]) and np.isfinite(made["prediction"][1])
    among = fit_of("incidence | trials(size) ~ period + (1 | herd)", ml.load("cbpp"), "binomial")
    pd.testing.assert_frame_equal(among.predict(interval="prediction"), fit.predict(interval="prediction"), rtol=1e-5)
    shares = ml.load("cbpp").eval("share = incidence / size")
    weighted = fit_of("share ~ period + (1 | herd)", shares, "binomial", weights="size")
    np.testing.assert_allclose(
        weighted.predict(shares.head(5), interval="prediction")["conf_high"],
        fit.predict(interval="prediction")["conf_high"].head(5),
    )


def test_central_categories() -> None:
    fit = fitted("ordinal")
    made = fit.predict(interval="prediction", level=0.8, groups=None)
    labels = list(fit.design.labels)
    rng = np.random.default_rng(1)
    rows = _fitted_rows(fit, [], True)
    found = errors(fit, rows.X, rows.terms)
    cov, p = joint_vcov(fit), len(fit.optimum.beta)
    for i in (0, 40):
        draws = rng.multivariate_normal(np.zeros(len(cov)), cov, 100_000, method="svd")
        eta = fit.predict(groups=None, kind="link")["prediction"][i] + draws @ found.along[i]
        eta += np.sqrt(found.apart[i]) * rng.standard_normal(len(eta))
        cuts = fit.optimum.residual + draws[:, p : p + 4]
        category = (rng.random((len(eta), 1)) > special.expit(cuts - eta[:, None])).sum(axis=1)
        assert made["conf_low"][i] == labels[int(np.quantile(category, 0.1))]
        assert made["conf_high"][i] == labels[int(np.quantile(category, 0.9))]
    confident = fit.predict(wine().head(3), groups=None, interval="confidence")
    value = confident["2"].to_numpy()
    cov = cov[: p + 4, : p + 4]
    for i, x in enumerate(fit.design.X[:3]):
        low, high = (special.expit(c - x @ fit.optimum.beta) for c in fit.optimum.residual[:2])
        slope = np.zeros(p + 4)
        slope[p], slope[p + 1] = -low * (1 - low), high * (1 - high)
        slope[:p] = -x * (slope[p] + slope[p + 1])
        variance = slope @ cov @ slope
        half = stats.norm.ppf(0.975) * np.sqrt(variance) / (value[i] * (1 - value[i]))
        assert confident["2_high"][i] == pytest.approx(special.expit(special.logit(value[i]) + half), rel=1e-6)


@pytest.mark.parametrize("family", ["poisson", "binomial", "gamma"])
def test_coverage(family: str) -> None:
    """Of 95 % intervals over simulated sets: new responses in known and new groups, means over all groups.

    Simulation error of the shares is about 0.007 for responses and 0.04 for means; bounds are four of them away. Discrete
    limits hold more. (400 sets of the binomial case: means 0.943.)
    """
    rng = np.random.default_rng(7)
    g, held = np.repeat(np.arange(25), 8), {"known": [], "new": [], "mean": []}  # type: ignore[var-annotated]
    truth = {
        "poisson": np.exp(1 + 0.125),
        "gamma": np.exp(1 + 0.125),
        "binomial": normal_mean(lambda v, _: special.expit(v), np.ones(1), np.full(1, 0.5), 0.6)[0],
    }[family]

    def draw(eta: Array) -> Array:
        if family == "poisson":
            return rng.poisson(np.exp(eta)).astype(float)
        return rng.gamma(4, np.exp(eta) / 4) if family == "gamma" else rng.binomial(10, special.expit(eta)).astype(float)

    for _ in range(30):
        b, x = 0.5 * rng.standard_normal(25), rng.standard_normal(200)
        data = pd.DataFrame({"g": g, "x": x, "y": draw(1 + 0.3 * x + b[g]), "n": 10.0})
        left = "y | trials(n)" if family == "binomial" else "y"
        fit = fit_of(f"{left} ~ x + (1 | g)", data, family)
        scale = 10.0 if family == "binomial" else 1.0
        some = slice(None, None, 4)
        for what, effects in (("known", b[g]), ("new", 0.5 * rng.standard_normal(200))):
            y = draw(1 + 0.3 * x + effects)[some] / scale
            made = fit.predict(data[some], interval="prediction", groups="all" if what == "known" else None)
            held[what].append(np.mean((y >= made["conf_low"] - 1e-9) & (y <= made["conf_high"] + 1e-9)))
        made = fit.predict({"x": [0.0]}, marginal=True, interval="confidence")
        held["mean"].append(float(made["conf_low"][0] <= truth <= made["conf_high"][0]))
    found = {what: np.mean(shares) for what, shares in held.items()}
    most = 0.97 if family == "gamma" else 0.99
    assert 0.93 < found["known"] < most and 0.92 < found["new"] < most and found["mean"] >= 0.79


# -- whatever rows come ---------------------------------------------------------------------------------------------


def test_offsets_groups_and_missing_rows() -> None:
    fit = fitted("zero-inflated")
    new = fit.model.data.head(3)
    twice = fit.predict(new.assign(BroodSize=2 * new["BroodSize"]), interval="confidence")
    once = fit.predict(new, interval="confidence")
    for column in ("prediction", "conf_low", "conf_high"):
        np.testing.assert_allclose(twice[column], 2 * once[column], rtol=1e-9)
    ticks = golden_fit("ticks")
    data = ticks.model.data.head(4)
    some = ticks.predict(data, groups=["BROOD"], kind="link", interval="confidence")
    rows = _fitted_rows(ticks, ["BROOD"], False)
    wanted = np.sqrt(errors(ticks, rows.X[:4], [t for t in _part(rows.terms, 4)]).variance(joint_vcov(ticks)))
    np.testing.assert_allclose(some["std_error"], wanted, rtol=1e-9)
    broken = data.assign(cHEIGHT=[np.nan, *data["cHEIGHT"][1:]])
    asked: list[Any] = [{"interval": "confidence"}, {"interval": "prediction"}, {"marginal": True}]
    for options in (*asked, {"marginal": True, "interval": "confidence"}):
        made, whole = ticks.predict(broken, **options), ticks.predict(data, **options)
        assert np.isnan(made.iloc[0].to_numpy(dtype=float)).all()
        pd.testing.assert_frame_equal(made.iloc[1:], whole.iloc[1:], rtol=1e-9)
    ordinal = fitted("ordinal").predict(wine().head(2).assign(temp=[None, "warm"]), interval="prediction", groups=None)
    assert pd.isna(ordinal["conf_low"][0]) and ordinal["conf_low"][1] in fitted("ordinal").design.labels


def _part(terms: list[Any], count: int) -> list[Any]:
    from dataclasses import replace

    return [replace(t, codes=t.codes[:count], Z=None if t.Z is None else t.Z[:count]) for t in terms]


def test_an_array_as_offset() -> None:
    data = ml.load("owls")
    fit = fit_of("SiblingNegotiation ~ FoodTreatment + (1 | Nest)", data, "nbinom2", offset=np.log(data["BroodSize"]))
    new = data.head(2)
    made = fit.predict(new, offset=np.log([4.0, 8.0]), interval="prediction", groups=None)
    same = fit.predict(new, offset=np.log([4.0, 4.0]), interval="prediction", groups=None)
    assert made["conf_high"][1] > same["conf_high"][1] and made["conf_high"][0] == same["conf_high"][0]
    with pytest.raises(ml.DataError, match="offset"):
        fit.predict(new, interval="prediction")


def test_quadrature_polars_and_weights() -> None:
    polars = pytest.importorskip("polars")
    model = ml.Model(CBPP, ml.load("cbpp"), family="binomial")
    fit: Any = model.fit(quadrature=9, threads=1)
    made = fit.predict(interval="confidence", kind="link")
    laplace = fitted("binomial").predict(interval="confidence", kind="link")
    np.testing.assert_allclose(made["std_error"], laplace["std_error"], rtol=0.05)
    assert not np.allclose(made["std_error"], laplace["std_error"], rtol=1e-6)
    new = polars.DataFrame({"period": ["1"], "herd": ["1"], "incidence": [0], "size": [10]})
    assert isinstance(fit.predict(new, interval="prediction"), polars.DataFrame)
    assert isinstance(fit.predict(new, marginal=True, interval="confidence"), polars.DataFrame)
    rng = np.random.default_rng(1)
    g, w = np.repeat(np.arange(12), 6), rng.integers(1, 4, 72)
    data = pd.DataFrame({"g": g, "y": rng.poisson(np.exp(1 + 0.5 * rng.standard_normal(12)[g])), "w": w.astype(float)})
    weighted = fit_of("y ~ 1 + (1 | g)", data, "poisson", weights="w").predict(interval="confidence", kind="link")
    repeated = data.loc[np.repeat(np.arange(72), w)].reset_index(drop=True)
    plain = fit_of("y ~ 1 + (1 | g)", repeated, "poisson").predict(data, interval="confidence", kind="link")
    np.testing.assert_allclose(weighted["std_error"], plain["std_error"], rtol=1e-5)


def test_falling_links_and_means_that_do_not_exist() -> None:
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(20), 10)
    eta = 1 + 0.05 * rng.standard_normal(20)[g]
    fit = fit_of("y ~ 1 + (1 | g)", pd.DataFrame({"y": rng.gamma(20, 1 / eta / 20), "g": g}), "gamma", link="inverse")
    made = fit.predict(interval="confidence")
    assert ((made["conf_low"] < made["prediction"]) & (made["prediction"] < made["conf_high"])).all()
    sd = float(np.sqrt(fit.random_cov()[0][0, 0]))
    mean = fit.optimum.beta[0]
    brute = integrate.quad(lambda z: stats.norm.pdf(z) / (mean + sd * z), -8, 8)[0]
    assert fit.predict(marginal=True)["prediction"][0] == pytest.approx(brute, rel=1e-7)
    wild = fit_of(
        "y ~ 1 + (1 | g)", pd.DataFrame({"y": rng.gamma(20, np.exp(1.2 * rng.standard_normal(20))[g] / 20), "g": g}), "gamma",
        link="inverse",
    )  # fmt: skip
    with pytest.raises(ml.DataError, match="mean over groups does not exist"):
        wild.predict(marginal=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interval": "prediction", "kind": "link"}, "interval='prediction' is of a new response"),
        ({"marginal": True, "kind": "link"}, "groups=None with kind='link'"),
        ({"interval": "tolerance"}, "'confidence' and 'prediction'"),
        ({"interval": "confidence", "new_levels": "sample"}, "use 'population'"),
        ({"marginal": True, "groups": ["herd"]}, "averages over all groups"),
        ({"interval": "prediction", "level": 95}, "level"),
    ],
)
def test_what_cannot_be_asked_for(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ml.OptionError, match=message):
        fitted("binomial").predict(**options)


@pytest.mark.parametrize("name", MODELS)
def test_fitted_rows_and_the_same_rows_as_new(name: str) -> None:
    fit = fitted(name)
    data = fit.model.data.head(6)
    for more in ({}, {"marginal": True}, {"groups": None}):
        options: Any = {"interval": "confidence", **more}
        pd.testing.assert_frame_equal(fit.predict(**options).head(6), fit.predict(data, **options), rtol=1e-6)
