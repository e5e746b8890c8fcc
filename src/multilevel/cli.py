"""Command line: `multilevel fit`, `predict`, `update`, `profile`, `check`, `report`, `summary`, `compare`,
`cross-validate`, `describe`, `icc`, `vif`, `pooling`, `classify`, `data`.

Exit status 0 is success; 2 a mistake of the user, told in one line on standard error; 1 a bug; 130 an interrupt.
Everything heavy is imported where it is used, so that `multilevel --help` is immediate.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

from . import __version__, cli_bayes, cli_classify, cli_compare, cli_screening, cli_verbs
from .cli_files import check_outputs, load_table, read_model, text_columns
from .errors import FormulaError, MultilevelError, MultilevelWarning, OptionError, nearest

__all__ = ["main"]

EXAMPLES = """examples:
  multilevel fit "math ~ homework + (homework | schid)" math10 --plots plots --save model.mlv
  multilevel fit "yield ~ dose + (1 | plot)" trial.csv --factor plot --json estimates.json
  multilevel fit "distance ~ age * Sex + (1 | Subject)" orthodont --variance "ident(Sex)"
  multilevel fit "cbind(incidence, size - incidence) ~ period + (1 | herd)" cbpp --family binomial
  multilevel fit "math ~ homework + (homework | schid)" math10 --bayes --prior "sd(schid)=HalfNormal(5)" --save draws.mlv
  multilevel update model.mlv ". ~ . + I(homework^2)" --data math10 --ml
  multilevel profile model.mlv --plots plots
  multilevel report model.mlv report.html --question "Does homework pay?" --author "A. Reader"
  multilevel predict model.mlv new.csv --interval prediction --out predicted.csv
  multilevel classify train titles.csv --text title --levels cat1,cat2 --out model.zip
  multilevel compare "math ~ homework + (1 | schid)" "math ~ homework + (homework | schid)" math10
  multilevel cross-validate "math ~ homework + (homework | schid)" math10 --baselines --plots plots
  multilevel describe pastes --groups batch,sample
  multilevel data sleepstudy --out sleepstudy.csv
"""


IN_OPTIONS = (
    (
        "use new_levels='population' (a new group, its variance in the interval) or 'sample', or leave the group out with "
        "groups=",
        "use --new-levels population (a new group, its variance in the interval) or --new-levels sample, or leave the group "
        "out with --groups",
    ),
    ("new_levels='sample' draws", "--new-levels sample draws"),
    ("method='sample' with a prior", "a posterior (pooling(method='sample') in Python)"),
    ("method='sample' knows that too", "A posterior (pooling(method='sample') in Python) knows that too"),
    ("quadrature must be", "--quadrature must be"),
    ("quadrature=", "--quadrature "),
    ("give data=, or save it with save(path, data=True)", "give --data FILE, or save it with --save FILE --with-data"),
    ("save it with save(path, data=True)", "save it with --save FILE --with-data"),
    ("give weights= with other data", "give --weights COLUMN"),
    ("give offset= again", "give --offset COLUMN"),
    ("confint(method='bootstrap')", "confint(method='bootstrap') in Python"),
    ("(which=their names)", "(--which with their names)"),
    ("thin=, or none with keep='parameters'", "--thin, or none with --keep parameters"),
    ("keep='parameters'", "--keep parameters"),
    ("keep='all'", "--keep all"),
    ("target= (0.95)", "--target (0.95)"),
    ("method='nuts'", "--method nuts"),
    ("method='independent'", "--method independent"),
    ("or method='bootstrap'", "or method='bootstrap' in Python"),
    ("sample with thin= to keep fewer", "sample with --thin to keep fewer"),
    ("kind='link'", "--kind link"),
    ("interval='prediction'", "--interval prediction"),
    ("interval='confidence'", "--interval confidence"),
    ("groups=None", "--groups none"),
    ("raise max_iter", "raise --max-iter"),
    ("Or give an array with the fold of each row", "Or name a column with --labels"),
    ("leave='groups'", "--leave groups"),
    ("units names", "--unit names"),
    ("simulate must", "--simulate must"),
    ("leave='school'", "--leave school"),
    ("leave=", "--leave "),
    ("n_jobs must", "--jobs must"),
    ("folds must", "--folds must"),
    ("folds is ", "--folds is "),
    ("leave has no fold", "--labels has no fold"),
    ("leave puts all rows", "--labels puts all rows"),
    ("leave baselines out", "leave --baselines out"),
    ("simulate= is of", "--simulate is of"),
    ("see by_fold()", "see by_fold() in Python"),
    ("with group= and vary=, or the whole formula without these", "such as 'math ~ homework', with GROUP and --vary"),
    ("likelihood='nested'", "--likelihood nested"),
    ("prior='calibrated'", "--prior calibrated"),
)
CLASSIFY = "Classifiers over a tree of classes, in which small classes lean on their siblings."
# commands whose output is no data
PRINTS_ADVICE = ("fit", "update", "profile", "check", "summary", "compare", "cross-validate", "pooling")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; default those of the process.

    Returns
    -------
    int
        Exit status.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError, OSError):  # a terminal that lacks a character shows a code for it
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        _run(argv)
        sys.stdout.flush()
        return 0
    except SystemExit as leaving:  # argparse, after --help and --version
        return int(leaving.code or 0)
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    except BrokenPipeError:  # the reader of the output has seen enough
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except FormulaError as error:
        first, *caret = str(error).split("\n")
        _say(_one_line(first))
        print(*caret, sep="\n", end="\n" if caret else "", file=sys.stderr)
        return 2
    except MultilevelError as error:
        _say(_in_options(_one_line(error)))
        return 2
    except MemoryError:
        _say("there is not enough memory for this; fit a sample of the rows, or fewer effects")
        return 2
    except Exception:
        traceback.print_exc()
        _say("this is a bug in multilevel, not a mistake of yours; please report it with the lines above")
        return 1


def _run(argv: Sequence[str] | None) -> None:
    """Parse, run, then show the warnings (a command that fails has one thing to say, and says it)."""
    args, unknown = _parser().parse_known_args(argv)
    if unknown:
        _refuse_unknown(args, unknown)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        output: list[str] = args.run(args)
    for text in dict.fromkeys(str(one.message) for one in caught if issubclass(one.category, MultilevelWarning)):
        _say(f"warning: {_in_options(_one_line(text))}")
    for line in output:
        print(_of_summary(line) if args.command in PRINTS_ADVICE else line)


def _of_summary(text: str) -> str:
    """What is printed of a model, with the options of the command line in its advice; the formula stays as it is."""
    return "\n".join(line if line.startswith("Formula:") else _in_options(line) for line in text.split("\n"))


def _say(text: str) -> None:
    with suppress(OSError, ValueError):
        print(f"multilevel: {text}", file=sys.stderr, flush=True)


def _in_options(message: str) -> str:
    """Advice given for Python, in the words of the command line."""
    for python, option in IN_OPTIONS:
        message = message.replace(python, option)
    return message


def _one_line(text: object) -> str:
    return " ".join(str(text).split())


# -- arguments -------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """Complains in one line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        raise OptionError(f"{message} (see {self.prog} --help)")


