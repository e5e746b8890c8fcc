"""What may stand left of the tilde: every form of a response, what equals what, and impossible values with row and value."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.special import gammaln

from multilevel import DataError, Fit, FormulaError, Model, MultilevelError

Array = NDArray[np.float64]
N, TRIALS = 120, 5
RNG = np.random.default_rng(11)
G = np.repeat(np.arange(20), 6)
X = RNG.normal(size=N)
ETA = 0.3 + 0.5 * X + RNG.normal(size=20)[G]
K = RNG.binomial(TRIALS, 1 / (1 + np.exp(-ETA)))
BASE: dict[str, Any] = {"g": G, "x": X, "k": K, "m": np.full(N, TRIALS), "f": TRIALS - K}


def fit(response: str, columns: dict[str, Any] | None = None, family: str = "binomial", **options: Any) -> Fit:
    """Random intercepts with one predictor."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Model(f"{response} ~ x + (1 | g)", {**BASE, **(columns or {})}, family=family, **options).fit(threads=1)


def same(one: Fit, other: Fit, constant: float = 0.0) -> None:
    """The same estimates, and log-likelihoods that differ by a constant."""
    assert one.loglik == pytest.approx(other.loglik + constant, abs=1e-8)
    np.testing.assert_allclose(one.optimum.beta, other.optimum.beta, atol=1e-6)
    np.testing.assert_allclose(one.optimum.theta, other.optimum.theta, atol=1e-6)
    np.testing.assert_allclose(one.vcov(), other.vcov(), rtol=1e-4)


COUNTED = fit("cbind(k, f)")


@pytest.mark.parametrize(
    ("response", "columns", "options"),
    [
        ("cbind(k, m - k)", {}, {}),
        ("cbind(I(k), (m - k))", {}, {}),
        ("k | trials(m)", {}, {}),
        ("k | trials(5)", {}, {}),
        ("k | trials(k + f)", {}, {}),
        ("p", {"p": K / TRIALS}, {"weights": "m"}),
        ("p", {"p": K / TRIALS}, {"weights": np.full(N, TRIALS)}),
        ("k / m", {}, {"weights": "m"}),
    ],
)
def test_forms_of_counted_successes(response: str, columns: dict[str, Any], options: dict[str, Any]) -> None:
    other = fit(response, columns, **options)
    same(other, COUNTED)
    np.testing.assert_allclose(other.fitted(), COUNTED.fitted(), atol=1e-7)
    np.testing.assert_allclose(other.residuals("pearson"), COUNTED.residuals("pearson"), atol=1e-6)


def test_counted_successes_are_single_trials_up_to_the_number_of_orders() -> None:
    rows = np.repeat(np.arange(N), TRIALS)
    single = (np.tile(np.arange(TRIALS), N) < K[rows]).astype(int)
    expanded = fit("y", {"y": single, "g": G[rows], "x": X[rows], "k": K[rows], "m": K[rows], "f": K[rows]})
    orders = float((gammaln(TRIALS + 1) - gammaln(K + 1) - gammaln(TRIALS - K + 1)).sum())
    same(COUNTED, expanded, orders)


def test_betabinomial_takes_the_same_forms() -> None:
    counted = fit("cbind(k, f)", family="betabinomial")
    same(fit("k | trials(m)", family="betabinomial"), counted)
    same(fit("p", {"p": K / TRIALS}, "betabinomial", weights="m"), counted)


HIGH = K > 2
TWO = {
    "bool": HIGH,
    "0/1": HIGH.astype(int),
    "0.0/1.0": HIGH.astype(float),
    "text": np.where(HIGH, "yes", "no"),
    "categorical": pd.Categorical(np.where(HIGH, "low", "high"), ["high", "low"]),
    "nullable": pd.array(HIGH, dtype="boolean"),
}


@pytest.mark.parametrize("form", TWO)
def test_forms_of_two_values(form: str) -> None:
    one = fit("y", {"y": TWO[form]})
    same(one, fit("cbind(a, b)", {"a": HIGH.astype(int), "b": 1 - HIGH.astype(int)}))
    if form in ("text", "categorical"):
        success = "yes" if form == "text" else "low"
        assert any(f"{success!r} counts as success" in message for message in one.messages)


