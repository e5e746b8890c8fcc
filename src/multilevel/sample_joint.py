"""Draws of generalised models: parameters and group effects together, by NUTS in whitened coordinates."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .draws import Draws
from .errors import OptionError
from .joint import JointTarget
from .marginal import Coordinate
from .prior_table import further_of, prior_table
from .progress import Progress
from .sampler import GROUP_MEMORY, chains_of, seeds, watched

if TYPE_CHECKING:
    from .model import Model

Array = NDArray[np.float64]


def run(
    model: Model,
    chains: int,
    draws: int,
    warmup: int,
    seed: Any,
    target: float,
    threads: int,
    keep: str,
    thin: int,
    progress: bool | None,
) -> tuple[Draws, list[Any]]:
    """Draw the posterior of a generalised model; also its prior table."""
    started = time.perf_counter()
    if model.design.known:
        raise OptionError(
            "sample() of a generalised model takes independent levels in this version: leave covariance= out, or use fit()"
        )
    entries = prior_table(model.design, model.distribution, model.priors, further_of(model))
    joint = JointTarget(model.laplace(threads), entries)
    core_seed, rng = seeds(seed)
    with Progress(chains * draws, "sampling", progress) as bar:
        shape_found = joint.shape()
        mode, middle = shape_found.mode, shape_found.middle
        core, d = joint.core, joint.parameters
        kept = draws // thin
        if keep == "all" and 8.0 * len(middle) * chains * kept > GROUP_MEMORY:
            raise OptionError(
                f"{chains * kept} draws of {len(middle)} group effects take {8e-9 * len(middle) * chains * kept:.1f} GB; "
                "keep fewer with thin=, or none with keep='parameters'"
            )
        starts = np.ascontiguousarray(rng.uniform(-0.5, 0.5, (chains, int(core.size))))
        work = watched(
            core, bar, (warmup + draws) / draws,
            lambda s: core.nuts(
                s, mode.x, middle, mode.root, shape_found.derivative, shape_found.paths, warmup, draws, 10, target, True,
                core_seed, threads,
            ),
        )  # fmt: skip
        x, stats, facts = chains_of(work(starts), draws, target)
    x = x[:, ::thin]
    stats = {name: v[:, ::thin] for name, v in stats.items()}
    shape = x.shape[:2]
    flat = np.ascontiguousarray(x.reshape(-1, x.shape[2]))
    values = core.constrained(np.ascontiguousarray(flat[:, :d])).reshape(*shape, -1)
    m, p = len(joint.coordinates), len(model.design.names)
    further = [Coordinate(e.name, "further", -1, (e.effect,)) for e in entries if e.kind == "further"]
    scalars = np.concatenate([values[..., :m], values[..., m + p :]], axis=2)
    b = [v.reshape(*shape, *v.shape[1:]) for v in joint.effects(core.effects(flat))] if keep == "all" else []
    facts |= {
        "seconds": time.perf_counter() - started, "seed": seed, "warmup": warmup, "centred": list(joint.centred),
        "mode_gradients": mode.gradients,
    }  # fmt: skip
    made = Draws([*joint.coordinates, *further], scalars, values[..., m : m + p], b, "nuts", stats, facts)
    return made, entries
