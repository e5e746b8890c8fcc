"""Data files of the command line: CSV, TSV, Parquet, Feather and Arrow in and out; what is wrong with one, and where.

Readers for text are pandas', for the others pyarrow's. They are lenient where a wrong file would give wrong
numbers in silence (lines with too few fields, a name that stands twice), so that is looked for here.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from .archive import open_regular, path_text, replacing
from .errors import FileError, OptionError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FORMATS", "format_of", "read_table", "write_table"]

FORMATS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".feather", ".arrow")
HEAD = 1 << 16  # bytes looked at before a text file is read


def format_of(path: Any) -> str:
    """Which of FORMATS a path ends in.

    Raises
    ------
    FileError
        When it is none.
    """
    name = path_text(path)
    found = [ending for ending in FORMATS if name.lower().endswith(ending)]
    if found:
        return found[0]
    advice = "; save the sheet as CSV" if name.lower().endswith((".xls", ".xlsx", ".ods")) else ""
    raise FileError(f"the name of {name!r} does not tell a format; it must end in {', '.join(FORMATS)}{advice}")


def read_table(path: Any, text: Iterable[str] = ()) -> pd.DataFrame:
    """Read a data file.

    Parameters
    ----------
    path : str or path
        Ends in one of FORMATS.
    text : names of columns
        Left as text where a CSV or TSV file does not tell numbers from labels such as "007".

    Raises
    ------
    FileError
        When it cannot be read: with the line, where it is known.
    OptionError
        When a package that reads the format is not installed.
    """
    name, ending = path_text(path), format_of(path)
    with open_regular(name) as file:
        if not file.read(1):
            raise FileError(f"{name!r} is empty")
        file.seek(0)
        if ending.startswith((".csv", ".tsv")):
            return _read_text(name, file, "\t" if ending.startswith(".tsv") else ",", ending.endswith(".gz"), text)
        return _read_arrow(name, file, ending)


# -- text ------------------------------------------------------------------------------------------


def _read_text(name: str, raw: BinaryIO, separator: str, packed: bool, text: Iterable[str]) -> pd.DataFrame:
    import pandas as pd

    exact: Any = {} if _version(pd.__version__) >= (3, 1) else {"float_precision": "round_trip"}
    with _explained(name), _unpacked(raw, packed) as file:
        head = file.read(HEAD)
        file.seek(0)
        _check_head(name, head, separator)
        types = dict.fromkeys(text, str)
        frame: pd.DataFrame = pd.read_csv(
            file, sep=separator, encoding="utf-8", low_memory=False, dtype=cast(Any, types), **exact
        )
        width = frame.shape[1]
        if width and frame.iloc[:, -1].isna().any():  # pandas fills what a short line lacks
            for line, fields in _fields(file, separator):
                if fields < width:
                    raise FileError(f"{name!r} has {_counted(fields)} in line {line}, where {width} are expected")
    return frame


@contextmanager
def _unpacked(raw: BinaryIO, packed: bool) -> Iterator[BinaryIO]:
    if not packed:
        yield raw
        return
    with gzip.GzipFile(fileobj=raw) as file:
        yield cast(BinaryIO, file)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn what the readers of text raise into one sentence."""
    import pandas as pd

    try:
        yield
    except FileError:
        raise
    except UnicodeDecodeError:
        raise FileError(f"{name!r} is not UTF-8 text{_bad_line(name)}; save it as UTF-8") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise FileError(f"{name!r} is damaged or no gzip file: {error}") from None
    except OSError as error:
        raise FileError(f"cannot read {name!r}: {error.strerror or error}") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError, csv.Error, OverflowError) as error:
        raise FileError(f"cannot read {name!r}: {_parser_words(str(error))}") from None


def _parser_words(text: str) -> str:
    """The complaint of pandas' parser in plain words."""
    if found := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", text):
        return f"line {found[2]} has {_counted(int(found[3]))}, where {found[1]} are expected"
    if found := re.search(r"EOF inside string starting at row (\d+)", text):
        return f"the quotation mark that opens in line {int(found[1]) + 1} is never closed"
    if "No columns to parse" in text:
        return "it has no columns"
    return " ".join(text.split())[:200]


def _counted(fields: int) -> str:
    return f"{fields} field{'s' * (fields != 1)}"


def _bad_line(name: str) -> str:
    """Where the text stops being UTF-8."""
    with open_regular(name) as raw, _unpacked(raw, name.lower().endswith(".gz")) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return f" (byte {line[error.start]:#04x} in line {number})"
    return ""


