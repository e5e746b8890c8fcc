"""Scrambled Sobol points: balanced in every dyadic box, uniform, and close to integrals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from multilevel.sobol import MOST_DIMENSIONS, _directions, scrambled_sobol


def test_direction_numbers_are_those_of_scipy() -> None:
    mine = np.zeros((64, MOST_DIMENSIONS), dtype=np.uint32)
    index = np.arange(64)
    for j in range(MOST_DIMENSIONS):
        for bit, v in enumerate(_directions(j)):
            mine[:, j] ^= np.where((index >> bit) & 1, v, np.uint32(0)).astype(np.uint32)
    theirs = stats.qmc.Sobol(MOST_DIMENSIONS, scramble=False).random(64)
    gray = index ^ (index >> 1)  # their points come in the order of a Gray code
    np.testing.assert_allclose(mine[gray] / 2.0**32, theirs)


@pytest.mark.parametrize("seed", range(3))
def test_points_are_balanced(seed: int) -> None:
    x = scrambled_sobol(1024, MOST_DIMENSIONS, np.random.default_rng(seed))
    assert x.min() > 0 and x.max() < 1
    for j in range(MOST_DIMENSIONS):  # one point in each of 1024 intervals
        assert len(np.unique((x[:, j] * 1024).astype(int))) == 1024
    boxes = (x[:, 0] * 32).astype(int) * 32 + (x[:, 1] * 32).astype(int)
    assert len(np.unique(boxes)) == 1024


def test_scramblings_are_random_and_unbiased() -> None:
    means = [np.exp(scrambled_sobol(256, 3, np.random.default_rng(s)).sum(axis=1)).mean() for s in range(200)]
    truth = (np.e - 1) ** 3
    assert abs(np.mean(means) - truth) < 4 * np.std(means) / np.sqrt(200)
    assert np.std(means) < 0.2 * 2.6 / np.sqrt(256)  # plain sampling's sd is about 2.6 / 16
    assert len(np.unique(means)) == 200
