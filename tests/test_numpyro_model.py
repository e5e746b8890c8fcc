"""Models handed over to NumPyro: their text, their densities where NumPyro is installed, its stored posteriors."""

from __future__ import annotations

import ast
import json
import sys
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_posteriors.make_numpyro import MODELS, estimates, flat
from scipy import stats
from scipy.linalg import solve_triangular

import multilevel as ml
from multilevel import numpyro_text
from multilevel.arviz_tree import response_name, variables
from multilevel.priors import Prior

STORED = json.loads((Path(__file__).parent / "golden_posteriors" / "numpyro.json").read_text())
# JAX 0.10's betaln, through which NumPyro takes these, is up to 1.3e-6 off (8e-7 at betaln(0.83, 8)); ours are within 1e-13
# of the densities in 50 digits
BY_BETALN = ("beta-binomial", "nbinom1", "nbinom2", "inflated")
SLOW = ("epilepsy_poisson", "epilepsy_negative_binomial")  # seconds to sample


# -- posteriors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in MODELS])
def test_numpyros_posterior_is_ours(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ml.ConvergenceWarning)  # single divergences, of which the comparison says more
        found = estimates(flat(MODELS[name]().sample(seed=3, draws=2000).to_dict()))
    assert set(found) == set(STORED[name]) and len(found) >= 7
    for parameter, wanted in STORED[name].items():
        for what in ("mean", "sd"):
            error = np.hypot(found[parameter][f"mcse_{what}"], wanted[f"mcse_{what}"])
            assert abs(found[parameter][what] - wanted[what]) < 4 * error, f"{what} of {parameter}"


# -- the text ------------------------------------------------------------------------------------------------


