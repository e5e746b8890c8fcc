"""Command line: `multilevel classify train` and `predict`, from a table to a classifier in a file and back to a table."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .cli_files import check_outputs
from .errors import ColumnError, DataError, FileError, OptionError, listing, nearest

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from .taxonomy.estimator import TaxonomyClassifier
    from .taxonomy.inputs import Numbers, Texts

    Inputs = Texts | Numbers
    Floats = npt.NDArray[np.float64]

__all__ = ["classify_arguments"]

EXAMPLES = """examples:
  multilevel classify train titles.csv --text title --levels cat1,cat2 --out model.zip
  multilevel classify train titles.csv --text title --levels path --separator " > " --out model.zip --seed 1
  multilevel classify train plants.parquet --features length,width --levels family,genus --scales cv --out model.zip
  multilevel classify predict model.zip new.csv --out predictions.csv
  multilevel classify predict model.zip new.csv --level cat1 --prior uniform --out predictions.csv
  multilevel classify predict model.zip new.csv --stop 0.8 --out predictions.csv
"""
SCALES = ("holdout", "cv", "fixed", "evidence")
WORD = re.compile(r"\b\w\w+\b")  # what the features of texts are made of
SMALL = 10  # training items of a class that is called small
SHOWN = 12  # top classes printed


# -- options ------------------------------------------------------------------------------------------------


def classify_arguments(parser: argparse.ArgumentParser) -> None:
    """The two commands below `multilevel classify`."""
    parser.epilog = EXAMPLES
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, dest="verb")
    _train_arguments(
        commands.add_parser(
            "train",
            help="fit a classifier over a tree of classes and save it",
            description="Fit a softmax over a tree of classes to texts or numbers, score it on held-out rows, save it.",
            epilog=EXAMPLES,
        )
    )
    _predict_arguments(
        commands.add_parser(
            "predict",
            help="classify new rows with a saved classifier",
            description="Classify new rows: their label, its path, and a probability for each level.",
            epilog=EXAMPLES,
        )
    )


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("data", metavar="DATA", help="a .csv, .csv.gz, .tsv, .parquet, .feather or .arrow file with a row per item")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--text", metavar="COLUMN", help="the texts (a,b: several columns, joined)")
    what.add_argument("--features", metavar="A,B", help="columns of numbers instead; brought to mean 0 and deviation 1")
    add(
        "--levels",
        metavar="A,B",
        required=True,
        help="columns of labels from the top of the tree down; blank where an item's class is not known so deep",
    )
    add("--separator", metavar="TEXT", help='splits labels of one column into paths: "animals > cats" by " > "')
    add("--out", metavar="FILE", required=True, help="write the classifier there, for classify predict and ml.read()")
    add("--min-count", metavar="N", type=int, help="leave out words that fewer texts have (default: 2)")
    add("--ngrams", metavar="N", type=int, help="use runs of up to N words as features (default: 2)")
    add(
        "--scales",
        metavar="HOW",
        default="holdout",
        help="of the deviations: found by 'holdout' (default), 'cv' or 'evidence', or given for each level: 5,6",
    )
    add("--likelihood", choices=("flat", "nested"), default="flat", help="one softmax, or one per node for many classes")
    add("--test", metavar="P", type=float, default=0.2, help="share of the rows held out for scores; 0: none (default: 0.2)")
    add("--max-iter", metavar="N", type=int, default=500, help="evaluations of a minimisation at most (default: 500)")
    add("--seed", metavar="N", type=int, default=0, help="of the held-out rows (default: 0)")
    add("--threads", metavar="N", type=int, help="processors to use (default: all)")
    parser.set_defaults(run=train)


def _predict_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", metavar="MODEL.zip", help="written by multilevel classify train, or in Python by save(path, inputs=...)")
    add("new", metavar="NEW", help="a data file with the columns that the classifier was trained on")
    add("--text", metavar="COLUMN", help="the texts (a,b: several columns, joined), where NEW has other names or MODEL none")
    add("--out", metavar="FILE", help="write there instead of printing CSV")
    add("--level", metavar="LEVEL", help="answer at this level: its name, or its number from 1 (default: the leaves)")
    add("--prior", metavar="P", help="'uniform' as if all classes were equally frequent, or a power from 0 to 1")
    add("--stop", metavar="P", type=float, help="answer with the deepest class of at least this probability")
    parser.set_defaults(run=predict)


# -- train ------------------------------------------------------------------------------------------------------


def train(args: argparse.Namespace) -> list[str]:
    """Fit on a part of the rows for the scores, then on all of them with the scales found, and save that."""
    from .table_files import read_table
    from .taxonomy import storage

    _check_training(args)
    texts, levels = _names("--text", args.text), _names("--levels", args.levels)
    numbers = _names("--features", args.features)
    table = read_table(args.data, [*texts, *levels])
    wanted = _chosen(table, texts or numbers, "--text" if texts else "--features", args.data)
    labels = _chosen(table, levels, "--levels", args.data)
    rows = _read_texts(wanted) if texts else _read_numbers(wanted)
    y: Any = labels[levels[0]] if len(levels) == 1 else labels
    lines: list[str] = []
    scales: Any = _scales(args.scales)
    if args.test > 0:
        model, lines = _scored(args, rows, y)
        scales = dict(model.scales_)
    inputs, x = _features(args, rows)
    model = _fitted(_classifier(args, scales), x, y)
    storage.write(args.out, model, inputs)
    return [*_described(model, x.shape), *lines, "", f"Wrote {args.out}"]


def _check_training(args: argparse.Namespace) -> None:
    check_outputs([args.out], args.data)
    for name, least in (("min_count", 1), ("ngrams", 1), ("max_iter", 1), ("threads", 1), ("seed", 0)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise OptionError(f"--{name.replace('_', '-')} {value} must be a whole number of at least {least}")
    if not 0 <= args.test < 1:
        raise OptionError(f"--test {args.test:g} must be at least 0 and less than 1: the share of rows held out for scores")
    for name in ("min_count", "ngrams"):
        if args.features and getattr(args, name) is not None:
            raise OptionError(f"--{name.replace('_', '-')} belongs to --text; numbers have no words")
    _scales(args.scales)


def _scales(text: str) -> str | list[float]:
    """How scales are found, or their values."""
    if text in SCALES:
        return text
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        known = ", ".join(SCALES)
        raise OptionError(f"--scales {text!r} is not known: take {known}, or numbers, one per level, such as 5,6") from None


def _classifier(args: argparse.Namespace, scales: Any) -> TaxonomyClassifier:
    from .taxonomy.estimator import TaxonomyClassifier

    given: dict[str, Any] = {"scales": "fixed", "prior_scale": scales} if isinstance(scales, list) else {"scales": scales}
    return TaxonomyClassifier(
        levels=_level_names(args) or None, separator=args.separator, likelihood=args.likelihood, n_jobs=args.threads,
        max_iter=args.max_iter, random_state=args.seed, **given,
    )  # fmt: skip


def _fitted(model: TaxonomyClassifier, x: Any, y: Any) -> TaxonomyClassifier:
    """Fit; copies among the rows are no reason to warn here, where no split puts them on both sides."""
    import warnings

    from .errors import MultilevelWarning

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"\d+ of the \d+ rows are copies", MultilevelWarning)
        return model.fit(x, y)


def _features(args: argparse.Namespace, rows: Any) -> tuple[Inputs, Any]:
    """How rows become features, learnt from these, and their features."""
    from .taxonomy.inputs import Numbers, Texts

    if args.features:
        inputs: Inputs = Numbers.make(_names("--features", args.features))
        return inputs, inputs.step.fit_transform(rows)
    count = 2 if args.min_count is None else args.min_count
    inputs = Texts.make(_names("--text", args.text), ngram_range=(1, 2 if args.ngrams is None else args.ngrams), min_df=count)
    try:
        return inputs, inputs.step.fit_transform(rows)
    except ValueError as error:
        if "vocabulary" not in str(error) and "no terms remain" not in str(error).lower() and "max_df" not in str(error):
            raise
        raise DataError(
            f"no word occurs in at least {count} of the {len(rows)} texts of {args.text!r}: lower --min-count, or take "
            "another column"
        ) from None


# -- scores ------------------------------------------------------------------------------------------------------


def _scored(args: argparse.Namespace, rows: Any, y: Any) -> tuple[TaxonomyClassifier, list[str]]:
    """A classifier fitted on a part of the rows, and the lines that tell how it does on the others."""
    import numpy as np

    from .taxonomy.tree import Taxonomy, distinct_labels

    codes, labels = distinct_labels(y, args.separator)
    fit, held_out = _split(args, rows, codes.astype(np.int32))
    if not len(held_out):
        raise OptionError(
            f"--test {args.test:g} holds out none of the {len(codes)} rows; raise it, or give --test 0 for no scores"
        )
    tree = Taxonomy.from_paths([label if isinstance(label, tuple) else (label,) for label in labels], _level_names(args))
    inputs, x = _features(args, _take(rows, fit))
    model = _fitted(_classifier(args, _scales(args.scales)).set_params(tree=tree), x, _take(y, fit))
    nodes = np.array([tree.node(label) for label in labels], dtype=np.int32)[codes[held_out]]
    p = model.predict_proba(inputs.step.transform(_take(rows, held_out)))
    return model, _score_lines(model, p, nodes, len(fit))


def _split(args: argparse.Namespace, rows: Any, codes: npt.NDArray[np.int32]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Rows to fit and to score, by class; rows of equal numbers, or of equal words in equal order, stay together."""
    import numpy as np

    from .taxonomy.fitting import hold_out

    keys = [" ".join(WORD.findall(text.lower())) for text in rows] if args.text else [tuple(row) for row in rows]
    number = {key: k for k, key in enumerate(dict.fromkeys(keys))}
    alike = np.array([number[key] for key in keys], dtype=np.int64)
    return hold_out(codes, alike, args.test, np.random.default_rng(args.seed))


