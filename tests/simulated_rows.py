"""Rows with a response of every kind, for tests of what is drawn from priors and posteriors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]
NONE = 1e-9  # an sd of groups that is as good as none


def frame(rows: int = 120, groups: int = 12) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    g = np.arange(rows) % groups
    data = pd.DataFrame({"g": g, "h": np.arange(rows) // groups % 5, "x": np.where(np.arange(rows) % 2, 1.0, -1.0)})
    data["m"] = 1 + np.arange(rows) % 7
    data["count"] = rng.poisson(2.0, rows)
    data["share"] = rng.binomial(data["m"], 0.4)
    data["amount"] = rng.gamma(2.0, 1.0, rows)
    data["part"] = rng.beta(2.0, 3.0, rows)
    data["real"] = rng.standard_t(4, rows) + 0.5 * rng.normal(size=groups)[g]
    data["wet"] = data["amount"] * (rng.random(rows) > 0.3)
    data["grade"] = pd.Categorical.from_codes(rng.integers(0, 3, rows), ["low", "mid", "top"], ordered=True)
    return data


def values(table: Any) -> Array:
    """(simulations, rows); numbers of categories from zero."""
    codes = [table[n].cat.codes if isinstance(table[n].dtype, pd.CategoricalDtype) else table[n] for n in table]
    return np.array(codes, dtype=np.float64)
