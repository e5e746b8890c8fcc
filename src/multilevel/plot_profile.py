"""Panels of a profile: zeta by value with the intervals it means. Nothing here imports matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .plot_panels import COLOURS, wrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .fit import Fit
    from .profiles import Curve, Profile

Array = NDArray[np.float64]

LEVELS = (0.5, 0.8, 0.95, 0.99)
ZETA = "zeta: signed root of\nthe change in deviance"
NOTE = "steps: 50, 80, 95 and 99 % intervals; a straight line means a symmetric one"


def curves(fit: Fit, which: Any, profile: Profile | None) -> list[Curve]:
    """Those to draw, of a profile given or computed now."""
    from .sd_scale import chosen

    if profile is None:
        return list(fit.profile(which).curves)
    names = {p.name for p in chosen([c.parameter for c in profile.curves], which)}
    return [c for c in profile.curves if c.parameter.name in names]


def line(curve: Curve) -> tuple[Array, Array]:
    """Values and zetas along the curve, interpolated without overshoot between the points."""
    from scipy.interpolate import PchipInterpolator

    values, zetas = np.array(curve.values), np.array(curve.zetas)
    if len(values) < 2:
        return values, zetas
    fine = np.unique(np.concatenate([np.linspace(values[0], values[-1], 200), values]))
    return fine, np.asarray(PchipInterpolator(values, zetas)(fine))


def profile_panel(ax: Axes, curve: Curve) -> None:
    """zeta of one parameter, with a step at each interval of LEVELS."""
    from scipy.special import ndtri

    limits = [curve.limits(level) for level in LEVELS]
    values, zetas = line(curve)
    ax.axhline(0.0, color=COLOURS["faint"], linewidth=0.7, zorder=1)
    ax.plot(values, zetas, color=COLOURS["partial"], linewidth=1.6, zorder=3)
    for level, (low, high) in zip(LEVELS, limits, strict=True):
        z = float(ndtri(0.5 + level / 2))
        strong = level == 0.95
        style: dict[str, Any] = {
            "color": COLOURS["pooled"] if strong else COLOURS["faint"],
            "linewidth": 1.5 if strong else 1.0,
            "zorder": 2,
        }
        for limit, height in ((low, -z), (high, z)):
            if not np.isfinite(limit):
                continue
            ends = curve.bounds[height > 0] == limit
            top = float(np.interp(limit, values, zetas)) if ends else height  # a range that ends before zeta gets there
            ax.plot([limit, limit], [0.0, top], **style)
    if np.isfinite(curve.estimate):
        ax.plot([curve.estimate], [0.0], marker="o", markersize=4, color=COLOURS["partial"], zorder=4)
    ax.set_title(wrap(curve.parameter.name, 34), fontsize=9)
    ax.set_ylim(-2.9, 2.9)
    ax.set_yticks([-2, -1, 0, 1, 2])
    ax.tick_params(labelsize=8)
    ax.margins(x=0.03)
