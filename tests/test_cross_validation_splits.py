"""Folds of scikit-learn's splitters and of (train, test) pairs: the scores of loops by hand, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cross_validation_samples import clustered, rows_of
from scipy import stats

import multilevel as ml

selection = pytest.importorskip("sklearn.model_selection")
SIMPLE = "Reaction ~ Days + (1 | Subject)"


def sleep() -> pd.DataFrame:
    return ml.load("sleepstudy")


def by_hand(data: pd.DataFrame, pairs: list[Any]) -> dict[int, float]:
    """Row -> log score under a fit to the train rows."""
    out = {}
    for train, test in pairs:
        new = ml.lmer(SIMPLE, data.iloc[train]).predict(data.iloc[test], interval="prediction", new_levels="population")
        scores = stats.norm(new["prediction"], new["std_error"]).logpdf(data["Reaction"].iloc[test])
        out.update(zip(np.asarray(test).tolist(), scores, strict=True))
    return out


@pytest.mark.parametrize("splitter", [
    selection.KFold(4, shuffle=True, random_state=2),
    selection.GroupKFold(5),
    selection.TimeSeriesSplit(3),
    selection.PredefinedSplit(np.arange(180) % 4 - 1),
], ids=lambda one: type(one).__name__)  # fmt: skip
def test_a_splitter_against_a_loop(splitter: Any) -> None:
    data = sleep()
    groups = {"groups": data["Subject"].to_numpy()} if isinstance(splitter, selection.GroupKFold) else {}
    pairs = list(splitter.split(data, data["Reaction"], **groups))
    found = rows_of(ml.cross_validate(ml.Model(SIMPLE, data), leave=splitter), SIMPLE)
    expected = by_hand(data, pairs)
    assert found["row"].tolist() == sorted(expected)
    np.testing.assert_allclose(found["log_score"], [expected[row] for row in found["row"]], rtol=1e-7)
    folds = ml.cross_validate(ml.Model(SIMPLE, data), leave=pairs).by_fold()
    assert folds["fitted"].tolist() == [len(train) for train, _ in pairs]
    assert folds["left_out"].tolist() == [len(test) for _, test in pairs]


def test_a_group_splitter_is_leaving_out_groups() -> None:
    model = ml.Model(SIMPLE, sleep())
    one = ml.cross_validate(model, leave=selection.LeaveOneGroupOut())
    other = ml.cross_validate(model, leave="groups", folds="all")
    assert one.folds.what == "Subject" and one.folds.units == other.folds.units
    pd.testing.assert_frame_equal(one.summary(), other.summary(), rtol=1e-9)
    pd.testing.assert_frame_equal(one.by_group(), other.by_group(), rtol=1e-9)


def test_groups_of_ones_own() -> None:
    data = sleep()
    model = ml.Model(SIMPLE, data)
    named = ml.cross_validate(model, leave=selection.GroupKFold(3), groups="Days")
    given = ml.cross_validate(model, leave=selection.GroupKFold(3), groups=data["Days"].to_numpy())
    assert named.folds.what == "Days" and sorted(named.folds.units) == list(range(10))
    np.testing.assert_array_equal(named.folds.fold, given.folds.fold)
    assert named.by_group()["joint_log_score"].tolist() == given.by_group()["joint_log_score"].tolist()
    assert "10 groups of Days left out" in repr(named) and "10 groups left out" in repr(given)
    per_row = ml.cross_validate(model, leave=selection.KFold(3, shuffle=True, random_state=0), groups="Days")
    assert per_row.folds.units == ()


def test_a_splitter_sees_the_rows_used_and_the_response() -> None:
    data = clustered("binomial").astype({"y": float})
    data.loc[[4, 30], "y"] = np.nan
    seen: list[Any] = []

    class Stratified(selection.StratifiedKFold):  # type: ignore[misc]
        def split(self, X: Any, y: Any = None, groups: Any = None) -> Any:
            seen.extend([X, y, groups])
            return super().split(X, y, groups)

    result = ml.cross_validate(ml.Model("y ~ x + (1 | g)", data, family="binomial"), leave=Stratified(4))
    used = data.dropna()
    X, y, groups = seen
    np.testing.assert_array_equal(X["w"], used["w"])
    np.testing.assert_array_equal(y, used["y"])
    np.testing.assert_array_equal(groups, used["g"])
    assert result.by_row()["row"].tolist() == used.index.tolist()
    shares = [y[result.folds.fold == k].mean() for k in range(4)]
    assert max(shares) - min(shares) < 0.03


def test_pairs_count_the_rows_of_the_data() -> None:
    data = sleep()
    data.loc[3, "Reaction"] = np.nan
    early = (data["Days"] < 6).to_numpy()
    model = ml.Model(SIMPLE, data)
    masks = ml.cross_validate(model, leave=[(early, ~early)])
    rows = rows_of(masks, SIMPLE)
    used = early & data["Reaction"].notna().to_numpy()
    expected = by_hand(data, [(np.flatnonzero(used), np.flatnonzero(~early))])
    assert rows["row"].tolist() == list(expected)
    np.testing.assert_allclose(rows["log_score"], list(expected.values()), rtol=1e-7)
    assert any("107 of the 179 rows are in no test set" in one for one in masks.messages)
    numbers = ml.cross_validate(
        model, leave=(pair for pair in [(np.flatnonzero(early), np.flatnonzero(~early).tolist())])
    )
    pd.testing.assert_frame_equal(numbers.by_row(), masks.by_row())


def test_polars_and_several_models() -> None:
    model = ml.Model(SIMPLE, ml.load("sleepstudy", "polars"))
    result = ml.cross_validate(
        {"one": model}, leave=selection.GroupKFold(3), groups=ml.load("sleepstudy", "polars")["Subject"], baselines=True
    )
    assert type(result.by_group()).__module__.startswith("polars") and len(result.folds.units) == 18


ALL = np.arange(180)


@pytest.mark.parametrize(("leave", "options", "text"), [
    (selection.KFold, {}, "is the class KFold; give a splitter made of it"),
    (selection.ShuffleSplit(3, random_state=0), {}, "left out in fold 1 and in fold 2.*must not overlap"),
    (selection.StratifiedKFold(3), {}, "StratifiedKFold.split fails on these rows: Supported target types"),
    (selection.GroupKFold(30), {}, "number of splits n_splits=30 greater than"),
    (selection.GroupKFold(3), {"groups": "Dais"}, "groups='Dais' is not known; did you mean 'Days'"),
    ([], {}, "no folds"),
    (iter([]), {}, "no folds"),
    ([ALL[:90], ALL[90:]], {}, r"no \(train, test\) pair.*array of shape \(90,\)"),
    ((ALL[:90], ALL[90:]), {}, r"a single fold is written \[\(train, test\)\]"),
    ([(ALL[:100], ALL[99:])], {}, "fits row 99 and leaves it out"),
    ([(ALL, ALL[:3])], {}, "fits row 0 and leaves it out, and so for 3 rows"),
    ([(ALL[:100], [180])], {}, "name row 180, but the rows of the data are 0 to 179"),
    ([(ALL[:100], [-1])], {}, "name row -1"),
    ([(ALL[:100], [])], {}, "test rows of fold 1 are empty"),
    ([(ALL < 0, ALL >= 0)], {}, "train rows of fold 1 are empty"),
    ([(ALL[:100], [101, 101])], {}, "name row 101 twice"),
    ([(ALL[:100], [101.5])], {}, "must be row numbers, counting from 0; got 101.5"),
    ([(ALL[:100], ["a"])], {}, "must be row numbers"),
    ([(ALL[:90], ALL[90:]), (ALL[:50], ALL[170:])], {}, "row 170 is left out in fold 1 and in fold 2, and so for 10 rows"),
    ([(ALL[:50], ALL[100:])], {}, "row 50 is in no fold, neither to fit nor to leave out, and so for 50 rows"),
    ("rows", {"groups": "Subject"}, "groups= goes with a splitter"),
])  # fmt: skip
def test_what_is_refused(leave: Any, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ml.OptionError, match=text):
        ml.cross_validate(ml.Model(SIMPLE, sleep()), leave=leave, **options)


def test_what_data_do_not_allow() -> None:
    model = ml.Model(SIMPLE, sleep())
    with pytest.raises(ml.DataError, match="mask of 90 values for 180 rows"):
        ml.cross_validate(model, leave=[(ALL[:90] < 0, ALL[90:])])
    with pytest.raises(ml.DataError, match="groups must have the group of each of the 180 rows"):
        ml.cross_validate(model, leave=selection.GroupKFold(3), groups=[1, 2])
    labels = np.where(ALL == 7, None, "a")
    with pytest.raises(ml.DataError, match="no label for row 7"):
        ml.cross_validate(model, leave=selection.GroupKFold(3), groups=labels)
    data = sleep()
    data.loc[170:, "Reaction"] = np.nan
    with pytest.raises(ml.DataError, match="test rows of fold 1 hold no row that the model uses"):
        ml.cross_validate(ml.Model(SIMPLE, data), leave=[(ALL[:170], ALL[170:])])
    alone = ml.Model("Reaction ~ Days", sleep())
    with pytest.raises(ml.OptionError, match="give groups="):
        ml.cross_validate(alone, leave=selection.GroupKFold(3))
    assert ml.cross_validate(alone, leave=selection.GroupKFold(3), groups="Subject").folds.what == "Subject"


def test_scikit_learn_is_not_needed() -> None:
    """A splitter is whatever has split()."""
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "import numpy as np, multilevel as ml\n"
        "class Halves:\n"
        "    def split(self, X, y=None, groups=None):\n"
        "        at = np.arange(len(X))\n"
        "        yield at[::2], at[1::2]\n"
        "        yield at[1::2], at[::2]\n"
        "model = ml.Model('Reaction ~ Days + (1 | Subject)', ml.load('sleepstudy'))\n"
        "print(ml.cross_validate(model, leave=Halves()).folds.count)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.returncode) == ("2\n", 0), done.stderr
