"""Confidence intervals by any method, in one frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import OptionError, listing, nearest
from .frame import like

if TYPE_CHECKING:
    from .fit import Fit

METHODS = ("wald", "profile", "bootstrap")


def confint(
    fit: Fit, level: float, method: str, ddf: str, which: Any, progress: bool | None, options: dict[str, Any]
) -> Any:
    """Frame of term, estimate, conf_low, conf_high; see `Fit.confint`."""
    if method not in METHODS:
        hint = nearest(method, METHODS) or "allowed are " + listing(METHODS)
        raise OptionError(f"method {method!r} is not available; {hint}")
    from .inference import check_level

    check_level(level)
    if method == "profile":
        return fit.profile(which, progress).confint(level)
    if method == "wald":
        table = fit.fixef_columns(level, ddf)
        columns = {n: np.asarray(table[n]) for n in ("term", "estimate", "conf_low", "conf_high")}
    else:
        columns = _bootstrap(fit, level, which, progress, **options)
    if which is not None:
        keep = _places(columns["term"].tolist(), which, method)
        columns = {n: v[keep] for n, v in columns.items()}
    return like(fit.design.kind, columns)


def _bootstrap(
    fit: Fit, level: float, which: Any, progress: bool | None, *, interval: str, **options: Any
) -> dict[str, Any]:
    from . import bootstrap_intervals
    from .sd_scale import chosen, parameters_of

    chosen(parameters_of(fit), which)  # a wrong name is told before the draws, not after
    bootstrap_intervals.check_kind(interval)
    boot = fit.bootstrap(**options, progress=progress)
    low, high = bootstrap_intervals.interval(boot, level, interval)
    return {
        "term": np.array(boot.names, dtype=object),
        "estimate": boot.estimates,
        "conf_low": low,
        "conf_high": high,
    }


def _places(known: list[str], which: Any, method: str) -> list[int]:
    """Positions of the terms asked for."""
    wanted = [which] if isinstance(which, str) else list(which) if hasattr(which, "__iter__") else [which]
    for name in wanted:
        if name not in known:
            hint = nearest(name, known) or "its terms are " + listing(known, 20)
            more = "; Wald intervals are of fixed effects only" if method == "wald" else ""
            raise OptionError(f"there is no interval of {name!r} by method {method!r}; {hint}{more}")
    return [i for i, name in enumerate(known) if name in wanted]
