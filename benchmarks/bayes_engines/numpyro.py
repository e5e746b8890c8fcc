"""NumPyro: the model written by hand, centred or not; double precision, a device (thread) for each chain.

Compiling and sampling are one call: the seconds that jax says it spent on compiling are taken off to get those of sampling.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np

from bayes_engines.arrays import Arrays, Draws, Term, coefficients, read

MODULES = ("jax", "numpyro", "numpyro.infer", "numpyro.distributions")


def positive(name: str, prior: Any) -> Any:
    import numpyro
    import numpyro.distributions as dist

    kind, value = prior  # a scale, or the rate of the exponential
    made = {"half-normal": dist.HalfNormal, "half-cauchy": dist.HalfCauchy, "exponential": dist.Exponential}
    return numpyro.sample(name, made[kind](value))


def effects(t: int, term: Term, beta: Any, centred: bool) -> list[Any]:
    """(J,) effects of each column."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    def normal(name: str, mean: Any, sd: Any) -> Any:
        return numpyro.sample(name, dist.Normal(jnp.broadcast_to(mean, (term.levels,)), sd).to_event(1))

    sds = [positive(f"sd_{t}_{c}", prior) for c, prior in enumerate(term.priors)]
    r = 2 * numpyro.sample(f"r_{t}", dist.Beta(term.eta, term.eta)) - 1 if term.cor else None
    found: list[Any] = []
    for c, sd in enumerate(sds):
        rest = jnp.sqrt(1 - r**2) if r is not None and c == 1 else 1.0
        if not centred:
            z = normal(f"z_{t}_{c}", 0.0, 1.0)
            found.append((z, sd * z if r is None or c == 0 else sd * (r * found[0][0] + rest * z)))
            continue
        indices, w = term.means[c]
        mean = w @ beta[np.array(indices)] if indices else 0.0
        shift = r * sd / sds[0] * (found[0][0] - found[0][1]) if r is not None and c == 1 else 0.0
        found.append((normal(f"b_{t}_{c}", mean + shift, sd * rest), mean))
    return [one[0] if centred else one[1] for one in found]


def coefficient_sites(a: Arrays) -> Any:
    """(p,) coefficients, the intercept at the middle of the predictors; its prior is that where they are zero."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    start, slopes, shift = int(a.intercept), None, 0.0
    if len(a.names) > start:
        slopes = numpyro.sample("slopes", dist.Normal(a.location[start:], a.scale[start:]).to_event(1))
        shift = a.middle[start:] @ slopes
    if not a.intercept:
        return slopes
    intercept = numpyro.sample("intercept", dist.Normal(a.location[0] + shift, a.scale[0]))
    return jnp.append(intercept, slopes) if slopes is not None else intercept[None]


def model(a: Arrays, centred: bool) -> None:
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    beta = coefficient_sites(a)
    eta: Any = jnp.asarray(a.X) @ beta[np.array(a.columns)] if a.columns else 0.0
    for t, term in enumerate(a.terms):
        for b, z in zip(effects(t, term, beta, centred), term.z, strict=True):
            eta = eta + (b[term.codes] if z is None else z * b[term.codes])
    if a.family == "binomial":
        numpyro.sample("y", dist.Bernoulli(logits=eta), obs=a.y)
    elif a.family == "poisson":
        numpyro.sample("y", dist.Poisson(jnp.exp(eta)), obs=a.y)
    else:
        sigma = positive("sigma", a.sigma_prior) if a.known_sd is None else a.known_sd
        numpyro.sample("y", dist.Normal(eta, sigma), obs=a.y)


def named(a: Arrays, found: dict[str, Any]) -> Draws:
    draws = coefficients(a, found)
    for t, term in enumerate(a.terms):
        draws |= {name: found[f"sd_{t}_{c}"] for c, name in enumerate(term.sds)}
        draws |= {term.cor: 2 * found[f"r_{t}"] - 1} if term.cor else {}
    return draws | ({"sigma": found["sigma"]} if "sigma" in found else {})


def run(stem: str, job: dict[str, Any]) -> dict[str, Any]:
    import jax
    import numpyro
    from numpyro.infer import MCMC, NUTS

    numpyro.enable_x64()
    numpyro.set_host_device_count(job["chains"])
    a = read(stem, job["centred"])
    compiling: list[float] = []

    def listen(event: str, seconds: float, **_: Any) -> None:
        if event.startswith("/jax/core/compile/"):
            compiling.append(seconds)

    jax.devices()
    jax.monitoring.register_event_duration_secs_listener(listen)
    wall, cpu = time.perf_counter(), time.process_time()
    mcmc = MCMC(
        NUTS(partial(model, a, job["centred"])), num_warmup=job["warmup"], num_samples=job["draws"], num_chains=job["chains"],
        chain_method="parallel", progress_bar=False,
    )  # fmt: skip
    mcmc.run(jax.random.PRNGKey(job["seed"]))
    found = {name: np.asarray(x) for name, x in mcmc.get_samples(group_by_chain=True).items()}
    total, total_cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "draws": named(a, found),
        "total": total,
        "total_cpu": total_cpu,
        "sampling": total - sum(compiling),
        "divergences": int(np.sum(mcmc.get_extra_fields()["diverging"])),
        "warmup": job["warmup"],
    }
