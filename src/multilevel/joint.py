"""Log posterior of a generalised model over its parameters and group effects, and how NUTS samples it.

The density and the whitening are the core's (`joint.hpp`); here are priors, names, the mode of the Laplace approximation
and the choice, factor by factor, of centred or spherical effects.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .marginal import coordinates_of, parameter, start_of_terms, term_tuples, to_line
from .posterior_mode import Mode, find_mode
from .priors import Fixed

if TYPE_CHECKING:
    from .laplace import LaplaceEngine
    from .prior_table import Entry

Array = NDArray[np.float64]

INFORMED = 0.5  # conditional variance of spherical effects under which a factor's effects are centred
STEP = 1e-3  # of differences of the group effects' mode
# along the logarithm of an sd, in posterior sds
KNOTS = np.array([-12.0, -8.5, -6.0, -4.3, -3.0, -2.0, -1.0, 0.0, 1.0, 2.2, 3.5])


@dataclass(frozen=True)
class Shape:
    """What the sampler is told of the posterior.

    Attributes
    ----------
    mode : Mode
        Of the parameters, in the Laplace approximation.
    middle : (q,) array
        Group coordinates there.
    derivative : (q, d) array
        Of these by the parameters that move them about linearly.
    paths : list of (parameter, (m,) knots, (q, m) shifts, (q, m) log scales, (q, m) logs of answers)
        How sds move them, their conditional sds, and what the other parameters do to them: in proportion to the conditional
        variance and, where effects are spherical, to the sd.
    """

    mode: Mode
    middle: Array
    derivative: Array
    paths: list[tuple[int, Array, Array, Array, Array]]


class JointTarget:
    """The compiled posterior with the names of what it is about.

    Attributes
    ----------
    core
        `_core.JointPosterior`.
    parameters, size : int
        Unconstrained parameters; these and the group effects.
    """

    def __init__(self, engine: LaplaceEngine, entries: list[Entry]) -> None:
        self.engine, self.entries, self.design = engine, entries, engine.design
        self.coordinates = coordinates_of(self.design, entries)
        self.state = engine.state()
        self.centred = [True] * len(engine.groups)
        self.core = self._core()
        self.parameters = int(self.core.parameters)

    def _core(self) -> Any:
        from . import _core

        e, groups = self.engine, self.engine.groups
        basis = [np.ascontiguousarray(g.basis) for g in groups]
        inverse = [np.ascontiguousarray(np.linalg.inv(g.basis)) for g in groups]
        coefficients = [parameter(q.prior, False) for q in self.entries if q.kind == "coefficient"]
        further = [parameter(q.prior, False) for q in self.entries if q.kind == "further"]
        c = e.coefficients
        return _core.JointPosterior(
            self.state, term_tuples(self.design, groups, self.entries), basis, inverse, coefficients,
            np.ascontiguousarray(np.linalg.inv(e.x_basis)), further, np.ascontiguousarray(np.linalg.inv(c.basis)),
            e.family.name == "ordinal", [np.ascontiguousarray(d) for d in c.designs], self.centred,
        )  # fmt: skip

    def start(self) -> Array:
        """First guess of the parameters: the Laplace fit, with sds kept away from zero."""
        import warnings

        from .errors import MultilevelError, MultilevelWarning

        d, c = self.design, self.engine.coefficients
        # a slope's sd is small where its predictor is large
        sizes = [np.ones(1) if t.Z is None else np.sqrt((t.Z**2).mean(axis=0)).clip(1e-300) for t in d.terms]
        sds = [np.full(len(t.names), 0.5) / size for t, size in zip(d.terms, sizes, strict=True)]
        correlations = [np.eye(len(t.names)) for t in d.terms]
        beta, further = self.engine.x_basis @ self.engine._first_beta(), c.basis @ c.start
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", MultilevelWarning)
                found, _ = self.engine.fit()
        except MultilevelError:
            pass
        else:
            beta, further = found.beta, found.residual
            for t, factor in enumerate(found.lambdas):
                v = factor @ factor.T
                sds[t] = np.maximum(np.sqrt(np.diag(v)), 0.05 / sizes[t])
                scale = np.sqrt(np.maximum(np.diag(v), 1e-300))
                correlations[t] = np.clip(v / np.outer(scale, scale), -1, 1)
                np.fill_diagonal(correlations[t], 1.0)
        return np.array(self._coordinates(sds, correlations, beta, further))

    def _coordinates(self, sds: list[Array], correlations: list[Array], beta: Array, further: Array) -> list[float]:
        out = start_of_terms(self.design, self.entries, sds, correlations)
        for q in self.entries:
            if q.kind == "coefficient" and not isinstance(q.prior, Fixed):
                out.append(to_line(q.prior, float(np.clip(beta[q.effect], -1e6, 1e6)), positive=False))
        if self.engine.family.name == "ordinal":
            gaps = np.log(np.maximum(np.diff(further), 1e-3))
            return [*out, float(further[0]), *gaps.tolist()]
        for q in self.entries:
            if q.kind == "further" and not isinstance(q.prior, Fixed):
                out.append(to_line(q.prior, float(np.clip(further[q.effect], -8, 20)), positive=False))
        return out

    @cached_property
    def mode(self) -> Mode:
        """Mode of the parameters' posterior in Laplace's approximation."""
        return find_mode(lambda x: self.core.marginal(np.ascontiguousarray(x), True), self.start())

    def shape(self) -> Shape:
        """What NUTS is told of the posterior."""
        core, mode = self.core, self.mode
        core.marginal(mode.x, False)
        self.centred = self._informed(core.group_sd())
        self.core = core = self._core()
        core.marginal(mode.x, False)
        middle, sds = core.group_mode(mode.x), core.group_sd()
        spread = np.sqrt((mode.root**2).sum(axis=1))
        free = self._free()
        curved = [i for i, q in enumerate(free) if q.kind == "sd"]
        derivative = np.zeros((len(middle), len(mode.x)))
        for i in range(len(mode.x)):
            if i not in curved:
                ends = [self._at(mode.x, i, step)[0] for step in (-STEP, STEP)]
                derivative[:, i] = (ends[1] - ends[0]) / (2 * STEP)
        paths = []
        for i in curved:
            knots = spread[i] * KNOTS
            found = [(middle, sds) if z == 0 else self._at(mode.x, i, z) for z in knots.tolist()]
            shifts = np.column_stack([m - middle for m, _ in found])
            scales = np.column_stack([np.log(s / sds) for _, s in found])
            answers = 2 * scales + np.where(self._spherical(free[i].term)[:, None], knots, 0.0)
            paths.append((i, knots, *(np.ascontiguousarray(m) for m in (shifts, scales, answers))))
        return Shape(mode, middle, np.ascontiguousarray(derivative), paths)

    def _at(self, x: Array, i: int, step: float) -> tuple[Array, Array]:
        """Mode and conditional sds of the group coordinates after a step in one parameter."""
        there = x.copy()
        there[i] += step
        value, _ = self.core.marginal(there, False)
        if not np.isfinite(value):
            self.core.marginal(x, False)
            there = x
        return self.core.group_mode(there), self.core.group_sd()

    def _spherical(self, term: int) -> NDArray[np.bool_]:
        """(q,) which group coordinates are a term's spherical effects."""
        out = []
        for group, centred in zip(self.engine.groups, self.centred, strict=True):
            own = np.zeros((group.levels, group.k), dtype=bool)
            if term in group.terms and not centred:
                own[:, group.slices[group.terms.index(term)]] = True
            out.append(own.ravel())
        return np.concatenate(out) if out else np.zeros(0, dtype=bool)

    def _informed(self, sds: Array) -> list[bool]:
        """Per factor whether the data say much about its effects, from conditional sds of centred ones."""
        out, at = [], 0
        for group, prior in zip(self.engine.groups, self.core.prior_sds(), strict=True):
            own = sds[at : at + group.levels * group.k].reshape(-1, group.k)
            at += group.levels * group.k
            out.append(bool(np.mean((own / np.maximum(prior, 1e-300)) ** 2) < INFORMED))
        return out

    def _free(self) -> list[Entry]:
        """Entries of the unconstrained parameters, a correlation as often as it has coordinates."""
        out: list[Entry] = []
        for t, term in enumerate(self.design.terms):
            own = [q for q in self.entries if q.term == t]
            out += [q for q in own if q.kind == "sd" and not isinstance(q.prior, Fixed)]
            k = len(term.names)
            for q in own:
                if q.kind == "cor" and not isinstance(q.prior, Fixed):
                    out += [q] * (k * (k - 1) // 2 if term.structure == "us" else 1)
        kinds = ("coefficient", "further")
        return out + [q for kind in kinds for q in self.entries if q.kind == kind and not isinstance(q.prior, Fixed)]

    def effects(self, engine_draws: Array) -> list[Array]:
        """Per term (m, J, k) group effects of the core's (m, q), user's coordinates."""
        b: list[Array] = [np.empty(0)] * len(self.design.terms)
        at = 0
        for group in self.engine.groups:
            own = engine_draws[:, at : at + group.levels * group.k].reshape(-1, group.levels, group.k)
            at += group.levels * group.k
            user = own @ group.basis.T
            for t, part in zip(group.terms, group.slices, strict=True):
                b[t] = np.ascontiguousarray(user[:, :, part])
        return b
