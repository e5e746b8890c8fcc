"""The printed summary of a fit: text, HTML, LaTeX.

The summary is built once, as blocks of strings; the three renderers only lay these out. Numbers follow R's
rules, so that the text reads as lme4's and lmerTest's does.
"""

from __future__ import annotations

import html
import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .fit import Fit

__all__ = ["Block", "correlations", "summary_blocks", "summary_html", "summary_latex", "summary_text"]

Array = NDArray[np.float64]

MAX_CORRELATED = 12  # more fixed effects than this: their correlations are not printed, as in lme4
SATTERTHWAITE = "Satterthwaite's method"
STARS = ((0.001, "***"), (0.01, "**"), (0.05, "*"), (0.1, "."))
LEGEND = "Signif. codes:  0 '***' 0.001 '**' 0.01 '*' 0.05 '.' 0.1 ' ' 1"


@dataclass(frozen=True)
class Block:
    """One part of a summary: a title, a table of text (or none), lines under it.

    Numbers of a column come with the same decimals and width. `align` has a letter per column: "l" left, "r" right,
    "n" numbers under a head on the left, as R prints matrices of text. `indent` counts spaces before the table.
    """

    title: str
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    align: str = ""
    notes: tuple[str, ...] = ()
    indent: int = 0


# -- numbers as R prints them ---


def numbers(values: Iterable[float], digits: int = 4) -> list[str]:
    """Format together: decimals that show `digits` digits of the smallest, and one width, as R does."""
    every = [float(v) for v in values]
    parts = [f"{v:.{digits - 1}e}".split("e") for v in every if math.isfinite(v)]
    significant = [max(len(mantissa.lstrip("-").replace(".", "").rstrip("0")), 1) for mantissa, _ in parts]
    places = max((n - 1 - int(power) for n, (_, power) in zip(significant, parts, strict=True)), default=0)
    plain = _even([_plain(v, f".{max(places, 0)}f") for v in every])
    scientific = _even([_plain(v, f".{max(significant, default=1) - 1}e") for v in every])
    return plain if not every or len(plain[0]) <= len(scientific[0]) else scientific


def fixed_point(values: Iterable[float], places: int) -> list[str]:
    """Format together with the same decimals and width."""
    return _even([_plain(float(v), f".{places}f") for v in values])


def _plain(value: float, spec: str) -> str:
    """One number, never "-0.00"."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Inf" if value > 0 else "-Inf"
    text = format(value, spec)
    return text[1:] if text.startswith("-") and not float(text) else text


def _even(texts: Sequence[str]) -> list[str]:
    width = max(map(len, texts), default=0)
    return [text.rjust(width) for text in texts]


def p_values(values: Sequence[float], digits: int = 3, eps: float = float(np.finfo(float).eps)) -> list[str]:
    """Format p-values as R's format.pval: fixed and scientific ones apart, tiny ones as "<2e-16"."""
    out = ["NaN"] * len(values)
    shown = [i for i, p in enumerate(values) if p >= eps]
    plain = [i for i in shown if values[i] >= 1e-4]
    for part in (plain, [i for i in shown if values[i] < 1e-4]):
        for i, text in zip(part, numbers([values[i] for i in part], digits), strict=True):
            out[i] = text
    tiny = f"<{' ' if max((len(out[i]) for i in shown), default=0) > 6 else ''}2e-16"
    return [tiny if p < eps else text for p, text in zip(values, out, strict=True)]


def stars(p: float) -> str:
    return next((stars for bound, stars in STARS if p <= bound), "")


# -- names ---


def clean(name: object) -> str:
    """A name on one line, without control characters."""
    return "".join(char if char.isprintable() else " " for char in str(name))


def effect_name(name: str) -> str:
    return "(Intercept)" if name == "Intercept" else clean(name)


def abbreviate(names: Sequence[str], length: int = 6) -> list[str]:
    """Shorten names to heads that differ, as R does: vowels go first, then small letters, from the right."""
    out = [_shorten(name, length) for name in names]
    longest = max(map(len, names), default=0)
    while len(set(out)) < len(set(names)) and length < longest:
        length += 1
        out = [_shorten(n, length) if out.count(s) > 1 else s for n, s in zip(names, out, strict=True)]
    return out


def _shorten(name: str, length: int) -> str:
    for goes in ("aeiou".__contains__, str.islower, str.isprintable):
        for i in range(len(name) - 1, 0, -1):
            if len(name) <= length:
                return name
            if goes(name[i]) and not name[i - 1].isspace():
                name = name[:i] + name[i + 1 :]
    return name


# -- what a summary says ---


