"""Command line: options that models share, and the commands on a saved model (`update`, `profile`, `check`,
`report`)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import __version__
from .cli_files import (
    PLOTS,
    check_outputs,
    check_plots,
    estimates,
    load_table,
    prepare_plots,
    read_fit,
    read_model,
    records,
    text_columns,
    write_json,
    write_picture,
    write_plots,
    write_report,
)
from .errors import ColumnError, OptionError, listing, nearest

if TYPE_CHECKING:
    import pandas as pd

    from .fit import Fit

DDF = ("satterthwaite", "kenward-roger", "none")
MODEL_OPTIONS = ("weights", "offset", "correlation", "variance")  # what Model is told by options of these names
FAMILY_OPTIONS = ("family", "link", "dispersion", "zi", "hurdle")


# -- options ----------------------------------------------------------------------------------------


def model_options(parser: argparse.ArgumentParser) -> None:
    """What a model is beside its formula and data."""
    add = parser.add_argument
    add("--weights", metavar="COLUMN", help="precision weights: residual variance is sigma^2 / weight; of "
        "proportions (--family binomial) their numbers of trials")
    add("--offset", metavar="COLUMN", help="added to the prediction with coefficient one")
    add(
        "--correlation",
        metavar="TEXT",
        help='of the residuals within groups: "ar1(week | subject)", "ar1(1 | subject)", "car1(day | subject)"',
    )
    add("--variance", metavar="TEXT", help='of the residuals: "ident(sex)", "power(age)", "power(fitted)", "exp(age)"')
    add(
        "--factor",
        metavar="COLUMN",
        action="append",
        default=[],
        help="treat a column of numbers as a factor (a,b for several)",
    )


def family_options(parser: argparse.ArgumentParser) -> None:
    """What the distribution of the response is."""
    add = parser.add_argument
    add(
        "--family",
        metavar="NAME",
        default="gaussian",
        help="of the response: binomial, poisson, nbinom2, nbinom1, gamma, beta, ordinal, ... (default: gaussian)",
    )
    add("--link", metavar="NAME", help="between mean and linear predictor: log, logit, probit, ... (default: the family's)")
    add("--dispersion", metavar="TEXT", help='predictors of the log dispersion: "~ x"')
    add(
        "--quadrature",
        metavar="N",
        type=int,
        help="integrate the likelihood by N points per random effect (default: 1, Laplace's approximation)",
    )
    zeros = parser.add_mutually_exclusive_group()
    zeros.add_argument("--zi", metavar="TEXT", help='extra zeros of counts: "~ 1", or predictors of their logit "~ x"')
    zeros.add_argument("--hurdle", metavar="TEXT", help='all zeros apart, counts truncated at zero: "~ 1" or "~ x"')


def output_options(parser: argparse.ArgumentParser, posterior: Sequence[str] = ()) -> None:
    """What is printed and written of a fit, or of a posterior with these pictures."""
    add = parser.add_argument
    of_posterior = f"; with --bayes {', '.join(posterior)}" if posterior else ""
    add("--ddf", choices=DDF, default=DDF[0], help="degrees of freedom of the tests (default: satterthwaite)")
    add("--plots", metavar="DIR", help=f"write pictures there: {', '.join(PLOTS)}{of_posterior}")
    add("--json", metavar="FILE", help="write the estimates there as JSON")
    add("--report", metavar="FILE", help="write a page on the model there, as HTML: estimates, groups, checks, cautions")
    add("--save", metavar="FILE", help="write the model there, for multilevel predict and ml.read()")
    add("--with-data", action="store_true", help="keep the rows in the saved model, for check, update and residuals")
    add("--threads", metavar="N", type=int, help="processors to use; the answer does not depend on it")


def update_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _model_argument(parser)
    add("formula", metavar="FORMULA", help='in quotes; a dot stands for the old side: ". ~ . + x - z - (x | g) + (1 | g)"')
    add("--data", metavar="FILE", help="the data, where the model was saved without them or lacks a new column")
    method = parser.add_mutually_exclusive_group()
    method.add_argument("--ml", action="store_true", help="maximum likelihood (default: as the saved model)")
    method.add_argument("--reml", action="store_true", help="REML (default: as the saved model)")
    model_options(parser)
    output_options(parser)
    parser.set_defaults(run=update)


def profile_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _model_argument(parser)
    add("--level", metavar="P", type=float, default=0.95, help="coverage of the intervals (default: 0.95)")
    add(
        "--which",
        metavar="NAME",
        nargs="+",
        action="extend",
        help='only these parameters: sigma, Days, "sd(Subject, Days)", "cor(Subject, Intercept, Days)"',
    )
    add("--json", metavar="FILE", help="write intervals and profiles there as JSON")
    add("--plots", metavar="DIR", help="write a picture of the profiles there")
    parser.set_defaults(run=profile)


def check_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _model_argument(parser, " --with-data")
    add("--json", metavar="FILE", help="write the checks there as JSON")
    add("--plots", metavar="DIR", help="write the picture of the checks there")
    parser.set_defaults(run=check)


def report_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _model_argument(parser, " --with-data (without the rows the page lacks the checks)")
    add("out", metavar="OUT.html", help="the page to write")
    add("--title", metavar="TEXT", help="heading of the page (default: made from the formula)")
    add("--question", metavar="TEXT", help="what the model is to answer (default: made from the formula)")
    add("--author", metavar="NAME", help="who made it")
    add("--level", metavar="P", type=float, default=0.95, help="coverage of the intervals (default: 0.95)")
    add("--unit", metavar="COLUMN=UNIT", action="append", default=[], help="for the sentences (repeatable): Days=day")
    add("--no-pictures", action="store_true", help="leave the pictures out")
    parser.set_defaults(run=report)


def _model_argument(parser: argparse.ArgumentParser, how: str = "") -> None:
    parser.add_argument("model", metavar="MODEL.mlv", help=f"written by multilevel fit --save{how}")


def check_output_options(args: argparse.Namespace, *inputs: str) -> None:
    """Refuse before any work what could not be written."""
    save = getattr(args, "save", None)
    if getattr(args, "with_data", False) and not save:
        raise OptionError("--with-data belongs to --save FILE")
    wanted = (save, getattr(args, "json", None), getattr(args, "report", None))
    check_outputs([path for path in wanted if path is not None], *inputs)
    check_plots(args.plots)


def with_factors(data: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The data with columns of numbers made factors."""
    for column in (name for joined in names for name in joined.split(",")):
        if column not in data.columns:
            hint = nearest(column, data.columns) or f"the columns are {listing(data.columns)}"
            raise ColumnError(f"--factor names {column!r}, which is no column of the data; {hint}")
        data[column] = data[column].astype("category")
    return data


