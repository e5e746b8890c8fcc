"""Bootstrap of models with structures: groups with their residuals' structure, innovations, variances by fitted values."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

import multilevel as ml
from multilevel import DataError, Fit, Model, MultilevelWarning, OptionError
from multilevel.bootstrap import fitted_rows
from multilevel.bootstrap_intervals import jackknife
from multilevel.predict import draw_responses
from multilevel.resampling import Cases, drawn_response, pool, residual_of
from multilevel.residuals import multipliers
from multilevel.sd_scale import estimates, parameters_of

SLEEP = ml.load("sleepstudy")
SLEEP["late"] = pd.Categorical(np.where(SLEEP["Days"] > 4, "b", "a"), ordered=True)
AR1 = {"correlation": "ar1(Days | Subject)"}


def quiet(formula: str, data: Any, reml: bool = True, **options: Any) -> Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Model(formula, data, **options).fit(reml)


def copies(data: pd.DataFrame, fit: Fit, cases: Cases, parts: list[Any]) -> pd.DataFrame:
    """The rows of `parts` with a new label for each, as a user would write them."""
    rows = [data.iloc[fit.design.rows[part]].assign(Subject=f"s{i:02d}") for i, part in enumerate(parts)]
    return pd.concat(rows, ignore_index=True)


# --- cases


@pytest.mark.parametrize(
    ("formula", "options"),
    [
        ("Reaction ~ Days + (1 | Subject)", AR1),
        ("Reaction ~ Days + (1 | Subject)", {"correlation": "car1(Days | Subject)", "variance": "ident(late)"}),
        ("Reaction ~ Days + (Days | Subject)", {"variance": "exp(Days)"}),
        ("Reaction ~ Days + (1 | Subject)", {"variance": "power(fitted)"}),
        ("Reaction ~ Days + ar1(0 + late | Subject)", {}),
        ("Reaction ~ Days + homcs(0 + late | Subject)", {"variance": "ident(late)"}),
    ],
)
def test_groups_drawn_twice_are_fitted_as_groups_of_their_own(formula: str, options: dict[str, str]) -> None:
    fit = quiet(formula, SLEEP, **options)
    found = fit.bootstrap(3, seed=1, kind="case", threads=2)
    assert not found.failures
    cases = Cases(fit.design, "Subject")
    every = parameters_of(fit)
    for i, seed in enumerate(np.random.SeedSequence(1).spawn(3)):
        parts = cases.parts(np.random.default_rng(seed), False)
        assert len({tuple(part) for part in parts}) < len(parts)  # some group comes twice
        again = quiet(formula, copies(SLEEP, fit, cases, parts), **options)
        np.testing.assert_allclose(found.draws[i], estimates(every, again), rtol=2e-4, atol=1e-4)
    np.testing.assert_array_equal(found.draws, fit.bootstrap(3, seed=1, kind="case", threads=1).draws)


def test_rows_within_groups_have_their_variances() -> None:
    fit = quiet("Reaction ~ Days + (1 | Subject)", SLEEP, variance="ident(late)")
    found = fit.bootstrap(3, seed=2, kind="case", within=True)
    cases = Cases(fit.design, "Subject")
    parts = cases.parts(np.random.default_rng(np.random.SeedSequence(2).spawn(3)[1]), True)
    again = quiet("Reaction ~ Days + (1 | Subject)", copies(SLEEP, fit, cases, parts), variance="ident(late)")
    np.testing.assert_allclose(found.draws[1], estimates(parameters_of(fit), again), rtol=2e-4)


def test_rows_that_follow_one_another_stay_together() -> None:
    fit = quiet("Reaction ~ Days + (1 | Subject)", SLEEP, **AR1)
    with pytest.raises(OptionError, match=r"within draws rows .* ar1\(Days \| Subject\) says that they follow"):
        fit.bootstrap(4, kind="case", within=True)
    data = SLEEP.assign(item=np.random.default_rng(1).permutation(180) % 6)
    crossed = quiet("Reaction ~ Days + (1 | Subject) + (1 | item)", data, **AR1)
    with pytest.raises(
        OptionError, match=r"draws groups of 'item' again, and ar1\(Days \| Subject\) correlates rows of"
    ):
        crossed.bootstrap(4, kind="case", group="item")
    residual = fit.model.residual
    assert residual is not None
    with pytest.raises(DataError, match="no group drawn has two rows"):
        residual_of(residual, [np.array([i]) for i in range(0, 180, 10)])


def test_cases_that_lack_a_variance_fail_by_name() -> None:
    data = SLEEP.assign(kind=np.where(SLEEP["Subject"].astype(str) == "308", "odd", "even"))
    fit = quiet("Reaction ~ Days + (1 | Subject)", data, variance="ident(kind)")
    with pytest.warns(MultilevelWarning, match=r"no row of 'odd', so ident\(kind\) lacks its variance"):
        found = fit.bootstrap(12, seed=1, kind="case")
    assert 0 < len(found.failures) < 12
    constant = quiet("Reaction ~ Days + (1 | Subject)", SLEEP, variance="exp(Days)").model.residual
    assert constant is not None
    with pytest.raises(DataError, match="'Days' has one value in the groups drawn"):
        residual_of(constant, [np.arange(0, 180, 10)])


@pytest.mark.slow
def test_bca_leaves_groups_out_with_their_rows() -> None:
    for options in (AR1, {"variance": "power(fitted)"}):
        fit = quiet("Reaction ~ Days + (1 | Subject)", SLEEP, **options)
        values = jackknife(fit.bootstrap(2, seed=1))
        assert values.shape == (18, 5)
        without = quiet("Reaction ~ Days + (1 | Subject)", SLEEP[SLEEP["Subject"].astype(str) != "308"], **options)
        np.testing.assert_allclose(values[0], estimates(parameters_of(without), without), rtol=1e-4)


def test_a_correlation_across_the_groups_left_out_is_read_again() -> None:
    data = SLEEP.assign(item=np.random.default_rng(1).permutation(180) % 6)
    formula = "Reaction ~ Days + (1 | Subject) + (1 | item)"
    fit = quiet(formula, data, **AR1)
    cases = Cases(fit.design, "item")
    left = fitted_rows(fit, cases, cases.without(np.array([2])))
    direct = quiet(formula, data[data["item"] != fit.design.terms[1].levels[2]], **AR1)
    np.testing.assert_allclose(
        estimates(parameters_of(left), left), estimates(parameters_of(direct), direct), rtol=1e-4, atol=1e-3
    )


# --- residuals


def test_innovations_are_drawn_and_correlated_again() -> None:
    fit = quiet(
        "Reaction ~ Days + (1 | Subject)", SLEEP, False, correlation="ar1(Days | Subject)", variance="ident(late)"
    )
    source = pool(fit)
    assert np.mean(source.residuals**2) == pytest.approx(fit.sigma**2)
    rng = np.random.default_rng(1)
    ys = np.array([drawn_response(source, fit.design, rng) for _ in range(4000)])
    rest = (ys - source.mean) / multipliers(fit)
    between = fit.random_cov()[0][0, 0]
    rho = fit.optimum.residual[-1]
    spread = fit.sigma**2 + between / multipliers(fit) ** 2
    np.testing.assert_allclose((rest**2).mean(axis=0), spread, rtol=0.25)
    assert (rest**2).mean() == pytest.approx(spread.mean(), rel=0.02)
    lagged = (rest[:, 1:] * rest[:, :-1]).mean(axis=0)[np.arange(179) % 10 != 9]
    wanted = rho * fit.sigma**2 + (between / (multipliers(fit)[1:] * multipliers(fit)[:-1]))[np.arange(179) % 10 != 9]
    assert lagged.mean() == pytest.approx(wanted.mean(), rel=0.03)
    found = fit.bootstrap(4, seed=1, kind="residual")
    assert not found.failures
    assert np.isfinite(found.draws).all()


def test_residuals_need_levels_enough_to_show_a_structure() -> None:
    few = SLEEP[SLEEP["Subject"].astype(str).isin(sorted(set(SLEEP["Subject"].astype(str)))[:8])]
    fit = quiet("Reaction ~ 1 + ar1(0 + factor(Days) | Subject)", few)
    with pytest.raises(OptionError, match=r"its 8 levels cannot show how 10 effects of ar1\(\) covary"):
        fit.bootstrap(4, kind="residual")


# --- variances that depend on the fitted values


def test_variances_follow_the_fitted_values_of_each_replicate() -> None:
    formula, options = "Reaction ~ Days + (1 | Subject)", {"variance": "power(fitted)"}
    fit = quiet(formula, SLEEP, **options)
    found = fit.bootstrap(6, seed=1, threads=2)
    assert found.names == ("sd(Subject, Intercept)", "sigma", "power(fitted)", "Intercept", "Days")
    assert not found.failures
    y = draw_responses(fit, 1, [], np.random.default_rng(np.random.SeedSequence(1).spawn(6)[3]))[0]
    again = quiet(formula, SLEEP.assign(Reaction=y), **options)
    np.testing.assert_allclose(found.draws[3], estimates(parameters_of(again), again), rtol=1e-5)


def test_confint_knows_the_names_of_structures() -> None:
    fit = quiet("Reaction ~ Days + ar1(0 + late | Subject)", SLEEP, variance="ident(late)")
    which = ["sd(Subject, ar1)", "cor(Subject, ar1)", "ratio(late, b)"]
    table = fit.confint(method="bootstrap", n=8, seed=1, which=which, level=0.5)
    assert list(table["term"]) == which
    assert (table["conf_low"] <= table["conf_high"]).all()
    profiled = fit.confint(method="profile", which=which)
    assert list(profiled["term"]) == which
    with pytest.raises(OptionError, match=r"did you mean 'ratio\(late, b\)'"):
        fit.confint(method="bootstrap", which="ratio(late, c)")
