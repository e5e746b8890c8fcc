"""Checks of the random effects and of influence: shape, outlying groups, what hangs on single rows or groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .checks import LOOK, OK, PROBLEM, SKIPPED, Check
from .group_influence import Deletion, by_group
from .influence import holds_series
from .residual_checks import Facts, shape
from .variance_shares import group_list, level_scales

if TYPE_CHECKING:
    from .fit import Fit

Array = NDArray[np.float64]

COOK_LOOK, COOK_PROBLEM = 0.5, 1.0  # one: moved to about the edge of a 50 % confidence region (Cook 1977)
FEW_LOOK, FEW_PROBLEM = 12.0, 20.0  # over the number of groups: with few of them each one weighs, and normal ones reach this
TELLING = 0.1  # share of the variance that the mode of a level must have, for its size to be judged
GROUP_ROWS = 20_000  # rows above which groups are not left out one by one here
GROUP_WORK = 1e10  # operations: the same


def checks(f: Facts) -> list[Check]:
    """Checks of random effects and influence."""
    out = [_effect(f.fit, t, i) for t, term in enumerate(f.fit.design.terms) for i in range(len(term.names))]
    return [*(one for one in out if one is not None), influential_rows(f), *influential_groups(f.fit)]


def standardised_modes(fit: Fit, t: int, i: int) -> Array | None:
    """(J,) conditional modes of one effect over the sd the model gives them; None where its variance is zero.

    The variance of a mode is that of the effect less its conditional variance (shrinkage), so that groups of different
    size can be compared. In a generalised model it is an estimate itself, from the curvature at the mode: levels whose rows
    tell next to nothing are left out (NaN), as they would be divided by next to nothing.
    """
    term, variance = fit.design.terms[t], float(fit.random_cov()[t][i, i])
    if not variance > 0:
        return None
    scales = level_scales(fit, term.group)
    left = (variance if scales is None else variance * scales) - fit._conditional_cov[t][:, i, i]
    known = left > (TELLING if fit.generalised else 1e-6) * variance
    if not known.any():
        return None
    return np.asarray(np.where(known, fit.optimum.b[t][:, i] / np.sqrt(np.where(known, left, 1.0)), np.nan))


def outlying(z: Array) -> Array:
    """(J,) Bonferroni p-value of each group, its own share taken out of the sd it is compared with."""
    from scipy.special import stdtr

    known = np.isfinite(z)
    count = int(known.sum())
    if count < 3:
        return np.ones(len(z))
    ratio = np.minimum(z**2 / np.mean(z[known] ** 2), 0.9999 * count)
    t = np.sqrt(ratio * (count - 1) / (count - ratio))
    return np.asarray(np.where(known, np.minimum(1.0, count * 2 * stdtr(count - 1, -t)), 1.0))


def _effect(fit: Fit, t: int, i: int) -> Check | None:
    term = fit.design.terms[t]
    z = standardised_modes(fit, t, i)
    if z is None:
        return None
    what = f"{term.group} ({term.names[i]})"
    name = f"effects of {what}"
    p = outlying(z)
    far = np.flatnonzero(p < 0.01)
    if len(far):
        order = far[np.argsort(p[far], kind="stable")]
        shown = ", ".join(f"{term.levels[j]} ({z[j]:+.1f} sds)" for j in order[:3])
        more = f" and {len(far) - 3} more" if len(far) > 3 else ""
        return Check(
            name,
            PROBLEM if p.min() < 1e-5 else LOOK,
            f"{shown}{more}: farther from the other levels of {term.group} than normal effects lie. The level raises the "
            "variance estimate and is pulled too hard towards the mean; check its rows, and see what changes without it.",
        )
    return _shape_of_effects(name, z[np.isfinite(z)])


def _shape_of_effects(name: str, z: Array) -> Check:
    skew, kurtosis, z_skew, z_kurtosis = shape(z)
    numbers = f"skewness {skew:.2f}, excess kurtosis {kurtosis:.2f}"
    count = len(z)
    if (abs(skew) > 0.75 and abs(z_skew) > 3.3) or (kurtosis > 1.5 and z_kurtosis > 5):
        return Check(
            name,
            LOOK,
            f"These effects are not normal ({numbers}; {count:,} levels). Coefficients hardly suffer, predictions of extreme "
            "levels do: they are pulled too hard. A predictor that differs between the levels may explain it.",
        )
    if count < 8:
        return Check(name, OK, f"No level stands out; {count} levels are too few to judge the shape.")
    return Check(name, OK, f"No level stands out and the shape is near normal ({numbers}).")


def influential_rows(f: Facts) -> Check:
    """Rows whose deletion would move the fixed effects, by Cook's distance with variance parameters held."""
    d = f.fit.design
    cook = np.where(np.isfinite(f.table["cooks_fixed"]), f.table["cooks_fixed"], -1.0)
    name = "influential rows"
    alone = np.flatnonzero(~f.good)
    if not len(f.fit.optimum.beta):
        return Check(name, OK, "The model has no fixed effects that a row could move.")
    if f.serial is not None:
        text = f"Not judged: rows are correlated within {f.serial.group}, so single ones cannot be left out; groups can."
        return Check(name, SKIPPED, text)
    big = np.flatnonzero(cook > COOK_LOOK)
    if not len(big) and not len(alone):
        top = int(np.argmax(cook))
        largest = f"largest Cook's distance {cook[top]:.2g}, row {d.rows[top]}"
        return Check(name, OK, f"No single row moves the fixed effects much ({largest}).")
    shown = [f"{int(d.rows[i])} (Cook's distance {cook[i]:.2g})" for i in big[np.argsort(-cook[big])][:5]]
    shown += [f"{int(d.rows[i])} (alone determines an effect)" for i in alone[: 5 - len(shown)]]
    more = len(big) + len(alone) - len(shown)
    return Check(
        name,
        PROBLEM if cook.max() > COOK_PROBLEM else LOOK,
        f"The fixed effects hang on single rows: {', '.join(shown)}{f' and {more} more' if more else ''}, counting from 0. "
        "Check them; fit.influence() says which coefficient they move.",
    )


