"""Draws of a posterior: parameters, coefficients, group effects, and what the sampler says about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .marginal import Coordinate

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Draws:
    """Posterior draws, user's coordinates; chains come first.

    Attributes
    ----------
    coordinates : list of Coordinate
        What the columns of `scalars` are: sds, correlations, sigma.
    scalars : (chains, draws, m) array
    beta : (chains, draws, p) array
        Fixed effects.
    b : list of (chains, draws, J, k) arrays
        Group effects per term; empty list if they were not kept.
    method : {"independent", "nuts", "exact"}
        How they were drawn.
    stats : dict of (chains, draws) arrays
        Of NUTS: lp, energy, acceptance_rate, tree_depth, n_steps, diverging.
    facts : dict
        pareto_k, effective, step_size, max_depth, seconds, seed, gradients.
    """

    coordinates: list[Coordinate]
    scalars: Array
    beta: Array
    b: list[Array]
    method: str
    stats: dict[str, Array] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def chains(self) -> int:
        return int(self.beta.shape[0])

    @property
    def draws(self) -> int:
        return int(self.beta.shape[1])

    def scalar(self, kind: str, term: int = -1, effects: tuple[int, ...] = ()) -> Array | None:
        """(chains, draws) of one parameter, None if there is none."""
        for i, c in enumerate(self.coordinates):
            if c.kind == kind and c.term == term and (not effects or c.effects == effects):
                return np.asarray(self.scalars[:, :, i])
        return None

    def covariances(self, term: int, structure: str, k: int) -> Array:
        """(chains, draws, k, k) covariance matrices of one term's effects."""
        own = [(c, self.scalars[:, :, i]) for i, c in enumerate(self.coordinates) if c.term == term]
        sds = [v for c, v in own if c.kind == "sd"]
        sd = np.stack(sds * (k if len(sds) == 1 else 1), axis=-1)
        r = np.zeros((*sd.shape[:2], k, k)) + np.eye(k)
        lag = np.abs(np.subtract.outer(np.arange(k), np.arange(k)))
        for c, v in own:
            if c.kind != "cor":
                continue
            if structure == "us":
                r[:, :, c.effects[0], c.effects[1]] = r[:, :, c.effects[1], c.effects[0]] = v
            else:
                rho = v[:, :, None, None]
                r = np.where(lag == 0, 1.0, rho if structure in ("cs", "homcs") else rho**lag)
        return np.asarray(r * sd[:, :, :, None] * sd[:, :, None, :])
