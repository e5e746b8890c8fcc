"""Frames of any library, what columns hold, and factors."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multilevel.errors import ColumnError, DataError
from multilevel.frame import (
    Table,
    column_kind,
    factor,
    interaction,
    like,
    lookup,
    missing_mask,
    numbers,
    to_pandas,
)

COLUMNS: dict[str, list[Any]] = {
    "i": [3, 1, None, 3],
    "f": [0.5, None, 2.0, 1.0],
    "s": ["b", "a", None, "b"],
    "b": [True, None, False, True],
}


def frames() -> list[tuple[str, Any]]:
    out: list[tuple[str, Any]] = [("dict", COLUMNS), ("pandas", pd.DataFrame(COLUMNS))]
    try:
        import polars as pl

        out += [("polars", pl.DataFrame(COLUMNS)), ("polars", pl.LazyFrame(COLUMNS))]
        import pyarrow as pa

        out += [("pyarrow", pa.table(COLUMNS))]
    except ImportError:
        pass
    return out


@pytest.mark.parametrize(("kind", "data"), frames())
def test_every_library_gives_the_same_columns(kind: str, data: Any) -> None:
    table = Table(data)
    assert table.kind == kind
    assert table.names == ("i", "f", "s", "b")
    series = table.load(["i", "f", "s", "b"])
    assert table.n == 4
    for name, holes in zip("ifsb", (2, 1, 2, 1), strict=True):
        assert np.flatnonzero(missing_mask(series[name])).tolist() == [holes]
    np.testing.assert_array_equal(numbers(series["f"], "f"), [0.5, np.nan, 2, 1])
    np.testing.assert_array_equal(numbers(series["i"], "i"), [3, 1, np.nan, 3])
    np.testing.assert_array_equal(numbers(series["b"], "b"), [1, np.nan, 0, 1])
    for name, codes, levels in (
        ("i", [1, 0, -1, 1], [1, 3]),
        ("s", [1, 0, -1, 1], ["a", "b"]),
        ("b", [1, -1, 0, 1], [False, True]),
    ):
        got, labels = factor(series[name], name)
        assert got.dtype == np.int32
        assert got.tolist() == codes
        assert labels.tolist() == levels


@pytest.mark.parametrize(("kind", "data"), frames())
def test_like_gives_back_the_same_library(kind: str, data: Any) -> None:
    out = like(data, {"a": np.array([1.0, np.nan]), "s": np.array(["u", None], dtype=object)})
    expected = "pandas" if kind == "dict" else kind
    assert type(out).__module__.partition(".")[0] == expected
    assert list(to_pandas(out, ["a", "s"]).columns) == ["a", "s"]
    assert np.isnan(to_pandas(out, ["a"])["a"][1])


def test_polars_enum_and_categorical_and_dates() -> None:
    pl = pytest.importorskip("polars")
    data = pl.DataFrame(
        {
            "e": pl.Series(["lo", "hi", None], dtype=pl.Enum(["lo", "mid", "hi"])),
            "c": pl.Series(["z", "a", "z"], dtype=pl.Categorical),
            "d": [datetime.date(2020, 1, 2), None, datetime.date(2020, 1, 1)],
        }
    )
    series = Table(data).load(["e", "c", "d"])
    assert factor(series["e"], "e")[1].tolist() == ["lo", "hi"]
    assert factor(series["e"], "e")[0].tolist() == [0, 1, -1]
    assert factor(series["c"], "c")[1].tolist() == ["a", "z"]
    assert factor(series["d"], "d")[0].tolist() == [1, -1, 0]


def test_arrow_dictionary_keeps_its_order() -> None:
    pa = pytest.importorskip("pyarrow")
    data = pa.table({"d": pa.array(["b", "a", "b"]).dictionary_encode()})
    assert factor(Table(data).load(["d"])["d"], "d")[1].tolist() == ["b", "a"]


@pytest.mark.parametrize(
    ("values", "codes", "levels"),
    [
        ([5, 3, 5], [1, 0, 1], [3, 5]),
        ([10**12, -(10**12), 7], [2, 0, 1], [-(10**12), 7, 10**12]),
        ([2.0, np.nan, 1.0], [1, -1, 0], [1, 2]),
        (["b", None, "a"], [1, -1, 0], ["a", "b"]),
        ([True, False, True], [1, 0, 1], [False, True]),
        (pd.Categorical(["u", "w", None], ["w", "v", "u"]), [1, 0, -1], ["w", "u"]),
        (pd.Categorical([3, 1, 3], [3, 2, 1], ordered=True), [0, 1, 0], [3, 1]),
        (pd.array([1, None, 0], dtype="Int64"), [1, -1, 0], [0, 1]),
        (pd.array([True, None], dtype="boolean"), [0, -1], [True]),
        (pd.array(["x", None], dtype="string"), [0, -1], ["x"]),
        (
            pd.to_datetime(["2020-01-02", "2020-01-01"]),
            [1, 0],
            [pd.Timestamp("2020-01-01"), pd.Timestamp("2020-01-02")],
        ),
        ([Decimal("2"), Decimal("1")], [1, 0], [1, 2]),
        (np.array([2**63 + 5, 1], dtype=np.uint64), [1, 0], [1, 2**63 + 5]),
        ([None, None], [-1, -1], []),
    ],
)
def test_factors(values: Any, codes: list[int], levels: list[Any]) -> None:
    got, labels = factor(pd.Series(values), "g")
    assert got.dtype == np.int32
    assert got.tolist() == codes
    assert labels.tolist() == levels


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ([1.5, 2.0], "1.5"),
        ([np.inf, 2.0], "inf"),
        (["a", 1], "mixes types"),
        ([["a"], ["b"]], "list"),
        ([1j, 2j], "complex"),
    ],
)
def test_what_is_no_factor(values: Any, part: str) -> None:
    with pytest.raises(DataError, match=part) as caught:
        factor(pd.Series(values), "column7")
    assert "column7" in str(caught.value)


def test_kinds() -> None:
    kinds = {
        "number": [1, 2],
        "bool": [True, False],
        "text": ["a"],
        "date": pd.to_datetime(["2020-01-01"]),
        "category": pd.Categorical(["a"]),
        "ordered": pd.Categorical(["a"], ordered=True),
    }
    for kind, values in kinds.items():
        assert column_kind(pd.Series(values), "x") == kind


@pytest.mark.parametrize(
    ("values", "part"),
    [
        (["1", "2"], "astype"),
        (["1", "two"], "'two' in row 1"),
        (pd.Categorical(["lo", "hi"]), "'lo' in row 0"),
        (pd.to_datetime(["2020-01-01"]), "dates"),
    ],
)
def test_text_where_numbers_belong(values: Any, part: str) -> None:
    with pytest.raises(DataError, match=part):
        numbers(pd.Series(values), "x")


def test_unknown_columns_offer_the_nearest() -> None:
    data = pd.DataFrame({"Days": [1], "Subject": [2]})
    with pytest.raises(ColumnError, match="did you mean 'Days'"):
        Table(data).load(["days"])
    with pytest.raises(ColumnError, match="reset_index"):
        Table(data.set_index("Subject")).load(["Subject"])


@pytest.mark.parametrize("data", [3, None, "x.csv", [1, 2], np.zeros((2, 2)), object()])
def test_what_is_no_frame(data: Any) -> None:
    with pytest.raises(DataError, match="data frame"):
        Table(data)


def test_bad_tables() -> None:
    with pytest.raises(DataError, match="'x' stands more than once"):
        Table(pd.DataFrame([[1, 2]], columns=["x", "x"])).load(["x"])
    with pytest.raises(DataError, match="length"):
        Table({"a": [1, 2], "b": [1]}).load(["a", "b"])
    with pytest.raises(DataError, match="one-dimensional"):
        Table({"a": np.zeros((2, 2))}).load(["a"])
    with pytest.raises(DataError, match="one-dimensional"):
        Table({"a": 3}).load(["a"])
    with pytest.raises(DataError, match="header"):
        Table(pd.DataFrame(np.zeros((1, 2)), columns=pd.MultiIndex.from_tuples([("a", "b"), ("a", "c")])))


def test_nothing_is_copied_or_changed() -> None:
    data = pd.DataFrame({"x": np.arange(4.0), "g": [2, 2, 1, 1]})
    before = data.copy(deep=True)
    series = Table(data).load(["x", "g"])
    assert np.shares_memory(numbers(series["x"], "x"), data["x"].to_numpy())
    factor(series["g"], "g")
    pd.testing.assert_frame_equal(data, before)


CELLS = st.one_of(st.none(), st.integers(-50, 50))


@given(st.lists(CELLS, min_size=1, max_size=40), st.sampled_from([1, 10**9]))
@settings(max_examples=100, deadline=None)
def test_levels_and_codes_rebuild_the_column(cells: list[int | None], spread: int) -> None:
    values = [None if cell is None else cell * spread for cell in cells]
    for column in (
        pd.Series(values, dtype="Int64"),
        pd.Series(values, dtype=object),
        pd.Series([None if v is None else str(v) for v in values]),
    ):
        codes, levels = factor(column, "g")
        assert list(levels) == sorted(levels)
        assert set(codes.tolist()) - {-1} == set(range(len(levels)))
        assert [None if code < 0 else str(levels[code]) for code in codes] == [
            None if v is None else str(v) for v in values
        ]


@given(st.lists(st.tuples(*[st.integers(-1, 4)] * 3), min_size=1, max_size=50))
@settings(max_examples=100, deadline=None)
def test_interactions(rows: list[tuple[int, int, int]]) -> None:
    codes = [np.array(column, dtype=np.int32) for column in zip(*rows, strict=True)]
    levels = [np.array(list(text), dtype=object) for text in ("ABCDE", "vwxyz", "12345")]
    out, labels = interaction(codes, levels)
    observed = sorted({row for row in rows if min(row) >= 0})
    assert labels.tolist() == [
        ":".join(level[code] for level, code in zip(levels, row, strict=True)) for row in observed
    ]
    assert out.tolist() == [-1 if min(row) < 0 else observed.index(row) for row in rows]


def test_interaction_of_many_levels_needs_no_table() -> None:
    a = np.arange(3000, dtype=np.int32)
    out, labels = interaction([a, a[::-1].copy(), a], [a, a, a])
    assert out.tolist() == list(range(3000))
    assert labels[0] == "0:2999:0"


def test_lookup() -> None:
    codes, unknown = lookup(pd.Series(["b", None, "z", "a", "z"]), "g", np.array(["a", "b"], dtype=object))
    assert codes.tolist() == [1, -1, -2, 0, -2]
    assert unknown.tolist() == ["z"]
    codes, unknown = lookup(pd.Series([3.0, 1.0]), "g", np.array([1, 3]))
    assert codes.tolist() == [1, 0]
    assert len(unknown) == 0
