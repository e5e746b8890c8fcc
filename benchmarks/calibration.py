"""Simulation-based calibration: are posteriors as wide as they should be?

Parameters are drawn from the priors, a response from them, and the posterior of that response: the rank of the parameter
among its posterior draws is then uniform (Talts, Betancourt, Simpson, Vehtari & Gelman 2018, arXiv:1804.06788). Writes
results/calibration.json and, with matplotlib, results/calibration.png.

    python calibration.py --sets 200
"""

from __future__ import annotations

import argparse
import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import multilevel as ml
from multilevel.prior_draws import predictors
from multilevel.prior_table import further_of, prior_table

RESULTS = Path(__file__).resolve().parent / "results"
KEPT = 99  # thinned draws a rank is among
BINS = 10


def problems() -> dict[str, ml.Model]:
    """Small models with proper priors."""
    rng = np.random.default_rng(12)
    n = 120
    data = {"x": rng.standard_normal(n), "g": rng.integers(0, 12, n), "h": rng.integers(0, 8, n), "y": rng.random(n)}
    counts = {**data, "y": rng.integers(0, 5, n)}
    binary = {**data, "y": rng.integers(0, 2, n)}
    wide = {"Intercept": ml.Normal(0, 1), "b": ml.Normal(0, 1)}
    scales = {"sd": ml.HalfNormal(1)}
    linear = {**wide, **scales, "sigma": ml.HalfNormal(1)}
    return {
        "linear, slopes": ml.Model("y ~ x + (x | g)", data, priors={**linear, "cor": ml.LKJ(2)}),
        "linear, crossed": ml.Model("y ~ x + (1 | g) + (1 | h)", data, priors=linear),
        "linear, t prior": ml.Model("y ~ x + (1 | g)", data, priors={**linear, "b": ml.StudentT(4, 0, 1)}),
        "poisson": ml.Model("y ~ x + (1 | g)", counts, family="poisson", priors={**wide, "sd": ml.HalfNormal(0.7)}),
        "bernoulli, slopes": ml.Model(
            "y ~ x + (x | g)", binary, family="binomial", priors={**wide, **scales, "cor": ml.LKJ(2)}
        ),
    }


def ranks(model: ml.Model, sets: int, seed: int) -> tuple[dict[str, list[int]], int]:
    """Ranks of each parameter, and how many posteriors said that they may not be trusted."""
    rng = np.random.default_rng(seed)
    d, family = model.design, model.distribution
    entries = prior_table(d, family, model.priors, further_of(model))
    values, eta = predictors(d, entries, sets, rng)
    out: dict[str, list[int]] = {}
    doubted = 0
    for s in range(sets):
        if family is None:
            y = eta[s] + values["sigma"][s] * rng.standard_normal(eta.shape[1])
        else:
            none = np.zeros(eta.shape[1])
            y = family.draw(rng, eta[s], none, none, None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ml.MultilevelWarning)
            posterior = model.with_design(replace(d, y=y)).sample(seed=s, keep="parameters", draws=500)
        doubted += not posterior.trust[0]
        kept = posterior.draws_kept
        draws: dict[str, Any] = {name: kept.beta[..., i] for i, name in enumerate(d.names)}
        draws |= {c.name: kept.scalars[..., i] for i, c in enumerate(kept.coordinates) if c.kind != "cor"}
        for name, x in draws.items():
            thinned = x.ravel()[np.linspace(0, x.size - 1, KEPT).astype(int)]
            out.setdefault(name, []).append(int((thinned < values[name][s]).sum()))
    return out, doubted


def chi_square(found: list[int]) -> float:
    """P-value of uniform ranks."""
    from scipy import stats

    counts = np.bincount(np.array(found) * BINS // (KEPT + 1), minlength=BINS)
    return float(stats.chisquare(counts).pvalue)


def picture(results: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    cells = [(m, p, r) for m, one in results.items() for p, r in one["ranks"].items()]
    columns = 5
    rows = -(-len(cells) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(12, 1.9 * rows), sharex=True, layout="constrained")
    for ax in axes.flat[len(cells) :]:
        ax.set_axis_off()
    for ax, (model, parameter, found) in zip(axes.flat, cells, strict=False):
        expected = len(found) / BINS
        band = 2 * np.sqrt(expected * (1 - 1 / BINS))
        ax.axhspan(expected - band, expected + band, color="0.85")
        ax.hist(found, bins=np.linspace(0, KEPT + 1, BINS + 1), color="tab:blue")
        ax.set_title(f"{model}: {parameter}", fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    results = {}
    for name, model in problems().items():
        found, doubted = ranks(model, args.sets, args.seed)
        results[name] = {"ranks": found, "doubted": doubted, "p": {k: chi_square(v) for k, v in found.items()}}
        shown = "  ".join(f"{k} {p:.2f}" for k, p in results[name]["p"].items())
        print(f"{name:18s} doubted {doubted} of {args.sets}; p-values of uniform ranks: {shown}", flush=True)
    (RESULTS / "calibration.json").write_text(json.dumps(results))
    picture(results, RESULTS / "calibration.png")


if __name__ == "__main__":
    main()
