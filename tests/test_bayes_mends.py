"""Leave-one-out in blocks, flat priors without a posterior, correlations held in a structure, advice on the command line."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multilevel as ml
from multilevel import cli, posterior_condition_link, progress
from multilevel import loo as loo_module
from multilevel.loo import loo, loo_of

pytestmark = pytest.mark.filterwarnings("ignore::multilevel.ConvergenceWarning")  # few draws suffice here


def herds(**options: Any) -> ml.Model:
    return ml.Model("cbind(incidence, size - incidence) ~ period + (1 | herd)", ml.load("cbpp"), family="binomial", **options)


def linear() -> Any:
    return ml.Model("math ~ homework + (homework | schid)", ml.load("math10")).sample(seed=1, draws=200)


def generalised() -> Any:
    return herds().sample(seed=1, draws=100, method="nuts")


def serial() -> Any:
    model = ml.Model("Reaction ~ Days + (1 | Subject)", ml.load("sleepstudy"), correlation="ar1(Days | Subject)")
    return model.sample(seed=1, draws=50)


# -- leave-one-out ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("make", [linear, generalised, serial])
def test_loo_is_that_of_the_whole_log_likelihood(make: Any) -> None:
    posterior = make()
    found, whole = posterior.loo(), loo(posterior.log_likelihood())
    assert np.array_equal(found.pointwise, whole.pointwise) and np.array_equal(found.pareto_k, whole.pareto_k)
    assert (found.elpd, found.se, found.p_loo) == (whole.elpd, whole.se, whole.p_loo)


@pytest.mark.parametrize("make", [linear, generalised])
def test_loo_in_blocks_of_rows(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    posterior = make()
    whole = posterior.loo()
    monkeypatch.setattr(loo_module, "NUMBERS", 7.5 * posterior.draws_kept.chains * posterior.draws_kept.draws)
    np.testing.assert_allclose(posterior.loo().pointwise, whole.pointwise, rtol=1e-12)


def test_loo_takes_no_memory_for_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(50), 80)
    data = {"y": rng.normal(size=50)[g] + rng.normal(size=4000), "g": g}
    posterior = ml.Model("y ~ 1 + (1 | g)", data).sample(seed=1, draws=500)
    monkeypatch.setattr(loo_module, "NUMBERS", 2e5)
    tracemalloc.start()
    try:
        loo_of(posterior, False)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * 8 * 2e5 < 0.3 * 8 * 2000 * 4000  # ten arrays of a block, where all rows take 64 MB for one


def test_loo_shows_how_far_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    posterior = linear()
    posterior.loo(progress=True)
    assert "leave-one-out" in capsys.readouterr().err
    posterior.loo()
    assert capsys.readouterr().err == ""
    with pytest.raises(ml.OptionError, match="progress"):
        posterior.loo(progress="yes")


# -- flat priors -----------------------------------------------------------------------------------------------


SALAMANDERS = "count ~ mined + (1 | site)"


def counts(family: str, name: str, **options: Any) -> ml.Model:
    return ml.Model(SALAMANDERS, ml.load("salamanders"), family=family, priors={name: ml.Flat()}, **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: counts("nbinom2", "size"), r"of size\[Intercept\] has no proper .*Poisson.*ml\.Normal"),
        (lambda: counts("nbinom1", "alpha"), r"of alpha\[Intercept\] has no proper .*to zero"),
        (lambda: counts("poisson", "zi", zi="~ 1"), r"of zi\[Intercept\] has no proper .*extra zeros"),
        (lambda: counts("nbinom2", "zi[mined[T.no]]", zi="~ mined"), r"of zi\[mined\[T.no\]\] has no"),
        (lambda: counts("tweedie", "power"), r"of power\[Intercept\]"),
        (lambda: ml.Model("math ~ homework + (1 | schid)", ml.load("math10"), family="student", priors={"df": ml.Flat()}),
            r"of df\[Intercept\].*normal"),
        (lambda: ml.Model("cbind(incidence, size - incidence) ~ 1 + (1 | herd)", ml.load("cbpp"), family="betabinomial",
            priors={"precision": ml.Flat()}), "become binomial"),
    ],
)  # fmt: skip
def test_flat_priors_of_further_parameters_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ml.OptionError, match=message):
        make().prior_summary()


@pytest.mark.parametrize(
    "make",
    [
        lambda: counts("poisson", "zi", hurdle="~ 1"),
        lambda: counts("poisson", "b"),
        lambda: counts("tweedie", "phi"),
        lambda: counts("nbinom2", "size[DOY]", dispersion="~ DOY"),
        lambda: ml.Model("math ~ homework + (1 | schid)", ml.load("math10"), family="student", priors={"sigma": ml.Flat()}),
    ],
)
def test_flat_priors_that_leave_a_posterior_are_taken(make: Any) -> None:
    assert "Flat()" in list(make().prior_summary()["prior"])


def test_the_likelihood_of_a_refused_flat_prior_is_bounded_away_from_zero() -> None:
    """What is said of the hurdle and of inflation, by the densities themselves."""
    from multilevel import _core

    y = np.array([0.0, 0.0, 1.0, 4.0])
    eta = np.zeros(4)

    def likelihood(model: ml.Model, first: float, second: float) -> float:
        assert model.distribution is not None
        columns = [np.full(4, first), np.full(4, second)]
        return float(np.asarray(_core.log_densities(model.distribution.kernel, y, None, eta, *columns)[0])[:, 0].sum())

    plain, data = np.log([np.exp(-1), np.exp(-1), np.exp(-1), np.exp(-1) / 24]).sum(), ml.load("salamanders")
    inflated = ml.Model(SALAMANDERS, data, family="poisson", zi="~ 1")
    hurdle = ml.Model(SALAMANDERS, data, family="poisson", hurdle="~ 1")
    assert likelihood(ml.Model(SALAMANDERS, data, family="nbinom2"), 25, 0) == pytest.approx(plain, abs=1e-6)
    assert likelihood(ml.Model(SALAMANDERS, data, family="nbinom1"), -25, 0) == pytest.approx(plain, abs=1e-6)
    assert likelihood(inflated, 0, -30) == pytest.approx(plain, abs=1e-6)
    assert likelihood(hurdle, 0, -30) < -50 and likelihood(hurdle, 0, 30) < -50


def separated() -> dict[str, Any]:
    x = np.r_[np.linspace(-3, -1, 20), np.linspace(1, 3, 20)]
    return {"y": np.repeat([0, 1], 20), "x": x, "z": np.tile([0.0, 1.0, 2.0, 3.0], 10), "g": np.tile(list("abcde"), 8)}


def test_flat_coefficients_of_separated_data_are_refused() -> None:
    def of(priors: Any) -> ml.Model:
        return ml.Model("y ~ x + z + (1 | g)", separated(), family="binomial", priors=priors)

    with pytest.raises(ml.OptionError, match=r"of x.* no proper posterior: some successes and failures of 'y'"):
        of({"x": ml.Flat()}).sample(draws=10)
    with pytest.raises(ml.OptionError, match="separation"):
        of({"b": ml.Flat()}).sample(draws=10)
    for priors in ({"z": ml.Flat()}, {"Intercept": ml.Flat()}, None):
        assert len(of(priors).prior_summary()) == 4
    assert "Flat()" in list(herds(priors={"b": ml.Flat()}).prior_summary()["prior"])


def test_flat_coefficients_of_separated_categories_and_counts() -> None:
    data = separated() | {"level": np.repeat([1, 2, 3, 4], 10)}
    with pytest.raises(ml.OptionError, match="higher and lower categories"):
        flat = {"b": ml.Flat(), "thresholds": ml.Flat()}
        ml.Model("level ~ x + (1 | g)", data, family="ordinal", priors=flat).prior_summary()
    dummy = data | {"seen": (np.arange(40) >= 30).astype(float), "count": np.r_[np.tile([0, 1], 15), np.zeros(10, dtype=int)]}
    with pytest.raises(ml.OptionError, match="zeros and larger counts"):
        ml.Model("count ~ seen + (1 | g)", dummy, family="poisson", priors={"seen": ml.Flat()}).prior_summary()


# -- correlations held ------------------------------------------------------------------------------------------


def structured(term: str, value: Any) -> ml.Model:
    data = ml.load("machines")
    data["Machine"] = data["Machine"].cat.as_ordered()
    return ml.Model(f"score ~ Machine + {term}", data, priors={"cor": ml.Fixed(value)})


EVEN = 0.4 + 0.6 * np.eye(3)
POWERS = 0.5 ** np.abs(np.subtract.outer(np.arange(3), np.arange(3)))


@pytest.mark.parametrize(
    ("kind", "good", "bad", "message"),
    [("cs", EVEN, POWERS, "the same correlation"), ("ar1", POWERS, EVEN, "a power of the distance")],
)
def test_matrices_held_have_the_structure_of_their_term(kind: str, good: Any, bad: Any, message: str) -> None:
    term = f"{kind}(0 + Machine | Worker)"
    with pytest.raises(ml.OptionError, match=message):
        structured(term, bad).sample(draws=10)
    one, other = (structured(term, v).sample(draws=20, seed=1) for v in (good, good[1, 0]))
    np.testing.assert_allclose(one.parameters()["estimate"], other.parameters()["estimate"])


# -- conditioning -----------------------------------------------------------------------------------------------


def test_conditioning_in_chunks_of_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    posterior = generalised()
    new = ml.load("cbpp").iloc[[3, 9]].assign(incidence=[2, 5], size=[10, 12])
    whole = posterior.condition(new, seed=1).predict(new, interval="confidence")
    sizes = []
    inner = posterior_condition_link._drawn
    monkeypatch.setattr(posterior_condition_link, "NUMBERS", 2000.0)
    monkeypatch.setattr(posterior_condition_link, "_drawn", lambda one, b, rng: sizes.append(len(b)) or inner(one, b, rng))
    parts = posterior.condition(new, seed=1).predict(new, interval="confidence")
    assert max(sizes) == 50 and sum(sizes) == 800
    np.testing.assert_allclose(parts["prediction"], whole["prediction"], atol=4 * np.max(whole["est_error"]) / np.sqrt(200))


def test_rows_without_a_mode_are_refused() -> None:
    data = ml.load("grouseticks")
    posterior = ml.Model("TICKS ~ cHEIGHT + (1 | BROOD)", data, family="poisson").sample(seed=1, draws=25, method="nuts")
    with pytest.raises(ml.DataError, match="no mode given the new rows"):
        posterior.condition(data.iloc[[0]].assign(cHEIGHT=-1e200))


# -- words ------------------------------------------------------------------------------------------------------


def test_what_was_saved_without_data_is_called_what_it_is(tmp_path: Path) -> None:
    model = ml.Model("math ~ homework + (homework | schid)", ml.load("math10"))
    for one, name in ((model.sample(seed=1, draws=50), "posterior"), (model.fit(), "fit")):
        one.save(tmp_path / "model.mlv")
        with pytest.raises(ml.DataError, match=f"this {name} was saved without.*save the {name} with"):
            ml.read(tmp_path / "model.mlv").means()  # type: ignore[union-attr]


def test_advice_in_the_words_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    for python, option in (
        ("sample with method='nuts'.", "sample with --method nuts."),
        ("use groups=None with kind='link'", "use --groups none with --kind link"),
        ("raise target= (0.95) or", "raise --target (0.95) or"),
    ):
        assert cli._in_options(python) == option
    assert cli._of_summary("Formula: y ~ f(groups=None)\nuse groups=None") == "Formula: y ~ f(groups=None)\nuse --groups none"
    assert cli.main(["fit", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "linear mixed model and" not in text and "with --bayes trace, forest" in text and "before --thin" in text
