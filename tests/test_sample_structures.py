"""Full Bayes of structured residuals: against dense normal densities, integrals on a grid, REML, and equal models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from dense_structures import order_within, serial
from scipy import stats
from test_sample import standard_errors

import multilevel as ml
from multilevel.marginal import Marginal
from multilevel.marginal_residual import StructuredMarginal
from multilevel.prior_table import entries_of
from multilevel.reml import Engine
from multilevel.structured import StructuredEngine


def rows(groups: int = 6, each: int = 7, seed: int = 3) -> dict[str, Any]:
    """Serially correlated rows with unequal times and spreads."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(groups), each)
    step = np.tile(np.arange(each), groups)
    time = np.concatenate([np.cumsum(rng.uniform(0.3, 2.0, each)) for _ in range(groups)])
    x, sex = rng.normal(2, 1, len(g)), rng.integers(0, 2, len(g))
    e = np.linalg.cholesky(serial(g, step, 0.5)) @ rng.standard_normal(len(g)) * np.where(sex, 1.5, 1.0)
    y = 3 + 0.5 * x + rng.normal(0, 0.8, groups)[g] + e
    return {
        "y": y, "x": x, "size": np.exp(0.3 * x), "g": g, "step": step, "time": time, "w": rng.uniform(0.5, 2, len(g)),
        "sex": np.array(["f", "m"])[sex], "h": rng.integers(0, 4, len(g)),
    }  # fmt: skip


KIN = np.array([[1.0, 0.5, 0.2], [0.5, 1.0, 0.3], [0.2, 0.3, 1.2]])
KIN6 = np.kron(np.eye(2), KIN)
CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("y ~ x", {"correlation": "ar1(step | g)"}, {}),
    ("y ~ x + (1 | g)", {"correlation": "ar1(1 | g)"}, {"rho": ml.Normal(0.3, 0.2)}),
    ("y ~ x + (x | g)", {"correlation": "car1(time | g)"}, {"x": ml.StudentT(3, 0, 1)}),
    ("y ~ x + (1 | g) + (1 | h)", {"correlation": "ar1(step | g)"}, {"rho": ml.Uniform(-0.5, 0.9), "sd": ml.Gamma(2, 1)}),
    ("y ~ x + (1 | g)", {"variance": "ident(sex)"}, {"ratio": ml.HalfNormal(2), "Intercept": ml.Fixed(3.0)}),
    ("y ~ x + (x || g)", {"variance": "power(size)"}, {}),
    ("y ~ x + (1 | g)", {"variance": "exp(x)", "weights": "w"}, {"sigma": ml.HalfNormal(3)}),
    ("y ~ x + (1 | g)", {"variance": "exp(x)", "weights": "w"}, {"exp(x)": ml.Laplace(0, 0.3)}),
    ("y ~ x + cs(x | g)", {"variance": "ident(sex) + power(size)", "correlation": "ar1(step | g)", "weights": "w"}, {}),
    ("y ~ x + (1 | g)", {"correlation": "ar1(step | g)", "covariance": {
        "g": ml.KnownCovariance(list(range(6)), covariance=KIN6)}}, {"sigma": ml.Exponential(1)}),
]  # fmt: skip


def density(formula: str, options: dict[str, Any], priors: dict[str, Any], data: Any = None) -> StructuredMarginal:
    model = ml.Model(formula, rows() if data is None else data, priors=priors, **options)
    return StructuredMarginal(StructuredEngine(model.design, model.residual, 1), model.design, entries_of(model))


def point(made: StructuredMarginal, seed: int) -> Any:
    terms = made.design.terms
    sds, correlations = [np.full(len(t.names), 0.6) for t in terms], [np.eye(len(t.names)) for t in terms]
    start = made.start(sds, correlations, 1.2, np.full(2, 0.5))
    return start + 0.3 * np.random.default_rng(seed).standard_normal(made.size)


