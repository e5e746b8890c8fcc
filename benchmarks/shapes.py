"""Random small models and data of many shapes for simulated.py; number i of seed s is always the same set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from engines.protocol import Floats, Spec, Term
from numpy.typing import NDArray

Rng = np.random.Generator
Ints = NDArray[np.int64]
LAYOUTS = ("one", "one", "nested", "crossed", "partial", "partial", "nested-crossed", "three")


@dataclass(frozen=True)
class Simulated:
    spec: Spec
    frame: pd.DataFrame
    layout: str
    truth: (
        str  # "regular", "zero" (a variance is zero) or "one" (a correlation is ±1): of the population, not the fit
    )


def draw(number: int, seed: int) -> Simulated:
    """Set `number`: shapes are drawn until one is well posed (see `well_posed`)."""
    rng = np.random.default_rng([seed, number])
    while True:
        layout = str(rng.choice(LAYOUTS))
        n = int(np.exp(rng.uniform(np.log(20), np.log(2000))))
        codes = grouping(rng, layout, n)
        frame = covariates(rng, n, codes)
        terms = choose_terms(rng, layout)
        if well_posed(frame, terms):
            return respond(rng, number, layout, frame, terms)


def grouping(rng: Rng, layout: str, n: int) -> dict[str, Ints]:
    def levels(low: int, high: int) -> int:
        return int(np.exp(rng.uniform(np.log(low), np.log(max(high, low + 1)))))

    def spread(count: int) -> Ints:
        """n labels out of `count`: even, or very uneven."""
        if rng.random() < 0.5:
            return np.asarray(rng.permutation(np.arange(n) % count))
        share = rng.dirichlet(np.full(count, rng.choice([0.5, 1.0, 5.0])))
        return np.asarray(rng.choice(count, n, p=share))

    top = max(4, n // 3)
    a = spread(levels(3, min(60, top)))
    if layout == "one":
        return {"a": a}
    if layout in ("nested", "nested-crossed"):
        a = spread(levels(3, min(25, max(4, n // 8))))
        inner = spread(int(rng.integers(2, 6)))  # labels re-used in every level of a
        return {"a": a, "b": inner} | ({"c": spread(levels(3, min(20, top)))} if layout == "nested-crossed" else {})
    if layout == "crossed":
        rows = levels(3, min(40, max(4, int(np.sqrt(n)))))
        columns = max(3, min(60, n // rows))
        cell = np.arange(n) % (rows * columns)
        return {"a": cell // columns, "b": cell % columns}
    return {"a": a, "b": spread(levels(3, min(40, top)))} | (
        {"c": spread(levels(3, 12))} if layout == "three" else {}
    )


def covariates(rng: Rng, n: int, codes: dict[str, Ints]) -> pd.DataFrame:
    """Five numeric columns; now and then badly scaled, far from zero, or constant within the levels of `a`."""
    columns: dict[str, Floats] = {
        "x1": rng.normal(size=n),
        "x2": rng.integers(0, 10, n).astype(float),
        "x3": rng.integers(0, 2, n).astype(float),
        "x4": rng.standard_t(4, n),
        "x5": rng.normal(size=int(codes["a"].max()) + 1)[codes["a"]] + 0.1 * rng.normal(size=n),
    }
    for name, values in list(columns.items()):
        if rng.random() < 0.2:
            columns[name] = values * 10.0 ** rng.uniform(-3, 3)
        if rng.random() < 0.15:
            columns[name] = columns[name] + 20.0 * np.std(columns[name])
    columns["w"] = rng.gamma(2.0, 0.5, n) + 0.05
    return pd.DataFrame(columns | {name: [f"{name}{c}" for c in code] for name, code in codes.items()})


def choose_terms(rng: Rng, layout: str) -> tuple[Term, ...]:
    a, ab, b, c = ("a",), ("a", "b"), ("b",), ("c",)
    table: dict[str, list[tuple[str, ...]]] = {
        "one": [a],
        "nested": [a, ab],
        "crossed": [a, b],
        "partial": [a, b],
        "nested-crossed": [a, ab, c],
        "three": [a, b, c],
    }
    out = []
    for group in table[layout]:
        k = int(rng.choice([1, 2, 3, 4], p=[0.45, 0.3, 0.15, 0.1]))
        picked = rng.permutation(5)[: k - 1]
        slopes = tuple(f"x{i + 1}" for i in sorted(picked))
        out.append(Term(group, ("1", *slopes), "diag" if k > 1 and rng.random() < 0.25 else "us"))
    return tuple(out)


def well_posed(frame: pd.DataFrame, terms: tuple[Term, ...]) -> bool:
    """Two levels at least, fewer effects than rows per term (lme4's demand), and a residual left after all of them."""
    n, blocks = len(frame), [np.ones((len(frame), 1)), frame[["x1", "x2", "x3", "x4", "x5"]].to_numpy()]
    total = 6
    for term in terms:
        code = frame.groupby(list(term.groups)).ngroup().to_numpy()
        levels, k = int(code.max()) + 1, len(term.effects)
        if levels < 3 or levels * k >= n or total + levels * k > 700:
            return False
        total += levels * k
        z = np.column_stack([np.ones(n) if e == "1" else frame[e].to_numpy() for e in term.effects])
        z = z / np.sqrt((z**2).mean(axis=0))
        if np.linalg.matrix_rank(z, tol=1e-6 * np.sqrt(n)) < k:
            return False
        wide = np.zeros((n, levels, k))
        wide[np.arange(n), code] = z
        blocks.append(wide.reshape(n, -1))
    if total < 0.7 * n:
        return True
    x = blocks[1] / np.sqrt((blocks[1] ** 2).mean(axis=0))
    rank = np.linalg.matrix_rank(np.column_stack([blocks[0], x, *blocks[2:]]))
    return bool(rank <= n - max(4, n // 20))


def root(rng: Rng, term: Term, truth: str) -> Floats:
    """A square root of one term's relative covariance (unit-scale columns)."""
    k = len(term.effects)
    sds = np.exp(rng.uniform(np.log(0.1 if rng.random() < 0.4 else 0.5), np.log(2.0), k))
    if truth == "zero":
        sds[int(rng.integers(k))] = 0.0
    if term.structure == "diag" or k == 1:
        return np.diag(sds)
    rank = int(rng.integers(1, k)) if truth == "one" else k
    loading = rng.normal(size=(k, rank))
    return np.asarray(sds[:, None] * loading / np.sqrt((loading**2).sum(axis=1, keepdims=True)))


def respond(rng: Rng, number: int, layout: str, frame: pd.DataFrame, terms: tuple[Term, ...]) -> Simulated:
    n, truth = len(frame), str(rng.choice(["regular", "zero", "one"], p=[0.6, 0.25, 0.15]))
    weighted, reml = bool(rng.random() < 0.2), bool(rng.random() < 0.6)
    slopes = {e for t in terms for e in t.effects if e != "1"}
    extra = {f"x{i}" for i in range(1, 6) if rng.random() < 0.25}
    fixed = tuple(sorted(slopes | extra))
    noise = rng.normal(size=n) / np.sqrt(frame["w"].to_numpy() if weighted else 1.0)
    y = rng.normal() + noise
    for name in fixed:
        x = frame[name].to_numpy()
        y = y + rng.normal() * x / np.sqrt((x**2).mean())
    for term in terms:
        code = frame.groupby(list(term.groups)).ngroup().to_numpy()
        z = np.column_stack([np.ones(n) if e == "1" else frame[e].to_numpy() for e in term.effects])
        half = root(rng, term, truth)
        b = rng.normal(size=(int(code.max()) + 1, half.shape[1])) @ half.T
        y = y + (z / np.sqrt((z**2).mean(axis=0)) * b[code]).sum(axis=1)
    scale = 10.0 ** rng.uniform(-4, 5) if rng.random() < 0.3 else 1.0
    frame = frame.assign(y=scale * (y + (rng.normal(0, 30) if rng.random() < 0.3 else 0.0)))
    spec = Spec(
        name=f"s{number:04d}",
        formula=formula(fixed, terms),
        terms=terms,
        reml=reml,
        fixed=fixed,
        factors=tuple(dict.fromkeys(g for t in terms for g in t.groups)),
        weights="w" if weighted else None,
    )
    return Simulated(spec, frame, layout, truth)


def formula(fixed: tuple[str, ...], terms: tuple[Term, ...]) -> str:
    bars = [f"({' + '.join(t.effects)} {'||' if t.structure == 'diag' else '|'} {t.group})" for t in terms]
    return "y ~ " + " + ".join(["1", *fixed, *bars])
