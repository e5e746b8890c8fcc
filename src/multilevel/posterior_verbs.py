"""Verbs of a Posterior about means, shares of variance and broom's tables."""

from __future__ import annotations


class PosteriorVerbs:
    """Inherited by Posterior."""
