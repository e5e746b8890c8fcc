"""Do bootstrap and profile intervals cover? Simulated data with known parameters, against the Monte Carlo error.

``python benchmarks/coverage.py --sets 400 --draws 500``: for every design, simulates data sets from known parameters, makes
95 % intervals by each method and counts those that hold the truth; writes the table in README.md. A share is marked
where it lies further from nominal than two Monte Carlo standard errors.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from multilevel import Model, MultilevelError
from multilevel.bootstrap_intervals import interval
from multilevel.intervals import confint

LEVEL = 0.95
METHODS = (
    "wald",
    "profile",
    "parametric, percentile",
    "parametric, bca",
    "residual, percentile",
    "residual, bca",
    "case, percentile",
    "case, bca",
)


@dataclass(frozen=True)
class Layout:
    """A design with its truth, by parameter name."""

    name: str
    formula: str
    truth: dict[str, float]
    draw: Callable[[np.random.Generator], pd.DataFrame]


def random_intercept(rng: np.random.Generator) -> pd.DataFrame:
    """40 groups of 6 rows, sd 1 between and 1 within."""
    g, x = np.repeat(np.arange(40), 6), rng.standard_normal(240)
    return pd.DataFrame({"g": g, "x": x, "y": 2 + 0.5 * x + rng.standard_normal(40)[g] + rng.standard_normal(240)})


def random_slope(rng: np.random.Generator) -> pd.DataFrame:
    """40 groups of 8 rows, sds 1 and 0.5 with correlation 0.3, residual sd 1."""
    g, x = np.repeat(np.arange(40), 8), np.tile(np.linspace(-1.5, 1.5, 8), 40)
    root = np.linalg.cholesky(np.array([[1.0, 0.15], [0.15, 0.25]]))
    b = rng.standard_normal((40, 2)) @ root.T
    return pd.DataFrame({"g": g, "x": x, "y": 2 + b[g, 0] + (0.5 + b[g, 1]) * x + rng.standard_normal(320)})


LAYOUTS = (
    Layout(
        "40 × 6, (1 | g)",
        "y ~ x + (1 | g)",
        {"Intercept": 2.0, "x": 0.5, "sd(g, Intercept)": 1.0, "sigma": 1.0},
        random_intercept,
    ),
    Layout(
        "40 × 8, (x | g)",
        "y ~ x + (x | g)",
        {
            "Intercept": 2.0,
            "x": 0.5,
            "sd(g, Intercept)": 1.0,
            "sd(g, x)": 0.5,
            "cor(g, Intercept, x)": 0.3,
            "sigma": 1.0,
        },
        random_slope,
    ),
)


def limits(fit: Any, method: str, draws: int, seed: int, known: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Interval of each parameter; bootstraps already drawn are in `known`."""
    if method in ("wald", "profile"):
        table = confint(fit, LEVEL, method, "satterthwaite", None, False, {})
        return dict(zip(table["term"], zip(table["conf_low"], table["conf_high"], strict=True), strict=True))
    kind, how = method.split(", ")
    if kind not in known:
        known[kind] = fit.bootstrap(draws, seed=seed, kind=kind, progress=False)
    low, high = interval(known[kind], LEVEL, how)
    return dict(zip(known[kind].names, zip(low, high, strict=True), strict=True))


def count(layout: Layout, sets: int, draws: int, methods: list[str]) -> dict[tuple[str, str], list[bool]]:
    """Whether each interval held the truth, by method and parameter."""
    held: dict[tuple[str, str], list[bool]] = {}
    for number in range(sets):
        fit = Model(layout.formula, layout.draw(np.random.default_rng([1, number]))).fit()
        known: dict[str, Any] = {}
        for method in methods:
            try:
                found = limits(fit, method, draws, number, known)
            except MultilevelError as error:
                print(f"{layout.name}, set {number}, {method}: {error}", file=sys.stderr)
                continue
            for name, truth in layout.truth.items():
                if name in found:
                    low, high = found[name]
                    held.setdefault((method, name), []).append(bool(low <= truth <= high))
    return held


def table(results: dict[str, dict[tuple[str, str], list[bool]]], sets: int, draws: int, methods: list[str]) -> str:
    """Markdown: a row per design and parameter, a column per method."""
    error = float(np.sqrt(LEVEL * (1 - LEVEL) / sets))
    lines = [
        f"{sets} data sets a design, {draws} draws a bootstrap (REML), nominal {100 * LEVEL:.0f} %; the Monte Carlo standard "
        f"error is {100 * error:.1f} points. **Bold**: more than two of them from nominal.",
        "",
        "| design | parameter | " + " | ".join(methods) + " |",
        "|---" * (2 + len(methods)) + "|",
    ]
    for layout in LAYOUTS:
        held = results[layout.name]
        for name in layout.truth:
            cells = []
            for method in methods:
                hits = held.get((method, name))
                if not hits:
                    cells.append("–")
                    continue
                share = float(np.mean(hits))
                text = f"{100 * share:.1f}"
                cells.append(f"**{text}**" if abs(share - LEVEL) > 2 * error else text)
            shown = layout.name.replace("|", "&#124;")
            lines.append(f"| {shown} | {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=400)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--no-readme", action="store_true", help="leave README.md alone")
    args = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = {layout.name: count(layout, args.sets, args.draws, args.methods) for layout in LAYOUTS}
    text = table(results, args.sets, args.draws, args.methods)
    print(text)
    if not args.no_readme:
        from table import replace_between

        replace_between(Path(__file__).resolve().parent / "README.md", "coverage", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
