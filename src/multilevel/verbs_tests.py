"""Verbs of a Fit about tests of fixed and random effects."""

from __future__ import annotations


class TestVerbs:
    """Inherited by Fit."""
