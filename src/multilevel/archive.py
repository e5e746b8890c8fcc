"""The file of a saved fit: a zip with a JSON header and plain arrays; writing without losing what was there.

numpy.load opens the arrays too. Sizes are checked before anything is allocated and every member carries a
checksum, so that damage is noticed and a lying header costs nothing. No pickle, nothing is run.
"""

from __future__ import annotations

import io
import json
import math
import os
import secrets
import stat
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from . import __version__
from .errors import DataError, FileError, OptionError

__all__ = [
    "VERSION",
    "NewerError",
    "need",
    "open_regular",
    "pack_columns",
    "path_text",
    "read",
    "replacing",
    "unpack_columns",
    "write",
]

Array = NDArray[Any]

FORMAT = "multilevel fit"
POSTERIOR = "multilevel posterior"
CLASSIFIER = "multilevel classifier"
VERSION = 1
HEADER = "multilevel.json"  # the first member, whose name tells our files from other zips
RATIO = 1100  # deflate shrinks by 1032 at most; a member that claims more lies
DTYPES = ("<f8", "<i8", "<i4", "|b1")
SHORT = ("<f2", "<f4")  # coefficients of a classifier


T = TypeVar("T")


class NewerError(Exception):
    """A format that only a later version of the library reads."""


def need(holds: bool, what: str) -> None:
    """Raise ValueError unless a fact about a file holds; the caller says which file."""
    if not holds:
        raise ValueError(what)


# -- any file --------------------------------------------------------------------------------------


def path_text(path: Any) -> str:
    """A path as text."""
    try:
        name = os.fsdecode(path)
    except TypeError:
        raise OptionError(f"a path is a text or a pathlib.Path, not {type(path).__name__}") from None
    if not name or "\0" in name:
        raise FileError("a path cannot hold a zero character" if name else "the path of the file is empty")
    return name


def open_regular(path: Any) -> BinaryIO:
    """An ordinary file, opened for reading; a pipe, which could block for ever, is refused.

    Raises
    ------
    FileError
        When it is not there, or cannot be read.
    """
    name = path_text(path)
    try:
        mode = os.stat(name).st_mode
        if stat.S_ISREG(mode):
            return open(name, "rb")
    except FileNotFoundError:
        raise FileError(f"there is no file {name!r}") from None
    except OSError as error:
        raise FileError(f"cannot read {name!r}: {error.strerror or error}") from None
    raise FileError(f"cannot read {name!r}: it is {'a directory' if stat.S_ISDIR(mode) else 'no ordinary file'}")


