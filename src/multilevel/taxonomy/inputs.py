"""Rows of a table as features: texts by TF-IDF, or columns of numbers brought to mean 0 and deviation 1."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..archive import need
from ..errors import OptionError
from .packing import Packer, Unpacker

__all__ = ["Numbers", "Texts", "restore"]

VECTORIZER = ("ngram_range", "min_df", "sublinear_tf", "lowercase", "norm", "analyzer")  # options that every file has
OTHERS = (  # options that a file has where they are not scikit-learn's defaults
    "binary", "decode_error", "dtype", "encoding", "max_df", "max_features", "smooth_idf", "stop_words", "strip_accents",
    "token_pattern", "use_idf",
)  # fmt: skip
DTYPES = {"float32": np.float32, "float64": np.float64}


@dataclass
class Texts:
    """Texts as TF-IDF of their words.

    Attributes
    ----------
    columns : sequence of str
        Columns of the table, joined by a line break; none where the vectoriser was fitted in Python.
    step : sklearn.feature_extraction.text.TfidfVectorizer
    """

    columns: list[str]
    step: Any

    @classmethod
    def make(cls, columns: Sequence[str], **options: Any) -> Texts:
        from sklearn.feature_extraction.text import TfidfVectorizer

        return cls(list(columns), TfidfVectorizer(**{"sublinear_tf": True, **options}))

    @classmethod
    def of(cls, step: Any, features: int) -> Texts:
        """A vectoriser fitted in Python.

        Raises
        ------
        OptionError
            Another kind of step, one that is not fitted or has functions as options, other features than these.
        """
        from sklearn.exceptions import NotFittedError
        from sklearn.feature_extraction.text import TfidfVectorizer

        if type(step) is not TfidfVectorizer:
            raise OptionError(
                f"inputs={step!r:.80} is of type {type(step).__name__}: a file holds a scikit-learn TfidfVectorizer only; "
                "save another step by its own means, and the classifier without inputs"
            )
        _check_options(step.get_params())
        try:
            step.transform([""])
        except NotFittedError:
            raise OptionError(
                "inputs is a TfidfVectorizer that is not fitted: give the one whose fit_transform made the rows of X"
            ) from None
        if len(step.vocabulary_) != features:
            raise OptionError(
                f"inputs makes {len(step.vocabulary_)} features, but the classifier was fitted to {features}: give the "
                "TfidfVectorizer whose fit_transform made the rows of X"
            )
        return cls([], step)

    def pack(self, packer: Packer) -> dict[str, Any]:
        options = self.step.get_params()
        options["dtype"] = np.dtype(options["dtype"]).name
        usual = type(self.step)(dtype="float64").get_params()
        names = [*VECTORIZER, *(name for name in OTHERS if options[name] != usual[name])]
        return {
            "kind": "texts",
            "columns": self.columns,
            "options": {name: packer.pack(options[name], f"the option {name} of inputs") for name in names},
            "words": self.step.get_feature_names_out().tolist(),
            "idf": packer.pack(self.step.idf_ if options["use_idf"] else None, "idf"),
        }

    @classmethod
    def unpack(cls, saved: Mapping[str, Any], unpacker: Unpacker) -> Texts:
        words = saved["words"]
        need(all(isinstance(word, str) for word in words) and len(set(words)) == len(words), "a word is missing")
        options = {name: unpacker.unpack(value) for name, value in saved["options"].items()}
        need(options.keys() <= {*VECTORIZER, *OTHERS}, "an option of the texts is unknown")
        if "dtype" in options:
            options["dtype"] = DTYPES[options["dtype"]]
        out = cls.make(_columns(saved), vocabulary={word: k for k, word in enumerate(words)}, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of words that these options would not make
            out.step.fit([""])  # the words are given; options of a wrong type show here
        idf = unpacker.unpack(saved["idf"])
        if out.step.use_idf or idf is not None:
            fits = isinstance(idf, np.ndarray) and idf.shape == (len(words),) and bool(np.isfinite(idf).all())
            need(fits, "idf has a wrong shape")
            out.step.idf_ = idf
        out.step.transform([""])
        return out

    @property
    def features(self) -> int:
        return len(self.step.vocabulary_)


@dataclass
class Numbers:
    """Columns of numbers.

    Attributes
    ----------
    columns : sequence of str
    step : sklearn.preprocessing.StandardScaler
    """

    columns: list[str]
    step: Any

    @classmethod
    def make(cls, columns: Sequence[str]) -> Numbers:
        from sklearn.preprocessing import StandardScaler

        return cls(list(columns), StandardScaler())

    def pack(self, packer: Packer) -> dict[str, Any]:
        parts = {name: packer.pack(getattr(self.step, name), name) for name in ("mean_", "scale_", "var_")}
        return {"kind": "numbers", "columns": self.columns, "parts": parts, "rows": int(self.step.n_samples_seen_)}

    @classmethod
    def unpack(cls, saved: Mapping[str, Any], unpacker: Unpacker) -> Numbers:
        out = cls.make(_columns(saved))
        need(len(out.columns) > 0, "a column is missing")
        for name in ("mean_", "scale_", "var_"):
            value = unpacker.unpack(saved["parts"][name])
            need(isinstance(value, np.ndarray) and value.shape == (len(out.columns),), f"{name} has a wrong shape")
            need(value.dtype == np.float64 and bool(np.isfinite(value).all()), f"{name} is no number")
            setattr(out.step, name, value)
        out.step.n_features_in_, out.step.n_samples_seen_ = len(out.columns), np.int64(saved["rows"])
        return out

    @property
    def features(self) -> int:
        return len(self.columns)


def restore(saved: Any, unpacker: Unpacker) -> Texts | Numbers | None:
    """What a file says of its inputs."""
    if saved is None:
        return None
    need(saved["kind"] in ("texts", "numbers"), "the kind of its inputs is unknown")
    return (Texts if saved["kind"] == "texts" else Numbers).unpack(saved, unpacker)


def _columns(saved: Mapping[str, Any]) -> list[str]:
    columns: list[str] = saved["columns"]
    texts = isinstance(columns, list) and all(isinstance(one, str) for one in columns)
    need(texts, "a column is missing")
    return columns


def _check_options(options: Mapping[str, Any]) -> None:
    """Options of a vectoriser that a file without code can hold."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    usual = TfidfVectorizer().get_params()
    for name, value in options.items():
        held = name in VECTORIZER or name in OTHERS or name == "vocabulary"
        if callable(value) and name != "dtype" or not held and value != usual[name]:
            raise OptionError(
                f"inputs has the option {name}={value!r:.80}, which a file cannot hold, as it has no code: leave it at "
                f"{usual[name]!r} and prepare the texts before, or save the classifier without inputs"
            )
    if np.dtype(options["dtype"]).name not in DTYPES:
        raise OptionError(f"inputs has the option dtype={options['dtype']!r}: take np.float32 or np.float64")


def joined(columns: Sequence[npt.NDArray[Any]]) -> list[str]:
    """Texts of several columns as one each."""
    return ["\n".join(parts) for parts in zip(*columns, strict=True)]
