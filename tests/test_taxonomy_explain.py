"""explain, explain_row and shrinkage_: against the coefficients, the logits, and dense linear algebra."""

from __future__ import annotations

import copy
import dataclasses
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from taxonomy_samples import articles

import multilevel as ml
from multilevel.taxonomy.objective import Objective, node_coefficients

LIKELIHOODS = ("flat", "nested")


@cache
def fitted(likelihood: str = "flat", **options: Any) -> ml.TaxonomyClassifier:
    made = articles()
    chosen = {"scales": "fixed", "prior_scale": 3.0, "dtype": "float64", "tol": 1e-9, "n_jobs": 1, **options}
    return ml.TaxonomyClassifier(likelihood=likelihood, **chosen).fit(made.x, made.y)


def theta(model: ml.TaxonomyClassifier) -> np.ndarray:
    u = model.fitted_.deviations
    return u.toarray() if sp.issparse(u) else node_coefficients(model.tree_, u)


def siblings(model: ml.TaxonomyClassifier, node: int) -> list[int]:
    return [k for k in range(len(model.tree_)) if k != node and model.tree_.parent[k] == model.tree_.parent[node]]


# -- explain --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("label", ["owls", "birds", "tools", "music", "saws"])
def test_contrasts_are_differences_from_the_siblings(likelihood: str, label: str) -> None:
    model = fitted(likelihood)
    node = model.tree_.node(label)
    against = theta(model)[:-1, siblings(model, node)].mean(axis=1)
    truth = theta(model)[:-1, node] - against
    table = model.explain(label, n=7)
    order = np.argsort(-truth)[:7]
    assert table["feature"].tolist() == [f"x{j}" for j in order]
    np.testing.assert_allclose(table["contrast"], truth[order], atol=1e-12)
    if likelihood == "nested":
        assert list(table) == ["feature", "contrast", "sd", "shrinkage"]
        return
    assert list(table) == ["feature", "contrast", "inherited", "total", "sd", "shrinkage"]
    above = model.tree_.ancestors(node)[:-1]
    inherited = sum(
        (theta(model)[:-1, k] - theta(model)[:-1, siblings(model, k)].mean(axis=1) for k in above), np.zeros(60)
    )
    np.testing.assert_allclose(table["inherited"], inherited[order], atol=1e-12)
    np.testing.assert_allclose(table["total"], (truth + inherited)[order], atol=1e-12)


def test_signs() -> None:
    model = fitted()
    everything = model.explain("owls", n=1000, sign="both")
    assert len(everything) == 60 and np.all(np.diff(everything["contrast"].abs()) <= 0)
    for_it, against = model.explain("owls", n=1000), model.explain("owls", n=1000, sign="against")
    assert (for_it["contrast"] > 0).all() and (against["contrast"] < 0).all()
    assert sorted([*for_it["feature"], *against["feature"]]) == sorted(everything["feature"])
    assert np.all(np.diff(against["contrast"]) >= 0)


def test_an_inner_node_by_path_and_names_of_features() -> None:
    model = fitted()
    names = [f"word{j}" for j in range(60)]
    pd.testing.assert_frame_equal(model.explain("birds", names=names), model.explain(("animals", "birds"), names=names))
    assert model.explain("birds", names=names)["feature"].str.startswith("word").all()
    made = articles()
    frame = pd.DataFrame(made.x.toarray(), columns=names)
    again = ml.TaxonomyClassifier(scales="fixed", n_jobs=1).fit(frame, made.y)
    assert again.explain("birds")["feature"].str.startswith("word").all()
    assert again.explain_row(frame[:1], n=2)["feature"][0].startswith("word")


