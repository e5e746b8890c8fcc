"""The command line: what it prints and writes, and one clear line for every mistake."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import Run
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import multilevel as ml
from multilevel import cli, cli_files
from multilevel.datasets import datasets
from multilevel.table_files import FORMATS, read_table, to_text, write_table

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SLEEP = "Reaction ~ Days + (Days | Subject)"


def mistake(result: tuple[int, str, str], *words: str) -> None:
    """Status 2, nothing on standard output, exactly one line on standard error, holding the words."""
    status, out, err = result
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("multilevel: ") and err.endswith("\n")
    for word in words:
        assert word in err


def rows(n: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(4)
    g = np.arange(n) % 6
    return pd.DataFrame({"y": g + rng.normal(size=n), "x": rng.normal(size=n), "g": g, "name": [f"n{i}" for i in g]})


# -- what works ------------------------------------------------------------------------------------


def test_fit_prints_the_model_and_writes_what_was_asked_for(run: Run, tmp_path: Path) -> None:
    status, out, err = run("fit", SLEEP, "sleepstudy", "--json", "fit.json", "--save", "fit.mlv", "--with-data")
    assert (status, err) == (0, "")
    fit = ml.lmer(SLEEP, ml.load("sleepstudy"))
    assert out == f"{fit.summary().rstrip()}\n\nWrote fit.mlv, fit.json\n"
    assert np.array_equal(ml.read(tmp_path / "fit.mlv").fitted(), fit.fitted())
    told = json.loads((tmp_path / "fit.json").read_text(), parse_constant=pytest.fail)
    assert [row["estimate"] for row in told["fixef"]] == fit.fixef()["estimate"].tolist()
    assert told["varcorr"][-1] == {
        "group": "Residual",
        "term1": None,
        "term2": None,
        "vcov": fit.sigma**2,
        "sdcor": fit.sigma,
    }
    assert told["method"] == "REML" and told["glance"]["nobs"] == 180 and told["convergence"]["converged"] is True
    assert told["convergence"]["null_slope"] is None  # not a number, and JSON has none


def test_fit_options(run: Run, tmp_path: Path) -> None:
    data = rows().assign(w=np.linspace(0.5, 2, 60), o=1.0)
    write_table(data, "data.csv")
    for options, model in (
        (["--ml"], {}),
        (["--weights", "w"], {"weights": "w"}),
        (["--offset", "o", "--threads", "1"], {"offset": "o"}),
    ):
        assert run("fit", "y ~ x + (1 | g)", "data.csv", "--json", "a.json", *options)[0] == 0
        fit = ml.Model("y ~ x + (1 | g)", data, **model).fit("--ml" not in options)
        assert json.loads((tmp_path / "a.json").read_text())["glance"]["loglik"] == fit.loglik
    status, out, _ = run("fit", "x ~ g + o + (1 | name)", "data.csv", "--factor", "g,o")
    assert status == 0 and "g[T.5]" in out.replace("g5", "g[T.5]")


def test_fit_of_other_families(run: Run) -> None:
    cbpp = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    options = ("--family", "binomial", "--link", "probit", "--save", "m.mlv", "--with-data", "--json", "m.json")
    code, out, err = run("fit", cbpp, "cbpp", *options)
    assert (code, err) == (0, "") and "Family: binomial (probit)" in out
    written = json.loads(Path("m.json").read_text())
    assert (written["family"], written["link"], written["zeros"]) == ("binomial", "probit", "none")
    wanted = ml.Model(cbpp, ml.load("cbpp"), family="binomial", link="probit").fit()
    assert written["fixef"][1]["estimate"] == pytest.approx(wanted.params["period[T.2]"], rel=1e-9)
    assert run("summary", "m.mlv")[1].strip() == wanted.summary().strip()
    assert "dispersion" in run("check", "m.mlv")[1]
    code, out, _ = run("predict", "m.mlv", "cbpp", "--kind", "link")
    assert code == 0 and float(out.splitlines()[1].split(",")[-1]) == pytest.approx(wanted.fitted("link")[0], rel=1e-6)
    owls = "SiblingNegotiation ~ FoodTreatment + (1 | Nest)"
    code, out, _ = run("fit", owls, "owls", "--family", "nbinom2", "--zi", "~ SexParent", "--dispersion", "~ FoodTreatment")
    assert code == 0 and "zi[SexParent[T.Male]]" in out and "size[FoodTreatment[T.Satiated]]" in out
    code, out, _ = run("fit", owls, "owls", "--family", "poisson", "--hurdle", "~ 1", "--json", "h.json")
    assert code == 0 and "hurdle at zero" in out
    assert json.loads(Path("h.json").read_text())["extra"][0]["term"] == "zi[Intercept]"


def test_mistakes_with_families(run: Run) -> None:
    owls = "SiblingNegotiation ~ FoodTreatment + (1 | Nest)"
    mistake(run("fit", owls, "owls", "--family", "poison"), "poison", "poisson")
    mistake(run("fit", owls, "owls", "--family", "poisson", "--link", "logit"), "logit", "sqrt")
    mistake(run("fit", owls, "owls", "--family", "poisson", "--zi", "~ 1", "--hurdle", "~ 1"), "--hurdle", "--zi")
    mistake(run("fit", owls, "owls", "--family", "poisson", "--dispersion", "~ 1"), "dispersion")
    mistake(run("fit", owls, "owls", "--family", "poisson", "--zi", "1"), "zi", "~ x")
    mistake(run("fit", owls, "owls", "--zi", "~ 1"), "zi")
    mistake(run("fit", owls, "owls", "--family", "poisson", "--ddf", "kenward-roger"), "kenward-roger", "normal")


def test_plots(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    status, out, err = run("fit", "Yield ~ 1 + (1 | Batch)", "dyestuff", "--plots", "pictures")
    assert status == 0
    for name in cli_files.PLOTS:  # what this model has no picture of, a warning names
        assert (f"pictures/{name}.png" in out) == (tmp_path / "pictures" / f"{name}.png").is_file()
        assert (f"pictures/{name}.png" in out) != (f"warning: no plot of {name}: " in err)
    assert (tmp_path / "pictures" / "residuals.png").read_bytes().startswith(b"\x89PNG")


def test_predict(run: Run, tmp_path: Path) -> None:
    run("fit", "y ~ x + (1 | g)", write(rows(), "data.csv"), "--save", "fit.mlv")
    fit, new = ml.read(tmp_path / "fit.mlv"), rows(7)
    new.loc[2, "g"] = 77
    new.loc[3, "x"] = np.nan
    write_table(new, "new.csv")
    mistake(run("predict", "fit.mlv", "new.csv"), "'g'", "77")
    status, out, err = run("predict", "fit.mlv", "new.csv", "--new-levels", "population", "--interval", "prediction")
    assert (status, err) == (0, "")
    Path("out.csv").write_text(out)
    expected = fit.predict(new, new_levels="population", interval="prediction")
    pd.testing.assert_frame_equal(read_table("out.csv"), pd.concat([new, expected], axis=1), check_exact=True)
    for groups, asked in (("none", None), ("g", ["g"]), ("all", "all")):
        options = ["--groups", groups, "--new-levels", "population", "--out", "out.parquet"]
        assert run("predict", "fit.mlv", "new.csv", *options)[1] == "Wrote out.parquet (7 rows)\n"
        told = read_table("out.parquet")["prediction"]
        assert np.array_equal(
            told, fit.predict(new, groups=asked, new_levels="population")["prediction"], equal_nan=True
        )


def test_labels_that_look_like_numbers_survive_a_csv_file(run: Run, tmp_path: Path) -> None:
    run("fit", SLEEP, "sleepstudy", "--save", "fit.mlv")  # its subjects are the texts "308", "309", ...
    run("data", "sleepstudy", "--out", "new.csv")
    status, out, err = run("predict", "fit.mlv", "new.csv", "--out", "out.parquet")
    assert (status, err) == (0, "")
    expected = ml.read(tmp_path / "fit.mlv").predict(ml.load("sleepstudy"))["prediction"]
    assert np.array_equal(read_table("out.parquet")["prediction"], expected)


def write(frame: pd.DataFrame, path: str) -> str:
    write_table(frame, path)
    return path


def test_summary_and_data(run: Run, tmp_path: Path) -> None:
    run("fit", SLEEP, "sleepstudy", "--save", "fit.mlv")
    assert run("summary", "fit.mlv")[1] == ml.read(tmp_path / "fit.mlv").summary().rstrip() + "\n"
    listed = run("data")[1]
    assert all(name in listed for name in datasets()["name"])
    assert run("data", "dyestuff")[1] == to_text(ml.load("dyestuff"))
    assert run("data", "dyestuff", "--out", "d.feather") == (0, "Wrote d.feather (30 rows)\n", "")
    assert read_table("d.feather").equals(ml.load("dyestuff"))


def test_a_file_stands_before_a_bundled_set_of_its_name(run: Run) -> None:
    Path("math10").mkdir()  # a directory does not
    assert run("fit", "math ~ homework + (1 | schid)", "math10")[0] == 0
    Path("sleepstudy").write_text("a,b\n")
    mistake(run("fit", SLEEP, "sleepstudy"), "does not tell a format")


def test_warnings_are_one_line_each(run: Run) -> None:
    data = rows()
    data.loc[3, "x"] = np.nan
    status, out, err = run("fit", "y ~ x + I(2 * x) + (1 | g)", write(data, "data.csv"))
    assert status == 0 and out
    assert len(err.splitlines()) == 2 and all(one.startswith("multilevel: warning: ") for one in err.splitlines())
    status, _, err = run("fit", "Yield ~ 1 + (1 | Batch)", "dyestuff2")
    assert status == 0 and "sd(Batch, Intercept) = 0" in err and err.count("\n") == 1


def test_help_and_version(run: Run) -> None:
    assert run("--version") == (0, f"multilevel {ml.__version__}\n", "")
    for argv in (["--help"], ["fit", "--help"], ["predict", "--help"], ["summary", "-h"], ["data", "-h"]):
        status, out, err = run(*argv)
        assert (status, err) == (0, "") and "usage: multilevel" in out


# -- mistakes --------------------------------------------------------------------------------------


def test_mistakes_in_arguments(run: Run) -> None:
    mistake(run(), "COMMAND", "multilevel --help")
    mistake(run("fitt"), "fitt", "fit")
    mistake(run("fit"), "FORMULA, DATA", "multilevel fit --help")
    mistake(run("fit", SLEEP, "sleepstudy", "--plot", "x"), "no option '--plot'", "did you mean '--plots'?")
    mistake(run("fit", SLEEP, "sleepstudy", "--qqqqqq=1"), "no option '--qqqqqq=1'", "--threads")
    mistake(run("fit", SLEEP, "sleepstudy", "more"), "too many: 'more'", "quotes")
    mistake(run("fit", SLEEP, "sleepstudy", "--threads", "x"), "--threads", "'x'")
    mistake(run("fit", SLEEP, "sleepstudy", "--threads", "0"), "threads must be a positive whole number")
    mistake(run("fit", "sleepstudy", SLEEP), "the formula comes first")
    mistake(run("fit", SLEEP, "sleepstudy", "--with-data"), "--save")
    mistake(run("fit", SLEEP, "sleepstudy", "--factor", "day"), "'day'", "did you mean 'Days'?")
    mistake(run("fit", SLEEP, "sleepstudy", "--weights", "day"), "'day'", "did you mean 'Days'?")
    mistake(run("predict", "a.mlv", "new.csv", "--interval", "both"), "both", "confidence")
    mistake(run("data", "sleepstdy"), "did you mean 'sleepstudy'?")
    mistake(run("data", "--out", "x.csv"), "NAME")


def test_mistakes_in_formula_and_data(run: Run) -> None:
    status, out, err = run("fit", "y ~ x + (1 | g", "nothing.csv")
    first, formula, caret = err.splitlines()
    assert (status, out) == (2, "") and first.startswith("multilevel: ") and "not closed" in first
    assert formula.strip() == "y ~ x + (1 | g" and caret.strip() == "^"
    mistake(run("fit", "Reaction ~ Day + (1 | Subject)", "sleepstudy"), "'Day'", "did you mean 'Days'?")
    mistake(run("fit", SLEEP, "sleepstuddy"), "no file 'sleepstuddy'", "did you mean 'sleepstudy'?")
    write_table(rows(), "mine.csv")
    mistake(run("fit", "y ~ x + (1 | g)", "mien.csv"), "did you mean 'mine.csv'?")
    mistake(run("fit", "name ~ x + (1 | g)", "mine.csv"), "'name'", "text")
    odd = rows().rename(columns={"x": "line\nbreak"})
    mistake(run("fit", "y ~ x + (1 | g)", write(odd, "odd.csv")), "'x'")
    os.mkfifo("pipe.csv")
    mistake(run("fit", "y ~ x + (1 | g)", "pipe.csv"), "no ordinary file")
    mistake(run("fit", "y ~ x + (1 | g)", "."), "directory")


def test_mistakes_with_saved_models(run: Run) -> None:
    mistake(run("summary", "no.mlv"), "there is no file 'no.mlv'")
    mistake(run("predict", "no.mlv", "sleepstudy"), "there is no file 'no.mlv'")
    run("fit", SLEEP, "sleepstudy", "--save", "fit.mlv")
    Path("short.mlv").write_bytes(Path("fit.mlv").read_bytes()[:-9])
    mistake(run("summary", "short.mlv"), "damaged or incomplete")
    mistake(run("summary", write(rows(), "rows.csv")), "no fit or posterior saved by multilevel")
    mistake(run("predict", "fit.mlv", "rows.csv"), "'Days'")
    mistake(run("predict", "fit.mlv", "sleepstudy", "--groups", "Subjects"), "did you mean 'Subject'?")
    mistake(run("predict", "fit.mlv", "sleepstudy", "--level", "95"), "level", "0.95")
    clash = ml.load("sleepstudy").assign(prediction=1)
    mistake(run("predict", "fit.mlv", write(clash, "clash.csv")), "'prediction'", "rename")


def test_outputs_are_checked_before_any_work(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "load_table", lambda name: pytest.fail("work was begun"))
    Path("a.csv").write_text("x\n1\n")
    Path("dir").mkdir()
    for option in ("--json", "--save"):
        mistake(run("fit", SLEEP, "sleepstudy", option, "no/such/file"), "there is no directory 'no/such'")
        mistake(run("fit", SLEEP, "sleepstudy", option, "dir"), "it is a directory")
        mistake(run("fit", SLEEP, "a.csv", option, "./a.csv"), "it is read by this command")
        mistake(run("fit", SLEEP, "a.csv", option, ""), "empty")
    mistake(run("fit", SLEEP, "a.csv", "--json", "same", "--save", "same"), "named twice")
    mistake(run("fit", SLEEP, "a.csv", "--plots", "a.csv"), "not a directory")
    mistake(run("fit", SLEEP, "a.csv", "--plots", "no/such/"), "there is no directory 'no'")
    mistake(run("predict", "m.mlv", "a.csv", "--out", "x.xlsx"), "does not tell a format", "CSV")
    mistake(run("predict", "m.mlv", "a.csv", "--out", "a.csv"), "it is read by this command")
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    mistake(run("fit", SLEEP, "sleepstudy", "--plots", "p"), "matplotlib", "pip install multilevel[plots]")
    assert sorted(os.listdir()) == ["a.csv", "dir"]


def test_bug_interrupt_and_memory(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(error: BaseException) -> Callable[..., Any]:
        def load(name: str) -> Any:
            raise error

        return load

    monkeypatch.setattr(cli, "load_table", raising(RuntimeError("boom")))
    status, out, err = run("fit", SLEEP, "sleepstudy")
    assert (status, out) == (1, "") and "Traceback" in err and "boom" in err and "please report" in err
    monkeypatch.setattr(cli, "load_table", raising(KeyboardInterrupt()))
    assert run("fit", SLEEP, "sleepstudy") == (130, "", "multilevel: interrupted\n")
    monkeypatch.setattr(cli, "load_table", raising(MemoryError()))
    mistake(run("fit", SLEEP, "sleepstudy"), "not enough memory")


# -- as a process ----------------------------------------------------------------------------------


def process(*argv: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "multilevel", *argv], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, **options)  # fmt: skip


def test_help_imports_nothing_heavy() -> None:
    code = ("import sys; from multilevel.cli import main; main(['fit', '--help']); "
            "sys.exit(bool({'numpy', 'pandas', 'scipy', 'matplotlib', 'formulaic'} & set(sys.modules)))")  # fmt: skip
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_a_closed_pipe_is_quiet() -> None:
    running = process("data", "insteval")
    assert running.stdout is not None and running.stderr is not None
    running.stdout.readline()
    running.stdout.close()
    assert running.stderr.read() == ""
    assert running.wait(30) == 141
    running.stderr.close()


def test_ctrl_c(tmp_path: Path) -> None:
    hook = tmp_path / "sitecustomize.py"
    hook.write_text(
        "import multilevel.cli, time\nmultilevel.cli.load_table = lambda name: print('here', flush=True) or time.sleep(60)\n"
    )
    with process(
        "fit", SLEEP, "x", env={**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    ) as running:
        assert running.stdout is not None and running.stdout.readline() == "here\n"
        time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        assert running.communicate(timeout=30)[1] == "multilevel: interrupted\n"
        assert running.returncode == 130


# -- data files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", FORMATS)
def test_what_is_written_is_read_again(ending: str, tmp_path: Path) -> None:
    if ending in (".parquet", ".feather", ".arrow"):
        pytest.importorskip("pyarrow")
    frame = rows()
    frame.loc[2, "x"] = np.nan
    frame.loc[5, "name"] = 'a "quoted", name\nof two lines, Ä'
    write_table(frame, tmp_path / f"t{ending}")
    pd.testing.assert_frame_equal(read_table(tmp_path / f"t{ending}"), frame, check_exact=True)


def test_an_arrow_stream_and_a_missing_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.Table.from_pandas(rows())
    with pa.OSFile(str(tmp_path / "t.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as out:
        out.write_table(table)
    assert read_table(tmp_path / "t.arrow").equals(rows())
    write_table(rows(), tmp_path / "t.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ml.OptionError, match=r"needs pyarrow.*pip install multilevel\[scale\]"):
        read_table(tmp_path / "t.parquet")


WRONG_TEXT = {
    b"": "is empty",
    b"\n\n": "no names of columns",
    b"a,b\n1,2\n3,4,5\n": "line 3 has 3 fields, where 2 are expected",
    b"a,b\n1,2,3\n4,5,6\n": "3 fields in line 2, where 2 are expected",
    b"a,b,c\n1,2,3\n\n4\n": "1 field in line 4, where 3 are expected",
    b"a,b\n1,\xe9\n": r"not UTF-8 text \(byte 0xe9 in line 2\)",
    "a,b\n1,2\n".encode("utf-16"): "UTF-16",
    b"a,b\n1,\0\n": "binary file",
    b"a,b,a\n1,2,3\n": "two columns 'a'",
    b"a;b\n1;2\n": "separated by ';'",
    b'a,b\n1,"2\n3,4\n': "line 2 is never closed",
    b"PK\x03\x04\x00\x00": "binary file",
}


@pytest.mark.parametrize("content", WRONG_TEXT, ids=lambda content: repr(content[:12]))
def test_wrong_text_files(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(ml.FileError, match=WRONG_TEXT[content]) as caught:
        read_table(tmp_path / "t.csv")
    assert "t.csv" in str(caught.value) and "\n" not in str(caught.value)
    if content:
        (tmp_path / "t.csv.gz").write_bytes(gzip.compress(content))
        with pytest.raises(ml.FileError, match=WRONG_TEXT[content]):
            read_table(tmp_path / "t.csv.gz")


def test_right_but_unusual_text_files(tmp_path: Path) -> None:
    for content in ("\ufeffa,b\r\n1,x\r\n", "a,b\n1,x", '\n"a","b"\n1,"x"\n\n'):
        (tmp_path / "t.csv").write_bytes(content.encode())
        assert read_table(tmp_path / "t.csv").to_dict("list") == {"a": [1], "b": ["x"]}
    (tmp_path / "t.csv").write_text("a,b\n1,\n2,3\n")  # a missing value in the last column is no short line
    assert read_table(tmp_path / "t.csv")["b"].isna().tolist() == [True, False]


def read_or_refused(path: Path) -> None:
    """The readers return a frame, or raise one sentence."""
    try:
        assert isinstance(read_table(path), pd.DataFrame)
    except ml.FileError as error:
        assert str(path) in str(error) and "\n" not in str(error)


@cache
def real_file(ending: str) -> bytes:
    path = Path(tempfile.gettempdir()) / f"multilevel-{os.getpid()}{ending}"
    write_table(rows().assign(name=lambda d: d["name"].astype("category")), path)
    content = path.read_bytes()
    path.unlink()
    return content


BINARY = [ending for ending in FORMATS if ending not in (".csv", ".tsv", ".tsv.gz")]


@QUICK
@given(
    content=st.one_of(
        st.binary(max_size=300), st.text(alphabet='a1,;"\t\r\n\ufeff\u00e9 ', max_size=60).map(str.encode)
    )
)
@example(content=b'"')
@example(content=b"a\r")
def test_random_bytes_as_text(content: bytes, tmp_path: Path) -> None:
    for ending in (".csv", ".tsv"):
        (tmp_path / f"t{ending}").write_bytes(content)
        read_or_refused(tmp_path / f"t{ending}")


@pytest.mark.parametrize("ending", BINARY)
@QUICK
@given(content=st.binary(max_size=200))
def test_random_bytes_as_anything(ending: str, content: bytes, tmp_path: Path) -> None:
    if ending != ".csv.gz":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"t{ending}"
    for whole in (content, real_file(ending)[:8] + content, real_file(ending)[:8] + content + real_file(ending)[-8:]):
        path.write_bytes(whole)
        read_or_refused(path)


@pytest.mark.parametrize("ending", BINARY)
@QUICK
@given(
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=4),
    kept=st.one_of(st.just(1.0), st.floats(0, 1)),
)
def test_damaged_files(ending: str, flips: list[tuple[float, int]], kept: float, tmp_path: Path) -> None:
    if ending != ".csv.gz":
        pytest.importorskip("pyarrow")
    content = bytearray(real_file(ending))
    for share, mask in flips:
        content[int(share * len(content))] ^= mask
    (tmp_path / f"t{ending}").write_bytes(content[: int(kept * len(content))])
    read_or_refused(tmp_path / f"t{ending}")
