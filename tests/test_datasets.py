"""Bundled data: every set reads, with R's levels, the same in both libraries, and says where it is from."""

from __future__ import annotations

import builtins
import gzip
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd
import pytest

from multilevel.datasets import _index, datasets, load
from multilevel.errors import MultilevelError, OptionError

NAMES = list(_index())

PROMISED = {
    "math10",
    "sleepstudy",
    "penicillin",
    "pastes",
    "dyestuff",
    "dyestuff2",
    "oxboys",
    "orthodont",
    "machines",
    "cake",
    "radon",
    "eight_schools",
    "cbpp",
    "verbagg",
    "insteval",
}


def test_the_promised_sets_are_here_and_the_forbidden_are_not() -> None:
    assert set(NAMES) >= PROMISED
    assert not {"movielens", "rossmann", "amazon"} & {name.split("_")[0] for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_pandas_has_the_shape_and_types_of_the_index(name: str) -> None:
    frame = load(name)
    entry = _index()[name]
    assert list(frame.columns) == list(entry["columns"])
    assert len(frame) == entry["rows"]
    for column, kind in entry["columns"].items():
        if isinstance(kind, str):
            text = str(frame[column].dtype)
            assert text == {"int": "int64", "float": "float64"}.get(kind, text)
            assert kind != "str" or isinstance(frame[column].dropna().iloc[0], str)
            continue
        values = frame[column]
        assert isinstance(values.dtype, pd.CategoricalDtype)
        assert values.dtype.ordered == kind["ordered"]
        levels = values.cat.categories.tolist()
        assert all(isinstance(level, str) for level in levels)
        assert levels == (kind["levels"] if kind["levels"] != "numeric" else sorted(levels, key=int))
        assert sorted(values.dropna().unique().tolist()) == sorted(levels), "an unused level"


@pytest.mark.parametrize("name", NAMES)
def test_polars_holds_the_same_values(name: str) -> None:
    pl = pytest.importorskip("polars")
    here, there = load(name), load(name, as_="polars")
    assert isinstance(there, pl.DataFrame)
    assert there.columns == list(here.columns)
    for column in here.columns:
        if isinstance(here[column].dtype, pd.CategoricalDtype):
            assert there[column].dtype == pl.Enum(here[column].cat.categories.tolist())
            codes = there[column].to_physical().fill_null(-1).to_numpy().astype(np.int64)
            codes = np.where(there[column].is_null().to_numpy(), -1, codes)
            assert np.array_equal(codes, here[column].cat.codes.to_numpy())
        elif here[column].dtype.kind in "if":
            assert np.array_equal(
                there[column].cast(pl.Float64).fill_null(np.nan).to_numpy(),
                here[column].to_numpy(np.float64),
                equal_nan=True,
            )
        else:
            assert there[column].to_list() == here[column].tolist()


def test_levels_are_in_the_order_of_r() -> None:
    assert load("orthodont")["Sex"].cat.categories.tolist() == ["Male", "Female"]
    temperature = load("cake")["temperature"]
    assert temperature.cat.ordered
    assert temperature.cat.categories.tolist() == ["175", "185", "195", "205", "215", "225"]
    insteval = load("insteval")
    assert " ".join(insteval["dept"].cat.categories) == "15 5 10 12 6 7 4 8 9 14 1 3 11 2"
    assert insteval["d"].cat.categories[[0, 1, -1]].tolist() == ["1", "6", "2160"]
    assert (insteval["s"].nunique(), insteval["d"].nunique()) == (2972, 1128)
    assert load("sleepstudy")["Subject"].iloc[0] == "308"


def test_missing_fields_are_missing_and_nothing_else_is() -> None:
    missing = {name: int(load(name).isna().sum().sum()) for name in NAMES}
    assert {name: count for name, count in missing.items() if count} == {"dietox": 72, "radon": 41}


def test_numbers_are_read_exactly() -> None:
    raw = (resources.files("multilevel") / "data" / "radon.csv").read_text(encoding="utf-8").splitlines()
    where = raw[0].split(",").index("log_uranium")
    wanted = [float(line.split(",")[where]) for line in raw[1:]]
    assert load("radon")["log_uranium"].tolist() == wanted


def test_every_call_gives_a_new_frame() -> None:
    frame = load("dyestuff")
    frame.loc[:, "Yield"] = 0
    assert load("dyestuff")["Yield"].iloc[0] == 1545


@pytest.mark.parametrize("as_", ["pandas", "polars"])
def test_the_list_says_where_each_set_is_from(as_: Any) -> None:
    if as_ == "polars":
        pytest.importorskip("polars")
    listed = datasets(as_=as_)
    assert list(listed.columns) == ["name", "rows", "columns", "grouping", "description", "source", "licence"]
    assert listed["name"].to_list() == NAMES
    for column in ("grouping", "description", "source", "licence"):
        assert all(isinstance(text, str) and len(text) > 2 for text in listed[column].to_list())


def test_the_readme_names_every_file() -> None:
    folder = resources.files("multilevel") / "data"
    text = (folder / "README.md").read_text(encoding="utf-8")
    files = {entry.name for entry in folder.iterdir()} - {"README.md", "__pycache__"}
    assert files == {entry["file"] for entry in _index().values()} | {"index.json", "wordnet-licence.txt"}
    assert all(f"`{file}`" in text for file in files)


def test_the_files_stay_small() -> None:
    files = [entry for entry in (resources.files("multilevel") / "data").iterdir() if entry.is_file()]
    sizes = [len(entry.read_bytes()) for entry in files]
    assert max(sizes) < 500_000
    assert sum(sizes) < 1_200_000


def test_packed_files_unpack() -> None:
    folder = resources.files("multilevel") / "data"
    packed = [entry for entry in folder.iterdir() if entry.name.endswith(".gz")]
    assert {entry.name for entry in packed} == {"chem97.csv.gz", "insteval.csv.gz", "verbagg.csv.gz", "wordnet.csv.gz"}
    assert all(gzip.decompress(entry.read_bytes()).endswith(b"\n") for entry in packed)


@pytest.mark.parametrize(
    ("wrong", "hint"), [("sleepstdy", "sleepstudy"), ("Math10", "math10"), ("insteval ", "insteval")]
)
def test_an_unknown_name_offers_the_nearest(wrong: str, hint: str) -> None:
    with pytest.raises(OptionError, match=f"did you mean '{hint}'") as caught:
        load(wrong)
    assert repr(wrong) in str(caught.value)


@pytest.mark.parametrize("wrong", ["", "qqqq", "../data/cake", 7, None, ["cake"]])
def test_a_hopeless_name_lists_what_there_is(wrong: Any) -> None:
    with pytest.raises(OptionError, match="eight_schools"):
        load(wrong)


@pytest.mark.parametrize("function", [lambda as_: load("cake", as_=as_), lambda as_: datasets(as_=as_)])
@pytest.mark.parametrize("wrong", ["arrow", "Pandas", None, 3, ["pandas"]])
def test_an_unknown_library_is_refused(function: Any, wrong: Any) -> None:
    with pytest.raises(OptionError, match="'pandas' or 'polars'"):
        function(wrong)


def test_without_polars_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    true_import = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name == "polars":
            raise ImportError(name)
        return true_import(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MultilevelError, match="pip install polars"):
        load("cake", as_="polars")
    with pytest.raises(OptionError, match="pip install polars"):
        datasets(as_="polars")
    assert len(load("cake")) == 270
