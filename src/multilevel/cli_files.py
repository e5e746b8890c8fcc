"""Files of the command line: data in, tables, pictures and JSON out, checked before any work is done."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from . import __version__
from .errors import FileError, MultilevelError, MultilevelWarning, OptionError, nearest

if TYPE_CHECKING:
    import pandas as pd

    from .fit import Fit
    from .posterior import Posterior

PLOTS = ("groups", "caterpillar", "shrinkage", "effects", "residuals")


# -- files -----------------------------------------------------------------------------------------


def read_model(path: str) -> Any:
    """A saved fit or posterior; a classifier is refused."""
    from .fit import Fit
    from .posterior import Posterior
    from .storage import read

    found = read(path)
    if not isinstance(found, (Fit, Posterior)):
        raise FileError(f"{path!r} holds a classifier; classify new rows with multilevel classify predict {path} NEW")
    return found


def read_fit(path: str) -> Fit:
    """A saved fit; a posterior is refused."""
    from .fit import Fit

    found = read_model(path)
    if not isinstance(found, Fit):
        raise FileError(f"{path!r} holds a posterior, where a fit is needed; open it in Python with multilevel.read(path)")
    return found


def text_columns(fit: Fit | Posterior) -> list[str]:
    """Columns whose levels were text when fitting; a CSV file does not tell the level "308" from a number."""
    known = [(name, info.levels) for name, info in fit.design.remake.infos.items() if not info.number]
    for term in fit.design.remake.terms:
        known += [
            (name, levels.tolist()) for name, levels in zip(term.grouping.columns, term.grouping.labels, strict=True)
        ]
    return [name for name, levels in known if levels and all(isinstance(level, str) for level in levels)]


def load_table(name: str, text: Sequence[str] = ()) -> pd.DataFrame:
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


def check_outputs(paths: Sequence[str], *inputs: str) -> None:
    """Refuse places that cannot be written, and files that are read or written already."""
    seen = {os.path.realpath(path): "it is read by this command" for path in inputs if os.path.exists(path)}
    for path in paths:
        if not path or os.path.isdir(path):
            raise FileError(f"cannot write {path!r}: " + ("it is a directory" if path else "the name is empty"))
        check_parent(path)
        real = os.path.realpath(path)
        if os.path.isfile(real) and not os.access(real, os.W_OK):
            raise FileError(f"cannot write {path!r}: it exists and may not be changed")
        if real in seen and (os.path.isfile(real) or not os.path.exists(real)):
            raise FileError(f"cannot write {path!r}: {seen[real]}")
        seen[real] = "it is named twice"


def check_parent(path: str) -> None:
    parent = os.path.dirname(path) or "."
    if not os.path.isdir(parent):
        raise FileError(f"cannot write {path!r}: there is no directory {parent!r}")
    if not os.path.exists(path) and not os.access(parent, os.W_OK | os.X_OK):
        raise FileError(f"cannot write {path!r}: the directory {parent!r} may not be changed")


def write_text(path: str, text: str) -> None:
    from .archive import replacing

    with replacing(path) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def check_plots(directory: str | None) -> None:
    """Refuse a place for pictures that could not be written."""
    if directory is None:
        return
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise OptionError("--plots needs matplotlib, which is not installed: pip install multilevel[plots]")
    if os.path.exists(directory) and not os.path.isdir(directory):
        raise FileError(f"cannot write plots to {directory!r}: it is a file, not a directory")
    check_parent(directory.rstrip(os.sep) or directory)


def write_json(path: str, content: dict[str, Any]) -> None:
    """As JSON that any reader accepts."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def prepare_plots(directory: str) -> None:
    """Make the directory; no window is to be opened."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot write plots to {directory!r}: {error.strerror or error}") from None


def write_picture(axes: Any, directory: str, name: str) -> str:
    """Write the figure that axes belong to, and say where."""
    from .archive import replacing

    path = os.path.join(directory, f"{name}.png")
    with replacing(path) as file:
        (axes if hasattr(axes, "figure") else axes.flat[0]).figure.savefig(file, format="png", dpi=150)
    return path


def write_plots(fit: Fit | Posterior, directory: str, names: Sequence[str] = PLOTS) -> list[str]:
    """Write every picture that the model has; a warning says which it has not, and why."""
    prepare_plots(directory)
    wrote = []
    for name in names:
        draw: Callable[[], Any] = getattr(fit.plot, name)
        try:
            axes = draw()
        except MultilevelError as error:
            warnings.warn(f"no plot of {name}: {error}", MultilevelWarning, stacklevel=2)
            continue
        wrote.append(write_picture(axes, directory, name))
    return wrote


def write_report(model: Fit | Posterior, path: str, **options: Any) -> str:
    """Write the page on a model, and say where; no window is to be opened."""
    from .report_file import report

    os.environ.setdefault("MPLBACKEND", "Agg")
    return report(model, path, **options)


# -- JSON ------------------------------------------------------------------------------------------


def estimates(fit: Fit, ddf: str = "satterthwaite") -> dict[str, Any]:
    """What --json writes: tables as lists of records, null where a number is not finite."""
    structure = records(fit.residual_structure())
    family = fit.model.distribution
    zeros = {} if family is None else {"family": family.name, "link": family.link, "zeros": family.zero}
    return {
        "multilevel": __version__,
        "formula": fit.formula,
        **zeros,
        "method": fit.criterion_name,
        "fixef": records(fit.fixef(ddf=ddf)),
        "varcorr": records(fit.varcorr()),
        **({"extra" if fit.generalised else "residual_structure": structure} if structure else {}),
        "glance": records(fit.glance())[0],
        "convergence": {name: plain(value) for name, value in dataclasses.asdict(fit.convergence).items()},
        "messages": list(fit.messages),
    }


def records(frame: Any) -> list[dict[str, Any]]:
    """A frame of any library as a list of rows."""
    if hasattr(frame, "to_dicts"):  # polars
        rows = frame.to_dicts()
    else:
        rows = frame.to_pylist() if hasattr(frame, "to_pylist") else frame.to_dict("records")
    return [{str(name): plain(value) for name, value in row.items()} for row in rows]


def plain(value: Any) -> Any:
    """A value of JSON's types; what is no number there is null."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