def summary_blocks(fit: Fit, ddf: str = "satterthwaite") -> list[Block]:
    """Everything a summary shows, in order.

    Parameters
    ----------
    ddf : {"satterthwaite", "none"}
        "none" leaves out degrees of freedom and p-values, as lme4 does.
    """
    blocks = [_heading(fit, ddf), criterion_block(fit), residual_block(fit), random_block(fit), _fixed(fit, ddf),
              correlation_block(fit), closing(fit)]
    return [block for block in blocks if block is not None]


def _heading(fit: Fit, ddf: str) -> Block:
    kind = "Linear mixed model" if fit.design.terms else "Linear model"
    lines = []
    if ddf != "none" and fit.design.names:
        exact = not fit.design.terms and fit.reml and fit.model.residual is None
        lines.append(f"t-tests use {'n - p degrees of freedom' if exact else SATTERTHWAITE}")
    lines.append(f"Formula: {' '.join(clean(fit.formula).split())}")
    if fit.design.weights is not None:
        lines.append("Weights: given; the residual variance is that of weight one")
    return Block(f"{kind} fit by {'REML' if fit.reml else 'maximum likelihood'}", notes=tuple(lines))


def criterion_block(fit: Fit) -> Block:
    if fit.reml:
        return Block("", notes=(f"REML criterion at convergence: {_plain(fit.criterion, '.1f')}",))
    values = (fit.aic, fit.bic, fit.loglik, fit.deviance)
    row = (*(_plain(v, ".1f") for v in values), str(fit.df_residual))
    return _spread("", ("AIC", "BIC", "logLik", "-2*log(L)", "df.resid"), row)


def _spread(title: str, header: tuple[str, ...], row: Sequence[str]) -> Block:
    """A single row, its columns equally wide."""
    width = max(map(len, (*header, *row)))
    return Block(title, header, (tuple(cell.rjust(width) for cell in row),), "r" * len(header))


def residual_block(fit: Fit) -> Block | None:
    """Quantiles of the residuals over sigma; not known for a fit read without its data."""
    if getattr(fit.design, "y", None) is None or not fit.sigma > 0:
        return None
    scaled = fit.residuals("pearson")
    known = scaled[np.isfinite(scaled)]
    if not len(known):  # of a perfect fit, without variance
        return None
    quantiles = np.quantile(known, (0, 0.25, 0.5, 0.75, 1))
    top = float(np.abs(quantiles).max())
    places = max(0, math.floor(5.5 - math.log10(top))) if top > 0 else 5  # R's zapsmall
    texts = numbers([round(float(q), places) for q in quantiles])
    return _spread("Scaled residuals:", ("Min", "1Q", "Median", "3Q", "Max"), texts)


def random_block(fit: Fit) -> Block:
    counts = {term.group: len(term.levels) for term in fit.design.terms}
    sizes = "; ".join(f"{clean(group)}, {count}" for group, count in counts.items())
    observed = f"Number of obs: {fit.nobs}" + (f", groups:  {sizes}" if sizes else "")
    if fit.generalised and not fit.design.terms:
        return Block("", notes=(observed,))
    if not fit.design.terms:
        lines = (f"Residual standard deviation: {numbers([fit.sigma])[0]}", *_structures(fit), observed)
        return Block("", notes=lines)
    covs = fit.random_cov()
    sds = [np.sqrt(np.diag(cov)) for cov in covs]
    every = np.append(np.concatenate(sds), fit.sigma)
    variances, deviations = numbers(every**2), numbers(every)
    triangles = [
        correlations(cov, sd) if term.structure == "us" else []
        for term, cov, sd in zip(fit.design.terms, covs, sds, strict=True)
    ]
    width = max(map(len, triangles))
    texts = iter(fixed_point((value for rows in triangles for row in rows for value in row), 2))
    rows: list[tuple[str, ...]] = []
    k = 0
    for term, triangle, s in zip(fit.design.terms, triangles, fit.engine.blocks.structures, strict=True):
        one = s.n_sd == 1 and s.k > 1  # a variance that all effects share
        for i, name in enumerate([f"each of {s.k} effects"] if one else term.names):
            shown = [next(texts) for _ in triangle[i - 1]] if i and triangle else []
            cells = (*shown, *[""] * (width - len(shown)))
            rows.append(("" if i else clean(term.group), effect_name(name), variances[k], deviations[k], *cells))
            k += s.k if one else 1
    if not fit.generalised:
        rows.append(("Residual", "", variances[-1], deviations[-1], *[""] * width))
    heads = ("Groups", "Name", "Variance", "Std.Dev.", *["Corr", *[""] * width][: width])
    notes = (*_structures(fit), observed)
    return Block("Random effects:", heads, tuple(rows), "ll" + "n" * (2 + width), notes, indent=1)


