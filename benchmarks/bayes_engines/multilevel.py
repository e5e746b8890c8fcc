"""This library: from formula, data frame and priors to draws."""

from __future__ import annotations

import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

OTHERS = ("pandas", "pyarrow.feather", "formulaic", "scipy.special", "scipy.fft", "scipy.linalg", "scipy.sparse")
OWN = ("_core", "matrix", "model", "sample", "posterior", "posterior_tables", "reml", "laplace", "laplace_joint")
MODULES = (*OTHERS, "multilevel", *(f"multilevel.{name}" for name in OWN))


def run(stem: str, job: dict[str, Any]) -> dict[str, Any]:
    import pandas as pd

    import multilevel as ml
    from bayes_engines.problems import model_options

    about = json.loads(Path(stem + ".json").read_text())
    frame = pd.read_feather(stem + ".feather")
    warnings.simplefilter("ignore", ml.MultilevelWarning)
    warmup = job["own_warmup"]
    wall, cpu = time.perf_counter(), time.process_time()
    model = ml.Model(about["formula"], frame, **model_options(about["family"], about["weights"], about["priors"]))
    ready, ready_cpu = time.perf_counter(), time.process_time()
    posterior = model.sample(
        chains=job["chains"], draws=job["draws"], warmup=warmup, seed=job["seed"], threads=job["cores"], progress=False
    )
    end, end_cpu = time.perf_counter(), time.process_time()
    kept = posterior.draws_kept
    draws = {name: kept.beta[:, :, i] for i, name in enumerate(posterior.design.names)}
    scalars = ((c.name, kept.scalars[:, :, i]) for i, c in enumerate(kept.coordinates))
    draws |= {name: x for name, x in scalars if np.ptp(x) > 0}
    answer = {
        "draws": draws,
        "total": end - wall,
        "total_cpu": end_cpu - cpu,
        "sampling": end - ready,
        "sampling_cpu": end_cpu - ready_cpu,
        "divergences": int(np.sum(kept.stats.get("diverging", 0))),
        "method": kept.method,
        "trusted": posterior.trust[0],
        "warmup": int(kept.facts.get("warmup", 0)) if kept.method == "nuts" else 0,
    }
    # importance sampling: draws look independent, but are worth no more than the weighted proposals they come from
    return answer | ({"worth": float(kept.facts["effective"])} if kept.method == "independent" else {})
