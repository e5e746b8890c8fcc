"""What all samplers share: seeds, the thread the core works in, chains put together."""

from __future__ import annotations

import threading
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ConvergenceWarning, MultilevelError, OptionError, users_level
from .progress import Progress

Array = NDArray[np.float64]

GROUP_MEMORY = 2e9  # bytes of group effects kept
POLL = 0.02  # seconds between two looks at the sampler


def seeds(seed: Any) -> tuple[int, np.random.Generator]:
    """Seed of the core, and random numbers for the rest."""
    root = np.random.SeedSequence(_seed(seed))
    return int(root.generate_state(1, np.uint64)[0]), np.random.default_rng(root)


def _seed(seed: Any) -> int | None:
    if seed is None:
        return None
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise OptionError(f"seed must be a whole number of at least zero, got {seed!r}")
    return int(seed)


def watched(core: Any, bar: Progress, per_draw: float, work: Any) -> Any:
    """The work in a thread of its own, so that the bar moves and Ctrl-C stops the sampler, not the session."""

    def run_it(argument: Array) -> Any:
        core.restart()
        box: dict[str, Any] = {}

        def target() -> None:
            try:
                box["value"] = work(argument)
            except BaseException as error:  # raised again in the caller's thread
                box["error"] = error

        thread = threading.Thread(target=target, daemon=True)
        thread.start()
        seen = 0.0
        while thread.is_alive():
            try:
                thread.join(POLL if seen else 0.002)
                now = core.done / per_draw
                bar.add(int(now) - int(seen))
                seen = now
            except KeyboardInterrupt:
                core.stop()
                warnings.warn("sampling was stopped; the draws so far are kept", ConvergenceWarning, stacklevel=users_level())
        if "error" in box:
            raise box["error"]
        return box["value"]

    return run_it


def chains_of(found: list[dict[str, Any]], draws: int, target: float) -> tuple[Array, dict[str, Array], dict[str, Any]]:
    """The core's chains as (chains, draws, size) points, statistics of each transition, and facts.

    Raises
    ------
    MultilevelError
        If there are no draws: sampling was stopped too early, or no chain could begin.
    """
    done = min(len(c["x"]) for c in found)
    if done < 4:
        raise MultilevelError(
            "there are no draws to keep: sampling was stopped too early, or the posterior cannot be evaluated "
            "around its mode; check the priors and the link"
        )
    x = np.stack([c["x"][:done] for c in found])
    names = ("lp", "energy", "acceptance_rate", "tree_depth", "n_steps", "diverging")
    stats = {name: np.stack([c[name][:done] for c in found]) for name in names}
    return x, stats, {
        "step_size": [c["step_size"] for c in found],
        "gradients": float(stats["n_steps"].sum() + sum(c["warmup_gradients"] for c in found)),
        "target": target,
        "stopped_at": done if done < draws else None,
    }
