"""Independent draws of generalised models: unbiased likelihoods, the posterior that NUTS finds."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from test_joint import CASES, rows, target
from test_sample import standard_errors

import multilevel as ml
from multilevel import joint_independent


def few_levels(seed: int = 5) -> dict[str, Any]:
    data = rows(seed)
    return {**data, "g": data["g"] % 2, "h": data["h"] % 2}


def integral(core: Any, phi: Any, q: int, nodes: int) -> float:
    """Log of the integral of the joint density over q spherical effects, by adaptive quadrature around its mode."""
    u = np.zeros(q)

    def value(at: Any) -> float:
        return float(core.log_posterior(np.r_[phi, at], False)[0])

    def slope(at: Any) -> Any:
        return core.log_posterior(np.r_[phi, at], True)[1][len(phi) :]

    for _ in range(50):
        g = slope(u)
        curvature = np.column_stack([(slope(u - 1e-5 * e) - slope(u + 1e-5 * e)) / 2e-5 for e in np.eye(q)])
        u = u + np.linalg.solve((curvature + curvature.T) / 2, g)
    root = np.linalg.inv(np.linalg.cholesky((curvature + curvature.T) / 2)).T
    z, w = np.polynomial.hermite_e.hermegauss(nodes)
    log_w = np.log(w / w.sum()) + z**2 / 2
    logs = []
    for index in itertools.product(range(nodes), repeat=q):
        logs.append(sum(log_w[i] for i in index) + value(u + root @ z[list(index)]))
    return float(np.logaddexp.reduce(logs) + np.linalg.slogdet(root)[1])


# a square root's density has a pole between two modes, which quadrature about one cannot have
EVERY = [c for c in CASES if c[1].get("link") != "sqrt"]
CROSSED = [(r, o) for r, o in EVERY if r == "count" or o == {"family": "binomial", "link": "logit"}]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("response", "options", "random"),
    [(*c, "(1 | g)") for c in EVERY] + [(*c, "(x | g)") for c in EVERY[::3]] + [(*c, "(1 | g) + (1 | h)") for c in CROSSED],
    ids=lambda v: v if isinstance(v, str) else "-".join(v.values()),
)
def test_likelihoods_are_unbiased(response: str, options: dict[str, Any], random: str) -> None:
    made = target(f"{response} ~ x + {random}", few_levels(), **options)
    made.centred = [False] * len(made.centred)
    made.core = core = made._core()
    phi = made.start()
    q = int(core.size) - made.parameters
    truth = integral(core, phi, q, 21 if q == 2 else 9)
    many = np.tile(phi, (4000, 1))
    for outer, inner in ((2, 4), (4, 32)):
        logs, _ = core.importance(many, np.arange(4000, dtype=np.int32), np.zeros(q), outer, inner, 3, 1, False)
        ratios = np.exp(logs - truth)
        assert abs(ratios.mean() - 1) < 4 * ratios.std() / np.sqrt(4000) + 2e-5


MODELS: list[tuple[str, dict[str, Any], str]] = [
    ("bin | trials(m) ~ x + (x | g)", {"family": "binomial"}, "independent"),
    ("count ~ x + (1 | g) + (1 | h)", {"family": "nbinom2"}, "independent"),
    ("cat ~ x + (1 | g)", {"family": "ordinal"}, "independent"),
    ("num ~ x + (1 | g) + (1 | h)", {"family": "student"}, "independent"),
]


@pytest.mark.filterwarnings("ignore:Do not trust")  # a divergence or two of the other sampler
@pytest.mark.parametrize(("formula", "options", "method"), MODELS, ids=[m[0] for m in MODELS])
def test_draws_agree_with_nuts(formula: str, options: dict[str, Any], method: str) -> None:
    model = ml.Model(formula, rows(), priors={"sd": ml.HalfNormal(1)}, **options)
    one = model.sample(seed=1, progress=False).draws_kept
    other = model.sample(seed=2, method="nuts", target=0.9, draws=1500, progress=False).draws_kept
    assert one.method == method and other.method == "nuts"
    for a, b in [(one.beta, other.beta), (one.scalars, other.scalars)] + [
        (x[:, :, :4].reshape(*x.shape[:2], -1), y[:, :, :4].reshape(*y.shape[:2], -1))
        for x, y in zip(one.b, other.b, strict=True)
    ]:
        for i in range(a.shape[2]):
            first, second = standard_errors(a[:, :, i]), standard_errors(b[:, :, i])
            assert abs(a[:, :, i].mean() - b[:, :, i].mean()) < 4.5 * np.hypot(first[0], second[0])
            assert abs(a[:, :, i].std() - b[:, :, i].std()) < 4.5 * np.hypot(first[1], second[1])


def test_the_number_of_threads_changes_nothing() -> None:
    model = ml.Model("count ~ x + (1 | g) + (1 | h)", rows(), family="poisson")
    one, two = (model.sample(seed=7, draws=200, threads=t, progress=False).draws_kept for t in (1, 2))
    assert one.method == "independent"
    np.testing.assert_array_equal(one.scalars, two.scalars)
    np.testing.assert_array_equal(one.b[0], two.b[0])


def test_thinned_and_without_effects() -> None:
    model = ml.Model("count ~ x + (1 | g)", rows(), family="poisson")
    every = model.sample(seed=7, draws=200, progress=False).draws_kept
    thin = model.sample(seed=7, draws=200, thin=4, keep="parameters", progress=False).draws_kept
    np.testing.assert_array_equal(every.beta[:, ::4], thin.beta)
    assert thin.b == []


@pytest.mark.filterwarnings("ignore:Do not trust")
def test_too_many_parameters_are_for_nuts() -> None:
    data = rows()
    rng = np.random.default_rng(1)
    names = [f"v{i}" for i in range(joint_independent.LARGEST)]
    data |= {name: rng.standard_normal(60) for name in names}
    model = ml.Model(f"bin | trials(m) ~ {' + '.join(names)} + (1 | g)", data, family="binomial")
    with pytest.raises(ml.OptionError, match="does not suit this model"):
        model.sample(method="independent", draws=50)
    assert model.sample(seed=1, draws=50, progress=False, keep="parameters").draws_kept.method == "nuts"
