"""Input of generalised models: responses, options and the command line."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import Run

import multilevel as ml
from multilevel.generalised import GeneralisedFit
from multilevel.table_files import write_table


@cache
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(77)
    n, g = 240, np.repeat(np.arange(20), 12)
    x, f = rng.normal(size=n), rng.choice(list("abc"), n)
    eta = 0.3 + 0.5 * x + 0.4 * (f == "b") + (0.6 * rng.normal(size=20))[g]
    size = rng.integers(2, 15, n)
    count = rng.poisson(np.exp(eta))
    return pd.DataFrame(
        {
            "g": g, "x": x, "f": f, "size": size, "s": rng.binomial(size, 1 / (1 + np.exp(-eta))), "count": count,
            "positive": rng.gamma(2.5, np.exp(eta) / 2.5), "sum": [rng.gamma(1.5, 1, k).sum() for k in count],
            "o": np.digitize(eta + rng.logistic(size=n), [-1.5, 0, 1.5, 3]) + 1,
        }
    )  # fmt: skip


def fit(formula: str, data: Any = None, **options: Any) -> GeneralisedFit:
    out = ml.Model(formula, rows() if data is None else data, **options).fit(threads=1)
    assert isinstance(out, GeneralisedFit)
    return out


@cache
def ordinal() -> GeneralisedFit:
    return fit("o ~ x + (1 | g)", family="ordinal")


# -- what a model cannot be ------------------------------------------------------------------------


@pytest.mark.parametrize("fixed", ["0 + f", "0 + f + x", "-1 + x:f + f", "0 + I(x) + I(1 - x)"])
def test_fixed_effects_that_hold_the_thresholds_constant(fixed: str) -> None:
    with pytest.raises(ml.FormulaError, match=r"constant, which the thresholds .* are already; leave the 0 out"):
        ml.Model(f"o ~ {fixed} + (1 | g)", rows(), family="ordinal")


def test_no_intercept_is_no_mistake_where_no_constant_is_spanned() -> None:
    one = fit("o ~ 0 + x + (1 | g)", family="ordinal")
    np.testing.assert_allclose(one.optimum.beta, ordinal().optimum.beta, atol=1e-6)  # thresholds are the intercepts


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"family": "poisson", "zi": "~ 0"}, r"zi \(or hurdle\)"),
        ({"family": "poisson", "hurdle": "~ -1"}, r"zi \(or hurdle\)"),
        ({"family": "nbinom2", "dispersion": "~ 0"}, "dispersion"),
    ],
)
def test_sides_without_coefficients(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ml.OptionError, match=f"formula of {name} has no columns .* write '~ 1'"):
        ml.Model("count ~ x + (1 | g)", rows(), **options)


def test_a_bar_without_trials() -> None:
    with pytest.raises(ml.FormulaError, match=re.escape("s | trials(size)")):
        ml.Model("s | size ~ x + (1 | g)", rows(), family="binomial")
    either = rows().assign(y=(rows()["count"] > 3) | (rows()["x"] > 0.5))
    one = ml.Model("(count > 3) | (x > 0.5) ~ f + (1 | g)", rows(), family="binomial").design
    assert np.array_equal(one.y, ml.Model("y ~ f + (1 | g)", either, family="binomial").design.y)


OPTIONS: list[tuple[Any, dict[str, Any], str]] = [
    (ml.Model, {"dispersions": "~ x"}, "did you mean 'dispersion'"),
    (ml.Model, {"nagq": 9}, r"fit\(quadrature=\.\.\.\)"),
    (ml.Model, {"REML": False}, r"fit\(reml=\.\.\.\)"),
    (ml.Model, {"qqq": 9}, "family, link, dispersion, zi, hurdle"),
    (ml.glmer, {"nagq": 9}, "did you mean 'nAGQ'"),
    (ml.glmer, {"quadrature": 9}, "did you mean 'nAGQ'"),
    (ml.glmer, {"dispersions": "~ x"}, "did you mean 'dispersion'"),
    (ml.glmer, {"qqq": 9}, "dispersion, zi, hurdle, nAGQ, threads"),
    (ml.lmer, {"family": "poisson"}, r"glmer\(\)"),
]


@pytest.mark.parametrize(("make", "options", "message"), OPTIONS)
def test_unknown_options(make: Any, options: dict[str, Any], message: str) -> None:
    family = {"family": "poisson"} if make is ml.glmer else {}
    with pytest.raises(ml.OptionError, match=f"has no option.*{message}"):
        make("count ~ x + (1 | g)", rows(), **family, **options)


def test_three_values_are_not_two() -> None:
    third = int(np.flatnonzero(~rows()["f"].isin(rows()["f"].unique()[:2]))[0])
    value = rows()["f"][third]
    with pytest.raises(ml.DataError, match=rf"3 values .*the third of them is '{value}' in row {third} \(counting from 0\)"):
        ml.Model("f ~ x + (1 | g)", rows(), family="binomial")


def test_columns_of_one_name() -> None:
    twice = pd.concat([rows(), rows()[["x"]]], axis=1)
    with pytest.raises(ml.DataError, match="'x' stands more than once; rename one of them"):
        ml.Model("count ~ x + (1 | g)", twice, family="poisson")
    unused = ml.Model("count ~ f + (1 | g)", twice, family="poisson").design
    assert np.array_equal(unused.X, ml.Model("count ~ f + (1 | g)", rows(), family="poisson").design.X)


# -- sizes of the response -------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gamma", "inverse_gaussian"])
@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_the_unit_of_a_positive_response_is_no_matter(family: str, size: float) -> None:
    one = fit("positive ~ x + (1 | g)", family=family, link="log")
    other = fit("positive ~ x + (1 | g)", rows().assign(positive=rows()["positive"] * size), family=family, link="log")
    assert other.loglik == pytest.approx(one.loglik - len(rows()) * np.log(size), rel=1e-12, abs=1e-6)
    np.testing.assert_allclose(other.optimum.beta[1], one.optimum.beta[1], rtol=1e-5)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_the_unit_of_a_tweedie_response_is_no_matter(size: float) -> None:
    one = fit("sum ~ x + (1 | g)", family="tweedie")
    other = fit("sum ~ x + (1 | g)", rows().assign(sum=rows()["sum"] * size), family="tweedie")
    np.testing.assert_allclose(other.optimum.beta - [np.log(size), 0], one.optimum.beta, rtol=1e-4)


# -- categories ------------------------------------------------------------------------------------


def test_probabilities_at_new_rows_are_predictions() -> None:
    new = rows().head(3)
    pd.testing.assert_frame_equal(ordinal().probabilities(new), ordinal().predict(new))


def lettered() -> pd.DataFrame:
    """The ordinal response as letters, with two categories that do not occur, and a row left out."""
    letters = pd.Categorical(np.array(list("abcde"))[rows()["o"] - 1], list("abzcdey"), ordered=True)
    return rows().assign(o=letters, x=rows()["x"].where(np.arange(240) != 3))


def test_simulated_ordinal_responses_are_values_of_the_data() -> None:
    numbers = ordinal().simulate(3, seed=1)
    assert set(np.unique(numbers)) == {1, 2, 3, 4, 5} and set(numbers.dtypes.map(str)) == {"int64"}
    share = np.mean(np.asarray(ordinal().simulate(60, seed=2)) == 5)
    assert share == pytest.approx(np.mean(rows()["o"] == 5), abs=0.04)  # the top category is the top one
    with pytest.warns(ml.MissingRowsWarning):
        letters = fit("o ~ x + (1 | g)", lettered(), family="ordinal")
    drawn = letters.simulate(1, seed=1)["sim_1"]
    assert drawn.cat.ordered and drawn.cat.categories.tolist() == list("abcde")
    assert drawn.isna().to_numpy().nonzero()[0].tolist() == [3]


def test_simulated_ordinal_responses_in_polars() -> None:
    pl = pytest.importorskip("polars")
    kind = pl.Enum(list("abcde"))
    data = pl.DataFrame({
        "o": pl.Series(np.array(list("abcde"))[rows()["o"] - 1]).cast(kind), "x": rows()["x"].to_numpy(),
        "g": rows()["g"].to_numpy(),
    })  # fmt: skip
    drawn = fit("o ~ x + (1 | g)", data, family="ordinal").simulate(1, seed=1)["sim_1"]
    assert drawn.dtype == kind
    assert drawn.to_physical().to_list() == (ordinal().simulate(1, seed=1)["sim_1"] - 1).tolist()


def test_simulated_ordinal_responses_can_be_fitted() -> None:
    letters = fit("o ~ x + (1 | g)", rows().assign(o=lettered()["o"]), family="ordinal")
    again = letters.refit(letters.simulate(1, seed=1)["sim_1"], threads=1)
    other = ordinal().refit(ordinal().simulate(1, seed=1)["sim_1"], threads=1)
    assert again.loglik == pytest.approx(other.loglik, abs=1e-7)
    fresh = fit("o ~ x + (1 | g)", rows().assign(o=ordinal().simulate(1, seed=1)["sim_1"]), family="ordinal")
    assert fresh.loglik == pytest.approx(other.loglik, abs=1e-7)


def test_the_bootstrap_of_an_ordinal_fit_draws_its_own() -> None:
    letters = fit("o ~ x + (1 | g)", rows().assign(o=lettered()["o"]), family="ordinal")
    found = np.asarray(letters.bootstrap(3, seed=1).frame()["x"])
    np.testing.assert_allclose(found, np.asarray(ordinal().bootstrap(3, seed=1).frame()["x"]), atol=1e-6)


def test_categories_without_rows_are_told() -> None:
    one = ml.Model("o ~ x + (1 | g)", lettered(), family="ordinal").design
    assert "Categories 'z', 'y' of the response 'o' have no row among those used and are left out." in one.messages
    assert ordinal().design.messages == ()


# -- which of two values is success ----------------------------------------------------------------


def test_success_is_told_with_the_order_it_comes_from() -> None:
    pl = pytest.importorskip("polars")
    y = np.where(rows()["count"] > 1, "a", "b")

    def of(data: Any) -> tuple[float, str]:
        design = ml.Model("y ~ x + (1 | g)", data, family="binomial").design
        return float(design.y.mean()), design.messages[-1]

    base = rows()[["x", "g"]]
    declared = base.assign(y=pd.Categorical(y, ["b", "a"]))
    share, other = float(np.mean(y == "a")), float(np.mean(y == "b"))
    assert of(declared) == (share, "'y': 'a' counts as success, 'b' as failure (in the order of its categories).")
    enum = pl.DataFrame({**{c: base[c].to_numpy() for c in base}, "y": pl.Series(y).cast(pl.Enum(["b", "a"]))})
    assert of(enum) == of(declared)
    found, told = of(pl.from_pandas(declared, rechunk=True).with_columns(y=pl.Series(y).cast(pl.Categorical)))
    assert found == other and "'b' counts as success" in told and "an Enum has" in told
    assert of(base.assign(y=y)) == (other, "'y': 'b' counts as success, 'a' as failure (in alphabetical order).")


# -- the command line ------------------------------------------------------------------------------


def test_quadrature_on_the_command_line(run: Run, tmp_path: Path) -> None:
    words = ["fit", "cbind(incidence, size - incidence) ~ period + (1 | herd)", "cbpp", "--family", "binomial"]
    status, out, err = run(*words, "--quadrature", 9)
    model = ml.Model(words[1], ml.load("cbpp"), family="binomial")
    assert (status, err, out.rstrip()) == (0, "", model.fit(quadrature=9).summary().rstrip())
    for bad, message in (("-1", "--quadrature must be a whole number"), ("x", "invalid int value: 'x'")):
        status, out, err = run(*words, "--quadrature", bad)
        assert (status, out, err.count("\n")) == (2, "", 1) and message in err
    status, out, err = run("fit", "Reaction ~ Days + (1 | Subject)", "sleepstudy", "--quadrature", 9)
    assert (status, out) == (2, "") and "is for generalised models" in err


def test_new_levels_are_drawn_on_the_command_line(run: Run, tmp_path: Path) -> None:
    write_table(rows(), "data.csv")
    write_table(rows().head(4).assign(g=99), "new.csv")
    assert run("fit", "count ~ x + (1 | g)", "data.csv", "--family", "poisson", "--save", "fit.mlv")[0] == 0
    assert run("predict", "fit.mlv", "new.csv", "--new-levels", "sample", "--seed", 3, "--out", "out.csv")[0] == 0
    wanted = ml.read(tmp_path / "fit.mlv").predict(rows().head(4).assign(g=99), new_levels="sample", seed=3)
    np.testing.assert_allclose(pd.read_csv("out.csv")[wanted.columns[0]], wanted.iloc[:, 0], rtol=1e-12)
    status, out, err = run("predict", "fit.mlv", "new.csv")
    assert (status, out, err.count("\n")) == (2, "", 1) and "--new-levels sample" in err and "new_levels" not in err
    status, out, err = run("predict", "fit.mlv", "new.csv", "--new-levels", "sample", "--interval", "confidence")
    assert (status, out) == (2, "") and "--new-levels sample draws" in err


def test_weights_are_said_to_be_trials(run: Run) -> None:
    assert "numbers of trials" in " ".join(run("fit", "--help")[1].split())