def sites(source: str) -> list[str]:
    """Names of all sites of a program."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = ast.unparse(node.func)
            if called in ("numpyro.sample", "numpyro.deterministic", "numpyro.factor", "numpyro.plate", "cut_at_zero"):
                names.append(node.args[0].value)
    return names


@cache
def linear() -> Any:
    return ml.Model("math ~ homework + (homework | schid)", ml.load("math10"))


def test_source_and_arguments_of_a_linear_model() -> None:
    handed = linear().to_numpyro()
    assert list(handed.args) == ["X", "group_1", "Z_1", "y"]
    assert "def model(X, group_1, Z_1, y=None):" in handed.source
    assert set(sites(handed.source)) == {
        "Intercept", "homework", "sd(schid, Intercept)", "sd(schid, homework)", "cor_root(schid)",
        "cor(schid, Intercept, homework)", "levels(schid)", "z(schid)", "ranef(schid)", "sigma", "rows", "math",
    }  # fmt: skip
    np.testing.assert_array_equal(handed.args["y"], linear().design.y)
    assert str(handed) == handed.source and "# args: X (260, 2)" in repr(handed)


def test_sites_are_what_the_posterior_calls_them() -> None:
    posterior = linear().sample(seed=1, chains=1, draws=10)
    assert set(variables(posterior)) <= set(sites(linear().to_numpyro().source))


def test_defaults_stand_in_the_source_in_full() -> None:
    table = linear().prior_summary()
    assert table["prior"].iloc[1].startswith("Normal(0, 17.97")
    assert "dist.Normal(0.0, 17.966270808567373)" in linear().to_numpyro().source


@pytest.mark.parametrize(
    ("formula", "family", "further", "expected"),
    [
        ("y ~ x + (1 | g)", "poisson", {}, "dist.Poisson(jnp.exp(eta))"),
        ("y ~ x + (1 | g)", "nbinom2", {}, "dist.NegativeBinomial2(jnp.exp(eta), jnp.exp(log_dispersion))"),
        ("y ~ x + (1 | g)", "nbinom2", {"dispersion": "~ x"}, "log_dispersion = X_dispersion @ gamma_dispersion"),
        ("y ~ x + (1 | g)", "poisson", {"zi": "~ x"}, "logit_zero = X_zi @ gamma_zi"),
        ("y ~ x + (1 | g)", "poisson", {"hurdle": "~ 1"}, "hurdle_log_prob(dist.Poisson(jnp.exp(eta)), logit_zero, y)"),
        ("y ~ x + (1 | g)", "poisson", {"weights": "w"}, "with numpyro.handlers.scale(scale=weights):"),
        ("y ~ x + offset(w) + (x || g)", "gaussian", {}, "eta = eta + offset"),
        ("y ~ x + (1 | g)", "gaussian", {"weights": "w"}, "dist.Normal(eta, sigma / jnp.sqrt(weights))"),
        ("y ~ x + (1 | g)", "ordinal", {}, "dist.OrderedLogistic(eta, thresholds)"),
        ("y ~ x + (1 | g)", "ordinal", {"link": "probit"}, "dist.Categorical(probs=steps)"),
        ("cbind(y, w) ~ x + (1 | g)", "binomial", {"link": "probit"}, "probs=jax.scipy.special.ndtr(eta)"),
        ("b ~ x + (1 | g)", "binomial", {}, "dist.Bernoulli(logits=eta)"),
        ("y ~ cs(1 + x | g)", "gaussian", {}, "dist.transforms.AffineTransform(-1.0, 2.0"),
        ("y ~ 0 + (1 | g)", "gaussian", {}, "eta = jnp.zeros(n)"),
    ],
)
def test_source_of_other_models(formula: str, family: str, further: dict[str, Any], expected: str) -> None:
    rng = np.random.default_rng(4)
    g = np.repeat(np.arange(10), 6)
    data = {
        "y": rng.poisson(1.5, 60), "w": rng.integers(1, 4, 60), "x": rng.normal(size=60), "g": g, "b": rng.integers(0, 2, 60)
    }  # fmt: skip
    handed = ml.Model(formula, data, family=family, **further).to_numpyro()
    assert expected in handed.source
    names = sites(handed.source)
    assert len(set(names)) == len(names)
    called = ast.parse(handed.source).body[-1]
    assert isinstance(called, ast.FunctionDef) and [a.arg for a in called.args.args] == list(handed.args)
    loaded = {n.id for n in ast.walk(called) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    stored = {n.id for n in ast.walk(called) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    above = {"jnp", "dist", "numpyro", "hurdle_log_prob"} | ({"jax"} if "import jax\n" in handed.source else set())
    assert loaded <= stored | set(handed.args) | above


def test_names_cannot_break_the_text() -> None:
    rng = np.random.default_rng(5)
    odd = "it's \"\"\" \\ {0}\n#"
    data = {"y": rng.normal(size=40), odd: np.repeat(np.arange(8), 5), "y_": rng.normal(size=40), "rows": rng.normal(size=40)}
    data["sigma"] = rng.normal(size=40)
    handed = ml.Model(f"y ~ y_ + rows + sigma + (1 + rows | `{odd}`)", data).to_numpyro()
    names = sites(handed.source)
    assert len(set(names)) == len(names)
    assert f"ranef({odd})" in names and "b(sigma)" in names and "rows_" in names


def test_held_parameters_are_no_draws() -> None:
    priors = {"homework": ml.Fixed(1.0), "sd(schid, homework)": ml.Fixed(2.0), "cor": ml.Fixed(0.5), "sigma": ml.Fixed(3.0)}
    source = ml.Model("math ~ homework + (homework | schid)", ml.load("math10"), priors=priors).to_numpyro().source
    assert "numpyro.deterministic('homework', 1.0)" in source and "numpyro.deterministic('sigma', 3.0)" in source
    assert "LKJ" not in source and f"root_1 = jnp.array([[1.0, 0.0], [0.5, {float(np.sqrt(0.75))!r}]])" in source


def test_file(tmp_path: Path) -> None:
    handed = linear().to_numpyro()
    handed.save(tmp_path / "school.py")
    assert (tmp_path / "school.py").read_text(encoding="utf-8") == handed.source
    with pytest.raises(ml.OptionError, match="Python file"):
        handed.save(tmp_path / "school.txt")


def test_without_numpyro_the_text_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpyro", None)
    handed = linear().to_numpyro()
    with pytest.raises(ml.OptionError, match=r"pip install numpyro; its text is in \.source"):
        _ = handed.model


def test_what_cannot_be_handed_over() -> None:
    structured = ml.Model("Reaction ~ Days + (1 | Subject)", ml.load("sleepstudy"), correlation="ar1(1 | Subject)")
    with pytest.raises(ml.OptionError, match="independent residuals"):
        structured.to_numpyro()
    held = ml.Model("rating ~ temp + (1 | judge)", ml.load("wine"), family="ordinal", priors={"1|2": ml.Fixed(-1.0)})
    with pytest.raises(ml.OptionError, match="thresholds"):
        held.to_numpyro()
    wrong = ml.Model("math ~ homework + (1 | schid)", ml.load("math10"), priors={"homwork": ml.Normal(0, 1)})
    with pytest.raises(ml.OptionError, match="homework"):
        wrong.to_numpyro()


def test_a_model_without_its_rows_says_so(tmp_path: Path) -> None:
    ml.lmer("math ~ homework + (1 | schid)", ml.load("math10")).save(tmp_path / "fit.mlv")
    with pytest.raises(ml.DataError, match="data=True"):
        ml.read(tmp_path / "fit.mlv").model.to_numpyro()


# -- with NumPyro --------------------------------------------------------------------------------------------

PRIORS: list[tuple[Prior, bool, Any]] = [
    (ml.Normal(1, 2), False, stats.norm(1, 2)),
    (ml.Normal(0, 2), True, stats.halfnorm(scale=2)),
    (ml.StudentT(3, 1, 2), False, stats.t(3, 1, 2)),
    (ml.StudentT(3, 0, 2), True, None),
    (ml.HalfStudentT(3, 2), True, None),
    (ml.Cauchy(1, 2), False, stats.cauchy(1, 2)),
    (ml.HalfCauchy(2), True, stats.halfcauchy(scale=2)),
    (ml.Laplace(1, 2), False, stats.laplace(1, 2)),
    (ml.Laplace(0, 2), True, stats.expon(scale=2)),
    (ml.Exponential(0.5), True, stats.expon(scale=2)),
    (ml.Gamma(2, 3), True, stats.gamma(2, scale=1 / 3)),
    (ml.InverseGamma(3, 2), True, stats.invgamma(3, scale=2)),
    (ml.LogNormal(0.3, 0.7), True, stats.lognorm(0.7, scale=np.exp(0.3))),
    (ml.Uniform(0.5, 4), True, stats.uniform(0.5, 3.5)),
    (ml.Normal(2, 1), True, stats.norm(2, 1)),
]


def numpyro_or_skip() -> Any:
    """NumPyro, in double precision."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        numpyro = pytest.importorskip("numpyro")
    numpyro.enable_x64()
    return numpyro


