"""Pieces of NumPyro programs as text: prior distributions, links, densities of responses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import priors
from .priors import Prior

if TYPE_CHECKING:
    from .families import Family

__all__ = ["Expression", "distribution", "head", "helpers", "imports", "likelihood", "observed", "single_correlation"]

HEAD = '''"""{about}

Sample it, in double precision as the arrays are:

    numpyro.enable_x64()
    mcmc = numpyro.infer.MCMC(numpyro.infer.NUTS(model), num_warmup=1000, num_samples=1000, num_chains=4)
    mcmc.run(jax.random.PRNGKey(1), **args)
"""

{imports}


'''
HELPERS = {
    "cut": '''def cut_at_zero(name, distribution):
    """A positive parameter, its density proportional to the distribution's."""
    value = numpyro.sample(name, dist.ImproperUniform(dist.constraints.positive, (), ()))
    numpyro.factor("prior of " + name, distribution.log_prob(value))
    return value


''',
    "hurdle": '''def hurdle_log_prob(base, logit_zero, y):
    """Log density of counts that are zero with a probability of their own, and truncated above zero elsewhere."""
    above = base.log_prob(y) - jnp.log(-jnp.expm1(base.log_prob(jnp.zeros_like(y))))
    return jnp.where(y == 0, -jax.nn.softplus(-logit_zero), above - jax.nn.softplus(logit_zero))


''',
    "inverse_gaussian": '''def inverse_gaussian_log_prob(mean, shape, y):
    """Log density with variance mean ** 3 / shape."""
    return 0.5 * jnp.log(shape / (2 * jnp.pi * y**3)) - shape * (y - mean) ** 2 / (2 * mean**2 * y)


''',
}
MEANS = {  # inverse links
    "identity": "eta",
    "log": "jnp.exp(eta)",
    "inverse": "1 / eta",
    "sqrt": "eta**2",
    "inverse_square": "eta**-0.5",
    "logit": "jax.nn.sigmoid(eta)",
    "probit": "jax.scipy.special.ndtr(eta)",
    "cloglog": "-jnp.expm1(-jnp.exp(eta))",
    "cauchit": "0.5 + jnp.arctan(eta) / jnp.pi",
}


@dataclass(frozen=True)
class Expression:
    """A prior as text.

    Attributes
    ----------
    expression : str
    cut : bool
        The distribution lives on the whole line and is to be cut off at zero.
    flat : bool
        No distribution at all.
    """

    expression: str
    cut: bool = False
    flat: bool = False


def head(formula: str, modules: set[str], used: set[str]) -> str:
    """What stands above the function."""
    plain = " ".join(formula.split()).replace("\\", "\\\\").replace('"""', "'''")
    lines = ["import jax", "import jax.numpy as jnp", "import numpyro", "import numpyro.distributions as dist"]
    lines = [line for line in lines if line != "import jax" or "jax" in modules]
    text = HEAD.format(about=f"NumPyro model of {plain}", imports="\n".join(lines))
    return text + "".join(HELPERS[name] for name in sorted(used))


def distribution(prior: Prior, positive: bool) -> Expression:
    """A prior; `positive` for parameters that cannot be negative.

    Half of a distribution symmetric round zero has a name or is folded; other distributions on the whole line are cut off.
    """
    p = prior
    if isinstance(p, priors.Flat):
        where = "positive" if positive else "real"
        return Expression(f"dist.ImproperUniform(dist.constraints.{where}, (), ())", flat=True)
    half = positive and getattr(p, "mu", None) == 0.0
    if isinstance(p, priors.HalfNormal) or (isinstance(p, priors.Normal) and half):
        return Expression(f"dist.HalfNormal({p.sigma!r})")
    if isinstance(p, priors.HalfCauchy) or (isinstance(p, priors.Cauchy) and half):
        return Expression(f"dist.HalfCauchy({p.sigma!r})")
    if isinstance(p, priors.HalfStudentT) or (isinstance(p, priors.StudentT) and half):
        return Expression(f"dist.FoldedDistribution(dist.StudentT({p.nu!r}, 0.0, {p.sigma!r}))")
    if isinstance(p, priors.Laplace) and half:
        return Expression(f"dist.Exponential({1 / p.b!r})")
    return Expression(_plain(p), cut=positive and not p.positive and not isinstance(p, priors.Uniform))


def _plain(p: Prior) -> str:
    """A distribution that NumPyro has by name."""
    if isinstance(p, priors.StudentT):
        return f"dist.StudentT({p.nu!r}, {p.mu!r}, {p.sigma!r})"
    if isinstance(p, (priors.Normal, priors.Cauchy, priors.LogNormal)):
        return f"dist.{type(p).__name__}({p.mu!r}, {p.sigma!r})"
    if isinstance(p, priors.Laplace):
        return f"dist.Laplace({p.mu!r}, {p.b!r})"
    if isinstance(p, priors.Exponential):
        return f"dist.Exponential({p.rate!r})"
    if isinstance(p, priors.Gamma):
        return f"dist.Gamma({p.shape!r}, {p.rate!r})"
    if isinstance(p, priors.InverseGamma):
        return f"dist.InverseGamma({p.shape!r}, {p.scale!r})"
    assert isinstance(p, priors.Uniform)
    return f"dist.Uniform({p.lower!r}, {p.upper!r})"


