"""Shares of variance and broom's tables of posteriors: by hand from the draws, against fits."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from posterior_samples import (
    HERDS,
    SLEEP,
    check_columns,
    flat,
    held_at,
    herd_fit,
    herds,
    sampled,
    sleep,
    sleep_fit,
    ticks,
)
from scipy.special import expit

import multilevel as ml
from multilevel import posterior_shares
from multilevel.errors import DataError, OptionError
from multilevel.posterior_shares import link_parts, response_parts

# -- shares of variance -------------------------------------------------------------------------------------------


def test_shares_of_a_line_by_hand() -> None:
    """The mean over rows of z' Sigma z, row by row and draw by draw."""
    days, kept = ml.load("sleepstudy")["Days"].to_numpy(float), sleep().draws_kept
    z = np.column_stack([np.ones(180), days])
    random = np.array([np.mean([row @ cov @ row for row in z[:10]]) for cov in flat(kept.covariances(0, "us", 2))])
    fixed = flat(kept.beta)[:, 1] ** 2 * np.var(days, ddof=1)
    residual = flat(kept.scalar("sigma")) ** 2
    shares = np.column_stack([random / (random + residual), random / (random + residual + fixed)])
    found = sleep().icc(level=0.9)
    check_columns(found, shares, 0.9)
    assert found["kind"].tolist() == ["adjusted", "conditional"]
    by = sleep().icc(by_group=True)
    assert by["group"].tolist() == ["Subject"] * 2
    check_columns(by, shares)
    total = fixed + random + residual
    check_columns(sleep().r2(), np.column_stack([fixed / total, (fixed + random) / total]))
    pd.testing.assert_frame_equal(sleep().icc(scale="response"), sleep().icc())


def test_weights_and_known_covariances_enter_as_in_fits() -> None:
    data = ml.load("sleepstudy")
    data["w"] = np.linspace(0.5, 3, 180)
    data["animal"] = data["Subject"].astype(str)
    names = sorted(set(data["animal"]))
    known = pd.DataFrame(np.diag(np.linspace(1, 2, 18)) + 0.3, names, names)
    options = {"weights": "w", "covariance": {"animal": known}}
    fit = ml.Model("Reaction ~ Days + (1 | animal)", data, **options).fit(threads=1)
    held = sampled("Reaction ~ Days + (1 | animal)", data, {"draws": 5}, priors=held_at(fit), **options)
    np.testing.assert_allclose(held.icc()["estimate"], fit.icc(interval=None)["estimate"], rtol=1e-10)
    np.testing.assert_allclose(held.r2()["estimate"], fit.r2(interval=None)["estimate"], rtol=1e-10)


def test_variance_functions_enter_draw_by_draw() -> None:
    data = ml.load("sleepstudy")
    posterior = sampled(
        "Reaction ~ Days + (1 | Subject)", data, {"draws": 20, "keep": "parameters"}, variance="exp(Days)"
    )
    kept = posterior.draws_kept
    values = {c.name: flat(kept.scalars)[:, i] for i, c in enumerate(kept.coordinates)}
    rate = next(v for name, v in values.items() if name.startswith("exp"))
    days = data["Days"].to_numpy()
    residual = values["sigma"] ** 2 * np.array([np.mean(np.exp(2 * one * days)) for one in rate])
    random = next(v for name, v in values.items() if name.startswith("sd")) ** 2
    np.testing.assert_allclose(posterior.icc()["estimate"][0], np.mean(random / (random + residual)), rtol=1e-9)
    assert posterior.tidy()["term"].tolist()[-2:] == ["sd__Observation", "exp(Days)"]


def test_held_parameters_have_the_shares_of_the_fit() -> None:
    held = sampled(SLEEP, ml.load("sleepstudy"), {"draws": 5, "keep": "parameters"}, priors=held_at(sleep_fit()))
    np.testing.assert_allclose(held.icc()["estimate"], sleep_fit().icc(interval=None)["estimate"], rtol=1e-10)
    np.testing.assert_allclose(held.r2()["estimate"], sleep_fit().r2(interval=None)["estimate"], rtol=1e-10)
    np.testing.assert_allclose(held.icc()["est_error"], 0, atol=1e-12)
    priors = held_at(herd_fit())
    held = sampled(HERDS, ml.load("cbpp"), {"draws": 5, "keep": "parameters"}, family="binomial", priors=priors)
    for scale in ("link", "response"):
        for verb in ("icc", "r2"):
            mine, theirs = getattr(held, verb)(scale=scale), getattr(herd_fit(), verb)(scale=scale)
            np.testing.assert_allclose(mine["estimate"], theirs["estimate"], rtol=1e-9)


