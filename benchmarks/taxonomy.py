"""Classification into a taxonomy: ours, flat logistic regression and HiClass, each tuned, on the same splits.

    python taxonomy.py amazon  --data amazon_products_10k.parquet   # 6/64 titles; --three: 6/64/360
    python taxonomy.py wordnet --data wordnet_nouns.parquet         # 19/170 glosses
    python taxonomy.py speed   --data wordnet_nouns.parquet         # one evaluation; fits against scikit-learn
    python taxonomy.py deep    --data wordnet_nouns.parquet         # thousands of leaves: memory

Neither data set comes with this repository: the titles have no stated licence, the glosses are large (a slice is in tests/).
Peers: scikit-learn, hiclass. Results go to results/taxonomy_*.json; taxonomy_table.py writes them into README.md.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from multilevel.taxonomy.estimator import TaxonomyClassifier

RESULTS = Path(__file__).parent / "results"
CS = (3.0, 10.0, 30.0, 100.0, 300.0)


def amazon(path: str, three: bool) -> tuple[list[str], np.ndarray]:
    """Distinct titles, leaves with at least two of them."""
    data = pd.read_parquet(path)
    levels = ["cat1", "cat2"] + (["cat3"] if three else [])
    data = data[["title", *levels]].dropna()
    data = data.drop_duplicates("title")
    data = data[data.groupby(levels).title.transform("size") >= 2]
    return data.title.tolist(), data[levels].to_numpy(dtype=object)


def split(y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """70 / 30 within each class, at least one item on each side."""
    generator = np.random.default_rng(seed)
    train, test = [], []
    for _, rows in pd.Series(range(len(y))).groupby(["\t".join(map(str, row)) for row in y]):
        order = generator.permutation(rows.to_numpy())
        cut = min(max(1, round(0.7 * len(order))), len(order) - 1)
        train += order[:cut].tolist()
        test += order[cut:].tolist()
    return np.array(sorted(train)), np.array(sorted(test))


def features(texts: list[str], train: np.ndarray, test: np.ndarray, **options: Any) -> tuple[Any, Any]:
    vectorizer = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2, **options)
    return vectorizer.fit_transform([texts[i] for i in train]), vectorizer.transform([texts[i] for i in test])


def with_characters(
    x: Any, x_test: Any, texts: list[str], train: np.ndarray, test: np.ndarray
) -> tuple[Any, Any, list[str]]:
    """Three to five characters of words beside the words, as a feature group of its own; rows keep their length."""
    vectorizer = TfidfVectorizer(sublinear_tf=True, analyzer="char_wb", ngram_range=(3, 5), min_df=3)
    more, more_test = (
        vectorizer.fit_transform([texts[i] for i in train]),
        vectorizer.transform([texts[i] for i in test]),
    )
    groups = ["words"] * x.shape[1] + ["characters"] * more.shape[1]
    return sp.hstack([x, more]).tocsr() * 0.5**0.5, sp.hstack([x_test, more_test]).tocsr() * 0.5**0.5, groups


def joined(y: np.ndarray) -> np.ndarray:
    return np.array(["/".join(str(part) for part in row if part) for row in y])


# ---- engines: each gives leaf probabilities of test rows, columns the sorted joined paths of the training classes -------


def ours(x: Any, y: np.ndarray, test: Any, **options: Any) -> tuple[np.ndarray, dict[str, Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = TaxonomyClassifier(separator="/", **options).fit(x, joined(y))
    names = ["/".join(str(part) for part in model.tree_.paths[leaf]) for leaf in model.tree_.leaves]
    return model.predict_proba(test)[:, np.argsort(names)], {
        "scales": model.scales_,
        "steps": len(model.scale_profile_),
    }


def hold_out(y: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    held = np.zeros(len(y), dtype=bool)
    for _, rows in pd.Series(range(len(y))).groupby(y):
        order = generator.permutation(rows.to_numpy())
        held[order[: min(round(0.2 * len(order)), len(order) - 1)]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def tuned_c(fit: Callable[[float], Any], loss: Callable[[Any], float]) -> float:
    return float(min(CS, key=lambda c: loss(fit(c))))


def log_loss(p: np.ndarray, columns: np.ndarray, y: np.ndarray) -> float:
    place = {label: k for k, label in enumerate(columns)}
    own = np.array([p[i, place[label]] if label in place else 0.0 for i, label in enumerate(y)])
    return float(-np.log(np.clip(own, 1e-15, 1)).mean())


def logistic(c: float, x: Any, y: np.ndarray) -> LogisticRegression:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return LogisticRegression(C=c, max_iter=1000).fit(x, y)


def flat(x: Any, y: np.ndarray, test: Any) -> tuple[np.ndarray, dict[str, Any]]:
    labels = joined(y)
    fit, held = hold_out(labels)

    def loss(model: LogisticRegression) -> float:
        return log_loss(model.predict_proba(x[held]), model.classes_, labels[held])

    c = tuned_c(lambda c: logistic(c, x[fit], labels[fit]), loss)
    model = logistic(c, x, labels)
    return model.predict_proba(test), {"C": c}


class PerParent:
    """HiClass's LocalClassifierPerParentNode with exact products of its local probabilities (its own depend on the batch)."""

    def __init__(self, c: float) -> None:
        from hiclass import LocalClassifierPerParentNode

        self.model = LocalClassifierPerParentNode(local_classifier=LogisticRegression(C=c, max_iter=1000))

    def fit(self, x: Any, y: np.ndarray) -> PerParent:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.model.fit(x, y.astype(str))
        return self

    def probabilities(self, x: Any) -> tuple[np.ndarray, np.ndarray]:
        graph, separator = self.model.hierarchy_, self.model.separator_
        found = {self.model.root_: np.ones(x.shape[0])}
        waiting = [self.model.root_]
        leaves = []
        while waiting:
            node = waiting.pop()
            children = list(graph.successors(node))
            if not children:
                leaves.append(node)
                continue
            local = graph.nodes[node]["classifier"]
            if len(children) == 1:
                given = np.ones((x.shape[0], 1))
                order = children
            else:
                given = local.predict_proba(x)
                order = [str(label) for label in local.classes_]
            for k, child in enumerate(order):
                found[child] = found[node] * given[:, k]
                waiting.append(child)
        names = np.array([leaf.replace(separator, "/") for leaf in leaves])
        order = np.argsort(names)
        return np.column_stack([found[leaves[k]] for k in order]), names[order]


