"""Start engine workers, watch them, stop the ones that hang, and collect their answers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.protocol import Answer, Spec, match

HERE = Path(__file__).resolve().parent.parent  # the benchmarks folder: `-m engines.worker` starts from it


@dataclass(frozen=True)
class Engine:
    name: str
    kind: str  # "own" (this interpreter), "peer" (the peers' environment) or "R"
    module: str
    threads: int = 1  # given to the fit; 0: the library's default, with no variable of the environment set
    blas: int = 1  # threads of OpenBLAS, OpenMP, Rayon, set in the environment


ENGINES = {
    e.name: e
    for e in (
        Engine("multilevel", "own", "multilevel"),
        Engine("multilevel-2", "own", "multilevel", threads=2),
        Engine("multilevel-default", "own", "multilevel", threads=0, blas=0),  # what a user gets who sets nothing
        Engine("lme4", "R", "lme4"),
        Engine("glmmTMB", "R", "glmmTMB"),
        Engine("glmm", "peer", "glmm"),
        Engine("mixedlm", "peer", "mixedlm"),
        Engine("statsmodels", "peer", "statsmodels"),
        Engine("lme-python", "peer", "lme-python"),
        Engine("gpboost", "peer", "gpboost"),
    )
}


@dataclass(frozen=True)
class Settings:
    """How to run: where the interpreters are, how often and how long."""

    peers: str = os.environ.get("MULTILEVEL_PEERS", str(HERE / ".peers" / "bin" / "python"))
    rscript: str = os.environ.get("RSCRIPT", "Rscript")
    repeats: int = 5
    min_seconds: float = 1.0
    slow: float = 30.0
    budget: float = 30.0
    timeout: float = 900.0
    control: str = "default"

    def command(self, engine: Engine) -> list[str]:
        if engine.kind == "R":
            return [self.rscript, "--vanilla", str(HERE / "engines" / "worker.R")]
        python = sys.executable if engine.kind == "own" else self.peers
        return [python, "-m", "engines.worker"]


def environment(threads: int) -> dict[str, str]:
    if threads == 0:
        return dict(os.environ)
    pinned = {
        name: str(threads)
        for name in (
            "OPENBLAS_NUM_THREADS",
            "OMP_NUM_THREADS",
            "MKL_NUM_THREADS",
            "BLIS_NUM_THREADS",
            "RAYON_NUM_THREADS",
            "POLARS_MAX_THREADS",
        )
    }
    return os.environ | pinned | {"PYTHONHASHSEED": "0"}


def run(
    engine: Engine, specs: Sequence[Spec], settings: Settings, done: Callable[[Answer], None] | None = None
) -> list[Answer]:
    """Answers of one engine for all specs, in order; a fresh worker takes over after a timeout or a crash."""
    answers: list[Answer] = []
    while len(answers) < len(specs):
        rest = specs[len(answers) :]
        got, trouble, peak = worker(engine, rest, settings, done)
        answers += got
        if len(got) < len(rest):
            lost: Answer = {"problem": rest[len(got)].name, **trouble, "peak_mb": peak}
            answers.append(lost)
            if done:
                done(lost)
    return answers


def worker(
    engine: Engine, specs: Sequence[Spec], settings: Settings, done: Callable[[Answer], None] | None
) -> tuple[list[Answer], dict[str, Any], float]:
    """Run one worker process; returns the answers it gave, what stopped it early, and its peak memory in MB."""
    with tempfile.TemporaryDirectory() as folder:
        job, out, log = Path(folder, "job.json"), Path(folder, "out.jsonl"), Path(folder, "log.txt")
        job.write_text(
            json.dumps(
                {
                    "engine": engine.module,
                    "threads": engine.threads,
                    "control": settings.control,
                    "repeats": settings.repeats,
                    "min_seconds": settings.min_seconds,
                    "slow": settings.slow,
                    "budget": settings.budget,
                    "specs": [s.to_json() for s in specs],
                }
            )
        )
        out.touch()
        with log.open("w") as sink:
            process = subprocess.Popen(
                [*settings.command(engine), str(job), str(out)],
                cwd=HERE,
                env=environment(engine.blas),
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            answers, hung, peak = watch(process, out, specs, settings.timeout, done)
        if len(answers) == 1:
            answers[0]["peak_mb"] = peak
        if hung:
            return answers, {"timeout": settings.timeout}, peak
        tail = log.read_text(errors="replace")[-500:]
        return answers, {"error": f"worker ended with status {process.returncode}: {tail}"}, peak


def watch(
    process: subprocess.Popen[bytes],
    out: Path,
    specs: Sequence[Spec],
    timeout: float,
    done: Callable[[Answer], None] | None,
) -> tuple[list[Answer], bool, float]:
    """Follow the answer file until the worker ends, or stop it when no answer came for `timeout` seconds."""
    answers: list[Answer] = []
    last, hung, usage = time.monotonic(), False, None
    while usage is None:
        pid, status, resources = os.wait4(process.pid, os.WNOHANG)
        if pid:
            usage, process.returncode = resources, os.waitstatus_to_exitcode(status)
        for line in out.read_text().splitlines(keepends=True)[len(answers) :]:
            if not line.endswith("\n"):
                break  # still being written
            answers.append(complete(json.loads(line), specs[len(answers)]))
            last = time.monotonic()
            if done:
                done(answers[-1])
        if usage is None:
            if not hung and time.monotonic() - last > timeout:
                hung = True
                os.killpg(process.pid, signal.SIGKILL)
            time.sleep(0.02 if time.monotonic() - last < 1 else 0.2)
    return answers, hung, usage.ru_maxrss / 1024


def complete(answer: Answer, spec: Spec) -> Answer:
    """R gives its covariance blocks as lme4 orders them; put them in the order of the formula."""
    found = answer.pop("blocks", None)
    if found is not None:
        answer["terms"] = match(spec, found)
    return answer