def block_truth(model: ml.TaxonomyClassifier, feature: int) -> tuple[np.ndarray, np.ndarray]:
    """Covariance of all nodes' coefficients, one feature by itself, by inverting the precision of the leaves; leaves' D."""
    tree, made = model.tree_, articles()
    p = model.predict_proba(made.x)
    d = (made.x.toarray()[:, feature] ** 2) @ (p * (1 - p))
    paths = np.array(
        [[node in tree.ancestors(other) for node in range(len(tree))] for other in range(len(tree))], float
    )
    to_leaves = paths[tree.leaves]
    precision = to_leaves.T @ np.diag(d) @ to_leaves + np.eye(len(tree)) / 9.0
    return paths @ np.linalg.inv(precision) @ paths.T, d


@pytest.mark.parametrize("label", ["owls", "birds", "tools", "worms"])
def test_conditional_standard_deviations_by_dense_inversion(label: str) -> None:
    model = fitted()
    node, others = model.tree_.node(label), siblings(model, model.tree_.node(label))
    against = np.zeros(len(model.tree_))
    against[node], against[others] = 1.0, -1.0 / len(others)
    table = model.explain(label, n=5)
    for name, sd in zip(table["feature"], table["sd"], strict=True):
        covariance, _ = block_truth(model, int(name[1:]))
        assert sd == pytest.approx(np.sqrt(against @ covariance @ against), rel=1e-6)


def test_the_shrinkage_of_a_leaf_is_the_share_of_its_parent() -> None:
    """Given its parent's coefficient, a leaf's is the weighted mean of that and of what its items say: s^-2 : D."""
    model = fitted()
    leaf = list(model.classes_).index("owls")
    table = model.explain("owls", n=60, sign="both")
    for name, share in zip(table["feature"], table["shrinkage"], strict=True):
        d = block_truth(model, int(name[1:]))[1][leaf]
        assert share == pytest.approx((1 / 9) / (1 / 9 + d), rel=1e-6)


def test_nested_conditional_standard_deviations() -> None:
    """Two siblings: u = N(0, 9) each, and D = sum of x^2 q (1 - q) over the items below their parent."""
    model, made = fitted("nested"), articles()
    rows = np.flatnonzero(made.y[:, 1] == "birds")
    q = model.predict_proba(made.x[rows])[:, [list(model.classes_).index(name) for name in ("ducks", "owls")]]
    q = q[:, 1] / q.sum(axis=1)
    table = model.explain("owls", n=5)
    for name, sd, share in zip(table["feature"], table["sd"], table["shrinkage"], strict=True):
        d = made.x.toarray()[rows, int(name[1:])] ** 2 @ (q * (1 - q))
        assert sd == pytest.approx(np.sqrt(2 / (1 / 9 + d)))
        assert share == pytest.approx(1 / (1 + 9 * d))


def test_information_is_the_diagonal_of_the_hessian() -> None:
    made = articles()
    y = made.y
    weight = np.random.default_rng(1).uniform(0.5, 2, len(y))
    model = ml.TaxonomyClassifier(scales="fixed", prior_scale=3.0, dtype="float64", n_jobs=1).fit(made.x, y, weight)
    tree, u = model.tree_, model.fitted_.deviations
    objective = Objective(tree, made.x, tree.nodes_of(y), weight)
    ones = np.ones((2, len(tree)))
    objective.value(u, ones, prior=False)
    product = model.seen_.curvature
    for j in range(4):
        for k, leaf in enumerate(tree.leaves):
            direction = objective.start()
            direction[j, leaf] = 1.0
            second = objective.product(direction, ones, prior=False)[j, leaf]
            assert product[j, k] == pytest.approx(second, rel=1e-5, abs=1e-6)


# -- explain_row ----------------------------------------------------------------------------------------------


