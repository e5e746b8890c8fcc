"""Where the smooth coordinates of structured terms stand in a generalised engine's factors, and the chain rule between them.

The coordinates are those of `covariance.Structure`: sds or their roots, and an angle for the correlation. The engine's
factor of such a term is ``Structure.at`` of them, a square root of its covariance that is smooth at every boundary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .covariance import NO_SD, Structure

if TYPE_CHECKING:
    from .crossprod import Group

Array = NDArray[np.float64]

SMALLEST_SD = 0.01  # whitened scale: steps of an sd do not get smaller with it than this
SMALLEST_TURN = 0.05  # nor steps of an angle near an end of its range


@dataclass(frozen=True)
class Span:
    """One structured term: its structure, group, place in the group's factor, and slice of the coordinates."""

    term: int
    structure: Structure
    group: int
    part: slice
    at: slice
    name: str


class Coordinates:
    """Coordinates of all structured terms of a model, one term after the other.

    Parameters
    ----------
    groups : tuple of Group
        The engine's.
    structures : tuple of Structure
        Per term.
    """

    def __init__(self, groups: tuple[Group, ...], structures: tuple[Structure, ...]) -> None:
        where = {t: (f, part, g.name) for f, g in enumerate(groups) for t, part in zip(g.terms, g.slices, strict=True)}
        self.spans: list[Span] = []
        self.size = 0
        for t, s in enumerate(structures):
            if not s.free:
                f, part, name = where[t]
                self.spans.append(Span(t, s, f, part, slice(self.size, self.size + s.n_coordinates), name))
                self.size += s.n_coordinates

    def __bool__(self) -> bool:
        return bool(self.spans)

    def singles(self) -> list[tuple[int, list[int]]]:
        """Every effect of a structured term as a component of its own: the model without correlations."""
        return [(s.group, [i]) for s in self.spans for i in range(s.part.start, s.part.stop)]

    def put(self, lambdas: list[Array], a: Array) -> list[Array]:
        """Factors with the structured terms' parts at coordinates a."""
        out = [np.array(m, dtype=np.float64) for m in lambdas]
        for s in self.spans:
            out[s.group][s.part, s.part] = s.structure.at(a[s.at])
        return out

    def of(self, lambdas: list[Array]) -> Array:
        """Coordinates of factors, any square roots."""
        parts = [s.structure.coordinates(s.structure.to_theta(lambdas[s.group][s.part, s.part])) for s in self.spans]
        return np.concatenate([np.empty(0), *parts])

    def moves(self, a: Array) -> list[tuple[int, slice, Array]]:
        """Per coordinate the group and the part of its factor that it moves, with the derivative of that part."""
        return [(s.group, s.part, move) for s in self.spans for move in s.structure.by_coordinate(a[s.at])]

    def matrices(self, a: Array, blank: list[Array]) -> list[tuple[int, Array]]:
        """The same as whole factors' derivatives; `blank` are factors of zeros."""
        out = []
        for f, part, move in self.moves(a):
            whole = blank[f].copy()
            whole[part, part] = move
            out.append((f, whole))
        return out

    def slope(self, by_lambda: list[Array], a: Array) -> Array:
        """Derivative by the coordinates from the derivatives by the factors at them."""
        return np.array([float(np.vdot(by_lambda[f][part, part], move)) for f, part, move in self.moves(a)])

    def active(self, a: Array) -> list[int]:
        """Coordinates that the criterion depends on: not those of a term without variance."""
        out: list[int] = []
        for s in self.spans:
            kind = s.structure
            sd = kind.theta_at(a[s.at])[: kind.n_sd]
            vary = int(np.sum(sd > NO_SD)) if kind.n_sd > 1 else kind.k * int(sd[0] > NO_SD)
            if vary:
                out += list(range(s.at.start, s.at.start + kind.n_sd))
            if kind.correlated and vary > 1:
                out.append(s.at.stop - 1)
        return out

    def sizes(self, a: Array) -> Array:
        """Of each coordinate, for steps and curvatures."""
        out = np.ones(self.size)
        for s in self.spans:
            kind, own = s.structure, a[s.at]
            least = SMALLEST_SD if kind.n_sd == 1 else np.sqrt(SMALLEST_SD)
            out[s.at.start : s.at.start + kind.n_sd] = np.maximum(np.abs(own[: kind.n_sd]), least)
            if kind.correlated:
                turn = abs(np.cos(own[-1]))
                if kind.kind in ("cs", "homcs"):
                    turn = min(turn, abs(np.sin(own[-1])))
                out[s.at.stop - 1] = max(turn, SMALLEST_TURN)
        return out

    def names(self) -> list[str]:
        """What each coordinate moves, in the user's terms."""
        out: list[str] = []
        for s in self.spans:
            many = s.structure.n_sd > 1
            out += [f"sd({s.name}, effect {i + 1})" if many else f"sd({s.name})" for i in range(s.structure.n_sd)]
            out += [f"rho({s.name})"] * s.structure.correlated
        return out

    def moments(
        self, lambdas: list[Array], u: Array, offsets: list[int], levels: list[int]
    ) -> list[tuple[Array, float]]:
        """Per term a first guess from a fit without correlations: sds (n_sd,) and the correlation of the modes.

        Parameters
        ----------
        lambdas : list of (k, k) arrays
            Diagonal where a term is structured.
        u : (q,) array
            Modes of the spherical effects, group by group; `offsets` and `levels` say where each group's begin and how
            many levels it has.
        """
        out = []
        for s in self.spans:
            kind = s.structure
            k = len(lambdas[s.group])
            first = offsets[s.group]
            own = u[first : first + levels[s.group] * k].reshape(-1, k)[:, s.part]
            sds = np.abs(np.diag(lambdas[s.group])[s.part])
            rho = pooled_correlation(own, kind.kind not in ("cs", "homcs")) if kind.correlated and kind.k > 1 else 0.0
            low, high = kind.range()
            rho = float(np.clip(rho, low + 0.05 * (high - low), high - 0.05 * (high - low)))
            out.append((np.full(1, np.sqrt(np.mean(sds**2))) if kind.n_sd == 1 else sds, rho))
        return out


def pooled_correlation(effects: Array, serial: bool) -> float:
    """Mean correlation of neighbouring (serial) or of all pairs of columns of (J, k) effects; 0 where none vary."""
    cov = effects.T @ effects
    sd = np.sqrt(np.diag(cov))
    vary = np.flatnonzero(sd > 1e-8 * max(float(sd.max()), 1e-300)) if sd.max() > 0 else np.empty(0, dtype=np.intp)
    if len(vary) < 2:
        return 0.0
    cor = cov[np.ix_(vary, vary)] / np.outer(sd[vary], sd[vary])
    lag = np.abs(np.subtract.outer(vary, vary))
    pairs = cor[lag == lag[lag > 0].min()] if serial else cor[lag > 0]
    return float(np.mean(pairs))
