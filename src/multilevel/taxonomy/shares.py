"""Probabilities for other shares of the classes than those of the training items."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import OptionError
from .tree import Taxonomy

__all__ = ["log_factors", "log_probabilities", "positive_shares", "reweighted"]

Floats = npt.NDArray[np.float64]

NAMES = "'train', 'uniform', 'calibrated'"


def positive_shares(shares: Floats) -> Floats:
    """Training shares of the leaves; a leaf without items counts as the rarest that has some."""
    return np.where(shares > 0, shares, shares[shares > 0].min())


def log_factors(tree: Taxonomy, shares: Floats, prior: Any) -> Floats | None:
    """Logarithm of what each leaf's probability is multiplied by, (leaves,); None where nothing changes.

    Parameters
    ----------
    tree : Taxonomy
    shares : array (leaves,)
        Of the training items.
    prior : "train", "uniform", float, array (leaves,) or dict
        Whose meaning `DecisionVerbs.predict_proba` documents.

    Raises
    ------
    OptionError
        A prior of another kind, negative shares, classes without a share.
    """
    if isinstance(prior, str):
        if prior not in ("train", "uniform"):
            raise OptionError(f"prior={prior!r} is not known: take {NAMES}, a number, leaf shares or a dict by class")
        return None if prior == "train" else -np.log(positive_shares(shares))
    if hasattr(prior, "items") and hasattr(prior, "index"):  # a pandas Series: by its labels, not its order
        prior = dict(prior.items())
    if isinstance(prior, Mapping):
        new = _shares_by_class(tree, shares, prior)
    else:
        new = _numbers(tree, prior)
        if new.ndim == 0:
            return None if new == 0 else -float(new) * np.log(positive_shares(shares))
    with np.errstate(divide="ignore"):  # a class that cannot occur has the logarithm -inf
        return np.asarray(np.log(new / new.sum()) - np.log(positive_shares(shares)))


def log_probabilities(p: Floats) -> Floats:
    """Logarithms, of the smallest number where a probability is too small to be one."""
    return np.asarray(np.log(np.maximum(p, np.finfo(np.float64).tiny)))


def reweighted(p: Floats, factors: Floats | None, temperature: float = 1.0) -> Floats:
    """p^(1 / temperature) times exp(factors), brought to rows that sum to one; (rows, leaves)."""
    if factors is None and temperature == 1.0:
        return p
    z = log_probabilities(p) / temperature
    if factors is not None:
        z += factors
    z -= z.max(axis=1, keepdims=True)
    np.exp(z, out=z)
    z /= z.sum(axis=1, keepdims=True)
    return z


def _numbers(tree: Taxonomy, prior: Any) -> Floats:
    try:
        if prior is None or isinstance(prior, (bool, np.bool_)):
            raise TypeError
        new = np.asarray(prior, dtype=np.float64)
    except (TypeError, ValueError):
        raise OptionError(
            f"prior={prior!r} must be {NAMES}, a number, {len(tree.leaves)} leaf shares or a dict by class"
        ) from None
    if not np.all(np.isfinite(new)):
        raise OptionError(f"prior={prior!r} has values that are not finite numbers")
    if new.ndim == 0:
        return new
    if new.shape != tree.leaves.shape:
        raise OptionError(f"prior has the shape {new.shape}: give a share for each of the {len(tree.leaves)} leaves")
    _check_shares(new, [tree.labels[node] for node in tree.leaves])
    return new


def _shares_by_class(tree: Taxonomy, shares: Floats, prior: Mapping[Any, Any]) -> Floats:
    """Leaf shares of a dict; a node's share is split over its leaves as the training items are."""
    new = np.full(len(tree.leaves), np.nan)
    known = positive_shares(shares)
    _check_shares(np.array([_share(label, value) for label, value in prior.items()]), list(prior))
    for label, value in prior.items():
        node = tree.node(label)
        below = slice(tree.first[node], tree.last[node])
        if not np.all(np.isnan(new[below])):
            raise OptionError(
                f"prior gives {label!r} a share and also a class above or below it: give each leaf one share"
            )
        new[below] = float(value) * known[below] / known[below].sum()
    if np.any(np.isnan(new)):
        without = np.flatnonzero(np.isnan(new))
        missing = tree.labels[tree.leaves[without[0]]]
        raise OptionError(
            f"prior has no share for {missing!r} ({len(without)} such leaves): name it or a class above it"
        )
    return new


def _share(label: Any, value: Any) -> float:
    if not isinstance(value, (int, float, np.number)):
        raise OptionError(f"prior of {label!r} is {value!r}: give a number that is not negative")
    return float(value)


def _check_shares(new: Floats, labels: list[Any]) -> None:
    wrong = np.flatnonzero(~(np.isfinite(new) & (new >= 0)))
    if len(wrong):
        raise OptionError(f"prior of {labels[wrong[0]]!r} is {new[wrong[0]]}: give a number that is not negative")
    if not new.sum() > 0:
        raise OptionError("all shares of prior are 0: at least one class must occur")