def test_contributions_sum_to_differences_of_logits() -> None:
    model, made = fitted(), articles()
    scores = made.test_x[[0]].toarray() @ theta(model)[:-1] + theta(model)[-1]
    p = np.log(model.predict_proba(made.test_x[[0]])[0])
    table = model.explain_row(made.test_x[[0]])
    leaf = model.tree_.node(model.predict(made.test_x[[0]])[0])
    path = model.tree_.ancestors(leaf)
    assert table["node"].drop_duplicates().tolist() == [model.tree_.labels[k] for k in path]
    for node in path:
        own = table[table["node"] == model.tree_.labels[node]]
        np.testing.assert_allclose(own["value"] * own["contrast"], own["contribution"])
        assert own["feature"].iloc[-1] == "(intercept)" and len(own) == made.test_x[[0]].nnz + 1
        others = siblings(model, node)
        assert own["contribution"].sum() == pytest.approx(scores[0, node] - scores[0, others].mean(), abs=1e-10)
    leaves = [model.tree_.leaf_of[k] for k in (path[-1], *siblings(model, path[-1]))]
    assert min(leaves) >= 0
    last = table[table["node"] == model.tree_.labels[path[-1]]]
    assert last["contribution"].sum() == pytest.approx(p[leaves[0]] - p[leaves[1:]].mean(), abs=1e-8)


def test_nested_contributions_sum_to_log_odds_at_each_step() -> None:
    model, made = fitted("nested"), articles()
    x = made.test_x[[3]]
    for label in ("owls", "hammers", "music"):
        node = model.tree_.node(label)
        table = model.explain_row(x, label)
        p = model.tree_.sums(model.predict_proba(x)[0])
        for step in model.tree_.ancestors(node):
            total = table.loc[table["node"] == model.tree_.labels[step], "contribution"].sum()
            assert total == pytest.approx(np.log(p[step]) - np.log(p[siblings(model, step)]).mean(), abs=1e-8)


def test_a_row_in_any_form_and_few_features() -> None:
    model, made = fitted(), articles()
    whole = model.explain_row(made.test_x[[1]], "owls")
    dense = made.test_x[[1]].toarray()
    for form in (dense, dense[0], dense[0].tolist(), sp.csr_matrix(dense)):
        pd.testing.assert_frame_equal(model.explain_row(form, "owls"), whole)
    few = model.explain_row(made.test_x[[1]], "owls", n=2)
    assert few.groupby("node").size().tolist() == [4, 4, 4]  # two features, the intercept, the others
    assert (few.groupby("node")["feature"].last() == "(other features)").all()
    sums = [table.groupby("node")["contribution"].sum() for table in (few, whole)]
    pd.testing.assert_series_equal(*sums)
    np.testing.assert_allclose(few["contribution"][0], whole.query("node == 'animals'")["contribution"].abs().max())


# -- shrinkage_ -----------------------------------------------------------------------------------------------


def test_shrinkage_table_by_brute_force() -> None:
    model, made = fitted(), articles()
    table, tree = model.shrinkage_, model.tree_
    assert table["node"].tolist() == list(tree.labels)
    names = [[name for name in row if name] for row in made.y]
    np.testing.assert_allclose(table["n"], [sum(label in row for row in names) for label in tree.labels])
    np.testing.assert_allclose(table["norm"], np.linalg.norm(model.fitted_.deviations[:-1], axis=0))
    x = made.x.toarray() ** 2
    for label in ("owls", "knives", "music"):  # leaves, whose information is their own
        leaf = list(model.classes_).index(label)
        share = [1 / (1 + 9 * block_truth(model, j)[1][leaf]) for j in range(60)]
        weights = x[[label in row for row in names]].sum(axis=0)
        pooling = np.average(share, weights=weights)
        row = table[table["node"] == label].iloc[0]
        assert row["pooling"] == pytest.approx(pooling, rel=1e-5)
        assert row["n_effective"] == pytest.approx(row["n"] / (1 - pooling), rel=1e-4)


