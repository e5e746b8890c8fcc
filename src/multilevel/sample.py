"""From a model and priors to draws of its posterior.

Linear models: coefficients with normal priors and group effects are integrated out (`marginal`), the few variances and
correlations that are left are drawn by importance sampling where Pareto's k allows, otherwise by NUTS, and the rest is
drawn exactly given them.
"""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import independent, sample_joint
from .draws import Draws
from .errors import ConvergenceWarning, DataError, MultilevelError, OptionError, users_level
from .marginal import Marginal
from .marginal_residual import StructuredMarginal
from .posterior_mode import Mode, find_mode
from .prior_table import entries_of
from .progress import Progress
from .sampler import GROUP_MEMORY, LEAST_DRAWS, SamplingStopped, chains_of, seeds, watched

if TYPE_CHECKING:
    from .model import Model
    from .posterior import Posterior
    from .prior_table import Entry

Array = NDArray[np.float64]

LARGEST_INDEPENDENT = 10  # coordinates beyond which importance sampling is not tried
LARGEST_SLOW = 16  # the same where NUTS is slow
WARMUP = 300  # steps that adapt NUTS: it starts at the mode in coordinates made round there
COSTLY = 1e7  # operations of one evaluation from which there are
FEW = 1000  # proposals in all; draws of coefficients and group effects then share those of the variances


