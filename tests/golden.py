"""Stored reference fits by R's lme4 (files in `golden/`), in one typed shape and in this library's names.

R's coefficient and group names are translated (`recipeB` -> `recipe[T.B]`, `cask:batch` -> `batch:cask`); the
order of coefficients, terms and theta stays lme4's: terms by decreasing number of levels. A `||` term of lme4 is
one `Term` for each of its parts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from multilevel.datasets import load

Array = NDArray[np.float64]
FOLDER = Path(__file__).parent / "golden"

# lme4's || leaves the columns of a factor correlated, this library's does not: lme4's model is spelled out.
_OURS = {"score ~ Machine + (Machine || Worker)": "score ~ Machine + (1 | Worker) + (0 + Machine | Worker)"}
# Only the sum of the two covariances is identified there: compare criterion, fixed effects, sigma, not theta.
_UNIDENTIFIED = {("machines_worker", "REML_double_bar_factor")}
_AS_CHARACTER = {"oxboys_quadratic": "Subject", "orthodont_growth": "Subject", "machines_worker": "Worker"}
_POLY = {".L", ".Q", ".C"}


@dataclass(frozen=True)
class Term:
    """One random term of a reference fit: covariance, and conditional modes of the stored levels."""

    group: str  # "batch:cask", in this library's order
    names: tuple[str, ...]  # effect names, "Intercept", "Machine[A]"
    lambda_: Array  # (k, k) lower-triangular relative factor: Cov(b) = sigma^2 lambda lambda'
    sd: Array  # (k,)
    corr: Array  # (k, k)
    cov: Array  # (k, k)
    n_levels: int
    levels: tuple[str, ...]  # the stored ones: all of them up to 80, else about ten
    modes: Array  # (levels, k)
    cond_cov: Array  # (levels, k, k), Var(b | y, beta-hat)
    sum_of_squares: Array  # (k,) of the modes over all levels


@dataclass(frozen=True)
class Predictions:
    """Stored predictions for new rows."""

    newdata: pd.DataFrame
    conditional: Array  # with all random effects
    population: Array  # with none
    unseen: pd.DataFrame | None  # rows with levels that the fit has not seen
    unseen_conditional: Array | None  # an unseen level counts as zero, seen ones keep their effect


@dataclass(frozen=True)
class Golden:
    """One reference fit."""

    file: str
    label: str
    data: str  # name of the bundled set
    r_formula: str
    formula: str  # what to type here
    reml: bool
    n: int
    contrasts: dict[str, str] | None
    weights: Array | None
    criterion: float  # REML criterion, or ML deviance: -2 log-likelihood with all constants
    loglik: float
    aic: float
    bic: float
    n_params: int
    names: tuple[str, ...]  # fixed effects, translated, in R's order
    beta: Array
    std_error: Array
    vcov: Array
    sigma: float
    theta: Array  # lme4's order
    terms: tuple[Term, ...]
    singular: bool
    identified: bool
    spread: float  # how far lme4's optimisers disagree, deviance units
    fitted: Array  # first five
    residuals: Array  # first five
    df: Array | None  # Satterthwaite, by lmerTest
    predictions: Predictions | None
    raw: dict[str, Any] = field(repr=False)

    @property
    def id(self) -> str:
        return f"{self.file}-{self.label}"

    def frame(self) -> pd.DataFrame:
        """The data as R had them, derived columns included."""
        return frame(self.file)

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for `Model` beside the formula and the data."""
        given = {"contrasts": self.contrasts, "weights": self.weights}
        return {name: value for name, value in given.items() if value is not None}


def files() -> tuple[str, ...]:
    """Stems of the stored reference files."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.json")))


def fits(*only: str, rows: int | None = None) -> Iterator[Golden]:
    """Every stored fit, or those of the files named; `rows` leaves out larger data sets. Frozen and shared."""
    for file in only or files():
        for label in _labels(file):
            fit = golden(file, label)
            if rows is None or fit.n <= rows:
                yield fit


@cache
def golden(file: str, label: str) -> Golden:
    """One stored fit by file stem and label."""
    raw = next(fit for fit in _read(file)["fits"] if fit["label"] == label)
    factors = _factors(file)
    contrasts = {"recipe": "sum", "temperature": "sum"} if label == "REML_sum_contrasts" else None
    ours = _OURS.get(raw["formula"], raw["formula"])
    fixed = raw["fixed"]
    reml = raw["method"] == "REML"
    return Golden(
        file=file,
        label=label,
        data=_read(file)["dataset"]["file"].split(".")[0],
        r_formula=raw["formula"],
        formula=ours,
        reml=reml,
        n=raw["n_obs"],
        contrasts=contrasts,
        weights=_weights(label, raw["n_obs"]),
        criterion=raw["REML_criterion"] if reml else raw["deviance_ML"],
        loglik=raw["loglik"],
        aic=raw["AIC"],
        bic=raw["BIC"],
        n_params=raw["n_params"],
        names=tuple(translate(name, factors, contrasts) for name in fixed["names"]),
        beta=_array(fixed["estimate"]),
        std_error=_array(fixed["std_error"]),
        vcov=_array(raw["vcov_fixed"]),
        sigma=raw["sigma"],
        theta=_array(list(raw["theta"].values())),
        terms=_terms(raw, factors),
        singular=raw["singular"],
        identified=(file, label) not in _UNIDENTIFIED,
        spread=raw["objective_spread_between_optimizers"],
        fitted=_array(raw["fitted_first5"]),
        residuals=_array(raw["residuals_first5"]),
        df=_array(raw["satterthwaite"]["df"]) if "satterthwaite" in raw else None,
        predictions=_predictions(raw),
        raw=raw,
    )


def theta_to_lambdas(fit: Golden) -> tuple[Array, ...]:
    """Lower-triangular relative factor of each term, in lme4's order of the terms."""
    return lambdas(fit.theta, [len(term.names) for term in fit.terms])


