"""Posterior probability of statements about parameters."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import OptionError
from .hypotheses import Reader

if TYPE_CHECKING:
    from .posterior import Posterior


def hypothesis(posterior: Posterior, text: Any, level: float) -> Any:
    """See `Posterior.hypothesis`."""
    from .inference import check_level

    check_level(level)
    texts = [text] if isinstance(text, str) else text
    if not isinstance(texts, (list, tuple)) or not texts or not all(isinstance(t, str) for t in texts):
        raise OptionError(f"a hypothesis is a text such as 'homework > 0', or a list of them; got {text!r}")
    kept = posterior.draws_kept
    names = [*posterior.design.names, *(c.name for c in kept.coordinates)]
    values = np.concatenate([kept.beta, kept.scalars], axis=2).reshape(-1, len(names))
    rows = [_one(t, names, values, level) for t in texts]
    columns = ("hypothesis", "estimate", "est_error", "ci_low", "ci_high", "probability")
    types = (object, *[float] * 5)
    return posterior._frame({n: np.array([r[i] for r in rows], dtype=types[i]) for i, n in enumerate(columns)})


def _one(text: str, names: list[str], values: Any, level: float) -> tuple[Any, ...]:
    found = re.findall(r"[<>]=?", text)
    if len(found) > 1:
        raise OptionError(f"the hypothesis {text!r} compares more than once; write one comparison each, in a list")
    sign = found[0][0] if found else "="
    row, target = Reader(re.sub(r"[<>]=?", "=", text), names).equation()
    difference = values @ row - target
    low, high = np.quantile(difference, [(1 - level) / 2, (1 + level) / 2])
    probability = {"=": np.nan, ">": float((difference > 0).mean()), "<": float((difference < 0).mean())}[sign]
    label = " ".join(text.split()) + ("" if found or "=" in text else " = 0")
    return label, difference.mean(), difference.std(ddof=1), low, high, probability