def _parser() -> _Parser:
    parser = _Parser(
        prog="multilevel",
        epilog=EXAMPLES,
        description="Hierarchical (multilevel, mixed-effects) models from a formula.",
    )
    parser.add_argument("--version", action="version", version=f"multilevel {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, dest="command")
    add = commands.add_parser
    _fit_arguments(
        add(
            "fit",
            help="fit a model and print it",
            description="Fit a mixed model, linear or of another family, or draw its posterior (--bayes), and print it.",
        )
    )
    _predict_arguments(add("predict", help="predict new rows", description="Predict new rows with a saved model."))
    cli_verbs.update_arguments(
        add("update", help="fit a saved model again, changed", description="Fit a saved model with another formula.")
    )
    cli_verbs.profile_arguments(
        add("profile", help="intervals of every parameter", description="Profile likelihood intervals of a saved model.")
    )
    cli_verbs.check_arguments(
        add("check", help="check a saved model's assumptions", description="Check the assumptions of a saved model.")
    )
    cli_verbs.report_arguments(
        add("report", help="write a page on a saved model", description="Write one HTML page on a saved model.")
    )
    summary = add("summary", help="print a saved model", description="Print a saved model.")
    summary.add_argument("model", metavar="MODEL.mlv", help="written by multilevel fit --save")
    summary.set_defaults(run=_summary)
    _comparing(add)
    cli_classify.classify_arguments(
        add("classify", help="sort texts into a tree of classes: train, predict", description=CLASSIFY)
    )
    data = add("data", help="list the bundled data sets, or write one", description="Bundled data sets.")
    data.add_argument("name", metavar="NAME", nargs="?", help="a set to write as CSV; without it they are listed")
    data.add_argument(
        "--out", metavar="FILE", help="write it there (.csv, .tsv, .parquet, .feather) instead of printing"
    )
    data.set_defaults(run=_data)
    return parser


def _comparing(add: Any) -> None:
    """Commands on several models, and on data before any model."""
    for name, arguments, text in (
        ("compare", cli_compare.compare_arguments, "Compare models of the same data."),
        ("cross-validate", cli_compare.cross_validate_arguments, "Score models on rows or groups they were fitted without."),
        ("pooling", cli_screening.pooling_arguments, "Complete, no and partial pooling side by side."),
        ("describe", cli_screening.describe_arguments, "Describe grouped data before anything is modelled."),
        ("icc", cli_screening.icc_arguments, "Intraclass correlation of a column, and its design effect."),
        ("vif", cli_screening.vif_arguments, "Variance inflation of each predictor."),
    ):
        arguments(add(name, help=text[0].lower() + text[1:-1], description=text))


def _fit_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("formula", metavar="FORMULA", help='in quotes: "math ~ homework + (homework | schid)"')
    add(
        "data",
        metavar="DATA",
        help="a .csv, .csv.gz, .tsv, .parquet, .feather or .arrow file, or a bundled set: math10",
    )
    add("--ml", action="store_true", help="maximum likelihood instead of REML")
    cli_verbs.family_options(parser)
    cli_verbs.model_options(parser)
    cli_verbs.output_options(parser, cli_bayes.PLOTS)
    cli_bayes.bayes_options(parser)
    parser.set_defaults(run=_fit)


def _predict_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", metavar="MODEL.mlv", help="written by multilevel fit --save")
    add("new", metavar="NEW", help="a data file with the columns of the model, or the name of a bundled set")
    add("--groups", metavar="all|none|a,b", default="all", help="whose group effects enter (default: all)")
    add("--kind", choices=("response", "link"), default="response", help="means, or linear predictors (default: response)")
    add("--interval", choices=("confidence", "prediction"), help="of the mean, or of a new observation")
    add("--level", metavar="P", type=float, default=0.95, help="coverage of the interval (default: 0.95)")
    add(
        "--new-levels",
        choices=("error", "population", "sample"),
        default="error",
        help="groups that were not fitted: an error, average ones of the population, or ones drawn from it",
    )
    add("--seed", metavar="N", type=int, help="of --new-levels sample, and of intervals from a posterior")
    add("--out", metavar="FILE", help="write there instead of printing CSV")
    parser.set_defaults(run=_predict)


def _refuse_unknown(args: argparse.Namespace, unknown: Sequence[str]) -> NoReturn:
    first = next((one for one in unknown if one.startswith("-")), None)
    if first is None:
        raise OptionError(f"there is an argument too many: {unknown[0]!r}; a formula stands in quotes")
    parser, names = _parser(), [args.command, *([args.verb] if args.command == "classify" else [])]
    for name in names:
        parser = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction)).choices[name]
    known = re.findall(r"--[a-z-]+", parser.format_help())
    hint = nearest(first.partition("=")[0], known) or f"allowed are {', '.join(dict.fromkeys(known))}"
    raise OptionError(f"multilevel {' '.join(names)} has no option {first!r}; {hint}")


