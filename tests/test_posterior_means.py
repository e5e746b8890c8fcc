"""Means, contrasts and slopes of posteriors: by hand from the draws, against fits."""

from __future__ import annotations

from functools import cache
from typing import Any

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
from multilevel.errors import OptionError
from multilevel.posterior import Posterior


@cache
def machines() -> Any:
    data = ml.load("sleepstudy")
    data["dose"] = np.where(data["Subject"].astype(str).str[-1].astype(int) % 2, "high", "low")
    data["half"] = np.where(data["Days"] < 5, "first", "second")
    return sampled("log(Reaction) ~ dose * half + Days + (1 | Subject)", data, {"keep": "parameters"})


# -- means --------------------------------------------------------------------------------------------------------


def test_means_of_a_line_by_hand() -> None:
    beta = flat(sleep().draws_kept.beta)
    days = np.array([0.0, 2.5, 9.0])
    found = sleep().means("Days", at={"Days": days}, level=0.8)
    check_columns(found, beta[:, :1] + beta[:, 1:] * days, 0.8)
    assert list(found.frame()) == ["Days", "estimate", "est_error", "ci_low", "ci_high"]
    np.testing.assert_array_equal(found["Days"], days)
    np.testing.assert_allclose(flat(found.draws), beta[:, :1] + beta[:, 1:] * days)
    assert found.draws.shape == (4, 250, 3)
    check_columns(sleep().means(), beta[:, :1] + 4.5 * beta[:, 1:])


def test_grid_and_labels_are_those_of_fits() -> None:
    posterior = machines()
    fit = posterior.model.fit(threads=1)
    for options in ({"by": "half"}, {"weights": "cells"}, {"at": {"Days": [1, 2]}, "by": "Days"}):
        mine, theirs = posterior.means("dose", **options), fit.means("dose", **options)
        for name in mine.averages.labels:
            np.testing.assert_array_equal(mine[name], theirs[name])
        np.testing.assert_array_equal(mine.averages.rows, theirs.averages.rows)
        check_columns(mine, flat(posterior.draws_kept.beta) @ theirs.averages.rows.T)
        ours, others = mine.contrasts(), theirs.contrasts()
        np.testing.assert_array_equal(ours["contrast"], others["contrast"])


def test_flat_priors_and_known_variances_are_generalised_least_squares() -> None:
    """Coefficients are then normal about the estimates with the covariance of the fit, whatever its grid makes of them."""
    fit = sleep_fit()
    priors = held_at(fit) | {"Intercept": ml.Flat(), "Days": ml.Flat()}
    posterior = sampled(SLEEP, ml.load("sleepstudy"), {"draws": 5000, "keep": "parameters"}, priors=priors)
    options = {"at": {"Days": [0, 4, 9]}, "ddf": "none"}
    theirs = fit.means("Days", **options)
    mine = posterior.means("Days", at={"Days": [0, 4, 9]})
    for a, b in ((mine, theirs), (mine.contrasts(), theirs.contrasts(adjust="none"))):
        errors = (a["estimate"] - b["estimate"]) / (b["std_error"] / np.sqrt(20_000))
        assert np.abs(errors).max() < 4
        np.testing.assert_allclose(a["est_error"], b["std_error"], rtol=4 / np.sqrt(2 * 20_000))
        np.testing.assert_allclose(a["ci_low"], b["conf_low"], atol=0.06 * b["std_error"].max())
    slope, other = posterior.slopes("Days"), fit.slopes("Days", ddf="none")
    assert abs(slope["estimate"][0] - other["estimate"][0]) < 4 * other["std_error"][0] / np.sqrt(20_000)
    np.testing.assert_allclose(slope["est_error"], other["std_error"], rtol=0.02)


def test_flat_priors_of_counts_agree_with_the_fit() -> None:
    """The posterior of few herds is a little wider and skewed: means within a third of a standard error."""
    priors = {"Intercept": ml.Flat(), "b": ml.Flat(), "sd": ml.Fixed(float(np.sqrt(herd_fit().random_cov()[0][0, 0])))}
    posterior = sampled(HERDS, ml.load("cbpp"), {"draws": 1000}, family="binomial", priors=priors)
    mine, theirs = posterior.means("period"), herd_fit().means("period")
    np.testing.assert_array_less(np.abs(mine["estimate"] - theirs["estimate"]), theirs["std_error"] / 3)
    np.testing.assert_allclose(mine["est_error"], theirs["std_error"], rtol=0.15)


