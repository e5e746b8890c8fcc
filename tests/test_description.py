"""Description of grouped data: structure, sizes, holes, outliers, variances against loops by hand and R's ICC."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import multilevel as ml

R = json.loads((Path(__file__).parent / "golden_screening" / "screening.json").read_text())


@pytest.fixture(scope="module")
def math():
    return ml.load("math10")


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_nesting_and_crossing_are_found(library):
    pastes = ml.load("pastes", as_=library)
    found = ml.describe(pastes, ["batch", "sample"])
    assert [found.structure[name][0] for name in ("a", "relation", "b", "pairs")] == ["sample", "nested", "batch", 30]
    assert type(found.structure).__module__.startswith(library)
    again = ml.describe(pastes, ["batch", "cask"])
    assert again.structure["relation"][0] == "crossed"
    assert any("name it batch:cask" in one for one in again.sentences)
    written = ml.describe(pastes, ["batch", "batch:cask"])
    assert written.structure["relation"][0] == "nested"
    assert written.random == "(1 | batch) + (1 | batch:cask)"
    ml.Model(f"strength ~ 1 + {written.random}", pastes)  # can be used as it stands
    crossed = ml.describe(ml.load("penicillin", as_=library), ["plate", "sample"])
    assert [crossed.structure[name][0] for name in ("relation", "share", "lone")] == ["crossed", 1.0, 0.0]


def test_structure_of_made_data():
    city = np.repeat(np.arange(20), 5)
    data = {"city": city, "region": city // 4, "name": [f"c{one}" for one in city], "y": np.arange(100.0)}
    data["stray"] = data["region"].copy()
    data["stray"][0] = 4
    found = ml.describe(data, ["city", "region", "name", "stray"]).structure.set_index(["a", "b"])
    assert found.loc[("city", "region"), "relation"] == "nested"
    assert found.loc[("city", "name"), "relation"] == "same"
    assert found.loc[("city", "stray"), "relation"] == "crossed"
    assert found.loc[("city", "stray"), "lone"] == pytest.approx(19 / 20)
    text = " ".join(ml.describe(data, ["city", "stray"]).sentences)
    assert "city is almost nested in stray, but 5% of its levels" in text


def test_variances_are_those_of_the_analysis_of_variance(math):
    table = ml.describe(math, "schid").variance.set_index("column")
    by = math.groupby("schid")["math"]
    sizes, n, a = by.size(), len(math), 10
    within = (by.var(ddof=1) * (sizes - 1)).sum() / (n - a)
    among = (sizes * (by.mean() - math["math"].mean()) ** 2).sum() / (a - 1)
    between = (among - within) / ((n - (sizes**2).sum() / n) / (a - 1))
    assert table.loc["math", ["within", "between"]].tolist() == pytest.approx([within, between], rel=1e-10)
    assert table.loc["ratio", "within"] == 0
    assert table.loc["ratio", "icc"] == 1
    dye = ml.describe(ml.load("dyestuff"), "Batch").variance
    assert dye["icc"][0] == pytest.approx(R["icc"]["dyestuff"], rel=1e-6)  # balanced: REML's


def test_columns_and_the_level_they_vary_by(math):
    table = ml.describe(math.assign(one=5), "schid").columns.set_index("column")
    assert table.loc[["ratio", "public", "meanses"], "varies_by"].tolist() == ["schid"] * 3
    assert table.loc[["ses", "math"], "varies_by"].tolist() == ["row"] * 2
    assert table.loc["one", "varies_by"] == "nothing"
    made = {"a": [1, 1, 1, 1, 2, 2], "b": [1, 1, 2, 2, 3, 3], "x": list("uuvvww"), "z": list("kkkkmm")}
    columns = ml.describe(made, ["b", "a"]).columns
    assert dict(zip(columns["column"], columns["varies_by"], strict=True)) == {"x": "b", "z": "a"}


def test_outliers_by_group():
    rng = np.random.default_rng(5)
    g = np.repeat(["a", "b", "c"], [50, 40, 5])
    y = rng.uniform(-1, 1, 95) + np.repeat([0.0, 100.0, 50.0], [50, 40, 5])
    y[7], y[60], y[92] = 9.0, 91.0, 60.0
    flag = np.zeros(95)
    flag[3] = 1  # the rarer of two values is no outlier
    found = ml.describe({"y": y, "g": g, "flag": flag}, "g").outliers
    assert found["row"].tolist() == [7, 60, 92]
    assert found["sd_of"].tolist() == ["own", "own", "pooled"]
    own = y[:50]
    assert found["z"][0] == pytest.approx((9.0 - own.mean()) / own.std(ddof=1))
    within = sum(((y[g == one] - y[g == one].mean()) ** 2).sum() for one in "abc") / (95 - 3)
    assert found["z"][2] == pytest.approx((60.0 - y[90:].mean()) / np.sqrt(within * (1 - 1 / 5)))


def test_sizes_and_missing_values():
    y = [1.0, np.nan, 2, 3, 4, 5, 6]
    data = pd.DataFrame({"g": ["a", "a", "b", None, "c", "c", "c"], "y": y, "t": [None, *"abcdef"]})
    found = ml.describe(data, "g")
    assert found.groups.loc[0, ["levels", "min", "median", "max", "single_row", "missing"]].tolist() == [3, 1, 2.0, 3, 1, 1]
    assert found.columns.set_index("column")["missing"].to_dict() == {"y": 1, "t": 1}
    assert any(one.startswith("3 of 7 rows miss a value somewhere") for one in found.sentences)
    assert "So few levels of g" in str(found)
    assert found.random == "none"
    assert data["g"].isna().sum() == 1  # the input is not changed


def test_infinite_and_empty_columns_are_told():
    found = ml.describe({"y": [1.0, np.inf, 3, 4], "g": [1, 1, 2, 2], "d": [None] * 4}, "g")
    assert any(one.startswith("Infinite values") and one.endswith(": y.") for one in found.sentences)
    assert found.variance["n"].tolist() == [3, 0]
    assert np.isnan(found.variance["mean"][1])


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow", "dict"])
def test_description_prints_in_every_library(library):
    data = ml.load("pastes", as_="polars") if library in ("polars", "pyarrow") else ml.load("pastes")
    data = data.to_arrow() if library == "pyarrow" else {n: data[n] for n in data} if library == "dict" else data
    text = str(ml.describe(data, ["batch", "sample"]))
    assert "sample  batch  nested       30       300" in text
    assert "strength  batch   60" in text
    assert text in ml.describe(data, ["batch", "sample"])._repr_html_().replace("&lt;", "<")


@pytest.mark.parametrize(
    ("data", "groups", "options", "message"),
    [
        ({"g": [1, 1], "y": [1.0, 2]}, "h", {}, "no column 'h'"),
        ({"g": [1, 1], "y": [1.0, 2]}, [], {}, "groups are named"),
        ({"g": [1.5, 1], "y": [1.0, 2]}, "g", {}, "no factor"),
        ({"g": [None, None], "y": [1.0, 2]}, "g", {}, "missing in every row"),
        ({"g": [], "y": []}, "g", {}, "no rows"),
        ({"g": [1, 1], "y": [1.0, 2]}, "g", {"columns": "y"}, "list of names"),
        ({"g": [1, 1], "y": [1.0, 2]}, "g", {"columns": ["z"]}, "no column 'z'"),
        ({"g": [1, 1], "y": [[1], [2]]}, "g", {"columns": ["y"]}, "cannot be used"),
        ([1, 2], "g", {}, "must be a data frame"),
    ],
)
def test_describe_refuses(data, groups, options, message):
    with pytest.raises(ml.MultilevelError, match=message):
        ml.describe(data, groups, **options)
