"""Command line: `multilevel fit`, `predict`, `summary`, `data`.

Exit status 0 is success; 2 a mistake of the user, told in one line on standard error; 1 a bug; 130 an interrupt.
Everything heavy is imported where it is used, so that `multilevel --help` is immediate.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from . import __version__
from .errors import (
    ColumnError,
    FileError,
    FormulaError,
    MultilevelError,
    MultilevelWarning,
    OptionError,
    listing,
    nearest,
)

if TYPE_CHECKING:
    import pandas as pd

    from .fit import Fit

__all__ = ["main"]

PLOTS = ("groups", "caterpillar", "shrinkage", "effects", "residuals")

EXAMPLES = """examples:
  multilevel fit "math ~ homework + (homework | schid)" math10 --plots plots --save model.mlv
  multilevel fit "yield ~ dose + (1 | plot)" trial.csv --factor plot --json estimates.json
  multilevel predict model.mlv new.csv --interval prediction --out predicted.csv
  multilevel data sleepstudy --out sleepstudy.csv
"""


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
        _say(f"warning: {_one_line(text)}")
    for line in output:
        print(line)


def _say(text: str) -> None:
    with suppress(OSError, ValueError):
        print(f"multilevel: {text}", file=sys.stderr, flush=True)


def _in_options(message: str) -> str:
    """Advice given for Python, in the words of the command line."""
    python = "use new_levels='population' (a new group, its variance in the interval) or 'sample', or leave the group out "
    return message.replace(python + "with groups=", "use --new-levels population, or leave the group out with --groups")


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
    _fit_arguments(add("fit", help="fit a model and print it", description="Fit a linear mixed model and print it."))
    _predict_arguments(add("predict", help="predict new rows", description="Predict new rows with a saved model."))
    summary = add("summary", help="print a saved model", description="Print a saved model.")
    summary.add_argument("model", metavar="MODEL.mlv", help="written by multilevel fit --save")
    summary.set_defaults(run=_summary)
    data = add("data", help="list the bundled data sets, or write one", description="Bundled data sets.")
    data.add_argument("name", metavar="NAME", nargs="?", help="a set to write as CSV; without it they are listed")
    data.add_argument(
        "--out", metavar="FILE", help="write it there (.csv, .tsv, .parquet, .feather) instead of printing"
    )
    data.set_defaults(run=_data)
    return parser


def _fit_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("formula", metavar="FORMULA", help='in quotes: "math ~ homework + (homework | schid)"')
    add(
        "data",
        metavar="DATA",
        help="a .csv, .csv.gz, .tsv, .parquet, .feather or .arrow file, or a bundled set: math10",
    )
    add("--ml", action="store_true", help="maximum likelihood instead of REML")
    add("--weights", metavar="COLUMN", help="precision weights: residual variance is sigma^2 / weight")
    add("--offset", metavar="COLUMN", help="added to the prediction with coefficient one")
    add(
        "--factor",
        metavar="COLUMN",
        action="append",
        default=[],
        help="treat a column of numbers as a factor (a,b for several)",
    )
    add("--plots", metavar="DIR", help=f"write pictures there: {', '.join(PLOTS)}")
    add("--json", metavar="FILE", help="write the estimates there as JSON")
    add("--save", metavar="FILE", help="write the model there, for multilevel predict and ml.read()")
    add("--with-data", action="store_true", help="keep the rows in the saved model, for residuals and refits")
    add("--threads", metavar="N", type=int, help="processors to use; the answer does not depend on it")
    parser.set_defaults(run=_fit)


def _predict_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", metavar="MODEL.mlv", help="written by multilevel fit --save")
    add("new", metavar="NEW", help="a data file with the columns of the model, or the name of a bundled set")
    add("--groups", metavar="all|none|a,b", default="all", help="whose group effects enter (default: all)")
    add("--interval", choices=("confidence", "prediction"), help="of the mean, or of a new observation")
    add("--level", metavar="P", type=float, default=0.95, help="coverage of the interval (default: 0.95)")
    add(
        "--new-levels",
        choices=("error", "population"),
        default="error",
        help="groups that were not fitted: an error, or new ones from the population",
    )
    add("--out", metavar="FILE", help="write there instead of printing CSV")
    parser.set_defaults(run=_predict)


def _refuse_unknown(args: argparse.Namespace, unknown: Sequence[str]) -> NoReturn:
    first = next((one for one in unknown if one.startswith("-")), None)
    if first is None:
        raise OptionError(f"there is an argument too many: {unknown[0]!r}; a formula stands in quotes")
    parser = next(a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction)).choices[args.command]
    known = re.findall(r"--[a-z-]+", parser.format_help())
    hint = nearest(first.partition("=")[0], known) or f"allowed are {', '.join(dict.fromkeys(known))}"
    raise OptionError(f"multilevel {args.command} has no option {first!r}; {hint}")


# -- commands; each returns the lines to print ------------------------------------------------------


def _fit(args: argparse.Namespace) -> list[str]:
    _check_fit(args)
    from .model import Model

    data = _load(args.data)
    for column in (name for names in args.factor for name in names.split(",")):
        if column not in data.columns:
            hint = nearest(column, data.columns) or f"the columns are {listing(data.columns)}"
            raise ColumnError(f"--factor names {column!r}, which is no column of the data; {hint}")
        data[column] = data[column].astype("category")
    fit = Model(args.formula, data, weights=args.weights, offset=args.offset).fit(not args.ml, threads=args.threads)
    wrote = []
    if args.save:
        fit.save(args.save, data=args.with_data)
        wrote.append(args.save)
    if args.json:
        _write(args.json, json.dumps(_estimates(fit), indent=2, allow_nan=False, ensure_ascii=False) + "\n")
        wrote.append(args.json)
    if args.plots:
        wrote += _plots(fit, args.plots)
    return [fit.summary().rstrip("\n"), *(["", f"Wrote {', '.join(wrote)}"] if wrote else [])]


def _check_fit(args: argparse.Namespace) -> None:
    """Refuse before any work what could not be finished."""
    from .formula import parse

    if "~" not in args.formula and "~" in args.data:
        raise OptionError(f"the formula comes first: multilevel fit {args.data!r} {args.formula}")
    parse(args.formula)
    if args.with_data and not args.save:
        raise OptionError("--with-data belongs to --save FILE")
    _check_outputs([path for path in (args.save, args.json) if path is not None], args.data)
    if args.plots is not None:
        from importlib.util import find_spec

        if find_spec("matplotlib") is None:
            raise OptionError("--plots needs matplotlib, which is not installed: pip install multilevel[plots]")
        if os.path.exists(args.plots) and not os.path.isdir(args.plots):
            raise FileError(f"cannot write plots to {args.plots!r}: it is a file, not a directory")
        _check_parent(args.plots.rstrip(os.sep) or args.plots)


def _predict(args: argparse.Namespace) -> list[str]:
    from .storage import read
    from .table_files import format_of, to_text, write_table

    if args.out is not None:
        _check_outputs([args.out], args.new, args.model)
        format_of(args.out)
    groups = {"all": "all", "none": None}.get(args.groups, [name.strip() for name in args.groups.split(",")])
    fit = read(args.model)
    new = _load(args.new, _text_columns(fit))
    predicted = fit.predict(new, groups=groups, interval=args.interval, level=args.level, new_levels=args.new_levels)
    for column in predicted.columns:
        if column in new.columns:
            raise OptionError(f"{args.new!r} has a column {column!r}, which is the name of a predicted one; rename it")
    table = new.assign(**{column: predicted[column].to_numpy() for column in predicted.columns})
    if args.out is None:
        return [to_text(table).rstrip("\n")]
    write_table(table, args.out)
    return [f"Wrote {args.out} ({len(table)} rows)"]


def _summary(args: argparse.Namespace) -> list[str]:
    from .storage import read

    return [read(args.model).summary().rstrip("\n")]


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
    _check_outputs([args.out])
    format_of(args.out)
    table = load(args.name)
    write_table(table, args.out)
    return [f"Wrote {args.out} ({len(table)} rows)"]


# -- files -----------------------------------------------------------------------------------------


def _text_columns(fit: Fit) -> list[str]:
    """Columns whose levels were text when fitting; a CSV file does not tell the level "308" from a number."""
    known = [(name, info.levels) for name, info in fit.design.remake.infos.items() if not info.number]
    for term in fit.design.remake.terms:
        known += [
            (name, levels.tolist()) for name, levels in zip(term.grouping.columns, term.grouping.labels, strict=True)
        ]
    return [name for name, levels in known if levels and all(isinstance(level, str) for level in levels)]


def _load(name: str, text: Sequence[str] = ()) -> pd.DataFrame:
    """A data file; or, where there is none of that name, a bundled set."""
    from .table_files import read_table

    if os.path.lexists(name) and not os.path.isdir(name):
        return read_table(name, text)
    from .datasets import datasets, load

    names = datasets()["name"].tolist()
    if name in names:
        return load(name)
    if os.path.isdir(name):
        raise FileError(f"cannot read {name!r}: it is a directory")
    beside = os.path.dirname(name) or "."
    files = os.listdir(beside) if os.path.isdir(beside) else []
    hint = nearest(os.path.basename(name), [*files, *names]) or f"the bundled sets are {', '.join(names)}"
    raise FileError(f"there is no file {name!r}, and no bundled data set of that name; {hint}")


def _check_outputs(paths: Sequence[str], *inputs: str) -> None:
    """Refuse places that cannot be written, and files that are read or written already."""
    seen = {os.path.realpath(path): "it is read by this command" for path in inputs if os.path.exists(path)}
    for path in paths:
        if not path or os.path.isdir(path):
            raise FileError(f"cannot write {path!r}: " + ("it is a directory" if path else "the name is empty"))
        _check_parent(path)
        real = os.path.realpath(path)
        if os.path.isfile(real) and not os.access(real, os.W_OK):
            raise FileError(f"cannot write {path!r}: it exists and may not be changed")
        if real in seen and (os.path.isfile(real) or not os.path.exists(real)):
            raise FileError(f"cannot write {path!r}: {seen[real]}")
        seen[real] = "it is named twice"


def _check_parent(path: str) -> None:
    parent = os.path.dirname(path) or "."
    if not os.path.isdir(parent):
        raise FileError(f"cannot write {path!r}: there is no directory {parent!r}")
    if not os.path.exists(path) and not os.access(parent, os.W_OK | os.X_OK):
        raise FileError(f"cannot write {path!r}: the directory {parent!r} may not be changed")


def _write(path: str, text: str) -> None:
    from .archive import replacing

    with replacing(path) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def _plots(fit: Fit, directory: str) -> list[str]:
    """Write every picture that the model has; a warning says which it has not, and why."""
    from .archive import replacing

    os.environ.setdefault("MPLBACKEND", "Agg")  # no window is opened
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot write plots to {directory!r}: {error.strerror or error}") from None
    wrote = []
    for name in PLOTS:
        draw: Callable[[], Any] = getattr(fit.plot, name)
        try:
            axes = draw()
        except MultilevelError as error:
            warnings.warn(f"no plot of {name}: {error}", MultilevelWarning, stacklevel=2)
            continue
        path = os.path.join(directory, f"{name}.png")
        with replacing(path) as file:
            (axes if hasattr(axes, "figure") else axes.flat[0]).figure.savefig(file, format="png", dpi=150)
        wrote.append(path)
    return wrote


# -- JSON ------------------------------------------------------------------------------------------


def _estimates(fit: Fit) -> dict[str, Any]:
    """What --json writes: tables as lists of records, null where a number is not finite."""
    return {
        "multilevel": __version__,
        "formula": fit.formula,
        "method": fit.criterion_name,
        "fixef": _records(fit.fixef()),
        "varcorr": _records(fit.varcorr()),
        "glance": _records(fit.glance())[0],
        "convergence": {name: _plain(value) for name, value in dataclasses.asdict(fit.convergence).items()},
        "messages": list(fit.messages),
    }


def _records(frame: Any) -> list[dict[str, Any]]:
    return [{str(name): _plain(value) for name, value in row.items()} for row in frame.to_dict("records")]


def _plain(value: Any) -> Any:
    """A value of JSON's types; what is no number there is null."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