def _structures(fit: Fit) -> list[str]:
    """Sentences on the correlations of structured terms, on known covariances and on the residuals."""
    out = []
    at = 0
    for term, s in zip(fit.design.terms, fit.engine.blocks.structures, strict=True):
        rho = fit.optimum.theta[at + s.n_theta - 1] if s.n_theta else np.nan
        at += s.n_theta
        if s.correlated:
            power = "**lag" if "ar1" in s.kind else ""
            out.append(f"{clean(term.group)}: {s.kind}(), correlation {_plain(rho, '.3f')}{power} between its {s.k} effects")
    out += [f"{clean(name)}: its levels have a known covariance" for name in fit.design.known]
    if (r := fit.model.residual) is not None:
        values = dict(zip(r.names(), numbers(fit.optimum.residual, 3), strict=True))
        out.append(f"Residual: {', '.join(r.texts())}")
        out += [f"  {name} = {text.strip()}" for name, text in values.items()]
        if r.serial is not None and r.serial.over != 1.0:
            out.append(f"  (rho is the correlation of rows {r.serial.over:.6g} apart in {clean(r.serial.time or 'order')})")
    return out


def correlations(cov: Array, sd: Array) -> list[list[float]]:
    """Lower triangle without the diagonal, row by row; NaN where an sd is zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        cor = cov / np.outer(sd, sd)
    return [cor[i, :i].tolist() for i in range(1, len(sd))]


def _fixed(fit: Fit, ddf: str) -> Block | None:
    columns = fit.fixef_columns(0.95, ddf)
    kept = [i for i, name in enumerate(fit.design.all_names) if name not in set(fit.design.dropped)]
    lost = tuple(m for m in fit.design.messages if "full rank" in m)
    if not kept:
        return None
    get = {name: np.asarray(values)[kept] for name, values in columns.items()}
    p = len(kept)
    joint = numbers([*readable(get["estimate"], get["std_error"]), *get["std_error"]])
    statistic = numbers([round(t, 3) for t in get["statistic"].tolist()])
    cells = [[effect_name(name) for name in get["term"].tolist()], joint[:p], joint[p:], statistic]
    header, align, notes = ["", "Estimate", "Std. Error", "t value"], "lrrr", []
    if ddf != "none":
        pvalue = get["p_value"].tolist()
        cells.insert(3, [text.rjust(len(joint[0])) for text in _degrees(get["df"])])
        cells += [p_values(pvalue)]
        header, align = [*header[:3], "df", "t value", "Pr(>|t|)"], "lrrrrr"
        if any(p <= STARS[-1][0] for p in pvalue):
            cells.append([stars(p) for p in pvalue])
            header, align, notes = [*header, ""], align + "l", ["---", LEGEND]
    rows = tuple(zip(*cells, strict=True))
    return Block("Fixed effects:", tuple(header), rows, align, (*notes, *lost))


def readable(estimate: Array, std_error: Array) -> list[float]:
    """Estimates; those far below their standard error are rounded, not to ask for decimals of their own."""
    out = []
    for value, error in zip(estimate.tolist(), std_error.tolist(), strict=True):
        if abs(value) < 1e-3 * error and math.isfinite(error):
            value = round(value, 3 - math.floor(math.log10(error)))
        out.append(value)
    return out


def _degrees(df: Array) -> list[str]:
    """Degrees of freedom; beyond a million they say no more than their size."""
    finite = df[np.isfinite(df) & (df < 1e6)]
    places = 3 if not len(finite) or finite.max() < 1000 else 1
    return [_plain(v, f".{places}f" if v < 1e6 else ".2e") for v in df.tolist()]


def correlation_block(fit: Fit) -> Block | None:
    names = [effect_name(name) for name in fit.design.names]
    if not 2 <= len(names) <= MAX_CORRELATED:
        return None
    vcov = fit.vcov()
    triangle = correlations(vcov, np.sqrt(np.diag(vcov)))
    texts = iter(fixed_point((value for row in triangle for value in row), 3))
    width = len(names) - 1
    rows = [(name, *[next(texts) for _ in row], *[""] * (width - len(row)))
            for name, row in zip(names[1:], triangle, strict=True)]
    header = ("", *abbreviate(names)[:-1])
    return Block("Correlation of Fixed Effects:", header, tuple(rows), "l" + "n" * width)


def closing(fit: Fit) -> Block:
    """The verdict, and what was left out; dropped columns stand under the fixed effects."""
    others = [m for m in fit.design.messages if "full rank" not in m or not fit.design.names]
    return Block("", notes=(fit.convergence.sentence, *others))


# -- renderers ---


def summary_text(fit: Fit, ddf: str = "satterthwaite") -> str:
    """The summary as lme4 and lmerTest print it."""
    return text_of(summary_blocks(fit, ddf))


def text_of(blocks: Sequence[Block]) -> str:
    """Blocks as text."""
    return "\n\n".join(_block_text(block) for block in blocks) + "\n"


def _block_text(block: Block) -> str:
    lines = [block.title] if block.title else []
    table = [block.header, *block.rows] if block.rows else []
    widths = [max(map(_width, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = (_pad(cell, width, how) for cell, width, how in zip(row, widths, block.align, strict=True))
        lines.append((" " * block.indent + " ".join(cells)).rstrip())
    return "\n".join([*lines, *block.notes])


def _width(text: str) -> int:
    """Columns a text takes on a terminal: none for combining marks, two for East Asian wide characters."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def _pad(text: str, width: int, how: str) -> str:
    blank = " " * (width - _width(text))
    return blank + text if how == "r" else text + blank


