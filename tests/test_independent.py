"""Importance sampling: weights that say nothing, when it is trusted, what its draws are worth."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from test_joint import rows
from test_sample import sleep

import multilevel as ml
from multilevel import independent, joint_independent
from multilevel.independent import Kernels, Slice
from multilevel.posterior_mode import Mode
from multilevel.posterior_tables import verdict

MODE = Mode(np.zeros(2), np.eye(2), 0.0, 0)


class Values:
    """Log posteriors that are normal, changed by a function of the points."""

    stopped = False

    def __init__(self, change: Any) -> None:
        self.change = change

    def __call__(self, x: Any) -> Any:
        return self.change(x, -0.5 * (x**2).sum(axis=1)) if len(x) > 100 else -0.5 * (x**2).sum(axis=1)


def spike(x: Any, logs: Any) -> Any:
    return np.where(np.arange(len(x)) == 7, 0.0, -1e5)


def nowhere(x: Any, logs: Any) -> Any:
    return np.full(len(x), -np.inf)


def two(x: Any, logs: Any) -> Any:
    return np.where(np.isin(np.arange(len(x)), [7, 2007]), logs, -np.inf)


def numbers_of_no_kind(x: Any, logs: Any) -> Any:
    return np.full(len(x), np.nan)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("change", [spike, nowhere, two, numbers_of_no_kind])
def test_weights_that_say_nothing_fail_the_check(change: Any) -> None:
    found = independent.rounds(Values(change), MODE, 4, 500, 1000, 4, 2000, np.random.default_rng(1))  # type: ignore[arg-type]
    assert not found.good(2000) and found.pareto_k > 1
    assert found.x.shape == (4, 500, 2) and np.isfinite(found.x).all()
    if change is spike:
        return
    assert found.pareto_k == np.inf
    with pytest.raises(ml.MultilevelError, match="method='nuts'"):
        independent.refuse_empty(found)


def test_a_chain_without_weights_takes_those_of_the_others() -> None:
    def change(x: Any, logs: Any) -> Any:
        return np.where(np.arange(len(x)) < 3000, logs, -np.inf)

    found = independent.draw(Values(change), MODE, 4, 500, 1000, np.random.default_rng(1))
    assert found.index[3].max() < 3000 and len(np.unique(found.index[3])) > 400
    assert all(found.index[c].min() >= 1000 * c and found.index[c].max() < 1000 * (c + 1) for c in range(3))


@pytest.mark.parametrize("known", [0, 1])
def test_an_axis_of_unknown_heights_is_normal(known: int) -> None:
    from scipy import stats

    z = np.linspace(-7, 7, 57)
    heights = np.where(np.arange(57) < known, 0.0, -np.inf)
    made = Slice(z, heights, 1.0)
    found = made.draw(np.linspace(0.01, 0.99, 50))
    np.testing.assert_allclose(found, stats.norm.ppf(np.linspace(0.01, 0.99, 50)), atol=0.02)


def test_kernels_in_blocks_are_the_sum_of_normal_densities(monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy import stats

    rng = np.random.default_rng(2)
    root = np.array([[0.5, 0.0], [0.2, 0.4]])
    made = Kernels(0.3, rng.standard_normal((20, 2)), root)
    z = rng.standard_normal((70, 2))
    truth = np.log(0.3 * np.mean([stats.multivariate_normal(c, root @ root.T).pdf(z) for c in made.points], axis=0))
    np.testing.assert_allclose(made.log_density(z), truth)
    monkeypatch.setattr(independent, "BLOCK", 16)
    np.testing.assert_allclose(made.log_density(z), truth)


@pytest.mark.parametrize(
    ("k", "effective", "kept", "proposed", "good"),
    [
        (0.3, 3000, 4000, 4000, True),
        (0.5, 3000, 4000, 4000, False),
        (np.inf, 3000, 4000, 4000, False),
        (0.3, 390, 4000, 1000, False),  # 0.39 of the proposals, but few
        (0.3, 450, 4000, 4000, False),  # many, but a small share of the proposals
        (0.3, 60, 100, 4000, True),  # over half of the few that are wanted
        (0.3, 40, 100, 4000, False),
    ],
)
def test_one_check_chooses_the_method_and_speaks_the_verdict(
    k: float, effective: float, kept: int, proposed: int, good: bool
) -> None:
    assert independent.may_be_trusted(k, effective, kept, proposed) is good
    posterior = sleep().sample(seed=1, draws=kept // 4, progress=False)
    posterior.draws_kept.facts.update(pareto_k=k, effective=effective, proposals=proposed)
    assert verdict(posterior)[0] is good


def test_draws_that_are_no_numbers_are_not_trusted() -> None:
    posterior = sleep().sample(seed=1, draws=100, progress=False)
    for name in ("beta", "scalars"):
        changed = getattr(posterior.draws_kept, name).copy()
        changed[1, 2, 0] = np.nan
        broken = ml.Posterior(posterior.model, replace(posterior.draws_kept, **{name: changed}), posterior.entries)
        good, sentence = verdict(broken)
        assert not good and "no numbers" in sentence


@pytest.mark.parametrize("family", ["gaussian", "poisson"])
def test_draws_that_are_thinned_are_worth_what_is_left(family: str) -> None:
    model = sleep() if family == "gaussian" else ml.Model("count ~ x + (1 | g)", rows(), family=family)
    every = model.sample(seed=2, draws=1000, progress=False).draws_kept
    thin = model.sample(seed=2, draws=1000, thin=10, progress=False).draws_kept
    assert every.method == thin.method == "independent"
    assert thin.facts["effective"] <= 400 < every.facts["effective"]
    assert thin.facts["effective"] > 300  # weights are nearly equal


def test_effective_sizes_of_tables_are_at_most_those_of_the_weights() -> None:
    linear, generalised = sleep(), ml.Model("count ~ x + (1 | g)", rows(), family="poisson")
    for model in (linear, generalised):
        posterior = model.sample(seed=2, progress=False)
        facts = posterior.draws_kept.facts
        facts["effective"] = 450.0
        tables = {"parameters": posterior.parameters(), "fixef": posterior.fixef()}
        for name, table in tables.items():
            capped = name == "parameters" or model is generalised
            for column in ("ess_bulk", "ess_tail"):
                largest = np.max(np.asarray(table[column], dtype=float))
                assert largest == 450.0 if capped else largest > 1000
        tidy = posterior.tidy()
        ess, effect = np.asarray(tidy["ess"], dtype=float), np.asarray(tidy["effect"])
        assert ess[effect == "ran_pars"].max() == 450.0
        assert bool(ess[effect == "fixed"].max() == 450.0) is (model is generalised)
        facts["proposals"] = 1000  # fewer than draws: coefficients cannot be worth more either
        assert np.max(np.asarray(posterior.fixef()["ess_bulk"], dtype=float)) == 450.0


def test_rounds_have_random_numbers_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """And so does the probe; the group effects are those of the last round."""
    seeds = []
    run = joint_independent.Estimates._run

    def noted(self: Any, x: Any, ids: Any, effects: bool) -> Any:
        seeds.append((len(x), self.seed))
        return run(self, x, ids, effects)

    monkeypatch.setattr(joint_independent.Estimates, "_run", noted)
    monkeypatch.setattr(joint_independent, "GROUP_MEMORY", 0.0)
    monkeypatch.setattr(independent, "GOOD_K", -1.0)  # never good: every round is made
    model = ml.Model("count ~ x + (1 | g)", rows(), family="poisson")
    with pytest.warns(ml.ConvergenceWarning, match="Do not trust"):
        posterior = model.sample(seed=2, draws=900, method="independent", progress=False)
    probes = {s for n, s in seeds if n == joint_independent.TRIES}
    rounds = [s for n, s in seeds if n == 4000]
    assert len(probes) == 1 and len(rounds) == len(set(rounds)) == independent.MORE_ROUNDS and not probes & set(rounds)
    assert seeds[-1] == (3600, rounds[-1])
    assert np.isfinite(posterior.draws_kept.b[0]).all()


@pytest.mark.parametrize(
    ("formula", "options", "reason"),
    [
        ("count ~ x", {}, "it has no group effects"),
        ("count ~ x + x:h + x:m + (1 | g)", {"LARGEST": 2}, r"too many parameters \([0-9]+; at most 2\)"),
        ("count ~ x + (x | g)", {"MOST_EFFECTS": 1}, r"too many effects of each group \(2; at most 1\)"),
        ("count ~ x + (1 | g)", {"MOST_WORK": 10.0}, "too many rows"),
        ("count ~ x + (1 | g)", {"NOISIEST": -1.0}, "cannot be estimated well enough"),
    ],
)
def test_the_reason_why_it_does_not_suit_is_told(
    monkeypatch: pytest.MonkeyPatch, formula: str, options: dict[str, Any], reason: str
) -> None:
    for name, value in options.items():
        monkeypatch.setattr(joint_independent, name, value)
    with pytest.raises(ml.OptionError, match=f"does not suit this model: .*{reason}.*leave it out"):
        ml.Model(formula, rows(), family="poisson").sample(method="independent", draws=50, progress=False)


def test_a_known_covariance_is_told() -> None:
    known = {"g": ml.KnownCovariance(list(range(8)), covariance=0.5 * np.eye(8) + 0.5)}
    model = ml.Model("count ~ x + (1 | g)", rows(), family="poisson", covariance=known)
    with pytest.raises(ml.OptionError, match="covariance of its group effects across levels is given"):
        model.sample(method="independent", draws=50, progress=False)


def test_too_much_work_is_known_before_anything_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joint_independent, "MOST_WORK", 10.0)
    monkeypatch.setattr(joint_independent, "choose_points", lambda *a: pytest.fail("it was tried"))
    with pytest.raises(ml.OptionError, match="too many rows"):
        ml.Model("count ~ x + (1 | g)", rows(), family="poisson").sample(method="independent", draws=50, progress=False)


def test_thinning_that_leaves_too_few_is_refused() -> None:
    with pytest.raises(ml.OptionError, match=r"thin=50 leaves 2 of 100 draws of each chain; at least 4"):
        sleep().sample(draws=100, thin=50)
    assert sleep().sample(seed=1, draws=100, thin=30, progress=False).draws_kept.draws == 4


@pytest.mark.filterwarnings("ignore:Do not trust")
def test_a_failed_check_leads_to_the_other_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(independent, "GOOD_ESS", 1e9)
    monkeypatch.setattr(independent, "GOOD_SHARE", 2.0)
    for model in (sleep(), ml.Model("count ~ x + (1 | g)", rows(), family="poisson")):
        assert model.sample(seed=1, draws=50, warmup=100, progress=False).draws_kept.method == "nuts"
