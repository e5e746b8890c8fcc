"""Verbs of a Fit about means, contrasts and slopes in the user's units."""

from __future__ import annotations


class MeanVerbs:
    """Inherited by Fit."""
