"""A saved fit comes back equal, and no file can do more than be refused."""

from __future__ import annotations

import io
import json
import os
import stat
import tempfile
import threading
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import multilevel as ml
from multilevel import archive, storage

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def frame(seed: int = 1, n: int = 240) -> pd.DataFrame:
    """Rows with every kind of column a model may use, holes included."""
    rng = np.random.default_rng(seed)
    school = rng.integers(0, 12, n)
    data = pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "arm": pd.Categorical(rng.choice(["low", "mid", "high"], n), ["low", "mid", "high"], ordered=True),
            "site": rng.choice(["α", "b|c", 'd"e', ""], n),
            "school": school,
            "pupil": school * 10 + rng.integers(0, 5, n),
            "w": rng.uniform(0.5, 2, n),
            "o": rng.normal(size=n),
        }
    )
    effect = rng.normal(size=(12, 2)) @ np.array([[1.0, 0.3], [0, 0.5]])
    data["y"] = 3 + data["x"] + data["o"] + effect[school, 0] + effect[school, 1] * data["x"] + rng.normal(size=n)
    data.loc[[3, 17], "y"] = np.nan
    data.loc[40, "x"] = np.nan
    return data


MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "slope": ("y ~ x + (x | school)", {}),
    "diagonal, weights, offset": ("y ~ x + offset(o) + (x || school)", {"weights": "w"}),
    "offset column": ("y ~ x + (1 | school)", {"offset": "o"}),
    "nested": ("y ~ x * site + (1 | school / pupil)", {}),
    "crossed, two terms on one group": ("y ~ arm + (1 | school) + (0 + x | school) + (1 | site)", {}),
    "spline": ("y ~ bs(x, df=4) + scale(o) + (1 | school)", {}),
    "dropped column": ("y ~ x + I(2 * x) + (1 | school)", {}),
    "contrasts": ("y ~ arm + site + (1 | school)", {"contrasts": {"site": "sum"}}),
    "no random effects' fixed part": ("y ~ 0 + (1 | school)", {}),
}


@cache
def fitted(name: str, reml: bool = True) -> ml.Fit:
    formula, options = MODELS[name]
    return ml.Model(formula, frame(), **options).fit(reml)


@pytest.fixture(autouse=True)
def quiet(recwarn: pytest.WarningsRecorder) -> None:
    """Rows and columns left out are announced when fitting; not the subject here."""


pytestmark = pytest.mark.filterwarnings("ignore::multilevel.errors.MultilevelWarning")


def assert_equal(one: ml.Fit, other: ml.Fit) -> None:
    """Everything that needs no rows is the same, bit for bit."""
    pd.testing.assert_frame_equal(one.fixef(), other.fixef(), check_exact=True)
    pd.testing.assert_frame_equal(one.ranef(), other.ranef(), check_exact=True)
    pd.testing.assert_frame_equal(one.coef(), other.coef(), check_exact=True)
    pd.testing.assert_frame_equal(one.varcorr(), other.varcorr(), check_exact=True)
    pd.testing.assert_frame_equal(one.glance(), other.glance(), check_exact=True)
    assert np.array_equal(one.vcov(), other.vcov()) and np.array_equal(one.theta, other.theta)
    assert str(one.convergence) == str(other.convergence)
    assert repr(one.optimum.evidence) == repr(other.optimum.evidence)
    assert one.messages == other.messages
    for mine, theirs in zip(one.design.terms, other.design.terms, strict=True):
        assert (mine.group, mine.names, mine.structure, mine.columns) == (
            theirs.group,
            theirs.names,
            theirs.structure,
            theirs.columns,
        )
        assert mine.levels.tolist() == theirs.levels.tolist() and mine.levels.dtype == theirs.levels.dtype
    for field in ("names", "all_names", "dropped", "missing", "kind", "n_input", "response"):
        assert getattr(one.design, field) == getattr(other.design, field)
    assert np.array_equal(one.design.rows, other.design.rows)


def round_trip(fit: ml.Fit, path: Path, data: bool = False) -> ml.Fit:
    fit.save(path, data)
    return ml.read(path)


