"""Make numpyro.json: posteriors of what `Model.to_numpyro` hands over, sampled by NumPyro (``pip install numpyro``).

Means and sds of all parameters and of the effects of two levels, with Monte Carlo standard errors of both; the test compares
our own posteriors of the same models with them.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import multilevel as ml
from multilevel.chain_diagnostics import ess_mean, mcse_mean, r_hat

HERE = Path(__file__).parent
WARMUP, DRAWS, CHAINS = 1000, 4000, 4
TARGET, CAREFUL = 0.9, {"math10": 0.99}  # acceptance; nearer to one where NumPyro's transitions diverge


def math10() -> ml.Model:
    return ml.Model("math ~ homework + (homework | schid)", ml.load("math10"))


def sleepstudy() -> ml.Model:
    priors = {
        "Intercept": ml.StudentT(4, 250, 50), "Days": ml.Fixed(10.0), "sd(Subject, Intercept)": ml.Uniform(0, 100),
        "sd(Subject, Days)": ml.Normal(5, 3), "cor": ml.Fixed(0.2), "sigma": ml.InverseGamma(3, 50),
    }  # fmt: skip
    data = ml.load("sleepstudy")
    data["w"], data["known"] = 0.5 + data["Days"] / 6, 3.0 * data["Days"]
    return ml.Model("Reaction ~ Days + offset(known) + (Days | Subject)", data, weights="w", priors=priors)


def cbpp() -> ml.Model:
    return ml.Model("incidence | trials(size) ~ period + (1 | herd)", ml.load("cbpp"), family="binomial")


def cbpp_weighted() -> ml.Model:
    priors = {"b": ml.Cauchy(0, 2), "sd": ml.Exponential(1), "Intercept": ml.Normal(-1, 1)}
    data = ml.load("cbpp")
    data["w"] = 1.0 + (np.arange(len(data)) % 3)
    formula = "incidence | trials(size) ~ period + (1 | herd)"
    return ml.Model(formula, data, family="binomial", link="probit", weights="w", priors=priors)


def epilepsy_poisson() -> ml.Model:
    return ml.Model("count ~ zBase * Trt + zAge + (1 | patient) + (1 | obs)", ml.load("epilepsy"), family="poisson")


def epilepsy_negative_binomial() -> ml.Model:
    return ml.Model("count ~ zBase * Trt + zAge + (1 | patient)", ml.load("epilepsy"), family="nbinom2")


def wine() -> ml.Model:
    return ml.Model("rating ~ temp + contact + (1 | judge)", ml.load("wine"), family="ordinal")


def salamanders() -> ml.Model:
    return ml.Model("count ~ mined + (1 | site)", ml.load("salamanders"), family="poisson", zi="~ mined")


MODELS: dict[str, Callable[[], ml.Model]] = {
    one.__name__: one
    for one in (
        math10, sleepstudy, cbpp, cbpp_weighted, epilepsy_poisson, epilepsy_negative_binomial, wine, salamanders,
    )
}  # fmt: skip


def estimates(draws: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Mean and sd with their Monte Carlo standard errors of each (chains, draws) array; constants are left out."""
    out = {}
    for name, x in draws.items():
        if np.ptp(x) == 0:
            continue
        squares = ((x - x.mean()) ** 2)[:, :, None]
        sd = float(x.std(ddof=1))
        error = float(squares.std(ddof=1) / np.sqrt(ess_mean(squares)[0]) / (2 * sd))
        mean_error = float(mcse_mean(x[:, :, None])[0])
        out[name] = {"mean": float(x.mean()), "sd": sd, "mcse_mean": mean_error, "mcse_sd": error}
    return out


def flat(draws: dict[str, Any]) -> dict[str, Any]:
    """Scalars by name, and the effects of each factor's first two levels."""
    out = {name: np.asarray(v) for name, v in draws.items() if v.ndim == 2}
    for name, v in draws.items():
        if name.startswith("ranef("):
            out |= {f"{name}[{i}, {j}]": np.asarray(v[:, :, i, j]) for i in range(2) for j in range(v.shape[3])}
    return out


def sampled(name: str, model: ml.Model) -> dict[str, Any]:
    """NumPyro's draws of the sites that our posterior has too."""
    import jax
    import numpyro

    handed = model.to_numpyro()
    kernel = numpyro.infer.NUTS(handed.model, target_accept_prob=CAREFUL.get(name, TARGET))
    mcmc = numpyro.infer.MCMC(
        kernel, num_warmup=WARMUP, num_samples=DRAWS, num_chains=CHAINS, chain_method="sequential", progress_bar=False
    )
    mcmc.run(jax.random.PRNGKey(1), **handed.args)
    found = {name: np.asarray(v) for name, v in mcmc.get_samples(group_by_chain=True).items()}
    hidden = ("z(", "cor_root(", "thresholds")
    own = {site: v for site, v in found.items() if not site.startswith(hidden)}
    worst = max(float(r_hat(v[:, :, None])[0]) for v in flat(own).values() if np.ptp(v) > 0)
    print("R-hat", round(worst, 4), "divergences", int(mcmc.get_extra_fields()["diverging"].sum()), file=sys.stderr)
    return own


def main() -> None:
    import numpyro

    warnings.simplefilter("ignore")
    numpyro.enable_x64()
    path = HERE / "numpyro.json"
    out = json.loads(path.read_text()) if path.exists() else {}
    for name, make in MODELS.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        print(name, file=sys.stderr)
        found = estimates(flat(sampled(name, make())))
        out[name] = {key: {k: float(f"{v:.6g}") for k, v in row.items()} for key, row in found.items()}
        path.write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