def test_probabilities_by_hand() -> None:
    beta = flat(herds().draws_kept.beta)
    log_odds = np.column_stack([beta[:, 0], beta[:, :1] + beta[:, 1:]])
    linear, back = herds().means("period"), herds().means("period", transform="response")
    check_columns(linear, log_odds)
    check_columns(back, expit(log_odds))
    assert "probabilities" in str(back) and "logit link" in str(linear)
    ratios = herds().contrasts("period", "trt.vs.ctrl", transform="response")
    differences = log_odds[:, 1:] - log_odds[:, :1]
    check_columns(ratios, np.exp(differences))
    np.testing.assert_allclose(ratios["probability"], (differences > 0).mean(axis=0))
    assert ratios["contrast"].tolist() == ["2 / 1", "3 / 1", "4 / 1"]
    assert "Odds ratios" in str(ratios)
    plain = herds().contrasts("period", "trt.vs.ctrl", ref="4")
    assert plain["contrast"].tolist() == ["1 - 4", "2 - 4", "3 - 4"]
    check_columns(plain, log_odds[:, :3] - log_odds[:, 3:])
    own = herds().contrasts("period", {"late": [-0.5, -0.5, 0.5, 0.5]})
    check_columns(own, (log_odds @ [-0.5, -0.5, 0.5, 0.5])[:, None])


def test_logarithm_of_the_response() -> None:
    posterior = machines()
    line = flat(posterior.means("dose", by="half").draws)
    back = posterior.means("dose", by="half", transform="response")
    check_columns(back, np.exp(line))
    ratios = back.contrasts()
    check_columns(ratios, np.exp(line[:, [0, 2]] - line[:, [1, 3]]))
    assert ratios["contrast"].tolist() == ["high / low"] * 2
    assert ratios["half"].tolist() == ["first", "second"]
    across = back.contrasts(by=[], level=0.5)
    assert len(across) == 6
    np.testing.assert_allclose(across["ci_high"][0], np.quantile(np.exp(line[:, 0] - line[:, 1]), 0.75))
    assert "Ratios on the scale of Reaction" in str(ratios) and "half = first:" in str(ratios)
    effects = back.contrasts("eff")
    average = line.reshape(-1, 2, 2).mean(axis=2).repeat(2, axis=1)
    check_columns(effects, np.exp(line - average))


def test_slopes_by_hand() -> None:
    data = ml.load("sleepstudy")
    data["dose"] = np.where(data["Subject"].astype(str).str[-1].astype(int) % 2, "high", "low")
    posterior = sampled("Reaction ~ dose * (Days + I(Days**2)) + (1 | Subject)", data, {"keep": "parameters"})
    beta = dict(zip(posterior.design.names, flat(posterior.draws_kept.beta).T, strict=True))
    square = next(n for n in beta if "**" in n and ":" not in n)
    crossed = [n for n in beta if ":" in n]
    high = beta["Days"] + 2 * 3 * beta[square]
    low = high + beta[next(n for n in crossed if "**" not in n)] + 6 * beta[next(n for n in crossed if "**" in n)]
    found = posterior.slopes("Days", by="dose", at={"Days": 3})
    low_high = np.column_stack([high, low])
    np.testing.assert_allclose(found["estimate"], low_high.mean(axis=0), rtol=1e-7)
    np.testing.assert_allclose(found["est_error"], low_high.std(axis=0, ddof=1), rtol=1e-6)
    np.testing.assert_array_equal(found["probability"], (low_high > 0).mean(axis=0))
    assert list(found.frame())[:2] == ["variable", "dose"]
    contrast = found.contrasts()
    np.testing.assert_allclose(contrast["estimate"], (high - low).mean(), rtol=1e-6)
    assert "Contrasts of slopes of Reaction along Days" in str(contrast)


@pytest.mark.slow
def test_slopes_of_linear_predictors_say_so() -> None:
    found = ticks().slopes("HEIGHT")
    beta = flat(ticks().draws_kept.beta)[:, [n.startswith("scale") for n in ticks().design.names]]
    sd = ml.load("grouseticks")["HEIGHT"].std()
    np.testing.assert_allclose(found["estimate"], (beta / sd).mean(), rtol=1e-6)
    assert "Slopes of the linear predictor of TICKS along HEIGHT" in str(found)