# -- what comes back -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("data", [False, True])
def test_everything_comes_back(name: str, data: bool, tmp_path: Path) -> None:
    fit = fitted(name)
    back = round_trip(fit, tmp_path / "fit.mlv", data)
    assert_equal(fit, back)
    new = frame(2, 30)
    new.loc[0, "school"] = 99
    for groups in ("all", None):
        for interval in ("confidence", "prediction"):
            options: dict[str, Any] = {"groups": groups, "interval": interval, "new_levels": "population"}
            try:
                mine = fit.predict(new, **options)
            except ml.MultilevelError as error:  # some model needs the group's columns for an interval
                with pytest.raises(type(error)):
                    back.predict(new, **options)
                continue
            pd.testing.assert_frame_equal(mine, back.predict(new, **options), check_exact=True)


@pytest.mark.parametrize("name", MODELS)
def test_with_data_the_rows_work_too(name: str, tmp_path: Path) -> None:
    fit = fitted(name)
    back = round_trip(fit, tmp_path / "fit.mlv", data=True)
    assert np.array_equal(fit.fitted(), back.fitted(), equal_nan=True)
    assert np.array_equal(fit.residuals("pearson"), back.residuals("pearson"), equal_nan=True)
    pd.testing.assert_frame_equal(fit.predict(), back.predict(), check_exact=True)
    pd.testing.assert_frame_equal(fit.simulate(2, seed=1), back.simulate(2, seed=1), check_exact=True)
    y = np.random.default_rng(3).normal(size=(fit.design.n_input, 3))
    pd.testing.assert_frame_equal(fit.refit(y).fixef(), back.refit(y).fixef(), check_exact=True)
    pd.testing.assert_frame_equal(fit.refit(y[:, 0]).fixef(), back.refit(y[:, 0]).fixef(), check_exact=True)
    pd.testing.assert_frame_equal(fit.augment(), back.augment(), check_dtype=False, check_categorical=False)
    assert str(fit) == str(back)


def test_maximum_likelihood_and_a_singular_fit(tmp_path: Path) -> None:
    assert_equal(fitted("slope", False), round_trip(fitted("slope", False), tmp_path / "ml.mlv"))
    singular = ml.lmer("Yield ~ 1 + (1 | Batch)", ml.load("dyestuff2"))
    back = round_trip(singular, tmp_path / "singular.mlv")
    assert back.is_singular and "sd(Batch, Intercept) = 0" in back.convergence.boundary
    assert_equal(singular, back)


def test_without_data_what_needs_the_rows_says_so(tmp_path: Path) -> None:
    back = round_trip(fitted("diagonal, weights, offset"), tmp_path / "fit.mlv")
    verbs: dict[str, Any] = {
        "fitted": back.fitted,
        "residuals": back.residuals,
        "simulate": back.simulate,
        "augment": back.augment,
        "predict": back.predict,
        "refit": lambda: back.refit(np.zeros(240)),
        "save": lambda: back.save(tmp_path / "again.mlv", data=True),
    }
    for name, verb in verbs.items():
        with pytest.raises(ml.DataError, match="saved without its data.*data=True"):
            verb()
        assert name
    assert not (tmp_path / "again.mlv").exists()
    assert "y ~ x" in repr(back) and "rows" in repr(back.model)


def test_saving_what_was_read_gives_the_same_file(tmp_path: Path) -> None:
    for data in (False, True):
        back = round_trip(fitted("nested"), tmp_path / "one.mlv", data)
        back.save(tmp_path / "two.mlv", data)
        assert (tmp_path / "one.mlv").read_bytes() == (tmp_path / "two.mlv").read_bytes()


def test_the_file_is_small_and_holds_no_pickle(tmp_path: Path) -> None:
    ml.lmer("Reaction ~ Days + (Days | Subject)", ml.load("sleepstudy")).save(tmp_path / "fit.mlv")
    assert (tmp_path / "fit.mlv").stat().st_size < 6000
    arrays = np.load(tmp_path / "fit.mlv", allow_pickle=False)
    assert arrays["beta"].shape == (2,)
    header = json.loads(zipfile.ZipFile(tmp_path / "fit.mlv").read(archive.HEADER))
    assert (header["format"], header["version"], header["library"]) == (archive.FORMAT, 1, ml.__version__)


