"""Expressions inside a formula: R spelling to Python, what may be called, which columns are used, evaluation.

Formulas are evaluated as Python. Nothing is evaluated that has not passed `check_expression`: arithmetic,
columns and the functions listed here, no attributes, subscripts or other calls. So a formula read from a file
cannot run code.
"""

from __future__ import annotations

import ast
import functools
import keyword
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from .errors import FormulaError, nearest

__all__ = [
    "CONTRAST_NAMES",
    "ELEMENTWISE",
    "Expression",
    "analyse",
    "check_expression",
    "column",
    "evaluate",
    "translate",
]

MAX_LENGTH = 4_000


def _exp10(x: Any) -> Any:
    return np.power(10.0, x)


ELEMENTWISE: dict[str, Callable[..., Any]] = {
    **{
        name: getattr(np, name)
        for name in (
            "sqrt",
            "cbrt",
            "abs",
            "sign",
            "square",
            "log",
            "log2",
            "log10",
            "log1p",
            "exp",
            "exp2",
            "expm1",
            "sin",
            "cos",
            "tan",
            "arcsin",
            "arccos",
            "arctan",
            "arctan2",
            "sinh",
            "cosh",
            "tanh",
            "arcsinh",
            "arccosh",
            "arctanh",
            "floor",
            "ceil",
            "trunc",
            "round",
            "clip",
            "minimum",
            "maximum",
            "where",
            "power",
            "deg2rad",
            "rad2deg",
        )
    },
    "exp10": _exp10,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "ceiling": np.ceil,
    "pmin": np.minimum,
    "pmax": np.maximum,
}
CONTRAST_NAMES = ("Treatment", "Sum", "Helmert", "Poly")
_FACTOR = ("C", "factor")
_STATEFUL = ("poly", "bs", "cr", "cc", "scale", "center", "standardize")
_CALLS = frozenset((*ELEMENTWISE, *CONTRAST_NAMES, *_FACTOR, *_STATEFUL, "I", "c"))
_RESPONSE_CALLS = frozenset(("cbind", "trials"))
_CONTR = {"treatment", "sum", "helmert", "poly"}
_R_CALLS = {"as.factor": "factor"}
_R_CONSTANTS = {"TRUE": "True", "FALSE": "False", "NULL": "None"}
_PIECE = re.compile(
    r"(?P<skip>`[^`]*`|'[^']*'|\"[^\"]*\"|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?P<long>L\b)?"
    r"|(?P<name>(?:[^\W\d]|\.(?!\d))[\w.]*)(?=(?P<call>\s*\()?)(?=(?P<kwarg>\s*=(?!=))?)"
    r"|(?P<power>\^)"
)
_NODES = (
    ast.Expression,
    ast.Call,
    ast.keyword,
    ast.Name,
    ast.Load,
    ast.Constant,
    ast.BinOp,
    ast.UnaryOp,
    ast.Compare,
    ast.Attribute,
    ast.Add,
    ast.Sub,
    ast.Mult,
    ast.Div,
    ast.FloorDiv,
    ast.Mod,
    ast.Pow,
    ast.UAdd,
    ast.USub,
    ast.Eq,
    ast.NotEq,
    ast.Lt,
    ast.LtE,
    ast.Gt,
    ast.GtE,
    ast.List,
    ast.Tuple,
)


_ELSEWHERE = {  # what users of R look for under another name
    "ns": "natural splines are cr(x, df=4)",
    "s": "splines are bs(x, df=4) and cr(x, df=4)",
    "lag": "compute the column first",
    "ifelse": "compute the column first, for example with numpy.where",
    "relevel": "give the order of the levels with levels={'column': [...]}",
    "interaction": "write a:b",
}


@dataclass(frozen=True)
class Expression:
    """What an expression uses.

    Attributes
    ----------
    text : str
        In Python spelling, columns with odd names in backticks.
    columns : tuple of str
        Columns used, in order of appearance.
    numeric : tuple of str
        Those used in arithmetic.
    wrapped : tuple of str
        Those used as the first argument of `C()` or `factor()`.
    code : str
        `text` with stand-in identifiers for the columns in `aliases`.
    aliases : dict
        Stand-in identifier to column name.
    plain : bool
        Whether it is one column and nothing else.
    """

    text: str
    columns: tuple[str, ...]
    numeric: tuple[str, ...]
    wrapped: tuple[str, ...]
    code: str
    aliases: dict[str, str]
    plain: bool


