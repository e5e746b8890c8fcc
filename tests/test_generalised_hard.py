"""Generalised models on hard data, and whether simulated responses give a model back."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
import pytest
from scipy.special import expit
from test_generalised import EPILEPSY, FITTED, SALAMANDERS, SEIZURES, fit, grouped, same

from multilevel import ConvergenceWarning, DataError, Model, OptionError, SingularFitWarning

# -- hard data ----------------------------------------------------------------------------------------------------


def separated(kind: str) -> tuple[dict[str, Any], str, str, str]:
    d = grouped(6, 20, 6)
    n = len(d["x"])
    f = np.where(np.arange(n) % 6 == 0, "a", "b")
    counts, any_ = d["rng"].poisson(3, n), d["rng"].integers(0, 2, n)
    y, family, names, by = {
        "complete": ((d["x"] > 0).astype(int), "binomial", "'x'", "x"),
        "level": (np.where(f == "a", 0, any_), "binomial", r"'f\[T\.b\]'", "f + x"),
        "counts": (np.where(f == "a", 0, counts), "poisson", r"'f\[T\.b\]'", "f + x"),
        "nbinom2": (np.where(f == "a", 0, counts), "nbinom2", r"'f\[T\.b\]'", "f + x"),
        "ordinal": (np.digitize(d["x"], [-0.5, 0.5]), "ordinal", "'x'", "x"),
        "ordinal level": (np.where(f == "a", 0, d["rng"].integers(0, 4, n)), "ordinal", r"'f\[T\.b\]'", "f + x"),
    }[kind]
    return {"y": y, "x": d["x"], "g": d["g"], "f": f}, family, names, by


@pytest.mark.parametrize("kind", ["complete", "level", "counts", "nbinom2", "ordinal", "ordinal level"])
def test_separation_is_said_with_the_columns(kind: str) -> None:
    data, family, names, by = separated(kind)
    with pytest.raises(DataError, match=rf"no maximum \(separation\): column {names} of the fixed effects tells some"):
        fit(f"y ~ {by} + (1 | g)", data, family)


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog", "cauchit"])
def test_separation_under_every_link(link: str) -> None:
    data, family, names, by = separated("level")
    with pytest.raises(DataError, match=names):
        fit(f"y ~ {by} + (1 | g)", data, family, link=link)


@pytest.mark.parametrize("level", [False, True])
def test_separation_in_many_rows(level: bool) -> None:
    """More rows than the linear programme is begun with."""
    d = grouped(16, 50, 400)
    n = len(d["x"])
    rare = np.arange(n) % 997 == 5
    y = np.where(rare, 1, d["rng"].integers(0, 2, n)) if level else (d["x"] > 0.1).astype(int)
    data = {"y": y, "x": d["x"], "g": d["g"], "r": rare.astype(float)}
    with pytest.raises(DataError, match=f"column '{'r' if level else 'x'}' of the fixed effects"):
        fit(f"y ~ {'r + ' * level}x + (1 | g)", data, "binomial")
    data["y"][5] = 0
    data["y"][int(np.argmax(d["x"]))] = 0
    assert fit(f"y ~ {'r + ' * level}x + (1 | g)", data, "binomial").convergence.converged


def test_almost_separated_is_not_separated() -> None:
    data, family, _, by = separated("level")
    first = int(np.flatnonzero(data["f"] == "a")[0])
    data["y"][first] = 1
    one = fit(f"y ~ {by} + (1 | g)", data, family)
    assert one.convergence.converged and np.isfinite(one.vcov()).all()


@pytest.mark.parametrize("family", ["binomial", "poisson", "nbinom2"])
def test_groups_of_zeros_are_no_trouble(family: str) -> None:
    d = grouped(7)
    y = d["rng"].poisson(np.exp(d["eta"]))
    y = np.where(d["g"] < 8, 0, np.minimum(y, 1) if family == "binomial" else y)
    one = fit("y ~ x + (1 | g)", {"y": y, "x": d["x"], "g": d["g"]}, family)
    assert one.convergence.converged
    assert np.isfinite(one.ranef()["estimate"]).all() and np.isfinite(one.vcov()).all()
    assert one.ranef()["estimate"][:8].max() < 0


def test_a_variance_of_zero_is_exact_and_named() -> None:
    d = grouped(8, sd=0.0)
    y = d["rng"].poisson(np.exp(0.4 + 0.5 * d["x"]))
    for seed in range(20):
        y = np.random.default_rng(seed).permuted(y.reshape(30, 8), axis=0).ravel()
        one = fit("y ~ 1 + (1 | g)", {"y": y, "g": d["g"]})
        if one.is_singular:
            break
    assert one.is_singular and one.optimum.theta[0] == 0.0
    assert one.convergence.boundary == ("sd(g, Intercept) = 0",)
    assert one.loglik == pytest.approx(fit("y ~ 1", {"y": y}).loglik, abs=1e-9)
    assert (one.ranef()["estimate"] == 0).all()
    with pytest.warns(SingularFitWarning, match=r"sd\(g, Intercept\) = 0"):
        Model("y ~ 1 + (1 | g)", {"y": y, "g": d["g"]}, family="poisson").fit()


def told(message: str, data: dict[str, Any], **options: Any) -> Any:
    """A fit that warns of a coefficient without a finite estimate, whatever else it warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        one = Model("y ~ x + (1 | g)", data, **options).fit()
    texts = [str(w.message) for w in caught if issubclass(w.category, ConvergenceWarning)]
    assert len(texts) == 1 and re.search(message, texts[0])
    return one


