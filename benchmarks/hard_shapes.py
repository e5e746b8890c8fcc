"""Two hundred simulated hard data sets for generalised models: ten sorts of trouble over twenty sorts of response.

Everything is drawn from a seed made of the kind and the response, so a case can be made alone: ``case("offset", "poisson")``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Floats = NDArray[np.float64]
SEED = 2025
PROBABILITY = ("logit", "probit", "cloglog", "cauchit")
TRIALS = 12


@dataclass(frozen=True)
class Flavour:
    """A sort of response: family, links that take turns from kind to kind, options of the model."""

    name: str
    family: str
    links: tuple[str | None, ...] = (None,)
    options: dict[str, Any] = field(default_factory=dict)
    left: str = "y"

    @property
    def sort(self) -> str:
        """binary, trials, counts, categories or amounts."""
        if self.family in ("binomial", "betabinomial"):
            return "trials" if "|" in self.left else "binary"
        if self.family in ("poisson", "nbinom2", "nbinom1"):
            return "counts"
        return "categories" if self.family == "ordinal" else "amounts"


FLAVOURS = {
    f.name: f
    for f in (
        *(Flavour(f"binary {link}", "binomial", (link,)) for link in PROBABILITY),
        Flavour("trials", "binomial", PROBABILITY, left="y | trials(m)"),
        Flavour("betabinomial", "betabinomial", PROBABILITY[:3], left="y | trials(m)"),
        Flavour("poisson", "poisson", ("log", "log", "sqrt")),
        Flavour("nbinom2", "nbinom2", ("log", "log", "sqrt")),
        Flavour("nbinom1", "nbinom1"),
        Flavour("zi poisson", "poisson", options={"zi": "~ 1"}),
        Flavour("zi nbinom2", "nbinom2", options={"zi": "~ x"}),
        Flavour("hurdle nbinom2", "nbinom2", options={"hurdle": "~ x"}),
        Flavour("gamma", "gamma", ("log", "inverse", "log", "identity")),
        Flavour("inverse gaussian", "inverse_gaussian", ("log", "inverse_square", "log")),
        Flavour("beta", "beta", PROBABILITY[:3]),
        Flavour("student", "student"),
        Flavour("lognormal", "lognormal"),
        *(Flavour(f"ordinal {link}", "ordinal", (link,)) for link in PROBABILITY[:3]),
    )
}


@dataclass
class Case:
    """One data set with its model; `detail` says which variant of the kind, `hopeless` that no maximum exists."""

    kind: str
    flavour: Flavour
    formula: str
    data: dict[str, Any]
    options: dict[str, Any]
    detail: str = ""
    hopeless: bool = False

    @property
    def name(self) -> str:
        return f"{self.kind}, {self.flavour.name}"


def base(rng: np.random.Generator, levels: int = 30, rows: int = 8, sd: float = 0.6) -> dict[str, Any]:
    """Groups, predictors and a linear predictor with random intercepts."""
    g = np.repeat(np.arange(levels), rows)
    x = rng.normal(size=len(g))
    return {"g": g, "x": x, "eta": 0.4 + 0.5 * x + sd * rng.normal(size=levels)[g]}


def draw(rng: np.random.Generator, flavour: Flavour, eta: Floats, trials: Any = TRIALS) -> Floats:
    """A response with about this linear predictor (of the family's default link)."""
    n, p, mu = len(eta), expit(eta), np.exp(np.clip(eta, -50, 20))
    a, b = np.maximum(4 * p, 1e-8), np.maximum(4 - 4 * p, 1e-8)
    zero = rng.random(n) < 0.25 * bool(flavour.options)
    table: dict[str, Callable[[], Any]] = {
        "binomial": lambda: rng.binomial(trials if flavour.sort == "trials" else 1, p),
        "betabinomial": lambda: rng.binomial(trials, rng.beta(a, b)),
        "poisson": lambda: np.where(zero, 0, rng.poisson(mu)),
        "nbinom2": lambda: np.where(zero, 0, rng.poisson(mu * rng.gamma(2, 0.5, n))),
        "nbinom1": lambda: rng.poisson(rng.gamma(mu, 1.0)),
        "gamma": lambda: mu * rng.gamma(3, 1 / 3, n),
        "inverse_gaussian": lambda: rng.wald(mu, 3 * mu),
        "beta": lambda: np.clip(rng.beta(a, b), 1e-12, 1 - 1e-12),
        "student": lambda: eta + 0.5 * rng.standard_t(5, n),
        "lognormal": lambda: np.exp(eta + 0.5 * rng.normal(size=n)),
        "ordinal": lambda: np.digitize(eta + rng.logistic(size=n), [-1.0, 0.5, 2.0]),
    }
    return np.asarray(table[flavour.family](), dtype=float)


def pack(d: dict[str, Any], y: Floats, **more: Any) -> dict[str, Any]:
    """Columns of a case."""
    n = len(y)
    columns = {"y": y, "m": np.full(n, float(TRIALS)), "x": d["x"], "g": d["g"]}
    return {**columns, **more}


# -- the kinds: each gives (right side, data, options, detail, hopeless) ------------------------------------------------

Made = tuple[str, dict[str, Any], dict[str, Any], str, bool]


def separation(rng: np.random.Generator, f: Flavour, turn: int) -> Made:
    """A column, most of a column or a level of a factor tells responses apart; for amounts a level with one row."""
    d = base(rng)
    n, x = len(d["x"]), d["x"]
    y = draw(rng, f, d["eta"])
    if f.sort == "amounts":
        return "x + f + (1 | g)", pack(d, y, f=np.where(np.arange(n) == 3, "a", "b")), {}, "a level with one row", False
    if turn % 3 == 2:
        level = np.arange(n) % 6 == 0
        return "x + f + (1 | g)", pack(d, np.where(level, 0.0, y), f=np.where(level, "a", "b")), {}, "by a level", True
    if f.sort == "categories":
        y = np.digitize(x, [-0.8, 0.0, 0.8]).astype(float)
        if turn % 3 == 1:
            y[np.argsort(np.abs(x))[:6]] = [1, 2, 2, 1, 1, 2]
        return "x + (1 | g)", pack(d, y), {}, ("complete", "a few rows overlap")[turn % 3], turn % 3 == 0
    top = np.full(n, TRIALS if f.sort == "trials" else 1.0) if f.sort != "counts" else np.maximum(y, 1)
    y = np.where(x > 0, top, 0.0)
    if turn % 3 == 0:
        return "x + (1 | g)", pack(d, y), {}, "complete", f.sort != "counts"
    tie = np.abs(x) < 0.3
    z = np.where(tie, 0.0, x)
    y[tie] = (rng.random(int(tie.sum())) < 0.5) * top[tie]
    return "z + (1 | g)", pack(d, y, z=z), {}, "quasi, tied at one value", f.sort != "counts"


def uniform_groups(rng: np.random.Generator, f: Flavour, turn: int) -> Made:
    """Groups of nothing but zeros, or of one value each: half of them, all, all but one."""
    d = base(rng)
    y = draw(rng, f, d["eta"])
    whole = [d["g"] % 2 == 0, np.ones(len(y), dtype=bool), d["g"] > 0][turn % 3]
    first = y[d["g"] * 8]
    value = first if f.sort in ("amounts", "categories") or turn % 3 == 1 else 0.0
    if f.sort in ("binary", "trials") and turn % 3 == 1:
        value = np.where(first >= max(np.median(first), 1), TRIALS if f.sort == "trials" else 1.0, 0.0)
    detail = f"{('half of the groups', 'every group', 'all groups but one')[turn % 3]} uniform"
    return "x + (1 | g)", pack(d, np.where(whole, value, y)), {}, detail, False


def huge(rng: np.random.Generator, f: Flavour, turn: int) -> Made:
    """One response of 1e6 or 1e9; where that cannot be, one row of such a weight or at the edge of its range."""
    d = base(rng)
    y, size = draw(rng, f, d["eta"]), (1e6, 1e9)[turn % 2]
    if f.sort in ("binary", "categories"):
        w = np.where(np.arange(len(y)) == 17, size, 1.0)
        return "x + (1 | g)", pack(d, y, w=w), {"weights": "w"}, f"one row of weight {size:.0e}", False
    if f.sort == "trials":
        m = np.where(np.arange(len(y)) == 17, size, float(TRIALS))
        y[17] = round(size / 3)
        return "x + (1 | g)", {**pack(d, y), "m": m}, {}, f"one row of {size:.0e} trials", False
    y[17] = 1e-6 / size if f.family == "beta" else size
    return "x + (1 | g)", pack(d, y), {}, f"one response of {y[17]:.0e}", False


def tiny(rng: np.random.Generator, f: Flavour, turn: int) -> Made:
    """Probabilities of 1e-6, hardly any counts above zero, amounts of 1e-9, categories with one row or none."""
    d = base(rng)
    n = len(d["x"])
    if f.sort == "binary":
        y = np.zeros(n)
        y[rng.choice(n, 1 + turn % 3, replace=False)] = 1
        return "x + (1 | g)", pack(d, y), {}, f"{1 + turn % 3} of {n} are successes", False
    if f.sort == "trials":
        p = expit(d["eta"] - 14 - 2 * (turn % 2))
        y = rng.binomial(10**7, rng.beta(4e6 * p, 4e6) if f.family == "betabinomial" else p).astype(float)
        y[3] = max(y[3], 1)
        return "x + (1 | g)", {**pack(d, y), "m": np.full(n, 1e7)}, {}, "probabilities of 1e-6 or less", False
    if f.sort == "counts":
        y = np.zeros(n)
        y[rng.choice(n, 2 + turn % 3, replace=False)] = rng.integers(1, 4, 2 + turn % 3)
        y[0] = 2
        return "x + (1 | g)", pack(d, y), {}, f"{int((y > 0).sum())} of {n} counts above zero", False
    if f.sort == "categories":
        y = draw(rng, f, d["eta"])
        y[11] = 4 + turn % 2  # the only one of its category, after an empty one every other time
        return "x + (1 | g)", pack(d, y), {}, "a category with one row", False
    if f.family == "beta":
        y = np.clip(rng.beta(4e6 * expit(d["eta"] - 14), 4e6), 1e-300, None)
        return "x + (1 | g)", pack(d, y), {}, "means of 1e-6", False
    y = draw(rng, f, d["eta"]) * 1e-9
    return "x + (1 | g)", pack(d, y), {}, "amounts of 1e-9", False


def few_rows(rng: np.random.Generator, f: Flavour, turn: int) -> Made:
    """Twenty rows: five groups of four, ten of two, a slope, two crossed factors."""
    levels = (5, 10, 5, 5)[turn % 4]
    d = base(rng, levels, 20 // levels)
    data = pack(d, draw(rng, f, d["eta"]), h=np.arange(20) % 4)
    bar = ("(1 | g)", "(1 | g)", "(x | g)", "(1 | g) + (1 | h)")[turn % 4]
    return f"x + {bar}", data, {}, f"20 rows, {bar}, {levels} groups", False


def near_singular(rng: np.random.Generator, f: Flavour, turn: int) -> Made:
    """Correlations of 1 - 1e-10 between columns or slopes, the same factor twice, variances of zero."""
    d = base(rng, sd=0.0 if turn % 4 == 2 else 0.6)
    n = len(d["x"])
    z = d["x"] + 1.4e-5 * rng.normal(size=n)
    data = pack(d, draw(rng, f, d["eta"]), z=z, h=d["g"])
    right, detail = (
        ("x + z + (1 | g)", "fixed effects correlated 1 - 1e-10"),
        ("x + (x + z | g)", "slopes correlated 1 - 1e-10"),
        ("x + (x | g)", "variances of zero"),
        ("x + (1 | g) + (1 | h)", "one grouping factor twice"),
    )[turn % 4]
    return right, data, {}, detail, False


def zero_weights(rng: np.random.Generator, f: Flavour, turn: int) -> Made:
    """Rows, groups or nearly all rows of weight zero; weights from 1e-8 to 1e8."""
    d = base(rng)
    n = len(d["x"])
    w = (
        (np.arange(n) % 5 > 0).astype(float),
        (d["g"] > 9).astype(float),
        (np.arange(n) % 20 == 0).astype(float),
        10.0 ** rng.uniform(-8, 8, n),
    )[turn % 4]
    detail = ("every fifth row", "ten groups", "19 of 20 rows", "1e-8 to 1e8")[turn % 4]
    return "x + (1 | g)", pack(d, draw(rng, f, d["eta"]), w=w), {"weights": "w"}, f"weights 0: {detail}", False


def offsets(rng: np.random.Generator, f: Flavour, turn: int) -> Made:
    """Offsets of 30 and 300, of one sign or both."""
    d = base(rng)
    n = len(d["x"])
    sign = np.where(np.arange(n) % 2, 1.0, -1.0)
    o = (np.full(n, 30.0), np.full(n, -300.0), 30 * sign, np.full(n, 300.0), 300 * sign)[turn % 5]
    detail = ("+30", "-300", "+-30", "+300", "+-300")[turn % 5]
    return "x + offset(o) + (1 | g)", pack(d, draw(rng, f, d["eta"]), o=o), {}, f"offset {detail}", False


def scales(rng: np.random.Generator, f: Flavour, turn: int) -> Made:
    """Random slopes of predictors that are very large, very small or far from zero."""
    d = base(rng)
    factor, shift = ((1e6, 0.0), (1e-8, 0.0), (1.0, 1e6), (1e6, 1e9))[turn % 4]
    slope = 0.4 * rng.normal(size=30)[d["g"]] * d["x"]
    data = pack(d, draw(rng, f, d["eta"] + slope))
    data["x"] = d["x"] * factor + shift
    return "x + (x | g)", data, {}, f"slopes of x with sd {factor:.0e} and mean {shift:.0e}", False


def odd_groups(rng: np.random.Generator, f: Flavour, turn: int) -> Made:
    """Groups of one row; between groups sds of 10 and of 100 on the scale of the link; two groups."""
    if turn % 4 == 0:
        d = base(rng, 120, 1)
        return "x + (1 | g)", pack(d, draw(rng, f, d["eta"])), {}, "groups of one row", False
    if turn % 4 == 3:
        d = base(rng, 2, 30)
        return "x + (x | g)", pack(d, draw(rng, f, d["eta"])), {}, "two groups, (x | g)", False
    sd = (10.0, 100.0)[turn % 4 - 1]
    d = base(rng, sd=sd)
    return "x + (1 | g)", pack(d, draw(rng, f, d["eta"])), {}, f"sd of {sd:g} between groups", False


def no_noise(rng: np.random.Generator, f: Flavour, turn: int) -> Made:
    """Constant responses, and responses that the fixed effects or the groups fit perfectly."""
    d = base(rng)
    n = len(d["x"])
    constant = turn % 2 == 0
    if constant and f.sort != "amounts":
        value = TRIALS / 2 if f.sort == "trials" else 1.0
        return "x + (1 | g)", pack(d, np.full(n, value)), {}, "constant", f.sort in ("binary", "categories", "counts")
    if f.sort != "amounts":
        p = expit(d["eta"])
        y = {
            "binary": (p > 0.6).astype(float),
            "trials": np.round(TRIALS * p),
            "counts": np.round(np.exp(d["eta"])),
            "categories": np.digitize(d["eta"], [-0.5, 0.5, 1.5]).astype(float),
        }[f.sort]
        return "x + (1 | g)", pack(d, y), {}, "no noise about x and groups", False
    eta = d["eta"] if turn % 2 else 0.4 + 0.5 * d["x"]
    y = expit(eta) if f.family == "beta" else eta if f.family == "student" else np.exp(eta)
    return "x + (1 | g)", pack(d, y), {}, ("perfectly fitted by x", "perfectly fitted by x and groups")[turn % 2], False


KINDS: dict[str, Callable[[np.random.Generator, Flavour, int], Made]] = {
    "separation": separation,
    "uniform groups": uniform_groups,
    "one huge value": huge,
    "tiny": tiny,
    "20 rows": few_rows,
    "near singular": near_singular,
    "weights of zero": zero_weights,
    "extreme offsets": offsets,
    "bad scales": scales,
    "odd groups": odd_groups,
    "no noise": no_noise,
}
HALVED = {"weights of zero": 0, "extreme offsets": 1}  # with every other response, so that there are 200 in all


def case(kind: str, flavour: str) -> Case:
    """One case, the same on every machine."""
    k, turn, f = list(KINDS).index(kind), list(FLAVOURS).index(flavour), FLAVOURS[flavour]
    rng = np.random.default_rng([SEED, k, turn])
    right, data, options, detail, hopeless = KINDS[kind](rng, f, turn // 2 if kind in HALVED else turn)
    link = f.links[k % len(f.links)]
    given = {"family": f.family, **f.options, **options} | ({"link": link} if link else {})
    return Case(kind, f, f"{f.left} ~ {right}", data, given, detail, hopeless)


def cases() -> list[Case]:
    """All two hundred."""
    out = []
    for kind in KINDS:
        for turn, flavour in enumerate(FLAVOURS):
            if kind not in HALVED or turn % 2 == HALVED[kind]:
                out.append(case(kind, flavour))
    return out
