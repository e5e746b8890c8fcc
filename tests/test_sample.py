"""Draws of linear models against reference posteriors, by importance sampling and by NUTS."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multilevel as ml
from multilevel.chain_diagnostics import ess_mean

REFERENCE = json.loads((Path(__file__).parent / "golden_posteriors" / "posteriors.json").read_text())
EIGHT = {
    "y": [28.0, 8, -3, 7, -1, 1, 18, 12],
    "w": [1 / s**2 for s in (15.0, 10, 16, 11, 9, 11, 10, 18)],
    "school": list("ABCDEFGH"),
}


def school() -> ml.Model:
    priors = {
        "Intercept": ml.Normal(40, 50), "homework": ml.Normal(0, 10), "sd(schid, Intercept)": ml.HalfNormal(50),
        "sd(schid, homework)": ml.HalfNormal(5), "sigma": ml.HalfCauchy(5),
    }  # fmt: skip
    return ml.Model("math ~ homework + (homework || schid)", ml.load("math10"), priors=priors)


def eight() -> ml.Model:
    priors = {"Intercept": ml.Normal(0, 5), "sd": ml.HalfCauchy(5), "sigma": ml.Fixed(1.0)}
    return ml.Model("y ~ 1 + (1 | school)", EIGHT, weights="w", priors=priors)


def sleep() -> ml.Model:
    priors = {
        "Intercept": ml.Normal(250, 100), "Days": ml.Normal(0, 50), "sd(Subject, Intercept)": ml.HalfNormal(50),
        "sd(Subject, Days)": ml.HalfNormal(20), "cor": ml.LKJ(2), "sigma": ml.HalfNormal(50),
    }  # fmt: skip
    return ml.Model("Reaction ~ Days + (Days | Subject)", ml.load("sleepstudy"), priors=priors)


def course() -> ml.Model:
    rng = np.random.RandomState(42)
    means = rng.normal(0, 1, 3)
    y = np.concatenate([rng.normal(m, 1, 10) for m in means])
    data = {"y": y.tolist(), "g": np.repeat(list("abc"), 10).tolist()}
    return ml.Model("y ~ 0 + g", data, priors={"b": ml.Normal(0, 1), "sigma": ml.Fixed(1.0)})


MODELS: dict[str, Any] = {"school": school, "eight": eight, "sleep": sleep, "course": course}


@cache
def drawn(name: str, method: str) -> Any:
    return MODELS[name]().sample(seed=11, draws=2000, method=method)


def quantities(name: str, posterior: Any) -> dict[str, Any]:
    """Reference name -> (chains, draws)."""
    kept = posterior.draws_kept
    if name == "course":
        return {f"mu[{i}]": kept.beta[:, :, i] for i in range(3)}
    s, b, u = kept.scalars, kept.beta, kept.b[0]
    levels = [str(v) for v in posterior.design.terms[0].levels]
    if name == "eight":
        theta = {f"theta[{v}]": b[:, :, 0] + u[:, :, i, 0] for i, v in enumerate(levels)}
        return {"tau": s[:, :, 0], "mu": b[:, :, 0], **theta}
    if name == "school":
        slopes = kept.b[1] if len(kept.b) > 1 else u[..., 1:]
        out = {f"a[{v}]": b[:, :, 0] + u[:, :, i, 0] for i, v in enumerate(levels)}
        out |= {f"b[{v}]": b[:, :, 1] + slopes[:, :, i, 0] for i, v in enumerate(levels)}
        return {
            "sigma_a": s[:, :, 0], "sigma_b": s[:, :, 1], "eps": s[:, :, 2], "mu_a": b[:, :, 0], "mu_b": b[:, :, 1], **out,
        }  # fmt: skip
    out = {f"u{k}[{v}]": u[:, :, i, k] for i, v in enumerate(levels) for k in (0, 1)}
    return {
        "sd_Intercept": s[:, :, 0], "sd_Days": s[:, :, 1], "cor": s[:, :, 2], "sigma": s[:, :, 3],
        "b_Intercept": b[:, :, 0], "b_Days": b[:, :, 1], **out,
    }  # fmt: skip


def standard_errors(x: Any) -> tuple[float, float]:
    """Monte Carlo standard errors of mean and sd."""
    centred = (x - x.mean()) ** 2
    of_mean = x.std() / np.sqrt(float(ess_mean(x)))
    of_sd = centred.std() / np.sqrt(float(ess_mean(centred))) / (2 * x.std())
    return of_mean, of_sd


@pytest.mark.parametrize("method", ["independent", "nuts"])
@pytest.mark.parametrize("name", MODELS)
def test_means_and_sds_are_those_of_the_reference(name: str, method: str) -> None:
    posterior = drawn(name, method)
    found = quantities(name, posterior)
    reference = {**REFERENCE[name]["hyper"], **REFERENCE[name]["group"]}
    assert len(reference) >= 3
    for key, ref in reference.items():
        x = found[key]
        of_mean, of_sd = standard_errors(x)
        assert abs(x.mean() - ref["mean"]) < 4 * np.hypot(of_mean, ref["mcse_mean"]), key
        assert abs(x.std() - ref["sd"]) < 4 * np.hypot(of_sd, ref["mcse_sd"]), key


@pytest.mark.parametrize("name", MODELS)
def test_defaults_may_be_trusted(name: str) -> None:
    posterior = MODELS[name]().sample(seed=3)
    good, sentence = posterior.trust
    assert good and "may be trusted" in sentence
    assert posterior.draws_kept.method == ("exact" if name == "course" else "independent")


@pytest.mark.parametrize("name", ["school", "eight", "sleep"])
def test_nuts_has_no_divergences(name: str) -> None:
    posterior = drawn(name, "nuts")
    assert posterior.draws_kept.stats["diverging"].sum() == 0
    assert np.nanmax(np.asarray(posterior.parameters()["rhat"])) < 1.01


def test_the_course_example_is_the_closed_form() -> None:
    """Three group means with known sd: N(sum(y) / (n + 1), 1 / (n + 1))."""
    posterior = drawn("course", "independent")
    d = posterior.design
    for i in range(3):
        y = d.y[d.X[:, i] == 1]
        x = posterior.draws_kept.beta[:, :, i]
        assert abs(x.mean() - y.sum() / 11) < 4 * np.sqrt(1 / 11 / x.size)
        assert x.std() == pytest.approx(np.sqrt(1 / 11), rel=4 / np.sqrt(2 * x.size))


def test_the_evidence_of_importance_sampling_is_the_integral() -> None:
    """One free parameter: against the trapezoidal rule."""
    from multilevel.marginal import Marginal
    from multilevel.prior_table import prior_table
    from multilevel.reml import Engine

    model = eight()
    target = Marginal(Engine(model.design, 1), model.design, prior_table(model.design, None, model.priors))
    grid = np.linspace(-25, 12, 20_001)
    values = target.core.log_posteriors(grid[:, None], 1)
    integral = np.log(np.trapezoid(np.exp(values - values.max()), grid)) + values.max()
    assert drawn("eight", "independent").draws_kept.facts["log_evidence"] == pytest.approx(integral, abs=2e-3)


@pytest.mark.parametrize("method", ["independent", "nuts"])
def test_a_seed_means_the_same_draws_whatever_the_threads(method: str) -> None:
    one, two, other = (
        sleep().sample(seed=s, draws=500, warmup=400, method=method, threads=t) for s, t in ((5, 1), (5, 2), (6, 2))
    )
    for a, b in zip(one.draws_kept.b, two.draws_kept.b, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(one.draws_kept.scalars, two.draws_kept.scalars)
    assert np.abs(other.draws_kept.scalars - one.draws_kept.scalars).max() > 0


def test_thinning_and_leaving_group_effects_out() -> None:
    thin = sleep().sample(seed=5, draws=100, thin=5)
    assert thin.draws_kept.beta.shape == (4, 20, 2)
    bare = sleep().sample(seed=5, draws=100, keep="parameters")
    assert bare.draws_kept.b == []
    with pytest.raises(ml.OptionError, match="were not kept"):
        bare.ranef()
    with pytest.raises(ml.OptionError, match="were not kept"):
        bare.predict()
    assert len(bare.predict(groups=None)) == 180


def test_marginalised_and_sampled_coefficients_agree() -> None:
    """A normal prior is integrated out; written as Student's t with a million degrees of freedom it is sampled."""
    data = ml.load("math10")
    formula = "math ~ homework + (1 | schid)"
    found = []
    for prior in (ml.Normal(2, 1), ml.StudentT(1e6, 2, 1)):
        posterior = ml.Model(formula, data, priors={"homework": prior}).sample(seed=1, draws=3000)
        x = posterior.draws_kept.beta[:, :, 1]
        found.append((x.mean(), x.std(), standard_errors(x)))
    (m0, s0, e0), (m1, s1, e1) = found
    assert abs(m0 - m1) < 4 * np.hypot(e0[0], e1[0])
    assert abs(s0 - s1) < 4 * np.hypot(e0[1], e1[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chains": 0}, "chains must be a whole number of at least 1"),
        ({"draws": 2.5}, "draws must be a whole number"),
        ({"warmup": -1}, "warmup must be"),
        ({"target": 1.0}, "target"),
        ({"target": "high"}, "target"),
        ({"method": "gibbs"}, "method 'gibbs' is not known"),
        ({"seed": -3}, "seed must be"),
        ({"keep": "none"}, "keep 'none' is not known"),
        ({"thin": 0}, "thin must be"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ml.OptionError, match=message):
        eight().sample(**options)


@pytest.mark.filterwarnings("ignore:Do not trust")
def test_an_interrupted_sampler_keeps_its_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the core works: the draws so far come back, with a warning."""
    from multilevel.progress import Progress

    add, calls = Progress.add, []

    def interrupted(self: Progress, steps: int = 1) -> None:
        add(self, steps)
        if self.done >= 5000 and not calls:
            calls.append(True)
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "add", interrupted)
    with pytest.warns(ml.ConvergenceWarning, match="sampling was stopped"):
        posterior = sleep().sample(seed=5, draws=2_000_000, warmup=50, method="nuts", keep="parameters", threads=2, chains=2)
    assert 4 <= posterior.draws_kept.draws < 2_000_000
    assert np.isfinite(posterior.draws_kept.scalars).all()


@pytest.mark.slow
def test_insteval_reference() -> None:
    """73,421 rows, students crossed with lecturers; proposals are fewer than draws, which Monte Carlo errors must count."""
    data = ml.load("insteval")
    data["service"] = data["service"].astype(float)
    priors = {"Intercept": ml.Normal(0, 5), "b": ml.Normal(0, 2.5), "sd": ml.HalfNormal(1), "sigma": ml.HalfNormal(2)}
    posterior = ml.Model("y ~ service + (1 | s) + (1 | d)", data, priors=priors).sample(seed=1)
    kept = posterior.draws_kept
    assert posterior.trust[0] and kept.method == "independent"
    found = {
        "sd_s": kept.scalar("sd", 0), "sd_d": kept.scalar("sd", 1), "sigma": kept.scalar("sigma"),
        "b_Intercept": kept.beta[..., 0], "b_service": kept.beta[..., 1],
    }  # fmt: skip
    for t, name in enumerate(("u0", "u1")):
        labels = [str(level) for level in posterior.design.terms[t].levels]
        own = [key for key in REFERENCE["insteval"]["group"] if key.startswith(name)]
        found |= {key: kept.b[t][:, :, labels.index(key[len(name) + 1 : -1]), 0] for key in own}
    repeated = np.sqrt(kept.beta[..., 0].size / kept.facts["effective"])
    for key, ref in {**REFERENCE["insteval"]["hyper"], **REFERENCE["insteval"]["group"]}.items():
        of_mean, of_sd = standard_errors(found[key])
        assert abs(found[key].mean() - ref["mean"]) < 4 * np.hypot(repeated * of_mean, ref["mcse_mean"]), key
        assert abs(found[key].std() - ref["sd"]) < 4 * np.hypot(repeated * of_sd, ref["mcse_sd"]), key
