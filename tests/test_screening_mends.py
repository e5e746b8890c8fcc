"""What a newcomer meets when screening: mistakes in their own terms, nothing dropped in silence, no empty picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import multilevel as ml


def schools() -> pd.DataFrame:
    return ml.load("math10")


def test_arguments_in_another_order_are_explained() -> None:
    data = schools()
    for given in (data, data["math"], data["math"].to_numpy(), ml.load("math10", "polars")):
        with pytest.raises(ml.OptionError, match=r"icc\('math', 'school', data\); got a \w+$"):
            ml.icc(given, "schid", data)  # type: ignore[arg-type]
    with pytest.raises(ml.OptionError, match="groups are named.*got a DataFrame$"):
        ml.describe(data, data[["schid"]].set_axis([0], axis=1))
    for source in (data, {"a": [1], "b": [2]}, ml.load("math10", "polars")):
        with pytest.raises(ml.OptionError, match="data come second"):
            ml.vif(source)
    with pytest.raises(ml.OptionError, match=r"Model\(formula, data\)"):
        ml.random_slope_check("math ~ homework + (1 | schid)")
    model = ml.Model("math ~ homework + (1 | schid)", data)
    for slope in (["homework"], 3, {"a": 1}):
        with pytest.raises(ml.OptionError, match="slope is the name of one term"):
            ml.random_slope_check(model, slope)  # type: ignore[arg-type]


def test_zeros_and_ones_are_told_of() -> None:
    data = schools()
    with pytest.warns(ml.MultilevelWarning, match="'white' is 0 or 1.*family='binomial'"):
        table = ml.icc("white", "schid", data)
    levels = [one["white"].to_numpy(float) for _, one in data.groupby("schid")]
    assert 0.5 < table["icc"][0] < 0.7 and len(levels) == table["groups"][0]


@pytest.mark.filterwarnings("error")
def test_other_responses_are_not() -> None:
    ml.icc("math", "schid", schools())
    ml.icc("public", "schid", schools())  # constant within schools: its ICC is one


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_vif_tells_of_rows_left_out(library: str) -> None:
    data = schools().astype({"homework": float})
    data.loc[[3, 8], "homework"] = np.nan
    given: Any = data
    if library == "polars":
        given = pytest.importorskip("polars").from_pandas(data)
    for source in ("math ~ homework + ses", ["homework", "ses"]):
        with pytest.warns(ml.MissingRowsWarning, match="2 of 260 rows were left out"):
            found = ml.vif(source, given)
        r = np.corrcoef(data.dropna()["homework"], data.dropna()["ses"])[0, 1]
        np.testing.assert_allclose(found["vif"], 1 / (1 - r**2), rtol=1e-10)


def test_few_values_have_no_outliers() -> None:
    """One 5 among ones is far from the mean in sds, and still a rating; one 9 among six values is told."""
    g = np.repeat([0, 1], 60)
    rating = np.where(np.arange(120) == 7, 5, 1 + np.arange(120) % 2)
    count = np.where(np.arange(120) == 7, 60, np.arange(120) % 6)
    found = ml.describe({"g": g, "rating": rating, "count": count}, "g").outliers
    assert found["column"].tolist() == ["count"] and found["row"].tolist() == [7]


def test_a_single_level_and_a_column_without_values() -> None:
    data = schools().assign(one=1, empty=np.nan)
    sentences = " ".join(ml.describe(data, "one", ["math", "empty"]).sentences)
    assert "A single level of one has none to be compared with" in sentences and "fixed effect" not in sentences
    assert "Missing in every row, so that no model can use them: empty." in sentences
    assert "enter it as a fixed effect" in " ".join(ml.describe(data, "public", ["math"]).sentences)


def test_the_plot_where_no_group_has_a_slope_of_its_own() -> None:
    """One row for each period and herd: only the model's own slopes can be drawn, and they are."""
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("Agg")
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    check = ml.random_slope_check(ml.Model(formula, ml.load("cbpp"), family="binomial"))
    slopes = check.slopes()
    assert slopes["own"].isna().all() and slopes["partial"].notna().all()
    axes = check.plot()
    for ax, (_, own) in zip(axes, slopes.groupby("term", sort=False), strict=True):
        drawn = next(line for line in ax.get_lines() if "partially" in str(line.get_label()))
        np.testing.assert_allclose(drawn.get_xdata(), np.sort(own["partial"]), rtol=1e-12)
        assert ax.get_title() == "no level's rows give a slope of its own"
        low, high = ax.get_xlim()
        assert low < own["partial"].min() and own["partial"].max() < high
        assert len(ax.get_yticklabels()) == 15
    plt.close("all")