def test_no_overdispersion_is_said() -> None:
    d = grouped(9)
    y = 2 + d["rng"].integers(0, 2, len(d["x"]))
    data = {"y": y, "x": d["x"], "g": d["g"]}
    one = told(r"'size\[Intercept\]', whose estimate runs to infinity.*'poisson'", data, family="nbinom2")
    assert one.loglik == pytest.approx(fit("y ~ x + (1 | g)", data).loglik, abs=1e-4)
    assert one.convergence.converged and np.isfinite(one.extra()["std_error"]).all()


def test_extra_zeros_that_are_not_there_are_said() -> None:
    d = grouped(10)
    y = np.maximum(d["rng"].poisson(5, len(d["x"])), 1)
    data = {"y": y, "x": d["x"], "g": d["g"]}
    one = told(r"'zi\[Intercept\]'.*exactly zero or one.*simpler zi=", data, family="poisson", zi="~ 1")
    plain = fit("y ~ x + (1 | g)", data)
    assert one.loglik == pytest.approx(plain.loglik, abs=1e-5)
    np.testing.assert_allclose(one.optimum.beta, plain.optimum.beta, atol=1e-4)
    np.testing.assert_allclose(one.vcov(), plain.vcov(), rtol=1e-2)


def test_zero_inflation_finds_the_higher_of_two_maxima() -> None:
    one = fit("count ~ spp + mined + (1 | site)", SALAMANDERS, "nbinom2", zi="~ spp + mined")
    assert one.loglik >= -814.757643
    assert one.convergence.converged


@pytest.mark.parametrize("family", ["binomial", "poisson", "nbinom2", "gamma", "beta"])
def test_twenty_rows(family: str) -> None:
    d = grouped(11, 5, 4)
    mu = np.exp(d["eta"])
    y = {
        "binomial": lambda: d["rng"].binomial(1, expit(d["eta"])), "poisson": lambda: d["rng"].poisson(mu),
        "nbinom2": lambda: d["rng"].poisson(mu * d["rng"].gamma(2, 0.5, 20)), "gamma": lambda: d["rng"].gamma(2, mu),
        "beta": lambda: d["rng"].beta(2 * expit(d["eta"]), 2 * expit(-d["eta"])),
    }[family]()  # fmt: skip
    one = fit("y ~ x + (1 | g)", {"y": y, "x": d["x"], "g": d["g"]}, family)
    assert one.convergence.converged
    assert np.isfinite(one.optimum.beta).all() and np.isfinite(one.vcov()).all()


def test_one_huge_count() -> None:
    d = grouped(12)
    y = d["rng"].poisson(2, len(d["x"]))
    y[17] = 10**8
    one = fit("y ~ x + (1 | g)", {"y": y, "x": d["x"], "g": d["g"]}, "nbinom2")
    assert one.convergence.converged and np.isfinite(one.fitted()).all()


