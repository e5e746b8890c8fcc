"""Small random designs of many shapes, as formula and data frame, and the dense twin of each."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from reference import Array, Dense

from multilevel import Fit, Model, SingularFitWarning
from multilevel.design import Design
from multilevel.optimise import Evidence
from multilevel.reml import Engine, Optimum

Codes = NDArray[np.int64]
Factors = tuple[Array, ...]


@dataclass(frozen=True)
class Shape:
    """One design: what to type, the data, and the weights that some fits take."""

    name: str
    formula: str
    data: pd.DataFrame

    @cached_property
    def model(self) -> Model:
        return Model(self.formula, self.data)

    @cached_property
    def weighted(self) -> Model:
        return Model(self.formula, self.data, weights="w")


def twin(design: Design) -> Dense:
    """The dense twin of a design, in the order of its terms."""
    terms = [(term.codes.astype(np.int64), term.Z, len(term.levels)) for term in design.terms]
    return Dense(design.y, design.X, terms, design.weights, design.offset)


def engine(model: Model, threads: int = 1) -> Engine:
    """A fresh engine, not the one a model keeps."""
    return Engine(model.design, threads)


def generic(design: Design, seed: int = 0, size: float = 0.7) -> Factors:
    """One lower-triangular factor per term, of full rank; diagonal ones where the term says so."""
    rng = np.random.default_rng(seed)
    out = []
    for term in design.terms:
        k = len(term.names)
        factor = np.tril(rng.normal(size=(k, k)) * 0.4)
        np.fill_diagonal(factor, rng.uniform(0.4, 1.3, k))
        out.append(size * (np.diag(np.diag(factor)) if term.structure == "diag" else factor))
    return tuple(out)


def singular(design: Design, kind: str, seed: int = 0) -> Factors:
    """Factors on the boundary: "zero" all, "first" the first term alone, "column" the last column of each."""
    out = [factor.copy() for factor in generic(design, seed)]
    for index, factor in enumerate(out):
        if kind == "zero" or kind == "first" and index == 0:
            factor[:] = 0.0
        if kind == "column":
            factor[:, -1] = 0.0
    return tuple(out)


def solution_at(engine: Engine, lambdas: Sequence[Array], reml: bool) -> Optimum:
    """What a fit would say if its search had ended at these factors."""
    roots = engine.engine_lambdas(lambdas)
    evidence = Evidence("converged", 1, 1, 0, 0.0, 0.0, 1.0, True, (), tuple(len(root) for root in roots))
    return engine._optimum(engine.state(reml, roots), roots, reml, evidence)


def slopes(dense: Dense, lambdas: Sequence[Array], reml: bool) -> list[Array]:
    """Derivative of the criterion by each term's relative covariance matrix, effects scaled to mean square one.

    At a minimum over all covariance matrices each is positive semidefinite, and zero along what varies.
    """
    m = dense.moments(lambdas)
    inner = (dense.projection(m) if reml else m.V_inv) - np.outer(m.q, m.q) * (dense.n - dense.p * reml) / m.r2
    out = []
    for Z, J, k in zip(dense.Z, dense.levels, dense.sizes, strict=True):
        blocks = np.einsum("iaib->ab", (Z.T @ inner @ Z).reshape(J, k, J, k))
        root = np.sqrt((Z.reshape(-1, k) ** 2).sum(axis=0) / dense.n)
        out.append(blocks / np.outer(root, root))
    return out


def quiet_fit(model: Model, reml: bool = True, **options: Any) -> Fit:
    """A fit whose singularity is no news."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SingularFitWarning)
        return model.fit(reml, **options)