def test_means_that_the_data_do_not_determine() -> None:
    data = ml.load("sleepstudy")
    data["a"] = np.where(data["Days"] < 5, "x", "y")
    data["b"] = np.where(data["Days"] < 7, "u", "v")  # no row has x and v
    posterior = sampled("Reaction ~ a * b + (1 | Subject)", data, {"draws": 50, "keep": "parameters"})
    found = posterior.means("a", by="b")
    lost = [label == ("x", "v") for label in zip(found["a"], found["b"], strict=True)]
    np.testing.assert_array_equal(np.isnan(found["estimate"]), lost)
    np.testing.assert_array_equal(np.isnan(found["ci_low"]), lost)
    assert "NaN: 1 of 4 cannot be estimated" in str(found)
    probability = found.contrasts()["probability"]
    np.testing.assert_array_equal(np.isnan(probability), [False, True])


def test_ordinal_means_are_latent() -> None:
    data = ml.load("wine")
    data["rating"] = pd.Categorical(data["rating"], ordered=True)
    posterior = sampled("rating ~ temp + contact + (1 | judge)", data, {"draws": 50}, family="ordinal")
    beta = flat(posterior.draws_kept.beta)
    check_columns(posterior.contrasts("temp", "revpairwise", transform="response"), np.exp(beta[:, :1]))
    with pytest.raises(OptionError, match="not defined for means of an ordinal response"):
        posterior.means("temp", transform="response")
    table = posterior.augment()
    assert {".linear", ".est_error"} < set(table) and ".fitted" not in table
    tidy = posterior.tidy()
    assert tidy["effect"].tolist() == ["fixed", "fixed", "ran_pars", *["extra"] * 4]


def test_untrustworthy_draws_say_so() -> None:
    doubted = Posterior(sleep().model, sleep().draws_kept, sleep().entries)
    doubted.__dict__["trust"] = (False, "Do not trust these draws yet: the chains disagree.")
    assert "the chains disagree" in str(doubted.means())
    assert sleep().trust[0] and sleep().trust[1] not in str(sleep().means())


def test_tables_and_pictures() -> None:
    pytest.importorskip("matplotlib")
    found = herds().contrasts("period", transform="response")
    assert "<table" in found._repr_html_()
    axes = found.plot()
    assert [label.get_text() for label in axes.get_yticklabels()] == found["contrast"].tolist()
    assert [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":"] == [1.0]
    assert [line.get_xdata()[0] for line in herds().contrasts("period").plot().lines[1:]] == [0.0]
    assert len(herds().means("period").plot().lines) == 1
    pl = pytest.importorskip("polars")
    posterior = sampled(SLEEP, pl.from_pandas(ml.load("sleepstudy")), {"draws": 10, "keep": "parameters"})
    assert isinstance(posterior.means().frame(), pl.DataFrame)
    assert isinstance(posterior.icc(), pl.DataFrame) and isinstance(posterior.tidy(), pl.DataFrame)


def test_bad_questions_about_means() -> None:
    for ask, words in (
        (lambda p: p.means("Dayz"), "'Dayz' is no fixed predictor"),
        (lambda p: p.means("Days"), "is a number, not a factor"),
        (lambda p: p.means(level=95), "level"),
        (lambda p: p.means(transform="link"), "transform 'link' is not known"),
        (lambda p: p.means(weights="some"), "weights 'some' is not known"),
        (lambda p: p.means(at={"Day": 1}), "at names 'Day'"),
        (lambda p: p.means().contrasts(), "single mean"),
        (lambda p: p.slopes("Subject"), "'Subject' is no fixed predictor"),
        (lambda p: p.means()["mean"], "no column 'mean'"),
    ):
        with pytest.raises(OptionError, match=words):
            ask(sleep())
    for ask, words in (
        (lambda p: p.slopes("period"), "is a factor, which has no slope"),
        (lambda p: p.contrasts("period", "pair"), "method 'pair' is not known"),
        (lambda p: p.contrasts("period", "trt.vs.ctrl", ref="5"), "is none of the means"),
        (lambda p: p.means("period").contrasts(by="herd"), "no column of these means"),
        (lambda p: p.means("period").contrasts(level=2), "level"),
        (lambda p: p.means("period", at={"period": "5"}), "no level of 'period'"),
    ):
        with pytest.raises(OptionError, match=words):
            ask(herds())
    probit = sampled(HERDS, ml.load("cbpp"), {"draws": 10}, family="binomial", link="probit")
    with pytest.raises(OptionError, match="neither ratios nor differences of means"):
        probit.contrasts("period", transform="response")
