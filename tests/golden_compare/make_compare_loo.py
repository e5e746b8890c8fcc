"""Reference comparisons of posteriors by ArviZ: python make_compare_loo.py writes compare_loo.json beside it.

Needs arviz-stats and xarray. The log-likelihoods are drawn again by the test, from the same seed.
"""

from __future__ import annotations

import json
from pathlib import Path

import arviz_stats
import numpy as np
import xarray as xr


def log_likelihoods() -> dict[str, np.ndarray]:
    """(2 chains, 450 draws, 40 rows) log densities under draws of three models.

    With 900 draws the tail that is smoothed has 90 of them by any rounding; ArviZ rounds 3 sqrt(draws) down, loo up.
    """
    rng = np.random.default_rng(11)
    y = rng.normal(np.where(rng.random(40) < 0.4, -1.0, 1.0), 0.8)
    out = {}
    for name, centre, sd in (("above", 1.0, 1.0), ("below", -1.0, 1.0), ("wide", 0.0, 4.0)):
        mean = centre + 0.15 * rng.normal(size=(2, 450, 1))
        scale = sd * np.exp(0.1 * rng.normal(size=(2, 450, 1)))
        out[name] = -0.5 * ((y - mean) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)
    return out


def main() -> None:
    trees = {}
    for name, values in log_likelihoods().items():
        mean = values.mean(axis=2)
        trees[name] = xr.DataTree.from_dict(
            {
                "posterior": xr.Dataset({"m": (("chain", "draw"), mean)}),
                "log_likelihood": xr.Dataset({"y": (("chain", "draw", "row"), values)}),
            }
        )
    elpds = {name: arviz_stats.loo(tree, pointwise=True, reff=1.0) for name, tree in trees.items()}
    table = arviz_stats.compare(elpds, method="stacking")
    rows = [{"model": name, **{k: float(row[k]) for k in ("elpd", "p", "elpd_diff", "weight", "se", "dse")}}
            for name, row in table.iterrows()]
    found = {"arviz_stats": arviz_stats.__version__, "rows": rows}
    (Path(__file__).parent / "compare_loo.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
