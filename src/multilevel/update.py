"""The same model with another formula: R's update(), in which `.` stands for the old side."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import DataError, OptionError, nearest
from .expressions import check_expression
from .formula import Formula, model_text, parse
from .formula_reader import Bar, Reader
from .formula_tokens import Token, Tokens, fail, quoted

if TYPE_CHECKING:
    from .fit import Fit
    from .model import Model

__all__ = ["update", "updated"]

GENERALISED = ("family", "link", "dispersion", "zi", "hurdle", "quadrature")  # options of generalised models beside OPTIONS
_DOT = re.compile(r"`[^`]*`|'[^']*'|\"[^\"]*\"|(?<![\w.])\.(?![\w.])")


def update(fit: Fit, formula: str = ". ~ .", data: Any = None, reml: bool | None = None, **options: Any) -> Fit:
    """Fit the model with another formula, other options or other data; see `Fit.update`."""
    from .model import OPTIONS, Model, check_flag

    allowed = (*OPTIONS, *GENERALISED) if fit.generalised else OPTIONS
    for name in options:
        if name not in allowed:
            known = ("data", "reml", *allowed)
            hint = nearest(name, known) or "allowed are " + ", ".join(known)
            raise OptionError(f"update() has no option {name!r}; {hint}")
    if reml is not None:
        check_flag("reml", reml)
    text = updated(fit, formula)
    rows = fit.model.data if data is None else data
    if rows is None:
        raise DataError(
            "this fit was saved without its data, which an update needs; give data=, or save it with save(path, data=True)"
        )
    nodes = options.pop("quadrature", fit.model._quadrature) if fit.generalised else 1
    model = Model(text, rows, **(_kept(fit, parse(text), rows, options) | options))
    if data is None and model.design.response == fit.design.response:
        model = _with_response_of(fit, model)
    if fit.generalised and model.distribution is not None:
        model = model.with_quadrature(nodes)
    return model.fit(fit.reml if reml is None else bool(reml), threads=fit.engine.threads)


def _with_response_of(fit: Fit, model: Model) -> Model:
    """The model on the response of the fit, where that is not the one in the data (a refit to another response)."""
    old, new = fit.rows_of_data(), model.design
    where = {row: i for i, row in enumerate(old.rows.tolist())}
    at = np.array([where.get(row, -1) for row in new.rows.tolist()], dtype=np.int64)
    both = at >= 0
    if np.array_equal(old.y[at[both]], new.y[both]):
        return model
    if not both.all():
        raise DataError(
            f"this fit is of another response than that in the data, and the new formula uses row {new.rows[~both][0]} "
            "(counting from 0), for which it has none; put the response into the data and fit again"
        )
    return model.with_design(replace(new, y=old.y[at]))


# -- options of the model ---------------------------------------------------------------------------------------------


def _kept(fit: Fit, formula: Formula, data: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the old model, without those that the new formula has no use for."""
    from .columns import uses_of
    from .frame import Table
    from .plan import make_plan

    options = getattr(fit.model, "_options", None)
    if options is None:
        options = _restored(fit, formula, data, given)
    plan = make_plan(formula, Table(data).names, None, None, gaussian=not fit.generalised)
    predictors = uses_of(plan.expressions)
    used = {"contrasts": [*predictors], "levels": [*predictors, *plan.grouping], "covariance": plan.grouping}
    out = dict(options)
    for name, columns in used.items():
        if out.get(name):
            out[name] = {column: value for column, value in out[name].items() if column in columns}
    return out


