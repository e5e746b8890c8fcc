"""A small frame with every kind of column, and designs made from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from multilevel.design import Design, build
from multilevel.formula import parse


def frame(n: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "y": rng.normal(10, 1, n),
            "x": rng.normal(size=n),
            "z": rng.uniform(1, 5, n),
            "k": np.arange(n) % 4,
            "f": np.array(["a", "b", "c"])[np.arange(n) % 3],
            "h": np.array(["u", "v"])[(np.arange(n) // 3) % 2],
            "o": pd.Categorical(
                np.array(["lo", "mid", "hi"])[(np.arange(n) // 2) % 3], ["lo", "mid", "hi"], ordered=True
            ),
            "g": np.repeat([f"g{i}" for i in range(n // 6)], 6),
            "s": np.arange(n) % 6,
            "w": rng.uniform(0.5, 2, n),
        }
    )


DATA = frame()


def make(text: str, data: Any = DATA, **options: Any) -> Design:
    return build(parse(text), data, **options)
