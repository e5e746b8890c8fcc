"""Panels of the stored numbers of plm and lme4."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import multilevel as ml

GOLDEN = Path(__file__).parent / "golden_panel"
GSP = "log(gsp) ~ log(pcap) + log(pc) + log(emp) + unemp"
CASES: dict[str, tuple[str, str, str | None]] = {  # formula, group, time
    "grunfeld": ("inv ~ value + capital", "firm", None),
    "grunfeld_gaps": ("inv ~ value + capital", "firm", None),
    "grunfeld_time": ("inv ~ value + capital", "firm", "year"),
    "produc": (GSP, "state", None),
    "produc_gaps": (GSP, "state", None),
    "produc_region": (GSP + " + factor(region)", "state", None),
    "produc_time": (GSP, "state", "year"),
    "produc_gaps_time": (GSP, "state", "year"),
}
ONE_WAY = [name for name in CASES if not name.endswith("time")]


@cache
def golden() -> dict[str, Any]:
    return json.loads((GOLDEN / "panel.json").read_text())


def rows(case: str) -> pd.DataFrame:
    """The rows of a case; the gaps are those of make_panel.R."""
    data = ml.load("grunfeld") if case.startswith("grunfeld") else pd.read_csv(GOLDEN / "produc.csv")
    if "gaps" not in case and "region" not in case:
        return data
    group = CASES[case][1]
    g, r = data.groupby(group, sort=False).ngroup() + 1, data.groupby(group).cumcount() + 1
    gone = ((g * 7 + r * 3) % 5 == 0) | (r > 20 - g % 9) | (g.isin([3, 8]) & (r > 1))
    return data[~gone].reset_index(drop=True)


@cache
def found(case: str, **options: Any) -> Any:
    """The panel of a case."""
    formula, group, time = CASES[case]
    return ml.panel(formula, group, rows(case), time=time, **options)


def plain(estimate: Any, skip: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients and classical standard errors."""
    return estimate.coef, np.sqrt(np.diag(estimate.plain))