def draw(rows: int, groups: dict[str, Codes], seed: int, effects: float = 0.8) -> pd.DataFrame:
    """Columns x1 to x5, a factor f, weights w, the groups and a response that varies by them."""
    rng = np.random.default_rng(seed)
    data = {f"x{i}": rng.normal(size=rows) + (i == 2) for i in range(1, 6)}
    y = 2.0 + data["x1"] - 0.5 * data["x2"] + rng.normal(size=rows)
    for codes in groups.values():
        count = int(codes.max()) + 1
        y = y + effects * (rng.normal(size=count)[codes] + 0.5 * rng.normal(size=count)[codes] * data["x1"])
    labels = {
        name: np.array([f"{name}{i:03d}" for i in range(codes.max() + 1)])[codes] for name, codes in groups.items()
    }
    return pd.DataFrame(
        {
            "y": y,
            **data,
            "f": np.array(["p", "q", "r"])[rng.integers(0, 3, rows)],
            "w": rng.uniform(0.5, 2.0, rows),
            **labels,
        }
    )


def random_codes(rng: np.random.Generator, rows: int, levels: int) -> Codes:
    """Every level at least once, the rest at random and uneven."""
    share = rng.dirichlet(np.full(levels, 2.0))
    codes = np.concatenate([np.arange(levels), rng.choice(levels, rows - levels, p=share)])
    return np.asarray(rng.permutation(codes), dtype=np.int64)


def one(levels: int, rows: int, seed: int = 1) -> dict[str, Codes]:
    return {"a": random_codes(np.random.default_rng(seed), rows, levels)}


def crossed(sizes: Sequence[int], rows: int, seed: int = 2) -> dict[str, Codes]:
    rng = np.random.default_rng(seed)
    return {name: random_codes(rng, rows, levels) for name, levels in zip("abc", sizes, strict=False)}


def chain(regions: int, schools: int, classes: int, rows: int, seed: int = 3) -> dict[str, Codes]:
    """Classes in schools in regions, each label unique."""
    rng = np.random.default_rng(seed)
    school = random_codes(rng, classes, schools)
    region = random_codes(rng, schools, regions)
    c = random_codes(rng, rows, classes)
    return {"a": c, "b": school[c], "c": region[school[c]]}


