"""Adaptive Gauss-Hermite quadrature in place of Laplace's approximation, for models with one grouping factor.

Each level's integral over its own effects is a sum over nodes placed about their mode and scaled by the curvature there
(Pinheiro & Bates 1995, J. Comput. Graph. Stat. 4(1); `quadrature.hpp` has value and exact gradient). With one node per effect
it is Laplace's approximation, on the same scale: log-likelihoods compare across numbers of nodes and are full ones. lme4's
with ``nAGQ > 1`` lack the log-likelihood of the saturated model (every row's mean at its response), which `saturated` gives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import laplace_structured
from .errors import OptionError
from .laplace import LaplaceEngine
from .quick_start import QuickEngine

if TYPE_CHECKING:
    from .design import Design
    from .families import Family

Array = NDArray[np.float64]

MOST_NODES = 100  # per effect
MOST_POINTS = 10_000  # of the product rule
MOST_EFFECTS = 3


def rule(nodes: int) -> tuple[Array, Array]:
    """Gauss-Hermite rule for the standard normal distribution.

    Parameters
    ----------
    nodes : int
        1 to 100.

    Returns
    -------
    nodes, log_weights : (nodes,) arrays
        ``exp(log_weights) @ f(nodes)`` is the mean of f exactly for polynomials of a degree below twice the nodes.
        Weights as small as 1e-78 are right to about ten digits, which the multiplication by ``exp(nodes**2 / 2)`` needs.
    """
    from numpy.polynomial.hermite_e import hermegauss

    at, weights = hermegauss(nodes)
    return np.ascontiguousarray(at), np.log(weights / weights.sum())


def check_nodes(nodes: Any) -> int:
    """The number of nodes per effect, or an error that says what is allowed."""
    whole = isinstance(nodes, (int, np.integer)) and not isinstance(nodes, bool)
    if not whole or not 0 <= nodes <= MOST_NODES:
        raise OptionError(
            "quadrature must be a whole number of nodes: 1 for Laplace's approximation (the default), "
            f"2 to {MOST_NODES} for quadrature, 0 for lme4's quick start; got {nodes!r}"
        )
    return int(nodes)


class QuadratureEngine(LaplaceEngine):
    """Rows of a generalised model with one grouping factor, whose likelihood is integrated by quadrature.

    Parameters
    ----------
    design, family, threads
        As for `LaplaceEngine`.
    nodes : int
        Per effect of a level; their product rule has ``nodes ** effects`` points.

    Raises
    ------
    OptionError
        Several grouping factors, more than three effects per level, or more than 10,000 points.
    """

    def __init__(self, design: Design, family: Family, nodes: int, threads: int | None = None) -> None:
        super().__init__(design, family, threads)
        self.nodes = check_nodes(nodes)
        self._check_size()
        self._rule = rule(self.nodes)

    def _check_size(self) -> None:
        if len(self.groups) != 1:
            names = ", ".join(dict.fromkeys(t.group for t in self.design.terms))
            has = f"{len(self.groups)} ({names})" if names else "none"
            raise OptionError(
                f"quadrature={self.nodes} needs one grouping factor, and the formula has {has}; with crossed or nested "
                "factors the likelihood is no product of small integrals, so use quadrature=1, Laplace's approximation"
            )
        if self.design.known:
            raise OptionError(
                f"quadrature={self.nodes} needs levels that are independent, and those of {self.groups[0].name!r} have a "
                "known covariance; the likelihood is no product of small integrals then, so use quadrature=1, Laplace's "
                "approximation"
            )
        effects = self.groups[0].k
        if effects > MOST_EFFECTS:
            raise OptionError(
                f"quadrature={self.nodes} needs at most {MOST_EFFECTS} random effects per level of the grouping factor, "
                f"and the formula has {effects}; use quadrature=1, Laplace's approximation"
            )
        points = self.nodes**effects
        if points > MOST_POINTS:
            most = int(np.floor(MOST_POINTS ** (1 / effects) + 1e-9))
            raise OptionError(
                f"quadrature={self.nodes} with {effects} random effects per level takes {points:,} points per level, and "
                f"{MOST_POINTS:,} are allowed; use quadrature={most} or less"
            )

    def with_threads(self, threads: int) -> QuadratureEngine:
        """The same model with another number of threads."""
        return QuadratureEngine(self.design, self.family, self.nodes, threads)

    def state(self) -> Any:
        """The compiled problem, its criterion by quadrature."""
        state = super().state()
        state.set_quadrature(*self._rule)
        return state

    def _search(self, state: Any, start: tuple[Array, ...] | None, limit: int) -> tuple[dict[str, Any], int]:
        none = np.empty(0)
        state.set_quadrature(none, none)
        first, spent = super()._search(state, start, limit)
        state.set_quadrature(*self._rule)
        designs = list(self.coefficients.designs)
        if self.terms:
            best, more = laplace_structured.search(self, state, first, first["a"], limit)
            return best, spent + more
        best = state.fit(first["lambdas"], first["plain"], designs, self.components, limit)
        return best, spent + int(best["evaluations"])


def engine_for(design: Design, family: Family, nodes: Any = 1, threads: int | None = None) -> LaplaceEngine:
    """Engine of a generalised model: the quick start for no nodes, Laplace's approximation for one, else quadrature."""
    count = check_nodes(nodes)
    if count == 0:
        return QuickEngine(design, family, threads)
    return LaplaceEngine(design, family, threads) if count == 1 else QuadratureEngine(design, family, count, threads)


def saturated(design: Design, family: Family) -> float:
    """Log-likelihood of a model whose means are the responses: a full log-likelihood less lme4's with ``nAGQ > 1``.

    lme4's quadrature sums half deviance residuals in place of log densities. For binomial and Poisson responses that
    differs by a constant of the data, this one; other families have no such constant (their dispersion is estimated).
    """
    from scipy.special import gammaln, xlogy

    if family.name not in ("binomial", "poisson") or family.zero != "none":
        raise OptionError(
            f"the saturated log-likelihood is for binomial and poisson responses, not family {family.name!r}"
        )
    y = design.y
    weights = 1.0 if design.weights is None else design.weights
    if family.name == "poisson":
        return float(np.sum(weights * (xlogy(y, y) - y - gammaln(y + 1))))
    n = np.ones_like(y) if design.trials is None else design.trials
    constant = gammaln(n + 1) - gammaln(y + 1) - gammaln(n - y + 1)
    return float(np.sum(weights * (constant + xlogy(y, y) + xlogy(n - y, n - y) - xlogy(n, n))))