# -- commands; each returns the lines to print ------------------------------------------------------


def _fit(args: argparse.Namespace) -> list[str]:
    from .formula import parse

    if "~" not in args.formula and "~" in args.data:
        raise OptionError(f"the formula comes first: multilevel fit {args.data!r} {args.formula}")
    parse(args.formula)
    cli_bayes.check_bayes_options(args)
    cli_verbs.check_output_options(args, args.data)
    if args.ml and args.ddf == "kenward-roger":
        raise OptionError("--ddf kenward-roger needs a REML fit; leave --ml out, or use --ddf satterthwaite")
    priors = cli_bayes.priors_of(args.prior)
    from .model import Model

    data = cli_verbs.with_factors(load_table(args.data), args.factor)
    names = (*cli_verbs.MODEL_OPTIONS, *cli_verbs.FAMILY_OPTIONS)
    model = Model(args.formula, data, priors=priors, **{name: getattr(args, name) for name in names})
    if args.bayes:
        return cli_bayes.finish(model, args)
    if model.distribution is not None and args.ddf == "kenward-roger":
        raise OptionError(f"--ddf kenward-roger is for the gaussian family; {args.family} tests use the normal distribution")
    return cli_verbs.finish(model.fit(not args.ml, threads=args.threads, quadrature=args.quadrature), args)


def _predict(args: argparse.Namespace) -> list[str]:
    from .table_files import format_of, to_text, write_table

    if args.out is not None:
        check_outputs([args.out], args.new, args.model)
        format_of(args.out)
    groups = {"all": "all", "none": None}.get(args.groups, [name.strip() for name in args.groups.split(",")])
    fit = read_model(args.model)
    new = load_table(args.new, text_columns(fit))
    predicted = fit.predict(
        new, groups=groups, kind=args.kind, interval=args.interval, level=args.level, new_levels=args.new_levels,
        seed=args.seed,
    )
    for column in predicted.columns:
        if column in new.columns:
            raise OptionError(f"{args.new!r} has a column {column!r}, which is the name of a predicted one; rename it")
    table = new.assign(**{column: predicted[column].to_numpy() for column in predicted.columns})
    if args.out is None:
        return [to_text(table).rstrip("\n")]
    write_table(table, args.out)
    return [f"Wrote {args.out} ({len(table)} rows)"]


def _summary(args: argparse.Namespace) -> list[str]:
    return [read_model(args.model).summary().rstrip("\n")]


def _data(args: argparse.Namespace) -> list[str]:
    from .datasets import datasets, load
    from .table_files import format_of, to_text, write_table

    if args.name is None:
        if args.out is not None:
            raise OptionError("--out needs the NAME of a data set; multilevel data lists them")
        table = datasets()
        width = max(map(len, table["name"]))
        return [
            f"{row.name:<{width}}  {row.rows:>6} rows  {row.description}"
            for row in table[["name", "rows", "description"]].itertuples(index=False, name="Row")
        ]
    if args.out is None:
        return [to_text(load(args.name)).rstrip("\n")]
    check_outputs([args.out])
    format_of(args.out)
    table = load(args.name)
    write_table(table, args.out)
    return [f"Wrote {args.out} ({len(table)} rows)"]
