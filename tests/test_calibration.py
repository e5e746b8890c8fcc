"""Simulation-based calibration in short: ranks of true parameters among posterior draws, over families and structures.

`benchmarks/calibration.py` runs the same with more data sets and more models.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy import stats

SETS = 60


@pytest.fixture(scope="module")
def calibration() -> ModuleType:
    path = Path(__file__).parent.parent / "benchmarks" / "calibration.py"
    spec = importlib.util.spec_from_file_location("calibration", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "linear, slopes",
        "linear, t prior",
        "binomial, crossed",
        "poisson",
        "zero-inflated",
        "gamma",
        "ordinal",
        "poisson, nuts",
    ],
)
def test_ranks_are_uniform(calibration: ModuleType, name: str) -> None:
    model = calibration.problems()[name]
    found, _ = calibration.ranks(model, SETS, seed=5, method="nuts" if name.endswith("nuts") else "auto")
    for parameter, ranks in found.items():
        u = (np.array(ranks) + 0.5) / (calibration.KEPT + 1)
        # an honest sampler falls below once in ten thousand parameters
        assert stats.kstest(u, "uniform").pvalue > 1e-4, parameter
        # too narrow posteriors pile ranks up at the ends, too wide ones in the middle
        spread = np.var(u) * 12
        assert abs(spread - 1) < 4 * np.sqrt(0.8 / SETS), (parameter, spread)
