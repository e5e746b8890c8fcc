"""Reading formulas: what is understood, what is refused, and that nothing else can happen."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from multilevel.errors import FormulaError
from multilevel.formula import Bar, Formula, model_text, parse, quoted, render


def bars(text: str) -> list[tuple[str, str, str]]:
    return [(bar.effects, bar.group, bar.structure) for bar in parse(text).bars]


def test_the_parts_of_a_formula() -> None:
    text = "log(Reaction) ~ Days + (Days | Subject) + offset(log(e))"
    formula = parse(text)
    assert formula == Formula(
        text,
        "log(Reaction)",
        "1 + Days",
        (Bar("(Days | Subject)", "Days", ("Subject",), "us", 23, 39),),
        ("log(e)",),
    )
    assert text[23:39] == formula.bars[0].text


@pytest.mark.parametrize(
    ("text", "fixed"),
    [
        ("y ~ 1", "1"),
        ("y ~ (1 | g)", "1"),
        ("y ~ x", "1 + x"),
        ("y ~ 0 + x", "0 + x"),
        ("y ~ x - 1", "x + 0"),
        ("y ~ -1 + x", "0 + x"),
        ("y ~ a*b:c", "1 + a * b:c"),
        ("y ~ (a + b)^2", "1 + (a + b)**2"),
        ("y ~ a %in% b", "1 + a:b"),
        ("y ~ a/b - b", "1 + a / b - b"),
        ("y ~ .", "1 + ."),
        ("y ~ I(x^2)", "1 + I(x**2)"),
        ("y ~ total.fruits", "1 + total.fruits"),
        ("y ~ log(total.fruits)", "1 + log(`total.fruits`)"),
        ("y ~ `my x`", "1 + `my x`"),
        ("y ~ poly(x, 2, raw = TRUE)", "1 + poly(x, 2, raw = True)"),
        ("y ~ as.factor(k)", "1 + factor(k)"),
        ("y ~ (x + (1 | g))", "1 + x"),
        ("y~x+1", "x + 1"),
        ("y ~ x^3", "1 + x"),
    ],
)
def test_the_fixed_side(text: str, fixed: str) -> None:
    assert parse(text).fixed == fixed


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        ("(1 | g)", [("1", "g", "us")]),
        ("(x || g)", [("x", "g", "diag")]),
        ("(0 + x | g)", [("0 + x", "g", "us")]),
        ("(1 | a/b/c)", [("1", "a", "us"), ("1", "a:b", "us"), ("1", "a:b:c", "us")]),
        ("(1 | a*b)", [("1", "a", "us"), ("1", "b", "us"), ("1", "a:b", "us")]),
        ("(1 | a + b)", [("1", "a", "us"), ("1", "b", "us")]),
        ("(x || (a + b)/c)", [("x", "a", "diag"), ("x", "b", "diag"), ("x", "a:b:c", "diag")]),
        ("(1 | a:b)", [("1", "a:b", "us")]),
        ("(1 | a:a)", [("1", "a", "us")]),
        ("(1 | factor(g))", [("1", "g", "us")]),
        ("(1 | `school id`:C(k))", [("1", "school id:k", "us")]),
        ("us(x | g)", [("x", "g", "us")]),
        ("diag(x | g)", [("x", "g", "diag")]),
        ("cs(0 + f | g)", [("0 + f", "g", "cs")]),
        ("ar1(0 + factor(week) | subject)", [("0 + factor(week)", "subject", "ar1")]),
    ],
)
def test_bars(term: str, expected: list[tuple[str, str, str]]) -> None:
    assert bars(f"y ~ z + {term}") == expected


def test_a_natural_spline_is_no_covariance_structure() -> None:
    assert parse("y ~ cr(x, df=3) + (1 | g)").bars[0].group == "g"


@pytest.mark.parametrize(
    "response", ["cbind(a, b)", "s | trials(n)", "log(y + 1)", "`my y`", "y.z", "y1 - y2"]
)
def test_responses_stay_text(response: str) -> None:
    assert parse(f"{response} ~ x + (1 | g)").response == response


@pytest.mark.parametrize(
    ("text", "fault", "part"),
    [
        ("", None, "empty"),
        ("y", "", "no ~"),
        ("~ x", "~", "response is missing"),
        ("y ~", "", "right side is empty"),
        ("y ~ x + 1 | g", "|", "parentheses"),
        ("y ~ x * (1 | g)", "(", "added"),
        ("y ~ - (1 | g)", "(", "only be added"),
        ("y ~ (1 | )", "| )", "grouping factor is missing"),
        ("y ~ ( | g)", "( |", "effects are missing"),
        ("y ~ (1 | g", "(", "not closed"),
        ("y ~ x)", ")", "closes nothing"),
        ("y ~ x z", "z", "operator"),
        ("y ~ lgo(x)", "lgo", "did you mean 'log'"),
        ("y ~ mean(x)", "mean", "unknown function"),
        ("y ~ (1 | 3)", "3", "column names"),
        ("y ~ (1 | log(g))", "log(g)", "column names"),
        ("y ~ toep(1 | g)", "toep", "us, diag, homdiag, cs"),
        ("y ~ 2*x", "2", "I( )"),
        ("y ~ x > 3", ">", "I( )"),
        ("y ~ x^z", "^z", "I(x^2)"),
        ("y ~ (1 | g) + (1|g)", "(1|g)", "twice"),
        ("y ~ a ~ b", "~ b", "more than one"),
        ("y ~ (x | g | h)", "| h", "one bar"),
        ("y ~ cs(x || g)", "||", "contradicts"),
        ("y ~ (. | g)", ". ", "plain terms"),
        ("y ~ x.lower()", "x.lower", "cannot be used"),
        ("y ~ I(x[0])", "I(x[0])", "[ ]"),
        ("y ~ I(9**9**9)", "I(9**9**9)", "power"),
        ("y ~ `a", "`", "backtick"),
        ("y ~ x +", None, "ends"),
        ("y ~ 'x'", "'", "without quotes"),
        ("y ~ offset(x)*2", "offset(x)*", "only be added"),
        ("y ~ I(a | b)", "I(a | b)", "inside a function"),
    ],
)
def test_faults_have_a_caret(text: str, fault: str | None, part: str) -> None:
    with pytest.raises(FormulaError) as caught:
        parse(text)
    message = str(caught.value)
    assert part in message
    if fault:
        _, shown, carets = message.rsplit("\n", 2)
        assert shown.strip() == text.strip()
        assert text.find(fault.strip()) >= 0
        assert shown[carets.index("^") :].startswith(fault.strip())


@pytest.mark.parametrize(
    "text",
    [
        "y ~ I(().__class__)",
        "y ~ I(__import__('os').system('true'))",
        "y ~ log(x).__class__",
        "y ~ I((lambda: 1)())",
        "y ~ np.load(x)",
        "y ~ I([x for x in y])",
        "y ~ eval(x)",
        "y ~ {x}",
        "__import__('os') ~ x",
        "y ~ offset(open(x))",
    ],
)
def test_code_is_refused(text: str) -> None:
    with pytest.raises(FormulaError):
        parse(text)


def test_a_formula_must_be_text() -> None:
    with pytest.raises(FormulaError, match="not int"):
        parse(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "y ~ " + "(" * 5000,
        "y ~ " + "*".join("abcdefghijklmnopqrst"),
        "y ~ (a+b+c+d+e+f+g+h+i+j)^12",
        "y ~ " + "-" * 9000 + "x",
        "y ~ I(" + "-" * 3000 + "x)",
        "y ~ " + "x" * 30000,
        "y ~ (1 | " + "(" * 3000,
        "y ~ (1 | a*b*c*d*e*f*g*h*i)",
        "y ~ " + "(" * 39 + "x | g" + ")" * 39,
    ],
)
def test_monsters_end_soon(text: str) -> None:
    with contextlib.suppress(FormulaError):
        parse(text)


PIECES = st.sampled_from(
    [
        "y",
        "x",
        "g",
        "1",
        "0",
        "~",
        "+",
        "-",
        "*",
        "/",
        ":",
        "^2",
        "|",
        "||",
        "(",
        ")",
        " ",
        "log(",
        "I(",
        "cs(",
        "`a b`",
        "`",
        "offset(",
        "C(",
        ",",
        "'",
        ".",
        "%in%",
        "2L",
        "**",
        "poly(x, 2)",
        "x.y",
        "\\",
        "é",
        "\0",
    ]
)


@given(
    st.one_of(
        st.text(max_size=60),
        st.lists(PIECES, max_size=25).map("".join),
        st.lists(PIECES, max_size=20).map(lambda p: "y ~ " + "".join(p)),
    )
)
@example("y ~ I(1if x)")
@example("y ~ x.1.2")
@example("y~(((")
@settings(max_examples=400, deadline=1000)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        formula = parse(text)
    except FormulaError as error:
        assert str(error)
        return
    again = parse(render(formula))
    assert again.fixed == formula.fixed
    assert [(model_text(b.effects), b.groups, b.structure) for b in again.bars] == [
        (model_text(b.effects), b.groups, b.structure) for b in formula.bars
    ]
    assert again.offsets == formula.offsets


NAMES = st.from_regex(r"[a-w]{1,6}", fullmatch=True).filter(
    lambda name: name not in {"if", "in", "is", "as", "or"}
)


@given(
    st.lists(
        st.tuples(
            st.lists(NAMES, min_size=1, max_size=3, unique=True),
            st.lists(NAMES, min_size=1, max_size=3, unique=True),
            st.booleans(),
        ),
        min_size=1,
        max_size=3,
        unique_by=lambda item: tuple(item[1]),
    )
)
@settings(max_examples=100, deadline=None)
def test_written_bars_are_read_back(items: list[tuple[list[str], list[str], bool]]) -> None:
    text = "y ~ x" + "".join(f" + ({' + '.join(e)} {'||' if d else '|'} {':'.join(g)})" for e, g, d in items)
    assert [
        (bar.effects.split(" + "), list(bar.groups), bar.structure == "diag") for bar in parse(text).bars
    ] == items


def test_quoting() -> None:
    assert [quoted(name) for name in ("x", "a.b", "my x", "2x", "class", ".")] == [
        "x",
        "a.b",
        "`my x`",
        "`2x`",
        "`class`",
        "`.`",
    ]