def test_the_order_of_the_levels_says_which_value_is_success() -> None:
    other = fit("y", {"y": pd.Categorical(np.where(HIGH, "yes", "no"), ["yes", "no"])})
    np.testing.assert_allclose(other.optimum.beta, -fit("y", {"y": HIGH}).optimum.beta, atol=1e-7)


def test_a_row_without_trials_says_nothing() -> None:
    m = np.where(np.arange(N) == 4, 0, TRIALS)
    none = fit("k | trials(m)", {"m": m, "k": np.where(m == 0, 0, K)})
    left = {name: np.delete(values, 4) for name, values in BASE.items()}
    same(none, fit("k | trials(m)", left))


def test_missing_counts_leave_rows_out() -> None:
    for column in ("k", "f"):
        values = BASE[column].astype(float).copy()
        values[7] = np.nan
        one = fit("cbind(k, f)", {column: values})
        assert one.nobs == N - 1
        assert np.isnan(one.fitted()[7])
        assert np.isfinite(np.delete(one.fitted(), 7)).all()


def test_ordinal_forms() -> None:
    labels = np.array(["lo", "mid", "hi"])
    codes = np.clip(K - 1, 0, 2)
    wanted = fit("y", {"y": pd.Categorical(labels[codes], list(labels), ordered=True)}, "ordinal")
    same(fit("y", {"y": codes}, "ordinal"), wanted)
    same(fit("y", {"y": codes * 10 - 3}, "ordinal"), wanted)
    assert list(wanted.extra()["term"]) == ["lo|mid", "mid|hi"]
    unused = pd.Categorical(labels[codes], ["lo", "none", "mid", "hi"], ordered=True)
    same(fit("y", {"y": unused}, "ordinal"), wanted)
    reverse = fit("y", {"y": pd.Categorical(labels[codes], list(labels[::-1]), ordered=True)}, "ordinal")
    assert reverse.loglik == pytest.approx(wanted.loglik, abs=1e-7)
    np.testing.assert_allclose(reverse.optimum.beta, -wanted.optimum.beta, atol=1e-6)


def test_columns_of_polars() -> None:
    import polars as pl

    labels = np.array(["lo", "mid", "hi"])[np.clip(K - 1, 0, 2)]
    frame = pl.DataFrame({
        **BASE, "o": pl.Series(labels).cast(pl.Enum(["lo", "mid", "hi"])), "b": HIGH,
        "t": np.where(HIGH, "yes", "no"), "c": pl.Series(np.where(HIGH, "yes", "no")).cast(pl.Categorical),
        "e": pl.Series(np.where(HIGH, "yes", "no")).cast(pl.Enum(["yes", "no"])),
    })  # fmt: skip

    def of(response: str, family: str = "binomial") -> Fit:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Model(f"{response} ~ x + (1 | g)", frame, family=family).fit(threads=1)

    ordered = fit("o", {"o": pd.Categorical(labels, ["lo", "mid", "hi"], ordered=True)}, "ordinal")
    same(of("o", "ordinal"), ordered)  # an Enum's categories stand in an order
    truth = fit("b", {"b": HIGH})
    for column in ("b", "t", "c"):
        same(of(column), truth)
    np.testing.assert_allclose(of("e").optimum.beta, -truth.optimum.beta, atol=1e-6)  # the second category counts as success
    same(of("cbind(k, f)"), COUNTED)


def test_holes_of_nullable_columns_are_left_out() -> None:
    wanted = fit("y", {"y": np.where(np.arange(N) == 3, np.nan, HIGH)})
    for dtype in ("boolean", "Int64"):
        column = pd.array(HIGH.astype(bool if dtype == "boolean" else int), dtype=dtype)
        column[3] = pd.NA
        same(fit("y", {"y": column}), wanted)


def test_two_numbers_by_a_comparison() -> None:
    same(fit("y == 2", {"y": HIGH + 1}), fit("y", {"y": HIGH}))


def test_ordinal_of_two_categories_is_refused() -> None:
    with pytest.raises(DataError, match="2 categories.*'binomial'"):
        fit("y", {"y": HIGH.astype(int)}, "ordinal")


