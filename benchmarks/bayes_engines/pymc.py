"""PyMC, sampled by nutpie: the model written by hand, centred or not.

A pair of correlated effects is written by its sds and correlation (LKJ(eta) of two is Beta(eta, eta) of (r + 1) / 2):
no Cholesky factors, which PyMC takes longer for.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from bayes_engines.arrays import Arrays, Draws, Term, coefficients, read

if TYPE_CHECKING:
    import pymc as pm

MODULES = ("pymc", "nutpie", "pytensor.link.numba.dispatch")


def positive(pm: Any, name: str, prior: Any) -> Any:
    kind, value = prior  # a scale, or the rate of the exponential
    return {"half-normal": pm.HalfNormal, "half-cauchy": pm.HalfCauchy, "exponential": pm.Exponential}[kind](name, value)


def effects(pm: Any, t: int, term: Term, beta: Any, centred: bool) -> list[Any]:
    """(J,) effects of each column."""
    import pytensor.tensor as pt

    sds = [positive(pm, f"sd_{t}_{c}", prior) for c, prior in enumerate(term.priors)]
    r = 2 * pm.Beta(f"r_{t}", term.eta, term.eta) - 1 if term.cor else None
    found: list[Any] = []
    for c, sd in enumerate(sds):
        rest = pt.sqrt(1 - r**2) if r is not None and c == 1 else 1.0
        if not centred:
            z = pm.Normal(f"z_{t}_{c}", shape=term.levels)
            found.append((z, sd * z if r is None or c == 0 else sd * (r * found[0][0] + rest * z)))
            continue
        indices, w = term.means[c]
        mean = w @ beta[indices] if indices else 0.0
        if r is not None and c == 1:
            first, first_mean = found[0]
            b = pm.Normal(f"b_{t}_{c}", mean + r * sd / sds[0] * (first - first_mean), sd * rest, shape=term.levels)
        else:
            b = pm.Normal(f"b_{t}_{c}", mean, sd, shape=term.levels)
        found.append((b, mean))
    return [one[0] if centred else one[1] for one in found]


def coefficient_sites(pm: Any, a: Arrays) -> Any:
    """(p,) coefficients, the intercept at the middle of the predictors; its prior is that where they are zero."""
    import pytensor.tensor as pt

    start, p = int(a.intercept), len(a.names)
    slopes = pm.Normal("slopes", a.location[start:], a.scale[start:], shape=p - start) if p > start else None
    if not a.intercept:
        return slopes
    shift = 0.0 if slopes is None else a.middle[1:] @ slopes
    intercept = pm.Normal("intercept", a.location[0] + shift, a.scale[0])
    return pt.stack([intercept]) if slopes is None else pt.concatenate([pt.stack([intercept]), slopes])


def build(a: Arrays, centred: bool) -> pm.Model:
    import pymc as pm

    with pm.Model() as model:
        beta = coefficient_sites(pm, a)
        eta: Any = a.X @ (beta if len(a.columns) == len(a.names) else beta[a.columns]) if a.columns else 0.0
        for t, term in enumerate(a.terms):
            for b, z in zip(effects(pm, t, term, beta, centred), term.z, strict=True):
                eta = eta + (b[term.codes] if z is None else z * b[term.codes])
        if a.family == "binomial":
            pm.Bernoulli("y", logit_p=eta, observed=a.y.astype(int))
        elif a.family == "poisson":
            pm.Poisson("y", pm.math.exp(eta), observed=a.y.astype(int))
        else:
            sigma = positive(pm, "sigma", a.sigma_prior) if a.known_sd is None else a.known_sd
            pm.Normal("y", eta, sigma, observed=a.y)
    return model


def named(a: Arrays, found: Any) -> Draws:
    draws = coefficients(a, {name: found[name].to_numpy() for name in ("intercept", "slopes") if name in found})
    for t, term in enumerate(a.terms):
        draws |= {name: found[f"sd_{t}_{c}"].to_numpy() for c, name in enumerate(term.sds)}
        draws |= {term.cor: 2 * found[f"r_{t}"].to_numpy() - 1} if term.cor else {}
    return draws | ({"sigma": found["sigma"].to_numpy()} if "sigma" in found else {})


def run(stem: str, job: dict[str, Any]) -> dict[str, Any]:
    import nutpie

    a = read(stem, job["centred"])
    wall, cpu = time.perf_counter(), time.process_time()
    compiled = nutpie.compile_pymc_model(build(a, job["centred"]))
    ready, ready_cpu = time.perf_counter(), time.process_time()
    trace = nutpie.sample(
        compiled, draws=job["draws"], tune=job["warmup"], chains=job["chains"], cores=job["cores"], seed=job["seed"],
        save_warmup=False, progress_bar=False,
    )  # fmt: skip
    end, end_cpu = time.perf_counter(), time.process_time()
    return {
        "draws": named(a, trace.posterior),
        "total": end - wall,
        "total_cpu": end_cpu - cpu,
        "sampling": end - ready,
        "sampling_cpu": end_cpu - ready_cpu,
        "divergences": int(np.sum(trace.sample_stats["diverging"].to_numpy())),
        "warmup": job["warmup"],
    }
