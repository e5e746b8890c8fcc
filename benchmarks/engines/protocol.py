"""What the harness and the engine workers say to each other.

A worker is started as ``<command> JOB OUT``. JOB is a JSON file::

    {"engine": "glmm", "threads": 1, "control": "default" | "tight", "repeats": 5, "min_seconds": 1.0,
     "slow": 30.0, "budget": 30.0, "specs": [...]}

and for each spec, in order, the worker appends one JSON line (an `Answer`) to OUT. The harness watches OUT: when no new
line comes within the timeout it stops the worker, notes a timeout for that spec and starts a new worker on the rest.
Nothing here may import `multilevel`: the peers run in an environment that does not have it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Answer = dict[str, Any]


class Unsupported(Exception):
    """The engine cannot fit this model at all (shown as "cannot", not as a failure)."""


@dataclass(frozen=True)
class Term:
    """One random-effect term: grouping columns (several: their interaction) and effects ("1": the intercept)."""

    groups: tuple[str, ...]
    effects: tuple[str, ...]
    structure: str = "us"  # or "diag", typed (x || g)

    @property
    def group(self) -> str:
        return ":".join(self.groups)

    @property
    def n_theta(self) -> int:
        k = len(self.effects)
        return k if self.structure == "diag" else k * (k + 1) // 2


@dataclass(frozen=True)
class Spec:
    """One model on one data file. `terms` spells out what the bars of `formula` mean, in the order typed."""

    name: str
    formula: str
    terms: tuple[Term, ...]
    factors: tuple[str, ...]
    stem: str = ""  # path of the data without its suffix: .feather, .csv and, for many responses, .f64
    reml: bool = True
    weights: str | None = None
    fixed: tuple[str, ...] = ()  # numeric fixed columns besides the intercept (used by the dense judge)
    statsmodels: Mapping[str, Any] | None = None  # how statsmodels spells the model; None: it cannot
    family: str = "gaussian"  # or binomial, poisson, nbinom2, each with its usual link
    nodes: int = 1  # of adaptive quadrature; 1: Laplace's approximation
    trials: str | None = None  # of a response cbind(successes, failures): the column with their sum
    products: tuple[tuple[str, ...], ...] = ()  # fixed effects as products of columns, for engines without a formula
    responses: int = 0  # > 0: refit this many responses, stored in stem.f64 (n x responses, column-major doubles)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def response(self) -> str:
        return self.formula.split("~")[0].strip()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Spec:
        terms = tuple(Term(tuple(t["groups"]), tuple(t["effects"]), t["structure"]) for t in raw["terms"])
        rest = {k: v for k, v in raw.items() if k not in ("terms", "factors", "fixed", "products")}
        products = tuple(tuple(p) for p in raw["products"])
        return cls(
            terms=terms, factors=tuple(raw["factors"]), fixed=tuple(raw["fixed"]), products=products, **rest
        )


@dataclass
class Prepared:
    """What an adapter hands to the worker: things to time, and how to read the result of `whole`."""

    whole: Callable[[], Any]  # formula and data frame to result
    read: Callable[[Any], Answer]
    engine: Callable[[], Any] | None = None  # the same fit with the model already built
    full: Callable[[], Any] | None = None  # `whole` and Satterthwaite df, where it leaves them out


def floats(values: Any) -> list[float]:
    return [float(v) for v in np.ravel(np.asarray(values, dtype=float))]


def covariances(spec: Spec, theta: Sequence[float], sigma: float) -> list[list[list[float]]]:
    """Covariance of each term from lme4's theta, given per term in the order of the formula."""
    out, at = [], 0
    for term in spec.terms:
        k = len(term.effects)
        root = np.zeros((k, k))
        if term.structure == "diag":
            np.fill_diagonal(root, theta[at : at + k])
        else:
            columns, rows = np.triu_indices(k)  # column-major lower triangle
            root[rows, columns] = theta[at : at + term.n_theta]
        at += term.n_theta
        out.append((sigma**2 * root @ root.T).tolist())
    if at != len(theta):
        raise ValueError(f"{len(theta)} covariance parameters for a model with {at}")
    return out


def base_name(group: str) -> str:
    """A grouping's name whatever the order of the interaction, and without lme4's ".1" of a repeated group."""
    head, _, tail = group.rpartition(".")
    return ":".join(sorted((head if head and tail.isdigit() else group).split(":")))


def match(spec: Spec, found: Sequence[Mapping[str, Any]]) -> list[list[list[float]]]:
    """Put blocks ({"group", "effects", "cov"}, any order) in the order of the spec; `||` blocks are merged."""
    blocks = [dict(b, key=base_name(b["group"]), cov=np.atleast_2d(b["cov"]), used=False) for b in found]
    out = []
    for term in spec.terms:
        cov = np.zeros((len(term.effects), len(term.effects)))
        for block in blocks:
            names = [canonical(e) for e in block["effects"]]
            if block["used"] or block["key"] != base_name(term.group) or not set(names) <= set(term.effects):
                continue
            at = [term.effects.index(n) for n in names]
            cov[np.ix_(at, at)] = block["cov"]
            block["used"] = True
        out.append(cov.tolist())
    return out


def canonical(effect: str) -> str:
    return "1" if effect in ("(Intercept)", "Intercept") else effect
