"""Data for the tests of cross-validation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

import multilevel as ml


def schools() -> pd.DataFrame:
    return ml.load("math10")


def rows_of(result: Any, model: str) -> pd.DataFrame:
    table = result.by_row()
    return table[table["model"] == model].reset_index(drop=True)


def clustered(kind: str, groups: int = 14, each: int = 12) -> pd.DataFrame:
    rng = np.random.default_rng(8)
    g = np.repeat(np.arange(groups), each)
    x, w = rng.standard_normal((2, len(g)))
    eta = 0.4 + 0.6 * x - 0.3 * w + 1.2 * rng.standard_normal(groups)[g]
    y = {"binomial": rng.binomial(1, expit(eta)), "poisson": rng.poisson(np.exp(eta))}[kind]
    return pd.DataFrame({"y": y, "x": x, "w": w, "g": g})
