"""What `pooling` says of groups whose coefficients are known, and of responses that count successes among trials."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest

import multilevel as ml


def covered(J: int, times: int, seed: int) -> float:
    """Share of simulated coefficients that 95 % intervals of partial pooling cover."""
    rng, hits = np.random.default_rng(seed), []
    for _ in range(times):
        g = np.repeat(np.arange(J), rng.integers(2, 9, J))
        x, a, b = rng.normal(size=len(g)), 1 + rng.normal(size=J), 0.5 + 0.6 * rng.normal(size=J)
        data = pl.DataFrame({"g": g.astype(str), "x": x, "y": a[g] + b[g] * x + rng.normal(size=len(g))})
        found = ml.pooling("y ~ x", "g", data)
        truth = np.column_stack([a, b])[[int(level) for level in found.columns.levels]]
        one = found.estimates["partial"]
        hits.append(((one.low <= truth) & (truth <= one.high)).mean())
    return float(np.mean(hits))


def test_intervals_cover_as_the_documentation_says():
    assert 0.91 < covered(40, 60, 3) < 0.97


def test_few_groups_and_singular_fits_are_told():
    few = ml.pooling("math ~ homework", "schid", ml.load("math10"))
    assert any("10 groups hardly tell the variances" in note for note in few.notes)
    assert not any("hardly tell" in note for note in ml.pooling("Reaction ~ Days", "Subject", ml.load("sleepstudy")).notes)
    zero = ml.pooling("Yield ~ 1", "Batch", ml.load("dyestuff2"))
    assert zero.partial.is_singular and any("far too narrow" in note for note in zero.notes)


@pytest.fixture(scope="module")
def rats():
    return ml.load("tumors").assign(rat=lambda data: np.arange(len(data)).astype(str))


def test_trials_are_counted(rats):
    found = ml.pooling("y | trials(K) ~ 1", "rat", pl.from_pandas(rats), family="binomial")
    frame = found.frame
    assert frame["trials"].to_list() == rats.set_index("rat").loc[frame["level"].to_list(), "K"].tolist()
    assert set(frame["n"]) == {1}
    text = found.summary()
    assert f"71 rows, 71 groups of rat: 1 row each, {rats['K'].min()} to {rats['K'].max()} trials each" in text
    most = rats.loc[rats["K"].idxmax()]
    assert f"({most['rat']}: {most['K']} trials)" in found.verdict and "row" not in found.verdict
    cells = [line.split() for line in text.splitlines() if line.startswith(("Intercept ", "          "))]
    sizes = [int(cell[-5]) for cell in cells if len(cell) >= 6 and cell[-1].endswith("%")]
    assert sizes == sorted(sizes) and len(sizes) == 12


def test_single_outcomes_are_rows():
    data = pd.DataFrame({"g": np.repeat(list("abcdef"), 20), "y": np.random.default_rng(1).integers(0, 2, 120)})
    found = ml.pooling("y ~ 1", "g", data, family="binomial")
    assert "trials" not in found.frame.columns and "120 rows, 6 groups of g: 20 rows each;" in found.summary()


def test_rows_left_out_and_constant_predictors_are_told():
    data = ml.load("sleepstudy").assign(flat=2.0)
    data.loc[data.index[:4], "Reaction"] = np.nan
    notes = ml.pooling("Reaction ~ Days + flat", "Subject", data).notes
    assert any("4 of 180 rows were left out" in note for note in notes)
    assert any("'flat' was left out" in note for note in notes) and not any("does not vary within" in note for note in notes)