def at(row: int, value: float, values: Any = K) -> dict[str, Any]:
    """Column `a`: the values with one changed."""
    out = np.asarray(values, dtype=float).copy()
    out[row] = value
    return {"a": out}


POSITIVE = np.exp(X)
IMPOSSIBLE: dict[str, tuple[str, dict[str, Any], str, dict[str, Any], str]] = {
    "two in 0/1": ("a", at(7, 2, HIGH), "binomial", {}, r"'a'.* is 2 in row 7 .*0 or 1.*cbind\(successes, failures\)"),
    "negative in 0/1": ("a", at(3, -1, HIGH), "binomial", {}, "is -1 in row 3"),
    "proportions alone": ("a", {"a": K / TRIALS}, "binomial", {}, r"is 0\.\d in row \d+ .*needs its number of trials"),
    "uneven proportions": ("a", {"a": K / TRIALS}, "binomial", {"weights": np.full(N, 3.0)}, "times its weight is"),
    "negative successes": ("cbind(a, f)", at(4, -1), "binomial", {}, r"successes in cbind\(a, f\) is -1 in row 4"),
    "negative failures": ("cbind(k, a)", at(5, -2), "binomial", {}, r"failures in cbind\(k, a\) is -2 in row 5"),
    "half a success": ("cbind(a, f)", at(4, 1.5), "binomial", {}, "is 1.5 in row 4 .*whole number"),
    "infinite successes": ("cbind(a, f)", at(4, np.inf), "binomial", {}, "is inf in row 4"),
    "more than trials": ("a | trials(m)", at(4, 9), "binomial", {}, "is 9 in row 4 .*at most the number of trials"),
    "half a trial": ("k | trials(a)", at(2, 5.5, BASE["m"]), "binomial", {}, "number of trials in .* is 5.5 in row 2"),
    "no trials": ("cbind(a, a)", {"a": np.zeros(N)}, "binomial", {}, "counts no trial in any of the 120 rows"),
    "no successes": ("cbind(a, m)", {"a": np.zeros(N)}, "binomial", {}, "counts no success"),
    "no failures": ("m | trials(m)", {}, "betabinomial", {}, "counts no failure"),
    "all ones": ("a", {"a": np.ones(N)}, "binomial", {}, "is 1 in all 120 rows"),
    "three texts": ("a", {"a": np.array(["u", "v", "w"])[K % 3]}, "binomial", {}, "has 3 values .*'ordinal'"),
    "one text": ("a", {"a": np.array(["u"] * N)}, "binomial", {}, r"has 1 value \("),
    "numbers as text": ("cbind(a, f)", {"a": K.astype(str)}, "binomial", {}, "numbers written as text"),
    "negative count": ("a", at(4, -1), "poisson", {}, "family 'poisson' in 'a' is -1 in row 4"),
    "half a count": ("a", at(4, 0.5), "nbinom2", {}, "is 0.5 in row 4 .*whole number"),
    "infinite count": ("a", at(4, np.inf), "nbinom1", {}, "is inf in row 4"),
    "text counts": ("a", {"a": np.array(["u", "v"])[K % 2]}, "poisson", {}, "'a' looks like text.*takes numbers"),
    "no counts": ("a", {"a": np.zeros(N)}, "poisson", {}, "is 0 in all 120 rows"),
    "no counts past the hurdle": ("a", {"a": np.zeros(N)}, "poisson", {"hurdle": "~ 1"}, "0 in every row"),
    "ones past the hurdle": ("a", {"a": HIGH * 1}, "poisson", {"hurdle": "~ 1"}, "above zero is 1.*'binomial'"),
    "gamma of zero": ("a", at(4, 0, POSITIVE), "gamma", {}, "is 0 in row 4 .*greater than zero"),
    "inverse gaussian": ("a", at(4, -2, POSITIVE), "inverse_gaussian", {}, "is -2 in row 4"),
    "lognormal": ("a", at(4, 0, POSITIVE), "lognormal", {}, "is 0 in row 4"),
    "beta of one": ("a", at(4, 1, POSITIVE / 100), "beta", {}, "is 1 in row 4 .*both excluded"),
    "beta of zero": ("a", at(4, 0, POSITIVE / 100), "beta", {}, "is 0 in row 4"),
    "student of inf": ("a", at(4, np.inf, X), "student", {}, "is inf in row 4 .*finite"),
    "one and two": ("a", {"a": HIGH + 1}, "binomial", {}, r"is 2 in row \d+ .*take one as success: a == 2 ~"),
    "tweedie": ("a", at(4, -0.5, POSITIVE), "tweedie", {}, "is -0.5 in row 4 .*zero or more"),
    "tweedie of inf": ("a", at(4, np.inf, POSITIVE), "tweedie", {}, "is inf in row 4 .*finite, for family 'tweedie'"),
    "no amounts": ("a", {"a": np.zeros(N)}, "tweedie", {}, "is 0 in all 120 rows"),
    "ordinal text": ("a", {"a": np.array(["u", "v", "w"])[K % 3]}, "ordinal", {}, "text without an order.*polars Enum"),
    "ordinal unordered": ("a", {"a": pd.Categorical(np.array(["u", "v", "w"])[K % 3])}, "ordinal", {},
                          r"categories without an order.*ordered=True\)"),
    "ordinal of inf": ("a", at(6, np.inf), "ordinal", {}, "is inf in row 6"),
    "one category": ("a", {"a": np.ones(N)}, "ordinal", {}, r"has 1 category; .*three or more"),
    "ordinal halves": ("a", at(6, 1.5), "ordinal", {}, "is 1.5 in row 6 .*whole numbers"),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_impossible_values_are_named(case: str) -> None:
    response, columns, family, options, message = IMPOSSIBLE[case]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=message):
            Model(f"{response} ~ x + (1 | g)", {**BASE, **columns}, family=family, **options)