def test_pooling_of_an_inner_node() -> None:
    """The share that a pull at the parent has in the posterior mean of the node, by dense inversion."""
    model, made = fitted(), articles()
    tree = model.tree_
    node, weights, shares = tree.node("birds"), (made.x.toarray() ** 2)[made.y[:, 1] == "birds"].sum(axis=0), []
    below = [k for k in range(len(tree)) if node in tree.ancestors(k)]
    for j in range(60):
        d = np.zeros(len(tree))
        d[tree.leaves] = block_truth(model, j)[1]
        paths = np.array([[a in tree.ancestors(b) for a in below] for b in below], float)
        precision = paths.T @ np.diag(d[below]) @ paths + np.eye(len(below)) / 9
        shares.append(
            (np.linalg.inv(precision) / 9)[0, 0]
        )  # theta_birds = parent + u_birds; the prior pulls to the parent
    row = model.shrinkage_.set_index("node").loc["birds"]
    assert row["pooling"] == pytest.approx(np.average(shares, weights=weights), rel=1e-5)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_a_class_without_items_is_its_parents(likelihood: str) -> None:
    made = articles()
    tree = [tuple(part for part in row if part) for row in {tuple(row): None for row in made.y}] + [("tools", "drills")]
    model = ml.TaxonomyClassifier(tree=tree, likelihood=likelihood, n_jobs=1, scales="fixed").fit(made.x, made.y)
    table = model.shrinkage_.set_index("node")
    assert (table.loc["drills", "n"], table.loc["drills", "pooling"]) == (0, 1)
    assert np.isnan(table.loc["drills", "n_effective"])
    assert table.drop("drills")["pooling"].between(0.01, 0.99).all()
    assert table["parent"].isna().tolist() == [above < 0 for above in model.tree_.parent]


def test_an_only_child_takes_over_its_parents_coefficients() -> None:
    made = articles()
    y = np.array([(row[0], row[0] + " all", row[1]) for row in made.y])
    model = ml.TaxonomyClassifier(n_jobs=1, scales="fixed").fit(made.x, y)
    table = model.shrinkage_.set_index("node")
    assert table.loc["tools all", "norm"] == 0 and table.loc["tools all", "pooling"] == pytest.approx(1)
    assert table.loc["tools", "pooling"] < 0.9
    with pytest.raises(ml.OptionError, match="'tools all' has no siblings .* explain 'tools' instead"):
        model.explain("tools all")
    assert model.explain_row(made.x[[0]])["level"].drop_duplicates().tolist() == ["level 1", "level 3"]


def test_draws_give_the_standard_deviation_when_there_are_any() -> None:
    model, generator = copy.copy(fitted()), np.random.default_rng(2)
    u = model.fitted_.deviations
    model.draws_ = [dataclasses.replace(model.fitted_, deviations=u + generator.normal(size=u.shape)) for _ in range(4)]
    table = model.explain("birds", n=3)
    node = model.tree_.node("birds")
    others = siblings(model, node)
    u = np.array([draw.deviations for draw in model.draws_], dtype=float)
    contrast = u[:, :, node] - u[:, :, others].mean(axis=2)
    at = [int(name[1:]) for name in table["feature"]]
    np.testing.assert_allclose(table["sd"], contrast.std(axis=0, ddof=1)[at], rtol=1e-6)


# -- mistakes -------------------------------------------------------------------------------------------------


def test_mistakes() -> None:
    model, made = fitted(), articles()
    with pytest.raises(ml.DataError, match="'owl' is not a class .* did you mean 'owls'"):
        model.explain("owl")
    for n in (0, -1, 2.5, True, "3"):
        with pytest.raises(ml.OptionError, match="n=.* whole number of at least 1"):
            model.explain("owls", n=n)
    with pytest.raises(ml.OptionError, match="sign='up' is not known: take 'for', 'against', 'both'"):
        model.explain("owls", sign="up")
    with pytest.raises(ml.OptionError, match="names has 2; give a name for each of the 60 features"):
        model.explain("owls", names=["a", "b"])
    with pytest.raises(ml.OptionError, match="names is one text"):
        model.explain("owls", names="a" * 60)
    with pytest.raises(ml.DataError, match="x has 2 rows; explain_row takes one"):
        model.explain_row(made.x[:2])
    with pytest.raises(ValueError, match="60 features"):
        model.explain_row(np.ones(3))
    for ask in (lambda m: m.explain("owls"), lambda m: m.explain_row(made.x[[0]]), lambda m: m.shrinkage_):
        with pytest.raises(AttributeError, match="not fitted"):
            ask(ml.TaxonomyClassifier())
