"""Draws of generalised models: independent ones by importance sampling where its check is passed, else by NUTS."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import independent, joint_independent
from .draws import Draws
from .errors import OptionError
from .joint import JointTarget
from .marginal import Coordinate
from .prior_table import entries_of
from .progress import Progress
from .sampler import GROUP_MEMORY, chains_of, seeds, watched

if TYPE_CHECKING:
    from .model import Model

Array = NDArray[np.float64]
# parameters, engine's effects, statistics, facts, method
Found = tuple[Array, Array | None, dict[str, Array], dict[str, Any], str]


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
    """Draw the posterior of a generalised model; also its prior table."""
    started = time.perf_counter()
    entries = entries_of(model)
    joint = JointTarget(model.laplace(threads), entries)
    core_seed, rng = seeds(seed)
    check_memory(int(joint.core.size) - joint.parameters, chains * -(-draws // thin), keep)
    with Progress(chains * draws, "sampling", progress) as bar:
        found = None
        if method != "nuts":
            found = _independent(joint, chains, draws, threads, core_seed, rng, keep, thin, method, bar)
        if found is None:
            found = _nuts(joint, chains, draws, warmup, target, threads, core_seed, rng, keep, thin, bar)
    phi, b, stats, facts, name = found
    shape = phi.shape[:2]
    rows = np.ascontiguousarray(phi.reshape(shape[0] * shape[1], joint.parameters))
    values = joint.core.constrained(rows).reshape(*shape, -1)
    m, p = len(joint.coordinates), len(model.design.names)
    further = [Coordinate(e.name, "further", -1, (e.effect,)) for e in entries if e.kind == "further"]
    scalars = np.concatenate([values[..., :m], values[..., m + p :]], axis=2)
    effects = [v.reshape(*shape, *v.shape[1:]) for v in joint.effects(b)] if b is not None else []
    facts |= {
        "seconds": time.perf_counter() - started, "seed": seed, "warmup": warmup, "mode_gradients": joint.mode.gradients,
    }  # fmt: skip
    made = Draws([*joint.coordinates, *further], scalars, values[..., m : m + p], effects, name, stats, facts)
    return made, entries


def check_memory(effects: int, draws: int, keep: str) -> None:
    """Refuse more group effects than fit."""
    if keep == "all" and 8.0 * effects * draws > GROUP_MEMORY:
        raise OptionError(
            f"{draws} draws of {effects} group effects take {8e-9 * effects * draws:.1f} GB; keep fewer with thin=, or none "
            "with keep='parameters'"
        )


def _independent(
    joint: JointTarget,
    chains: int,
    draws: int,
    threads: int,
    seed: int,
    rng: np.random.Generator,
    keep: str,
    thin: int,
    method: str,
    bar: Progress,
) -> Found | None:
    """Importance sampling; None where it does not suit, or fails its check and another method may be taken."""
    kept = chains * -(-draws // thin)
    found = joint_independent.sample(joint, chains, draws, kept, threads, seed, rng, keep == "all", bar)
    if isinstance(found, str):
        if method == "independent":
            raise OptionError(f"method='independent' does not suit this model: {found}; leave it out")
        return None
    made, estimates = found
    if method == "independent":
        independent.refuse_empty(made)
    elif not made.good(kept) and not made.stopped:  # one that was stopped goes on to nothing else
        return None
    b = estimates.effects(made, thin) if keep == "all" else None
    facts = made.facts(kept) | {"points": estimates.points.outer * estimates.points.inner}
    return np.ascontiguousarray(made.x[:, ::thin]), b, {}, facts, "independent"


def _nuts(
    joint: JointTarget,
    chains: int,
    draws: int,
    warmup: int,
    target: float,
    threads: int,
    seed: int,
    rng: np.random.Generator,
    keep: str,
    thin: int,
    bar: Progress,
) -> Found:
    found = joint.shape()
    core, mode = joint.core, found.mode
    starts = np.ascontiguousarray(rng.uniform(-0.5, 0.5, (chains, int(core.size))))
    alone = keep != "all"  # the parameters without the group effects
    work = watched(
        core, bar, (warmup + draws) / draws,
        lambda s: core.nuts(
            s, mode.x, found.middle, mode.root, found.derivative, found.paths, warmup, draws, 10, target, True, seed, threads,
            thin, alone,
        ),
    )  # fmt: skip
    x, stats, facts = chains_of(work(starts), -(-draws // thin), target, work.stopped)
    b = None if alone else core.effects(np.ascontiguousarray(x.reshape(-1, x.shape[2])))
    return x[:, :, : joint.parameters], b, stats, facts | {"centred": list(joint.centred)}, "nuts"