def _restored(fit: Fit, formula: Formula, data: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a model read from a file, from what its file keeps of them."""
    from .columns import uses_of
    from .frame import Table, factor
    from .matrix import factors_of
    from .plan import make_plan

    design, text = fit.design, fit.model._residual_text
    table = Table(data)
    recipe = design.remake
    sides = [recipe.fixed, *(term.side for term in recipe.terms if term.side is not None)]
    old = uses_of(one for side in sides for one in factors_of(side))
    new = uses_of(make_plan(formula, table.names, None, None, gaussian=not fit.generalised).expressions)
    levels, contrasts = {}, {}
    for name, info in recipe.infos.items():
        same = name in new and name in old and replace(new[name], where="") == replace(old[name], where="")
        if info.levels is not None and not info.number and same:
            others = factor(table.load([name])[name], name)[1].tolist()
            levels[name] = [*info.levels, *(level for level in others if level not in info.levels)]
            contrasts[name] = info.contrast
    out: dict[str, Any] = {"levels": levels, "contrasts": contrasts, "covariance": dict(design.known)}
    out["correlation"] = None if text.serial is None else text.serial[3]
    out["variance"] = [spread[2] for spread in text.spreads] or None
    if fit.generalised:
        from .generalised_storage import options_of

        out |= options_of(fit)
    own = data is fit.model.data
    if "weights" not in given and (design.weights is not None or ((not own or fit.generalised) and _weighted(fit))):
        if not own:
            raise OptionError("a saved fit does not keep the column of its weights; give weights= with other data")
        weights = np.zeros(design.n_input)  # rows that were left out stay so
        weights[design.rows] = design.trials if design.weights is None else design.weights
        out["weights"] = weights
    if "offset" not in given:
        out["offset"] = recipe.offset_column or None
        if recipe.offset_array:
            if not own or design.formula.offsets or design.offset is None:
                raise OptionError("a saved fit does not keep an offset given as an array; give offset= again")
            out["offset"] = np.full(design.n_input, np.nan)
            out["offset"][design.rows] = design.offset
    return out


def _weighted(fit: Fit) -> bool:
    """Whether a fit had weights: one without its rows, whether they were other than one."""
    if fit.generalised:
        return bool(getattr(fit, "weighted"))  # noqa: B009 (a GeneralisedFit has it)
    return bool(fit.engine.blocks.core.sum_log_w != 0.0)


# -- the formula ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chunk:
    """One summand of a right side: its sign, its text, where it stands."""

    sign: str
    text: str
    start: int
    end: int


@dataclass
class Side:
    """A right side in the making."""

    fixed: list[tuple[str, str]] = field(default_factory=list)  # sign, text as typed
    bars: list[Bar] = field(default_factory=list)
    offsets: list[str] = field(default_factory=list)
    expand: bool = False  # write the fixed terms one by one
    dotted: bool = False  # the old random terms are in


def updated(fit: Fit, text: str) -> str:
    """The formula that `text` makes of the fit's.

    Raises
    ------
    FormulaError
        With a caret under the fault in `text`.
    """
    from .errors import FormulaError

    if not isinstance(text, str):
        raise FormulaError(f"a formula is a text such as '. ~ . + x', not {type(text).__name__}")
    response, chunks = _split(text)
    old = fit.model.formula
    left = _DOT.sub(lambda found: old.response if found.group() == "." else found.group(), response)
    if not left:
        left = old.response
    elif response != ".":
        check_expression(left, left, 0, response=True) if "." in response else parse(f"{response} ~ 1")
    if not any(_has_dot(chunk) for chunk in chunks):
        parse(text if response else f"{old.response} {text}")
        return f"{left} ~ {text[text.index('~') + 1 :].strip()}" if response in ("", ".") else text
    side = Side()
    for chunk in chunks:
        _read(side, chunk, fit, text)
    return f"{left} ~ {_written(side)}"


def _split(text: str) -> tuple[str, list[Chunk]]:
    """Response (empty if none) and the summands of the right side."""
    tokens = _tokens(text)
    tildes = [token for token in tokens if token.kind == "op" and token.text == "~"]
    if not tildes:
        fail("there is no ~; write '. ~ . + x', where . stands for what was there", text, len(text.rstrip()))
    if len(tildes) > 1:
        fail("there is more than one ~", text, tildes[1].start)
    right = [token for token in tokens if token.start > tildes[0].start]
    if not right:
        fail("the right side is empty; write . for what was there, as in '. ~ . + x'", text, tildes[0].end)
    return text[: tildes[0].start].strip(), _chunks(text, right)


def _tokens(text: str) -> list[Token]:
    reader = Tokens(text, 0)
    out = []
    while reader.token.kind != "end":
        out.append(reader.advance())
    return out


def _chunks(text: str, tokens: Sequence[Token]) -> list[Chunk]:
    """Summands between the plus and minus signs outside parentheses."""
    out: list[Chunk] = []
    sign, depth, first, last = "+", 0, None, tokens[0]
    for token in tokens:
        if token.kind == "op" and token.text in ("+", "-") and depth == 0:
            if first is not None:
                out.append(Chunk(sign, text[first.start : last.end], first.start, last.end))
                sign, first = "+", None
            if token.text == "-":
                sign = "-" if sign == "+" else "+"
        else:
            first = token if first is None else first
            depth += (token.text == "(") - (token.text == ")") if token.kind == "op" else 0
        last = token
    if first is None:
        fail("the formula ends where a term is expected", text, last.end)
    return [*out, Chunk(sign, text[first.start : last.end], first.start, last.end)]


def _has_dot(chunk: Chunk) -> bool:
    return any(token.kind == "name" and token.text == "." for token in _tokens(chunk.text))


def _read(side: Side, chunk: Chunk, fit: Fit, text: str) -> None:
    """Add one summand of the new right side to what it makes, or take it away."""
    if chunk.text == ".":
        if chunk.sign == "-":
            fail("the old side can only be added to, not taken away", text, chunk.start, chunk.end)
        _add_old(side, fit)
        return
    piece = Reader(text[: chunk.end], chunk.start).side(closing=False)  # positions are those of the whole text
    for bar in piece.bars:
        _bar(side, chunk, bar, text)
    for offset in piece.offsets:
        if chunk.sign == "+":
            side.offsets.append(offset)
        elif offset in side.offsets:
            side.offsets.remove(offset)
        else:
            fail(f"there is no offset({offset}) to take out", text, chunk.start, chunk.end)
    if not piece.parts:
        return
    if piece.bars or piece.offsets:
        fail("write fixed and random terms without parentheses round both", text, chunk.start, chunk.end)
    if not _has_dot(chunk):
        new = chunk.text
    else:
        new = _DOT.sub(lambda found: _old_terms(fit) if found.group() == "." else found.group(), chunk.text)
        _add_random(side, fit)  # a product is of the fixed terms; the random ones stay
        side.expand = True
    if chunk.text in ("0", "1"):
        side.expand = True
    elif chunk.sign == "-":
        _check_there(side, chunk, new, text)
        side.expand = True
    side.fixed.append((chunk.sign, new))


def _bar(side: Side, chunk: Chunk, bar: Bar, text: str) -> None:
    found = next((i for i, other in enumerate(side.bars) if _key(other) == _key(bar)), None)
    if chunk.sign == "+":
        if found is not None:
            fail(f"the term {_shown(bar)} is in the model already", text, chunk.start, chunk.end)
        side.bars.append(bar)
    elif found is None:
        there = ", ".join(map(_shown, side.bars)) or "none"
        fail(f"there is no term {_shown(bar)} to take out; random terms are {there}", text, chunk.start, chunk.end)
    else:
        del side.bars[found]


def _key(bar: Bar) -> tuple[str, frozenset[str], frozenset[str]]:
    """What makes two random terms the same, however they are typed."""
    return bar.structure, frozenset(_terms(model_text(bar.effects))), frozenset(bar.groups)


def _shown(bar: Bar) -> str:
    line = "||" if bar.structure == "diag" else "|"
    opening = "(" if bar.structure in ("us", "diag") else f"{bar.structure}("
    return f"{opening}{bar.effects} {line} {':'.join(map(quoted, bar.groups))})"


def _check_there(side: Side, chunk: Chunk, new: str, text: str) -> None:
    """A term that is taken out must be there: what is not there is a slip of the pen."""
    there = _terms(_rendered(side.fixed))
    keys = {_same(term) for term in there}
    for term in _terms(model_text(f"0 + {new}")):
        if term != "0" and _same(term) not in keys:
            known = [one for one in there if one not in ("0", "1")]
            hint = nearest(term, known) or f"fixed terms are {', '.join(known) or 'none but the intercept'}"
            fail(f"there is no term {term} to take out; {hint}", text, chunk.start, chunk.end)


def _same(term: str) -> frozenset[str]:
    return frozenset(_factors(term))


def _add_old(side: Side, fit: Fit) -> None:
    """The old right side; as typed where it can stay so."""
    old = fit.model.formula
    if any(found.group() == "." for found in _DOT.finditer(old.fixed)):  # all columns: which, was settled by the data
        side.fixed.append(("+", fit.design.remake.fixed))
        side.expand = True
    else:
        typed = [one for one in _split(old.text)[1] if not _is_random(one, old.text)]
        side.fixed += [(one.sign, one.text) for one in typed]
    _add_random(side, fit)


def _add_random(side: Side, fit: Fit) -> None:
    if side.dotted:
        return
    side.bars += fit.model.formula.bars
    side.offsets += fit.model.formula.offsets
    side.dotted = True


def _is_random(chunk: Chunk, text: str) -> bool:
    piece = Reader(text[: chunk.end], chunk.start).side(closing=False)
    return bool(piece.bars or piece.offsets)


def _old_terms(fit: Fit) -> str:
    """The old fixed terms in parentheses, to stand in a product or power."""
    terms = [term for term in _terms(fit.design.remake.fixed) if term not in ("0", "1")]
    return f"({' + '.join(terms) or '1'})"


# -- writing it -------------------------------------------------------------------------------------------------------


def _written(side: Side) -> str:
    bars = [text for text, _ in _typed(side.bars)]
    offsets = [f"offset({one})" for one in dict.fromkeys(side.offsets)]
    if side.expand:
        terms = _terms(_rendered(side.fixed))
        plain = [term for term in terms if term not in ("0", "1")]
        fixed = plain if terms[0] == "1" and plain else terms
        return " + ".join([*fixed, *bars, *offsets])
    kept: list[str] = []
    seen: list[tuple[str, str]] = []
    for sign, text in side.fixed:
        if seen and sign == "+" and text not in ("0", "1") and set(_terms(_rendered([*seen, (sign, text)]))) == set(
            _terms(_rendered(seen))
        ):
            continue  # there already
        seen.append((sign, text))
        kept += [sign, text] if kept or sign == "-" else [text]
    out = " ".join(kept) or "1"
    return " + ".join([re.sub(r"^- ", "-", out), *bars, *offsets])


def _typed(bars: Sequence[Bar]) -> list[tuple[str, int]]:
    """Random terms as typed; those that were typed as one, such as (1 | a/b), once if all are left."""
    out: list[tuple[str, int]] = []
    for i, bar in enumerate(bars):
        whole = [one for one in bars if (one.text, one.start) == (bar.text, bar.start)]
        if len(whole) == len(parse(f"y ~ {bar.text}").bars):
            if whole[0] is bar:
                out.append((bar.text, i))
        else:
            out.append((_shown(bar), i))
    return out


def _rendered(fixed: Sequence[tuple[str, str]]) -> str:
    """A fixed side as formulaic reads it."""
    text = ""
    for sign, one in fixed:
        text += f" {sign} {one}" if text else one if sign == "+" else f"-{one}"
    return model_text(text) if text else "1"


def _terms(side: str) -> list[str]:
    """Terms of a rendered side one by one, R's way: "1" (or "0") first, then by the number of their factors."""
    from .matrix import split_terms

    pieces = [_rendered_factors(term) for term in split_terms(side)]
    plain = [":".join(piece) for piece in pieces if piece != ["1"]]
    return ["1" if ["1"] in pieces else "0", *dict.fromkeys(plain)]


def _rendered_factors(term: Any) -> list[str]:
    """Factors of a term as one types them; a constant among others is nothing."""
    from .matrix import shown_name

    names = []
    for one in term.factors:
        text = str(shown_name(one.expr))
        if one.eval_method.value == "literal":
            continue
        names.append(quoted(text.strip("`")) if one.eval_method.value == "lookup" else text)
    return names or ["1"]


def _factors(term: str) -> list[str]:
    """Factors of a term as `_terms` writes it."""
    out, depth, quote, at = [], 0, "", 0
    for i, char in enumerate(term):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"`":
            quote = char
        else:
            depth += (char in "([") - (char in ")]")
            if char == ":" and depth == 0:
                out.append(term[at:i])
                at = i + 1
    return [*out, term[at:]]
