"""The bundled definitions of nouns: what the set promises, and that its script makes it again."""

from __future__ import annotations

from collections import Counter
from importlib import resources
from typing import Any

import make_wordnet
import numpy as np
import pytest
from taxonomy_samples import glosses

import multilevel as ml
from multilevel.taxonomy.estimator import TaxonomyClassifier

TEXT = """\
  1 a line of the licence
00000001 03 n 01 entity 0 002 ~ 00000002 n 0000 + 00000009 v 0101 | that which is; "an entity"
00000002 05 n 02 animal 0 beast 0 003 @ 00000001 n 0000 ~ 00000003 n 0000 ~ 00000004 n 0000 | a living thing
00000003 05 n 01 grey_cat 0 001 @ 00000002 n 0000 | a cat; usually grey; "she saw a grey cat"; "grey cats"
00000004 05 n 0a a 0 b 0 c 0 d 0 e 0 f 0 g 0 h 0 i 0 j 0 002 ;c 00000007 n 0000 @i 00000002 n 0000 | ten | words
"""


def test_the_slice_has_two_levels_and_classes_of_unequal_size() -> None:
    nouns = ml.load("wordnet")
    assert nouns["domain"].nunique() == 19
    paths = list(zip(nouns["domain"], nouns["kind"], strict=True))
    assert len(set(paths)) == 90
    assert len({kind for _, kind in paths}) < 90, "some names stand under two domains"
    below = Counter(domain for domain, _ in set(paths))
    assert min(below.values()) >= 2
    train = Counter(path for path, part in zip(paths, nouns["part"], strict=True) if part == "train")
    test = Counter(path for path, part in zip(paths, nouns["part"], strict=True) if part == "test")
    assert set(train) == set(test)
    assert set(test.values()) == {10}
    assert (min(train.values()), max(train.values())) == (3, 100)
    assert sum(size < 10 for size in train.values()) == 30


def test_no_definition_is_there_twice_and_none_has_its_examples() -> None:
    nouns = ml.load("wordnet")
    assert not nouns["gloss"].str.lower().duplicated().any()
    assert not nouns["synset"].duplicated().any()
    assert nouns["gloss"].str.len().min() > 3
    assert not nouns["gloss"].str.contains('; "', regex=False).any()
    row = nouns.set_index("lemma").loc["xanthic acid"]
    assert row["gloss"] == "any of a class of unstable organic acids containing sulphur"
    assert (row["synset"], row["domain"], row["kind"]) == ("15112932", "substance", "acid")


def test_the_licence_is_beside_the_data_and_in_its_readme() -> None:
    folder = resources.files("multilevel") / "data"
    licence = (folder / "wordnet-licence.txt").read_text(encoding="utf-8")
    readme = (folder / "README.md").read_text(encoding="utf-8").replace("\n> ", "\n").replace("\n>\n", "\n\n")
    words = "WordNet 3.0 Copyright 2006 by Princeton University.  All rights reserved."
    assert words in licence
    assert 'THIS SOFTWARE AND DATABASE IS PROVIDED "AS IS"' in licence
    assert licence.split("\n\n", 1)[1].strip() in readme


def test_lines_of_the_database_are_read_as_their_format_says(tmp_path: Any) -> None:
    file = tmp_path / "data.noun"
    file.write_text(TEXT, encoding="utf-8")
    synsets = make_wordnet.read(file)
    assert list(synsets) == ["00000001", "00000002", "00000003", "00000004"]
    assert synsets["00000001"] == ("03", "entity", "that which is", None)
    assert synsets["00000003"] == ("05", "grey cat", "a cat; usually grey", "00000002")
    assert synsets["00000004"] == ("05", "a", "ten | words", "00000002")


def test_the_script_makes_the_same_rows() -> None:
    if not make_wordnet.database().exists():
        pytest.skip("needs the Debian package wordnet-base, or WNSEARCHDIR with its data.noun")
    made = make_wordnet.rows(make_wordnet.read(make_wordnet.database()))
    nouns = ml.load("wordnet")
    assert list(nouns.columns) == list(make_wordnet.COLUMNS)
    assert made == list(nouns.astype(object).itertuples(index=False, name=None))


def test_rows_to_train_on_say_something_about_those_to_test_on() -> None:
    texts = glosses(domains=("animal", "food", "location", "person", "substance"))
    assert texts.x.shape[1] == texts.test_x.shape[1] == len(texts.words)
    lengths = np.sqrt(np.asarray(texts.x.multiply(texts.x).sum(axis=1))).ravel()
    known = lengths > 0  # a few definitions have no word that another has
    assert known.mean() > 0.98
    np.testing.assert_allclose(lengths[known], 1, atol=1e-12)
    model = TaxonomyClassifier(scales="fixed", n_jobs=1).fit(texts.x, texts.y)
    by_guess = 10 * 12 / len(texts.test_y)
    assert model.score(texts.test_x, texts.test_y, level=1) > max(0.7, 2 * by_guess)
    assert model.score(texts.test_x, texts.test_y) > 0.4
