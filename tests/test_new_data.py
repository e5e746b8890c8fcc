"""A design on new data: contrasts, splines, levels and groups remembered; saved and restored."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_designs import DATA, make

from multilevel.design_recipe import from_recipe, to_recipe
from multilevel.errors import ColumnError, DataError, FileError, FormulaError, MultilevelError, OptionError

# -- new data --------------------------------------------------------------------------------------

RICH = (
    "y ~ f*h + o + poly(z, 2) + scale(x) + center(z) + bs(z, df=5) + cr(x, df=3) + C(k, Sum) + C(I(x > 0)) "
    "+ log(z):f + offset(scale(z)) + (poly(z, 2) | g) + (0 + f || s) + (1 | h:f)"
)


def test_new_data_remember_everything() -> None:
    design = make(RICH)
    rows = [17, 3, 40]
    new = design.at(DATA.iloc[rows])
    np.testing.assert_allclose(new.X, design.X[rows], atol=1e-12)
    assert new.offset is not None
    assert design.offset is not None
    np.testing.assert_allclose(new.offset, design.offset[rows])
    assert [term.index for term in new.terms] == [0, 1, 2]
    for term, known in zip(new.terms, design.terms, strict=True):
        assert term.codes.tolist() == known.codes[rows].tolist()
        assert term.new_codes.tolist() == [-1] * 3
        if known.Z is not None:
            np.testing.assert_allclose(term.Z, known.Z[rows], atol=1e-12)


@pytest.mark.parametrize("row", [0, 17, 59])
def test_a_single_row(row: int) -> None:
    design = make(RICH)
    np.testing.assert_allclose(design.at(DATA.iloc[[row]]).X, design.X[[row]], atol=1e-12)


def test_a_saved_recipe_gives_the_same() -> None:
    design = make(RICH, contrasts={"f": "helmert", "h": np.array([[1.0], [-1.0]])})
    saved = json.loads(json.dumps(to_recipe(design)))
    assert saved == json.loads(json.dumps(design.recipe()))
    restored = from_recipe(saved)
    one, two = design.at(DATA), restored.at(DATA)
    np.testing.assert_array_equal(one.X, two.X)
    np.testing.assert_array_equal(one.offset, two.offset)
    for a, b in zip(one.terms, two.terms, strict=True):
        assert a.names == b.names
        np.testing.assert_array_equal(a.codes, b.codes)
        if a.Z is not None:
            np.testing.assert_array_equal(a.Z, b.Z)


@pytest.mark.parametrize(
    "values",
    [
        [1, 2, 3],
        [True, False, True],
        ["a", "b", "c"],
        pd.to_datetime(["2020-01-01", "2021-01-01", "2022-01-01T10:00"], format="ISO8601"),
        pd.Categorical(["lo", "hi", "lo"], ["lo", "hi"]),
    ],
)
def test_labels_of_any_kind_are_saved(values: Any) -> None:
    data = DATA.assign(
        g=np.tile(np.asarray(values), 20)
        if not isinstance(values, pd.Categorical)
        else pd.Categorical.from_codes(np.tile(values.codes, 20), values.categories)
    )
    design = make("y ~ x + (x | g) + (1 | g:h)", data)
    new = from_recipe(json.loads(json.dumps(design.recipe()))).at(data)
    for term, known in zip(new.terms, design.terms, strict=True):
        np.testing.assert_array_equal(term.codes, known.codes)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("fixed",), "1 + np.load('x')"),
        (("fixed",), "1 + I(().__class__)"),
        (("fixed",), 3),
        (("version",), 99),
        (("terms",), 5),
        (("terms", 0, "side"), "1 + eval(x)"),
        (("state",), {"odd": 1}),
        (("infos", "f", "contrast", "kind"), "nasty"),
        (("kept",), ["a"]),
        (("offsets",), ["open('x')"]),
    ],
)
def test_a_damaged_recipe_is_refused(path: tuple[Any, ...], value: Any) -> None:
    saved = make(RICH).recipe()
    spot: Any = saved
    for key in path[:-1]:
        spot = spot[key]
    spot[path[-1]] = value
    with pytest.raises(FileError):
        from_recipe(saved)


def test_groups_asked_for() -> None:
    design = make("y ~ x + (x | g) + (z | h:f)")
    new = DATA[["x"]].iloc[:2]
    assert design.at(new, groups=None).terms == ()
    (term,) = design.at(DATA[["x", "g"]], groups=["g"]).terms
    assert term.group == "g"
    (term,) = design.at(DATA[["x", "z", "h", "f"]], groups="h:f").terms
    assert term.index == 1
    with pytest.raises(ColumnError, match="'g'"):
        design.at(DATA.drop(columns="g"))
    with pytest.raises(OptionError, match="'G'"):
        design.at(new, groups=["G"])


def test_unseen_and_missing_groups() -> None:
    design = make("y ~ x + (1 | g) + (x | h:f)")
    new = pd.DataFrame(
        {
            "x": [1.0, 2, 3, 4, 5],
            "g": ["g1", "new", None, "other", "new"],
            "h": ["u", "v", "w", "w", None],
            "f": ["a", "zz", "a", "a", "b"],
        }
    )
    first, second = design.at(new).terms
    assert first.codes.tolist() == [1, -2, -1, -2, -2]
    assert first.new_levels[first.new_codes[[1, 3, 4]]].tolist() == ["new", "other", "new"]
    assert second.codes.tolist() == [0, -2, -2, -2, -1]
    assert second.new_levels[second.new_codes[[1, 2, 3]]].tolist() == ["v:zz", "w:a", "w:a"]
    assert second.new_codes[2] == second.new_codes[3] != second.new_codes[1]


def test_a_colon_in_a_label_confuses_nothing() -> None:
    data = DATA.assign(a=np.where(DATA["h"] == "u", "p:q", "p"), b=np.where(DATA["f"] == "a", "r", "q:r"))
    design = make("y ~ x + (1 | a:b)", data)
    assert len(design.terms[0].levels) == 4
    np.testing.assert_array_equal(design.at(data).terms[0].codes, design.terms[0].codes)


def test_an_unseen_fixed_level_is_an_error() -> None:
    design = make("y ~ f + C(k) + (1 | g)")
    with pytest.raises(DataError) as caught:
        design.at(DATA.iloc[:3].assign(f=["a", "b", "zz"]))
    for part in ("'f'", "'zz'", "row 2", "'a', 'b', 'c'"):
        assert part in str(caught.value)
    with pytest.raises(DataError, match="'7'"):
        design.at(DATA.iloc[:3].assign(k=[1, 2, 7]))
    with pytest.raises(ColumnError, match="'f'"):
        design.at(DATA.drop(columns="f"))
    with pytest.raises(DataError, match="text"):
        make("y ~ x + (1 | g)").at(DATA.iloc[:2].assign(x=["a", "b"]))
    with pytest.raises(DataError, match="convert"):
        make("y ~ x + (1 | s)").at(DATA.iloc[:2].assign(s=["0", "1"]))
    with pytest.raises(DataError, match="extrapolation"):
        make("y ~ bs(x, df=4) + (1 | g)").at(DATA.iloc[:2].assign(x=[0.0, 99]))


def test_missing_values_in_new_data() -> None:
    design = make("y ~ x*f + (x | g)")
    new = DATA.drop(columns="y").iloc[:4].reset_index(drop=True)
    new.loc[1, "x"] = np.nan
    new.loc[2, "f"] = None
    made = design.at(new)
    assert made.complete.tolist() == [True, False, False, True]
    np.testing.assert_array_equal(made.X[[0, 3]], design.X[[0, 3]])
    assert np.isnan(made.X[[1, 2]]).all()
    assert made.terms[0].Z is not None
    assert np.isnan(made.terms[0].Z[1]).all()
    nothing = design.at(new.assign(x=np.nan))
    assert np.isnan(nothing.X).all()
    assert nothing.X.shape == (4, 6)
    assert design.at(new.iloc[:0]).X.shape == (0, 6)


def test_new_data_in_other_libraries() -> None:
    pl = pytest.importorskip("polars")
    design = make("y ~ x*f + (x | g)")
    new = design.at(pl.DataFrame({"x": [0.5, None], "f": ["a", "b"], "g": ["g1", None]}))
    assert new.kind == "polars"
    assert new.complete.tolist() == [True, False]
    assert new.terms[0].codes.tolist() == [1, -1]


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from("uvw"), st.floats(-5, 5, width=32)),
        min_size=12,
        max_size=40,
    ),
    st.sampled_from(["f*h", "f:h", "0 + f*x", "f/h", "h + f:x", "poly(x, 2):f", "C(f, Sum)*scale(x)", "f*h*x - x"]),
)
@settings(max_examples=60, deadline=None)
def test_any_part_of_the_data_gives_the_same_rows(cells: list[tuple[str, str, float]], side: str) -> None:
    data = pd.DataFrame(cells, columns=["f", "h", "x"]).assign(
        y=np.arange(len(cells)) ** 1.5, g=np.arange(len(cells)) % 3
    )
    try:
        design = make(f"y ~ {side} + (1 | g)", data)
    except DataError:  # too few different values, or nothing but one
        return
    assert np.linalg.matrix_rank(design.X / np.linalg.norm(design.X, axis=0), tol=1e-9) == design.X.shape[1]
    part = data.iloc[1::3]
    np.testing.assert_allclose(design.at(part).X, design.X[1::3], atol=1e-9)


def test_a_formula_error_of_a_bar_has_a_caret() -> None:
    with pytest.raises(FormulaError, match="\\^"):
        make("y ~ x + (0 | g)")


def test_columns_may_be_named_as_functions() -> None:
    data = DATA.rename(columns={"x": "scale", "z": "log", "f": "c", "k": "C", "h": "poly"})
    design = make(
        "y ~ scale + log(log) + scale(scale, center=True) + c + C(c, levels=c('b', 'a', 'c')):scale + C(C) + poly",
        data,
    )
    plain = make("y ~ x + log(z) + scale(x, center=True) + f + C(f, levels=c('b', 'a', 'c')):x + C(k) + h")
    np.testing.assert_array_equal(design.X, plain.X)
    assert design.names[:3] == ("Intercept", "scale", "log(log)")
    np.testing.assert_array_equal(design.at(data.iloc[3:9]).X, design.X[3:9])


@pytest.mark.parametrize(
    "side",
    [
        "c(x, x)",
        "I('a'):x",
        "I(None)",
        "offset(contr.sum)",
        "offset(poly(x, 2))",
        "poly(x, c(1, 2))",
        "C(f, c(1, 2))",
    ],
)
def test_what_gives_no_column(side: str) -> None:
    with pytest.raises(MultilevelError):
        make(f"y ~ x + {side} + (1 | g)")


def test_responses_are_one_column() -> None:
    for response in ("poly(y, 2)", "C(y)", "bs(y, df=4)", "c(y, y)"):
        with pytest.raises(DataError, match="response|cannot compute"):
            make(f"{response} ~ x + (1 | g)")
    np.testing.assert_allclose(make("scale(y) ~ x + (1 | g)").y.std(ddof=1), 1)
