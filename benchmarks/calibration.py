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
from multilevel import prior_draws, residual_priors
from multilevel.prior_table import entries_of

RESULTS = Path(__file__).resolve().parent / "results"
KEPT = 99  # thinned draws a rank is among
BINS = 10


def problems() -> dict[str, ml.Model]:
    """Small models with proper priors: families, structures, crossed and nested factors."""
    rng = np.random.default_rng(12)
    n = 120
    x, u = rng.standard_normal(n), rng.random(n)
    weeks = {"g": np.repeat(np.arange(20), 6), "t": np.tile(np.arange(6), 20)}
    rows = {"x": x, "g": rng.integers(0, 12, n), "h": rng.integers(0, 8, n), "y": u, "m": np.full(n, 5)}
    counts, binary = {**rows, "y": rng.integers(0, 5, n)}, {**rows, "y": rng.integers(0, 2, n)}
    marks = {**rows, "y": rng.integers(0, 4, n)}
    shares = {**rows, "y": 0.1 + 0.8 * u}
    wide = {"Intercept": ml.Normal(0, 1), "b": ml.Normal(0, 1), "sd": ml.HalfNormal(1)}
    small = {"Intercept": ml.Normal(0, 0.5), "b": ml.Normal(0, 0.5), "sd": ml.HalfNormal(0.5)}
    ordered = {name: prior for name, prior in small.items() if name != "Intercept"}
    linear = {**wide, "sigma": ml.HalfNormal(1)}
    slopes = {"cor": ml.LKJ(2)}

    def of(formula: str, data: dict[str, Any], family: str, priors: dict[str, Any], **more: Any) -> ml.Model:
        return ml.Model(formula, data, family=family, priors=priors, **more)

    return {
        "linear, slopes": ml.Model("y ~ x + (x | g)", rows, priors=linear | slopes),
        "linear, crossed": ml.Model("y ~ x + (1 | g) + (1 | h)", rows, priors=linear),
        "linear, t prior": ml.Model("y ~ x + (1 | g)", rows, priors={**linear, "b": ml.StudentT(4, 0, 1)}),
        "linear, ar1 effects": ml.Model("y ~ x + ar1(0 + factor(t) | g)", {**rows, **weeks}, priors=linear),
        "linear, ar1 residuals": ml.Model(
            "y ~ x + (1 | g)", {**rows, **weeks}, correlation="ar1(t | g)", priors=linear
        ),
        "bernoulli, slopes": of("y ~ x + (x | g)", binary, "binomial", wide | slopes),
        "binomial, crossed": of("y | trials(m) ~ x + (1 | g) + (1 | h)", counts, "binomial", wide),
        "poisson": of("y ~ x + (1 | g)", counts, "poisson", small),
        "nbinom2, crossed": of("y ~ x + (1 | g) + (1 | h)", counts, "nbinom2", {**small, "size": ml.Normal(1, 0.5)}),
        "zero-inflated": of("y ~ x + (1 | g)", counts, "poisson", {**small, "zi": ml.Normal(-1, 0.7)}, zi="~ 1"),
        "gamma": of("y ~ x + (1 | g)", shares, "gamma", {**small, "shape": ml.Normal(1, 0.5)}),
        "beta": of("y ~ x + (1 | g)", shares, "beta", {**small, "precision": ml.Normal(2, 0.5)}),
        "student": of(
            "y ~ x + (1 | g)", rows, "student", {**wide, "sigma": ml.Normal(0, 0.5), "df": ml.Normal(1.5, 0.5)}
        ),
        "ordinal": of("y ~ x + (1 | g)", marks, "ordinal", {**ordered, "thresholds": ml.Normal(0, 1.5)}),
        "poisson, nuts": of("y ~ x + (1 | g) + (1 | h)", counts, "poisson", small),
    }


def truth(model: ml.Model, rng: np.random.Generator) -> dict[str, Any]:
    """A value of each parameter by its name, drawn from its prior."""
    out: dict[str, Any] = {}
    entries = entries_of(model)
    cuts = (
        [e for e in entries if e.kind == "further"]
        if model.distribution and model.distribution.name == "ordinal"
        else []
    )
    if cuts:
        out |= dict(zip([e.name for e in cuts], prior_draws.thresholds(cuts, 1, rng)[0], strict=True))
    for e in entries:
        if e.kind == "cor":
            root = prior_draws.correlation_roots(e, model.design.terms[e.term], 1, rng)[0]
            out[e.name] = float((root @ root.T)[0, 1])
        elif e.kind == "residual":
            out[e.name] = float(residual_priors.draw(e, rng, 1)[0])
        elif e.name not in out:
            out[e.name] = float((e.prior.draw_positive if e.kind in ("sd", "sigma") else e.prior.draw)(rng, 1)[0])
    return out


def ranks(model: ml.Model, sets: int, seed: int, method: str) -> tuple[dict[str, list[int]], int]:
    """Ranks of each parameter, and how many posteriors said that they may not be trusted."""
    rng = np.random.default_rng(seed)
    d = model.design
    out: dict[str, list[int]] = {}
    doubted = 0
    for s in range(sets):
        while True:
            values = truth(model, rng)
            entries = [replace(e, prior=ml.Fixed(values[e.name])) for e in entries_of(model)]
            held = prior_draws.responses(model, entries, 1, rng)
            # ranks are uniform for each response by itself, so that responses without one of the categories may be left out
            if (
                model.distribution is None
                or model.distribution.name != "ordinal"
                or len(np.unique(held[0])) == len(np.unique(d.y))
            ):
                break
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ml.MultilevelWarning)
            posterior = model.with_design(replace(d, y=held[0])).sample(
                seed=s, keep="parameters", draws=500, method=method, progress=False
            )
        doubted += not posterior.trust[0]
        kept = posterior.draws_kept
        draws: dict[str, Any] = {name: kept.beta[..., i] for i, name in enumerate(d.names)}
        draws |= {c.name: kept.scalars[..., i] for i, c in enumerate(kept.coordinates)}
        for name, x in draws.items():
            if (known := values.get(name, values.get(name.split(",")[0] + ")"))) is None:
                raise KeyError(name)
            thinned = x.ravel()[np.linspace(0, x.size - 1, KEPT).astype(int)]
            out.setdefault(name, []).append(int((thinned < known).sum()))
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
    parser.add_argument("--problems", nargs="*", default=[], help="parts of their names; default all")
    args = parser.parse_args()
    path = RESULTS / "calibration.json"
    results = json.loads(path.read_text()) if args.problems and path.exists() else {}
    for name, model in problems().items():
        if args.problems and not any(part in name for part in args.problems):
            continue
        found, doubted = ranks(model, args.sets, args.seed, "nuts" if name.endswith("nuts") else "auto")
        results[name] = {"ranks": found, "doubted": doubted, "p": {k: chi_square(v) for k, v in found.items()}}
        shown = "  ".join(f"{k} {p:.2f}" for k, p in results[name]["p"].items())
        path.write_text(json.dumps(results))
        print(f"{name:22s} doubted {doubted} of {args.sets}; p-values of uniform ranks: {shown}", flush=True)
    picture(results, RESULTS / "calibration.png")


if __name__ == "__main__":
    main()