def _score_lines(model: TaxonomyClassifier, p: Floats, nodes: npt.NDArray[np.int32], fitted: int) -> list[str]:
    import numpy as np

    tree = model.tree_
    count = np.array([model.node_weight_[_under(tree, node)].sum() for node in range(len(tree))])
    table = [("", "classes", "rows", "accuracy", "log-loss")]
    for depth, name in enumerate(tree.levels, 1):
        at = tree.at_level(depth)
        truth = tree.raised(nodes, depth)
        known = np.isin(truth, at)  # labels that reach this level
        chances = tree.sums(p, at)
        table.append((name, str(len(at)), *_scores(chances[known], np.searchsorted(at, truth[known]))))
    small = (tree.leaf_of[nodes] >= 0) & (count[nodes] < SMALL)
    if small.any():
        leaves = tree.leaf_of[nodes[small]]
        few = int((count[tree.leaves] < SMALL).sum())
        table.append((f"leaves of < {SMALL} items", str(few), *_scores(p[small], leaves)))
    loss = table[len(tree.levels)][4]
    return ["", f"Held out: {_count(len(nodes), 'row')}, fitted on {fitted}; hold-out log-loss {loss}", *_columns(table)]


def _under(tree: Any, node: int) -> npt.NDArray[np.bool_]:
    """Nodes at and below a node."""
    import numpy as np

    return np.asarray((tree.first >= tree.first[node]) & (tree.last <= tree.last[node]) & (tree.depth >= tree.depth[node]))


