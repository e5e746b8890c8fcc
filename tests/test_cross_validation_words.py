"""What cross-validation says where models predict unlike rows or little was left out, and its common random numbers."""

from __future__ import annotations

import numpy as np
import pytest

import multilevel as ml


@pytest.fixture(scope="module")
def radon():
    return ml.Model("log_radon ~ floor + (1 | county)", ml.load("radon"))


@pytest.fixture(scope="module")
def custom(radon):
    leave = np.random.default_rng(3).integers(0, 5, 919)
    return ml.cross_validate({"partial": radon}, leave=leave, baselines=True, seed=1), leave


def test_a_model_scored_on_fewer_rows_is_marked(custom, radon):
    result, leave = custom
    data = ml.load("radon")
    lost = sum((~data["county"][leave == k].isin(data["county"][leave != k])).sum() for k in range(5))
    text, page = repr(result), result._repr_html_()
    for one in (text, page):
        assert "no pooling *" in one and "partial *" not in one and "complete pooling *" not in one
    assert lost > 0 and f"* over the {919 - lost} of 919 rows that 'no pooling' predicts" in text
    assert "* over the" not in repr(ml.cross_validate({"partial": radon}, folds=5, seed=1))


def test_folds_without_a_score_are_not_passed_over(custom):
    result, leave = custom
    data = ml.load("radon")
    whole = sum(data["county"][leave == k].isin(data["county"][leave != k]).all() for k in range(5))
    assert 0 < whole < 5
    before, said = " ".join(repr(result).split()).split("'no pooling': log score")
    assert before.endswith("is not clearly better than ")
    assert f"over the {whole} of 5 folds that both predict" in said
    assert ("too few to tell" in said) == (whole < 5)
    assert "log score per fold" in repr(result).splitlines()[2]


def test_few_groups_give_no_verdict():
    data = ml.load("math10")
    some = data[data["schid"].isin(data["schid"].unique()[:4])]
    found = ml.cross_validate({"one": ml.Model("math ~ homework + (1 | schid)", some)}, leave="groups", baselines=True)
    text = " ".join(repr(found).split())
    assert "4 groups are too few to tell" in text and "predicts better" not in text


def test_models_of_a_fold_share_their_random_numbers():
    """The same model twice differs in nothing, and a model next to it in less than with numbers of its own."""
    data = ml.load("cbpp")
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    one, same = (ml.Model(formula, data, family="binomial") for _ in range(2))
    other = ml.Model("cbind(incidence, size - incidence) ~ 1 + (1 | herd)", data, family="binomial")
    twins = ml.cross_validate({"one": one, "same": same, "other": other}, folds=4, seed=1).compare()
    assert (twins.loc[twins["other"] == "same", "advantage"] == 0).all()

    def spread(apart: bool) -> float:
        gains = []
        for seed in range(8):
            folds = np.arange(56) % 4
            first = ml.cross_validate({"one": one}, leave=folds, seed=seed).summary()["crps"][0]
            second = ml.cross_validate({"other": other}, leave=folds, seed=seed + 100 * apart).summary()["crps"][0]
            gains.append(first - second)
        return float(np.std(gains))

    assert spread(False) < spread(True)
