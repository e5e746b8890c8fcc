"""Rows of a table as features: texts by TF-IDF, or columns of numbers brought to mean 0 and deviation 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..archive import need
from .packing import Packer, Unpacker

__all__ = ["Numbers", "Texts", "restore"]

VECTORIZER = ("ngram_range", "min_df", "sublinear_tf", "lowercase", "norm", "analyzer")  # the options kept in a file


@dataclass
class Texts:
    """Texts as TF-IDF of their words.

    Attributes
    ----------
    columns : sequence of str
        Columns of the table, joined by a line break.
    step : sklearn.feature_extraction.text.TfidfVectorizer
    """

    columns: list[str]
    step: Any

    @classmethod
    def make(cls, columns: Sequence[str], **options: Any) -> Texts:
        from sklearn.feature_extraction.text import TfidfVectorizer

        return cls(list(columns), TfidfVectorizer(**{"sublinear_tf": True, **options}))

    def pack(self, packer: Packer) -> dict[str, Any]:
        options = self.step.get_params()
        return {
            "kind": "texts",
            "columns": self.columns,
            "options": {name: packer.pack(options[name], name) for name in VECTORIZER},
            "words": self.step.get_feature_names_out().tolist(),
            "idf": packer.pack(self.step.idf_, "idf"),
        }

    @classmethod
    def unpack(cls, saved: Mapping[str, Any], unpacker: Unpacker) -> Texts:
        words = saved["words"]
        need(all(isinstance(word, str) for word in words) and len(set(words)) == len(words), "a word is missing")
        options = {name: unpacker.unpack(value) for name, value in saved["options"].items()}
        need(options.keys() <= set(VECTORIZER), "an option of the texts is unknown")
        out = cls.make(_columns(saved), vocabulary={word: k for k, word in enumerate(words)}, **options)
        idf = unpacker.unpack(saved["idf"])
        fits = isinstance(idf, np.ndarray) and idf.shape == (len(words),) and bool(np.isfinite(idf).all())
        need(fits, "idf has a wrong shape")
        out.step.idf_ = idf
        out.step.transform([""])  # options of a wrong type show here
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
    need(texts and len(columns) > 0, "a column is missing")
    return columns


def joined(columns: Sequence[npt.NDArray[Any]]) -> list[str]:
    """Texts of several columns as one each."""
    return ["\n".join(parts) for parts in zip(*columns, strict=True)]