@pytest.mark.parametrize(("prior", "positive", "truth"), PRIORS, ids=lambda v: v.text() if isinstance(v, Prior) else "")
def test_priors_are_numpyros(prior: Prior, positive: bool, truth: Any) -> None:
    numpyro_or_skip()
    import numpyro.distributions as dist

    found = numpyro_text.distribution(prior, positive)
    values = np.array([0.7, 1.1, 2.3, 3.9])
    wanted = stats.t(3, scale=2).logpdf(values) + np.log(2) if truth is None else truth.logpdf(values)
    np.testing.assert_allclose(eval(found.expression, {"dist": dist}).log_prob(values), wanted, rtol=1e-10)
    assert found.cut == (prior == ml.Normal(2, 1))


def handed_models() -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Name -> formula, data set, options: a model of every family and structure."""
    rng = np.random.default_rng(6)
    cows, ticks = "incidence | trials(size) ~ period + (1 | herd)", "TICKS ~ YEAR + (1 | LOCATION)"
    pigs, wine = "Weight ~ Time + (1 | Pig)", "rating ~ temp + contact + (1 | judge)"
    known = np.full((10, 10), 0.3) + 0.7 * np.eye(10)
    school = ml.KnownCovariance(sorted(set(ml.load("math10")["schid"])), covariance=known)
    out: dict[str, tuple[str, str, dict[str, Any]]] = {
        "correlated": ("math ~ homework + (homework | schid)", "math10", {}),
        "weighted": ("math ~ homework + (homework || schid)", "math10", {
            "weights": rng.uniform(0.5, 2, 260), "offset": rng.normal(size=260)}),
        "two terms": ("math ~ homework + (1 | schid) + (0 + homework | schid)", "math10", {}),
        "equal": ("math ~ homework + cs(1 + homework | schid)", "math10", {}),
        "serial": ("Reaction ~ Days + ar1(0 + factor(Days) | Subject)", "sleepstudy", {}),
        "held": ("Reaction ~ Days + (Days | Subject)", "sleepstudy", {"priors": {
            "cor": ml.Fixed(0.3), "sigma": ml.Fixed(25.0), "Days": ml.Fixed(10.0), "sd": ml.StudentT(4, 20, 10)}}),
        "related": ("math ~ homework + (1 | schid)", "math10", {"covariance": {"schid": school}}),
        "beta-binomial": (cows, "cbpp", {"family": "betabinomial"}),
        "poisson": ("TICKS ~ YEAR + (1 | BROOD) + (1 | LOCATION)", "grouseticks", {"family": "poisson"}),
        "nbinom1": (ticks, "grouseticks", {"family": "nbinom1"}),
        "nbinom2": (ticks, "grouseticks", {"family": "nbinom2", "dispersion": "~ YEAR"}),
        "inflated": (ticks, "grouseticks", {"family": "nbinom2", "zi": "~ 1"}),
        "hurdle": (ticks, "grouseticks", {"family": "poisson", "hurdle": "~ YEAR"}),
        "ordinal": (wine, "wine", {"family": "ordinal"}),
        "ordinal probit": (wine, "wine", {"family": "ordinal", "link": "probit"}),
        "beta": ("yield ~ temp + (1 | batch)", "gasolineyield", {"family": "beta"}),
        "gaussian log": (pigs, "dietox", {"family": "gaussian", "link": "log"}),
    }  # fmt: skip
    out |= {f"binomial {link}": (cows, "cbpp", {"family": "binomial", "link": link}) for link in
            ("logit", "probit", "cloglog", "cauchit")}  # fmt: skip
    return out | {family: (pigs, "dietox", {"family": family}) for family in
                  ("gamma", "inverse_gaussian", "lognormal", "student")}  # fmt: skip


def at_draw(posterior: Any, i: int) -> dict[str, Any]:
    """Values of NumPyro's sites at one of our draws."""
    d, kept = posterior.design, posterior.draws_kept
    out: dict[str, Any] = {name: v.values[0, i] for name, v in variables(posterior).items() if not v.dims}
    cuts = [kept.scalars[0, i, j] for j, c in enumerate(kept.coordinates) if c.kind == "further"]
    if posterior.model.family == "ordinal":
        out["thresholds"] = np.array(cuts)
    seen: dict[str, int] = {}
    for t, term in enumerate(d.terms):
        v, b = posterior.covariances(t)[0, i], kept.b[t][0, i]
        sd = np.sqrt(np.diag(v))
        root = np.linalg.cholesky(v / np.outer(sd, sd))
        if term.group in d.known:
            lower = np.linalg.cholesky(d.known[term.group].precision.toarray())
            b = np.linalg.solve(solve_triangular(lower, np.eye(len(lower)), lower=True, trans="T"), b)
        z = b @ np.linalg.inv(sd[:, None] * root).T
        more = "_" * seen.get(term.group, 0)
        seen[term.group] = seen.get(term.group, 0) + 1
        out[f"z({term.group}){more}"] = z[:, 0] if len(sd) == 1 else z
        out[f"cor_root({term.group}){more}"] = root
    return out


