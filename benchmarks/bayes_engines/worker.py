"""Worker for the engines that live in Python: ``python -m bayes_engines.worker JOB OUT`` draws one posterior.

OUT.json has the seconds, OUT.npz the draws. Modules are imported, and data files read, before the clock starts.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ADAPTERS = {"multilevel": "multilevel", "nutpie": "pymc", "numpyro": "numpyro"}
PACKAGES = {
    "multilevel": ("multilevel", "numpy", "scipy"),
    "nutpie": ("pymc", "nutpie", "pytensor", "numba"),
    "numpyro": ("numpyro", "jax"),
}


def versions(engine: str) -> dict[str, str]:
    found = {}
    for package in PACKAGES[engine]:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    out = Path(sys.argv[2])
    warnings.simplefilter("ignore")
    benchmarks = Path(__file__).resolve().parent.parent  # whose coverage.py numba would take for the package
    sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != benchmarks]
    adapter = importlib.import_module(f"bayes_engines.{ADAPTERS[job['engine']]}")
    started = time.perf_counter()
    for name in adapter.MODULES:
        importlib.import_module(name)
    imports = time.perf_counter() - started
    import numpy as np

    try:
        answer = adapter.run(job["stem"], job)
    except Exception as error:
        out.with_suffix(".json").write_text(json.dumps({"error": f"{type(error).__name__}: {error}"[:500]}))
        raise
    draws = {name: np.asarray(x, dtype=float) for name, x in answer.pop("draws").items()}
    np.savez(out.with_suffix(".npz"), names=np.array(list(draws)), draws=np.stack(list(draws.values()), axis=-1))
    answer |= {"imports": imports, "versions": versions(job["engine"])}
    out.with_suffix(".json").write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