def single_correlation(i: int, k: int, site: str, eta: float, equal: bool) -> list[str]:
    """The factor of correlations that have one parameter: equal ones, or powers of one by the lag."""
    lowest = -1.0 / (k - 1) if equal else -1.0
    span = f"dist.transforms.AffineTransform({lowest!r}, {1 - lowest!r}, domain=dist.constraints.unit_interval)"
    return [
        f"rho_{i} = numpyro.sample({site}, dist.TransformedDistribution(dist.Beta({eta!r}, {eta!r}), {span}))",
        f"lag_{i} = jnp.abs(jnp.arange({k})[:, None] - jnp.arange({k}))",
        f"root_{i} = jnp.linalg.cholesky(jnp.where(lag_{i} == 0, 1.0, rho_{i}{'' if equal else f' ** lag_{i}'}))",
    ]


# -- responses -------------------------------------------------------------------------------------------------


def observed(site: str, expression: str) -> list[str]:
    """The line in which the response is observed."""
    return [f"numpyro.sample({site}, {expression}, obs=y)"]


def imports(family: Family) -> set[str]:
    """Modules beyond NumPyro's own that a family's density takes."""
    by_link = family.link in ("logit", "probit") and (family.name, family.link) not in (
        ("binomial", "logit"), ("ordinal", "logit"),
    )  # fmt: skip
    return {"jax"} if by_link or family.zero == "hurdle" else set()


def helpers(family: Family) -> set[str]:
    """Functions that a family's density takes."""
    out = {"hurdle"} if family.zero == "hurdle" else set()
    return out | ({"inverse_gaussian"} if family.name == "inverse_gaussian" else set())


def likelihood(family: Family, site: str, trials: bool) -> list[str]:
    """The density of a response given ``eta``, ``log_dispersion``, ``logit_zero``, ``thresholds``, ``trials``."""
    if family.name == "ordinal":
        return _ordinal(family, site)
    mean = MEANS[family.link]
    if family.name == "inverse_gaussian":
        return [
            "# NumPyro has no inverse Gaussian distribution: the response is not drawn, its density is added",
            "if y is not None:",
            f"    numpyro.factor({site}, inverse_gaussian_log_prob({mean}, jnp.exp(log_dispersion), y))",
        ]
    base = _base(family, mean, trials)
    if family.zero == "inflated":
        return observed(site, f"dist.ZeroInflatedDistribution({base}, gate_logits=logit_zero)")
    if family.zero == "hurdle":
        return [
            "# a hurdle is no distribution of NumPyro: the response is not drawn, its density is added",
            "if y is not None:",
            f"    numpyro.factor({site}, hurdle_log_prob({base}, logit_zero, y))",
        ]
    return observed(site, base)


def _base(family: Family, mean: str, trials: bool) -> str:
    """The distribution without extra zeros."""
    size = "jnp.exp(log_dispersion)"
    given = ("logits=eta" if family.link == "logit" else f"probs={mean}") if family.name == "binomial" else ""
    shapes = f"({mean}) * {size}, (1 - ({mean})) * {size}"
    table = {
        "binomial": f"dist.Binomial(trials, {given})" if trials else f"dist.Bernoulli({given})",
        "poisson": f"dist.Poisson({mean})",
        "nbinom2": f"dist.NegativeBinomial2({mean}, {size})",
        "nbinom1": f"dist.NegativeBinomial2({mean}, ({mean}) / {size})",
        "gamma": f"dist.Gamma({size}, {size} / ({mean}))",
        "beta": f"dist.Beta({shapes})",
        "betabinomial": f"dist.BetaBinomial({shapes}, trials)" if trials else f"dist.BetaBinomial({shapes}, 1)",
        "student": f"dist.StudentT({family.df!r}, {mean}, {size})",
        "gaussian": f"dist.Normal({mean}, {size})",
        "lognormal": f"dist.LogNormal({mean}, {size})",
    }
    return table[family.name]


def _ordinal(family: Family, site: str) -> list[str]:
    if family.link == "logit":
        return observed(site, "dist.OrderedLogistic(eta, thresholds)")
    below = MEANS[family.link].replace("eta", "(thresholds - eta[:, None])")
    return [
        f"below = {below}",
        "steps = jnp.diff(below, axis=1, prepend=0.0, append=1.0)",
        *observed(site, "dist.Categorical(probs=steps)"),
    ]