def lambdas(theta: Array, sizes: list[int]) -> tuple[Array, ...]:
    """Split theta (lower triangles, column-major, term after term) into (k, k) factors."""
    result, start = [], 0
    for k in sizes:
        factor = np.zeros((k, k))
        columns, rows = np.triu_indices(k)  # column-major order of a lower triangle
        factor[rows, columns] = theta[start : start + len(rows)]
        result.append(factor)
        start += len(rows)
    if start != len(theta):
        raise ValueError(f"theta has {len(theta)} elements, the terms need {start}")
    return tuple(result)


def frame(file: str) -> pd.DataFrame:
    """The data of one reference file as its R script prepared them; a new frame."""
    data = load(_read(file)["dataset"]["file"].split(".")[0])
    if file in _AS_CHARACTER:  # R: factor(as.character(x)): labels sorted as text, order forgotten
        column = _AS_CHARACTER[file]
        labels = data[column].astype(str)
        data[column] = pd.Categorical(labels, categories=sorted(labels.unique()))
    if file == "math10":
        labels = data["schid"].astype(str)
        data["schid"] = pd.Categorical(labels, categories=sorted(labels.unique(), key=int))
        data["hw_mean"] = data.groupby("schid", observed=True)["homework"].transform("mean")
        data["hw_within"] = data["homework"] - data["hw_mean"]
    return data


def translate(name: str, factors: dict[str, list[str]], contrasts: dict[str, str] | None = None) -> str:
    """R's coefficient name as this library's.

    `factors` holds the levels by column; `contrasts` the columns coded otherwise than by R's default.
    """
    if name == "(Intercept)":
        return "Intercept"
    return ":".join(_translate_part(part, factors, contrasts or {}) for part in name.split(":"))


def matrices(fit: Golden) -> tuple[Array, Array, list[tuple[NDArray[np.intp], Array, int]]]:
    """Response, fixed-effect matrix and (codes, Z, number of levels) per term, in lme4's order of the terms.

    A route of its own: the fixed side through formulaic alone, the bars through a few lines here. Codes follow
    `levels(fit, term)`.
    """
    import formulaic

    data = fit.frame()
    response, right = fit.formula.split(" ~ ")
    bars = re.findall(r"\(([^()|]*(?:\([^()]*\)[^()|]*)*)\|\|?([^()]*)\)", right)
    fixed = re.sub(r"\s*\+\s*\([^|]*?\|[^)]*\)", "", right)
    X = formulaic.model_matrix(_python(fixed, data, fit.contrasts), data)
    names = [re.sub(r"C\((\w+), contr\.\w+\)", r"\1", column) for column in X.columns]
    if tuple(names) != fit.names:
        raise ValueError(f"{fit.id}: formulaic has {names}, the translation {fit.names}")
    made = {}
    for effects, grouping in bars:
        Z = formulaic.model_matrix(_python(effects.strip(), data, None), data)
        for columns in _grouping(grouping.strip()):
            codes, levels = _codes(data, columns)
            for name in Z.columns:
                made[":".join(columns), name] = (codes, Z[name].to_numpy(np.float64), levels)
    terms = []
    for term in fit.terms:
        parts = [made[term.group, name] for name in term.names]
        terms.append((parts[0][0], np.column_stack([part[1] for part in parts]), parts[0][2]))
    return data[response].to_numpy(np.float64), X.to_numpy(np.float64), terms


def levels(fit: Golden, term: Term) -> list[str]:
    """Labels of all levels of a term in the order of their codes: by first grouping column, then second."""
    data = fit.frame()
    columns = term.group.split(":")
    codes, count = _codes(data, tuple(columns))
    first = np.zeros(count, dtype=np.intp)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    return [":".join(data[name].iloc[row] for name in columns) for row in first.tolist()]


