"""The tree of classes: ways to give one, labels of rows, faults."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multilevel.errors import DataError, OptionError
from multilevel.taxonomy.tree import Taxonomy

PATHS = [
    ("animals", "birds", "owls"),
    ("animals", "birds", "ducks"),
    ("animals", "fish"),
    ("tools", "saws"),
    ("music",),
]
PARENTS = {"owls": "birds", "ducks": "birds", "birds": "animals", "fish": "animals", "saws": "tools", "music": None}


def shape(tree: Taxonomy) -> set[tuple[Any, ...]]:
    return {tree.paths[leaf] for leaf in tree.leaves}


@pytest.mark.parametrize(
    "given_tree",
    [
        PARENTS,
        PATHS,
        ["animals/birds/owls", "animals/birds/ducks", "animals/fish", "tools/saws", "music"],
        [("birds", "owls"), ("birds", "ducks"), ("animals", "birds"), ("animals", "fish"), ("tools", "saws"),
         (None, "music")],
        pd.DataFrame([("animals", "birds", "owls"), ("animals", "birds", "ducks"), ("animals", "fish", None),
                      ("tools", "saws", None), ("music", None, None)], columns=["a", "b", "c"]),
        pl.DataFrame({"a": ["animals", "animals", "animals", "tools", "music"], "b": ["birds", "birds", "fish", "saws", None],
                      "c": ["owls", "ducks", None, None, None]}),
        np.array([("animals", "birds", "owls"), ("animals", "birds", "ducks"), ("animals", "fish", ""), ("tools", "saws", ""),
                  ("music", "", "")]),
        {**{child: above or "everything" for child, above in PARENTS.items()}, "animals": "everything",
         "tools": "everything"},
        SimpleNamespace(nodes=[], edges=[("everything", "animals"), ("everything", "tools"), ("everything", "music"),
                                         ("animals", "birds"), ("animals", "fish"), ("tools", "saws"), ("birds", "owls"),
                                         ("birds", "ducks")]),
    ],
    ids=["parents", "paths", "texts", "edges", "pandas", "polars", "array", "one root", "graph"],
)  # fmt: skip
def test_all_ways_to_give_a_tree(given_tree: Any) -> None:
    assert shape(Taxonomy.read(given_tree, separator="/")) == set(PATHS)


def test_levels_leaves_and_labels() -> None:
    tree = Taxonomy.from_paths([("a", "x"), ("a", "y"), ("b", "x"), ("c",)], ["top", "low"])
    assert [tree.labels[node] for node in tree.leaves] == ["a/x", "y", "b/x", "c"]
    assert tree.node("a/x") == tree.node(("a", "x")) != tree.node(("b", "x"))
    assert [tree.names[node] for node in tree.at_level("top")] == ["a", "b", "c"]
    assert [tree.names[node] for node in tree.at_level("leaf")] == ["x", "y", "x", "c"]
    np.testing.assert_array_equal(tree.raised(tree.leaves, 1), [tree.node("a")] * 2 + [tree.node("b"), tree.node("c")])
    assert tree.ancestors(tree.node("y")) == [tree.node("a"), tree.node("y")]
    with pytest.raises(OptionError, match=r"level=3 .* 1 to 2, one of 'top', 'low', or 'leaf'"):
        tree.level(3)
    with pytest.raises(OptionError, match="names 1 levels, but the tree has 2"):
        Taxonomy(tree.names, tree.parent.tolist(), ["top"])


@given(st.sets(st.lists(st.sampled_from("abcd"), min_size=1, max_size=4).map(tuple), min_size=1, max_size=25))
@settings(max_examples=60, deadline=None)
def test_nodes_are_depth_first_and_leaves_contiguous(paths: set[tuple[str, ...]]) -> None:
    tree = Taxonomy.from_paths(paths)
    assert set(tree.paths) == {path[:k] for path in paths for k in range(1, len(path) + 1)}
    for node, above in enumerate(tree.parent):
        assert above < node
        below = [k for k, leaf in enumerate(tree.leaves) if tree.paths[leaf][: tree.depth[node]] == tree.paths[node]]
        assert below == list(range(tree.first[node], tree.last[node]))
        assert tree.node(tree.labels[node]) == node
    values = np.random.default_rng(0).random((3, len(tree.leaves)))
    sums = tree.sums(values)
    for node, below in enumerate(tree.children):
        if below:
            np.testing.assert_allclose(sums[:, node], sums[:, list(below)].sum(axis=1))
    for level in range(1, len(tree.levels) + 1):
        np.testing.assert_allclose(tree.sums(values, tree.at_level(level)).sum(axis=1), values.sum(axis=1))


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"a": "b", "b": "c", "c": "a", "d": None}, r"circle: 'a' -> 'b' -> 'c' -> 'a'"),
        ({"a": "a", "d": None}, r"circle: 'a' -> 'a'"),
        ([("x", "a"), ("y", "a"), ("r", "x"), ("r", "y")], "'a' has two parents, 'x' and 'y'"),
        ([("x", "a"), ("x", "b"), ("x", "a")], "'x/a' is in the tree twice"),
        ([], "no classes"),
        ([("x", "a", "q"), ("", "b", "r")], "blank above a name"),
    ],
)
def test_faults_of_trees(tree: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Taxonomy.read(tree)


@pytest.mark.parametrize("tree", ["animals", 7, None])
def test_no_tree_at_all(tree: Any) -> None:
    with pytest.raises(OptionError, match="is no tree: give {child: parent}"):
        Taxonomy.read(tree)


def test_labels_of_rows() -> None:
    tree = Taxonomy.from_paths(PATHS)
    expected = [tree.node(name) for name in ("owls", "fish", "birds", "music")]
    columns = [
        ("animals", "birds", "owls"),
        ("animals", "fish", ""),
        ("animals", "birds", None),
        ("music", None, float("nan")),
    ]
    for y in (
        ["owls", "fish", "birds", "music"],
        columns,
        pd.DataFrame(columns),
        np.array(columns, dtype=object),
        pd.Series(["owls", "fish", "birds", "music"], dtype="category"),
        pl.Series(["animals/birds/owls", "animals/fish", "animals/birds", "music"]),
    ):
        np.testing.assert_array_equal(tree.nodes_of(y), expected)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (
            ["owls", "owl"],
            r"row 1: the label 'owl' is not a class of the tree, which has 8 classes; did you mean 'owls'",
        ),
        (["owls", None], r"row 1 has no label \(1 such rows\)"),
        ([("animals", "", "owls")], "row 0 has a label below a blank one"),
        ([("tools", "owls")], "row 0: the label 'tools/owls' is not a class"),
        (np.zeros((2, 2, 2)), r"the shape \(2, 2, 2\)"),
    ],
)
def test_faults_of_labels(y: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Taxonomy.from_paths(PATHS).nodes_of(y)


def test_a_name_of_several_classes_needs_its_path() -> None:
    tree = Taxonomy.from_paths([("a", "x"), ("b", "x")])
    with pytest.raises(DataError, match=r"'x' is the name of 2 classes \('a/x', 'b/x'\); give the path"):
        tree.nodes_of(["x"])