LEVELS: dict[str, list[Any]] = {
    "str": ["a", "Ä", "", "1"],
    "int": [-5, 0, 3, 2**40],
    "bool": [False, True],
    "whole float": [1.0, 2.0, 7.0],
    "float categories": [0.5, 1.25, 3.0],
    "timestamp": [pd.Timestamp("2020-01-01"), pd.Timestamp("2021-06-01 12:34:56.789"), pd.Timestamp("2022-01-01")],
    "time zone": list(pd.to_datetime(["2020-01-01", "2021-06-01"]).tz_localize("Europe/Berlin")),
    "date": [pd.Timestamp("2020-01-01").date(), pd.Timestamp("2021-01-01").date()],
    "duration": list(pd.to_timedelta(["1 days", "36 hours"])),
    "interval": list(pd.cut(pd.Series([0.0, 10.0]), 4).cat.categories),
    "period": list(pd.period_range("2020Q1", periods=3, freq="Q")),
}


@pytest.mark.parametrize("kind", LEVELS)
def test_levels_keep_their_type(kind: str, tmp_path: Path) -> None:
    labels, rng = LEVELS[kind], np.random.default_rng(5)
    codes = np.arange(60) % len(labels)
    column: Any = pd.Series([labels[code] for code in codes])
    if kind in ("float categories", "interval", "period"):
        column = pd.Categorical.from_codes(codes.tolist(), pd.Index(labels))
    data = pd.DataFrame({"g": column, "h": np.repeat(np.arange(6), 10)})
    data["y"] = rng.normal(size=len(labels))[codes] * 3 + rng.normal(size=60)
    fit = ml.lmer("y ~ 1 + (1 | g) + (1 | h)", data)
    back = round_trip(fit, tmp_path / "fit.mlv", data=True)
    mine, theirs = fit.design.terms[0].levels.tolist(), back.design.terms[0].levels.tolist()
    assert mine == theirs and [type(a) for a in mine] == [type(a) for a in theirs]
    pd.testing.assert_frame_equal(fit.predict(data), back.predict(data), check_exact=True)
    assert back.augment()["g"].tolist() == fit.augment()["g"].tolist()


def test_levels_that_cannot_be_held_are_refused_before_writing(tmp_path: Path) -> None:
    labels = [complex(1, 2), complex(2, 1), complex(0, 3)]
    data = pd.DataFrame({"g": pd.Categorical.from_codes([0, 1, 2] * 20, pd.Index(labels, dtype=object))})
    data["y"] = np.random.default_rng(1).normal(size=60)
    with pytest.raises(ml.DataError, match="levels of 'g' are of type complex.*convert them to text"):
        ml.lmer("y ~ 1 + (1 | g)", data).save(tmp_path / "fit.mlv")
    assert not list(tmp_path.iterdir())


def test_other_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    polars = pytest.importorskip("polars")
    data = polars.DataFrame({name: column.to_numpy() for name, column in frame().dropna().items() if name != "arm"})
    ml.lmer("y ~ x + (x | school)", data).save(tmp_path / "fit.mlv", data=True)
    back = ml.read(tmp_path / "fit.mlv")
    assert isinstance(back.fixef(), polars.DataFrame) and isinstance(back.augment(), polars.DataFrame)
    monkeypatch.setattr(storage, "find_spec", lambda name: None)
    assert isinstance(ml.read(tmp_path / "fit.mlv").fixef(), pd.DataFrame)


# -- writing ---------------------------------------------------------------------------------------


