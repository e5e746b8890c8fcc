"""Residual structures under posterior draws: sds of rows, densities of single rows given all others, noise.

Parameters of the structure are log-linear in the rows' sds, so that all draws are one matrix product.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .residual_reader import new_multipliers
from .residuals import FITTED

if TYPE_CHECKING:
    from . import predict as linear
    from .posterior import Posterior
    from .residuals import Residual, Spread

Array = NDArray[np.float64]


def structure_draws(posterior: Posterior) -> Array:
    """(draws, m) parameters of the residual's structure, as the fit names them."""
    kept = posterior.draws_kept
    own = [i for i, c in enumerate(kept.coordinates) if c.kind == "residual"]
    values = kept.scalars[:, :, own]
    return values.reshape(values.shape[0] * values.shape[1], len(own))


class RowSds:
    """Residual sds of rows relative to sigma, per draw: weights of the rows fitted, variance functions of all.

    Parameters
    ----------
    rows
        The rows fitted, or new ones (weight one).
    """

    def __init__(self, posterior: Posterior, rows: linear._Rows) -> None:
        residual = posterior.model.residual
        self.base = np.ones(len(rows.X)) if rows.weights is None else 1 / np.sqrt(rows.weights)
        self.spreads = () if residual is None else residual.spreads
        self.logs, self.bases = np.empty((0, 0)), np.empty((0, 0))
        self.of_draw: list[tuple[Spread, Array]] = []  # exponents of the fitted values of new rows
        if not self.spreads:
            return
        assert residual is not None
        values = structure_draws(posterior)
        columns, bases, at = [], [], 0
        for s in self.spreads:
            own = values[:, at : at + s.n]
            at += s.n
            if rows.new is not None and s.column == FITTED and not s.covariate:
                self.of_draw.append((s, own[:, 0]))
                continue
            columns.append(np.log(own) if s.kind == "ident" else own)
            bases += [_basis(residual, s, j, rows) for j in range(s.n)]
        self.logs = np.column_stack(columns) if columns else np.empty((len(values), 0))
        self.bases = np.array(bases).reshape(-1, len(rows.X))

    def at(self, part: slice, eta: Array) -> Array:
        """Of some rows, (m,) or (draws, m); `eta` (draws, m) are their expected responses."""
        base = self.base[part]
        if not self.spreads:
            return base
        out = self.logs @ self.bases[:, part]
        for s, exponents in self.of_draw:
            size = np.log(np.maximum(np.abs(eta), 1e-300)) if s.kind == "power" else eta
            out = out + exponents[:, None] * size
        return np.asarray(base * np.exp(out))

    def of(self, draw: int) -> Array:
        """(m,) of all rows fitted under one draw."""
        if not self.spreads:
            return self.base
        return np.asarray(self.base * np.exp(self.logs[draw] @ self.bases))


def _basis(residual: Residual, s: Spread, j: int, rows: linear._Rows) -> Array:
    """(m,) what the log of a ratio, or an exponent, multiplies in the log sd of each row."""
    if rows.new is None:
        return s.by_coordinate(j) * s.scale()
    single = replace(residual, serial=None, spreads=(s,))
    values = np.ones(s.n) if s.kind == "ident" else np.ones(1)
    if s.kind == "ident":
        values[j] = np.e
    return np.asarray(np.log(new_multipliers(single, values, rows.new, rows.at, np.empty(0))))


def log_density_given_others(posterior: Posterior, rest: Array, sd: Any) -> Array:
    """(draws, n) log density of each row's residual given all the others', where they are serially correlated.

    Of a normal vector with precision Q it is normal with variance 1/Q_ii around its value less ``(Q e)_i / Q_ii``; Q has
    entries between neighbours of a series only. Buerkner, Gabry & Vehtari (2021), Computational Statistics 36, 1243.

    Parameters
    ----------
    rest : (draws, n) array
        Residuals over sigma; overwritten.
    sd : callable
        Sds of all rows under one draw, by its number.
    """
    residual = posterior.model.residual
    assert residual is not None and residual.serial is not None
    serial = type(residual)(residual.serial, ())
    n = rest.shape[1]
    for i, values in enumerate(structure_draws(posterior)):
        w = serial.at(residual.coordinates(values)[-1:], n)
        m = sd(i)
        later = np.flatnonzero(w.previous >= 0)
        before, pull = w.previous[later], (w.c / w.rest)[later]
        white = w.apply(rest[i] / m)
        # Q = B'B with B's rows (1, -c) / sqrt(1 - c^2)
        product, diagonal = white / w.rest, 1 / w.rest**2
        product -= np.bincount(before, weights=pull * white[later], minlength=n)
        diagonal += np.bincount(before, weights=pull**2, minlength=n)
        rest[i] = -0.5 * product**2 / diagonal + 0.5 * np.log(diagonal / (2 * np.pi)) - np.log(m)
    return rest
