"""Many simulated data sets × engines: is our criterion never worse, and is the verdict of `fit.convergence` right?

``python benchmarks/simulated.py --count 1000``: makes the sets, fits each with every engine, judges, and writes the
table in README.md, and results/simulated.json with the sets where an engine stopped short (the cache has them all).
Every engine's covariances are put into one dense evaluation of the criterion (dense.py), so that an engine is judged
by where it stopped and not by what it reports.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import problems
import shapes
from dense import Dense
from engines.protocol import Answer, Spec
from engines.runner import ENGINES, Settings
from engines.runner import run as run_engine

RESULTS = Path(__file__).resolve().parent / "results" / "simulated.json"
DEFAULT = ["multilevel", "lme4", "mixedlm", "glmm"]
TOLERANCE = 1e-8  # relative: what "never worse" means


def home(seed: int, cache: Path) -> Path:
    """Where the sets of a seed and their answers lie; another generator, another folder."""
    source = Path(shapes.__file__).read_bytes()
    return (cache / f"simulated-{seed}-{hashlib.sha256(source).hexdigest()[:8]}").resolve()


def make(count: int, seed: int, cache: Path) -> list[tuple[Spec, dict[str, str]]]:
    """Write one CSV and one Feather file a set; existing ones are kept."""
    folder = home(seed, cache)
    out = []
    for number in range(count):
        drawn = shapes.draw(number, seed)
        stem = folder / drawn.spec.name
        if not stem.with_suffix(".feather").exists():
            problems.store(drawn.frame, drawn.spec.factors, stem)
        out.append((replace(drawn.spec, stem=str(stem)), {"layout": drawn.layout, "truth": drawn.truth}))
    return out


def fit_all(engine: str, specs: list[Spec], settings: Settings, store: Path, again: bool) -> dict[str, Answer]:
    """Answers by set; those already stored are kept unless `again`."""
    known: dict[str, Answer] = json.loads(store.read_text()) if store.exists() and not again else {}
    todo = [s for s in specs if s.name not in known]

    def done(answer: Answer) -> None:
        known[answer["problem"]] = answer
        if len(known) % 50 == 0:
            print(f"  {engine}: {len(known)} of {len(specs)}", flush=True)

    if todo:
        run_engine(ENGINES[engine], todo, settings, done)
        store.parent.mkdir(parents=True, exist_ok=True)
        store.write_text(json.dumps(known))
    return known


def judge(spec: Spec, about: dict[str, str], answers: dict[str, Answer]) -> dict[str, Any]:
    """Criterion of each engine's stopping point, the best of them, and whether that one is singular."""
    frame = pd.read_feather(spec.stem + ".feather")
    dense = Dense(spec, frame)
    points, reported, states = {}, {}, {}
    for engine, answer in answers.items():
        states[engine] = state(answer)
        if states[engine] != "fitted":
            continue
        points[engine] = dense.whiten([np.asarray(c, dtype=float) for c in answer["terms"]], answer["sigma"])
        reported[engine] = answer["criterion"]
    values = {engine: safe(dense, point) for engine, point in points.items()}
    values = {engine: value for engine, value in values.items() if np.isfinite(value)}
    if not values:
        return {"set": spec.name, "formula": spec.formula, "n": dense.n, "states": states, **about}
    winner = min(values, key=lambda e: values[e])
    singular, smallest, _ = dense.boundary(points[winner])
    unit = max(1.0, abs(values[winner]))
    return {
        "set": spec.name,
        "formula": spec.formula,
        "n": dense.n,
        "reml": spec.reml,
        "weights": spec.weights,
        **about,
        "best": values[winner],
        "winner": winner,
        "singular": singular,
        "flat": dense.flat(points["multilevel"]) if "multilevel" in points else False,
        "smallest_sd": smallest,
        "states": states,
        "excess": {e: (v - values[winner]) / unit for e, v in values.items()},
        "misreport": {e: abs(reported[e] - values[e]) / unit for e in values},
        "verdict": answers.get("multilevel", {}).get("verdict"),
        "evaluations": {e: a.get("evaluations") for e, a in answers.items()},
    }


def state(answer: Answer) -> str:
    for key in ("unsupported", "timeout", "error"):
        if key in answer:
            return key
    cells = [value for cov in answer["terms"] for row in cov for value in row]
    numbers = [answer.get("criterion"), answer.get("sigma"), *cells]
    bad = any(v is None or not np.isfinite(v) for v in numbers)
    return "error" if bad else "fitted"