@pytest.mark.parametrize("family", ["nbinom2", "student", "gamma", "tweedie"])
def test_held_dispersion_has_the_shares_of_the_fit(family: str) -> None:
    rng = np.random.default_rng(3)
    group, x = np.repeat(np.arange(20), 8), rng.standard_normal(160)
    line = 0.5 + 0.4 * x + 0.6 * rng.standard_normal(20)[group]
    y = {"nbinom2": rng.poisson(np.exp(line)), "student": line + rng.standard_t(4, 160)}.get(
        family, rng.gamma(2.0, np.exp(line) / 2)
    )
    y = np.where(rng.random(160) < 0.2, 0.0, y) if family == "tweedie" else y
    data = pd.DataFrame({"y": y, "x": x, "g": group.astype(str)})
    fit = ml.Model("y ~ x + (1 | g)", data, family=family).fit(threads=1)
    extra = dict(zip(fit.coefficients.names, map(ml.Fixed, map(float, fit.optimum.residual)), strict=True))
    held = sampled("y ~ x + (1 | g)", data, {"draws": 20}, family=family, priors=held_at(fit) | extra)
    for scale in ("link", "response"):
        for verb in ("icc", "r2"):
            mine, theirs = getattr(held, verb)(scale=scale), getattr(fit, verb)(scale=scale)
            np.testing.assert_allclose(mine["estimate"], theirs["estimate"], rtol=1e-7)


def test_latent_shares_by_hand() -> None:
    kept, d = herds().draws_kept, herds().design
    random = flat(kept.scalars)[:, 0] ** 2
    fixed = np.array([np.var(d.X @ beta, ddof=1) for beta in flat(kept.beta)])
    residual = np.pi**2 / 3
    check_columns(herds().icc(), np.column_stack([random / (random + residual), random / (random + residual + fixed)]))
    total = fixed + random + residual
    check_columns(herds().r2(), np.column_stack([fixed / total, (fixed + random) / total]))


def test_shares_of_counts_have_a_closed_form() -> None:
    """Lognormal means, draw by draw: E = exp(eta + s2 / 2), variance between groups (exp(s2) - 1) E^2."""
    posterior = ticks()
    kept, d = posterior.draws_kept, posterior.design
    values = flat(kept.scalars)
    s2, size = values[:, :2] ** 2, np.exp(values[:, [c.kind == "further" for c in kept.coordinates]])
    mean = np.exp(flat(kept.beta) @ d.X.T + s2.sum(axis=1)[:, None] / 2)
    between = np.mean(np.expm1(s2.sum(axis=1))[:, None] * mean**2, axis=1)
    within = np.mean(mean + mean**2 * np.exp(s2.sum(axis=1))[:, None] / size, axis=1)
    fixed = np.var(mean, axis=1)
    shares = np.column_stack([between / (between + within), between / (between + within + fixed)])
    check_columns(posterior.icc(scale="response"), shares)
    alone = np.stack([np.mean(np.expm1(v)[:, None] * mean**2, axis=1) for v in s2.T], axis=1)
    base = (between + within)[:, None]
    by = posterior.icc(by_group=True, scale="response")
    check_columns(by, np.hstack([alone / base, alone / (base + fixed[:, None])]))
    assert by["group"].tolist() == ["BROOD", "LOCATION"] * 2


