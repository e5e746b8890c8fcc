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
from PIL import Image  # matplotlib needs it anyway

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


def cross_validation_groups() -> Figure:
    """What partial pooling gains on counties of each size."""
    radon = ml.Model("log_radon ~ floor + (1 | county)", ml.load("radon"))
    result = ml.cross_validate({"partial pooling": radon}, baselines=True, seed=1)
    figure: Figure = result.plot("groups")[0].figure
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


def _noun_rows() -> Any:
    """Words of the definitions to train on."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    nouns = ml.load("wordnet")
    return TfidfVectorizer(sublinear_tf=True, min_df=2).fit_transform(nouns.loc[nouns["part"] == "train", "gloss"])


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


def _sleep() -> ml.Fit:
    return ml.lmer("Reaction ~ Days + (Days | Subject)", ml.load("sleepstudy"))


def article_sleep_groups() -> Figure:
    """Data and lines of each subject."""
    figure: Figure = np.ravel(_sleep().plot.groups())[0].figure
    return figure


def article_sleep_profile() -> Figure:
    """Profiles of all parameters."""
    figure: Figure = np.ravel(_sleep().plot.profile())[0].figure
    return figure


def article_sleep_shrinkage() -> Figure:
    """Own and partially pooled coefficients of each subject."""
    axes = _sleep().plot.shrinkage()
    figure: Figure = axes.figure
    handles, labels = axes.get_legend_handles_labels()
    axes.get_legend().remove()  # it hides the points in the middle
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def article_sleep_forecast() -> Figure:
    """Forecasts for a subject who was not fitted, after none, two, four and seven days."""
    from matplotlib import pyplot as plt

    sleep = ml.load("sleepstudy")
    driver = sleep[sleep["Subject"] == "337"]
    without = ml.lmer("Reaction ~ Days + (Days | Subject)", sleep[sleep["Subject"] != "337"])
    figure, panels = plt.subplots(1, 4, figsize=(10.5, 3.2), sharey=True, layout="constrained")
    for ax, days in zip(panels, (0, 2, 4, 7), strict=True):
        start, rest = driver[driver["Days"] < days], driver[driver["Days"] >= days]
        known = without.condition(start) if days else without
        p = known.predict(rest, interval="prediction", **({} if days else {"new_levels": "population"}))
        ax.fill_between(
            rest["Days"], p["conf_low"], p["conf_high"], color="#56B4E9", alpha=0.3, label="95 % of new days"
        )
        ax.plot(rest["Days"], p["prediction"], color="#0072B2", label="forecast")
        ax.plot(start["Days"], start["Reaction"], "o", color="black", markersize=4, label="known by then")
        ax.plot(rest["Days"], rest["Reaction"], "o", color="#8a8a8a", mfc="white", markersize=4, label="came later")
        ax.set(title=f"after {days} days" if days else "before the first day", xlabel="Days", xticks=[0, 3, 6, 9])
    panels[0].set_ylabel("Reaction (ms), subject 337")
    handles, labels = panels[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def started_groups() -> Figure:
    """Nine children with their own lines."""
    jaws = ml.load("orthodont").assign(age11=lambda d: d["age"] - 11)
    fit = ml.lmer("distance ~ age11 * Sex + (age11 | Subject)", jaws)
    children = ["M10", "M09", "M13", "M01", "M16", "F11", "F01", "F06", "F10"]
    figure: Figure = np.ravel(fit.plot.groups(levels=children))[0].figure
    return figure


def radon_shrinkage() -> Figure:
    """Means of counties, each alone and partially pooled."""
    figure: Figure = np.ravel(ml.lmer("log_radon_p01 ~ 1 + (1 | county)", ml.load("radon")).plot.shrinkage())[0].figure
    return figure


def article_taxonomy_sizes() -> Figure:
    """Log-loss of the flat classifier and the tree, by size of class and with fewer items to train on."""
    from matplotlib import pyplot as plt

    from multilevel.taxonomy import metrics

    nouns = ml.load("wordnet")
    train = nouns[nouns["part"] == "train"]
    labels, path = train[["domain", "kind"]], (train["domain"] + "/" + train["kind"]).to_numpy()
    tree, new, truth = _nouns()
    rows, place = _noun_rows(), train.groupby(["domain", "kind"]).cumcount().to_numpy()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained", sharey=True)
    looks = {
        "no pooling (flat)": ("#009E73", "o", None),
        "partial pooling (tree)": ("#0072B2", "D", ["domain", "kind"]),
    }
    for name, (colour, marker, levels) in looks.items():
        losses = []
        for most in (3, 6, 12, 25, 100):
            kept = np.flatnonzero(place < most)
            given = labels.iloc[kept] if levels else path[kept]
            p = ml.TaxonomyClassifier(levels=levels).fit(rows[kept], given).predict_proba(new)
            losses.append(metrics.log_loss(tree, truth, p))
        by_size = metrics.small_classes(tree, truth, p, labels, edges=[5, 10, 20, 50])
        left.plot(by_size["training_items"], by_size["log_loss"], marker=marker, color=colour, label=name)
        right.plot(["3", "6", "12", "25", "all"], losses, marker=marker, color=colour)
    left.set(xlabel="items of the class to train on", ylabel="log-loss of the kind (less is better)")
    right.set(xlabel="most items of each class to train on")
    left.legend(frameon=False)
    return figure


def article_taxonomy_tree() -> Figure:
    """The tree with the probabilities of a definition that stays at its domain."""
    model, rows, _ = _nouns()
    figure: Figure = model.plot_tree(rows[[660]]).figure
    return figure


def article_means_funnel() -> Figure:
    """Own and partially pooled means of counties by their number of houses."""
    from matplotlib import pyplot as plt

    found = ml.pooling("log_radon_p01 ~ 1", "county", ml.load("radon"))
    table, typical = found.frame, float(found.partial.fixef()["estimate"].iloc[0])
    figure, panels = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained", sharey=True)
    for ax, kind, title, colour in zip(
        panels, ("no", "partial"), ("own means", "partially pooled"), ("#009E73", "#0072B2"), strict=True
    ):
        ax.errorbar(
            table["n"], table[kind], yerr=(table[f"{kind}_conf_high"] - table[f"{kind}_conf_low"]) / 2,
            fmt="none", ecolor="#c8c8c8", elinewidth=0.8,
        )  # fmt: skip
        ax.plot(table["n"], table[kind], "o", color=colour, markersize=4)
        ax.axhline(typical, color="#D55E00", linestyle="--", linewidth=1, label="typical county")
        ax.set(
            title=f"{title}, 95 % intervals",
            xscale="log",
            xlabel="houses in the county",
            xticks=[1, 2, 5, 10, 20, 50, 100],
        )
        ax.set_xticklabels(["1", "2", "5", "10", "20", "50", "100"])
        ax.minorticks_off()
    panels[0].set_ylabel("log radon")
    panels[1].legend(frameon=False, loc="upper right")
    return figure


def article_means_batters() -> Figure:
    """First 45 at-bats, drawn in, and the rest of the season (Efron & Morris 1975)."""
    from matplotlib import pyplot as plt

    first = np.array([18, 17, 16, 15, 14, 14, 13, 12, 11, 11, 10, 10, 10, 10, 10, 9, 8, 7]) / 45
    rest = np.array([346, 298, 276, 222, 273, 270, 263, 210, 269, 230, 264, 256, 303, 264, 226, 285, 316, 200]) / 1000
    mean = first.mean()
    share = 1 - 15 * mean * (1 - mean) / 45 / ((first - mean) ** 2).sum()
    figure, ax = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    named = {0: "Clemente", 14: "Rodriguez", 16: "Munson"}
    for k, row in enumerate(np.column_stack([first, mean + share * (first - mean), rest])):
        colour = "#D55E00" if k in named else "#8a8a8a"
        ax.plot(
            [0, 1, 2],
            row,
            "-o",
            color=colour,
            markersize=3.5,
            linewidth=1.6 if k in named else 0.8,
            zorder=3 if k in named else 2,
        )
        if k in named:
            ax.annotate(
                named[k], (2, row[2]), xytext=(6, 0), textcoords="offset points", va="center", fontsize=9, color=colour
            )
    ax.set(xticks=[0, 1, 2], xlim=(-0.15, 2.45), ylabel="batting average")
    ax.set_xticklabels(["first 45 at-bats", "drawn in", "rest of the season"])
    return figure


def article_means_rats() -> Figure:
    """Own and partially pooled shares of rats with tumours."""
    from matplotlib import pyplot as plt

    rats = ml.load("tumors")
    rats["group"] = np.arange(len(rats))
    found = ml.pooling("y | trials(K) ~ 1", "group", rats, family="binomial", method="sample", seed=1)
    partial = found.predict(pooling="partial", interval="confidence")
    figure, ax = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    own, nudge = rats["y"] / rats["K"], np.random.default_rng(1).uniform(-0.004, 0.004, len(rats))
    ends = [partial["prediction"] - partial["conf_low"], partial["conf_high"] - partial["prediction"]]
    ax.errorbar(own + nudge, partial["prediction"], yerr=ends, fmt="none", ecolor="#c8c8c8", elinewidth=0.8)
    marks = ax.scatter(own + nudge, partial["prediction"], s=14, c=rats["K"], cmap="viridis", zorder=3)
    ax.plot([0, 0.4], [0, 0.4], color="#009E73", linestyle=":", label="no pooling")
    ax.axhline(
        rats["y"].sum() / rats["K"].sum(), color="#D55E00", linestyle="--", linewidth=1, label="complete pooling"
    )
    ax.set(xlabel="own share of the group, y / K", ylabel="partially pooled, 95 % interval")
    figure.colorbar(marks, label="rats in the group, K")
    ax.legend(frameon=False, loc="upper left")
    return figure


def _school_posterior() -> Posterior:
    """The posterior of docs/article-ten-schools.md."""
    priors = {"Intercept": ml.Normal(50, 10), "homework": ml.Normal(0, 5), "sd(schid, Intercept)": ml.HalfNormal(10)}
    priors |= {"sd(schid, homework)": ml.HalfNormal(5), "cor": ml.LKJ(2)}
    return ml.Model("math ~ homework + (homework | schid)", ml.load("math10"), priors=priors).sample(seed=1)


def article_schools_lines() -> Figure:
    """Three ways of pooling, school by school."""
    figure: Figure = np.ravel(ml.pooling("math ~ homework", "schid", ml.load("math10")).plot())[0].figure
    return figure


def article_schools_trace() -> Figure:
    """Densities of four groups of draws."""
    figure: Figure = np.ravel(_school_posterior().plot.trace())[0].figure
    return figure


def article_schools_predictive() -> Figure:
    """Scores observed and scores simulated."""
    figure: Figure = np.ravel(_school_posterior().plot.predictive(seed=1))[0].figure
    return figure


def article_schools_cv() -> Figure:
    """Joint log scores of schools left out."""
    fit = ml.lmer("math ~ homework + (homework | schid)", ml.load("math10"))
    found = ml.cross_validate({"partial pooling": fit}, leave="groups", baselines=True, seed=1)
    figure: Figure = np.ravel(found.plot("groups"))[0].figure
    return figure


def radon_pooling() -> Figure:
    """Intercepts of counties by complete, no and partial pooling."""
    found = ml.pooling("log_radon ~ floor", "county", ml.load("radon"), vary="1")
    figure: Figure = found.plot("coefficients").figure
    return figure


PICTURES: dict[str, Callable[[], Figure]] = {
    "ten_schools.png": ten_schools,
    "owls_check.png": owls_check,
    "herds.png": herds,
    "cross_validation_groups.png": cross_validation_groups,
    "started_groups.png": started_groups,
    "radon_shrinkage.png": radon_shrinkage,
    "radon_pooling.png": radon_pooling,
    "ticks_effects.png": ticks_effects,
    "posterior_forest.png": posterior_forest,
    "posterior_groups.png": posterior_groups,
    "posterior_trace.png": posterior_trace,
    "taxonomy_tree.png": taxonomy_tree,
    "taxonomy_confusion.png": taxonomy_confusion,
    "taxonomy_risk.png": taxonomy_risk,
    "article_sleep_groups.png": article_sleep_groups,
    "article_sleep_profile.png": article_sleep_profile,
    "article_sleep_shrinkage.png": article_sleep_shrinkage,
    "article_sleep_forecast.png": article_sleep_forecast,
    "article_taxonomy_sizes.png": article_taxonomy_sizes,
    "article_taxonomy_tree.png": article_taxonomy_tree,
    "article_means_funnel.png": article_means_funnel,
    "article_means_batters.png": article_means_batters,
    "article_means_rats.png": article_means_rats,
    "article_schools_lines.png": article_schools_lines,
    "article_schools_trace.png": article_schools_trace,
    "article_schools_predictive.png": article_schools_predictive,
    "article_schools_cv.png": article_schools_cv,
}


def main() -> None:
    """Write every picture into a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder to write to (default: docs/images)")
    parser.add_argument("--only", default="", help="names that begin so, such as article_ (default: all)")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        if name.startswith(given.only):
            write(draw(), given.out / name)
            print(given.out / name)


def write(figure: Figure, path: Path) -> None:
    """Save a picture; those of articles with 128 colours, which halves them."""
    # no date or version inside, so that the same picture is the same file
    figure.savefig(path, dpi=110, metadata={"Software": None})
    if path.name.startswith("article_"):
        with Image.open(path) as full:
            small = full.convert("RGB").quantize(128)
        small.save(path, optimize=True)


if __name__ == "__main__":
    main()
