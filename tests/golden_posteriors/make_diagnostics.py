"""Make diagnostics.json: draws, and what ArviZ says of them (``pip install arviz-base arviz-stats``).

The draws are stored too, so that the test needs neither ArviZ nor this script's random numbers.
"""

from __future__ import annotations

import json
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import arviz_base
import arviz_stats
import numpy as np

HERE = Path(__file__).parent
CHAINS, DRAWS, DIGITS = 4, 101, 5  # an odd number of draws: halves leave the middle one out
EVEN = 100  # of the log-likelihoods: 3 sqrt(4 * 100) is whole, so that ArviZ and R's loo agree on the length of tails


def series(rng: np.random.Generator) -> dict[str, Any]:
    """(chains, draws) of several kinds: name -> array."""
    noise = rng.standard_normal((CHAINS, DRAWS))

    def autoregression(rho: float) -> Any:
        x = np.empty((CHAINS, DRAWS))
        x[:, 0] = noise[:, 0]
        for i in range(1, DRAWS):
            x[:, i] = rho * x[:, i - 1] + np.sqrt(1 - rho**2) * noise[:, i]
        return x

    return {
        "independent": noise,
        "slow": autoregression(0.9),
        "alternating": autoregression(-0.6),
        "heavy": rng.standard_t(1, (CHAINS, DRAWS)),
        "apart": noise + 0.7 * np.arange(CHAINS)[:, None],
        "wider": noise * np.array([1.0, 1.0, 1.0, 3.0])[:, None],
        "drifting": noise + np.linspace(0, 2, DRAWS),
        "ties": rng.poisson(1.5, (CHAINS, DRAWS)).astype(float),
        "large": 1e6 + autoregression(0.5),
    }


def likelihoods(rng: np.random.Generator) -> Any:
    """(chains, draws, rows) log-likelihoods of a normal mean, with rows that are far off."""
    y = np.r_[rng.standard_normal(8), 3.5, 6.0, 9.0]
    mean, log_sd = 0.35 * rng.standard_normal((CHAINS, EVEN)), 0.2 * rng.standard_normal((CHAINS, EVEN))
    z = (y - mean[:, :, None]) / np.exp(log_sd[:, :, None])
    return -0.5 * z**2 - log_sd[:, :, None] - 0.5 * np.log(2 * np.pi)


def main() -> None:
    rng = np.random.default_rng(20240)
    draws = {name: np.round(v, DIGITS) for name, v in series(rng).items()}
    rows = np.round(likelihoods(rng), DIGITS)
    energy = np.round(np.stack([draws["slow"] * 2, draws["independent"] + 9]).sum(axis=0), DIGITS)
    tree = arviz_base.from_dict({"posterior": draws, "sample_stats": {"energy": energy}})
    by_row = arviz_base.from_dict({"posterior": {"mean": rows[:, :, 0]}, "log_likelihood": {"y": rows}})
    found: dict[str, Any] = {name: {} for name in draws}
    calls = {
        "r_hat": lambda: arviz_stats.rhat(tree, method="rank"),
        "ess_bulk": lambda: arviz_stats.ess(tree, method="bulk"),
        "ess_tail": lambda: arviz_stats.ess(tree, method="tail", prob=(0.05, 0.95)),
        "ess_mean": lambda: arviz_stats.ess(tree, method="mean"),
        "mcse_mean": lambda: arviz_stats.mcse(tree, method="mean"),
    }
    for what, call in calls.items():
        values = call()
        values = values.get("posterior", values)
        for name in draws:
            found[name][what] = float(values[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loo = arviz_stats.loo(by_row, pointwise=True, reff=1.0)
        own = arviz_stats.loo(by_row, pointwise=True)
    bfmi = arviz_stats.bfmi(tree)
    out = {
        "about": "Draws and what ArviZ says of them; made by make_diagnostics.py.",
        "versions": {name: version(name) for name in ("arviz-base", "arviz-stats", "numpy", "scipy")},
        "draws": {name: v.tolist() for name, v in draws.items()},
        "expected": found,
        "energy": energy.tolist(),
        "e_bfmi": np.asarray(bfmi["energy"] if "energy" in getattr(bfmi, "data_vars", {}) else bfmi).ravel().tolist(),
        "log_likelihood": rows.tolist(),
        "loo": {
            "elpd": float(loo.elpd), "se": float(loo.se), "p_loo": float(loo.p),
            "pointwise": np.asarray(loo.elpd_i).tolist(), "pareto_k": np.asarray(loo.pareto_k).tolist(),
            "elpd_with_its_own_r_eff": float(own.elpd),
        },
    }  # fmt: skip
    (HERE / "diagnostics.json").write_text(json.dumps(out, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