def test_tiny_probabilities() -> None:
    d = grouped(13)
    y = (d["rng"].random(len(d["x"])) < 0.2).astype(int)
    data = {"y": y, "m": np.full(len(y), 10**7), "x": d["x"], "g": d["g"]}
    one = fit("y | trials(m) ~ x + (1 | g)", data, "binomial")
    rare = fit("y ~ x + offset(o) + (1 | g)", {**data, "o": np.full(len(y), np.log(1e7))})
    assert one.convergence.converged
    np.testing.assert_allclose(one.optimum.beta, rare.optimum.beta, atol=1e-4)


@pytest.mark.parametrize("size", [30.0, 500.0])
def test_large_offsets(size: float) -> None:
    d = grouped(14)
    data = {"y": d["rng"].poisson(np.exp(d["eta"])), "x": d["x"], "g": d["g"], "o": np.full(len(d["x"]), size)}
    plain = fit("y ~ x + (1 | g)", data)
    moved = fit("y ~ x + offset(o) + (1 | g)", data)
    assert moved.loglik == pytest.approx(plain.loglik, abs=1e-6)
    assert moved.optimum.beta[0] + size == pytest.approx(plain.optimum.beta[0], abs=1e-5)


def test_offsets_no_model_can_hold_end_in_a_sentence() -> None:
    d = grouped(14)
    o = np.where(np.arange(len(d["x"])) % 2, 700.0, -700.0)
    data = {"y": d["rng"].poisson(np.exp(d["eta"])), "x": d["x"], "g": d["g"], "o": o}
    with pytest.raises(DataError, match="cannot be evaluated at any start"):
        fit("y ~ x + offset(o) + (1 | g)", data)


def test_rows_of_weight_zero_are_left_out() -> None:
    w = (np.arange(236) % 5 > 0).astype(float)
    one = fit(SEIZURES, EPILEPSY, weights=w)
    same(one, fit(SEIZURES, EPILEPSY[w > 0].reset_index(drop=True)))


# -- more of it: a sample of benchmarks/hard_cases.py ------------------------------------------------------------------


def simulated(seed: int, family: str, **options: Any) -> dict[str, Any]:
    """A response of the family with columns x, g and a copy h of g."""
    d = grouped(seed, **options)
    rng, eta = d["rng"], d["eta"]
    mu, p = np.exp(eta), expit(eta)
    y = {
        "binomial": lambda: rng.binomial(1, p), "poisson": lambda: rng.poisson(mu), "gamma": lambda: rng.gamma(3, mu / 3),
        "nbinom2": lambda: rng.poisson(mu * rng.gamma(2, 0.5, len(mu))), "beta": lambda: rng.beta(4 * p, 4 - 4 * p),
        "ordinal": lambda: np.digitize(eta + rng.logistic(size=len(mu)), [-1.0, 0.5, 2.0]),
    }[family]()  # fmt: skip
    return {"y": y, "x": d["x"], "g": d["g"], "h": d["g"]}


def all_numbers(one: Any) -> None:
    """Every number of the tables is one."""
    for table in (one.fixef(), one.extra(), one.ranef()):
        for name in table.columns:
            if table[name].dtype.kind == "f" and name != "df":
                assert np.isfinite(table[name]).all(), name
    assert np.isfinite(one.vcov()).all() and np.isfinite([one.loglik, one.aic]).all()


@pytest.mark.parametrize("family", ["binomial", "poisson", "gamma", "ordinal"])
@pytest.mark.parametrize(("factor", "shift"), [(1e6, 0.0), (1e-8, 0.0), (1.0, 10.0)])
def test_units_of_a_slope_do_not_matter(family: str, factor: float, shift: float) -> None:
    data = simulated(21, family)
    plain = fit("y ~ x + (x | g)", data, family)
    moved = fit("y ~ x + (x | g)", {**data, "x": data["x"] * factor + shift}, family)
    assert moved.convergence.converged
    assert moved.loglik == pytest.approx(plain.loglik, abs=1e-6)
    assert moved.optimum.beta[-1] * factor == pytest.approx(plain.optimum.beta[-1], abs=1e-4)
    all_numbers(moved)


@pytest.mark.parametrize("family", ["binomial", "nbinom2"])
def test_columns_correlated_all_but_perfectly(family: str) -> None:
    """The same model whether a column is x plus a little noise or the noise itself."""
    data = simulated(22, family)
    noise = np.random.default_rng(1).normal(size=len(data["x"]))
    near = fit("y ~ x + z + (1 | g)", {**data, "z": data["x"] + 1.4e-5 * noise}, family)
    far = fit("y ~ x + z + (1 | g)", {**data, "z": noise}, family)
    assert near.convergence.converged
    assert near.loglik == pytest.approx(far.loglik, abs=1e-6)
    assert near.optimum.beta[2] * 1.4e-5 == pytest.approx(far.optimum.beta[2], rel=1e-3)