def _check_head(name: str, head: bytes, separator: str) -> None:
    """Refuse what is no table of text, and names that stand twice."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise FileError(f"{name!r} is UTF-16 text; save it as UTF-8")
    if b"\0" in head:
        raise FileError(f"{name!r} is no text but a binary file; give a file of comma- or tab-separated values")
    text = head.decode("utf-8", errors="ignore").removeprefix("\ufeff")
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        names = next(filter(None, lines), [])
        first = next(filter(None, lines), [])
    except csv.Error:
        return  # pandas says what is wrong
    if not any(names):
        raise FileError(f"{name!r} has no names of columns in its first line")
    if len(names) == 1 and (other := next((mark for mark in ";\t,|" if mark in names[0]), "")):
        says = {"\t": "tabs; name it .tsv", ",": "commas; name it .csv"}.get(other, f"{other!r}; save it with commas")
        raise FileError(f"{name!r} has a single column {names[0]!r}: its values seem to be separated by {says}")
    twice = next((one for i, one in enumerate(names) if one and one in names[:i]), None)
    if twice is not None and len(text) < HEAD:
        raise FileError(f"{name!r} has two columns {twice!r}; rename one of them")
    if len(first) > len(names):  # pandas would take the first column for names of rows
        raise FileError(
            f"{name!r} has {_counted(len(first))} in line {lines.line_num}, where {len(names)} are expected"
        )


def _fields(file: BinaryIO, separator: str) -> Iterator[tuple[int, int]]:
    """Line and number of fields of each row that is not blank."""
    file.seek(0)
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    try:
        rows = csv.reader(text, delimiter=separator)
        for row in rows:
            if row:
                yield rows.line_num, len(row)
    finally:
        text.detach()


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])


# -- Parquet, Feather, Arrow -----------------------------------------------------------------------


def _pyarrow(name: str) -> Any:
    try:
        import pyarrow
    except ImportError:
        raise OptionError(
            f"{name!r} needs pyarrow, which is not installed: pip install multilevel[scale], or use CSV"
        ) from None
    return pyarrow


def _read_arrow(name: str, file: BinaryIO, ending: str) -> pd.DataFrame:
    pyarrow = _pyarrow(name)
    start = file.read(8)
    file.seek(0)
    marks = {
        ".parquet": (b"PAR1",),
        ".feather": (b"ARROW1", b"FEA1"),
        ".arrow": (b"ARROW1", b"\xff\xff\xff\xff"),
    }
    if not start.startswith(marks[ending]):
        raise FileError(f"{name!r} is no {ending[1:].capitalize()} file")
    try:
        table = _arrow_table(pyarrow, file, ending, start)
        table.validate(full=True)  # offsets that point nowhere would be followed
        frame: pd.DataFrame = table.replace_schema_metadata(None).to_pandas()
    except MemoryError:
        raise FileError(f"{name!r} is damaged, or needs more memory than there is") from None
    except Exception as error:  # pyarrow raises of many kinds; all mean that the file is not right
        raise FileError(f"{name!r} is damaged: {' '.join(str(error).split())[:200]}") from None
    return frame


def _arrow_table(pyarrow: Any, file: BinaryIO, ending: str, start: bytes) -> Any:
    if ending == ".parquet":
        from pyarrow import parquet

        return parquet.ParquetFile(file).read()
    if start.startswith(b"FEA1"):
        from pyarrow import feather

        return feather.read_table(file)
    from pyarrow import ipc

    return (ipc.open_file if start.startswith(b"ARROW1") else ipc.open_stream)(file).read_all()


# -- writing ---------------------------------------------------------------------------------------


def write_table(frame: pd.DataFrame, path: Any) -> None:
    """Write a frame, without its index, in the format that the path tells.

    Raises
    ------
    FileError
        When the path tells no format, or cannot be written.
    """
    name, ending = path_text(path), format_of(path)
    if ending.startswith((".csv", ".tsv")):
        with replacing(name) as file:
            text = to_text(frame, "\t" if ending.startswith(".tsv") else ",").encode()
            file.write(gzip.compress(text, mtime=0) if ending.endswith(".gz") else text)
        return
    pyarrow = _pyarrow(name)
    table = pyarrow.Table.from_pandas(frame, preserve_index=False)
    with replacing(name) as file:
        if ending == ".parquet":
            from pyarrow import parquet

            parquet.write_table(table, file)
        else:
            from pyarrow import feather

            feather.write_feather(table, file)


def to_text(frame: pd.DataFrame, separator: str = ",") -> str:
    """A frame as separated values, numbers to the last digit."""
    return frame.to_csv(index=False, sep=separator, lineterminator="\n")