def test_counts_on_the_link_take_the_mean_of_the_null_model() -> None:
    posterior = ticks()
    data = ml.load("grouseticks")
    null = ml.Model("TICKS ~ 1 + (1 | BROOD) + (1 | LOCATION)", data, family="nbinom2").fit(threads=1)
    centre = np.exp(float(null.optimum.beta[0]))
    kept = posterior.draws_kept
    size = np.exp(flat(kept.scalars)[:, [c.kind == "further" for c in kept.coordinates]][:, 0])
    np.testing.assert_allclose(link_parts(posterior).residual, np.log1p(1 / centre + 1 / size), rtol=1e-6)
    alone = sampled("TICKS ~ 1 + (1 | BROOD)", data, {"draws": 20}, family="poisson")
    mean = np.exp(flat(alone.draws_kept.beta)[:, 0])
    np.testing.assert_allclose(link_parts(alone).residual, np.log1p(1 / mean), rtol=1e-12)


@pytest.mark.slow
def test_a_level_for_every_row_is_overdispersion() -> None:
    data = ml.load("grouseticks")
    posterior = sampled("TICKS ~ 1 + (1 | BROOD) + (1 | INDEX)", data, {"draws": 20}, family="poisson")
    s2 = flat(posterior.draws_kept.scalars) ** 2
    mean = np.exp(flat(posterior.draws_kept.beta)[:, 0])
    residual = np.log1p(1 / mean) + s2[:, 1]
    found = posterior.icc(by_group=True)
    np.testing.assert_allclose(found["estimate"], [np.mean(s2[:, 0] / (s2[:, 0] + residual)), 0.0] * 2)


def test_many_rows_and_draws_are_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = response_parts(ticks())
    monkeypatch.setattr(posterior_shares, "BUDGET", 0)
    monkeypatch.setattr(posterior_shares, "FEWEST", 7)
    few = response_parts(ticks())
    at = np.linspace(0, 119, 7).round().astype(int)
    np.testing.assert_allclose(few.icc(), whole.icc()[at], rtol=1e-10)
    monkeypatch.setattr(posterior_shares, "MOST_ROWS", 100)
    np.testing.assert_allclose(response_parts(ticks()).icc(), few.icc(), atol=0.01)


def test_extra_zeros_with_an_offset() -> None:
    """Shares of a zero-inflated count in an offset, by simulation of groups and responses."""
    formula = "SiblingNegotiation ~ FoodTreatment + offset(log(BroodSize)) + (1 | Nest)"
    options = {"family": "poisson", "zi": "~ FoodTreatment"}
    posterior = sampled(formula, ml.load("owls"), {"draws": 4, "chains": 2, "warmup": 200}, **options)
    found, rng, d = response_parts(posterior), np.random.default_rng(1), posterior.design
    kept = posterior.draws_kept
    values = flat(kept.scalars)
    b = rng.standard_normal((2000, 1))
    for i in range(2):
        eta = d.X @ flat(kept.beta)[i] + d.offset + values[i, 0] * b
        zero = expit(d.X @ values[i, 1:3])
        mean = (1 - zero) * np.exp(eta)
        variance = (1 - zero) * (np.exp(eta) + np.exp(2 * eta)) - mean**2
        np.testing.assert_allclose(found.groups[i, 0], mean.var(axis=0).mean(), rtol=0.1)
        np.testing.assert_allclose(found.residual[i], variance.mean(), rtol=0.05)
        np.testing.assert_allclose(found.fixed[i], mean.mean(axis=0).var(), rtol=0.1)
    with pytest.raises(OptionError, match="has extra zeros"):
        posterior.icc()


def test_bad_questions_about_shares() -> None:
    for ask, words in (
        (lambda p: p.icc(level=1.5), "level"),
        (lambda p: p.icc(by_group="yes"), "by_group"),
        (lambda p: p.r2(scale="data"), "scale 'data' is not known"),
    ):
        with pytest.raises(OptionError, match=words):
            ask(sleep())
    alone = sampled("Reaction ~ Days", ml.load("sleepstudy"), {"draws": 10})
    with pytest.raises(OptionError, match="no random effects"):
        alone.icc()
    marginal, conditional = alone.r2()["estimate"]
    assert marginal == conditional > 0


# -- broom --------------------------------------------------------------------------------------------------------