def test_the_row_is_that_of_the_data_given() -> None:
    """Rows left out before it are counted too."""
    x = X.copy()
    x[:3] = np.nan
    with pytest.raises(DataError, match="is -1 in row 4"):
        Model("a ~ x + (1 | g)", {**BASE, **at(4, -1), "x": x}, family="poisson")


@pytest.mark.parametrize(
    ("response", "family", "message"),
    [
        ("cbind(k, f)", "poisson", r"counts successes and failures.*'poisson' does not take"),
        ("k | trials(m)", "nbinom2", "counts successes among trials"),
        ("cbind(k, f, m)", "binomial", "takes two columns.*not 3"),
        ("cbind(k, f)", "gaussian", "family='binomial'"),
        ("log(m)", "ordinal", "one column of ordered categories"),
    ],
)
def test_forms_of_another_family_are_refused(response: str, family: str, message: str) -> None:
    with pytest.raises(FormulaError, match=message):
        Model(f"{response} ~ x + (1 | g)", BASE, family=family)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"family": "poison"}, r"'poison' is not available; did you mean 'poisson'\?"),
        ({"family": 3}, "family must be a name"),
        ({"family": "poisson", "link": "logit"}, "'logit' is not available for family 'poisson'; allowed are 'log'"),
        ({"family": "binomial", "zi": "~ 1"}, "zi and hurdle are for counts"),
        ({"family": "poisson", "zi": "~ 1", "hurdle": "~ 1"}, "give one of them"),
        ({"family": "poisson", "dispersion": "~ x"}, "no dispersion to model"),
        ({"family": "poisson", "zi": "k ~ x"}, "zi must be a formula such as"),
        ({"family": "poisson", "zi": "~ xx"}, r"no column 'xx'.*did you mean 'x'\?"),
        ({"family": "nbinom2", "dispersion": "~ x + I(2 * x)"}, "dispersion formula is not of full rank"),
        ({"family": "poisson", "correlation": "ar1(1 | g)"}, "gaussian family"),
    ],
)
def test_options_that_do_not_fit_the_family(options: dict[str, Any], message: str) -> None:
    with pytest.raises(MultilevelError, match=message):
        Model("k ~ x + (1 | g)", BASE, **options)


@pytest.mark.parametrize("alias", [("bernoulli", "binomial"), ("negative_binomial", "nbinom2"), ("Poisson", "poisson")])
def test_other_names_of_families(alias: tuple[str, str]) -> None:
    response = "cbind(k, f)" if alias[1] == "binomial" else "k"
    model = Model(f"{response} ~ x + (1 | g)", BASE, family=alias[0])
    assert model.family == alias[1]
