"""Variance inflation factors by statsmodels.  Run: python make_statsmodels.py > statsmodels.json"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import statsmodels
from statsmodels.stats.outliers_influence import variance_inflation_factor

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1] / "src" / "multilevel" / "data"
COLUMNS = {
    "math10": ["homework", "ses", "parented", "ratio", "percmin", "white"],
    "radon": ["floor", "log_uranium", "remainder", "idnum"],
}

out = {"version": statsmodels.__version__, "vif": {}}
for name, columns in COLUMNS.items():
    frame = pd.read_csv(DATA / f"{name}.csv")
    if name == "radon":
        frame["remainder"] = (frame["idnum"] % 7).astype(float)
    X = np.column_stack([np.ones(len(frame)), frame[columns].to_numpy(float)])
    out["vif"][name] = {column: variance_inflation_factor(X, i + 1) for i, column in enumerate(columns)}
print(json.dumps(out, indent=1))
