"""Command line: `multilevel compare` and `multilevel cross-validate`, several models at once."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import __version__
from .cli_files import (
    check_outputs,
    check_plots,
    load_table,
    prepare_plots,
    read_model,
    records,
    write_json,
    write_picture,
)
from .cli_verbs import FAMILY_OPTIONS, MODEL_OPTIONS, _wrote, family_options, model_options, with_factors
from .errors import OptionError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["check_files", "check_saved", "compare_arguments", "cross_validate_arguments", "written"]

COMPARED = """examples:
  multilevel compare "Reaction ~ Days + (1 | Subject)" "Reaction ~ Days + (Days | Subject)" sleepstudy
  multilevel compare one.mlv two.mlv --json comparison.json"""
VALIDATED = """examples:
  multilevel cross-validate "math ~ homework + (homework | schid)" math10 --baselines --seed 1
  multilevel cross-validate "math ~ homework + (1 | schid)" "math ~ ses + (1 | schid)" math10 --leave groups --plots pictures
  multilevel cross-validate model.mlv --folds 5 --out rows.csv"""
PLOTS = ("differences", "folds", "groups", "calibration")
DEFAULTS = {"family": "gaussian"}


# -- options ------------------------------------------------------------------------------------------------------------


def compare_arguments(parser: argparse.ArgumentParser) -> None:
    """What `multilevel compare` takes."""
    parser.epilog = COMPARED
    add = parser.add_argument
    _models_argument(parser, "two or more formulas in quotes and the data, or saved models (.mlv)")
    add("--ml", action="store_true", help="maximum likelihood; else REML where the fixed parts are the same")
    add("--simulate", metavar="N", type=int, default=0, help="test by N responses drawn from the smaller model")
    add("--seed", metavar="N", type=int, help="of these responses")
    _shared(parser)
    add("--threads", metavar="N", type=int, help="processors to use; the answer does not depend on it")
    add("--json", metavar="FILE", help="write the comparison there as JSON")
    add("--out", metavar="FILE", help="write its table there (.csv, .tsv, .parquet, .feather)")
    parser.set_defaults(run=compare)


def cross_validate_arguments(parser: argparse.ArgumentParser) -> None:
    """What `multilevel cross-validate` takes."""
    parser.epilog = VALIDATED
    add = parser.add_argument
    _models_argument(parser, "formulas in quotes and the data, or models saved --with-data (.mlv)")
    add(
        "--leave",
        metavar="rows|groups|COLUMN",
        default="rows",
        help="rows at random, or whole groups: of the first model, or of a column (default: rows)",
    )
    add("--folds", metavar="N|all", default="10", help="parts; all: each row or group by itself (default: 10)")
    add("--labels", metavar="COLUMN", help="make folds by the labels in a column; rows without one are always fitted")
    add("--baselines", action="store_true", help="also complete pooling and no pooling of the first model")
    add("--seed", metavar="N", type=int, help="the same seed gives the same folds")
    add("--jobs", metavar="N", type=int, default=1, help="fits at a time; -1: as many as processors (default: 1)")
    add("--ml", action="store_true", help="maximum likelihood instead of REML")
    _shared(parser)
    add("--plots", metavar="DIR", help=f"write pictures there: {', '.join(PLOTS)}")
    add("--json", metavar="FILE", help="write the scores there as JSON")
    add("--out", metavar="FILE", help="write every row's prediction and scores there (.csv, .tsv, .parquet, .feather)")
    parser.set_defaults(run=cross_validate)


def _models_argument(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("models", metavar="MODEL", nargs="+", help=what)
    parser.add_argument("--names", metavar="A,B", help="what to call the models")


def _shared(parser: argparse.ArgumentParser) -> None:
    family_options(parser)
    model_options(parser)


# -- models -------------------------------------------------------------------------------------------------------------


def _given(args: argparse.Namespace, verb: str, least: int) -> tuple[list[str], str | None]:
    """Formulas with the data, or files of models without."""
    formulas = [one for one in args.models if "~" in one]
    rest = [one for one in args.models if "~" not in one]
    many = "two formulas" if least == 2 else "a formula"
    if not formulas:
        if len(rest) < least:
            raise OptionError(
                f"multilevel {verb} needs {many} and the data, or {'two' if least == 2 else 'a'} saved models"
            )
        for one in rest:
            check_saved(one)
        _no_model_options(args)
        return rest, None
    saved = next((one for one in rest if one.endswith(".mlv")), None)
    if saved is not None:
        raise OptionError(f"{saved!r} is a saved model and {formulas[0]!r} a formula; give models of one sort")
    if len(rest) != 1:
        which = f"there are {', '.join(map(repr, rest))}" if rest else "there are none"
        raise OptionError(f"multilevel {verb} takes formulas and one data file or bundled set; {which}")
    if args.models[-1] != rest[0]:
        raise OptionError(f"the data come last: multilevel {verb} {' '.join(map(repr, formulas))} {rest[0]}")
    if len(formulas) < least:
        raise OptionError(f"multilevel {verb} needs {many}, got one")
    return formulas, rest[0]


def check_saved(name: str) -> None:
    """Refuse what can be no saved model, such as a formula without its left side, or a data set.

    Raises
    ------
    OptionError
    """
    if not name.endswith(".mlv") and not os.path.isfile(name):
        raise OptionError(f"{name!r} is neither a saved model nor a formula; a formula has a ~ and stands in quotes")


def _no_model_options(args: argparse.Namespace) -> None:
    """Options of a model belong to formulas: a saved one has its own."""
    names = (*MODEL_OPTIONS, *FAMILY_OPTIONS, "quadrature", "factor", "ml", "threads")
    for name in names:
        value = getattr(args, name, None)  # 0 is given, though it equals False
        if not (value is None or value is False or value == [] or value == DEFAULTS.get(name)):
            raise OptionError(f"--{name} goes with formulas; a saved model is as it was")


def _names(args: argparse.Namespace, given: Sequence[str], default: Sequence[str]) -> list[str]:
    if args.names is None:
        return list(default)
    names = [name.strip() for name in args.names.split(",")]
    if len(names) != len(given) or not all(names) or len(set(names)) < len(names):
        raise OptionError(f"--names gives {args.names!r}, where {len(given)} different names are needed: a,b")
    return names


def _of_files(files: Sequence[str]) -> list[str]:
    """Files without ending, as long as these tell them apart."""
    names = [os.path.basename(file).removesuffix(".mlv") for file in files]
    return names if len(set(names)) == len(names) else list(files)


def _model(text: str, data: pd.DataFrame, args: argparse.Namespace) -> Any:
    from .model import Model

    return Model(text, data, **{name: getattr(args, name) for name in (*MODEL_OPTIONS, *FAMILY_OPTIONS)})


def _twice(given: Sequence[str]) -> None:
    again = next((one for one in given if given.count(one) > 1), None)
    if again is not None:
        raise OptionError(f"{again!r} is given twice; leave one out")


# -- commands; each returns the lines to print --------------------------------------------------------------------------


def compare(args: argparse.Namespace) -> list[str]:
    """Models of the same data side by side."""
    from .comparison import compare as compared
    from .formula import parse

    given, data = _given(args, "compare", 2)
    _twice(given)
    inputs = given if data is None else [data]
    check_files(args, inputs)
    if data is None:
        models = dict(zip(_names(args, given, _of_files(given)), map(read_model, given), strict=True))
    else:
        names = _names(args, given, [f"model {i}" for i in range(1, len(given) + 1)])
        for text in given:
            parse(text)
        table = with_factors(load_table(data), args.factor)
        made = [_model(text, table, args) for text in given]
        fits = [one.fit(not args.ml, threads=args.threads, quadrature=args.quadrature) for one in made]
        models = dict(zip(names, fits, strict=True))
    found = compared(models, simulate=args.simulate, seed=args.seed)
    content = {
        "criterion": found.criterion,
        "best": found.best,
        "sentence": found.sentence,
        "messages": list(found.messages),
        "models": records(found.frame()),
    }
    return [str(found).rstrip("\n"), *written(args, content, found.frame())]


def cross_validate(args: argparse.Namespace) -> list[str]:
    """Models scored on rows or groups that they were fitted without."""
    from .cross_validation import cross_validate as validated
    from .formula import parse

    given, data = _given(args, "cross-validate", 1)
    _twice(given)
    check_files(args, given if data is None else [data])
    check_plots(args.plots)
    folds: int | str = args.folds
    if args.folds != "all":
        try:
            folds = int(args.folds)
        except ValueError:
            raise OptionError(f"--folds takes a whole number of at least 2, or all; got {args.folds!r}") from None
    if args.labels is not None and args.leave != "rows":
        raise OptionError("--labels makes the folds, so that --leave has nothing to say; leave one of the two out")
    if data is None:
        models = dict(zip(_names(args, given, _of_files(given)), map(read_model, given), strict=True))
        table = next(iter(models.values())).model.data
    else:
        names = _names(args, given, given)
        for text in given:
            parse(text)
        table = with_factors(load_table(data), args.factor)
        models = {name: _fitted(text, table, args) for name, text in zip(names, given, strict=True)}
    leave = args.leave if args.labels is None else _labels(table, args.labels)
    found = validated(models, leave, folds, args.seed, args.jobs, baselines=args.baselines)
    content = {
        "summary": records(found.summary()),
        "compare": records(found.compare()),
        "messages": list(found.messages),
    }
    wrote = []
    if args.plots:
        prepare_plots(args.plots)
        kinds = [kind for kind in PLOTS if kind != "groups" or found.folds.units or found.model.design.terms]
        wrote = [write_picture(found.plot(kind), args.plots, kind) for kind in kinds]
    return [repr(found), *written(args, content, found.by_row(), wrote)]


def _fitted(text: str, data: pd.DataFrame, args: argparse.Namespace) -> Any:
    """A model; where the criterion or quadrature are not the usual ones a fit, which says them."""
    model = _model(text, data, args)
    if args.quadrature is not None:
        model = model.with_quadrature(args.quadrature)
    return model.fit(False) if args.ml else model


def _labels(table: Any, column: str) -> Any:
    from .frame import Table

    if table is None:
        raise OptionError("--labels needs the data; save the model with --with-data")
    return Table(table).load([column], {column: "--labels"})[column]


# -- files --------------------------------------------------------------------------------------------------------------


def check_files(args: argparse.Namespace, inputs: Sequence[str]) -> None:
    """Refuse before any work what could not be written."""
    from .table_files import format_of

    outputs = [path for path in (args.json, args.out) if path is not None]
    check_outputs(outputs, *inputs)
    if args.out is not None:
        format_of(args.out)


def written(args: argparse.Namespace, content: dict[str, Any], frame: Any, wrote: Sequence[str] = ()) -> list[str]:
    """Write what was asked for, and say where."""
    files = []
    if args.json:
        write_json(args.json, {"multilevel": __version__, **content})
        files.append(args.json)
    if args.out:
        _write_frame(frame, args.out)
        files.append(args.out)
    return _wrote([*files, *wrote])


def _write_frame(frame: Any, path: str) -> None:
    """A frame of any library as a file."""
    import pandas as pd

    from .table_files import write_table

    write_table(frame if isinstance(frame, pd.DataFrame) else pd.DataFrame(records(frame)), path)