def summary_html(fit: Fit) -> str:
    """The summary as a piece of HTML that takes the colours of the page round it."""
    return html_of(summary_blocks(fit))


def html_of(blocks: Sequence[Block]) -> str:
    """Blocks as a piece of HTML."""
    parts = "\n".join(_block_html(block) for block in blocks)
    style = "font-variant-numeric:tabular-nums;line-height:1.35;max-width:100%;overflow-x:auto"
    return f'<div style="{style}">\n{parts}\n</div>'


def _block_html(block: Block) -> str:
    out = []
    if block.title:
        title = html.escape(block.title.rstrip(":"))
        out.append(f'<p style="margin:.5em 0 .1em 0"><strong>{title}</strong></p>')
    if block.rows:
        line = "1px solid rgba(128,128,128,.6)"
        style = f"color:inherit;border-collapse:collapse;margin:.1em 0;border-top:{line};border-bottom:{line}"
        body = "\n".join(_row_html(row, block.align, "td", "") for row in block.rows)
        head = _row_html(block.header, block.align, "th", f";border-bottom:{line}")
        out.append(f'<table style="{style}">\n<thead>\n{head}\n</thead>\n<tbody>\n{body}\n</tbody>\n</table>')
    notes = [note for note in block.notes if note != "---"]
    if notes:
        text = "<br>\n".join(html.escape(note) for note in notes)
        out.append(f'<p style="margin:.1em 0 .5em 0;font-size:90%">{text}</p>')
    return "\n".join(out)


def _row_html(row: Sequence[str], align: str, tag: str, more: str) -> str:
    cells = []
    for cell, how in zip(row, align, strict=True):
        side = "left" if how == "l" else "right"
        style = f"text-align:{side};padding:.15em .7em;border-left:0;border-right:0;white-space:nowrap{more}"
        cells.append(f'<{tag} style="{style}">{html.escape(cell.strip())}</{tag}>')
    return f'<tr style="background:transparent">{"".join(cells)}</tr>'


_LATEX = {
    **{char: "\\" + char for char in "{}_%&#$"}, "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "`": r"\textasciigrave{}", '"': r"\textquotedbl{}",
}
_NUMBER = re.compile(r"(<?) ?(-?[\d.]+)(?:e([+-]\d+))?")


def _latex(text: str) -> str:
    """Escape what LaTeX would read as a command."""
    return "".join(_LATEX.get(char, char) for char in text)


def _latex_number(text: str) -> str:
    found = _NUMBER.fullmatch(text)
    if not found:
        return _latex(text)
    power = rf"\times 10^{{{int(found[3])}}}" if found[3] else ""
    return f"${found[1]}{found[2]}{power}$"


def summary_latex(fit: Fit) -> str:
    """The summary's tables for LaTeX; needs the package booktabs."""
    return latex_of(summary_blocks(fit))


def latex_of(blocks: Sequence[Block]) -> str:
    """Blocks as LaTeX tables."""
    parts = "\n\n\\medskip\n".join(_block_latex(block) for block in blocks)
    return "% needs \\usepackage{booktabs} and \\usepackage[T1]{fontenc}\n" + parts + "\n"


def _block_latex(block: Block) -> str:
    lines = [rf"\noindent\textbf{{{_latex(block.title.rstrip(':'))}}}"] if block.title else []
    if block.rows:
        lines += ["", r"\noindent", rf"\begin{{tabular}}{{{block.align.replace('n', 'r')}}}", r"\toprule"]
        lines += [" & ".join(_latex(cell) for cell in block.header) + r" \\", r"\midrule"]
        for row in block.rows:
            how = zip(row, block.align, strict=True)
            cells = (_latex(cell) if side == "l" else _latex_number(cell.strip()) for cell, side in how)
            lines.append(" & ".join(cells) + r" \\")
        lines += [r"\bottomrule", r"\end{tabular}"]
    for note in block.notes:
        if note != "---":
            lines += ["", rf"\noindent{{\small {_latex(note)}}}"]
    return "\n".join(lines)
