"""Make the pictures of README.md and docs/ from bundled data: ``python docs/make_images.py``.

Needs the extras "plots" and "classify". Each picture is remade in place, so that `git diff --stat docs/images` shows
what changed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("Agg")  # no screen needed

import numpy as np

import multilevel as ml

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from multilevel.posterior import Posterior

IMAGES = Path(__file__).resolve().parent / "images"


def ten_schools() -> Figure:
    """Data, pooled, unpooled and partially pooled lines of each school."""
    fit = ml.lmer("math ~ homework + (homework | schid)", ml.load("math10"))
    figure: Figure = np.ravel(fit.plot.groups())[0].figure
    return figure


def owls_check() -> Figure:
    """Checks of a zero-inflated model of counts."""
    formula = "SiblingNegotiation ~ FoodTreatment * SexParent + offset(log(BroodSize)) + (1 | Nest)"
    fit = ml.Model(formula, ml.load("owls"), family="nbinom2", zi="~ FoodTreatment").fit()
    figure: Figure = fit.plot.check()[0].figure
    return figure


def herds() -> Figure:
    """Shares of each herd with pooled, unpooled and partially pooled ones."""
    fit = ml.Model("cbind(incidence, size - incidence) ~ period + (1 | herd)", ml.load("cbpp"), family="binomial").fit()
    figure: Figure = fit.plot.groups()[0].figure
    return figure


def ticks_effects() -> Figure:
    """Mean counts along each predictor."""
    ticks = ml.load("grouseticks")
    ticks["YEAR"] = ticks["YEAR"].astype("category")
    fit = ml.Model("TICKS ~ YEAR + cHEIGHT + (1 | BROOD) + (1 | LOCATION)", ticks, family="nbinom2").fit()
    figure: Figure = fit.plot.effects(points=True)[0].figure
    return figure


def _posterior() -> Posterior:
    return ml.Model("math ~ homework + (homework | schid)", ml.load("math10")).sample(seed=1)


def posterior_forest() -> Figure:
    """Posterior densities of the coefficients of each school."""
    figure: Figure = _posterior().plot.forest()[0].figure
    return figure


def posterior_groups() -> Figure:
    """Lines of single draws over the data of each school."""
    figure: Figure = np.ravel(_posterior().plot.groups())[0].figure
    return figure


def posterior_trace() -> Figure:
    """Draws of each chain."""
    figure: Figure = np.ravel(_posterior().plot.trace())[0].figure
    return figure


def _nouns() -> tuple[ml.TaxonomyClassifier, Any, pd.DataFrame]:
    """The classifier of docs/taxonomy.md, the rows to test and their labels."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    nouns = ml.load("wordnet")
    train, test = nouns[nouns["part"] == "train"], nouns[nouns["part"] == "test"]
    vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=2)
    rows = vectorizer.fit_transform(train["gloss"])
    model = ml.TaxonomyClassifier(levels=["domain", "kind"]).fit(rows, train[["domain", "kind"]])
    return model, vectorizer.transform(test["gloss"]), test[["domain", "kind"]]


def taxonomy_tree() -> Figure:
    """The tree with the probabilities of one definition."""
    model, rows, _ = _nouns()
    figure: Figure = model.plot_tree(rows[[109]]).figure
    return figure


def taxonomy_confusion() -> Figure:
    """True against predicted domains."""
    model, rows, labels = _nouns()
    figure: Figure = model.plot_confusion(rows, labels, level="domain").figure
    return figure


def taxonomy_risk() -> Figure:
    """Share of errors as the least sure definitions are left out."""
    model, rows, labels = _nouns()
    figure: Figure = model.plot_risk_coverage(rows, labels).figure
    return figure


PICTURES: dict[str, Callable[[], Figure]] = {
    "ten_schools.png": ten_schools,
    "owls_check.png": owls_check,
    "herds.png": herds,
    "ticks_effects.png": ticks_effects,
    "posterior_forest.png": posterior_forest,
    "posterior_groups.png": posterior_groups,
    "posterior_trace.png": posterior_trace,
    "taxonomy_tree.png": taxonomy_tree,
    "taxonomy_confusion.png": taxonomy_confusion,
    "taxonomy_risk.png": taxonomy_risk,
}


def main() -> None:
    """Write every picture into a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder to write to (default: docs/images)")
    folder: Path = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        # no date or version inside, so that the same picture is the same file
        draw().savefig(folder / name, dpi=110, metadata={"Software": None})
        print(folder / name)


if __name__ == "__main__":
    main()
