"""The verdict on an optimum: fields, sentences, warnings; what is named as singular."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from shapes import draw, one, quiet_fit, shape

import multilevel as ml
from multilevel import (
    ConvergenceWarning,
    Fit,
    MissingRowsWarning,
    Model,
    MultilevelWarning,
    RankWarning,
    SingularFitWarning,
)
from multilevel.covariance import lower_triangular
from multilevel.diagnostics import boundary_components


def sleep() -> Fit:
    return Model("Reaction ~ Days + (Days | Subject)", ml.load("sleepstudy")).fit()


def with_evidence(fit: Fit, **facts: Any) -> Fit:
    optimum = replace(fit.optimum, evidence=replace(fit.optimum.evidence, **facts))
    return Fit(fit.model, optimum, fit.engine)


def with_factor(fit: Fit, factor: list[list[float]], rank: int) -> Fit:
    optimum = replace(fit.optimum, lambdas=(np.array(factor),), evidence=replace(fit.optimum.evidence, ranks=(rank,)))
    return Fit(fit.model, optimum, fit.engine)


def test_a_sound_fit() -> None:
    fit = sleep()
    report = fit.convergence
    assert report.converged is True
    assert bool(report)
    assert not report.singular
    assert report.boundary == ()
    assert report.sentence == f"Converged to a minimum ({report.evaluations} evaluations)."
    assert report.exact_hessian
    assert report.min_curvature > 1
    assert np.isnan(report.null_slope)
    assert report.restarts == 0
    assert fit.messages == ()
    text = str(report)
    for part in ("evaluations", "largest gradient", "smallest curvature", "(exact)"):
        assert part in text
    assert "boundary" not in text


@pytest.mark.parametrize(
    ("facts", "part"),
    [
        ({"status": "out of evaluations", "decrement": 0.5}, "stopped after"),
        ({"status": "no further progress", "decrement": 0.1}, "no further progress"),
        ({"min_curvature": -1.0}, "flat or falls off"),
        ({"null_slopes": (-3.0,)}, "wants to grow"),
    ],
)
def test_sentences_of_what_is_not_certain(facts: dict[str, Any], part: str) -> None:
    fit = with_evidence(sleep(), **facts)
    report = fit.convergence
    assert not report
    assert part in report.sentence
    assert fit.messages == (report.sentence,)
    assert report.sentence in repr(fit)
    assert report.sentence in str(fit)
    assert report.sentence.rstrip().endswith(".")


def test_a_flat_criterion_names_the_effects() -> None:
    """A factor's own intercepts beside one of each level: only the sum of the covariances is determined."""
    model = Model("score ~ Machine + (1 | Worker) + (0 + Machine | Worker)", ml.load("machines"))
    with pytest.warns(ConvergenceWarning, match="the criterion is flat.*Worker.*Drop or merge") as caught:
        fit = model.fit()
    assert len(caught) == 1
    assert "Intercept" in fit.convergence.sentence
    assert "Machine[A]" in fit.convergence.sentence


# --- what is named


@pytest.mark.parametrize(
    ("factor", "rank", "named"),
    [
        ([[0, 0], [0, 0]], 0, ("sd(Subject, Intercept) = 0", "sd(Subject, Days) = 0")),
        ([[1, 0], [0, 0]], 1, ("sd(Subject, Days) = 0",)),
        ([[0, 0], [0, 1]], 1, ("sd(Subject, Intercept) = 0",)),
        ([[1, 0], [0.3, 0]], 1, ("cor(Subject, Intercept, Days) = 1",)),
        ([[1, 0], [-0.3, 0]], 1, ("cor(Subject, Intercept, Days) = -1",)),
        ([[1, 0], [0.3, 0.2]], 2, ()),
    ],
)
def test_boundary_of_two_effects(factor: list[list[float]], rank: int, named: tuple[str, ...]) -> None:
    fit = with_factor(sleep(), factor, rank)
    assert boundary_components(fit) == named
    assert fit.is_singular is bool(named)
    assert fit.convergence.singular is bool(named)
    for part in named:
        assert part in fit.convergence.sentence


@pytest.mark.parametrize("factor", [[[1, 0], [0.3, 0]], [[1, 0], [-0.3, 0]]])
def test_a_correlation_of_one_is_not_said_to_be_free(factor: list[list[float]]) -> None:
    sentence = with_factor(sleep(), factor, 1).convergence.sentence
    assert "may fit worse: fit.singularity() lists" in sentence and "as well" not in sentence


def test_effects_in_fewer_dimensions_are_not_said_to_be_free() -> None:
    fit = quiet_fit(Model("y ~ x1 + x2 + (x1 + x2 | a)", shape("three effects").data))
    turned = lower_triangular(np.array([[1.0, 0, 0], [0.2, 0.5, 0], [0.4, 0.3, 0]]))
    assert "may fit worse" in with_factor(fit, turned.tolist(), 2).convergence.sentence


def test_a_structures_correlation_at_its_end_is_not_said_to_be_free() -> None:
    rng = np.random.default_rng(4)
    g, f = np.repeat(np.arange(12), 6), np.tile(["a", "b", "c"], 24)
    data = {"y": rng.normal(size=12)[g] + 0.5 * rng.normal(size=72), "g": g, "f": f}
    fit = quiet_fit(Model("y ~ 1 + homcs(0 + f | g)", data))
    assert fit.convergence.boundary == ("cor(g, homcs) = 1",)
    assert "may fit worse: fit.singularity() lists" in fit.convergence.sentence