def influential_groups(fit: Fit) -> list[Check]:
    """Groups whose deletion would move the fixed effects, per factor; left out where it would take long."""
    out: list[Check] = []
    if not len(fit.optimum.beta):
        return out
    for name in group_list(fit):
        if not holds_series(fit, name):
            what = f"Not judged: rows whose residuals are correlated lie in several levels of {name}."
            out.append(Check(f"influential {name}", SKIPPED, what))
            continue
        if not quick(fit, name):
            what = f"Not tried for {fit.nobs:,} rows, because it takes long; fit.influence({name!r}) does it."
            out.append(Check(f"influential {name}", SKIPPED, what))
            continue
        out.append(_group_influence(fit, name, by_group(fit, name, variances=False)[0]))
    return out


def quick(fit: Fit, name: str) -> bool:
    """Whether leaving out the levels of a factor one by one takes no more than seconds."""
    if fit.nobs > GROUP_ROWS:
        return False
    group = next(f for f, one in enumerate(fit.engine.blocks.groups) if one.name == name)
    return Deletion(fit, group).work() <= GROUP_WORK


def _group_influence(fit: Fit, group: str, table: dict[str, Any]) -> Check:
    levels = next(t.levels for t in fit.design.terms if t.group == group)
    cook, name = table["cooks"], f"influential {group}"
    lost = np.flatnonzero(np.isnan(cook))
    big = np.flatnonzero(np.nan_to_num(cook) > max(COOK_LOOK, FEW_LOOK / len(levels)))
    if not len(big) and not len(lost):
        top = int(np.argmax(cook))
        text = f"No level moves the fixed effects much (largest Cook's distance {cook[top]:.2g}, {levels[top]})."
        return Check(name, OK, text)
    parts = []
    for j in big[np.argsort(-cook[big])][:3]:
        moves = {n: float(table[f"dfbetas_{n}"][j]) for n in fit.design.names}
        most = max(moves, key=lambda n: abs(moves[n]))
        parts.append(f"{levels[j]} (Cook's distance {cook[j]:.2g}; {most} by {abs(moves[most]):.1f} standard errors)")
    parts += [f"{levels[j]} (without it some coefficient cannot be estimated)" for j in lost[: 3 - len(parts)]]
    more = len(big) + len(lost) - len(parts)
    worst = float(np.nan_to_num(cook).max())
    return Check(
        name,
        PROBLEM if worst > max(COOK_PROBLEM, FEW_PROBLEM / len(levels)) else LOOK,
        f"The fixed effects hang on single levels of {group}: {', '.join(parts)}{f' and {more} more' if more else ''}. Check "
        f"their rows; fit.influence({group!r}) shows what each one moves.",
    )