def _python(text: str, data: pd.DataFrame, contrasts: dict[str, str] | None) -> str:
    """A fixed side for formulaic: powers, and the contrasts R would use."""
    coded = {str(name): "poly" for name, column in data.items() if getattr(column.dtype, "ordered", False)}
    for name, kind in {**coded, **(contrasts or {})}.items():
        text = re.sub(rf"\b{name}\b", f"C({name}, contr.{kind})", text)
    return text.replace("^", " ** ")


def _grouping(text: str) -> list[tuple[str, ...]]:
    """Columns of each term: `a/b` is a and a:b."""
    if "/" in text:
        outer, inner = text.split("/")
        return [(outer,), (outer, inner)]
    return [tuple(text.split(":"))]


def _codes(data: pd.DataFrame, columns: tuple[str, ...]) -> tuple[NDArray[np.intp], int]:
    """Codes of the combinations observed, in the order of the levels."""
    key = np.zeros(len(data), dtype=np.intp)
    for name in columns:
        part = data[name].cat.codes.to_numpy().astype(np.intp)
        key = key * (part.max() + 1) + part
    levels, codes = np.unique(key, return_inverse=True)
    return codes.astype(np.intp), len(levels)


@cache
def _read(file: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / f"{file}.json").read_text(encoding="utf-8"))
    return content


def _labels(file: str) -> list[str]:
    return [fit["label"] for fit in _read(file)["fits"]]


@cache
def _factors(file: str) -> dict[str, list[str]]:
    data = frame(file)
    return {
        str(name): column.cat.categories.tolist()
        for name, column in data.items()
        if isinstance(column.dtype, pd.CategoricalDtype)
    }


def _array(values: Any) -> Array:
    return np.array(values, dtype=np.float64)


def _weights(label: str, n: int) -> Array | None:
    """The recycled prior weights of sleepstudy's weighted fit."""
    return np.resize([1.0, 2.0, 0.5], n) if "prior_weights_1_2_0.5_recycled" in label else None


def _translate_part(part: str, factors: dict[str, list[str]], contrasts: dict[str, str]) -> str:
    if part.startswith("I("):
        return part.replace("^", " ** ")
    if part.startswith("poly("):
        return re.sub(r"\)(\d+)$", r")[\1]", part)
    for column in sorted(factors, key=len, reverse=True):
        rest = part.removeprefix(column)
        if rest == part or not rest:
            continue
        if contrasts.get(column) == "sum" and rest.isdigit():
            return f"{column}[S.{factors[column][int(rest) - 1]}]"
        if rest in _POLY or rest.startswith("^"):
            return f"{column}[{rest}]"
        if rest in factors[column]:
            return f"{column}[T.{rest}]"
    return part


def _terms(raw: dict[str, Any], factors: dict[str, list[str]]) -> tuple[Term, ...]:
    """Covariances with the modes that belong to them; lme4 pools the modes of several terms on one group."""
    nested = {}  # lme4 writes b:a for a/b, this library a:b
    for outer, inner in re.findall(r"(\w+)/(\w+)", raw["formula"]):
        nested[f"{inner}:{outer}"] = f"{outer}:{inner}"
    modes = {block["group"]: block for block in raw["ranef"]}
    sizes = [len(block["terms"]) for block in raw["random"]]
    used = dict.fromkeys(modes, 0)
    result = []
    for block, factor in zip(raw["random"], lambdas(_array(list(raw["theta"].values())), sizes), strict=True):
        group = re.sub(r"\.\d+$", "", block["group"])
        found, first = modes[group], used[group]
        k = len(block["terms"])
        used[group] += k
        if found["terms"][first : first + k] != block["terms"]:
            raise ValueError(f"{group}: modes of {found['terms']}, covariance of {block['terms']}")
        own = slice(first, first + k)
        names = tuple(translate(name, factors) for name in block["terms"])
        if "Intercept" not in names:  # without an intercept a factor has a column for every level
            names = tuple(name.replace("[T.", "[") for name in names)
        turned = group in nested
        result.append(
            Term(
                group=nested.get(group, group),
                names=names,
                lambda_=factor,
                sd=_array(block["sd"]),
                corr=_array(block["corr"]),
                cov=_array(block["cov"]),
                n_levels=found["n_levels"],
                levels=tuple(_turn(level) if turned else level for level in found["levels"]),
                modes=_array(found["mode"])[:, own],
                cond_cov=_array(found["cond_var"])[:, own, own],
                sum_of_squares=_array(found["sum_of_squares_of_all_modes"])[own],
            )
        )
    return tuple(result)


def _turn(level: str) -> str:
    return ":".join(reversed(level.split(":")))


def _predictions(raw: dict[str, Any]) -> Predictions | None:
    block = raw.get("predictions")
    if block is None:
        return None
    unseen = block.get("unseen_level_newdata")
    return Predictions(
        newdata=pd.DataFrame(block["newdata"]),
        conditional=_array(block["with_random_effects"]),
        population=_array(block["population"]),
        unseen=None if unseen is None else pd.DataFrame(unseen),
        unseen_conditional=None if unseen is None else _array(block["unseen_level_allow_new_levels"]),
    )