def test_tidy_has_every_parameter() -> None:
    found, fit = sleep().tidy(level=0.9), sleep_fit().tidy()
    for name in ("effect", "group", "term"):
        assert found[name].tolist() == fit[name].tolist()
    kept = sleep().draws_kept
    cov = flat(kept.covariances(0, "us", 2))
    sd = np.sqrt(np.einsum("sii->si", cov))
    values = np.column_stack([flat(kept.beta), sd, cov[:, 1, 0] / sd[:, 0] / sd[:, 1], flat(kept.scalar("sigma"))])
    np.testing.assert_allclose(found["estimate"], values.mean(axis=0))
    np.testing.assert_allclose(found["std_error"], values.std(axis=0, ddof=1))
    np.testing.assert_allclose(found["conf_low"], np.quantile(values, 0.05, axis=0))
    np.testing.assert_allclose(found["rhat"][:2], sleep().fixef()["rhat"])
    np.testing.assert_allclose(found["ess"][:2], sleep().fixef()["ess_bulk"])
    with pytest.raises(OptionError, match="level"):
        sleep().tidy(level=0)


def test_glance() -> None:
    one = sleep().glance().iloc[0]
    assert one["nobs"] == 180 and one["draws"] == 1000 and one["method"] == "independent" and one["trusted"]
    assert one["sigma"] == sleep().sigma and one["pareto_k"] == sleep().draws_kept.facts["pareto_k"]
    posterior = sampled(HERDS, ml.load("cbpp"), {"method": "nuts"}, family="binomial")
    other, table = posterior.glance().iloc[0], posterior.fixef()
    assert np.isnan(other["sigma"]) and np.isnan(other["pareto_k"]) and other["method"] == "nuts"
    assert other["rhat"] >= table["rhat"].max() and other["ess"] <= table["ess_bulk"].min()
    assert other["divergences"] == posterior.draws_kept.stats["diverging"].sum()


def test_augment() -> None:
    data = ml.load("sleepstudy")
    data.loc[3, "Reaction"] = np.nan
    posterior = sampled("log(Reaction) ~ Days + (Days | Subject)", data)
    table = posterior.augment()
    assert len(table) == 180 and np.isnan(table[".resid"][3])
    beta, b = flat(posterior.draws_kept.beta), flat(posterior.draws_kept.b[0])
    fitted = beta[:, 0] + b[:, 0, 0] + 2 * (beta[:, 1] + b[:, 0, 1])
    np.testing.assert_allclose(table[".fitted"][2], fitted.mean())
    np.testing.assert_allclose(table[".est_error"][2], fitted.std(ddof=1))
    np.testing.assert_allclose(table[".fixed"][2], (beta[:, 0] + 2 * beta[:, 1]).mean())
    np.testing.assert_allclose(table[".resid"][2], np.log(data["Reaction"][2]) - fitted.mean())
    np.testing.assert_allclose(table["log(Reaction)"][:3], np.log(data["Reaction"][:3]))
    new = pd.DataFrame({"Days": [2.0, 2.0], "Subject": ["308", "new"], "note": ["a", "b"]})
    more = posterior.augment(new, new_levels="population")
    assert list(more) == ["Days", "Subject", "note", ".fitted", ".est_error", ".fixed"]
    np.testing.assert_allclose(more[".fitted"][0], fitted.mean())
    assert more[".est_error"][1] > more[".est_error"][0]
    with pytest.raises(DataError):
        posterior.augment(new)


def test_augment_of_successes() -> None:
    table, data = herds().augment(), ml.load("cbpp")
    beta, b = flat(herds().draws_kept.beta), flat(herds().draws_kept.b[0])
    share = expit(beta[:, 0] + b[:, 0, 0])
    np.testing.assert_allclose(table[".fitted"][0], share.mean())
    np.testing.assert_allclose(table[".linear"][0], (beta[:, 0] + b[:, 0, 0]).mean())
    np.testing.assert_allclose(table[".resid"][0], data["incidence"][0] / data["size"][0] - share.mean())
    assert {"herd", "incidence", "size", "period"} < set(table)


def test_without_group_effects() -> None:
    """What the parameters alone give works; what needs the groups says so."""
    bare = sampled(HERDS, ml.load("cbpp"), {"keep": "parameters", "draws": 20}, family="binomial")
    for verb in (lambda: bare.means("period"), bare.icc, bare.r2, bare.tidy, bare.glance):
        assert verb() is not None
    assert np.isfinite(bare.icc(scale="response")["estimate"]).all()
    with pytest.raises(OptionError, match="group effects were not kept"):
        bare.augment()