def test_a_failed_save_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "fit.mlv"
    fitted("slope").save(path)
    before = path.read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(ml.FileError, match="cannot write .*No space left"):
        fitted("slope").save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_an_overwritten_file_keeps_mode_and_link(tmp_path: Path) -> None:
    path, link = tmp_path / "fit.mlv", tmp_path / "link.mlv"
    path.write_text("old")
    path.chmod(0o640)
    link.symlink_to(path)
    fitted("slope").save(str(link))
    assert link.is_symlink() and stat.S_IMODE(path.stat().st_mode) == 0o640
    assert_equal(fitted("slope"), ml.read(link))


def test_where_a_file_cannot_be_written(tmp_path: Path) -> None:
    for path, words in ((tmp_path, "it is a directory"), (tmp_path / "no" / "fit.mlv", "No such file or directory")):
        with pytest.raises(ml.FileError, match=f"cannot write .*{words}"):
            fitted("slope").save(path)
    with pytest.raises(ml.FileError, match="empty"):
        fitted("slope").save("")
    with pytest.raises(ml.OptionError, match="path"):
        fitted("slope").save(3)  # type: ignore[arg-type]
    with pytest.raises(ml.OptionError, match="data must be True or False"):
        fitted("slope").save(tmp_path / "fit.mlv", data="yes")  # type: ignore[arg-type]


# -- files that are not ours, or no longer ---------------------------------------------------------


def refused(path: Path, words: str = "") -> None:
    with pytest.raises(ml.FileError, match=words) as caught:
        ml.read(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@cache
def saved(data: bool = True) -> bytes:
    stream = io.BytesIO()
    header, arrays = storage._pack(fitted("nested"), data)
    path = Path(tempfile.gettempdir()) / f"multilevel-{os.getpid()}.mlv"
    archive.write(path, header, arrays)
    stream.write(path.read_bytes())
    path.unlink()
    return stream.getvalue()


def test_missing_and_unreadable(tmp_path: Path) -> None:
    refused(tmp_path / "no.mlv", "there is no file")
    refused(tmp_path, "it is a directory")
    refused(tmp_path / "no.mlv" / "fit.mlv")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "no ordinary file")
    (tmp_path / "empty.mlv").touch()
    refused(tmp_path / "empty.mlv", "is empty")
    (tmp_path / "closed.mlv").write_bytes(saved())
    (tmp_path / "closed.mlv").chmod(0)
    if os.geteuid():
        refused(tmp_path / "closed.mlv", "Permission denied")


def test_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "foreign.mlv"
    np.savez(path.with_suffix(".npz"), a=np.arange(3))
    for content in (path.with_suffix(".npz").read_bytes(), b"x,y\n1,2\n", b"PK", b"PK\x03\x04", b"\x80\x04}."):
        path.write_bytes(content)
        refused(path, "is no fit or posterior saved by multilevel; a fit is saved with fit.save")


def rewritten(path: Path, change: Any) -> None:
    """A file with honest checksums, after `change(header, arrays)`."""
    path.write_bytes(saved())
    with open(path, "rb") as file:
        header, arrays = archive.read(file)
    change(header, arrays)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr(archive.HEADER, json.dumps(header))
        for name, array in arrays.items():
            stream = io.BytesIO()
            np.lib.format.write_array(stream, np.asarray(array), version=(1, 0))
            out.writestr(f"{name}.npy", stream.getvalue())


def test_a_newer_version_says_what_to_do(tmp_path: Path) -> None:
    rewritten(tmp_path / "new.mlv", lambda header, _: header.update(version=7, library="9.1"))
    refused(tmp_path / "new.mlv", r"newer multilevel \(9.1, format 7\).*upgrade")
    for version in (0, -1, "1", None, True, 1.5, [1]):
        rewritten(tmp_path / "odd.mlv", lambda header, _, version=version: header.update(version=version))
        refused(tmp_path / "odd.mlv", "its version is no number")


def test_an_array_of_a_wrong_shape(tmp_path: Path) -> None:
    path = tmp_path / "fit.mlv"
    with zipfile.ZipFile(io.BytesIO(saved())) as file:
        names = [name.removesuffix(".npy") for name in file.namelist() if name.endswith(".npy")]
    for name in names:
        for how in (lambda a: a[:-1], lambda a: a[None], lambda a: a.astype("<f4")):
            rewritten(path, lambda _, arrays, name=name, how=how: arrays.update({name: how(arrays[name])}))
            refused(path, "damaged or incomplete")
        rewritten(path, lambda _, arrays, name=name: arrays.pop(name))
        refused(path, "damaged or incomplete")


