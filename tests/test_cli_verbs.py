"""The commands on a saved model, and the options that models share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Run

import multilevel as ml
from multilevel import cli_verbs
from multilevel.table_files import write_table

SLEEP = "Reaction ~ Days + (Days | Subject)"
SIMPLE = "Reaction ~ Days + (1 | Subject)"


@pytest.fixture
def saved(run: Run) -> None:
    """whole.mlv with its rows, bare.mlv without."""
    fit = ml.lmer(SLEEP, ml.load("sleepstudy"))
    fit.save("whole.mlv", data=True)
    fit.save("bare.mlv")


def mistake(result: tuple[int, str, str], *words: str, lines: int = 1) -> None:
    status, out, err = result
    assert (status, out, err.count("\n")) == (2, "", lines), err
    assert err.startswith("multilevel: ")
    for word in words:
        assert word in err


def told(path: str) -> Any:
    return json.loads(Path(path).read_text(), parse_constant=pytest.fail)


# -- fit ---------------------------------------------------------------------------------------------------------------


def test_residual_structures(run: Run) -> None:
    options = ["--correlation", "ar1(Days | Subject)", "--variance", "exp(Days)", "--json", "a.json"]
    status, out, _ = run("fit", SIMPLE, "sleepstudy", *options)
    fit = ml.lmer(SIMPLE, ml.load("sleepstudy"), correlation="ar1(Days | Subject)", variance="exp(Days)")
    assert status == 0 and out.startswith(fit.summary().rstrip())
    assert [row["estimate"] for row in told("a.json")["residual_structure"]] == pytest.approx(fit.optimum.residual)
    mistake(run("fit", SIMPLE, "sleepstudy", "--correlation", "ar1(Days)"), "needs a time and a group")
    mistake(run("fit", SIMPLE, "sleepstudy", "--variance", "idnt(Subject)"), "did you mean 'ident'?")
    mistake(run("fit", SIMPLE, "sleepstudy", "--variance", "ident(Sex)"), "no column 'Sex'")


@pytest.mark.parametrize("ddf", cli_verbs.DDF)
def test_degrees_of_freedom(run: Run, ddf: str) -> None:
    status, out, _ = run("fit", SLEEP, "sleepstudy", "--ddf", ddf, "--json", "a.json")
    fit = ml.lmer(SLEEP, ml.load("sleepstudy"))
    assert status == 0 and out.startswith(fit.summary(ddf).rstrip())
    expected = [None if not np.isfinite(df) else df for df in fit.fixef(ddf=ddf)["df"]]
    assert [row["df"] for row in told("a.json")["fixef"]] == expected


def test_degrees_of_freedom_that_are_not_there(run: Run) -> None:
    mistake(run("fit", SLEEP, "sleepstudy", "--ddf", "kr"), "'kr'", "kenward-roger")
    mistake(run("fit", SLEEP, "sleepstudy", "--ddf", "kenward-roger", "--ml"), "needs a REML fit")
    structured = ["--correlation", "ar1(Days | Subject)", "--ddf", "kenward-roger", "--save", "a.mlv"]
    mistake(run("fit", SIMPLE, "sleepstudy", *structured), "independent residuals")
    assert not Path("a.mlv").exists()  # nothing is written of a command that fails


# -- update ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("saved")
def test_update(run: Run) -> None:
    status, out, err = run(
        "update", "whole.mlv", ". ~ . - (Days | Subject) + (1 | Subject)", "--ml", "--json", "a.json", "--save", "b.mlv"
    )
    fit = ml.lmer(SIMPLE, ml.load("sleepstudy"), REML=False)
    assert (status, err) == (0, "")
    assert out == f"{fit.summary().rstrip()}\n\nWrote b.mlv, a.json\n"
    assert told("a.json")["formula"] == SIMPLE and told("a.json")["method"] == "ML"
    assert ml.read("b.mlv").loglik == fit.loglik
    assert "fit by maximum likelihood" in run("update", "b.mlv", ". ~ .", "--data", "sleepstudy")[1]
    assert "fit by REML" in run("update", "b.mlv", ". ~ .", "--data", "sleepstudy", "--reml")[1]


@pytest.mark.usefixtures("saved")
def test_update_with_data(run: Run) -> None:
    data = ml.load("sleepstudy").assign(x=np.linspace(0, 1, 180), k=np.arange(180) % 3)
    write_table(data, "more.csv")  # where the subjects, which were text, look like numbers
    status, out, _ = run("update", "bare.mlv", ". ~ . + x + k", "--data", "more.csv", "--factor", "k")
    expected = ml.lmer("Reaction ~ Days + x + C(k) + (Days | Subject)", data)
    assert status == 0 and f"REML criterion at convergence: {expected.criterion:.1f}" in out and "k[T.2]" in out


@pytest.mark.usefixtures("saved")
def test_update_of_a_structure(run: Run) -> None:
    status, out, _ = run("update", "whole.mlv", "~ Days + (1 | Subject)", "--correlation", "ar1(Days | Subject)")
    assert status == 0 and "rho(Subject)" in out


@pytest.mark.usefixtures("saved")
def test_mistakes_with_update(run: Run) -> None:
    mistake(run("update", "whole.mlv", ". ~ . - Dais"), "did you mean 'Days'?", "\n          ^^^^\n", lines=3)
    mistake(run("update", "whole.mlv", ". + x"), "there is no ~", lines=3)
    mistake(run("update", "whole.mlv", ". ~ . + x"), "no column 'x'", "keeps only its own columns; give --data FILE")
    mistake(run("update", "bare.mlv", ". ~ . - Days"), "give --data FILE, or save it with --save FILE --with-data")
    mistake(run("update", ". ~ . - Days", "bare.mlv"), "the model comes first")
    mistake(run("update", "bare.mlv"), "FORMULA")
    mistake(run("update", "whole.mlv", ". ~ .", "--ml", "--reml"), "not allowed with")
    mistake(run("update", "whole.mlv", ". ~ .", "--ml", "--ddf", "kenward-roger"), "needs a REML fit")
    mistake(run("update", "whole.mlv", ". ~ .", "--factor", "Days"), "--factor belongs to --data FILE")
    mistake(run("update", "whole.mlv", ". ~ .", "--save", "whole.mlv"), "it is read by this command")
    mistake(run("update", "whole.mlv", ". ~ .", "--with-data"), "--with-data belongs to --save FILE")
    mistake(run("update", "whole.mlv", ". ~ .", "--data", "sleepstudi"), "did you mean 'sleepstudy'?")
    mistake(run("update", "nothing.mlv", ". ~ ."), "there is no file 'nothing.mlv'")


# -- profile -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("saved")
def test_profile(run: Run) -> None:
    pytest.importorskip("matplotlib")
    status, out, err = run("profile", "bare.mlv", "--json", "a.json", "--plots", "pictures")
    assert (status, err) == (0, "")
    assert out.endswith("Wrote a.json, pictures/profile.png\n")
    assert Path("pictures/profile.png").read_bytes().startswith(b"\x89PNG")
    table = ml.read("bare.mlv").confint(method="profile")
    assert [row["term"] for row in told("a.json")["intervals"]] == table["term"].tolist()
    for name in ("estimate", "conf_low", "conf_high"):
        assert [row[name] for row in told("a.json")["intervals"]] == pytest.approx(table[name].tolist())
    printed = next(line for line in out.splitlines() if line.startswith("sd(Subject, Days)"))
    assert printed.split()[-2:] == [f"{v:.5g}" for v in table.loc[1, ["conf_low", "conf_high"]]]
    assert {row["parameter"] for row in told("a.json")["profile"]} == set(table["term"])


@pytest.mark.usefixtures("saved")
def test_profile_of_a_few_parameters(run: Run) -> None:
    for which in (["--which", "sigma", "sd(Subject, Days)"], ["--which", "sigma", "--which", "sd(Subject, Days)"]):
        status, out, _ = run("profile", "bare.mlv", *which, "--level", "0.9")
        assert status == 0 and "90 %" in out
        assert "sigma" in out and "sd(Subject, Days)" in out and "Intercept" not in out
    mistake(run("profile", "bare.mlv", "--which", "sigme"), "did you mean 'sigma'?")
    mistake(run("profile", "bare.mlv", "--level", "90"), "level", "0.95")
    mistake(run("profile", "bare.mlv", "--json", "bare.mlv"), "it is read by this command")
    mistake(run("profile", "bare.mlv", "--plots", "bare.mlv"), "not a directory")
    mistake(run("profile", "bare.mlv", "--wich", "sigma"), "did you mean '--which'?")
    mistake(run("profile"), "MODEL.mlv")


# -- check -------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("saved")
def test_check(run: Run) -> None:
    pytest.importorskip("matplotlib")
    status, out, err = run("check", "whole.mlv", "--json", "a.json", "--plots", "pictures")
    checks = ml.read("whole.mlv").check()
    assert (status, err) == (0, "")
    assert out == f"Formula: {SLEEP}\n\n{checks}\n\nWrote a.json, pictures/check.png\n"
    assert Path("pictures/check.png").read_bytes().startswith(b"\x89PNG")
    assert told("a.json")["worst"] == checks.worst
    assert [row["verdict"] for row in told("a.json")["checks"]] == [one.verdict for one in checks]
    mistake(run("check", "bare.mlv"), "saved without its data", "--save FILE --with-data")
    mistake(run("check", "sleepstudy"), "there is no file 'sleepstudy'")


def test_a_fit_of_polars_data(run: Run) -> None:
    pytest.importorskip("polars")
    fit = ml.lmer(SLEEP, ml.load("sleepstudy", as_="polars"))
    fit.save("fit.mlv", data=True)
    assert run("profile", "fit.mlv", "--which", "sigma", "--json", "a.json")[0] == 0
    assert run("check", "fit.mlv", "--json", "b.json")[0] == 0
    assert run("update", "fit.mlv", ". ~ . + I(Days^2)", "--json", "c.json")[0] == 0
    assert told("a.json")["intervals"][0]["term"] == "sigma" and len(told("c.json")["fixef"]) == 3


@pytest.mark.parametrize("command", ["update", "profile", "check"])
@pytest.mark.usefixtures("saved")
def test_interrupts_and_help(run: Run, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    status, out, err = run(command, "--help")
    assert status == 0 and "MODEL.mlv" in out and err == ""

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ml.Fit, command, interrupted)
    formula = [". ~ ."] if command == "update" else []
    assert run(command, "whole.mlv", *formula) == (130, "", "multilevel: interrupted\n")