@pytest.mark.parametrize("name", list(handed_models()))
def test_likelihood_and_effects_are_ours(name: str) -> None:
    numpyro = numpyro_or_skip()
    formula, data, options = handed_models()[name]
    model = ml.Model(formula, ml.load(data).dropna(), **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ml.MultilevelWarning)
        posterior = model.sample(seed=1, chains=1, draws=20, warmup=100)
    handed, wanted = model.to_numpyro(), posterior.log_likelihood()[0]
    for i in (3, 15):
        held = numpyro.handlers.substitute(numpyro.handlers.seed(handed.model, 0), at_draw(posterior, i))
        trace = numpyro.handlers.trace(held).get_trace(**handed.args)
        site = trace[response_name(model.design)]
        found = getattr(site["fn"], "log_factor", None)
        found = site["fn"].log_prob(site["value"]) if found is None else found
        within = 5e-6 if name in BY_BETALN else 1e-8
        np.testing.assert_allclose(np.asarray(found), wanted[i], rtol=0 if name in BY_BETALN else 1e-8, atol=within)
        for what, v in variables(posterior).items():
            np.testing.assert_allclose(trace[what]["value"], v.values[0, i], rtol=1e-8, atol=1e-8)


def test_it_samples() -> None:
    numpyro = numpyro_or_skip()
    import jax

    model = ml.Model("incidence | trials(size) ~ 1 + (1 | herd)", ml.load("cbpp"), family="binomial",
                     priors={"sd": ml.Normal(0.5, 0.3)})  # fmt: skip
    handed = model.to_numpyro()
    assert "cut_at_zero('sd(herd, Intercept)', dist.Normal(0.5, 0.3))" in handed.source
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mcmc = numpyro.infer.MCMC(
            numpyro.infer.NUTS(handed.model), num_warmup=500, num_samples=2000, num_chains=1, progress_bar=False
        )
        mcmc.run(jax.random.PRNGKey(0), **handed.args)
        found = estimates({n: np.asarray(v)[None] for n, v in mcmc.get_samples().items() if v.ndim == 1})
        ours = estimates(flat(model.sample(seed=2, draws=2000).to_dict()))
    for name in ("Intercept", "sd(herd, Intercept)"):
        error = np.hypot(found[name]["mcse_mean"], ours[name]["mcse_mean"])
        assert abs(found[name]["mean"] - ours[name]["mean"]) < 4 * error
