"""The commands on several models, and on data before any model: as their functions, mistakes in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import Run

import multilevel as ml

COMMON = "Reaction ~ Days + (1 | Subject)"
VARYING = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture
def saved(run: Run) -> None:
    """one.mlv and two.mlv with their rows, bare.mlv without."""
    for name, text in (("one", COMMON), ("two", VARYING)):
        ml.lmer(text, ml.load("sleepstudy")).save(f"{name}.mlv", data=True)
    ml.lmer(COMMON, ml.load("sleepstudy")).save("bare.mlv")


def mistake(result: tuple[int, str, str], *words: str) -> None:
    status, out, err = result
    assert (status, out, err.count("\n")) == (2, "", 1), err
    for word in words:
        assert word in err


def told(path: str) -> Any:
    return json.loads(Path(path).read_text(), parse_constant=pytest.fail)


def same(found: list[dict[str, Any]], frame: pd.DataFrame) -> None:
    """Records of a file are the rows of a frame."""
    assert list(found[0]) == list(frame.columns) and len(found) == len(frame)
    for row, (_, expected) in zip(found, frame.iterrows(), strict=True):
        for name, value in expected.items():
            if isinstance(value, float):
                assert row[name] is None if not np.isfinite(value) else row[name] == pytest.approx(value, rel=1e-9)
            else:
                assert row[name] == (None if value is None else value)


# -- compare -----------------------------------------------------------------------------------------------------------


def test_compare_formulas(run: Run) -> None:
    status, out, err = run("compare", COMMON, VARYING, "sleepstudy", "--json", "a.json", "--out", "a.csv")
    found = ml.compare(*(ml.lmer(text, ml.load("sleepstudy")) for text in (COMMON, VARYING)))
    assert (status, err) == (0, "")
    assert out == f"{str(found).rstrip()}\n\nWrote a.json, a.csv\n"
    assert told("a.json")["best"] == "model 2" and told("a.json")["criterion"] == "REML"
    same(told("a.json")["models"], found.frame())
    table = pd.read_csv("a.csv")
    np.testing.assert_allclose(table["aic"], found.frame()["aic"], rtol=1e-12)


def test_compare_by_maximum_likelihood_and_names(run: Run) -> None:
    status, out, _ = run(
        "compare", COMMON, "Reaction ~ 1 + (1 | Subject)", "sleepstudy", "--ml", "--names", "days,none"
    )
    fits = {
        n: ml.lmer(t, ml.load("sleepstudy"), REML=False) for n, t in (("days", COMMON), ("none", f"{COMMON} - Days"))
    }
    assert status == 0 and "by maximum likelihood" in out
    for name, fit in fits.items():
        row = next(line for line in out.splitlines() if line.startswith(name) and f"{fit.aic:.1f}" in line)
        assert f"{fit.bic:.1f}" in row


@pytest.mark.usefixtures("saved")
def test_compare_saved_models(run: Run) -> None:
    status, out, _ = run("compare", "one.mlv", "two.mlv")
    assert (status, out) == (0, str(ml.compare({n: ml.read(f"{n}.mlv") for n in ("one", "two")})).rstrip() + "\n")


def test_compare_families_and_posteriors(run: Run) -> None:
    text = "cbind(incidence, size - incidence) ~ {} + (1 | herd)"
    status, out, _ = run("compare", text.format("period"), text.format("1"), "cbpp", "--family", "binomial")
    fit = ml.Model(text.format("period"), ml.load("cbpp"), family="binomial").fit()
    assert status == 0 and f"{fit.aic:.1f}" in out
    for name, formula in (("a", COMMON), ("b", VARYING)):
        ml.Model(formula, ml.load("sleepstudy")).sample(chains=2, draws=200, seed=1).save(f"{name}.mlv", data=True)
    status, out, _ = run("compare", "a.mlv", "b.mlv", "--json", "c.json")
    assert status == 0 and told("c.json")["criterion"] == "LOO" and told("c.json")["models"][0]["model"] == "b"
    mistake(run("compare", "a.mlv", "b.mlv", "--simulate", "10"), "--simulate is of likelihood-ratio tests")


@pytest.mark.usefixtures("saved")
def test_mistakes_with_compare(run: Run) -> None:
    mistake(run("compare", "one.mlv"), "needs two formulas and the data, or two saved models")
    mistake(run("compare", COMMON, "sleepstudy"), "needs two formulas, got one")
    mistake(run("compare", COMMON, VARYING), "one data file or bundled set; there are none")
    mistake(run("compare", "sleepstudy", COMMON, VARYING), "the data come last")
    mistake(run("compare", COMMON, COMMON, "sleepstudy"), "is given twice")
    mistake(run("compare", "one.mlv", COMMON, "sleepstudy"), "give models of one sort")
    mistake(run("compare", "one.mlv", "two.mlv", "--ml"), "--ml goes with formulas")
    mistake(run("compare", "one.mlv", "two.mlv", "--quadrature", "0"), "--quadrature goes with formulas")
    mistake(run("compare", "one.mlv", "two.mlv", "--family", "poisson"), "--family goes with formulas")
    mistake(run("compare", "one.mlv", "three.mlv"), "there is no file 'three.mlv'")
    mistake(run("compare", "one.mlv", "math10"), "'math10' is neither a saved model nor a formula")
    mistake(run("compare", COMMON, VARYING, "sleepstudi"), "did you mean 'sleepstudy'?")
    mistake(run("compare", COMMON, "log(Reaction) ~ 1 + (1 | Subject)", "sleepstudy"), "cannot be compared")
    mistake(run("compare", COMMON, VARYING, "sleepstudy", "--names", "a"), "2 different names are needed")
    mistake(run("compare", "one.mlv", "two.mlv", "--json", "one.mlv"), "it is read by this command")
    mistake(run("compare", "one.mlv", "two.mlv", "--out", "a.txt"), "a.txt")
    mistake(run("compare", "one.mlv", "two.mlv", "--nams", "a,b"), "did you mean '--names'?")
    mistake(run("compare"), "MODEL")


# -- cross-validate ----------------------------------------------------------------------------------------------------


def test_cross_validate(run: Run) -> None:
    pytest.importorskip("matplotlib")
    text = "math ~ homework + (homework | schid)"
    options = ["--baselines", "--seed", "1", "--folds", "3", "--plots", "p", "--json", "c.json", "--out", "c.csv"]
    status, out, err = run("cross-validate", text, "math10", *options)
    found = ml.cross_validate({text: ml.Model(text, ml.load("math10"))}, folds=3, seed=1, baselines=True)
    pictures = [f"p/{kind}.png" for kind in ("differences", "folds", "groups", "calibration")]
    assert (status, err) == (0, "")
    assert out == f"{found!r}\n\nWrote c.json, c.csv, {', '.join(pictures)}\n"
    assert all(Path(one).read_bytes().startswith(b"\x89PNG") for one in pictures)
    same(told("c.json")["summary"], found.summary())
    same(told("c.json")["compare"], found.compare())
    pd.testing.assert_frame_equal(pd.read_csv("c.csv"), found.by_row(), check_dtype=False, rtol=1e-12)


@pytest.mark.usefixtures("saved")
def test_cross_validate_saved_models_by_group(run: Run) -> None:
    status, out, _ = run("cross-validate", "one.mlv", "two.mlv", "--leave", "groups", "--folds", "all", "--jobs", "2")
    models = {name: ml.read(f"{name}.mlv") for name in ("one", "two")}
    assert (status, out) == (0, f"{ml.cross_validate(models, 'groups', 'all')!r}\n")


def test_cross_validate_by_labels_and_maximum_likelihood(run: Run) -> None:
    ml.load("sleepstudy").assign(late=lambda d: np.where(d["Days"] > 7, "late", None)).to_csv("sleep.csv", index=False)
    status, out, _ = run("cross-validate", COMMON, "sleep.csv", "--labels", "late", "--ml", "--factor", "Subject")
    data = ml.load("sleepstudy")
    late = (data["Days"] > 7).to_numpy()
    new = ml.lmer(COMMON, data[~late], REML=False).predict(data[late])["prediction"]
    root = float(np.sqrt(np.mean((data.loc[late, "Reaction"] - new) ** 2)))
    assert status == 0 and f"{root:.4g}" in out and "36 rows left out" in out


@pytest.mark.usefixtures("saved")
def test_mistakes_with_cross_validate(run: Run) -> None:
    mistake(
        run("cross-validate", "one.mlv", "--leave", "Subjct"), "--leave 'Subjct'", "did you mean 'Subject'", "--labels"
    )
    mistake(run("cross-validate", "one.mlv", "--folds", "x"), "--folds takes a whole number", "'x'")
    mistake(run("cross-validate", "one.mlv", "--folds", "1"), "multilevel: --folds must be", "got 1")
    mistake(run("cross-validate", "one.mlv", "--jobs", "0"), "multilevel: --jobs must be")
    mistake(run("cross-validate", "one.mlv", "--labels", "Dais"), "did you mean 'Days'?")
    mistake(run("cross-validate", "one.mlv", "--labels", "Days", "--leave", "groups"), "leave one of the two out")
    mistake(run("cross-validate", "bare.mlv"), "saved without its data", "--with-data")
    mistake(run("cross-validate", "bare.mlv", "--labels", "Days"), "--with-data")
    mistake(run("cross-validate", "sleepstudy"), "neither a saved model nor a formula")
    mistake(run("cross-validate", COMMON), "one data file or bundled set; there are none")
    mistake(
        run("cross-validate", "Reaction ~ Days", "sleepstudy", "--baselines"),
        "no random terms",
        "leave --baselines out",
    )
    mistake(run("cross-validate", COMMON, "sleepstudy", "--plots", "one.mlv"), "not a directory")


# -- before a model ----------------------------------------------------------------------------------------------------


def test_describe(run: Run) -> None:
    status, out, err = run("describe", "pastes", "--groups", "batch, sample", "--json", "d.json", "--out", "d.csv")
    found = ml.describe(ml.load("pastes"), ["batch", "sample"])
    assert (status, out, err) == (0, f"{found}\n\nWrote d.json, d.csv\n", "")
    for name in ("structure", "groups", "columns", "variance"):
        same(told("d.json")[name], getattr(found, name))
    assert told("d.json")["random"] == found.random and told("d.json")["sentences"] == list(found.sentences)
    assert pd.read_csv("d.csv")["column"].tolist() == found.columns["column"].tolist()
    status, out, _ = run("describe", "pastes", "--groups", "batch", "--columns", "strength")
    assert status == 0 and "cask" not in out
    mistake(run("describe", "pastes", "--groups", "batch,smple"), "did you mean 'sample'?")
    mistake(run("describe", "pastes", "--groups", ","), "groups are named")
    mistake(run("describe", "pastes"), "--groups")


def test_icc(run: Run) -> None:
    status, out, err = run("icc", "math", "schid", "math10", "--json", "i.json", "--level", "0.9")
    found = ml.icc("math", "schid", ml.load("math10"), level=0.9)
    assert (status, err) == (0, "") and "90 %" in out and f"{found['icc'][0]:.4g}" in out
    same(told("i.json")["icc"], found)
    mistake(run("icc", "strength", "batch", "pastes", "--refits", "-3"), "--refits must be a whole number of at least 2")
    status, out, _ = run("icc", "strength", "batch,sample", "pastes", "--refits", "40", "--seed", "3")
    several = ml.icc("strength", ["batch", "sample"], ml.load("pastes"), n=40, seed=3)
    assert status == 0 and f"{several['conf_high'][1]:.4g}" in out and "(all)" in out
    mistake(run("icc", "math", "schol", "math10"), "did you mean 'schid'?")
    mistake(run("icc", "math", "schid", "math10", "--level", "95"), "level")
    mistake(run("icc", "math", "schid"), "DATA")


@pytest.mark.usefixtures("saved")
def test_vif(run: Run) -> None:
    text = "math ~ homework + ses + parented"
    status, out, _ = run("vif", text, "math10", "--json", "v.json")
    found = ml.vif(text, ml.load("math10"))
    assert status == 0 and f"{found['vif'][1]:.4g}" in out
    same(told("v.json")["vif"], found)
    status, out, _ = run("vif", "one.mlv")
    assert status == 0 and "Days" in out
    status, out, _ = run("vif", "~ ses + schid", "math10", "--factor", "schid")
    assert status == 0 and out.splitlines()[4].split()[:2] == ["schid", "9"]
    mistake(run("vif", "math10"), "'math10' is neither a saved model nor a formula")
    mistake(run("vif", "math10", text), "the formula comes first")
    mistake(run("vif", "one.mlv", "math10"), "a saved model goes without data")
    mistake(run("vif", text), "a formula needs data")


def test_pooling(run: Run) -> None:
    pytest.importorskip("matplotlib")
    options = ["--out", "p.csv", "--json", "p.json", "--plots", "pictures", "--vary", "1"]
    status, out, err = run("pooling", "math ~ homework", "schid", "math10", *options)
    found = ml.pooling("math ~ homework", "schid", ml.load("math10"), vary=["1"])
    assert (status, err) == (0, "") and out.startswith(str(found).split("\n\n")[0])
    assert "ml." not in out and out.endswith("Wrote p.json, p.csv, pictures/pooling.png\n")
    same(told("p.json")["coefficients"], found.frame)
    np.testing.assert_allclose(pd.read_csv("p.csv")["partial"], found.frame["partial"], rtol=1e-12)
    mistake(run("pooling", "math", "schid", "math10"), "'math' is no formula")
    mistake(run("pooling", "math ~ homework + (1 | schid)", "schid", "math10"), "has a random term already", "--vary")
    mistake(run("pooling", "math ~ homework", "schol", "math10"), "did you mean 'schid'?")


@pytest.mark.parametrize("command", ["compare", "cross-validate", "describe", "icc", "vif", "pooling"])
def test_help_has_an_example(run: Run, command: str) -> None:
    status, out, err = run(command, "--help")
    assert (status, err) == (0, "") and f"  multilevel {command} " in out.split("examples:")[1]
