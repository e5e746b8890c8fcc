"""Slopes that vary between groups: tests and slopes of R's lme4 and lm, in `golden_screening` with the script."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

import multilevel as ml  # noqa: E402

R = json.loads((Path(__file__).parent / "golden_screening" / "screening.json").read_text())


@pytest.fixture(scope="module")
def sleep():
    return ml.load("sleepstudy")


SLOPES = {
    "sleepstudy": ("sleepstudy", "Reaction ~ Days", "Subject", "Days", True),
    "sleepstudy_ml": ("sleepstudy", "Reaction ~ Days", "Subject", "Days", False),
    "radon": ("radon", "log_radon ~ floor", "county", "floor", True),
    "cake": ("cake", "angle ~ temp", "replicate", "temp", True),
}


@pytest.mark.parametrize("name", SLOPES)
@pytest.mark.parametrize("random", [False, True])
def test_slope_test_agrees_with_lme4(name, random):
    data, fixed, group, slope, reml = SLOPES[name]
    formula = f"{fixed} + ({slope if random else 1} | {group})"
    check = ml.random_slope_check(ml.Model(formula, ml.load(data)), reml=reml)
    stored = R["slopes"][name]
    assert (check.slope, check.group, check.df) == (slope, group, stored["df"])
    assert check.lrt == pytest.approx(stored["lrt"], abs=2e-5)
    for fit, own in ((check.common, stored["small"]), (check.varying, stored["large"])):
        assert [fit.aic, fit.bic, fit.loglik] == pytest.approx([own["aic"], own["bic"], own["loglik"]], abs=2e-5)
    assert check.p_value == pytest.approx(stats.chi2.sf(stored["lrt"], 2), rel=1e-4)
    mixture = 0.5 * stats.chi2.sf(stored["lrt"], 1) + 0.5 * stats.chi2.sf(stored["lrt"], 2)
    assert check.p_boundary == pytest.approx(mixture, rel=1e-4)


def test_slopes_of_groups_are_those_of_lm(sleep):
    check = ml.random_slope_check(ml.Model("Reaction ~ Days + (Days | Subject)", sleep))
    table = check.slopes()
    assert table["own"].to_numpy() == pytest.approx(R["own_slopes"]["estimate"], rel=1e-9)
    assert table["std_error"].to_numpy() == pytest.approx(check.varying.sigma / np.sqrt(82.5), rel=1e-9)
    coef = check.varying.coef()
    expected = coef.loc[coef["term"] == "Days", "value"].to_numpy()
    assert table["partial"].to_numpy() == pytest.approx(expected)


def test_verdicts(sleep):
    yes = ml.random_slope_check(ml.Model("Reaction ~ Days + (1 | Subject)", sleep))
    assert yes.verdict == "vary"
    assert "Slopes of Days differ between levels of Subject" in yes.sentence
    assert "boundary p < 0.001" in yes.sentence
    rng = np.random.default_rng(3)
    g, x = np.repeat(np.arange(30), 10), np.tile(np.arange(10.0), 30)
    same = {"y": 2 * x + rng.normal(size=30)[g] + rng.normal(size=300), "x": x, "g": g}
    no = ml.random_slope_check(ml.Model("y ~ x + (1 | g)", same))
    assert no.verdict == "common"
    assert no.sentence.startswith("No sign that slopes of x differ between levels of g")
    open_ = ml.random_slope_check(ml.Model("log_radon ~ floor + (1 | county)", ml.load("radon")))
    agree = (open_.p_boundary < 0.05) == (open_.varying.aic < open_.common.aic)
    assert (open_.verdict == "unclear") == (not agree)


def test_a_fit_is_used_as_it_is(sleep):
    fit = ml.Model("Reaction ~ Days + (Days || Subject)", sleep).fit(reml=False)
    check = ml.random_slope_check(fit)
    assert check.varying is fit
    assert not check.common.reml
    assert check.df == 1
    assert check.p_boundary == pytest.approx(0.5 * stats.chi2.sf(check.lrt, 1))
    ranova = fit.ranova()
    row = ranova[ranova["term"].str.startswith("Days")].iloc[0]
    assert check.lrt == pytest.approx(row["lrt"], abs=1e-6)


def test_saved_and_refitted_fits_are_compared_on_their_own_rows(sleep, tmp_path):
    model = ml.Model("Reaction ~ Days + (1 | Subject)", sleep)
    fit = model.fit()
    fit.save(tmp_path / "rows.mlv", data=True)
    check = ml.random_slope_check(ml.read(tmp_path / "rows.mlv"))
    assert check.lrt == pytest.approx(R["slopes"]["sleepstudy"]["lrt"], abs=2e-5)
    fit.save(tmp_path / "bare.mlv")
    with pytest.raises(ml.DataError, match="data=True"):
        ml.random_slope_check(ml.read(tmp_path / "bare.mlv"))
    other = np.random.default_rng(2).normal(size=180) + sleep["Reaction"].to_numpy()
    again = ml.random_slope_check(fit.refit(other))
    afresh = ml.random_slope_check(ml.Model("Reaction ~ Days + (1 | Subject)", sleep.assign(Reaction=other)))
    assert again.lrt == pytest.approx(afresh.lrt, abs=1e-6)
    assert again.lrt != pytest.approx(R["slopes"]["sleepstudy"]["lrt"], abs=1e-2)


def test_slope_of_a_factor_and_of_another_family():
    machines = ml.random_slope_check(ml.Model("score ~ Machine + (Machine | Worker)", ml.load("machines")))
    assert machines.df == 5
    tails = stats.chi2.sf(machines.lrt, [2, 3, 4, 5])  # two variances with their covariance, and two that are free
    assert tails[1] < machines.p_boundary < tails[3] == pytest.approx(machines.p_value, rel=1e-9)
    assert "boundary p < 0.001" in machines.sentence
    assert list(machines.slopes()["term"].unique()) == ["Machine[T.B]", "Machine[T.C]"]
    data = ml.load("epilepsy", as_="polars")
    data = data.with_columns(data["visit"].cast(str).cast(float))
    herds = ml.Model("cbind(incidence, size - incidence) ~ period + (1 | herd)", ml.load("cbpp"), family="binomial")
    periods = ml.random_slope_check(herds)
    assert np.isnan(periods.p_boundary) and "on the safe side" in periods.sentence
    poisson = ml.Model("count ~ visit + zAge + (1 | patient)", data, family="poisson")
    check = ml.random_slope_check(poisson)
    larger = ml.Model("count ~ visit + zAge + (visit | patient)", data, family="poisson").fit()
    assert check.lrt == pytest.approx(2 * (larger.loglik - poisson.fit().loglik), abs=1e-5)
    assert type(check.table).__module__.startswith("polars")
    assert type(check.slopes()).__module__.startswith("polars")
    assert np.nanmin(check.slopes()["std_error"].to_numpy()) > 0


def test_slope_by_its_text(sleep):
    data = sleep.rename(columns={"Days": "n days", "Subject": "the subject"})
    odd = ml.random_slope_check(ml.Model("Reaction ~ `n days` + (1 | `the subject`)", data), slope="n days")
    assert odd.lrt == pytest.approx(R["slopes"]["sleepstudy"]["lrt"], abs=2e-5)
    square = "Reaction ~ Days + I(Days**2) + (Days + I(Days**2) | Subject)"
    check = ml.random_slope_check(ml.Model(square, sleep), "I(Days**2)")
    assert check.slope == "I(Days ** 2)"
    assert check.df == 3
    mixture = 0.5 * stats.chi2.sf(check.lrt, 2) + 0.5 * stats.chi2.sf(check.lrt, 3)
    assert check.p_boundary == pytest.approx(mixture)


def test_slope_of_a_nested_factor():
    data = ml.load("dietox")
    check = ml.random_slope_check(ml.Model("Weight ~ Time + (1 | Litter/Pig)", data), group="Litter:Pig")
    written = ml.Model("Weight ~ Time + (1 | Litter) + (Time | Litter:Pig)", data).fit()
    assert check.varying.loglik == pytest.approx(written.loglik, abs=1e-6)


def test_slope_of_a_posterior_is_that_of_its_model(sleep):
    model = ml.Model("Reaction ~ Days + (Days | Subject)", sleep)
    posterior = model.sample(draws=100, chains=1, seed=1)
    assert ml.random_slope_check(posterior).lrt == pytest.approx(ml.random_slope_check(model).lrt)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ml.random_slope_check("y ~ x"), "takes a Model or a fit"),
        (lambda: ml.random_slope_check(ml.Model("Reaction ~ Days", ml.load("sleepstudy"))), "has no groups"),
        (lambda: ml.random_slope_check(ml.Model("Reaction ~ Days + (1 | Subject)", ml.load("sleepstudy")), "Day"), "'Days'"),
        (
            lambda: ml.random_slope_check(ml.Model("Reaction ~ 1 + (1 | Subject)", ml.load("sleepstudy"))),
            "no fixed term varies",
        ),
        (
            lambda: ml.random_slope_check(
                ml.Model("log_radon ~ floor + log_uranium + (1 | county)", ml.load("radon")), "log_uranium"
            ),
            "same in all rows",
        ),
        (
            lambda: ml.random_slope_check(ml.Model("Reaction ~ Days + cs(1 + Days | Subject)", ml.load("sleepstudy"))),
            "structured term",
        ),
        (
            lambda: ml.random_slope_check(ml.Model("Reaction ~ Days + (1 | Subject)", ml.load("sleepstudy")), group="subj"),
            "did you mean 'Subject'",
        ),
    ],
)
def test_slope_check_refuses(call, message):
    with pytest.raises(ml.MultilevelError, match=message):
        call()


def test_slope_plot_draws_the_table(sleep, settings_kept):
    check = ml.random_slope_check(ml.Model("Reaction ~ Days + (1 | Subject)", sleep))
    lines, slopes = check.plot()
    assert "Slopes of Days differ" in " ".join(lines.figure.get_suptitle().split())
    table = check.slopes().sort_values("own")
    drawn = {line.get_label(): line for line in slopes.lines}
    assert drawn["unpooled (each group alone)"].get_xdata() == pytest.approx(table["own"].to_numpy())
    assert drawn["partially pooled (this model)"].get_xdata() == pytest.approx(table["partial"].to_numpy())
    assert [one.get_text() for one in slopes.get_yticklabels()] == list(map(str, table["level"]))
    assert len(lines.lines) == 2 * 18 + 1
    slope = lines.lines[-1]
    assert np.ptp(slope.get_ydata()) / np.ptp(slope.get_xdata()) == pytest.approx(10.467, abs=1e-3)
    alone = check.plot(ax=slopes.figure.add_subplot())
    assert alone.get_xlabel() == "slope of Days (dashed: mean of groups)"
    slopes.figure.savefig(io.BytesIO())