@pytest.mark.parametrize("family", ["binomial", "poisson"])
def test_slopes_correlated_all_but_perfectly(family: str) -> None:
    data = simulated(23, family)
    z = data["x"] + 1.4e-5 * np.random.default_rng(1).normal(size=len(data["x"]))
    one = fit("y ~ x + (x + z | g)", {**data, "z": z}, family)
    assert one.loglik > fit("y ~ x + (x | g)", data, family).loglik - 1e-6
    all_numbers(one)


@pytest.mark.parametrize("family", ["binomial", "nbinom2"])
def test_a_grouping_factor_twice_is_not_determined(family: str) -> None:
    data = simulated(24, family)
    one = fit("y ~ x + (1 | g) + (1 | h)", data, family)
    assert not one.convergence.converged
    assert "g (Intercept) and h (Intercept)" in one.convergence.sentence
    assert one.loglik == pytest.approx(fit("y ~ x + (1 | g)", data, family).loglik, abs=1e-6)


@pytest.mark.parametrize("family", ["binomial", "gamma", "ordinal"])
def test_nearly_all_weights_zero(family: str) -> None:
    data = simulated(25, family)
    used = np.arange(len(data["x"])) % 6 == 0
    one = fit("y ~ x + (1 | g)", data, family, weights=used.astype(float))
    same(one, fit("y ~ x + (1 | g)", {name: column[used] for name, column in data.items()}, family))


@pytest.mark.parametrize(
    ("family", "value"),
    [("binomial", 0), ("binomial", 1), ("poisson", 0), ("nbinom2", 3), ("gamma", 0.5), ("beta", 0.5), ("ordinal", 2)],
)
def test_a_constant_response_is_refused(family: str, value: float) -> None:
    data = simulated(26, "poisson") | {"y": np.full(240, value)}
    with pytest.raises(DataError, match="there is nothing to explain|has 1 categor"):
        fit("y ~ x + (1 | g)", data, family)