def _scores(p: Floats, truth: npt.NDArray[Any]) -> tuple[str, str, str]:
    import numpy as np

    if not len(truth):
        return "0", "-", "-"
    loss = -np.log(np.maximum(p[np.arange(len(truth)), truth], np.finfo(float).tiny)).mean()
    return str(len(truth)), f"{(p.argmax(axis=1) == truth).mean():.3f}", f"{loss:.4f}"


def _columns(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[k]) for row in table) for k in range(len(table[0]))]
    return [
        f"{row[0]:<{widths[0]}}  " + "  ".join(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in table
    ]


def _described(model: TaxonomyClassifier, shape: tuple[int, int]) -> list[str]:
    """Tree and scales."""
    tree = model.tree_
    lines = [repr(tree), f"Trained on {shape[0]} rows of {shape[1]} features", ""]
    counts = [model.node_weight_[_under(tree, node)].sum() for node in tree.top]
    items = [(tree.labels[k], tree.last[k] - tree.first[k], count) for k, count in zip(tree.top, counts, strict=True)]
    items.sort(key=lambda one: -one[2])
    rows = [("", "leaves", "items"), *((str(name), str(leaves), f"{count:g}") for name, leaves, count in items[:SHOWN])]
    lines += _columns(rows)
    if len(items) > SHOWN:
        lines.append(f"and {len(items) - SHOWN} more")
    scales = ", ".join(f"{name} {value:.4g}" for name, value in model.scales_.items())
    return [*lines, "", f"Scales of the deviations: {scales}"]


# -- predict ----------------------------------------------------------------------------------------------------


def predict(args: argparse.Namespace) -> list[str]:
    from .table_files import format_of, read_table, to_text, write_table
    from .taxonomy import storage
    from .taxonomy.inputs import Texts

    if args.out is not None:
        check_outputs([args.out], args.new, args.model)
        format_of(args.out)
    _check_answers(args)
    model, inputs = storage.read_parts(args.model)
    if inputs is None:
        raise FileError(
            f"{args.model!r} was saved in Python and does not tell how a table's rows become features; save it there with "
            "model.save(path, inputs=vectorizer), or open it there with multilevel.read(path)"
        )
    if args.prior == "calibrated" and getattr(model, "calibration_", None) is None:
        raise OptionError(
            f"--prior calibrated needs a classifier that was calibrated in Python, which {args.model!r} was not: give "
            "'uniform' or a power from 0 to 1"
        )
    is_text = isinstance(inputs, Texts)
    columns, who = _input_columns(args, inputs)
    new = read_table(args.new, columns if is_text else ())
    wanted = _chosen(new, columns, who, args.new)
    x = inputs.step.transform(_read_texts(wanted) if is_text else _read_numbers(wanted))
    _warn_of_unknown(x, args.new)
    table = new.copy()
    for name, values in _predicted(model, x, args).items():
        if name in new.columns:
            raise OptionError(f"{args.new!r} has a column {name!r}, which is the name of a predicted one; rename it")
        table[name] = values
    if args.out is None:
        return [to_text(table).rstrip("\n")]
    write_table(table, args.out)
    return [f"Wrote {args.out} ({_count(len(table), 'row')})"]


def _check_answers(args: argparse.Namespace) -> None:
    """Whether --stop and --prior are what the command line knows of Python's rules and priors."""
    if args.stop is not None and not 0 <= args.stop <= 1:
        raise OptionError(f"--stop {args.stop:g} must be a probability from 0 to 1")
    prior = _prior(args.prior)
    if isinstance(prior, float) and not 0 <= prior <= 1:
        raise OptionError(f"--prior {args.prior} must be 'uniform' or a power from 0 to 1: 0 is 'train', 1 is 'uniform'")
    if isinstance(prior, str) and prior not in ("train", "uniform", "calibrated"):
        raise OptionError(f"--prior {args.prior!r} is not known: give 'uniform' or a power from 0 to 1")


def _input_columns(args: argparse.Namespace, inputs: Inputs) -> tuple[list[str], str]:
    """The columns that become features, and who names them."""
    from .taxonomy.inputs import Texts

    if args.text is None and inputs.columns:
        return inputs.columns, "the classifier"
    if not isinstance(inputs, Texts):
        raise OptionError(f"--text: {args.model!r} was trained on columns of numbers, {listing(inputs.columns)}")
    if args.text is None:
        raise OptionError(f"{args.model!r} was saved in Python and names no column of texts: give --text COLUMN")
    return _names("--text", args.text), "--text"


def _predicted(model: TaxonomyClassifier, x: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Columns: label, path, and the probability at each level of the path."""
    import numpy as np

    tree = model.tree_
    given = {"level": _level(args.level), "stop": args.stop, "prior": _prior(args.prior)}
    paths = model.predict_path(x, **{name: value for name, value in given.items() if value is not None})
    numbers = {path: tree.labels[node] for node, path in enumerate(tree.paths)}
    names = [tuple(step[0] for step in path) for path in paths]
    out: dict[str, Any] = {
        "label": [None if not path else str(numbers[path]) for path in names],
        "path": ["/".join(str(name) for name in path) for path in names],
    }
    for k in range(tree.level(given["level"])):
        out[f"probability {tree.levels[k]}"] = [path[k][1] if len(path) > k else np.nan for path in paths]
    return out


def _level(text: str | None) -> int | str | None:
    return int(text) if text is not None and re.fullmatch(r"\d+", text) else text


def _prior(text: str | None) -> str | float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def _warn_of_unknown(x: Any, name: str) -> None:
    """Texts without any word that the classifier knows get the shares of the classes."""
    import warnings

    import numpy as np

    from .errors import MultilevelWarning

    if not hasattr(x, "indptr"):
        return
    empty = np.flatnonzero(np.diff(x.indptr) == 0)
    if len(empty):
        warnings.warn(
            f"{_count(len(empty), 'text')} of {name!r} without any word that the classifier knows (the first in row "
            f"{empty[0] + 1}): such a text gets about the shares of the classes as probabilities",
            MultilevelWarning,
            stacklevel=2,
        )


# -- tables ------------------------------------------------------------------------------------------------------


def _names(option: str, text: str | None) -> list[str]:
    """Names separated by commas."""
    if text is None:
        return []
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise OptionError(f"{option} {text!r} must name different columns, separated by commas")
    return names


def _level_names(args: argparse.Namespace) -> list[str]:
    """Names of the levels; where one column holds paths, the tree has other levels than columns."""
    return _names("--levels", args.levels) if args.separator is None else []


def _chosen(table: pd.DataFrame, names: Sequence[str], who: str, path: str) -> pd.DataFrame:
    if not len(table):
        raise DataError(f"{path!r} has no rows")
    for name in names:
        if name not in table.columns:
            hint = nearest(name, table.columns) or f"the columns are {listing(table.columns)}"
            raise ColumnError(f"{who} names {name!r}, which is no column of {path!r}; {hint}")
    return table[list(names)]


def _read_texts(columns: pd.DataFrame) -> list[str]:
    """The texts of each row; a row without any is refused."""
    from .taxonomy.inputs import joined

    filled = [columns[name].astype(object).where(columns[name].notna(), "").astype(str).to_numpy() for name in columns]
    texts = joined(filled)
    empty = [row for row, text in enumerate(texts) if not text.strip()]
    if empty:
        raise DataError(
            f"row {empty[0] + 1} has no text in {listing(columns.columns)} ({_such(len(empty))} of {len(texts)}); "
            "leave these rows out"
        )
    return texts


def _read_numbers(columns: pd.DataFrame) -> Floats:
    import numpy as np
    import pandas as pd

    out = np.empty(columns.shape)
    for k, name in enumerate(columns):
        values = pd.to_numeric(columns[name], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        wrong = np.flatnonzero(~np.isfinite(values))
        if len(wrong):
            value = columns[name].iloc[wrong[0]]
            what = "is missing" if pd.isna(value) else f"is {str(value)!r}, which is no number"
            raise DataError(
                f"{name!r} {what} in row {wrong[0] + 1} ({_such(len(wrong))}); fill it, or leave these rows out"
            )
        out[:, k] = values
    return out


def _such(count: int) -> str:
    return _count(count, "such row")


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _take(rows: Any, which: npt.NDArray[Any]) -> Any:
    if isinstance(rows, list):
        return [rows[k] for k in which]
    return rows.iloc[which] if hasattr(rows, "iloc") else rows[which]
