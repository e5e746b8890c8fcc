"""Command line: what is asked of data before a model: `multilevel describe`, `icc`, `vif`, `pooling`."""

from __future__ import annotations

import argparse
import re
from typing import Any

from .cli_compare import check_files, check_saved, written
from .cli_files import check_plots, load_table, prepare_plots, read_model, records, write_picture
from .cli_verbs import with_factors
from .errors import OptionError

__all__ = ["describe_arguments", "icc_arguments", "pooling_arguments", "vif_arguments"]

DESCRIBED = """examples:
  multilevel describe pastes --groups batch,sample
  multilevel describe trial.csv --groups school,school:class --columns math,ses --json described.json"""
CORRELATED = """examples:
  multilevel icc math schid math10
  multilevel icc strength batch/cask pastes --json icc.json"""
INFLATED = """examples:
  multilevel vif "math ~ homework + ses + parented" math10
  multilevel vif model.mlv --json vif.json"""
POOLED = """examples:
  multilevel pooling "math ~ homework" schid math10 --plots pictures
  multilevel pooling "log_radon ~ floor" county radon --vary 1 --out counties.csv"""
_PYTHON = re.compile(r"ml\.cross_validate\(found\.partial,\s+leave=\"rows\"\s+or\s+\"groups\",\s+baselines=True\)")


def _files(parser: argparse.ArgumentParser, what: str, table: str) -> None:
    add = parser.add_argument
    add("--factor", metavar="COLUMN", action="append", default=[], help="treat a column of numbers as a factor (a,b)")
    add("--json", metavar="FILE", help=f"write {what} there as JSON")
    add("--out", metavar="FILE", help=f"write {table} there (.csv, .tsv, .parquet, .feather)")


def _split(text: str) -> list[str]:
    return [one.strip() for one in text.split(",")]


def _data_argument(parser: argparse.ArgumentParser, **options: Any) -> None:
    parser.add_argument("data", metavar="DATA", help="a data file, or a bundled set: math10", **options)


# -- describe -----------------------------------------------------------------------------------------------------------


def describe_arguments(parser: argparse.ArgumentParser) -> None:
    """What `multilevel describe` takes."""
    parser.epilog = DESCRIBED
    _data_argument(parser)
    add = parser.add_argument
    add("--groups", metavar="A,B", required=True, help="grouping factors; a:b for labels unique within a only")
    add("--columns", metavar="A,B", help="columns to describe (default: all others)")
    _files(parser, "everything", "the table of columns")
    parser.set_defaults(run=describe)


def describe(args: argparse.Namespace) -> list[str]:
    """Structure, sizes, holes, outliers and variances of grouped data."""
    from .description import describe as described

    check_files(args, [args.data])
    data = with_factors(load_table(args.data), args.factor)
    found = described(data, _split(args.groups), None if args.columns is None else _split(args.columns))
    tables = ("structure", "groups", "columns", "variance", "outliers")
    content = {
        "rows": found.n,
        **{name: records(getattr(found, name)) for name in tables},
        "random": found.random,
        "sentences": list(found.sentences),
    }
    return [str(found), *written(args, content, found.columns)]


# -- icc ----------------------------------------------------------------------------------------------------------------


def icc_arguments(parser: argparse.ArgumentParser) -> None:
    """What `multilevel icc` takes."""
    parser.epilog = CORRELATED
    add = parser.add_argument
    add("y", metavar="Y", help='a column, or an expression in quotes: "log(price)"')
    add("group", metavar="GROUP", help="a grouping factor, batch/cask for cask within batch, or several: plate,sample")
    _data_argument(parser)
    add("--family", metavar="NAME", default="gaussian", help="of Y: binomial, poisson, ... (default: gaussian)")
    add("--level", metavar="P", type=float, default=0.95, help="coverage of the interval (default: 0.95)")
    add("--refits", metavar="N", type=int, default=1000, help="behind an interval that is not exact (default: 1000)")
    add("--seed", metavar="N", type=int, default=0, help="of these refits (default: 0)")
    _files(parser, "the table", "it")
    parser.set_defaults(run=icc)


