"""Weights of comparisons between means: pairwise, with a control, consecutive, polynomial, with the average, one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import OptionError, listing, nearest

__all__ = ["DEFAULT_ADJUST", "METHODS", "contrast_weights", "default_adjust"]

Array = NDArray[np.float64]
DEFAULT_ADJUST = {
    "pairwise": "tukey",
    "revpairwise": "tukey",
    "trt.vs.ctrl": "mvt",
    "consecutive": "mvt",
    "poly": "none",
    "eff": "fdr",
}
METHODS = tuple(DEFAULT_ADJUST)
_POWERS = ("linear", "quadratic", "cubic", "quartic", "degree 5", "degree 6")


def default_adjust(method: str | Mapping[str, Any]) -> str:
    """What a method is adjusted by unless the user says otherwise."""
    return DEFAULT_ADJUST[method] if isinstance(method, str) else "none"


def contrast_weights(
    method: str | Mapping[str, Any], labels: Sequence[str], ref: Any = None, ratios: bool = False
) -> tuple[list[str], Array]:
    """Names and weights (c, k) of comparisons between k means.

    Parameters
    ----------
    method : str or dict
        "pairwise" (each minus every later one), "revpairwise" (each minus every earlier one), "trt.vs.ctrl" (each minus
        the one of `ref`), "consecutive" (each minus the one before), "poly" (orthogonal polynomials on equally spaced
        levels, in small whole numbers, up to degree six), "eff" (each minus the average), or name -> weights: k numbers, or
        label -> number, others zero.
    labels : sequence of str
    ref : label or position, optional
        The control of "trt.vs.ctrl"; default the first.
    ratios : bool
        Name differences as ratios, which those of logarithms are.

    Raises
    ------
    OptionError
        For an unknown method or reference, or weights that do not fit.
    """
    if isinstance(method, Mapping):
        names, weights = list(map(str, method)), [_own(str(n), w, labels) for n, w in method.items()]
        if not names:
            raise OptionError("the dict of contrasts is empty; give a name and weights, such as {'A - B': [1, -1, 0]}")
        return names, np.array(weights)
    if method not in METHODS:
        hint = nearest(method, METHODS) or f"allowed are {listing(METHODS)}, or a dict of name to weights"
        raise OptionError(f"method {method!r} is not known; {hint}")
    if ref is not None and method != "trt.vs.ctrl":
        raise OptionError(f"ref is for method 'trt.vs.ctrl' only, not for {method!r}")
    k = len(labels)
    if method == "eff":
        return [f"{label} effect" for label in labels], np.eye(k) - 1 / k
    if method == "poly":
        return _polynomials(k)
    if method == "pairwise":
        pairs = [(i, j) for i in range(k) for j in range(i + 1, k)]
    elif method == "revpairwise":
        pairs = [(i, j) for i in range(1, k) for j in range(i)]
    elif method == "consecutive":
        pairs = [(i + 1, i) for i in range(k - 1)]
    else:
        control = _control(ref, labels)
        pairs = [(i, control) for i in range(k) if i != control]
    weights_of = np.zeros((len(pairs), k))
    for row, (plus, minus) in enumerate(pairs):
        weights_of[row, plus], weights_of[row, minus] = 1.0, -1.0
    return [f"{labels[i]} {'/' if ratios else '-'} {labels[j]}" for i, j in pairs], weights_of


def _own(name: str, given: Any, labels: Sequence[str]) -> list[float]:
    """One row of the user's weights."""
    k = len(labels)
    if isinstance(given, Mapping):
        place = {label: i for i, label in enumerate(labels)}
        out: list[Any] = [0.0] * k
        for key, value in given.items():
            if str(key) not in place:
                hint = nearest(key, labels) or f"they are {listing(labels)}"
                raise OptionError(f"the contrast {name!r} names {str(key)!r}, which is none of the means; {hint}")
            out[place[str(key)]] = value
    else:
        out = list(given) if np.iterable(given) and not isinstance(given, str) else [given]
    try:
        weights = [float(value) for value in out]
    except (TypeError, ValueError):
        weights = [np.nan]
    if len(weights) != k or not np.isfinite(weights).all() or not any(weights):
        raise OptionError(
            f"the contrast {name!r} needs {k} numbers that are not all zero, one for each of {listing(labels)}; got {given!r}"
        )
    return weights


def _control(ref: Any, labels: Sequence[str]) -> int:
    if ref is None:
        return 0
    if str(ref) in labels:
        return list(labels).index(str(ref))
    if isinstance(ref, (int, np.integer)) and not isinstance(ref, bool) and -len(labels) <= ref < len(labels):
        return int(ref) % len(labels)
    hint = nearest(ref, labels) or f"they are {listing(labels)}"
    raise OptionError(f"ref {ref!r} is none of the means; {hint}")


def _polynomials(k: int) -> tuple[list[str], Array]:
    """Orthogonal polynomials, each scaled until its weights are whole numbers (emmeans' rule)."""
    degree = min(len(_POWERS), k - 1)
    scores = np.arange(k) - (k - 1) / 2
    basis = np.linalg.qr(np.vander(scores, degree + 1, increasing=True))[0][:, 1:] if degree > 0 else np.empty((k, 0))
    out = []
    for column in basis.T:
        weights = column if column[-1] > 0 else -column
        weights = weights / weights[weights > 0.01].min()
        rest = np.abs(weights - np.round(weights)).max()
        while rest > 0.05:
            weights = weights / rest
            rest = np.abs(weights - np.round(weights)).max()
        out.append(np.round(weights))
    return list(_POWERS[:degree]), np.array(out).reshape(degree, k)
