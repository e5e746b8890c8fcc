"""What all samplers share: seeds, the thread the core works in, chains put together."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ConvergenceWarning, MultilevelError, OptionError, users_level
from .progress import Progress

Array = NDArray[np.float64]

GROUP_MEMORY = 2e9  # bytes of group effects kept
POLL = 0.02  # seconds between two looks at the sampler,
FIRST_POLL = 0.002  # less at first: much work is done at once
LEAST_DRAWS = 4  # of a chain that is kept


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


class SamplingStopped(MultilevelError):
    """Ctrl-C came before there was anything to keep."""

    def __init__(self) -> None:
        super().__init__("there are no draws to keep: sampling was stopped too early")


class Watched:
    """Work in a thread of its own, so that the bar moves and Ctrl-C stops the sampler, not the session.

    Attributes
    ----------
    stopped : bool
        Whether Ctrl-C came. What was not computed then is missing from the result, and no more work is begun.
    """

    def __init__(self, core: Any, bar: Progress, per_draw: float, work: Callable[[Array], Any]) -> None:
        self.core, self.bar, self.per_draw, self.work = core, bar, per_draw, work
        self.stopped = False

    def __call__(self, argument: Array) -> Any:
        return self.run(self.work, argument)

    def run(self, work: Callable[[Array], Any], argument: Array) -> Any:
        """Other work under the same watch."""
        if self.stopped:
            raise SamplingStopped
        self.core.restart()
        box: dict[str, Any] = {}
        over = threading.Event()

        def target() -> None:
            try:
                box["value"] = work(argument)
            except BaseException as error:  # raised again in the caller's thread
                box["error"] = error
            finally:
                over.set()

        threading.Thread(target=target, daemon=True).start()
        self._wait(over)
        if "error" in box:
            raise box["error"]
        return box["value"]

    def _wait(self, over: threading.Event) -> None:
        """An event, as a thread counts as ended when Ctrl-C comes while it is joined (CPython's bug 45274)."""
        seen, pause = 0, FIRST_POLL
        while True:
            try:
                while not over.wait(pause):
                    pause = min(2 * pause, POLL)
                    now = int(self.core.done / self.per_draw)
                    self.bar.add(now - seen)
                    seen = now
                return
            except KeyboardInterrupt:
                self.stopped = True
                self.core.stop()


def watched(core: Any, bar: Progress, per_draw: float, work: Callable[[Array], Any]) -> Watched:
    """The work under watch; so many steps of the core make a draw of the bar."""
    return Watched(core, bar, per_draw, work)


def told_of_stop(kept: str) -> None:
    """Warn that Ctrl-C came, and what there is."""
    warnings.warn(f"sampling was stopped; {kept}", ConvergenceWarning, stacklevel=users_level())


def chains_of(
    found: list[dict[str, Any]], draws: int, target: float, stopped: bool = False
) -> tuple[Array, dict[str, Array], dict[str, Any]]:
    """The core's chains as (chains, draws, size) points, statistics of each transition, and facts.

    Of a sampler that was stopped the chains are kept that have most draws in common.

    Raises
    ------
    MultilevelError
        If there are no draws: sampling was stopped too early, or some chain could not begin.
    """
    lengths = [len(c["x"]) for c in found]
    kept, done = _common(lengths) if stopped else (list(range(len(found))), min(lengths))
    if done < LEAST_DRAWS:
        if stopped:
            raise SamplingStopped
        raise MultilevelError(
            "there are no draws to keep: the posterior cannot be evaluated around its mode; check the priors and the link"
        )
    if done < draws or len(kept) < len(found):
        told_of_stop(f"{done} draws of each of {len(kept)} of {len(found)} chains are kept")
    chains = [found[i] for i in kept]
    x = np.stack([c["x"][:done] for c in chains])
    names = ("lp", "energy", "acceptance_rate", "tree_depth", "n_steps", "diverging")
    stats = {name: np.stack([c[name][:done] for c in chains]) for name in names}
    return x, stats, {
        "step_size": [c["step_size"] for c in chains],
        "gradients": float(stats["n_steps"].sum() + sum(c["warmup_gradients"] for c in chains)),
        "target": target,
        "stopped_at": done if done < draws else None,
    }


def _common(lengths: list[int]) -> tuple[list[int], int]:
    """Which chains to keep, and how many draws of each, so that as many draws as may be are kept."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    enough = [i for i in order if lengths[i] >= LEAST_DRAWS]
    if not enough:
        return [], 0
    most = max(range(1, len(enough) + 1), key=lambda k: k * lengths[enough[k - 1]])
    return sorted(enough[:most]), lengths[enough[most - 1]]
