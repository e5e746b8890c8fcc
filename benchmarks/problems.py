"""The benchmark problems: a formula and data each, written once to a cache that every engine reads.

Bundled data sets come from the package (`multilevel.load`); others from the folder that the environment variable
MULTILEVEL_DATA names (`chem97`, `kb07`, `contraception`; the last from the R package mlmRev too, if it is installed);
MovieLens only if MULTILEVEL_MOVIELENS names its ratings file. A problem whose data is not there is skipped and said so.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import makers
import pandas as pd
from engines.protocol import Floats, Spec, Term

CACHE = Path(os.environ.get("MULTILEVEL_BENCHMARK_CACHE", Path(__file__).resolve().parent / ".cache"))


class DataUnavailable(Exception):
    """The data of a problem is neither bundled nor in the folder named by MULTILEVEL_DATA."""


def load(name: str) -> pd.DataFrame:
    folder = os.environ.get("MULTILEVEL_DATA")
    for suffix, read in ((".csv", pd.read_csv), (".parquet", pd.read_parquet)):
        if folder and Path(folder, name + suffix).exists():
            return pd.DataFrame(read(Path(folder, name + suffix)))
    try:
        import multilevel

        return pd.DataFrame(multilevel.load(name))
    except (ImportError, ValueError, AttributeError) as error:
        raise DataUnavailable(f"{name}: not bundled and MULTILEVEL_DATA has no {name}.csv") from error


def from_r(package: str, name: str) -> pd.DataFrame:
    """A data set of an R package."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "set.csv")
        script = f'data({name}, package = "{package}"); write.csv({name}, "{path}", row.names = FALSE)'
        try:
            subprocess.run(["Rscript", "--vanilla", "-e", script], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise DataUnavailable(
                f"{name}: MULTILEVEL_DATA has no {name.lower()}.csv, R no package {package}"
            ) from error
        return pd.DataFrame(pd.read_csv(path))


def contraception() -> pd.DataFrame:
    try:
        frame = load("contraception")
    except DataUnavailable:
        frame = from_r("mlmRev", "Contraception")
    columns = {"used": (frame["use"] == "Y").astype(int), "age": frame["age"], "age2": frame["age"] ** 2}
    return pd.DataFrame({**columns, **{name: frame[name] for name in ("urban", "livch", "district")}})


def cbpp() -> pd.DataFrame:
    frame = load("cbpp")
    return frame.assign(healthy=frame["size"] - frame["incidence"])


def verbagg() -> pd.DataFrame:
    frame = load("verbagg")
    return frame.assign(r2=(frame["r2"] == "Y").astype(int))


def movielens() -> pd.DataFrame:
    path = os.environ.get("MULTILEVEL_MOVIELENS")
    if not path:
        raise DataUnavailable("MovieLens may not be shared: name its ratings file in MULTILEVEL_MOVIELENS")
    frame = pd.read_parquet(path) if path.endswith("parquet") else pd.read_csv(path)
    return pd.DataFrame({"y": frame["rating"].astype(float), "user": frame["user"], "item": frame["item"]})


@dataclass(frozen=True)
class Problem:
    """A spec without its data path, how to get the data, and what to reach (speed.md's target in words)."""

    spec: Spec
    data: Callable[[], pd.DataFrame]
    title: str
    reach: str
    responses: Callable[[pd.DataFrame], Floats] | None = None
    reference: float | None = None  # the criterion, where it is known to 1e-8 from another source
    without: tuple[str, ...] = ()  # engines that take too long to be of interest


def term(group: str, *effects: str, structure: str = "us") -> Term:
    return Term(tuple(group.split(":")), ("1", *effects), structure)


def problem(
    name: str,
    formula: str,
    terms: tuple[Term, ...],
    data: Callable[[], pd.DataFrame],
    *,
    title: str,
    reach: str,
    factors: tuple[str, ...] = (),
    statsmodels: Mapping[str, Any] | None = None,
    responses: int = 0,
    reml: bool = True,
    make: Callable[[pd.DataFrame], Floats] | None = None,
    reference: float | None = None,
    without: tuple[str, ...] = (),
    **generalised: Any,
) -> Problem:
    grouping = dict.fromkeys([*(g for t in terms for g in t.groups), *factors])
    spec = Spec(
        name=name,
        formula=formula,
        terms=terms,
        factors=tuple(grouping),
        reml=reml,
        statsmodels=statsmodels,
        responses=responses,
        extra={"response": formula.split("~")[0].strip()},
        **generalised,
    )
    return Problem(spec, data, title, reach, make, reference, without)


ENGINE = "engine ≤ glmm's whole call"
EIGHT = "1 + S + P + C + SP + SC + PC + SPC"
MAXIMAL = (term("subj", *makers.CONTRASTS), term("item", *makers.CONTRASTS))

PROBLEMS = {
    p.spec.name: p
    for p in (
        problem(
            "sleepstudy",
            "Reaction ~ Days + (Days | Subject)",
            (term("Subject", "Days"),),
            lambda: load("sleepstudy"),
            statsmodels={"fixed": "Reaction ~ Days", "groups": "Subject", "re": "~Days"},
            reference=1743.6282719599,
            title="sleepstudy (Days &#124; Subject)",
            reach=ENGINE + "; whole call ≤ 10 ms",
        ),
        problem(
            "penicillin",
            "diameter ~ 1 + (1 | plate) + (1 | sample)",
            (term("plate"), term("sample")),
            lambda: load("penicillin"),
            title="Penicillin, crossed",
            reach=ENGINE,
            reference=330.860588991085,
            statsmodels={
                "fixed": "diameter ~ 1",
                "groups": None,
                "vc": {"plate": "0+C(plate)", "sample": "0+C(sample)"},
            },
        ),
        problem(
            "pastes",
            "strength ~ 1 + (1 | batch/cask)",
            (term("batch"), term("batch:cask")),
            lambda: load("pastes"),
            title="Pastes, nested",
            reach=ENGINE,
            reference=246.990745853486,
            statsmodels={"fixed": "strength ~ 1", "groups": "batch", "re": "~1", "vc": {"cask": "0+C(cask)"}},
        ),
        problem(
            "math10",
            "math ~ homework + (homework | schid)",
            (term("schid", "homework"),),
            lambda: load("math10"),
            statsmodels={"fixed": "math ~ homework", "groups": "schid", "re": "~homework"},
            reference=1763.95433775745,
            title="ten schools (homework &#124; schid)",
            reach=ENGINE,
        ),
        problem(
            "chem97",
            "score ~ gcsecnt + gender + (1 | lea) + (1 | school)",
            (term("lea"), term("school")),
            lambda: load("chem97")[["score", "gcsecnt", "gender", "lea", "school"]],
            factors=("gender",),
            statsmodels={
                "fixed": "score ~ gcsecnt + gender",
                "groups": "lea",
                "re": "~1",
                "vc": {"school": "0+C(school)"},
            },
            title="chem97, 31,022 rows, schools in LEAs",
            reach="≤ 0.5 × the fastest right one",
            reference=141110.75430523,
        ),
        problem(
            "slopes-1e5",
            "y ~ x + (1 + x | g)",
            (term("g", "x"),),
            lambda: makers.slopes(100_000, 1_000, 11),
            statsmodels={"fixed": "y ~ x", "groups": "g", "re": "~x"},
            title="10⁵ rows, (1 + x &#124; g), 10³ groups",
            reach="≤ 0.5 × glmm",
        ),
        problem(
            "kb07",
            f"RTtrunc ~ {EIGHT} + (1 + S + P + C | subj) + (1 + S + P + C | item)",
            (term("subj", "S", "P", "C"), term("item", "S", "P", "C")),
            lambda: load("kb07"),
            title="kb07, (1+S+P+C &#124; subj) + (… &#124; item)",
            reach="≤ 0.1 × glmm; ≤ 30 evaluations",
        ),
        problem(
            "latin-72",
            f"y ~ {EIGHT} + ({EIGHT} | subj) + ({EIGHT} | item)",
            MAXIMAL,
            lambda: makers.factorial(56, 32, True, 8, 12),
            title="56 × 32 Latin square, 1,792 rows, 72 parameters",
            reach="≥ 50× lme4, < 0.5 s, ≤ 20 evaluations",
        ),
        problem(
            "crossed-72",
            f"y ~ {EIGHT} + ({EIGHT} | subj) + ({EIGHT} | item)",
            MAXIMAL,
            lambda: makers.factorial(56, 32, False, 3, 13),
            title="56 × 32 × 8 fully crossed, 72 parameters, singular",
            reach="< 0.5 s",
        ),
        problem(
            "insteval",
            "y ~ 1 + (1 | s) + (1 | d)",
            (term("s"), term("d")),
            lambda: load("insteval"),
            title="InstEval (1&#124;s) + (1&#124;d), 73,421 rows",
            reach="≤ 0.4 × glmm on 1 thread, ≥ 10× lme4 on 2; ≤ 10 evaluations",
        ),
        problem(
            "insteval-dept-service",
            "y ~ service + (1 | s) + (1 | d) + (1 | dept:service)",
            (term("s"), term("d"), term("dept:service")),
            lambda: load("insteval"),
            factors=("service",),
            title="InstEval + service + (1&#124;dept:service)",
            reach="≥ 15× lme4",
        ),
        problem(
            "insteval-slopes",
            "y ~ service + (1 + service | s) + (1 | d) + (1 + service | dept)",
            (term("s", "service1"), term("d"), term("dept", "service1")),
            lambda: load("insteval"),
            factors=("service",),
            title="InstEval (1+service&#124;s) + (1&#124;d) + (1+service&#124;dept)",
            reach="right, < 2 s",
            reference=237591.18131629,
        ),
        problem(
            "slopes-1e6",
            "y ~ x + (1 + x | g)",
            (term("g", "x"),),
            lambda: makers.slopes(1_000_000, 100_000, 14),
            title="10⁶ rows, (1 + x &#124; g), 10⁵ groups",
            reach="whole call < 2 s, < 1.5 GB",
        ),
        problem(
            "ratings-1e6",
            "y ~ 1 + (1 | user) + (1 | item)",
            (term("user"), term("item")),
            lambda: makers.ratings(1_000_000, 20_000, 2_000, 15),
            title="10⁶ ratings, 20,000 × 2,000, uneven",
            reach="< 5 s",
        ),
        problem(
            "movielens",
            "y ~ 1 + (1 | user) + (1 | item)",
            (term("user"), term("item")),
            movielens,
            title="MovieLens 1M, (1&#124;user) + (1&#124;item)",
            reach="< 10 s",
        ),
        problem(
            "refits-sleepstudy",
            "Reaction ~ Days + (Days | Subject)",
            (term("Subject", "Days"),),
            lambda: load("sleepstudy"),
            responses=1_000,
            reml=False,
            make=lambda f: makers.sleepstudy_responses(f, 1_000, 16),
            statsmodels={"fixed": "Reaction ~ Days", "groups": "Subject", "re": "~Days"},
            title="sleepstudy, 1,000 parametric refits (ML)",
            reach="< 1 s",
        ),
        problem(
            "responses-20000",
            "y ~ treated * visit + (1 | subject)",
            (term("subject"),),
            lambda: makers.visits(40, 17),
            responses=20_000,
            reml=False,
            make=lambda f: makers.visit_responses(f, 20_000, 18),
            statsmodels={"fixed": "y ~ treated * visit", "groups": "subject", "re": "~1"},
            title="20,000 responses, one design (120 rows, ML)",
            reach="< 5 s",
        ),
    )
}


FASTEST = "≤ the fastest"
HERDS: dict[str, Any] = {"factors": ("period",), "family": "binomial", "trials": "size", "products": (("period",),)}
CHICKS = "TICKS ~ YEAR + cHEIGHT + (1 | BROOD) + (1 | INDEX) + (1 | LOCATION)"

GENERALISED = {
    p.spec.name: p
    for p in (
        problem(
            "cbpp",
            "cbind(incidence, healthy) ~ period + (1 | herd)",
            (term("herd"),),
            cbpp,
            **HERDS,
            reference=184.05256372951,
            title="cbpp, Laplace",
            reach=FASTEST,
        ),
        problem(
            "cbpp-quadrature",
            "cbind(incidence, healthy) ~ period + (1 | herd)",
            (term("herd"),),
            cbpp,
            **HERDS,
            nodes=25,
            reference=183.96673807462,
            title="cbpp, 25-point quadrature",
            reach=FASTEST,
        ),
        problem(
            "contraception",
            "used ~ age + age2 + urban + livch + (1 | district)",
            (term("district"),),
            contraception,
            factors=("urban", "livch"),
            family="binomial",
            products=(("age",), ("age2",), ("urban",), ("livch",)),
            title="Contraception, 1,934 rows",
            reach=FASTEST,
        ),
        problem(
            "grouseticks",
            CHICKS,
            (term("BROOD"), term("INDEX"), term("LOCATION")),
            lambda: load("grouseticks"),
            factors=("YEAR",),
            family="poisson",
            products=(("YEAR",), ("cHEIGHT",)),
            reference=1780.54266017483,
            title="grouseticks, 3 factors, Poisson",
            reach=FASTEST,
        ),
        problem(
            "salamanders",
            "count ~ spp * mined + (1 | site)",
            (term("site"),),
            lambda: load("salamanders"),
            factors=("spp", "mined"),
            family="nbinom2",
            products=(("spp",), ("mined",), ("spp", "mined")),
            reference=1631.35698399552,
            title="Salamanders, negative binomial",
            reach="≤ the fastest right one",
        ),
        problem(
            "verbagg",
            "r2 ~ Anger + Gender + btype + situ + (1 | id) + (1 | item)",
            (term("id"), term("item")),
            verbagg,
            factors=("Gender", "btype", "situ"),
            family="binomial",
            products=(("Anger",), ("Gender",), ("btype",), ("situ",)),
            title="VerbAgg, 316 × 24 crossed",
            reach="≥ 100× lme4",
        ),
        problem(
            "bernoulli-1e6",
            "y ~ x + (1 + x | g)",
            (term("g", "x"),),
            lambda: makers.bernoulli(1_000_000, 10_000, 19),
            family="binomial",
            products=(("x",),),
            without=("lme4",),
            title="10⁶ Bernoulli rows, (1 + x &#124; g), 10⁴ groups",
            reach="< 15 s; ≥ 10× glmmTMB",
        ),
    )
}
PROBLEMS |= GENERALISED


def store(frame: pd.DataFrame, factors: tuple[str, ...], stem: Path) -> None:
    """Write a frame where both R and Python find it; grouping columns as text."""
    frame = frame.copy()
    for name in factors:
        frame[name] = frame[name].astype(str)
    small = [name for name in frame if pd.api.types.is_integer_dtype(frame[name])]
    frame = frame.astype(dict.fromkeys(small, "int64"))  # int8 columns are too much for some readers
    stem.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(stem.with_suffix(".csv"), index=False, float_format="%.17g")
    frame.to_feather(stem.with_suffix(".feather"))  # last: its presence says the pair is complete


def materialise(item: Problem, cache: Path = CACHE) -> Spec:
    """Make sure the data files exist and give the spec that points to them."""
    stem = (cache / item.spec.name).resolve()
    if not stem.with_suffix(".feather").exists():
        frame = item.data().reset_index(drop=True)
        if item.responses is not None:
            stem.parent.mkdir(parents=True, exist_ok=True)
            values = item.responses(frame)
            values.T.tofile(stem.with_suffix(".f64"))  # row-major of the transpose = column-major
            frame[item.spec.response] = values[:, 0]
        store(frame, item.spec.factors, stem)
    return replace(item.spec, stem=str(stem))
