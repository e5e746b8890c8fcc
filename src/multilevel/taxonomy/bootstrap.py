"""Bayesian bootstrap of a classifier: refits with random weights of the rows, at the scales that were found."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..errors import ConvergenceWarning
from .fitting import FittedTree, Settings, fit_tree
from .problems import Rows
from .scales import ScaleShape
from .tree import Taxonomy

__all__ = ["bootstrap", "bootstrap_weights"]

Floats = npt.NDArray[np.float64]


def bootstrap_weights(weight: Floats, generator: np.random.Generator) -> Floats:
    """Weights times independent standard exponentials, brought to the same total: n times Dirichlet(1, ..., 1)."""
    drawn = weight * generator.exponential(size=len(weight))
    return np.asarray(drawn * (weight.sum() / drawn.sum()))


def bootstrap(
    tree: Taxonomy,
    rows: Rows,
    shape: ScaleShape,
    settings: Settings,
    fitted: FittedTree,
    draws: int,
    generator: np.random.Generator,
) -> list[FittedTree]:
    """Modes under random weights of the rows (Rubin 1981; of likelihoods Newton and Raftery 1994).

    Their spread is what another sample of rows would change: the sandwich covariance, when rows are many. The prior and
    the scales stay as they are, so that coefficients of features which do not occur in the rows do not vary, and the spread
    of what the data say little of is too small; NUTS has no such gap.

    Parameters
    ----------
    tree : Taxonomy
    rows : Rows
    shape : ScaleShape
    settings : Settings
        Of the fit; how it found its scales does not matter.
    fitted : FittedTree
        Gives the scales, and the deviations at which every refit begins.
    draws : int
    generator : numpy.random.Generator

    Returns
    -------
    list of FittedTree (draws,)

    References
    ----------
    Rubin (1981), The Bayesian bootstrap, Annals of Statistics 9, 130. Newton and Raftery (1994), Approximate Bayesian
    inference with the weighted likelihood bootstrap, JRSS B 56, 3.
    """
    held = replace(settings, scales="fixed", first=fitted.scales, progress=None)
    out = []
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(draws):
            drawn = replace(rows, weight=bootstrap_weights(rows.weight, generator))
            out.append(fit_tree(tree, drawn, shape, held, start=fitted))
    _pass_on(told, out)
    return out


def _pass_on(told: list[warnings.WarningMessage], refits: list[FittedTree]) -> None:
    """One warning for all refits that fell short of their mode; others as they came."""
    short = [one for one in told if issubclass(one.category, ConvergenceWarning)]
    for one in told:
        if one not in short:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    if short:
        warnings.warn(
            f"{len(short)} of {len(refits)} refits of the bootstrap have not reached their modes (up to "
            f"{max(one.gap for one in refits):.3g} above them): raise max_iter",
            ConvergenceWarning,
            stacklevel=3,
        )
