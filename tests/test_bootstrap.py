"""Bootstrap: what is drawn, seeds and threads, failures, intervals."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from reference import Array
from scipy import stats
from shapes import quiet_fit, shape

import multilevel as ml
from multilevel import DataError, Fit, Model, MultilevelWarning, OptionError, refits
from multilevel import bootstrap as module
from multilevel.bootstrap import Bootstrap, named
from multilevel.bootstrap_intervals import acceleration, corrected, interval, jackknife
from multilevel.predict import draw_responses
from multilevel.resampling import Cases, drawn_response, outermost, pool, reflation
from multilevel.sd_scale import estimates, parameters

SLEEP = ml.load("sleepstudy")
FORMULA = "Reaction ~ Days + (Days | Subject)"
NAMES = (
    "sd(Subject, Intercept)",
    "sd(Subject, Days)",
    "cor(Subject, Intercept, Days)",
    "sigma",
    "Intercept",
    "Days",
)


def quiet(formula: str, data: Any, reml: bool = True, **options: Any) -> Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Model(formula, data, **options).fit(reml)


@pytest.fixture(scope="module")
def sleep() -> Fit:
    return Model(FORMULA, SLEEP).fit()


@pytest.fixture(scope="module")
def boot(sleep: Fit) -> Bootstrap:
    return sleep.bootstrap(400, seed=1)


# --- what is drawn


def test_a_parametric_replicate_is_a_simulation_and_its_fit(sleep: Fit, boot: Bootstrap) -> None:
    assert boot.names == NAMES
    np.testing.assert_allclose(boot.estimates, estimates(parameters(sleep.design), sleep))
    for i in (0, 7, 399):
        y = draw_responses(sleep, 1, [], np.random.default_rng(np.random.SeedSequence(1).spawn(400)[i]))[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            again = sleep.refit(y)
        assert isinstance(again, Fit)
        np.testing.assert_allclose(boot.draws[i], estimates(parameters(sleep.design), again), rtol=1e-4, atol=1e-4)


def test_draws_scatter_as_the_model_says(sleep: Fit, boot: Bootstrap) -> None:
    beta = boot.draws[:, 4:]
    error = beta.std(axis=0) / np.sqrt(len(beta))
    assert (np.abs(beta.mean(axis=0) - sleep.optimum.beta) < 4 * error).all()
    ratio = beta.std(axis=0) / np.sqrt(np.diag(sleep.vcov()))
    assert (np.abs(ratio - 1) < 4 / np.sqrt(2 * len(beta))).all()


@pytest.mark.parametrize("kind", ["parametric", "residual"])
def test_threads_and_count_change_nothing(sleep: Fit, kind: str) -> None:
    one = sleep.bootstrap(60, seed=5, kind=kind, threads=1)
    many = sleep.bootstrap(60, seed=5, kind=kind, threads=3)
    few = sleep.bootstrap(20, seed=5, kind=kind, threads=2)
    np.testing.assert_array_equal(one.draws, many.draws)
    np.testing.assert_allclose(one.draws[:20], few.draws, rtol=1e-8)
    assert not np.array_equal(one.draws, sleep.bootstrap(60, seed=6, kind=kind).draws)


def test_threads_change_nothing_where_each_replicate_is_a_fit(sleep: Fit) -> None:
    for options in ({"kind": "case"}, {"kind": "case", "within": True}, {"statistic": lambda fit: fit.sigma}):
        one = sleep.bootstrap(12, seed=5, threads=1, **options)
        many = sleep.bootstrap(12, seed=5, threads=3, **options)
        np.testing.assert_array_equal(one.draws, many.draws)


def test_without_a_seed_the_seed_kept_gives_the_draws_again(sleep: Fit) -> None:
    first = sleep.bootstrap(5)
    np.testing.assert_array_equal(first.draws, sleep.bootstrap(5, seed=first.seed).draws)
    assert sleep.bootstrap(5).seed != first.seed


@pytest.mark.parametrize("name", ["slope", "uncorrelated", "merged blocks", "crossed slopes", "no fixed effects"])
def test_bulk_and_single_fits_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = quiet_fit(shape(name).weighted, True)
    bulk = fit.bootstrap(8, seed=2)
    monkeypatch.setattr(module, "in_bulk", lambda fit: False)
    single = fit.bootstrap(8, seed=2)
    size = np.where(np.isfinite(bulk.estimates), np.abs(bulk.estimates), 1.0) + fit.sigma
    known = np.isfinite(bulk.draws) & np.isfinite(single.draws)
    cor = [n.startswith("cor(") for n in bulk.names]
    assert known[:, ~np.array(cor)].mean() > 0.8
    gap = np.abs(bulk.draws - single.draws)[known] / np.broadcast_to(size, bulk.draws.shape)[known]
    assert np.quantile(gap, 0.9) < 1e-3


def test_reflated_modes_and_residuals_have_the_estimated_covariances(sleep: Fit) -> None:
    source = pool(sleep)
    for modes, cov in zip(source.modes, sleep.random_cov(), strict=True):
        np.testing.assert_allclose(modes.mean(axis=0), 0, atol=1e-8)
        np.testing.assert_allclose(modes.T @ modes / len(modes), cov, rtol=1e-8)
    assert source.residuals.mean() == pytest.approx(0, abs=1e-8)
    assert np.mean(source.residuals**2) == pytest.approx(sleep.sigma**2)
    drawn = drawn_response(source, sleep.design, np.random.default_rng(1))
    rest = drawn - source.mean
    assert any(np.isclose(rest[0], m[0] + source.residuals).any() for m in source.modes[0])


def test_reflation_of_singular_covariances_leaves_zero_at_zero() -> None:
    found = np.array([[4.0, 2.0], [2.0, 1.0]])  # of modes that vary in one dimension
    wanted = np.array([[9.0, 3.0], [3.0, 1.0]])
    modes = np.outer([1.0, -1.0, 1.0, -1.0], [2.0, 1.0])
    out = modes @ reflation(found, wanted, False)
    assert np.linalg.matrix_rank(out) == 1
    np.testing.assert_array_equal(modes @ reflation(found, np.zeros((2, 2)), False), 0)
    apart = reflation(np.diag([4.0, 1.0]) + 0.5, np.diag([9.0, 0.0]), True)
    np.testing.assert_allclose(apart, np.diag([3 / np.sqrt(4.5), 0.0]))


def test_residuals_with_weights_and_offset_keep_their_scale() -> None:
    fit = quiet_fit(shape("slope").weighted, True)
    assert fit.design.weights is not None
    found = fit.bootstrap(200, seed=4, kind="residual").draws
    column = [p.name for p in parameters(fit.design)].index("sigma")
    assert np.mean(found[:, column] ** 2) == pytest.approx(fit.sigma**2, rel=0.1)


# --- cases


def test_cases_draw_whole_groups() -> None:
    fit = quiet(FORMULA, SLEEP)
    cases = Cases(fit.design, "Subject")
    design = cases.drawn(np.random.default_rng(2), False)
    assert len(design.y) == 180
    assert len(design.terms[0].levels) == 18
    for level in range(18):
        rows = design.terms[0].codes == level
        original = fit.design.terms[0].levels.tolist().index(design.terms[0].levels[level])
        np.testing.assert_array_equal(design.y[rows], fit.design.y[fit.design.terms[0].codes == original])
    again = cases.drawn(np.random.default_rng(2), True)
    assert set(again.y) < set(fit.design.y)


def test_what_is_nested_in_a_group_drawn_twice_is_drawn_twice() -> None:
    fit = quiet("strength ~ 1 + (1 | batch/cask)", ml.load("pastes"))
    assert outermost(fit.design) == ("batch", False)
    design = Cases(fit.design, "batch").drawn(np.random.default_rng(0), False)
    batch, cask = (next(t for t in design.terms if t.group == g) for g in ("batch", "batch:cask"))
    assert len(batch.levels) == 10
    assert len(cask.levels) == 30
    assert len(set(zip(batch.codes, cask.codes, strict=True))) == 30


def test_crossed_factors_keep_the_levels_of_the_other() -> None:
    fit = quiet("diameter ~ 1 + (1 | plate) + (1 | sample)", ml.load("penicillin"))
    assert outermost(fit.design) == ("plate", True)
    found = fit.bootstrap(5, seed=1, kind="case")
    assert found.group == "plate"
    assert "crossed" in found.messages[0]
    other = fit.bootstrap(5, seed=1, kind="case", group="sample")
    assert other.group == "sample"
    design = Cases(fit.design, "plate").drawn(np.random.default_rng(0), False)
    assert len(next(t for t in design.terms if t.group == "sample").levels) == 6


# --- failures, interruption, statistics


def test_failures_are_counted_and_said(sleep: Fit) -> None:
    def statistic(fit: Fit) -> float:
        if fit.optimum.beta[1] > sleep.optimum.beta[1]:
            raise ZeroDivisionError("a slope too steep")
        return fit.sigma

    steep = sleep.bootstrap(20, seed=1).draws[:, 5] > sleep.optimum.beta[1]
    with pytest.warns(MultilevelWarning, match="of 20 replicates failed .* ZeroDivisionError: a slope too steep"):
        found = sleep.bootstrap(20, seed=1, statistic=statistic)
    assert [i for i, _ in found.failures] == np.flatnonzero(steep).tolist()
    assert np.isnan(found.draws[steep]).all()
    assert np.isfinite(found.draws[~steep]).all()
    assert "failed and left out" in str(found)
    kept = found.draws[~steep, 0]
    assert found.confint(0.5)["conf_low"][0] == pytest.approx(np.quantile(kept, 0.25, method="weibull"))


def test_cases_that_do_not_determine_the_fixed_effects_fail_by_name() -> None:
    data = SLEEP.assign(old=(SLEEP["Subject"].astype(str) == "308").astype(float))
    fit = quiet("Reaction ~ Days + old + (1 | Subject)", data)
    with pytest.warns(MultilevelWarning, match="do not determine the fixed effects of 'old'"):
        found = fit.bootstrap(30, seed=1, kind="case")
    assert 0 < len(found.failures) < 30


def test_if_nothing_can_be_fitted_it_is_an_error(sleep: Fit) -> None:
    calls = []

    def statistic(fit: Fit) -> float:
        calls.append(1)
        if len(calls) > 1:
            raise ValueError("no")
        return 1.0

    with pytest.raises(DataError, match="none of the 4 replicates .* ValueError: no"):
        sleep.bootstrap(4, seed=1, statistic=statistic, threads=1)


def test_one_bad_response_does_not_spoil_its_batch(sleep: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    good = sleep.bootstrap(6, seed=3).draws

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise DataError("response 0 is constant")

    monkeypatch.setattr(refits, "refit", refuse)
    np.testing.assert_allclose(sleep.bootstrap(6, seed=3).draws, good, rtol=1e-4, atol=1e-4)


def test_ctrl_c_keeps_the_draws_so_far(sleep: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    refit, calls = refits.refit, [0]

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2:
            raise KeyboardInterrupt
        return refit(*args, **kwargs)

    full = sleep.bootstrap(500, seed=9).draws
    monkeypatch.setattr(refits, "refit", interrupted)
    with pytest.warns(MultilevelWarning, match=r"Interrupted: \d+ of the 500 replicates"):
        found = sleep.bootstrap(500, seed=9)
    assert 0 < len(found) < 500
    np.testing.assert_array_equal(found.draws, full[: len(found)])
    assert found.messages[0].startswith("Interrupted")
    calls[0] = 1
    with pytest.raises(KeyboardInterrupt):  # nothing drawn yet
        sleep.bootstrap(500, seed=9)


def test_statistics_of_every_shape(sleep: Fit) -> None:
    def share(fit: Fit) -> dict[str, float]:
        between = fit.random_cov()[0][0, 0]
        return {"icc": between / (between + fit.sigma**2)}

    found = sleep.bootstrap(10, seed=1, statistic=share)
    whole = sleep.bootstrap(10, seed=1).draws
    assert found.names == ("icc",)
    np.testing.assert_allclose(found.draws[:, 0], whole[:, 0] ** 2 / (whole[:, 0] ** 2 + whole[:, 3] ** 2), rtol=1e-4)
    counts = iter([1, 1, 2, 1])
    with pytest.warns(MultilevelWarning, match="1 of 3 .* the statistic returned 2 numbers"):
        uneven = sleep.bootstrap(3, seed=1, statistic=lambda fit: np.ones(next(counts)), threads=1)
    assert [i for i, _ in uneven.failures] == [1]
    assert sleep.bootstrap(2, seed=1, statistic=lambda fit: fit.sigma).names == ("statistic",)
    assert named(np.arange(2.0))[0] == ("statistic[0]", "statistic[1]")
    assert named(pd.Series({"a": 1, "b": 2}))[0] == ("a", "b")
    for wrong in ("x", None, np.eye(2), [], {"a": "b"}):
        with pytest.raises(OptionError, match="statistic must return a number"):
            named(wrong)


@pytest.mark.parametrize(
    ("formula", "options", "name"),
    [
        ("Reaction ~ Days + cs(1 + Days | Subject)", {}, "cor(Subject, cs)"),
        ("Reaction ~ Days + homdiag(1 + Days | Subject)", {}, "sd(Subject, homdiag)"),
        ("Reaction ~ Days + (1 | Subject)", {"correlation": "ar1(Days | Subject)"}, "rho(Subject)"),
    ],
)
def test_other_structures_are_fitted_one_by_one(formula: str, options: dict[str, str], name: str) -> None:
    fit = quiet(formula, SLEEP, **options)
    assert not module.in_bulk(fit)
    found = fit.bootstrap(12, seed=1, threads=2)
    assert name in found.names
    assert not found.failures
    assert np.isfinite(found.draws).all()
    np.testing.assert_array_equal(found.draws, fit.bootstrap(12, seed=1, threads=1).draws)
    y = draw_responses(fit, 1, [], np.random.default_rng(np.random.SeedSequence(1).spawn(12)[3]))[0]
    again = quiet(formula, SLEEP.assign(Reaction=y), **options)
    np.testing.assert_allclose(found.draws[3, -2:], again.optimum.beta, rtol=1e-5)
    if options:
        assert found.draws[3, found.names.index(name)] == pytest.approx(again.optimum.residual[0], rel=1e-4)
    assert np.isfinite(interval(found, 0.8, "bca")[0]).all()


def test_levels_with_known_covariances_are_drawn_as_such() -> None:
    levels = sorted(set(SLEEP["Subject"].astype(str)))
    root = np.random.default_rng(1).standard_normal((18, 40))
    known = pd.DataFrame(root @ root.T / 40, index=levels, columns=levels)
    data = SLEEP.assign(Subject=SLEEP["Subject"].astype(str))
    fit = quiet(FORMULA, data, covariance={"Subject": known})
    found = fit.bootstrap(20, seed=1)
    y = draw_responses(fit, 1, [], np.random.default_rng(np.random.SeedSequence(1).spawn(20)[3]))[0]
    again = quiet(FORMULA, data.assign(Reaction=y), covariance={"Subject": known})
    np.testing.assert_allclose(found.draws[3], estimates(parameters(again.design), again), rtol=1e-4)
    for kind in ("case", "residual"):
        with pytest.raises(OptionError, match="this model has known covariances between levels"):
            fit.bootstrap(4, kind=kind)
    with pytest.raises(DataError, match="levels with known covariances belong together"):
        found.confint(kind="bca")


# --- intervals


def test_intervals_by_their_definitions(boot: Bootstrap) -> None:
    draws, estimate = boot.draws[:, 5], boot.estimates[5]
    low, high = np.quantile(draws, [0.05, 0.95], method="weibull")
    for kind, wanted in (
        ("percentile", (low, high)),
        ("basic", (2 * estimate - high, 2 * estimate - low)),
        ("normal", 2 * estimate - draws.mean() + stats.norm.ppf([0.05, 0.95]) * draws.std(ddof=1)),
    ):
        table = boot.confint(0.9, kind)
        assert list(table.columns) == ["term", "estimate", "conf_low", "conf_high"]
        assert tuple(table.iloc[5, 2:]) == pytest.approx(tuple(wanted))


def test_bca_is_scipys() -> None:
    rng = np.random.default_rng(0)
    data = rng.exponential(size=60)
    found = stats.bootstrap((data,), np.mean, n_resamples=999, method="BCa", rng=np.random.default_rng(1))
    values = found.bootstrap_distribution
    influence = np.array([np.delete(data, i).mean() for i in range(60)])
    influence = influence.mean() - influence
    a = np.sum(influence**3) / (6 * np.sum(influence**2) ** 1.5)
    shares = corrected(np.array([0.025, 0.975]), values, data.mean(), a)
    np.testing.assert_allclose(
        np.quantile(values, shares), (found.confidence_interval.low, found.confidence_interval.high), rtol=1e-10
    )


def test_bca_leaves_out_groups(sleep: Fit, boot: Bootstrap) -> None:
    values = jackknife(boot)
    assert values.shape == (18, 6)
    without = quiet(FORMULA, SLEEP[SLEEP["Subject"].astype(str) != "308"])
    np.testing.assert_allclose(values[0], estimates(parameters(without.design), without), rtol=1e-5)
    a = acceleration(boot)
    assert np.isfinite(a).all()
    assert (np.abs(a) < 0.3).all()
    low, high = interval(boot, 0.95, "bca")
    assert (low < boot.estimates).all()
    assert (boot.estimates < high).all()


def test_without_bias_and_acceleration_bca_is_percentile() -> None:
    values = np.arange(1.0, 1000.0)
    np.testing.assert_allclose(corrected(np.array([0.1, 0.9]), values, 500.0, 0.0), [0.1, 0.9], atol=1e-12)


def test_singular_replicates_count_and_lack_correlations() -> None:
    fit = quiet("distance ~ age * Sex + (age | Subject)", ml.load("orthodont"))
    found = fit.bootstrap(300, seed=1)
    lost = int(np.isnan(found.draws[:, 2]).sum())
    zero = (found.draws[:, :2] == 0).any(axis=1)
    assert lost == int(zero.sum())
    assert not found.failures
    table = found.confint().set_index("term")
    assert np.isfinite(table.to_numpy()).all()
    singular = quiet("Yield ~ 1 + (1 | Batch)", ml.load("dyestuff2")).bootstrap(300, seed=1)
    assert singular.confint()["conf_low"][0] == 0
    assert (singular.draws[:, 0] == 0).mean() > 0.3
    assert np.isfinite(singular.confint(kind="bca")["conf_high"][0])


def test_confint_of_a_fit(sleep: Fit, boot: Bootstrap) -> None:
    table = sleep.confint(method="bootstrap", n=400, seed=1)
    pd.testing.assert_frame_equal(table, boot.confint())
    some = sleep.confint(0.8, "bootstrap", n=400, seed=1, which=["Days", "sigma"], interval="basic")
    whole = boot.confint(0.8, "basic")
    pd.testing.assert_frame_equal(some, whole[whole["term"].isin(["Days", "sigma"])].reset_index(drop=True))


# --- frame, print, bad input


def test_frame_and_print(boot: Bootstrap) -> None:
    frame = boot.frame()
    assert list(frame.columns) == ["replicate", *NAMES]
    assert len(boot) == len(frame) == 400
    np.testing.assert_array_equal(frame["Days"], boot.draws[:, 5])
    assert repr(boot).startswith(
        "<Bootstrap of 'Reaction ~ Days + (Days | Subject)': 400 parametric replicates, seed 1."
    )
    text = str(boot)
    assert "std_error" in text
    assert "sd(Subject, Days)" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n must be a positive whole number, got 0"),
        ({"n": 2.5}, "n must be a positive whole number, got 2.5"),
        ({"seed": -1}, "seed must be a whole number of at least zero, or None; got -1"),
        ({"seed": "x"}, "seed must be"),
        ({"kind": "cases"}, "kind 'cases' is not known; did you mean 'case'"),
        ({"threads": 0}, "threads must be a positive whole number"),
        ({"statistic": 3}, "statistic must be a function"),
        ({"kind": "case", "group": "Subjct"}, "no group 'Subjct' .* did you mean 'Subject'"),
        ({"kind": "case", "group": 3}, "group must be the name of one grouping factor"),
        ({"kind": "case", "within": "yes"}, "within must be True or False"),
        ({"group": "Subject"}, "group and within belong to kind='case'"),
        ({"progress": "yes"}, "progress must be"),
    ],
)
def test_bad_options(sleep: Fit, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        sleep.bootstrap(**{"n": 4, **options})


def test_bad_intervals(sleep: Fit, boot: Bootstrap) -> None:
    with pytest.raises(OptionError, match="kind of interval 'bcaa' is not known; did you mean 'bca'"):
        boot.confint(kind="bcaa")
    with pytest.raises(OptionError, match="level must lie"):
        boot.confint(1.0)
    with pytest.raises(OptionError, match="kind of interval 'x' is not known; allowed are 'percentile'"):
        sleep.confint(method="bootstrap", interval="x")
    with pytest.raises(OptionError, match="did you mean 'sigma'"):
        sleep.confint(method="bootstrap", which="sigm")


def test_a_fit_without_its_rows_says_so(tmp_path: Any, sleep: Fit) -> None:
    sleep.save(tmp_path / "fit.ml")
    with pytest.raises(DataError, match="saved without its data"):
        ml.read(tmp_path / "fit.ml").bootstrap(4)


def test_a_model_without_groups() -> None:
    fit = quiet_fit(shape("no groups").weighted, True)
    found = fit.bootstrap(20, seed=1)
    assert found.names[0] == "sigma"
    with pytest.raises(OptionError, match="draws groups again, and this model has none"):
        fit.bootstrap(4, kind="case")
    with pytest.raises(DataError, match="BCa intervals leave out groups"):
        found.confint(kind="bca")


@pytest.mark.slow
def test_coverage_of_percentile_intervals_of_a_fixed_effect() -> None:
    rng = np.random.default_rng(1)
    inside = 0
    for seed in range(200):
        data = simulated(rng)
        low, high = interval(quiet("y ~ x + (1 | g)", data).bootstrap(300, seed=seed), 0.9, "percentile")
        inside += low[3] < 1.0 < high[3]
    assert abs(inside / 200 - 0.9) < 3 * np.sqrt(0.9 * 0.1 / 200)


def simulated(rng: np.random.Generator) -> dict[str, Array]:
    g, x = np.repeat(np.arange(30), 5), rng.standard_normal(150)
    return {"g": g, "x": x, "y": x + rng.standard_normal(30)[g] + rng.standard_normal(150)}