def paths(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where every entry of a JSON value stands."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(path for key, one in inner for path in paths(one, (*here, key)))]


def replaced(header: dict[str, Any], path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        header = header[key]  # type: ignore[assignment]
    header[path[-1]] = value


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([10**30, 2**31, 2**63, -1, 1e308, "", "O", "x", [], {}]),
    st.sampled_from([float("nan"), float("inf"), [[]], {"array": [1], "shape": [9], "dtype": "<U999999999"}]),
)


@QUICK
@given(data=st.data())
def test_any_change_of_the_header_is_refused_or_harmless(data: st.DataObject, tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(saved())) as file:
        where = paths(json.loads(file.read(archive.HEADER)))[1:]
    path, value = data.draw(st.sampled_from(where)), data.draw(ODD)
    file_path = tmp_path / "fit.mlv"
    rewritten(file_path, lambda header, _: replaced(header, path, value))
    try:
        back = ml.read(file_path)
    except ml.FileError:
        return
    assert back.nobs == fitted("nested").nobs  # a text or a number that nothing else depends on


@QUICK
@given(content=st.binary(max_size=400))
def test_random_bytes(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "fit.mlv"
    for prefix in (b"", saved()[: 30 + len(archive.HEADER)]):
        path.write_bytes(prefix + content)
        refused(path)


@QUICK
@given(share=st.floats(0, 1, exclude_max=True))
def test_truncated(share: float, tmp_path: Path) -> None:
    path = tmp_path / "fit.mlv"
    path.write_bytes(saved()[: int(share * len(saved()))])
    refused(path)


@QUICK
@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=4))
def test_flipped_bits(flips: list[tuple[float, int]], tmp_path: Path) -> None:
    content = bytearray(saved())
    for share, mask in flips:
        content[int(share * len(content))] ^= mask
    path = tmp_path / "fit.mlv"
    path.write_bytes(content)
    try:
        back = ml.read(path)
    except ml.FileError:
        return
    assert_equal(fitted("nested"), back)


def test_every_byte_of_the_directory_may_be_wrong(tmp_path: Path) -> None:
    content, path = saved(), tmp_path / "fit.mlv"
    for at in [*range(80), *range(len(content) - 200, len(content))]:
        wrong = bytearray(content)
        wrong[at] ^= 0xFF
        path.write_bytes(wrong)
        try:
            back = ml.read(path)
        except ml.FileError:
            continue
        assert np.array_equal(back.optimum.beta, fitted("nested").optimum.beta)


def test_a_lying_size_allocates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "fit.mlv"
    rewritten(path, lambda *_: None)
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": (2**50,)})
    with zipfile.ZipFile(io.BytesIO(saved())) as source, zipfile.ZipFile(path, "w") as out:
        for info in source.infolist():
            raw = b"\x93NUMPY\x01\x00" + stream.getvalue()[8:] if info.filename == "y.npy" else source.read(info)
            out.writestr(info.filename, raw)
    refused(path, "damaged or incomplete .*'y' has a wrong size")
    for field, value in (("n", 2**31 - 1), ("p", 2**31 - 1), ("levels", [2**31 - 1, 12]), ("k", [65536, 65536])):
        rewritten(path, lambda header, _, field=field, value=value: header["engine"].update({field: value}))
        refused(path, "damaged or incomplete")


def test_reading_while_another_thread_saves(tmp_path: Path) -> None:
    path, stop = tmp_path / "fit.mlv", threading.Event()
    fitted("slope").save(path)

    def save_again() -> None:
        while not stop.is_set():
            fitted("slope").save(path)

    writer = threading.Thread(target=save_again)
    writer.start()
    try:
        for _ in range(20):
            assert ml.read(path).sigma == fitted("slope").sigma
    finally:
        stop.set()
        writer.join()
