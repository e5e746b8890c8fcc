"""The arrays of a problem as the peers' adapters read them; no import of this library."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Draws = dict[str, Floats]  # (chains, draws) by parameter


@dataclass(frozen=True)
class Term:
    """Group effects: k columns `z` (None: ones), their level codes, names and priors of sds and correlation.

    Attributes
    ----------
    means : list of (indices of coefficients, (J, m) array)
        Centred form: the mean of column c's effects in each level is ``means[c][1] @ beta[means[c][0]]``.
    """

    codes: NDArray[np.int64]
    levels: int
    z: list[Floats | None]
    sds: list[str]
    priors: list[Any]
    cor: str | None
    eta: float
    means: list[tuple[list[int], Floats]]


@dataclass(frozen=True)
class Arrays:
    X: Floats  # (n, p) less `middle`; of the centred form without the columns that went into the means of groups
    columns: list[int]  # which coefficients those are
    intercept: bool  # whether the first coefficient is one
    middle: Floats  # (p,) zero or the column's mean: the models sample the intercept there, where it is known best
    y: Floats
    known_sd: Floats | None
    names: list[str]
    location: Floats
    scale: Floats
    terms: list[Term]
    sigma_prior: Any
    family: str


def level_values(x: Floats, z: Floats, codes: NDArray[np.int64], levels: int) -> Floats | None:
    """w (J,) with x = z * w[codes], if there is one: then x's coefficient can go into the means of z's effects."""
    below = np.bincount(codes, z * z, levels)
    w = np.divide(np.bincount(codes, z * x, levels), below, out=np.zeros(levels), where=below > 0)
    return w if np.allclose(x, z * w[codes], rtol=0, atol=1e-12 * max(1.0, float(np.abs(x).max()))) else None


def middles(data: dict[str, Floats], terms: int, centred: bool) -> Floats:
    """Means of the columns; zero for the intercept and, in the centred form, for those that group effects multiply too."""
    X = data["X"]
    slopes = [data[f"Z{t}"][:, c] for t in range(terms) for c in range(data[f"Z{t}"].shape[1])] if centred else []
    own = [i == 0 or any(np.array_equal(X[:, i], z) for z in slopes) for i in range(X.shape[1])]
    return np.where(own, 0.0, X.mean(axis=0))


def coefficients(a: Arrays, found: dict[str, Floats]) -> Draws:
    """Draws of the coefficients from those of the sites `intercept` (at the middle) and `slopes`."""
    slopes = found.get("slopes")
    start = int(a.intercept)
    draws: Draws = {}
    if a.intercept:
        draws[a.names[0]] = found["intercept"] - (0.0 if slopes is None else slopes @ a.middle[1:])
    return draws | {name: slopes[:, :, i] for i, name in enumerate(a.names[start:]) if slopes is not None}


def read(stem: str, centred: bool) -> Arrays:
    """Arrays of a problem; for the centred form coefficients moved into the means of groups as far as they can be."""
    about = json.loads(Path(stem + ".json").read_text())
    with np.load(stem + ".npz") as found:
        data = {name: found[name] for name in found.files}
    intercept = about["coefficients"][0] == "Intercept"
    middle = middles(data, len(about["terms"]), centred) if intercept else np.zeros(data["X"].shape[1])
    X = data["X"] - middle
    left = list(range(X.shape[1]))
    means: dict[tuple[int, int], tuple[list[int], Floats]] = {}
    for t in about["absorbing"] if centred else []:
        z, codes, levels = data[f"Z{t}"], data[f"codes{t}"].astype(np.int64), about["terms"][t]["levels"]
        for c in range(z.shape[1]):
            w = {i: level_values(X[:, i], z[:, c], codes, levels) for i in left}
            taken = [i for i in left if w[i] is not None]
            left = [i for i in left if i not in taken]
            means[t, c] = (taken, np.column_stack([w[i] for i in taken]) if taken else np.zeros((levels, 0)))
    terms = []
    for t, term in enumerate(about["terms"]):
        z = data[f"Z{t}"]
        none: tuple[list[int], Floats] = ([], np.zeros((term["levels"], 0)))
        terms.append(
            Term(
                codes=data[f"codes{t}"].astype(np.int64),
                levels=term["levels"],
                z=[None if (z[:, c] == 1).all() else np.ascontiguousarray(z[:, c]) for c in range(z.shape[1])],
                sds=term["sds"],
                priors=term["priors"],
                cor=term["cor"],
                eta=term["cor_prior"][1] if term["cor"] else 1.0,
                means=[means.get((t, c), none) for c in range(z.shape[1])],
            )
        )
    priors = about["coefficient_priors"]
    return Arrays(
        X=np.ascontiguousarray(X[:, left]),
        columns=left,
        intercept=intercept,
        middle=middle,
        y=data["y"],
        known_sd=data.get("known_sd"),
        names=about["coefficients"],
        location=np.array([p[1] for p in priors], dtype=float),
        scale=np.array([p[2] for p in priors], dtype=float),
        terms=terms,
        sigma_prior=about["sigma_prior"],
        family=about["family"],
    )