def row_covariance(data: Any, options: dict[str, Any], named: dict[str, float]) -> Any:
    """Of the residuals relative to sigma**2, from the definitions."""
    sd = 1 / np.sqrt(data["w"]) if "weights" in options else np.ones(len(data["y"]))
    rho = next((v for k, v in named.items() if k.startswith("rho")), 0.0)
    times = {"ar1(1": order_within(data["g"]), "car1(": data["time"]}.get(options.get("correlation", "")[:5], data["step"])
    sd = sd * np.where(data["sex"] == "m", named.get("ratio(sex, m)", 1.0), 1.0)
    sd = sd * data["size"] ** named.get("power(size)", 0.0) * np.exp(data["x"] * named.get("exp(x)", 0.0))
    return np.outer(sd, sd) * (serial(data["g"], times, rho) if "correlation" in options else np.eye(len(sd)))


def log_prior(prior: Any, v: float) -> float:
    """Up to a constant, from scipy."""
    frozen = {
        ml.Normal: lambda q: stats.norm(q.mu, q.sigma), ml.StudentT: lambda q: stats.t(q.nu, q.mu, q.sigma),
        ml.HalfNormal: lambda q: stats.halfnorm(scale=q.sigma), ml.Gamma: lambda q: stats.gamma(q.shape, scale=1 / q.rate),
        ml.HalfStudentT: lambda q: stats.t(q.nu, 0, q.sigma), ml.Exponential: lambda q: stats.expon(scale=1 / q.rate),
        ml.Laplace: lambda q: stats.laplace(q.mu, q.b), ml.LogNormal: lambda q: stats.lognorm(q.sigma, scale=np.exp(q.mu)),
        ml.Uniform: lambda q: stats.uniform(q.lower, q.upper - q.lower),
    }[type(prior)](prior)  # fmt: skip
    return float(frozen.logpdf(v))


def dense(made: StructuredMarginal, x: Any, data: Any, options: dict[str, Any]) -> float:
    """Log posterior density by the unconstrained coordinates, up to a constant."""
    d = made.design
    values = made.core.constrained(x[None])[0]
    coordinates = made.coordinates
    named = {c.name: v for c, v in zip(coordinates, values, strict=False)}
    cov = named["sigma"] ** 2 * row_covariance(data, options, named)
    out = 0.0
    for t, term in enumerate(d.terms):
        k = len(term.names)
        s = np.array([named[c.name] for c in coordinates if c.term == t and c.kind == "sd"])
        r = np.eye(k)
        for c in coordinates:
            if c.term == t and c.kind == "cor":
                r[c.effects[0], c.effects[1]] = r[c.effects[1], c.effects[0]] = named[c.name]
                # LKJ(2) of two effects, and the slope of tanh, or of the share of (-1, 1)
                out += 2 * np.log1p(-named[c.name] ** 2)
        z = np.ones((len(d.y), 1)) if term.Z is None else term.Z
        levels = np.asarray([int(v) for v in term.levels])
        kin = KIN6[np.ix_(levels, levels)] if "covariance" in options else np.eye(len(levels))
        cov += (z @ (r * np.outer(s, s)) @ z.T) * kin[np.ix_(term.codes, term.codes)]
    mean = np.zeros(len(d.y))
    sampled = iter(values[len(coordinates) :])
    for e in made.entries:
        if e.kind == "coefficient":
            column = d.X[:, e.effect]
            if isinstance(e.prior, ml.Normal):
                cov += np.outer(column, column) * e.prior.sigma**2
                mean += column * e.prior.mu
                continue
            v = float(e.prior.value) if isinstance(e.prior, ml.Fixed) else float(next(sampled))
            mean += column * v
            out += 0.0 if isinstance(e.prior, ml.Fixed) else log_prior(e.prior, v)
        elif e.kind in ("sd", "sigma"):
            v = named[e.name]
            if e.typical:  # the geometric mean of the rows' sds, weights divided by their mean
                base = np.diag(row_covariance(data, options, named)).copy()
                base *= np.mean(data["w"]) if "weights" in options else 1.0
                v *= np.exp(0.5 * np.mean(np.log(base)))
            out += log_prior(e.prior, v) + np.log(v)
        elif e.kind == "residual":
            v, (low, high) = named[e.name], e.limits
            out += log_prior(e.prior, v)
            out += np.log((v - low) * (high - v)) if np.isfinite(high) else np.log(v) if low == 0 else 0.0
    return out + float(stats.multivariate_normal(mean, cov).logpdf(d.y))


