"""Derivative of the deviance by the coordinates of structured residuals.

With B the rows' whitening, ``d deviance = 2 sum_i [v_i' S w_i + (dB e)_i (B e)_i / sigma**2] + d log|Cov(e)|``: w_i and
v_i are row i of ``B [Z Lambda, X]`` and of its derivative, S the selected inverse, e the residuals. The bilinear form is a
quarter of the difference of two quadratic ones. A variance coordinate moves every row by a multiple of itself, so that one
number per row serves all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .residuals import Whitener
    from .structured import StructuredEngine

Array = NDArray[np.float64]


def row_slopes(engine: StructuredEngine, state: Any, lambdas: list[Array], reml: bool, s2: float) -> Array:
    """(r,) derivative by the residual's coordinates at fixed sigma (s2 in engine units), the factor being at `lambdas`."""
    whitener = engine.whitener(engine.a)
    if whitener is None:
        return np.empty(0)
    rows = _Rows(engine, state, lambdas, whitener, reml, s2)
    out = whitener.log_det_slopes()
    if whitener.log_sd_slopes:
        by_log_sd = rows.by_log_sd()
        for j, slope in enumerate(whitener.log_sd_slopes):
            out[j] -= 2 * float(slope @ by_log_sd)
    if whitener.serial:
        last = len(out) - 1
        forms = rows.against_white(lambda v: whitener.own_slope(last, v), lambda v: whitener.before_slope(last, v))
        out[last] += 2 * float(np.sum(forms))
    return out


class _Rows:
    """Whitened rows of one engine with what a derivative needs of them."""

    def __init__(
        self, engine: StructuredEngine, state: Any, lambdas: list[Array], whitener: Whitener, reml: bool, s2: float
    ) -> None:
        self.state, self.whitener, self.reml, self.s2 = state, whitener, reml, s2
        self.raw, self.white = engine.parts.rows, engine.blocks.rows
        self.lambdas = lambdas
        solution = state.solution()
        q = len(solution) - engine.blocks.p
        self.rest = engine.parts.y - self.raw.x @ solution[q:]
        self.factors: list[int] = []
        self.codes: list[Any] = []
        self.effects: list[Array] = []
        at = 0
        for f, (group, root) in enumerate(zip(engine.blocks.groups, lambdas, strict=True)):
            u = solution[at : at + group.levels * group.k].reshape(group.levels, group.k) @ root.T
            at += group.levels * group.k
            self.rest = self.rest - np.einsum("ij,ij->i", self._columns(f), u[self.raw.codes[f]])
            for code, z in ((self.white.codes[f], self.white.z[f]), self._second(f)):
                if code is not None and z is not None:
                    self.factors.append(f)
                    self.codes.append(np.ascontiguousarray(code))
                    self.effects.append(np.ascontiguousarray(z @ root))
        self.residual = whitener.apply(self.rest)

    def _columns(self, f: int) -> Array:
        z = self.raw.z[f]
        return np.ones((len(self.rest), 1)) if z is None else z

    def _second(self, f: int) -> tuple[Any, Array | None]:
        return (self.white.codes2[f], self.white.z2[f]) if self.white.codes2 else (None, None)

    def _quadratic(self, x: Array, effects: list[Array]) -> Array:
        from . import _core

        return np.asarray(_core.estimation_var(self.state, x, self.codes, effects, self.factors, self.reml))

    def itself(self) -> Array:
        """(n,) each whitened row's form with itself."""
        return self._quadratic(self.white.x, self.effects) + self.residual**2 / self.s2

    def against_white(self, own: Any, before: Any) -> Array:
        """(n,) form of each whitened row with the same row made by other weights of a row and the one before it."""
        from .structured import entries

        moves: list[Array] = []
        for f, root in enumerate(self.lambdas):
            columns = self._columns(f)
            _, low, _, high = entries(self.whitener, self.raw.codes[f], own(columns), before(columns))
            moves += [low @ root] if high is None else [low @ root, high @ root]
        dx = own(self.raw.x) + before(self.raw.x)
        plus, minus = (
            self._quadratic(
                np.ascontiguousarray(self.white.x + sign * dx),
                [np.ascontiguousarray(e + sign * m) for e, m in zip(self.effects, moves, strict=True)],
            )
            for sign in (1.0, -1.0)
        )
        return np.asarray((plus - minus) / 4 + self.residual * (own(self.rest) + before(self.rest)) / self.s2)

    def by_log_sd(self) -> Array:
        """(n,) form of what each raw row puts into its own and the next whitened row, with these."""
        total = self.itself()
        if not self.whitener.serial:
            return total
        own = self.against_white(self.whitener.own, np.zeros_like)
        later = np.flatnonzero(self.whitener.previous >= 0)
        rest = (total - own)[later]  # of the row before
        return own + np.bincount(self.whitener.previous[later], weights=rest, minlength=len(own))