def check_count(name: str, value: Any, least: int) -> int:
    """A whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise OptionError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def check_options(chains: Any, draws: Any, warmup: Any, target: Any, method: Any, keep: Any, thin: Any) -> None:
    """Refuse what cannot be sampled with."""
    least = {"chains": (chains, 1), "draws": (draws, LEAST_DRAWS), "warmup": (warmup, 0), "thin": (thin, 1)}
    for name, (value, fewest) in least.items():
        if name != "warmup" or value is not None:
            check_count(name, value, fewest)
    if -(-draws // thin) < LEAST_DRAWS:
        raise OptionError(
            f"thin={thin} leaves {-(-draws // thin)} of {draws} draws of each chain; at least {LEAST_DRAWS} are needed: take "
            "more draws, or a smaller thin"
        )
    if isinstance(target, bool) or not isinstance(target, (int, float, np.number)) or not 0.5 <= target < 1:
        raise OptionError(f"target, the acceptance NUTS aims at, must lie from 0.5 to below 1, got {target!r}")
    if method not in ("auto", "nuts", "independent"):
        raise OptionError(f"method {method!r} is not known; allowed are 'auto', 'nuts', 'independent'")
    if keep not in ("all", "parameters"):
        raise OptionError(f"keep {keep!r} is not known; allowed are 'all', 'parameters' (no group effects)")


def posterior(
    model: Model,
    chains: Any,
    draws: Any,
    warmup: Any,
    seed: Any,
    method: Any,
    target: Any,
    threads: Any,
    keep: Any,
    thin: Any,
    progress: bool | None,
) -> Posterior:
    """Draw the posterior of a model; see `Model.sample`."""
    from .crossprod import default_threads
    from .posterior import Posterior

    check_options(chains, draws, warmup, target, method, keep, thin)
    if model.design.y is None:
        raise DataError("this model was saved without its data, which sampling it needs; save it with save(path, data=True)")
    if model.residual is not None and model.residual.iterated:
        model = _settled(model)
    count = default_threads() if threads is None else check_count("threads", threads, 1)
    warmup = WARMUP if warmup is None else int(warmup)
    if model.distribution is not None:
        made, entries = sample_joint.run(
            model, chains, draws, warmup, seed, method, float(target), count, keep, thin, progress
        )
    else:
        made, entries = run(model, chains, draws, warmup, seed, method, float(target), count, keep, thin, progress)
    made.facts["asked"] = {  # what makes the same draws again
        "chains": int(chains), "draws": int(draws), "warmup": warmup, "method": method, "target": float(target),
        "keep": keep, "thin": int(thin),
    }  # fmt: skip
    found = Posterior(model, made, entries)
    good, sentence = found.trust
    if not good:
        warnings.warn(sentence, ConvergenceWarning, stacklevel=users_level())
    return found


def _settled(model: Model) -> Model:
    """A model whose variance depends on the fitted values, with those of its REML fit under it."""
    fit = model.fit(threads=1)
    return fit.model


def run(
    model: Model,
    chains: int,
    draws: int,
    warmup: int,
    seed: Any,
    method: str,
    target: float,
    threads: int,
    keep: str,
    thin: int,
    progress: bool | None,
) -> tuple[Draws, list[Any]]:
    """Draw the posterior of a Gaussian model; also its prior table."""
    started = time.perf_counter()
    entries = entries_of(model)
    target_density = _density(model, entries)
    core_seed, rng = seeds(seed)
    with Progress(chains * draws, "sampling", progress) as bar:
        x, facts, stats, name, drawn = _coordinates(
            target_density, model, chains, draws, warmup, method, target, threads, core_seed, rng, thin, bar
        )
        x = np.ascontiguousarray(x[:, ::thin])
        stats = {k: v[:, ::thin] for k, v in stats.items()}
        made = _complete(target_density, x, drawn, core_seed, threads, keep, bar)
    facts |= {"seconds": time.perf_counter() - started, "seed": seed, "warmup": warmup}
    return Draws(target_density.coordinates, *made, name, stats, facts), entries


def _density(model: Model, entries: list[Entry]) -> Marginal:
    from .reml import Engine
    from .structured import StructuredEngine

    if model.residual is not None:
        return StructuredMarginal(StructuredEngine(model.design, model.residual, 1), model.design, entries)
    return Marginal(Engine(model.design, 1), model.design, entries)


def _coordinates(
    density: Marginal,
    model: Model,
    chains: int,
    draws: int,
    warmup: int,
    method: str,
    target: float,
    threads: int,
    seed: int,
    rng: np.random.Generator,
    thin: int,
    bar: Progress,
) -> tuple[Array, dict[str, Any], dict[str, Array], str, Array | None]:
    """(chains, draws, size) unconstrained draws; last what was drawn given the thinned ones, where that was done already."""
    core = density.core
    if density.size == 0:
        return np.empty((chains, draws, 0)), {}, {}, "exact", None
    mode = find_mode(lambda x: core.log_posterior(np.ascontiguousarray(x), True), start_of(density, model))
    facts: dict[str, Any] = {"mode_gradients": mode.gradients}
    largest = LARGEST_SLOW if density.slow else LARGEST_INDEPENDENT
    if method == "independent" or (method == "auto" and density.size <= largest):
        kept = chains * -(-draws // thin)
        found, drawn = _by_importance(density, mode, chains, draws, kept, threads, seed, rng, bar)
        facts |= found.facts(kept)
        if method == "independent":
            independent.refuse_empty(found)
        # one that was stopped goes on to nothing else
        if found.good(kept) or found.stopped or method == "independent":
            given = None if drawn is None else drawn[found.index[:, ::thin].ravel()]
            return found.x, facts, {}, "independent", given
    x, stats, more = _nuts(density, mode, chains, draws, warmup, target, threads, seed, rng, bar)
    return x, facts | more, stats, "nuts", None


def _by_importance(
    density: Marginal,
    mode: Mode,
    chains: int,
    draws: int,
    kept: int,
    threads: int,
    seed: int,
    rng: np.random.Generator,
    bar: Progress,
) -> tuple[independent.Sample, Array | None]:
    """Draws by importance sampling, of which so many are kept.

    Where a factorisation takes long, coefficients and group effects (proposals, width) are drawn from the same one.
    """
    core = density.core
    costly = density.costly(COSTLY)
    count = -(-FEW // chains) if costly else independent.proposals(chains, draws)
    both = costly and not density.slow
    drawn: list[Array] = [np.empty(0)]

    def evaluated(x: Array) -> Array:
        if not both:
            return np.asarray(core.log_posteriors(np.ascontiguousarray(x), threads))
        values, drawn[0] = core.log_posteriors_and_draws(np.ascontiguousarray(x), seed + 1, threads)
        return np.asarray(values)

    values = watched(core, bar, count / draws, evaluated)
    most = independent.ROUNDS if costly else independent.MORE_ROUNDS
    found = independent.rounds(values, mode, chains, draws, count, most, kept, rng)
    fits = both and 8.0 * drawn[0].shape[1] * kept <= GROUP_MEMORY
    return found, drawn[0] if fits else None


def _nuts(
    density: Marginal,
    mode: Mode,
    chains: int,
    draws: int,
    warmup: int,
    target: float,
    threads: int,
    seed: int,
    rng: np.random.Generator,
    bar: Progress,
) -> tuple[Array, dict[str, Array], dict[str, Any]]:
    """NUTS in coordinates that the curvature at the mode has made round."""
    core, d = density.core, density.size
    starts = rng.uniform(-1, 1, (chains, d))
    work = watched(
        core, bar, (warmup + draws) / draws,
        lambda s: core.nuts(s, mode.x, mode.root, warmup, draws, 10, target, True, seed, threads),
    )  # fmt: skip
    found = work(starts)
    return chains_of(found, draws, target, work.stopped)


def start_of(density: Marginal, model: Model) -> Array:
    """First guess of the mode: the REML fit, with variances kept away from zero."""
    d, c = model.design, density.engine.blocks
    total = float(c.scale * c.unit)
    sds = [np.full(len(t.names), 0.3 * total) for t in d.terms]
    correlations = [np.eye(len(t.names)) for t in d.terms]
    sigma, beta = total, c.x_basis @ c.shift if c.p else np.empty(0)
    if model.residual is not None or all(t.structure in ("us", "diag") for t in d.terms):
        try:
            found = density.engine.fit(c.n > c.p)
        except MultilevelError:
            return density.start(sds, correlations, sigma, beta)
        sigma, beta = found.sigma, found.beta
        for t, factor in enumerate(found.lambdas):
            v = found.sigma**2 * factor @ factor.T
            floor = 0.1 * found.sigma / np.sqrt(max(float(np.mean(_column_squares(d.terms[t], len(v)))), 1e-300))
            sds[t] = np.maximum(np.sqrt(np.diag(v)), floor)
            scale = np.sqrt(np.maximum(np.diag(v), 1e-300))
            r = v / np.outer(scale, scale)
            np.fill_diagonal(r, 1.0)
            correlations[t] = np.clip(r, -1.0, 1.0)
        if isinstance(density, StructuredMarginal):
            return density.start(sds, correlations, sigma, beta, found.residual)
    return density.start(sds, correlations, sigma, beta)


def _column_squares(term: Any, k: int) -> Array:
    return np.ones(k) if term.Z is None else np.asarray((term.Z**2).mean(axis=0))


def _complete(
    density: Marginal, x: Array, drawn: Array | None, seed: int, threads: int, keep: str, bar: Progress
) -> tuple[Array, Array, list[Array]]:
    """Parameters on their own scale, coefficients and group effects for coordinates (chains, draws, size).

    `drawn`: these in the engine's coordinates, if they are there already.
    """
    chains, draws, _ = x.shape
    flat = np.ascontiguousarray(x.reshape(chains * draws, density.size))
    scalars = density.core.constrained(flat) if density.size else np.tile(
        density.core.constrained(np.empty((1, 0))), (len(flat), 1)
    )
    shape = (chains, draws)
    count = len(density.coordinates)
    effects = sum(g.levels * g.k for g in density.engine.blocks.groups)
    if keep == "all" and 8.0 * effects * len(flat) > GROUP_MEMORY:
        raise OptionError(
            f"{len(flat)} draws of {effects} group effects take {8.0 * effects * len(flat) / 1e9:.1f} GB; keep fewer with "
            "thin=, or none with keep='parameters'"
        )
    # repeated points next to each other share one factorisation
    order = np.lexsort(flat.T) if density.size else np.arange(len(flat))
    back = np.argsort(order)
    beta, b = [], []
    step = len(flat) if keep == "all" or drawn is not None else max(1, int(GROUP_MEMORY / 8 / max(effects, 1) / 4))
    for at in range(0, len(flat), step):
        index = order[at : at + step]
        made = drawn[index] if drawn is not None else _drawn(density, flat[index], seed + 1 + at, threads, bar)
        one, effects_drawn = density.effects(made)
        beta.append(one)
        if keep == "all":
            b = [v[back].reshape(*shape, *v.shape[1:]) for v in effects_drawn]
    return (
        np.ascontiguousarray(scalars[:, :count].reshape(*shape, count)),
        np.concatenate(beta)[back].reshape(*shape, -1),
        b,
    )


def _drawn(density: Marginal, x: Array, seed: int, threads: int, bar: Progress) -> Array:
    """Coefficients and group effects given coordinates (m, size), engine's coordinates.

    The sampler may have been stopped before, for what it had done until then: watching it anew starts it again.
    """
    core = density.core
    work = watched(core, bar, np.inf, lambda part: core.draw(np.ascontiguousarray(part), seed, threads))
    drawn = work(x)
    if work.stopped:  # a second time
        raise SamplingStopped
    return np.asarray(drawn)
