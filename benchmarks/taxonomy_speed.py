"""Seconds of the tree softmax: one value with gradient, whole fits, and fits to equal objective against scikit-learn."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from multilevel.taxonomy.objective import Objective, sparse_rows
from multilevel.taxonomy.tree import Taxonomy

REPEATS = 7


def median_seconds(body: Any, repeats: int = REPEATS) -> float:
    body()
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        body()
        found.append(time.perf_counter() - began)
    return float(np.median(found))


def speed(path: str) -> dict[str, float]:
    data = pd.read_parquet(path)
    x = sparse_rows(TfidfVectorizer(sublinear_tf=True, min_df=2).fit_transform(data.gloss), np.float32)
    tree = Taxonomy.from_paths(set(zip(data.level1, data.level2, strict=True)))
    nodes = tree.nodes_of(data[["level1", "level2"]])
    print(x.shape, x.nnz, "entries;", tree)
    out = {}
    w = np.random.default_rng(0).normal(0, 0.1, (x.shape[1] + 1, len(tree))).astype(np.float32)
    scales = np.full((2, len(tree)), 5.0)
    for threads in (1, 2):
        objective = Objective(tree, x, nodes, np.ones(len(nodes)), threads=threads)
        out[f"value and gradient, {threads} threads"] = median_seconds(lambda o=objective: o.gradient(w, scales))
        objective.value(w, scales)
        out[f"Hessian product, {threads} threads"] = median_seconds(lambda o=objective: o.product(w, scales))
    out |= equal_objective(x[:10000], data.level2.to_numpy()[:10000])
    for name, value in out.items():
        print(f"{name}: {value:.4g}")
    return out


def equal_objective(x: Any, labels: np.ndarray, c: float = 25.0) -> dict[str, float]:
    """Seconds to a flat ridge's objective: scikit-learn's own end, and ours to no worse a value."""
    classes, codes = np.unique(labels, return_inverse=True)
    x64 = x.astype(np.float64)

    def objective(coefficients: np.ndarray, intercepts: np.ndarray) -> float:
        z = x64 @ coefficients.T + intercepts
        z -= z.max(axis=1, keepdims=True)
        own = z[np.arange(len(codes)), codes] - np.log(np.exp(z).sum(axis=1))
        return float(-own.sum() + 0.5 / c * np.sum(coefficients**2))

    began = time.perf_counter()
    model = LogisticRegression(C=c, max_iter=1000).fit(x64, labels)
    theirs_seconds = time.perf_counter() - began
    theirs = objective(model.coef_, model.intercept_)
    tree = Taxonomy([str(name) for name in classes], [-1] * len(classes))
    scales = np.vstack([np.full(len(tree), np.sqrt(c)), np.full(len(tree), 100.0)])
    out = {"flat fit, scikit-learn": theirs_seconds, "objective, scikit-learn": theirs}
    for threads in (1, 2):
        for gap in 10.0 ** -np.arange(0.0, 8.0):
            began = time.perf_counter()
            fit = Objective(tree, x, codes.astype(np.int32), np.ones(len(codes)), threads=threads)
            found = fit.minimise(fit.start(), scales, gap * len(codes), 1000)
            seconds = time.perf_counter() - began
            deviations = found.w.astype(np.float64) * np.vstack([np.repeat(scales[:1], x.shape[1], axis=0), scales[1:]])
            ours = objective(deviations[:-1].T, deviations[-1])
            if ours <= theirs * (1 + 1e-6):
                break
        out[f"flat fit to the same objective, {threads} threads"] = seconds
        out[f"objective, {threads} threads"] = ours
        out[f"evaluations, {threads} threads"] = found.evaluations
    return out


def deep(path: str) -> dict[str, float]:
    """WordNet to depth 12, each node with glosses of its own a class: peak memory of fit and of probabilities."""
    import resource

    from multilevel.taxonomy.estimator import TaxonomyClassifier

    data = pd.read_parquet(path)
    paths = [tuple(text.split(" > ")[:12]) for text in data.hypernym_path]
    inner = {one[:k] for one in set(paths) for k in range(1, len(one))}
    labels = [(*one, "itself") if one in inner else one for one in paths]
    x = TfidfVectorizer(sublinear_tf=True, min_df=2, dtype=np.float32).fit_transform(data.gloss)
    began = time.perf_counter()
    model = TaxonomyClassifier(likelihood="nested", scales="fixed").fit(x, labels)
    out = {"leaves": len(model.tree_.leaves), "fit, s": time.perf_counter() - began}
    began = time.perf_counter()
    model.predict(x[:5000], level=4)
    out["5,000 predictions at level 4, s"] = time.perf_counter() - began
    out["peak memory, GB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    for name, value in out.items():
        print(f"{name}: {value:.4g}")
    return out