def icc(args: argparse.Namespace) -> list[str]:
    """Intraclass correlation and design effect."""
    from .description import _printed
    from .screening import icc as correlation

    check_files(args, [args.data])
    if args.refits < 2:
        raise OptionError(f"--refits must be a whole number of at least 2, got {args.refits}")
    data = with_factors(load_table(args.data), args.factor)
    groups = _split(args.group)
    options = {"level": args.level, "family": args.family, "n": args.refits, "seed": args.seed}
    found = correlation(args.y, groups if len(groups) > 1 else groups[0], data, **options)
    title = f"Intraclass correlation of {args.y}, interval of {100 * args.level:g} %"
    return [
        f"{title}\n\n{_printed(found)}",
        *written(args, {"y": args.y, "level": args.level, "icc": records(found)}, found),
    ]


# -- vif ----------------------------------------------------------------------------------------------------------------


def vif_arguments(parser: argparse.ArgumentParser) -> None:
    """What `multilevel vif` takes."""
    parser.epilog = INFLATED
    parser.add_argument("source", metavar="SOURCE", help='a formula in quotes, "~ a + b" too, or a saved model (.mlv)')
    _data_argument(parser, nargs="?")
    _files(parser, "the table", "it")
    parser.set_defaults(run=vif)


def vif(args: argparse.Namespace) -> list[str]:
    """Variance inflation of each fixed term."""
    from .description import _printed
    from .inflation import vif as inflation

    if "~" in args.source:
        if args.data is None:
            raise OptionError(f"a formula needs data: multilevel vif {args.source!r} DATA")
        check_files(args, [args.data])
        found = inflation(args.source, with_factors(load_table(args.data), args.factor))
    else:
        if args.data is not None:
            wrong = "comes first" if "~" in args.data else "has a ~; a saved model goes without data"
            raise OptionError(f"the formula {wrong}: multilevel vif FORMULA DATA, or multilevel vif MODEL.mlv")
        check_saved(args.source)
        if args.factor:
            raise OptionError("--factor goes with a formula; a saved model is as it was")
        check_files(args, [args.source])
        found = inflation(read_model(args.source))
    title = f"Variance inflation, {args.source}"
    return [f"{title}\n\n{_printed(found)}", *written(args, {"source": args.source, "vif": records(found)}, found)]


# -- pooling ------------------------------------------------------------------------------------------------------------


def pooling_arguments(parser: argparse.ArgumentParser) -> None:
    """What `multilevel pooling` takes."""
    parser.epilog = POOLED
    add = parser.add_argument
    add("formula", metavar="FORMULA", help='the fixed part, in quotes: "math ~ homework"')
    add("group", metavar="GROUP", help="column of the groups; region:city for combinations of two")
    _data_argument(parser)
    add("--vary", metavar="A,B", help="terms that vary by group beside the intercept; 1: the intercept alone")
    add("--family", metavar="NAME", default="gaussian", help="of the response (default: gaussian)")
    add("--ml", action="store_true", help="maximum likelihood instead of REML")
    add("--level", metavar="P", type=float, default=0.95, help="coverage of the intervals (default: 0.95)")
    _files(parser, "the coefficients", "the coefficients of each group")
    add("--plots", metavar="DIR", help="write the picture there: pooling")
    parser.set_defaults(run=pooling)


def pooling(args: argparse.Namespace) -> list[str]:
    """Complete, no and partial pooling side by side."""
    from .pooling_call import pooling as pooled

    if "~" not in args.formula:
        raise OptionError(f'{args.formula!r} is no formula: multilevel pooling "math ~ homework" schid math10')
    check_files(args, [args.data])
    check_plots(args.plots)
    data = with_factors(load_table(args.data), args.factor)
    vary = None if args.vary is None else _split(args.vary)
    found = pooled(args.formula, args.group, data, vary=vary, level=args.level, reml=not args.ml, family=args.family)
    wrote = []
    if args.plots:
        prepare_plots(args.plots)
        wrote = [write_picture(found.plot(), args.plots, "pooling")]
    content = {"formula": args.formula, "group": args.group, "coefficients": records(found.frame)}
    text = _PYTHON.sub(
        "multilevel cross-validate,\nwith --leave rows or groups and --baselines", str(found).rstrip("\n")
    )
    return [text, *written(args, content, found.frame, wrote)]
