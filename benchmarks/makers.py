"""Simulated data for the benchmark problems: the same seed always gives the same frame."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
CONTRASTS = ("S", "P", "C", "SP", "SC", "PC", "SPC")


def slopes(n: int, groups: int, seed: int) -> pd.DataFrame:
    """y ~ x + (1 + x | g): correlated intercepts and slopes, groups of about n / groups rows, in random order."""
    rng = np.random.default_rng(seed)
    g = rng.integers(0, groups, n)
    x = rng.normal(size=n)
    b = rng.normal(size=(groups, 2)) @ np.array([[0.8, 0.2], [0.0, 0.4]])
    y = 1.0 + 0.5 * x + b[g, 0] + b[g, 1] * x + rng.normal(size=n)
    return pd.DataFrame({"y": y, "x": x, "g": g})


def bernoulli(n: int, groups: int, seed: int) -> pd.DataFrame:
    """0/1 with logit(P(y = 1)) as in `slopes`, correlated intercepts and slopes by group."""
    rng = np.random.default_rng(seed)
    g = rng.integers(0, groups, n)
    x = rng.normal(size=n)
    b = rng.normal(size=(groups, 2)) @ np.array([[0.8, 0.2], [0.0, 0.4]])
    y = rng.random(n) < 1 / (1 + np.exp(0.5 - 0.5 * x - b[g, 0] - b[g, 1] * x))
    return pd.DataFrame({"y": y.astype(int), "x": x, "g": g})


def ratings(n: int, users: int, items: int, seed: int) -> pd.DataFrame:
    """Crossed and uneven: lognormal activity of users, Zipf popularity of items."""
    rng = np.random.default_rng(seed)
    activity = rng.lognormal(0.0, 1.0, users)
    popularity = 1.0 / (np.arange(items) + 10.0)
    user = rng.choice(users, n, p=activity / activity.sum())
    item = rng.permutation(items)[rng.choice(items, n, p=popularity / popularity.sum())]
    y = 3.5 + rng.normal(0, 0.45, users)[user] + rng.normal(0, 0.6, items)[item] + rng.normal(0, 0.9, n)
    return pd.DataFrame({"y": y, "user": user, "item": item})


def random_effects(rng: np.random.Generator, levels: int, effects: int, rank: int, sd: float) -> Floats:
    """Levels x effects with a covariance of the given rank and sds near `sd`."""
    root = rng.normal(size=(rank, effects))
    root *= sd / np.sqrt((root**2).sum(axis=0))
    return np.asarray(rng.normal(size=(levels, rank)) @ root)


def factorial(subjects: int, items: int, latin: bool, rank: int, seed: int) -> pd.DataFrame:
    """2 x 2 x 2 within subjects and items, eight effects by each; in a Latin square each pair meets once."""
    rng = np.random.default_rng(seed)
    subj, item, condition = (a.ravel() for a in np.indices((subjects, items, 8)))
    if latin:
        shown = condition == (subj + item) % 8
        subj, item, condition = subj[shown], item[shown], condition[shown]
    s, p, c = (2.0 * ((condition >> bit) & 1) - 1.0 for bit in range(3))
    columns = dict(zip(CONTRASTS, (s, p, c, s * p, s * c, p * c, s * p * c), strict=True))
    z = np.column_stack([np.ones(len(s)), *columns.values()])
    beta = np.array([20.0, -0.7, -3.3, 0.8, 0.2, -0.3, 0.05, -0.2])
    by_subject = random_effects(rng, subjects, 8, rank, 0.5) * np.array([4.0] + [1.0] * 7)
    by_item = random_effects(rng, items, 8, rank, 0.5) * np.array([4.0] + [1.0] * 7)
    y = z @ beta + (z * by_subject[subj]).sum(1) + (z * by_item[item]).sum(1) + rng.normal(size=len(s))
    return pd.DataFrame({"y": y, **columns, "subj": subj, "item": item})


def visits(subjects: int, seed: int) -> pd.DataFrame:
    """The design of a small trial with repeated measures: treatment between, three visits within subjects."""
    subject, visit = (a.ravel() for a in np.indices((subjects, 3)))
    rng = np.random.default_rng(seed)
    y = rng.normal(size=subjects)[subject] + rng.normal(size=len(subject))
    return pd.DataFrame({"y": y, "treated": subject % 2, "visit": visit, "subject": subject})


def visit_responses(frame: pd.DataFrame, count: int, seed: int) -> Floats:
    """`count` responses (n x count), each with a between-subject sd of its own, a tenth of them zero."""
    rng = np.random.default_rng(seed)
    subject = frame["subject"].to_numpy().astype(int)
    sd = rng.gamma(2.0, 0.4, count) * (rng.random(count) > 0.1)
    effect = rng.normal(size=(subject.max() + 1, count)) * sd
    slope = frame["visit"].to_numpy(dtype=float)[:, None] * rng.normal(0, 0.3, count)
    return np.asarray(effect[subject] + slope + rng.normal(size=(len(frame), count)))


def sleepstudy_responses(frame: pd.DataFrame, count: int, seed: int) -> Floats:
    """Parametric bootstrap responses from the REML fit of Reaction ~ Days + (Days | Subject)."""
    rng = np.random.default_rng(seed)
    days = frame["Days"].to_numpy(dtype=float)[:, None]
    code = frame["Subject"].astype("category").cat.codes.to_numpy()
    sigma, theta = 25.591796, (0.96674177, 0.01516906, 0.23090995)
    root = sigma * np.array([[theta[0], 0.0], [theta[1], theta[2]]])
    u = rng.normal(size=(code.max() + 1, count, 2)) @ root.T
    y = 251.405105 + 10.467286 * days + u[code, :, 0] + u[code, :, 1] * days
    return np.asarray(y + sigma * rng.normal(size=y.shape))
