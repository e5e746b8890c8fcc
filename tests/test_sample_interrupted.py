"""Ctrl-C while sampling: what was done is kept whole, and never called better than it is."""

from __future__ import annotations

import _thread
import threading
import warnings
from typing import Any

import numpy as np
import pytest
from test_joint import rows as counts
from test_sample import sleep
from test_sample_structures import rows as series

import multilevel as ml
from multilevel import independent
from multilevel.posterior_mode import Mode
from multilevel.progress import Progress
from multilevel.sample import _drawn
from multilevel.sampler import SamplingStopped, chains_of


@pytest.fixture
def ctrl_c(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sample a model with Ctrl-C after so many draws; the posterior and the warnings."""

    def run(model: ml.Model, after: int, **options: Any) -> tuple[ml.Posterior, list[str]]:
        add, told = Progress.add, []

        def interrupted(self: Progress, steps: int = 1) -> None:
            add(self, steps)
            if self.done >= after and not told:
                told.append(True)
                raise KeyboardInterrupt

        monkeypatch.setattr(Progress, "add", interrupted)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            posterior = model.sample(seed=5, progress=False, **options)
        assert told, "it was over before it was interrupted"
        return posterior, [str(w.message) for w in caught]

    return run


def all_finite(posterior: ml.Posterior) -> bool:
    kept = posterior.draws_kept
    return all(np.isfinite(v).all() for v in (kept.scalars, kept.beta, *kept.b))


def test_nuts_of_a_linear_model_has_coefficients_and_group_effects(ctrl_c: Any) -> None:
    posterior, told = ctrl_c(sleep(), 3000, draws=100_000, chains=2, warmup=50, method="nuts", threads=2)
    kept = posterior.draws_kept
    assert 4 <= kept.draws < 100_000 and kept.facts["stopped_at"] == kept.draws
    assert any("sampling was stopped" in text for text in told)
    assert kept.b[0].shape == (kept.chains, kept.draws, 18, 2) and all_finite(posterior)
    assert np.ptp(kept.beta, axis=(0, 1)).min() > 0


def test_nuts_keeps_the_chains_that_were_done(ctrl_c: Any) -> None:
    posterior, told = ctrl_c(sleep(), 3500, draws=3000, chains=4, warmup=50, method="nuts", threads=1)
    kept = posterior.draws_kept
    assert kept.chains < 4 and kept.chains * kept.draws >= 3000 and all_finite(posterior)
    assert any(f"{kept.draws} draws of each of {kept.chains} of 4 chains are kept" in text for text in told)
    assert len(kept.facts["step_size"]) == kept.chains and kept.stats["lp"].shape == (kept.chains, kept.draws)


def test_importance_sampling_of_a_linear_model(ctrl_c: Any) -> None:
    posterior, told = ctrl_c(sleep(), 20_000, draws=400_000, chains=2, thin=100, threads=2)
    kept = posterior.draws_kept
    assert kept.method == "independent" and kept.beta.shape == (2, 4000, 2) and all_finite(posterior)
    assert 100 <= kept.facts["proposals"] < 800_000
    good, sentence = posterior.trust
    assert not good and "stopped early" in sentence
    assert any("proposals evaluated so far are kept" in text for text in told)
    whole = sleep().sample(seed=6, progress=False).draws_kept
    difference = np.abs(kept.scalars.mean(axis=(0, 1)) - whole.scalars.mean(axis=(0, 1)))
    assert (difference < 0.3 * whole.scalars.std(axis=(0, 1))).all()


@pytest.mark.parametrize("room", [2e9, 0.0])
def test_importance_sampling_of_a_generalised_model(ctrl_c: Any, monkeypatch: pytest.MonkeyPatch, room: float) -> None:
    """With the group effects of the proposals at hand, and made again."""
    monkeypatch.setattr("multilevel.joint_independent.GROUP_MEMORY", room)
    model = ml.Model("count ~ x + (1 | g)", counts(), family="poisson")
    posterior, _ = ctrl_c(model, 4000, draws=100_000, chains=2, thin=50, threads=2)
    kept = posterior.draws_kept
    assert kept.method == "independent" and kept.b[0].shape == (2, 2000, 8, 1) and all_finite(posterior)
    assert (kept.b[0] != 0).all()
    assert not posterior.trust[0] and "stopped early" in posterior.trust[1]


def test_the_sampler_of_structured_residuals(ctrl_c: Any) -> None:
    model = ml.Model("y ~ x + (1 | g)", series(), correlation="ar1(step | g)")
    posterior, told = ctrl_c(model, 45, draws=30, chains=3, warmup=30, method="nuts")
    kept = posterior.draws_kept
    assert kept.chains < 3 and kept.draws >= 4 and all_finite(posterior)
    assert any("of 3 chains are kept" in text for text in told)


def test_structured_residuals_that_are_held(ctrl_c: Any) -> None:
    """The sampler of the posterior within hears of it."""
    model = ml.Model("y ~ x + (1 | g)", series(), correlation="ar1(step | g)", priors={"rho": ml.Fixed(0.3)})
    posterior, _ = ctrl_c(model, 500, draws=200_000, chains=1, warmup=50, method="nuts")
    assert 4 <= posterior.draws_kept.draws < 200_000 and all_finite(posterior)


@pytest.mark.filterwarnings("ignore:Do not trust")
def test_the_key_itself() -> None:
    timer = threading.Timer(0.7, _thread.interrupt_main)
    timer.start()
    with pytest.warns(ml.ConvergenceWarning, match="sampling was stopped"):
        posterior = sleep().sample(seed=5, draws=1_000_000, warmup=50, method="nuts", chains=1, thin=10, progress=False)
    assert 4 <= posterior.draws_kept.draws < 100_000 and all_finite(posterior)


class Endless:
    """Draws until it is stopped."""

    def __init__(self) -> None:
        self.core, self.done, self.going = self, 0, threading.Event()

    def restart(self) -> None:
        self.going.clear()

    def stop(self) -> None:
        self.going.set()

    def draw(self, x: Any, seed: int, threads: int) -> Any:
        assert self.going.wait(20), "nobody stopped it"
        return np.full((len(x), 3), np.nan)


def test_a_second_time_is_an_error_that_says_so() -> None:
    """While coefficients and group effects are drawn."""
    density = Endless()
    density.stop()  # the first time
    timer = threading.Timer(0.2, _thread.interrupt_main)
    timer.start()
    with Progress(1, "sampling", False) as bar, pytest.raises(SamplingStopped, match="there are no draws to keep"):
        _drawn(density, np.zeros((10, 2)), 1, 1, bar)  # type: ignore[arg-type]


class Stopped:
    """Log posteriors of a normal distribution, of the first so many proposals alone."""

    def __init__(self, evaluated: int) -> None:
        self.evaluated, self.stopped = evaluated, False

    def __call__(self, x: Any) -> Any:
        out = -0.5 * (x**2).sum(axis=1)
        if len(x) > 100:
            self.stopped = True
            out[self.evaluated :] = -np.inf
        return out


def test_draws_are_of_what_was_evaluated_by_all_chains_together() -> None:
    mode = Mode(np.zeros(2), np.eye(2), 0.0, 0)
    rng = np.random.default_rng(1)
    with pytest.warns(ml.ConvergenceWarning, match="draws of the 1500 of 4000 proposals"):
        found = independent.rounds(Stopped(1500), mode, 4, 1000, 1000, 3, 4000, rng)  # type: ignore[arg-type]
    assert found.stopped and not found.good(4000) and found.proposals == 1500
    assert found.index.max() < 1500 and len(np.unique(found.index[3])) > 500  # a chain none of whose own were evaluated
    np.testing.assert_allclose(found.x.mean(axis=(0, 1)), 0, atol=0.1)
    np.testing.assert_allclose(found.x.std(axis=(0, 1)), 1, atol=0.1)


def test_too_few_are_an_error() -> None:
    mode = Mode(np.zeros(2), np.eye(2), 0.0, 0)
    with pytest.raises(SamplingStopped, match="stopped too early"):
        independent.rounds(Stopped(60), mode, 4, 1000, 1000, 3, 4000, np.random.default_rng(1))  # type: ignore[arg-type]


def chain(draws: int) -> dict[str, Any]:
    names = ("lp", "energy", "acceptance_rate", "tree_depth", "n_steps", "diverging")
    return {"x": np.full((draws, 1), draws), **{n: np.ones(draws) for n in names}, "step_size": draws, "warmup_gradients": 1}


@pytest.mark.parametrize(
    ("lengths", "shape", "kept"),
    [
        ((100, 0, 90, 3), (2, 90, 1), [100, 90]),
        ((100, 5, 0, 0), (1, 100, 1), [100]),  # five of two would be fewer
        ((50, 60, 40, 55), (4, 40, 1), [50, 60, 40, 55]),
    ],
)
def test_as_many_draws_as_may_be_are_kept(lengths: Any, shape: Any, kept: Any) -> None:
    with pytest.warns(ml.ConvergenceWarning, match=f"{shape[1]} draws of each of {shape[0]} of 4 chains"):
        x, stats, facts = chains_of([chain(n) for n in lengths], 100, 0.8, stopped=True)
    assert x.shape == shape and facts["step_size"] == kept
    assert all(v.shape == shape[:2] for v in stats.values())


def test_no_chain_is_left() -> None:
    with pytest.raises(ml.MultilevelError, match="stopped too early"):
        chains_of([chain(n) for n in (3, 0)], 100, 0.8, stopped=True)
    with pytest.raises(ml.MultilevelError, match="cannot be evaluated around its mode"):
        chains_of([chain(n) for n in (100, 0)], 100, 0.8)
