"""`multilevel fit --bayes`: what it prints and writes, priors as text, and predictions of saved posteriors."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import Run

import multilevel as ml
from multilevel import cli_bayes

MATH = "math ~ homework + (homework | schid)"
CBPP = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
SHORT = ("--draws", "100", "--seed", "1", "--threads", "1")


def mistake(result: tuple[int, str, str], *words: str) -> None:
    status, out, err = result
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("multilevel: ")
    for word in words:
        assert word in err


def told(path: str) -> Any:
    return json.loads(Path(path).read_text(), parse_constant=pytest.fail)


# -- what works ------------------------------------------------------------------------------------------------


def test_a_posterior_is_printed_and_written(run: Run) -> None:
    given = ("--prior", "sd(schid)=HalfNormal(5)", "--prior", "b = ml.Normal(mu=0, sigma=10)", "--prior", "cor=LKJ(1)")
    status, out, err = run("fit", MATH, "math10", "--bayes", *SHORT, *given, "--json", "a.json", "--save", "m.mlv")
    priors = {"sd(schid)": ml.HalfNormal(5), "b": ml.Normal(0, 10), "cor": ml.LKJ(1)}
    posterior = ml.Model(MATH, ml.load("math10"), priors=priors).sample(draws=100, seed=1, threads=1)
    assert (status, err) == (0, "")
    assert out == f"{posterior.summary().rstrip()}\n\nWrote m.mlv, a.json\n"
    found = told("a.json")
    assert [row["estimate"] for row in found["fixef"]] == posterior.fixef()["estimate"].tolist()
    assert [row["ci_low"] for row in found["parameters"]] == posterior.parameters()["ci_low"].tolist()
    assert found["varcorr"][-1]["sdcor"] == posterior.sigma and found["trusted"] is posterior.trust[0]
    assert (found["chains"], found["draws"], found["seed"], found["method"]) == (4, 100, 1, "independent")
    assert {row["parameter"]: row["prior"] for row in found["priors"]}["sd(schid, homework)"] == "HalfNormal(5)"
    assert run("summary", "m.mlv")[1].strip() == posterior.summary().strip()


def test_another_family_and_how_it_is_sampled(run: Run) -> None:
    formula = "incidence ~ period + (1 | herd) + (1 | period)"
    options = ("--method", "nuts")
    options += ("--chains", "2", "--warmup", "200", "--target", "0.9", "--thin", "2", "--keep", "parameters")
    status, out, err = run("fit", formula, "cbpp", "--bayes", "--family", "poisson", *SHORT, *options, "--json", "a.json")
    given = {"method": "nuts", "chains": 2, "warmup": 200, "target": 0.9, "thin": 2, "keep": "parameters"}
    with pytest.warns(ml.ConvergenceWarning):  # there are few draws
        posterior = ml.Model(formula, ml.load("cbpp"), family="poisson").sample(draws=100, seed=1, threads=1, **given)
    assert status == 0 and out == f"{posterior.summary().rstrip()}\n\nWrote a.json\n"
    assert err.startswith("multilevel: warning: Do not trust these draws yet: ")
    found = told("a.json")
    assert (found["family"], found["link"], found["method"], found["trusted"]) == ("poisson", "log", "nuts", False)
    assert (found["chains"], found["draws"], found["seed"]) == (2, 50, 1)
    assert [row["estimate"] for row in found["fixef"]] == posterior.fixef()["estimate"].tolist()


def test_plots(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    status, out, err = run("fit", "Yield ~ 1 + (1 | Batch)", "dyestuff", "--bayes", *SHORT, "--plots", "pictures")
    assert status == 0
    for name in cli_bayes.PLOTS:  # what this model has no picture of, a warning names
        assert (f"pictures/{name}.png" in out) == (tmp_path / "pictures" / f"{name}.png").is_file()
        assert (f"pictures/{name}.png" in out) != (f"warning: no plot of {name}: " in err)
    for name in ("trace", "forest", "predictive", "caterpillar"):
        assert (tmp_path / "pictures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    few = ("--keep", "parameters", "--plots", "few")
    status, out, err = run("fit", "Yield ~ 1 + (1 | Batch)", "dyestuff", "--bayes", *SHORT, *few)
    assert status == 0 and "few/trace.png" in out and re.search("no plot of forest: .*group effects.* not kept", err)


def test_predictions_of_a_saved_posterior(run: Run) -> None:
    run("fit", CBPP, "cbpp", "--bayes", "--family", "binomial", "--seed", "1", "--save", "p.mlv")
    posterior = ml.read("p.mlv")
    new = pd.DataFrame({"herd": ["1", "99"], "period": ["2", "2"], "size": [10, 10], "incidence": [0, 0]})
    new.to_csv("new.csv", index=False)
    mistake(run("predict", "p.mlv", "new.csv"), "--new-levels population")
    options = ("--interval", "prediction", "--new-levels", "population", "--seed", "3", "--level", "0.8")
    status, _, err = run("predict", "p.mlv", "new.csv", *options, "--out", "out.csv")
    assert (status, err) == (0, "")
    wanted = posterior.predict(new, interval="prediction", new_levels="population", seed=3, level=0.8)
    found = pd.read_csv("out.csv")
    names = ["prediction", "est_error", "ci_low", "ci_high"]
    np.testing.assert_allclose(found[names].to_numpy(), np.asarray(wanted[names], dtype=float), rtol=1e-12)
    assert found.columns.tolist() == ["herd", "period", "size", "incidence", *names]


def test_categories_of_a_saved_posterior(run: Run) -> None:
    run("fit", "rating ~ temp + (1 | judge)", "wine", "--bayes", "--family", "ordinal", *SHORT, "--save", "p.mlv")
    status, out, _ = run("predict", "p.mlv", "wine", "--interval", "prediction")
    header, first = (line.split(",") for line in out.splitlines()[:2])
    assert status == 0 and header[-2:] == ["ci_low", "ci_high"] and first[-1] in "12345"


# -- priors as text ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "prior"),
    [
        ("b=Normal", "b", ml.Normal(0, 1)),
        ("b = Normal( -1, sigma = 2e1 )", "b", ml.Normal(-1, 20)),
        ("sd(school, I(x == 1)[T.True])=HalfStudentT(nu=3, sigma=2)", "sd(school, I(x == 1)[T.True])", ml.HalfStudentT(3, 2)),
        ("f(a=g(x))=Laplace(0, 1)", "f(a=g(x))", ml.Laplace(0, 1)),
        ("sigma=multilevel.Exponential(0.5)", "sigma", ml.Exponential(0.5)),
        ("x=Flat()", "x", ml.Flat()),
        ("C(a)[T.=]=Cauchy(1)", "C(a)[T.=]", ml.Cauchy(1)),
    ],
)
def test_priors_as_text(text: str, name: str, prior: Any) -> None:
    assert cli_bayes.priors_of([text]) == {name: prior}


def test_matrices_as_text() -> None:
    (prior,) = cli_bayes.priors_of(["cor(g)=Fixed([[1, 0.5], [0.5, 1]])"]).values()
    np.testing.assert_array_equal(prior.value, [[1, 0.5], [0.5, 1]])  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("b=Normel(0, 1)", ("'Normel'", "did you mean 'Normal'?", "HalfNormal", "LKJ")),
        ("b=Prior()", ("there is no prior 'Prior'",)),
        ("b=check_priors(1)", ("there is no prior 'check_priors'",)),
        ("b=Normal(0, 1, 2)", ("Normal takes mu, sigma",)),
        ("b=Normal(mean=0)", ("Normal takes mu, sigma",)),
        ("b=Flat(1)", ("Flat takes nothing",)),
        ("b=Normal(0, -1)", ("sigma must be positive, got -1",)),
        ("b=Normal('a', 1)", ("mu must be a finite number, got 'a'",)),
        ("b=Normal(0, open('x'))", ("must be numbers",)),
        ("b=Normal(*[0, 1])", ("must be numbers",)),
        ("b=Normal(0, 2**3)", ("must be numbers",)),
        ("b=__import__('os').system('x')", ("cannot be read",)),
        ("b=os.Normal(0, 1)", ("cannot be read",)),
        ("b", ("cannot be read", "sd(schid)=HalfNormal(5)")),
        ("=Normal(0, 1)", ("cannot be read",)),
        ("b=Normal(0, 1", ("cannot be read",)),
        ("b=" + "(" * 5000, ("cannot be read",)),
        (f"b=Fixed(1{'0' * 400})", ("Fixed",)),
        ("nothere=Normal(0, 1)", ("no parameter 'nothere'", "'homework'", "'sd(schid)'")),
        ("cor=Normal(0, 1)", ("correlations take LKJ",)),
    ],
)
def test_priors_that_cannot_be(run: Run, text: str, words: tuple[str, ...]) -> None:
    mistake(run("fit", MATH, "math10", "--bayes", *SHORT, "--prior", text, "--save", "m.mlv"), *words)
    assert not Path("m.mlv").exists()


# -- mistakes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--bayes", "--ml"), ("--ml", "--bayes")),
        (("--bayes", "--ddf", "kenward-roger"), ("--ddf", "--bayes")),
        (("--bayes", "--quadrature", "5"), ("--quadrature", "--bayes")),
        (("--chains", "4"), ("--chains belongs to --bayes",)),
        (("--seed", "0"), ("--seed belongs to --bayes",)),
        (("--prior", "b=Normal(0, 1)"), ("--prior belongs to --bayes",)),
        (("--bayes", "--chains", "0"), ("chains must be a whole number of at least 1",)),
        (("--bayes", "--draws", "x"), ("--draws", "'x'")),
        (("--bayes", "--seed", "-1"), ("seed must be a whole number",)),
        (("--bayes", "--target", "2"), ("from 0.5 to below 1",)),
        (("--bayes", "--prior", "b=Normal(0, 1)", "--prior", "b=Flat()"), ("'b' twice",)),
        (("--bayes", "--plots", "no/such/place"), ("there is no directory",)),
        (("--bayes", "--with-data"), ("--with-data belongs to --save",)),
        (("--bayes", "--chain", "4"), ("did you mean '--chains'?",)),
    ],
)
def test_mistakes(run: Run, options: tuple[str, ...], words: tuple[str, ...]) -> None:
    mistake(run("fit", MATH, "math10", *options), *words)


def test_group_effects_that_were_not_kept(run: Run) -> None:
    run("fit", MATH, "math10", "--bayes", *SHORT, "--keep", "parameters", "--save", "p.mlv")
    mistake(run("predict", "p.mlv", "math10"), "--keep all")
    assert run("predict", "p.mlv", "math10", "--groups", "none")[0] == 0
    mistake(run("update", "p.mlv", ". ~ . + ses"), "holds a posterior")


def test_checks_of_a_saved_posterior(run: Run) -> None:
    run("fit", MATH, "math10", "--bayes", *SHORT, "--save", "p.mlv", "--with-data")
    status, out, _ = run("check", "p.mlv", "--json", "c.json")
    assert status == 0 and "sampling" in out
    assert told("c.json")["checks"][0]["check"] == "sampling"
    run("fit", MATH, "math10", "--bayes", *SHORT, "--save", "bare.mlv")
    mistake(run("check", "bare.mlv"), "--with-data")