def meshed(levels: int, partners: int, others: int, rows: int, seed: int = 4) -> dict[str, Codes]:
    """Each level of a meets a few neighbouring levels of b only."""
    rng = np.random.default_rng(seed)
    a = random_codes(rng, rows, levels)
    return {"a": a, "b": (a * others // levels + rng.integers(0, partners, rows)) % others}


def _build() -> dict[str, tuple[str, int, dict[str, Codes]]]:
    """Name -> formula, rows, groups."""
    small, nine, both, tree = one(9, 70), one(9, 90), crossed((14, 6), 90), chain(66, 75, 85, 130)
    item = {"c": random_codes(np.random.default_rng(5), 160, 7)}
    return {
        "no groups": ("y ~ x1 + x2", 40, {}),
        "intercept": ("y ~ x1 + (1 | a)", 70, small),
        "two levels": ("y ~ x1 + (1 | a)", 25, one(2, 25)),
        "mean only": ("y ~ 1 + (1 | a)", 70, small),
        "no fixed effects": ("y ~ 0 + (1 | a)", 70, small),
        "no fixed effects, crossed": ("y ~ 0 + (x1 | a) + (1 | b)", 90, both),
        "six fixed effects": ("y ~ x1 * f + (1 | a)", 90, nine),
        "slope": ("y ~ x1 + (x1 | a)", 70, small),
        "no intercept": ("y ~ x1 + (0 + x1 | a)", 70, small),
        "three effects": ("y ~ x1 + x2 + (x1 + x2 | a)", 90, nine),
        "four effects": ("y ~ x1 + (x1 + x2 + x3 | a)", 90, nine),
        "five effects": ("y ~ x1 + (x1 + x2 + x3 + x4 | a)", 110, one(9, 110)),
        "factor effects": ("y ~ f + (0 + f | a)", 90, nine),
        "uncorrelated": ("y ~ x1 + (x1 + x2 || a)", 90, nine),
        "uncorrelated factor": ("y ~ f + (f || a)", 90, nine),
        "merged": ("y ~ x1 + (1 | a) + (0 + x1 | a)", 70, small),
        "merged blocks": ("y ~ x1 + (x1 | a) + (0 + x2 + x3 || a) + (1 | b)", 110, crossed((12, 5), 110)),
        "crossed": ("y ~ x1 + (1 | a) + (1 | b)", 90, both),
        "crossed slopes": ("y ~ x1 + (x1 | a) + (x2 + x1 | b)", 90, both),
        "crossed, panel": ("y ~ x1 + (1 | a) + (1 | b)", 150, crossed((30, 24), 150)),
        "crossed, panel, slopes": ("y ~ x1 + (x1 | a) + (0 + x2 | b)", 150, crossed((30, 24), 150)),
        "crossed, scattered": ("y ~ x1 + (1 | a) + (1 | b)", 170, meshed(100, 2, 50, 170)),
        "crossed, scattered, slopes": ("y ~ x1 + (x1 | a) + (x1 | b)", 190, meshed(80, 2, 30, 190)),
        "three crossed": ("y ~ x1 + (1 | a) + (1 | b) + (1 | c)", 120, crossed((14, 7, 4), 120)),
        "with their interaction": ("y ~ x1 + (1 | a) + (1 | b) + (1 | a:b)", 120, crossed((8, 6), 120)),
        "interaction slopes": ("y ~ x1 + (x1 | a) + (1 | b) + (x1 | a:b)", 130, crossed((6, 5), 130)),
        "small chain": ("y ~ x1 + (1 | c/b/a)", 100, chain(4, 9, 20, 100)),
        "chain": ("y ~ x1 + (1 | a) + (1 | b) + (1 | c)", 130, tree),
        "chain with slopes": ("y ~ x1 + (1 | a) + (x1 | b) + (x1 | c)", 170, chain(35, 50, 80, 170)),
        "chain, sparse twice": ("y ~ x1 + (x1 | a) + (1 | b) + (1 | c)", 180, chain(26, 50, 80, 180)),
        "sparse mesh": ("y ~ x1 + (1 | a) + (1 | b)", 190, meshed(100, 2, 70, 190)),
        "chain and crossed": ("y ~ x1 + (1 | a) + (1 | b) + (1 | c)", 160, chain(9, 20, 50, 160) | item),
    }


@cache
def shape(name: str) -> Shape:
    formula, rows, groups = _build()[name]
    return Shape(name, formula, draw(rows, groups, seed=len(name)))


NAMES = tuple(_build())


def random_shape(seed: int) -> Shape:
    """A small design drawn at random: some with real variation between groups, some with none."""
    rng = np.random.default_rng([7, seed])
    rows = int(rng.integers(30, 140))
    templates: Any = (
        "y ~ 1 + (1 | a)",
        "y ~ x1 + (1 | a)",
        "y ~ x1 + (x1 | a)",
        "y ~ x1 + (x1 || a)",
        "y ~ x1 + x2 + (x1 + x2 | a)",
        "y ~ x1 + (1 | a) + (1 | b)",
        "y ~ x1 + (x1 | a) + (1 | b)",
        "y ~ f + (1 | a) + (0 + x1 | b)",
        "y ~ x1 + (1 | a) + (1 | b) + (1 | c)",
        "y ~ 0 + (1 | a)",
    )
    formula = str(templates[seed % len(templates)])
    sizes = (int(rng.integers(3, max(4, rows // 8))), int(rng.integers(3, 8)), int(rng.integers(2, 5)))
    data = draw(rows, crossed(sizes, rows, seed), seed, effects=float(rng.choice([0.0, 0.1, 0.5, 1.5])))
    shift = 0.0 if formula.startswith("y ~ 0") else rng.choice([0.0, 1000.0])
    data["y"] = data["y"] * 10.0 ** rng.integers(-3, 4) + shift
    return Shape(f"random {seed}", formula, data)
