"""The working linear model: its engine; observed weights, negative where a density is not log-concave.

Zero inflation and Student's t have such rows. The model's cross-products are linear in the weights, so those of negative
weights are summed apart and taken away; errors of effects and predictions then come from the true curvature.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .reml import Engine

if TYPE_CHECKING:
    from .laplace import LaplaceEngine

__all__ = ["WorkingEngine", "observed_core"]

Array = NDArray[np.float64]

LINEAR = ("diag", "border", "zy", "xx", "xy", "val")  # names of what is linear in the weights begin so
LEAST = 1e-10  # weight that counts as none
PERFECT = 2  # the core's code of a residual sum of squares of zero


class WorkingEngine(Engine):
    """Engine of a working linear model. It has no residual variance, so a response without residuals is none to refuse."""

    def failed(self, code: int, reml: bool, engine_lambdas: tuple[Array, ...] | list[Array]) -> Any:
        """A perfect fit: the same cross-products with some more in y'Wy, which enters nothing but that variance."""
        from . import _core

        if code == PERFECT:
            saved = dict(_core.export_blocks(self.blocks.core))
            saved["yy"] = 2 * float(saved["yy"]) + 1.0
            state = _core.State(_core.import_blocks(saved), reml, self.threads)
            code = state.set(list(engine_lambdas))
            if code == 0:
                return state
        return super().failed(code, reml, engine_lambdas)


def observed_core(engine: LaplaceEngine, core: Any, eta: Array, w: Array, lambdas: list[Array]) -> Any:
    """Cross-products with the negative weights taken away from those of the positive ones; as they were where none is.

    Parameters
    ----------
    core
        Cross-products whose weights are `w`, but at least `LEAST`.
    eta, w : (n,) arrays
        Linear predictors less their offset; weights, minus the second derivatives of the log densities.
    lambdas : list of (k, k) arrays
        Where the curvature has to be positive definite; else the positive weights alone stay.
    """
    from . import _core

    if not (w < -LEAST / engine.unit**2).any():
        return core
    levels = [g.levels for g in engine.groups]
    y = np.ascontiguousarray(eta)
    # every row stays, next to nothing where its weight is positive, so that the same levels meet
    less = _core.build(engine.codes, engine.z, levels, engine.x, y, np.maximum(-w, 1e-300), engine.threads)
    saved, taken = dict(_core.export_blocks(core)), _core.export_blocks(less)
    for name, values in taken.items():
        if not name.startswith(LINEAR):
            continue
        if name not in saved or np.shape(saved[name]) != np.shape(values):
            return core
        saved[name] = np.asarray(saved[name]) - np.asarray(values)
    made = _core.import_blocks(saved)
    state = _core.State(made, False, engine.threads)
    return made if state.set([np.ascontiguousarray(one) for one in lambdas]) == 0 else core