def translate(text: str) -> str:
    """Write R's spelling as Python's: `^`, `TRUE`, `2L`, `as.factor`, and backticks round names with dots."""

    def piece(found: re.Match[str]) -> str:
        if found["power"]:
            return "**"
        name = found["name"]
        if name is None:
            return str(found["skip"])
        if found["call"] is not None:
            return _R_CALLS.get(name, str(name))
        if (
            found["kwarg"] is not None
            or name in ("True", "False", "None")
            or name.startswith(("np.", "contr."))
        ):
            return str(name)
        if name in _R_CONSTANTS:
            return _R_CONSTANTS[name]
        return f"`{name}`" if "." in name or keyword.iskeyword(name) else str(name)

    return _PIECE.sub(piece, text)


@functools.lru_cache(maxsize=1024)
def analyse(text: str, response: bool = False) -> Expression:
    """Check an expression and list the columns it uses.

    Raises
    ------
    FormulaError
        Without the formula; `check_expression` adds it.
    """
    if len(text) > MAX_LENGTH:
        _fail(f"an expression of {len(text)} characters is too long")
    translated = translate(text)
    code, aliases = _stand_ins(translated)
    try:
        tree = ast.parse(code.strip(), mode="eval")
        _Checker(response, aliases).visit(tree)
    except (SyntaxError, RecursionError, MemoryError):
        _fail(f"cannot read {_short(text)} as an expression")
    except ValueError as error:
        if isinstance(error, FormulaError):
            raise
        _fail(f"cannot read {_short(text)} as an expression")
    plain = isinstance(tree.body, ast.Name)
    numeric: dict[str, None] = {}
    wrapped: dict[str, None] = {}
    _collect(tree.body, aliases, numeric, wrapped)
    return Expression(
        translated.strip(),
        tuple({**numeric, **wrapped}),
        () if plain else tuple(numeric),
        tuple(wrapped),
        code.strip(),
        aliases,
        plain,
    )


def check_expression(text: str, formula: str, at: int, response: bool = False) -> None:
    """Raise FormulaError, with a caret, unless `text` is arithmetic on columns with known functions."""
    try:
        analyse(text, response)
    except FormulaError as error:
        start = text.find(error.formula) if error.formula else -1
        if start >= 0:
            raise FormulaError(error.message, formula, at + start, at + start + len(error.formula)) from None
        raise FormulaError(error.message, formula, at, at + len(text)) from None


def evaluate(expression: Expression, columns: Mapping[str, Any], functions: Mapping[str, Any]) -> Any:
    """Evaluate a checked expression on columns."""
    names = {alias: columns[name] for alias, name in expression.aliases.items()}
    plain = {name: columns[name] for name in expression.columns if name in columns}
    scope = {"__builtins__": {}, **functions, **plain, **names}
    with np.errstate(all="ignore"):
        return eval(compile(expression.code, "<formula>", "eval"), scope)  # checked by `analyse`


def _fail(message: str, fragment: str = "") -> NoReturn:
    """Raise with the faulty piece in place of the formula; `check_expression` finds where it stands."""
    error = FormulaError(message)
    error.formula = fragment
    raise error


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _stand_ins(text: str) -> tuple[str, dict[str, str]]:
    """Replace backticked names by identifiers."""
    aliases: dict[str, str] = {}

    def replace(found: re.Match[str]) -> str:
        if found.group()[0] != "`":
            return found.group()
        name = found.group()[1:-1]
        for alias, known in aliases.items():
            if known == name:
                return alias
        alias = f"column_{len(aliases)}_"
        while alias in text:
            alias += "_"
        aliases[alias] = name
        return alias

    return re.sub(r"`[^`]*`|'[^']*'|\"[^\"]*\"", replace, text), aliases