def fit_aloud(formula: str, data: dict[str, Any], family: str) -> Any:
    """A fit of which only the first of several warnings is of interest."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        one = Model(formula, data, family=family).fit(threads=1)
    warnings.warn_explicit(caught[0].message, caught[0].category, caught[0].filename, caught[0].lineno)
    return one


@pytest.mark.parametrize("family", ["gamma", "lognormal"])
def test_a_perfect_fit_is_said(family: str) -> None:
    data = simulated(27, "poisson")
    eta = 0.4 + 0.5 * data["x"]
    data["y"] = expit(eta) if family == "beta" else np.exp(eta)
    with pytest.warns(ConvergenceWarning, match=r"estimate runs to infinity: it hardly varies"):
        one = fit_aloud("y ~ x + (1 | g)", data, family)
    np.testing.assert_allclose(one.optimum.beta, [0.4, 0.5], atol=1e-4)
    assert np.isfinite(one.fixef()["estimate"]).all()


@pytest.mark.parametrize("last", [4, 5])
def test_a_category_with_one_row(last: int) -> None:
    """A category without rows (5 after 3) is none."""
    data = simulated(28, "ordinal")
    data["y"][11] = last
    one = fit("y ~ x + (1 | g)", data, "ordinal")
    assert one.convergence.converged and (np.diff(one.optimum.residual) > 0).all()
    assert len(one.optimum.residual) == 4
    all_numbers(one)


def test_groups_of_one_row() -> None:
    """A Poisson variable with a normal effect for each row is overdispersed, by no more than one with a gamma effect."""
    data = simulated(29, "nbinom2", levels=200, rows=1)
    one, plain = fit("y ~ x + (1 | g)", data), fit("y ~ x", data)
    assert one.convergence.converged and one.loglik > plain.loglik + 10
    assert one.loglik == pytest.approx(fit("y ~ x", data, "nbinom2").loglik, abs=5)


@pytest.mark.parametrize("sd", [10.0, 100.0])
def test_huge_variances_between_groups(sd: float) -> None:
    one = fit("y ~ x + (1 | g)", simulated(30, "binomial", sd=sd), "binomial")
    assert one.convergence.converged and one.optimum.theta[0] > 5
    all_numbers(one)


@pytest.mark.parametrize("link", ["logit", "probit"])
def test_rare_successes(link: str) -> None:
    data = simulated(31, "binomial")
    data["y"] = (np.arange(240) % 97 == 5).astype(int)
    one = fit("y ~ x + (1 | g)", data, "binomial", link=link)
    assert one.loglik >= fit("y ~ x", data, "binomial", link=link).loglik - 1e-8
    all_numbers(one)


@pytest.mark.parametrize("size", [10**6, 10**9])
def test_one_huge_count_of_a_poisson_variable(size: int) -> None:
    data = simulated(32, "poisson")
    data["y"][17] = size
    one = fit("y ~ x + (1 | g)", data)
    assert one.loglik > fit("y ~ x", data).loglik
    all_numbers(one)


# -- simulate and refit ---------------------------------------------------------------------------------------------

TRUTH: dict[str, dict[str, Any]] = {
    "binomial": {}, "poisson": {}, "nbinom2": {}, "nbinom1": {}, "gamma": {}, "inverse_gaussian": {}, "beta": {},
    "betabinomial": {}, "student": {}, "lognormal": {}, "zi": {"zi": "~ 1"}, "hurdle": {"hurdle": "~ 1"},
}  # fmt: skip


@pytest.mark.parametrize("name", TRUTH)
def test_simulated_responses_give_the_model_back(name: str) -> None:
    """Twenty refits: the mean of each estimate lies within four of its standard errors of what they were drawn from."""
    d = grouped(15, 60, 10)
    n, rng, mu = len(d["x"]), d["rng"], np.exp(d["eta"])
    family = {"zi": "poisson", "hurdle": "nbinom2"}.get(name, name)
    p, response, zeros = expit(d["eta"]), "y", 0.3 * (name in TRUTH and bool(TRUTH[name]))
    y = {
        "binomial": lambda: rng.binomial(1, p), "betabinomial": lambda: rng.binomial(8, rng.beta(4 * p, 4 - 4 * p)),
        "beta": lambda: rng.beta(4 * p, 4 - 4 * p), "gamma": lambda: rng.gamma(3, mu / 3),
        "inverse_gaussian": lambda: rng.wald(mu, 3 * mu), "student": lambda: d["eta"] + 0.5 * rng.standard_t(5, n),
        "lognormal": lambda: np.exp(d["eta"] + 0.5 * rng.normal(size=n)),
    }.get(name, lambda: rng.poisson(mu * rng.gamma(2, 0.5, n)) * (rng.random(n) > zeros))()  # fmt: skip
    if name == "betabinomial":
        response = "y | trials(8)"
    one = fit(f"{response} ~ x + (1 | g)", {"y": y, "x": d["x"], "g": d["g"]}, family, **TRUTH[name])
    drawn = one.simulate(20, seed=3)
    draws = np.asarray(drawn)
    assert drawn.shape == (n, 20) and np.isfinite(draws).all()
    found = []
    for k in range(20):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            again = one.refit(draws[:, k])
        found.append(np.r_[again.optimum.beta, np.log(again.optimum.theta + 1e-3), again.optimum.residual])
    wanted = np.r_[one.optimum.beta, np.log(one.optimum.theta + 1e-3), one.optimum.residual]
    spread = np.std(found, axis=0, ddof=1) / np.sqrt(20)
    bias = np.abs(np.mean(found, axis=0) - wanted)
    slack = np.r_[np.full(2, 0.02), 0.1, np.full(len(one.optimum.residual), 0.06)]  # of maximum likelihood, of Laplace
    assert (bias < 4 * spread + slack).all(), (bias, spread)


def test_simulation_is_repeatable_and_conditional_on_request() -> None:
    one = FITTED["nb2"]
    assert one.simulate(2, seed=1).equals(one.simulate(2, seed=1))
    conditional = np.asarray(one.simulate(400, groups="all", seed=1)).mean(axis=1)
    np.testing.assert_allclose(conditional, one.fitted(), rtol=0.25)
    with pytest.raises(OptionError, match="n must be a positive whole number"):
        one.simulate(0)


def test_refit_refuses_the_wrong_length() -> None:
    with pytest.raises(DataError, match="236 rows"):
        FITTED["nb2"].refit(np.ones(3))
