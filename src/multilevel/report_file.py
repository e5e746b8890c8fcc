"""report(): one self-contained page on a model, for a browser or for paper (named apart from the function)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Any

from . import __version__
from .errors import FileError, OptionError, nearest
from .report_html import Section, bullets, escape, page, paragraph

if TYPE_CHECKING:
    from .fit import Fit
    from .posterior import Posterior
    from .report_care import Trust
    from .report_words import Estimate

__all__ = ["report"]

MOST_SHORT = 3  # effects named at the top


def report(
    model: Fit | Posterior,
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    question: str | None = None,
    author: str | None = None,
    units: Mapping[str, str] | None = None,
    level: float = 0.95,
    pictures: bool = True,
) -> str:
    """Write one HTML page on a fitted model: question, data, model, estimates, groups, checks, and what to be careful about.

    The page is a single file that needs no network and no scripts, for light and dark screens and for paper. Nothing is
    fitted again. A model read from a file without its rows has a page too, which says what it lacks.

    Parameters
    ----------
    model : Fit or Posterior
    path : str or path
        Such as ``"report.html"``; a file of that name is replaced once the new one is complete.
    title, question, author : str, optional
        Default: made from the formula; no author.
    units : dict, optional
        Column -> its unit, for the sentences: ``{"Reaction": "ms", "Days": "day"}``.
    level : float
        Coverage of the intervals.
    pictures : bool
        False leaves them out. They need matplotlib (``pip install multilevel[plots]``); without it the page says so.

    Returns
    -------
    str
        The path.

    Raises
    ------
    OptionError, ColumnError
        For what is no model, and for units of what is no column of it.
    FileError
        For a directory, a folder that is not there, or a file that may not be changed; before anything is computed.

    Examples
    --------
    >>> import multilevel as ml
    >>> fit = ml.lmer("Reaction ~ Days + (Days | Subject)", ml.load("sleepstudy"))
    >>> ml.report(fit, "sleep.html", units={"Reaction": "ms", "Days": "day"})  # doctest: +SKIP
    'sleep.html'
    """
    from .archive import replacing
    from .inference import check_level
    from .model import check_flag

    name = _checked_path(path)
    _check_model(model)
    check_level(level)
    check_flag("pictures", pictures)
    _check_texts(title=title, question=question, author=author)
    named = _checked_units(model, units)
    content = _page(model, title, question, author, named, level, bool(pictures))
    with replacing(name) as file:
        file.write(content.encode("utf-8", "replace"))
    return name


# -- what was given ---------------------------------------------------------------------------------------------


def _checked_path(path: Any) -> str:
    from .archive import path_text
    from .cli_files import check_parent

    name = path_text(path)
    if os.path.isdir(name):
        raise FileError(f"cannot write {name!r}: it is a directory; give the name of a file in it")
    check_parent(name)
    if os.path.exists(name) and not os.access(name, os.W_OK):
        raise FileError(f"cannot write {name!r}: it exists and may not be changed")
    return name


def _check_model(model: Any) -> None:
    from .fit import Fit
    from .model import Model
    from .posterior import Posterior

    if isinstance(model, (Fit, Posterior)):
        return
    hint = "; fit it first: model.fit() or model.sample()" if isinstance(model, Model) else ""
    raise OptionError(f"report() takes a Fit or a Posterior, got {type(model).__name__}{hint}")


def _check_texts(**texts: Any) -> None:
    for option, text in texts.items():
        if text is not None and not isinstance(text, str):
            raise OptionError(f"{option} must be a text, got {type(text).__name__}")


def _checked_units(model: Any, units: Any) -> dict[str, str]:
    from .errors import ColumnError
    from .report_words import response_name
    from .storage import used_columns

    if units is None:
        return {}
    if not isinstance(units, Mapping) or not all(isinstance(one, str) for pair in units.items() for one in pair):
        raise OptionError(f"units is a dict of column to unit, such as {{'Days': 'day'}}; got {units!r}")
    known = list(dict.fromkeys([*used_columns(model), response_name(model)]))
    for name in units:
        if name not in known:
            hint = nearest(name, known) or f"its columns are {', '.join(known)}"
            raise ColumnError(f"units names {name!r}, which is no column of the model; {hint}")
    return dict(units)


# -- the page ---------------------------------------------------------------------------------------------------


def _page(
    source: Fit | Posterior,
    title: str | None,
    question: str | None,
    author: str | None,
    units: dict[str, str],
    level: float,
    pictures: bool,
) -> str:
    from . import report_words

    asked = escape(question) if question else report_words.question(source)
    sections = _sections(source, asked, author, units, level, pictures)
    byline = " · ".join([*([escape(author)] if author else []), date.today().isoformat()])
    footer = f"Made by multilevel {escape(__version__)}. One file; nothing in it is loaded from elsewhere."
    facts = {
        "generator": f"multilevel {__version__}",
        "author": author or "",
        "description": f"Report on {source.formula}",
    }
    return page(title or report_words.heading(source), byline, sections, footer, facts)


def _sections(
    source: Fit | Posterior, asked: str, author: str | None, units: dict[str, str], level: float, pictures: bool
) -> list[Section]:
    from . import report_care as care
    from . import report_data, report_model, report_numbers, report_origin, report_words
    from .posterior import Posterior
    from .report_drawn import Drawn

    bayes = isinstance(source, Posterior)
    found, evidence = report_words.estimates(source, level), care.trust(source)
    drawn = Drawn(source, level, pictures)
    return [
        Section("short", "In short", _short(source, found, evidence, level, units)),
        Section("question", "The question", f"<blockquote>{paragraph(asked)}</blockquote>"),
        Section("data", "The data", report_data.data_section(source) + drawn.data()),
        Section("model", "The model", report_model.model_section(source)),
        Section("estimates", "Estimates", report_numbers.effects_section(source, found, level, units)),
        Section(
            "variances",
            "What varies, and how much",
            report_numbers.variance_section(source, level) + drawn.parameters(),
        ),
        Section("groups", "The groups", report_numbers.groups_section(source, level) + drawn.groups()),
        Section("predictions", "Predictions", drawn.predictions()),
        Section("checks", "Checks", care.checks_section(evidence) + drawn.checks()),
        Section("evidence", "Sampling" if bayes else "Convergence", care.evidence_section(source, evidence)),
        Section("care", "What to be careful about", care.care_section(source, evidence, bayes)),
        Section("origin", "How this was made", report_origin.origin_section(source, author)),
        Section("cite", "How to cite", report_origin.cite_section(source)),
    ]


def _short(source: Fit | Posterior, found: list[Estimate], evidence: Trust, level: float, units: dict[str, str]) -> str:
    """The clearest effects, the share between groups, and how far all of it can be trusted."""
    from .report_care import cautions
    from .report_sentences import readings

    effects = [one for one in found if one.known and one.readable and one.name != "Intercept" and one.error]
    clearest = sorted(effects, key=lambda one: -abs(one.value) / float(one.error or 1))[:MOST_SHORT]
    shown = [one for one in effects if one in clearest] or found[:1]
    verdict = ("" if evidence.good else "<strong>Not to be relied on yet.</strong> ") + escape(evidence.sentence)
    items = [*([] if evidence.good else [verdict]), *readings(source, shown, level, units)]
    others = sum(one.name != "Intercept" for one in found) - sum(one.name != "Intercept" for one in shown)
    if others:
        items.append(f'{others} further coefficient{"s" * (others != 1)}: see <a href="#estimates">Estimates</a>.')
    items += _spread(source)
    items += [verdict] if evidence.good else []
    if evidence.checks is not None:
        look, problem = evidence.of("look"), evidence.of("problem")
        counts = f"{evidence.of('ok')} checks are in order, {look} want{'s' * (look == 1)} a look, {problem} "
        items.append(f"{counts}{'is a problem' if problem == 1 else 'are problems'}.")
    many = len(cautions(source, evidence))
    if many:
        items.append(f'{many} thing{"s" * (many != 1)} to look at first: <a href="#care">What to be careful about</a>.')
    return f'<div class="short">{bullets(items)}</div>'


def _spread(source: Fit | Posterior) -> list[str]:
    """How much the first effect of each term varies between groups."""
    from .cli_files import records
    from .report_html import number
    from .report_words import scale_name

    scale = scale_name(source)
    on = f" on the {escape(scale)} scale" if scale else ""
    out: list[str] = []
    for one in records(source.varcorr()):
        if one["term2"] is None and one["group"] != "Residual" and len(out) < MOST_SHORT:
            what = "the intercept" if one["term1"] == "Intercept" else f"the effect of <em>{escape(one['term1'])}</em>"
            varies = (
                f"varies with an sd of {number(one['sdcor'], 3)}{on}" if one["sdcor"] else "is estimated not to vary"
            )
            out.append(f"Between levels of <em>{escape(one['group'])}</em>, {what} {varies}.")
    return out