@contextmanager
def replacing(path: Any) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` only when it was written to the end.

    Raises
    ------
    FileError
        When it cannot be written.
    """
    shown = path_text(path)
    name = os.path.realpath(shown)
    temporary = f"{name}.{secrets.token_hex(4)}.part"
    if os.path.isdir(name):
        raise FileError(f"cannot write {shown!r}: it is a directory; give the name of a file in it")
    try:
        if os.path.exists(name) and not os.path.isfile(name):  # a pipe or a device has nothing to lose
            with open(name, "wb") as direct:
                yield direct
            return
        mode = stat.S_IMODE(os.stat(name).st_mode) if os.path.exists(name) else None
        if mode is not None and not os.access(name, os.W_OK):
            raise FileError(f"cannot write {shown!r}: it exists and may not be changed")
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            os.chmod(temporary, mode)
        os.replace(temporary, name)
    except OSError as error:
        raise FileError(f"cannot write {shown!r}: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            os.remove(temporary)


# -- the archive -----------------------------------------------------------------------------------


def write(path: Any, header: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Write a header and arrays to a file, in one step; the header may name another format than that of a fit.

    Raises
    ------
    FileError
    """
    full = {"format": FORMAT, "version": VERSION, "library": __version__, **header, "arrays": list(arrays)}
    text = json.dumps(full, allow_nan=False)
    with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr(_entry(HEADER), text)
        for name, array in arrays.items():
            stream = io.BytesIO()
            plain = np.ascontiguousarray(array)
            plain = plain.astype(plain.dtype.newbyteorder("<"), copy=False)
            np.lib.format.write_array(stream, plain, version=(1, 0), allow_pickle=False)
            archive.writestr(_entry(f"{name}.npy"), stream.getvalue())


def _entry(name: str) -> zipfile.ZipInfo:
    """An entry without the time of writing, so that equal fits make equal files."""
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    return info


def is_ours(file: BinaryIO) -> bool | None:
    """Whether a file starts as ours do; None for an empty one."""
    start = file.read(30 + len(HEADER))
    return (start[:4] == b"PK\x03\x04" and start[30:] == HEADER.encode()) if start else None


def read(file: BinaryIO) -> tuple[dict[str, Any], dict[str, Array]]:
    """Header and arrays of an open file, sizes and checksums verified.

    Raises
    ------
    NewerError
        When a later version of the library is needed.
    Exception
        Of nearly any kind, when the file is damaged.
    """
    size = file.seek(0, os.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        infos = {info.filename: info for info in entries}
        need(len(infos) == len(entries), "a member occurs twice")
        plain = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        need(all(info.compress_type in plain for info in entries), "a member has an unknown compression")
        claimed = sum(info.file_size for info in entries)
        need(claimed <= RATIO * size, "its members claim to be larger than they can be")
        header = json.loads(archive.read(infos.pop(HEADER)))
        formats = (FORMAT, POSTERIOR, CLASSIFIER)
        need(isinstance(header, dict) and header["format"] in formats, "its header is of another format")
        _check_version(header)
        names = header["arrays"]
        need(sorted(f"{name}.npy" for name in names) == sorted(infos), "an array is missing")
        types = DTYPES + SHORT if header["format"] == CLASSIFIER else DTYPES
        return header, {name: _array(archive.read(infos[f"{name}.npy"]), name, types) for name in names}


def restored(file: BinaryIO, name: str, restore: Callable[[dict[str, Any], dict[str, Array]], T]) -> T:
    """What `restore` makes of a file's header and arrays; all faults of a file as one error.

    Raises
    ------
    FileError
        A damaged file, one of a newer version, too little memory.
    """
    try:
        return restore(*read(file))
    except NewerError as error:
        raise FileError(f"{name!r} {error}") from None
    except MemoryError:
        raise FileError(f"there is not enough memory to read {name!r}") from None
    except Exception as error:  # whatever a damaged file does to its readers, it means one thing
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise FileError(
            f"{name!r} is damaged or incomplete ({why}); save it again, or use a copy of the file"
        ) from error


def _check_version(header: Mapping[str, Any]) -> None:
    version = header["version"]
    need(type(version) is int and version >= 1, "its version is no number")
    if version > VERSION:
        raise NewerError(
            f"was written by a newer multilevel ({str(header.get('library'))[:40]}, format {version}), and "
            f"this one ({__version__}) reads formats up to {VERSION}; upgrade with pip install -U multilevel"
        )


def _array(raw: bytes, name: str, types: tuple[str, ...] = DTYPES) -> Array:
    """An array from the bytes of a .npy member; its shape must fit them."""
    stream = io.BytesIO(raw)
    need(np.lib.format.read_magic(stream) == (1, 0), f"array {name!r} is of an unknown version")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    known = dtype.str in types and not fortran and min(shape, default=0) >= 0
    need(known, f"array {name!r} is of an unknown type")
    count = math.prod(shape)
    need(count * dtype.itemsize == len(raw) - stream.tell(), f"array {name!r} has a wrong size")
    values = np.frombuffer(raw, dtype, count, stream.tell()).reshape(shape)
    return values.astype(dtype.newbyteorder("="))  # a copy: aligned, and the caller's own


# -- columns of a data frame -----------------------------------------------------------------------


def pack_columns(data: Any, names: Iterable[str], n: int, arrays: dict[str, Array]) -> dict[str, Any]:
    """Add the named columns of a frame to `arrays`; what each one is, in JSON's types."""
    from . import frame
    from .recipe_json import encode_value

    if data is None:  # of a fit that was itself read from a file without them
        return {}
    out: dict[str, Any] = {}
    table = frame.Table(data)
    wanted = set(names)
    for i, (name, series) in enumerate(table.load(one for one in table.names if one in wanted).items()):
        if table.n != n:
            raise DataError(f"the data had {n} rows when the model was made and have {table.n} now; make it anew")
        kind, levels = frame.column_kind(series, name), None
        if kind in ("number", "bool"):
            own = series.to_numpy()
            exact = {"b": "|b1", "i": "<i8"}.get(own.dtype.kind)
            arrays[f"column{i}"] = own.astype(exact) if exact else frame.numbers(series, name)
        else:
            arrays[f"column{i}"], levels = frame.factor(series, name)
        out[name] = {"kind": kind, "levels": encode_value(levels)}
    return out


def unpack_columns(described: Mapping[str, Any], arrays: Mapping[str, Array], n: int, kind: str) -> Any:
    """The frame of `pack_columns`, in the library named; None where nothing was packed."""
    import pandas as pd

    from .frame import like
    from .recipe_json import decode_value

    out: dict[str, Any] = {}
    for i, (name, about) in enumerate(described.items()):
        values = arrays[f"column{i}"]
        need(values.shape == (n,), f"the column {name!r} has a wrong size")
        if about["kind"] in ("number", "bool"):
            out[name] = values
            continue
        levels: list[Any] = decode_value(about["levels"]).tolist()
        inside = values.dtype == np.int32 and bool(((values >= -1) & (values < len(levels))).all())
        need(inside, f"the column {name!r} is out of range")
        if about["kind"] in ("category", "ordered"):
            dtype = pd.CategoricalDtype(levels, ordered=about["kind"] == "ordered")
            out[name] = pd.Categorical.from_codes(values.tolist(), dtype=dtype)
        else:
            out[name] = pd.Series([*levels, None]).take(values % (len(levels) + 1)).reset_index(drop=True)
    return like(kind, out) if out else None