def test_a_variance_of_zero_is_free() -> None:
    sentence = quiet_fit(Model("Yield ~ 1 + (1 | Batch)", ml.load("dyestuff2"))).convergence.sentence
    assert sentence.endswith("A simpler random-effects structure fits as well: fit.singularity() names it.")


def test_boundary_of_three_effects() -> None:
    fit = quiet_fit(Model("y ~ x1 + x2 + (x1 + x2 | a)", shape("three effects").data))
    turned = lower_triangular(np.array([[1.0, 0, 0], [0.2, 0.5, 0], [0.4, 0.3, 0]]))
    assert boundary_components(with_factor(fit, turned.tolist(), 2)) == (
        "3 effects of a (Intercept, x1, x2) vary in 2 dimensions only",
    )
    same = lower_triangular(np.array([[1.0, 0, 0], [2.0, 0, 0], [0.4, 0.3, 0]]))
    assert boundary_components(with_factor(fit, same.tolist(), 2)) == ("cor(a, Intercept, x1) = 1",)
    zero = np.array([[1.0, 0, 0], [0, 0, 0], [0.4, 0.3, 0]])
    assert boundary_components(with_factor(fit, zero.tolist(), 2)) == ("sd(a, x1) = 0",)


def test_boundary_of_uncorrelated_and_merged_terms() -> None:
    fit = quiet_fit(shape("merged blocks").model)
    assert len(fit.engine.blocks.owners) == 4
    lambdas = (np.array([[1.0, 0], [0.5, 0.5]]), np.diag([0.0, 0.7]), np.array([[0.3]]))
    optimum = replace(fit.optimum, lambdas=lambdas, evidence=replace(fit.optimum.evidence, ranks=(2, 0, 1, 1)))
    assert boundary_components(Fit(fit.model, optimum, fit.engine)) == ("sd(a, x2) = 0",)


# --- warnings, each of its class and once


def caught(model: Model, **options: Any) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        model.fit(**options)
    return [w for w in found if issubclass(w.category, MultilevelWarning)]


def test_no_news_no_warning() -> None:
    assert caught(Model("Reaction ~ Days + (Days | Subject)", ml.load("sleepstudy"))) == []


def test_each_warning_has_its_class_and_points_at_the_caller() -> None:
    data = draw(60, one(6, 60), 3)
    data["twice"] = 2 * data["x1"]
    data.loc[3, "x1"] = np.nan
    found = caught(Model("y ~ x1 + twice + (1 | a)", data))
    kinds = [w.category for w in found]
    assert kinds[:2] == [MissingRowsWarning, RankWarning]
    assert "1 of 60 rows" in str(found[0].message)
    assert "'x1' in 1" in str(found[0].message)
    assert "'twice'" in str(found[1].message)
    assert all(w.filename == __file__ for w in found)


def test_every_way_to_a_fit_warns_at_the_users_line() -> None:
    data = ml.load("dyestuff2")
    counts = {"y": np.tile([2, 3, 3, 2], 10), "g": np.repeat(np.arange(10), 4)}
    for call in (
        lambda: ml.lmer("Yield ~ 1 + (1 | Batch)", data),
        lambda: ml.lmer("Yield ~ 1 + (1 | Batch)", data, variance="ident(Batch)"),
        lambda: ml.glmer("y ~ 1 + (1 | g)", counts, "poisson"),
        lambda: Model("Yield ~ 1 + (1 | Batch)", data).fit(reml=False),
    ):
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            call()
        assert found and all(w.filename == __file__ for w in found)


def test_warnings_of_the_optimum() -> None:
    singular = Model("Yield ~ 1 + (1 | Batch)", ml.load("dyestuff2"))
    assert [w.category for w in caught(singular)] == [SingularFitWarning]
    short = Model("Reaction ~ Days + (Days | Subject)", ml.load("sleepstudy"))
    assert [w.category for w in caught(short, max_evaluations=1, start=[9.0, 0, 9.0])] == [ConvergenceWarning]


def test_messages_tell_all_of_it() -> None:
    data = draw(60, one(6, 60), 3)
    data["y"] = np.random.default_rng(8).normal(size=60)
    data["y"] -= data.groupby("a")["y"].transform("mean")
    data["twice"] = 2 * data["x1"]
    data.loc[3, "x1"] = np.nan
    fit = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = Model("y ~ x1 + twice + (1 | a)", data).fit()
    assert len(fit.messages) == 3
    assert "rows were left out" in fit.messages[0] or "1 of 60" in fit.messages[0]
    assert "'twice'" in fit.messages[1]
    assert "sd(a, Intercept) = 0" in fit.messages[2]


def test_groups_of_every_kind_are_named_as_typed() -> None:
    data = pd.DataFrame(
        {
            "y": np.tile([1.0, -1.0, 0.5, -0.5], 20),
            "b": np.repeat(np.arange(10), 8),
            "c": np.tile(np.repeat([0, 1], 4), 10),
        }
    )
    fit = quiet_fit(Model("y ~ 1 + (1 | b/c)", data))
    assert set(fit.convergence.boundary) == {"sd(b, Intercept) = 0", "sd(b:c, Intercept) = 0"}