def safe(dense: Dense, point: list[Any]) -> float:
    try:
        return dense.criterion(point)
    except np.linalg.LinAlgError:
        return float("nan")


def verdict_right(row: dict[str, Any]) -> bool | None:
    """Our optimum must be certified, and called singular exactly when the best known one is; None: nobody can tell."""
    if row.get("verdict") is None or "best" not in row:
        return None
    if row["flat"]:  # nothing to certify: some variance is arbitrary, and the verdict must say so
        return bool(row["verdict"] == "not certified")
    if row["verdict"] == "not certified":
        return False
    return None if row["singular"] is None else bool((row["verdict"] == "singular") == row["singular"])


def summary(rows: list[dict[str, Any]], engines: list[str]) -> str:
    """The Markdown table for README.md."""
    judged = [r for r in rows if "best" in r]
    singular = sum(r["singular"] is True for r in judged)
    open_ones = sum(r["singular"] is None for r in judged)
    lines = [
        f"{len(rows)} sets, {singular} with a singular optimum, {open_ones} undecidable.",
        "",
        "| engine | fitted | cannot | failed or timed out | short by > 10⁻⁸ | > 10⁻⁶ | > 10⁻³ deviance units | "
        "worst, relative | median evaluations |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for engine in engines:
        states = Counter(r["states"].get(engine, "error") for r in rows)
        found = [r for r in judged if engine in r["excess"]]
        pairs = [(r["excess"][engine], r["excess"][engine] * max(1.0, abs(r["best"]))) for r in found]
        counts = [sum(e > limit for e, _ in pairs) for limit in (1e-8, 1e-6)] + [sum(u > 1e-3 for _, u in pairs)]
        evaluations = [r["evaluations"][engine] for r in judged if r["evaluations"].get(engine)]
        cells = [
            engine,
            states["fitted"],
            states["unsupported"],
            states["error"] + states["timeout"],
            *counts,
            f"{max((e for e, _ in pairs), default=0.0):.1e}",
            f"{np.median(evaluations):.0f}" if evaluations else "–",
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    answers = Counter(verdict_right(r) for r in judged)
    count = f"right {answers[True]}, wrong {answers[False]}, not judged {answers[None]}"
    lines += ["", f"Verdict of `fit.convergence`: {count}."]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--engines", nargs="+", default=DEFAULT, choices=list(ENGINES))
    parser.add_argument("--again", nargs="*", default=[], help="peers to fit again though stored")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for one engine on one set")
    parser.add_argument("--peers", default=Settings.peers)
    parser.add_argument("--rscript", default=Settings.rscript)
    parser.add_argument("--cache", type=Path, default=problems.CACHE)
    parser.add_argument("--no-readme", action="store_true", help="leave README.md alone")
    args = parser.parse_args()
    sets = make(args.count, args.seed, args.cache)
    specs = [spec for spec, _ in sets]
    settings = Settings(
        peers=args.peers,
        rscript=args.rscript,
        repeats=0,
        min_seconds=0.0,
        slow=0.0,
        timeout=args.timeout,
        control="tight",
    )
    answers = {}
    for engine in args.engines:
        store = home(args.seed, args.cache) / f"answers-{engine}.json"
        answers[engine] = fit_all(engine, specs, settings, store, engine in (*args.again, "multilevel"))
    rows = [judge(spec, about, {e: answers[e][spec.name] for e in args.engines}) for spec, about in sets]
    worse = [r["set"] for r in rows if "best" in r and r["excess"].get("multilevel", np.inf) > TOLERANCE]
    wrong = [r["set"] for r in rows if verdict_right(r) is False]
    (home(args.seed, args.cache) / "rows.json").write_text(json.dumps(rows))
    notable = [r for r in rows if max(r.get("excess", {}).values(), default=1.0) > TOLERANCE or r["set"] in wrong]
    report = {"seed": args.seed, "count": args.count, "worse": worse, "wrong_verdict": wrong, "notable": notable}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=0))
    text = summary(rows, args.engines)
    print(text + f"\n\nmultilevel worse: {worse}\nwrong verdicts: {wrong}")
    if not args.no_readme:
        from table import replace_between

        replace_between(Path(__file__).resolve().parent / "README.md", "simulated", text)
    return 1 if worse or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