# -- commands; each returns the lines to print ------------------------------------------------------


def finish(fit: Fit, args: argparse.Namespace) -> list[str]:
    """Write what was asked for, and print the model."""
    summary = fit.summary(args.ddf).rstrip("\n")
    wrote = []
    if args.save:
        fit.save(args.save, data=args.with_data)
        wrote.append(args.save)
    if args.json:
        write_json(args.json, estimates(fit, args.ddf))
        wrote.append(args.json)
    if args.plots:
        wrote += write_plots(fit, args.plots)
    if args.report:
        wrote.append(write_report(fit, args.report))
    return [summary, *_wrote(wrote)]


def update(args: argparse.Namespace) -> list[str]:
    from .update import updated

    if "~" not in args.formula and "~" in args.model:
        raise OptionError(f"the model comes first: multilevel update {args.formula} {args.model!r}")
    check_output_options(args, args.model, *([args.data] if args.data else []))
    fit = read_fit(args.model)
    updated(fit, args.formula)
    if args.ddf == "kenward-roger" and (args.ml or not (fit.reml or args.reml)):
        raise OptionError("--ddf kenward-roger needs a REML fit; use --reml, or --ddf satterthwaite")
    if args.factor and args.data is None:
        raise OptionError("--factor belongs to --data FILE; the data in a saved model are as they were")
    data = None if args.data is None else with_factors(load_table(args.data, text_columns(fit)), args.factor)
    options = {name: value for name in MODEL_OPTIONS if (value := getattr(args, name)) is not None}
    reml = False if args.ml else True if args.reml else None
    try:
        again = fit.update(args.formula, data=data, reml=reml, **options)
    except ColumnError as error:
        if args.data is not None or fit.model.data is None:
            raise
        raise ColumnError(f"{error}. A saved model keeps only its own columns; give --data FILE") from None
    return finish(again, args)


def profile(args: argparse.Namespace) -> list[str]:
    from .inference import check_level

    check_output_options(args, args.model)
    check_level(args.level)
    fit = read_fit(args.model)
    made = fit.profile(args.which)
    table = records(made.confint(args.level))
    wrote = []
    if args.json:
        content = {
            "multilevel": __version__,
            "formula": fit.formula,
            "method": "ML",
            "level": args.level,
            "deviance": made.deviance,
            "intervals": table,
            "profile": records(made.frame()),
            "messages": list(made.messages),
        }
        write_json(args.json, content)
        wrote.append(args.json)
    if args.plots:
        prepare_plots(args.plots)
        wrote.append(write_picture(made.plot(), args.plots, "profile"))
    lines = [
        f"Profile likelihood intervals, {100 * args.level:g} %, estimates by maximum likelihood",
        f"Formula: {fit.formula}",
        "",
        *_intervals(table),
    ]
    return [*lines, *_wrote(wrote)]


def check(args: argparse.Namespace) -> list[str]:
    check_output_options(args, args.model)
    fit = read_model(args.model)
    made = fit.check()
    wrote = []
    if args.json:
        content = {"multilevel": __version__, "formula": fit.formula, "worst": made.worst, "checks": records(made.frame())}
        write_json(args.json, content)
        wrote.append(args.json)
    if args.plots:
        wrote += write_plots(fit, args.plots, ("check",))
    return [f"Formula: {fit.formula}", "", str(made), *_wrote(wrote)]


def report(args: argparse.Namespace) -> list[str]:
    from .inference import check_level

    check_outputs([args.out], args.model)
    check_level(args.level)
    units = {}
    for text in args.unit:
        name, sign, unit = text.rpartition("=")
        if not sign or not name.strip() or not unit.strip():
            raise OptionError(f"--unit {text!r} cannot be read; write COLUMN=UNIT, for example --unit Days=day")
        units[name.strip()] = unit.strip()
    chosen = {name: getattr(args, name) for name in ("title", "question", "author", "level")}
    path = write_report(read_model(args.model), args.out, **chosen, units=units, pictures=not args.no_pictures)
    return [f"Wrote {path}"]


def _intervals(table: list[dict[str, Any]]) -> list[str]:
    """Rows of a table of intervals, four digits or so."""
    header = ("", "estimate", "low", "high")
    names = ("estimate", "conf_low", "conf_high")
    rows = [(row["term"], *("-" if row[name] is None else f"{row[name]:.5g}" for name in names)) for row in table]
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(4)]
    return [
        f"{row[0]:<{widths[0]}}  " + "  ".join(f"{row[i]:>{widths[i]}}" for i in (1, 2, 3)) for row in (header, *rows)
    ]


def _wrote(files: Sequence[str]) -> list[str]:
    return ["", f"Wrote {', '.join(files)}"] if files else []
