"""Designs: matrices, codings, rows, refusals, new data, saving."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multilevel.contrasts import helmert_matrix, poly_matrix, sum_matrix
from multilevel.design import Design, build
from multilevel.design_recipe import from_recipe, to_recipe
from multilevel.errors import ColumnError, DataError, FileError, FormulaError, MultilevelError, OptionError
from multilevel.formula import parse
from multilevel.rank import dependent_columns


def frame(n: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "y": rng.normal(10, 1, n),
            "x": rng.normal(size=n),
            "z": rng.uniform(1, 5, n),
            "k": np.arange(n) % 4,
            "f": np.array(["a", "b", "c"])[np.arange(n) % 3],
            "h": np.array(["u", "v"])[(np.arange(n) // 3) % 2],
            "o": pd.Categorical(
                np.array(["lo", "mid", "hi"])[(np.arange(n) // 2) % 3], ["lo", "mid", "hi"], ordered=True
            ),
            "g": np.repeat([f"g{i}" for i in range(n // 6)], 6),
            "s": np.arange(n) % 6,
            "w": rng.uniform(0.5, 2, n),
        }
    )


DATA = frame()


def make(text: str, data: Any = DATA, **options: Any) -> Design:
    return build(parse(text), data, **options)


def test_sleepstudy_shape() -> None:
    design = make("y ~ x + (x | g)")
    assert design.names == ("Intercept", "x") == design.all_names
    np.testing.assert_array_equal(design.X, np.column_stack([np.ones(60), DATA["x"]]))
    np.testing.assert_array_equal(design.y, DATA["y"])
    (term,) = design.terms
    assert (term.group, term.names, term.structure, term.columns) == ("g", ("Intercept", "x"), "us", ("g",))
    assert term.Z is design.X
    assert term.codes.dtype == np.int32
    assert term.levels[term.codes].tolist() == DATA["g"].tolist()
    assert design.X.flags.c_contiguous
    assert design.rows.tolist() == list(range(60))
    assert (design.n_input, design.kind, design.messages, design.weights, design.offset) == (
        60,
        "pandas",
        (),
        None,
        None,
    )


def test_an_intercept_has_no_Z() -> None:
    for text in ("y ~ x + (1 | g)", "y ~ 1 + (1 | g)"):
        (term,) = make(text).terms
        assert term.Z is None
        assert term.names == ("Intercept",)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("y ~ f", ["Intercept", "f[T.b]", "f[T.c]"]),
        ("y ~ 0 + f", ["f[a]", "f[b]", "f[c]"]),
        ("y ~ o", ["Intercept", "o[.L]", "o[.Q]"]),
        ("y ~ C(f, Sum)", ["Intercept", "C(f, Sum)[S.a]", "C(f, Sum)[S.b]"]),
        ("y ~ C(f, contr.helmert)", ["Intercept", "C(f, contr.helmert)[H.b]", "C(f, contr.helmert)[H.c]"]),
        ("y ~ C(f, Treatment('b'))", ["Intercept", "C(f, Treatment('b'))[T.a]", "C(f, Treatment('b'))[T.c]"]),
        ("y ~ factor(k)", ["Intercept", "factor(k)[T.1]", "factor(k)[T.2]", "factor(k)[T.3]"]),
        ("y ~ poly(x, 2)", ["Intercept", "poly(x, 2)[1]", "poly(x, 2)[2]"]),
        ("y ~ x*h", ["Intercept", "x", "h[T.v]", "x:h[T.v]"]),
        ("y ~ f:h", ["Intercept", "h[T.v]", "f[T.b]:h[u]", "f[T.c]:h[u]", "f[T.b]:h[v]", "f[T.c]:h[v]"]),
        ("y ~ I(x^2) + x^2", ["Intercept", "I(x ** 2)", "x"]),
        ("y ~ 1", ["Intercept"]),
    ],
)
def test_names(text: str, names: list[str]) -> None:
    assert list(make(f"{text} + (1 | g)").names) == names


def test_power_means_power_and_numpy_functions_work() -> None:
    design = make(
        "log(z) ~ 0 + I(x^2) + sqrt(z) + expm1(x) + I(-x^3) + np.cos(z) + abs(x) + log1p(z) + (1 | g)"
    )
    x, z = DATA["x"], DATA["z"]
    np.testing.assert_allclose(
        design.X, np.column_stack([x**2, np.sqrt(z), np.expm1(x), -(x**3), np.cos(z), abs(x), np.log1p(z)])
    )
    np.testing.assert_allclose(design.y, np.log(z))


def test_contrast_matrices_are_those_of_R() -> None:
    a, b = 0.5**0.5, 6**-0.5
    np.testing.assert_allclose(poly_matrix(3), [[-a, b], [0, -2 * b], [a, b]], atol=1e-15)
    np.testing.assert_allclose(
        poly_matrix(4),
        np.array([[-3, 5, -1], [-1, -5, 3], [1, -5, -3], [3, 5, 1]]) / [20**0.5, 10, 20**0.5],
        atol=1e-14,
    )
    np.testing.assert_array_equal(sum_matrix(3), [[1, 0], [0, 1], [-1, -1]])
    np.testing.assert_array_equal(helmert_matrix(4), [[-1, -1, -1], [1, -1, -1], [0, 2, -1], [0, 0, 3]])
    wide = poly_matrix(40)
    np.testing.assert_allclose(wide.T @ wide, np.eye(39), atol=1e-12)


def test_poly_is_that_of_R() -> None:
    data = pd.DataFrame({"y": [1.0, 3, 2, 5, 4] * 2, "x": [1.0, 2, 4, 7, 11] * 2, "g": [1] * 5 + [2] * 5})
    X = make("y ~ 0 + poly(x, 2) + (1 | g)", data).X * np.sqrt(2)
    np.testing.assert_allclose(
        X[:5, 0],
        [-0.492365963917331, -0.369274472937998, -0.123091490979333, 0.246182981958665, 0.738548945875996],
    )
    np.testing.assert_allclose(
        X[:5, 1],
        [
            0.4759972968131507,
            0.0793328828021918,
            -0.4495530025457534,
            -0.5817744738827395,
            0.4759972968131506,
        ],
    )


@pytest.mark.parametrize(
    ("kind", "matrix"),
    [
        ("sum", sum_matrix(3)),
        ("helmert", helmert_matrix(3)),
        ("poly", poly_matrix(3)),
        ("contr.sum", sum_matrix(3)),
        (np.array([[1.0, 0], [-1, 1], [0, -1]]), None),
    ],
)
def test_contrasts_apply_to_X_and_Z(kind: Any, matrix: Any) -> None:
    matrix = kind if matrix is None else matrix
    design = make("y ~ f + (f | g) + (f || s)", contrasts={"f": kind})
    expected = np.column_stack([np.ones(60), matrix[DATA["f"].map({"a": 0, "b": 1, "c": 2})]])
    np.testing.assert_allclose(design.X, expected)
    for term in design.terms:
        np.testing.assert_allclose(term.Z, expected)
    assert [term.structure for term in design.terms] == ["us", "diag"]


def test_full_dummies_inside_a_bar() -> None:
    design = make("y ~ f + (0 + f | g) + (f | s)")
    assert design.terms[0].names == ("f[a]", "f[b]", "f[c]")
    np.testing.assert_array_equal(design.terms[0].Z, pd.get_dummies(DATA["f"]).to_numpy(float))
    assert design.terms[1].Z is design.X


def test_nested_and_crossed_groups() -> None:
    design = make("y ~ 1 + (1 | h/f) + (x | g)")
    assert [term.group for term in design.terms] == ["h", "h:f", "g"]
    nested = design.terms[1]
    assert nested.levels.tolist() == ["u:a", "u:b", "u:c", "v:a", "v:b", "v:c"]
    assert nested.columns == ("h", "f")
    assert nested.levels[nested.codes].tolist() == (DATA["h"] + ":" + DATA["f"]).tolist()


def test_levels_fix_the_order() -> None:
    design = make(
        "y ~ f + (1 | g)", levels={"f": ["c", "a", "b", "unused"], "g": [f"g{i}" for i in range(9, -1, -1)]}
    )
    assert design.names == ("Intercept", "f[T.a]", "f[T.b]")
    assert design.terms[0].levels[0] == "g9"
    assert design.terms[0].levels[design.terms[0].codes].tolist() == DATA["g"].tolist()
    assert make("y ~ k + (1 | g)", levels={"k": [3, 2, 1, 0]}).names == (
        "Intercept",
        "k[T.2]",
        "k[T.1]",
        "k[T.0]",
    )
    with pytest.raises(DataError, match="'c'"):
        make("y ~ f + (1 | g)", levels={"f": ["a", "b"]})
    with pytest.raises(ColumnError, match="did you mean 'f'"):
        make("y ~ f + (1 | g)", levels={"F": ["a", "b"]})
    with pytest.raises(OptionError, match="C\\(k\\)"):
        make("y ~ k + I(k^2) + (1 | g)", levels={"k": [3, 2, 1, 0]})


def test_a_column_may_be_number_and_factor() -> None:
    design = make("y ~ k + C(k) + (1 | g)")
    assert design.all_names == ("Intercept", "k", "C(k)[T.1]", "C(k)[T.2]", "C(k)[T.3]")
    assert design.dropped == ("C(k)[T.3]",)
    assert "C(k)[T.3]" in design.messages[0]


def test_dot_is_every_other_column() -> None:
    data = DATA[["y", "x", "f", "g", "w"]]
    assert make("y ~ . + (1 | g)", data, weights="w").names == ("Intercept", "x", "f[T.b]", "f[T.c]")
    assert make("y ~ . - x + (1 | g)", data, weights="w").names == ("Intercept", "f[T.b]", "f[T.c]")
    assert make("y ~ .^2 + (x | g)", data, weights="w").names[-1] == "x:f[T.c]"
    assert make("y ~ . + (1 | g)", data[["y", "g"]]).names == ("Intercept",)


def test_odd_names() -> None:
    data = DATA.rename(
        columns={"x": "my x", "z": "total.z", "f": "class", "g": "the group", "w": "my_x", "s": "my-x"}
    )
    design = make(
        "y ~ `my x` + log(total.z) + scale(`my x` * `my x`) + C(class) + total.z:class + scale(`my-x`) "
        "+ scale(my_x) + (total.z | `the group`)",
        data,
    )
    assert design.names[:4] == ("Intercept", "my x", "log(total.z)", "scale(`my x` * `my x`)")
    assert design.terms[0].group == "the group"
    state = np.random.get_state()[1].tolist()
    np.testing.assert_allclose(design.at(data.iloc[:3]).X, design.X[:3])
    assert np.random.get_state()[1].tolist() == state
    with pytest.raises(DataError, match="'log.`my x`.'"):
        make("y ~ log(`my x`) + (1 | g)", DATA.rename(columns={"x": "my x"}))


def test_a_level_may_be_called_anything() -> None:
    data = DATA.assign(f=DATA["f"].map({"a": "__x", "b": "{name}", "c": "T.[`"}))
    design = make("y ~ 0 + f + f:x + (1 | g)", data)
    assert design.names[:3] == ("f[T.[`]", "f[__x]", "f[{name}]")


# -- rank ------------------------------------------------------------------------------------------


def test_later_columns_are_dropped() -> None:
    data = DATA.assign(x2=2 * DATA["x"] + 1, zero=0.0)
    design = make("y ~ x + zero + x2 + z + (1 | g)", data)
    assert design.names == ("Intercept", "x", "z")
    assert design.dropped == ("zero", "x2")
    np.testing.assert_array_equal(design.X[:, 2], DATA["z"])
    np.testing.assert_allclose(design.at(data.iloc[:4]).X, design.X[:4])


def test_rank_rule() -> None:
    rng = np.random.default_rng(0)
    X = np.column_stack([np.ones(50), rng.normal(size=(50, 3))])
    near = X[:, 1] + 1e-5 * rng.normal(size=50)
    nearer = X[:, 1] + 1e-9 * rng.normal(size=50)
    assert dependent_columns(np.column_stack([X, near])) == set()
    assert dependent_columns(np.column_stack([X, nearer])) == {4}
    assert dependent_columns(np.column_stack([X, 1e12 * X[:, 1], 1e-12 * near])) == {4}
    assert dependent_columns(np.column_stack([X, 1e200 * near, np.zeros(50)])) == {5}
    assert dependent_columns(rng.normal(size=(3, 5))) == {3, 4}
    assert dependent_columns(np.empty((5, 0))) == set()
    year = 2000 + np.arange(50) % 10.0
    assert dependent_columns(np.column_stack([np.ones(50), year, year**2, year**3])) == {3}  # as lm() decides


# -- rows ------------------------------------------------------------------------------------------


def test_missing_rows() -> None:
    data = DATA.assign(unused=np.nan)
    data.loc[3, "x"] = np.nan
    data.loc[[3, 5], "f"] = None
    data.loc[7, "g"] = None
    before = data.copy(deep=True)
    design = make("y ~ x + f + (1 | g)", data)
    assert design.missing == {"x": 1, "f": 2, "g": 1}
    assert design.rows.tolist() == [i for i in range(60) if i not in (3, 5, 7)]
    assert design.n_input == 60
    assert design.messages == (
        "3 of 60 rows were left out because of missing values: 'x' in 1, 'f' in 2, 'g' in 1.",
    )
    np.testing.assert_array_equal(design.y, data["y"].to_numpy()[design.rows])
    assert design.terms[0].levels[design.terms[0].codes].tolist() == data["g"].iloc[design.rows].tolist()
    pd.testing.assert_frame_equal(data, before)
    with pytest.raises(DataError, match="first row 3"):
        make("y ~ x + f + (1 | g)", data, missing="raise")
    with pytest.raises(OptionError, match="'drop' or 'raise'"):
        make("y ~ x", data, missing="ignore")


def test_rows_in_messages_are_those_of_the_input() -> None:
    data = DATA.assign(x=DATA["x"].where(DATA.index > 9), z=["1"] * 20 + ["oops"] + ["2"] * 39).set_index("s")
    with pytest.raises(DataError, match="'oops' in row 20"):
        make("y ~ x + log(z) + (1 | g)", data)
    with pytest.raises(DataError, match="inf in row 30"):
        make("y ~ x + k + (1 | g)", data.assign(k=[0.0] * 30 + [np.inf] * 30))


def test_unused_levels_go_with_their_rows() -> None:
    data = DATA.assign(
        f=pd.Categorical(DATA["f"], ["c", "zzz", "b", "a"]), x=DATA["x"].where(DATA["f"] != "c")
    )
    assert make("y ~ x + f + (1 | g)", data).names == ("Intercept", "x", "f[T.a]")


def test_weights_and_offset() -> None:
    data = DATA.assign(w=DATA["w"].where(DATA.index != 4, 0.0))
    design = make("y ~ x + offset(log(z)) + (1 | g)", data, weights="w", offset="k")
    assert design.weights is not None
    assert design.offset is not None
    assert len(design.y) == 59
    assert "weight is zero" in design.messages[0]
    keep = data.index != 4
    np.testing.assert_array_equal(design.weights, data["w"][keep])
    np.testing.assert_allclose(design.offset, (np.log(data["z"]) + data["k"])[keep])
    np.testing.assert_allclose(design.at(data.iloc[:3]).offset, design.offset[:3])
    array = make("y ~ x + (1 | g)", data, weights=data["w"].to_numpy(), offset=np.arange(60.0))
    np.testing.assert_array_equal(array.weights, design.weights)
    with pytest.raises(DataError, match="offset"):
        array.at(data.iloc[:3])
    np.testing.assert_array_equal(array.at(data.iloc[:3], offset=[1, 2, 3]).offset, [1, 2, 3])
    np.testing.assert_array_equal(array.at(data.iloc[:3], offset="k").offset, [0, 1, 2])


def test_an_index_does_not_matter() -> None:
    shuffled = DATA.set_index(np.arange(60)[::-1] * 7)
    one, two = make("y ~ x*f + poly(z, 2) + (x | g)"), make("y ~ x*f + poly(z, 2) + (x | g)", shuffled)
    np.testing.assert_array_equal(one.X, two.X)
    with pytest.raises(DataError, match="index"):
        make("y ~ x", shuffled, weights=DATA["w"])


@pytest.mark.parametrize("library", ["dict", "polars", "lazy", "pyarrow"])
def test_libraries_agree(library: str) -> None:
    pl, pa = pytest.importorskip("polars"), pytest.importorskip("pyarrow")
    plain = DATA.drop(columns="o")
    columns = {name: plain[name].tolist() for name in plain}
    columns["x"][5] = None
    data = {
        "dict": lambda: columns,
        "polars": lambda: pl.DataFrame(columns),
        "lazy": lambda: pl.LazyFrame(columns),
        "pyarrow": lambda: pa.table(columns),
    }[library]()
    text = "y ~ x*f + factor(k) + poly(z, 2) + (x | g) + (1 | h:f)"
    one, two = make(text, pd.DataFrame(columns)), make(text, data)
    assert one.names == two.names
    assert one.missing == two.missing == {"x": 1}
    np.testing.assert_array_equal(one.X, two.X)
    for a, b in zip(one.terms, two.terms, strict=True):
        np.testing.assert_array_equal(a.codes, b.codes)
        assert a.levels.tolist() == b.levels.tolist()
    assert two.kind == {"lazy": "polars"}.get(library, library)


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "change", "parts"),
    [
        ("y ~ q + (1 | g)", {}, ["'q'"]),
        ("y ~ xx + (1 | g)", {}, ["'xx'", "did you mean 'x'"]),
        ("y ~ log(zz) + (1 | g)", {}, ["'zz'", "log(zz)"]),
        ("y ~ x + (1 | gg)", {}, ["'gg'", "did you mean 'g'"]),
        ("y ~ np + (1 | g)", {}, ["'np'"]),
        ("f ~ x + (1 | g)", {}, ["'f'", "'a' in row 0"]),
        ("log(f) ~ x + (1 | g)", {}, ["'f'", "log(f)"]),
        ("y ~ log(f) + (1 | g)", {}, ["'f'", "log(f)", "'a' in row 0", "factor(f)"]),
        ("y ~ x + (1 | g)", {"y": 3.0}, ["'y'", "3 in all 60"]),
        ("y ~ x + (1 | g)", {"y": np.nan}, ["no row is left", "'y'"]),
        ("y ~ x + (1 | g)", {"x": None}, ["no row is left", "'x'"]),
        ("y ~ x + (1 | g)", {"y": [1.0, np.inf] + [2.0] * 58}, ["'y'", "inf", "row 1"]),
        ("y ~ x + (1 | g)", {"x": [1.0, 2, -np.inf] + [2.0] * 57}, ["'x'", "-inf", "row 2"]),
        ("y ~ log(x) + (1 | g)", {"x": [1.0, 2, 0] + [2.0] * 57}, ["'log(x)'", "-inf", "row 2"]),
        ("y ~ log(x) + (1 | g)", {"x": [1.0, -2, 0] + [2.0] * 57}, ["'log(x)'", "not a number", "row 1"]),
        ("log(y) ~ x + (1 | g)", {"y": [1.0, -2, 0] + [2.0] * 57}, ["log(y)", "row 1", "y = -2"]),
        ("y ~ x + (1 | g)", {"y": [True, False] * 30}, ["binomial"]),
        ("y ~ x + (1 | g)", {"g": "same"}, ["'g'", "single level"]),
        ("y ~ x + (1 | g)", {"g": np.arange(60)}, ["'g'", "60 rows"]),
        ("y ~ x + (x + z + k + h + I(x^2) | g)", {}, ["10 x 6 = 60", "60 rows"]),
        ("y ~ x + (1 | z)", {}, ["'z'", "no factor"]),
        ("y ~ f + (1 | g)", {"f": ["a", 1] * 30}, ["'f'", "mixes types", "str", "int"]),
        ("y ~ x + (1 | g)", {"g": ["a", 1, 2] * 20}, ["'g'", "mixes types"]),
        ("y ~ f + (1 | g)", {"f": pd.date_range("2020-01-01", periods=60)}, ["'f'", "dates"]),
        ("y ~ poly(k, 4) + (1 | g)", {}, ["poly()", "4 different"]),
        ("y ~ C(f, levels=c('a', 'b')) + (1 | g)", {}, ["'f'", "'c'"]),
        ("y ~ C(f, Treatment('q')) + (1 | g)", {}, ["'q'", "'f'"]),
        ("cbind(k, s) ~ x + (1 | g)", {}, ["binomial"]),
        ("k | trials(s) ~ x + (1 | g)", {}, ["binomial"]),
        ("y ~ x + (0 | g)", {}, ["no effects"]),
        ("y ~ x + offset(f) + (1 | g)", {}, ["'f'"]),
        ("3 ~ x", {}, ["no column"]),
    ],
)
def test_bad_data_is_named(text: str, change: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(MultilevelError) as caught:
        make(text, DATA.assign(**change))
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("value", "part"), [(-1.0, "-1.0 in row 2"), (np.nan, "nan in row 2"), (np.inf, "inf in row 2")]
)
def test_bad_weights(value: float, part: str) -> None:
    weights = DATA["w"].to_numpy().copy()
    weights[2] = value
    with pytest.raises(DataError, match=part):
        make("y ~ x + (1 | g)", weights=weights)
    with pytest.raises(DataError, match=part):
        make("y ~ x + (1 | g)", DATA.assign(w=weights), weights="w")


def test_bad_options() -> None:
    with pytest.raises(OptionError, match="did you mean 'sum'"):
        make("y ~ f", contrasts={"f": "smu"})
    with pytest.raises(OptionError, match="C\\(x\\)"):
        make("y ~ x + f", contrasts={"x": "sum"})
    with pytest.raises(OptionError, match="'q'"):
        make("y ~ f", contrasts={"q": "sum"})
    with pytest.raises(DataError, match="2 rows"):
        make("y ~ f", contrasts={"f": np.eye(2)})
    with pytest.raises(DataError, match="shape"):
        make("y ~ f", weights=[1, 2])
    with pytest.raises(DataError, match="array of numbers"):
        make("y ~ f", offset=["a"] * 60)
    with pytest.raises(OptionError, match="list"):
        make("y ~ f", levels={"f": "abc"})
    for empty in (DATA.iloc[:0], pd.DataFrame()):
        with pytest.raises(DataError):
            make("y ~ x", empty)


def test_a_huge_factor_is_refused() -> None:
    n = 3000
    data = pd.DataFrame(
        {
            "y": np.arange(n),
            "id": [f"i{i // 2}" for i in range(n)],
            "j": [f"j{i % 150}" for i in range(n)],
            "l": [f"l{i % 149}" for i in range(n)],
        }
    )
    with pytest.raises(DataError, match=r"\(1 \| id\)"):
        make("y ~ id", data)
    with pytest.raises(DataError, match="j:l"):
        make("y ~ j:l", data)


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
    st.sampled_from(
        ["f*h", "f:h", "0 + f*x", "f/h", "h + f:x", "poly(x, 2):f", "C(f, Sum)*scale(x)", "f*h*x - x"]
    ),
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
        "y ~ scale + log(log) + scale(scale, center=True) + c + C(c, levels=c('b', 'a', 'c')):scale + C(C) "
        "+ poly",
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
