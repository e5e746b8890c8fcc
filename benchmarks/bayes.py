"""Draw posteriors with this library and its peers: ``python benchmarks/bayes.py --problems ten-schools --engines nutpie``.

Each engine draws each posterior in a process of its own. Answers are merged into results/bayes.json, so that a part can be
run again; bayes_table.py turns them into Markdown. Run alone on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bayes_engines.problems import PROBLEMS, Problem, materialise
from bayes_engines.runner import ENGINES, HERE, PINNED, Answer, Settings, agreement, judge, processors
from bayes_engines.runner import run as run_engine
from run import RESULTS, machine

REPEATS, BRIEF = 5, 2.0  # processes of which the median counts where ours takes less than so many seconds
CACHE = Path(os.environ.get("MULTILEVEL_BENCHMARK_CACHE", HERE / ".cache"))


def one(name: str, item: Problem, stem: Path, settings: Settings) -> Answer:
    """One engine on one problem, judged."""
    if name in item.without:
        return {"unsupported": item.without[name]}
    load = os.getloadavg()[0]
    runs = [run_engine(ENGINES[name], stem, settings, item.caps.get(name))]
    while name == "multilevel" and len(runs) < REPEATS and runs[-1][0].get("total", BRIEF) < BRIEF:
        runs.append(run_engine(ENGINES[name], stem, settings, None))
    runs.sort(key=lambda found: found[0].get("total", float("inf")))
    answer, draws = runs[len(runs) // 2]
    if draws:
        answer |= judge(answer, draws)
    if name == "rstanarm" and item.family == "gaussian":
        answer["other_priors"] = True  # it has no such priors of sds: agreement means nothing
    return answer | {"when": time.strftime("%Y-%m-%d %H:%M"), "load": load}


def line(problem: str, engine: str, answer: Answer) -> str:
    start = f"{problem:14s} {engine:16s} "
    for key in ("unsupported", "timeout", "error"):
        if key in answer:
            return start + f"{key}: {answer[key]}"
    off = f", off {answer['off']:.1f} ({answer['off_of']})" if "off" in answer else f" {answer.get('disagree', '')}"
    return start + (
        f"total {answer['total']:.3g} s (CPU {answer['total_cpu']:.3g}), sampling {answer['sampling']:.3g} s, "
        f"import {answer['imports']:.2g} s, ESS {answer['ess']:.0f} ({answer['ess_of']}), R-hat {answer['r_hat']:.3f}, "
        f"{answer['divergences']} divergences{off}"
    )


def keep(
    path: Path, change: dict[str, Any], problem: str | None = None, engine: str = "", answer: Answer | None = None
) -> None:
    """Merge into the file, which another run may have written to meanwhile; agreement is that with our newest answer."""
    book: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"answers": {}}
    book |= change
    if problem is not None and answer is not None:
        answers = book["answers"].setdefault(problem, {})
        answers[engine] = answer
        ours = answers.get("multilevel", {})
        for name, other in answers.items():
            if name != "multilevel" and "means" in ours and "means" in other:
                other |= agreement(ours, other)
    path.write_text(json.dumps(book, indent=1))


def printed(settings: Settings, repeats: int) -> dict[str, list[float]]:
    """Seconds of ten schools to the printed summary, default priors: imports included ("bare"), excluded ("warm"), and
    of the whole process, the interpreter's start included."""
    found: dict[str, list[float]] = {"bare": [], "warm": [], "process": []}
    for kind in ("bare", "warm"):
        for _ in range(repeats):
            begin = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "bayes_engines.printed", kind],
                cwd=HERE, env=os.environ | dict.fromkeys(PINNED, "1"), capture_output=True, text=True, check=True,
                preexec_fn=lambda: os.sched_setaffinity(0, processors(settings.cores)),
            )  # fmt: skip
            if kind == "bare":
                found["process"].append(time.perf_counter() - begin)
            found[kind].append(json.loads(done.stdout.splitlines()[-1])["seconds"])
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=[*PROBLEMS, "none"])
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=list(ENGINES))
    parser.add_argument("--chains", type=int, default=Settings.chains)
    parser.add_argument("--warmup", type=int, default=Settings.warmup, help="of the peers")
    parser.add_argument("--draws", type=int, default=Settings.draws)
    parser.add_argument("--own-warmup", type=int, help="of this library's NUTS; default: its own default")
    parser.add_argument("--cores", type=int, default=Settings.cores, help="processors each engine may use")
    parser.add_argument("--seed", type=int, default=Settings.seed)
    parser.add_argument("--timeout", type=float, default=Settings.timeout, help="seconds for one engine on one problem")
    parser.add_argument("--compiled", action="store_true", help="let PyTensor use what it compiled in earlier processes")
    parser.add_argument("--peers", default=Settings.peers, help="Python of the peers' environment")
    parser.add_argument("--rscript", default=Settings.rscript)
    parser.add_argument("--repeats", type=int, default=5, help="processes timed to the printed summary; 0: none")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--label", default="bayes", help="name of the results file")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    names = ("peers", "rscript", "chains", "warmup", "draws", "own_warmup", "cores", "seed", "timeout", "compiled")
    settings = Settings(**{name: getattr(args, name) for name in names})
    path = RESULTS / f"{args.label}.json"
    path.parent.mkdir(exist_ok=True)
    keep(path, {"machine": machine() | {"cores": args.cores}, "asked": [args.chains, args.warmup, args.draws]})
    if args.repeats:
        seconds = printed(settings, args.repeats)
        best = ", ".join(f"{kind} {min(found):.3f} s" for kind, found in seconds.items())
        print(f"ten schools to the printed summary, best of {args.repeats}: {best}", flush=True)
        keep(path, {"printed": seconds})
    for name in args.problems:
        if name == "none":
            continue
        stem = materialise(PROBLEMS[name], args.cache)
        for engine in args.engines:
            answer = one(engine, PROBLEMS[name], stem, settings)
            keep(path, {}, name, engine, answer)
            stored = json.loads(path.read_text())["answers"][name][engine]
            print(line(name, engine, stored), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
