"""Run problems × engines and keep the answers: ``python benchmarks/run.py --problems sleepstudy --engines lme4 glmm``.

Answers are merged into results/LABEL.json, so that a part can be run again; table.py turns them into Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import problems
from engines.protocol import Answer
from engines.runner import ENGINES, Engine, Settings
from engines.runner import run as run_engine

RESULTS = Path(__file__).resolve().parent / "results"
OWN = ["multilevel", "multilevel-2", "multilevel-default"]
LINEAR = [*OWN, "lme4", "glmm", "mixedlm", "statsmodels"]
GENERALISED = [*OWN, "lme4", "glmmTMB", "glmm", "mixedlm", "gpboost"]


def machine() -> dict[str, Any]:
    facts: dict[str, Any] = {
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    for path, key, word in (("/proc/cpuinfo", "cpu", "model name"), ("/proc/meminfo", "memory", "MemTotal")):
        if Path(path).exists():
            lines = Path(path).read_text().splitlines()
            facts[key] = next((line.split(":", 1)[1].strip() for line in lines if line.startswith(word)), "")
    facts["load"] = os.getloadavg()[0]
    return facts


def one(engine: Engine, item: problems.Problem, settings: Settings, cache: Path) -> Answer:
    spec = problems.materialise(item, cache)
    if engine.name in item.without:
        return {"problem": spec.name, "skipped": "not asked for here"}
    if engine.name == "multilevel-2" and Path(spec.stem + ".csv").stat().st_size < 50_000 and not spec.responses:
        return {"problem": spec.name, "skipped": "too small for two threads"}
    answer = run_engine(engine, [spec], settings)[0]
    answer["when"] = time.strftime("%Y-%m-%d %H:%M")
    answer["load"] = os.getloadavg()[0]
    return answer


def line(engine: str, answer: Answer) -> str:
    start = f"{answer['problem']:24s} {engine:13s} "
    for key in ("skipped", "unsupported", "timeout", "error"):
        if key in answer:
            return start + f"{key}: {answer[key]}"
    seconds = statistics.median(answer["seconds"])
    inner = f", engine {statistics.median(answer['engine_seconds']):.4g} s" if answer.get("engine_seconds") else ""
    return start + (
        f"{answer['criterion']:.8f}  {seconds:.4g} s{inner}, {answer.get('evaluations', '–')} evaluations, "
        f"{answer.get('peak_mb', 0):.0f} MB"
    )


def keep(path: Path, facts: dict[str, Any], name: str, engine: str, answer: Answer) -> None:
    """Merge one answer into the file, which another run may have written to meanwhile."""
    book: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"answers": {}}
    book["machine"] = facts
    book["answers"].setdefault(name, {})[engine] = answer
    path.write_text(json.dumps(book, indent=1))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    groups = ["linear", "generalised"]
    parser.add_argument("--problems", nargs="+", default=groups, choices=[*groups, *problems.PROBLEMS])
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), help="default: those that can fit the problem")
    parser.add_argument("--repeats", type=int, default=5, help="warm calls at least; the median is reported")
    parser.add_argument("--min-seconds", type=float, default=1.0, help="go on repeating small fits for this long")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds for one engine on one problem")
    parser.add_argument("--budget", type=float, default=30.0, help="seconds of one-by-one refits before scaling up")
    parser.add_argument("--peers", default=Settings.peers, help="Python of the peers' environment")
    parser.add_argument("--rscript", default=Settings.rscript)
    parser.add_argument("--cache", type=Path, default=problems.CACHE)
    parser.add_argument("--label", default="latest", help="name of the results file")
    parser.add_argument("--quick", action="store_true", help="one call each: does everything run?")
    return parser.parse_args()


def chosen(names: list[str]) -> list[str]:
    """Problems, the two groups spelt out."""
    linear = [name for name in problems.PROBLEMS if name not in problems.GENERALISED]
    groups = {"linear": linear, "generalised": list(problems.GENERALISED)}
    return [one for name in names for one in groups.get(name, [name])]


def main() -> int:
    args = arguments()
    settings = Settings(
        peers=args.peers,
        rscript=args.rscript,
        repeats=args.repeats,
        min_seconds=args.min_seconds,
        timeout=args.timeout,
        budget=args.budget,
    )
    if args.quick:
        settings = replace(settings, repeats=0, min_seconds=0.0, budget=min(args.budget, 2.0))
    path = RESULTS / f"{args.label}.json"
    path.parent.mkdir(exist_ok=True)
    facts = machine()
    for name in chosen(args.problems):
        for engine in args.engines or (GENERALISED if name in problems.GENERALISED else LINEAR):
            try:
                answer = one(ENGINES[engine], problems.PROBLEMS[name], settings, args.cache)
            except problems.DataUnavailable as reason:
                print(f"{name:24s} no data: {reason}")
                break
            print(line(engine, answer), flush=True)
            keep(path, facts, name, engine, answer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
