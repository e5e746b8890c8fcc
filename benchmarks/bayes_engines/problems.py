"""The models whose posteriors are drawn, their data and priors: the same for every engine.

Priors are named as `Model` names them: a coefficient by its name or "b", an sd by "sd(group, effect)" or "sd", "cor" for
the correlations of a pair of effects, "sigma". Coefficients have normal priors throughout. Data files are written once, for
all engines: a frame (feather for this library, CSV for R) and the arrays of the design (peers with models written by hand).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import multilevel as ml

Prior = tuple[Any, ...]  # name of the distribution, then its parameters
PRIORS: dict[str, Callable[..., Any]] = {
    "normal": ml.Normal,
    "half-normal": ml.HalfNormal,
    "half-cauchy": ml.HalfCauchy,
    "exponential": ml.Exponential,
    "lkj": ml.LKJ,
    "fixed": ml.Fixed,
}


@dataclass(frozen=True)
class Problem:
    """A model with priors.

    Attributes
    ----------
    absorbing : tuple of str
        Groups in the order in which the centred form moves coefficients into their means: first the group that says least
        about the coefficient (fewest levels), which is where centring helps most.
    reach : dict
        Figures to reach: "total" (s, at most), "rate" (effective draws per sampling second, at least), "total-ratio" and
        "rate-ratio" (times the best peer's).
    caps : dict
        Most (warmup, draws) of slow engines.
    without : dict
        Engines that cannot, and why.
    """

    name: str
    title: str
    formula: str
    data: Callable[[], pd.DataFrame]
    priors: Mapping[str, Prior]
    reach: Mapping[str, float]
    family: str = "gaussian"
    weights: str | None = None
    absorbing: tuple[str, ...] = ()
    caps: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    without: Mapping[str, str] = field(default_factory=dict)

    def model(self, frame: pd.DataFrame) -> ml.Model:
        return ml.Model(self.formula, frame, **model_options(self.family, self.weights, self.priors))

    def prior(self, name: str) -> Prior:
        """The prior of a parameter; the narrower name wins."""
        kind = name.split("(")[0] if name.startswith(("sd(", "cor(")) or name == "sigma" else "b"
        return self.priors[name if name in self.priors else kind]


def model_options(family: str, weights: str | None, priors: Mapping[str, Prior]) -> dict[str, Any]:
    made = {name: PRIORS[kind](*values) for name, (kind, *values) in priors.items()}
    return {"priors": made} | ({"family": family} if family != "gaussian" else {}) | ({"weights": weights} if weights else {})


def course() -> pd.DataFrame:
    rng = np.random.RandomState(42)
    means = rng.normal(0, 1, 3)
    return pd.DataFrame({"y": np.concatenate([rng.normal(m, 1, 10) for m in means]), "g": np.repeat(list("abc"), 10)})


def eight() -> pd.DataFrame:
    frame = pd.DataFrame({"effect": [28, 8, -3, 7, -1, 1, 18, 12], "error": [15, 10, 16, 11, 9, 11, 10, 18]})
    return frame.assign(effect=frame["effect"].astype(float), school=list("ABCDEFGH"), weight=1 / frame["error"] ** 2)


def counts() -> pd.DataFrame:
    """10⁵ counts in 2,000 groups with independent intercepts and slopes."""
    rng = np.random.default_rng(8)
    groups, rows = 2_000, 100_000
    g, x = rng.integers(0, groups, rows), rng.normal(size=rows)
    u0, u1 = rng.normal(0, 0.5, groups), rng.normal(0, 0.3, groups)
    y = rng.poisson(np.exp(0.5 + u0[g] + (0.3 + u1[g]) * x))
    return pd.DataFrame({"y": y, "x": x.round(6), "g": g})


def verbagg() -> pd.DataFrame:
    frame = pd.DataFrame(ml.load("verbagg"))
    return frame.assign(r2=(frame["r2"] == "Y").astype(int))


KNOWN = {"rstanarm": "it has no known residual sds"}
SMALL = {"total-ratio": 50.0, "rate-ratio": 4.0}
WIDE: Prior = ("normal", 0, 5)

PROBLEMS = {
    p.name: p
    for p in (
        Problem(
            "course",
            "three groups, known sd",
            "y ~ 0 + g",
            course,
            {"b": ("normal", 0, 1), "sigma": ("fixed", 1.0)},
            SMALL | {"total": 0.2},
            without=KNOWN | dict.fromkeys(("nutpie-centred", "numpyro-centred"), "no group effects to centre"),
        ),
        Problem(
            "ten-schools",
            "ten schools (homework &#124; schid)",
            "math ~ homework + (homework | schid)",
            lambda: ml.load("math10")[["math", "homework", "schid"]],
            {
                "Intercept": ("normal", 40, 50),
                "b": ("normal", 0, 10),
                "sd(schid, Intercept)": ("half-normal", 50),
                "sd(schid, homework)": ("half-normal", 5),
                "cor": ("lkj", 2),
                "sigma": ("half-cauchy", 5),
            },
            SMALL | {"total": 1, "rate": 20_000},
            absorbing=("schid",),
        ),
        Problem(
            "eight-schools",
            "eight schools",
            "effect ~ 1 + (1 | school)",
            eight,
            {"Intercept": WIDE, "sd": ("half-cauchy", 5), "sigma": ("fixed", 1.0)},
            SMALL | {"total": 0.5, "rate": 70_000},
            weights="weight",
            absorbing=("school",),
            without=KNOWN,
        ),
        Problem(
            "sleepstudy",
            "sleepstudy (Days &#124; Subject)",
            "Reaction ~ Days + (Days | Subject)",
            lambda: ml.load("sleepstudy"),
            {
                "Intercept": ("normal", 250, 100),
                "b": ("normal", 0, 50),
                "sd(Subject, Intercept)": ("half-normal", 50),
                "sd(Subject, Days)": ("half-normal", 20),
                "cor": ("lkj", 2),
                "sigma": ("half-normal", 50),
            },
            SMALL | {"total": 1, "rate": 7_500},
            absorbing=("Subject",),
        ),
        Problem(
            "radon",
            "radon, 85 counties",
            "log_radon_p01 ~ floor + log_uranium + (1 | county)",
            lambda: ml.load("radon")[["log_radon_p01", "floor", "log_uranium", "county"]],
            {"Intercept": WIDE, "b": ("normal", 0, 2.5), "sd": ("half-normal", 1), "sigma": ("half-normal", 2)},
            SMALL | {"total": 1, "rate": 5_000},
            absorbing=("county",),
        ),
        Problem(
            "insteval",
            "InstEval (1&#124;s) + (1&#124;d), 73,421 rows",
            "y ~ 1 + (1 | s) + (1 | d)",
            lambda: ml.load("insteval")[["y", "s", "d"]],
            {"Intercept": WIDE, "sd": ("half-normal", 1), "sigma": ("half-normal", 2)},
            {"total": 30, "rate": 30, "rate-ratio": 4},
            absorbing=("d", "s"),
            caps={"numpyro": (300, 300), "numpyro-centred": (300, 300), "rstanarm": (100, 100)},
        ),
        Problem(
            "verbagg",
            "VerbAgg, 316 × 24 crossed, binary",
            "r2 ~ Anger + Gender + btype + situ + (1 | id) + (1 | item)",
            verbagg,
            {"Intercept": WIDE, "b": ("normal", 0, 2.5), "sd": ("exponential", 1)},
            {"total": 10, "rate": 150, "rate-ratio": 10},
            family="binomial",
            absorbing=("item", "id"),
            caps={"rstanarm": (300, 300)},
        ),
        Problem(
            "poisson",
            "Poisson, 10⁵ rows, 2,000 × (intercept, slope)",
            "y ~ x + (x || g)",
            counts,
            {"Intercept": ("normal", 0, 2.5), "b": ("normal", 0, 2.5), "sd": ("exponential", 1)},
            {"total": 30, "rate": 30, "rate-ratio": 2},
            family="poisson",
            absorbing=("g",),
            caps={"numpyro": (300, 300), "numpyro-centred": (300, 300), "rstanarm": (100, 100)},
        ),
    )
}


def arrays(item: Problem, frame: pd.DataFrame) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays of the design, and what they are: names, priors."""
    d = item.model(frame).design
    found: dict[str, Any] = {"X": d.X, "y": d.y}
    if item.weights:  # sigma is held at one: weights are one over known variances
        found["known_sd"] = 1 / np.sqrt(frame[item.weights].to_numpy())
    elif item.priors.get("sigma", ("",))[0] == "fixed":
        found["known_sd"] = np.ones(len(frame))
    terms = []
    for t, term in enumerate(d.terms):
        k = len(term.names)
        found[f"codes{t}"] = term.codes
        found[f"Z{t}"] = np.ones((len(frame), 1)) if term.Z is None else np.asarray(term.Z)
        sds = [f"sd({term.group}, {e})" for e in term.names]
        linked = k == 2 and term.structure == "us"
        cor = f"cor({term.group}, {term.names[0]}, {term.names[1]})" if linked else None
        one = {"group": term.group, "levels": len(term.levels), "sds": sds, "cor": cor}
        terms.append(one | {"priors": [item.prior(s) for s in sds], "cor_prior": item.prior(cor) if cor else None})
    about = {
        "name": item.name,
        "family": item.family,
        "coefficients": list(d.names),
        "coefficient_priors": [item.prior(name) for name in d.names],
        "terms": terms,
        "sigma_prior": None if "known_sd" in found or item.family != "gaussian" else item.prior("sigma"),
        "absorbing": [i for group in item.absorbing for i, term in enumerate(terms) if term["group"] == group],
        "formula": item.formula,
        "priors": dict(item.priors),
        "weights": item.weights,
    }
    return found, about


def materialise(item: Problem, cache: Path) -> Path:
    """Make sure the files of a problem exist; their common stem."""
    stem = (cache / f"bayes-{item.name}").resolve()
    stem.parent.mkdir(parents=True, exist_ok=True)
    if not stem.with_suffix(".feather").exists():
        frame = item.data().reset_index(drop=True)
        frame.to_csv(stem.with_suffix(".csv"), index=False, float_format="%.17g")
        frame.to_feather(stem.with_suffix(".feather"))
    found, about = arrays(item, pd.read_feather(stem.with_suffix(".feather")))
    np.savez(stem.with_suffix(".npz"), **found)
    stem.with_suffix(".json").write_text(json.dumps(about))
    return stem
