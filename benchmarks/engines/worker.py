"""Worker for the engines that live in Python: ``python -m engines.worker JOB OUT`` (see protocol.py)."""

from __future__ import annotations

import importlib
import json
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from engines.protocol import Answer, Floats, Prepared, Spec, Unsupported

MODULES = {
    "multilevel": "engines.multilevel",
    "glmm": "engines.glmm",
    "mixedlm": "engines.mixedlm",
    "statsmodels": "engines.statsmodels",
    "lme-python": "engines.lme_python",
    "gpboost": "engines.gpboost",
}


def timed(call: Callable[[], Any]) -> tuple[Any, float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def repeat(call: Callable[[], Any], job: dict[str, Any], first: float) -> tuple[list[float], list[float]]:
    """Warm timings: at least `repeats`, and until `min_seconds` are spent; none if the first call was slow already."""
    wall: list[float] = []
    cpu: list[float] = []
    if first > job["slow"]:
        return wall, cpu
    while len(wall) < job["repeats"] or (sum(wall) < job["min_seconds"] and len(wall) < 500):
        _, w, c = timed(call)
        wall.append(w)
        cpu.append(c)
    return wall, cpu


def read_frame(spec: Spec) -> pd.DataFrame:
    frame = pd.read_feather(spec.stem + ".feather")
    for name in spec.factors:
        frame[name] = frame[name].astype("category")
    return frame


def read_responses(spec: Spec, n: int) -> Floats:
    return np.fromfile(spec.stem + ".f64").reshape((n, spec.responses), order="F")


def run(spec: Spec, job: dict[str, Any]) -> Answer:
    adapter = importlib.import_module(MODULES[job["engine"]])
    families = getattr(adapter, "FAMILIES", ("gaussian",))
    if spec.family not in families:
        raise Unsupported(f"family {spec.family!r}")
    frame = read_frame(spec)
    if spec.responses:
        answer: Answer = adapter.many(spec, frame, read_responses(spec, len(frame)), job)
        return answer
    prepared: Prepared = adapter.prepare(spec, frame, job)
    result, first, first_cpu = timed(prepared.whole)
    wall, cpu = repeat(prepared.whole, job, first)
    answer = prepared.read(result)
    answer |= {"first": first, "seconds": wall or [first], "cpu": cpu or [first_cpu]}
    for name, call in (("engine", prepared.engine), ("full", prepared.full)):
        if call is not None:
            _, once, once_cpu = timed(call)
            wall, cpu = repeat(call, job, once)
            answer |= {f"{name}_seconds": wall or [once], f"{name}_cpu": cpu or [once_cpu]}
    return answer


def attempt(raw: dict[str, Any], job: dict[str, Any]) -> Answer:
    spec = Spec.from_json(raw)
    try:
        return {"problem": spec.name} | run(spec, job)
    except Unsupported as reason:
        return {"problem": spec.name, "unsupported": str(reason)}
    except BaseException as error:  # a panic in Rust is not an Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        where = traceback.extract_tb(error.__traceback__)[-1]
        return {"problem": spec.name, "error": f"{type(error).__name__}: {error}"[:500], "where": where.name}


def one_by_one(fit: Callable[[Floats], float], responses: Floats, budget: float) -> Answer:
    """Fit the columns of `responses` one after the other until the time budget is spent; scale the time to all."""
    fit(responses[:, 0])  # warm
    criteria: list[float] = []
    wall, cpu = time.perf_counter(), time.process_time()
    for column in responses.T:
        criteria.append(fit(np.ascontiguousarray(column)))
        if time.perf_counter() - wall > budget:
            break
    scale = responses.shape[1] / len(criteria)
    return {
        "seconds": [(time.perf_counter() - wall) * scale],
        "cpu": [(time.process_time() - cpu) * scale],
        "fitted": len(criteria),
        "criteria": criteria[:50],
        "criterion": float(np.sum(criteria[:50])),
    }


def versions(engine: str) -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for package in (engine, "numpy", "scipy", "pandas"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def clean(value: Any) -> Any:
    """JSON has no NaN: it becomes null."""
    if isinstance(value, dict):
        return {k: clean(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(v) for v in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    warnings.simplefilter("ignore")
    with Path(sys.argv[2]).open("a") as out:
        for raw in job["specs"]:
            answer = attempt(raw, job) | {"versions": versions(job["engine"])}
            out.write(json.dumps(clean(answer)) + "\n")
            out.flush()


if __name__ == "__main__":
    main()
