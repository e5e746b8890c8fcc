"""Designs: matrices, codings, rows, refusals, new data, saving."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_designs import DATA, make

from multilevel.contrasts import helmert_matrix, poly_matrix, sum_matrix
from multilevel.errors import ColumnError, DataError, MultilevelError, OptionError
from multilevel.rank import dependent_columns


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