@pytest.mark.parametrize(("formula", "options", "priors"), CASES)
def test_values_and_slopes(formula: str, options: dict[str, Any], priors: dict[str, Any]) -> None:
    data = rows()
    made = density(formula, options, priors)
    points = [point(made, seed) for seed in range(4)]
    found = np.array([made.core.log_posterior(x, False)[0] for x in points])
    wanted = np.array([dense(made, x, data, options) for x in points])
    np.testing.assert_allclose(found - found[0], wanted - wanted[0], rtol=0, atol=1e-7)
    assert np.ptp(wanted) > 0.5
    np.testing.assert_allclose(made.core.log_posteriors(np.array(points), 1), found, rtol=0, atol=1e-9)
    _, slope = made.core.log_posterior(points[1], True)
    for i in range(made.size):
        e = 1e-4 * np.eye(made.size)[i]
        f = [made.core.log_posterior(points[1] + k * e, False)[0] for k in (-2, -1, 1, 2)]
        exact = (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / 12e-4
        plain = i < made.size - len(made.free)  # the others are one-sided differences
        assert slope[i] == pytest.approx(exact, rel=1e-6 if plain else 1e-3, abs=1e-6 if plain else 5e-3)


def small() -> dict[str, Any]:
    rng = np.random.default_rng(12)
    g, t = np.repeat(np.arange(3), 6), np.tile(np.arange(6), 3)
    e = np.linalg.cholesky(serial(g, t, 0.4)) @ rng.standard_normal(18)
    return {"y": 1 + 0.7 * e, "g": g, "t": t}


@pytest.mark.parametrize("method", ["independent", pytest.param("nuts", marks=pytest.mark.slow)])
def test_draws_are_those_of_an_integral_on_a_grid(method: str) -> None:
    """Three variance parameters: 61 x 61 x 61 dense normal densities, the intercept integrated out."""
    data = small()
    priors = {"Intercept": ml.Normal(0, 2), "sd": ml.HalfNormal(1), "sigma": ml.HalfNormal(1), "rho": ml.Normal(0, 0.5)}
    model = ml.Model("y ~ 1 + (1 | g)", data, correlation="ar1(t | g)", priors=priors)
    kept = model.sample(seed=5, draws=1000, chains=3, method=method).draws_kept
    assert kept.method == method
    sd, sigma = np.linspace(0.01, 4, 61), np.linspace(0.25, 2.6, 61)
    rho = np.linspace(-0.95, 0.98, 61)
    same = np.equal.outer(data["g"], data["g"]).astype(float)
    log_p = np.empty((61, 61, 61))
    for k, r in enumerate(rho):
        correlation = serial(data["g"], data["t"], 1.0 if r == 0 else abs(r)) * np.sign(r) ** np.abs(
            np.subtract.outer(data["t"], data["t"])
        )
        v = (
            sd[:, None, None, None] ** 2 * same + sigma[None, :, None, None] ** 2 * correlation + 4 * np.ones((18, 18))
        )  # fmt: skip
        root = np.linalg.cholesky(v)
        z = np.linalg.solve(root, np.broadcast_to(data["y"][:, None], (61, 61, 18, 1)))[..., 0]
        log_p[:, :, k] = -np.log(np.einsum("...ii->...i", root)).sum(-1) - 0.5 * (z**2).sum(-1)
    log_p += -0.5 * sd[:, None, None] ** 2 - 0.5 * sigma[None, :, None] ** 2 - 0.5 * (rho / 0.5) ** 2
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    for i, (axis, values) in enumerate((((1, 2), sd), ((0, 2), sigma), ((0, 1), rho))):
        x, weight = kept.scalars[..., i], p.sum(axis=axis)
        mean = float(weight @ values)
        of_mean, of_sd = standard_errors(x)
        assert abs(x.mean() - mean) < 4 * of_mean
        assert abs(x.std() - np.sqrt(weight @ (values - mean) ** 2)) < 4 * of_sd


def test_held_parameters_give_the_exact_conditional_normal() -> None:
    """Everything held but coefficients and effects: means and covariances of a joint normal distribution."""
    data = rows()
    priors = {
        "Intercept": ml.Normal(2, 3), "x": ml.Normal(0, 1), "sd": ml.Fixed(0.8), "sigma": ml.Fixed(0.9), "rho": ml.Fixed(0.6),
        "ratio": ml.Fixed(1.4),
    }  # fmt: skip
    model = ml.Model("y ~ x + (1 | g)", data, correlation="ar1(step | g)", variance="ident(sex)", priors=priors)
    posterior = model.sample(seed=2, draws=2500)
    kept = posterior.draws_kept
    assert kept.method == "exact"
    assert (kept.scalars == [0.8, 0.9, 1.4, 0.6]).all()
    d = model.design
    z = np.eye(6)[d.terms[0].codes]
    a = np.hstack([d.X, z])
    prior = np.diag(np.r_[9.0, 1.0, np.full(6, 0.64)])
    residual = {"correlation": "ar1(step | g)"}
    v = 0.81 * row_covariance(data, residual, {"rho": 0.6, "ratio(sex, m)": 1.4})
    cov = np.linalg.inv(np.linalg.inv(prior) + a.T @ np.linalg.solve(v, a))
    mean = cov @ (a.T @ np.linalg.solve(v, d.y) + np.r_[2 / 9, np.zeros(7)])
    found = np.concatenate([kept.beta, kept.b[0][..., 0]], axis=2).reshape(-1, 8)
    error = np.sqrt(np.diag(cov) / len(found))
    assert (np.abs(found.mean(axis=0) - mean) < 4 * error).all()
    np.testing.assert_allclose(np.cov(found.T), cov, atol=5 * cov.max() / np.sqrt(len(found)))


def test_held_ratios_are_weights() -> None:
    data = rows()
    data["inverse"] = np.where(data["sex"] == "m", 1 / 1.7**2, 1.0)
    priors = {"sigma": ml.HalfNormal(2), "sd": ml.HalfNormal(2), "b": ml.Normal(0, 1), "Intercept": ml.Normal(0, 5)}
    one = ml.Model("y ~ x + (1 | g)", data, variance="ident(sex)", priors={**priors, "ratio": ml.Fixed(1.7)})
    two = ml.Model("y ~ x + (1 | g)", data, weights="inverse", priors=priors)
    held = StructuredMarginal(StructuredEngine(one.design, one.residual, 1), one.design, entries_of(one))
    weighted = Marginal(Engine(two.design, 1), two.design, entries_of(two))
    points = np.random.default_rng(2).normal(0, 0.5, (6, 2))
    found, wanted = held.core.log_posteriors(points, 1), weighted.core.log_posteriors(points, 1)
    np.testing.assert_allclose(found - found[0], wanted - wanted[0], atol=1e-9)
    a, b = one.sample(seed=4), two.sample(seed=4)
    assert a.draws_kept.method == b.draws_kept.method == "independent"
    np.testing.assert_allclose(a.draws_kept.scalars[..., :2].mean((0, 1)), b.draws_kept.scalars.mean((0, 1)), rtol=0.01)
    np.testing.assert_allclose(a.log_likelihood().mean(), b.log_likelihood().mean(), rtol=0.01)


@pytest.mark.slow
def test_much_data_and_flat_priors_give_the_reml_fit() -> None:
    data = rows(150, 8, seed=8)
    flat = {"b": ml.Flat(), "Intercept": ml.Flat(), "sigma": ml.Flat(), "sd": ml.Flat(), "rho": ml.Flat(), "ratio": ml.Flat()}
    model = ml.Model("y ~ x + (1 | g)", data, correlation="ar1(step | g)", variance="ident(sex)", priors=flat)
    posterior, fit = model.sample(seed=1), model.fit()
    assert posterior.trust[0]
    kept = posterior.draws_kept
    scalars = kept.scalars.reshape(-1, 4)
    estimates = [np.sqrt(fit.random_cov()[0][0, 0]), fit.sigma, *fit.optimum.residual]
    assert (np.abs(scalars.mean(axis=0) - estimates) < 0.25 * scalars.std(axis=0)).all()
    beta = kept.beta.reshape(-1, 2)
    assert (np.abs(beta.mean(axis=0) - fit.optimum.beta) < 0.1 * beta.std(axis=0)).all()
    np.testing.assert_allclose(beta.std(axis=0), np.sqrt(np.diag(fit.vcov())), rtol=0.06)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Do not trust")  # few draws of NUTS, enough to compare
def test_many_ratios_are_drawn_as_by_nuts() -> None:
    """Twelve coordinates, more than a Sobol sequence has."""
    data = rows(30, 10, seed=5)
    model = ml.Model("y ~ x + (1 | g)", data, variance="ident(step)", correlation="ar1(step | g)")
    one = model.sample(seed=1)
    two = model.sample(seed=2, method="nuts", chains=2, draws=300, warmup=200)
    assert one.trust[0] and one.draws_kept.method == "independent" and two.draws_kept.method == "nuts"
    assert one.draws_kept.scalars.shape[2] == 12
    assert two.draws_kept.stats["diverging"].sum() == 0
    for i in range(12):
        a, b = one.draws_kept.scalars[..., i], two.draws_kept.scalars[..., i]
        (mean_a, sd_a), (mean_b, sd_b) = standard_errors(a), standard_errors(b)
        assert abs(a.mean() - b.mean()) < 4 * np.hypot(mean_a, mean_b)
        assert abs(a.std() - b.std()) < 4 * np.hypot(sd_a, sd_b)


@pytest.mark.slow
def test_every_row_given_the_others_is_a_conditional_normal() -> None:
    data = rows()
    model = ml.Model(
        "y ~ x + (1 | g)", data, correlation="car1(time | g)", variance="ident(sex) + power(size)", weights="w"
    )
    posterior = model.sample(seed=3, draws=50)
    found = posterior.log_likelihood()
    d, kept = model.design, posterior.draws_kept
    named = [c.name for c in kept.coordinates]
    options = {"correlation": "car1(time | g)", "weights": "w"}
    for chain, draw in ((0, 0), (1, 17), (3, 49)):
        values = dict(zip(named, kept.scalars[chain, draw], strict=True))
        cov = values["sigma"] ** 2 * row_covariance(data, options, values)
        e = d.y - d.X @ kept.beta[chain, draw] - kept.b[0][chain, draw, d.terms[0].codes, 0]
        q = np.linalg.inv(cov)
        wanted = stats.norm(e - q @ e / np.diag(q), np.diag(q) ** -0.5).logpdf(e)
        np.testing.assert_allclose(found[chain, draw], wanted, atol=1e-9)
    assert np.isfinite(posterior.loo().elpd)


def test_new_observations_have_the_spread_of_their_rows() -> None:
    data = rows()
    held = {"sigma": ml.Fixed(1.3), "sd": ml.Fixed(0.5), "ratio": ml.Fixed(2.0), "exp": ml.Fixed(0.4)}
    held["exp(x)"] = held.pop("exp")
    model = ml.Model("y ~ x + (1 | g)", data, variance="ident(sex) + exp(x)", priors=held)
    posterior = model.sample(seed=3, draws=2000)
    new = {"x": [0.0, 2.0, 2.0], "sex": ["f", "m", "f"], "g": [0, 0, 1]}
    sds = np.array([1.3, 1.3 * 2 * np.exp(0.8), 1.3 * np.exp(0.8)])
    inner = np.asarray(posterior.predict(new, interval="confidence")["est_error"])
    outer = np.asarray(posterior.predict(new, interval="prediction", seed=1)["est_error"])
    np.testing.assert_allclose(outer, np.sqrt(inner**2 + sds**2), rtol=0.05)
    fitted = np.asarray(posterior.predict(interval="prediction", seed=1)["est_error"])
    mean = np.asarray(posterior.predict(interval="confidence")["est_error"])
    rows_sd = 1.3 * np.where(data["sex"] == "m", 2.0, 1.0) * np.exp(0.4 * data["x"])
    np.testing.assert_allclose(fitted, np.sqrt(mean**2 + rows_sd**2), rtol=0.06)


def test_simulated_responses_are_correlated_as_the_draws_say() -> None:
    from multilevel.row_draws import new_responses

    data = rows(40, 8)
    values = {"sigma": 1.0, "sd": 0.001, "rho": -0.6, "Intercept": 0.0, "x": 0.0}
    held = {name: ml.Fixed(value) for name, value in values.items()}
    model = ml.Model("y ~ x + (1 | g)", data, correlation="ar1(step | g)", priors=held)
    posterior = model.sample(seed=3, draws=250)
    simulated = np.column_stack(list(dict(posterior.simulate(500, seed=2)).values())).reshape(40, 8, 500)
    again = np.moveaxis(new_responses(posterior, np.random.default_rng(3)).reshape(1000, 40, 8), 0, 2)
    for y in (simulated, again):
        assert np.mean(y[:, 1:] * y[:, :-1]) == pytest.approx(-0.6, abs=0.02)
        assert np.mean(y[:, 2:] * y[:, :-2]) == pytest.approx(0.36, abs=0.02)
        assert np.mean(y**2) == pytest.approx(1.0, abs=0.02)


def test_the_same_seed_gives_the_same_draws_with_any_threads() -> None:
    model = ml.Model("y ~ x + (1 | g)", rows(), correlation="ar1(step | g)")
    one, two = model.sample(seed=9, draws=200, threads=1), model.sample(seed=9, draws=200, threads=2)
    np.testing.assert_array_equal(one.draws_kept.scalars, two.draws_kept.scalars)
    np.testing.assert_array_equal(one.draws_kept.b[0], two.draws_kept.b[0])
    thin = model.sample(seed=9, draws=200, thin=2, keep="parameters")
    assert thin.draws_kept.b == [] and thin.draws_kept.draws == 100


def test_defaults_are_printed_and_names_are_those_of_the_fit() -> None:
    model = ml.Model("y ~ x + (1 | g)", rows(), correlation="ar1(step | g)", variance="ident(sex) + power(size)")
    table = model.prior_summary()
    priors = dict(zip(table["parameter"], table["prior"], strict=True))
    assert priors["rho(g)"] == "Uniform(-1, 1)"
    assert priors["ratio(sex, m)"] == "LogNormal(0, 1)"
    assert priors["power(size)"] == "Normal(0, 1)"
    assert priors["sigma"].endswith("for the sd of a typical row")
    posterior = model.sample(seed=1, draws=100)
    names = list(posterior.parameters()["parameter"])
    assert names[-3:] == ["ratio(sex, m)", "power(size)", "rho(g)"]
    assert "Residual: ident(sex), power(size), ar1(step | g)" in str(posterior)
    mine = ml.Model("y ~ x", rows(), variance="power(size)", priors={"sigma": ml.HalfNormal(2)}).prior_summary()
    assert dict(zip(mine["parameter"], mine["prior"], strict=True))["sigma"] == "HalfNormal(2)"


def test_variances_of_fitted_values_are_those_of_the_fit() -> None:
    model = ml.Model("y ~ x + (1 | g)", rows(40, 8), variance="power(fitted)")
    posterior, fit = model.sample(seed=1, draws=500), model.fit()
    assert "fitted values: those of the REML fit" in str(posterior)
    x = posterior.draws_kept.scalars[..., -1]
    assert abs(x.mean() - fit.optimum.residual[0]) < x.std()
    assert np.isfinite(np.asarray(posterior.predict({"x": [1.0], "g": [0]}, interval="prediction", seed=1)["ci_low"])).all()


@pytest.mark.parametrize(
    ("priors", "message"),
    [
        ({"rho(h)": ml.Normal()}, "'rho(g)'"),
        ({"rho": ml.Fixed(1.2)}, "lies between -1 and 1"),
        ({"rho": ml.Uniform(-2, 2)}, "lies between -1 and 1"),
        ({"rho": ml.LKJ(2)}, "LKJ is a prior of correlations of group effects"),
        ({"ratio": ml.Fixed(-1)}, "is positive"),
        ({"ratio": ml.Fixed(np.eye(2))}, "is one number"),
        ({"power(size)": ml.Normal()}, "there is no parameter"),
    ],
)
def test_impossible_priors(priors: dict[str, Any], message: str) -> None:
    model = ml.Model("y ~ x + (1 | g)", rows(), correlation="ar1(step | g)", variance="ident(sex)", priors=priors)
    for verb in (model.prior_summary, model.sample):
        with pytest.raises(ml.OptionError) as caught:
            verb()
        assert message in str(caught.value)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Do not trust")  # where the check is missed, ranks would show what that does
def test_ranks_of_parameters_drawn_from_the_prior_are_uniform() -> None:
    """Simulation-based calibration (Talts et al. 2018): 60 data sets from the prior predictive distribution."""
    data = rows(8, 6)
    priors = {
        "Intercept": ml.Normal(0, 1), "x": ml.Normal(0, 1), "sd": ml.HalfNormal(1), "sigma": ml.LogNormal(0, 0.3),
        "rho": ml.Uniform(-0.9, 0.9), "ratio": ml.LogNormal(0, 0.5),
    }  # fmt: skip
    rng = np.random.default_rng(1)
    ranks = []
    for i in range(60):
        truth = {
            "b0": rng.normal(), "b1": rng.normal(), "sd": abs(rng.normal()), "sigma": np.exp(0.3 * rng.normal()),
            "ratio": np.exp(0.5 * rng.normal()), "rho": rng.uniform(-0.9, 0.9),
        }  # fmt: skip
        lag = np.abs(np.subtract.outer(data["step"], data["step"]))
        r = np.where(np.equal.outer(data["g"], data["g"]), np.sign(truth["rho"]) ** lag * abs(truth["rho"]) ** lag, 0.0)
        spread = truth["sigma"] * np.where(data["sex"] == "m", truth["ratio"], 1.0)
        e = spread * (np.linalg.cholesky(r) @ rng.standard_normal(len(r)))
        y = truth["b0"] + truth["b1"] * data["x"] + truth["sd"] * rng.standard_normal(8)[data["g"]] + e
        model = ml.Model(
            "y ~ x + (1 | g)", {**data, "y": y}, correlation="ar1(step | g)", variance="ident(sex)", priors=priors
        )
        kept = model.sample(seed=i, chains=1, draws=500, method="independent").draws_kept
        values = np.concatenate([kept.beta[0], kept.scalars[0]], axis=1)
        ranks.append((values < list(truth.values())).mean(axis=0))
    p = [stats.kstest(column, "uniform").pvalue for column in np.array(ranks).T]
    assert min(p) > 0.002