def hiclass(x: Any, y: np.ndarray, test: Any) -> tuple[np.ndarray, dict[str, Any]]:
    labels = joined(y)
    fit, held = hold_out(labels)

    def loss(model: PerParent) -> float:
        p, names = model.probabilities(x[held])
        return log_loss(p, names, labels[held])

    c = tuned_c(lambda c: PerParent(c).fit(x[fit], y[fit]), loss)
    return PerParent(c).fit(x, y).probabilities(test)[0], {"C": c}


# ---- scores ---------------------------------------------------------------------------------------------------------


def scores(p: np.ndarray, y_train: np.ndarray, y_test: np.ndarray) -> dict[str, float]:
    names = np.unique(joined(y_train))
    truth = np.array([np.searchsorted(names, label) for label in joined(y_test)])
    counts = np.bincount(np.searchsorted(names, joined(y_train)), minlength=len(names))
    parent_names = np.array([name.split("/")[0] for name in names])
    parents = np.unique(parent_names)
    member = (parent_names[:, None] == parents[None]).astype(float)
    parent_p, parent_truth = p @ member, np.searchsorted(parents, parent_names[truth])
    small = counts[truth] < 10
    own = np.clip(p[np.arange(len(p)), truth], 1e-15, 1)
    shares = counts / counts.sum()
    weighed = p * shares**-0.75
    even = p / shares
    return {
        "accuracy": float((p.argmax(1) == truth).mean()),
        "macro F1": macro_f1(p.argmax(1), truth),
        "log-loss": float(-np.log(own).mean()),
        "parent accuracy": float((parent_p.argmax(1) == parent_truth).mean()),
        "parent log-loss": float(-np.log(np.clip(parent_p[np.arange(len(p)), parent_truth], 1e-15, 1)).mean()),
        "small log-loss": float(-np.log(own[small]).mean()),
        "macro F1, prior 0.75": macro_f1(weighed.argmax(1), truth),
        "small recall, prior 1": float((even.argmax(1) == truth)[small].mean()),
    }


def macro_f1(predicted: np.ndarray, truth: np.ndarray) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(truth, predicted, average="macro", zero_division=0))


def compare(texts: list[str], y: np.ndarray, seeds: range, engines: dict[str, Any], **options: Any) -> pd.DataFrame:
    rows = []
    for seed in seeds:
        train, test = split(y, seed)
        x, x_test = features(texts, train, test, **options)
        for name, engine in engines.items():
            if name == "characters":
                wide, wide_test, groups = with_characters(x, x_test, texts, train, test)
                began = time.perf_counter()
                p, more = engine(wide, y[train], wide_test, feature_groups=groups)
            else:
                began = time.perf_counter()
                p, more = engine(x, y[train], x_test)
            seconds = time.perf_counter() - began
            rows.append({"split": seed, "engine": name, **scores(p, y[train], y[test]), "seconds": seconds})
            print(seed, name, {k: round(v, 4) for k, v in rows[-1].items() if isinstance(v, float)}, more, flush=True)
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["amazon", "wordnet", "speed", "deep"])
    parser.add_argument("--data", required=True)
    parser.add_argument("--three", action="store_true")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--engines", nargs="*", default=["multilevel", "characters", "flat", "hiclass"])
    arguments = parser.parse_args()
    if arguments.what in ("speed", "deep"):
        import taxonomy_speed

        found: Any = getattr(taxonomy_speed, arguments.what)(arguments.data)
        name = f"taxonomy_{arguments.what}"
    else:
        engines = {
            name: {"multilevel": ours, "characters": ours, "flat": flat, "hiclass": hiclass}[name]
            for name in arguments.engines
        }
        texts, y = amazon(arguments.data, arguments.three) if arguments.what == "amazon" else glosses(arguments.data)
        print(len(texts), "texts,", len(np.unique(joined(y))), "leaves")
        table = compare(texts, y, range(arguments.splits), engines)
        print(table.drop(columns="split").groupby("engine", sort=False).mean().round(4).T)
        found = table.to_dict("records")
        name = f"taxonomy_{arguments.what}{'_three' if arguments.three else ''}"
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    if isinstance(found, list) and path.exists():  # engines that were not run now keep their rows
        found = [row for row in json.loads(path.read_text()) if row["engine"] not in arguments.engines] + found
    path.write_text(json.dumps(found, indent=1) + "\n")


def glosses(path: str) -> tuple[list[str], np.ndarray]:
    """Glosses of nouns in classes thinned to 3 to 100 %, as in the specification."""
    data = pd.read_parquet(path).drop_duplicates("gloss")
    generator = np.random.default_rng(1)
    share = {name: float(np.exp(generator.uniform(np.log(0.03), 0))) for name in sorted(data.level2.unique())}
    kept = data[generator.random(len(data)) < data.level2.map(share)]
    kept = kept[kept.groupby("level2").gloss.transform("size") >= 2]
    return kept.gloss.tolist(), kept[["level1", "level2"]].to_numpy(dtype=object)


if __name__ == "__main__":
    main()
