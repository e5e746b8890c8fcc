"""Start a worker for one engine and problem, stop it when time is up, judge its draws."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multilevel.chain_diagnostics import ess_bulk, mcse_mean, r_hat

HERE = Path(__file__).resolve().parent.parent
NO_CACHE = {"PYTENSOR_FLAGS": "numba__cache=False"}  # a model that was never compiled here
PINNED = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")
Answer = dict[str, Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Engine:
    name: str
    kind: str  # "own" (this interpreter), "peer" (the peers' environment) or "R"
    adapter: str
    centred: bool = False


ENGINES = {
    e.name: e
    for e in (
        Engine("multilevel", "own", "multilevel"),
        Engine("nutpie", "peer", "nutpie"),
        Engine("nutpie-centred", "peer", "nutpie", centred=True),
        Engine("numpyro", "peer", "numpyro"),
        Engine("numpyro-centred", "peer", "numpyro", centred=True),
        Engine("rstanarm", "R", "rstanarm"),
    )
}


@dataclass(frozen=True)
class Settings:
    """How to run."""

    peers: str = os.environ.get("MULTILEVEL_BAYES_PEERS", str(HERE / ".peers-bayes" / "bin" / "python"))
    rscript: str = os.environ.get("RSCRIPT", "Rscript")
    chains: int = 4
    warmup: int = 1000
    draws: int = 1000
    own_warmup: int | None = None
    cores: int = 2
    seed: int = 1
    timeout: float = 900.0
    compiled: bool = False

    def command(self, engine: Engine) -> list[str]:
        if engine.kind == "R":
            return [self.rscript, "--vanilla", str(HERE / "bayes_engines" / "rstanarm.R")]
        return [sys.executable if engine.kind == "own" else self.peers, "-m", "bayes_engines.worker"]


def processors(cores: int) -> set[int]:
    return set(sorted(os.sched_getaffinity(0))[:cores])


def environment(settings: Settings) -> dict[str, str]:
    return os.environ | dict.fromkeys(PINNED, "1") | {"PYTHONHASHSEED": "0"} | ({} if settings.compiled else NO_CACHE)


def job_of(engine: Engine, stem: Path, settings: Settings, cap: tuple[int, int] | None) -> dict[str, Any]:
    warmup, draws = settings.warmup, settings.draws
    if cap is not None:
        warmup, draws = min(warmup, cap[0]), min(draws, cap[1])
    return {
        "engine": engine.adapter,
        "centred": engine.centred,
        "stem": str(stem),
        "chains": settings.chains,
        "warmup": warmup,
        "draws": draws,
        "own_warmup": settings.own_warmup,
        "cores": settings.cores,
        "seed": settings.seed,
    }


def run(engine: Engine, stem: Path, settings: Settings, cap: tuple[int, int] | None) -> tuple[Answer, dict[str, Floats]]:
    """Seconds and what the engine says of itself, and its draws (chains, draws) by parameter; a time-out is an answer."""
    job = job_of(engine, stem, settings, cap)
    with tempfile.TemporaryDirectory() as folder:
        path, out, log = Path(folder, "job.json"), Path(folder, "out"), Path(folder, "log.txt")
        path.write_text(json.dumps(job))
        with log.open("w") as sink:
            process = subprocess.Popen(
                [*settings.command(engine), str(path), str(out)],
                cwd=HERE,
                env=environment(settings),
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: os.sched_setaffinity(0, processors(settings.cores)),
            )
            hung, peak = wait(process, settings.timeout)
        asked = [job["warmup"], job["draws"]]
        short = {"short": asked} if asked != [settings.warmup, settings.draws] else {}
        if hung:
            return {"timeout": settings.timeout, "peak_mb": peak} | short, {}
        found = out.with_suffix(".json")
        answer: Answer = json.loads(found.read_text()) if found.exists() else {}
        if process.returncode or "total" not in answer:
            tail = log.read_text(errors="replace")[-800:]
            return {"error": answer.get("error", f"worker ended with status {process.returncode}: {tail}")} | short, {}
        draws = read_draws(out, answer, settings.chains)
        return answer | {"peak_mb": peak} | short, draws


def wait(process: subprocess.Popen[bytes], timeout: float) -> tuple[bool, float]:
    """Whether it had to be stopped, and its peak memory in MB."""
    last, hung, usage = time.monotonic(), False, None
    while usage is None:
        pid, status, resources = os.wait4(process.pid, os.WNOHANG)
        if pid:
            usage, process.returncode = resources, os.waitstatus_to_exitcode(status)
        elif not hung and time.monotonic() - last > timeout:
            hung = True
            os.killpg(process.pid, signal.SIGKILL)
        else:
            time.sleep(0.05)
    return hung, usage.ru_maxrss / 1024


def read_draws(out: Path, answer: Answer, chains: int) -> dict[str, Floats]:
    if out.with_suffix(".npz").exists():
        with np.load(out.with_suffix(".npz")) as found:
            return {str(name): found["draws"][:, :, i] for i, name in enumerate(found["names"])}
    names = answer.pop("names")
    flat = np.fromfile(out.with_suffix(".f64")).reshape(len(names), chains, -1)
    return {name: flat[i] for i, name in enumerate(names)}


def judge(answer: Answer, draws: Mapping[str, Floats]) -> Answer:
    """The same diagnostics for every engine: of hyperparameters and coefficients."""
    x = np.stack(list(draws.values()), axis=-1)
    bulk, worst = ess_bulk(x), r_hat(x)
    error = mcse_mean(x)
    if "worth" in answer:  # importance sampling: no parameter is worth more than the weights say
        least = answer["worth"]
        error = np.maximum(error, x.std(axis=(0, 1)) / np.sqrt(least))
        bulk = np.minimum(bulk, least)
    lowest = int(np.argmin(bulk))
    return {
        "chains": int(x.shape[0]),
        "draws": int(x.shape[1]),
        "ess": float(bulk[lowest]),
        "ess_of": list(draws)[lowest],
        "r_hat": float(worst.max()),
        "means": {name: float(v) for name, v in zip(draws, x.mean(axis=(0, 1)), strict=True)},
        "sds": {name: float(v) for name, v in zip(draws, x.std(axis=(0, 1), ddof=1), strict=True)},
        "errors": {name: float(v) for name, v in zip(draws, error, strict=True)},
    }


def agreement(ours: Answer, theirs: Answer) -> Answer:
    """Largest difference of means in joint Monte Carlo standard errors, and of which parameter."""
    if set(ours["means"]) != set(theirs["means"]):
        return {"disagree": f"other parameters: {sorted(set(ours['means']) ^ set(theirs['means']))}"}
    found = {
        name: abs(ours["means"][name] - theirs["means"][name]) / float(np.hypot(ours["errors"][name], theirs["errors"][name]))
        for name in ours["means"]
    }
    worst = max(found, key=lambda name: found[name])
    return {"off": found[worst], "off_of": worst}
