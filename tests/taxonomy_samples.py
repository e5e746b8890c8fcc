"""Made texts with a tree of classes, for the tests of the classifier."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import scipy.sparse as sp


@dataclass(frozen=True)
class Articles:
    """Rows of word counts brought to length 1, with the paths of their classes."""

    x: Any  # csr_array (rows, words)
    y: np.ndarray  # (rows, levels) of names; "" below a class that lies higher
    test_x: Any
    test_y: np.ndarray


PATHS = [
    ("animals", "birds", "ducks"),
    ("animals", "birds", "owls"),
    ("animals", "fish", "carp"),
    ("animals", "fish", "pike"),
    ("animals", "worms", ""),
    ("tools", "saws", ""),
    ("tools", "hammers", ""),
    ("tools", "knives", ""),
    ("music", "", ""),
]


@cache
def articles(rows: int = 400, words: int = 60, seed: int = 3) -> Articles:
    """Texts of nine classes at three depths; classes differ in size by a factor of ten."""
    generator = np.random.default_rng(seed)
    own = {path[:k]: generator.normal(0, 1.0, words) for path in PATHS for k in range(1, 4)}
    size = np.geomspace(1, 0.1, len(PATHS))

    def draw(count: int) -> tuple[Any, np.ndarray]:
        classes = np.concatenate(
            [np.arange(len(PATHS)), generator.choice(len(PATHS), count - len(PATHS), p=size / size.sum())]
        )
        lines = np.zeros((count, words))
        for i, k in enumerate(classes):
            path = tuple(part for part in PATHS[k] if part)
            log_rate = sum(own[path[:depth]] for depth in range(1, len(path) + 1))
            share = np.exp(log_rate) / np.exp(log_rate).sum()
            lines[i] = generator.multinomial(generator.integers(4, 12), share)
        lines /= np.linalg.norm(lines, axis=1, keepdims=True)
        return sp.csr_array(lines), np.array([PATHS[k] for k in classes])

    return Articles(*draw(rows), *draw(rows))


@dataclass(frozen=True)
class Glosses:
    """TF-IDF rows of the definitions of nouns, with their domains and kinds."""

    x: Any  # csr_matrix (rows, words)
    y: np.ndarray  # (rows, 2) of names
    test_x: Any
    test_y: np.ndarray
    words: np.ndarray


@cache
def glosses(least: int = 2, domains: tuple[str, ...] = ()) -> Glosses:
    """The bundled slice of WordNet; words in `least` definitions or more; only some domains if any are named."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    import multilevel as ml

    nouns = ml.load("wordnet")
    if domains:
        nouns = nouns[nouns["domain"].isin(domains)]
    train, test = nouns[nouns["part"] == "train"], nouns[nouns["part"] == "test"]
    vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=least)
    x = vectorizer.fit_transform(train["gloss"])
    labels = [part[["domain", "kind"]].to_numpy(dtype=object) for part in (train, test)]
    return Glosses(x, labels[0], vectorizer.transform(test["gloss"]), labels[1], vectorizer.get_feature_names_out())