class _Checker(ast.NodeVisitor):
    """Let through arithmetic, comparisons, columns and known functions only."""

    def __init__(self, response: bool, aliases: Mapping[str, str]) -> None:
        self.calls = _CALLS | _RESPONSE_CALLS if response else _CALLS
        self.response = response
        self.aliases = aliases

    def generic_visit(self, node: ast.AST) -> None:
        allowed = isinstance(node, _NODES) or (self.response and isinstance(node, ast.BitOr))
        if not allowed:
            words = {
                "BitOr": "|",
                "BitAnd": "&",
                "BitXor": "^",
                "Invert": "~",
                "BoolOp": "and/or",
                "Not": "not",
                "Subscript": "[ ]",
                "Starred": "*",
                "Lambda": "lambda",
                "IfExp": "if",
                "MatMult": "@",
            }
            _fail(
                f"{words.get(type(node).__name__, type(node).__name__)} cannot be used in a formula; "
                "compute a column first"
            )
        super().generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        base = node.value.id if isinstance(node.value, ast.Name) else ""
        if not ((base == "np" and node.attr in ELEMENTWISE) or (base == "contr" and node.attr in _CONTR)):
            whole = f"{base}.{node.attr}" if base else f".{node.attr}"
            _fail(f"{whole} cannot be used in a formula", whole)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Attribute):
            self.visit_Attribute(node.func)
        elif not isinstance(node.func, ast.Name):
            _fail("only functions can be called")
        elif node.func.id not in self.calls:
            name = self.aliases.get(node.func.id, node.func.id)
            hint = _ELSEWHERE.get(name) or nearest(name, sorted(self.calls)) or "compute a column first"
            _fail(f"unknown function {name}(); {hint}", name)
        for child in (*node.args, *(argument.value for argument in node.keywords)):
            self.visit(child)
        if any(isinstance(child, ast.Constant) and child.value is None for child in node.args):
            _fail("a column is missing between the parentheses")
        if any(argument.arg is None for argument in node.keywords):
            _fail("** cannot be used to pass arguments")

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and len(node.value) > 500:
            _fail("this text is too long")
        if not isinstance(node.value, (int, float, str, bool, type(None))):
            _fail(f"the value {_short(str(node.value))} cannot be used in a formula")

    def visit_BinOp(self, node: ast.BinOp) -> None:
        for side in (node.left, node.right):
            if isinstance(side, (ast.List, ast.Tuple)) or (
                isinstance(side, ast.Constant) and not isinstance(side.value, (int, float))
            ):
                _fail("arithmetic is on numbers only")
        # A tower of whole numbers would be computed exactly, and so without end.
        if isinstance(node.op, ast.Pow) and not any(isinstance(n, ast.Name) for n in ast.walk(node)):
            base, power = _number(node.left), _number(node.right)
            if base is None or power is None or abs(power) > 64 or abs(base) > 1e6:
                _fail("this power of numbers is too large; write the value")
        self.generic_visit(node)


def _number(node: ast.AST) -> float | None:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        return _number(node.operand)
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return float(node.value) if abs(node.value) < 1e300 else None
    return None


def _collect(
    node: ast.AST, aliases: Mapping[str, str], numeric: dict[str, None], wrapped: dict[str, None]
) -> None:
    """Gather column names, those in arithmetic apart from those wrapped by C() or factor()."""
    if isinstance(node, ast.Name):
        numeric[aliases.get(node.id, node.id)] = None
        return
    if isinstance(node, ast.Call):
        arguments = [*node.args, *(argument.value for argument in node.keywords)]
        if isinstance(node.func, ast.Name) and node.func.id in _FACTOR:
            if arguments and isinstance(arguments[0], ast.Name):
                wrapped[aliases.get(arguments[0].id, arguments[0].id)] = None
                arguments = arguments[1:]
            arguments = [a for a in arguments if not (isinstance(a, ast.Name) and a.id in CONTRAST_NAMES)]
        for argument in arguments:
            _collect(argument, aliases, numeric, wrapped)
        return
    if isinstance(node, ast.Attribute):
        return
    for child in ast.iter_child_nodes(node):
        _collect(child, aliases, numeric, wrapped)


def column(name: str) -> Expression:
    """Return the expression of one column."""
    return Expression(name, (name,), (), (), name, {}, True)
